//! NBD: the handshake and our own reading in userland, the block device by the kernel's driver.

pub mod client;
pub mod device;
pub mod negotiate;
mod netlink;
pub mod protocol;
pub mod reader;
