//! What an fstab says, as far as it decides about other files: which paths of the root it hides.
//!
//! fstab(5) for the fields, systemd.unit(5) for the names of the units that systemd makes of them.

use super::View;
use super::tree::{Kind, is_too_long};

/// A line of an fstab that mounts something on a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub source: String,
    /// With the image's links resolved, as systemd names it.
    pub at: String,
    pub fstype: String,
    pub options: String,
}

/// What is mounted over the root, in the order of its fstab.
#[derive(Clone, Debug, Default)]
pub struct Mounts(Vec<Mount>);

impl Mounts {
    /// What the lines of `fstab` mount on a root like `view`. Swap, the root itself and lines that
    /// systemd ignores are no mounts.
    pub fn of(fstab: &str, view: &dyn View) -> Self {
        Self(fstab.lines().filter_map(|line| Mount::parse(line, view)).collect())
    }

    /// The innermost mount that hides `path`: on it, or above it. The path is taken with the
    /// image's links resolved.
    pub fn over(&self, path: &str, view: &dyn View) -> Option<&Mount> {
        let path = canonical(path, view);
        self.0
            .iter()
            .filter(|mount| is_at_or_below(&path, &mount.at))
            .max_by_key(|mount| mount.at.len())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter()
    }
}

impl Mount {
    fn parse(line: &str, view: &dyn View) -> Option<Self> {
        let fields = fields(line);
        // A missing type is `auto` to systemd, see [`super::fstab::complaint`].
        let [source, at, rest @ ..] = fields.as_slice() else { return None };
        let fstype = rest.first().map_or("auto", String::as_str);
        if !at.starts_with('/') || fstype == "swap" || is_too_long(at) {
            return None;
        }
        let at = canonical(at, view);
        (at != "/").then(|| Self {
            source: source.clone(),
            at,
            fstype: fstype.to_owned(),
            options: rest.get(1).cloned().unwrap_or_default(),
        })
    }

    /// The unit that systemd makes of it.
    pub fn unit(&self) -> String {
        format!("{}.mount", escaped(&self.at))
    }

    /// Whether it needs a network, by systemd's own list (`fstype_is_network`), and is therefore
    /// mounted long after local files are expected; and shared by many nodes, as a rule.
    pub fn is_of_network(&self) -> bool {
        const NETWORK: [&str; 14] = [
            "afs",
            "ceph",
            "cifs",
            "gfs",
            "gfs2",
            "glusterfs",
            "lustre",
            "ncp",
            "ncpfs",
            "nfs",
            "nfs4",
            "ocfs2",
            "smb3",
            "sshfs",
        ];
        let fstype = self.fstype.strip_prefix("fuse.").unwrap_or(&self.fstype);
        NETWORK.contains(&fstype) || self.has_option("_netdev")
    }

    pub fn has_option(&self, option: &str) -> bool {
        self.options.split(',').any(|word| word == option)
    }
}

/// The fields of a line of fstab, with their escapes undone; none in a comment.
pub fn fields(line: &str) -> Vec<String> {
    let line = line.trim();
    if line.starts_with('#') {
        return Vec::new();
    }
    line.split([' ', '\t']).filter(|field| !field.is_empty()).map(unescaped).collect()
}

/// `text` as one field of a line of fstab.
pub fn field(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            ' ' => out += "\\040",
            '\t' => out += "\\011",
            '\n' => out += "\\012",
            '\\' => out += "\\134",
            '#' => out += "\\043",
            c => out.push(c),
        }
        out
    })
}

/// Octal escapes as glibc's getmntent(3) reads them, which is what systemd asks.
fn unescaped(field: &str) -> String {
    const ESCAPES: [(&str, char); 6] = [
        ("\\040", ' '),
        ("\\011", '\t'),
        ("\\012", '\n'),
        ("\\134", '\\'),
        ("\\043", '#'),
        ("\\\\", '\\'),
    ];
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        let (plain, special) = rest.split_at(at);
        out += plain;
        let known =
            ESCAPES.iter().find_map(|(escape, c)| Some((special.strip_prefix(escape)?, *c)));
        (rest, _) = match known {
            Some((rest, c)) => (rest, out.push(c)),
            None => (special.strip_prefix('\\').unwrap_or_default(), out.push('\\')),
        };
    }
    out + rest
}

