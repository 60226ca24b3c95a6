//! OVERLAY_DIR: a folder of the image that is laid over the root.
//!
//! After the names, fstab and the machine's id, and before everything that looks at units, as with
//! LTSP: a unit or an rc.local in the folder counts for what follows.

use super::tree::{TOO_LONG, is_too_long};
use super::{Draft, View};
use crate::config::Settings;
use crate::error::{Error, Result};

const DEFAULT: &str = "/etc/ltsp/overlay-dir";

/// The folder that may be laid over the root, without a `/` at its end.
pub fn folder(settings: &Settings) -> &str {
    settings.filled("OVERLAY_DIR").unwrap_or(DEFAULT).trim().trim_end_matches('/')
}

/// Gives the folder; none if there is none and nobody asked for one.
pub fn apply(settings: &Settings, draft: &mut Draft<'_>) -> Result<Option<String>> {
    let asked = settings.filled("OVERLAY_DIR").map(str::trim);
    let path = asked.unwrap_or(DEFAULT);
    if is_too_long(path) {
        return Err(Error::invalid("copying a folder onto the root", TOO_LONG));
    }
    let doing = || format!("copying the folder {path} onto the root");
    let path = path.trim_end_matches('/');
    if !path.starts_with('/') || path.split('/').any(|name| name == "..") {
        return Err(Error::invalid(doing(), "it is not the path of a folder of the image"));
    }
    // Only of a folder there is a ".".
    if draft.exists(&format!("{path}/.")) {
        draft.copy_tree(path, "/");
        return Ok(Some(path.to_owned()));
    }
    match asked {
        Some(_) => Err(Error::refused(doing(), "the image has no such folder")),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directives::Tree;
    use crate::directives::draft::on;

    #[test]
    #[rustfmt::skip]
    fn a_folder_of_the_image_is_laid_over_the_root_2_3() {
        let cases: [(&str, Option<&str>, Option<&str>, bool); 8] = [
            ("LTSP's place",     None,                    Some("/etc/ltsp/overlay-dir"), true),
            ("another",          Some("/srv/o/"),         Some("/srv/o"),                true),
            ("through a link",   Some("/srv/link"),       Some("/srv/link"),             true),
            ("a missing one",    Some("/srv/none"),       None,                          false),
            ("a file",           Some("/srv/o/etc/motd"), None,                          false),
            ("a relative one",   Some("srv/o"),           None,                          false),
            ("the root itself",  Some("/"),               None,                          false),
            ("one that climbs",  Some("/srv/../srv/o"),   None,                          false),
        ];
        for (case, value, expected, good) in cases {
            let folder = tempfile::tempdir().unwrap();
            let tree = Tree::open(folder.path()).unwrap();
            for at in ["/srv/o", DEFAULT] {
                tree.write(&format!("{at}/etc/motd"), at, 0o644).unwrap();
            }
            tree.link("/srv/link", "o").unwrap();
            let settings = Settings::of(&value.map(|value| ("OVERLAY_DIR", value)).into_iter().collect::<Vec<_>>());
            // Later families look at the same draft.
            let (copied, motd) = on(&tree, |draft| (apply(&settings, draft), draft.read_text("/etc/motd").unwrap()));
            assert_eq!(copied.is_ok(), good, "{case}: {copied:?}");
            assert_eq!(copied.unwrap_or_default().as_deref(), expected, "{case}");
            assert_eq!(motd, tree.read_text("/etc/motd").unwrap(), "{case}");
            assert_eq!(motd.is_some(), good, "{case}");
        }
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        assert_eq!(on(&tree, |draft| apply(&Settings::default(), draft)).unwrap(), None);
    }
}
