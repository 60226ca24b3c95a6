//! `cargo xtask fuzz`: looks for texts that break a promise of the parsers.
//!
//! libFuzzer is linked in by its crate; the compiler of the project counts the branches, so neither
//! another toolchain nor another command is needed. There is no sanitizer: the code under test has
//! no `unsafe`, and its arithmetic is checked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use landfall_tests::workshop::{self, workspace};

use crate::{agent, needs, say};

/// As in the binaries of `tests/fuzz`.
const TARGETS: &[&str] = &["lts_conf", "import", "cmdline", "families", "check", "dhcp6", "ra"];

/// What counts the branches of everything that is compiled with it.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

#[derive(clap::Args)]
pub struct Options {
    /// One of lts_conf, import, cmdline, families, check, dhcp6, ra; all of them if none is named.
    target: Option<String>,
    /// For each target.
    #[arg(long, value_name = "N", default_value_t = 1800)]
    seconds: u32,
}

pub fn run(options: &Options) -> Result<()> {
    needs::fuzz()?;
    let targets = match &options.target {
        Some(name) => {
            ensure!(TARGETS.contains(&name.as_str()), "there is no {name}; there are {TARGETS:?}");
            vec![name.as_str()]
        }
        None => TARGETS.to_vec(),
    };
    let programs = say::step("building the fuzzers", build)?;
    let what = format!("looking for what breaks {}", targets.join(", "));
    say::step(&what, || run_all(&programs, &targets, options.seconds))
}

/// A look at each target for some seconds: what a fresh mistake does not survive.
pub fn look(seconds: u32) -> Result<()> {
    run(&Options { target: None, seconds })
}

/// Gives the folder of the programs.
fn build() -> Result<PathBuf> {
    let folder = workshop::dir().join("fuzz");
    let host = agent::host()?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(workspace().join("tests/fuzz"))
        .args(["build", "--quiet", "--release", "--locked"])
        // With a target, scripts that run while building are not instrumented.
        .args(["--target", &host, "--target-dir"])
        .arg(&folder)
        .env("RUSTFLAGS", COVERAGE)
        // libFuzzer is C++.
        .env("CXX", "clang++");
    say::run(&mut command)?;
    Ok(folder.join(host).join("release"))
}

/// As many at a time as there are cores.
fn run_all(programs: &Path, targets: &[&str], seconds: u32) -> Result<()> {
    let cores = thread::available_parallelism()?.get();
    for some in targets.chunks(cores) {
        let results = thread::scope(|scope| {
            let running: Vec<_> = some
                .iter()
                .map(|name| scope.spawn(move || run_one(programs, name, seconds)))
                .collect();
            running.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
        });
        for result in results {
            match result {
                Ok(result) => result?,
                Err(_) => bail!("a fuzzer's thread ended by itself"),
            }
        }
    }
    Ok(())
}

fn run_one(programs: &Path, name: &str, seconds: u32) -> Result<()> {
    let folder = workshop::dir().join("fuzz");
    // What is found goes to the first folder, and is where the next run begins.
    let found = folder.join("corpus").join(name);
    fs::create_dir_all(&found)?;
    let log = folder.join(format!("{name}.log"));
    let output = fs::File::create(&log)?;
    let status = Command::new(programs.join(name))
        .current_dir(&folder)
        .arg(format!("-max_total_time={seconds}"))
        .args(["-print_final_stats=1", "-timeout=10", "-rss_limit_mb=2048"])
        .arg(format!("-artifact_prefix={}/{name}-", folder.display()))
        .arg(&found)
        .arg(workspace().join("tests/fuzz/corpus").join(name))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(output)
        .status()
        .with_context(|| format!("starting the fuzzer {name}"))?;
    // Inputs are quoted in it, and not all of them are text.
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if !status.success() {
        let from = text.find("panicked at").or_else(|| text.find("ERROR: libFuzzer")).unwrap_or(0);
        let lines: Vec<_> = text[from..].lines().take(8).collect();
        let input = text.lines().find_map(|line| line.split_once("Test unit written to "));
        let input = input.map_or("its log", |(_, path)| path);
        bail!(
            "{name}: {status}\n{}\nthe input is {input}; mended, it belongs into \
             tests/fuzz/corpus/{name}",
            lines.join("\n")
        );
    }
    let count = text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let count = count.context("the fuzzer counted nothing")?.trim();
    eprintln!("xtask: {name}: {count} inputs in {seconds} s, and nothing found");
    Ok(())
}
