//! Loads modules: for the devices that are there, for those that appear, and by name.
//!
//! One at a time and each once. Loading in parallel was measured and gained nothing on small
//! machines, where nearly all of the time is the kernel's signature check; what can run beside it
//! is the network, on the first link while later drivers still load.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::console;
use crate::error::{Cause, Error, Result};
use crate::sys::uevent::{Listener, Received};

use super::devices::{self, Device};
use super::installed::Installed;
use super::{Found, Index, Module, normalized};

/// What a driver may take to start before it is named in a warning.
const PATIENCE: Duration = Duration::from_secs(30);

/// Passes over sysfs in one coldplug. Each driver may bring up a bus with further devices; three
/// are usual (PCI, virtio behind it, network behind that).
const COLDPLUG_PASSES: usize = 16;

/// The modules of this machine's kernel, and the right to load them; clones share their state.
#[derive(Clone)]
pub struct Drivers {
    shared: Arc<Shared>,
}

struct Shared {
    installed: Installed,
    sys: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    modules: HashMap<String, Progress>,
    devices: HashSet<Device>,
    /// Modaliases: a driver that failed is not tried again for the next port of the same card.
    tried: HashSet<String>,
    /// Requests by device that are being served now.
    busy: usize,
    following: bool,
    stopped: bool,
    events: u64,
    /// For the summary.
    loaded: usize,
    spent: Duration,
}

/// A module that failed is not recorded, so that a later explicit request tries again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Loading,
    Loaded,
}

