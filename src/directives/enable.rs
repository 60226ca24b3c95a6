//! ENABLE_SYSTEM_SERVICES: what `systemctl enable` would do, without a systemctl.
//!
//! A unit says itself in its `[Install]` section who starts it (systemd.unit(5)). A unit that FILE_
//! or OVERLAY_DIR brings counts like the image's own.

use super::units::{self, ADMINS, FOLDERS, Unit};
use super::{Draft, Kind, View};
use crate::config::Settings;
use crate::error::{Error, Result};

/// Units that `Also=` names, and those that they name.
const MOST: usize = 64;

/// Gives the number of names that were enabled.
pub fn apply(settings: &Settings, draft: &mut Draft<'_>) -> (usize, Vec<Error>) {
    let (mut count, mut wrong) = (0_usize, Vec::new());
    for name in settings.list("ENABLE_SYSTEM_SERVICES") {
        match enable(name, draft) {
            Ok(()) => count = count.saturating_add(1),
            Err(error) => wrong.push(error),
        }
    }
    (count, wrong)
}

fn enable(name: &str, draft: &mut Draft<'_>) -> Result<()> {
    let mut units = vec![units::named(name)];
    let mut at = 0;
    while let Some(unit) = units.get(at).cloned() {
        let also = match enable_one(&unit, draft) {
            Ok(also) => also,
            // What a unit would like to have beside it is often not installed.
            Err(error) if at > 0 => {
                log::debug!(target: "directives", "{error}");
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        for unit in also {
            if units.len() < MOST && !units.contains(&unit) {
                units.push(unit);
            }
        }
        at = at.saturating_add(1);
    }
    Ok(())
}

/// Gives what is to be enabled as well.
fn enable_one(unit: &str, draft: &mut Draft<'_>) -> Result<Vec<String>> {
    let doing = || format!("enabling {unit}");
    if !units::is_name(unit) {
        return Err(Error::invalid(doing(), "it is no name of a unit"));
    }
    let file = match units::find(draft, unit)? {
        Unit::File(file) => file,
        Unit::Masked => return Err(Error::refused(doing(), "it is masked")),
        Unit::Missing => {
            let error = Error::refused(doing(), "there is no such unit");
            return Err(error.with_hint("units have names like ssh.service; cases differ"));
        }
    };
    // An alias: the unit it leads to knows what to do.
    if let Some(Kind::Link(target)) = draft.kind(&file)?
        && let Some(other) = target.rsplit('/').next()
        && other != unit
        && units::template(unit).as_deref() != Some(other)
        && units::is_name(other)
    {
        return Ok(vec![other.to_owned()]);
    }
    let install = Install::of(unit, &file, draft)?;
    if install.is_empty() {
        let why = format!("{file} has no [Install] section that says who starts it");
        return Err(Error::refused(doing(), why));
    }
    let unit = match (unit.split_once("@."), install.default_instance.as_deref()) {
        (Some((prefix, suffix)), Some(instance)) => format!("{prefix}@{instance}.{suffix}"),
        (Some(_), None) => {
            let why = "it is a template, and of those an instance is enabled, like getty@tty1";
            return Err(Error::refused(doing(), why));
        }
        (None, _) => unit.to_owned(),
    };
    let mut links = Vec::new();
    for (suffix, by) in
        [("wants", &install.wanted), ("requires", &install.required), ("upholds", &install.upheld)]
    {
        for by in by {
            links.push(format!("{}.{suffix}/{unit}", expand(by, &unit)?));
        }
    }
    for alias in &install.aliases {
        links.push(expand(alias, &unit)?);
    }
    for link in links.into_iter().filter(|link| *link != unit) {
        draft.link(&format!("{ADMINS}/{link}"), &file);
    }
    install.also.iter().map(|also| expand(also, &unit)).collect()
}

/// What an `[Install]` section asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Install {
    wanted: Vec<String>,
    required: Vec<String>,
    upheld: Vec<String>,
    aliases: Vec<String>,
    also: Vec<String>,
    default_instance: Option<String>,
}

impl Install {
    /// Of a unit's file and its drop-ins, which come in the order of their names.
    fn of(unit: &str, file: &str, draft: &Draft<'_>) -> Result<Self> {
        let mut install = Self::default();
        install.read(&draft.read_text(file)?.unwrap_or_default());
        let mut drop_ins = std::collections::BTreeMap::new();
        for folder in FOLDERS {
            for name in draft.names(&format!("{folder}/{unit}.d"))? {
                if name.ends_with(".conf") {
                    let path = format!("{folder}/{unit}.d/{name}");
                    drop_ins.entry(name).or_insert(path);
                }
            }
        }
        for path in drop_ins.values() {
            install.read(&draft.read_text(path)?.unwrap_or_default());
        }
        Ok(install)
    }

    fn read(&mut self, text: &str) {
        let mut in_section = false;
        let text = text.replace("\\\n", " ");
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                in_section = line == "[Install]";
            }
            let Some((key, value)) = line.split_once('=').filter(|_| in_section) else { continue };
            let list = match key.trim() {
                "WantedBy" => &mut self.wanted,
                "RequiredBy" => &mut self.required,
                "UpheldBy" => &mut self.upheld,
                "Alias" => &mut self.aliases,
                "Also" => &mut self.also,
                "DefaultInstance" => {
                    self.default_instance = Some(value.trim().to_owned());
                    continue;
                }
                _ => continue,
            };
            if value.trim().is_empty() {
                list.clear();
            }
            list.extend(value.split_whitespace().map(str::to_owned));
        }
    }

    fn is_empty(&self) -> bool {
        [&self.wanted, &self.required, &self.upheld, &self.aliases, &self.also]
            .iter()
            .all(|list| list.is_empty())
    }
}

