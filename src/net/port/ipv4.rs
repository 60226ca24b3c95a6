//! IPv4 on one link: its DHCP client, and what has come of it.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::Instant;

use super::AbortOnDrop;
use crate::net::Lease;
use crate::net::choice::{Standing, Wants, Worth};
use crate::net::description::{AddressRequest, Ipv4Method};
use crate::net::dhcp::pxe::Boot;
use crate::net::kernel::Origin;

/// How far a link has got.
#[derive(Default)]
pub struct Ipv4 {
    pub stage: Stage,
    /// The DHCP client and its number: reports of an earlier one may still be on their way.
    pub client: Option<(u64, AbortOnDrop)>,
    /// When the link is used as it was found, unless a server has answered.
    pub as_found_at: Option<Instant>,
    /// Since when the network wants to do without IPv4 (RFC 8925), and this machine can.
    pub unwanted_since: Option<Instant>,
    /// IPv4 is used although the network wants to do without: there is nothing else.
    pub is_insisted_on: bool,
    /// A PXE boot server that gives no addresses.
    pub boot_server: Option<Ipv4Addr>,
    /// Such servers were asked what the lease does not say, and did not answer.
    pub has_asked_in_vain: bool,
    /// What such a server said, for leases that do not.
    pub boot: Option<Boot>,
    /// The kernel has not been told of the last word on the lease.
    pub is_news: bool,
    /// What the kernel has been told, and on whose word.
    pub applied: Option<(Lease, Origin)>,
    /// Since the kernel's start: when its server has granted or last extended the lease.
    pub granted: Option<Duration>,
    /// Whether it was told so as of the boot's link.
    pub boots: bool,
}

#[derive(Default)]
pub enum Stage {
    #[default]
    Idle,
    Asking {
        since: Instant,
        sent: u32,
        trouble: Option<String>,
        /// An offer that waits for a better one, or for the server's word on it.
        offer: Option<Box<Lease>>,
        /// It has been accepted.
        promised: Option<Worth>,
    },
    Leased {
        since: Instant,
        lease: Box<Lease>,
        origin: Origin,
    },
}

impl Stage {
    pub fn asking(since: Instant) -> Self {
        Self::Asking { since, sent: 0, trouble: None, offer: None, promised: None }
    }
}

impl Ipv4 {
    pub fn stop(&mut self) {
        self.client = None;
        self.as_found_at = None;
        self.unwanted_since = None;
        self.is_insisted_on = false;
        self.has_asked_in_vain = false;
        self.stage = Stage::Idle;
    }

    /// It is used with what somebody else has given it, and nobody is asked any more.
    pub fn leave_as_found(&mut self, lease: &Lease) {
        self.client = None;
        self.as_found_at = None;
        self.leased(lease.clone(), Origin::Host);
    }

    pub fn leased(&mut self, lease: Lease, origin: Origin) {
        let since = match self.stage {
            Stage::Leased { since, .. } => since,
            Stage::Idle | Stage::Asking { .. } => Instant::now(),
        };
        self.stage = Stage::Leased { since, lease: Box::new(lease), origin };
    }

    pub fn lease(&self) -> Option<(&Lease, Origin)> {
        match &self.stage {
            Stage::Leased { lease, origin, .. } => Some((lease, *origin)),
            Stage::Idle | Stage::Asking { .. } => None,
        }
    }

    /// Whether this client, and no earlier one, is speaking.
    pub fn is_heard(&self, run: u64) -> bool {
        self.client.as_ref().is_some_and(|(current, _)| *current == run)
    }

    pub fn standing(&self, wants: Wants, request: &AddressRequest) -> Standing {
        match &self.stage {
            Stage::Idle if self.unwanted_since.is_some() || request.ipv4 == Ipv4Method::Off => {
                Standing::NoCarrier
            }
            Stage::Idle => Standing::Trying { promised: None },
            Stage::Asking { promised, .. } => Standing::Trying { promised: *promised },
            Stage::Leased { since, lease, origin } => Standing::Leased {
                lacks: false,
                worth: wants.worth(lease),
                best: *origin != Origin::Dhcp || wants.are_met_by(lease),
                age: since.elapsed(),
            },
        }
    }

    /// Remembers what is wrong; true the first time: a server that is wrong is so every few
    /// seconds.
    pub fn is_new_trouble(&mut self, what: &str) -> bool {
        let Stage::Asking { trouble, offer, promised, .. } = &mut self.stage else { return false };
        (*offer, *promised) = (None, None);
        let is_new = trouble.as_deref() != Some(what);
        if is_new {
            *trouble = Some(what.to_owned());
        }
        is_new
    }

    pub fn offer(&self) -> Option<&Lease> {
        match &self.stage {
            Stage::Asking { offer, .. } => offer.as_deref(),
            Stage::Idle | Stage::Leased { .. } => None,
        }
    }

    /// For one line: nothing when it has a lease or was not asked.
    pub fn progress(&self) -> Option<(Duration, u32, Option<&str>)> {
        match &self.stage {
            Stage::Asking { since, sent, trouble, .. } => {
                Some((since.elapsed(), *sent, trouble.as_deref()))
            }
            Stage::Idle | Stage::Leased { .. } => None,
        }
    }
}
