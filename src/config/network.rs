//! `NET_*`: the network of the running system, in the words of the kernel command line.
//!
//! They count link by link: what was typed for a link is stronger, but an `ip=` that names none, as
//! boot loaders write it (`ip=dhcp`, the lease that pxelinux's IPAPPEND passes on), yields to a
//! `NET_IP` that names one, and the address of a port to that of the bond or bridge that the settings
//! put it into. So a machine boots over one port, and runs over all. [`Description::with_settings`]
//! has the rules.

use std::fmt;

use super::problem::Place;
use super::{Origin, Settings};
use crate::cmdline;
use crate::net::description::{About, Complaint, Description, HandoverMode};

/// A setting of the network whose value is a list of what a key of the command line takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkKey {
    Ip,
    Bond,
    Vlan,
    Bridge,
    Route,
    Nameserver,
    IfName,
    Handover,
}

/// What is wrong in a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub setting: &'static str,
    /// `None`: it was typed on the command line, or it is several settings together.
    pub place: Option<Place>,
    pub text: String,
    /// It is carried out, and of no use.
    pub is_in_force: bool,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(Place { line, column, .. }) => {
                write!(f, "{} (line {line}, column {column}): {}", self.setting, self.text)?;
            }
            None => write!(f, "{}: {}", self.setting, self.text)?,
        }
        f.write_str(if self.is_in_force { "" } else { "; ignored" })
    }
}

impl NetworkKey {
    pub const ALL: [Self; 8] = [
        Self::Ip,
        Self::Bond,
        Self::Vlan,
        Self::Bridge,
        Self::Route,
        Self::Nameserver,
        Self::IfName,
        Self::Handover,
    ];

    pub const fn setting(self) -> &'static str {
        match self {
            Self::Ip => "NET_IP",
            Self::Bond => "NET_BOND",
            Self::Vlan => "NET_VLAN",
            Self::Bridge => "NET_BRIDGE",
            Self::Route => "NET_ROUTE",
            Self::Nameserver => "NET_NAMESERVER",
            Self::IfName => "NET_IFNAME",
            Self::Handover => "NET_HANDOVER",
        }
    }

    /// Whether there may be several words.
    pub const fn is_list(self) -> bool {
        !matches!(self, Self::Handover)
    }

    /// Adds one word of a value.
    ///
    /// # Errors
    /// A sentence about the word, as the command line would say it.
    pub fn read(self, word: &str, network: &mut Description) -> Result<(), String> {
        match self {
            Self::Ip => network.add_address(cmdline::address_request(word)?),
            Self::Bond => network.bonds.push(cmdline::bond(word)?),
            Self::Vlan => network.vlans.push(cmdline::vlan(word)?),
            Self::Bridge => network.bridges.push(cmdline::bridge(word)?),
            Self::Route => network.routes.push(cmdline::route(word)?),
            Self::Nameserver => network.dns.push(cmdline::nameserver(word)?),
            Self::IfName => network.names.push(cmdline::ifname(word)?),
            Self::Handover => drop(cmdline::handover(word)?),
        }
        Ok(())
    }
}

/// What the settings say of the network, without what is wrong in it; [`Description::with_settings`]
/// adds it to what the command line says.
pub fn description(settings: &Settings) -> (Description, Vec<Wrong>) {
    let mut network = Description::default();
    let mut problems = Vec::new();
    for key in NetworkKey::ALL {
        for word in settings.list(key.setting()) {
            if let Err(why) = key.read(word, &mut network) {
                problems.push(wrong(settings, key, format!("{word}: {why}"), false));
            }
        }
    }
    // What seems to be of no use may be what the command line needs.
    let complaints = network.contradictions();
    problems.extend(complaints.iter().map(|complaint| of_complaint(settings, complaint)));
    (network.without(&complaints), problems)
}

/// What the command line and the settings say together, and what is wrong in the settings; what is
/// wrong in the command line alone was said before.
pub fn wanted(typed: &Description, settings: &Settings) -> (Description, Vec<Wrong>) {
    let (described, mut problems) = description(settings);
    let (wanted, complaints) = typed.clone().with_settings(described);
    problems.extend(complaints.iter().map(|complaint| of_complaint(settings, complaint)));
    (wanted, problems)
}

/// `NET_HANDOVER`; a wrong one is [`description`]'s to report.
pub fn handover(settings: &Settings) -> Option<HandoverMode> {
    cmdline::handover(settings.filled(NetworkKey::Handover.setting())?.trim()).ok()
}

/// What was found when the pieces came together, at the setting that has brought it.
pub fn of_complaint(settings: &Settings, complaint: &Complaint) -> Wrong {
    let key = match complaint.about {
        About::Address(_) | About::Bootdev => NetworkKey::Ip,
        About::Name(_) => NetworkKey::IfName,
        About::Bond(_) => NetworkKey::Bond,
        About::Vlan(_) => NetworkKey::Vlan,
        About::Bridge(_) => NetworkKey::Bridge,
    };
    wrong(settings, key, complaint.why.clone(), !complaint.is_error)
}

