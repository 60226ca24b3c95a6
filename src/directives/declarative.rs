//! The first user's node, said without shell, comes to the same as with it.

use std::collections::BTreeSet;

use super::{Facts, Foreseen, Tree, What, foresee};
use crate::config::{Identity, Settings, evaluate};

const SEED: &str = include_str!("../../tests/fixtures/seed-lts.conf");
const DECLARATIVE: &str = include_str!("../../tests/fixtures/declarative-lts.conf");

fn settings(text: &str) -> Settings {
    let evaluation = evaluate(text, &[], &Identity::default());
    assert_eq!(evaluation.problems, []);
    evaluation.settings
}

/// The text that a plan writes to `path`.
fn written(foreseen: &Foreseen, path: &str) -> Option<String> {
    foreseen.changes.iter().find_map(|change| match &change.what {
        What::File { contents, .. } if change.path == path => {
            Some(String::from_utf8(contents.clone()).unwrap())
        }
        _ => None,
    })
}

/// What stands between two pieces of a command of the seed.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{before} in {text}"));
    rest.split_once(after).map_or(rest, |(found, _)| found)
}

#[test]
fn the_seed_said_declaratively_comes_to_the_same() {
    let (shell, declarative) = (settings(SEED), settings(DECLARATIVE));
    let folder = tempfile::tempdir().unwrap();
    let tree = Tree::open(folder.path()).unwrap();
    for (path, mode) in [
        ("/usr/lib/systemd/systemd", 0o755),
        ("/usr/bin/ssh-keygen", 0o755),
        ("/usr/share/zoneinfo/Europe/Prague", 0o644),
        ("/etc/ssh/ssh_config", 0o644),
        ("/etc/ssh/sshd_config", 0o644),
        ("/etc/ssh/moduli", 0o644),
    ] {
        tree.write(path, "", mode).unwrap();
    }
    let facts = Facts { configured: true, memory_kib: 64 << 20, ..Facts::default() };
    let plan = foresee(&declarative, &facts, &tree);
    let before = foresee(&shell, &facts, &tree);
    assert!(plan.errors.is_empty(), "{:?}", plan.errors);

    // No shell: neither a command nor rc.local.
    assert_eq!((plan.early.len(), plan.late.len()), (0, 0));
    assert_eq!(written(&plan, "/etc/rc.local"), None);
    for prefix in ["PREINIT_", "RCFILE_", "INIT_COMMAND_"] {
        assert_eq!(declarative.family(prefix), [], "{prefix}");
    }

    assert_eq!(declarative.get("KEEP_SYSTEM_SERVICES"), shell.get("KEEP_SYSTEM_SERVICES"));
    assert_eq!(written(&plan, "/etc/fstab"), written(&before, "/etc/fstab"));

    let preinit = shell.get("PREINIT_00_TIME").unwrap();
    let zone = between(preinit, "ln -sf ", " /etc/localtime");
    let linked = plan.changes.iter().find(|change| change.path == "/etc/localtime").unwrap();
    assert_eq!(linked.what, What::Link { target: format!("..{zone}") });

    let preinit = shell.get("PREINIT_02_DOCKER_OPTIONS").unwrap();
    let start = between(preinit, "s|^ExecStart=.*|", "|'");
    assert_eq!(
        written(&plan, "/etc/systemd/system/docker.service.d/10-landfall.conf").unwrap(),
        format!("[Service]\nExecStart=\n{start}\n")
    );

    // RCFILE_01
    assert_eq!(
        written(&plan, "/etc/landfall/files/etc-ssh.conf")
            .unwrap()
            .lines()
            .skip(1)
            .collect::<Vec<_>>(),
        ["ssh_config", "sshd_config"]
            .map(|name| format!("L+ \"/etc/ssh/{name}\" - - - - /rofs/etc/ssh/{name}"))
    );
    let unit = written(&plan, "/etc/systemd/system/landfall-ssh-host-keys.service").unwrap();
    assert!(unit.contains("/usr/bin/ssh-keygen -A\n") && unit.contains("After=etc-ssh.mount\n"));

    let rcfile = shell.get("RCFILE_02_SSH_CLIENT").unwrap();
    let key = between(rcfile, "echo '", "'");
    assert_eq!(written(&plan, "/root/.ssh/authorized_keys").unwrap(), format!("{key}\n"));

    let words = |text: &str| -> BTreeSet<String> {
        text.split_whitespace().filter(|word| word.contains('=')).map(str::to_owned).collect()
    };
    let panics = shell.get("RCFILE_03_KERNEL_DEBUG").unwrap().split(';').next().unwrap();
    let mut wanted = words(panics);
    wanted.extend(words(shell.get("RCFILE_04_SYSCTL").unwrap()));
    assert_eq!(shell.get("RCFILE_05_FORWARD"), Some("echo 1 > /proc/sys/net/ipv4/ip_forward"));
    wanted.insert("net.ipv4.ip_forward=1".to_owned());
    let set: BTreeSet<_> =
        declarative.family("SYSCTL_").into_iter().flat_map(|(_, value)| words(value)).collect();
    assert_eq!(set, wanted);

    assert_eq!(shell.get("RCFILE_06_MODULES"), Some("modprobe br_netfilter"));
    assert_eq!(plan.modules, [("br_netfilter".to_owned(), String::new())]);

    let rcfile = shell.get("RCFILE_03_KERNEL_DEBUG").unwrap();
    let join = shell.get("RCFILE_07_JOIN_K8S").unwrap();
    let started = [("netconsole", rcfile.split("; ").nth(1).unwrap()), ("kubeadm-join", join)];
    for (name, command) in started {
        let unit = written(&plan, &format!("/etc/systemd/system/{name}.service")).unwrap();
        assert!(unit.contains(&format!("\nExecStart={command}\n")), "{unit}");
        assert!(unit.ends_with("\n[Install]\nWantedBy=multi-user.target\n"), "{unit}");
        assert!(declarative.list("ENABLE_SYSTEM_SERVICES").contains(&name), "{name}");
    }
}
