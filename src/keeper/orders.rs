//! What the agent tells the keeper: one JSON document a line.

use serde::{Deserialize, Serialize};

use super::network::orders::NetworkOrders;
use crate::root::identity::{Identity, Region};
use crate::root::{LostPolicy, Peer, Source};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Order {
    /// To be taken when the keeper has settled.
    Begin {
        /// `landfall.debug`
        debug: bool,
    },
    /// The root is attached, and is to be kept from now on.
    Root(Box<RootOrders>),
    /// What the root's network is, which the agent has let go of.
    Network(Box<NetworkOrders>),
    /// The real init is about to be executed.
    HandedOver,
}

/// A root, and everything that is needed to read it from somewhere else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RootOrders {
    /// What people call the image.
    pub export: String,
    pub size_bytes: u64,
    pub backing: Backing,
    /// In the order in which this node asks them.
    pub sources: Vec<Source>,
    /// The one that was used at first.
    pub using: Peer,
    pub identity: Identity,
    /// Of the device that was mounted; none with larger ones can take its place.
    pub block_bytes: u32,
    /// Where the root is in an export.
    pub region: Region,
    /// Its number, if it is a partition.
    pub partition: Option<u32>,
    /// dm-verity is above all of it.
    pub is_verified: bool,
    /// The image is to be copied to memory.
    pub lazy: Option<LazyOrders>,
    pub lost: LostPolicy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backing {
    /// A multipath device over `/dev/nbd{index}`.
    Mapped { index: u32 },
    /// `/dev/nbd0` itself, which nobody can bring another server to.
    Nbd,
    /// A copy in memory.
    Memory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LazyOrders {
    /// Most bytes a second.
    pub rate: Option<u64>,
}
