//! The one background thread of the network. It brings links up, lets a DHCP client run on each of
//! them, chooses, tells the kernel, and then stays to keep the lease alive: copying a root into
//! memory may take longer than a short lease lasts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc as handoff;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::adopt::{self, Found};
use super::choice::{self, Verdict, Wants};
use super::dhcp::{self, Identity, News, Report, who};
use super::held::{Held, Lifetime, configure};
use super::kernel::{Change, Kernel, Link, Origin, Shape};
use super::link;
use super::port::{AbortOnDrop, Port, Stage};
use super::{Addressing, HardwareAddress, Lease, NetworkPlan};
use crate::console;
use crate::error::{Error, Result, WhileDoing};
use crate::machine::modules::unclaimed_network;

/// How often the console may be reminded, and what failed is tried again.
const TICK: Duration = Duration::from_secs(1);
/// More than a burst of link changes; senders wait when it is full.
const QUEUE: usize = 256;

/// What the thread has settled on.
#[derive(Clone, Debug)]
pub struct Settled {
    pub link: Link,
    pub lease: Lease,
    pub origin: Origin,
}

/// The thread, as seen from outside.
#[derive(Debug)]
pub struct Worker {
    events: mpsc::Sender<Event>,
    thread: JoinHandle<()>,
}

/// Everything that the thread reacts to.
pub enum Event {
    Kernel(Change),
    /// From the client that was started with this number.
    Client {
        index: u32,
        run: u64,
        report: Report,
    },
    MakePermanent(handoff::SyncSender<Result<()>>),
    Stop,
}

impl Worker {
    /// Starts the thread, and returns when it has a configured link. `Err` only for what waiting
    /// cannot cure.
    pub fn start(plan: &NetworkPlan) -> Result<(Self, Settled)> {
        let doing = || "starting the network thread";
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .while_doing(doing)?;
        let (events, inbox) = mpsc::channel(QUEUE);
        let (settle, settled) = handoff::sync_channel(1);
        let plan = plan.clone();
        let outbox = events.clone();
        let thread = std::thread::Builder::new()
            .name("network".into())
            .spawn(move || runtime.block_on(work(plan, inbox, outbox, settle)))
            .while_doing(doing)?;
        let settled = settled.recv().map_err(|_| Error::refused(doing(), "it has ended"))??;
        Ok((Self { events, thread }, settled))
    }

    /// Lets the address of the link outlive its lease, for systems in which nobody renews it.
    pub fn make_permanent(&self) -> Result<()> {
        let doing = "making the address permanent";
        let ended = || Error::refused(doing, "the network thread has ended");
        let (reply, outcome) = handoff::sync_channel(1);
        self.events.blocking_send(Event::MakePermanent(reply)).map_err(|_| ended())?;
        outcome.recv().map_err(|_| ended())?
    }

    /// Ends the thread and closes its sockets; the link stays as it is, the lease is not given
    /// back.
    pub fn stop(self) {
        // It may have ended already; that is what we want.
        let _ = self.events.blocking_send(Event::Stop);
        let _ = self.thread.join();
    }
}

async fn work(
    plan: NetworkPlan,
    mut inbox: mpsc::Receiver<Event>,
    outbox: mpsc::Sender<Event>,
    settle: handoff::SyncSender<Result<Settled>>,
) {
    let mut desk = match Desk::open(plan, outbox).await {
        Ok(desk) => desk,
        Err(error) => return drop(settle.send(Err(error))),
    };
    let Some(outcome) = desk.choose(&mut inbox).await else { return };
    let mut held = match outcome {
        Ok(held) => held,
        Err(error) => return drop(settle.send(Err(error))),
    };
    let (link, lease) = (held.port.link.clone(), held.lease.clone());
    let settled = Settled { link, lease, origin: held.origin };
    // Nobody is listening only when the boot has failed elsewhere.
    let _ = settle.send(Ok(settled));
    held.keep(&desk.kernel, &mut inbox).await;
}

/// Everything known until a link is chosen.
struct Desk {
    plan: NetworkPlan,
    wants: Wants,
    kernel: Kernel,
    outbox: mpsc::Sender<Event>,
    ports: BTreeMap<u32, Port>,
    /// Links that take no part, for messages.
    others: BTreeMap<u32, Link>,
    /// Links that were configured before us.
    found: BTreeMap<u32, Found>,
    runs: u64,
}

