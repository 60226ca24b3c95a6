//! A DHCPv4 client for a machine whose root is on the other end of the cable.
//!
//! `message` knows the bytes, `client` what to do next, `news` what of it others should know,
//! `socket` how messages travel; the loop here owns the clock and the dice. The client of a link
//! lives from the moment of carrier until it is dropped, and keeps its lease alive in between. It
//! touches nothing but its own sockets: addresses are set by whoever reads its news. `pxe` is an
//! exchange of its own, for what the DHCP server did not say. `hold` goes on with a lease in the
//! running system, after the agent.

mod client;
mod hold;
mod message;
mod news;
mod options;
pub mod pxe;
#[cfg(test)]
mod real_servers;
mod socket;

use std::future::pending;
use std::io;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::time::{Instant, sleep, timeout_at};

pub use super::dice::Chance;
pub use client::{Client, Event, Known, Rules, Send, Step, renew_after};
pub use hold::{Held, hold, sleep_until_boot};
pub use message::{Ask, Envelope, Identity, Kind, Reply, encode, parse};
pub use news::{News, Verdict, Weighed};
use socket::Wire;

use super::arp;
use super::choice::Wants;
use super::{Mac, unready};
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

/// The link a client works on.
#[derive(Clone, Debug)]
pub struct Target {
    pub index: u32,
    pub name: String,
}

/// Gets a lease and keeps it; ends when it is dropped or nobody listens any more.
///
/// `known`: an address to ask for first, without an offer (INIT-REBOOT).
pub async fn run<F, R>(
    target: Target,
    identity: Identity,
    wants: Wants,
    known: Option<Known>,
    tell: F,
) where
    F: Fn(Report) -> R,
    R: Future<Output = bool>,
{
    let started = Instant::now();
    let chance = || Chance::since(started);
    let deaf = |error| tell(Report::Deaf(error));
    let Some(mut wire) = unready::opened(|| Wire::packets(&target), deaf).await else { return };
    let mut ear = None;
    let client_id = identity.client_id();
    let rules = Rules { hardware: identity.hardware, client_id, wants, keeps: None };
    let (mut client, mut step) = Client::start(rules, known, chance());
    let mut sent: u32 = 0;
    loop {
        for news in step.news {
            if !tell(Report::News(news)).await {
                return;
            }
        }
        // With an address the packet socket would only duplicate what the kernel can do itself,
        // and without one the kernel drops what is sent to it.
        let reopened = match (&wire, client.is_bound()) {
            (Wire::Packets { .. }, true) => unready::opened(|| Wire::udp(&target.name), deaf).await,
            (Wire::Udp(_), false) => unready::opened(|| Wire::packets(&target), deaf).await,
            _ => Some(wire),
        };
        let Some(next) = reopened else { return };
        wire = next;
        if let Some(send) = step.send {
            let bytes = message::encode(&identity, send.envelope, &send.ask);
            if let Err(error) = wire.send(&bytes, send.to).await {
                log::debug!(target: "network", "{}: sending to DHCP servers: {error}", target.name);
            }
            sent = sent.saturating_add(1);
            if !tell(Report::Sent(sent)).await {
                return;
            }
        }
        let probes = client.probes();
        ear = match (ear, probes) {
            (None, Some(_)) => listen(&target),
            (ear, Some(_)) => ear,
            (_, None) => None,
        };
        if let (Some(ear), Some((mac, _)), Some(address)) = (&ear, probes, step.probe)
            && let Err(error) = ear.ask(mac, address)
        {
            log::debug!(target: "network", "{}: asking who has {address}: {error}", target.name);
        }
        let until = client.until().and_then(|until| started.checked_add(until));
        let objection = pin!(objection(ear.as_ref().zip(probes)));
        let event = match select(pin!(next_event(&wire, until)), objection).await {
            Either::Left((event, _)) => event,
            Either::Right((by, _)) => Event::Claimed(by),
        };
        if let Event::Received(reply) = &event {
            log::debug!(target: "network", "{}: {:?} from {}", target.name, reply.kind, who(reply.server));
        }
        (client, step) = client.step(event, chance());
    }
}

/// Without it an address is used unprobed, which is better than not at all.
fn listen(target: &Target) -> Option<arp::Ear> {
    arp::Ear::open(target.index)
        .inspect_err(|error| log::debug!(target: "network", "{}: {error}", target.name))
        .ok()
}

/// Who objects to the address that is being probed; never, when none is or nobody does.
async fn objection(probing: Option<(&arp::Ear, (Mac, Ipv4Addr))>) -> Mac {
    match probing {
        Some((ear, (mac, address))) => match ear.claimant(mac, address).await {
            Ok(by) => by,
            // The link is going down, which others notice.
            Err(_) => pending().await,
        },
        None => pending().await,
    }
}

/// The next thing a client must know of.
async fn next_event(wire: &Wire, until: Option<Instant>) -> Event {
    loop {
        let received: io::Result<Vec<u8>> = match until {
            None => wire.receive().await,
            Some(until) => match timeout_at(until, wire.receive()).await {
                Ok(received) => received,
                Err(_) => return Event::Timeout,
            },
        };
        match received.map(|bytes| message::parse(&bytes)) {
            Ok(Ok(reply)) => return Event::Received(Box::new(reply)),
            Ok(Err(why)) => log::debug!(target: "network", "a packet to the DHCP port: {why}"),
            // Mostly "network is down", once; never worth a busy loop.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Event::Timeout;
        }
    }
}

/// A server, in a message.
pub fn who(server: Option<Ipv4Addr>) -> String {
    server.map_or_else(|| "a server without name".to_owned(), |server| server.to_string())
}
