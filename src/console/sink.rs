//! The one backend of `log`: every active console, and the kernel log for journald.
//!
//! Lines go to the terminals directly and not through printk, because printk cannot redraw and is
//! silenced by `quiet`. So that nothing is said twice, the kernel's own console level is lowered
//! to errors while the agent runs, our records in `/dev/kmsg` never go above warning, and the
//! level is put back before the real init starts. Where the operator asked the kernel to be loud
//! (`debug`, `ignore_loglevel`), the kernel prints our records as well and the terminals are left
//! to it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::line::{console_line, kmsg_records, printable};
use crate::sys;

/// How much of the agent's own speech reaches the terminals.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loudness {
    /// `quiet`: warnings, failures, long waits.
    Quiet,
    Normal,
    /// `landfall.debug`
    Debug,
}

struct Terminal {
    path: String,
    file: File,
    /// A virtual terminal redraws in place; a serial line is a log somewhere.
    redraws: bool,
    /// A line without its end stands there.
    open_line: bool,
    /// It has taken nothing for a while.
    stuck: bool,
}

struct State {
    terminals: Vec<Terminal>,
    kmsg: Option<File>,
    loudness: Loudness,
    kernel_prints_for_us: bool,
    printk_before: Option<String>,
    warnings: Vec<String>,
    /// How many of them have been said in a block already.
    repeated: usize,
}

struct Sink;

static SINK: Sink = Sink;

static STATE: Mutex<State> = Mutex::new(State {
    terminals: Vec::new(),
    kmsg: None,
    loudness: Loudness::Normal,
    kernel_prints_for_us: false,
    printk_before: None,
    warnings: Vec::new(),
    repeated: 0,
});

/// Begins to speak: on `/dev/console` alone, until [`attach`] knows better.
pub fn start() {
    with(|state| {
        state.terminals = terminal("/dev/console").into_iter().collect();
        state.kmsg = OpenOptions::new().write(true).open("/dev/kmsg").ok();
    });
    // A second start (there is none) keeps the first backend, which is the same.
    let _ = log::set_logger(&SINK);
    log::set_max_level(LevelFilter::Debug);
    super::wait::start_ticker();
}

/// Takes every active console, once `/sys` and `/proc` are there.
pub fn attach(loudness: Loudness, command_line_is_loud: bool) {
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let mut terminals: Vec<Terminal> = active
        .split_ascii_whitespace()
        // tty0 is whichever virtual terminal is in front.
        .filter_map(|name| terminal(&format!("/dev/{name}")))
        .collect();
    with(|state| {
        if !terminals.is_empty() {
            state.terminals = std::mem::take(&mut terminals);
        }
        // The devtmpfs has come since the start.
        state.kmsg = OpenOptions::new().write(true).open("/dev/kmsg").ok();
        state.loudness = loudness;
        state.kernel_prints_for_us = command_line_is_loud;
        if !command_line_is_loud {
            state.printk_before = fs::read_to_string("/proc/sys/kernel/printk").ok();
        }
    });
    // Otherwise records of PID 1 are rate limited, and dropped while write(2) reports success.
    // The kernel takes the word only with the end of its line.
    let _ = fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
    if !command_line_is_loud {
        let _ = fs::write("/proc/sys/kernel/printk", "4");
    }
}

/// Gives the console back as it was: the real init has its own ideas of it.
pub fn leave() {
    with(give_back);
}

/// [`leave`] for a thread that dies, perhaps with the console in its hands.
pub(super) fn leave_if_free() {
    if let Ok(mut state) = STATE.try_lock() {
        give_back(&mut state);
    }
}

fn give_back(state: &mut State) {
    close_lines(state);
    if let Some(before) = &state.printk_before {
        let level = before.split_ascii_whitespace().next().unwrap_or("7");
        let _ = fs::write("/proc/sys/kernel/printk", level);
    }
}

/// All warnings so far.
pub fn warnings() -> Vec<String> {
    with(|state| state.warnings.clone())
}

/// Says all warnings again in one block: they have scrolled away, and the boot is about to be
/// somebody else's.
pub fn repeat_warnings() {
    with(|state| {
        let warnings = state.warnings.get(state.repeated..).unwrap_or_default().to_vec();
        state.repeated = state.warnings.len();
        if warnings.is_empty() {
            return;
        }
        let head = match warnings.len() {
            1 => "1 warning on the way:".to_owned(),
            many => format!("{many} warnings on the way:"),
        };
        put_on_terminals(state, &console_line(uptime(), "landfall", &head));
        for warning in warnings {
            put_on_terminals(state, &format!("             {warning}"));
        }
    });
}

/// Writes one line on the terminals only; for the failure screen, whose text is in the kernel log
/// already, and for waits.
pub(super) fn on_terminals(subject: &str, text: &str) {
    with(|state| put_on_terminals(state, &console_line(uptime(), subject, &printable(text))));
}

