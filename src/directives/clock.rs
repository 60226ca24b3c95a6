//! TIMESERVER, HWCLOCK: where the time comes from, and what the machine's own clock shows.
//!
//! Every program of the image that sets the clock is told, since who of them runs is up to the
//! image. Other sources that the image names besides go, save for those of hardware, and those in
//! chrony's further files: an operator put them there, and chrony chooses the best.

use super::{Draft, Facts, View, hostname};
use crate::config::Settings;
use crate::error::{Error, Result};

const TIMESYNCD: &str = "/etc/systemd/timesyncd.conf.d/90-landfall.conf";
const ADJTIME: &str = "/etc/adjtime";
const HEADER: &str = "# Written by landfall at boot: TIMESERVER of lts.conf.\n";

/// Configurations in which a line begins with what kind of source it is.
const DAEMONS: [(&str, &[&str]); 2] = [
    ("chrony", &["/etc/chrony/chrony.conf", "/etc/chrony.conf"]),
    ("ntpd", &["/etc/ntpsec/ntp.conf", "/etc/ntp.conf"]),
];

/// Files of shell variables.
const NTPDATE: [&str; 2] = ["/etc/default/ntpdate", "/etc/default/ntpsec-ntpdate"];

/// Gives the programs that were told; none if TIMESERVER is not set.
pub fn time_servers(
    settings: &Settings,
    facts: &Facts,
    draft: &mut Draft<'_>,
) -> Result<Vec<&'static str>> {
    let Some(value) = settings.filled("TIMESERVER") else { return Ok(Vec::new()) };
    let doing = || format!("setting the time server {:?}", value.trim());
    let servers = match value.trim().eq_ignore_ascii_case("auto") {
        true => super::server(settings, facts).map(|server| vec![server]).unwrap_or_default(),
        false => settings.list("TIMESERVER"),
    };
    if servers.is_empty() {
        return Err(Error::refused(doing(), "no boot server is known that \"auto\" could mean"));
    }
    if let Some(wrong) = servers.iter().find(|server| !hostname::is_host(server)) {
        return Err(Error::invalid(doing(), format!("{wrong:?} is neither a name nor an address")));
    }
    let mut told = Vec::new();
    let timesyncd = ["/usr/lib/systemd/systemd-timesyncd", "/lib/systemd/systemd-timesyncd"];
    if timesyncd.iter().any(|path| draft.exists(path)) {
        // The empty line takes back what other files say.
        let text = format!("{HEADER}[Time]\nNTP=\nNTP={}\n", servers.join(" "));
        draft.replace(TIMESYNCD, text, 0o644);
        told.push("systemd-timesyncd");
    }
    for (name, paths) in DAEMONS {
        for path in paths {
            if let Some(own) = draft.read_text(path)? {
                draft.write(path, daemon(&own, &servers), 0o644);
                told.push(name);
            }
        }
    }
    for path in NTPDATE {
        if let Some(own) = draft.read_text(path)? {
            draft.write(path, ntpdate(&own, &servers), 0o644);
            told.push("ntpdate");
        }
    }
    if told.is_empty() {
        let why = "the image has no systemd-timesyncd, chrony, ntpsec, ntp or ntpdate";
        return Err(Error::refused(doing(), why));
    }
    Ok(told)
}

/// chrony.conf or ntp.conf with `servers` in place of its own sources, and where they were.
fn daemon(own: &str, servers: &[&str]) -> String {
    let mut ours = HEADER.to_owned();
    for server in servers {
        ours += &format!("server {server} iburst\n");
    }
    // Debian's ntp.conf wants three that agree before it believes any.
    if servers.len() < 3
        && own.lines().any(|line| !line.starts_with('#') && line.contains("minsane"))
    {
        ours += "tos minclock 1 minsane 1\n";
    }
    let mut text = String::new();
    let mut pending = Some(ours);
    for line in own.lines() {
        let mut words = line.split_whitespace();
        let kind = words.next().unwrap_or_default();
        let is_source = ["server", "pool", "peer"].iter().any(|s| kind.eq_ignore_ascii_case(s));
        // ntpd's drivers for clocks have addresses, too.
        let is_clock = words.next().is_some_and(|address| address.starts_with("127.127."));
        if !is_source || is_clock {
            text += line;
            text.push('\n');
        } else if let Some(ours) = pending.take_if(|ours| !ours.contains("minsane")) {
            text += &ours;
        }
    }
    // What was said before about agreement must come before our own word.
    text + &pending.unwrap_or_default()
}

/// The defaults of ntpdate-debian(8).
fn ntpdate(own: &str, servers: &[&str]) -> String {
    let mut text = String::new();
    for line in own.lines() {
        let name = line.trim_start().split_once('=').map(|(name, _)| name);
        if !matches!(name, Some("NTPSERVERS" | "NTPDATE_USE_NTP_CONF")) {
            text += line;
            text.push('\n');
        }
    }
    text + &format!("{HEADER}NTPDATE_USE_NTP_CONF=no\nNTPSERVERS=\"{}\"\n", servers.join(" "))
}

