//! The DHCP client of one link as a pure step: an event and the time go in; the next state, what to
//! send and what has become known come out (RFC 2131 section 4.4).
//!
//! Departures from the RFC, all because a person watches this boot and a disk hangs on its end:
//! the first message goes out at once and is repeated after 50 ms, not 4 s; it never gives up; an
//! address is probed for 75 ms, not for seconds; no RELEASE.

mod holding;
mod offers;

use std::net::Ipv4Addr;
use std::time::Duration;

use super::message::{Ask, Envelope, Identity, Kind, Reply};
use super::news::{News, Verdict};
use crate::net::choice::Wants;
use crate::net::dice::Chance;
use crate::net::{HardwareAddress, Lease, Mac, NetworkPlan};
pub use holding::renew_after;
use holding::{PROBE_WAIT, PROBES};

const FIRST_WAIT: Duration = Duration::from_millis(50);
/// A blocked switch port opens after 30 or 50 s; then nobody should wait long for the next try.
const LONGEST_WAIT: Duration = Duration::from_secs(16);
/// Servers that look a client up in a directory take a while.
const FIRST_REQUEST_WAIT: Duration = Duration::from_millis(400);
const REQUEST_TRIES: u32 = 4;
/// Together what it may cost that a server does not know, and therefore ignores, the address that
/// this machine had: a server that does know it answers within a round trip.
const CONFIRM_WAITS: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(150)];
/// RFC 2131 section 4.1, for an address that is in use meanwhile: nobody waits for the answer.
const LONGEST_WAIT_IN_USE: Duration = Duration::from_secs(64);
/// Why an answer is of no use to who keeps an address.
const ANOTHER_ADDRESS: &str = "it is for another address";
/// Answers go to everybody from this try on: something eats those to a machine without address.
const BROADCAST_FROM: u32 = 4;

/// What does not change while the client lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub hardware: HardwareAddress,
    /// Value of option 61.
    pub client_id: Vec<u8>,
    pub wants: Wants,
    /// The root of a running system hangs on this address, and no other is of use.
    pub keeps: Option<Ipv4Addr>,
}

impl Rules {
    pub fn of(plan: &NetworkPlan, identity: &Identity) -> Self {
        Self {
            hardware: identity.hardware,
            client_id: identity.client_id(),
            wants: Wants::of(plan),
            keeps: None,
        }
    }
}

/// An address to begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub address: Ipv4Addr,
    /// The kernel has it already, and answers for it: asking the link who has it is of no use.
    pub is_configured: bool,
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
    /// The kernel has it: from an earlier lease, or from before us.
    configured: Option<Ipv4Addr>,
    /// Who has claimed addresses that were granted to us, and which.
    claims: Option<(Mac, Vec<Ipv4Addr>)>,
    /// Offers of this exchange that have been told of.
    told: Vec<(Option<Ipv4Addr>, Option<Ipv4Addr>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// INIT-REBOOT and REBOOTING of the RFC.
    Confirming {
        address: Ipv4Addr,
        tries: usize,
    },
    Selecting {
        tries: u32,
        held: Option<Box<Lease>>,
    },
    Requesting {
        offer: Box<Lease>,
        tries: u32,
    },
    /// Granted, and not used before the link has had time to object.
    Probing {
        lease: Box<Lease>,
        granted: Duration,
        sent: u32,
    },
    Bound {
        address: Ipv4Addr,
        server: Option<Ipv4Addr>,
        times: Times,
        extending: bool,
    },
}

/// Moments of a lease that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    renew: Option<Duration>,
    rebind: Duration,
    end: Duration,
    /// Between two questions.
    shortest_wait: Duration,
}

#[derive(Clone, Debug)]
pub enum Event {
    Received(Box<Reply>),
    /// Somebody else has the address of [`Client::probes`].
    Claimed(Mac),
    /// The moment of [`Client::until`] has come.
    Timeout,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    pub send: Option<Send>,
    /// Ask the link by ARP who has this address.
    pub probe: Option<Ipv4Addr>,
    pub news: Vec<News>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    pub ask: Ask,
    pub envelope: Envelope,
    /// `None`: to everybody.
    pub to: Option<Ipv4Addr>,
}

impl Step {
    fn telling(news: impl IntoIterator<Item = News>) -> Self {
        Self { news: news.into_iter().collect(), ..Self::default() }
    }

