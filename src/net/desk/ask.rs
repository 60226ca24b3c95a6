//! What is asked on a link that has carrier: servers of both families, and routers.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::settle::type_ipv6;
use super::{AGAIN, Desk};
use crate::net::adopt;
use crate::net::description::{Ipv4Method, Ipv6Method};
use crate::net::dhcp::{self, pxe};
use crate::net::dhcp6;
use crate::net::kernel::Origin;
use crate::net::port::ipv4::Stage;
use crate::net::port::ipv6::Client;
use crate::net::port::{AbortOnDrop, Port};
use crate::net::worker::Event;
use crate::net::{Lease, identity, ra};

/// Who answers at all does so within a millisecond or, busy with a whole row of machines, within
/// some; and each boot without such a server waits this long for it.
const BRIEFLY: Duration = Duration::from_millis(100);

impl Desk {
    /// Carrier: now is the moment.
    pub(super) async fn begin(&mut self, port: &mut Port) {
        let now = Instant::now();
        log::debug!(target: "network", "{}: carrier", port.link.name);
        settle_carrier(&port.link.name);
        port.since = Some(now);
        self.begin_ipv4(port, now);
        self.begin_ipv6(port).await;
    }

    pub(super) fn begin_ipv4(&mut self, port: &mut Port, now: Instant) {
        let found = self.found.get(&port.link.index);
        let request = match port.request.ipv4 {
            Ipv4Method::Off => return,
            Ipv4Method::Static { address, prefix, gateway, .. } => {
                let lease = Lease::typed(address, prefix, gateway);
                return port.ipv4.leased(lease, Origin::CommandLine);
            }
            Ipv4Method::Dhcp { request } => request,
        };
        // Nobody to ask, unless only DHCP can say where the root is.
        if let Some(found) = found
            && found.by_hand
            && !self.wants.lack_a_root(&found.lease)
        {
            return port.ipv4.leave_as_found(&found.lease);
        }
        port.ipv4.stage = Stage::asking(now);
        port.ipv4.as_found_at = found.map(|_| now + adopt::PATIENCE);
        let is_configured = found.is_some();
        let applied = port.ipv4.applied.as_ref().map(|(lease, _)| lease.address);
        let is_configured = is_configured || applied.is_some();
        let before = self.known.get(&port.link.index).copied();
        let address = applied.or(found.map(|found| found.lease.address)).or(before).or(request);
        let known = address.map(|address| dhcp::Known { address, is_configured });
        let run = self.run();
        let (index, outbox) = (port.link.index, self.outbox.clone());
        let tell = move |report| {
            let outbox = outbox.clone();
            async move { outbox.send(Event::Client { index, run, report }).await.is_ok() }
        };
        let target = dhcp::Target { index, name: port.link.name.clone() };
        let identity = identity::ipv4(&self.plan, port);
        let client = dhcp::run(target, identity, self.wants, known, tell);
        port.ipv4.client = Some((run, abort_on_drop(client)));
    }

    pub(super) async fn begin_ipv6(&mut self, port: &mut Port) {
        match port.request.ipv6 {
            Ipv6Method::Off | Ipv6Method::LinkLocal => {}
            Ipv6Method::Static { .. } if port.is_ours => {
                if let Err(error) = type_ipv6(&self.kernel, port).await {
                    log::warn!(target: "network", "{error}; it is tried again");
                    port.since = None;
                    port.again_at = Some(Instant::now() + AGAIN);
                }
            }
            Ipv6Method::Static { .. } => {}
            Ipv6Method::Auto | Ipv6Method::Dhcp => {
                let run = self.run();
                let (index, outbox) = (port.link.index, self.outbox.clone());
                let tell = move |report| {
                    let outbox = outbox.clone();
                    async move { outbox.send(Event::Router { index, run, report }).await.is_ok() }
                };
                let target = dhcp::Target { index, name: port.link.name.clone() };
                let listener = ra::listen(target, port.link.mac, tell);
                port.ipv6.listener = Some((run, abort_on_drop(listener)));
                if port.request.ipv6 == Ipv6Method::Dhcp {
                    self.ask_dhcp6(port, dhcp6::Mode::Address);
                }
            }
        }
    }

    pub(super) fn ask_dhcp6(&mut self, port: &mut Port, mode: dhcp6::Mode) {
        let run = self.run();
        let (index, outbox) = (port.link.index, self.outbox.clone());
        let tell = move |report| {
            let outbox = outbox.clone();
            async move { outbox.send(Event::Client6 { index, run, report }).await.is_ok() }
        };
        let target = dhcp::Target { index, name: port.link.name.clone() };
        let identity = identity::ipv6(&self.plan, port);
        let (orders, inbox) = mpsc::channel(4);
        let client = dhcp6::run(target, identity, mode, self.wants.root, inbox, tell);
        port.ipv6.client = Some(Client {
            run,
            mode,
            since: Instant::now(),
            orders,
            sent: 0,
            has_answered: false,
            task: abort_on_drop(client),
        });
    }

    pub(super) fn run(&mut self) -> u64 {
        self.runs = self.runs.saturating_add(1);
        self.runs
    }

    /// PXE boot servers may know the root that the DHCP server does not: proxyDHCP is how a site that
    /// must not touch its DHCP server boots its machines. Where there are none, it costs a second if
    /// there is no root without them.
    pub(super) async fn ask_boot_servers(&mut self, index: u32) {
        let Some(port) = self.ports.get_mut(&index) else { return };
        let Some((lease, Origin::Dhcp)) = port.ipv4.lease() else { return };
        let mut lease = lease.clone();
        let lacks_a_root = self.wants.lack_a_root(&lease);
        if !pxe::could_complete(&lease) || !lacks_a_root && self.plan.boot_server.is_some() {
            return;
        }
        let is_there = port.ipv4.boot_server.is_some();
        let patience = if lacks_a_root || is_there { pxe::PATIENCE } else { BRIEFLY };
        let target = dhcp::Target { index, name: port.link.name.clone() };
        let identity = identity::ipv4(&self.plan, port);
        match pxe::ask(&target, &identity, lease.address, port.ipv4.boot_server, patience).await {
            Ok(Some((server, boot))) => {
                log::info!(target: "network", "{}: the boot server {server} says what to boot", target.name);
                boot.clone().complete(&mut lease);
                port.ipv4.boot = Some(boot);
                port.ipv4.leased(lease.clone(), Origin::Dhcp);
                port.ipv4.applied = Some((lease, Origin::Dhcp));
            }
            Ok(None) if patience == BRIEFLY => {}
            Ok(None) => {
                log::info!(target: "network", "{}: no PXE boot server says what the lease does not", target.name);
            }
            Err(error) => log::warn!(target: "network", "{error}"),
        }
    }
}

/// Has the kernel act on a carrier now: its IPv6 begins when `linkwatch` has told it, which tells of
/// changes once in a second. Who asks for the state has it told at once, since Linux 6.8; older ones
/// are as slow as they were.
fn settle_carrier(link: &str) {
    let carrier = Path::new("/sys/class/net").join(link).join("carrier");
    // What it says is known already.
    let _ = fs::read(carrier);
}

fn abort_on_drop(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDrop {
    AbortOnDrop(tokio::spawn(task).abort_handle())
}
