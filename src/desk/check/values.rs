//! Values against what they must look like.
//!
//! An error is what the node would leave out, or whoever reads the file that it writes; a warning
//! is what it would do otherwise than meant. Where the node has a parser, that one decides.

use std::net::IpAddr;
use std::ops::Range;

use super::{fields, zones};
use crate::config::network::NetworkKey;
use crate::config::{Severity, Value, is_true, means_yes};
use crate::desk::check::sections::is_host_name;
use crate::directives::{self, units};
use crate::error::Error;
use crate::net::description::Description;

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
        Value::Text
        | Value::Section
        | Value::ShellLine
        | Value::SizeOrShare
        | Value::SshKey
        | Value::File => {}
        Value::Boolean => boolean(text, &[], remarks),
        Value::Switch => switch(text, remarks),
        Value::BooleanOr(others) => boolean(text, others, remarks),
        Value::OneOf(choices) => one_of(text, choices, remarks),
        Value::Exactly(word) => exactly(text, word, remarks),
        Value::HostName => host_name(first, &words, remarks),
        Value::PartOfName => {}
        Value::Host => {
            single(&words, remarks);
            host(first, remarks);
        }
        Value::Hosts { word, ports: false } => {
            let hosts = words.iter().filter(|host| !is_word(host.text, word.as_slice()));
            hosts.for_each(|word| host(*word, remarks));
        }
        Value::Hosts { ports: true, .. } => words.iter().for_each(|w| host_and_port(*w, remarks)),
        Value::Addresses => words.iter().for_each(|word| address(*word, remarks)),
        Value::AddressOr(others) => {
            if !is_word(text.trim(), others) && text.trim().parse::<IpAddr>().is_err() {
                let text = format!("neither an address nor {}", others.join(" or "));
                error(remarks, 0..0, text, "");
            }
        }
        Value::Domains => words.iter().for_each(|word| domain(*word, remarks)),
        Value::Services => words.iter().for_each(|word| service(*word, remarks)),
        Value::TimeOfDay => {}
        Value::TimeZone => time_zone(text, remarks),
        Value::Megabytes => megabytes(first, &words, remarks),
        Value::Path => path(text, remarks),
        Value::FileName => single(&words, remarks),
        Value::Paths => words.iter().for_each(|word| pattern(*word, remarks)),
        Value::MountOptions => fields::options(first, remarks),
        Value::NfsSource => nfs_source(text, remarks),
        Value::Keyboard => keyboard(text, remarks),
        Value::Module => module(&words, remarks),
        Value::Sysctl => sysctl(first, &words, remarks),
        Value::HostsLine => fields::hosts_line(&words, remarks),
        Value::FstabLine => fields::fstab_line(text, &words, remarks),
        Value::CronLine => fields::cron_line(text, &words, remarks),
        Value::ContainerDirs => fields::container_dirs(&words, remarks),
        Value::Network(key) => network(key, &words, remarks),
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
        Value::TimeOfDay => directives::cron::shutdown(text.trim()).err(),
        Value::HostName => directives::hostname::check(text.split_whitespace().next()?).err(),
        Value::PartOfName => {
            let name: String = text.split_whitespace().collect();
            directives::hostname::check(&name).err()
        }
        Value::Sysctl => {
            let why = directives::sysctl::assignments(text).err()?;
            Some(Error::invalid("reading it", why).with_hint("KEY=VALUE, like kernel.panic=10"))
        }
        _ => None,
    }
}

fn is_word(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| word.eq_ignore_ascii_case(text))
}

