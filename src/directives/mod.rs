//! What the settings do to the new root before its init starts.
//!
//! One file per family, each with a pure part that is tested by tables and an `apply` that writes
//! below a root. A family that fails is a warning, and the others go on: nothing here stops
//! a boot. Families that no setting asks for still run where LTSP's did: names,
//! fstab and services are as on every LTSP node.
//!
//! Absent on purpose: shells, save for the operator's own PREINIT commands; mounting what fstab
//! says; anything about the network's links, which is the handover's.

mod accounts;
mod clock;
pub mod containers;
mod covered;
pub mod cron;
#[cfg(test)]
mod declarative;
mod disable;
mod draft;
mod enable;
mod environment;
pub mod file;
pub mod fstab;
pub mod hostname;
mod hosts;
mod image_files;
mod inittab;
mod keyboard;
mod machine_id;
mod modules;
mod mounts;
mod overlay_dir;
mod preinit;
mod rclocal;
mod resolv;
mod services;
pub mod size;
pub mod ssh;
mod substitution;
mod swap;
pub mod sysctl;
pub mod syslog;
mod timezone;
mod tree;
pub mod units;
pub mod zram;

use std::path::Path;

pub use containers::InMemory;
pub use draft::{Change, Draft, Mode, View, What, carry_out};
pub use environment::{assignment, leave_environment, render as environment};
pub use modules::Load;
pub use services::Removals;
pub use substitution::shell_of;
pub use tree::{Kind, Tree};

use containers::Containers;
use covered::Covered;
use mounts::Mounts;

use crate::config::{Origin, Settings};
use crate::error::{Error, Result, WhileDoing};
use crate::net::{Leases, Mac, Wishes};
use crate::root::SwapPlan;

/// What the boot has found out, besides settings.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Boot server, name or address.
    pub server: Option<String>,
    /// Boot interface.
    pub device: Option<String>,
    pub leases: Leases,
    /// Of the boot interface.
    pub mac: Option<Mac>,
    /// SMBIOS system UUID.
    pub uuid: Option<[u8; 16]>,
    /// `MemTotal`.
    pub memory_kib: u64,
    /// There is a configuration for this node, be it empty.
    pub configured: bool,
    /// A fetched lts.conf, which takes the place of the root's own (LTSP 5, 1.8).
    pub lts_conf: Option<String>,
}

/// What settings come to on one machine, before anything is done.
#[derive(Debug, Default)]
pub struct Foreseen {
    /// The machine's name.
    pub hostname: Option<String>,
    /// Kernel modules in order, each with its parameters.
    pub modules: Vec<(String, String)>,
    /// INIT_COMMAND_* and PRE_INIT_*: run before the other families look at the root.
    pub early: Vec<String>,
    /// What becomes of the root's files, in order.
    pub changes: Vec<Change>,
    /// PREINIT_* and POST_INIT_*: run last.
    pub late: Vec<String>,
    /// Services that are removed, whether or not the image has them.
    pub services: Vec<String>,
    /// The boot server's swap, which is connected after all that.
    pub swap: Option<SwapPlan>,
    /// What the fstab keeps in memory while the node runs.
    pub in_memory: Vec<InMemory>,
    /// The console's summary.
    pub done: Vec<String>,
    /// Families that cannot do what they are asked to, and why.
    pub errors: Vec<(String, Error)>,
}

/// Decides everything [`apply`] would do to a root like `image`, and does nothing.
pub fn foresee(settings: &Settings, facts: &Facts, image: &dyn View) -> Foreseen {
    let mut draft = Draft::over(image);
    let mut report = Report::default();
    let hostname = decide_names(settings, facts, &mut draft, &mut report);
    decide_files(settings, facts, &mut draft, &mut report);
    report.take_each("files", ((), draft.take_errors()));
    let modules = modules::wanted(settings);
    Foreseen {
        hostname,
        modules: modules.iter().map(|(name, with)| (name.to_string(), with.to_string())).collect(),
        early: preinit::early(settings),
        late: preinit::late(settings),
        changes: draft.into_changes(),
        services: report.services,
        swap: report.swap,
        in_memory: report.in_memory,
        done: report.done,
        errors: report.errors,
    }
}

