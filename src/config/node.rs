//! The configuration stage: finds this node's file, says what is wrong with it, and gives the
//! settings.

use std::path::Path;
use std::time::Duration;

use super::{
    Identity, Loaded, Location, Origin, Placeholders, Settings, Source, announce, evaluate, load,
    load_from_root, remarks,
};
use crate::fetch::Url;
use crate::machine::Machine;
use crate::net::Network;
use crate::plan::Plan;

/// How long a server that does not answer may hold up a boot that can go on without it: it may
/// be starting after the same power cut.
const PATIENCE: Duration = Duration::from_secs(60);

/// The same for a server that nobody has named: where only the DHCP server itself is left to ask,
/// a home router most likely has no configuration, and never will.
const PATIENCE_WITH_A_GUESS: Duration = Duration::from_secs(3);

/// Baked in by the image builder.
const BUILT_IN: &str = "/etc/lts.conf";

/// The settings of this node, and what they were made of.
pub struct Configuration {
    settings: Settings,
    loaded: Loaded,
    base: Vec<(String, String, Origin)>,
    identity: Identity,
}

impl Configuration {
    /// Fetches the node's lts.conf and evaluates it. Never fails: a node without a configuration
    /// boots, and says that it has none.
    pub fn obtain(plan: &Plan, machine: &Machine, network: &Network) -> Self {
        let base = base(plan, network.variables(), network.boot_server());
        let identity = Identity {
            hostname: network.hostname().map(str::to_owned),
            ip: Some(network.lease().address),
            mac: Some(network.mac()),
        };
        let urls = urls(plan, machine, network, &base);
        let resolve = |host: &str| network.resolve(host);
        let somebody_named_it = plan.config.is_some() || network.names_a_boot_server();
        let patience = if somebody_named_it { PATIENCE } else { PATIENCE_WITH_A_GUESS };
        let loaded = load(&urls, Path::new(BUILT_IN), patience, &resolve);
        Self::of(loaded, base, identity)
    }

    /// LTSP's last resort: the lts.conf of the root image, which cannot be read any earlier and so
    /// comes too late for settings about the root itself.
    #[must_use]
    pub fn or_from_root(self, root: &Path) -> Self {
        if self.is_there() {
            return self;
        }
        match load_from_root(root) {
            Some(loaded) => Self::of(loaded, self.base, self.identity),
            None => self,
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn is_there(&self) -> bool {
        self.loaded.source != Source::Nowhere
    }

    /// Where the file came from, in the console's words.
    pub fn source(&self) -> String {
        self.loaded.source.to_string()
    }

    /// The text, if it is not the root image's own already.
    pub fn text_for_root(&self) -> Option<&str> {
        match self.loaded.source {
            Source::Fetched(_) => Some(&self.loaded.text),
            Source::Image(_) | Source::Nowhere => None,
        }
    }

    fn of(loaded: Loaded, base: Vec<(String, String, Origin)>, identity: Identity) -> Self {
        let mut evaluation = evaluate(&loaded.text, &base, &identity);
        evaluation.problems.extend(remarks(&evaluation.settings));
        announce(&loaded, &evaluation);
        let settings = evaluation.settings;
        Self { settings, loaded, base, identity }
    }
}

/// What is weaker than the file and can be used in it: the lease's `variables`, the boot server, then
/// `ltsp.NAME=`.
pub fn base(
    plan: &Plan,
    variables: Vec<(String, String)>,
    boot_server: Option<String>,
) -> Vec<(String, String, Origin)> {
    let server = boot_server.map(|server| ("SERVER".to_owned(), server));
    let lease = variables.into_iter().chain(server);
    let lease = lease.map(|(name, value)| (name, value, Origin::Dhcp));
    let typed = plan.settings.iter().cloned();
    lease.chain(typed.map(|(name, value)| (name, value, Origin::CommandLine))).collect()
}

fn urls(
    plan: &Plan,
    machine: &Machine,
    network: &Network,
    base: &[(String, String, Origin)],
) -> Vec<Url> {
    if let Some(template) = &plan.config {
        let placeholders = Placeholders {
            mac: Some(network.mac()),
            ip: Some(network.lease().address),
            hostname: network.hostname().map(str::to_owned),
            uuid: machine.identity.uuid_text(),
            serial: machine.identity.serial.clone(),
            arch: std::env::consts::ARCH.to_owned(),
        };
        return placeholders.fill(template).unwrap_or_else(|error| {
            let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            log::warn!(target: "config", "landfall.config={template}: {error}{hint}");
            Vec::new()
        });
    }
    let server = network.boot_server();
    let named = |wanted: &str| {
        base.iter().rev().find(|(name, ..)| name == wanted).map(|(_, value, _)| value.as_str())
    };
    let location = Location {
        server: server.as_deref(),
        boot_image: plan.boot_image.as_deref(),
        filename: network.lease().filename.as_deref(),
        ltsconf: named("LTSCONF"),
        arch: std::env::consts::ARCH,
    };
    location.candidates()
}
