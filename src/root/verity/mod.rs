//! dm-verity: a root of which the kernel checks every block that it reads.
//!
//! Takes a root hash from the command line, which whoever tells the machine how to boot has to
//! keep from being changed; finds the hash tree that `veritysetup format` has made ([`find`]); sees
//! through the very connection that the image comes by that both belong together; and only then has
//! the kernel make a device of it ([`Tree::set_up`]), over whatever the root is otherwise: the
//! network, or a copy in memory, which is so covered as well.
//!
//! Deliberately absent: signed root hashes (the kernel would want their keys in its own image),
//! error correction, and trees without a superblock.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::nbd::client::Connection;
use super::probe::{self, Contents, ReadAt};
use super::room::{self, Memory};
use super::server::{self, Resolve};
use super::size::Size;
use super::{Load, NbdExport};
use crate::console;
use crate::error::{Error, Result, WhileDoing};
use crate::sys::dm::{Control, Device, Number, Table};
use crate::sys::loop_device;
use crate::sys::memory::MemoryFile;
use look::{FileSystem, Found, Part};

mod digest;
mod levels;
mod look;
mod plan;
mod superblock;
mod table;

pub use plan::{OnCorruption, RootHash, TreePlace, VerityPlan, VerityRequest};

/// What `dmsetup ls` shows.
pub const NAME: &str = "landfall-verity";
const UUID: &str = "LANDFALL-verity";

/// Asks for dm-mod, dm-bufio and reed_solomon by itself.
pub const MODULE: &str = "dm-verity";

/// A hash tree that belongs to the root hash, as far as can be told without a device.
#[derive(Debug)]
pub struct Tree {
    plan: VerityPlan,
    found: Found,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// On the same device as what it is for.
    Appended,
    /// From another export: the tree, without its superblock, in memory.
    Memory(File),
}

/// Looks for the tree of `root`, which `connection` leads to, and whether it is the one that was
/// meant. Loads what the kernel needs for it, too, so that a module that is missing is found out
/// before an image has been copied.
///
/// # Errors
/// There is no tree, or another one; transient if the connection was lost.
pub fn find(
    plan: &VerityPlan,
    connection: &mut Connection,
    root: &probe::Root,
    resolve: Resolve<'_>,
    load: Load<'_>,
) -> Result<Tree> {
    let whose = whose(connection);
    let file_system = FileSystem {
        description: &root.file_system.description,
        bytes: match probe::identify(&root.head) {
            Contents::FileSystem(found) => found.extent,
            Contents::Foreign(_) | Contents::Unknown => None,
        },
    };
    let mut image = Part { image: connection, offset: root.offset, length: root.length };
    let (found, place) = match &plan.place {
        TreePlace::Image { offset } => {
            let found = look::in_image(plan, &mut image, *offset, &file_system)
                .map_err(|error| Error::new(format!("verifying {whose}"), error))?;
            (found, Place::Appended)
        }
        TreePlace::Export { exports, offset } => {
            // For what it is kept in.
            load("loop", &[])?;
            from_export(plan, &mut image, &whose, &file_system, exports, *offset, resolve)?
        }
    };
    load(MODULE, &[])?;
    // The kernel would ask /sbin/modprobe, which there is not, for one that it does not have.
    let algorithm = format!("crypto-{}", found.superblock.algorithm);
    if let Err(error) = load(&algorithm, &[]) {
        log::debug!(target: "root", "{error}; it may be part of the kernel");
    }
    Ok(Tree { plan: plan.clone(), found, place })
}

fn whose(connection: &Connection) -> String {
    format!("\"{}\" of {}", connection.export().name, connection.peer())
}

/// The tree of an export of its own, all of it in memory.
///
/// It is a hundredth of the image. Left on its server it would be a second connection that every
/// read depends on, with another server to lose, for as long as the machine runs, and one that a
/// copy of the root in memory still needs.
fn from_export(
    plan: &VerityPlan,
    image: &mut Part<'_>,
    whose_image: &str,
    file_system: &FileSystem<'_>,
    exports: &[NbdExport],
    offset: u64,
    resolve: Resolve<'_>,
) -> Result<(Found, Place)> {
    let mut connection = server::connect(exports, resolve)?;
    let whose = whose(&connection);
    let doing = || format!("verifying {whose_image} with {whose}");
    let length = connection.size_bytes();
    let mut hash = Part { image: &mut connection, offset: 0, length };
    let found = look::apart(plan, image, &mut hash, offset, file_system)
        .map_err(|error| Error::new(doing(), error))?;
    let file = in_memory(&mut hash, &found, &whose).map_err(|error| Error::new(doing(), error))?;
    connection.disconnect();
    Ok((found, Place::Memory(file)))
}

