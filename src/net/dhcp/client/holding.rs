//! From the ACK on: whether the address is free, and how long it is ours (RFC 2131 section 4.4.5,
//! RFC 5227).

use std::time::Duration;

use super::{Chance, Client, Phase, Send, Step, Times, after, after_at_most};
use crate::net::dhcp::message::Ask;
use crate::net::dhcp::news::News;
use crate::net::dice::fuzzed;
use crate::net::{HardwareAddress, Lease, Mac};

/// Between two questions in a lease: 60 s, as RFC 2131 section 4.4.5 says, in those of twelve minutes
/// and more. That is longer than some leases in the field, which would be asked for once.
const SHORTEST_RENEWAL_WAIT: Duration = Duration::from_secs(10);
const RENEWAL_WAIT: Duration = Duration::from_secs(60);

fn shortest_wait(lasts: Duration) -> Duration {
    (lasts / 12).clamp(SHORTEST_RENEWAL_WAIT, RENEWAL_WAIT)
}
/// RFC 5227 section 2.1.1 probes three times with pauses of seconds, for radio links and sleeping
/// laptops. On a cable a kernel that has the address answers within a millisecond, a server of good
/// habits has pinged it before, and three probes get through where two are lost.
pub const PROBES: u32 = 3;
pub const PROBE_WAIT: Duration = Duration::from_millis(25);
/// After a conflict, growing. RFC 2131 wants 10 s, against a storm; one a second is none.
const AFTER_CONFLICT: Duration = Duration::from_secs(1);
/// Who claims that many addresses in a row answers for every address (a router with proxy ARP), and
/// cannot be believed.
const CLAIMS_TO_BELIEVE: usize = 2;

/// Seconds before which a lease is not renewed, whatever T1 and T2 say: a tenth of it and ten seconds
/// at least, but never behind its middle. A server with thousands of machines and a T1 of one second
/// would have no time for the next one that boots.
fn soonest_renewal(lasts: u32) -> u32 {
    (lasts / 10).max(10).min(lasts / 2)
}

/// From the grant on: when at the latest the client of this lease renews it. `None`: never.
pub fn renew_after(lease: &Lease) -> Option<Duration> {
    let (_, renew, _) = renewal(lease, lease.lease_seconds?);
    Some(Duration::from_secs(renew.into()))
}

/// Seconds from the grant of a lease that lasts `lasts`: the soonest moment of its renewal, T1 and T2.
fn renewal(lease: &Lease, lasts: u32) -> (u32, u32, u32) {
    let soonest = soonest_renewal(lasts);
    let rebind = lease.rebind_seconds.filter(|rebind| *rebind < lasts);
    let rebind = rebind.unwrap_or(lasts.saturating_sub(lasts.div_ceil(8))).max(soonest);
    let renew = lease.renew_seconds.filter(|renew| *renew <= rebind).unwrap_or(lasts / 2);
    (soonest, renew.max(soonest).min(rebind), rebind)
}

impl Client {
    pub(super) fn claimed(mut self, by: Mac, chance: Chance) -> (Self, Step) {
        let Phase::Probing { lease, granted, .. } = &self.phase else {
            return (self, Step::default());
        };
        let (lease, granted) = (lease.clone(), *granted);
        let address = lease.address;
        let (_, claimed) = match &mut self.claims {
            Some(claims) if claims.0 == by => claims,
            claims => claims.insert((by, Vec::new())),
        };
        if !claimed.contains(&address) {
            claimed.push(address);
        }
        if claimed.len() > CLAIMS_TO_BELIEVE {
            let (client, step) = self.bound(lease, granted, chance, News::Granted);
            return (client, step.after(vec![News::Conflict { address, by, declined: false }]));
        }
        self.wish = None;
        let ask = Ask::Decline { address, server: lease.server_id };
        let send = Send { ask, envelope: self.envelope(false, chance), to: None };
        self.refusals = self.refusals.saturating_add(1);
        self.anew(chance);
        self.until = Some(after(AFTER_CONFLICT, self.refusals.saturating_sub(1), chance));
        let news = vec![News::Conflict { address, by, declined: true }];
        (self, Step { send: Some(send), probe: None, news })
    }

    /// An ACK that makes an address ours, if nobody on the link objects.
    pub(super) fn granted(mut self, lease: Box<Lease>, chance: Chance) -> (Self, Step) {
        let is_ethernet = matches!(self.rules.hardware, HardwareAddress::Ethernet(_));
        if !is_ethernet || self.configured == Some(lease.address) {
            return self.bound(lease, chance.now, chance, News::Granted);
        }
        let probe = Some(lease.address);
        self.until = Some(chance.now.saturating_add(PROBE_WAIT));
        self.phase = Phase::Probing { lease, granted: chance.now, sent: 1 };
        (self, Step { probe, ..Step::default() })
    }

    /// `granted`: when the ACK came.
    pub(super) fn bound(
        mut self,
        lease: Box<Lease>,
        granted: Duration,
        chance: Chance,
        news: fn(Box<Lease>) -> News,
    ) -> (Self, Step) {
        let times = lease.lease_seconds.map(|lasts| {
            // Counted from the ACK, not from the request as the RFC has it: the two are milliseconds
            // apart, or the answer would have been to an earlier request.
            let at = |seconds: u32| granted.saturating_add(Duration::from_secs(seconds.into()));
            let (soonest, renew, rebind) = renewal(&lease, lasts);
            // The same dice for both, so that their order stays.
            let early = |seconds: u32| {
                let of = |seconds: u32| Duration::from_secs(seconds.into());
                fuzzed(chance.dice, granted, of(seconds), of(soonest))
            };
            let (renew, rebind) = (Some(early(renew)), early(rebind));
            let lasts_for = Duration::from_secs(lasts.into());
            Times { renew, rebind, end: at(lasts), shortest_wait: shortest_wait(lasts_for) }
        });
        let times = times.unwrap_or(Times {
            renew: None,
            rebind: Duration::MAX,
            end: Duration::MAX,
            shortest_wait: RENEWAL_WAIT,
        });
        // Nor must a lease of a second or two become a storm of renewals.
        let soonest = chance.now.saturating_add(Duration::from_secs(1));
        self.until = times.renew.map(|renew| renew.max(soonest));
        self.refusals = 0;
        self.configured = Some(lease.address);
        self.phase = Phase::Bound {
            address: lease.address,
            server: lease.server_id,
            times,
            extending: false,
        };
        (self, Step::telling([news(lease)]))
    }

    /// Renews with the server that granted the lease, later rebinds with any.
    pub(super) fn extend(mut self, chance: Chance) -> (Self, Step) {
        let Phase::Bound { address, server, times, extending } = &mut self.phase else {
            return (self, Step::default());
        };
        if !*extending {
            *extending = true;
            self.transaction = chance.dice;
            self.since = chance.now;
        }
        let (address, rebinding) = (*address, chance.now >= times.rebind);
        let to = if rebinding { None } else { *server };
        let next = if rebinding { times.end } else { times.rebind };
        let half = next.saturating_sub(chance.now) / 2;
        // All nodes of a server that is away come back to it with the same pauses otherwise.
        let wait = half.max(times.shortest_wait);
        self.until = Some(after_at_most(wait, wait, 0, chance).min(next));
        let envelope = self.envelope(false, chance);
        let send = Send { ask: Ask::Extend { address }, envelope, to };
        (self, Step { send: Some(send), ..Step::default() })
    }
}
