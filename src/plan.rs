//! Request to plan: what the command line asked for becomes what will be done. Pure: the plan of
//! a machine can be made and printed anywhere.
//!
//! The root is decided in a second step, because the lease and the fetched configuration may
//! steer it: `landfall.x=` is stronger than foreign keys, those are stronger than the fetched
//! configuration, and DHCP comes last.

use std::fmt;
use std::net::IpAddr;

use crate::boot::Stage;
use crate::cmdline::{NbdRequest, Problem, Request, RootRequest};
use crate::config::{Settings, debian_arch};
use crate::console::Policy;
use crate::error::{Error, Result};
use crate::machine::Identity;
use crate::net::description::{AddressRequest, Description, HandoverMode};
use crate::net::{Family, Mac, NetworkPlan};
use crate::overlay::OverlayPlan;
use crate::root::verity::{VerityPlan, VerityRequest};
use crate::root::{LostPolicy, NbdExport, RamMode, RootPlan, spread};

/// Port that IANA gave to NBD.
const NBD_PORT: u16 = 10809;

/// Everything that is decided before the first packet.
#[derive(Debug)]
pub struct Plan {
    pub network: NetworkPlan,
    /// `landfall.config=`; none: LTSP's rule.
    pub config: Option<String>,
    pub boot_image: Option<String>,
    /// `ltsp.NAME=value` in order.
    pub settings: Vec<(String, String)>,
    /// `NAME=value` in order, weaker than the lease.
    pub variables: Vec<(String, String)>,
    /// A shell of the root may read values.
    pub substitution: bool,
    pub init: Option<String>,
    pub policy: Policy,
    pub breaks: Vec<Stage>,
    pub problems: Vec<Problem>,
    root: RootWish,
}

/// What the command line says of the root; the rest comes from the lease and the settings.
#[derive(Debug)]
struct RootWish {
    nbd: Option<(NbdRequest, &'static str)>,
    partition: Option<u32>,
    /// `root=/dev/nbdN` was given: an image is wanted even if no key says which.
    device: bool,
    fstype: Option<String>,
    flags: Option<String>,
    ram: Option<RamMode>,
    ram_rate: Option<u64>,
    mirrors: Vec<NbdRequest>,
    lost: LostPolicy,
    verity: VerityRequest,
    overlay: Option<String>,
}

impl RootWish {
    /// Whether there would be no root without a lease that names one. Where a default would do, a
    /// root-path still says more, but no boot waits for one. `knows_server`: `ip=` names the boot
    /// server.
    fn comes_from_dhcp(&self, knows_server: bool) -> bool {
        let (host, port, is_named) = match &self.nbd {
            Some((nbd, _)) => (nbd.host.is_some(), nbd.port.is_some(), nbd.names.is_some()),
            None => (false, false, false),
        };
        let has_default = (host || port || self.device) && (host || knows_server);
        !is_named && !has_default
    }
}

/// Makes `plan` one of this description. What it says of names and servers for the whole machine is
/// that of the `ip=` for `bootdev=`, or of the first that says it; what no `ip=` says any more stays
/// as it was typed at first.
pub fn describe(plan: &mut NetworkPlan, description: Description) {
    let is_bootdev = |request: &&AddressRequest| description.is_of_bootdev(request);
    let all = &description.addresses;
    let requests: Vec<&AddressRequest> =
        all.iter().filter(is_bootdev).chain(all.iter().filter(|one| !is_bootdev(one))).collect();
    // The boot server is behind the link of the root: another link's may be out of reach.
    let may_name_server = |request: &&&AddressRequest| {
        description.bootdev.is_none() || request.on.is_none() || is_bootdev(request)
    };
    let server = requests.iter().filter(may_name_server).find_map(|one| one.server.clone());
    plan.boot_server = server.or(plan.boot_server.take());
    let hostname = requests.iter().find_map(|request| request.hostname.clone());
    plan.hostname = hostname.or(plan.hostname.take());
    let first = |list: fn(&AddressRequest) -> &Vec<IpAddr>| {
        requests.iter().map(|request| list(request)).find(|list| !list.is_empty()).cloned()
    };
    let dns = first(|request| &request.dns);
    let ntp = first(|request| &request.ntp);
    plan.dns = dns.unwrap_or_else(|| std::mem::take(&mut plan.dns));
    let more = description.dns.iter().filter(|server| !plan.dns.contains(server)).copied();
    plan.dns.extend(more.collect::<Vec<_>>());
    plan.ntp = ntp.unwrap_or_else(|| std::mem::take(&mut plan.ntp));
    plan.description = description;
}

/// What the lease says that matters to the root.
#[derive(Clone, Copy, Debug, Default)]
pub struct RootOffer<'a> {
    /// DHCP option 17.
    pub root_path: Option<&'a str>,
    /// Name or address.
    pub boot_server: Option<&'a str>,
    /// Of the boot link: decides which of several servers this node asks first.
    pub mac: Option<Mac>,
}

