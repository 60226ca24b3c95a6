//! A kernel's tree of modules, installed or only unpacked.
//!
//! An installed one has depmod's files. A package that was unpacked and never configured does not
//! (Debian runs depmod when the package is configured), so what depmod would write is computed from
//! the modules themselves, without depmod. Nothing is written into the tree.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, bail};
use landfall::machine::modules::{Compression, Index, Module, Texts, module_name, normalized};

use crate::elf::ModuleInfo;

pub struct Kernel {
    /// `uname -r` of the kernel.
    pub release: String,
    /// `…/lib/modules/VERSION`
    directory: PathBuf,
    pub index: Index,
    /// As depmod's files have them; they go into the image too.
    pub builtin: String,
    pub builtin_modinfo: String,
}

impl Kernel {
    /// `which` is a version (`6.1.0-44-amd64`), a `lib/modules/VERSION` directory, or the root of
    /// an unpacked package or system with exactly one of them.
    pub fn open(which: &Path) -> Result<Self> {
        let directory = find_directory(which)?;
        let release = directory
            .file_name()
            .and_then(|name| name.to_str())
            .with_context(|| format!("{} has no version for a name", directory.display()))?
            .to_owned();
        let texts = if directory.join("modules.dep").exists() {
            Texts::read(&directory)?
        } else {
            texts_from_modules(&directory)?
        };
        let index = Index::parse(&texts);
        if index.modules().next().is_none() && texts.builtin.is_empty() {
            bail!("{} has no modules, and no list of built-in ones", directory.display());
        }
        let (builtin, builtin_modinfo) = (texts.builtin, texts.builtin_modinfo);
        Ok(Self { release, directory, index, builtin, builtin_modinfo })
    }

    /// The module's file, decompressed.
    pub fn image_of(&self, module: &Module) -> Result<Vec<u8>> {
        plain(&self.path_of(module))
    }

    /// Where the module's file is, perhaps compressed.
    pub fn path_of(&self, module: &Module) -> PathBuf {
        self.directory.join(&module.path)
    }
}

fn find_directory(which: &Path) -> Result<PathBuf> {
    // Without this a release like "6.1.0-44-amd64" would be looked up in the working directory.
    let is_version = which.components().count() == 1 && !which.exists();
    if is_version {
        return ["/lib/modules", "/usr/lib/modules"]
            .iter()
            .map(|parent| Path::new(parent).join(which))
            .find(|directory| directory.is_dir())
            .with_context(|| {
                format!(
                    "there is no kernel {} in /lib/modules, and no directory of that name{}",
                    which.display(),
                    installed_kernels()
                )
            });
    }
    // `/lib/modules/VERSION/` and `.` have no last component to take the version from.
    let which = which.canonicalize().with_context(|| format!("opening {}", which.display()))?;
    if ["modules.dep", "modules.builtin", "kernel"].iter().any(|name| which.join(name).exists()) {
        return Ok(which);
    }
    let mut kernels = kernels_in(&which);
    match (kernels.pop(), kernels.as_slice()) {
        (Some(kernel), []) => Ok(kernel),
        (None, _) => bail!(
            "{} is no lib/modules/VERSION directory, and has none below lib/modules or \
             usr/lib/modules",
            which.display()
        ),
        (Some(last), others) => {
            let mut names: Vec<String> =
                others.iter().chain([&last]).map(|path| path.display().to_string()).collect();
            names.sort();
            bail!("{} has several kernels; choose one of {}", which.display(), names.join(", "))
        }
    }
}

fn kernels_in(root: &Path) -> Vec<PathBuf> {
    // On a merged system one of the two is a link to the other.
    let mut kernels: Vec<_> = ["lib/modules", "usr/lib/modules"]
        .iter()
        .filter_map(|parent| root.join(parent).canonicalize().ok()?.read_dir().ok())
        .flat_map(|entries| entries.flatten())
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    kernels.sort();
    kernels.dedup();
    kernels
}

fn installed_kernels() -> String {
    let names: Vec<_> = kernels_in(Path::new("/"))
        .iter()
        .filter_map(|path| path.file_name()?.to_str().map(ToOwned::to_owned))
        .collect();
    if names.is_empty() { String::new() } else { format!("; installed are {}", names.join(", ")) }
}

fn plain(path: &Path) -> Result<Vec<u8>> {
    let doing = || format!("reading {}", path.display());
    match Compression::of(path) {
        None => fs::read(path).with_context(doing),
        Some(compression) => {
            let file = fs::File::open(path).with_context(doing)?;
            Ok(compression.decompress(file, doing)?)
        }
    }
}

