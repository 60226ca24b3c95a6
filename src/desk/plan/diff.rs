//! What a new configuration changes, node by node, and nodes with the same change together.
//!
//! Compared is what a node would do, not what the file says: a setting that moves to another line
//! or section changes nothing. Two nodes have the same change also where each finds its own name or
//! address in it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use imara_diff::{Algorithm, BasicLineDiffPrinter, Diff, InternedInput, UnifiedDiffConfig};
use serde::Serialize;

use super::decide::decide;
use super::document::{Document, File, Kind, Problem, SCHEMA, Setting, Severity};
use super::node::{List, Node};
use super::options::Site;
use super::page::Page;
use super::problem::place_of;
use super::secrets::{Secrets, hidden_in_line};
use super::situation::Situation;
use super::text;
use crate::config::Reading;
use crate::desk::image::Image;
use crate::net::Mac;

/// What changes from OLD to NEW, for all nodes of a list.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Difference {
    /// Version of this format: 1.
    schema: u32,
    /// Version of the program.
    version: String,
    /// Name of the file.
    old: String,
    /// Name of the file.
    new: String,
    /// How many there are in the list.
    nodes: usize,
    /// How many of them do the same as before.
    unchanged: usize,
    /// Nodes with the same change; the largest group first.
    groups: Vec<Group>,
    /// Of NEW, where OLD has none like them.
    problems: Vec<Problem>,
    /// Lines of the list that are of no one node, and are left out: patterns of dnsmasq.
    skipped: Vec<String>,
    /// Of all nodes that are shown, for the page.
    #[serde(skip)]
    secrets: Secrets,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Group {
    /// Names; MAC or IP addresses of those that have none. The changes are those of the first.
    nodes: Vec<String>,
    /// Where the changes of the first name it, those of the others name them.
    own_names: bool,
    changes: Changes,
}

#[derive(Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Changes {
    settings: Vec<SettingChange>,
    /// Lists that have other lines than before.
    lists: Vec<ListChange>,
    files: Vec<FileChange>,
}

#[derive(Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct SettingChange {
    name: String,
    /// Null if it is new.
    old: Option<Setting>,
    /// Null if it is gone.
    new: Option<Setting>,
}

#[derive(Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ListChange {
    /// `host name`, `services removed`, `commands before the real init`, …
    what: String,
    removed: Vec<String>,
    added: Vec<String>,
}

#[derive(Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct FileChange {
    path: String,
    /// What happens to it, without its contents; null if nothing did.
    old: Option<String>,
    /// Null if nothing does any more.
    new: Option<String>,
    /// Unified, of the contents; null if they are the same or no text.
    diff: Option<String>,
}

/// # Errors
/// One line: what was asked contradicts itself.
pub fn compare(
    old: &Reading,
    new: &Reading,
    list: &List,
    site: &Site,
    image: &Image,
) -> Result<Difference, String> {
    let mut groups: Vec<(Group, String)> = Vec::new();
    let mut by_key: HashMap<String, usize> = HashMap::new();
    let mut unchanged: usize = 0;
    let mut old_problems = BTreeSet::new();
    let mut new_problems = BTreeMap::new();
    let List { nodes, skipped } = list;
    let mut secrets = Secrets::default();
    for node in nodes {
        let situation = Situation::of(node.clone(), None, site)
            .map_err(|why| format!("{}: {why}", node.name()))?;
        let before = decide(&situation, old, site, image, false);
        let after = decide(&situation, new, site, image, false);
        old_problems.extend(before.problems.iter().map(|problem| problem.message.clone()));
        for problem in &after.problems {
            let place = place_of(problem);
            new_problems.entry((place, problem.message.clone())).or_insert_with(|| problem.clone());
        }
        let Some(changes) = changes(&before, &after) else {
            unchanged = unchanged.saturating_add(1);
            continue;
        };
        let raw = key(&changes);
        let general = without_identity(&raw, node, [&before, &after]);
        let at = *by_key.entry(general).or_insert(groups.len());
        match groups.get_mut(at) {
            Some((group, first)) => {
                group.nodes.push(node.name());
                group.own_names |= *first != raw;
            }
            None => {
                secrets.extend(&before.settings);
                secrets.extend(&after.settings);
                let group = Group { nodes: vec![node.name()], own_names: false, changes };
                groups.push((group, raw));
            }
        }
    }
    let mut groups: Vec<_> = groups.into_iter().map(|(group, _)| group).collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.nodes.len()));
    let name =
        |reading: &Reading| reading.files.first().map(|file| file.name.clone()).unwrap_or_default();
    let problems = new_problems
        .into_iter()
        .filter(|((_, message), _)| !old_problems.contains(message))
        .map(|(_, problem)| problem)
        .collect();
    Ok(Difference {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        old: name(old),
        new: name(new),
        nodes: nodes.len(),
        unchanged,
        groups,
        problems,
        skipped: skipped.clone(),
        secrets,
    })
}

