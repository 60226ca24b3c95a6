//! `cargo xtask soak`: many boots in a row, for what happens now and then.
//!
//! Streamed and lazily copied roots in turns, each kind on both kernels. Every boot must bring every
//! byte of the image into the running system, whose reader must not have seen one error, nor have
//! waited longer for a read than stated; a lazy one also after its server was let go.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use landfall_tests::{
    Dnsmasq, Initramfs, Kernel, Lab, Machine, Nbd, NbdKind, ProbeRoot, SERVER, Vm, reader_words,
};
use serde_json::Value;

use crate::interrupt::{self, Interrupt};
use crate::stages::Report;
use crate::{agent, kernels, namespace, needs};

/// Some seconds of copying on an emulated machine.
const PAYLOAD_MIB: u32 = 16;

#[derive(clap::Args)]
pub struct Options {
    /// How many boots.
    #[arg(default_value_t = 200)]
    boots: u32,
    #[command(flatten)]
    bounds: Bounds,
    #[arg(long, hide = true)]
    prepared: bool,
}

/// What is longer is a failure of that boot. A machine that is emulated on a host with more to do
/// than it has cores stands still by itself for a second now and then.
#[derive(Clone, Copy, clap::Args)]
struct Bounds {
    /// Longest that any read may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    pause: f64,
    /// Longest that a root may stand still while it moves to memory.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.25)]
    flip: f64,
}

/// What is booted in turns.
const KINDS: [Kind; 4] = [
    Kind { name: "streaming", lazy: false, kernel: Kernel::V6_12 },
    Kind { name: "lazy", lazy: true, kernel: Kernel::V6_12 },
    Kind { name: "streaming", lazy: false, kernel: Kernel::V6_1 },
    Kind { name: "lazy", lazy: true, kernel: Kernel::V6_1 },
];

struct Kind {
    name: &'static str,
    lazy: bool,
    kernel: Kernel,
}

pub fn run(options: &Options) -> Result<()> {
    if options.prepared {
        return soak(options.boots, options.bounds);
    }
    needs::tests()?;
    agent::build()?;
    agent::build_probe()?;
    for kernel in Kernel::AMD64 {
        kernels::prepare(kernel)?;
    }
    // It is the inner program that heeds it.
    interrupt::block()?;
    let Bounds { pause, flip } = options.bounds;
    let words = [options.boots.to_string(), format!("--pause={pause}"), format!("--flip={flip}")];
    let words = words.iter().map(String::as_str);
    namespace::run_self(&["soak", "--prepared"].into_iter().chain(words).collect::<Vec<_>>())
}

/// How one boot went.
struct Outcome {
    /// From `/init` to the exec of the real init, as the agent counts it.
    to_init: f64,
    /// Of a root that was copied behind the running system.
    moved: Option<Moved>,
    /// 0 when no read took a tenth of a second, from which on the reader takes note.
    longest_pause: f64,
}

#[derive(Clone, Copy)]
struct Moved {
    /// From power-on to where the copy is in memory.
    after: f64,
    /// For how long the keeper had the root stand still.
    flip: f64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "init after {:.2} s", self.to_init)?;
        if let Some(Moved { after, flip }) = self.moved {
            write!(f, ", in memory after {after:.1} s, flip {flip:.3} s")?;
        }
        write!(f, ", longest pause {:.2} s", self.longest_pause)
    }
}

impl Outcome {
    fn check(&self, bounds: Bounds) -> Result<()> {
        let Bounds { pause, flip } = bounds;
        let longest = self.longest_pause;
        ensure!(longest <= pause, "a read took {longest:.2} s, and may take {pause} s");
        let own = self.moved.map_or(0.0, |moved| moved.flip);
        ensure!(
            own <= flip,
            "the root stood still for {own:.3} s at its flip, and may for {flip} s"
        );
        Ok(())
    }
}

fn soak(boots: u32, bounds: Bounds) -> Result<()> {
    let interrupt = Interrupt::heed("stopping after this boot")?;
    let lab = Lab::new("soak")?;
    let tftp = lab.served("tftp", &[("ltsp/amd64/lts.conf", "[default]\nRACK = 1\n")])?;
    let _dhcp = Dnsmasq::new().tftp(&tftp).start(&lab)?;
    let image = ProbeRoot::new(&lab)?.payload_mib(PAYLOAD_MIB)?.pack()?;
    let _root = Nbd::new(&lab, NbdKind::NbdServer).export("root", &image).start()?;

    let Bounds { pause, flip } = bounds;
    println!("{boots} boots; no read may take more than {pause} s, no flip more than {flip} s");
    let mut went: Vec<(&Kind, Outcome)> = Vec::new();
    let (mut failed, mut booted) = (Vec::new(), 0);
    for (number, kind) in (1..=boots).zip(KINDS.iter().cycle()) {
        if interrupt.typed() {
            break;
        }
        let began = Instant::now();
        let outcome = boot(&lab, kind, &image);
        let seconds = began.elapsed().as_secs_f64();
        let (name, series) = (kind.name, kind.kernel.series());
        let title = format!("{number:>4}/{boots}  {name:<9}  {series:<4}  {seconds:>6.1} s");
        booted = number;
        let trouble = match outcome {
            Ok(outcome) => {
                println!("{title}: {outcome}");
                let trouble = outcome.check(bounds).err();
                went.push((kind, outcome));
                trouble
            }
            Err(error) => Some(error),
        };
        if let Some(error) = trouble {
            let kept = lab.file(&format!("failed-{number:03}.console.log"));
            fs::copy(lab.file("machine.console.log"), &kept)?;
            let error = format!("{error:#}");
            let why = error.lines().next().unwrap_or_default();
            println!("{title}: FAILED: {why}; console: {}", kept.display());
            failed.push(number);
        }
    }
    summarise(&went);
    ensure!(failed.is_empty(), "{} of {booted} boots failed: {failed:?}", failed.len());
    println!("none of {booted} boots failed");
    Ok(())
}

