//! MASK_SYSTEM_SERVICES, DISABLE_SYSTEM_SERVICES: units that stay in the image and do not run.
//!
//! A masked unit cannot be started at all. A disabled one is not started by itself: what
//! `systemctl disable` would remove is removed, and the start links of sysvinit with it. What
//! KEEP_SYSTEM_SERVICES names is left alone by both.

use super::units::{self, ADMINS};
use super::{Draft, Kind, View, services};
use crate::config::Settings;
use crate::error::{Error, Result};

/// Gives the number of units that were masked.
pub fn mask(settings: &Settings, draft: &mut Draft<'_>) -> (usize, Vec<Error>) {
    each(settings, "MASK_SYSTEM_SERVICES", |unit| {
        draft.link(&format!("{ADMINS}/{unit}"), "/dev/null");
        Ok(())
    })
}

/// Gives the number of units that were disabled, be it that they were before.
pub fn disable(settings: &Settings, draft: &mut Draft<'_>) -> (usize, Vec<Error>) {
    each(settings, "DISABLE_SYSTEM_SERVICES", |unit| {
        for link in links(draft, unit)? {
            draft.remove(&link)?;
        }
        let Some(left) = units::pulls(draft, units::vendors(), unit)?.into_iter().next() else {
            return Ok(());
        };
        let doing = format!("disabling {unit}");
        Err(Error::refused(doing, format!("the image starts it by {left}"))
            .with_hint("MASK_SYSTEM_SERVICES works on units of the system as well"))
    })
}

fn each(
    settings: &Settings,
    list: &str,
    mut act: impl FnMut(&str) -> Result<()>,
) -> (usize, Vec<Error>) {
    let (mut count, mut wrong) = (0_usize, Vec::new());
    for name in settings.list(list) {
        if services::is_kept(settings, name) {
            log::debug!(target: "directives", "{name} of {list} is kept");
            continue;
        }
        let unit = units::named(name);
        if !units::is_name(&unit) {
            wrong.push(Error::invalid(format!("reading {list}"), format!("{name:?} is no unit")));
            continue;
        }
        match act(&unit) {
            Ok(()) => count = count.saturating_add(1),
            Err(error) => wrong.push(error),
        }
    }
    (count, wrong)
}

/// Everything by which the administrator's folder, or sysvinit, starts a unit: of a template, all
/// its instances.
fn links(draft: &Draft<'_>, unit: &str) -> Result<Vec<String>> {
    let instances = unit.split_once("@.");
    let is_it = |name: &str| {
        name == unit
            || instances.is_some_and(|(prefix, suffix)| {
                name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('@'))
                    && name.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'))
            })
    };
    let mut links = Vec::new();
    for name in draft.names(ADMINS)? {
        let path = format!("{ADMINS}/{name}");
        if [".wants", ".requires", ".upholds"].iter().any(|suffix| name.ends_with(suffix)) {
            for link in draft.names(&path)?.into_iter().filter(|name| is_it(name)) {
                links.push(format!("{path}/{link}"));
            }
        } else if let Some(Kind::Link(target)) = draft.kind(&path)?
            // An alias; a link of the unit's own name is where its file is.
            && name != unit
            && target.rsplit('/').next() == Some(unit)
        {
            links.push(path);
        }
    }
    let service = unit.strip_suffix(".service").unwrap_or(unit);
    for folder in services::runlevels(draft)? {
        for link in draft.names(&folder)? {
            if link.starts_with('S') && link.get(3..) == Some(service) {
                links.push(format!("{folder}/{link}"));
            }
        }
    }
    links.sort();
    Ok(links)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directives::Tree;
    use crate::directives::draft::on;

    const GONE: [&str; 6] = [
        "/etc/systemd/system/multi-user.target.wants/ssh.service",
        "/etc/systemd/system/x.target.requires/ssh.service",
        "/etc/systemd/system/sshd.service",
        "/etc/rc2.d/S02ssh",
        "/etc/systemd/system/getty.target.wants/getty@tty1.service",
        "/etc/systemd/system/getty.target.wants/getty@tty2.service",
    ];
    const STAY: [&str; 5] = [
        "/etc/systemd/system/sockets.target.wants/ssh.socket",
        "/etc/systemd/system/multi-user.target.wants/cron.service",
        "/etc/systemd/system/ssh.service",
        "/etc/rc2.d/K02ssh",
        "/etc/rc2.d/S02sshguard",
    ];

    fn image() -> (tempfile::TempDir, Tree) {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        for path in GONE.iter().chain(&STAY) {
            tree.link(path, "/usr/lib/systemd/system/ssh.service").unwrap();
        }
        (folder, tree)
    }

    #[test]
    fn a_disabled_unit_is_started_by_nobody() {
        let (_folder, tree) = image();
        let settings = Settings::of(&[
            ("DISABLE_SYSTEM_SERVICES", "ssh getty@ cron a/b none"),
            ("KEEP_SYSTEM_SERVICES", "cron.service"),
        ]);
        let (count, wrong) = on(&tree, |draft| disable(&settings, draft));
        assert_eq!((count, wrong.len()), (3, 1), "{wrong:?}");
        for path in GONE {
            assert_eq!(tree.kind(path).unwrap(), None, "{path}");
        }
        for path in STAY {
            assert!(tree.kind(path).unwrap().is_some(), "{path}");
        }
    }

    #[test]
    fn what_the_vendor_starts_is_not_quietly_left() {
        let (_folder, tree) = image();
        let vendors = "/usr/lib/systemd/system/multi-user.target.wants/systemd-logind.service";
        tree.link(vendors, "../systemd-logind.service").unwrap();
        let settings = Settings::of(&[("DISABLE_SYSTEM_SERVICES", "systemd-logind")]);
        let (count, wrong) = on(&tree, |draft| disable(&settings, draft));
        assert_eq!(count, 0);
        assert!(wrong[0].to_string().contains(vendors) && wrong[0].hint().is_some());
    }

    #[test]
    fn a_masked_unit_leads_to_nothing_and_keep_wins() {
        let (_folder, tree) = image();
        let settings = Settings::of(&[
            ("MASK_SYSTEM_SERVICES", "ssh ssh.socket cron apt-daily.timer"),
            ("KEEP_SYSTEM_SERVICES", "cron"),
        ]);
        let (count, wrong) = on(&tree, |draft| mask(&settings, draft));
        assert_eq!((count, wrong.len()), (3, 0));
        for unit in ["ssh.service", "ssh.socket", "apt-daily.timer"] {
            assert!(units::is_masked(&tree, unit), "{unit}");
        }
        assert!(!units::is_masked(&tree, "cron.service"));
    }
}
