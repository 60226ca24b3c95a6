//! What the agent tells the kernel about links, addresses and routes, and what it hears: route
//! netlink, through rtnetlink. One function per intent; nothing here decides.

mod ipv6;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::{StreamExt, TryStreamExt};
use ipnet::Ipv4Net;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};
use rtnetlink::packet_route::link::{
    BondAdInfo, BondMode, InfoBond, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo,
    LinkLayerType, LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{
    Handle, LinkBond, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVlan, MulticastGroup,
    RouteMessageBuilder,
};

pub use ipv6::{Known6, State6};

use super::topology::Made;
use super::{Lease, Mac, Route};
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

/// The kernel's ear.
#[derive(Clone)]
pub struct Kernel(Handle);

impl Kernel {
    /// Connects and gives each change of a link to `hear`. Must be called on the runtime.
    pub fn connect<F, R>(hear: F) -> Result<Self>
    where
        F: Fn(Change) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let (connection, handle, mut messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv6Ifaddr,
        ])
        .while_doing(|| "connecting to the kernel's route netlink")?;
        tokio::spawn(connection);
        tokio::spawn(async move {
            while let Some((message, _)) = messages.next().await {
                let change = match message.payload {
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                        read(link).map(Change::Link)
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
        Ok(Self(handle))
    }

    pub async fn links(&self) -> Result<Vec<Link>> {
        let links = self.0.link().get().execute();
        let links: Vec<LinkMessage> =
            links.try_collect().await.map_err(|error| explain("listing the links", error))?;
        Ok(links.into_iter().filter_map(read).collect())
    }

    /// IPv4 addresses that links have, by the number of the link, primary ones only.
    pub async fn addresses(&self) -> Result<Vec<(u32, Ipv4Addr, u8)>> {
        let mut request = self.0.address().get();
        request.message_mut().header.family = AddressFamily::Inet;
        let all: Vec<AddressMessage> = request
            .execute()
            .try_collect()
            .await
            .map_err(|error| explain("listing the addresses", error))?;
        Ok(all.into_iter().filter_map(read_address).collect())
    }

    /// IPv4 routes of the main table that somebody has added, by the number of the link.
    pub async fn routes(&self) -> Result<Vec<(u32, Route)>> {
        let request = self.0.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build());
        let all: Vec<RouteMessage> = request
            .execute()
            .try_collect()
            .await
            .map_err(|error| explain("listing the routes", error))?;
        Ok(all.into_iter().filter_map(read_route).collect())
    }

    pub async fn set_up(&self, link: &Link) -> Result<()> {
        let message = LinkUnspec::new_with_index(link.index).up().build();
        self.set(message, || format!("setting {} up", link.name)).await
    }

    pub async fn set_down(&self, link: &Link) -> Result<()> {
        let message = LinkUnspec::new_with_index(link.index).down().build();
        self.set(message, || format!("setting {} down", link.name)).await
    }

    /// Of a link that is down.
    pub async fn rename(&self, link: &Link, name: &str) -> Result<()> {
        let message = LinkUnspec::new_with_index(link.index).name(name).build();
        self.set(message, || format!("giving {} the name {name}", link.name)).await
    }

    pub async fn set_mac(&self, link: &Link, mac: Mac) -> Result<()> {
        let message = LinkUnspec::new_with_index(link.index).address(mac.0.to_vec()).build();
        self.set(message, || format!("giving {} the address {mac}", link.name)).await
    }

    /// Makes a bond, bridge or VLAN, down and empty.
    pub async fn make(&self, name: &str, what: &Made, mac: Option<Mac>) -> Result<()> {
        let address = mac.map(|mac| LinkAttribute::Address(mac.0.to_vec()));
        let message = match what {
            Made::Bond(options) => {
                let mut builder = LinkBond::new(name);
                for attribute in options.attributes() {
                    builder = builder.append_info_data(attribute);
                }
                with(builder, address).build()
            }
            Made::Vlan { id, over } => with(LinkVlan::new(name, *over, *id), address).build(),
            // Nothing is in a circle yet: a port may be used at once.
            Made::Bridge => with(LinkBridge::new(name).forward_delay(0), address).build(),
        };
        self.0.link().add(message).execute().await.map_err(|error| {
            let what = match what {
                Made::Bond(_) => "bond".to_owned(),
                Made::Vlan { id, .. } => format!("VLAN {id} as"),
                Made::Bridge => "bridge".to_owned(),
            };
            explain(format!("making the {what} {name}"), error)
        })
    }

    /// Makes `port` the one that a bond prefers.
    pub async fn set_primary(&self, bond: &Link, port: &Link) -> Result<()> {
        let message = LinkUnspec::new_with_index(bond.index)
            .append_extra_attribute(LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Bond),
                LinkInfo::Data(InfoData::Bond(vec![InfoBond::Primary(port.index)])),
            ]))
            .build();
        // RTM_SETLINK does not look at what only a bond has.
        let changed = self.0.link().change(message).execute().await;
        let doing = || format!("making {} the primary of {}", port.name, bond.name);
        changed.map_err(|error| explain(doing(), error))
    }

    /// Gives a link to a bond or bridge.
    pub async fn join(&self, link: &Link, master: &Link) -> Result<()> {
        self.set_down(link).await?;
        let message = LinkUnspec::new_with_index(link.index).controller(master.index).build();
        self.set(message, || format!("adding {} to {}", link.name, master.name)).await
    }

    pub async fn set_mtu(&self, link: &Link, mtu: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(link.index).mtu(mtu).build();
        self.set(message, || format!("setting the MTU of {} to {mtu}", link.name)).await
    }

    async fn set(&self, message: LinkMessage, doing: impl FnOnce() -> String) -> Result<()> {
        self.0.link().set(message).execute().await.map_err(|error| explain(doing(), error))
    }

    /// Adds the address, or changes the lifetime of it. `None` is for ever.
    pub async fn set_address(
        &self,
        link: &Link,
        lease: &Lease,
        lifetime_seconds: Option<u32>,
    ) -> Result<()> {
        let (address, prefix) = (lease.address, lease.prefix);
        // The broadcast address is derived from the prefix; option 28 is wrong more often.
        let mut request = self.0.address().add(link.index, address.into(), prefix).replace();
        let mut life = CacheInfo::default();
        life.ifa_valid = lifetime_seconds.unwrap_or(u32::MAX);
        life.ifa_preferred = life.ifa_valid;
        request.message_mut().attributes.push(AddressAttribute::CacheInfo(life));
        request
            .execute()
            .await
            .map_err(|error| explain(format!("giving {} {address}/{prefix}", link.name), error))
    }

    pub async fn remove_address(&self, link: &Link, address: Ipv4Addr, prefix: u8) -> Result<()> {
        let mut request = self.0.address().add(link.index, address.into(), prefix);
        let message = std::mem::take(request.message_mut());
        self.0
            .address()
            .del(message)
            .execute()
            .await
            .map_err(|error| explain(format!("taking {address}/{prefix} off {}", link.name), error))
    }

    pub async fn add_route(&self, link: &Link, entry: &Entry, origin: Origin) -> Result<()> {
        let Route { to, via } = entry.route;
        let message = route_message(link.index, entry, origin);
        self.0.route().add(message).replace().execute().await.map_err(|error| {
            let via = via.map(|via| format!(" through {via}")).unwrap_or_default();
            explain(format!("routing {to}{via} over {}", link.name), error)
        })
    }

    pub async fn remove_route(&self, link: &Link, entry: &Entry, origin: Origin) -> Result<()> {
        let message = route_message(link.index, entry, origin);
        let to = entry.route.to;
        self.0.route().del(message).execute().await.map_err(|error| {
            explain(format!("removing the route to {to} over {}", link.name), error)
        })
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

/// A route as it goes into the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub route: Route,
    /// The router is a neighbour although no prefix says so.
    pub on_link: bool,
    pub metric: u32,
}

