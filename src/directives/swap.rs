//! USE_LOCAL_SWAP, NBD_SWAP, ENCRYPT_SWAP: where memory is swapped to.
//!
//! Local partitions are found by the running system's udev, which has all its disk drivers and
//! looks at every disk when it appears: a rule of ours starts a unit for each partition that is
//! swap by its own word. What may be overwritten is decided in that rule, and it is less than what
//! LTSP overwrote:
//!
//! - never a partition of the image that this node booted from, nor of a device that can be pulled
//!   out or that other machines see too (USB, Fibre Channel, iSCSI);
//! - never one whose contents are something else than swap by their signature, a hibernated
//!   system among them (its type is `swsuspend`), or are ambiguous;
//! - one without any signature only in GPT, where the type can mean nothing else: MBR's 0x82 is
//!   Solaris' root too;
//! - and never the first MiB: encrypted swap lies behind it, so a system that is installed on the
//!   disk still finds its swap by label or UUID.
//!
//! Swap of the boot server is connected by the agent itself ([`crate::root::swap`]).

use super::covered::is_systemds;
use super::{Draft, Facts, View, server};
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::root::{NbdExport, SwapPlan};

const RULE: &str = "/etc/udev/rules.d/90-landfall-swap.rules";
const UNITS: &str = "/etc/systemd/system";
const TEMPLATE: &str = "landfall-swap@.service";
/// The export's name on every LTSP server.
const EXPORT: &str = "swap";
const PORT: u16 = 10809;
/// MiB of memory, below which a node gets the boot server's swap without asking.
const THRESHOLD: u64 = 800;
/// The same with a desktop.
const FAT_THRESHOLD: u64 = 2100;

/// What was decided.
#[derive(Debug, Default)]
pub struct Swap {
    /// On partitions of local disks.
    pub local: bool,
    pub encrypted: bool,
    /// On the boot server; connected after the directives.
    pub nbd: Option<SwapPlan>,
}

pub fn apply(settings: &Settings, facts: &Facts, draft: &mut Draft<'_>) -> Result<Swap> {
    let local = settings.is_true("USE_LOCAL_SWAP");
    let nbd = nbd(settings, facts, draft)?;
    let asked = local || nbd.as_ref().is_some_and(|nbd| nbd.asked);
    match prepare(settings, local, nbd, draft) {
        // Was nobody's wish, so its absence is nobody's trouble.
        Err(error) if !asked => {
            log::info!(target: "directives", "no swap of the boot server: {error}");
            Ok(Swap::default())
        }
        result => result,
    }
}

fn prepare(
    settings: &Settings,
    local: bool,
    nbd: Option<SwapPlan>,
    draft: &mut Draft<'_>,
) -> Result<Swap> {
    if !local && nbd.is_none() {
        return Ok(Swap::default());
    }
    let doing = "preparing swap";
    let cryptsetup = program("cryptsetup", draft);
    let encrypted = match settings.filled("ENCRYPT_SWAP") {
        Some(_) => settings.is_true("ENCRYPT_SWAP"),
        None => cryptsetup.is_some(),
    };
    // What the agent does by itself needs nothing of the image.
    if local || encrypted {
        let find = |name: &str| {
            program(name, draft)
                .ok_or_else(|| Error::refused(doing, format!("the image has no {name}")))
        };
        let unit = match (encrypted, &cryptsetup) {
            (true, None) => {
                let why = "the image has no cryptsetup, and ENCRYPT_SWAP asks for it";
                return Err(
                    Error::refused(doing, why).with_hint("ENCRYPT_SWAP=False swaps in clear text")
                );
            }
            (true, Some(cryptsetup)) => encrypting(cryptsetup, &find("mkswap")?, &find("swapon")?),
            (false, _) => plain(&find("swapon")?),
        };
        if !is_systemds(draft) {
            return Err(Error::refused(doing, "the image has no systemd"));
        }
        draft.replace(&format!("{UNITS}/{TEMPLATE}"), unit, 0o644);
    }
    if local {
        draft.replace(RULE, rule(encrypted), 0o644);
    }
    let nbd = nbd.map(|nbd| SwapPlan { encrypted, ..nbd });
    if let (Some(nbd), true) = (&nbd, encrypted) {
        let unit = format!("landfall-swap@{}.service", nbd.device());
        draft.link(&format!("{UNITS}/swap.target.wants/{unit}"), &format!("../{TEMPLATE}"));
    }
    Ok(Swap { local, encrypted, nbd })
}