/// Shows a line that may be replaced by the next one: drawn in place where the terminal can, and
/// said as an ordinary line elsewhere if `sparse` allows it.
pub(super) fn transient(subject: &str, text: &str, sparse: bool) {
    let line = console_line(uptime(), subject, &printable(text));
    with(|state| {
        for terminal in &mut state.terminals {
            if terminal.redraws {
                let row = terminal.row(&line);
                terminal.put(&format!("\r\x1b[K{row}"));
                terminal.open_line = true;
            } else if sparse {
                terminal.put(&format!("{line}\r\n"));
            }
        }
    });
}

impl Log for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Dependencies have module paths as targets; what they find worth a warning is enough.
        metadata.level() <= Level::Warn
            || !metadata.target().contains("::") && is_ours(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = printable(&record.args().to_string());
        let subject = record.target();
        // Never above warning, see the module's text.
        let priority = match record.level() {
            Level::Error | Level::Warn => 4,
            Level::Info => 6,
            Level::Debug | Level::Trace => 7,
        };
        with(|state| {
            if let Some(kmsg) = &mut state.kmsg {
                for piece in kmsg_records(priority, subject, &text) {
                    let _ = kmsg.write_all(piece.as_bytes());
                }
            }
            let least = match record.level() {
                Level::Error | Level::Warn => Loudness::Quiet,
                Level::Info => Loudness::Normal,
                Level::Debug | Level::Trace => Loudness::Debug,
            };
            let warning = record.level() == Level::Warn;
            if warning && state.warnings.len() < 200 {
                state.warnings.push(format!("{subject}: {text}"));
            }
            if state.loudness >= least && !state.kernel_prints_for_us {
                let text = if warning { format!("warning: {text}") } else { text };
                put_on_terminals(state, &console_line(uptime(), subject, &text));
            }
        });
    }

    fn flush(&self) {}
}

/// The agent names its subjects in plain words; crates use their own names.
fn is_ours(target: &str) -> bool {
    !matches!(
        target,
        "rustls" | "ureq" | "ureq_proto" | "netlink_proto" | "rtnetlink" | "mio" | "tokio"
    )
}

fn put_on_terminals(state: &mut State, line: &str) {
    close_lines(state);
    for terminal in &mut state.terminals {
        // The carriage return is ours: before userspace has set the line discipline a serial
        // console may not add it.
        terminal.put(&format!("{line}\r\n"));
    }
}

fn close_lines(state: &mut State) {
    for terminal in &mut state.terminals {
        if std::mem::take(&mut terminal.open_line) {
            terminal.put("\r\x1b[K");
        }
    }
}

impl Terminal {
    /// One write for all of it, so that the kernel's own lines do not cut it. No failure of a
    /// terminal may stop a boot.
    fn put(&mut self, text: &str) {
        let written = self.write(text.as_bytes());
        // The kernel hangs up every descriptor of a terminal when the shell that controlled it
        // ends; the terminal itself is well.
        if written.is_err_and(|error| error.raw_os_error() == Some(libc::EIO))
            && let Ok(file) = open_terminal(&self.path)
        {
            self.file = file;
            let _ = self.write(text.as_bytes());
        }
    }

    /// A serial line takes 4 KiB at once and some hundred bytes a second: the failure screen
    /// would be cut short if nobody waited for it. One that has taken nothing for a while is
    /// stuck (flow control, and nobody at the other end), and is not waited for again.
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        const PATIENCE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(count) => {
                    self.stuck = false;
                    bytes = bytes.get(count..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.stuck => {
                    let mut room = [PollFd::new(&self.file, PollFlags::OUT)];
                    self.stuck = poll(&mut room, Some(&PATIENCE)).unwrap_or(0) == 0;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What fits on one row: a longer line would wrap, and only its last row be drawn over.
    fn row<'a>(&self, line: &'a str) -> &'a str {
        let columns = rustix::termios::tcgetwinsize(&self.file).map_or(0, |size| size.ws_col);
        let columns = if columns == 0 { 80 } else { usize::from(columns) };
        let end = line.char_indices().nth(columns.saturating_sub(1)).map(|(at, _)| at);
        end.and_then(|end| line.get(..end)).unwrap_or(line)
    }
}

fn open_terminal(path: &str) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        // O_NONBLOCK: a serial line under flow control whose cable hangs must not stop the boot.
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
        .open(path)
}

fn terminal(path: &str) -> Option<Terminal> {
    let file = open_terminal(path).ok()?;
    let name = path.strip_prefix("/dev/tty").unwrap_or_default();
    let redraws = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    Some(Terminal { path: path.to_owned(), file, redraws, open_line: false, stuck: false })
}

pub(super) fn uptime() -> Duration {
    sys::clock::since_boot()
}

/// A thread that died while it held the lock must not silence the console for good.
fn with<T>(act: impl FnOnce(&mut State) -> T) -> T {
    let mut state = match STATE.lock() {
        Ok(state) => state,
        Err(poisoned) => poisoned.into_inner(),
    };
    act(&mut state)
}
