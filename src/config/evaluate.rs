//! One machine's settings: parse, select, expand, and once more when the file names the machine.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::import::{MOST_OF_A_VALUE, Unusable, collapse_blanks, expand};
use super::problem::{Bound, Problem, Problems, Severity};
use super::reading::{Reading, Substitution};
use super::select::{Identity, Indexed, Selection, effective, select};
use super::syntax::{Entry, Quoting};
use super::{Origin, Settings};

/// What a file means for one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evaluation {
    /// Everything of the base, overridden by the file.
    pub settings: Settings,
    /// Names of the sections in force, strongest first.
    pub sections: Vec<String>,
    /// In the order of their lines.
    pub problems: Vec<Problem>,
    /// Names that wait for [`Substitution::Run`], in name order.
    pub deferred: Vec<String>,
}

/// Evaluates `text` for `identity`, on top of `base`.
///
/// `base` holds what is weaker than the file and stronger than nothing ([`super::base`]); of two
/// with one name the later counts (LTSP 5, precedence as in its `ltsp_config.d`). All of it can be
/// used as `$NAME` in the file.
///
/// If the settings so found name the machine differently than `identity` does, sections are chosen
/// a second time by that name (C28). The section that gave the name stays in force, below the one
/// of the name: who writes `[52:54:…] HOSTNAME=node7` means both.
pub fn evaluate(text: &str, base: &[(String, String, Origin)], identity: &Identity) -> Evaluation {
    let reading = Reading::of_text(text);
    let mut evaluation = reading.evaluate(base, identity, Substitution::Refuse);
    evaluation.problems.extend(reading.problems);
    evaluation.problems.sort_by_key(|problem| problem.place);
    evaluation
}

/// [`evaluate`] without the problems that are the same for every machine.
pub(super) fn evaluate_document(
    from: Indexed<'_>,
    base: &[(String, String, Origin)],
    identity: &Identity,
    substitution: &mut Substitution<'_>,
) -> Evaluation {
    let mut shell = Shell { substitution, known: HashMap::new() };
    let first = select(from, identity, None);
    let mut evaluation = apply(&first, base, from.bound, &mut shell);
    let named = evaluation.settings.filled("HOSTNAME").and_then(first_word).map(str::to_owned);
    if let Some(name) = named.filter(|name| identity.hostname.as_ref() != Some(name)) {
        let namer = match evaluation.settings.setting("HOSTNAME").map(|setting| &setting.origin) {
            Some(Origin::File(_)) => first.exact,
            // The command line renames: a section of the former name is not for this machine.
            _ => None,
        };
        let identity = Identity { hostname: Some(name.clone()), ..identity.clone() };
        let selection = select(from, &identity, namer);
        let before = evaluation;
        evaluation = apply(&selection, base, from.bound, &mut shell);
        keep_name(&mut evaluation, name, &before);
    }

    evaluation.problems.sort_by_key(|problem| problem.place);
    // A section is expanded once for each of the two evaluations.
    evaluation.problems.dedup();
    evaluation
}

/// LTSP cuts `HOSTNAME` at its first blank.
fn first_word(value: &str) -> Option<&str> {
    value.split_whitespace().next()
}

/// The name may come from a pattern that the new name does not match any more.
fn keep_name(after: &mut Evaluation, name: String, before: &Evaluation) {
    if after.settings.get("HOSTNAME").and_then(first_word) != Some(name.as_str()) {
        let origin = before.settings.setting("HOSTNAME").map(|setting| setting.origin.clone());
        after.settings.insert("HOSTNAME", name, origin.unwrap_or(Origin::Agent));
    }
}

/// All that variables may put into values: many of the longest would be as bad as one that is too
/// long. Counted as it is looked up, so that values which then are not used count as well.
const MOST_OF_ALL: usize = 16 << 20;

