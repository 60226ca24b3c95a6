//! ifupdown: `/etc/network/interfaces` as LTSP replaces it, and two drop-ins against its farewell.
//!
//! `manual` alone, which was LTSP's remedy, is not enough for the end: `ifdown -a` of ifupdown 0.8.41
//! removes the IPv4 addresses of a manual interface as well. `no-auto-down` would prevent that, but
//! needs the name that udev has yet to choose. Hence the drop-ins, which keep systemd from calling
//! `ifdown` at all.
//!
//! The name is also why the port is named by its address: "auto eth0" fails at boot when udev has
//! made ens3 of it. Pinning the name with a `.link` file would be the other way out, and would break
//! what else in the image knows the port as ens3.

use super::share::Share;
use super::{HEADER, RunFile};
use crate::directives::View;
use crate::error::Error;

/// In the new root.
pub const PATH: &str = "/etc/network/interfaces";

/// Which of the programs called ifup will read the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Debian's, since 0.8: interfaces(5) may name an interface by its address.
    Debian,
    /// ifupdown2 knows names only, and takes addresses away that its file does not have.
    Second,
    /// Those of busybox and of Alpine, where nothing renames the port.
    Plain,
}

impl Dialect {
    /// Of the one that is in a root, if one is.
    pub fn of(view: &dyn View) -> Option<Self> {
        let has = |paths: &[&str]| paths.iter().any(|path| view.exists(path));
        let debians = [
            "/usr/lib/udev/ifupdown-hotplug",
            "/lib/udev/ifupdown-hotplug",
            "/var/lib/dpkg/info/ifupdown.list",
        ];
        if has(&["/usr/share/ifupdown2"]) {
            return Some(Self::Second);
        }
        if !has(&[PATH, "/sbin/ifup", "/usr/sbin/ifup"]) {
            return None;
        }
        Some(if has(&debians) { Self::Debian } else { Self::Plain })
    }
}

/// LTSP's: the address is there already, and stays.
const MANUAL: &str = "manual";

/// What NET_DEVICE_METHOD asks for, else `manual`; with an error if it cannot be a method.
pub fn method(asked: Option<&str>) -> (&str, Option<Error>) {
    let Some(asked) = asked.map(str::trim).filter(|asked| !asked.is_empty()) else {
        return (MANUAL, None);
    };
    if asked.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return (asked, None);
    }
    let doing = format!("reading NET_DEVICE_METHOD {asked:?}");
    let why = "methods of ifupdown are words like \"manual\" and \"dhcp\"; taking \"manual\"";
    (MANUAL, Some(Error::invalid(doing, why)))
}

