//! What a value means once it is in force: blanks collapse, `$NAME` is replaced.
//!
//! LTSP handed the file to a shell, word by word and inside double quotes, so those are the rules:
//! a run of blanks is one space, `$NAME` and `${NAME}` are replaced, a backslash before `$ " \`
//! or a backquote disappears, and nothing else has a meaning. What that shell could do beyond is
//! left out on purpose: a command substitution ran as root in PID 1, and an unclosed one ended it.

/// What is wrong with a value, and whether it can be used all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The value must not be used.
    Unusable(String),
    /// The value is used; somebody may be surprised.
    Doubtful(String),
}

/// One value, expanded. A variable of variables of variables doubles with every line, and the
/// kernel has no pity for a PID 1 that runs out of memory.
const MOST_OF_A_VALUE: usize = 1 << 20;

/// More doubts about one value are not worth reading.
const MOST_DOUBTS: usize = 5;

/// Expands `value`, asking `lookup` for variables. A result of more than [`MOST_OF_A_VALUE`]
/// bytes is not used.
///
/// The first reason not to use the value wins over any value.
pub fn expand<'a>(
    value: &str,
    mut lookup: impl FnMut(&str) -> Option<&'a str>,
) -> (Option<String>, Vec<Trouble>) {
    let collapsed = collapse_blanks(value);
    let mut out = String::with_capacity(collapsed.len());
    let mut trouble = Vec::new();
    let mut rest = collapsed.as_str();
    let fits = |out: &str, more: &str| out.len().saturating_add(more.len()) <= MOST_OF_A_VALUE;
    let too_long = || (None, vec![Trouble::Unusable("is longer than 1 MiB".into())]);
    while let Some(at) = rest.find(['\\', '$', '`']) {
        let (plain, special) = rest.split_at(at);
        if !fits(&out, plain) {
            return too_long();
        }
        out.push_str(plain);
        rest = match step(special) {
            Step::Text(text, rest) => {
                out.push_str(text);
                rest
            }
            Step::Odd(text, rest) => {
                if trouble.len() < MOST_DOUBTS {
                    trouble.push(Trouble::Doubtful(format!("{text} is not a variable of lts.conf and stays as it is; write \\{text} to say so")));
                }
                out.push_str(text);
                rest
            }
            Step::Variable(name, rest) => {
                match lookup(name) {
                    Some(value) if !fits(&out, value) => return too_long(),
                    Some(value) => out.push_str(value),
                    None if trouble.len() >= MOST_DOUBTS => {}
                    None => trouble.push(Trouble::Doubtful(format!(
                        "${name} is not set here and reads as nothing; write \\${name} to leave it \
                         to the command"
                    ))),
                }
                rest
            }
            Step::Refused(why) => return (None, vec![Trouble::Unusable(why.into())]),
        };
    }
    if !fits(&out, rest) {
        return too_long();
    }
    out.push_str(rest);
    (Some(out), trouble)
}

enum Step<'a> {
    Text(&'a str, &'a str),
    Odd(&'a str, &'a str),
    Variable(&'a str, &'a str),
    Refused(&'static str),
}

/// Reads one construct; `text` begins with `\`, `$` or a backquote.
fn step(text: &str) -> Step<'_> {
    let mut characters = text.chars();
    let first = characters.next();
    let rest = characters.as_str();
    match (first, characters.next()) {
        (Some('\\'), Some('$' | '"' | '\\' | '`')) => cut(rest, 1, Step::Text),
        (Some('$'), Some('(')) => Step::Refused(
            "$(…) would run a command in PID 1; write \\$( to run it where the value is used",
        ),
        (Some('`'), _) => Step::Refused(
            "`…` would run a command in PID 1; write \\` to run it where the value is used",
        ),
        (Some('$'), Some('{')) => match rest.get(1..).and_then(|name| name.split_once('}')) {
            Some((name, rest)) if !name.is_empty() && name_length(name) == name.len() => {
                Step::Variable(name, rest)
            }
            Some(_) => {
                Step::Refused("of ${…} only ${NAME} is known; write \\${ to leave it to a shell")
            }
            None => Step::Refused("\"${\" without \"}\"; write \\${ to leave it to a shell"),
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

fn collapse_blanks(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut blank = false;
    for character in text.chars() {
        if character.is_ascii_whitespace() {
            if !blank {
                out.push(' ');
            }
            blank = true;
        } else {
            out.push(character);
            blank = false;
        }
    }
    out
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
            assert_eq!(expand(value, lookup).0.as_deref(), Some(expected), "{row}: {value:?}");
        }
    }

    #[test]
    fn a_value_has_an_end_and_so_have_the_doubts_about_it() {
        let half = "x".repeat(MOST_OF_A_VALUE / 2);
        let lookup = |_: &str| Some(half.as_str());
        let cases = [("$A$A", true), ("$A$A.", false), ("$A.$A", false), ("$A$A$A", false)];
        for (value, fits) in cases {
            let (out, trouble) = expand(value, lookup);
            assert_eq!((out.is_some(), trouble.is_empty()), (fits, fits), "{value}");
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
            let (out, trouble) = expand(value, lookup);
            assert_eq!(out.is_none(), unusable, "{value:?}");
            assert_eq!(trouble.len(), 1, "{value:?}");
            assert_eq!(matches!(trouble[0], Trouble::Unusable(_)), unusable, "{value:?}");
        }
    }
}
