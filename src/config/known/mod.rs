//! The one table of settings: `check`, the remarks at boot and the manual page walk it.
//!
//! Settings that are not in it are nobody's mistake: they are variables of the operator's own
//! commands. Only a name that looks like a misspelt one of ours is worth a word.

mod table;

use super::network::NetworkKey;
use super::problem::{Place, Problem, Severity};
use super::{Origin, Settings};
use crate::cmdline::distance;

pub use table::KNOWN;

/// A setting that Landfall knows, or several: a family when the name ends with `_`, otherwise `*`
/// stands for anything.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub name: &'static str,
    pub value: Value,
    pub standing: Standing,
    pub topic: Topic,
    /// As the manual shows it; empty if there is none.
    pub default: &'static str,
    /// What it does; of an ignored one, why it does nothing.
    pub manual: &'static str,
}

/// The heading of the manual under which a setting is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    Source,
    Names,
    Network,
    Time,
    Commands,
    Services,
    Mounts,
    Swap,
    Files,
    System,
    Given,
    Ignored,
}

/// What a value must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    Text,
    /// LTSP's: true, y, yes; anything else is false.
    Boolean,
    /// The same, and every other spelling of yes.
    Switch,
    /// LTSP's booleans, or one of these words.
    BooleanOr(&'static [&'static str]),
    /// In any case.
    OneOf(&'static [&'static str]),
    /// One word, in this spelling only.
    Exactly(&'static str),
    Section,
    HostName,
    /// What the names of nodes begin or end with.
    PartOfName,
    /// One name of a machine or an IPv4 address.
    Host,
    /// Several of them, each with `:PORT` if the number says so, or the word.
    Hosts {
        word: Option<&'static str>,
        ports: bool,
    },
    Addresses,
    /// One address, or one of these words in any case.
    AddressOr(&'static [&'static str]),
    Domains,
    HostsLine,
    /// Blank-separated names of services.
    Services,
    TimeOfDay,
    TimeZone,
    Megabytes,
    /// `2G`, or a share of the memory: `50%`.
    SizeOrShare,
    /// Names of xkb.
    Keyboard,
    Module,
    FstabLine,
    NfsSource,
    MountOptions,
    /// A line of a script that all members of the family make together.
    ShellLine,
    CronLine,
    Path,
    FileName,
    Paths,
    Sysctl,
    ContainerDirs,
    SshKey,
    File,
    /// Words of a key of the command line.
    Network(NetworkKey),
}

/// What becomes of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Applied,
    /// Known before the file is read, for use in its values and commands.
    Given,
    /// LTSP's, and of no meaning here; the reason, for people.
    Ignored(&'static str),
}

impl Known {
    /// The row of a setting's name.
    pub fn find(name: &str) -> Option<&'static Self> {
        let exact = KNOWN.iter().find(|known| known.name == name);
        exact.or_else(|| KNOWN.iter().find(|known| known.covers(name)))
    }

    pub fn is_family(&self) -> bool {
        self.name.ends_with('_')
    }

    /// The name as people write it: `FSTAB_*`.
    pub fn title(&self) -> String {
        if self.is_family() { format!("{}*", self.name) } else { self.name.to_owned() }
    }

    fn covers(&self, name: &str) -> bool {
        match self.name.split_once('*') {
            Some((before, after)) => name
                .strip_prefix(before)
                .and_then(|rest| rest.strip_suffix(after))
                .is_some_and(|between| !between.is_empty() || after.is_empty()),
            None => self.is_family() && name.starts_with(self.name),
        }
    }
}

/// The known name that somebody most likely meant by `name`, which is none; for a member of a
/// family, that member's name.
pub fn nearest(name: &str) -> Option<String> {
    let candidates = KNOWN.iter().filter(|known| {
        !matches!(known.standing, Standing::Ignored(_)) && !known.name.contains('*')
    });
    candidates
        .filter_map(|known| match known.is_family() {
            true => {
                let (stem, member) = split_member(name, known.name)?;
                let errors = misspelt(stem, known.name.trim_end_matches('_'))?;
                // `FSTAB1` has the right letters, and is no member all the same.
                Some((errors, format!("{}{member}", known.name)))
            }
            false => Some((misspelt(name, known.name)?, known.name.to_owned())),
        })
        .min()
        .map(|(_, name)| name)
}

