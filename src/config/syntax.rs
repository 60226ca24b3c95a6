//! The grammar of lts.conf: text to sections and entries, and every problem on the way.
//!
//! Follows getltscfg of LTSP 5 wherever a file that worked there can tell the difference, with one
//! departure of principle: a line is a statement. getltscfg ignored line ends and stopped at its
//! first error, so one typing error silently cost all that followed, or the whole file. Here an
//! error costs its own line, is reported with line and column, and the rest counts. What that
//! changes is listed at the tests, by the row names of the conformance list.
//!
//! Values come out as they stand between their quotes; `import` expands them. This module knows
//! no file, no identity and no setting by name.
//!
//! A file for thousands of nodes has megabytes, and the agent is built for size: what is done for
//! every byte is left to the searches of the standard library, which are built for speed.

use std::borrow::Cow;
use std::sync::Arc;

use super::Piece;
use super::cursor::{Cursor, is_special};
use super::problem::{Bound, Place, Problem, Problems, Severity};

/// Parsed files. Sections are in the order of the files and in file order, doubles included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    pub sections: Vec<Section>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Without brackets and blanks around it, as typed.
    pub name: String,
    /// Of its opening bracket.
    pub place: Place,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Upper case; letters, digits and `_`, no digit first.
    pub key: Piece,
    pub value: Piece,
    pub quoting: Quoting,
    /// Of the key.
    pub place: Place,
}

/// How a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quoting {
    Bare,
    Double,
    /// Exactly the text between the quotes: no variables, no blanks that collapse, no `NONE`.
    /// `''` in it is one quote.
    Single,
}

/// One file, parsed.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub sections: Vec<Section>,
    /// What its `include` lines ask for, each with the place of its path.
    pub includes: Vec<(Place, String)>,
    pub problems: Vec<Problem>,
}

/// Reads `text`, the file of number `file`, to its end, whatever it holds.
pub(super) fn parse(text: &str, file: usize, bound: Bound) -> Parsed {
    let text: Arc<str> = text.strip_prefix('\u{feff}').unwrap_or(text).into();
    let mut reader = Reader {
        file,
        text: &text,
        has_nul: text.contains('\0'),
        sections: Vec::new(),
        includes: Vec::new(),
        problems: Problems::new(bound),
        said_that_no_section_is_open: false,
    };
    for (line, number) in text.split('\n').zip(1..) {
        // Files from Windows read like any other (C42).
        reader.line(number, line.strip_suffix('\r').unwrap_or(line));
    }
    if text.contains(char::REPLACEMENT_CHARACTER) {
        reader.lost_bytes();
    }
    Parsed {
        sections: reader.sections,
        includes: reader.includes,
        problems: reader.problems.into_vec(),
    }
}

struct Reader<'t> {
    file: usize,
    text: &'t Arc<str>,
    /// Looked for once, since hardly any file has one.
    has_nul: bool,
    sections: Vec<Section>,
    includes: Vec<(Place, String)>,
    problems: Problems,
    said_that_no_section_is_open: bool,
}

/// A problem of one line.
struct Fault {
    /// Byte offset in the line, between characters.
    at: usize,
    text: String,
    severity: Severity,
    help: Option<String>,
}

impl Fault {
    fn error(at: usize, text: impl Into<String>) -> Self {
        Self { at, text: text.into(), severity: Severity::Error, help: None }
    }

    fn warning(at: usize, text: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(at, text) }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl Reader<'_> {
    fn line(&mut self, number: usize, line: &str) {
        let mut cursor = Cursor { line, at: 0 };
        if cursor.next() == Some(b'i') && is_include(line) {
            match included_path(&mut cursor) {
                Ok((at, path)) => {
                    let place = self.place(number, line, at);
                    self.includes.push((place, path.to_owned()));
                }
                Err(fault) => self.report(number, line, fault),
            }
            return;
        }
        cursor.skip_blanks();
        // `[default] A=1` on one line is good LTSP.
        while cursor.next() == Some(b'[') {
            let place = self.place(number, line, cursor.at);
            let (name, fault) = section_name(&mut cursor);
            // A broken header still opens a section: what follows must not go to the one before.
            self.sections.push(Section { name, place, entries: Vec::new() });
            if let Some(fault) = fault {
                return self.report(number, line, fault);
            }
            cursor.skip_blanks();
        }
        if cursor.at_end() {
            return;
        }
        let place = self.place(number, line, cursor.at);
        match self.sections.last_mut() {
            Some(section) => {
                let mut faults = Vec::new();
                match entry(&mut cursor, self.has_nul, &mut faults) {
                    Ok((key, value, quoting)) => {
                        let [key, value] = [key, value].map(|part| Piece::of(self.text, &part));
                        section.entries.push(Entry { key, value, quoting, place });
                    }
                    Err(fault) => faults.push(fault),
                }
                for fault in faults {
                    self.report(number, line, fault);
                }
            }
            None if !self.said_that_no_section_is_open => {
                self.said_that_no_section_is_open = true;
                let fault = Fault::error(cursor.at, "nothing counts before the first [section]");
                let help = match self.file {
                    0 => "put [default] above it",
                    _ => "an included file starts without a section; put one above it",
                };
                self.report(number, line, fault.help(help));
            }
            None => {}
        }
    }

