//! What the running system must find so that the link survives: the root file system is behind it.
//!
//! Every network manager that may be in the image gets, in its own language, the same two messages:
//! this link is configured already, and never take it down, not even at the end. Without them
//! systemd-networkd (252) and ifupdown remove the address while the root is still needed, and
//! neither poweroff nor reboot ends.
//!
//! Files are matched to the port by its MAC address: udev of the running system may rename it.
//! Nothing here talks to a manager, enables one or stops one; nothing is written for wicked and
//! connman. DNS is not written here but with the directives, except where a manager wants it in
//! the same file.

mod ifupdown;
mod network_manager;
mod networkd;

use std::fs;
use std::path::Path;

use super::{
    Addressing, Lease, LeaseFile, Leases, Mac, Network, NetworkPlan, boot_server, variables,
};
use crate::directives::{Change, Draft, Tree, View, assignment, carry_out, units};
use crate::error::{Error, Result, WhileDoing};

/// Who will look after the lease in the running system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewer {
    /// It asks as the same client, gets the same address, and adopts it.
    Networkd,
    /// The address must not end: [`Network::make_permanent`].
    Nobody,
}

/// What settings want of the link in the running system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes<'a> {
    /// NET_DEVICE_METHOD; LTSP's `manual` if none.
    pub method: Option<&'a str>,
    /// Name servers are named by a setting: those of DHCP must not come back (C54).
    pub own_dns: bool,
    /// Likewise time servers.
    pub own_ntp: bool,
}

/// What is left for the running system.
#[derive(Debug)]
pub struct Left {
    pub renewer: Renewer,
    /// Files of `/run`: path and text.
    pub run: Vec<(String, String)>,
    /// What becomes of files of the root.
    pub root: Vec<Change>,
    /// What was wished for and cannot be.
    pub errors: Vec<Error>,
}

/// What [`write`] has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub renewer: Renewer,
    /// Paths as the running system sees them.
    pub files: Vec<String>,
}

/// What there is to say about a link, apart from how each manager wants to hear it.
#[derive(Clone, Copy)]
pub struct Port<'a> {
    pub link: &'a str,
    pub mac: Mac,
    /// The addresses of all that a bond, bridge or VLAN is made of; empty for a port.
    pub beneath: &'a [Mac],
    pub plan: &'a NetworkPlan,
    pub lease: &'a Lease,
    pub wishes: Wishes<'a>,
}

impl Port<'_> {
    /// Made by somebody else, of other links. Nobody in the running system has its recipe, and to
    /// describe a part of it is to have the rest taken apart.
    fn is_composed(&self) -> bool {
        !self.beneath.is_empty()
    }

    fn is_dhcp(&self) -> bool {
        matches!(self.plan.addressing, Addressing::Dhcp { .. })
    }
}

/// Decides everything [`write`] does to a root that looks like `view`.
pub fn foresee(port: &Port<'_>, view: &dyn View) -> Left {
    let Port { link, mac, plan, lease, wishes, .. } = *port;
    let leases = Leases::of_ipv4(lease.clone());
    let variables = variables(link, mac, plan, &leases);
    let run = |path: &str| format!("/run/{path}");
    let mut left = Left {
        renewer: if port.is_composed() { Renewer::Nobody } else { renewer(view) },
        run: vec![
            (run(&format!("net-{link}.conf")), klibc_file(&variables)),
            (run("landfall/lease.json"), lease_file(port, boot_server(plan, &leases))),
            (run(&networkd::path(link, view)), networkd::render(port)),
            (run(network_manager::PATH), network_manager::render(port)),
        ],
        root: Vec::new(),
        errors: Vec::new(),
    };
    if ifupdown::is_in(view) {
        left.run.extend(ifupdown::drop_ins().map(|(path, text)| (run(&path), text)));
        let (method, wrong) = ifupdown::method(wishes.method);
        left.errors.extend(wrong);
        let mut draft = Draft::over(view);
        let dialect = ifupdown::Dialect::of(view);
        let dialect = if port.is_composed() { ifupdown::Dialect::Plain } else { dialect };
        let text = ifupdown::render(port, method, dialect);
        draft.write(ifupdown::PATH, text, 0o644);
        left.root = draft.into_changes();
    }
    left
}

/// Writes the files below `run` (the `/run` that the running system will have) and, for ifupdown,
/// below `new_root`. A file that cannot be written is a warning, and the others are still written.
///
/// # Errors
/// `new_root` cannot be opened.
pub fn write(network: &Network, wishes: Wishes<'_>, new_root: &Path, run: &Path) -> Result<Kept> {
    let (link, mac, plan) = (network.link(), network.mac(), &network.plan);
    let nothing = Lease::of_address(std::net::Ipv4Addr::UNSPECIFIED, 0);
    let lease = network.leases.ipv4.as_ref().unwrap_or(&nothing);
    let beneath: &[Mac] = &[];
    let tree = Tree::open(new_root)?;
    let left = foresee(&Port { link, mac, beneath, plan, lease, wishes }, &tree);
    for error in &left.errors {
        log::warn!(target: "network", "{error}");
    }
    let mut kept = Kept { renewer: left.renewer, files: Vec::new() };
    let lost = |error| log::warn!(target: "network", "{error}; the link may be lost later");
    for change in left.root {
        let errors = carry_out(std::slice::from_ref(&change), &tree);
        if errors.is_empty() {
            kept.files.push(change.path);
        }
        errors.into_iter().for_each(lost);
    }
    for (path, text) in left.run {
        match write_below(run, path.trim_start_matches("/run/"), &text) {
            Ok(()) => kept.files.push(path),
            Err(error) => lost(error),
        }
    }
    Ok(kept)
}

