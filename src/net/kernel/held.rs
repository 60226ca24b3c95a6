//! Addresses and routes of both families as the kernel has them, complete enough to be put back when
//! somebody has taken them away: what goes to the keeper, and what it compares with. Links likewise,
//! without a look at `/sys`, which the keeper does not have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo,
};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use rtnetlink::{LinkUnspec, RouteMessageBuilder};
use serde::{Deserialize, Serialize};

use super::{Kernel, explain};
use crate::error::Result;
use crate::net::Mac;

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAddress {
    /// Number of the link.
    pub on: u32,
    pub address: IpAddr,
    pub prefix: u8,
    /// Seconds; `None` is for ever.
    pub valid_seconds: Option<u32>,
    pub preferred_seconds: Option<u32>,
    /// The prefix says nothing of who is a neighbour.
    pub without_route: bool,
    /// The kernel has seen it at somebody else's and does not use it (RFC 4862 section 5.4.5), and
    /// refuses to be given it again.
    #[serde(default)]
    pub is_duplicate: bool,
}

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRoute {
    pub to: IpNet,
    pub via: Option<IpAddr>,
    /// Number of the link; 0 where it is more than one.
    pub on: u32,
    pub on_link: bool,
    pub metric: u32,
    /// The address that packets come from.
    pub from: Option<IpAddr>,
    /// As in `/etc/iproute2/rt_protos`: who made it.
    pub protocol: u8,
    /// As in `/etc/iproute2/rt_scopes`.
    pub scope: u8,
    /// Seconds after which it ends by itself.
    pub expires_seconds: Option<u32>,
}

/// A link, as far as it matters whether it can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldLink {
    pub index: u32,
    pub name: String,
    pub mac: Mac,
    pub permanent_mac: Option<Mac>,
    /// Number of the bond or bridge that it belongs to.
    pub master: Option<u32>,
    /// Hardware address of all its stations: six bytes of ones, or the twenty of InfiniBand.
    pub everybody: Option<Vec<u8>>,
    pub is_up: bool,
    pub has_carrier: bool,
}

/// What a router advertised; `RTPROT_RA` of the kernel.
pub const FROM_ROUTER: u8 = 9;

impl HeldRoute {
    /// As `ip route` would show it.
    pub fn words(&self) -> String {
        let to = match self.to.prefix_len() {
            0 => "default".to_owned(),
            _ => self.to.to_string(),
        };
        match self.via {
            Some(via) => format!("{to} via {via}"),
            None => to,
        }
    }
}

impl Kernel {
    pub async fn held_links(&self) -> Result<Vec<HeldLink>> {
        let links = self.handle.link().get().execute();
        let links: Vec<LinkMessage> =
            links.try_collect().await.map_err(|error| explain("listing the links", error))?;
        Ok(links.into_iter().filter_map(link).collect())
    }

    /// Those that others than neighbours can reach, of both families; not those that are for a day
    /// (RFC 8981), which the kernel makes and ends as it likes.
    pub async fn held_addresses(&self) -> Result<Vec<HeldAddress>> {
        let mut all = self.all_addresses(AddressFamily::Inet).await?;
        // A kernel without IPv6 has none.
        all.extend(self.all_addresses(AddressFamily::Inet6).await.unwrap_or_default());
        Ok(all.into_iter().filter_map(address).collect())
    }

    /// Of both families, but those of the link alone (`fe80::/64`).
    pub async fn held_routes(&self) -> Result<Vec<HeldRoute>> {
        let of_ipv4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let of_ipv6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        let mut all: Vec<RouteMessage> = Vec::new();
        for (message, is_needed) in [(of_ipv4, true), (of_ipv6, false)] {
            let listed: std::result::Result<Vec<_>, _> =
                self.handle.route().get(message).execute().try_collect().await;
            match listed {
                Ok(listed) => all.extend(listed),
                Err(error) if is_needed => return Err(explain("listing the routes", error)),
                Err(_) => {}
            }
        }
        Ok(all.into_iter().filter_map(route).collect())
    }

