//! Copies the image to memory behind the running system, and then lets the root read it there.
//!
//! The copy is in nobody's way: it yields to whoever reads the root ([`super::pace`]), stands still
//! while memory is scarce, and gives back all of it before the system runs short: then it begins
//! again when there has been room for a while, and each time waits longer for that. Losing servers
//! is a pause for it, as it is for the root. What is made of the finished file is the caller's
//! business.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use super::pace::{Controller, Look, Pacer};
use super::root::Activity;
use super::status::{CopyState, CopyStatus, RootState, now};
use crate::error::{Error, Result};
use crate::root::copy::{self, Copying, Job, Progress, Refusals};
use crate::root::{Allocated, Memory, Size, a_part_of, fits_copied};
use crate::sys::memory::Medium;

/// Between two looks at readers and memory.
const LOOK: Duration = Duration::from_millis(50);
/// A node that has had too little memory for this long needs what the copy holds.
const PATIENCE: Duration = Duration::from_secs(600);
/// For how long there must have been room before a copy begins again.
const CALM: Duration = Duration::from_secs(60);
const LONGEST_CALM: Duration = Duration::from_secs(3600);

/// Copies what `job` says, with at most `rate` bytes a second, and hands the file to `flip`, which
/// says for how long reads of the root stood still.
///
/// `device` is what the root is read from, as in `/sys/block`. Returns when the root is in memory,
/// or when that has been given up and streaming goes on.
pub fn run(
    shared: &Shared,
    job: Job,
    rate: Option<u64>,
    device: &str,
    flip: impl FnOnce(File) -> Result<Duration>,
) {
    let total_bytes = job.region.length;
    shared.status().copy = Some(CopyStatus { total_bytes, began_at: now(), ..Default::default() });
    let began = Instant::now();
    let outcome = copied(shared, job, rate, device);
    match outcome.and_then(|(file, came)| Ok((flip(file)?, came))) {
        Ok((stood_still, came)) => {
            let mut status = shared.status();
            let copy = status.copy.get_or_insert_default();
            copy.state = CopyState::Complete;
            copy.trouble = None;
            copy.done_bytes = total_bytes;
            copy.ended_at = Some(now());
            copy.flip_seconds = Some(crate::report::rounded(stood_still));
            drop(status);
            let seconds = began.elapsed().as_secs_f64();
            log::info!(target: "root", "copied to RAM behind the running system: {} in {seconds:.1} s \
                ({}/s); reads stood still for {} ms; servers may go away",
                Size(total_bytes), came.rate(), stood_still.as_millis());
        }
        Err(error) => {
            let mut status = shared.status();
            let copy = status.copy.get_or_insert_default();
            copy.state = CopyState::GivenUp;
            copy.trouble = Some(error.to_string());
            copy.bytes_per_second = 0;
            copy.memory_bytes = 0;
            copy.ended_at = Some(now());
            drop(status);
            log::warn!(target: "root", "{error}; it stays streamed");
        }
    }
}

/// The whole image in memory, at whichever attempt.
fn copied(shared: &Shared, mut job: Job, rate: Option<u64>, device: &str) -> Result<(File, Came)> {
    let mut allocated = Allocated::default();
    let (mut calm, mut pause) = (Duration::ZERO, Duration::ZERO);
    let mut said = String::new();
    loop {
        wait_for_room(shared, &job, &mut allocated, pause)?;
        calm = longer(calm);
        // Nodes that are used by one timetable would all fetch the image in the same minute.
        pause = calm.saturating_add(a_part_of(calm / 2));
        let again = Job {
            sources: job.sources.clone(),
            identity: job.identity.clone(),
            region: job.region,
            first: job.first.take(),
        };
        let seconds = pause.as_secs();
        let (error, then) = match attempt(shared, again, rate, device) {
            Ok(whole) => return Ok(whole),
            Err(Ended::ForOthers) => (
                Error::refused("copying the root to RAM", "others need the memory"),
                format!(
                    "its memory is given back, and it begins again when there has been room for {seconds} s"
                ),
            ),
            Err(Ended::Failed(error)) => {
                (error, format!("the copy begins again in {seconds} s or later"))
            }
        };
        let mut status = shared.status();
        let copy = status.copy.get_or_insert_default();
        copy.state = CopyState::Paused;
        copy.trouble = Some(error.cause().to_string());
        (copy.done_bytes, copy.hole_bytes) = (0, 0);
        (copy.memory_bytes, copy.bytes_per_second) = (0, 0);
        drop(status);
        // What nobody mends would be said again with each attempt, for as long as the machine runs.
        let error = error.to_string();
        let level = if error == said { log::Level::Debug } else { log::Level::Warn };
        log::log!(target: "root", level, "{error}; {then}");
        said = error;
    }
}

