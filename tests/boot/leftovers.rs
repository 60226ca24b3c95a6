//! What the boot leaves behind in the running system: the keeper of the root, and nothing else.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use landfall_tests::{Initramfs, Kernel, Lab, Node};

use crate::{ROOT, usual_dhcp, usual_root, usual_vm};

const BALLAST_MIB: usize = 96;

/// Memory on nodes is paid for, and a helper process in the boot is one more thing that breaks.
#[test]
#[ignore = "boots a virtual machine"]
fn no_process_but_the_keeper_ran_and_the_initramfs_is_gone() -> Result<()> {
    let lab = Lab::new("leftovers")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;
    let initramfs = Initramfs::new(Kernel::V6_12).ballast_mib(BALLAST_MIB).build()?;

    // The kernel writes down every exec from before the first one.
    let words = format!("{ROOT} trace_event=sched:sched_process_exec");
    let machine = lab.vm(Kernel::V6_12).initramfs(initramfs).cmdline(&words).boot()?;
    let node = machine.node()?;
    let state = node.state()?;

    let programs = state.processes.iter().filter(|process| !process.kernel_thread);
    let programs: Vec<_> = programs.map(|process| process.arguments.join(" ")).collect();
    assert_eq!(programs, ["/sbin/init", "@landfall keeper"]);
    assert_eq!(state.reaped_children, Default::default(), "PID 1 had children");
    assert_eq!(state.arguments, ["/sbin/init"]);
    assert!(
        state.environment.iter().all(|entry| !entry.starts_with("root=")),
        "{:?}",
        state.environment
    );
    let open: Vec<_> = state.open_files.iter().filter(|(number, _)| *number > 2).collect();
    assert!(open.is_empty(), "descriptors of the boot are still open: {open:?}");

    // An initramfs of 96 MiB and more was unpacked; what is in use now is the kernel and little
    // else. MemAvailable counts neither tmpfs nor ramfs as available.
    let memory = |name: &str| state.memory.get(name).copied().context("no such line in meminfo");
    let used_mib = (memory("MemTotal")? - memory("MemAvailable")?) >> 20;
    assert!(used_mib < BALLAST_MIB as u64, "{used_mib} MiB are in use: {:?}", state.memory);

    // The root and what the promises name, each once: nothing else is mounted.
    let mut targets: Vec<_> = state.mounts.iter().map(|mount| mount.target.as_str()).collect();
    targets.sort_unstable();
    let expected = ["/", "/cow", "/dev", "/proc", "/rofs", "/run", "/sys"];
    assert_eq!(targets, expected, "{:#?}", state.mounts);
    assert!(node.exists("/run/landfall/report.json")?);

    // Last, because asking runs programs.
    assert_eq!(executed(&node)?, ["/init", "/proc/self/exe", "/sbin/init"]);
    Ok(())
}

/// What somebody breaks on a node is mended by its switch.
#[test]
#[ignore = "boots a virtual machine"]
fn what_is_written_is_gone_after_a_reboot() -> Result<()> {
    let lab = Lab::new("leftovers-reboot")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;
    {
        let mut machine = usual_vm(&lab, Kernel::V6_12, "")?.boot()?;
        let node = machine.node()?;
        node.write("/etc/motd", "from the machine\n")?;
        node.write("/etc/left-behind", "by the machine\n")?;
        assert_eq!(node.file("/etc/motd")?, "from the machine\n");
        node.power_off()?;
        machine.gone(Duration::from_secs(60))?;
    }
    let machine = usual_vm(&lab, Kernel::V6_12, "")?.boot()?;
    let node = machine.node()?;
    assert_eq!(node.file("/etc/motd")?, "from the image\n");
    assert!(!node.exists("/etc/left-behind")?);
    Ok(())
}

/// Every program that any process has become, in order, up to the one that is asked here.
fn executed(node: &Node<'_>) -> Result<Vec<String>> {
    const MOUNT: &str = "/bin/busybox";
    node.output(&[MOUNT, "mount", "-t", "tracefs", "tracefs", "/sys/kernel/tracing"])?;
    let trace = node.file("/sys/kernel/tracing/trace")?;
    // `init-1 [000] ..... 2.719: sched_process_exec: filename=/init pid=1 old_pid=1`
    let mut programs: Vec<_> = trace
        .lines()
        .filter_map(|line| line.split_once("sched_process_exec: filename="))
        .filter_map(|(_, rest)| rest.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    // Proves that the trace goes on to the end, and that it sees children too.
    ensure!(programs.pop().as_deref() == Some(MOUNT), "the trace is cut:\n{trace}");
    Ok(programs)
}
