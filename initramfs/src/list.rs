//! What `build` would take of a kernel, for those who pack images themselves: the hooks of
//! initramfs-tools and dracut copy what is listed here, so that there is one selection.
//!
//! Nothing is copied or written, and modules are listed as they are on disk, perhaps compressed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{self, Path, PathBuf};

use anyhow::{Context, Result};

use crate::firmware::Firmware;
use crate::kernel::Kernel;
use crate::selection::{Request, Selection, choose};
use crate::{read_module, softdep_line};

/// A kernel, and what was chosen of its modules.
pub struct List {
    kernel: Kernel,
    selection: Selection,
}

/// Files that the chosen modules can ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FirmwareFiles {
    /// Absolute, perhaps compressed.
    pub found: BTreeSet<PathBuf>,
    /// Names below `/lib/firmware` that no directory has, by module.
    pub missing: BTreeMap<String, Vec<String>>,
}

impl List {
    /// The parameters are those of [`Build`](crate::Build), and so is the choice. Fails when an
    /// essential module is missing, with its name.
    pub fn of(kernel: &Path, drivers: Option<&[String]>, modules: &[String]) -> Result<Self> {
        let kernel = Kernel::open(kernel)?;
        let request = Request { drivers, extra: modules, keyboard: false };
        let selection = choose(&kernel.index, &request)
            .with_context(|| format!("choosing modules of Linux {}", kernel.release))?;
        Ok(Self { kernel, selection })
    }

    /// The modules' files, in the order of the modules' names. What is built in has none.
    pub fn modules(&self) -> Vec<PathBuf> {
        let chosen = self.selection.modules.iter();
        chosen
            .filter_map(|name| self.kernel.index.module(name))
            .map(|module| self.kernel.path_of(module))
            .collect()
    }

    /// Looked for in `directories` before the system's own.
    pub fn firmware(&self, directories: &[PathBuf]) -> Result<FirmwareFiles> {
        let directories = directories.iter().map(path::absolute);
        let firmware = Firmware::new(&directories.collect::<Result<Vec<_>, _>>()?);
        let mut files = FirmwareFiles::default();
        let chosen = self.selection.modules.iter();
        for module in chosen.filter_map(|name| self.kernel.index.module(name)) {
            let (_, info) = read_module(&self.kernel, module)?;
            for name in info.firmware {
                match firmware.find(&name) {
                    Some((_, path)) => {
                        files.found.insert(path);
                    }
                    None => files.missing.entry(module.name.clone()).or_default().push(name),
                }
            }
        }
        Ok(files)
    }

    /// Lines for a file of modprobe.d(5): dependencies that the kernel's own `modules.softdep` does
    /// not know. Their modules are in the list; without these lines nothing would load them.
    pub fn softdeps(&self) -> String {
        let chosen = &self.selection.modules;
        let known = self.selection.softdeps.iter().filter(|(name, _)| chosen.contains(**name));
        known.map(|(name, softdep)| softdep_line(name, softdep)).collect()
    }
}
