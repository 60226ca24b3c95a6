//! How fast an image comes into a machine's memory over its own card: the boot's copy, and what
//! initramfs scripts do, `nc` into `dd` of a busybox. The same kernel, the same machine, the same
//! image on the same wire, in turns.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use landfall_tests::{Accel, Arch, Initramfs, Kernel, Lab, SERVER, workshop};

use super::Site;
use crate::stages::Report;
use crate::{kernels, say, soak};

/// Some seconds of copying on an emulated machine, so that a tenth of one does not matter.
const PAYLOAD_MIB: u32 = 256;
const MEMORY_MIB: u32 = 1024;
const ROUNDS: usize = 3;
const KERNEL: Kernel = Kernel::V6_12;
/// Of busybox, which asks no DHCP server.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 60);
const PATIENCE: Duration = Duration::from_secs(600);

const MIB: f64 = (1 << 20) as f64;

pub fn prepare() -> Result<()> {
    kernels::prepare_busybox(Arch::Amd64)
}

pub fn measure() -> Result<()> {
    let site = Site::new("bench-guest", PAYLOAD_MIB)?;
    let size = fs::metadata(&site.image)?.len();
    let port = send_to_everybody(&site.image)?;

    let (mut copies, mut stages, mut rivals) = (Vec::new(), Vec::new(), Vec::new());
    say::step("copies in the guest, in turns with busybox", || {
        for _ in 0..ROUNDS {
            let ours = landfall(&site.lab, size)?;
            copies.push(ours.copy);
            stages.push(ours.stage);
            rivals.push(busybox(&site.lab, port, size)?);
        }
        Ok(())
    })?;
    println!(
        "copy of {:.0} MiB into memory in the guest, Linux {} on {:?}, MiB/s",
        size as f64 / MIB,
        KERNEL.series(),
        Accel::best()
    );
    println!("    {:<40} slowest  median  fastest", "");
    let mut medians = Vec::new();
    for (name, rates) in [
        ("landfall.ram=copy, nbd-server", copies),
        ("  its whole stage: modules to mounted root", stages),
        ("busybox nc | dd, a sender of plain bytes", rivals),
    ] {
        let [slowest, median, fastest] = soak::spread(rates).context("nothing was measured")?;
        println!("    {name:<42} {slowest:>5.1} {median:>7.1} {fastest:>8.1}");
        medians.push(median);
    }
    if let [copy, stage, rival] = medians[..] {
        println!(
            "    {:.2} times busybox; the whole stage {:.2} times",
            copy / rival,
            stage / rival
        );
    }
    Ok(())
}

/// MiB a second.
struct Ours {
    /// As the agent says it, of the copy alone.
    copy: f64,
    /// Of all that the stage does, from the first module to the mounted root.
    stage: f64,
}

fn landfall(lab: &Lab, size: u64) -> Result<Ours> {
    let words = format!("root=nbd:{SERVER}:root panic=1 landfall.ram=copy");
    let vm = lab.vm(KERNEL).memory_mib(MEMORY_MIB).cmdline(&words);
    let mut machine = vm.initramfs(Initramfs::new(KERNEL).build()?).boot()?;
    let ours = {
        let node = machine.node_within(PATIENCE)?;
        let report = Report::of(&node)?;
        let stage = report.stages.iter().find(|stage| stage.name == "root");
        let seconds = stage.context("the report has no stage \"root\"")?.seconds;
        node.power_off()?;
        let lines = machine.console();
        let copy = lines.iter().find_map(|line| rate(line)).context("nothing was copied")?;
        Ours { copy, stage: size as f64 / MIB / seconds }
    };
    machine.gone(Duration::from_secs(60))?;
    Ok(ours)
}

/// Of the agent's line `root: … copied to RAM: 256.1 MiB in 2.6 s (98.3 MiB/s)`.
fn rate(line: &str) -> Option<f64> {
    let (_, copied) = line.split_once("copied to RAM: ")?;
    let (_, rate) = copied.split_once('(')?;
    rate.split_once(" MiB/s)")?.0.parse().ok()
}

fn busybox(lab: &Lab, port: u16, size: u64) -> Result<f64> {
    let init = format!(
        "#!/bin/busybox sh\n\
         /bin/busybox mkdir -p /bin /dev /proc /sys /ram\n\
         /bin/busybox --install -s /bin\n\
         mount -t proc proc /proc\n\
         mount -t devtmpfs devtmpfs /dev 2>/dev/null\n\
         mount -t tmpfs -o size=100% tmpfs /ram\n\
         modprobe virtio_net\n\
         ip link set eth0 up\n\
         ip address add {ADDRESS}/24 dev eth0\n\
         read from _ </proc/uptime\n\
         nc {SERVER} {port} | dd of=/ram/file bs=1M\n\
         read to _ </proc/uptime\n\
         echo \"fetched $(stat -c %s /ram/file) bytes from $from to $to\"\n\
         poweroff -f\n"
    );
    let image = Initramfs::new(KERNEL)
        .script("init", &init)
        .program("bin/busybox", &workshop::program("busybox", Arch::Amd64)?);
    let vm = lab.vm(KERNEL).memory_mib(MEMORY_MIB).cmdline("quiet panic=1");
    let mut machine = vm.initramfs(image.build()?).boot()?;
    let line = machine.line_within("fetched ", PATIENCE)?;
    let (bytes, seconds) = fetched(&line).with_context(|| format!("what is {line:?}?"))?;
    ensure!(bytes == size, "busybox fetched {bytes} of {size} bytes");
    machine.gone(Duration::from_secs(60))?;
    Ok(size as f64 / MIB / seconds)
}

/// Bytes and seconds of our script's line `fetched 268435456 bytes from 3.25 to 5.87`: Debian's dd of
/// busybox does not tell how long it took.
fn fetched(line: &str) -> Option<(u64, f64)> {
    let (_, line) = line.split_once("fetched ")?;
    let (bytes, times) = line.split_once(" bytes from ")?;
    let (from, to) = times.split_once(" to ")?;
    let seconds = to.trim().parse::<f64>().ok()? - from.parse::<f64>().ok()?;
    (seconds > 0.0).then_some((bytes.parse().ok()?, seconds))
}

/// Sends the file to whoever connects, and closes; the port. The kernel sends, so that nothing of
/// ours is in the way. Ends with the program.
fn send_to_everybody(file: &Path) -> Result<u16> {
    let file = file.to_owned();
    let listener = TcpListener::bind((SERVER, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // For files and sockets this is sendfile(2).
            let sent = stream.and_then(|mut to| io::copy(&mut File::open(&file)?, &mut to));
            if let Err(error) = sent {
                eprintln!("xtask: sending {}: {error}", file.display());
            }
        }
    });
    Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn rates_are_what_both_programs_say() {
        let ours = [
            ("root: 10.77.0.1 copied to RAM: 256.1 MiB in 2.6 s (98.3 MiB/s)",           Some(98.3)),
            ("copied to RAM: 9.0 MiB in 0.1 s (90.0 MiB/s), 4.0 KiB of it never asked for", Some(90.0)),
            ("root: copying root to RAM",                                               None),
        ];
        for (line, expected) in ours {
            assert_eq!(rate(line), expected, "{line:?}");
        }
        let theirs = [
            ("fetched 268435456 bytes from 3.25 to 5.75", Some((268435456, 2.5))),
            ("fetched 0 bytes from 3.25 to 3.25",         None), // nc: can't connect
            ("fetched  bytes from 3.25 to 3.26",          None), // no file
        ];
        for (line, expected) in theirs {
            assert_eq!(fetched(line), expected, "{line:?}");
        }
    }
}
