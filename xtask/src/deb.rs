//! `cargo xtask deb`: Debian packages, and what lintian says about them.
//!
//! debhelper packs, because it knows Debian's rules, follows them from release to release, and is
//! installed in seconds; its input is `hooks/debian`. It gets a folder with all that is packed, and
//! compiles nothing. The same sources give the same bytes on the same release of Debian.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use landfall_tests::workshop::{self, workspace};

use crate::{agent, needs, say};

/// What the packages are made of, beside the programs.
const PARTS: &[&str] = &["LICENSE", "README.md", "hooks", "man"];

/// Packages of hooks, and where the hooks are.
const HOOKS: &[(&str, &str)] =
    &[("landfall-initramfs-tools", "hooks/initramfs-tools"), ("landfall-dracut", "hooks/dracut")];

/// Leaves `target/landfall/debs/*.deb`; their paths.
pub fn run() -> Result<Vec<PathBuf>> {
    needs::packages()?;
    agent::build()?;
    agent::build_image_builder()?;
    let debs = say::step("packing", || pack(&workshop::dir().join("debs")))?;
    say::step("lintian", || lintian(&debs))?;
    for deb in &debs {
        println!("{:>9} {}", fs::metadata(deb)?.len(), deb.display());
    }
    Ok(debs)
}

/// Fills the folder `debs` with packages of what has been built, and nothing else.
pub fn pack(debs: &Path) -> Result<Vec<PathBuf>> {
    let _ = fs::remove_dir_all(debs);
    // debhelper leaves its packages in the folder above the one that it works in.
    let tree = debs.join("tree");
    lay_out(&tree)?;
    let mut command = Command::new("debian/rules");
    command
        .current_dir(&tree)
        .arg("binary")
        .envs([("DEB_RULES_REQUIRES_ROOT", "no"), ("LC_ALL", "C.UTF-8")])
        .env("SOURCE_DATE_EPOCH", last_commit()?.to_string());
    let absent = HOOKS.iter().filter(|(_, folder)| !workspace().join(folder).is_dir());
    let left_out: Vec<_> = absent.map(|(package, _)| format!("-N{package}")).collect();
    command.env("DH_OPTIONS", left_out.join(" "));
    say::run_quietly(&mut command)?;
    fs::remove_dir_all(&tree)?;
    let mut packages = files_in(debs)?;
    packages.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    Ok(packages)
}

fn lay_out(tree: &Path) -> Result<()> {
    let changelog = fs::read_to_string(workspace().join("hooks/debian/changelog"))?;
    let version = env!("CARGO_PKG_VERSION");
    ensure!(
        changelog.starts_with(&format!("landfall ({version}) ")),
        "the first entry of hooks/debian/changelog is not about {version}, which Cargo.toml has"
    );
    fs::create_dir_all(tree.join("bin"))?;
    for program in ["landfall", "landfall-initramfs"] {
        fs::copy(workshop::dir().join("bin").join(program), tree.join("bin").join(program))?;
    }
    for part in PARTS {
        copy(&workspace().join(part), &tree.join(part))?;
    }
    fs::rename(tree.join("hooks/debian"), tree.join("debian"))?;
    Ok(())
}

/// A file, or a folder with all that is in it; permissions and links stay what they are.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("cp");
    say::run_quietly(command.args(["-a", "--no-preserve=ownership"]).arg(from).arg(to)).map(drop)
}

/// Whatever it remarks on without an override fails.
fn lintian(debs: &[PathBuf]) -> Result<()> {
    let mut command = Command::new("lintian");
    command.args(["--fail-on", "error,warning", "--tag-display-limit", "0"]).args(debs);
    if needs::is_root() {
        command.arg("--allow-root");
    }
    let said = say::run_quietly(&mut command)?;
    ensure!(said.trim().is_empty(), "{said}");
    Ok(())
}

/// Seconds since 1970, for everything that carries a time: `SOURCE_DATE_EPOCH` if it is set, and
/// else when the last commit was made.
pub fn last_commit() -> Result<u64> {
    if let Ok(given) = env::var("SOURCE_DATE_EPOCH") {
        return given.trim().parse().with_context(|| format!("SOURCE_DATE_EPOCH is {given:?}"));
    }
    let mut git = Command::new("git");
    git.current_dir(workspace()).args(["log", "-1", "--format=%ct"]);
    Ok(say::run_quietly(&mut git)?.trim().parse()?)
}

/// In the order of their names.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut files = entries.collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}
