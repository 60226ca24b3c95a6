//! The only folder with `unsafe` or raw system calls: one function per intent, each says what it
//! did in its error.

pub mod clock;
pub mod module;
pub mod mount;
pub mod reboot;
pub mod stdio;
pub mod terminal;
pub mod uevent;
