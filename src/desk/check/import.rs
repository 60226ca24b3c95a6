//! What a value becomes when it is read, with the way back from each of its characters to the file.
//!
//! The rules are those of `config::import`; a test compares the two. Variables are not known at a
//! desk, so each is one letter here.

use std::borrow::Cow;
use std::ops::Range;

use crate::config::Quoting;

/// What stands for a value that only a machine knows. Shells and most grammars take it for a word.
const UNKNOWN: &str = "x";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported<'v> {
    pub text: Cow<'v, str>,
    /// Where pieces of `text` begin, there and in the value; up to the next one both go on byte by
    /// byte. None, if the text is the value.
    pieces: Vec<(usize, usize)>,
    /// `$NAME`, as byte offset, length and name.
    pub variables: Vec<(usize, usize, String)>,
    /// `$1` and its like, which stay as they are: byte offset and length.
    pub odd: Vec<(usize, usize)>,
    /// Command substitutions and what else only a shell can expand: byte offset and length.
    pub commands: Vec<(usize, usize)>,
}

impl<'v> Imported<'v> {
    pub fn of(value: &'v str, quoting: Quoting) -> Self {
        let blanks = |byte: u8| byte.is_ascii_whitespace();
        let is_plain = |(byte, next): (u8, u8)| {
            !matches!(byte, b'\\' | b'$' | b'`') && (!blanks(byte) || byte == b' ' && !blanks(next))
        };
        let next = value.bytes().skip(1).chain([0]);
        if quoting == Quoting::Single || value.bytes().zip(next).all(is_plain) {
            return Self { text: Cow::Borrowed(value), ..Self::default() };
        }
        let mut imported = Self::default();
        imported.expand(value);
        imported.pieces.push((imported.text.len(), value.len()));
        imported
    }

    /// Whether the text is the whole truth, for every machine.
    pub fn is_known(&self) -> bool {
        self.variables.is_empty() && self.commands.is_empty()
    }

    /// Whether something that only a machine knows is in a piece of the text, or beside it.
    pub fn is_unknown(&self, range: &Range<usize>) -> bool {
        let (from, to) = (self.place(range.start), self.place(range.end));
        // They are in order and apart from each other, so the last one that begins soon enough tells.
        let variable = self.variables.partition_point(|(at, ..)| *at <= to).checked_sub(1);
        let variable = variable.and_then(|last| self.variables.get(last));
        let command = self.commands.partition_point(|(at, _)| *at <= to).checked_sub(1);
        let command = command.and_then(|last| self.commands.get(last)).copied();
        let mut last = variable.map(|(at, length, _)| (*at, *length)).into_iter().chain(command);
        last.any(|(at, length)| from <= at.saturating_add(length))
    }

    /// Byte offset in the value of a byte of the text.
    pub fn place(&self, at: usize) -> usize {
        let after = self.pieces.partition_point(|(start, _)| *start <= at);
        match after.checked_sub(1).and_then(|piece| self.pieces.get(piece)) {
            Some((start, value)) => value.saturating_add(at.saturating_sub(*start)),
            None => at,
        }
    }

    fn expand(&mut self, value: &str) {
        let mut at = 0;
        while let Some(rest) = value.get(at..).filter(|rest| !rest.is_empty()) {
            at = at.saturating_add(self.step(rest, at).max(1));
        }
    }

