//! The kernel command line: words by the kernel's rules, keys by one table, and a grammar for
//! each key whose value has one.
//!
//! Reading never fails and touches nothing: what cannot be understood becomes a [`Problem`] with
//! its place, and the rest of the line still counts.

mod claim;
mod fields;
mod ip;
mod keys;
mod links;
mod network;
mod root;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

pub use claim::{NotOurs, claim};
pub use ip::address_request;
use keys::same_key;
pub use keys::{KEYS, Key, Request, distance};
pub use links::{bond, bridge, handover, ifname, nameserver, route, vlan};
pub use root::{NbdRequest, RootRequest, mirror, nbdroot};

/// One word of the command line, unquoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word<'a> {
    pub key: &'a str,
    pub value: Option<&'a str>,
    /// Byte offset of the word in the line.
    pub at: usize,
}

/// Something in the command line that was not understood, or is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Byte offset of the word in the command line, or in `file`.
    pub at: usize,
    /// What the image adds to the command line, if the word is from there.
    pub file: Option<PathBuf>,
    /// The word as it was typed.
    pub word: String,
    pub why: String,
    /// The word is carried out, and of no use; otherwise it is without effect.
    pub is_in_force: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, word, why, .. } = self;
        match &self.file {
            Some(file) => write!(f, "{word} (byte {at} of {}): {why}", file.display()),
            None => write!(f, "{word} (byte {at} of the kernel command line): {why}"),
        }
    }
}

impl Problem {
    fn of(word: &Word<'_>, why: String) -> Self {
        let text = match word.value {
            Some(value) => format!("{}={value}", word.key),
            None => word.key.to_owned(),
        };
        Self { at: word.at, file: None, word: text, why, is_in_force: false }
    }
}

/// The command line of a boot, and what it was put together from.
#[derive(Debug, Default)]
pub struct Line {
    pub text: String,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    /// `None`: the boot loader's.
    file: Option<PathBuf>,
    /// Where it begins in the text, and how many bytes of the file are not in there before it.
    begin: usize,
    left_out: usize,
}

