//! `landfall settings`: the table of settings as a text, and with `--man` as the manual page
//! lts.conf(5), which is in the tree as `man/landfall-lts.conf.5`.

use std::fmt::Write;
use std::process::ExitCode;

use lexopt::prelude::*;

use super::Output;
use crate::config::network::NetworkKey;
use crate::config::{KNOWN, Known, Standing, Topic, Value as Type};

/// Reads the rest of the command line and does what it asks for.
///
/// # Errors
/// The command line cannot be understood.
pub fn run(parser: &mut lexopt::Parser) -> Result<Output, lexopt::Error> {
    let mut as_manual = false;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("man") => as_manual = true,
            other => return Err(other.unexpected()),
        }
    }
    let text = if as_manual { page() } else { table() };
    Ok(Output { text, status: ExitCode::SUCCESS })
}

const TOPICS: &[(Topic, &str)] = &[
    (Topic::Source, "Sections and sources"),
    (Topic::Names, "Names"),
    (Topic::Network, "Network"),
    (Topic::Time, "Time"),
    (Topic::Commands, "Commands"),
    (Topic::Services, "Services"),
    (Topic::Mounts, "Mounts"),
    (Topic::Swap, "Swap"),
    (Topic::Files, "Files and keys"),
    (Topic::System, "Modules, kernel parameters, keyboard"),
    (Topic::Given, "Known without being set"),
    (Topic::Ignored, "Without effect"),
];

fn rows(topic: Topic) -> impl Iterator<Item = &'static Known> {
    KNOWN.iter().filter(move |known| known.topic == topic)
}

/// A value as the manual shows it.
fn shape(value: Type) -> String {
    let or = |words: &[&str]| words.join(" | ");
    match value {
        Type::Text => "TEXT".into(),
        Type::Boolean | Type::Switch => "true | false".into(),
        Type::BooleanOr(words) => format!("true | false | {}", or(words)),
        Type::OneOf(words) => or(words),
        Type::Section => "SECTION".into(),
        Type::Exactly(word) => word.into(),
        Type::HostName => "NAME".into(),
        Type::PartOfName | Type::Keyboard => "TEXT".into(),
        Type::Host => "HOST".into(),
        Type::Hosts { word: Some(word), .. } => format!("{word} | HOST ..."),
        Type::Hosts { ports: true, .. } => "HOST[:PORT] ...".into(),
        Type::Hosts { .. } => "HOST ...".into(),
        Type::Addresses => "ADDRESS ...".into(),
        Type::AddressOr(words) => format!("ADDRESS | {}", or(words)),
        Type::Domains => "DOMAIN ...".into(),
        Type::HostsLine => "ADDRESS NAME ...".into(),
        Type::Services => "SERVICE ...".into(),
        Type::TimeOfDay => "hh:mm[:ss]".into(),
        Type::TimeZone => "AREA/PLACE".into(),
        Type::Megabytes => "MEGABYTES".into(),
        Type::SizeOrShare => "SIZE | SHARE% | off".into(),
        Type::Module => "MODULE [PARAMETER=VALUE ...]".into(),
        Type::FstabLine => "DEVICE MOUNTPOINT TYPE OPTIONS [DUMP PASS]".into(),
        Type::NfsSource => "[SERVER:]/PATH".into(),
        Type::MountOptions => "OPTION,...".into(),
        Type::ShellLine => "COMMAND".into(),
        Type::CronLine => "MINUTE HOUR DAY MONTH WEEKDAY USER COMMAND".into(),
        Type::Path => "/PATH".into(),
        Type::FileName => "FILE".into(),
        Type::Paths => "/PATH ...".into(),
        Type::Sysctl => "KEY=VALUE ...".into(),
        Type::ContainerDirs => {
            "auto | off | /PATH[=tmpfs[:SIZE]] | /PATH=DEVICE[:OPTIONS] ...".into()
        }
        Type::SshKey => "[USER:] KEY".into(),
        Type::File => {
            "/PATH [mode=MODE] [owner=USER[:GROUP]] content=TEXT | append=TEXT | base64=DATA".into()
        }
        Type::Network(key) => match key {
            NetworkKey::Ip => "METHOD | DEVICE:METHOD | ADDRESS/PREFIX::GATEWAY:::DEVICE:none ...",
            NetworkKey::Bond => "NAME:PORT,PORT[:OPTION=VALUE,...[:MTU]] ...",
            NetworkKey::Vlan => "NAME:DEVICE ...",
            NetworkKey::Bridge => "NAME:PORT,PORT ...",
            NetworkKey::Route => "NETWORK/PREFIX:[GATEWAY][:DEVICE] ...",
            NetworkKey::Nameserver => "ADDRESS ...",
            NetworkKey::IfName => "NAME:MAC ...",
            NetworkKey::Handover => "dhcp | static | unmanaged",
        }
        .into(),
    }
}

/// What a row says in one paragraph.
fn meaning(known: &Known) -> String {
    match known.default {
        "" => known.manual.to_owned(),
        default => format!("{} Default: {default}.", known.manual),
    }
}

fn table() -> String {
    let mut out = String::new();
    for (topic, title) in TOPICS {
        let _ = writeln!(out, "{title}");
        for known in rows(*topic) {
            let value = match known.standing {
                Standing::Applied => format!(" = {}", shape(known.value)),
                Standing::Given | Standing::Ignored(_) => String::new(),
            };
            let _ = writeln!(out, "  {}{value}", known.title());
            wrap(&meaning(known), &mut out);
        }
        out.push('\n');
    }
    out.push_str("An unknown setting is no mistake: it is in the environment of all commands.\n");
    out
}

