//! Which parts of the image are zeroes, by the word of its server: what is never asked for takes
//! no time, and no memory.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::root::identity::{Identity, Region};
use crate::root::nbd::protocol::Extent;
use crate::root::nbd::reader::{Event, Reader};
use crate::root::server::Source;

/// Questions for one image, of half a gigabyte each where the server answers in full. A server that
/// needs more than these has a map that is not worth having.
pub const MOST_QUESTIONS: u32 = 10_000;
/// Fewer zeroes in a row are not kept: a request more is dearer than as many bytes.
pub const WORTH_A_GAP: u64 = 64 << 10;
/// Runs of zeroes of one image, a mebibyte in our memory: a map of more pieces costs more than it
/// saves.
pub const MOST_RUNS: usize = 1 << 16;

/// Runs of zeroes that are worth knowing, as offset and length, in order and apart. Whatever a
/// server says, no more than [`MOST_RUNS`] are ever held.
#[derive(Debug, Default)]
pub struct Runs(Vec<Run>);

/// Offset and length.
type Run = (u64, u64);

impl Runs {
    /// Takes the next run. The last one taken may be short: the next may go on from it.
    pub fn push(&mut self, offset: u64, length: u64) {
        match self.0.last_mut() {
            Some((start, last)) if start.saturating_add(*last) == offset => {
                *last = last.saturating_add(length);
                return;
            }
            Some((_, last)) if *last < WORTH_A_GAP => {
                self.0.pop();
            }
            _ => {}
        }
        if !self.is_full() {
            self.0.push((offset, length));
        }
    }

    /// Nothing more is kept: there is no reason to ask.
    pub fn is_full(&self) -> bool {
        self.0.len() >= MOST_RUNS
    }

    pub fn as_slice(&self) -> &[Run] {
        &self.0
    }
}

/// What one question has brought, in bytes from the start of the region.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Offset and length of each run of zeroes, in order.
    pub zeroes: Vec<(u64, u64)>,
    /// How far it goes, beyond where it was asked for.
    pub until: u64,
}

/// Asks for the map from `at` on; `None` where the server has none to give.
pub fn ask(reader: &mut Reader, region: Region, at: u64) -> Result<Option<Answer>> {
    /// No more extents than a reader takes in one answer, if they are blocks of 4 KiB.
    const LONGEST: u64 = 512 << 20;
    let wanted = region.offset.saturating_add(at);
    let length = region.length.saturating_sub(at).min(LONGEST);
    let export = reader.export();
    let (start, length) = export.blocks.around(wanted, length, export.size_bytes);
    let Ok(length) = u32::try_from(length) else { return Ok(None) };
    let cookie = reader.request_map(start, length)?;
    let mut answer = None;
    loop {
        match reader.event()? {
            Event::Map { cookie: of, extents } if of == cookie => {
                answer = Some(read(&extents, start, region, at));
            }
            Event::Ended { cookie: of, error } if of == cookie => {
                return Ok(answer.filter(|_| error.is_none()));
            }
            _ => {
                let doing = format!("asking {} what it has allocated", reader.peer());
                return Err(Error::invalid(doing, "the answer to another question"));
            }
        }
    }
}

/// Extents that begin at `start` in the export, as parts of the region from `at` on.
fn read(extents: &[Extent], start: u64, region: Region, at: u64) -> Answer {
    let mut zeroes = Vec::new();
    let mut until = at;
    let mut place = start;
    for extent in extents {
        let from = place.saturating_sub(region.offset).max(at);
        place = place.saturating_add(u64::from(extent.length));
        let to = place.saturating_sub(region.offset).min(region.length);
        if extent.is_zero && from < to {
            zeroes.push((from, to.saturating_sub(from)));
        }
        until = until.max(to);
    }
    Answer { zeroes, until }
}

/// Whether the image is known to have something else where the server's map has zeroes. A map that
/// is wrong there may be wrong everywhere, and would blank files.
pub fn is_false(zeroes: &[(u64, u64)], identity: &Identity, region: Region) -> bool {
    let data = identity.samples.iter().flat_map(|sample| {
        let bytes = sample.bytes.iter().zip(sample.offset..);
        bytes.filter(|(byte, _)| **byte != 0).filter_map(|(_, at)| at.checked_sub(region.offset))
    });
    let is_zero = |at: u64| {
        let behind = zeroes.partition_point(|(start, _)| *start <= at);
        let before = behind.checked_sub(1).and_then(|place| zeroes.get(place));
        before.is_some_and(|(start, length)| at < start.saturating_add(*length))
    };
    data.into_iter().any(is_zero)
}

/// What is said of a map that is not believed.
pub fn false_map(reader: &Reader) -> Error {
    let doing = format!("asking {} what it has allocated", reader.peer());
    Error::refused(doing, "it says zeroes where the image has data")
}

/// How many bytes of the region are not zeroes, by the word of the first of `sources` that has the
/// image and a map of it.
pub fn allocated(
    sources: &[Source],
    identity: &Identity,
    region: Region,
    patience: Duration,
) -> Option<u64> {
    sources.iter().find_map(|source| {
        let asked = Reader::open_within(&source.peer, &source.names, patience)
            .and_then(|reader| count(reader, identity, region));
        match asked {
            Ok(bytes) => bytes,
            Err(error) => {
                log::debug!(target: "root", "{error}");
                None
            }
        }
    })
}

