//! `cargo xtask bench`: numbers to compare releases by.
//!
//! Times of an emulated machine on a busy host vary by a factor of four. One CPU that executes
//! exactly one instruction a nanosecond does not: its seconds are instructions, and what it waits
//! for (an answer from the network) counts as many as it could have executed meanwhile.

mod arrival;
mod copy;
mod guest;
mod stalls;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use landfall_tests::{
    Accel, Daemon, Dnsmasq, Initramfs, Kernel, Lab, Nbd, NbdKind, ProbeRoot, SERVER, Signatures,
    workshop,
};

use self::arrival::Family;
use crate::stages::Report;
use crate::{agent, desk, kernels, namespace, needs, say, soak};

const PAYLOAD_MIB: u32 = 64;

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Row {
    /// Bytes of the agent and of initramfs images.
    Sizes,
    /// Check and plan of a large file.
    Desk,
    /// The copy over the host's loopback, against nbdcopy and curl.
    Copy,
    /// Boots on both kernels, stage by stage.
    Boot,
    /// Time to the real init of streaming, lazy and copy.
    Init,
    /// The copy in the guest, against nc and dd of a busybox.
    Guest,
    /// Pauses of a root that changes its server, and of one that moves to memory.
    Stalls,
    /// From carrier to an address.
    Arrival,
}

#[derive(clap::Args)]
pub struct Options {
    /// Only these; everything if nothing is said.
    rows: Vec<Row>,
    #[arg(long, hide = true)]
    prepared: bool,
}

pub fn run(options: &Options) -> Result<()> {
    let rows = match options.rows.is_empty() {
        true => Row::value_variants(),
        false => &options.rows,
    };
    if options.prepared {
        // In the order in which they are written here; the host's network first.
        let mut rows = rows.to_vec();
        rows.sort_by_key(|row| *row as u8);
        rows.dedup();
        let mut missed = Vec::new();
        for row in rows {
            // A row that misses its aim must not hide those behind it.
            if let Err(error) = measure(row) {
                println!("{row:?}: {error:#}");
                missed.push(row);
            }
        }
        ensure!(missed.is_empty(), "rows that failed or missed their aim: {missed:?}");
        return Ok(());
    }
    needs::tests()?;
    agent::build()?;
    agent::build_probe()?;
    copy::prepare()?;
    guest::prepare()?;
    for kernel in Kernel::AMD64 {
        kernels::prepare(kernel)?;
    }
    let names: Vec<_> = rows.iter().filter_map(clap::ValueEnum::to_possible_value).collect();
    let names = names.iter().map(clap::builder::PossibleValue::get_name);
    namespace::run_self(&["bench", "--prepared"].into_iter().chain(names).collect::<Vec<_>>())
}

fn measure(row: Row) -> Result<()> {
    match row {
        Row::Sizes => sizes(),
        Row::Desk => desk::bench(),
        Row::Copy => copy::measure(),
        Row::Boot => stage_by_stage(),
        Row::Init => side_by_side(),
        Row::Guest => guest::measure(),
        Row::Stalls => stalls::measure(),
        Row::Arrival => [Family::Ipv4, Family::Ipv6].into_iter().try_for_each(|family| {
            let accels = [Accel::Counted, Accel::best()];
            accels.into_iter().try_for_each(|how| arrival::measure(family, Kernel::V6_12, how))
        }),
    }
}

fn sizes() -> Result<()> {
    println!("agent        {:>10} bytes", fs::metadata(workshop::agent()?)?.len());
    for kernel in Kernel::AMD64 {
        for (signatures, name) in [(Signatures::Strip, "unsigned"), (Signatures::Keep, "signed")] {
            let image = Initramfs::new(kernel).signatures(signatures).build()?;
            let size = fs::metadata(&image)?.len();
            println!("initramfs    {size:>10} bytes  (Linux {}, {name})", kernel.series());
        }
    }
    Ok(())
}

/// A wire with a server of addresses, one of configurations and one of a root.
struct Site {
    lab: Lab,
    image: PathBuf,
    _dhcp: Daemon,
    _root: Nbd,
}

impl Site {
    fn new(name: &str, payload_mib: u32) -> Result<Self> {
        let lab = Lab::new(name)?;
        let tftp = lab.served("tftp", &[("ltsp/amd64/lts.conf", "[default]\nRACK = 1\n")])?;
        let _dhcp = Dnsmasq::new().tftp(&tftp).start(&lab)?;
        let image = ProbeRoot::new(&lab)?.payload_mib(payload_mib)?.pack()?;
        let _root = Nbd::new(&lab, NbdKind::NbdServer).export("root", &image).start()?;
        Ok(Self { lab, image, _dhcp, _root })
    }
}

fn stage_by_stage() -> Result<()> {
    let site = Site::new("bench-boot", PAYLOAD_MIB)?;
    for kernel in Kernel::AMD64 {
        boot(&site.lab, kernel, Accel::Counted, "")?;
        boot(&site.lab, kernel, Accel::best(), "")?;
    }
    Ok(())
}

/// The three ways of having a root, one after the other and all over again: whatever else this host
/// does meanwhile, it does to all of them.
fn side_by_side() -> Result<()> {
    const WAYS: [(&str, &str); 3] =
        [("streaming", ""), ("lazy", "landfall.ram=lazy"), ("copy", "landfall.ram=copy")];
    const ROUNDS: usize = 3;
    let site = Site::new("bench-init", PAYLOAD_MIB)?;
    for accel in [Accel::Counted, Accel::best()] {
        let mut times = WAYS.map(|_| Vec::new());
        for _ in 0..if accel == Accel::Counted { 1 } else { ROUNDS } {
            for ((_, words), times) in WAYS.iter().zip(&mut times) {
                times.push(boot(&site.lab, Kernel::V6_12, accel, words)?);
            }
        }
        println!("to the real init on {accel:?}, {PAYLOAD_MIB} MiB   fastest  median  slowest");
        for ((name, _), times) in WAYS.iter().zip(times) {
            if let Some([fastest, median, slowest]) = soak::spread(times) {
                println!("    {name:<32} {fastest:>7.2} {median:>7.2}  {slowest:>7.2} s");
            }
        }
    }
    Ok(())
}

/// From `/init` to the exec of the real init, as the agent counts it, and the rate of a copy, as
/// the agent says it.
fn boot(lab: &Lab, kernel: Kernel, accel: Accel, words: &str) -> Result<f64> {
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
        Ok(seconds)
    })
}
