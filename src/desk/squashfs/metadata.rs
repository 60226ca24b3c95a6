//! The superblock, and the blocks in which squashfs keeps inodes, folders and tables.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use super::unpack::Packing;
use super::{Damage, damaged};
use crate::error::Cause;

/// Of a metadata block once unpacked.
const METADATA: u64 = 8192;

/// Blocks that are kept unpacked: 16 MiB, more than the metadata of most images.
const MOST_KEPT: usize = 2048;

#[derive(Clone, Copy, Debug)]
pub struct Superblock {
    pub packing: Packing,
    pub block_size: u64,
    /// Reference of the root's inode.
    pub root: u64,
    pub inodes: u64,
    pub folders: u64,
    fragments: u64,
    fragment_count: u32,
}

impl Superblock {
    pub fn read(file: &File, size_bytes: u64) -> Result<Self, Damage> {
        let mut raw = [0; 96];
        if size_bytes < raw.len() as u64 {
            return Err(Cause::Invalid("not a squashfs".to_owned()));
        }
        file.read_exact_at(&mut raw, 0).map_err(Cause::Os)?;
        let u16 = |at| number(&raw, at, 2);
        let u32 = |at| number(&raw, at, 4);
        let u64 = |at| number(&raw, at, 8);
        if raw.get(..4) != Some(b"hsqs") {
            return Err(Cause::Invalid("not a squashfs".to_owned()));
        }
        let (major, minor) = (u16(28), u16(30));
        if (major, minor) != (4, 0) {
            return Err(Cause::Refused(format!(
                "this is squashfs of version {major}.{minor}; only 4.0 can be read"
            )));
        }
        let block_size = u32(12);
        if !block_size.is_power_of_two() || !(4096..=1 << 20).contains(&block_size) {
            return Err(damaged("its block size is none"));
        }
        if u64(40) > size_bytes {
            return Err(Cause::Invalid(format!(
                "the image has {} bytes and the file only {size_bytes}: is it whole?",
                u64(40)
            )));
        }
        Ok(Self {
            packing: Packing::of(u16(20))?,
            block_size,
            root: u64(32),
            inodes: u64(64),
            folders: u64(72),
            fragments: u64(80),
            fragment_count: u32::try_from(u32(16)).unwrap_or_default(),
        })
    }
}

