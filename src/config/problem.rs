//! What is wrong in the files of a configuration, and where.

use std::fmt;

/// Where something stands in the files of a configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Index into [`super::Reading::files`]; 0 is the file itself, the others are included.
    pub file: usize,
    /// 1-based.
    pub line: usize,
    /// 1-based, in characters.
    pub column: usize,
}

/// Something in the file that a person should mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    pub text: String,
    pub severity: Severity,
    /// What to do about it, where the text does not say so already.
    pub help: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It has been understood, but probably not as it was meant.
    Warning,
    /// What this line says is not in force.
    Error,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, column, .. } = self.place;
        write!(f, "line {line}, column {column}: {}", self.text)
    }
}

/// How many problems are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bound {
    /// Up to fifty of each look at the files. It is the file that decides how many
    /// there are, and PID 1 remembers them.
    #[default]
    Few,
    /// All, for a person who mends the file.
    All,
}

/// A file with more is not an lts.conf but something else at its address (an image, a web page).
const MOST_PROBLEMS: usize = 50;

/// What one look at the files finds.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: Vec<Problem>,
    bound: Bound,
}

impl Problems {
    pub fn new(bound: Bound) -> Self {
        Self { found: Vec::new(), bound }
    }

    /// `text` is made only if there is room: it may quote long names.
    pub fn add(&mut self, place: Place, severity: Severity, text: impl FnOnce() -> String) {
        self.add_with(place, severity, || (text(), None));
    }

    /// The same, with what to do about it.
    pub fn add_with(
        &mut self,
        place: Place,
        severity: Severity,
        text: impl FnOnce() -> (String, Option<String>),
    ) {
        let (text, severity, help) = match (self.bound, self.found.len()) {
            (Bound::All, _) | (Bound::Few, ..MOST_PROBLEMS) => {
                let (text, help) = text();
                (text, severity, help)
            }
            (Bound::Few, MOST_PROBLEMS) => {
                let text = "and more after this; is it an lts.conf at all?";
                (text.to_owned(), Severity::Error, None)
            }
            (Bound::Few, _) => return,
        };
        self.found.push(Problem { place, text, severity, help });
    }

    pub fn into_vec(self) -> Vec<Problem> {
        self.found
    }
}
