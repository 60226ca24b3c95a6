//! The end of a machine: after systemd-shutdown comes our own program, in memory, which lets go of
//! the root and ends the machine in bounded time.
//!
//! Times are the guest's own: an emulated machine is slow, and its clock is slow with it.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use landfall_tests::{Kernel, Lab, Machine, Nbd, NbdKind, Node, workshop};

use crate::{usual_dhcp, usual_vm};

/// From its first line to its last, in seconds; what the program promises.
pub const LONGEST: f64 = 15.0;

/// From the operator's command to the last line, with a server that answers.
const WHOLE_SHUTDOWN: f64 = 60.0;

/// The same with a root that is dead: what systemd stops may wait for it, until the keeper has had
/// enough.
const WITHOUT_SERVER: f64 = 120.0;

struct End {
    verb: &'static str,
    /// Of the last program.
    announces: &'static str,
    /// Of the kernel.
    last_line: &'static str,
    /// A machine that is halted stays there.
    is_off: bool,
}

const REBOOT: End = End {
    verb: "reboot",
    announces: "shutdown: restarting",
    last_line: "reboot: Restarting system",
    is_off: true,
};

const POWEROFF: End = End {
    verb: "poweroff",
    announces: "shutdown: switching off",
    last_line: "reboot: Power down",
    is_off: true,
};

const HALT: End = End {
    verb: "halt",
    announces: "shutdown: halting",
    last_line: "reboot: System halted",
    is_off: false,
};

/// Boots a root, ends it with its server alive, and listens.
fn ends(test: &str, root: &str, kernel: Kernel, words: &str, end: &End) -> Result<()> {
    let lab = Lab::new(test)?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let nbd = Nbd::new(&lab, NbdKind::NbdServer).export("root", &workshop::debian(root)?);
    let _nbd = nbd.start()?;
    let mut machine = usual_vm(&lab, kernel, words)?.memory_mib(1024).boot()?;
    let asked = {
        let node = machine.node()?;
        is_placed(&node)?;
        let asked = uptime(&node)?;
        node.begin(&["systemctl", end.verb])?;
        asked
    };
    let streamed = !words.contains("landfall.ram=copy");
    let took = let_go(&machine, end, streamed)?;
    eprintln!(
        "{test}: {:.1} s from the command, {:.2} s of them the last program's",
        took.last - asked,
        took.last - took.first
    );
    ensure!(took.last - asked < WHOLE_SHUTDOWN, "{:.1} s", took.last - asked);
    machine.line_within(end.last_line, Duration::from_secs(60))?;
    match end.is_off {
        true => machine.gone(Duration::from_secs(60)),
        false => Ok(()),
    }
}

/// It is there from the boot on, under both names, and its file is there once.
fn is_placed(node: &Node<'_>) -> Result<()> {
    let numbers = node.output(&[
        "stat",
        "-c",
        "%i %h %a",
        "/run/initramfs/shutdown",
        "/run/landfall/landfall",
    ])?;
    let lines: Vec<_> = numbers.lines().collect();
    ensure!(lines.len() == 2 && lines[0] == lines[1] && lines[0].ends_with(" 2 755"), "{numbers}");
    let version = node.output(&["/run/landfall/landfall", "version"])?;
    ensure!(version.starts_with("landfall "), "{version}");
    ensure!(!node.exists("/etc/initrd-release")?, "the root would take itself for an initramfs");
    Ok(())
}

/// Uptimes of the last program's first and last line.
struct Took {
    first: f64,
    last: f64,
}

fn let_go(machine: &Machine, end: &End, streamed: bool) -> Result<Took> {
    let within = Duration::from_secs(300);
    let begins = format!("shutdown: {}: letting go of the root", end.verb);
    let first = stamp(&machine.line_within(&begins, within)?)?;
    let last = stamp(&machine.line_within(end.announces, Duration::from_secs(60))?)?;
    let unmounted = machine.line("file systems unmounted")?;
    ensure!(!unmounted.contains("in use"), "{unmounted}");
    if streamed {
        let line = machine.line("shutdown: /dev/nbd")?;
        ensure!(line.trim_end().ends_with(" disconnected"), "{line}");
    }
    ensure!(last - first < LONGEST, "{:.2} s between first and last line", last - first);
    machine.never_said("going on")?;
    Ok(Took { first, last })
}

/// `[   12.34] shutdown: …`
pub fn stamp(line: &str) -> Result<f64> {
    let stamp = line.split(['[', ']']).nth(1).context("no time")?;
    stamp.trim().parse().with_context(|| line.to_owned())
}

