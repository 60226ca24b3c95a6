//! Copies an image into memory, from all its servers at once.
//!
//! Takes where the image is served and what it is known again by, and gives a file of exactly the
//! region's bytes (zeroes fill the last sector), which is in memory once and cannot be swapped out.
//! The kernel's driver is not involved: no block device, and no page cache in between.
//!
//! - Every source has connections of its own, and takes a new piece whenever it has brought one. So
//!   a slow one brings less, and its last pieces are asked for elsewhere when nothing else is left.
//! - A lost connection costs what was in flight. Its worker reconnects for as long as it takes, and
//!   reads on only when the server still has the image; one with another is dropped, or left alone
//!   and asked again ([`Refusals`]).
//! - What a server's map says are zeroes is not asked for; zeroes that come all the same stay holes.
//!
//! Runs in the boot and in the keeper, so it has no console, looks up no names and opens no paths.
//! How fast it may be is somebody else's decision ([`Pace`]).

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::identity::{Identity, Region};
use super::nbd::client::{Connection, Peer};
use super::nbd::reader::Reader;
use super::server::Source;
use crate::error::{Error, Result, WhileDoing};
use crate::sys::memory::MemoryFile;
use chunks::{Chunk, Chunks, Retry};
use state::{Outcome, SourceState, State};
use worker::Worker;

mod chunks;
mod map;
#[cfg(test)]
mod scripted;
mod state;
mod worker;

pub use map::allocated;

/// What is to be copied, and from where.
pub struct Job {
    pub sources: Vec<Source>,
    pub identity: Identity,
    pub region: Region,
    /// A connection that has looked at the image already. Servers for one client have no other.
    pub first: Option<Connection>,
}

/// What a copy makes of a server that refuses: it has another image, knows no such export, or cannot
/// read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusals {
    /// The server is dropped, and the copy fails when none is left: somebody waits for it.
    Drop,
    /// It is asked again, ever more rarely. What is copied is kept, unless there is a part that
    /// none of them can read.
    AskAgain,
}

impl Refusals {
    /// Whoever waits is told soon. Whoever does not gives a storage that moves to another path some
    /// seconds for it.
    fn retry(self) -> Retry {
        match self {
            Refusals::Drop => Retry { most: 20, pause: Duration::from_millis(100) },
            Refusals::AskAgain => Retry { most: 3, pause: Duration::from_secs(2) },
        }
    }
}

/// Decides how fast a copy may be. Asked before each request by whichever worker wants to send one,
/// so it must not wait itself.
pub trait Pace: Send + Sync {
    /// Whether `length` more bytes may be asked for, while `in_flight` bytes are on their way
    /// before them.
    fn turn(&self, length: u32, in_flight: u64) -> Turn;

    /// A chunk from the source of that number took so long, from the request to its last byte.
    fn took(&self, _source: usize, _time: Duration) {}

    /// Whether a worker without a connection may make one now: servers have places for so many, and
    /// somebody may need one more than the copy does.
    fn may_connect(&self) -> bool {
        true
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Now,
    /// Ask again then.
    After(Duration),
}

/// Nobody else needs the network or the memory.
pub struct FullSpeed;

impl Pace for FullSpeed {
    fn turn(&self, _: u32, _: u64) -> Turn {
        Turn::Now
    }
}

/// How far a copy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub done_bytes: u64,
    pub total_bytes: u64,
    /// Of what is done: zeroes by the word of a server, which nobody asked for.
    pub holes_bytes: u64,
    /// What the copy takes of the machine's memory.
    pub memory_bytes: u64,
    /// For how long any connection worked.
    pub connected_for: Duration,
    pub sources: Vec<SourceProgress>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceProgress {
    pub peer: Peer,
    /// What it has brought.
    pub bytes: u64,
    /// Connections that work.
    pub connections: usize,
    /// Why the last connection was lost, until the next works.
    pub trouble: Option<String>,
    /// It refuses, or has another image, and is not asked any more.
    pub is_dropped: bool,
}

impl Progress {
    /// What servers have sent.
    pub fn received_bytes(&self) -> u64 {
        self.done_bytes.saturating_sub(self.holes_bytes)
    }

    pub fn connections(&self) -> usize {
        self.sources.iter().map(|source| source.connections).sum()
    }

