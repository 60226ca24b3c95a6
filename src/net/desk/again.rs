//! What is done when its time has come: what failed is tried again, and what was waited for in vain
//! is given up.

use std::time::Duration;

use tokio::time::Instant;

use super::settle::type_ipv6;
use super::{AGAIN, Desk};
use crate::net::adopt::Found;
use crate::net::description::Needs;
use crate::net::port::Port;
use crate::net::port::ipv4::Stage;

/// How long a network that wants to do without IPv4 (RFC 8925) has to show that it has IPv6.
const TIME_FOR_IPV6: Duration = Duration::from_secs(10);

impl Desk {
    pub(super) async fn try_again(&mut self) {
        self.settle_for_what_was_found();
        self.shape().await;
        let due = |port: &Port| port.again_at.is_some_and(|at| Instant::now() >= at);
        let indices: Vec<u32> =
            self.ports.iter().filter(|(_, port)| due(port)).map(|(index, _)| *index).collect();
        for index in indices {
            let Some(mut port) = self.ports.remove(&index) else { continue };
            if !port.link.is_up {
                self.set_port_up(&mut port).await;
            } else {
                port.again_at = None;
                if port.link.has_carrier {
                    self.begin(&mut port).await;
                }
            }
            self.ports.insert(index, port);
        }
        self.insist_on_ipv4();
        self.ask_for_typed_addresses_again().await;
        // Links that are configured whoever boots.
        let is_due = |port: &&Port| {
            let refused = port.refused.as_ref();
            let is_settling = self.settling == Some(port.link.index);
            port.is_ours && !is_settling && refused.is_none_or(|(_, at)| Instant::now() >= *at)
        };
        let due: Vec<u32> =
            self.ports.values().filter(is_due).map(|port| port.link.index).collect();
        for index in due {
            let boots = self.boot.is_some_and(|(boot, _)| boot == index);
            let outcome = self.apply(index, boots).await;
            if self.boot.is_some() {
                self.apply_routes(index, boots).await;
            }
            let Some(port) = self.ports.get_mut(&index) else { continue };
            let before = port.refused.take().map(|(before, _)| before);
            if let Err(error) = outcome {
                let error = error.to_string();
                if before.as_ref() != Some(&error) {
                    log::warn!(target: "network", "{error}; it is tried again");
                }
                port.refused = Some((error, Instant::now() + AGAIN));
            }
        }
    }

    /// A network that wants to do without IPv4 has to have IPv6: a machine that gets none takes the
    /// offer after all.
    fn insist_on_ipv4(&mut self) {
        let is_stuck = |port: &&mut Port| {
            let waited =
                port.ipv4.unwanted_since.is_some_and(|since| since.elapsed() >= TIME_FOR_IPV6);
            let may = port.needs(self.wants) == Needs::Either;
            may && waited && port.ipv6.usable_since.is_none() && port.link.has_carrier
        };
        if self.boot.is_some() || self.lost.is_some() {
            return;
        }
        let stuck: Vec<u32> =
            self.ports.values_mut().filter(is_stuck).map(|port| port.link.index).collect();
        for index in stuck {
            let Some(mut port) = self.ports.remove(&index) else { continue };
            log::warn!(
                target: "network",
                "{}: no IPv6 in {} s; IPv4 is used after all",
                port.link.name,
                TIME_FOR_IPV6.as_secs()
            );
            port.ipv4.unwanted_since = None;
            port.ipv4.is_insisted_on = true;
            self.begin_ipv4(&mut port, Instant::now());
            self.ports.insert(index, port);
        }
    }

    /// Whoever had the address may have left: the kernel asks once and no more.
    async fn ask_for_typed_addresses_again(&mut self) {
        for port in self.ports.values_mut() {
            if port.ipv6.again_at.is_none_or(|at| Instant::now() < at) {
                continue;
            }
            port.ipv6.again_at = None;
            for given in port.ipv6.given.take().into_iter().flat_map(|given| given.addresses) {
                let gone =
                    self.kernel.remove_address(&port.link, given.address.into(), given.prefix);
                gone.await.unwrap_or_else(|error| log::debug!(target: "network", "{error}"));
                port.ipv6.addresses.remove(&given.address);
            }
            if let Err(error) = type_ipv6(&self.kernel, port).await {
                log::debug!(target: "network", "{error}");
                port.ipv6.again_at = Some(Instant::now() + AGAIN);
            }
        }
    }

    /// Nobody answers on a link that has an address: it stays as it is.
    pub(super) fn settle_for_what_was_found(&mut self) {
        for (index, port) in &mut self.ports {
            let Some(Found { lease, .. }) = self.found.get(index) else { continue };
            // Without a root there is nothing to go on with: somebody has to answer.
            if self.wants.lack_a_root(lease) {
                continue;
            }
            let silent = matches!(port.ipv4.stage, Stage::Asking { promised: None, .. });
            if silent && port.ipv4.as_found_at.is_some_and(|at| Instant::now() >= at) {
                log::warn!(
                    target: "network",
                    "{}: no DHCP server answers; it keeps {} as it was found, and nobody renews that",
                    port.link.name,
                    lease.address
                );
                port.ipv4.leave_as_found(lease);
            }
        }
    }
}
