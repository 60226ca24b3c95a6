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

use super::Port;
use crate::directives::Tree;

/// In the new root.
pub const PATH: &str = "/etc/network/interfaces";

/// Which of the programs called ifup will read the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Debian's, since 0.8: interfaces(5) may name an interface by its address.
    Debian,
    /// Those of busybox and of Alpine, where nothing renames the port.
    Plain,
}

impl Dialect {
    pub fn of(tree: &Tree) -> Self {
        let debians = [
            "/usr/lib/udev/ifupdown-hotplug",
            "/lib/udev/ifupdown-hotplug",
            "/var/lib/dpkg/info/ifupdown.list",
        ];
        if debians.iter().any(|path| tree.exists(path)) { Self::Debian } else { Self::Plain }
    }
}

pub fn is_in(tree: &Tree) -> bool {
    [PATH, "/sbin/ifup", "/usr/sbin/ifup"].iter().any(|path| tree.exists(path))
}

pub fn render(port: &Port<'_>, dialect: Dialect) -> String {
    let Port { link, mac, .. } = port;
    let (auto, keep) = match dialect {
        Dialect::Debian => (format!("mac/{mac}={link}"), format!("no-auto-down {link}\n")),
        Dialect::Plain => ((*link).to_owned(), String::new()),
    };
    format!(
        "# Written by landfall at boot: the root file system is behind this link.\n\
         auto lo\niface lo inet loopback\n\
         auto {auto}\n{keep}iface {link} inet manual\n"
    )
}

/// Below `/run`: services that must not stop the network when they are stopped.
pub fn drop_ins() -> [(String, String); 2] {
    ["networking.service", "ifup@.service"].map(|unit| {
        (
            format!("systemd/system/{unit}.d/10-landfall.conf"),
            "# Written by landfall at boot: the root file system is behind the network.\n\
             [Service]\nExecStop=\n"
                .to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::keep::tests::{Files, NODE, root};
    use crate::net::lease::tests::lease;
    use crate::net::plan::tests::plan;

    #[test]
    #[rustfmt::skip]
    fn the_program_is_recognised() {
        let cases: [(Files<'_>, bool, Dialect); 4] = [
            (&[],                                        false, Dialect::Plain),
            (&[("etc/network/interfaces", "")],          true,  Dialect::Plain),
            (&[("sbin", "->usr/sbin"), ("usr/sbin/ifup", ""), ("usr/lib/udev/ifupdown-hotplug", "")],
                                                         true,  Dialect::Debian),
            (&[("usr/sbin/ifup", ""), ("lib", "->/usr/lib"), ("usr/lib/udev/ifupdown-hotplug", "")],
                                                         true,  Dialect::Debian),
        ];
        for (files, is_there, dialect) in cases {
            let (_folder, tree) = root(files);
            assert_eq!((is_in(&tree), Dialect::of(&tree)), (is_there, dialect), "{files:?}");
        }
    }

    #[test]
    fn interfaces_has_the_stanzas_of_ltsp() {
        let (plan, lease) = (plan(), lease("10.0.0.5/24"));
        let port = Port { link: "eth0", mac: NODE, plan: &plan, lease: &lease };
        let stanzas = |dialect| {
            let text = render(&port, dialect);
            text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        // C71
        assert_eq!(
            stanzas(Dialect::Plain),
            ["auto lo", "iface lo inet loopback", "auto eth0", "iface eth0 inet manual"]
        );
        assert_eq!(
            stanzas(Dialect::Debian),
            [
                "auto lo",
                "iface lo inet loopback",
                "auto mac/52:54:00:aa:bb:cc=eth0",
                "no-auto-down eth0",
                "iface eth0 inet manual",
            ]
        );
    }
}
