//! The DHCP client of one link as a pure step: an event and the time go in; the next state, what to
//! send and what has become known come out (RFC 2131 section 4.4).
//!
//! Departures from the RFC, all because a person watches this boot and a disk hangs on its end:
//! the first message goes out at once and is repeated after 50 ms, not 4 s; it never gives up; no
//! ARP probe (the firmware used the address seconds ago); no DECLINE, no RELEASE.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::message::{Ask, Envelope, Kind, Reply};
use crate::net::choice::Wants;
use crate::net::{Lease, Mac};

const FIRST_WAIT: Duration = Duration::from_millis(50);
/// A blocked switch port opens after 30 or 50 s; then nobody should wait long for the next try.
const LONGEST_WAIT: Duration = Duration::from_secs(16);
/// Servers that look a client up in a directory take a while.
const FIRST_REQUEST_WAIT: Duration = Duration::from_millis(400);
const REQUEST_TRIES: u32 = 4;
/// Time for a second server on the same link to make an offer that says where to boot from.
const HOLD: Duration = Duration::from_millis(500);
/// RFC 2131 says 60 s, which is longer than some leases in the field.
const SHORTEST_RENEWAL_WAIT: Duration = Duration::from_secs(10);
/// Answers go to everybody from this try on: something eats those to a machine without address.
const BROADCAST_FROM: u32 = 4;

/// What does not change while the client lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub mac: Mac,
    pub wants: Wants,
}

/// Random bits and the time since an arbitrary moment: everything that makes a step impure.
#[derive(Clone, Copy, Debug)]
pub struct Chance {
    pub now: Duration,
    pub dice: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    rules: Rules,
    phase: Phase,
    transaction: u32,
    /// When this exchange began.
    since: Duration,
    until: Option<Duration>,
    /// NAKs and unanswered requests in a row.
    refusals: u32,
    wish: Option<Ipv4Addr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Selecting { tries: u32, held: Option<Box<Lease>> },
    Requesting { offer: Box<Lease>, tries: u32 },
    Bound { address: Ipv4Addr, server: Option<Ipv4Addr>, times: Times, extending: bool },
}

/// Moments of a lease that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    renew: Option<Duration>,
    rebind: Duration,
    end: Duration,
}

#[derive(Clone, Debug)]
pub enum Event {
    Received(Box<Reply>),
    /// The moment of [`Client::until`] has come.
    Timeout,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    pub send: Option<Send>,
    pub news: Option<News>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    pub ask: Ask,
    pub envelope: Envelope,
    /// `None`: to everybody.
    pub to: Option<Ipv4Addr>,
}

/// What the rest of the agent should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A server offers this, and it will be requested.
    Accepted(Box<Lease>),
    /// An offer that cannot be used, and why.
    Unusable { server: Option<Ipv4Addr>, why: &'static str },
    /// The lease is ours.
    Granted(Box<Lease>),
    /// The lease goes on, with these values.
    Extended(Box<Lease>),
    /// A server took the lease or the offer back.
    Refused { server: Option<Ipv4Addr>, words: Option<String> },
    /// The lease has ended and nobody extended it.
    Expired,
}

impl Client {
    /// Begins on a link that has carrier. `wish`: an address to ask for.
    pub fn start(rules: Rules, wish: Option<Ipv4Addr>, chance: Chance) -> (Self, Step) {
        let client = Self {
            rules,
            phase: Phase::Selecting { tries: 0, held: None },
            transaction: chance.dice,
            since: chance.now,
            until: None,
            refusals: 0,
            wish,
        };
        client.discover(0, chance)
    }

    /// When the next [`Event::Timeout`] is due; `None`: never (a lease without end).
    pub fn until(&self) -> Option<Duration> {
        self.until
    }

    /// The client has an address that the kernel may use, and hears answers through an ordinary
    /// socket.
    pub fn is_bound(&self) -> bool {
        matches!(self.phase, Phase::Bound { .. })
    }

    pub fn step(self, event: Event, chance: Chance) -> (Self, Step) {
        match event {
            Event::Received(reply) => self.received(*reply, chance),
            Event::Timeout => self.timeout(chance),
        }
    }

