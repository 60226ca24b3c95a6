//! Where the root image is, and how it becomes a block device that can be mounted.
//!
//! The order is: connect to the server, look at the image through that very connection, decide,
//! and only then make a device of it, by giving the connection to the kernel or by copying the
//! image into memory. So a wrong image, an unknown export or too little memory is told apart
//! before the kernel holds anything.
//!
//! Swap on a server ([`attach_swap`]) goes the same way, with a second device.
//!
//! Deliberately absent: writable roots (the overlay takes what is written), TLS, and whatever has
//! to happen after the real init has started.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::io::Errno;

use crate::error::{Error, Result, WhileDoing};
use crate::sys::{loop_device, partition};
use nbd::client::{Connection, Peer};
use nbd::device;
use probe::FileSystem;
use server::Backoff;

mod chunks;
pub mod nbd;
mod partitions;
mod plan;
mod probe;
mod ram;
#[cfg(test)]
mod real_servers;
mod room;
mod server;
mod size;
mod swap;

pub use plan::{NbdExport, RamMode, RootPlan, RootSource};
pub use probe::squashfs_packing;
pub use room::{Memory, fits};
pub use server::Resolve;
pub use size::Size;
pub use swap::{SwapPlan, attach as attach_swap, release as release_swap};

/// Loads a kernel module, with parameters that the command line may overrule; a module that is
/// loaded or built in is loaded already.
pub type Load<'a> = &'a dyn Fn(&str, &[(&str, &str)]) -> Result<()>;

/// Loaded while the network still negotiates; `attach` and the overlay ask for them again.
///
/// One device is enough for the root, and the 16 that nbd makes by default cost more time than
/// all the rest of it. `nbd.nbds_max=` on the kernel command line is stronger, and netlink makes
/// further devices on demand.
pub const MODULES_OF_EVERY_BOOT: [(&str, &[(&str, &str)]); 2] =
    [("nbd", NBD_OPTIONS), ("overlay", &[])];

const NBD_OPTIONS: &[(&str, &str)] = &[("nbds_max", "1")];

/// The device that the kernel gives us; swap of a server is on the next one.
const NBD_INDEX: u32 = 0;

/// A block device with the root file system on it. Only [`attach`] makes one.
#[derive(Debug)]
pub struct RootImage {
    device: PathBuf,
    file_system: FileSystem,
    flags: String,
    size_bytes: u64,
    peer: Peer,
    export: String,
    backing: Backing,
}

/// What keeps the image there.
#[derive(Debug)]
enum Backing {
    /// The kernel's connection to the server.
    Nbd,
    /// A sealed file in memory. The device clears itself when nobody has it open, so it is kept
    /// open until it is mounted.
    Memory { _loop: loop_device::LoopDevice },
}

impl RootImage {
    /// The block device to mount.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// Its file system, as in `/proc/filesystems`.
    pub fn fstype(&self) -> &str {
        &self.file_system.fstype
    }

    /// Its file system for people: `squashfs 4.0 (zstd)`.
    pub fn description(&self) -> &str {
        &self.file_system.description
    }

