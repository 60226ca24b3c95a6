//! What clients and routers answer, and what becomes of it.

use std::net::Ipv6Addr;

use tokio::time::Instant;

use super::{AGAIN, Desk};
use crate::net::apply;
use crate::net::description::{Ipv6Method, Needs};
use crate::net::dhcp::{News, Report, who};
use crate::net::dhcp6;
use crate::net::kernel::{Known6, Origin, State6};
use crate::net::lease6::Address6;
use crate::net::port::ipv4::Stage;
use crate::net::ra;
use crate::sys::clock::since_boot;

impl Desk {
    pub(super) fn address_changed(&mut self, known: Known6) {
        let Some(port) = self.ports.get_mut(&known.on) else { return };
        let (name, address) = (&port.link.name, known.address);
        let before = port.ipv6.addresses.insert(address, known);
        let is_news = before.is_none_or(|before| before.state != known.state);
        if is_news && known.state == State6::Duplicate {
            log::warn!(target: "network", "{name}: somebody else has {address} already");
            let is_typed = matches!(port.request.ipv6, Ipv6Method::Static { address: typed, .. } if typed == address);
            if is_typed {
                port.ipv6.trouble = Some(format!("somebody else has {address}"));
                port.ipv6.again_at = Some(Instant::now() + AGAIN);
            }
            if let Some(client) = &port.ipv6.client {
                // A client that is not there to hear it begins anew anyway.
                let _ = client.orders.try_send(dhcp6::Order::Duplicate(address));
            }
        }
        port.ipv6.look(port.request.ipv6);
    }

    pub(super) async fn heard_router(&mut self, index: u32, run: u64, report: ra::Report) {
        let Some(mut port) = self.ports.remove(&index) else { return };
        if port.ipv6.is_heard(run) {
            match report {
                ra::Report::Sent(count) => {
                    log::debug!(target: "network", "{}: routers are asked ({count})", port.link.name);
                    port.ipv6.sent = count;
                }
                ra::Report::Deaf(error) => port.ipv6.trouble = Some(error.to_string()),
                ra::Report::Changed(said) => {
                    if port.ipv6.said.is_none() {
                        log::debug!(target: "network", "{}: a router is there", port.link.name);
                    }
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
        let is_ours = port.is_ours;
        self.ports.insert(index, port);
        if is_ours {
            self.shape().await;
        }
    }

    pub(super) async fn heard6(&mut self, index: u32, run: u64, report: dhcp6::Report) {
        let Some(port) = self.ports.get_mut(&index) else { return };
        let name = port.link.name.clone();
        let Some(client) = port.ipv6.client.as_mut().filter(|client| client.run == run) else {
            return;
        };
        match report {
            dhcp6::Report::Sent(count) => client.sent = count,
            dhcp6::Report::Deaf(error) => port.ipv6.trouble = Some(error.to_string()),
            dhcp6::Report::News(news) => match news {
                dhcp6::News::Accepted(_) => {}
                dhcp6::News::Granted(lease)
                | dhcp6::News::Extended(lease)
                | dhcp6::News::Informed(lease) => {
                    client.has_answered = true;
                    let before = port.ipv6.given.take();
                    let outcome =
                        apply::ipv6(&self.kernel, &port.link, before.as_ref(), &lease).await;
                    if let Err(error) = outcome {
                        log::warn!(target: "network", "{error}");
                    }
                    port.ipv6.given = Some(*lease);
                    port.ipv6.granted = Some(since_boot());
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
                    let what =
                        format!("DHCPv6 server {server} does not grant what it offered: {why}");
                    if port.ipv6.trouble.as_ref() != Some(&what) {
                        log::warn!(target: "network", "{name}: {what}");
                        port.ipv6.trouble = Some(what);
                    }
                }
                dhcp6::News::Withdrawn { server, why } => {
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
    pub(super) async fn forget6(&mut self, index: u32, address: Option<Ipv6Addr>) {
        let boots = self.boot.is_some_and(|(boot, _)| boot == index);
        let Some(port) = self.ports.get_mut(&index) else { return };
        let Some(given) = &mut port.ipv6.given else { return };
        if boots && address.is_none() {
            let held = apply::ipv6_forever(&self.kernel, &port.link, given).await;
            return held.unwrap_or_else(|error| log::warn!(target: "network", "{error}"));
        }
        let (gone, kept) =
            given.addresses.iter().partition(|one| address.is_none_or(|gone| gone == one.address));
        given.addresses = kept;
        let gone: Vec<Address6> = gone;
        for one in gone {
            let done = self.kernel.remove_address(&port.link, one.address.into(), one.prefix).await;
            done.unwrap_or_else(|error| log::debug!(target: "network", "{error}"));
        }
        port.ipv6.look(port.request.ipv6);
    }

    pub(super) async fn heard(&mut self, index: u32, run: u64, report: Report) {
        let boots = self.boot.map(|(boot, _)| boot) == Some(index);
        let Some(port) = self.ports.get_mut(&index) else { return };
        // A report may still be in the queue when its client is gone.
        if !port.ipv4.is_heard(run) {
            return;
        }
        let name = port.link.name.clone();
        let trouble = match report {
            Report::Sent(count) => {
                log::debug!(target: "network", "{name}: DHCP servers are asked ({count})");
                if let Stage::Asking { sent, .. } = &mut port.ipv4.stage {
                    *sent = count;
                }
                None
            }
            Report::Deaf(error) => Some(error.to_string()),
            Report::News(News::Held(lease)) => {
                if let Stage::Asking { offer, .. } = &mut port.ipv4.stage {
                    *offer = Some(lease);
                }
                None
            }
            Report::News(News::Accepted(lease)) => {
                if let Stage::Asking { offer, promised, .. } = &mut port.ipv4.stage {
                    *promised = Some(self.wants.worth(&lease));
                    *offer = Some(lease.clone());
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
                    Some((lease, _)) => {
                        log::warn!(target: "network", "{name}: {} takes the lease of {} back{words}; another is asked for", who(server), lease.address);
                        port.ipv4.stage = Stage::asking(Instant::now());
                        return;
                    }
                    None => Some(format!("{} takes its offer back{words}", who(server))),
                }
            }
            Report::News(News::Granted(lease) | News::Extended(lease))
                if lease.v6_only_seconds.is_some()
                    && port.ipv4.applied.is_none()
                    && !port.ipv4.is_insisted_on
                    && matches!(port.needs(self.wants), Needs::Either | Needs::Ipv6)
                    && port.request.ipv6 != Ipv6Method::Off =>
            {
                log::info!(target: "network", "{name}: {} says that IPv6 is enough here (option 108); IPv4 is not used", who(lease.server_id));
                port.ipv4.stop();
                port.ipv4.unwanted_since = Some(Instant::now());
                return;
            }
            Report::News(News::Granted(lease) | News::Extended(lease)) => {
                log::debug!(target: "network", "{name}: lease of {} from {}", lease.address, who(lease.server_id));
                if let Some((before, _)) = &port.ipv4.applied {
                    log::debug!(target: "network", "{name}: the lease of {} goes on", before.address);
                    if before.address != lease.address {
                        log::warn!(target: "network", "{name}: its address changes from {} to {}", before.address, lease.address);
                    }
                }
                let mut lease = *lease;
                if let Some(boot) = port.ipv4.boot.clone() {
                    boot.complete(&mut lease);
                }
                port.ipv4.leased(lease, Origin::Dhcp);
                port.ipv4.granted = Some(since_boot());
                // The same lease again means a new end of it.
                port.ipv4.is_news = true;
                if port.is_ours
                    && let Err(error) = self.apply(index, boots).await
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
}
