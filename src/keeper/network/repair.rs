//! What the keeper does to the kernel's addresses and routes: it puts back what is missing, and follows
//! a lease that names other routes.

use super::Keeping;
use super::heal::Repair;
use super::status::{LastHeal, NetworkStatus};
use crate::error::{Cause, Error};
use crate::net::Lease;
use crate::net::kernel::{Entry, HeldAddress, HeldRoute, entries};
use crate::sys::clock::since_boot;

/// `RTPROT_STATIC` and `RT_SCOPE_LINK` of the kernel.
const STATIC: u8 = 4;
const LINK_SCOPE: u8 = 253;

impl<T: FnMut(NetworkStatus)> Keeping<T> {
    /// True when something was put back.
    pub(super) async fn repair(&mut self, repairs: &[Repair]) -> bool {
        let mut done: Vec<(u32, String)> = Vec::new();
        for repair in repairs {
            let (on, outcome, words) = match repair {
                Repair::Up(index) => {
                    (*index, self.kernel.put_up(*index).await, "it was set down".to_owned())
                }
                Repair::Address(held) => {
                    let words = format!("{}/{}", held.address, held.prefix);
                    (held.on, self.kernel.put_back_address(held).await, words)
                }
                Repair::Route(held) => {
                    let words = format!("the route {}", held.words());
                    (held.on, self.kernel.put_back_route(held).await, words)
                }
            };
            match outcome {
                Ok(()) => done.push((on, words)),
                // Somebody was quicker, be it the kernel itself.
                Err(error) if is_there_already(&error) => {}
                Err(error) => {
                    let what = format!("{}: {error}", self.name(on));
                    if self.refused.as_ref() != Some(&what) {
                        log::warn!(target: "network", "{what}; it is tried again");
                        self.refused = Some(what);
                    }
                }
            }
        }
        let Some((on, _)) = done.first() else { return false };
        let (name, by) = (self.name(*on), self.suspect.take());
        let words: Vec<_> = done.iter().map(|(_, words)| words.as_str()).collect();
        let by = by.map(|by| format!(" ({by})")).unwrap_or_default();
        let what =
            format!("{name}: taken away under the root and put back: {}{by}", words.join(", "));
        log::warn!(target: "network", "{what}");
        self.heal.times = self.heal.times.saturating_add(1);
        self.heal.last = Some(LastHeal { at: since_boot().as_secs_f64(), what });
        true
    }

    /// Each once, and again after it was well in between.
    pub(super) fn say_duplicates(&mut self, held: &[HeldAddress]) {
        for one in held.iter().filter(|one| !self.duplicates.contains(&one.address)) {
            log::error!(
                target: "network",
                "{}: {} IS SOMEBODY ELSE'S AS WELL, and the kernel does not use it here: find the \
                 other machine, or what gives both the address",
                self.name(one.on),
                one.address
            );
        }
        self.duplicates = held.iter().map(|one| one.address).collect();
    }

    /// A server may name another router with each renewal. What somebody else has changed since
    /// stays as it is.
    pub(super) async fn change_routes(
        &mut self,
        index: u32,
        (old, new): (&Lease, &Lease),
        boots: bool,
    ) {
        let (before, after) = (entries(old, boots), entries(new, boots));
        let is_way = |entry: &Entry, all: &[Entry]| {
            all.iter().any(|one| (one.route, one.metric) == (entry.route, entry.metric))
        };
        let gone = before.iter().filter(|entry| !is_way(entry, &after));
        let gone: Vec<HeldRoute> = gone.map(|entry| held(index, entry)).collect();
        let fresh = after.iter().filter(|entry| !is_way(entry, &before));
        let fresh: Vec<HeldRoute> = fresh.map(|entry| held(index, entry)).collect();
        if gone.is_empty() && fresh.is_empty() {
            return;
        }
        if let Err(error) = self.list().await {
            return log::warn!(target: "network", "{error}");
        }
        let is_same = |a: &HeldRoute, b: &HeldRoute| {
            (a.to, a.via, a.on, a.metric) == (b.to, b.via, b.on, b.metric)
        };
        let known = self.world.routes.clone();
        let mut outcomes = Vec::new();
        for route in &fresh {
            let mut replaced =
                gone.iter().filter(|old| (old.to, old.metric) == (route.to, route.metric));
            let ours = replaced.find_map(|old| known.iter().find(|now| is_same(now, old)));
            outcomes.push(match ours {
                Some(ours) => {
                    let route = HeldRoute { protocol: ours.protocol, from: ours.from, ..*route };
                    self.kernel.replace_route(&route).await
                }
                None => self.kernel.put_back_route(route).await,
            });
        }
        let is_replaced =
            |old: &HeldRoute| fresh.iter().any(|new| (new.to, new.metric) == (old.to, old.metric));
        for route in gone.iter().filter(|old| !is_replaced(old)) {
            if let Some(ours) = known.iter().find(|now| is_same(now, route)) {
                outcomes.push(self.kernel.drop_route(ours).await);
            }
        }
        for error in outcomes.into_iter().filter_map(Result::err) {
            if !is_there_already(&error) {
                log::warn!(target: "network", "{}: {error}", self.name(index));
            }
        }
        if let Some(healer) = self.healer.as_mut().filter(|healer| healer.concerns_link(index)) {
            healer.want_routes(&gone, &fresh);
        }
        let words: Vec<_> = fresh.iter().map(HeldRoute::words).collect();
        log::info!(target: "network", "{}: the lease has other routes now: {}", self.name(index), words.join(", "));
    }
}

/// As it was left at the handover: of somebody who typed it, since nobody renews it.
fn held(index: u32, entry: &Entry) -> HeldRoute {
    HeldRoute {
        to: entry.route.to.into(),
        via: entry.route.via.map(Into::into),
        on: index,
        on_link: entry.on_link,
        metric: entry.metric,
        from: None,
        protocol: STATIC,
        scope: if entry.route.via.is_some() { 0 } else { LINK_SCOPE },
        expires_seconds: None,
    }
}

fn is_there_already(error: &Error) -> bool {
    matches!(error.cause(), Cause::Os(os) if os.kind() == std::io::ErrorKind::AlreadyExists)
}
