//! The superblock that `veritysetup format` writes in front of a hash tree.
//!
//! Nobody has signed it: what it says is believed only as far as the root hash, which covers the
//! tree and the salt, comes out right. Its words go into a line of parameters for the kernel, so
//! none may be more than one word.
//!
//! Layout: `struct verity_sb` of cryptsetup's lib/verity/verity.c, version 1, little-endian; also
//! <https://gitlab.com/cryptsetup/cryptsetup/-/wikis/DMVerity>.

use super::plan::hex;
use crate::root::probe::{le16, le32, le64};

/// Of the superblock itself; the tree starts at the next hash block.
pub const LENGTH: usize = 512;

const SIGNATURE: &[u8; 8] = b"verity\0\0";
const LONGEST_SALT: usize = 256;
/// What veritysetup makes; kernels take none that is larger than their pages.
const BLOCKS: std::ops::RangeInclusive<u32> = 512..=512 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    pub hash_type: HashType,
    pub uuid: [u8; 16],
    /// The kernel's name of it: `sha256`.
    pub algorithm: String,
    /// Bytes of data that have a digest of their own; a power of two.
    pub data_block: u32,
    /// Bytes of a block of digests; a power of two.
    pub hash_block: u32,
    /// How many there are; never 0, and fewer bytes than fit a number.
    pub data_blocks: u64,
    /// May be empty.
    pub salt: Vec<u8>,
}

/// Where the salt goes, and how digests are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashType {
    /// As Chrome OS began it: behind the data; digests one after another.
    ChromeOs = 0,
    /// Before the data; each digest fills a power of two.
    Normal = 1,
}

impl Superblock {
    /// The superblock at the beginning of `bytes`; none if that is something else.
    ///
    /// # Errors
    /// It is one, and makes no sense.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, String> {
        let Some(bytes) = bytes.get(..LENGTH).filter(|bytes| bytes.starts_with(SIGNATURE)) else {
            return Ok(None);
        };
        let cut = || "it is cut off".to_owned();
        let version = le32(bytes, 8).ok_or_else(cut)?;
        if version != 1 {
            return Err(format!("it is of version {version}, and only 1 is known"));
        }
        let hash_type = match le32(bytes, 12).ok_or_else(cut)? {
            0 => HashType::ChromeOs,
            1 => HashType::Normal,
            other => return Err(format!("it has hash type {other}, and only 0 and 1 are known")),
        };
        let uuid = *bytes.get(16..).and_then(|rest| rest.first_chunk()).ok_or_else(cut)?;
        let algorithm = algorithm(bytes.get(32..64).ok_or_else(cut)?)?;
        let data_block = block_size("data", le32(bytes, 64).ok_or_else(cut)?)?;
        let hash_block = block_size("hash", le32(bytes, 68).ok_or_else(cut)?)?;
        let data_blocks = le64(bytes, 72).ok_or_else(cut)?;
        if data_blocks == 0 || data_blocks.checked_mul(data_block.into()).is_none() {
            return Err(format!("it is for {data_blocks} blocks of data"));
        }
        let salt_length = usize::from(le16(bytes, 80).ok_or_else(cut)?);
        if salt_length > LONGEST_SALT {
            return Err(format!("it has a salt of {salt_length} bytes"));
        }
        let salt = bytes.get(88..).and_then(|rest| rest.get(..salt_length)).ok_or_else(cut)?;
        Ok(Some(Self {
            hash_type,
            uuid,
            algorithm,
            data_block,
            hash_block,
            data_blocks,
            salt: salt.to_owned(),
        }))
    }

    /// Bytes that the tree answers for.
    pub fn data_bytes(&self) -> u64 {
        self.data_blocks.saturating_mul(self.data_block.into())
    }

    /// As in a table's line: in hexadecimal, and a dash for none.
    pub fn salt_word(&self) -> String {
        if self.salt.is_empty() { "-".to_owned() } else { hex(&self.salt) }
    }
}

fn algorithm(field: &[u8]) -> Result<String, String> {
    let name = field.split(|byte| *byte == 0).next().unwrap_or_default();
    // Parentheses would have the kernel put algorithms together, such as keyed ones without a key.
    let is_ours = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    let starts_well = name.first().is_some_and(u8::is_ascii_lowercase);
    match std::str::from_utf8(name) {
        Ok(text) if starts_well && name.iter().all(is_ours) => Ok(text.to_owned()),
        _ => Err(format!("its algorithm is no name: \"{}\"", name.escape_ascii())),
    }
}

