//! The binary when it is not PID 1: `landfall plan 'ip=dhcp root=…'`, `landfall version`.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use lexopt::prelude::*;

use crate::cmdline::{KEYS, Request};
use crate::machine::Identity;
use crate::plan::Plan;

const HELP: &str = "\
landfall boots machines over the network: it is PID 1 of their initramfs.
As a command:

  landfall plan 'KERNEL COMMAND LINE'   what a boot with this command line would do
  landfall keys                         the table of kernel parameters
  landfall version
";

/// Exit status: 0, or 2 when the command line could not be understood.
pub fn main() -> ExitCode {
    match run() {
        Ok((text, status)) => {
            // A closed pipe is the reader's business.
            let _ = io::stdout().lock().write_all(text.as_bytes());
            status
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "landfall: {error}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(String, ExitCode), lexopt::Error> {
    let mut parser = lexopt::Parser::from_env();
    let mut words = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok((HELP.to_owned(), ExitCode::SUCCESS)),
            Short('V') | Long("version") => words = vec!["version".to_owned()],
            Value(word) => words.push(word.string()?),
            other => return Err(other.unexpected()),
        }
    }
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["version"] => Ok((format!("landfall {}\n", env!("CARGO_PKG_VERSION")), ExitCode::SUCCESS)),
        ["keys"] => Ok((keys_table(), ExitCode::SUCCESS)),
        ["plan", line @ ..] => {
            let plan =
                Plan::decide(Request::read(&line.join(" ")), &Identity::read(Path::new("/sys")));
            let status =
                if plan.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) };
            Ok((format!("{plan}\n"), status))
        }
        [] => Err("a command is missing".into()),
        [word, ..] => Err(format!("no such command: {word}").into()),
    }
}

/// The table of the README, which a test compares with this.
pub fn keys_table() -> String {
    let mut table = String::from("| key | value | meaning |\n|---|---|---|\n");
    for key in KEYS {
        let value = match key.value {
            "" => String::new(),
            value => format!("`{}`", value.replace('|', "\\|")),
        };
        table.push_str(&format!("| `{}` | {value} | {} |\n", key.name, key.manual));
    }
    table.push_str("| `ltsp.NAME` | `VALUE` | A setting of lts.conf; the file is stronger. |\n");
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_the_table_of_keys() {
        let readme = include_str!("../README.md");
        assert!(readme.contains(&keys_table()), "README.md needs this table:\n{}", keys_table());
    }
}
