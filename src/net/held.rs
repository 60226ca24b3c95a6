//! The chosen link: what the kernel is told when it is chosen, and while its lease is renewed.

use tokio::sync::mpsc;

use super::Lease;
use super::dhcp::{News, Report, who};
use super::kernel::{self, Change, Kernel, Link, Origin};
use super::port::Port;
use super::worker::Event;
use crate::error::Result;

/// The chosen link.
pub struct Held {
    pub port: Port,
    pub lease: Lease,
    pub origin: Origin,
    pub lifetime: Lifetime,
}

/// Seconds.
const GRACE: u32 = 30;

/// How long the kernel keeps an address that nobody extends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    OfLease,
    Forever,
}

impl Held {
    /// Carries out what the DHCP client brings, until told to stop.
    pub async fn keep(&mut self, kernel: &Kernel, inbox: &mut mpsc::Receiver<Event>) {
        while let Some(event) = inbox.recv().await {
            match event {
                Event::Stop => return,
                Event::MakePermanent(reply) => {
                    self.lifetime = Lifetime::Forever;
                    let (link, lease) = (&self.port.link, &self.lease);
                    // Routes as well: those of an address that has just expired are gone.
                    let outcome =
                        configure(kernel, link, Some(lease), lease, self.origin, self.lifetime)
                            .await;
                    let _ = reply.try_send(outcome);
                }
                Event::Kernel(Change::Link(link)) if link.index == self.port.link.index => {
                    let name = &link.name;
                    match (self.port.link.has_carrier, link.has_carrier) {
                        (true, false) => {
                            log::warn!(target: "network", "{name} has lost its carrier")
                        }
                        (false, true) => log::info!(target: "network", "{name} has carrier again"),
                        _ => {}
                    }
                    self.port.link = link;
                }
                Event::Kernel(Change::Gone(index)) if index == self.port.link.index => {
                    log::warn!(target: "network", "{} is gone", self.port.link.name);
                }
                Event::Client { index, run, report }
                    if index == self.port.link.index
                        && self
                            .port
                            .client
                            .as_ref()
                            .is_some_and(|(current, _)| *current == run) =>
                {
                    self.heard(kernel, report).await;
                }
                Event::Kernel(_) | Event::Client { .. } => {}
            }
        }
    }

    async fn heard(&mut self, kernel: &Kernel, report: Report) {
        let name = self.port.link.name.clone();
        match report {
            Report::Sent(_) => {}
            Report::Deaf(error) => log::debug!(target: "network", "{error}"),
            Report::News(News::Granted(lease) | News::Extended(lease)) => {
                log::debug!(target: "network", "{name}: the lease of {} goes on", lease.address);
                if lease.address != self.lease.address {
                    log::warn!(target: "network", "{name}: its address changes from {} to {}", self.lease.address, lease.address);
                }
                let (old, lifetime) = (Some(&self.lease), self.lifetime);
                match configure(kernel, &self.port.link, old, &lease, self.origin, lifetime).await {
                    Ok(()) => self.lease = *lease,
                    Err(error) => log::warn!(target: "network", "{error}"),
                }
            }
            // The address stays until there is another: a disk hangs on it, and whoever gave the
            // lease has not yet given the address to anybody else.
            Report::News(News::Refused { server, words }) => {
                let words = words.map(|words| format!(": {words}")).unwrap_or_default();
                log::warn!(target: "network", "{name}: {} takes the lease of {} back{words}", who(server), self.lease.address);
                self.hold(kernel).await;
            }
            Report::News(News::Expired) => {
                log::warn!(target: "network", "{name}: the lease of {} has ended and no server extends it", self.lease.address);
                self.hold(kernel).await;
            }
            Report::News(News::Unusable { server, why }) => {
                log::debug!(target: "network", "{name}: {} offers nothing usable: {why}", who(server));
            }
            Report::News(News::Conflict { address, by, .. }) => {
                log::warn!(target: "network", "{name}: {address}, which a server grants, is in use by {by}");
            }
            Report::News(
                News::Accepted(_)
                | News::Weighed(_)
                | News::BootServer { .. }
                | News::Unanswered { .. },
            ) => {}
        }
    }

    /// Keeps address and routes although the lease has gone, until there is another.
    async fn hold(&self, kernel: &Kernel) {
        let (link, lease) = (&self.port.link, &self.lease);
        let forever = Lifetime::Forever;
        if let Err(error) = configure(kernel, link, Some(lease), lease, self.origin, forever).await
        {
            log::warn!(target: "network", "{error}");
        }
    }
}

/// Makes the kernel's link what the lease says, from what the `old` one said.
///
/// The address is what counts: a route or MTU that the kernel refuses is a warning.
pub async fn configure(
    kernel: &Kernel,
    link: &Link,
    old: Option<&Lease>,
    lease: &Lease,
    origin: Origin,
    lifetime: Lifetime,
) -> Result<()> {
    // Before the first connection, which would otherwise begin with a size that does not fit.
    if let Some(mtu) = lease.mtu
        && old.and_then(|old| old.mtu) != Some(mtu)
        && link.mtu != u32::from(mtu)
        && let Err(error) = kernel.set_mtu(link, mtu.into()).await
    {
        log::warn!(target: "network", "{error}");
    }
    let seconds = match lifetime {
        // Later than our own clock ends the lease: the address is to be kept then, without a gap.
        Lifetime::OfLease => lease.lease_seconds.map(|seconds| seconds.saturating_add(GRACE)),
        Lifetime::Forever => None,
    };
    kernel.set_address(link, lease, seconds).await?;
    if let Some(old) = old
        && (old.address, old.prefix) != (lease.address, lease.prefix)
    {
        if let Err(error) = kernel.remove_address(link, old.address, old.prefix).await {
            log::debug!(target: "network", "{error}");
        }
        // In the same network the new one was secondary to the old, and went with it.
        kernel.set_address(link, lease, seconds).await?;
    }
    if origin == Origin::Host {
        return Ok(());
    }
    let (before, after) = (old.map(kernel::entries).unwrap_or_default(), kernel::entries(lease));
    for entry in before.iter().filter(|entry| !after.contains(entry)) {
        if let Err(error) = kernel.remove_route(link, entry, origin).await {
            log::debug!(target: "network", "{error}");
        }
    }
    // All of them, known or not: the kernel drops routes together with an address that expired.
    for entry in &after {
        if let Err(error) = kernel.add_route(link, entry, origin).await {
            log::warn!(target: "network", "{error}");
        }
    }
    Ok(())
}
