//! The DHCPv6 client of one link as a pure step: an event and the time go in; the next state, what
//! to send and what has become known come out (RFC 8415 section 18.2).
//!
//! Departures from the RFC, all because a person watches this boot and a disk hangs on its end:
//! - The first message goes out at once, not within a second; whole racks get power at the same
//!   moment, but their firmware takes longer to differ than that.
//! - It is repeated after 0.1 s, not 1 s, and never less often than every 16 s unless a server
//!   says so (SOL_MAX_RT), not every hour: links lose the first packets after carrier, spanning
//!   trees those of half a minute, and each second of ours is one of every boot.
//! - The first offer does not wait for others until that time is over, but 50 ms; 0.5 s when the
//!   root has to come from a server and this one does not say where it is.
//! - Servers are asked by multicast only, so option 12 is of no use; and there is no RELEASE of
//!   an address that is in use.
//!
//! A client that goes on with addresses in the running system ([`Client::resumed`]) keeps these: it
//! asks for all of them each time, takes over of an answer what is said of them, and gives others
//! that it was granted in their place back.

mod holding;

use std::fmt;
use std::net::Ipv6Addr;
use std::time::Duration;

use super::message::{Ask, Envelope, Kind, Reply};
use super::options::Code;
use super::phase::{Offer, Phase};
use super::timing::{self, Attempt, Times};
use crate::net::Lease6;
use crate::net::dice::Chance;
use crate::net::duid::Duid;
use crate::net::unready;

/// Time for a second server to make an offer that it prefers more.
const HOLD: Duration = Duration::from_millis(50);
/// The same where the first offer lacks what this boot needs.
const LONG_HOLD: Duration = Duration::from_millis(500);
/// RFC 8415 section 18.2.1: this server is to be taken at once.
const FIRST_CHOICE: u8 = 255;
/// Where a server names no time for refreshing options (section 21.23).
const REFRESH: Duration = Duration::from_secs(86_400);
/// Why an answer is of no use to who keeps addresses.
const OTHERS: &str = "it grants other addresses";

/// What does not change while the client lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub duid: Duid,
    pub mode: Mode,
    /// The root has to come from a server: an offer with a boot file URL is the better one.
    pub wants_boot_url: bool,
}

/// What routers say that there is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// An address, and the rest (their flag M).
    Address,
    /// The rest (their flag O).
    Information,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    rules: Rules,
    phase: Phase,
    transaction: u32,
    /// When this exchange began.
    since: Duration,
    until: Option<Duration>,
    attempt: Attempt,
    /// As it was before the last message, which may not have left the machine.
    before: Attempt,
    unsent_since: Option<Duration>,
    /// Refusals in a row.
    refusals: u32,
    /// Addresses to ask for: those of a lease that has ended.
    wish: Vec<Ipv6Addr>,
    /// The root of a running system hangs on these, and no others are of use.
    keeps: Vec<Ipv6Addr>,
    /// How often in a row others were granted in their place.
    others: u32,
    /// What servers want as the longest pause.
    solicit_limit: Option<Duration>,
    information_limit: Option<Duration>,
}

#[derive(Clone, Debug)]
pub enum Event {
    Received {
        reply: Box<Reply>,
        /// A server or a relay.
        from: Ipv6Addr,
    },
    /// The moment of [`Client::until`] has come.
    Timeout,
    /// What the last step wanted to be sent could not be: mostly because the link has no address
    /// yet that it could come from.
    Unsent,
    /// The kernel has found that somebody else has this address.
    Duplicate(Ipv6Addr),
    /// The link may be another one: its carrier was away.
    Moved,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    pub send: Option<(Ask, Envelope)>,
    pub news: Option<News>,
}

/// Who has answered: `fe80::1 (00:03:00:01:52:54:00:aa:bb:cc)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub duid: Duid,
    /// Where the answer came from: the server, or the relay of this link. A DUID finds no machine.
    pub address: Ipv6Addr,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.address, self.duid)
    }
}

/// What the rest of the agent should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A server offers this, and it will be requested.
    Accepted(Box<Lease6>),
    /// An offer that cannot be used, and why.
    Unusable { server: Server, why: String },
    /// The addresses are ours.
    Granted(Box<Lease6>),
    /// They go on, with these values.
    Extended(Box<Lease6>),
    /// Everything but addresses.
    Informed(Box<Lease6>),
    /// A server does not grant what it offered. No address is lost by it.
    Refused { server: Server, why: String },
    /// A server takes back what is in use.
    Withdrawn { server: Server, why: String },
    /// Somebody else has this address; the server is told, and asked for another.
    Declined(Ipv6Addr),
    /// The addresses have ended and nobody extended them.
    Expired,
}

impl Client {
    /// Begins on a link that has carrier.
    pub fn start(rules: Rules, chance: Chance) -> (Self, Step) {
        let phase = match rules.mode {
            Mode::Address => Phase::Soliciting { best: None },
            Mode::Information => Phase::Informing,
        };
        let mut client = Self::idle(rules, Phase::Pausing, chance);
        let step = client.enter(phase, chance);
        (client, step)
    }