    /// With this told before.
    fn after(mut self, mut news: Vec<News>) -> Self {
        news.append(&mut self.news);
        Self { news, ..self }
    }
}

impl Client {
    /// Begins on a link that has carrier.
    pub fn start(rules: Rules, known: Option<Known>, chance: Chance) -> (Self, Step) {
        let client = Self {
            rules,
            phase: Phase::Selecting { tries: 0, held: None },
            transaction: chance.dice,
            since: chance.now,
            until: None,
            refusals: 0,
            wish: known.map(|known| known.address),
            configured: known.filter(|known| known.is_configured).map(|known| known.address),
            claims: None,
            told: Vec::new(),
        };
        match known {
            Some(Known { address, .. }) => client.confirm(address, 0, chance),
            None => client.discover(0, chance),
        }
    }

    /// Goes on with a lease that was granted in an earlier life, at the moment `granted` of the same
    /// clock. What should have been done by now is done at once.
    pub fn resumed(rules: Rules, lease: Box<Lease>, granted: Duration, chance: Chance) -> Self {
        let rules = Rules { keeps: Some(lease.address), ..rules };
        let client = Self {
            rules,
            phase: Phase::Selecting { tries: 0, held: None },
            transaction: chance.dice,
            since: chance.now,
            until: None,
            refusals: 0,
            wish: Some(lease.address),
            configured: Some(lease.address),
            claims: None,
            told: Vec::new(),
        };
        // That it goes on is no news.
        client.bound(lease, granted, chance, News::Extended).0
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

    /// An answer may come: between a grant and its renewal none does.
    pub fn is_asking(&self) -> bool {
        !matches!(self.phase, Phase::Bound { extending: false, .. })
    }

    /// Our hardware address, and the address that is ours unless somebody on the link objects now.
    pub fn probes(&self) -> Option<(Mac, Ipv4Addr)> {
        match (&self.phase, self.rules.hardware) {
            (Phase::Probing { lease, .. }, HardwareAddress::Ethernet(mac)) => {
                Some((mac, lease.address))
            }
            _ => None,
        }
    }

    pub fn step(self, event: Event, chance: Chance) -> (Self, Step) {
        match event {
            Event::Received(reply) => self.received(*reply, chance),
            Event::Claimed(by) => self.claimed(by, chance),
            Event::Timeout => self.timeout(chance),
        }
    }

    fn is_for_us(&self, reply: &Reply) -> bool {
        let is_our_hardware = match (self.rules.hardware, reply.mac) {
            (HardwareAddress::Ethernet(ours), Some(theirs)) => ours == theirs,
            // Only the client identifier tells such machines apart, if the server sends it back.
            (HardwareAddress::Infiniband(_), None) => {
                reply.client_id.as_ref().is_none_or(|id| *id == self.rules.client_id)
            }
            _ => false,
        };
        is_our_hardware && reply.transaction == self.transaction
    }

    fn is_for_another_address(&self, reply: &Reply) -> bool {
        let is_another = |keeps| reply.lease.as_ref().is_ok_and(|lease| lease.address != keeps);
        self.rules.keeps.is_some_and(is_another)
    }

    fn received(self, reply: Reply, chance: Chance) -> (Self, Step) {
        if !self.is_for_us(&reply) {
            return (self, Step::default());
        }
        match (&self.phase, reply.kind) {
            (phase, kind) if kind != Kind::Nak && self.is_for_another_address(&reply) => {
                let news = News::Unusable { server: reply.server, why: ANOTHER_ADDRESS };
                match phase {
                    // Another server may be better disposed.
                    Phase::Selecting { .. } => (self, Step::telling([news])),
                    Phase::Bound { extending: false, .. } => (self, Step::default()),
                    _ => self.restart(news, chance),
                }
            }
            (Phase::Selecting { .. }, Kind::Offer) => self.offered(reply, chance),
            (Phase::Requesting { offer, .. }, Kind::Offer) => {
                let (taken, mut client) = (offer.server_id, self);
                let told = client.tell(&reply, Verdict::TooLate { taken });
                (client, Step::telling(told))
            }
            (Phase::Requesting { offer, .. }, Kind::Ack | Kind::Nak)
                if reply.server.is_some() && reply.server != offer.server_id =>
            {
                // Another server's opinion of an offer that is not its own.
                (self, Step::default())
            }
            (Phase::Confirming { .. }, Kind::Ack) => match reply.lease {
                // Nobody else on this link would be asked, and one of them may know.
                Ok(lease) if self.rules.wants.lack_a_root(&lease) => self.begin(chance),
                Ok(lease) => self.granted(Box::new(lease), chance),
                Err(why) => {
                    let (client, step) = self.begin(chance);
                    (client, step.after(vec![News::Unusable { server: reply.server, why }]))
                }
            },
            (Phase::Requesting { .. }, Kind::Ack) => match reply.lease {
                Ok(lease) => self.granted(Box::new(lease), chance),
                Err(why) => self.restart(News::Unusable { server: reply.server, why }, chance),
            },
            (Phase::Bound { extending: true, .. }, Kind::Ack) => match reply.lease {
                Ok(lease) => self.bound(Box::new(lease), chance.now, chance, News::Extended),
                Err(_) => (self, Step::default()),
            },
            // Only the server that is asked can know; at T2 everybody is.
            (Phase::Bound { server, times, .. }, Kind::Nak)
                if chance.now < times.rebind
                    && reply.server.is_some()
                    && reply.server != *server =>
            {
                (self, Step::default())
            }
            (
                Phase::Confirming { .. }
                | Phase::Requesting { .. }
                | Phase::Bound { extending: true, .. },
                Kind::Nak,
            ) => {
                let news = News::Refused { server: reply.server, words: reply.words };
                self.restart(news, chance)
            }
            _ => (self, Step::default()),
        }
    }

    fn timeout(mut self, chance: Chance) -> (Self, Step) {
        match &mut self.phase {
            Phase::Confirming { address, tries } if *tries < CONFIRM_WAITS.len() => {
                let (address, tries) = (*address, *tries);
                self.confirm(address, tries, chance)
            }
            // Nobody here knows of it, which RFC 2131 section 4.3.2 has servers say by silence.
            Phase::Confirming { .. } => self.begin(chance),
            Phase::Selecting { held, .. } if held.is_some() => {
                let Some(offer) = held.take() else { return (self, Step::default()) };
                self.take(offer, Verdict::Best, chance)
            }
            Phase::Selecting { tries, .. } => {
                let tries = *tries;
                self.discover(tries, chance)
            }
            Phase::Requesting { offer, tries } if *tries < REQUEST_TRIES => {
                let (offer, tries) = (offer.clone(), *tries);
                self.request(offer, tries, chance)
            }
            Phase::Requesting { offer, .. } => {
                let server = offer.server_id;
                self.restart(News::Unanswered { server }, chance)
            }
            Phase::Probing { lease, sent, .. } if *sent < PROBES => {
                *sent = sent.saturating_add(1);
                let probe = Some(lease.address);
                self.until = Some(chance.now.saturating_add(PROBE_WAIT));
                (self, Step { probe, ..Step::default() })
            }
            Phase::Probing { lease, granted, .. } => {
                let (lease, granted) = (lease.clone(), *granted);
                self.bound(lease, granted, chance, News::Granted)
            }
            Phase::Bound { times, .. } if chance.now >= times.end => {
                self.restart(News::Expired, chance)
            }
            Phase::Bound { .. } => self.extend(chance),
        }
    }

    fn confirm(mut self, address: Ipv4Addr, tries: usize, chance: Chance) -> (Self, Step) {
        let wait = CONFIRM_WAITS.get(tries).copied().unwrap_or(FIRST_WAIT);
        self.until = Some(after(wait, 0, chance));
        self.phase = Phase::Confirming { address, tries: tries.saturating_add(1) };
        let envelope = self.envelope(false, chance);
        let send = Send { ask: Ask::Confirm { address }, envelope, to: None };
        (self, Step { send: Some(send), ..Step::default() })
    }

    /// The first DISCOVER of an exchange. Late answers to what was sent before it do not count.
    fn begin(mut self, chance: Chance) -> (Self, Step) {
        self.anew(chance);
        self.discover(0, chance)
    }

    fn anew(&mut self, chance: Chance) {
        self.transaction = chance.dice;
        self.since = chance.now;
        self.told.clear();
        self.phase = Phase::Selecting { tries: 0, held: None };
    }

    fn discover(mut self, tries: u32, chance: Chance) -> (Self, Step) {
        self.until = Some(match self.rules.keeps {
            None => after(FIRST_WAIT, tries, chance),
            Some(_) => after_at_most(LONGEST_WAIT_IN_USE, Duration::from_secs(1), tries, chance),
        });
        self.phase = Phase::Selecting { tries: tries.saturating_add(1), held: None };
        let send = Send {
            ask: Ask::Discover { wish: self.wish },
            envelope: self.envelope(tries >= BROADCAST_FROM, chance),
            to: None,
        };
        (self, Step { send: Some(send), ..Step::default() })
    }

    fn request(mut self, offer: Box<Lease>, tries: u32, chance: Chance) -> (Self, Step) {
        let send = Send {
            ask: Ask::Select { address: offer.address, server: offer.server_id },
            envelope: self.envelope(tries.saturating_mul(2) >= BROADCAST_FROM, chance),
            to: None,
        };
        self.until = Some(after(FIRST_REQUEST_WAIT, tries, chance));
        self.phase = Phase::Requesting { offer, tries: tries.saturating_add(1) };
        (self, Step { send: Some(send), ..Step::default() })
    }

    /// From the beginning: at once the first time, later with a growing pause, so that a server
    /// that offers and then refuses is not asked a thousand times a second.
    fn restart(mut self, news: News, chance: Chance) -> (Self, Step) {
        match self.phase {
            // The machine keeps it until it has another.
            Phase::Bound { address, .. } => {
                self.wish = Some(address);
                self.configured = Some(address);
            }
            _ if self.rules.keeps.is_some() => {}
            _ if matches!(news, News::Refused { .. }) => self.wish = None,
            _ => {}
        }
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals == 1 {
            let (client, step) = self.begin(chance);
            return (client, step.after(vec![news]));
        }
        self.anew(chance);
        let longest = self.rules.keeps.map_or(LONGEST_WAIT, |_| LONGEST_WAIT_IN_USE);
        let tries = self.refusals.saturating_sub(2);
        self.until = Some(after_at_most(longest, Duration::from_secs(1), tries, chance));
        (self, Step::telling([news]))
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
    after_at_most(LONGEST_WAIT, first, tries, chance)
}

fn after_at_most(longest: Duration, first: Duration, tries: u32, chance: Chance) -> Duration {
    let factor = 1u32.checked_shl(tries.min(30)).unwrap_or(u32::MAX);
    let wait = first.saturating_mul(factor).min(longest);
    let quarter = f64::from(chance.dice) / f64::from(u32::MAX) * 0.5 - 0.25;
    chance.now.saturating_add(wait.mul_f64(1.0 + quarter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::dhcp::pxe::Boot;
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

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 57);

    fn rules() -> Rules {
        let hardware = HardwareAddress::Ethernet(NODE);
        Rules { hardware, client_id: vec![1], wants: Wants::of(&plan()), keeps: None }
    }

    fn started() -> Client {
        Client::start(rules(), None, at(0.0)).0
    }

    fn knowing(address: Ipv4Addr, is_configured: bool) -> Client {
        Client::start(rules(), Some(Known { address, is_configured }), at(0.0)).0
    }

    fn reply(kind: Kind, server: Ipv4Addr, lasts: Option<u32>) -> Reply {
        let lease = Lease {
            next_server: Some([10, 0, 0, 9].into()),
            server_id: Some(server),
            lease_seconds: lasts,
            ..lease("10.0.0.57/24")
        };
        Reply {
            kind,
            transaction: EVEN,
            mac: Some(NODE),
            client_id: None,
            server: Some(server),
            lease: Ok(lease),
            boot: Boot::default(),
            words: None,
        }
    }

    /// The same offer without anything to boot from.
    fn plain(server: Ipv4Addr) -> Reply {
        let mut reply = reply(Kind::Offer, server, Some(60));
        reply.lease = reply.lease.map(|lease| Lease { next_server: None, ..lease });
        reply
    }

    /// With an address that it had before, so that there is nothing to probe.
    fn bound(lasts: Option<u32>) -> Client {
        let ack = got(reply(Kind::Ack, SERVER, lasts));
        knowing(ADDRESS, true).step(ack, at(0.0)).0
    }

    /// What a step did, in a few words.
    fn told(step: &Step) -> String {
        let sent = step.send.as_ref().map(|send| {
            let what = match send.ask {
                Ask::Discover { wish: None } => "discover".to_owned(),
                Ask::Discover { wish: Some(wish) } => format!("discover {wish}"),
                Ask::Select { server, .. } => format!("select {}", server.unwrap()),
                Ask::Confirm { address } => format!("confirm {address}"),
                Ask::Extend { .. } => "extend".to_owned(),
                Ask::Decline { address, .. } => format!("decline {address}"),
                Ask::Boot { .. } => panic!("not of this exchange"),
            };
            match send.to {
                Some(server) => format!("{what} to {server}"),
                None => what,
            }
        });
        let probe = step.probe.map(|_| "probe".to_owned());
        let news = step.news.iter().filter_map(|news| match news {
            News::Weighed(_) => None,
            News::Held(_) => Some("held".to_owned()),
            News::Accepted(_) => Some("accepted".to_owned()),
            News::Unusable { why, .. } => Some(format!("unusable: {why}")),
            News::BootServer { .. } => Some("boot server".to_owned()),
            News::Unanswered { .. } => Some("unanswered".to_owned()),
            News::Conflict { declined, .. } => {
                Some(if *declined { "conflict" } else { "a liar" }.to_owned())
            }
            News::Granted(lease) => Some(format!("granted {}", lease.address)),
            News::Extended(lease) => Some(format!("extended {}", lease.address)),
            News::Refused { .. } => Some("refused".to_owned()),
            News::Expired => Some("expired".to_owned()),
        });
        sent.into_iter().chain(probe).chain(news).collect::<Vec<_>>().join(", ")
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
        let neighbour = || got(Reply { mac: Some(Mac([2; 6])), ..plain(SERVER) });
        let infiniband = || got(Reply { mac: None, ..plain(SERVER) });
        let proxy = || got(Reply {
            lease: Err("it has no address"),
            boot: Boot { menu: Some(vec![]), ..Boot::default() },
            ..plain(OTHER)
        });
        let cases = [
            ("the usual four messages",      vec![offer(), ack(SERVER)],              vec!["select 10.0.0.1, accepted", "probe"]),
            ("silence",                      vec![Timeout, Timeout],                  vec!["discover", "discover"]),
            ("another transaction",          vec![foreign()],                         vec![""]),
            ("another machine",              vec![neighbour()],                       vec![""]),
            ("a machine without MAC",        vec![infiniband()],                      vec![""]),
            ("a NAK out of the blue",        vec![nak(SERVER)],                       vec![""]),
            ("a proxy, as often as it speaks", vec![proxy(), proxy(), offer()],       vec!["boot server", "", "select 10.0.0.1, accepted"]),
            ("a double of the offer that waits",
                                             vec![got(plain(OTHER)), got(plain(OTHER)), Timeout],
                                                                                      vec!["held", "", "select 10.0.0.2, accepted"]),
            ("an ACK out of the blue",       vec![ack(SERVER)],                       vec![""]),
            ("an unusable offer",            vec![unusable(), offer()],               vec!["unusable: it has no subnet mask", "select 10.0.0.1, accepted"]),
            ("an offer without boot server waits for a better one",
                                             vec![got(plain(OTHER)), offer()],   vec!["held", "select 10.0.0.1, accepted"]),
            ("and is taken when none comes", vec![got(plain(OTHER)), Timeout],   vec!["held", "select 10.0.0.2, accepted"]),
            ("the first of two such offers", vec![got(plain(OTHER)), got(plain(SERVER)), Timeout],
                                                                                      vec!["held", "", "select 10.0.0.2, accepted"]),
            ("an offer too late",            vec![offer(), got(reply(Kind::Offer, OTHER, None))],
                                                                                      vec!["select 10.0.0.1, accepted", ""]),
            ("NAK begins anew",              vec![offer(), nak(SERVER)],              vec!["select 10.0.0.1, accepted", "discover, refused"]),
            ("NAK of somebody else",         vec![offer(), nak(OTHER)],               vec!["select 10.0.0.1, accepted", ""]),
            ("ACK of somebody else",         vec![offer(), ack(OTHER)],               vec!["select 10.0.0.1, accepted", ""]),
            ("the second NAK begins later",  vec![offer(), nak(SERVER), offer(), nak(SERVER), Timeout],
                vec!["select 10.0.0.1, accepted", "discover, refused", "select 10.0.0.1, accepted", "refused", "discover"]),
            ("four requests unanswered",     vec![offer(), Timeout, Timeout, Timeout, Timeout],
                vec!["select 10.0.0.1, accepted", "select 10.0.0.1", "select 10.0.0.1", "select 10.0.0.1", "discover, unanswered"]),
        ];
        for (case, events, expected) in cases {
            let events = events.into_iter().map(|event| (0.01, event)).collect();
            assert_eq!(run(started(), events).1, expected, "{case}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn an_address_that_is_known_is_confirmed_first() {
        use Event::Timeout;
        let ack = |server| got(reply(Kind::Ack, server, Some(60)));
        let nak = |server| got(reply(Kind::Nak, server, None));
        let useless = || got(Reply { lease: Err("it lasts 0 s"), ..reply(Kind::Ack, SERVER, None) });
        let cases = [
            ("its server knows it",            vec![ack(SERVER)],                 vec!["probe"]),
            ("after the first was lost",       vec![Timeout, ack(SERVER)],        vec!["confirm 10.0.0.57", "probe"]),
            ("nobody knows it",                vec![Timeout, Timeout],            vec!["confirm 10.0.0.57", "discover 10.0.0.57"]),
            ("it is of another network",       vec![nak(OTHER)],                  vec!["discover, refused"]),
            ("an ACK after the NAK is late",   vec![nak(OTHER), ack(SERVER)],     vec!["discover, refused", ""]),
            ("a NAK after the ACK is late",    vec![ack(SERVER), nak(OTHER)],     vec!["probe", ""]),
            ("an answer that says nothing",    vec![useless()],                   vec!["discover 10.0.0.57, unusable: it lasts 0 s"]),
        ];
        for (case, events, expected) in cases {
            let events = events.into_iter().map(|event| (0.01, event)).collect();
            assert_eq!(run(knowing(ADDRESS, false), events).1, expected, "{case}");
        }
        let (mut client, mut waited) = (knowing(ADDRESS, false), Duration::ZERO);
        for _ in 0..2 {
            waited = client.until().unwrap();
            client = client.step(Timeout, Chance { now: waited, dice: u32::MAX }).0;
        }
        assert!(waited <= Duration::from_millis(300), "{waited:?} before the first DISCOVER");

        // The root must come from DHCP: another server on the link may know it.
        let wants = Wants::of(&NetworkPlan { root_from_dhcp: true, ..plan() });
        let known = Some(Known { address: ADDRESS, is_configured: true });
        let (client, _) = Client::start(Rules { wants, ..rules() }, known, at(0.0));
        assert_eq!(run(client, vec![(0.01, ack(SERVER))]).1, ["discover 10.0.0.57"]);
    }

    #[test]
    #[rustfmt::skip]
    fn a_fresh_address_is_probed_before_it_is_used() {
        use Event::{Claimed, Timeout};
        let offer = || got(reply(Kind::Offer, SERVER, Some(60)));
        let ack = || got(reply(Kind::Ack, SERVER, Some(60)));
        let neighbour = Mac([2; 6]);
        let cases = [
            ("nobody objects",       vec![Timeout, Timeout, Timeout],  vec!["probe", "probe", "granted 10.0.0.57"]),
            ("somebody has it",      vec![Timeout, Claimed(neighbour), Timeout, offer()],
                vec!["probe", "decline 10.0.0.57, conflict", "discover", "select 10.0.0.1, accepted"]),
            ("somebody objects too late", vec![Timeout, Timeout, Timeout, Claimed(neighbour)],
                vec!["probe", "probe", "granted 10.0.0.57", ""]),
        ];
        for (case, events, expected) in cases {
            let (client, _) = run(started(), vec![(0.0, offer()), (0.0, ack())]);
            assert_eq!(client.probes(), Some((NODE, ADDRESS)), "{case}");
            let events = events.into_iter().map(|event| (0.01, event)).collect();
            assert_eq!(run(client, events).1, expected, "{case}");
        }

        let (mut client, _) = run(started(), vec![(0.0, offer()), (0.0, ack())]);
        while !client.is_bound() {
            let now = client.until().unwrap();
            assert!(now <= Duration::from_millis(75), "{now:?} for nothing");
            client = client.step(Timeout, Chance { now, dice: EVEN }).0;
        }
        assert_eq!(client.until(), Some(at(28.5).now), "T1 counts from the ACK");

        // RFC 2131 table 5, and a pause.
        let (client, _) = run(started(), vec![(0.0, offer()), (0.0, ack())]);
        let (client, step) = client.step(Claimed(neighbour), at(0.02));
        let decline = Ask::Decline { address: ADDRESS, server: Some(SERVER) };
        assert_eq!(step.send.map(|send| (send.ask, send.to)), Some((decline, None)));
        assert_eq!(client.until(), Some(Duration::from_millis(1020)));
    }

    #[test]
    fn who_claims_every_address_is_not_believed() {
        let acked = |last: u8| {
            let mut ack = reply(Kind::Ack, SERVER, Some(60));
            ack.lease = ack.lease.map(|lease| Lease { address: [10, 0, 0, last].into(), ..lease });
            ack
        };
        let claim = |by: u8| Event::Claimed(Mac([by; 6]));
        let story = |claims: [(u8, u8); 3]| {
            let mut client = started();
            let mut last = String::new();
            for (round, (by, address)) in (0u32..).zip(claims) {
                let offer = Reply { kind: Kind::Offer, ..acked(address) };
                let now = at(f64::from(round) * 20.0);
                for event in [Event::Timeout, got(offer), got(acked(address)), claim(by)] {
                    let step;
                    (client, step) = client.step(event, now);
                    last = told(&step);
                }
            }
            last
        };
        assert_eq!(story([(2, 57), (2, 58), (2, 59)]), "a liar, granted 10.0.0.59");
        assert_eq!(story([(2, 57), (3, 58), (2, 59)]), "decline 10.0.0.59, conflict", "two others");
        assert_eq!(
            story([(2, 57), (2, 58), (2, 57)]),
            "decline 10.0.0.57, conflict",
            "the server does not listen"
        );
    }

    #[test]
    fn each_offer_has_one_verdict() {
        use Verdict::{Best, NoBetter, Proxy, SaysLess, Taken, TooLate, Unusable};
        let (third, fourth) = (Ipv4Addr::new(10, 0, 0, 3), Ipv4Addr::new(10, 0, 0, 4));
        let verdicts = |events: Vec<Event>| -> Vec<(u8, Verdict)> {
            let mut client = started();
            let mut all = Vec::new();
            for event in events {
                let step;
                (client, step) = client.step(event, at(0.01));
                all.extend(step.news.into_iter().filter_map(|news| match news {
                    News::Weighed(weighed) => {
                        Some((weighed.server.unwrap().octets()[3], weighed.verdict))
                    }
                    _ => None,
                }));
            }
            all
        };
        let boot = |server| got(reply(Kind::Offer, server, Some(60)));
        let useless = got(Reply { lease: Err("it has no subnet mask"), ..plain(fourth) });
        let proxy = got(Reply {
            lease: Err("it has no address"),
            boot: Boot { menu: Some(vec![]), ..Boot::default() },
            ..plain(third)
        });
        let story = verdicts(vec![
            got(plain(OTHER)),
            got(plain(third)),
            got(plain(third)), // a double
            useless,
            boot(SERVER),
            boot(fourth),
            got(plain(OTHER)), // a double of what was passed over
        ]);
        assert_eq!(
            story,
            [
                (3, NoBetter { than: Some(OTHER) }),
                (4, Unusable("it has no subnet mask")),
                (2, SaysLess { than: Some(SERVER) }),
                (1, Taken),
                (4, TooLate { taken: Some(SERVER) }),
            ]
        );
        let story = verdicts(vec![proxy, got(plain(OTHER)), Event::Timeout]);
        assert_eq!(story, [(3, Proxy), (2, Best)]);
    }

    #[test]
    fn infiniband_is_told_apart_by_its_client_identifier() {
        let hardware = HardwareAddress::Infiniband([7; 20]);
        let rules = Rules { hardware, client_id: vec![255, 1], ..rules() };
        let offer = |client_id| got(Reply { mac: None, client_id, ..plain(SERVER) });
        let selects = |client_id| {
            let client = Client::start(rules.clone(), None, at(0.0)).0;
            let (client, _) = client.step(offer(client_id), at(0.0));
            told(&client.step(Event::Timeout, at(0.5)).1)
        };
        assert_eq!(selects(Some(vec![255, 1])), "select 10.0.0.1, accepted");
        assert_eq!(selects(None), "select 10.0.0.1, accepted", "a server before RFC 6842");
        assert_eq!(selects(Some(vec![255, 2])), "discover", "somebody else's");
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
        let nak = |server| got(reply(Kind::Nak, server, None));
        let cases = [
            ("renewed",        vec![(60.0, Timeout), (60.1, ack())],             vec!["extend to 10.0.0.1", "extended 10.0.0.57"]),
            ("repeated",       vec![(60.0, Timeout), (82.5, Timeout)],           vec!["extend to 10.0.0.1", "extend to 10.0.0.1"]),
            ("rebound",        vec![(60.0, Timeout), (105.0, Timeout), (105.1, ack())],
                                                                                 vec!["extend to 10.0.0.1", "extend", "extended 10.0.0.57"]),
            ("at its end",     vec![(60.0, Timeout), (105.0, Timeout), (120.0, Timeout)],
                                                                                 vec!["extend to 10.0.0.1", "extend", "discover 10.0.0.57, expired"]),
            ("taken away",     vec![(60.0, Timeout), (60.1, nak(SERVER))],       vec!["extend to 10.0.0.1", "discover 10.0.0.57, refused"]),
            ("somebody else cannot",
                               vec![(60.0, Timeout), (60.1, nak(OTHER)), (60.2, ack())],
                                                                                 vec!["extend to 10.0.0.1", "", "extended 10.0.0.57"]),
            ("but once all are asked",
                               vec![(60.0, Timeout), (105.0, Timeout), (105.1, nak(OTHER)), (105.2, ack())],
                                                                                 vec!["extend to 10.0.0.1", "extend", "discover 10.0.0.57, refused", ""]),
            ("a NAK out of the blue", vec![(1.0, nak(SERVER))],                  vec![""]),
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
            (3600, Some(400),  Some(500),  400),
            (3600, Some(5000), Some(4000), 1800), // beyond the end
            (3600, Some(500),  Some(400),  400),  // T1 after T2: at T2
            (3600, Some(1),    Some(2),    360),  // not before a tenth
            (60,   Some(1),    Some(50),   10),   // … and not before 10 s
            (1,    None,       None,       1),
            (6,    None,       None,       3),
            (10,   Some(0),    Some(0),    5),
        ];
        for (lasts, renew, rebind, expected) in cases {
            let mut ack = reply(Kind::Ack, SERVER, Some(lasts));
            ack.lease = ack.lease.map(|lease| Lease { renew_seconds: renew, rebind_seconds: rebind, ..lease });
            let first = |dice| knowing(ADDRESS, true).step(got(ack.clone()), Chance { dice, ..at(0.0) }).0.until().unwrap();
            assert_eq!(first(0), Duration::from_secs(expected), "{lasts} {renew:?} {rebind:?}");
            let soonest = first(u32::MAX).as_secs_f64();
            let said = Duration::from_secs(expected).as_secs_f64();
            assert!((said * 0.9..=said).contains(&soonest), "{lasts}: {soonest}");
        }
    }

    /// A thousand machines that got power together must not renew together for ever.
    #[test]
    fn machines_renew_at_different_moments() {
        let times = |dice, lasts| {
            let ack = got(reply(Kind::Ack, SERVER, Some(lasts)));
            let client = knowing(ADDRESS, true).step(ack, Chance { dice, ..at(0.0) }).0;
            let Phase::Bound { times, .. } = client.phase else { unreachable!() };
            [times.renew.unwrap(), times.rebind, times.end].map(|at| at.as_secs())
        };
        assert_eq!(times(0, 3600), [1800, 3150, 3600]);
        assert_eq!(times(u32::MAX, 3600), [1620, 2835, 3600], "earlier, and the end is the end");
        assert_eq!(times(u32::MAX, 20), [10, 15, 20], "short ones are not hurried");
    }

    #[test]
    fn a_server_that_is_away_is_not_asked_every_ten_seconds() {
        let moments = |lasts: u32| {
            let mut client = bound(Some(lasts));
            let mut waits = Vec::new();
            loop {
                let now = client.until().unwrap();
                let step;
                (client, step) = client.step(Event::Timeout, Chance { now, dice: EVEN });
                if !step.news.is_empty() {
                    return waits;
                }
                waits.push(client.until().unwrap().saturating_sub(now).as_secs_f64());
            }
        };
        // The last before T2 and the last of all are cut short by these.
        let shortest = |waits: &[f64]| {
            let all = waits.windows(2).map(|two| two[0].max(two[1]));
            all.fold(f64::MAX, f64::min).round()
        };
        let day = moments(86_400);
        assert!(shortest(&day) >= 60.0 && day.len() < 25, "{day:?}");
        let two_minutes = moments(120);
        assert!(shortest(&two_minutes) >= 10.0 && two_minutes.len() >= 4, "{two_minutes:?}");
        let jitter = |dice| {
            let (client, _) =
                bound(Some(86_400)).step(Event::Timeout, Chance { dice, ..at(43_200.0) });
            client.until().unwrap()
        };
        assert!(jitter(0) < jitter(EVEN) && jitter(EVEN) < jitter(u32::MAX));
    }
}
