//! A server process under the harness's control: started, waited for, killed by its number.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::sys;

/// Killed with its whole process group when dropped.
pub struct Daemon {
    child: Child,
    /// The group to kill; another than the child's own if the program has put itself into the
    /// background.
    group: Pid,
    name: String,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` with both outputs in `log`, which is begun anew.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = File::create(log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        let child = sys::bind_to_this_thread(&mut command)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let group = Pid::from_raw(child.id().cast_signed());
        Ok(Self { child, group, name, log: log.to_path_buf() })
    }

    /// Waits until a socket of this network namespace has the state that says "open for business".
    pub fn wait_for(&mut self, socket: Socket) -> Result<()> {
        self.wait_until(&format!("{socket:?}"), || socket.exists())
    }

    /// For a program that goes into the background: waits for the number it leaves in a file,
    /// after which it is that process, and its group, that is killed.
    pub fn wait_for_pid_file(&mut self, path: &Path) -> Result<()> {
        let mut pid = None;
        let read = || {
            let text = fs::read_to_string(path).ok()?;
            // Without the end of its line it may be the half of a number: somebody else's.
            text.strip_suffix('\n')?.trim().parse().ok()
        };
        self.wait_until(&format!("{}", path.display()), || {
            pid = read();
            pid.is_some()
        })?;
        if let Some(pid) = pid {
            self.group = Pid::from_raw(pid);
        }
        Ok(())
    }

    /// The kernel has no event for "somebody listens on this port", hence the one polling loop of
    /// the harness.
    fn wait_until(&mut self, what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
        let started = Instant::now();
        while !done() {
            if let Some(status) = self.child.try_wait()?
                && !status.success()
            {
                bail!("{} ended with {status}:\n{}", self.name, self.log_text());
            }
            if started.elapsed() > Duration::from_secs(20) {
                bail!("{} has no {what} after 20 s:\n{}", self.name, self.log_text());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `SIGKILL` to the whole group; the kernel closes its sockets.
    pub fn kill(mut self) {
        self.end();
    }

    /// `SIGSTOP` to the whole group: its sockets stay, the kernel goes on to acknowledge what comes
    /// in, and nobody answers.
    pub fn hang(&self) -> Result<()> {
        killpg(self.group, Signal::SIGSTOP).with_context(|| format!("stopping {}", self.name))
    }

    /// `SIGCONT`.
    pub fn go_on(&self) -> Result<()> {
        killpg(self.group, Signal::SIGCONT).with_context(|| format!("continuing {}", self.name))
    }

    fn end(&mut self) {
        let _ = killpg(self.group, Signal::SIGKILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}

/// A socket to be found in `/proc/net`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Socket {
    /// In state LISTEN, on either family: one for IPv6 may serve both.
    Tcp(u16),
    /// In state LISTEN, on this address alone.
    TcpOn(Ipv4Addr, u16),
    Udp(u16),
    /// On IPv6.
    Udp6(u16),
    /// Raw ICMPv6, as everybody needs who advertises a router.
    Icmp6,
}

impl Socket {
    fn exists(self) -> bool {
        // Not `/proc/net`, which is the namespace of the main thread.
        const LISTEN: Option<&str> = Some("0A");
        let any = |port: u16| format!(":{port:04X}");
        let (tables, end, state): (&[_], _, _) = match self {
            Self::Tcp(port) => (&["tcp", "tcp6"], any(port), LISTEN),
            Self::TcpOn(address, port) => {
                // In the machine's byte order.
                let address = u32::from_ne_bytes(address.octets());
                (&["tcp"], format!("{address:08X}:{port:04X}"), LISTEN)
            }
            Self::Udp(port) => (&["udp"], any(port), None),
            Self::Udp6(port) => (&["udp6"], any(port), None),
            // A raw socket has its protocol where others have a port.
            Self::Icmp6 => (&["raw6"], any(58), None),
        };
        let read = |table| fs::read_to_string(format!("/proc/thread-self/net/{table}"));
        let lines: Vec<_> = tables.iter().filter_map(|table| read(table).ok()).collect();
        lines.iter().flat_map(|table| table.lines().skip(1)).any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next().unwrap_or_default();
            local.ends_with(&end) && state.is_none_or(|state| fields.nth(1) == Some(state))
        })
    }
}
