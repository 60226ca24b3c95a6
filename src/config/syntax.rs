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

use std::fmt;

/// A parsed file. Sections are in file order, doubles included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    pub sections: Vec<Section>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Without brackets and blanks around it, as typed.
    pub name: String,
    pub place: Place,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Upper case; letters, digits and `_`, no digit first.
    pub key: String,
    pub value: String,
    pub quoting: Quoting,
    /// Of the key.
    pub place: Place,
}

/// Where something stands in the files of a configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Index into [`super::Reading::files`]; 0 is the file itself, the others are included.
    pub file: usize,
    /// 1-based.
    pub line: usize,
    /// 1-based, in characters.
    pub column: usize,
}

/// How a value was written; single quotes keep `$` and `\` from being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quoting {
    Bare,
    Double,
    Single,
}

/// Something in the file that a person should mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    pub text: String,
    pub severity: Severity,
    /// What to do about it, where the text does not say so already.
    pub help: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It has been understood, but probably not as it was meant.
    Warning,
    /// What this line says is not in force.
    Error,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, column, .. } = self.place;
        write!(f, "line {line}, column {column}: {}", self.text)
    }
}

/// A file with more is not an lts.conf but something else at its address (an image, a web page).
const MOST_PROBLEMS: usize = 50;

/// What one look at a file finds, up to [`MOST_PROBLEMS`]: it is the file that decides how much
/// there is, and its problems are remembered by PID 1.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    /// `text` is made only if there is room: it may quote long names.
    pub fn add(&mut self, place: Place, severity: Severity, text: impl FnOnce() -> String) {
        match self.0.len() {
            ..MOST_PROBLEMS => {
                self.0.push(Problem { place, text: text(), severity, help: None });
            }
            MOST_PROBLEMS => self.0.push(Problem {
                place,
                text: "and more after this; is it an lts.conf at all?".into(),
                severity: Severity::Error,
                help: None,
            }),
            _ => {}
        }
    }

    pub fn into_vec(self) -> Vec<Problem> {
        self.0
    }
}

/// Reads `text` to its end, whatever it holds.
pub fn parse(text: &str) -> (Document, Vec<Problem>) {
    let mut reader = Reader::default();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (line, number) in text.split('\n').zip(1..) {
        reader.line(number, line);
    }
    (reader.document, reader.problems.into_vec())
}

#[derive(Default)]
struct Reader {
    document: Document,
    problems: Problems,
    said_that_no_section_is_open: bool,
}

/// A problem whose line is not known yet.
struct Fault {
    column: usize,
    text: String,
    severity: Severity,
}

impl Reader {
    fn line(&mut self, number: usize, line: &str) {
        let mut cursor = Cursor::new(line);
        if is_include(line) {
            let text = "include is not supported; put everything into one file";
            self.report(number, Fault { column: 1, text: text.into(), severity: Severity::Error });
            return;
        }
        // `[default] A=1` on one line is good LTSP.
        while cursor.at_bracket() {
            let (name, fault) = section_name(&mut cursor);
            // A broken header still opens a section: what follows must not go to the one before.
            let place = Place { file: 0, line: number, column: 1 };
            self.document.sections.push(Section { name, place, entries: Vec::new() });
            if let Some(fault) = fault {
                return self.report(number, fault);
            }
        }
        if cursor.at_end() {
            return;
        }
        let column = cursor.column();
        match self.document.sections.last_mut() {
            Some(section) => {
                let (entry, faults) = entry(&mut cursor);
                if let Some((key, value, quoting)) = entry {
                    let place = Place { file: 0, line: number, column };
                    section.entries.push(Entry { key, value, quoting, place });
                }
                for fault in faults {
                    self.report(number, fault);
                }
            }
            None if !self.said_that_no_section_is_open => {
                self.said_that_no_section_is_open = true;
                let text = "nothing counts before the first [section]; put [default] above it";
                self.report(number, Fault { column, text: text.into(), severity: Severity::Error });
            }
            None => {}
        }
    }

    fn report(&mut self, line: usize, fault: Fault) {
        let Fault { column, text, severity } = fault;
        self.problems.add(Place { file: 0, line, column }, severity, || text);
    }
}

/// `include PATH`; `include = x` is an ordinary setting.
fn is_include(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("include") else { return false };
    rest.starts_with([' ', '\t']) && !rest.trim_start().starts_with(['=', '#']) && {
        !rest.trim().is_empty()
    }
}

/// Reads `[name]`; always yields a name, as far as there is one.
fn section_name(cursor: &mut Cursor<'_>) -> (String, Option<Fault>) {
    let opening = cursor.column();
    cursor.skip(1);
    cursor.skip_blanks();
    let name = if cursor.rest().starts_with('"') {
        cursor.skip(1);
        let name = cursor.take_until(|c| c == '"');
        cursor.skip(1);
        cursor.skip_blanks();
        name
    } else {
        cursor.take_until(|c| SPECIAL.contains(&c)).trim()
    };
    if cursor.rest().starts_with(']') {
        cursor.skip(1);
        let empty = name.is_empty().then(|| Fault {
            column: opening,
            text: "a section needs a name; its settings are for nobody".into(),
            severity: Severity::Error,
        });
        return (name.to_owned(), empty);
    }
    let fault = Fault {
        column: cursor.column(),
        text: "the section's \"]\" is missing here".into(),
        severity: Severity::Error,
    };
    (name.to_owned(), Some(fault))
}

type KeyAndValue = (String, String, Quoting);