impl Desk {
    async fn open(plan: NetworkPlan, outbox: mpsc::Sender<Event>) -> Result<Self> {
        let changes = outbox.clone();
        let kernel = Kernel::connect(move |change| {
            let changes = changes.clone();
            async move { _ = changes.send(Event::Kernel(change)).await }
        })?;
        let wants = Wants::of(&plan);
        let found = find(&kernel).await.unwrap_or_else(|error| {
            log::debug!(target: "network", "{error}");
            BTreeMap::new()
        });
        let (ports, others) = (BTreeMap::new(), BTreeMap::new());
        let mut desk = Self { plan, wants, kernel, outbox, ports, others, found, runs: 0 };
        desk.list().await?;
        Ok(desk)
    }

    /// Looks at all links there are: at first, and when the kernel says that we missed something.
    async fn list(&mut self) -> Result<()> {
        let links = self.kernel.links().await?;
        self.ports.retain(|index, _| links.iter().any(|link| link.index == *index));
        self.others.clear();
        for link in links {
            if link.shape == Shape::Loopback && !link.is_up {
                self.kernel.set_up(&link).await?;
            }
            self.link_changed(link).await;
        }
        Ok(())
    }

    /// Waits until a link is configured. `None` when the boot has ended meanwhile.
    async fn choose(&mut self, inbox: &mut mpsc::Receiver<Event>) -> Option<Result<Held>> {
        let waiting = console::waiting("network", self.survey());
        loop {
            let is_static = matches!(self.plan.addressing, Addressing::Static { .. });
            let indices: Vec<u32> = self.ports.keys().copied().collect();
            let standings: Vec<_> =
                self.ports.values().map(|port| port.standing(self.wants, is_static)).collect();
            let verdict = choice::judge(&standings);
            if let Verdict::Take(winner) = verdict
                && let Some(port) = indices.get(winner).and_then(|index| self.ports.remove(index))
            {
                match self.take(port).await {
                    Ok(Some(held)) => return Some(Ok(held)),
                    Ok(None) => continue,
                    Err(error) => return Some(Err(error)),
                }
            }
            let patience = match verdict {
                Verdict::WaitFor(rest) => rest.min(TICK),
                Verdict::Take(_) | Verdict::Wait => TICK,
            };
            match timeout(patience, inbox.recv()).await {
                Ok(Some(event)) => match event {
                    Event::Kernel(change) => {
                        if let Err(error) = self.kernel_changed(change).await {
                            return Some(Err(error));
                        }
                    }
                    Event::Client { index, run, report } => self.heard(index, run, report),
                    Event::MakePermanent(reply) => {
                        let early = Error::refused("making the address permanent", "there is none");
                        let _ = reply.try_send(Err(early));
                    }
                    Event::Stop => return None,
                },
                Ok(None) => return None,
                Err(_) => {}
            }
            self.try_again().await;
            waiting.still(self.survey());
        }
    }

    fn survey(&self) -> String {
        let links: Vec<_> =
            self.ports.values().map(|port| (port.link.name.as_str(), port.progress())).collect();
        let others: Vec<_> = self.others.values().collect();
        let driverless =
            if links.is_empty() { unclaimed_network(Path::new("/sys")) } else { Vec::new() };
        link::survey(&self.plan.link, &links, &others, &driverless)
    }

    async fn kernel_changed(&mut self, change: Change) -> Result<()> {
        match change {
            Change::Link(link) => self.link_changed(link).await,
            Change::Gone(index) => {
                self.ports.remove(&index);
                self.others.remove(&index);
            }
            Change::Missed => self.list().await?,
        }
        Ok(())
    }

    async fn link_changed(&mut self, link: Link) {
        let index = link.index;
        let adopted: Vec<u32> = self.found.keys().copied().collect();
        if !link::takes_part(&self.plan.link, &link, Path::new("/sys"), &adopted) {
            self.ports.remove(&index);
            self.others.insert(index, link);
            return;
        }
        let mut port = self.ports.remove(&index).unwrap_or_else(|| Port {
            was_up: link.is_up,
            link: link.clone(),
            progress: Stage::NoCarrier,
            client: None,
            again_at: None,
            as_found_at: None,
            has_failed: false,
        });
        port.link = link;
        if !port.link.is_up {
            port.progress = Stage::NoCarrier;
            port.client = None;
            if port.again_at.is_none() {
                self.set_up(&mut port).await;
            }
        } else {
            port.again_at = None;
            match (port.link.has_carrier, &port.progress) {
                (true, Stage::NoCarrier) => self.begin(&mut port),
                (false, Stage::Asking { .. } | Stage::Leased { .. }) => {
                    log::debug!(target: "network", "{} has lost its carrier", port.link.name);
                    port.progress = Stage::NoCarrier;
                    port.client = None;
                }
                _ => {}
            }
        }
        self.ports.insert(index, port);
    }

