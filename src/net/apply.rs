//! Makes the kernel's link what a lease says, from what an earlier one said.
//!
//! The address is what counts: a route that the kernel refuses is a warning. The size of frames is
//! `topology`'s, which knows what is beneath.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv6Net};

use super::description::RouteRequest;
use super::kernel::{self, Entry, Kernel, Link, Origin};
use super::lease6::{Address6, Origin6};
use super::{Lease, Lease6, Route};
use crate::error::Result;

/// Seconds, which the kernel adds to what a server said. Later than our own clock ends a lease: the address is to be kept then, without a gap.
pub const GRACE: u32 = 30;

/// How long the kernel keeps an address that nobody extends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    OfLease,
    Forever,
}

/// What the kernel is told of a lease, or was.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    pub lease: &'a Lease,
    /// The root is behind the link.
    pub boots: bool,
}

/// `old`: what the kernel has been told before.
pub async fn ipv4(
    kernel: &Kernel,
    link: &Link,
    old: Option<Told<'_>>,
    Told { lease, boots }: Told<'_>,
    origin: Origin,
    lifetime: Lifetime,
) -> Result<()> {
    let seconds = match lifetime {
        Lifetime::OfLease => lease.lease_seconds.map(|seconds| seconds.saturating_add(GRACE)),
        Lifetime::Forever => None,
    };
    kernel.set_address(link, lease, seconds).await?;
    if let Some(Told { lease: old, .. }) = old
        && (old.address, old.prefix) != (lease.address, lease.prefix)
    {
        if let Err(error) = kernel.remove_address(link, old.address.into(), old.prefix).await {
            log::debug!(target: "network", "{error}");
        }
        // In the same network the new one was secondary to the old, and went with it.
        kernel.set_address(link, lease, seconds).await?;
    }
    if origin == Origin::Host {
        return Ok(());
    }
    let before = old.map(|old| kernel::entries(old.lease, old.boots)).unwrap_or_default();
    let after = kernel::entries(lease, boots);
    for entry in before.iter().filter(|entry| !after.contains(entry)) {
        if let Err(error) = kernel.remove_route(link, entry, origin).await {
            log::debug!(target: "network", "{error}");
        }
    }
    // All of them, known or not: the kernel drops routes together with an address that expired.
    for entry in &after {
        if let Err(error) = kernel.add_route(link, entry, origin).await {
            log::warn!(target: "network", "{error}");
        }
    }
    Ok(())
}

/// Addresses of DHCPv6, or typed ones. What routers advertise is the kernel's.
pub async fn ipv6(
    kernel: &Kernel,
    link: &Link,
    old: Option<&Lease6>,
    lease: &Lease6,
) -> Result<()> {
    for given in &lease.addresses {
        let seconds = |seconds: Option<u32>| seconds.map(|seconds| seconds.saturating_add(GRACE));
        let given = Address6 { valid_seconds: seconds(given.valid_seconds), ..*given };
        kernel.set_address6(link, &given).await?;
    }
    let old = old.map(|old| old.addresses.as_slice()).unwrap_or_default();
    for gone in
        old.iter().filter(|old| lease.addresses.iter().all(|new| new.address != old.address))
    {
        if let Err(error) = kernel.remove_address(link, gone.address.into(), gone.prefix).await {
            log::debug!(target: "network", "{error}");
        }
    }
    Ok(())
}

/// The router that was typed with an address.
pub async fn router6(kernel: &Kernel, link: &Link, lease: &Lease6, boots: bool) -> Result<()> {
    let Some(gateway) = lease.gateway() else { return Ok(()) };
    let on_link = is_beyond(gateway.into(), &networks6(lease));
    let rank = kernel::metric(boots);
    kernel.add_route6(link, Ipv6Net::default(), Some(gateway), on_link, rank).await
}

/// Networks whose members are neighbours.
pub fn networks6(lease: &Lease6) -> Vec<IpNet> {
    let of_addresses = lease
        .addresses
        .iter()
        .filter(|given| given.prefix < 128)
        .filter_map(|given| Some(IpNet::V6(Ipv6Net::new(given.address, given.prefix).ok()?)));
    let prefixes = lease.prefixes.iter().filter(|prefix| prefix.on_link);
    of_addresses.chain(prefixes.map(|prefix| IpNet::V6(prefix.network))).collect()
}

/// Lets addresses of DHCPv6 outlive their lease.
pub async fn ipv6_forever(kernel: &Kernel, link: &Link, lease: &Lease6) -> Result<()> {
    for given in lease.addresses.iter().filter(|given| given.origin == Origin6::Dhcp) {
        let given = Address6 { preferred_seconds: None, valid_seconds: None, ..*given };
        kernel.set_address6(link, &given).await?;
    }
    Ok(())
}

/// A route that somebody typed: over a link whose networks are these.
pub async fn route(
    kernel: &Kernel,
    link: &Link,
    RouteRequest { to, via, .. }: &RouteRequest,
    networks: &[IpNet],
) -> Result<()> {
    let on_link = via.is_some_and(|via| is_beyond(via, networks));
    let origin = Origin::CommandLine;
    match (*to, *via) {
        (IpNet::V4(to), None) => {
            let route = Route { to, via: None };
            kernel.add_route(link, &entry(route, on_link), origin).await
        }
        (IpNet::V4(to), Some(IpAddr::V4(via))) => {
            let route = Route { to, via: Some(via) };
            kernel.add_route(link, &entry(route, on_link), origin).await
        }
        (IpNet::V6(to), None) => kernel.add_route6(link, to, None, false, 0).await,
        (IpNet::V6(to), Some(IpAddr::V6(via))) => {
            kernel.add_route6(link, to, Some(via), on_link, 0).await
        }
        // The grammar lets no such route pass.
        (IpNet::V4(_), Some(IpAddr::V6(_))) | (IpNet::V6(_), Some(IpAddr::V4(_))) => Ok(()),
    }
}

/// Nobody's but the operator's, who wants it whatever addresses come and go.
fn entry(route: Route, on_link: bool) -> Entry {
    Entry { route, on_link, metric: 0, from: Ipv4Addr::UNSPECIFIED }
}

/// Whether a router is a neighbour only because somebody says so.
fn is_beyond(via: IpAddr, networks: &[IpNet]) -> bool {
    let is_of_link = matches!(via, IpAddr::V6(via) if via.is_unicast_link_local());
    !is_of_link && !networks.iter().any(|network| network.contains(&via))
}
