//! What the workers of a copy know together. Everything here happens under one lock, and nothing
//! here waits.

use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::chunks::{Chunk, Chunks, Taker};
use super::worker::Worker;
use super::{Refusals, SourceProgress};
use crate::error::{Error, Result};
use crate::root::nbd::client::Peer;

pub struct State {
    pub chunks: Chunks,
    sources: Vec<SourceState>,
    workers: Vec<WorkerState>,
    /// Workers that write to the file at this moment.
    writing: usize,
    map: MapState,
    /// Since when there has been a connection, and for how long before.
    connected_since: Option<Instant>,
    connected_before: Duration,
    ended: Option<Outcome>,
}

/// How a copy ends.
#[derive(Debug)]
pub enum Outcome {
    Done,
    /// With the reason until somebody has taken it.
    Failed(Option<Error>),
    Cancelled,
}

#[derive(Debug, Default)]
pub struct SourceState {
    bytes: u64,
    /// Of its workers, those that have not given up.
    workers: usize,
    connections: usize,
    has_been_connected: bool,
    trouble: Option<String>,
    /// It has been said that it refuses, and nothing has come of it since.
    is_refusing: bool,
    /// Failed reads since the last good one.
    failures: u32,
    /// Since when it has had no connection, or from when on it might have had one.
    away_since: Option<Instant>,
    is_dropped: bool,
}

#[derive(Debug, Default)]
struct WorkerState {
    stream: Option<TcpStream>,
    is_listening: bool,
}

/// The server's map is read once, by one worker, ahead of the copy.
#[derive(Debug, Default)]
struct MapState {
    is_being_read: bool,
    is_read: bool,
    failures: u32,
}

/// What becomes of a worker that has lost its connection, or got none.
#[derive(Debug)]
pub enum Fate {
    /// It tries again, for as long as it takes.
    Again,
    /// It asks again after a while, whether the server still refuses; what is to be said about it.
    Later(Option<Error>),
    /// The others of its source go on without it.
    Leaves,
    /// Its source is of no use any more.
    Dropped(Error),
}

impl State {
    pub fn new(chunks: Chunks, sources: Vec<SourceState>) -> Self {
        Self {
            chunks,
            sources,
            workers: Vec::new(),
            writing: 0,
            map: MapState::default(),
            connected_since: None,
            connected_before: Duration::ZERO,
            ended: None,
        }
    }

    pub fn sources(&self) -> &[SourceState] {
        &self.sources
    }

    fn source(&mut self, source: usize) -> Option<&mut SourceState> {
        self.sources.get_mut(source)
    }

    /// A worker more. Its number is the next one.
    pub fn hire(&mut self, source: usize) {
        self.workers.push(WorkerState::default());
        if let Some(source) = self.source(source) {
            source.workers = source.workers.saturating_add(1);
        }
    }

    pub fn dismiss(&mut self, source: usize) {
        if let Some(source) = self.source(source) {
            source.workers = source.workers.saturating_sub(1);
        }
    }

