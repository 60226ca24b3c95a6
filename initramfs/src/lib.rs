//! Builds netboot initramfs images: the agent, the kernel modules that a boot can need with their
//! firmware, certificates, and a configuration if one is given, in one zstd-compressed cpio.
//!
//! Needs no rights and runs no program. The same inputs give the same bytes. Modules are stored
//! uncompressed: the archive's own compression packs them as small as `.ko.xz`, and unpacking
//! them takes the kernel a quarter of the time.
//!
//! `kernel` finds a kernel's modules, `selection` chooses among them, `firmware` looks up what they
//! ask for, `cpio` writes; this file puts the parts together. `list` tells others what was chosen.

pub mod arguments;
mod cpio;
mod elf;
mod firmware;
mod kernel;
mod list;
mod selection;
mod summary;
mod uki;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::num::NonZero;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, bail};
use landfall::machine::modules::{Index, Module, Softdep};

use crate::cpio::Archive;
use crate::elf::{ModuleInfo, machine_name, require_static, without_debug_data, without_signature};
use crate::firmware::Firmware;
use crate::kernel::{Kernel, alias_lines};
use crate::selection::{Request, Selection, choose, dependencies, plain_path};

pub use crate::list::{FirmwareFiles, List};
pub use crate::summary::Summary;
pub use crate::uki::{Uki, unify};

/// zstd's highest without `--ultra`.
pub const DEFAULT_LEVEL: i32 = 19;

/// 8 MiB. The kernel allocates the window beside the unpacked image, on machines that may be
/// small, and takes 128 MiB at most.
const WINDOW_LOG: u32 = 23;

/// What goes into an image, and where the image goes.
#[derive(Clone, Debug)]
pub struct Build {
    /// A version, a `lib/modules/VERSION` directory, or an unpacked package's root.
    pub kernel: PathBuf,
    pub output: PathBuf,
    /// The static `landfall` binary, which becomes `/init`.
    pub agent: PathBuf,
    /// Names or globs of network drivers; `None` is all Ethernet.
    pub drivers: Option<Vec<String>>,
    /// Further modules: names, globs, or directories of the tree that end with `/`.
    pub modules: Vec<String>,
    /// Directories like `/lib/firmware`, looked through before the system's own.
    pub firmware: Vec<PathBuf>,
    /// PEM files of certificate authorities.
    pub ca: Vec<PathBuf>,
    /// An lts.conf for nodes that find none on the network.
    pub config: Option<PathBuf>,
    /// A static busybox.
    pub rescue_shell: Option<PathBuf>,
    /// Files or directories of the builder's system, and where they go.
    pub add: Vec<(PathBuf, String)>,
    pub signatures: Signatures,
    pub level: i32,
    /// Modification time of everything, seconds since 1970.
    pub epoch: u32,
}

/// What happens to the signatures of modules, and to their type and debug information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signatures {
    #[default]
    Keep,
    /// For test machines: under emulation loading takes a tenth of the time (measured by counting
    /// instructions), and it taints the kernel.
    Strip,
}

impl Build {
    /// All Ethernet drivers and nothing that is optional.
    pub fn new(
        kernel: impl Into<PathBuf>,
        agent: impl Into<PathBuf>,
        output: impl Into<PathBuf>,
    ) -> Self {
        Self {
            kernel: kernel.into(),
            output: output.into(),
            agent: agent.into(),
            drivers: None,
            modules: Vec::new(),
            firmware: Vec::new(),
            ca: Vec::new(),
            config: None,
            rescue_shell: None,
            add: Vec::new(),
            signatures: Signatures::Keep,
            level: DEFAULT_LEVEL,
            epoch: 0,
        }
    }
}

