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

use super::{Addressing, Lease, LeaseFile, Mac, Network, NetworkPlan};
use crate::directives::Tree;
use crate::error::{Result, WhileDoing};

/// Who will look after the lease in the running system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewer {
    /// It asks as the same client, gets the same address, and adopts it.
    Networkd,
    /// The address must not end: [`Network::make_permanent`].
    Nobody,
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
struct Port<'a> {
    link: &'a str,
    mac: Mac,
    plan: &'a NetworkPlan,
    lease: &'a Lease,
}

impl Port<'_> {
    fn is_dhcp(&self) -> bool {
        matches!(self.plan.addressing, Addressing::Dhcp { .. })
    }
}

/// Writes the files below `run` (the `/run` that the running system will have) and, for ifupdown,
/// below `new_root`. A file that cannot be written is a warning, and the others are still written.
///
/// # Errors
/// `new_root` cannot be opened.
pub fn write(network: &Network, new_root: &Path, run: &Path) -> Result<Kept> {
    let port =
        Port { link: &network.link, mac: network.mac, plan: &network.plan, lease: &network.lease };
    let tree = Tree::open(new_root)?;
    let mut kept = Kept { renewer: renewer(&tree), files: Vec::new() };
    let note = |outcome: Result<String>| match outcome {
        Ok(path) => kept.files.push(path),
        Err(error) => log::warn!(target: "network", "{error}; the link may be lost later"),
    };
    let mut files = vec![
        (format!("net-{}.conf", port.link), klibc_file(&network.variables())),
        ("landfall/lease.json".to_owned(), lease_file(&port, network.boot_server())),
        (networkd::path(port.link, &tree), networkd::render(&port)),
        (network_manager::PATH.to_owned(), network_manager::render(port.mac)),
    ];
    let mut outcomes = Vec::new();
    if ifupdown::is_in(&tree) {
        files.extend(ifupdown::drop_ins());
        let text = ifupdown::render(&port, ifupdown::Dialect::of(&tree));
        let written = tree.write(ifupdown::PATH, &text, 0o644);
        outcomes.push(written.map(|()| ifupdown::PATH.to_owned()));
    }
    outcomes.extend(files.iter().map(|(path, text)| write_below(run, path, text)));
    outcomes.into_iter().for_each(note);
    Ok(kept)
}

/// Everything below `run` is read by services without privileges, and holds nothing secret.
fn write_below(run: &Path, path: &str, text: &str) -> Result<String> {
    let target = run.join(path);
    let doing = || format!("writing {}", target.display());
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).while_doing(doing)?;
    }
    fs::write(&target, text).while_doing(doing)?;
    Ok(format!("/run/{path}"))
}

/// Only networkd takes a link over from somebody else; with the files above, the other managers
/// leave it alone.
fn renewer(tree: &Tree) -> Renewer {
    let networkd = is_enabled(tree, "systemd-networkd.service")
        || is_enabled(tree, "systemd-networkd.socket")
        || netplan_renders_networkd(tree);
    if networkd && !is_masked(tree, "systemd-networkd.service") {
        Renewer::Networkd
    } else {
        Renewer::Nobody
    }
}

const ADMINS_UNITS: &str = "/etc/systemd/system";

/// Whether some unit pulls this one in.
fn is_enabled(tree: &Tree, unit: &str) -> bool {
    [ADMINS_UNITS, "/usr/lib/systemd/system", "/lib/systemd/system"].iter().any(|folder| {
        let wanting = tree.names(folder).unwrap_or_default();
        wanting
            .iter()
            .filter(|name| name.ends_with(".wants") || name.ends_with(".requires"))
            // Links in there lead to the unit by a path of the new root; that they exist is enough.
            .any(|name| matches!(tree.kind(&format!("{folder}/{name}/{unit}")), Ok(Some(_))))
    })
}

fn is_masked(tree: &Tree, unit: &str) -> bool {
    let path = format!("{ADMINS_UNITS}/{unit}");
    matches!(tree.kind(&path), Ok(Some(crate::directives::Kind::Link(to))) if to == "/dev/null")
}

/// netplan's generator starts networkd for every renderer but NetworkManager.
fn netplan_renders_networkd(tree: &Tree) -> bool {
    const GENERATORS: [&str; 2] =
        ["/usr/lib/systemd/system-generators/netplan", "/lib/systemd/system-generators/netplan"];
    let configured = tree.names("/etc/netplan").unwrap_or_default().iter().any(|name| {
        name.ends_with(".yaml")
            && tree
                .read_text(&format!("/etc/netplan/{name}"))
                .ok()
                .flatten()
                .is_some_and(|text| !text.contains("NetworkManager"))
    });
    configured && GENERATORS.iter().any(|path| tree.exists(path))
}

/// `/run/net-IFACE.conf`, which initramfs-tools' scripts, LTSP and cloud-init read with a shell.
fn klibc_file(variables: &[(String, String)]) -> String {
    variables
        .iter()
        .map(|(name, value)| format!("{name}='{}'\n", value.replace('\'', r"'\''")))
        .collect()
}

fn lease_file(port: &Port<'_>, boot_server: Option<String>) -> String {
    let file = LeaseFile {
        link: port.link.to_owned(),
        mac: port.mac,
        dhcp: port.is_dhcp(),
        boot_server,
        lease: port.lease.clone(),
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
        let port = Port { link: "eth0", mac: NODE, plan: &plan, lease: &lease };
        let text = lease_file(&port, Some("10.0.0.1".into()));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let read: LeaseFile = serde_json::from_str(&text).unwrap();
        assert_eq!((read.link.as_str(), read.mac, read.lease), ("eth0", NODE, lease));
        assert_eq!(value["mac"], "52:54:00:aa:bb:cc");
        assert_eq!(value["address"], "10.0.0.5");
        assert_eq!(value["lease_seconds"], 60);
        assert_eq!(value["boot_server"], "10.0.0.1");
    }
}