    /// What stops the copy, when nobody brings anything.
    pub fn trouble(&self) -> Option<String> {
        let source = self.sources.iter().find(|source| source.trouble.is_some())?;
        source.trouble.as_ref().map(|trouble| format!("{}: {trouble}", source.peer))
    }
}

/// Requests of 256 KiB, eight of them on each connection. Over loopback on two busy cores, medians
/// in MB/s with qemu-nbd and nbdkit: 822 and 979 so, sixteen in flight 1033 and 888, four 755,
/// requests of 512 KiB 808 and 888, of 1 MiB 935, one connection 975 and 776, four 853 and 1115. All
/// of it differs by less than two runs of the same, so the smallest debt that is enough is taken:
/// what is in flight is what a lost server costs, and what a reader of the root waits behind.
const CHUNK: u32 = 256 << 10;
const IN_FLIGHT: usize = 8;

/// Whether pieces that others asked for have become late, by a worker with nothing else to do.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Begins to copy.
pub fn start(job: Job, pace: Arc<dyn Pace>, refusals: Refusals) -> Result<Copying> {
    const SECTOR: u64 = 512;
    let Job { sources, identity, region, first } = job;
    let file = MemoryFile::create(region.length.next_multiple_of(SECTOR))?;
    let each = connections_each(sources.len(), refusals);
    let owner = first.as_ref().map(|first| first.peer().address);
    let owner = sources.iter().position(|source| Some(source.peer.address) == owner).unwrap_or(0);
    let mut first = first.map(Reader::from);

    let chunks = Chunks::new(region.offset, region.length, CHUNK, refusals.retry());
    let states = sources.iter().map(|_| SourceState::default()).collect();
    let engine = Arc::new(Engine {
        sources,
        identity,
        region,
        file,
        pace,
        refusals,
        state: Mutex::new(State::new(chunks, states)),
        changed: Condvar::new(),
    });
    // By turns, so that every source has a connection before any has two.
    let mut number = 0;
    for nth in 0..each {
        for source in 0..engine.sources.len() {
            let connection = if source == owner { first.take() } else { None };
            let worker = Worker::new(Arc::clone(&engine), number, source, nth);
            engine.lock().hire(source);
            // Not joined: a worker may sit in a handshake with a server that serves one client at
            // a time, and owns nothing that anybody waits for.
            let spawned = thread::Builder::new()
                .name(format!("copy {number}"))
                .stack_size(256 << 10)
                .spawn(move || worker.work(connection));
            if let Err(error) = spawned {
                engine.lock().dismiss(source);
                if number == 0 {
                    return Err(error).while_doing(|| "starting to copy");
                }
                log::debug!(target: "root", "copying with {number} connections: {error}");
            }
            number = number.saturating_add(1);
        }
    }
    if number == 0 {
        return Err(Error::refused("copying the image to RAM", "it has no server"));
    }
    Ok(Copying { engine, is_kept: false })
}

/// How many connections read from one source at once. Alone it gets one for each processor that
/// could be busy with one, at least two so that the server never waits for us, at most four because
/// a room of machines boots together and each connection is a process of nbd-server. Several keep
/// each other company. A copy that nobody waits for has one each: more would have as many shares of
/// a line on which others boot, each of which has one for its root.
fn connections_each(sources: usize, refusals: Refusals) -> usize {
    match sources {
        0 => 0,
        _ if refusals == Refusals::AskAgain => 1,
        1 => thread::available_parallelism().map_or(2, |processors| processors.get().clamp(2, 4)),
        2 | 3 => 2,
        _ => 1,
    }
}

/// A copy under way. Dropped before [`Self::finish`] it ends, and gives back its memory.
pub struct Copying {
    engine: Arc<Engine>,
    is_kept: bool,
}

impl Copying {
    pub fn progress(&self) -> Progress {
        // In blocks of 512 bytes, as everywhere in stat; ramfs does not count them.
        let blocks = self.engine.file.file().metadata().map_or(0, |metadata| metadata.blocks());
        let state = self.engine.lock();
        let received = state.chunks.done_bytes().saturating_sub(state.chunks.skipped_bytes());
        let memory_bytes = if blocks > 0 { blocks.saturating_mul(512) } else { received };
        let sources = self.engine.sources.iter().zip(state.sources());
        Progress {
            done_bytes: state.chunks.done_bytes(),
            total_bytes: state.chunks.total_bytes(),
            holes_bytes: state.chunks.skipped_bytes(),
            memory_bytes,
            connected_for: state.connected_for(Instant::now()),
            sources: sources.map(|(source, state)| state.progress(&source.peer)).collect(),
        }
    }

    /// Waits for the end of the copy: `None` when it goes on after `timeout`. A reason for failure
    /// is told once.
    pub fn wait(&self, timeout: Duration) -> Option<Result<()>> {
        let going_on = |state: &mut State| !state.has_ended();
        let state = self.engine.lock();
        let (mut state, _) = self
            .engine
            .changed
            .wait_timeout_while(state, timeout, going_on)
            .unwrap_or_else(PoisonError::into_inner);
        state.take_outcome()
    }

    /// Ends the copy. Its memory is free when this returns, but for what is being written.
    pub fn cancel(self) {
        drop(self);
    }