impl Drivers {
    /// Finds the modules of kernel `release` below `root`, where `/sys` and `/proc` must be mounted.
    /// Never fails: without modules, everything is taken to be part of the kernel.
    pub fn new(root: &Path, release: &str, command_line: &str) -> Self {
        let shared = Shared {
            installed: Installed::read(root, release, command_line),
            sys: root.join("sys"),
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// As [`Self::require_with`], without options of our own.
    pub fn require(&self, name: &str) -> Result<()> {
        self.require_with(name, &[])
    }

    /// Makes sure that the kernel has `name`: a module, or an alias such as `fs-squashfs` or
    /// `crypto-gcm`, of which one module has to load. The operator's options come after `options`
    /// and so beat them; they have no effect on a module that is loaded already.
    ///
    /// A blacklisted module is loaded when it is asked for by its own name, as by modprobe.
    pub fn require_with(&self, name: &str, options: &[(&str, &str)]) -> Result<()> {
        let installed = &self.shared.installed;
        let Some(index) = &installed.index else {
            return if installed.may_have_built_in(name) {
                log::debug!(target: "drivers", "{name}: taken for a part of the kernel");
                Ok(())
            } else {
                Err(installed.missing(name))
            };
        };
        let modules = match index.find(name) {
            Found::BuiltIn => return Ok(()),
            Found::Nothing if installed.kernel_has(name) => return Ok(()),
            Found::Nothing => return Err(installed.missing(name)),
            Found::Modules(modules) => modules,
        };
        let mut failure = None;
        let mut loaded = false;
        for module in modules {
            if module.name != normalized(name)
                && installed.configuration.is_blacklisted(&module.name)
            {
                continue;
            }
            // Several modules may provide an alias, and some only on hardware of the right kind.
            match self.load_with_dependencies(index, module, options) {
                Ok(()) => loaded = true,
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            _ if loaded => Ok(()),
            Some(error) => Err(error),
            None => {
                Err(Error::refused(format!("loading {name}"), "all its modules are blacklisted"))
            }
        }
    }

    /// Loads the drivers of every device that is present, also of those that show up behind a
    /// driver just loaded. A driver that fails is a warning. On return, no driver is still being
    /// loaded for a device that was announced before the call.
    pub fn settle_present(&self) {
        for _ in 0..COLDPLUG_PASSES {
            let loaded = self.state().loaded;
            for device in devices::present(&self.shared.sys) {
                self.load_for(&device);
            }
            if self.state().loaded == loaded {
                break;
            }
        }
        self.wait_until_idle();
    }

    /// Loads drivers of the network devices that have none, and of nothing else: for machines on
    /// which udev loads them, and has not these.
    pub fn settle_network(&self) {
        for device in devices::driverless_network(&self.shared.sys) {
            self.load_for(&device);
        }
        self.wait_until_idle();
    }

    /// Loads drivers for devices that appear from now on, in a thread of its own. Call it before
    /// [`Self::settle_present`], or what appears between the two is missed.
    pub fn follow(&self) -> Result<()> {
        let mut listener = Listener::open()?;
        let drivers = self.clone();
        self.state().following = true;
        let run = move || {
            if let Err(error) = drivers.follow_events(&mut listener) {
                log::warn!(target: "drivers", "{error}");
            }
            drivers.state().following = false;
            drivers.shared.changed.notify_all();
        };
        std::thread::Builder::new().name("uevents".to_owned()).spawn(run).map(drop).map_err(
            |error| {
                self.state().following = false;
                Error::new("starting to follow new devices", error)
            },
        )
    }

    /// Loads nothing more for devices: the handover is about to take the modules away. On return,
    /// no driver is being loaded for a device. Explicit requests still work.
    pub fn stop_following(&self) {
        self.state().stopped = true;
        self.wait_until_idle();
    }

    /// Waits until `there` is true, looking again after every event of the kernel; `what` is what
    /// the operator reads meanwhile. Silence after `timeout`.
    pub fn wait_for(
        &self,
        what: &str,
        timeout: Duration,
        mut there: impl FnMut() -> bool,
    ) -> Result<()> {
        let started = Instant::now();
        let _waiting = console::waiting("drivers", what);
        loop {
            let seen = self.state().events;
            if there() {
                return Ok(());
            }
            let mut state = self.state();
            while state.events == seen {
                let left = timeout.saturating_sub(started.elapsed());
                if left.is_zero() {
                    return Err(Error::silence(format!("waiting for {what}"), timeout));
                }
                // Nobody listens when the socket could not be had; then it has to be polling.
                let nap = if state.following { left } else { left.min(Duration::from_millis(50)) };
                let (guard, elapsed) = self
                    .shared
                    .changed
                    .wait_timeout(state, nap)
                    .unwrap_or_else(PoisonError::into_inner);
                state = guard;
                if elapsed.timed_out() {
                    break;
                }
            }
        }
    }

    /// "14 modules for 23 devices (0.3 s)"
    pub fn loaded_summary(&self) -> String {
        let state = self.state();
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        format!(
            "{} module{} for {} device{} ({:.1} s)",
            state.loaded,
            plural(state.loaded),
            state.devices.len(),
            plural(state.devices.len()),
            state.spent.as_secs_f32()
        )
    }

    fn follow_events(&self, listener: &mut Listener) -> Result<()> {
        loop {
            let device = match listener.receive()? {
                Received::Event(event) => devices::added(event),
                Received::Overrun => {
                    self.settle_present();
                    None
                }
            };
            if self.state().stopped {
                return Ok(());
            }
            if let Some(device) = device {
                self.load_for(&device);
            }
            // After the driver, so that who waits for a device sees what the driver made.
            let mut state = self.state();
            state.events = state.events.wrapping_add(1);
            self.shared.changed.notify_all();
        }
    }

    fn load_for(&self, device: &Device) {
        let Some(index) = &self.shared.installed.index else { return };
        let Found::Modules(modules) = index.find(&device.modalias) else { return };
        {
            let mut state = self.state();
            if state.stopped {
                return;
            }
            state.devices.insert(device.clone());
            if !state.tried.insert(device.modalias.clone()) {
                return;
            }
            state.busy += 1;
        }
        for module in modules {
            if self.shared.installed.configuration.is_blacklisted(&module.name) {
                log::debug!(target: "drivers", "{} is blacklisted", module.name);
                continue;
            }
            if let Err(error) = self.load_with_dependencies(index, module, &[]) {
                // Drivers that look closer than their aliases do decline this way.
                if matches!(error.cause(), Cause::Os(e) if e.raw_os_error() == Some(libc::ENODEV)) {
                    log::debug!(target: "drivers", "{} for {}: {error}", module.name, device.name);
                } else {
                    let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
                    let (name, device) = (&module.name, &device.name);
                    log::warn!(target: "drivers", "{name} for {device}: {error}{hint}");
                }
            }
        }
        self.state().busy -= 1;
        self.shared.changed.notify_all();
    }

    fn load_with_dependencies(
        &self,
        index: &Index,
        module: &Module,
        options: &[(&str, &str)],
    ) -> Result<()> {
        for step in index.load_order(&module.name) {
            let is_dependency = step.module.name != module.name;
            if !step.required
                && self.shared.installed.configuration.is_blacklisted(&step.module.name)
            {
                continue;
            }
            let options = if is_dependency { &[] } else { options };
            match self.load_once(step.module, options) {
                Ok(()) => {}
                Err(error) if step.required && is_dependency => {
                    return Err(Error::new(format!("loading {}", module.name), error));
                }
                Err(error) if step.required => return Err(error),
                Err(error) => {
                    log::debug!(target: "drivers", "{}, beside {}: {error}", step.module.name, module.name);
                }
            }
        }
        Ok(())
    }

    /// Loads one module, or waits for the thread that is at it.
    fn load_once(&self, module: &Module, options: &[(&str, &str)]) -> Result<()> {
        let mut state = self.state();
        loop {
            match state.modules.get(&module.name) {
                Some(Progress::Loaded) => return Ok(()),
                Some(Progress::Loading) => {
                    state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                None => break,
            }
        }
        state.modules.insert(module.name.clone(), Progress::Loading);
        drop(state);

        let started = Instant::now();
        let result = {
            // Some drivers take seconds, for firmware or a reset; a few never return.
            let _waiting = console::waiting("drivers", format!("{} to start", module.name));
            self.shared.installed.insert(module, options)
        };
        let mut state = self.state();
        state.spent += started.elapsed();
        if result.is_ok() {
            state.modules.insert(module.name.clone(), Progress::Loaded);
            state.loaded += 1;
        } else {
            state.modules.remove(&module.name);
        }
        self.shared.changed.notify_all();
        result
    }

    fn wait_until_idle(&self) {
        let _waiting = console::waiting("drivers", "drivers to start");
        let mut state = self.state();
        let mut warned = false;
        while state.busy > 0 {
            let wait = self.shared.changed.wait_timeout(state, PATIENCE);
            let (guard, elapsed) = wait.unwrap_or_else(PoisonError::into_inner);
            state = guard;
            if elapsed.timed_out() && !std::mem::replace(&mut warned, true) {
                let loading = |(name, progress): (&String, &Progress)| {
                    (*progress == Progress::Loading).then(|| name.clone())
                };
                let names: Vec<_> = state.modules.iter().filter_map(loading).collect();
                // No use in going on: the exec waits for the thread that is in the kernel.
                log::warn!(
                    target: "drivers",
                    "{} has not started for {} s; modprobe.blacklist={} leaves it out",
                    names.join(", "),
                    PATIENCE.as_secs(),
                    names.join(",")
                );
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A root as an image of ours would have it, without a kernel that takes modules from it.
    fn image(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    #[rustfmt::skip]
    fn what_is_missing_is_said_with_both_versions() {
        let with_modules = image(&[
            ("lib/modules/6.1/modules.dep", "kernel/fs/squashfs/squashfs.ko:\n"),
            ("lib/modules/6.1/modules.builtin", "kernel/fs/ext4/ext4.ko\n"),
            ("sys/module/loop/uevent", ""),
            ("proc/filesystems", "nodev\tsysfs\n\terofs\n"),
        ]);
        let without = image(&[("proc/filesystems", "")]);
        let cases = [
            (&with_modules, "6.1",  "ext4",      None),
            (&with_modules, "6.1",  "loop",      None), // built in, by the look of /sys
            (&with_modules, "6.1",  "fs-erofs",  None), // or of /proc/filesystems
            (&with_modules, "6.1",  "nbd",       Some("loading nbd: refused: module nbd is not in this image, built for kernel 6.1")),
            (&with_modules, "6.12", "loop",      None),
            (&with_modules, "6.12", "nbd",       Some("loading nbd: refused: this is kernel 6.12, and the image has modules for 6.1 only")),
            (&without,      "6.12", "nbd",       None), // a kernel without modules has everything
        ];
        for (root, release, name, expected) in cases {
            let drivers = Drivers::new(root.path(), release, "");
            let got = drivers.require(name).err().map(|error| error.to_string());
            assert_eq!(got.as_deref(), expected, "{name} on {release}");
        }
    }

    /// The warning must not be mistaken for a missing module: the file is there and unreadable.
    #[test]
    fn a_driver_that_cannot_be_loaded_stops_nothing() {
        let root = image(&[
            ("lib/modules/6.1/modules.dep", "kernel/igb.ko:\n"),
            ("lib/modules/6.1/modules.alias", "alias pci:v1* igb\n"),
            ("sys/bus/pci/devices/0000:00:03.0/modalias", "pci:v1\n"),
            ("sys/bus/pci/devices/0000:00:04.0/modalias", "pci:v2\n"),
        ]);
        let drivers = Drivers::new(root.path(), "6.1", "");
        drivers.settle_present();
        drivers.stop_following();
        assert!(drivers.loaded_summary().starts_with("0 modules for 1 device ("));
        let error = drivers.require("igb").unwrap_err().to_string();
        assert!(error.ends_with("kernel/igb.ko: No such file or directory"), "{error}");
    }

    #[test]
    fn waiting_for_a_device_ends_with_the_device_or_the_time() {
        let drivers = Drivers::new(Path::new("/nonexistent"), "6.1", "");
        let mut looks = 0;
        let second_look = || {
            looks += 1;
            looks == 2
        };
        drivers.wait_for("/dev/nbd0", Duration::from_secs(5), second_look).unwrap();
        let error = drivers.wait_for("/dev/nbd0", Duration::from_millis(60), || false).unwrap_err();
        assert_eq!(error.to_string(), "waiting for /dev/nbd0: no answer for 0.1 s");
    }
}
