//! Where all events of the network meet: links, clients of both families, callers.
//!
//! Before the choice it runs whatever may bring an address; after it, it keeps the links that are in
//! use as they were promised, and lets nothing that was given go until there is something better.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::adopt::{self, Found};
use super::apply::{self, Lifetime};
use super::choice::{self, Verdict, Wants};
use super::configured::Configured;
use super::description::{AddressRequest, Ipv4Method, Ipv6Method, Needs};
use super::dhcp::{self, News, Report, pxe, who};
use super::dhcp6;
use super::keep::{Renewer, Renewers};
use super::kernel::{Change, Kernel, Kind, Known6, Link, Origin, Shape, State6};
use super::lease6::Address6;
use super::port::ipv4::Stage;
use super::port::{Family, Port};
use super::ra::Haste;
use super::topology::{self, Action};
use super::worker::Event;
use super::{Lease, Lease6, NetworkPlan, identity, link, ra};
use crate::console;
use crate::error::{Error, Result};
use crate::machine::modules::unclaimed_network;

/// How often the console may be reminded, and what failed is tried again.
const TICK: Duration = Duration::from_secs(1);
/// The kernel's settings for IPv6.
const IPV6: &str = "/proc/sys/net/ipv6";
/// What the kernel refused is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// A change to a link that the kernel was asked for.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    again_at: Instant,
    has_failed: bool,
}

pub struct Desk {
    plan: NetworkPlan,
    wants: Wants,
    kernel: Kernel,
    outbox: mpsc::Sender<Event>,
    /// All that the kernel has told of.
    links: BTreeMap<u32, Link>,
    /// Those that get addresses.
    ports: BTreeMap<u32, Port>,
    /// Links that were configured before us.
    found: BTreeMap<u32, Found>,
    /// For links without an `ip=`.
    default: AddressRequest,
    /// What the kernel was asked to do with links.
    attempts: BTreeMap<String, Attempt>,
    /// What the kernel's IPv6 was told to be quicker with, and is told to stop with at the end.
    hastes: BTreeMap<u32, Haste>,
    /// The chosen link.
    boot: Option<(u32, Family)>,
    lifetime: Lifetime,
    runs: u64,
}

impl Desk {
    pub async fn open(plan: NetworkPlan, outbox: mpsc::Sender<Event>) -> Result<Self> {
        let changes = outbox.clone();
        let kernel = Kernel::connect(move |change| {
            let changes = changes.clone();
            async move { _ = changes.send(Event::Kernel(change)).await }
        })?;
        let found = find(&kernel).await.unwrap_or_else(|error| {
            log::debug!(target: "network", "{error}");
            BTreeMap::new()
        });
        let mut desk = Self {
            wants: Wants::of(&plan),
            plan,
            kernel,
            outbox,
            links: BTreeMap::new(),
            ports: BTreeMap::new(),
            found,
            default: AddressRequest::any(),
            attempts: BTreeMap::new(),
            hastes: BTreeMap::new(),
            boot: None,
            lifetime: Lifetime::OfLease,
            runs: 0,
        };
        desk.list().await?;
        Ok(desk)
    }

    /// Looks at all links there are: at first, and when the kernel says that we missed something.
    async fn list(&mut self) -> Result<()> {
        let links = self.kernel.links().await?;
        let is_there = |index: &u32| links.iter().any(|link| link.index == *index);
        self.links.retain(|index, _| is_there(index));
        self.ports.retain(|index, _| is_there(index));
        for link in &links {
            if link.shape == Shape::Loopback && !link.is_up {
                self.kernel.set_up(link).await?;
            }
            self.links.insert(link.index, link.clone());
        }
        self.shape().await;
        for link in links {
            self.link_changed(link).await;
        }
        match self.kernel.addresses6().await {
            Ok(all) => all.into_iter().for_each(|known| self.address_changed(known)),
            // A kernel without IPv6.
            Err(error) => log::debug!(target: "network", "{error}"),
        }
        Ok(())
    }

