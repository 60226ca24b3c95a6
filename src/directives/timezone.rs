//! TIMEZONE: /etc/localtime.

use super::{Draft, View};
use crate::config::{Origin, Settings};
use crate::error::{Error, Result};

/// Says which zone was set.
pub fn apply(settings: &Settings, draft: &mut Draft<'_>) -> Result<Option<String>> {
    let Some(setting) = settings.setting("TIMEZONE") else { return Ok(None) };
    // Option 2 of DHCP, a number of seconds: LTSP looked for a file of that name, and found none.
    if setting.origin == Origin::Dhcp || setting.value.trim().is_empty() {
        return Ok(None);
    }
    let zone = setting.value.trim();
    let doing = || format!("setting the time zone {zone:?}");
    let plain = zone.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_+-".contains(&b));
    if !plain || zone.split('/').any(str::is_empty) {
        return Err(Error::invalid(doing(), "a zone has a name like Europe/Prague"));
    }
    if !draft.exists(&format!("/usr/share/zoneinfo/{zone}")) {
        return Err(Error::refused(doing(), "the image has no such zone")
            .with_hint("zones are in the package tzdata"));
    }
    // Relative, as systemd wants it; LTSP copied the file, which timedatectl cannot name.
    draft.link("/etc/localtime", &format!("../usr/share/zoneinfo/{zone}"));
    // Debian's own record of it; not every image has one.
    if draft.exists("/etc/timezone") {
        draft.write("/etc/timezone", format!("{zone}\n"), 0o644);
    }
    Ok(Some(zone.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directives::Tree;
    use crate::directives::draft::on;
    use crate::directives::tree::Kind;

    #[test]
    #[rustfmt::skip]
    fn a_zone_of_the_image_is_set_and_no_other_c74() {
        let prague = "../usr/share/zoneinfo/Europe/Prague";
        let cases = [
            ("Europe/Prague",        Origin::Agent, Some(true),  prague),
            ("No/Where",             Origin::Agent, Some(false), "old"),
            ("../../../etc/passwd",  Origin::Agent, Some(false), "old"),
            ("/Europe/Prague",       Origin::Agent, Some(false), "old"),
            ("3600",                 Origin::Dhcp,  None,        "old"),
        ];
        for (zone, origin, good, localtime) in cases {
            let folder = tempfile::tempdir().unwrap();
            let tree = Tree::open(folder.path()).unwrap();
            tree.write("/usr/share/zoneinfo/Europe/Prague", "TZif2", 0o644).unwrap();
            tree.write("/etc/timezone", "Etc/UTC\n", 0o644).unwrap();
            tree.link("/etc/localtime", "old").unwrap();
            let mut settings = Settings::default();
            settings.insert("TIMEZONE", zone, origin);
            let result = on(&tree, |draft| apply(&settings, draft));
            assert_eq!(result.as_ref().ok().map(Option::is_some), match good { Some(false) => None, Some(true) => Some(true), None => Some(false) }, "{zone}");
            assert_eq!(tree.kind("/etc/localtime").unwrap(), Some(Kind::Link(localtime.into())), "{zone}");
        }
    }
}
