//! By what the servers of the root are reached, and whether something that routers lend the machine is
//! needed for it. Pure.
//!
//! Lent is what ends by itself unless a router, or software that listens to routers, prolongs it: routes
//! of advertisements, and IPv6 addresses and routes with a lifetime. What DHCP gave has none under the
//! root (see the head of `network`).

use std::net::IpAddr;

use ipnet::IpNet;

use super::heal::World;
use crate::net::kernel::{FROM_ROUTER, HeldAddress, HeldRoute};

pub fn is_lent_route(route: &HeldRoute) -> bool {
    let is_ipv6 = matches!(route.to, IpNet::V6(_));
    is_ipv6 && (route.protocol == FROM_ROUTER || route.expires_seconds.is_some())
}

pub fn is_lent_address(held: &HeldAddress) -> bool {
    held.address.is_ipv6() && held.valid_seconds.is_some()
}

/// Whether packets to a server would take this route, which is not there, and no other does the same.
/// `wanted`: all that should be there.
pub fn needs_route(
    world: &World,
    wanted: &[HeldRoute],
    route: &HeldRoute,
    servers: &[IpAddr],
) -> bool {
    let length = |route: &HeldRoute| route.to.prefix_len();
    servers.iter().filter(|server| route.to.contains(*server)).any(|server| {
        let all = world.routes.iter().chain(wanted);
        let best = all.filter(|other| other.to.contains(server)).map(length).max();
        let is_there = world
            .routes
            .iter()
            .any(|other| other.to.contains(server) && length(other) == length(route));
        best.is_none_or(|best| best <= length(route)) && !is_there
    })
}

/// Whether servers are reached from this address, which is not there, and from no other of its link.
pub fn needs_address(world: &World, held: &HeldAddress, servers: &[IpAddr]) -> bool {
    let is_same_family = |address: &IpAddr| address.is_ipv4() == held.address.is_ipv4();
    servers.iter().any(is_same_family)
        && !world.addresses.iter().any(|other| {
            other.on == held.on
                && other.address != held.address
                && !other.is_duplicate
                && is_same_family(&other.address)
                && reaches(world, other, servers)
        })
}

pub fn is_in_the_network_of(held: &HeldAddress, other: &HeldAddress) -> bool {
    let network = IpNet::new(held.address, held.prefix);
    network.is_ok_and(|network| network.contains(&other.address))
}

/// Whether all servers of the address's family are reached from it.
pub fn reaches(world: &World, from: &HeldAddress, servers: &[IpAddr]) -> bool {
    let is_neighbour =
        |server: &IpAddr| is_in_the_network_of(from, &HeldAddress { address: *server, ..*from });
    let by_route = |server: &IpAddr| {
        world.routes.iter().any(|route| {
            route.on == from.on
                && route.to.contains(server)
                && route.from.is_none_or(|source| source == from.address)
        })
    };
    servers
        .iter()
        .filter(|server| server.is_ipv4() == from.address.is_ipv4())
        .all(|server| is_neighbour(server) || by_route(server))
}
