//! What an image is, from its first bytes, and where in it the root file system lies.
//!
//! Reads through [`ReadAt`] only, so that it works on a connection before there is any device.
//! Recognises what it can boot, and by name what people serve by mistake. Trusts nothing: every
//! offset in an image is checked against its size.

use std::fmt;

use super::partitions::{self, Partition, Table};
use super::size::Size;
use crate::error::{Error, Result};

/// Random access to an image.
pub trait ReadAt {
    fn size_bytes(&self) -> u64;
    /// Fills `buffer` or fails.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()>;
}

/// Enough for every signature: the last one is that of btrfs, at 64 KiB.
const HEAD: u64 = 68 << 10;

/// The part of an image that holds the root file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Number of the partition, or `None` for the whole image.
    pub partition: Option<u32>,
    pub offset: u64,
    pub length: u64,
    pub file_system: FileSystem,
    /// Its first bytes, with every superblock in them, by which the image is known again.
    pub head: Vec<u8>,
}

/// A file system, as far as mounting it and talking about it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// As in `/proc/filesystems`.
    pub fstype: String,
    /// For people: `squashfs 4.0 (zstd)`.
    pub description: String,
}

/// Finds the root in `image`: the whole of it, or one partition.
///
/// `partition` is what the operator asked for; without it the choice must be obvious.
/// `fstype` is `rootfstype=`, one or a list of them, and overrules what the bytes say.
pub fn find_root(
    image: &mut dyn ReadAt,
    partition: Option<u32>,
    fstype: Option<&str>,
) -> Result<Root> {
    let size = image.size_bytes();
    let head = read_head(image, 0, size)?;
    let whole =
        |file_system, head| Root { partition: None, offset: 0, length: size, file_system, head };

    let contents = identify(&head);
    // An image of optical discs has a partition table as well, for USB sticks.
    if partition.is_none()
        && let Contents::FileSystem(found) = &contents
    {
        found.must_fit(size)?;
        return Ok(whole(overruled(found.file_system.clone(), fstype), head));
    }
    let Some(table) = partitions::read(image, &head)? else {
        return match (partition, fstype) {
            (Some(number), _) => Err(Error::refused(
                format!("looking for partition {number}"),
                format!("the image has no partition table: {}", contents.starts_with(&head)),
            )),
            (None, Some(fstype)) => Ok(whole(named(fstype), head)),
            (None, None) => Err(Error::refused(
                "recognising the image",
                format!("it is not a file system: {}", contents.starts_with(&head)),
            )
            .with_hint("it must be squashfs, erofs, ext4 or iso9660; or name it with rootfstype=")),
        };
    };
    let chosen = match partition {
        Some(number) => named_partition(&table, number)?.clone(),
        None => obvious_root(image, &table)?,
    };
    let head = read_head(image, chosen.offset, chosen.length)?;
    let file_system = match (identify(&head), fstype) {
        (Contents::FileSystem(found), fstype) => {
            found.must_fit(chosen.length)?;
            overruled(found.file_system, fstype)
        }
        (_, Some(fstype)) => named(fstype),
        (contents, None) => {
            return Err(Error::refused(
                format!("recognising partition {}", chosen.number),
                format!("it is not a file system: {}", contents.starts_with(&head)),
            ));
        }
    };
    Ok(Root {
        partition: Some(chosen.number),
        offset: chosen.offset,
        length: chosen.length,
        file_system,
        head,
    })
}

/// `rootfstype=` may be a list; the first of it is what is tried without evidence.
fn named(fstypes: &str) -> FileSystem {
    let fstype = fstypes.split(',').next().unwrap_or(fstypes);
    FileSystem { fstype: fstype.to_owned(), description: fstype.to_owned() }
}

fn overruled(found: FileSystem, fstypes: Option<&str>) -> FileSystem {
    match fstypes {
        Some(fstypes) if !fstypes.split(',').any(|fstype| fstype == found.fstype) => named(fstypes),
        _ => found,
    }
}

