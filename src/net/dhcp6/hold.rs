//! Addresses of DHCPv6 that go on after the agent; see `dhcp::hold`, which is the same for IPv4.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::client::{Client, Event, Mode, Rules, Step};
use super::message::{self, Identity};
use super::socket::Wire;
use super::{Report, Target};
use crate::net::Lease6;
use crate::net::dhcp::sleep_until_boot;
use crate::net::dice::{Chance, roll};
use crate::net::unready;
use crate::sys::clock::since_boot;

/// Granted addresses.
#[derive(Clone, Debug)]
pub struct Held {
    /// With nothing in it but what a server of DHCPv6 has granted.
    pub lease: Lease6,
    /// When it was granted or last extended, since the kernel's start.
    pub granted: Duration,
}

/// See `dhcp::hold`.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Keeps addresses; ends when nobody listens any more, or when `may_ask`, which is asked before each
/// exchange, says that somebody else has taken them over.
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
    let rules = Rules { duid: identity.duid.clone(), mode: Mode::Address, wants_boot_url: false };
    let mut client = Client::resumed(rules, Box::new(held.lease), held.granted, chance());
    let mut wire: Option<Wire> = None;
    let mut sent: u32 = 0;
    let mut event = None;
    loop {
        let happened = match (event.take(), &wire) {
            (Some(event), _) => event,
            (None, None) => {
                let Some(until) = client.until() else { return std::future::pending().await };
                sleep_until_boot(until).await;
                Event::Timeout
            }
            (None, Some(open)) => match next(open, &identity, client.until()).await {
                Some(event) => event,
                None => continue,
            },
        };
        if !client.is_asking() && matches!(happened, Event::Timeout) && !may_ask() {
            return;
        }
        let step: Step;
        (client, step) = client.step(happened, chance());
        if let Some(news) = step.news
            && !tell(Report::News(news)).await
        {
            return;
        }
        if !client.is_asking() {
            wire = None;
            continue;
        }
        let opened = match wire.take() {
            None => {
                let deaf = |error| tell(Report::Deaf(error));
                unready::opened(|| Wire::open(&target.name_of_now(), target.index), deaf).await
            }
            open => open,
        };
        let Some(open) = opened else { return };
        if let Some((ask, envelope)) = step.send {
            match open.send(&message::encode(&identity, envelope, &ask)).await {
                Ok(()) => {
                    sent = sent.saturating_add(1);
                    if !tell(Report::Sent(sent)).await {
                        return;
                    }
                }
                Err(_) => event = Some(Event::Unsent),
            }
        }
        wire = Some(open);
    }
}

/// `None` when it is to be asked again.
async fn next(wire: &Wire, identity: &Identity, until: Option<Duration>) -> Option<Event> {
    let rest = until.map_or(LONGEST_SLEEP, |until| until.saturating_sub(since_boot()));
    let alarm = Instant::now() + rest.min(LONGEST_SLEEP);
    match timeout_at(alarm, wire.receive()).await {
        Ok(Ok((bytes, from))) => match message::parse(&bytes, identity.iaid) {
            Ok(reply) => Some(Event::Received { reply: Box::new(reply), from }),
            Err(_) => None,
        },
        Ok(Err(_)) => {
            // Mostly "network is down", once; never worth a busy loop.
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
        Err(_) => until.is_some_and(|until| since_boot() >= until).then_some(Event::Timeout),
    }
}
