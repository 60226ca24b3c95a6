//! Files that must be where a mount of the running system hides them.
//!
//! What is written into the root at a path below a mount point is not seen once systemd has mounted
//! there, and what the image has there neither. So lines for systemd-tmpfiles do it in the running
//! system, one list for each mount, run by a unit that its mount pulls in: after the mount, before
//! any ordinary service, and not at all when there is no mount.
//!
//! The price is `nofail`: services start when its disk is mounted or given up, which systemd does
//! after 90 s (`x-systemd.device-timeout=` in the options), and not at once beside it. A
//! service that began with the wrong file would be the worse.
//!
//! Not in /etc/tmpfiles.d, where a path below a mount point with `nofail` would be made before
//! the mount hides it: nothing at boot waits for such a mount. Nor on file systems of the network,
//! which belong to many nodes; and a unit that services wait for must not wait for the network.

use std::collections::BTreeMap;

use super::draft::Source;
use super::mounts::{Mount, Mounts, escaped};
use super::{Draft, View};
use crate::error::{Error, Result};

/// What was there before a mount, for systemd-tmpfiles.
#[derive(Debug, Default)]
pub struct Covered {
    mounts: Mounts,
    /// By mount point.
    lines: BTreeMap<String, Vec<Line>>,
    /// Below no mount that we know of.
    loose: Vec<Line>,
}

/// How what the image has is put where it can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// A copy, unless there is something.
    Copy,
    /// A link to the image, in place of whatever is there.
    Link,
}

#[derive(Debug)]
struct Line {
    path: String,
    text: String,
}

/// Where the pristine image is in the running system.
const IMAGE: &str = "/rofs";

impl Covered {
    /// Over a root with these `mounts`.
    pub fn under(mounts: Mounts) -> Self {
        Self { mounts, ..Self::default() }
    }

    /// What hides `path`.
    pub fn mount_over(&self, path: &str, view: &dyn View) -> Option<&Mount> {
        self.mounts.over(path, view)
    }

    /// Puts what the root has at `path` there again, below the mount that hides it: by reference to
    /// the image as far as that has it, else as it was decided.
    pub fn bring(&mut self, path: &str, how: How, draft: &Draft<'_>) -> Result<()> {
        let quoted_path = quoted(path);
        let force = if how == How::Link { "+" } else { "" };
        match draft.source(path)? {
            None => Ok(()),
            Some(Source::Image(place)) => {
                let kind = if how == How::Link { "L+" } else { "C" };
                let from = argument(&format!("{IMAGE}{place}"));
                self.add(path, format!("{kind} {quoted_path} - - - - {from}"), draft)
            }
            // What no mount hides is where it was decided to be.
            Some(_) if self.mounts.over(path, draft).is_none() => Ok(()),
            Some(Source::Link(target)) => {
                let target = argument(&target);
                self.add(path, format!("L{force} {quoted_path} - - - - {target}"), draft)
            }
            Some(Source::File { contents, mode, owner }) => {
                self.write(path, &contents, mode, owner, draft)
            }
            Some(Source::Directory) => {
                self.add(path, format!("d {quoted_path}"), draft)?;
                let mut names = draft.names(path)?;
                names.sort();
                names.iter().try_for_each(|name| self.bring(&format!("{path}/{name}"), how, draft))
            }
        }
    }

    /// Writes a file, in place of the contents of one that is there.
    pub fn write(
        &mut self,
        path: &str,
        contents: &[u8],
        mode: u32,
        (user, group): (u32, u32),
        view: &dyn View,
    ) -> Result<()> {
        use base64::prelude::{BASE64_STANDARD, Engine};
        // The modifier ~ takes any bytes, and is known since systemd 250.
        let line = format!(
            "f+~ {} {mode:04o} {user} {group} - {}",
            quoted(path),
            BASE64_STANDARD.encode(contents)
        );
        self.add(path, line, view)
    }

    fn add(&mut self, path: &str, text: String, view: &dyn View) -> Result<()> {
        let lines = match self.mounts.over(path, view) {
            Some(mount) if mount.is_of_network() => {
                let why = format!("{} is mounted over it, from the network", mount.source);
                return Err(Error::refused(format!("putting {path} where it can be seen"), why)
                    .with_hint(format!("put it into {} itself", mount.source)));
            }
            Some(mount) => self.lines.entry(mount.at.clone()).or_default(),
            None => &mut self.loose,
        };
        // Of two lines for one path systemd-tmpfiles takes the first; families mean the last.
        lines.retain(|line| line.path != path);
        lines.push(Line { path: path.to_owned(), text });
        Ok(())
    }

    /// Decides on the lists and their units.
    pub fn decide(self, draft: &mut Draft<'_>) -> Result<()> {
        if self.lines.is_empty() && self.loose.is_empty() {
            return Ok(());
        }
        if !is_systemds(draft) {
            let doing = "putting files where a mount will hide them";
            return Err(Error::refused(doing, "the image has no systemd"));
        }
        if !self.loose.is_empty() {
            draft.replace("/etc/tmpfiles.d/landfall.conf", list(&self.loose), 0o600);
        }
        for mount in self.mounts.iter() {
            let Some(lines) = self.lines.get(&mount.at) else { continue };
            let stem = escaped(&mount.at);
            let path = format!("{FOLDER}/{stem}.conf");
            let name = format!("landfall-files-{stem}.service");
            let unit = mount.unit();
            draft.replace(&path, list(lines), 0o600);
            draft.replace(&format!("{UNITS}/{name}"), render(&mount.at, &unit, &path), 0o644);
            draft.link(&format!("{UNITS}/{unit}.wants/{name}"), &format!("../{name}"));
        }
        Ok(())
    }
}

