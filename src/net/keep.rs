//! What the running system must find so that its links survive: the root file system is behind one
//! of them.
//!
//! Every software that may look after the network there gets, in its own language, the same
//! messages: these links are configured already, this is who they have been to the DHCP server, and
//! never take them down, not even at the end. Without them systemd-networkd (252) and ifupdown remove
//! the address while the root is still needed, and neither poweroff nor reboot ends.
//!
//! `landfall.handover=` says whose the links are then:
//!
//! | | systemd-networkd, NetworkManager | the others |
//! |---|---|---|
//! | `dhcp` | adopts them, and renews the lease as the same client | leave them as they are |
//! | `static` | has the lease as an address that somebody typed | leave them as they are |
//! | `unmanaged` | leaves them alone | leave them alone |
//!
//! A DHCPv6 lease is not renewed by systemd-networkd, which would take its address away whenever it
//! is stopped: that one stays as if it were typed.
//!
//! Ports are matched by their address: udev of the running system may rename them. Nothing here
//! talks to a manager, enables one or stops one; nothing is written for wicked and connman.
//! `/etc/resolv.conf` and resolved's own configuration are not written here but with the directives.

mod ifupdown;
mod klibc;
mod netplan;
mod network_manager;
mod networkd;
mod share;
mod software;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::configured::Configured;
use super::description::HandoverMode;
use super::kernel::Origin;
use super::{LeaseFile, Leases, NetworkPlan, boot_server};
use crate::directives::{Change, Draft, Removals, Tree, View, carry_out};
use crate::error::{Error, Result, WhileDoing};
use share::Share;
use software::{Owner, Software};

/// Who will look after a lease in the running system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Renewer {
    /// It asks as the same client, gets the same address, and adopts it.
    Networkd,
    /// Likewise.
    NetworkManager,
    /// The address must not end ([`Network::make_permanent`]), and the keeper renews it.
    #[default]
    Nobody,
}

/// Of the addresses of either family. Those that the kernel makes of router advertisements need
/// nobody, and are not meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewers {
    pub ipv4: Renewer,
    pub ipv6: Renewer,
}

/// What settings want of the links in the running system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes<'a> {
    /// NET_DEVICE_METHOD; LTSP's `manual` if none.
    pub method: Option<&'a str>,
    /// Name servers are named by a setting: those of DHCP must not come back (C54).
    pub own_dns: bool,
    /// Likewise time servers.
    pub own_ntp: bool,
    /// Services that the root will not have any more; LTSP's lists name NetworkManager.
    pub removals: Option<Removals<'a>>,
}

/// Everything that is handed over.
#[derive(Clone, Copy)]
pub struct Inheritance<'a> {
    /// Those that something is made of before what is made of them, or after it.
    pub links: &'a [Configured],
    /// The kernel's number of a link, where there is a kernel to ask.
    pub index: &'a dyn Fn(&str) -> Option<u32>,
    /// Who the machine says it is, and what was asked for all links.
    pub plan: &'a NetworkPlan,
    /// `rd.peerdns=0`
    pub ignore_peer_dns: bool,
    pub mode: HandoverMode,
    pub wishes: Wishes<'a>,
}

/// What is left for the running system.
#[derive(Debug, Default)]
pub struct Left {
    pub renewers: Renewers,
    /// Files of `/run`.
    pub run: Vec<RunFile>,
    /// What becomes of files of the root.
    pub root: Vec<Change>,
    /// What was wished for and cannot be.
    pub errors: Vec<Error>,
}

/// A file of `/run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFile {
    /// As the running system sees it.
    pub path: String,
    pub text: String,
    pub mode: u32,
}

impl RunFile {
    /// Everybody may read it; `path` is below `/run`.
    fn open(path: impl AsRef<str>, text: impl Into<String>) -> Self {
        Self { path: format!("/run/{}", path.as_ref()), text: text.into(), mode: 0o644 }
    }

    /// For root alone: NetworkManager takes no profile that others could read.
    fn private(path: impl AsRef<str>, text: impl Into<String>) -> Self {
        Self { mode: 0o600, ..Self::open(path, text) }
    }
}

/// What [`write`] has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub renewers: Renewers,
    /// Paths as the running system sees them.
    pub files: Vec<String>,
}

/// cloud-init is there.
const CLOUD: &str = "/etc/cloud/cloud.cfg";
const CLOUD_DROP_IN: &str = "/etc/cloud/cloud.cfg.d/99-landfall.cfg";

/// First line of all files that may have one.
const HEADER: &str = "# Written by landfall at boot: the root file system is behind the network.\n";

