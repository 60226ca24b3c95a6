//! Which parts of an image are still to be copied, and who is at it: pure bookkeeping, shared by
//! all connections.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::map::{MOST_RUNS, WORTH_A_GAP};

/// A part of the image, in bytes from the start of what is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub offset: u64,
    pub length: u32,
}

/// A worker's number.
pub type Taker = usize;

/// Every byte is in one of six states: not taken yet, given back, refused, in flight, done, or known
/// to be zero and never asked for.
#[derive(Debug)]
pub struct Chunks {
    /// Where the region lies in the export.
    start: u64,
    total: u64,
    step: u32,
    next: u64,
    given_back: Vec<Chunk>,
    /// Taken again when nothing else is left: one bad block must neither hold up the others nor be
    /// the next question each time. The one that was refused first is the next.
    refused: VecDeque<Refused>,
    retry: Retry,
    flying: Vec<Flying>,
    /// Ahead of `next`, in order, apart.
    zeroes: VecDeque<(u64, u64)>,
    done: u64,
    skipped: u64,
}

/// A chunk that somebody asked for, and that nobody has whole.
#[derive(Debug)]
struct Flying {
    chunk: Chunk,
    /// Who, and of which source.
    takers: Vec<(Taker, usize)>,
    since: Instant,
    refused_by: Vec<u32>,
}

/// A chunk that a server could not read.
#[derive(Debug)]
struct Refused {
    chunk: Chunk,
    /// How often each of the sources has said so.
    by: Vec<u32>,
    /// Not asked for before.
    again_at: Instant,
}

/// How often one chunk is asked for at a source that cannot read it.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    pub most: u32,
    pub pause: Duration,
}

/// As many connections to one server may ask for the same bytes, when the first of them is late; or
/// as many servers, because all connections to one may hang.
const MOST_TAKERS: usize = 2;

impl Flying {
    /// Whether somebody more should ask for it.
    fn has_room(&self, taker: Taker, source: usize) -> bool {
        let is_elsewhere = self.takers.iter().all(|(_, other)| *other != source);
        let first = self.takers.first().map(|(_, first)| *first);
        let is_at_one = self.takers.iter().all(|(_, other)| Some(*other) == first);
        let has_it = self.takers.iter().any(|(other, _)| *other == taker);
        !has_it && (self.takers.len() < MOST_TAKERS || (is_elsewhere && is_at_one))
    }

    fn is_late(&self, now: Instant, patience: Duration) -> bool {
        now.saturating_duration_since(self.since) >= patience
    }
}

impl Chunks {
    /// For `total` bytes at `start` of an export. No chunk crosses a multiple of `step` there.
    pub fn new(start: u64, total: u64, step: u32, retry: Retry) -> Self {
        Self {
            start,
            total,
            step: step.max(1),
            next: 0,
            given_back: Vec::new(),
            refused: VecDeque::new(),
            retry,
            flying: Vec::new(),
            zeroes: VecDeque::new(),
            done: 0,
            skipped: 0,
        }
    }

    /// Something to ask a server for, or `None` when all of it is in flight or done, or of no use to
    /// ask that source for at this moment.
    pub fn take(&mut self, taker: Taker, source: usize, now: Instant) -> Option<Chunk> {
        let new = self.given_back.pop().or_else(|| self.fresh());
        let (chunk, refused_by) = match new {
            Some(chunk) => (chunk, Vec::new()),
            None => {
                let place = self.refused_for(source, now)?;
                self.refused.remove(place).map(|refused| (refused.chunk, refused.by))?
            }
        };
        self.flying.push(Flying { chunk, takers: vec![(taker, source)], since: now, refused_by });
        Some(chunk)
    }

    fn refused_for(&self, source: usize, now: Instant) -> Option<usize> {
        let times = |refused: &Refused| refused.by.get(source).copied().unwrap_or(0);
        let may = |refused: &Refused| now >= refused.again_at && times(refused) < self.retry.most;
        self.refused.iter().position(may)
    }

    /// A server could not read it: later again, and not for ever.
    pub fn refuse(&mut self, taker: Taker, source: usize, chunk: Chunk, now: Instant) {
        let Some(flying) = self.flying.iter_mut().find(|flying| flying.chunk == chunk) else {
            return;
        };
        if flying.refused_by.len() <= source {
            flying.refused_by.resize(source.saturating_add(1), 0);
        }
        if let Some(times) = flying.refused_by.get_mut(source) {
            *times = times.saturating_add(1);
        }
        if let Some(Flying { refused_by: by, .. }) = self.let_go(taker, chunk) {
            let again_at = now.checked_add(self.retry.pause).unwrap_or(now);
            self.refused.push_back(Refused { chunk, by, again_at });
        }
    }

