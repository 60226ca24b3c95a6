//! What a page for people hides: it is put into change requests and sent around.
//!
//! A secret is what `landfall check` takes for one. It comes from a setting, and is shown in files
//! and commands that are made of settings; so those of the settings are hidden wherever they
//! stand, and what looks like one in a line of a file or a command as well. JSON keeps everything: programs that
//! compare plans need it.

use std::collections::{BTreeMap, BTreeSet};

use super::document::Setting;
use crate::desk::check::secrets;

const STARS: &str = "********";

/// Shorter ones are hidden where they are set, but not elsewhere: they would be found in any word.
const SHORTEST: usize = 4;

/// From this length on nothing holds a secret by chance.
const LONG: usize = 12;

/// Lines of secrets, without what is around them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets(BTreeSet<String>);

impl Secrets {
    pub fn of(settings: &BTreeMap<String, Setting>) -> Self {
        let mut all = Self::default();
        all.extend(settings);
        all
    }

    pub fn extend(&mut self, settings: &BTreeMap<String, Setting>) {
        for (name, setting) in settings {
            for secret in secrets::in_value(name, &setting.value) {
                // A page has one line of a private key after the other; a setting writes the
                // ends of lines as \n.
                let lines = secret.split("\\n").flat_map(|part| part.split(char::is_control));
                let lines = lines.map(str::trim);
                self.0.extend(lines.filter(|line| line.len() >= SHORTEST).map(str::to_owned));
            }
        }
    }

    /// A whole page without its secrets.
    pub fn hidden_in(&self, page: &str) -> String {
        let mut page = page.to_owned();
        // The longest first: one may be the beginning of another.
        let mut known: Vec<_> = self.0.iter().collect();
        known.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        for secret in known {
            if page.contains(secret.as_str()) {
                page = replaced(&page, secret);
            }
        }
        page
    }
}

/// A line of a file, or a command, in which only the form tells what is secret.
pub fn hidden_in_line(line: &str) -> String {
    hidden_in_value("", line)
}

/// `value` of the setting `name`.
pub fn hidden_in_value(name: &str, value: &str) -> String {
    let mut hidden = String::with_capacity(value.len());
    let mut rest = value;
    let mut found: Vec<_> = secrets::in_value(name, value).collect();
    found.sort_by_key(|secret| secret.as_ptr().addr());
    for secret in found {
        // Parts of one text, in order.
        let at = secret.as_ptr().addr().saturating_sub(rest.as_ptr().addr());
        let Some((before, from)) = rest.split_at_checked(at) else { break };
        hidden.push_str(before);
        hidden.push_str(STARS);
        rest = from.get(secret.len()..).unwrap_or_default();
    }
    hidden + rest
}

/// A short secret is one only where no letter or digit is beside it.
fn replaced(text: &str, secret: &str) -> String {
    let part = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(secret) {
        let beside = part(before.chars().next_back()) || part(after.chars().next());
        result.push_str(before);
        result.push_str(if secret.len() >= LONG || !beside { STARS } else { secret });
        rest = after;
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::plan::document::Origin;

    const TOKEN: &str = "2a4576.504356e45fa3d365";

    fn of(settings: &[(&str, &str)]) -> Secrets {
        let setting = |value: &str| Setting {
            value: value.to_owned(),
            origin: Origin::File,
            file: None,
            line: None,
        };
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), setting(value)));
        Secrets::of(&settings.collect())
    }

    #[test]
    #[rustfmt::skip]
    fn what_is_secret_is_hidden_wherever_it_stands() {
        let join = format!("kubeadm join --token {TOKEN} 10.9.0.20:6443");
        let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE\\nAAAABG5vbmUAAAAE\n-----END OPENSSH PRIVATE KEY-----\n";
        let known = of(&[("RCFILE_1", &join), ("DB_PASSWORD", "hunter2"), ("FILE_KEY", key), ("PIN_TOKEN", "1")]);
        let cases = [
            ("in a file",                  format!("      {join}\n"),                       "      kubeadm join --token ******** 10.9.0.20:6443\n"),
            ("in a difference",            format!("-{TOKEN} x\n+{TOKEN} x"),               "-******** x\n+******** x"),
            ("by its name, elsewhere",     "mysql -phunter2; echo hunter2 'hunter2'".to_owned(), "mysql -phunter2; echo ******** '********'"),
            ("a key, line by line",        "  b3BlbnNzaC1rZXktdjE\n  AAAABG5vbmUAAAAE\n".to_owned(), "  ********\n  ********\n"),
            ("too short to be looked for", "rack 1, node1\n".to_owned(),                    "rack 1, node1\n"),
            ("nothing",                    "\n  sha256:e3b0c442\n\n".to_owned(),            "\n  sha256:e3b0c442\n\n"),
        ];
        for (case, page, expected) in cases {
            assert_eq!(known.hidden_in(&page), expected, "{case}");
        }
        let lines = [
            ("x --password=opensesame y",         "x --password=******** y"),
            ("http://a:b1b1@h/ http://c:d1d1@h/", "http://a:********@h/ http://c:********@h/"),
            ("echo root:x1 | chpasswd # é",       "echo ******** | chpasswd # é"),
            ("x --password=********",             "x --password=********"),
            ("plain",                             "plain"),
        ];
        for (line, expected) in lines {
            assert_eq!(hidden_in_line(line), expected);
        }
        assert_eq!(hidden_in_value("PIN_TOKEN", "1"), STARS);
        assert_eq!(hidden_in_value("PIN", "1"), "1");
    }
}