impl Difference {
    /// As diff(1): 0 nothing changes, 1 something does; 2 there are errors that were not there.
    pub fn status(&self) -> u8 {
        let wrong = self.problems.iter().any(|problem| problem.severity == Severity::Error);
        match (wrong, self.groups.is_empty()) {
            (true, _) => 2,
            (false, true) => 0,
            (false, false) => 1,
        }
    }
}

/// `None` if the node does the same as before.
fn changes(old: &Document, new: &Document) -> Option<Changes> {
    let changes = Changes {
        settings: settings(old, new),
        lists: lists(old, new),
        files: files(&old.files, &new.files),
    };
    let some =
        !changes.settings.is_empty() || !changes.lists.is_empty() || !changes.files.is_empty();
    some.then_some(changes)
}

fn settings(old: &Document, new: &Document) -> Vec<SettingChange> {
    let names: BTreeSet<_> = old.settings.keys().chain(new.settings.keys()).collect();
    let change = |name: &String| {
        let (old, new) = (old.settings.get(name), new.settings.get(name));
        (old.map(|setting| &setting.value) != new.map(|setting| &setting.value))
            .then(|| SettingChange { name: name.clone(), old: old.cloned(), new: new.cloned() })
    };
    names.into_iter().filter_map(change).collect()
}

fn lists(old: &Document, new: &Document) -> Vec<ListChange> {
    type List = fn(&Document) -> Vec<String>;
    let lists: [(&str, List); 14] = [
        ("network", |plan| text::network_lines(&plan.network)),
        ("root", text::root_lines),
        ("memory", |plan| text::memory_lines(&plan.memory)),
        ("swap", |plan| text::swap_lines(plan.swap.as_ref())),
        ("host name", |plan| plan.hostname.iter().cloned().collect()),
        ("kernel modules", |plan| {
            let line = |module: &super::document::Module| {
                format!("{} {}", module.name, module.parameters).trim_end().to_owned()
            };
            plan.modules.iter().map(line).collect()
        }),
        ("commands before most files are written", |plan| plan.commands.early.clone()),
        ("services removed", |plan| plan.services_removed.clone()),
        ("units enabled", |plan| plan.units.enabled.clone()),
        ("units disabled", |plan| plan.units.disabled.clone()),
        ("units masked", |plan| plan.units.masked.clone()),
        ("commands before the real init", |plan| plan.commands.late.clone()),
        ("settings that a shell decides", |plan| plan.deferred.clone()),
        ("real init", |plan| vec![text::handover_line(plan)]),
    ];
    lists
        .into_iter()
        .filter_map(|(what, list)| {
            let (old, new) = (list(old), list(new));
            let (mut removed, mut added) = (Vec::new(), Vec::new());
            let mut input = InternedInput::<&str>::default();
            input.update_before(old.iter().map(String::as_str));
            input.update_after(new.iter().map(String::as_str));
            for hunk in Diff::compute(Algorithm::Myers, &input).hunks() {
                let part = |of: Range<u32>| of.start as usize..of.end as usize;
                removed.extend_from_slice(old.get(part(hunk.before)).unwrap_or_default());
                added.extend_from_slice(new.get(part(hunk.after)).unwrap_or_default());
            }
            let some = !removed.is_empty() || !added.is_empty();
            some.then(|| ListChange { what: what.to_owned(), removed, added })
        })
        .collect()
}