    /// What none of `sources` can read.
    pub fn unreadable(&self, sources: &[usize]) -> Option<Chunk> {
        let cannot = |refused: &Refused, source: &usize| {
            refused.by.get(*source).is_some_and(|times| *times >= self.retry.most)
        };
        let by_all = |refused: &&Refused| sources.iter().all(|source| cannot(refused, source));
        self.refused.iter().find(by_all).filter(|_| !sources.is_empty()).map(|found| found.chunk)
    }

    fn fresh(&mut self) -> Option<Chunk> {
        let offset = self.next;
        let until = self.zeroes.front().map_or(self.total, |(start, _)| *start);
        let left = until.min(self.total).saturating_sub(offset);
        let step = u64::from(self.step);
        let until_multiple = step.saturating_sub(self.start.saturating_add(offset) % step);
        let length = u32::try_from(left.min(until_multiple)).unwrap_or(self.step);
        self.next = offset.saturating_add(u64::from(length));
        // Now, and not when somebody asks for more: behind the last of the data nobody may.
        self.skip_zeroes();
        (length > 0).then_some(Chunk { offset, length })
    }

    /// The chunk that has been on its way for longest, if that is `patience` or more: its server may
    /// be slow, and with nothing else left to ask for, everybody would wait for it.
    pub fn take_late(
        &mut self,
        taker: Taker,
        source: usize,
        now: Instant,
        patience: Duration,
    ) -> Option<Chunk> {
        let place = self.late(taker, source, now, patience)?;
        let flying = self.flying.get_mut(place)?;
        flying.takers.push((taker, source));
        Some(flying.chunk)
    }

    pub fn has_late(&self, taker: Taker, source: usize, now: Instant, patience: Duration) -> bool {
        self.late(taker, source, now, patience).is_some()
    }

    fn late(&self, taker: Taker, source: usize, now: Instant, patience: Duration) -> Option<usize> {
        let late =
            |flying: &Flying| flying.has_room(taker, source) && flying.is_late(now, patience);
        let flying = self.flying.iter().enumerate().filter(|(_, flying)| late(flying));
        flying.min_by_key(|(_, flying)| flying.since).map(|(place, _)| place)
    }

    /// Its connection is lost: somebody else has to ask for it again, unless somebody has.
    pub fn give_back(&mut self, taker: Taker, chunk: Chunk) {
        match self.let_go(taker, chunk) {
            Some(Flying { refused_by: by, since, .. }) if !by.is_empty() => {
                self.refused.push_back(Refused { chunk, by, again_at: since });
            }
            Some(_) => self.given_back.push(chunk),
            None => {}
        }
    }

    /// A chunk that nobody has asked for any more.
    fn let_go(&mut self, taker: Taker, chunk: Chunk) -> Option<Flying> {
        let place = self.flying.iter().position(|flying| flying.chunk == chunk)?;
        let flying = self.flying.get_mut(place)?;
        flying.takers.retain(|(other, _)| *other != taker);
        flying.takers.is_empty().then(|| self.flying.swap_remove(place))
    }

    /// Whether its bytes are still missing.
    pub fn is_wanted(&self, chunk: Chunk) -> bool {
        self.flying.iter().any(|flying| flying.chunk == chunk)
    }

    /// `true` for the first who has it whole.
    pub fn finish(&mut self, chunk: Chunk) -> bool {
        let place = self.flying.iter().position(|flying| flying.chunk == chunk);
        if let Some(place) = place {
            self.flying.swap_remove(place);
            self.done = self.done.saturating_add(u64::from(chunk.length));
        }
        place.is_some()
    }

    /// A server says that these bytes are zeroes, which the destination has already. What has been
    /// asked for is not recalled; must be called from the front to the end.
    pub fn are_zeroes(&mut self, offset: u64, length: u64) {
        let end = offset.saturating_add(length).min(self.total);
        let known = self.zeroes.back().map_or(self.next, |(_, end)| *end);
        let start = offset.max(known).max(self.next);
        let has_room = self.zeroes.len() < MOST_RUNS;
        match self.zeroes.back_mut() {
            Some((_, last)) if *last == start && start < end => *last = end,
            _ if end.saturating_sub(start) >= WORTH_A_GAP && has_room => {
                self.zeroes.push_back((start, end));
            }
            _ => {}
        }
        self.skip_zeroes();
    }

