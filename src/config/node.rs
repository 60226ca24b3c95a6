//! The configuration stage: finds this node's file, says what is wrong with it, and gives the
//! settings.

use std::path::Path;
use std::time::Duration;

use super::network;
use super::source::{Includer, announce, announce_problems, load, load_from_root};
use super::{
    Evaluation, Identity, Loaded, Location, Origin, Placeholders, Reading, Settings, Source,
    Substitution, remarks,
};
use crate::directives::Tree;
use crate::error::Result;
use crate::fetch::{Resolve, Url};
use crate::machine::Machine;
use crate::net::description::HandoverMode;
use crate::net::{Network, NetworkPlan};
use crate::plan::{Plan, describe};

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
    reading: Reading,
    evaluation: Evaluation,
    source: Source,
    base: Vec<(String, String, Origin)>,
    identity: Identity,
    /// `landfall.substitution=on`.
    substitution: bool,
}

impl Configuration {
    /// Fetches the node's lts.conf and evaluates it. Never fails: a node without a configuration
    /// boots, and says that it has none.
    pub fn obtain(plan: &Plan, machine: &Machine, network: &Network) -> Self {
        let base = base(plan, network.variables(), network.boot_server());
        let identity = Identity {
            hostname: network.hostname().map(str::to_owned),
            ip: network.leases().address(),
            mac: Some(network.mac()),
        };
        let urls = urls(plan, machine, network, &base);
        let resolve = |host: &str| network.resolve(host);
        let somebody_named_it = plan.config.is_some() || network.names_a_boot_server();
        let patience = if somebody_named_it { PATIENCE } else { PATIENCE_WITH_A_GUESS };
        let loaded = load(&urls, Path::new(BUILT_IN), patience, &resolve);
        let includer = Includer::new(&loaded, None, &resolve);
        Self::of(loaded, includer, base, identity, plan.substitution)
    }

    /// What the settings `NET_*` make of the network, if they make anything of it. What of them
    /// cannot be is a warning.
    pub fn network_plan(&self, plan: &NetworkPlan) -> Option<NetworkPlan> {
        let (wanted, wrong) = network::wanted(&plan.description, self.settings());
        for wrong in wrong {
            log::warn!(target: "config", "{wrong}");
        }
        if wanted == plan.description {
            return None;
        }
        let mut plan = plan.clone();
        describe(&mut plan, wanted);
        Some(plan)
    }

    /// NET_HANDOVER
    pub fn handover(&self) -> Option<HandoverMode> {
        network::handover(self.settings())
    }

    /// LTSP's last resort: the lts.conf of the root image, which cannot be read any earlier and so
    /// comes too late for settings about the root itself.
    #[must_use]
    pub fn or_from_root(self, root: &Path, resolve: Resolve<'_>) -> Self {
        if self.is_there() {
            return self;
        }
        let tree = match Tree::open(root) {
            Ok(tree) => tree,
            Err(error) => {
                log::warn!(target: "config", "{error}");
                return self;
            }
        };
        match load_from_root(&tree) {
            Some(loaded) => {
                let includer = Includer::new(&loaded, Some(&tree), resolve);
                Self::of(loaded, includer, self.base, self.identity, self.substitution)
            }
            None => self,
        }
    }

    /// Evaluates once more if there are values that wait for a shell; `shell` is one of the real
    /// root, which must be ready for it. What it refuses is said, and not in force.
    pub fn substitute(&mut self, shell: &mut dyn FnMut(&str, &[(&str, &str)]) -> Result<String>) {
        let waiting = &self.evaluation.deferred;
        if waiting.is_empty() {
            return;
        }
        log::info!(target: "config", "asking a shell of the root for {}", waiting.join(", "));
        let (base, identity) = (&self.base, &self.identity);
        let evaluation = self.reading.evaluate(base, identity, Substitution::Run(shell));
        let said = &self.evaluation.problems;
        let new = evaluation.problems.iter().filter(|problem| !said.contains(problem));
        announce_problems(&self.reading, new.collect());
        self.evaluation = evaluation;
    }

    pub fn settings(&self) -> &Settings {
        &self.evaluation.settings
    }

    pub fn is_there(&self) -> bool {
        self.source != Source::Nowhere
    }

    /// Where the file came from, in the console's words.
    pub fn source(&self) -> String {
        self.source.to_string()
    }

    /// The text, if it is not the root image's own already.
    pub fn text_for_root(&self) -> Option<String> {
        match self.source {
            Source::Fetched(_) => Some(self.reading.joined()),
            Source::Image(_) | Source::Nowhere => None,
        }
    }

    fn of(
        loaded: Loaded,
        mut includer: Includer<'_>,
        base: Vec<(String, String, Origin)>,
        identity: Identity,
        substitution: bool,
    ) -> Self {
        let Loaded { text, source } = loaded;
        let reading = Reading::of(text, &mut |from, path| includer.get(from, path));
        let shell = if substitution { Substitution::Defer } else { Substitution::Refuse };
        let mut evaluation = reading.evaluate(&base, &identity, shell);
        evaluation.problems.extend(remarks(&evaluation.settings));
        announce(&source, &reading, &evaluation);
        if evaluation.deferred.iter().any(|name| name == "LTSP_NBD_TO_RAM") {
            let late = "needs a shell of the root, which comes too late for it; it is not in force";
            log::warn!(target: "config", "LTSP_NBD_TO_RAM {late}");
        }
        Self { reading, evaluation, source, base, identity, substitution }
    }
}

