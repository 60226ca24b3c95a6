//! One link that may become the boot link: how far it has got, and its DHCP client.

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Lease;
use super::choice::{Standing, Wants, Worth};
use super::kernel::Link;
use super::link::Progress;

/// A link that takes part.
pub struct Port {
    pub link: Link,
    /// Somebody else set it up before us: it stays up if it is not used.
    pub was_up: bool,
    pub progress: Stage,
    /// The DHCP client and its number: reports of an earlier one may still be on their way.
    pub client: Option<(u64, AbortOnDrop)>,
    /// When what failed is due again: setting it up, or its configuration.
    pub again_at: Option<Instant>,
    /// When the link is used as it was found, unless a server has answered.
    pub as_found_at: Option<Instant>,
    /// The operator knows that it could not be set up.
    pub has_failed: bool,
}

/// How far a port has got.
pub enum Stage {
    NoCarrier,
    Asking { since: Instant, sent: u32, trouble: Option<String>, promised: Option<Worth> },
    Leased { since: Instant, lease: Box<Lease>, as_found: bool },
}

impl Stage {
    pub fn asking(since: Instant) -> Self {
        Self::Asking { since, sent: 0, trouble: None, promised: None }
    }
}

/// A task that ends with its owner.
pub struct AbortOnDrop(pub AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Port {
    pub fn progress(&self) -> Progress {
        match &self.progress {
            Stage::NoCarrier => Progress::NoCarrier,
            Stage::Asking { since, sent, trouble, .. } => {
                Progress::Asking { lasts: since.elapsed(), sent: *sent, trouble: trouble.clone() }
            }
            Stage::Leased { lease, .. } => Progress::Leased(lease.clone()),
        }
    }

    /// It is used with what somebody else has given it, and nobody is asked any more.
    pub fn leave_as_found(&mut self, lease: &Lease) {
        self.client = None;
        self.as_found_at = None;
        self.progress =
            Stage::Leased { since: Instant::now(), lease: Box::new(lease.clone()), as_found: true };
    }

    pub fn is_as_found(&self) -> bool {
        matches!(self.progress, Stage::Leased { as_found: true, .. })
    }

    pub fn standing(&self, wants: Wants, is_static: bool) -> Standing {
        match &self.progress {
            Stage::NoCarrier => Standing::NoCarrier,
            Stage::Asking { promised, .. } => Standing::Trying { promised: *promised },
            Stage::Leased { since, lease, as_found } => Standing::Leased {
                worth: wants.worth(lease),
                best: is_static || *as_found || wants.are_met_by(lease),
                age: since.elapsed(),
            },
        }
    }

    /// Says once what is wrong; a server that is wrong is so every few seconds.
    pub fn trouble(&mut self, what: String) {
        let Stage::Asking { trouble, promised, .. } = &mut self.progress else { return };
        *promised = None;
        if trouble.as_ref() != Some(&what) {
            log::warn!(target: "network", "{}: {what}", self.link.name);
            *trouble = Some(what);
        }
    }
}
