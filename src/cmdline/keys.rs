//! The one table of keys: the parser, the dry run and the README's table walk it.

use super::network::{self, Pending};
use super::{NbdRequest, Problem, RootRequest, Word, fields, ip, links, root, words};
use crate::boot::Stage;
use crate::directives::size::Size;
use crate::net::description::{Description, HandoverMode, link_name};
use crate::root::verity::VerityRequest;
use crate::root::{LostPolicy, RamMode};

/// What was asked on the command line, before anybody decided what it means here.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Everything that was said about the network.
    pub network: Description,
    /// `landfall.handover=`; none: the settings may say it.
    pub handover: Option<HandoverMode>,
    pub vendor_class: Option<String>,
    pub root: Option<RootRequest>,
    pub netroot: Option<RootRequest>,
    pub nbdroot: Option<RootRequest>,
    pub fstype: Option<String>,
    pub flags: Option<String>,
    pub ram: Option<RamMode>,
    /// What others' words ask for; `ram` is stronger.
    pub to_ram: Option<RamMode>,
    /// `landfall.ram.rate=`, in bytes a second.
    pub ram_rate: Option<u64>,
    /// Further servers of the same image.
    pub mirrors: Vec<NbdRequest>,
    /// Not read yet: a value that is wrong ends the boot, and says so where the root is decided.
    pub verity: VerityRequest,
    pub lost: Option<LostPolicy>,
    /// `landfall.heal=`; none: on.
    pub heal: Option<bool>,
    /// `landfall.initrd-time=`; none: on.
    pub initrd_time: Option<bool>,
    /// Size of the writable layer: bytes with a suffix, or a percentage of the memory.
    pub overlay: Option<String>,
    pub config: Option<String>,
    pub init: Option<String>,
    /// Seconds; negative: at once, 0: never.
    pub panic: Option<i32>,
    pub shell: bool,
    pub breaks: Vec<Stage>,
    pub quiet: bool,
    pub debug: bool,
    /// The kernel shall print everything itself.
    pub kernel_is_loud: bool,
    pub boot_image: Option<String>,
    /// `ltsp.NAME=value` and LTSP's bare words, names in upper case, in the order they came.
    pub settings: Vec<(String, String)>,
    /// `NAME=value`, names in upper case, in the order they came: the kernel puts such words into
    /// the environment of init, where LTSP's scripts saw them.
    pub variables: Vec<(String, String)>,
    /// Values of lts.conf may run commands.
    pub substitution: bool,
    /// `landfall=off`
    pub off: bool,
    pub problems: Vec<Problem>,
    /// What has a meaning only together with other words.
    pub(super) pending: Pending,
}

/// One key of the command line.
pub struct Key {
    /// `-` and `_` are the same in a key.
    pub name: &'static str,
    /// The value as the manual shows it; empty for a bare word.
    pub value: &'static str,
    pub manual: &'static str,
    read: fn(&mut Request, &str) -> Result<(), String>,
}

