//! XKBMODEL, XKBLAYOUT, XKBVARIANT, XKBOPTIONS: Debian's `/etc/default/keyboard`.
//!
//! The image's other lines stay. `/etc/default/console-setup`, where older releases kept the same
//! variables, follows if it has them.

use super::{Draft, View};
use crate::config::Settings;
use crate::error::{Error, Result};

const KEYBOARD: &str = "/etc/default/keyboard";
const CONSOLE: &str = "/etc/default/console-setup";
const NAMES: [&str; 4] = ["XKBMODEL", "XKBLAYOUT", "XKBVARIANT", "XKBOPTIONS"];
const HEADER: &str = "# Written by landfall at boot: XKB settings of lts.conf.\n";

/// Gives the number of settings.
pub fn apply(settings: &Settings, draft: &mut Draft<'_>) -> Result<usize> {
    let mut values = Vec::new();
    for name in NAMES {
        let Some(value) = settings.get(name).map(str::trim) else { continue };
        // The files are read by a shell.
        if !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-,:()+.".contains(&b)) {
            let doing = format!("setting {name} {value:?}");
            return Err(Error::invalid(doing, "names of xkb are letters, digits and _-,:()+."));
        }
        values.push((name, value));
    }
    if values.is_empty() {
        return Ok(0);
    }
    let own = draft.read_text(KEYBOARD)?;
    let (mut text, missing) = replaced(own.as_deref().unwrap_or(HEADER), &values);
    for (name, value) in missing {
        text += &format!("{name}=\"{value}\"\n");
    }
    draft.write(KEYBOARD, text, 0o644);
    if let Some(own) = draft.read_text(CONSOLE)? {
        let (text, _) = replaced(&own, &values);
        if text != own {
            draft.write(CONSOLE, text, 0o644);
        }
    }
    Ok(values.len())
}

/// The text with the values in place of its own, and what it has no line for.
fn replaced<'a>(text: &str, values: &[(&'a str, &'a str)]) -> (String, Vec<(&'a str, &'a str)>) {
    let mut missing = values.to_vec();
    let mut new = String::new();
    for line in text.lines() {
        let name = line.trim_start().split_once('=').map(|(name, _)| name);
        match values.iter().find(|(wanted, _)| Some(*wanted) == name) {
            Some((name, value)) => {
                missing.retain(|(other, _)| other != name);
                new += &format!("{name}=\"{value}\"");
            }
            None => new += line,
        }
        new.push('\n');
    }
    (new, missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directives::Tree;
    use crate::directives::draft::on;

    #[test]
    fn the_keyboard_is_set_and_the_rest_of_the_file_stays_2_3() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        let own = "# KEYBOARD CONFIGURATION FILE\n\nXKBMODEL=\"pc105\"\nXKBLAYOUT=\"us\"\nBACKSPACE=guess";
        tree.write(KEYBOARD, own, 0o644).unwrap();
        tree.write(CONSOLE, "CHARMAP=UTF-8\nXKBLAYOUT=us\n", 0o644).unwrap();
        let settings =
            Settings::of(&[("XKBLAYOUT", "cz,us"), ("XKBOPTIONS", "grp:alt_shift_toggle")]);
        assert_eq!(on(&tree, |draft| apply(&settings, draft)).unwrap(), 2);
        assert_eq!(
            tree.read_text(KEYBOARD).unwrap().unwrap(),
            "# KEYBOARD CONFIGURATION FILE\n\nXKBMODEL=\"pc105\"\nXKBLAYOUT=\"cz,us\"\n\
             BACKSPACE=guess\nXKBOPTIONS=\"grp:alt_shift_toggle\"\n"
        );
        assert_eq!(
            tree.read_text(CONSOLE).unwrap().unwrap(),
            "CHARMAP=UTF-8\nXKBLAYOUT=\"cz,us\"\n"
        );
    }

    #[test]
    fn without_a_file_there_is_a_new_one_and_nothing_is_run() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        assert_eq!(on(&tree, |draft| apply(&Settings::default(), draft)).unwrap(), 0);
        assert!(!tree.exists(KEYBOARD));
        let settings = Settings::of(&[("XKBLAYOUT", "$(reboot)")]);
        assert!(on(&tree, |draft| apply(&settings, draft)).is_err());
        let settings = Settings::of(&[("XKBLAYOUT", "cz")]);
        on(&tree, |draft| apply(&settings, draft)).unwrap();
        let text = tree.read_text(KEYBOARD).unwrap().unwrap();
        assert_eq!(text, format!("{HEADER}XKBLAYOUT=\"cz\"\n"));
        assert!(!tree.exists(CONSOLE));
    }
}
