//! What a machine knows about its place in the IPv6 network: what routers advertise, what a DHCPv6
//! server grants, or what was typed; and all of it together.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

use super::duid::Duid;

/// Everything that IPv6 gives one link. `"ipv6"` in `/run/landfall/lease.json`.
///
/// Lifetimes are in seconds from the moment that this was made, and `None` is for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease6 {
    /// The best first.
    pub addresses: Vec<Address6>,
    /// Default routers, the best first.
    pub routers: Vec<Router6>,
    /// Routes that routers advertise (RFC 4191); the default route is in `routers`.
    pub routes: Vec<Route6>,
    /// What routers say of the networks on this link.
    pub prefixes: Vec<Prefix6>,
    /// Bytes; at least 1280.
    pub mtu: Option<u32>,
    pub dns: Vec<Ipv6Addr>,
    pub search: Vec<String>,
    pub ntp: Vec<Ipv6Addr>,
    /// Time servers of which only the name is known (RFC 5908).
    pub ntp_names: Vec<String>,
    /// DHCPv6 option 59 (RFC 5970): what root-path and boot file are in DHCPv4.
    pub boot_url: Option<String>,
    /// Option 60.
    pub boot_params: Vec<String>,
    /// Option 39, as the server completed it.
    pub hostname: Option<String>,
    /// The server that granted the addresses, or answered.
    pub server: Option<Duid>,
    /// As whom the machine asked, for whoever goes on asking.
    pub client: Option<Duid>,
    pub iaid: Option<u32>,
    /// Seconds (T1, T2).
    pub renew_seconds: Option<u32>,
    pub rebind_seconds: Option<u32>,
    /// A router says that addresses are to be had by DHCPv6.
    pub managed: bool,
    /// A router says that at least the rest is to be had by DHCPv6.
    pub other: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address6 {
    pub address: Ipv6Addr,
    /// 128 from DHCPv6: which neighbours are on the link is for routers to say (RFC 5942).
    pub prefix: u8,
    pub preferred_seconds: Option<u32>,
    pub valid_seconds: Option<u32>,
    pub origin: Origin6,
}

/// Who gave an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin6 {
    /// The kernel made it of a prefix that a router advertised (RFC 4862).
    Slaac,
    Dhcp,
    /// `ip=`, by hand.
    Typed,
}

impl Origin6 {
    /// `IPV6PROTO` of Ubuntu's initramfs-tools, which cloud-init reads: it knows no word for SLAAC.
    pub fn klibc(self) -> &'static str {
        match self {
            Self::Typed => "none",
            Self::Dhcp | Self::Slaac => "dhcp6",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router6 {
    /// Of the link alone (`fe80::…`): it means nothing without the link's name.
    pub address: Ipv6Addr,
    pub preference: Preference,
    pub lifetime_seconds: Option<u32>,
}

/// RFC 4191 section 2.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preference {
    Low,
    #[default]
    Medium,
    High,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route6 {
    pub to: Ipv6Net,
    pub via: Ipv6Addr,
    pub preference: Preference,
    pub lifetime_seconds: Option<u32>,
}

/// Prefix information (RFC 4861 section 4.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefix6 {
    pub network: Ipv6Net,
    /// Neighbours with such addresses are reached without a router.
    pub on_link: bool,
    /// Machines give themselves addresses of it.
    pub autonomous: bool,
    pub preferred_seconds: Option<u32>,
    pub valid_seconds: Option<u32>,
}

impl Lease6 {
    /// What a static `ip=` says, in the form of a lease.
    pub fn typed(address: Ipv6Addr, prefix: u8, gateway: Option<Ipv6Addr>) -> Self {
        let router =
            |address| Router6 { address, preference: Preference::Medium, lifetime_seconds: None };
        Self {
            addresses: vec![Address6 {
                address,
                prefix,
                preferred_seconds: None,
                valid_seconds: None,
                origin: Origin6::Typed,
            }],
            routers: gateway.map(router).into_iter().collect(),
            ..Self::default()
        }
    }

    /// What a DHCPv6 server has granted, which ends if nobody asks again.
    pub fn leased(&self) -> Option<&Address6> {
        self.addresses.iter().find(|address| address.origin == Origin6::Dhcp)
    }

    /// The address that others should know: what was typed before what a server grants, and that
    /// before what the machine gave itself; one that is still preferred before one that is not.
    pub fn address(&self) -> Option<&Address6> {
        let rank = |one: &&Address6| {
            let origin = match one.origin {
                Origin6::Typed => 0,
                Origin6::Dhcp => 1,
                Origin6::Slaac => 2,
            };
            (one.preferred_seconds == Some(0), origin)
        };
        self.addresses.iter().min_by_key(rank)
    }

    pub fn gateway(&self) -> Option<Ipv6Addr> {
        self.routers.first().map(|router| router.address)
    }

    pub fn boot_url(&self) -> Option<&str> {
        self.boot_url.as_deref()
    }

    /// The host of the boot file URL, name or address without brackets.
    pub fn boot_server(&self) -> Option<&str> {
        let (_, rest) = self.boot_url.as_deref()?.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let host = match host.strip_prefix('[') {
            Some(literal) => literal.split_once(']')?.0,
            None => host.split_once(':').map_or(host, |(name, _)| name),
        };
        (!host.is_empty()).then_some(host)
    }

