//! Boot loaders, servers of addresses, and what a switch is made of, of Debian's current release,
//! unpacked and never installed: the packages of the servers would start them at once, and that of
//! iPXE adds itself to the boot menu of the host.

use std::fs;

use anyhow::Result;
use landfall_tests::{Arch, workshop};

use crate::apt::Apt;
use crate::say;

const SUITE: &str = "trixie";

const PACKAGES: &[&str] = &[
    "grub-common",
    "grub-efi-amd64-bin",
    "grub-pc-bin",
    "iproute2",
    "ipxe",
    "isc-dhcp-server",
    "kea-dhcp4-server",
    "kea-dhcp6-server",
    "pxelinux",
    "radvd",
    "syslinux-common",
];

/// With the libraries that their programs need, down to the C library, so that the host's own
/// release does not matter. Fetched unless they are there.
pub fn prepare() -> Result<()> {
    let tree = workshop::dir().join("packages");
    let note = tree.join("list");
    let list = format!("{SUITE}\n{}\n", PACKAGES.join("\n"));
    if fs::read_to_string(&note).is_ok_and(|text| text == list) {
        return Ok(());
    }
    say::step("fetching boot loaders and servers of addresses", || {
        let unpacked = tree.with_extension("unfinished");
        Apt::of(SUITE, Arch::Amd64)?.unpack_with_dependencies(PACKAGES, &unpacked)?;
        // Nobody reads them here, and they are half of it.
        for folder in ["usr/share/doc", "usr/share/man", "usr/share/locale"] {
            let _ = fs::remove_dir_all(unpacked.join(folder));
        }
        fs::write(unpacked.join("list"), &list)?;
        let _ = fs::remove_dir_all(&tree);
        Ok(fs::rename(&unpacked, &tree)?)
    })
}
