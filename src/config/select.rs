//! Which sections of a file are for this machine, and in which order of strength.
//!
//! getltscfg's rules: one section by exact name (host name, else IP address, else MAC address),
//! what it names with `LIKE`, then one section by pattern for each of the three, each with its
//! `LIKE`s, then `[default]`. The strongest comes first here. A circle of `LIKE`s, which kept
//! getltscfg busy for ever, is reported and ends.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;

use super::Text;
use super::problem::{Bound, Problem, Problems, Severity};
use super::syntax::{Document, Entry, Quoting, Section, is_none};
use crate::net::Mac;

/// What sections can be named by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `None` until somebody has named the machine; the kernel's `(none)` counts as that.
    pub hostname: Option<String>,
    pub ip: Option<IpAddr>,
    pub mac: Option<Mac>,
}

impl Identity {
    /// Host name, IP address, MAC address, as far as known.
    fn names(&self) -> Vec<String> {
        let hostname = self.hostname.clone().filter(|name| !name.is_empty() && name != "(none)");
        let ip = self.ip.map(|ip| ip.to_string());
        let mac = self.mac.map(|mac| mac.to_string());
        [hostname, ip, mac].into_iter().flatten().collect()
    }
}

/// A document with what makes choosing quick: made once for all machines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Indexed<'d> {
    pub document: &'d Document,
    pub index: &'d Index,
    pub bound: Bound,
}

/// The sections in force, strongest first.
#[derive(Debug, Default)]
pub(super) struct Selection<'d> {
    pub sections: Vec<&'d Section>,
    /// The one that was chosen by an exact name: its number in the document.
    pub exact: Option<usize>,
    pub problems: Vec<Problem>,
}

/// Chooses the sections for `identity`.
///
/// `also` is one more section that counts like an exact one, below it: the one whose `HOSTNAME`
/// made the host name known.
pub(super) fn select<'d>(
    from: Indexed<'d>,
    identity: &Identity,
    also: Option<usize>,
) -> Selection<'d> {
    let names = identity.names();
    let mut chain = Chain::new(from);

    let exact = names.iter().find_map(|name| from.index.find(name));
    for section in [exact, also].into_iter().flatten() {
        chain.add_with_likes(section);
    }
    for name in &names {
        let by_pattern = from.index.patterns.iter().find(|section| {
            let pattern = from.name(**section);
            !pattern.eq_ignore_ascii_case(name) && matches(pattern, name)
        });
        if let Some(section) = by_pattern {
            chain.add_with_likes(*section);
        }
    }
    if let Some(default) = from.index.find("default") {
        chain.add_without_likes(default);
    }

    let Chain { sections, mut problems, .. } = chain;
    circles(from, &sections, &mut problems);
    let sections = sections.into_iter().filter_map(|number| from.section(number)).collect();
    Selection { sections, exact, problems: problems.into_vec() }
}

/// The entries that are in force, weakest section first and in file order within each; `LIKE` and
/// what `NONE` suppresses is left out.
pub(super) fn effective<'d>(sections: &[&'d Section]) -> Vec<&'d Entry> {
    let mut decided = HashSet::new();
    let mut weakest_last = Vec::new();
    for section in sections {
        // Backwards, since the last of several settings of one name counts.
        for entry in section.entries.iter().rev() {
            if decided.insert(entry.key.as_str()) {
                weakest_last.push(entry);
            }
        }
    }
    weakest_last.reverse();
    weakest_last.retain(|entry| {
        entry.key != LIKE && (entry.quoting == Quoting::Single || !is_none(&entry.value))
    });
    weakest_last
}

const LIKE: &str = "LIKE";

fn likes(section: &Section) -> impl Iterator<Item = &Entry> {
    section.entries.iter().filter(|entry| entry.key == LIKE)
}

/// Where sections are, by their numbers in the document.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// By lower-case name; of several with one name, the first.
    by_name: HashMap<String, usize>,
    /// Those whose names can match what they do not spell, in order.
    patterns: Vec<usize>,
}

