//! Sections that no machine can be in, doubles, and `LIKE`s that lead nowhere or in a circle.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use super::finding::Findings;
use super::source::Source;
use crate::cmdline::distance;
use crate::config::{Document, Entry, Section, Severity, nearest};
use crate::net::Mac;

const LIKE: &str = "LIKE";

/// Sections by lower-case name; of several with one name, the first, as on a node.
pub struct Index<'d> {
    document: &'d Document,
    by_name: HashMap<String, usize>,
}

impl<'d> Index<'d> {
    pub fn of(document: &'d Document) -> Self {
        let mut by_name = HashMap::new();
        for (at, section) in document.sections.iter().enumerate() {
            by_name.entry(section.name.to_ascii_lowercase()).or_insert(at);
        }
        Self { document, by_name }
    }

    pub fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(&name.trim().to_ascii_lowercase()).copied()
    }

    /// Those that other sections name with LIKE; `[default]` is in force everywhere anyway.
    pub fn named(&self) -> HashSet<usize> {
        let sections = self.document.sections.iter().filter(|section| !is_default(section));
        let targets = sections.flat_map(likes).filter_map(|like| self.find(&like.value));
        targets.filter(|at| !self.section(*at).is_some_and(is_default)).collect()
    }

    pub fn has_likes(&self, at: usize) -> bool {
        self.section(at).is_some_and(|section| likes(section).next().is_some())
    }

    pub fn len(&self) -> usize {
        self.document.sections.len()
    }

    pub fn section(&self, at: usize) -> Option<&'d Section> {
        self.document.sections.get(at)
    }

    /// A section, what it names with LIKE, and `[default]`, strongest first: what is in force on a
    /// machine that is in this section and in no other.
    pub fn chain(&self, start: usize) -> Vec<usize> {
        let mut chain = vec![start];
        let mut next = 0;
        while let Some(at) = chain.get(next).copied() {
            next = next.saturating_add(1);
            let Some(section) = self.section(at).filter(|section| !is_default(section)) else {
                continue;
            };
            for target in likes(section).filter_map(|like| self.find(&like.value)) {
                if !chain.contains(&target) {
                    chain.push(target);
                }
            }
        }
        if let Some(default) = self.find("default").filter(|default| !chain.contains(default)) {
            chain.push(default);
        }
        chain
    }
}

pub fn check(source: &Source, findings: &mut Findings) {
    let document = &source.reading.document;
    let index = Index::of(document);
    let named = index.named();
    let mut patterns = Patterns::default();
    let mut guesses = Guesses::default();
    for (at, section) in document.sections.iter().enumerate() {
        likes_of(source, &index, section, &mut guesses, findings);
        // A double is reported by the parser.
        if index.find(&section.name) != Some(at) || section.name.is_empty() {
            continue;
        }
        let span = source.section_span(section.place, &section.name);
        let is_pattern = section.name.contains(['*', '?', '[', '\\']);
        if is_pattern && let Some(earlier) = patterns.covering(section) {
            if !named.contains(&at) {
                let text = format!(
                    "[{}] is for nobody: [{}] on line {} takes every machine that it would",
                    section.name, earlier.name, earlier.place.line
                );
                findings.warn(span, text, Some("put the narrower pattern first"));
            }
        } else if is_pattern {
            patterns.add(section);
        } else if !is_default(section) && !named.contains(&at) {
            unreachable(section, span, findings);
        }
    }
    circles(source, &index, findings);
}

fn is_default(section: &Section) -> bool {
    section.name.eq_ignore_ascii_case("default")
}

fn likes(section: &Section) -> impl Iterator<Item = &Entry> {
    section.entries.iter().filter(|entry| entry.key == LIKE)
}

