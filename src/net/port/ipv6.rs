//! IPv6 on one link: what routers say, what a DHCPv6 server grants, and which addresses the kernel
//! has made of it.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::AbortOnDrop;
use crate::net::Lease6;
use crate::net::apply::GRACE;
use crate::net::choice::{Standing, Wants, Worth};
use crate::net::description::{AddressRequest, Ipv6Method};
use crate::net::dhcp6::{Mode, Order};
use crate::net::kernel::{Known6, State6};
use crate::net::lease6::{Address6, Origin6};
use crate::net::link::{Asked, Whom};

/// An address is enough to boot, but where routers say that there is more to know (name servers, a
/// boot file) the DHCPv6 server gets this long to tell.
const TIME_FOR_THE_REST: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Ipv6 {
    /// The listener to routers and its number.
    pub listener: Option<(u64, AbortOnDrop)>,
    pub client: Option<Client>,
    /// What routers say.
    pub said: Option<Lease6>,
    /// By DHCPv6, or typed.
    pub given: Option<Lease6>,
    /// Since the kernel's start: when a server has granted or last extended it.
    pub granted: Option<Duration>,
    /// As the kernel has them.
    pub addresses: BTreeMap<Ipv6Addr, Known6>,
    pub usable_since: Option<Instant>,
    /// The kernel knows the typed router, as that of the boot's link or of another.
    pub has_router: Option<bool>,
    /// When a typed address that somebody else has is tried again.
    pub again_at: Option<Instant>,
    /// Questions to routers.
    pub sent: u32,
    pub trouble: Option<String>,
}

/// The DHCPv6 client of a link.
pub struct Client {
    pub run: u64,
    pub mode: Mode,
    pub since: Instant,
    pub orders: mpsc::Sender<Order>,
    /// Questions to servers.
    pub sent: u32,
    pub has_answered: bool,
    pub task: AbortOnDrop,
}

impl Ipv6 {
    /// Addresses are the kernel's, which tells of their end.
    pub fn stop(&mut self) {
        let addresses = std::mem::take(&mut self.addresses);
        *self = Self { addresses, ..Self::default() };
    }

    pub fn is_heard(&self, run: u64) -> bool {
        self.listener.as_ref().is_some_and(|(current, _)| *current == run)
    }

    /// Everything that is known, with the addresses that the kernel really has.
    pub fn lease(&self) -> Lease6 {
        let nothing = Lease6::default();
        let said = self.said.as_ref().unwrap_or(&nothing);
        let mut lease = self.given.as_ref().unwrap_or(&nothing).joined(said);
        let given = std::mem::take(&mut lease.addresses);
        lease.addresses = self
            .addresses
            .values()
            .filter(|known| known.state == State6::Usable && is_global(known.address))
            .map(|known| {
                let asked = given.iter().find(|one| one.address == known.address);
                Address6 {
                    address: known.address,
                    prefix: known.prefix,
                    preferred_seconds: known.preferred,
                    valid_seconds: match asked {
                        Some(Address6 { origin: Origin6::Dhcp, .. }) => {
                            known.valid.map(|seconds| seconds.saturating_sub(GRACE))
                        }
                        _ => known.valid,
                    },
                    origin: asked.map_or(Origin6::Slaac, |asked| asked.origin),
                }
            })
            .collect();
        lease
    }

    /// Whether the link can be used as it was asked for.
    pub fn is_usable(&self, method: Ipv6Method) -> bool {
        let has = |address: Ipv6Addr| {
            self.addresses.get(&address).is_some_and(|known| known.state == State6::Usable)
        };
        let usable = |known: &Known6| known.state == State6::Usable;
        match method {
            Ipv6Method::Off => false,
            Ipv6Method::LinkLocal => {
                self.addresses.values().any(|k| usable(k) && k.address.is_unicast_link_local())
            }
            Ipv6Method::Auto => {
                self.addresses.values().any(|known| usable(known) && is_global(known.address))
            }
            Ipv6Method::Dhcp => self
                .given
                .as_ref()
                .is_some_and(|given| given.addresses.iter().any(|one| has(one.address))),
            Ipv6Method::Static { address, .. } => has(address),
        }
    }

    /// Whose answer is lacking.
    pub fn asked(&self, method: Ipv6Method) -> Asked {
        let is_typed = matches!(method, Ipv6Method::Static { .. } | Ipv6Method::LinkLocal);
        let (whom, sent) = match (&self.client, &self.said) {
            _ if is_typed => (Whom::Nobody, 1),
            (Some(client), _) if !client.has_answered => (Whom::Dhcpv6, client.sent),
            (_, None) => (Whom::Router, self.sent),
            (_, Some(_)) => (Whom::Prefix, self.sent),
        };
        Asked { whom, sent, trouble: self.trouble.clone() }
    }

    /// Notes the moment from which the link can be used, or that it cannot any more.
    pub fn look(&mut self, method: Ipv6Method) {
        match (self.is_usable(method), self.usable_since) {
            (true, None) => self.usable_since = Some(Instant::now()),
            (false, Some(_)) => self.usable_since = None,
            _ => {}
        }
    }

    pub fn standing(&self, wants: Wants, request: &AddressRequest) -> Standing {
        let Some(since) = self.usable_since else {
            return match request.ipv6 {
                Ipv6Method::Off => Standing::NoCarrier,
                // By hand, and for whichever link is taken: it is given to that one alone.
                Ipv6Method::Static { .. } if self.given.is_none() => Standing::Leased {
                    worth: Worth::Usable,
                    best: true,
                    lacks: false,
                    age: Duration::ZERO,
                },
                _ => Standing::Trying { promised: None },
            };
        };
        let lease = self.lease();
        let worth = wants.worth6(&lease);
        let is_by_hand = matches!(request.ipv6, Ipv6Method::Static { .. } | Ipv6Method::LinkLocal);
        if !is_by_hand && self.may_hear_more(since) {
            return Standing::Trying { promised: Some(worth.max(Worth::Usable)) };
        }
        let best = is_by_hand || wants.are_met_by6(&lease);
        Standing::Leased { worth, best, lacks: false, age: since.elapsed() }
    }

    /// Routers have not spoken yet, or have named a server that has not answered yet.
    fn may_hear_more(&self, since: Instant) -> bool {
        let is_pending = match (&self.client, &self.said) {
            (Some(client), _) => !client.has_answered,
            (None, said) => said.is_none(),
        };
        is_pending && since.elapsed() < TIME_FOR_THE_REST
    }
}

/// An address that others than neighbours can reach: global, or unique in the site (RFC 4193).
pub fn is_global(address: Ipv6Addr) -> bool {
    !address.is_unicast_link_local() && !address.is_loopback() && !address.is_multicast()
}
