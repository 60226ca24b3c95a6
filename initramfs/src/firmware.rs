//! Finds the firmware files that modules name.

use std::path::{Path, PathBuf};

/// Where the builder's own system has firmware, in the kernel's order of search.
const SYSTEM: [&str; 4] =
    ["/lib/firmware/updates", "/lib/firmware", "/usr/lib/firmware/updates", "/usr/lib/firmware"];

/// The kernel tries these endings itself (`CONFIG_FW_LOADER_COMPRESS`), so files go in as they are.
const ENDINGS: [&str; 3] = ["", ".zst", ".xz"];

/// Directories that are laid out as `/lib/firmware`, the first match wins.
pub struct Firmware {
    directories: Vec<PathBuf>,
}

impl Firmware {
    /// `given` go before the system's own.
    pub fn new(given: &[PathBuf]) -> Self {
        let directories = given.iter().cloned().chain(SYSTEM.iter().map(PathBuf::from)).collect();
        Self { directories }
    }

    /// The file's name below `/lib/firmware`, perhaps with the ending of a compression, and where
    /// it is; `None` when no directory has it.
    pub fn find(&self, name: &str) -> Option<(String, PathBuf)> {
        // A module is code of its distributor; still, nothing outside of the directories is meant.
        if Path::new(name).is_absolute() || name.split('/').any(|part| part == "..") {
            return None;
        }
        let candidates = self.directories.iter().flat_map(|directory| {
            ENDINGS.iter().map(move |ending| {
                let name = format!("{name}{ending}");
                let path = directory.join(&name);
                (name, path)
            })
        });
        candidates.into_iter().find(|(_, path)| path.is_file())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    #[rustfmt::skip]
    fn the_first_directory_wins_and_compressed_files_keep_their_ending() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (directory, name, text) in [
            (&first,  "tigon/tg3.bin",    "first"),
            (&second, "tigon/tg3.bin",    "second"),
            (&second, "e100/d101m.bin.xz", "packed"),
        ] {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let firmware = Firmware {
            directories: vec![first.path().to_owned(), second.path().to_owned()],
        };
        let cases = [
            ("tigon/tg3.bin",     Some(("tigon/tg3.bin", "first"))),
            ("e100/d101m.bin",    Some(("e100/d101m.bin.xz", "packed"))),
            ("tigon/none.bin",    None),
            ("../tigon/tg3.bin",  None),
            ("/etc/passwd",       None),
        ];
        for (name, expected) in cases {
            let got = firmware.find(name).map(|(name, path)| (name, fs::read_to_string(path).unwrap()));
            let got = got.as_ref().map(|(name, content)| (&**name, &**content));
            assert_eq!(got, expected, "{name}");
        }
    }
}
