//! Secrets in the file: whoever reaches the boot server can read them there.
//!
//! Only what is surely one, by its form or by its name. A secret itself is never printed.

use super::finding::Findings;
use super::settings::Setting;
use crate::config::Severity;

/// Marks every secret of one setting.
pub fn check(setting: &Setting<'_>, findings: &mut Findings) {
    let text = &*setting.imported.text;
    for (at, length, what, help) in find(&setting.entry.key, text) {
        let span = setting.span(at, length);
        let text = format!("{what} that every client can read");
        findings.add(span, Severity::Warning, text, Some(help.to_owned()));
        findings.add_secret(span);
    }
}

/// The secrets in `text`, a value of the setting `key`.
pub fn in_value<'a>(key: &str, text: &'a str) -> impl Iterator<Item = &'a str> {
    let part = |(at, length, ..): Secret| text.get(at..at.saturating_add(length));
    find(key, text).into_iter().filter_map(part)
}

/// Behind these a secret stands.
const OPTIONS: &[&str] = &["--password", "--passwd", "--token", "--certificate-key", "--secret"];

type Secret = (usize, usize, &'static str, &'static str);

const TOKEN_HELP: &str = "let it expire: kubeadm token create --ttl 24h, renewed by a job on the \
                          server that writes this file";
const KEY_HELP: &str = "put it into an image that only these nodes get, or let them fetch it over \
                        https with a credential of their own";
const PASSWORD_HELP: &str = "use a key or a short-lived token instead; who knows it can use it for \
                             as long as it is valid";
const CLOUD_HELP: &str = "revoke it, since it has been served in clear text, and give the nodes \
                          short-lived ones";

