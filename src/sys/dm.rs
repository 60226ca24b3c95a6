//! Device-mapper: block devices that are made of a table, and whose table may be replaced under
//! whoever has them mounted (include/uapi/linux/dm-ioctl.h, Documentation/admin-guide/device-mapper).

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};

use crate::error::{Error, Result, WhileDoing};

/// The kernel's device-mapper; one descriptor serves all devices for as long as it is open.
#[derive(Debug)]
pub struct Control(File);

/// A device by its name; it stays when this value goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    name: String,
    number: Number,
}

/// The number of a block device, as tables name it: `43:0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    pub major: u32,
    pub minor: u32,
}

/// One target over the whole of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// In sectors of 512 bytes.
    pub sectors: u64,
    pub target: &'static str,
    pub parameters: String,
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl Number {
    /// Of an opened block device.
    pub fn of(device: impl AsFd) -> io::Result<Self> {
        Ok(Self::from_raw(rustix::fs::fstat(device)?.st_rdev))
    }

    fn from_raw(device: u64) -> Self {
        Self { major: rustix::fs::major(device), minor: rustix::fs::minor(device) }
    }
}

impl Device {
    /// What the kernel calls its node, which is in `/dev` without udev's help.
    pub fn node(&self) -> String {
        format!("dm-{}", self.number.minor)
    }

    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(self.node())
    }

    pub fn number(&self) -> Number {
        self.number
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Control {
    /// Needs module dm-mod, and `/dev`.
    pub fn open() -> Result<Self> {
        let opened = OpenOptions::new().read(true).write(true).open("/dev/mapper/control");
        Ok(Self(opened.map_err(Self::not_there)?))
    }

    /// The same through a descriptor of `/dev`.
    pub fn open_in(dev: BorrowedFd<'_>) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(dev, "mapper/control", flags, Mode::empty());
        Ok(Self(File::from(opened.map_err(Self::not_there)?)))
    }

    fn not_there(error: impl Into<io::Error>) -> Error {
        let error = Error::new("talking to the kernel's device-mapper", error.into());
        error.with_hint("module dm-mod is not loaded")
    }

    /// Makes a device without a table; nobody can open it before it has one.
    pub fn create(&self, name: &str, uuid: &str) -> Result<Device> {
        let mut request = Request::new(name, Flags::empty());
        request.put(offset::UUID, uuid.as_bytes(), 128);
        self.call(Command::Create, &mut request)
            .while_doing(|| format!("creating device {name}"))?;
        Ok(Device { name: name.to_owned(), number: request.number() })
    }

    /// The device of that name, if there is one.
    pub fn find(&self, name: &str) -> Result<Option<Device>> {
        let mut request = Request::new(name, Flags::empty());
        match self.call(Command::Status, &mut request) {
            Ok(()) => Ok(Some(Device { name: name.to_owned(), number: request.number() })),
            Err(Errno::NXIO) => Ok(None),
            Err(errno) => Err(Error::new(format!("looking at device {name}"), errno)),
        }
    }

    /// Gives the device its table, read-only, instead of any that it has. Requests that its old
    /// table holds back are answered by the new one; none fails for it.
    pub fn switch(&self, device: &Device, table: &Table) -> Result<()> {
        self.load(device, table)?;
        self.resume(device)
    }

    /// Has a table wait for [`Self::resume`], which takes long where this is not done before.
    pub fn load(&self, device: &Device, table: &Table) -> Result<()> {
        let name = &device.name;
        let mut load = Request::new(name, Flags::READONLY);
        load.put_table(table);
        let loaded = self.call(Command::Load, &mut load);
        loaded.while_doing(|| format!("giving {name} a table of type {}", table.target))
    }

    /// Makes the table in waiting the device's own, when what is in flight has been answered.
    pub fn resume(&self, device: &Device) -> Result<()> {
        const INTERRUPTIONS: u32 = 5;
        let name = &device.name;
        // Resuming with a table in waiting suspends, swaps and resumes. The file system above is
        // read-only and has nothing to flush; held back requests are to be kept, not waited for.
        let resume = || {
            let mut request = Request::new(name, Flags::SKIP_LOCKFS | Flags::NOFLUSH);
            self.call(Command::Suspend, &mut request)
        };
        // Its wait for what is in flight can be interrupted, by a machine that goes to sleep too.
        let mut resumed = resume();
        for _ in 0..INTERRUPTIONS {
            if resumed != Err(Errno::INTR) {
                break;
            }
            resumed = resume();
        }
        if resumed.is_err() {
            self.forget(device);
        }
        resumed.while_doing(|| format!("switching {name} to another table"))
    }

    /// Gives up the table in waiting, if there is one.
    pub fn forget(&self, device: &Device) {
        let mut clear = Request::new(&device.name, Flags::empty());
        if let Err(errno) = self.call(Command::Clear, &mut clear) {
            log::debug!(target: "root", "forgetting a table of device {}: {errno}", device.name);
        }
    }

    /// What the table has to say of itself, as `dmsetup status` shows it, without the target's name.
    pub fn status(&self, device: &Device) -> Result<String> {
        /// One target, with one path in it.
        const ROOM: usize = 4096;
        let mut request = Request::new(&device.name, Flags::NOFLUSH);
        request.0.resize(ROOM, 0);
        let mut request = request.sized();
        self.call(Command::TableStatus, &mut request)
            .while_doing(|| format!("looking at device {}", device.name))?;
        let bytes = request.0.get(HEADER + SPEC..).unwrap_or_default();
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// Removes a device that nobody has open.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.call(Command::Remove, &mut Request::new(name, Flags::empty()))
            .while_doing(|| format!("removing device {name}"))
    }

    /// Says a word to the targets of a device that know it.
    pub fn message(&self, name: &str, word: &str) -> Result<()> {
        let mut request = Request::new(name, Flags::empty());
        // `struct dm_target_msg`: the sector whose target is meant, and the word.
        request.0.extend(0u64.to_ne_bytes());
        request.0.extend(word.as_bytes());
        request.0.push(0);
        let mut request = request.sized();
        self.call(Command::Message, &mut request)
            .while_doing(|| format!("telling device {name}: {word}"))
    }

    fn call(&self, command: Command, request: &mut Request) -> rustix::io::Result<()> {
        // SAFETY: `Call` describes the commands of dm-ioctl.h truthfully: the kernel reads and
        // writes no more than `data_size` bytes, which is the length of the buffer.
        unsafe { ioctl(self.0.as_fd(), Call { command, buffer: &mut request.0 }) }
    }
}

#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Command {
    Create = 3,
    Remove = 4,
    Suspend = 6,
    Status = 7,
    Load = 9,
    Clear = 10,
    TableStatus = 12,
    Message = 14,
}

