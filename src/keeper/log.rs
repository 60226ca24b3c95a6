//! The keeper's backend of `log`: the kernel log, from where journald and the console have it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::console::kmsg_records;

struct KernelLog;

static KERNEL_LOG: KernelLog = KernelLog;
static KMSG: OnceLock<File> = OnceLock::new();

/// Begins to speak; needs `/dev`, and never again.
pub fn start() {
    if let Ok(file) = OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = KMSG.set(file);
    }
    let _ = log::set_logger(&KERNEL_LOG);
    log::set_max_level(LevelFilter::Info);
}

/// With details: an outage of a day has tens of thousands of them, and the kernel log has room for
/// few.
pub fn set_debug(debug: bool) {
    log::set_max_level(if debug { LevelFilter::Debug } else { LevelFilter::Info });
}

impl Log for KernelLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Dependencies have module paths as targets.
        metadata.level() <= Level::Warn || !metadata.target().contains("::")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let priority = match record.level() {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug | Level::Trace => 7,
        };
        let Some(mut kmsg) = KMSG.get() else { return };
        for piece in kmsg_records(priority, record.target(), &record.args().to_string()) {
            let _ = kmsg.write_all(piece.as_bytes());
        }
    }

    fn flush(&self) {}
}