    pub fn end(&mut self, outcome: Outcome) {
        self.ended.get_or_insert(outcome);
        // Whoever waits for an answer now waits for one that is late.
        for worker in &mut self.workers {
            if let Some(stream) = worker.stream.take()
                && worker.is_listening
            {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    pub fn is_done(&self) -> bool {
        matches!(self.ended, Some(Outcome::Done))
    }

    /// Whether workers of `source` have nothing to do any more.
    pub fn is_over(&self, source: usize) -> bool {
        self.has_ended() || self.sources.get(source).is_none_or(|source| source.is_dropped)
    }

    pub fn take_outcome(&mut self) -> Option<Result<()>> {
        let again = || Error::refused("copying the image to RAM", "it has been given up");
        match self.ended.as_mut()? {
            Outcome::Done => Some(Ok(())),
            Outcome::Failed(reason) => Some(Err(reason.take().unwrap_or_else(again))),
            Outcome::Cancelled => Some(Err(again())),
        }
    }

    pub fn has_work(&self, worker: &Worker, now: Instant) -> bool {
        self.owed(worker, now).is_some()
    }

    /// What is under way before the next chunk of a worker, in bytes, if there is one. What is late
    /// is in nobody's way, and waiting for it to come would be waiting for those that hang.
    pub fn owed(&self, worker: &Worker, now: Instant) -> Option<u64> {
        let Worker { number, source, .. } = *worker;
        let patience = worker.patience();
        if self.chunks.has_work(source, now) {
            return Some(self.chunks.flying_bytes(source, now, patience));
        }
        self.chunks.has_late(number, source, now, patience).then_some(0)
    }

    pub fn take(&mut self, worker: &Worker, now: Instant) -> Option<Chunk> {
        let Worker { number, source, .. } = *worker;
        let late = |chunks: &mut Chunks| chunks.take_late(number, source, now, worker.patience());
        let chunks = &mut self.chunks;
        let chunk = chunks.take(number, source, now).or_else(|| late(chunks))?;
        self.is_listening(number, true);
        Some(chunk)
    }

    /// What nobody can read who answers. A source that was there a while ago may come back and
    /// have it, and the memory of the copy is not held for one that does not.
    pub fn unreadable(&mut self, now: Instant) -> Option<Chunk> {
        const A_WHILE: Duration = Duration::from_secs(60);
        let mut counting = Vec::new();
        for (number, source) in self.sources.iter_mut().enumerate() {
            let since = match source.connections {
                0 => *source.away_since.get_or_insert(now),
                _ => now,
            };
            if !source.is_dropped && now.saturating_duration_since(since) < A_WHILE {
                counting.push(number);
            }
        }
        self.chunks.unreadable(&counting)
    }

    pub fn is_listening(&mut self, taker: Taker, listening: bool) {
        if let Some(worker) = self.workers.get_mut(taker) {
            worker.is_listening = listening;
        }
    }

    pub fn connected(&mut self, taker: Taker, source: usize, stream: Option<TcpStream>) {
        if let Some(worker) = self.workers.get_mut(taker) {
            worker.stream = stream;
        }
        if let Some(source) = self.source(source) {
            source.connections = source.connections.saturating_add(1);
            source.has_been_connected = true;
            source.away_since = None;
            source.trouble = None;
        }
        self.connected_since.get_or_insert_with(Instant::now);
    }

    pub fn disconnected(&mut self, taker: Taker, source: usize) {
        if let Some(worker) = self.workers.get_mut(taker) {
            *worker = WorkerState::default();
        }
        if let Some(source) = self.source(source) {
            source.connections = source.connections.saturating_sub(1);
            source.away_since = (source.connections == 0).then(Instant::now);
        }
        if self.sources.iter().all(|source| source.connections == 0) {
            self.connected_before = self.connected_for(Instant::now());
            self.connected_since = None;
        }
    }

    /// For how long anything could come; until the end of the copy, if it has ended.
    pub fn connected_for(&self, now: Instant) -> Duration {
        let since = |since| now.saturating_duration_since(since);
        self.connected_before.saturating_add(self.connected_since.map_or(Duration::ZERO, since))
    }

    /// Whether a worker may write bytes of this chunk: while they are missing.
    pub fn begin_to_write(&mut self, chunk: Chunk) -> bool {
        let may = !self.has_ended() && self.chunks.is_wanted(chunk);
        if may {
            self.writing = self.writing.saturating_add(1);
        }
        may
    }

    pub fn has_written(&mut self) {
        self.writing = self.writing.saturating_sub(1);
        self.end_when_complete();
    }

    pub fn finish(&mut self, chunk: Chunk, source: usize) {
        let is_first = self.chunks.finish(chunk);
        if let Some(source) = self.source(source) {
            source.failures = 0;
            source.is_refusing = false;
            if is_first {
                source.bytes = source.bytes.saturating_add(u64::from(chunk.length));
            }
        }
        self.end_when_complete();
    }

    /// A worker that was late may still be writing the same bytes; nobody writes to an image that
    /// somebody else has by then.
    fn end_when_complete(&mut self) {
        if self.chunks.is_complete() && self.writing == 0 {
            self.end(Outcome::Done);
        }
    }

    /// The server could not read. Gives how often in a row.
    pub fn failed(&mut self, taker: Taker, source: usize, chunk: Chunk) -> u32 {
        self.chunks.refuse(taker, source, chunk, Instant::now());
        self.source(source).map_or(0, |source| {
            source.failures = source.failures.saturating_add(1);
            source.failures
        })
    }

    /// What a worker does after `error`. An extra connection that is refused is no reason against
    /// a source, and what is connected still may read the image that the server has replaced.
    pub fn lost(
        &mut self,
        source: usize,
        was_connected: bool,
        error: Error,
        refusals: Refusals,
    ) -> Fate {
        let Some(source) = self.sources.get_mut(source) else { return Fate::Leaves };
        if error.is_transient() {
            source.trouble = Some(error.cause().to_string());
            return Fate::Again;
        }
        let others = source.workers > 1;
        let is_extra = others && !was_connected && source.has_been_connected;
        if refusals == Refusals::AskAgain && !is_extra {
            let is_known = std::mem::replace(&mut source.is_refusing, true);
            source.trouble = Some(error.cause().to_string());
            return Fate::Later((!is_known).then_some(error));
        }
        source.workers = source.workers.saturating_sub(1);
        if source.is_dropped || is_extra || (others && source.connections > 0) {
            log::debug!(target: "root", "{error}");
            return Fate::Leaves;
        }
        source.is_dropped = true;
        Fate::Dropped(error)
    }

    pub fn has_sources(&self) -> bool {
        self.sources.iter().any(|source| !source.is_dropped)
    }

    /// Where to ask for the map, for the one worker that does.
    pub fn begin_map(&mut self) -> bool {
        let is_mine = !self.map.is_being_read && !self.map.is_read;
        self.map.is_being_read |= is_mine;
        is_mine
    }

    pub fn map_at(&self) -> Option<u64> {
        let at = self.chunks.next_offset();
        (at < self.chunks.total_bytes() && !self.has_ended()).then_some(at)
    }

    /// Runs of zeroes (offset and length), from the front to the end.
    pub fn map_says(&mut self, zeroes: &[(u64, u64)]) {
        for (offset, length) in zeroes {
            self.chunks.are_zeroes(*offset, *length);
        }
        self.end_when_complete();
    }

    /// The map is read, or another has to read the rest; or nobody, if it has cost connections
    /// again and again: it saves time, and must not be what there is no copy for.
    pub fn end_map(&mut self, is_read: bool) {
        const MOST_FAILURES: u32 = 2;
        self.map.is_being_read = false;
        if !is_read {
            self.map.failures = self.map.failures.saturating_add(1);
        }
        self.map.is_read = is_read || self.map.failures >= MOST_FAILURES;
    }
}

impl SourceState {
    pub fn progress(&self, peer: &Peer) -> SourceProgress {
        SourceProgress {
            peer: peer.clone(),
            bytes: self.bytes,
            connections: self.connections,
            trouble: self.trouble.clone(),
            is_dropped: self.is_dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With two workers each, of which as many as it says are connected.
    #[test]
    #[rustfmt::skip]
    fn what_becomes_of_a_worker_without_a_connection() {
        let silent = || Error::silence("reading", Duration::from_secs(1));
        let refused = || Error::refused("reading", "unknown export");
        let (drop, again) = (Refusals::Drop, Refusals::AskAgain);
        let cases = [
            ("a boot's server is gone",            drop,  2, true,  0, silent(),  "Again"),
            ("another connection reads the old",   drop,  2, true,  1, refused(), "Leaves"),
            ("an extra connection is refused",     drop,  2, false, 1, refused(), "Leaves"),
            ("a boot's server has another image",  drop,  1, true,  0, refused(), "Dropped"),
            ("the keeper's server is gone",        again, 2, true,  0, silent(),  "Again"),
            ("it is back without the image",       again, 2, true,  0, refused(), "Later, aloud"),
            ("so it is for the last of its kind",  again, 1, true,  0, refused(), "Later, aloud"),
            ("a server for one client",            again, 2, false, 1, refused(), "Leaves"),
        ];
        for (case, refusals, workers, was_connected, connections, error, expected) in cases {
            let source = SourceState { workers, connections, has_been_connected: true, ..Default::default() };
            let mut state = State::new(Chunks::new(0, 1, 1, refusals.retry()), vec![source]);
            let name = |fate: Fate| match fate {
                Fate::Again => "Again",
                Fate::Later(Some(_)) => "Later, aloud",
                Fate::Later(None) => "Later",
                Fate::Leaves => "Leaves",
                Fate::Dropped(_) => "Dropped",
            };
            assert_eq!(name(state.lost(0, was_connected, error, refusals)), expected, "{case}");
            assert_eq!(state.has_sources(), expected != "Dropped", "{case}");
            if expected == "Later, aloud" {
                assert_eq!(name(state.lost(0, true, refused(), refusals)), "Later", "{case}, said once");
                // Its other data is good, and so it may be said again.
                state.finish(Chunk { offset: 0, length: 1 }, 0);
                assert_eq!(name(state.lost(0, true, refused(), refusals)), expected, "{case}");
            }
        }
    }
}
