//! Each setting by itself and among its neighbours: its name, its value, its secrets, and what is
//! set twice.

use std::collections::{HashMap, HashSet};

use super::finding::{Findings, Span};
use super::import::Imported;
use super::sections::Index;
use super::source::Source;
use super::values::{self, Remark};
use super::{fields, secrets, ssh};
use crate::config::{Entry, KNOWN, Known, Quoting, Severity, Standing, Value, nearest};

/// The kernel takes no longer single argument or variable (`MAX_ARG_STRLEN`, 32 pages).
pub const LONGEST: usize = 128 * 1024 - 1;

/// Of what one value can have thousands of: who mends these sees the rest.
const MOST_OF_A_KIND: usize = 20;

/// One setting of one section.
pub struct Setting<'d> {
    /// Which section.
    pub section: usize,
    pub entry: &'d Entry,
    /// The same for all of one name, from 0 on.
    name: usize,
    pub known: Option<&'static Known>,
    pub imported: Imported<'d>,
    /// `None` if the value cannot be found in its line.
    value: Option<Span>,
    key: Span,
}

impl Setting<'_> {
    /// The place of a piece of the imported value.
    pub fn span(&self, at: usize, length: usize) -> Span {
        let Some(value) = self.value else { return self.key };
        let from = self.imported.place(at);
        let to = self.imported.place(at.saturating_add(length));
        let at = value.at.saturating_add(from);
        Span { at, length: to.saturating_sub(from).max(usize::from(length > 0)), ..value }
    }

    /// The place of a piece of the value as it is in the file.
    fn raw_span(&self, at: usize, length: usize) -> Span {
        self.value.map_or(self.key, |value| Span {
            at: value.at.saturating_add(at),
            length,
            ..value
        })
    }

    pub fn key_span(&self) -> Span {
        self.key
    }

    fn whole_value(&self) -> Span {
        self.value.unwrap_or(self.key)
    }

    /// In single quotes it is the word itself.
    pub fn is_none(&self) -> bool {
        self.entry.quoting != Quoting::Single
            && self.entry.value.trim().eq_ignore_ascii_case("none")
    }

    pub fn is_a(&self, value: Value) -> bool {
        self.known.is_some_and(|known| known.value == value)
    }
}

/// All settings, in the order of the file.
pub fn entries(source: &Source) -> Vec<Setting<'_>> {
    let mut names: HashMap<&str, (usize, Option<&'static Known>)> = HashMap::new();
    let sections = source.reading.document.sections.iter().enumerate();
    let entries = sections.flat_map(|(at, section)| section.entries.iter().map(move |e| (at, e)));
    entries
        .map(|(section, entry)| {
            let next = names.len();
            let row = names.entry(&entry.key).or_insert_with(|| (next, Known::find(&entry.key)));
            Setting {
                section,
                entry,
                name: row.0,
                known: row.1,
                imported: Imported::of(&entry.value, entry.quoting),
                value: source.value_span(entry),
                key: source.key_span(entry),
            }
        })
        .collect()
}

