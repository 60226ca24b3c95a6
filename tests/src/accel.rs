//! Whether this host can run guests with KVM, found out by doing it.
//!
//! `/dev/kvm` exists on hosts where a guest then hangs in its first thousand instructions, so only
//! a kernel that has come up counts.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::console::Console;
use crate::kernel::Kernel;
use crate::sys;
use crate::workshop;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    Kvm,
    /// QEMU's own translation; a boot takes seconds all the same.
    Tcg,
    /// One CPU that executes one instruction a nanosecond of guest time: repeatable, slow.
    Counted,
}

impl Accel {
    /// The best that works here, by `LANDFALL_ACCEL` or by a trial boot, once for each process.
    pub fn best() -> Self {
        static BEST: OnceLock<Accel> = OnceLock::new();
        *BEST.get_or_init(|| match std::env::var("LANDFALL_ACCEL").as_deref() {
            Ok("kvm") => Self::Kvm,
            Ok("tcg") => Self::Tcg,
            _ if Path::new("/dev/kvm").exists() => Self::tried(),
            _ => Self::Tcg,
        })
    }

    /// By a trial boot, whose answer is good until the host is started again.
    fn tried() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let note = workshop::dir().join(format!("accel-{}", boot.trim()));
        match fs::read_to_string(&note).as_deref() {
            Ok("kvm") => return Self::Kvm,
            Ok("tcg") => return Self::Tcg,
            _ => {}
        }
        let accel = if kvm_boots_a_kernel().is_ok() { Self::Kvm } else { Self::Tcg };
        // Without the note the next run asks again.
        let _ = fs::write(note, accel.name());
        accel
    }

    /// As `LANDFALL_ACCEL` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg | Self::Counted => "tcg",
        }
    }

    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &["-accel", "kvm", "-cpu", "host"],
            // A thread for each CPU may run a breakpoint that another has just patched away again,
            // which is a dead kernel once in some hundred boots; tests fill the host as it is.
            Self::Tcg => &["-accel", "tcg,thread=single"],
            Self::Counted => &["-accel", "tcg,thread=single", "-icount", "shift=0"],
        }
    }
}

/// A kernel without a root panics after a second; one that hangs never says so.
fn kvm_boots_a_kernel() -> Result<()> {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-nodefaults", "-display", "none", "-no-reboot", "-machine", "q35", "-m", "256"])
        .args(Accel::Kvm.arguments())
        .args(["-serial", "stdio", "-append", "console=ttyS0 panic=-1", "-kernel"])
        .arg(Kernel::V6_12.vmlinuz()?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut qemu = sys::bind_to_this_thread(&mut command).spawn()?;
    let console = Console::default();
    let Some(output) = qemu.stdout.take() else { bail!("no standard output") };
    console.follow_console(output, fs::File::create("/dev/null")?, false);
    let result = console
        .line("the kernel's panic", Duration::from_secs(10), |line| line.contains("Kernel panic"));
    qemu.kill()?;
    qemu.wait()?;
    result.map(drop)
}
