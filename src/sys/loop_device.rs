//! Loop devices: a file in memory that can be mounted.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use linux_raw_sys::loop_device::{
    LO_FLAGS_AUTOCLEAR, LO_FLAGS_READ_ONLY, LOOP_CLR_FD, LOOP_CONFIGURE, LOOP_CTL_GET_FREE,
    loop_config, loop_info64,
};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, NoArg, Opcode, Setter, ioctl};

use crate::error::{Error, Result, WhileDoing};

/// A loop device that vanishes when this value, and whoever else has opened or mounted it, is gone.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    _open: File,
}

impl LoopDevice {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes `file` visible as a read-only block device with sectors of 512 bytes, which every file
/// system can live with. `name` is what `losetup` shows for it.
pub fn attach(file: &File, name: &str) -> Result<LoopDevice> {
    /// Others may take the device that was free a moment ago.
    const TRIES: u32 = 16;
    let doing = || format!("making a block device of {name}");
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/loop-control")
        .while_doing(doing)
        .map_err(|error| error.with_hint("module loop is not loaded"))?;
    let config = configuration(file, name).while_doing(doing)?;
    for _ in 0..TRIES {
        // SAFETY: `GetFree` describes LOOP_CTL_GET_FREE truthfully: it takes and fills no memory.
        let number = unsafe { ioctl(control.as_fd(), GetFree) }.while_doing(doing)?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = File::open(&path).while_doing(|| format!("opening {}", path.display()))?;
        // SAFETY: LOOP_CONFIGURE reads one `loop_config` and keeps no pointer to it. The
        // descriptor in it is that of `file`, which is open; the kernel takes its own reference.
        let configured = unsafe {
            let setter = Setter::<{ LOOP_CONFIGURE as Opcode }, loop_config>::new(config);
            ioctl(device.as_fd(), setter)
        };
        match configured {
            Ok(()) => return Ok(LoopDevice { path, _open: device }),
            Err(Errno::BUSY) => {}
            Err(errno) => return Err(Error::new(doing(), errno)),
        }
    }
    Err(Error::new(doing(), Errno::BUSY))
}

/// Lets go of the file behind `device` (LOOP_CLR_FD); at once if nobody has it open, else with its
/// last user. ENXIO where there is none.
pub fn clear(device: &Path) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let device = rustix::fs::open(device, flags, Mode::empty())?;
    // SAFETY: LOOP_CLR_FD takes no argument.
    unsafe { ioctl(device.as_fd(), NoArg::<{ LOOP_CLR_FD as Opcode }>::new()) }
}

fn configuration(file: &File, name: &str) -> io::Result<loop_config> {
    const SECTOR: u32 = 512;
    let mut file_name = [0; 64];
    // Without its last byte, so that it ends with a zero.
    for (place, byte) in file_name.iter_mut().take(63).zip(name.bytes()) {
        *place = byte;
    }
    Ok(loop_config {
        fd: u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?,
        block_size: SECTOR,
        info: loop_info64 {
            lo_device: 0,
            lo_inode: 0,
            lo_rdevice: 0,
            lo_offset: 0,
            lo_sizelimit: 0,
            lo_number: 0,
            lo_encrypt_type: 0,
            lo_encrypt_key_size: 0,
            lo_flags: LO_FLAGS_READ_ONLY as u32 | LO_FLAGS_AUTOCLEAR as u32,
            lo_file_name: file_name,
            lo_crypt_name: [0; 64],
            lo_encrypt_key: [0; 32],
            lo_init: [0; 2],
        },
        __reserved: [0; 8],
    })
}

/// LOOP_CTL_GET_FREE: the number of a device that is not in use is the call's own result.
struct GetFree;

// SAFETY: the kernel ignores the argument, and the output is made of the return value alone.
unsafe impl Ioctl for GetFree {
    type Output = u32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        LOOP_CTL_GET_FREE as Opcode
    }

    fn as_ptr(&mut self) -> *mut rustix::ffi::c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(
        result: IoctlOutput,
        _: *mut rustix::ffi::c_void,
    ) -> rustix::io::Result<u32> {
        u32::try_from(result).map_err(|_| Errno::INVAL)
    }
}
