//! `systemd-analyze` knows how long it took until there was a root, and systemd is otherwise what
//! it would have been.

use anyhow::{Context, Result, ensure};
use landfall_tests::{Kernel, Lab, Nbd, NbdKind, workshop};

use crate::{usual_dhcp, usual_vm};

/// What a boot left.
struct Found {
    analyze: String,
    /// Seconds of the firmware's successor, ours, by systemd's own count; 0: it knows of none.
    initrd: f64,
    /// Seconds that our own report has.
    report: f64,
    failed: Vec<String>,
    /// Units that are active, without those of sessions and of their moment.
    active: Vec<String>,
    state: String,
    warnings: Vec<String>,
}

fn boot(test: &str, root: &str, kernel: Kernel, words: &str) -> Result<Found> {
    let lab = Lab::new(test)?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let nbd = Nbd::new(&lab, NbdKind::NbdServer).export("root", &workshop::debian(root)?);
    let _nbd = nbd.start()?;
    let machine = usual_vm(&lab, kernel, words)?.memory_mib(1024).boot()?;
    let node = machine.node()?;
    // Prints the state when the boot is over, whatever it is.
    let state = node.run(&["systemctl", "is-system-running", "--wait"])?.stdout.trim().to_owned();
    let analyze = node.output(&["systemd-analyze", "time"])?;
    let property = |name: &str| -> Result<f64> {
        let shown = node.output(&["systemctl", "show", "--value", "-p", name])?;
        Ok(shown.trim().parse::<f64>().context(shown.clone())? / 1e6)
    };
    let initrd = match property("InitRDTimestampMonotonic")? {
        0.0 => 0.0,
        began => property("UserspaceTimestampMonotonic")? - began,
    };
    let report: serde_json::Value = serde_json::from_str(&node.file("/run/landfall/report.json")?)?;
    let list = |state: &str| -> Result<Vec<String>> {
        let shown = node.output(&[
            "systemctl",
            "list-units",
            "--no-legend",
            "--plain",
            "--full",
            &format!("--state={state}"),
        ])?;
        let names = shown.lines().filter_map(|line| line.split_whitespace().next());
        // Devices, and what comes and goes with timers, depend on the moment.
        let steady = |name: &&str| ![".device", ".scope"].iter().any(|end| name.ends_with(end));
        let mut names: Vec<_> = names.filter(steady).map(str::to_owned).collect();
        names.sort();
        Ok(names)
    };
    let journal = node.output(&["journalctl", "-b", "-p", "warning", "_PID=1", "-o", "cat"])?;
    Ok(Found {
        initrd,
        report: report["seconds"].as_f64().context("no seconds")?,
        failed: list("failed")?,
        active: list("active")?,
        warnings: journal.lines().map(str::to_owned).collect(),
        analyze,
        state,
    })
}

/// Told or not, systemd must come to the same system.
fn analyzes(root: &str, kernel: Kernel) -> Result<()> {
    let told = boot(&format!("analyze-{root}"), root, kernel, "")?;
    let untold = boot(&format!("analyze-{root}-off"), root, kernel, "landfall.initrd-time=off")?;

    ensure!(told.analyze.contains("(initrd)"), "{}", told.analyze);
    // The rest is freeing the initramfs and reading systemd itself from the server.
    let rest = told.initrd - told.report;
    ensure!((0.0..10.0).contains(&rest), "{} s, and {} s in the report", told.initrd, told.report);
    ensure!(!untold.analyze.contains("(initrd)") && untold.initrd == 0.0, "{}", untold.analyze);
    eprintln!("{root}: {}", told.analyze.lines().next().unwrap_or_default());

    ensure!(
        told.failed == untold.failed,
        "{:?} failed, and {:?} without",
        told.failed,
        untold.failed
    );
    ensure!(told.state == untold.state, "{}, and {} without", told.state, untold.state);
    ensure!(
        told.active == untold.active,
        "{:?} are active, and {:?} without",
        told.active,
        untold.active
    );
    let new: Vec<_> = told.warnings.iter().filter(|line| !untold.warnings.contains(line)).collect();
    ensure!(new.is_empty(), "systemd warns of {new:?}");
    Ok(())
}

#[test]
#[ignore = "boots a virtual machine"]
fn bookworm_knows_the_time_before_it() -> Result<()> {
    analyzes("bookworm", Kernel::V6_1)
}

#[test]
#[ignore = "boots a virtual machine"]
fn trixie_knows_the_time_before_it() -> Result<()> {
    analyzes("trixie", Kernel::V6_12)
}
