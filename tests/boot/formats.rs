//! Every format that a root image comes in is recognised from its first bytes.

use anyhow::Result;
use landfall_tests::{Format, Kernel, Lab, Nbd, NbdKind, ProbeRoot};

use crate::{usual_dhcp, usual_vm};

fn boots_from(test: &str, format: Format, fstype: &str, kernel: Kernel) -> Result<()> {
    let lab = Lab::new(test)?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let image = ProbeRoot::new(&lab)?.pack_as(format)?;
    let _nbd = Nbd::new(&lab, NbdKind::QemuNbd).export("root", &image).start()?;

    let machine = usual_vm(&lab, kernel, "")?.boot()?;
    let node = machine.node()?;
    assert_eq!(node.mount("/rofs")?.fstype, fstype);
    assert_eq!(node.mount("/")?.fstype, "overlay");
    assert_eq!(node.file("/etc/motd")?, "from the image\n");
    node.write("/etc/motd", "scribbled\n")
}

// A squashfs with zstd is what all other tests boot from.

#[test]
#[ignore = "boots a virtual machine"]
fn a_root_may_be_a_squashfs_with_xz() -> Result<()> {
    boots_from("format-squashfs-xz", Format::Squashfs("xz"), "squashfs", Kernel::V6_12)
}

#[test]
#[ignore = "boots a virtual machine"]
fn a_root_may_be_a_squashfs_with_gzip() -> Result<()> {
    boots_from("format-squashfs-gzip", Format::Squashfs("gzip"), "squashfs", Kernel::V6_12)
}

#[test]
#[ignore = "boots a virtual machine"]
fn a_root_may_be_an_erofs() -> Result<()> {
    boots_from("format-erofs", Format::Erofs, "erofs", Kernel::V6_1)
}

#[test]
#[ignore = "boots a virtual machine"]
fn a_root_may_be_an_ext4() -> Result<()> {
    boots_from("format-ext4", Format::Ext4, "ext4", Kernel::V6_12)
}

/// Images of virtual machines are disks.
#[test]
#[ignore = "boots a virtual machine"]
fn a_root_may_be_the_obvious_partition_of_a_disk() -> Result<()> {
    boots_from("format-gpt", Format::Gpt, "squashfs", Kernel::V6_12)
}
