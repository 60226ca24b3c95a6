//! Ports that are not ready when the machine is, and cables that come and go.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use landfall_tests::{Kernel, Lab, Nbd, NbdKind, Nic, ProbeRoot};

use crate::links::has_its_address_from;
use crate::{usual_dhcp, usual_root, usual_vm};

/// Optics, and ports that a switch trains for half a minute; others give up after 10 s or 20 s.
#[test]
#[ignore = "boots a virtual machine"]
fn carrier_that_comes_after_45_s_is_waited_for() -> Result<()> {
    let lab = Lab::new("carrier-late")?;
    let dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let vm = usual_vm(&lab, Kernel::V6_12, "")?.nic(Nic::on("br0").unplugged());
    let machine = vm.boot()?;
    machine.line("network: waiting for carrier on eth0")?;
    // The wait itself is what is tested.
    thread::sleep(Duration::from_secs(45).saturating_sub(machine.age()));
    assert!(!dhcp.log_text().contains("DHCPDISCOVER"), "it spoke into an unplugged cable");
    machine.cable(0, true)?;
    machine.line("network: eth0 is 10.77.0.")?;
    let asked = dhcp.log_text().matches("DHCPDISCOVER").count();
    ensure!((1..=2).contains(&asked), "{asked} questions until an answer was heard");
    has_its_address_from(&machine.node()?, &dhcp)?;
    machine.never_said("FAILED")
}

/// A cable that is not quite in.
#[test]
#[ignore = "boots a virtual machine"]
fn a_port_that_flaps_costs_patience_and_no_second_address() -> Result<()> {
    let lab = Lab::new("carrier-flaps")?;
    let dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let vm = usual_vm(&lab, Kernel::V6_12, "")?.nic(Nic::on("br0").unplugged());
    let machine = vm.boot()?;
    machine.line("network: waiting for carrier on eth0")?;
    // Too short for an answer at first, then long enough for one half of the boot and the other.
    for time in [1, 2, 5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 5, 200, 20, 400, 10, 800] {
        machine.cable(0, true)?;
        thread::sleep(Duration::from_millis(time));
        machine.cable(0, false)?;
        thread::sleep(Duration::from_millis(200));
    }
    machine.cable(0, true)?;
    has_its_address_from(&machine.node()?, &dhcp)?;
    let said = machine.console().iter().filter(|line| line.contains("network: ")).count();
    ensure!(said < 60, "{said} lines about one port");
    machine.never_said("FAILED")
}

/// Access ports without "portfast": listening, then learning, for 15 s each, in which nothing goes
/// through although the cable is fine.
#[test]
#[ignore = "boots a virtual machine"]
fn a_port_that_a_spanning_tree_keeps_shut_for_30_s_is_waited_for() -> Result<()> {
    let lab = Lab::new("carrier-spanning-tree")?;
    lab.spanning_tree(Duration::from_secs(15))?;
    let dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let machine = usual_vm(&lab, Kernel::V6_12, "")?.boot()?;
    // The console must not look dead meanwhile.
    machine.line("network: waiting for an offer")?;
    machine.line("network: eth0 is 10.77.0.")?;
    let address = machine.age();
    // Emulation can only make it longer.
    ensure!(address > Duration::from_secs(29), "the port was open after {address:?}");
    // The first question that got through was enough.
    let asked = dhcp.log_text().matches("DHCPDISCOVER").count();
    ensure!((1..=2).contains(&asked), "{asked} questions through an open port");
    has_its_address_from(&machine.node()?, &dhcp)?;
    machine.never_said("FAILED")
}

/// The running system reads on where it was, as from a disk with a hiccup.
#[test]
#[ignore = "boots a virtual machine"]
fn a_cable_that_is_out_for_20_s_only_delays_who_reads() -> Result<()> {
    let lab = Lab::new("carrier-lost")?;
    let dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let tree = ProbeRoot::new(&lab)?.payload_mib(8)?;
    let digest = tree.digest()?;
    let image = tree.pack()?;
    let _nbd = Nbd::new(&lab, NbdKind::Nbdkit)
        .export("root", &image)
        // A quarter of a minute for all of it, if nothing happened.
        .bits_per_second("4M")
        .start()?;

    let machine = usual_vm(&lab, Kernel::V6_12, "")?.boot()?;
    let node = machine.node()?;
    let address = has_its_address_from(&node, &dhcp)?;
    thread::scope(|scope| -> Result<()> {
        let reader = scope.spawn(|| node.tree("/rofs"));
        for _ in 0..2 {
            thread::sleep(Duration::from_secs(3));
            machine.cable(0, false)?;
            thread::sleep(Duration::from_secs(10));
            machine.cable(0, true)?;
        }
        let read = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        assert_eq!(read, digest);
        Ok(())
    })?;
    assert_eq!(has_its_address_from(&node, &dhcp)?, address);
    // Of a connection that was given up the kernel says so; the file system has heard of none.
    machine.never_said("SQUASHFS error")
}