/// The boot server's swap, if it was asked for or this node needs it.
fn nbd(settings: &Settings, facts: &Facts, view: &dyn View) -> Result<Option<SwapPlan>> {
    let asked =
        settings.filled("NBD_SWAP").filter(|value| !value.trim().eq_ignore_ascii_case("auto"));
    let memory = facts.memory_kib / 1024;
    let wanted = match asked {
        Some(_) => settings.is_true("NBD_SWAP"),
        // A memory of unknown size is none that is too small.
        None => {
            !settings.is_true("USE_LOCAL_SWAP")
                && memory > 0
                && memory < threshold(settings, memory, view)?
        }
    };
    if !wanted {
        return Ok(None);
    }
    let host = settings.filled("NBD_SWAP_HOST").map(str::trim).or_else(|| server(settings, facts));
    let origin = match settings.filled("NBD_SWAP_HOST") {
        Some(_) => "NBD_SWAP_HOST",
        None => "the boot server",
    };
    match (host, asked) {
        (Some(host), _) => Ok(Some(SwapPlan {
            export: NbdExport {
                host: host.to_owned(),
                port: PORT,
                names: vec![EXPORT.to_owned()],
                origin: origin.to_owned(),
            },
            asked: asked.is_some(),
            encrypted: false,
        })),
        (None, None) => Ok(None),
        (None, Some(_)) => {
            Err(Error::invalid("looking for swap of a server", "no server is known")
                .with_hint("name it with NBD_SWAP_HOST"))
        }
    }
}

/// MiB.
fn threshold(settings: &Settings, memory: u64, view: &dyn View) -> Result<u64> {
    if let Some(value) = settings.filled("NBD_SWAP_THRESHOLD") {
        return value.trim().parse().map_err(|_| {
            Error::invalid(format!("reading NBD_SWAP_THRESHOLD={value}"), "it is no number of MB")
        });
    }
    Ok(if super::services::is_fat(settings, memory, view)? { FAT_THRESHOLD } else { THRESHOLD })
}

/// Where the image has a program of the system's administration.
pub fn program(name: &str, view: &dyn View) -> Option<String> {
    ["/sbin", "/usr/sbin", "/usr/bin", "/bin"]
        .iter()
        .map(|folder| format!("{folder}/{name}"))
        .find(|path| view.is_executable(path))
}

/// Runs after 60-persistent-storage.rules, which finds out what a partition is.
fn rule(encrypted: bool) -> String {
    let mut text = String::from(
        "# Written by landfall at boot: USE_LOCAL_SWAP.\n\
         SUBSYSTEM!=\"block\", GOTO=\"landfall_swap_end\"\n\
         ACTION==\"remove\", GOTO=\"landfall_swap_end\"\n\
         ENV{DEVTYPE}!=\"partition\", GOTO=\"landfall_swap_end\"\n\
         # The boot image, and what is not a disk of this machine.\n\
         KERNEL==\"nbd*|loop*|ram*|zram*\", GOTO=\"landfall_swap_end\"\n\
         # What can be pulled out, or belongs to other machines too.\n\
         ENV{ID_BUS}==\"usb\", GOTO=\"landfall_swap_end\"\n\
         ENV{ID_PATH}==\"*-fc-*|*-iscsi-*\", GOTO=\"landfall_swap_end\"\n\
         # More than one signature, or marked as not to be used by itself.\n\
         ENV{ID_FS_AMBIVALENT}==\"?*\", GOTO=\"landfall_swap_end\"\n\
         ENV{ID_PART_ENTRY_FLAGS}==\"0x[89a-f]???????????????\", GOTO=\"landfall_swap_end\"\n\
         ENV{ID_PART_ENTRY_TYPE}==\"0657fd6d-a4ab-43c4-84e5-0933c84b4f4f|0x82\", \
         ENV{ID_FS_TYPE}==\"swap\", GOTO=\"landfall_swap_use\"\n",
    );
    if encrypted {
        text += "# Nothing that anybody knows; 0x82 may be Solaris.\n\
                 ENV{ID_PART_ENTRY_TYPE}==\"0657fd6d-a4ab-43c4-84e5-0933c84b4f4f\", \
                 ENV{ID_FS_TYPE}==\"\", ENV{ID_FS_USAGE}==\"\", GOTO=\"landfall_swap_use\"\n";
    }
    text += "GOTO=\"landfall_swap_end\"\n\
             LABEL=\"landfall_swap_use\"\n\
             TAG+=\"systemd\", ENV{SYSTEMD_WANTS}+=\"landfall-swap@%k.service\"\n\
             LABEL=\"landfall_swap_end\"\n";
    text
}