    fn place(&self, number: usize, line: &str, at: usize) -> Place {
        let before = line.get(..at).unwrap_or_default();
        let column = if at == 0 { 1 } else { before.chars().count().saturating_add(1) };
        Place { file: self.file, line: number, column }
    }

    fn report(&mut self, number: usize, line: &str, fault: Fault) {
        let Fault { at, text, severity, help } = fault;
        let place = self.place(number, line, at);
        self.problems.add_with(place, severity, || (text, help));
    }

    /// Bytes that were no text have become U+FFFD before they came here.
    fn lost_bytes(&mut self) {
        let is_lost = |line: &str| line.find(char::REPLACEMENT_CHARACTER);
        let mut lines = self.text.split('\n').zip(1..);
        let first = lines.find_map(|(line, n)| Some((line, n, is_lost(line)?)));
        if let Some((line, number, at)) = first {
            let fault = Fault::warning(at, "this is not UTF-8; such bytes are lost");
            self.report(number, line, fault.help("save the file as UTF-8"));
        }
    }
}

/// `include PATH`; `include = x` is an ordinary setting.
pub(super) fn is_include(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("include") else { return false };
    let path = rest.trim_ascii_start();
    path.len() < rest.len() && !path.is_empty() && !path.starts_with(['=', '#'])
}

/// The path of an `include` line and where it begins.
fn included_path<'a>(cursor: &mut Cursor<'a>) -> Result<(usize, &'a str), Fault> {
    cursor.skip("include".len());
    cursor.skip_blanks();
    let begin = cursor.at;
    let path = if cursor.next() == Some(b'"') {
        cursor.skip(1);
        let path = cursor.take_to('"');
        if cursor.next().is_none() {
            return Err(Fault::error(begin, "include: the quote is not closed on its line"));
        }
        cursor.skip(1);
        path
    } else {
        // Addresses have `=` in them, so this is wider than a bare value.
        cursor.take_while(|byte| !byte.is_ascii_whitespace() && byte != b'#')
    };
    cursor.skip_blanks();
    if !cursor.at_end() {
        let fault = Fault::error(cursor.at, "include: one path, and nothing after it");
        return Err(fault.help("a path with blanks needs double quotes"));
    }
    match path {
        "" => Err(Fault::error(begin, "include: the path is missing")),
        path => Ok((begin, path)),
    }
}

/// Reads `[name]`; always yields a name, as far as there is one.
fn section_name(cursor: &mut Cursor<'_>) -> (String, Option<Fault>) {
    let opening = cursor.at;
    cursor.skip(1);
    cursor.skip_blanks();
    let name = cursor.word();
    if cursor.next() == Some(b']') {
        cursor.skip(1);
        let empty = name
            .is_empty()
            .then(|| Fault::error(opening, "a section needs a name; its settings are for nobody"));
        return (name.to_owned(), empty);
    }
    (name.to_owned(), Some(Fault::error(cursor.at, "the section's \"]\" is missing here")))
}

type KeyAndValue<'a> = (Cow<'a, str>, Cow<'a, str>, Quoting);