    /// `rootflags=`, as after `mount -o`.
    pub fn flags(&self) -> &str {
        &self.flags
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The server the image came from, also when it is not needed any more: configurations ask
    /// for it (`SERVER`).
    pub fn server(&self) -> SocketAddr {
        self.peer.address
    }

    /// The export's name, as the server knows it.
    pub fn export(&self) -> &str {
        &self.export
    }

    pub fn is_in_ram(&self) -> bool {
        matches!(self.backing, Backing::Memory { .. })
    }

    fn whereabouts(&self) -> String {
        match self.backing {
            Backing::Nbd => format!("read from \"{}\" of {}", self.export, self.peer),
            Backing::Memory { .. } => format!("in RAM; {} may go away", self.peer),
        }
    }
}

/// Makes the root image a block device, and loads the module of its file system.
///
/// Waits for the server as long as it takes. An image that does not fit into memory is streamed,
/// with a warning.
pub fn attach(plan: &RootPlan, resolve: Resolve<'_>, load: Load<'_>) -> Result<RootImage> {
    let RootSource::Nbd(export) = &plan.source;
    let (connection, root) = look(export, plan, resolve)?;
    load(module_of(&root.file_system.fstype), &[])?;

    let peer = connection.peer().clone();
    let name = connection.export().name.clone();
    let (device, backing) = match wanted(plan.ram, root.length)? {
        RamMode::Copy => in_memory(connection, &root, load)?,
        RamMode::Off => streamed(connection, &root, load)?,
    };
    let image = RootImage {
        device,
        file_system: root.file_system,
        flags: plan.flags.clone(),
        size_bytes: root.length,
        peer,
        export: name,
        backing,
    };
    log::info!(target: "root", "{} is {}, {}, {}", image.device.display(), image.description(),
        Size(image.size_bytes), image.whereabouts());
    Ok(image)
}

/// Gives back the device of a root that nobody has mounted; one that is not ours stays.
pub fn release() {
    let backend = fs::read_to_string(format!("/sys/block/nbd{NBD_INDEX}/backend"));
    let is_ours = backend.is_ok_and(|backend| device::is_our_identifier(backend.trim()));
    if is_ours
        && device::is_connected(NBD_INDEX).unwrap_or(false)
        && !device::is_mounted(NBD_INDEX)
        && let Err(error) = device::disconnect(NBD_INDEX)
    {
        log::debug!(target: "root", "{error}");
    }
}

/// Connects, and finds the root in the image; again when the server goes away in between.
fn look(
    export: &NbdExport,
    plan: &RootPlan,
    resolve: Resolve<'_>,
) -> Result<(Connection, probe::Root)> {
    let fstype = plan.fstype.as_deref().filter(|fstype| *fstype != "auto");
    let mut backoff = Backoff::new();
    loop {
        let mut connection = server::connect(export, resolve)?;
        log::debug!(target: "root", "{:?} at {}", connection.export(), connection.peer());
        match probe::find_root(&mut connection, plan.partition, fstype) {
            Ok(root) => return Ok((connection, root)),
            Err(error) if error.is_transient() => {
                log::info!(target: "root", "{error}; connecting again");
                thread::sleep(backoff.next());
            }
            Err(error) => {
                let doing =
                    format!("using \"{}\" of {}", connection.export().name, connection.peer());
                let error = Error::new(doing, error);
                return Err(match connection.export().description.as_deref() {
                    Some(text) if !text.is_empty() => {
                        error.with_hint(format!("the server calls it \"{text}\""))
                    }
                    _ => error,
                });
            }
        }
    }
}

/// What was asked for, if it is possible.
fn wanted(mode: RamMode, length: u64) -> Result<RamMode> {
    match mode {
        RamMode::Off => Ok(RamMode::Off),
        RamMode::Copy => Ok(match room::fits(length, &Memory::now()?) {
            Ok(()) => RamMode::Copy,
            Err(too_large) => {
                log::warn!(target: "root", "{too_large}; it is streamed instead");
                RamMode::Off
            }
        }),
    }
}

fn in_memory(
    connection: Connection,
    root: &probe::Root,
    load: Load<'_>,
) -> Result<(PathBuf, Backing)> {
    // Before the copy: a missing module should not be found out after minutes.
    load("loop", &[])?;
    let name = connection.export().name.clone();
    let file = ram::copy(connection, root)?;
    let device = loop_device::attach(&file, &name)?;
    Ok((device.path().to_owned(), Backing::Memory { _loop: device }))
}

fn streamed(
    connection: Connection,
    root: &probe::Root,
    load: Load<'_>,
) -> Result<(PathBuf, Backing)> {
    load("nbd", NBD_OPTIONS)?;
    let cut = connection.export().size_bytes % 512;
    if cut != 0 {
        log::warn!(target: "root", "the size of the image is no multiple of 512: \
            its last {cut} bytes cannot be read");
    }
    let whole = device::connect(NBD_INDEX, connection, device::Use::Root)?;
    let backing = Backing::Nbd;
    match root.partition {
        None => Ok((whole, backing)),
        Some(number) => partition_of(&whole, number, root).map(|node| (node, backing)),
    }
}

/// The node of a partition, where the kernel agrees with us about where it is.
///
/// The kernel reads the table when the device is opened, and the node exists when that returns.
/// A table it does not understand (no GPT in its configuration, other sectors) is no obstacle: it
/// is told about the one partition that matters. A loop device with an offset would do as well,
/// but puts a thread and a second cache between the root and the network for good.
fn partition_of(device: &Path, number: u32, root: &probe::Root) -> Result<PathBuf> {
    let node = PathBuf::from(format!("{}p{number}", device.display()));
    let doing = || format!("using partition {number} of {}", device.display());
    let impossible = |_| Error::invalid(doing(), "its numbers are too large");
    let start = i64::try_from(root.offset).map_err(impossible)?;
    let length = i64::try_from(root.length).map_err(impossible)?;
    let id = i32::try_from(number).map_err(impossible)?;
    let opened = File::open(device).while_doing(doing)?;
    match partition::add(&opened, id, start, length) {
        Ok(()) => return Ok(node),
        // It knows the partition, or another one in its place.
        Err(Errno::BUSY) => {}
        Err(errno) => return Err(Error::new(doing(), errno)),
    }
    let directory = Path::new("/sys/class/block").join(node.file_name().unwrap_or_default());
    let sectors = |attribute: &str| -> Result<u64> {
        let path = directory.join(attribute);
        let text =
            fs::read_to_string(&path).while_doing(|| format!("reading {}", path.display()))?;
        text.trim().parse().map_err(|_| Error::invalid(doing(), "its size is no number"))
    };
    if (sectors("start")?, sectors("size")?) != (root.offset / 512, root.length / 512) {
        return Err(Error::refused(doing(), "the kernel finds it in another place"));
    }
    Ok(node)
}

/// The module that mounts `fstype`.
fn module_of(fstype: &str) -> &str {
    match fstype {
        "iso9660" => "isofs",
        "ext2" | "ext3" => "ext4",
        fstype => fstype,
    }
}
