//! Looks after the servers that are not in use: a mirror that died in spring is found out then, and
//! not when it is needed; and a node goes back to its own server when that is well again, or all
//! nodes of a room would stay on the one that was restarted last.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use super::Root;
use super::path::Path;
use super::race::{self, Failure};
use crate::error::Result;
use crate::keeper::spawn;
use crate::keeper::status::{RootState, SourceState, now};
use crate::root::nbd::client::Connection;
use crate::root::{Backoff, Peer, a_part_of};

/// What the root's thread has of it.
pub struct Standby {
    tell: Sender<()>,
    better: Receiver<Better>,
}

/// A server that this node prefers to the one it uses, and a connection to its image.
pub struct Better {
    pub source: usize,
    pub connection: Connection,
    at: Instant,
}

/// For a handshake and the samples; nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(15);
/// After a failover, for the node's own server to be back.
const SOON: Duration = Duration::from_secs(15);
const FIRST: Duration = Duration::from_secs(60);
/// Of a thousand nodes hardly two ask the same server in one second.
const LONGEST: Duration = Duration::from_secs(600);

impl Standby {
    /// Begins to look, where there is more than one server.
    pub fn look_after(root: &Arc<Root>) -> Result<Self> {
        let (tell, told) = channel();
        let (offer, better) = sync_channel(1);
        if root.orders.sources.len() > 1 {
            let root = Arc::clone(root);
            spawn("standby", move || watch(&root, &told, &offer))?;
        }
        Ok(Self { tell, better })
    }

    /// There was trouble: somebody may come back soon.
    pub fn tell(&self) {
        // Who has ended needs no telling.
        let _ = self.tell.send(());
    }

    /// A server to go back to, if there is one now.
    pub fn better(&self) -> Option<Better> {
        /// A connection that nobody has taken at once may be worth nothing by now.
        const FRESH: Duration = Duration::from_secs(2);
        self.better.try_recv().ok().filter(|better| better.at.elapsed() < FRESH)
    }
}

