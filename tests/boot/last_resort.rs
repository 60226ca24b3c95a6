//! What ends a machine that nothing else ends: the emergency key, and then the hardware watchdog.
//!
//! A local disk that has stopped answering holds up the kernel's own restart, which has each driver
//! finish first.

use std::fs::File;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use landfall_tests::{Daemon, Initramfs, Kernel, Lab, Machine, Nbd, NbdKind, workshop};

use crate::exitrd::{LONGEST, stamp};
use crate::{ROOT, usual_dhcp};

const DISK: &str = "disk";
const DISK_PORT: u16 = 10810;

/// A Debian, with a disk of its own and a watchdog.
struct Room {
    lab: Lab,
    disk: Nbd,
    root: Nbd,
    _dhcp: Daemon,
}

impl Room {
    fn new(test: &str) -> Result<Self> {
        let lab = Lab::new(test)?;
        let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
        let file = lab.file("disk.img");
        File::create(&file)?.set_len(16 << 20)?;
        let disk = Nbd::new(&lab, NbdKind::NbdServer).port(DISK_PORT).writable(DISK, &file);
        let root = workshop::debian("trixie")?;
        let root = Nbd::new(&lab, NbdKind::NbdServer).export("root", &root).start()?;
        Ok(Self { disk: disk.start()?, root, lab, _dhcp })
    }

    fn boot(&self, words: &str) -> Result<Machine> {
        let kernel = Kernel::V6_12;
        let drivers = ["virtio_scsi", "sd_mod", "i6300esb"];
        let initramfs = Initramfs::new(kernel).modules(&drivers).build()?;
        let vm = self.lab.vm(kernel).initramfs(initramfs).cmdline(&format!("{ROOT} {words}"));
        let disk = format!("nbd://10.77.0.1:{DISK_PORT}/{DISK}");
        vm.memory_mib(1024).watchdog().disk_elsewhere(&disk).boot()
    }
}

/// Who restarts a thousand nodes does not visit the one whose disk is broken.
#[test]
#[ignore = "boots a virtual machine"]
fn a_disk_that_hangs_does_not_keep_a_machine_from_restarting() -> Result<()> {
    let room = Room::new("last-resort-sysrq")?;
    let mut machine = room.boot("")?;
    {
        let node = machine.node()?;
        ensure!(node.exists("/dev/sda")?, "no disk");
        room.disk.hang()?;
        node.begin(&["systemctl", "reboot"])?;
    }
    let first = machine.line("shutdown: reboot: letting go of the root")?;
    machine.line("the hardware watchdog restarts the machine in 180 s if nothing else does")?;
    machine.line("file systems unmounted")?;
    let said = machine.line("landfall: shutdown: reboot: still there after")?;
    ensure!(said.contains("; sysrq b"), "{said}");
    let last = machine.line("sysrq: Resetting")?;
    let took = stamp(&last)? - stamp(&first)?;
    ensure!(took < LONGEST, "{took:.2} s from {first:?} to {last:?}");
    // QEMU does not end before its disks are done, either.
    room.disk.go_on()?;
    machine.gone(Duration::from_secs(20))
}

/// `landfall.lost=reboot:` is a promise of more than a keeper and a kernel that are well.
#[test]
#[ignore = "boots a virtual machine"]
fn a_kernel_that_dies_on_its_way_down_is_restarted_by_the_watchdog() -> Result<()> {
    let mut room = Room::new("last-resort-watchdog")?;
    // A panic, and nothing after it.
    let mut machine = room.boot("landfall.lost=reboot:5 unknown_nmi_panic panic=0")?;
    machine.node()?;
    room.disk.hang()?;
    room.root.kill();
    machine.line("; reboot, as landfall.lost= says")?;
    machine.line("the hardware watchdog restarts the machine if nothing else does")?;
    machine.nmi()?;
    let died = machine.line("Kernel panic - not syncing")?;
    // It neither goes on nor restarts by itself.
    machine.line("end Kernel panic")?;
    room.disk.go_on()?;
    machine.gone(Duration::from_secs(120)).with_context(|| format!("after {died:?}"))?;
    machine.never_said("Resetting")?;
    machine.never_said("Restarting system")
}