#[derive(Clone, Copy)]
struct Flags(u32);

impl Flags {
    const READONLY: Self = Self(1);
    const SKIP_LOCKFS: Self = Self(1 << 10);
    const NOFLUSH: Self = Self(1 << 11);

    const fn empty() -> Self {
        Self(0)
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Where the fields of `struct dm_ioctl` are.
mod offset {
    pub const DATA_SIZE: usize = 12;
    pub const DATA_START: usize = 16;
    pub const TARGET_COUNT: usize = 20;
    pub const FLAGS: usize = 28;
    pub const DEV: usize = 40;
    pub const NAME: usize = 48;
    pub const UUID: usize = 176;
}

/// `sizeof(struct dm_ioctl)`
const HEADER: usize = 312;
/// `sizeof(struct dm_target_spec)`
const SPEC: usize = 40;
/// The interface has not changed since 2003; the kernel checks the major number only.
const VERSION: u32 = 4;

/// A `struct dm_ioctl` and what follows it.
struct Request(Vec<u8>);

impl Request {
    fn new(name: &str, flags: Flags) -> Self {
        let mut request = Self(vec![0; HEADER]);
        request.put(0, &VERSION.to_ne_bytes(), 4);
        request.put(offset::DATA_START, &(HEADER as u32).to_ne_bytes(), 4);
        request.put(offset::FLAGS, &flags.0.to_ne_bytes(), 4);
        request.put(offset::NAME, name.as_bytes(), 127);
        request.sized()
    }

    fn sized(mut self) -> Self {
        let size = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.put(offset::DATA_SIZE, &size.to_ne_bytes(), 4);
        self
    }

    fn put(&mut self, at: usize, bytes: &[u8], most: usize) {
        for (place, byte) in self.0.iter_mut().skip(at).zip(bytes.iter().take(most)) {
            *place = *byte;
        }
    }

    fn put_table(&mut self, table: &Table) {
        self.put(offset::TARGET_COUNT, &1u32.to_ne_bytes(), 4);
        let mut spec = vec![0; SPEC];
        let mut put = |at: usize, bytes: &[u8]| {
            for (place, byte) in spec.iter_mut().skip(at).zip(bytes) {
                *place = *byte;
            }
        };
        put(8, &table.sectors.to_ne_bytes());
        put(24, table.target.as_bytes());
        self.0.extend(spec);
        self.0.extend(table.parameters.as_bytes());
        self.0.push(0);
        let whole = self.0.len().next_multiple_of(8);
        self.0.resize(whole, 0);
        let size = u32::try_from(whole).unwrap_or(u32::MAX);
        self.put(offset::DATA_SIZE, &size.to_ne_bytes(), 4);
    }

    /// Of the device that an answer is about.
    fn number(&self) -> Number {
        let bytes = self.0.get(offset::DEV..).and_then(|rest| rest.first_chunk());
        Number::from_raw(bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes)))
    }
}

