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
use landfall_tests::Arch;
use landfall_tests::workshop::{self, workspace};

use crate::{agent, needs, notices, say};

/// What a release is made of, beside the programs: README.md links to all of it.
pub const PARTS: &[&str] =
    &["LICENSE", "README.md", "hooks", "initramfs/README.md", "initramfs/examples", "man"];

/// What they have of the workspace's programs; all of them static.
pub const PROGRAMS: &[&str] = &["landfall", "landfall-initramfs"];

#[derive(clap::Args)]
pub struct Options {
    /// The program's package for arm64 as well.
    #[arg(long)]
    arm64: bool,
}

/// Leaves `target/landfall/debs/*.deb`.
pub fn run(options: &Options) -> Result<()> {
    needs::packages()?;
    let debs = workshop::dir().join("debs");
    agent::build()?;
    agent::build_image_builder()?;
    let mut packages = say::step("packing", || pack(&debs))?;
    if options.arm64 {
        agent::build_for(Arch::Arm64)?;
        agent::build_image_builder_for(Arch::Arm64)?;
        packages = say::step("packing for arm64", || add(&debs, Arch::Arm64))?;
    }
    say::step("asking lintian", || lintian(&packages))?;
    for package in &packages {
        println!("{:>9} {}", fs::metadata(package)?.len(), package.display());
    }
    Ok(())
}

/// Fills the folder `debs` with packages of what has been built for amd64, and with nothing else.
pub fn pack(debs: &Path) -> Result<Vec<PathBuf>> {
    let _ = fs::remove_dir_all(debs);
    add(debs, Arch::Amd64)
}

/// Gives all packages of the folder. Those for all architectures come with amd64's.
fn add(debs: &Path, arch: Arch) -> Result<Vec<PathBuf>> {
    // debhelper leaves its packages in the folder above the one that it works in.
    let tree = debs.join("tree");
    let _ = fs::remove_dir_all(&tree);
    lay_out(&tree, arch)?;
    let which = match arch {
        Arch::Amd64 => "binary",
        Arch::Arm64 => "binary-arch",
    };
    let mut command = Command::new("dpkg-architecture");
    command
        .current_dir(&tree)
        .args(["--force", "--host-arch", arch.debian(), "--command", "debian/rules"])
        .arg(which)
        .envs([("DEB_RULES_REQUIRES_ROOT", "no"), ("LC_ALL", "C.UTF-8")])
        // Otherwise the bytes depend on the number of cores.
        .env("DPKG_DEB_THREADS_MAX", "1")
        .env("SOURCE_DATE_EPOCH", last_commit()?.to_string());
    say::run_quietly(&mut command)?;
    fs::remove_dir_all(&tree)?;
    let mut packages = files_in(debs)?;
    packages.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    Ok(packages)
}

fn lay_out(tree: &Path, arch: Arch) -> Result<()> {
    let changelog = fs::read_to_string(workspace().join("hooks/debian/changelog"))?;
    let version = env!("CARGO_PKG_VERSION");
    ensure!(
        changelog.starts_with(&format!("landfall ({version}) ")),
        "the first entry of hooks/debian/changelog is not about {version}, which Cargo.toml has"
    );
    fs::create_dir_all(tree.join("bin"))?;
    for program in PROGRAMS {
        fs::copy(workshop::program(program, arch)?, tree.join("bin").join(program))?;
    }
    copy_parts(tree)?;
    fs::write(tree.join(notices::FILE), notices::text()?)?;
    fs::rename(tree.join("hooks/debian"), tree.join("debian"))?;
    // dpkg-deb keeps times that lie before the epoch, such as those of an old checkout.
    let mut find = Command::new("find");
    find.arg(tree).args(["-exec", "touch", "--no-dereference"]);
    find.arg(format!("--date=@{}", last_commit()?)).args(["{}", "+"]);
    say::run_quietly(&mut find)?;
    Ok(())
}

