//! `landfall plan`: what a node would do, stage by stage, decided by the code of the boot.
//!
//! ```text
//! options    what was asked
//! situation  a node, its command line and its lease, and how much of them is not known
//! decide     the boot's own decisions ──> document, which --format json prints
//! text       document ──> what people read, without its secrets
//! diff       two documents for each of many nodes ──> what changes
//! ```
//!
//! Deliberately absent: anything that writes, mounts, or speaks to a network. What only the network
//! could tell (a lease, an image on a server) is given by the operator, or said to be unknown.

mod decide;
mod diff;
mod document;
mod files;
mod heard;
mod help;
mod memory;
mod node;
mod options;
mod page;
mod problem;
mod secrets;
mod situation;
mod text;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

pub use help::HELP;

use super::Output;
use super::image::Image;
use crate::cmdline::Request;
use crate::config::{Reading, Text, include_from_disk};
use crate::error::{Error, Result, WhileDoing};
use crate::machine::Identity;
use crate::net::LeaseFile;
use crate::plan::Plan;
use document::{Document, Severity};
use options::{Asked, DiffQuestion, Format, NodeQuestion};
use secrets::hidden_in_line;
use situation::Situation;

/// Of a configuration; what a node would fetch is no longer either.
const LARGEST: u64 = 4 << 20;

/// Reads the rest of the command line and does what it asks for.
///
/// # Errors
/// The command line cannot be understood, or a file that it names cannot be read.
pub fn run(parser: &mut lexopt::Parser) -> Result<Output, lexopt::Error> {
    let output = match options::read(parser)? {
        Asked::Help => Ok(Output { text: HELP.to_owned(), status: ExitCode::SUCCESS }),
        Asked::CommandLine(line) => Ok(of_command_line(&line)),
        Asked::Node(question) => of_node(&question),
        Asked::Diff(question) => of_diff(&question),
    };
    output.map_err(|error| match error.hint() {
        Some(hint) => format!("{error} ({hint})").into(),
        None => error.to_string().into(),
    })
}

fn of_command_line(line: &str) -> Output {
    let plan = Plan::decide(Request::read(line), &Identity::read(Path::new("/sys")));
    let status = if plan.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) };
    let text = plan.to_string().lines().map(|line| hidden_in_line(line) + "\n").collect();
    Output { text, status }
}

fn of_node(question: &NodeQuestion) -> Result<Output> {
    let plan = plan(question)?;
    let wrong = plan.problems.iter().any(|problem| problem.severity == Severity::Error);
    let status = if wrong { ExitCode::from(2) } else { ExitCode::SUCCESS };
    let text = match question.format {
        Format::Text => text::render(&plan),
        Format::Json => json(&plan)?,
    };
    Ok(Output { text, status })
}

fn plan(question: &NodeQuestion) -> Result<Document> {
    let file = question.lease.as_deref().map(lease).transpose()?;
    let situation = Situation::of(question.node.clone(), file, &question.site)
        .map_err(|why| Error::invalid("making the plan", why))?;
    let reading = reading(&question.config)?;
    let image = image(question.site.image.as_deref())?;
    Ok(decide::decide(&situation, &reading, &question.site, &image, true))
}

fn of_diff(question: &DiffQuestion) -> Result<Output> {
    let list = &question.nodes;
    let doing = || format!("reading {}", list.display());
    let nodes = node::list(&String::from_utf8_lossy(&read(list)?)).map_err(|wrong| {
        let lines = wrong.iter().take(10);
        let lines: Vec<_> = lines.map(|(line, why)| format!("line {line}: {why}")).collect();
        Error::invalid(doing(), lines.join("; "))
    })?;
    if nodes.nodes.is_empty() {
        let why = match nodes.skipped.first() {
            Some(skipped) => format!("there is no node in it ({skipped})"),
            None => "there is no node in it".to_owned(),
        };
        return Err(Error::invalid(doing(), why));
    }
    let (old, new) = (reading(&question.old)?, reading(&question.new)?);
    let image = image(question.site.image.as_deref())?;
    let difference = diff::compare(&old, &new, &nodes, &question.site, &image)
        .map_err(|why| Error::invalid("comparing the plans", why))?;
    let status = ExitCode::from(difference.status());
    let text = match question.format {
        Format::Text => diff::render(&difference),
        Format::Json => json(&difference)?,
    };
    Ok(Output { text, status })
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::invalid("writing JSON", error.to_string()))?;
    Ok(text + "\n")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let doing = || format!("reading {}", path.display());
    let mut bytes = Vec::new();
    let file = fs::File::open(path).while_doing(doing)?;
    file.take(LARGEST.saturating_add(1)).read_to_end(&mut bytes).while_doing(doing)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::refused(doing(), "it is longer than 4 MiB, and no node would take it"));
    }
    Ok(bytes)
}

fn reading(path: &Path) -> Result<Reading> {
    let main = Text::of_bytes(path.display().to_string(), read(path)?);
    Ok(Reading::of_all(main, &mut include_from_disk))
}

fn lease(path: &Path) -> Result<LeaseFile> {
    let doing = || format!("reading the lease {}", path.display());
    serde_json::from_slice(&read(path)?).map_err(|error| {
        Error::invalid(doing(), error.to_string())
            .with_hint("it is the file /run/landfall/lease.json of a node")
    })
}

fn image(path: Option<&Path>) -> Result<Image> {
    path.map_or_else(|| Ok(Image::unknown()), Image::open)
}

#[cfg(test)]
mod tests;
