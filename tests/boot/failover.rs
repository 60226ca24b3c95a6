//! What happens to the server of a streamed root in the course of its life, and that the machine
//! lives on.

use std::time::Duration;

use anyhow::{Result, ensure};
use landfall_tests::{Kernel, Lab, Nbd, NbdKind, ProbeRoot, Reader};

use crate::kept::{MIRROR, Room, TO_GIVE_UP, TO_NOTICE, failovers, through, wait};
use crate::{usual_dhcp, usual_vm};

/// The only server there is, and the way to it: a server that swaps, a switch that restarts, a cable
/// that somebody trips over; a crash; and a restart with what will be the image of tomorrow
/// (nbd#92, nbd#93, nbd#95, ltsp#928). With that a file system would read what it never wrote: the
/// machine waits for the right one and says why.
#[test]
#[ignore = "boots a virtual machine"]
fn the_only_server_may_hang_vanish_and_crash_and_another_image_is_refused() -> Result<()> {
    let room = Room::new("failover-alone", "networkd")?;
    let mut server = room.server(NbdKind::QemuNbd).start()?;
    let changed = room.changed_image()?;

    let machine = room.boot(Kernel::V6_1, "10.77.0.1", "")?;
    let reader = machine.reader(&room.image)?;
    machine.node()?;

    let pause = through(&reader, "stopped", TO_NOTICE, || {
        server.hang()?;
        wait(5);
        server.go_on()
    })?;
    ensure!(pause > 4.0, "the reader has not noticed");
    let pause = through(&reader, "cut off", TO_NOTICE, || {
        room.lab.cut_off(true)?;
        wait(10);
        room.lab.cut_off(false)
    })?;
    ensure!(pause > 9.0, "the reader has not noticed");
    let pause = through(&reader, "without carrier", TO_NOTICE, || {
        machine.cable(0, false)?;
        wait(30);
        machine.cable(0, true)
    })?;
    ensure!(pause > 29.0, "the reader has not noticed");
    let pause = through(&reader, "killed", TO_NOTICE, || {
        server.kill();
        wait(20);
        server.start_again()
    })?;
    ensure!(pause > 19.0, "the reader has not noticed");
    let image = room.image.clone();
    through(&reader, "another image", TO_NOTICE, || {
        server.kill();
        server.start_again_with(&changed)?;
        reader.status_until("refused", Duration::from_secs(60), |status| {
            status.pointer("/sources/0/state").is_some_and(|state| state == "another_image")
        })?;
        wait(5);
        server.kill();
        server.start_again_with(&image)
    })?;
    machine.line("it is not used, and looked at again")?;
    room.is_intact(&reader)
}

/// The reason for a second server: whatever happens to one, the other has the image, and machines
/// stand still for as long as it takes to notice.
#[test]
#[ignore = "boots a virtual machine"]
fn a_mirror_takes_over_from_a_server_that_is_killed_or_hangs() -> Result<()> {
    let room = Room::new("failover-mirror", "trixie")?;
    let mut two = [room.server(NbdKind::NbdServer).start()?, room.mirror(NbdKind::Nbdkit).start()?];
    for server in &two {
        server.count(&room.lab)?;
    }

    let machine = room.boot(Kernel::V6_12, &format!("10.77.0.1,{MIRROR}"), "")?;
    let reader = machine.reader(&room.image)?;
    machine.node()?;

    let (lost, heir) = reader.serving(&room.lab, &mut two)?;
    let before = heir.sent(&room.lab)?;
    through(&reader, "killed, with a mirror", TO_NOTICE, || {
        lost.kill();
        Ok(())
    })?;
    ensure!(heir.sent(&room.lab)? > before, "the mirror has sent nothing");
    let so_far = failovers(&reader)?;
    lost.start_again()?;
    goes_back(&reader)?;
    ensure!(failovers(&reader)? == so_far, "going back is no failover");

    let (lost, heir) = reader.serving(&room.lab, &mut two)?;
    let before = heir.sent(&room.lab)?;
    through(&reader, "stopped, with a mirror", TO_GIVE_UP, || lost.hang())?;
    ensure!(heir.sent(&room.lab)? > before, "the mirror has sent nothing");
    // What it says now, about a connection that is nobody's any more, changes nothing.
    lost.go_on()?;
    reader.reads_on()?;

    through(&reader, "both killed", TO_NOTICE, || {
        two.iter_mut().for_each(Nbd::kill);
        wait(10);
        two.iter_mut().try_for_each(Nbd::start_again)
    })?;
    let failovers = failovers(&reader)?;
    ensure!((3..9).contains(&failovers), "{failovers} failovers for three losses");
    room.is_intact(&reader)
}

/// Waits until the root is read from the server that this machine prefers, and nobody has noticed.
fn goes_back(reader: &Reader<'_>) -> Result<()> {
    let before = reader.report()?.at;
    reader.status_until("back at the first server", Duration::from_secs(120), |status| {
        status.pointer("/sources/0/state").is_some_and(|state| state == "in_use")
    })?;
    reader.reads_on()?;
    let pause = reader.never_failed()?.longest_since(before);
    eprintln!("back at the first server: {pause:.2} s for the machine");
    ensure!(pause < TO_NOTICE, "a read took {pause} s");
    Ok(())
}

