//! The network stage: takes a [`NetworkPlan`], gives a [`Network`], which is the proof that one
//! link has an address.
//!
//! ```text
//! plan ──> worker (one thread, one tokio runtime, until the handover)
//!            kernel    links, addresses, routes: what netlink says and is told
//!            link      which links take part; what to tell the operator about the others
//!            dhcp/     a client per link with carrier, all at the same time
//!            adopt     links that somebody configured before us
//!            port      how far each link has got
//!            choice    which of the leases
//!            held      the chosen link, and the renewal of its lease
//!        ──> Network ──> dns (names), keep (files for the running system)
//! ```
//!
//! Deciding is pure (`link`, `choice`, `dhcp::client`, `keep`'s renderers), and `worker` is where
//! events of links, clients and callers meet.
//!
//! It waits for ever, visibly, for what may still come: a driver, a cable, a server. It fails for
//! what only a person can mend. It never gives a lease back, never runs a program, and speaks IPv4
//! only. Links that lose are set down again unless somebody else had set them up, and an address that
//! somebody else has given a link stays the machine's.

mod adopt;
pub mod arp;
pub mod bond;
mod choice;
pub mod configured;
pub mod description;
pub mod dhcp;
pub mod dhcp6;
mod dice;
mod dns;
pub mod duid;
mod held;
mod keep;
pub mod kernel;
mod lease;
pub mod lease6;
mod link;
mod mac;
mod names;
mod plan;
mod port;
pub mod ra;
#[cfg(test)]
mod real_links;
mod topology;
mod worker;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

pub use keep::{Left, Renewer, RunFile, Wishes};
pub use lease::{Lease, LeaseFile, Route};
pub use lease6::Lease6;
pub use mac::{HardwareAddress, Mac};
pub use plan::{Addressing, LinkChoice, NetworkPlan};

use crate::directives::View;
use crate::error::Result;
use description::HandoverMode;
use dns::Resolver;
use keep::{Inheritance, Kept};
use kernel::{Origin, Shape};
use worker::Worker;

/// A configured link. Its lease is renewed in the background until [`Network::stop`].
#[derive(Debug)]
pub struct Network {
    link: String,
    mac: Mac,
    /// Of a bond, bridge or VLAN that was there before us.
    beneath: Vec<Mac>,
    /// Of a link that stays as it was found: static.
    plan: NetworkPlan,
    origin: Origin,
    lease: Lease,
    worker: Worker,
}

/// Waits until one link is configured. `Err` only for what waiting cannot cure: a kernel without
/// netlink, or a static address that the kernel refuses.
pub fn bring_up(plan: &NetworkPlan) -> Result<Network> {
    let (worker, settled) = Worker::start(plan)?;
    let mut plan = plan.clone();
    if settled.origin == Origin::Host {
        let Lease { address, prefix, .. } = settled.lease;
        plan.addressing = Addressing::Static { address, prefix, gateway: settled.lease.gateway() };
    }
    let beneath = match settled.link.shape {
        Shape::Composed => adopt::beneath(&settled.link.name, Path::new("/sys")),
        _ => Vec::new(),
    };
    let network = Network {
        beneath,
        link: settled.link.name,
        mac: settled.link.mac,
        plan,
        origin: settled.origin,
        lease: settled.lease,
        worker,
    };
    log::info!(target: "network", "{}", network.summary());
    Ok(network)
}

