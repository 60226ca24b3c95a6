//! The three NBD servers in use: nbd-server, qemu-nbd and nbdkit.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::daemon::{Daemon, Socket};
use crate::lab::{Lab, SERVER};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NbdKind {
    /// The reference server; the only one here that serves several exports and lists them.
    NbdServer,
    QemuNbd,
    Nbdkit,
}

const PORT: u16 = 10809;

/// Serves read-only images; can be killed and started again.
pub struct Nbd {
    kind: NbdKind,
    exports: Vec<(String, PathBuf)>,
    writable: Vec<(String, PathBuf)>,
    rate: Option<String>,
    folder: PathBuf,
    ipv6: bool,
    daemon: Option<Daemon>,
}

impl Nbd {
    /// Nothing runs before [`Self::start`].
    pub fn new(lab: &Lab, kind: NbdKind) -> Self {
        Self {
            kind,
            exports: Vec::new(),
            writable: Vec::new(),
            rate: None,
            folder: lab.folder().to_path_buf(),
            ipv6: lab.has_ipv6(),
            daemon: None,
        }
    }

    pub fn export(mut self, name: &str, image: &Path) -> Self {
        self.exports.push((name.to_owned(), image.to_path_buf()));
        self
    }

    /// nbd-server only: an export that its client may write to.
    pub fn writable(mut self, name: &str, file: &Path) -> Self {
        self.writable.push((name.to_owned(), file.to_path_buf()));
        self
    }

    /// nbdkit only: at most so many bits a second (`16M`) on each connection.
    pub fn bits_per_second(mut self, rate: &str) -> Self {
        self.rate = Some(rate.to_owned());
        self
    }

    /// Started and listening.
    pub fn start(mut self) -> Result<Self> {
        self.start_again()?;
        Ok(self)
    }

    pub fn start_again(&mut self) -> Result<()> {
        let log = self.folder.join("nbd.log");
        let pid_file = self.folder.join("nbd.pid");
        let _ = fs::remove_file(&pid_file);
        let mut daemon = Daemon::start(self.command(&pid_file)?, &log)?;
        if self.kind == NbdKind::NbdServer {
            // In the foreground it serves one connection and exits.
            daemon.wait_for_pid_file(&pid_file)?;
        }
        daemon.wait_for(Socket::Tcp(PORT))?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// `SIGKILL`, connections and all.
    pub fn kill(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    fn command(&self, pid_file: &Path) -> Result<Command> {
        let port = PORT.to_string();
        if self.kind == NbdKind::NbdServer {
            let mut text = format!("[generic]\nallowlist = true\nport = {port}\n");
            // It takes but one; without any it listens to all.
            if !self.ipv6 {
                writeln!(text, "listenaddr = {SERVER}")?;
            }
            for (name, image) in &self.exports {
                write!(text, "[{name}]\nexportname = {}\nreadonly = true\n", image.display())?;
            }
            for (name, file) in &self.writable {
                write!(text, "[{name}]\nexportname = {}\n", file.display())?;
            }
            let file = self.folder.join("nbd.conf");
            fs::write(&file, text)?;
            let mut command = Command::new("nbd-server");
            command.arg("-C").arg(file).arg("-p").arg(pid_file);
            return Ok(command);
        }
        let [(name, image)] = &self.exports[..] else {
            bail!("{:?} serves exactly one export here", self.kind);
        };
        let mut command;
        if self.kind == NbdKind::QemuNbd {
            command = Command::new("qemu-nbd");
            command
                .args(["--read-only", "--persistent", "--shared=16", "--format=raw"])
                .args(["--bind", &SERVER.to_string(), "--port", &port, "--export-name", name])
                .arg(image);
        } else {
            command = Command::new("nbdkit");
            command.args(["--foreground", "--readonly", "--verbose"]).args([
                "--ipaddr",
                &SERVER.to_string(),
                "--port",
                &port,
                "--exportname",
                name,
            ]);
            if self.rate.is_some() {
                command.arg("--filter=rate");
            }
            // By itself the file plugin gives its one file for whatever name is asked.
            command.args(["--filter=exportname", "file"]).arg(image);
            command.args(["exportname-strict=true", &format!("exportname={name}")]);
            if let Some(rate) = &self.rate {
                command.arg(format!("connection-rate={rate}"));
            }
        }
        image.metadata().with_context(|| image.display().to_string())?;
        Ok(command)
    }
}
