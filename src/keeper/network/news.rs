//! What the DHCP clients tell of the leases that the keeper renews, in the operator's words and in
//! `lease.json`.

use std::net::{IpAddr, Ipv4Addr};

use super::heal::World;
use super::lease::{Terms, Watched};
use super::rival::{self, Finding};
use super::status::NetworkStatus;
use super::{Keeping, Number, files};
use crate::net::kernel::HeldAddress;
use crate::net::{Lease, LeaseFile, Mac, Route, dhcp, dhcp6};

impl<T: FnMut(NetworkStatus)> Keeping<T> {
    pub(super) async fn heard_lease(&mut self, number: Number, report: dhcp::Report) {
        if self.leases.get(number).is_none_or(Watched::is_let_go) {
            return;
        }
        let news = match report {
            dhcp::Report::News(news) => news,
            dhcp::Report::Sent(_) => return,
            dhcp::Report::Deaf(error) => return self.trouble(number, error.to_string()),
        };
        use dhcp::News;
        if matches!(news, News::Refused { .. } | News::Expired) {
            self.search_rival(number);
        }
        let what = match news {
            News::Granted(lease) | News::Extended(lease) => {
                return self.extended(number, *lease).await;
            }
            News::Refused { server, words } => {
                let words = words.map(|words| format!(": {words}")).unwrap_or_default();
                format!("{} takes the lease back{words}", dhcp::who(server))
            }
            News::Expired => "the lease has ended and no server extends it".to_owned(),
            News::Unusable { server, why } => {
                format!("the answer of {} is of no use: {why}", dhcp::who(server))
            }
            News::Unanswered { server } => {
                format!("{} offers the address and then falls silent", dhcp::who(server))
            }
            News::Conflict { by, .. } => format!("{by} has the address as well"),
            News::Weighed(_) | News::Held(_) | News::Accepted(_) | News::BootServer { .. } => {
                return;
            }
        };
        self.trouble(number, what);
    }

    /// No server holds the address for us any more: has one given it to somebody else?
    fn search_rival(&mut self, number: Number) {
        let Some(lease) = self.leases.get_mut(number) else { return };
        let (Some(IpAddr::V4(address)), Terms::Ipv4(orders)) = (lease.address(), &lease.terms)
        else {
            return;
        };
        let nobody = rival::nobodys(&orders.lease);
        let Some(link) = self.world.links.iter().find(|link| link.index == lease.index) else {
            return;
        };
        let own = rival::own_macs(&self.world.links);
        let outbox = self.outbox.clone();
        lease.search.begin(number, (link.index, link.mac), own, (address, nobody), outbox);
    }

    /// Whether the root hangs on this lease, still.
    fn is_needed(&self, number: Number) -> bool {
        (self.is_streamed)() && self.leases.get(number).is_some_and(|lease| lease.carries_root)
    }

    pub(super) fn heard_claim(&mut self, number: Number, by: Option<Mac>) {
        let is_needed = self.is_needed(number);
        let Some(lease) = self.leases.get_mut(number) else { return };
        let address = lease.address().map(|one| one.to_string()).unwrap_or_default();
        match lease.search.heard(by) {
            Finding::Same => return,
            Finding::Rival(by) => log::error!(
                target: "network",
                "{}: {address} IS ALSO AT {by}: no server holds it for this machine any more, and \
                 both are disturbed until one of them restarts{}",
                lease.name,
                if is_needed { "; it stays here because the root hangs on it" } else { "" }
            ),
            Finding::Gone => log::info!(
                target: "network",
                "{}: nobody else has {address} any more",
                lease.name
            ),
        }
        self.report();
    }

