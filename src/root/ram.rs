//! Copies the image into memory in userland, over several connections.
//!
//! The kernel's driver is not involved: no block device, no page cache in between, so the image is
//! in memory exactly once. Chunks that are all zeroes stay holes. A lost connection costs only what
//! was in flight; its worker reconnects for as long as it takes, and goes on only when the server
//! still has the image that the copy began with. Gives a sealed file of exactly the region's bytes
//! (a tail of zeroes fills the last sector).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::chunks::{Chunk, Chunks};
use super::nbd::client::{Connection, Peer};
use super::nbd::protocol::Flags;
use super::probe::{ReadAt, Root};
use super::server::Backoff;
use super::size::Size;
use crate::console;
use crate::error::{Error, Result, WhileDoing};
use crate::sys::memory;

/// Eight requests of 256 KiB on each connection: of the combinations measured on loopback the
/// fastest with qemu-nbd and nbdkit. nbd-server, whose connections are processes, does not mind.
const CHUNK: u32 = 256 << 10;
const IN_FLIGHT: usize = 8;

/// Failures reported by the server, without one success in between, after which it is believed.
const MOST_FAILURES: u32 = 20;

/// Copies `root` into memory, from the export behind `first`.
///
/// Takes as long as the server needs to be there; fails where waiting cannot help: the server
/// cannot read the image, or has another one by now.
pub fn copy(first: Connection, root: &Root) -> Result<File> {
    const SECTOR: u64 = 512;
    let length = root.length;
    let export = first.export();
    let file = memory::create_file("landfall-root", length.next_multiple_of(SECTOR))?;
    let step = CHUNK.min(export.blocks.longest());
    let workers = connections(export.flags);
    let label = format!("\"{}\" from {}", export.name, first.peer());
    let copy = Arc::new(Copy {
        peer: first.peer().clone(),
        names: vec![export.name.clone()],
        export_size: export.size_bytes,
        offset: root.offset,
        length,
        fingerprint: root.head.clone(),
        file,
        state: Mutex::new(State {
            chunks: Chunks::new(root.offset, length, step),
            connected: 0,
            ended: None,
            trouble: None,
            failures: 0,
        }),
        changed: Condvar::new(),
    });

    let mut first = Some(first);
    for number in 0..workers {
        let worker = Worker { copy: Arc::clone(&copy), has_been_connected: number == 0 };
        let connection = first.take();
        let spawned = thread::Builder::new()
            .name(format!("copy {number}"))
            .spawn(move || worker.work(connection));
        match spawned {
            Err(error) if number == 0 => return Err(error).while_doing(|| "starting to copy"),
            Err(error) => log::debug!(target: "root", "copying with {number} connections: {error}"),
            // Not joined: a worker may sit in a handshake with a server that serves one client
            // at a time, and owns nothing that anybody waits for.
            Ok(_) => {}
        }
    }
    let started = Instant::now();
    copy.watch(&label)?;
    memory::seal(&copy.file)?;
    let seconds = started.elapsed().as_secs_f64();
    let rate = Size((length as f64 / seconds.max(0.001)) as u64);
    log::info!(target: "root", "{label} copied to RAM: {} in {seconds:.1} s ({rate}/s)", Size(length));
    copy.file.try_clone().while_doing(|| "keeping the image in memory")
}

/// How many connections read at once: one for each processor that could be busy with one, at
/// least two so that the server never waits for us, at most four because a room of machines boots
/// together and each connection is a process of nbd-server.
///
/// What CAN_MULTI_CONN promises concerns writes; nobody writes to a read-only export.
fn connections(flags: Flags) -> usize {
    if flags.has(Flags::READ_ONLY) || flags.has(Flags::CAN_MULTI_CONN) {
        thread::available_parallelism().map_or(2, |processors| processors.get().clamp(2, 4))
    } else {
        1
    }
}

/// A copy under way, as all its workers see it.
struct Copy {
    peer: Peer,
    names: Vec<String>,
    export_size: u64,
    offset: u64,
    length: u64,
    /// First bytes of the region: all superblocks, with their identifiers and times.
    fingerprint: Vec<u8>,
    file: File,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    chunks: Chunks,
    /// Workers whose connection works.
    connected: usize,
    /// Set once, when there is nothing left to do or no way to do it.
    ended: Option<Result<()>>,
    /// What stopped the connection that was lost last.
    trouble: Option<String>,
    /// Failed reads since the last good one.
    failures: u32,
}

