//! What a value means once it is in force: blanks collapse, `$NAME` is replaced.
//!
//! LTSP handed the file to a shell, word by word and inside double quotes, so those are the rules:
//! a run of blanks is one space, `$NAME` and `${NAME}` are replaced, a backslash before `$ " \`
//! or a backquote disappears, and nothing else has a meaning. What that shell could do beyond is
//! not done here: a command substitution ran as root in PID 1, and an unclosed one ended it. Who
//! wants it says so, and `evaluate` then asks a shell of the real root.

use std::borrow::Cow;

/// Why a value cannot be used as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Only a shell can tell what it is. The reason, and how to write it for a shell that comes
    /// later.
    NeedsShell(&'static str, &'static str),
    TooLong,
}

/// Something about a value that may surprise: the value is used all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    pub why: String,
    pub help: String,
}

/// One value, expanded. A variable of variables of variables doubles with every line, and the
/// kernel has no pity for a PID 1 that runs out of memory.
pub const MOST_OF_A_VALUE: usize = 1 << 20;

/// More doubts about one value are not worth reading.
const MOST_DOUBTS: usize = 5;

/// Expands `value`, in which no run of blanks is longer than one ([`collapse_blanks`]), asking
/// `lookup` for variables. A result of more than [`MOST_OF_A_VALUE`] bytes is not used.
///
/// The first reason not to use the value wins over any value.
pub fn expand<'a>(
    value: &str,
    mut lookup: impl FnMut(&str) -> Option<&'a str>,
) -> (Result<String, Unusable>, Vec<Doubt>) {
    let mut out = String::with_capacity(value.len());
    let mut doubts = Vec::new();
    let mut rest = value;
    let fits = |out: &str, more: &str| out.len().saturating_add(more.len()) <= MOST_OF_A_VALUE;
    while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'\\' | b'$' | b'`')) {
        let (plain, special) = rest.split_at_checked(at).unwrap_or((rest, ""));
        if !fits(&out, plain) {
            return (Err(Unusable::TooLong), Vec::new());
        }
        out.push_str(plain);
        rest = match step(special) {
            Step::Text(text, rest) => {
                out.push_str(text);
                rest
            }
            Step::Odd(text, rest) => {
                if doubts.len() < MOST_DOUBTS {
                    doubts.push(Doubt {
                        why: format!("{text} is not a variable of lts.conf and stays as it is"),
                        help: format!("write \\{text} to say so"),
                    });
                }
                out.push_str(text);
                rest
            }
            Step::Variable(name, rest) => {
                match lookup(name) {
                    Some(value) if !fits(&out, value) => {
                        return (Err(Unusable::TooLong), Vec::new());
                    }
                    Some(value) => out.push_str(value),
                    None if doubts.len() >= MOST_DOUBTS => {}
                    None => doubts.push(Doubt {
                        why: format!("${name} is not set here and reads as nothing"),
                        help: format!("write \\${name} to leave it to the command"),
                    }),
                }
                rest
            }
            Step::Refused(why, help) => return (Err(Unusable::NeedsShell(why, help)), Vec::new()),
        };
    }
    if !fits(&out, rest) {
        return (Err(Unusable::TooLong), Vec::new());
    }
    out.push_str(rest);
    (Ok(out), doubts)
}

enum Step<'a> {
    Text(&'a str, &'a str),
    Odd(&'a str, &'a str),
    Variable(&'a str, &'a str),
    /// Why, and what to write instead.
    Refused(&'static str, &'static str),
}

/// Reads one construct; `text` begins with `\`, `$` or a backquote.
fn step(text: &str) -> Step<'_> {
    let mut characters = text.chars();
    let first = characters.next();
    let rest = characters.as_str();
    match (first, characters.next()) {
        (Some('\\'), Some('$' | '"' | '\\' | '`')) => cut(rest, 1, Step::Text),
        (Some('$'), Some('(')) => Step::Refused(
            "$(…) would run a command in PID 1",
            "write \\$( to run it where the value is used",
        ),
        (Some('`'), _) => Step::Refused(
            "`…` would run a command in PID 1",
            "write \\` to run it where the value is used",
        ),
        (Some('$'), Some('{')) => match rest.get(1..).and_then(|name| name.split_once('}')) {
            Some((name, rest)) if !name.is_empty() && name_length(name) == name.len() => {
                Step::Variable(name, rest)
            }
            Some(_) => {
                Step::Refused("of ${…} only ${NAME} is known", "write \\${ to leave it to a shell")
            }
            None => Step::Refused("\"${\" without \"}\"", "write \\${ to leave it to a shell"),
        },
        (Some('$'), Some('a'..='z' | 'A'..='Z' | '_')) => {
            cut(rest, name_length(rest), Step::Variable)
        }
        // A shell's own parameters: an awk script in a command, as a rule.
        (Some('$'), Some('0'..='9' | '?' | '!' | '#' | '$' | '@' | '*' | '-')) => {
            cut(text, 2, Step::Odd)
        }
        _ => cut(text, 1, Step::Text),
    }
}