impl Index {
    /// Also gives the complaints about the document as a whole, for whichever machine it is read;
    /// `files` are for the names in them.
    pub fn of(document: &Document, files: &[Text], bound: Bound) -> (Self, Vec<Problem>) {
        let mut index = Self::default();
        index.by_name.reserve(document.sections.len());
        let mut problems = Problems::new(bound);
        for (number, section) in document.sections.iter().enumerate() {
            if section.name.bytes().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\')) {
                index.patterns.push(number);
            }
            let first = *index.by_name.entry(section.name.to_ascii_lowercase()).or_insert(number);
            if first != number
                && let Some(first) = document.sections.get(first)
            {
                problems.add_with(section.place, Severity::Error, || double(section, first, files));
            }
            if section.name.eq_ignore_ascii_case("default") {
                for entry in likes(section) {
                    problems.add(entry.place, Severity::Warning, || {
                        "LIKE does nothing in [default]".into()
                    });
                }
            }
        }
        (index, problems.into_vec())
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(&name.trim_ascii().to_ascii_lowercase()).copied()
    }
}

/// What is said of a section whose name another one had before.
fn double(section: &Section, first: &Section, files: &[Text]) -> (String, Option<String>) {
    let mut at = format!("line {}", first.place.line);
    if first.place.file != section.place.file
        && let Some(file) = files.get(first.place.file)
    {
        at = format!("{at} of {}", file.name);
    }
    let text =
        format!("[{}] is already on {at}, and only the first of a name counts", section.name);
    (text, Some("put these settings there".to_owned()))
}

impl<'d> Indexed<'d> {
    fn section(&self, number: usize) -> Option<&'d Section> {
        self.document.sections.get(number)
    }

    fn name(&self, number: usize) -> &'d str {
        self.section(number).map(|section| section.name.as_str()).unwrap_or_default()
    }

    fn is_default(&self, number: usize) -> bool {
        self.name(number).eq_ignore_ascii_case("default")
    }

    fn likes(&self, number: usize) -> impl Iterator<Item = &'d Entry> + use<'d> {
        self.section(number).into_iter().flat_map(likes)
    }
}

/// The selection while it grows.
struct Chain<'d> {
    from: Indexed<'d>,
    sections: Vec<usize>,
    taken: HashSet<usize>,
    problems: Problems,
}

impl<'d> Chain<'d> {
    fn new(from: Indexed<'d>) -> Self {
        let problems = Problems::new(from.bound);
        Self { from, sections: Vec::new(), taken: HashSet::new(), problems }
    }

    /// Whether it is new.
    fn add_without_likes(&mut self, section: usize) -> bool {
        let new = self.taken.insert(section);
        if new {
            self.sections.push(section);
        }
        new
    }

    /// Breadth first: a section, all it names, then all that those name.
    fn add_with_likes(&mut self, section: usize) {
        let mut waiting = VecDeque::from([section]);
        while let Some(section) = waiting.pop_front() {
            if !self.add_without_likes(section) || self.from.is_default(section) {
                continue;
            }
            for like in self.from.likes(section) {
                match self.from.index.find(&like.value) {
                    Some(target) => waiting.push_back(target),
                    None => self.problems.add_with(like.place, Severity::Warning, || {
                        let text = format!("LIKE: there is no section [{}]", like.value);
                        let list = like.value.split_ascii_whitespace().count() > 1;
                        let help = "LIKE names one section; write a line of its own for each";
                        (text, list.then(|| help.to_owned()))
                    }),
                }
            }
        }
    }
}

/// Reports every `LIKE` that leads back to a section it came from.
fn circles(from: Indexed<'_>, sections: &[usize], problems: &mut Problems) {
    let mut done = HashSet::new();
    for start in sections {
        if done.contains(start) {
            continue;
        }
        // A depth-first walk with its own stack: the file decides how deep it goes.
        let mut path = vec![(*start, from.likes(*start))];
        let mut on_path = HashSet::from([*start]);
        while let Some((section, rest)) = path.last_mut() {
            let section = *section;
            let Some(like) = rest.next() else {
                on_path.remove(&section);
                done.insert(section);
                path.pop();
                continue;
            };
            let Some(target) = from.index.find(&like.value) else { continue };
            if on_path.contains(&target) {
                problems.add(like.place, Severity::Warning, || {
                    let (target, section) = (from.name(target), from.name(section));
                    format!("LIKE: [{target}] leads back to itself through [{section}]")
                });
            } else if !done.contains(&target) && !from.is_default(target) {
                on_path.insert(target);
                path.push((target, from.likes(target)));
            }
        }
    }
}

