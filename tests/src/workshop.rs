//! Where prepared things lie: `target/landfall` of the workspace, filled by `cargo xtask`.
//!
//! ```text
//! bin/         landfall and probe, static; arm64/ has them for that architecture, and a busybox
//! kernels/     6.1/, 6.12/ and 6.12-arm64/: unpacked Debian kernel packages, each with a link
//!              `vmlinuz`
//! stubs/       systemd's EFI stubs of the same releases, in folders of the same names
//! roots/       Debian root images
//! packages/    boot loaders, servers of addresses and iproute2 of Debian, unpacked together with
//!              their libraries
//! initramfs/   images built for the tests, named by what went into them
//! labs/        one folder for each test: console and server logs, its root images
//! ```

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::kernel::Arch;

pub fn dir() -> PathBuf {
    workspace().join("target/landfall")
}

/// The folder of the workspace. As cargo says at run time: a compiled library may be shared by
/// several checkouts.
pub fn workspace() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    package.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()).with_file_name("")
}

/// The static agent: the very bytes that ship.
pub fn agent() -> Result<PathBuf> {
    program("landfall", Arch::Amd64)
}

pub fn probe() -> Result<PathBuf> {
    program("probe", Arch::Amd64)
}

/// A static program for the machines.
pub fn program(name: &str, arch: Arch) -> Result<PathBuf> {
    let path = place_of_program(name, arch);
    prepared(&path.to_string_lossy())
}

/// Where it is kept, below [`dir`].
pub fn place_of_program(name: &str, arch: Arch) -> PathBuf {
    match arch {
        Arch::Amd64 => Path::new("bin").join(name),
        Arch::Arm64 => Path::new("bin/arm64").join(name),
    }
}

/// A Debian root by the name of its recipe: `networkd`, `ifupdown`.
pub fn debian(name: &str) -> Result<PathBuf> {
    prepared(&format!("roots/{name}.squashfs"))
}

/// A file of the boot loaders' and servers' packages, by its path without the first slash.
pub fn packaged(path: &str) -> Result<PathBuf> {
    prepared(&format!("packages/{path}"))
}

/// A program of those packages, with its own libraries and nothing of the host.
pub fn packaged_program(path: &str) -> Result<Command> {
    let mut command = Command::new(packaged("usr/lib64/ld-linux-x86-64.so.2")?);
    command.arg("--library-path").arg(packaged("usr/lib/x86_64-linux-gnu")?).arg(packaged(path)?);
    Ok(command)
}

pub(crate) fn prepared(name: &str) -> Result<PathBuf> {
    let path = dir().join(name);
    ensure!(path.exists(), "{} has not been prepared: run `cargo xtask test` once", path.display());
    Ok(path)
}

/// The file `folder/NAME-HASH.EXTENSION` of the workshop, made by `make` unless a file made from
/// the same `inputs` is there. Safe against other tests and processes that want the same file;
/// nothing half made is ever left under the name.
pub fn once(
    folder: &str,
    name: &str,
    inputs: &impl Hash,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, "bin"));
    let mut hasher = DefaultHasher::new();
    inputs.hash(&mut hasher);
    let folder = dir().join(folder);
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{stem}-{:016x}.{extension}", hasher.finish()));

    let lock = File::create(path.with_extension("lock"))?;
    flock(&lock, FlockOperation::LockExclusive).context("waiting for another maker")?;
    if path.exists() {
        // Recently used, for [`tidy`].
        File::open(&path)?.set_modified(SystemTime::now())?;
    } else {
        let unfinished = path.with_extension("unfinished");
        make(&unfinished).with_context(|| format!("making {}", path.display()))?;
        fs::rename(&unfinished, &path)?;
    }
    Ok(path)
}

/// Removes what no run has asked for in a week: each new agent leaves a set of images behind.
pub fn tidy() -> Result<()> {
    for folder in ["initramfs", "roots"] {
        for entry in fs::read_dir(dir().join(folder)).into_iter().flatten().flatten() {
            let path = entry.path();
            let unused = fs::symlink_metadata(&path)?.modified()?.elapsed().unwrap_or_default();
            if unused > Duration::from_secs(7 * 24 * 3600) {
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(())
}

/// The contents of all files in these folders of the workspace.
pub fn sources(folders: &[&str]) -> Result<impl Hash> {
    let mut files = Vec::new();
    for folder in folders {
        let folder = workspace().join(folder);
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_file() {
                files.push((path.clone(), fs::read(path)?));
            }
        }
    }
    files.sort();
    Ok(files)
}

#[derive(Hash)]
pub struct Fingerprint(PathBuf, u64, i64, i64);

/// Stands for a file's contents where reading them all would cost more than it tells.
pub fn fingerprint(path: &Path) -> Result<Fingerprint> {
    let meta = fs::metadata(path).with_context(|| path.display().to_string())?;
    Ok(Fingerprint(path.to_path_buf(), meta.len(), meta.mtime(), meta.mtime_nsec()))
}
