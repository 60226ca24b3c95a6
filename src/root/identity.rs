//! What an image is known again by: its size, and samples of its bytes.
//!
//! A server that comes back, or another one in its place, must serve the very image that this
//! machine runs from: a mixture of two mounts, and is neither. Names and dates say nothing about
//! that; the bytes in which every file system keeps its identifiers, times and sums do.

use serde::{Deserialize, Serialize};

use super::nbd::client::Peer;
use super::nbd::negotiate::Export;
use crate::error::{Error, Result};

/// The part of an export in which the root file system lies, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    pub offset: u64,
    pub length: u64,
}

/// Bytes that the image has at an offset of the export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    pub offset: u64,
    pub bytes: Vec<u8>,
}

/// What all servers of an image agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Of the export, not of the region in it.
    pub size_bytes: u64,
    pub samples: Vec<Sample>,
}

/// A connection that answers several requests in one round trip.
pub trait Pipelined {
    fn peer(&self) -> &Peer;
    fn export(&self) -> &Export;
    /// Asks for all of `requests` (offset and length, as the export wants them, no offset twice)
    /// before it waits for the first answer; `take` gets offset and bytes as they come.
    fn read_each(
        &mut self,
        requests: &[(u64, u32)],
        take: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<()>;
}

impl Identity {
    /// Of the image behind `connection`.
    pub fn take(connection: &mut impl Pipelined, region: Region) -> Result<Self> {
        let size_bytes = connection.export().size_bytes;
        let places = places(region, size_bytes);
        let samples = read(connection, places)?;
        Ok(Self { size_bytes, samples })
    }

    /// Whether `connection` leads to the same image.
    ///
    /// # Errors
    /// Refused if not, in words for an operator; else that it could not be found out.
    pub fn check(&self, connection: &mut impl Pipelined) -> Result<()> {
        self.difference(connection)?.map_or(Ok(()), Err)
    }

    /// What is wrong with the image that `connection` leads to, if it is another one.
    ///
    /// # Errors
    /// It could not be read.
    pub fn difference(&self, connection: &mut impl Pipelined) -> Result<Option<Error>> {
        let size = connection.export().size_bytes;
        let why = if size != self.size_bytes {
            format!("another image: it has {size} bytes instead of {}", self.size_bytes)
        } else {
            let places = self.samples.iter().map(|s| (s.offset, s.bytes.len() as u64));
            if read(connection, places.collect())? == self.samples {
                return Ok(None);
            }
            "another image of the same size".into()
        };
        let doing = format!("comparing \"{}\" of {}", connection.export().name, connection.peer());
        let hint = "a node keeps the image that it was started with; boot again for a new one";
        Ok(Some(Error::refused(doing, why).with_hint(hint)))
    }
}

/// Where to look, as offsets in the export and lengths: the superblocks of all file systems that
/// we know, the end, where partition tables and hash trees have theirs, and a few places between,
/// each of a page.
fn places(region: Region, size: u64) -> Vec<(u64, u64)> {
    const PAGE: u64 = 4096;
    /// Of iso9660 and of btrfs; all others have theirs in the first page.
    const SUPERBLOCKS: [u64; 3] = [0, 32 << 10, 64 << 10];
    const BETWEEN: u64 = 6;
    let end = region.offset.saturating_add(region.length).min(size);
    let length = end.saturating_sub(region.offset);
    let spread = (1..=BETWEEN).map(|part| length / (BETWEEN + 1) * part);
    let last = length.saturating_sub(PAGE);
    let mut places: Vec<_> = SUPERBLOCKS
        .into_iter()
        .chain(spread.map(|offset| offset - offset % PAGE))
        .chain([last])
        .filter(|offset| *offset < length)
        .collect();
    places.sort_unstable();
    places.dedup();
    let place = |offset: u64| (region.offset.saturating_add(offset), PAGE.min(length - offset));
    places.into_iter().map(place).collect()
}

/// Reads all `places` (offset and length) in one go.
fn read(connection: &mut impl Pipelined, places: Vec<(u64, u64)>) -> Result<Vec<Sample>> {
    let requests = requests(connection.export(), &places);
    let empty = |(offset, length): (u64, u64)| Sample { offset, bytes: vec![0; length as usize] };
    let mut samples: Vec<_> = places.into_iter().map(empty).collect();
    connection.read_each(&requests, &mut |offset, bytes| {
        for sample in &mut samples {
            paste(sample, offset, bytes);
        }
    })?;
    Ok(samples)
}

/// The requests that bring all of `places`, in pieces and blocks that the server accepts.
fn requests(export: &Export, places: &[(u64, u64)]) -> Vec<(u64, u32)> {
    let longest = u64::from(export.blocks.longest()).max(1);
    let mut requests = Vec::new();
    for (offset, length) in places {
        let (start, length) = export.blocks.around(*offset, *length, export.size_bytes);
        let end = start.saturating_add(length);
        let mut at = start;
        while at < end {
            let piece = longest.min(end - at);
            requests.push((at, u32::try_from(piece).unwrap_or(u32::MAX)));
            at = at.saturating_add(piece);
        }
    }
    // Blocks larger than a page may be those of two places.
    requests.sort_unstable();
    requests.dedup_by(|later, kept| {
        kept.1 = if later.0 == kept.0 { kept.1.max(later.1) } else { kept.1 };
        later.0 == kept.0
    });
    requests
}

/// Puts the part of `bytes`, which are those at `offset`, that the sample wants into it.
fn paste(sample: &mut Sample, offset: u64, bytes: &[u8]) {
    let skip = usize::try_from(sample.offset.saturating_sub(offset)).unwrap_or(usize::MAX);
    let place = usize::try_from(offset.saturating_sub(sample.offset)).unwrap_or(usize::MAX);
    let new = bytes.get(skip..).unwrap_or_default();
    for (place, byte) in sample.bytes.iter_mut().skip(place).zip(new) {
        *place = *byte;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::root::nbd::negotiate::Blocks;
    use crate::root::nbd::protocol::Flags;

    /// A server that insists on its blocks.
    struct Served {
        peer: Peer,
        export: Export,
        bytes: Vec<u8>,
    }

    impl Served {
        fn new(bytes: Vec<u8>, blocks: Blocks) -> Self {
            let export = Export {
                name: "img".into(),
                description: None,
                size_bytes: bytes.len() as u64,
                flags: Flags::HAS_FLAGS,
                blocks,
            };
            let peer = Peer { address: "192.0.2.1:10809".parse().unwrap(), name: None };
            Self { peer, export, bytes }
        }
    }

    impl Pipelined for Served {
        fn peer(&self) -> &Peer {
            &self.peer
        }
        fn export(&self) -> &Export {
            &self.export
        }
        fn read_each(
            &mut self,
            requests: &[(u64, u32)],
            take: &mut dyn FnMut(u64, &[u8]),
        ) -> Result<()> {
            let blocks = self.export.blocks;
            // The last comes first, as it may.
            for (offset, length) in requests.iter().rev() {
                let end = offset + u64::from(*length);
                assert!(*length > 0 && *length <= blocks.longest(), "{requests:?}");
                assert_eq!(offset % u64::from(blocks.minimum), 0, "{requests:?}");
                assert!(end % u64::from(blocks.minimum) == 0 || end == self.export.size_bytes);
                take(*offset, &self.bytes[*offset as usize..end as usize]);
            }
            Ok(())
        }
    }

    fn image(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at / 512 * 7 + at) as u8).collect()
    }

