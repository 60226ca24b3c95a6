//! The end of a running system whose root is on the network that it shuts down.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use landfall_tests::{Kernel, Lab, Nbd, NbdKind, workshop};

use crate::{usual_dhcp, usual_vm};

/// Plain networkd and ifupdown take the address away while systemd still needs the root, and
/// then nothing ever ends. Before that, systemd stops every process: whatever served the root in
/// user space would be stopped with them.
fn ends(test: &str, root: &str, words: &str, verb: &str, last_line: &str) -> Result<()> {
    let lab = Lab::new(test)?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd =
        Nbd::new(&lab, NbdKind::NbdServer).export("root", &workshop::debian(root)?).start()?;

    let mut machine = usual_vm(&lab, Kernel::V6_12, words)?.memory_mib(1024).boot()?;
    {
        let node = machine.node()?;
        let state = node.state()?;
        let link = state.links.iter().find(|link| !link.addresses.is_empty() && link.name != "lo");
        link.with_context(|| format!("no link has an address: {:?}", state.links))?;
        node.output(&["sh", "-c", "kill -STOP -1; kill -CONT -1"])?;
        node.drop_caches()?;
        ensure!(node.tree("/rofs/usr/sbin")?.files > 0, "the root cannot be read any more");
        node.begin(&["systemctl", verb])?;
    }
    machine.ended_by(last_line, Duration::from_secs(60))
}

#[test]
#[ignore = "boots a virtual machine"]
fn poweroff_of_a_networkd_root_ends() -> Result<()> {
    ends("poweroff-networkd", "networkd", "", "poweroff", "Power down")
}

#[test]
#[ignore = "boots a virtual machine"]
fn reboot_of_a_networkd_root_ends() -> Result<()> {
    ends("reboot-networkd", "networkd", "", "reboot", "Restarting system")
}

#[test]
#[ignore = "boots a virtual machine"]
fn poweroff_of_an_ifupdown_root_ends() -> Result<()> {
    ends("poweroff-ifupdown", "ifupdown", "", "poweroff", "Power down")
}

#[test]
#[ignore = "boots a virtual machine"]
fn reboot_of_an_ifupdown_root_ends() -> Result<()> {
    ends("reboot-ifupdown", "ifupdown", "", "reboot", "Restarting system")
}

/// Its loop device and its memory must not be waited for either.
#[test]
#[ignore = "boots a virtual machine"]
fn reboot_of_a_copied_root_ends() -> Result<()> {
    ends("reboot-copied", "trixie", "landfall.ram=copy", "reboot", "Restarting system")
}
