//! A copy to memory from several servers, and of an image that is mostly holes.

use std::fs::File;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use landfall_tests::{Format, Kernel, Lab, Nbd, NbdKind, ProbeRoot, checksum};

use crate::kept::MIRROR;
use crate::{usual_dhcp, usual_vm};

/// The third one, which is slow.
const SLOW: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);

/// All servers together are quicker than one, and the copy is as complete if one of them dies in the
/// middle and another is slow.
#[test]
#[ignore = "boots a virtual machine"]
fn of_several_servers_one_may_die_and_one_may_be_slow() -> Result<()> {
    let lab = Lab::new("copy-mirrors")?;
    lab.add_address(MIRROR)?;
    lab.add_address(SLOW)?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let tree = ProbeRoot::new(&lab)?.payload_mib(32)?;
    let digest = tree.digest()?;
    let image = tree.pack()?;
    let server = || Nbd::new(&lab, NbdKind::Nbdkit).export("root", &image).bits_per_second("8M");
    let mut dies = server().start()?;
    let mut lives = server().on(MIRROR).start()?;
    let mut slow = server().on(SLOW).slower_by(Duration::from_millis(500)).start()?;
    for server in [&dies, &lives, &slow] {
        server.count(&lab)?;
    }

    let words = format!(
        "landfall.ram=copy landfall.mirror=nbd://{MIRROR}/root landfall.mirror=nbd://{SLOW}/root"
    );
    let machine = usual_vm(&lab, Kernel::V6_12, &words)?.boot()?;
    machine.line("root: copying \"root\" from ")?;
    dies.kill();
    let node = machine.node()?;
    machine.line("copied to RAM")?;
    let sent = [dies.sent(&lab)?, lives.sent(&lab)?, slow.sent(&lab)?];
    eprintln!("sent by the one that died, the other, and the slow one: {sent:?}");
    ensure!(sent.iter().all(|sent| *sent > 256 << 10), "not all have served: {sent:?}");
    let total: u64 = sent.iter().sum();
    ensure!(total < 2 * image.metadata()?.len(), "served twice: {sent:?}");
    lives.kill();
    slow.kill();
    node.drop_caches()?;
    ensure!(node.tree("/rofs")? == digest, "not the files of the image");
    machine.never_said("FAILED")
}

/// An image that grows with its file system has more room in it than files: holes are neither sent
/// nor kept.
#[test]
#[ignore = "boots a virtual machine"]
fn holes_of_an_image_are_neither_sent_nor_kept() -> Result<()> {
    let lab = Lab::new("copy-sparse")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let tree = ProbeRoot::new(&lab)?.payload_mib(8)?;
    let digest = checksum::tree(&lab.file("root.tree/srv"))?;
    let image = tree.pack_as(Format::Ext4)?;
    // Behind the file system there is nothing.
    File::options().write(true).open(&image)?.set_len(200 << 20)?;
    let mut server = Nbd::new(&lab, NbdKind::Nbdkit).export("root", &image).start()?;
    server.count(&lab)?;

    let machine = usual_vm(&lab, Kernel::V6_12, "landfall.ram=copy")?.boot()?;
    let node = machine.node()?;
    machine.line("copied to RAM")?;
    let sent = server.sent(&lab)?;
    ensure!(sent < 60 << 20, "{sent} bytes were sent");
    server.kill();
    let memory = node.state()?.memory;
    let unevictable = memory.get("Unevictable").copied().unwrap_or_default();
    ensure!(unevictable < 60 << 20, "{unevictable} bytes of memory are kept");
    node.drop_caches()?;
    ensure!(node.tree("/rofs/srv")? == digest, "not the files of the image");
    Ok(())
}