/// Of those that came up, also where something took too long.
fn summarise(went: &[(&Kind, Outcome)]) {
    println!("\nseconds                            boots    least   median     most");
    for name in ["streaming", "lazy"] {
        let own: Vec<_> = went.iter().filter(|(kind, _)| kind.name == name).collect();
        let moved = || own.iter().filter_map(|(_, outcome)| outcome.moved);
        let rows: [(&str, Vec<f64>); 4] = [
            ("to the real init", own.iter().map(|(_, outcome)| outcome.to_init).collect()),
            ("power-on to in memory", moved().map(|moved| moved.after).collect()),
            ("flip to memory", moved().map(|moved| moved.flip).collect()),
            ("longest pause", own.iter().map(|(_, outcome)| outcome.longest_pause).collect()),
        ];
        for (what, seconds) in rows {
            let boots = seconds.len();
            if let Some([least, median, most]) = spread(seconds) {
                println!("{name:<10} {what:<22} {boots:>6} {least:>8.3} {median:>8.3} {most:>8.3}");
            }
        }
    }
}

/// The least, the middle and the most.
pub fn spread(mut seconds: Vec<f64>) -> Option<[f64; 3]> {
    seconds.sort_by(f64::total_cmp);
    Some([*seconds.first()?, *seconds.get(seconds.len() / 2)?, *seconds.last()?])
}

/// A machine with the reader, which the boot itself starts: there is no systemd in a probe root.
pub fn with_reader<'lab>(lab: &'lab Lab, kernel: Kernel, words: &str) -> Result<Vm<'lab>> {
    let words = format!("root=nbd:{SERVER}:root panic=1 {words} {}", reader_words(false));
    let initramfs = Initramfs::new(kernel).reader()?.build()?;
    Ok(lab.vm(kernel).initramfs(initramfs).reader_port().cmdline(&words))
}

fn boot(lab: &Lab, kind: &Kind, image: &Path) -> Result<Outcome> {
    let words = if kind.lazy { "landfall.ram=lazy" } else { "" };
    let mut machine = with_reader(lab, kind.kernel, words)?.boot()?;
    let outcome = look(&machine, kind, image)?;
    machine.gone(Duration::from_secs(60))?;
    Ok(outcome)
}

fn look(machine: &Machine, kind: &Kind, image: &Path) -> Result<Outcome> {
    let node = machine.node()?;
    let reader = machine.reader(image)?;
    let to_init = Report::of(&node)?.seconds();
    let moved = match kind.lazy {
        true => {
            let status = reader.copied_to(1.0)?;
            let flip = status.pointer("/copy/flip_seconds").and_then(Value::as_f64);
            let flip = flip.with_context(|| format!("no flip: {status}"))?;
            Some(Moved { after: machine.age().as_secs_f64(), flip })
        }
        false => None,
    };
    reader.drop_caches()?;
    reader.device_is_the_image()?;
    reader.reads_on()?;
    let longest_pause = reader.never_failed()?.longest_since(0.0);
    machine.never_said("FAILED")?;
    node.power_off()?;
    Ok(Outcome { to_init, moved, longest_pause })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn what_takes_longer_than_it_may_is_a_failure() {
        let bounds = Bounds { pause: 3.0, flip: 0.25 };
        let cases = [
            (0.0, None,       None),
            (3.0, Some(0.25), None),
            (3.1, Some(0.01), Some("a read took 3.10 s, and may take 3 s")),
            (0.4, Some(0.3),  Some("the root stood still for 0.300 s at its flip, and may for 0.25 s")),
        ];
        for (longest_pause, flip, expected) in cases {
            let moved = flip.map(|flip| Moved { after: 9.0, flip });
            let outcome = Outcome { to_init: 1.0, moved, longest_pause };
            let error = outcome.check(bounds).err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), expected, "{outcome}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_spread_is_the_least_the_middle_and_the_most() {
        let cases = [
            (vec![],                   None),
            (vec![2.0],                Some([2.0, 2.0, 2.0])),
            (vec![3.0, 1.0, 2.0],      Some([1.0, 2.0, 3.0])),
            (vec![4.0, 1.0, 2.0, 3.0], Some([1.0, 3.0, 4.0])),
        ];
        for (seconds, expected) in cases {
            assert_eq!(spread(seconds.clone()), expected, "{seconds:?}");
        }
    }
}
