//! The files of one configuration, parsed once for as many machines as there are.

use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;

use super::Origin;
use super::evaluate::{Evaluation, evaluate_document};
use super::problem::{Bound, Place, Problem, Problems, Severity};
use super::select::{Identity, Index, Indexed};
use super::source::LIMIT;
use super::syntax::{Document, is_include, parse};
use crate::error::{Cause, Error, Result, WhileDoing};

/// One file's text, and its name as problems shall give it (a path or an address).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    pub name: String,
    pub text: String,
}

impl Text {
    /// What is not UTF-8 becomes U+FFFD, which a [`Reading`] reports.
    pub fn of_bytes(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        let text = String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        Self { name: name.into(), text }
    }
}

/// Gets what an `include` line of a file asks for: the path as it is written there. The name of
/// what comes back tells whether it has been there before, so it must not depend on the spelling.
pub type Include<'a> = &'a mut dyn FnMut(&Text, &str) -> Result<Text>;

/// LTSP's limit; a file that is asked for and cannot be had counts as well.
const MOST_INCLUDED: usize = 10;
/// Of lines that ask for anything, one file in many spellings included.
const MOST_ASKED: usize = 100;

/// What becomes of `$(…)` and backquotes in a value, and of the forms of `${…}` that only a shell
/// knows.
pub enum Substitution<'a> {
    /// The setting is not in force, and its line is reported.
    Refuse,
    /// A shell may read them, but there is no system yet for it to run in: such settings, and
    /// those that use them, are left out without a word, and listed in [`Evaluation::deferred`].
    Defer,
    /// Gives a value's text after a shell has expanded it as between double quotes; the variables
    /// are all settings so far. Runs of blanks in the text are single blanks already.
    Run(&'a mut dyn FnMut(&str, &[(&str, &str)]) -> Result<String>),
}

/// A configuration: the file, what it includes, and what is wrong with their text.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The file itself, then what it includes.
    pub files: Vec<Text>,
    pub document: Document,
    /// Those that are the same for every machine, in the order of their places.
    pub problems: Vec<Problem>,
    index: Index,
    bound: Bound,
}

impl Reading {
    /// Reads `main` and what it includes, for PID 1: there is an end to the problems it keeps.
    /// Never fails; trouble is in `problems`.
    pub fn of(main: Text, include: Include<'_>) -> Self {
        Self::within(Bound::Few, main, include)
    }

    /// The same for a desk, where a person wants to mend everything at once: all problems are kept,
    /// those of evaluations as well.
    pub fn of_all(main: Text, include: Include<'_>) -> Self {
        Self::within(Bound::All, main, include)
    }

    /// A text that stands alone, and includes nothing.
    pub fn of_text(text: &str) -> Self {
        let main = Text { name: "lts.conf".to_owned(), text: text.to_owned() };
        Self::of(main, &mut |_, path| {
            Err(Error::refused(format!("including {path}"), "nothing can be included here"))
        })
    }

    fn within(bound: Bound, main: Text, include: Include<'_>) -> Self {
        let mut files = vec![main];
        let mut document = Document::default();
        let mut problems = Vec::new();
        let mut included = Included { tries: 0, asked: Vec::new(), problems: Problems::new(bound) };
        let mut number = 0;
        // What a file includes comes after all that is there: the files are their own queue.
        while let Some(file) = files.get(number) {
            let parsed = parse(&file.text, number, bound);
            document.sections.extend(parsed.sections);
            problems.extend(parsed.problems);
            for (place, path) in parsed.includes {
                included.follow(place, path, &mut files, include);
            }
            number = number.saturating_add(1);
        }
        problems.extend(included.problems.into_vec());
        let (index, complaints) = Index::of(&document, &files, bound);
        problems.extend(complaints);
        problems.sort_by_key(|problem| problem.place);
        Self { files, document, problems, index, bound }
    }

