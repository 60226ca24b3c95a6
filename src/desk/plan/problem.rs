//! What is wrong, from whomever it comes, in one form and order.

use super::document::{Problem, Severity};
use crate::config::{self, Reading, Settings};
use crate::error::Error;

/// Name of the command line in the list of problems.
const COMMAND_LINE: &str = "kernel command line";

/// The one line that a family's trouble is about, if there is one: the family's name is that of
/// a setting, or of a group of which there is one.
pub fn place_of_family(
    family: &str,
    settings: &Settings,
    reading: &Reading,
) -> Option<(String, config::Place)> {
    let setting = match family.strip_suffix('*') {
        Some(prefix) => match settings.family(prefix).as_slice() {
            [(name, _)] => settings.setting(name),
            _ => None,
        },
        None => settings.setting(family),
    };
    match setting?.origin {
        config::Origin::File(place) => Some((file_name(place, reading)?, place)),
        _ => None,
    }
}

/// The order of problems: the command line, files by their lines, and what has no place.
pub fn place_of(problem: &Problem) -> (u8, Option<String>, Option<usize>, Option<usize>) {
    let rank = match problem.file.as_deref() {
        Some(COMMAND_LINE) => 0,
        Some(_) => 1,
        None => 2,
    };
    (rank, problem.file.clone(), problem.line, problem.column)
}

pub fn of_command_line(problem: &crate::cmdline::Problem, line: &str) -> Problem {
    let before = line.get(..problem.at).unwrap_or(line);
    Problem {
        file: Some(COMMAND_LINE.to_owned()),
        line: Some(1),
        column: Some(before.chars().count().saturating_add(1)),
        // It stops no boot, but nothing of what was asked for happens.
        severity: if problem.is_in_force { Severity::Warning } else { Severity::Error },
        message: format!("{}: {}", problem.word, problem.why),
        help: None,
    }
}

pub fn of_file(problem: &config::Problem, reading: &Reading) -> Problem {
    Problem {
        file: file_name(problem.place, reading),
        line: Some(problem.place.line),
        column: Some(problem.place.column),
        severity: match problem.severity {
            config::Severity::Warning => Severity::Warning,
            config::Severity::Error => Severity::Error,
        },
        message: problem.text.clone(),
        help: problem.help.clone(),
    }
}

pub fn of_network(wrong: &config::network::Wrong, reading: &Reading) -> Problem {
    Problem {
        file: wrong.place.and_then(|place| file_name(place, reading)),
        line: wrong.place.map(|place| place.line),
        column: wrong.place.map(|place| place.column),
        severity: if wrong.is_in_force { Severity::Warning } else { Severity::Error },
        message: format!("{}: {}", wrong.setting, wrong.text),
        help: None,
    }
}

pub fn of_error(error: &Error, place: Option<(String, config::Place)>) -> Problem {
    let (file, place) = place.unzip();
    Problem {
        file,
        line: place.map(|place| place.line),
        column: place.map(|place| place.column),
        severity: Severity::Error,
        message: error.to_string(),
        help: error.hint().map(str::to_owned),
    }
}

pub fn said(severity: Severity, message: String) -> Problem {
    Problem { file: None, line: None, column: None, severity, message, help: None }
}

/// None for a file that is not there.
pub fn file_name(place: config::Place, reading: &Reading) -> Option<String> {
    reading.files.get(place.file).map(|file| file.name.clone())
}