    fn skip_zeroes(&mut self) {
        while let Some((start, end)) = self.zeroes.front().copied()
            && start <= self.next
        {
            let new = end.saturating_sub(self.next);
            self.done = self.done.saturating_add(new);
            self.skipped = self.skipped.saturating_add(new);
            self.next = self.next.max(end);
            self.zeroes.pop_front();
        }
    }

    /// Where the part begins that nobody has asked for.
    pub fn next_offset(&self) -> u64 {
        self.next
    }

    pub fn total_bytes(&self) -> u64 {
        self.total
    }

    pub fn has_work(&self, source: usize, now: Instant) -> bool {
        let has_new = !self.given_back.is_empty() || self.next < self.total;
        has_new || self.refused_for(source, now).is_some()
    }

    pub fn done_bytes(&self) -> u64 {
        self.done
    }

    /// Of what is done: never asked for.
    pub fn skipped_bytes(&self) -> u64 {
        self.skipped
    }

    /// Bytes that servers owe us, as `source` sees it: what is late elsewhere hangs in another
    /// server and not in a queue before this one. Its own late ones may be in a network that is
    /// crowded, to which nothing must be added.
    pub fn flying_bytes(&self, source: usize, now: Instant, patience: Duration) -> u64 {
        let hangs_elsewhere = |flying: &Flying| {
            flying.is_late(now, patience) && flying.takers.iter().all(|(_, of)| *of != source)
        };
        let flying = self.flying.iter().filter(|flying| !hangs_elsewhere(flying));
        flying.map(|flying| u64::from(flying.chunk.length)).sum()
    }

