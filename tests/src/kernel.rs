//! Debian's kernels, and the architectures of the machines that they run on.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::accel::Accel;
use crate::workshop;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    /// As dpkg calls it.
    pub fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As rustc calls the static programs for it.
    pub fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }

    /// The shell and the tools of a probe root; a static busybox.
    pub fn busybox(self) -> Result<PathBuf> {
        match self {
            // Whoever runs the tests has the package installed.
            Self::Amd64 => Ok(PathBuf::from("/bin/busybox")),
            Self::Arm64 => workshop::program("busybox", self),
        }
    }

    pub(crate) fn qemu(self) -> &'static str {
        match self {
            Self::Amd64 => "qemu-system-x86_64",
            Self::Arm64 => "qemu-system-aarch64",
        }
    }

    /// The machine, its processor, and who executes its instructions.
    pub(crate) fn board(self, accel: Accel) -> Vec<&'static str> {
        let (machine, native, emulated) = match self {
            Self::Amd64 => ("q35", cfg!(target_arch = "x86_64"), None),
            // The quickest to emulate: a kernel is up in two thirds of the time that a cortex-a57
            // takes. `max` spends twice as long again on checksums of pointers.
            Self::Arm64 => {
                ("virt,gic-version=3", cfg!(target_arch = "aarch64"), Some("cortex-a72"))
            }
        };
        let accel = if native || accel != Accel::Kvm { accel } else { Accel::Tcg };
        let mut words = vec!["-machine", machine];
        words.extend(accel.arguments());
        if let Some(cpu) = emulated.filter(|_| accel != Accel::Kvm) {
            words.extend(["-cpu", cpu]);
        }
        words
    }

    /// What such a machine's kernel must be told besides what a test says: where its console is.
    pub(crate) fn cmdline(self) -> &'static str {
        match self {
            // Without no_timer_check a boot on a busy host may end at "IO-APIC + timer doesn't
            // work". To clear all memory that is taken costs an emulated one a twentieth of its time.
            Self::Amd64 => "console=ttyS0 no_timer_check init_on_alloc=0",
            Self::Arm64 => "console=ttyAMA0",
        }
    }

    /// The probe's port (`protocol::PORT`), on the chardev `control`. The virt machine has but one
    /// serial port of its own.
    pub(crate) fn control_port(self) -> [&'static str; 2] {
        match self {
            Self::Amd64 => ["-serial", "chardev:control"],
            Self::Arm64 => ["-device", "pci-serial,chardev=control,addr=1"],
        }
    }
}

/// The standard kernels of two releases on a PC, and the newer one's on arm64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    V6_1,
    V6_12,
    Arm64,
}

impl Kernel {
    pub const ALL: [Self; 3] = [Self::V6_1, Self::V6_12, Self::Arm64];
    /// Those that the Debian roots have modules of.
    pub const AMD64: [Self; 2] = [Self::V6_1, Self::V6_12];

    pub fn arch(self) -> Arch {
        match self {
            Self::V6_1 | Self::V6_12 => Arch::Amd64,
            Self::Arm64 => Arch::Arm64,
        }
    }

    /// Names its folder and its images.
    pub fn series(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Arm64 => "6.12-arm64",
        }
    }

    /// The unpacked package, with `lib/modules/RELEASE` below.
    pub fn tree(self) -> Result<PathBuf> {
        workshop::prepared(&format!("kernels/{}", self.series()))
    }

    pub fn vmlinuz(self) -> Result<PathBuf> {
        workshop::prepared(&format!("kernels/{}/vmlinuz", self.series()))
    }

    /// What starts it in a unified kernel image: systemd's stub of the same release of Debian.
    pub fn stub(self) -> Result<PathBuf> {
        let name = match self.arch() {
            Arch::Amd64 => "linuxx64.efi.stub",
            Arch::Arm64 => "linuxaa64.efi.stub",
        };
        workshop::prepared(&format!("stubs/{}/{name}", self.series()))
    }

    /// As `uname -r` says.
    pub fn release(self) -> Result<String> {
        let image = fs::read_link(self.vmlinuz()?)?;
        let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(name.trim_start_matches("vmlinuz-").to_owned())
    }
}
