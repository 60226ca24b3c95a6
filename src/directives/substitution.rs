//! Values of lts.conf that only a shell can read: `$(…)`, backquotes, `${NAME:-default}`.
//!
//! LTSP read the whole file with the shell that was PID 1. Here it is a child of its own for each
//! such value, in the real root, with an end to its time and to its output; and only where the
//! kernel command line asks for it (`landfall.substitution=on`).

use std::path::Path;
use std::time::{Duration, Instant};

use super::Tree;
use super::preinit::{LONGEST, SHELL, with_the_usual};
use crate::console;
use crate::error::{Error, Result};
use crate::sys::process::{Limits, News, output_in_root};

/// For one value. A command that is slower belongs into a unit of the running system.
const ONE: Duration = Duration::from_secs(10);
/// For all values of a boot.
const ALL: Duration = Duration::from_secs(60);
/// Of one value, in bytes.
const OUTPUT: usize = 1 << 20;
/// Lines of a shell's complaint that are repeated.
const MOST_LINES: usize = 3;

/// The shell of the root mounted at `root`, which gives a value's text as between double quotes.
/// The second argument is its variables.
///
/// /proc, /sys, /dev and /run must be mounted there already.
pub fn shell_of(root: &Path) -> impl FnMut(&str, &[(&str, &str)]) -> Result<String> + use<'_> {
    let mut left = ALL;
    move |value, variables| {
        let began = Instant::now();
        let text = expand(root, value, variables, left.min(ONE));
        left = left.saturating_sub(began.elapsed());
        text
    }
}

fn expand(root: &Path, value: &str, variables: &[(&str, &str)], time: Duration) -> Result<String> {
    let doing = || format!("reading it with {SHELL}");
    if time.is_zero() {
        let why = format!("the values before have taken all of {} s", ALL.as_secs());
        return Err(Error::refused(doing(), why));
    }
    let script = script(value);
    if script.len() > LONGEST {
        return Err(Error::refused(doing(), format!("it is longer than {LONGEST} bytes")));
    }
    if !Tree::open(root)?.exists(SHELL) {
        return Err(Error::refused(doing(), format!("the root image has no {SHELL}")));
    }
    let environment = with_the_usual(variables.iter().copied(), "commands in values");
    // Not the value: it may hold a secret, and the console is for everybody's eyes.
    let _waiting = console::waiting("config", "a shell of the root to read a value");
    let mut said = Vec::new();
    let mut listen = |news: News<'_>| match news {
        News::Line(line) if said.len() < MOST_LINES => said.push(line.to_owned()),
        News::Line(_) | News::Running => {}
    };
    let limits = Limits { bytes: OUTPUT, time };
    let (status, bytes) =
        output_in_root(root, SHELL, &["-c", &script], &environment, limits, &mut listen)?;
    if !status.success() {
        let why = match said.is_empty() {
            true => format!("it ended with {status}"),
            false => format!("it ended with {status}: {}", said.join("; ")),
        };
        return Err(Error::refused(doing(), why));
    }
    for line in said {
        log::info!(target: "config", "{line}");
    }
    String::from_utf8(bytes).map_err(|_| Error::invalid(doing(), "what comes out is not UTF-8"))
}

/// An assignment alone has the status of the last command in it; `printf` has not.
fn script(value: &str) -> String {
    format!("landfall_value=\"{value}\" || exit\nprintf %s \"$landfall_value\"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Identity, Origin, Reading, Substitution};

    /// The script by itself, with any /bin/sh and without chroot.
    #[test]
    #[rustfmt::skip]
    fn a_shell_reads_a_value_as_between_double_quotes() {
        let cases: &[(&str, Option<&str>)] = &[
            ("$(echo hi)",                         Some("hi")), // C51
            ("a `echo b` $X ${NOSUCH:-c}",         Some("a b x  y c")),
            (r#"\$(echo hi) \`no\` \"q\" \\ \n"#,  Some(r#"$(echo hi) `no` "q" \ \n"#)),
            (r#"$(echo "two  blanks")"#,           Some("two  blanks")),
            ("* ~ ; echo | & >x $(true)",          Some("* ~ ; echo | & >x ")),
            ("$(printf 'a\\nb\\n\\n')",           Some("a\nb")),
            ("$(awk 'BEGIN { print \"x\" }')",     Some("x")),
            ("$(oops",                             None), // C52
            ("`oops",                              None),
            ("$(false)",                           None),
            ("$(exit 3) and more",                 None),
            ("$(no-such-command-at-all)",          None),
            ("${NOSUCH?is not set}",               None),
        ];
        for (value, expected) in cases {
            let output = std::process::Command::new("/bin/sh")
                .args(["-c", &script(value)])
                .env("X", "x  y")
                .output()
                .unwrap();
            let text = output.status.success().then(|| String::from_utf8(output.stdout).unwrap());
            assert_eq!(text.as_deref(), *expected, "{value}");
        }
    }

    /// Row by row of an lts.conf, in this machine's own root.
    #[test]
    #[ignore = "needs root, for chroot"]
    fn values_that_a_shell_reads_are_settings_like_others() {
        let text = "[default]\n\
            A=\"$(echo  hi)\"\n\
            B=\"$A-`echo $A $FROM_DHCP`\"\n\
            C='$(echo single)'\n\
            D=\"$(echo said >&2; exit 1)\"\n\
            E=\"$(oops\"\n\
            F=\"$(printf 'x\\ny\\n')\"\n\
            HOSTNAME=\"$(echo node7)\"\n\
            [node7]\n\
            G=\"$(cat /dev/zero)\"\n\
            H=\"after\"\n";
        let reading = Reading::of_text(text);
        let base = [("FROM_DHCP".to_owned(), "dhcp".to_owned(), Origin::Dhcp)];
        let identity = Identity::default();
        let first = reading.evaluate(&base, &identity, Substitution::Defer);
        assert_eq!(first.deferred, ["A", "B", "D", "E", "F", "HOSTNAME"]);
        assert_eq!(first.problems.len(), 0, "{:?}", first.problems);

        let mut shell = shell_of(Path::new("/"));
        let second = reading.evaluate(&base, &identity, Substitution::Run(&mut shell));
        let settings = &second.settings;
        for (name, expected) in [
            ("A", Some("hi")),
            ("B", Some("hi-hi dhcp")),
            ("C", Some("$(echo single)")),
            ("D", None),
            ("E", None),
            ("F", Some("x y")),
            ("G", None),
            ("H", Some("after")),
            ("HOSTNAME", Some("node7")),
        ] {
            assert_eq!(settings.get(name), expected, "{name}");
        }
        let problems: Vec<_> = second.problems.iter().map(|p| (p.place.line, &p.text)).collect();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].1.ends_with("exit status: 1: said"), "{problems:?}");
        assert_eq!((problems[0].0, problems[1].0, problems[2].0), (5, 6, 10), "{problems:?}");
    }

    #[test]
    #[ignore = "needs root, for chroot"]
    fn a_command_that_does_not_end_is_ended() {
        let began = Instant::now();
        let variables = [("SECONDS_TO_SLEEP", "30")];
        let value = "$(sleep $SECONDS_TO_SLEEP)";
        let time = Duration::from_millis(500);
        let error = expand(Path::new("/"), value, &variables, time).unwrap_err().to_string();
        assert!(error.contains("not done after"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
}
