//! Inodes and folders.

use super::metadata::{Blocks, Cursor};
use super::{Damage, damaged};

/// No folder of an image has a longer listing; it takes 100,000 files with long names.
const LONGEST_LISTING: u32 = 32 << 20;

/// PATH_MAX of Linux.
const LONGEST_TARGET: u32 = 4096;

#[derive(Clone, Debug)]
pub struct Inode {
    pub mode: u16,
    pub node: Node,
}

#[derive(Clone, Debug)]
pub enum Node {
    Directory {
        /// Of the listing: its block, behind the beginning of all listings, and the offset in it.
        block: u32,
        offset: u16,
        size: u32,
    },
    File {
        start: u64,
        size: u64,
        /// Number of the fragment that holds the tail, and the offset in it.
        fragment: Option<(u32, u32)>,
        /// At the sizes of the blocks.
        sizes: Cursor,
    },
    Link(Vec<u8>),
    /// Devices, sockets and pipes.
    Other,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub name: Vec<u8>,
    inode: u64,
}

impl Inode {
    /// `reference`: the block, behind the beginning of all inodes, and 16 bits of offset in it.
    pub fn read(blocks: &Blocks, reference: u64) -> Result<Self, Damage> {
        const NO_FRAGMENT: u32 = u32::MAX;
        let block = blocks.superblock.inodes.saturating_add(reference >> 16);
        let mut cursor = blocks.cursor(block, reference & 0xffff)?;
        let kind = cursor.u16(blocks)?;
        let mode = cursor.u16(blocks)?;
        // Owner, group, time, number.
        cursor.take(blocks, 12)?;
        let fragment = |index: u32, offset: u32| (index != NO_FRAGMENT).then_some((index, offset));
        let node = match kind {
            1 => {
                let block = cursor.u32(blocks)?;
                cursor.u32(blocks)?; // links
                let size = cursor.u16(blocks)?.into();
                Node::Directory { block, size, offset: cursor.u16(blocks)? }
            }
            8 => {
                cursor.u32(blocks)?; // links
                let size = cursor.u32(blocks)?;
                let block = cursor.u32(blocks)?;
                cursor.take(blocks, 6)?; // parent, length of the index
                Node::Directory { block, size, offset: cursor.u16(blocks)? }
            }
            2 => {
                let start = cursor.u32(blocks)?.into();
                let (index, offset) = (cursor.u32(blocks)?, cursor.u32(blocks)?);
                let size = cursor.u32(blocks)?.into();
                Node::File { start, size, fragment: fragment(index, offset), sizes: cursor }
            }
            9 => {
                let (start, size) = (cursor.u64(blocks)?, cursor.u64(blocks)?);
                cursor.take(blocks, 12)?; // bytes in holes, links
                let (index, offset) = (cursor.u32(blocks)?, cursor.u32(blocks)?);
                cursor.u32(blocks)?; // extended attributes
                Node::File { start, size, fragment: fragment(index, offset), sizes: cursor }
            }
            3 | 10 => {
                cursor.u32(blocks)?; // links
                let length = cursor.u32(blocks)?;
                if length > LONGEST_TARGET {
                    return Err(damaged("a link is longer than a path can be"));
                }
                Node::Link(cursor.take(blocks, length as usize)?)
            }
            4..=7 | 11..=14 => Node::Other,
            _ => return Err(damaged("there is something in it of no known kind")),
        };
        Ok(Self { mode, node })
    }

    /// What a folder holds under `name`.
    pub fn find(&self, blocks: &Blocks, name: &[u8]) -> Result<Option<Self>, Damage> {
        let found = self.entries(blocks)?.into_iter().find(|entry| entry.name == name);
        found.map(|entry| Self::read(blocks, entry.inode)).transpose()
    }

    /// What a folder holds; nothing for what is none.
    pub fn entries(&self, blocks: &Blocks) -> Result<Vec<Entry>, Damage> {
        let Node::Directory { block, offset, size } = self.node else { return Ok(Vec::new()) };
        if size > LONGEST_LISTING {
            return Err(damaged("a folder is larger than any folder"));
        }
        let mut entries = Vec::new();
        // "." and "..", which are not stored, count for three bytes.
        let mut left = size.saturating_sub(3);
        if left == 0 {
            return Ok(entries);
        }
        let start = blocks.superblock.folders.saturating_add(block.into());
        let mut cursor = blocks.cursor(start, offset.into())?;
        while left > 0 {
            let count = cursor.u32(blocks)?;
            let block = u64::from(cursor.u32(blocks)?);
            cursor.u32(blocks)?; // the number from which those of the entries are counted
            left = left.checked_sub(12).ok_or_else(|| damaged("a folder ends too early"))?;
            // One more than it says, and never more than 256.
            if count >= 256 {
                return Err(damaged("a folder has a header that is none"));
            }
            for _ in 0..=count {
                let offset = u64::from(cursor.u16(blocks)?);
                cursor.u32(blocks)?; // number and kind, which the inode says as well
                let length = usize::from(cursor.u16(blocks)?).saturating_add(1);
                if length > 256 {
                    return Err(damaged("a name is longer than a name can be"));
                }
                let name = cursor.take(blocks, length)?;
                let took = u32::try_from(length).unwrap_or(u32::MAX).saturating_add(8);
                left = left.checked_sub(took).ok_or_else(|| damaged("a folder ends too early"))?;
                entries.push(Entry { name, inode: block << 16 | offset });
            }
        }
        Ok(entries)
    }
}
