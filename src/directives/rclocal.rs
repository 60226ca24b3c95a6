//! RCFILE_*: lines of /etc/rc.local, run by systemd once the network is up.

use super::units::{self, ADMINS, Unit};
use super::{Draft, View};
use crate::config::Settings;
use crate::error::{Error, Result};

const RC_LOCAL: &str = "/etc/rc.local";
const SERVICE: &str = "rc-local.service";
const UNIT: &str = "/etc/systemd/system/rc-local.service";

/// Gives the number of lines.
pub fn apply(settings: &Settings, draft: &mut Draft<'_>) -> Result<usize> {
    let lines: Vec<_> = settings.family("RCFILE_").into_iter().map(|(_, line)| line).collect();
    if lines.is_empty() {
        return Ok(0);
    }
    // One that is not executable is switched off, and appending to it must not switch it on.
    let own = match draft.is_executable(RC_LOCAL) {
        true => draft.read_text(RC_LOCAL)?,
        false => None,
    };
    match own {
        Some(own) => draft.write(RC_LOCAL, render(&own, &lines), 0o755),
        None => draft.replace(RC_LOCAL, render(NEW, &lines), 0o755),
    }
    start(draft)?;
    Ok(lines.len())
}

/// Sees to it that systemd runs the file. Its generator does when the file is executable: Debian 12
/// (systemd 252) and 13 (257) have it in their package systemd; builds without support for sysvinit
/// leave it out.
fn start(draft: &mut Draft<'_>) -> Result<()> {
    let has = |path: &str| draft.exists(&format!("/usr{path}")) || draft.exists(path);
    if !has("/lib/systemd/systemd") {
        return Ok(());
    }
    let generated = has("/lib/systemd/system-generators/systemd-rc-local-generator");
    let file = match units::find(draft, SERVICE)? {
        Unit::Masked => {
            let why = format!("{SERVICE} is masked in the image");
            return Err(Error::refused(format!("running {RC_LOCAL}"), why));
        }
        Unit::File(file) => file,
        Unit::Missing => {
            draft.replace(UNIT, OUR_UNIT, 0o644);
            UNIT.to_owned()
        }
    };
    if !generated && !units::is_enabled(draft, SERVICE) {
        draft.link(&format!("{ADMINS}/multi-user.target.wants/{SERVICE}"), &file);
    }
    Ok(())
}

/// Debian's interpreter line: the first command that fails is the last (C1d). LTSP's own new file
/// had no `-e`, and in the same configuration then went on after a failure.
const NEW: &str = "#!/bin/sh -e\n";

/// The image's file with `lines` at its end, in place of a final `exit 0`.
fn render(own: &str, lines: &[&str]) -> String {
    let own = own.trim_end();
    let body = match own.rsplit_once('\n') {
        Some((before, last)) if last.trim() == "exit 0" => before,
        _ => own,
    };
    let mut text = String::new();
    for line in body.lines().chain(lines.iter().copied()) {
        text += line;
        text.push('\n');
    }
    text
}

const OUR_UNIT: &str = "\
# Written by landfall at boot: this systemd has no generator for /etc/rc.local any more.
[Unit]
Description=/etc/rc.local
ConditionFileIsExecutable=/etc/rc.local
Wants=network-online.target
After=network.target network-online.target

