//! Swap on a server: a second NBD device, for writing.
//!
//! As with the root, everything is looked at through the connection before the kernel gets it: a
//! server that is not there, an export that is for reading only or holds somebody's files, is told
//! apart while there is still no device. An export without a swap area gets one: LTSP's servers make
//! an area for each client, others serve an empty file.
//!
//! No failure stops a boot, and none takes longer than half a minute.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::nbd::client::Connection;
use super::nbd::device::{self, Use};
use super::nbd::negotiate::Export;
use super::nbd::protocol::Flags;
use super::partitions;
use super::plan::NbdExport;
use super::probe::{self, Contents, ReadAt};
use super::server::{self, Resolve};
use super::size::Size;
use super::{Load, NBD_INDEX, NBD_OPTIONS};
use crate::console;
use crate::error::{Error, Result};
use crate::sys;

/// The device after the root's.
const INDEX: u32 = NBD_INDEX + 1;
/// For swap that somebody asked for: its server may still be starting.
const ASKED: Duration = Duration::from_secs(30);
/// For swap that a small node takes if it can.
const BY_ITSELF: Duration = Duration::from_secs(10);

/// A device was attached by this program: one that another has left may carry the swap of a running
/// system.
static ATTACHED: AtomicBool = AtomicBool::new(false);

/// Where to swap to, and on whose word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwapPlan {
    pub export: NbdExport,
    /// A setting asks for it; else the node has little memory.
    pub asked: bool,
    /// The device is only connected: the running system encrypts it and switches it on.
    pub encrypted: bool,
}

impl SwapPlan {
    /// The kernel's name of the device: `nbd1`.
    pub fn device(&self) -> String {
        format!("nbd{INDEX}")
    }
}

/// Connects the device and, unless it is to be encrypted, swaps to it; says how it went.
///
/// `root` is the new root, in which `/dev` is bound: the path that the kernel remembers must be
/// one that stays.
pub fn attach(plan: &SwapPlan, resolve: Resolve<'_>, load: Load<'_>, root: &Path) {
    match try_attach(plan, resolve, load, root) {
        Ok(done) => log::info!(target: "swap", "{done}"),
        Err(error) if plan.asked => match error.hint() {
            Some(hint) => log::warn!(target: "swap", "{error} ({hint}); going on without it"),
            None => log::warn!(target: "swap", "{error}; going on without it"),
        },
        Err(error) => log::info!(target: "swap", "none on the boot server: {error}"),
    }
}

fn try_attach(
    plan: &SwapPlan,
    resolve: Resolve<'_>,
    load: Load<'_>,
    root: &Path,
) -> Result<String> {
    load("nbd", NBD_OPTIONS)?;
    let patience = if plan.asked { ASKED } else { BY_ITSELF };
    let mut connection = server::connect_within(&plan.export, resolve, patience)?;
    let whose = format!("\"{}\" of {}", connection.export().name, connection.peer());
    let size = Size(connection.export().size_bytes);
    make_ready(&mut connection, plan.encrypted)
        .map_err(|error| Error::new(format!("using {whose} for swap"), error))?;
    device::connect(INDEX, connection, Use::Swap)?;
    ATTACHED.store(true, Ordering::Relaxed);
    let name = plan.device();
    if plan.encrypted {
        return Ok(format!("{name} is {whose}, {size}, to be encrypted by the running system"));
    }
    if let Err(error) = sys::swap::switch_on(&root.join("dev").join(&name)) {
        release();
        return Err(error);
    }
    Ok(format!("{name} is {whose}, {size}"))
}

/// Takes back what [`attach`] has done, for a boot that failed after it.
pub fn release() {
    if !ATTACHED.swap(false, Ordering::Relaxed) {
        return;
    }
    let name = format!("/dev/nbd{INDEX}");
    // What has been swapped out must come back, from a server that may be gone.
    let _waiting = console::waiting("swap", format!("{name} to be given back"));
    let done = sys::swap::switch_off(Path::new(&name)).and_then(|()| device::disconnect(INDEX));
    if let Err(error) = done {
        log::warn!(target: "swap", "{error}; it stays attached");
    }
}

