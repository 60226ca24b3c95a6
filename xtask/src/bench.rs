//! `cargo xtask bench`: numbers to compare releases by.
//!
//! Times of an emulated machine on a busy host vary by a factor of four. One CPU that executes
//! exactly one instruction a nanosecond does not: its seconds are instructions, and what it waits
//! for (an answer from the network) counts as many as it could have executed meanwhile.

mod arrival;

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use landfall_tests::{
    Accel, Dnsmasq, Initramfs, Kernel, Lab, Nbd, NbdKind, ProbeRoot, SERVER, Signatures, workshop,
};

use self::arrival::Family;
use crate::stages::Report;
use crate::{agent, desk, kernels, namespace, needs, say};

const PAYLOAD_MIB: u32 = 64;

pub fn prepare_and_run() -> Result<()> {
    needs::tests()?;
    agent::build()?;
    agent::build_probe()?;
    for kernel in Kernel::AMD64 {
        kernels::prepare(kernel)?;
    }
    namespace::run_self(&["bench", "--prepared"])
}

pub fn run() -> Result<()> {
    println!("agent        {:>10} bytes", fs::metadata(workshop::agent()?)?.len());
    for kernel in Kernel::AMD64 {
        for (signatures, name) in [(Signatures::Strip, "unsigned"), (Signatures::Keep, "signed")] {
            let image = Initramfs::new(kernel).signatures(signatures).build()?;
            let size = fs::metadata(&image)?.len();
            println!("initramfs    {size:>10} bytes  (Linux {}, {name})", kernel.series());
        }
    }
    desk::bench()?;
    let lab = Lab::new("bench")?;
    let tftp = lab.served("tftp", &[("ltsp/amd64/lts.conf", "[default]\nRACK = 1\n")])?;
    let _dhcp = Dnsmasq::new().tftp(&tftp).start(&lab)?;
    let image = ProbeRoot::new(&lab)?.payload_mib(PAYLOAD_MIB)?.pack()?;
    let _root = Nbd::new(&lab, NbdKind::NbdServer).export("root", &image).start()?;
    for kernel in Kernel::AMD64 {
        boot(&lab, kernel, Accel::Counted, "")?;
        boot(&lab, kernel, Accel::best(), "")?;
    }
    boot(&lab, Kernel::V6_12, Accel::best(), "landfall.ram=copy")?;
    for family in [Family::Ipv4, Family::Ipv6] {
        for accel in [Accel::Counted, Accel::best()] {
            arrival::measure(family, Kernel::V6_12, accel)?;
        }
    }
    Ok(())
}

/// From `/init` to the exec of the real init, as the agent counts it, and the rate of a copy, as
/// the agent says it.
fn boot(lab: &Lab, kernel: Kernel, accel: Accel, words: &str) -> Result<()> {
    let name = format!("Linux {} on {accel:?} {words}", kernel.series()).trim_end().to_owned();
    say::step(&name, || {
        let mut machine = lab
            .vm(kernel)
            .initramfs(Initramfs::new(kernel).build()?)
            .cmdline(&format!("root=nbd:{SERVER}:root panic=1 {words}"))
            .accel(accel)
            .boot()?;
        let report = {
            let node = machine.node_within(Duration::from_secs(600))?;
            let report = Report::of(&node)?;
            node.power_off()?;
            report
        };
        machine.gone(Duration::from_secs(60))?;
        let seconds = report.seconds();
        if accel == Accel::Counted {
            println!("{name}: {:.0} million instructions", seconds * 1000.0);
        } else {
            println!("{name}: {seconds:.2} s");
        }
        for stage in &report.stages {
            println!("    {:<12} {:.3}", stage.name, stage.seconds);
        }
        const COPIED: &str = "copied to RAM: ";
        let copied = machine.console().into_iter().find(|line| line.contains(COPIED));
        match copied.as_deref().and_then(|line| line.split_once(COPIED)) {
            Some((_, rate)) => println!("    {COPIED}{rate}"),
            None => ensure!(!words.contains("ram=copy"), "nothing was copied"),
        }
        Ok(())
    })
}
