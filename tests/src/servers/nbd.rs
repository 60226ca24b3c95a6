//! The three NBD servers in use: nbd-server, qemu-nbd and nbdkit.

use std::fmt::Write;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

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

/// Serves read-only images; can be killed and started again, stopped and continued, slow, and one of
/// several.
pub struct Nbd {
    kind: NbdKind,
    /// What its files in the lab's folder begin with.
    name: String,
    address: Ipv4Addr,
    port: u16,
    exports: Vec<(String, PathBuf)>,
    writable: Vec<(String, PathBuf)>,
    rate: Option<String>,
    delay: Option<Duration>,
    /// While it is there, reads fail, or get no answer.
    trigger: Option<PathBuf>,
    hangs: bool,
    folder: PathBuf,
    ipv6: bool,
    daemon: Option<Daemon>,
}

impl Nbd {
    /// Nothing runs before [`Self::start`].
    pub fn new(lab: &Lab, kind: NbdKind) -> Self {
        Self {
            kind,
            name: "nbd".to_owned(),
            address: SERVER,
            port: PORT,
            exports: Vec::new(),
            writable: Vec::new(),
            rate: None,
            delay: None,
            trigger: None,
            hangs: false,
            folder: lab.folder().to_path_buf(),
            ipv6: lab.has_ipv6(),
            daemon: None,
        }
    }

    /// A second server, on the same port of an address that [`Lab::add_address`] gave. Its files are
    /// named by it.
    pub fn on(mut self, address: Ipv4Addr) -> Self {
        self.name = format!("nbd-{address}");
        self.address = address;
        // On this address alone.
        self.ipv6 = false;
        self
    }

