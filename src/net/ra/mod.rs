//! What routers say of a link, heard beside the kernel.
//!
//! Addresses and routes are the kernel's, which reads the same advertisements (its `accept_ra`).
//! This is for the rest: whether there is DHCPv6, name servers and search domains, and lifetimes
//! that the running system has to be told. And it asks sooner than the kernel, which lets up to a
//! second go by on purpose; the kernel makes its address of the answer to us just as well.

mod haste;
mod message;
mod routers;

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout_at};

pub use haste::Haste;
pub use message::{Advertisement, Prefix, RouteInformation, parse};
pub use routers::Routers;

use super::dhcp::Target;
use super::{Lease6, Mac, dice, unready};
use crate::error::Error;
use crate::sys::icmp6;

const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// Routers wait up to half a second before they answer (RFC 4861 section 6.2.6), and answer all
/// who asked meanwhile with one message.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// RFC 7559 lets it grow to an hour; a blocked switch port opens after 30 or 50 s, and then nobody
/// should wait long for the next try.
const LONGEST_WAIT: Duration = Duration::from_secs(16);
/// RFC 4861 section 6.1.2: what has come over a router has less.
const HOP_LIMIT: u8 = 255;
const LARGEST_MESSAGE: usize = 4096;

/// What a listener tells.
#[derive(Debug)]
pub enum Report {
    /// This many solicitations have been sent since it began.
    Sent(u32),
    /// What is true from now on: something was said, or has ended.
    Changed(Box<Lease6>),
    /// It could not open its socket, and tries again every two seconds.
    Deaf(Error),
}

/// Asks for routers until one answers, and listens for ever; ends when it is dropped or nobody
/// listens to it any more.
///
/// To be started when the link has carrier, and anew when that was away: the cable may be in
/// another network.
pub async fn listen<F, R>(target: Target, mac: Mac, tell: F)
where
    F: Fn(Report) -> R,
    R: Future<Output = bool>,
{
    let attempt = || icmp6::open(&target.name, target.index);
    let Some(socket) = unready::opened(attempt, |error| tell(Report::Deaf(error))).await else {
        return;
    };
    let started = Instant::now();
    let mut routers = Routers::default();
    let mut asking = Asking::default();
    loop {
        let now = started.elapsed();
        if !routers.has_default_router() && now >= asking.due {
            let message = message::solicitation(mac);
            match icmp6::send(socket.get_ref(), &message, ALL_ROUTERS, target.index) {
                Ok(()) => {
                    asking = asking.sent(now, dice::roll());
                    if !tell(Report::Sent(asking.count)).await {
                        return;
                    }
                }
                // Mostly because the link's own address is not known to be its own alone yet.
                Err(_) => asking = asking.unsent(now),
            }
        }
        let ask_at = (!routers.has_default_router()).then_some(asking.due);
        let until = [ask_at, routers.next_end()].into_iter().flatten().min();
        let until = until.and_then(|until| started.checked_add(until));
        let heard = match until {
            None => Some(receive(&socket, &target).await),
            Some(until) => timeout_at(until, receive(&socket, &target)).await.ok(),
        };
        let now = started.elapsed();
        match heard {
            Some((router, said)) => routers.hear(router, &said, now),
            None if routers.next_end().is_some_and(|end| now >= end) => routers.expire(now),
            None => continue,
        }
        if !tell(Report::Changed(Box::new(routers.lease(now)))).await {
            return;
        }
    }
}

/// When the next solicitation is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Asking {
    due: Duration,
    count: u32,
    unsent_since: Option<Duration>,
}

impl Asking {
    /// 0.25, 0.5, 1 … 16 s later, give or take a tenth.
    fn sent(self, now: Duration, dice: u32) -> Self {
        let factor = 1u32.checked_shl(self.count.min(30)).unwrap_or(u32::MAX);
        let wait = FIRST_WAIT.saturating_mul(factor).min(LONGEST_WAIT);
        let share = 0.9 + f64::from(dice) / f64::from(u32::MAX) * 0.2;
        let due = now.saturating_add(wait.mul_f64(share));
        Self { due, count: self.count.saturating_add(1), unsent_since: None }
    }

    /// Soon; later and later on a link that never gets an address of its own.
    fn unsent(self, now: Duration) -> Self {
        let since = self.unsent_since.unwrap_or(now);
        let pause = unready::after_unsent(since, now);
        Self { due: now.saturating_add(pause), unsent_since: Some(since), ..self }
    }
}

/// The next advertisement of this link. Loses nothing when it is dropped before it is ready.
async fn receive(socket: &AsyncFd<OwnedFd>, target: &Target) -> (Ipv6Addr, Advertisement) {
    let mut buffer = [0; LARGEST_MESSAGE];
    loop {
        let received = match next(socket, &mut buffer).await {
            Ok(received) => received,
            // Mostly "network is down", once; never worth a busy loop.
            Err(_) => {
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let source = received.source;
        if received.hop_limit != Some(HOP_LIMIT) || !source.is_unicast_link_local() {
            log::debug!(target: "network", "{}: {source} is no router of this link", target.name);
            continue;
        }
        match message::parse(buffer.get(..received.length).unwrap_or_default()) {
            Ok(said) => return (source, said),
            Err(why) => {
                log::debug!(target: "network", "{}: a message of {source}: {why}", target.name);
            }
        }
    }
}

async fn next(socket: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<icmp6::Received> {
    loop {
        let mut ready = socket.readable().await?;
        if let Ok(received) = ready.try_io(|socket| icmp6::receive(socket.get_ref(), buffer)) {
            return received;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solicitations_start_quick_and_never_end() {
        let mut asking = Asking::default();
        assert_eq!(asking.due, Duration::ZERO);
        let mut moments = Vec::new();
        for _ in 0..10 {
            asking = asking.sent(asking.due, u32::MAX / 2);
            moments.push((asking.due.as_secs_f64() * 100.0).round() / 100.0);
        }
        assert_eq!(moments, [0.25, 0.75, 1.75, 3.75, 7.75, 15.75, 31.75, 47.75, 63.75, 79.75]);
    }

    /// The kernel needs a second to make sure of the link's own address.
    #[test]
    fn what_could_not_leave_is_tried_again_soon() {
        let mut asking = Asking::default();
        let mut tries = 0;
        while asking.due < Duration::from_millis(1500) {
            asking = asking.unsent(asking.due);
            tries += 1;
        }
        assert!(asking.due < Duration::from_millis(1700) && tries < 60, "{asking:?}, {tries}");
        assert_eq!(asking.count, 0);
    }
}