fn watch(root: &Root, told: &Receiver<()>, offer: &SyncSender<Better>) {
    let mut pauses = Backoff::between(FIRST, LONGEST);
    let mut looks = Looks::new(root.orders.sources.iter().map(|source| source.peer.clone()));
    let mut due = Instant::now();
    loop {
        due = later(due, &mut pauses);
        loop {
            match told.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(()) => {
                    pauses = Backoff::between(SOON, LONGEST);
                    // Never later than it would have been, however much there is to tell.
                    due = due.min(later(Instant::now(), &mut pauses));
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        due = Instant::now();
        let Path::Server { source: used, .. } = root.paths.now() else { return };
        // Those who look for a server ask all of them.
        if root.shared.status().root.state == RootState::Streamed {
            look(root, used, &mut looks, offer);
        }
    }
}

/// After the next pause and a part of it, so that nodes that were told together come apart.
fn later(now: Instant, pauses: &mut Backoff) -> Instant {
    let pause = pauses.next();
    now.checked_add(pause.saturating_add(a_part_of(pause))).unwrap_or(now)
}

fn look(root: &Root, used: usize, looks: &mut Looks, offer: &SyncSender<Better>) {
    let mut better = None;
    for (number, source) in root.orders.sources.iter().enumerate() {
        if number == used {
            looks.forget(number);
            continue;
        }
        match race::ask(&root.orders, source, PATIENCE) {
            Ok(connection) => {
                root.stands_by(number, looks.is_well(number));
                if better.is_none() && looks.is_worth_going_back(number, used) {
                    better = Some((number, connection));
                } else {
                    connection.disconnect();
                }
            }
            Err(failure) => {
                let is_news = looks.is_missing(number, used);
                root.is_missing(number, &failure, is_news);
            }
        }
    }
    if let Some((source, connection)) = better {
        // There is no place for it while the root is in trouble, and has no use for it.
        let _ = offer.try_send(Better { source, connection, at: Instant::now() });
    }
}

/// What the last looks at each server have shown. Pure.
struct Looks(Vec<Seen>);

struct Seen {
    peer: Peer,
    /// How often in a row it has answered as it should.
    well: u32,
    /// That it does not has been said.
    is_missed: bool,
}

impl Looks {
    fn new(peers: impl Iterator<Item = Peer>) -> Self {
        Self(peers.map(|peer| Seen { peer, well: 0, is_missed: false }).collect())
    }

    /// It is in use, which tells more than a look.
    fn forget(&mut self, source: usize) {
        if let Some(seen) = self.0.get_mut(source) {
            (seen.well, seen.is_missed) = (0, false);
        }
    }

    /// Counts a good look, and gives whether that is news.
    fn is_well(&mut self, source: usize) -> bool {
        let Some(seen) = self.0.get_mut(source) else { return false };
        seen.well = seen.well.saturating_add(1);
        std::mem::replace(&mut seen.is_missed, false)
    }

    /// Counts a bad look, and gives whether that is news: another address of the server that is in
    /// use is not missed.
    fn is_missing(&mut self, source: usize, used: usize) -> bool {
        let is_used = self.are_one_server(source, used);
        let Some(seen) = self.0.get_mut(source) else { return false };
        seen.well = 0;
        !is_used && !std::mem::replace(&mut seen.is_missed, true)
    }

    /// Whether a server is earlier in the node's order than `used`, and was well twice in a row.
    fn is_worth_going_back(&self, source: usize, used: usize) -> bool {
        let is_well = self.0.get(source).is_some_and(|seen| seen.well >= 2);
        is_well && source < used && !self.are_one_server(source, used)
    }

    fn are_one_server(&self, one: usize, other: usize) -> bool {
        let peers = self.0.get(one).zip(self.0.get(other));
        peers.is_some_and(|(one, other)| one.peer.is_of_the_server_of(&other.peer))
    }
}

impl Root {
    /// A server that is not in use would be there.
    fn stands_by(&self, source: usize, is_news: bool) {
        self.note_standby(source, SourceState::Standby, None);
        if is_news {
            log::info!(target: "root", "{} is there again, and stands by", self.name_of(source));
        }
    }

    /// A server that is not in use would not be there.
    fn is_missing(&self, source: usize, failure: &Failure, is_news: bool) {
        let error = failure.error();
        self.note_standby(source, failure.state(), Some(error.cause().to_string()));
        if is_news {
            log::warn!(target: "root", "{error}; there is one server less to stand in, until it is back");
        }
    }

    fn note_standby(&self, source: usize, state: SourceState, trouble: Option<String>) {
        let mut status = self.shared.status();
        if let Some(known) = status.sources.get_mut(source)
            && !matches!(known.state, SourceState::InUse | SourceState::LetGo)
        {
            (known.state, known.trouble, known.asked_at) = (state, trouble, Some(now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn a_node_goes_back_to_a_server_of_its_own_that_was_well_twice() {
        let peers = [("", 1), ("b", 2), ("b", 3), ("", 4)].map(|(name, last)| Peer {
            address: std::net::SocketAddr::from(([10, 0, 0, last], 10809)),
            name: (!name.is_empty()).then(|| name.to_owned()),
        });
        let cases = [
            // looked at, used, how often: goes back
            (0, 1, 1, false),
            (0, 1, 2, true),
            (0, 1, 3, true),
            (1, 2, 3, false), // the same server
            (1, 3, 2, true),
            (3, 1, 9, false), // this node prefers the one it has
            (7, 1, 9, false),
        ];
        for (source, used, times, expected) in cases {
            let mut looks = Looks::new(peers.clone().into_iter());
            for _ in 0..times {
                looks.is_well(source);
            }
            let got = looks.is_worth_going_back(source, used);
            assert_eq!(got, expected, "{times} looks at {source}, using {used}");
            looks.is_missing(source, used);
            looks.is_well(source);
            assert!(!looks.is_worth_going_back(source, used), "it was away since");
        }
    }

    #[test]
    fn a_server_is_missed_once_and_its_other_addresses_are_not() {
        let peer = |name: &str, last| Peer {
            address: std::net::SocketAddr::from(([10, 0, 0, last], 10809)),
            name: Some(name.to_owned()),
        };
        let mut looks = Looks::new([peer("a", 1), peer("a", 2), peer("b", 3)].into_iter());
        assert!(!looks.is_missing(1, 0), "the other address is in use");
        assert!(looks.is_missing(2, 0));
        assert!(!looks.is_missing(2, 0), "it has been said");
        assert!(looks.is_well(2), "it is back");
        assert!(!looks.is_well(2));
        assert!(looks.is_missing(1, 2), "another server is in use");
    }
}
