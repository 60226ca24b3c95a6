//! dnsmasq: DHCP always, TFTP and DNS when asked.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::daemon::{Daemon, Socket};
use crate::lab::Lab;

pub struct Dnsmasq {
    arguments: Vec<String>,
    leases: String,
    sockets: Vec<Socket>,
}

impl Dnsmasq {
    /// Leases 10.77.0.50 to 10.77.0.99 on `br0` for an hour, with the server as router.
    pub fn new() -> Self {
        let fixed = [
            // Debug mode is the one in which it does not change its user, which an ordinary
            // user's namespace does not allow.
            "--no-daemon",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--leasefile-ro",
            "--log-dhcp",
            "--bind-interfaces",
            "--interface=br0",
            "--except-interface=lo",
            // It would otherwise ping an address for three seconds before offering it.
            "--no-ping",
        ];
        Self {
            arguments: fixed.map(str::to_owned).into(),
            leases: "10.77.0.50,10.77.0.99,1h".to_owned(),
            sockets: vec![Socket::Udp(67)],
        }
    }

    /// Started with nothing but a configuration, as an operator writes it; it gives no thought to
    /// an address before it offers it, and writes its leases into the lab.
    pub fn configured(lab: &Lab, configuration: &str) -> Result<Daemon> {
        let file = lab.file("dnsmasq.conf");
        fs::write(&file, configuration)?;
        let mut command = Command::new("dnsmasq");
        command
            .args(["--no-daemon", "--no-ping", "--bind-interfaces", "--interface=br0"])
            .arg(format!("--conf-file={}", file.display()))
            .arg(format!("--dhcp-leasefile={}", lab.file("dnsmasq.leases").display()));
        let mut daemon = Daemon::start(command, &lab.file("dnsmasq-configured.log"))?;
        daemon.wait_for(Socket::Udp(67))?;
        daemon.wait_for(Socket::Udp(69))?;
        Ok(daemon)
    }

    /// First and last address and the time, as `dhcp-range` takes them.
    pub fn leases(mut self, range: &str) -> Self {
        self.leases = range.to_owned();
        self
    }

    /// Any further option of the program, without its dashes: `dhcp-option=17,/opt/ltsp`.
    pub fn option(mut self, option: impl AsRef<str>) -> Self {
        self.arguments.push(format!("--{}", option.as_ref()));
        self
    }

    /// Serves a folder by TFTP, and names itself the boot server with a boot file in LTSP's place.
    pub fn tftp(self, folder: &Path) -> Self {
        let mut server = self
            .option(format!("tftp-root={}", folder.display()))
            .option("enable-tftp")
            .option("dhcp-boot=/ltsp/amd64/pxelinux.0");
        server.sockets.push(Socket::Udp(69));
        server
    }

    /// Resolves a name.
    pub fn name(self, name: &str, address: impl ToString) -> Self {
        self.option(format!("host-record={name},{}", address.to_string()))
    }

    pub fn start(self, lab: &Lab) -> Result<Daemon> {
        let mut command = Command::new("dnsmasq");
        command.args(&self.arguments).arg(format!("--dhcp-range={}", self.leases));
        let mut daemon = Daemon::start(command, &lab.file("dnsmasq.log"))?;
        for socket in self.sockets {
            daemon.wait_for(socket)?;
        }
        Ok(daemon)
    }
}

impl Default for Dnsmasq {
    fn default() -> Self {
        Self::new()
    }
}
