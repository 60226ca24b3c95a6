//! Options of a bond: one table from the words of `bond=` to the kernel's attributes and to the
//! keys of who runs the network later.

/// `mode=802.3ad,miimon=100,…`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BondOptions {}

impl BondOptions {
    pub fn attributes(&self) -> Vec<rtnetlink::packet_route::link::InfoBond> {
        Vec::new()
    }
}
