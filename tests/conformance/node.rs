//! One case: the node of a fixture, taken through the very functions that a boot goes through, up
//! to where it would begin to change things. The changes are then made in a folder.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use landfall::cmdline::Request;
use landfall::config::{self, Evaluation, Identity, Location, Origin};
use landfall::directives::{self, Facts, Foreseen, Kind, Tree};
use landfall::fetch::Url;
use landfall::machine;
use landfall::net::description::Ipv4Method;
use landfall::net::{self, Lease, Leases, Mac};
use landfall::plan::{Plan, RootOffer};
use landfall::root::RamMode;
use landfall_tests::workshop::workspace;

use crate::fixture::{Case, Expect, File, Item, Root, Shell};

/// What is wrong with a case; an empty list is what one wants.
pub struct Faults(pub Vec<String>);

impl Faults {
    fn compare<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, got: &T, wanted: &T) {
        if got != wanted {
            self.0.push(format!("{what}:\n      got    {got:?}\n      wanted {wanted:?}"));
        }
    }

    fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(what());
        }
    }
}

/// A case's node, with everything decided.
struct Node {
    plan: Plan,
    lease: Lease,
    boot_server: Option<String>,
    base: Vec<(String, String, Origin)>,
    evaluation: Evaluation,
    foreseen: Foreseen,
    /// The image after the changes.
    root: Tree,
    _folder: tempfile::TempDir,
}

/// Everything that `case` expects and does not find.
pub fn faults(case: &Case) -> Faults {
    let node = Node::of(case);
    let mut faults = Faults(Vec::new());
    node.check_settings(&case.expect, &mut faults);
    node.check_root(&case.expect, &mut faults);
    node.check_commands(&case.expect, &mut faults);
    node.check_plan(&case.expect, &mut faults);
    faults
}

impl Node {
    fn of(case: &Case) -> Self {
        let plan = Plan::decide(Request::read(&case.cmdline), &machine::Identity::default());
        let lease = lease(case);
        let mac: Mac = case.mac.as_deref().unwrap_or("52:54:00:aa:bb:cc").parse().expect("a MAC");
        let origin = plan.network.description.origin();
        let leases = Leases::of_ipv4(lease.clone());
        let variables = net::variables("eth0", "2", mac, origin, &plan.network, &leases);
        let named = |wanted: &str| {
            variables.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
        };
        let boot_server = named("ROOTSERVER");
        let identity = Identity {
            hostname: named("HOSTNAME"),
            ip: Some(lease.address.into()),
            mac: Some(mac),
        };
        let base = config::base(&plan, variables, boot_server.clone());

        let folder = tempfile::tempdir().expect("a folder");
        let root = image(case, &folder.path().join("root"));
        let loaded = load(case, folder.path());
        let evaluation = config::evaluate(&loaded.text.text, &base, &identity);
        let facts = Facts {
            server: boot_server.clone(),
            device: Some("eth0".to_owned()),
            leases,
            mac: Some(mac),
            uuid: None,
            memory_kib: case.memory_mib.unwrap_or(64 << 10) << 10,
            configured: true,
            lts_conf: None,
        };
        let foreseen = directives::foresee(&evaluation.settings, &facts, &root);
        let errors = directives::carry_out(&foreseen.changes, &root);
        assert!(errors.is_empty(), "{errors:?}");
        Self { plan, lease, boot_server, base, evaluation, foreseen, root, _folder: folder }
    }