    fn received(mut self, reply: Reply, chance: Chance) -> (Self, Step) {
        if reply.transaction != self.transaction || reply.mac != self.rules.mac {
            return (self, Step::default());
        }
        match (&mut self.phase, reply.kind) {
            (Phase::Selecting { held, .. }, Kind::Offer) => {
                let offer = match reply.lease {
                    Ok(offer) => Box::new(offer),
                    Err(why) => {
                        let news = News::Unusable { server: reply.server, why };
                        return (self, Step { send: None, news: Some(news) });
                    }
                };
                let wants = self.rules.wants;
                if wants.are_met_by(&offer) {
                    return self.request(offer, 0, chance);
                }
                match held {
                    None => {
                        *held = Some(offer);
                        self.until = Some(chance.now.saturating_add(HOLD));
                    }
                    Some(other) if wants.worth(&offer) > wants.worth(other) => *held = Some(offer),
                    Some(_) => {}
                }
                (self, Step::default())
            }
            (Phase::Requesting { offer, .. }, Kind::Ack | Kind::Nak)
                if reply.server.is_some() && reply.server != offer.server_id =>
            {
                // Another server's opinion of an offer that is not its own.
                (self, Step::default())
            }
            (Phase::Requesting { .. }, Kind::Ack) => match reply.lease {
                Ok(lease) => self.granted(lease, chance, News::Granted),
                Err(why) => {
                    let news = News::Unusable { server: reply.server, why };
                    self.restart(Some(news), chance)
                }
            },
            (Phase::Bound { extending: true, .. }, Kind::Ack) => match reply.lease {
                Ok(lease) => self.granted(lease, chance, News::Extended),
                Err(_) => (self, Step::default()),
            },
            (Phase::Requesting { .. } | Phase::Bound { extending: true, .. }, Kind::Nak) => {
                let news = News::Refused { server: reply.server, words: reply.words };
                self.restart(Some(news), chance)
            }
            _ => (self, Step::default()),
        }
    }

    fn timeout(mut self, chance: Chance) -> (Self, Step) {
        match &mut self.phase {
            Phase::Selecting { held, .. } if held.is_some() => {
                let Some(offer) = held.take() else { return (self, Step::default()) };
                self.request(offer, 0, chance)
            }
            Phase::Selecting { tries, .. } => {
                let tries = *tries;
                self.discover(tries, chance)
            }
            Phase::Requesting { offer, tries } if *tries < REQUEST_TRIES => {
                let (offer, tries) = (offer.clone(), *tries);
                self.request(offer, tries, chance)
            }
            Phase::Requesting { .. } => self.restart(None, chance),
            Phase::Bound { times, .. } if chance.now >= times.end => {
                self.restart(Some(News::Expired), chance)
            }
            Phase::Bound { .. } => self.extend(chance),
        }
    }

    fn discover(mut self, tries: u32, chance: Chance) -> (Self, Step) {
        self.until = Some(after(FIRST_WAIT, tries, chance));
        self.phase = Phase::Selecting { tries: tries.saturating_add(1), held: None };
        let send = Send {
            ask: Ask::Discover { wish: self.wish },
            envelope: self.envelope(tries >= BROADCAST_FROM, chance),
            to: None,
        };
        (self, Step { send: Some(send), news: None })
    }

    fn request(mut self, offer: Box<Lease>, tries: u32, chance: Chance) -> (Self, Step) {
        let send = Send {
            ask: Ask::Select { address: offer.address, server: offer.server_id },
            envelope: self.envelope(tries.saturating_mul(2) >= BROADCAST_FROM, chance),
            to: None,
        };
        self.until = Some(after(FIRST_REQUEST_WAIT, tries, chance));
        let news = (tries == 0).then(|| News::Accepted(offer.clone()));
        self.phase = Phase::Requesting { offer, tries: tries.saturating_add(1) };
        (self, Step { send: Some(send), news })
    }

    /// From the beginning: at once the first time, later with a growing pause, so that a server
    /// that offers and then refuses is not asked a thousand times a second.
    fn restart(mut self, news: Option<News>, chance: Chance) -> (Self, Step) {
        if let Phase::Bound { address, .. } = self.phase {
            self.wish = Some(address);
        }
        self.transaction = chance.dice;
        self.since = chance.now;
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals == 1 {
            let (client, step) = self.discover(0, chance);
            return (client, Step { news, ..step });
        }
        self.phase = Phase::Selecting { tries: 0, held: None };
        self.until = Some(after(Duration::from_secs(1), self.refusals.saturating_sub(2), chance));
        (self, Step { send: None, news })
    }