/// Applies `settings` to the new root mounted at `root`, in LTSP's order. What goes wrong is said
/// as a warning, and the rest goes on. Gives the swap that the caller must connect.
///
/// The operator's commands run in `root` with what is mounted there: /proc, /sys, /dev and /run
/// must be in place already. `load` loads a kernel module by name with parameters.
pub fn apply(settings: &Settings, facts: &Facts, root: &Path, load: Load<'_>) -> Option<SwapPlan> {
    let mut report = Report::default();
    if let Some(tree) = report.take("opening the root", Tree::open(root)) {
        apply_to(&tree, settings, facts, load, &mut report);
    }
    report.say();
    report.swap
}

fn apply_to(tree: &Tree, settings: &Settings, facts: &Facts, load: Load<'_>, report: &mut Report) {
    let mut draft = Draft::over(tree);
    let name = decide_names(settings, facts, &mut draft, report);
    report.carry_out(draft, tree);
    if let Some(name) = &name {
        let set = rustix::system::sethostname(name.as_bytes())
            .while_doing(|| format!("naming this machine {name}"));
        report.take("HOSTNAME", set);
    }
    if let Some(loaded) = report.take("MODULE_*", modules::apply(settings, tree, load)) {
        report.count(loaded.now, "module", "modules");
        report.count(loaded.later, "module for the real root", "modules for the real root");
    }
    let early = preinit::early(settings);
    let lines = preinit::run("INIT_COMMAND", &early, settings, facts, name.as_deref(), tree);
    if let Some(lines) = report.take("INIT_COMMAND_*", lines) {
        report.count(lines, "INIT_COMMAND", "INIT_COMMANDs");
    }
    // Looks at the root anew: the commands may have changed it.
    let mut draft = Draft::over(tree);
    decide_files(settings, facts, &mut draft, report);
    report.carry_out(draft, tree);
    let late = preinit::late(settings);
    let lines = preinit::run("PREINIT", &late, settings, facts, name.as_deref(), tree);
    if let Some(lines) = report.take("PREINIT_*", lines) {
        report.count(lines, "PREINIT command", "PREINIT commands");
    }
}

/// Host name, hosts and resolver; gives the name.
fn decide_names(
    settings: &Settings,
    facts: &Facts,
    draft: &mut Draft<'_>,
    report: &mut Report,
) -> Option<String> {
    let name = hostname::choose(settings, facts)
        .filter(|name| report.take("HOSTNAME", hostname::check(name)).is_some());
    if let Some(name) = &name {
        hostname::apply(name, draft);
        if let Some(lines) = report.take("HOSTS_*", hosts::apply(name, settings, facts, draft)) {
            report.count(lines, "hosts line", "hosts lines");
        }
    }
    if let Some(told) = report.take("DNS_SERVER", resolv::apply(settings, facts, draft))
        && let Some(file) = report.take_each("DNS_SERVER", told)
    {
        log::debug!(target: "directives", "the resolver's servers are in {file}");
    }
    name
}

