//! What a boot server serves, laid out as `initramfs/examples/README.md` tells an operator to, and
//! the configurations that lie there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::kernel::Kernel;
use crate::lab::{Lab, run};
use crate::workshop;

/// A configuration of `initramfs/examples` with these texts, which must be in it, replaced.
pub fn example(name: &str, changes: &[(&str, &str)]) -> Result<String> {
    let path = workshop::workspace().join("initramfs/examples").join(name);
    let mut text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    for (from, to) in changes {
        ensure!(text.contains(from), "{name} does not say {from:?}");
        text = text.replace(from, to);
    }
    Ok(text)
}

/// The folder that is served by TFTP and HTTP.
pub struct BootFolder(PathBuf);

impl BootFolder {
    /// With a kernel, its initramfs and a configuration in LTSP's place, and no loader.
    pub fn new(lab: &Lab, kernel: Kernel, initramfs: &Path, lts_conf: &str) -> Result<Self> {
        let folder = lab.served("tftp", &[("ltsp/amd64/lts.conf", lts_conf)])?;
        let files = [("vmlinuz", kernel.vmlinuz()?), ("initrd.img", initramfs.to_path_buf())];
        for (name, source) in files {
            fs::copy(&source, folder.join("ltsp/amd64").join(name))
                .with_context(|| source.display().to_string())?;
        }
        Ok(Self(folder))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// GRUB for BIOS and UEFI.
    pub fn grub(self, menu: &str) -> Result<Self> {
        for platform in ["i386-pc", "x86_64-efi"] {
            run(workshop::packaged_program("usr/bin/grub-mknetdir")?
                .arg(format!("--net-directory={}", self.0.display()))
                .args(["--subdir=/ltsp/amd64/grub", "--locales=", "--fonts="])
                // It is not where it was built for.
                .arg("--directory")
                .arg(workshop::packaged(&format!("usr/lib/grub/{platform}"))?))?;
        }
        self.file("ltsp/amd64/grub/grub.cfg", menu)
    }

    pub fn pxelinux(self, menu: &str) -> Result<Self> {
        self.copy("usr/lib/PXELINUX/pxelinux.0", "ltsp/amd64/pxelinux.0")?
            .copy("usr/lib/syslinux/modules/bios/ldlinux.c32", "ltsp/amd64/ldlinux.c32")?
            .file("ltsp/amd64/pxelinux.cfg/default", menu)
    }

    pub fn ipxe(self, script: &str) -> Result<Self> {
        self.copy("usr/lib/ipxe/undionly.kpxe", "undionly.kpxe")?
            .copy("usr/lib/ipxe/ipxe.efi", "ipxe.efi")?
            .file("boot.ipxe", script)
    }

    fn copy(self, packaged: &str, to: &str) -> Result<Self> {
        fs::copy(workshop::packaged(packaged)?, self.0.join(to))
            .with_context(|| packaged.to_owned())?;
        Ok(self)
    }

    fn file(self, path: &str, text: &str) -> Result<Self> {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().context("a file needs a folder")?)?;
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(self)
    }
}