fn named_partition(table: &Table, number: u32) -> Result<&Partition> {
    table.partitions.iter().find(|partition| partition.number == number).ok_or_else(|| {
        let numbers: Vec<_> =
            table.partitions.iter().map(|partition| partition.number.to_string()).collect();
        Error::refused(format!("looking for partition {number}"), "the image has no such partition")
            .with_hint(format!("it has {} ({})", numbers.join(", "), table.kind))
    })
}

/// The one partition that says it is this machine's root, else the one that could be.
fn obvious_root(image: &mut dyn ReadAt, table: &Table) -> Result<Partition> {
    let marked: Vec<_> =
        table.partitions.iter().filter(|partition| partition.is_root_of_this_machine()).collect();
    if let [root] = marked.as_slice() {
        return Ok((*root).clone());
    }
    let candidates: Vec<&Partition> = if marked.is_empty() {
        table.partitions.iter().filter(|partition| !partition.is_never_root()).collect()
    } else {
        marked
    };
    let mut roots = Vec::new();
    for partition in candidates {
        let head = read_head(image, partition.offset, partition.length)?;
        if let Contents::FileSystem(found) = identify(&head) {
            roots.push((partition, found.file_system.description));
        }
    }
    let doing = "choosing the root partition";
    match roots.as_slice() {
        [(root, _)] => Ok((*root).clone()),
        [] => Err(Error::refused(
            doing,
            format!(
                "none of its {} partitions ({}) has a file system that can be the root",
                table.partitions.len(),
                table.kind
            ),
        )),
        several => {
            let list: Vec<_> = several
                .iter()
                .map(|(p, what)| format!("{} ({what}, {})", p.number, Size(p.length)))
                .collect();
            let example = several.first().map_or(1, |(partition, _)| partition.number);
            Err(Error::refused(doing, format!("it could be any of {}", list.join(", ")))
                .with_hint(format!("name one: root=/dev/nbd0p{example}")))
        }
    }
}

fn read_head(image: &mut dyn ReadAt, offset: u64, length: u64) -> Result<Vec<u8>> {
    let mut head = vec![0; usize::try_from(length.min(HEAD)).unwrap_or(0)];
    image.read_at(offset, &mut head)?;
    Ok(head)
}

/// What the first bytes of something are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    FileSystem(Found),
    /// Well known, and no root: the words say what it is.
    Foreign(&'static str),
    Unknown,
}

/// A file system that says how long it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub file_system: FileSystem,
    /// Bytes it occupies, when its superblock tells.
    pub extent: Option<u64>,
}

impl Found {
    /// A copy of an image that was interrupted mounts, and fails hours later.
    fn must_fit(&self, length: u64) -> Result<()> {
        match self.extent {
            Some(extent) if extent > length => Err(Error::refused(
                format!("checking the {}", self.file_system.description),
                format!(
                    "it is cut off: it has {}, of which the server has {}",
                    Size(extent),
                    Size(length)
                ),
            )
            .with_hint("was the image copied to the server completely?")),
            _ => Ok(()),
        }
    }
}

impl Contents {
    fn starts_with(&self, head: &[u8]) -> impl fmt::Display {
        match self {
            Self::Foreign(what) => format!("it is {what}"),
            _ if head.iter().all(|byte| *byte == 0) => {
                format!("its first {} are zeroes", Size(head.len() as u64))
            }
            _ => {
                let bytes: Vec<_> = head.iter().take(8).map(|b| format!("{b:02x}")).collect();
                format!("it starts with {}", bytes.join(" "))
            }
        }
    }
}

