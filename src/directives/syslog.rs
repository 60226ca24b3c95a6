//! SYSLOG_HOST: where the system log goes besides the node's own memory.

use std::net::Ipv6Addr;

use super::{Draft, View, hostname};
use crate::config::Settings;
use crate::error::{Error, Result};

const RSYSLOG: &str = "/etc/rsyslog.d";
const OURS: &str = "/etc/rsyslog.d/90-landfall.conf";
const SYSLOG: &str = "/etc/syslog.conf";
const HEADER: &str = "# Written by landfall at boot: SYSLOG_HOST of lts.conf.\n";

/// Gives the number of hosts.
pub fn apply(settings: &Settings, draft: &mut Draft<'_>) -> Result<usize> {
    let hosts = settings.list("SYSLOG_HOST");
    if hosts.is_empty() {
        return Ok(0);
    }
    let mut text = HEADER.to_owned();
    for host in &hosts {
        text += &format!("*.* @{}\n", address(host)?);
    }
    if draft.exists(RSYSLOG) {
        draft.replace(OURS, text, 0o644);
    } else if let Some(before) = draft.read_text(SYSLOG)? {
        let newline = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
        draft.write(SYSLOG, format!("{before}{newline}{text}"), 0o644);
    } else {
        let why = "the image has neither rsyslog nor /etc/syslog.conf";
        return Err(Error::refused("sending the log to SYSLOG_HOST", why)
            .with_hint("the package is called rsyslog; journald alone sends nothing"));
    }
    Ok(hosts.len())
}

/// Host and port as rsyslog.conf(5) wants them behind its `@`.
pub fn address(host: &str) -> Result<String> {
    if host.parse::<Ipv6Addr>().is_ok() {
        return Ok(format!("[{host}]"));
    }
    let wrong = || {
        Error::invalid(
            format!("reading SYSLOG_HOST {host:?}"),
            "a host is written NAME, ADDRESS, NAME:PORT or [ADDRESS]:PORT",
        )
    };
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() => {
            (address, port.strip_prefix(':'))
        }
        Some(_) => return Err(wrong()),
        None => match host.rsplit_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let is_host = hostname::is_host(name);
    let is_port = port.is_none_or(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if is_host && is_port { Ok(host.to_owned()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directives::Tree;
    use crate::directives::draft::on;

    #[test]
    #[rustfmt::skip]
    fn the_log_goes_to_every_host_2_2() {
        let cases: &[(&str, Option<&[&str]>)] = &[
            ("10.0.0.1",                  Some(&["*.* @10.0.0.1"])),
            ("10.0.0.1 log.example:5514", Some(&["*.* @10.0.0.1", "*.* @log.example:5514"])),
            ("fd00::1",                   Some(&["*.* @[fd00::1]"])),
            ("[fd00::1]:514",             Some(&["*.* @[fd00::1]:514"])),
            ("10.0.0.1:0",                None),
            ("log:99999",                 None),
            ("@10.0.0.1",                 None),
            ("a;b",                       None),
            ("[10.0.0.1]",                None),
        ];
        for (value, expected) in cases {
            for (there, file) in [(RSYSLOG, OURS), (SYSLOG, SYSLOG)] {
                let folder = tempfile::tempdir().unwrap();
                let tree = Tree::open(folder.path()).unwrap();
                match there {
                    RSYSLOG => tree.make_directory(RSYSLOG, 0o755, None).unwrap(),
                    _ => tree.write(SYSLOG, "auth.* /var/log/auth.log", 0o644).unwrap(),
                }
                let result = on(&tree, |draft| apply(&Settings::of(&[("SYSLOG_HOST", value)]), draft));
                assert_eq!(result.ok(), expected.map(<[_]>::len), "{value}");
                let text = tree.read_text(file).unwrap().unwrap_or_default();
                let lines: Vec<_> = text.lines().filter(|line| line.starts_with("*.*")).collect();
                assert_eq!(lines, expected.unwrap_or_default(), "{value}: {file}");
                assert!(file == OURS || text.starts_with("auth.* /var/log/auth.log"), "{text}");
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        assert!(on(&tree, |draft| apply(&Settings::of(&[("SYSLOG_HOST", "a")]), draft)).is_err());
        assert_eq!(on(&tree, |draft| apply(&Settings::default(), draft)).unwrap(), 0);
    }
}