/// The command line of this boot: what the image was built with, as dracut keeps it (`/etc/cmdline`
/// and `/etc/cmdline.d`), and behind it, so that they win, the words of the boot loader.
///
/// `proc` is where the kernel's `cmdline` is read from.
pub fn of_this_boot(root: &Path, proc: &mut dyn std::io::Read) -> std::io::Result<Line> {
    let mut line = Line::default();
    let mut folder: Vec<_> = fs::read_dir(root.join("etc/cmdline.d"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
        .collect();
    folder.sort();
    folder.push(root.join("etc/cmdline"));
    for path in folder {
        if let Ok(bytes) = fs::read(&path) {
            let name = path.strip_prefix(root).unwrap_or(&path);
            line.add(Some(Path::new("/").join(name)), &String::from_utf8_lossy(&bytes));
        }
    }
    let mut loaders = Vec::new();
    proc.read_to_end(&mut loaders)?;
    line.add(None, &String::from_utf8_lossy(&loaders));
    Ok(line)
}

impl Line {
    fn add(&mut self, file: Option<PathBuf>, text: &str) {
        let words = text.trim();
        if words.is_empty() {
            return;
        }
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        let left_out = text.len().saturating_sub(text.trim_start().len());
        self.parts.push(Part { file, begin: self.text.len(), left_out });
        self.text.push_str(words);
    }

    /// Says of problems in [`Self::text`] where their words were written.
    pub fn locate(&self, problems: &mut [Problem]) {
        for problem in problems {
            let part = self.parts.iter().rev().find(|part| part.begin <= problem.at);
            if let Some(Part { file, begin, left_out }) = part {
                problem.file.clone_from(file);
                problem.at = problem.at.saturating_sub(*begin).saturating_add(*left_out);
            }
        }
    }
}

/// Splits a command line as the kernel's `next_arg` does (`lib/cmdline.c`).
///
/// A double quote switches quoting on and off wherever it stands, and a quoted blank does not end
/// a word. A quote that opens the word or its value is dropped together with one that ends the
/// word; all others are kept. There is no escape. A `=` in the first place is not a separator.
/// Words from a lone `--` on belong to the real init and are not returned.
pub fn words(line: &str) -> Vec<Word<'_>> {
    let mut quoted = false;
    let mut begin = None;
    let mut raw = Vec::new();
    for (at, c) in line.char_indices() {
        if c == '"' {
            quoted = !quoted;
        }
        if c.is_ascii_whitespace() && !quoted {
            raw.extend(begin.take().map(|begin| (begin, at)));
        } else if begin.is_none() {
            begin = Some(at);
        }
    }
    raw.extend(begin.map(|begin| (begin, line.len())));
    raw.into_iter()
        .filter_map(|(begin, end)| Some((begin, line.get(begin..end)?)))
        .take_while(|(_, word)| *word != "--")
        .map(|(at, word)| {
            let opened = word.strip_prefix('"');
            let word = opened.map_or(word, |rest| rest.strip_suffix('"').unwrap_or(rest));
            let equals = word.char_indices().skip(1).find(|(_, c)| *c == '=').map(|(at, _)| at);
            let Some((key, value)) = equals.and_then(|at| word.split_at_checked(at)) else {
                return Word { key: word, value: None, at };
            };
            let value = value.strip_prefix('=').unwrap_or(value);
            let value = match value.strip_prefix('"') {
                Some(rest) if opened.is_none() => rest.strip_suffix('"').unwrap_or(rest),
                Some(rest) => rest,
                None => value,
            };
            Word { key, value: Some(value), at }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn words_are_split_as_the_kernel_splits_them() {
        let cases = [
            ("",                         vec![]),
            ("  ro\tquiet \n",           vec![("ro", None, 2), ("quiet", None, 5)]),
            ("root=nbd:10.0.0.1",        vec![("root", Some("nbd:10.0.0.1"), 0)]), // no final newline
            ("a=b=c a=",                 vec![("a", Some("b=c"), 0), ("a", Some(""), 6)]),
            (r#""m=two words" x"#,       vec![("m", Some("two words"), 0), ("x", None, 14)]),
            (r#"m="two words" x"#,       vec![("m", Some("two words"), 0), ("x", None, 14)]),
            (r#"m=LABEL="a b""#,         vec![("m", Some(r#"LABEL="a b""#), 0)]),
            (r#"m="never closed x"#,     vec![("m", Some("never closed x"), 0)]),
            (r#"m=a\" b""#,              vec![("m", Some(r#"a\" b""#), 0)]), // nothing escapes
            ("=x y",                     vec![("=x", None, 0), ("y", None, 3)]),
            ("ro -- single root=no",     vec![("ro", None, 0)]),
            ("é=ü",                      vec![("é", Some("ü"), 0)]),
        ];
        for (line, expected) in cases {
            let got: Vec<_> = words(line).iter().map(|w| (w.key, w.value, w.at)).collect();
            assert_eq!(got, expected, "command line {line:?}");
        }
    }

    #[test]
    fn the_boot_loader_has_the_last_word() {
        let image = tempfile::tempdir().unwrap();
        let of = |root: &Path| of_this_boot(root, &mut "quiet root=nbd:a:b\n".as_bytes()).unwrap();
        assert_eq!(of(image.path()).text, "quiet root=nbd:a:b");
        fs::create_dir_all(image.path().join("etc/cmdline.d")).unwrap();
        for (path, text) in [
            ("etc/cmdline.d/20-b.conf", " rd.neednet=1\n"),
            ("etc/cmdline.d/10-a.conf", "root=UUID=x\nro\n"),
            ("etc/cmdline.d/README", "not=this"),
            ("etc/cmdline", "panic=5\n"),
        ] {
            fs::write(image.path().join(path), text).unwrap();
        }
        let line = of(image.path()).text;
        assert_eq!(line, "root=UUID=x\nro rd.neednet=1 panic=5 quiet root=nbd:a:b");
    }

    /// Who reads the place has the boot loader's file open, or the image's.
    #[test]
    fn a_problem_is_placed_in_what_somebody_wrote() {
        let image = tempfile::tempdir().unwrap();
        fs::create_dir_all(image.path().join("etc/cmdline.d")).unwrap();
        fs::write(image.path().join("etc/cmdline.d/10-a.conf"), "\n ro ip=eth0:dhpc\n").unwrap();
        fs::write(image.path().join("etc/cmdline"), "vlan=v5 quiet\n").unwrap();
        let mut loaders = "quiet ip=x landfall.rma=copy\n".as_bytes();
        let line = of_this_boot(image.path(), &mut loaders).unwrap();
        let mut problems = Request::read(&line.text).problems;
        line.locate(&mut problems);
        let places: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let expected = [
            "ip=eth0:dhpc (byte 5 of /etc/cmdline.d/10-a.conf): ",
            "vlan=v5 (byte 0 of /etc/cmdline): ",
            "ip=x (byte 6 of the kernel command line): ",
            "landfall.rma=copy (byte 11 of the kernel command line): ",
        ];
        assert_eq!(places.len(), expected.len(), "{places:?}");
        for (place, expected) in places.iter().zip(expected) {
            assert!(place.starts_with(expected), "{place}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_command_line_makes_the_splitter_panic(line in "\\PC*") {
            words(&line);
        }
    }
}