    /// Takes what `rest` begins with; gives its length.
    fn step(&mut self, rest: &str, at: usize) -> usize {
        let plain = rest.find(|c: char| c.is_ascii_whitespace() || "\\$`".contains(c));
        match plain {
            Some(0) => {}
            plain => {
                let length = plain.unwrap_or(rest.len());
                self.push(rest.get(..length).unwrap_or_default(), at);
                return length;
            }
        }
        let mut characters = rest.chars();
        let first = characters.next();
        let after = characters.as_str();
        match (first, characters.next()) {
            (Some('\\'), Some(c @ ('$' | '"' | '\\' | '`'))) => {
                self.push(c.encode_utf8(&mut [0; 4]), at);
                2
            }
            (Some('$'), Some('(')) => self.command(at, closed(rest)),
            (Some('`'), _) => {
                let end = after.find('`').map_or(rest.len(), |end| end.saturating_add(2));
                self.command(at, end)
            }
            (Some('$'), Some('{')) => match rest.find('}') {
                Some(end) => match rest.get(2..end).filter(|name| is_name(name)) {
                    Some(name) => self.variable(at, end.saturating_add(1), name),
                    None => self.command(at, end.saturating_add(1)),
                },
                None => self.command(at, rest.len()),
            },
            (Some('$'), Some(c)) if c.is_ascii_alphabetic() || c == '_' => {
                let end = after
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(after.len());
                self.variable(at, end.saturating_add(1), after.get(..end).unwrap_or_default())
            }
            (Some('$'), Some('0'..='9' | '?' | '!' | '#' | '$' | '@' | '*' | '-')) => {
                self.odd.push((at, 2));
                self.push(rest.get(..2).unwrap_or_default(), at);
                2
            }
            (Some(c), _) if c.is_ascii_whitespace() => {
                self.push(" ", at);
                rest.find(|c: char| !c.is_ascii_whitespace()).unwrap_or(rest.len())
            }
            _ => {
                self.push(rest.get(..1).unwrap_or_default(), at);
                1
            }
        }
    }

    fn variable(&mut self, at: usize, length: usize, name: &str) -> usize {
        self.variables.push((at, length, name.to_owned()));
        self.push(UNKNOWN, at);
        length
    }

    fn command(&mut self, at: usize, length: usize) -> usize {
        self.commands.push((at, length));
        self.push(UNKNOWN, at);
        length
    }

    /// Appends what stands at `at` in the value.
    fn push(&mut self, text: &str, at: usize) {
        if self.pieces.is_empty() || self.place(self.text.len()) != at {
            self.pieces.push((self.text.len(), at));
        }
        self.text.to_mut().push_str(text);
    }
}

/// The length of `$(…)`; all, if it has no end.
fn closed(text: &str) -> usize {
    let mut open: usize = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' => open = open.saturating_add(1),
            ')' if open == 1 => return at.saturating_add(1),
            ')' => open = open.saturating_sub(1),
            _ => {}
        }
    }
    text.len()
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Identity, evaluate};

    #[test]
    #[rustfmt::skip]
    fn every_character_knows_where_it_came_from() {
        let cases: &[(&str, &str, &[usize])] = &[
            ("abc",        "abc",    &[0, 1, 2, 3]),
            ("a   b",      "a b",    &[0, 1, 4, 5]),
            (r"\$x \\n",   r"$x \n", &[0, 2, 3, 4, 6, 7]), // an escape is where its backslash is
            ("é$AB-c",     "éx-c",   &[0, 1, 2, 5, 6, 7]),
            ("${AB}$(c)d", "xxd",    &[0, 5, 9, 10]),
        ];
        for (value, text, places) in cases {
            let imported = Imported::of(value, Quoting::Double);
            let got: Vec<_> = (0..=imported.text.len()).map(|at| imported.place(at)).collect();
            assert_eq!((&*imported.text, got.as_slice()), (*text, *places), "{value:?}");
        }
    }

    proptest! {
        /// The node reads values as this module says it does.
        #[test]
        fn values_are_those_of_the_node(pieces in prop::collection::vec(prop_oneof![
            "[a-z|/;é ]{1,3}",
            prop::sample::select(vec!["  ", "\\$", "\\\\", "\\`", "\\n", "$1", "$?", "$", "$V", "${V}", "\t"])
                .prop_map(str::to_owned),
        ], 0..12)) {
            let value = pieces.concat();
            prop_assume!(!value.ends_with('\\') && !value.eq_ignore_ascii_case("none"));
            let file = format!("[default]\nV=x\nA=\"{value}\"\n");
            let evaluation = evaluate(&file, &[], &Identity::default());
            let imported = Imported::of(&value, Quoting::Double);
            // A longer name than V is set nowhere, and reads as nothing.
            if imported.variables.iter().all(|(_, _, name)| name == "V") {
                prop_assert_eq!(evaluation.settings.get("A"), Some(&*imported.text));
            }
        }
    }
}