impl Plan {
    pub fn decide(request: Request, identity: &Identity) -> Self {
        let mut wish = RootWish {
            nbd: None,
            partition: None,
            device: false,
            fstype: request.fstype,
            flags: request.flags,
            ram: request.ram.or(request.to_ram),
            ram_rate: request.ram_rate,
            mirrors: request.mirrors,
            lost: request.lost.unwrap_or_default(),
            verity: request.verity,
            overlay: request.overlay,
        };
        // root=nbd:… is the more explicit key; nbdroot= accompanies root=/dev/nbd0.
        if let Some(RootRequest::Nbd(nbd)) = request.nbdroot {
            wish.nbd = Some((nbd, "nbdroot= on the kernel command line"));
        }
        for (root, origin) in [
            (request.root, "root= on the kernel command line"),
            // It is there for nothing but the server: dracut's root= may name a label.
            (request.netroot, "netroot= on the kernel command line"),
        ] {
            match root {
                Some(RootRequest::Nbd(nbd)) => wish.nbd = Some((nbd, origin)),
                Some(RootRequest::Device { partition }) => {
                    wish.device = true;
                    wish.partition = partition;
                }
                Some(RootRequest::Dhcp) | None => {}
            }
        }
        let root_family = wish.nbd.as_ref().and_then(|(nbd, _)| family_of(nbd.host.as_deref()?));
        let mut network = NetworkPlan {
            description: Description::default(),
            root_family,
            handover: request.handover.unwrap_or_default(),
            boot_server: None,
            hostname: None,
            dns: Vec::new(),
            ntp: Vec::new(),
            vendor_class: request.vendor_class.unwrap_or_else(|| "landfall".to_owned()),
            uuid: identity.uuid,
            root_from_dhcp: false,
            has_usual_root: wish.device,
        };
        describe(&mut network, request.network);
        network.root_from_dhcp = wish.comes_from_dhcp(network.boot_server.is_some());
        Self {
            network,
            config: request.config,
            boot_image: request.boot_image,
            settings: request.settings,
            variables: request.variables,
            substitution: request.substitution,
            init: request.init,
            policy: Policy { reboot_after: request.panic, shell: request.shell },
            breaks: request.breaks,
            problems: request.problems,
            root: wish,
        }
    }

