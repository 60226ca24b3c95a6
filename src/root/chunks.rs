//! Which parts of an image are still to be copied: pure bookkeeping, shared by all connections.

/// A part of the image, in bytes from the start of what is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub offset: u64,
    pub length: u32,
}

/// Every byte is in one of four states: not taken yet, given back, in flight, or done.
#[derive(Debug)]
pub struct Chunks {
    /// Where the region lies in the export.
    start: u64,
    total: u64,
    step: u32,
    next: u64,
    given_back: Vec<Chunk>,
    done: u64,
}

impl Chunks {
    /// For `total` bytes at `start` of an export. No chunk crosses a multiple of `step` there, so
    /// that one which is grown to whole blocks is never longer than `step`.
    pub fn new(start: u64, total: u64, step: u32) -> Self {
        Self { start, total, step: step.max(1), next: 0, given_back: Vec::new(), done: 0 }
    }

    /// Something to ask a server for, or `None` when all of it is in flight or done.
    pub fn take(&mut self) -> Option<Chunk> {
        if let Some(chunk) = self.given_back.pop() {
            return Some(chunk);
        }
        let offset = self.next;
        let left = self.total.saturating_sub(offset);
        let step = u64::from(self.step);
        let until_multiple = step.saturating_sub(self.start.saturating_add(offset) % step);
        let length = u32::try_from(left.min(until_multiple)).unwrap_or(self.step);
        self.next = offset.saturating_add(u64::from(length));
        (length > 0).then_some(Chunk { offset, length })
    }

    /// Its connection is lost: somebody else has to ask for it again.
    pub fn give_back(&mut self, chunk: Chunk) {
        self.given_back.push(chunk);
    }

    pub fn finish(&mut self, chunk: Chunk) {
        self.done = self.done.saturating_add(u64::from(chunk.length));
    }

    pub fn has_work(&self) -> bool {
        !self.given_back.is_empty() || self.next < self.total
    }

    pub fn done_bytes(&self) -> u64 {
        self.done
    }

    pub fn is_complete(&self) -> bool {
        self.done >= self.total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn chunks_cover_the_image_and_what_is_given_back_comes_again() {
        let mut chunks = Chunks::new(0, 10, 4);
        let first = chunks.take().unwrap();
        let second = chunks.take().unwrap();
        assert_eq!((first.offset, first.length, second.offset), (0, 4, 4));
        chunks.give_back(first);
        assert_eq!(chunks.take(), Some(first));
        let last = chunks.take().unwrap();
        assert_eq!(last, Chunk { offset: 8, length: 2 });
        assert!(!chunks.has_work() && !chunks.is_complete());
        chunks.give_back(second);
        assert!(chunks.has_work());
        for chunk in [first, second, last] {
            chunks.finish(chunk);
        }
        assert!(chunks.is_complete());
    }

    #[test]
    fn chunks_of_a_region_end_at_multiples_in_the_export() {
        let mut chunks = Chunks::new(3, 10, 4);
        let taken: Vec<_> =
            std::iter::from_fn(|| chunks.take()).map(|c| (c.offset, c.length)).collect();
        assert_eq!(taken, [(0, 1), (1, 4), (5, 4), (9, 1)]);
    }

    proptest! {
        /// However connections break, each byte is done exactly once.
        #[test]
        fn nothing_is_lost_or_copied_twice(
            start in 0u64..1000,
            total in 1u64..5000,
            step in 1u32..300,
            losses in proptest::collection::vec(any::<bool>(), 0..200),
        ) {
            let mut chunks = Chunks::new(start, total, step);
            let mut losses = losses.into_iter();
            let mut seen = vec![0u8; total as usize];
            while let Some(chunk) = chunks.take() {
                if losses.next() == Some(true) {
                    chunks.give_back(chunk);
                    continue;
                }
                let from = chunk.offset as usize;
                seen[from..from + chunk.length as usize].iter_mut().for_each(|n| *n += 1);
                chunks.finish(chunk);
            }
            prop_assert!(chunks.is_complete());
            prop_assert!(seen.iter().all(|n| *n == 1));
        }
    }
}
