//! Asks servers for the image, each in a thread of its own, and takes what comes first.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use super::turns::Asking;
use crate::error::{Error, Result};
use crate::keeper::orders::RootOrders;
use crate::keeper::status::SourceState;
use crate::root::Source;
use crate::root::identity::Identity;
use crate::root::nbd::client::Connection;
use crate::root::nbd::device;

/// Everybody who is being asked, for one trouble.
pub struct Race {
    arrive: Sender<Answer>,
    arrivals: Receiver<Answer>,
    wanted: Arc<Wanted>,
}

/// What a server must have to be the root's.
struct Wanted {
    identity: Identity,
    /// Of the device that the root was mounted from.
    block_bytes: u32,
}

pub struct Answer {
    pub source: usize,
    /// What it had been given.
    pub patience: Duration,
    /// A connection to the same image.
    pub outcome: Result<Connection, Failure>,
}

/// Why a server is of no use.
pub enum Failure {
    NoConnection(Error),
    AnotherImage(Error),
    /// It has answered, and the kernel could not use it.
    Unusable(Error),
}

impl Answer {
    fn to(Asking { source, patience }: Asking, outcome: Result<Connection, Failure>) -> Self {
        Self { source, patience, outcome }
    }
}

impl Failure {
    pub fn error(&self) -> &Error {
        match self {
            Self::NoConnection(error) | Self::AnotherImage(error) | Self::Unusable(error) => error,
        }
    }

    pub fn state(&self) -> SourceState {
        match self {
            Self::AnotherImage(_) => SourceState::AnotherImage,
            Self::Unusable(_) => SourceState::Unusable,
            Self::NoConnection(error) if error.is_transient() => SourceState::Unreachable,
            Self::NoConnection(_) => SourceState::Refuses,
        }
    }
}

/// The kernel repeats a SYN that was lost after 1, 3 and 7 s: while a cable is out, a fresh attempt
/// is there earlier than the next repetition.
const CONNECTING: Duration = Duration::from_secs(2);

impl Race {
    pub fn new(orders: &RootOrders) -> Self {
        let (arrive, arrivals) = channel();
        Self { arrive, arrivals, wanted: Arc::new(Wanted::by(orders)) }
    }

    /// Lets a server begin to answer.
    pub fn ask(&self, source: &Source, asking: Asking) {
        let (arrive, source) = (self.arrive.clone(), source.clone());
        let wanted = Arc::clone(&self.wanted);
        let started = thread::Builder::new().name("asking".into()).spawn(move || {
            let outcome = wanted.of(&source, asking.patience);
            // Nobody waits for it any more when another was quicker.
            let _ = arrive.send(Answer::to(asking, outcome));
        });
        if let Err(error) = started {
            let failure = Failure::NoConnection(Error::new("asking a server", error));
            let _ = self.arrive.send(Answer::to(asking, Err(failure)));
        }
    }

    /// The next answer, if there is one within `patience`.
    pub fn next(&self, patience: Duration) -> Option<Answer> {
        self.arrivals.recv_timeout(patience).ok()
    }
}

/// Asks one server, and waits for its answer.
pub fn ask(
    orders: &RootOrders,
    source: &Source,
    patience: Duration,
) -> Result<Connection, Failure> {
    Wanted::by(orders).of(source, patience)
}

impl Wanted {
    fn by(orders: &RootOrders) -> Self {
        Self { identity: orders.identity.clone(), block_bytes: orders.block_bytes }
    }

    fn of(&self, source: &Source, patience: Duration) -> Result<Connection, Failure> {
        let within = (patience.min(CONNECTING), patience);
        let connection = Connection::open_within(&source.peer, &source.names, within);
        let mut connection = connection.map_err(Failure::NoConnection)?;
        match self.identity.difference(&mut connection) {
            Ok(None) => {}
            Ok(Some(other)) => return Err(Failure::AnotherImage(other)),
            Err(error) if error.is_transient() => return Err(Failure::NoConnection(error)),
            Err(error) => return Err(Failure::Unusable(error)),
        }
        let suits = device::suits(connection.export(), self.block_bytes);
        suits.map_err(|why| {
            let doing = format!("using \"{}\" of {}", connection.export().name, source.peer);
            Failure::NoConnection(Error::refused(doing, why))
        })?;
        Ok(connection)
    }
}
