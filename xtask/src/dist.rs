//! `cargo xtask dist`: a release for those who have no Debian, with programs for both
//! architectures. The same sources give the same bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use landfall_tests::Arch;
use landfall_tests::workshop;

use crate::deb::{self, PROGRAMS};
use crate::{agent, needs, notices, say};

/// Leaves `target/landfall/dist/landfall-VERSION.tar.xz`, and `SHA256SUMS` beside it.
pub fn run() -> Result<()> {
    needs::packages()?;
    for arch in [Arch::Amd64, Arch::Arm64] {
        agent::build_for(arch)?;
        agent::build_image_builder_for(arch)?;
    }
    let dist = workshop::dir().join("dist");
    let tarball = say::step("packing the release", || pack(&dist))?;
    println!("{:>9} {}", fs::metadata(&tarball)?.len(), tarball.display());
    Ok(())
}

/// Fills the folder `dist` with a release of what has been built; the tarball.
fn pack(dist: &Path) -> Result<PathBuf> {
    let _ = fs::remove_dir_all(dist);
    let name = format!("landfall-{}", env!("CARGO_PKG_VERSION"));
    let tree = dist.join(&name);
    for arch in [Arch::Amd64, Arch::Arm64] {
        // As `uname -m` has it.
        let machine = arch.target().split('-').next().context("a target")?;
        let folder = tree.join("bin").join(machine);
        fs::create_dir_all(&folder)?;
        for program in PROGRAMS {
            fs::copy(workshop::program(program, arch)?, folder.join(program))?;
        }
    }
    deb::copy_parts(&tree)?;
    fs::write(tree.join(notices::FILE), notices::text()?)?;
    // Packages are made from a checkout.
    fs::remove_dir_all(tree.join("hooks/debian"))?;

    let tarball = format!("{name}.tar.xz");
    let mut tar = Command::new("tar");
    tar.current_dir(dist)
        .args(["--create", "--file", &tarball, "--sort=name", "--format=ustar"])
        .args(["--owner=0", "--group=0", "--numeric-owner", "--mode=u=rwX,go=rX"])
        .arg(format!("--mtime=@{}", deb::last_commit()?))
        // The number of threads changes the bytes, and releases of xz differ in their default.
        .args(["--use-compress-program=xz -9 --threads=1", &name]);
    say::run_quietly(&mut tar)?;
    fs::remove_dir_all(&tree)?;
    let sums = say::run_quietly(Command::new("sha256sum").current_dir(dist).arg(&tarball))?;
    fs::write(dist.join("SHA256SUMS"), sums)?;
    Ok(dist.join(tarball))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_in(folder: &Path, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> String {
        say::run_quietly(Command::new(program).current_dir(folder).args(arguments)).unwrap()
    }

    #[test]
    #[ignore = "needs the release programs"]
    fn a_release_is_what_its_checksum_says_and_its_programs_run() {
        let folder = tempfile::tempdir().unwrap();
        let dist = folder.path().join("dist");
        let tarball = pack(&dist).unwrap();
        let first = fs::read(&tarball).unwrap();

        let names: Vec<_> = fs::read_dir(&dist).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        run_in(&dist, "sha256sum", &["--check", "--strict", "SHA256SUMS"]);
        let tarball = tarball.file_name().unwrap().to_str().unwrap();
        run_in(&dist, "tar", &["--extract", "--file", tarball]);
        let version = env!("CARGO_PKG_VERSION");
        let tree = dist.join(format!("landfall-{version}"));
        for (program, question) in [("landfall", "version"), ("landfall-initramfs", "--version")] {
            let said = run_in(&tree, tree.join("bin/x86_64").join(program), &[question]);
            assert_eq!(said, format!("{program} {version}\n"));
        }
        for (machine, arch) in [("x86_64", Arch::Amd64), ("aarch64", Arch::Arm64)] {
            for program in PROGRAMS {
                let packed = fs::read(tree.join("bin").join(machine).join(program)).unwrap();
                let tested = fs::read(workshop::program(program, arch).unwrap()).unwrap();
                assert!(packed == tested, "{machine}/{program} is not what the tests run");
            }
        }
        for path in
            ["LICENSE", "README.md", notices::FILE, "hooks/initramfs.conf", "man/landfall.1"]
        {
            assert!(tree.join(path).is_file(), "{path}");
        }
        // Whoever unpacks it reads on where a README says; code and tests are in the repository.
        for folder in ["", "initramfs", "initramfs/examples", "hooks/dracut", "hooks/mkosi"] {
            let folder = tree.join(folder);
            let text = fs::read_to_string(folder.join("README.md")).unwrap();
            let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            for link in links.filter(|link| {
                !["http", "#", "src/", "tests/"].iter().any(|other| link.starts_with(other))
            }) {
                assert!(folder.join(link).exists(), "{link} of {}", folder.display());
            }
        }

        let again = pack(&dist).unwrap();
        assert!(fs::read(again).unwrap() == first, "another run gave other bytes");
    }
}
