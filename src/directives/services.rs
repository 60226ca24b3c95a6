//! KEEP_SYSTEM_SERVICES, RM_SYSTEM_SERVICES and their kin: services that a network node lacks.
//!
//! LTSP 5.5.7's lists, conditions and way of removal (its `50-rm-system-services`): the unit files
//! and start scripts are deleted from the overlay. Nothing is masked; aliases, `*.wants` links and
//! `S@.service` stay, and what they point to is simply not there. Unlike there, a name in
//! KEEP_SYSTEM_SERVICES is kept whichever list it is in (C77), and so is what
//! ENABLE_SYSTEM_SERVICES asks for.

use std::collections::BTreeSet;

use super::{Draft, View};
use crate::config::Settings;
use crate::error::{Error, Result};

/// For every node.
const ALWAYS: &str = "alsa-restore alsa-store dnsmasq exim4 grub-common lightdm lvm2-lvmetad mdadm \
    ModemManager modemmanager nbd-client nbd-server plymouth-stop rfkill-store shared-folders ssh \
    tty2 tty3 tty4 tty5 tty6 unattended-upgrades urandom ureadahead ureadahead-other x2goserver";

/// For nodes without a desktop of their own, which to LTSP were thin clients.
const WITHOUT_DESKTOP: &str = "accounts-daemon acpid apparmor apport atd avahi-daemon bluetooth \
    brltty cgmanager cups cups-browsed kerneloops network-manager NetworkManager \
    NetworkManager-wait-online NetworkManager-script-dispatcher polkitd systemd-logind teamviewerd \
    ufw upstart-socket-bridge virtualbox vboxweb whoopsie wpa_supplicant";

/// For those of them with little memory.
const WITH_LITTLE_MEMORY: &str = "anacron cron getty@ rsyslog tty1 upstart-udev-bridge";

/// For nodes whose fstab does not speak of NFS.
const WITHOUT_NFS: &str = "gssd idmapd nfs-blkmap nfs-kernel-server nfs-mountd nfs-server \
    nfs-utils portmap rpc-svcgssd rpcbind rpcbind-boot run-rpc_pipefs statd";

/// MiB.
const LITTLE_MEMORY: u64 = 200;
/// MiB; with less, an image's desktop does not make it a fat client.
const DESKTOP_MEMORY: u64 = 300;

/// What the lists depend on besides the settings.
#[derive(Clone, Copy, Debug)]
struct Node<'a> {
    memory_kib: u64,
    has_desktop: bool,
    fstab: &'a str,
}

/// Gives the names removed, whether or not the image had them (C1e).
pub fn apply(settings: &Settings, memory_kib: u64, draft: &mut Draft<'_>) -> Result<Vec<String>> {
    let fstab = draft.read_text("/etc/fstab")?.unwrap_or_default();
    let node = Node { memory_kib, has_desktop: has_desktop(draft)?, fstab: &fstab };
    let names = removals(settings, node);
    let removed = remove(&names, draft)?;
    log::debug!(target: "directives", "services: removed {}", removed.join(" "));
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// What the lists will do to a service, for those who decide before they are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removals<'a> {
    pub settings: &'a Settings,
    pub memory_kib: u64,
}

impl Removals<'_> {
    /// Whether a service, named with its suffix or without, will be gone from this root.
    pub fn take(&self, service: &str, view: &dyn View) -> bool {
        let fstab = view.read_text("/etc/fstab").ok().flatten().unwrap_or_default();
        let has_desktop = has_desktop(view).unwrap_or_default();
        let node = Node { memory_kib: self.memory_kib, has_desktop, fstab: &fstab };
        removals(self.settings, node).contains(stem(service))
    }
}

/// Whether this is a fat client: LTSP's word for a node with a desktop of its own, and enough
/// memory (MiB) for it.
pub fn is_fat(settings: &Settings, memory: u64, view: &dyn View) -> Result<bool> {
    Ok(fat(settings, memory, has_desktop(view)?))
}

fn fat(settings: &Settings, memory: u64, has_desktop: bool) -> bool {
    match settings.filled("LTSP_FATCLIENT") {
        Some(_) => settings.is_true("LTSP_FATCLIENT"),
        None => has_desktop && memory >= mib(settings, "FAT_RAM_THRESHOLD", DESKTOP_MEMORY),
    }
}

fn has_desktop(view: &dyn View) -> Result<bool> {
    let sessions = view.names("/usr/share/xsessions")?;
    Ok(sessions.iter().any(|name| name.ends_with(".desktop")))
}

fn mib(settings: &Settings, name: &str, default: u64) -> u64 {
    settings.get(name).and_then(|value| value.trim().parse().ok()).unwrap_or(default)
}

