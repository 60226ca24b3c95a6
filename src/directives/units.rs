//! systemd's unit files in a root: where they are, what is pulled in, and what is masked.
//!
//! Paths and rules are those of systemd.unit(5); `/run` is empty before the real init starts, so
//! only what the image and the directives bring counts.

use super::{Kind, View};
use crate::error::Result;

/// The administrator's own, which outrank all others.
pub const ADMINS: &str = "/etc/systemd/system";

/// Where units may be; of equal names, the one in an earlier folder counts.
pub static FOLDERS: [&str; 4] =
    [ADMINS, "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// All of them but the administrator's.
pub fn vendors() -> &'static [&'static str] {
    FOLDERS.split_first().map_or(&[], |(_, vendors)| vendors)
}

const SUFFIXES: [&str; 11] = [
    ".service",
    ".socket",
    ".target",
    ".timer",
    ".path",
    ".mount",
    ".automount",
    ".swap",
    ".slice",
    ".scope",
    ".device",
];

/// What a unit's file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    File(String),
    Masked,
    Missing,
}

/// `ssh` is `ssh.service`, as for systemctl.
pub fn named(name: &str) -> String {
    match SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
        true => name.to_owned(),
        false => format!("{name}.service"),
    }
}

/// Whether a unit may have this name; others would lead out of the folder.
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b))
}

/// `getty@.service` of `getty@tty1.service`.
pub fn template(unit: &str) -> Option<String> {
    let (prefix, rest) = unit.split_once('@')?;
    let (instance, suffix) = rest.rsplit_once('.')?;
    (!instance.is_empty()).then(|| format!("{prefix}@.{suffix}"))
}

/// The file of a unit, or of its template.
pub fn find(view: &dyn View, unit: &str) -> Result<Unit> {
    for name in [Some(unit.to_owned()), template(unit)].into_iter().flatten() {
        for folder in FOLDERS {
            let path = format!("{folder}/{name}");
            match view.kind(&path)? {
                None => continue,
                Some(Kind::Link(target)) if target == "/dev/null" => return Ok(Unit::Masked),
                Some(Kind::Link(_)) if !view.exists(&path) => continue,
                // An empty file masks as well.
                Some(_)
                    if view.read(&path).is_ok_and(|text| text.is_some_and(|t| t.is_empty())) =>
                {
                    return Ok(Unit::Masked);
                }
                Some(_) => return Ok(Unit::File(path)),
            }
        }
    }
    Ok(Unit::Missing)
}

pub fn is_masked(view: &dyn View, unit: &str) -> bool {
    matches!(find(view, unit), Ok(Unit::Masked))
}

/// The links by which other units pull this one in, below `folders`.
pub fn pulls(view: &dyn View, folders: &[&str], unit: &str) -> Result<Vec<String>> {
    let mut links = Vec::new();
    for folder in folders {
        for name in view.names(folder)? {
            let wanting = [".wants", ".requires", ".upholds"].iter().any(|s| name.ends_with(s));
            let path = format!("{folder}/{name}/{unit}");
            // Links in there lead to the unit by a path of the root; that they exist is enough.
            if wanting && view.kind(&path)?.is_some() {
                links.push(path);
            }
        }
    }
    links.sort();
    Ok(links)
}

/// Whether some unit pulls this one in. Aliases and generators are not asked.
pub fn is_enabled(view: &dyn View, unit: &str) -> bool {
    pulls(view, &FOLDERS, unit).is_ok_and(|links| !links.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directives::Tree;

    #[test]
    #[rustfmt::skip]
    fn names_are_systemctls() {
        for (name, unit, of) in [
            ("ssh",                "ssh.service",        None),
            ("ssh.socket",         "ssh.socket",         None),
            ("getty@tty1",         "getty@tty1.service", Some("getty@.service")),
            ("getty@",             "getty@.service",     None),
            ("dbus-org.freedesktop.login1", "dbus-org.freedesktop.login1.service", None),
        ] {
            assert_eq!(named(name), unit, "{name}");
            assert_eq!(template(unit).as_deref(), of, "{name}");
            assert!(is_name(unit), "{name}");
        }
        for wrong in ["", "../x", "a/b", "a b", "a*"] {
            assert!(!is_name(wrong), "{wrong:?}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_unit_is_found_where_systemd_looks() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        tree.link("/lib", "usr/lib").unwrap();
        for path in ["/usr/lib/systemd/system/a.service", "/usr/lib/systemd/system/b@.service", "/usr/lib/systemd/system/m.service", "/usr/lib/systemd/system/w.service", "/etc/systemd/system/a.service"] {
            tree.write(path, "[Unit]\n", 0o644).unwrap();
        }
        tree.link("/etc/systemd/system/m.service", "/dev/null").unwrap();
        tree.write("/etc/systemd/system/e.service", "", 0o644).unwrap();
        tree.link("/etc/systemd/system/dangling.service", "/usr/lib/systemd/system/gone.service").unwrap();
        tree.link("/usr/lib/systemd/system/sysinit.target.wants/w.service", "../w.service").unwrap();
        for (unit, expected) in [
            ("a.service",        Unit::File("/etc/systemd/system/a.service".into())),
            ("b@x.service",      Unit::File("/usr/lib/systemd/system/b@.service".into())),
            ("m.service",        Unit::Masked),
            ("e.service",        Unit::Masked),
            ("dangling.service", Unit::Missing),
            ("none.service",     Unit::Missing),
        ] {
            assert_eq!(find(&tree, unit).unwrap(), expected, "{unit}");
        }
        assert!(is_enabled(&tree, "w.service") && !is_enabled(&tree, "a.service"));
    }
}
