//! The binary when it is not PID 1: `landfall plan 'ip=dhcp root=…'`, `landfall mount-root /root`.

use std::io::{self, Write};
use std::process::ExitCode;

use lexopt::prelude::*;

use crate::cmdline::KEYS;
use crate::desk::{self, Output};
use crate::handler;
use crate::keeper;

const HELP: &str = "\
landfall boots machines over the network: it is PID 1 of their initramfs.
As a command:

  landfall check FILE...                what is wrong with an lts.conf
  landfall plan ...                     what a node would do with its next boot, and what a
                                        new configuration changes for which nodes
  landfall status                       where the root of this machine is read from, and how
                                        its servers are
  landfall settings [--man]             the table of settings; as the manual page lts.conf(5)
  landfall keys                         the table of kernel parameters
  landfall version

In an initramfs that has another init, its scripts ask and call:

  landfall claims                       whether the root of this boot is Landfall's
  landfall mount-root TARGET            bring up the network and mount the root

landfall help COMMAND has the options of check, plan, status, claims and mount-root, and so has --help
behind a command.
";

/// Exit status: as the command says; 2 when the command line could not be understood.
pub fn main() -> ExitCode {
    match run() {
        Ok(Output { text, status }) => {
            // A closed pipe is the reader's business.
            let _ = io::stdout().lock().write_all(text.as_bytes());
            status
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "landfall: {error}\nlandfall help says more");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<Output, lexopt::Error> {
    let mut parser = lexopt::Parser::from_env();
    if handler::is_mount_helper(std::env::args_os().next().as_deref()) {
        return handler::mount_helper(&mut parser);
    }
    let says = |text: String| Ok(Output { text, status: ExitCode::SUCCESS });
    let Some(argument) = parser.next()? else { return Err("a command is missing".into()) };
    match argument {
        Short('h') | Long("help") => says(HELP.to_owned()),
        Short('V') | Long("version") => says(version()),
        Value(word) => match word.string()?.as_str() {
            "help" => match parser.next()? {
                Some(Value(word)) => {
                    let word = word.string()?;
                    help(&word).map_or_else(
                        || Err(format!("no help about {word}").into()),
                        |text| says(text.to_owned()),
                    )
                }
                Some(other) => Err(other.unexpected()),
                None => says(HELP.to_owned()),
            },
            word if let Some(text) = help(word)
                && asks_for_help(&mut parser) =>
            {
                says(text.to_owned())
            }
            "version" => says(version()),
            "keys" => says(keys_table()),
            "claims" => handler::claims(&mut parser),
            "mount-root" => handler::run(&mut parser),
            "status" => keeper::show(&mut parser),
            "keeper" if called_as_keeper() => {
                Ok(Output { text: String::new(), status: keeper::main() })
            }
            "check" => desk::check::run(&mut parser),
            "plan" => desk::plan::run(&mut parser),
            "settings" => desk::manual::run(&mut parser),
            word => Err(format!("no such command: {word}").into()),
        },
        other => Err(other.unexpected()),
    }
}

/// The agent's own word; nobody else has a use for it.
fn called_as_keeper() -> bool {
    std::env::args_os().next().is_some_and(|name| name == keeper::NAME)
}

/// What there is to be said about a command; none if there is no such command.
pub fn help(command: &str) -> Option<&'static str> {
    match command {
        "check" => Some(desk::check::HELP),
        "plan" => Some(desk::plan::HELP),
        "claims" | "mount-root" => Some(handler::HELP),
        "status" => Some(keeper::HELP),
        "help" | "keys" | "settings" | "version" => Some(HELP),
        _ => None,
    }
}

/// Whether the next word is `--help`.
fn asks_for_help(parser: &mut lexopt::Parser) -> bool {
    let next = parser.try_raw_args();
    next.is_some_and(|next| next.peek().is_some_and(|word| word == "--help" || word == "-h"))
}

fn version() -> String {
    format!("landfall {}\n", env!("CARGO_PKG_VERSION"))
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
    table.push_str(
        "| `NAME` | `VALUE` | In upper case, and none of the above: the same, and weaker than DHCP too. |\n",
    );
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_help_and_none_of_it_names_a_source() {
        for command in
            ["check", "plan", "status", "claims", "mount-root", "settings", "keys", "version"]
        {
            let text = help(command).unwrap();
            assert!(text.contains(&format!("landfall {command}")), "{command}");
            assert!(HELP.contains(&format!("  landfall {command}")), "{command}");
        }
        assert!(help("x").is_none());
        assert!(!HELP.contains("src/") && !desk::check::HELP.contains("src/"));
        for (arguments, asked) in
            [(&["--help"][..], true), (&["-h"], true), (&["x", "-h"], false), (&[], false)]
        {
            let mut parser = lexopt::Parser::from_args(arguments);
            assert_eq!(asks_for_help(&mut parser), asked, "{arguments:?}");
        }
    }

    #[test]
    fn the_readme_has_the_table_of_keys() {
        let readme = include_str!("../README.md");
        assert!(readme.contains(&keys_table()), "README.md needs this table:\n{}", keys_table());
    }
}