/// fnmatch(3) without regard to ASCII case: `*`, `?`, `[abc]`, `[a-f]`, `[!a]` and `\` before any
/// of them.
fn matches(mut pattern: &str, mut text: &str) -> bool {
    // Where to go on when the last star has to swallow one character more.
    let mut retry: Option<(&str, &str)> = None;
    loop {
        if let Some(after) = pattern.strip_prefix('*') {
            retry = Some((after, text));
            pattern = after;
            continue;
        }
        let mut characters = text.chars();
        let next = characters.next();
        if pattern.is_empty() && next.is_none() {
            return true;
        }
        if let Some(character) = next
            && let Some(rest) = match_one(pattern, character.to_ascii_lowercase())
        {
            (pattern, text) = (rest, characters.as_str());
            continue;
        }
        let Some((after, longer)) = retry else { return false };
        let mut shorter = longer.chars();
        if shorter.next().is_none() {
            return false;
        }
        retry = Some((after, shorter.as_str()));
        (pattern, text) = (after, shorter.as_str());
    }
}

/// What is left of `pattern` if its first element takes `character`, which is in lower case.
fn match_one(pattern: &str, character: char) -> Option<&str> {
    let mut characters = pattern.chars();
    let first = characters.next()?;
    let rest = characters.as_str();
    match first {
        '?' => return Some(rest),
        '\\' => {
            if let Some(literal) = characters.next() {
                return same(literal, character).then_some(characters.as_str());
            }
        }
        '[' => {
            let negated = rest.starts_with(['!', '^']);
            let inside = if negated { rest.get(1..)? } else { rest };
            // A bracket right at the front is one of the characters.
            if let Some(end) = inside.char_indices().skip(1).find(|(_, c)| *c == ']') {
                let (class, rest) = inside.split_at_checked(end.0)?;
                return (in_class(class, character) != negated).then_some(rest.get(1..)?);
            }
        }
        _ => {}
    }
    same(first, character).then_some(rest)
}

fn same(a: char, lower: char) -> bool {
    a.to_ascii_lowercase() == lower
}

fn in_class(class: &str, character: char) -> bool {
    let mut characters = class.chars();
    while let Some(from) = characters.next().map(|c| c.to_ascii_lowercase()) {
        let mut after = characters.clone();
        let (from, to) = match (after.next(), after.next()) {
            (Some('-'), Some(to)) => {
                characters = after;
                (from, to.to_ascii_lowercase())
            }
            _ => (from, from),
        };
        if (from..=to).contains(&character) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    #[rustfmt::skip]
    fn patterns_match_like_fnmatch() {
        let cases = [
            ("node*",      "node1",  true),
            ("NODE?",      "node1",  true),
            ("node?",      "node",   false),
            ("*",          "",       true),
            ("*1*2",       "x1y12",  true),
            ("52:54:*",    "52:54:00:aa:bb:cc", true),
            ("10.0.*.5",   "10.0.0.5", true),
            ("10.0.*.5",   "10.0.0.55", false),
            ("n[0-9]",     "n7",     true),
            ("n[!0-9]",    "n7",     false),
            ("n[]x]",      "n]",     true),
            ("n[",         "n[",     true),
            (r"n\*",       "n*",     true),
            (r"n\*",       "nn",     false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern, text), expected, "[{pattern}] against {text:?}");
        }
    }

    proptest! {
        #[test]
        fn matching_ends(pattern in "[*?a\\[\\]!\\\\-]{0,24}", text in "[ab\\]]{0,24}") {
            matches(&pattern, &text);
        }

        #[test]
        fn a_star_before_and_after_finds_any_part(before in "[ab]{0,6}", part in "[ab]{0,6}", after in "[ab]{0,6}") {
            let pattern = format!("*{part}*");
            let text = format!("{before}{part}{after}");
            prop_assert!(matches(&pattern, &text));
        }
    }
}
