//! FILE_*: a file of the root, written as the configuration says it.
//!
//! `PATH [mode=0644] [owner=USER[:GROUP]] (content=TEXT | base64=DATA | append=TEXT)`, where the last
//! word takes the rest of the line. In TEXT `\n` is a new line, `\t` a tab, `\s` a blank (lts.conf
//! makes one of several) and `\\` a backslash; a last new line is added if it is missing.

use base64::prelude::{BASE64_STANDARD, Engine};

use super::covered::Covered;
use super::mounts::is_at_or_below;
use super::tree::{Kind, TOO_LONG, is_too_long};
use super::{Draft, View, accounts};
use crate::config::Settings;
use crate::error::{Error, Result, WhileDoing};

const FORM: &str =
    "PATH [mode=0644] [owner=USER[:GROUP]] then content=TEXT, base64=DATA or append=TEXT";

/// What a FILE_ setting says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub path: String,
    pub mode: Option<u32>,
    /// As it is written, names or numbers.
    pub owner: Option<String>,
    pub contents: Contents,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    Whole(Vec<u8>),
    /// Goes to the end of the file that is there.
    Appended(String),
}

/// Gives the number of files, and the settings that come to nothing.
pub fn apply(
    settings: &Settings,
    covered: &mut Covered,
    draft: &mut Draft<'_>,
) -> (usize, Vec<(String, Error)>) {
    let mut count: usize = 0;
    let mut problems = Vec::new();
    for (name, value) in settings.family("FILE_") {
        match parse(value).and_then(|wanted| write(wanted, covered, draft)) {
            Ok(()) => count = count.saturating_add(1),
            Err(error) => problems.push((name.to_owned(), error)),
        }
    }
    (count, problems)
}

/// Reads the value of a FILE_ setting.
///
/// # Errors
/// It is not of the form above, or names a place where nothing can be written.
pub fn parse(value: &str) -> Result<Wanted> {
    let (path, mut rest) = word(value);
    let doing = || match is_too_long(path) {
        true => "reading the file of a path".to_owned(),
        false => format!("reading the file {path:?}"),
    };
    check_path(path).map_err(|why| Error::invalid(doing(), why).with_hint(FORM))?;
    let mut wanted = Wanted {
        path: path.to_owned(),
        mode: None,
        owner: None,
        contents: Contents::Whole(Vec::new()),
    };
    loop {
        // The rest of the line belongs to these, with all blanks but the leading ones.
        let text = rest.trim_start();
        let contents = if let Some(text) = text.strip_prefix("content=") {
            unescaped(text).map(|text| Contents::Whole(text.into_bytes()))
        } else if let Some(data) = text.strip_prefix("base64=") {
            decoded(data).map(Contents::Whole)
        } else if let Some(text) = text.strip_prefix("append=") {
            unescaped(text).map(Contents::Appended)
        } else {
            let (setting, after) = word(text);
            match setting.split_once('=') {
                Some(("mode", mode)) => wanted.mode = Some(permissions(mode).while_doing(doing)?),
                Some(("owner", owner)) => wanted.owner = Some(owner.to_owned()),
                _ if setting.is_empty() => {
                    let why = "neither content=, base64= nor append= follows";
                    return Err(Error::invalid(doing(), why).with_hint(FORM));
                }
                _ => {
                    let why = format!("{setting:?} is not known");
                    return Err(Error::invalid(doing(), why).with_hint(FORM));
                }
            }
            rest = after;
            continue;
        };
        wanted.contents = contents.while_doing(doing)?;
        return Ok(wanted);
    }
}

fn write(wanted: Wanted, covered: &mut Covered, draft: &mut Draft<'_>) -> Result<()> {
    let Wanted { path, mode, owner, contents } = wanted;
    let doing = || format!("writing {path}");
    if draft.kind(&path)? == Some(Kind::Directory) {
        return Err(Error::refused(doing(), "it is a directory"));
    }
    let owner = owner.as_deref().map(|owner| accounts::owner(draft, owner));
    let owner = owner.transpose().while_doing(doing)?;
    let hidden = covered.mount_over(&path, draft).is_some();
    let bytes = match contents {
        Contents::Whole(bytes) => bytes,
        Contents::Appended(_) if hidden => {
            let why = "a mount will hide it, and what it has there is not known yet";
            return Err(Error::refused(doing(), why).with_hint("write it as a whole: content="));
        }
        Contents::Appended(text) => {
            let mut bytes = draft.read(&path)?.unwrap_or_default();
            if bytes.last().is_some_and(|last| *last != b'\n') {
                bytes.push(b'\n');
            }
            bytes.extend(text.into_bytes());
            // What a file has of the one that is not named would be lost.
            if draft.exists(&path) && mode.is_some() != owner.is_some() {
                let why = "only one of mode= and owner= is named, and the file there has both";
                return Err(Error::refused(doing(), why).with_hint("name both or neither"));
            }
            if (mode, owner) == (None, None) {
                draft.write(&path, bytes, 0o644);
                return Ok(());
            }
            bytes
        }
    };
    let mode = mode.unwrap_or(0o644);
    let owner = owner.unwrap_or_default();
    if hidden {
        covered.write(&path, &bytes, mode, owner, draft)?;
    }
    // Also where it will be hidden: a disk with nofail may be missing.
    draft.replace_for(&path, bytes, mode, owner);
    Ok(())
}

