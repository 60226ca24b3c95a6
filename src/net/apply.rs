//! Makes the kernel's link what a lease says, from what an earlier one said.
//!
//! The address is what counts: a route or MTU that the kernel refuses is a warning.

use std::net::IpAddr;

use ipnet::IpNet;

use super::description::Description;
use super::kernel::{self, Entry, Kernel, Link, Origin};
use super::lease6::{Address6, Origin6};
use super::{Lease, Lease6, Route};
use crate::error::Result;

/// Seconds. Later than our own clock ends a lease: the address is to be kept then, without a gap.
const GRACE: u32 = 30;

/// How long the kernel keeps an address that nobody extends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    OfLease,
    Forever,
}

/// How a lease is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    pub origin: Origin,
    pub lifetime: Lifetime,
    /// The root is behind this link.
    pub boots: bool,
}

/// `old`: what the kernel has been told before.
pub async fn ipv4(
    kernel: &Kernel,
    link: &Link,
    old: Option<&Lease>,
    lease: &Lease,
    manner: Manner,
) -> Result<()> {
    let Manner { origin, lifetime, boots } = manner;
    // Before the first connection, which would otherwise begin with a size that does not fit.
    if let Some(mtu) = lease.mtu
        && old.and_then(|old| old.mtu) != Some(mtu)
        && link.mtu != u32::from(mtu)
        && let Err(error) = kernel.set_mtu(link, mtu.into()).await
    {
        log::warn!(target: "network", "{error}");
    }
    let seconds = match lifetime {
        Lifetime::OfLease => lease.lease_seconds.map(|seconds| seconds.saturating_add(GRACE)),
        Lifetime::Forever => None,
    };
    kernel.set_address(link, lease, seconds).await?;
    if let Some(old) = old
        && (old.address, old.prefix) != (lease.address, lease.prefix)
    {
        if let Err(error) = kernel.remove_address(link, old.address, old.prefix).await {
            log::debug!(target: "network", "{error}");
        }
        // In the same network the new one was secondary to the old, and went with it.
        kernel.set_address(link, lease, seconds).await?;
    }
    if origin == Origin::Host {
        return Ok(());
    }
    let of = |lease| kernel::entries(lease, boots);
    let (before, after) = (old.map(of).unwrap_or_default(), of(lease));
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

/// Addresses of DHCPv6, or typed ones with their router. What routers advertise is the kernel's.
pub async fn ipv6(
    kernel: &Kernel,
    link: &Link,
    old: Option<&Lease6>,
    lease: &Lease6,
    origin: Origin,
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
        if let Err(error) = kernel.remove_address6(link, gone.address, gone.prefix).await {
            log::debug!(target: "network", "{error}");
        }
    }
    if origin == Origin::CommandLine
        && let Some(gateway) = lease.gateway()
        && let Err(error) =
            kernel.add_route6(link, ipnet::Ipv6Net::default(), Some(gateway), origin).await
    {
        log::warn!(target: "network", "{error}");
    }
    Ok(())
}

/// Lets addresses of DHCPv6 outlive their lease.
pub async fn ipv6_forever(kernel: &Kernel, link: &Link, lease: &Lease6) -> Result<()> {
    for given in lease.addresses.iter().filter(|given| given.origin == Origin6::Dhcp) {
        let given = Address6 { preferred_seconds: None, valid_seconds: None, ..*given };
        kernel.set_address6(link, &given).await?;
    }
    Ok(())
}

/// Routes of `rd.route=` that go over this link: those that name it, and those whose gateway is in
/// its network.
pub async fn routes(kernel: &Kernel, link: &Link, wanted: &Description, lease: &Lease) {
    for route in &wanted.routes {
        let is_meant = match (&route.on, route.via) {
            (Some(name), _) => *name == link.name,
            (None, Some(IpAddr::V4(via))) => lease.network().contains(&via),
            (None, _) => false,
        };
        if !is_meant {
            continue;
        }
        let done = match (route.to, route.via) {
            (IpNet::V4(to), None) => add(kernel, link, Route { to, via: None }, lease).await,
            (IpNet::V4(to), Some(IpAddr::V4(via))) => {
                add(kernel, link, Route { to, via: Some(via) }, lease).await
            }
            (IpNet::V6(to), None) => kernel.add_route6(link, to, None, Origin::CommandLine).await,
            (IpNet::V6(to), Some(IpAddr::V6(via))) => {
                kernel.add_route6(link, to, Some(via), Origin::CommandLine).await
            }
            // The grammar lets no such route pass.
            _ => Ok(()),
        };
        if let Err(error) = done {
            log::warn!(target: "network", "{error}");
        }
    }
}

async fn add(kernel: &Kernel, link: &Link, route: Route, lease: &Lease) -> Result<()> {
    let on_link = route.via.is_some_and(|via| !lease.network().contains(&via));
    let entry = Entry { route, on_link, metric: 0, from: lease.address };
    kernel.add_route(link, &entry, Origin::CommandLine).await
}