    /// Waits until a link is configured. `None` when the boot has ended meanwhile.
    pub async fn choose(
        &mut self,
        inbox: &mut mpsc::Receiver<Event>,
    ) -> Option<Result<Configured>> {
        let waiting = console::waiting("network", self.survey());
        loop {
            let (candidates, standings) = self.standings();
            let verdict = choice::judge(&standings);
            if let Verdict::Take(winner) = verdict
                && let Some((index, family)) = candidates.get(winner).copied()
            {
                match self.take(index, family).await {
                    Ok(true) => {
                        let configured = self.describe();
                        let boot = configured.into_iter().find(|configured| configured.boots);
                        return boot.map(Ok);
                    }
                    Ok(false) => continue,
                    Err(error) => return Some(Err(error)),
                }
            }
            let patience = match verdict {
                Verdict::WaitFor(rest) => rest.min(TICK),
                Verdict::Take(_) | Verdict::Wait => TICK,
            };
            match timeout(patience, inbox.recv()).await {
                Ok(Some(event)) => match self.happened(event).await {
                    Ok(true) => {}
                    Ok(false) => return None,
                    Err(error) => return Some(Err(error)),
                },
                Ok(None) => return None,
                Err(_) => {}
            }
            self.try_again().await;
            waiting.still(self.survey());
        }
    }

