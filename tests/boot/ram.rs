//! The root copied to memory: it must need nobody afterwards.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use landfall_tests::{
    Dnsmasq, Format, Kernel, Lab, Nbd, NbdKind, Node, ProbeRoot, TreeDigest, checksum,
};

use crate::{connected, is_streamed, usual_dhcp, usual_vm};

fn lets_go_of_nbd(node: &Node<'_>) -> Result<()> {
    let connected = connected(node)?;
    ensure!(connected.is_empty(), "{connected:?} are still connected");
    Ok(())
}

/// Kills the server, and wants to see every file of the image as it was all the same.
fn needs_nobody(node: &Node<'_>, server: &mut Nbd, digest: &TreeDigest) -> Result<()> {
    server.kill();
    node.drop_caches()?;
    assert_eq!(&node.tree("/rofs")?, digest);
    lets_go_of_nbd(node)
}

/// What a copy is for: the server may go away for good.
#[test]
#[ignore = "boots a virtual machine"]
fn a_copied_root_outlives_its_server() -> Result<()> {
    outlives_its_server("ram-copy", Kernel::V6_1)
}

pub fn outlives_its_server(test: &str, kernel: Kernel) -> Result<()> {
    let lab = Lab::new(test)?;
    let tree = ProbeRoot::for_machine(&lab, kernel.arch())?.payload_mib(24)?;
    let digest = tree.digest()?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let image = tree.pack()?;
    let mut nbd = Nbd::new(&lab, NbdKind::NbdServer).export("root", &image).start()?;

    let machine = usual_vm(&lab, kernel, "landfall.ram=copy")?.boot()?;
    let node = machine.node()?;
    machine.line("root: \"root\" from 10.77.0.1:10809 copied to RAM: ")?;
    needs_nobody(&node, &mut nbd, &digest)?;
    // Commands of the running system still know where they came from.
    let settings = node.file("/run/landfall/env")?;
    let is_server = |line: &str| line.trim_matches(['"', '\'']).starts_with("SERVER=");
    let server = settings.lines().find(|line| is_server(line));
    assert!(server.is_some_and(|line| line.contains("10.77.0.1")), "{settings}");
    Ok(())
}

/// LTSP reads its configuration too late for its own setting; here it works (LP #1680490).
#[test]
#[ignore = "boots a virtual machine"]
fn the_fetched_configuration_may_ask_for_the_copy() -> Result<()> {
    let lab = Lab::new("ram-copy-by-config")?;
    let conf = "[default]\nLTSP_NBD_TO_RAM = true\n";
    let tftp = lab.served("tftp", &[("ltsp/amd64/lts.conf", conf)])?;
    let _dhcp = Dnsmasq::new().tftp(&tftp).start(&lab)?;
    let tree = ProbeRoot::new(&lab)?.payload_mib(4)?;
    let digest = tree.digest()?;
    let mut nbd = Nbd::new(&lab, NbdKind::QemuNbd).export("root", &tree.pack()?).start()?;

    let machine = usual_vm(&lab, Kernel::V6_12, "")?.boot()?;
    let node = machine.node()?;
    needs_nobody(&node, &mut nbd, &digest)
}

/// A new image that has outgrown the memory of the oldest machines must not stop them. What is in
/// it behind its file system is data as far as a copy can know.
#[test]
#[ignore = "boots a virtual machine"]
fn an_image_that_does_not_fit_is_streamed_and_the_console_says_so() -> Result<()> {
    does_not_fit("ram-too-small", Kernel::V6_12, |image| {
        let mut image = File::options().write(true).open(image)?;
        image.seek(SeekFrom::End(0))?;
        let data = vec![0x5a; 1 << 20];
        (0..MEMORY_MIB).try_for_each(|_| Ok(image.write_all(&data)?))
    })
}

/// Where memory cannot have holes that stay holes when they are read, an image with holes is as
/// large as it says.
#[test]
#[ignore = "boots a virtual machine"]
fn holes_do_not_fit_where_reading_fills_them() -> Result<()> {
    does_not_fit("ram-too-small-holes", Kernel::V6_1, |image| {
        Ok(File::options().write(true).open(image)?.set_len(2 << 30)?)
    })
}

/// Of the machine that the image is too large for.
const MEMORY_MIB: u32 = 512;

fn does_not_fit(test: &str, kernel: Kernel, grow: impl Fn(&Path) -> Result<()>) -> Result<()> {
    let lab = Lab::new(test)?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let tree = ProbeRoot::new(&lab)?.payload_mib(4)?;
    let digest = checksum::tree(&lab.file("root.tree/srv"))?;
    let image = tree.pack_as(Format::Ext4)?;
    grow(&image)?;
    let _nbd = Nbd::new(&lab, NbdKind::Nbdkit).export("root", &image).start()?;

    let vm = usual_vm(&lab, kernel, "landfall.ram=copy")?.memory_mib(MEMORY_MIB);
    let machine = vm.boot()?;
    let node = machine.node()?;
    is_streamed(&node)?;
    machine.line("root: warning: image of ")?;
    machine.line(" does not fit in RAM (")?;
    machine.line("it is streamed instead")?;
    ensure!(node.tree("/rofs/srv")? == digest, "not the files of the image");
    Ok(())
}

/// A server that is restarted while machines copy costs them a pause, not the boot.
#[test]
#[ignore = "boots a virtual machine"]
fn a_copy_survives_its_server_being_killed_and_started_again() -> Result<()> {
    let lab = Lab::new("ram-copy-interrupted")?;
    let tree = ProbeRoot::new(&lab)?.payload_mib(24)?;
    let digest = tree.digest()?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let image = tree.pack()?;
    // Slow enough for a copy to be caught in the middle, whatever the number of connections.
    let mut nbd =
        Nbd::new(&lab, NbdKind::Nbdkit).export("root", &image).bits_per_second("8M").start()?;

    let machine = usual_vm(&lab, Kernel::V6_12, "landfall.ram=copy")?.boot()?;
    // Slower than two seconds, hence with rate and time left.
    let progress = machine.line("root: copying \"root\" from 10.77.0.1:10809 to RAM: ")?;
    for text in [" % of ", "/s, ", " left"] {
        assert!(progress.contains(text), "no {text:?} in {progress:?}");
    }
    nbd.kill();
    machine.line_within("waiting for 10.77.0.1:10809", Duration::from_secs(60))?;
    nbd.start_again()?;
    machine.line("root: 10.77.0.1:10809 answers again; ")?;
    let node = machine.node()?;
    machine.line("root: \"root\" from 10.77.0.1:10809 copied to RAM: ")?;
    nbd.kill();
    node.drop_caches()?;
    assert_eq!(node.tree("/rofs")?, digest);
    Ok(())
}
