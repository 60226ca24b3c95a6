//! One node's plan: the decisions of a boot, made by the code of the boot, in the order of the boot.

use std::collections::BTreeSet;

use super::document::{
    self, Commands, Configuration, Document, File, Handover, Kind, Method, Module, Network, Origin,
    Problem, SCHEMA, Setting, Severity, Units,
};
use super::files;
use super::heard;
use super::memory::memory;
use super::options::Site;
use super::problem::{
    file_name, of_command_line, of_error, of_file, place_of, place_of_family, said,
};
use super::situation::Situation;
use crate::config::{self, Reading, Settings, Substitution, remarks};
use crate::desk::image::Image;
use crate::directives::{Facts, Foreseen, environment, foresee, wishes};
use crate::error::Cause;
use crate::handover::{INITS, choose_init};
use crate::net::{Addressing, Leases, Left, LinkChoice, left_files};
use crate::root::{self, RamMode, RootPlan, RootSource};

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
        device: Some(situation.link.clone()),
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
    let left = left(situation, settings, image);
    let mut files: Vec<File> = left.root.iter().map(files::shown).collect();
    files.extend(foreseen.changes.iter().map(files::shown));
    let environment = ("/run/landfall/env".to_owned(), environment(settings));
    files.extend(left.run.iter().cloned().map(files::left));
    files.push(files::below_run(environment, 0o600));
    problems.extend(left.errors.iter().map(|error| of_error(error, None)));

    let memory = memory(situation, root.as_ref(), &files, image, &mut problems);
    let handover = handover(situation, image, &mut problems);
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
            address: situation.lease().map(|lease| lease.address.to_string()),
            hostname: situation.hostname().map(str::to_owned),
            uuid: machine_uuid(situation),
        },
        command_line: site.command_line.clone(),
        unknown,
        network: network(situation, boot_server),
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

/// What the network stage leaves; nothing if it is not known to whom.
fn left(situation: &Situation, settings: &Settings, image: &Image) -> Left {
    let plan = &situation.plan.network;
    match (situation.lease(), situation.node.mac) {
        (Some(lease), Some(mac)) => {
            let wishes = wishes(settings, situation.memory_or_enough_kib());
            let leases = Leases::of_ipv4(lease.clone());
            left_files(&situation.link, mac, plan, &leases, wishes, image)
        }
        _ => Left::default(),
    }
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

fn network(situation: &Situation, boot_server: Option<String>) -> Network {
    let plan = &situation.plan.network;
    let lease = situation.lease();
    let words =
        |addresses: &[std::net::IpAddr]| addresses.iter().map(ToString::to_string).collect();
    let joined = |first: &[std::net::IpAddr], then: Option<&[std::net::IpAddr]>| {
        let mut all: Vec<String> = words(first);
        all.extend(
            words(then.unwrap_or_default())
                .into_iter()
                .filter(|one| !first.iter().any(|f| f.to_string() == *one)),
        );
        all
    };
    let (method, requested) = match plan.addressing {
        Addressing::Dhcp { request } => (Method::Dhcp, request.map(|address| address.to_string())),
        Addressing::Static { .. } => (Method::Static, None),
    };
    Network {
        method,
        links: match &plan.link {
            LinkChoice::Any => "every Ethernet link".to_owned(),
            LinkChoice::Name(name) => name.clone(),
            LinkChoice::Mac(mac) => format!("the port {mac}"),
        },
        address: lease.map(|lease| lease.address.to_string()),
        prefix: lease.map(|lease| lease.prefix),
        gateway: lease.and_then(|lease| lease.gateway()).map(|gateway| gateway.to_string()),
        requested,
        dns: joined(&plan.dns, lease.map(|lease| lease.dns.as_slice())),
        search: lease.map(|lease| lease.search.clone()).unwrap_or_default(),
        ntp: joined(&plan.ntp, lease.map(|lease| lease.ntp.as_slice())),
        boot_server,
        lease_seconds: lease.and_then(|lease| lease.lease_seconds),
        complete: !situation.may_be_told_more(),
    }
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
    let RootSource::Nbd(export) = root.source;
    document::Root {
        host: export.host,
        port: export.port,
        exports: export.names,
        origin: export.origin,
        copied: root.ram == RamMode::Copy,
        partition: root.partition,
        filesystem: root.fstype,
        flags: root.flags,
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