    pub(super) fn heard_lease6(&mut self, number: Number, report: dhcp6::Report) {
        if self.leases.get(number).is_none_or(Watched::is_let_go) {
            return;
        }
        let news = match report {
            dhcp6::Report::News(news) => news,
            dhcp6::Report::Sent(_) => return,
            dhcp6::Report::Deaf(error) => return self.trouble(number, error.to_string()),
        };
        use dhcp6::News;
        let what = match news {
            News::Granted(lease) | News::Extended(lease) => {
                let Some(watched) = self.leases.get_mut(number) else { return };
                watched.extended6(*lease.clone());
                say_extended(watched);
                self.note_lease(number, |leases| {
                    for held in leases.ipv6.iter_mut().flat_map(|lease| &mut lease.addresses) {
                        let renewed =
                            lease.addresses.iter().find(|one| one.address == held.address);
                        *held = renewed.copied().unwrap_or(*held);
                    }
                });
                return self.report();
            }
            News::Refused { server, why } => {
                format!("DHCPv6 server {server} does not grant what it offered: {why}")
            }
            News::Withdrawn { server, why } => {
                format!("DHCPv6 server {server} takes the addresses back: {why}")
            }
            News::Unusable { server, why } => {
                format!("the answer of DHCPv6 server {server} is of no use: {why}")
            }
            News::Expired => "the DHCPv6 lease has ended and no server extends it".to_owned(),
            News::Declined(_) | News::Accepted(_) | News::Informed(_) => return,
        };
        self.trouble(number, what);
    }

    pub(super) fn trouble(&mut self, number: Number, what: String) {
        let is_needed = self.is_needed(number);
        let Some(lease) = self.leases.get_mut(number) else { return };
        if lease.is_new_trouble(&what) {
            let address = lease.address().map(|one| one.to_string()).unwrap_or_default();
            log::warn!(
                target: "network",
                "{}: {what}; {address} stays{}, and servers are asked again",
                lease.name,
                if is_needed { " because the root hangs on it" } else { "" }
            );
            self.report();
        }
    }

    pub(super) async fn extended(&mut self, number: Number, mut lease: Lease) {
        let is_needed = self.is_needed(number);
        let Some(watched) = self.leases.get_mut(number) else { return };
        if let (true, Terms::Ipv4(orders)) = (is_needed, &watched.terms) {
            for (server, route) in keep_ways(&orders.lease, &mut lease, &self.orders.servers) {
                let via = route.via.map(|router| format!(" by {router}")).unwrap_or_default();
                log::warn!(
                    target: "network",
                    "{}: the lease of {} has lost its way to {server}; that{via} stays because the \
                     root hangs on it",
                    watched.name,
                    lease.address
                );
            }
        }
        let Some(before) = watched.extended(lease.clone()) else { return };
        let (index, boots) = (watched.index, watched.carries_root);
        say_extended(watched);
        self.change_routes(index, (&before, &lease), boots).await;
        self.note_lease(number, |leases| leases.ipv4 = Some(lease));
        self.report();
    }

    /// `/run/landfall/lease.json` says what is true now.
    pub(super) fn note_lease(
        &mut self,
        number: Number,
        change: impl FnOnce(&mut crate::net::Leases),
    ) {
        let is_in_file = self.leases.get(number).is_some_and(|lease| lease.is_in_file);
        let Some(file) = self.lease_file.as_mut().filter(|_| is_in_file) else { return };
        change(&mut file.leases);
        if let Err(error) = files::replace_at(self.place.run, LeaseFile::PATH, &file.text()) {
            log::warn!(target: "network", "{error}");
        }
    }
}

/// What leads to a server of the root stays where the new routes, or the network itself, do not: all
/// that is kept, with the server that it is kept for. A server that forgets an option takes no roots
/// away.
fn keep_ways(old: &Lease, new: &mut Lease, servers: &[IpAddr]) -> Vec<(Ipv4Addr, Route)> {
    let mut kept = Vec::new();
    for server in servers {
        let IpAddr::V4(server) = *server else { continue };
        let leads = |route: &&Route| route.to.contains(&server);
        if new.network().contains(&server) || new.routes.iter().any(|route| leads(&route)) {
            continue;
        }
        let ways: Vec<Route> = old.routes.iter().filter(leads).copied().collect();
        // The way to their routers, where a route of its own is that.
        let to_router = |route: &&Route| {
            let routers = ways.iter().filter_map(|way| way.via);
            route.via.is_none() && routers.into_iter().any(|router| route.to.contains(&router))
        };
        let to_routers = old.routes.iter().filter(to_router).copied();
        for route in to_routers.chain(ways.iter().copied()) {
            if !new.routes.contains(&route) {
                new.routes.push(route);
                kept.push((server, route));
            }
        }
    }
    kept
}