/// HWCLOCK, as hwclock(8), systemd and the kernel read it in adjtime_file(5). Gives the mode that was
/// set.
pub fn hardware_clock(settings: &Settings, draft: &mut Draft<'_>) -> Result<Option<&'static str>> {
    let Some(value) = settings.filled("HWCLOCK").map(str::trim) else { return Ok(None) };
    let mode = match value.to_ascii_lowercase().as_str() {
        "utc" => "UTC",
        "local" | "localtime" => "LOCAL",
        _ => {
            let doing = format!("reading HWCLOCK {value:?}");
            return Err(Error::invalid(doing, "the machine's clock shows \"utc\" or \"local\""));
        }
    };
    let own = draft.read_text(ADJTIME)?.unwrap_or_default();
    let mut lines = own.lines().filter(|line| !line.trim().is_empty());
    let drift = lines.next().unwrap_or("0.0 0 0.0");
    let last = lines.next().unwrap_or("0");
    draft.write(ADJTIME, format!("{drift}\n{last}\n{mode}\n"), 0o644);
    Ok(Some(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directives::Tree;
    use crate::directives::draft::on;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Tree) {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        for (path, text) in files {
            tree.write(path, text, 0o644).unwrap();
        }
        (folder, tree)
    }

    const CHRONY: &str = "confdir /etc/chrony/conf.d\npool 2.debian.pool.ntp.org iburst\n\
        sourcedir /etc/chrony/sources.d\nrefclock PHC /dev/ptp0\n! server x\nServer 10.0.0.9\n";
    const NTP: &str = "driftfile /var/lib/ntpsec/ntp.drift\ntos maxclock 11\n\
        tos minclock 4 minsane 3\nserver 127.127.1.0\npool 0.debian.pool.ntp.org iburst\n\
        restrict default kod nomodify\n";
    const DATE: &str =
        "NTPDATE_USE_NTP_CONF=yes\nNTPSERVERS=\"0.debian.pool.ntp.org\"\nNTPOPTIONS=\"\"";

    #[test]
    #[rustfmt::skip]
    fn whoever_sets_the_clock_is_told() {
        let timesyncd = ("/usr/lib/systemd/systemd-timesyncd", "");
        let chrony = ("/etc/chrony/chrony.conf", CHRONY);
        let ntp = ("/etc/ntpsec/ntp.conf", NTP);
        let date = ("/etc/default/ntpsec-ntpdate", DATE);
        type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a [&'a str], &'a [&'a str]);
        let cases: &[Row<'_>] = &[
            ("10.0.0.1 ntp.example", &[timesyncd], TIMESYNCD, &["[Time]", "NTP=", "NTP=10.0.0.1 ntp.example"], &["systemd-timesyncd"]),
            ("auto", &[chrony], chrony.0, &["confdir /etc/chrony/conf.d", "server 10.9.0.2 iburst", "sourcedir /etc/chrony/sources.d", "refclock PHC /dev/ptp0", "! server x"], &["chrony"]),
            ("fd00::1", &[ntp], ntp.0, &["driftfile /var/lib/ntpsec/ntp.drift", "tos maxclock 11", "tos minclock 4 minsane 3", "server 127.127.1.0", "restrict default kod nomodify", "server fd00::1 iburst", "tos minclock 1 minsane 1"], &["ntpd"]),
            ("a b c", &[ntp], ntp.0, &["driftfile /var/lib/ntpsec/ntp.drift", "tos maxclock 11", "tos minclock 4 minsane 3", "server 127.127.1.0", "server a iburst", "server b iburst", "server c iburst", "restrict default kod nomodify"], &["ntpd"]),
            ("a", &[timesyncd, date], date.0, &["NTPOPTIONS=\"\"", "NTPDATE_USE_NTP_CONF=no", "NTPSERVERS=\"a\""], &["systemd-timesyncd", "ntpdate"]),
            ("a", &[("/etc/chrony.conf", "")], "/etc/chrony.conf", &["server a iburst"], &["chrony"]),
        ];
        let facts = Facts { server: Some("10.9.0.2".into()), ..Facts::default() };
        for (value, files, path, expected, told) in cases {
            let (_folder, tree) = tree(files);
            let settings = Settings::of(&[("TIMESERVER", value)]);
            assert_eq!(on(&tree, |draft| time_servers(&settings, &facts, draft)).unwrap(), *told, "{value}: {path}");
            let text = tree.read_text(path).unwrap().unwrap();
            let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
            assert_eq!(lines, *expected, "{value}: {path}");
        }
    }

    #[test]
    fn what_cannot_take_effect_is_said() {
        let facts = Facts::default();
        let chrony: &[_] = &[("/etc/chrony/chrony.conf", CHRONY)];
        for (value, files) in [("auto", chrony), ("a;b", chrony), ("10.0.0.1", &[])] {
            let (_folder, tree) = tree(files);
            let settings = Settings::of(&[("TIMESERVER", value)]);
            assert!(on(&tree, |draft| time_servers(&settings, &facts, draft)).is_err(), "{value}");
        }
        let (_folder, tree) = tree(chrony);
        let untouched = Settings::of(&[("TIMESERVER", "")]);
        assert!(on(&tree, |draft| time_servers(&untouched, &facts, draft)).unwrap().is_empty());
        assert_eq!(tree.read_text("/etc/chrony/chrony.conf").unwrap().as_deref(), Some(CHRONY));
    }

    #[test]
    #[rustfmt::skip]
    fn the_third_line_says_what_the_clock_shows_2_2() {
        for (value, own, expected) in [
            ("utc",   None,                       Some("0.0 0 0.0\n0\nUTC\n")),
            ("LOCAL", None,                       Some("0.0 0 0.0\n0\nLOCAL\n")),
            ("local", Some("1.5 7 0.0\n7\nUTC\n"), Some("1.5 7 0.0\n7\nLOCAL\n")),
            ("utc",   Some("1.5 7 0.0\n"),        Some("1.5 7 0.0\n0\nUTC\n")),
            ("moon",  None,                       None),
            ("",      None,                       None),
        ] {
            let (_folder, tree) = tree(&own.map(|own| (ADJTIME, own)).into_iter().collect::<Vec<_>>());
            let _ = on(&tree, |draft| hardware_clock(&Settings::of(&[("HWCLOCK", value)]), draft));
            assert_eq!(tree.read_text(ADJTIME).unwrap().as_deref(), expected, "{value} {own:?}");
        }
    }
}
