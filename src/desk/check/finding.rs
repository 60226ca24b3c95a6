//! What is found, and where: a list that knows its doubles.

use std::collections::HashSet;

use crate::config::Severity;

/// A piece of one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Index into the files of the configuration.
    pub file: usize,
    /// 1-based; 0 if it is about a file as a whole.
    pub line: usize,
    /// Byte offset in the line.
    pub at: usize,
    /// In bytes; 0 for a place between characters.
    pub length: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub span: Span,
    pub severity: Severity,
    pub text: String,
    /// What to do about it.
    pub help: Option<String>,
}

#[derive(Debug, Default)]
pub struct Findings {
    list: Vec<Finding>,
    said: HashSet<(Span, String)>,
    /// What must not be shown when a line is quoted.
    secrets: Vec<Span>,
}

impl Findings {
    /// The same thing about the same place is said once.
    pub fn add(
        &mut self,
        span: Span,
        severity: Severity,
        text: impl Into<String>,
        help: Option<String>,
    ) {
        let text = text.into();
        if self.said.insert((span, text.clone())) {
            self.list.push(Finding { span, severity, text, help });
        }
    }

    pub fn warn(&mut self, span: Span, text: impl Into<String>, help: Option<&str>) {
        self.add(span, Severity::Warning, text, help.map(str::to_owned));
    }

    pub fn error(&mut self, span: Span, text: impl Into<String>, help: Option<&str>) {
        self.add(span, Severity::Error, text, help.map(str::to_owned));
    }

    pub fn add_secret(&mut self, span: Span) {
        self.secrets.push(span);
    }

    pub fn secrets(&self) -> &[Span] {
        &self.secrets
    }

    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.list.iter()
    }

    pub fn count(&self, severity: Severity) -> usize {
        self.list.iter().filter(|finding| finding.severity == severity).count()
    }

    pub fn worst(&self) -> Option<Severity> {
        self.list.iter().map(|finding| finding.severity).max()
    }

    /// In the order of the text.
    pub fn sort(&mut self) {
        self.list.sort_by_key(|finding| finding.span);
        self.secrets.sort();
    }
}
