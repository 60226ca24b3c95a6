//! The settings of one node, after selection and import.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::Place;
use super::import::{MOST_OF_A_VALUE, collapse_blanks};
use super::order::version_order;
use super::syntax::{is_name, is_none};
use crate::root::RamMode;

/// Names are upper case, except LTSP's one lower-case variable of DHCP, `filename`.
/// Iteration is in name order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<String, Setting>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub value: String,
    pub origin: Origin,
}

/// Where a value came from, for error messages and `landfall plan`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    File(Place),
    CommandLine,
    Dhcp,
    /// Derived or default.
    Agent,
}

impl Settings {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.setting(name).map(|setting| setting.value.as_str())
    }

    pub fn setting(&self, name: &str) -> Option<&Setting> {
        self.values.get(name)
    }

    /// Names and values of a test's table.
    #[cfg(test)]
    pub fn of(values: &[(&str, &str)]) -> Self {
        let mut settings = Self::default();
        for (name, value) in values {
            settings.insert(*name, *value, Origin::Agent);
        }
        settings
    }

    /// Like `get`, for settings where the empty value means the same as none.
    pub fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.trim().is_empty())
    }

    /// LTSP's booleans: `true`, `y` and `yes` in any case; everything else, also `1`, is false.
    pub fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(is_true)
    }

    /// Whether the root image is to be copied into memory, and when (`LTSP_NBD_TO_RAM`).
    ///
    /// LTSP took exactly `true` and no other spelling; every spelling of yes means it here.
    pub fn nbd_to_ram(&self) -> RamMode {
        self.get("LTSP_NBD_TO_RAM").map_or(RamMode::Off, RamMode::of_setting)
    }

    /// A blank-separated list; empty if not set.
    pub fn list(&self, name: &str) -> Vec<&str> {
        self.get(name).map(|value| value.split_whitespace().collect()).unwrap_or_default()
    }

    /// All settings whose name begins with `prefix` (`FSTAB_`), name and value, in the order in
    /// which LTSP used them: GNU version sort of the text `NAME=value`.
    pub fn family(&self, prefix: &str) -> Vec<(&str, &str)> {
        self.family_of(&[prefix])
    }

    /// The same for a family of several names: all members in the order that they would have if
    /// their names began with the first of `prefixes`.
    pub fn family_of(&self, prefixes: &[&str]) -> Vec<(&str, &str)> {
        let canonical = prefixes.first().copied().unwrap_or_default();
        let mut members = Vec::new();
        for prefix in prefixes {
            let from = self.values.range::<str, _>((Bound::Included(*prefix), Bound::Unbounded));
            for (name, setting) in from {
                let Some(rest) = name.strip_prefix(prefix) else { break };
                let line = format!("{canonical}{rest}={}", setting.value);
                members.push((line, name.as_str(), setting.value.as_str()));
            }
        }
        members.sort_by(|(a, ..), (b, ..)| version_order(a.as_bytes(), b.as_bytes()));
        members.into_iter().map(|(_, name, value)| (name, value)).collect()
    }

    /// An lts.conf that gives these settings to any machine, for people and for LTSP's own readers.
    ///
    /// Values are in double quotes, or in single ones where blanks must not collapse. What no
    /// lts.conf can say is a comment: LTSP's one lower-case variable of DHCP, names that are none
    /// for a shell, and values of more than one line.
    pub fn to_lts_conf(&self) -> String {
        let mut text = String::from("[default]\n");
        for (name, setting) in self.iter() {
            let value = setting.value.as_str();
            let line = if !can_be_set(name) || value.contains(['\n', '\0']) {
                format!("# {name:?} is {value:?}, which no file can say\n")
            } else {
                format!("{name} = {}\n", quoted(value))
            };
            text.push_str(&line);
        }
        text
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.values.iter().map(|(name, setting)| (name.as_str(), setting))
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Replaces what was there.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<String>, origin: Origin) {
        self.values.insert(name.into(), Setting { value: value.into(), origin });
    }

    /// Takes everything of `stronger`; what it does not name stays.
    pub fn merge(&mut self, stronger: Self) {
        self.values.extend(stronger.values);
    }
}

