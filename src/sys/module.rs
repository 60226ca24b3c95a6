//! Putting modules into the running kernel.

use std::ffi::{CStr, c_int};
use std::fs::File;
use std::path::Path;

use rustix::io::Errno;
use rustix::system::{finit_module, init_module};

use crate::error::{Error, Result, WhileDoing};

/// `MODULE_INIT_COMPRESSED_FILE` of the kernel's module.h; neither rustix nor nix has it.
const COMPRESSED_FILE: c_int = 4;

/// What the kernel is to make of a module's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileForm {
    Plain,
    /// By the algorithm that `/sys/module/compression` names.
    Compressed,
}

/// Loads the module in `path` and returns when its init function has; one that is loaded already is
/// a success, whatever its parameters were.
pub fn load_file(path: &Path, parameters: &CStr, form: FileForm) -> Result<()> {
    let file = File::open(path).while_doing(|| format!("opening {}", path.display()))?;
    let flags = match form {
        FileForm::Plain => 0,
        FileForm::Compressed => COMPRESSED_FILE,
    };
    outcome(finit_module(&file, parameters, flags), path)
}

/// As [`load_file`], for a module that had to be decompressed first; `path` is for messages only.
///
/// `init_module(2)` rather than a memfd: the kernel refuses to read a module from a file that is
/// still open for writing, and what it checks (signature, lockdown) is the same for both.
pub fn load_image(image: &[u8], path: &Path, parameters: &CStr) -> Result<()> {
    outcome(init_module(image, parameters), path)
}

fn outcome(result: Result<(), Errno>, path: &Path) -> Result<()> {
    let errno = match result {
        // The kernel waits for a module that another thread is loading before it says EXIST.
        Ok(()) | Err(Errno::EXIST) => return Ok(()),
        Err(errno) => errno,
    };
    let error = Error::new(format!("loading {}", path.display()), errno);
    Err(match errno {
        Errno::NOEXEC => {
            error.with_hint("the module was built for another kernel, or its file is damaged")
        }
        Errno::KEYREJECTED | Errno::NOKEY => error.with_hint(
            "this kernel takes signed modules only (Secure Boot, or module.sig_enforce): the image \
             must not be built with --unsigned",
        ),
        Errno::PERM => error.with_hint(
            "this kernel is locked down (under Secure Boot the image must not be built with \
             --unsigned), or module_blacklist= forbids it; the kernel log says which",
        ),
        Errno::NOENT => {
            error.with_hint("a symbol or firmware it needs is missing; the kernel log names it")
        }
        _ => error,
    })
}
