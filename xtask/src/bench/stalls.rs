//! How long a root stands still that changes its server, and one that moves to memory, as its reader
//! sees it: two lines of reads all the time, a few dozen a second each.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use landfall_tests::{Dnsmasq, Kernel, Lab, Nbd, NbdKind, ProbeRoot, Reader};
use serde_json::Value;

use crate::{say, soak};

const ROUNDS: usize = 5;
/// Long enough for a copy to be seen while it is under way.
const PAYLOAD_MIB: u32 = 32;
const KERNEL: Kernel = Kernel::V6_12;
/// What is aimed at, in seconds, by the median: one round of five may meet whatever else the host
/// has to do.
const FAILOVER: f64 = 1.0;
const FLIP: f64 = 0.1;
const MIRROR: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 77, 0, 2);

pub fn measure() -> Result<()> {
    let lab = Lab::new("bench-stalls")?;
    lab.add_address(MIRROR)?;
    let tftp = lab.served("tftp", &[("ltsp/amd64/lts.conf", "[default]\nRACK = 1\n")])?;
    let _dhcp = Dnsmasq::new().tftp(&tftp).start(&lab)?;
    let image = ProbeRoot::new(&lab)?.payload_mib(PAYLOAD_MIB)?.pack()?;
    let server = || Nbd::new(&lab, NbdKind::NbdServer).export("root", &image);
    let mut two = [server().start()?, server().on(MIRROR).start()?];
    for server in &two {
        server.count(&lab)?;
    }
    let mirror = format!("landfall.mirror=nbd://{MIRROR}/root");

    let mut missed = Vec::new();
    say::step("servers that are killed, and servers that hang", || {
        let (mut quiet, mut killed, mut hung) = (0.0_f64, Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            // Each time a machine that has never lost a server: those who lose one after the other
            // are right to become patient.
            let machine = soak::with_reader(&lab, KERNEL, &mirror)?.boot()?;
            let (node, reader) = (machine.node()?, machine.reader(&image)?);
            // What an emulated machine takes for its reads while nothing happens.
            quiet = quiet.max(pause(&reader, || {
                thread::sleep(Duration::from_secs(2));
                Ok(())
            })?);
            let (lost, _) = reader.serving(&lab, &mut two)?;
            killed.push(pause(&reader, || {
                lost.kill();
                Ok(())
            })?);
            lost.start_again()?;
            let (lost, _) = reader.serving(&lab, &mut two)?;
            hung.push(pause(&reader, || lost.hang())?);
            lost.go_on()?;
            node.power_off()?;
        }
        println!("longest pause while nothing happens: {quiet:.2} s");
        // What happens by itself is no stall of a failover's.
        missed.extend(tell("pause when a server is killed", killed, Some(FAILOVER + quiet))?);
        // After it could as well be one that is slow.
        missed.extend(tell("pause when a server hangs", hung, Some(2.0 * FAILOVER + quiet))?);
        Ok(())
    })?;
    say::step("roots that move to memory", || {
        let (mut while_copying, mut around, mut flips) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let words = "landfall.ram=lazy landfall.ram.rate=6M";
            let machine = soak::with_reader(&lab, KERNEL, words)?.boot()?;
            let (node, reader) = (machine.node()?, machine.reader(&image)?);
            while_copying.push(pause(&reader, || reader.copied_to(0.8).map(drop))?);
            around.push(pause(&reader, || reader.copied_to(1.0).map(drop))?);
            let status = reader.status()?;
            let flip = status.pointer("/copy/flip_seconds").and_then(Value::as_f64);
            flips.push(flip.with_context(|| format!("no flip: {status:#}"))?);
            node.power_off()?;
        }
        tell("longest pause while the image is copied", while_copying, None)?;
        tell("longest pause around the flip to memory", around, None)?;
        missed.extend(tell("the flip itself", flips, Some(FLIP))?);
        Ok(())
    })?;
    // Only now: who misses one aim wants to know the other numbers too.
    ensure!(missed.is_empty(), "{}", missed.join("; "));
    Ok(())
}

/// The longest pause until a few reads after the event; none may fail.
fn pause(reader: &Reader<'_>, event: impl FnOnce() -> Result<()>) -> Result<f64> {
    let before = reader.report()?.at;
    let began = Instant::now();
    event()?;
    reader.reads_on()?;
    let pause = reader.never_failed()?.longest_since(before);
    ensure!(pause <= began.elapsed().as_secs_f64() + 1.0, "a pause of {pause} s from before");
    Ok(pause)
}

/// Says them; a sentence if the one in the middle is longer than it may be.
fn tell(what: &str, pauses: Vec<f64>, aim: Option<f64>) -> Result<Option<String>> {
    let count = pauses.len();
    let Some([least, median, most]) = soak::spread(pauses) else { bail!("{what}: not measured") };
    println!("{what}, {count} times: {least:.3} s, median {median:.3} s, longest {most:.3} s");
    let missed = aim.filter(|aim| median >= *aim);
    Ok(missed.map(|aim| format!("{what}: {median:.3} s, and the aim is {aim:.3} s")))
}
