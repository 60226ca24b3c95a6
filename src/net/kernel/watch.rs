//! The kernel's ear of the keeper: whatever is taken from links, addresses and routes of both
//! families, and by whom.

use futures_util::StreamExt;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::AsyncSocket;

use super::held::{self, HeldAddress, HeldLink, HeldRoute};
use super::{HEARD_AT_ONCE, Kernel};
use crate::error::{Result, WhileDoing};

/// What has happened, and the number of the netlink port of whoever did it; 0 is the kernel.
///
/// Mostly it is the number of a process, but nothing obliges one to be known by that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub what: What,
    pub by: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Link(HeldLink),
    LinkGone(u32),
    Address(HeldAddress),
    AddressGone(HeldAddress),
    Route(HeldRoute),
    RouteGone(HeldRoute),
    /// Some of it was lost.
    Missed,
}

impl Kernel {
    /// Connects and gives whatever happens to `hear`. Must be called on the runtime.
    pub fn watch<F, R>(hear: F) -> Result<Self>
    where
        F: Fn(Heard) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let doing = || "connecting to the kernel's route netlink";
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (mut ear, _ear, mut messages) =
            rtnetlink::new_multicast_connection(&groups).while_doing(doing)?;
        if let Err(error) = ear.socket_mut().socket_mut().set_rx_buf_sz(HEARD_AT_ONCE) {
            log::debug!(target: "network", "{}: {error}", doing());
        }
        tokio::spawn(ear);
        let (connection, handle, _) = rtnetlink::new_connection().while_doing(doing)?;
        tokio::spawn(connection);
        tokio::spawn(async move {
            while let Some((message, _)) = messages.next().await {
                let by = message.header.port_number;
                let what = match message.payload {
                    NetlinkPayload::InnerMessage(inner) => what(inner),
                    NetlinkPayload::Overrun(_) => Some(What::Missed),
                    _ => None,
                };
                if let Some(what) = what {
                    hear(Heard { what, by }).await;
                }
            }
        });
        Ok(Self { handle, _ear })
    }
}

fn what(message: RouteNetlinkMessage) -> Option<What> {
    match message {
        RouteNetlinkMessage::NewLink(link) => held::link(link).map(What::Link),
        RouteNetlinkMessage::DelLink(link) => Some(What::LinkGone(link.header.index)),
        RouteNetlinkMessage::NewAddress(address) => held::address(address).map(What::Address),
        RouteNetlinkMessage::DelAddress(address) => held::address(address).map(What::AddressGone),
        RouteNetlinkMessage::NewRoute(route) => held::route(route).map(What::Route),
        RouteNetlinkMessage::DelRoute(route) => held::route(route).map(What::RouteGone),
        _ => None,
    }
}
