//! Who the machine is to a server, in each family: the same as its firmware was, and as its running
//! system will be.

use std::path::Path;

use super::NetworkPlan;
use super::duid::{self, Duid};
use super::port::Port;
use super::{HardwareAddress, dhcp, dhcp6};
use crate::net::description::{Ipv6Method, Needs};

pub fn ipv4(plan: &NetworkPlan, port: &Port) -> dhcp::Identity {
    dhcp::Identity {
        hardware: HardwareAddress::Ethernet(port.link.mac),
        client_id: port.request.client_id.clone(),
        hostname: port.request.hostname.clone().or_else(|| plan.hostname.clone()),
        vendor_class: plan.vendor_class.clone(),
        uuid: plan.uuid,
        architecture: architecture(Path::new("/sys")),
        can_do_without_ipv4: port.request.ipv6 != Ipv6Method::Off
            && port.request.needs == Needs::Either,
    }
}

pub fn ipv6(plan: &NetworkPlan, port: &Port) -> dhcp6::Identity {
    dhcp6::Identity {
        duid: Duid::of_machine(plan.uuid, port.link.mac),
        iaid: duid::iaid(port.link.mac),
        hostname: port.request.hostname.clone().or_else(|| plan.hostname.clone()),
        class: plan.vendor_class.clone(),
        architecture: architecture(Path::new("/sys")),
    }
}

/// RFC 4578 and IANA's list: how the firmware of this machine boots from a network.
fn architecture(sys: &Path) -> Option<u16> {
    let efi_bits = std::fs::read_to_string(sys.join("firmware/efi/fw_platform_size"));
    let has_efi = sys.join("firmware/efi").exists();
    match (std::env::consts::ARCH, has_efi, efi_bits.as_deref().map(str::trim)) {
        ("x86_64", true, Ok("32")) => Some(0x0006),
        ("x86_64", true, _) => Some(0x0007),
        ("x86_64", false, _) => Some(0x0000),
        ("aarch64", true, _) => Some(0x000b),
        // U-Boot, as the one that fetches a kernel on boards without UEFI.
        ("aarch64", false, _) => Some(0x0016),
        _ => None,
    }
}