/// Whether a line of a file sets this name, and not another.
fn can_be_set(name: &str) -> bool {
    is_name(name) && name != "LIKE" && !name.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// A value as it is written, so that reading it gives the same text.
fn quoted(value: &str) -> String {
    let is_plain = collapse_blanks(value) == value && !is_none(value);
    if !is_plain || value.len() > MOST_OF_A_VALUE {
        return format!("'{}'", value.replace('\'', "''"));
    }
    let mut out = String::from("\"");
    for character in value.chars() {
        if matches!(character, '"' | '\\' | '$' | '`') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
    out
}

/// Every spelling of yes, for what LTSP read less kindly than it was meant.
pub fn means_yes(value: &str) -> bool {
    is_true(value) || value == "1" || value.eq_ignore_ascii_case("on")
}

pub fn is_true(value: &str) -> bool {
    ["true", "y", "yes"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Identity, evaluate};

    #[test]
    #[rustfmt::skip]
    fn settings_are_written_as_a_person_would() {
        let cases = [
            ("FSTAB_1",  "/dev/sda1 /srv ext4 defaults 0 0", "FSTAB_1 = \"/dev/sda1 /srv ext4 defaults 0 0\""),
            ("EMPTY",    "",                "EMPTY = \"\""),
            ("A",        r#"say "hi" $X `d` \n"#, r#"A = "say \"hi\" \$X \`d\` \\n""#),
            ("BLANKS",   "it's  wide",      "BLANKS = 'it''s  wide'"),
            ("WORD",     "none",            "WORD = 'none'"),
            ("filename", "/x",              "# \"filename\" is \"/x\", which no file can say"),
            ("LIKE",     "x",               "# \"LIKE\" is \"x\", which no file can say"),
            ("A-B",      "x",               "# \"A-B\" is \"x\", which no file can say"),
            ("LINES",    "a\nb",            "# \"LINES\" is \"a\\nb\", which no file can say"),
        ];
        for (name, value, line) in cases {
            assert_eq!(Settings::of(&[(name, value)]).to_lts_conf(), format!("[default]\n{line}\n"));
        }
    }

    fn values(settings: &Settings) -> Vec<(&str, &str)> {
        settings.iter().map(|(name, setting)| (name, setting.value.as_str())).collect()
    }

    proptest! {
        /// Whatever a value holds, a file can say it, except for a second line.
        #[test]
        fn what_is_written_is_read_back(
            pairs in proptest::collection::btree_map(
                "[A-KM-Z_][A-Z0-9_]{0,3}",
                prop_oneof!["[\\PC\t\r \u{feff}]{0,20}", "[ '\"\\\\$`{}(A=#\\[\\]\t\r]{0,12}", "(?i)none ?"],
                0..8,
            )
        ) {
            let mut settings = Settings::default();
            for (name, value) in &pairs {
                settings.insert(name.clone(), value.clone(), Origin::Agent);
            }
            let text = settings.to_lts_conf();
            let again = evaluate(&text, &[], &Identity::default());
            prop_assert_eq!(values(&again.settings), values(&settings), "{}", text);
        }

        /// The effective settings of any file say the same as that file.
        #[test]
        fn effective_settings_are_read_back(
            pieces in proptest::collection::vec(
                prop_oneof![
                    "[\\[\\]=\"'#\\\\$({`} \n]",
                    "(\n[A-C] = \"|\n[A-C]='|\"\n|'\n|\\[default\\]\n|NONE|\\$[A-C]|  |x)",
                ],
                0..60,
            )
        ) {
            let text = format!("[default]\n{}", pieces.concat());
            let first = evaluate(&text, &[], &Identity::default()).settings;
            let again = evaluate(&first.to_lts_conf(), &[], &Identity::default());
            prop_assert_eq!(values(&again.settings), values(&first), "{}", text);
            prop_assert!(again.problems.iter().all(|p| p.text.contains("double quotes only")), "{:?}", again.problems);
        }
    }

    #[test]
    #[rustfmt::skip]
    fn booleans_are_those_of_ltsp_c55_except_where_it_only_confused_c93() {
        let cases = [
            ("true", true,  true), ("TRUE", true,  true), ("y",      true,  true), ("Yes", true,  true),
            ("1",    false, true), ("on",   false, true), ("enable", false, false),
            ("false", false, false), ("",   false, false),
        ];
        for (value, boolean, to_ram) in cases {
            let settings = Settings::of(&[("X", value), ("LTSP_NBD_TO_RAM", value)]);
            assert_eq!(settings.is_true("X"), boolean, "X={value}");
            let to_ram = if to_ram { RamMode::Copy } else { RamMode::Off };
            assert_eq!(settings.nbd_to_ram(), to_ram, "LTSP_NBD_TO_RAM={value}");
        }
        assert_eq!(Settings::of(&[("LTSP_NBD_TO_RAM", "Lazy")]).nbd_to_ram(), RamMode::Lazy);
        assert!(!Settings::default().is_true("X"));
    }

    #[test]
    fn families_run_in_version_order_c56() {
        let settings = Settings::of(&[
            ("RCFILE_10", "x"),
            ("RCFILE_2", "x"),
            ("RCFILE_02_X", "x"),
            ("RCFILE_1", "x"),
            ("RCFILE_100", "x"),
            ("RCFILE_01_A", "x"),
            ("RCFILE_A", "x"),
            ("RCFILE_B", "x"),
            ("RCFILE_01A", "x"),
            ("RCFILE", "no member"),
            ("RCFILES_1", "no member"),
        ]);
        let names: Vec<_> = settings.family("RCFILE_").into_iter().map(|(name, _)| name).collect();
        let expected = [
            "RCFILE_01A",
            "RCFILE_1",
            "RCFILE_01_A",
            "RCFILE_2",
            "RCFILE_02_X",
            "RCFILE_10",
            "RCFILE_100",
            "RCFILE_A",
            "RCFILE_B",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn equal_numbers_run_in_the_order_of_their_values_c57() {
        let settings = Settings::of(&[("RCFILE_001", "c"), ("RCFILE_01", "a"), ("RCFILE_1", "b")]);
        let values: Vec<_> =
            settings.family("RCFILE_").into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, ["a", "b", "c"]);
    }
}
