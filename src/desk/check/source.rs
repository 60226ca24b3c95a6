//! The text under check: its lines, and where in them things stand.

use std::ops::Range;

use super::finding::{Findings, Span};
use crate::config::{Entry, Place, Quoting, Reading, Severity, Text, nearest};

const MARK: char = '\u{feff}';

pub struct Source {
    pub reading: Reading,
    /// Of each file, where its lines are.
    lines: Vec<Vec<Range<usize>>>,
}

impl Source {
    pub fn of(reading: Reading) -> Self {
        let lines = reading.files.iter().map(|file| line_ranges(&file.text)).collect();
        Self { reading, lines }
    }

    /// For a file that could not be read.
    pub fn of_nothing(name: &str) -> Self {
        let mut reading = Reading::of_text("");
        for file in &mut reading.files {
            name.clone_into(&mut file.name);
        }
        Self::of(reading)
    }

    pub fn file_name(&self, file: usize) -> &str {
        self.reading.files.get(file).map(|file| file.name.as_str()).unwrap_or_default()
    }

    /// Without its end; empty if there is no such line.
    pub fn line(&self, file: usize, number: usize) -> &str {
        let range = number.checked_sub(1).and_then(|at| self.lines.get(file)?.get(at)).cloned();
        let text = self.reading.files.get(file).map(|file| file.text.as_str()).unwrap_or_default();
        range.and_then(|range| text.get(range)).unwrap_or_default()
    }

    /// A span of `length` bytes at `place`.
    pub fn span(&self, place: Place, length: usize) -> Span {
        let at = byte_of_column(self.line(place.file, place.line), place.column);
        Span { file: place.file, line: place.line, at, length }
    }

    /// The key of an entry.
    pub fn key_span(&self, entry: &Entry) -> Span {
        let quote = usize::from(self.rest_of(entry.place).starts_with('"'));
        self.span(entry.place, entry.key.len().saturating_add(quote.saturating_mul(2)))
    }

    /// Where an entry's value is, between its quotes. `None` if it is not in the line as it is.
    pub fn value_span(&self, entry: &Entry) -> Option<Span> {
        let rest = self.rest_of(entry.place);
        // The name of a setting holds neither a quote nor `=`, but may be quoted itself.
        let equals = rest.find('=')?;
        let value = rest.get(equals.checked_add(1)?..)?.trim_start();
        let value = match entry.quoting {
            Quoting::Bare => value,
            Quoting::Double => value.strip_prefix('"')?,
            Quoting::Single => value.strip_prefix('\'')?,
        };
        value.starts_with(entry.value.as_str()).then_some(())?;
        let at = self.line(entry.place.file, entry.place.line).len().checked_sub(value.len())?;
        let Place { file, line, .. } = entry.place;
        Some(Span { file, line, at, length: entry.value.len() })
    }

    /// The name of the section whose header is at `place`, or the whole header.
    pub fn section_span(&self, place: Place, name: &str) -> Span {
        let line = self.line(place.file, place.line);
        let from = byte_of_column(line, place.column);
        let rest = line.get(from..).unwrap_or_default();
        let header = rest.find('[').unwrap_or(0);
        let found =
            rest.get(header..).and_then(|text| text.find(name)).filter(|_| !name.is_empty());
        let at = from.saturating_add(header).saturating_add(found.unwrap_or(0));
        Span { file: place.file, line: place.line, at, length: name.len().max(1) }
    }

    /// 1-based, in characters.
    pub fn column(&self, span: Span) -> usize {
        let line = self.line(span.file, span.line);
        line.get(..span.at).unwrap_or(line).chars().count().saturating_add(1)
    }

    /// What the parser says, at a desk with some more help than on a console.
    pub fn report_problems(&self, findings: &mut Findings) {
        for problem in &self.reading.problems {
            let rest = self.rest_of(problem.place);
            let help = problem.help.clone().or_else(|| {
                let key = rest.split('=').next()?.trim().to_ascii_uppercase();
                let meant = (key.contains('-') && problem.severity == Severity::Error)
                    .then(|| nearest(&key))??;
                Some(format!("did you mean {meant}?"))
            });
            let word = rest.split([' ', '\t', '=', '\r']).next().unwrap_or(rest);
            let span = self.span(problem.place, word.len().max(1));
            findings.add(span, problem.severity, problem.text.clone(), help);
        }
    }

    /// What a node takes without a word although LTSP 5 did not: marks and ends of lines.
    pub fn report_ends_of_lines(&self, findings: &mut Findings) {
        for (file, Text { text, .. }) in self.reading.files.iter().enumerate() {
            if text.starts_with(MARK) {
                let span = Span { file, line: 1, at: 0, length: 0 };
                let help = "save it as UTF-8 without BOM; LTSP 5 would read nothing of it";
                findings.warn(span, "the file begins with a byte order mark", Some(help));
            }
            let lines = text.split('\n').zip(1..);
            let Some(line) =
                lines.into_iter().find_map(|(text, line)| text.ends_with('\r').then_some(line))
            else {
                continue;
            };
            let at = self.line(file, line).len();
            let count = text.matches("\r\n").count().max(1);
            let plural = if count == 1 { "line ends" } else { "lines end" };
            let text = format!("{count} {plural} with CR LF, from this one on");
            let help = "dos2unix cures it; LTSP 5 would read nothing of it";
            findings.warn(Span { file, line, at, length: 0 }, text, Some(help));
        }
    }

    fn rest_of(&self, place: Place) -> &str {
        let line = self.line(place.file, place.line);
        line.get(byte_of_column(line, place.column)..).unwrap_or_default()
    }
}

/// Where the lines of a text are, without their ends, and the first without a byte order mark.
fn line_ranges(text: &str) -> Vec<Range<usize>> {
    let unmarked = text.strip_prefix(MARK).unwrap_or(text);
    let mut start = text.len().saturating_sub(unmarked.len());
    let mut ranges = Vec::new();
    for line in unmarked.split('\n') {
        let end = line.len().saturating_add(start);
        let length = line.strip_suffix('\r').unwrap_or(line).len();
        ranges.push(start..length.saturating_add(start));
        start = end.saturating_add(1);
    }
    ranges
}

/// The byte offset of a 1-based column of characters.
fn byte_of_column(line: &str, column: usize) -> usize {
    let skipped = column.saturating_sub(1);
    line.char_indices().nth(skipped).map_or(line.len(), |(at, _)| at)
}
