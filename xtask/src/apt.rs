//! Packages of any Debian release and architecture, whatever the host runs: with apt, but with
//! sources, lists and cache of our own. The host's proxy settings stay in force.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use landfall_tests::{Arch, workshop};

use crate::{mirror, say};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

pub struct Apt {
    home: PathBuf,
    options: Vec<String>,
}

impl Apt {
    /// With fresh lists of `suite`.
    pub fn of(suite: &str, arch: Arch) -> Result<Self> {
        let name = match arch {
            Arch::Amd64 => suite.to_owned(),
            Arch::Arm64 => format!("{suite}-arm64"),
        };
        let home = workshop::dir().join("apt").join(name);
        for folder in ["state/lists/partial", "cache/archives/partial", "empty.d"] {
            fs::create_dir_all(home.join(folder))?;
        }
        fs::write(home.join("status"), "")?;
        let sources = format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror::find()?);
        fs::write(home.join("sources.list"), sources)?;

        let path = |name: &str| home.join(name).display().to_string();
        let options = vec![
            format!("Dir::State={}", path("state")),
            format!("Dir::State::status={}", path("status")),
            format!("Dir::Cache={}", path("cache")),
            format!("Dir::Etc::SourceList={}", path("sources.list")),
            format!("Dir::Etc::SourceParts={}", path("empty.d")),
            "Dir::Etc::Preferences=/dev/null".to_owned(),
            format!("Dir::Etc::PreferencesParts={}", path("empty.d")),
            // Our folders need not be readable for apt's own user.
            "APT::Sandbox::User=root".to_owned(),
            format!("APT::Architecture={}", arch.debian()),
            format!("APT::Architectures={}", arch.debian()),
            "Acquire::Languages=none".to_owned(),
        ];
        let apt = Self { home, options };
        apt.run("apt-get", &["-q", "update"])?;
        Ok(apt)
    }

    /// The package behind one that only depends on it, as `linux-image-amd64` does.
    pub fn first_dependency(&self, package: &str) -> Result<String> {
        let depends = self.run("apt-cache", &["depends", package])?;
        let name = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
        let name = name.with_context(|| format!("{package} depends on nothing:\n{depends}"))?;
        Ok(name.to_owned())
    }

    /// Unpacks the package's files into a new folder `to`; installs nothing.
    pub fn unpack(&self, package: &str, to: &Path) -> Result<()> {
        self.run("apt-get", &["-q", "download", package])?;
        let file = fs::read_dir(&self.home)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"));
        let file = file.with_context(|| format!("apt downloaded no {package}"))?;
        let _ = fs::remove_dir_all(to);
        fs::create_dir_all(to)?;
        say::run_quietly(Command::new("dpkg-deb").arg("-x").arg(&file).arg(to))?;
        Ok(fs::remove_file(file)?)
    }

    /// Unpacks packages and everything that they depend on into a new folder `to`.
    pub fn unpack_with_dependencies(&self, packages: &[&str], to: &Path) -> Result<()> {
        let mut arguments = vec!["-q", "install", "--yes", "--download-only"];
        arguments.extend(["--no-install-recommends", "-o", "Debug::NoLocking=1"]);
        self.run("apt-get", &[&arguments[..], packages].concat())?;
        let _ = fs::remove_dir_all(to);
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(self.home.join("cache/archives"))? {
            let package = entry?.path();
            if package.extension().is_some_and(|extension| extension == "deb") {
                say::run_quietly(Command::new("dpkg-deb").arg("-x").arg(&package).arg(to))?;
                fs::remove_file(package)?;
            }
        }
        Ok(())
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        say::run_quietly(command.current_dir(&self.home).args(arguments))
    }
}