/// What is weaker than the file and can be used in it, the weakest first: `NAME=value` words of the
/// kernel command line, the lease's `variables`, the boot server, the root's server where that is
/// typed (it then is the SERVER, as in LTSP), `ltsp.NAME=`.
pub fn base(
    plan: &Plan,
    variables: Vec<(String, String)>,
    boot_server: Option<String>,
) -> Vec<(String, String, Origin)> {
    let server = boot_server.map(|server| ("SERVER".to_owned(), server));
    let lease = variables.into_iter().chain(server);
    let lease = lease.map(|(name, value)| (name, value, Origin::Dhcp));
    let typed =
        |(name, value): &(String, String)| (name.clone(), value.clone(), Origin::CommandLine);
    let weak = plan.variables.iter().map(typed);
    let root =
        root_variables(plan).into_iter().map(|(name, value)| (name, value, Origin::CommandLine));
    weak.chain(lease).chain(root).chain(plan.settings.iter().map(typed)).collect()
}

/// What LTSP's scripts called the pieces of `nbdroot=`.
fn root_variables(plan: &Plan) -> Vec<(String, String)> {
    let Some((host, port, name)) = plan.typed_root() else { return Vec::new() };
    let port = port.to_string();
    let known = [
        ("NBD_ROOT_HOST", Some(host)),
        ("NBD_ROOT_PORT", Some(port.as_str())),
        ("NBD_ROOT_NAME", name),
        ("SERVER", Some(host)),
    ];
    let known = known.into_iter().filter_map(|(name, value)| Some((name, value?)));
    known.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
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
            ip: network.leases().address(),
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
        filename: network.leases().filename(),
        ltsconf: named("LTSCONF"),
        arch: std::env::consts::ARCH,
    };
    location.candidates()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmdline::Request;
    use crate::config::evaluate;
    use crate::machine::Identity as Machine;

    #[test]
    fn words_are_weaker_than_dhcp_and_dhcp_than_ltsp_words_and_those_than_the_file_c53() {
        let line =
            "A=word B=word C=word D=word E=word E=again ltsp.c=ltsp ltsp.d=ltsp ltsp.foo=bar";
        let plan = Plan::decide(Request::read(line), &Machine::default());
        let lease = ["B", "C", "D", "IPV4ADDR"].map(|name| (name.to_owned(), "dhcp".to_owned()));
        let base = base(&plan, lease.to_vec(), Some("10.0.0.1".to_owned()));
        let text = "[default]\nD=file\nSEEN=\"$A $B $C $E $SERVER\"\n";
        let settings = evaluate(text, &base, &Identity::default()).settings;
        let expected = [
            ("A", "word"),
            ("B", "dhcp"),
            ("C", "ltsp"),
            ("D", "file"),
            ("E", "again"),
            ("FOO", "bar"),
            ("IPV4ADDR", "dhcp"),
            ("SEEN", "word dhcp ltsp again 10.0.0.1"),
            ("SERVER", "10.0.0.1"),
        ];
        let got: Vec<_> = settings.iter().map(|(name, s)| (name, s.value.as_str())).collect();
        assert_eq!(got, expected);
    }

    /// Two servers are no rarity: images on the one, the rest on the other.
    #[test]
    fn a_typed_server_of_the_root_is_the_server() {
        for (line, expected) in [
            (
                "root=nbd:10.0.0.2:10810:img",
                "NBD_ROOT_HOST=10.0.0.2 NBD_ROOT_PORT=10810 NBD_ROOT_NAME=img SERVER=10.0.0.2",
            ),
            (
                "root=/dev/nbd0 nbdroot=10.0.0.2",
                "NBD_ROOT_HOST=10.0.0.2 NBD_ROOT_PORT=10809 SERVER=10.0.0.2",
            ),
            (
                "root=nbd:10.0.0.2:img ltsp.server=10.0.0.3",
                "NBD_ROOT_HOST=10.0.0.2 NBD_ROOT_PORT=10809 NBD_ROOT_NAME=img SERVER=10.0.0.3",
            ),
            ("nbdroot=:/img root=/dev/nbd0", "SERVER=10.0.0.1"),
            ("root=dhcp", "SERVER=10.0.0.1"),
        ] {
            let plan = Plan::decide(Request::read(line), &crate::machine::Identity::default());
            let base = base(&plan, Vec::new(), Some("10.0.0.1".to_owned()));
            let settings = evaluate("", &base, &Identity::default()).settings;
            let names = ["NBD_ROOT_HOST", "NBD_ROOT_PORT", "NBD_ROOT_NAME", "SERVER"];
            let shown = names
                .into_iter()
                .filter_map(|name| Some(format!("{name}={}", settings.get(name)?)));
            assert_eq!(shown.collect::<Vec<_>>().join(" "), expected, "{line}");
        }
    }
}
