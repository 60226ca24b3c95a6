//! Running a program of the real root, for the operator's own commands and nothing else.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::{Result, WhileDoing};

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
    let mut child = spawn(root, program, arguments, environment, input).while_doing(doing)?;
    let followed = follow(&child, output, listen);
    // Reaped in any case, or it stays in the process table as long as we do.
    let status = child.wait().while_doing(doing)?;
    followed.while_doing(doing)?;
    Ok(status)
}

fn spawn(
    root: &Path,
    program: &str,
    arguments: &[&str],
    environment: &[(String, String)],
    output: OwnedFd,
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
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        Ok(())
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stderr(output.try_clone()?)
        .stdout(output);
    // SAFETY: between fork and exec `enter` makes system calls only: it neither allocates nor
    // takes a lock that another thread may have held at the fork.
    unsafe { command.pre_exec(enter) };
    // The mask of signals and SIGPIPE are put right by std. `command` ends here, and with it our
    // copies of the writing end.
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

    #[test]
    #[ignore = "needs root, for chroot"]
    fn what_stays_in_the_background_is_not_waited_for() {
        let began = Instant::now();
        let (status, lines) = run("sleep 30 & echo $!");
        assert!(status.unwrap().success());
        assert!(began.elapsed().as_secs() < 5);
        run(&format!("kill {}", lines[0])).0.unwrap();
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