    /// The kernel tells by another change when it has happened.
    async fn set_up(&self, port: &mut Port) {
        port.again_at = Some(Instant::now() + 5 * TICK);
        if let Err(error) = self.kernel.set_up(&port.link).await
            && !port.has_failed
        {
            port.has_failed = true;
            log::warn!(target: "network", "{error}; it is tried again (firmware missing?)");
        }
    }

    async fn try_again(&mut self) {
        self.settle_for_what_was_found();
        let due = |port: &Port| port.again_at.is_some_and(|at| Instant::now() >= at);
        let indices: Vec<u32> =
            self.ports.iter().filter(|(_, port)| due(port)).map(|(index, _)| *index).collect();
        for index in indices {
            let Some(mut port) = self.ports.remove(&index) else { continue };
            if !port.link.is_up {
                self.set_up(&mut port).await;
            } else {
                port.again_at = None;
                if port.link.has_carrier {
                    self.begin(&mut port);
                }
            }
            self.ports.insert(index, port);
        }
    }

    /// Nobody answers on a link that has an address: it stays as it is.
    fn settle_for_what_was_found(&mut self) {
        for (index, port) in &mut self.ports {
            let Some(Found { lease, .. }) = self.found.get(index) else { continue };
            // Without a root there is nothing to go on with: somebody has to answer.
            if self.wants.lack_a_root(lease) {
                continue;
            }
            let silent = matches!(port.progress, Stage::Asking { promised: None, .. });
            if silent && port.as_found_at.is_some_and(|at| Instant::now() >= at) {
                log::warn!(
                    target: "network",
                    "{}: no DHCP server answers; it keeps {} as it was found, and nobody renews that",
                    port.link.name,
                    lease.address
                );
                port.leave_as_found(lease);
            }
        }
    }

    /// Carrier: now is the moment.
    fn begin(&mut self, port: &mut Port) {
        let since = Instant::now();
        let found = self.found.get(&port.link.index);
        match self.plan.addressing {
            Addressing::Static { address, prefix, gateway } => {
                let lease = Box::new(Lease::typed(address, prefix, gateway));
                port.progress = Stage::Leased { since, lease, as_found: false };
            }
            // Nobody to ask, unless only DHCP can say where the root is.
            Addressing::Dhcp { .. }
                if let Some(found) = found
                    .filter(|found| found.by_hand && !self.wants.lack_a_root(&found.lease)) =>
            {
                port.leave_as_found(&found.lease);
            }
            Addressing::Dhcp { request } => {
                port.progress = Stage::asking(since);
                port.as_found_at = found.map(|_| since + adopt::PATIENCE);
                let found = found.map(|found| found.lease.address);
                let is_configured = found.is_some();
                let request =
                    found.or(request).map(|address| dhcp::Known { address, is_configured });
                self.runs = self.runs.saturating_add(1);
                let (index, run, outbox) = (port.link.index, self.runs, self.outbox.clone());
                let tell = move |report| {
                    let outbox = outbox.clone();
                    async move { outbox.send(Event::Client { index, run, report }).await.is_ok() }
                };
                let target = dhcp::Target { index, name: port.link.name.clone() };
                let identity = identity(&self.plan, &port.link);
                let client = dhcp::run(target, identity, self.wants, request, tell);
                port.client = Some((run, AbortOnDrop(tokio::spawn(client).abort_handle())));
            }
        }
    }

    fn heard(&mut self, index: u32, run: u64, report: Report) {
        let Some(port) = self.ports.get_mut(&index) else { return };
        // A report may still be in the queue when its client is gone.
        if port.client.as_ref().is_none_or(|(current, _)| *current != run) {
            return;
        }
        let name = port.link.name.clone();
        match report {
            Report::Sent(count) => {
                if let Stage::Asking { sent, .. } = &mut port.progress {
                    *sent = count;
                }
            }
            Report::Deaf(error) => port.trouble(error.to_string()),
            Report::News(News::Accepted(lease)) => {
                if let Stage::Asking { promised, .. } = &mut port.progress {
                    *promised = Some(self.wants.worth(&lease));
                }
                log::debug!(target: "network", "{name}: offer of {}/{} from {}", lease.address, lease.prefix, who(lease.server_id));
            }
            Report::News(News::Weighed(weighed)) => {
                log::debug!(target: "network", "{name}: {weighed}");
            }
            Report::News(News::BootServer { server, .. }) => {
                log::debug!(target: "network", "{name}: {server} is a PXE boot server");
            }
            Report::News(News::Unanswered { server }) => {
                port.trouble(format!("{} offers an address and then falls silent", who(server)));
            }
            Report::News(News::Conflict { address, by, declined: true }) => {
                port.trouble(format!("{address} is in use by {by}, and given back to the server"));
            }
            Report::News(News::Conflict { address, by, declined: false }) => {
                log::warn!(target: "network", "{name}: {by} answers for every address; {address} is used nevertheless");
            }
            Report::News(News::Unusable { server, why }) => {
                port.trouble(format!("{} offers nothing usable: {why}", who(server)));
            }
            Report::News(News::Refused { server, words }) => {
                let words = words.map(|words| format!(": {words}")).unwrap_or_default();
                port.trouble(format!("{} takes its offer back{words}", who(server)));
            }
            Report::News(News::Granted(lease) | News::Extended(lease)) => {
                let since = match port.progress {
                    Stage::Leased { since, .. } => since,
                    Stage::NoCarrier | Stage::Asking { .. } => Instant::now(),
                };
                port.progress = Stage::Leased { since, lease, as_found: false };
            }
            Report::News(News::Expired) => {
                port.progress = Stage::asking(Instant::now());
            }
        }
    }

