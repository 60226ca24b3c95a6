//! Small root images whose init is the probe, in every format that a root comes in.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::checksum::{self, TreeDigest};
use crate::disk::write_table;
use crate::kernel::Arch;
use crate::lab::{Lab, run};
use crate::workshop;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// With the compressor's name.
    Squashfs(&'static str),
    Erofs,
    Ext4,
    /// A GPT disk: a small EFI system partition, then a root partition with a squashfs.
    Gpt,
}

/// Beginning of the second partition of [`Format::Gpt`], in bytes.
const ROOT_OFFSET: u64 = 2 << 20;

/// A tree in the lab's folder that becomes an image: the probe as `/sbin/init`, a shell and the
/// usual tools (a static busybox) under `/bin`, and a little of what a Debian has in `/etc`.
pub struct ProbeRoot {
    tree: PathBuf,
    image: PathBuf,
}

impl ProbeRoot {
    pub fn new(lab: &Lab) -> Result<Self> {
        Self::for_machine(lab, Arch::Amd64)
    }

    pub fn for_machine(lab: &Lab, arch: Arch) -> Result<Self> {
        let tree = lab.file("root.tree");
        for folder in [
            "bin", "dev", "etc", "home", "mnt", "proc", "root", "run", "sbin", "srv", "sys", "tmp",
            "var",
        ] {
            fs::create_dir_all(tree.join(folder))?;
        }
        let root = Self { tree, image: lab.file("root.img") };
        root.copy(&workshop::program("probe", arch)?, "sbin/init")?;
        root.copy(&arch.busybox()?, "bin/busybox").context("package busybox-static")?;
        for tool in ["sh", "cat", "cp", "echo", "env", "ln", "mkdir", "sed", "sleep", "touch"] {
            symlink("busybox", root.tree.join("bin").join(tool))?;
        }
        root.file("etc/hostname", "probe\n")?
            .file("etc/hosts", "127.0.0.1 localhost\n127.0.0.2 probe\n")?
            .file("etc/fstab", "/dev/sda1 / ext4 defaults 0 1\n")?
            .file("etc/motd", "from the image\n")?
            .file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    }

    pub fn file(self, path: &str, text: impl AsRef<[u8]>) -> Result<Self> {
        let target = self.tree.join(path);
        fs::create_dir_all(target.parent().context("a file needs a folder")?)?;
        fs::write(&target, text).with_context(|| target.display().to_string())?;
        Ok(self)
    }

    pub fn without(self, path: &str) -> Result<Self> {
        let path = self.tree.join(path);
        fs::remove_file(&path).with_context(|| path.display().to_string())?;
        Ok(self)
    }

    /// Adds files of one MiB under `/srv` that no compressor makes smaller; the same bytes each
    /// time.
    pub fn payload_mib(self, count: u32) -> Result<Self> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for number in 0..count {
            let mut bytes = Vec::with_capacity(1 << 20);
            while bytes.len() < 1 << 20 {
                // xorshift64: not for secrets, and incompressible.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                bytes.extend_from_slice(&state.to_le_bytes());
            }
            fs::write(self.tree.join(format!("srv/{number:03}")), bytes)?;
        }
        Ok(self)
    }

    /// Of what will be in the image; to be compared with [`crate::Node::tree`] of `/rofs`.
    pub fn digest(&self) -> Result<TreeDigest> {
        Ok(checksum::tree(&self.tree)?)
    }

    /// A squashfs with zstd, the usual case.
    pub fn pack(self) -> Result<PathBuf> {
        self.pack_as(Format::Squashfs("zstd"))
    }

    pub fn pack_as(self, format: Format) -> Result<PathBuf> {
        let _ = fs::remove_file(&self.image);
        match format {
            Format::Squashfs(compressor) => squashfs(&self.tree, &self.image, compressor)?,
            Format::Erofs => run(Command::new("mkfs.erofs")
                .args(["--quiet", "--all-root", "-zlz4"])
                .arg(&self.image)
                .arg(&self.tree))?,
            Format::Ext4 => {
                let size_mib = (checksum::tree(&self.tree)?.bytes >> 20) + 16;
                run(Command::new("mke2fs")
                    .args(["-q", "-t", "ext4", "-E", "root_owner=0:0", "-d"])
                    .arg(&self.tree)
                    .arg(&self.image)
                    .arg(format!("{size_mib}M")))?;
            }
            Format::Gpt => self.pack_disk()?,
        }
        fs::remove_dir_all(&self.tree)?;
        Ok(self.image)
    }

    fn pack_disk(&self) -> Result<()> {
        let partition = self.image.with_extension("part");
        squashfs(&self.tree, &partition, "zstd")?;
        let content = fs::read(&partition)?;
        fs::remove_file(&partition)?;
        let root_size = (content.len() as u64).next_multiple_of(1 << 20);
        let mut disk = fs::File::create(&self.image)?;
        // One MiB behind the root for the second copy of the table.
        disk.set_len(ROOT_OFFSET + root_size + (1 << 20))?;
        disk.seek(SeekFrom::Start(ROOT_OFFSET))?;
        disk.write_all(&content)?;

        let table = format!(
            "label: gpt\nunit: sectors\n\
             start=2048, size=2048, type=uefi, name=esp\n\
             start={}, size={}, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=root\n",
            ROOT_OFFSET / 512,
            root_size / 512,
        );
        write_table(&self.image, &table)
    }

    fn copy(&self, from: &Path, to: &str) -> Result<()> {
        let to = self.tree.join(to);
        fs::copy(from, &to).with_context(|| from.display().to_string())?;
        fs::set_permissions(&to, PermissionsExt::from_mode(0o755))?;
        Ok(())
    }
}

/// What must be found in a folder of a squashfs, by unpacking it once; to be compared with what a
/// machine says of the same folder of `/rofs`.
pub fn digest_of(image: &Path, folder: &str) -> Result<TreeDigest> {
    let inputs = (workshop::fingerprint(&fs::canonicalize(image)?)?, folder);
    let note = workshop::once("roots", &format!("{folder}.digest"), &inputs, |note| {
        let tree = note.with_extension("tree");
        let _ = fs::remove_dir_all(&tree);
        // Only this folder: an ordinary user's namespace cannot make the devices of another.
        let mut unsquashfs = Command::new("unsquashfs");
        unsquashfs.args(["-no-progress", "-quiet", "-dest"]).arg(&tree).arg(image).arg(folder);
        run(&mut unsquashfs)?;
        let digest = checksum::tree(&tree.join(folder))?;
        fs::remove_dir_all(&tree)?;
        Ok(fs::write(note, serde_json::to_string(&digest)?)?)
    })?;
    Ok(serde_json::from_str(&fs::read_to_string(note)?)?)
}

fn squashfs(tree: &Path, image: &Path, compressor: &str) -> Result<()> {
    let mut command = Command::new("mksquashfs");
    command.arg(tree).arg(image).args(["-comp", compressor, "-all-root", "-noappend"]);
    command.args(["-quiet", "-no-progress"]);
    if compressor == "zstd" {
        command.args(["-Xcompression-level", "3"]);
    }
    run(&mut command)
}
