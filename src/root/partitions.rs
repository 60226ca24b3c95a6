//! Partition tables: GPT, and MBR with its four primary partitions and logical ones.
//!
//! Numbers are those that the kernel gives, as in `/dev/nbd0p2`. A partition that reaches beyond
//! the end of its image is not reported. A damaged GPT is an error, where the kernel would look for
//! the copy at the end of the disk: an image with half a table was not copied well.

use super::probe::{ReadAt, le32, le64};
use crate::error::{Error, Result};

/// A table with its partitions in the order of their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// `GPT` or `MBR`.
    pub kind: &'static str,
    pub partitions: Vec<Partition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub number: u32,
    /// In bytes from the start of the image.
    pub offset: u64,
    pub length: u64,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As it is written in text.
    Gpt(String),
    Mbr(u8),
}

/// The type of root partitions (Discoverable Partitions Specification) for the machine we run on.
pub const ROOT_OF_THIS_MACHINE: &str = match std::env::consts::ARCH.as_bytes() {
    b"x86_64" => "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
    b"aarch64" => "b921b045-1df0-41c3-af44-4c6f280d3fae",
    b"riscv64" => "72ec70a6-cf74-40e6-bd49-4bda08e8f224",
    _ => "",
};

/// EFI system partition, BIOS boot, extended boot loader, swap.
const NEVER_ROOT: [&str; 4] = [
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
    "21686148-6449-6e6f-744e-656564454649",
    "bc13c2ff-59e6-4262-a352-b275fd6f7172",
    "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f",
];

const MBR_SWAP: u8 = 0x82;
const MBR_EFI_SYSTEM: u8 = 0xef;
const MBR_PROTECTIVE: u8 = 0xee;
const MBR_EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

impl Partition {
    pub fn is_root_of_this_machine(&self) -> bool {
        matches!(&self.kind, Kind::Gpt(guid) if guid == ROOT_OF_THIS_MACHINE)
    }

    /// Boot loaders and swap; the former are FAT, which can hold no root.
    pub fn is_never_root(&self) -> bool {
        match &self.kind {
            Kind::Gpt(guid) => NEVER_ROOT.contains(&guid.as_str()),
            Kind::Mbr(kind) => [MBR_SWAP, MBR_EFI_SYSTEM].contains(kind),
        }
    }
}

/// The partition table of an image that starts with `head`, or `None` when it has none.
pub fn read(image: &mut dyn ReadAt, head: &[u8]) -> Result<Option<Table>> {
    // The size of a sector is nowhere in the image; 4 KiB disks exist.
    for sector in [512u64, 4096] {
        let header = usize::try_from(sector).ok().and_then(|sector| head.get(sector..));
        if let Some(header) = header.filter(|header| header.starts_with(b"EFI PART")) {
            let partitions = gpt(image, header, sector)?;
            return Ok(Some(Table { kind: "GPT", partitions }));
        }
    }
    if !has_boot_signature(head) {
        return Ok(None);
    }
    let partitions = mbr(image, head)?;
    // The signature alone is on every FAT file system and boot loader too.
    Ok((!partitions.is_empty()).then_some(Table { kind: "MBR", partitions }))
}

/// UEFI specification, section 5.3.
fn gpt(image: &mut dyn ReadAt, header: &[u8], sector: u64) -> Result<Vec<Partition>> {
    /// What every disk has, eight times over.
    const MOST_ENTRIES: u32 = 1024;
    const LARGEST_ENTRY: u32 = 1024;
    let damaged = |what: &str| Error::invalid("reading the partition table (GPT)", what);
    let short = || damaged("it is cut off");

    let header_size = le32(header, 12).ok_or_else(short)?;
    if !(92..=512).contains(&header_size) {
        return Err(damaged("the size of its header is wrong"));
    }
    let mut counted = header.get(..header_size as usize).ok_or_else(short)?.to_vec();
    // The checksum is over the header with zeroes in its place.
    if let Some(place) = counted.get_mut(16..20) {
        place.fill(0);
    }
    if le32(header, 16) != Some(crc32(&counted)) {
        return Err(damaged("its checksum is wrong"));
    }
    let first_entry = le64(header, 72).ok_or_else(short)?;
    let count = le32(header, 80).ok_or_else(short)?;
    let entry_size = le32(header, 84).ok_or_else(short)?;
    if count > MOST_ENTRIES || !(128..=LARGEST_ENTRY).contains(&entry_size) {
        return Err(damaged("the size of its entries is absurd"));
    }
    let mut entries = vec![0; count as usize * entry_size as usize];
    let offset = first_entry.checked_mul(sector).ok_or_else(short)?;
    let end = offset.checked_add(entries.len() as u64).ok_or_else(short)?;
    if end > image.size_bytes() {
        return Err(short());
    }
    image.read_at(offset, &mut entries)?;
    if le32(header, 88) != Some(crc32(&entries)) {
        return Err(damaged("the checksum of its entries is wrong"));
    }
    let parse = |(entry, number): (&[u8], u32)| {
        let guid: &[u8; 16] = entry.first_chunk()?;
        if guid.iter().all(|byte| *byte == 0) {
            return None;
        }
        let (first, last) = (le64(entry, 32)?, le64(entry, 40)?);
        let sectors = last.checked_sub(first)?.checked_add(1)?;
        let kind = Kind::Gpt(guid_text(guid));
        within(
            image.size_bytes(),
            number,
            first.checked_mul(sector)?,
            sectors.checked_mul(sector)?,
            kind,
        )
    };
    Ok(entries.chunks_exact(entry_size as usize).zip(1..).filter_map(parse).collect())
}