    /// Another one on the same address.
    pub fn port(mut self, port: u16) -> Self {
        self.name = format!("nbd-{port}");
        self.port = port;
        self
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

    /// nbdkit only: each read takes so much longer, however many there are at a time.
    pub fn slower_by(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// nbdkit only: can be told by [`Self::break_disk`] that it cannot read its image any more.
    pub fn breakable(mut self) -> Self {
        self.trigger = Some(self.folder.join(format!("{}.broken", self.name)));
        self
    }

    /// nbdkit only: can be told by [`Self::break_disk`] that its disk hangs. What was read of it first it
    /// has in memory: enough for whoever connects and looks whether it is the image.
    pub fn with_a_disk_that_can_hang(mut self) -> Self {
        self.hangs = true;
        self.breakable()
    }

    /// From now on each read is answered, at once, with EIO, or not at all; connections stay, and new
    /// ones are as welcome.
    pub fn break_disk(&self) -> Result<()> {
        let trigger = self.trigger.as_ref().context("this server cannot be broken")?;
        fs::write(trigger, "").with_context(|| trigger.display().to_string())
    }

    pub fn mend_disk(&self) -> Result<()> {
        let trigger = self.trigger.as_ref().context("this server cannot be broken")?;
        fs::remove_file(trigger).with_context(|| trigger.display().to_string())
    }

    /// Started and listening.
    pub fn start(mut self) -> Result<Self> {
        self.start_again()?;
        Ok(self)
    }

    pub fn start_again(&mut self) -> Result<()> {
        let log = self.folder.join(format!("{}.log", self.name));
        let pid_file = self.folder.join(format!("{}.pid", self.name));
        let _ = fs::remove_file(&pid_file);
        let mut daemon = Daemon::start(self.command(&pid_file)?, &log)?;
        if self.kind == NbdKind::NbdServer {
            // In the foreground it serves one connection and exits.
            daemon.wait_for_pid_file(&pid_file)?;
        }
        daemon.wait_for(match self.ipv6 {
            true => Socket::Tcp(self.port),
            false => Socket::TcpOn(self.address, self.port),
        })?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// `SIGKILL`, connections and all.
    pub fn kill(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// Starts it again with other images under the same names, as happens to a server whose operator
    /// has made a new one.
    pub fn start_again_with(&mut self, image: &Path) -> Result<()> {
        for (_, own) in &mut self.exports {
            *own = image.to_path_buf();
        }
        self.start_again()
    }

    /// nbdkit only: starts it again as one whose reads take so much longer, or as quick as it is.
    pub fn start_again_slower_by(&mut self, delay: Option<Duration>) -> Result<()> {
        self.delay = delay;
        self.start_again()
    }

    /// Answers nobody any more, and holds on to its connections.
    pub fn hang(&self) -> Result<()> {
        self.daemon.as_ref().context("this server does not run")?.hang()
    }

    pub fn go_on(&self) -> Result<()> {
        self.daemon.as_ref().context("this server does not run")?.go_on()
    }

    /// Begins to count what it sends, for [`Self::sent`].
    pub fn count(&self, lab: &Lab) -> Result<()> {
        let name = self.name.replace(['-', '.'], "_");
        lab.count_sent(&name, &format!("ip saddr {} tcp sport {}", self.address, self.port))
    }

    /// What it has sent to machines since [`Self::count`]; across restarts.
    pub fn sent(&self, lab: &Lab) -> Result<u64> {
        lab.sent(&self.name.replace(['-', '.'], "_"))
    }

    fn command(&self, pid_file: &Path) -> Result<Command> {
        let port = self.port.to_string();
        if self.kind == NbdKind::NbdServer {
            let mut text = format!("[generic]\nallowlist = true\nport = {port}\n");
            // It takes but one; without any it listens to all.
            if !self.ipv6 {
                writeln!(text, "listenaddr = {}", self.address)?;
            }
            for (name, image) in &self.exports {
                write!(text, "[{name}]\nexportname = {}\nreadonly = true\n", image.display())?;
            }
            for (name, file) in &self.writable {
                write!(text, "[{name}]\nexportname = {}\nflush = true\n", file.display())?;
            }
            let file = self.folder.join(format!("{}.conf", self.name));
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
                .args(["--bind", &self.address.to_string(), "--port", &port, "--export-name", name])
                .arg(image);
        } else {
            command = Command::new("nbdkit");
            command.args(["--foreground", "--readonly", "--verbose"]).args([
                "--ipaddr",
                &self.address.to_string(),
                "--port",
                &port,
                "--exportname",
                name,
            ]);
            if self.delay.is_none() && !self.hangs {
                // With several, version 1.32 dies of a client that leaves while they answer it:
                // "Assertion `sock >= 0' failed". One that is slow or hangs must be so for each
                // request by itself.
                command.arg("--threads=1");
            }
            if self.rate.is_some() {
                command.arg("--filter=rate");
            }
            if self.delay.is_some() {
                command.arg("--filter=delay");
            }
            let fails = self.trigger.as_ref().filter(|_| !self.hangs);
            let hangs = self.trigger.as_ref().filter(|_| self.hangs);
            if fails.is_some() {
                command.arg("--filter=error");
            }
            // By itself a plugin gives its one file for whatever name is asked.
            command.arg("--filter=exportname");
            match hangs {
                None => _ = command.arg("file").arg(image),
                Some(trigger) => {
                    let memory = trigger.with_extension("memory");
                    let _ = fs::remove_file(&memory);
                    let memory = memory.display();
                    let (image, trigger) = (image.display(), trigger.display());
                    command.args(["eval", "thread_model=echo parallel"]);
                    command.arg(format!("get_size=stat -Lc %s {image}"));
                    command.arg(format!(
                        "pread=if [ -e {trigger} ]; then \
                             grep -qx \"$3 $4\" {memory} || exec sleep 3600; \
                         elif [ ! -e {memory} ] || [ $(wc -l < {memory}) -lt 64 ]; then \
                             echo \"$3 $4\" >> {memory}; \
                         fi; \
                         exec dd if={image} iflag=skip_bytes,count_bytes skip=$4 count=$3 bs=64K \
                         status=none"
                    ));
                }
            }
            command.args(["exportname-strict=true", &format!("exportname={name}")]);
            if let Some(rate) = &self.rate {
                command.arg(format!("connection-rate={rate}"));
            }
            if let Some(delay) = self.delay {
                command.arg(format!("rdelay={}ms", delay.as_millis()));
            }
            if let Some(trigger) = fails {
                command.args(["error=EIO", "error-pread-rate=100%"]);
                command.arg(format!("error-pread-file={}", trigger.display()));
            }
        }
        image.metadata().with_context(|| image.display().to_string())?;
        Ok(command)
    }
}
