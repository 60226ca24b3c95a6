//! Values that are lines of a file with fields of their own: fstab, hosts, cron, SSH keys, files.

use std::collections::HashMap;
use std::net::IpAddr;

use super::finding::Findings;
use super::sections::{Index, is_host_name};
use super::settings::Setting;
use super::values::{Remarks, Word, error, warn};
use crate::config::Value;
use crate::directives::containers::is_size;

/// `DEVICE MOUNTPOINT TYPE OPTIONS DUMP PASS` (fstab(5)).
pub fn fstab_line(words: &[Word<'_>], remarks: &mut Remarks) {
    let [device, rest @ ..] = words else { return };
    if device.text.starts_with('#') {
        return warn(remarks, device.range(), "this line is a comment", "");
    }
    let (Some(place), Some(kind)) = (rest.first(), rest.get(1)) else {
        let help = "DEVICE MOUNTPOINT TYPE OPTIONS DUMP PASS";
        return error(remarks, 0..0, "fields are missing", help);
    };
    let is_swap = kind.text == "swap";
    let is_nowhere = matches!(place.text, "none" | "swap");
    let is_place = place.text.starts_with('/') || is_swap && is_nowhere;
    if !is_place {
        let help = if is_swap { "swap has none" } else { "it begins with /" };
        error(remarks, place.range(), "this is no mount point", help);
    } else if is_swap && !is_nowhere {
        warn(remarks, place.range(), "swap is not mounted anywhere", "write none");
    }
    match rest.get(2) {
        Some(field) => options(*field, remarks),
        None => {
            warn(remarks, kind.range(), "options are missing", "write defaults if none are meant");
        }
    }
    for field in rest.iter().skip(3).take(2) {
        if field.text.parse::<u8>().is_err() {
            error(
                remarks,
                field.range(),
                "this is no number",
                "the last two fields are DUMP and PASS",
            );
        }
    }
    if let Some(field) = rest.get(5) {
        error(
            remarks,
            field.range(),
            "there are more than six fields",
            "a blank in a name is \\040",
        );
    }
}

/// Mount options, separated by commas.
pub fn options(word: Word<'_>, remarks: &mut Remarks) {
    if word.parts(',').iter().any(|part| part.text.is_empty()) {
        error(remarks, word.range(), "an option between two commas is missing", "");
    }
}

/// `ADDRESS NAME…` (hosts(5)).
pub fn hosts_line(words: &[Word<'_>], remarks: &mut Remarks) {
    let [address, names @ ..] = words else { return };
    if address.text.starts_with('#') {
        return;
    }
    if address.text.parse::<IpAddr>().is_err() {
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

/// `MINUTE HOUR DAY MONTH WEEKDAY USER COMMAND`, `@DAILY USER COMMAND` or `NAME=value` (crontab(5)).
pub fn cron_line(words: &[Word<'_>], remarks: &mut Remarks) {
    let [first, ..] = words else { return };
    let is_variable = first.text.split_once('=').is_some_and(|(name, _)| {
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
        let numbers = word.text.split([',', '-', '/']);
        let fits = numbers.into_iter().all(|number| {
            number == "*"
                || number.len() == 3 && number.bytes().all(|byte| byte.is_ascii_alphabetic())
                || number.parse::<u32>().is_ok_and(|number| (least..=most).contains(&number))
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
    for word in words {
        if ["auto", "off"].iter().any(|known| word.text.eq_ignore_ascii_case(known)) {
            if words.len() > 1 {
                error(remarks, word.range(), "this word stands alone", "");
            }
            continue;
        }
        if !word.text.starts_with('/') {
            let text = "neither auto nor off nor a path";
            error(remarks, word.range(), text, "PATH, PATH=tmpfs:SIZE or PATH=DEVICE");
            continue;
        }
        let Some((_, device)) = word.split('=') else { continue };
        if let Some(size) = device.text.strip_prefix("tmpfs") {
            let fits = size.is_empty() || size.strip_prefix(':').is_some_and(is_size);
            if !fits {
                error(remarks, device.range(), "not a size like 2G, 512M or 50%", "tmpfs:SIZE");
            }
        } else if !["/dev/", "LABEL=", "UUID=", "PARTLABEL=", "PARTUUID="]
            .iter()
            .any(|start| device.text.starts_with(start))
        {
            let help = "tmpfs, /dev/…, LABEL=… or UUID=…";
            error(remarks, device.range(), "this is no device", help);
        }
    }
}

/// `PATH [mode=0644] [owner=USER[:GROUP]] (content=TEXT | base64=DATA | append=TEXT)`.
pub fn file(words: &[Word<'_>], remarks: &mut Remarks) {
    let [path, attributes @ ..] = words else { return };
    if !path.text.starts_with('/') || path.text.ends_with('/') {
        error(remarks, path.range(), "the path of a file comes first", "/etc/motd content=TEXT");
    }
    for word in attributes {
        let Some((name, value)) = word.split('=') else {
            let help = "mode=, owner=, and at the end content=, append= or base64=";
            return error(remarks, word.range(), "this is none of its attributes", help);
        };
        match name.text {
            "mode" => {
                let mode = u32::from_str_radix(value.text, 8);
                if !mode.is_ok_and(|mode| mode <= 0o7777) || value.text.len() > 5 {
                    error(remarks, value.range(), "this is no mode", "octal digits: 0644");
                }
            }
            "owner" => {
                let is_name = |part: &Word<'_>| {
                    !part.text.is_empty()
                        && part
                            .text
                            .bytes()
                            .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
                };
                let parts = value.parts(':');
                if parts.len() > 2 || !parts.iter().all(is_name) {
                    error(remarks, value.range(), "this is no owner", "USER or USER:GROUP");
                }
            }
            // The last one takes the rest of the line.
            "content" | "append" | "base64" => return,
            _ => {
                let help = "mode=, owner=, and at the end content=, append= or base64=";
                return error(remarks, name.range(), "there is no such attribute", help);
            }
        }
    }
    let help = "content=TEXT, append=TEXT or base64=DATA at the end";
    error(remarks, path.range(), "what the file holds is missing", help);
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
            (FSTAB, "/dev/a /b",                    "0: fields are missing"),
            (FSTAB, "/dev/a b ext4 defaults",       "7: this is no mount point"),
            (FSTAB, "/dev/a /b swap sw",            "7: swap is not mounted"),
            (FSTAB, "/dev/a /b ext4 ro,,noatime",   "15: an option"),
            (FSTAB, "/dev/a /b ext4 ro 0 x",        "20: this is no number"),
            (FSTAB, "/dev/a /b ext4 ro 0 0 0",      "22: there are more"),
            (FSTAB, "/dev/a /b ext4 ro, 0 0",       "15: an option"),
            (FSTAB, "# /dev/a /b ext4 ro",          "0: this line is a comment"),
            (HOSTS, "10.0.0.1 a a.org",             ""),
            (HOSTS, "fd00::1 a # b c!",             ""),
            (HOSTS, "a 10.0.0.1",                   "0: a line of hosts begins"),
            (HOSTS, "10.0.0.1",                     "0: a name is missing"),
            (HOSTS, "10.0.0.1 a,b",                 "9: this is no host name"),
            (CRON,  "0 3 * * 1-5 root reboot",      ""),
            (CRON,  "*/90 0-23/2 1,15 jan Mon root a b c", ""),
            (CRON,  "@daily root a",                ""),
            (CRON,  "MAILTO=x",                     ""),
            (CRON,  "60 3 * * * root a",            "0: neither * nor numbers from 0 to 59"),
            (CRON,  "0 3 * * * reboot",             "0: fields are missing"),
            (CRON,  "@dayly root a",                "0: cron knows no such time"),
            (DIRS,  "auto",                         ""),
            (DIRS,  "/var/lib/a /b=tmpfs /c=tmpfs:2G /d=LABEL=x:noatime /e=/dev/x", ""),
            (DIRS,  "auto /b",                      "0: this word stands alone"),
            (DIRS,  "docker",                       "0: neither auto"),
            (DIRS,  "/b=tmpfs:2GB",                 "3: not a size"),
            (DIRS,  "/b=sda1",                      "3: this is no device"),
            (KEY,   &ed25519,                       ""),
            (KEY,   &options,                       ""),
            (KEY,   &wrong_kind,                    "0: its type is ssh-rsa"),
            (KEY,   &cut,                           "0: the key is cut off"),
            (KEY,   "ssh-ed25519",                  "0: the key is cut off"),
            (KEY,   "AAAA",                         "0: it has no type of key"),
            (FILE,  "/a content=x mode=y",          ""),
            (FILE,  "/a mode=0600 owner=root:adm append=x", ""),
            (FILE,  "/a base64=aGVsbG8=",           ""),
            (FILE,  "/a mode=0999 content=x",       "8: this is no mode"),
            (FILE,  "/a owner=a:b:c content=x",     "9: this is no owner"),
            (FILE,  "/a base64=aGVsbG8",            "0: Invalid padding"),
            (FILE,  "/a mod=0600 content=x",        "3: there is no such attribute"),
            (FILE,  "/a x",                         "3: this is none"),
            (FILE,  "/a",                           "0: what the file holds"),
            (FILE,  "a content=x",                  "0: the path of a file"),
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
