//! `cargo xtask test`: everything, from the fast to the slow.

use std::env;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use landfall_tests::{Accel, Arch, Kernel, workshop};

use crate::{agent, debian, fuzz, hosts, kernels, namespace, needs, packages, say};

/// For each target; long enough for what a change of a grammar breaks at once.
const SECONDS_OF_FUZZING: u32 = 10;

/// Modules of `tests/boot` that start images of hosts.
const HOSTS: &[&str] = &["hosts::", "dracut::"];

/// Those that start machines of the other architecture.
const ARM64: &[&str] = &["aarch64::"];

/// Modules of this program with tests that need programs of both architectures.
const PACKAGES: &[&str] = &["deb::", "dist::", "notices::"];

pub fn run(word: Option<&str>) -> Result<()> {
    let started = Instant::now();
    needs::tests()?;
    workshop::tidy()?;
    say::step("unit and plan tests", || {
        agent::cargo("test", &[vec!["--workspace"], filter(word)].concat())
    })?;
    packages::prepare()?;
    say::step("unit tests against real servers and the real kernel", || real_tests(word))?;
    if word.is_none() {
        fuzz::look(SECONDS_OF_FUZZING)?;
    }
    let size = prepare(word)?;
    if has_tests(word, PACKAGES)? || has_tests(word, HOSTS)? {
        say::step("tests of packages and of the release", || package_tests(word))?;
    }
    let accel = say::step("asking whether KVM works here", || Ok(Accel::best()))?;
    let boots = Instant::now();
    say::step(&format!("boot tests, on {}", accel.name()), || boot_tests(word, accel))?;
    eprintln!(
        "xtask: all passed in {:.0} s, of which boot tests took {:.0} s; the agent has {size} bytes",
        started.elapsed().as_secs_f32(),
        boots.elapsed().as_secs_f32()
    );
    Ok(())
}

/// Makes everything that tests with this word need, as far as it is not there; the agent's size in
/// bytes.
pub fn prepare(word: Option<&str>) -> Result<u64> {
    needs::tests()?;
    let size = agent::build()?;
    agent::build_probe()?;
    for kernel in Kernel::AMD64 {
        kernels::prepare(kernel)?;
        kernels::prepare_stub(kernel)?;
    }
    debian::prepare()?;
    // The rest costs minutes, and most words are about none of it.
    if has_tests(word, ARM64)? {
        agent::build_for(Arch::Arm64)?;
        agent::build_probe_for(Arch::Arm64)?;
        kernels::prepare_busybox(Arch::Arm64)?;
        kernels::prepare(Kernel::Arm64)?;
    }
    if has_tests(word, HOSTS)? {
        hosts::prepare(None)?;
    }
    if has_tests(word, PACKAGES)? {
        for arch in [Arch::Amd64, Arch::Arm64] {
            agent::build_for(arch)?;
            agent::build_image_builder_for(arch)?;
        }
    }
    packages::prepare()?;
    Ok(size)
}

/// Whether these modules have a test with this word, among those that boot machines or look at
/// packages.
fn has_tests(word: Option<&str>, modules: &[&str]) -> Result<bool> {
    let Some(word) = word else { return Ok(true) };
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(workshop::workspace())
        .args(["test", "--quiet", "--locked", "-p", "landfall-tests", "-p", "xtask"])
        .args(["--test", "boot", "--bin", "xtask", word])
        .args(["--", "--ignored", "--list", "--format", "terse"]);
    let tests = say::run_quietly(&mut command)?;
    Ok(tests.lines().any(|test| modules.iter().any(|module| test.starts_with(module))))
}

/// Those of this program that need what has been prepared.
fn package_tests(word: Option<&str>) -> Result<()> {
    let arguments = ["-p", "xtask", "--bin", "xtask"];
    let ignored = ["--", "--ignored"];
    agent::cargo("test", &[&arguments[..], &filter(word), &ignored].concat())
}

/// Behind the package selection, this lets only matching tests run.
fn filter(word: Option<&str>) -> Vec<&str> {
    word.into_iter().collect()
}

/// Those marked `#[ignore = "needs …"]` in the library: one at a time, since they share ports.
fn real_tests(word: Option<&str>) -> Result<()> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(workshop::workspace())
        .args(["test", "--quiet", "--locked", "-p", "landfall", "--lib", "--test", "desk"])
        .args(filter(word))
        .args(["--", "--ignored", "--test-threads", "1"])
        .env(runner_variable()?, namespace::as_wired_cargo_runner()?)
        .env("PATH", needs::extend_path());
    say::run(&mut command)
}

/// Each machine keeps one core busy, so there are as many at a time as cores; each test has a
/// network of its own, all of them together a pid namespace that ends with them.
fn boot_tests(word: Option<&str>, accel: Accel) -> Result<()> {
    let cores = std::thread::available_parallelism()?.to_string();
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(workshop::workspace())
        .args(["test", "--quiet", "--locked", "-p", "landfall-tests", "--test", "boot"])
        .args(filter(word))
        .args(["--", "--ignored", "--test-threads", &cores])
        .env(runner_variable()?, namespace::as_cargo_runner()?)
        .env("LANDFALL_ACCEL", accel.name())
        .env("PATH", needs::extend_path())
        // A failed boot is explained by its console, not by where the test asked.
        .env("RUST_LIB_BACKTRACE", "0");
    say::run(&mut command)
}

/// `CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER`, for whatever the host is.
fn runner_variable() -> Result<String> {
    let host = agent::host()?.to_uppercase().replace('-', "_");
    Ok(format!("CARGO_TARGET_{host}_RUNNER"))
}