    /// Whether the kernel makes addresses of what routers advertise here.
    pub fn offers_slaac(&self) -> bool {
        self.prefixes.iter().any(|prefix| prefix.autonomous && prefix.valid_seconds != Some(0))
    }

    /// Whether the kernel made this address of a prefix that a router advertised.
    pub fn is_slaac(&self, address: Ipv6Addr) -> bool {
        self.prefixes.iter().any(|prefix| prefix.autonomous && prefix.network.contains(&address))
    }

    /// This and what another source says. Where both have an opinion and there can be only one,
    /// this one's counts; of lists, this one's come first.
    pub fn joined(&self, other: &Self) -> Self {
        Self {
            addresses: union(&self.addresses, &other.addresses, |one| one.address),
            routers: union(&self.routers, &other.routers, |one| one.address),
            routes: union(&self.routes, &other.routes, |one| (one.to, one.via)),
            prefixes: union(&self.prefixes, &other.prefixes, |one| one.network),
            mtu: self.mtu.or(other.mtu),
            dns: union(&self.dns, &other.dns, |one| *one),
            search: union(&self.search, &other.search, String::clone),
            ntp: union(&self.ntp, &other.ntp, |one| *one),
            ntp_names: union(&self.ntp_names, &other.ntp_names, String::clone),
            boot_url: self.boot_url.clone().or_else(|| other.boot_url.clone()),
            // They belong to that URL.
            boot_params: match self.boot_url {
                Some(_) => self.boot_params.clone(),
                None => other.boot_params.clone(),
            },
            hostname: self.hostname.clone().or_else(|| other.hostname.clone()),
            server: self.server.clone().or_else(|| other.server.clone()),
            client: self.client.clone().or_else(|| other.client.clone()),
            iaid: self.iaid.or(other.iaid),
            renew_seconds: self.renew_seconds.or(other.renew_seconds),
            rebind_seconds: self.rebind_seconds.or(other.rebind_seconds),
            managed: self.managed || other.managed,
            other: self.other || other.other,
        }
    }
}

/// Each once, as its key tells them apart.
fn union<T: Clone, K: PartialEq>(first: &[T], then: &[T], key: impl Fn(&T) -> K) -> Vec<T> {
    let mut all: Vec<T> = Vec::new();
    for one in first.iter().chain(then) {
        if !all.iter().any(|known| key(known) == key(one)) {
            all.push(one.clone());
        }
    }
    all
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// `address6("2001:db8::5/64", Origin6::Slaac)`, for ever.
    pub fn address6(text: &str, origin: Origin6) -> Address6 {
        let net: Ipv6Net = text.parse().unwrap();
        let (preferred_seconds, valid_seconds) = (None, None);
        let (address, prefix) = (net.addr(), net.prefix_len());
        Address6 { address, prefix, preferred_seconds, valid_seconds, origin }
    }

    #[test]
    #[rustfmt::skip]
    fn the_boot_server_is_the_host_of_the_url() {
        let cases = [
            ("tftp://[2001:db8::1]/grubx64.efi",      Some("2001:db8::1")),
            ("http://[2001:db8::1]:8080/root.img",    Some("2001:db8::1")),
            ("http://boot.lan:8080/root.img",         Some("boot.lan")),
            ("http://boot.lan?arch=x",                Some("boot.lan")),
            ("https://user:word@boot.lan/x",          Some("boot.lan")),
            ("nbd://boot.lan",                        Some("boot.lan")),
            ("http:///x",                             None),
            ("http://[2001:db8::1/x",                 None), // the bracket is not closed
            ("/root.img",                             None),
        ];
        for (url, expected) in cases {
            let lease = Lease6 { boot_url: Some(url.to_owned()), ..Lease6::default() };
            assert_eq!(lease.boot_server(), expected, "{url}");
        }
    }

    #[test]
    fn the_address_for_others_is_the_one_that_somebody_chose() {
        let slaac = address6("2001:db8::5054:ff:feaa:bbcc/64", Origin6::Slaac);
        let dhcp = address6("2001:db8::7/128", Origin6::Dhcp);
        let old = Address6 { preferred_seconds: Some(0), ..dhcp };
        let of = |addresses: &[Address6]| {
            Lease6 { addresses: addresses.to_vec(), ..Lease6::default() }.address().copied()
        };
        assert_eq!(of(&[slaac, dhcp]), Some(dhcp));
        assert_eq!(of(&[old, slaac]), Some(slaac), "not any more for new connections");
        assert_eq!(of(&[old]), Some(old));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn what_two_sources_say_is_one_lease() {
        let dhcp = Lease6 {
            addresses: vec![address6("2001:db8::7/128", Origin6::Dhcp)],
            dns: vec!["2001:db8::1".parse().unwrap()],
            boot_url: Some("tftp://[2001:db8::1]/x".to_owned()),
            ..Lease6::default()
        };
        let routers = Lease6 {
            dns: vec!["2001:db8::2".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            mtu: Some(1400),
            boot_params: vec!["of no URL".to_owned()],
            managed: true,
            ..Lease6::default()
        };
        let all = dhcp.joined(&routers);
        assert_eq!(all.dns.len(), 2);
        assert_eq!((all.mtu, all.managed, all.boot_params.len()), (Some(1400), true, 0));
        let json = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Lease6>(&json).unwrap(), all);
    }
}
