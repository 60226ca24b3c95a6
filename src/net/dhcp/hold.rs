//! A lease that goes on after the agent: the machine is running, its root hangs on the address, and
//! nobody in it renews.
//!
//! The same client as in the boot, in the state that it was left in, with three differences. It asks
//! for the one address and takes no other. Its port is open for the moments of an exchange only, so
//! that it takes nobody's answers: software of the running system may have the same port. And its
//! clock counts suspends, as servers do.

use std::time::Duration;

use rustix::net::netdevice::index_to_name;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::time::{Instant, sleep, sleep_until};

use super::client::{Client, Event, Rules, Step};
use super::socket::Wire;
use super::{Identity, Report, Target, message, next_event};
use crate::net::Lease;
use crate::net::choice::Wants;
use crate::net::dice::{Chance, roll};
use crate::net::unready;
use crate::sys::clock::since_boot;
use crate::sys::packet::ETHERNET_BROADCAST;

/// A granted lease.
#[derive(Clone, Debug)]
pub struct Held {
    pub lease: Lease,
    /// When it was granted or last extended, since the kernel's start.
    pub granted: Duration,
    /// Hardware address of all stations of the link; `None`: it is that of Ethernet.
    pub everybody: Option<Vec<u8>>,
}

/// The runtime's clock stands still in a suspend, so none of its alarms is trusted for longer.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Keeps a lease; ends when nobody listens any more, or when `may_ask`, which is asked before each
/// exchange, says that somebody else has taken the lease over.
pub async fn hold<F, R>(
    target: Target,
    identity: Identity,
    held: Held,
    may_ask: impl Fn() -> bool,
    tell: F,
) where
    F: Fn(Report) -> R,
    R: Future<Output = bool>,
{
    let chance = || Chance { now: since_boot(), dice: roll() };
    let everybody = held.everybody.unwrap_or_else(|| ETHERNET_BROADCAST.to_vec());
    let rules = Rules {
        hardware: identity.hardware,
        client_id: identity.client_id(),
        wants: Wants::nothing(),
        keeps: None,
    };
    let mut client = Client::resumed(rules, Box::new(held.lease), held.granted, chance());
    let mut wire: Option<Wire> = None;
    let mut sent: u32 = 0;
    loop {
        let event = match &wire {
            None => {
                let Some(until) = client.until() else { return std::future::pending().await };
                sleep_until_boot(until).await;
                Event::Timeout
            }
            Some(open) => match next(open, client.until()).await {
                Some(event) => event,
                None => continue,
            },
        };
        if !client.is_asking() && matches!(event, Event::Timeout) && !may_ask() {
            return;
        }
        let step: Step;
        (client, step) = client.step(event, chance());
        for news in step.news {
            if !tell(Report::News(news)).await {
                return;
            }
        }
        if !client.is_asking() {
            wire = None;
            continue;
        }
        let deaf = |error| tell(Report::Deaf(error));
        let opened = match (wire.take(), client.is_bound()) {
            (Some(open @ Wire::Packets { .. }), false) => Some(open),
            (Some(open @ Wire::Udp(_)), true) => Some(open),
            (_, true) => unready::opened(|| Wire::udp(&target.name_of_now()), deaf).await,
            (_, false) => {
                let open = || Wire::packets_to(target.index, everybody.clone());
                unready::opened(open, deaf).await
            }
        };
        let Some(open) = opened else { return };
        if let Some(send) = step.send {
            let bytes = message::encode(&identity, send.envelope, &send.ask);
            if let Err(error) = open.send(&bytes, send.to).await {
                log::debug!(target: "network", "{}: sending to DHCP servers: {error}", target.name);
            }
            sent = sent.saturating_add(1);
            if !tell(Report::Sent(sent)).await {
                return;
            }
        }
        wire = Some(open);
    }
}

impl Target {
    /// udev renames links when the running system starts, and may do so at any time. Asked of the
    /// kernel by the number, which stays.
    pub fn name_of_now(&self) -> String {
        let now = || {
            let flags = SocketFlags::CLOEXEC;
            let any = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None).ok()?;
            index_to_name(&any, self.index).ok()
        };
        now().unwrap_or_else(|| self.name.clone())
    }
}

/// `None` when it is to be asked again.
async fn next(wire: &Wire, until: Option<Duration>) -> Option<Event> {
    let now = since_boot();
    let rest = until.map_or(LONGEST_SLEEP, |until| until.saturating_sub(now));
    let alarm = Instant::now().checked_add(rest.min(LONGEST_SLEEP));
    match next_event(wire, alarm).await {
        Event::Timeout if until.is_none_or(|until| since_boot() < until) => None,
        event => Some(event),
    }
}

/// `until`: since the kernel's start.
pub async fn sleep_until_boot(until: Duration) {
    loop {
        let rest = until.saturating_sub(since_boot());
        if rest.is_zero() {
            return;
        }
        match Instant::now().checked_add(rest.min(LONGEST_SLEEP)) {
            Some(alarm) => sleep_until(alarm).await,
            None => sleep(LONGEST_SLEEP).await,
        }
    }
}
