//! One node's plan: the decisions of a boot, made by the code of the boot, in the order of the boot.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::document::{
    self, Commands, Configuration, Described, Document, File, Handover, Kind, Method, Module,
    Network, Origin, Problem, SCHEMA, Setting, Severity, Units,
};
use super::files;
use super::heard;
use super::memory::memory;
use super::options::Site;
use super::problem::{
    file_name, of_command_line, of_error, of_file, of_network, place_of, place_of_family, said,
};
use super::situation::{Situation, boot_link};
use super::text::is_of_lease;
use crate::config::network;
use crate::config::{self, Reading, Settings, Substitution, remarks};
use crate::desk::image::Image;
use crate::directives::{Facts, Foreseen, environment, foresee, wishes};
use crate::error::Cause;
use crate::handover::{INITS, choose_init};
use crate::net::description::{Description, HandoverMode, Ipv4Method};
use crate::net::{Left, NetworkPlan, kernel, left_files};
use crate::root::verity::{TreePlace, VerityPlan};
use crate::root::{self, NbdExport, RamMode, RootPlan};

/// Decides everything. `copy_of_file`: /etc/lts.conf is among the files, as a node writes it.
pub fn decide(
    situation: &Situation,
    reading: &Reading,
    site: &Site,
    image: &Image,
    copy_of_file: bool,
) -> Document {
    let plan = &situation.plan;
    let mut problems: Vec<Problem> =
        plan.problems.iter().map(|problem| of_command_line(problem, &site.command_line)).collect();
    let mut unknown = situation.unknown.clone();

    let base = situation.base();
    // There is no shell of the real root here, and that of this machine is another one.
    let shell = if plan.substitution { Substitution::Defer } else { Substitution::Refuse };
    let mut evaluation = reading.evaluate(&base, &situation.identity(), shell);
    evaluation.problems.extend(remarks(&evaluation.settings));
    if !evaluation.deferred.is_empty() {
        unknown.push(format!(
            "What a shell of the node makes of {}: the plan is made without them.",
            evaluation.deferred.join(", ")
        ));
    }
    let of_files = reading.problems.iter().chain(&evaluation.problems);
    problems.extend(of_files.map(|problem| of_file(problem, reading)));
    let settings = &evaluation.settings;

    let later = Later::of(situation, settings, reading, &mut problems);
    let boot_server = situation.boot_server();
    let decided = plan.root(situation.offer(boot_server.as_deref()), settings);
    let root = match decided {
        Ok(root) => Some(root),
        Err(error) if situation.may_be_told_more() => {
            unknown.push(format!("The root image, unless DHCP names it: {}.", error.cause()));
            None
        }
        Err(error) => {
            problems.push(of_error(&error, None));
            None
        }
    };

    let facts = Facts {
        server: boot_server.clone(),
        device: Some(later.link.clone()),
        leases: situation.known_leases(),
        mac: situation.node.mac,
        uuid: situation.node.uuid,
        memory_kib: situation.memory_or_enough_kib(),
        configured: true,
        lts_conf: copy_of_file.then(|| reading.joined()),
    };
    let (foreseen, warnings) = heard::during(|| foresee(settings, &facts, image));
    let is_image_known = image.name().is_some();
    for (family, error) in &foreseen.errors {
        let mut problem = of_error(error, place_of_family(family, settings, reading));
        problem.message = format!("{family}: {}", problem.message);
        // What is wrong in itself is wrong with any image; what is missing may well be in it.
        if !is_image_known && !matches!(error.cause(), Cause::Invalid(_)) {
            problem.severity = Severity::Warning;
            problem.help =
                Some("this depends on the image, of which nothing is known (--image)".into());
        }
        problems.push(problem);
    }
    problems.extend(warnings.into_iter().map(|message| said(Severity::Warning, message)));
    // In the order of the boot: what the network needs is there before anybody's settings.
    let left = left(situation, &later, settings, image);
    let mut files: Vec<File> = left.root.iter().map(files::shown).collect();
    files.extend(foreseen.changes.iter().map(files::shown));
    let environment = ("/run/landfall/env".to_owned(), environment(settings));
    files.extend(left.run.iter().cloned().map(files::left));
    files.push(files::below_run(environment, 0o600));
    problems.extend(left.errors.iter().map(|error| of_error(error, None)));

    let memory = memory(situation, root.as_ref(), &files, image, &mut problems);
    let handover = handover(situation, image, &mut problems);
    if later.has_other_links && !left.run.is_empty() {
        unknown.push(
            "The files with which bonds, VLANs, bridges and further links survive in the running \
             system: they name the MAC addresses of ports, which only the node knows."
                .to_owned(),
        );
    }
    if left.run.is_empty() {
        unknown.push(
            "The files with which the network link survives in the running system: they need an \
             address and a MAC address."
                .to_owned(),
        );
    }
    if !is_image_known {
        unknown.push("The root image (--image): nothing is assumed to be in it.".to_owned());
    }
    for (path, why) in image.unreadable() {
        let message = format!(
            "the image's {path} cannot be looked at ({why}); the plan may be wrong about it"
        );
        problems.push(said(Severity::Warning, message));
    }

    problems.sort_by_key(place_of);

    Document {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: document::Node {
            mac: situation.node.mac.map(|mac| mac.to_string()),
            address: situation.known_leases().address().map(|address| address.to_string()),
            hostname: situation.hostname().map(str::to_owned),
            uuid: machine_uuid(situation),
        },
        command_line: site.command_line.clone(),
        unknown,
        network: network(situation, &later, boot_server),
        configuration: Configuration {
            files: reading.files.iter().map(|file| file.name.clone()).collect(),
            addresses: situation.addresses(&base),
        },
        sections: evaluation.sections,
        settings: settings
            .iter()
            .map(|(name, setting)| (name.to_owned(), shown(setting, reading)))
            .collect(),
        deferred: evaluation.deferred,
        root: root.map(shown_root),
        image: document::Image {
            name: image.name().map(str::to_owned),
            description: image.description(),
            depends_on: if is_image_known { Vec::new() } else { image.questions() },
        },
        commands: Commands {
            early: foreseen.early.clone(),
            late: foreseen.late.clone(),
            rc_local: family(settings, "RCFILE_"),
        },
        units: units(&files),
        services_removed: foreseen.services.clone(),
        modules: modules(&foreseen),
        hostname: foreseen.hostname,
        swap: foreseen.swap.map(shown_swap),
        files,
        memory,
        handover,
        problems,
    }
}

