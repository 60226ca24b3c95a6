//! What one link is to have in the running system, before anybody says it in a manager's language.

use std::net::IpAddr;

use super::super::configured::{Composition, Configured};
use super::super::description::{HandoverMode, Ipv6Method};
use super::super::kernel::{self, Origin};
use super::super::{Lease, Lease6, NetworkPlan, joined};
use super::software::{Owner, Software};
use super::{Inheritance, Wishes};
use crate::error::Error;

/// One link, and what is said about it.
pub struct Share<'a> {
    pub link: &'a Configured,
    /// By name: everything that this link may be a part of, and that may be a part of it.
    pub all: &'a [Configured],
    pub ipv4: Ipv4<'a>,
    pub ipv6: Ipv6<'a>,
    pub plan: &'a NetworkPlan,
    /// Of the command line; and of the lease where nobody will ask for it any more.
    pub dns: Vec<IpAddr>,
    pub ntp: Vec<IpAddr>,
    pub search: Vec<String>,
    /// Servers of DHCP and of router advertisements do not count.
    pub ignores_dns: bool,
    pub ignores_ntp: bool,
    /// Its owner in the running system leaves it alone.
    pub is_unmanaged: bool,
    /// NetworkManager has a profile of it, and takes links for ifupdown's that ifupdown's file names.
    pub has_profile: bool,
    /// No DHCP client ever, of whichever family.
    pub is_frozen: bool,
    pub client: Client<'a>,
    /// The lease is frozen because networkd cannot be this client.
    is_beyond_networkd: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv4<'a> {
    Nothing,
    /// Asks as the same client, and gets this again.
    Dhcp(&'a Lease),
    /// Typed, or frozen.
    Fixed(&'a Lease),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6<'a> {
    /// Nobody has asked for any: whatever the running system does of its own accord.
    Untouched,
    LinkLocal,
    /// Router advertisements, and DHCPv6 as they say.
    Auto(Option<&'a Lease6>),
    /// DHCPv6 whatever they say.
    Dhcp(Option<&'a Lease6>),
    /// `routers`: routes come from advertisements all the same.
    Fixed {
        lease: &'a Lease6,
        routers: bool,
    },
}

/// DHCP option 61.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client<'a> {
    /// 1, and the address of the link.
    Mac,
    /// As `ip=dhcp,TYPE,ID` says.
    Other(u8, &'a [u8]),
}

impl Ipv4<'_> {
    pub fn asks(&self) -> bool {
        matches!(self, Self::Dhcp(_))
    }
}

impl Ipv6<'_> {
    pub fn asks(&self) -> bool {
        matches!(self, Self::Auto(_) | Self::Dhcp(_))
    }
}

impl<'a> Share<'a> {
    /// Of all links, in an order in which nothing is made of what comes later.
    pub fn all(inheritance: &'a Inheritance<'a>, software: &Software) -> Vec<Self> {
        let mut shares: Vec<_> =
            inheritance.links.iter().map(|link| Self::of(link, inheritance, software)).collect();
        shares.sort_by_key(|share| match share.link.composition {
            Composition::Port => 0,
            Composition::Bond { .. } => 1,
            // On top of a bridge, too, but a bridge of VLANs is what there is more of.
            Composition::Vlan { .. } => 2,
            Composition::Bridge => 3,
            Composition::Foreign { .. } => 4,
        });
        shares
    }

    fn of(link: &'a Configured, inheritance: &'a Inheritance<'a>, software: &Software) -> Self {
        let Inheritance { plan, mode, wishes, ignore_peer_dns, .. } = *inheritance;
        let Wishes { own_dns, own_ntp, .. } = wishes;
        let request = link.request.as_ref();
        let client = match request.and_then(|request| request.client_id.as_ref()) {
            Some((kind, bytes)) if *kind != 1 || *bytes != link.mac.0 => {
                Client::Other(*kind, bytes)
            }
            _ => Client::Mac,
        };
        // It has words for some clients only, and would be another one to the server.
        let is_beyond = software.owner == Owner::Networkd
            && client != Client::Mac
            && link.origin == Origin::Dhcp
            && mode == HandoverMode::Dhcp;
        let ipv4 = match &link.ipv4 {
            None => Ipv4::Nothing,
            Some(lease) if link.origin != Origin::Dhcp || mode == HandoverMode::Static => {
                Ipv4::Fixed(lease)
            }
            Some(lease) if is_beyond => Ipv4::Fixed(lease),
            Some(lease) => Ipv4::Dhcp(lease),
        };
        // networkd takes an address of DHCPv6 away when it is stopped, whatever KeepConfiguration=
        // says (systemd issue 26602; 252 and 257), and to start again it would have to be read from
        // the root.
        let frozen6 = mode == HandoverMode::Static
            || software.owner == Owner::Networkd && link.ipv6.as_ref().is_some_and(has_leased);
        let ipv6 = ipv6(link, frozen6);

        let mut share = Self {
            link,
            all: inheritance.links,
            ipv4,
            ipv6,
            plan,
            dns: Vec::new(),
            ntp: Vec::new(),
            search: Vec::new(),
            ignores_dns: own_dns || ignore_peer_dns,
            ignores_ntp: own_ntp,
            is_unmanaged: mode == HandoverMode::Unmanaged,
            has_profile: software.owner == Owner::NetworkManager,
            is_frozen: mode == HandoverMode::Static,
            client,
            is_beyond_networkd: is_beyond,
        };
        share.servers(own_dns, own_ntp);
        share
    }

    /// Only on links with addresses: a part of something reaches nobody.
    fn servers(&mut self, own_dns: bool, own_ntp: bool) {
        if self.link.ipv4.is_none() && self.link.ipv6.is_none() {
            return;
        }
        let request = self.link.request.as_ref();
        let (mut dns, mut ntp, mut search) = (Vec::new(), Vec::new(), Vec::new());
        if let Ipv4::Fixed(lease) = self.ipv4 {
            dns.extend(&lease.dns);
            ntp.extend(&lease.ntp);
            search.extend(lease.search.iter().cloned());
        }
        if let Ipv6::Fixed { lease, .. } = self.ipv6 {
            dns.extend(lease.dns.iter().copied().map(IpAddr::V6));
            ntp.extend(lease.ntp.iter().copied().map(IpAddr::V6));
            search.extend(lease.search.iter().cloned());
        }
        if !own_dns {
            let typed = joined(request.map_or(&[], |request| &request.dns), &self.plan.dns);
            self.dns = match self.ignores_dns {
                true => typed,
                false => joined(&typed, &dns),
            };
            search.dedup();
            self.search = if self.ignores_dns { Vec::new() } else { search };
        }
        if !own_ntp {
            let typed = joined(request.map_or(&[], |request| &request.ntp), &self.plan.ntp);
            self.ntp = joined(&typed, &ntp);
        }
    }

    /// Of the routes of a lease. They are there with this metric already, and with any other (networkd's
    /// is 1024, NetworkManager's 100) the manager would add its own beside them: ours would then lead to
    /// a router that a later lease does not name any more. This way there is one, the manager's own from
    /// its first lease on, which goes and changes with the lease.
    pub fn metric(&self) -> u32 {
        kernel::metric(self.link.boots)
    }

    pub fn is_foreign(&self) -> bool {
        matches!(self.link.composition, Composition::Foreign { .. })
    }

    pub fn is_port(&self) -> bool {
        self.link.composition == Composition::Port
    }

    /// By this boot, of links that are described.
    pub fn is_made_here(&self) -> bool {
        !self.is_port() && !self.is_foreign()
    }

    /// What a port is known by in the running system, whoever has changed its address since.
    pub fn hardware(&self) -> crate::net::Mac {
        self.link.permanent_mac.unwrap_or(self.link.mac)
    }

    /// It has an address of its own, and is more than a part of something.
    pub fn has_addresses(&self) -> bool {
        self.ipv4 != Ipv4::Nothing
            || !matches!(self.ipv6, Ipv6::Untouched)
            || self.link.ipv6.is_some()
    }

    /// VLANs on it.
    pub fn vlans(&self) -> impl Iterator<Item = &'a Configured> {
        let name = &self.link.name;
        self.all.iter().filter(move |other| {
            matches!(&other.composition, Composition::Vlan { over, .. } if over == name)
        })
    }

    pub fn named(&self, name: &str) -> Option<&'a Configured> {
        self.all.iter().find(|link| link.name == name)
    }

    /// What is wanted and cannot be.
    pub fn error(&self) -> Option<Error> {
        let Client::Other(kind, _) = self.client else { return None };
        self.is_beyond_networkd.then(|| {
            let doing = format!("handing the lease of {} over", self.link.name);
            let why = format!(
                "systemd-networkd cannot be a client of type {kind}, as ip= has it; the address \
                 stays, and nobody renews the lease"
            );
            Error::refused(doing, why)
        })
    }
}

fn ipv6(link: &Configured, is_frozen: bool) -> Ipv6<'_> {
    let lease = link.ipv6.as_ref();
    let asked = link.request.as_ref().map_or(Ipv6Method::Off, |request| request.ipv6);
    match (asked, lease) {
        (Ipv6Method::Off, _) => Ipv6::Untouched,
        (Ipv6Method::LinkLocal, _) => Ipv6::LinkLocal,
        (Ipv6Method::Static { gateway, .. }, Some(lease)) => {
            Ipv6::Fixed { lease, routers: gateway.is_none() }
        }
        // Routers are no DHCP servers: what they advertise goes on, also when a lease is frozen.
        (Ipv6Method::Auto | Ipv6Method::Dhcp, Some(lease)) if is_frozen => {
            Ipv6::Fixed { lease, routers: true }
        }
        (Ipv6Method::Auto, lease) => Ipv6::Auto(lease),
        (Ipv6Method::Dhcp, lease) => Ipv6::Dhcp(lease),
        (Ipv6Method::Static { .. }, None) => Ipv6::Untouched,
    }
}

/// A DHCPv6 server has given it an address, which ends if nobody asks again.
pub fn has_leased(lease: &Lease6) -> bool {
    lease.leased().is_some()
}
