//! Reads the state of the machine out of `/proc`, `/sys` and the routing socket.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use landfall_tests::protocol::{ChildrenUsage, Link, Mount, Process, Route, State};
use nix::sys::resource::{UsageWho, getrusage};

pub fn read() -> io::Result<State> {
    let used = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok(State {
        kernel: text("/proc/sys/kernel/osrelease")?,
        command_line: text("/proc/cmdline")?,
        arguments: nul_separated("/proc/1/cmdline")?,
        environment: nul_separated("/proc/1/environ")?,
        open_files: open_files()?,
        mounts: mounts()?,
        links: links()?,
        routes: routes()?,
        memory: memory()?,
        processes: processes()?,
        reaped_children: ChildrenUsage {
            page_faults: used.minor_page_faults() + used.major_page_faults(),
            largest_kib: used.max_rss(),
        },
        tainted: text("/proc/sys/kernel/tainted")?.parse().unwrap_or(u64::MAX),
        host_name: text("/proc/sys/kernel/hostname")?,
    })
}

pub fn uptime() -> io::Result<f64> {
    let text = text("/proc/uptime")?;
    Ok(text.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0.0))
}

fn text(path: impl AsRef<Path>) -> io::Result<String> {
    let path = path.as_ref();
    let bytes = fs::read(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
}

fn nul_separated(path: impl AsRef<Path>) -> io::Result<Vec<String>> {
    let text = text(path)?;
    Ok(text.split('\0').filter(|word| !word.is_empty()).map(str::to_owned).collect())
}

fn open_files() -> io::Result<Vec<(u32, String)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir("/proc/1/fd")? {
        let entry = entry?;
        let number = entry.file_name().to_string_lossy().parse().unwrap_or(u32::MAX);
        // Gone already: the descriptor of this very listing.
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        if target != landfall_tests::protocol::PORT && !target.ends_with("/fd") {
            files.push((number, target));
        }
    }
    files.sort();
    Ok(files)
}

/// `/proc/self/mountinfo` (proc(5)): optional fields end at a lone hyphen.
fn mounts() -> io::Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for line in text("/proc/self/mountinfo")?.lines() {
        let Some((place, system)) = line.split_once(" - ") else { continue };
        let place: Vec<&str> = place.split(' ').collect();
        let system: Vec<&str> = system.splitn(3, ' ').collect();
        let ([_, _, _, root, target, options, ..], [fstype, source, more]) =
            (&place[..], &system[..])
        else {
            continue;
        };
        mounts.push(Mount {
            root: unescape(root),
            target: unescape(target),
            fstype: (*fstype).to_owned(),
            source: unescape(source),
            options: options.split(',').chain(more.split(',')).map(str::to_owned).collect(),
        });
    }
    Ok(mounts)
}

/// Blanks, tabs, newlines and backslashes are written in octal.
fn unescape(field: &str) -> String {
    let mut text = field.to_owned();
    for (octal, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        text = text.replace(octal, character);
    }
    text
}

fn links() -> io::Result<Vec<Link>> {
    let mut addresses = BTreeMap::<String, Vec<String>>::new();
    for address in nix::ifaddrs::getifaddrs()? {
        let ip = address.address.as_ref().and_then(|a| a.as_sockaddr_in()).map(|a| a.ip());
        let mask = address.netmask.as_ref().and_then(|a| a.as_sockaddr_in()).map(|a| a.ip());
        if let (Some(ip), Some(mask)) = (ip, mask) {
            let text = format!("{ip}/{}", u32::from(mask).leading_ones());
            addresses.entry(address.interface_name).or_default().push(text);
        }
    }
    let mut links = Vec::new();
    for entry in fs::read_dir("/sys/class/net")? {
        let path = entry?.path();
        // Beside the links there may be a file, `bonding_masters`.
        let Some(name) = path.file_name().filter(|_| path.is_dir()) else { continue };
        let name = name.to_string_lossy().into_owned();
        let flags = text(path.join("flags"))?;
        let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap_or(0);
        links.push(Link {
            mac: text(path.join("address"))?,
            mtu: text(path.join("mtu"))?.parse().unwrap_or(0),
            // Reading it of a link that is down is an error.
            carrier: text(path.join("carrier")).is_ok_and(|carrier| carrier == "1"),
            up: flags & 1 != 0,
            addresses: addresses.remove(&name).unwrap_or_default(),
            name,
        });
    }
    links.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(links)
}

/// `/proc/net/route`: addresses are hexadecimal in the machine's byte order.
fn routes() -> io::Result<Vec<Route>> {
    let address = |hex: &str| {
        let number = u32::from_str_radix(hex, 16).unwrap_or(0);
        Ipv4Addr::from(number.to_ne_bytes())
    };
    let table = text("/proc/net/route")?;
    let routes = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [link, to, via, _, _, _, _, mask, ..] = &fields[..] else { return None };
        let (via, mask) = (address(via), u32::from(address(mask)));
        Some(Route {
            link: (*link).to_owned(),
            to: format!("{}/{}", address(to), mask.leading_ones()),
            via: (!via.is_unspecified()).then(|| via.to_string()),
        })
    });
    Ok(routes.collect())
}

fn memory() -> io::Result<BTreeMap<String, u64>> {
    let table = text("/proc/meminfo")?;
    let lines = table.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let mut words = value.split_whitespace();
        let number: u64 = words.next()?.parse().ok()?;
        Some((name.to_owned(), if words.next() == Some("kB") { number * 1024 } else { number }))
    });
    Ok(lines.collect())
}

fn processes() -> io::Result<Vec<Process>> {
    const PF_KTHREAD: u64 = 0x0020_0000;
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        // It may end between the listing and the reading.
        let Ok(stat) = text(format!("/proc/{pid}/stat")) else { continue };
        // `pid (name) state ppid …`, and a name may hold blanks and parentheses.
        let (Some(open), Some(close)) = (stat.find('('), stat.rfind(')')) else { continue };
        let rest: Vec<&str> = stat[close + 1..].split_whitespace().collect();
        let flags: u64 = rest.get(6).and_then(|flags| flags.parse().ok()).unwrap_or(0);
        processes.push(Process {
            pid,
            parent: rest.get(1).and_then(|parent| parent.parse().ok()).unwrap_or(0),
            name: stat[open + 1..close].to_owned(),
            arguments: nul_separated(format!("/proc/{pid}/cmdline")).unwrap_or_default(),
            kernel_thread: flags & PF_KTHREAD != 0,
        });
    }
    processes.sort_by_key(|process| process.pid);
    Ok(processes)
}