/// A name of the section with what stands for parts of the unit's own name.
fn expand(name: &str, unit: &str) -> Result<String> {
    let doing = || format!("enabling {unit}: reading {name:?} of its [Install] section");
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem);
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    let mut expanded = String::new();
    let mut chars = name.chars();
    while let Some(char) = chars.next() {
        match (char, if char == '%' { chars.next() } else { None }) {
            ('%', Some('%')) => expanded.push('%'),
            ('%', Some('i')) => expanded.push_str(instance),
            ('%', Some('n')) => expanded.push_str(unit),
            ('%', Some('N')) => expanded.push_str(stem),
            ('%', Some('p')) => expanded.push_str(prefix),
            ('%', _) => return Err(Error::refused(doing(), "it depends on the running system")),
            (char, _) => expanded.push(char),
        }
    }
    match units::is_name(&expanded) {
        true => Ok(expanded),
        false => Err(Error::invalid(doing(), "it is no name of a unit")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directives::Tree;
    use crate::directives::draft::on;

    fn image() -> (tempfile::TempDir, Tree) {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        tree.link("/lib", "usr/lib").unwrap();
        for (name, text) in [
            (
                "ssh.service",
                "[Unit]\nWantedBy=no.target\n[Install]\nWantedBy=multi-user.target\nAlias=sshd.service\nAlso=ssh.socket none.service\n",
            ),
            ("ssh.socket", "[Install]\nRequiredBy=sockets.target\n"),
            ("getty@.service", "[Install]\nWantedBy=getty.target\nDefaultInstance=tty1\n"),
            ("serial@.service", "[Install]\nWantedBy=dev-%i.device \\\n  a.target\n"),
            ("static.service", "[Service]\nExecStart=/bin/true\n"),
            ("odd.service", "[Install]\nWantedBy=%H.target\n"),
            ("masked.service", "[Install]\nWantedBy=a.target\n"),
            ("loop.service", "[Install]\nAlso=loop.service ring.service\n"),
            ("ring.service", "[Install]\nAlso=loop.service\nWantedBy=b.target\n"),
        ] {
            tree.write(&format!("/usr/lib/systemd/system/{name}"), text, 0o644).unwrap();
        }
        tree.link("/etc/systemd/system/masked.service", "/dev/null").unwrap();
        tree.link("/usr/lib/systemd/system/alias.service", "static2.service").unwrap();
        tree.write(
            "/usr/lib/systemd/system/static2.service",
            "[Install]\nWantedBy=c.target\n",
            0o644,
        )
        .unwrap();
        let drop_in = "/etc/systemd/system/static.service.d/10.conf";
        tree.write(drop_in, "[Service]\nNice=1\n", 0o644).unwrap();
        (folder, tree)
    }

    #[test]
    #[rustfmt::skip]
    fn a_unit_is_started_by_whom_it_names() {
        const OF: &str = "/usr/lib/systemd/system";
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("ssh",          &[("multi-user.target.wants/ssh.service", "ssh.service"), ("sshd.service", "ssh.service"), ("sockets.target.requires/ssh.socket", "ssh.socket")]),
            ("ssh.socket",   &[("sockets.target.requires/ssh.socket", "ssh.socket")]),
            ("getty@",       &[("getty.target.wants/getty@tty1.service", "getty@.service")]),
            ("getty@tty5",   &[("getty.target.wants/getty@tty5.service", "getty@.service")]),
            ("serial@ttyS0", &[("dev-ttyS0.device.wants/serial@ttyS0.service", "serial@.service"), ("a.target.wants/serial@ttyS0.service", "serial@.service")]),
            ("loop",         &[("b.target.wants/ring.service", "ring.service")]),
            ("alias",        &[("c.target.wants/static2.service", "static2.service")]),
            ("static",       &[]),
            ("odd",          &[]),
            ("masked",       &[]),
            ("missing",      &[]),
            ("serial@",      &[]),
            ("../../x",      &[]),
        ];
        for (name, expected) in cases {
            let (_folder, tree) = image();
            let settings = Settings::of(&[("ENABLE_SYSTEM_SERVICES", name)]);
            let (changes, count, wrong) = on(&tree, |draft| {
                let (count, wrong) = apply(&settings, draft);
                (draft.changes().len(), count, wrong)
            });
            assert_eq!((count, wrong.len()), if expected.is_empty() { (0, 1) } else { (1, 0) }, "{name}: {wrong:?}");
            assert_eq!(changes, expected.len(), "{name}");
            for (link, file) in *expected {
                assert_eq!(tree.kind(&format!("{ADMINS}/{link}")).unwrap(), Some(Kind::Link(format!("{OF}/{file}"))), "{name}: {link}");
            }
        }
    }

    #[test]
    fn a_unit_that_was_just_written_counts() {
        let (_folder, tree) = image();
        on(&tree, |draft| {
            let text = "[Install]\nWantedBy=multi-user.target\n";
            draft.write("/etc/systemd/system/join.service", text, 0o644);
            let settings = Settings::of(&[("ENABLE_SYSTEM_SERVICES", "join")]);
            assert_eq!(apply(&settings, draft).0, 1);
        });
        assert!(units::is_enabled(&tree, "join.service"));
    }
}