/// Everything below `run` is read by services without privileges, and holds nothing secret.
fn write_below(run: &Path, path: &str, text: &str) -> Result<()> {
    let target = run.join(path);
    let doing = || format!("writing {}", target.display());
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).while_doing(doing)?;
    }
    fs::write(&target, text).while_doing(doing)
}

/// Only networkd takes a link over from somebody else; with the files above, the other managers
/// leave it alone.
fn renewer(view: &dyn View) -> Renewer {
    let networkd = units::is_enabled(view, "systemd-networkd.service")
        || units::is_enabled(view, "systemd-networkd.socket")
        || netplan_renders_networkd(view);
    if networkd && !units::is_masked(view, "systemd-networkd.service") {
        Renewer::Networkd
    } else {
        Renewer::Nobody
    }
}

/// netplan's generator starts networkd for every renderer but NetworkManager.
fn netplan_renders_networkd(view: &dyn View) -> bool {
    const GENERATORS: [&str; 2] =
        ["/usr/lib/systemd/system-generators/netplan", "/lib/systemd/system-generators/netplan"];
    let configured = view.names("/etc/netplan").unwrap_or_default().iter().any(|name| {
        name.ends_with(".yaml")
            && view
                .read_text(&format!("/etc/netplan/{name}"))
                .ok()
                .flatten()
                .is_some_and(|text| !text.contains("NetworkManager"))
    });
    configured && GENERATORS.iter().any(|path| view.exists(path))
}

/// `/run/net-IFACE.conf`, which initramfs-tools' scripts, LTSP and cloud-init read with a shell.
fn klibc_file(variables: &[(String, String)]) -> String {
    variables.iter().map(|(name, value)| assignment(name, value)).collect()
}