pub(super) fn say_aside(lease: &Watched) {
    let address = lease.address().map(|address| address.to_string()).unwrap_or_default();
    log::info!(
        target: "network",
        "{}: somebody in the running system renews the lease of {address}; it is left to them",
        lease.name
    );
}

pub(super) fn say_let_go(lease: &Watched, world: &World) {
    let Some(address) = lease.address() else { return };
    // The kernel makes fe80::… itself.
    let is_another = |held: &&HeldAddress| {
        let is_of_link = matches!(held.address, IpAddr::V6(ipv6) if ipv6.is_unicast_link_local());
        held.on == lease.index && held.address.is_ipv4() == address.is_ipv4() && !is_of_link
    };
    let another = world.addresses.iter().find(is_another);
    let another = another.map(|held| format!(" but {}", held.address)).unwrap_or_default();
    log::info!(
        target: "network",
        "{}: the machine does not have {address} any more{another}: its lease is not renewed here and \
         ends by itself",
        lease.name
    );
}

/// The first renewal, and one after trouble, are worth a line for everybody.
pub(super) fn say_extended(lease: &mut Watched) {
    let address = lease.address().map(|address| address.to_string()).unwrap_or_default();
    let seconds = lease.terms.lasts().unwrap_or_default();
    let words = format!("{}: the lease of {address} goes on for {seconds} s", lease.name);
    match lease.trouble.take().is_some() || lease.renewals == 1 {
        true => log::info!(target: "network", "{words}"),
        false => log::debug!(target: "network", "{words}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn a_server_that_forgets_its_routes_takes_no_root_away() {
        let route = |to: &str, via: Option<&str>| Route {
            to: to.parse().unwrap(),
            via: via.map(|via| via.parse().unwrap()),
        };
        let by = |to, via| route(to, Some(via));
        let default = by("0.0.0.0/0", "10.0.0.1");
        let other = by("0.0.0.0/0", "10.0.0.2");
        let narrow = by("10.8.0.0/16", "10.0.0.3");
        let (far, its_router) = (by("0.0.0.0/0", "10.7.0.1"), route("10.7.0.1/32", None));
        let cases = [
            ("nothing is forgotten",       vec![default],             vec![default], "10.8.0.1",  vec![default]),
            ("the router",                 vec![default],             vec![],        "10.8.0.1",  vec![default]),
            ("and one without its link",   vec![its_router, far],     vec![],        "10.8.0.1",  vec![its_router, far]),
            ("another router instead",     vec![default],             vec![other],   "10.8.0.1",  vec![other]),
            ("one for that server alone",  vec![default],             vec![narrow],  "10.8.0.1",  vec![narrow]),
            ("and not for this one",       vec![default],             vec![narrow],  "10.9.0.1",  vec![narrow, default]),
            ("a server among neighbours",  vec![default],             vec![],        "10.0.0.9",  vec![]),
            ("there has never been a way", vec![],                    vec![],        "10.8.0.1",  vec![]),
            ("of another family",          vec![default],             vec![],        "fe80::1",   vec![]),
        ];
        for (case, before, after, server, expected) in cases {
            let lease = |routes: Vec<Route>| Lease {
                routes,
                ..Lease::of_address("10.0.0.5".parse().unwrap(), 24)
            };
            let mut new = lease(after);
            keep_ways(&lease(before), &mut new, &[server.parse().unwrap()]);
            assert_eq!(new.routes, expected, "{case}");
        }
    }
}
