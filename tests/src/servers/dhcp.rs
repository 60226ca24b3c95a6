//! DHCP servers that are not dnsmasq: ISC dhcpd and Kea. And what the log of any of them says.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::daemon::{Daemon, Socket};
use crate::lab::Lab;
use crate::workshop;

/// ISC dhcpd on `br0` with this configuration.
pub fn dhcpd(lab: &Lab, configuration: &str) -> Result<Daemon> {
    let (file, leases) = (lab.file("dhcpd.conf"), lab.file("dhcpd.leases"));
    fs::write(&file, configuration)?;
    // It wants the file to be there.
    fs::write(&leases, "")?;
    let mut command = workshop::packaged_program("usr/sbin/dhcpd")?;
    command.args(["-4", "-f", "-d", "--no-pid", "-cf"]).arg(file).arg("-lf").arg(leases).arg("br0");
    let mut daemon = Daemon::start(command, &lab.file("dhcpd.log"))?;
    daemon.wait_for(Socket::Udp(67))?;
    Ok(daemon)
}

/// Kea with this configuration, whose leases go to the lab.
pub fn kea(lab: &Lab, configuration: &str) -> Result<Daemon> {
    let file = lab.file("kea.conf");
    fs::write(&file, configuration)?;
    let mut command = kea_program(lab)?;
    command.arg("-c").arg(file);
    let mut daemon = Daemon::start(command, &lab.file("kea.log"))?;
    daemon.wait_for(Socket::Udp(67))?;
    Ok(daemon)
}

/// Kea without arguments, with everything that it writes in the lab.
pub fn kea_program(lab: &Lab) -> Result<Command> {
    let mut command = workshop::packaged_program("usr/sbin/kea-dhcp4")?;
    command
        .env("KEA_PIDFILE_DIR", lab.folder())
        .env("KEA_LOCKFILE_DIR", lab.folder())
        // It does not start without it, and starts it once an hour.
        .env("KEA_LFC_EXECUTABLE", workshop::packaged("usr/sbin/kea-lfc")?)
        // It keeps its leases nowhere else.
        .env("KEA_DHCP_DATA_DIR", lab.folder());
    Ok(command)
}

/// What a DHCP server has acknowledged so far, as its log has it: to which client which address.
#[derive(Debug)]
pub struct Leases(Vec<(String, Ipv4Addr)>);

impl Leases {
    /// ```text
    /// dnsmasq-dhcp: 3282631505 DHCPACK(br0) 10.77.0.80 52:54:00:77:00:01 name
    /// DHCPACK on 10.77.0.50 to 52:54:00:77:00:01 (name) via br0
    /// … DHCP4_LEASE_ALLOC [hwtype=1 52:54:00:77:00:01], cid=[no info], tid=0x1: lease 10.77.0.50 has …
    /// ```
    pub fn in_log(log: &str) -> Self {
        let ack = |line: &&str| line.contains("DHCPACK") || line.contains("DHCP4_LEASE_ALLOC");
        let lease = |line: &str| {
            let mut words = line.split([' ', '[', ']', ',']);
            let client = words.clone().find(|word| word.split(':').count() == 6)?;
            Some((client.to_owned(), words.find_map(|word| word.parse().ok())?))
        };
        Self(log.lines().filter(ack).filter_map(lease).collect())
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The address that each of them was about, if all were the same client's and about one.
    pub fn one_address_of(&self, client: &str) -> Result<Ipv4Addr> {
        let (_, address) = *self.0.first().context("the server has given no address")?;
        let same = |(who, what): &(String, Ipv4Addr)| who == client && *what == address;
        ensure!(self.0.iter().all(same), "more than one identity or address: {self:#?}");
        Ok(address)
    }
}

/// Every address of the lab's pool in the file where a server keeps its leases.
pub fn leased(leases: &Path) -> Result<BTreeSet<Ipv4Addr>> {
    let text = fs::read_to_string(leases).with_context(|| leases.display().to_string())?;
    let words = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    let pool = |address: &Ipv4Addr| address.octets()[..3] == [10, 77, 0] && address.octets()[3] > 1;
    Ok(words.filter_map(|word| word.parse().ok()).filter(pool).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_servers_say_the_same_thing_in_three_ways() {
        let logs = [
            "dnsmasq-dhcp: 3282631505 DHCPOFFER(br0) 10.77.0.80 52:54:00:77:00:01 \n\
             dnsmasq-dhcp: 3282631505 DHCPACK(br0) 10.77.0.80 52:54:00:77:00:01 \n",
            "DHCPOFFER on 10.77.0.80 to 52:54:00:77:00:01 via br0\n\
             DHCPACK on 10.77.0.80 to 52:54:00:77:00:01 (probe) via br0\n",
            "2026-01-01 12:00:00.000 INFO  [kea-dhcp4.leases/1.2] DHCP4_LEASE_ALLOC [hwtype=1 \
             52:54:00:77:00:01], cid=[01:52:54:00:77:00:01], tid=0x1: lease 10.77.0.80 has been \
             allocated for 3600 seconds\n",
        ];
        for log in logs {
            let leases = Leases::in_log(log);
            assert_eq!(leases.count(), 1, "{log}");
            let address = leases.one_address_of("52:54:00:77:00:01").unwrap();
            assert_eq!(address, Ipv4Addr::new(10, 77, 0, 80), "{log}");
            assert!(leases.one_address_of("52:54:00:77:00:02").is_err(), "{log}");
        }
        let moved = [logs[0], &logs[0].replace("0.80", "0.81")].concat();
        assert!(Leases::in_log(&moved).one_address_of("52:54:00:77:00:01").is_err());
    }
}
