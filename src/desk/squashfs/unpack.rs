//! The packings that squashfs knows, and those of them that can be undone here.

use std::io::Read;

use super::{Damage, damaged};
use crate::error::Cause;
use crate::root::squashfs_packing;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Gzip,
    Xz,
    Zstd,
}

impl Packing {
    /// By its number in the superblock.
    pub fn of(number: u64) -> Result<Self, Damage> {
        let other = match number {
            1 if cfg!(feature = "codec-gz") => return Ok(Self::Gzip),
            4 if cfg!(feature = "codec-xz") => return Ok(Self::Xz),
            6 if cfg!(feature = "codec-zstd") => return Ok(Self::Zstd),
            other => squashfs_packing(other)
                .ok_or_else(|| damaged("it is packed with something that does not exist"))?,
        };
        let known = [
            cfg!(feature = "codec-gz").then_some("gzip"),
            cfg!(feature = "codec-xz").then_some("xz"),
            cfg!(feature = "codec-zstd").then_some("zstd"),
        ];
        let known: Vec<_> = known.into_iter().flatten().collect();
        let known = match known.split_last() {
            Some((last, [])) => (*last).to_owned(),
            Some((last, others)) => format!("{} and {last}", others.join(", ")),
            None => "nothing".to_owned(),
        };
        Err(Cause::Refused(format!(
            "the image is packed with {other}; this program unpacks {known} (unpack the image, and \
             name the folder)"
        )))
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }

    /// Everything in `packed`, of which there may be no more than `most` bytes.
    pub fn unpack(self, packed: &[u8], most: u64) -> Result<Vec<u8>, Damage> {
        let mut plain = Vec::new();
        let mut reader = self.reader(packed)?.take(most.saturating_add(1));
        reader.read_to_end(&mut plain).map_err(|_| damaged("a block cannot be unpacked"))?;
        if plain.len() as u64 > most {
            return Err(damaged("a block is longer than it may be"));
        }
        Ok(plain)
    }

    // An agent without any of the codecs unpacks nothing.
    #[cfg_attr(
        not(any(feature = "codec-gz", feature = "codec-xz", feature = "codec-zstd")),
        allow(unused_variables)
    )]
    fn reader<'a>(self, packed: &'a [u8]) -> Result<Box<dyn Read + 'a>, Damage> {
        match self {
            #[cfg(feature = "codec-gz")]
            Self::Gzip => Ok(Box::new(flate2::read::ZlibDecoder::new(packed))),
            #[cfg(feature = "codec-xz")]
            Self::Xz => {
                /// KiB; a dictionary is no longer than a block.
                const MOST: u32 = 8 << 10;
                Ok(Box::new(lzma_rust2::XzReader::new_mem_limit(packed, false, MOST)))
            }
            #[cfg(feature = "codec-zstd")]
            Self::Zstd => match ruzstd::decoding::StreamingDecoder::new(packed) {
                Ok(decoder) => Ok(Box::new(decoder)),
                Err(_) => Err(damaged("a block cannot be unpacked")),
            },
            #[allow(unreachable_patterns)]
            _ => Err(damaged("a block cannot be unpacked")),
        }
    }
}