/// Recognises the first [`HEAD`] bytes of a partition or a whole image.
pub fn identify(head: &[u8]) -> Contents {
    let file_system =
        squashfs(head).or_else(|| erofs(head)).or_else(|| ext(head)).or_else(|| iso9660(head));
    if let Some(found) = file_system {
        return Contents::FileSystem(found);
    }
    FOREIGN
        .iter()
        .find(|(offset, magic, _)| head.get(*offset..).is_some_and(|rest| rest.starts_with(magic)))
        .map_or(Contents::Unknown, |(_, _, what)| Contents::Foreign(what))
}

#[rustfmt::skip]
const FOREIGN: &[(usize, &[u8], &str)] = &[
    (0,       b"XFSB",                     "xfs, which must be named with rootfstype="),
    (0x10040, b"_BHRfS_M",                 "btrfs, which must be named with rootfstype="),
    (1024,    b"\x10\x20\xf5\xf2",         "f2fs, which must be named with rootfstype="),
    (0,       b"QFI\xfb",                  "a qcow2 image; serve it with qemu-nbd, or convert it to raw"),
    (0,       b"\x1f\x8b",                 "compressed with gzip; unpack it on the server"),
    (0,       b"\xfd7zXZ\0",               "compressed with xz; unpack it on the server"),
    (0,       b"\x28\xb5\x2f\xfd",         "compressed with zstd; unpack it on the server"),
    (0,       b"BZh",                      "compressed with bzip2; unpack it on the server"),
    (0,       b"070701",                   "a cpio archive, perhaps the initramfs"),
    (257,     b"ustar",                    "a tar archive"),
    (0,       b"LUKS\xba\xbe",             "encrypted (LUKS)"),
    (0x218,   b"LVM2 001",                 "an LVM volume; serve the logical volume"),
    (0,       b"\x7fELF",                  "a program"),
    (0x202,   b"HdrS",                     "a Linux kernel"),
    (0,       b"<!DOCTYPE",                "an HTML page"),
    (0,       b"<html",                    "an HTML page"),
    (0,       b"conectix",                 "a VHD image; convert it to raw"),
    (0,       b"vhdxfile",                 "a VHDX image; convert it to raw"),
    (0,       b"KDMV",                     "a VMDK image; convert it to raw"),
    (4086,    b"SWAPSPACE2",               "swap space"),
    (54,      b"FAT1",                     "FAT"),
    (82,      b"FAT32",                    "FAT"),
    (3,       b"NTFS    ",                 "NTFS"),
];

/// How a squashfs is compressed, by the number in its superblock.
pub fn squashfs_packing(number: u64) -> Option<&'static str> {
    Some(match number {
        1 => "gzip",
        2 => "lzma",
        3 => "lzo",
        4 => "xz",
        5 => "lz4",
        6 => "zstd",
        _ => return None,
    })
}

fn squashfs(head: &[u8]) -> Option<Found> {
    // Documentation/filesystems/squashfs.rst; magic of 1.x and 2.x big-endian images left out.
    (head.get(..4)? == b"hsqs").then_some(())?;
    let (major, minor) = (le16(head, 28)?, le16(head, 30)?);
    let compression = squashfs_packing(le16(head, 20)?.into()).unwrap_or("unknown compression");
    Some(Found {
        file_system: FileSystem {
            fstype: "squashfs".into(),
            description: format!("squashfs {major}.{minor} ({compression})"),
        },
        // Before 4.0 the fields lay elsewhere, and the kernel will not mount those anyway.
        extent: if major == 4 { le64(head, 40) } else { None },
    })
}

fn erofs(head: &[u8]) -> Option<Found> {
    let superblock = head.get(1024..)?;
    (le32(superblock, 0)? == 0xe0f5_e1e2).then_some(())?;
    let block_bits = u32::from(*superblock.get(12)?);
    let blocks = u64::from(le32(superblock, 36)?);
    Some(Found {
        file_system: named("erofs"),
        extent: 1u64.checked_shl(block_bits).and_then(|size| blocks.checked_mul(size)),
    })
}

