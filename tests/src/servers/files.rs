//! Servers of plain folders: nginx for HTTP, tftpd-hpa as the TFTP server that is not dnsmasq's.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::daemon::{Daemon, Socket};
use crate::lab::{Lab, SERVER, SERVER6};

/// HTTP on port 80.
pub fn nginx(lab: &Lab, folder: &Path) -> Result<Daemon> {
    let home = lab.folder().display();
    let ipv6 = if lab.has_ipv6() { format!("listen [{SERVER6}]:80;") } else { String::new() };
    let configuration = format!(
        "daemon off; master_process off; pid {home}/nginx.pid;\n\
         events {{}}\n\
         http {{\n\
         access_log {home}/nginx.access.log;\n\
         client_body_temp_path {home}/nginx.tmp; proxy_temp_path {home}/nginx.tmp;\n\
         fastcgi_temp_path {home}/nginx.tmp; uwsgi_temp_path {home}/nginx.tmp;\n\
         scgi_temp_path {home}/nginx.tmp;\n\
         server {{ listen {SERVER}:80; {ipv6} root {}; }}\n\
         }}\n",
        folder.display()
    );
    let file = lab.file("nginx.conf");
    fs::write(&file, configuration)?;
    let mut command = Command::new("nginx");
    command.args(["-e", "stderr", "-p"]).arg(lab.folder()).arg("-c").arg(&file);
    let mut daemon = Daemon::start(command, &lab.file("nginx.log"))?;
    daemon.wait_for(Socket::Tcp(80))?;
    Ok(daemon)
}

/// TFTP on port 69, with the given arguments in front: `--refuse blksize` makes it negotiate less.
pub fn tftpd(lab: &Lab, folder: &Path, arguments: &[&str]) -> Result<Daemon> {
    let mut command = Command::new("in.tftpd");
    command.args(["--foreground", "--user", "root", "--secure"]);
    if lab.has_ipv6() {
        command.args(["--address", ":69"]);
    } else {
        command.args(["--ipv4", "--address", &format!("{SERVER}:69")]);
    }
    command.args(arguments).arg(folder);
    let mut daemon = Daemon::start(command, &lab.file("tftpd.log"))?;
    daemon.wait_for(Socket::Udp(69))?;
    Ok(daemon)
}
