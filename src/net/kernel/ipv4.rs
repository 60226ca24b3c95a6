//! IPv4 addresses and routes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};

use super::{Kernel, Link, Origin, explain};
use crate::error::Result;
use crate::net::{Lease, Route};

/// A route as it goes into the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub route: Route,
    /// The router is a neighbour although no prefix says so.
    pub on_link: bool,
    pub metric: u32,
    /// The address that the route came with. Managers name it in those of a lease, and only know one
    /// that says the same for their own: another gateway would be added beside it otherwise.
    pub from: Ipv4Addr,
}

impl Kernel {
    /// IPv4 addresses that links have, by the number of the link, primary ones only.
    pub async fn addresses(&self) -> Result<Vec<(u32, Ipv4Addr, u8)>> {
        let all = self.all_addresses(AddressFamily::Inet).await?;
        Ok(all.into_iter().filter_map(read_address).collect())
    }

    /// IPv4 routes of the main table that somebody has added, by the number of the link.
    pub async fn routes(&self) -> Result<Vec<(u32, Route)>> {
        let request = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build());
        let all: Vec<RouteMessage> = request
            .execute()
            .try_collect()
            .await
            .map_err(|error| explain("listing the routes", error))?;
        Ok(all.into_iter().filter_map(read_route).collect())
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
        let mut request = self.handle.address().add(link.index, address.into(), prefix).replace();
        let mut life = CacheInfo::default();
        life.ifa_valid = lifetime_seconds.unwrap_or(u32::MAX);
        life.ifa_preferred = life.ifa_valid;
        request.message_mut().attributes.push(AddressAttribute::CacheInfo(life));
        request
            .execute()
            .await
            .map_err(|error| explain(format!("giving {} {address}/{prefix}", link.name), error))
    }

    pub async fn add_route(&self, link: &Link, entry: &Entry, origin: Origin) -> Result<()> {
        let Route { to, via } = entry.route;
        let message = route_message(link.index, entry, origin);
        self.handle.route().add(message).replace().execute().await.map_err(|error| {
            let via = via.map(|via| format!(" through {via}")).unwrap_or_default();
            explain(format!("routing {to}{via} over {}", link.name), error)
        })
    }

    pub async fn remove_route(&self, link: &Link, entry: &Entry, origin: Origin) -> Result<()> {
        let message = route_message(link.index, entry, origin);
        let to = entry.route.to;
        self.handle.route().del(message).execute().await.map_err(|error| {
            explain(format!("removing the route to {to} over {}", link.name), error)
        })
    }
}

/// Metric of a lease's routes, whoever renews it, now or in the running system. That of the link
/// that the root is behind is the strongest there is: no default route of another link, be it one
/// that comes hours later, must draw packets of the root away. Others have what networkd gives them.
pub fn metric(boots: bool) -> u32 {
    if boots { 0 } else { 1024 }
}

/// The routes of a lease on a link that boots or not, in an order in which the kernel accepts them:
/// it wants to know how to reach a router before it accepts a route through it.
pub fn entries(lease: &Lease, boots: bool) -> Vec<Entry> {
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
        let spare = u32::try_from(same).unwrap_or(u32::MAX);
        let metric = metric(boots).saturating_add(spare);
        entries.push(Entry { route, on_link, metric, from: lease.address });
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
    if origin == Origin::Dhcp {
        builder = builder.pref_source(entry.from);
    }
    if entry.metric > 0 {
        builder = builder.priority(entry.metric);
    }
    let mut message = builder.build();
    if entry.on_link {
        message.header.flags |= RouteFlags::Onlink;
    }
    message
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
        let cases: [(&str, &str, bool, &[&str], &[&str]); 7] = [
            ("a router in the prefix",           "10.0.0.5/24", true, &["0.0.0.0/0 10.0.0.1"],                       &["0.0.0.0/0 10.0.0.1"]),
            ("a router outside it (clouds)",     "10.0.0.5/32", true, &["0.0.0.0/0 10.0.0.1"],                       &["0.0.0.0/0 10.0.0.1 onlink"]),
            ("its own route comes first",        "10.0.0.5/32", true, &["0.0.0.0/0 10.0.0.1", "10.0.0.1/32 -"],      &["10.0.0.1/32 -", "0.0.0.0/0 10.0.0.1"]),
            ("a spare router does not replace",  "10.0.0.5/24", true, &["0.0.0.0/0 10.0.0.1", "0.0.0.0/0 10.0.0.2"], &["0.0.0.0/0 10.0.0.1", "0.0.0.0/0 10.0.0.2 metric 1"]),
            ("the same route twice",             "10.0.0.5/24", true, &["0.0.0.0/0 10.0.0.1", "0.0.0.0/0 10.0.0.1"], &["0.0.0.0/0 10.0.0.1"]),
            ("not the boot's link",              "10.0.0.5/24", false, &["0.0.0.0/0 10.0.0.1"],                      &["0.0.0.0/0 10.0.0.1 metric 1024"]),
            ("none",                             "10.0.0.5/24", true, &[],                                            &[]),
        ];
        for (case, address, boots, routes, expected) in cases {
            let mut lease = lease(address);
            lease.routes = routes.iter().map(|text| route(text)).collect();
            let shown: Vec<String> = entries(&lease, boots).iter().map(|entry| {
                let via = entry.route.via.map_or("-".to_owned(), |via| via.to_string());
                let on_link = if entry.on_link { " onlink" } else { "" };
                let metric = if entry.metric > 0 { format!(" metric {}", entry.metric) } else { String::new() };
                format!("{} {via}{on_link}{metric}", entry.route.to)
            }).collect();
            assert_eq!(shown, expected, "{case}");
        }
    }
}