fn uptime(node: &Node<'_>) -> Result<f64> {
    let text = node.file("/proc/uptime")?;
    text.split(' ').next().context("no number")?.parse().context(text.clone())
}

#[test]
#[ignore = "boots a virtual machine"]
fn reboot_of_bookworm_lets_go() -> Result<()> {
    ends("exitrd-reboot-bookworm", "bookworm", Kernel::V6_1, "", &REBOOT)
}

#[test]
#[ignore = "boots a virtual machine"]
fn poweroff_of_bookworm_lets_go() -> Result<()> {
    ends("exitrd-poweroff-bookworm", "bookworm", Kernel::V6_1, "", &POWEROFF)
}

#[test]
#[ignore = "boots a virtual machine"]
fn reboot_of_trixie_lets_go() -> Result<()> {
    ends("exitrd-reboot-trixie", "trixie", Kernel::V6_12, "", &REBOOT)
}

#[test]
#[ignore = "boots a virtual machine"]
fn poweroff_of_trixie_lets_go() -> Result<()> {
    ends("exitrd-poweroff-trixie", "trixie", Kernel::V6_12, "", &POWEROFF)
}

/// Somebody reads the screen, and switches the machine off by hand.
#[test]
#[ignore = "boots a virtual machine"]
fn halt_of_trixie_lets_go_and_stands_still() -> Result<()> {
    ends("exitrd-halt-trixie", "trixie", Kernel::V6_12, "", &HALT)
}

#[test]
#[ignore = "boots a virtual machine"]
fn poweroff_of_a_copied_root_lets_go() -> Result<()> {
    ends("exitrd-poweroff-copied", "bookworm", Kernel::V6_12, "landfall.ram=copy", &POWEROFF)
}

/// A new kernel without the firmware's minutes: the root must be let go of all the same.
#[test]
#[ignore = "boots a virtual machine"]
fn kexec_of_bookworm_lets_go_and_starts_the_other_kernel() -> Result<()> {
    let lab = Lab::new("exitrd-kexec")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let nbd = Nbd::new(&lab, NbdKind::NbdServer).export("root", &workshop::debian("bookworm")?);
    let _nbd = nbd.start()?;
    let kernel = Kernel::V6_1.vmlinuz()?;
    let length = fs::metadata(&kernel)?.len();
    // A disk has whole sectors.
    let disk = lab.file("kernel.disk");
    fs::copy(&kernel, &disk)?;
    fs::OpenOptions::new().write(true).open(&disk)?.set_len(length.next_multiple_of(4096))?;

    let vm = usual_vm(&lab, Kernel::V6_1, "")?.memory_mib(1024).disk(&disk);
    let mut machine = vm.boot()?;
    {
        let node = machine.node()?;
        node.output(&["sh", "-c", &format!("head -c {length} /dev/vda > /run/kernel")])?;
        // kexec_file_load(2), without an initramfs: the kernel says who it is, and panics.
        let words = "console=ttyS0 panic=-1 the.other.kernel";
        let load = format!(
            "open(K, '<', '/run/kernel') or die $!; $c = \"{words}\\0\"; \
             syscall(320, fileno(K), -1, length($c), $c, 4) == 0 or die $!"
        );
        node.output(&["perl", "-e", &load])?;
        node.begin(&["systemctl", "kexec"])?;
    }
    let end = End {
        verb: "kexec",
        announces: "shutdown: starting the other kernel",
        last_line: "the.other.kernel",
        is_off: true,
    };
    let_go(&machine, &end, true)?;
    machine.line_within(
        "Command line: console=ttyS0 panic=-1 the.other.kernel",
        Duration::from_secs(120),
    )?;
    machine.gone(Duration::from_secs(120))
}

/// The plug is pulled, and then somebody wants the machine to restart: nothing that is not in memory
/// already can be read, and it must end all the same.
fn ends_without_its_server(test: &str, root: &str, kernel: Kernel, end: &End) -> Result<()> {
    let lab = Lab::new(test)?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let nbd = Nbd::new(&lab, NbdKind::NbdServer).export("root", &workshop::debian(root)?);
    let mut nbd = nbd.start()?;
    let mut machine = usual_vm(&lab, kernel, "")?.memory_mib(1024).boot()?;
    {
        let node = machine.node()?;
        let pinned = status(&node, "what a shutdown needs in memory", |status| {
            status["pinned_bytes"].as_u64().is_some_and(|bytes| bytes > 0)
        })?;
        eprintln!("{test}: {} bytes are kept in memory", pinned["pinned_bytes"]);
        let signal = if end.verb == "reboot" { "39" } else { "38" };
        let script = WITHOUT_ROOT.replace("VERB", end.verb).replace("SIGNAL", signal);
        node.begin(&["sh", "-c", &script])?;
        machine.line("waiting for the loss of the root")?;
    }
    nbd.kill();
    let asked = machine.line(&format!("asking for {} at ", end.verb))?;
    let asked = asked.rsplit(' ').next().context("when")?.parse::<f64>()?;
    let last = stamp(&machine.line_within(end.last_line, Duration::from_secs(500))?)?;
    let forced = machine.console().iter().any(|line| line.contains("ending the machine"));
    eprintln!("{test}: {:.1} s from the command; by the keeper: {forced}", last - asked);
    ensure!(last - asked < WITHOUT_SERVER, "{:.1} s", last - asked);
    machine.gone(Duration::from_secs(60))
}