fn wrong(settings: &Settings, key: NetworkKey, text: String, is_in_force: bool) -> Wrong {
    let setting = key.setting();
    let place = settings.setting(setting).and_then(|setting| match setting.origin {
        Origin::File(place) => Some(place),
        _ => None,
    });
    Wrong { setting, place, text, is_in_force }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmdline::Request;
    use crate::config::Known;
    use crate::net::description::Selector;

    #[test]
    fn settings_say_the_same_as_the_command_line() {
        let settings = Settings::of(&[
            ("NET_IP", "bond0.5:dhcp  10.0.0.5/24::10.0.0.1:::eth9:none"),
            ("NET_BOND", "bond0:eth0,eth1:mode=802.3ad"),
            ("NET_VLAN", "bond0.5:bond0 bond0.6:bond0"),
            ("NET_BRIDGE", "br0:bond0.6"),
            ("NET_ROUTE", "10.1.0.0/16:10.0.0.1"),
            ("NET_NAMESERVER", "10.0.0.53 2001:db8::53"),
            ("NET_IFNAME", "data:52:54:00:aa:bb:cc"),
            ("NET_HANDOVER", " static "),
            ("NET_DEVICE_METHOD", "manual"), // not of this family
        ]);
        let (network, problems) = description(&settings);
        assert_eq!(problems, vec![]);
        let line = "ip=bond0.5:dhcp ip=10.0.0.5/24::10.0.0.1:::eth9:none \
                    bond=bond0:eth0,eth1:mode=802.3ad vlan=bond0.5:bond0 vlan=bond0.6:bond0 \
                    bridge=br0:bond0.6 rd.route=10.1.0.0/16:10.0.0.1 nameserver=10.0.0.53 \
                    nameserver=2001:db8::53 ifname=data:52:54:00:aa:bb:cc";
        assert_eq!(network, Request::read(line).network);
        assert_eq!(handover(&settings), Some(HandoverMode::Static));
        assert_eq!(description(&Settings::of(&[("NET_IP", " ")])).0, Description::default());
    }

    /// Which port that is, only the boot knows.
    #[test]
    fn the_port_of_the_firmware_may_be_named() {
        let settings = Settings::of(&[("NET_BOND", "bond0:BOOTIF,eth1")]);
        let typed = Request::read("ip=dhcp BOOTIF=52-54-00-aa-bb-cc").network;
        let (both, complaints) = typed.with_settings(description(&settings).0);
        let mac = "52:54:00:aa:bb:cc".parse().unwrap();
        assert_eq!(both.bonds[0].members[0], Selector::Mac(mac));
        assert_eq!(complaints, vec![]);
        let typed = Request::read("ip=dhcp").network;
        let (_, complaints) = typed.with_settings(description(&settings).0);
        let [complaint] = complaints.as_slice() else { panic!("{complaints:?}") };
        let text = of_complaint(&settings, complaint).to_string();
        assert!(text.starts_with("NET_BOND: there is no BOOTIF="), "{text}");
        assert!(!text.ends_with("ignored"), "{text}");
    }

    #[test]
    fn what_is_wrong_has_a_place_and_the_rest_counts() {
        let mut settings = Settings::of(&[("NET_VLAN", "v5:v5 v6:eth0")]);
        let place = Place { file: 0, line: 7, column: 3 };
        settings.insert("NET_IP", "eth0:dhpc eth1:dhcp", Origin::File(place));
        settings.insert("NET_HANDOVER", "frozen", Origin::CommandLine);
        let (network, problems) = description(&settings);
        assert_eq!((network.addresses.len(), network.vlans.len()), (1, 1));
        let said: Vec<_> = problems.iter().map(|p| (p.setting, p.place, p.text.as_str())).collect();
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said.iter().any(|(name, at, text)| *name == "NET_IP"
            && *at == Some(place)
            && text.starts_with("eth0:dhpc: field 2")));
        assert!(said.iter().any(|(name, at, text)| *name == "NET_HANDOVER"
            && at.is_none()
            && text.contains("dhcp, static or unmanaged")));
        assert!(said.iter().any(|(name, _, text)| *name == "NET_VLAN" && text.contains("itself")));
        assert_eq!(handover(&settings), None);
    }

    /// A boot says it, and so does a plan.
    #[test]
    fn what_settings_and_command_line_make_together_is_checked_once_more() {
        let settings = Settings::of(&[("NET_VLAN", "v5:eth0 v6:nowhere"), ("NET_IP", "v5:dhcp")]);
        let typed = Request::read("bond=v5:eth0,eth1 bridge=br9:eth2 ip=v5:dhcp").network;
        let (wanted, problems) = wanted(&typed, &settings);
        let said: Vec<_> = problems.iter().map(|p| (!p.is_in_force, p.text.as_str())).collect();
        // That nobody uses br9 was said of the command line.
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].0 && said[0].1.contains("v5 is the name of a bond already"), "{said:?}");
        assert!(!said[1].0 && said[1].1.contains("v6"), "{said:?}");
        assert_eq!((wanted.bonds.len(), wanted.vlans.len()), (1, 1));
    }

    #[test]
    fn every_setting_is_in_the_table() {
        for key in NetworkKey::ALL {
            let known = Known::find(key.setting()).map(|known| known.value);
            assert_eq!(known, Some(crate::config::Value::Network(key)), "{}", key.setting());
        }
    }
}