/// The routes of a lease, in an order in which the kernel accepts them: it wants to know how to
/// reach a router before it accepts a route through it.
pub fn entries(lease: &Lease) -> Vec<Entry> {
    let mut reachable = BTreeSet::from([lease.network()]);
    let (direct, through): (Vec<Route>, Vec<Route>) =
        lease.routes.iter().partition(|route| route.via.is_none());
    reachable.extend(direct.iter().map(|route| route.to));
    let mut entries: Vec<Entry> = Vec::new();
    for route in direct.into_iter().chain(through) {
        if entries.iter().any(|entry| entry.route == route) {
            continue;
        }
        // A second router for the same destination is a spare: it must not replace the first.
        let same = entries.iter().filter(|entry| entry.route.to == route.to).count();
        let on_link = route.via.is_some_and(|via| !reachable.iter().any(|net| net.contains(&via)));
        entries.push(Entry { route, on_link, metric: u32::try_from(same).unwrap_or(u32::MAX) });
    }
    entries
}

fn route_message(index: u32, entry: &Entry, origin: Origin) -> RouteMessage {
    let Route { to, via } = entry.route;
    let protocol = match origin {
        Origin::Dhcp => RouteProtocol::Dhcp,
        Origin::CommandLine | Origin::Host => RouteProtocol::Static,
    };
    let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(to.network(), to.prefix_len())
        .output_interface(index)
        .protocol(protocol);
    builder = match via {
        Some(via) => builder.gateway(via),
        None => builder.scope(RouteScope::Link),
    };
    if entry.metric > 0 {
        builder = builder.priority(entry.metric);
    }
    let mut message = builder.build();
    if entry.on_link {
        message.header.flags |= RouteFlags::Onlink;
    }
    message
}

