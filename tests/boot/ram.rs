//! The root copied to memory: it must need nobody afterwards.

use std::fs::File;
use std::time::Duration;

use anyhow::Result;
use landfall_tests::{Dnsmasq, Format, Kernel, Lab, Nbd, NbdKind, Node, ProbeRoot, TreeDigest};

use crate::{usual_dhcp, usual_vm};

fn lets_go_of_nbd(node: &Node<'_>) -> Result<()> {
    assert_eq!(node.file("/sys/block/nbd0/size")?.trim(), "0", "nbd0 is still connected");
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

/// A new image that has outgrown the memory of the oldest machines must not stop them.
#[test]
#[ignore = "boots a virtual machine"]
fn an_image_that_does_not_fit_is_streamed_and_the_console_says_so() -> Result<()> {
    let lab = Lab::new("ram-too-small")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let image = ProbeRoot::new(&lab)?.pack_as(Format::Ext4)?;
    // A hole: the file system ends long before.
    File::options().write(true).open(&image)?.set_len(2 << 30)?;
    let _nbd = Nbd::new(&lab, NbdKind::Nbdkit).export("root", &image).start()?;

    let machine = usual_vm(&lab, Kernel::V6_12, "landfall.ram=copy")?.boot()?;
    let node = machine.node()?;
    assert!(node.mount("/rofs")?.source.starts_with("/dev/nbd0"));
    machine.line("root: warning: image of 2.0 GiB does not fit in RAM (")?;
    machine.line("it is streamed instead").map(drop)
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
