//! The devices between a streamed root and the connection that it is read over: what is mounted
//! stays the same device while the server behind it is another one, or none at all.
//!
//! There are two of device-mapper's. The lower one is a multipath device with a single path. That
//! target keeps requests whose path has failed, those in flight included, and sends them down the
//! path of the next table (`queue_if_no_path`): so a lost server is a pause, and never an error, to
//! the file system above. No process is in the way of a read.
//!
//! The upper one, on which the root is, leads to the lower one, and in the end straight to the copy
//! in memory. A multipath table cannot be replaced by one of another type, and what keeps failed
//! requests has no place above memory: a page that is damaged there is an error for who reads it,
//! and for nobody else.
//!
//! The other ways were measured and left:
//! - RECONFIGURE of the same NBD device repeats a request in flight only when NBD's own timeout has
//!   passed, which is counted in whole seconds and rounded up by another; a timeout of one second
//!   would give up every server that is merely slow.
//! - A process between kernel and server repeats at once, but each read goes through it, and the
//!   root ends with it.

use crate::error::{Error, Result};
use crate::sys::dm::{Control, Device, Number, Table};

/// What `dmsetup ls` shows of the upper one.
const ROOT: &str = "landfall-root";
/// And of the lower one.
const PATH: &str = "landfall-path";
/// Not names of multipathd's, which takes care of `mpath-…` only.
const ROOT_UUID: &str = "LANDFALL-root";
const PATH_UUID: &str = "LANDFALL-path";

/// In the order in which they need each other; module `dm-multipath` asks for scsi_mod by itself.
pub const MODULES: [&str; 3] = ["dm-mod", "dm-multipath", "dm-round-robin"];

/// Both devices.
#[derive(Debug)]
pub struct Mapping {
    control: Control,
    root: Device,
    path: Device,
    sectors: u64,
}

impl Mapping {
    /// Makes the devices, over `path` and with the first `sectors` of it.
    pub fn create(control: Control, sectors: u64, path: Number) -> Result<Self> {
        // Left by a root handler that was stopped, and in nobody's way: they have no users.
        release(&control)?;
        let made = Self::make(&control, sectors, path);
        let (root, path) = made.inspect_err(|_| drop(release(&control)))?;
        Ok(Self { control, root, path, sectors })
    }

    fn make(control: &Control, sectors: u64, number: Number) -> Result<(Device, Device)> {
        let path = control.create(PATH, PATH_UUID)?;
        control.switch(&path, &multipath(sectors, number))?;
        let root = control.create(ROOT, ROOT_UUID)?;
        control.switch(&root, &linear(sectors, path.number()))?;
        Ok((root, path))
    }

    /// Those that are there.
    pub fn find(control: Control, sectors: u64) -> Result<Self> {
        let find = |name: &str| {
            control.find(name)?.ok_or_else(|| {
                Error::refused("looking for the root's devices", format!("{name} is not there"))
            })
        };
        let (root, path) = (find(ROOT)?, find(PATH)?);
        Ok(Self { control, root, path, sectors })
    }

    /// What is mounted.
    pub fn root(&self) -> &Device {
        &self.root
    }

    /// Lets all requests, those that wait and those to come, go to `path`.
    pub fn switch(&self, path: Number) -> Result<()> {
        let switched = self.control.switch(&self.path, &multipath(self.sectors, path));
        switched.inspect_err(|_| self.put_right())
    }

    /// Has everything ready for [`Self::settle`]: what takes long, and nobody has to stand still for.
    pub fn prepare_to_settle(&self, last: Number) -> Result<()> {
        let loaded = self
            .control
            .load(&self.path, &multipath(self.sectors, last))
            .and_then(|()| self.control.load(&self.root, &linear(self.sectors, last)));
        loaded.inspect_err(|_| self.forget_what_waits())
    }

    /// Lets all requests go to what was prepared, for good and with nothing in between. Waits for
    /// those in flight.
    pub fn settle(&self) -> Result<()> {
        // Requests that wait for a path are in flight to the upper device, which cannot be switched
        // before they have come back.
        let settled =
            self.control.resume(&self.path).and_then(|()| self.control.resume(&self.root));
        settled.inspect_err(|_| self.put_right())
    }

    /// After a switch that the kernel has begun and not done: that may leave a device suspended, and
    /// has taken from the table that stays the word that keeps requests while there is no path
    /// (`multipath_presuspend` in drivers/md/dm-mpath.c).
    fn put_right(&self) {
        // A table in waiting would make resuming another try.
        self.forget_what_waits();
        let resumed = self.control.resume(&self.path).and(self.control.resume(&self.root));
        let told = resumed.and_then(|()| self.control.message(PATH, "queue_if_no_path"));
        if let Err(error) = told {
            log::warn!(target: "root", "{error}; the next lost server may be an I/O error");
        }
    }

    /// A table that waits holds on to what it leads to: the memory of a whole image.
    fn forget_what_waits(&self) {
        self.control.forget(&self.root);
        self.control.forget(&self.path);
    }

    /// After [`Self::settle`] nothing leads through the lower device.
    pub fn tidy_up(&self) {
        if let Err(error) = self.control.remove(PATH) {
            log::debug!(target: "root", "{error}");
        }
    }

    /// Whether the path has failed and requests wait; there may be none that has noticed yet.
    pub fn has_failed(&self) -> Result<bool> {
        self.control.status(&self.path).map(|status| path_has_failed(&status))
    }
}

/// Gives back the devices of a root that nobody has mounted, if there are any.
pub fn release(control: &Control) -> Result<()> {
    for name in [ROOT, PATH] {
        if control.find(name)?.is_some() {
            control.remove(name)?;
        }
    }
    Ok(())
}

fn linear(sectors: u64, to: Number) -> Table {
    Table { sectors, target: "linear", parameters: format!("{to} 0") }
}

/// Multipath's parameters: features, no hardware handler, one group of one path.
///
/// `queue_mode bio` because there is nothing below that would gain from requests, and because a
/// table of requests could not be stacked on any device.
fn multipath(sectors: u64, path: Number) -> Table {
    let parameters = format!("3 queue_if_no_path queue_mode bio 0 1 1 round-robin 0 1 1 {path} 1");
    Table { sectors, target: "multipath", parameters }
}

/// `2 0 0 0 1 1 E 0 1 0 43:0 F 1`: behind the path's number is A for active, F for failed.
fn path_has_failed(status: &str) -> bool {
    status.split_ascii_whitespace().skip_while(|word| !word.contains(':')).nth(1) == Some("F")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_path_is_read_from_the_status() {
        let cases = [
            ("2 1 0 0 1 1 E 0 1 0 43:0 A 0 ", false),
            ("2 0 0 0 1 1 E 0 1 0 43:0 F 1 ", true),
            ("2 0 1 0 1 1 A 0 1 0 259:12 F 3 0 ", true),
            ("", false),
        ];
        for (status, failed) in cases {
            assert_eq!(path_has_failed(status), failed, "{status}");
        }
    }

    #[test]
    fn the_table_is_the_kernels_grammar() {
        let table = multipath(8, Number { major: 43, minor: 64 });
        let expected = "3 queue_if_no_path queue_mode bio 0 1 1 round-robin 0 1 1 43:64 1";
        assert_eq!((table.target, table.parameters.as_str()), ("multipath", expected));
    }
}
