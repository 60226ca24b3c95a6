//! Which software looks after the network of a root.

use super::HandoverMode;
use super::ifupdown::Dialect;
use crate::directives::{Removals, View, units};

/// What there is in a root, and whose the links shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Software {
    pub owner: Owner,
    pub ifupdown: Option<Dialect>,
    /// netplan is there, and speaks to systemd-networkd.
    pub netplan_for_networkd: bool,
}

/// Who takes configured links over from somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Networkd,
    NetworkManager,
    /// Nobody can, or nobody shall.
    Nobody,
}

impl Software {
    /// `removals`: services that the directives are yet to remove.
    pub fn of(view: &dyn View, mode: HandoverMode, removals: Option<Removals<'_>>) -> Self {
        let stays = |unit: &str| removals.is_none_or(|removals| !removals.take(unit, view));
        let netplan = netplan(view);
        let netplan_for_networkd = netplan == Some(Renders::Networkd);
        let owner = match mode {
            HandoverMode::Unmanaged => Owner::Nobody,
            // Where both are enabled they have been told who has what, and our ports are networkd's:
            // NetworkManager is told to leave them alone.
            _ if is_started(view, NETWORKD_UNITS, netplan_for_networkd) && stays(NETWORKD) => {
                Owner::Networkd
            }
            _ if is_started(view, &[NETWORK_MANAGER], false) && stays(NETWORK_MANAGER) => {
                Owner::NetworkManager
            }
            _ => Owner::Nobody,
        };
        Self { owner, ifupdown: Dialect::of(view), netplan_for_networkd }
    }
}

const NETWORKD: &str = "systemd-networkd.service";
/// The socket starts it as well.
const NETWORKD_UNITS: &[&str] = &[NETWORKD, "systemd-networkd.socket"];
const NETWORK_MANAGER: &str = "NetworkManager.service";

/// Whether one of these units, of which the first is the service, is pulled in, or somebody else
/// will do so. What is masked runs for nobody.
fn is_started(view: &dyn View, units: &[&str], by_others: bool) -> bool {
    let is_wanted = by_others || units.iter().any(|unit| units::is_enabled(view, unit));
    is_wanted && units.first().is_some_and(|service| !units::is_masked(view, service))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renders {
    Networkd,
    NetworkManager,
}

/// For whom netplan's generator will write: it starts networkd for every renderer but
/// NetworkManager. `None` if there is nothing that it would write.
fn netplan(view: &dyn View) -> Option<Renders> {
    const GENERATORS: [&str; 2] =
        ["/usr/lib/systemd/system-generators/netplan", "/lib/systemd/system-generators/netplan"];
    let names = view.names("/etc/netplan").unwrap_or_default();
    let files: Vec<_> = names.iter().filter(|name| name.ends_with(".yaml")).collect();
    if files.is_empty() || !GENERATORS.iter().any(|path| view.exists(path)) {
        return None;
    }
    let texts = files.into_iter().map(|name| {
        view.read_text(&format!("/etc/netplan/{name}")).ok().flatten().unwrap_or_default()
    });
    texts
        .map(|text| match text.contains("NetworkManager") {
            true => Renders::NetworkManager,
            false => Renders::Networkd,
        })
        // One file for networkd is enough for it to be started.
        .min_by_key(|renders| *renders == Renders::NetworkManager)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Origin, Settings};
    use crate::net::keep::tests::{Files, WITH_NETWORK_MANAGER, root};

    #[test]
    #[rustfmt::skip]
    fn whose_the_links_will_be_is_recognised() {
        const WANTED: (&str, &str) = ("etc/systemd/system/multi-user.target.wants/systemd-networkd.service", "->/usr/lib/systemd/system/systemd-networkd.service");
        const SOCKET: (&str, &str) = ("etc/systemd/system/sockets.target.wants/systemd-networkd.socket", "->/usr/lib/systemd/system/systemd-networkd.socket");
        const MASKED: (&str, &str) = ("etc/systemd/system/systemd-networkd.service", "->/dev/null");
        const VENDOR: (&str, &str) = ("usr/lib/systemd/system/sysinit.target.wants/systemd-networkd.service", "->../systemd-networkd.service");
        const NETPLAN: (&str, &str) = ("usr/lib/systemd/system-generators/netplan", "");
        const YAML: (&str, &str) = ("etc/netplan/01.yaml", "network: {version: 2}\n");
        const FOR_NM: (&str, &str) = ("etc/netplan/02.yaml", "network:\n  renderer: NetworkManager\n");
        const NM: (&str, &str) = ("etc/systemd/system/multi-user.target.wants/NetworkManager.service", "->/usr/lib/systemd/system/NetworkManager.service");
        const NM_MASKED: (&str, &str) = ("etc/systemd/system/NetworkManager.service", "->/dev/null");
        use HandoverMode::{Dhcp, Static, Unmanaged};
        let cases: [(&str, Files<'_>, HandoverMode, Owner); 15] = [
            ("nothing",                      &[],                   Dhcp,      Owner::Nobody),
            ("enabled by the operator",      &[WANTED],             Dhcp,      Owner::Networkd),
            ("started by its socket",        &[SOCKET],             Dhcp,      Owner::Networkd),
            ("enabled by the vendor",        &[VENDOR],             Dhcp,      Owner::Networkd),
            ("enabled, but masked",          &[WANTED, MASKED],     Dhcp,      Owner::Nobody),
            ("by netplan",                   &[NETPLAN, YAML],      Dhcp,      Owner::Networkd),
            ("by netplan, but masked",       &[NETPLAN, YAML, MASKED], Dhcp,   Owner::Nobody),
            ("netplan for the other one",    &[NETPLAN, FOR_NM, NM], Dhcp,     Owner::NetworkManager),
            ("netplan's file alone",         &[YAML],               Dhcp,      Owner::Nobody),
            ("NetworkManager",               &[NM],                 Dhcp,      Owner::NetworkManager),
            ("NetworkManager, masked",       &[NM, NM_MASKED],      Dhcp,      Owner::Nobody),
            ("both",                         &[NM, WANTED],         Dhcp,      Owner::Networkd),
            ("another",                      &[("etc/network/interfaces", "")], Dhcp, Owner::Nobody),
            ("a frozen lease has an owner",  &[NM],                 Static,    Owner::NetworkManager),
            ("hands off",                    &[NM, WANTED],         Unmanaged, Owner::Nobody),
        ];
        for (case, files, mode, expected) in cases {
            let (_folder, tree) = root(files);
            assert_eq!(Software::of(&tree, mode, None).owner, expected, "{case}");
        }
    }

    /// LTSP removes NetworkManager from nodes without a desktop of their own, and then nobody renews.
    #[test]
    fn a_service_that_is_about_to_go_owns_nothing() {
        let (_folder, tree) = root(WITH_NETWORK_MANAGER);
        let mut settings = Settings::default();
        let owner = |settings: &Settings| {
            let removals = Some(Removals { settings, memory_kib: 4 << 20 });
            Software::of(&tree, HandoverMode::Dhcp, removals).owner
        };
        assert_eq!(owner(&settings), Owner::Nobody);
        settings.insert("KEEP_SYSTEM_SERVICES", "NetworkManager", Origin::Agent);
        assert_eq!(owner(&settings), Owner::NetworkManager);
    }
}
