//! A machine that is switched on, as somebody in front of its console sees it.

use std::fs;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Child;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::console::Console;
use crate::node::Node;
use crate::protocol::{Hello, Reply};
use crate::qmp::Qmp;

/// Long enough for any step of a boot on a slow, busy host without KVM. Nothing waits for it but
/// a failing test.
const PATIENCE: Duration = Duration::from_secs(180);

/// Switched off when dropped.
pub struct Machine {
    qemu: Child,
    console: Console,
    control: UnixStream,
    reader: Option<(Console, UnixStream)>,
    monitor: Mutex<Qmp>,
    started: Instant,
}

/// What a new QEMU connects to.
pub(crate) struct Listeners {
    pub control: UnixListener,
    pub monitor: UnixListener,
    /// Of a machine with a third serial port.
    pub reader: Option<UnixListener>,
}

/// The name of a card's other end in QEMU.
pub(crate) fn cable(nic: usize) -> String {
    format!("net{nic}")
}

impl Machine {
    pub(crate) fn new(
        mut qemu: Child,
        console: Console,
        listeners: &Listeners,
        errors: &Path,
    ) -> Result<Self> {
        let started = Instant::now();
        let mut accept = |listener: &UnixListener| -> Result<UnixStream> {
            // QEMU connects before it starts the machine, or exits because of its arguments; in the
            // second case nobody would ever connect.
            listener.set_nonblocking(true)?;
            let stream = loop {
                match listener.accept() {
                    Ok((stream, _)) => break stream,
                    Err(_) if started.elapsed() < Duration::from_secs(10) => {
                        if let Some(status) = qemu.try_wait()? {
                            bail!("qemu: {status}: {}", fs::read_to_string(errors)?.trim());
                        }
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    Err(error) => return Err(error).context("waiting for qemu to connect"),
                }
            };
            stream.set_nonblocking(false)?;
            Ok(stream)
        };
        let (control, monitor) = (accept(&listeners.control)?, accept(&listeners.monitor)?);
        let reader = listeners.reader.as_ref().map(&mut accept).transpose()?;
        console.follow_control(control.try_clone()?);
        let reader = match reader {
            Some(port) => {
                let console = Console::default();
                console.follow_control(port.try_clone()?);
                Some((console, port))
            }
            None => None,
        };
        let monitor = Mutex::new(Qmp::greet(monitor)?);
        Ok(Self { qemu, console, control, reader, monitor, started })
    }

    /// Plugs the cable of a card in, or pulls it out: the card gets or loses its carrier. Cards
    /// count from 0.
    pub fn cable(&self, nic: usize, plugged: bool) -> Result<()> {
        let arguments = serde_json::json!({ "name": cable(nic), "up": plugged });
        let mut monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner);
        monitor.execute("set_link", &arguments).map(drop)
    }

    /// Tells its first CPU that something is wrong with the hardware.
    pub fn nmi(&self) -> Result<()> {
        let mut monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner);
        monitor.execute("inject-nmi", &serde_json::json!({})).map(drop)
    }

    /// Waits for the probe to speak. A boot that stops at the failure screen, or a kernel that
    /// panics, is an error at once.
    pub fn node(&self) -> Result<Node<'_>> {
        self.node_within(PATIENCE)
    }

    pub fn node_within(&self, within: Duration) -> Result<Node<'_>> {
        let mut seen = 0;
        let hello = self.console.wait("the probe", within, |heard| {
            while let Some(line) = heard.control.pop_front() {
                // UEFI firmware has a console on this port, too, and clears the screen without the
                // end of a line.
                if let Some(hello) = line.find('{').and_then(|at| line.get(at..)) {
                    // To what was begun in the system before, which had the time to say it.
                    if serde_json::from_str::<Reply>(hello).is_ok() {
                        continue;
                    }
                    return Some(serde_json::from_str::<Hello>(hello).context(line.clone()));
                }
            }
            let fresh = &heard.lines[seen..];
            seen = heard.lines.len();
            let fatal = |line: &&String| {
                let ends = ["FAILED in stage", "Kernel panic - not syncing"];
                // Firmware that has found nothing to start.
                let nothing = ["No bootable device", "UEFI Interactive Shell"];
                ends.iter().chain(&nothing).any(|text| line.contains(text))
            };
            let line = fresh.iter().find(fatal)?;
            let tail = heard.tail();
            Some(Err(anyhow::anyhow!("the boot failed: {line}\n{tail}")))
        })?;
        Ok(Node::new(self, hello))
    }

    /// The first console line with this text, whether said already or to come.
    pub fn line(&self, text: &str) -> Result<String> {
        self.line_within(text, PATIENCE)
    }

    pub fn line_within(&self, text: &str, within: Duration) -> Result<String> {
        self.console.line(&format!("{text:?}"), within, |line| line.contains(text))
    }

    /// The boot must end on the failure screen of this stage, and the screen must have all these
    /// words on it, in one line or in several.
    pub fn failed_in(&self, stage: &str, words: &[&str]) -> Result<()> {
        let title = format!("FAILED in stage {stage}");
        self.line(&title)?;
        for text in words {
            self.console.line(
                &format!("{text:?} on the failure screen"),
                Duration::from_secs(5),
                {
                    let title = &title;
                    let after = std::cell::Cell::new(false);
                    move |line| {
                        after.set(after.get() || line.contains(title));
                        after.get() && line.contains(text)
                    }
                },
            )?;
        }
        Ok(())
    }

    /// Everything on the console so far.
    pub fn console(&self) -> Vec<String> {
        self.console.lines()
    }

    /// No line so far has this text.
    pub fn never_said(&self, text: &str) -> Result<()> {
        match self.console().into_iter().find(|line| line.contains(text)) {
            Some(line) => bail!("the console says {line:?}"),
            None => Ok(()),
        }
    }

    /// Types on the machine's serial console.
    pub fn type_line(&mut self, text: &str) -> Result<()> {
        let keyboard = self.qemu.stdin.as_mut().context("this console is somebody's terminal")?;
        keyboard.write_all(format!("{text}\r").as_bytes())?;
        Ok(keyboard.flush()?)
    }

    /// Since the machine was switched on.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits for the guest to switch itself off (`Power down`) or to reset (`Restarting system`),
    /// as the kernel's last line tells which; either ends the machine.
    pub fn ended_by(&mut self, last_line: &str, within: Duration) -> Result<()> {
        self.line_within(&format!("reboot: {last_line}"), within)?;
        self.gone(Duration::from_secs(20))
    }

    /// Waits until the machine is off, whoever did it.
    pub fn gone(&mut self, within: Duration) -> Result<()> {
        self.console.wait("the machine's end", within, |heard| heard.ended.then_some(Ok(())))?;
        let status = self.qemu.wait()?;
        ensure!(status.success(), "qemu: {status}");
        Ok(())
    }

    pub(crate) fn reader_port(&self) -> Result<(&Console, &UnixStream)> {
        let (console, port) = self.reader.as_ref().context("a machine without a reader's port")?;
        Ok((console, port))
    }

    /// Adds what a person looks at first.
    pub(crate) fn with_console(&self, error: anyhow::Error) -> anyhow::Error {
        anyhow::anyhow!("{error:#}\n{}", self.console.tail())
    }

    pub(crate) fn control(&self) -> (&Console, &UnixStream) {
        (&self.console, &self.control)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