    fn granted(
        mut self,
        lease: Lease,
        chance: Chance,
        news: fn(Box<Lease>) -> News,
    ) -> (Self, Step) {
        let times = lease.lease_seconds.map(|lasts| {
            let at = |seconds: u32| chance.now.saturating_add(Duration::from_secs(seconds.into()));
            // Counted from now, not from the request as the RFC has it: the two are milliseconds
            // apart, or the answer would have been to an earlier request.
            let rebind = lease.rebind_seconds.filter(|rebind| *rebind < lasts);
            let rebind = rebind.unwrap_or(lasts.saturating_sub(lasts.div_ceil(8)));
            let renew = lease.renew_seconds.filter(|renew| *renew <= rebind).unwrap_or(lasts / 2);
            Times { renew: Some(at(renew.min(rebind))), rebind: at(rebind), end: at(lasts) }
        });
        let times =
            times.unwrap_or(Times { renew: None, rebind: Duration::MAX, end: Duration::MAX });
        // A lease of seconds must not become a storm of renewals.
        let soonest = chance.now.saturating_add(Duration::from_secs(1));
        self.until = times.renew.map(|renew| renew.max(soonest));
        self.refusals = 0;
        self.phase = Phase::Bound {
            address: lease.address,
            server: lease.server_id,
            times,
            extending: false,
        };
        (self, Step { send: None, news: Some(news(Box::new(lease))) })
    }

    /// Renews with the server that granted the lease, later rebinds with any.
    fn extend(mut self, chance: Chance) -> (Self, Step) {
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
        self.until = Some(chance.now.saturating_add(half.max(SHORTEST_RENEWAL_WAIT)).min(next));
        let envelope = self.envelope(false, chance);
        (self, Step { send: Some(Send { ask: Ask::Extend { address }, envelope, to }), news: None })
    }

    fn envelope(&self, broadcast: bool, chance: Chance) -> Envelope {
        let seconds = chance.now.saturating_sub(self.since).as_secs();
        let seconds = u16::try_from(seconds).unwrap_or(u16::MAX);
        Envelope { transaction: self.transaction, seconds, broadcast }
    }
}