/// Splits `PREINT_01_X` after as many words as `family` has, and `FSTAB1` or `FSTAB-1` before what
/// stands where the `_` should be.
fn split_member<'a>(name: &'a str, family: &str) -> Option<(&'a str, &'a str)> {
    let letters = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
    if letters.len() < name.len() && !letters.ends_with('_') {
        let member = name.get(letters.len()..)?.trim_start_matches('-');
        if letters.matches('_').count().checked_add(1)? == family.matches('_').count() {
            return Some((letters, member));
        }
    }
    let words = family.matches('_').count();
    let (end, _) = name.match_indices('_').nth(words.checked_sub(1)?)?;
    Some((name.get(..end)?, name.get(end.checked_add(1)?..)?))
}

/// How many letters are wrong in `typed`, if they are few enough for a misspelling of `known`.
fn misspelt(typed: &str, known: &str) -> Option<usize> {
    let allowed: usize = match known.len() {
        ..=4 => 0,
        5..=7 => 1,
        _ => 2,
    };
    if typed.len().abs_diff(known.len()) > allowed {
        return None;
    }
    // `SERVER2` is a second server of somebody's own, as likely as not.
    let counted = typed
        .strip_prefix(known)
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
    let errors = distance(typed, known);
    let swapped = errors == 2 && sorted(typed) == sorted(known);
    (!counted && (errors <= allowed || swapped && allowed > 0)).then_some(errors)
}

fn sorted(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.sort_unstable();
    bytes
}

/// A node has only so much to say about its file, and the file decides how much there is.
const MOST_REMARKS: usize = 20;

