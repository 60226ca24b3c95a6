//! Networks without DHCP.

use anyhow::{Context, Result};
use landfall_tests::{Kernel, Lab, tftpd};

use crate::{usual_root, usual_vm};

/// Machines in a rack without DHCP are configured by their boot loader alone.
#[test]
#[ignore = "boots a virtual machine"]
fn a_static_address_needs_no_dhcp_server() -> Result<()> {
    let lab = Lab::new("static-address")?;
    let _nbd = usual_root(&lab)?;
    let text = "[default]\nPREINIT_1 = \"echo fetched > /etc/mark\"\n";
    let folder = lab.served("tftp", &[("ltsp/amd64/lts.conf", text)])?;
    let _tftp = tftpd(&lab, &folder, &[])?;

    let words = "ip=10.77.0.9:10.77.0.1:10.77.0.1:255.255.255.0:node9::off:10.77.0.1";
    let machine = usual_vm(&lab, Kernel::V6_12, words)?.boot()?;
    let node = machine.node()?;
    let state = node.state()?;
    let link = state
        .links
        .iter()
        .find(|link| link.addresses == ["10.77.0.9/24"])
        .with_context(|| format!("{:?}", state.links))?;
    assert!(link.up && link.carrier, "{link:?}");
    assert_eq!(state.host_name, "node9");
    let default = state.routes.iter().find(|route| route.to == "0.0.0.0/0");
    assert_eq!(default.and_then(|route| route.via.as_deref()), Some("10.77.0.1"));
    // The boot server of the command line is where LTSP's rule looks.
    assert_eq!(node.file("/etc/mark")?.trim(), "fetched");
    Ok(())
}