fn lease_file(port: &Port<'_>, boot_server: Option<String>) -> String {
    let file = LeaseFile {
        link: port.link.to_owned(),
        mac: port.mac,
        dhcp: port.is_dhcp(),
        boot_server,
        leases: Leases::of_ipv4(port.lease.clone()),
    };
    // Strings and numbers: there is nothing in it that JSON could not say.
    serde_json::to_string_pretty(&file).unwrap_or_default() + "\n"
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::net::lease::tests::lease;
    use crate::net::plan::tests::plan;

    pub const NODE: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);

    /// Path and contents; where those begin with `->`, it is a link.
    pub type Files<'a> = &'a [(&'a str, &'a str)];

    pub fn root(files: Files<'_>) -> (tempfile::TempDir, Tree) {
        let folder = tempfile::tempdir().unwrap();
        for (path, contents) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match contents.strip_prefix("->") {
                Some(target) => std::os::unix::fs::symlink(target, path).unwrap(),
                None => fs::write(path, contents).unwrap(),
            }
        }
        let tree = Tree::open(folder.path()).unwrap();
        (folder, tree)
    }

    pub fn port<'a>(plan: &'a NetworkPlan, lease: &'a Lease) -> Port<'a> {
        let wishes = Wishes::default();
        Port { link: "eth0", mac: NODE, beneath: &[], plan, lease, wishes }
    }

    /// A VLAN on a bond: its ports have its address, and must not be taken for it.
    #[test]
    fn what_a_host_has_composed_is_left_alone_with_its_parts() {
        let (plan, lease) = (plan(), lease("10.0.0.5/24"));
        let (_folder, tree) = root(&[
            ("etc/network/interfaces", ""),
            ("usr/lib/udev/ifupdown-hotplug", ""),
            (
                "etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
                "->/usr/lib/systemd/system/systemd-networkd.service",
            ),
        ]);
        let beneath = [NODE, Mac([2, 0, 0, 0, 0, 7])];
        let bond = Port { link: "bond0.5", beneath: &beneath, ..port(&plan, &lease) };
        let left = foresee(&bond, &tree);
        assert_eq!(left.renewer, Renewer::Nobody, "networkd does not touch it");
        let text = |name: &str| {
            let mut files = left.run.iter().filter(|(path, _)| path.contains(name));
            files
                .next()
                .map(|(_, text)| text.lines().skip(1).collect::<Vec<_>>().join("\n"))
                .unwrap()
        };
        assert_eq!(
            text("systemd/network/"),
            "[Match]\nMACAddress=52:54:00:aa:bb:cc 02:00:00:00:00:07\n\n[Link]\nUnmanaged=yes"
        );
        assert!(text("NetworkManager").ends_with(
            "match-device=interface-name:=bond0.5,mac:52:54:00:aa:bb:cc,mac:02:00:00:00:00:07\nmanaged=0"
        ));
        let interfaces = tree_after(&left, &tree);
        assert!(interfaces.ends_with("auto bond0.5\niface bond0.5 inet manual\n"), "{interfaces}");
    }

    fn tree_after(left: &Left, tree: &Tree) -> String {
        assert!(carry_out(&left.root, tree).is_empty());
        tree.read_text("/etc/network/interfaces").unwrap().unwrap()
    }

    /// What a desk shows is what a boot writes, for it is the same.
    #[test]
    fn the_root_is_changed_only_where_ifupdown_reads() {
        let (plan, lease) = (plan(), lease("10.0.0.5/24"));
        let (_folder, tree) = root(&[]);
        let left = foresee(&port(&plan, &lease), &tree);
        assert_eq!((left.root.len(), left.run.len(), left.renewer), (0, 4, Renewer::Nobody));
        assert_eq!(left.run[0].0, "/run/net-eth0.conf");

        let (_folder, tree) = root(&[("etc/network/interfaces", "iface eth0 inet dhcp\n")]);
        let wishes = Wishes { method: Some("not one"), ..Wishes::default() };
        let left = foresee(&Port { wishes, ..port(&plan, &lease) }, &tree);
        assert_eq!((left.root.len(), left.run.len(), left.errors.len()), (1, 6, 1));
        assert_eq!(left.root[0].path, "/etc/network/interfaces");
        assert!(left.errors[0].to_string().contains("NET_DEVICE_METHOD"));
        // Nothing is done before somebody carries it out.
        let before = tree.read_text("/etc/network/interfaces").unwrap().unwrap();
        assert_eq!(before, "iface eth0 inet dhcp\n");
        assert!(carry_out(&left.root, &tree).is_empty());
        let after = tree.read_text("/etc/network/interfaces").unwrap().unwrap();
        assert!(after.ends_with("iface eth0 inet manual\n"), "{after}");
    }

    #[test]
    #[rustfmt::skip]
    fn the_manager_that_renews_is_recognised() {
        const WANTED: (&str, &str) = ("etc/systemd/system/multi-user.target.wants/systemd-networkd.service", "->/usr/lib/systemd/system/systemd-networkd.service");
        const MASKED: (&str, &str) = ("etc/systemd/system/systemd-networkd.service", "->/dev/null");
        const VENDOR: (&str, &str) = ("usr/lib/systemd/system/sysinit.target.wants/systemd-networkd.service", "->../systemd-networkd.service");
        const NETPLAN: (&str, &str) = ("usr/lib/systemd/system-generators/netplan", "");
        const YAML: (&str, &str) = ("etc/netplan/01.yaml", "network: {version: 2}\n");
        const FOR_NM: (&str, &str) = ("etc/netplan/01.yaml", "network:\n  renderer: NetworkManager\n");
        let cases: [(&str, Files<'_>, Renewer); 8] = [
            ("nothing",                    &[],                 Renewer::Nobody),
            ("enabled by the operator",    &[WANTED],           Renewer::Networkd),
            ("enabled by the vendor",      &[VENDOR],           Renewer::Networkd),
            ("enabled, but masked",        &[WANTED, MASKED],   Renewer::Nobody),
            ("by netplan",                 &[NETPLAN, YAML],    Renewer::Networkd),
            ("netplan for the other one",  &[NETPLAN, FOR_NM],  Renewer::Nobody),
            ("netplan's file alone",       &[YAML],             Renewer::Nobody),
            ("another manager",            &[("etc/network/interfaces", "")], Renewer::Nobody),
        ];
        for (case, files, expected) in cases {
            let (_folder, tree) = root(files);
            assert_eq!(renewer(&tree), expected, "{case}");
        }
    }

    #[test]
    fn a_shell_reads_back_what_the_server_sent() {
        let variables = [("ROOTPATH".to_owned(), "it's; $(reboot)".to_owned())];
        assert_eq!(klibc_file(&variables), "ROOTPATH='it'\\''s; $(reboot)'\n");
    }

    #[test]
    fn the_lease_is_readable_by_jq() {
        let (plan, lease) = (plan(), Lease { lease_seconds: Some(60), ..lease("10.0.0.5/24") });
        let port = port(&plan, &lease);
        let text = lease_file(&port, Some("10.0.0.1".into()));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let read: LeaseFile = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (read.link.as_str(), read.mac, read.leases),
            ("eth0", NODE, Leases::of_ipv4(lease))
        );
        assert_eq!(value["mac"], "52:54:00:aa:bb:cc");
        assert_eq!(value["address"], "10.0.0.5");
        assert_eq!(value["lease_seconds"], 60);
        assert_eq!(value["boot_server"], "10.0.0.1");
    }
}
