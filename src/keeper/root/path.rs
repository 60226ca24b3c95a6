//! Where requests of the root go, and how that is changed: the only place in which a table is
//! switched and a connection is given up.

use std::fs::File;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Root;
use crate::error::{Error, Result, WhileDoing};
use crate::keeper::spawn;
use crate::root::mapping::Mapping;
use crate::root::nbd::client::Connection;
use crate::root::nbd::device;
use crate::root::path_number;
use crate::sys::dm::Number;
use crate::sys::loop_device;

/// Paths of the root begin here: the first device is the boot's, the second one is for swap.
const FIRST_INDEX: u32 = 2;
/// Of no device.
const NONE: u32 = u32::MAX;
/// For the kernel to open a connection's device: reading a partition table.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// For requests in flight to be answered, before their connection is given up for another that is
/// ready: what they asked for is sent over that one.
const LAST_ANSWERS: Duration = Duration::from_millis(50);

/// Where requests go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    Server {
        /// Of the NBD device.
        index: u32,
        /// Of the list of sources.
        source: usize,
    },
    Memory,
}

/// The root's devices, and where they lead.
pub struct Paths {
    pub mapping: Mapping,
    /// Held while the kernel switches tables, which may wait for a server.
    switching: Mutex<()>,
    /// Never held while anything waits.
    now: Mutex<Path>,
    /// The last connection that was given up.
    cut: AtomicU32,
}

/// How far a connection is on its way to be the root's.
enum Attempt {
    Connecting,
    /// The device is there, and is opened.
    Opening(u32),
    /// There is no way back.
    Switching(u32),
    /// Nobody waits for it any more.
    GivenUp,
}

impl Paths {
    pub fn new(mapping: Mapping, now: Path) -> Self {
        let (switching, now) = (Mutex::new(()), Mutex::new(now));
        Self { mapping, switching, now, cut: AtomicU32::new(NONE) }
    }

    pub fn now(&self) -> Path {
        *locked(&self.now)
    }

    pub fn has_failed(&self) -> bool {
        self.mapping.has_failed().unwrap_or(false)
    }

    /// Whether it was we who gave up this connection.
    pub fn has_cut(&self, index: u32) -> bool {
        self.cut.load(Ordering::Relaxed) == index
    }

    /// Gives a connection up: what was asked over it comes back to the device above, and waits.
    ///
    /// Everything after it relies on that, so it is not given up at the first want of memory.
    pub fn cut(&self, index: u32) {
        const TRIES: u32 = 5;
        const PAUSE: Duration = Duration::from_millis(50);
        self.cut.store(index, Ordering::Relaxed);
        for tries_left in (0..TRIES).rev() {
            match device::disconnect(index) {
                Ok(()) => return,
                Err(error) if tries_left == 0 => {
                    log::warn!(target: "root", "{error}; reads may hang")
                }
                Err(error) => log::debug!(target: "root", "{error}"),
            }
            thread::sleep(PAUSE);
        }
    }

    /// Makes a device of a connection, and gives its index.
    fn connect(&self, connection: Connection) -> Result<u32> {
        let index = device::connect_next(FIRST_INDEX, connection)?;
        if self.has_cut(index) {
            // That was its last user.
            self.cut.store(NONE, Ordering::Relaxed);
        }
        Ok(index)
    }

    /// Lets requests go to `path`, which is on `number`, and gives where they have gone before.
    fn switch(&self, number: Number, path: Path) -> Result<Path> {
        let _switching = locked(&self.switching);
        if self.now() == Path::Memory {
            return Err(Error::refused("bringing the root another connection", "it is in memory"));
        }
        self.mapping.switch(number)?;
        Ok(std::mem::replace(&mut *locked(&self.now), path))
    }
}