fn apply(
    selection: &Selection<'_>,
    base: &[(String, String, Origin)],
    bound: Bound,
    shell: &mut Shell<'_, '_>,
) -> Evaluation {
    let mut import =
        Import { problems: Problems::new(bound), room: MOST_OF_ALL, ..Import::default() };
    for (name, value, origin) in base {
        import.settings.insert(name.clone(), value.clone(), origin.clone());
    }
    for entry in effective(&selection.sections) {
        if let Some(value) = import.value(entry, shell) {
            import.settings.insert(entry.key.as_str(), value, Origin::File(entry.place));
        }
    }
    let Import { settings, deferred, problems, .. } = import;
    let mut all = selection.problems.clone();
    all.append(&mut problems.into_vec());
    let sections = selection.sections.iter().map(|section| section.name.clone()).collect();
    let deferred = deferred.into_iter().collect();
    Evaluation { settings, sections, problems: all, deferred }
}

/// Entries on their way to settings.
#[derive(Default)]
struct Import {
    settings: Settings,
    deferred: BTreeSet<String>,
    problems: Problems,
    /// What variables may still put into values, in bytes.
    room: usize,
}

impl Import {
    /// The value of an entry; `None` if it is not in force, or not yet.
    fn value(&mut self, entry: &Entry, shell: &mut Shell<'_, '_>) -> Option<String> {
        if entry.quoting == Quoting::Single {
            return Some(entry.value.to_string());
        }
        if self.room == 0 && entry.value.contains(['$', '`']) {
            self.error(entry, "all variables together are longer than 16 MiB");
            return None;
        }
        let raw = collapse_blanks(&entry.value);
        let Self { settings, deferred, room, .. } = self;
        let mut waits = false;
        let (value, doubts) = expand(&raw, |name| {
            // What is there under a name that waits is weaker than what will be.
            waits |= deferred.contains(name);
            let value = settings.get(name)?;
            *room = room.saturating_sub(value.len());
            Some(value)
        });
        let value = match (value, &mut shell.substitution) {
            (Err(Unusable::NeedsShell(..)), Substitution::Defer) => {
                self.defer(entry);
                return None;
            }
            _ if waits => {
                self.defer(entry);
                return None;
            }
            (Err(Unusable::NeedsShell(..)), Substitution::Run(_)) => {
                return self.run(entry, &raw, shell);
            }
            (Err(Unusable::NeedsShell(why, help)), Substitution::Refuse) => {
                let help = format!(
                    "{help}, or let it run in the real root: landfall.substitution=on on the kernel \
                     command line"
                );
                self.problems.add_with(entry.place, Severity::Error, || {
                    (format!("{}: {why}", entry.key), Some(help))
                });
                return None;
            }
            (Err(Unusable::TooLong), _) => {
                self.error(entry, "is longer than 1 MiB");
                return None;
            }
            (Ok(value), _) => value,
        };
        for doubt in doubts {
            self.problems.add_with(entry.place, Severity::Warning, || {
                (format!("{}: {}", entry.key, doubt.why), Some(doubt.help))
            });
        }
        Some(value)
    }

    fn defer(&mut self, entry: &Entry) {
        self.deferred.insert(entry.key.to_string());
    }

    fn run(&mut self, entry: &Entry, raw: &str, shell: &mut Shell<'_, '_>) -> Option<String> {
        match shell.expand(raw, &self.settings) {
            Ok(value) => {
                self.room = self.room.saturating_sub(value.len());
                Some(value)
            }
            Err((why, help)) => {
                self.problems.add_with(entry.place, Severity::Error, || {
                    (format!("{}: {why}", entry.key), help)
                });
                None
            }
        }
    }

    fn error(&mut self, entry: &Entry, why: &str) {
        self.problems.add(entry.place, Severity::Error, || format!("{}: {why}", entry.key));
    }
}

/// Who expands what only a shell can, and what it has said already: a machine that is named by its
/// file is evaluated twice, and no command shall run twice for it without a reason.
struct Shell<'s, 'f> {
    substitution: &'s mut Substitution<'f>,
    /// By what the shell was given.
    known: HashMap<u64, Result<String, Complaint>>,
}

/// What is wrong, and what to do about it.
type Complaint = (String, Option<String>);