/// Why an attempt has ended without the image. Its memory is free.
enum Ended {
    /// Somebody else needs the memory.
    ForOthers,
    Failed(Error),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What the next attempt waits for, after one that waited for `calm`.
fn longer(calm: Duration) -> Duration {
    calm.saturating_mul(2).clamp(CALM, LONGEST_CALM)
}

/// Copies until the image is whole, or its memory is needed more by somebody else.
fn attempt(
    shared: &Shared,
    job: Job,
    rate: Option<u64>,
    device: &str,
) -> std::result::Result<(File, Came), Ended> {
    let mut controller = Controller::new(rate);
    let first = controller.look(Look { elapsed: LOOK, is_read: true, ..Look::default() });
    let pacer = Arc::new(Pacer::new(first));
    let copying = copy::start(job, Arc::<Pacer>::clone(&pacer) as _, Refusals::AskAgain)?;
    let mut room = Room::default();
    let mut watch = Watch::new(device);
    loop {
        if let Some(outcome) = copying.wait(LOOK) {
            outcome?;
            let came = watch.came(&copying.progress());
            shared.status().copy.get_or_insert_default().memory_bytes =
                copying.progress().memory_bytes;
            return Ok((copying.finish()?, came));
        }
        // What cannot be known is no reason to stop: the next look will tell.
        let memory = Memory::now().ok();
        let state = memory.map_or(Supply::Enough, |memory| room.look(&memory, Instant::now()));
        if state == Supply::Needed {
            copying.cancel();
            return Err(Ended::ForOthers);
        }
        let is_paused = state == Supply::Scarce;
        let speed =
            controller.look(Look { delay: pacer.delay(), ..watch.look(&copying, is_paused) });
        pacer.set(speed, is_paused);
        pacer.leave_places(has_lost_its_root(shared));
        watch.report(shared, &copying, is_paused);
    }
}

/// The root looks for a server: for as long, the copy takes no place at any.
fn has_lost_its_root(shared: &Shared) -> bool {
    shared.status().root.state == RootState::Lost
}

/// Until there has been room for the image for as long as `calm`: the boot has found some, and what
/// has started since may need it first. A root that looks for its server is not competed with.
///
/// # Errors
/// Where it could not be found on this machine if nothing else ran.
fn wait_for_room(
    shared: &Shared,
    job: &Job,
    allocated: &mut Allocated,
    calm: Duration,
) -> Result<()> {
    const LOOK_AGAIN: Duration = Duration::from_secs(2);
    let medium = Medium::here()?;
    let mut since = None;
    let mut wait = Wait::default();
    loop {
        if has_lost_its_root(shared) {
            std::thread::sleep(LOOK_AGAIN);
            continue;
        }
        let memory = Memory::now()?;
        let size = job.region.length;
        let ask = |allocated: &mut Allocated| allocated.get(Instant::now(), || asked(job));
        let Err(too_large) = fits_copied(size, || ask(allocated), medium, &memory) else {
            if since.get_or_insert_with(Instant::now).elapsed() >= calm {
                if wait.is_said {
                    log::info!(target: "root", "there is room: the root is now copied to RAM");
                }
                return Ok(());
            }
            std::thread::sleep(LOOK_AGAIN);
            continue;
        };
        since = None;
        if wait.is_to_be_said(Instant::now()) {
            log::warn!(target: "root", "the copy to RAM waits until there is room: {too_large}");
        }
        // A map that nobody has told us may make it smaller.
        let is_known = medium == Medium::Ramfs || allocated.known().is_some();
        if is_known && fits_copied(size, || allocated.known(), medium, &memory.emptied()).is_err() {
            return Err(Error::refused("copying the root to RAM", too_large.to_string()));
        }
        let mut status = shared.status();
        let copy = status.copy.get_or_insert_default();
        copy.state = CopyState::Paused;
        copy.trouble = Some(too_large.to_string());
        drop(status);
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// A wait for memory, which is worth a line when it is more than a moment.
#[derive(Debug, Default)]
struct Wait {
    since: Option<Instant>,
    is_said: bool,
}

impl Wait {
    /// Asked whenever there is no room: `true` once.
    fn is_to_be_said(&mut self, now: Instant) -> bool {
        const A_MOMENT: Duration = Duration::from_secs(60);
        let since = *self.since.get_or_insert(now);
        let is_long = now.saturating_duration_since(since) >= A_MOMENT;
        is_long && !std::mem::replace(&mut self.is_said, true)
    }
}

fn asked(job: &Job) -> Option<u64> {
    const MAP: Duration = Duration::from_secs(5);
    copy::allocated(&job.sources, &job.identity, job.region, MAP)
}

/// Whether there is memory for the copy to go on.
#[derive(Debug, Default)]
struct Room {
    scarce_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Supply {
    Enough,
    /// Nothing more may be taken.
    Scarce,
    /// What has been taken must be given back: the kernel is about to kill somebody for it, or
    /// there has been nothing to go on with for too long.
    Needed,
}

impl Room {
    /// Below the reserve nothing is taken, until there is clearly more than that again; below half
    /// of it, or after [`PATIENCE`], nothing is kept.
    fn look(&mut self, memory: &Memory, now: Instant) -> Supply {
        let reserve = memory.reserved();
        let enough = match self.scarce_since {
            None => reserve,
            Some(_) => reserve.saturating_add(reserve / 8),
        };
        if memory.available >= enough {
            self.scarce_since = None;
            return Supply::Enough;
        }
        let since = *self.scarce_since.get_or_insert(now);
        let lasts = now.saturating_duration_since(since) >= PATIENCE;
        if lasts || memory.available < reserve / 2 { Supply::Needed } else { Supply::Scarce }
    }
}

/// What servers have sent, and how long they had for it: neither holes nor waiting are speed.
#[derive(Clone, Copy, Debug)]
struct Came {
    bytes: u64,
    within: Duration,
}

impl Came {
    fn rate(self) -> Size {
        Size((self.bytes as f64 / self.within.as_secs_f64().max(0.001)) as u64)
    }
}

/// What is seen of the root's readers and of the copy, look by look.
struct Watch<'a> {
    device: &'a str,
    seen_at: Instant,
    answered: Option<u64>,
    done: u64,
    /// The rate that is shown, which is calmer than the one that is decided by.
    shown_at: Instant,
    shown_done: u64,
    is_waiting: bool,
    /// Time with a connection, in which the copy was not allowed anything.
    stood: Duration,
}

impl<'a> Watch<'a> {
    fn new(device: &'a str) -> Self {
        let now = Instant::now();
        Self {
            device,
            seen_at: now,
            answered: None,
            done: 0,
            shown_at: now,
            shown_done: 0,
            is_waiting: false,
            stood: Duration::ZERO,
        }
    }

    fn came(&self, progress: &Progress) -> Came {
        let within = progress.connected_for.saturating_sub(self.stood);
        Came { bytes: progress.received_bytes(), within }
    }

    fn look(&mut self, copying: &Copying, is_paused: bool) -> Look {
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(self.seen_at);
        let progress = copying.progress();
        let copied = progress.received_bytes();
        if is_paused && progress.connections() > 0 {
            self.stood = self.stood.saturating_add(elapsed);
        }
        let look = Look {
            elapsed,
            is_read: self.is_read(),
            copied_bytes: copied.saturating_sub(self.done),
            delay: None,
        };
        (self.seen_at, self.done) = (now, copied);
        look
    }

    /// A root whose statistics cannot be read is taken for one that is used.
    fn is_read(&mut self) -> bool {
        let Ok(activity) = Activity::of_device(self.device) else { return true };
        let before = self.answered.replace(activity.answered);
        activity.in_flight > 0 || before != Some(activity.answered)
    }

    /// Into the status; and what stops the copy, aloud.
    fn report(&mut self, shared: &Shared, copying: &Copying, is_paused: bool) {
        const SHOWN: Duration = Duration::from_secs(1);
        let progress = copying.progress();
        let trouble = progress.trouble().filter(|_| progress.connections() == 0);
        if trouble.is_some() != self.is_waiting {
            self.is_waiting = trouble.is_some();
            let kept = Size(progress.done_bytes);
            match &trouble {
                Some(trouble) => {
                    log::warn!(target: "root", "the copy to RAM waits: {trouble}; {kept} are kept");
                }
                None => log::info!(target: "root", "the copy to RAM goes on from {kept}"),
            }
        }
        let mut status = shared.status();
        let copy = status.copy.get_or_insert_default();
        copy.state = if is_paused { CopyState::Paused } else { CopyState::Copying };
        copy.done_bytes = progress.done_bytes;
        copy.hole_bytes = progress.holes_bytes;
        copy.memory_bytes = progress.memory_bytes;
        copy.trouble = trouble.or_else(|| is_paused.then(|| "memory is scarce".to_owned()));
        let shown_for = self.shown_at.elapsed();
        if shown_for >= SHOWN {
            let new = progress.received_bytes().saturating_sub(self.shown_done);
            copy.bytes_per_second = (new as f64 / shown_for.as_secs_f64()) as u64;
            (self.shown_at, self.shown_done) = (Instant::now(), progress.received_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn a_copy_stops_at_the_reserve_and_gives_back_what_others_need() {
        const MIB: u64 = 1 << 20;
        let mut room = Room::default();
        let began = Instant::now();
        // Of a gigabyte, 128 MiB are reserved.
        let mut look = |seconds: u64, available: u64| {
            let memory = Memory { total: 1024 * MIB, available: available * MIB };
            room.look(&memory, began + Duration::from_secs(seconds))
        };
        let cases = [
            (  0, 500, Supply::Enough),
            (  1, 128, Supply::Enough),
            (  2, 127, Supply::Scarce),
            (  3, 143, Supply::Scarce), // not yet clearly more
            (  4, 144, Supply::Enough),
            (  5, 130, Supply::Enough),
            (  6,  64, Supply::Scarce),
            (  7,  63, Supply::Needed), // the kernel would soon look for somebody to kill
            (  8, 500, Supply::Enough),
            ( 10, 100, Supply::Scarce),
            (609, 100, Supply::Scarce),
            (610, 100, Supply::Needed), // it does not get better
        ];
        for (seconds, available, expected) in cases {
            assert_eq!(look(seconds, available), expected, "{available} MiB after {seconds} s");
        }
    }

    #[test]
    fn a_wait_is_told_once_and_only_when_it_is_long() {
        let began = Instant::now();
        let mut wait = Wait::default();
        let cases = [(0, false), (59, false), (60, true), (61, false), (9999, false)];
        for (seconds, expected) in cases {
            let said = wait.is_to_be_said(began + Duration::from_secs(seconds));
            assert_eq!(said, expected, "after {seconds} s");
        }
        assert!(wait.is_said, "so its end is told as well");
    }

    #[test]
    fn a_copy_begins_again_ever_more_rarely_but_always() {
        let mut calm = Duration::ZERO;
        let mut seconds = || {
            calm = longer(calm);
            calm.as_secs()
        };
        let expected = [60, 120, 240, 480, 960, 1920, 3600, 3600];
        assert_eq!([(); 8].map(|()| seconds()), expected);
    }

    #[test]
    fn a_rate_is_of_what_came_while_something_could_come() {
        let came = Came { bytes: 300 << 20, within: Duration::from_secs(3) };
        assert_eq!(came.rate().to_string(), "100.0 MiB");
        let nothing = Came { bytes: 0, within: Duration::ZERO };
        assert_eq!(nothing.rate().to_string(), "0 bytes");
    }
}
