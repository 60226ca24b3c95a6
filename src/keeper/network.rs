//! The network of a machine whose root hangs on it, after the handover.
//!
//! Two promises. A lease that nobody else renews is renewed at its T1 and T2, as the client that the
//! agent was (`lease`, `others`). And what is taken from the link of the root, its address, its
//! routes, or that it is up, is put back unless somebody has put something else in its place (`heal`).
//!
//! An address under a root never ends here, and this is where we depart from RFC 2131 section 4.4.5
//! and RFC 8415: the kernel has it without an end, so that neither a server that is away nor the end
//! of this process takes the root away. A server that refuses, grants another address or is silent
//! past the lease's end is a warning, once, and is asked again and again. Where somebody else has told
//! the kernel of an end and does not prolong it, the end is lifted shortly before it comes.
//!
//! An address that the machine does not have any more, and that is not put back, is renewed no more:
//! another took its place, and its lease is left to its end.
//!
//! What is never done: giving a lease back; changing what somebody else has set; looking at a path of
//! the running system, whose root may be away; looking up a name.

pub mod files;
pub mod heal;
pub mod lease;
mod news;
pub mod orders;
mod others;
mod reach;
mod repair;
mod rival;
pub mod status;
mod suspect;

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Shared;
use super::status::RootState;
use crate::error::{Result, WhileDoing};
use crate::net::kernel::{Heard, HeldAddress, Kernel, What};
use crate::net::{LeaseFile, Mac, dhcp, dhcp6};
use crate::sys::clock::since_boot;
use heal::{Healer, Outcome, WantedLink, World};
use lease::{Terms, Turn, Watched};
use news::{say_aside, say_let_go};
use orders::{Heal, LinkKind, NetworkOrders};
use status::{HealStatus, NetworkStatus};

/// More than a burst of changes; who tells waits when it is full.
const QUEUE: usize = 256;
/// After the last change: software that takes an address away often gives one at once.
const QUIET: Duration = Duration::from_millis(250);
/// After the first change, however many follow: the root waits.
const PATIENCE: Duration = Duration::from_secs(1);
/// However quiet it is: changes may have been lost, or have been none of the link's own.
const BACKSTOP: Duration = Duration::from_secs(60);

/// Descriptors of folders of the running system.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub proc: BorrowedFd<'static>,
    pub run: BorrowedFd<'static>,
}

impl Place {
    /// Stays open for as long as the process lives.
    pub fn open() -> Result<Self> {
        fn folder(path: &str) -> Result<BorrowedFd<'static>> {
            let file = File::open(path).while_doing(|| format!("opening {path}"))?;
            let file: &'static File = Box::leak(Box::new(file));
            Ok(file.as_fd())
        }
        Ok(Self { proc: folder("/proc")?, run: folder("/run")? })
    }
}

/// Of a lease, among all that were handed over. Its link may change under it.
pub type Number = usize;

/// Everything that the thread reacts to.
#[derive(Debug)]
pub enum Event {
    Heard(Heard),
    /// Of the DHCPv4 client of a lease.
    Lease {
        number: Number,
        report: dhcp::Report,
    },
    Lease6 {
        number: Number,
        report: dhcp6::Report,
    },
    /// A client has ended because somebody else has its port.
    StoodAside(Number),
    /// Whether somebody else has the address of a lease that no server holds for us.
    Claimed {
        number: Number,
        by: Option<Mac>,
    },
}

/// [`keep`] in the keeper, for as long as the machine runs.
pub fn run(shared: &Shared, orders: NetworkOrders) {
    let told = Place::open().and_then(|place| {
        let root = shared.clone();
        let is_streamed = move || root.status().root.state != RootState::InMemory;
        keep(place, orders, is_streamed, |status| shared.status().network = Some(status))
    });
    if let Err(error) = told {
        log::error!(target: "network", "{error}; the root's network is not kept alive");
    }
}

/// Keeps the network until the machine ends. `is_streamed`: the root hangs on it, still; `tell` is
/// given each new state.
///
/// # Errors
/// The kernel has no ear for us.
pub fn keep(
    place: Place,
    orders: NetworkOrders,
    is_streamed: impl Fn() -> bool + 'static,
    tell: impl FnMut(NetworkStatus),
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .while_doing(|| "starting to keep the network")?;
    runtime.block_on(async {
        let (outbox, inbox) = mpsc::channel(QUEUE);
        let mut keeping = Keeping::open(place, orders, outbox, Box::new(is_streamed), tell)?;
        keeping.work(inbox).await;
        Ok(())
    })
}