/// Splits off `length` bytes of ASCII.
fn cut<'a>(text: &'a str, length: usize, make: impl Fn(&'a str, &'a str) -> Step<'a>) -> Step<'a> {
    let (head, tail) = text.split_at_checked(length).unwrap_or((text, ""));
    make(head, tail)
}

fn name_length(text: &str) -> usize {
    let mut characters = text.bytes();
    if !characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == b'_') {
        return 0;
    }
    characters.take_while(|c| c.is_ascii_alphanumeric() || *c == b'_').count().saturating_add(1)
}

/// Makes one space of every run of blanks.
pub fn collapse_blanks(text: &str) -> Cow<'_, str> {
    let mut blank_before = false;
    let is_plain = text.bytes().all(|byte| {
        let blank = byte.is_ascii_whitespace();
        let plain = !blank || (byte == b' ' && !blank_before);
        blank_before = blank;
        plain
    });
    if is_plain {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        let blank = character.is_ascii_whitespace();
        if !blank {
            out.push(character);
        } else if !out.ends_with(' ') {
            out.push(' ');
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<&'static str> {
        match name {
            "X" => Some("/mnt"),
            "IPV4ADDR" => Some("10.0.0.5"),
            "HOSTNAME" => Some("node1"),
            "LIST" => Some("a  b"),
            _ => None,
        }
    }

    #[test]
    #[rustfmt::skip]
    fn values_are_read_like_ltsp_read_them() {
        let cases = [
            ("C46",  "a   b\t c",                          "a b c"),
            ("1.5",  "  a ",                               " a "),             // never trimmed
            ("C47",  "$X/data $IPV4ADDR ${HOSTNAME}",      "/mnt/data 10.0.0.5 node1"),
            ("1.5",  "$LIST",                              "a  b"),            // collapsed before, not after
            ("C48",  r"\$HOSTNAME",                        "$HOSTNAME"),
            ("C48",  "$NOSUCH/x",                          "/x"),
            ("C49",  "* ~ ; echo | & >x",                  "* ~ ; echo | & >x"),
            ("C50",  r"s/\(x\)/\1/",                       r"s/\(x\)/\1/"),
            ("1.5",  r#"say \"hi\" \\ \n"#,                r#"say "hi" \ \n"#),
            ("1.5",  r"\`date\`",                          "`date`"),
            ("",     "costs 5$ or $, really$",             "costs 5$ or $, really$"),
            ("",     "awk '{print $1}'",                   "awk '{print $1}'"),
            ("",     "ends with \\",                       "ends with \\"),
            ("",     "${X}é$X",                            "/mnté/mnt"),
        ];
        for (row, value, expected) in cases {
            let got = expand(&collapse_blanks(value), lookup).0;
            assert_eq!(got.as_deref(), Ok(expected), "{row}: {value:?}");
        }
    }

    #[test]
    fn a_value_has_an_end_and_so_have_the_doubts_about_it() {
        let half = "x".repeat(MOST_OF_A_VALUE / 2);
        let lookup = |_: &str| Some(half.as_str());
        let cases = [("$A$A", true), ("$A$A.", false), ("$A.$A", false), ("$A$A$A", false)];
        for (value, fits) in cases {
            let out = expand(value, lookup).0;
            assert_eq!(out.err(), (!fits).then_some(Unusable::TooLong), "{value}");
        }
        assert_eq!(expand(&"$1".repeat(1000), lookup).1.len(), MOST_DOUBTS);
        assert_eq!(expand(&"$A".repeat(1000), |_| None).1.len(), MOST_DOUBTS);
    }

    #[test]
    #[rustfmt::skip]
    fn what_would_run_a_command_is_refused_and_what_may_surprise_is_said() {
        let cases = [
            ("$(echo hi)",  true),  // C51
            ("$(oops",      true),  // C52
            ("`date`",      true),
            ("${X:-y}",     true),
            ("${X",         true),
            ("${}",         true),
            ("$NOSUCH",     false),
            ("$1",          false),
        ];
        for (value, unusable) in cases {
            let (out, doubts) = expand(value, lookup);
            assert_eq!(matches!(out, Err(Unusable::NeedsShell(..))), unusable, "{value:?}");
            assert_eq!(doubts.len(), usize::from(!unusable), "{value:?}");
        }
    }
}
