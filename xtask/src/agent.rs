//! Compiles what runs inside the machines: the agent as it ships, and the probe of the tests.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use landfall_tests::Arch;
use landfall_tests::workshop::{self, workspace};

use crate::{musl, say};

/// What a release binary may weigh: it is sent over the network at each boot of each machine. Of it,
/// check and plan are an eighth; they stay, so that an operator has what the node has. IPv6, bonds,
/// VLANs and what every network manager wants to be told are another tenth, and so is what keeps the
/// root: the keeper, the copy, dm-verity and the machine's end.
const BUDGET: u64 = 11 << 19;

/// Builds the release binary of the agent and puts it into the workshop; its size in bytes.
pub fn build() -> Result<u64> {
    build_for(Arch::Amd64)
}

pub fn build_for(arch: Arch) -> Result<u64> {
    let name = arch.debian();
    say::step(&format!("building the agent for {name} (release, static)"), || {
        let package = ["-p", "landfall", "--bin", "landfall"];
        cargo("build", &[&package[..], &["--release", "--target", arch.target()]].concat())
    })?;
    let size = keep("landfall", arch)?;
    ensure!(size <= BUDGET, "the agent for {name} has {size} bytes; its budget is {BUDGET}");
    let share = size * 100 / BUDGET;
    eprintln!("xtask: the agent for {name} has {size} bytes, {share} % of its budget");
    Ok(size)
}

/// Builds the image builder as packages have it, static too: one serves all releases of Debian.
pub fn build_image_builder() -> Result<()> {
    build_image_builder_for(Arch::Amd64)
}

pub fn build_image_builder_for(arch: Arch) -> Result<()> {
    let flags = musl::cflags(arch)?;
    let name = arch.debian();
    say::step(&format!("building landfall-initramfs for {name} (release, static)"), || {
        let package = ["-p", "landfall-initramfs", "--release", "--target", arch.target()];
        say::run(cargo_command("build", &package).env(flags.0, flags.1))
    })?;
    keep("landfall-initramfs", arch).map(drop)
}

/// Builds the probe and the reader, and puts them into the workshop.
pub fn build_probe() -> Result<()> {
    build_probe_for(Arch::Amd64)
}

pub fn build_probe_for(arch: Arch) -> Result<()> {
    say::step(&format!("building probe and reader for {}", arch.debian()), || {
        let package = ["-p", "landfall-tests", "--bin", "probe", "--bin", "reader"];
        let how = ["--no-default-features", "--release", "--target", arch.target()];
        cargo("build", &[&package[..], &how].concat())
    })?;
    keep("probe", arch)?;
    keep("reader", arch).map(drop)
}

/// Runs cargo on the workspace as pinned by its lock file.
pub fn cargo(verb: &str, arguments: &[&str]) -> Result<()> {
    say::run(&mut cargo_command(verb, arguments))
}

/// What cargo says about the workspace.
pub fn cargo_output(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let output = command.current_dir(workspace()).args(arguments).arg("--locked").output()?;
    let problem = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo {}: {problem}", arguments.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}

fn cargo_command(verb: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace()).args([verb, "--quiet", "--locked"]).args(arguments);
    if arguments.contains(&"--release") {
        command.env("RUSTFLAGS", paths_left_out());
    }
    command
}

/// The host's target, as rustc calls it.
pub fn host() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = say::run_quietly(Command::new(rustc).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

/// Without these the binary carries some hundred source paths of the host, and differs from a
/// build of the same sources elsewhere.
fn paths_left_out() -> String {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(&env::var_os("HOME").unwrap_or_default()).join(".cargo"));
    format!(
        "--remap-path-prefix={}=crates --remap-path-prefix={}=.",
        home.join("registry/src").display(),
        workspace().display()
    )
}

/// Where cargo leaves a release binary.
pub fn built(program: &str, arch: Arch) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = workspace().join(target.unwrap_or_else(|| "target".into()));
    target.join(arch.target()).join("release").join(program)
}

/// Copies a built program to the workshop. The copy of an unchanged program is left alone: what
/// is made of it is recognised by its time.
fn keep(program: &str, arch: Arch) -> Result<u64> {
    let built = built(program, arch);
    let bytes = fs::read(&built).with_context(|| built.display().to_string())?;
    let kept = workshop::dir().join(workshop::place_of_program(program, arch));
    if fs::read(&kept).ok().as_ref() != Some(&bytes) {
        fs::create_dir_all(kept.parent().context("a folder")?)?;
        fs::copy(&built, &kept)?;
    }
    Ok(bytes.len().try_into()?)
}