struct Keeping<T> {
    place: Place,
    kernel: Kernel,
    outbox: mpsc::Sender<Event>,
    is_streamed: Box<dyn Fn() -> bool>,
    tell: T,
    /// As they were left, with the numbers and names of now.
    orders: NetworkOrders,
    lease_file: Option<LeaseFile>,
    leases: Vec<Watched>,
    /// None before the first look, with `landfall.heal=off`, and when the root does not need it.
    healer: Option<Healer>,
    heal: HealStatus,
    world: World,
    /// Since the kernel's start.
    first_change: Option<Duration>,
    look_at: Duration,
    /// Who took something away since the last look.
    suspect: Option<String>,
    /// What the kernel said last of a repair that it refused.
    refused: Option<String>,
    /// Of these it was said that somebody else has them.
    duplicates: Vec<IpAddr>,
}

impl<T: FnMut(NetworkStatus)> Keeping<T> {
    fn open(
        place: Place,
        orders: NetworkOrders,
        outbox: mpsc::Sender<Event>,
        is_streamed: Box<dyn Fn() -> bool>,
        tell: T,
    ) -> Result<Self> {
        let changes = outbox.clone();
        let kernel = Kernel::watch(move |heard| {
            let changes = changes.clone();
            async move { _ = changes.send(Event::Heard(heard)).await }
        })?;
        let mut leases = Vec::new();
        for link in &orders.links {
            let ipv4 = link.ipv4.clone().map(|lease| Terms::Ipv4(Box::new(lease)));
            let ipv6 = link.ipv6.clone().map(|lease| Terms::Ipv6(Box::new(lease)));
            for terms in [ipv4, ipv6].into_iter().flatten() {
                let found = orders.renewer(matches!(terms, Terms::Ipv4(_)));
                let is_in_file =
                    orders.lease_file.as_ref().is_some_and(|file| file.link == link.name);
                let number = leases.len();
                leases.push(Watched::new(number, link, terms, found, is_in_file));
            }
        }
        Ok(Self {
            place,
            kernel,
            outbox,
            is_streamed,
            tell,
            lease_file: orders.lease_file.clone(),
            leases,
            healer: None,
            heal: HealStatus { on: orders.heal != Heal::Never, ..HealStatus::default() },
            orders,
            world: World::default(),
            first_change: None,
            look_at: Duration::ZERO,
            suspect: None,
            refused: None,
            duplicates: Vec::new(),
        })
    }

    async fn work(&mut self, mut inbox: mpsc::Receiver<Event>) {
        self.begin().await;
        loop {
            let checks = self.leases.iter().map(|lease| lease.check_at);
            let next = checks.chain([self.look_at]).min().unwrap_or(self.look_at);
            let rest = next.saturating_sub(since_boot());
            match timeout(rest, inbox.recv()).await {
                Ok(Some(event)) => self.happened(event).await,
                Ok(None) => return,
                Err(_) => {}
            }
            let now = since_boot();
            if now >= self.look_at {
                self.look().await;
            }
            for at in 0..self.leases.len() {
                if self.leases.get(at).is_some_and(|lease| now >= lease.check_at) {
                    self.check(at).await;
                }
            }
        }
    }

    /// The kernel's state as it was left, as far as it has to stay.
    async fn begin(&mut self) {
        if let Err(error) = self.list().await {
            log::warn!(target: "network", "{error}");
        }
        self.look_at = since_boot().saturating_add(BACKSTOP);
        for at in 0..self.leases.len() {
            self.check(at).await;
        }
        let links: Vec<_> = self.orders.links.iter().filter(|link| link.carries_root).collect();
        if self.orders.heal != Heal::Never && !links.is_empty() {
            let is_down =
                |index: u32| self.world.links.iter().any(|link| link.index == index && !link.is_up);
            let master = |index: u32| {
                self.world.links.iter().find(|link| link.index == index).and_then(|it| it.master)
            };
            let wanted = links.iter().filter(|link| !is_down(link.index)).map(|link| WantedLink {
                index: link.index,
                mac: (link.kind == LinkKind::Port).then(|| link.permanent_mac.unwrap_or(link.mac)),
                is_burnt_in: link.permanent_mac.is_some(),
                name: link.name.clone(),
                master: master(link.index),
            });
            let addresses = links.iter().flat_map(|link| link.addresses.iter().copied());
            let routes = links.iter().flat_map(|link| link.routes.iter().copied());
            self.healer = Some(Healer::new(
                wanted.collect(),
                addresses.collect(),
                routes.collect(),
                self.orders.servers.clone(),
            ));
            self.change();
        }
        self.report();
    }