    /// Configures the chosen link. `Ok(None)` when it turned out to be unusable and goes on trying.
    async fn take(&mut self, mut port: Port) -> Result<Option<Held>> {
        let Stage::Leased { lease, .. } = &port.progress else { return Ok(None) };
        let lease = (**lease).clone();
        let origin = match self.plan.addressing {
            _ if port.is_as_found() => Origin::Host,
            Addressing::Dhcp { .. } => Origin::Dhcp,
            Addressing::Static { .. } => Origin::CommandLine,
        };
        // Its routes stay: those that the lease does not have were added on purpose.
        let before = self
            .found
            .get(&port.link.index)
            .map(|found| Lease { routes: Vec::new(), ..found.lease.clone() });
        if let Err(error) =
            configure(&self.kernel, &port.link, before.as_ref(), &lease, origin, Lifetime::OfLease)
                .await
        {
            if origin == Origin::CommandLine && !error.is_transient() {
                return Err(error);
            }
            log::warn!(target: "network", "{error}");
            // The link may have gone; if not, its next change or the client's next lease counts.
            port.client = None;
            port.progress = Stage::NoCarrier;
            port.again_at = Some(Instant::now() + TICK);
            self.ports.insert(port.link.index, port);
            return Ok(None);
        }
        self.dismiss((&port.link.name, &lease)).await;
        Ok(Some(Held { port, lease, origin, lifetime: Lifetime::OfLease }))
    }

    /// Says why the others were not chosen, and leaves them as they were found.
    async fn dismiss(&mut self, winner: (&str, &Lease)) {
        let losers: Vec<_> =
            self.ports.values().map(|port| (port.link.name.as_str(), port.progress())).collect();
        for line in link::why_not(&losers, winner, self.wants) {
            log::info!(target: "network", "{line}");
        }
        for port in std::mem::take(&mut self.ports).into_values() {
            drop(port.client);
            if !port.was_up
                && let Err(error) = self.kernel.set_down(&port.link).await
            {
                log::debug!(target: "network", "{error}");
            }
        }
    }
}

/// Links that somebody has configured before us.
async fn find(kernel: &Kernel) -> Result<BTreeMap<u32, Found>> {
    let (links, addresses) = (kernel.links().await?, kernel.addresses().await?);
    let routes = kernel.routes().await?;
    let found = adopt::found(&links, &addresses, &routes, Path::new("/run"));
    for link in &links {
        if let Some(Found { lease: Lease { address, prefix, .. }, .. }) = found.get(&link.index) {
            log::info!(target: "network", "{} has {address}/{prefix} already", link.name);
        }
    }
    Ok(found)
}

fn identity(plan: &NetworkPlan, link: &Link) -> Identity {
    Identity {
        hardware: HardwareAddress::Ethernet(link.mac),
        client_id: None,
        hostname: plan.hostname.clone(),
        vendor_class: plan.vendor_class.clone(),
        uuid: plan.uuid,
        architecture: architecture(Path::new("/sys")),
        can_do_without_ipv4: false,
    }
}

/// RFC 4578 and IANA's list: how the firmware of this machine boots from a network.
fn architecture(sys: &Path) -> Option<u16> {
    let efi_bits = std::fs::read_to_string(sys.join("firmware/efi/fw_platform_size"));
    let has_efi = sys.join("firmware/efi").exists();
    match (std::env::consts::ARCH, has_efi, efi_bits.as_deref().map(str::trim)) {
        ("x86_64", true, Ok("32")) => Some(0x0006),
        ("x86_64", true, _) => Some(0x0007),
        ("x86_64", false, _) => Some(0x0000),
        ("aarch64", true, _) => Some(0x000b),
        // U-Boot, as the one that fetches a kernel on boards without UEFI.
        ("aarch64", false, _) => Some(0x0016),
        _ => None,
    }
}