/// Everything else that is only files.
fn decide_files(settings: &Settings, facts: &Facts, draft: &mut Draft<'_>, report: &mut Report) {
    if let Some(text) = &facts.lts_conf {
        // For root alone, like /run/landfall/env: settings hold secrets. The image's own file, whose
        // mode would stay, is replaced.
        draft.replace("/etc/lts.conf", text.as_str(), 0o600);
    }
    if let Some(lines) = report.take("CRONTAB_*", cron::apply(settings, draft)) {
        report.count(lines, "cron line", "cron lines");
    }
    report.take("XKBLAYOUT", keyboard::apply(settings, draft));
    report.take("DISABLE_GETTYS", inittab::apply(settings, draft));
    let (mut covered, mut containers) = decide_mounts(settings, facts, draft, report);
    decide_swap(settings, facts, draft, report);
    if let Some(id) = machine_id::choose(facts.mac, facts.uuid) {
        report.take("machine-id", machine_id::apply(&id, draft));
    }
    if let Some(Some(folder)) = report.take("OVERLAY_DIR", overlay_dir::apply(settings, draft)) {
        report.done.push(format!("{folder} copied"));
    }
    if let Some(lines) = report.take("RCFILE_*", rclocal::apply(settings, draft)) {
        report.count(lines, "rc.local line", "rc.local lines");
    }
    if let Some(Some(zone)) = report.take("TIMEZONE", timezone::apply(settings, draft)) {
        report.done.push(format!("time zone {zone}"));
    }
    if let Some(told) = report.take("TIMESERVER", clock::time_servers(settings, facts, draft))
        && !told.is_empty()
    {
        report.done.push(format!("time servers for {}", told.join(" and ")));
    }
    report.take("HWCLOCK", clock::hardware_clock(settings, draft));
    report.take("SYSLOG_HOST", syslog::apply(settings, draft));
    let parameters = report.take_each("SYSCTL_*", sysctl::apply(settings, draft));
    report.count(parameters, "kernel parameter", "kernel parameters");
    // Behind OVERLAY_DIR, which may have brought something into a directory that will be hidden.
    containers.restore(&mut covered, draft);
    report.errors.append(&mut containers.problems);
    decide_operators_files(settings, &mut covered, draft, report);
    report.take("files below mounts", covered.decide(draft));
    decide_services(settings, facts, draft, report);
}

/// Last, so that units which other families bring count.
fn decide_services(settings: &Settings, facts: &Facts, draft: &mut Draft<'_>, report: &mut Report) {
    // Where no configuration was found nobody has had the chance to keep a service, and a node
    // without sshd can only be reached on foot.
    if facts.configured {
        report.errors.append(&mut services::mistakes(settings));
        let has_ssh = matches!(units::find(draft, "ssh.service"), Ok(units::Unit::File(_)));
        let services = services::apply(settings, facts.memory_kib, draft);
        if let Some(names) = report.take("RM_SYSTEM_SERVICES", services) {
            if has_ssh && names.iter().any(|name| name == "ssh") {
                report.errors.append(&mut ssh::unreachable(settings));
            }
            report.count(names.len(), "service removed", "services removed");
            report.services = names;
        }
    }
    let disabled = report.take_each("DISABLE_SYSTEM_SERVICES", disable::disable(settings, draft));
    report.count(disabled, "service disabled", "services disabled");
    let masked = report.take_each("MASK_SYSTEM_SERVICES", disable::mask(settings, draft));
    report.count(masked, "service masked", "services masked");
    let enabled = report.take_each("ENABLE_SYSTEM_SERVICES", enable::apply(settings, draft));
    report.count(enabled, "service enabled", "services enabled");
}

/// /etc/fstab, and what it will hide.
fn decide_mounts(
    settings: &Settings,
    facts: &Facts,
    draft: &mut Draft<'_>,
    report: &mut Report,
) -> (Covered, Containers) {
    let mut containers = Containers::default();
    let written = report.take("FSTAB_*", fstab::apply(settings, facts, draft));
    let fstab = report.take("FSTAB_*", draft.read_text("/etc/fstab")).flatten();
    let covered = Covered::under(Mounts::of(&fstab.unwrap_or_default(), draft));
    match written {
        Some(Some(mut written)) => {
            report.count(written.lines, "fstab line", "fstab lines");
            report.done.extend(written.containers.summary(facts));
            report.in_memory = written.containers.in_memory(facts);
            report.errors.append(&mut written.problems);
            containers = written.containers;
        }
        // The image's own fstab stays, and nothing is added to it.
        Some(None) if settings.filled("CONTAINER_DIRS").is_some() => report.errors.push((
            "CONTAINER_DIRS".to_owned(),
            Error::refused("adding lines to /etc/fstab", "CONFIGURE_FSTAB leaves it to the image"),
        )),
        Some(None) | None => {}
    }
    (covered, containers)
}

