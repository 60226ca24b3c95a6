//! Values against what they must look like.
//!
//! An error is what the node would leave out; a warning is what it would do otherwise than meant.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use super::{fields, zones};
use crate::config::{Severity, Value};
use crate::desk::check::sections::is_host_name;
use crate::directives;
use crate::error::Error;

/// Something about a piece of a value; about all of it if the range is empty.
pub struct Remark {
    pub range: Range<usize>,
    pub severity: Severity,
    pub text: String,
    pub help: Option<String>,
}

pub type Remarks = Vec<Remark>;

pub fn error(remarks: &mut Remarks, range: Range<usize>, text: impl Into<String>, help: &str) {
    add(remarks, range, Severity::Error, text.into(), help);
}

pub fn warn(remarks: &mut Remarks, range: Range<usize>, text: impl Into<String>, help: &str) {
    add(remarks, range, Severity::Warning, text.into(), help);
}

fn add(remarks: &mut Remarks, range: Range<usize>, severity: Severity, text: String, help: &str) {
    let help = (!help.is_empty()).then(|| help.to_owned());
    remarks.push(Remark { range, severity, text, help });
}

/// A blank-separated piece of a value, with its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<'a> {
    pub at: usize,
    pub text: &'a str,
}

impl<'a> Word<'a> {
    pub fn range(&self) -> Range<usize> {
        self.at..self.at.saturating_add(self.text.len())
    }

    /// The parts between `separator`s.
    pub fn parts(&self, separator: char) -> Vec<Word<'a>> {
        let mut at = self.at;
        let mut parts = Vec::new();
        for text in self.text.split(separator) {
            parts.push(Word { at, text });
            at = at.saturating_add(text.len()).saturating_add(separator.len_utf8());
        }
        parts
    }

    /// Splits at the first `separator`.
    pub fn split(&self, separator: char) -> Option<(Word<'a>, Word<'a>)> {
        let (before, after) = self.text.split_once(separator)?;
        let at = self.at.saturating_add(before.len()).saturating_add(separator.len_utf8());
        Some((Word { at: self.at, text: before }, Word { at, text: after }))
    }
}

pub fn words(text: &str) -> Vec<Word<'_>> {
    let whole = Word { at: 0, text };
    whole.parts(' ').into_iter().filter(|word| !word.text.is_empty()).collect()
}

/// Checks an imported value; an empty one sets nothing, whatever it is for.
pub fn check(value: Value, text: &str, remarks: &mut Remarks) {
    let words = words(text);
    let Some(first) = words.first().copied() else { return };
    match value {
        Value::Text | Value::Section | Value::ShellLine => {}
        Value::Boolean => boolean(text, &[], remarks),
        Value::Switch => switch(text, remarks),
        Value::BooleanOr(others) => boolean(text, others, remarks),
        Value::OneOf(choices) => one_of(text, choices, remarks),
        Value::HostName => host_name(&words, remarks),
        Value::Host => {
            single(&words, remarks);
            host(first, remarks);
        }
        Value::Hosts { word, ports } => hosts(&words, word, ports, remarks),
        Value::Addresses => words.iter().for_each(|word| address(*word, remarks)),
        Value::AddressOr(others) => {
            single(&words, remarks);
            if !others.contains(&first.text) && first.text.parse::<Ipv4Addr>().is_err() {
                let text = format!("neither an IPv4 address nor {}", others.join(" or "));
                error(remarks, first.range(), text, "");
            }
        }
        Value::Domains => words.iter().for_each(|word| domain(*word, remarks)),
        Value::Services => words.iter().for_each(|word| service(*word, remarks)),
        Value::TimeOfDay => time_of_day(text, remarks),
        Value::TimeZone => time_zone(text, remarks),
        Value::Megabytes => megabytes(first, &words, remarks),
        Value::SizeOrShare => single(&words, remarks),
        Value::Path | Value::FileName | Value::Paths => paths(value, &words, remarks),
        Value::MountOptions => fields::options(first, remarks),
        Value::NfsSource => nfs_source(first, remarks),
        Value::Module => module(&words, remarks),
        Value::Sysctl => sysctl(&words, remarks),
        Value::HostsLine => fields::hosts_line(&words, remarks),
        Value::FstabLine => fields::fstab_line(&words, remarks),
        Value::CronLine => fields::cron_line(&words, remarks),
        Value::ContainerDirs => fields::container_dirs(&words, remarks),
        Value::SshKey => {}
        Value::File => fields::file(&words, remarks),
    }
    // What the node refuses is wrong, whatever else was found.
    let is_wrong = remarks.iter().any(|remark| remark.severity == Severity::Error);
    if let Some(refusal) = refusal(value, text).filter(|_| !is_wrong) {
        let hint = refusal.hint().unwrap_or_default().to_owned();
        error(remarks, 0..0, refusal.cause().to_string(), &hint);
    }
}

