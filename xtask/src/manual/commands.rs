//! The commands and options of `landfall`, read from its help texts.
//!
//! The program reads its command line word by word and has no table of options; its help does:
//! a command's usage begins with `landfall WORD`, options of its own follow until the next usage.

use anyhow::{Context, Result, ensure};
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ValueHint};
use landfall::command::help;

#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    pub name: &'static str,
    /// The line of the overview.
    pub about: String,
    pub options: Vec<Flag<'static>>,
    /// The ways to call it.
    pub usages: Vec<&'static str>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Flag<'a> {
    /// Without dashes.
    pub name: &'a str,
    /// As the help names it (`FILE`, `text|json`); empty if it takes none.
    value: &'a str,
    about: &'a str,
}

/// What `landfall help` says.
pub fn overview() -> Result<&'static str> {
    help("help").context("landfall help says nothing")
}

/// In the order of the overview.
pub fn all() -> Result<Vec<Command>> {
    let mut commands: Vec<Command> = Vec::new();
    let mut rest = overview()?.lines().peekable();
    while let Some(line) = rest.next() {
        // Without blanks in front it is prose.
        let Some(name) = usage_of(line).filter(|_| line.starts_with(' ')) else { continue };
        let (usage, about) = cells(line);
        let mut about = about.to_owned();
        while let Some(more) = rest.next_if(|line| line.starts_with("         ")) {
            about = format!("{about} {}", more.trim()).trim().to_owned();
        }
        let text = help(name).with_context(|| format!("landfall help {name} says nothing"))?;
        let own = if text == overview()? { usage } else { text };
        commands.push(Command {
            name,
            about,
            options: flags(own, name),
            usages: own
                .lines()
                .filter(|line| usage_of(line) == Some(name) && !line.contains(':'))
                .map(|line| cells(line).0)
                .collect(),
        });
    }
    ensure!(!commands.is_empty(), "landfall help names no command");
    Ok(commands)
}

/// For the generators of completions.
pub fn as_clap() -> Result<clap::Command> {
    let all = all()?;
    let names: Vec<&str> = all.iter().map(|command| command.name).collect();
    let mut root = clap::Command::new("landfall")
        .disable_help_subcommand(true)
        .arg(Arg::new("version").short('V').long("version").action(ArgAction::SetTrue))
        .subcommand(
            clap::Command::new("help")
                .about("what a command does, and its options")
                .disable_help_flag(true)
                .arg(Arg::new("COMMAND").value_parser(PossibleValuesParser::new(names))),
        );
    for command in all {
        let mut subcommand = clap::Command::new(command.name).about(command.about);
        for flag in command.options {
            subcommand = subcommand.arg(flag.into_clap());
        }
        let takes_paths = command
            .usages
            .iter()
            .any(|usage| usage.split(' ').any(|word| matches!(word, "FILE..." | "TARGET")));
        if takes_paths {
            let paths = Arg::new("PATH").value_hint(ValueHint::AnyPath);
            subcommand = subcommand.arg(paths.num_args(0..));
        }
        root = root.subcommand(subcommand);
    }
    Ok(root)
}

impl Flag<'static> {
    fn into_clap(self) -> Arg {
        let arg = Arg::new(self.name).long(self.name).help(self.about);
        let choices: Vec<&str> = self.value.split('|').collect();
        match self.value {
            "" => arg.action(ArgAction::SetTrue),
            "FILE" | "OLD" | "LIST" | "IMAGE" => arg.value_hint(ValueHint::AnyPath),
            _ if choices.len() > 1 => arg.value_parser(PossibleValuesParser::new(choices)),
            _ => arg.value_hint(ValueHint::Other),
        }
    }
}

/// The options that `text` has for `command`, in the order of its list and then of its prose.
fn flags<'a>(text: &'a str, command: &str) -> Vec<Flag<'a>> {
    let mut flags: Vec<Flag<'_>> = Vec::new();
    let mut ours = true;
    for line in text.lines() {
        // Headings name a command with a colon.
        if let Some(name) = usage_of(line) {
            ours = name == command;
        }
        if !ours {
            continue;
        }
        let (left, about) = cells(line);
        let words: Vec<&str> = left.split(' ').collect();
        for (number, word) in words.iter().enumerate() {
            let bare = word.trim_start_matches('[');
            let Some(name) = bare.strip_prefix("--") else { continue };
            let name = name.trim_end_matches([']', ',', ':', '.']);
            let value = match words.get(number + 1) {
                Some(next) if !bare.ends_with([']', ',', ':', '.']) => value(next),
                _ => "",
            };
            // `--diff:` begins a row about something else, such as the exit status.
            let is_row = number == 0 && !word.ends_with(':');
            let about = if is_row { about } else { "" };
            match flags.iter_mut().find(|flag| flag.name == name) {
                Some(known) if known.about.is_empty() => known.about = about,
                Some(_) => {}
                None => flags.push(Flag { name, value, about }),
            }
        }
    }
    flags
}