/// Builds the image. An output that exists is replaced at the end, and only by a complete one.
pub fn build(build: &Build) -> Result<Summary> {
    let kernel = Kernel::open(&build.kernel)?;
    let request = Request {
        drivers: build.drivers.as_deref(),
        extra: &build.modules,
        keyboard: build.rescue_shell.is_some(),
    };
    let selection = choose(&kernel.index, &request)
        .with_context(|| format!("choosing modules of Linux {}", kernel.release))?;

    let mut archive = Archive::default();
    let mut summary = Summary {
        release: kernel.release.clone(),
        absent: selection.absent.iter().map(ToString::to_string).collect(),
        signatures: build.signatures,
        level: build.level,
        ..Summary::default()
    };
    add_skeleton(&mut archive, &kernel.release)?;
    let infos = add_modules(&mut archive, &kernel, &selection, build.signatures, &mut summary)?;
    add_indexes(&mut archive, &kernel, &selection, &infos)?;
    add_firmware(&mut archive, &infos, &Firmware::new(&build.firmware), &mut summary)?;
    // Every module of a kernel is for one machine, so any will do.
    let machine = infos.values().map(|info| info.machine).next();
    summary.agent_bytes =
        add_program(&mut archive, "init", &build.agent, machine).context("adding the agent")?;
    if let Some(busybox) = &build.rescue_shell {
        add_rescue_shell(&mut archive, busybox, machine).context("adding the rescue shell")?;
    }
    add_configuration(&mut archive, build)?;
    for (source, destination) in &build.add {
        add_tree(&mut archive, source, destination)
            .with_context(|| format!("adding {}", source.display()))?;
    }

    summary.unpacked_bytes = archive.content_bytes();
    summary.packed_bytes = write_image(&archive, build)?;
    Ok(summary)
}

fn add_skeleton(archive: &mut Archive, release: &str) -> Result<()> {
    for directory in ["dev", "etc", "proc", "root", "run", "sys", "sysroot"] {
        archive.directory(directory, 0o755)?;
    }
    archive.directory("tmp", 0o1777)?;
    // Without these two a program that the kernel starts has no standard descriptors, and the
    // standard library aborts before `main`. The third is for messages before devtmpfs.
    archive.character_device("dev/console", 0o600, (5, 1))?;
    archive.character_device("dev/null", 0o666, (1, 3))?;
    archive.character_device("dev/kmsg", 0o644, (1, 11))?;
    let version = env!("CARGO_PKG_VERSION");
    let text = format!(
        "NAME=\"Landfall\"\nID=landfall\nVERSION=\"{version}\"\nVERSION_ID=\"{version}\"\n\
         PRETTY_NAME=\"Landfall {version} for Linux {release}\"\n"
    );
    archive.file("etc/initrd-release", 0o644, text.into_bytes())
}

/// Gives back what each module says about itself, by name.
fn add_modules(
    archive: &mut Archive,
    kernel: &Kernel,
    selection: &Selection,
    signatures: Signatures,
    summary: &mut Summary,
) -> Result<BTreeMap<String, ModuleInfo>> {
    let mut infos = BTreeMap::new();
    for module in selection.modules.iter().filter_map(|name| kernel.index.module(name)) {
        let (mut image, info) = read_module(kernel, module)?;
        if signatures == Signatures::Strip {
            image = without_debug_data(without_signature(&image))
                .with_context(|| format!("stripping {}", module.path.display()))?;
        }
        summary.modules.push((module.name.clone(), image.len() as u64));
        let path = format!("lib/modules/{}/{}", kernel.release, plain_path(&module.path));
        archive.file(&path, 0o644, image)?;
        infos.insert(module.name.clone(), info);
    }
    Ok(infos)
}

/// A module's file, decompressed, and what it says about itself.
fn read_module(kernel: &Kernel, module: &Module) -> Result<(Vec<u8>, ModuleInfo)> {
    let image = kernel.image_of(module)?;
    let info =
        ModuleInfo::read(&image).with_context(|| format!("reading {}", module.path.display()))?;
    if info.release != kernel.release {
        bail!(
            "{} was built for Linux {}, but its directory is that of {}: the agent would not \
             find it",
            module.path.display(),
            info.release,
            kernel.release
        );
    }
    Ok((image, info))
}

