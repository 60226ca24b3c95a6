//! The network stage: takes a [`NetworkPlan`], gives a [`Network`], which is the proof that one
//! link has an address.
//!
//! ```text
//! plan ──> worker: one thread, one tokio runtime, until the handover
//!            desk      where all events meet
//!              kernel    links, addresses, routes: what netlink says and is told
//!              topology  bonds, VLANs, bridges and names that were described, step by step
//!              link      which links take part; what to tell the operator about the others
//!              port      what is asked on a link, and how far each family has got
//!              dhcp, ra, dhcp6   on each link with carrier, all at the same time
//!              adopt     links that somebody configured before us
//!              choice    which of the leases
//!              apply     the kernel's links as the leases say
//!        ──> Network ──> dns (names), dial (connections), keep (files for the running system)
//! ```
//!
//! Deciding is pure (`topology`, `link`, `choice`, the clients, `keep`'s renderers), and `desk` is
//! where events of links, clients and callers meet.
//!
//! It waits for ever, visibly, for what may still come: a driver, a cable, a server. It fails for
//! what only a person can mend. It never gives a lease back and never runs a program. Links that
//! lose are set down again unless somebody else had set them up, and an address that somebody else
//! has given a link stays the machine's.

mod adopt;
mod apply;
pub mod arp;
pub mod bond;
mod choice;
pub mod configured;
pub mod description;
mod desk;
pub mod dhcp;
pub mod dhcp6;
pub mod dial;
mod dice;
pub mod dns;
pub mod duid;
mod identity;
mod keep;
pub mod kernel;
pub mod lease;
pub mod lease6;
mod link;
mod mac;
mod names;
#[cfg(test)]
mod namespaces;
mod plan;
mod port;
pub mod ra;
#[cfg(test)]
mod real_kept;
#[cfg(test)]
mod real_links;
#[cfg(test)]
mod real_links6;
mod topology;
mod unready;
mod worker;

use std::net::IpAddr;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

pub use keep::{Left, Renewer, Renewers, RunFile, Wishes};
pub use lease::{Lease, LeaseFile, Leases, Route};
pub use lease6::Lease6;
pub use mac::{HardwareAddress, Mac};
pub use plan::NetworkPlan;
pub use port::{AbortOnDrop, Family};

use crate::directives::View;
use crate::error::Result;
use crate::keeper::network::orders::{Heal, NetworkOrders};
use configured::{Composition, Configured};
use description::{AddressRequest, HandoverMode, RouteRequest};
use dial::Literal;
use dns::Resolver;
use keep::{Inheritance, Kept};
use kernel::Origin;
use worker::Worker;

/// How long links that the configuration describes may take to bring an address: an aggregate whose
/// switch speaks every 30 s gets two chances.
const PATIENCE_WITH_SETTINGS: Duration = Duration::from_secs(75);

/// A configured link. Its leases are renewed in the background until [`Network::stop`].
#[derive(Debug)]
pub struct Network {
    boot: Configured,
    leases: Leases,
    /// What was typed for this link comes first in it.
    plan: NetworkPlan,
    worker: Worker,
    /// Who goes on with the leases, and how, once that has been arranged.
    heirs: OnceLock<(Renewers, HandoverMode)>,
}

/// Waits until one link is configured. `Err` only for what waiting cannot cure: a kernel without
/// netlink, or a static address that the kernel refuses.
pub fn bring_up(plan: &NetworkPlan) -> Result<Network> {
    bring_up_within(plan, None)
}

fn bring_up_within(plan: &NetworkPlan, patience: Option<Duration>) -> Result<Network> {
    let (worker, boot) = Worker::start(plan, patience)?;
    let mut plan = plan.clone();
    if let Some(request) = boot.request.clone() {
        // What was typed for this link counts more than what was typed for another.
        plan.boot_server = request.server.or(plan.boot_server);
        plan.hostname = request.hostname.or(plan.hostname);
        plan.dns = joined(&request.dns, &plan.dns);
        plan.ntp = joined(&request.ntp, &plan.ntp);
    }
    let leases = Leases { ipv4: boot.ipv4.clone(), ipv6: boot.ipv6.clone() };
    let network = Network { boot, leases, plan, worker, heirs: OnceLock::new() };
    log::info!(target: "network", "{}", network.summary());
    Ok(network)
}

