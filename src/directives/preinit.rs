//! PREINIT_*: the operator's commands in the new root, just before its init.
//!
//! As in kvaps' LTSP: all lines are one script for one shell, without `-e`, so an `if` may go over
//! several, and a command that fails does not stop the next. What the script says goes to the
//! console; how it ended is a warning at most.

use std::collections::BTreeMap;

use super::{Facts, Tree};
use crate::config::Settings;
use crate::console;
use crate::error::{Error, Result};
use crate::sys::process::{News, run_in_root};

pub(super) const SHELL: &str = "/bin/sh";
/// The kernel takes no longer single argument or variable (`MAX_ARG_STRLEN`, 32 pages).
pub(super) const LONGEST: usize = 128 * 1024 - 1;
/// Of all arguments and variables together; the kernel's bound is a quarter of the stack's 8 MiB.
const MOST: usize = 1 << 20;

/// What runs before the other families look at the root: INIT_COMMAND_* and PRE_INIT_*.
pub fn early(settings: &Settings) -> Vec<String> {
    lines(settings, &["INIT_COMMAND_", "PRE_INIT_"])
}

/// What runs last: PREINIT_* and POST_INIT_*.
pub fn late(settings: &Settings) -> Vec<String> {
    lines(settings, &["PREINIT_", "POST_INIT_"])
}

fn lines(settings: &Settings, names: &[&str]) -> Vec<String> {
    settings.family_of(names).into_iter().map(|(_, line)| line.to_owned()).collect()
}

/// Runs `lines` as one script and waits for it, visibly; gives their number.
pub fn run(
    what: &str,
    lines: &[String],
    settings: &Settings,
    facts: &Facts,
    hostname: Option<&str>,
    tree: &Tree,
) -> Result<usize> {
    if lines.is_empty() {
        return Ok(0);
    }
    let doing = || format!("running {} {what} commands", lines.len());
    let script = lines.join("\n");
    if script.len() > LONGEST {
        let why = format!("together they are longer than {LONGEST} bytes");
        return Err(
            Error::invalid(doing(), why).with_hint("put a script into the image, and run it")
        );
    }
    if !tree.exists(SHELL) {
        return Err(Error::refused(doing(), format!("the root image has no {SHELL}")));
    }
    let environment = environment(settings, facts, hostname);
    let commands = format!("the {what} commands");
    let waiting = console::waiting("preinit", &commands);
    let mut listen = |news: News<'_>| match news {
        News::Line(line) => log::info!(target: "preinit", "{line}"),
        News::Running => waiting.still(&commands),
    };
    let status = run_in_root(tree.path(), SHELL, &["-c", &script], &environment, &mut listen)?;
    if status.success() {
        return Ok(lines.len());
    }
    Err(Error::refused(doing(), format!("the last one ended with {status}")))
}

/// What the script finds: every setting, everything DHCP said, and what any program expects.
fn environment(
    settings: &Settings,
    facts: &Facts,
    hostname: Option<&str>,
) -> Vec<(String, String)> {
    let known = [
        ("SERVER", facts.server.as_deref()),
        ("DEVICE", facts.device.as_deref()),
        ("HOSTNAME", hostname),
    ];
    let known = known.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let set = settings.iter().map(|(name, setting)| (name, setting.value.as_str()));
    with_the_usual(known.chain(set), "PREINIT")
}