    fn check_settings(&self, expect: &Expect, faults: &mut Faults) {
        let settings = &self.evaluation.settings;
        let spoken: BTreeMap<_, _> = settings
            .iter()
            .filter(|(_, setting)| matches!(setting.origin, Origin::File(_) | Origin::CommandLine))
            .map(|(name, setting)| (name.to_owned(), setting.value.clone()))
            .collect();
        if let Some(wanted) = &expect.settings {
            faults.compare("settings", &spoken, wanted);
        }
        for name in &expect.unset {
            faults.compare(name, &settings.get(name), &None);
        }
        for (names, wanted) in [(&expect.yes, true), (&expect.no, false)] {
            for name in names {
                faults.compare(&format!("{name} as a boolean"), &settings.is_true(name), &wanted);
            }
        }
        let problems = &self.evaluation.problems;
        let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
        faults.check(
            problems.len() == expect.problems.len()
                && problems.iter().zip(&expect.problems).all(|(got, wanted)| {
                    got.place.line == wanted.line && says(&got.to_string(), &wanted.word)
                }),
            || {
                let wanted: Vec<_> = expect
                    .problems
                    .iter()
                    .map(|wanted| format!("line {}: …{}…", wanted.line, wanted.word))
                    .collect();
                format!("problems:\n      got    {said:#?}\n      wanted {wanted:#?}")
            },
        );
    }

    fn check_root(&self, expect: &Expect, faults: &mut Faults) {
        let errors = &self.foreseen.errors;
        faults.check(
            errors.len() == expect.errors.len()
                && errors.iter().zip(&expect.errors).all(|((family, error), wanted)| {
                    *family == wanted.family && says(&error.to_string(), &wanted.word)
                }),
            || format!("families that fail: {errors:?}"),
        );
        if let Some(wanted) = &expect.hostname {
            faults.compare("host name", &self.foreseen.hostname.as_ref(), &Some(wanted));
        }
        for (path, wanted) in &expect.files {
            match self.root.read_text(path) {
                Ok(Some(text)) => {
                    check_file(path, &text, self.root.is_executable(path), wanted, faults)
                }
                other => faults.0.push(format!("{path}: {other:?}")),
            }
        }
        for (path, wanted) in &expect.links {
            let kind = self.root.kind(path).expect("a look at a path");
            faults.compare(path, &kind, &Some(Kind::Link(wanted.clone())));
        }
        for (paths, wanted) in [(&expect.gone, false), (&expect.there, true)] {
            for path in paths {
                // A link whose target is gone is still there.
                let there = self.root.kind(path).expect("a look at a path").is_some();
                faults.compare(&format!("{path} is there"), &there, &wanted);
            }
        }
        if let Some(wanted) = expect.services_removed {
            let said = self.foreseen.done.iter().find_map(|words| words.split_once(" service"));
            let got = said.and_then(|(count, _)| count.parse::<usize>().ok()).unwrap_or(0);
            faults.compare("services removed", &got, &wanted);
        }
    }

    fn check_commands(&self, expect: &Expect, faults: &mut Faults) {
        if let Some(wanted) = &expect.modules {
            let modules: Vec<_> = self
                .foreseen
                .modules
                .iter()
                .map(|(name, parameters)| format!("{name} {parameters}").trim_end().to_owned())
                .collect();
            faults.compare("modules", &modules, wanted);
        }
        if let Some(wanted) = &expect.preinit {
            faults.compare("PREINIT", &self.foreseen.late, wanted);
        }
        if let Some(wanted) = &expect.shell {
            run(&self.foreseen.late.join("\n"), wanted, faults);
        }
    }

