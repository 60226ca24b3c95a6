//! Keeps a streamed root readable: notices when its connection is dead or hangs, asks all servers
//! at once for the same image, and brings the first answer.
//!
//! What waits meanwhile waits in the kernel (`crate::root::mapping`). Dead is a connection of which
//! the kernel says so, or whose path has failed. Hanging is one that has answered nothing for a
//! while although something was asked, and only while another connection, to the same server or to
//! a mirror, does answer: a room of nodes behind a slow server must not make it slower.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::orders::{Backing, LazyOrders, RootOrders};
use super::{Shared, lazy, spawn};
use crate::error::{Error, Result};
use crate::root::a_part_of;
use crate::root::copy::Job;
use crate::root::mapping::Mapping;
use crate::root::nbd::device::LostLinks;
use crate::sys::dm::Control;
use activity::Stall;
use history::{History, Series};
use path::{Path, Paths};
use race::{Answer, Failure, Race};
use standby::{Better, Standby};

mod activity;
mod history;
mod path;
mod race;
mod said;
mod standby;
mod turns;

pub use activity::Activity;

/// How often the path is looked at, besides what the kernel tells.
const TICK: Duration = Duration::from_millis(200);

/// Begins to keep the root.
pub fn keep(orders: RootOrders, shared: &Shared) -> Result<()> {
    said::introduce(&orders, shared);
    let Backing::Mapped { index } = orders.backing else { return Ok(()) };
    let source = orders.sources.iter().position(|source| source.peer == orders.using);
    let source = source.ok_or_else(|| {
        Error::refused("keeping the root", format!("{} is none of its servers", orders.using))
    })?;
    let mapping = Mapping::find(Control::open()?, orders.region.length / 512)?;
    let lost_links = LostLinks::listen()?;
    let paths = Paths::new(mapping, Path::Server { index, source });
    let root = Arc::new(Root { orders, shared: shared.clone(), paths });
    if let Some(lazy) = root.orders.lazy {
        let root = Arc::clone(&root);
        spawn("copy", move || root.copy(lazy))?;
    }
    let standby = Standby::look_after(&root)?;
    spawn("root", move || watch(&root, lost_links, &standby))
}

/// The root, as all threads that have to do with it see it.
struct Root {
    orders: RootOrders,
    shared: Shared,
    paths: Paths,
}

/// What is wrong with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Nothing comes over it any more.
    Dead,
    /// The server is there, and answers that it cannot read.
    Failing,
    /// Nothing has come over it for this long.
    Hanging(Duration),
}

impl Trouble {
    fn why(self) -> &'static str {
        match self {
            Self::Dead => "connection lost",
            Self::Failing => "it cannot read its image",
            Self::Hanging(_) => "no answer",
        }
    }
}

fn watch(root: &Arc<Root>, mut lost_links: LostLinks, standby: &Standby) {
    let mut stall = Stall::default();
    // Of the root itself, whoever it is read from.
    let mut unread = Stall::default();
    let device = root.paths.mapping.root().node();
    let mut history = History::default();
    let mut last = None;
    loop {
        let Path::Server { index, source } = root.paths.now() else { return };
        let patience = history.patience(Instant::now());
        let noticed = notice(root, (index, source), &mut lost_links, &mut stall, patience);
        let waited = Activity::of_device(&device)
            .map_or(Duration::ZERO, |activity| unread.observe(Instant::now(), activity));
        let Some(trouble) = noticed else {
            if let Some(better) = standby.better() {
                go_back(root, better, source, &mut history);
                stall = Stall::default();
            }
            continue;
        };
        let now = Instant::now();
        history.failed(source, now);
        if trouble == Trouble::Failing {
            history.shun(source, now);
        }
        // Requests that a server could not answer count as answered, too; and what ended a pause is
        // an answer.
        let has_answered = stall.has_served() || last == Some(Mended::ByItself);
        let has_served = has_answered && trouble != Trouble::Failing;
        let new = || Series::new(root.orders.lost, now);
        let mut series = history.begin(now, waited, has_served, new);
        let lost = Lost { index, source, trouble, began: now };
        let mended = recover(root, &lost, &mut lost_links, &history, &mut series);
        if matches!(trouble, Trouble::Hanging(_)) {
            history.hung(Instant::now());
        }
        last = Some(mended);
        history.end(series, Instant::now());
        if matches!(root.paths.now(), Path::Server { source: other, .. } if other != source) {
            standby.tell();
        }
        stall = Stall::default();
    }
}

/// Waits for a moment for something to be wrong.
fn notice(
    root: &Root,
    (index, source): (u32, usize),
    lost_links: &mut LostLinks,
    stall: &mut Stall,
    patience: Duration,
) -> Option<Trouble> {
    /// The kernel tells that a connection is dead about when it fails what is asked over it, each
    /// from a thread of its own.
    const NEWS_OF_IT: Duration = Duration::from_millis(150);
    if wait(lost_links, TICK, index) {
        return Some(Trouble::Dead);
    }
    if root.paths.has_failed() {
        // Of a connection that we have given up ourselves it tells nothing.
        let is_dead = root.paths.has_cut(index) || wait(lost_links, NEWS_OF_IT, index);
        return Some(if is_dead { Trouble::Dead } else { Trouble::Failing });
    }
    let activity = Activity::of(index).ok()?;
    root.count(source, stall.new_bytes(activity));
    let stalled = stall.observe(Instant::now(), activity);
    (stalled >= patience).then_some(Trouble::Hanging(stalled))
}

