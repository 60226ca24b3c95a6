//! The end of a boot that did not work.

use std::fs::OpenOptions;
use std::io::Write;
use std::thread;
use std::time::Duration;

use rustix::system::{RebootCommand, reboot};

/// Restarts the machine; nothing is mounted that would want a sync.
pub fn restart() -> ! {
    loop {
        // Refused only without CAP_SYS_BOOT, as in a container: then there is nothing better.
        let _ = reboot(RebootCommand::Restart);
        thread::sleep(Duration::from_secs(1));
    }
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