fn files(old: &[File], new: &[File]) -> Vec<FileChange> {
    fn by_path(files: &[File]) -> BTreeMap<(&str, bool), &File> {
        // It repeats the settings.
        let files = files.iter().filter(|file| file.path != "/run/landfall/env");
        files.map(|file| ((file.path.as_str(), file.kind == Kind::Copied), file)).collect()
    }
    let (old, new) = (by_path(old), by_path(new));
    let paths: BTreeSet<_> = old.keys().chain(new.keys()).copied().collect();
    let change = |path: (&str, bool)| {
        let (old, new) = (old.get(&path).copied(), new.get(&path).copied());
        if old == new {
            return None;
        }
        let contents =
            |file: Option<&File>| file.and_then(|file| file.contents.clone()).unwrap_or_default();
        let (before, after) = (contents(old), contents(new));
        let diff = (before != after).then(|| unified_diff(&before, &after));
        let path = path.0.to_owned();
        Some(FileChange {
            path,
            old: old.map(text::file_line),
            new: new.map(text::file_line),
            diff,
        })
    };
    paths.into_iter().filter_map(change).collect()
}

/// With three lines around each change.
pub fn unified_diff(before: &str, after: &str) -> String {
    let input = InternedInput::new(before, after);
    let mut diff = Diff::compute(Algorithm::Myers, &input);
    diff.postprocess_lines(&input);
    let printer = BasicLineDiffPrinter(&input.interner);
    diff.unified_diff(&printer, UnifiedDiffConfig::default(), &input).to_string()
}

/// What two equal changes have in common: not the lines of the file, nor what stands around.
fn key(changes: &Changes) -> String {
    let mut key = String::new();
    let mut add = |part: &str| {
        key.push_str(part);
        key.push('\n');
    };
    let value = |setting: &Option<Setting>| {
        setting.as_ref().map_or_else(String::new, |setting| format!("={}", setting.value))
    };
    for setting in &changes.settings {
        add(&format!("{}\n{}\n{}", setting.name, value(&setting.old), value(&setting.new)));
    }
    for list in &changes.lists {
        add(&list.what);
        list.removed.iter().for_each(|line| add(&format!("- {line}")));
        list.added.iter().for_each(|line| add(&format!("+ {line}")));
    }
    for file in &changes.files {
        add(&format!("{}\n{:?}\n{:?}", file.path, file.old, file.new));
        let lines = file.diff.as_deref().unwrap_or_default().lines();
        for line in lines {
            // A name at the beginning of a line must stand alone.
            match (line.strip_prefix('+'), line.strip_prefix('-')) {
                (Some(line), _) => add(&format!("+ {line}")),
                (_, Some(line)) => add(&format!("- {line}")),
                _ => {}
            }
        }
    }
    key
}

/// `text` with a word of no letters for each of the node's names and addresses.
fn without_identity(text: &str, node: &Node, plans: [&Document; 2]) -> String {
    let mac = |Mac(bytes): Mac| {
        let mac = Mac(bytes);
        let plain = mac.to_string().replace(':', "");
        [mac.to_string(), mac.to_string().to_uppercase(), mac.dashed(), plain]
    };
    let mut names: Vec<(String, &str)> = Vec::new();
    names.extend(node.mac.map(mac).into_iter().flatten().map(|mac| (mac, "\u{1}")));
    names.extend(node.address.map(|address| (address.to_string(), "\u{2}")));
    let hostnames = plans.into_iter().filter_map(|plan| plan.hostname.clone());
    names.extend(node.hostname.clone().into_iter().chain(hostnames).map(|name| (name, "\u{3}")));
    let mut text = text.to_owned();
    for (name, word) in names {
        text = replaced(&text, &name, word);
    }
    text
}

/// Replaces `name` where it stands alone: `node1` in `node1.example.org`, not in `node12`.
fn replaced(text: &str, name: &str, word: &str) -> String {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '-' || c == '_');
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) =
        Some(rest).filter(|_| !name.is_empty()).and_then(|r| r.split_once(name))
    {
        result.push_str(before);
        let alone = !part(result.chars().next_back()) && !part(after.chars().next());
        result.push_str(if alone { word } else { name });
        rest = after;
    }
    result + rest
}

