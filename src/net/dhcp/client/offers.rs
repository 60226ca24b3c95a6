//! SELECTING: which offer is taken, and what is told of the others.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::{Chance, Client, Phase, Step};
use crate::net::Lease;
use crate::net::choice::Wants;
use crate::net::dhcp::message::Reply;
use crate::net::dhcp::news::{News, Verdict, Weighed};

/// Time for a second server on the same link to make an offer that says where the root is.
const HOLD_FOR_A_ROOT: Duration = Duration::from_millis(500);
/// The same when the boot would only like to know a boot server: every boot pays for it where there
/// is one server and it names none but itself.
const HOLD: Duration = Duration::from_millis(50);

/// How long an offer that does not say everything waits for another.
pub fn hold(wants: Wants) -> Duration {
    if wants.root { HOLD_FOR_A_ROOT } else { HOLD }
}
/// Messages of one exchange whose fate is told; more is a server gone wild.
const MOST_TOLD: usize = 16;

impl Client {
    /// Weighs an offer: what has all that this boot wants is taken at once, others wait for a
    /// better one.
    pub(super) fn offered(mut self, reply: Reply, chance: Chance) -> (Self, Step) {
        let wants = self.rules.wants;
        let offer = match &reply.lease {
            Ok(offer) => Box::new(offer.clone()),
            Err(why) => {
                let is_boot_server = reply.boot.menu.is_some();
                let verdict = if is_boot_server { Verdict::Proxy } else { Verdict::Unusable(why) };
                let mut news = self.tell(&reply, verdict);
                if is_boot_server && let (Some(server), false) = (reply.server, news.is_empty()) {
                    news.push(News::BootServer { server, boot: Box::new(reply.boot) });
                } else if !is_boot_server {
                    news.push(News::Unusable { server: reply.server, why });
                }
                return (self, Step::telling(news));
            }
        };
        let Phase::Selecting { held, .. } = &mut self.phase else {
            return (self, Step::default());
        };
        let is_the_same =
            |other: &Lease| (other.server_id, other.address) == (offer.server_id, offer.address);
        if held.as_deref().is_some_and(is_the_same) {
            return (self, Step::default());
        }
        let loser = match held.as_deref() {
            // Whoever came first, unless the later one says more.
            Some(other) if wants.worth(&offer) <= wants.worth(other) => {
                let verdict = Verdict::NoBetter { than: other.server_id };
                let news = self.tell(&reply, verdict);
                return (self, Step::telling(news));
            }
            other => other.cloned(),
        };
        let waits = !wants.are_met_by(&offer);
        if waits {
            *held = Some(offer.clone());
            if loser.is_none() {
                self.until = Some(chance.now.saturating_add(hold(self.rules.wants)));
            }
        }
        let mut news = loser.map_or_else(Vec::new, |loser| {
            self.tell_lease(&loser, Verdict::SaysLess { than: offer.server_id })
        });
        if waits {
            news.push(News::Held(offer));
            return (self, Step::telling(news));
        }
        let (client, step) = self.take(offer, Verdict::Taken, chance);
        (client, step.after(news))
    }

    pub(super) fn take(
        mut self,
        offer: Box<Lease>,
        verdict: Verdict,
        chance: Chance,
    ) -> (Self, Step) {
        let mut news = self.tell_lease(&offer, verdict);
        news.push(News::Accepted(offer.clone()));
        let (client, step) = self.request(offer, 0, chance);
        (client, step.after(news))
    }

    /// The fate of an offer, told once however often it comes.
    pub(super) fn tell(&mut self, reply: &Reply, verdict: Verdict) -> Vec<News> {
        let address = reply.lease.as_ref().ok().map(|lease| lease.address);
        self.tell_once(Weighed::reply(reply, verdict), address)
    }

    pub(super) fn tell_lease(&mut self, offer: &Lease, verdict: Verdict) -> Vec<News> {
        self.tell_once(Weighed::lease(offer, verdict), Some(offer.address))
    }

    pub(super) fn tell_once(&mut self, weighed: Weighed, address: Option<Ipv4Addr>) -> Vec<News> {
        let key = (weighed.server, address);
        // What is taken is told although it may have been passed over before.
        let is_new = self.told.len() < MOST_TOLD && !self.told.contains(&key);
        if !is_new && !matches!(weighed.verdict, Verdict::Taken | Verdict::Best) {
            return Vec::new();
        }
        self.told.push(key);
        vec![News::Weighed(Box::new(weighed))]
    }
}
