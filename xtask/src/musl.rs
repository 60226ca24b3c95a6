//! The headers of the C library that Rust brings without: `landfall-initramfs` has C in it (zstd),
//! and the host's own headers describe another library, if they are for that architecture at all.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use landfall_tests::{Arch, workshop};

use crate::apt::Apt;
use crate::say;

/// For clang, in the variable that the cc crate reads for this architecture.
pub fn cflags(arch: Arch) -> Result<(String, OsString)> {
    let variable = format!("CFLAGS_{}", arch.target().replace('-', "_"));
    let mut flags = OsString::from("-nostdlibinc -isystem ");
    flags.push(package(arch)?.join("usr/include").join(arch.target().replace("-unknown", "")));
    Ok((variable, flags))
}

/// Whose it is, and its licence.
pub fn copyright(arch: Arch) -> Result<PathBuf> {
    Ok(package(arch)?.join("usr/share/doc/musl-dev/copyright"))
}

/// Debian's package for that architecture, fetched and unpacked unless it is there.
fn package(arch: Arch) -> Result<PathBuf> {
    let tree = workshop::dir().join("musl").join(arch.debian());
    if !tree.exists() {
        say::step(&format!("fetching headers of musl for {}", arch.debian()), || {
            let unpacked = tree.with_extension("unfinished");
            Apt::of("trixie", arch)?.unpack("musl-dev", &unpacked)?;
            Ok(fs::rename(unpacked, &tree)?)
        })?;
    }
    Ok(tree)
}
