//! `landfall plan`: what a node would do, stage by stage.

use std::path::Path;
use std::process::ExitCode;

use lexopt::prelude::*;

use super::Output;
use crate::cmdline::Request;
use crate::machine::Identity;
use crate::plan::Plan;

/// Reads the rest of the command line and does what it asks for.
///
/// # Errors
/// The command line cannot be understood.
pub fn run(parser: &mut lexopt::Parser) -> Result<Output, lexopt::Error> {
    let mut words = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Value(word) => words.push(word.string()?),
            other => return Err(other.unexpected()),
        }
    }
    let plan = Plan::decide(Request::read(&words.join(" ")), &Identity::read(Path::new("/sys")));
    let status = if plan.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) };
    Ok(Output { text: format!("{plan}\n"), status })
}