/// The moment `first` x 2^tries from now, at most 16 s, give or take a quarter: machines that got
/// power at the same moment must not ask in step for ever.
fn after(first: Duration, tries: u32, chance: Chance) -> Duration {
    let factor = 1u32.checked_shl(tries.min(30)).unwrap_or(u32::MAX);
    let wait = first.saturating_mul(factor).min(LONGEST_WAIT);
    let quarter = f64::from(chance.dice) / f64::from(u32::MAX) * 0.5 - 0.25;
    chance.now.saturating_add(wait.mul_f64(1.0 + quarter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::lease::tests::lease;
    use crate::net::plan::tests::plan;

    const NODE: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    /// The middle of the dice: no jitter. Also the transaction of everything that follows.
    const EVEN: u32 = u32::MAX / 2;

    fn at(seconds: f64) -> Chance {
        Chance { now: Duration::from_secs_f64(seconds), dice: EVEN }
    }

    fn got(reply: Reply) -> Event {
        Event::Received(Box::new(reply))
    }

    fn started() -> Client {
        let rules = Rules { mac: NODE, wants: Wants::of(&plan()) };
        Client::start(rules, None, at(0.0)).0
    }

    fn reply(kind: Kind, server: Ipv4Addr, lasts: Option<u32>) -> Reply {
        let lease = Lease {
            next_server: Some(server),
            server_id: Some(server),
            lease_seconds: lasts,
            ..lease("10.0.0.57/24")
        };
        Reply {
            kind,
            transaction: EVEN,
            mac: NODE,
            server: Some(server),
            lease: Ok(lease),
            words: None,
        }
    }

    /// The same offer without anything to boot from.
    fn plain(server: Ipv4Addr) -> Reply {
        let mut reply = reply(Kind::Offer, server, Some(60));
        reply.lease = reply.lease.map(|lease| Lease { next_server: None, ..lease });
        reply
    }

    fn bound(lasts: Option<u32>) -> Client {
        let (client, _) = started().step(got(reply(Kind::Offer, SERVER, lasts)), at(0.0));
        client.step(got(reply(Kind::Ack, SERVER, lasts)), at(0.0)).0
    }

    /// What a step did, in a few words.
    fn told(step: &Step) -> String {
        let sent = step.send.as_ref().map(|send| {
            let what = match send.ask {
                Ask::Discover { wish: None } => "discover".to_owned(),
                Ask::Discover { wish: Some(wish) } => format!("discover {wish}"),
                Ask::Select { server, .. } => format!("select {}", server.unwrap()),
                Ask::Extend { .. } => "extend".to_owned(),
            };
            match send.to {
                Some(server) => format!("{what} to {server}"),
                None => what,
            }
        });
        let news = step.news.as_ref().map(|news| match news {
            News::Accepted(_) => "accepted".to_owned(),
            News::Unusable { why, .. } => format!("unusable: {why}"),
            News::Granted(lease) => format!("granted {}", lease.address),
            News::Extended(lease) => format!("extended {}", lease.address),
            News::Refused { .. } => "refused".to_owned(),
            News::Expired => "expired".to_owned(),
        });
        [sent, news].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    fn run(client: Client, events: Vec<(f64, Event)>) -> (Client, Vec<String>) {
        let mut client = client;
        let mut story = Vec::new();
        for (seconds, event) in events {
            let step;
            (client, step) = client.step(event, at(seconds));
            story.push(told(&step));
        }
        (client, story)
    }

    #[test]
    #[rustfmt::skip]
    fn every_answer_has_one_consequence() {
        use Event::Timeout;
        let offer = || got(reply(Kind::Offer, SERVER, Some(60)));
        let ack = |server| got(reply(Kind::Ack, server, Some(60)));
        let nak = |server| got(reply(Kind::Nak, server, None));
        let unusable = || got(Reply { lease: Err("it has no subnet mask"), ..plain(SERVER) });
        let foreign = || got(Reply { transaction: 1, ..plain(SERVER) });
        let neighbour = || got(Reply { mac: Mac([2; 6]), ..plain(SERVER) });
        let cases = [
            ("the usual four messages",      vec![offer(), ack(SERVER)],              vec!["select 10.0.0.1, accepted", "granted 10.0.0.57"]),
            ("silence",                      vec![Timeout, Timeout],                  vec!["discover", "discover"]),
            ("another transaction",          vec![foreign()],                         vec![""]),
            ("another machine",              vec![neighbour()],                       vec![""]),
            ("an ACK out of the blue",       vec![ack(SERVER)],                       vec![""]),
            ("an unusable offer",            vec![unusable(), offer()],               vec!["unusable: it has no subnet mask", "select 10.0.0.1, accepted"]),
            ("an offer without boot server waits for a better one",
                                             vec![got(plain(OTHER)), offer()],   vec!["", "select 10.0.0.1, accepted"]),
            ("and is taken when none comes", vec![got(plain(OTHER)), Timeout],   vec!["", "select 10.0.0.2, accepted"]),
            ("the first of two such offers", vec![got(plain(OTHER)), got(plain(SERVER)), Timeout],
                                                                                      vec!["", "", "select 10.0.0.2, accepted"]),
            ("an offer too late",            vec![offer(), got(reply(Kind::Offer, OTHER, None))],
                                                                                      vec!["select 10.0.0.1, accepted", ""]),
            ("NAK begins anew",              vec![offer(), nak(SERVER)],              vec!["select 10.0.0.1, accepted", "discover, refused"]),
            ("NAK of somebody else",         vec![offer(), nak(OTHER)],               vec!["select 10.0.0.1, accepted", ""]),
            ("ACK of somebody else",         vec![offer(), ack(OTHER)],               vec!["select 10.0.0.1, accepted", ""]),
            ("the second NAK begins later",  vec![offer(), nak(SERVER), offer(), nak(SERVER), Timeout],
                vec!["select 10.0.0.1, accepted", "discover, refused", "select 10.0.0.1, accepted", "refused", "discover"]),
            ("four requests unanswered",     vec![offer(), Timeout, Timeout, Timeout, Timeout],
                vec!["select 10.0.0.1, accepted", "select 10.0.0.1", "select 10.0.0.1", "select 10.0.0.1", "discover"]),
        ];
        for (case, events, expected) in cases {
            let events = events.into_iter().map(|event| (0.01, event)).collect();
            assert_eq!(run(started(), events).1, expected, "{case}");
        }
    }

    #[test]
    fn discovers_start_quick_and_never_end() {
        let mut client = started();
        let mut moments = Vec::new();
        for _ in 0..12 {
            let moment = client.until().unwrap();
            moments.push((moment.as_secs_f64() * 100.0).round() / 100.0);
            client = client.step(Event::Timeout, at(moment.as_secs_f64())).0;
        }
        let expected =
            [0.05, 0.15, 0.35, 0.75, 1.55, 3.15, 6.35, 12.75, 25.55, 41.55, 57.55, 73.55];
        assert_eq!(moments, expected);
    }

    #[test]
    fn jitter_is_at_most_a_quarter() {
        for (dice, expected) in [(0, 37_500), (u32::MAX, 62_500)] {
            let wait = after(FIRST_WAIT, 0, Chance { now: Duration::ZERO, dice });
            assert_eq!(wait.as_micros(), expected, "dice {dice}");
        }
        let wait = after(FIRST_WAIT, u32::MAX, Chance { now: Duration::ZERO, dice: u32::MAX });
        assert_eq!(wait, Duration::from_secs(20), "no overflow");
    }

    #[test]
    #[rustfmt::skip]
    fn a_lease_is_renewed_at_t1_rebound_at_t2_and_given_up_at_its_end() {
        use Event::Timeout;
        let ack = || got(reply(Kind::Ack, SERVER, Some(120)));
        let nak = || got(reply(Kind::Nak, OTHER, None));
        let cases = [
            ("renewed",        vec![(60.0, Timeout), (60.1, ack())],             vec!["extend to 10.0.0.1", "extended 10.0.0.57"]),
            ("repeated",       vec![(60.0, Timeout), (82.5, Timeout)],           vec!["extend to 10.0.0.1", "extend to 10.0.0.1"]),
            ("rebound",        vec![(60.0, Timeout), (105.0, Timeout), (105.1, ack())],
                                                                                 vec!["extend to 10.0.0.1", "extend", "extended 10.0.0.57"]),
            ("at its end",     vec![(60.0, Timeout), (105.0, Timeout), (120.0, Timeout)],
                                                                                 vec!["extend to 10.0.0.1", "extend", "discover 10.0.0.57, expired"]),
            ("taken away",     vec![(60.0, Timeout), (60.1, nak())],             vec!["extend to 10.0.0.1", "discover 10.0.0.57, refused"]),
            ("a late ACK",     vec![(1.0, ack())],                               vec![""]),
        ];
        for (case, events, expected) in cases {
            assert_eq!(run(bound(Some(120)), events).1, expected, "{case}");
        }
        assert_eq!(bound(None).until(), None, "a lease for ever needs no attention");
    }

    #[test]
    #[rustfmt::skip]
    fn nonsense_lease_times_do_not_make_a_storm() {
        let cases = [
            // lease, T1, T2 -> first renewal after
            (3600, None,       None,       1800),
            (3600, Some(100),  Some(200),  100),
            (3600, Some(5000), Some(4000), 1800), // beyond the end
            (3600, Some(300),  Some(200),  200),  // T1 after T2: at T2
            (1,    None,       None,       1),
            (6,    None,       None,       3),
            (10,   Some(0),    Some(0),    1),
        ];
        for (lasts, renew, rebind, expected) in cases {
            let mut ack = reply(Kind::Ack, SERVER, Some(lasts));
            ack.lease = ack.lease.map(|lease| Lease { renew_seconds: renew, rebind_seconds: rebind, ..lease });
            let (client, _) = started().step(got(reply(Kind::Offer, SERVER, None)), at(0.0));
            let (client, _) = client.step(got(ack), at(0.0));
            assert_eq!(client.until(), Some(Duration::from_secs(expected)), "{lasts} {renew:?} {rebind:?}");
        }
    }
}
