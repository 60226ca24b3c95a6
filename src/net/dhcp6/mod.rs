//! A DHCPv6 client for a machine whose root is on the other end of the cable.
//!
//! `message`, `options` and `scope` know the bytes, `client` what to do next, `phase` what belongs to
//! that, `timing` when, `socket` how they travel; the loop here owns the clock and the dice. The
//! client of a link lives from the moment of carrier until it is dropped, and keeps its addresses
//! alive in between. It touches nothing but its own socket: addresses are set by whoever reads its
//! news.

mod client;
mod hold;
mod message;
mod options;
mod phase;
mod scope;
mod socket;
mod timing;

use std::net::Ipv6Addr;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

pub use super::dice::Chance;
pub use client::{Client, Event, Mode, News, Rules, Server, Step};
pub use hold::{Held, hold};
pub use message::{Ask, Envelope, Identity, Kind, Reply, encode, parse};
pub use options::{Code, Status};
use socket::Wire;
pub use timing::renew_after;

use super::dhcp::Target;
use super::unready;
use crate::error::Error;

/// What a client tells while it works.
#[derive(Debug)]
pub enum Report {
    /// This many messages have been sent since it began.
    Sent(u32),
    News(News),
    /// It could not open its socket, and tries again every two seconds.
    Deaf(Error),
}

/// What a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The kernel has found that somebody else has this address of ours.
    Duplicate(Ipv6Addr),
    /// The carrier was away: the cable may be in another network.
    Moved,
}

/// Gets addresses, or what else there is, and keeps them; ends when it is dropped or nobody
/// listens any more.
///
/// `wants_boot_url`: the root has to come from a server.
pub async fn run<F, R>(
    target: Target,
    identity: Identity,
    mode: Mode,
    wants_boot_url: bool,
    mut orders: mpsc::Receiver<Order>,
    tell: F,
) where
    F: Fn(Report) -> R,
    R: Future<Output = bool>,
{
    let started = Instant::now();
    let chance = || Chance::since(started);
    let attempt = || Wire::open(&target.name, target.index);
    let Some(wire) = unready::opened(attempt, |error| tell(Report::Deaf(error))).await else {
        return;
    };
    let rules = Rules { duid: identity.duid.clone(), mode, wants_boot_url };
    let (mut client, mut step) = Client::start(rules, chance());
    let mut sent: u32 = 0;
    loop {
        if let Some(news) = step.news
            && !tell(Report::News(news)).await
        {
            return;
        }
        let mut event = None;
        if let Some((ask, envelope)) = step.send {
            match wire.send(&message::encode(&identity, envelope, &ask)).await {
                Ok(()) => {
                    sent = sent.saturating_add(1);
                    if !tell(Report::Sent(sent)).await {
                        return;
                    }
                }
                Err(error) => {
                    log::trace!(target: "network", "{}: asking DHCPv6 servers: {error}", target.name);
                    event = Some(Event::Unsent);
                }
            }
        }
        let event = match event {
            Some(event) => event,
            None => {
                let until = client.until().and_then(|until| started.checked_add(until));
                next_event(&wire, &identity, &target, until, &mut orders).await
            }
        };
        (client, step) = client.step(event, chance());
    }
}

/// The next thing a client must know of.
async fn next_event(
    wire: &Wire,
    identity: &Identity,
    target: &Target,
    until: Option<Instant>,
    orders: &mut mpsc::Receiver<Order>,
) -> Event {
    let timeout = pin!(async {
        match until {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
        Event::Timeout
    });
    let order = pin!(async {
        match orders.recv().await {
            Some(Order::Duplicate(address)) => Event::Duplicate(address),
            Some(Order::Moved) => Event::Moved,
            // Nobody can tell us anything any more, which is no reason to stop.
            None => std::future::pending().await,
        }
    });
    let answer = pin!(async {
        loop {
            let Ok((bytes, from)) = wire.receive().await else {
                // Mostly "network is down", once; never worth a busy loop.
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            match message::parse(&bytes, identity.iaid) {
                Ok(mut reply) => {
                    let lease = &mut reply.lease;
                    for text in lease.boot_url.iter_mut().chain(&mut lease.boot_params) {
                        *text = scope::on_link(text, target.index);
                    }
                    return Event::Received { reply: Box::new(reply), from };
                }
                Err(why) => {
                    log::debug!(target: "network", "{}: a packet of {from} to the DHCPv6 port: {why}", target.name);
                }
            }
        }
    });
    match select(timeout, select(order, answer)).await {
        Either::Left((event, _))
        | Either::Right((Either::Left((event, _)) | Either::Right((event, _)), _)) => event,
    }
}
