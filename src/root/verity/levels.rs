//! How the hash tree lies in its blocks.
//!
//! Digests of data blocks fill blocks, whose digests fill blocks, until one block is left; its
//! digest is the root hash. In front is the superblock, then come the levels, that of the one block
//! first. A single block of data has no tree: its own digest is the root hash.
//!
//! The kernel's arithmetic (`verity_ctr` of drivers/md/dm-verity-target.c) in fewer words, tested
//! against what veritysetup writes.

use super::superblock::{self, Superblock};

/// The extent of one tree, in bytes from where its superblock is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Number of the block, counted from the beginning of the device, with which the tree begins.
    pub first_block: u64,
    /// How many blocks it has; 0 where one block of data is all.
    pub blocks: u64,
    /// Where it ends, in bytes from the beginning of the device.
    pub end: u64,
}

/// Where the tree is whose superblock is at `offset` bytes of the device; none if no device could
/// be so large, or a digest does not fit twice into a block.
pub fn extent(superblock: &Superblock, offset: u64, digest_size: usize) -> Option<Extent> {
    let block = u64::from(superblock.hash_block);
    let first_block = offset.checked_add(superblock::LENGTH as u64)?.div_ceil(block);
    let blocks = hash_blocks(superblock.data_blocks, fan_out(superblock.hash_block, digest_size)?);
    let end = first_block.checked_add(blocks)?.checked_mul(block)?;
    Some(Extent { first_block, blocks, end })
}

/// How many digests a block holds: a power of two, for both types of hash.
fn fan_out(hash_block: u32, digest_size: usize) -> Option<u64> {
    let most = u64::from(hash_block).checked_div(digest_size as u64)?;
    most.checked_ilog2().filter(|bits| *bits > 0).map(|bits| 1 << bits)
}

/// Blocks of all levels.
fn hash_blocks(data_blocks: u64, fan_out: u64) -> u64 {
    let mut all = 0u64;
    let mut level = data_blocks;
    while level > 1 {
        level = level.div_ceil(fan_out);
        all = all.saturating_add(level);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::superblock::tests::superblock;
    use super::*;

    /// Blocks of a hash file, its superblock's included, as veritysetup 2.6.1 makes it.
    #[test]
    #[rustfmt::skip]
    fn trees_are_as_large_as_veritysetup_makes_them() {
        let cases = [
            // data blocks, their size, size of hash blocks, digest, bytes of the file
            (1,      4096, 4096, 32, 4096),
            (2,      4096, 4096, 32, 8192),
            (127,    4096, 4096, 32, 8192),
            (128,    4096, 4096, 32, 8192),
            (129,    4096, 4096, 32, 16384),
            (16383,  4096, 4096, 32, 532_480),
            (16384,  4096, 4096, 32, 532_480),
            (16385,  4096, 4096, 32, 544_768),
            (129,    4096, 4096, 64, 20480),
            (4097,   4096, 4096, 64, 282_624),
            (300,    1024, 1024, 32, 12288),
            (300,     512, 4096, 32, 20480),
            (300,    4096,  512, 64, 23040),
            (300,     512,  512, 64, 23040),
            (300,    4096, 4096, 20, 20480), // 204 digests would fit, and only 128 are put there
        ];
        for (blocks, data, hash, digest, bytes) in cases {
            let block = superblock(1, "x", (data, hash, blocks), b"");
            let superblock = Superblock::parse(&block).unwrap().unwrap();
            let extent = extent(&superblock, 0, digest).unwrap();
            assert_eq!(extent.end, bytes, "{blocks} {data} {hash} {digest}");
            assert_eq!(extent.first_block, 1);
            assert_eq!(extent.blocks, bytes / u64::from(hash) - 1);
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_tree_begins_at_the_block_behind_its_superblock() {
        let extent_at = |offset, hash_block, blocks| {
            let block = superblock(1, "sha256", (4096, hash_block, blocks), b"");
            extent(&Superblock::parse(&block).unwrap().unwrap(), offset, 32)
                .map(|extent| (extent.first_block, extent.end))
        };
        let cases = [
            (0,        4096,  129, Some((1, 4 * 4096))),
            (0,        512,   2,   Some((1, 1024))),
            (512,      4096,  2,   Some((1, 8192))),  // both in one block
            (3584,     4096,  2,   Some((1, 8192))),
            (4096,     4096,  2,   Some((2, 12288))),
            (102_400,  4096,  25,  Some((26, 110_592))),
            (102_400,  65536, 25,  Some((2, 3 << 16))),
            (u64::MAX - 511,  512, 2, None),
            (u64::MAX - 1023, 512, 2, None),
        ];
        for (offset, hash_block, blocks, expected) in cases {
            assert_eq!(extent_at(offset, hash_block, blocks), expected, "{offset} {hash_block} {blocks}");
        }
        // As large as a superblock can say; the kernel counts as far.
        assert!(extent_at(0, 512, (1 << 52) - 1).is_some());
        assert_eq!([fan_out(512, 64), fan_out(512, 512), fan_out(512, 1024), fan_out(512, 0)], [Some(8), None, None, None]);
    }
}
