//! The one background thread of the network. It makes the links that were described, brings links
//! up, lets clients of both families run on each of them, chooses, tells the kernel, and then stays
//! to keep what was given alive: copying a root into memory may take longer than a short lease
//! lasts.

use std::sync::mpsc as handoff;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;

use super::NetworkPlan;
use super::configured::Configured;
use super::desk::Desk;
use super::kernel::Change;
use super::{dhcp, dhcp6, ra};
use crate::error::{Error, Result, WhileDoing};

/// More than a burst of link changes; senders wait when it is full.
const QUEUE: usize = 256;
/// How long who asks the thread for something waits for it: it is busy for moments only.
const PATIENCE: Duration = Duration::from_secs(20);

/// The thread, as seen from outside.
#[derive(Debug)]
pub struct Worker {
    events: mpsc::Sender<Event>,
    thread: JoinHandle<()>,
}

/// Everything that the thread reacts to.
pub enum Event {
    Kernel(Change),
    /// From the DHCPv4 client that was started with this number.
    Client {
        index: u32,
        run: u64,
        report: dhcp::Report,
    },
    /// From the listener to routers that was started with this number.
    Router {
        index: u32,
        run: u64,
        report: ra::Report,
    },
    /// From the DHCPv6 client that was started with this number.
    Client6 {
        index: u32,
        run: u64,
        report: dhcp6::Report,
    },
    Describe(handoff::SyncSender<Vec<Configured>>),
    MakePermanent(handoff::SyncSender<Result<()>>),
    Stop,
}

impl Worker {
    /// Starts the thread, and returns when it has a configured link. `Err` only for what waiting
    /// cannot cure.
    pub fn start(plan: &NetworkPlan) -> Result<(Self, Configured)> {
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

    /// All links that have been configured, and what they are made of, as of now.
    pub fn describe(&self) -> Result<Vec<Configured>> {
        self.ask("asking what is configured", Event::Describe)
    }

    /// Lets the addresses outlive their leases, for systems in which nobody renews them.
    pub fn make_permanent(&self) -> Result<()> {
        self.ask("making the address permanent", Event::MakePermanent)?
    }

    fn ask<T>(
        &self,
        doing: &'static str,
        question: impl FnOnce(handoff::SyncSender<T>) -> Event,
    ) -> Result<T> {
        let ended = || Error::refused(doing, "the network thread has ended");
        let (reply, outcome) = handoff::sync_channel(1);
        self.events.blocking_send(question(reply)).map_err(|_| ended())?;
        outcome.recv_timeout(PATIENCE).map_err(|_| ended())
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
    settle: handoff::SyncSender<Result<Configured>>,
) {
    let mut desk = match Desk::open(plan, outbox).await {
        Ok(desk) => desk,
        Err(error) => return drop(settle.send(Err(error))),
    };
    match desk.choose(&mut inbox).await {
        // Nobody is listening only when the boot has failed elsewhere.
        Some(outcome) => drop(settle.send(outcome)),
        None => return,
    }
    desk.keep(&mut inbox).await;
}