    /// Decides the root, once the lease and the settings are known.
    ///
    /// # Errors
    /// Nobody says which image, or on which server; or DHCP's root-path cannot be read.
    pub fn root(&self, offer: RootOffer<'_>, settings: &Settings) -> Result<RootPlan> {
        let doing = "deciding which root image to use";
        let (mut nbd, origin) = match &self.root.nbd {
            Some((nbd, origin)) => (nbd.clone(), *origin),
            None => (NbdRequest::default(), "DHCP"),
        };
        let mut origin = origin.to_owned();
        if nbd.names.is_none() {
            let offered = offer.root_path.map(|path| offered_root(path, doing)).transpose()?;
            match offered {
                Some(offered) => {
                    nbd.names = offered.names.or_else(|| Some(vec![String::new()]));
                    // The server of a root-path belongs to its export, unless one was typed.
                    nbd.port = nbd.port.or(if nbd.host.is_none() { offered.port } else { None });
                    nbd.host = nbd.host.or(offered.host);
                    nbd.fstype = nbd.fstype.or(offered.fstype);
                    nbd.flags = nbd.flags.or(offered.flags);
                    origin = match &self.root.nbd {
                        Some(_) => format!("{origin} and DHCP's root-path"),
                        None => "DHCP's root-path (option 17)".to_owned(),
                    };
                }
                // A port was typed: one server, one image.
                None if nbd.port.is_some() || nbd.host.is_some() => {
                    nbd.names = Some(vec![String::new()])
                }
                None if self.root.device => {
                    let name = format!("/opt/ltsp/{}", debian_arch(std::env::consts::ARCH));
                    origin = "LTSP's default for root=/dev/nbd0 without nbdroot= or root-path"
                        .to_owned();
                    nbd.names = Some(vec![name.clone(), name.trim_start_matches('/').to_owned()]);
                }
                None => {
                    return Err(Error::refused(
                        doing,
                        "there is no root= on the kernel command line, and DHCP offers no root-path (option 17)",
                    )
                    .with_hint("add root=nbd:HOST:EXPORT to the kernel command line"));
                }
            }
        }
        let host = nbd.host.or_else(|| offer.boot_server.map(str::to_owned)).ok_or_else(|| {
            Error::refused(doing, format!("{origin} names no server, and neither does DHCP"))
                .with_hint("add the server: root=nbd:HOST:EXPORT")
        })?;
        let names = nbd.names.unwrap_or_default();
        let port = nbd.port.unwrap_or(NBD_PORT);
        let of_root =
            [(host, Some(port))].into_iter().chain(nbd.more).map(|(host, own)| NbdExport {
                host,
                port: own.unwrap_or(port),
                names: names.clone(),
                origin: origin.clone(),
            });
        let mirrors = self.root.mirrors.iter().flat_map(|mirror| {
            let names = mirror.names.as_ref().unwrap_or(&names);
            let first = mirror.host.clone().map(|host| (host, None));
            let servers = first.into_iter().chain(mirror.more.clone());
            servers.map(|(host, own)| NbdExport {
                host,
                port: own.or(mirror.port).unwrap_or(NBD_PORT),
                names: names.clone(),
                origin: "landfall.mirror= on the kernel command line".to_owned(),
            })
        });
        let mut exports: Vec<NbdExport> = Vec::new();
        for export in of_root.chain(mirrors) {
            if !exports.iter().any(|other| (&other.host, other.port) == (&export.host, export.port))
            {
                exports.push(export);
            }
        }
        let mac = offer.mac.map_or([0; 6], |mac| mac.0);
        spread(&mut exports, &mac);
        let verity = VerityPlan::decide(&self.root.verity, |value| {
            let mut exports = exports_of_hash(value)?;
            spread(&mut exports, &mac);
            Ok(exports)
        })?;
        Ok(RootPlan {
            exports,
            ram: self.ram(settings),
            ram_rate: self.root.ram_rate,
            lost: self.root.lost,
            verity,
            partition: self.root.partition,
            fstype: self.root.fstype.clone().or(nbd.fstype),
            flags: self.root.flags.clone().or(nbd.flags).unwrap_or_default(),
        })
    }

    /// What the command line itself says of the NBD root: server, port, export. LTSP calls these
    /// `NBD_ROOT_HOST` and so on.
    pub fn typed_root(&self) -> Option<(&str, u16, Option<&str>)> {
        let (nbd, _) = self.root.nbd.as_ref()?;
        let name = nbd.names.as_ref().and_then(|names| names.first());
        let name = name.map(String::as_str).filter(|name| !name.is_empty());
        Some((nbd.host.as_deref()?, nbd.port.unwrap_or(NBD_PORT), name))
    }

    pub fn overlay(&self) -> OverlayPlan {
        OverlayPlan { size: self.root.overlay.clone() }
    }