#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    Key {
        name: "root", value: "nbd:HOST[,HOST…][:PORT]:EXPORT | nbd://HOST[:PORT][,HOST[:PORT]…]/EXPORT | dhcp | /dev/nbd0[pN]",
        manual: "Where the root image is served; PORT defaults to 10809. Several servers of the same image share the nodes among them, and stand in for each other. `dhcp`, or none: DHCP option 17. `landfall:` may stand before it, and `landfall` alone is `dhcp`.",
        read: |request, value| { request.root = Some(root::root(value)?); Ok(()) },
    },
    Key {
        name: "netroot", value: "nbd:HOST:EXPORT | dhcp",
        manual: "dracut's other name for `root=`, which it goes before.",
        read: |request, value| { request.netroot = Some(root::root(value)?); Ok(()) },
    },
    Key {
        name: "nbdroot", value: "HOST:[PORT]/EXPORT | HOST,EXPORT | /EXPORT | dhcp",
        manual: "The same for `root=/dev/nbd0`, as nbd-client and LTSP write it. Without HOST: the boot server.",
        read: |request, value| { request.nbdroot = Some(root::nbdroot(value)?); Ok(()) },
    },
    Key {
        name: "rootfstype", value: "TYPE",
        manual: "File system of the image; recognised by itself when not given.",
        read: |request, value| { request.fstype = Some(first_type(value)?); Ok(()) },
    },
    Key {
        name: "rootflags", value: "OPTIONS",
        manual: "Mount options of the image.",
        read: |request, value| { request.flags = Some(value.to_owned()); Ok(()) },
    },
    Key {
        name: "ip", value: "METHOD | DEVICE:METHOD[:[MTU][:MAC]] | CLIENT[/PREFIX]:SERVER:GATEWAY:NETMASK:HOST:DEVICE:METHOD[:DNS[:DNS[:NTP]] | :[MTU][:MAC]]",
        manual: "An address, the kernel's or dracut's way; several `ip=` are for several links. METHOD: `dhcp`, `dhcp6`, `auto6`, `either6`, `link6`, two of them with a comma, `on` or `any` for either family, `none` or `off` for the address in field 1, `dhcp,TYPE,TEXT` with a client identifier. IPv6 stands in brackets; a DEVICE like `enx525400aabbcc` is chosen by MAC, and BOOTIF is the one of `BOOTIF=`. SERVER is the boot server; the other end of the link if it has a prefix or the mask is /31, /32, /127 or /128. An address alone is asked of DHCP, unless `netmask=` is there. Default: both families on every Ethernet port.",
        read: |request, value| { request.network.add_address(ip::address_request(value)?); Ok(()) },
    },
    Key {
        name: "nfsaddrs", value: "as ip=",
        manual: "The kernel's old name of `ip=`.",
        read: |request, value| { request.network.add_address(ip::address_request(value)?); Ok(()) },
    },
    Key {
        name: "netmask", value: "MASK",
        manual: "For an `ip=` of an address alone, as anaconda writes it: makes it static.",
        read: |request, value| { request.pending.netmask = Some(network::netmask(value)?); Ok(()) },
    },
    Key {
        name: "gateway", value: "ADDRESS",
        manual: "The router of such an address.",
        read: |request, value| { request.pending.gateway = Some(network::gateway(value)?); Ok(()) },
    },
    Key {
        name: "BOOTIF", value: "01-52-54-00-aa-bb-cc",
        manual: "The port to boot from, as boot loaders write it, with or without `01-`.",
        read: |request, value| { request.network.bootif = Some(links::bootif(value)?); Ok(()) },
    },
    Key {
        name: "rd.bootif", value: "0",
        manual: "`BOOTIF=` does not count.",
        read: |request, value| { request.pending.no_bootif = !switch(value)?; Ok(()) },
    },
    Key {
        name: "bootdev", value: "DEVICE",
        manual: "Of several links with an address, the one that the root is behind.",
        read: |request, value| { request.network.bootdev = Some(link_name(value)?); Ok(()) },
    },
    Key {
        name: "ifname", value: "NAME:MAC",
        manual: "Name of the port with this hardware address. Not a name that the kernel gives, like eth0.",
        read: |request, value| { request.network.names.push(links::ifname(value)?); Ok(()) },
    },
    Key {
        name: "bond", value: "NAME[:PORTS[:OPTIONS[:MTU]]]",
        manual: "A bond. PORTS, with commas: names, `mac:52:54:00:aa:bb:cc`, `driver:ixgbe`, or `physical` for every port but radios and USB, which may lead to a management controller; default eth0,eth1. OPTIONS, with commas or semicolons, are the kernel's: `mode=802.3ad,lacp_rate=fast`; without any it is balance-rr. If neither `miimon` nor `arp_interval` is given, `miimon` is 100, because nothing else would notice a dead port.",
        read: |request, value| { request.network.bonds.push(links::bond(value)?); Ok(()) },
    },
    Key {
        name: "vlan", value: "NAME:DEVICE",
        manual: "A VLAN over a link, which may be a bond. Its number is the end of NAME: vlan5, vlan0005, eth0.5.",
        read: |request, value| { request.network.vlans.push(links::vlan(value)?); Ok(()) },
    },
    Key {
        name: "bridge", value: "NAME[:PORTS]",
        manual: "A bridge of ports, which are chosen as for `bond=`; default eth0.",
        read: |request, value| { request.network.bridges.push(links::bridge(value)?); Ok(()) },
    },
    Key {
        name: "team", value: "NAME:PORTS:RUNNER",
        manual: "Refused: `bond=` does the same without a daemon.",
        read: |_, value| Err(links::team(value)),
    },
    Key {
        name: "rd.route", value: "NETWORK/PREFIX:[GATEWAY][:DEVICE]",
        manual: "A route more; IPv6 in brackets.",
        read: |request, value| { request.network.routes.push(links::route(value)?); Ok(()) },
    },
    Key {
        name: "nameserver", value: "ADDRESS",
        manual: "A name server, asked before those of DHCP and of routers.",
        read: |request, value| { request.network.dns.push(links::nameserver(value)?); Ok(()) },
    },
    Key {
        name: "rd.peerdns", value: "0",
        manual: "Name servers of DHCP and of routers do not count.",
        read: |request, value| { request.network.ignore_peer_dns = !switch(value)?; Ok(()) },
    },
    Key {
        name: "rd.neednet", value: "1",
        manual: "Without effect: the network is always needed here.",
        read: |_, value| switch(value).map(drop),
    },
    Key {
        name: "rd.net.timeout.ip-required", value: "SECONDS",
        manual: "With `dhcp,dhcp6` and the like: after so long, one family is enough. Default 20.",
        read: |request, value| { request.network.one_family_after = Some(fields::seconds(value)?); Ok(()) },
    },
    Key {
        name: "rd.net.timeout.carrier", value: "SECONDS",
        manual: "Without effect: carrier is waited for by event and never given up, and a link without it holds no other up. So are dracut's other `rd.net.timeout.…`: dhcp, iflink, ifup, route.",
        read: |_, value| fields::seconds(value).map(drop),
    },
    Key {
        name: "carrier_timeout", value: "SECONDS",
        manual: "Without effect: the same, as the kernel says it.",
        read: |_, value| fields::seconds(value).map(drop),
    },
    Key {
        name: "rd.net.timeout.ipv6auto", value: "SECONDS",
        manual: "Without effect: routers are asked until one answers, and what IPv4 brings meanwhile is used if it will do.",
        read: |_, value| fields::seconds(value).map(drop),
    },
    Key {
        name: "rd.net.timeout.ipv6dad", value: "SECONDS",
        manual: "Without effect: whether an address is somebody else's is known after 0.1 s.",
        read: |_, value| fields::seconds(value).map(drop),
    },
    Key {
        name: "landfall.handover", value: "dhcp | static | unmanaged",
        manual: "Who looks after the network later: `dhcp`, the default, the running system renews the lease; `static`, the lease becomes an address that needs no server; `unmanaged`, the running system keeps its hands off. Also a setting in lts.conf, NET_HANDOVER.",
        read: |request, value| { request.handover = Some(links::handover(value)?); Ok(()) },
    },
    Key {
        name: "dhcpclass", value: "TEXT",
        manual: "Vendor class (DHCP option 60); default `landfall`.",
        read: |request, value| { request.vendor_class = Some(value.to_owned()); Ok(()) },
    },
    Key {
        name: "landfall", value: "off",
        manual: "In an initramfs that has another init: leave the boot to it. So does a `root=` of another kind; or none, without `BOOTIF=` or a key of Landfall's.",
        read: |request, value| { request.off = !switch(value)?; Ok(()) },
    },
    Key {
        name: "landfall.config", value: "URL",
        manual: "The configuration: `tftp://`, `http://`, `https://` or `file:`, with {mac} {mac-dashed} {ip} {hostname} {uuid} {serial} {arch}. Default: LTSP's place on the boot server.",
        read: |request, value| { request.config = Some(value.to_owned()); Ok(()) },
    },
    Key {
        name: "landfall.substitution", value: "on | off",
        manual: "`on`: `$(…)` and backquotes in values of lts.conf run in the real root, by its /bin/sh. Default off: such a setting is an error.",
        read: |request, value| { request.substitution = switch(value)?; Ok(()) },
    },
    Key {
        name: "landfall.mirror", value: "nbd://HOST[:PORT][/EXPORT]",
        manual: "Another server of the same image, as further ones in `root=`; may be given several times.",
        read: |request, value| { request.mirrors.push(root::mirror(value)?); Ok(()) },
    },
    Key {
        name: "landfall.lost", value: "wait | reboot:SECONDS",
        manual: "When no server of the root answers: `wait` for one as long as it takes, the default; or reboot after so many seconds, by the hardware watchdog if nothing else works any more.",
        read: |request, value| { request.lost = Some(value.parse()?); Ok(()) },
    },
    Key {
        name: "landfall.verity", value: "ROOTHASH",
        manual: "Every block of the root is verified (dm-verity), with a hash tree of `veritysetup format` that has this root hash. It is behind the file system in the image unless another key says where. An image of which this is not the root hash is not booted.",
        read: |request, value| { request.verity.root_hash = Some(value.to_owned()); Ok(()) },
    },
    Key {
        name: "landfall.verity.hash-offset", value: "BYTES",
        manual: "Where the hash tree is in its image, as given to `veritysetup format --hash-offset`. Default: where the file system ends.",
        read: |request, value| { request.verity.hash_offset = Some(value.to_owned()); Ok(()) },
    },
    Key {
        name: "landfall.verity.hash", value: "nbd://HOST[,HOST…][:PORT]/EXPORT",
        manual: "The hash tree is in an export of its own; it is kept in memory.",
        read: |request, value| { request.verity.hash = Some(value.to_owned()); Ok(()) },
    },
    Key {
        name: "landfall.verity.on-corruption", value: "error | reboot | panic",
        manual: "A block that is not what it was: an I/O `error` to whoever reads it, the default; `reboot`, at once; `panic`, for `panic=` and kdump to decide.",
        read: |request, value| { request.verity.on_corruption = Some(value.to_owned()); Ok(()) },
    },
    Key {
        name: "landfall.heal", value: "on | off",
        manual: "Whether an address, a route or a link that the root needs is put back when software of the running system takes it away. Default: on, until the root is in memory.",
        read: |request, value| { request.heal = Some(switch(value)?); Ok(()) },
    },
    Key {
        name: "landfall.initrd-time", value: "on | off",
        manual: "Whether systemd is told the time that the boot took until it was started, for `systemd-analyze`. Default on.",
        read: |request, value| { request.initrd_time = Some(switch(value)?); Ok(()) },
    },
    Key {
        name: "landfall.ram", value: "off | copy | lazy",
        manual: "`copy`: the whole image goes to memory before the real init starts, and the server is let go. `lazy`: the real init starts at once, and the same happens behind the running system.",
        read: |request, value| { request.ram = Some(ram(value)?); Ok(()) },
    },
    Key {
        name: "landfall.ram.rate", value: "BYTES",
        manual: "Most bytes a second that `landfall.ram=lazy` reads: `20M`. Default: as many as there are while nobody else reads the root.",
        read: |request, value| { request.ram_rate = Some(rate(value)?); Ok(()) },
    },
    Key {
        name: "toram", value: "",
        manual: "`landfall.ram=copy`, as live-boot says it.",
        read: |request, _| { request.to_ram = Some(RamMode::Copy); Ok(()) },
    },
    Key {
        name: "landfall.overlay", value: "SIZE",
        manual: "Size of the writable layer: `2G`, `512M`, `40%` of the memory. Default 50%.",
        read: |request, value| { request.overlay = Some(overlay_size(value)?); Ok(()) },
    },
    Key {
        name: "init", value: "PATH",
        manual: "The real init; default: the first that exists of /sbin/init /etc/init /bin/init /bin/sh.",
        read: |request, value| { request.init = Some(absolute(value)?); Ok(()) },
    },
    Key {
        name: "panic", value: "SECONDS",
        manual: "After a failure: reboot after so many seconds; negative: at once; 0 or none: stay.",
        read: |request, value| {
            request.panic = Some(value.parse().map_err(|_| "not a number of seconds".to_owned())?);
            Ok(())
        },
    },
    Key {
        name: "break", value: "[STAGE,…]",
        manual: "A rescue shell before a stage: network, config, root, overlay, directives, handover. Needs an image built with --rescue-shell.",
        read: |request, value| { request.breaks.extend(stages(value)?); Ok(()) },
    },
    Key {
        name: "landfall.shell", value: "",
        manual: "A rescue shell instead of waiting, when the boot fails. Needs an image built with --rescue-shell.",
        read: |request, value| { request.shell = switch(value)?; Ok(()) },
    },
    Key {
        name: "landfall.debug", value: "",
        manual: "Details on the console too. Those of the boot are in the kernel log anyway, those of the running system only with this.",
        read: |request, value| { request.debug = switch(value)?; Ok(()) },
    },
    Key {
        name: "quiet", value: "",
        manual: "Only warnings, failures and long waits on the console.",
        read: |request, _| { request.quiet = true; Ok(()) },
    },
    Key {
        name: "debug", value: "",
        manual: "The kernel's own: everything on the console, our lines in the kernel's format.",
        read: |request, _| { request.kernel_is_loud = true; Ok(()) },
    },
    Key {
        name: "ignore_loglevel", value: "",
        manual: "The same.",
        read: |request, _| { request.kernel_is_loud = true; Ok(()) },
    },
    Key {
        name: "loglevel", value: "N",
        manual: "The kernel's own; with 7 as `debug`.",
        read: |request, value| {
            request.kernel_is_loud = value.parse::<u8>().map_err(|_| "not a number")? > 6;
            Ok(())
        },
    },
    Key {
        name: "BOOT_IMAGE", value: "PATH",
        manual: "Written by the boot loader; its directory is where LTSP's lts.conf is looked for.",
        read: |request, value| { request.boot_image = Some(value.to_owned()); Ok(()) },
    },
    Key {
        name: "LTSP_NBD_TO_RAM", value: "true | lazy",
        manual: "`landfall.ram=copy`, as LTSP says it, or `=lazy`; also a setting in lts.conf.",
        read: |request, value| { request.to_ram = Some(RamMode::of_setting(value)); Ok(()) },
    },
    Key {
        name: "LTSCONF", value: "NAME",
        manual: "Name of the configuration file, for lts.conf.",
        read: |request, value| { request.settings.push(("LTSCONF".into(), value.into())); Ok(()) },
    },
];