/// The network once the configuration is there.
struct Later {
    plan: NetworkPlan,
    /// The link that the root is behind then.
    link: String,
    /// The settings `NET_*` make another network of it.
    is_changed: bool,
    /// There is more than that one port.
    has_other_links: bool,
}

impl Later {
    fn of(
        situation: &Situation,
        settings: &Settings,
        reading: &Reading,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let before = &situation.plan.network;
        let (wanted, wrong) = network::wanted(&before.description, settings);
        problems.extend(wrong.iter().map(|wrong| of_network(wrong, reading)));
        let handover = situation.handover.or(network::handover(settings)).unwrap_or_default();
        let is_changed = wanted != before.description;
        let link = boot_link(&wanted).filter(|_| is_changed);
        let has_other_links = !wanted.tops().is_empty() || wanted.addresses.len() > 1;
        let plan = NetworkPlan { description: wanted, handover, ..before.clone() };
        let link = link.unwrap_or_else(|| situation.link.clone());
        Self { plan, link, is_changed, has_other_links }
    }
}

/// What the network stage leaves; nothing if it is not known to whom.
fn left(situation: &Situation, later: &Later, settings: &Settings, image: &Image) -> Left {
    let (Some(leases), Some(mac)) = (situation.leases(), situation.node.mac) else {
        return Left::default();
    };
    let wishes = wishes(settings, situation.memory_or_enough_kib());
    let origin = situation.address_from;
    let mut left = left_files(&later.link, mac, origin, &later.plan, leases, wishes, image);
    if later.has_other_links {
        // The rest is made of what only the node knows.
        left.run.retain(|file| is_of_lease(&file.path));
        left.root.clear();
    }
    left
}

fn machine_uuid(situation: &Situation) -> Option<String> {
    crate::machine::Identity { uuid: situation.node.uuid, serial: None }.uuid_text()
}

fn family(settings: &Settings, prefix: &str) -> Vec<String> {
    settings.family(prefix).into_iter().map(|(_, value)| value.to_owned()).collect()
}

fn modules(foreseen: &Foreseen) -> Vec<Module> {
    let module = |(name, parameters): &(String, String)| Module {
        name: name.clone(),
        parameters: parameters.clone(),
    };
    foreseen.modules.iter().map(module).collect()
}

fn network(situation: &Situation, later: &Later, boot_server: Option<String>) -> Network {
    let plan = &situation.plan.network;
    let leases = situation.known_leases();
    let joined = |first: &[IpAddr], then: &[IpAddr]| {
        let then = then.iter().filter(|address| !first.contains(address));
        first.iter().chain(then).map(ToString::to_string).collect()
    };
    let is_of_dhcp = situation.address_from == kernel::Origin::Dhcp;
    let requested = match plan.description.boot_request().map(|request| request.ipv4) {
        Some(Ipv4Method::Dhcp { request: Some(address) }) if is_of_dhcp => {
            Some(address.to_string())
        }
        _ => None,
    };
    let is_static = !is_of_dhcp || (leases.ipv4.is_none() && situation.is_typed());
    let address = leases.network_address();
    let ipv4 = leases.ipv4.as_ref();
    let ipv6 = leases.ipv6.as_ref();
    let gateway6 = ipv6.and_then(|lease| lease.gateway()).map(|gateway| gateway.to_string());
    let gateway = match ipv4 {
        Some(lease) => lease.gateway().map(|gateway| gateway.to_string()),
        None => gateway6.clone(),
    };
    let peers = if plan.description.ignore_peer_dns { Vec::new() } else { leases.dns() };
    Network {
        method: if is_static { Method::Static } else { Method::Dhcp },
        links: links(&plan.description),
        described: described(&plan.description),
        configured: later.is_changed.then(|| described(&later.plan.description)),
        handover: match later.plan.handover {
            HandoverMode::Dhcp => document::HandoverMode::Dhcp,
            HandoverMode::Static => document::HandoverMode::Static,
            HandoverMode::Unmanaged => document::HandoverMode::Unmanaged,
        },
        address: address.map(|(address, _)| address.to_string()),
        prefix: address.map(|(_, prefix)| prefix),
        gateway,
        ipv6: ipv6
            .iter()
            .flat_map(|lease| &lease.addresses)
            .map(|one| format!("{}/{}", one.address, one.prefix))
            .collect(),
        ipv6_gateway: gateway6,
        requested,
        dns: joined(&plan.dns, &peers),
        search: leases.search(),
        ntp: joined(&plan.ntp, &leases.ntp()),
        boot_server,
        lease_seconds: ipv4.and_then(|lease| lease.lease_seconds),
        complete: !situation.may_be_told_more(),
    }
}