/// What depmod would write for `directory`.
fn texts_from_modules(directory: &Path) -> Result<Texts> {
    let files = module_files(directory)?;
    let read = |path: &PathBuf| {
        let full = directory.join(path);
        let info = ModuleInfo::read(&plain(&full)?);
        info.with_context(|| format!("reading {}", full.display()))
    };
    // Decompressing thousands of modules is the longest part of a build.
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let paths: Vec<&PathBuf> = files.values().collect();
    let infos: Vec<Result<ModuleInfo>> = thread::scope(|scope| {
        let workers: Vec<_> = paths
            .chunks(paths.len().div_ceil(threads).max(1))
            .map(|chunk| {
                scope.spawn(move || chunk.iter().map(|path| read(path)).collect::<Vec<_>>())
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });

    let optional = |name: &str| match fs::read(directory.join(name)) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    };
    let mut texts = Texts {
        builtin: optional("modules.builtin"),
        builtin_modinfo: optional("modules.builtin.modinfo"),
        ..Texts::default()
    };
    for ((name, path), info) in files.iter().zip(infos) {
        let info = info?;
        // One that the tree does not have keeps its name, so that its absence is noticed.
        let needs = info.depends.iter().map(|name| match files.get(&normalized(name)) {
            Some(path) => path.display().to_string(),
            None => format!("{name}.ko"),
        });
        let needs: Vec<String> = needs.collect();
        texts.dep.push_str(&format!("{}: {}\n", path.display(), needs.join(" ")));
        texts.alias.push_str(&alias_lines(name, &info));
        for softdep in &info.softdeps {
            texts.softdep.push_str(&format!("softdep {name} {softdep}\n"));
        }
    }
    Ok(texts)
}

/// Paths relative to `directory`, by module name.
fn module_files(directory: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        let full = directory.join(&relative);
        let doing = || format!("reading {}", full.display());
        for entry in fs::read_dir(&full).with_context(doing)? {
            let entry = entry.with_context(doing)?;
            let path = relative.join(entry.file_name());
            // `build` and `source` are links to trees without modules of interest; weak-updates of
            // some distributions has links to modules that are.
            let kind = entry.file_type().with_context(doing)?;
            if kind.is_dir() {
                open.push(path);
            } else if let Some(name) = path.to_str().and_then(module_name)
                && full.join(entry.file_name()).is_file()
            {
                let better = files.get(&name).is_none_or(|old| rank(&path) < rank(old));
                if better {
                    files.insert(name, path);
                }
            }
        }
    }
    Ok(files)
}

/// depmod's default order of search, then the path, so that the choice does not depend on the order
/// in which a directory lists its files.
fn rank(path: &Path) -> (u8, &Path) {
    let place = match path.iter().next().and_then(|first| first.to_str()) {
        Some("updates") => 0,
        Some("extra" | "weak-updates") => 1,
        _ => 2,
    };
    (place, path)
}

/// The module's part of `modules.alias`.
pub fn alias_lines(name: &str, info: &ModuleInfo) -> String {
    info.aliases.iter().map(|pattern| format!("alias {pattern} {name}\n")).collect()
}

#[cfg(test)]
mod tests {
    use landfall::machine::modules::Found;

    use super::*;
    use crate::elf::fixture;

    fn tree(modules: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, modinfo) in modules {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, fixture::module(modinfo)).unwrap();
        }
        root
    }

    #[test]
    fn an_unpacked_package_is_indexed_as_depmod_would() {
        let root = tree(&[
            (
                "lib/modules/6.1/kernel/fs/ext4/ext4.ko",
                "alias=fs-ext4 depends=jbd2,crc16 softdep=pre:\u{a0}crc32c",
            ),
            ("lib/modules/6.1/kernel/fs/jbd2/jbd2.ko", "depends="),
            ("lib/modules/6.1/kernel/lib/crc16.ko", "depends="),
            ("lib/modules/6.1/kernel/crypto/crc32c_generic.ko", "alias=crc32c"),
            ("lib/modules/6.1/updates/jbd2.ko", "depends=crc16"),
            ("lib/modules/6.1/kernel/net/odd.ko", "depends=lost"),
        ]);
        let kernel = Kernel::open(root.path()).unwrap();
        assert_eq!(kernel.release, "6.1");
        let order: Vec<_> =
            kernel.index.load_order("ext4").iter().map(|step| step.module.name.clone()).collect();
        assert_eq!(order, ["crc32c_generic", "crc16", "jbd2", "ext4"]);
        assert_eq!(kernel.index.module("jbd2").unwrap().path, Path::new("updates/jbd2.ko"));
        assert!(matches!(kernel.index.find("fs-ext4"), Found::Modules(_)));
        assert_eq!(kernel.index.module("odd").unwrap().needs, ["lost"]);
    }

    #[test]
    fn a_compressed_module_is_read_as_if_it_were_plain() {
        use std::io::Write;

        let root = tree(&[("6.1/kernel/plain.ko", "depends=packed")]);
        let file = fs::File::create(root.path().join("6.1/kernel/packed.ko.gz")).unwrap();
        let mut packer = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        packer.write_all(&fixture::module("alias=x")).unwrap();
        packer.finish().unwrap();
        let kernel = Kernel::open(&root.path().join("6.1")).unwrap();
        let packed = kernel.index.module("packed").unwrap();
        assert_eq!(kernel.image_of(packed).unwrap(), fixture::module("alias=x"));
    }

    #[test]
    fn a_directory_with_no_kernel_or_two_is_refused_with_the_choice() {
        let root =
            tree(&[("lib/modules/6.1/kernel/a.ko", ""), ("lib/modules/6.12/kernel/a.ko", "")]);
        let error = Kernel::open(root.path()).err().unwrap().to_string();
        assert!(error.contains("lib/modules/6.1,") && error.contains("6.12"), "{error}");
        let error = Kernel::open(&root.path().join("lib")).err().unwrap().to_string();
        assert!(error.contains("is no lib/modules/VERSION directory"), "{error}");
        let error = Kernel::open(Path::new("9.9.9-none")).err().unwrap().to_string();
        assert!(error.starts_with("there is no kernel 9.9.9-none"), "{error}");
    }
}