/// Thresholds that are no numbers, in whose place the usual ones count.
pub fn mistakes(settings: &Settings) -> Vec<(String, Error)> {
    let thresholds = ["FAT_RAM_THRESHOLD", "RM_RAM_THRESHOLD"].into_iter();
    let wrong = thresholds.filter_map(|name| {
        let value = settings.filled(name).filter(|value| value.trim().parse::<u64>().is_err())?;
        let error = Error::invalid(format!("reading {name}={value}"), "it is no number of MB")
            .with_hint("the usual number counts instead");
        Some((name.to_owned(), error))
    });
    wrong.collect()
}

fn removals<'a>(settings: &'a Settings, node: Node<'_>) -> BTreeSet<&'a str> {
    let memory = node.memory_kib / 1024;
    let fat = fat(settings, memory, node.has_desktop);
    let low = memory <= mib(settings, "RM_RAM_THRESHOLD", LITTLE_MEMORY);

    let lists = [
        (true, ALWAYS, "RM_SYSTEM_SERVICES"),
        (!fat, WITHOUT_DESKTOP, "RM_THIN_SYSTEM_SERVICES"),
        (!fat && low, WITH_LITTLE_MEMORY, "RM_LOW_RAM_SERVICES"),
        (!node.fstab.contains("nfs"), WITHOUT_NFS, ""),
    ];
    let enabled = settings.list("ENABLE_SYSTEM_SERVICES");
    lists
        .into_iter()
        .filter(|(applies, ..)| *applies)
        .flat_map(|(_, names, more)| names.split_whitespace().chain(settings.list(more)).map(stem))
        .filter(|name| !is_kept(settings, name) && !names(&enabled, name))
        .collect()
}

/// Whether KEEP_SYSTEM_SERVICES names a service, with its suffix or without.
pub fn is_kept(settings: &Settings, service: &str) -> bool {
    names(&settings.list("KEEP_SYSTEM_SERVICES"), service)
}

/// A service's name as it is in the lists.
fn stem(name: &str) -> &str {
    name.strip_suffix(".service").unwrap_or(name)
}

fn names(list: &[&str], service: &str) -> bool {
    list.iter().any(|name| stem(name) == stem(service))
}

/// `/etc/rc2.d` and its kin.
pub fn runlevels(view: &dyn View) -> Result<Vec<String>> {
    let names = view.names("/etc")?.into_iter();
    let folders = names.filter(|name| {
        name.len() == "rc2.d".len() && name.starts_with("rc") && name.ends_with(".d")
    });
    Ok(folders.map(|name| format!("/etc/{name}")).collect())
}

/// Whether a file of this name is a removed service's.
type Belongs<'a> = &'a dyn Fn(&str) -> bool;