    /// The image, of a copy that has ended well.
    ///
    /// # Errors
    /// It is not complete, or not what the servers had at the beginning.
    pub fn finish(mut self) -> Result<File> {
        if !self.engine.lock().is_done() {
            return Err(Error::refused("keeping the image in memory", "it is not complete"));
        }
        self.engine.compare()?;
        let file = self.engine.file.read_only()?;
        self.is_kept = true;
        Ok(file)
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        if !self.is_kept {
            self.engine.end(Outcome::Cancelled);
            // Workers may have the file open for as long as a handshake takes.
            let _ = self.engine.file.file().set_len(0);
        }
    }
}

/// A copy, as all its workers see it.
struct Engine {
    sources: Vec<Source>,
    identity: Identity,
    region: Region,
    file: MemoryFile,
    pace: Arc<dyn Pace>,
    refusals: Refusals,
    state: Mutex<State>,
    changed: Condvar,
}

/// What a worker is to do next.
enum Next {
    Ask(Chunk),
    /// Nothing now; there are answers to wait for.
    Listen,
    Leave,
}

impl Engine {
    /// A poisoned lock means that a worker has panicked, which nothing here can.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what lies in memory is the image. Servers were compared with it when they were
    /// connected to, which may be hours ago: an image that somebody has written over since is half
    /// the one and half the other, and once the servers are let go there is no way back.
    fn compare(&self) -> Result<()> {
        let mut bytes = Vec::new();
        for sample in &self.identity.samples {
            let Some(at) = sample.offset.checked_sub(self.region.offset) else { continue };
            if at >= self.region.length {
                continue;
            }
            bytes.resize(sample.bytes.len(), 0);
            let doing = || "comparing the copy with the image";
            self.file.file().read_exact_at(&mut bytes, at).while_doing(doing)?;
            if bytes != sample.bytes {
                let why = format!("it is another one in the page at byte {}", sample.offset);
                let hint = "the image was changed while it was copied; serve a new one under \
                    another name, or as another file";
                return Err(Error::refused(doing(), why).with_hint(hint));
            }
        }
        Ok(())
    }

    fn end(&self, outcome: Outcome) {
        self.lock().end(outcome);
        self.changed.notify_all();
    }

    /// Waits until there is something for a worker without a connection to do (`true`), or nothing
    /// any more.
    fn wait_for_work(&self, worker: &Worker) -> bool {
        let mut state = self.lock();
        while !state.is_over(worker.source) {
            let now = Instant::now();
            if state.has_work(worker, now) && self.pace.may_connect() {
                return true;
            }
            if self.ends_for_good(&mut state, now) {
                return false;
            }
            state = self.doze(state, LOOK_AGAIN);
        }
        false
    }

    /// The next chunk for a worker, which it waits for unless it has answers to listen to.
    fn next(&self, worker: &Worker, listening: bool) -> Next {
        let mut state = self.lock();
        loop {
            if state.is_over(worker.source) {
                return Next::Leave;
            }
            let now = Instant::now();
            let mut pause = LOOK_AGAIN;
            if let Some(owed) = state.owed(worker, now) {
                match self.pace.turn(CHUNK, owed) {
                    Turn::After(later) => pause = later,
                    Turn::Now => {
                        if let Some(chunk) = state.take(worker, now) {
                            return Next::Ask(chunk);
                        }
                    }
                }
            }
            if self.ends_for_good(&mut state, now) {
                return Next::Leave;
            }
            if listening {
                return Next::Listen;
            }
            state.is_listening(worker.number, false);
            state = self.doze(state, pause);
        }
    }

    /// Ends the copy when it cannot become complete.
    fn ends_for_good(&self, state: &mut State, now: Instant) -> bool {
        let Some(chunk) = state.unreadable(now) else { return false };
        let first = self.region.offset.saturating_add(chunk.offset);
        let last = first.saturating_add(u64::from(chunk.length)).saturating_sub(1);
        let why = format!("no server can read bytes {first} to {last} of it");
        state.end(Outcome::Failed(Some(Error::refused("copying the image to RAM", why))));
        self.changed.notify_all();
        true
    }

    fn doze<'a>(&self, state: MutexGuard<'a, State>, pause: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Sleeps, but not beyond the end of the copy.
    fn pause(&self, pause: Duration) {
        let going_on = |state: &mut State| !state.has_ended();
        drop(self.changed.wait_timeout_while(self.lock(), pause, going_on));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn a_copy_that_nobody_waits_for_has_one_connection_to_each_server() {
        let cases = [
            (Refusals::Drop,     0, 0..=0, "no server"),
            (Refusals::Drop,     1, 2..=4, "one for each processor"),
            (Refusals::Drop,     2, 2..=2, "several keep each other company"),
            (Refusals::Drop,     9, 1..=1, "many do"),
            (Refusals::AskAgain, 0, 0..=0, "no server"),
            (Refusals::AskAgain, 1, 1..=1, "the line is others' too"),
            (Refusals::AskAgain, 3, 1..=1, "the line is others' too"),
        ];
        for (refusals, sources, expected, case) in cases {
            let each = connections_each(sources, refusals);
            assert!(expected.contains(&each), "{case}: {each} to each of {sources}");
        }
    }
}
