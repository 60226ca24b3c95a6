//! Findings for people, in the manner of a compiler, and for programs, as JSON.

use serde::Serialize;

use super::Report;
use super::finding::{Finding, Span};
use super::source::Source;
use crate::config::Severity;

/// More of a line is not worth showing around a place.
const WIDTH: usize = 100;

/// Terminal colours, or nothing.
struct Style {
    warning: &'static str,
    error: &'static str,
    frame: &'static str,
    bold: &'static str,
    end: &'static str,
}

const PLAIN: Style = Style { warning: "", error: "", frame: "", bold: "", end: "" };
const COLOURS: Style = Style {
    warning: "\x1b[1;33m",
    error: "\x1b[1;31m",
    frame: "\x1b[1;34m",
    bold: "\x1b[1m",
    end: "\x1b[0m",
};

pub fn text(reports: &[Report], colourful: bool) -> String {
    let style = if colourful { COLOURS } else { PLAIN };
    let mut out = String::new();
    for report in reports {
        for finding in report.findings.iter() {
            finding_text(report, finding, &style, &mut out);
        }
        let count = |severity, word| match report.findings.count(severity) {
            0 => None,
            1 => Some(format!("1 {word}")),
            count => Some(format!("{count} {word}s")),
        };
        let counts: Vec<_> = [count(Severity::Error, "error"), count(Severity::Warning, "warning")]
            .into_iter()
            .flatten()
            .collect();
        let verdict = if counts.is_empty() { "no problems".to_owned() } else { counts.join(", ") };
        out += &format!("{}: {verdict}\n", report.source.file_name(0));
    }
    out
}

fn finding_text(report: &Report, finding: &Finding, style: &Style, out: &mut String) {
    let Finding { span, severity, text, help } = finding;
    let (word, colour) = match severity {
        Severity::Warning => ("warning", style.warning),
        Severity::Error => ("error", style.error),
    };
    let Style { frame, bold, end, .. } = style;
    *out += &format!("{colour}{word}{end}{bold}: {}{end}\n", harmless(text));
    let file = report.source.file_name(span.file);
    let number = span.line.to_string();
    let margin = " ".repeat(number.len());
    if span.line == 0 {
        *out += &format!("{margin}{frame}-->{end} {file}\n\n");
        return;
    }
    let column = report.source.column(*span);
    let (shown, before, length) = excerpt(report, *span);
    let caret = "^".repeat(length.max(1));
    let indent = " ".repeat(before);
    *out += &format!("{margin}{frame}-->{end} {file}:{}:{column}\n", span.line);
    *out += &format!("{margin} {frame}|{end}\n");
    *out += &format!("{frame}{number} |{end} {shown}\n");
    *out += &format!("{margin} {frame}|{end} {indent}{colour}{caret}{end}\n");
    if let Some(help) = help {
        *out += &format!("{margin} {frame}={end} {bold}help{end}: {}\n", harmless(help));
    }
    out.push('\n');
}

/// The line around a place, what stands before the place, and the place's length: in characters.
fn excerpt(report: &Report, span: Span) -> (String, usize, usize) {
    let source = &report.source;
    let line = masked(source, report.findings.secrets(), span);
    let end = span.at.saturating_add(span.length);
    let count = |text: Option<&str>| text.unwrap_or_default().chars().count();
    let at = count(line.get(..span.at.min(line.len())));
    let length = count(line.get(span.at.min(line.len())..end.min(line.len())));
    let all: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    // The window moves right as far as it must, and keeps some of what stands before.
    let from = match all.len() {
        ..=WIDTH => 0,
        _ if at.saturating_add(length) < WIDTH => 0,
        _ => at.saturating_sub(WIDTH / 3),
    };
    let window: String = all.iter().skip(from).take(WIDTH).collect();
    let cut = all.len() > from.saturating_add(WIDTH);
    let (left, right) = (if from > 0 { "…" } else { "" }, if cut { "…" } else { "" });
    let before = at.saturating_sub(from).saturating_add(usize::from(from > 0));
    let room = WIDTH.saturating_sub(at.saturating_sub(from)).max(1);
    (format!("{left}{window}{right}"), before, length.min(room))
}

/// The line with its secrets hidden: what is printed here ends in the logs of a build server.
fn masked(source: &Source, secrets: &[Span], span: Span) -> String {
    let line = source.line(span.file, span.line);
    let first =
        secrets.partition_point(|secret| (secret.file, secret.line) < (span.file, span.line));
    let here = secrets
        .iter()
        .skip(first)
        .take_while(|secret| (secret.file, secret.line) == (span.file, span.line));
    let mut out = line.to_owned();
    for secret in here {
        let end = secret.at.saturating_add(secret.length);
        let (Some(before), Some(text), Some(after)) =
            (out.get(..secret.at), out.get(secret.at..end), out.get(end..))
        else {
            continue;
        };
        // As many bytes as before, so that places stay what they are.
        let stars: String = text.chars().map(|c| "*".repeat(c.len_utf8())).collect();
        out = format!("{before}{stars}{after}");
    }
    out
}

/// A terminal obeys what it is sent, and texts quote the file.
fn harmless(text: &str) -> String {
    text.replace(char::is_control, "?")
}

#[derive(Serialize)]
struct Problems<'a> {
    problems: Vec<Item<'a>>,
}

/// One problem in the JSON. Names and meanings are promised in the manual page.
#[derive(Serialize)]
struct Item<'a> {
    file: &'a str,
    /// 1-based; 0 where the file as a whole is meant.
    line: usize,
    /// 1-based, in characters; 0 with line 0.
    column: usize,
    severity: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'a str>,
}

pub fn json(reports: &[Report]) -> String {
    let problems = reports.iter().flat_map(|report| {
        report.findings.iter().map(|finding| Item {
            file: report.source.file_name(finding.span.file),
            line: finding.span.line,
            column: if finding.span.line == 0 { 0 } else { report.source.column(finding.span) },
            severity: match finding.severity {
                Severity::Warning => "warning",
                Severity::Error => "error",
            },
            message: &finding.text,
            help: finding.help.as_deref(),
        })
    });
    let problems = Problems { problems: problems.collect() };
    let mut text = serde_json::to_string_pretty(&problems).unwrap_or_default();
    text.push('\n');
    text
}