impl Request {
    /// Reads a whole command line. Words that are nobody's are left to the kernel and to the real
    /// init; an unknown word of our own (`landfall.…`) is a problem that names the nearest key.
    pub fn read(line: &str) -> Self {
        let mut request = Self::default();
        let words = words(line);
        for word in &words {
            let before = network::pieces(&request.network);
            match request.take(word) {
                Ok(()) => request.pending.remember(before, &request.network, word),
                Err(why) => request.problems.push(Problem::of(word, why)),
            }
        }
        request.settle_network(&words);
        request
    }

    fn take(&mut self, word: &Word<'_>) -> Result<(), String> {
        if let Some(name) = word.key.strip_prefix("ltsp.") {
            // `ltsp.break` and `ltsp.debug` speak to LTSP's own scripts, of which there are none.
            let name = name.to_ascii_uppercase();
            if let (Some(value), false) = (word.value, matches!(name.as_str(), "BREAK" | "DEBUG")) {
                self.settings.push((name, value.to_owned()));
            }
            return Ok(());
        }
        match KEYS.iter().find(|key| same_key(key.name, word.key)) {
            Some(key) => (key.read)(self, word.value.unwrap_or_default()),
            None if word.key.starts_with("rd.net.timeout.") => network::other_timeout(word),
            None if word.key.starts_with("landfall.") => Err(match nearest(word.key) {
                Some(name) => format!("no such key; did you mean {name}?"),
                None => "no such key".to_owned(),
            }),
            None => {
                if let Some(value) = word.value.filter(|_| is_variable(word.key)) {
                    self.variables.push((word.key.to_owned(), value.to_owned()));
                }
                Ok(())
            }
        }
    }
}