fn likes_of<'d>(
    source: &Source,
    index: &Index<'d>,
    section: &'d Section,
    guesses: &mut Guesses<'d>,
    findings: &mut Findings,
) {
    // In [default] it does nothing at all, and the parser says so.
    for like in likes(section).filter(|_| !is_default(section)) {
        if index.find(&like.value).is_some() {
            continue;
        }
        let span = source.value_span(like).unwrap_or_else(|| source.key_span(like));
        let words: Vec<_> = like.value.split_whitespace().collect();
        let help = match words.as_slice() {
            [_, _, ..] if words.iter().all(|word| index.find(word).is_some()) => {
                let lines: Vec<_> = words.iter().map(|word| format!("LIKE={word}")).collect();
                Some(format!("one line for each: {}", lines.join(", then ")))
            }
            [word] => guesses.near_section(index, word),
            _ => None,
        };
        let text = format!("there is no section [{}]", like.value.trim());
        findings.add(span, Severity::Error, text, help);
    }
}

/// What misspelt names mean, asked once for each.
#[derive(Default)]
struct Guesses<'d> {
    made: HashMap<&'d str, Option<String>>,
}

impl<'d> Guesses<'d> {
    /// Each guess looks at all names, so there is an end to it.
    const MOST: usize = 200;

    fn near_section(&mut self, index: &Index<'d>, name: &'d str) -> Option<String> {
        if let Some(made) = self.made.get(name) {
            return made.clone();
        }
        let typed = name.to_ascii_lowercase();
        let near = index
            .by_name
            .iter()
            .filter(|(known, _)| typed.len() > 3 && known.len().abs_diff(typed.len()) <= 1)
            .filter(|_| self.made.len() < Self::MOST)
            .filter(|(known, _)| distance(known, &typed) == 1)
            .min_by_key(|(_, at)| **at)
            .and_then(|(_, at)| index.section(*at))
            .map(|section| format!("did you mean [{}]?", section.name));
        self.made.insert(name, near.clone());
        near
    }
}

/// Says why no machine can have such a name, if that is so.
fn unreachable(section: &Section, span: super::Span, findings: &mut Findings) {
    let name = section.name.as_str();
    if name.parse::<Ipv4Addr>().is_ok() || name.contains(':') && name.parse::<Mac>().is_ok() {
        return;
    }
    if let Ok(mac) = name.parse::<Mac>() {
        let text = format!("[{name}] is for nobody: a MAC address is written with colons");
        findings.warn(span, text, Some(&format!("[{mac}]")));
        return;
    }
    let digits_and_dots = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if let Some((network, bits)) = name.split_once('/')
        && network.parse::<Ipv4Addr>().is_ok()
    {
        let octets: Vec<_> = network.split('.').collect();
        let kept = bits.parse::<usize>().ok().filter(|bits| bits % 8 == 0).map(|bits| bits / 8);
        let help = kept
            .and_then(|kept| octets.get(..kept))
            .filter(|kept| !kept.is_empty() && kept.len() < 4)
            .map(|kept| format!("[{}.*]", kept.join(".")));
        let text = format!("[{name}] is for nobody: there are no network masks here");
        findings.error(span, text, help.as_deref().or(Some("use a pattern: [10.0.0.*]")));
    } else if digits_and_dots && name.contains('.') {
        findings.error(span, format!("[{name}] is for nobody: it is no IPv4 address"), None);
    } else if name.contains(':') {
        let text = format!("[{name}] is for nobody: it is no MAC address");
        findings.error(span, text, Some("six pairs of digits: 52:54:00:aa:bb:cc"));
    } else if !is_host_name(name) {
        let help = match nearest(&name.to_ascii_uppercase()) {
            Some(_) => "settings are written without brackets",
            None => "no LIKE leads to it either",
        };
        findings.warn(span, format!("[{name}] is for nobody: it is no host name"), Some(help));
    }
}

/// RFC 1123, and the underscore that sites use all the same is none of it.
pub fn is_host_name(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// The patterns so far, by what they begin with.
#[derive(Default)]
struct Patterns<'d> {
    by_prefix: HashMap<String, Vec<&'d Section>>,
}

impl<'d> Patterns<'d> {
    fn add(&mut self, section: &'d Section) {
        let name = section.name.to_ascii_lowercase();
        let prefix = name.split(['*', '?', '[', '\\']).next().unwrap_or_default();
        self.by_prefix.entry(prefix.to_owned()).or_default().push(section);
    }

