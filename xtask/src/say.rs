//! Progress for whoever typed the command: one line for each step, with its seconds.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
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

/// Does the same with all of these, as many at a time as there are cores: for work that keeps one
/// core busy each. After the first failure nothing more is begun.
pub fn side_by_side<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<()> {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(item).inspect_err(|_| next.store(items.len(), Ordering::Relaxed))?;
        }
        Ok(())
    };
    let cores = thread::available_parallelism()?.get().min(items.len());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn work_side_by_side_is_done_once_each_and_stops_at_a_failure() {
        let done = Mutex::new(Vec::new());
        let all: Vec<u32> = (0..50).collect();
        side_by_side(&all, |item| {
            done.lock().unwrap().push(*item);
            Ok(())
        })
        .unwrap();
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, all);

        let begun = AtomicUsize::new(0);
        let failed = side_by_side(&all, |_| {
            begun.fetch_add(1, Ordering::Relaxed);
            bail!("broken")
        });
        assert_eq!(failed.unwrap_err().to_string(), "broken");
        assert!(begun.into_inner() <= thread::available_parallelism().unwrap().get());
        assert!(side_by_side(&all[..0], |_| bail!("never called")).is_ok());
    }
}