/// depmod's files, for the modules of this image only.
fn add_indexes(
    archive: &mut Archive,
    kernel: &Kernel,
    selection: &Selection,
    infos: &BTreeMap<String, ModuleInfo>,
) -> Result<()> {
    let (mut dep, mut alias, mut softdep) = (String::new(), String::new(), String::new());
    for (name, info) in infos {
        let Some(module) = kernel.index.module(name) else { continue };
        dep.push_str(&dep_line(&kernel.index, name));
        alias.push_str(&alias_lines(name, info));
        softdep.push_str(&softdep_line(name, &module.softdep));
        if let Some(ours) = selection.softdeps.get(name.as_str()) {
            softdep.push_str(&softdep_line(name, ours));
        }
    }
    // All keys but aliases are descriptions and parameters, for modinfo(8).
    let builtin_modinfo: String = kernel
        .builtin_modinfo
        .split_inclusive('\0')
        .filter(|entry| entry.split('=').next().is_some_and(|key| key.ends_with(".alias")))
        .collect();
    for (name, text) in [
        ("modules.dep", dep),
        ("modules.alias", alias),
        ("modules.softdep", softdep),
        ("modules.builtin", kernel.builtin.clone()),
        ("modules.builtin.modinfo", builtin_modinfo),
    ] {
        let path = format!("lib/modules/{}/{name}", kernel.release);
        archive.file(&path, 0o644, text.into_bytes())?;
    }
    Ok(())
}

/// All that a module needs, the first to be loaded last, as depmod writes it: the modprobe of a
/// rescue shell reads this file too.
fn dep_line(index: &Index, name: &str) -> String {
    let Some(module) = index.module(name) else { return String::new() };
    let mut line = format!("{}:", plain_path(&module.path));
    for need in dependencies(index, module).iter().rev() {
        line.push(' ');
        line.push_str(&plain_path(&need.path));
    }
    line.push('\n');
    line
}

fn softdep_line(name: &str, softdep: &Softdep) -> String {
    let mut line = String::new();
    for (section, names) in [("pre:", &softdep.pre), ("post:", &softdep.post)] {
        if !names.is_empty() {
            line.push_str(&format!(" {section} {}", names.join(" ")));
        }
    }
    if line.is_empty() { line } else { format!("softdep {name}{line}\n") }
}

fn add_firmware(
    archive: &mut Archive,
    infos: &BTreeMap<String, ModuleInfo>,
    firmware: &Firmware,
    summary: &mut Summary,
) -> Result<()> {
    for (module, info) in infos {
        for name in &info.firmware {
            match firmware.find(name) {
                Some((name, path)) => {
                    let content =
                        fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
                    summary.firmware.insert(name.clone(), content.len() as u64);
                    archive.file(&format!("lib/firmware/{name}"), 0o644, content)?;
                }
                None => {
                    summary.missing_firmware.entry(module.clone()).or_default().push(name.clone())
                }
            }
        }
    }
    Ok(())
}

/// `machine` is the modules' architecture; `None` when all are built in. Gives the size in bytes.
fn add_program(
    archive: &mut Archive,
    path: &str,
    source: &Path,
    machine: Option<u16>,
) -> Result<u64> {
    let program = fs::read(source).with_context(|| format!("reading {}", source.display()))?;
    let own = require_static(&program).with_context(|| format!("using {}", source.display()))?;
    if let Some(kernels) = machine
        && kernels != own
    {
        bail!(
            "{} is for {}, the kernel's modules are for {}",
            source.display(),
            machine_name(own),
            machine_name(kernels)
        );
    }
    let bytes = program.len() as u64;
    archive.file(path, 0o755, program)?;
    Ok(bytes)
}

/// What a person needs to find out why a machine does not boot. Names that this busybox lacks say
/// so when they are called.
#[rustfmt::skip]
const APPLETS: [&str; 44] = [
    "cat", "chroot", "clear", "cp", "cut", "dd", "df", "dmesg", "du", "echo", "env", "find", "free",
    "grep", "head", "hexdump", "ifconfig", "ip", "kill", "less", "ln", "ls", "lsmod", "mkdir",
    "modprobe", "more", "mount", "mv", "nc", "ping", "poweroff", "ps", "reboot", "rm", "sed", "sh",
    "sleep", "tail", "tftp", "umount", "uname", "vi", "wc", "wget",
];

fn add_rescue_shell(archive: &mut Archive, busybox: &Path, machine: Option<u16>) -> Result<()> {
    add_program(archive, "bin/busybox", busybox, machine)?;
    for applet in APPLETS {
        archive.symlink(&format!("bin/{applet}"), "busybox")?;
    }
    Ok(())
}