    fn idle(rules: Rules, phase: Phase, chance: Chance) -> Self {
        Self {
            rules,
            phase,
            transaction: 0,
            since: chance.now,
            until: None,
            attempt: Attempt::default(),
            before: Attempt::default(),
            unsent_since: None,
            refusals: 0,
            wish: Vec::new(),
            keeps: Vec::new(),
            others: 0,
            solicit_limit: None,
            information_limit: None,
        }
    }

    /// Goes on with addresses that were granted in an earlier life, at the moment `granted` of the
    /// same clock. What should have been done by now is done at once.
    pub fn resumed(rules: Rules, lease: Box<Lease6>, granted: Duration, chance: Chance) -> Self {
        let keeps: Vec<_> = lease.addresses.iter().map(|one| one.address).collect();
        let times = Times::of(&lease, granted, chance.dice);
        Self {
            until: times.next(),
            wish: keeps.clone(),
            keeps,
            ..Self::idle(rules, Phase::Bound { lease, times }, chance)
        }
    }

    /// There is something to ask, or an answer may come: between a grant and its renewal none does,
    /// nor in a pause.
    pub fn is_asking(&self) -> bool {
        !matches!(self.phase, Phase::Bound { .. } | Phase::Informed | Phase::Pausing)
    }

    /// When the next [`Event::Timeout`] is due; `None`: never (addresses without end).
    pub fn until(&self) -> Option<Duration> {
        self.until
    }

    pub fn step(mut self, event: Event, chance: Chance) -> (Self, Step) {
        if !matches!(event, Event::Unsent | Event::Timeout) {
            self.unsent_since = None;
        }
        let step = match event {
            Event::Received { reply, from } => self.received(*reply, from, chance),
            Event::Timeout => self.timeout(chance),
            Event::Unsent => self.unsent(chance),
            Event::Duplicate(address) => self.duplicate(address, chance),
            Event::Moved => self.moved(chance),
        };
        (self, step)
    }

    fn received(&mut self, reply: Reply, from: Ipv6Addr, chance: Chance) -> Step {
        let is_ours = reply.transaction == self.transaction && reply.client == self.rules.duid;
        if !is_ours || !self.phase.expects(&reply) {
            return Step::default();
        }
        // Whatever else it says (section 18.2.9).
        if let Some(limit) = reply.solicit_max_wait {
            self.solicit_limit = Some(Duration::from_secs(limit.into()));
        }
        if let Some(limit) = reply.information_max_wait {
            self.information_limit = Some(Duration::from_secs(limit.into()));
        }
        let server = Server { duid: reply.server.clone(), address: from };
        match &self.phase {
            Phase::Soliciting { .. } => self.offered(reply, server, chance),
            Phase::Requesting { in_use, .. } => {
                let in_use = *in_use;
                self.answered(reply, server, in_use, chance)
            }
            Phase::Renewing { .. } | Phase::Rebinding { .. } => {
                self.extended(reply, server, chance)
            }
            Phase::Confirming { .. } => self.confirmed(&reply, server, chance),
            Phase::Declining { .. } => self.restart(None, chance),
            Phase::Releasing { .. } => self.pause_after_others(chance),
            Phase::Informing => self.informed(reply, server, chance),
            Phase::Bound { .. } | Phase::Pausing | Phase::Informed => Step::default(),
        }
    }

    fn offered(&mut self, reply: Reply, server: Server, chance: Chance) -> Step {
        if let Some(why) = unusable(&reply) {
            return told(News::Unusable { server, why });
        }
        if reply.kind == Kind::Reply {
            return self.granted(reply.lease, server, chance, News::Granted);
        }
        if self.is_for_others(&reply.lease) {
            return told(News::Unusable { server, why: OTHERS.to_owned() });
        }
        let Reply { server, preference, lease, .. } = reply;
        let offer = Box::new(Offer { server, preference, lease });
        let lacks_url = |offer: &Offer| self.rules.wants_boot_url && offer.lease.boot_url.is_none();
        let worth = |offer: &Offer| (!lacks_url(offer), offer.preference);
        if offer.preference == FIRST_CHOICE && !lacks_url(&offer) {
            return self.request(offer, chance);
        }
        let hold = if lacks_url(&offer) { LONG_HOLD } else { HOLD };
        let Phase::Soliciting { best } = &self.phase else { return Step::default() };
        let until = chance.now.saturating_add(hold);
        match best {
            None => self.until = Some(until),
            Some(other) if worth(&offer) > worth(other) => {
                self.until = self.until.map(|current| current.min(until));
            }
            Some(_) => return Step::default(),
        }
        self.phase = Phase::Soliciting { best: Some(offer) };
        Step::default()
    }