/// A bad disk below the server: the connection is fine, and not one read is. The mirror can read
/// what it cannot; to ask the same server again, and again, helps nobody.
#[test]
#[ignore = "boots a virtual machine"]
fn a_server_that_cannot_read_its_image_is_left_for_its_mirror() -> Result<()> {
    let room = Room::new("failover-unreadable", "trixie")?;
    let mut two = [
        room.server(NbdKind::Nbdkit).breakable().start()?,
        room.mirror(NbdKind::Nbdkit).breakable().start()?,
    ];
    for server in &two {
        server.count(&room.lab)?;
    }

    let machine = room.boot(Kernel::V6_12, &format!("10.77.0.1,{MIRROR}"), "")?;
    let reader = machine.reader(&room.image)?;
    machine.node()?;
    let (broken, heir) = reader.serving(&room.lab, &mut two)?;
    let (before, so_far) = (heir.sent(&room.lab)?, failovers(&reader)?);
    through(&reader, "unreadable, with a mirror", TO_GIVE_UP, || broken.break_disk())?;
    ensure!(heir.sent(&room.lab)? > before, "the mirror has sent nothing");
    let settled = failovers(&reader)?;
    ensure!(settled - so_far < 4, "{} failovers for one disk", settled - so_far);
    // It answers handshakes all the time, and quickly.
    wait(20);
    reader.reads_on()?;
    ensure!(failovers(&reader)? == settled, "the root has gone back to it");
    room.is_intact(&reader)?;

    // Both: nobody can read it. The machine waits, and not for a fraction of a second each time.
    let so_far = failovers(&reader)?;
    through(&reader, "both unreadable", 60.0, || {
        heir.break_disk()?;
        wait(20);
        broken.mend_disk()?;
        heir.mend_disk()
    })?;
    let tries = failovers(&reader)? - so_far;
    ensure!(tries < 20, "{tries} failovers in 20 s");
    room.is_intact(&reader)
}

/// The other servers of a slow server's nodes are as busy, or there is none: leaving it means that
/// it does everything twice.
#[test]
#[ignore = "boots a virtual machine"]
fn a_server_that_is_slow_is_not_left_for_itself() -> Result<()> {
    let room = Room::new("failover-slow", "trixie")?;
    let mut server = room.server(NbdKind::Nbdkit).start()?;

    let machine = room.boot(Kernel::V6_12, "10.77.0.1", "landfall.lost=reboot:15")?;
    let reader = machine.reader(&room.image)?;
    machine.node()?;
    server.kill();
    server.start_again_slower_by(Some(Duration::from_millis(1500)))?;
    reader.reads_on()?;
    let before = (reader.report()?, failovers(&reader)?);
    wait(30);
    let report = reader.never_failed()?;
    ensure!(report.device.reads > before.0.device.reads + 5, "it is hardly read: {report:?}");
    let more = failovers(&reader)? - before.1;
    ensure!(more == 0, "{more} failovers from a server that answers, to itself");
    let said = machine.console().iter().filter(|line| line.contains("landfall: root: ")).count();
    ensure!(said < 10, "{said} lines about a root that is read all the time");
    server.kill();
    server.start_again_slower_by(None)?;
    reader.reads_on()?;
    room.is_intact(&reader)
}

/// Storage that hangs behind servers that are well: each shakes hands, has the first pages in memory,
/// and answers nothing else. No new connection to them is a cure, and the promise counts from the
/// last read that was answered.
#[test]
#[ignore = "boots a virtual machine"]
fn a_disk_that_hangs_behind_a_server_that_is_well_is_a_lost_root() -> Result<()> {
    let room = Room::new("failover-hung-disk", "trixie")?;
    let server = room.server(NbdKind::Nbdkit).with_a_disk_that_can_hang().start()?;

    let mut machine = room.boot(Kernel::V6_12, "10.77.0.1", "landfall.lost=reboot:75")?;
    let reader = machine.reader(&room.image)?;
    machine.node()?;
    reader.reads_on()?;
    let before = failovers(&reader)?;
    server.break_disk()?;
    wait(60);
    let tries = failovers(&reader)? - before;
    ensure!((1..5).contains(&tries), "{tries} connections in a minute");
    machine.line("; reboot, as landfall.lost= says")?;
    drop(reader);
    machine.ended_by("Restarting system", Duration::from_secs(60))
}

/// A kiosk that shows a frozen screen for a weekend is worse than one that starts again
/// (puavo-os#697): whoever asks for it gets a reboot, and not before the time that was asked.
#[test]
#[ignore = "boots a virtual machine"]
fn a_root_that_is_lost_for_good_ends_in_the_reboot_that_was_asked_for() -> Result<()> {
    let lab = Lab::new("failover-lost")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let image = ProbeRoot::new(&lab)?.payload_mib(2)?.pack()?;
    let mut server = Nbd::new(&lab, NbdKind::NbdServer).export("root", &image).start()?;

    let mut machine = usual_vm(&lab, Kernel::V6_12, "landfall.lost=reboot:15")?.boot()?;
    machine.node()?;
    server.kill();
    wait(5);
    // Lost for a while is not lost, nor is again and again, while nobody reads anything.
    server.start_again()?;
    for _ in 0..6 {
        wait(3);
        server.kill();
        server.start_again()?;
    }
    machine.never_said("reboot: Restarting system")?;
    server.kill();
    machine.ended_by("Restarting system", Duration::from_secs(60))
}
