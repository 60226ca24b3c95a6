//! Finding a hash tree, and asking whether it is the one that was meant, through a connection.
//!
//! All of it happens before there is a device: what the kernel says of a wrong root hash is that
//! some block of metadata is corrupted, and what it does then may be a reboot.

use super::digest::Algorithm;
use super::levels::{self, Extent};
use super::plan::{RootHash, VerityPlan, hex};
use super::superblock::{self, Superblock};
use crate::error::{Error, Result};
use crate::root::probe::ReadAt;

/// A part of an image, or all of it.
pub struct Part<'a> {
    pub image: &'a mut dyn ReadAt,
    pub offset: u64,
    pub length: u64,
}

impl Part<'_> {
    fn has(&self, offset: u64, length: u64) -> bool {
        offset.checked_add(length).is_some_and(|end| end <= self.length)
    }

    /// Fills `buffer` from `offset` bytes behind the beginning of the part.
    pub fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let place = self.offset.saturating_add(offset);
        if !self.has(offset, buffer.len() as u64) {
            return Err(Error::invalid(format!("reading byte {place}"), "it is beyond the end"));
        }
        self.image.read_at(place, buffer)
    }
}

/// A superblock and where its tree is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub superblock: Superblock,
    pub extent: Extent,
}

/// The file system over which there is a tree.
pub struct FileSystem<'a> {
    /// For people.
    pub description: &'a str,
    /// Bytes it occupies, when its superblock tells.
    pub bytes: Option<u64>,
}

/// A tree in the image itself, at `offset` or behind the file system.
pub fn in_image(
    plan: &VerityPlan,
    image: &mut Part<'_>,
    offset: Option<u64>,
    file_system: &FileSystem<'_>,
) -> Result<Found> {
    let (superblock, offset) = match offset {
        Some(offset) => (superblock_at(image, offset)?, offset),
        None => behind(image, file_system)?,
    };
    covers(&superblock, image.length, file_system)?;
    let covered = superblock.data_bytes();
    if covered > offset {
        let why = format!("it is for {covered} bytes, in which it lies itself, at byte {offset}");
        return Err(Error::invalid(COMPARING, why));
    }
    let extent = extent(plan, &superblock, offset, image.length)?;
    let top = match extent.blocks {
        0 => only_block(image, &superblock)?,
        _ => top_block(image, &superblock, extent)?,
    };
    is_the_one(plan, &superblock, &top)?;
    Ok(Found { superblock, extent })
}

/// A tree in an export of its own, at `offset` bytes of it.
pub fn apart(
    plan: &VerityPlan,
    image: &mut Part<'_>,
    hash: &mut Part<'_>,
    offset: u64,
    file_system: &FileSystem<'_>,
) -> Result<Found> {
    let superblock = superblock_at(hash, offset)?;
    covers(&superblock, image.length, file_system)?;
    let extent = extent(plan, &superblock, offset, hash.length)?;
    let top = match extent.blocks {
        0 => only_block(image, &superblock)?,
        _ => top_block(hash, &superblock, extent)?,
    };
    is_the_one(plan, &superblock, &top)?;
    Ok(Found { superblock, extent })
}

const LOOKING: &str = "looking for the hash tree";
const COMPARING: &str = "comparing the hash tree with the image";

/// The block whose digest is the root hash.
fn top_block(tree: &mut Part<'_>, superblock: &Superblock, extent: Extent) -> Result<Vec<u8>> {
    let size = superblock.hash_block;
    let mut block = vec![0; size as usize];
    tree.read(extent.first_block.saturating_mul(size.into()), &mut block)?;
    Ok(block)
}

/// The same where there is no tree.
fn only_block(image: &mut Part<'_>, superblock: &Superblock) -> Result<Vec<u8>> {
    let mut block = vec![0; superblock.data_block as usize];
    image.read(0, &mut block)?;
    Ok(block)
}

/// `veritysetup format --no-superblock` leaves a tree of which nothing is known.
fn superblock_at(part: &mut Part<'_>, offset: u64) -> Result<Superblock> {
    let doing = || format!("looking for the hash tree at byte {offset}");
    if !part.has(offset, superblock::LENGTH as u64) {
        return Err(Error::refused(doing(), format!("there are only {} bytes", part.length))
            .with_hint("was the image copied to the server completely?"));
    }
    match candidate(part, offset)? {
        Some(superblock) => Ok(superblock),
        None => Err(Error::refused(doing(), "there is no superblock of veritysetup")
            .with_hint("the place is the one given to veritysetup format --hash-offset")),
    }
}

