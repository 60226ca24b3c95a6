//! From carrier to a configured address, and how much of that the server took.
//!
//! The agent notes in the kernel's log what it asks and what it hears, and the kernel notes when:
//! one clock for everything, that of the machine. What passes between a question and its answer is
//! the server's and the wire's; all the rest is ours.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use landfall_tests::{
    Accel, Daemon, Dnsmasq, Initramfs, Ipv6, Kernel, Lab, Nbd, NbdKind, ProbeRoot, SERVER, SERVER6,
    tftpd,
};

use crate::say;

/// Ours alone, milliseconds.
const AIM: f64 = 150.0;

const CONFIGURATION: (&str, &str) = ("ltsp/amd64/lts.conf", "[default]\nRACK = 1\n");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Ipv4,
    Ipv6,
}

/// One card and one server, which answers at once.
pub fn measure(family: Family, kernel: Kernel, accel: Accel) -> Result<()> {
    let name = format!("{family:?} on Linux {} on {accel:?}", kernel.series());
    say::step(&name, || {
        let lab = Lab::new(&format!("bench-{family:?}").to_lowercase())?;
        let (lab, server) = match family {
            Family::Ipv4 => (lab, SERVER.to_string()),
            Family::Ipv6 => (lab.with_ipv6()?, format!("[{SERVER6}]")),
        };
        let _servers = servers(&lab, family)?;
        let image = ProbeRoot::new(&lab)?.pack()?;
        let _root = Nbd::new(&lab, NbdKind::NbdServer).export("root", &image).start()?;
        let words = format!(
            "root=nbd:{server}:root panic=1 landfall.config=tftp://{server}/ltsp/amd64/lts.conf"
        );
        let vm = lab.vm(kernel).initramfs(Initramfs::new(kernel).build()?).accel(accel);
        let mut machine = vm.cmdline(&words).boot()?;
        let log = {
            let node = machine.node_within(Duration::from_secs(600))?;
            let log = node.output(&["/bin/busybox", "dmesg"])?;
            node.power_off()?;
            log
        };
        machine.gone(Duration::from_secs(60))?;
        let arrival = Arrival::read(&log, family)?;
        let (total, theirs) = (arrival.total(), arrival.theirs());
        let ours = total - theirs;
        println!(
            "{name}: {total:.0} ms from carrier to address, of which the server took {theirs:.0}; \
             {ours:.0} are ours (aim: {AIM:.0})"
        );
        for Step { what, millis, .. } in &arrival.steps {
            println!("    {what:<28} {millis:>7.1}");
        }
        Ok(())
    })
}

fn servers(lab: &Lab, family: Family) -> Result<Vec<Daemon>> {
    let folder = lab.served("tftp", &[CONFIGURATION])?;
    Ok(match family {
        Family::Ipv4 => vec![Dnsmasq::new().tftp(&folder).start(lab)?],
        Family::Ipv6 => {
            let router = Dnsmasq::new().without_ipv4().ipv6(Ipv6::Slaac).start(lab)?;
            vec![router, tftpd(lab, &folder, &[])?]
        }
    })
}

/// What happened one after another.
#[derive(Debug, PartialEq)]
struct Arrival {
    steps: Vec<Step>,
}

#[derive(Debug, PartialEq)]
struct Step {
    what: &'static str,
    /// Since the step before.
    millis: f64,
    is_theirs: bool,
}

/// Words of the agent's lines that end a step, and whether somebody else took the time.
const IPV4: [(&str, &str, bool); 5] = [
    ("DHCP servers are asked", "to the question", false),
    // The client answers within the same step.
    ("Offer from", "to the offer", true),
    ("Ack from", "to the lease", true),
    ("lease of", "to its being nobody else's", false),
    (" is ", "to the address", false),
];
const IPV6: [(&str, &str, bool); 3] = [
    ("routers are asked", "to the question", false),
    ("a router is there", "to the answer", true),
    (" is ", "to the address", false),
];
const IPV6_BY_ITSELF: [(&str, &str, bool); 2] =
    [("a router is there", "to the answer", false), (" is ", "to the address", false)];

impl Arrival {
    fn read(log: &str, family: Family) -> Result<Self> {
        let lines: Vec<_> = log.lines().filter_map(line).collect();
        let mut lines = lines.into_iter();
        let mut until = |words: &str| {
            let found = lines.find(|(_, text)| text.contains(words));
            found.map(|(at, _)| at).with_context(|| format!("the log has no \"{words}\":\n{log}"))
        };
        let mut before = until(": carrier")?;
        let mut steps = Vec::new();
        let marks: &[_] = match family {
            Family::Ipv4 => &IPV4,
            Family::Ipv6 if log.contains("routers are asked (1)") => &IPV6,
            // The kernel was faster, and says nothing of it.
            Family::Ipv6 => &IPV6_BY_ITSELF,
        };
        for (words, what, is_theirs) in marks {
            let at = until(words)?;
            ensure!(at >= before, "the log goes back in time:\n{log}");
            steps.push(Step { what, millis: (at - before) * 1000.0, is_theirs: *is_theirs });
            before = at;
        }
        Ok(Self { steps })
    }

    fn total(&self) -> f64 {
        self.steps.iter().map(|step| step.millis).sum()
    }

    fn theirs(&self) -> f64 {
        self.steps.iter().filter(|step| step.is_theirs).map(|step| step.millis).sum()
    }
}

/// Seconds and text of a line `[    1.234567] landfall: network: …`.
fn line(line: &str) -> Option<(f64, &str)> {
    let (time, text) = line.strip_prefix('[')?.split_once(']')?;
    let text = text.trim_start().strip_prefix("landfall: network: ")?;
    Some((time.trim().parse().ok()?, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
[    0.900000] virtio_net virtio0 eth0: renamed
[    1.000000] landfall: network: eth0: carrier
[    1.001000] landfall: network: eth0: DHCP servers are asked (1)
[    1.002000] landfall: network: eth0: routers are asked (1)
[    1.051500] landfall: network: eth0: DHCP servers are asked (2)
[    1.052000] landfall: network: eth0: Offer from 10.77.0.1
[    1.052500] landfall: network: eth0: offer of 10.77.0.50/24 from 10.77.0.1
[    1.053000] landfall: network: eth0: DHCP servers are asked (3)
[    1.057000] landfall: network: eth0: Ack from 10.77.0.1
[    1.132000] landfall: network: eth0: lease of 10.77.0.50 from 10.77.0.1
[    1.140000] landfall: network: eth0 is 10.77.0.50/24, lease of 3600 s from 10.77.0.1
";

    #[test]
    fn what_is_between_question_and_answer_is_the_servers() {
        let arrival = Arrival::read(LOG, Family::Ipv4).unwrap();
        assert_eq!(arrival.total().round(), 140.0, "{arrival:?}");
        // A question that was said twice was open from the first time on.
        assert_eq!(arrival.theirs().round(), 56.0, "{arrival:?}");
        let error = Arrival::read(LOG, Family::Ipv6).unwrap_err().to_string();
        assert!(error.starts_with("the log has no \"a router is there\""), "{error}");
        let by_itself = "\
[    1.000000] landfall: network: eth0: carrier
[    1.070000] landfall: network: eth0: a router is there
[    1.130000] landfall: network: eth0 is fd77::1/64 through fe80::1
";
        let arrival = Arrival::read(by_itself, Family::Ipv6).unwrap();
        assert_eq!((arrival.total().round(), arrival.theirs()), (130.0, 0.0), "{arrival:?}");
    }
}
