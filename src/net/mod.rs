//! Brings up the network that the plan asks for.

mod choice;
mod dhcp;
mod lease;
mod mac;
mod plan;

pub use lease::{Lease, Route};
pub use mac::Mac;
pub use plan::{Addressing, LinkChoice, NetworkPlan};