/// None where there is something else, or nothing.
fn candidate(part: &mut Part<'_>, offset: u64) -> Result<Option<Superblock>> {
    if !part.has(offset, superblock::LENGTH as u64) {
        return Ok(None);
    }
    let mut block = [0; superblock::LENGTH];
    part.read(offset, &mut block)?;
    Superblock::parse(&block).map_err(|why| {
        Error::invalid(format!("reading the superblock of the hash tree at byte {offset}"), why)
    })
}

/// The superblock behind the file system. `--hash-offset` is usually the size of the file, of which
/// the tools make whole blocks of 4096 bytes, or, when told not to fill them up (`-nopad`), what
/// veritysetup makes of it: whole sectors.
fn behind(part: &mut Part<'_>, file_system: &FileSystem<'_>) -> Result<(Superblock, u64)> {
    let description = file_system.description;
    let hint = "say where it is: landfall.verity.hash-offset=BYTES, as given to veritysetup \
                format --hash-offset, or landfall.verity.hash=nbd://SERVER/EXPORT";
    let Some(end) = file_system.bytes else {
        let why = format!("nothing says where the {description} ends");
        return Err(Error::refused(LOOKING, why).with_hint(hint));
    };
    let mut places: Vec<u64> =
        [4096, 512].iter().filter_map(|block| end.checked_next_multiple_of(*block)).collect();
    places.dedup();
    for place in &places {
        if let Some(superblock) = candidate(part, *place)? {
            return Ok((superblock, *place));
        }
    }
    let place = places.first().copied().unwrap_or(end);
    let why = format!("there is none behind the {description}, at byte {place}");
    Err(Error::refused(LOOKING, why).with_hint(hint))
}

/// The kernel would say so as well, of a mount, and in other words.
fn covers(superblock: &Superblock, length: u64, file_system: &FileSystem<'_>) -> Result<()> {
    let covered = superblock.data_bytes();
    let hint = "was the tree made for this very image? run veritysetup format again";
    if covered > length {
        let why = format!("it is for {covered} bytes, of which there are {length}");
        return Err(Error::refused(COMPARING, why).with_hint(hint));
    }
    if let Some(bytes) = file_system.bytes.filter(|bytes| *bytes > covered) {
        let description = file_system.description;
        let why = format!("it is for {covered} bytes, and the {description} has {bytes}");
        return Err(Error::refused(COMPARING, why).with_hint(hint));
    }
    let page = rustix::param::page_size();
    let largest = superblock.data_block.max(superblock.hash_block);
    if largest as usize > page {
        let why = format!("its blocks have {largest} bytes, and this kernel's pages {page}");
        return Err(Error::refused(COMPARING, why).with_hint(
            "run veritysetup format again, with --data-block-size=4096 --hash-block-size=4096",
        ));
    }
    Ok(())
}

fn extent(plan: &VerityPlan, superblock: &Superblock, offset: u64, length: u64) -> Result<Extent> {
    let given = plan.root_hash.bytes().len();
    let name = &superblock.algorithm;
    if let Some(algorithm) = Algorithm::named(name)
        && algorithm.size() != given
    {
        let (wanted, given) = (algorithm.size().saturating_mul(2), given.saturating_mul(2));
        let why = format!("{name}, its algorithm, gives {wanted} digits, and these are {given}");
        return Err(Error::refused(against(plan), why));
    }
    let extent = levels::extent(superblock, offset, given)
        .ok_or_else(|| Error::invalid(LOOKING, "its size is beyond all measure"))?;
    if extent.blocks > 0 && extent.end > length {
        let why =
            format!("it is cut off: it ends at byte {}, and there are only {length}", extent.end);
        return Err(Error::refused(LOOKING, why)
            .with_hint("was the image copied to the server completely?"));
    }
    Ok(extent)
}

fn against(plan: &VerityPlan) -> String {
    format!("comparing it with landfall.verity={}", plan.root_hash.shortened())
}

