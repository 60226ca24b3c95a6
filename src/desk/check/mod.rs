//! `landfall check FILE…`: what is wrong with a configuration, before a machine boots with it.
//!
//! Where a boot looks at what is in force on one machine, this looks at all sections, so some of
//! what it says no single machine could know: that a section is for nobody, that two lines mount
//! on one place. It reads files and writes to its standard output, and that is all.

mod fields;
mod finding;
mod help;
mod import;
mod render;
mod scripts;
pub(super) mod secrets;
mod sections;
mod settings;
mod source;
mod ssh;
mod values;
mod zones;

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::process::ExitCode;

use lexopt::prelude::*;

pub use self::help::HELP;

use self::finding::{Findings, Span};
use self::source::Source;
use super::Output;
use crate::config::{FromDisk, LIMIT, Reading, Severity, Text};
use crate::error::{Error, Result, WhileDoing};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

/// What the command line asks for.
struct Options {
    files: Vec<String>,
    format: Format,
    strict: bool,
    /// Nodes boot with `landfall.substitution=on`.
    substitution: bool,
}

/// Reads the rest of the command line and does what it asks for.
///
/// The exit status is 2 if there is an error or a file cannot be read, else 1 if there is a warning
/// and `--strict` was given, else 0.
///
/// # Errors
/// The command line cannot be understood.
pub fn run(parser: &mut lexopt::Parser) -> Result<Output, lexopt::Error> {
    let options = options(parser)?;
    let reports: Vec<_> =
        options.files.iter().map(|file| check_file(file, options.substitution)).collect();
    let text = match options.format {
        Format::Json => render::json(&reports),
        Format::Text => render::text(&reports, is_colourful()),
    };
    let worst = reports.iter().filter_map(|report| report.findings.worst()).max();
    let status = match worst {
        Some(Severity::Error) => ExitCode::from(2),
        Some(Severity::Warning) if options.strict => ExitCode::from(1),
        _ => ExitCode::SUCCESS,
    };
    Ok(Output { text, status })
}

fn options(parser: &mut lexopt::Parser) -> Result<Options, lexopt::Error> {
    let (mut files, mut format) = (Vec::new(), Format::Text);
    let (mut strict, mut substitution) = (false, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Value(file) => files.push(file.string()?),
            Long("strict") => strict = true,
            Long("substitution") => substitution = true,
            Long("format") => {
                format = match parser.value()?.string()?.as_str() {
                    "text" => Format::Text,
                    "json" => Format::Json,
                    other => return Err(format!("--format {other}: may be text or json").into()),
                }
            }
            other => return Err(other.unexpected()),
        }
    }
    if files.is_empty() {
        return Err("a file is missing".into());
    }
    Ok(Options { files, format, strict, substitution })
}

fn is_colourful() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    std::io::stdout().is_terminal() && !is_set("NO_COLOR") && !dumb
}

/// One configuration, and all that is to be said about it.
struct Report {
    source: Source,
    findings: Findings,
}

fn check_file(name: &str, substitution: bool) -> Report {
    match read(name) {
        Ok(bytes) => check(name, bytes, substitution),
        Err(error) => {
            let mut findings = Findings::default();
            findings.add(Span::default(), Severity::Error, error.to_string(), None);
            Report { source: Source::of_nothing(name), findings }
        }
    }
}

/// Whatever the name means to the kernel may be checked, a pipe as well, and some have no end.
fn read(name: &str) -> Result<Vec<u8>> {
    let doing = || format!("reading {name}");
    let most = u64::try_from(LIMIT).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    match name {
        "-" => std::io::stdin().lock().take(most).read_to_end(&mut bytes),
        name => File::open(name).and_then(|file| file.take(most).read_to_end(&mut bytes)),
    }
    .while_doing(doing)?;
    match bytes.len() <= LIMIT {
        true => Ok(bytes),
        false => Err(Error::refused(doing(), "a node takes at most 4 MiB of configuration")),
    }
}

/// Everything about one file and what it includes, which is looked for beside it.
fn check(name: &str, bytes: Vec<u8>, substitution: bool) -> Report {
    let mut findings = Findings::default();
    let name = if name == "-" { "<stdin>" } else { name };
    let main = Text::of_bytes(name, bytes);
    let mut disk = FromDisk::beside(&main);
    let reading = Reading::of_all(main, &mut |from, path| disk.get(from, path));
    let source = Source::of(reading);
    source.report_ends_of_lines(&mut findings);
    source.report_problems(&mut findings);
    sections::check(&source, &mut findings);
    let entries = settings::entries(&source);
    settings::check(&source, &entries, substitution, &mut findings);
    scripts::check(&source, &entries, &mut findings);
    findings.sort();
    Report { source, findings }
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod tests;
