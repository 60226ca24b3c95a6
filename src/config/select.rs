//! Which sections of a file are for this machine, and in which order of strength.
//!
//! getltscfg's rules: one section by exact name (host name, else IP address, else MAC address),
//! what it names with `LIKE`, then one section by pattern for each of the three, each with its
//! `LIKE`s, then `[default]`. The strongest comes first here. A circle of `LIKE`s, which kept
//! getltscfg busy for ever, is reported and ends.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::Ipv4Addr;

use super::syntax::{Document, Entry, Place, Problem, Problems, Section, Severity};
use crate::net::Mac;

/// What sections can be named by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `None` until somebody has named the machine; the kernel's `(none)` counts as that.
    pub hostname: Option<String>,
    pub ip: Option<Ipv4Addr>,
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

/// The sections in force, strongest first.
#[derive(Clone, Debug, Default)]
pub struct Selection<'d> {
    pub sections: Vec<&'d Section>,
    /// The one that was chosen by an exact name.
    pub exact: Option<&'d Section>,
    pub problems: Vec<Problem>,
}

/// Chooses the sections of `document` for `identity`.
///
/// `also` is one more section that counts like an exact one, below it: the one whose `HOSTNAME`
/// made the host name known.
pub fn select<'d>(
    document: &'d Document,
    identity: &Identity,
    also: Option<&'d Section>,
) -> Selection<'d> {
    let index = Index::of(document);
    let names = identity.names();
    let mut chain = Chain::new(&index);

    let exact = names.iter().find_map(|name| index.find(name));
    for section in [exact, also].into_iter().flatten() {
        chain.add_with_likes(section);
    }
    for name in &names {
        let by_pattern = document.sections.iter().find(|section| {
            !section.name.eq_ignore_ascii_case(name) && matches(&section.name, name)
        });
        if let Some(section) = by_pattern {
            chain.add_with_likes(section);
        }
    }
    if let Some(default) = index.find("default") {
        chain.add_without_likes(default);
    }

    let mut problems = chain.problems;
    circles(&index, &chain.sections, &mut problems);
    Selection { sections: chain.sections, exact, problems: problems.into_vec() }
}

/// The entries that are in force, weakest section first and in file order within each; `LIKE` and
/// what `NONE` suppresses is left out.
pub fn effective<'d>(sections: &[&'d Section]) -> Vec<&'d Entry> {
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
    weakest_last
        .retain(|entry| entry.key != LIKE && !entry.value.trim().eq_ignore_ascii_case("none"));
    weakest_last
}

/// Complaints about the file as a whole, for whichever machine it is read.
pub fn review(document: &Document) -> Vec<Problem> {
    let mut first: HashMap<String, Place> = HashMap::new();
    let mut problems = Problems::default();
    for section in &document.sections {
        match first.get(&section.name.to_ascii_lowercase()) {
            Some(Place { line, .. }) => problems.add(section.place, Severity::Error, || {
                format!(
                    "[{}] is already on line {line}, and only the first of a name counts",
                    section.name
                )
            }),
            None => {
                first.insert(section.name.to_ascii_lowercase(), section.place);
            }
        }
        if section.name.eq_ignore_ascii_case("default") {
            for entry in likes(section) {
                problems.add(entry.place, Severity::Warning, || {
                    "LIKE does nothing in [default]".into()
                });
            }
        }
    }
    problems.into_vec()
}

const LIKE: &str = "LIKE";

fn likes(section: &Section) -> impl Iterator<Item = &Entry> {
    section.entries.iter().filter(|entry| entry.key == LIKE)
}

/// Sections by lower-case name; of several with one name, the first.
struct Index<'d> {
    by_name: HashMap<String, &'d Section>,
}

impl<'d> Index<'d> {
    fn of(document: &'d Document) -> Self {
        let mut by_name = HashMap::new();
        for section in &document.sections {
            by_name.entry(section.name.to_ascii_lowercase()).or_insert(section);
        }
        Self { by_name }
    }

    fn find(&self, name: &str) -> Option<&'d Section> {
        self.by_name.get(&name.trim().to_ascii_lowercase()).copied()
    }
}

/// The selection while it grows.
struct Chain<'i, 'd> {
    index: &'i Index<'d>,
    sections: Vec<&'d Section>,
    taken: HashSet<*const Section>,
    problems: Problems,
}

impl<'i, 'd> Chain<'i, 'd> {
    fn new(index: &'i Index<'d>) -> Self {
        Self { index, sections: Vec::new(), taken: HashSet::new(), problems: Problems::default() }
    }

