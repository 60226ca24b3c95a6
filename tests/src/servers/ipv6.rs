//! Who else gives IPv6 addresses: radvd, and Kea's DHCPv6 server.

use std::fs;

use anyhow::Result;

use crate::daemon::{Daemon, Socket};
use crate::lab::Lab;
use crate::workshop;

/// Router advertisements as this configuration has them.
pub fn radvd(lab: &Lab, configuration: &str) -> Result<Daemon> {
    let file = lab.file("radvd.conf");
    fs::write(&file, configuration)?;
    let mut command = workshop::packaged_program("usr/sbin/radvd")?;
    command
        .args(["--nodaemon", "--logmethod=stderr", "--debug=3"])
        .arg(format!("--config={}", file.display()))
        .arg(format!("--pidfile={}", lab.file("radvd.pid").display()));
    let mut daemon = Daemon::start(command, &lab.file("radvd.log"))?;
    daemon.wait_for(Socket::Icmp6)?;
    Ok(daemon)
}

/// Kea for DHCPv6 with this configuration, whose leases go to the lab.
pub fn kea6(lab: &Lab, configuration: &str) -> Result<Daemon> {
    let file = lab.file("kea6.conf");
    fs::write(&file, configuration)?;
    let mut command = workshop::packaged_program("usr/sbin/kea-dhcp6")?;
    command
        .arg("-c")
        .arg(file)
        .env("KEA_PIDFILE_DIR", lab.folder())
        .env("KEA_LOCKFILE_DIR", lab.folder())
        // It keeps its leases and its own identity nowhere else.
        .env("KEA_DHCP_DATA_DIR", lab.folder());
    let mut daemon = Daemon::start(command, &lab.file("kea6.log"))?;
    daemon.wait_for(Socket::Udp6(547))?;
    Ok(daemon)
}