fn block_size(of: &str, bytes: u32) -> Result<u32, String> {
    if bytes.is_power_of_two() && BLOCKS.contains(&bytes) {
        Ok(bytes)
    } else {
        Err(format!("its {of} blocks have {bytes} bytes"))
    }
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As veritysetup would write it.
    pub fn superblock(
        hash_type: u32,
        algorithm: &str,
        sizes: (u32, u32, u64),
        salt: &[u8],
    ) -> Vec<u8> {
        let mut bytes = vec![0; LENGTH];
        let (data_block, hash_block, data_blocks) = sizes;
        let fields: [(usize, &[u8]); 9] = [
            (0, SIGNATURE),
            (8, &1u32.to_le_bytes()),
            (12, &hash_type.to_le_bytes()),
            (32, algorithm.as_bytes()),
            (64, &data_block.to_le_bytes()),
            (68, &hash_block.to_le_bytes()),
            (72, &data_blocks.to_le_bytes()),
            (80, &(salt.len() as u16).to_le_bytes()),
            (88, salt),
        ];
        for (at, field) in fields {
            bytes[at..at + field.len()].copy_from_slice(field);
        }
        bytes
    }

    /// The first bytes of what `veritysetup format` of 2.6.1 wrote.
    #[test]
    fn what_veritysetup_writes_is_read() {
        let mut written = vec![0; 4096];
        let beginning = b"verity\0\0\x01\0\0\0\x01\0\0\0\
            \x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff\
            sha256\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
            \0\x10\0\0\0\x10\0\0\x2c\x01\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x00\xff\x10";
        written[..beginning.len()].copy_from_slice(beginning);
        let read = Superblock::parse(&written).unwrap().unwrap();
        let expected = Superblock {
            hash_type: HashType::Normal,
            uuid: *b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff",
            algorithm: "sha256".into(),
            data_block: 4096,
            hash_block: 4096,
            data_blocks: 300,
            salt: vec![0, 0xff, 0x10],
        };
        assert_eq!(read, expected);
        assert_eq!((read.data_bytes(), read.salt_word().as_str()), (300 * 4096, "00ff10"));
    }

    #[test]
    #[rustfmt::skip]
    fn what_makes_no_sense_is_refused() {
        let sizes = (4096, 4096, 300);
        let with = |at: usize, bytes: &[u8]| {
            let mut block = superblock(1, "sha256", sizes, b"salt");
            block[at..at + bytes.len()].copy_from_slice(bytes);
            block
        };
        let cases = [
            (vec![],                                               None),
            (vec![0; 4096],                                        None),
            (with(0, b"VERITY"),                                   None),
            (with(0, b"")[..511].to_vec(),                         None),
            (with(8, &[2]),                                        Some("it is of version 2, and only 1 is known")),
            (with(12, &[2]),                                       Some("it has hash type 2, and only 0 and 1 are known")),
            (superblock(1, "", sizes, b""),                        Some("its algorithm is no name: \"\"")),
            // What would be more parameters for the kernel.
            (superblock(1, "sha256 - 1 x", sizes, b""),            Some("its algorithm is no name: \"sha256 - 1 x\"")),
            (superblock(1, "hmac(sha256)", sizes, b""),            Some("its algorithm is no name: \"hmac(sha256)\"")),
            (superblock(1, "sha256\n", sizes, b""),                Some("its algorithm is no name: \"sha256\\n\"")),
            (superblock(1, "-", sizes, b""),                       Some("its algorithm is no name: \"-\"")),
            (superblock(1, "sha256", (1000, 4096, 1), b""),        Some("its data blocks have 1000 bytes")),
            (superblock(1, "sha256", (256, 4096, 1), b""),         Some("its data blocks have 256 bytes")),
            (superblock(1, "sha256", (0, 4096, 1), b""),           Some("its data blocks have 0 bytes")),
            (superblock(1, "sha256", (4096, 1 << 20, 1), b""),     Some("its hash blocks have 1048576 bytes")),
            (superblock(1, "sha256", (4096, 4096, 0), b""),        Some("it is for 0 blocks of data")),
            (superblock(1, "sha256", (4096, 4096, 1 << 52), b""),  Some("it is for 4503599627370496 blocks of data")),
            (with(80, &[1, 1]),                                    Some("it has a salt of 257 bytes")),
        ];
        for (bytes, expected) in cases {
            let got = Superblock::parse(&bytes);
            assert_eq!(got, expected.map_or(Ok(None), |why| Err(why.into())));
        }
        // The longest of each.
        let long = superblock(0, "abcdefghijklmnopqrstuvwxyz012345", (512, 512 << 10, 1), &[7; 256]);
        let read = Superblock::parse(&long).unwrap().unwrap();
        assert_eq!((read.algorithm.len(), read.salt.len(), read.hash_type), (32, 256, HashType::ChromeOs));
        assert_eq!(Superblock::parse(&superblock(1, "sha1", sizes, b"")).unwrap().unwrap().salt_word(), "-");
    }

    proptest! {
        /// Whatever is behind the signature, it is an error or makes sense.
        #[test]
        fn no_bytes_lead_astray(bytes in proptest::collection::vec(any::<u8>(), LENGTH - 8)) {
            let bytes = [SIGNATURE.as_slice(), &bytes].concat();
            if let Ok(Some(read)) = Superblock::parse(&bytes) {
                prop_assert!(read.data_bytes() >= 512);
                prop_assert!(!read.algorithm.contains(' ') && !read.salt_word().contains(' '));
            }
        }
    }
}
