//! NBD: the handshake and our own reading in userland, the block device by the kernel's driver.

pub mod client;
pub mod negotiate;
pub mod protocol;
