//! The end of a machine, whether it has served its purpose or could not boot.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, openat};
use rustix::system::{RebootCommand, reboot};

/// How a machine ends, in systemd's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Reboot,
    PowerOff,
    Halt,
    /// A restart that goes to a kernel which is in memory already, past the firmware.
    Kexec,
}

impl Verb {
    pub const ALL: [Self; 4] = [Self::Reboot, Self::PowerOff, Self::Halt, Self::Kexec];

    /// The word that systemd-shutdown is given, and gives on. `exit` is for containers; a machine
    /// that cannot exit is switched off, as systemd would.
    pub fn named(word: &str) -> Option<Self> {
        Some(match word {
            "reboot" => Self::Reboot,
            "poweroff" | "exit" => Self::PowerOff,
            "halt" => Self::Halt,
            "kexec" => Self::Kexec,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Reboot => "reboot",
            Self::PowerOff => "poweroff",
            Self::Halt => "halt",
            Self::Kexec => "kexec",
        }
    }

    /// The key of the kernel's emergency keyboard that comes closest; none for a machine that is
    /// to stand still with its last lines on the screen.
    pub fn emergency_key(self) -> Option<char> {
        match self {
            Self::Reboot | Self::Kexec => Some('b'),
            Self::PowerOff => Some('o'),
            Self::Halt => None,
        }
    }
}

/// Restarts the machine; nothing is mounted that would want a sync.
pub fn restart() -> ! {
    loop {
        // Refused only without CAP_SYS_BOOT, as in a container: then there is nothing better.
        let _ = reboot(RebootCommand::Restart);
        thread::sleep(Duration::from_secs(1));
    }
}

/// Ends the machine as `verb` says, without a sync. `parameter` is what some firmware wants to
/// know of a restart (`systemctl reboot --reboot-argument=`).
///
/// Returns the kernel's refusal, and nothing else: what it accepts, this thread does not live to
/// see. Halted machines of some architectures go on with their other threads.
pub fn end(verb: Verb, parameter: Option<&str>) -> io::Error {
    if let (Verb::Reboot, Some(parameter)) = (verb, parameter) {
        // One that the firmware does not know must not keep the machine from restarting.
        restart_with(parameter);
    }
    let command = match verb {
        Verb::Reboot => RebootCommand::Restart,
        Verb::PowerOff => RebootCommand::PowerOff,
        Verb::Halt => RebootCommand::Halt,
        Verb::Kexec => RebootCommand::Kexec,
    };
    match reboot(command) {
        Ok(()) => io::Error::other("the kernel took the order, and is still there"),
        Err(errno) => errno.into(),
    }
}

/// LINUX_REBOOT_CMD_RESTART2, which rustix does not have; returns only if it is refused.
fn restart_with(parameter: &str) {
    use linux_raw_sys::general::{
        LINUX_REBOOT_CMD_RESTART2, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2,
    };
    let Ok(parameter) = CString::new(parameter) else { return };
    // SAFETY: the string ends with a zero and lives until the call returns; the kernel copies it.
    unsafe {
        libc::syscall(
            libc::SYS_reboot,
            LINUX_REBOOT_MAGIC1,
            LINUX_REBOOT_MAGIC2,
            LINUX_REBOOT_CMD_RESTART2,
            parameter.as_ptr(),
        );
    }
}

/// Presses a key of the kernel's emergency keyboard (`/proc/sysrq-trigger`, which no setting
/// switches off), in the `/proc` that `proc` is.
pub fn press(proc: BorrowedFd<'_>, key: char) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let keyboard = openat(proc, "sysrq-trigger", flags, Mode::empty())?;
    File::from(keyboard).write_all(key.to_string().as_bytes())
}

/// Writes `text` to the kernel log, from where the kernel takes it to the console, with no lock
/// and no state of ours on the way.
pub fn last_words(text: &str) {
    for piece in text.as_bytes().chunks(900) {
        if let Ok(mut kmsg) = OpenOptions::new().write(true).open("/dev/kmsg") {
            let _ = kmsg.write_all(&[b"<2>", piece].concat());
        } else {
            let _ = std::io::stderr().write_all(piece);
        }
    }
}
