//! What the binary does on a desk, on any Linux machine and without privileges: `landfall check` and
//! `landfall plan`.
//!
//! Nothing here writes a file, changes the machine or speaks to a network.

pub mod check;
mod image;
pub mod manual;
pub mod plan;
pub mod shell;
pub mod squashfs;

use std::process::ExitCode;

/// What a command prints, and its exit status.
pub struct Output {
    pub text: String,
    pub status: ExitCode,
}
