//! CRONTAB_*, SHUTDOWN_TIME: lines of `/etc/cron.d`.
//!
//! The file is called as LTSP called it: cron passes over names with a dot, and what an image
//! brought along for LTSP is replaced. Seconds of SHUTDOWN_TIME are read and dropped, since cron
//! knows none.

use super::{Draft, View};
use crate::config::Settings;
use crate::error::{Error, Result};

const FILE: &str = "/etc/cron.d/ltsp";

/// Gives the number of lines.
pub fn apply(settings: &Settings, draft: &mut Draft<'_>) -> Result<usize> {
    let lines: Vec<_> = settings.family("CRONTAB_").into_iter().map(|(_, line)| line).collect();
    let time = settings.filled("SHUTDOWN_TIME").map(str::trim);
    if lines.iter().all(|line| line.trim().is_empty()) && time.is_none() {
        return Ok(0);
    }
    let daemons = ["/usr/sbin/cron", "/usr/sbin/crond", "/sbin/crond", "/usr/bin/crond"];
    if !draft.exists("/etc/cron.d") && !daemons.iter().any(|path| draft.exists(path)) {
        let error = Error::refused(format!("writing {FILE}"), "the image has no cron");
        return Err(error.with_hint("the package is called cron; a systemd timer would do as well"));
    }
    let (shutdown, wrong) = match time.map(shutdown).transpose() {
        Ok(line) => (line, None),
        Err(error) => (None, Some(error)),
    };
    let count = lines.len().saturating_add(usize::from(shutdown.is_some()));
    if count > 0 {
        let mut text = String::from("# Written by landfall at boot: CRONTAB_ lines of lts.conf.\n");
        for line in shutdown.iter().map(String::as_str).chain(lines) {
            text += line;
            text.push('\n');
        }
        // cron ignores files of others, and those that others may write to.
        draft.replace(FILE, text, 0o644);
    }
    wrong.map_or(Ok(count), Err)
}

/// The daily line of a time of day.
pub fn shutdown(time: &str) -> Result<String> {
    let part = |text: Option<&str>, most: u8| {
        let text = text.filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
        text.parse::<u8>().ok().filter(|number| *number <= most)
    };
    let mut parts = time.split(':');
    let (hour, minute) = (part(parts.next(), 23), part(parts.next(), 59));
    let seconds = parts.next().map(|text| part(Some(text), 59));
    match (hour, minute, seconds, parts.next()) {
        (Some(hour), Some(minute), None | Some(Some(_)), None) => {
            Ok(format!("{minute} {hour} * * * root /sbin/poweroff"))
        }
        _ => Err(Error::invalid(
            format!("reading SHUTDOWN_TIME {time:?}"),
            "a time of day is written hh:mm or hh:mm:ss",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directives::Tree;
    use crate::directives::draft::on;

    #[test]
    #[rustfmt::skip]
    fn lines_and_the_time_to_end_reach_cron_2_3() {
        let cases: &[(&[(&str, &str)], Option<&[&str]>, bool)] = &[
            (&[],                                                    None, true),
            (&[("CRONTAB_01", "")],                                  None, true),
            (&[("CRONTAB_10", "@daily root b"), ("CRONTAB_9", "0 5 * * 1 root a")],
                                                                     Some(&["0 5 * * 1 root a", "@daily root b"]), true),
            (&[("SHUTDOWN_TIME", "23:05")],                          Some(&["5 23 * * * root /sbin/poweroff"]), true),
            (&[("SHUTDOWN_TIME", "7:00:30"), ("CRONTAB_1", "x")],    Some(&["0 7 * * * root /sbin/poweroff", "x"]), true),
            (&[("SHUTDOWN_TIME", "24:00"), ("CRONTAB_1", "x")],      Some(&["x"]), false),
            (&[("SHUTDOWN_TIME", "noon")],                           None, false),
            (&[("SHUTDOWN_TIME", "12:00:00:00")],                    None, false),
            (&[("SHUTDOWN_TIME", "+1:00")],                          None, false),
        ];
        for (values, expected, good) in cases {
            let folder = tempfile::tempdir().unwrap();
            let tree = Tree::open(folder.path()).unwrap();
            tree.make_directory("/etc/cron.d", 0o755, None).unwrap();
            let result = on(&tree, |draft| apply(&Settings::of(values), draft));
            assert_eq!(result.is_ok(), *good, "{values:?}: {result:?}");
            let text = tree.read_text(FILE).unwrap();
            let lines: Option<Vec<_>> = text.as_deref().map(|text| text.lines().skip(1).collect());
            assert_eq!(lines.as_deref(), *expected, "{values:?}");
        }
    }

    #[test]
    fn an_image_without_cron_cannot() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        let settings = Settings::of(&[("CRONTAB_1", "x")]);
        assert!(on(&tree, |draft| apply(&settings, draft)).is_err());
        assert!(!tree.exists("/etc"));
        tree.write("/usr/sbin/cron", "", 0o755).unwrap();
        assert_eq!(on(&tree, |draft| apply(&settings, draft)).unwrap(), 1);
    }
}