/// `variables`, the later of two with one name, over what any program expects; without those that
/// the kernel would refuse to start anything with, which are named as too long for `whom`.
pub(super) fn with_the_usual<'a>(
    variables: impl Iterator<Item = (&'a str, &'a str)>,
    whom: &str,
) -> Vec<(String, String)> {
    let usual = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("TERM", "linux"),
    ];
    let mut variables: BTreeMap<_, _> = usual.into_iter().chain(variables).collect();
    let mut size: usize = 0;
    variables.retain(|name, value| {
        let length = name.len().saturating_add(value.len()).saturating_add(2);
        let fits = length <= LONGEST && size.saturating_add(length) <= MOST;
        if fits {
            size = size.saturating_add(length);
        } else {
            log::warn!(target: "directives", "{name} is too long for the environment of {whom}");
        }
        fits
    });
    variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmdline::Request;
    use crate::config::{Identity, Origin, evaluate};
    use crate::machine::Identity as Machine;
    use crate::plan::Plan;

    #[test]
    fn commands_see_every_setting_and_what_dhcp_said_c61() {
        let mut settings = Settings::default();
        settings.insert("IPV4ADDR", "10.0.0.5", Origin::Dhcp);
        settings.insert("filename", "/ltsp/amd64/core.0", Origin::Dhcp);
        settings.insert("FSTAB_1", "x", Origin::File(Default::default()));
        settings.insert("HUGE", "x".repeat(LONGEST), Origin::File(Default::default()));
        let facts = Facts { server: Some("10.0.0.1".into()), ..Facts::default() };
        let environment = environment(&settings, &facts, Some("node1"));
        let get = |name: &str| {
            environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
        };
        assert_eq!(get("IPV4ADDR"), Some("10.0.0.5"));
        assert_eq!(get("filename"), Some("/ltsp/amd64/core.0"));
        assert_eq!(get("FSTAB_1"), Some("x"));
        assert_eq!(get("SERVER"), Some("10.0.0.1"));
        assert_eq!(get("HOSTNAME"), Some("node1"));
        assert!(get("PATH").is_some_and(|path| path.contains("/usr/sbin")));
        assert_eq!(get("HUGE"), None, "the kernel would refuse to start anything with it");
    }

    /// C61: what LTSP's scripts found in their environment is there for ours as well.
    #[test]
    fn commands_see_what_the_network_said_under_ltsps_names() {
        let lease = crate::net::Lease {
            root_path: Some("/opt/ltsp/amd64".into()),
            server_id: Some([10, 0, 0, 1].into()),
            ..crate::net::Lease::of_address([10, 0, 0, 5].into(), 24)
        };
        let plan = Plan::decide(
            Request::read("NBD_ROOT_HOST=10.0.0.9 IPV4ADDR=weaker ltsp.foo=bar"),
            &Machine::default(),
        );
        let mac = crate::net::Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);
        let variables = crate::net::variables(
            "eth0",
            "2",
            mac,
            crate::net::kernel::Origin::Dhcp,
            &plan.network,
            &crate::net::Leases::of_ipv4(lease),
        );
        let base = crate::config::base(&plan, variables, Some("10.0.0.1".into()));
        let settings = evaluate("[default]\nA=1\n", &base, &Identity::default()).settings;
        let environment = environment(&settings, &Facts::default(), None);
        let expected = [
            ("A", "1"),
            ("FOO", "bar"),
            ("NBD_ROOT_HOST", "10.0.0.9"),
            ("IPV4ADDR", "10.0.0.5"),
            ("ROOTSERVER", "10.0.0.1"),
            ("ROOTPATH", "/opt/ltsp/amd64"),
            ("SERVER", "10.0.0.1"),
            ("DEVICE", "eth0"),
            ("LTSP_CLIENT_MAC", "52:54:00:AA:BB:CC"),
        ];
        for (name, value) in expected {
            let variable = (name.to_owned(), value.to_owned());
            assert!(environment.contains(&variable), "{name}={value}: {environment:?}");
        }
    }

    #[test]
    fn aliases_are_one_family_in_the_order_of_its_own_names() {
        let settings = Settings::of(&[
            ("PREINIT_10", "e"),
            ("POST_INIT_2", "b"),
            ("PREINIT_1", "a"),
            ("POST_INIT_03_X", "d"),
            ("PREINIT_3", "c"),
            ("PRE_INIT_1", "B"),
            ("INIT_COMMAND_1", "A"),
            ("PRE_INIT_02", "C"),
        ]);
        assert_eq!(late(&settings), ["a", "b", "c", "d", "e"]);
        assert_eq!(early(&settings), ["A", "B", "C"]);
    }

    /// Runs `text` as an lts.conf, in this machine's own root.
    fn run(text: &str) -> Result<usize> {
        let evaluation = evaluate(text, &[], &Identity::default());
        assert_eq!(evaluation.problems, []);
        let tree = Tree::open(std::path::Path::new("/")).unwrap();
        let settings = &evaluation.settings;
        super::run("PREINIT", &late(settings), settings, &Facts::default(), None, &tree)
    }

    #[test]
    #[ignore = "needs root, for chroot"]
    fn all_lines_are_one_script() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let out = out.display();
        #[rustfmt::skip]
        let cases = [
            ("C58", format!("PREINIT_1=\"cd /tmp\"\nPREINIT_2=\"false\"\nPREINIT_3=\"X=5\"\nPREINIT_4=\"echo \\$PWD-\\$X > {out}\""), "/tmp-5\n", true),
            ("C59", format!("PREINIT_1=\"if true; then\"\nPREINIT_2=\"echo b > {out}\"\nPREINIT_3=\"fi\""), "b\n", true),
            ("C60", format!("PREINIT_1=\"echo first > {out}\"\nPREINIT_2=\")\"\nPREINIT_3=\"echo third > {out}\""), "first\n", false),
            ("C61", format!("PREINIT_1=\"echo \\$FOO > {out}\"\nFOO=\"a b\""), "a b\n", true),
            ("1.7", format!("PREINIT_1=\"echo said; echo done > {out}; false\""), "done\n", false),
        ];
        for (row, text, expected, good) in cases {
            let result = run(&format!("[default]\n{text}\n"));
            assert_eq!(result.is_ok(), good, "{row}: {result:?}");
            let said = std::fs::read_to_string(folder.path().join("out")).unwrap();
            assert_eq!(said, expected, "{row}");
        }
    }
}