fn plain(swapon: &str) -> String {
    template("Swap", &format!("ExecStart={swapon} --priority 10 /dev/%i\n"))
}

/// The key is forgotten with the machine's memory. /dev/random, which unlike urandom waits until
/// the kernel has gathered enough, and nowadays never after.
fn encrypting(cryptsetup: &str, mkswap: &str, swapon: &str) -> String {
    const FIRST_MIB: u32 = 2048;
    let commands = format!(
        "ExecStart={cryptsetup} open --type plain --batch-mode --cipher aes-xts-plain64 --key-size 512 \
         --key-file /dev/random --offset {FIRST_MIB} /dev/%i landfall-swap-%i\n\
         ExecStart={mkswap} /dev/mapper/landfall-swap-%i\n\
         ExecStart={swapon} --priority 10 /dev/mapper/landfall-swap-%i\n"
    );
    template("Encrypted swap", &commands)
}

/// Nothing to stop: systemd switches swap off, and takes mappings down, at shutdown.
fn template(what: &str, commands: &str) -> String {
    format!(
        "# Written by landfall at boot.\n\
         [Unit]\n\
         Description={what} on /dev/%i\n\
         DefaultDependencies=no\n\
         BindsTo=dev-%i.device\n\
         After=dev-%i.device\n\
         Before=swap.target shutdown.target\n\
         Conflicts=shutdown.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         {commands}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directives::Tree;
    use crate::directives::draft::on;

    const ALL: [&str; 4] = ["cryptsetup", "mkswap", "swapon", "systemd"];

    /// A root with these programs.
    fn root(programs: &[&str]) -> (tempfile::TempDir, Tree) {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        for name in programs {
            let path = match *name {
                "systemd" => "/usr/lib/systemd/systemd".to_owned(),
                name => format!("/sbin/{name}"),
            };
            tree.write(&path, "", 0o755).unwrap();
        }
        (folder, tree)
    }

    #[test]
    #[rustfmt::skip]
    fn swap_is_where_it_was_asked_for_or_is_needed() {
        let local = ("USE_LOCAL_SWAP", "y");
        let clear = ("ENCRYPT_SWAP", "False");
        let nbd = ("NBD_SWAP", "true");
        let none: &[&str] = &[];
        let plain: &[&str] = &["swapon", "systemd"];
        // MiB of memory; then local, encrypted, and who asked for the boot server's.
        type Outcome = Option<(bool, bool, Option<bool>)>;
        let cases: &[(&[(&str, &str)], &[&str], u64, Outcome)] = &[
            (&[],                                      none,  64000, Some((false, false, None))),
            (&[local],                                 &ALL,  64000, Some((true, true, None))),
            (&[local],                                 plain, 64000, Some((true, false, None))),
            (&[local, clear],                          &ALL,  64000, Some((true, false, None))),
            (&[local, ("ENCRYPT_SWAP", "y")],          plain, 64000, None), // LTSP: no swap then
            (&[local],                                 &["systemd"], 64000, None),
            (&[local],                                 &["swapon"],  64000, None),
            // Little memory: without asking, but not beside local swap, and not against one's will.
            (&[],                                      none,  512,   Some((false, false, Some(false)))),
            (&[],                                      &ALL,  512,   Some((false, true, Some(false)))),
            (&[("NBD_SWAP", "auto")],                  none,  512,   Some((false, false, Some(false)))),
            (&[],                                      none,  800,   Some((false, false, None))),
            (&[],                                      none,  0,     Some((false, false, None))), // not known
            (&[("NBD_SWAP_THRESHOLD", "2000")],        none,  1900,  Some((false, false, Some(false)))),
            (&[("NBD_SWAP_THRESHOLD", "lots")],        none,  1900,  None),
            (&[("LTSP_FATCLIENT", "y")],               none,  1900,  Some((false, false, Some(false)))),
            (&[local, clear],                          plain, 512,   Some((true, false, None))),
            (&[("NBD_SWAP", "False")],                 none,  512,   Some((false, false, None))),
            (&[("ENCRYPT_SWAP", "y")],                 none,  512,   Some((false, false, None))), // no trouble
            (&[("ENCRYPT_SWAP", "y"), nbd],            none,  512,   None),
            (&[nbd],                                   none,  64000, Some((false, false, Some(true)))),
            (&[nbd, local, clear],                     plain, 64000, Some((true, false, Some(true)))),
        ];
        let facts = |mib: u64| Facts { memory_kib: mib << 10, server: Some("10.0.0.1".into()), ..Facts::default() };
        for (values, programs, memory, expected) in cases {
            let (_folder, tree) = root(programs);
            let swap = on(&tree, |draft| apply(&Settings::of(values), &facts(*memory), draft));
            let swap = swap.ok().map(|swap| (swap.local, swap.encrypted, swap.nbd.map(|nbd| nbd.asked)));
            assert_eq!(swap, *expected, "{values:?} with {programs:?} and {memory} MiB");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn the_servers_swap_is_at_the_boot_server_or_where_it_was_said() {
        let (_folder, tree) = root(&[]);
        let facts = Facts { memory_kib: 1, ..Facts::default() };
        let cases: &[(&[(&str, &str)], Option<&str>)] = &[
            (&[("NBD_SWAP", "y"), ("SERVER", "10.0.0.1")],                              Some("10.0.0.1")),
            (&[("NBD_SWAP", "y"), ("SERVER", "10.0.0.1"), ("NBD_SWAP_HOST", "swap-1")], Some("swap-1")),
            (&[("NBD_SWAP", "y")],                                                      None),
        ];
        for (values, host) in cases {
            let plan = nbd(&Settings::of(values), &facts, &tree);
            let plan = plan.ok().flatten().map(|plan| plan.export);
            assert_eq!(plan.as_ref().map(|export| export.host.as_str()), *host, "{values:?}");
        }
    }

    /// What mkswap gets hold of is gone.
    #[test]
    fn local_swap_is_what_says_so_itself() {
        let (_folder, tree) = root(&ALL);
        let settings = Settings::of(&[("USE_LOCAL_SWAP", "y")]);
        on(&tree, |draft| apply(&settings, &Facts::default(), draft)).unwrap();
        let rule = tree.read_text(RULE).unwrap().unwrap();
        let use_lines = rule.lines().filter(|line| line.ends_with("GOTO=\"landfall_swap_use\""));
        for line in use_lines {
            assert!(line.contains("ID_PART_ENTRY_TYPE") && line.contains("ID_FS_TYPE"), "{line}");
            assert!(!line.contains("0x82") || line.contains("ID_FS_TYPE}==\"swap\""), "{line}");
        }
        let unit = tree.read_text("/etc/systemd/system/landfall-swap@.service").unwrap().unwrap();
        let commands: Vec<_> = unit.lines().filter(|line| line.starts_with("ExecStart=")).collect();
        let [open, mkswap, _] = commands.as_slice() else { panic!("{unit}") };
        assert!(open.contains("--offset 2048") && open.contains("/dev/random"), "{open}");
        assert_eq!(*mkswap, "ExecStart=/sbin/mkswap /dev/mapper/landfall-swap-%i");
        assert!(
            !super::rule(false).contains("ID_FS_USAGE"),
            "in clear text only what has a signature"
        );
        assert!(!plain("swapon").contains("mkswap"));
    }

    #[test]
    fn encrypted_swap_of_the_server_is_switched_on_by_the_running_system() {
        let (_folder, tree) = root(&ALL);
        let settings = Settings::of(&[("NBD_SWAP", "y"), ("SERVER", "10.0.0.1")]);
        let swap = on(&tree, |draft| apply(&settings, &Facts::default(), draft)).unwrap();
        assert!(swap.nbd.unwrap().encrypted);
        assert!(tree.exists("/etc/systemd/system/swap.target.wants/landfall-swap@nbd1.service"));
        assert!(!tree.exists(RULE));
    }
}
