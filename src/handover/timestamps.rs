//! `systemd-analyze` shows the time that was spent before the root was there, if it is told.
//!
//! systemd takes over from a systemd of the initramfs by a file of what that one knew, and one of
//! its lines is when it began. We write that line alone: `--switched-root` keeps systemd from
//! taking it for a restart of itself, so that it sets up everything as always. The form is systemd's
//! own, and unchanged since version 229 (`manager_deserialize`, `early_skip_setup_check`); lines it
//! does not know it skips.

use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::sys::clock::Moment;

/// When the agent began, in a file for the init that it becomes.
#[derive(Debug)]
pub struct Timestamps {
    // Without CLOEXEC: systemd reads it.
    file: File,
}

impl Timestamps {
    /// # Errors
    /// There is no memory for one line.
    pub fn new(began: Moment) -> io::Result<Self> {
        let mut file = File::from(memfd_create("initrd-timestamps", MemfdFlags::empty())?);
        file.write_all(line(began).as_bytes())?;
        file.rewind()?;
        Ok(Self { file })
    }

    /// To be put before all others; good for as long as this value lives.
    pub fn arguments(&self) -> [String; 3] {
        let deserialize = format!("--deserialize={}", self.file.as_raw_fd());
        ["--switched-root".to_owned(), "--system".to_owned(), deserialize]
    }
}

/// Two clocks in microseconds; the empty line ends what is about the system as a whole.
fn line(began: Moment) -> String {
    let (realtime, monotonic) = (began.realtime.as_micros(), began.monotonic.as_micros());
    format!("initrd-timestamp={realtime} {monotonic}\n\n")
}

/// Whether `init` leads to systemd, as this process sees it.
pub fn are_understood_by(init: &Path) -> bool {
    fs::canonicalize(init).is_ok_and(|path| path.ends_with("systemd/systemd"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_file_says_when_it_began_and_is_read_from_its_beginning() {
        let began = Moment {
            realtime: Duration::new(1_700_000_000, 250_000_999),
            monotonic: Duration::from_millis(1500),
        };
        let timestamps = Timestamps::new(began).unwrap();
        let [.., deserialize] = timestamps.arguments();
        let descriptor = deserialize.strip_prefix("--deserialize=").unwrap();
        let flags = rustix::io::fcntl_getfd(&timestamps.file).unwrap();
        assert!(flags.is_empty(), "it must outlive the exec");
        assert_eq!(descriptor, timestamps.file.as_raw_fd().to_string());
        let mut text = String::new();
        (&timestamps.file).read_to_string(&mut text).unwrap();
        assert_eq!(text, "initrd-timestamp=1700000000250000 1500000\n\n");
    }

    #[test]
    fn systemd_is_known_by_where_its_link_leads() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("usr/lib/systemd/systemd");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(&program, "").unwrap();
        fs::write(root.path().join("busybox"), "").unwrap();
        for (name, leads_to, expected) in [
            ("init", "usr/lib/systemd/systemd", true),
            ("init.busybox", "busybox", false),
            ("init.dangling", "nowhere/systemd/systemd", false),
        ] {
            symlink(leads_to, root.path().join(name)).unwrap();
            assert_eq!(are_understood_by(&root.path().join(name)), expected, "{name}");
        }
        assert!(are_understood_by(&program));
        assert!(!are_understood_by(Path::new("/nowhere")));
    }
}
