//! dnsmasq: addresses of either family, TFTP and DNS when asked.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::daemon::{Daemon, Socket};
use crate::lab::{Lab, SERVER6};

pub struct Dnsmasq {
    arguments: Vec<String>,
    leases: Option<String>,
    sockets: Vec<Socket>,
    log: String,
}

/// How machines get their IPv6 addresses. In each case dnsmasq advertises itself as router, name
/// server (RDNSS) and what [`Dnsmasq::search`] says (DNSSL).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6 {
    /// They make them of the prefix, and nobody answers DHCPv6.
    Slaac,
    /// They make them of the prefix, and ask DHCPv6 for the rest (flag O).
    Stateless,
    /// DHCPv6 gives them (flags M and O).
    Stateful,
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
            leases: Some("10.77.0.50,10.77.0.99,1h".to_owned()),
            sockets: vec![Socket::Udp(67)],
            log: "dnsmasq.log".to_owned(),
        }
    }

    /// Gives no addresses and speaks to nobody but firmware, to which it names a boot file on a
    /// server: what stands beside a DHCP server that nobody may touch.
    pub fn proxy(boot_server: Ipv4Addr) -> Self {
        Self::new()
            .leases("10.77.0.0,proxy")
            .log("dnsmasq-proxy.log")
            .option("port=0")
            .option(format!("pxe-service=x86PC,\"Landfall\",ltsp/amd64/pxelinux,{boot_server}"))
    }

    /// Where its words go, in the lab's folder, if there are several.
    pub fn log(mut self, name: &str) -> Self {
        self.log = name.to_owned();
        self
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
        self.leases = Some(range.to_owned());
        self
    }

    pub fn without_ipv4(mut self) -> Self {
        self.leases = None;
        self.sockets.retain(|socket| *socket != Socket::Udp(67));
        self
    }

    /// On a wire with fd77::/64, as [`Lab::with_ipv6`] makes one.
    pub fn ipv6(self, how: Ipv6) -> Self {
        let range = match how {
            Ipv6::Slaac => "fd77::,ra-only,64",
            Ipv6::Stateless => "fd77::,ra-stateless,64",
            Ipv6::Stateful => "fd77::1000,fd77::1fff,64,1h",
        };
        let mut server = self
            .option("enable-ra")
            .option(format!("dhcp-range={range}"))
            .option(format!("dhcp-option=option6:dns-server,[{SERVER6}]"));
        server.sockets.push(Socket::Icmp6);
        if how != Ipv6::Slaac {
            server.sockets.push(Socket::Udp6(547));
        }
        server
    }

    /// Of names without a dot, in either family.
    pub fn search(self, domain: &str) -> Self {
        self.option(format!("dhcp-option=119,{domain}"))
            .option(format!("dhcp-option=option6:domain-search,{domain}"))
    }

    /// DHCPv6's option 59: from where firmware, and we, would boot.
    pub fn boot_file_url(self, url: &str) -> Self {
        self.option(format!("dhcp-option=option6:bootfile-url,{url}"))
    }

    /// Any further option of the program, without its dashes: `dhcp-option=17,/opt/ltsp`.
    pub fn option(mut self, option: impl AsRef<str>) -> Self {
        self.arguments.push(format!("--{}", option.as_ref()));
        self
    }

    /// Who has which address is written into this file.
    pub fn books(mut self, file: &Path) -> Self {
        self.arguments.retain(|argument| argument != "--leasefile-ro");
        self.option(format!("dhcp-leasefile={}", file.display()))
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
        command.args(&self.arguments);
        command.args(self.leases.map(|range| format!("--dhcp-range={range}")));
        let mut daemon = Daemon::start(command, &lab.file(&self.log))?;
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