    pub async fn put_up(&self, index: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).up().build();
        let done = self.handle.link().set(message).execute().await;
        done.map_err(|error| explain("setting it up", error))
    }

    /// Only where it is missing. Without looking whether somebody else has it by now: it was ours a
    /// moment ago, and the root waits.
    pub async fn put_back_address(&self, held: &HeldAddress) -> Result<()> {
        self.give(held, false).await
    }

    /// Lets an address that is there last as long as `held` says.
    pub async fn prolong(&self, held: &HeldAddress) -> Result<()> {
        self.give(held, true).await
    }

    async fn give(&self, held: &HeldAddress, is_there: bool) -> Result<()> {
        let HeldAddress { on, address, prefix, valid_seconds, preferred_seconds, .. } = *held;
        let request = self.handle.address().add(on, address, prefix);
        let mut request = if is_there { request.replace() } else { request };
        let mut life = CacheInfo::default();
        life.ifa_valid = valid_seconds.unwrap_or(u32::MAX);
        life.ifa_preferred = preferred_seconds.unwrap_or(u32::MAX).min(life.ifa_valid);
        let attributes = &mut request.message_mut().attributes;
        attributes.push(AddressAttribute::CacheInfo(life));
        let mut flags = AddressFlags::empty();
        flags.set(AddressFlags::Nodad, address.is_ipv6());
        flags.set(AddressFlags::Noprefixroute, held.without_route);
        if !flags.is_empty() {
            attributes.push(AddressAttribute::Flags(flags));
        }
        let done = request.execute().await;
        done.map_err(|error| explain(format!("giving it {address}/{prefix}"), error))
    }

    /// Only where the kernel has none that it would take for the same.
    pub async fn put_back_route(&self, held: &HeldRoute) -> Result<()> {
        let done = self.handle.route().add(message(held)).execute().await;
        done.map_err(|error| explain(format!("adding the route {}", held.words()), error))
    }

    /// In place of the one to the same destination with the same metric.
    pub async fn replace_route(&self, held: &HeldRoute) -> Result<()> {
        let done = self.handle.route().add(message(held)).replace().execute().await;
        done.map_err(|error| explain(format!("changing the route to {}", held.words()), error))
    }

    pub async fn drop_route(&self, held: &HeldRoute) -> Result<()> {
        let done = self.handle.route().del(message(held)).execute().await;
        done.map_err(|error| explain(format!("removing the route {}", held.words()), error))
    }
}

pub fn link(message: LinkMessage) -> Option<HeldLink> {
    let flags = message.header.flags;
    let (mut name, mut mac, mut permanent_mac, mut master) = (None, None, None, None);
    let mut everybody = None;
    let six = |bytes: &[u8]| Some(Mac(<[u8; 6]>::try_from(bytes).ok()?));
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Address(bytes) => mac = six(bytes),
            LinkAttribute::PermAddress(bytes) => permanent_mac = six(bytes),
            LinkAttribute::Controller(index) => master = Some(*index),
            LinkAttribute::Broadcast(bytes) => everybody = Some(bytes.clone()),
            _ => {}
        }
    }
    Some(HeldLink {
        index: message.header.index,
        name: name?,
        mac: mac.unwrap_or(Mac([0; 6])),
        permanent_mac: permanent_mac.filter(|mac| *mac != Mac([0; 6])),
        master: master.filter(|index| *index != 0),
        everybody: everybody.filter(|bytes| [6, 20].contains(&bytes.len())),
        is_up: flags.contains(LinkFlags::Up),
        has_carrier: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
    })
}