/// Looks at an export, and makes it a swap area if it is none; one that will be encrypted is only
/// looked at.
pub(super) fn make_ready(connection: &mut Connection, encrypted: bool) -> Result<()> {
    let size = connection.export().size_bytes;
    check_export(connection.export())?;
    let page = rustix::param::page_size();
    let pages = size / page as u64;
    let mut head = vec![0; HEAD.min(usize::try_from(size).unwrap_or(HEAD))];
    connection.read_at(0, &mut head)?;
    if is_swap_area(&head, page, pages)? {
        return Ok(());
    }
    let table = partitions::read(connection, &head);
    refuse_files(&probe::identify(&head), !matches!(table, Ok(None)))?;
    if encrypted {
        return Ok(());
    }
    connection.write(0, &header(page, pages, random_uuid()))
}

/// Enough for every signature that is known, and for a header in a page of 64 KiB.
const HEAD: usize = 68 << 10;
/// mkswap(8) makes none smaller.
const FEWEST_PAGES: u64 = 10;
const MAGIC: &[u8; 10] = b"SWAPSPACE2";
/// What a hibernated system leaves in the same place: util-linux knows these.
const HIBERNATED: [&[u8]; 4] = [b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001"];

// The header of a swap area, `union swap_header` of include/linux/swap.h, in the first page; numbers
// are in the machine's own byte order.
const VERSION_AT: usize = 1024;
const LAST_PAGE_AT: usize = 1028;
const UUID_AT: usize = 1036;
const LABEL_AT: usize = 1052;

fn check_export(export: &Export) -> Result<()> {
    let doing = "checking it";
    if export.flags.has(Flags::READ_ONLY) {
        return Err(Error::refused(doing, "the server lets nobody write to it")
            .with_hint("export a file of its own to each client, for writing"));
    }
    let page = rustix::param::page_size();
    if export.size_bytes / (page as u64) < FEWEST_PAGES {
        let size = Size(export.size_bytes);
        return Err(Error::refused(doing, format!("it is too small: {size}")));
    }
    // The header is written in one piece of one page.
    if export.blocks.minimum as usize > page || (export.blocks.longest() as usize) < page {
        return Err(Error::refused(doing, "the server's blocks do not fit this machine's pages"));
    }
    Ok(())
}

/// Whether `head` begins a swap area that the kernel will take, of at most `pages` pages.
///
/// # Errors
/// A hibernated system is in it.
fn is_swap_area(head: &[u8], page: usize, pages: u64) -> Result<bool> {
    let magic = head.get(..page).and_then(|page| page.last_chunk::<10>()).copied();
    let Some(magic) = magic else { return Ok(false) };
    if HIBERNATED.iter().any(|known| magic.starts_with(known)) {
        return Err(Error::refused("looking at it", "a hibernated system is in it"));
    }
    let number =
        |at: usize| -> Option<u32> { Some(u32::from_ne_bytes(*head.get(at..)?.first_chunk()?)) };
    let fits = number(LAST_PAGE_AT).is_some_and(|last| last > 0 && u64::from(last) < pages);
    Ok(magic == *MAGIC && number(VERSION_AT) == Some(1) && fits)
}

/// Whoever exports a file system under the name of swap has made a mistake, and keeps their files.
fn refuse_files(contents: &Contents, has_table: bool) -> Result<()> {
    let what = match contents {
        Contents::FileSystem(found) => &found.file_system.description,
        // An area that is larger than its device, or of another kind: nothing to lose.
        Contents::Foreign("swap space") | Contents::Unknown if !has_table => return Ok(()),
        Contents::Foreign(what) => *what,
        Contents::Unknown => "a partition table",
    };
    Err(Error::refused("looking at it", format!("it is no swap space but {what}"))
        .with_hint("it is left as it is; make it swap with mkswap, or name another server"))
}

/// The first page of an empty swap area of `pages` pages.
fn header(page: usize, pages: u64, uuid: [u8; 16]) -> Vec<u8> {
    let last = u32::try_from(pages.saturating_sub(1)).unwrap_or(u32::MAX);
    let mut bytes = vec![0; page];
    let fields: [(usize, &[u8]); 5] = [
        (VERSION_AT, &1u32.to_ne_bytes()),
        (LAST_PAGE_AT, &last.to_ne_bytes()),
        (UUID_AT, &uuid),
        (LABEL_AT, b"landfall"),
        (page.saturating_sub(MAGIC.len()), MAGIC),
    ];
    for (at, field) in fields {
        for (place, byte) in bytes.iter_mut().skip(at).zip(field) {
            *place = *byte;
        }
    }
    bytes
}

/// Version 4, as mkswap gives; zeroes, which mean none, without randomness.
fn random_uuid() -> [u8; 16] {
    let mut uuid = [0; 16];
    if rustix::rand::getrandom(&mut uuid, rustix::rand::GetRandomFlags::NONBLOCK) != Ok(uuid.len())
    {
        return [0; 16];
    }
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::nbd::negotiate::Blocks;

    fn export(size_bytes: u64, flags: u16, minimum: u32) -> Export {
        let blocks = Blocks { minimum, preferred: 4096, maximum: 32 << 20 };
        Export { name: "swap".into(), description: None, size_bytes, flags: Flags(flags), blocks }
    }

    #[test]
    #[rustfmt::skip]
    fn an_export_must_be_writable_and_large_enough() {
        let page = rustix::param::page_size() as u64;
        let cases = [
            (export(page * 10, 1, 512),           ""),
            (export(page * 10, 1, page as u32),   ""),
            (export(page * 10, 3, 512),           "lets nobody write"),
            (export(page * 10 - 1, 1, 512),       "too small"),
            (export(page * 10, 1, page as u32 * 2), "blocks"),
        ];
        for (export, why) in cases {
            let said = check_export(&export).map_or_else(|error| error.to_string(), |()| String::new());
            assert_eq!(said.is_empty(), why.is_empty(), "{export:?}: {said}");
            assert!(said.contains(why), "{export:?}: {said}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn an_area_is_used_and_whatever_else_is_somebodys_is_left_alone() {
        let page = 4096;
        let pages = 16;
        let area = header(page, pages, [7; 16]);
        let with = |at: usize, bytes: &[u8]| {
            let mut head = area.clone();
            head[at..at + bytes.len()].copy_from_slice(bytes);
            head
        };
        let cases = [
            ("ours",              area.clone(),                          Some(true)),
            ("blank",             vec![0; page],                         Some(false)),
            ("short",             vec![0; 100],                          Some(false)),
            ("larger than it is", header(page, pages + 1, [0; 16]),      Some(false)),
            ("of another version", with(VERSION_AT, &2u32.to_ne_bytes()), Some(false)),
            ("of pages of 64 KiB", header(65536, pages, [0; 16]),        Some(false)),
            ("hibernated",        with(page - 10, b"S1SUSPEND\0"),       None),
        ];
        for (what, head, expected) in cases {
            assert_eq!(is_swap_area(&head, page, pages).ok(), expected, "{what}");
        }
        let at = |place: usize, magic: &[u8]| {
            let mut head = vec![0; HEAD];
            head[place..place + magic.len()].copy_from_slice(magic);
            probe::identify(&head)
        };
        let contents = [
            (at(0, b""),             false, true),
            (at(0, b""),             true,  false), // a partition table
            (at(4086, b"SWAPSPACE2"), false, true),
            (at(1080, b"\x53\xef"),  false, false), // ext4
            (at(0, b"LUKS\xba\xbe"), false, false),
        ];
        for (contents, has_table, may_go) in contents {
            assert_eq!(refuse_files(&contents, has_table).is_ok(), may_go, "{contents:?} {has_table}");
        }
    }

    /// mkswap's own reading of what we write; `swapon` needs a kernel that lets us.
    #[test]
    #[ignore = "runs blkid and, as root, swapon"]
    fn other_programs_take_our_header() {
        use std::process::Command;
        let page = rustix::param::page_size();
        let pages = 64;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("swap");
        let mut image = header(page, pages, *b"landfall\x40abc\x80def");
        image.resize(page * pages as usize, 0);
        std::fs::write(&path, image).unwrap();
        let blkid = Command::new("blkid").args(["-p", "-o", "export"]).arg(&path).output().unwrap();
        let said = String::from_utf8(blkid.stdout).unwrap();
        for line in ["TYPE=swap", "LABEL=landfall", "VERSION=1"] {
            assert!(said.lines().any(|other| other == line), "{line} in {said}");
        }
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        let swapon = sys::swap::switch_on(&path);
        let swaps = std::fs::read_to_string("/proc/swaps").unwrap();
        let listed = swaps.contains(path.to_str().unwrap());
        let _ = Command::new("swapoff").arg(&path).status();
        swapon.unwrap();
        assert!(listed, "{swaps}");
    }
}