const UNITS: &str = "/etc/systemd/system";
/// Not where systemd-tmpfiles looks by itself.
const FOLDER: &str = "/etc/landfall/files";

pub fn is_systemds(view: &dyn View) -> bool {
    ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"].iter().any(|path| view.exists(path))
}

fn list(lines: &[Line]) -> String {
    let header = "# Written by landfall at boot, see tmpfiles.d(5).\n".to_owned();
    lines.iter().fold(header, |text, line| text + &line.text + "\n")
}

/// `Requires=`, so that without the mount the root's own files stay as they are.
fn render(at: &str, mount: &str, list: &str) -> String {
    let at = at.replace('%', "%%");
    let list = list.replace('\\', "\\\\");
    format!(
        "# Written by landfall at boot.\n\
         [Unit]\n\
         Description=Files of this boot in {at}\n\
         DefaultDependencies=no\n\
         Requires={mount}\n\
         After={mount}\n\
         Before=basic.target shutdown.target\n\
         Conflicts=shutdown.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart=systemd-tmpfiles --create \"{list}\"\n"
    )
}

/// A path as the second field of a line of tmpfiles.d.
fn quoted(path: &str) -> String {
    format!("\"{}\"", argument(path).replace('"', "\\\""))
}

/// The last field: specifiers and C escapes are undone in it, quotes are not.
fn argument(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "%%").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directives::Tree;
    use crate::directives::draft::on;

    fn root() -> (tempfile::TempDir, Tree) {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        tree.write("/usr/lib/systemd/systemd", "", 0o755).unwrap();
        (folder, tree)
    }

    #[test]
    fn the_last_word_about_a_path_counts() {
        let (_folder, tree) = root();
        let mut covered = Covered::under(Mounts::of("tmpfs /m tmpfs rw", &tree));
        for path in ["/m/a", "/m/b"] {
            tree.write(path, "", 0o644).unwrap();
            covered.bring(path, How::Copy, &Draft::over(&tree)).unwrap();
        }
        covered.write("/m/a", b"x", 0o600, (1, 2), &tree).unwrap();
        on(&tree, |draft| covered.decide(draft)).unwrap();
        assert_eq!(
            tree.read_text("/etc/landfall/files/m.conf").unwrap().unwrap(),
            "# Written by landfall at boot, see tmpfiles.d(5).\n\
             C \"/m/b\" - - - - /rofs/m/b\n\
             f+~ \"/m/a\" 0600 1 2 - eA==\n"
        );
    }

    #[test]
    fn what_waits_for_no_local_disk_and_what_has_no_systemd_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        let mut covered = Covered::under(Mounts::of("nas:/x /m nfs rw", &tree));
        tree.write("/m/a", "", 0o644).unwrap();
        tree.write("/n", "", 0o644).unwrap();
        let draft = Draft::over(&tree);
        let error = covered.bring("/m/a", How::Link, &draft).unwrap_err();
        assert_eq!(error.hint(), Some("put it into nas:/x itself"));
        covered.bring("/n", How::Link, &draft).unwrap();
        assert!(on(&tree, |draft| covered.decide(draft)).is_err());
        on(&tree, |draft| Covered::default().decide(draft)).unwrap();
    }

    /// The real program reads what we write, however odd the names.
    #[test]
    #[ignore = "runs systemd-tmpfiles"]
    fn systemd_tmpfiles_reads_our_lines() {
        let (folder, tree) = root();
        // The same before the mount; here only /rofs has it.
        let (_before, before) = root();
        let odd = ["plain", "two words", "per%cent", "quo\"te", r"back\slash", "é"];
        for name in odd {
            tree.write(&format!("/rofs/m/{name}"), name, 0o640).unwrap();
            before.write(&format!("/m/{name}"), name, 0o640).unwrap();
        }
        tree.write("/rofs/m/folder/inside", "inside", 0o644).unwrap();
        tree.write("/m/linked", "old", 0o644).unwrap();
        tree.write("/m/written", "old and longer", 0o644).unwrap();
        tree.write("/m/kept", "of the disk", 0o644).unwrap();
        for path in ["/m/folder/inside", "/m/kept", "/m/linked"] {
            before.write(path, "", 0o644).unwrap();
        }
        let mut covered = Covered::under(Mounts::of("/dev/x /m ext4 rw", &tree));
        for name in odd.into_iter().chain(["folder", "kept", "missing"]) {
            let path = format!("/m/{name}");
            covered.bring(&path, How::Copy, &Draft::over(&before)).unwrap();
        }
        covered.bring("/m/linked", How::Link, &Draft::over(&before)).unwrap();
        covered.write("/m/written", b"new\0%n\\n", 0o604, (0, 0), &tree).unwrap();
        on(&tree, |draft| covered.decide(draft)).unwrap();
        let said = std::process::Command::new("systemd-tmpfiles")
            .arg(format!("--root={}", folder.path().display()))
            .arg("--create")
            .arg(folder.path().join("etc/landfall/files/m.conf"))
            .output()
            .unwrap();
        assert!(said.status.success() && said.stderr.is_empty(), "{said:?}");
        let read = |path: &str| tree.read(path).unwrap().map(|b| String::from_utf8(b).unwrap());
        for name in odd {
            assert_eq!(read(&format!("/m/{name}")).as_deref(), Some(name));
        }
        assert_eq!(read("/m/folder/inside").as_deref(), Some("inside"));
        assert_eq!(read("/m/kept").as_deref(), Some("of the disk"));
        assert_eq!(read("/m/written").as_deref(), Some("new\0%n\\n"));
        let linked = super::super::Kind::Link("/rofs/m/linked".into());
        assert_eq!(tree.kind("/m/linked").unwrap(), Some(linked));
    }
}