fn with<T>(
    builder: LinkMessageBuilder<T>,
    attribute: Option<LinkAttribute>,
) -> LinkMessageBuilder<T> {
    match attribute {
        Some(attribute) => builder.append_extra_attribute(attribute),
        None => builder,
    }
}

/// The name of a port's driver.
fn driver_of(name: &str) -> Option<String> {
    let link = std::fs::read_link(format!("/sys/class/net/{name}/device/driver")).ok()?;
    Some(link.file_name()?.to_str()?.to_owned())
}

/// `None` for what has no name or no Ethernet-like address.
fn read(message: LinkMessage) -> Option<Link> {
    let flags = message.header.flags;
    let mut shape = match message.header.link_layer_type {
        LinkLayerType::Loopback => Shape::Loopback,
        LinkLayerType::Ether => Shape::Port,
        _ => Shape::Other,
    };
    let mut kind = if shape == Shape::Port { Kind::Port } else { Kind::Other };
    let (mut name, mut mac, mut permanent_mac, mut mtu) = (None, None, None, 0);
    let (mut master, mut lower, mut has_partner, mut primary) = (None, None, None, None);
    let six = |bytes: Vec<u8>| Some(Mac(<[u8; 6]>::try_from(bytes).ok()?));
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text),
            LinkAttribute::Mtu(bytes) => mtu = bytes,
            LinkAttribute::Address(bytes) => mac = six(bytes),
            LinkAttribute::PermAddress(bytes) => {
                permanent_mac = six(bytes).filter(|mac| *mac != Mac([0; 6]));
            }
            LinkAttribute::Controller(index) => master = Some(index),
            LinkAttribute::Link(index) => lower = Some(index),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(made) if kind == Kind::Port => kind = kind_of(&made),
                        LinkInfo::Data(InfoData::Bond(facts)) => {
                            has_partner = partner(&facts);
                            primary = facts.iter().find_map(|fact| match fact {
                                InfoBond::Primary(index) => Some(*index),
                                _ => None,
                            });
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if shape == Shape::Port && (kind != Kind::Port || master.is_some()) {
        shape = Shape::Composed;
    }
    let name = name?;
    Some(Link {
        index: message.header.index,
        driver: if kind == Kind::Port { driver_of(&name) } else { None },
        name,
        shape,
        kind,
        master: master.filter(|index| *index != 0),
        lower,
        has_partner,
        primary,
        mac: mac.unwrap_or(Mac([0; 6])),
        permanent_mac,
        is_up: flags.contains(LinkFlags::Up),
        has_carrier: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        mtu,
    })
}