/// Kernel modules that the links of this plan need, with their options.
pub fn modules(plan: &NetworkPlan) -> Vec<(&'static str, &'static [(&'static str, &'static str)])> {
    topology::modules(&plan.description)
}

impl Network {
    pub fn plan(&self) -> &NetworkPlan {
        &self.plan
    }

    /// The network of this plan in place of the one that there is. A link that stays keeps its
    /// address; one that becomes a part of another gives it to that, by the same lease. When the new
    /// one brings no address in time, the old one it is again, with a warning: a mistake in a
    /// configuration must not keep a thousand machines from reading its correction.
    ///
    /// # Errors
    /// As [`bring_up`].
    pub fn rebuilt(self, plan: &NetworkPlan) -> Result<Self> {
        log::info!(target: "network", "the configuration describes other links (NET_*)");
        let (before, mut old) = (self.leases.clone(), self.plan.clone());
        let mut plan = plan.clone();
        // What is made of the port that has booted has its address, and with it the lease.
        let booted = self.boot.permanent_mac.unwrap_or(self.boot.mac);
        plan.description.bootif = plan.description.bootif.or(Some(booted));
        old.description.bootif = old.description.bootif.or(Some(booted));
        self.stop();
        let mut network = match bring_up_within(&plan, Some(PATIENCE_WITH_SETTINGS)) {
            Err(error) => {
                log::warn!(target: "network", "NET_*: {error}; the network is again what it was");
                bring_up(&old)?
            }
            Ok(network) => network,
        };
        network.leases.remember(&before);
        Ok(network)
    }

    /// Name in the initramfs; the running system's udev may choose another.
    pub fn link(&self) -> &str {
        &self.boot.name
    }

    pub fn mac(&self) -> Mac {
        self.boot.mac
    }

    /// As they were granted; a later renewal is not reflected here.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Whom to ask for everything that nobody has placed elsewhere, name or address: `ip=`, option
    /// 66, `siaddr`, `sname`, and at last the DHCP server itself.
    pub fn boot_server(&self) -> Option<String> {
        boot_server(&self.plan, &self.leases)
    }

    /// Whether `ip=` or the lease speaks of booting, and [`Self::boot_server`] is more than a guess.
    pub fn names_a_boot_server(&self) -> bool {
        self.plan.boot_server.is_some() || self.leases.speak_of_booting()
    }

    /// The machine's name: `ip=` first, then the lease.
    pub fn hostname(&self) -> Option<&str> {
        self.plan.hostname.as_deref().or(self.leases.hostname())
    }

    /// Those that were typed, then those of the leases, which may have become more since.
    pub fn dns(&self) -> Vec<IpAddr> {
        self.dns_of(&self.leases_of_now())
    }

    fn dns_of(&self, leases: &Leases) -> Vec<IpAddr> {
        let theirs = if self.plan.description.ignore_peer_dns { Vec::new() } else { leases.dns() };
        joined(&joined(&self.plan.dns, &self.plan.description.dns), &theirs)
    }

    /// The second family may have come after the link was chosen.
    fn leases_of_now(&self) -> Leases {
        let described = self.worker.describe().unwrap_or_default();
        let now = described.into_iter().find(|configured| configured.boots);
        now.map_or_else(
            || self.leases.clone(),
            |now| Leases { ipv4: now.ipv4.or(self.leases.ipv4.clone()), ipv6: now.ipv6 },
        )
    }

    /// Addresses of `host`, at least one. A failure that [`crate::error::Error::is_transient`] is
    /// worth another call; each takes at most some 20 s.
    pub fn resolve(&self, host: &str) -> Result<Vec<IpAddr>> {
        // A router may name a server of the link alone (RFC 8106 section 5.1).
        let at = |server| scoped(server, self.link()).at(dns::PORT).ok();
        let leases = self.leases_of_now();
        let servers = self.dns_of(&leases).into_iter().filter_map(at).collect();
        let resolver = Resolver { servers, search: leases.search() };
        resolver.look_up(host, Path::new("/etc/hosts"))
    }

    /// What LTSP's scripts and klibc's `ipconfig` called these values; only those that are known.
    pub fn variables(&self) -> Vec<(String, String)> {
        // A number, because the running system may give the link another name.
        let index = keep::index(self.link()).map(|index| index.to_string());
        let scope = index.as_deref().unwrap_or(self.link());
        variables(self.link(), scope, self.mac(), self.boot.origin, &self.plan, &self.leases)
    }

