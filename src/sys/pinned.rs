//! Memory that stays where it is.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::ptr;

use rustix::mm::{MapFlags, MlockAllFlags, ProtFlags, mlock, mlockall, mmap, munmap};

/// Everything of this program, now and later, is in memory and stays there (mlockall(2)), so that
/// no page of it has to come from swap or from the file that it was started from.
///
/// Without the rights for it, it is as before.
pub fn lock_program() {
    if let Err(errno) = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE) {
        log::debug!(target: "landfall", "locking memory: {errno}");
    }
}

/// A file whose pages stay in the page cache, for everybody, for as long as this value is there:
/// who executes or reads the file needs no disk for it.
#[derive(Debug)]
pub struct Pinned {
    at: *mut c_void,
    length: usize,
}

// SAFETY: nothing is ever read or written through the address; it is only given back.
unsafe impl Send for Pinned {}

impl Pinned {
    /// Reads the first `length` bytes of `file`, and keeps them in memory.
    pub fn new(file: &File, length: usize) -> io::Result<Self> {
        // SAFETY: the kernel chooses a place that nothing of ours is at.
        let at =
            unsafe { mmap(ptr::null_mut(), length, ProtFlags::READ, MapFlags::PRIVATE, file, 0) }?;
        let pinned = Self { at, length };
        pinned.fill(file)?;
        Ok(pinned)
    }

    pub fn bytes(&self) -> usize {
        self.length
    }

    /// mlock(2) reads what is not there with all of this program's memory locked, which is no way
    /// to wait for a server that may die this very moment: so each piece is read like any file
    /// first, and then is there.
    fn fill(&self, file: &File) -> io::Result<()> {
        const PIECE: usize = 256 << 10;
        let mut piece = vec![0; PIECE.min(self.length)];
        let mut done = 0;
        while done < self.length {
            let wanted = piece.len().min(self.length.saturating_sub(done));
            let room = piece.get_mut(..wanted).unwrap_or_default();
            file.read_exact_at(room, done as u64)?;
            // SAFETY: the piece lies within the mapping; its pages are locked and nothing else.
            unsafe { mlock(self.at.byte_add(done), wanted) }?;
            done = done.saturating_add(wanted);
        }
        Ok(())
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, whole, and nobody has its address.
        let _ = unsafe { munmap(self.at, self.length) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn locked_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn a_pinned_file_is_locked_until_it_is_let_go() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 300_001]).unwrap();
        let before = locked_kib();
        let pinned = Pinned::new(&file, 300_001).unwrap();
        assert_eq!(pinned.bytes(), 300_001);
        assert!(locked_kib() >= before + 293, "{} kB", locked_kib());
        drop(pinned);
        assert_eq!(locked_kib(), before);
        assert!(Pinned::new(&file, 400_000).is_err(), "it is shorter than that");
        assert!(Pinned::new(&file, 0).is_err(), "nothing to keep");
        assert_eq!(locked_kib(), before);
    }
}
