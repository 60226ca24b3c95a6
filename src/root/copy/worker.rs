//! One connection of a copy, for as long as there is something to copy.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::chunks::{Chunk, Taker};
use super::map::{self, MOST_QUESTIONS, Runs};
use super::state::{Fate, Outcome};
use super::{CHUNK, Engine, IN_FLIGHT, Next};
use crate::error::{Error, Result, WhileDoing};
use crate::root::nbd::protocol::Flags;
use crate::root::nbd::reader::{Event, Reader};
use crate::root::server::Backoff;

/// Failures reported by a server, without one success in between, after which it is believed.
const MOST_FAILURES: u32 = 20;

/// What is worth a hole, and begins and ends one: a page.
const PAGE: usize = 4096;

pub struct Worker {
    engine: Arc<Engine>,
    pub number: Taker,
    pub source: usize,
    /// Among the workers of its source.
    nth: usize,
    has_been_connected: bool,
    /// Over the connection that it has now.
    has_brought: bool,
    /// How long chunks take on their way, of late.
    usual: Duration,
    /// Buffers that no chunk is in: one where answers come in one piece, and never more than
    /// [`IN_FLIGHT`].
    spare: Vec<Vec<u8>>,
}

/// A chunk that this worker has asked for.
struct Held {
    chunk: Chunk,
    /// Of requests without a complete answer: one, but where the server's blocks are small.
    cookies: Vec<u64>,
    /// What has come of it, and zeroes in between; nothing yet, or nothing but holes. It is kept
    /// apart until the answer is complete: one that ends with an error is worth nothing, and what
    /// is once in the file stays where the right answer has a hole.
    bytes: Option<Vec<u8>>,
    error: Option<u32>,
    since: Instant,
}

/// Between two tries of a worker.
struct Pauses {
    /// While its server does not answer.
    brief: Backoff,
    /// While it refuses: somebody has to mend that, and has perhaps many nodes to look after.
    long: Backoff,
}

impl Pauses {
    fn new() -> Self {
        const LONGEST: Duration = Duration::from_secs(60);
        Self { brief: Backoff::new(), long: Backoff::up_to(LONGEST) }
    }
}

impl Worker {
    pub fn new(engine: Arc<Engine>, number: Taker, source: usize, nth: usize) -> Self {
        /// Until there is experience.
        const USUAL: Duration = Duration::from_millis(200);
        let (has_been_connected, has_brought) = (false, false);
        let spare = Vec::new();
        Self { engine, number, source, nth, has_been_connected, has_brought, usual: USUAL, spare }
    }

    /// How old a chunk must be before this worker asks for it once more: clearly longer than it
    /// takes this worker itself, which may share a crowded line with the other.
    pub fn patience(&self) -> Duration {
        const LEAST: Duration = Duration::from_millis(100);
        const MOST: Duration = Duration::from_secs(5);
        self.usual.saturating_mul(3).clamp(LEAST, MOST)
    }

    pub fn work(mut self, mut connection: Option<Reader>) {
        let mut pauses = Pauses::new();
        while self.engine.wait_for_work(&self) {
            let error = match connection.take().map_or_else(|| self.connect(), |c| Ok(Some(c))) {
                Ok(Some(mut reader)) => {
                    self.has_been_connected = true;
                    self.has_brought = false;
                    match self.read(&mut reader) {
                        Ok(()) => return reader.disconnect(),
                        Err(error) => {
                            // A server that does nothing but agree is asked as rarely as one
                            // that does not.
                            if self.has_brought {
                                pauses = Pauses::new();
                            }
                            error
                        }
                    }
                }
                Ok(None) => return self.engine.lock().dismiss(self.source),
                Err(error) => error,
            };
            log::debug!(target: "root", "{error}");
            match self.pause_after(error, &mut pauses) {
                Some(pause) => self.engine.pause(pause),
                None => return,
            }
        }
        if let Some(reader) = connection {
            reader.disconnect();
        }
    }

    /// Another connection to the same image. `None` where the server allows for one only.
    ///
    /// What CAN_MULTI_CONN promises concerns writes; nobody writes to a read-only export.
    fn connect(&self) -> Result<Option<Reader>> {
        let Some(source) = self.engine.sources.get(self.source) else { return Ok(None) };
        let mut reader = Reader::open(&source.peer, &source.names)?;
        let flags = reader.export().flags;
        if self.nth > 0 && !flags.has(Flags::READ_ONLY) && !flags.has(Flags::CAN_MULTI_CONN) {
            reader.disconnect();
            return Ok(None);
        }
        self.engine.identity.check(&mut reader)?;
        Ok(Some(reader))
    }

