//! Matching a device's `modalias` against the patterns that drivers declare.
//!
//! Patterns are `fnmatch(3)` globs as depmod writes them: `*`, `?`, `[...]`. `-` and `_` are the
//! same character, outside brackets, on both sides.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

/// Driver patterns, found by the text in front of their first wildcard.
///
/// A stock kernel has 20,000 patterns and a machine 60 devices; matching each with each would cost
/// PID 1 a million glob matches. Few distinct prefix lengths exist (some forty), so a device costs
/// that many hash lookups and a handful of matches.
#[derive(Clone, Debug, Default)]
pub struct Aliases {
    by_prefix: HashMap<Box<str>, Vec<Entry>>,
    prefix_lengths: BTreeSet<usize>,
    count: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    /// Place in the file; matches are reported in this order, which is modprobe's.
    place: usize,
    /// What follows the prefix.
    rest: Box<str>,
    module: Box<str>,
}

impl Aliases {
    /// `module` must already be in its normalized spelling.
    pub fn add(&mut self, pattern: &str, module: &str) {
        let pattern = underscored(pattern);
        let literal = pattern.find(['*', '?', '[', '\\']).unwrap_or(pattern.len());
        let (prefix, rest) = pattern.split_at(literal);
        self.prefix_lengths.insert(prefix.len());
        self.by_prefix.entry(prefix.into()).or_default().push(Entry {
            place: self.count,
            rest: rest.into(),
            module: module.into(),
        });
        self.count += 1;
    }

    /// Modules whose pattern matches, each once, in the order in which they were added.
    pub fn matching(&self, modalias: &str) -> Vec<&str> {
        let text = underscored(modalias);
        let mut found: Vec<&Entry> = Vec::new();
        for &length in self.prefix_lengths.range(..=text.len()) {
            // None where the length would split a character: such a prefix cannot be equal.
            let (Some(prefix), Some(rest)) = (text.get(..length), text.get(length..)) else {
                continue;
            };
            let Some(entries) = self.by_prefix.get(prefix) else { continue };
            found.extend(entries.iter().filter(|entry| glob(&entry.rest, rest)));
        }
        found.sort_by_key(|entry| entry.place);
        let mut modules: Vec<&str> = Vec::new();
        for entry in found {
            if !modules.contains(&&*entry.module) {
                modules.push(&entry.module);
            }
        }
        modules
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// `-` becomes `_`, except inside brackets, where it makes a range.
fn underscored(text: &str) -> Cow<'_, str> {
    if !text.contains('-') {
        return Cow::Borrowed(text);
    }
    let mut in_brackets = false;
    let change = |c: char| {
        match c {
            '[' => in_brackets = true,
            ']' => in_brackets = false,
            _ => {}
        }
        if c == '-' && !in_brackets { '_' } else { c }
    };
    Cow::Owned(text.chars().map(change).collect())
}

/// Whether all of `text` is described by `pattern`.
///
/// Only the last star is ever tried again, so the time is bounded by the product of both lengths.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.as_bytes(), text.as_bytes());
    // What follows the last star, and the text from which it was tried last.
    let mut again: Option<(&[u8], &[u8])> = None;
    loop {
        let step = match (pattern, text) {
            ([], []) => return true,
            ([b'*', rest @ ..], _) => {
                again = Some((rest, text));
                Some((rest, text))
            }
            (_, [c, after @ ..]) => one(pattern, *c).map(|rest| (rest, after)),
            (_, []) => None,
        };
        (pattern, text) = match (step, again) {
            (Some(step), _) => step,
            (None, Some((rest, [_, after @ ..]))) => {
                again = Some((rest, after));
                (rest, after)
            }
            (None, _) => return false,
        };
    }
}

/// Matches one character with the first element of `pattern`, and gives what follows the element.
fn one(pattern: &[u8], c: u8) -> Option<&[u8]> {
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'[', set @ ..] => bracket(set, c),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] if *literal == c => Some(rest),
        _ => None,
    }
}

/// `set` starts after the opening bracket; a set that is never closed matches nothing.
fn bracket(set: &[u8], c: u8) -> Option<&[u8]> {
    let (negated, mut set) = match set {
        [b'!' | b'^', rest @ ..] => (true, rest),
        _ => (false, set),
    };
    let mut hit = false;
    let mut first = true;
    loop {
        match set {
            // A bracket in first place is a member, as in fnmatch.
            [b']', rest @ ..] if !first => return (hit != negated).then_some(rest),
            [low, b'-', high, rest @ ..] if *high != b']' => {
                hit |= (*low..=*high).contains(&c);
                set = rest;
            }
            [member, rest @ ..] => {
                hit |= *member == c;
                set = rest;
            }
            [] => return None,
        }
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    #[rustfmt::skip]
    fn globs_are_those_of_fnmatch() {
        let cases = [
            ("pci:v00008086d0000100Esv*sd*bc*sc*i*", "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00", true),
            ("pci:v00008086d0000100Esv*sd*bc*sc*i*", "pci:v00008086d0000100Fsv00001AF4sd00001100bc02sc00i00", false),
            ("virtio:d00000001v*", "virtio:d00000001v00001AF4", true),
            ("usb:v0BDAp8152d*dc*dsc*dp*ic[0-9A-F]*", "usb:v0BDAp8152d2000dc00dsc00dp00icFFisc00", true),
            ("x[a-c]z", "xbz", true),
            ("x[a-c]z", "xdz", false),
            ("x[!a-c]z", "xdz", true),
            ("x[]]z", "x]z", true),   // a bracket in first place is a member
            ("x[a-]z", "x-z", true),  // a dash in last place is one too
            ("x[abc", "xa", false),   // never closed
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("*a*b", "xaxxaxb", true), // the first "a" is a trap
            ("*a*b", "xaxxaxbc", false),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(glob(pattern, text), expected, "{pattern} against {text}");
        }
    }

    #[test]
    fn a_device_finds_all_its_drivers_once_and_in_file_order() {
        let mut aliases = Aliases::default();
        for (pattern, module) in [
            ("pci:v00008086d*sv*sd*bc02sc00i*", "general"),
            ("pci:v00008086d00001533sv*sd*bc*sc*i*", "igb"),
            ("pci:v00008086d00001533sv*sd*bc*sc*i*", "igb"),
            ("*", "everything"),
            ("crypto-crc32c", "crc32c_generic"),
            ("crypto-crc32c", "crc32c_intel"),
            ("of:N*T*Cbrcm,bcm2711-genet-v5", "genet"),
        ] {
            aliases.add(pattern, module);
        }
        let cases: [(&str, &[&str]); 5] = [
            ("pci:v00008086d00001533sv0sd0bc02sc00i00", &["general", "igb", "everything"]),
            ("pci:v00001AF4d00001000sv0sd0bc02sc00i00", &["everything"]),
            ("crypto-crc32c", &["everything", "crc32c_generic", "crc32c_intel"]),
            ("crypto_crc32c", &["everything", "crc32c_generic", "crc32c_intel"]),
            ("of:NethernetT(null)Cbrcm,bcm2711-genet-v5", &["everything", "genet"]),
        ];
        for (modalias, expected) in cases {
            assert_eq!(aliases.matching(modalias), expected, "{modalias}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_and_no_text_can_panic(pattern in "\\PC*", text in "\\PC*") {
            let mut aliases = Aliases::default();
            aliases.add(&pattern, "m");
            aliases.matching(&text);
            glob(&pattern, &text);
        }

        #[test]
        fn a_text_without_wildcards_matches_itself(text in "[a-zA-Z0-9:_]*") {
            prop_assert!(glob(&text, &text));
        }
    }
}