/// Whether `top`, the block on top of the tree, has the root hash that was given.
fn is_the_one(plan: &VerityPlan, superblock: &Superblock, top: &[u8]) -> Result<()> {
    let name = &superblock.algorithm;
    let Some(algorithm) = Algorithm::named(name) else {
        log::debug!(target: "root", "whether the root hash is right, the kernel will say: {name}");
        return Ok(());
    };
    let found = RootHash::of(algorithm.digest(superblock.hash_type, &superblock.salt, top));
    log::debug!(target: "root", "verity: {name}, uuid {}, root hash {found}", hex(&superblock.uuid));
    if found == plan.root_hash {
        return Ok(());
    }
    let why = format!("its root hash is {}", found.shortened());
    Err(Error::refused(against(plan), why).with_hint(
        "an image made anew has a new root hash: give the one that veritysetup format printed, \
         or serve the image that was meant",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::superblock::HashType;
    use super::super::superblock::tests::superblock;
    use super::*;
    use crate::root::probe::Contents;
    use crate::root::verity::plan::{OnCorruption, TreePlace};

    /// What the images in these tests consist of: each block is full of its number.
    fn data(blocks: u64, size: u32) -> Vec<u8> {
        (0..blocks).flat_map(|n| n.to_le_bytes().repeat(size as usize / 8)).collect()
    }

    /// A tree over `data` in the slow way, from the format's description: a superblock, filled up
    /// to a hash block, and the levels, the top first. The root hash comes with it.
    fn tree(data: &[u8], block: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let superblock = Superblock::parse(block).unwrap().unwrap();
        let algorithm = Algorithm::named(&superblock.algorithm).unwrap();
        let size = superblock.hash_block as usize;
        let digests = |bytes: &[u8], block: u32| -> Vec<Vec<u8>> {
            let of = |block| algorithm.digest(superblock.hash_type, &superblock.salt, block);
            bytes.chunks(block as usize).map(of).collect()
        };
        let mut levels = Vec::new();
        let mut current = digests(data, superblock.data_block);
        while current.len() > 1 {
            let per_block = size / algorithm.size();
            let mut level = Vec::new();
            for group in current.chunks(per_block) {
                let mut bytes = group.concat();
                bytes.resize(size, 0);
                level.extend(bytes);
            }
            current = digests(&level, superblock.hash_block);
            levels.push(level);
        }
        let mut bytes = block.to_vec();
        bytes.resize(bytes.len().next_multiple_of(size), 0);
        bytes.extend(levels.into_iter().rev().flatten());
        (bytes, current.remove(0))
    }

    fn plan(root_hash: &str) -> VerityPlan {
        let place = TreePlace::Image { offset: None };
        let digit = |at| u8::from_str_radix(&root_hash[at..at + 2], 16).unwrap();
        let root_hash = RootHash::of((0..root_hash.len()).step_by(2).map(digit).collect());
        VerityPlan { root_hash, place, on_corruption: OnCorruption::Error }
    }

    fn whole(image: &mut Vec<u8>) -> Part<'_> {
        let length = image.len() as u64;
        Part { image, offset: 0, length }
    }

    /// Root hashes that `veritysetup format` of 2.6.1 printed for the same data.
    #[test]
    #[rustfmt::skip]
    fn root_hashes_are_those_of_veritysetup() {
        let long_salt = [0xab; 256];
        let short: &[u8] = &[0x00, 0xff, 0x10];
        let five: &[u8] = &[1, 2, 3, 4, 5];
        let cases: &[(u64, u32, u32, &str, &[u8], u32, &str)] = &[
            (    1, 4096, 4096, "sha256", short, 1, "e516f0f7e86b849e77e50aa306d9bc2a0593ddfd265713f2f090ff3106b0c5ea"),
            (    2, 4096, 4096, "sha256", short, 1, "a4c75e5f6e24c2355ea18b6a36eeb3f5bd89b16bdba445710d7f4e6875f377e7"),
            (  127, 4096, 4096, "sha256", short, 1, "42e0f3dddf3ba24c0194b54ef4ae90372ff87b6eb78c3f0d4cc4d0dc2ada8bdb"),
            (  128, 4096, 4096, "sha256", short, 1, "d6ed4b3b7cbca1525283a5376d4a077c8333d7c200de7a1611092a5c2a3b7b55"),
            (  129, 4096, 4096, "sha256", short, 1, "79622c6b6556d0a507b2f5555b791991e6deb2d8457a9c66ab484a52963543c3"),
            (16383, 4096, 4096, "sha256", short, 1, "b988b9ddfe6d44261a86c8d60cb9c2ae12549c6818074b2229501c7b88b7d73f"),
            (16384, 4096, 4096, "sha256", short, 1, "510d20b0bdf0d953ec39e10730567cf03208402bfeac0f058d53f51ee2289e03"),
            (16385, 4096, 4096, "sha256", short, 1, "a659aa2e80243fdfd88f10f931fa8bfd3d089aaa6edfe37ffd753e2e165741f2"),
            (  129, 4096, 4096, "sha256", b"", 1, "2abd7846176918c50f1873a95ee013089d36ea23bf316ebf1ae36cdbab2932de"),
            (  129, 4096, 4096, "sha256", &long_salt, 1, "d15f3093b8a837d2691bfed7f34e0651c45011aadae6bd50babb8e4eed3c7d92"),
            (  129, 4096, 4096, "sha512", short, 1, "c91a2b40fb310232235254ad43cb3ec81c321170582737586d6c7fa39d7bafc2090f3066340c5ec7141b49ce7b03cee7b52cf3c93c883222e255a6271e684748"),
            ( 4097, 4096, 4096, "sha512", short, 1, "9f01bc813a966cab488b16adab1d9d6d48324ff7f67f465b4b322eacc4a996f7569354eebeadccf4a7966f2695522eaaa919ad396b0467c2c13c59c89efce20f"),
            (  300, 1024, 1024, "sha256", five, 1, "9bf8a2502a2fd9918e0f4d99bdc220b98b03411e8f2383e21e6470cdcb917614"),
            (  300, 512, 4096, "sha256", five, 1, "2e538f6db555ad5e70eb2b78468d26aec6ab5b4e58efa14c66a379326ee8946a"),
            (  300, 4096,  512, "sha512", five, 1, "268b28bcc4b8ebf81b6d0d0194e39fa6894b45cc5276706f783608a375a4673d9c178359955a35d2dc36deee176cd4561f9f6979433d57c8a6af2a297c76d8d6"),
            (  300, 512,  512, "sha512", five, 1, "91e7161b84403d71b2069e017a2d48c9e37282b645c3ab1521b77c023df351fec1526b36ae486bb81a23fde0ce3fe96d53afabab6c1072469156fa976ce466ce"),
            (  129, 4096, 4096, "sha256", short, 0, "87e6602c2179db18389da8d764e09cd171d17bbac504a1b6857b3cb1f16403d9"),
            (  300, 1024, 1024, "sha512", &[0x77], 0, "ab3375a3ab451bb5e7064eca4334c1803adcab8c4370a6c91b8fd9413fccf1de4a412f451ec18f4c07a391fbe132eaf26cad11751371a18439e7f25457a1d40c"),
        ];
        for (blocks, data_block, hash_block, algorithm, salt, hash_type, root_hash) in cases {
            let case = format!("{blocks} {data_block} {hash_block} {algorithm} {hash_type}");
            let mut image = data(*blocks, *data_block);
            let block = superblock(*hash_type, algorithm, (*data_block, *hash_block, *blocks), salt);
            let (mut tree, top) = tree(&image, &block);
            assert_eq!(hex(&top), *root_hash, "{case}");

            let plan = plan(root_hash);
            let file_system = FileSystem { description: "ext4", bytes: Some(image.len() as u64) };
            let separate = apart(&plan, &mut whole(&mut image), &mut whole(&mut tree), 0, &file_system).unwrap();
            assert_eq!(separate.extent.end.max(hash_block.next_multiple_of(512).into()), tree.len() as u64, "{case}");
            let end = image.len() as u64;
            // In an image it begins where a hash block does, as these tests build it.
            image.resize(image.len().next_multiple_of(*hash_block as usize), 0);
            let offset = (image.len() as u64 != end).then_some(image.len() as u64);
            image.append(&mut tree);
            let appended = in_image(&plan, &mut whole(&mut image), offset, &file_system).unwrap();
            assert_eq!(appended.extent.blocks, separate.extent.blocks, "{case}");
        }
    }

    /// An image of `blocks` blocks with its tree behind it, and its plan.
    fn made(blocks: u64, block: &[u8]) -> (Vec<u8>, VerityPlan) {
        let mut image = data(blocks, 4096);
        let (mut tree, top) = tree(&image, block);
        image.append(&mut tree);
        (image, plan(&hex(&top)))
    }

    fn said<T>(result: Result<T>) -> String {
        result.map_or_else(|error| error.to_string(), |_| "found".into())
    }

    #[test]
    #[rustfmt::skip]
    fn a_tree_is_looked_for_where_the_file_system_ends() {
        let (image, plan) = made(25, &superblock(1, "sha256", (4096, 4096, 25), b"salt"));
        let end = 25 * 4096;
        let moved = |by: usize| {
            let (data, tree) = image.split_at(end);
            let gap = vec![0; by];
            [data, gap.as_slice(), tree].concat()
        };
        let mut broken = image.clone();
        broken[end + 8] = 3;
        let none = "looking for the hash tree: refused: there is none behind the squashfs, at byte 102400";
        let cases = [
            (image.clone(),           Some(end),       None,          "found"),
            (image.clone(),           Some(end - 700), None,          "found"), // mksquashfs fills up
            (image.clone(),           Some(7000),      Some(end),     "found"),
            (image.clone(),           None,            Some(end),     "found"),
            (image.clone(),           Some(end),       Some(end + 512), "looking for the hash tree at byte 102912: refused: there is no superblock of veritysetup"),
            (image.clone(),           Some(end),       Some(end * 2), "looking for the hash tree at byte 204800: refused: there are only 110592 bytes"),
            (image.clone(),           None,            None,          "looking for the hash tree: refused: nothing says where the squashfs ends"),
            (image[..end].to_vec(),   Some(end),       None,          none),
            (moved(8192),             Some(end),       None,          none),
            (moved(8192),             Some(end),       Some(end + 8192), "found"),
            (image[..end + 4096].to_vec(), Some(end),  None,          "looking for the hash tree: refused: it is cut off: it ends at byte 110592, and there are only 106496"),
            (broken,                  Some(end),       None,          "reading the superblock of the hash tree at byte 102400: it is of version 3, and only 1 is known"),
            (image[end..].to_vec(),   None,            Some(0),       "comparing the hash tree with the image: refused: it is for 102400 bytes, of which there are 8192"),
        ];
        for (mut image, extent, offset, expected) in cases {
            let file_system = FileSystem { description: "squashfs", bytes: extent.map(|bytes| bytes as u64) };
            let got = in_image(&plan, &mut whole(&mut image), offset.map(|bytes| bytes as u64), &file_system);
            assert_eq!(said(got), expected, "{extent:?} {offset:?}");
        }
    }

    /// Behind a partition table everything is where it is in the partition.
    #[test]
    fn a_part_of_an_image_is_looked_at_as_if_it_were_all() {
        let (image, plan) = made(200, &superblock(1, "sha256", (4096, 4096, 200), b""));
        let length = image.len() as u64;
        let mut disk = [vec![0xff; 1 << 20], image, vec![0xff; 4096]].concat();
        let mut part = Part { image: &mut disk, offset: 1 << 20, length };
        let file_system = FileSystem { description: "erofs", bytes: Some(200 * 4096) };
        let found = in_image(&plan, &mut part, None, &file_system).unwrap();
        assert_eq!((found.extent.first_block, found.extent.end), (201, length));
        let beyond = part.read(length - 1, &mut [0; 2]).unwrap_err();
        assert!(beyond.to_string().contains("beyond the end"), "{beyond}");
    }

    /// A typing error, the boot menu of yesterday, a tree of another image.
    #[test]
    #[rustfmt::skip]
    fn what_does_not_belong_together_is_told_apart_before_there_is_a_device() {
        let good = superblock(1, "sha256", (4096, 4096, 200), b"salt");
        let (image, right) = made(200, &good);
        let wrong = plan(&"5a".repeat(32));
        let long = plan(&"5a".repeat(64));
        let top = RootHash::of(right.root_hash.bytes().to_vec()).shortened();
        let mut changed = image.clone();
        changed[200 * 4096 + 4096 + 17] ^= 1; // in the block on top
        let mut salted = image.clone();
        salted[200 * 4096 + 88] ^= 1;
        let mut legacy = image.clone();
        legacy[200 * 4096 + 12] = 0;
        let mut exotic = image.clone();
        exotic[200 * 4096 + 32..200 * 4096 + 38].copy_from_slice(b"sm3\0\0\0");
        let mut all = image.clone();
        all[200 * 4096 + 72..200 * 4096 + 74].copy_from_slice(&201u16.to_le_bytes());
        let mut fewer = image.clone();
        fewer[200 * 4096 + 72] = 199;
        let against = |plan: &VerityPlan| format!("comparing it with landfall.verity={}: refused: ", plan.root_hash.shortened());
        let cases = [
            (image.clone(), &right, "found".to_owned()),
            (image.clone(), &wrong, format!("{}its root hash is {top}", against(&wrong))),
            (image.clone(), &long,  format!("{}sha256, its algorithm, gives 64 digits, and these are 128", against(&long))),
            (exotic,        &right, "found".to_owned()), // the kernel's business
            (all,           &right, "comparing the hash tree with the image: it is for 823296 bytes, in which it lies itself, at byte 819200".to_owned()),
            (fewer,         &right, "comparing the hash tree with the image: refused: it is for 815104 bytes, and the ext4 has 819200".to_owned()),
        ];
        let file_system = FileSystem { description: "ext4", bytes: Some(200 * 4096) };
        for (mut image, plan, expected) in cases {
            let got = in_image(plan, &mut whole(&mut image), None, &file_system);
            assert_eq!(said(got), expected);
        }
        for mut image in [changed, salted, legacy] {
            let got = said(in_image(&right, &mut whole(&mut image), None, &file_system));
            assert!(got.starts_with(&format!("{}its root hash is ", against(&right))), "{got}");
        }
        let large = superblock(1, "sha256", (65536, 65536, 2), b"");
        let (mut image, plan) = made(32, &large);
        let file_system = FileSystem { description: "ext4", bytes: Some(32 * 4096) };
        let got = in_image(&plan, &mut whole(&mut image), None, &file_system);
        let page = rustix::param::page_size();
        if page < 65536 {
            assert_eq!(said(got), format!("comparing the hash tree with the image: refused: its blocks have 65536 bytes, and this kernel's pages {page}"));
        }
        assert_eq!(large.len(), superblock::LENGTH);
        assert_eq!(Superblock::parse(&good).unwrap().unwrap().hash_type, HashType::Normal);
    }

    /// `veritysetup` and `mksquashfs` as the README has operators use them.
    #[test]
    #[ignore = "runs veritysetup and mksquashfs"]
    fn images_of_veritysetup_are_recognised() {
        use std::fs;
        use std::process::Command;

        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let run = |program: &str, arguments: &[&str]| -> String {
            let output = Command::new(program).current_dir(folder.path()).args(arguments).output();
            let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
            let said = String::from_utf8(output.stdout).unwrap();
            let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{program} {arguments:?}: {complaints}");
            said
        };
        let root_hash = |said: &str| -> String {
            let line = said.lines().find_map(|line| line.strip_prefix("Root hash:"));
            line.unwrap_or_else(|| panic!("{said}")).trim().to_owned()
        };
        fs::create_dir(path("tree")).unwrap();
        // More than the digests of one block, and nothing that could be packed.
        let mut state = 1u64;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state.to_be_bytes()
        });
        fs::write(path("tree/noise"), noise.take(100_000).flatten().collect::<Vec<_>>()).unwrap();
        for formatted in [
            &[][..],
            &["--hash=sha512", "--salt=-"],
            &["--hash=sha1"],
            &["--format=0", "--data-block-size=1024", "--hash-block-size=2048"],
            &["--data-block-size=512", "--hash-block-size=512"],
        ] {
            for old in ["root", "hash"] {
                let _ = fs::remove_file(path(old));
            }
            run("mksquashfs", &["tree", "root", "-quiet", "-no-progress"]);
            let alone = fs::read(path("root")).unwrap();
            let separate =
                root_hash(&run("veritysetup", &[formatted, &["format", "root", "hash"]].concat()));
            let offset = format!("--hash-offset={}", alone.len());
            let appended =
                run("veritysetup", &[formatted, &["format", "root", "root", &offset]].concat());
            let appended = root_hash(&appended);

            let Contents::FileSystem(squashfs) = crate::root::probe::identify(&alone) else {
                panic!("not a squashfs");
            };
            let description = squashfs.file_system.description.as_str();
            let file_system = FileSystem { description, bytes: squashfs.extent };
            let mut image = fs::read(path("root")).unwrap();
            let length = image.len() as u64;
            let found =
                in_image(&plan(&appended), &mut whole(&mut image), None, &file_system).unwrap();
            assert_eq!(found.extent.end, length, "{formatted:?}");
            let mut alone = alone;
            let mut hash = fs::read(path("hash")).unwrap();
            let length = hash.len() as u64;
            let found = apart(
                &plan(&separate),
                &mut whole(&mut alone),
                &mut whole(&mut hash),
                0,
                &file_system,
            );
            assert_eq!(found.unwrap().extent.end, length, "{formatted:?}");
            if !formatted.contains(&"--hash=sha1") {
                let wrong = in_image(&plan(&separate), &mut whole(&mut image), None, &file_system);
                let salted = !formatted.contains(&"--salt=-");
                assert_eq!(wrong.is_err(), salted, "{formatted:?}");
            }
        }
    }
}
