//! One lease of one family: who renews it, and the client that does if nobody else.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use tokio::sync::mpsc;

use super::files::read_at;
use super::heal::World;
use super::orders::{Lease6Orders, LeaseOrders, LinkOrders};
use super::others::{self, End, Signs, Who};
use super::rival::Search;
use super::status::{LeaseStatus, RenewedBy};
use super::{Event, Number};
use crate::net::kernel::{HeldAddress, HeldLink};
use crate::net::lease6::Address6;
use crate::net::{AbortOnDrop, Lease, Lease6, Renewer, dhcp, dhcp6};
use crate::sys::clock::since_boot;

/// How often it is looked whether who renewed it is still there; for short leases a quarter of them.
const EVERY: Duration = Duration::from_secs(30);
/// An address that is away for longer than this, and is not put back, was not only moved.
const GONE: Duration = Duration::from_millis(500);
const CLIENT_PORT: u16 = 68;
const CLIENT6_PORT: u16 = 546;

/// What a lease is of.
#[derive(Clone, Debug)]
pub enum Terms {
    Ipv4(Box<LeaseOrders>),
    Ipv6(Box<Lease6Orders>),
}

pub struct Watched {
    number: Number,
    /// Of the link that the address is on.
    pub index: u32,
    pub name: String,
    pub carries_root: bool,
    pub terms: Terms,
    /// As it was handed over, whatever a server says later: the root hangs on this one.
    address: Option<IpAddr>,
    pub end: Option<End>,
    /// The kernel has refused to lift the end, which was said.
    pub lift_fails: bool,
    /// `lease.json` is about its link.
    pub is_in_file: bool,
    pub renewals: u32,
    /// What was said last of what is wrong.
    pub trouble: Option<String>,
    /// Since a server has taken it back, or it has ended.
    pub search: Search,
    found: Renewer,
    /// The client; none while somebody else renews.
    client: Option<AbortOnDrop>,
    /// Since when the kernel has not had the address, and nobody means to put it back.
    absent_since: Option<Duration>,
    /// It has been away for so long that the lease is left to its end.
    is_let_go: bool,
    pub check_at: Duration,
}

/// What has become of who renews.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Same,
    /// The keeper has begun. `late`: somebody else was to, or did before.
    Ours {
        late: bool,
    },
    /// Somebody else does.
    Theirs,
    /// Nobody has to: the machine does not have the address any more.
    LetGo,
}

impl Terms {
    fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Ipv4(orders) => Some(orders.lease.address.into()),
            Self::Ipv6(orders) => Some(orders.lease.addresses.first()?.address.into()),
        }
    }

    /// What a client of this lease binds its socket to.
    fn port(&self) -> Option<SocketAddr> {
        match self {
            Self::Ipv4(orders) => Some((orders.lease.address, CLIENT_PORT).into()),
            Self::Ipv6(orders) => Some((orders.from?, CLIENT6_PORT).into()),
        }
    }

    pub fn granted(&self) -> Duration {
        match self {
            Self::Ipv4(orders) => orders.granted,
            Self::Ipv6(orders) => orders.granted,
        }
    }

    fn set_granted(&mut self, at: Duration) {
        match self {
            Self::Ipv4(orders) => orders.granted = at,
            Self::Ipv6(orders) => orders.granted = at,
        }
    }

    /// Seconds.
    pub fn lasts(&self) -> Option<u32> {
        match self {
            Self::Ipv4(orders) => orders.lease.lease_seconds,
            Self::Ipv6(orders) => {
                let all = orders.lease.addresses.iter().map(|one| one.valid_seconds);
                all.flatten().max()
            }
        }
    }

    /// From the grant on, as the client has it, at the latest.
    fn renew_after(&self) -> Option<Duration> {
        match self {
            Self::Ipv4(orders) => dhcp::renew_after(&orders.lease),
            Self::Ipv6(orders) => dhcp6::renew_after(&orders.lease),
        }
    }

    pub fn renew_at(&self) -> Option<Duration> {
        self.renew_after().map(|after| self.granted().saturating_add(after))
    }

    fn end_at(&self) -> Option<Duration> {
        let lasts = Duration::from_secs(self.lasts()?.into());
        Some(self.granted().saturating_add(lasts))
    }

    fn server(&self) -> Option<String> {
        match self {
            Self::Ipv4(orders) => orders.lease.server_id.map(|server| server.to_string()),
            Self::Ipv6(orders) => orders.lease.server.as_ref().map(ToString::to_string),
        }
    }
}

