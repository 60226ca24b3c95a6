//! Loads modules: for the devices that are there, for those that appear, and by name.
//!
//! One at a time and each once. Loading in parallel was measured and gained nothing on small
//! machines, where nearly all of the time is the kernel's signature check; what does run beside it
//! is the network, which starts on the first link while later drivers still load.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::console;
use crate::error::{Cause, Error, Result, WhileDoing};
use crate::sys::module::{FileForm, load_file, load_image};
use crate::sys::uevent::{Listener, Received};

use super::devices::{self, Device};
use super::{Compression, Configuration, Found, Index, Module, normalized};

/// Passes over sysfs in one coldplug. Each driver may bring up a bus with further devices; three
/// are usual (PCI, virtio behind it, network behind that).
const COLDPLUG_PASSES: usize = 16;

/// The modules of this machine's kernel, and the right to load them; clones share their state.
#[derive(Clone)]
pub struct Drivers {
    shared: Arc<Shared>,
}

struct Shared {
    sys: PathBuf,
    proc: PathBuf,
    /// `lib/modules/VERSION`.
    directory: PathBuf,
    release: String,
    /// Kernels that the image does have modules for.
    other_releases: Vec<String>,
    /// `None`: no modules at all, or not for this kernel.
    index: Option<Index>,
    configuration: Configuration,
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
    /// Reads the index and the configuration of the modules for kernel `release` below `root`;
    /// `/sys` and `/proc` must be mounted there. Never fails: without modules, everything is taken
    /// to be part of the kernel.
    pub fn new(root: &Path, release: &str, command_line: &str) -> Self {
        let parents = [root.join("lib/modules"), root.join("usr/lib/modules")];
        let directory = parents
            .iter()
            .map(|parent| parent.join(release))
            .find(|directory| directory.is_dir())
            .unwrap_or_else(|| root.join("lib/modules").join(release));
        let mut other_releases: Vec<String> = parents
            .iter()
            .filter_map(|parent| fs::read_dir(parent).ok())
            .flat_map(|entries| entries.flatten())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name != release)
            .collect();
        other_releases.sort();
        other_releases.dedup();