impl Copy {
    /// Shows progress, and what the copy waits for, until it has ended.
    fn watch(&self, label: &str) -> Result<()> {
        const REDRAW: Duration = Duration::from_millis(200);
        let progress =
            console::progress("root", format!("copying {label} to RAM"), Some(self.length));
        let mut waiting = None;
        let mut state = self.lock();
        loop {
            if let Some(ended) = state.ended.take() {
                // Workers that look again must find that it is over.
                state.ended = Some(Ok(()));
                self.changed.notify_all();
                return ended;
            }
            match (&state.trouble, state.connected) {
                (Some(trouble), 0) => waiting
                    .get_or_insert_with(|| console::waiting("root", trouble.clone()))
                    .still(trouble.clone()),
                _ if waiting.take().is_some() => {
                    let kept = Size(state.chunks.done_bytes());
                    log::info!(target: "root", "{} answers again; {kept} were kept", self.peer);
                }
                _ => {}
            }
            progress.at(state.chunks.done_bytes());
            state =
                self.changed.wait_timeout(state, REDRAW).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A poisoned lock means that a worker has panicked, which nothing here can.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, outcome: Result<()>) {
        self.lock().ended.get_or_insert(outcome);
        self.changed.notify_all();
    }

    /// Waits until there is a chunk to take (`true`) or the copy has ended.
    fn wait_for_work(&self) -> bool {
        let idle = |state: &mut State| state.ended.is_none() && !state.chunks.has_work();
        let state =
            self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        state.ended.is_none()
    }

    /// Sleeps, but not beyond the end of the copy.
    fn pause(&self, pause: Duration) {
        let going_on = |state: &mut State| state.ended.is_none();
        drop(self.changed.wait_timeout_while(self.lock(), pause, going_on));
    }

    /// Another connection to the same image.
    fn reconnect(&self) -> Result<Connection> {
        let mut connection = Connection::open(&self.peer, &self.names)?;
        let doing = || format!("reading on from {}", self.peer);
        let hint = "was the image replaced while this machine booted? boot again";
        let size = connection.export().size_bytes;
        if size != self.export_size {
            let why = format!("its image had {}, and has {size} bytes now", self.export_size);
            return Err(Error::refused(doing(), why).with_hint(hint));
        }
        let mut head = vec![0; self.fingerprint.len()];
        connection.read_at(self.offset, &mut head)?;
        if head != self.fingerprint {
            let why = "it has another image of the same size by now";
            return Err(Error::refused(doing(), why).with_hint(hint));
        }
        Ok(connection)
    }

    fn store(&self, chunk: Chunk, bytes: &[u8]) -> Result<()> {
        /// Runs of zeroes that are worth a hole.
        const PIECE: usize = 64 << 10;
        let mut at = chunk.offset;
        for piece in bytes.chunks(PIECE) {
            if piece.iter().any(|byte| *byte != 0) {
                self.file.write_all_at(piece, at).while_doing(|| "writing the image to memory")?;
            }
            at = at.saturating_add(piece.len() as u64);
        }
        let mut state = self.lock();
        state.chunks.finish(chunk);
        state.failures = 0;
        if state.chunks.is_complete() {
            state.ended.get_or_insert(Ok(()));
            drop(state);
            self.changed.notify_all();
        }
        Ok(())
    }
}

/// One connection after the other, in one thread.
struct Worker {
    copy: Arc<Copy>,
    /// Servers may refuse a second client; only who was welcome before has something to report.
    has_been_connected: bool,
}

/// A request that has no answer yet.
struct Flying {
    cookie: u64,
    chunk: Chunk,
    /// Bytes that the answer has before the chunk and in all, because servers read whole blocks.
    skip: usize,
    length: usize,
}

impl Worker {
    fn work(mut self, mut connection: Option<Connection>) {
        let mut backoff = Backoff::new();
        while self.copy.wait_for_work() {
            let error = match connection.take().map_or_else(|| self.copy.reconnect(), Ok) {
                Ok(mut connection) => {
                    self.has_been_connected = true;
                    self.copy.lock().connected += 1;
                    let outcome = self.read_chunks(&mut connection);
                    self.copy.lock().connected -= 1;
                    match outcome {
                        Ok(()) => return connection.disconnect(),
                        Err(error) => {
                            backoff = Backoff::new();
                            error
                        }
                    }
                }
                Err(error) => error,
            };
            log::debug!(target: "root", "{error}");
            if !self.has_been_connected {
                // Unwelcome: the others copy without us.
                if !error.is_transient() {
                    return;
                }
            } else if error.is_transient() {
                self.copy.lock().trouble = Some(format!("{}: {}", self.copy.peer, error.cause()));
            } else {
                // Others may still be reading from the server that was, which is consistent.
                if self.copy.lock().connected == 0 {
                    self.copy.end(Err(error));
                }
                return;
            }
            self.copy.pause(backoff.next());
        }
        if let Some(connection) = connection {
            connection.disconnect();
        }
    }