/// A name that only variables have: keys of the kernel and of its drivers have a lower-case letter.
fn is_variable(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase() || first == '_')
        && name.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_')
}

pub fn same_key(a: &str, b: &str) -> bool {
    let dashes = |byte: u8| if byte == b'-' { b'_' } else { byte };
    a.len() == b.len() && a.bytes().zip(b.bytes()).all(|(a, b)| dashes(a) == dashes(b))
}

/// The key of ours that differs in the fewest letters, if it is near enough to be meant.
fn nearest(typed: &str) -> Option<&'static str> {
    KEYS.iter()
        .map(|key| key.name)
        .filter(|name| name.starts_with("landfall."))
        .map(|name| (distance(name, typed), name))
        .min()
        .and_then(|(distance, name)| (distance <= 3).then_some(name))
}

/// Edit distance after Levenshtein; for a handful of short names.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, above) in b.iter().zip(row.iter().skip(1)) {
            let here = (diagonal + usize::from(x != *y)).min(left + 1).min(above + 1);
            diagonal = *above;
            left = here;
            next.push(here);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

fn ram(value: &str) -> Result<RamMode, String> {
    match value {
        "off" => Ok(RamMode::Off),
        "copy" | "" => Ok(RamMode::Copy),
        "lazy" => Ok(RamMode::Lazy),
        _ => Err("may be off, copy or lazy".into()),
    }
}

