//! The first minute: mounts, console, identity, drivers.

pub mod modules;