impl Shell<'_, '_> {
    fn expand(&mut self, raw: &str, settings: &Settings) -> Result<String, Complaint> {
        let Substitution::Run(run) = &mut self.substitution else {
            return Err(("there is no shell".to_owned(), None));
        };
        let variables: Vec<_> =
            settings.iter().map(|(name, setting)| (name, setting.value.as_str())).collect();
        let mut hasher = DefaultHasher::new();
        (raw, &variables).hash(&mut hasher);
        let known = self.known.entry(hasher.finish()).or_insert_with(|| {
            let value = run(raw, &variables)
                .map_err(|error| (error.to_string(), error.hint().map(str::to_owned)))?;
            if value.len() > MOST_OF_A_VALUE {
                return Err(("is longer than 1 MiB".to_owned(), None));
            }
            // A setting is a line, of one file or of another in the end.
            Ok(value.trim_end_matches('\n').replace(['\n', '\0'], " "))
        });
        known.clone()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Place;

    const SEED: &str = include_str!("../../tests/fixtures/seed-lts.conf");

    fn node1() -> Identity {
        Identity {
            hostname: Some("node1".into()),
            ip: Some([10, 0, 0, 5].into()),
            mac: "52:54:00:aa:bb:cc".parse().ok(),
        }
    }

    /// `NAME=value` pairs in name order, joined by `;`.
    fn summary(evaluation: &Evaluation) -> String {
        let pairs = evaluation.settings.iter().map(|(name, s)| format!("{name}={}", s.value));
        pairs.collect::<Vec<_>>().join(";")
    }

    /// Rows are written as in the conformance list: ` / ` separates lines.
    fn lines(row: &str) -> String {
        row.replace(" / ", "\n")
    }

    #[test]
    fn the_seed_file_means_what_it_meant_c1() {
        let evaluation = evaluate(SEED, &[], &node1());
        assert_eq!(evaluation.problems, []);
        assert_eq!(evaluation.settings.len(), 14);
        for (name, setting) in evaluation.settings.iter() {
            let Origin::File(Place { line, .. }) = setting.origin else {
                panic!("{name} is not from the file")
            };
            let raw = SEED.lines().nth(line - 1).unwrap();
            let (_, quoted) = raw.split_once('"').unwrap();
            let quoted = quoted.strip_suffix('"').unwrap();
            let collapsed = quoted.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>();
            assert_eq!(setting.value, collapsed.join(" "), "{name}");
        }
        assert_eq!(
            evaluation.settings.get("FSTAB_01_SSH"),
            Some("/dev/data/ssh /etc/ssh ext4 nofail,noatime,nodiratime 0 0")
        );
    }

    #[test]
    #[rustfmt::skip]
    fn sections_are_chosen_as_in_the_conformance_list() {
        let cases = [
            ("C2",  "[Default] / LTSP_NBD_TO_RAM = true", "LTSP_NBD_TO_RAM=true"),
            ("C3",  "[default] / A=d / [52:54:00:aa:bb:cc] / A=m / [10.0.0.5] / A=i / [node1] / A=h", "A=h"),
            ("C4",  "[default] / A=d / [52:54:00:AA:BB:CC] / A=m / B=m / [10.0.0.5] / A=i", "A=i"),
            ("C5",  "[default] / A=d / [node1] / B=h / [10.0.0.5] / C=i", "A=d;B=h"),
            ("C6",  "[52:54:00:AA:BB:CC] / A=1", "A=1"),
            ("C7",  "[52-54-00-aa-bb-cc] / A=1 / [default] / B=1", "B=1"),
            ("C8",  "[NODE1] / A=1", "A=1"),
            ("C8",  "[ node1 ] / A=1", "A=1"),
            ("C9",  "[default] / V=d / [52:54:*] / V=m / A=m / [10.0.*] / V=i / B=i / [node*] / V=h / C=h", "A=m;B=i;C=h;V=h"),
            ("C10", "[52:54:00:aa:bb:cc] / V=mac / [node*] / V=glob / X=glob", "V=mac;X=glob"),
            ("C11", "[10.0.0.5] / V=ip / [52:54:*] / V=mg / W=mg", "V=ip;W=mg"),
            ("C12", "[node*] / A=1 / [no*] / B=2", "A=1"),
            ("C13", "[*] / A=1 / [default] / A=0 / B=0", "A=1;B=0"),
            ("C13", "[node?] / A=1", "A=1"),
            ("C14", "[default] / A=1 / [default] / B=2 / A=3", "A=1"),
            ("C15", "[default] / A=1 / A=2", "A=2"),
            ("C16", "[default] / A=0 / C=0 / [gpu] / A=1 / B=1 / [node1] / LIKE=gpu / B=2", "A=1;B=2;C=0"),
            ("C17", "[default] / A=0 / [base] / Z=base / A=base / [gpu] / LIKE=base / A=gpu / [node1] / LIKE=gpu", "A=gpu;Z=base"),
            ("C18", "[x] / A=x / B=x / [y] / A=y / C=y / [node1] / LIKE=y / LIKE=x", "A=y;B=x;C=y"),
            ("C19", "[x] / A=x / [y] / A=y / [node1] / LIKE=\"y x\" / Q=1", "Q=1"),
            ("C20", "[default] / A=0 / [node1] / LIKE=nope / B=1", "A=0;B=1"),
            ("C21", "[default] / LIKE=x / A=0 / [x] / B=1", "A=0"),
            ("C22", "[gpu] / V=gpu / [node*] / V=glob / X=glob / [node1] / LIKE=gpu", "V=gpu;X=glob"),
            ("C23", "[gpu] / V=gpu / [node*] / LIKE=gpu / X=1", "V=gpu;X=1"),
            ("C24", "[default] / A=1 / B=1 / [node1] / A=NONE", "B=1"),
            ("C24", "[default] / A=1 / [node1] / A=\" None \"", ""),
            // Single quotes, which LTSP did not have, are for exactly what is between them.
            ("",    "[default] / A=1 / [node1] / A='NONE' / B='it''s'", "A=NONE;B=it's"),
            ("C25", "[default] / A=none / [node1] / A=5", "A=5"),
            ("C26", "[default] / A=1 / [node1] / A=\"\"", "A="),
            ("C29", "[node1] / LIKE=node1 / A=1", "A=1"),
            ("C29", "[node1] / LIKE=x / A=1 / [x] / LIKE=node1 / B=2", "A=1;B=2"),
            // 1.3: LIKE may name [default], which is then stronger than the patterns.
            ("1.3", "[default] / A=d / [n*] / A=n / [node1] / LIKE=default", "A=d"),
            // Breadth first: y, named by node1, before z, named by x.
            ("1.3", "[node1] / LIKE=x / LIKE=y / [x] / LIKE=z / [y] / A=y / [z] / A=z", "A=y"),
        ];
        for (row, text, expected) in cases {
            assert_eq!(summary(&evaluate(&lines(text), &[], &node1())), expected, "{row}: {text}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn what_a_person_should_mend_in_sections_is_said_with_its_line() {
        let cases = [
            ("C14", "[default] / A=1 / [DEFAULT] / B=2",                           3, "line 1"),
            ("C19", "[node1] / LIKE=\"y x\"",                                     2, "[y x]"),
            ("C20", "[node1] / LIKE=nope",                                         2, "[nope]"),
            ("C21", "[default] / LIKE=x",                                          2, "[default]"),
            ("C29", "[node1] / LIKE=node1",                                        2, "itself"),
            ("C29", "[node1] / LIKE=x / [x] / LIKE=node1",                         4, "itself"),
            // A circle that does not lead back to where the walk began.
            ("C29", "[node1] / LIKE=x / LIKE=y / [x] / LIKE=y / [y] / LIKE=x",     7, "itself"),
        ];
        for (row, text, line, word) in cases {
            let problems = evaluate(&lines(text), &[], &node1()).problems;
            assert_eq!(problems.len(), 1, "{row}: {text}: {problems:?}");
            assert_eq!(problems[0].place.line, line, "{row}: {text}: {problems:?}");
            assert!(problems[0].text.contains(word), "{row}: {text}: {problems:?}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_host_name_selects_its_section_as_soon_as_it_is_known() {
        let unnamed = Identity { hostname: None, ..node1() };
        let none = Identity { hostname: Some("(none)".into()), ..node1() };
        let cases = [
            ("C27", &none,    "[default] / A=d / [node1] / A=h", "A=d"),
            ("C27", &unnamed, "[default] / A=d / [(none)] / A=h", "A=d"),
            ("C28", &unnamed, "[52:54:00:aa:bb:cc] / HOSTNAME=node7 / [node7] / A=1", "A=1;HOSTNAME=node7"),
            // The section that gave the name stays in force, between the name's and [default].
            ("C28", &unnamed, "[default] / A=d / B=d / [52:54:00:aa:bb:cc] / HOSTNAME=node7 / A=m / C=m / [node7] / C=h", "A=m;B=d;C=h;HOSTNAME=node7"),
            ("C28", &node1(), "[node*] / HOSTNAME=kube1 / A=n / [kube1] / B=k", "B=k;HOSTNAME=kube1"),
            ("C28", &unnamed, "[10.0.*] / HOSTNAME=node7 / [node7] / A=1", "A=1;HOSTNAME=node7"),
        ];
        for (row, identity, text, expected) in cases {
            assert_eq!(summary(&evaluate(&lines(text), &[], identity)), expected, "{row}: {text}");
        }
        let base = [("HOSTNAME".to_owned(), "node1".to_owned(), Origin::CommandLine)];
        let text = "[node1]\nA=1\n[node9]\nB=1\n";
        let node9 = Identity { hostname: Some("node9".into()), ..node1() };
        for identity in [&unnamed, &node9] {
            let evaluation = evaluate(text, &base, identity);
            assert_eq!(summary(&evaluation), "A=1;HOSTNAME=node1", "ltsp.hostname=node1");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn lines_are_read_as_in_the_conformance_list() {
        let cases: &[(&str, &str, &str, &[usize])] = &[
            ("C30", "[default] # d / A=1 # e / B = a#b / C = \"a#b\" # c", "A=1;B=a;C=a#b", &[]),
            ("C31", "[default] / keep_Me=1", "KEEP_ME=1", &[]),
            ("C32", "[default] / \tA\t=\tx y\t", "A=x y", &[]),
            ("C33", "[default] / A = \"b=c [d] 'e'\"", "A=b=c [d] 'e'", &[]),
            ("C34", "[default] / A = \"příliš žluťoučký\"", "A=příliš žluťoučký", &[]),
            ("C35", "", "", &[]),
            ("C35", "# nothing / # here", "", &[]),
            ("C35", "[default] / A=1 / B=2", "A=1;B=2", &[]),
            ("C36", "[default] / X=1 / A = b=c / Z=1", "X=1;Z=1", &[3]),
            ("C37", "[default] / A=1 / B=2 / junk / C=3", "A=1;B=2;C=3", &[4]),
            ("C38", "A=1 / [default] / B=2", "B=2", &[1]),
            ("C39", "[default] / A=1 / [foo] / [node1] / A=2", "A=2", &[]),
            ("C40", "[default] / A = / B=2 / C=3", "A=;B=2;C=3", &[2]),
            ("C41", "[default] / A = 'bar baz' / B=1", "A=bar baz;B=1", &[2]),
            ("C42", "[default]\r\nA = \"x\"\r\nB=y\r\n\r\n# end\r\n", "A=x;B=y", &[]),
            ("C42", "\u{feff}[default] / A=1", "A=1", &[]),
            ("C43", "[default] / B-C=1 / \"B C\"=2 / \"D\"=3 / 9=4", "D=3", &[2, 3, 5]),
            ("C44", "[default] / A=1 / # end", "A=1", &[]),
            ("C45", "[default] / A=\"1\" B=\"2\" / C=3", "A=1;C=3", &[2]),
            ("1.2", "[default] A=\"1\"", "A=1", &[]),
            ("1.2", "[default] / A = it's / B=1", "B=1", &[2]),
            ("1.2", "[default] / A = \"x\" y / B=1", "A=x;B=1", &[2]),
            ("1.2", "[default] / A = \"it's # ok [x]=1\"", "A=it's # ok [x]=1", &[]),
            ("1.2", "[default] / A = \"x\" # c \"y\" / B=1", "A=x;B=1", &[]),
            ("1.1", "[default] / A = \"say \"hi\" twice\"", "A=say \"hi\" twice", &[2]),
            ("1.1", r#"[default] / A = "say \"hi\"""#, "A=say \"hi\"", &[]),
            ("1.1", "[default] / A = \"open / B=1", "B=1", &[2]),
            ("1.1", "[default] / A = 'open / B=1", "B=1", &[2]),
            ("1.1", "include /etc/more.conf / [default] / include = 1", "INCLUDE=1", &[1]),
            // What follows a broken header is for whom it says, not for the section before.
            ("",    "[default] / A=1 / [node2 / A=2 / [node1] / B=1", "A=1;B=1", &[3]),
            ("",    "[default] / A = 'a  $X \\$' / B=1", "A=a  $X \\$;B=1", &[2]),
            ("C48", "[default] / A=\"$NOSUCH/x\"", "A=/x", &[2]),
            ("C51", "[default] / A=\"$(echo hi)\" / B=1", "B=1", &[2]),
            ("C52", "[default] / A=1 / B=\"$(oops\" / C=2", "A=1;C=2", &[3]),
            ("",    "[default] / A=\"x\0y\" / B=1", "B=1", &[2]),
        ];
        for (row, text, expected, problems) in cases {
            let evaluation = evaluate(&lines(text), &[], &node1());
            assert_eq!(summary(&evaluation), *expected, "{row}: {text}");
            let at: Vec<_> = evaluation.problems.iter().map(|problem| problem.place.line).collect();
            assert_eq!(at, *problems, "{row}: {text}: {:?}", evaluation.problems);
        }
    }

    #[test]
    fn a_problem_names_its_column_in_characters() {
        let problems = evaluate("[default]\nÁ1 = 2\n  A = é\"x\"\n", &[], &node1()).problems;
        let at: Vec<_> =
            problems.iter().map(|problem| (problem.place.line, problem.place.column)).collect();
        assert_eq!(at, [(2, 1), (3, 8)]);
    }

    #[test]
    fn the_file_is_stronger_than_what_it_can_refer_to_c47_c53() {
        let base = [
            ("IPV4ADDR".to_owned(), "10.0.0.5".to_owned(), Origin::Dhcp),
            ("HOSTNAME".to_owned(), "node1".to_owned(), Origin::Dhcp),
            ("BAZ".to_owned(), "dhcp".to_owned(), Origin::Dhcp),
            ("FOO".to_owned(), "bar".to_owned(), Origin::CommandLine),
            ("BAZ".to_owned(), "1".to_owned(), Origin::CommandLine),
        ];
        let text = "[default]\nX=/mnt\nA=\"$X/data $IPV4ADDR ${HOSTNAME}\"\nBAZ=2\nFOO=NONE\n";
        let evaluation = evaluate(text, &base, &node1());
        assert_eq!(evaluation.problems, []);
        let settings = &evaluation.settings;
        assert_eq!(settings.get("A"), Some("/mnt/data 10.0.0.5 node1"));
        assert_eq!(settings.get("BAZ"), Some("2"));
        assert_eq!(settings.get("FOO"), Some("bar"), "NONE suppresses what the file says, no more");
        let place = Place { file: 0, line: 4, column: 1 };
        assert_eq!(settings.setting("BAZ").unwrap().origin, Origin::File(place));
        assert_eq!(settings.setting("FOO").unwrap().origin, Origin::CommandLine);
    }

    /// An lts.conf with a block for each of thousands of nodes must not hold a boot up.
    #[test]
    fn a_long_file_is_read_quickly_and_a_wrong_one_does_not_flood_the_console() {
        let mut text = String::from("[default]\n");
        for node in 0..4000 {
            text += &format!(
                "[n{node}]\nLIKE=n{}\nKEY_{node} = \"a value of no interest\"\n",
                node + 1
            );
        }
        let identity = Identity { hostname: Some("n0".into()), ..node1() };
        let started = std::time::Instant::now();
        let evaluation = evaluate(&text, &[], &identity);
        assert_eq!(evaluation.settings.len(), 4000);
        assert_eq!(evaluation.problems.len(), 1, "n4000 does not exist");
        assert!(started.elapsed().as_secs() < 2, "{:?}", started.elapsed());

        let page = "<html>\n".repeat(30_000);
        assert!(evaluate(&page, &[], &identity).problems.len() <= 1);
        let page = format!("[default]\n{page}");
        assert_eq!(evaluate(&page, &[], &identity).problems.len(), 51);
    }

    /// Eight times as long with every line, and then as many long ones as fit a file.
    #[test]
    fn a_file_of_a_few_lines_cannot_fill_the_memory() {
        let mut text = String::from("[default]\nV0=0123456789\n");
        for line in 1..40 {
            let before = format!("$V{}", line - 1);
            text += &format!("V{line}=\"{}\"\n", before.repeat(8));
        }
        let evaluation = evaluate(&text, &[], &node1());
        let settings = &evaluation.settings;
        assert_eq!(settings.get("V5").map(str::len), Some(10 * 8_usize.pow(5)));
        assert_eq!(settings.get("V6"), None);
        assert_eq!(evaluation.problems[0].text, "V6: is longer than 1 MiB");

        for line in 0..100_000 {
            text += &format!("W{line}=\"$V5$V5$V5\"\n");
        }
        text += "LAST=1\n";
        let started = std::time::Instant::now();
        let evaluation = evaluate(&text, &[], &node1());
        let all: usize = evaluation.settings.iter().map(|(_, setting)| setting.value.len()).sum();
        assert!((MOST_OF_ALL / 2..MOST_OF_ALL + (2 << 20)).contains(&all), "{all}");
        assert_eq!(evaluation.settings.get("LAST"), Some("1"), "what needs no variable is kept");
        assert!(evaluation.problems.len() <= 51, "{}", evaluation.problems.len());
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }

    #[test]
    fn no_kind_of_problem_floods_the_console() {
        let cases = [
            ("doubles", "[node1]\n".repeat(1000)),
            ("LIKEs of nothing", format!("[node1]\n{}", "LIKE=x\n".repeat(1000))),
            ("LIKEs of [default]", format!("[default]\n{}", "LIKE=x\n".repeat(1000))),
            ("circles", format!("[node1]\n{}", "LIKE=node1\n".repeat(1000))),
            (
                "values",
                (0..1000).fold("[node1]\n".into(), |text, n| format!("{text}A{n}=\"$(x)\"\n")),
            ),
        ];
        for (what, text) in cases {
            let count = evaluate(&text, &[], &node1()).problems.len();
            assert_eq!(count, 51, "{what}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[\\PC\n\r\t\u{0}]{0,200}") {
            evaluate(&text, &[], &node1());
        }

        #[test]
        fn nothing_made_of_the_grammars_own_pieces_is_too_strange(
            pieces in proptest::collection::vec(
                prop_oneof![
                    "[\\[\\]=\"'#\\\\$({`} \n\r]", "(A|B_1|LIKE|include|default|node1|HOSTNAME|NONE|\\*)",
                ],
                0..60,
            )
        ) {
            evaluate(&pieces.concat(), &[], &node1());
        }

        /// What is quoted without anything special comes out as it went in.
        #[test]
        fn plain_quoted_values_survive(value in "([a-zA-Z0-9/=\\[\\]'#;|&<>*~.,:é-]+ ?)*") {
            let text = format!("[default]\nA = \"{value}\" # end\n");
            let evaluation = evaluate(&text, &[], &node1());
            prop_assume!(!value.eq_ignore_ascii_case("none"));
            prop_assert_eq!(evaluation.settings.get("A"), Some(value.as_str()));
        }
    }
}