/// Bytes a second, with a unit if somebody likes.
fn rate(value: &str) -> Result<u64, String> {
    /// Less would not end before the machine does.
    const LEAST: u64 = 64 << 10;
    let wrong = || "not a number of bytes a second, such as 20M".to_owned();
    let size = Size::parse(value).filter(|size| size.share().is_none()).ok_or_else(wrong)?;
    match size.bytes(0) {
        Some(rate) if rate >= LEAST => Ok(rate),
        _ => Err("less than 64K a second would never end".to_owned()),
    }
}

fn overlay_size(value: &str) -> Result<String, String> {
    let size = Size::parse(value).ok_or("not a size like 512M, 2G or 40%")?;
    Ok(size.to_string())
}

fn absolute(value: &str) -> Result<String, String> {
    if value.starts_with('/') { Ok(value.to_owned()) } else { Err("not an absolute path".into()) }
}

fn first_type(value: &str) -> Result<String, String> {
    match value.split(',').next() {
        Some(first)
            if !first.is_empty()
                && first.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') =>
        {
            Ok(first.to_owned())
        }
        _ => Err("not the name of a file system".into()),
    }
}

pub fn switch(value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "on" | "yes" | "y" | "true" => Ok(true),
        "0" | "off" | "no" | "n" | "false" => Ok(false),
        _ => Err("may be on or off".into()),
    }
}