/// Reads `NAME = VALUE` up to the end of the line. Both an entry and faults may come of it.
fn entry(cursor: &mut Cursor<'_>) -> (Option<KeyAndValue>, Vec<Fault>) {
    let start = cursor.column();
    let broken =
        |column, text: String| (None, vec![Fault { column, text, severity: Severity::Error }]);

    let key = if cursor.rest().starts_with('"') {
        cursor.skip(1);
        let key = cursor.take_until(|c| c == '"');
        cursor.skip(1);
        cursor.skip_blanks();
        key
    } else {
        cursor.take_until(|c| SPECIAL.contains(&c)).trim()
    };
    if !cursor.rest().starts_with('=') {
        let text = "neither a [section] nor NAME = VALUE".to_owned();
        return broken(start, text);
    }
    if !is_name(key) {
        let text = format!(
            "{key:?} cannot be the name of a setting: only letters, digits and \"_\" can be in it"
        );
        return broken(start, text);
    }
    cursor.skip(1);
    cursor.skip_blanks();

    let mut faults = Vec::new();
    let value_column = cursor.column();
    let (value, quoting) = match cursor.rest().chars().next() {
        Some('"') => {
            cursor.skip(1);
            let Some(value) = double_quoted(cursor, value_column, &mut faults) else {
                return broken(value_column, format!("{key}: the quote is not closed on its line"));
            };
            (value, Quoting::Double)
        }
        Some('\'') => {
            cursor.skip(1);
            let value = cursor.take_until(|c| c == '\'');
            if !cursor.rest().starts_with('\'') {
                return broken(value_column, format!("{key}: the quote is not closed on its line"));
            }
            cursor.skip(1);
            faults.push(Fault {
                column: value_column,
                text: format!(
                    "{key}: LTSP 5 knows double quotes only, and would read nothing here"
                ),
                severity: Severity::Warning,
            });
            (value, Quoting::Single)
        }
        _ => {
            let value = cursor.take_until(|c| SPECIAL.contains(&c)).trim();
            if let Some(special) = cursor.rest().chars().next().filter(|c| *c != '#') {
                let text = format!("{key}: a value with {special} in it needs double quotes");
                return broken(cursor.column(), text);
            }
            if value.is_empty() {
                faults.push(Fault {
                    column: value_column,
                    text: format!("{key} has no value; write \"\" if none is meant"),
                    severity: Severity::Warning,
                });
            }
            (value, Quoting::Bare)
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
        faults.push(Fault { column: cursor.column(), text, severity: Severity::Error });
    }
    // No environment and no line of a generated file can carry it.
    if value.contains('\0') {
        return broken(value_column, format!("{key}: the value holds a NUL byte"));
    }
    (Some((key.to_ascii_uppercase(), value.to_owned(), quoting)), faults)
}

/// Reads up to the closing quote and past it; `None` if there is no second quote on the line.
///
/// getltscfg took everything up to the LAST quote of the line and left the rest to a shell, which
/// made `A="1" B="2"` two settings, and `A="x" # the "old" one` the end of everything. So the first
/// quote without a backslash closes when what follows makes sense after a value, and the last one
/// closes otherwise.
fn double_quoted<'a>(
    cursor: &mut Cursor<'a>,
    column: usize,
    faults: &mut Vec<Fault>,
) -> Option<&'a str> {
    let text = cursor.rest();
    let last = text.rfind('"')?;
    let first = first_unescaped_quote(text).unwrap_or(last);
    let after = text.get(first.saturating_add(1)..).unwrap_or_default().trim_start();
    let closing = if after.is_empty()
        || after.starts_with('#')
        || first == last
        || assignment(after).is_some()
    {
        first
    } else {
        faults.push(Fault {
            column,
            text: "quotes inside a quoted value are kept; write \\\" for them".into(),
            severity: Severity::Warning,
        });
        last
    };
    let value = text.get(..closing)?;
    cursor.skip(closing.saturating_add(1));
    Some(value)
}

fn first_unescaped_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let quote = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        quote
    })
}

/// The name, if `text` begins with `NAME =`.
fn assignment(text: &str) -> Option<&str> {
    let name = text.split_once('=')?.0.trim_end();
    is_name(name).then_some(name)
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// What ends a bare word (getltscfg's lexer).
const SPECIAL: [char; 6] = ['=', '[', ']', '"', '\'', '#'];

/// A place in one line.
struct Cursor<'a> {
    line: &'a str,
    /// Byte offset, always between characters.
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(line: &'a str) -> Self {
        let mut cursor = Self { line, at: 0 };
        cursor.skip_blanks();
        cursor
    }

    fn rest(&self) -> &'a str {
        self.line.get(self.at..).unwrap_or_default()
    }

    /// Past `bytes` of ASCII.
    fn skip(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes).min(self.line.len());
    }

    /// Carriage returns are blanks here, so files from Windows read like any other (C42).
    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.skip(rest.len() - rest.trim_start().len());
    }

    fn take_until(&mut self, end: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let taken = rest.split(end).next().unwrap_or(rest);
        self.skip(taken.len());
        taken
    }

    fn at_bracket(&mut self) -> bool {
        self.skip_blanks();
        self.rest().starts_with('[')
    }

    fn at_end(&self) -> bool {
        self.rest().is_empty() || self.rest().starts_with('#')
    }

    fn column(&self) -> usize {
        self.line.get(..self.at).unwrap_or_default().chars().count().saturating_add(1)
    }
}