    async fn happened(&mut self, event: Event) {
        match event {
            Event::Heard(heard) => self.heard(heard),
            Event::Lease { number, report } => self.heard_lease(number, report).await,
            Event::Lease6 { number, report } => self.heard_lease6(number, report),
            Event::Claimed { number, by } => self.heard_claim(number, by),
            Event::StoodAside(number) => {
                if let Some(lease) = self.leases.get_mut(number) {
                    lease.stood_aside();
                    say_aside(lease);
                    self.report();
                }
            }
        }
    }

    /// Something has changed that may matter: it is looked at in a moment.
    fn change(&mut self) {
        let now = since_boot();
        let first = *self.first_change.get_or_insert(now);
        let latest = first.saturating_add(PATIENCE);
        self.look_at = now.saturating_add(QUIET).min(latest);
    }

    fn heard(&mut self, Heard { what, by }: Heard) {
        if let What::Address(held) = &what {
            let is_it = |lease: &&mut Watched| lease.address() == Some(held.address);
            if let Some(lease) = self.leases.iter_mut().find(is_it) {
                lease.heard_end(held.valid_seconds, by);
                // Its client has to follow.
                if lease.index != held.on {
                    self.change();
                }
            }
        }
        if let What::AddressGone(held) = &what
            && self.leases.iter().any(|lease| lease.address() == Some(held.address))
        {
            self.change();
        }
        let Some(healer) = &mut self.healer else { return };
        let (concerns, is_loss) = match &what {
            What::Link(link) => {
                let known = self.world.links.iter_mut().find(|known| known.index == link.index);
                let was_up = known.as_ref().is_some_and(|known| known.is_up);
                if let Some(known) = known {
                    known.clone_from(link);
                }
                let concerns = healer.concerns_link(link.index) || healer.awaits(link);
                (concerns, was_up && !link.is_up)
            }
            What::LinkGone(index) => (healer.concerns_link(*index), false),
            What::Address(held) => (healer.concerns_address(held), false),
            What::AddressGone(held) => (healer.concerns_address(held), true),
            What::Route(held) => (healer.concerns_route(held), false),
            What::RouteGone(held) => {
                // With a link that is set down the kernel ends all its routes.
                let is_up = self.world.links.iter().any(|link| link.index == held.on && link.is_up);
                if by == 0 && is_up {
                    healer.let_go(held);
                } else if is_up && suspect::listens_to_routers(self.place.proc, by) {
                    healer.was_withdrawn(held, since_boot());
                }
                (healer.concerns_route(held), true)
            }
            What::Missed => (true, false),
        };
        if !concerns {
            return;
        }
        if is_loss && by != 0 && self.suspect.is_none() && !self.heal.stands_aside {
            self.suspect = suspect::name(self.place.proc, by);
        }
        self.change();
    }

    async fn list(&mut self) -> Result<()> {
        self.world = World {
            links: self.kernel.held_links().await?,
            addresses: self.kernel.held_addresses().await?,
            routes: self.kernel.held_routes().await?,
        };
        for lease in &mut self.leases {
            let Some(held) = lease.place(&self.world).copied() else { continue };
            if lease.end.is_none() && held.valid_seconds.is_some() {
                lease.heard_end(held.valid_seconds, 0);
            }
            let Some(link) = self.world.links.iter().find(|link| link.index == held.on) else {
                continue;
            };
            let before = lease.index;
            if lease.moves_to(link) {
                log::info!(
                    target: "network",
                    "link {before}: {} is on {} (link {}) now, and so is its lease",
                    held.address, link.name, link.index
                );
                for orders in self.orders.links.iter_mut().filter(|link| link.index == before) {
                    orders.index = link.index;
                }
            }
        }
        Ok(())
    }