fn add_configuration(archive: &mut Archive, build: &Build) -> Result<()> {
    let mut bundle = Vec::new();
    for path in &build.ca {
        let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let begin = b"-----BEGIN CERTIFICATE-----";
        if !text.windows(begin.len()).any(|window| window == begin) {
            bail!("{} has no certificate in PEM form", path.display());
        }
        bundle.extend_from_slice(&text);
        // A file without a final newline would spoil the next one's first line.
        bundle.push(b'\n');
    }
    if !bundle.is_empty() {
        archive.file("etc/ssl/certs/ca-certificates.crt", 0o644, bundle)?;
    }
    if let Some(path) = &build.config {
        let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        // It may hold the hash of a password.
        archive.file("etc/lts.conf", 0o600, text)?;
    }
    Ok(())
}

/// A directory goes in with everything in it; links stay links.
fn add_tree(archive: &mut Archive, source: &Path, destination: &str) -> Result<()> {
    let meta = fs::symlink_metadata(source)?;
    let permissions = meta.permissions().mode() & 0o7777;
    if meta.is_symlink() {
        let target = fs::read_link(source)?;
        archive.symlink(destination, target.to_str().context("its target is not UTF-8")?)
    } else if meta.is_dir() {
        if !destination.trim_matches('/').is_empty() {
            archive.directory(destination, permissions)?;
        }
        for entry in fs::read_dir(source)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_str().with_context(|| format!("the name {name:?} is not UTF-8"))?;
            add_tree(
                archive,
                &entry.path(),
                &format!("{}/{name}", destination.trim_end_matches('/')),
            )?;
        }
        Ok(())
    } else if meta.is_file() {
        archive.file(destination, permissions, fs::read(source)?)
    } else {
        bail!("{} is neither a file, a directory nor a link", source.display())
    }
}

/// Gives the size of the image in bytes.
fn write_image(archive: &Archive, build: &Build) -> Result<u64> {
    let mut partial = build.output.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let doing = || format!("writing {}", partial.display());
    let file = File::create(&partial).with_context(doing)?;
    let written = compress(archive, build.level, build.epoch, BufWriter::new(file))
        .with_context(doing)
        .and_then(|_| Ok(fs::metadata(&partial)?.len()));
    if written.is_err() {
        // The error at hand says more than one about this would.
        let _ = fs::remove_file(&partial);
    }
    let bytes = written?;
    fs::rename(&partial, &build.output)
        .with_context(|| format!("replacing {}", build.output.display()))?;
    Ok(bytes)
}

/// zstd cuts its input into jobs whose size depends on the level alone, so the bytes do not depend
/// on the number of threads, as long as there is one: without any it does not cut.
fn compress(archive: &Archive, level: i32, epoch: u32, to: impl Write) -> Result<()> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    compress_with(archive, level, epoch, to, u32::try_from(threads)?)
}

fn compress_with(
    archive: &Archive,
    level: i32,
    epoch: u32,
    to: impl Write,
    threads: u32,
) -> Result<()> {
    let mut encoder = zstd::Encoder::new(to, level)?;
    encoder.window_log(WINDOW_LOG)?;
    encoder.multithread(threads)?;
    // TFTP has no checksum beyond UDP's: the kernel should notice a damaged image.
    encoder.include_checksum(true)?;
    archive.write(&mut encoder, epoch)?;
    encoder.finish()?.flush().context("flushing the image")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Several megabytes that compress, so that zstd has more than one job at a low level.
    fn archive() -> Archive {
        let mut archive = Archive::default();
        let mut state = 1_u32;
        for number in 0..40 {
            let content = (0..200_000)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 28) as u8
                })
                .collect();
            archive.file(&format!("lib/{number}"), 0o644, content).unwrap();
        }
        archive
    }

    /// Whoever rebuilds an image to compare it has another number of processors.
    #[test]
    fn the_number_of_threads_does_not_change_a_byte() {
        let archive = archive();
        let with = |threads| {
            let mut image = Vec::new();
            compress_with(&archive, 1, 7, &mut image, threads).unwrap();
            image
        };
        let one = with(1);
        assert!(one == with(2) && one == with(5));
        let mut plain = Vec::new();
        archive.write(&mut plain, 7).unwrap();
        assert!(zstd::decode_all(&*one).unwrap() == plain);
    }

    #[test]
    fn soft_dependencies_are_written_as_they_are_read() {
        let softdep = Softdep { pre: vec!["a".into(), "b".into()], post: vec!["c".into()] };
        assert_eq!(softdep_line("m", &softdep), "softdep m pre: a b post: c\n");
        assert_eq!(softdep_line("m", &Softdep::default()), "");
    }
}