    fn check_plan(&self, expect: &Expect, faults: &mut Faults) {
        if let Some(wanted) = &expect.config {
            let first = self.config_candidates().first().map(ToString::to_string);
            faults.compare("first place of lts.conf", &first.as_ref(), &Some(wanted));
        }
        if let Some(wanted) = &expect.network {
            let network = &self.plan.network;
            let described = &network.description;
            let named = described.addresses.first().and_then(|address| address.on.as_ref());
            let port = named.map(ToString::to_string);
            let port = port.or(described.bootif.map(|mac| mac.to_string()));
            faults.compare("port", &port, &wanted.port);
            let addressing = match described.boot_request().map(|request| request.ipv4) {
                Some(Ipv4Method::Static { address, prefix, gateway, .. }) => {
                    let gateway = gateway.map(|gateway| format!(" {gateway}"));
                    format!("{address}/{prefix}{}", gateway.unwrap_or_default())
                }
                Some(Ipv4Method::Dhcp { request: Some(address) }) => format!("dhcp {address}"),
                Some(Ipv4Method::Dhcp { request: None }) | None => "dhcp".to_owned(),
                Some(Ipv4Method::Off) => "off".to_owned(),
            };
            if let Some(wanted) = &wanted.addressing {
                faults.compare("addressing", &addressing, wanted);
            }
            if wanted.boot_server.is_some() {
                faults.compare("boot server", &self.boot_server, &wanted.boot_server);
            }
            if wanted.hostname.is_some() {
                let settings = &self.evaluation.settings;
                let got = settings.get("HOSTNAME").map(str::to_owned);
                faults.compare("host name", &got, &wanted.hostname);
            }
        }
        if expect.root.is_none() && expect.to_ram.is_none() {
            return;
        }
        let offer = RootOffer {
            root_path: self.lease.root_path.as_deref(),
            boot_server: self.boot_server.as_deref(),
            mac: None,
        };
        let root = match self.plan.root(offer, &self.evaluation.settings) {
            Ok(root) => root,
            Err(error) => return faults.0.push(format!("root: {error}")),
        };
        if let Some(Root { server, exports }) = &expect.root {
            let first = root.exports.first();
            let place = first.map(|export| format!("{}:{}", export.host, export.port));
            faults.compare("server", &place.unwrap_or_default(), server);
            let names = first.map(|export| export.names.clone());
            faults.compare("exports", &names.unwrap_or_default(), exports);
        }
        if let Some(wanted) = expect.to_ram {
            faults.compare("copied to RAM", &(root.ram == RamMode::Copy), &wanted);
        }
    }

    fn config_candidates(&self) -> Vec<Url> {
        let named = |wanted: &str| {
            let found = self.base.iter().rev().find(|(name, ..)| name == wanted);
            found.map(|(_, value, _)| value.as_str())
        };
        let location = Location {
            server: self.boot_server.as_deref(),
            boot_image: self.plan.boot_image.as_deref(),
            filename: self.lease.filename.as_deref(),
            ltsconf: named("LTSCONF"),
            arch: "x86_64",
        };
        location.candidates()
    }
}

/// The list's node, unless the case says otherwise.
fn lease(case: &Case) -> Lease {
    let given = &case.lease;
    let address = given.address.as_deref().unwrap_or("10.0.0.5/24");
    let (address, prefix) = address.split_once('/').expect("ADDRESS/PREFIX");
    let address = address.parse().expect("an address");
    let hostname = given.hostname.as_deref().unwrap_or("node1");
    Lease {
        hostname: Some(hostname.to_owned()).filter(|name| !name.is_empty()),
        dns: given.dns.iter().map(|server| server.parse().expect("an address")).collect(),
        domain: given.domain.clone(),
        search: given.search.clone(),
        root_path: given.root_path.clone(),
        next_server: given.next_server.as_ref().map(|server| server.parse().expect("an address")),
        filename: given.filename.clone(),
        ..Lease::of_address(address, prefix.parse().expect("a prefix"))
    }
}