fn check_path(path: &str) -> Result<(), &'static str> {
    /// The kernel's own, and the layers that the root is made of.
    const NOT_OURS: [&str; 5] = ["/proc", "/sys", "/dev", "/rofs", "/cow"];
    if !path.starts_with('/') {
        return Err("a path begins with /");
    }
    if is_too_long(path) {
        return Err(TOO_LONG);
    }
    if path.split('/').skip(1).any(|name| ["", ".", ".."].contains(&name)) {
        return Err("it is not the path of a file");
    }
    if NOT_OURS.iter().any(|above| is_at_or_below(path, above)) {
        return Err("no file of the root can be there; for kernel parameters there is SYSCTL_");
    }
    Ok(())
}

/// The first word, and what follows it.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_once(char::is_whitespace).unwrap_or((text, ""))
}

fn permissions(text: &str) -> Result<u32> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 && text.len() >= 3 && !text.starts_with('+') => Ok(mode),
        _ => Err(Error::invalid(format!("reading mode={text}"), "it is not octal like 0644")),
    }
}

fn decoded(data: &str) -> Result<Vec<u8>> {
    let data: String = data.split_whitespace().collect();
    BASE64_STANDARD
        .decode(data)
        .map_err(|error| Error::invalid("reading base64=", error.to_string()))
}

