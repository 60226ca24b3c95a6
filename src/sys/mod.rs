//! The only folder with `unsafe` or raw system calls: one function per intent, each says what it
//! did in its error.

pub mod mount;
pub mod process;
pub mod udp;
