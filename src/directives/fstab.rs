//! FSTAB_*, NFS_HOME, CONFIGURE_FSTAB: /etc/fstab, written anew.
//!
//! The image's own lines go: they name the disks of the machine on which the image was made, and
//! systemd would wait for them. Mounting is systemd's. Mount points that the root lacks are made
//! here, because not everything that reads an fstab makes them; those below another mount point
//! would be hidden by it, and are left to whoever mounts.
//!
//! A line that systemd would ignore is written as it is, as LTSP did, and said.

use super::containers::{self, Containers};
use super::mounts::{Mounts, canonical, field, fields, is_at_or_below};
use super::tree::{Kind, TOO_LONG, is_too_long};
use super::{Draft, Facts, View, server};
use crate::config::Settings;
use crate::error::{Error, Result};

const HEADER: &str = "\
# Written by landfall at boot: FSTAB_ lines of lts.conf.
proc /proc proc nodev,noexec,nosuid 0 0
";

/// In the initramfs already, and moved over whatever the root has there.
const API: [&str; 4] = ["/dev", "/proc", "/run", "/sys"];

/// What became of the file.
#[derive(Debug, Default)]
pub struct Written {
    /// FSTAB_ lines.
    pub lines: usize,
    pub containers: Containers,
    /// Settings that come to nothing, and why.
    pub problems: Vec<(String, Error)>,
}

/// None if the image's file was left alone.
pub fn apply(settings: &Settings, facts: &Facts, draft: &mut Draft<'_>) -> Result<Option<Written>> {
    if settings.filled("CONFIGURE_FSTAB").is_some() && !settings.is_true("CONFIGURE_FSTAB") {
        return Ok(None);
    }
    let mut problems = Vec::new();
    let mut text = HEADER.to_owned();
    let mut add = |line: &str| {
        text += line;
        text.push('\n');
    };
    match nfs_home(settings, facts) {
        Some(Ok(line)) => add(&line),
        Some(Err(error)) => problems.push(("NFS_HOME".to_owned(), error)),
        None => {}
    }
    let lines = settings.family("FSTAB_");
    for (name, line) in &lines {
        if let Some(why) = complaint(line) {
            let error = Error::invalid(format!("{line:?}"), why)
                .with_hint("the line is written as it is; systemd does not mount what is meant");
            problems.push(((*name).to_owned(), error));
        }
        add(line);
    }
    let before = draft.read_text("/etc/fstab")?.unwrap_or_default();
    for line in before.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        log::debug!(target: "directives", "fstab: the image's own line goes: {line}");
    }
    let containers = containers::decide(settings, &Mounts::of(&text, draft), draft);
    text += &containers.render();
    make_mount_points(&text, draft);
    draft.write("/etc/fstab", text, 0o644);
    Ok(Some(Written { lines: lines.len(), containers, problems }))
}

/// The line of NFS_HOME, with the boot server in front of a bare path.
fn nfs_home(settings: &Settings, facts: &Facts) -> Option<Result<String>> {
    let home = settings.filled("NFS_HOME")?.trim();
    let doing = || format!("mounting {home} on /home");
    let source = match (home.starts_with('/'), server(settings, facts)) {
        (true, Some(server)) if server.contains(':') => format!("[{server}]:{home}"),
        (true, Some(server)) => format!("{server}:{home}"),
        (true, None) => {
            let why = "its server is not known";
            return Some(
                Err(Error::invalid(doing(), why).with_hint("write NFS_HOME=SERVER:/PATH")),
            );
        }
        (false, _) if home.contains(":/") => home.to_owned(),
        (false, _) => return Some(Err(Error::invalid(doing(), "it is not [SERVER:]/PATH"))),
    };
    // A blank would begin the next field.
    let options: String = settings.list("NFS_HOME_OPTIONS").concat();
    let options = if options.is_empty() { "defaults" } else { &options };
    Some(Ok(format!("{} /home nfs {options} 0 0", field(&source))))
}

