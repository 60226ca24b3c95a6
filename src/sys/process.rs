//! Running a program of the real root, for the operator's own commands and nothing else.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::error::{Error, Result, WhileDoing};

/// What a running program lets us know.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// One line of its output or of its errors, without control characters.
    Line(&'a str),
    /// Another second has passed.
    Running,
}

/// Runs `program` with `arguments` inside `root` and waits for its end.
///
/// Its environment is exactly `environment`, its input is empty, its working directory `/`, its
/// session its own; signals are as they were when the kernel started us. Standard output and error
/// arrive at `listen` line by line. What it left running in the background is not waited for, and
/// finds nobody at the other end of its output from then on.
///
/// Must not run beside somebody who reaps all children, or the status is lost.
pub fn run_in_root(
    root: &Path,
    program: &str,
    arguments: &[&str],
    environment: &[(String, String)],
    listen: &mut dyn FnMut(News<'_>),
) -> Result<ExitStatus> {
    let doing = || format!("running {program} in {}", root.display());
    let (output, input) = pipe_with(PipeFlags::CLOEXEC).while_doing(doing)?;
    // Ours only: the two ends have flags of their own.
    fcntl_setfl(&output, OFlags::NONBLOCK).while_doing(doing)?;
    let errors = input.try_clone().while_doing(doing)?;
    let mut child =
        spawn(root, program, arguments, environment, input, errors).while_doing(doing)?;
    let followed = follow(&child, output, listen);
    // Reaped in any case, or it stays in the process table as long as we do.
    let status = child.wait().while_doing(doing)?;
    followed.while_doing(doing)?;
    Ok(status)
}

/// What a program may use up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of its output.
    pub bytes: usize,
    pub time: Duration,
}

