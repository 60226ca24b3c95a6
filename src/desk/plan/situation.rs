//! A node before its boot: what the kernel command line, DHCP and the machine would say, as far as
//! it is known, and in sentences how far it is not.

use std::net::{IpAddr, Ipv4Addr};

use super::node::Node;
use super::options::Site;
use crate::cmdline::Request;
use crate::config::{Identity, Location, Origin, Placeholders, base};
use crate::machine;
use crate::net::description::{AddressRequest, Description, HandoverMode, Ipv4Method, Ipv6Method};
use crate::net::kernel;
use crate::net::{Lease, Lease6, LeaseFile, Leases, Mac, boot_server, variables};
use crate::plan::{Plan, RootOffer};

/// The first Ethernet port of a kernel that nobody tells to rename them; ours does not.
const USUAL_LINK: &str = "eth0";

/// MiB. Any machine of today; what a small one does differently must not appear by mistake.
const USUAL_MEMORY: u64 = 16 << 10;

pub struct Situation {
    pub plan: Plan,
    /// `landfall.handover=`; none: a setting may say it.
    pub handover: Option<HandoverMode>,
    pub node: Node,
    /// Also where nothing is known of them; see [`Situation::known_leases`].
    leases: Leases,
    /// Of the IPv4 address.
    pub address_from: kernel::Origin,
    has_address: bool,
    /// Nothing is left for DHCP or a router to say.
    is_complete: bool,
    pub link: String,
    /// The boot server that is known apart from the lease.
    server: Option<String>,
    pub memory_kib: Option<u64>,
    pub unknown: Vec<String>,
}

/// What `ip=` says by itself of the link that the root is behind.
struct Typed {
    ipv4: Option<Lease>,
    ipv6: Option<Lease6>,
    /// Nobody else is asked for an address.
    is_all: bool,
}

impl Typed {
    fn of(network: &Description) -> Self {
        let request = network.boot_request().cloned().unwrap_or_else(AddressRequest::any);
        let ipv4 = match request.ipv4 {
            Ipv4Method::Static { address, prefix, gateway, .. } => {
                Some(Lease::typed(address, prefix, gateway))
            }
            _ => None,
        };
        let ipv6 = match request.ipv6 {
            Ipv6Method::Static { address, prefix, gateway, .. } => {
                Some(Lease6::typed(address, prefix, gateway))
            }
            _ => None,
        };
        let asks = matches!(request.ipv4, Ipv4Method::Dhcp { .. })
            || matches!(request.ipv6, Ipv6Method::Auto | Ipv6Method::Dhcp);
        Self { is_all: !asks && (ipv4.is_some() || ipv6.is_some()), ipv4, ipv6 }
    }
}

/// The name of the link that the root is behind, where the words tell.
pub fn boot_link(network: &Description) -> Option<String> {
    let asked = || network.boot_request()?.on.as_ref()?.name().map(str::to_owned);
    let made = || network.tops().first().map(|name| (*name).to_owned());
    network.bootdev.clone().or_else(asked).or_else(made)
}

