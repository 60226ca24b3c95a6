//! `cargo xtask test`: everything, from the fast to the slow.

use std::env;
use std::process::Command;
use std::thread::{self, ScopedJoinHandle};
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

/// Those that start the roots of one network software each.
const NETWORKS: &[&str] = &["handover::"];

/// Those whose machines mostly wait: for a lease to run out, for a server that is away, for a slow
/// copy, for a deadline, for a system that ends without its root. One of them at a time takes next to nothing from the others.
const WAITING: &[&str] = &["ends::", "failover::", "kept_network::", "last_resort::", "lazy::"];

/// How names of tests begin, or what is in them, that repeat on Debian 12 what others do on 13. Its
/// kernel and its systemd are in many others.
const REPEATED: &[&str] = &[
    "dracut::bookworm_",
    "hosts::bookworm_",
    "networkd_of_bookworm_",
    "network_manager_of_bookworm_",
    "netplan_of_bookworm_",
    "ifupdown2_of_bookworm_",
    "a_root_of_bookworm_",
];

/// The word in the names of the hosts that the other ones need.
const NEWEST: &str = "trixie";

/// In seconds, of which the tests against real servers take some three hundred. One that waits for a
/// server that has died waits for ever, as the agent would, and is named by the last line it leaves.
const TOO_LONG: &str = "1500";

/// Modules of this program with tests that need programs of both architectures.
const PACKAGES: &[&str] = &["deb::", "dist::", "notices::"];

/// Which tests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    All,
    /// All but the [repeated](REPEATED).
    Quick,
    /// With this word in their name.
    Named(&'a str),
}

impl Which<'_> {
    fn word(&self) -> Option<&str> {
        match self {
            Self::Named(word) => Some(word),
            Self::All | Self::Quick => None,
        }
    }
}

pub fn run(which: Which<'_>) -> Result<()> {
    let word = which.word();
    let started = Instant::now();
    needs::tests()?;
    workshop::tidy()?;
    say::step("unit and plan tests", || {
        agent::cargo("test", &[vec!["--workspace"], filter(word)].concat())
    })?;
    packages::prepare()?;
    let accel = say::step("asking whether KVM works here", || Ok(Accel::best()))?;
    // What mostly waits goes on beside what mostly computes.
    let size = thread::scope(|scope| -> Result<u64> {
        let real = "unit tests against real servers and the real kernel";
        let real = scope.spawn(move || say::step(real, || real_tests(word)));
        let size = prepare_usual(word)?;
        let waiting = word.is_none().then(|| {
            let waiting = "boot tests that mostly wait";
            scope.spawn(move || say::step(waiting, || waiting_tests(accel)))
        });
        let rest =
            prepare_rest(which).and_then(|()| joined(real)).and_then(|()| rest(which, accel));
        if let (Err(error), Some(_)) = (&rest, &waiting) {
            eprintln!("xtask: {error:#}\nxtask: there are boot tests under way, which end first");
        }
        waiting.map_or(Ok(()), joined)?;
        rest.map(|()| size)
    })?;
    let seconds = started.elapsed().as_secs_f32();
    let all = if which == Which::Quick { "all but what repeats on Debian 12" } else { "all" };
    eprintln!("xtask: {all} passed in {seconds:.0} s; the agent has {size} bytes");
    Ok(())
}

fn rest(which: Which<'_>, accel: Accel) -> Result<()> {
    let word = which.word();
    if word.is_none() {
        fuzz::look(SECONDS_OF_FUZZING)?;
    }
    if has_tests(word, PACKAGES)? || has_tests(word, HOSTS)? {
        say::step("tests of packages and of the release", || package_tests(word))?;
    }
    say::step(&format!("boot tests, on {}", accel.name()), || boot_tests(which, accel))
}

fn joined(thread: ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Makes everything that tests with this word need, as far as it is not there; the agent's size in
/// bytes.
pub fn prepare(which: Which<'_>) -> Result<u64> {
    let size = prepare_usual(which.word())?;
    prepare_rest(which)?;
    Ok(size)
}

/// For most machines, and all of those that wait.
fn prepare_usual(word: Option<&str>) -> Result<u64> {
    needs::tests()?;
    let size = agent::build()?;
    agent::build_probe()?;
    for kernel in Kernel::AMD64 {
        kernels::prepare(kernel)?;
        kernels::prepare_stub(kernel)?;
    }
    debian::prepare()?;
    // The rest costs minutes, and most words are about none of it.
    if has_tests(word, NETWORKS)? {
        debian::prepare_networks()?;
    }
    Ok(size)
}

fn prepare_rest(which: Which<'_>) -> Result<()> {
    let word = which.word();
    if has_tests(word, ARM64)? {
        agent::build_for(Arch::Arm64)?;
        agent::build_probe_for(Arch::Arm64)?;
        kernels::prepare_busybox(Arch::Arm64)?;
        kernels::prepare(Kernel::Arm64)?;
    }
    if has_tests(word, HOSTS)? {
        hosts::prepare((which == Which::Quick).then_some(NEWEST))?;
    }
    if has_tests(word, PACKAGES)? {
        for arch in [Arch::Amd64, Arch::Arm64] {
            agent::build_for(arch)?;
            agent::build_image_builder_for(arch)?;
        }
    }
    packages::prepare()
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
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=10", TOO_LONG])
        .arg(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(workshop::workspace())
        .args(["test", "--locked", "-p", "landfall", "--lib", "--test", "desk"])
        .args(filter(word))
        .args(["--", "--ignored", "--test-threads", "1"])
        .env(runner_variable()?, namespace::as_wired_cargo_runner()?)
        .env("PATH", needs::extend_path());
    say::run_quietly(&mut command).map(drop)
}

/// Each machine keeps one core busy, so there are as many at a time as cores. Without a word but those
/// that [wait](WAITING).
fn boot_tests(which: Which<'_>, accel: Accel) -> Result<()> {
    let cores = thread::available_parallelism()?.to_string();
    let skipped = match which {
        Which::Named(word) => return boot(&[word, "--", "--test-threads", &cores], accel),
        Which::All => [WAITING, &[]],
        Which::Quick => [WAITING, REPEATED],
    };
    let but = skipped.into_iter().flatten().flat_map(|name| ["--skip", *name]);
    boot(&["--", "--test-threads", &cores].into_iter().chain(but).collect::<Vec<_>>(), accel)
}

fn waiting_tests(accel: Accel) -> Result<()> {
    boot(&[&["--", "--test-threads", "1"], WAITING].concat(), accel)
}

/// Each test has a network of its own, all of a call together a pid namespace that ends with them.
fn boot(arguments: &[&str], accel: Accel) -> Result<()> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(workshop::workspace())
        .args(["test", "--quiet", "--locked", "-p", "landfall-tests", "--test", "boot"])
        .args(arguments)
        .arg("--ignored")
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A name that nobody has any more would leave nothing out, and take a fifth of the time again.
    #[test]
    fn what_is_left_out_is_there() {
        let folder = workshop::workspace().join("tests/boot");
        let files = ["dracut.rs", "hosts.rs", "handover.rs", "handover/ipv6.rs"];
        let texts = files.map(|file| std::fs::read_to_string(folder.join(file)).unwrap());
        for name in REPEATED {
            let begins = name.rsplit("::").next().unwrap();
            let is_there = |text: &String| {
                let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                words.into_iter().any(|word| word.starts_with(begins))
            };
            assert!(texts.iter().any(is_there), "{name}");
        }
    }
}