/// An administrator at the machine's own terminal, who has a shell and our program, both in memory.
/// systemctl is no use to them any more: its loader asks the root for files that are not there, too.
/// systemd takes orders as signals (systemd(1)).
const WITHOUT_ROOT: &str = "echo waiting for the loss of the root > /dev/console; \
    while /run/landfall/landfall status > /dev/null; do :; done; \
    echo 3 > /proc/sys/vm/drop_caches; \
    read now rest < /proc/uptime; echo asking for VERB at $now > /dev/console; \
    kill -SIGNAL 1";

/// Waits for the keeper's status to be so. The program for it is in memory.
fn status(
    node: &Node<'_>,
    what: &str,
    is_so: impl Fn(&serde_json::Value) -> bool,
) -> Result<serde_json::Value> {
    let deadline = Instant::now() + Duration::from_secs(240);
    loop {
        let shown = node.run(&["/run/landfall/landfall", "status", "--json"])?;
        let status = serde_json::from_str(&shown.stdout).with_context(|| format!("{shown:?}"))?;
        if is_so(&status) {
            return Ok(status);
        }
        ensure!(Instant::now() < deadline, "waiting for {what}: {status:#}");
        thread::sleep(Duration::from_secs(1));
    }
}

#[test]
#[ignore = "boots a virtual machine"]
fn reboot_of_bookworm_ends_without_its_server() -> Result<()> {
    ends_without_its_server("exitrd-dead-bookworm", "bookworm", Kernel::V6_1, &REBOOT)
}

#[test]
#[ignore = "boots a virtual machine"]
fn poweroff_of_trixie_ends_without_its_server() -> Result<()> {
    ends_without_its_server("exitrd-dead-trixie", "trixie", Kernel::V6_12, &POWEROFF)
}

/// Both begin systemd anew, and one ends every program: the root and who looks after it are none of
/// their business.
#[test]
#[ignore = "boots a virtual machine"]
fn systemd_may_start_itself_and_everything_anew() -> Result<()> {
    let lab = Lab::new("exitrd-soft-reboot")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let nbd = Nbd::new(&lab, NbdKind::NbdServer).export("root", &workshop::debian("trixie")?);
    let _nbd = nbd.start()?;
    let mut machine = usual_vm(&lab, Kernel::V6_12, "")?.memory_mib(1024).boot()?;
    let keeper = {
        let node = machine.node()?;
        let keeper = keeper(&node)?;
        node.output(&["systemctl", "daemon-reexec"])?;
        is_as_it_was(&node, &keeper)?;
        node.begin(&["systemctl", "soft-reboot"])?;
        keeper
    };
    {
        let node = machine.node()?;
        let count = node.output(&["systemctl", "show", "--value", "-p", "SoftRebootsCount"])?;
        ensure!(count.trim() == "1", "{count}");
        is_as_it_was(&node, &keeper)?;
        node.begin(&["systemctl", "poweroff"])?;
    }
    let_go(&machine, &POWEROFF, true)?;
    machine.ended_by("Power down", Duration::from_secs(60))
}

fn keeper(node: &Node<'_>) -> Result<String> {
    // Of the processes that the shell has listed, some have ended since.
    let find = "grep -ls '^@landfall' /proc/[0-9]*/cmdline || :";
    let shown = node.output(&["sh", "-c", find])?;
    ensure!(shown.lines().count() == 1, "{shown}");
    Ok(shown.trim().to_owned())
}

fn is_as_it_was(node: &Node<'_>, keeper: &str) -> Result<()> {
    ensure!(self::keeper(node)? == keeper, "another keeper");
    is_placed(node)?;
    status(node, "a root that is well", |status| status["root"]["state"] == "streamed")?;
    node.drop_caches()?;
    // Not below the layer for changes, which a soft reboot may unmount.
    let read = "find /usr/sbin -type f -exec cat {} + > /dev/null";
    node.output(&["sh", "-c", read]).map(drop)
}