pub fn render(difference: &Difference) -> String {
    let Difference { old, new, nodes, unchanged, groups, problems, skipped, .. } = difference;
    let changed = nodes.saturating_sub(*unchanged);
    let mut page = Page::default();
    page.line(
        0,
        &format!(
            "From {old} to {new}: {changed} of {} {}",
            count(*nodes, "node"),
            match changed {
                1 => "changes",
                _ => "change",
            }
        ),
    );
    for group in groups {
        page.heading(&format!("{}:", count(group.nodes.len(), "node")));
        let folded = folded(&group.nodes);
        page.wrapped(1, folded.iter().map(String::as_str));
        if let (true, Some(first)) = (group.own_names, group.nodes.first()) {
            page.line(
                1,
                &format!("(Shown for {first}; the others have their own names in its place.)"),
            );
        }
        render_changes(&mut page, &group.changes);
    }
    if *unchanged > 0 && changed > 0 {
        let verb = if *unchanged == 1 { "stays" } else { "stay" };
        page.heading(&format!("{} {verb} the same", count(*unchanged, "node")));
    }
    if !skipped.is_empty() {
        page.heading("Left out of the list");
        skipped.iter().for_each(|line| page.line(1, line));
    }
    if !problems.is_empty() {
        page.heading(&format!("New problems in {new}"));
    }
    for problem in problems {
        page.line(1, &text::problem_line(problem));
        if let Some(help) = &problem.help {
            page.line(2, &format!("help: {help}"));
        }
    }
    difference.secrets.hidden_in(&page.text)
}

