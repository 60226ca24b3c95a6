//! Values that are lines of a file with fields of their own: fstab, hosts, cron, SSH keys, files.

use std::collections::HashMap;
use std::net::IpAddr;

use super::finding::Findings;
use super::sections::{Index, is_host_name};
use super::settings::Setting;
use super::values::{Remarks, Word, error, warn};
use crate::config::Value;
use crate::directives::containers::{self, Wanted};
use crate::directives::fstab;

/// `DEVICE MOUNTPOINT TYPE OPTIONS DUMP PASS` (fstab(5)).
pub fn fstab_line(text: &str, words: &[Word<'_>], remarks: &mut Remarks) {
    let [device, rest @ ..] = words else { return };
    if device.text.starts_with('#') {
        return warn(remarks, device.range(), "this line is a comment", "");
    }
    const FORM: &str = "DEVICE MOUNTPOINT TYPE OPTIONS DUMP PASS";
    let [place, kind, more @ ..] = rest else {
        return match fstab::complaint(text) {
            Some(why) => error(remarks, 0..0, why, FORM),
            None => warn(remarks, 0..0, "type and options are missing", FORM),
        };
    };
    let Some(field) = more.first() else {
        // Mounted all the same, if it can be.
        return match fstab::complaint(&format!("{text} defaults")) {
            Some(why) => error(remarks, place.range(), why, ""),
            None => warn(remarks, kind.range(), "options are missing", "write defaults for none"),
        };
    };
    let complaint = fstab::complaint(text);
    options(*field, remarks);
    if let Some(why) = complaint {
        let is_number = |(_, field): &(usize, &Word<'_>)| field.text.parse::<u32>().is_ok();
        let wrong = more.iter().skip(1).enumerate().find(|field| field.0 > 1 || !is_number(field));
        // Which field it is about: the place, if these four are wrong already.
        let head = text.get(..field.range().end).unwrap_or_default();
        let about = match wrong.filter(|_| fstab::complaint(head).is_none()) {
            Some((_, number)) => number,
            None => place,
        };
        error(remarks, about.range(), why, "");
    } else if kind.text == "swap" && !matches!(place.text, "none" | "swap") {
        warn(remarks, place.range(), "swap is not mounted anywhere", "write none");
    }
}

/// Mount options, separated by commas.
pub fn options(word: Word<'_>, remarks: &mut Remarks) {
    if word.parts(',').iter().any(|part| part.text.is_empty()) {
        warn(remarks, word.range(), "an option between two commas is missing", "");
    }
}

/// `ADDRESS NAME…` (hosts(5)).
pub fn hosts_line(words: &[Word<'_>], remarks: &mut Remarks) {
    let [address, names @ ..] = words else { return };
    if address.text.starts_with('#') {
        return;
    }
    // The address of a link says which link.
    let plain = match address.text.split_once('%') {
        Some((plain, link)) if plain.contains(':') && !link.is_empty() => plain,
        _ => address.text,
    };
    if plain.parse::<IpAddr>().is_err() {
        error(remarks, address.range(), "a line of hosts begins with an IP address", "");
    }
    if names.is_empty() {
        error(remarks, 0..0, "a name is missing", "ADDRESS NAME…");
    }
    for name in names.iter().take_while(|name| !name.text.starts_with('#')) {
        // Underscores are no host names and work all the same.
        if !is_host_name(&name.text.replace('_', "-")) {
            error(remarks, name.range(), "this is no host name", "");
        }
    }
}

/// `MINUTE HOUR DAY MONTH WEEKDAY USER COMMAND`, `@DAILY USER COMMAND` or `NAME = value` (crontab(5)).
pub fn cron_line(text: &str, words: &[Word<'_>], remarks: &mut Remarks) {
    let [first, ..] = words else { return };
    let is_variable = text.split_once('=').map(|(name, _)| name.trim()).is_some_and(|name| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    });
    if first.text.starts_with('#') || is_variable {
        return;
    }
    if first.text.starts_with('@') {
        let known = [
            "@reboot",
            "@yearly",
            "@annually",
            "@monthly",
            "@weekly",
            "@daily",
            "@midnight",
            "@hourly",
        ];
        if !known.contains(&first.text) {
            error(remarks, first.range(), "cron knows no such time", &known.join(" "));
        }
        if words.len() < 3 {
            error(remarks, 0..0, "fields are missing", "@daily USER COMMAND");
        }
        return;
    }
    let help = "MINUTE HOUR DAY MONTH WEEKDAY USER COMMAND";
    let ranges = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];
    for (word, (least, most)) in words.iter().zip(ranges) {
        // `~` is a number by chance, within bounds if it has some.
        let numbers = word.text.split([',', '-', '/', '~']);
        let fits = numbers.into_iter().all(|number| {
            number == "*"
                || number.len() == 3 && number.bytes().all(|byte| byte.is_ascii_alphabetic())
                || number.parse::<u32>().is_ok_and(|number| (least..=most).contains(&number))
                || number.is_empty() && word.text.contains('~')
                // The step of `*/90` has no bound.
                || word.text.contains('/') && number.parse::<u32>().is_ok()
        });
        if !fits {
            let text = format!("neither * nor numbers from {least} to {most}");
            return error(remarks, word.range(), text, help);
        }
    }
    if words.len() < 7 {
        error(remarks, 0..0, "fields are missing", help);
    }
}

/// `auto`, `off`, or `PATH[=tmpfs[:SIZE]]`, `PATH=DEVICE[:OPTIONS]`.
pub fn container_dirs(words: &[Word<'_>], remarks: &mut Remarks) {
    let mut listed: Vec<String> = Vec::new();
    for word in words {
        match containers::parse(word.text) {
            Ok(Wanted::Listed(directories)) => {
                let mut paths = directories.into_iter().map(|directory| directory.path);
                let Some(path) = paths.next() else { continue };
                if listed.contains(&path) {
                    error(remarks, word.range(), "it is listed twice", "");
                }
                listed.push(path);
            }
            Ok(_) if words.len() > 1 => error(remarks, word.range(), "this word stands alone", ""),
            Ok(_) => {}
            Err(wrong) => {
                let hint = wrong.hint().unwrap_or_default();
                error(remarks, word.range(), wrong.cause().to_string(), hint);
            }
        }
    }
}

/// Two lines for one mount point, on a machine of one section.
pub fn mount_points(index: &Index<'_>, settings: &[Setting<'_>], findings: &mut Findings) {
    let mut by_section: HashMap<usize, Vec<&Setting<'_>>> = HashMap::new();
    for setting in settings.iter().filter(|setting| setting.is_a(Value::FstabLine)) {
        by_section.entry(setting.section).or_default().push(setting);
    }
    let mut sections: Vec<_> = by_section.keys().copied().collect();
    sections.sort_unstable();
    for section in sections {
        let mut decided: HashMap<&str, ()> = HashMap::new();
        let mut mounted: HashMap<&str, &Setting<'_>> = HashMap::new();
        for member in index.chain(section).into_iter().filter_map(|at| by_section.get(&at)) {
            for setting in member.iter().rev() {
                let is_new = decided.insert(setting.entry.key.as_str(), ()).is_none();
                let place = setting.imported.text.split(' ').filter(|word| !word.is_empty()).nth(1);
                let Some(place) = place.filter(|place| place.starts_with('/')) else { continue };
                if !is_new || setting.is_none() || !setting.imported.is_known() {
                    continue;
                }
                let place = if place == "/" { place } else { place.trim_end_matches('/') };
                let Some(other) = mounted.insert(place, setting) else { continue };
                // The section that brings the second line is the one to mend.
                let (own, other) = match other.entry.place > setting.entry.place {
                    true if other.section == section => (other, *setting),
                    _ if setting.section == section => (*setting, other),
                    _ if other.section == section => (other, *setting),
                    _ => continue,
                };
                let line = other.entry.place.line;
                let text = format!("{} on line {line} has {place} as well", other.entry.key);
                let at = own.imported.text.find(place).unwrap_or_default();
                let help = "the one that is mounted last hides the other";
                findings.warn(own.span(at, place.len()), text, Some(help));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::values::{check, words};
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn lines_have_the_fields_of_their_files_or_are_reported() {
        const FSTAB: Value = Value::FstabLine;
        const HOSTS: Value = Value::HostsLine;
        const CRON: Value = Value::CronLine;
        const DIRS: Value = Value::ContainerDirs;
        const KEY: Value = Value::SshKey;
        const FILE: Value = Value::File;
        const ED25519: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJZp6UFQ2HdDPFFlhnVSCo6NW7Yn3RlwJGXNmhLRzZ9E";
        let ed25519 = format!("ssh-ed25519 {ED25519} a b");
        let options = format!("admin: from=\"10.0.0.*\",no-pty ssh-ed25519 {ED25519}");
        let wrong_kind = format!("ssh-rsa {ED25519}");
        let cut = format!("ssh-ed25519 {}", &ED25519[..20]);
        let cases = [
            (FSTAB, "/dev/a /b ext4 nofail 0 0",    ""),
            (FSTAB, "/dev/a /b ext4 nofail",        ""),
            (FSTAB, "/dev/a none swap sw 0 0",      ""),
            (FSTAB, "/dev/a /b ext4",               "10: options are missing"),
            (FSTAB, "/dev/a b ext4",                "7: the mount point"),
            (FSTAB, "/dev/a",                       "0: it has"),
            (FSTAB, "/dev/a b ext4 defaults",       "7: the mount point \"b\""),
            (FSTAB, "/dev/a /b swap sw",            "7: swap is not mounted"),
            (FSTAB, "/dev/a /b ext4 ro,,noatime",   "15: an option"),
            (FSTAB, "/dev/a /b ext4 ro 0 x",        "20: more than two numbers"),
            (FSTAB, "/dev/a /b/../c ext4 ro",       "7: the mount point"),
            (FSTAB, "/dev/a none ext4 ro # x",      ""),
            (FSTAB, "/dev/a /b ext4 ro 0 0 0",      "22: more than two numbers"),
            (FSTAB, "/dev/a /b ext4 ro, 0 0",       "15: an option"),
            (FSTAB, "# /dev/a /b ext4 ro",          "0: this line is a comment"),
            (HOSTS, "10.0.0.1 a a.org",             ""),
            (HOSTS, "fd00::1 a # b c!",             ""),
            (HOSTS, "fe80::1%eth0 a",               ""),
            (HOSTS, "a 10.0.0.1",                   "0: a line of hosts begins"),
            (HOSTS, "10.0.0.1",                     "0: a name is missing"),
            (HOSTS, "10.0.0.1 a,b",                 "9: this is no host name"),
            (CRON,  "0 3 * * 1-5 root reboot",      ""),
            (CRON,  "*/90 0-23/2 1,15 jan Mon root a b c", ""),
            (CRON,  "@daily root a",                ""),
            (CRON,  "MAILTO = x",                   ""),
            (CRON,  "~ 0~6 * * * root a",           ""),
            (CRON,  "60 3 * * * root a",            "0: neither * nor numbers from 0 to 59"),
            (CRON,  "0 3 * * * reboot",             "0: fields are missing"),
            (CRON,  "@dayly root a",                "0: cron knows no such time"),
            (DIRS,  "auto",                         ""),
            (DIRS,  "/var/lib/a /b=tmpfs /c=tmpfs:2G /d=LABEL=x:noatime /e=/dev/x", ""),
            (DIRS,  "auto /b",                      "0: this word stands alone"),
            (DIRS,  "docker",                       "0: it is none of auto"),
            (DIRS,  "/b=tmpfs:2GB",                 "0: its size"),
            (DIRS,  "/b /b/",                       "3: it is listed twice"),
            (DIRS,  "/b=sda1",                      "0: what is mounted there"),
            (KEY,   &ed25519,                       ""),
            (KEY,   &options,                       ""),
            (KEY,   &wrong_kind,                    "0: its type is ssh-rsa"),
            (KEY,   &cut,                           "0: the key is cut off"),
            (KEY,   "ssh-ed25519",                  "0: the key is cut off"),
            (KEY,   "AAAA",                         "0: it has no type of key"),
            (FILE,  "/a content=x mode=y",          ""),
            (FILE,  "/a mode=0600 owner=root:adm append=x", ""),
            (FILE,  "/a base64=aGVsbG8=",           ""),
            (FILE,  "/a mode=0999 content=x",       "0: it is not octal"),
            (FILE,  "/a base64=aGVsbG8",            "0: Invalid padding"),
            (FILE,  "/a mod=0600 content=x",        "0: \"mod=0600\" is not known"),
            (FILE,  "/a x",                         "0: \"x\" is not known"),
            (FILE,  "/a",                           "0: neither content="),
            (FILE,  "a content=x",                  "0: a path begins"),
        ];
        for (value, text, expected) in cases {
            let mut remarks = Vec::new();
            check(value, text, &mut remarks);
            let got: Vec<_> = remarks.iter().map(|r| format!("{}: {}", r.range.start, r.text)).collect();
            let agrees = match expected {
                "" => got.is_empty(),
                expected => got.len() == 1 && got[0].starts_with(expected),
            };
            assert!(agrees, "{value:?} {text:?}: {got:?}, {:?}", words(text));
        }
    }
}
