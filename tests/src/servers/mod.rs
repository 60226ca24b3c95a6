//! The servers of the field, as their own programs: each is ready when its function returns, and
//! gone when the value is dropped. Their logs are in the lab's folder.

mod dhcp;
mod dnsmasq;
mod files;
mod nbd;

pub use dhcp::{Leases, dhcpd, kea, kea_program, leased};
pub use dnsmasq::Dnsmasq;
pub use files::{nginx, tftpd};
pub use nbd::{Nbd, NbdKind};