/// Only what software made has a kind; one end of a veth is a port to a container, and so are the
/// ports of a switch chip (DSA).
fn kind_of(kind: &InfoKind) -> Kind {
    match kind {
        InfoKind::Veth | InfoKind::Dsa => Kind::Port,
        InfoKind::Bond => Kind::Bond,
        InfoKind::Bridge => Kind::Bridge,
        InfoKind::Vlan => Kind::Vlan,
        _ => Kind::Other,
    }
}

/// Whether the switch has answered a bond by IEEE 802.3ad; `None` for other bonds.
fn partner(facts: &[InfoBond]) -> Option<bool> {
    facts.contains(&InfoBond::Mode(BondMode::Ieee8023Ad)).then(|| {
        facts.iter().any(|fact| match fact {
            InfoBond::AdInfo(infos) => infos
                .iter()
                .any(|info| matches!(info, BondAdInfo::PartnerMac(mac) if *mac != [0; 6])),
            _ => false,
        })
    })
}

fn read_address(message: AddressMessage) -> Option<(u32, Ipv4Addr, u8)> {
    let header = message.header;
    if header.scope != AddressScope::Universe
        || header.flags.contains(AddressHeaderFlags::Secondary)
    {
        return None;
    }
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        // `Address` is the other end where there is one.
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    });
    Some((header.index, local?, header.prefix_len))
}

/// `None` for what the kernel adds itself, and for what is not simply a way to somewhere.
fn read_route(message: RouteMessage) -> Option<(u32, Route)> {
    let RouteHeader { table, protocol, kind, destination_prefix_length, address_family, .. } =
        message.header;
    if address_family != AddressFamily::Inet
        || table != RouteHeader::RT_TABLE_MAIN
        || protocol == RouteProtocol::Kernel
        || kind != RouteType::Unicast
    {
        return None;
    }
    let (mut to, mut via, mut link) = (Ipv4Addr::UNSPECIFIED, None, None);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => to = address,
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => via = Some(address),
            RouteAttribute::Oif(index) => link = Some(index),
            _ => {}
        }
    }
    let to = Ipv4Net::new(to, destination_prefix_length).ok()?;
    Some((link?, Route { to, via }))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::lease::tests::lease;

    #[test]
    #[rustfmt::skip]
    fn routes_are_ordered_so_that_the_kernel_accepts_them() {
        let route = |text: &str| {
            let (to, via) = text.split_once(' ').unwrap();
            Route { to: to.parse().unwrap(), via: via.parse().ok() }
        };
        let cases: [(&str, &str, &[&str], &[&str]); 6] = [
            ("a router in the prefix",           "10.0.0.5/24", &["0.0.0.0/0 10.0.0.1"],                       &["0.0.0.0/0 10.0.0.1"]),
            ("a router outside it (clouds)",     "10.0.0.5/32", &["0.0.0.0/0 10.0.0.1"],                       &["0.0.0.0/0 10.0.0.1 onlink"]),
            ("its own route comes first",        "10.0.0.5/32", &["0.0.0.0/0 10.0.0.1", "10.0.0.1/32 -"],      &["10.0.0.1/32 -", "0.0.0.0/0 10.0.0.1"]),
            ("a spare router does not replace",  "10.0.0.5/24", &["0.0.0.0/0 10.0.0.1", "0.0.0.0/0 10.0.0.2"], &["0.0.0.0/0 10.0.0.1", "0.0.0.0/0 10.0.0.2 metric 1"]),
            ("the same route twice",             "10.0.0.5/24", &["0.0.0.0/0 10.0.0.1", "0.0.0.0/0 10.0.0.1"], &["0.0.0.0/0 10.0.0.1"]),
            ("none",                             "10.0.0.5/24", &[],                                            &[]),
        ];
        for (case, address, routes, expected) in cases {
            let mut lease = lease(address);
            lease.routes = routes.iter().map(|text| route(text)).collect();
            let shown: Vec<String> = entries(&lease).iter().map(|entry| {
                let via = entry.route.via.map_or("-".to_owned(), |via| via.to_string());
                let on_link = if entry.on_link { " onlink" } else { "" };
                let metric = if entry.metric > 0 { format!(" metric {}", entry.metric) } else { String::new() };
                format!("{} {via}{on_link}{metric}", entry.route.to)
            }).collect();
            assert_eq!(shown, expected, "{case}");
        }
    }
}