fn in_memory(hash: &mut Part<'_>, found: &Found, whose: &str) -> Result<File> {
    /// The tree of an image of 128 GiB, with what veritysetup does by itself.
    const LARGEST: u64 = 1 << 30;
    const PIECE: u64 = 1 << 20;
    let begin = found.begin();
    let length = found.extent.end.saturating_sub(begin);
    let doing = || "copying the hash tree to RAM";
    if length > LARGEST {
        let why = format!("it has {}, and may have {}", Size(length), Size(LARGEST));
        return Err(Error::refused(doing(), why)
            .with_hint("make it with larger blocks, or append it to the image"));
    }
    if let Err(too_large) = room::fits(length, &Memory::now()?) {
        return Err(Error::refused(doing(), too_large.to_string())
            .with_hint("a tree that is appended to the image is read when it is needed"));
    }
    let memory = MemoryFile::create(length)?;
    let progress = console::progress(
        "root",
        format!("copying the hash tree from {whose} to RAM"),
        Some(length),
    );
    let mut piece = vec![0; PIECE as usize];
    let mut done = 0;
    while done < length {
        let size = usize::try_from(PIECE.min(length.saturating_sub(done))).unwrap_or(0);
        let piece = piece.get_mut(..size).unwrap_or_default();
        hash.read(begin.saturating_add(done), piece)?;
        memory.file().write_all_at(piece, done).while_doing(doing)?;
        done = done.saturating_add(size as u64);
        progress.at(done);
    }
    memory.read_only()
}

impl Found {
    /// Where the tree begins, in bytes.
    fn begin(&self) -> u64 {
        self.extent.first_block.saturating_mul(self.superblock.hash_block.into())
    }
}

impl Tree {
    /// Has the kernel make the device, over `data`, which has the root and what was appended to it.
    pub fn set_up(self, control: &Control, data: Number) -> Result<Device> {
        let Self { plan, found, place } = self;
        let Found { superblock, extent } = found;
        // Clears itself behind its last user, which will be the device.
        let (hash, first_block, _in_memory) = match place {
            // One block of data has no tree; the kernel wants a device for it all the same.
            _ if extent.blocks == 0 => (data, 0, None),
            Place::Appended => (data, extent.first_block, None),
            Place::Memory(file) => {
                let device = loop_device::attach(&file, NAME)?;
                let opened = File::open(device.path())
                    .and_then(Number::of)
                    .while_doing(|| format!("opening {}", device.path().display()))?;
                (opened, 0, Some(device))
            }
        };
        let table = Table {
            sectors: superblock.data_bytes() / 512,
            target: table::TARGET,
            parameters: table::line(
                &superblock,
                &plan.root_hash,
                plan.on_corruption,
                &data.to_string(),
                &hash.to_string(),
                first_block,
            ),
        };
        // Left by a root handler that was stopped.
        release(control)?;
        let device = control.create(NAME, UUID)?;
        if let Err(error) = control.switch(&device, &table) {
            let _ = control.remove(NAME);
            return Err(explained(error, plan.on_corruption));
        }
        log::info!(target: "root", "{} is verified with {}, root hash {}; a changed block is {}",
            device.path().display(), superblock.algorithm,
            plan.root_hash.shortened(), plan.on_corruption);
        Ok(device)
    }
}

/// What the kernel refuses without a word that reaches us; its own are in the kernel log.
fn explained(error: Error, on_corruption: OnCorruption) -> Error {
    match on_corruption {
        OnCorruption::Panic => {
            let release = rustix::system::uname();
            let release = release.release().to_string_lossy().into_owned();
            error.with_hint(format!(
                "landfall.verity.on-corruption=panic needs Linux 5.9, and this is {release}; \
                 the kernel log may say more (landfall.debug)"
            ))
        }
        OnCorruption::Error | OnCorruption::Reboot => {
            error.with_hint("the kernel log may say why (device-mapper: table)")
        }
    }
}

/// Gives back the device of a root that nobody has mounted, if there is one.
pub fn release(control: &Control) -> Result<()> {
    match control.find(NAME)? {
        Some(_) => control.remove(NAME),
        None => Ok(()),
    }
}