/// Deletes every file of `names`; gives the paths.
fn remove(names: &BTreeSet<&str>, draft: &mut Draft<'_>) -> Result<Vec<String>> {
    let scripts = |name: &str| names.contains(name);
    let jobs = |name: &str| name.strip_suffix(".conf").is_some_and(|name| names.contains(name));
    // ???ssh: S02ssh, K01ssh.
    let links = |name: &str| name.get(3..).is_some_and(|name| names.contains(name));
    // ssh.*: ssh.service, ssh.socket. A service's name may itself have a dot.
    let units = |name: &str| {
        name.match_indices('.')
            .any(|(at, _)| name.get(..at).is_some_and(|stem| names.contains(stem)))
    };
    let mut folders: Vec<(String, Belongs<'_>)> = vec![
        ("/etc/init.d".into(), &scripts),
        ("/etc/init".into(), &jobs),
        ("/usr/lib/systemd/system".into(), &units),
        ("/etc/systemd/system".into(), &units),
    ];
    // Of an image whose /usr is not merged.
    if draft.kind("/lib")? == Some(super::tree::Kind::Directory) {
        folders.push(("/lib/systemd/system".into(), &units));
    }
    folders.extend(runlevels(draft)?.into_iter().map(|folder| (folder, &links as Belongs<'_>)));
    let mut removed = Vec::new();
    for (folder, belongs) in folders {
        // Reading a folder once is cheaper over a network than asking for each of 64 names.
        for name in draft.names(&folder)?.into_iter().filter(|name| belongs(name)) {
            let path = format!("{folder}/{name}");
            // `ssh.service.d` is harmless without its service.
            if draft.kind(&path)? != Some(super::tree::Kind::Directory) && draft.remove(&path)? {
                removed.push(path);
            }
        }
    }
    removed.sort();
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Identity, evaluate};
    use crate::directives::Tree;
    use crate::directives::draft::on;

    const NODE: Node<'_> = Node { memory_kib: 64 << 20, has_desktop: false, fstab: "" };

    #[test]
    #[rustfmt::skip]
    fn as_many_services_go_as_with_ltsp() {
        let nfs = Node { fstab: "# no nfs here", ..NODE };
        let desktop = Node { has_desktop: true, ..NODE };
        let small_desktop = Node { has_desktop: true, memory_kib: 256 << 10, ..NODE };
        let small = Node { memory_kib: 128 << 10, ..NODE };
        let cases: &[(&str, &[(&str, &str)], Node<'_>, usize)] = &[
            ("C75", &[],                                  NODE, 64),
            ("C75", &[("LTSP_FATCLIENT", "true")],        NODE, 39),
            ("C75", &[("RM_RAM_THRESHOLD", "70000")],     NODE, 70),
            ("C75", &[],                                  small, 70),
            ("C76", &[],                                  nfs,  51),
            ("C76", &[("LTSP_FATCLIENT", "y")],           nfs,  26),
            ("2.3", &[],                                  desktop, 39),
            ("2.3", &[],                                  small_desktop, 64),
            ("2.3", &[("LTSP_FATCLIENT", "false")],       desktop, 64),
            ("2.3", &[("RM_SYSTEM_SERVICES", "a b ssh")], NODE, 66),
            ("2.3", &[("RM_THIN_SYSTEM_SERVICES", "a")],  desktop, 39),
            ("2.3", &[("RM_LOW_RAM_SERVICES", "a")],      small, 71),
            ("C77", &[("KEEP_SYSTEM_SERVICES", "foo ssh"), ("RM_SYSTEM_SERVICES", "foo")],     NODE, 63),
            ("",    &[("KEEP_SYSTEM_SERVICES", "ssh.service")],  NODE, 63),
            ("",    &[("RM_SYSTEM_SERVICES", "foo.service ssh.service")], NODE, 65),
            ("",    &[("ENABLE_SYSTEM_SERVICES", "ssh atd.service")], NODE, 62),
            // D: KEEP wins in a list of several names, too.
            ("C77", &[("KEEP_SYSTEM_SERVICES", "foo ssh"), ("RM_SYSTEM_SERVICES", "foo bar")], NODE, 64),
        ];
        for (row, values, node, count) in cases {
            assert_eq!(removals(&Settings::of(values), *node).len(), *count, "{row}: {values:?}");
        }
    }

    /// A name with its suffix was counted, and its files stayed.
    #[test]
    fn a_service_may_be_named_with_its_suffix_and_a_threshold_must_be_a_number() {
        let settings = Settings::of(&[
            ("RM_SYSTEM_SERVICES", "foo.service"),
            ("RM_RAM_THRESHOLD", "lots"),
            ("FAT_RAM_THRESHOLD", " 300 "),
        ]);
        assert!(removals(&settings, NODE).contains("foo"));
        assert_eq!(removals(&settings, NODE).len(), 65);
        let mistakes = mistakes(&settings);
        let names: Vec<_> = mistakes.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["RM_RAM_THRESHOLD"]);
    }

    #[test]
    fn the_seed_keeps_what_it_lists_c1e() {
        let seed = include_str!("../../tests/fixtures/seed-lts.conf");
        let settings = evaluate(seed, &[], &Identity::default()).settings;
        let names = removals(&settings, NODE);
        assert_eq!(names.len(), 56);
        for kept in settings.list("KEEP_SYSTEM_SERVICES") {
            assert!(!names.contains(kept), "{kept}");
        }
        for gone in
            ["lvm2-lvmetad", "apparmor", "atd", "acpid", "mdadm", "dnsmasq", "network-manager"]
        {
            assert!(names.contains(gone), "{gone}");
        }
    }

    #[test]
    fn a_removed_service_leaves_no_start_behind_c78() {
        let gone = [
            "/etc/rc2.d/S02ssh",
            "/etc/rcS.d/K01ssh",
            "/etc/init.d/ssh",
            "/etc/init/ssh.conf",
            "/usr/lib/systemd/system/ssh.service",
            "/usr/lib/systemd/system/ssh.socket",
            "/etc/systemd/system/ssh.service",
            "/lib/systemd/system/rpcbind.service",
        ];
        let stay = [
            "/usr/lib/systemd/system/ssh@.service",
            "/usr/lib/systemd/system/sshd.service",
            "/usr/lib/systemd/system/ssh.service.d/x.conf",
            "/etc/init.d/sshguard",
            "/etc/rc2.d/S02sshguard",
            "/etc/systemd/system/multi-user.target.wants/ssh.service",
            "/etc/rc.local",
        ];
        for merged in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let tree = Tree::open(folder.path()).unwrap();
            if merged {
                tree.link("/lib", "usr/lib").unwrap();
                tree.write("/usr/lib/keep", "", 0o644).unwrap();
            }
            for path in gone.iter().chain(&stay) {
                tree.write(path, "", 0o644).unwrap();
            }
            let names = ["ssh", "rpcbind"].into();
            assert_eq!(
                on(&tree, |draft| remove(&names, draft)).unwrap().len(),
                gone.len(),
                "merged: {merged}"
            );
            for path in gone {
                assert!(!tree.exists(path), "{path}, merged: {merged}");
            }
            for path in stay {
                assert!(tree.exists(path), "{path}, merged: {merged}");
            }
        }
    }
}