fn count(mut reader: Reader, identity: &Identity, region: Region) -> Result<Option<u64>> {
    if !reader.has_map() {
        reader.disconnect();
        return Ok(None);
    }
    identity.check(&mut reader)?;
    let (mut at, mut zeroes) = (0, 0u64);
    for _ in 0..MOST_QUESTIONS {
        let Some(answer) = ask(&mut reader, region, at)? else { break };
        if answer.until <= at {
            break;
        }
        if is_false(&answer.zeroes, identity, region) {
            let error = false_map(&reader);
            reader.disconnect();
            return Err(error);
        }
        zeroes = answer.zeroes.iter().fold(zeroes, |sum, (_, length)| sum.saturating_add(*length));
        at = answer.until;
        if at >= region.length {
            break;
        }
    }
    reader.disconnect();
    Ok(Some(region.length.saturating_sub(zeroes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn extents_of_the_export_are_cut_to_the_region() {
        let zero = |length| Extent { length, is_zero: true };
        let data = |length| Extent { length, is_zero: false };
        let region = Region { offset: 1000, length: 5000 };
        let cases = [
            (vec![data(4096)],                       512,    0, vec![],                         3608),
            (vec![zero(4096)],                       512,    0, vec![(0, 3608)],                3608),
            (vec![zero(4096), data(512), zero(512)], 512,    0, vec![(0, 3608), (4120, 512)],   4632),
            (vec![data(4096), zero(1 << 30)],        512,    0, vec![(3608, 1392)],             5000), // beyond the end
            (vec![zero(1024)],                      4608, 3700, vec![(3700, 932)],              4632), // blocks before what was asked for
            (vec![zero(1)],                         4608, 3700, vec![],                         3700), // leads nowhere
        ];
        for (extents, start, at, zeroes, until) in cases {
            assert_eq!(read(&extents, start, region, at), Answer { zeroes, until }, "{extents:?} at {start}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn runs_of_zeroes_are_joined_and_the_short_ones_forgotten() {
        const K: u64 = 1 << 10;
        let cases: [(&str, &[Run], &[Run]); 6] = [
            ("nothing",                        &[],                                     &[]),
            ("pieces that touch",              &[(0, 40), (40, 24), (64, 64)],          &[(0, 128)]),
            ("too short, and one behind",      &[(0, 63), (100, 64)],                   &[(100, 64)]),
            ("short pieces of a long run",     &[(8, 4), (16, 40), (56, 40), (99, 1)],  &[(16, 80), (99, 1)]),
            ("the last may yet become long",   &[(0, 64), (100, 4)],                    &[(0, 64), (100, 4)]),
            ("short ones only",                &[(0, 4), (8, 4), (16, 4)],              &[(16, 4)]),
        ];
        for (case, said, expected) in cases {
            let mut runs = Runs::default();
            said.iter().for_each(|(offset, length)| runs.push(offset * K, length * K));
            let kept: Vec<_> = runs.as_slice().iter().map(|(at, n)| (at / K, n / K)).collect();
            assert_eq!(kept, expected, "{case}");
        }
    }

    #[test]
    fn the_map_of_a_fragmented_image_is_bounded() {
        let mut fragments = Runs::default();
        let mut holes = Runs::default();
        for nth in 0..2 * MOST_RUNS as u64 {
            fragments.push(nth * 8192, 4096);
            holes.push(nth * 2 * WORTH_A_GAP, WORTH_A_GAP);
        }
        assert_eq!(fragments.as_slice().len(), 1, "holes of a page are not worth a question");
        assert!(holes.is_full() && !fragments.is_full());
        assert_eq!(holes.as_slice().len(), MOST_RUNS);
    }

    /// Samples of the export at 1000 (data from its third byte on) and at 5000 (zeroes).
    #[test]
    #[rustfmt::skip]
    fn a_map_that_has_zeroes_where_a_sample_has_data_is_false() {
        use crate::root::identity::Sample;
        let samples = vec![
            Sample { offset: 1000, bytes: vec![0, 0, 7, 7] },
            Sample { offset: 5000, bytes: vec![0; 100] },
        ];
        let identity = Identity { size_bytes: 10_000, samples };
        let region = Region { offset: 1000, length: 9000 };
        let cases: [(&str, &[(u64, u64)], bool); 6] = [
            ("no zeroes",             &[],                                false),
            ("up to the data",        &[(0, 2)],                          false),
            ("one byte of the data",  &[(0, 3)],                          true),
            ("behind the data",       &[(4, 3000), (3500, 1000)],         false),
            ("among others",          &[(3, 1), (3500, 1000)],            true),
            ("where there are zeroes", &[(4000, 100)],                    false),
        ];
        for (case, zeroes, expected) in cases {
            assert_eq!(is_false(zeroes, &identity, region), expected, "{case}");
        }
    }
}