    /// One machine's settings, on top of `base`; see [`super::evaluate`].
    pub fn evaluate(
        &self,
        base: &[(String, String, Origin)],
        identity: &Identity,
        mut substitution: Substitution<'_>,
    ) -> Evaluation {
        let Self { document, index, bound, .. } = self;
        let from = Indexed { document, index, bound: *bound };
        evaluate_document(from, base, identity, &mut substitution)
    }

    /// All files as one that includes nothing, for readers that have only one: what is included is
    /// at the end. A text that includes nothing stays as it is, to the byte.
    pub fn joined(&self) -> String {
        let Some((main, included)) = self.files.split_first() else { return String::new() };
        if included.is_empty() {
            return main.text.clone();
        }
        let mut joined = String::new();
        for (number, file) in self.files.iter().enumerate() {
            if number > 0 {
                joined.push_str(&format!("\n# {}\n", file.name.replace(char::is_control, "?")));
            }
            // What is in front of a file's first section must not go to the section before it.
            let mut in_a_section = number == 0;
            for line in file.text.trim_start_matches('\u{feff}').lines() {
                in_a_section |= line.trim_ascii_start().starts_with('[');
                if !in_a_section || is_include(line) {
                    joined.push_str("# ");
                }
                joined.push_str(line);
                joined.push('\n');
            }
        }
        joined
    }

    /// The name of the file that `place` is in.
    pub fn name_of(&self, place: Place) -> &str {
        self.files.get(place.file).map(|file| file.name.as_str()).unwrap_or_default()
    }
}

/// The `include` lines so far.
struct Included {
    tries: usize,
    /// Folder of the asking file, and the path as written.
    asked: Vec<(String, String)>,
    problems: Problems,
}

impl Included {
    fn follow(&mut self, place: Place, path: String, files: &mut Vec<Text>, include: Include<'_>) {
        let Some(from) = files.get(place.file) else { return };
        let folder = from.name.rsplit_once('/').map(|(folder, _)| folder).unwrap_or_default();
        let asked = (folder.to_owned(), path);
        if self.asked.contains(&asked) {
            return;
        }
        if self.tries >= MOST_INCLUDED || self.asked.len() >= MOST_ASKED {
            return self.problems.add(place, Severity::Error, || {
                format!("{}: no more than {MOST_INCLUDED} files can be included", asked.1)
            });
        }
        match include(from, &asked.1) {
            Ok(text) if files.iter().any(|file| is_same(&file.name, &text.name)) => {}
            Ok(text) => {
                self.tries = self.tries.saturating_add(1);
                files.push(text);
            }
            Err(error) => {
                self.tries = self.tries.saturating_add(1);
                self.problems.add_with(place, Severity::Error, || {
                    (error.to_string(), error.hint().map(str::to_owned))
                });
            }
        }
        self.asked.push(asked);
    }
}

/// Reads what the files of one configuration include, from beside them on this machine and no more
/// of all together than a node would take; for a desk.
pub struct FromDisk {
    /// In bytes.
    room: usize,
    /// Names of what has been read.
    known: Vec<String>,
}

impl FromDisk {
    pub fn beside(main: &Text) -> Self {
        Self { room: LIMIT.saturating_sub(main.text.len()), known: Vec::new() }
    }

    /// The file that `path` means in the file `from`; without its text if it has been there before.
    ///
    /// # Errors
    /// The file cannot be read, or there is no more room for it. An address cannot be read either:
    /// what it holds on the day a machine boots is not known today, and a desk tool asks nobody.
    pub fn get(&mut self, from: &Text, path: &str) -> Result<Text> {
        let doing = || format!("including {path}");
        if path.contains("://") {
            let why = "an address is fetched when a machine boots, and not here";
            let hint = "check that file on its own, with the sections it refers to";
            return Err(Error::refused(doing(), why).with_hint(hint));
        }
        let folder = Path::new(&from.name).parent().unwrap_or(Path::new(""));
        let file = without_detours(&folder.join(path));
        let name = file.to_string_lossy().into_owned();
        if self.known.contains(&name) {
            return Ok(Text { name, text: String::new() });
        }
        let bytes = read_regular(&file, self.room).while_doing(doing).map_err(|error| {
            match path.starts_with('/') && matches!(error.cause(), Cause::Os(_)) {
                true => error.with_hint(
                    "a path from / on is one of the boot server; relative ones work everywhere",
                ),
                false => error,
            }
        })?;
        self.room = self.room.saturating_sub(bytes.len());
        self.known.push(name.clone());
        Ok(Text::of_bytes(name, bytes))
    }
}

