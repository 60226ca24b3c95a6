//! Debian's kernels of two releases, unpacked and never installed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use landfall_tests::{Kernel, workshop};

use crate::{mirror, say};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The release whose standard kernel this is.
fn suite(kernel: Kernel) -> &'static str {
    match kernel {
        Kernel::V6_1 => "bookworm",
        Kernel::V6_12 => "trixie",
    }
}

/// The unpacked package, fetched unless it is there: newer ones are looked for by removing it.
pub fn prepare(kernel: Kernel) -> Result<PathBuf> {
    let tree = workshop::dir().join("kernels").join(kernel.series());
    if tree.join("vmlinuz").exists() {
        return Ok(tree);
    }
    say::step(&format!("fetching Debian's kernel {}", kernel.series()), || {
        let package = download(suite(kernel))?;
        let unpacked = tree.with_extension("unfinished");
        let _ = fs::remove_dir_all(&unpacked);
        fs::create_dir_all(&unpacked)?;
        say::run_quietly(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&unpacked))?;
        arrange(&unpacked)?;
        let _ = fs::remove_dir_all(&tree);
        fs::rename(&unpacked, &tree)?;
        fs::remove_file(package)?;
        Ok(tree)
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

/// Downloads the package behind `linux-image-amd64` of a release.
fn download(suite: &str) -> Result<PathBuf> {
    let apt = apt(suite)?;
    let depends = apt("apt-cache", &["depends", "linux-image-amd64"])?;
    let name = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .with_context(|| format!("linux-image-amd64 of {suite} depends on nothing:\n{depends}"))?;
    apt("apt-get", &["-q", "download", name])?;
    let package = fs::read_dir(apt_home(suite))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    package.with_context(|| format!("apt downloaded no {name}"))
}

/// Where [`apt`] keeps its lists, and packages in `cache/archives`.
pub fn apt_home(suite: &str) -> PathBuf {
    workshop::dir().join("apt").join(suite)
}

/// A program of apt for packages of a release, whatever release the host runs: with sources, lists
/// (fresh ones) and cache of our own. The host's proxy settings stay in force.
pub fn apt(suite: &str) -> Result<impl Fn(&str, &[&str]) -> Result<String>> {
    let home = apt_home(suite);
    for folder in ["state/lists/partial", "cache/archives/partial", "empty.d"] {
        fs::create_dir_all(home.join(folder))?;
    }
    fs::write(home.join("status"), "")?;
    let sources = format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror::find()?);
    fs::write(home.join("sources.list"), sources)?;

    let path = |name: &str| home.join(name).display().to_string();
    let options = [
        format!("Dir::State={}", path("state")),
        format!("Dir::State::status={}", path("status")),
        format!("Dir::Cache={}", path("cache")),
        format!("Dir::Etc::SourceList={}", path("sources.list")),
        format!("Dir::Etc::SourceParts={}", path("empty.d")),
        "Dir::Etc::Preferences=/dev/null".to_owned(),
        format!("Dir::Etc::PreferencesParts={}", path("empty.d")),
        // Our folders need not be readable for apt's own user.
        "APT::Sandbox::User=root".to_owned(),
        "APT::Architecture=amd64".to_owned(),
        "Acquire::Languages=none".to_owned(),
    ];
    let apt = move |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        for option in &options {
            command.args(["-o", option]);
        }
        say::run_quietly(command.current_dir(&home).args(arguments))
    };
    apt("apt-get", &["-q", "update"])?;
    Ok(apt)
}
