//! What the agent tells the kernel about links, addresses and routes, and what it hears: route
//! netlink, through rtnetlink. One function per intent; nothing here decides.

mod held;
mod ipv4;
mod ipv6;
mod links;
mod read;
mod watch;

use std::net::{IpAddr, Ipv6Addr};

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::AsyncSocket;
use rtnetlink::{Handle, MulticastGroup};

pub use held::{FROM_ROUTER, HeldAddress, HeldLink, HeldRoute};
pub use ipv4::{Entry, entries, metric};
pub use ipv6::{Known6, State6};
pub use watch::{Heard, What};

use super::Mac;
use crate::error::{Cause, Error, Result, WhileDoing};

/// A link as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub shape: Shape,
    pub kind: Kind,
    /// Number of the bond or bridge that it belongs to.
    pub master: Option<u32>,
    /// Number of the link that a VLAN is on.
    pub lower: Option<u32>,
    /// The kernel's driver of a port, where `/sys` tells.
    pub driver: Option<String>,
    pub mac: Mac,
    /// The address that is burnt in, where driver and kernel (5.6) tell.
    pub permanent_mac: Option<Mac>,
    pub is_up: bool,
    pub has_carrier: bool,
    /// Of a bond by IEEE 802.3ad: whether a partner has answered. Until then the switch may let
    /// nothing through.
    pub has_partner: Option<bool>,
    /// Of a bond: number of the port that it prefers.
    pub primary: Option<u32>,
    /// Of a bond: the kernel's number of its mode.
    pub mode: Option<u8>,
    /// A radio, or a port that comes and goes with a plug, which may be the way to the machine's own
    /// management controller: none of those that a cable of the network goes into.
    pub is_peripheral: bool,
    /// Bytes.
    pub mtu: u32,
}

/// What a link is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Hardware, or what looks like it to a virtual machine or a container.
    Port,
    Bond,
    Bridge,
    Vlan,
    /// Other software, or no Ethernet at all.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A socket that a cable goes into; also one end of a veth, which is that for a container.
    Port,
    /// Ethernet made of other links: bridge, bond, VLAN, …, or a port that belongs to one.
    Composed,
    Loopback,
    /// Not Ethernet.
    Other,
}

#[cfg(test)]
impl Link {
    /// A port that is down.
    pub fn port(index: u32, name: &str, mac: Mac) -> Self {
        Self {
            index,
            name: name.into(),
            shape: Shape::Port,
            kind: Kind::Port,
            master: None,
            lower: None,
            driver: None,
            mac,
            permanent_mac: None,
            is_up: false,
            has_carrier: false,
            has_partner: None,
            primary: None,
            mode: None,
            is_peripheral: false,
            mtu: 1500,
        }
    }
}

/// What happened to the links.
#[derive(Debug)]
pub enum Change {
    /// New, or changed in some way.
    Link(Link),
    Gone(u32),
    /// An IPv6 address is new, or its state or lifetime has changed.
    Address(Known6),
    /// A link has lost this IPv6 address.
    AddressGone(u32, Ipv6Addr),
    /// Some changes were lost: the links must be listed again.
    Missed,
}

/// Above what the kernel gives: a machine with many virtual functions tells of all of them at once.
const HEARD_AT_ONCE: usize = 1 << 20;

/// The kernel's ear.
///
/// What is asked goes over a connection of its own: of the one that hears of changes, answers may be
/// lost together with changes, and who waits for a lost answer waits for ever.
#[derive(Clone)]
pub struct Kernel {
    handle: Handle,
    /// The other connection ends with it.
    _ear: Handle,
}

impl Kernel {
    /// Connects and gives each change of a link to `hear`. Must be called on the runtime.
    pub fn connect<F, R>(hear: F) -> Result<Self>
    where
        F: Fn(Change) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let doing = || "connecting to the kernel's route netlink";
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv6Ifaddr];
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
                let change = match message.payload {
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                        read::link(link).map(Change::Link)
                    }
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                        Some(Change::Gone(link.header.index))
                    }
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => {
                        ipv6::read(address).map(Change::Address)
                    }
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(address)) => {
                        ipv6::read(address)
                            .map(|known| Change::AddressGone(known.on, known.address))
                    }
                    NetlinkPayload::Overrun(_) => Some(Change::Missed),
                    _ => None,
                };
                if let Some(change) = change {
                    hear(change).await;
                }
            }
        });
        Ok(Self { handle, _ear })
    }

    /// Of either family.
    pub async fn remove_address(&self, link: &Link, address: IpAddr, prefix: u8) -> Result<()> {
        let mut request = self.handle.address().add(link.index, address, prefix);
        let message = std::mem::take(request.message_mut());
        self.handle
            .address()
            .del(message)
            .execute()
            .await
            .map_err(|error| explain(format!("taking {address}/{prefix} off {}", link.name), error))
    }

    async fn all_addresses(&self, family: AddressFamily) -> Result<Vec<AddressMessage>> {
        let doing = match family {
            AddressFamily::Inet6 => "listing the IPv6 addresses",
            _ => "listing the addresses",
        };
        let mut request = self.handle.address().get();
        request.message_mut().header.family = family;
        request.execute().try_collect().await.map_err(|error| explain(doing, error))
    }
}

/// Who said it: shown by `ip route`, and what networkd goes by when it takes a link over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Dhcp,
    CommandLine,
    /// Somebody who was there before us; the routes are his.
    Host,
}

/// Only the errno is kept: the rest of a netlink error repeats our own request.
fn explain(doing: impl Into<String>, error: rtnetlink::Error) -> Error {
    let cause = match error {
        rtnetlink::Error::NetlinkError(message) => Cause::Os(message.to_io()),
        rtnetlink::Error::RequestFailed => Cause::Refused("netlink is closed".into()),
        _ => Cause::Invalid("the kernel's answer makes no sense".into()),
    };
    Error::new(doing, cause)
}