fn stages(value: &str) -> Result<Vec<Stage>, String> {
    // initramfs-tools stops before its premount scripts when no place is named.
    let names = if value.is_empty() { "premount" } else { value };
    names
        .split(',')
        .map(|name| {
            Stage::named(name).ok_or_else(|| {
                format!("\"{name}\" is not a stage; may be network, config, root, overlay, directives or handover")
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Mac;

    #[test]
    fn the_seeds_command_line_is_understood() {
        let line = "BOOT_IMAGE=/ltsp/amd64/vmlinuz-4.15 ro init=/sbin/init-ltsp forcepae console=tty1 \
                    console=ttyS0,9600n8 nvme_core.default_ps_max_latency_us=0 root=/dev/nbd0 \
                    BOOTIF=52-54-00-aa-bb-cc";
        let request = Request::read(line);
        assert_eq!(request.problems, vec![]);
        assert_eq!(request.root, Some(RootRequest::Device { partition: None }));
        assert_eq!(request.network.bootif, Some(Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc])));
        assert_eq!(request.boot_image.as_deref(), Some("/ltsp/amd64/vmlinuz-4.15"));
        assert_eq!(request.init.as_deref(), Some("/sbin/init-ltsp"));
    }

    #[test]
    fn ltsp_words_become_settings_in_upper_case() {
        let request = Request::read(
            "ltsp.foo=bar ltsp.ltsp_nbd_to_ram=true LTSP_NBD_TO_RAM=True ltsp.break=x",
        );
        let expected = [("FOO", "bar"), ("LTSP_NBD_TO_RAM", "true")];
        let got: Vec<_> = request.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(got, expected);
        assert_eq!(request.to_ram, Some(RamMode::Copy));
    }

    #[test]
    fn words_in_upper_case_are_variables_unless_they_are_keys() {
        let line = "NBD_ROOT_HOST=10.0.0.1 BOOTIF=01-52-54-00-aa-bb-cc _X=\"a b\" LTSCONF=alt.conf \
                    Mixed=1 9A=1 A-B=1 A.B=1 FLAG EMPTY= LTSP_NBD_TO_RAM=true A1=x A1=y -- LATE=1";
        let request = Request::read(line);
        assert_eq!(request.problems, vec![]);
        let got: Vec<_> = request.variables.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let expected =
            [("NBD_ROOT_HOST", "10.0.0.1"), ("_X", "a b"), ("EMPTY", ""), ("A1", "x"), ("A1", "y")];
        assert_eq!(got, expected);
        assert_eq!(request.settings, [("LTSCONF".to_owned(), "alt.conf".to_owned())]);
    }

    #[test]
    #[rustfmt::skip]
    fn a_mistake_is_reported_with_its_place_and_the_rest_counts() {
        let cases = [
            ("quiet landfall.rma=copy panic=5", 6,  "did you mean landfall.ram?"),
            ("panic=5 landfall.zebra",          8,  "no such key"),
            ("panic=5 landfall.ram=later",      8,  "off, copy or lazy"),
            ("panic=5 landfall.ram.rate=1K",    8,  "never end"),
            ("panic=5 landfall.lost=reboot",    8,  "reboot:SECONDS"),
            ("panic=5 ip=eth0:dhpc",            8,  "field 2"),
            ("panic=5 break=nowhere",           8,  "not a stage"),
            ("panic=5 landfall.overlay=2GB",    8,  "not a size"),
            ("panic=5 root=LABEL=x",            8,  "only NBD"),
            ("panic=5 init=sbin/init",          8,  "absolute"),
        ];
        for (line, at, why) in cases {
            let request = Request::read(line);
            assert_eq!(request.panic, Some(5), "{line}");
            let [problem] = request.problems.as_slice() else { panic!("{line}: {:?}", request.problems) };
            assert_eq!(problem.at, at, "{line}");
            assert!(problem.why.contains(why), "{line}: {problem}");
        }
    }

    #[test]
    fn dash_and_underscore_are_the_same_in_a_key_and_the_last_one_wins() {
        let request = Request::read("BOOT-IMAGE=/a panic=1 panic=2");
        assert_eq!(request.boot_image.as_deref(), Some("/a"));
        assert_eq!(request.panic, Some(2));
    }

    #[test]
    fn every_key_is_there_once_and_says_what_it_does() {
        for (at, key) in KEYS.iter().enumerate() {
            assert!(!key.manual.is_empty(), "{}", key.name);
            assert!(
                !KEYS.iter().skip(at + 1).any(|other| same_key(key.name, other.name)),
                "{}",
                key.name
            );
        }
    }
}