impl Watched {
    pub fn new(
        number: Number,
        link: &LinkOrders,
        terms: Terms,
        found: Renewer,
        is_in_file: bool,
    ) -> Self {
        Self {
            number,
            index: link.index,
            name: link.name.clone(),
            carries_root: link.carries_root,
            address: terms.address(),
            terms,
            end: None,
            lift_fails: false,
            is_in_file,
            renewals: 0,
            trouble: None,
            search: Search::default(),
            found,
            client: None,
            absent_since: None,
            is_let_go: false,
            check_at: Duration::ZERO,
        }
    }

    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The address as the kernel has it: on its own link if it is there, else on any.
    pub fn place<'a>(&self, world: &'a World) -> Option<&'a HeldAddress> {
        let address = self.address?;
        let all = || world.addresses.iter().filter(move |held| held.address == address);
        all().find(|held| held.on == self.index).or_else(|| all().next())
    }

    /// Follows the address to a link. A client stays on the link that it was made for, and nobody
    /// would hear its packets there any more: true when another has to begin on this one.
    pub fn moves_to(&mut self, link: &HeldLink) -> bool {
        self.name.clone_from(&link.name);
        let has_moved = self.index != link.index;
        if has_moved {
            self.index = link.index;
            self.client = None;
            self.search.end();
            self.check_at = since_boot();
        }
        has_moved
    }

    /// It is renewed here, and somebody else has told the kernel of an end.
    pub fn has_to_be_lifted(&self) -> bool {
        self.client.is_some() && self.end.is_some()
    }

    /// Whether the kernel has the address, or will have it again: `is_wanted` when it is put back.
    /// Whoever has replaced it has a lease of its own, and a server must not go on lending two to
    /// one machine.
    pub fn looked(&mut self, world: &World, is_wanted: bool, now: Duration) {
        if is_wanted || self.place(world).is_some() {
            self.is_there(now);
        } else if !self.is_let_go {
            let since = *self.absent_since.get_or_insert(now);
            self.check_at = self.check_at.min(since.saturating_add(GONE));
        }
    }

    fn is_there(&mut self, now: Duration) {
        self.absent_since = None;
        if std::mem::take(&mut self.is_let_go) {
            self.check_at = now;
        }
    }

    /// What its client still says is of the past.
    pub fn is_let_go(&self) -> bool {
        self.is_let_go
    }

    /// The kernel says how long the address lasts. `by`: whoever told it so, 0 if nobody did.
    pub fn heard_end(&mut self, valid_seconds: Option<u32>, by: u32) {
        let now = since_boot();
        self.is_there(now);
        self.end = valid_seconds.map(|lasts| End {
            at: now.saturating_add(Duration::from_secs(lasts.into())),
            lasts,
            is_news: by != 0 || self.end.is_some_and(|end| end.is_news),
        });
        self.check_at = now;
    }

    /// Looks who renews, and begins or stops doing so.
    pub fn check(
        &mut self,
        proc: BorrowedFd<'static>,
        world: &World,
        outbox: &mpsc::Sender<Event>,
    ) -> Turn {
        let now = since_boot();
        if let Some(turn) = self.let_go(now) {
            return turn;
        }
        let Some(renew_at) = self.terms.renew_at() else {
            self.check_at = Duration::MAX;
            return Turn::Same;
        };
        let signs = Signs {
            now,
            renew_at,
            found: self.found,
            has_port: self.terms.port().is_some_and(|port| is_taken(proc, port)),
            end: self.end,
        };
        let who = others::renews(signs);
        let soon = now.saturating_add(self.every());
        let before_end = self.end.map_or(soon, |end| end.too_late().min(soon));
        // Not again and again within the last seconds, should the kernel refuse to prolong it.
        self.check_at = before_end.max(now.saturating_add(Duration::from_secs(1)));
        match (who, self.client.is_some()) {
            (Who::Keeper, true) | (Who::Somebody, false) => Turn::Same,
            (Who::Keeper, false) => {
                let late = self.found != Renewer::Nobody || self.end.is_some();
                // Whoever was found has not come; from here on only what is done counts.
                self.found = Renewer::Nobody;
                self.begin(proc, world, outbox);
                Turn::Ours { late }
            }
            (Who::Somebody, true) => {
                self.client = None;
                self.search.end();
                Turn::Theirs
            }
        }
    }

    /// Renews no more what the machine does not have any more.
    fn let_go(&mut self, now: Duration) -> Option<Turn> {
        self.absent_since.filter(|since| now >= since.saturating_add(GONE))?;
        (self.client, self.end, self.trouble) = (None, None, None);
        self.search.end();
        self.check_at = Duration::MAX;
        let is_news = !std::mem::replace(&mut self.is_let_go, true);
        Some(if is_news { Turn::LetGo } else { Turn::Same })
    }

    /// The client has seen that somebody else has its port.
    pub fn stood_aside(&mut self) {
        self.client = None;
        self.check_at = since_boot().saturating_add(self.every());
    }

    fn every(&self) -> Duration {
        let lasts = Duration::from_secs(self.terms.lasts().unwrap_or(u32::MAX).into());
        (lasts / 4).clamp(Duration::from_secs(1), EVERY)
    }

    fn begin(&mut self, proc: BorrowedFd<'static>, world: &World, outbox: &mpsc::Sender<Event>) {
        // Who had it may have extended it without our knowledge: it is asked for now, as it would
        // have been at its T1, and not as if it had ended.
        let (now, after) = (since_boot(), self.terms.renew_after().unwrap_or_default());
        if self.terms.granted().saturating_add(after) < now {
            self.terms.set_granted(now.saturating_sub(after));
        }
        let target = dhcp::Target { index: self.index, name: self.name.clone() };
        let (number, outbox) = (self.number, outbox.clone());
        let port = self.terms.port();
        let link = world.links.iter().find(|link| link.index == self.index);
        let everybody = link.and_then(|link| link.everybody.clone());
        let may_ask = move || !port.is_some_and(|port| is_taken(proc, port));
        let task = match self.terms.clone() {
            Terms::Ipv4(orders) => {
                let LeaseOrders { lease, granted, identity } = *orders;
                tokio::spawn(async move {
                    let report = |report| {
                        let outbox = outbox.clone();
                        async move { outbox.send(Event::Lease { number, report }).await.is_ok() }
                    };
                    let held = dhcp::Held { lease, granted, everybody };
                    dhcp::hold(target, identity, held, may_ask, report).await;
                    _ = outbox.send(Event::StoodAside(number)).await;
                })
            }
            Terms::Ipv6(orders) => {
                let Lease6Orders { lease, granted, identity, from: _ } = *orders;
                tokio::spawn(async move {
                    let report = |report| {
                        let outbox = outbox.clone();
                        async move { outbox.send(Event::Lease6 { number, report }).await.is_ok() }
                    };
                    let held = dhcp6::Held { lease, granted };
                    dhcp6::hold(target, identity, held, may_ask, report).await;
                    _ = outbox.send(Event::StoodAside(number)).await;
                })
            }
        };
        self.client = Some(AbortOnDrop(task.abort_handle()));
    }

    /// It goes on; gives what it was before.
    pub fn extended(&mut self, lease: Lease) -> Option<Lease> {
        let Terms::Ipv4(orders) = &mut self.terms else { return None };
        self.search.end();
        orders.granted = since_boot();
        self.renewals = self.renewals.saturating_add(1);
        Some(std::mem::replace(&mut orders.lease, lease))
    }

    pub fn extended6(&mut self, lease: Lease6) {
        let Terms::Ipv6(orders) = &mut self.terms else { return };
        let now = since_boot();
        let elapsed = now.saturating_sub(orders.granted).as_secs();
        let elapsed = u32::try_from(elapsed).unwrap_or(u32::MAX);
        let before = std::mem::replace(&mut orders.lease, lease);
        orders.lease.addresses = merged(&before.addresses, &orders.lease.addresses, elapsed);
        orders.granted = now;
        self.renewals = self.renewals.saturating_add(1);
    }

    /// True when it has not been said of this trouble yet.
    pub fn is_new_trouble(&mut self, what: &str) -> bool {
        let is_new = self.trouble.as_deref() != Some(what);
        if is_new {
            self.trouble = Some(what.to_owned());
        }
        is_new
    }

    pub fn status(&self) -> LeaseStatus {
        let seconds = |at: Duration| (at.as_secs_f64() * 10.0).round() / 10.0;
        let is_ours = self.client.is_some() || self.terms.lasts().is_none();
        let renewed_by = match () {
            () if self.is_let_go => RenewedBy::Nobody,
            () if is_ours => RenewedBy::Keeper,
            () => RenewedBy::RunningSystem,
        };
        LeaseStatus {
            link: self.name.clone(),
            address: self.address.map(|address| address.to_string()).unwrap_or_default(),
            server: self.terms.server(),
            renewed_by,
            renewals: self.renewals,
            granted: seconds(self.terms.granted()),
            renew: self.terms.renew_at().map(seconds),
            end: self.terms.end_at().map(seconds),
            trouble: self
                .search
                .found()
                .map(|by| format!("{by} HAS THE ADDRESS AS WELL"))
                .or_else(|| self.trouble.clone()),
        }
    }
}

