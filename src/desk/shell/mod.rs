//! Whether a text is a shell script, without running anything of it.
//!
//! The grammar is that of POSIX (XCU 2.10), read as dash reads it, which is `/bin/sh` on Debian and
//! its kin. What bash knows beyond is understood and reported as a doubt: the image may have a bash
//! there. Like a shell, this stops at the first error.
//!
//! Nothing is expanded, so an alias that stands for a keyword is not seen.

mod grammar;
mod lexer;

/// Something about a script, at a place of its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Byte offset.
    pub at: usize,
    /// In bytes.
    pub length: usize,
    pub text: String,
    pub help: Option<&'static str>,
}

/// What a text is as a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Where and why a shell would stop.
    pub error: Option<Fault>,
    /// From where on this did not read it, although a shell might.
    pub unread: Option<Fault>,
    /// What dash would refuse, or would do otherwise than the author thinks.
    pub doubts: Vec<Fault>,
    pub shape: Shape,
}

/// How a text fits among others, when several lines make one script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// A command or several, which mean the same between any two others.
    Whole,
    /// Only comments and blanks.
    Empty,
    /// Words of the language, but no command by themselves: `if true; then`.
    Fragment,
    /// An open quote or here-document, or a line to be continued: it changes how the next line is
    /// read.
    Open,
}

/// Reads `script` up to its end or to the first error.
pub fn read(script: &str) -> Report {
    let mut reader = lexer::Reader::new(script);
    let result = reader.program();
    let (doubts, open, too_deep) = (reader.doubts, reader.is_open, reader.is_too_deep);
    let shape = match &result {
        _ if open => Shape::Open,
        Ok(0) => Shape::Empty,
        Ok(_) => Shape::Whole,
        Err(_) => Shape::Fragment,
    };
    let (unread, error) = match result.err() {
        fault if too_deep => (fault, None),
        fault => (None, fault),
    };
    Report { error, unread, doubts, shape }
}

#[cfg(test)]
mod tests;