impl Root {
    /// Lets requests go over `connection`, and gives up the one they have gone over before. The
    /// kernel gets `patience` to open it.
    ///
    /// # Errors
    /// It does not work; then everything is as it was, and the connection is gone.
    pub fn activate(
        self: &Arc<Self>,
        source: usize,
        connection: Connection,
        patience: Duration,
    ) -> Result<()> {
        const LOOK: Duration = Duration::from_millis(10);
        let attempt = Arc::new(Mutex::new(Attempt::Connecting));
        let (done, outcome) = channel();
        let (root, its) = (Arc::clone(self), Arc::clone(&attempt));
        // The kernel may wait for the server in it for as long as it likes.
        spawn("activation", move || {
            let _ = done.send(root.bring(source, connection, &its));
        })?;
        let began = Instant::now();
        let mut switching_since = None;
        loop {
            match outcome.recv_timeout(LOOK) {
                Ok(outcome) => return outcome,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::refused(BRINGING, "its thread has ended"));
                }
            }
            let mut attempt = locked(&attempt);
            if let Attempt::Switching(new) = *attempt {
                drop(attempt);
                let since = *switching_since.get_or_insert_with(Instant::now);
                if let Path::Server { index: old, .. } = self.paths.now()
                    && since.elapsed() >= LAST_ANSWERS
                    && old != new
                    && !self.paths.has_cut(old)
                {
                    self.paths.cut(old);
                }
            } else if began.elapsed() >= patience {
                let was = std::mem::replace(&mut *attempt, Attempt::GivenUp);
                drop(attempt);
                if let Attempt::Opening(index) = was {
                    // Whatever it waits for fails now.
                    self.paths.cut(index);
                }
                return Err(Error::silence(BRINGING, patience));
            }
        }
    }

    /// What [`Self::activate`] waits for. Who has taken the attempt further, or has given it up,
    /// answers for the connection.
    fn bring(&self, source: usize, connection: Connection, attempt: &Mutex<Attempt>) -> Result<()> {
        let given_up = || Error::refused(BRINGING, "it took too long");
        let export = connection.export().clone();
        let index = self.paths.connect(connection)?;
        {
            let mut attempt = locked(attempt);
            if let Attempt::GivenUp = *attempt {
                drop(attempt);
                self.paths.cut(index);
                return Err(given_up());
            }
            *attempt = Attempt::Opening(index);
        }
        // Either waits for what somebody else has asked of the device since, as udev does.
        device::tune(index, &export);
        let opened = path_number(index, self.orders.partition, self.orders.region);
        let number = {
            let mut attempt = locked(attempt);
            if let Attempt::GivenUp = *attempt {
                return Err(given_up());
            }
            // Under the lock: once it is given up the index may be another connection's.
            let number = opened.inspect_err(|_| self.paths.cut(index))?;
            *attempt = Attempt::Switching(index);
            number
        };
        let path = Path::Server { index, source };
        match self.paths.switch(number, path) {
            Ok(Path::Server { index: before, .. }) if before != index => {
                self.paths.cut(before);
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => {
                self.paths.cut(index);
                Err(error)
            }
        }
    }

    /// Lets all requests be answered from the complete image in `file`, and the server go.
    ///
    /// Gives how long reads had to stand still for it.
    pub fn flip(&self, file: &File) -> Result<Duration> {
        // Closes itself behind its last user, which is the root's device.
        let copy = loop_device::attach(file, &self.orders.export)?;
        let doing = || format!("opening {}", copy.path().display());
        let number = File::open(copy.path()).and_then(Number::of).while_doing(doing)?;
        let paths = &self.paths;
        // To the end, so that nobody brings another server at this moment.
        let switching = locked(&paths.switching);
        paths.mapping.prepare_to_settle(number)?;
        let stood_still = paths.settle()?;
        *locked(&paths.now) = Path::Memory;
        drop(switching);
        paths.mapping.tidy_up();
        self.is_in_memory(copy.path());
        Ok(stood_still)
    }
}

impl Paths {
    /// Switches to what was prepared, and lets the server go. Gives how long the first has taken.
    ///
    /// Switching waits for what is in flight, and for a server that hangs in this very moment it
    /// would do so for ever. Then it is let go at once, and what it owes is kept by the device and
    /// answered from memory.
    fn settle(&self) -> Result<Duration> {
        let before = self.now();
        let (switched, outcome) = channel();
        thread::scope(|scope| {
            if let Path::Server { index, .. } = before {
                let let_go = move || {
                    if outcome.recv_timeout(LAST_ANSWERS) != Ok(false) {
                        self.cut(index);
                    }
                };
                let spawned = thread::Builder::new().name("flip".into());
                if spawned.spawn_scoped(scope, let_go).is_err() {
                    self.cut(index);
                }
            }
            let began = Instant::now();
            let settled = self.mapping.settle();
            let took = began.elapsed();
            let _ = switched.send(settled.is_ok());
            settled.map(|()| took)
        })
    }
}

const BRINGING: &str = "bringing the root another connection";

/// A poisoned lock means that a thread has panicked, which nothing here can.
fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
