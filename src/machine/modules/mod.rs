//! Kernel modules: which ones a device asks for, in which order, with which options; and loading
//! them.
//!
//! The deciding half is pure and is shared with the image builder: [`Index`] reads depmod's files,
//! [`Aliases`] matches a device against driver patterns, [`Configuration`] is what an operator said
//! about modules. [`Drivers`] acts. Rules are modprobe's (kmod 34, modprobe.d(5)), except that
//! `install` and `remove` commands are never run: there is no shell here to run them.

mod alias;
mod binary;
mod compression;
mod configuration;
mod devices;
mod index;
mod installed;
mod loader;

pub use alias::{Aliases, glob};
pub use compression::{Compression, MODULE_LIMIT};
pub use configuration::{Configuration, Softdep};
pub use devices::unclaimed_network;
pub use index::{Found, Index, Module, Step, Texts, module_name, normalized, parse_softdep};
pub use loader::Drivers;