impl Situation {
    /// # Errors
    /// One line: what was given contradicts itself.
    pub fn of(mut node: Node, file: Option<LeaseFile>, site: &Site) -> Result<Self, String> {
        let identity = machine::Identity { uuid: node.uuid, serial: None };
        let request = Request::read(&site.command_line);
        let handover = request.handover;
        let plan = Plan::decide(request, &identity);
        let mut unknown = Vec::new();
        if let Some(file) = &file {
            match node.mac.replace(file.mac) {
                Some(mac) if mac != file.mac => {
                    return Err(format!("--mac is {mac}, and the lease is for {}", file.mac));
                }
                _ => {}
            }
        }
        let typed = Typed::of(&plan.network.description);
        contradiction(&node, site, &typed)?;
        let was_typed = file.as_ref().is_some_and(|file| !file.dhcp);
        // `ip=` is not part of the lease's file, only what it came to.
        let address_from = match &file {
            Some(file) if was_typed && file.leases.ipv4.is_some() => kernel::Origin::CommandLine,
            _ => plan.network.description.origin(),
        };
        let (mut leases, has_address, is_complete) = match &file {
            Some(file) if file.leases.address().is_some() => (file.leases.clone(), true, true),
            _ if typed.is_all => (Leases::default(), true, true),
            _ => {
                let lease = offered(&node, site, &plan.network.description, &mut unknown);
                (Leases::of_ipv4(lease), node.address.is_some(), false)
            }
        };
        // What was typed for this boot is stronger than what the file has of another one.
        let dns = leases.dns();
        if let Some(lease) = typed.ipv4 {
            leases.ipv4 = Some(lease);
        }
        leases.ipv6 = typed.ipv6.or(leases.ipv6);
        let server = file.as_ref().and_then(|file| file.boot_server.clone());
        if was_typed
            && let Some(lease) = &mut leases.ipv4
            && lease.dns.is_empty()
        {
            lease.dns = dns;
        }
        let named = boot_link(&plan.network.description);
        let link = match file.as_ref().map(|file| file.link.clone()).or(named) {
            Some(name) => name,
            None => {
                unknown.push(format!("The name of the boot port: {USUAL_LINK} is assumed."));
                USUAL_LINK.to_owned()
            }
        };
        if site.memory_kib.is_none() {
            unknown.push(
                "The node's memory (--memory): enough of it is assumed, so that nothing is \
                 removed for want of memory."
                    .to_owned(),
            );
        }
        Ok(Self {
            plan,
            handover,
            node,
            leases,
            address_from,
            has_address,
            is_complete,
            link,
            server,
            memory_kib: site.memory_kib,
            unknown,
        })
    }

    /// As a boot has them; `None` if the node's address is not known.
    pub fn leases(&self) -> Option<&Leases> {
        self.has_address.then_some(&self.leases)
    }

    /// The same; empty if the address is not known.
    pub fn known_leases(&self) -> Leases {
        self.leases().cloned().unwrap_or_default()
    }

    fn address(&self) -> Option<IpAddr> {
        self.leases()?.address()
    }

    /// Whether somebody has typed the address.
    pub fn is_typed(&self) -> bool {
        Typed::of(&self.plan.network.description).is_all
    }

    /// Whether somebody who is not asked here, DHCP, has more to say.
    pub fn may_be_told_more(&self) -> bool {
        !self.is_complete
    }

    pub fn boot_server(&self) -> Option<String> {
        boot_server(&self.plan.network, &self.leases).or_else(|| self.server.clone())
    }

    /// The name that `ip=` or DHCP gives.
    pub fn hostname(&self) -> Option<&str> {
        self.plan.network.hostname.as_deref().or(self.leases.hostname())
    }

    pub fn offer<'a>(&'a self, boot_server: Option<&'a str>) -> RootOffer<'a> {
        RootOffer { root_path: self.leases.root_path(), boot_server, mac: self.node.mac }
    }

    /// Of the node, or one that changes nothing.
    pub fn memory_or_enough_kib(&self) -> u64 {
        self.memory_kib.unwrap_or(USUAL_MEMORY << 10)
    }

    /// By what sections are chosen.
    pub fn identity(&self) -> Identity {
        Identity {
            hostname: self.hostname().map(str::to_owned),
            ip: self.address(),
            mac: self.node.mac,
        }
    }

    /// What a file can refer to, with what is not known left out.
    pub fn base(&self) -> Vec<(String, String, Origin)> {
        let mac = self.node.mac.unwrap_or(Mac([0; 6]));
        let Self { link, address_from, leases, .. } = self;
        let mut known = variables(link, link, mac, *address_from, &self.plan.network, leases);
        known.retain(|(name, _)| match name.as_str() {
            "IPV4ADDR" | "IPV4BROADCAST" | "IPV4NETMASK" => self.has_address,
            "LTSP_CLIENT_MAC" => self.node.mac.is_some(),
            _ => true,
        });
        base(&self.plan, known, self.boot_server())
    }

