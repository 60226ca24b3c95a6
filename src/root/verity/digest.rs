//! Digests as dm-verity makes them, for looking at the top of a tree before there is a device.
//!
//! Two algorithms: the default of veritysetup, and the one that it is changed to. Trees of any
//! other are left to the kernel, which knows many more.

use sha2::{Digest, Sha256, Sha512};

use super::superblock::HashType;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    /// By the kernel's name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }

    /// Bytes of a digest.
    pub fn size(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// The digest of one block.
    pub fn digest(self, hash_type: HashType, salt: &[u8], block: &[u8]) -> Vec<u8> {
        let parts = match hash_type {
            HashType::ChromeOs => [block, salt],
            HashType::Normal => [salt, block],
        };
        match self {
            Self::Sha256 => of::<Sha256>(parts),
            Self::Sha512 => of::<Sha512>(parts),
        }
    }
}

fn of<D: Digest>(parts: [&[u8]; 2]) -> Vec<u8> {
    let mut digest = D::new();
    for part in parts {
        digest.update(part);
    }
    digest.finalize().to_vec()
}
