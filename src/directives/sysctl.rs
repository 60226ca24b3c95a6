//! SYSCTL_*: kernel parameters, set by systemd-sysctl early in the real root.
//!
//! A value holds assignments, blank separated. A word that is no assignment belongs to the value
//! before it, so that values with blanks need no quoting: in
//! `net.ipv4.tcp_rmem=4096 87380 6291456 kernel.panic=10` there are two. A word is an assignment if
//! what is before its first `=` looks like a key: with a dot or a slash, as all keys have.

use super::Draft;
use crate::config::Settings;
use crate::error::Error;

const FILE: &str = "/etc/sysctl.d/90-landfall.conf";
const HEADER: &str = "# Written by landfall at boot: SYSCTL_ lines of lts.conf.\n";

/// Gives the number of parameters, and what was left out for not making sense.
pub fn apply(settings: &Settings, draft: &mut Draft<'_>) -> (usize, Vec<Error>) {
    let mut text = HEADER.to_owned();
    let (mut count, mut wrong) = (0_usize, Vec::new());
    for (name, line) in settings.family("SYSCTL_") {
        match assignments(line) {
            Ok(all) => {
                for (key, value) in all {
                    text += &format!("{key}={value}\n");
                    count = count.saturating_add(1);
                }
            }
            Err(why) => {
                wrong.push(Error::invalid(format!("reading {name} {line:?}"), why));
            }
        }
    }
    if count > 0 {
        draft.replace(FILE, text, 0o644);
    }
    (count, wrong)
}

pub fn assignments(line: &str) -> std::result::Result<Vec<(String, String)>, &'static str> {
    const FIRST: &str = "it does not begin with a parameter like kernel.panic=10";
    let mut all: Vec<(String, String)> = Vec::new();
    // `key = value`, as sysctl prints it, is one assignment as well.
    let line = match line.split_once('=') {
        Some((key, value)) => format!("{}={}", key.trim(), value.trim()),
        None => line.trim().to_owned(),
    };
    for word in line.split_whitespace() {
        match (word.split_once('=').filter(|(key, _)| is_key(key)), all.last_mut()) {
            (Some((key, value)), _) => all.push((key.to_owned(), value.to_owned())),
            (None, Some((_, value))) => {
                if !value.is_empty() {
                    value.push(' ');
                }
                value.push_str(word);
            }
            (None, None) => return Err(FIRST),
        }
    }
    match all.iter().any(|(_, value)| value.is_empty()) {
        true => Err("a parameter has no value"),
        false => Ok(all),
    }
}

/// Like sysctl.d(5): dots or slashes, globs, and a `-` in front for "if it works".
fn is_key(key: &str) -> bool {
    let key = key.strip_prefix('-').unwrap_or(key);
    let inner = key.trim_matches(['.', '/']);
    inner.contains(['.', '/'])
        && !key.contains("..")
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./*?[]:@".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directives::Tree;
    use crate::directives::draft::on;

    #[test]
    #[rustfmt::skip]
    fn words_become_parameters() {
        let cases: &[(&str, Option<&[&str]>)] = &[
            ("kernel.panic=10 fs.nr_open=20000000",        Some(&["kernel.panic=10", "fs.nr_open=20000000"])),
            ("net.ipv4.tcp_rmem=4096 87380 6291456 kernel.panic=1", Some(&["net.ipv4.tcp_rmem=4096 87380 6291456", "kernel.panic=1"])),
            ("kernel.panic = 10",                          Some(&["kernel.panic=10"])),
            ("net/ipv4/conf/eth0.5/rp_filter=0",           Some(&["net/ipv4/conf/eth0.5/rp_filter=0"])),
            ("-net.ipv4.conf.*.rp_filter=0",               Some(&["-net.ipv4.conf.*.rp_filter=0"])),
            ("kernel.core_pattern=|/usr/bin/x %p a=b",     Some(&["kernel.core_pattern=|/usr/bin/x %p a=b"])),
            ("",                                           Some(&[])),
            ("panic=10",                                   None), // no such key can be
            ("10",                                         None),
            ("kernel.panic=",                              None),
            ("kernel.panic",                               None),
            ("../../etc.x=1",                              None),
        ];
        for (line, expected) in cases {
            let got: Option<Vec<_>> = assignments(line).ok().map(|all| all.into_iter().map(|(k, v)| format!("{k}={v}")).collect());
            assert_eq!(got.as_deref(), expected.map(|e| e.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).as_deref(), "{line:?}");
        }
    }

    #[test]
    fn one_bad_line_does_not_cost_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        let settings = Settings::of(&[
            ("SYSCTL_10", "vm.swappiness=1"),
            ("SYSCTL_2", "kernel.panic=10"),
            ("SYSCTL_3", "nonsense"),
        ]);
        let (count, wrong) = on(&tree, |draft| apply(&settings, draft));
        assert_eq!((count, wrong.len()), (2, 1));
        assert!(wrong[0].to_string().contains("SYSCTL_3"), "{}", wrong[0]);
        let text = tree.read_text(FILE).unwrap().unwrap();
        assert_eq!(text, format!("{HEADER}kernel.panic=10\nvm.swappiness=1\n"));
        assert_eq!(on(&tree, |draft| apply(&Settings::default(), draft)).0, 0);
    }
}