/// Decides everything [`write`] does to a root that looks like `view`.
pub fn foresee(inheritance: &Inheritance<'_>, view: &dyn View) -> Left {
    let software = Software::of(view, inheritance.mode, inheritance.wishes.removals);
    let shares = Share::all(inheritance, &software);
    let mut left = Left { renewers: renewers(&shares, &software), ..Left::default() };
    for share in &shares {
        left.run.extend(klibc::files(share, inheritance.plan));
        left.errors.extend(share.error());
    }
    left.run.extend(lease_file(inheritance));
    left.run.extend(networkd::files(&shares, view));
    left.run.extend(network_manager::files(&shares, &software, inheritance));
    if software.netplan_for_networkd && software.owner == Owner::Networkd {
        left.run.extend(netplan::file(&shares));
    }
    if let Some(dialect) = software.ifupdown {
        left.run.extend(ifupdown::drop_ins());
        let (method, wrong) = ifupdown::method(inheritance.wishes.method);
        left.errors.extend(wrong);
        let mut draft = Draft::over(view);
        draft.write(ifupdown::PATH, ifupdown::render(&shares, method, dialect), 0o644);
        left.root = draft.into_changes();
    }
    // It would write a configuration of its own, made of what it reads in /run/net-*.conf.
    if inheritance.mode != HandoverMode::Unmanaged && view.exists(CLOUD) {
        let mut draft = Draft::over(view);
        draft.write(CLOUD_DROP_IN, format!("{HEADER}network:\n  config: disabled\n"), 0o644);
        left.root.extend(draft.into_changes());
    }
    left
}

/// Writes the files below `run` (the `/run` that the running system will have) and below `new_root`.
/// A file that cannot be written is a warning, and the others are still written.
///
/// # Errors
/// `new_root` cannot be opened.
pub fn write(inheritance: &Inheritance<'_>, new_root: &Path, run: &Path) -> Result<Kept> {
    let tree = Tree::open(new_root)?;
    let left = foresee(inheritance, &tree);
    for error in &left.errors {
        log::warn!(target: "network", "{error}");
    }
    let mut kept = Kept { renewers: left.renewers, files: Vec::new() };
    let lost = |error| log::warn!(target: "network", "{error}; the link may be lost later");
    for change in left.root {
        let errors = carry_out(std::slice::from_ref(&change), &tree);
        if errors.is_empty() {
            kept.files.push(change.path);
        }
        errors.into_iter().for_each(lost);
    }
    for file in left.run {
        match write_below(run, &file) {
            Ok(()) => kept.files.push(file.path),
            Err(error) => lost(error),
        }
    }
    Ok(kept)
}

/// The kernel's number of a link of this machine.
pub fn index(link: &str) -> Option<u32> {
    let path = Path::new("/sys/class/net").join(link).join("ifindex");
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Neither a reader nor a crash may find half of a file, or one that others can read for a moment.
fn write_below(run: &Path, file: &RunFile) -> Result<()> {
    let target = run.join(file.path.trim_start_matches("/run/"));
    let doing = || format!("writing {}", target.display());
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).while_doing(doing)?;
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(file.mode);
    let mut opened = options.open(&target).while_doing(doing)?;
    // One that was there keeps its mode otherwise, and the umask is the kernel's.
    opened.set_permissions(fs::Permissions::from_mode(file.mode)).while_doing(doing)?;
    opened.write_all(file.text.as_bytes()).while_doing(doing)
}

/// Only if all links of a family are somebody's, that family's addresses may end.
fn renewers(shares: &[Share<'_>], software: &Software) -> Renewers {
    let who = match software.owner {
        Owner::Networkd => Renewer::Networkd,
        Owner::NetworkManager => Renewer::NetworkManager,
        Owner::Nobody => Renewer::Nobody,
    };
    let of = |asks: fn(&Share<'_>) -> bool, has: fn(&Share<'_>) -> bool| {
        let mut all = shares.iter().filter(|share| has(share)).peekable();
        if all.peek().is_some() && all.all(asks) { who } else { Renewer::Nobody }
    };
    let managed = |share: &Share<'_>| !share.is_foreign() && share.ipv4.asks();
    let managed6 = |share: &Share<'_>| !share.is_foreign() && share.ipv6.asks();
    Renewers {
        ipv4: of(managed, |share| share.link.origin == Origin::Dhcp && share.link.ipv4.is_some()),
        ipv6: of(managed6, |share| share.link.ipv6.as_ref().is_some_and(share::has_leased)),
    }
}

/// `/run/landfall/lease.json`.
fn lease_file(inheritance: &Inheritance<'_>) -> Option<RunFile> {
    let value = lease_of_root(inheritance.links, inheritance.plan)?;
    Some(RunFile::open(LeaseFile::PATH, value.text()))
}

/// What is told of the link that the root is behind.
pub fn lease_of_root(links: &[Configured], plan: &NetworkPlan) -> Option<LeaseFile> {
    let link = links.iter().find(|link| link.boots).or_else(|| links.first())?;
    let leases = Leases { ipv4: link.ipv4.clone(), ipv6: link.ipv6.clone() };
    Some(LeaseFile {
        link: link.name.clone(),
        mac: link.mac,
        dhcp: link.origin == Origin::Dhcp,
        boot_server: boot_server(plan, &leases),
        leases,
    })
}

#[cfg(test)]
pub mod tests;