/// Whose addresses are asked for or typed.
fn links(network: &Description) -> String {
    let named = network.addresses.iter().map(|request| match &request.on {
        Some(on) => on.to_string(),
        None => network.whom(),
    });
    let named: Vec<_> = named.collect();
    if named.is_empty() { network.whom() } else { named.join(", ") }
}

fn described(network: &Description) -> Vec<Described> {
    let lines = network.lines().into_iter();
    lines.map(|line| Described { about: line.about, text: line.text }).collect()
}

fn shown(setting: &config::Setting, reading: &Reading) -> Setting {
    let (origin, place) = match setting.origin {
        config::Origin::File(place) => (Origin::File, Some(place)),
        config::Origin::CommandLine => (Origin::CommandLine, None),
        config::Origin::Dhcp => (Origin::Dhcp, None),
        config::Origin::Agent => (Origin::Agent, None),
    };
    Setting {
        value: setting.value.clone(),
        origin,
        file: place.and_then(|place| file_name(place, reading)),
        line: place.map(|place| place.line),
    }
}

fn shown_root(root: RootPlan) -> document::Root {
    let mut exports = root.exports.into_iter();
    let first = exports.next();
    let (host, port, names, origin) = first
        .map(|export| (export.host, export.port, export.names, export.origin))
        .unwrap_or_default();
    document::Root {
        host,
        port,
        exports: names,
        origin,
        mirrors: exports.map(|mirror| server_of(&mirror)).collect(),
        copied: root.ram == RamMode::Copy,
        lazily: root.ram == RamMode::Lazy,
        rate: root.ram_rate,
        lost: root.lost.to_string(),
        verity: root.verity.map(shown_verity),
        partition: root.partition,
        filesystem: root.fstype,
        flags: root.flags,
    }
}

fn server_of(export: &NbdExport) -> String {
    format!("{}:{}", export.host, export.port)
}

fn shown_verity(verity: VerityPlan) -> document::Verity {
    let (offset, servers) = match verity.place {
        TreePlace::Image { offset } => (offset, Vec::new()),
        TreePlace::Export { exports, offset } => {
            (Some(offset), exports.iter().map(server_of).collect())
        }
    };
    document::Verity {
        root_hash: verity.root_hash.to_string(),
        offset,
        servers,
        on_corruption: verity.on_corruption.word().to_owned(),
    }
}

fn shown_swap(swap: root::SwapPlan) -> document::Swap {
    document::Swap {
        host: swap.export.host,
        port: swap.export.port,
        exports: swap.export.names,
        encrypted: swap.encrypted,
    }
}

/// What the files make systemd start, and keep from starting.
fn units(files: &[File]) -> Units {
    let mut units = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
    let [enabled, disabled, masked] = &mut units;
    for file in files {
        let Some(rest) = file.path.strip_prefix("/etc/systemd/system/") else { continue };
        match (rest.rsplit_once('/'), file.kind) {
            (Some((folder, unit)), kind)
                if folder.ends_with(".wants") || folder.ends_with(".requires") =>
            {
                let set = match kind {
                    Kind::Link => &mut *enabled,
                    Kind::Removed => &mut *disabled,
                    _ => continue,
                };
                set.insert(unit.to_owned());
            }
            (None, Kind::Link) if file.target.as_deref() == Some("/dev/null") => {
                masked.insert(rest.to_owned());
            }
            _ => {}
        }
    }
    let [enabled, disabled, masked] = units.map(|set| set.into_iter().collect());
    Units { enabled, disabled, masked }
}

fn handover(situation: &Situation, image: &Image, problems: &mut Vec<Problem>) -> Handover {
    let asked = situation.plan.init.as_deref();
    let candidates = asked.into_iter().chain(INITS).map(str::to_owned).collect();
    if image.name().is_none() {
        return Handover { init: None, candidates };
    }
    let (chosen, warnings) = heard::during(|| choose_init(image, asked));
    problems.extend(warnings.into_iter().map(|message| said(Severity::Warning, message)));
    let init = match chosen {
        Ok(init) => Some(init.display().to_string()),
        Err(error) => {
            problems.push(of_error(&error, None));
            None
        }
    };
    Handover { init, candidates }
}
