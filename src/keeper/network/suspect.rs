//! Who may have taken something away from a link, as far as it can be known afterwards.

use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::fs::{Dir, Mode, OFlags, openat};

/// Programs that take addresses away on purpose, by the first 15 bytes of their names, and what
/// people call them. What runs them stands before what they run.
const KNOWN: [(&str, &str); 8] = [
    ("ifdown", "ifupdown is stopping"),
    ("ifup", "ifupdown is starting"),
    ("netplan", "netplan"),
    ("dhclient", "dhclient"),
    ("dhcpcd", "dhcpcd"),
    ("udhcpc", "udhcpc"),
    ("NetworkManager", "NetworkManager"),
    ("systemd-network", "systemd-networkd"),
];

/// More processes than that are not looked at: the root waits.
const MANY: usize = 4096;

/// In words. `port`: of the netlink socket that it was done through, which is mostly the number of
/// its process; `proc`: a descriptor of `/proc`.
pub fn name(proc: BorrowedFd<'_>, port: u32) -> Option<String> {
    let of_port = (port > 1).then(|| comm(proc, &port.to_string())).flatten();
    let running = running(proc);
    choose(of_port.as_deref(), &running)
}

/// Whether it was done by software that reads what routers advertise in place of the kernel.
pub fn listens_to_routers(proc: BorrowedFd<'_>, port: u32) -> bool {
    let name = (port > 1).then(|| comm(proc, &port.to_string())).flatten();
    name.is_some_and(|name| ["NetworkManager", "systemd-network"].contains(&name.as_str()))
}

fn choose(of_port: Option<&str>, running: &[String]) -> Option<String> {
    let known = |name: &str| KNOWN.iter().find(|(comm, _)| *comm == name).map(|(_, words)| *words);
    // Programs for a moment are run by somebody, who is the better answer.
    let is_tool = |name: &str| matches!(name, "ip" | "ifconfig" | "busybox" | "sh");
    if let Some(name) = of_port.filter(|name| !is_tool(name)) {
        return Some(known(name).unwrap_or(name).to_owned());
    }
    // Those at the end of the list are always there, which makes them no suspects by itself.
    let often_there = ["NetworkManager", "systemd-network"];
    let others = KNOWN.iter().filter(|(comm, _)| !often_there.contains(comm));
    let busy = others.into_iter().find(|(comm, _)| running.iter().any(|name| name == comm));
    match (busy, of_port) {
        (Some((_, words)), _) => Some((*words).to_owned()),
        (None, Some(tool)) => Some(format!("somebody with \"{tool}\"")),
        (None, None) => None,
    }
}

fn comm(proc: BorrowedFd<'_>, process: &str) -> Option<String> {
    let path = format!("{process}/comm");
    let file = openat(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = String::new();
    std::fs::File::from(file).take(64).read_to_string(&mut text).ok()?;
    Some(text.trim_end().to_owned())
}

fn running(proc: BorrowedFd<'_>) -> Vec<String> {
    let Ok(folder) = Dir::read_from(proc) else { return Vec::new() };
    folder
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned))
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .take(MANY)
        .filter_map(|process| comm(proc, &process))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn the_one_behind_the_tool_is_named() {
        let cases: [(Option<&str>, &[&str], Option<&str>); 7] = [
            (Some("systemd-network"), &[],                            Some("systemd-networkd")),
            (Some("ip"),              &["sh", "ifdown", "dhclient"],  Some("ifupdown is stopping")),
            (Some("ip"),              &["bash", "NetworkManager"],    Some("somebody with \"ip\"")),
            (None,                    &["ifdown"],                    Some("ifupdown is stopping")),
            (None,                    &["systemd-network", "bash"],   None),
            (Some("my-vpn"),          &["ifdown"],                    Some("my-vpn")),
            (None,                    &[],                            None),
        ];
        for (of_port, running, expected) in cases {
            let running: Vec<String> = running.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(choose(of_port, &running).as_deref(), expected, "{of_port:?} {running:?}");
        }
    }

    #[test]
    fn this_process_has_a_name() {
        let proc = std::fs::File::open("/proc").unwrap();
        let fd = std::os::fd::AsFd::as_fd(&proc);
        let own = comm(fd, "self").unwrap();
        assert!(running(fd).contains(&own), "{own}");
        assert_eq!(name(fd, std::process::id()), Some(own));
    }
}
