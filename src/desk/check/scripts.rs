//! The scripts that families of commands make together, each on every machine where it is another.
//!
//! A line alone need not be a command (`if …; then`), so what is checked is the whole script of a
//! machine in one section: that of `[default]`, what LIKE brings, and the section's own. Most lines
//! are commands by themselves, and then no combination of them can be wrong; that is what keeps a
//! file of thousands of sections quick.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::finding::Findings;
use super::sections::Index;
use super::settings::{LONGEST, Setting};
use super::source::Source;
use crate::config::{Severity, Value, version_order};
use crate::desk::shell::{Fault, Report, Shape, read};

/// Families whose members make one script, under the first one's name.
const SCRIPTS: &[&[&str]] =
    &[&["INIT_COMMAND_", "PRE_INIT_"], &["PREINIT_", "POST_INIT_"], &["RCFILE_"]];

struct Line<'s, 'd> {
    setting: &'s Setting<'d>,
    /// The name behind that of its family.
    member: &'s str,
    report: Report,
}

pub fn check(source: &Source, settings: &[Setting<'_>], findings: &mut Findings) {
    let index = Index::of(&source.reading.document);
    for families in SCRIPTS {
        let lines = lines(families, settings);
        for line in &lines {
            // What is doubtful in a line alone is so in every script.
            for doubt in &line.report.doubts {
                if line.report.error.is_none() && line.report.shape != Shape::Open {
                    let (text, help) = (doubt.text.clone(), doubt.help);
                    findings.warn(line.setting.span(doubt.at, doubt.length), text, help);
                }
            }
        }
        family(&index, families, &lines, findings);
    }
}

fn lines<'s, 'd>(families: &[&str], settings: &'s [Setting<'d>]) -> Vec<Line<'s, 'd>> {
    let members = settings.iter().filter(|setting| setting.is_a(Value::ShellLine));
    members
        .filter_map(|setting| {
            let member =
                families.iter().find_map(|family| setting.entry.key.strip_prefix(family))?;
            Some(Line { setting, member, report: read(&setting.imported.text) })
        })
        .collect()
}

fn family(index: &Index<'_>, names: &[&str], lines: &[Line<'_, '_>], findings: &mut Findings) {
    let mut by_section: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, line) in lines.iter().enumerate() {
        by_section.entry(line.setting.section).or_default().push(at);
    }
    let total: usize = lines.iter().map(|line| line.setting.imported.text.len()).sum();
    let all_whole =
        lines.iter().all(|line| matches!(line.report.shape, Shape::Whole | Shape::Empty));
    if all_whole && total < LONGEST {
        return;
    }
    // What lines are sorted by, as on a node.
    let name = names.first().copied().unwrap_or_default();
    let orders: Vec<_> = lines
        .iter()
        .map(|line| format!("{name}{}={}", line.member, line.setting.imported.text))
        .collect();
    let mut read_already: HashSet<Vec<usize>> = HashSet::new();
    // What others take with LIKE is checked with them: it need not be complete by itself.
    let named = index.named();
    let brings_some =
        |section: &usize| by_section.contains_key(section) || index.has_likes(*section);
    for section in
        (0..index.len()).filter(|section| !named.contains(section) && brings_some(section))
    {
        let members = script(index, section, lines, &orders, &by_section);
        if !read_already.insert(signature(&members, lines)) {
            continue;
        }
        let members: Vec<_> = members.iter().filter_map(|at| lines.get(*at)).collect();
        let name = index.section(section).map(|section| section.name.as_str()).unwrap_or_default();
        check_script(names, name, section, &members, findings);
    }
}

/// The members in force on a machine of one section, in order.
fn script(
    index: &Index<'_>,
    section: usize,
    lines: &[Line<'_, '_>],
    orders: &[String],
    by_section: &BTreeMap<usize, Vec<usize>>,
) -> Vec<usize> {
    let mut decided: HashMap<&str, Option<usize>> = HashMap::new();
    for part in index.chain(section).into_iter().filter_map(|at| by_section.get(&at)) {
        for at in part.iter().rev() {
            let Some(line) = lines.get(*at) else { continue };
            let in_force = (!line.setting.is_none()).then_some(*at);
            decided.entry(line.setting.entry.key.as_str()).or_insert(in_force);
        }
    }
    let mut members: Vec<_> = decided.into_values().flatten().collect();
    let order = |at: &usize| orders.get(*at).map(String::as_bytes).unwrap_or_default();
    members.sort_by(|a, b| version_order(order(a), order(b)).then(a.cmp(b)));
    members
}

/// Scripts with the same signature are right or wrong together: between others, one command is as
/// good as another, unless a quote is open.
fn signature(members: &[usize], lines: &[Line<'_, '_>]) -> Vec<usize> {
    let shape = |at: &usize| lines.get(*at).map(|line| line.report.shape);
    if members.iter().any(|at| shape(at) == Some(Shape::Open)) {
        return members.to_vec();
    }
    let mut signature: Vec<_> = members
        .iter()
        .map(|at| if shape(at) == Some(Shape::Whole) { usize::MAX } else { *at })
        .collect();
    signature.dedup_by(|a, b| *a == usize::MAX && *b == usize::MAX);
    signature
}

fn check_script(
    families: &[&str],
    name: &str,
    section: usize,
    members: &[&Line<'_, '_>],
    findings: &mut Findings,
) {
    let mut script = String::new();
    let mut starts = Vec::new();
    for line in members {
        starts.push(script.len());
        script += &line.setting.imported.text;
        script.push('\n');
    }
    // The line in which a byte of the script is, and its place there.
    let line_of = |at: usize| {
        let number = starts.partition_point(|start| *start <= at).checked_sub(1)?;
        Some((*members.get(number)?, at.saturating_sub(*starts.get(number)?)))
    };
    let span = |fault: &Fault| {
        let (line, at) = line_of(fault.at)?;
        let room = line.setting.imported.text.len().saturating_sub(at);
        Some((line, line.setting.span(at, fault.length.min(room))))
    };
    let report = read(&script);
    for doubt in &report.doubts {
        if let Some((_, span)) = span(doubt) {
            findings.warn(span, doubt.text.clone(), doubt.help);
        }
    }
    if let Some((_, span)) = report.unread.as_ref().and_then(span) {
        let text = "this is nested too deeply, so the script is not checked from here on";
        findings.warn(span, text, None);
    }
    if let Some(error) = &report.error
        && let Some((line, span)) = span(error)
    {
        let whose = match line.setting.section == section {
            true => String::new(),
            false => format!(" (in the script of [{name}])"),
        };
        let help = match families {
            ["RCFILE_"] => "/etc/rc.local ends there with a syntax error",
            _ => "the shell stops there, and the rest of the commands does not run",
        };
        let text = format!("shell syntax: {}{whose}", error.text);
        findings.add(span, Severity::Error, text, Some(error.help.unwrap_or(help).to_owned()));
    }
    let is_argument = families != ["RCFILE_"];
    if is_argument
        && script.len() > LONGEST
        && let Some(last) = members.last()
    {
        let text = format!(
            "the {}* lines of [{name}] together are longer than 128 KiB",
            families.concat()
        );
        findings.error(
            last.setting.span(0, 0),
            text,
            Some("put a script into the image, and run it"),
        );
    }
}
