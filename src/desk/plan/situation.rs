//! A node before its boot: what the kernel command line, DHCP and the machine would say, as far as
//! it is known, and in sentences how far it is not.

use std::net::Ipv4Addr;

use super::node::Node;
use super::options::Site;
use crate::cmdline::Request;
use crate::config::{Identity, Location, Origin, Placeholders, base};
use crate::machine;
use crate::net::{Addressing, Lease, LeaseFile, Leases, LinkChoice, Mac, boot_server, variables};
use crate::plan::{Plan, RootOffer};

/// The first Ethernet port of a kernel that nobody tells to rename them; ours does not.
const USUAL_LINK: &str = "eth0";

/// MiB. Any machine of today; what a small one does differently must not appear by mistake.
const USUAL_MEMORY: u64 = 16 << 10;

pub struct Situation {
    pub plan: Plan,
    pub node: Node,
    /// Also where nothing is known of one; see [`Situation::lease`].
    lease: Lease,
    has_address: bool,
    /// Nothing is left for DHCP to say.
    is_complete: bool,
    pub link: String,
    /// The boot server that is known apart from the lease.
    server: Option<String>,
    pub memory_kib: Option<u64>,
    pub unknown: Vec<String>,
}

impl Situation {
    /// # Errors
    /// One line: what was given contradicts itself.
    pub fn of(mut node: Node, file: Option<LeaseFile>, site: &Site) -> Result<Self, String> {
        let identity = machine::Identity { uuid: node.uuid, serial: None };
        let mut plan = Plan::decide(Request::read(&site.command_line), &identity);
        let mut unknown = Vec::new();
        if let Some(file) = &file {
            match node.mac.replace(file.mac) {
                Some(mac) if mac != file.mac => {
                    return Err(format!("--mac is {mac}, and the lease is for {}", file.mac));
                }
                _ => {}
            }
        }
        let was_typed = file.as_ref().is_some_and(|file| !file.dhcp);
        if let (Some(file), true) = (&file, was_typed) {
            let Some(Lease { address, prefix, .. }) = file.leases.ipv4 else {
                return Err("the lease is of IPv6 alone, and plans are made for IPv4".into());
            };
            // `ip=` is not part of the lease's file, only what it came to.
            if matches!(plan.network.addressing, Addressing::Dhcp { .. }) {
                let gateway = file.leases.ipv4.as_ref().and_then(Lease::gateway);
                plan.network.addressing = Addressing::Static { address, prefix, gateway };
            }
        }
        let (mut lease, has_address, is_complete) = match (plan.network.addressing, &file) {
            (Addressing::Static { address, prefix, gateway }, _) => {
                if let Some(other) = node.address.filter(|other| *other != address) {
                    return Err(format!(
                        "--ip is {other}, and ip= on the kernel command line says {address}"
                    ));
                }
                if let Some(server) = &site.server {
                    return Err(format!(
                        "--server {server} is what DHCP would say, but ip= on the kernel command \
                         line is static; its second field is the boot server"
                    ));
                }
                (Lease::typed(address, prefix, gateway), true, true)
            }
            (
                Addressing::Dhcp { .. },
                Some(LeaseFile { leases: Leases { ipv4: Some(lease), .. }, .. }),
            ) => (lease.clone(), true, true),
            (Addressing::Dhcp { .. }, _) => {
                (offered(&node, site, &mut unknown), node.address.is_some(), false)
            }
        };
        let server = file.as_ref().and_then(|file| file.boot_server.clone());
        if was_typed && lease.dns.is_empty() {
            lease.dns = file.as_ref().map(|file| file.leases.dns()).unwrap_or_default();
        }
        let link = match (&file, &plan.network.link) {
            (Some(file), _) => file.link.clone(),
            (None, LinkChoice::Name(name)) => name.clone(),
            (None, _) => {
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
            node,
            lease,
            has_address,
            is_complete,
            link,
            server,
            memory_kib: site.memory_kib,
            unknown,
        })
    }

    /// `None` if the node's address is not known.
    pub fn lease(&self) -> Option<&Lease> {
        self.has_address.then_some(&self.lease)
    }

    fn leases(&self) -> Leases {
        Leases::of_ipv4(self.lease.clone())
    }

    /// [`Self::lease`], as a boot has it.
    pub fn known_leases(&self) -> Leases {
        Leases { ipv4: self.lease().cloned(), ipv6: None }
    }

    /// Whether somebody who is not asked here, DHCP, has more to say.
    pub fn may_be_told_more(&self) -> bool {
        !self.is_complete
    }

    pub fn boot_server(&self) -> Option<String> {
        boot_server(&self.plan.network, &self.leases()).or_else(|| self.server.clone())
    }

    /// The name that `ip=` or DHCP gives.
    pub fn hostname(&self) -> Option<&str> {
        self.plan.network.hostname.as_deref().or(self.lease.hostname.as_deref())
    }

    pub fn offer<'a>(&'a self, boot_server: Option<&'a str>) -> RootOffer<'a> {
        RootOffer { root_path: self.lease.root_path.as_deref(), boot_server }
    }

    /// Of the node, or one that changes nothing.
    pub fn memory_or_enough_kib(&self) -> u64 {
        self.memory_kib.unwrap_or(USUAL_MEMORY << 10)
    }

    /// By what sections are chosen.
    pub fn identity(&self) -> Identity {
        Identity {
            hostname: self.hostname().map(str::to_owned),
            ip: self.lease().map(|lease| lease.address.into()),
            mac: self.node.mac,
        }
    }

    /// What a file can refer to, with what is not known left out.
    pub fn base(&self) -> Vec<(String, String, Origin)> {
        let mac = self.node.mac.unwrap_or(Mac([0; 6]));
        let mut known = variables(&self.link, &self.link, mac, &self.plan.network, &self.leases());
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
                    ip: self.lease().map(|lease| lease.address.into()),
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
                    filename: self.lease.filename.as_deref(),
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

/// The lease that options describe.
fn offered(node: &Node, site: &Site, unknown: &mut Vec<String>) -> Lease {
    let prefix = match (node.address, node.prefix) {
        (Some(address), None) => {
            unknown
                .push(format!("The netmask of {address} (--ip {address}/PREFIX): /24 is assumed."));
            24
        }
        (_, prefix) => prefix.unwrap_or(0),
    };
    let rest = "DNS servers, search list, root path and more (--lease)";
    unknown.push(match (node.address, &node.hostname) {
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
        assert!(situation.lease().is_none());
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
        assert!(matches!(situation.plan.network.addressing, Addressing::Static { .. }));
        assert_eq!(value(&situation, "PROTO").as_deref(), Some("none"));
        assert_eq!(value(&situation, "IPV4GATEWAY").as_deref(), Some("10.0.0.254"));
    }
}
