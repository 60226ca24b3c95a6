//! Which of several leases becomes the machine's place in the network. Pure.

use std::time::Duration;

use super::port::Family;
use super::{Lease, Lease6, NetworkPlan};

/// How long a lease that names no boot server waits for one that does, on another link.
///
/// A switch port that is still blocked by its spanning tree takes 30 s; nobody waits for that.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// How long a lease without a root waits for another link, where the root has to come from a lease:
/// there is nothing to go on with. A spanning tree takes 30 s, and some ports as long to find out
/// how fast they are.
pub const PATIENCE_FOR_A_ROOT: Duration = Duration::from_secs(45);

/// What a lease can do for this boot; a later one is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worth {
    /// Address and mask: enough when the command line says the rest.
    Usable,
    /// It names somebody or something to boot from.
    NamesServer,
    /// It says where the root is, and nobody else has.
    NamesRoot,
}

/// What this boot still has to learn from a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    pub root: bool,
    /// A boot without a word on the root is possible all the same.
    pub has_usual_root: bool,
    /// In which the server of the root is reached, where its address is written out: the other
    /// family alone would be of no use.
    pub family: Option<Family>,
    /// How long one of two families that are both asked for waits for the other.
    pub both_families: Option<Duration>,
}

impl Wants {
    pub fn of(plan: &NetworkPlan) -> Self {
        let seconds = plan.description.one_family_after;
        Self {
            root: plan.root_from_dhcp,
            has_usual_root: plan.has_usual_root,
            family: plan.root_family,
            both_families: seconds.map(|seconds| Duration::from_secs(seconds.into())),
        }
    }

    /// Of a machine that has booted long ago.
    pub fn nothing() -> Self {
        Self { root: false, has_usual_root: false, family: None, both_families: None }
    }

    pub fn worth(self, lease: &Lease) -> Worth {
        // dnsmasq puts itself there, whatever it knows of booting.
        let other = lease.next_server.filter(|server| Some(*server) != lease.server_id);
        let names_server = other.is_some()
            || lease.tftp_server.is_some()
            || lease.filename.is_some()
            || lease.root_path.is_some();
        match lease.root_path {
            Some(_) if self.root => Worth::NamesRoot,
            _ if names_server => Worth::NamesServer,
            _ => Worth::Usable,
        }
    }

    /// The same of what IPv6 gives: a boot file URL is its root-path and its boot file.
    pub fn worth6(self, lease: &Lease6) -> Worth {
        match lease.boot_url() {
            Some(url) if self.root && url.starts_with("nbd") => Worth::NamesRoot,
            Some(_) => Worth::NamesServer,
            None => Worth::Usable,
        }
    }

    pub fn are_met_by6(self, lease: &Lease6) -> bool {
        let best = match (self.root, self.family) {
            (true, _) => Worth::NamesRoot,
            // It is reached by this family, and nothing else is lacking.
            (false, Some(Family::Ipv6)) => Worth::Usable,
            (false, _) => Worth::NamesServer,
        };
        self.worth6(lease) >= best
    }

    /// With a lease of this worth the boot would end.
    pub fn cannot_do_with(self, worth: Worth) -> bool {
        self.root && !self.has_usual_root && worth < Worth::NamesRoot
    }

    /// The root has to come from a lease, and this one does not say it.
    pub fn lack_a_root(self, lease: &Lease) -> bool {
        self.root && lease.root_path.is_none()
    }

    /// Nothing that could still arrive would be better.
    pub fn are_met_by(self, lease: &Lease) -> bool {
        let best = if self.root { Worth::NamesRoot } else { Worth::NamesServer };
        self.worth(lease) >= best
    }
}

/// A link, as far as the choice is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    NoCarrier,
    Trying {
        /// The worth of an offer that has been accepted: the lease is on its way.
        promised: Option<Worth>,
    },
    Leased {
        worth: Worth,
        /// Nothing better can come.
        best: bool,
        /// The boot would end with it, and another link may still get a lease.
        lacks: bool,
        /// Time since the lease was granted.
        age: Duration,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Index into the links that were judged.
    Take(usize),
    /// There is a lease, but another link may bring a better one within this time.
    WaitFor(Duration),
    /// There is no lease yet.
    Wait,
}