    /// Keeps what is configured as it was promised, until told to stop.
    pub async fn keep(&mut self, inbox: &mut mpsc::Receiver<Event>) {
        loop {
            match timeout(TICK, inbox.recv()).await {
                Ok(Some(event)) => match self.happened(event).await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => log::warn!(target: "network", "{error}"),
                },
                Ok(None) => return,
                Err(_) => {}
            }
            self.try_again().await;
        }
    }

    /// False when it is time to stop.
    async fn happened(&mut self, event: Event) -> Result<bool> {
        match event {
            Event::Kernel(change) => self.kernel_changed(change).await?,
            Event::Client { index, run, report } => self.heard(index, run, report).await,
            Event::Router { index, run, report } => self.heard_router(index, run, report),
            Event::Client6 { index, run, report } => self.heard6(index, run, report).await,
            Event::Describe(reply) => _ = reply.try_send(self.describe()),
            Event::MakePermanent(renewers, reply) => {
                let _ = reply.try_send(self.make_permanent(renewers).await);
            }
            Event::Stop => {
                std::mem::take(&mut self.hastes).into_values().for_each(Haste::end);
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn survey(&self) -> String {
        let ports: Vec<_> = self
            .ports
            .values()
            .map(|port| (port.link.name.as_str(), port.progress(self.wants)))
            .collect();
        let others: Vec<_> =
            self.links.values().filter(|link| !self.ports.contains_key(&link.index)).collect();
        let driverless =
            if ports.is_empty() { unclaimed_network(Path::new("/sys")) } else { Vec::new() };
        link::survey(&self.plan.description, &ports, &others, &driverless)
    }

    async fn kernel_changed(&mut self, change: Change) -> Result<()> {
        match change {
            Change::Link(link) => {
                self.links.insert(link.index, link.clone());
                self.shape().await;
                self.link_changed(link).await;
            }
            Change::Gone(index) => {
                self.links.remove(&index);
                if let Some(port) = self.ports.remove(&index)
                    && port.is_ours
                {
                    log::warn!(target: "network", "{} is gone", port.link.name);
                }
            }
            Change::Address(known) => self.address_changed(known),
            Change::AddressGone(index, address) => {
                if let Some(port) = self.ports.get_mut(&index) {
                    port.ipv6.addresses.remove(&address);
                    port.ipv6.look(port.request.ipv6);
                }
            }
            Change::Missed => self.list().await?,
        }
        Ok(())
    }

    /// Makes the links that were described, as far as can be done now.
    async fn shape(&mut self) {
        let links: Vec<Link> = self.links.values().cloned().collect();
        for action in topology::next(&self.plan.description, &links) {
            let what = format!("{action:?}");
            let now = Instant::now();
            if self.attempts.get(&what).is_some_and(|attempt| now < attempt.again_at) {
                continue;
            }
            // What is done is known only when the kernel has told so.
            let outcome = self.carry_out(&action).await;
            let has_failed = outcome.is_err();
            let before = self.attempts.insert(
                what,
                Attempt { again_at: now + if has_failed { AGAIN } else { TICK }, has_failed },
            );
            if let Err(error) = outcome
                && !before.is_some_and(|before| before.has_failed)
            {
                log::warn!(target: "network", "{error}; it is tried again");
            }
        }
    }

    async fn carry_out(&self, action: &Action) -> Result<()> {
        let link = |index: &u32| {
            let gone = || Error::refused("changing a link", "it is gone");
            self.links.get(index).ok_or_else(gone)
        };
        match action {
            Action::Rename { index, to } => {
                let link = link(index)?;
                if link.is_up {
                    self.kernel.set_down(link).await?;
                }
                self.kernel.rename(link, to).await
            }
            Action::Make { name, what, mac } => self.kernel.make(name, what, *mac).await,
            Action::Join { index, master } => {
                let (link, master) = (link(index)?, link(master)?);
                // A part has no address: what an earlier user of the link left would answer ARP.
                if let Some(Found { lease, .. }) = self.found.get(index) {
                    let gone = self.kernel.remove_address(link, lease.address, lease.prefix).await;
                    gone.unwrap_or_else(|error| log::debug!(target: "network", "{error}"));
                }
                self.kernel.join(link, master).await?;
                log::info!(target: "network", "{} is a part of {}", link.name, master.name);
                Ok(())
            }
            Action::SetPrimary { index, port } => {
                self.kernel.set_primary(link(index)?, link(port)?).await
            }
            Action::SetMac { index, mac } => self.kernel.set_mac(link(index)?, *mac).await,
            Action::SetMtu { index, mtu } => self.kernel.set_mtu(link(index)?, *mtu).await,
            Action::SetUp { index } => self.kernel.set_up(link(index)?).await,
        }
    }

    async fn link_changed(&mut self, link: Link) {
        let index = link.index;
        let adopted: Vec<u32> = self.found.keys().copied().collect();
        let description = &self.plan.description;
        let takes_part =
            |link: &Link| link::takes_part(description.bootif, link, Path::new("/sys"), &adopted);
        let request = topology::request(description, &link, &self.default, takes_part);
        let Some(request) = request.cloned() else {
            if self.ports.remove(&index).is_some() {
                log::debug!(target: "network", "{} takes no part any more", link.name);
            }
            return;
        };
        let is_named = request.on.is_some() || link.kind != Kind::Port;
        // A link that comes when the choice is made is of use only if somebody asked for it.
        if self.boot.is_some() && !is_named && !self.ports.contains_key(&index) {
            return;
        }
        let mut port = match self.ports.remove(&index) {
            Some(port) => port,
            None => Port::new(link.clone(), request, is_named),
        };
        self.tell_of_change(&port, &link);
        if port.is_in_use()
            && !port.link.has_carrier
            && link.has_carrier
            && let Some(client) = &port.ipv6.client
        {
            // The cable may be in another network; who is not there to hear it begins anew anyway.
            let _ = client.orders.try_send(dhcp6::Order::Moved);
        }
        port.link = link;
        if !port.link.is_up {
            port.has_lost_its_carrier();
            if port.again_at.is_none() {
                self.set_up(&mut port).await;
            }
        } else {
            port.again_at = None;
            match (port.link.has_carrier, port.since) {
                (true, None) => self.begin(&mut port).await,
                // What is in use stays as it is: cables are pulled and put back.
                (false, Some(_)) if !port.is_in_use() => {
                    log::debug!(target: "network", "{} has lost its carrier", port.link.name);
                    port.has_lost_its_carrier();
                }
                _ => {}
            }
        }
        self.ports.insert(index, port);
    }

    fn tell_of_change(&self, port: &Port, now: &Link) {
        let (before, name) = (&port.link, &now.name);
        if before.has_partner == Some(false) && now.has_partner == Some(true) {
            log::info!(target: "network", "{name}: the switch has answered (802.3ad)");
        }
        if !port.is_in_use() {
            return;
        }
        match (before.has_carrier, now.has_carrier) {
            (true, false) => log::warn!(target: "network", "{name} has lost its carrier"),
            (false, true) => log::info!(target: "network", "{name} has carrier again"),
            _ => {}
        }
    }

    /// The kernel tells by another change when it has happened.
    async fn set_up(&mut self, port: &mut Port) {
        port.again_at = Some(Instant::now() + AGAIN);
        let haste = Haste::begin(Path::new(IPV6), &port.link.name);
        self.hastes.entry(port.link.index).or_insert(haste);
        if let Err(error) = self.kernel.set_up(&port.link).await
            && !port.has_failed
        {
            port.has_failed = true;
            log::warn!(target: "network", "{error}; it is tried again (firmware missing?)");
        }
    }

    async fn try_again(&mut self) {
        self.settle_for_what_was_found();
        if self.attempts.values().any(|attempt| attempt.has_failed) {
            self.shape().await;
        }
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
                    self.begin(&mut port).await;
                }
            }
            self.ports.insert(index, port);
        }
        // Links that are configured whoever boots.
        let named: Vec<u32> =
            self.ports.values().filter(|p| p.is_ours).map(|p| p.link.index).collect();
        for index in named {
            if let Err(error) = self.apply(index).await {
                log::warn!(target: "network", "{error}");
            }
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
            let silent = matches!(port.ipv4.stage, Stage::Asking { promised: None, .. });
            if silent && port.ipv4.as_found_at.is_some_and(|at| Instant::now() >= at) {
                log::warn!(
                    target: "network",
                    "{}: no DHCP server answers; it keeps {} as it was found, and nobody renews that",
                    port.link.name,
                    lease.address
                );
                port.ipv4.leave_as_found(lease);
            }
        }
    }

    /// Carrier: now is the moment.
    async fn begin(&mut self, port: &mut Port) {
        let now = Instant::now();
        port.since = Some(now);
        self.begin_ipv4(port, now);
        self.begin_ipv6(port).await;
    }

    fn begin_ipv4(&mut self, port: &mut Port, now: Instant) {
        let found = self.found.get(&port.link.index);
        let request = match port.request.ipv4 {
            Ipv4Method::Off => return,
            Ipv4Method::Static { address, prefix, gateway, .. } => {
                let lease = Lease::typed(address, prefix, gateway);
                return port.ipv4.leased(lease, Origin::CommandLine);
            }
            Ipv4Method::Dhcp { request } => request,
        };
        // Nobody to ask, unless only DHCP can say where the root is.
        if let Some(found) = found
            && found.by_hand
            && !self.wants.lack_a_root(&found.lease)
        {
            return port.ipv4.leave_as_found(&found.lease);
        }
        port.ipv4.stage = Stage::asking(now);
        port.ipv4.as_found_at = found.map(|_| now + adopt::PATIENCE);
        let is_configured = found.is_some();
        let address = found.map(|found| found.lease.address).or(request);
        let known = address.map(|address| dhcp::Known { address, is_configured });
        let run = self.run();
        let (index, outbox) = (port.link.index, self.outbox.clone());
        let tell = move |report| {
            let outbox = outbox.clone();
            async move { outbox.send(Event::Client { index, run, report }).await.is_ok() }
        };
        let target = dhcp::Target { index, name: port.link.name.clone() };
        let identity = identity::ipv4(&self.plan, port);
        let client = dhcp::run(target, identity, self.wants, known, tell);
        port.ipv4.client = Some((run, abort_on_drop(client)));
    }

    async fn begin_ipv6(&mut self, port: &mut Port) {
        match port.request.ipv6 {
            Ipv6Method::Off | Ipv6Method::LinkLocal => {}
            Ipv6Method::Static { .. } if port.is_ours => {
                if let Err(error) = type_ipv6(&self.kernel, port).await {
                    log::warn!(target: "network", "{error}; it is tried again");
                    port.since = None;
                    port.again_at = Some(Instant::now() + AGAIN);
                }
            }
            Ipv6Method::Static { .. } => {}
            Ipv6Method::Auto | Ipv6Method::Dhcp => {
                let run = self.run();
                let (index, outbox) = (port.link.index, self.outbox.clone());
                let tell = move |report| {
                    let outbox = outbox.clone();
                    async move { outbox.send(Event::Router { index, run, report }).await.is_ok() }
                };
                let target = dhcp::Target { index, name: port.link.name.clone() };
                let listener = ra::listen(target, port.link.mac, tell);
                port.ipv6.listener = Some((run, abort_on_drop(listener)));
                if port.request.ipv6 == Ipv6Method::Dhcp {
                    self.ask_dhcp6(port, dhcp6::Mode::Address);
                }
            }
        }
    }

    fn ask_dhcp6(&mut self, port: &mut Port, mode: dhcp6::Mode) {
        let run = self.run();
        let (index, outbox) = (port.link.index, self.outbox.clone());
        let tell = move |report| {
            let outbox = outbox.clone();
            async move { outbox.send(Event::Client6 { index, run, report }).await.is_ok() }
        };
        let target = dhcp::Target { index, name: port.link.name.clone() };
        let identity = identity::ipv6(&self.plan, port);
        let wishes = dhcp6::Wishes { addresses: Vec::new(), boot_url: self.wants.root };
        let (orders, inbox) = mpsc::channel(4);
        let client = dhcp6::run(target, identity, mode, wishes, inbox, tell);
        port.ipv6.client = Some(super::port::ipv6::Client {
            run,
            mode,
            since: Instant::now(),
            orders,
            has_answered: false,
            task: abort_on_drop(client),
        });
    }

    fn run(&mut self) -> u64 {
        self.runs = self.runs.saturating_add(1);
        self.runs
    }

    fn address_changed(&mut self, known: Known6) {
        let Some(port) = self.ports.get_mut(&known.on) else { return };
        let (name, address) = (&port.link.name, known.address);
        let before = port.ipv6.addresses.insert(address, known);
        let is_news = before.is_none_or(|before| before.state != known.state);
        if is_news && known.state == State6::Duplicate {
            log::warn!(target: "network", "{name}: somebody else has {address} already");
            if let Some(client) = &port.ipv6.client {
                // A client that is not there to hear it begins anew anyway.
                let _ = client.orders.try_send(dhcp6::Order::Duplicate(address));
            }
        }
        port.ipv6.look(port.request.ipv6);
    }

    fn heard_router(&mut self, index: u32, run: u64, report: ra::Report) {
        let Some(mut port) = self.ports.remove(&index) else { return };
        if port.ipv6.is_heard(run) {
            match report {
                ra::Report::Sent(count) => port.ipv6.sent = count,
                ra::Report::Deaf(error) => port.ipv6.trouble = Some(error.to_string()),
                ra::Report::Changed(said) => {
                    let mode = match (said.managed, said.other) {
                        (true, _) => Some(dhcp6::Mode::Address),
                        (false, true) => Some(dhcp6::Mode::Information),
                        (false, false) => None,
                    };
                    let current = port.ipv6.client.as_ref().map(|client| client.mode);
                    // Flags may be set later, and are not believed when they are cleared.
                    if let Some(mode) = mode
                        && (current.is_none()
                            || (current, mode)
                                == (Some(dhcp6::Mode::Information), dhcp6::Mode::Address))
                    {
                        self.ask_dhcp6(&mut port, mode);
                    }
                    port.ipv6.said = Some(*said);
                }
            }
        }
        self.ports.insert(index, port);
    }

    async fn heard6(&mut self, index: u32, run: u64, report: dhcp6::Report) {
        let Some(port) = self.ports.get_mut(&index) else { return };
        let name = port.link.name.clone();
        let Some(client) = port.ipv6.client.as_mut().filter(|client| client.run == run) else {
            return;
        };
        match report {
            dhcp6::Report::Sent(_) => {}
            dhcp6::Report::Deaf(error) => port.ipv6.trouble = Some(error.to_string()),
            dhcp6::Report::News(news) => match news {
                dhcp6::News::Accepted(_) => {}
                dhcp6::News::Granted(lease)
                | dhcp6::News::Extended(lease)
                | dhcp6::News::Informed(lease) => {
                    client.has_answered = true;
                    let before = port.ipv6.given.take();
                    let outcome = apply::ipv6(
                        &self.kernel,
                        &port.link,
                        before.as_ref(),
                        &lease,
                        Origin::Dhcp,
                    )
                    .await;
                    if let Err(error) = outcome {
                        log::warn!(target: "network", "{error}");
                    }
                    port.ipv6.given = Some(*lease);
                    port.ipv6.look(port.request.ipv6);
                }
                dhcp6::News::Unusable { server, why } => {
                    let what = format!("DHCPv6 server {server} offers nothing usable: {why}");
                    if port.ipv6.trouble.as_ref() != Some(&what) {
                        log::warn!(target: "network", "{name}: {what}");
                        port.ipv6.trouble = Some(what);
                    }
                }
                dhcp6::News::Refused { server, why } => {
                    log::warn!(target: "network", "{name}: DHCPv6 server {server} takes its addresses back: {why}");
                    self.forget6(index, None).await;
                }
                dhcp6::News::Declined(address) => {
                    log::debug!(target: "network", "{name}: {address} is given back to the server");
                    self.forget6(index, Some(address)).await;
                }
                dhcp6::News::Expired => {
                    log::warn!(target: "network", "{name}: the DHCPv6 lease has ended and no server extends it");
                    self.forget6(index, None).await;
                }
            },
        }
    }

    /// Takes what a DHCPv6 server gave off the link again: `address`, or all of it. On the link that
    /// the root is behind an address stays until there is another, unless somebody else has it.
    async fn forget6(&mut self, index: u32, address: Option<Ipv6Addr>) {
        let boots = self.boot.is_some_and(|(boot, _)| boot == index);
        let Some(port) = self.ports.get_mut(&index) else { return };
        if boots && address.is_none() {
            return;
        }
        let Some(given) = &mut port.ipv6.given else { return };
        let (gone, kept) =
            given.addresses.iter().partition(|one| address.is_none_or(|gone| gone == one.address));
        given.addresses = kept;
        let gone: Vec<Address6> = gone;
        for one in gone {
            let done = self.kernel.remove_address6(&port.link, one.address, one.prefix).await;
            done.unwrap_or_else(|error| log::debug!(target: "network", "{error}"));
        }
        port.ipv6.look(port.request.ipv6);
    }

    async fn heard(&mut self, index: u32, run: u64, report: Report) {
        let boots = self.boot.map(|(boot, _)| boot) == Some(index);
        let Some(port) = self.ports.get_mut(&index) else { return };
        // A report may still be in the queue when its client is gone.
        if !port.ipv4.is_heard(run) {
            return;
        }
        let name = port.link.name.clone();
        let trouble = match report {
            Report::Sent(count) => {
                if let Stage::Asking { sent, .. } = &mut port.ipv4.stage {
                    *sent = count;
                }
                None
            }
            Report::Deaf(error) => Some(error.to_string()),
            Report::News(News::Accepted(lease)) => {
                if let Stage::Asking { promised, .. } = &mut port.ipv4.stage {
                    *promised = Some(self.wants.worth(&lease));
                }
                log::debug!(target: "network", "{name}: offer of {}/{} from {}", lease.address, lease.prefix, who(lease.server_id));
                None
            }
            Report::News(News::Weighed(weighed)) => {
                log::debug!(target: "network", "{name}: {weighed}");
                None
            }
            Report::News(News::BootServer { server, .. }) => {
                log::debug!(target: "network", "{name}: {server} is a PXE boot server");
                port.ipv4.boot_server = Some(server);
                None
            }
            Report::News(News::Unanswered { server }) => {
                Some(format!("{} offers an address and then falls silent", who(server)))
            }
            Report::News(News::Conflict { address, by, declined: true }) => {
                Some(format!("{address} is in use by {by}, and given back to the server"))
            }
            Report::News(News::Conflict { address, by, declined: false }) => {
                log::warn!(target: "network", "{name}: {by} answers for every address; {address} is used nevertheless");
                None
            }
            Report::News(News::Unusable { server, why }) => {
                Some(format!("{} offers nothing usable: {why}", who(server)))
            }
            // The address stays until there is another: a disk hangs on it, and whoever gave the
            // lease has not yet given the address to anybody else.
            Report::News(News::Refused { server, words }) => {
                let words = words.map(|words| format!(": {words}")).unwrap_or_default();
                match port.ipv4.applied.clone() {
                    Some((lease, _)) if boots => {
                        log::warn!(target: "network", "{name}: {} takes the lease of {} back{words}", who(server), lease.address);
                        self.hold(index).await;
                        return;
                    }
                    _ => Some(format!("{} takes its offer back{words}", who(server))),
                }
            }
            Report::News(News::Granted(lease) | News::Extended(lease))
                if lease.v6_only_seconds.is_some()
                    && port.ipv4.applied.is_none()
                    && port.needs(self.wants) == Needs::Either
                    && port.request.ipv6 != Ipv6Method::Off =>
            {
                log::info!(target: "network", "{name}: {} says that IPv6 is enough here (option 108); IPv4 is not used", who(lease.server_id));
                port.ipv4.stop();
                port.ipv4.is_unwanted = true;
                return;
            }
            Report::News(News::Granted(lease) | News::Extended(lease)) => {
                if let Some((before, _)) = &port.ipv4.applied {
                    log::debug!(target: "network", "{name}: the lease of {} goes on", before.address);
                    if before.address != lease.address {
                        log::warn!(target: "network", "{name}: its address changes from {} to {}", before.address, lease.address);
                    }
                }
                port.ipv4.leased(*lease, Origin::Dhcp);
                // The same lease again means a new end of it.
                port.ipv4.is_news = true;
                if port.is_ours
                    && let Err(error) = self.apply(index).await
                {
                    log::warn!(target: "network", "{error}");
                }
                return;
            }
            Report::News(News::Expired) => {
                match port.ipv4.applied.clone() {
                    Some((lease, _)) => {
                        log::warn!(target: "network", "{name}: the lease of {} has ended and no server extends it", lease.address);
                        self.hold(index).await;
                    }
                    None => port.ipv4.stage = Stage::asking(Instant::now()),
                }
                return;
            }
        };
        if let Some(trouble) = trouble
            && port.ipv4.is_new_trouble(&trouble)
        {
            log::warn!(target: "network", "{name}: {trouble}");
        }
    }

    /// Keeps address and routes although the lease has gone, until there is another.
    async fn hold(&self, index: u32) {
        let Some(port) = self.ports.get(&index) else { return };
        let Some((lease, origin)) = &port.ipv4.applied else { return };
        let old = Some(lease);
        let (kernel, link) = (&self.kernel, &port.link);
        if let Err(error) = apply::ipv4(kernel, link, old, lease, *origin, Lifetime::Forever).await
        {
            log::warn!(target: "network", "{error}");
        }
    }

    /// Makes the kernel's link what its lease says, if that has changed.
    async fn apply(&mut self, index: u32) -> Result<()> {
        let lifetime = self.lifetime;
        let Some(port) = self.ports.get_mut(&index) else { return Ok(()) };
        let Some((lease, origin)) = port.ipv4.lease() else { return Ok(()) };
        let lease = lease.clone();
        if !port.ipv4.is_news && port.ipv4.applied.is_some() {
            return Ok(());
        }
        // Of a link that was found its routes stay: what the lease does not have was added on
        // purpose.
        let found = self.found.get(&index);
        let found = found.map(|found| Lease { routes: Vec::new(), ..found.lease.clone() });
        let before = port.ipv4.applied.as_ref().map(|(before, _)| before.clone()).or(found);
        apply::ipv4(&self.kernel, &port.link, before.as_ref(), &lease, origin, lifetime).await?;
        apply::routes(&self.kernel, &port.link, &self.plan.description, &lease).await;
        if origin == Origin::Dhcp && port.ipv4.applied.is_none() {
            let announce = super::arp::announce(index, port.link.mac, lease.address);
            tokio::spawn(announce);
        }
        port.ipv4.applied = Some((lease, origin));
        port.ipv4.is_news = false;
        Ok(())
    }

    /// Who may be chosen, and how each of them stands.
    fn standings(&self) -> (Vec<(u32, Family)>, Vec<choice::Standing>) {
        let bootdev = self.plan.description.bootdev.as_deref();
        let booted = self.plan.description.bootif.and_then(|mac| {
            let has = |port: &&Port| {
                port.link.permanent_mac.unwrap_or(port.link.mac) == mac || port.link.mac == mac
            };
            self.ports.values().find(has).map(|port| port.link.index)
        });
        let may_win = |port: &&Port| match (bootdev, booted) {
            (Some(name), _) => port.link.name == name,
            (None, Some(index)) => port.link.index == index,
            (None, None) => true,
        };
        let mut candidates = Vec::new();
        let mut standings = Vec::new();
        for port in self.ports.values().filter(may_win) {
            for (family, standing) in port.standings(self.wants) {
                candidates.push((port.link.index, family));
                standings.push(standing);
            }
        }
        (candidates, standings)
    }

    /// Configures the chosen link. `Ok(false)` when it turned out to be unusable and goes on
    /// trying.
    async fn take(&mut self, index: u32, family: Family) -> Result<bool> {
        let mut outcome = Ok(());
        if let Some(port) = self.ports.get_mut(&index) {
            port.is_ours = true;
            outcome = type_ipv6(&self.kernel, port).await;
        }
        if outcome.is_ok() {
            outcome = self.apply(index).await;
        }
        if let Err(error) = outcome {
            let origin = self.ports.get(&index).and_then(|port| Some(port.ipv4.lease()?.1));
            if origin == Some(Origin::CommandLine) && !error.is_transient() {
                return Err(error);
            }
            log::warn!(target: "network", "{error}");
            // The link may have gone; if not, its next change or the client's next lease counts.
            if let Some(port) = self.ports.get_mut(&index) {
                port.is_ours = port.is_named;
                port.has_lost_its_carrier();
                port.again_at = Some(Instant::now() + TICK);
            }
            return Ok(false);
        }
        self.ask_boot_servers(index).await;
        self.boot = Some((index, family));
        self.dismiss_the_others(index).await;
        Ok(true)
    }

    /// PXE boot servers may know the root that the DHCP server does not: proxyDHCP is how a site that
    /// must not touch its DHCP server boots its machines. Costs a second where there are none.
    async fn ask_boot_servers(&mut self, index: u32) {
        let Some(port) = self.ports.get_mut(&index) else { return };
        let Some((lease, Origin::Dhcp)) = port.ipv4.lease() else { return };
        let mut lease = lease.clone();
        let is_wanted = self.wants.lack_a_root(&lease) || port.ipv4.boot_server.is_some();
        if !is_wanted || !pxe::could_complete(&lease) {
            return;
        }
        let target = dhcp::Target { index, name: port.link.name.clone() };
        let identity = identity::ipv4(&self.plan, port);
        match pxe::ask(&target, &identity, lease.address, port.ipv4.boot_server).await {
            Ok(Some((server, boot))) => {
                log::info!(target: "network", "{}: the boot server {server} says what to boot", target.name);
                boot.complete(&mut lease);
                port.ipv4.leased(lease.clone(), Origin::Dhcp);
                port.ipv4.applied = Some((lease, Origin::Dhcp));
            }
            Ok(None) => {
                log::info!(target: "network", "{}: no PXE boot server says what the lease does not", target.name);
            }
            Err(error) => log::warn!(target: "network", "{error}"),
        }
    }

    /// Says why, and sets down what nobody else had set up.
    async fn dismiss_the_others(&mut self, winner: u32) {
        let Some(boot) = self.ports.get(&winner) else { return };
        let losers: Vec<&Port> =
            self.ports.values().filter(|port| port.link.index != winner && !port.is_ours).collect();
        let told: Vec<_> = losers
            .iter()
            .map(|port| (port.link.name.as_str(), port.progress(self.wants)))
            .collect();
        let boot = (boot.link.name.as_str(), boot.worth(self.wants));
        for line in link::why_not(&told, boot, self.wants) {
            log::info!(target: "network", "{line}");
        }
        let losers: Vec<u32> = losers.iter().map(|port| port.link.index).collect();
        for index in losers {
            let Some(port) = self.ports.remove(&index) else { continue };
            if !port.was_up
                && let Err(error) = self.kernel.set_down(&port.link).await
            {
                log::debug!(target: "network", "{error}");
            }
        }
    }

    async fn make_permanent(&mut self, renewers: Renewers) -> Result<()> {
        self.lifetime = Lifetime::Forever;
        let mut outcome = Ok(());
        for port in self.ports.values().filter(|port| port.is_ours) {
            let (kernel, link) = (&self.kernel, &port.link);
            if renewers.ipv4 != Renewer::NetworkManager
                && let Some((lease, origin)) = &port.ipv4.applied
            {
                // Routes as well: those of an address that has just expired are gone.
                let done =
                    apply::ipv4(kernel, link, Some(lease), lease, *origin, self.lifetime).await;
                outcome = outcome.and(done);
            }
            if renewers.ipv6 != Renewer::NetworkManager
                && let Some(given) = &port.ipv6.given
            {
                let done = apply::ipv6_forever(kernel, link, given).await;
                outcome = outcome.and(done);
            }
        }
        outcome
    }

    /// The links that are in use and all that they are made of.
    fn describe(&self) -> Vec<Configured> {
        let links: Vec<&Link> = self.links.values().collect();
        let ports: Vec<&Port> = self.ports.values().filter(|port| port.is_ours).collect();
        let boot = self.boot.map(|(index, _)| index);
        Configured::all(&self.plan.description, &links, &ports, boot)
    }
}

/// Gives a link the IPv6 address that was typed for it, if one was and it has not got it yet.
async fn type_ipv6(kernel: &Kernel, port: &mut Port) -> Result<()> {
    let Ipv6Method::Static { address, prefix, gateway, .. } = port.request.ipv6 else {
        return Ok(());
    };
    if port.ipv6.given.is_none() {
        let lease = Lease6::typed(address, prefix, gateway);
        apply::ipv6(kernel, &port.link, None, &lease, Origin::CommandLine).await?;
        port.ipv6.given = Some(lease);
    }
    Ok(())
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

fn abort_on_drop(task: impl Future<Output = ()> + Send + 'static) -> super::port::AbortOnDrop {
    super::port::AbortOnDrop(tokio::spawn(task).abort_handle())
}