    /// Lets the addresses outlive their leases: one that the root hangs on must not end by itself,
    /// be it that its server is away, or that the keeper is, which renews what nobody else does.
    /// Whoever renews one in the running system sets its lifetime again; NetworkManager takes an
    /// address without an end for one that somebody typed.
    pub fn make_permanent(&self) -> Result<()> {
        let (renewers, _) = self.heirs.get().copied().unwrap_or_default();
        self.worker.make_permanent(renewers)
    }

    /// What the keeper has to know in order to keep all this, as of now: after
    /// [`Self::make_permanent`], before [`Self::stop`]. `servers`: those of the root.
    pub fn orders(&self, servers: Vec<IpAddr>, heal: Heal) -> Result<NetworkOrders> {
        let (renewers, mode) = self.heirs.get().copied().unwrap_or_default();
        let links = self.worker.orders()?;
        let lease_file = keep::lease_of_root(&self.worker.describe()?, &self.plan);
        Ok(NetworkOrders { mode, heal, servers, renewers, links, lease_file })
    }

    /// Leaves the files with which the link survives in the running system, whose root is at
    /// `new_root`. What cannot be written is a warning: a link that may be lost later is no reason
    /// not to boot.
    pub fn leave_to(&self, new_root: &Path, wishes: Wishes<'_>, mode: HandoverMode) {
        let links = self.worker.describe().unwrap_or_else(|error| {
            log::debug!(target: "network", "{error}");
            vec![self.boot.clone()]
        });
        let inheritance = Inheritance {
            links: &links,
            index: &keep::index,
            plan: &self.plan,
            ignore_peer_dns: self.plan.description.ignore_peer_dns,
            mode,
            wishes,
        };
        match keep::write(&inheritance, new_root, Path::new("/run")) {
            Ok(Kept { renewers, files }) => {
                log::debug!(target: "network", "left for the running system: {}", files.join(" "));
                // Once in a boot; a second call would say the same.
                let _ = self.heirs.set((renewers, mode));
                let ipv4 = self.leases.ipv4.as_ref();
                let ipv4 =
                    ipv4.and_then(|lease| Some((lease.address.into(), lease.lease_seconds?)));
                let ipv6 = self.leases.ipv6.as_ref().and_then(Lease6::leased);
                let ipv6 = ipv6.and_then(|one| Some((one.address.into(), one.valid_seconds?)));
                let left: [(Renewer, Option<(IpAddr, u32)>); 2] =
                    [(renewers.ipv4, ipv4), (renewers.ipv6, ipv6)];
                let alone = left.into_iter().filter(|(renewer, _)| *renewer == Renewer::Nobody);
                for (address, seconds) in alone.filter_map(|(_, lasts)| lasts) {
                    log::info!(
                        target: "network",
                        "nobody in this root renews the lease of {seconds} s: {address} stays on {} \
                         beyond its end",
                        self.link()
                    );
                }
            }
            Err(error) => log::warn!(target: "network", "{error}; the link may be lost later"),
        }
    }

    /// Ends the renewal and frees the DHCP port for the running system. The link stays configured,
    /// and the lease is not released: a disk hangs on it.
    pub fn stop(self) {
        self.worker.stop();
    }

    fn summary(&self) -> String {
        let ipv4 = self.leases.ipv4.as_ref().map(|lease| {
            let Lease { address, prefix, lease_seconds, server_id, .. } = lease;
            let through = lease.gateway().map(|gateway| format!(" through {gateway}"));
            let text = format!("{address}/{prefix}{}", through.unwrap_or_default());
            let lasts = match (self.boot.origin, lease_seconds) {
                (Origin::CommandLine, _) => return format!("{text}, as ip= says"),
                (Origin::Host, _) => return format!("{text}, as it was found"),
                (Origin::Dhcp, Some(seconds)) => format!("lease of {seconds} s"),
                (Origin::Dhcp, None) => "lease for ever".to_owned(),
            };
            let from = server_id.map(|server| format!(" from {server}")).unwrap_or_default();
            format!("{text}, {lasts}{from}")
        });
        let ipv6 = self.leases.ipv6.as_ref().and_then(|lease| {
            let given = lease.address()?;
            let through = lease.gateway().map(|gateway| format!(" through {gateway}"));
            Some(format!("{}/{}{}", given.address, given.prefix, through.unwrap_or_default()))
        });
        let both: Vec<_> = [ipv4, ipv6].into_iter().flatten().collect();
        format!("{} is {}", self.link(), both.join(", and "))
    }
}

