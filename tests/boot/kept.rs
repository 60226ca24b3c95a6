//! What the tests of the root that stays have in common: servers of one image, a machine whose root
//! is read all the time, and what must be true of the reading, whatever happened to the servers.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use landfall_tests::{
    Daemon, Initramfs, Kernel, Lab, Machine, Nbd, NbdKind, Reader, append_hash_tree, digest_of,
    reader_words, workshop,
};
use serde_json::Value;

use crate::usual_dhcp;

/// Where the second server is.
pub const MIRROR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// How much longer than promised an emulated machine may take; on a host that has more to do than it
/// can, as much longer again as that is ([`strain`]). What a quiet host takes is `cargo xtask
/// bench`'s to say.
const LOADED: f64 = 5.0;

/// On top of an outage, in seconds: until the keeper has noticed that it is over, or, with a mirror,
/// until that serves. Promised is one second.
pub const TO_NOTICE: f64 = 1.0 * LOADED;

/// Until a server that hangs is left for another: it might be slow. Promised are two seconds.
pub const TO_GIVE_UP: f64 = 2.0 * LOADED;

/// For changing the server of the root for memory. Promised is a tenth of a second.
const TO_FLIP: f64 = 0.1 * LOADED;

/// All of a Debian but for empty folders and links; the rest is compared as bytes of the device.
const FOLDERS: [&str; 4] = ["etc", "root", "usr", "var"];

/// A Debian root, its servers, and who gives addresses.
pub struct Room {
    pub lab: Lab,
    pub image: PathBuf,
    /// The image, with a hash tree behind it if there is one.
    served: PathBuf,
    _dhcp: Daemon,
}

impl Room {
    pub fn new(test: &str, root: &str) -> Result<Self> {
        let lab = Lab::new(test)?;
        lab.add_address(MIRROR)?;
        let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
        let image = workshop::debian(root)?;
        Ok(Self { lab, served: image.clone(), image, _dhcp })
    }

    /// Serves the image with a hash tree, and says what the kernel's command line needs for it.
    pub fn verified(mut self) -> Result<(Self, String)> {
        self.served = self.lab.file("verified.img");
        fs::copy(&self.image, &self.served)?;
        let tree = append_hash_tree(&self.served, 0, &[])?;
        Ok((self, format!("landfall.verity={}", tree.root_hash)))
    }

    /// The one that the boot loader names.
    pub fn server(&self, kind: NbdKind) -> Nbd {
        Nbd::new(&self.lab, kind).export("root", &self.served)
    }

    pub fn mirror(&self, kind: NbdKind) -> Nbd {
        self.server(kind).on(MIRROR)
    }

    /// With the reader, into the Debian, with the root's servers as given: `10.77.0.1,10.77.0.2`.
    pub fn boot(&self, kernel: Kernel, servers: &str, words: &str) -> Result<Machine> {
        self.boot_with(kernel, servers, words, 1024)
    }

    pub fn boot_with(
        &self,
        kernel: Kernel,
        servers: &str,
        words: &str,
        memory_mib: u32,
    ) -> Result<Machine> {
        self.lab
            .vm(kernel)
            .initramfs(Initramfs::new(kernel).reader()?.build()?)
            .reader_port()
            .memory_mib(memory_mib)
            .cmdline(&format!("root=nbd:{servers}:root panic=5 {words} {}", reader_words(true)))
            .boot()
    }

    /// The image with other contents, and as long: what an operator has made of it since.
    pub fn changed_image(&self) -> Result<PathBuf> {
        let path = self.lab.file("changed.img");
        fs::copy(&self.image, &path)?;
        let image = File::options().read(true).write(true).open(&path)?;
        // When it was made, in a squashfs's superblock.
        image.write_all_at(&1_700_000_000_u32.to_le_bytes(), 8)?;
        // And a part of what was packed.
        let mut content = vec![0; 1 << 20];
        let half = image.metadata()?.len() / 2;
        image.read_exact_at(&mut content, half)?;
        content.iter_mut().for_each(|byte| *byte ^= 0x5a);
        image.write_all_at(&content, half)?;
        Ok(path)
    }

    /// Every byte of the root's device and every file of the root are those of the image that was
    /// served, read from the device and not from memory; and no read has ever failed.
    pub fn is_intact(&self, reader: &Reader<'_>) -> Result<()> {
        reader.drop_caches()?;
        reader.device_is_the_image()?;
        for folder in FOLDERS {
            let found = reader.tree(&format!("/rofs/{folder}"))?;
            let wanted = digest_of(&self.image, folder)?;
            ensure!(found == wanted, "/{folder} is not the image's: {found:?}, not {wanted:?}");
        }
        reader.never_failed().map(drop)
    }
}

/// Lets something happen to the servers, waits until the root is read again, and says how long it was
/// not; no read may have failed. The machine may stand still for as long as it takes to happen, and
/// for `more` seconds.
pub fn through(
    reader: &Reader<'_>,
    what: &str,
    more: f64,
    event: impl FnOnce() -> Result<()>,
) -> Result<f64> {
    let before = reader.report()?.at;
    let began = Instant::now();
    event()?;
    let outage = began.elapsed().as_secs_f64();
    reader.reads_on()?;
    let pause = reader.never_failed()?.longest_since(before);
    eprintln!("{what}: {outage:.1} s for the server, {pause:.2} s for the machine");
    ensure!(pause < outage + more * strain()?, "{what}: the root stood still for {pause} s");
    Ok(pause)
}

/// How many processes there have been for each CPU of this host in the last minute; at least one.
fn strain() -> Result<f64> {
    // On a host with even more to do nobody could tell a stall from it.
    const MOST: f64 = 3.0;
    let load = fs::read_to_string("/proc/loadavg")?;
    let load: f64 = load.split(' ').next().context("no load")?.parse()?;
    Ok((load / std::thread::available_parallelism()?.get() as f64).clamp(1.0, MOST))
}

/// How many times the root has been given another connection.
pub fn failovers(reader: &Reader<'_>) -> Result<u64> {
    let status = reader.status()?;
    let count = status.pointer("/failovers").and_then(Value::as_u64);
    count.with_context(|| format!("how many failovers? {status:#}"))
}

/// Waits until the root is in memory, and says for how long it stood still: as the keeper has
/// measured it, around what it did, and as the reader has seen it, which was reading beside it.
pub fn flipped(reader: &Reader<'_>) -> Result<()> {
    let status = reader.copied_to(1.0)?;
    let flip = status.pointer("/copy/flip_seconds").and_then(Value::as_f64);
    let flip = flip.with_context(|| format!("how long was the flip? {status:#}"))?;
    let ended = status.pointer("/copy/ended_at").and_then(Value::as_f64);
    let ended = ended.with_context(|| format!("when was it? {status:#}"))?;
    reader.reads_on()?;
    let pause = reader.never_failed()?.longest_since(ended - flip - 0.5);
    eprintln!("the flip took {flip:.3} s; the longest pause around and after it is {pause:.2} s");
    let strain = strain()?;
    ensure!(flip < TO_FLIP * strain, "the root stood still for {flip} s");
    ensure!(pause < TO_NOTICE * strain, "a read took {pause} s");
    Ok(())
}

/// For something to be in the state that is tested.
pub fn wait(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}