/// Those that are kept, in their order, with the times that a server says now. Others are nothing that
/// the machine has; what it said nothing of has `elapsed` seconds less than before.
fn merged(kept: &[Address6], said: &[Address6], elapsed: u32) -> Vec<Address6> {
    let less = |seconds: Option<u32>| seconds.map(|seconds| seconds.saturating_sub(elapsed));
    let of = |old: &Address6| {
        let new = said.iter().find(|new| new.address == old.address);
        new.copied().unwrap_or(Address6 {
            preferred_seconds: less(old.preferred_seconds),
            valid_seconds: less(old.valid_seconds),
            ..*old
        })
    };
    kept.iter().map(of).collect()
}

fn is_taken(proc: BorrowedFd<'_>, port: SocketAddr) -> bool {
    let table = if port.is_ipv4() { "net/udp" } else { "net/udp6" };
    let text = read_at(proc, table).unwrap_or_default();
    others::is_bound(&text, port.ip(), port.port())
}

#[cfg(test)]
mod tests {
    use super::super::orders::LinkKind;
    use super::super::orders::tests::{NODE, address};
    use super::*;
    use crate::net::HardwareAddress;
    use crate::net::lease::tests::lease;
    use crate::net::lease6::Origin6;
    use crate::net::lease6::tests::address6;