/// Waits for news of lost connections, and gives whether that of `/dev/nbd{index}` is among them.
/// All that there is is heard, or the next wait would be none.
fn wait(lost_links: &mut LostLinks, patience: Duration, index: u32) -> bool {
    let mut sockets = [PollFd::new(&*lost_links, PollFlags::IN)];
    // Woken early or late, the caller looks at everything anyway.
    let _ = poll(&mut sockets, Timespec::try_from(patience).ok().as_ref());
    lost_links.read().contains(&index)
}

/// Leaves a server that does what it should for one that this node prefers.
fn go_back(root: &Arc<Root>, better: Better, from: usize, history: &mut History) {
    let Better { source, connection, .. } = better;
    let now = Instant::now();
    // The root may have got there, or have had its trouble with it, in the meantime.
    if source >= from || !history.may_go_back(source, now) {
        return connection.disconnect();
    }
    match root.activate(source, connection, path::PATIENCE) {
        Ok(()) => {
            history.returned(source, Instant::now());
            root.has_gone_back(from, source);
        }
        Err(error) => {
            history.spurn(source, Instant::now());
            log::info!(target: "root", "{error}; the root stays with {}", root.name_of(from));
        }
    }
}

/// A connection that is in trouble.
struct Lost {
    index: u32,
    source: usize,
    trouble: Trouble,
    /// When that was noticed.
    began: Instant,
}

impl Lost {
    /// When the last answer came, as far as that is known.
    fn since(&self) -> Instant {
        match self.trouble {
            Trouble::Hanging(stalled) => self.began.checked_sub(stalled).unwrap_or(self.began),
            Trouble::Dead | Trouble::Failing => self.began,
        }
    }
}

/// How it went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mended {
    /// Requests go over another connection, or are answered from memory.
    Replaced,
    /// It was a pause.
    ByItself,
}

/// Until the root has a connection that works, or is in memory.
fn recover(
    root: &Arc<Root>,
    lost: &Lost,
    lost_links: &mut LostLinks,
    history: &History,
    series: &mut Series,
) -> Mended {
    const LOOK: Duration = Duration::from_millis(20);
    let mut old = Old::of(lost);
    if old.is_dead {
        root.paths.cut(lost.index);
    }
    root.begins_to_recover(lost.source, lost.trouble.why());
    let is_shunned = |source| history.is_shunned(source, lost.began);
    let servers = root.orders.sources.len();
    let delay = |source| {
        let is_same = source == lost.source;
        let same = history.before_same_server();
        old.delay(if is_same { same } else { history.before_mirror(servers) })
    };
    series.turns.begin(root.orders.sources.len(), lost.began, is_shunned, delay);
    let race = Race::new(&root.orders);
    loop {
        for asking in series.turns.due(Instant::now()) {
            if let Some(source) = root.orders.sources.get(asking.source) {
                race.ask(source, asking);
            }
        }
        let answer = race.next(LOOK);
        // Heard in any case, or what is said of this index now would be taken for news later.
        let is_lost = lost_links.read().contains(&lost.index);
        if root.paths.now() == Path::Memory {
            return Mended::Replaced;
        }
        if !old.is_dead {
            if is_lost || root.paths.has_failed() {
                old.why = Trouble::Dead.why();
                old.give_up(root, series);
            } else if old.is_alive() {
                root.found_again(lost.source);
                return Mended::ByItself;
            }
        }
        if let Some(Answer { source, patience, outcome }) = answer {
            let failure = match outcome {
                Err(failure) => failure,
                Ok(connection) => {
                    old.give_up(root, series);
                    match root.activate(source, connection, patience.max(path::PATIENCE)) {
                        Ok(()) => {
                            root.report(
                                (lost.source, source),
                                old.why,
                                old.since.elapsed(),
                                series,
                            );
                            return Mended::Replaced;
                        }
                        Err(_) if root.paths.now() == Path::Memory => return Mended::Replaced,
                        Err(error) => Failure::Unusable(error),
                    }
                }
            };
            root.note(source, &failure);
            series.turns.failed(source, Instant::now());
        }
        root.lament(series, lost.began.elapsed(), old.since.elapsed());
    }
}

/// The connection that is in trouble, while another one is looked for.
struct Old {
    index: u32,
    source: usize,
    is_dead: bool,
    why: &'static str,
    since: Instant,
    stall: Stall,
}

impl Old {
    fn of(lost: &Lost) -> Self {
        Self {
            index: lost.index,
            source: lost.source,
            is_dead: !matches!(lost.trouble, Trouble::Hanging(_)),
            why: lost.trouble.why(),
            since: lost.since(),
            stall: Stall::default(),
        }
    }

    /// How long to wait before its server is asked anew: while the connection is there, until what
    /// it has said last is `silence` ago, and not at the same moment in all of a room.
    fn delay(&self, silence: Duration) -> Duration {
        match self.is_dead {
            true => Duration::ZERO,
            false => {
                silence.saturating_sub(self.since.elapsed()).saturating_add(a_part_of(silence / 4))
            }
        }
    }

    fn give_up(&mut self, root: &Root, series: &mut Series) {
        if !std::mem::replace(&mut self.is_dead, true) {
            root.paths.cut(self.index);
            series.turns.hurry(self.source, Instant::now());
        }
    }

    /// Whether something was answered since the last look, or nothing is asked any more.
    fn is_alive(&mut self) -> bool {
        let activity = Activity::of(self.index);
        activity.is_ok_and(|activity| self.stall.has_moved(activity))
    }
}

impl Root {
    /// Copies the image to memory, and lets the root read it there.
    fn copy(&self, orders: LazyOrders) {
        let (sources, identity) = (self.orders.sources.clone(), self.orders.identity.clone());
        let job = Job { sources, identity, region: self.orders.region, first: None };
        let device = self.paths.mapping.root().node();
        lazy::run(&self.shared, job, orders.rate, &device, |file| self.flip(&file));
    }
}