    /// Reads until the copy has ended (`Ok`) or the connection is lost; then what was in flight is
    /// given back.
    fn read_chunks(&self, connection: &mut Connection) -> Result<()> {
        let mut flying = Vec::with_capacity(IN_FLIGHT);
        let outcome = self.keep_reading(connection, &mut flying);
        let mut state = self.copy.lock();
        for lost in flying {
            state.chunks.give_back(lost.chunk);
        }
        drop(state);
        self.copy.changed.notify_all();
        outcome
    }

    fn keep_reading(&self, connection: &mut Connection, flying: &mut Vec<Flying>) -> Result<()> {
        let mut buffer = vec![0; CHUNK as usize];
        let mut cookie = 0u64;
        let export = connection.export().clone();
        loop {
            while flying.len() < IN_FLIGHT {
                let Some(chunk) = self.copy.lock().chunks.take() else { break };
                cookie = cookie.wrapping_add(1);
                let wanted = self.copy.offset.saturating_add(chunk.offset);
                let (start, length) =
                    export.blocks.around(wanted, u64::from(chunk.length), export.size_bytes);
                let length = u32::try_from(length).unwrap_or(CHUNK);
                // Ours from here on, also when asking fails.
                flying.push(Flying {
                    cookie,
                    chunk,
                    skip: usize::try_from(wanted.saturating_sub(start)).unwrap_or(0),
                    length: length as usize,
                });
                connection.request_read(cookie, start, length)?;
            }
            if flying.is_empty() {
                if self.copy.wait_for_work() {
                    continue;
                }
                return Ok(());
            }
            let reply = connection.reply()?;
            let Some(place) = flying.iter().position(|request| request.cookie == reply.cookie)
            else {
                return Err(connection.confused("an answer to nothing"));
            };
            let Flying { chunk, skip, length, .. } = flying.swap_remove(place);
            if reply.error != 0 {
                let offset = self.copy.offset.saturating_add(chunk.offset);
                self.failed(chunk, connection.read_error(reply.error, offset))?;
                continue;
            }
            let outcome = match buffer.get_mut(..length) {
                Some(answer) => self.receive(connection, answer, skip, chunk),
                None => Err(connection.confused("a longer answer")),
            };
            if let Err(error) = outcome {
                self.copy.lock().chunks.give_back(chunk);
                return Err(error);
            }
        }
    }

    fn receive(
        &self,
        connection: &mut Connection,
        answer: &mut [u8],
        skip: usize,
        chunk: Chunk,
    ) -> Result<()> {
        connection.payload(answer)?;
        match answer.get(skip..).and_then(|rest| rest.get(..chunk.length as usize)) {
            Some(bytes) => self.copy.store(chunk, bytes),
            None => Err(connection.confused("a shorter answer")),
        }
    }

    /// The server could not read: again, and not for ever.
    fn failed(&self, chunk: Chunk, error: Error) -> Result<()> {
        const PAUSE: Duration = Duration::from_millis(100);
        let mut state = self.copy.lock();
        state.chunks.give_back(chunk);
        state.failures = state.failures.saturating_add(1);
        let failures = state.failures;
        drop(state);
        self.copy.changed.notify_all();
        log::debug!(target: "root", "{error}");
        if error.is_transient() || failures >= MOST_FAILURES {
            return Err(error);
        }
        self.copy.pause(PAUSE);
        Ok(())
    }
}