/// Writes a paragraph with lines of less than 80 characters.
fn wrap(text: &str, out: &mut String) {
    let mut width: usize = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if width == 0 || width.saturating_add(length) >= 78 {
            out.push_str(if width == 0 { "      " } else { "\n      " });
            width = 6;
        } else {
            out.push(' ');
        }
        out.push_str(word);
        width = width.saturating_add(length).saturating_add(1);
    }
    out.push('\n');
}

/// The prose of the page: a line with `#` is a heading, one that begins with `|` is shown as it is,
/// one with `:` behind a term in backquotes is an item; backquotes make bold.
const BEFORE: &str = include_str!("manual/before.txt");
const AFTER: &str = include_str!("manual/after.txt");

fn page() -> String {
    let mut out = String::from(
        ".\\\" Made by `landfall settings --man`; do not edit.\n\
         .TH LTS.CONF 5 \"\" Landfall \"File formats\"\n",
    );
    prose(BEFORE, &mut out);
    for (topic, title) in TOPICS {
        let _ = writeln!(out, ".SS {}", escape(title));
        if *topic == Topic::Ignored {
            out.push_str("These are LTSP's, and a node names those that it finds.\n");
        }
        for known in rows(*topic) {
            let value = match known.standing {
                Standing::Applied => format!(" = {}", escape(&shape(known.value))),
                Standing::Given | Standing::Ignored(_) => String::new(),
            };
            let _ = writeln!(out, ".TP\n\\fB{}\\fR{value}", escape(&known.title()));
            let _ = writeln!(out, "{}", guarded(&escape(&meaning(known))));
        }
    }
    prose(AFTER, &mut out);
    out
}

fn prose(text: &str, out: &mut String) {
    let mut in_example = false;
    let mut fresh = true;
    for line in text.lines() {
        let example = line.strip_prefix('|');
        match (example.is_some(), in_example) {
            (true, false) => out.push_str(".PP\n.RS 4\n.nf\n"),
            (false, true) => out.push_str(".fi\n.RE\n"),
            _ => {}
        }
        in_example = example.is_some();
        if let Some(example) = example {
            let _ =
                writeln!(out, "{}", guarded(&escape(example.strip_prefix(' ').unwrap_or(example))));
        } else if let Some(title) = line.strip_prefix("# ") {
            let _ = writeln!(out, ".SH {}", escape(title));
            fresh = true;
        } else if line.is_empty() {
            fresh = false;
        } else if let Some((term, text)) =
            line.strip_prefix("- ").and_then(|line| line.split_once(": "))
        {
            let _ = writeln!(out, ".TP\n{}\n{}", bold(term), guarded(&bold(text)));
            fresh = true;
        } else {
            if !fresh {
                out.push_str(".PP\n");
            }
            let _ = writeln!(out, "{}", guarded(&bold(line)));
            fresh = true;
        }
    }
    if in_example {
        out.push_str(".fi\n.RE\n");
    }
}

/// Backquoted pieces in bold.
fn bold(text: &str) -> String {
    let mut out = String::new();
    for (number, piece) in text.split('`').enumerate() {
        match number % 2 {
            0 => out.push_str(&escape(piece)),
            _ => {
                let _ = write!(out, "\\fB{}\\fR", escape(piece));
            }
        }
    }
    out
}

/// A line that would be a request otherwise.
fn guarded(line: &str) -> String {
    match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}"),
        false => line.to_owned(),
    }
}

/// What roff would read as something else, or would typeset as another character.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '\'' => out.push_str("\\(aq"),
            '`' => out.push_str("\\(ga"),
            '^' => out.push_str("\\(ha"),
            '~' => out.push_str("\\(ti"),
            '"' => out.push_str("\\(dq"),
            c if c.is_ascii() => out.push(c),
            c => {
                let _ = write!(out, "\\[u{:04X}]", u32::from(c));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/man/landfall-lts.conf.5");

    /// `UPDATE=1 cargo test` writes it anew.
    #[test]
    fn the_manual_page_in_the_tree_is_that_of_the_table() {
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(COMMITTED, page()).unwrap();
        }
        let committed = std::fs::read_to_string(COMMITTED).unwrap();
        assert!(committed == page(), "landfall settings --man > man/landfall-lts.conf.5");
    }

    #[test]
    fn every_setting_is_in_both_and_lines_are_short() {
        let (text, page) = (table(), page());
        for known in KNOWN {
            assert!(text.contains(&format!("\n  {}", known.title())), "{}", known.name);
            assert!(
                page.contains(&format!("\\fB{}\\fR", escape(&known.title()))),
                "{}",
                known.name
            );
            assert!(TOPICS.iter().any(|(topic, _)| *topic == known.topic), "{}", known.name);
        }
        let paragraphs = text.lines().filter(|line| line.starts_with("      "));
        let longest = paragraphs.max_by_key(|line| line.chars().count()).unwrap();
        assert!(longest.chars().count() < 80, "{longest}");
    }

    #[test]
    fn roff_sees_no_request_in_a_text() {
        let cases = [
            ("a-b", "a\\-b"),
            (".x", "\\&.x"),
            ("'x'", "\\(aqx\\(aq"),
            ("a\\nb", "a\\enb"),
            ("`A` …", "\\fBA\\fR \\[u2026]"),
        ];
        for (text, expected) in cases {
            assert_eq!(guarded(&bold(text)), expected, "{text}");
        }
    }

    #[test]
    #[ignore = "needs groff"]
    fn groff_has_no_warning_about_the_page() {
        let groff = std::process::Command::new("groff")
            .args(["-man", "-Tutf8", "-ww", COMMITTED])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&groff.stderr).into_owned();
        assert!(groff.status.success() && said.is_empty(), "{said}");
        let text = String::from_utf8_lossy(&groff.stdout).into_owned();
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("a mistake costs its own line") && words.ends_with("LTS.CONF(5)"));
    }
}