[Service]
Type=forking
ExecStart=/etc/rc.local start
TimeoutSec=infinity
RemainAfterExit=yes
GuessMainPID=no
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Identity, evaluate};
    use crate::directives::Tree;
    use crate::directives::draft::on;

    fn seed() -> Settings {
        let text = include_str!("../../tests/fixtures/seed-lts.conf");
        evaluate(text, &[], &Identity::default()).settings
    }

    #[test]
    #[rustfmt::skip]
    fn lines_go_where_a_final_exit_0_was() {
        let cases = [
            ("C69", "#!/bin/sh -e\nfoo\nexit 0\n",      "#!/bin/sh -e\nfoo\na\nb\n"),
            ("C69", "#!/bin/sh -e\nfoo\n  exit 0\n\n\n", "#!/bin/sh -e\nfoo\na\nb\n"),
            ("C1d", "#!/bin/sh\nfoo",                   "#!/bin/sh\nfoo\na\nb\n"),
            ("",    "#!/bin/sh\nexit 0; x\n",           "#!/bin/sh\nexit 0; x\na\nb\n"),
            ("C70", NEW,                                "#!/bin/sh -e\na\nb\n"),
        ];
        for (row, own, expected) in cases {
            assert_eq!(render(own, &["a", "b"]), expected, "{row}: {own:?}");
        }
    }

    #[test]
    fn the_seeds_seven_lines_end_the_file_in_order_c1c_c70() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        assert_eq!(on(&tree, |draft| apply(&seed(), draft)).unwrap(), 7);
        let text = tree.read_text(RC_LOCAL).unwrap().unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 8);
        assert_eq!(lines[0], "#!/bin/sh -e");
        assert_eq!(lines[1], "cp /rofs/etc/ssh/*_config /etc/ssh; ssh-keygen -A");
        assert!(lines[7].starts_with("kubeadm join --token 2a4576.504356e45fa3d365"));
        assert!(tree.is_executable(RC_LOCAL));
        assert!(!tree.exists(UNIT), "no systemd, no unit");
    }

    #[test]
    fn a_file_that_is_switched_off_stays_off_but_ours_runs() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        tree.write(RC_LOCAL, "#!/bin/sh\nrm -rf /srv\n", 0o644).unwrap();
        tree.write("/usr/lib/systemd/systemd", "", 0o755).unwrap();
        on(&tree, |draft| apply(&seed(), draft)).unwrap();
        let text = tree.read_text(RC_LOCAL).unwrap().unwrap();
        assert!(
            text.starts_with("#!/bin/sh -e\ncp /rofs") && tree.is_executable(RC_LOCAL),
            "{text}"
        );
        assert!(tree.exists("/etc/systemd/system/multi-user.target.wants/rc-local.service"));
    }

    #[test]
    #[rustfmt::skip]
    fn somebody_runs_the_file_on_every_systemd_c70() {
        const VENDORS: &str = "/usr/lib/systemd/system/rc-local.service";
        const GENERATOR: &str = "/usr/lib/systemd/system-generators/systemd-rc-local-generator";
        let cases: &[(&str, &[&str], Option<&str>, bool, Option<&str>)] = &[
            ("Debian 12 and 13",          &[VENDORS, GENERATOR],                   None,              true,  None),
            ("no generator any more",     &[VENDORS],                              None,              true,  Some(VENDORS)),
            ("nothing of it at all",      &[],                                     None,              true,  Some(UNIT)),
            ("a unit of the image",       &[UNIT],                                 None,              true,  Some(UNIT)),
            ("one that the image masked", &[VENDORS, GENERATOR],                   Some("/dev/null"), false, None),
        ];
        for (case, files, mask, good, expected) in cases {
            let folder = tempfile::tempdir().unwrap();
            let tree = Tree::open(folder.path()).unwrap();
            tree.link("/lib", "usr/lib").unwrap();
            tree.write("/usr/lib/systemd/systemd", "", 0o755).unwrap();
            // As while booting: the machine's own devices are there already.
            tree.write("/dev/null", "", 0o644).unwrap();
            for file in *files {
                tree.write(file, "[Unit]\n", 0o755).unwrap();
            }
            if let Some(target) = mask {
                tree.link(UNIT, target).unwrap();
            }
            let result = on(&tree, |draft| apply(&seed(), draft));
            assert_eq!(result.is_ok(), *good, "{case}: {result:?}");
            assert!(tree.is_executable(RC_LOCAL), "{case}");
            let link = tree.kind("/etc/systemd/system/multi-user.target.wants/rc-local.service").unwrap();
            assert_eq!(link, expected.map(|to| crate::directives::Kind::Link(to.to_owned())), "{case}");
        }
    }
}