/// Byte offset and length, what it is, and what to do.
fn find(key: &str, text: &str) -> Vec<Secret> {
    let mut found: Vec<Secret> = Vec::new();
    let mut add = |at: usize, length: usize, what, help| {
        let end = at.saturating_add(length);
        let overlaps =
            |(from, length, ..): &Secret| *from < end && at < from.saturating_add(*length);
        if length > 0 && !found.iter().any(overlaps) {
            found.push((at, length, what, help));
        }
    };
    if let Some(at) = text.find("-----BEGIN ")
        && text.get(at..).is_some_and(|rest| {
            rest.split("-----").nth(1).is_some_and(|l| l.ends_with("PRIVATE KEY"))
        })
    {
        add(at, text.len().saturating_sub(at), "a private key", KEY_HELP);
    }
    for (at, word) in tokens(text).filter(|(_, word)| word.len() >= SHORTEST_TOKEN) {
        if is_kubeadm_token(word) {
            add(at, word.len(), "a bootstrap token", TOKEN_HELP);
        } else if let Some(what) = token_kind(word) {
            add(at, word.len(), what, CLOUD_HELP);
        }
    }
    for (at, _) in text.match_indices("://") {
        let from = at.saturating_add(3);
        let authority = text.get(from..).unwrap_or_default();
        let authority = authority.split(['/', ' ', '"', '\'']).next().unwrap_or_default();
        if let Some((user, _)) = authority.rsplit_once('@')
            && let Some((name, password)) = user.split_once(':')
            && is_literal(password)
        {
            let at = from.saturating_add(name.len()).saturating_add(1);
            add(at, password.len(), "a password in a URL", PASSWORD_HELP);
        }
    }
    let options = if text.contains("--") { OPTIONS } else { &[] };
    for option in options {
        for (at, _) in text.match_indices(option) {
            let from = at.saturating_add(option.len());
            let rest = text.get(from..).unwrap_or_default();
            let Some(value) = rest.strip_prefix(['=', ' ']) else { continue };
            let (value, quotes) = match value.strip_prefix(['"', '\'']) {
                Some(value) => (value, 2),
                None => (value, 1),
            };
            let word = value.split([' ', '"', '\'', ';']).next().unwrap_or_default();
            if is_literal(word) {
                add(from.saturating_add(quotes), word.len(), "a password or token", PASSWORD_HELP);
            }
        }
    }
    // `echo root:secret | chpasswd`; with -e it is a hash, which can be guessed at all the same.
    if let Some(end) = text.find("chpasswd")
        && let Some(before) = text.get(..end)
        && let Some((at, pair)) = words(before).find(|(_, word)| {
            word.trim_matches(['"', '\'']).split_once(':').is_some_and(|(user, password)| {
                !user.is_empty() && !user.contains('/') && is_literal(password)
            })
        })
    {
        add(at, pair.len(), "a password", PASSWORD_HELP);
    }
    let names = ["PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "TOKEN", "APIKEY", "API_KEY"];
    let is_path = key.ends_with("_FILE") || key.ends_with("_PATH") || key.ends_with("_URL");
    if names.iter().any(|name| key.contains(name))
        && !is_path
        && is_literal(text.trim())
        && found.is_empty()
    {
        found.push((0, text.len(), "by its name a secret", PASSWORD_HELP));
    }
    found
}

/// Something that says what the password is, rather than where it comes from.
fn is_literal(text: &str) -> bool {
    !text.is_empty()
        && text != "x"
        && !text.starts_with(['$', '/', '-', '`', '<', '*'])
        && !text.eq_ignore_ascii_case("none")
}

/// Of those that are known by their form.
const SHORTEST_TOKEN: usize = 15;

/// Runs of the characters that tokens are made of.
fn tokens(text: &str) -> impl Iterator<Item = (usize, &str)> {
    split(text, |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    split(text, |c| c != ' ')
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> impl Iterator<Item = (usize, &str)> {
    // Pieces of one text, so their places are the distances between them.
    let place = move |word: &str| word.as_ptr().addr().saturating_sub(text.as_ptr().addr());
    text.split(move |c| !belongs(c))
        .filter(|word| !word.is_empty())
        .map(move |word| (place(word), word))
}

/// `abcdef.0123456789abcdef`.
fn is_kubeadm_token(word: &str) -> bool {
    let is_part = |part: &str, length| {
        part.len() == length
            && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    word.split_once('.').is_some_and(|(id, secret)| {
        is_part(id, 6) && is_part(secret, 16) && secret.bytes().any(|byte| byte.is_ascii_digit())
    })
}

fn token_kind(word: &str) -> Option<&'static str> {
    let rest = |prefix: &str| word.strip_prefix(prefix);
    let long = |prefixes: &[&str], least: usize| {
        prefixes.iter().filter_map(|prefix| rest(prefix)).any(|rest| rest.len() >= least)
    };
    let upper = |rest: &str| {
        rest.len() == 16 && rest.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
    };
    if rest("AKIA").or(rest("ASIA")).is_some_and(upper) {
        Some("an AWS access key")
    } else if long(&["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"], 36) {
        Some("a GitHub token")
    } else if long(&["glpat-", "gldt-", "glrt-"], 20) {
        Some("a GitLab token")
    } else if long(&["xoxb-", "xoxa-", "xoxp-", "xoxr-", "xoxs-"], 10) {
        Some("a Slack token")
    } else if word.starts_with("eyJ") && word.matches('.').count() == 2 && word.len() > 60 {
        Some("a JSON web token")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn secrets_are_known_by_form_or_name_and_nothing_else_is_one() {
        let ghp = format!("ghp_{}", "a1B2".repeat(9));
        let aws = "AKIAIOSFODNN7EXAMPLE";
        let cases: &[(&str, &str, Option<(usize, usize)>)] = &[
            ("A", "kubeadm join --token 2a4576.504356e45fa3d365 10.9.0.20:6443", Some((21, 23))),
            ("A", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", None),
            ("A", "apache.configuration", None),
            ("A", "echo '-----BEGIN OPENSSH PRIVATE KEY-----' >x", Some((6, 39))),
            ("A", "-----BEGIN CERTIFICATE-----", None),
            ("A", "curl https://joe:hunter2@example.org/x", Some((17, 7))),
            ("A", "curl https://joe@example.org/x", None),
            ("A", "curl https://example.org:80/x@y", None),
            ("A", aws, Some((0, 20))),
            ("A", &ghp, Some((0, 40))),
            ("A", "echo root:hunter2 | chpasswd", Some((5, 12))),
            ("A", "chpasswd < /root/pw", None),
            ("A", "x --password hunter2", Some((13, 7))),
            ("A", "x --password=hunter2", Some((13, 7))),
            ("A", "x --password-file /y", None),
            ("A", "x --token $T", None),
            ("DB_PASSWORD", "hunter2", Some((0, 7))),
            ("DB_PASSWORD", "", None),
            ("DB_PASSWORD", "$(cat /x)", None),
            ("TOKEN_FILE", "/x", None),
            ("A", "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQDBSLYRaORL2znr1V4a3rjDn3HDHn2CsvUNK1nv8 a@b", None),
        ];
        for (key, text, expected) in cases {
            let found: Vec<_> = find(key, text).iter().map(|(at, length, ..)| (*at, *length)).collect();
            assert_eq!(found.as_slice(), expected.as_slice(), "{key}={text}");
        }
    }
}