/// What [`Network::leave_to`] would leave to a root that looks like `view`, with a lease that was
/// read, not fetched. `origin`: of its IPv4 address.
pub fn left_files(
    link: &str,
    mac: Mac,
    origin: Origin,
    plan: &NetworkPlan,
    leases: &Leases,
    wishes: Wishes<'_>,
    view: &dyn View,
) -> Left {
    let description = &plan.description;
    let request = description.boot_request().cloned().unwrap_or_else(AddressRequest::any);
    let is_over_it = |route: &&RouteRequest| route.on.as_deref().is_none_or(|on| on == link);
    let routes = description.routes.iter().filter(is_over_it).cloned().collect();
    let link = Configured {
        name: link.to_owned(),
        mac,
        permanent_mac: None,
        composition: Composition::Port,
        master: None,
        mtu: leases.ipv4.as_ref().and_then(|lease| lease.mtu).map(u32::from),
        request: Some(request),
        ipv4: leases.ipv4.clone(),
        origin,
        ipv6: leases.ipv6.clone(),
        routes,
        boots: true,
    };
    let inheritance = Inheritance {
        links: &[link],
        index: &|_| None,
        plan,
        ignore_peer_dns: plan.description.ignore_peer_dns,
        mode: plan.handover,
        wishes,
    };
    keep::foresee(&inheritance, view)
}

/// [`Network::boot_server`] of leases that were read, not fetched.
pub fn boot_server(plan: &NetworkPlan, leases: &Leases) -> Option<String> {
    plan.boot_server.clone().or_else(|| leases.boot_server())
}

fn joined(first: &[IpAddr], then: &[IpAddr]) -> Vec<IpAddr> {
    let mut all = Vec::new();
    for address in first.iter().chain(then) {
        if !all.contains(address) {
            all.push(*address);
        }
    }
    all
}

/// With its link, if it means nothing without.
fn scoped(address: IpAddr, link: &str) -> Literal {
    let is_of_link = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    Literal { address, link: is_of_link.then(|| link.to_owned()) }
}

