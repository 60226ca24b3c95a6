//! Where the root comes from: servers, names, exports, and servers that are not there.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use landfall_tests::{Kernel, Lab, Nbd, NbdKind, ProbeRoot, SERVER, checksum};

use crate::{is_streamed, usual_dhcp, usual_root, usual_vm};

/// The whole of a streamed boot, as the running system sees it.
pub fn streams_from(test: &str, kind: NbdKind, kernel: Kernel) -> Result<()> {
    let lab = Lab::new(test)?;
    let tree = ProbeRoot::for_machine(&lab, kernel.arch())?.payload_mib(2)?;
    let digest = tree.digest()?;
    let image = tree.pack()?;
    let served = checksum::file(&image)?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = Nbd::new(&lab, kind).export("root", &image).start()?;

    let machine = usual_vm(&lab, kernel, "")?.boot()?;
    let node = machine.node()?;

    assert_eq!(node.hello.pid, 1);
    assert_eq!(node.mount("/")?.fstype, "overlay");
    assert_eq!(node.mount("/rofs")?.fstype, "squashfs");
    is_streamed(&node)?;
    assert_eq!(node.mount("/cow")?.fstype, "tmpfs");
    assert_eq!(node.tree("/rofs")?, digest);

    node.write("/etc/motd", "from the machine\n")?;
    assert_eq!(node.file("/etc/motd")?, "from the machine\n");
    assert_eq!(node.file("/rofs/etc/motd")?, "from the image\n");
    assert_eq!(checksum::file(&image)?, served, "the served image changed");
    Ok(())
}

/// The reference server, on the older kernel.
#[test]
#[ignore = "boots a virtual machine"]
fn a_root_streams_from_nbd_server() -> Result<()> {
    streams_from("streams-nbd-server", NbdKind::NbdServer, Kernel::V6_1)
}

#[test]
#[ignore = "boots a virtual machine"]
fn a_root_streams_from_qemu_nbd() -> Result<()> {
    streams_from("streams-qemu-nbd", NbdKind::QemuNbd, Kernel::V6_12)
}

#[test]
#[ignore = "boots a virtual machine"]
fn a_root_streams_from_nbdkit() -> Result<()> {
    streams_from("streams-nbdkit", NbdKind::Nbdkit, Kernel::V6_12)
}

/// The seed writes `next-server ltsp-1`, and people write names.
#[test]
#[ignore = "boots a virtual machine"]
fn a_server_may_be_given_by_name() -> Result<()> {
    let lab = Lab::new("server-by-name")?;
    let _dhcp = usual_dhcp(&lab)?.name("boothost.example", SERVER).start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let vm = usual_vm(&lab, Kernel::V6_12, "")?;
    let machine = vm.cmdline("root=nbd:boothost.example:root panic=5").boot()?;
    assert_eq!(machine.node()?.mount("/")?.fstype, "overlay");
    Ok(())
}

/// LTSP's exports are paths; the spelling of 2018 has an address, a colon and the path.
#[test]
#[ignore = "boots a virtual machine"]
fn an_export_may_contain_slashes() -> Result<()> {
    let lab = Lab::new("export-with-slash")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let image = ProbeRoot::new(&lab)?.pack()?;
    let _nbd = Nbd::new(&lab, NbdKind::NbdServer).export("/opt/ltsp/amd64", &image).start()?;

    let vm = usual_vm(&lab, Kernel::V6_12, "")?;
    let machine = vm.cmdline("nbdroot=10.77.0.1:/opt/ltsp/amd64 root=/dev/nbd0 panic=5").boot()?;
    assert_eq!(machine.node()?.mount("/rofs")?.fstype, "squashfs");
    Ok(())
}

/// A typing error must not cost a trip to the server to look up the right name.
#[test]
#[ignore = "boots a virtual machine"]
fn an_unknown_export_is_answered_with_those_there_are() -> Result<()> {
    let lab = Lab::new("unknown-export")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let image = ProbeRoot::new(&lab)?.pack()?;
    let _nbd = Nbd::new(&lab, NbdKind::NbdServer)
        .export("jammy", &image)
        .export("noble", &image)
        .start()?;

    let mut machine =
        usual_vm(&lab, Kernel::V6_12, "")?.cmdline("root=nbd:10.77.0.1:focal panic=5").boot()?;
    let words = ["for export \"focal\": refused: unknown export", "offers \"jammy\", \"noble\""];
    machine.failed_in("root", &words)?;
    machine.ended_by("Restarting system", Duration::from_secs(30))
}

/// After a power cut the clients are up a minute before their server.
#[test]
#[ignore = "boots a virtual machine"]
fn a_server_that_starts_later_is_waited_for() -> Result<()> {
    let lab = Lab::new("server-starts-later")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let mut nbd = usual_root(&lab)?;
    nbd.kill();

    let machine = usual_vm(&lab, Kernel::V6_12, "")?.boot()?;
    machine.line("root: waiting for 10.77.0.1:10809")?;
    // The wait itself is what is tested.
    thread::sleep(Duration::from_secs(30));
    nbd.start_again()?;
    machine.line("root: 10.77.0.1:10809 answers after")?;
    let node = machine.node()?;
    assert_eq!(node.mount("/")?.fstype, "overlay");
    machine.never_said("FAILED")
}

/// DHCP option 17 is how a site tells its roots to machines whose boot loader knows nothing.
#[test]
#[ignore = "boots a virtual machine"]
fn the_root_may_come_from_dhcp() -> Result<()> {
    let lab = Lab::new("root-from-dhcp")?;
    let _dhcp = usual_dhcp(&lab)?.option("dhcp-option=17,nbd:10.77.0.1:root").start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let machine = usual_vm(&lab, Kernel::V6_12, "")?.cmdline("root=dhcp panic=5").boot()?;
    assert_eq!(machine.node()?.mount("/rofs")?.fstype, "squashfs");
    Ok(())
}

/// Machines with little memory, and those with more changes than half of it.
#[test]
#[ignore = "boots a virtual machine"]
fn the_layer_for_changes_has_the_size_that_was_asked() -> Result<()> {
    let lab = Lab::new("overlay-size")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let machine = usual_vm(&lab, Kernel::V6_12, "landfall.overlay=64M")?.boot()?;
    let cow = machine.node()?.mount("/cow")?;
    assert_eq!(cow.fstype, "tmpfs");
    assert_eq!(cow.option("size"), Some("65536k"), "{cow:?}");
    Ok(())
}