pub fn check(
    source: &Source,
    settings: &[Setting<'_>],
    substitution: bool,
    findings: &mut Findings,
) {
    let count = settings.iter().map(|setting| setting.name.saturating_add(1)).max().unwrap_or(0);
    // How often a name is there, and its first setting.
    let mut uses: Vec<(usize, Option<&Setting<'_>>)> = vec![(0, None); count];
    for setting in settings {
        if let Some((count, first)) = uses.get_mut(setting.name) {
            *count = count.saturating_add(1);
            first.get_or_insert(setting);
        }
    }
    names(&uses, findings);
    doubles(settings, count, findings);
    let set: HashSet<&str> = uses
        .iter()
        .filter_map(|(_, first)| first.map(|setting| setting.entry.key.as_str()))
        .chain(KNOWN.iter().map(|known| known.name))
        .collect();
    for setting in settings {
        expansion(setting, &set, substitution, findings);
        secrets::check(setting, findings);
        if setting.is_none() {
            continue;
        }
        let length = setting.entry.key.len().saturating_add(setting.imported.text.len());
        if length >= LONGEST {
            let text = "the value is longer than 128 KiB, and no command can get it";
            findings.error(
                setting.key,
                text,
                Some("put it into the image, or into a FILE_ of its own"),
            );
        }
        value(setting, findings);
        one_name_for_many(source, setting, findings);
    }
    let index = Index::of(&source.reading.document);
    fields::mount_points(&index, settings, findings);
    ssh::check(&index, settings, findings);
}

/// A name for one node, where many nodes would get it.
fn one_name_for_many(source: &Source, setting: &Setting<'_>, findings: &mut Findings) {
    let section = source.reading.document.sections.get(setting.section);
    let name = section.map(|section| section.name.as_str()).unwrap_or_default();
    let for_many = name.eq_ignore_ascii_case("default") || name.contains(['*', '?']);
    if setting.entry.key == "HOSTNAME"
        && for_many
        && setting.imported.is_known()
        && !setting.is_none()
    {
        let text = format!("every node of [{name}] gets this name");
        let help = "HOSTNAME_BASE and HOSTNAME_EXTRA make a name for each";
        findings.warn(setting.whole_value(), text, Some(help));
    }
}

/// Checks a value against its type, as far as it is the same on every machine.
fn value(setting: &Setting<'_>, findings: &mut Findings) {
    let Some(known) = setting.known else { return };
    // In a list each word is for itself; elsewhere a variable may stand for several fields.
    let is_list = matches!(
        known.value,
        Value::Addresses
            | Value::Hosts { .. }
            | Value::Domains
            | Value::Services
            | Value::Paths
            | Value::Network(_)
    );
    if !setting.imported.is_known() && !is_list {
        return;
    }
    let mut remarks = Vec::new();
    values::check(known.value, &setting.imported.text, &mut remarks);
    for remark in remarks {
        if !setting.imported.is_unknown(&remark.range) {
            add(setting, remark, findings);
        }
    }
}

fn add(setting: &Setting<'_>, remark: Remark, findings: &mut Findings) {
    let Remark { range, severity, text, help } = remark;
    let length = range.end.saturating_sub(range.start);
    let span = match length {
        0 => setting.whole_value(),
        length => setting.span(range.start, length),
    };
    findings.add(span, severity, text, help);
}

/// Names that are misspelt, and names without effect: once each.
fn names(uses: &[(usize, Option<&Setting<'_>>)], findings: &mut Findings) {
    for (count, first) in uses {
        let Some(setting) = first else { continue };
        let key = setting.entry.key.as_str();
        let elsewhere = match count {
            1 => String::new(),
            count => format!(" (and {} more of it)", count.saturating_sub(1)),
        };
        match setting.known {
            Some(Known { standing: Standing::Ignored(why), .. }) => {
                findings.warn(setting.key, format!("{key} has no effect{elsewhere}"), Some(why));
            }
            Some(_) => {}
            None => {
                if let Some(meant) = nearest(key) {
                    let help = format!("did you mean {meant}?");
                    let text = format!("{key} is no setting of LTSP or Landfall{elsewhere}");
                    findings.warn(setting.key, text, Some(&help));
                }
            }
        }
    }
}

/// Of several settings of one name in a section the last counts.
fn doubles(settings: &[Setting<'_>], names: usize, findings: &mut Findings) {
    let mut last: Vec<Option<&Setting<'_>>> = vec![None; names];
    for setting in settings.iter().filter(|setting| setting.entry.key != "LIKE") {
        let Some(last) = last.get_mut(setting.name) else { continue };
        if let Some(earlier) = last.filter(|earlier| earlier.section == setting.section) {
            let line = setting.entry.place.line;
            let text =
                format!("{} is set again on line {line}, and the last counts", setting.entry.key);
            findings.warn(earlier.key, text, None);
        }
        *last = Some(setting);
    }
}

/// What the node would say about `$` and backquotes, for any machine.
fn expansion(
    setting: &Setting<'_>,
    set: &HashSet<&str>,
    substitution: bool,
    findings: &mut Findings,
) {
    let imported = &setting.imported;
    let commands = imported.commands.iter().filter(|_| !substitution);
    for (at, length) in commands.take(MOST_OF_A_KIND) {
        let text = "this would run a command while the configuration is read, so it is refused";
        let help = "write a backslash before it, and it runs where the value is used; or check \
                    with --substitution, if nodes boot with landfall.substitution=on";
        findings.error(setting.raw_span(*at, *length), text, Some(help));
    }
    let mut named: HashSet<&str> = HashSet::new();
    let unknown = imported
        .variables
        .iter()
        .filter(|(.., name)| !set.contains(name.as_str()) && named.insert(name.as_str()));
    for (at, length, name) in unknown.take(MOST_OF_A_KIND) {
        let text = format!("${name} is set nowhere in the file, and reads as nothing");
        let help = format!("write \\${name} to leave it to the command");
        findings.warn(setting.raw_span(*at, *length), text, Some(&help));
    }
    for (at, length) in imported.odd.iter().take(MOST_OF_A_KIND) {
        let span = setting.raw_span(*at, *length);
        let text = "a shell's own parameter stays as it is; LTSP 5 would replace it";
        findings.add(span, Severity::Warning, text, Some("write a backslash before it".to_owned()));
    }
}