fn ext(head: &[u8]) -> Option<Found> {
    const HAS_JOURNAL: u32 = 0x4;
    const IS_A_JOURNAL: u32 = 0x8;
    const BIT64: u32 = 0x80;
    /// Features (incompat, ro_compat) that ext3 does not know: any of them makes it ext4.
    const EXT3_INCOMPAT: u32 = 0x2 | 0x4 | 0x10;
    const EXT3_RO_COMPAT: u32 = 0x1 | 0x2 | 0x4;
    let superblock = head.get(1024..)?;
    (le16(superblock, 0x38)? == 0xef53).then_some(())?;
    let compat = le32(superblock, 0x5c)?;
    let incompat = le32(superblock, 0x60)?;
    let ro_compat = le32(superblock, 0x64)?;
    if incompat & IS_A_JOURNAL != 0 {
        return None;
    }
    let name = if incompat & !EXT3_INCOMPAT != 0 || ro_compat & !EXT3_RO_COMPAT != 0 {
        "ext4"
    } else if compat & HAS_JOURNAL != 0 {
        "ext3"
    } else {
        "ext2"
    };
    let high = if incompat & BIT64 != 0 { le32(superblock, 0x150)? } else { 0 };
    let blocks = u64::from(high) << 32 | u64::from(le32(superblock, 4)?);
    let block_size = 1024u64.checked_shl(le32(superblock, 24)?);
    Some(Found {
        // The ext4 driver mounts all three.
        file_system: FileSystem { fstype: "ext4".into(), description: name.into() },
        extent: block_size.and_then(|size| blocks.checked_mul(size)),
    })
}

fn iso9660(head: &[u8]) -> Option<Found> {
    let descriptor = head.get(32768..)?;
    (descriptor.get(1..6)? == b"CD001").then_some(())?;
    let blocks = u64::from(le32(descriptor, 80)?);
    Some(Found {
        file_system: named("iso9660"),
        extent: blocks.checked_mul(u64::from(le16(descriptor, 128)?)),
    })
}

