//! What the command line asks of the network, as `cmdline/` reads it and `net` carries it out.

use std::net::IpAddr;

use super::description::{Description, HandoverMode};
use super::port::Family;

/// One machine's request: its links and their addresses, and who the machine says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPlan {
    /// What was said about links, addresses and routes.
    pub description: Description,
    /// The family of the root's server, where that is an address.
    pub root_family: Option<Family>,
    pub handover: HandoverMode,
    /// Second field of `ip=`, name or address: overrides whatever boot server DHCP names.
    pub boot_server: Option<String>,
    /// Sent to the DHCP server as option 12, and stronger than the name it answers with.
    pub hostname: Option<String>,
    /// From `ip=`; in front of those of the lease.
    pub dns: Vec<IpAddr>,
    pub ntp: Vec<IpAddr>,
    /// Option 60; never `PXEClient`, which would draw us into PXE pools.
    pub vendor_class: String,
    /// SMBIOS system UUID as the firmware stores it, for option 97 (RFC 4578 section 2.3).
    pub uuid: Option<[u8; 16]>,
    /// The root still has to come from a lease, so a lease that names one beats an earlier one.
    pub root_from_dhcp: bool,
    /// Where no lease says so, LTSP's usual export of whoever gave the lease will do.
    pub has_usual_root: bool,
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// DHCP on every link, and nothing else asked for.
    pub fn plan() -> NetworkPlan {
        NetworkPlan {
            description: Description::default(),
            root_family: None,
            handover: HandoverMode::Dhcp,
            boot_server: None,
            hostname: None,
            dns: Vec::new(),
            ntp: Vec::new(),
            vendor_class: "landfall".into(),
            uuid: None,
            root_from_dhcp: false,
            has_usual_root: false,
        }
    }
}
