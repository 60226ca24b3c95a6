//! Debian's kernels, unpacked and never installed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use landfall_tests::{Arch, Kernel, workshop};

use crate::apt::Apt;
use crate::say;

/// The release whose standard kernel this is.
fn suite(kernel: Kernel) -> &'static str {
    match kernel {
        Kernel::V6_1 => "bookworm",
        Kernel::V6_12 | Kernel::Arm64 => "trixie",
    }
}

/// The unpacked package, fetched unless it is there: newer ones are looked for by removing it.
pub fn prepare(kernel: Kernel) -> Result<PathBuf> {
    let tree = workshop::dir().join("kernels").join(kernel.series());
    if tree.join("vmlinuz").exists() {
        return Ok(tree);
    }
    say::step(&format!("fetching Debian's kernel {}", kernel.series()), || {
        let apt = Apt::of(suite(kernel), kernel.arch())?;
        let standard = format!("linux-image-{}", kernel.arch().debian());
        let unpacked = tree.with_extension("unfinished");
        apt.unpack(&apt.first_dependency(&standard)?, &unpacked)?;
        arrange(&unpacked)?;
        let _ = fs::remove_dir_all(&tree);
        fs::rename(&unpacked, &tree)?;
        Ok(tree)
    })
}

/// What starts the kernel in a unified kernel image; its package would put a boot loader on the
/// host.
pub fn prepare_stub(kernel: Kernel) -> Result<()> {
    let folder = workshop::dir().join("stubs").join(kernel.series());
    if folder.exists() {
        return Ok(());
    }
    say::step(&format!("fetching systemd's EFI stub for kernel {}", kernel.series()), || {
        let unpacked = folder.with_extension("unfinished");
        Apt::of(suite(kernel), kernel.arch())?.unpack("systemd-boot-efi", &unpacked)?;
        fs::rename(unpacked.join("usr/lib/systemd/boot/efi"), &folder)?;
        Ok(fs::remove_dir_all(&unpacked)?)
    })
}

/// A shell for machines of an architecture that the host does not run.
pub fn prepare_busybox(arch: Arch) -> Result<()> {
    let busybox = workshop::dir().join(workshop::place_of_program("busybox", arch));
    if busybox.exists() {
        return Ok(());
    }
    say::step(&format!("fetching a static busybox for {}", arch.debian()), || {
        let unpacked = busybox.with_extension("unfinished");
        Apt::of("trixie", arch)?.unpack("busybox-static", &unpacked)?;
        fs::rename(unpacked.join("usr/bin/busybox"), &busybox)?;
        Ok(fs::remove_dir_all(&unpacked)?)
    })
}

/// Gives packages of both releases one shape: `vmlinuz`, and modules below `lib/modules`.
fn arrange(tree: &Path) -> Result<()> {
    let boot = tree.join("boot");
    let image = fs::read_dir(&boot)?
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .find(|name| name.to_string_lossy().starts_with("vmlinuz-"))
        .context("the package has no kernel")?;
    symlink(Path::new("boot").join(image), tree.join("vmlinuz"))?;
    // Since trixie packages use the merged /usr themselves.
    if !tree.join("lib").exists() {
        symlink("usr/lib", tree.join("lib"))?;
    }
    Ok(())
}