    fn watched() -> Watched {
        let identity = dhcp::Identity {
            hardware: HardwareAddress::Ethernet(NODE),
            client_id: None,
            hostname: None,
            vendor_class: "landfall".into(),
            uuid: None,
            architecture: None,
            can_do_without_ipv4: false,
        };
        let lease = Lease { lease_seconds: Some(120), ..lease("10.0.0.5/24") };
        let orders = LeaseOrders { lease, granted: Duration::ZERO, identity };
        let link = LinkOrders {
            index: 2,
            name: "eth0".into(),
            mac: NODE,
            permanent_mac: None,
            kind: LinkKind::Port,
            carries_root: true,
            mtu: None,
            addresses: Vec::new(),
            routes: Vec::new(),
            ipv4: None,
            ipv6: None,
        };
        Watched::new(0, &link, Terms::Ipv4(Box::new(orders)), Renewer::Nobody, true)
    }

    fn link(index: u32, name: &str) -> HeldLink {
        HeldLink {
            index,
            name: name.into(),
            mac: NODE,
            permanent_mac: None,
            master: None,
            everybody: None,
            is_up: true,
            has_carrier: true,
        }
    }

    /// One that does nothing.
    fn client() -> Option<AbortOnDrop> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Some(AbortOnDrop(runtime.spawn(std::future::pending::<()>()).abort_handle()))
    }

    #[test]
    fn a_client_stays_where_the_address_is() {
        let cases = [
            ("udev has renamed it", link(2, "enp9"), false),
            ("a bridge was made of it", link(7, "br0"), true),
            ("the card has come back", link(9, "eth0"), true),
        ];
        for (case, to, expected) in cases {
            let mut lease = watched();
            (lease.client, lease.check_at) = (client(), Duration::MAX);
            assert_eq!(lease.moves_to(&to), expected, "{case}");
            assert_eq!(lease.client.is_none(), expected, "{case}: the client");
            assert_eq!(lease.check_at < Duration::MAX, expected, "{case}: another begins at once");
            assert_eq!((lease.index, lease.name), (to.index, to.name), "{case}");
        }
    }

    #[test]
    fn the_address_is_looked_for_at_home_first() {
        let on = |links: &[u32]| {
            let addresses = links.iter().map(|on| address("10.0.0.5/24", *on)).collect();
            let world = World { addresses, ..World::default() };
            watched().place(&world).map(|held| held.on)
        };
        assert_eq!(on(&[7, 2]), Some(2));
        assert_eq!(on(&[7]), Some(7));
        assert_eq!(on(&[]), None);
    }

    /// A server with a T1 of one second has no client that obeys, and nobody else is late after it.
    #[test]
    fn a_renewal_is_due_when_the_client_does_it() {
        let cases = [
            (Some(3600), None, Some(1800)),
            (Some(3600), Some(400), Some(400)),
            (Some(3600), Some(1), Some(360)),
            (Some(3600), Some(5000), Some(1800)),
            (None, Some(400), None),
        ];
        for (lease_seconds, renew_seconds, expected) in cases {
            let mut watched = watched();
            let Terms::Ipv4(orders) = &mut watched.terms else { unreachable!() };
            orders.lease = Lease { lease_seconds, renew_seconds, ..orders.lease.clone() };
            let renew_at = watched.terms.renew_at().map(|at| at.as_secs());
            assert_eq!(renew_at, expected, "{lease_seconds:?} {renew_seconds:?}");
        }
    }

    /// Renewing for ever what the machine has given up would take two addresses of the pool for it.
    #[test]
    fn an_address_that_is_gone_is_renewed_no_more() {
        let there = World { addresses: vec![address("10.0.0.5/24", 2)], ..World::default() };
        let replaced = World { addresses: vec![address("10.0.0.77/24", 2)], ..World::default() };
        let seconds = Duration::from_secs_f64;
        // What is seen at 10 s, and half a second later.
        let cases = [
            ("it is there", (&there, false), (&there, false), None),
            ("it is being put back", (&replaced, true), (&replaced, true), None),
            ("it was only moved", (&replaced, false), (&there, false), None),
            ("another is in its place", (&replaced, false), (&replaced, false), Some(Turn::LetGo)),
        ];
        for (case, first, then, expected) in cases {
            let mut lease = watched();
            (lease.client, lease.check_at) = (client(), Duration::MAX);
            lease.looked(first.0, first.1, seconds(10.0));
            assert_eq!(lease.let_go(seconds(10.4)), None, "{case}: at once");
            lease.looked(then.0, then.1, seconds(10.5));
            assert_eq!(lease.let_go(seconds(10.5)), expected, "{case}");
            assert_eq!(lease.client.is_none(), expected.is_some(), "{case}: the client");
        }
        let mut lease = watched();
        (lease.client, lease.check_at) = (client(), Duration::MAX);
        lease.looked(&replaced, false, seconds(10.0));
        assert_eq!(lease.check_at, seconds(10.5), "it is not forgotten to look again");
        assert_eq!(lease.let_go(seconds(11.0)), Some(Turn::LetGo));
        assert_eq!(lease.let_go(seconds(12.0)), Some(Turn::Same), "said once");
        assert_eq!((lease.check_at, lease.status().renewed_by), (Duration::MAX, RenewedBy::Nobody));
        // It is back: by the next look, or as soon as the kernel says so.
        lease.looked(&there, false, seconds(20.0));
        assert_eq!((lease.check_at, lease.let_go(seconds(20.0))), (seconds(20.0), None));
        lease.looked(&replaced, false, seconds(30.0));
        assert_eq!(lease.let_go(seconds(31.0)), Some(Turn::LetGo));
        lease.heard_end(None, 7);
        assert!(!lease.is_let_go() && lease.check_at < Duration::MAX);
    }

    #[test]
    fn a_server_with_more_addresses_does_not_change_which_is_kept() {
        let of = |text: &str, seconds: u32| Address6 {
            preferred_seconds: Some(seconds),
            valid_seconds: Some(seconds),
            ..address6(&format!("{text}/128"), Origin6::Dhcp)
        };
        let (old, new) = (of("2001:db8:5::50", 120), of("2001:db8:6::50", 120));
        let second = of("2001:db8:5::51", 120);
        let cases = [
            ("the usual", vec![old], vec![old], vec![old]),
            ("a new network first", vec![old], vec![new, old], vec![old]),
            ("a new network last", vec![old], vec![old, new], vec![old]),
            ("another order", vec![old, second], vec![second, old], vec![old, second]),
            ("one of two", vec![old, second], vec![second], vec![of("2001:db8:5::50", 60), second]),
        ];
        for (case, kept, said, expected) in cases {
            assert_eq!(merged(&kept, &said, 60), expected, "{case}");
        }
        let identity = dhcp6::Identity {
            duid: crate::net::duid::Duid::of_mac(NODE),
            iaid: 1,
            hostname: None,
            class: "landfall".into(),
            architecture: None,
        };
        let of =
            |addresses: &[Address6]| Lease6 { addresses: addresses.to_vec(), ..Lease6::default() };
        let (granted, from) = (since_boot(), None);
        let orders = Lease6Orders { lease: of(&[old]), from, granted, identity };
        let terms = Terms::Ipv6(Box::new(orders));
        let mut lease = Watched { address: terms.address(), terms, ..watched() };
        lease.extended6(of(&[new, old]));
        assert_eq!(lease.address(), Some(old.address.into()));
        assert_eq!((lease.terms.address(), lease.renewals), (lease.address(), 1));
    }

    /// Not only at the moment when the keeper takes over: the kernel may refuse then.
    #[test]
    fn an_end_is_lifted_until_it_is_gone() {
        let end = Some(End { at: Duration::from_secs(120), lasts: 120, is_news: true });
        let cases = [
            ("renewed here, and somebody's end", true, end, true),
            ("renewed here, without an end", true, None, false),
            ("it is somebody else's", false, end, false),
        ];
        for (case, is_ours, end, expected) in cases {
            let mut lease = watched();
            (lease.client, lease.end) = (is_ours.then(client).flatten(), end);
            assert_eq!(lease.has_to_be_lifted(), expected, "{case}");
        }
    }
}