fn single(words: &[Word<'_>], remarks: &mut Remarks) {
    if let Some(second) = words.get(1) {
        error(remarks, second.range(), "only one word can be here", "");
    }
}

fn boolean(text: &str, others: &[&str], remarks: &mut Remarks) {
    let text = text.trim().to_ascii_lowercase();
    let no = ["false", "n", "no", "0", "off", "disable", "disabled", ""];
    if is_true(&text) || is_word(&text, &no) || is_word(&text, others) {
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
    if !means_yes(text.trim()) {
        boolean(text, &[], remarks);
    }
}

fn one_of(text: &str, choices: &[&str], remarks: &mut Remarks) {
    if !is_word(text.trim(), choices) {
        error(remarks, 0..0, format!("may be {}", choices.join(" or ")), "");
    }
}

fn exactly(text: &str, word: &str, remarks: &mut Remarks) {
    if text.trim() != word {
        error(remarks, 0..0, format!("may be {word} and nothing else"), "");
    }
}

fn host_name(first: Word<'_>, words: &[Word<'_>], remarks: &mut Remarks) {
    if let Some(second) = words.get(1) {
        warn(remarks, second.range(), "a name ends at its first blank", "");
    }
    match directives::hostname::check(first.text) {
        Err(wrong) => error(remarks, first.range(), wrong.cause().to_string(), ""),
        Ok(()) if !is_host_name(first.text) => {
            let help = "letters, digits and - inside, up to 63 characters between dots";
            warn(remarks, first.range(), "the network knows no such host names", help);
        }
        Ok(()) => {}
    }
}

/// A node takes any word for a name that some resolver may know, so only what can be neither is an
/// error.
fn host(word: Word<'_>, remarks: &mut Remarks) {
    if word.text.parse::<IpAddr>().is_ok() || is_host_name(word.text) && !is_number(word.text) {
        return;
    }
    if is_plain(word.text) && !is_number(word.text) {
        return warn(remarks, word.range(), "the network knows no such host names", "");
    }
    separated(word, remarks, "this is neither a host name nor an address");
}

fn host_and_port(word: Word<'_>, remarks: &mut Remarks) {
    if let Err(wrong) = directives::syslog::address(word.text) {
        return separated(word, remarks, &wrong.cause().to_string());
    }
    if word.text.parse::<IpAddr>().is_err() && !word.text.starts_with('[') {
        host(word.split(':').map_or(word, |(host, _)| host), remarks);
    }
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
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
    if is_host_name(word.text.strip_suffix('.').unwrap_or(word.text)) {
        return;
    }
    match is_plain(word.text) {
        true => warn(remarks, word.range(), "the network knows no such domains", ""),
        false => separated(word, remarks, "this is no domain"),
    }
}

fn service(word: Word<'_>, remarks: &mut Remarks) {
    if !units::is_name(&units::named(word.text)) {
        separated(word, remarks, "this is no name of a service");
    }
}

/// By the grammar of the kernel command line, and whether the words fit together.
fn network(key: NetworkKey, words: &[Word<'_>], remarks: &mut Remarks) {
    if !key.is_list() {
        single(words, remarks);
    }
    let mut all = Description::default();
    for word in words {
        if let Err(why) = key.read(word.text, &mut all) {
            error(remarks, word.range(), why, "");
        }
    }
    for complaint in all.contradictions() {
        error(remarks, 0..0, complaint.why, "");
    }
}

fn time_zone(text: &str, remarks: &mut Remarks) {
    let zone = text.trim();
    if zones::is_known(zone) {
        return;
    }
    let plain = zone.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_+-".contains(&b));
    if !plain || zone.split('/').any(str::is_empty) {
        return error(remarks, 0..0, "a zone has a name like Europe/Prague", "");
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

/// A folder below `/`.
fn path(text: &str, remarks: &mut Remarks) {
    let path = text.trim().trim_end_matches('/');
    if !path.starts_with('/') {
        error(remarks, 0..0, "a path begins with /", "and it is not / itself");
    } else if path.split('/').any(|name| name == "..") {
        error(remarks, 0..0, "a path has no .. in it", "");
    }
}

/// A path of the image with wildcards in it.
fn pattern(word: Word<'_>, remarks: &mut Remarks) {
    if !word.text.starts_with('/') {
        error(remarks, word.range(), "a path begins with /", "");
    } else if word.text.split('/').any(|name| [".", ".."].contains(&name)) {
        error(remarks, word.range(), "a path has neither . nor .. in it", "");
    }
}

fn nfs_source(text: &str, remarks: &mut Remarks) {
    let source = text.trim();
    if !source.starts_with('/') && !source.contains(":/") {
        error(remarks, 0..0, "neither /PATH nor SERVER:/PATH", "");
    }
}

/// What the node would put into a file that a shell reads.
fn keyboard(text: &str, remarks: &mut Remarks) {
    let wrong = |c: &char| !c.is_ascii_alphanumeric() && !"_-,:()+.".contains(*c);
    if let Some(wrong) = text.trim().chars().find(wrong) {
        let text = format!("{wrong:?} can be in no name of a keyboard");
        error(remarks, 0..0, text, "letters, digits and _-,:()+.");
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
fn sysctl(first: Word<'_>, words: &[Word<'_>], remarks: &mut Remarks) {
    if matches!(first.text, "sysctl" | "-w") {
        return error(remarks, first.range(), "this is a program and no kernel parameter", "");
    }
    let assigns = |text: &str| directives::sysctl::assignments(text).is_ok();
    // As sysctl prints it: one assignment, with blanks around its `=`.
    let skipped = if assigns(first.text) { 1 } else { 3 };
    for word in words.iter().skip(skipped) {
        // Only what would be a parameter if it had a value.
        let is_key = word.text.starts_with(|c: char| c.is_ascii_alphabetic())
            && !word.text.contains('=')
            && assigns(&format!("{}=1", word.text));
        if is_key {
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
            (Value::HostName,  "node_1",                "W0: the network knows"),
            (Value::HostName,  "node1 extra",           "W6: a name ends"),
            (Value::HostName,  "-a",                    "W0: the network knows"),
            (Value::HostName,  "a/b c",                 "W4: a name ends at its first blank; E0: a host name is made of"),
            (Value::PartOfName, "node-",                ""),
            (Value::PartOfName, "a/b",                  "E0: a host name is made of"),
            (Value::Exactly("generate"), "Generate",    "E0: may be generate"),
            (Value::Keyboard,  "pc 105",                "E0: ' ' can be in"),
            (Value::Host,      "my_server",             "W0: the network knows"),
            (Value::Host,      "10.0.0.1",              ""),
            (Value::Host,      "server.example.org",    ""),
            (Value::Host,      "10.0.0.300",            "E0: this is neither"),
            (Value::Host,      "a b",                   "E2: only one word"),
            (LOGS,             "10.0.0.1 logs:6514",    ""),
            (LOGS,             "logs:65536",            "E0: a host is written"),
            (LOGS,             "fd00::1 [fd00::1]:514", ""),
            (TIME,             "auto",                  ""),
            (TIME,             "ntp1,ntp2",             "E0: this is neither"),
            (Value::Addresses, "10.0.0.1 fd00::1",      ""),
            (Value::Addresses, "10.0.0.1 10.0.0.256",   "E9: this is no IP address"),
            (Value::Addresses, "10.0.0.1,10.0.0.2",     "E0: this is no IP address"),
            (Value::AddressOr(&["lease", "off"]), "OFF", ""),
            (Value::AddressOr(&["lease", "off"]), "fd00::1", ""),
            (Value::AddressOr(&["lease", "off"]), "no", "E0: neither an address nor lease or off"),
            (Value::Domains,   "a.org b.org.",          ""),
            (Value::Domains,   "a..org",                "W0: the network knows"),
            (Value::Domains,   "a.org,b.org",           "E0: this is no domain"),
            (Value::Services,  "ssh getty@tty1.service", ""),
            (Value::Services,  "ssh, cron",             "E0: this is no name"),
            (Value::TimeOfDay, "23:30",                 ""),
            (Value::TimeOfDay, "7:05:59",               ""),
            (Value::TimeOfDay, "24:00",                 "E0: a time of day"),
            (Value::TimeOfDay, "22.30",                 "E0: a time of day"),
            (Value::TimeOfDay, "+2:30",                 "E0: a time of day"),
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
            (Value::Path,      "/srv/../x",             "E0: a path has no"),
            (Value::Paths,     "/etc/../x",             "E0: a path has neither"),
            (Value::Paths,     "/etc/ssh/*_config x",   "E18: a path begins"),
            (Value::NfsSource, "/home",                 ""),
            (Value::NfsSource, "srv:/home",             ""),
            (Value::NfsSource, "[fd00::1]:/home",       ""),
            (Value::NfsSource, "srv:home",              "E0: neither"),
            (Value::Module,    "bonding mode=4",        ""),
            (Value::Module,    "modprobe bonding",      "E0: this is a program"),
            (Value::Module,    "bonding.ko",            "E0: this is no name"),
            (Value::Sysctl,    "kernel.panic=10 net/ipv4/ip_forward=1", ""),
            (Value::Sysctl,    "net.ipv4.tcp_rmem=4096 131072 6291456", ""),
            (Value::Sysctl,    "kernel.panic = 10",     ""),
            (Value::Sysctl,    "a.b=1 c.d 7",           "W6: this belongs to the value"),
            (Value::Sysctl,    "a.b=",                  "E0: a parameter has no value"),
            (Value::Sysctl,    "panic=10",              "E0: it does not begin"),
            (Value::Sysctl,    "sysctl -w a.b=1",       "E0: this is a program"),
            (Value::Network(NetworkKey::Ip),   "eth0:dhcp BOOTIF:auto6",    ""),
            (Value::Network(NetworkKey::Ip),   "eth0:dhcp  eth1:dhpc",      "E11: field 2"),
            (Value::Network(NetworkKey::Ip),   "eth0:dhcp eth0:on",         "E0: there is another"),
            (Value::Network(NetworkKey::Bond), "b:eth0,eth1:mode=4 c:eth2:mode=9", "E19: mode is"),
            (Value::Network(NetworkKey::Vlan), "v5:v5",                     "E0: v5 would be made of itself"),
            (Value::Network(NetworkKey::Handover), "static later",          "E7: only one word"),
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