    /// How long to wait before it connects again, unless it is not to.
    fn pause_after(&self, error: Error, pauses: &mut Pauses) -> Option<Duration> {
        let mut state = self.engine.lock();
        let refusals = self.engine.refusals;
        let fate = state.lost(self.source, self.has_been_connected, error, refusals);
        let has_others = state.has_sources();
        drop(state);
        match fate {
            Fate::Again => return Some(pauses.brief.next()),
            Fate::Later(news) => {
                if let Some(error) = news {
                    log::warn!(target: "root", "{error}; the copy asks it again");
                }
                return Some(pauses.long.next());
            }
            Fate::Leaves => {}
            Fate::Dropped(error) if has_others => {
                log::warn!(target: "root", "{error}; the copy goes on without it");
            }
            Fate::Dropped(error) => self.engine.end(Outcome::Failed(Some(error))),
        }
        None
    }

    /// Reads until the copy has ended (`Ok`) or the connection is lost; then what was in flight is
    /// given back.
    fn read(&mut self, reader: &mut Reader) -> Result<()> {
        self.engine.lock().connected(self.number, self.source, reader.another_handle());
        let mut held = Vec::with_capacity(IN_FLIGHT);
        let outcome = self.read_map(reader).and_then(|()| self.keep_reading(reader, &mut held));
        let mut state = self.engine.lock();
        for lost in held {
            state.chunks.give_back(self.number, lost.chunk);
        }
        state.disconnected(self.number, self.source);
        drop(state);
        self.engine.changed.notify_all();
        outcome
    }

    /// Reads the server's map, if it has one and nobody else does, while the others copy.
    fn read_map(&self, reader: &mut Reader) -> Result<()> {
        if !reader.has_map() || !self.engine.lock().begin_map() {
            return Ok(());
        }
        let outcome = self.follow_map(reader);
        self.engine.lock().end_map(outcome.is_ok());
        self.engine.changed.notify_all();
        outcome
    }

    /// Asks for all of the map, or as much of it as is worth keeping, and then believes it: what is
    /// once believed is not fetched.
    fn follow_map(&self, reader: &mut Reader) -> Result<()> {
        let (identity, region) = (&self.engine.identity, self.engine.region);
        let mut zeroes = Runs::default();
        let Some(mut at) = self.engine.lock().map_at() else { return Ok(()) };
        for _ in 0..MOST_QUESTIONS {
            if at >= region.length || self.engine.lock().has_ended() {
                break;
            }
            let Some(answer) = map::ask(reader, region, at)? else { break };
            if map::is_false(&answer.zeroes, identity, region) {
                log::warn!(target: "root", "{}; the copy does without its map", map::false_map(reader));
                return Ok(());
            }
            answer.zeroes.iter().for_each(|(offset, length)| zeroes.push(*offset, *length));
            if answer.until <= at || zeroes.is_full() {
                break;
            }
            at = answer.until;
        }
        self.engine.lock().map_says(zeroes.as_slice());
        Ok(())
    }

    fn keep_reading(&mut self, reader: &mut Reader, held: &mut Vec<Held>) -> Result<()> {
        loop {
            while held.len() < IN_FLIGHT {
                match self.engine.next(self, !held.is_empty()) {
                    Next::Ask(chunk) => self.ask(reader, held, chunk)?,
                    Next::Listen => break,
                    Next::Leave => return Ok(()),
                }
            }
            match reader.event()? {
                Event::Data { cookie, offset, length } => {
                    let held = held.iter_mut().find(|held| held.cookies.contains(&cookie));
                    self.receive(reader, held, offset, length)?;
                }
                // As file and buffers are already.
                Event::Hole { .. } => {}
                Event::Map { .. } => {}
                Event::Ended { cookie, error } => {
                    let place = held.iter().position(|held| held.cookies.contains(&cookie));
                    if let Some(place) = place {
                        self.ended(reader, held, place, cookie, error)?;
                    }
                }
            }
        }
    }

