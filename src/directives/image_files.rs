//! IMAGE_FILES_*: what of the image stays reachable where a mount hides it.
//!
//! A disk on /etc/ssh keeps the host keys of a node and hides the configuration that the image
//! brings: links to /rofs bring it back. Patterns are a shell's: `*`, `?` and `[…]` within one
//! name, and a name that begins with a dot only where the pattern does.

use super::covered::{Covered, How};
use super::tree::{TOO_LONG, is_too_long};
use super::{Draft, View};
use crate::config::Settings;
use crate::error::{Error, Result};

/// Gives the number of files, and the settings that name none.
pub fn apply(
    settings: &Settings,
    covered: &mut Covered,
    draft: &Draft<'_>,
) -> (usize, Vec<(String, Error)>) {
    let mut count: usize = 0;
    let mut problems = Vec::new();
    for (name, value) in settings.family("IMAGE_FILES_") {
        for pattern in value.split_whitespace() {
            let linked = expand(pattern, draft).and_then(|paths| {
                paths
                    .iter()
                    .try_for_each(|path| covered.bring(path, How::Link, draft))
                    .map(|()| paths.len())
            });
            match linked {
                Ok(paths) => count = count.saturating_add(paths),
                Err(error) => problems.push((name.to_owned(), error)),
            }
        }
    }
    (count, problems)
}

/// The paths of `view` that match, in order.
///
/// # Errors
/// There are none, or absurdly many, or the pattern is not absolute.
pub fn expand(pattern: &str, view: &dyn View) -> Result<Vec<String>> {
    const MOST: usize = 1000;
    if is_too_long(pattern) {
        return Err(Error::invalid("looking for a file in the image", TOO_LONG));
    }
    let doing = || format!("looking for {pattern:?} in the image");
    let names: Vec<_> = pattern.split('/').skip(1).filter(|name| !name.is_empty()).collect();
    if !pattern.starts_with('/') || names.iter().any(|name| [".", ".."].contains(name)) {
        return Err(Error::invalid(doing(), "it is not a path from / without . and .."));
    }
    let mut paths = vec![String::new()];
    for wanted in names {
        let mut longer = Vec::new();
        for path in paths {
            if !wanted.contains(['*', '?', '[']) {
                longer.push(format!("{path}/{wanted}"));
                continue;
            }
            let folder = if path.is_empty() { "/" } else { &path };
            let mut found = view.names(folder)?;
            found.retain(|name| {
                (wanted.starts_with('.') || !name.starts_with('.')) && matches(wanted, name)
            });
            found.sort();
            longer.extend(found.iter().map(|name| format!("{path}/{name}")));
        }
        if longer.len() > MOST {
            return Err(Error::refused(doing(), format!("more than {MOST} files match")));
        }
        paths = longer;
    }
    paths.retain(|path| matches!(view.kind(path), Ok(Some(_))));
    match paths.is_empty() {
        true => Err(Error::refused(doing(), "nothing matches")),
        false => Ok(paths),
    }
}

/// fnmatch(3) within one name. Bounded: a star gives way to the next one for good, so a pattern
/// costs its length times the name's.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut read) = (0usize, 0usize);
    // Where to go on when what follows the last star does not fit.
    let mut star: Option<(usize, usize)> = None;
    while let Some(c) = name.get(read) {
        let step = match pattern.get(at) {
            Some('*') => {
                star = Some((at.saturating_add(1), read));
                at = at.saturating_add(1);
                continue;
            }
            Some('?') => Some(1),
            Some('[') => match set(pattern.get(at..).unwrap_or_default(), *c) {
                Some((true, length)) => Some(length),
                Some((false, _)) => None,
                // Never closed, so it stands for itself.
                None => (*c == '[').then_some(1),
            },
            Some(plain) => (plain == c).then_some(1),
            None => None,
        };
        match (step, star) {
            (Some(length), _) => {
                at = at.saturating_add(length);
                read = read.saturating_add(1);
            }
            (None, Some((after, from))) => {
                at = after;
                read = from.saturating_add(1);
                star = Some((after, read));
            }
            (None, None) => return false,
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|c| *c == '*')
}

