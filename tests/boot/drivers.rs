//! Hardware that the image was not narrowed to.

use anyhow::{Context, Result};
use landfall_tests::protocol::Kind;
use landfall_tests::{Initramfs, Kernel, Lab};

use crate::{ROOT, usual_dhcp, usual_root};

/// What a newcomer builds: nothing is named, so the card's modalias must find its driver among
/// all of them, and the driver's dependencies must be there. All other tests know their card.
#[test]
#[ignore = "boots a virtual machine"]
fn the_default_image_drives_a_real_card_and_taints_nothing() -> Result<()> {
    let lab = Lab::new("default-image")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;
    let initramfs = Initramfs::default_of_the_builder(Kernel::V6_12).build()?;

    let vm = lab.vm(Kernel::V6_12).initramfs(initramfs).nic_model("rtl8139").cmdline(ROOT);
    let machine = vm.boot()?;
    let node = machine.node()?;
    assert_eq!(node.mount("/")?.fstype, "overlay");
    let state = node.state()?;
    assert_eq!(state.tainted, 0, "signed modules taint nothing");

    let wired = state.links.iter().find(|link| !link.addresses.is_empty() && link.name != "lo");
    let link = wired.with_context(|| format!("no link has an address: {:?}", state.links))?;
    let driver = node.info(&format!("/sys/class/net/{}/device/driver", link.name))?;
    let Kind::Link(driver) = driver.kind else { panic!("{driver:?}") };
    assert_eq!(driver.rsplit('/').next(), Some("8139cp"));
    // Its dependency came along.
    let modules = node.file("/proc/modules")?;
    let mii = modules.lines().find(|line| line.starts_with("mii "));
    assert!(mii.is_some_and(|line| line.contains("8139cp")), "{modules}");
    Ok(())
}