/// The four entries of the first sector, and the chain that begins in an extended one.
fn mbr(image: &mut dyn ReadAt, head: &[u8]) -> Result<Vec<Partition>> {
    /// As many as the kernel gives minors to.
    const MOST_LOGICAL: u32 = 60;
    const SECTOR: u64 = 512;
    let size = image.size_bytes();
    let mut partitions = Vec::new();
    let mut extended = None;
    for (entry, number) in mbr_entries(head).zip(1..) {
        match entry.kind {
            0 | MBR_PROTECTIVE => {}
            kind if MBR_EXTENDED.contains(&kind) => extended = extended.or(Some(entry.first)),
            kind => partitions.extend(within(
                size,
                number,
                entry.first * SECTOR,
                entry.sectors * SECTOR,
                Kind::Mbr(kind),
            )),
        }
    }
    // Each logical partition has a sector of its own with a table of two: itself, relative to that
    // sector, and the next such sector, relative to the extended partition.
    let Some(base) = extended else { return Ok(partitions) };
    let mut at = base;
    for number in 5..5 + MOST_LOGICAL {
        let mut sector = [0; SECTOR as usize];
        if at * SECTOR + SECTOR > size {
            break;
        }
        image.read_at(at * SECTOR, &mut sector)?;
        if !has_boot_signature(&sector) {
            break;
        }
        let mut next = None;
        for entry in mbr_entries(&sector).take(2) {
            match entry.kind {
                0 => {}
                kind if MBR_EXTENDED.contains(&kind) => next = Some(base + entry.first),
                kind => partitions.extend(within(
                    size,
                    number,
                    (at + entry.first) * SECTOR,
                    entry.sectors * SECTOR,
                    Kind::Mbr(kind),
                )),
            }
        }
        match next {
            Some(next) if next > at => at = next,
            _ => break,
        }
    }
    Ok(partitions)
}

/// An entry of an MBR, in sectors; 32 bits each, so sums and products of them fit 64.
struct MbrEntry {
    kind: u8,
    first: u64,
    sectors: u64,
}

fn mbr_entries(sector: &[u8]) -> impl Iterator<Item = MbrEntry> {
    sector.get(446..510).unwrap_or_default().chunks_exact(16).filter_map(|entry| {
        Some(MbrEntry {
            kind: *entry.get(4)?,
            first: u64::from(le32(entry, 8)?),
            sectors: u64::from(le32(entry, 12)?),
        })
    })
}

fn has_boot_signature(sector: &[u8]) -> bool {
    sector.get(510..512) == Some(&[0x55, 0xaa])
}

fn within(size: u64, number: u32, offset: u64, length: u64, kind: Kind) -> Option<Partition> {
    let end = offset.checked_add(length)?;
    (length > 0 && offset > 0 && end <= size).then_some(Partition { number, offset, length, kind })
}