/// The node's own word on a value that has a grammar of its own.
fn refusal(value: Value, text: &str) -> Option<Error> {
    match value {
        Value::File => directives::file::parse(text).err(),
        Value::SshKey => directives::ssh::parse(text).err(),
        Value::ContainerDirs => directives::containers::parse(text).err(),
        Value::SizeOrShare => directives::zram::parse(text).err(),
        _ => None,
    }
}

fn single(words: &[Word<'_>], remarks: &mut Remarks) {
    if let Some(second) = words.get(1) {
        error(remarks, second.range(), "only one word can be here", "");
    }
}

fn boolean(text: &str, others: &[&str], remarks: &mut Remarks) {
    let text = text.trim().to_ascii_lowercase();
    let yes = ["true", "y", "yes"];
    let no = ["false", "n", "no", "0", "off", "disable", "disabled", ""];
    if [&yes, &no[..], others].concat().contains(&text.as_str()) {
        return;
    }
    let help = match text.as_str() {
        "1" | "on" | "enable" | "enabled" | "t" => "write true",
        _ => "write true or false",
    };
    let choices = others.iter().map(|other| format!(" and {other}")).collect::<String>();
    let text = format!("LTSP reads this as false; only true, y and yes are true{choices}");
    warn(remarks, 0..0, text.replace(" and ", " or "), help);
}

fn switch(text: &str, remarks: &mut Remarks) {
    if !crate::config::means_yes(text.trim()) {
        boolean(text, &[], remarks);
    }
}

fn one_of(text: &str, choices: &[&str], remarks: &mut Remarks) {
    let text = text.trim();
    if !choices.iter().any(|choice| choice.eq_ignore_ascii_case(text)) {
        error(remarks, 0..0, format!("may be {}", choices.join(" or ")), "");
    }
}

fn host_name(words: &[Word<'_>], remarks: &mut Remarks) {
    if let Some(second) = words.get(1) {
        warn(remarks, second.range(), "a name ends at its first blank", "");
    }
    if let Some(name) = words.first().filter(|name| !is_host_name(name.text)) {
        let help = "letters, digits and -, up to 63 characters between dots";
        error(remarks, name.range(), "this is no host name", help);
    }
}

fn host(word: Word<'_>, remarks: &mut Remarks) {
    let is_address = word.text.parse::<IpAddr>().is_ok();
    let looks_like_one = word.text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if !is_address && (looks_like_one || !is_host_name(word.text)) {
        separated(word, remarks, "this is neither a host name nor an address");
    }
}

fn hosts(words: &[Word<'_>], keyword: Option<&str>, ports: bool, remarks: &mut Remarks) {
    for word in words.iter().copied().filter(|word| Some(word.text) != keyword) {
        match word.split(':').filter(|_| ports) {
            Some((name, port)) => {
                host(name, remarks);
                if !port.text.parse::<u16>().is_ok_and(|port| port > 0) {
                    error(remarks, port.range(), "this is no port", "a number from 1 to 65535");
                }
            }
            None => host(word, remarks),
        }
    }
}

fn address(word: Word<'_>, remarks: &mut Remarks) {
    if word.text.parse::<IpAddr>().is_err() {
        separated(word, remarks, "this is no IP address");
    }
}

/// An error about a word of a list, which may be several words with something else between them.
fn separated(word: Word<'_>, remarks: &mut Remarks, text: &str) {
    let help = if word.text.contains([',', ';']) { "several are separated by blanks" } else { "" };
    error(remarks, word.range(), text, help);
}

fn domain(word: Word<'_>, remarks: &mut Remarks) {
    if !is_host_name(word.text.strip_suffix('.').unwrap_or(word.text)) {
        separated(word, remarks, "this is no domain");
    }
}

fn service(word: Word<'_>, remarks: &mut Remarks) {
    let is_name = word.text.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b));
    if !is_name {
        separated(word, remarks, "this is no name of a service");
    }
}

fn time_of_day(text: &str, remarks: &mut Remarks) {
    let parts: Vec<_> = text.trim().split(':').collect();
    let in_range = |at: usize, most: u32| {
        parts.get(at).is_none_or(|part| {
            (1..=2).contains(&part.len())
                && part.bytes().all(|byte| byte.is_ascii_digit())
                && part.parse::<u32>().is_ok_and(|number| number <= most)
        })
    };
    let fits = in_range(0, 23) && in_range(1, 59) && in_range(2, 59);
    if !fits || !(2..=3).contains(&parts.len()) {
        error(remarks, 0..0, "this is no time of day", "hh:mm, from 00:00 to 23:59");
    }
}

fn time_zone(text: &str, remarks: &mut Remarks) {
    if zones::is_known(text.trim()) {
        return;
    }
    let help = zones::nearest(text).map(|zone| format!("did you mean {zone}?")).unwrap_or_default();
    warn(remarks, 0..0, "there is no time zone of this name", &help);
}

fn megabytes(first: Word<'_>, words: &[Word<'_>], remarks: &mut Remarks) {
    single(words, remarks);
    if first.text.parse::<u64>().is_err() {
        error(remarks, first.range(), "this is no number", "megabytes, without a unit");
    }
}