    fn answered(&mut self, reply: Reply, server: Server, in_use: bool, chance: Chance) -> Step {
        let Some(why) = unusable(&reply) else {
            return self.granted(reply.lease, server, chance, News::Granted);
        };
        match reply.status.code {
            // The request stands, and is repeated at its own pace (section 18.2.10).
            Code::UnspecFail | Code::UseMulticast => told(News::Refused { server, why }),
            _ => {
                let news = match in_use {
                    true => News::Withdrawn { server, why },
                    false => News::Refused { server, why },
                };
                self.forget();
                self.restart(Some(news), chance)
            }
        }
    }

    fn informed(&mut self, reply: Reply, server: Server, chance: Chance) -> Step {
        if !reply.status.is_success() {
            return told(News::Unusable { server, why: reply.status.sentence() });
        }
        self.phase = Phase::Informed;
        let refresh = reply.refresh.map_or(REFRESH, |seconds| Duration::from_secs(seconds.into()));
        self.until = Some(chance.now.saturating_add(refresh));
        told(News::Informed(Box::new(reply.lease)))
    }

    fn timeout(&mut self, chance: Chance) -> Step {
        let now = chance.now;
        match &mut self.phase {
            Phase::Soliciting { best } => match best.take() {
                Some(offer) => self.request(offer, chance),
                None => self.transmit(chance),
            },
            Phase::Requesting { .. } if self.attempt.tries >= timing::REQUEST_TRIES => {
                self.restart(None, chance)
            }
            Phase::Declining { .. } if self.attempt.tries >= timing::DECLINE_TRIES => {
                self.restart(None, chance)
            }
            Phase::Releasing { .. } if self.attempt.tries >= timing::DECLINE_TRIES => {
                self.pause_after_others(chance)
            }
            Phase::Confirming { deadline, .. } if now >= *deadline => self.resume(chance),
            Phase::Bound { lease, times }
            | Phase::Renewing { lease, times }
            | Phase::Rebinding { lease, times }
                if now >= times.end =>
            {
                self.wish = match self.keeps.as_slice() {
                    [] => lease.addresses.iter().map(|one| one.address).collect(),
                    keeps => keeps.to_vec(),
                };
                self.restart(Some(News::Expired), chance)
            }
            Phase::Bound { lease, times } | Phase::Renewing { lease, times }
                if now >= times.rebind =>
            {
                let (lease, times) = (lease.clone(), *times);
                self.enter(Phase::Rebinding { lease, times }, chance)
            }
            Phase::Bound { lease, times } => {
                let (lease, times) = (lease.clone(), *times);
                self.enter(Phase::Renewing { lease, times }, chance)
            }
            Phase::Pausing => self.enter(Phase::Soliciting { best: None }, chance),
            Phase::Informed => self.enter(Phase::Informing, chance),
            _ => self.transmit(chance),
        }
    }

    /// Soon again, as if nothing had been tried; later and later, for a link on which nothing
    /// can ever be sent.
    fn unsent(&mut self, chance: Chance) -> Step {
        self.attempt = self.before;
        let since = *self.unsent_since.get_or_insert(chance.now);
        self.until = Some(chance.now.saturating_add(unready::after_unsent(since, chance.now)));
        Step::default()
    }

    fn request(&mut self, offer: Box<Offer>, chance: Chance) -> Step {
        let news = News::Accepted(Box::new(offer.lease.clone()));
        let step = self.enter(Phase::Requesting { offer, in_use: false }, chance);
        Step { news: Some(news), ..step }
    }

    /// From the beginning: at once the first time, later with a growing pause.
    fn restart(&mut self, news: Option<News>, chance: Chance) -> Step {
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals == 1 {
            let step = self.enter(Phase::Soliciting { best: None }, chance);
            return Step { news, ..step };
        }
        self.phase = Phase::Pausing;
        let is_in_use = !self.keeps.is_empty();
        let pause = timing::after_refusals(self.refusals, is_in_use, chance.dice);
        self.until = Some(chance.now.saturating_add(pause));
        Step { send: None, news }
    }

    /// A new exchange, and its first message.
    fn enter(&mut self, phase: Phase, chance: Chance) -> Step {
        self.phase = phase;
        // Unlike a transaction, waiting times need not be hard to guess.
        self.transaction = chance.dice >> 8;
        self.since = chance.now;
        self.attempt = Attempt::default();
        self.transmit(chance)
    }

    /// The message of this phase, once more.
    fn transmit(&mut self, chance: Chance) -> Step {
        let limits = (self.solicit_limit, self.information_limit);
        let asked = self.phase.message(&self.wish, &self.keeps, limits);
        let Some((ask, schedule, latest)) = asked else {
            return Step::default();
        };
        self.before = self.attempt;
        self.attempt = self.attempt.next(schedule, chance.dice);
        let until = chance.now.saturating_add(self.attempt.wait);
        self.until = Some(latest.map_or(until, |latest| until.min(latest)));
        let hundredths = chance.now.saturating_sub(self.since).as_millis() / 10;
        let envelope = Envelope {
            transaction: self.transaction,
            hundredths: u16::try_from(hundredths).unwrap_or(u16::MAX),
        };
        Step { send: Some((ask, envelope)), news: None }
    }
}