pub fn address(message: AddressMessage) -> Option<HeldAddress> {
    let header = message.header;
    let is_ipv4 = header.family == AddressFamily::Inet;
    // The header has the lower eight bits only, and always.
    let mut flags = AddressFlags::from_bits_retain(header.flags.bits().into());
    let (mut given, mut local, mut life) = (None, None, None);
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Address(address) => given = Some(address),
            // The other end is in `Address` where there is one.
            AddressAttribute::Local(address) => local = Some(address),
            AddressAttribute::CacheInfo(info) => life = Some(info),
            AddressAttribute::Flags(all) => flags = all,
            _ => {}
        }
    }
    // The same bit says of IPv6 that it is temporary, and of IPv4 that another is before it.
    let is_of_the_moment = !is_ipv4 && flags.contains(AddressFlags::Secondary);
    if header.scope != AddressScope::Universe || is_of_the_moment {
        return None;
    }
    let seconds = |seconds: u32| (seconds != u32::MAX).then_some(seconds);
    Some(HeldAddress {
        on: header.index,
        address: local.or(given)?,
        prefix: header.prefix_len,
        valid_seconds: life.as_ref().and_then(|life| seconds(life.ifa_valid)),
        preferred_seconds: life.as_ref().and_then(|life| seconds(life.ifa_preferred)),
        without_route: flags.contains(AddressFlags::Noprefixroute),
        is_duplicate: flags.contains(AddressFlags::Dadfailed),
    })
}

/// `None` for what is not simply a way to somewhere.
pub fn route(message: RouteMessage) -> Option<HeldRoute> {
    let RouteHeader { table, protocol, scope, kind, destination_prefix_length: length, .. } =
        message.header;
    let is_ipv4 = message.header.address_family == AddressFamily::Inet;
    let cloned = message.header.flags.contains(RouteFlags::Cloned);
    if table != RouteHeader::RT_TABLE_MAIN || kind != RouteType::Unicast || cloned {
        return None;
    }
    let mut to = if is_ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let (mut via, mut on, mut metric, mut from, mut expires) = (None, 0, 0, None, None);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(&address)?,
            RouteAttribute::Gateway(address) => via = ip(&address),
            RouteAttribute::Oif(index) => on = index,
            RouteAttribute::Priority(priority) => metric = priority,
            RouteAttribute::PrefSource(address) => from = ip(&address),
            // Hundredths of a second: `USER_HZ`, which is that wherever this runs.
            RouteAttribute::CacheInfo(info) if (1..u32::MAX / 2).contains(&info.expires) => {
                expires = Some(info.expires / 100);
            }
            _ => {}
        }
    }
    let to = match to {
        IpAddr::V4(to) => IpNet::V4(Ipv4Net::new(to, length).ok()?),
        IpAddr::V6(to) => IpNet::V6(Ipv6Net::new(to, length).ok()?),
    };
    if let IpNet::V6(to) = to
        && (to.addr().is_unicast_link_local() || to.addr().is_multicast())
    {
        return None;
    }
    Some(HeldRoute {
        to,
        via,
        on,
        on_link: message.header.flags.contains(RouteFlags::Onlink),
        metric,
        from,
        protocol: protocol.into(),
        scope: scope.into(),
        expires_seconds: expires,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn message(held: &HeldRoute) -> RouteMessage {
    let mut message = match held.to {
        IpNet::V4(to) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to.network(), to.prefix_len())
            .build(),
        IpNet::V6(to) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(to.network(), to.prefix_len())
            .build(),
    };
    message.header.protocol = RouteProtocol::from(held.protocol);
    message.header.scope = RouteScope::from(held.scope);
    if held.on_link {
        message.header.flags |= RouteFlags::Onlink;
    }
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Oif(held.on));
    attributes.extend(held.via.map(|via| RouteAttribute::Gateway(via.into())));
    attributes.extend(held.from.map(|from| RouteAttribute::PrefSource(from.into())));
    if held.metric > 0 {
        attributes.push(RouteAttribute::Priority(held.metric));
    }
    attributes.extend(held.expires_seconds.map(RouteAttribute::Expires));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_stations_of_a_link_are_known() {
        let cases = [
            ("Ethernet", vec![0xff; 6], Some(6)),
            ("InfiniBand", vec![0xff; 20], Some(20)),
            ("a tunnel", vec![0; 4], None),
        ];
        for (case, bytes, expected) in cases {
            let mut message = LinkMessage::default();
            message.attributes =
                vec![LinkAttribute::IfName("x0".into()), LinkAttribute::Broadcast(bytes)];
            let link = link(message).unwrap();
            assert_eq!(link.everybody.map(|all| all.len()), expected, "{case}");
        }
    }
}