    /// Asks for a chunk, grown to whole blocks.
    fn ask(&self, reader: &mut Reader, held: &mut Vec<Held>, chunk: Chunk) -> Result<()> {
        let export = reader.export();
        let longest = u64::from(export.blocks.longest()).max(1);
        let wanted = self.engine.region.offset.saturating_add(chunk.offset);
        let (start, length) =
            export.blocks.around(wanted, u64::from(chunk.length), export.size_bytes);
        let (mut at, end) = (start, start.saturating_add(length));
        let mut cookies = Vec::with_capacity(1);
        let mut outcome = Ok(());
        while at < end && outcome.is_ok() {
            let piece = longest.min(end.saturating_sub(at));
            match reader.request_read(at, u32::try_from(piece).unwrap_or(CHUNK)) {
                Ok(cookie) => cookies.push(cookie),
                Err(error) => outcome = Err(error),
            }
            at = at.saturating_add(piece);
        }
        // Ours from here on, also when asking has failed.
        held.push(Held { chunk, cookies, bytes: None, error: None, since: Instant::now() });
        outcome
    }

    /// Takes `length` bytes at `offset` of the export, and keeps those that are the chunk's.
    ///
    /// Through a buffer that stays in the processor's cache. Receiving straight into a mapping of the
    /// file was measured beside it (MB/s, two connections: 846 to 822, 598 to 579, 842 to 979, with
    /// sixteen requests in flight 451 to 712 and 664 to 888): the page faults and the zeroing of
    /// pages cost what the second copy does, and pages of zeroes could not stay holes.
    fn receive(
        &mut self,
        reader: &mut Reader,
        held: Option<&mut Held>,
        offset: u64,
        length: u32,
    ) -> Result<()> {
        let length = u64::from(length);
        let Some(held) = held else { return discard(reader, length) };
        let start = self.engine.region.offset.saturating_add(held.chunk.offset);
        let end = start.saturating_add(u64::from(held.chunk.length));
        // Blocks of a server may begin before the chunk, and end behind it.
        let before = start.saturating_sub(offset).min(length);
        let ours = end.saturating_sub(offset.max(start)).min(length.saturating_sub(before));
        let at = offset.saturating_add(before).saturating_sub(start);
        discard(reader, before)?;
        if ours > 0 {
            let is_whole = ours == u64::from(held.chunk.length);
            let bytes = held.bytes.get_or_insert_with(|| buffer(&mut self.spare, is_whole));
            let place = at as usize..at.saturating_add(ours) as usize;
            match bytes.get_mut(place) {
                Some(place) => reader.payload(place)?,
                None => discard(reader, ours)?,
            }
        }
        discard(reader, length.saturating_sub(before).saturating_sub(ours))
    }

    /// Writes the bytes of a chunk, all of which have come.
    fn keep(&self, chunk: Chunk, bytes: &[u8]) -> Result<()> {
        let bytes = bytes.get(..chunk.length as usize).unwrap_or(bytes);
        if !self.engine.lock().begin_to_write(chunk) {
            return Ok(());
        }
        let written = runs(bytes).into_iter().try_for_each(|(place, run)| {
            let at = chunk.offset.saturating_add(place as u64);
            self.engine.file.file().write_all_at(run, at)
        });
        let mut state = self.engine.lock();
        state.has_written();
        let is_over = state.has_ended();
        drop(state);
        if is_over {
            self.engine.changed.notify_all();
        }
        written.while_doing(|| "writing the image to memory")
    }

    /// An answer is complete, and with it perhaps the chunk.
    fn ended(
        &mut self,
        reader: &Reader,
        held: &mut Vec<Held>,
        place: usize,
        cookie: u64,
        error: Option<u32>,
    ) -> Result<()> {
        let Some(answered) = held.get_mut(place) else { return Ok(()) };
        answered.cookies.retain(|other| *other != cookie);
        answered.error = answered.error.or(error);
        if !answered.cookies.is_empty() {
            return Ok(());
        }
        let Held { chunk, bytes, error, since, .. } = held.swap_remove(place);
        if let Some(number) = error {
            self.spare.extend(bytes);
            let offset = self.engine.region.offset.saturating_add(chunk.offset);
            return self.failed(chunk, reader.read_error(number, offset));
        }
        if let Some(bytes) = bytes {
            let kept = self.keep(chunk, &bytes);
            self.spare.push(bytes);
            if let Err(error) = kept {
                // Ours alone to mend, and nobody can: the next leaves.
                self.engine.end(Outcome::Failed(Some(error)));
                return Ok(());
            }
        }
        self.has_brought = true;
        let took = since.elapsed();
        self.usual = (self.usual.saturating_mul(7).saturating_add(took)) / 8;
        self.engine.pace.took(self.source, took);
        let mut state = self.engine.lock();
        state.finish(chunk, self.source);
        let is_over = state.has_ended();
        drop(state);
        if is_over {
            self.engine.changed.notify_all();
        }
        Ok(())
    }