/// `landfall check: …` and `  landfall check FILE…` are about check; prose is further to the right,
/// and may begin in the same way.
fn usage_of(line: &str) -> Option<&str> {
    let line = line.strip_prefix("  ").unwrap_or(line);
    let name = line.strip_prefix("landfall ")?.split(' ').next()?.trim_end_matches(':');
    let is_name = !name.is_empty() && name.bytes().all(|c| c.is_ascii_lowercase() || c == b'-');
    is_name.then_some(name)
}

/// What a line explains, and how: two blanks stand between.
fn cells(line: &str) -> (&str, &str) {
    let (left, right) = line.trim().split_once("  ").unwrap_or((line.trim(), ""));
    (left, right.trim())
}

/// Whether the word behind an option is its value: in capitals, quoted, or a choice.
fn value(word: &str) -> &str {
    let bare = word.strip_suffix("]").filter(|word| !word.contains('[')).unwrap_or(word);
    let is_name = bare.starts_with(|c: char| c.is_ascii_uppercase())
        && !bare.contains(|c: char| c.is_ascii_lowercase());
    if is_name || bare.starts_with('\'') || bare.contains('|') { bare } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn options_are_read_as_help_texts_show_them() {
        let shared = "landfall claims [--verbose] [--cmdline TEXT]\n    1 if --odd was given\n\n\
                      landfall mount-root [--print-init] TARGET\n    --print-init    print it\n";
        let cases = [
            ("check",      "  --strict             a warning counts",            "strict="),
            ("check",      "  --strict             a warning\n1 if --strict was", "strict="),
            ("check",      "  --format text|json   json: one object",            "format=text|json"),
            ("plan",       "  landfall plan --diff OLD NEW --nodes LIST",        "diff=OLD nodes=LIST"),
            ("plan",       "  --diff:   0 if nothing changes",                   "diff="),
            ("plan",       "  --ip IP[/PREFIX]     the address",                 "ip=IP[/PREFIX]"),
            ("plan",       "  --cmdline '...'      the command line",            "cmdline='...'"),
            ("plan",       "landfall plan: what\n  --a A  b",                    "a=A"),
            ("claims",     shared,                                             "verbose= cmdline=TEXT odd="),
            ("mount-root", shared,                                             "print-init="),
            ("plan",       "  landfall plan\n    landfall check is\n  --a  b",   "a="),
        ];
        for (command, text, expected) in cases {
            let got = flags(text, command);
            let got: Vec<_> = got.iter().map(|flag| format!("{}={}", flag.name, flag.value)).collect();
            assert_eq!(got.join(" "), expected, "{text}");
        }
    }

    /// Whoever adds an option to the program adds it to the help; this is where one that the
    /// reader above cannot see would be missed.
    #[test]
    fn every_option_in_a_help_text_is_known() {
        for command in all().unwrap() {
            let text = help(command.name).unwrap();
            if text == overview().unwrap() {
                continue;
            }
            let mut names = text
                .split(|c: char| !(c.is_ascii_lowercase() || c == '-'))
                .filter_map(|word| word.strip_prefix("--"));
            let shared = all().unwrap();
            let known = |name: &str| {
                shared
                    .iter()
                    .filter(|other| help(other.name) == Some(text))
                    .any(|other| other.options.iter().any(|flag| flag.name == name))
            };
            assert_eq!(names.find(|name| !known(name)), None, "{}", command.name);
        }
    }

    #[test]
    fn the_overview_names_the_commands_that_there_are() {
        let all = all().unwrap();
        let find = |name: &str| all.iter().find(|command| command.name == name).unwrap();
        assert_eq!(find("check").usages, ["landfall check [options] FILE..."]);
        assert_eq!((find("plan").usages.len(), find("settings").usages.len()), (3, 1));
        assert_eq!(find("settings").options.len(), 1);
        assert!(find("plan").about.ends_with("for which nodes"), "{}", find("plan").about);
        assert!(find("plan").options.iter().any(|flag| flag.value == "IP[/PREFIX]"));
        as_clap().unwrap().debug_assert();
    }
}