/// Lays the image out in `folder`.
fn image(case: &Case, folder: &Path) -> Tree {
    fs::create_dir_all(folder).expect("a folder");
    let tree = Tree::open(folder).expect("a folder");
    for (path, item) in &case.image {
        let done = match item {
            Item::Text(text) => tree.write(path, text, 0o644),
            Item::Program { program } => tree.write(path, program, 0o755),
            Item::Link { link } => tree.link(path, link),
        };
        done.unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    tree
}

/// As a boot finds it: what is served if there is something in it, else the image's own.
fn load(case: &Case, folder: &Path) -> config::Loaded {
    let served = folder.join("lts.conf");
    if let Some(text) = &case.lts_conf {
        fs::write(&served, text).expect("a file");
    }
    if let Some(name) = &case.lts_conf_file {
        fs::copy(workspace().join("tests/fixtures").join(name), &served).expect("a fixture");
    }
    let built_in = folder.join("built-in");
    if let Some(text) = &case.lts_conf_of_image {
        fs::write(&built_in, text).expect("a file");
    }
    let nobody = |_: &str| unreachable!("a file's address has no host");
    config::load(&[Url::File(served)], &built_in, Duration::from_secs(1), &nobody)
}

/// No word at all is in everything, and would prove nothing.
fn says(text: &str, word: &str) -> bool {
    !word.is_empty() && text.contains(word)
}

fn check_file(path: &str, text: &str, executable: bool, wanted: &File, faults: &mut Faults) {
    if let Some(wanted) = &wanted.text {
        faults.compare(path, &text, &wanted.as_str());
    }
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with('#') || line.starts_with("#!"))
        .map(str::to_owned)
        .collect();
    if let Some(wanted) = &wanted.lines {
        faults.compare(path, &lines, wanted);
    }
    if let Some(wanted) = &wanted.ends {
        let from = lines.len().saturating_sub(wanted.len());
        faults.compare(&format!("end of {path}"), &&lines[from..], &wanted.as_slice());
    }
    if let Some(wanted) = &wanted.runs {
        faults.compare(&format!("what {path} runs"), &commands_run(text), wanted);
    }
    for part in &wanted.has {
        faults.check(text.contains(part), || format!("{path} lacks {part:?}:\n{text}"));
    }
    for part in &wanted.lacks {
        faults.check(!text.contains(part), || format!("{path} has {part:?}:\n{text}"));
    }
    if let Some(wanted) = wanted.executable {
        faults.compare(&format!("{path} is executable"), &executable, &wanted);
    }
}

/// Starts a script of bare names as the kernel does, by its first line, and gives the names it ran
/// before it ended, in order. No program is a real one: each leaves its name, and `fails` fails.
fn commands_run(script: &str) -> Vec<String> {
    let (first, names) = script.split_once('\n').expect("a line with an interpreter");
    let names: Vec<_> = names.lines().filter(|line| !line.starts_with('#')).collect();
    // Anything else could do something to the machine of the test.
    let bare = |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase());
    assert!(names.iter().all(bare), "not only names: {script}");
    let folder = tempfile::tempdir().expect("a folder");
    let (programs, log) = (folder.path().join("programs"), folder.path().join("log"));
    fs::create_dir(&programs).expect("a folder");
    for name in names {
        let status = u8::from(name == "fails");
        let text = format!("#!/bin/sh\necho {name} >> '{}'\nexit {status}\n", log.display());
        let program = programs.join(name);
        fs::write(&program, text).expect("a program");
        fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("a program");
    }
    let path = folder.path().join("script");
    fs::write(&path, script).expect("a script");
    let mut words = first.trim_start_matches("#!").split(' ');
    let mut shell = Command::new(words.next().expect("an interpreter"));
    shell.args(words).arg(&path).env_clear().env("PATH", &programs).current_dir(folder.path());
    shell.output().expect("a shell");
    let log = fs::read_to_string(log).unwrap_or_default();
    log.lines().map(str::to_owned).collect()
}

fn run(script: &str, wanted: &Shell, faults: &mut Faults) {
    let folder = tempfile::tempdir().expect("a folder");
    // Its words are for the operator.
    let output = Command::new("sh")
        .args(["-c", script])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("DIR", folder.path())
        .current_dir(folder.path())
        .output();
    output.expect("a shell");
    for (name, text) in &wanted.files {
        let got = fs::read_to_string(folder.path().join(name)).ok();
        faults.compare(name, &got.as_ref(), &Some(text));
    }
    for name in &wanted.gone {
        faults.compare(&format!("{name} is there"), &folder.path().join(name).exists(), &false);
    }
}
