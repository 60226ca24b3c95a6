//! Settings in the running system.

use anyhow::Result;
use landfall_tests::{Dnsmasq, Kernel, Lab, Nbd, NbdKind, workshop};

use crate::usual_vm;

/// What container runtimes do: an overlay with its changes in their own folder, and a root that is
/// left by pivot_root(2). On the overlay of the root the first is impossible, and in a root that
/// was not reached by a change of root the second.
#[test]
#[ignore = "boots a virtual machine"]
fn containers_find_room_of_their_own() -> Result<()> {
    let lab = Lab::new("containers")?;
    let text = "[default]\nFSTAB_1 = \"tmpfs /var/lib/docker tmpfs mode=710 0 0\"\n";
    let tftp = lab.served("tftp", &[("ltsp/amd64/lts.conf", text)])?;
    let _dhcp = Dnsmasq::new().tftp(&tftp).start(&lab)?;
    let image = workshop::debian("trixie")?;
    let _nbd = Nbd::new(&lab, NbdKind::NbdServer).export("root", &image).start()?;

    let machine = usual_vm(&lab, Kernel::V6_12, "")?.memory_mib(1024).boot()?;
    let node = machine.node()?;
    let container = |folder: &str| {
        let script = format!(
            "set -e; mkdir -p {folder}/changes {folder}/work {folder}/root; \
             mount -t overlay overlay {folder}/root \
             -o lowerdir=/rofs,upperdir={folder}/changes,workdir={folder}/work; \
             cd {folder}/root; mkdir before; pivot_root . before; test -d /before/rofs; \
             echo here > /etc/container; cat /etc/container"
        );
        node.run(&["unshare", "--mount", "sh", "-c", &script])
    };
    let ran = container("/var/lib/docker")?;
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(0), "here\n"), "{ran:?}");
    assert!(!node.exists("/etc/container")?);
    // The reason for all of it.
    let ran = container("/srv")?;
    assert_ne!(ran.status, Some(0), "an overlay on the root's own overlay: {ran:?}");
    Ok(())
}