    /// The server could not read: the chunk is asked for again when nothing else is left.
    fn failed(&self, chunk: Chunk, error: Error) -> Result<()> {
        log::debug!(target: "root", "{error}");
        if error.is_transient() {
            // A server that ends, which says nothing about the block.
            self.engine.lock().chunks.give_back(self.number, chunk);
            self.engine.changed.notify_all();
            return Err(error);
        }
        let failures = self.engine.lock().failed(self.number, self.source, chunk);
        self.engine.changed.notify_all();
        if failures >= MOST_FAILURES {
            return Err(error);
        }
        Ok(())
    }
}

/// For a chunk: of zeroes, unless all of it is written over at once.
fn buffer(spare: &mut Vec<Vec<u8>>, is_written_over: bool) -> Vec<u8> {
    match spare.pop() {
        Some(mut bytes) => {
            if !is_written_over {
                bytes.fill(0);
            }
            bytes
        }
        None => vec![0; CHUNK as usize],
    }
}

/// Takes what nobody wants.
fn discard(reader: &mut Reader, length: u64) -> Result<()> {
    let mut scratch = [0; 4096];
    let mut left = length;
    while left > 0 {
        let piece = left.min(scratch.len() as u64);
        if let Some(bytes) = scratch.get_mut(..piece as usize) {
            reader.payload(bytes)?;
        }
        left = left.saturating_sub(piece);
    }
    Ok(())
}

/// The parts of `bytes` that are not pages of zeroes, with where they begin.
fn runs(bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut runs = Vec::new();
    let mut rest = bytes.chunks(PAGE).map(is_zero).enumerate().peekable();
    while let Some((first, zero)) = rest.next() {
        if zero {
            continue;
        }
        let mut end = first.saturating_add(1);
        while rest.next_if(|(_, zero)| !zero).is_some() {
            end = end.saturating_add(1);
        }
        let start = first.saturating_mul(PAGE);
        let end = end.saturating_mul(PAGE).min(bytes.len());
        runs.extend(bytes.get(start..end).map(|run| (start, run)));
    }
    runs
}

/// Eight bytes at a time, because the compiler optimises for size and would take them one by one.
fn is_zero(page: &[u8]) -> bool {
    let (words, rest) = page.as_chunks::<8>();
    words.iter().all(|word| u64::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn pages_of_zeroes_are_left_out() {
        let page = |byte| vec![byte; PAGE];
        let cases: [(&str, Vec<Vec<u8>>, Vec<(usize, usize)>); 7] = [
            ("nothing",                vec![],                                                 vec![]),
            ("zeroes",                 vec![page(0), page(0), vec![0; 100]],                   vec![]),
            ("data",                   vec![page(1), page(2), vec![3; 100]],                   vec![(0, 2 * PAGE + 100)]),
            ("zeroes in the middle",   vec![page(1), page(0), page(0), page(2)],               vec![(0, PAGE), (3 * PAGE, PAGE)]),
            ("zeroes at both ends",    vec![page(0), page(2), vec![0; 7]],                     vec![(PAGE, PAGE)]),
            ("one byte, the very last", vec![page(0), vec![0; 10], vec![1]],                   vec![(PAGE, 11)]),
            ("one byte in a page",     vec![page(0), [vec![0; 9], vec![1], vec![0; 4086]].concat()], vec![(PAGE, PAGE)]),
        ];
        for (case, pages, expected) in cases {
            let bytes = pages.concat();
            let got: Vec<_> = runs(&bytes).iter().map(|(at, run)| (*at, run.len())).collect();
            assert_eq!(got, expected, "{case}");
        }
    }
}
