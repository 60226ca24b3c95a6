//! The copy to memory as a boot waits for it: on the console, with what it waits for.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::copy::{self, Copying, FullSpeed, Job, Refusals};
use super::size::Size;
use crate::console;
use crate::error::Result;

/// Copies into memory what `job` says; `label` is what people call it.
///
/// Takes as long as a server needs to be there; fails where waiting cannot help: no server can read
/// the image, or all have another one by now.
pub fn copy(job: Job, label: &str) -> Result<File> {
    let length = job.region.length;
    let started = Instant::now();
    let copying = copy::start(job, Arc::new(FullSpeed), Refusals::Drop)?;
    watch(&copying, label)?;
    let seconds = started.elapsed().as_secs_f64();
    let progress = copying.progress();
    let file = copying.finish()?;
    // Neither holes nor waiting for a server are speed.
    let connected = progress.connected_for.as_secs_f64().max(0.001);
    let rate = Size((progress.received_bytes() as f64 / connected) as u64);
    let skipped = match progress.holes_bytes {
        0 => String::new(),
        bytes => format!(", {} of it never asked for", Size(bytes)),
    };
    log::info!(target: "root", "{label} copied to RAM: {} in {seconds:.1} s ({rate}/s){skipped}",
        Size(length));
    if progress.sources.len() > 1 {
        for source in &progress.sources {
            log::info!(target: "root", "{} of it from {}", Size(source.bytes), source.peer);
        }
    }
    Ok(file)
}

/// Shows progress, and what the copy waits for, until it has ended.
fn watch(copying: &Copying, label: &str) -> Result<()> {
    const REDRAW: Duration = Duration::from_millis(200);
    let total = Some(copying.progress().total_bytes);
    let shown = console::progress("root", format!("copying {label} to RAM"), total);
    let mut waiting = None;
    loop {
        let outcome = copying.wait(REDRAW);
        let progress = copying.progress();
        match (progress.trouble(), progress.connections()) {
            (Some(trouble), 0) if outcome.is_none() => waiting
                .get_or_insert_with(|| console::waiting("root", trouble.clone()))
                .still(trouble),
            _ if waiting.take().is_some() => {
                let kept = Size(progress.done_bytes);
                let back = progress.sources.iter().find(|source| source.connections > 0);
                if let Some(source) = back {
                    log::info!(target: "root", "{} answers again; {kept} were kept", source.peer);
                }
            }
            _ => {}
        }
        if let Some(outcome) = outcome {
            return outcome;
        }
        shown.at(progress.done_bytes);
    }
}