pub(super) fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::root::partitions::tests::{Entry, gpt, mbr};

    impl ReadAt for Vec<u8> {
        fn size_bytes(&self) -> u64 {
            self.len() as u64
        }
        fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
            let from = usize::try_from(offset).unwrap();
            let end = || Error::invalid("reading", "beyond the end");
            let bytes =
                self.get(from..).and_then(|rest| rest.get(..buffer.len())).ok_or_else(end)?;
            buffer.copy_from_slice(bytes);
            Ok(())
        }
    }

    fn image(length: usize, pieces: &[(usize, &[u8])]) -> Vec<u8> {
        let mut image = vec![0; length];
        for (at, bytes) in pieces {
            image[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        image
    }

    pub fn squashfs_of(extent: u64) -> Vec<u8> {
        image(96, &[(0, b"hsqs"), (20, &[6, 0]), (28, &[4, 0]), (40, &extent.to_le_bytes())])
    }

    fn ext_of(compat: u32, incompat: u32, blocks: u32) -> Vec<u8> {
        image(
            2048,
            &[
                (1028, &blocks.to_le_bytes()),
                (1048, &2u32.to_le_bytes()),
                (1080, &[0x53, 0xef]),
                (1116, &compat.to_le_bytes()),
                (1120, &incompat.to_le_bytes()),
            ],
        )
    }

    #[test]
    #[rustfmt::skip]
    fn images_are_recognised_by_their_first_bytes() {
        let fs = |fstype: &str, description: &str, extent| Contents::FileSystem(Found {
            file_system: FileSystem { fstype: fstype.into(), description: description.into() }, extent,
        });
        let cases = [
            (squashfs_of(4096), fs("squashfs", "squashfs 4.0 (zstd)", Some(4096))),
            (image(96, &[(0, b"hsqs"), (20, &[9, 0]), (28, &[3, 0, 1, 0])]),
                                fs("squashfs", "squashfs 3.1 (unknown compression)", None)),
            (image(2048, &[(1024, &[0xe2, 0xe1, 0xf5, 0xe0]), (1036, &[12]), (1060, &[2])]),
                                fs("erofs", "erofs", Some(8192))),
            (image(2048, &[(1024, &[0xe2, 0xe1, 0xf5, 0xe0]), (1036, &[200]), (1060, &[2])]),
                                fs("erofs", "erofs", None)), // an impossible block size
            (ext_of(0, 0x2, 2),    fs("ext4", "ext2", Some(8192))),
            (ext_of(0x4, 0x2, 2),  fs("ext4", "ext3", Some(8192))),
            (ext_of(0x4, 0x42, 2), fs("ext4", "ext4", Some(8192))),
            (ext_of(0, 0x8, 2),    Contents::Unknown), // an external journal
            (image(40_000, &[(32769, b"CD001"), (32848, &[4]), (32896, &[0, 8])]),
                                fs("iso9660", "iso9660", Some(8192))),
            (b"XFSB".to_vec(),     Contents::Foreign("xfs, which must be named with rootfstype=")),
            (image(70_000, &[(65600, b"_BHRfS_M")]),
                                Contents::Foreign("btrfs, which must be named with rootfstype=")),
            (b"<!DOCTYPE html>".to_vec(), Contents::Foreign("an HTML page")),
            (b"hsq".to_vec(),      Contents::Unknown),
            (vec![],               Contents::Unknown),
        ];
        for (bytes, expected) in cases {
            let start: Vec<_> = bytes.iter().take(40).collect();
            assert_eq!(identify(&bytes), expected, "image that starts with {start:?}");
        }
    }

    /// 8 MiB with the given partitions, each filled from its first byte.
    fn disk(table: &[u8], contents: &[(usize, &[u8])]) -> Vec<u8> {
        let mut disk = image(8 << 20, contents);
        disk[..table.len()].copy_from_slice(table);
        disk
    }

    #[test]
    #[rustfmt::skip]
    fn the_root_is_found_when_it_is_obvious() {
        const MIB: usize = 1 << 20;
        let small = squashfs_of(4096);
        let linux = "0fc63daf-8483-4772-8e79-3d69d8477de4";
        let root = partitions::ROOT_OF_THIS_MACHINE;
        let esp = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
        let gpt_of = |types: &[&str]| gpt(&types.iter().enumerate().map(|(n, guid)| Entry {
            guid, first: 2048 * (n as u64 + 1), last: 2048 * (n as u64 + 2) - 1,
        }).collect::<Vec<_>>());
        let ext = ext_of(4, 0x42, 256);
        let at = |n: usize| n * MIB;
        type Found = (Option<u32>, u64, u64, &'static str);
        type Case = (&'static str, Vec<u8>, Option<u32>, Option<&'static str>, Result<Found, &'static str>);
        let cases: Vec<Case> = vec![
            ("whole image", image(MIB, &[(0, &small)]), None, None, Ok((None, 0, 1 << 20, "squashfs 4.0 (zstd)"))),
            ("marked by its type", disk(&gpt_of(&[esp, root, linux]), &[(at(2), &small), (at(3), &ext)]), None, None,
                Ok((Some(2), 2 << 20, 1 << 20, "squashfs 4.0 (zstd)"))),
            ("the only file system", disk(&gpt_of(&[esp, linux, linux]), &[(at(1), &small), (at(3), &ext)]), None, None,
                Ok((Some(3), 3 << 20, 1 << 20, "ext4"))),
            ("two file systems", disk(&gpt_of(&[linux, linux]), &[(at(1), &small), (at(2), &ext)]), None, None,
                Err("choosing the root partition: refused: it could be any of \
                     1 (squashfs 4.0 (zstd), 1.0 MiB), 2 (ext4, 1.0 MiB)")),
            ("two, and one is named", disk(&gpt_of(&[linux, linux]), &[(at(1), &small), (at(2), &ext)]), Some(2), None,
                Ok((Some(2), 2 << 20, 1 << 20, "ext4"))),
            ("a partition that is not there", disk(&gpt_of(&[linux]), &[(at(1), &small)]), Some(3), None,
                Err("looking for partition 3: refused: the image has no such partition")),
            ("no file system in any", disk(&gpt_of(&[linux]), &[]), None, None,
                Err("choosing the root partition: refused: none of its 1 partitions (GPT) has a file system that can be the root")),
            ("MBR", disk(&mbr(&[(0x82, 2048, 2048), (0x83, 4096, 2048)]), &[(at(2), &ext)]), None, None,
                Ok((Some(2), 2 << 20, 1 << 20, "ext4"))),
            ("a partition of no table", image(MIB, &[(0, &small)]), Some(1), None,
                Err("looking for partition 1: refused: the image has no partition table: it starts with 68 73 71 73 00 00 00 00")),
            ("an unknown file system by name", image(MIB, &[(0, b"XFSB")]), None, Some("xfs"),
                Ok((None, 0, 1 << 20, "xfs"))),
            ("a list with the right one", image(MIB, &[(0, &small)]), None, Some("ext4,squashfs"),
                Ok((None, 0, 1 << 20, "squashfs 4.0 (zstd)"))),
            ("a list without it", image(MIB, &[(0, &small)]), None, Some("xfs,btrfs"),
                Ok((None, 0, 1 << 20, "xfs"))),
            ("a foreign one", image(MIB, &[(0, b"XFSB")]), None, None,
                Err("recognising the image: refused: it is not a file system: it is xfs, which must be named with rootfstype=")),
            ("zeroes", image(MIB, &[]), None, None,
                Err("recognising the image: refused: it is not a file system: its first 68.0 KiB are zeroes")),
            ("cut off", image(MIB, &[(0, &squashfs_of(4 << 20))]), None, None,
                Err("checking the squashfs 4.0 (zstd): refused: it is cut off: it has 4.0 MiB, of which the server has 1.0 MiB")),
            ("a tiny one", b"abcdefghij".to_vec(), None, None,
                Err("recognising the image: refused: it is not a file system: it starts with 61 62 63 64 65 66 67 68")),
        ];
        for (case, mut bytes, partition, fstype, expected) in cases {
            let found = find_root(&mut bytes, partition, fstype);
            let found = found.map(|r| (r.partition, r.offset, r.length, r.file_system.description));
            let found = found.map_err(|error| error.to_string());
            let expected = expected.map(|(p, o, l, d)| (p, o, l, d.to_owned())).map_err(str::to_owned);
            assert_eq!(found, expected, "{case}");
        }
    }

    proptest! {
        #[test]
        fn no_image_makes_the_probe_panic(
            pieces in proptest::collection::vec(
                (prop::sample::select(vec![0usize, 20, 440, 446, 510, 512, 520, 584, 592, 1024, 1080, 1536, 4096]),
                 proptest::collection::vec(any::<u8>(), 0..80)), 0..6),
            magic in 0usize..5,
            partition in proptest::option::of(0u32..8),
        ) {
            let mut bytes = vec![0u8; 70_000];
            for (at, piece) in pieces { bytes[at..at + piece.len()].copy_from_slice(&piece); }
            match magic {
                0 => bytes[..4].copy_from_slice(b"hsqs"),
                1 => bytes[1024..1028].copy_from_slice(&[0xe2, 0xe1, 0xf5, 0xe0]),
                2 => bytes[1080..1082].copy_from_slice(&[0x53, 0xef]),
                3 => bytes[512..520].copy_from_slice(b"EFI PART"),
                _ => bytes[510..512].copy_from_slice(&[0x55, 0xaa]),
            }
            let _ = find_root(&mut bytes, partition, None);
        }
    }
}