    pub fn is_complete(&self) -> bool {
        self.done >= self.total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RETRY: Retry = Retry { most: 3, pause: Duration::from_secs(1) };

    /// With one source.
    fn has_work(chunks: &Chunks) -> bool {
        chunks.has_work(0, Instant::now())
    }

    fn all(chunks: &mut Chunks) -> Vec<(u64, u32)> {
        let now = Instant::now();
        std::iter::from_fn(|| chunks.take(0, 0, now)).map(|c| (c.offset, c.length)).collect()
    }

    #[test]
    fn chunks_cover_the_image_and_what_is_given_back_comes_again() {
        let now = Instant::now();
        let mut chunks = Chunks::new(0, 10, 4, RETRY);
        let first = chunks.take(0, 0, now).unwrap();
        let second = chunks.take(0, 0, now).unwrap();
        assert_eq!((first.offset, first.length, second.offset), (0, 4, 4));
        chunks.give_back(0, first);
        assert_eq!(chunks.take(1, 0, now), Some(first));
        let last = chunks.take(1, 0, now).unwrap();
        assert_eq!(last, Chunk { offset: 8, length: 2 });
        assert!(!has_work(&chunks) && !chunks.is_complete());
        chunks.give_back(0, second);
        assert!(has_work(&chunks));
        assert_eq!(chunks.take(1, 0, now), Some(second));
        for chunk in [first, second, last] {
            assert!(chunks.finish(chunk));
        }
        assert!(chunks.is_complete());
    }

    #[test]
    fn chunks_of_a_region_end_at_multiples_in_the_export() {
        assert_eq!(all(&mut Chunks::new(3, 10, 4, RETRY)), [(0, 1), (1, 4), (5, 4), (9, 1)]);
    }

    /// A mirror behind a slow line must not hold up the end of the copy.
    #[test]
    fn a_late_chunk_is_asked_for_elsewhere_and_counts_once() {
        let start = Instant::now();
        let later = |millis| start + Duration::from_millis(millis);
        let patience = Duration::from_millis(100);
        let mut chunks = Chunks::new(0, 8, 4, RETRY);
        let slow = chunks.take(0, 0, start).unwrap();
        let other = chunks.take(0, 0, later(50)).unwrap();
        assert_eq!(chunks.take_late(1, 0, later(99), patience), None, "not late yet");
        assert_eq!(chunks.take_late(0, 0, later(200), patience), None, "it is the late one's own");
        assert_eq!(chunks.take_late(1, 0, later(200), patience), Some(slow), "the oldest first");
        assert_eq!(chunks.take_late(1, 0, later(200), patience), Some(other));
        assert_eq!(chunks.take_late(2, 0, later(200), patience), None, "two are enough");
        assert!(chunks.finish(slow));
        assert!(!chunks.is_wanted(slow) && !chunks.finish(slow), "the second is too late");
        assert_eq!(chunks.done_bytes(), 4);
        chunks.give_back(0, slow);
        assert!(!has_work(&chunks), "what is done is not given back");
        chunks.give_back(1, other);
        assert!(!has_work(&chunks), "the first may still bring it");
        chunks.give_back(0, other);
        assert!(has_work(&chunks));
    }

    /// Taken by worker 0 of source 0 and then by these (worker and source).
    #[test]
    #[rustfmt::skip]
    fn a_late_chunk_is_asked_for_at_another_server_too() {
        let now = Instant::now();
        let cases: [(&str, &[(Taker, usize)], (Taker, usize), bool); 6] = [
            ("another connection",              &[],               (1, 0), true),
            ("another server",                  &[],               (4, 1), true),
            ("a third connection to the same",  &[(1, 0)],         (2, 0), false),
            ("a mirror of two that hang",       &[(1, 0)],         (4, 1), true),
            ("two servers are enough",          &[(4, 1)],         (8, 2), false),
            ("also with three connections",     &[(1, 0), (4, 1)], (8, 2), false),
        ];
        for (case, others, (taker, source), expected) in cases {
            let mut chunks = Chunks::new(0, 4, 4, RETRY);
            let chunk = chunks.take(0, 0, now);
            for (taker, source) in others {
                assert_eq!(chunks.take_late(*taker, *source, now, Duration::ZERO), chunk, "{case}");
            }
            assert_eq!(chunks.has_late(taker, source, now, Duration::ZERO), expected, "{case}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn what_hangs_in_one_server_is_not_before_another() {
        let start = Instant::now();
        let patience = Duration::from_millis(100);
        let mut chunks = Chunks::new(0, 12, 4, RETRY);
        let hung = chunks.take(0, 0, start).unwrap();
        chunks.take(1, 0, start + Duration::from_millis(50)).unwrap();
        chunks.take(2, 1, start + Duration::from_millis(50)).unwrap();
        let owed = |source, millis| chunks.flying_bytes(source, start + Duration::from_millis(millis), patience);
        let cases = [
            (1,  99, 12, "none is late"),
            (1, 100,  8, "one is, elsewhere"),
            (1, 900,  4, "both are: one's own still counts"),
            (0, 900,  8, "its own do"),
            (2, 900,  0, "nothing is before a third"),
        ];
        for (source, millis, bytes, case) in cases {
            assert_eq!(owed(source, millis), bytes, "{case}");
        }
        // Whoever comes to its help waits for it as well.
        chunks.take_late(2, 1, start + patience, patience).filter(|chunk| *chunk == hung).unwrap();
        assert_eq!(chunks.flying_bytes(1, start + 9 * patience, patience), 8);
    }

    #[test]
    fn what_a_server_cannot_read_is_asked_for_at_the_end_and_not_for_ever() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let mut chunks = Chunks::new(0, 12, 4, RETRY);
        let bad = chunks.take(0, 0, start).unwrap();
        chunks.refuse(0, 0, bad, start);
        let others = [(); 2].map(|()| chunks.take(0, 0, later(9)).unwrap());
        assert!(others.iter().all(|chunk| *chunk != bad && chunks.finish(*chunk)));
        assert!(!chunks.has_work(0, start), "not at once");
        for seconds in [1, 2] {
            assert_eq!(chunks.unreadable(&[0]), None, "after {seconds} times");
            assert!(chunks.has_work(0, later(seconds)));
            assert_eq!(chunks.take(0, 0, later(seconds)), Some(bad));
            chunks.refuse(0, 0, bad, later(seconds));
        }
        assert_eq!(chunks.unreadable(&[0]), Some(bad));
        assert_eq!(chunks.unreadable(&[0, 1]), None, "the mirror may have it");
        assert_eq!(chunks.unreadable(&[]), None, "nobody is there to say so");
        assert!(!chunks.has_work(0, later(99)));
        // A connection that breaks is no word about the block.
        assert_eq!(chunks.take(1, 1, later(99)), Some(bad));
        chunks.give_back(1, bad);
        assert!(!chunks.has_work(0, later(99)) && chunks.has_work(1, later(99)));
        assert_eq!(chunks.take(1, 1, later(99)), Some(bad));
        assert!(chunks.finish(bad) && chunks.is_complete());
        assert_eq!(chunks.unreadable(&[0]), None);
    }

    #[test]
    fn zeroes_are_skipped_where_they_are_worth_it() {
        const K: u64 = 1 << 10;
        let mut chunks = Chunks::new(0, 1024 * K, 128 << 10, RETRY);
        chunks.are_zeroes(100 * K, 4 * K); // too few
        chunks.are_zeroes(192 * K, 64 * K);
        chunks.are_zeroes(256 * K, 256 * K); // goes on
        chunks.are_zeroes(960 * K, 999 * K); // beyond the end
        let k = |chunks: Vec<(u64, u32)>| -> Vec<_> {
            chunks.iter().map(|(offset, length)| (offset / K, length / 1024)).collect()
        };
        let expected =
            [(0, 128), (128, 64), (512, 128), (640, 128), (768, 128), (896, 64)].to_vec();
        assert_eq!(k(all(&mut chunks)), expected);
        assert_eq!(chunks.skipped_bytes(), (320 + 64) * K);

        let mut empty = Chunks::new(0, 1024 * K, 128 << 10, RETRY);
        empty.are_zeroes(0, 1024 * K);
        assert!(empty.is_complete() && !has_work(&empty));

        let mut tail = Chunks::new(0, 1024 * K, 256 << 10, RETRY);
        tail.are_zeroes(256 * K, 768 * K);
        let only = tail.take(0, 0, Instant::now()).unwrap();
        assert!(tail.finish(only) && tail.is_complete(), "nobody asks for more");

        let mut late = Chunks::new(0, 1024 * K, 128 << 10, RETRY);
        let taken = late.take(0, 0, Instant::now()).unwrap();
        late.are_zeroes(0, 1024 * K);
        assert!(!late.is_complete(), "what has been asked for comes");
        late.finish(taken);
        assert!(late.is_complete());
    }

    proptest! {
        /// However connections break and whatever is late, each byte is done exactly once.
        #[test]
        fn nothing_is_lost_or_copied_twice(
            start in 0u64..1000,
            total in 1u64..5000,
            step in 1u32..300,
            fates in proptest::collection::vec(0u8..4, 0..200),
        ) {
            let now = Instant::now();
            let mut chunks = Chunks::new(start, total, step, RETRY);
            let mut fates = fates.into_iter();
            let mut seen = vec![0u8; total as usize];
            while let Some(chunk) = chunks.take(0, 0, now) {
                match fates.next() {
                    Some(1) => {
                        chunks.give_back(0, chunk);
                        continue;
                    }
                    Some(2) => {
                        prop_assert_eq!(chunks.take_late(1, 0, now, Duration::ZERO), Some(chunk));
                        chunks.give_back(0, chunk);
                    }
                    _ => {}
                }
                let from = chunk.offset as usize;
                seen[from..from + chunk.length as usize].iter_mut().for_each(|n| *n += 1);
                prop_assert!(chunks.finish(chunk));
            }
            prop_assert!(chunks.is_complete());
            prop_assert!(seen.iter().all(|n| *n == 1));
            prop_assert_eq!(chunks.flying_bytes(0, now, Duration::ZERO), 0);
        }

        /// Whatever a server says about zeroes, no byte is both skipped and asked for, or neither.
        #[test]
        fn any_map_leaves_each_byte_once(
            total in 1u64..4_000_000,
            map in proptest::collection::vec((0u64..4_000_000, 0u64..2_000_000, 0usize..4), 0..20),
        ) {
            let now = Instant::now();
            let mut chunks = Chunks::new(0, total, 256 << 10, RETRY);
            let mut asked = 0;
            for (offset, length, takes) in map {
                for _ in 0..takes {
                    if let Some(chunk) = chunks.take(0, 0, now) {
                        asked += u64::from(chunk.length);
                        chunks.finish(chunk);
                    }
                }
                chunks.are_zeroes(offset, length);
            }
            while let Some(chunk) = chunks.take(0, 0, now) {
                asked += u64::from(chunk.length);
                chunks.finish(chunk);
            }
            prop_assert!(chunks.is_complete());
            prop_assert_eq!(asked + chunks.skipped_bytes(), total);
        }
    }
}