fn decide_swap(settings: &Settings, facts: &Facts, draft: &mut Draft<'_>, report: &mut Report) {
    if let Some(swap) = report.take("swap", swap::apply(settings, facts, draft)) {
        let how = if swap.encrypted { "encrypted swap" } else { "swap" };
        if swap.local {
            report.done.push(format!("{how} on local partitions"));
        }
        report.swap = swap.nbd;
    }
    if let Some(Some(size)) = report.take("ZRAM_SWAP", zram::apply(settings, draft)) {
        report.done.push(format!("{size} of compressed swap"));
    }
}

/// Files that the configuration brings or keeps, after all that have a family of their own.
fn decide_operators_files(
    settings: &Settings,
    covered: &mut Covered,
    draft: &mut Draft<'_>,
    report: &mut Report,
) {
    let (files, mut problems) = image_files::apply(settings, covered, draft);
    report.count(files, "file kept from the image", "files kept from the image");
    report.errors.append(&mut problems);
    let (keys, mut problems) = ssh::authorize(settings, covered, draft);
    report.count(keys, "authorized key", "authorized keys");
    report.errors.append(&mut problems);
    if report.take("SSH_HOST_KEYS", ssh::host_keys(settings, covered, draft)) == Some(true) {
        report.done.push("host keys of its own".to_owned());
    }
    let (files, mut problems) = file::apply(settings, covered, draft);
    report.count(files, "file written", "files written");
    report.errors.append(&mut problems);
}

/// What settings want of the boot link in the running system.
pub fn wishes(settings: &Settings, memory_kib: u64) -> Wishes<'_> {
    // DHCP's variables are settings, too.
    let is_set = |name: &str| {
        settings.filled(name).is_some()
            && settings.setting(name).is_some_and(|setting| setting.origin != Origin::Dhcp)
    };
    Wishes {
        method: settings.filled("NET_DEVICE_METHOD"),
        own_dns: is_set("DNS_SERVER"),
        own_ntp: is_set("TIMESERVER"),
        removals: Some(Removals { settings, memory_kib }),
    }
}

/// The boot server, as a setting or as the network said.
fn server<'a>(settings: &'a Settings, facts: &'a Facts) -> Option<&'a str> {
    settings.filled("SERVER").or(facts.server.as_deref())
}

/// What was done and what was not.
#[derive(Debug, Default)]
struct Report {
    services: Vec<String>,
    done: Vec<String>,
    /// With the family's name.
    errors: Vec<(String, Error)>,
    swap: Option<SwapPlan>,
    in_memory: Vec<InMemory>,
}