/// What a boot says about the names of its settings: those without effect, once, and each that
/// looks misspelt.
pub fn remarks(settings: &Settings) -> Vec<Problem> {
    let mut ignored: Vec<(Place, &str)> = Vec::new();
    let mut problems = Vec::new();
    for (name, setting) in settings.iter() {
        let Origin::File(place) = setting.origin else { continue };
        match Known::find(name) {
            Some(Known { standing: Standing::Ignored(_), .. }) => ignored.push((place, name)),
            Some(_) => {}
            None if problems.len() < MOST_REMARKS => {
                if let Some(meant) = nearest(name) {
                    let text = format!("{name} is no setting; did you mean {meant}?");
                    problems.push(Problem { place, text, severity: Severity::Warning, help: None });
                }
            }
            None => {}
        }
    }
    if let Some(place) = ignored.iter().map(|(place, _)| *place).min() {
        let names: Vec<_> = ignored.iter().map(|(_, name)| *name).take(MOST_REMARKS).collect();
        let more = match ignored.len().saturating_sub(MOST_REMARKS) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let text = format!("LTSP settings without effect here: {}{more}", names.join(" "));
        problems.push(Problem { place, text, severity: Severity::Warning, help: None });
    }
    problems.sort_by_key(|problem| problem.place);
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmdline::Request;
    use crate::config::base;
    use crate::machine::Identity;
    use crate::net::{kernel, variables};
    use crate::plan::Plan;

    #[test]
    fn every_row_is_there_once_and_says_what_it_does() {
        for (at, known) in KNOWN.iter().enumerate() {
            assert!(!known.manual.is_empty(), "{}", known.name);
            assert!(known.name.chars().filter(|c| *c == '*').count() <= 1, "{}", known.name);
            let twice = KNOWN.iter().skip(at + 1).any(|other| other.name == known.name);
            assert!(!twice, "{}", known.name);
            let topic = matches!(known.standing, Standing::Ignored(_));
            assert_eq!(known.topic == Topic::Ignored, topic, "{}", known.name);
        }
    }

    /// What a lease that says everything gives, and nothing else, is told to people as given.
    #[test]
    fn what_is_given_is_what_a_boot_gives() {
        let lease = serde_json::from_value(serde_json::json!({
            "address": "10.0.0.5", "prefix": 24, "broadcast": "10.0.0.255",
            "routes": [{ "to": "0.0.0.0/0", "via": "10.0.0.1" }], "mtu": 1500,
            "dns": ["10.0.0.1", "10.0.0.2"], "domain": "a.org", "search": ["a.org"],
            "hostname": "n", "ntp": ["10.0.0.1"], "time_offset": 3600, "nis_domain": "n",
            "root_path": "/r", "next_server": "10.0.0.1", "tftp_server": "10.0.0.1",
            "filename": "f", "server_id": "10.0.0.1",
            "lease_seconds": 60, "renew_seconds": 30, "rebind_seconds": 50,
        }));
        let mac = "52:54:00:aa:bb:cc".parse().unwrap();
        let plan = Plan::decide(Request::read("root=nbd:10.0.0.1:x"), &Identity::default());
        let variables =
            variables("eth0", "2", mac, kernel::Origin::Dhcp, &plan.network, &lease.unwrap());
        let base = base(&plan, variables, Some("10.0.0.1".to_owned()));
        let names: Vec<_> = base.iter().map(|(name, ..)| name.as_str()).collect();
        for known in KNOWN.iter().filter(|known| known.standing == Standing::Given) {
            assert!(names.contains(&known.name), "{} is given by nothing", known.name);
        }
        for name in names {
            // Some are settings, too.
            let standing = Known::find(name).map(|known| known.standing);
            let is_known = matches!(standing, Some(Standing::Given | Standing::Applied));
            assert!(is_known, "{name} is given, and the table is silent about it");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn names_are_found_as_they_are_and_as_members() {
        let cases = [
            ("HOSTNAME",       Some("HOSTNAME")),
            ("HOSTNAME_BASE",  Some("HOSTNAME_BASE")),
            ("FSTAB_01_SSH",   Some("FSTAB_")),
            ("FSTAB_",         Some("FSTAB_")),
            ("FSTAB",          None),
            ("XKBMODEL",       Some("XKBMODEL")),  // not X_*
            ("X_CONF",         Some("X_*")),
            ("MIC_VOLUME",     Some("*_VOLUME")),
            ("SOUND",          Some("SOUND*")),
            ("SOUND_DAEMON",   Some("SOUND*")),
            ("SCREEN_07",      Some("SCREEN_*")),
            ("PRINTER_0_PORT", Some("PRINTER_*")),
            ("filename",       Some("filename")),
            ("MY_OWN",         None),
        ];
        for (name, row) in cases {
            assert_eq!(Known::find(name).map(|known| known.name), row, "{name}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_misspelt_name_is_recognised_and_a_name_of_ones_own_is_left_alone() {
        let cases = [
            ("HOSTNAM",                Some("HOSTNAME")),
            ("HOTSNAME",               Some("HOSTNAME")),
            ("SEVRER",                 Some("SERVER")),
            ("DNSSERVER",              Some("DNS_SERVER")),
            ("DNS_SERVERS",            Some("DNS_SERVER")),
            ("TIMZONE",                Some("TIMEZONE")),
            ("KEEP_SYSTEM_SERVICE",    Some("KEEP_SYSTEM_SERVICES")),
            ("PREINT_01_X",            Some("PREINIT_01_X")),
            ("RCFILE1",                Some("RCFILE_1")),
            ("RCFILES_1",              Some("RCFILE_1")),
            ("FSTAB-1",                Some("FSTAB_1")),
            ("SSH_AUTHORISED_KEYS_1",  Some("SSH_AUTHORIZED_KEYS_1")),
            ("INIT_COMAND_1",          Some("INIT_COMMAND_1")),
            ("SYSCTL",                 None),      // no member, no number
            ("SERVER2",                None),
            ("A",                      None),
            ("MASTER",                 None),
            ("KUBE_TOKEN",             None),
            ("NODE_IP",                None),
        ];
        for (name, meant) in cases {
            assert_eq!(nearest(name).as_deref(), meant, "{name}");
        }
    }

    #[test]
    fn a_boot_names_what_has_no_effect_once_and_each_that_looks_misspelt() {
        let mut settings = Settings::default();
        let names = ["SCREEN_07", "LDM_DIRECTX", "PREINT_1", "HOSTNAME", "MY_OWN"];
        for (name, line) in names.into_iter().zip(3..) {
            settings.insert(name, "x", Origin::File(Place { file: 0, line, column: 1 }));
        }
        settings.insert("HOSTNAM", "typed", Origin::CommandLine);
        let said: Vec<_> = remarks(&settings).iter().map(ToString::to_string).collect();
        let expected = [
            "line 3, column 1: LTSP settings without effect here: LDM_DIRECTX SCREEN_07",
            "line 5, column 1: PREINT_1 is no setting; did you mean PREINIT_1?",
        ];
        assert_eq!(said, expected);
    }
}