    /// An earlier pattern that matches everything `section` matches.
    fn covering(&self, section: &Section) -> Option<&'d Section> {
        let name = section.name.to_ascii_lowercase();
        let prefix = name.split(['*', '?', '[', '\\']).next().unwrap_or_default();
        let ends = prefix.char_indices().map(|(at, _)| at).chain([prefix.len()]);
        ends.filter_map(|end| self.by_prefix.get(name.get(..end)?))
            .flatten()
            .filter(|earlier| covers(&earlier.name.to_ascii_lowercase(), &name))
            .min_by_key(|earlier| earlier.place)
            .copied()
    }
}

/// Whether `wide` matches every text that `narrow` matches. Never wrongly yes; bracket classes are
/// only compared with themselves.
fn covers(wide: &str, narrow: &str) -> bool {
    let (wide, narrow): (Vec<char>, Vec<char>) = (wide.chars().collect(), narrow.chars().collect());
    if wide.iter().chain(&narrow).any(|c| matches!(c, '[' | '\\')) {
        return wide == narrow;
    }
    let (mut wide, mut narrow) = (wide.as_slice(), narrow.as_slice());
    let mut retry: Option<(&[char], &[char])> = None;
    loop {
        match (wide, narrow) {
            (['*', after @ ..], _) => {
                retry = Some((after, narrow));
                wide = after;
                continue;
            }
            ([], []) => return true,
            (['?', after @ ..], [c, rest @ ..]) if *c != '*' => {
                (wide, narrow) = (after, rest);
                continue;
            }
            ([a, after @ ..], [b, rest @ ..]) if a == b && *b != '*' => {
                (wide, narrow) = (after, rest);
                continue;
            }
            _ => {}
        }
        match retry {
            Some((after, [_, shorter @ ..])) => {
                retry = Some((after, shorter));
                (wide, narrow) = (after, shorter);
            }
            _ => return false,
        }
    }
}

/// Every LIKE that leads back to a section it came from, over all sections.
fn circles(source: &Source, index: &Index<'_>, findings: &mut Findings) {
    let mut done = HashSet::new();
    for start in 0..index.document.sections.len() {
        let Some(section) = index.section(start).filter(|_| !done.contains(&start)) else {
            continue;
        };
        // Depth first with a stack of our own: the file decides how deep it goes.
        let mut path = vec![(start, likes(section))];
        let mut on_path = HashSet::from([start]);
        while let Some((at, rest)) = path.last_mut() {
            let at = *at;
            let Some(like) = rest.next() else {
                on_path.remove(&at);
                done.insert(at);
                path.pop();
                continue;
            };
            let Some(target) = index.find(&like.value) else { continue };
            let Some(section) = index.section(target) else { continue };
            if on_path.contains(&target) {
                let span = source.value_span(like).unwrap_or_else(|| source.key_span(like));
                let text = format!("this leads back to [{}], where it came from", section.name);
                findings.warn(span, text, None);
            } else if !done.contains(&target) && !is_default(section) {
                on_path.insert(target);
                path.push((target, likes(section)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn a_wide_pattern_covers_a_narrow_one() {
        let cases = [
            ("*",       "node*",    true),
            ("no*",     "node*",    true),
            ("node*",   "no*",      false),
            ("node*",   "node?",    true),
            ("node?",   "node*",    false),
            ("node?",   "node??",   false),
            ("a*c",     "abc*",     false),
            ("a*c",     "a*bc",     true),
            ("a*b*c",   "a*bxb*c",  true),
            ("10.0.*",  "10.0.1.*", true),
            ("n[ab]*",  "na*",      false), // true, but not known
            ("n[ab]*",  "n[ab]*",   true),
        ];
        for (wide, narrow, expected) in cases {
            assert_eq!(covers(wide, narrow), expected, "[{wide}] and [{narrow}]");
        }
    }
}