fn unescaped(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.trim_end().chars();
    while let Some(c) = characters.next() {
        match (c, c == '\\') {
            (_, true) => match characters.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('s') => out.push(' '),
                Some('\\') => out.push('\\'),
                other => {
                    let other: String = other.into_iter().collect();
                    let why = format!("\\{other} is none of \\n, \\t, \\s and \\\\");
                    return Err(Error::invalid("reading its text", why)
                        .with_hint("in lts.conf a backslash of the file is four: \\\\\\\\"));
                }
            },
            (c, false) => out.push(c),
        }
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::{Identity, evaluate};
    use crate::directives::draft::on;
    use crate::directives::mounts::{Mounts, canonical};
    use crate::directives::{Tree, carry_out};

    fn wanted(value: &str) -> Option<(Option<u32>, Option<String>, String)> {
        let wanted = parse(value).ok()?;
        assert_eq!(wanted.path, "/a/b", "{value}");
        let contents = match wanted.contents {
            Contents::Whole(bytes) => String::from_utf8(bytes).unwrap(),
            Contents::Appended(text) => format!("+{text}"),
        };
        Some((wanted.mode, wanted.owner, contents))
    }

    #[test]
    #[rustfmt::skip]
    fn a_file_is_said_in_one_line() {
        let cases = [
            ("/a/b content=hello world",             Some((None, None, "hello world\n"))),
            (r"/a/b content=[A]\nB=1\n",             Some((None, None, "[A]\nB=1\n"))),
            (r"/a/b content=a:\n\s\s-\tb \\n",       Some((None, None, "a:\n  -\tb \\n\n"))),
            ("/a/b content=",                        Some((None, None, "\n"))),
            ("/a/b content=mode=0600 is no mode",    Some((None, None, "mode=0600 is no mode\n"))),
            ("/a/b mode=0600 owner=core:adm append=x", Some((Some(0o600), Some("core:adm".into()), "+x\n"))),
            ("/a/b owner=1000 mode=4755 base64=aGVs bG8=", Some((Some(0o4755), Some("1000".into()), "hello"))),
            ("/a/b",                                 None),
            ("/a/b mode=0600",                       None),
            ("/a/b mode=rw content=x",               None),
            ("/a/b mode=99999 content=x",            None),
            ("/a/b mod=0600 content=x",              None),
            ("/a/b base64=a",                        None),
            (r"/a/b content=C:\windows",             None),
            (r"/a/b content=ends with \",            None),
            ("a/b content=x",                        None),
            ("/a/ content=x",                        None),
            ("/a/../b content=x",                    None),
            ("/proc/sys/x content=1",                None),
            ("",                                     None),
        ];
        for (value, expected) in cases {
            let expected = expected.map(|(mode, owner, text): (_, _, &str)| (mode, owner, text.to_owned()));
            assert_eq!(wanted(value), expected, "{value:?}");
        }
    }

    /// Each name costs a level of recursion and another look at all above it.
    #[test]
    fn a_path_that_no_file_can_have_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        let deep = "/a".repeat(20_000);
        let named = format!("/etc/{}", "n".repeat(300));
        for path in [&deep, &named] {
            let error = parse(&format!("{path} content=x")).unwrap_err().to_string();
            assert!(error.contains("255") && error.len() < 200, "{error}");
            assert_eq!(canonical(path, &tree), *path);
            // Other families bring paths as well.
            let mut draft = Draft::over(&tree);
            draft.write(path, "x", 0o644);
            draft.directory(path, 0o755, None);
            draft.link("/etc/link", path);
            draft.replace(path, "x", 0o644);
            assert!(draft.kind(path).is_err() && draft.read(path).is_err());
            let foreseen = draft.take_errors().len();
            assert_eq!(foreseen, if *path == deep { 4 } else { 3 });
            assert_eq!(carry_out(draft.changes(), &tree).len(), foreseen);
        }
        // The longest that there can be.
        let longest = "/b".repeat(2047);
        let mut draft = Draft::over(&tree);
        draft.write(&longest, "x", 0o644);
        assert!(draft.take_errors().is_empty() && draft.exists(&longest));
    }

    #[test]
    fn files_are_written_and_what_cannot_be_is_named() {
        let text = r#"
[default]
FILE_1 = "/etc/new/a.conf content=one\n\s\stwo"
FILE_2 = "/etc/link mode=0600 content=mine"
FILE_3 = "/etc/list append=three"
FILE_4 = "/etc/none append=only"
FILE_5 = "/etc content=x"
FILE_6 = "/etc/x owner=nobody content=x"
FILE_8 = "/etc/list mode=0600 append=four"
FILE_9 = "/etc/owned mode=0600 owner=0:0 append=two"
FILE_7 = "/etc/profile.d/x.sh content=echo \"\$HOME\""
"#;
        let evaluation = evaluate(text, &[], &Identity::default());
        assert_eq!(evaluation.problems, []);
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        tree.write("/etc/list", "one\ntwo", 0o755).unwrap();
        tree.write("/etc/owned", "one", 0o755).unwrap();
        tree.write("/usr/lib/theirs", "theirs", 0o644).unwrap();
        tree.link("/etc/link", "/usr/lib/theirs").unwrap();
        let (count, problems) =
            on(&tree, |draft| apply(&evaluation.settings, &mut Covered::default(), draft));
        assert_eq!(count, 6);
        let problems: Vec<_> =
            problems.iter().map(|(name, error)| format!("{name}: {error}")).collect();
        assert_eq!(
            problems,
            [
                "FILE_5: writing /etc: refused: it is a directory",
                "FILE_6: writing /etc/x: looking for the user \"nobody\": refused: /etc/passwd has none",
                "FILE_8: writing /etc/list: refused: only one of mode= and owner= is named, \
                 and the file there has both",
            ]
        );
        let read = |path: &str| tree.read_text(path).unwrap().unwrap();
        assert_eq!(read("/etc/new/a.conf"), "one\n  two\n");
        assert_eq!(read("/etc/link"), "mine\n");
        assert_eq!(read("/usr/lib/theirs"), "theirs");
        assert_eq!(read("/etc/list"), "one\ntwo\nthree\n");
        assert_eq!(read("/etc/none"), "only\n");
        assert_eq!(read("/etc/profile.d/x.sh"), "echo \"$HOME\"\n");
        let mode = |path: &str| {
            std::fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o7777
        };
        assert_eq!((read("/etc/owned").as_str(), mode("etc/owned")), ("one\ntwo\n", 0o600));
        assert_eq!((mode("etc/link"), mode("etc/list")), (0o600, 0o755));
    }

    /// A configuration of kubelet written below the tmpfs that hides it was a node that did not join.
    #[test]
    fn a_file_below_a_mount_is_written_after_it_is_mounted() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        tree.write("/usr/lib/systemd/systemd", "", 0o755).unwrap();
        let settings = Settings::of(&[
            ("FILE_1", "/var/lib/kubelet/config.yaml mode=0600 content=a: b"),
            ("FILE_2", "/var/lib/kubelet/flags append=x"),
        ]);
        let mounts = Mounts::of("tmpfs /var/lib/kubelet tmpfs mode=0750 0 0", &tree);
        let mut covered = Covered::under(mounts);
        let problems = on(&tree, |draft| {
            let (_, problems) = apply(&settings, &mut covered, draft);
            covered.decide(draft).unwrap();
            problems
        });
        let [(name, error)] = problems.as_slice() else { panic!("{problems:?}") };
        assert_eq!(name, "FILE_2");
        assert_eq!(error.hint(), Some("write it as a whole: content="));
        assert_eq!(tree.read_text("/var/lib/kubelet/config.yaml").unwrap().unwrap(), "a: b\n");
        assert_eq!(
            tree.read_text("/etc/landfall/files/var-lib-kubelet.conf").unwrap().unwrap(),
            "# Written by landfall at boot, see tmpfiles.d(5).\n\
             f+~ \"/var/lib/kubelet/config.yaml\" 0600 0 0 - YTogYgo=\n"
        );
    }
}