fn paths(value: Value, words: &[Word<'_>], remarks: &mut Remarks) {
    if value != Value::Paths {
        single(words, remarks);
    }
    for word in words {
        if value != Value::FileName && !word.text.starts_with('/') {
            error(remarks, word.range(), "a path begins with /", "");
        }
    }
}

fn nfs_source(word: Word<'_>, remarks: &mut Remarks) {
    let path = word.split(':').map_or(word, |(_, path)| path);
    if !path.text.starts_with('/') {
        error(remarks, word.range(), "neither /PATH nor SERVER:/PATH", "");
    }
}

fn module(words: &[Word<'_>], remarks: &mut Remarks) {
    let Some(name) = words.first() else { return };
    let is_name = name.text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    if matches!(name.text, "modprobe" | "insmod") {
        let help = "the module's name comes first, then its parameters";
        error(remarks, name.range(), "this is a program and no module", help);
    } else if !is_name {
        let help = if name.text.ends_with(".ko") { "without .ko and folders" } else { "" };
        error(remarks, name.range(), "this is no name of a module", help);
    }
}

/// `KEY=VALUE`s. A word that is none belongs to the value before it, as in
/// `net.ipv4.tcp_rmem=4096 131072 6291456`.
fn sysctl(words: &[Word<'_>], remarks: &mut Remarks) {
    let is_key = |key: &str| {
        let key = key.strip_prefix('-').unwrap_or(key);
        key.trim_matches(['.', '/']).contains(['.', '/'])
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./*?[]:@".contains(&b))
    };
    let [first, rest @ ..] = words else { return };
    let spaced = rest.first().is_some_and(|word| word.text.starts_with('='));
    match first.split('=') {
        Some((key, value)) if is_key(key.text) => {
            if value.text.is_empty() && rest.is_empty() {
                error(remarks, first.range(), "a value is missing", "");
            }
        }
        // As sysctl prints it: one assignment, with blanks around its `=`.
        None if is_key(first.text) && spaced => return,
        _ if matches!(first.text, "sysctl" | "-w") => {
            return error(remarks, first.range(), "this is a program and no kernel parameter", "");
        }
        _ => {
            let help = "KEY=VALUE, like kernel.panic=10";
            return error(remarks, first.range(), "this is no kernel parameter", help);
        }
    }
    for word in rest.iter().filter(|word| word.text.bytes().any(|b| b.is_ascii_alphabetic())) {
        let (key, value) = word.split('=').unwrap_or((*word, Word { at: 0, text: "" }));
        if is_key(key.text) && value.text.is_empty() {
            let text = "this belongs to the value of the parameter before it";
            warn(remarks, word.range(), text, "KEY=VALUE, without blanks around =");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The remarks as `column: severity text`, joined.
    fn remarks(value: Value, text: &str) -> String {
        let mut remarks = Vec::new();
        check(value, text, &mut remarks);
        let said = remarks.iter().map(|remark| {
            let severity = if remark.severity == Severity::Error { 'E' } else { 'W' };
            format!("{severity}{}: {}", remark.range.start, remark.text)
        });
        said.collect::<Vec<_>>().join("; ")
    }

    #[test]
    #[rustfmt::skip]
    fn values_are_what_their_settings_want_or_are_reported() {
        const ZONE: Value = Value::TimeZone;
        const LOGS: Value = Value::Hosts { word: None, ports: true };
        const TIME: Value = Value::Hosts { word: Some("auto"), ports: false };
        let cases = [
            (Value::Boolean,   "true",                  ""),
            (Value::Boolean,   "Yes",                   ""),
            (Value::Boolean,   "no",                    ""),
            (Value::Boolean,   "0",                     ""),
            (Value::Boolean,   "",                      ""),
            (Value::Boolean,   "1",                     "W0: LTSP reads"),
            (Value::Boolean,   "on",                    "W0: LTSP reads"),
            (Value::Boolean,   "enable",                "W0: LTSP reads"),
            (Value::BooleanOr(&["auto"]), "auto",       ""),
            (Value::BooleanOr(&["auto"]), "on",         "or auto"),
            (Value::Switch,    "1",                     ""),
            (Value::Switch,    "enable",                "W0: LTSP reads"),
            (Value::OneOf(&["utc", "local"]), "UTC",    ""),
            (Value::OneOf(&["utc", "local"]), "gmt",    "E0: may be utc or local"),
            (Value::HostName,  "node-1.example.org",    ""),
            (Value::HostName,  "node_1",                "E0: this is no host name"),
            (Value::HostName,  "node1 extra",           "W6: a name ends"),
            (Value::Host,      "10.0.0.1",              ""),
            (Value::Host,      "server.example.org",    ""),
            (Value::Host,      "10.0.0.300",            "E0: this is neither"),
            (Value::Host,      "a b",                   "E2: only one word"),
            (LOGS,             "10.0.0.1 logs:6514",    ""),
            (LOGS,             "logs:65536",            "E5: this is no port"),
            (TIME,             "auto",                  ""),
            (TIME,             "ntp1,ntp2",             "E0: this is neither"),
            (Value::Addresses, "10.0.0.1 fd00::1",      ""),
            (Value::Addresses, "10.0.0.1 10.0.0.256",   "E9: this is no IP address"),
            (Value::Addresses, "10.0.0.1,10.0.0.2",     "E0: this is no IP address"),
            (Value::AddressOr(&["lease", "off"]), "off", ""),
            (Value::AddressOr(&["lease", "off"]), "no", "E0: neither an IPv4 address nor lease or off"),
            (Value::Domains,   "a.org b.org.",          ""),
            (Value::Domains,   "a..org",                "E0: this is no domain"),
            (Value::Services,  "ssh getty@tty1.service", ""),
            (Value::Services,  "ssh, cron",             "E0: this is no name"),
            (Value::TimeOfDay, "23:30",                 ""),
            (Value::TimeOfDay, "7:05:59",               ""),
            (Value::TimeOfDay, "24:00",                 "E0: this is no time"),
            (Value::TimeOfDay, "22.30",                 "E0: this is no time"),
            (Value::TimeOfDay, "+2:30",                 "E0: this is no time"),
            (ZONE,             "Europe/Prague",         ""),
            (ZONE,             "Europe/Praha",          "W0: there is no time zone"),
            (Value::Megabytes, "200",                   ""),
            (Value::Megabytes, "200M",                  "E0: this is no number"),
            (Value::SizeOrShare, "2G",                  ""),
            (Value::SizeOrShare, "50%",                 ""),
            (Value::SizeOrShare, "off",                 ""),
            (Value::SizeOrShare, "150%",                ""),
            (Value::SizeOrShare, "2GB",                 "E0: it is neither a size"),
            (Value::Path,      "/srv/x",                ""),
            (Value::Path,      "srv/x",                 "E0: a path begins"),
            (Value::Paths,     "/etc/ssh/*_config x",   "E18: a path begins"),
            (Value::NfsSource, "/home",                 ""),
            (Value::NfsSource, "srv:/home",             ""),
            (Value::NfsSource, "srv:home",              "E0: neither"),
            (Value::Module,    "bonding mode=4",        ""),
            (Value::Module,    "modprobe bonding",      "E0: this is a program"),
            (Value::Module,    "bonding.ko",            "E0: this is no name"),
            (Value::Sysctl,    "kernel.panic=10 net/ipv4/ip_forward=1", ""),
            (Value::Sysctl,    "net.ipv4.tcp_rmem=4096 131072 6291456", ""),
            (Value::Sysctl,    "kernel.panic = 10",     ""),
            (Value::Sysctl,    "a.b=1 c.d 7",           "W6: this belongs to the value"),
            (Value::Sysctl,    "a.b=",                  "E0: a value is missing"),
            (Value::Sysctl,    "panic=10",              "E0: this is no kernel parameter"),
            (Value::Sysctl,    "sysctl -w a.b=1",       "E0: this is a program"),
        ];
        for (value, text, expected) in cases {
            let got = remarks(value, text);
            let agrees = if expected.is_empty() { got.is_empty() } else { got.contains(expected) || {
                expected.split("; ").all(|part| got.contains(part))
            } };
            assert!(agrees, "{value:?} {text:?}: {got}");
        }
    }
}