/// The first three groups are little-endian.
fn guid_text(guid: &[u8; 16]) -> String {
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = String::with_capacity(36);
    for (place, from) in ORDER.into_iter().enumerate() {
        if [4, 6, 8, 10].contains(&place) {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", guid.get(from).copied().unwrap_or_default()));
    }
    text
}

/// CRC-32 of ISO 3309; a table is 16 KiB, so bit by bit is fast enough.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc: u32, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1))
        })
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A partition for [`gpt`], in sectors of 512 bytes.
    pub struct Entry<'a> {
        pub guid: &'a str,
        pub first: u64,
        pub last: u64,
    }

    /// The first 34 sectors of a disk with these partitions.
    pub fn gpt(partitions: &[Entry<'_>]) -> Vec<u8> {
        let mut entries = vec![0; 128 * 128];
        for (entry, place) in partitions.iter().zip(entries.chunks_exact_mut(128)) {
            let hex: String = entry.guid.chars().filter(|c| *c != '-').collect();
            let bytes: Vec<_> =
                (0..16).map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap()).collect();
            for (to, from) in
                [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].into_iter().enumerate()
            {
                place[to] = bytes[from];
            }
            place[32..40].copy_from_slice(&entry.first.to_le_bytes());
            place[40..48].copy_from_slice(&entry.last.to_le_bytes());
        }
        let mut header = vec![0; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[12..16].copy_from_slice(&92u32.to_le_bytes());
        header[72..80].copy_from_slice(&2u64.to_le_bytes());
        header[80..84].copy_from_slice(&128u32.to_le_bytes());
        header[84..88].copy_from_slice(&128u32.to_le_bytes());
        header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
        let sum = crc32(&header);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        let mut disk = mbr(&[(MBR_PROTECTIVE, 1, 1000)]);
        disk.extend(header);
        disk.resize(1024, 0);
        disk.extend(entries);
        disk
    }

    /// A first sector with these partitions: type, first sector, number of sectors.
    pub fn mbr(partitions: &[(u8, u32, u32)]) -> Vec<u8> {
        let mut sector = vec![0; 512];
        for ((kind, first, count), entry) in
            partitions.iter().zip(sector[446..510].chunks_exact_mut(16))
        {
            entry[4] = *kind;
            entry[8..12].copy_from_slice(&first.to_le_bytes());
            entry[12..16].copy_from_slice(&count.to_le_bytes());
        }
        sector[510] = 0x55;
        sector[511] = 0xaa;
        sector
    }

    fn numbers(mut disk: Vec<u8>) -> Result<Option<Vec<(u32, u64, u64)>>> {
        let head = disk.clone();
        let table = read(&mut disk, &head)?;
        Ok(table.map(|t| {
            t.partitions.iter().map(|p| (p.number, p.offset / 512, p.length / 512)).collect()
        }))
    }

    const LINUX: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";

    #[test]
    fn a_checksum_is_that_of_iso_3309() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_gpt_keeps_the_kernels_numbers() {
        let entries = [
            Entry { guid: LINUX, first: 40, last: 49 },
            Entry { guid: "00000000-0000-0000-0000-000000000000", first: 0, last: 0 },
            Entry { guid: LINUX, first: 50, last: 59 },
            Entry { guid: LINUX, first: 50, last: 5900 }, // beyond the end
            Entry { guid: LINUX, first: 50, last: 49 },   // empty
        ];
        let mut disk = gpt(&entries);
        disk.resize(60 * 512, 0);
        assert_eq!(numbers(disk).unwrap(), Some(vec![(1, 40, 10), (3, 50, 10)]));
    }

    #[test]
    fn a_damaged_gpt_is_said_to_be_damaged() {
        let mut disk = gpt(&[Entry { guid: LINUX, first: 40, last: 49 }]);
        disk.resize(60 * 512, 0);
        for (byte, words) in [
            (512 + 24, "its checksum is wrong"),
            (512 + 13, "the size of its header is wrong"),
            (1024, "the checksum of its entries is wrong"),
        ] {
            let mut disk = disk.clone();
            disk[byte] ^= 0x80;
            let error = numbers(disk).unwrap_err().to_string();
            assert_eq!(error, format!("reading the partition table (GPT): {words}"), "byte {byte}");
        }
    }

    #[test]
    fn logical_partitions_are_numbered_from_five() {
        let mut disk = mbr(&[(0x83, 2, 2), (0x0f, 10, 30)]);
        disk.resize(40 * 512, 0);
        disk[10 * 512..11 * 512].copy_from_slice(&mbr(&[(0x83, 1, 4), (0x05, 10, 10)]));
        disk[20 * 512..21 * 512].copy_from_slice(&mbr(&[(0x83, 2, 5)]));
        assert_eq!(numbers(disk).unwrap(), Some(vec![(1, 2, 2), (5, 11, 4), (6, 22, 5)]));
    }

    /// The chain of an extended partition could bite its own tail.
    #[test]
    fn a_chain_that_goes_backwards_ends() {
        let mut disk = mbr(&[(0x05, 10, 30)]);
        disk.resize(40 * 512, 0);
        disk[10 * 512..11 * 512].copy_from_slice(&mbr(&[(0x83, 1, 4), (0x05, 0, 10)]));
        assert_eq!(numbers(disk).unwrap(), Some(vec![(5, 11, 4)]));
    }

    #[test]
    fn a_boot_signature_alone_is_no_table() {
        assert_eq!(numbers(mbr(&[])).unwrap(), None);
    }
}
