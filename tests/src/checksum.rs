//! One number for a whole tree, computed alike by the machine under test and by the harness.
//!
//! Covers names, kinds, permission bits, link targets and contents; leaves out owners and times,
//! which image formats are free to change. Does not cross into other file systems.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeDigest {
    /// Regular files read.
    pub files: u64,
    pub bytes: u64,
    /// SHA-256, hex.
    pub digest: String,
}

/// Reads everything below `top` once; fails at the first file that cannot be read, naming it.
pub fn tree(top: &Path) -> io::Result<TreeDigest> {
    let device = fs::symlink_metadata(top)?.dev();
    let (mut files, mut bytes, mut all) = (0, 0, Sha256::new());
    let mut pending = vec![top.to_path_buf()];
    while let Some(directory) = pending.pop() {
        let mut entries = fs::read_dir(&directory)
            .map_err(|error| with_path(&directory, error))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<PathBuf>>>()?;
        entries.sort();
        for path in entries {
            let meta = fs::symlink_metadata(&path).map_err(|error| with_path(&path, error))?;
            if meta.dev() != device {
                continue;
            }
            let name = path.strip_prefix(top).unwrap_or(&path);
            let content = if meta.is_file() {
                files += 1;
                bytes += meta.len();
                file(&path)?
            } else if meta.is_symlink() {
                fs::read_link(&path)?.to_string_lossy().into_owned()
            } else {
                String::new()
            };
            if meta.is_dir() {
                pending.push(path.clone());
            }
            // Symbolic links have no permissions of their own: formats store what they like.
            let mode = if meta.is_symlink() { 0o120_000 } else { meta.mode() };
            all.update(format!("{mode:o} {} {content}\n", name.display()));
        }
    }
    Ok(TreeDigest { files, bytes, digest: hex(&all.finalize()) })
}

/// SHA-256 of one file, hex.
pub fn file(path: &Path) -> io::Result<String> {
    let mut source = fs::File::open(path).map_err(|error| with_path(path, error))?;
    let (mut sum, mut buffer) = (Sha256::new(), vec![0; 256 * 1024]);
    loop {
        match source.read(&mut buffer).map_err(|error| with_path(path, error))? {
            0 => return Ok(hex(&sum.finalize())),
            n => sum.update(&buffer[..n]),
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn with_path(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