    #[test]
    fn another_image_is_told_apart() {
        let bytes = image(1 << 20);
        let region = Region { offset: 34 * 512, length: (1 << 20) - 34 * 512 };
        let identity =
            Identity::take(&mut Served::new(bytes.clone(), Blocks::default()), region).unwrap();
        for sample in &identity.samples {
            let at = sample.offset as usize;
            assert_eq!(sample.bytes, bytes[at..at + sample.bytes.len()], "sample at {at}");
        }
        assert!(identity.check(&mut Served::new(bytes.clone(), Blocks::default())).is_ok());

        let mut longer = bytes.clone();
        longer.push(0);
        let error = identity.check(&mut Served::new(longer, Blocks::default())).unwrap_err();
        assert_eq!(
            error.to_string(),
            "comparing \"img\" of 192.0.2.1:10809: refused: another image: it has 1048577 bytes instead of 1048576"
        );
        // Superblocks of ext4 and btrfs, and the very last byte.
        for at in [34 * 512 + 1024, 34 * 512 + (64 << 10) + 0x40, (1 << 20) - 1] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            let error = identity.check(&mut Served::new(other, Blocks::default())).unwrap_err();
            assert!(error.to_string().ends_with("another image of the same size"), "byte {at}");
            assert!(!error.is_transient());
        }
    }

    proptest! {
        /// However small an image, odd a region or coarse a server.
        #[test]
        fn samples_are_what_the_image_has_there(
            length in 1usize..300_000,
            from in 0usize..300_000,
            minimum in 0u32..17,
            longest in 1u32..4,
        ) {
            let minimum = 1 << minimum;
            let blocks = Blocks { minimum, preferred: minimum, maximum: minimum * longest };
            let offset = from % length;
            let region = Region { offset: offset as u64, length: (length - offset) as u64 };
            let bytes = image(length);
            let identity = Identity::take(&mut Served::new(bytes.clone(), blocks), region).unwrap();
            prop_assert!(!identity.samples.is_empty());
            for sample in &identity.samples {
                let at = sample.offset as usize;
                prop_assert_eq!(&sample.bytes, &bytes[at..at + sample.bytes.len()]);
                prop_assert!(at >= offset);
            }
            let again = identity.check(&mut Served::new(bytes, Blocks::default()));
            prop_assert!(again.is_ok());
        }
    }
}