/// One stanza for each link with an address; none for ifupdown2, in whose hands a link is only
/// safe if it has never heard of it.
pub fn render(shares: &[Share<'_>], method: &str, dialect: Dialect) -> String {
    let mut text = format!("{HEADER}auto lo\niface lo inet loopback\n");
    let named = shares.iter().filter(|share| share.has_addresses() && !share.has_profile);
    for share in named.filter(|_| dialect != Dialect::Second || method != MANUAL) {
        text += &stanza(share, method, dialect);
    }
    text
}

fn stanza(share: &Share<'_>, method: &str, dialect: Dialect) -> String {
    let link = &share.link.name;
    // udev may rename a port, and nothing else.
    let auto = match dialect {
        Dialect::Debian if share.is_port() => format!("mac/{}={link}", share.link.mac),
        _ => link.clone(),
    };
    let keep = match dialect {
        Dialect::Debian => format!("no-auto-down {link}\n"),
        _ => String::new(),
    };
    let mut text = format!("auto {auto}\n{keep}iface {link} inet {method}\n");
    // Without an address, ifup takes the whole file for broken.
    if let ("static", Some(lease)) = (method, &share.link.ipv4) {
        text += &format!("    address {}/{}\n", lease.address, lease.prefix);
        if let Some(gateway) = lease.gateway() {
            text += &format!("    gateway {gateway}\n");
        }
    }
    text
}

/// Below `/run`: services that must not stop the network when they are stopped.
pub fn drop_ins() -> [RunFile; 2] {
    ["networking.service", "ifup@.service"].map(|unit| {
        let path = format!("systemd/system/{unit}.d/10-landfall.conf");
        RunFile::open(path, format!("{HEADER}[Service]\nExecStop=\n"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directives::carry_out;
    use crate::net::configured::Configured;
    use crate::net::keep::tests::{
        Files, WITH_NETWORK_MANAGER, inheritance, port, root, vlan_on_bond,
    };
    use crate::net::keep::{Inheritance, Wishes, foresee};
    use crate::net::plan::tests::plan;

    const DEBIAN: Files<'static> =
        &[("etc/network/interfaces", ""), ("usr/lib/udev/ifupdown-hotplug", "")];
    const SECOND: Files<'static> = &[("etc/network/interfaces", ""), ("usr/share/ifupdown2/x", "")];
    const PLAIN: Files<'static> = &[("etc/network/interfaces", "")];

    #[test]
    #[rustfmt::skip]
    fn the_program_is_recognised() {
        let cases: [(Files<'_>, Option<Dialect>); 6] = [
            (&[],    None),
            (PLAIN,  Some(Dialect::Plain)),
            (&[("sbin", "->usr/sbin"), ("usr/sbin/ifup", ""), ("usr/lib/udev/ifupdown-hotplug", "")],
                     Some(Dialect::Debian)),
            (&[("usr/sbin/ifup", ""), ("lib", "->/usr/lib"), ("usr/lib/udev/ifupdown-hotplug", "")],
                     Some(Dialect::Debian)),
            (DEBIAN, Some(Dialect::Debian)),
            (SECOND, Some(Dialect::Second)),
        ];
        for (files, dialect) in cases {
            let (_folder, tree) = root(files);
            assert_eq!(Dialect::of(&tree), dialect, "{files:?}");
        }
    }

    /// The file after its first line and the two of the loopback.
    fn stanzas(links: &[Configured], files: Files<'_>, method: Option<&str>) -> Vec<String> {
        let (_folder, tree) = root(files);
        let plan = plan();
        let wishes = Wishes { method, ..Wishes::default() };
        let left = foresee(&Inheritance { wishes, ..inheritance(links, &plan) }, &tree);
        assert!(carry_out(&left.root, &tree).is_empty());
        let text = tree.read_text(PATH).unwrap().unwrap();
        let rest = text.strip_prefix(HEADER).unwrap();
        let rest = rest.strip_prefix("auto lo\niface lo inet loopback\n").unwrap();
        rest.lines().map(str::to_owned).collect()
    }

    #[test]
    fn interfaces_has_the_stanzas_of_ltsp() {
        let links = [port()];
        // C71
        assert_eq!(stanzas(&links, PLAIN, None), ["auto eth0", "iface eth0 inet manual"]);
        assert_eq!(
            stanzas(&links, DEBIAN, Some("manual")),
            ["auto mac/52:54:00:aa:bb:cc=eth0", "no-auto-down eth0", "iface eth0 inet manual"]
        );
        let last = |method| stanzas(&links, PLAIN, Some(method)).split_off(1);
        assert_eq!(last("dhcp"), ["iface eth0 inet dhcp"]);
        assert_eq!(last("static"), ["iface eth0 inet static", "    address 10.0.0.5/24"]);
        assert_eq!(last("manual\n up reboot"), ["iface eth0 inet manual"]);
    }

    #[test]
    fn only_links_with_addresses_are_named() {
        let expected = ["auto bond0.5", "no-auto-down bond0.5", "iface bond0.5 inet manual"];
        assert_eq!(stanzas(&vlan_on_bond(), DEBIAN, None), expected);
    }

    /// It would take the address away that its file does not have.
    #[test]
    fn ifupdown2_never_hears_of_the_link() {
        assert!(stanzas(&[port()], SECOND, None).is_empty());
        let asked = stanzas(&[port()], SECOND, Some("dhcp"));
        assert_eq!(asked, ["auto eth0", "iface eth0 inet dhcp"]);
    }

    /// What the file names, NetworkManager does not touch.
    #[test]
    fn a_link_of_network_manager_is_not_named() {
        let files = [DEBIAN, WITH_NETWORK_MANAGER].concat();
        assert!(stanzas(&[port()], &files, None).is_empty());
    }
}