impl Report {
    /// The value; an error is kept with the `family` it belongs to.
    fn take<T>(&mut self, family: &str, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.errors.push((family.to_owned(), error))).ok()
    }

    /// What was done; every error is kept.
    fn take_each<T>(&mut self, family: &str, (value, errors): (T, Vec<Error>)) -> T {
        self.errors.extend(errors.into_iter().map(|error| (family.to_owned(), error)));
        value
    }

    /// Does what was decided.
    fn carry_out(&mut self, draft: Draft<'_>, tree: &Tree) {
        for error in draft::carry_out(&draft.into_changes(), tree) {
            self.errors.push(("files".to_owned(), error));
        }
    }

    fn count(&mut self, count: usize, one: &str, several: &str) {
        match count {
            0 => {}
            1 => self.done.push(format!("1 {one}")),
            count => self.done.push(format!("{count} {several}")),
        }
    }

    fn say(&self) {
        for (family, error) in &self.errors {
            match error.hint() {
                Some(hint) => log::warn!(target: "directives", "{family}: {error} ({hint})"),
                None => log::warn!(target: "directives", "{family}: {error}"),
            }
        }
        if !self.done.is_empty() {
            log::info!(target: "directives", "{}", self.done.join(", "));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::config::{Identity, evaluate};

    pub fn lease(address: impl Into<Ipv4Addr>, prefix: u8) -> crate::net::Lease {
        crate::net::Lease::of_address(address.into(), prefix)
    }

    /// The first user's node, but for its commands: what C1 says about files.
    #[test]
    fn the_seed_leaves_the_files_it_always_left() {
        let seed = include_str!("../../tests/fixtures/seed-lts.conf");
        let settings = evaluate(seed, &[], &Identity::default()).settings;
        let facts = Facts {
            server: Some("10.9.0.2".into()),
            leases: Leases::of_ipv4(lease([10, 9, 200, 5], 16)),
            mac: "52:54:00:aa:bb:cc".parse().ok(),
            memory_kib: 64 << 20,
            configured: true,
            lts_conf: Some(seed.into()),
            ..Facts::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        tree.write("/etc/rc.local", "#!/bin/sh -e\nexit 0\n", 0o755).unwrap();
        let mut report = Report::default();
        let name = draft::on(&tree, |draft| {
            let name = decide_names(&settings, &facts, draft, &mut report);
            decide_files(&settings, &facts, draft, &mut report);
            name
        });

        assert_eq!(name.as_deref(), Some("ltsp51205"));
        assert!(report.errors.is_empty(), "{:?}", report.errors);
        assert_eq!(report.done.join(", "), "3 fstab lines, 7 rc.local lines, 56 services removed");
        let read = |path: &str| tree.read_text(path).unwrap().unwrap();
        assert_eq!(read("/etc/hostname"), "ltsp51205\n");
        assert!(read("/etc/hosts").contains("10.9.0.2 server\n"));
        assert_eq!(read("/etc/lts.conf"), seed);
        assert_eq!(read("/etc/machine-id"), "525400aabbcc00000000000000000000\n");
        assert_eq!(read("/etc/fstab").lines().count(), 5);
        assert_eq!(read("/etc/rc.local").lines().count(), 8);
    }

    /// Everything that is decided, on a root that has a bit of everything: a desk foresees what
    /// a boot does.
    #[test]
    fn what_is_foreseen_is_what_is_found() {
        let text = r#"
[default]
HOSTNAME=node7
HOSTNAME_ADDRESS=lease
DNS_SERVER="10.0.0.2 nonsense"
TIMEZONE=Europe/Prague
TIMESERVER=auto
HWCLOCK=local
SYSLOG_HOST=10.0.0.3:514
XKBLAYOUT=cz
CRONTAB_1="@daily root true"
SYSCTL_1="kernel.panic=10 vm.swappiness=1"
RCFILE_1="echo from the file"
MASK_SYSTEM_SERVICES="apt-daily.timer"
DISABLE_SYSTEM_SERVICES=cron
ENABLE_SYSTEM_SERVICES="join none"
FSTAB_1="/dev/sda1 /srv ext4 nofail 0 0"
"#;
        let settings = evaluate(text, &[], &Identity::default()).settings;
        let facts = Facts {
            server: Some("10.9.0.2".into()),
            leases: Leases::of_ipv4(lease([10, 9, 200, 5], 16)),
            mac: "52:54:00:aa:bb:cc".parse().ok(),
            memory_kib: 64 << 20,
            configured: true,
            ..Facts::default()
        };
        let image = || {
            let folder = tempfile::tempdir().unwrap();
            let tree = Tree::open(folder.path()).unwrap();
            tree.link("/lib", "usr/lib").unwrap();
            tree.link("/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf").unwrap();
            for (path, mode) in [
                ("/usr/lib/systemd/systemd", 0o755),
                ("/usr/lib/systemd/systemd-timesyncd", 0o755),
                ("/usr/lib/systemd/system/ssh.service", 0o644),
                ("/usr/lib/systemd/system/systemd-resolved.service", 0o644),
                ("/usr/share/zoneinfo/Europe/Prague", 0o644),
                ("/etc/cron.d/README", 0o644),
                ("/etc/rsyslog.d/50-default.conf", 0o644),
                ("/etc/default/keyboard", 0o644),
                ("/etc/systemd/system/multi-user.target.wants/cron.service", 0o644),
                ("/var/lib/dbus/machine-id", 0o644),
            ] {
                tree.write(
                    path,
                    "XKBLAYOUT=us
",
                    mode,
                )
                .unwrap();
            }
            let overlay = "/etc/ltsp/overlay-dir";
            let unit = "[Install]
WantedBy=multi-user.target
";
            for (path, text, mode) in [
                ("/lib/systemd/system/join.service", unit, 0o644),
                (
                    "/etc/rc.local",
                    "#!/bin/sh
echo from the folder
exit 0
",
                    0o755,
                ),
            ] {
                tree.write(&format!("{overlay}{path}"), text, mode).unwrap();
            }
            (folder, tree)
        };
        let (_image, untouched) = image();
        let foreseen = foresee(&settings, &facts, &untouched);
        let mut shown = Draft::over(&untouched);
        shown.adopt(&foreseen.changes);

        let (_booted, booted) = image();
        let mut report = Report::default();
        draft::on(&booted, |draft| {
            decide_names(&settings, &facts, draft, &mut report);
            decide_files(&settings, &facts, draft, &mut report);
        });
        assert_eq!(foreseen.done, report.done);
        let families: Vec<_> = foreseen.errors.iter().map(|(family, _)| family.as_str()).collect();
        assert_eq!(families, ["DNS_SERVER", "ENABLE_SYSTEM_SERVICES"], "{:?}", foreseen.errors);
        for Change { path, .. } in &foreseen.changes {
            assert_eq!(shown.kind(path).unwrap(), booted.kind(path).unwrap(), "{path}");
            assert_eq!(shown.read(path).ok(), booted.read(path).ok(), "{path}");
        }
        let rc_local = booted.read_text("/etc/rc.local").unwrap().unwrap();
        assert_eq!(
            rc_local,
            "#!/bin/sh
echo from the folder
echo from the file
"
        );
        assert!(units::is_enabled(&booted, "join.service"));
        assert_eq!(booted.kind("/lib").unwrap(), Some(Kind::Link("usr/lib".into())));
        assert!(!booted.exists("/usr/lib/systemd/system/ssh.service"));
        // At the desk nothing has happened.
        assert!(untouched.exists("/usr/lib/systemd/system/ssh.service"));
        assert!(!untouched.exists("/etc/hosts"));
    }

    /// Keys for a service that is not there were a node that could only be reached on foot.
    #[test]
    fn keys_for_a_removed_ssh_are_said() {
        let key = ("SSH_HOST_KEYS", "generate");
        for (values, has_ssh, said) in [
            (&[key][..], true, true),
            (&[key], false, false),
            (&[], true, false),
            (&[key, ("KEEP_SYSTEM_SERVICES", "ssh")], true, false),
            (&[key, ("ENABLE_SYSTEM_SERVICES", "ssh.service")], true, false),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let tree = Tree::open(folder.path()).unwrap();
            if has_ssh {
                let unit = "[Install]\nWantedBy=multi-user.target\n";
                tree.write("/usr/lib/systemd/system/ssh.service", unit, 0o644).unwrap();
            }
            let facts = Facts { configured: true, ..Facts::default() };
            let mut report = Report::default();
            let settings = Settings::of(values);
            draft::on(&tree, |draft| decide_services(&settings, &facts, draft, &mut report));
            let families: Vec<_> = report.errors.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(families.contains(&"SSH_HOST_KEYS"), said, "{values:?} {families:?}");
        }
    }

    /// One family's trouble must not cost the others.
    #[test]
    fn a_failure_is_collected_and_the_rest_goes_on() {
        let text = "[default]\nHOSTNAME=bad/name\nTIMEZONE=No/Where\nFSTAB_1=x\n";
        let settings = evaluate(text, &[], &Identity::default()).settings;
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        let mut report = Report::default();
        draft::on(&tree, |draft| {
            assert_eq!(decide_names(&settings, &Facts::default(), draft, &mut report), None);
            decide_files(&settings, &Facts::default(), draft, &mut report);
        });
        let names: Vec<_> = report.errors.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["HOSTNAME", "FSTAB_1", "TIMEZONE"], "{:?}", report.errors);
        assert!(tree.read_text("/etc/fstab").unwrap().unwrap().ends_with("\nx\n"));
    }
}
