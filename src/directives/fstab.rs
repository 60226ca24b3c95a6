//! FSTAB_*, CONFIGURE_FSTAB: /etc/fstab, written anew.
//!
//! The image's own lines go: they name the disks of the machine on which the image was made, and
//! systemd would wait for them. Mounting, and making mount points, is systemd's.

use super::{Draft, View};
use crate::config::Settings;
use crate::error::Result;

const HEADER: &str = "\
# Written by landfall at boot: FSTAB_ lines of lts.conf.
proc /proc proc nodev,noexec,nosuid 0 0
";

/// Gives the number of FSTAB_ lines; none if the image's file was left alone.
pub fn apply(settings: &Settings, draft: &mut Draft<'_>) -> Result<Option<usize>> {
    if settings.filled("CONFIGURE_FSTAB").is_some() && !settings.is_true("CONFIGURE_FSTAB") {
        return Ok(None);
    }
    let lines: Vec<_> = settings.family("FSTAB_").into_iter().map(|(_, line)| line).collect();
    let before = draft.read_text("/etc/fstab")?.unwrap_or_default();
    for line in before.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        log::debug!(target: "directives", "fstab: the image's own line goes: {line}");
    }
    draft.write("/etc/fstab", render(&lines), 0o644);
    Ok(Some(lines.len()))
}

fn render(lines: &[&str]) -> String {
    let mut text = HEADER.to_owned();
    for line in lines {
        text += line;
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Identity, Origin, evaluate};
    use crate::directives::Tree;
    use crate::directives::draft::on;

    #[test]
    fn the_seeds_lines_follow_the_header_c1a() {
        let seed = include_str!("../../tests/fixtures/seed-lts.conf");
        let settings = evaluate(seed, &[], &Identity::default()).settings;
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        tree.write("/etc/fstab", "UUID=1234 / ext4 defaults 0 1\n", 0o644).unwrap();
        assert_eq!(on(&tree, |draft| apply(&settings, draft)).unwrap(), Some(3));
        let text = tree.read_text("/etc/fstab").unwrap().unwrap();
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "proc /proc proc nodev,noexec,nosuid 0 0",
                "/dev/data/ssh /etc/ssh ext4 nofail,noatime,nodiratime 0 0",
                "/dev/data/journal /var/log/journal ext4 nofail,noatime,nodiratime 0 0",
                "/dev/data/docker /var/lib/docker ext4 nofail,noatime,nodiratime 0 0",
            ]
        );
        assert!(!text.contains("nfs"), "the header must not look like an NFS mount to LTSP's rule");
    }

    #[test]
    fn an_image_may_keep_its_fstab_c68() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        let own = "UUID=1234 / ext4 defaults 0 1\n";
        tree.write("/etc/fstab", own, 0o644).unwrap();
        let mut settings = Settings::default();
        settings.insert("CONFIGURE_FSTAB", "False", Origin::Agent);
        settings.insert("FSTAB_1", "x", Origin::Agent);
        assert_eq!(on(&tree, |draft| apply(&settings, draft)).unwrap(), None);
        assert_eq!(tree.read_text("/etc/fstab").unwrap().as_deref(), Some(own));
    }
}