/// Reads one file that a file on this machine includes; see [`FromDisk::get`].
///
/// # Errors
/// The file cannot be read.
pub fn include_from_disk(from: &Text, path: &str) -> Result<Text> {
    FromDisk::beside(from).get(from, path)
}

/// At most `room` bytes of a file. Anything but a file, a pipe say, may never come to an end.
fn read_regular(path: &Path, room: usize) -> Result<Vec<u8>> {
    let doing = || format!("reading {}", path.display());
    // Opening a pipe would wait for its writer.
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path);
    let file = file.while_doing(doing)?;
    if !file.metadata().while_doing(doing)?.is_file() {
        return Err(Error::refused(doing(), "it is no regular file"));
    }
    let most = u64::try_from(room).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).while_doing(doing)?;
    match bytes.len() <= room {
        true => Ok(bytes),
        false => Err(Error::refused(doing(), "all files together have more than 4 MiB")),
    }
}

/// Whether two names are of one file; who names the first one may have typed a detour.
fn is_same(a: &str, b: &str) -> bool {
    a == b || without_detours(Path::new(a)) == without_detours(Path::new(b))
}

/// `a/./b/../c` is `a/c`, so that one file has one name.
fn without_detours(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(plain.components().next_back(), Some(Component::Normal(_))) =>
            {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    /// Reads files that are named as they are written, the first one first.
    fn read(files: &[(&str, &str)]) -> Reading {
        let text = |(name, text): &(&str, &str)| Text {
            name: (*name).to_owned(),
            text: text.replace(" / ", "\n"),
        };
        Reading::of(text(&files[0]), &mut |_, path| {
            let file = files.iter().find(|(name, _)| *name == path);
            file.map(text)
                .ok_or_else(|| Error::refused(format!("including {path}"), "no such file"))
        })
    }

    fn places(reading: &Reading) -> Vec<(usize, usize, usize)> {
        let places = reading.problems.iter().map(|problem| problem.place);
        places.map(|Place { file, line, column }| (file, line, column)).collect()
    }

    /// `[section] NAME=value …`, in order.
    fn summary(reading: &Reading) -> String {
        let entries = |section: &crate::config::Section| {
            let all = section.entries.iter().map(|entry| format!(" {}={}", entry.key, entry.value));
            format!("[{}]{}", section.name, all.collect::<String>())
        };
        reading.document.sections.iter().map(entries).collect::<Vec<_>>().join(" ")
    }

    #[test]
    #[rustfmt::skip]
    fn what_is_included_counts_after_all_that_is_there_1_2() {
        type Row<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a [(usize, usize, usize)]);
        let cases: &[Row<'_>] = &[
            // In order, after the end, and not where the line stands.
            (&[("m", "include a / [x] / include b / X=1"), ("a", "[a] / A=1"), ("b", "[b] / B=1")],
             "[x] X=1 [a] A=1 [b] B=1", &[]),
            // What a file includes comes after what its includer includes.
            (&[("m", "include a / include b"), ("a", "include c / [a]"), ("b", "[b]"), ("c", "[c]")],
             "[a] [b] [c]", &[]),
            // Each once: a circle, the main file, a second line.
            (&[("m", "include a / include a / [m]"), ("a", "include m / include b / [a]"), ("b", "include a / [b]")],
             "[m] [a] [b]", &[]),
            // Quotes, comments, blanks.
            (&[("m", "include\t\"a b\"  # c / include c#d"), ("a b", "[ab]"), ("c", "[c]")], "[ab] [c]", &[]),
            (&[("m", "\u{feff}include a\r / [m]\r"), ("a", "\u{feff}[a]\r / A=1\r")], "[m] [a] A=1", &[]),
            // An ordinary setting.
            (&[("m", "[m] / include = a / include=b")], "[m] INCLUDE=a INCLUDE=b", &[]),
            // Mistakes cost their own line.
            (&[("m", "[m] / include \"a / include a b /  include a / include \"\" / M=1"), ("a", "[a]")],
             "[m] M=1", &[(0, 2, 9), (0, 3, 11), (0, 4, 2), (0, 5, 9)]),
            (&[("m", "include nope / [m]")], "[m]", &[(0, 1, 9)]),
            // A section ends with its file.
            (&[("m", "[m] / include a / M=1"), ("a", "A=1 / [a] / B=1 / junk")], "[m] M=1 [a] B=1", &[(1, 1, 1), (1, 4, 1)]),
            // Only the first of a name counts, wherever it is.
            (&[("m", "include a / [m]"), ("a", "[a] / [M]")], "[m] [a] [M]", &[(1, 2, 1)]),
        ];
        for (files, expected, problems) in cases {
            let reading = read(files);
            assert_eq!(summary(&reading), *expected, "{files:?}");
            assert_eq!(places(&reading), *problems, "{files:?}: {:?}", reading.problems);
        }
        let double = &read(&[("m", "include a / [m]"), ("a", "[M]")]).problems[0];
        assert!(double.text.starts_with("[M] is already on line 2 of m,"), "{double}");
    }

    #[test]
    fn settings_of_an_included_file_name_their_place() {
        let reading = read(&[("m", "include a / [default] / A=1"), ("a", "# / [n7] / A=\"$B\"")]);
        let identity = Identity { hostname: Some("n7".into()), ..Identity::default() };
        let evaluation = reading.evaluate(&[], &identity, Substitution::Refuse);
        let place = Place { file: 1, line: 3, column: 1 };
        assert_eq!(evaluation.settings.setting("A").unwrap().origin, Origin::File(place));
        assert_eq!(evaluation.problems[0].place, place);
        assert_eq!(reading.name_of(place), "a");
    }

    #[test]
    fn there_is_an_end_to_what_can_be_included() {
        let names: Vec<_> = (0..20).map(|number| format!("f{number}")).collect();
        let text: String = names.iter().map(|name| format!("include {name}\n")).collect();
        let mut asked = Vec::new();
        let main = Text { name: "m".into(), text };
        let reading = Reading::of(main.clone(), &mut |_, path| {
            asked.push(path.to_owned());
            match path {
                "f3" => Err(Error::refused("including f3", "no such file")),
                path => Ok(Text { name: path.into(), text: "include f0\ninclude new\n".into() }),
            }
        });
        assert_eq!(reading.files.len(), 10, "nine and the main one");
        assert_eq!(&asked[..10], &names[..10]);
        assert!(
            asked[10..].iter().all(|path| path == "f0"),
            "the same from beside another: {asked:?}"
        );
        let refused = reading.problems.iter().filter(|p| p.text.contains("no more than 10"));
        assert_eq!(refused.count(), 10 + 9, "{:?}", reading.problems);

        // One file in many spellings.
        let text: String = (0..1000).map(|n| format!("include {}a\n", "./".repeat(n))).collect();
        let mut asked = 0;
        let reading = Reading::of_all(Text { name: "m".into(), text }, &mut |_, _| {
            asked += 1;
            Ok(Text { name: "a".into(), text: "[a]".into() })
        });
        assert_eq!((asked, reading.files.len(), reading.problems.len()), (100, 2, 900));
    }

    #[test]
    fn one_file_made_of_all_says_the_same() {
        let files = [
            ("m", "\u{feff}include a / [m] / include b / M=1"),
            ("a", "\u{feff}LOST=1 / [a] / A=1"),
            ("b", "include a / [b] B=1"),
        ];
        let all = read(&files);
        let one = read(&[("one", &all.joined())]);
        assert_eq!(one.files.len(), 1);
        assert_eq!(summary(&one), summary(&all));
        assert_eq!(one.problems, []);
        let alone = "\u{feff}[m]\r\nA=1";
        assert_eq!(Reading::of_text(alone).joined(), alone);
    }

    #[test]
    fn a_desk_gets_every_problem() {
        let text = format!("[default]\n{}", "junk\nLIKE=x\nA=\"$(x)\"\n".repeat(200));
        let main = Text { name: "m".into(), text };
        let count = |reading: Reading| {
            let evaluation = reading.evaluate(&[], &Identity::default(), Substitution::Refuse);
            (reading.problems.len(), evaluation.problems.len())
        };
        let include: Include<'_> = &mut |_, _| Err(Error::refused("including", "nothing"));
        assert_eq!(count(Reading::of_all(main.clone(), include)), (400, 1));
        assert_eq!(count(Reading::of(main, include)), (102, 1));
    }

    #[test]
    fn a_desk_reads_what_is_beside_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        fs::create_dir(at("racks")).unwrap();
        fs::write(at("racks/7.conf"), "[n7]\ninclude ../lts.conf\ninclude 8.conf\n").unwrap();
        fs::write(at("racks/8.conf"), b"[n8]\nA=\xff\n").unwrap();
        let text = "include racks/./7.conf\ninclude http://h/x\ninclude /no/where\n";
        fs::write(at("lts.conf"), text).unwrap();
        let main = Text { name: at("racks/.././lts.conf"), text: text.into() };
        let reading = Reading::of_all(main, &mut include_from_disk);
        let names: Vec<_> = reading.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, [at("racks/.././lts.conf"), at("racks/7.conf"), at("racks/8.conf")]);
        assert_eq!(places(&reading), [(0, 2, 9), (0, 3, 9), (2, 2, 3)]);
        let help = |number: usize| reading.problems[number].help.as_deref().unwrap_or_default();
        assert!(help(0).contains("on its own"), "{:?}", reading.problems);
        assert!(help(1).contains("boot server"), "{:?}", reading.problems);
    }

    #[test]
    fn a_desk_takes_only_files_and_no_more_than_a_node() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (pipe, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), pipe, mode, 0).unwrap();
        fs::write(at("half"), format!("#{}\n", "x".repeat(LIMIT / 2))).unwrap();
        fs::write(at("more"), format!("#{}\n", "x".repeat(LIMIT / 2))).unwrap();
        let text = "include pipe\ninclude half\ninclude ./half\ninclude more\ninclude /dev/zero\n";
        let main = Text { name: at("lts.conf").display().to_string(), text: text.to_owned() };
        let mut disk = FromDisk::beside(&main);
        let reading = Reading::of(main, &mut |from, path| disk.get(from, path));
        assert_eq!(reading.files.len(), 2, "{:?}", reading.problems);
        let said: Vec<_> =
            reading.problems.iter().map(|p| (p.place.line, p.text.as_str())).collect();
        let [(1, pipe), (4, more), (5, zero)] = said.as_slice() else { panic!("{said:?}") };
        assert!(pipe.ends_with("it is no regular file"), "{pipe}");
        assert!(more.ends_with("more than 4 MiB"), "{more}");
        assert!(zero.ends_with("it is no regular file"), "{zero}");
    }

    #[test]
    fn what_waits_for_a_shell_is_left_out_and_so_is_what_uses_it() {
        let text = "[default]\n\
            A=\"$(a)\"\nB=\"x $A\"\nC=\"${A}\"\nD=\"`d`\"\nE=\"${X:-y}\"\nF='$(f)'\nG=\"\\$(g)\"\n\
            H=h\nSERVER=\"$(s)\"\nI=\"$SERVER\"\n";
        let base = [("SERVER".to_owned(), "10.0.0.1".to_owned(), Origin::Dhcp)];
        let reading = Reading::of_text(text);
        let problems = reading.problems.clone();
        assert_eq!(problems.len(), 1, "of the single quotes: {problems:?}");
        let evaluation = reading.evaluate(&base, &Identity::default(), Substitution::Defer);
        assert_eq!(evaluation.problems, []);
        assert_eq!(evaluation.deferred, ["A", "B", "C", "D", "E", "I", "SERVER"]);
        let got: Vec<_> =
            evaluation.settings.iter().map(|(name, s)| (name, s.value.as_str())).collect();
        assert_eq!(got, [("F", "$(f)"), ("G", "$(g)"), ("H", "h"), ("SERVER", "10.0.0.1")]);
    }

    #[test]
    fn a_shell_gets_the_raw_text_and_all_settings_so_far_and_is_asked_once() {
        let text = "[default]\nA=a\nB=\"$(x   \t y) $A\"\nC=\"<$B>\"\nE=\"$(bad)\"\nLATER=1\n\
            [52:54:00:aa:bb:cc]\nHOSTNAME=\"`name`\"\n[node7]\nD=d\n";
        let reading = Reading::of_text(text);
        let identity = Identity { mac: "52:54:00:aa:bb:cc".parse().ok(), ..Identity::default() };
        let mut asked = Vec::new();
        let mut shell = |value: &str, variables: &[(&str, &str)]| {
            let names: Vec<_> =
                variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
            asked.push(format!("{value} with {}", names.join(" ")));
            match value {
                "`name`" => Ok("node7".to_owned()),
                "$(bad)" => Err(Error::refused("asking", "no").with_hint("mend it")),
                _ => Ok("two\nlines\n\n".to_owned()),
            }
        };
        let evaluation = reading.evaluate(&[], &identity, Substitution::Run(&mut shell));
        let settings = &evaluation.settings;
        assert_eq!(settings.get("B"), Some("two lines"));
        assert_eq!(settings.get("C"), Some("<two lines>"));
        assert_eq!(settings.get("E"), None);
        assert_eq!(settings.get("D"), Some("d"), "a name from a shell selects sections (C28)");
        assert_eq!(evaluation.sections, ["node7", "52:54:00:aa:bb:cc", "default"]);
        assert_eq!(evaluation.problems.len(), 1, "{:?}", evaluation.problems);
        let problem = &evaluation.problems[0];
        assert_eq!(problem.to_string(), "line 5, column 1: E: asking: refused: no");
        assert_eq!(problem.help.as_deref(), Some("mend it"));
        assert_eq!(
            asked,
            [
                "$(x y) $A with A=a",
                "$(bad) with A=a B=two lines C=<two lines>",
                "`name` with A=a B=two lines C=<two lines> LATER=1",
            ]
        );
    }

    #[test]
    fn a_refusal_names_the_way_out() {
        let evaluation = Reading::of_text("[default]\nA=\"$(x)\"\n").evaluate(
            &[],
            &Identity::default(),
            Substitution::Refuse,
        );
        let help = evaluation.problems[0].help.as_deref().unwrap();
        assert!(help.contains("\\$(") && help.contains("landfall.substitution=on"), "{help}");
    }

    proptest! {
        /// Whatever is in the files: nothing panics, and every problem is inside its file.
        #[test]
        fn problems_are_where_they_say(
            files in proptest::collection::vec(
                proptest::collection::vec(
                    prop_oneof![
                        "[\\[\\]=\"'#\\\\$({`} \n\r\t\u{feff}\u{fffd}é\u{0}]",
                        "(A|B_1|LIKE=|include [0-3]\n|default|\\[node1\\]\n|\nA = |\n|HOSTNAME=|NONE|\\*)",
                    ],
                    0..40,
                ),
                1..4,
            )
        ) {
            let files: Vec<String> = files.iter().map(|pieces| pieces.concat()).collect();
            let get = |name: &str| {
                let text = name.parse::<usize>().ok().and_then(|number| files.get(number));
                let missing = || Error::refused(format!("including {name}"), "no such file");
                text.map(|text| Text { name: name.into(), text: text.clone() }).ok_or_else(missing)
            };
            let reading = Reading::of_all(get("0").unwrap(), &mut |_, path| get(path));
            let identity = Identity { hostname: Some("node1".into()), ..Identity::default() };
            let evaluation = reading.evaluate(&[], &identity, Substitution::Refuse);
            for Problem { place, text, .. } in reading.problems.iter().chain(&evaluation.problems) {
                let file = reading.files.get(place.file);
                prop_assert!(file.is_some(), "{place:?}: {text}");
                let line = file.unwrap().text.split('\n').nth(place.line.wrapping_sub(1));
                prop_assert!(line.is_some(), "{place:?}: {text}");
                let length = line.unwrap().strip_suffix('\r').or(line).unwrap().chars().count();
                prop_assert!((1..=length + 1).contains(&place.column), "{place:?}: {text}");
            }
        }
    }

    /// Two megabytes for five thousand nodes: defaults, classes that are LIKE each other, patterns
    /// by the hundred, long quoted values.
    fn large() -> String {
        let mut text = String::from("[default]\nTIMEZONE = Europe/Prague\nDATA = \"/dev/data\"\n");
        for class in 0..100 {
            text += &format!(
                "[class{class}]\nLIKE = class{}\nCLASS_{class} = \"$DATA/{class}\"\n",
                class + 1
            );
        }
        text += "[class100]\nKEEP_SYSTEM_SERVICES = \"ssh rpcbind nfs-kernel-server\"\n";
        for rack in 0..400 {
            text += &format!(
                "[rack{rack}-*]\nRACK = {rack}\nSEARCH_DOMAIN = \"r{rack}.example.org example.org\"\n"
            );
        }
        for node in 0..4500 {
            text += &format!(
                "# node {node} of the hall\n\
                 [52:54:00:00:{:02x}:{:02x}]\n\
                 LIKE     = class{}\n\
                 HOSTNAME = rack{}-node{node}\n\
                 FSTAB_01 = \"$DATA/ssh{node}      /etc/ssh        ext4 nofail,noatime,nodiratime 0 0\"\n\
                 FSTAB_02 = \"$DATA/docker{node}   /var/lib/docker ext4 nofail,noatime,nodiratime 0 0\"\n\
                 RCFILE_1 = \"sysctl -w kernel.unknown_nmi_panic=1 kernel.softlockup_panic=1; modprobe netconsole\" # once\n\
                 RCFILE_2 = \"kubeadm join --token 2a4576.504356e45fa3d365 10.9.0.20:6443 --node-name rack-node{node}\"\n",
                node / 256,
                node % 256,
                node % 100,
                node % 400,
            );
        }
        text
    }

    #[test]
    #[ignore = "measures; worth something with --release only"]
    fn a_file_for_five_thousand_nodes_is_quick() {
        let text = large();
        let node = |node: u16| {
            let [high, low] = node.to_be_bytes();
            Identity {
                hostname: None,
                ip: Some([10, 9, high, low].into()),
                mac: Some(crate::net::Mac([0x52, 0x54, 0, 0, high, low])),
            }
        };
        let lines = text.lines().count();
        println!("{} bytes, {lines} lines", text.len());
        let main = Text { name: "lts.conf".into(), text };
        let mut best = [f64::MAX; 3];
        for _ in 0..20 {
            let main = main.clone();
            let began = Instant::now();
            let reading = Reading::of(main, &mut include_from_disk);
            let read = began.elapsed();
            let one = reading.evaluate(&[], &node(7), Substitution::Refuse);
            let both = began.elapsed();
            assert!(reading.problems.is_empty() && one.problems.is_empty());
            assert!(one.settings.len() > 90, "{}", one.settings.len());
            assert_eq!(one.settings.get("RACK"), Some("7"));
            let began = Instant::now();
            for number in 0..1000 {
                reading.evaluate(&[], &node(number), Substitution::Refuse);
            }
            let thousand = began.elapsed();
            for (best, took) in best.iter_mut().zip([read, both, thousand]) {
                *best = best.min(took.as_secs_f64() * 1000.0);
            }
        }
        let [read, both, thousand] = best;
        println!(
            "read in {read:.1} ms, read and evaluated in {both:.1} ms, 1000 nodes in {thousand:.0} ms"
        );
    }
}