/// [`PARTS`], each below `tree` as it is in the workspace; permissions and links stay what they are.
pub fn copy_parts(tree: &Path) -> Result<()> {
    let mut command = Command::new("cp");
    command.current_dir(workspace()).args(["-a", "--no-preserve=ownership", "--parents"]);
    say::run_quietly(command.args(PARTS).arg(tree)).map(drop)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// dpkg-deb's question about a package, with what it asks for behind it.
    fn dpkg_deb(package: &Path, question: &[&str]) -> String {
        let mut command = Command::new("dpkg-deb");
        command.env("LC_ALL", "C").arg(question[0]).arg(package).args(&question[1..]);
        say::run_quietly(&mut command).unwrap()
    }

    /// Of packages that administrators install with `apt install ./…`.
    #[test]
    #[ignore = "needs the release programs"]
    fn packages_have_what_they_promise_and_lintian_finds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let packages = pack(folder.path()).unwrap();
        let names: Vec<_> =
            packages.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect();
        let version = env!("CARGO_PKG_VERSION");
        let expected = [
            format!("landfall-dracut_{version}_all.deb"),
            format!("landfall-initramfs-tools_{version}_all.deb"),
            format!("landfall_{version}_amd64.deb"),
        ];
        assert_eq!(names, expected);
        let [dracut, initramfs_tools, landfall] = packages.as_slice() else { unreachable!() };

        for (package, mode, file) in [
            (landfall, "-rwxr-xr-x", "usr/bin/landfall"),
            (landfall, "-rwxr-xr-x", "usr/bin/landfall-initramfs"),
            (landfall, "-rw-r--r--", "etc/landfall/initramfs.conf"),
            (landfall, "-rw-r--r--", "usr/share/doc/landfall/third-party.txt.gz"),
            (landfall, "-rw-r--r--", "usr/share/doc/landfall/README.md"),
            (landfall, "-rw-r--r--", "usr/share/doc/landfall/initramfs/README.md"),
            (landfall, "-rw-r--r--", "usr/share/doc/landfall/initramfs/examples/README.md"),
            (landfall, "-rw-r--r--", "usr/share/doc/landfall/initramfs/examples/dnsmasq.conf"),
            (landfall, "-rw-r--r--", "usr/share/man/man1/landfall.1.gz"),
            (landfall, "-rw-r--r--", "usr/share/man/man1/landfall-initramfs.1.gz"),
            (landfall, "-rw-r--r--", "usr/share/man/man5/landfall-lts.conf.5.gz"),
            (landfall, "-rw-r--r--", "usr/share/bash-completion/completions/landfall"),
            (landfall, "-rw-r--r--", "usr/share/bash-completion/completions/landfall-initramfs"),
            (landfall, "-rw-r--r--", "usr/share/zsh/vendor-completions/_landfall"),
            (landfall, "-rw-r--r--", "usr/share/fish/vendor_completions.d/landfall.fish"),
            // initramfs-tools passes over what cannot be run, without a word.
            (initramfs_tools, "-rwxr-xr-x", "usr/share/initramfs-tools/hooks/landfall"),
            (initramfs_tools, "-rwxr-xr-x", "usr/share/initramfs-tools/scripts/init-top/landfall"),
            (initramfs_tools, "-rw-r--r--", "usr/share/initramfs-tools/scripts/landfall"),
            (initramfs_tools, "-rw-r--r--", "usr/share/doc/landfall-initramfs-tools/README.md"),
            (dracut, "-rwxr-xr-x", "usr/lib/dracut/modules.d/99landfall/module-setup.sh"),
            (dracut, "-rw-r--r--", "usr/share/doc/landfall-dracut/README.md"),
            (dracut, "-rw-r--r--", "usr/lib/dracut/dracut.conf.d/landfall.conf"),
        ] {
            let content = dpkg_deb(package, &["--contents"]);
            let times = content.lines().map(|line| line.split_whitespace().nth(4));
            let times = times.collect::<std::collections::BTreeSet<_>>();
            assert_eq!(times.len(), 1, "times of this checkout are in {content}");
            let line = content.lines().find(|line| line.ends_with(&format!(" ./{file}")));
            let line = line.unwrap_or_else(|| panic!("no {file} in {content}"));
            assert!(line.starts_with(&format!("{mode} root/root ")), "{line}");
        }
        // What an administrator has written must survive an upgrade.
        assert_eq!(dpkg_deb(landfall, &["--info", "conffiles"]), "/etc/landfall/initramfs.conf\n");
        // Images must not stay behind what is installed.
        for package in [dracut, initramfs_tools] {
            let depends = dpkg_deb(package, &["--field"]);
            assert!(depends.contains(&format!("landfall (= {version})")), "{depends}");
            let triggers = dpkg_deb(package, &["--info", "triggers"]);
            assert!(triggers.contains("activate-noawait update-initramfs"), "{triggers}");
        }
        // Static: what is made on one release of Debian installs on the other.
        assert!(!dpkg_deb(landfall, &["--field"]).contains("Depends:"));
        let root = folder.path().join("root");
        let mut unpack = Command::new("dpkg-deb");
        say::run_quietly(unpack.arg("--extract").arg(landfall).arg(&root)).unwrap();
        for program in PROGRAMS {
            let packed = fs::read(root.join("usr/bin").join(program)).unwrap();
            let tested = fs::read(workshop::program(program, Arch::Amd64).unwrap()).unwrap();
            assert!(packed == tested, "{program} is not what the tests run");
        }
        lintian(&packages).unwrap();
    }

    #[test]
    #[ignore = "needs the release programs"]
    fn the_same_sources_give_the_same_packages() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let one = pack(first.path()).unwrap();
        let other = pack(second.path()).unwrap();
        assert_eq!(one.len(), other.len());
        for (one, other) in one.iter().zip(&other) {
            assert!(fs::read(one).unwrap() == fs::read(other).unwrap(), "{}", one.display());
        }
    }
}
