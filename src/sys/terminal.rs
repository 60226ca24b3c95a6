//! A child that owns a terminal.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Runs `busybox sh` as the leader of a session on `terminal` and waits for it.
pub fn run_shell(busybox: &Path, terminal: &Path) -> io::Result<()> {
    let open = || OpenOptions::new().read(true).write(true).open(terminal);
    let mut command = Command::new(busybox);
    command
        .arg0("sh")
        .arg("-l")
        .env_clear()
        .envs([
            ("PATH", "/bin:/sbin:/usr/bin:/usr/sbin"),
            ("HOME", "/"),
            ("TERM", "linux"),
            ("PS1", "landfall# "),
        ])
        .current_dir("/")
        .stdin(open()?)
        .stdout(open()?)
        .stderr(open()?);
    // SAFETY: between fork and exec only async-signal-safe system calls are made, on descriptors
    // that the child has.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            // Without a controlling terminal there is no Ctrl-C; the shell works all the same.
            let _ = rustix::process::ioctl_tiocsctty(rustix::stdio::stdin());
            Ok(())
        });
    }
    command.status().map(drop)
}