    /// `landfall.ram=`, then the words of others, then lts.conf, of which `ltsp.NAME=` is the
    /// weakest part.
    fn ram(&self, settings: &Settings) -> RamMode {
        self.root.ram.unwrap_or_else(|| settings.nbd_to_ram())
    }
}

/// The servers of `landfall.verity.hash=`.
fn exports_of_hash(value: &str) -> Result<Vec<NbdExport>> {
    let wrong = |why: String| Error::invalid("looking for its server", why);
    let request = crate::cmdline::mirror(value).map_err(wrong)?;
    let names = request.names.unwrap_or_else(|| vec![String::new()]);
    let port = request.port.unwrap_or(NBD_PORT);
    let first = request.host.map(|host| (host, None));
    let servers = first.into_iter().chain(request.more);
    Ok(servers
        .map(|(host, own)| NbdExport {
            host,
            port: own.unwrap_or(port),
            names: names.clone(),
            origin: "landfall.verity.hash= on the kernel command line".to_owned(),
        })
        .collect())
}

/// Of a server that is written as an address.
fn family_of(host: &str) -> Option<Family> {
    let host = host.split('%').next().unwrap_or(host);
    match host.trim_start_matches('[').trim_end_matches(']').parse().ok()? {
        IpAddr::V4(_) => Some(Family::Ipv4),
        IpAddr::V6(_) => Some(Family::Ipv6),
    }
}

/// DHCP's root-path: `nbd:…` as in `root=`, or as `nbdroot=` has it.
fn offered_root(path: &str, doing: &str) -> Result<NbdRequest> {
    match crate::cmdline::nbdroot(path) {
        Ok(RootRequest::Nbd(request)) => Ok(request),
        Ok(_) => Err(Error::invalid(
            doing,
            format!("DHCP's root-path is \"{path}\", which names nothing"),
        )),
        Err(why) => Err(Error::invalid(doing, format!("DHCP's root-path is \"{path}\": {why}"))),
    }
}