struct Call<'a> {
    command: Command,
    buffer: &'a mut [u8],
}

// SAFETY: all commands read a `struct dm_ioctl` of `data_size` bytes and write one back in place.
unsafe impl Ioctl for Call<'_> {
    type Output = ();
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::read_write::<[u8; HEADER]>(0xfd, self.command as u8)
    }

    fn as_ptr(&mut self) -> *mut rustix::ffi::c_void {
        self.buffer.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(
        _: IoctlOutput,
        _: *mut rustix::ffi::c_void,
    ) -> rustix::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_table_follows_the_header_as_the_kernel_wants_it() {
        let mut request = Request::new("landfall-root", Flags::READONLY);
        let table = Table { sectors: 0x1234, target: "multipath", parameters: "0 0".into() };
        request.put_table(&table);
        let bytes = &request.0;
        assert_eq!(bytes.len(), HEADER + SPEC + 8);
        assert_eq!(bytes[..4], [4, 0, 0, 0]);
        assert_eq!(bytes[12..16], ((HEADER + SPEC + 8) as u32).to_le_bytes());
        assert_eq!(bytes[16..24], [0x38, 1, 0, 0, 1, 0, 0, 0], "where, and how many");
        assert_eq!(bytes[28..32], [1, 0, 0, 0], "read-only");
        assert_eq!(&bytes[48..62], b"landfall-root\0");
        assert_eq!(bytes[HEADER..HEADER + 10], [0, 0, 0, 0, 0, 0, 0, 0, 0x34, 0x12]);
        assert_eq!(&bytes[HEADER + 24..HEADER + 34], b"multipath\0");
        assert_eq!(&bytes[HEADER + SPEC..], b"0 0\0\0\0\0\0");
    }

    #[test]
    fn numbers_are_those_of_the_answer() {
        let mut request = Request::new("x", Flags::empty());
        request.put(offset::DEV, &rustix::fs::makedev(254, 300).to_ne_bytes(), 8);
        assert_eq!(request.number(), Number { major: 254, minor: 300 });
        let device = Device { name: "x".into(), number: request.number() };
        assert_eq!(device.path(), Path::new("/dev/dm-300"));
    }
}