/// A path in the way in which systemd puts it into a unit's name.
pub fn escaped(path: &str) -> String {
    let mut out = String::new();
    for (position, byte) in path.trim_matches('/').bytes().enumerate() {
        match byte {
            b'/' => out.push('-'),
            b'.' if position == 0 => out += "\\x2e",
            byte if byte.is_ascii_alphanumeric() || b":_.".contains(&byte) => {
                out.push(char::from(byte));
            }
            byte => out += &format!("\\x{byte:02x}"),
        }
    }
    if out.is_empty() { "-".to_owned() } else { out }
}

pub fn is_at_or_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above.trim_end_matches('/'))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `path` with the links of the root resolved, as far as it exists; what does not is kept as it is,
/// and so is a path that can lead nowhere, being too long.
pub fn canonical(path: &str, view: &dyn View) -> String {
    /// The kernel's own bound.
    const MOST_LINKS: usize = 40;
    if is_too_long(path) {
        return path.to_owned();
    }
    let mut links: usize = 0;
    let mut pending: Vec<String> = path.rsplit('/').map(str::to_owned).collect();
    let mut done: Vec<String> = Vec::new();
    while let Some(name) = pending.pop() {
        match name.as_str() {
            "" | "." => continue,
            ".." => {
                done.pop();
                continue;
            }
            _ => done.push(name),
        }
        if let Ok(Some(Kind::Link(target))) = view.kind(&format!("/{}", done.join("/")))
            && links < MOST_LINKS
        {
            links = links.saturating_add(1);
            done.pop();
            if target.starts_with('/') {
                done.clear();
            }
            pending.extend(target.rsplit('/').map(str::to_owned));
        }
    }
    format!("/{}", done.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directives::Tree;

    #[test]
    #[rustfmt::skip]
    fn lines_are_read_as_systemd_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        tree.link("/home", "/srv/home").unwrap();
        tree.link("/srv/loop", "loop").unwrap();
        let cases = [
            ("/dev/x /data ext4 defaults 0 0",    Some("/data")),
            ("/dev/x\t/data/ ext4",               Some("/data")),
            (r"/dev/x /my\040home ext4 rw 0 0",   Some("/my home")),
            (r"/dev/x /a\134b\\c\q ext4 rw 0 0",  Some(r"/a\b\c\q")),
            ("/dev/x /home/me ext4 rw 0 0",       Some("/srv/home/me")), // through the image's link
            ("/dev/x /srv/loop/a ext4 rw 0 0",    Some("/srv/loop/a")),
            ("/dev/x none swap sw 0 0",           None),
            ("/dev/x /swap swap sw 0 0",          None),
            ("/dev/x / ext4 rw 0 0",              None),
            ("/dev/x data ext4 rw 0 0",           None),
            ("# /dev/x /data ext4 rw 0 0",        None),
            ("/dev/x /data", Some("/data")),
            ("",                                  None),
        ];
        for (line, at) in cases {
            let mount = Mount::parse(line, &tree);
            assert_eq!(mount.as_ref().map(|mount| mount.at.as_str()), at, "{line}");
        }
        assert_eq!(unescaped(&field("a b\t\\c#d\n")), "a b\t\\c#d\n");
    }

    /// Each is what systemd-escape --path printed.
    #[test]
    #[rustfmt::skip]
    fn units_are_named_as_systemd_names_them() {
        let cases = [
            ("/etc/ssh",    r"etc-ssh"),
            ("/a-b/.c/d.e", r"a\x2db-.c-d.e"),
            ("/.hidden",    r"\x2ehidden"),
            ("/my home",    r"my\x20home"),
            ("/é",          r"\xc3\xa9"),
            ("/",           r"-"),
        ];
        for (path, expected) in cases {
            assert_eq!(escaped(path), expected, "{path}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_path_is_hidden_by_the_innermost_mount() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        tree.link("/lib", "usr/lib").unwrap();
        tree.write("/usr/lib/x", "", 0o644).unwrap();
        let fstab = "a /var ext4 rw\nb /var/lib/docker ext4 rw,_netdev\nc /usr nfs ro\n";
        let mounts = Mounts::of(fstab, &tree);
        let cases = [
            ("/var",                    Some("a")),
            ("/var/lib",                Some("a")),
            ("/var/lib/docker/overlay2", Some("b")),
            ("/var/lib/docker2",        Some("a")),
            ("/variable",               None),
            ("/lib/x",                  Some("c")),
            ("/",                       None),
        ];
        for (path, source) in cases {
            let mount = mounts.over(path, &tree);
            assert_eq!(mount.map(|mount| mount.source.as_str()), source, "{path}");
        }
        let network: Vec<_> = mounts.iter().map(Mount::is_of_network).collect();
        assert_eq!(network, [false, true, true]);
    }
}
