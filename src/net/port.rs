//! One link that gets addresses: what is asked of it, and how far it has got in each family.

pub mod ipv4;
pub mod ipv6;

use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::choice::{Standing, Wants, Worth};
use super::configured::USUAL_MTU;
use super::description::{AddressRequest, Ipv4Method, Ipv6Method, Needs, RouteRequest};
use super::kernel::Link;
use super::link::{Asked, Progress, Whom};
use ipv4::Ipv4;
use ipv6::Ipv6;

/// After this, one of two families that are both wanted will do (`rd.net.timeout.ip-required`).
const BOTH_FAMILIES: Duration = Duration::from_secs(20);

/// How long a link that has IPv6 waits for an offer of IPv4, which says more about booting: a server
/// that looks whether an address is in use takes a second.
const TIME_FOR_IPV4: Duration = Duration::from_millis(1500);

/// A link that takes part.
pub struct Port {
    pub link: Link,
    pub request: AddressRequest,
    /// An `ip=` names it: it is configured whichever link the machine boots from.
    pub is_named: bool,
    /// Chosen, or named: what it is given is made known to the kernel.
    pub is_ours: bool,
    /// Routes that somebody typed and that go over it, as the kernel was told.
    pub routes: Vec<RouteRequest>,
    /// What the kernel would not have, and when it is asked again.
    pub refused: Option<(String, Instant)>,
    /// Somebody else set it up before us: it stays up if it is not used.
    pub was_up: bool,
    /// When what failed is due again: setting it up, or its configuration.
    pub again_at: Option<Instant>,
    /// The operator knows that it could not be set up.
    pub has_failed: bool,
    /// The moment of its carrier.
    pub since: Option<Instant>,
    pub ipv4: Ipv4,
    pub ipv6: Ipv6,
}

/// A task that ends with its owner.
#[derive(Debug)]
pub struct AbortOnDrop(pub AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Port {
    pub fn new(link: Link, request: AddressRequest, is_named: bool) -> Self {
        Self {
            was_up: link.is_up,
            link,
            request,
            is_named,
            is_ours: is_named,
            routes: Vec::new(),
            refused: None,
            again_at: None,
            has_failed: false,
            since: None,
            ipv4: Ipv4::default(),
            ipv6: Ipv6::default(),
        }
    }

    /// Which families the boot waits for on this link.
    pub fn needs(&self, wants: Wants) -> Needs {
        match (self.request.needs, wants.family) {
            (Needs::Either, Some(Family::Ipv4)) if self.request.ipv4 != Ipv4Method::Off => {
                Needs::Ipv4
            }
            (Needs::Either, Some(Family::Ipv6)) if self.request.ipv6 != Ipv6Method::Off => {
                Needs::Ipv6
            }
            (needs, _) => needs,
        }
    }

    /// What each family has come to, as far as the boot may be content with it.
    pub fn standings(&self, wants: Wants) -> Vec<(Family, Standing)> {
        let Some(since) = self.since else { return vec![(Family::Ipv4, Standing::NoCarrier)] };
        let ipv4 = (Family::Ipv4, self.ipv4.standing(wants, &self.request));
        let ipv6 = (Family::Ipv6, self.ipv6.standing(wants, &self.request));
        let is_leased = |one: &(Family, Standing)| matches!(one.1, Standing::Leased { .. });
        match self.needs(wants) {
            Needs::Ipv4 => vec![ipv4],
            Needs::Ipv6 => vec![ipv6],
            // The families of one link do not wait for each other as links do: mostly there is only
            // one of them.
            Needs::Either if self.ipv4.lease().is_some_and(|(l, _)| !wants.lack_a_root(l)) => {
                vec![ipv4]
            }
            Needs::Either if is_leased(&ipv6) && since.elapsed() >= TIME_FOR_IPV4 => vec![ipv6],
            Needs::Either => [ipv4, ipv6]
                .into_iter()
                .filter(|(family, _)| match family {
                    Family::Ipv4 => self.request.ipv4 != Ipv4Method::Off,
                    Family::Ipv6 => self.request.ipv6 != Ipv6Method::Off,
                })
                .collect(),
            Needs::Both if is_leased(&ipv4) && is_leased(&ipv6) => vec![ipv4, ipv6],
            Needs::Both => {
                let patience = wants.both_families.unwrap_or(BOTH_FAMILIES);
                if since.elapsed() >= patience {
                    let leased: Vec<_> = [ipv4, ipv6].into_iter().filter(is_leased).collect();
                    if !leased.is_empty() {
                        return leased;
                    }
                }
                vec![(Family::Ipv4, Standing::Trying { promised: None })]
            }
        }
    }

    /// Whether an address may come on it that is not there yet.
    pub fn may_still_come(&self, wants: Wants) -> bool {
        let asks = self.request.ipv4 != Ipv4Method::Off || self.request.ipv6 != Ipv6Method::Off;
        let is_leased =
            |(_, standing): &(Family, Standing)| matches!(standing, Standing::Leased { .. });
        asks && !self.standings(wants).iter().any(is_leased)
    }

    /// For the operator.
    pub fn progress(&self, wants: Wants) -> Progress {
        let Some(since) = self.since else { return Progress::NoCarrier };
        if let Some(lease) = self.ipv4.lease().map(|(lease, _)| lease).or(self.ipv4.offer()) {
            return Progress::Ipv4(Box::new(lease.clone()));
        }
        let lease = self.ipv6.lease();
        if let (Some(_), Some(address)) = (self.ipv6.usable_since, lease.address()) {
            return Progress::Ipv6(address.address, wants.worth6(&lease));
        }
        let ipv4 = self.ipv4.progress().map(|(_, sent, trouble)| Asked {
            whom: Whom::Dhcp,
            sent,
            trouble: trouble.map(str::to_owned),
        });
        let ipv6 =
            (self.request.ipv6 != Ipv6Method::Off).then(|| self.ipv6.asked(self.request.ipv6));
        let lacks_partner = self.link.has_partner == Some(false);
        Progress::Asking { lasts: since.elapsed(), ipv4, ipv6, lacks_partner }
    }

    /// The best of what its families can do.
    pub fn worth(&self, wants: Wants) -> Worth {
        let ipv4 = self.ipv4.lease().map(|(lease, _)| wants.worth(lease));
        ipv4.max(Some(wants.worth6(&self.ipv6.lease()))).unwrap_or(Worth::Usable)
    }

    /// Bytes, where somebody typed them, or a lease or a router says so. The kernel itself makes packets of IPv6 smaller if a
    /// router says so, but not larger than the link's frames.
    pub fn learned_mtu(&self) -> Option<u32> {
        // Also of an `ip=` that names no link.
        let typed = self.request.mtu;
        let of_lease = self.ipv4.lease().and_then(|(lease, _)| lease.mtu).map(u32::from);
        let of_router = self.ipv6.said.as_ref().and_then(|said| said.mtu);
        typed.or(of_lease).or(of_router.filter(|mtu| *mtu > USUAL_MTU))
    }

    /// The kernel has an address of ours for it.
    pub fn is_in_use(&self) -> bool {
        self.is_ours && (self.ipv4.applied.is_some() || self.ipv6.usable_since.is_some())
    }

    /// The carrier has gone, or the link is down: with which the kernel forgets its routes.
    pub fn has_lost_its_carrier(&mut self) {
        self.since = None;
        self.ipv4.is_news = true;
        self.routes.clear();
        self.ipv4.stop();
        self.ipv6.stop();
    }
}
