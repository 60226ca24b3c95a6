//! What the keeper says about the root: in the status, and aloud.
//!
//! Once the root is in memory nothing of a server is said any more, whoever is late with it.

use std::path::Path as FilePath;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use super::Root;
use super::history::Series;
use super::path::Path;
use super::race::Failure;
use crate::keeper::lost::Step;
use crate::keeper::orders::{Backing, RootOrders};
use crate::keeper::status::{
    Failover, RootState, RootStatus, SourceState, SourceStatus, Status, now,
};
use crate::keeper::{Shared, shutdown};
use crate::sys::reboot::Verb;

impl Root {
    pub fn name_of(&self, source: usize) -> String {
        self.orders.sources.get(source).map(|source| source.peer.to_string()).unwrap_or_default()
    }

    /// The status of a root that needs servers; `None` once it does not.
    fn served(&self) -> Option<MutexGuard<'_, Status>> {
        Some(self.shared.status()).filter(|status| status.root.state != RootState::InMemory)
    }

    /// Adds to what was read from a server.
    pub fn count(&self, source: usize, bytes: u64) {
        if bytes > 0
            && let Some(known) = self.shared.status().sources.get_mut(source)
        {
            known.read_bytes = known.read_bytes.saturating_add(bytes);
        }
    }

    /// The server is in trouble. What is known of the others was another time.
    pub fn begins_to_recover(&self, lost: usize, why: &str) {
        let Some(mut status) = self.served() else { return };
        for (source, known) in status.sources.iter_mut().enumerate() {
            known.trouble = (source == lost).then(|| why.to_owned());
        }
    }

    /// A server is of no use; a refusal is said aloud, once.
    pub fn note(&self, source: usize, failure: &Failure) {
        let (state, error) = (failure.state(), failure.error());
        let Some(mut status) = self.served() else { return };
        let Some(known) = status.sources.get_mut(source) else { return };
        let is_news = known.state != state;
        (known.state, known.asked_at) = (state, Some(now()));
        known.trouble = Some(error.cause().to_string());
        drop(status);
        match state {
            SourceState::Unreachable => log::debug!(target: "root", "{error}"),
            _ if !is_news => log::debug!(target: "root", "{error}"),
            SourceState::Unusable => log::warn!(target: "root", "{error}; trying again"),
            _ => {
                log::error!(target: "root", "{error}; it is not used, and looked at again from time to time")
            }
        }
    }

    /// It was a pause, and the server answers again.
    pub fn found_again(&self, source: usize) {
        let Some(status) = self.served() else { return };
        let was_said = status.root.state == RootState::Lost;
        drop(status);
        self.uses(source);
        if was_said {
            log::warn!(target: "root", "{} answers again", self.name_of(source));
        } else {
            log::debug!(target: "root", "{} answers again", self.name_of(source));
        }
    }

    /// Puts the server that is used now into the status.
    fn uses(&self, source: usize) {
        let Path::Server { index, .. } = self.paths.now() else { return };
        let Some(mut status) = self.served() else { return };
        for (n, one) in status.sources.iter_mut().enumerate() {
            if n == source {
                (one.state, one.trouble, one.asked_at) = (SourceState::InUse, None, Some(now()));
            } else if one.state == SourceState::InUse {
                one.state = SourceState::Standby;
            }
        }
        status.root.device = Some(format!("nbd{index}"));
        status.root.state = RootState::Streamed;
        status.root.lost_since = None;
    }

    /// Another connection, in place of one that was in trouble.
    pub fn report(&self, (from, to): (usize, usize), why: &str, waited: Duration, series: &Series) {
        self.uses(to);
        let Some(mut status) = self.served() else { return };
        if from != to
            && let Some(lost) = status.sources.get_mut(from)
        {
            // Until somebody has looked again.
            lost.state = SourceState::Unreachable;
            lost.trouble.get_or_insert_with(|| why.to_owned());
        }
        let seconds = crate::report::rounded(waited);
        status.failovers = status.failovers.saturating_add(1);
        status.last_failover = Some(Failover {
            at: now(),
            from: self.name_of(from),
            to: self.name_of(to),
            why: why.to_owned(),
            seconds,
        });
        drop(status);
        let whom = if from == to { "the same server".to_owned() } else { self.name_of(to) };
        let from = self.name_of(from);
        // The same thing again and again is said as seldom as a root that is lost.
        if series.is_first() {
            log::warn!(target: "root", "{from}: {why}; reading from {whom}, after {seconds:.2} s");
        } else {
            log::debug!(target: "root", "{from}: {why}; reading from {whom}, after {seconds:.2} s");
        }
    }

    /// A server that this node prefers, in place of one that was well.
    pub fn has_gone_back(&self, from: usize, to: usize) {
        self.uses(to);
        let (from, to) = (self.name_of(from), self.name_of(to));
        log::info!(target: "root", "{to} serves again, and is this node's before {from}; reading from it");
    }

    /// All of it, read through `device`; servers may go.
    pub fn is_in_memory(&self, device: &FilePath) {
        let mut status = self.shared.status();
        status.root.state = RootState::InMemory;
        status.root.lost_since = None;
        status.root.device = device.file_name().map(|name| name.to_string_lossy().into_owned());
        for source in &mut status.sources {
            (source.state, source.trouble) = (SourceState::LetGo, None);
        }
    }

    /// Says that the root is lost, and does what was promised for that.
    ///
    /// `sought_for`: how long another connection has been looked for; `lost_for`: how long the root
    /// has not been read.
    pub fn lament(&self, series: &mut Series, sought_for: Duration, lost_for: Duration) {
        /// A restart of a server, or a failover, is not yet worth a word.
        const GRACE: Duration = Duration::from_secs(1);
        let lasts = series.lasts(Instant::now());
        if sought_for.max(lasts) < GRACE {
            return;
        }
        let lost_for = lost_for.max(lasts);
        let Some(mut status) = self.served() else { return };
        status.root.state = RootState::Lost;
        let since = now() - lost_for.as_secs_f64();
        status.root.lost_since.get_or_insert(since);
        let troubles: Vec<String> = status
            .sources
            .iter()
            .filter_map(|one| Some(format!("{}: {}", one.server, one.trouble.as_ref()?)))
            .collect();
        let ending = status.ending.as_deref().and_then(Verb::named);
        drop(status);
        let troubles = troubles.join("; ");
        let seconds = lost_for.as_secs();
        match series.countdown.step(lost_for) {
            Step::Nothing => {}
            Step::Tell { left: None } => {
                log::error!(target: "root", "no server can be read for {seconds} s ({troubles}); reads wait");
            }
            Step::Tell { left: Some(left) } => {
                let left = left.as_secs();
                log::error!(target: "root", "no server can be read for {seconds} s ({troubles}); reads wait, reboot in {left} s");
            }
            Step::Reboot => {
                // Somebody may have asked for another end before, and it hangs.
                let verb = ending.unwrap_or(Verb::Reboot);
                let name = verb.name();
                log::error!(target: "root", "no server can be read for {seconds} s ({troubles}); {name}, as landfall.lost= says");
                shutdown::end(verb);
            }
        }
    }
}

/// The first state of everything.
pub fn introduce(orders: &RootOrders, shared: &Shared) {
    let mut status = shared.status();
    let (state, device) = match orders.backing {
        Backing::Mapped { index } => (RootState::Streamed, Some(format!("nbd{index}"))),
        Backing::Nbd => (RootState::Streamed, Some("nbd0".to_owned())),
        Backing::Memory => (RootState::InMemory, None),
    };
    status.root = RootStatus {
        state,
        export: orders.export.clone(),
        size_bytes: orders.size_bytes,
        device,
        lost_since: None,
        lost_policy: orders.lost.to_string(),
        is_kept: orders.backing != Backing::Nbd,
        is_verified: orders.is_verified,
    };
    let used = match orders.backing {
        Backing::Memory => SourceState::LetGo,
        _ => SourceState::InUse,
    };
    status.sources = orders
        .sources
        .iter()
        .map(|source| SourceStatus {
            server: source.peer.to_string(),
            state: if source.peer == orders.using { used } else { SourceState::Standby },
            trouble: None,
            asked_at: None,
            read_bytes: 0,
        })
        .collect();
}
