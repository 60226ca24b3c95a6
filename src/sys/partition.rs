//! Telling the kernel about a partition that it has not found by itself.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::ioctl::{Opcode, Setter, ioctl};

/// `struct blkpg_partition` of `include/uapi/linux/blkpg.h`.
#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    number: i32,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct BlkpgArgument {
    operation: i32,
    flags: i32,
    data_length: i32,
    data: *const BlkpgPartition,
}

const BLKPG: Opcode = 0x1269;
const ADD_PARTITION: i32 = 1;

/// Adds partition `number` of `device`, in bytes; its node exists when this returns.
///
/// `EBUSY` when there is such a partition, or one in the same place.
pub fn add(device: &File, number: i32, start: i64, length: i64) -> Result<(), Errno> {
    let partition =
        BlkpgPartition { start, length, number, device_name: [0; 64], volume_name: [0; 64] };
    let argument = BlkpgArgument {
        operation: ADD_PARTITION,
        flags: 0,
        data_length: size_of::<BlkpgPartition>() as i32,
        data: &raw const partition,
    };
    // SAFETY: BLKPG reads a `blkpg_ioctl_arg` and the `blkpg_partition` that it points to, both of
    // which live until the call returns, and writes to neither.
    unsafe { ioctl(device.as_fd(), Setter::<BLKPG, BlkpgArgument>::new(argument)) }
}
