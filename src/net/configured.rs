//! A link of the machine and what it was given: what the network stage leaves behind, and what the
//! running system is told about.

use super::bond::BondOptions;
use super::description::{AddressRequest, RouteRequest};
use super::kernel::Origin;
use super::{Lease, Lease6, Mac};

/// One link that the boot has configured, or that such a link is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// In the initramfs: udev of the running system may rename a port.
    pub name: String,
    pub mac: Mac,
    /// The address that is burnt into a port, where the kernel tells.
    pub permanent_mac: Option<Mac>,
    pub composition: Composition,
    /// Name of the bond or bridge that it belongs to.
    pub master: Option<String>,
    /// Bytes, where somebody asked for a size: the command line, a lease or a router.
    pub mtu: Option<u32>,
    /// What was asked for it; none for what is only a part of something.
    pub request: Option<AddressRequest>,
    pub ipv4: Option<Lease>,
    /// Where `ipv4` is from.
    pub origin: Origin,
    pub ipv6: Option<Lease6>,
    /// Those of `rd.route=` that go over this link.
    pub routes: Vec<RouteRequest>,
    /// The root is behind it.
    pub boots: bool,
}

/// What a link is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Composition {
    Port,
    Bond {
        options: BondOptions,
    },
    /// `over`: the name of the link that it is on.
    Vlan {
        id: u16,
        over: String,
    },
    Bridge,
    /// Made by somebody before us, of links with these addresses (its own among them): nobody here
    /// has the recipe, and to describe a part of it is to have the rest taken apart.
    Foreign {
        beneath: Vec<Mac>,
    },
}
