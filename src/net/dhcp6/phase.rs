//! What a DHCPv6 client is doing: which message belongs to it, and which answer.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::message::{Ask, Kind, Reply};
use super::timing::{Schedule, Times};
use crate::net::Lease6;
use crate::net::duid::Duid;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    Soliciting {
        best: Option<Box<Offer>>,
    },
    Requesting {
        offer: Box<Offer>,
        /// Its addresses are in use: the server has forgotten them, and is asked to know them again.
        in_use: bool,
    },
    Bound {
        lease: Box<Lease6>,
        times: Times,
    },
    Renewing {
        lease: Box<Lease6>,
        times: Times,
    },
    Rebinding {
        lease: Box<Lease6>,
        times: Times,
    },
    Confirming {
        lease: Box<Lease6>,
        times: Times,
        deadline: Duration,
    },
    Declining {
        server: Duid,
        addresses: Vec<Ipv6Addr>,
    },
    /// They were granted in place of those that are kept, and nobody has used them.
    Releasing {
        server: Duid,
        addresses: Vec<Ipv6Addr>,
    },
    /// Refused more than once: a server that offers and then refuses is not asked a thousand times
    /// a second.
    Pausing,
    Informing,
    Informed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub server: Duid,
    pub preference: u8,
    pub lease: Lease6,
}

impl Phase {
    /// Whether this is an answer to what was asked last, from whom it was asked.
    pub fn expects(&self, reply: &Reply) -> bool {
        let from = |server: &Duid| reply.kind == Kind::Reply && reply.server == *server;
        match self {
            Self::Soliciting { .. } => reply.kind == Kind::Advertise || reply.committed,
            Self::Requesting { offer, .. } => from(&offer.server),
            Self::Renewing { lease, .. } => lease.server.as_ref().is_some_and(from),
            Self::Declining { server, .. } | Self::Releasing { server, .. } => from(server),
            Self::Rebinding { .. } | Self::Confirming { .. } | Self::Informing => {
                reply.kind == Kind::Reply
            }
            Self::Bound { .. } | Self::Pausing | Self::Informed => false,
        }
    }

    /// The message to be sent, how often, and when at the latest the next is due; `None` where
    /// there is nothing to say. `keeps`: addresses that are asked for whatever a server has said of
    /// them last. `limits`: the longest waits that servers want between solicits, and
    /// between requests for information.
    pub fn message(
        &self,
        wish: &[Ipv6Addr],
        keeps: &[Ipv6Addr],
        limits: (Option<Duration>, Option<Duration>),
    ) -> Option<(Ask, Schedule, Option<Duration>)> {
        let addresses = |lease: &Lease6| match keeps {
            [] => lease.addresses.iter().map(|one| one.address).collect::<Vec<_>>(),
            keeps => keeps.to_vec(),
        };
        let found = match self {
            Self::Soliciting { .. } => {
                let ask = Ask::Solicit { wish: wish.to_vec() };
                let schedule =
                    if keeps.is_empty() { Schedule::SOLICIT } else { Schedule::SOLICIT_IN_USE };
                (ask, schedule.limited(limits.0), None)
            }
            Self::Requesting { offer, .. } => {
                let (server, addresses) = (offer.server.clone(), addresses(&offer.lease));
                (Ask::Request { server, addresses }, Schedule::REQUEST, None)
            }
            Self::Renewing { lease, times } => {
                let addresses = addresses(lease);
                let ask = match lease.server.clone() {
                    Some(server) => Ask::Renew { server, addresses },
                    None => Ask::Rebind { addresses },
                };
                (ask, Schedule::EXTEND, Some(times.rebind.min(times.end)))
            }
            Self::Rebinding { lease, times } => {
                (Ask::Rebind { addresses: addresses(lease) }, Schedule::EXTEND, Some(times.end))
            }
            Self::Confirming { lease, deadline, .. } => {
                (Ask::Confirm { addresses: addresses(lease) }, Schedule::CONFIRM, Some(*deadline))
            }
            Self::Declining { server, addresses } => {
                let (server, addresses) = (server.clone(), addresses.clone());
                (Ask::Decline { server, addresses }, Schedule::DECLINE, None)
            }
            Self::Releasing { server, addresses } => {
                let (server, addresses) = (server.clone(), addresses.clone());
                (Ask::Release { server, addresses }, Schedule::DECLINE, None)
            }
            Self::Informing => (Ask::Information, Schedule::SOLICIT.limited(limits.1), None),
            Self::Bound { .. } | Self::Pausing | Self::Informed => return None,
        };
        Some(found)
    }
}
