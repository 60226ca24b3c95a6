//! What must be on the host, by the Debian package that brings it: installed when that is allowed,
//! named in one line to copy when not.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::say;

/// A program, or a file by its absolute path, and the package it comes in. Names are the same in
/// Debian 12 and 13.
type Need = (&'static str, &'static str);

pub const BUILD: &[Need] = &[("cc", "gcc"), ("clang", "clang"), ("llvm-ar", "llvm")];

const FUZZ: &[Need] = &[("clang++", "clang")];

const MACHINES: &[Need] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("mmdebstrap", "mmdebstrap"),
    ("mksquashfs", "squashfs-tools"),
];

/// For fetching Debian's kernels and packages. Keyrings of before Debian 13 lack the keys of its
/// archive, and this file; an upgrade of the package within Debian 12 brings both.
const KERNELS: &[Need] =
    &[("/usr/share/keyrings/debian-archive-trixie-stable.gpg", "debian-archive-keyring")];

/// Both only wait for a machine to read them. Boot loaders and DHCP servers are a matter of
/// `packages.rs`.
const FIRMWARE: &[Need] = &[
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"),
    ("/usr/lib/ipxe/qemu/efi-virtio.rom", "ipxe-qemu"),
];

const DEMO: &[Need] = &[("dnsmasq", "dnsmasq-base"), ("nbd-server", "nbd-server")];

const TESTS: &[Need] = &[
    ("qemu-system-aarch64", "qemu-system-arm"),
    ("qemu-nbd", "qemu-utils"),
    ("nbdkit", "nbdkit"),
    ("nginx", "nginx-light"),
    ("nbdcopy", "libnbd-bin"),
    ("curl", "curl"),
    ("in.tftpd", "tftpd-hpa"),
    ("mkfs.erofs", "erofs-utils"),
    ("mke2fs", "e2fsprogs"),
    ("sfdisk", "fdisk"),
    ("mkswap", "util-linux"),
    ("veritysetup", "cryptsetup-bin"),
    ("nft", "nftables"),
    // Its package starts nothing unless there is a configuration.
    ("radvd", "radvd"),
    ("strace", "strace"),
    ("shellcheck", "shellcheck"),
    ("sbsign", "sbsigntool"),
    ("openssl", "openssl"),
    // Oracles for the manual page and for the shell's grammar.
    ("groff", "groff-base"),
    ("dash", "dash"),
    ("bash", "bash"),
];

const PACKAGES: &[Need] = &[
    ("dpkg-deb", "dpkg"),
    ("dpkg-gencontrol", "dpkg-dev"),
    ("dh", "debhelper"),
    ("lintian", "lintian"),
];

/// An ordinary user's namespace has more than one user only through this.
const ORDINARY_USER: &[Need] = &[("newuidmap", "uidmap")];

/// For compiling the agent and building images for Debian's kernels.
pub fn image() -> Result<()> {
    install(&missing(&[BUILD, KERNELS]))?;
    rust_targets(&["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"])
}

/// For Debian packages and tarballs.
pub fn packages() -> Result<()> {
    install(&missing(&[BUILD, KERNELS, PACKAGES]))?;
    rust_targets(&["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"])
}

/// For machines with the demo's servers.
pub fn demo() -> Result<()> {
    install(&missing(&[BUILD, KERNELS, MACHINES, DEMO, ordinary_user()]))?;
    rust_targets(&["x86_64-unknown-linux-musl"])
}

/// For the demo from power-on.
pub fn firmware() -> Result<()> {
    install(&missing(&[FIRMWARE]))
}

/// For the fuzzers: clang compiles libFuzzer too, and brings the C++ library along.
pub fn fuzz() -> Result<()> {
    install(&missing(&[BUILD, FUZZ]))
}

/// For everything that the tests do.
pub fn tests() -> Result<()> {
    let mut packages = missing(&[
        BUILD,
        FUZZ,
        KERNELS,
        MACHINES,
        FIRMWARE,
        DEMO,
        TESTS,
        PACKAGES,
        ordinary_user(),
    ]);
    if !is_static(Path::new("/bin/busybox")) {
        packages.push("busybox-static");
    }
    install(&packages)?;
    rust_targets(&["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"])
}

pub fn is_root() -> bool {
    // The owner of what belongs to this process; spares a crate for geteuid(2).
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn ordinary_user() -> &'static [Need] {
    if is_root() { &[] } else { ORDINARY_USER }
}

fn missing(needs: &[&[Need]]) -> Vec<&'static str> {
    let all = needs.iter().copied().flatten();
    all.filter(|(name, _)| find(name).is_none()).map(|(_, package)| *package).collect()
}

/// An ordinary user's PATH lacks the folders of half of the servers.
fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Lets programs of the system folders be found by those we start.
pub fn extend_path() -> std::ffi::OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}

/// A dynamic program names its loader.
fn is_static(program: &Path) -> bool {
    let loader = b"/ld-linux";
    fs::read(program).is_ok_and(|bytes| !bytes.windows(loader.len()).any(|text| text == loader))
}

fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !is_root() {
        bail!(
            "packages are missing; please type\n\n    \
             sudo apt-get install --no-install-recommends {list}\n"
        );
    }
    say::step(&format!("installing the packages {list}"), || {
        let apt = |arguments: &[&str]| {
            let mut command = Command::new("apt-get");
            command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq").args(arguments);
            say::run_quietly(&mut command)
        };
        apt(&["update"])?;
        apt(&[&["install", "--yes", "--no-install-recommends"], packages].concat())?;
        Ok(())
    })
}

fn rust_targets(targets: &[&str]) -> Result<()> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = say::run_quietly(Command::new(rustc).args(["--print", "sysroot"]))?;
    let installed = Path::new(sysroot.trim()).join("lib/rustlib");
    for target in targets {
        if !installed.join(target).is_dir() {
            say::step(&format!("rustup target add {target}"), || {
                say::run_quietly(Command::new("rustup").args(["target", "add", target])).context(
                    "without rustup, the standard library for this target must be installed by hand",
                )
            })?;
        }
    }
    Ok(())
}