/// The best lease wins; among equals, the earliest.
pub fn judge(links: &[Standing]) -> Verdict {
    let leased = |link: &Standing| match *link {
        Standing::Leased { worth, best, age, lacks } => Some((worth, (best, lacks), age)),
        Standing::NoCarrier | Standing::Trying { .. } => None,
    };
    let leases = links.iter().enumerate().filter_map(|(index, link)| Some((index, leased(link)?)));
    let Some((winner, (worth, (best, lacks), _))) =
        leases.clone().max_by_key(|(_, (worth, _, age))| (*worth, *age))
    else {
        return Verdict::Wait;
    };
    let hopes = |link: &Standing| matches!(link, Standing::Trying { .. });
    let is_promised_better =
        |link: &Standing| matches!(link, Standing::Trying { promised } if *promised > Some(worth));
    let patience = match links.iter().any(is_promised_better) {
        _ if lacks => PATIENCE_FOR_A_ROOT,
        true => PATIENCE.saturating_mul(2),
        false => PATIENCE,
    };
    let waited = leases.map(|(_, (_, _, age))| age).max().unwrap_or_default();
    let rest = patience.saturating_sub(waited);
    if best || rest.is_zero() || !(lacks || links.iter().any(hopes)) {
        Verdict::Take(winner)
    } else {
        Verdict::WaitFor(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Standing::NoCarrier;
    use Verdict::{Take, Wait, WaitFor};

    const TRYING: Standing = Standing::Trying { promised: None };
    const PROMISED: Standing = Standing::Trying { promised: Some(Worth::NamesServer) };

    #[test]
    #[rustfmt::skip]
    fn the_best_lease_wins_and_nobody_waits_for_nothing() {
        let at = |worth, millis| Standing::Leased { worth, best: worth == Worth::NamesRoot, lacks: false, age: Duration::from_millis(millis) };
        let rootless = |millis| Standing::Leased { worth: Worth::NamesServer, best: false, lacks: true, age: Duration::from_millis(millis) };
        let boot = |millis| Standing::Leased { worth: Worth::NamesServer, best: true, lacks: false, age: Duration::from_millis(millis) };
        let plain = |millis| at(Worth::Usable, millis);
        let rest = |millis| WaitFor(Duration::from_millis(millis));
        let cases = [
            ("no links at all",                            vec![],                                        Wait),
            ("no lease yet",                               vec![NoCarrier, TRYING],                       Wait),
            ("a boot server needs no comparison",          vec![TRYING, boot(0)],                         Take(1)),
            ("nobody else could do better",                vec![plain(0), NoCarrier],                     Take(0)),
            ("another link may do better",                 vec![plain(500), TRYING],                      rest(2500)),
            ("but not for ever",                           vec![plain(3000), TRYING],                     Take(0)),
            ("unless better is on its way",                vec![plain(3000), PROMISED],                   rest(3000)),
            ("which may fail",                             vec![plain(6000), PROMISED],                   Take(0)),
            ("as good is no reason to wait longer",        vec![at(Worth::NamesServer, 3000), PROMISED],  Take(0)),
            ("patience counts from the first lease",       vec![plain(3100), plain(10), TRYING],          Take(0)),
            ("better beats earlier",                       vec![plain(900), at(Worth::NamesServer, 10)],  Take(1)),
            ("earlier beats later among equals",           vec![plain(10), plain(20)],                    Take(1)),
            ("a server does not do when a root is needed", vec![at(Worth::NamesServer, 0), TRYING],       rest(3000)),
            ("a cable may still be plugged in",            vec![rootless(3000), NoCarrier],               rest(42_000)),
            ("but the operator should know some day",      vec![rootless(45_000), NoCarrier],             Take(0)),
            ("and a root needs no patience",               vec![rootless(3000), at(Worth::NamesRoot, 0)], Take(1)),
            ("the root does",                              vec![TRYING, at(Worth::NamesRoot, 0)],         Take(1)),
        ];
        for (case, links, expected) in cases {
            assert_eq!(judge(&links), expected, "{case}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_lease_is_worth_what_this_boot_lacks() {
        let plain = crate::net::lease::tests::lease("10.0.0.5/24");
        let server = Lease { next_server: Some([10, 0, 0, 1].into()), ..plain.clone() };
        let itself = Lease { server_id: server.next_server, ..server.clone() };
        let file = Lease { filename: Some("pxelinux.0".into()), ..plain.clone() };
        let root = Lease { root_path: Some("nbd:10.0.0.1".into()), ..plain.clone() };
        let cases = [
            ("address only",                    false, &plain,  Worth::Usable,      false),
            ("siaddr",                          false, &server, Worth::NamesServer, true),
            ("siaddr of who says so",           false, &itself, Worth::Usable,      false),
            ("file",                            false, &file,   Worth::NamesServer, true),
            ("root that is known already",      false, &root,   Worth::NamesServer, true),
            ("server when the root is needed",  true,  &server, Worth::NamesServer, false),
            ("the root that is needed",         true,  &root,   Worth::NamesRoot,   true),
        ];
        for (case, needs_root, lease, worth, met) in cases {
            let wants = Wants { root: needs_root, has_usual_root: false, family: None, both_families: None };
            assert_eq!(wants.cannot_do_with(worth), needs_root && worth != Worth::NamesRoot, "{case}");
            assert!(!Wants { has_usual_root: true, ..wants }.cannot_do_with(worth), "{case}");
            assert_eq!((wants.worth(lease), wants.are_met_by(lease)), (worth, met), "{case}");
        }
    }
}