/// Reads `NAME = VALUE` up to the end of the line. Both an entry and faults may come of it.
fn entry<'a>(
    cursor: &mut Cursor<'a>,
    has_nul: bool,
    faults: &mut Vec<Fault>,
) -> Result<KeyAndValue<'a>, Fault> {
    let start = cursor.at;
    let key = cursor.word();
    if cursor.next() != Some(b'=') {
        let fault = Fault::error(start, "neither a [section] nor NAME = VALUE");
        return Err(match is_include(cursor.line.trim_ascii_start()) {
            true => fault.help("include must stand at the very start of its line"),
            false => fault,
        });
    }
    if !is_name(key) {
        return Err(Fault::error(
            start,
            format!(
                "{key:?} cannot be the name of a setting: only letters, digits and \"_\" can be in it, and no digit first"
            ),
        ));
    }
    cursor.skip(1);
    cursor.skip_blanks();

    let begin = cursor.at;
    let not_closed = || Fault::error(begin, format!("{key}: the quote is not closed on its line"));
    let (value, quoting) = match cursor.next() {
        Some(b'"') => {
            cursor.skip(1);
            let value = double_quoted(cursor, begin, faults).ok_or_else(not_closed)?;
            (Cow::Borrowed(value), Quoting::Double)
        }
        Some(b'\'') => {
            cursor.skip(1);
            let value = single_quoted(cursor).ok_or_else(not_closed)?;
            let text =
                format!("{key}: LTSP 5 knows double quotes only, and would read nothing here");
            faults.push(Fault::warning(begin, text).help(match is_none(&value) {
                true => {
                    "in single quotes this is the word itself; write it bare to unset the setting"
                }
                false => "write it in double quotes if LTSP's clients read this file too",
            }));
            (value, Quoting::Single)
        }
        _ => {
            let value = cursor.take_while(|byte| !is_special(byte)).trim_ascii();
            if let Some(special) = cursor.next().filter(|byte| *byte != b'#') {
                let special = char::from(special);
                let text = format!("{key}: a value with {special} in it needs double quotes");
                let all = cursor.line.get(begin..).unwrap_or_default().trim_ascii_end();
                let fault = Fault::error(cursor.at, text);
                return Err(match all.contains(['"', '#', '\\', '$', '`']) {
                    true => fault,
                    false => fault.help(format!("write {key} = \"{all}\"")),
                });
            }
            if value.is_empty() {
                let fault = Fault::warning(begin, format!("{key} has no value"));
                faults.push(fault.help("write \"\" if none is meant"));
            }
            (Cow::Borrowed(value), Quoting::Bare)
        }
    };

    cursor.skip_blanks();
    if !cursor.at_end() {
        let text = match assignment(cursor.rest()) {
            Some(second) => {
                format!("{second} is not set: a second setting needs a line of its own")
            }
            None => format!("{key}: what stands after the closing quote is ignored"),
        };
        faults.push(Fault::error(cursor.at, text));
    }
    // No environment and no line of a generated file can carry it.
    if has_nul && value.contains('\0') {
        return Err(Fault::error(begin, format!("{key}: the value holds a NUL byte")));
    }
    let key = match key.bytes().any(|byte| byte.is_ascii_lowercase()) {
        true => Cow::Owned(key.to_ascii_uppercase()),
        false => Cow::Borrowed(key),
    };
    Ok((key, value, quoting))
}

/// The value that takes a setting away.
pub(super) fn is_none(value: &str) -> bool {
    value.trim_ascii().eq_ignore_ascii_case("none")
}

/// Reads up to the closing quote and past it; `None` if there is no second quote on the line.
///
/// getltscfg took everything up to the LAST quote of the line and left the rest to a shell, which
/// made `A="1" B="2"` two settings, and `A="x" # the "old" one` the end of everything. So the first
/// quote without a backslash closes when what follows makes sense after a value, and the last one
/// closes otherwise.
fn double_quoted<'a>(
    cursor: &mut Cursor<'a>,
    begin: usize,
    faults: &mut Vec<Fault>,
) -> Option<&'a str> {
    let text = cursor.rest();
    let first = first_unescaped_quote(text);
    let closing = match first.filter(|first| makes_sense_after(text, *first)) {
        Some(first) => first,
        None => {
            let last = text.rfind('"')?;
            if first.is_some_and(|first| first != last) {
                let fault = Fault::warning(begin, "quotes inside a quoted value are kept");
                faults.push(fault.help("write \\\" for them"));
            }
            last
        }
    };
    let value = text.get(..closing)?;
    cursor.skip(closing.saturating_add(1));
    Some(value)
}

/// Whether what follows the quote at `quote` can stand after a value.
fn makes_sense_after(text: &str, quote: usize) -> bool {
    let after = text.get(quote.saturating_add(1)..).unwrap_or_default().trim_ascii_start();
    after.is_empty() || after.starts_with('#') || assignment(after).is_some()
}

fn first_unescaped_quote(text: &str) -> Option<usize> {
    let mut from: usize = 0;
    loop {
        let at = from.checked_add(text.get(from..)?.find('"')?)?;
        let before = text.as_bytes().get(..at).unwrap_or_default();
        if before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 0 {
            return Some(at);
        }
        from = at.checked_add(1)?;
    }
}

/// Reads up to the closing quote and past it; `None` if there is none on the line.
fn single_quoted<'a>(cursor: &mut Cursor<'a>) -> Option<Cow<'a, str>> {
    let mut value = Cow::Borrowed("");
    loop {
        value += cursor.take_to('\'');
        cursor.next()?;
        cursor.skip(1);
        if cursor.next() != Some(b'\'') {
            return Some(value);
        }
        cursor.skip(1);
        value += "'";
    }
}

/// The name, if `text` begins with `NAME =`.
fn assignment(text: &str) -> Option<&str> {
    let name = text.split_once('=')?.0.trim_ascii_end();
    is_name(name).then_some(name)
}

/// Whether a setting can have this name, in either case.
pub(super) fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
