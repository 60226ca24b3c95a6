//! The line that describes a verified device to device-mapper.
//!
//! Documentation/admin-guide/device-mapper/verity.rst: version, data device, hash device, data
//! block size, hash block size, number of data blocks, first hash block, algorithm, digest, salt,
//! and the number of optional words, which follow.

use super::plan::{OnCorruption, RootHash};
use super::superblock::Superblock;

/// device-mapper's name of the target.
pub const TARGET: &str = "verity";

/// Devices are `MAJOR:MINOR`; `first_block` is counted in hash blocks from the beginning of `hash`.
pub fn line(
    superblock: &Superblock,
    root_hash: &RootHash,
    on_corruption: OnCorruption,
    data: &str,
    hash: &str,
    first_block: u64,
) -> String {
    let Superblock { hash_type, algorithm, data_block, hash_block, data_blocks, .. } = superblock;
    let mut line = format!(
        "{} {data} {hash} {data_block} {hash_block} {data_blocks} {first_block} {algorithm} \
         {root_hash} {}",
        *hash_type as u8,
        superblock.salt_word(),
    );
    if let Some(feature) = on_corruption.feature() {
        line.push_str(" 1 ");
        line.push_str(feature);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::superblock::tests::superblock;
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn a_line_says_what_the_superblock_does() {
        let hash = RootHash::of(vec![0xab; 32]);
        let digits = "ab".repeat(32);
        let normal = superblock(1, "sha256", (4096, 4096, 300), &[0, 255]);
        let chrome = superblock(0, "sha512", (512, 1024, 1), b"");
        let cases = [
            (&normal, OnCorruption::Error,  format!("1 254:0 7:1 4096 4096 300 5 sha256 {digits} 00ff")),
            (&normal, OnCorruption::Reboot, format!("1 254:0 7:1 4096 4096 300 5 sha256 {digits} 00ff 1 restart_on_corruption")),
            (&chrome, OnCorruption::Panic,  format!("0 254:0 7:1 512 1024 1 5 sha512 {digits} - 1 panic_on_corruption")),
        ];
        for (bytes, mode, expected) in cases {
            let superblock = Superblock::parse(bytes).unwrap().unwrap();
            assert_eq!(line(&superblock, &hash, mode, "254:0", "7:1", 5), expected);
        }
    }
}