    /// Where the node looks for its configuration.
    pub fn addresses(&self, base: &[(String, String, Origin)]) -> Vec<String> {
        let urls = match &self.plan.config {
            Some(template) => {
                let identity = machine::Identity { uuid: self.node.uuid, serial: None };
                let placeholders = Placeholders {
                    mac: self.node.mac,
                    ip: self.address(),
                    hostname: self.hostname().map(str::to_owned),
                    uuid: identity.uuid_text(),
                    serial: None,
                    arch: std::env::consts::ARCH.to_owned(),
                };
                // A placeholder of which nothing is known here.
                placeholders.fill(template).unwrap_or_default()
            }
            None => {
                let server = self.boot_server();
                let ltsconf = base.iter().rev().find(|(name, ..)| name == "LTSCONF");
                let location = Location {
                    server: server.as_deref(),
                    boot_image: self.plan.boot_image.as_deref(),
                    filename: self.leases.filename(),
                    ltsconf: ltsconf.map(|(_, value, _)| value.as_str()),
                    arch: std::env::consts::ARCH,
                };
                location.candidates()
            }
        };
        match (urls.is_empty(), &self.plan.config) {
            (true, Some(template)) => vec![template.clone()],
            _ => urls.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Options that cannot be true together with `ip=`.
fn contradiction(node: &Node, site: &Site, typed: &Typed) -> Result<(), String> {
    let address = typed.ipv4.as_ref().map(|lease| lease.address);
    if let (Some(other), Some(address)) = (node.address, address)
        && other != address
    {
        return Err(format!("--ip is {other}, and ip= on the kernel command line says {address}"));
    }
    match (&site.server, node.address) {
        (Some(server), _) if typed.is_all => Err(format!(
            "--server {server} is what DHCP would say, but ip= on the kernel command line is \
             static; its second field is the boot server"
        )),
        (_, Some(other)) if typed.is_all && address.is_none() => Err(format!(
            "--ip {other} is what DHCP would say, but ip= on the kernel command line is static"
        )),
        _ => Ok(()),
    }
}

/// The lease that options describe.
fn offered(node: &Node, site: &Site, network: &Description, unknown: &mut Vec<String>) -> Lease {
    let prefix = match (node.address, node.prefix) {
        (Some(address), None) => {
            unknown
                .push(format!("The netmask of {address} (--ip {address}/PREFIX): /24 is assumed."));
            24
        }
        (_, prefix) => prefix.unwrap_or(0),
    };
    let asks_ipv4 = network.boot_request().is_none_or(|request| request.ipv4 != Ipv4Method::Off);
    let rest = "DNS servers, search list, root path and more (--lease)";
    unknown.push(match (node.address, &node.hostname) {
        (None, _) if !asks_ipv4 => {
            format!("No lease: routers and DHCPv6 decide the address, {rest}.")
        }
        (None, _) => format!("No lease: DHCP decides the address (--ip), {rest}."),
        (Some(_), None) => format!("DHCP decides the host name (--hostname), {rest}."),
        (Some(_), Some(_)) => format!("DHCP decides {rest}."),
    });
    let address = node.address.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let next_server = site.server.as_ref().and_then(|server| server.parse().ok());
    Lease {
        hostname: node.hostname.clone(),
        next_server,
        tftp_server: site.server.clone().filter(|_| next_server.is_none()),
        ..Lease::of_address(address, prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn situation(
        node: &Node,
        command_line: &str,
        server: Option<&str>,
    ) -> Result<Situation, String> {
        let site = Site {
            command_line: command_line.to_owned(),
            server: server.map(str::to_owned),
            ..Site::default()
        };
        Situation::of(node.clone(), None, &site)
    }

    fn value(situation: &Situation, name: &str) -> Option<String> {
        let mut base = situation.base().into_iter().rev();
        base.find(|(other, ..)| other == name).map(|(_, value, _)| value)
    }

    #[test]
    fn nothing_is_made_up_where_dhcp_decides() {
        let node = Node { mac: "52:54:00:aa:bb:cc".parse().ok(), ..Node::default() };
        let situation = situation(&node, "", None).unwrap();
        assert!(situation.leases().is_none());
        assert!(situation.may_be_told_more());
        assert_eq!(situation.identity().ip, None);
        for name in ["IPV4ADDR", "IPV4NETMASK", "IPV4BROADCAST", "SERVER", "HOSTNAME"] {
            assert_eq!(value(&situation, name), None, "{name}");
        }
        assert_eq!(value(&situation, "LTSP_CLIENT_MAC").as_deref(), Some("52:54:00:AA:BB:CC"));
        assert!(situation.unknown.iter().any(|line| line.contains("DHCP decides the address")));
    }

    #[test]
    #[rustfmt::skip]
    fn what_is_given_is_where_the_boot_would_find_it() {
        let node = Node {
            address: Some([10, 0, 0, 5].into()), prefix: Some(16), hostname: Some("node1".into()),
            mac: "52:54:00:aa:bb:cc".parse().ok(), uuid: None,
        };
        // command line, --server -> host name, boot server, netmask
        let cases = [
            ("",                                        Some("10.0.0.1"), "node1", Some("10.0.0.1"), "255.255.0.0"),
            ("",                                        Some("boot"),     "node1", Some("boot"),     "255.255.0.0"),
            ("",                                        None,             "node1", None,             "255.255.0.0"),
            ("ip=:10.0.0.9:::n9::dhcp",                 Some("10.0.0.1"), "n9",    Some("10.0.0.9"), "255.255.0.0"),
            ("ip=10.0.0.5:10.0.0.2::24:n5:eth1:off",    None,             "n5",    Some("10.0.0.2"), "255.255.255.0"),
        ];
        for (line, server, hostname, boot_server, netmask) in cases {
            let situation = situation(&node, line, server).unwrap_or_else(|why| panic!("{line}: {why}"));
            assert_eq!(situation.identity().hostname.as_deref(), Some(hostname), "{line}");
            assert_eq!(situation.boot_server().as_deref(), boot_server, "{line}");
            assert_eq!(value(&situation, "IPV4NETMASK").as_deref(), Some(netmask), "{line}");
        }
    }

    #[test]
    fn a_contradiction_is_said() {
        let node = Node { address: Some([10, 0, 0, 6].into()), ..Node::default() };
        let line = "ip=10.0.0.5:::24:::off";
        let why = situation(&node, line, None).map(drop).unwrap_err();
        assert_eq!(why, "--ip is 10.0.0.6, and ip= on the kernel command line says 10.0.0.5");
        let why = situation(&Node::default(), line, Some("s")).map(drop).unwrap_err();
        assert!(why.contains("is static"), "{why}");
    }

    #[test]
    fn the_file_of_a_node_says_it_all() {
        let text = r#"{"link":"ens3","mac":"52:54:00:aa:bb:cc","dhcp":true,"boot_server":"10.0.0.1",
            "address":"10.0.0.5","prefix":24,"routes":[{"to":"0.0.0.0/0","via":"10.0.0.254"}],
            "dns":["10.0.0.2"],"search":[],"ntp":[],"hostname":"node1","root_path":"/img",
            "next_server":"10.0.0.1"}"#;
        let file: LeaseFile = serde_json::from_str(text).unwrap();
        let site = Site { memory_kib: Some(1), ..Site::default() };
        let situation = Situation::of(Node::default(), Some(file.clone()), &site).unwrap();
        assert_eq!(situation.unknown, Vec::<String>::new());
        assert_eq!(situation.link, "ens3");
        assert_eq!(situation.hostname(), Some("node1"));
        assert_eq!(situation.offer(None).root_path, Some("/img"));

        let other = Node { mac: "52:54:00:aa:bb:cd".parse().ok(), ..Node::default() };
        assert!(Situation::of(other, Some(file.clone()), &site).is_err());
        let typed = LeaseFile { dhcp: false, ..file };
        let situation = Situation::of(Node::default(), Some(typed), &site).unwrap();
        assert_eq!(situation.boot_server().as_deref(), Some("10.0.0.1"));
        assert_eq!(situation.address_from, kernel::Origin::CommandLine);
        assert_eq!(value(&situation, "PROTO").as_deref(), Some("none"));
        assert_eq!(value(&situation, "IPV4GATEWAY").as_deref(), Some("10.0.0.254"));
    }

    #[test]
    fn ipv6_alone_is_a_lease_too() {
        let text = r#"{"link":"eth0","mac":"52:54:00:aa:bb:cc","dhcp":true,"boot_server":null,
            "ipv6":{"addresses":[{"address":"2001:db8::7","prefix":64,"preferred_seconds":60,
            "valid_seconds":90,"origin":"slaac"}],"routers":[],"routes":[],"prefixes":[],"mtu":null,
            "dns":["2001:db8::1"],"search":[],"ntp":[],"ntp_names":[],"boot_params":[],
            "boot_url":"nbd://[2001:db8::2]/focal","hostname":"node1","server":null,"client":null,
            "iaid":null,"renew_seconds":null,"rebind_seconds":null,"managed":false,"other":true}}"#;
        let file: LeaseFile = serde_json::from_str(text).unwrap();
        let site = Site { memory_kib: Some(1), ..Site::default() };
        for dhcp in [true, false] {
            let file = LeaseFile { dhcp, ..file.clone() };
            let situation = Situation::of(Node::default(), Some(file), &site).unwrap();
            assert_eq!(situation.unknown, Vec::<String>::new(), "dhcp: {dhcp}");
            let address: IpAddr = "2001:db8::7".parse().unwrap();
            assert_eq!(situation.identity().ip, Some(address), "dhcp: {dhcp}");
            assert_eq!(situation.boot_server().as_deref(), Some("2001:db8::2"), "dhcp: {dhcp}");
            assert_eq!(situation.offer(None).root_path, Some("nbd://[2001:db8::2]/focal"));
            assert_eq!(value(&situation, "IPV4ADDR"), None, "dhcp: {dhcp}");
            assert_eq!(value(&situation, "IPV6ADDR").as_deref(), Some("2001:db8::7"));
        }
    }

    #[test]
    fn the_address_is_that_of_bootdev_however_it_is_named() {
        for name in ["eth1", "enx525400aabbcc"] {
            let line = format!("ip=eth0:dhcp ip=10.0.0.5:::24::{name}:none bootdev={name}");
            let situation = situation(&Node::default(), &line, None).unwrap();
            assert!(situation.is_typed(), "{line}");
            assert_eq!(situation.address_from, kernel::Origin::CommandLine, "{line}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn the_link_is_the_one_that_the_words_name() {
        let cases = [
            ("ip=eth3:dhcp",                                        "eth3"),
            ("ip=eth3:dhcp ip=eth4:dhcp bootdev=eth4",              "eth4"),
            ("vlan=bond0.5:bond0 bond=bond0:eth0,eth1",             "bond0.5"),
            ("bond=bond0:eth0,eth1 ip=[2001:db8::5]:::64::bond0:none", "bond0"),
            ("BOOTIF=01-52-54-00-aa-bb-cc",                         "eth0"),
        ];
        for (line, link) in cases {
            let situation = situation(&Node::default(), line, None).unwrap();
            assert_eq!(situation.link, link, "{line}");
            let assumed = situation.unknown.iter().any(|line| line.contains("is assumed."));
            assert_eq!(assumed, line.starts_with("BOOTIF"), "{line}");
        }
        let typed = situation(&Node::default(), cases[3].0, None).unwrap();
        assert_eq!(typed.known_leases().address(), "2001:db8::5".parse().ok());
        assert!(!typed.may_be_told_more());
    }
}