fn told(news: News) -> Step {
    Step { send: None, news: Some(news) }
}

/// Why nothing can be had of an answer to a solicit or a request.
fn unusable(reply: &Reply) -> Option<String> {
    if !reply.status.is_success() {
        return Some(reply.status.sentence());
    }
    match &reply.association {
        Some(association) if !association.status.is_success() => {
            Some(association.status.sentence())
        }
        _ if reply.lease.addresses.is_empty() => Some("it has no usable address in it".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Association;
    use super::super::options::Status;
    use super::super::timing::Times;
    use super::*;
    use crate::net::Mac;
    use crate::net::lease6::tests::address6;
    use crate::net::lease6::{Address6, Origin6};

    const ADDRESS: &str = "2001:db8::57";
    /// The middle of the dice: no jitter. Also the transaction of everything that follows.
    const EVEN: u32 = u32::MAX / 2;

    fn at(seconds: f64) -> Chance {
        Chance { now: Duration::from_secs_f64(seconds), dice: EVEN }
    }

    fn node() -> Duid {
        Duid::of_mac(Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]))
    }

    /// The first server, the second.
    fn server(number: u8) -> Duid {
        Duid::of_mac(Mac([0, 0, 0, 0, 0, number]))
    }

    fn lease(from: u8, lasts: Option<u32>) -> Lease6 {
        let address = address6(&format!("{ADDRESS}/128"), Origin6::Dhcp);
        Lease6 {
            addresses: vec![Address6 { valid_seconds: lasts, preferred_seconds: lasts, ..address }],
            server: Some(server(from)),
            client: Some(node()),
            renew_seconds: Some(0),
            rebind_seconds: Some(0),
            ..Lease6::default()
        }
    }

    fn reply(kind: Kind, from: u8) -> Reply {
        Reply {
            kind,
            transaction: EVEN >> 8,
            client: node(),
            server: server(from),
            preference: 0,
            committed: false,
            status: of(Code::Success),
            association: Some(Association { status: of(Code::Success), withdrawn: Vec::new() }),
            lease: lease(from, Some(100)),
            solicit_max_wait: None,
            information_max_wait: None,
            refresh: None,
        }
    }

    fn of(code: Code) -> Status {
        Status { code, words: None }
    }

    /// A reply in which nothing is granted.
    fn refusal(kind: Kind, from: u8, message: Code, association: Code) -> Event {
        let lease = Lease6 { addresses: Vec::new(), ..lease(from, None) };
        let status = of(association);
        got(Reply {
            status: of(message),
            association: Some(Association { status, withdrawn: Vec::new() }),
            lease,
            ..reply(kind, from)
        })
    }

    fn got(reply: Reply) -> Event {
        Event::Received { reply: Box::new(reply), from: Ipv6Addr::LOCALHOST }
    }

    fn advertise(from: u8) -> Event {
        got(reply(Kind::Advertise, from))
    }

    fn granted(from: u8) -> Event {
        got(reply(Kind::Reply, from))
    }

    fn started(mode: Mode) -> (Client, Step) {
        let rules = Rules { duid: node(), mode, wants_boot_url: false };
        Client::start(rules, at(0.0))
    }

    fn soliciting() -> Client {
        started(Mode::Address).0
    }

    fn bound() -> Client {
        let (client, _) = run(
            soliciting(),
            vec![(0.0, advertise(1)), (0.05, Event::Timeout), (0.06, granted(1))],
        );
        // The tests below count from the moment of the grant.
        let lease = lease(1, Some(100));
        let times = Times::of(&lease, Duration::ZERO, 0);
        Client {
            phase: Phase::Bound { lease: Box::new(lease), times },
            until: times.next(),
            ..client
        }
    }

    /// What a step did, in a few words.
    fn told_by(step: &Step) -> String {
        let number = |duid: &Duid| duid.bytes().last().copied().unwrap();
        let sent = step.send.as_ref().map(|(ask, _)| match ask {
            Ask::Solicit { wish } if wish.is_empty() => "solicit".to_owned(),
            Ask::Solicit { wish } => format!("solicit {}", wish[0]),
            Ask::Request { server, .. } => format!("request {}", number(server)),
            Ask::Confirm { .. } => "confirm".to_owned(),
            Ask::Renew { server, .. } => format!("renew {}", number(server)),
            Ask::Rebind { .. } => "rebind".to_owned(),
            Ask::Decline { server, .. } => format!("decline {}", number(server)),
            Ask::Release { server, addresses } => {
                format!("release {} to {}", addresses[0], number(server))
            }
            Ask::Information => "information".to_owned(),
        });
        let news = step.news.as_ref().map(|news| match news {
            News::Accepted(_) => "accepted".to_owned(),
            News::Unusable { why, .. } => format!("unusable: {why}"),
            News::Granted(lease) => format!("granted {}", lease.addresses[0].address),
            News::Extended(lease) => format!("extended {}", lease.addresses[0].address),
            News::Informed(_) => "informed".to_owned(),
            News::Refused { why, .. } => format!("refused: {why}"),
            News::Withdrawn { why, .. } => format!("withdrawn: {why}"),
            News::Declined(address) => format!("declined {address}"),
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
            story.push(told_by(&step));
        }
        (client, story)
    }

    /// In the running system, from where the agent has left off.
    #[test]
    #[rustfmt::skip]
    fn a_lease_of_an_earlier_life_goes_on() {
        let resumed = |granted: f64, now: f64| {
            let rules = Rules { duid: node(), mode: Mode::Address, wants_boot_url: false };
            Client::resumed(rules, Box::new(lease(1, Some(100))), at(granted).now, at(now))
        };
        let client = resumed(1000.0, 1030.0);
        let until = client.until().unwrap().as_secs_f64();
        assert_eq!(((until * 10.0).round(), client.is_asking()), (10_475.0, false), "a twentieth earlier");
        let cases = [
            ("renewed",             1030.0, vec![(1050.0, Event::Timeout), (1050.1, granted(1))]),
            ("the end has passed",  1030.0, vec![(1100.0, Event::Timeout)]),
            ("what is due is done", 1090.0, vec![(1090.0, Event::Timeout), (1090.1, granted(2))]),
            ("others are offered",  1090.0, vec![(1100.0, Event::Timeout), (1100.1, got(other(Kind::Advertise)))]),
            ("others are granted",  1030.0, vec![(1050.0, Event::Timeout), (1050.1, got(other(Kind::Reply))), (1050.2, granted(1)),
                                                 (1110.0, Event::Timeout)]),
            ("and nobody hears",    1030.0, vec![(1050.0, Event::Timeout), (1050.1, got(other(Kind::Reply))), (1051.0, Event::Timeout),
                                                 (1052.0, Event::Timeout), (1053.0, Event::Timeout), (1054.0, Event::Timeout),
                                                 (1110.0, Event::Timeout)]),
        ];
        let expected = [
            vec!["renew 1", "extended 2001:db8::57"],
            vec!["solicit 2001:db8::57, expired"],
            vec!["rebind", "extended 2001:db8::57"],
            vec!["solicit 2001:db8::57, expired", "unusable: it grants other addresses"],
            vec!["renew 1", RELEASE, "", "solicit 2001:db8::57"],
            vec!["renew 1", RELEASE, "release 2001:db8::66 to 1", "release 2001:db8::66 to 1",
                 "release 2001:db8::66 to 1", "", "solicit 2001:db8::57"],
        ];
        const RELEASE: &str = "release 2001:db8::66 to 1, unusable: it grants other addresses";
        for ((case, now, events), expected) in cases.into_iter().zip(expected) {
            assert_eq!(run(resumed(1000.0, now), events).1, expected, "{case}");
        }
        let events = vec![(1050.0, Event::Timeout), (1050.1, got(other(Kind::Reply))), (1050.2, granted(1))];
        let (client, _) = run(resumed(1000.0, 1030.0), events);
        let until = client.until().unwrap().as_secs_f64();
        assert_eq!((until.round(), client.is_asking()), (1110.0, false), "a pause");
    }

    /// With other addresses in it than the one that it had.
    fn other(kind: Kind) -> Reply {
        let mut reply = reply(kind, 1);
        reply.lease.addresses = vec![address6("2001:db8::66/128", Origin6::Dhcp)];
        reply
    }

    /// A network that gets another number has both for a while, in whatever order.
    #[test]
    fn a_second_address_takes_nobodys_place() {
        let rules = Rules { duid: node(), mode: Mode::Address, wants_boot_url: false };
        for is_first in [true, false] {
            let mut both = other(Kind::Reply);
            let at_end = if is_first { 1 } else { 0 };
            let ours = lease(1, Some(100)).addresses[0];
            both.lease.addresses.insert(at_end, ours);
            let resumed = Client::resumed(
                rules.clone(),
                Box::new(lease(1, Some(100))),
                Duration::ZERO,
                at(0.0),
            );
            let (client, _) = run(resumed, vec![(50.0, Event::Timeout)]);
            let (client, step) = client.step(got(both), at(50.1));
            let Some(News::Extended(lease)) = step.news else { panic!("{step:?}") };
            assert_eq!(lease.addresses, [ours], "the other first: {is_first}");
            let (_, step) = client.step(Event::Timeout, at(100.1));
            let Some((Ask::Renew { addresses, .. }, _)) = step.send else { panic!("{step:?}") };
            assert_eq!(addresses, [ours.address], "the other first: {is_first}");
        }
    }

    /// One that an answer says nothing of lasts a while yet, and the next may.
    #[test]
    fn all_that_is_kept_is_asked_for() {
        let rules = Rules { duid: node(), mode: Mode::Address, wants_boot_url: false };
        let mut two = lease(1, Some(100));
        two.addresses.insert(0, other(Kind::Reply).lease.addresses[0]);
        let client = Client::resumed(rules, Box::new(two), Duration::ZERO, at(0.0));
        let (client, _) = run(client, vec![(50.0, Event::Timeout), (50.1, granted(1))]);
        let (_, step) = client.step(Event::Timeout, at(100.1));
        let Some((Ask::Renew { addresses, .. }, _)) = step.send else { panic!("{step:?}") };
        assert_eq!(addresses.len(), 2);
    }

    #[test]
    #[rustfmt::skip]
    fn every_answer_to_a_solicit_or_a_request_has_one_consequence() {
        use Event::Timeout;
        let first_choice = |from| got(Reply { preference: 255, ..reply(Kind::Advertise, from) });
        let preferred = |from| got(Reply { preference: 7, ..reply(Kind::Advertise, from) });
        let committed = || got(Reply { committed: true, ..reply(Kind::Reply, 1) });
        let foreign = || got(Reply { transaction: 1, preference: 255, ..reply(Kind::Advertise, 1) });
        let neighbour = || got(Reply { client: server(9), preference: 255, ..reply(Kind::Advertise, 1) });
        let empty = |kind| refusal(kind, 1, Code::Success, Code::NoAddrsAvail);
        let busy = || refusal(Kind::Reply, 1, Code::UnspecFail, Code::Success);
        let elsewhere = || refusal(Kind::Reply, 1, Code::Success, Code::NotOnLink);
        const NONE: &str = "it has no address for this machine";
        let unusable = format!("unusable: {NONE}");
        let refused = format!("solicit, refused: {NONE}");
        let cases: Vec<(&str, Vec<Event>, Vec<&str>)> = vec![
            ("the usual four messages",    vec![advertise(1), Timeout, granted(1)],    vec!["", "request 1, accepted", "granted 2001:db8::57"]),
            ("two messages",               vec![committed()],                          vec!["granted 2001:db8::57"]),
            ("silence",                    vec![Timeout, Timeout],                     vec!["solicit", "solicit"]),
            ("255 is taken at once",       vec![first_choice(1)],                      vec!["request 1, accepted"]),
            ("and while another waits",    vec![advertise(2), first_choice(1)],        vec!["", "request 1, accepted"]),
            ("the more preferred of two",  vec![advertise(2), preferred(1), Timeout],  vec!["", "", "request 1, accepted"]),
            ("the first of two equals",    vec![advertise(2), advertise(1), Timeout],  vec!["", "", "request 2, accepted"]),
            ("another transaction",        vec![foreign(), Timeout],                   vec!["", "solicit"]),
            ("another client",             vec![neighbour(), Timeout],                 vec!["", "solicit"]),
            ("a reply without commitment", vec![granted(1), Timeout],                  vec!["", "solicit"]),
            ("an offer of nothing",        vec![empty(Kind::Advertise), Timeout],      vec![&unusable, "solicit"]),
            ("the reply of somebody else", vec![advertise(1), Timeout, granted(2)],    vec!["", "request 1, accepted", ""]),
            ("an offer too late",          vec![advertise(1), Timeout, first_choice(2)], vec!["", "request 1, accepted", ""]),
            ("a request lost",             vec![advertise(1), Timeout, Timeout, granted(1)],
                vec!["", "request 1, accepted", "request 1", "granted 2001:db8::57"]),
            ("a request that nobody hears", vec![advertise(1), Timeout, Timeout, Timeout, Timeout, Timeout, Timeout],
                vec!["", "request 1, accepted", "request 1", "request 1", "request 1", "request 1", "solicit"]),
            ("a server that is busy is asked again, in its time",
                vec![advertise(1), Timeout, busy(), Timeout],
                vec!["", "request 1, accepted", "refused: it cannot, and does not say why", "request 1"]),
            ("one that has given the address away in between",
                vec![advertise(1), Timeout, empty(Kind::Reply)],
                vec!["", "request 1, accepted", &refused]),
            ("one that offers and refuses is asked with pauses",
                vec![advertise(1), Timeout, elsewhere(), advertise(1), Timeout, elsewhere(), Timeout],
                vec!["", "request 1, accepted", "solicit, refused: the address is not one for this link",
                     "", "request 1, accepted", "refused: the address is not one for this link", "solicit"]),
        ];
        for (case, events, expected) in cases {
            let events = events.into_iter().map(|event| (0.01, event)).collect();
            assert_eq!(run(soliciting(), events).1, expected, "{case}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn addresses_are_renewed_at_t1_rebound_at_t2_and_given_up_at_their_end() {
        use Event::Timeout;
        let no_binding = |from| refusal(Kind::Reply, from, Code::Success, Code::NoBinding);
        let no_addresses = |from| refusal(Kind::Reply, from, Code::Success, Code::NoAddrsAvail);
        let withdrawn = |from| got(Reply {
            association: Some(Association { status: of(Code::Success), withdrawn: vec![ADDRESS.parse().unwrap()] }),
            lease: Lease6 { addresses: Vec::new(), ..lease(from, None) },
            ..reply(Kind::Reply, from)
        });
        let silent = |from| got(Reply {
            association: None, lease: Lease6::default(), ..reply(Kind::Reply, from)
        });
        let busy = |from| refusal(Kind::Reply, from, Code::UnspecFail, Code::Success);
        let cases = [
            ("renewed",             vec![(50.0, Timeout), (50.1, granted(1))],      vec!["renew 1", "extended 2001:db8::57"]),
            ("repeated",            vec![(50.0, Timeout), (60.0, Timeout)],         vec!["renew 1", "renew 1"]),
            ("by somebody else",    vec![(50.0, Timeout), (50.1, granted(2))],      vec!["renew 1", ""]),
            ("rebound",             vec![(50.0, Timeout), (80.0, Timeout), (80.1, granted(2))],
                                                                                    vec!["renew 1", "rebind", "extended 2001:db8::57"]),
            ("at their end",        vec![(50.0, Timeout), (80.0, Timeout), (100.0, Timeout)],
                                                                                    vec!["renew 1", "rebind", "solicit 2001:db8::57, expired"]),
            ("forgotten",           vec![(50.0, Timeout), (50.1, no_binding(1)), (50.2, granted(1))],
                                                                                    vec!["renew 1", "request 1", "granted 2001:db8::57"]),
            ("forgotten for good",  vec![(50.0, Timeout), (50.1, no_binding(1)), (50.2, no_addresses(1))],
                                                                                    vec!["renew 1", "request 1", "solicit, withdrawn: it has no address for this machine"]),
            ("taken away",          vec![(50.0, Timeout), (50.1, withdrawn(1))],    vec!["renew 1", "solicit, withdrawn: it takes the address back"]),
            ("nothing said",        vec![(50.0, Timeout), (50.1, silent(1))],       vec!["renew 1", ""]),
            ("busy",                vec![(50.0, Timeout), (50.1, busy(1))],         vec!["renew 1", ""]),
            ("a late reply",        vec![(1.0, granted(1))],                        vec![""]),
        ];
        for (case, events, expected) in cases {
            assert_eq!(run(bound(), events).1, expected, "{case}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn duplicates_are_declined_and_a_moved_cable_is_noticed() {
        use Event::{Duplicate, Moved, Timeout};
        let ours = || Duplicate(ADDRESS.parse().unwrap());
        let no = |from| refusal(Kind::Reply, from, Code::NotOnLink, Code::Success);
        let yes = |from| got(Reply { association: None, lease: Lease6::default(), ..reply(Kind::Reply, from) });
        const DECLINED: &str = "decline 1, declined 2001:db8::57";
        const ELSEWHERE: &str = "solicit, withdrawn: the address is not one for this link";
        let cases = [
            ("declined",                    vec![(1.0, ours()), (1.1, yes(1))],         vec![DECLINED, "solicit"]),
            ("to nobody who hears",         vec![(1.0, ours()), (2.0, Timeout), (3.0, Timeout), (4.0, Timeout), (5.0, Timeout)],
                                                                                        vec![DECLINED, "decline 1", "decline 1", "decline 1", "solicit"]),
            ("an address that is not ours", vec![(1.0, Duplicate("2001:db8::1".parse().unwrap()))], vec![""]),
            ("the same network",            vec![(1.0, Moved), (1.1, yes(2)), (50.0, Timeout)], vec!["confirm", "", "renew 1"]),
            ("another network",             vec![(1.0, Moved), (1.1, no(2))],           vec!["confirm", ELSEWHERE]),
            ("nobody knows",                vec![(1.0, Moved), (2.0, Timeout), (11.0, Timeout), (50.0, Timeout)],
                                                                                        vec!["confirm", "confirm", "", "renew 1"]),
        ];
        for (case, events, expected) in cases {
            assert_eq!(run(bound(), events).1, expected, "{case}");
        }
    }

    /// Whom an operator has to look for has an address.
    #[test]
    fn a_server_is_named_by_its_address() {
        let empty = refusal(Kind::Advertise, 1, Code::Success, Code::NoAddrsAvail);
        let Event::Received { reply, .. } = empty else { unreachable!() };
        let from = "fe80::7".parse().unwrap();
        let (_, step) = soliciting().step(Event::Received { reply, from }, at(0.1));
        let Some(News::Unusable { server, .. }) = step.news else { panic!("{step:?}") };
        assert_eq!(server.to_string(), "fe80::7 (00:03:00:01:00:00:00:00:00:01)");
    }

    #[test]
    fn options_are_asked_for_and_refreshed() {
        let (client, step) = started(Mode::Information);
        assert_eq!(told_by(&step), "information");
        let reply = Reply { association: None, refresh: Some(900), ..reply(Kind::Reply, 2) };
        let (client, story) = run(client, vec![(0.1, Event::Timeout), (1.0, got(reply))]);
        assert_eq!(story, ["information", "informed"]);
        assert_eq!(client.until(), Some(Duration::from_secs(901)));
        let (_, story) = run(client, vec![(901.0, Event::Timeout), (902.0, Event::Moved)]);
        assert_eq!(story, ["information", "information"]);
    }

    #[test]
    fn a_boot_that_needs_a_root_waits_longer_for_an_offer_with_one() {
        let rules = Rules { duid: node(), mode: Mode::Address, wants_boot_url: true };
        let (client, _) = Client::start(rules, at(0.0));
        let mut with_url = reply(Kind::Advertise, 2);
        with_url.lease.boot_url = Some("nbd://[2001:db8::1]/focal".to_owned());
        let plain = Reply { preference: 255, ..reply(Kind::Advertise, 1) };
        let (client, story) = run(client, vec![(0.1, got(plain))]);
        assert_eq!(
            (story, client.until()),
            (vec![String::new()], Some(Duration::from_millis(600)))
        );
        let events = vec![(0.2, got(with_url)), (0.25, Event::Timeout)];
        let (_, story) = run(client, events);
        assert_eq!(story, ["", "request 2, accepted"]);
    }

    #[test]
    fn solicits_start_quick_and_never_end() {
        let mut client = soliciting();
        let mut moments = Vec::new();
        for _ in 0..11 {
            let moment = client.until().unwrap();
            moments.push((moment.as_secs_f64() * 10.0).round() / 10.0);
            client = client.step(Event::Timeout, at(moment.as_secs_f64())).0;
        }
        assert_eq!(moments, [0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 12.7, 25.5, 41.5, 57.5, 73.5]);
    }

    /// Each node of a server that is away asks everybody: one that has what it needs, seldom.
    #[test]
    fn addresses_in_use_are_solicited_seldom() {
        let rules = Rules { duid: node(), mode: Mode::Address, wants_boot_url: false };
        let lease = Box::new(lease(1, Some(100)));
        let mut client = Client::resumed(rules, lease, Duration::ZERO, at(100.0));
        let (mut now, mut waits) = (100.0, Vec::new());
        for _ in 0..9 {
            client = client.step(Event::Timeout, at(now)).0;
            let next = client.until().unwrap().as_secs_f64();
            waits.push((next - now).round());
            now = next;
        }
        assert_eq!(waits, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0, 64.0]);
    }

    /// A server that cannot cope says so, in an offer of nothing too (RFC 8415 section 18.2.9).
    #[test]
    fn servers_may_ask_for_longer_pauses() {
        let Event::Received { reply, .. } =
            refusal(Kind::Advertise, 1, Code::Success, Code::NoAddrsAvail)
        else {
            unreachable!()
        };
        let slow = got(Reply { solicit_max_wait: Some(600), ..*reply });
        let mut client = run(soliciting(), vec![(0.0, slow)]).0;
        let mut last = 0.0;
        let mut pause = 0.0;
        for _ in 0..20 {
            let moment = client.until().unwrap().as_secs_f64();
            (pause, last) = (moment - last, moment);
            client = client.step(Event::Timeout, at(moment)).0;
        }
        assert_eq!(pause.round(), 600.0);
    }

    /// The kernel needs a second to make sure of the link's own address.
    #[test]
    fn what_could_not_leave_is_tried_again_soon() {
        let mut client = soliciting();
        let mut now = 0.0;
        let mut tries = 0;
        while now < 1.5 {
            client = client.step(Event::Unsent, at(now)).0;
            now = client.until().unwrap().as_secs_f64();
            let step;
            (client, step) = client.step(Event::Timeout, at(now));
            assert_eq!(told_by(&step), "solicit");
            tries += 1;
        }
        assert!(now < 1.7 && tries < 50, "{now} s, {tries} tries");
        let wait = client.until().unwrap().as_secs_f64() - now;
        assert!((0.09..0.11).contains(&wait), "the first that left was the first: {wait}");
    }

    #[test]
    fn each_exchange_has_its_transaction_and_its_time() {
        let (client, step) = started(Mode::Address);
        let (ask, first) = step.send.unwrap();
        assert_eq!((ask, first.hundredths), (Ask::Solicit { wish: Vec::new() }, 0));
        let later = Chance { now: Duration::from_millis(1234), dice: 0x0102_0304 };
        let (client, step) = client.step(Event::Timeout, later);
        let (_, again) = step.send.unwrap();
        assert_eq!((again.transaction, again.hundredths), (first.transaction, 123));
        let offer = got(Reply { preference: 255, ..reply(Kind::Advertise, 1) });
        let (_, step) = client.step(offer, later);
        let (_, request) = step.send.unwrap();
        assert_eq!((request.transaction, request.hundredths), (0x0001_0203, 0));
    }
}
