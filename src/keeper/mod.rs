//! The keeper: what stays of the agent behind the running system, so that the root stays too.
//!
//! It is the same program, started before anything is mounted from the root and living on in the
//! memory of the initramfs, in mounts of its own ([`sys::resident`](crate::sys::resident)). It is
//! in nobody's way: reads of the root go from the file system through the kernel to the server or
//! to memory, and when the keeper dies they still do.
//!
//! - [`root`] brings another connection when a server is lost or hangs.
//! - [`network`] renews the lease that nobody else does, and puts back what is taken from the link.
//! - [`lost`] knows what was promised for the time in which there is none.
//! - [`shutdown`] sees to it that the machine can end.
//! - [`status`] is what it knows, and [`socket`] where it says so.
//!
//! The agent tells it what to do in [`orders`], one after the other as it knows them itself.
//!
//! `argv[0]` begins with `@`, which systemd spares at the end (systemd's ROOT_STORAGE_DAEMONS).

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

use crate::error::{Error, Result, WhileDoing};
use crate::sys::resident;
use orders::Order;
use status::Status;

mod lazy;
mod log;
mod lost;
pub mod network;
pub mod orders;
mod pace;
mod process;
mod root;
mod shutdown;
mod socket;
pub mod status;

pub use process::{Keeper, NAME};
pub use socket::{HELP, show};

/// What is taken along; nothing else is ever opened by a name.
const KEPT: [&str; 4] = ["/dev", "/proc", "/sys", "/run"];

/// What all threads of the keeper share.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    status: Arc<Mutex<Status>>,
}

impl Shared {
    /// A poisoned lock means that a thread has panicked, which nothing here can; what it knew is
    /// still worth having.
    pub fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Entered as `@landfall keeper`, with the agent's socket as standard input.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ::log::error!(target: "keeper", "{error}; the root is not kept alive");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    settle()?;
    let agent = std::io::stdin().as_fd().try_clone_to_owned();
    let agent = UnixStream::from(agent.while_doing(|| "taking the agent's orders")?);
    let shared = Shared::default();
    socket::serve(&shared)?;
    shutdown::begin(&shared)?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(disregard_signals)
        .while_doing(|| "starting the keeper's threads")?;
    let mut answers = agent.try_clone().while_doing(|| "answering the agent")?;
    for line in BufReader::new(agent).lines() {
        let Ok(line) = line else { break };
        let outcome = serde_json::from_str::<Order>(&line)
            .map_err(|error| Error::invalid("understanding an order", error.to_string()))
            .and_then(|order| obey(order, &shared));
        let answer = match outcome {
            Ok(()) => process::DONE.to_owned(),
            Err(error) => error.to_string().replace('\n', " "),
        };
        let _ = writeln!(answers, "{answer}");
    }
    // The agent has become the real init; or its boot has failed, and leaves nothing behind.
    if !shared.status().handed_over {
        ::log::debug!(target: "keeper", "the boot has ended without a handover");
        std::process::exit(1);
    }
    loop {
        // Everything happens in the other threads.
        thread::park();
    }
}

/// Becomes independent of everything that the boot and the running system will take away.
fn settle() -> Result<()> {
    // Before there is anything of our own, the log among it.
    let closed = resident::close_inherited();
    log::start();
    if let Err(error) = closed {
        ::log::warn!(target: "keeper", "{error}");
    }
    SigSet::all().thread_block().while_doing(|| "blocking signals")?;
    // What is a convenience is tried, and what is a necessity is insisted on.
    for step in [
        resident::leave_session,
        resident::leave_control_group,
        resident::be_spared_by_oom_killer,
        resident::never_wait_for_storage,
    ] {
        if let Err(error) = step() {
            ::log::warn!(target: "keeper", "{error}");
        }
    }
    resident::stay_in_memory()?;
    resident::take_own_mounts(&KEPT)
}

/// systemd and administrators signal everybody at times; nothing of it is meant for the keeper,
/// which ends with the machine. SIGKILL and SIGSTOP cannot be blocked.
fn disregard_signals() {
    let all = SigSet::all();
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&all), None);
    loop {
        match all.wait() {
            Ok(Signal::SIGCHLD) | Err(_) => {}
            Ok(Signal::SIGCONT) => shutdown::look(),
            Ok(signal) => ::log::debug!(target: "keeper", "{signal} is disregarded"),
        }
    }
}

fn obey(order: Order, shared: &Shared) -> Result<()> {
    match order {
        Order::Begin { debug } => {
            log::set_debug(debug);
            Ok(())
        }
        Order::Root(orders) => root::keep(*orders, shared),
        Order::Network(orders) => {
            let shared = shared.clone();
            spawn("network", move || network::run(&shared, *orders))
        }
        Order::HandedOver => {
            shared.status().handed_over = true;
            Ok(())
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = thread::Builder::new().name(name.into()).spawn(work);
    spawned.map(drop).map_err(|error| Error::new(format!("starting the keeper's {name}"), error))
}