    /// Whether it is new.
    fn add_without_likes(&mut self, section: &'d Section) -> bool {
        let new = self.taken.insert(key(section));
        if new {
            self.sections.push(section);
        }
        new
    }

    /// Breadth first: a section, all it names, then all that those name.
    fn add_with_likes(&mut self, section: &'d Section) {
        let mut waiting = VecDeque::from([section]);
        while let Some(section) = waiting.pop_front() {
            if !self.add_without_likes(section) || section.name.eq_ignore_ascii_case("default") {
                continue;
            }
            for like in likes(section) {
                match self.index.find(&like.value) {
                    Some(target) => waiting.push_back(target),
                    None => {
                        self.problems.add(like.place, Severity::Warning, || {
                            format!("LIKE: there is no section [{}]", like.value)
                        });
                    }
                }
            }
        }
    }
}

/// Sections are told apart by where they are: two may have one name, or begin on one line.
fn key(section: &Section) -> *const Section {
    section
}

/// Reports every `LIKE` that leads back to a section it came from.
fn circles<'d>(index: &Index<'d>, sections: &[&'d Section], problems: &mut Problems) {
    let mut done = HashSet::new();
    for start in sections {
        // A depth-first walk with its own stack: the file decides how deep it goes.
        let mut path = vec![(*start, likes(start))];
        let mut on_path = HashSet::from([key(start)]);
        if done.contains(&key(start)) {
            continue;
        }
        while let Some((section, rest)) = path.last_mut() {
            let section = *section;
            let Some(like) = rest.next() else {
                on_path.remove(&key(section));
                done.insert(key(section));
                path.pop();
                continue;
            };
            let Some(target) = index.find(&like.value) else { continue };
            if on_path.contains(&key(target)) {
                problems.add(like.place, Severity::Warning, || {
                    format!(
                        "LIKE: [{}] leads back to itself through [{}]",
                        target.name, section.name
                    )
                });
            } else if !done.contains(&key(target)) && !target.name.eq_ignore_ascii_case("default") {
                on_path.insert(key(target));
                path.push((target, likes(target)));
            }
        }
    }
}

/// fnmatch(3) without regard to case: `*`, `?`, `[abc]`, `[a-f]`, `[!a]` and `\` before any of them.
fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.to_lowercase().chars().collect();
    let text: Vec<char> = text.to_lowercase().chars().collect();
    let (mut pattern, mut text) = (pattern.as_slice(), text.as_slice());
    // Where to go on when the last star has to swallow one character more.
    let mut retry: Option<(&[char], &[char])> = None;
    loop {
        if let ['*', after @ ..] = pattern {
            retry = Some((after, text));
            pattern = after;
            continue;
        }
        if pattern.is_empty() && text.is_empty() {
            return true;
        }
        if let [character, rest_of_text @ ..] = text
            && let Some(rest_of_pattern) = match_one(pattern, *character)
        {
            (pattern, text) = (rest_of_pattern, rest_of_text);
            continue;
        }
        match retry {
            Some((after, [_, shorter @ ..])) => {
                retry = Some((after, shorter));
                (pattern, text) = (after, shorter);
            }
            _ => return false,
        }
    }
}

/// What is left of `pattern` if its first element takes `character`.
fn match_one(pattern: &[char], character: char) -> Option<&[char]> {
    match pattern {
        ['?', rest @ ..] => Some(rest),
        ['\\', literal, rest @ ..] => (*literal == character).then_some(rest),
        ['[', inside @ ..] if inside.iter().skip(1).any(|c| *c == ']') => {
            let (inside, negated) = match inside {
                ['!' | '^', inside @ ..] => (inside, true),
                inside => (inside, false),
            };
            // A bracket right at the front is one of the characters.
            let length = inside.iter().skip(1).position(|c| *c == ']')?.checked_add(1)?;
            let (class, rest) = inside.split_at_checked(length)?;
            (in_class(class, character) != negated).then_some(rest.get(1..)?)
        }
        [literal, rest @ ..] => (*literal == character).then_some(rest),
        [] => None,
    }
}

fn in_class(mut class: &[char], character: char) -> bool {
    loop {
        class = match class {
            [from, '-', to, rest @ ..] => {
                if (*from..=*to).contains(&character) {
                    return true;
                }
                rest
            }
            [one, rest @ ..] => {
                if *one == character {
                    return true;
                }
                rest
            }
            [] => return false,
        };
    }
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
