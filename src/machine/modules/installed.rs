//! The running kernel's modules as this image has them, and putting one into the kernel.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Cause, Error, Result, WhileDoing};
use crate::sys::module::{FileForm, load_file, load_image};

use super::{Compression, Configuration, Index, Module, normalized};

pub struct Installed {
    /// `None`: no modules at all, or not for this kernel.
    pub index: Option<Index>,
    pub configuration: Configuration,
    /// `lib/modules/VERSION`.
    directory: PathBuf,
    release: String,
    /// Kernels that the image does have modules for.
    other_releases: Vec<String>,
    sys: PathBuf,
    proc: PathBuf,
}

impl Installed {
    /// What cannot be read is said and left out.
    pub fn read(root: &Path, release: &str, command_line: &str) -> Self {
        let parents = [root.join("lib/modules"), root.join("usr/lib/modules")];
        let directory = parents
            .iter()
            .map(|parent| parent.join(release))
            .find(|directory| directory.is_dir())
            .unwrap_or_else(|| root.join("lib/modules").join(release));
        let mut other_releases: Vec<String> = parents
            .iter()
            .filter_map(|parent| fs::read_dir(parent).ok())
            .flat_map(|entries| entries.flatten())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name != release)
            .collect();
        other_releases.sort();
        other_releases.dedup();

        let configuration = Configuration::read(root, command_line);
        for line in &configuration.ignored {
            log::debug!(target: "drivers", "modprobe.d: not obeyed: {line}");
        }
        let index = if directory.is_dir() {
            Index::read(&directory)
                .map(|index| configured(index, &configuration))
                .map_err(|error| log::warn!(target: "drivers", "{error}"))
                .ok()
        } else {
            log::debug!(target: "drivers", "no modules for kernel {release} in this image");
            None
        };
        Self {
            index,
            configuration,
            directory,
            release: release.to_owned(),
            other_releases,
            sys: root.join("sys"),
            proc: root.join("proc"),
        }
    }

    /// Loads `module`, whose dependencies are loaded; `options` go before the operator's.
    pub fn insert(&self, module: &Module, options: &[(&str, &str)]) -> Result<()> {
        let path = self.directory.join(&module.path);
        let parameters = self.configuration.parameters(&module.name, options);
        log::debug!(target: "drivers", "loading {} {parameters}", module.name);
        let parameters = CString::new(parameters).map_err(|_| {
            Error::invalid(format!("loading {}", module.name), "an option with a zero byte")
        })?;
        let Some(compression) = Compression::of(&path) else {
            return load_file(&path, &parameters, FileForm::Plain);
        };
        let kernels = fs::read_to_string(self.sys.join("module/compression")).unwrap_or_default();
        if compression.is_among(&kernels) {
            match load_file(&path, &parameters, FileForm::Compressed) {
                Err(error) if is_about_the_format(&error) => {
                    log::debug!(target: "drivers", "{error}: decompressing it here");
                }
                result => return result,
            }
        }
        let doing = || format!("reading {}", path.display());
        let file = fs::File::open(&path).while_doing(doing)?;
        let image = compression.decompress(file, doing)?;
        load_image(&image, &path, &parameters)
    }

    /// Without an index: true unless the image was clearly made for another kernel, whose modules
    /// this kernel probably needs too.
    pub fn may_have_built_in(&self, name: &str) -> bool {
        self.other_releases.is_empty() || self.kernel_has(name)
    }

    /// Evidence that needs no index: a directory that built-in modules with parameters have too, or
    /// a registered file system.
    pub fn kernel_has(&self, name: &str) -> bool {
        let module = self.sys.join("module").join(normalized(name));
        let filesystem = name.strip_prefix("fs-").unwrap_or(name);
        module.is_dir()
            || fs::read_to_string(self.proc.join("filesystems")).is_ok_and(|list| {
                list.lines().any(|line| line.split_ascii_whitespace().last() == Some(filesystem))
            })
    }

    pub fn missing(&self, name: &str) -> Error {
        let doing = format!("loading {name}");
        if self.index.is_none() && !self.other_releases.is_empty() {
            let others = self.other_releases.join(", ");
            return Error::refused(
                doing,
                format!(
                    "this is kernel {}, and the image has modules for {others} only",
                    self.release
                ),
            )
            .with_hint("kernel and image on the boot server must be of the same version");
        }
        let why = format!("module {name} is not in this image, built for kernel {}", self.release);
        Error::refused(doing, why).with_hint(format!("build the image again with --modules {name}"))
    }
}

fn configured(mut index: Index, configuration: &Configuration) -> Index {
    for (pattern, module) in &configuration.aliases {
        index.add_alias(pattern, module);
    }
    for (name, softdep) in &configuration.softdeps {
        index.add_softdep(name, softdep);
    }
    index
}

/// The kernel could not make out the file, which our own decoder perhaps can.
fn is_about_the_format(error: &Error) -> bool {
    matches!(error.cause(), Cause::Os(e) if matches!(
        e.raw_os_error(),
        Some(libc::EINVAL | libc::ENOEXEC | libc::EOPNOTSUPP)
    ))
}
