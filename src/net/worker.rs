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
use super::keep::Renewers;
use super::kernel::Change;
use super::{dhcp, dhcp6, ra};
use crate::error::{Error, Result, WhileDoing};
use crate::keeper::network::orders::LinkOrders;

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
    /// What the keeper has to know of the links.
    Orders(handoff::SyncSender<Result<Vec<LinkOrders>>>),
    MakePermanent(Renewers, handoff::SyncSender<Result<()>>),
    /// The links that were made are taken away again, and the thread ends.
    Undo,
    Stop,
}

impl Worker {
    /// Starts the thread, and returns when it has a configured link. `Err` only for what waiting
    /// cannot cure, or when that lasts longer than `patience`: then links are as they were.
    pub fn start(plan: &NetworkPlan, patience: Option<Duration>) -> Result<(Self, Configured)> {
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
        let ended = || Error::refused(doing(), "it has ended");
        let settled = match patience {
            None => settled.recv().map_err(|_| ended())?,
            Some(patience) => match settled.recv_timeout(patience) {
                Ok(settled) => settled,
                Err(handoff::RecvTimeoutError::Disconnected) => return Err(ended()),
                Err(handoff::RecvTimeoutError::Timeout) => {
                    // It may have ended meanwhile; that is what we want.
                    let _ = events.blocking_send(Event::Undo);
                    let _ = thread.join();
                    return Err(Error::silence("waiting for one of these links", patience));
                }
            },
        };
        match settled {
            Ok(settled) => Ok((Self { events, thread }, settled)),
            Err(error) => {
                // It ends by itself; what follows may need the DHCP port.
                let _ = thread.join();
                Err(error)
            }
        }
    }

    /// All links that have been configured, and what they are made of, as of now.
    pub fn describe(&self) -> Result<Vec<Configured>> {
        self.ask("asking what is configured", Event::Describe)
    }

    /// What the keeper has to know of the links, as of now.
    pub fn orders(&self) -> Result<Vec<LinkOrders>> {
        self.ask("asking what is to be kept", Event::Orders)?
    }

    /// Lets the addresses outlive their leases, for systems in which nobody renews them (`renewers`
    /// says in which family that is).
    pub fn make_permanent(&self, renewers: Renewers) -> Result<()> {
        let question = |reply| Event::MakePermanent(renewers, reply);
        self.ask("making the address permanent", question)?
    }

    fn ask<T>(
        &self,
        doing: &'static str,
        question: impl FnOnce(handoff::SyncSender<T>) -> Event,
    ) -> Result<T> {
        let ended = || Error::refused(doing, "the network thread has ended");
        let (reply, outcome) = handoff::sync_channel(1);
        self.events.blocking_send(question(reply)).map_err(|_| ended())?;
        outcome.recv_timeout(PATIENCE).map_err(|error| match error {
            handoff::RecvTimeoutError::Timeout => Error::silence(doing, PATIENCE),
            handoff::RecvTimeoutError::Disconnected => ended(),
        })
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
        Some(Ok(chosen)) => drop(settle.send(Ok(chosen))),
        Some(Err(error)) => {
            desk.undo().await;
            return drop(settle.send(Err(error)));
        }
        None => return,
    }
    desk.keep(&mut inbox).await;
}
