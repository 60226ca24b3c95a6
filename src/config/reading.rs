//! The files of one configuration, parsed once for as many machines as there are.

use super::Origin;
use super::evaluate::{Evaluation, evaluate_document};
use super::select::{Identity, review};
use super::syntax::{Document, Problem, parse};
use crate::error::Result;

/// One file's text, and its name as problems shall give it (a path or an address).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    pub name: String,
    pub text: String,
}

/// Gets what an `include` line of the first file asks for: the path as it is written there.
pub type Include<'a> = &'a mut dyn FnMut(&Text, &str) -> Result<Text>;

/// What becomes of `$(…)` and backquotes in a value.
pub enum Substitution<'a> {
    /// The setting is not in force, and its line is reported.
    Refuse,
    /// Commands may run, but there is no system yet for them to run in: such settings are left out
    /// without a word, and listed in [`Evaluation::deferred`].
    Defer,
    /// Gives a value's text after a shell has expanded it; the variables are all settings so far.
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
}

impl Reading {
    /// Reads `main` and what it includes. Never fails; trouble is in `problems`.
    pub fn of(main: Text, _include: Include<'_>) -> Self {
        let (document, mut problems) = parse(&main.text);
        problems.extend(review(&document));
        problems.sort_by_key(|problem| problem.place);
        Self { files: vec![main], document, problems }
    }

    /// A text that stands alone, and includes nothing.
    pub fn of_text(text: &str) -> Self {
        let main = Text { name: "lts.conf".to_owned(), text: text.to_owned() };
        Self::of(main, &mut |_, path| {
            Err(crate::error::Error::refused(
                format!("including {path}"),
                "nothing can be included",
            ))
        })
    }

    /// One machine's settings, on top of `base`; see [`super::evaluate`].
    pub fn evaluate(
        &self,
        base: &[(String, String, Origin)],
        identity: &Identity,
        _substitution: Substitution<'_>,
    ) -> Evaluation {
        evaluate_document(&self.document, base, identity)
    }
}