impl fmt::Display for Plan {
    /// The dry run: one line a decision.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "problem: {problem}")?;
        }
        for line in self.network.description.lines() {
            writeln!(f, "network: {}: {}", line.about, line.text)?;
        }
        if !self.network.dns.is_empty() {
            let servers: Vec<_> = self.network.dns.iter().map(ToString::to_string).collect();
            writeln!(f, "network: name servers are {}", servers.join(" "))?;
        }
        if self.network.handover != HandoverMode::default() {
            writeln!(f, "network: handover is {}", self.network.handover.promise())?;
        }
        if let Some(server) = &self.network.boot_server {
            writeln!(f, "network: boot server is {server}")?;
        }
        match &self.config {
            Some(url) => writeln!(f, "config: {url}")?,
            None => writeln!(f, "config: lts.conf of the boot server, at LTSP's place")?,
        }
        if self.substitution {
            writeln!(f, "config: a shell of the root reads $(…) in values")?;
        }
        match &self.root.nbd {
            Some((nbd, origin)) => {
                let names = nbd.names.as_ref().and_then(|names| names.first());
                let host = nbd.host.as_deref().unwrap_or("the boot server");
                let port = nbd.port.unwrap_or(NBD_PORT);
                match names {
                    Some(name) => {
                        writeln!(f, "root: export \"{name}\" of {host}:{port}, from {origin}")?
                    }
                    None => writeln!(
                        f,
                        "root: the export that DHCP names, on {host}:{port}, from {origin}"
                    )?,
                }
            }
            None => writeln!(f, "root: what DHCP's root-path names")?,
        }
        match self.root.ram {
            Some(RamMode::Copy) => writeln!(f, "root: copied to memory")?,
            Some(RamMode::Lazy) => writeln!(f, "root: copied to memory behind the running system")?,
            Some(RamMode::Off) => writeln!(f, "root: streamed")?,
            None => writeln!(f, "root: streamed, unless the configuration says LTSP_NBD_TO_RAM")?,
        }
        for mirror in &self.root.mirrors {
            let host = mirror.host.as_deref().unwrap_or_default();
            writeln!(f, "root: also on {host}:{}", mirror.port.unwrap_or(NBD_PORT))?;
        }
        if let Some(root_hash) = &self.root.verity.root_hash {
            writeln!(f, "root: verified against {root_hash}")?;
        }
        writeln!(f, "overlay: {} in memory", self.root.overlay.as_deref().unwrap_or("50%"))?;
        write!(f, "handover: {}", self.init.as_deref().unwrap_or("the first init there is"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;
    use crate::net::description::Ipv4Method;
    use crate::root::verity::TreePlace;

    fn plan(line: &str) -> Plan {
        Plan::decide(Request::read(line), &Identity::default())
    }

    #[test]
    #[rustfmt::skip]
    fn the_root_is_decided_by_the_strongest_who_speaks() {
        let ltsp = ["/opt/ltsp/amd64", "opt/ltsp/amd64"];
        type Row<'a> = (&'a str, Option<&'a str>, Option<&'a str>, &'a str, u16, &'a [&'a str]);
        // command line, root-path, boot server -> host, port, names
        let cases: [Row<'_>; 13] = [
            ("root=nbd:10.0.0.1:focal", Some("/x"), Some("b"), "10.0.0.1", 10809, &["focal", "/focal"]),
            // C83
            ("root=/dev/nbd0", Some("/opt/ltsp/amd64"), Some("10.0.0.1"), "10.0.0.1", 10809, &ltsp),
            ("root=dhcp", Some("nbd:s:10810:img"), Some("10.0.0.1"), "s", 10810, &["img", "/img"]),
            ("", Some("10.0.0.7:/opt/ltsp/amd64"), Some("10.0.0.1"), "10.0.0.7", 10809, &ltsp),
            ("nbdroot=:/img root=/dev/nbd0", None, Some("ltsp-1"), "ltsp-1", 10809, &["/img", "img"]),
            ("nbdroot=10.0.0.1,10810 root=/dev/nbd0", None, None, "10.0.0.1", 10810, &[""]),
            ("nbdroot=10.0.0.1,10810 root=/dev/nbd0", Some("/img"), None, "10.0.0.1", 10810, &["/img", "img"]),
            ("root=nbd:10.0.0.1", Some("other:/img"), None, "10.0.0.1", 10809, &["/img", "img"]),
            ("root=nbd:10.0.0.1 nbdroot=10.0.0.2:/img", None, None, "10.0.0.1", 10809, &[""]),
            ("root=/dev/nbd0p2 nbdroot=10.0.0.2:/img", None, None, "10.0.0.2", 10809, &["/img", "img"]),
            // dracut: netroot= says where, root= may say what of it, in any order.
            ("netroot=nbd:10.0.0.1:disk root=/dev/nbd0p2", None, None, "10.0.0.1", 10809, &["disk", "/disk"]),
            ("netroot=nbd:10.0.0.1:disk root=dhcp", Some("/x"), Some("b"), "10.0.0.1", 10809, &["disk", "/disk"]),
            ("root=nbd:10.0.0.2:x netroot=nbd:10.0.0.1:disk", None, None, "10.0.0.1", 10809, &["disk", "/disk"]),
        ];
        for (line, root_path, boot_server, host, port, names) in cases {
            let got = plan(line).root(RootOffer { mac: None, root_path, boot_server }, &Settings::default());
            let got = got.unwrap_or_else(|error| panic!("{line}: {error}"));
            let export = got.exports.first().unwrap();
            assert_eq!((export.host.as_str(), export.port), (host, port), "{line} {root_path:?}");
            assert_eq!(export.names, names, "{line} {root_path:?}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn only_a_root_that_nobody_else_names_is_waited_for() {
        let cases = [
            ("root=nbd:10.0.0.1:focal",                 false),
            ("root=nbd:10.0.0.1",                       false), // the default export
            ("root=nbd:10.0.0.1:10810",                 false),
            ("nbdroot=10.0.0.1,10810 root=/dev/nbd0",   false),
            ("nbdroot=:/img root=/dev/nbd0",            false), // of whoever is the boot server
            ("ip=:10.0.0.1:::::dhcp root=/dev/nbd0",    false), // LTSP's default, of this server
            ("root=/dev/nbd0",                          true),  // of which server?
            ("root=dhcp",                               true),
            ("ip=:10.0.0.1:::::dhcp root=dhcp",         true),
            ("",                                        true),
        ];
        for (line, expected) in cases {
            assert_eq!(plan(line).network.root_from_dhcp, expected, "{line}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn what_holds_for_the_machine_is_said_by_the_first_ip_that_says_it() {
        // line; boot server, host name, name servers, time servers
        let cases = [
            ("ip=eth0:dhcp ip=:::::eth1:dhcp:10.0.0.53::10.0.0.9",      "- - 10.0.0.53 10.0.0.9"),
            ("ip=:::::eth1:dhcp:10.0.0.53::10.0.0.9 ip=eth0:dhcp",      "- - 10.0.0.53 10.0.0.9"),
            ("ip=eth0:dhcp ip=:10.0.0.1:::n5:eth1:dhcp",                "10.0.0.1 n5 - -"),
            // bootdev= says whose words count first …
            ("ip=::::n4:eth0:dhcp ip=::::n5:eth1:dhcp bootdev=eth1",    "- n5 - -"),
            ("ip=::::n5:eth1:dhcp ip=::::n4:eth0:dhcp bootdev=eth1",    "- n5 - -"),
            // … and where the boot server is
            ("ip=:10.0.0.1:::n5:eth0:dhcp ip=eth1:dhcp bootdev=eth1",   "- n5 - -"),
            ("ip=:10.0.0.1:::n5::dhcp ip=eth1:dhcp bootdev=eth1",       "10.0.0.1 n5 - -"),
            ("ip=:10.0.0.1::::enx525400aabbcc:dhcp ip=eth1:dhcp bootdev=enx525400aabbcc", "10.0.0.1 - - -"),
            ("ip=dhcp BOOTIF=01-52-54-00-aa-bb-cc nameserver=10.0.0.53", "- - 10.0.0.53 -"),
            ("",                                                        "- - - -"),
        ];
        for (line, expected) in cases {
            let plan = plan(line);
            assert_eq!(plan.problems, vec![], "{line}");
            assert_eq!(summary(&plan.network), expected, "{line}");
        }
    }

    fn summary(plan: &NetworkPlan) -> String {
        let text = |text: &Option<String>| text.clone().unwrap_or("-".into());
        let list = |list: &[IpAddr]| match list {
            [] => "-".to_owned(),
            _ => list.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        };
        let (server, host) = (text(&plan.boot_server), text(&plan.hostname));
        format!("{server} {host} {} {}", list(&plan.dns), list(&plan.ntp))
    }

    /// An `ip=` that the boot loader fills in yields to settings, but whom it names is still there.
    #[test]
    fn another_description_replaces_what_it_says_and_no_more() {
        let ipv4 = |plan: &NetworkPlan| Some(plan.description.boot_request()?.ipv4);
        let mut network =
            plan("ip=10.0.0.5:10.0.0.1:10.0.0.254:24:n5 nameserver=10.0.0.53").network;
        assert!(matches!(ipv4(&network), Some(Ipv4Method::Static { .. })));
        let other = Request::read("ip=::::n6:bond0:dhcp bond=bond0:eth0,eth1 nameserver=10.0.0.54");
        describe(&mut network, other.network);
        assert_eq!(ipv4(&network), Some(Ipv4Method::Dhcp { request: None }));
        assert_eq!(summary(&network), "10.0.0.1 n6 10.0.0.53,10.0.0.54 -");
    }

    #[test]
    fn a_root_that_nobody_names_is_said_so() {
        let offer = RootOffer { mac: None, root_path: None, boot_server: Some("10.0.0.1") };
        let error = plan("quiet").root(offer, &Settings::default()).unwrap_err();
        assert!(error.to_string().contains("option 17"), "{error}");
        let offer = RootOffer { mac: None, root_path: Some("/img"), boot_server: None };
        let error = plan("quiet").root(offer, &Settings::default()).unwrap_err();
        assert!(error.to_string().contains("names no server"), "{error}");
    }

    /// Anything else would be a root that somebody believes to be verified.
    #[test]
    #[rustfmt::skip]
    fn what_is_said_of_verity_and_cannot_be_understood_ends_the_boot() {
        let hash = "5a".repeat(32);
        let cases = [
            (String::new(),                                  Ok(None)),
            (format!("landfall.verity={hash}"),              Ok(Some(0))),
            (format!("landfall.verity={hash} landfall.verity.hash=nbd://a,b:7/h"), Ok(Some(2))),
            (format!("landfall.verity={hash}5"),             Err("65 digits")),
            ("landfall.verity".to_owned(),                   Err("no root hash")),
            ("landfall.verity.hash=nbd://a/h".to_owned(),    Err("nothing would be verified")),
            (format!("landfall.verity={hash} landfall.verity.hash=tftp://a/h"), Err("looking for its server")),
            (format!("landfall.verity={hash} landfall.verity.on_corruption=halt"), Err("error, reboot or panic")),
        ];
        for (line, expected) in cases {
            let typed = format!("root=nbd:10.0.0.1:x {line}");
            let got = plan(&typed).root(RootOffer::default(), &Settings::default());
            match (got, expected) {
                (Ok(plan), Ok(expected)) => {
                    let servers = plan.verity.map(|plan| match plan.place {
                        TreePlace::Image { .. } => 0,
                        TreePlace::Export { exports, .. } => exports.len(),
                    });
                    assert_eq!(servers, expected, "{line}");
                }
                (Err(error), Err(why)) => assert!(error.to_string().contains(why), "{line}: {error}"),
                (got, _) => panic!("{line}: {got:?}"),
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn ltsp_machines_that_say_nothing_get_ltsps_default_export() {
        let offer = RootOffer { mac: None, root_path: None, boot_server: Some("10.0.0.1") };
        let got = plan("root=/dev/nbd0").root(offer, &Settings::default()).unwrap();
        let export = got.exports.first().unwrap();
        assert_eq!(export.names, ["/opt/ltsp/amd64", "opt/ltsp/amd64"]);
    }

    #[test]
    fn the_copy_to_memory_is_decided_by_the_strongest_who_speaks() {
        let offer = RootOffer { mac: None, root_path: Some("/img"), boot_server: Some("b") };
        let (off, copy) = (RamMode::Off, RamMode::Copy);
        for (line, configured, expected) in [
            ("", "", off),
            ("", "yes", copy), // C94
            ("", "nonsense", off),
            ("LTSP_NBD_TO_RAM=True", "", copy), // C93
            ("LTSP_NBD_TO_RAM=true", "false", copy),
            ("LTSP_NBD_TO_RAM=true landfall.ram=off", "yes", off),
            ("landfall.ram=off toram", "yes", off),
            ("toram", "no", copy),
        ] {
            let mut settings = Settings::default();
            settings.insert("LTSP_NBD_TO_RAM", configured, Origin::Agent);
            let got = plan(line).root(offer, &settings).unwrap().ram;
            assert_eq!(got, expected, "{line} {configured}");
        }
    }

    #[test]
    fn the_dry_run_says_what_will_happen() {
        let text = plan("ip=10.0.0.5:10.0.0.1::24:::off root=nbd:10.0.0.1:focal landfall.ram=copy landfall.rma=x").to_string();
        let expected = "\
            problem: landfall.rma=x (byte 73 of the kernel command line): no such key; did you mean landfall.ram?\n\
            network: every Ethernet link: 10.0.0.5/24\n\
            network: boot server is 10.0.0.1\n\
            config: lts.conf of the boot server, at LTSP's place\n\
            root: export \"focal\" of 10.0.0.1:10809, from root= on the kernel command line\n\
            root: copied to memory\n\
            overlay: 50% in memory\n\
            handover: the first init there is";
        assert_eq!(text, expected);
    }
}
