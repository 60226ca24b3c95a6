//! The servers of the field, as their own programs: each is ready when its function returns, and
//! gone when the value is dropped. Their logs are in the lab's folder. Only what none of them would
//! ever say is said by one of our own, `rogue`.

mod dhcp;
mod dnsmasq;
mod files;
mod ipv6;
mod nbd;
mod rogue;

pub use dhcp::{Leases, dhcpd, kea, kea_program, leased};
pub use dnsmasq::{Dnsmasq, Ipv6};
pub use files::{nginx, tftpd};
pub use ipv6::{kea6, radvd};
pub use nbd::{Nbd, NbdKind};
pub use rogue::{Asked, Packet, Reply, Rogue, code};
