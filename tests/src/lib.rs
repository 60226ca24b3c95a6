//! Virtual machines, real servers and a wire between them: what the boot tests and the demo run on.
//!
//! One test is one [`Lab`]: a network namespace with a bridge, the servers of the field bound to
//! it, and machines plugged into it. A machine is watched through its serial console
//! ([`Machine`]) and asked through a second serial line ([`Node`]), which works whatever the boot
//! did to the network. Nothing here needs root rights where user namespaces exist, nothing
//! downloads anything (`cargo xtask test` prepares what is needed), and nothing that a test
//! started outlives it.

pub mod checksum;
pub mod protocol;
pub mod reading;

#[cfg(feature = "harness")]
mod accel;
#[cfg(feature = "harness")]
mod console;
#[cfg(feature = "harness")]
mod daemon;
#[cfg(feature = "harness")]
mod disk;
#[cfg(feature = "harness")]
mod host;
#[cfg(feature = "harness")]
mod initramfs;
#[cfg(feature = "harness")]
mod kernel;
#[cfg(feature = "harness")]
mod lab;
#[cfg(feature = "harness")]
mod machine;
#[cfg(feature = "harness")]
mod netboot;
#[cfg(feature = "harness")]
mod node;
#[cfg(feature = "harness")]
mod qmp;
#[cfg(feature = "harness")]
mod reader;
#[cfg(feature = "harness")]
mod root;
#[cfg(feature = "harness")]
mod servers;
#[cfg(feature = "harness")]
mod switch;
#[cfg(feature = "harness")]
#[allow(unsafe_code)]
mod sys;
#[cfg(feature = "harness")]
mod verity;
#[cfg(feature = "harness")]
mod vm;
#[cfg(feature = "harness")]
pub mod workshop;

#[cfg(feature = "harness")]
pub use landfall_initramfs::Signatures;

#[cfg(feature = "harness")]
pub use self::{
    accel::Accel,
    checksum::TreeDigest,
    console::Console,
    daemon::Daemon,
    disk::{Disk, Table},
    host::Host,
    initramfs::{Initramfs, amended},
    kernel::{Arch, Kernel},
    lab::{Lab, SERVER, SERVER6},
    machine::Machine,
    netboot::{BootFolder, example},
    node::Node,
    reader::{Pending, Reader, reader_words},
    root::{Format, ProbeRoot, digest_of},
    servers::{
        Asked, Dnsmasq, Ipv6, Leases, Nbd, NbdKind, Packet, Reply, Rogue, code, dhcpd, kea,
        kea_program, kea6, leased, nginx, radvd, tftpd,
    },
    switch::{RunningSwitch, Switch},
    verity::{HashTree, append_hash_tree, flip_a_bit, separate_hash_tree},
    vm::{Firmware, Nic, Vm},
};
