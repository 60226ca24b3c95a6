//! The only folder with `unsafe` or raw system calls: one function per intent, each says what it
//! did in its error.

pub mod clock;
pub mod dm;
pub mod icmp6;
pub mod loop_device;
pub mod memory;
pub mod module;
pub mod mount;
pub mod packet;
pub mod partition;
pub mod pinned;
pub mod process;
pub mod reboot;
pub mod resident;
pub mod socket;
pub mod stdio;
pub mod swap;
pub mod terminal;
pub mod udp;
pub mod uevent;
pub mod watchdog;