    /// Looks at the kernel's state, and puts back what is missing.
    async fn look(&mut self) {
        self.first_change = None;
        self.look_at = since_boot().saturating_add(BACKSTOP);
        if let Err(error) = self.list().await {
            return log::warn!(target: "network", "{error}");
        }
        let may_heal = self.orders.heal == Heal::Always || (self.is_streamed)();
        if self.healer.is_some() && !may_heal {
            self.healer = None;
            (self.heal.on, self.heal.stands_aside) = (false, false);
            log::debug!(target: "network", "the root is in memory: its link is left to the running system");
            self.report();
        }
        let outcome = self.healer.as_mut().map(|healer| healer.look(&self.world, since_boot()));
        for lease in &mut self.leases {
            let address = lease.address();
            let is_wanted = self.healer.as_ref().zip(address).is_some_and(|(h, a)| h.wants(a));
            lease.looked(&self.world, is_wanted, since_boot());
        }
        let (Some(healer), Some(outcome)) = (&self.healer, outcome) else { return };
        let duplicates = healer.duplicates(&self.world);
        self.say_duplicates(&duplicates);
        match outcome {
            Outcome::Whole => {
                (self.suspect, self.refused) = (None, None);
                if std::mem::take(&mut self.heal.stands_aside) {
                    log::info!(target: "network", "the root's link is whole again");
                    self.report();
                }
            }
            Outcome::Wait { until } => self.look_at = until,
            Outcome::Repair(repairs) => {
                let is_done = self.repair(&repairs).await;
                let healer = self.healer.as_mut();
                if healer.is_some_and(|healer| healer.repaired(is_done, since_boot())) {
                    log::warn!(
                        target: "network",
                        "somebody keeps removing it: it is put back once a minute from now on \
                         (landfall.heal=off: never)"
                    );
                    self.heal.stands_aside = true;
                }
                self.report();
                // What could not be put back is tried again, at the pace that it has then.
                self.change();
            }
        }
    }

    fn name(&self, index: u32) -> String {
        let link = self.world.links.iter().find(|link| link.index == index);
        link.map_or_else(|| format!("link {index}"), |link| link.name.clone())
    }

    /// Who renews a lease?
    async fn check(&mut self, at: usize) {
        let Some(lease) = self.leases.get_mut(at) else { return };
        let turn = lease.check(self.place.proc, &self.world, &self.outbox);
        let address = lease.address().map(|address| address.to_string()).unwrap_or_default();
        match turn {
            Turn::Same => {}
            Turn::Theirs => say_aside(lease),
            Turn::LetGo => say_let_go(lease, &self.world),
            Turn::Ours { late: false } => log::info!(
                target: "network",
                "{}: the lease of {address} ({} s) is renewed here: nobody else does",
                lease.name,
                lease.terms.lasts().unwrap_or_default()
            ),
            Turn::Ours { late: true } => log::info!(
                target: "network",
                "{}: nobody in the running system has renewed the lease of {address} in time: it is \
                 renewed here",
                lease.name
            ),
        }
        let is_lifted = lease.has_to_be_lifted() && self.lift(at).await;
        if turn != Turn::Same || is_lifted {
            self.report();
        }
    }

    /// Takes the end off the address of a lease that is renewed here. True when that is done; else it
    /// is tried again with the next check, which is soon.
    async fn lift(&mut self, at: usize) -> bool {
        // What was heard since the last look is not in it, be it the address itself.
        if let Err(error) = self.list().await {
            log::warn!(target: "network", "{error}");
        }
        let Some(lease) = self.leases.get_mut(at) else { return false };
        // Nothing to lift: whoever puts it back gives it no end.
        let Some(held) = lease.place(&self.world) else { return false };
        let held = HeldAddress { valid_seconds: None, preferred_seconds: None, ..*held };
        match self.kernel.prolong(&held).await {
            Ok(()) => {
                (lease.end, lease.lift_fails) = (None, false);
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut lease.lift_fails, true) {
                    log::warn!(
                        target: "network",
                        "{}: {error}; the address would end with its lease, so it is tried again",
                        lease.name
                    );
                }
                false
            }
        }
    }

    fn report(&mut self) {
        let root = self.orders.links.iter().rfind(|link| link.carries_root);
        let status = NetworkStatus {
            link: root.map(|link| self.name(link.index)).unwrap_or_default(),
            leases: self.leases.iter().map(Watched::status).collect(),
            heal: self.heal.clone(),
        };
        (self.tell)(status);
    }
}
