//! Where the root image is, and how it becomes a block device that can be mounted.
//!
//! The order is: connect to the server, look at the image through that very connection, decide,
//! and only then make a device of it, by giving the connection to the kernel or by copying the
//! image into memory. So a wrong image, an unknown export or too little memory is told apart
//! before the kernel holds anything.
//!
//! Swap on a server ([`attach_swap`]) goes the same way, with a second device.
//!
//! What happens to a root after it is attached is the keeper's ([`RootImage::orders`]).
//!
//! Deliberately absent: writable roots (the overlay takes what is written), and TLS.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::error::{Error, Result, WhileDoing};
use crate::sys::memory::Medium;
use crate::sys::{loop_device, partition};
use copy::Job;
use identity::{Identity, Region};
use mapping::Mapping;
use nbd::client::Connection;
use nbd::device;
use probe::FileSystem;

use crate::keeper::orders;
use crate::sys::dm::{Control, Number};

pub mod copy;
pub mod identity;
pub mod mapping;
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
pub mod verity;

pub use nbd::client::Peer;
pub use plan::{LostPolicy, NbdExport, RamMode, RootPlan, spread};
pub use probe::squashfs_packing;
pub use room::{Allocated, Memory, fits, fits_copied};
pub(crate) use server::{Backoff, a_part_of};
pub use server::{Resolve, Source};
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
    orders: orders::RootOrders,
}

/// What keeps the image there.
#[derive(Debug)]
enum Backing {
    /// The kernel's connection to the server, below a device that may get others.
    Mapped,
    /// The kernel's connection to the server, and no other for as long as the machine is up.
    Nbd,
    /// A file in memory. The device clears itself when nobody has it open, so it is kept
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

    /// What a keeper has to know of it.
    pub fn orders(&self) -> &orders::RootOrders {
        &self.orders
    }

    fn whereabouts(&self) -> String {
        match self.backing {
            Backing::Mapped | Backing::Nbd => {
                format!("read from \"{}\" of {}", self.export, self.peer)
            }
            Backing::Memory { .. } => format!("in RAM; {} may go away", self.peer),
        }
    }
}

/// Makes the root image a block device, and loads the module of its file system.
///
/// Waits for the server as long as it takes. An image that does not fit into memory, or that cannot
/// be copied there, is streamed, with a warning.
///
/// `is_kept`: there is a keeper, which will bring a streamed root other servers.
pub fn attach(
    plan: &RootPlan,
    resolve: Resolve<'_>,
    load: Load<'_>,
    is_kept: bool,
) -> Result<RootImage> {
    let Found { connection, root, identity, tree } = look(plan, resolve, load)?;
    load(module_of(&root.file_system.fstype), &[])?;

    let peer = connection.peer().clone();
    let name = connection.export().name.clone();
    let region = Region { offset: root.offset, length: root.length };
    // One whose blocks no kernel could read is copied or not used at all.
    let block_bytes = device::kernel_block_size(connection.export()).unwrap_or_default();
    let sources = server::sources(&connection, &plan.exports, resolve);
    let mode = wanted((plan.ram, is_kept), &sources, &identity, region)?;
    let (device, backing) = match mode {
        RamMode::Copy => {
            let (sources, identity) = (sources.clone(), identity.clone());
            match in_memory(connection, Job { sources, identity, region, first: None }, load) {
                Ok(copied) => copied,
                Err(error) => {
                    log::warn!(target: "root", "{error}; it is streamed instead");
                    // From the start: the connection is used up, and the image may be another.
                    let plan = RootPlan { ram: RamMode::Off, ..plan.clone() };
                    return attach(&plan, resolve, load, is_kept);
                }
            }
        }
        RamMode::Off | RamMode::Lazy => streamed(connection, &root, load, is_kept)?,
    };
    // Above everything that may be changed below it while the machine runs.
    let device = match tree {
        None => device,
        Some(tree) => {
            let doing = || format!("opening {}", device.display());
            let data = File::open(&device).and_then(Number::of).while_doing(doing)?;
            tree.set_up(&Control::open()?, data)?.path()
        }
    };
    let kept = match backing {
        Backing::Mapped => orders::Backing::Mapped { index: NBD_INDEX },
        Backing::Nbd => orders::Backing::Nbd,
        Backing::Memory { .. } => orders::Backing::Memory,
    };
    let can_be = matches!(kept, orders::Backing::Mapped { .. });
    if !can_be && mode == RamMode::Lazy {
        log::warn!(target: "root", "a copy behind the running system needs a keeper and dm-multipath; the root stays on its server");
    }
    if kept == orders::Backing::Nbd && plan.lost != LostPolicy::Wait {
        log::warn!(target: "root", "landfall.lost={} needs them too; without effect", plan.lost);
    }
    let lazy = mode == RamMode::Lazy && can_be;
    if lazy {
        // Before the initramfs and its modules are gone.
        load("loop", &[])?;
    }
    let orders = orders::RootOrders {
        export: name.clone(),
        size_bytes: root.length,
        backing: kept,
        sources,
        using: peer.clone(),
        identity,
        block_bytes,
        region,
        partition: root.partition,
        is_verified: plan.verity.is_some(),
        lazy: lazy.then_some(orders::LazyOrders { rate: plan.ram_rate }),
        lost: plan.lost,
    };
    let image = RootImage {
        device,
        file_system: root.file_system,
        flags: plan.flags.clone(),
        size_bytes: root.length,
        peer,
        export: name,
        backing,
        orders,
    };
    log::info!(target: "root", "{} is {}, {}, {}", image.device.display(), image.description(),
        Size(image.size_bytes), image.whereabouts());
    Ok(image)
}

