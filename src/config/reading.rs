//! The files of one configuration, parsed once for as many machines as there are.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::Origin;
use super::evaluate::{Evaluation, evaluate_document};
use super::select::{Identity, Index, Indexed};
use super::syntax::{Bound, Document, Place, Problem, Problems, Severity, is_include, parse};
use crate::error::{Error, Result, WhileDoing};

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
    /// Number of the asking file, and the path as written.
    asked: Vec<(usize, String)>,
    problems: Problems,
}

impl Included {
    fn follow(&mut self, place: Place, path: String, files: &mut Vec<Text>, include: Include<'_>) {
        let asked = (place.file, path);
        if self.asked.contains(&asked) {
            return;
        }
        if self.tries >= MOST_INCLUDED || self.asked.len() >= MOST_ASKED {
            return self.problems.add(place, Severity::Error, || {
                format!("{}: no more than {MOST_INCLUDED} files can be included", asked.1)
            });
        }
        let Some(from) = files.get(place.file) else { return };
        match include(from, &asked.1) {
            Ok(text) if files.iter().any(|file| file.name == text.name) => {}
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

/// Reads what a file on this machine includes, from beside that file; for a desk.
///
/// # Errors
/// The file cannot be read. An address cannot either: what it holds on the day a machine boots is
/// not known today, and a desk tool asks nobody.
pub fn include_from_disk(from: &Text, path: &str) -> Result<Text> {
    let doing = || format!("including {path}");
    if path.contains("://") {
        let why = "an address is fetched when a machine boots, and not here";
        let hint = "check that file on its own, with the sections it refers to";
        return Err(Error::refused(doing(), why).with_hint(hint));
    }
    let folder = Path::new(&from.name).parent().unwrap_or(Path::new(""));
    let file = without_detours(&folder.join(path));
    let bytes =
        fs::read(&file).while_doing(doing).map_err(|error| match path.starts_with('/') {
            true => error.with_hint(
                "a path from / on is one of the boot server; relative ones work everywhere",
            ),
            false => error,
        })?;
    Ok(Text::of_bytes(file.to_string_lossy(), bytes))
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
