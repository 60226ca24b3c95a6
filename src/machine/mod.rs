//! The first minute: mounts, console, identity, drivers.

mod identity;
pub mod modules;

pub use identity::{Identity, memory_kib};