/// Gives back the device of a root that nobody has mounted; one that is not ours stays.
pub fn release() {
    // The devices above first: they keep those below.
    if let Ok(control) = Control::open()
        && let Err(error) = verity::release(&control).and_then(|()| mapping::release(&control))
    {
        log::debug!(target: "root", "{error}");
        return;
    }
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

/// Everything that is known of a root before there is a device.
struct Found {
    connection: Connection,
    root: probe::Root,
    identity: Identity,
    tree: Option<verity::Tree>,
}

/// Connects, and finds the root in the image, and what it is verified with; again when the server
/// goes away in between.
fn look(plan: &RootPlan, resolve: Resolve<'_>, load: Load<'_>) -> Result<Found> {
    let fstype = plan.fstype.as_deref().filter(|fstype| *fstype != "auto");
    let mut backoff = Backoff::new();
    loop {
        let mut connection = server::connect(&plan.exports, resolve)?;
        log::debug!(target: "root", "{:?} at {}", connection.export(), connection.peer());
        let found = probe::find_root(&mut connection, plan.partition, fstype);
        let found = found.map_err(|error| {
            let whose = format!("\"{}\" of {}", connection.export().name, connection.peer());
            let error = Error::new(format!("using {whose}"), error);
            match connection.export().description.as_deref() {
                Some(text) if !text.is_empty() => {
                    error.with_hint(format!("the server calls it \"{text}\""))
                }
                _ => error,
            }
        });
        let found = found.and_then(|root| {
            let find = |verity| verity::find(verity, &mut connection, &root, resolve, load);
            let tree = plan.verity.as_ref().map(find).transpose()?;
            let region = Region { offset: root.offset, length: root.length };
            let identity = Identity::take(&mut connection, region)?;
            Ok((root, identity, tree))
        });
        match found {
            Ok((root, identity, tree)) => return Ok(Found { connection, root, identity, tree }),
            Err(error) if error.is_transient() => {
                log::info!(target: "root", "{error}; connecting again");
                thread::sleep(backoff.next());
            }
            Err(error) => return Err(error),
        }
    }
}

/// What was asked for, if there is room for it: now for a copy before the boot, and ever for one
/// behind it, which a keeper has to make.
fn wanted(
    (mode, is_kept): (RamMode, bool),
    sources: &[Source],
    identity: &Identity,
    region: Region,
) -> Result<RamMode> {
    /// For the map of a server that answers others, too; one for a single client has none for us.
    const PATIENCE: Duration = Duration::from_secs(3);
    if mode == RamMode::Off {
        return Ok(mode);
    }
    let mut allocated = Allocated::default();
    let medium = Medium::here()?;
    let memory = Memory::now()?;
    let fits = |memory: &Memory| {
        let ask = || copy::allocated(sources, identity, region, PATIENCE);
        let bytes = || allocated.get(Instant::now(), ask);
        room::fits_copied(region.length, bytes, medium, memory)
    };
    let (mode, trouble) = room::affordable((mode, is_kept), &memory, fits);
    if let Some((too_large, instead)) = trouble {
        log::warn!(target: "root", "{too_large}; {instead}");
    }
    Ok(mode)
}

/// Copies what `job` says; the connection is its first.
fn in_memory(connection: Connection, mut job: Job, load: Load<'_>) -> Result<(PathBuf, Backing)> {
    // Before the copy: a missing module should not be found out after minutes.
    load("loop", &[])?;
    let name = connection.export().name.clone();
    let servers: Vec<_> = job.sources.iter().map(|source| source.peer.to_string()).collect();
    let label = format!("\"{name}\" from {}", servers.join(", "));
    job.first = Some(connection);
    let file = ram::copy(job, &label)?;
    let device = loop_device::attach(&file, &name)?;
    Ok((device.path().to_owned(), Backing::Memory { _loop: device }))
}

fn streamed(
    connection: Connection,
    root: &probe::Root,
    load: Load<'_>,
    is_kept: bool,
) -> Result<(PathBuf, Backing)> {
    load("nbd", NBD_OPTIONS)?;
    let cut = connection.export().size_bytes % 512;
    if cut != 0 {
        log::warn!(target: "root", "the size of the image is no multiple of 512: \
            its last {cut} bytes cannot be read");
    }
    let control = if is_kept { keepable(load) } else { None };
    let purpose = if control.is_some() { device::Use::Path } else { device::Use::Root };
    let whole = device::connect(NBD_INDEX, connection, purpose)?;
    let node = match root.partition {
        None => whole,
        Some(number) => {
            let region = Region { offset: root.offset, length: root.length };
            partition_of(&whole, number, region)?
        }
    };
    let Some(control) = control else { return Ok((node, Backing::Nbd)) };
    let doing = || format!("opening {}", node.display());
    let path = File::open(&node).and_then(Number::of).while_doing(doing)?;
    let mapping = Mapping::create(control, root.length / 512, path)?;
    Ok((mapping.root().path(), Backing::Mapped))
}

/// The kernel's device-mapper, if it can let the root have other servers than its first.
fn keepable(load: Load<'_>) -> Option<Control> {
    let loaded = mapping::MODULES.iter().try_for_each(|module| load(module, &[]));
    match loaded.and_then(|()| Control::open()) {
        Ok(control) => Some(control),
        Err(error) => {
            log::warn!(target: "root", "{error}; a root that loses its server will not get it back");
            None
        }
    }
}

/// The number of what the root is in, on `/dev/nbd{index}`: a partition, or the device itself.
pub fn path_number(index: u32, partition: Option<u32>, region: Region) -> Result<Number> {
    let whole = PathBuf::from(format!("/dev/nbd{index}"));
    let node = match partition {
        None => whole,
        Some(number) => partition_of(&whole, number, region)?,
    };
    let doing = || format!("opening {}", node.display());
    File::open(&node).and_then(Number::of).while_doing(doing)
}

/// The node of a partition, where the kernel agrees with us about where it is.
///
/// The kernel reads the table when the device is opened, and the node exists when that returns.
/// A table it does not understand (no GPT in its configuration, other sectors) is no obstacle: it
/// is told about the one partition that matters. A loop device with an offset would do as well,
/// but puts a thread and a second cache between the root and the network for good.
fn partition_of(device: &Path, number: u32, root: Region) -> Result<PathBuf> {
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