/// [`Network::variables`] of leases that were read, not fetched. `scope` is the link's name or number,
/// for addresses that mean nothing without; `origin` is that of the IPv4 address.
pub fn variables(
    link: &str,
    scope: &str,
    mac: Mac,
    origin: Origin,
    plan: &NetworkPlan,
    leases: &Leases,
) -> Vec<(String, String)> {
    let words = |addresses: &[IpAddr]| {
        addresses.iter().map(|one| scoped(*one, scope).to_string()).collect::<Vec<_>>().join(" ")
    };
    let dns = joined(&plan.dns, &leases.dns());
    let mut ntp = words(&joined(&plan.ntp, &leases.ntp()));
    // DHCPv6 may know a time server by its name alone (RFC 5908).
    for name in leases.ipv6.iter().flat_map(|lease| &lease.ntp_names) {
        ntp = format!("{ntp} {name}").trim_start().to_owned();
    }
    let search = leases.search().join(" ");
    let hostname = plan.hostname.as_deref().or(leases.hostname());
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let is_dhcp = origin == Origin::Dhcp;
    // klibc's word for "by hand", which cloud-init checks.
    let proto = if is_dhcp { "dhcp" } else { "none" };
    let ipv4 = leases.ipv4.as_ref();
    let of_ipv4 =
        |value: &dyn Fn(&Lease) -> Option<String>| ipv4.and_then(value).unwrap_or_default();
    let of_ipv6 = |value: &dyn Fn(&Lease6) -> Option<String>| {
        leases.ipv6.as_ref().and_then(value).unwrap_or_default()
    };
    let nth = |index: usize| {
        let mut servers = dns.iter().filter(|server| server.is_ipv4());
        servers.nth(index).map(ToString::to_string).unwrap_or_default()
    };
    let first_of_ipv6 = dns.iter().find(|server| server.is_ipv6());
    let first_of_ipv6 = first_of_ipv6.map(|server| scoped(*server, scope).to_string());
    let broadcast = |lease: &Lease| lease.broadcast.unwrap_or_else(|| lease.network().broadcast());
    let all = [
        ("DEVICE", link.to_owned()),
        ("PROTO", of_ipv4(&|_| Some(proto.to_owned()))),
        ("IPV4ADDR", of_ipv4(&|lease| Some(lease.address.to_string()))),
        ("IPV4BROADCAST", of_ipv4(&|lease| Some(broadcast(lease).to_string()))),
        ("IPV4NETMASK", of_ipv4(&|lease| Some(lease.network().netmask().to_string()))),
        ("IPV4GATEWAY", of_ipv4(&|lease| Some(lease.gateway()?.to_string()))),
        ("IPV4DNS0", nth(0)),
        ("IPV4DNS1", nth(1)),
        // The names of Ubuntu's initramfs-tools.
        ("IPV6PROTO", of_ipv6(&|lease| Some(lease.address()?.origin.klibc().to_owned()))),
        ("IPV6ADDR", of_ipv6(&|lease| Some(lease.address()?.address.to_string()))),
        ("IPV6NETMASK", of_ipv6(&|lease| Some(lease.address()?.prefix.to_string()))),
        ("IPV6GATEWAY", of_ipv6(&|lease| Some(lease.gateway()?.to_string()))),
        ("IPV6DNS0", first_of_ipv6.unwrap_or_default()),
        ("DNS_SERVER", words(&dns)),
        ("HOSTNAME", text(hostname)),
        ("DNSDOMAIN", text(leases.domain())),
        ("SEARCH_DOMAIN", search.clone()),
        ("DOMAINSEARCH", search),
        ("NISDOMAIN", of_ipv4(&|lease| lease.nis_domain.clone())),
        ("ROOTSERVER", boot_server(plan, leases).unwrap_or_default()),
        ("ROOTPATH", text(leases.root_path())),
        ("filename", text(leases.filename())),
        ("NTPSVR", ntp.clone()),
        ("TIMESVR", ntp),
        ("TIMEZONE", of_ipv4(&|lease| Some(lease.time_offset?.to_string()))),
        (
            "DHCPLEASETIME",
            of_ipv4(&|lease| Some(lease.lease_seconds.filter(|_| is_dhcp)?.to_string())),
        ),
        ("LTSP_CLIENT_MAC", mac.to_string().to_ascii_uppercase()),
    ];
    all.into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lease::tests::lease;
    use plan::tests::plan;

    const NODE: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);

    #[test]
    #[rustfmt::skip]
    fn the_boot_server_is_found_in_ltsps_order() {
        let named = |boot: Option<&str>| NetworkPlan { boot_server: boot.map(Into::into), ..plan() };
        let lease = |tftp: Option<&str>, next: bool| Lease {
            tftp_server: tftp.map(Into::into),
            next_server: next.then_some([10, 0, 0, 2].into()),
            server_id: Some([10, 0, 0, 3].into()),
            ..lease("10.0.0.5/24")
        };
        let cases = [
            (Some("10.0.0.9"), lease(Some("boot"), true),  "10.0.0.9"), // C86
            (None,             lease(Some("boot"), true),  "boot"),
            (None,             lease(None, true),          "10.0.0.2"),
            (None,             lease(None, false),         "10.0.0.3"),
        ];
        for (plan, lease, expected) in cases {
            assert_eq!(boot_server(&named(plan), &Leases::of_ipv4(lease)).as_deref(), Some(expected), "{plan:?}");
        }
    }

    #[test]
    fn variables_have_the_names_of_ltsp() {
        let mut lease = lease("10.0.0.5/22");
        lease.lease_seconds = Some(600);
        lease.dns = vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        lease.search = vec!["a.org".into(), "b.org".into()];
        lease.hostname = Some("n1".into());
        let plan = NetworkPlan {
            hostname: Some("n9".into()),
            dns: vec![[10, 0, 0, 9].into(), [10, 0, 0, 1].into()],
            ..plan()
        };
        let expected = "DEVICE=eth0 PROTO=dhcp IPV4ADDR=10.0.0.5 IPV4BROADCAST=10.0.3.255 \
            IPV4NETMASK=255.255.252.0 IPV4DNS0=10.0.0.9 IPV4DNS1=10.0.0.1 \
            DNS_SERVER=10.0.0.9 10.0.0.1 10.0.0.2 HOSTNAME=n9 SEARCH_DOMAIN=a.org b.org \
            DOMAINSEARCH=a.org b.org DHCPLEASETIME=600 LTSP_CLIENT_MAC=52:54:00:AA:BB:CC";
        let shown: Vec<_> =
            variables("eth0", "2", NODE, Origin::Dhcp, &plan, &Leases::of_ipv4(lease))
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
        assert_eq!(shown.join(" "), expected);
    }
}
