//! A root that is copied to memory behind the running system: it starts as a streamed one does, and
//! ends as one that needs nobody.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use landfall_tests::{Kernel, Nbd, NbdKind, Node, Reader};

use crate::connected;
use crate::kept::{MIRROR, Room, TO_NOTICE, flipped, through, wait};

/// Slow enough for a copy to be caught in the middle.
const SLOWLY: &str = "landfall.ram=lazy landfall.ram.rate=512K";

/// Nothing of the image is with the server any more.
fn needs_nobody(room: &Room, reader: &Reader<'_>, node: &Node<'_>) -> Result<()> {
    let connected = connected(node)?;
    ensure!(connected.is_empty(), "{connected:?} are still connected");
    room.is_intact(reader)
}

/// What it is for: from the flip on the server may burn, and nothing that the running system does
/// with its memory may touch the copy.
#[test]
#[ignore = "boots a virtual machine"]
fn a_root_that_was_copied_behind_the_running_system_outlives_its_server() -> Result<()> {
    let room = Room::new("lazy-outlives", "networkd")?;
    let mut server = room.server(NbdKind::NbdServer).start()?;
    let size = room.image.metadata()?.len();

    let machine = room.boot(Kernel::V6_1, "10.77.0.1", "landfall.ram=lazy")?;
    let reader = machine.reader(&room.image)?;
    let node = machine.node()?;
    let early = reader.report()?;
    flipped(&reader)?;
    let report = reader.never_failed()?;
    eprintln!(
        "longest pause until the system was up: {:.2} s; until the flip: {:.2} s",
        early.longest_since(0.0),
        report.longest_since(early.at)
    );
    server.kill();
    needs_nobody(&room, &reader, &node)?;

    // The copy is there once, and nobody can have its memory: not for other files, not by swapping.
    reader.drop_caches()?;
    let memory = node.state()?.memory;
    let unevictable = memory.get("Unevictable").copied().unwrap_or_default();
    let copy = size + (48 << 20);
    ensure!(
        (size..copy).contains(&unevictable),
        "{unevictable} bytes cannot be swapped: {memory:#?}"
    );
    reader.run_out_of_memory()?;
    room.is_intact(&reader)
}

/// A copy of many minutes meets what happens to servers in as many minutes: a crash, a mirror, and
/// both away for a while.
#[test]
#[ignore = "boots a virtual machine"]
fn a_copy_behind_the_running_system_survives_its_servers() -> Result<()> {
    let room = Room::new("lazy-survives", "trixie")?;
    let mut two =
        [room.server(NbdKind::QemuNbd).start()?, room.mirror(NbdKind::NbdServer).start()?];
    for server in &two {
        server.count(&room.lab)?;
    }

    let servers = format!("10.77.0.1,{MIRROR}");
    let machine = room.boot(Kernel::V6_12, &servers, SLOWLY)?;
    let reader = machine.reader(&room.image)?;
    let node = machine.node()?;
    reader.copied_to(0.1)?;
    let (lost, heir) = reader.serving(&room.lab, &mut two)?;
    through(&reader, "killed in the middle, with a mirror", TO_NOTICE, || {
        lost.kill();
        Ok(())
    })?;
    let before = heir.sent(&room.lab)?;
    let share = reader.copied()?;
    ensure!(share < 0.9, "the copy is over too soon for this test");
    reader.copied_to(share + 0.1)?;
    ensure!(heir.sent(&room.lab)? > before, "the mirror has sent nothing");
    through(&reader, "both killed in the middle", TO_NOTICE, || {
        two.iter_mut().for_each(Nbd::kill);
        wait(10);
        two.iter_mut().try_for_each(Nbd::start_again)
    })?;
    flipped(&reader)?;
    two.iter_mut().for_each(Nbd::kill);
    needs_nobody(&room, &reader, &node)
}

/// The copy wants memory while somebody else wants all of it: the copy may come late or not at all,
/// and the root must not notice.
#[test]
#[ignore = "boots a virtual machine"]
fn a_copy_under_memory_pressure_costs_no_file() -> Result<()> {
    let room = Room::new("lazy-pressure", "trixie")?;
    let _server = room.server(NbdKind::Nbdkit).start()?;

    let machine = room.boot_with(Kernel::V6_12, "10.77.0.1", SLOWLY, 512)?;
    // Who is there long before the last of the services.
    let reader = machine.reader(&room.image)?;
    reader.copied_to(0.2)?;
    reader.squeeze(24, Duration::from_secs(20))?;
    machine.line("others need the memory; its memory is given back, and it begins again")?;
    reader.reads_on()?;
    reader.run_out_of_memory()?;
    reader.never_failed()?;
    reader.copied_to(1.0)?;
    room.is_intact(&reader)
}

/// What is below a verified root may change: its blocks are still compared, now with memory's, and
/// a server that goes in the middle is nothing to them.
#[test]
#[ignore = "boots a virtual machine"]
fn a_verified_root_is_copied_behind_the_running_system_and_stays_verified() -> Result<()> {
    let (room, verity) = Room::new("lazy-verified", "trixie")?.verified()?;
    let mut server = room.server(NbdKind::NbdServer).start()?;

    let words = format!("landfall.ram=lazy landfall.ram.rate=4M {verity}");
    let machine = room.boot(Kernel::V6_12, "10.77.0.1", &words)?;
    let reader = machine.reader(&room.image)?;
    let node = machine.node()?;
    let device = node.mount("/rofs")?.source;
    let number = device.strip_prefix("/dev/").context("a device")?;
    let name = node.file(&format!("/sys/block/{number}/dm/name"))?;
    ensure!(name.trim() == "landfall-verity", "{device} is {name}");
    through(&reader, "killed below a verified root", TO_NOTICE, || {
        server.kill();
        wait(5);
        server.start_again()
    })?;
    flipped(&reader)?;
    server.kill();
    needs_nobody(&room, &reader, &node)?;
    machine.never_said("device-mapper: verity: ")
}