/// A little-endian number of `width` bytes; zero beyond the end.
pub fn number(raw: &[u8], at: usize, width: usize) -> u64 {
    let bytes = raw.get(at..at.saturating_add(width)).unwrap_or_default();
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// An image's file, and what of it has been unpacked.
#[derive(Debug)]
pub struct Blocks {
    file: File,
    pub superblock: Superblock,
    /// Unpacked block and where the next one begins, by the place of the block.
    kept: RefCell<HashMap<u64, (Rc<Vec<u8>>, u64)>>,
}

impl Blocks {
    pub fn new(file: File, superblock: Superblock) -> Self {
        Self { file, superblock, kept: RefCell::default() }
    }

    fn bytes(&self, at: u64, length: u64) -> Result<Vec<u8>, Damage> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, at).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => damaged("something is said to be behind its end"),
            // What pread(2) says of a place beyond 2^63.
            std::io::ErrorKind::InvalidInput => damaged("something is said to be behind its end"),
            _ => Cause::Os(error),
        })?;
        Ok(bytes)
    }

    /// The metadata block at `at`, and where the next one begins.
    fn metadata(&self, at: u64) -> Result<(Rc<Vec<u8>>, u64), Damage> {
        if let Some((block, next)) = self.kept.borrow().get(&at) {
            return Ok((Rc::clone(block), *next));
        }
        let header = number(&self.bytes(at, 2)?, 0, 2);
        let length = header & 0x7fff;
        if length > METADATA {
            return Err(damaged("a block of metadata is too long"));
        }
        let begin = at.saturating_add(2);
        let raw = self.bytes(begin, length)?;
        let block = match header & 0x8000 {
            0 => self.superblock.packing.unpack(&raw, METADATA)?,
            _ => raw,
        };
        let (block, next) = (Rc::new(block), begin.saturating_add(length));
        let mut kept = self.kept.borrow_mut();
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.insert(at, (Rc::clone(&block), next));
        Ok((block, next))
    }

    /// Reads on from `offset` in the metadata block at `at`.
    pub fn cursor(&self, at: u64, offset: u64) -> Result<Cursor, Damage> {
        let (block, next) = self.metadata(at)?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        if offset > block.len() {
            return Err(damaged("a reference leads behind its block"));
        }
        Ok(Cursor { block, offset, next })
    }

    /// Place and size word of a fragment.
    pub fn fragment(&self, index: u32) -> Result<(u64, u32), Damage> {
        const IN_A_BLOCK: u64 = METADATA / 16;
        if index >= self.superblock.fragment_count {
            return Err(damaged("a file is in a fragment that is not there"));
        }
        let index = u64::from(index);
        let list = self.superblock.fragments.saturating_add(index / IN_A_BLOCK * 8);
        let block = number(&self.bytes(list, 8)?, 0, 8);
        let mut cursor = self.cursor(block, index % IN_A_BLOCK * 16)?;
        Ok((cursor.u64(self)?, cursor.u32(self)?))
    }

    /// A block of a file, which must have `whole` bytes, and where the next one begins.
    pub fn data(&self, at: u64, word: u32, whole: u64) -> Result<(Vec<u8>, u64), Damage> {
        /// Set on what was not worth packing.
        const PLAIN: u32 = 1 << 24;
        let length = u64::from(word & !PLAIN);
        if length == 0 {
            return Ok((vec![0; usize::try_from(whole).unwrap_or_default()], at));
        }
        if length > self.superblock.block_size {
            return Err(damaged("a block of a file is too long"));
        }
        let raw = self.bytes(at, length)?;
        let block = match word & PLAIN {
            0 => self.superblock.packing.unpack(&raw, self.superblock.block_size)?,
            _ => raw,
        };
        if block.len() as u64 != whole {
            return Err(damaged("a block of a file has another length than it should"));
        }
        Ok((block, at.saturating_add(length)))
    }

    /// A fragment's block, which is as long as it is.
    pub fn fragment_data(&self, at: u64, word: u32) -> Result<Vec<u8>, Damage> {
        const PLAIN: u32 = 1 << 24;
        let length = u64::from(word & !PLAIN);
        if length > self.superblock.block_size {
            return Err(damaged("a fragment is too long"));
        }
        let raw = self.bytes(at, length)?;
        match word & PLAIN {
            0 => self.superblock.packing.unpack(&raw, self.superblock.block_size),
            _ => Ok(raw),
        }
    }
}

/// A place in a row of metadata blocks.
#[derive(Clone, Debug)]
pub struct Cursor {
    block: Rc<Vec<u8>>,
    offset: usize,
    next: u64,
}

impl Cursor {
    /// The next `length` bytes, over as many blocks as they take.
    pub fn take(&mut self, blocks: &Blocks, length: usize) -> Result<Vec<u8>, Damage> {
        let mut taken = Vec::with_capacity(length.min(1 << 16));
        while taken.len() < length {
            let rest = self.block.get(self.offset..).unwrap_or_default();
            let piece = rest.get(..length.saturating_sub(taken.len())).unwrap_or(rest);
            taken.extend_from_slice(piece);
            self.offset = self.offset.saturating_add(piece.len());
            if taken.len() < length {
                let (block, next) = blocks.metadata(self.next)?;
                if block.is_empty() {
                    return Err(damaged("a block of metadata is empty"));
                }
                *self = Self { block, offset: 0, next };
            }
        }
        Ok(taken)
    }

    pub fn u16(&mut self, blocks: &Blocks) -> Result<u16, Damage> {
        self.take(blocks, 2).map(|raw| number(&raw, 0, 2) as u16)
    }

    pub fn u32(&mut self, blocks: &Blocks) -> Result<u32, Damage> {
        self.take(blocks, 4).map(|raw| number(&raw, 0, 4) as u32)
    }

    pub fn u64(&mut self, blocks: &Blocks) -> Result<u64, Damage> {
        self.take(blocks, 8).map(|raw| number(&raw, 0, 8))
    }
}