impl Network {
    /// Name in the initramfs; the running system's udev may choose another.
    pub fn link(&self) -> &str {
        &self.link
    }

    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// As it was granted; a later renewal is not reflected here.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    pub fn is_dhcp(&self) -> bool {
        matches!(self.plan.addressing, Addressing::Dhcp { .. })
    }

    /// Whom to ask for everything that nobody has placed elsewhere, name or address: `ip=`, option
    /// 66, `siaddr`, `sname`, and at last the DHCP server itself.
    pub fn boot_server(&self) -> Option<String> {
        boot_server(&self.plan, &self.lease)
    }

    /// Whether `ip=` or the lease speaks of booting, and [`Self::boot_server`] is more than a guess.
    pub fn names_a_boot_server(&self) -> bool {
        let Lease { tftp_server, next_server, filename, .. } = &self.lease;
        let named = self.plan.boot_server.is_some() || tftp_server.is_some();
        named || next_server.is_some() || filename.is_some()
    }

    /// The machine's name: `ip=` first, then the lease.
    pub fn hostname(&self) -> Option<&str> {
        self.plan.hostname.as_deref().or(self.lease.hostname.as_deref())
    }

    /// Those of `ip=`, then those of the lease.
    pub fn dns(&self) -> Vec<IpAddr> {
        joined(&self.plan.dns, &self.lease.dns)
    }

    /// Addresses of `host`, at least one. A failure that [`crate::error::Error::is_transient`] is
    /// worth another call; each takes at most some 20 s.
    pub fn resolve(&self, host: &str) -> Result<Vec<IpAddr>> {
        let resolver = Resolver { servers: self.dns(), search: self.lease.search.clone() };
        resolver.look_up(host, Path::new("/etc/hosts"))
    }

    /// What LTSP's scripts and klibc's `ipconfig` called these values; only those that are known.
    pub fn variables(&self) -> Vec<(String, String)> {
        variables(&self.link, self.mac, &self.plan, &self.lease)
    }

    /// Lets the address outlive its lease. For systems in which nobody renews it, and harmless for
    /// the others: who renews sets the lifetime again.
    pub fn make_permanent(&self) -> Result<()> {
        self.worker.make_permanent()
    }

    /// Leaves the files with which the link survives in the running system, whose root is at
    /// `new_root`. What cannot be written is a warning: a link that may be lost later is no reason
    /// not to boot.
    pub fn leave_to(&self, new_root: &Path, wishes: Wishes<'_>, mode: HandoverMode) {
        let links = [keep::one_link(self)];
        let inheritance = Inheritance {
            links: &links,
            index: &keep::index,
            plan: &self.plan,
            ignore_peer_dns: false,
            mode,
            wishes,
        };
        match keep::write(&inheritance, new_root, Path::new("/run")) {
            Ok(Kept { renewers, files }) => {
                log::debug!(target: "network", "left for the running system: {}", files.join(" "));
                if let (Renewer::Nobody, Some(seconds)) = (renewers.ipv4, self.lease.lease_seconds)
                {
                    log::info!(
                        target: "network",
                        "nobody in this root renews the lease of {seconds} s: {} stays on {}, and \
                         the DHCP server must not give it to another",
                        self.lease.address,
                        self.link
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
        let Lease { address, prefix, .. } = self.lease;
        let mut text = format!("{} is {address}/{prefix}", self.link);
        if let Some(gateway) = self.lease.gateway() {
            text = format!("{text} through {gateway}");
        }
        match self.origin {
            Origin::CommandLine => return format!("{text}, as ip= says"),
            Origin::Host => return format!("{text}, as it was found"),
            Origin::Dhcp => {}
        }
        text = match self.lease.lease_seconds {
            Some(seconds) => format!("{text}, lease of {seconds} s"),
            None => format!("{text}, lease for ever"),
        };
        match self.lease.server_id {
            Some(server) => format!("{text} from {server}"),
            None => text,
        }
    }
}

/// What [`Network::leave_to`] would leave to a root that looks like `view`, with a lease that was
/// read, not fetched.
pub fn left_files(
    link: &str,
    mac: Mac,
    plan: &NetworkPlan,
    lease: &Lease,
    wishes: Wishes<'_>,
    view: &dyn View,
) -> Left {
    let inheritance = Inheritance {
        links: &[keep::single(link, mac, &[], plan, Origin::Dhcp, lease)],
        index: &|_| None,
        plan,
        ignore_peer_dns: false,
        mode: HandoverMode::default(),
        wishes,
    };
    keep::foresee(&inheritance, view)
}

/// [`Network::boot_server`] of a lease that was read, not fetched.
pub fn boot_server(plan: &NetworkPlan, lease: &Lease) -> Option<String> {
    // `sname` is in tftp_server only when there is no siaddr, so this is LTSP's order.
    let shown = |address: Option<Ipv4Addr>| address.map(|address| address.to_string());
    plan.boot_server
        .clone()
        .or_else(|| lease.tftp_server.clone())
        .or_else(|| shown(lease.next_server))
        .or_else(|| shown(lease.server_id))
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

/// [`Network::variables`] of a lease that was read, not fetched.
pub fn variables(link: &str, mac: Mac, plan: &NetworkPlan, lease: &Lease) -> Vec<(String, String)> {
    let words = |addresses: &[IpAddr]| {
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let network = lease.network();
    let dns = joined(&plan.dns, &lease.dns);
    let ntp = words(&joined(&plan.ntp, &lease.ntp));
    let nth = |index: usize| dns.get(index).map(ToString::to_string).unwrap_or_default();
    let is_dhcp = matches!(plan.addressing, Addressing::Dhcp { .. });
    let broadcast = lease.broadcast.unwrap_or_else(|| network.broadcast());
    let hostname = plan.hostname.as_ref().or(lease.hostname.as_ref());
    let lasts = lease.lease_seconds.filter(|_| is_dhcp);
    let all = [
        ("DEVICE", link.to_owned()),
        // klibc's word for "by hand", which cloud-init checks.
        ("PROTO", if is_dhcp { "dhcp" } else { "none" }.to_owned()),
        ("IPV4ADDR", lease.address.to_string()),
        ("IPV4BROADCAST", broadcast.to_string()),
        ("IPV4NETMASK", network.netmask().to_string()),
        ("IPV4GATEWAY", lease.gateway().map(|via| via.to_string()).unwrap_or_default()),
        ("IPV4DNS0", nth(0)),
        ("IPV4DNS1", nth(1)),
        ("DNS_SERVER", words(&dns)),
        ("HOSTNAME", hostname.cloned().unwrap_or_default()),
        ("DNSDOMAIN", text(&lease.domain)),
        ("SEARCH_DOMAIN", lease.search.join(" ")),
        ("DOMAINSEARCH", lease.search.join(" ")),
        ("NISDOMAIN", text(&lease.nis_domain)),
        ("ROOTSERVER", boot_server(plan, lease).unwrap_or_default()),
        ("ROOTPATH", text(&lease.root_path)),
        ("filename", text(&lease.filename)),
        ("NTPSVR", ntp.clone()),
        ("TIMESVR", ntp),
        ("TIMEZONE", lease.time_offset.map(|offset| offset.to_string()).unwrap_or_default()),
        ("DHCPLEASETIME", lasts.map(|seconds| seconds.to_string()).unwrap_or_default()),
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
            assert_eq!(boot_server(&named(plan), &lease).as_deref(), Some(expected), "{plan:?}");
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
        let shown: Vec<_> = variables("eth0", NODE, &plan, &lease)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(shown.join(" "), expected);
    }
}