/// Why nobody would mount what a line says; none for a good line, a comment and an empty one.
pub fn complaint(line: &str) -> Option<String> {
    let fields = fields(line);
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    match fields.as_slice() {
        [] => None,
        // With glibc's getmntent(3) what follows the second is empty if it is missing: systemd takes
        // the type to be `auto`.
        [_] => Some("it has one of the fields device, mount point, type, options".to_owned()),
        [_, at, fstype, ..] if *fstype == "swap" || *at == "none" => None,
        [_, at, ..] if !at.starts_with('/') => {
            Some(format!("the mount point {at:?} does not begin with /"))
        }
        [_, at, ..] if is_too_long(at) => {
            Some(format!("the mount point is not possible: {TOO_LONG}"))
        }
        [_, at, ..] if at.split('/').any(|name| name == ".." || name == ".") => {
            Some(format!("the mount point {at:?} has . or .. in it"))
        }
        [_, _, _, _, numbers @ ..]
            if numbers
                .iter()
                .take_while(|word| !word.starts_with('#'))
                .enumerate()
                .any(|(position, word)| position > 1 || word.parse::<u32>().is_err()) =>
        {
            Some("more than two numbers follow its options; a blank in a field is \\040".to_owned())
        }
        _ => None,
    }
}

/// Makes the mount points of `fstab` that the root lacks.
fn make_mount_points(fstab: &str, draft: &mut Draft<'_>) {
    let mounts = Mounts::of(fstab, draft);
    for mount in mounts.iter() {
        let hidden = mounts
            .iter()
            .map(|other| other.at.as_str())
            .chain(API)
            .any(|above| above != mount.at && is_at_or_below(&mount.at, above));
        // A file can be bound only to a file.
        let binds = mount.has_option("bind") || mount.has_option("rbind");
        let binds_a_file = binds
            && !matches!(draft.kind(&canonical(&mount.source, draft)), Ok(Some(Kind::Directory)));
        if !hidden && !binds_a_file && !draft.exists(&mount.at) {
            draft.directory(&mount.at, 0o755, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Identity, evaluate};
    use crate::directives::Tree;
    use crate::directives::What;
    use crate::directives::draft::on;

    #[test]
    fn the_seeds_lines_follow_the_header_c1a() {
        let seed = include_str!("../../tests/fixtures/seed-lts.conf");
        let settings = evaluate(seed, &[], &Identity::default()).settings;
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        tree.write("/etc/fstab", "UUID=1234 / ext4 defaults 0 1\n", 0o644).unwrap();
        let written =
            on(&tree, |draft| apply(&settings, &Facts::default(), draft)).unwrap().unwrap();
        assert_eq!((written.lines, written.problems.len()), (3, 0));
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
        let settings = Settings::of(&[("CONFIGURE_FSTAB", "False"), ("FSTAB_1", "x")]);
        assert!(on(&tree, |draft| apply(&settings, &Facts::default(), draft)).unwrap().is_none());
        assert_eq!(tree.read_text("/etc/fstab").unwrap().as_deref(), Some(own));
    }

    /// A line that came to nothing was a disk that was silently not there.
    #[test]
    #[rustfmt::skip]
    fn lines_that_mount_nothing_are_said_and_written() {
        let cases = [
            ("/dev/x /y ext4 defaults 0 0",        None),
            ("/dev/x /y ext4 defaults",            None),
            ("/dev/x /y ext4 defaults 0 0 # ours", None),
            ("/dev/x none swap sw 0 0",            None),
            ("/dev/x swap swap sw 0 0",            None),
            ("# a comment",                        None),
            ("",                                   None),
            ("/dev/x /y ext4",                     None),
            ("/dev/x /y",                          None), // systemd takes it as auto
            ("x",                                  Some("one of the fields")),
            ("/dev/x data ext4 defaults 0 0",      Some("\"data\" does not begin")),
            ("/dev/x /a/../b ext4 defaults 0 0",   Some(". or ..")),
            ("/dev/x /my home ext4 defaults 0 0",  Some("040")),
            ("/dev/x /y ext4 ro, noatime 0 0",     Some("040")),
        ];
        let long = format!("/dev/x /{} ext4 rw 0 0", "n".repeat(300));
        assert!(complaint(&long).unwrap().contains("255"));
        for (line, expected) in cases {
            let why = complaint(line);
            assert_eq!(why.is_some(), expected.is_some(), "{line:?}: {why:?}");
            assert!(why.unwrap_or_default().contains(expected.unwrap_or_default()), "{line:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        let settings = Settings::of(&[("FSTAB_1_DATA", "x"), ("FSTAB_2", "/dev/x /y ext4 rw 0 0")]);
        let written = on(&tree, |draft| apply(&settings, &Facts::default(), draft)).unwrap().unwrap();
        let [(name, error)] = written.problems.as_slice() else { panic!("{:?}", written.problems) };
        assert_eq!(name, "FSTAB_1_DATA");
        assert!(error.to_string().starts_with("\"x\": it has one of the fields"), "{error}");
        let text = tree.read_text("/etc/fstab").unwrap().unwrap();
        assert!(text.ends_with("\nx\n/dev/x /y ext4 rw 0 0\n"), "{text}");
    }

    #[test]
    #[rustfmt::skip]
    fn home_by_nfs_is_a_line_before_the_others() {
        let cases: &[(&[(&str, &str)], Option<&str>)] = &[
            (&[("NFS_HOME", "/home")],                                    Some("10.0.0.1:/home /home nfs defaults 0 0")),
            (&[("NFS_HOME", "/home"), ("SERVER", "fd00::1")],             Some("[fd00::1]:/home /home nfs defaults 0 0")),
            (&[("NFS_HOME", "nas:/vol/my home")],                         Some(r"nas:/vol/my\040home /home nfs defaults 0 0")),
            (&[("NFS_HOME", "nas:/h"), ("NFS_HOME_OPTIONS", "rw, soft")], Some("nas:/h /home nfs rw,soft 0 0")),
            (&[("NFS_HOME", "nas")],                                      None),
        ];
        let facts = Facts { server: Some("10.0.0.1".into()), ..Facts::default() };
        for (values, expected) in cases {
            let line = nfs_home(&Settings::of(values), &facts).unwrap();
            assert_eq!(line.ok().as_deref(), *expected, "{values:?}");
        }
        let nobody = nfs_home(&Settings::of(&[("NFS_HOME", "/home")]), &Facts::default()).unwrap();
        assert!(nobody.unwrap_err().to_string().contains("server is not known"));
        assert!(nfs_home(&Settings::default(), &facts).is_none());

        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        let settings = Settings::of(&[("NFS_HOME", "/home"), ("FSTAB_1", "/dev/x /home/local ext4 rw 0 0")]);
        on(&tree, |draft| apply(&settings, &facts, draft)).unwrap();
        let text = tree.read_text("/etc/fstab").unwrap().unwrap();
        let mounts: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(mounts, ["10.0.0.1:/home /home nfs defaults 0 0", "/dev/x /home/local ext4 rw 0 0"]);
        assert!(text.contains("nfs"), "the services of it stay (C76)");
        assert!(tree.exists("/home") && !tree.exists("/home/local"));
    }

    #[test]
    #[rustfmt::skip]
    fn mount_points_are_made_where_they_will_be_seen() {
        let cases = [
            ("/dev/x /data/a ext4 rw 0 0",             vec!["/data/a"]),
            ("a /b ext4 rw\nc /b/d ext4 rw",           vec!["/b"]),
            ("c /b/d ext4 rw\na /b ext4 rw",           vec!["/b"]),      // whatever their order
            (r"/dev/x /my\040home ext4 rw 0 0",        vec!["/my home"]),
            ("/dev/x /srv ext4 rw 0 0",                vec![]),          // is there, and keeps its mode
            ("/dev/x /link/new ext4 rw 0 0",           vec!["/srv/new"]),
            ("tmpfs /run/x tmpfs rw 0 0",              vec![]),          // in the kernel's own
            ("/dev/x none swap sw 0 0",                vec![]),
            ("/srv/file /srv/other none bind 0 0",     vec![]),          // a file is bound to a file
            ("/srv /srv2 none bind 0 0",               vec!["/srv2"]),
            ("/dev/x data ext4 rw 0 0",                vec![]),
        ];
        for (fstab, expected) in cases {
            let folder = tempfile::tempdir().unwrap();
            let tree = Tree::open(folder.path()).unwrap();
            tree.write("/srv/file", "", 0o644).unwrap();
            tree.link("/link", "/srv").unwrap();
            let mut draft = Draft::over(&tree);
            make_mount_points(fstab, &mut draft);
            let made: Vec<_> = draft.changes().iter().map(|change| {
                assert_eq!(change.what, What::Directory { mode: 0o755, owner: None }, "{fstab}");
                change.path.as_str()
            }).collect();
            assert_eq!(made, expected, "{fstab}");
        }
    }
}