/// Runs like [`run_in_root`], for a standard output that is wanted as it is; errors arrive at
/// `listen` line by line.
///
/// # Errors
/// Also when a limit is passed; then the program has been killed, with all of its process group.
pub fn output_in_root(
    root: &Path,
    program: &str,
    arguments: &[&str],
    environment: &[(String, String)],
    limits: Limits,
    listen: &mut dyn FnMut(News<'_>),
) -> Result<(ExitStatus, Vec<u8>)> {
    let doing = || format!("running {program} in {}", root.display());
    let pipe = || {
        let (output, input) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setfl(&output, OFlags::NONBLOCK)?;
        Ok::<_, rustix::io::Errno>((File::from(output), input))
    };
    let (output, its_output) = pipe().while_doing(doing)?;
    let (errors, its_errors) = pipe().while_doing(doing)?;
    let mut child =
        spawn(root, program, arguments, environment, its_output, its_errors).while_doing(doing)?;
    let collected = collect(&child, output, errors, limits, listen);
    if collected.is_err() {
        // It made a session of its own before it was executed, and is not reaped yet, so the group
        // is its own. Nobody left to kill is as good.
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    }
    let status = child.wait().while_doing(doing)?;
    Ok((status, collected.while_doing(doing)?))
}

fn spawn(
    root: &Path,
    program: &str,
    arguments: &[&str],
    environment: &[(String, String)],
    output: OwnedFd,
    errors: OwnedFd,
) -> io::Result<Child> {
    let root = CString::new(root.as_os_str().as_bytes())?;
    let enter = move || {
        rustix::process::chroot(root.as_c_str())?;
        rustix::process::chdir(c"/")?;
        // Not for the console's Ctrl-C, which is PID 1's to interpret.
        rustix::process::setsid()?;
        for signal in 1..32 {
            // SAFETY: the default action is no pointer, and signal(2) may be called after a fork.
            // KILL and STOP are refused, which changes nothing.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        // std lets a child inherit the mask, and a root handler has blocked what may stop it.
        SigSet::empty().thread_set_mask()?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        Ok(())
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stderr(errors)
        .stdout(output);
    // SAFETY: between fork and exec `enter` makes system calls only: it neither allocates nor
    // takes a lock that another thread may have held at the fork.
    unsafe { command.pre_exec(enter) };
    // `command` ends here, and with it our copies of the writing end.
    command.spawn()
}

/// Reads `output` until the child has ended.
fn follow(child: &Child, output: OwnedFd, listen: &mut dyn FnMut(News<'_>)) -> io::Result<()> {
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut output = File::from(output);
    let mut lines = Lines::default();
    let mut open = true;
    let second = Timespec { tv_sec: 1, tv_nsec: 0 };
    loop {
        let mut both = [PollFd::new(&ended, PollFlags::IN), PollFd::new(&output, PollFlags::IN)];
        let watched = if open { both.as_mut_slice() } else { both.split_at_mut(1).0 };
        match poll(watched, Some(&second)) {
            Ok(0) => listen(News::Running),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let [ended, _] = both;
        let last = !ended.revents().is_empty();
        // A full pipe and a piece more: somebody in the background may write without an end.
        for _ in 0..32 {
            match lines.read(&mut output, listen) {
                Ok(0) => {
                    open = false;
                    break;
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if last {
            lines.end(listen);
            return Ok(());
        }
    }
}

/// Reads both until the child has ended; gives the output.
fn collect(
    child: &Child,
    mut output: File,
    mut errors: File,
    limits: Limits,
    listen: &mut dyn FnMut(News<'_>),
) -> Result<Vec<u8>> {
    let doing = "waiting for its end";
    let began = Instant::now();
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).while_doing(|| doing)?;
    let mut bytes = Vec::new();
    let mut lines = Lines::default();
    let (mut more_output, mut more_errors) = (true, true);
    loop {
        let left = limits.time.saturating_sub(began.elapsed());
        if left.is_zero() {
            let why = format!("it is not done after {:.0} s", limits.time.as_secs_f32());
            return Err(Error::refused(doing, why));
        }
        let mut watched = vec![PollFd::new(&ended, PollFlags::IN)];
        let pipes = [(&output, more_output), (&errors, more_errors)];
        let open = pipes.into_iter().filter(|(_, more)| *more);
        watched.extend(open.map(|(pipe, _)| PollFd::new(pipe, PollFlags::IN)));
        let wait = left.min(Duration::from_secs(1));
        match poll(&mut watched, Timespec::try_from(wait).ok().as_ref()) {
            Ok(0) => listen(News::Running),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::new(doing, errno)),
        }
        let last = watched.first().is_some_and(|ended| !ended.revents().is_empty());
        let room = limits.bytes.saturating_sub(bytes.len()).saturating_add(1);
        let read = output.by_ref().take(room as u64).read_to_end(&mut bytes);
        more_output &= goes_on(read).while_doing(|| doing)?;
        if bytes.len() > limits.bytes {
            let why = format!("its output has more than {} bytes", limits.bytes);
            return Err(Error::refused(doing, why));
        }
        for _ in 0..32 {
            let read = lines.read(&mut errors, listen);
            let some = matches!(read, Ok(1..));
            more_errors &= goes_on(read).while_doing(|| doing)?;
            if !some {
                break;
            }
        }
        if last {
            lines.end(listen);
            return Ok(bytes);
        }
    }
}

/// Whether a pipe that does not block has not ended.
fn goes_on(read: io::Result<usize>) -> io::Result<bool> {
    match read {
        Ok(length) => Ok(length > 0),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// Cuts output into lines.
#[derive(Default)]
struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// A record of the kernel log is not longer.
    const LONGEST: usize = 800;

    fn read(&mut self, output: &mut File, listen: &mut dyn FnMut(News<'_>)) -> io::Result<usize> {
        let mut piece = [0; 4096];
        let length = output.read(&mut piece)?;
        for byte in piece.get(..length).unwrap_or_default() {
            match byte {
                b'\n' => self.say(listen),
                _ => {
                    self.pending.push(*byte);
                    if self.pending.len() >= Self::LONGEST {
                        self.say(listen);
                    }
                }
            }
        }
        Ok(length)
    }

    fn say(&mut self, listen: &mut dyn FnMut(News<'_>)) {
        let line = String::from_utf8_lossy(&self.pending);
        // A progress bar redraws its line; only its last state is worth a line of ours.
        let line = line.trim_end().rsplit('\r').next().unwrap_or_default();
        let line = line.replace(|character: char| character.is_control() && character != '\t', "");
        listen(News::Line(&line));
        self.pending.clear();
    }

    fn end(&mut self, listen: &mut dyn FnMut(News<'_>)) {
        if !self.pending.is_empty() {
            self.say(listen);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// chroot(2) needs rights that the tests may lack; entering `/` needs them as well.
    fn run(script: &str) -> (Result<ExitStatus>, Vec<String>) {
        let mut lines = Vec::new();
        let environment = [("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
        let status =
            run_in_root(Path::new("/"), "/bin/sh", &["-c", script], &environment, &mut |news| {
                if let News::Line(line) = news {
                    lines.push(line.to_owned());
                }
            });
        (status, lines)
    }

    #[test]
    #[ignore = "needs root, for chroot"]
    fn a_command_is_heard_and_its_status_is_known() {
        let (status, lines) =
            run("pwd; echo two >&2; printf '10%%\\r99%%\\n\\033[2Jthree'; exit 3");
        assert_eq!(status.unwrap().code(), Some(3));
        assert_eq!(lines, ["/", "two", "99%", "[2Jthree"]);
        assert_eq!(run("cat; echo end").1, ["end"], "its input is empty");
        assert_eq!(run("kill -TERM $$").0.unwrap().code(), None);
    }

    /// A root handler has blocked SIGTERM, which `timeout` and a later shutdown need.
    #[test]
    #[ignore = "needs root, for chroot"]
    fn a_command_can_be_ended_by_a_signal_that_is_blocked_here() {
        let mut blocked = SigSet::empty();
        blocked.add(nix::sys::signal::Signal::SIGTERM);
        blocked.thread_block().unwrap();
        let (_, lines) = run("grep SigBlk /proc/self/status");
        blocked.thread_unblock().unwrap();
        assert_eq!(lines, ["SigBlk:\t0000000000000000"]);
    }

    #[test]
    #[ignore = "needs root, for chroot"]
    fn what_stays_in_the_background_is_not_waited_for() {
        let began = Instant::now();
        let (status, lines) = run("sleep 30 & echo $!");
        assert!(status.unwrap().success());
        assert!(began.elapsed().as_secs() < 5);
        run(&format!("kill {}", lines[0])).0.unwrap();
    }

    fn output_of(script: &str, milliseconds: u64) -> (Result<(ExitStatus, Vec<u8>)>, Vec<String>) {
        let mut lines = Vec::new();
        let environment = [("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
        let limits = Limits { bytes: 100_000, time: Duration::from_millis(milliseconds) };
        let arguments = ["-c", script];
        let output = output_in_root(
            Path::new("/"),
            "/bin/sh",
            &arguments,
            &environment,
            limits,
            &mut |news| {
                if let News::Line(line) = news {
                    lines.push(line.to_owned());
                }
            },
        );
        (output, lines)
    }

    #[test]
    #[ignore = "needs root, for chroot"]
    fn output_comes_as_it_is_and_apart_from_errors() {
        let (output, lines) =
            output_of("echo one >&2; printf 'a\\r\\n\\n'; echo two >&2; exit 3", 5000);
        let (status, bytes) = output.unwrap();
        assert_eq!((status.code(), bytes.as_slice()), (Some(3), b"a\r\n\n".as_slice()));
        assert_eq!(lines, ["one", "two"]);
        let (output, _) = output_of("head -c 100000 /dev/zero", 5000);
        assert_eq!(output.unwrap().1.len(), 100_000);
        let began = Instant::now();
        let (output, _) = output_of("sleep 30 & printf x", 5000);
        assert_eq!(output.unwrap().1, b"x", "what stays in the background is not waited for");
        assert!(began.elapsed().as_secs() < 4);
    }

    #[test]
    #[ignore = "needs root, for chroot"]
    fn what_passes_a_limit_is_killed_with_all_it_started() {
        let cases = [
            ("echo $$ >&2; sleep 30 | cat", "not done after 1 s"),
            ("echo $$ >&2; exec >&-; exec sleep 30", "not done after 1 s"),
            ("echo $$ >&2; cat /dev/zero | cat", "more than 100000 bytes"),
            ("echo $$ >&2; yes >&2", "not done after 1 s"),
        ];
        for (script, why) in cases {
            let began = Instant::now();
            let (output, lines) = output_of(script, 1000);
            let error = output.unwrap_err().to_string();
            assert!(error.ends_with(why), "{script}: {error}");
            assert!(began.elapsed().as_secs() < 3, "{script}: {:?}", began.elapsed());
            // Nobody of the group is left, but for those whom their new parent has not reaped.
            let group: i32 = lines[0].parse().unwrap();
            let alive = || {
                let folders = std::fs::read_dir("/proc").unwrap().flatten();
                folders
                    .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
                    .any(|stat| {
                        // … (name) state parent group …
                        let fields: Vec<_> =
                            stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
                        fields[2] == group.to_string() && fields[0] != "Z"
                    })
            };
            while alive() {
                assert!(began.elapsed().as_secs() < 10, "{script}: somebody is still there");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    #[test]
    #[ignore = "needs root, for chroot"]
    fn a_root_without_the_program_is_an_error() {
        let empty = tempfile::tempdir().unwrap();
        let result = run_in_root(empty.path(), "/bin/sh", &[], &[], &mut |_| {});
        let text = result.unwrap_err().to_string();
        assert!(text.contains("/bin/sh") && text.contains("No such file"), "{text}");
    }
}