/// Whether `c` is in the set at the front of `pattern`, and the set's length; `None` if it is none.
fn set(pattern: &[char], c: char) -> Option<(bool, usize)> {
    let negated = matches!(pattern.get(1), Some('!' | '^'));
    let start: usize = if negated { 2 } else { 1 };
    let mut at = start;
    let mut found = false;
    loop {
        match pattern.get(at..)? {
            [']', ..] if at > start => {
                return Some((found != negated, at.saturating_add(1)));
            }
            [low, '-', high, ..] if *high != ']' => {
                found |= (*low..=*high).contains(&c);
                at = at.saturating_add(3);
            }
            [one, ..] => {
                found |= *one == c;
                at = at.saturating_add(1);
            }
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directives::Tree;
    use crate::directives::draft::on;
    use crate::directives::mounts::Mounts;

    #[test]
    #[rustfmt::skip]
    fn patterns_are_those_of_a_shell() {
        let cases = [
            ("*_config",  "sshd_config", true),
            ("*_config",  "sshd_config.d", false),
            ("*",         "",            true),
            ("a*b*c",     "aXbXbXc",     true),
            ("a*b*c",     "aXbXbX",      false),
            ("???",       "abc",         true),
            ("???",       "ab",          false),
            ("[a-c]x",    "bx",          true),
            ("[!a-c]x",   "bx",          false),
            ("[]]",       "]",           true),
            ("[a-]",      "-",           true),
            ("[ab",       "[ab",         true),
            ("[ab",       "a",           false),
            ("é?",        "éü",          true),
            ("a-b",       "a_b",         false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name), expected, "{pattern} against {name}");
        }
        // Would take for ever if every star tried every rest.
        assert!(!matches(&"a*".repeat(200), &"a".repeat(199)));
    }

    #[test]
    #[rustfmt::skip]
    fn the_image_is_searched_name_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        for path in ["/etc/ssh/ssh_config", "/etc/ssh/sshd_config", "/etc/ssh/.x_config", "/etc/ssh/moduli", "/opt/a/conf", "/opt/b/conf", "/opt/b/other"] {
            tree.write(path, "", 0o644).unwrap();
        }
        let cases: [(&str, &[&str]); 8] = [
            ("/etc/ssh/*_config", &["/etc/ssh/ssh_config", "/etc/ssh/sshd_config"]),
            ("/etc/ssh/.*",       &["/etc/ssh/.x_config"]),
            ("/etc/ssh/moduli",   &["/etc/ssh/moduli"]),
            ("/opt/*/conf",       &["/opt/a/conf", "/opt/b/conf"]),
            ("//opt//a",          &["/opt/a"]),
            ("/etc/ssh/*.pub",    &[]),
            ("etc/ssh/*",         &[]),
            ("/etc/../etc/*",     &[]),
        ];
        for (pattern, expected) in cases {
            assert_eq!(expand(pattern, &tree).unwrap_or_default(), expected, "{pattern}");
        }
    }

    /// The pristine image does not have what was decided over it.
    #[test]
    fn what_was_decided_over_the_image_is_not_taken_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        for path in ["/usr/lib/systemd/systemd", "/m/own", "/m/d/own", "/o/m/brought", "/o/m/d/x"] {
            tree.write(path, "", 0o755).unwrap();
        }
        let mut covered = Covered::under(Mounts::of("/dev/x /m ext4 rw 0 0", &tree));
        on(&tree, |draft| {
            draft.copy_tree("/o", "/");
            draft.replace_for("/m/new", "x", 0o640, (1, 2));
            draft.link("/m/link", "own");
            let settings = Settings::of(&[("IMAGE_FILES_1", "/m/*")]);
            let (count, problems) = apply(&settings, &mut covered, draft);
            assert_eq!((count, problems.len()), (5, 0), "{problems:?}");
            covered.decide(draft).unwrap();
        });
        assert_eq!(
            tree.read_text("/etc/landfall/files/m.conf").unwrap().unwrap(),
            "# Written by landfall at boot, see tmpfiles.d(5).\n\
             L+ \"/m/brought\" - - - - /rofs/o/m/brought\n\
             d \"/m/d\"\n\
             L+ \"/m/d/own\" - - - - /rofs/m/d/own\n\
             L+ \"/m/d/x\" - - - - /rofs/o/m/d/x\n\
             L+ \"/m/link\" - - - - own\n\
             f+~ \"/m/new\" 0640 1 2 - eA==\n\
             L+ \"/m/own\" - - - - /rofs/m/own\n"
        );
    }

    /// The seed's `cp /rofs/etc/ssh/*_config /etc/ssh`, without the shell.
    #[test]
    fn what_a_mount_hides_is_linked_after_it_is_mounted() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        for path in ["/usr/lib/systemd/systemd", "/etc/ssh/sshd_config", "/etc/plain", "/net/a"] {
            tree.write(path, "", 0o755).unwrap();
        }
        let fstab = "/dev/data/ssh /etc/ssh ext4 nofail 0 0\nnas:/x /net nfs rw 0 0\n";
        let settings = Settings::of(&[
            ("IMAGE_FILES_1", "/etc/ssh/*_config"),
            ("IMAGE_FILES_2", "/etc/plain /no/such"),
            ("IMAGE_FILES_3", "/net/a"),
        ]);
        let mut covered = Covered::under(Mounts::of(fstab, &tree));
        let (count, problems) = on(&tree, |draft| {
            let result = apply(&settings, &mut covered, draft);
            covered.decide(draft).unwrap();
            result
        });
        assert_eq!(count, 2, "a word with a mistake costs only itself");
        let names: Vec<_> = problems.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["IMAGE_FILES_2", "IMAGE_FILES_3"], "{problems:?}");
        assert!(problems[1].1.to_string().contains("from the network"), "{problems:?}");

        let read = |path: &str| tree.read_text(path).unwrap().unwrap();
        assert_eq!(
            read("/etc/landfall/files/etc-ssh.conf").lines().nth(1).unwrap(),
            "L+ \"/etc/ssh/sshd_config\" - - - - /rofs/etc/ssh/sshd_config"
        );
        assert!(read("/etc/tmpfiles.d/landfall.conf").contains("L+ \"/etc/plain\""));
        let unit = read("/etc/systemd/system/landfall-files-etc-ssh.service");
        for line in ["Requires=etc-ssh.mount", "After=etc-ssh.mount", "DefaultDependencies=no"] {
            assert!(unit.lines().any(|other| other == line), "{line} in {unit}");
        }
        assert!(
            tree.exists("/etc/systemd/system/etc-ssh.mount.wants/landfall-files-etc-ssh.service")
        );
    }
}
