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
use crate::directives::View;
use crate::error::Error;

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
    pub fn of(view: &dyn View) -> Self {
        let debians = [
            "/usr/lib/udev/ifupdown-hotplug",
            "/lib/udev/ifupdown-hotplug",
            "/var/lib/dpkg/info/ifupdown.list",
        ];
        if debians.iter().any(|path| view.exists(path)) { Self::Debian } else { Self::Plain }
    }
}

pub fn is_in(view: &dyn View) -> bool {
    [PATH, "/sbin/ifup", "/usr/sbin/ifup"].iter().any(|path| view.exists(path))
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

pub fn render(port: &Port<'_>, method: &str, dialect: Dialect) -> String {
    let Port { link, mac, lease, .. } = port;
    let (auto, keep) = match dialect {
        Dialect::Debian => (format!("mac/{mac}={link}"), format!("no-auto-down {link}\n")),
        Dialect::Plain => ((*link).to_owned(), String::new()),
    };
    let mut text = format!(
        "# Written by landfall at boot: the root file system is behind this link.\n\
         auto lo\niface lo inet loopback\n\
         auto {auto}\n{keep}iface {link} inet {method}\n"
    );
    // Without an address, ifup takes the whole file for broken.
    if method == "static" {
        text += &format!("    address {}/{}\n", lease.address, lease.prefix);
        if let Some(gateway) = lease.gateway() {
            text += &format!("    gateway {gateway}\n");
        }
    }
    text
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
    use crate::net::keep::tests::{Files, port, root};
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
        let stanzas = |method: Option<&str>, dialect| {
            let text = render(&port(&plan, &lease), super::method(method).0, dialect);
            text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        // C71
        assert_eq!(
            stanzas(None, Dialect::Plain),
            ["auto lo", "iface lo inet loopback", "auto eth0", "iface eth0 inet manual"]
        );
        assert_eq!(
            stanzas(Some("manual"), Dialect::Debian),
            [
                "auto lo",
                "iface lo inet loopback",
                "auto mac/52:54:00:aa:bb:cc=eth0",
                "no-auto-down eth0",
                "iface eth0 inet manual",
            ]
        );
        let last = |method| stanzas(Some(method), Dialect::Plain).split_off(3);
        assert_eq!(last("dhcp"), ["iface eth0 inet dhcp"]);
        assert_eq!(last("static"), ["iface eth0 inet static", "    address 10.0.0.5/24"]);
        assert_eq!(last("manual\n up reboot"), ["iface eth0 inet manual"]);
    }
}
