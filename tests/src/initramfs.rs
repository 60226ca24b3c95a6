//! Initramfs images for the tests: made by the product's builder, and sometimes damaged.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use landfall_initramfs::{Build, Signatures};

use crate::kernel::Kernel;
use crate::workshop;

#[derive(Clone, Debug)]
pub struct Initramfs {
    kernel: Kernel,
    signatures: Signatures,
    /// `None`: all Ethernet.
    drivers: Option<Vec<String>>,
    modules: Vec<String>,
    config: Option<String>,
    rescue_shell: bool,
    without: Vec<String>,
    additions: Vec<Addition>,
    ballast_mib: usize,
}

/// A file that is put over the image: path, mode, and where its contents come from.
#[derive(Clone, Debug)]
struct Addition {
    path: String,
    mode: u32,
    from: Contents,
}

#[derive(Clone, Debug)]
enum Contents {
    Text(String),
    Copy(PathBuf),
}

impl Initramfs {
    /// The virtio NIC as only network driver, and modules without signatures.
    pub fn new(kernel: Kernel) -> Self {
        Self {
            kernel,
            // Checking one costs an emulated machine some 60 ms.
            signatures: Signatures::Strip,
            drivers: Some(vec!["virtio_net".to_owned()]),
            modules: Vec::new(),
            config: None,
            rescue_shell: false,
            without: Vec::new(),
            additions: Vec::new(),
            ballast_mib: 0,
        }
    }

    /// What the builder gives when asked for nothing in particular, but for its level of
    /// compression: all Ethernet drivers, with their signatures.
    pub fn default_of_the_builder(kernel: Kernel) -> Self {
        Self { drivers: None, signatures: Signatures::default(), ..Self::new(kernel) }
    }

    pub fn signatures(mut self, signatures: Signatures) -> Self {
        self.signatures = signatures;
        self
    }

    /// Further modules.
    pub fn modules(mut self, names: &[&str]) -> Self {
        self.modules.extend(names.iter().map(|name| (*name).to_owned()));
        self
    }

    /// A built-in configuration.
    pub fn config(mut self, text: &str) -> Self {
        self.config = Some(text.to_owned());
        self
    }

    pub fn rescue_shell(mut self) -> Self {
        self.rescue_shell = true;
        self
    }

    /// Takes a module out again, as if somebody had packed the image without it.
    pub fn without_module(mut self, name: &str) -> Self {
        self.without.push(format!("{name}.ko"));
        self
    }

    /// Puts an executable text into the image, in place of what is there.
    pub fn script(self, path: &str, text: &str) -> Self {
        self.add(path, 0o755, Contents::Text(text.to_owned()))
    }

    /// Puts a text into the image, in place of what is there.
    pub fn file(self, path: &str, text: &str) -> Self {
        self.add(path, 0o644, Contents::Text(text.to_owned()))
    }

    /// Puts a program of the host into the image, in place of what is there.
    pub fn program(self, path: &str, from: &Path) -> Self {
        self.add(path, 0o755, Contents::Copy(from.to_owned()))
    }

    fn add(mut self, path: &str, mode: u32, from: Contents) -> Self {
        self.additions.push(Addition { path: path.to_owned(), mode, from });
        self
    }

    /// Adds an incompressible file of this size, whose memory must be free after the handover.
    pub fn ballast_mib(mut self, size: usize) -> Self {
        self.ballast_mib = size;
        self
    }

    /// The image's path; built unless one with the same contents is there.
    pub fn build(&self) -> Result<PathBuf> {
        let agent = workshop::program("landfall", self.kernel.arch())?;
        // By the sources of the builder too: it is part of what is tested.
        let builder = ["initramfs/src", "src/machine/modules"];
        let mut copies = Vec::new();
        for addition in &self.additions {
            if let Contents::Copy(file) = &addition.from {
                copies.push(workshop::fingerprint(file)?);
            }
        }
        let inputs = (
            format!("{self:?}"),
            copies,
            workshop::fingerprint(&agent)?,
            workshop::sources(&builder)?,
            self.kernel.release()?,
        );
        let name = format!("{}.img", self.kernel.series());
        workshop::once("initramfs", &name, &inputs, |path| self.make(&agent, path))
    }

    fn make(&self, agent: &Path, path: &Path) -> Result<()> {
        let config = match &self.config {
            Some(text) => {
                let file = path.with_extension("conf");
                fs::write(&file, text)?;
                Some(file)
            }
            None => None,
        };
        let mut image = Build::new(self.kernel.tree()?, agent, path);
        image.drivers.clone_from(&self.drivers);
        image.modules.clone_from(&self.modules);
        image.config = config;
        if self.rescue_shell {
            image.rescue_shell = Some(self.kernel.arch().busybox()?);
        }
        image.signatures = self.signatures;
        image.level = 3;
        landfall_initramfs::build(&image)?;
        if !self.without.is_empty() {
            let image = zstd::decode_all(&*fs::read(path)?).context("unpacking the image")?;
            fs::write(path, leave_out(&image, &self.without)?)?;
        }
        if self.ballast_mib > 0 {
            append(path, &ballast(self.ballast_mib))?;
        }
        if !self.additions.is_empty() {
            append(path, &additions(&self.additions)?)?;
        }
        Ok(())
    }
}