        let configuration = Configuration::read(root, command_line);
        for line in &configuration.ignored {
            log::debug!(target: "drivers", "modprobe.d: not obeyed: {line}");
        }
        let index = if directory.is_dir() {
            Index::read(&directory)
                .map(|index| configured(index, &configuration))
                .map_err(|error| log::warn!(target: "drivers", "{error}"))
                .ok()
        } else {
            log::debug!(target: "drivers", "no modules for Linux {release} in this image");
            None
        };
        let shared = Shared {
            sys: root.join("sys"),
            proc: root.join("proc"),
            directory,
            release: release.to_owned(),
            other_releases,
            index,
            configuration,
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
        let shared = &*self.shared;
        let Some(index) = &shared.index else {
            if shared.other_releases.is_empty() || shared.kernel_has(name) {
                log::debug!(target: "drivers", "{name}: taken for a part of the kernel");
                return Ok(());
            }
            return Err(missing(name, &shared.release, &shared.other_releases));
        };
        let modules = match index.find(name) {
            Found::BuiltIn => return Ok(()),
            Found::Nothing if shared.kernel_has(name) => return Ok(()),
            Found::Nothing => return Err(missing(name, &shared.release, &[])),
            Found::Modules(modules) => modules,
        };
        let mut failure = None;
        let mut loaded = false;
        for module in modules {
            if module.name != normalized(name) && shared.configuration.is_blacklisted(&module.name)
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

    /// Network devices that no driver has claimed, such as `0000:00:03.0 [8086:100e]`.
    pub fn unclaimed_network_devices(&self) -> Vec<String> {
        devices::unclaimed_network(&self.shared.sys)
    }

    fn follow_events(&self, listener: &mut Listener) -> Result<()> {
        loop {
            let device = match listener.receive()? {
                Received::Event(event) => added_device(event),
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
        let Some(index) = &self.shared.index else { return };
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
            if self.shared.configuration.is_blacklisted(&module.name) {
                log::debug!(target: "drivers", "{} is blacklisted", module.name);
                continue;
            }
            if let Err(error) = self.load_with_dependencies(index, module, &[]) {
                // Drivers that look closer than their aliases do decline this way.
                if matches!(error.cause(), Cause::Os(e) if e.raw_os_error() == Some(libc::ENODEV)) {
                    log::debug!(target: "drivers", "{} for {}: {error}", module.name, device.name);
                } else {
                    log::warn!(target: "drivers", "{} for {}: {error}", module.name, device.name);
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
            if !step.required && self.shared.configuration.is_blacklisted(&step.module.name) {
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
            self.shared.insert(module, options)
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
        while state.busy > 0 {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn insert(&self, module: &Module, options: &[(&str, &str)]) -> Result<()> {
        let path = self.directory.join(&module.path);
        let parameters = self.configuration.parameters(&module.name, options);
        log::debug!(target: "drivers", "loading {} {parameters}", module.name);
        let parameters = CString::new(parameters).map_err(|_| {
            Error::invalid(format!("loading {}", module.name), "an option with a zero byte")
        })?;
        let Some(compression) = Compression::of(&path) else {
            return load_file(&path, &parameters, FileForm::Plain);
        };
        let kernels = fs::read_to_string(self.sys.join("module/compression")).unwrap_or_default();
        if compression.is_among(&kernels) {
            match load_file(&path, &parameters, FileForm::Compressed) {
                Err(error) if is_about_the_format(&error) => {
                    log::debug!(target: "drivers", "{error}: decompressing it here");
                }
                result => return result,
            }
        }
        let doing = || format!("reading {}", path.display());
        let file = fs::File::open(&path).while_doing(doing)?;
        let image = compression.decompress(file, doing)?;
        load_image(&image, &path, &parameters)
    }

    /// Evidence that needs no index: a directory that built-in modules with parameters have too, or
    /// a registered file system.
    fn kernel_has(&self, name: &str) -> bool {
        let module = self.sys.join("module").join(normalized(name));
        let filesystem = name.strip_prefix("fs-").unwrap_or(name);
        module.is_dir()
            || fs::read_to_string(self.proc.join("filesystems")).is_ok_and(|list| {
                list.lines().any(|line| line.split_ascii_whitespace().last() == Some(filesystem))
            })
    }
}

/// The kernel could not make out the file, which our own decoder perhaps can.
fn is_about_the_format(error: &Error) -> bool {
    matches!(error.cause(), Cause::Os(e) if matches!(
        e.raw_os_error(),
        Some(libc::EINVAL | libc::ENOEXEC | libc::EOPNOTSUPP)
    ))
}

fn configured(mut index: Index, configuration: &Configuration) -> Index {
    for (pattern, module) in &configuration.aliases {
        index.add_alias(pattern, module);
    }
    for (name, softdep) in &configuration.softdeps {
        index.add_softdep(name, softdep);
    }
    index
}

/// `others` is empty when the image does have modules for `release`.
fn missing(name: &str, release: &str, others: &[String]) -> Error {
    let doing = format!("loading {name}");
    if others.is_empty() {
        Error::refused(
            doing,
            format!("module {name} is not in this image, built for kernel {release}"),
        )
        .with_hint(format!("build the image again with --modules {name}"))
    } else {
        Error::refused(
            doing,
            format!(
                "this is kernel {release}, and the image has modules for {} only",
                others.join(", ")
            ),
        )
        .with_hint("kernel and image on the boot server must be of the same version")
    }
}

/// The device of an `add` event that has a modalias.
fn added_device(event: &[u8]) -> Option<Device> {
    let mut modalias = None;
    let mut path = None;
    let mut added = false;
    for field in event.split(|&byte| byte == 0) {
        let Ok(field) = std::str::from_utf8(field) else { continue };
        match field.split_once('=') {
            Some(("ACTION", action)) => added = action == "add",
            Some(("DEVPATH", value)) => path = Some(value),
            Some(("MODALIAS", value)) => modalias = Some(value),
            _ => {}
        }
    }
    let name = path?.rsplit('/').next()?;
    let modalias = modalias?.to_owned();
    added.then(|| Device { name: name.to_owned(), modalias })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    #[rustfmt::skip]
    fn only_devices_that_appear_with_a_modalias_want_a_driver() {
        let cases = [
            (&b"add@/devices/pci/0000:00:03.0\0ACTION=add\0DEVPATH=/devices/pci/0000:00:03.0\0SUBSYSTEM=pci\0MODALIAS=pci:v1\0SEQNUM=9\0"[..],
             Some(("0000:00:03.0", "pci:v1"))),
            (b"remove@/devices/x\0ACTION=remove\0DEVPATH=/devices/x\0MODALIAS=pci:v1\0", None),
            (b"add@/devices/net/eth0\0ACTION=add\0DEVPATH=/devices/net/eth0\0SUBSYSTEM=net\0", None),
            (b"libudev\0\xfe\xed\xca\xfe", None), // udev's own format, should it get here
            (b"add@/x\0ACTION=add\0MODALIAS=pci:v1\0", None),
            (b"", None),
        ];
        for (event, expected) in cases {
            let got = added_device(event);
            let got = got.as_ref().map(|device| (&*device.name, &*device.modalias));
            assert_eq!(got, expected, "{}", String::from_utf8_lossy(event));
        }
    }

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

    proptest! {
        #[test]
        fn no_event_can_panic(event in proptest::collection::vec(any::<u8>(), 0..200)) {
            added_device(&event);
        }
    }
}
