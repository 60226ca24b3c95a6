//! Progress for whoever typed the command: one line for each step, with its seconds.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Says what begins; if it took noticeable time, also that it is done.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("xtask: {what}");
    let started = Instant::now();
    let result = work().with_context(|| what.to_owned())?;
    let seconds = started.elapsed().as_secs_f32();
    if seconds > 1.0 {
        eprintln!("xtask: {what}: done ({seconds:.0} s)");
    }
    Ok(result)
}

/// Runs a program with this terminal for its output.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

/// Runs a program whose output matters only when it fails.
pub fn run_quietly(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("{command:?}: {}\n{out}{err}", output.status);
    }
    Ok(out.into_owned())
}