/// Copies somebody's image to `to`, and puts a file with this text over it.
pub fn amended(image: &Path, path: &str, text: &str, to: &Path) -> Result<()> {
    fs::copy(image, to).with_context(|| image.display().to_string())?;
    let from = Contents::Text(text.to_owned());
    append(to, &additions(&[Addition { path: path.to_owned(), mode: 0o644, from }])?)
}

/// Copies a cpio archive (format "newc", `cpio(5)`) but for the modules with one of these file
/// names, which must be there, and their lines in `modules.dep`.
fn leave_out(archive: &[u8], names: &[String]) -> Result<Vec<u8>> {
    const HEADER: usize = 110;
    let (mut kept, mut left_out, mut at) = (Vec::new(), 0, 0);
    while archive.get(at..at + 6) == Some(b"070701") {
        let field = |number: usize| -> Result<usize> {
            let from = at + 6 + 8 * number;
            let digits = archive.get(from..from + 8).context("a cut header")?;
            Ok(usize::from_str_radix(std::str::from_utf8(digits)?, 16)?)
        };
        let (size, name_length) = (field(6)?, field(11)?);
        let name = archive.get(at + HEADER..at + HEADER + name_length).context("a cut name")?;
        let name = std::str::from_utf8(name)?.trim_end_matches('\0');
        let data = (at + HEADER + name_length).next_multiple_of(4);
        let end = (data + size).next_multiple_of(4).min(archive.len());
        if names.iter().any(|wanted| name.rsplit('/').next() == Some(wanted)) {
            left_out += 1;
        } else {
            let from = kept.len();
            kept.extend_from_slice(&archive[at..end]);
            if name.ends_with("/modules.dep") {
                blank_lines(&mut kept[from + data - at..], names);
            }
        }
        at = end;
    }
    if left_out != names.len() {
        bail!("{left_out} of {names:?} are in the image");
    }
    Ok(kept)
}

/// Empties the lines about these modules, without a change of the file's length.
fn blank_lines(dep: &mut [u8], modules: &[String]) {
    for line in dep.split_mut(|byte| *byte == b'\n') {
        let path = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if modules.iter().any(|module| path.ends_with(format!("/{module}").as_bytes())) {
            line.fill(b'\n');
        }
    }
}

/// Puts an archive behind those of an image: the kernel unpacks one after the other, and what comes
/// later takes the place of what was there.
fn append(image: &Path, archive: &[u8]) -> Result<()> {
    let mut image = fs::OpenOptions::new().append(true).open(image)?;
    let length = image.metadata()?.len();
    image.write_all(&vec![0; (length.next_multiple_of(4) - length).try_into()?])?;
    Ok(image.write_all(archive)?)
}

/// A cpio archive with one file of pseudo-random bytes.
fn ballast(mib: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let noise = std::iter::from_fn(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some((state >> 24) as u8)
    });
    let noise: Vec<u8> = noise.take(mib << 20).collect();
    let mut archive = entry("ballast", 0o100_644, &noise);
    archive.extend(entry("TRAILER!!!", 0, &[]));
    archive
}

/// A cpio archive with these files and the folders that they are in.
fn additions(files: &[Addition]) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    for Addition { path, mode, from } in files {
        let mut folders: Vec<_> = Path::new(path).ancestors().skip(1).collect();
        folders.pop();
        for folder in folders.iter().rev() {
            archive.extend(entry(&folder.to_string_lossy(), 0o040_755, &[]));
        }
        let contents = match from {
            Contents::Text(text) => text.clone().into_bytes(),
            Contents::Copy(file) => fs::read(file).with_context(|| file.display().to_string())?,
        };
        archive.extend(entry(path, 0o100_000 | mode, &contents));
    }
    archive.extend(entry("TRAILER!!!", 0, &[]));
    Ok(archive)
}

/// One entry of a cpio archive (format "newc").
fn entry(name: &str, mode: u32, contents: &[u8]) -> Vec<u8> {
    let (size, name_size) = (contents.len() as u32, name.len() as u32 + 1);
    let fields = [1, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
    let mut bytes = b"070701".to_vec();
    for field in fields {
        bytes.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend_from_slice(contents);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_left_out_of_an_archive_and_the_rest_stays_as_it_was() {
        let one = ballast(0);
        let trailer =
            one.len() - (one.len() - one.windows(10).position(|w| w == b"TRAILER!!!").unwrap());
        let without = leave_out(&one, &["ballast".to_owned()]).unwrap();
        assert_eq!(without, one[trailer - 110..]);
        assert!(leave_out(&one, &["nbd.ko".to_owned()]).is_err());
    }

    #[test]
    fn a_module_is_left_out_of_the_index_as_well() {
        let mut dep = b"kernel/a/nbd.ko:\nkernel/xnbd.ko: kernel/a/nbd.ko\n".to_vec();
        blank_lines(&mut dep, &["nbd.ko".to_owned()]);
        let text = String::from_utf8(dep).unwrap();
        assert_eq!(text.trim_start(), "kernel/xnbd.ko: kernel/a/nbd.ko\n");
    }
}