fn count(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn render_changes(page: &mut Page, changes: &Changes) {
    if !changes.settings.is_empty() {
        page.line(1, "settings");
    }
    for change in &changes.settings {
        for (sign, setting) in [("-", &change.old), ("+", &change.new)] {
            if let Some(setting) = setting {
                let (value, origin) =
                    (text::quoted(&change.name, &setting.value), text::origin(setting));
                page.line(2, &format!("{sign} {} = {value}  ({origin})", change.name));
            }
        }
    }
    for list in &changes.lists {
        page.line(1, &list.what);
        let mut lines = |sign: char, lines: &[String]| {
            lines.iter().for_each(|line| page.line(2, &format!("{sign} {}", hidden_in_line(line))));
        };
        lines('-', &list.removed);
        lines('+', &list.added);
    }
    let deeds: Vec<_> = changes.files.iter().filter(|file| file.old != file.new).collect();
    if !deeds.is_empty() {
        page.line(1, "files");
    }
    for file in deeds {
        for (sign, what) in [("-", &file.old), ("+", &file.new)] {
            what.iter().for_each(|what| page.line(2, &format!("{sign} {what}")));
        }
    }
    for file in &changes.files {
        if let Some(diff) = &file.diff {
            page.line(1, &file.path);
            page.block(2, diff);
        }
    }
}

/// Names in order; `node001-node312` for names that are counted without a gap.
fn folded(names: &[String]) -> Vec<String> {
    let numbered = |name: &str| {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = name.get(stem.len()..)?;
        Some((stem.to_owned(), digits.len(), digits.parse::<u64>().ok()?))
    };
    let mut sorted: Vec<_> = names.iter().map(|name| (numbered(name), name)).collect();
    sorted.sort();
    let mut runs: Vec<Vec<&String>> = Vec::new();
    let mut before: Option<(String, usize, u64)> = None;
    for (number, name) in sorted {
        let follows = match (&before, &number) {
            (Some((stem, width, last)), Some((other, digits, next))) => {
                // node9 and node10 count without zeros, node09 and node10 with them.
                let alike =
                    digits == width || (digits > width && !name.contains(&format!("{other}0")));
                stem == other && alike && last.checked_add(1) == Some(*next)
            }
            _ => false,
        };
        match runs.last_mut() {
            Some(run) if follows => run.push(name),
            _ => runs.push(vec![name]),
        }
        before = number;
    }
    runs.iter()
        .flat_map(|run| match run.as_slice() {
            [first, _, .., last] => vec![format!("{first}-{last}")],
            few => few.iter().map(|name| (*name).clone()).collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::desk::plan::node;

    fn difference(old: &str, new: &str, nodes: &str) -> Difference {
        let nodes = node::list(nodes).unwrap();
        let (old, new) = (Reading::of_text(old), Reading::of_text(new));
        compare(&old, &new, &nodes, &Site::default(), &Image::unknown()).unwrap()
    }

    fn three_nodes() -> String {
        (1..=3).map(|n| format!("52:54:00:00:00:0{n} 10.0.0.{n}/24 node{n}\n")).collect()
    }

    #[test]
    #[rustfmt::skip]
    fn nodes_with_the_same_change_are_together() {
        // old, new -> groups, unchanged, status
        let cases: [(&str, &str, &[&[&str]], usize, u8); 9] = [
            ("[default]\nA=1\n",            "[default]\nA=1\n",                       &[], 3, 0),
            // Other lines, another section: the same nodes do the same.
            ("[default]\nA=1\nB=2\n",       "\n[default]\nB=2\n[node*]\nA=1\n",       &[], 3, 0),
            ("[default]\nA=1\n",            "[default]\nA=2\n",                       &[&["node1", "node2", "node3"]], 0, 1),
            ("[default]\nA=1\n",            "[default]\nA=1\n[node2]\nA=2\n",         &[&["node2"]], 2, 1),
            ("[default]\nA=1\n",            "[default]\nA=1\n[node2]\nA=2\n[node1]\nA=2\n", &[&["node1", "node2"]], 1, 1),
            ("[default]\nA=1\n",            "[default]\nA=2\n[node2]\nA=3\n",         &[&["node1", "node3"], &["node2"]], 0, 1),
            // Each finds its own name and address in it.
            ("[default]\nA=1\n",            "[default]\nA=\"$HOSTNAME $IPV4ADDR\"\n", &[&["node1", "node2", "node3"]], 0, 1),
            ("[default]\nA=1\n",            "[default]\nA=1\njunk\n",                 &[], 3, 2),
            ("[default]\nA=1\njunk\n",      "[default]\nA=1\n\njunk\n",               &[], 3, 0),
        ];
        for (old, new, groups, unchanged, status) in cases {
            let got = difference(old, new, &three_nodes());
            let names: Vec<Vec<&str>> = got.groups.iter().map(|group| group.nodes.iter().map(String::as_str).collect()).collect();
            assert_eq!(names, groups, "{old} -> {new}");
            assert_eq!((got.unchanged, got.status()), (unchanged, status), "{old} -> {new}: {:?}", got.problems);
        }
    }

    #[test]
    fn a_name_is_replaced_only_where_it_stands_alone() {
        let text = "node1 node12 xnode1 node1.example.org (node1) node1-a node1";
        assert_eq!(replaced(text, "node1", "N"), "N node12 xnode1 N.example.org (N) node1-a N");
        assert_eq!(
            replaced("10.0.0.5 10.0.0.50 110.0.0.5", "10.0.0.5", "I"),
            "I 10.0.0.50 110.0.0.5"
        );
        assert_eq!(replaced("x", "", "N"), "x");
    }

    #[test]
    #[rustfmt::skip]
    fn names_that_are_counted_are_folded() {
        let cases = [
            ("node3 node1 node2",                 "node1-node3"),
            ("node8 node9 node10 node11",         "node8-node11"),
            ("n008 n009 n010",                    "n008-n010"),
            ("node1 node2",                       "node1 node2"),
            ("node1 node3 node5",                 "node1 node3 node5"),
            ("a1 a2 a3 b4 b5 b6 c",               "c a1-a3 b4-b6"),
            ("gpu1a",                             "gpu1a"),
        ];
        for (names, expected) in cases {
            let names: Vec<_> = names.split(' ').map(str::to_owned).collect();
            assert_eq!(folded(&names).join(" "), expected);
        }
    }

    /// An operator waits for this before each commit of the file.
    #[test]
    fn a_thousand_nodes_of_a_long_file_take_seconds() {
        let block = |n: usize| {
            format!(
                "[node{n}]\nLIKE=rack{}\nFSTAB_1=\"/dev/{n} /data ext4 defaults 0 0\"\n",
                n % 40
            ) + &(0..7).map(|k| format!("SITE_{k} = \"{}\"\n", "x".repeat(40))).collect::<String>()
        };
        let mut old = String::from("[default]\nRCFILE_1=\"echo $HOSTNAME\"\n");
        (0..40).for_each(|n| old += &format!("[rack{n}]\nRCFILE_2=\"echo rack {n}\"\n"));
        (0..5000).for_each(|n| old += &block(n));
        assert!(old.len() > 2_000_000, "{}", old.len());
        let new = old.replacen("echo rack 7\"", "echo rack seven\"", 1);
        let nodes: String = (0..1000)
            .map(|n| {
                format!(
                    "52:54:00:00:{:02x}:{:02x} 10.0.{}.{} node{n}\n",
                    n / 256,
                    n % 256,
                    n / 250,
                    n % 250 + 1
                )
            })
            .collect();
        let began = Instant::now();
        let got = difference(&old, &new, &nodes);
        assert_eq!((got.groups.len(), got.groups[0].nodes.len(), got.unchanged), (1, 25, 975));
        // Without optimization, on a busy machine.
        assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
        println!("{:?}", began.elapsed());
    }
}
