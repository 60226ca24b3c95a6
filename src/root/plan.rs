//! What is asked of the root stage, decided before it runs.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::verity::VerityPlan;
use crate::config::means_yes;

/// Where the image comes from and how it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootPlan {
    /// The servers of one image, in the order in which this node asks them; never empty.
    pub exports: Vec<NbdExport>,
    pub ram: RamMode,
    /// Most bytes a second that a copy behind the running system reads.
    pub ram_rate: Option<u64>,
    pub lost: LostPolicy,
    /// None: what the server sends is believed.
    pub verity: Option<VerityPlan>,
    /// `pN` of `root=/dev/nbd0pN`: the partition that holds the root, else it is looked for.
    pub partition: Option<u32>,
    /// `rootfstype=`; else recognised from the image's first bytes.
    pub fstype: Option<String>,
    /// `rootflags=`, mount options of the image.
    pub flags: String,
}

/// An export of an NBD server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdExport {
    /// Name or address.
    pub host: String,
    pub port: u16,
    /// Tried in this order: `root=` spellings in the wild disagree about a leading slash (C81a).
    /// Never empty; the empty name is the server's default export.
    pub names: Vec<String>,
    /// Who said so, for messages: `nbdroot= on the kernel command line`, `DHCP option 17`.
    pub origin: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RamMode {
    /// Blocks are read from the server when they are needed.
    Off,
    /// The whole image is copied into memory before the real init starts.
    Copy,
    /// The real init starts at once, and the image is copied behind it.
    Lazy,
}

impl RamMode {
    /// What a value of `LTSP_NBD_TO_RAM` means.
    pub fn of_setting(value: &str) -> Self {
        match value {
            value if value.eq_ignore_ascii_case("lazy") => Self::Lazy,
            value if means_yes(value) => Self::Copy,
            _ => Self::Off,
        }
    }
}

/// What the keeper does while no server of a streamed root answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LostPolicy {
    #[default]
    Wait,
    /// Restarts the machine after this long.
    Reboot(Duration),
}

impl FromStr for LostPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        /// A server that restarts is no reason yet.
        const LEAST: u64 = 5;
        match text.split_once(':') {
            None if text == "wait" => Ok(Self::Wait),
            Some(("reboot", seconds)) => match seconds.parse() {
                Ok(seconds @ LEAST..=31_536_000) => Ok(Self::Reboot(Duration::from_secs(seconds))),
                Ok(_) => Err("SECONDS are from 5 to a year".to_owned()),
                Err(_) => Err(format!("\"{seconds}\" is not a number of seconds")),
            },
            _ => Err("may be wait or reboot:SECONDS".to_owned()),
        }
    }
}

impl fmt::Display for LostPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wait => f.write_str("wait"),
            Self::Reboot(after) => write!(f, "reboot:{}", after.as_secs()),
        }
    }
}

/// The order in which a node asks the servers of its image: each node has one of its own, the same
/// at every boot, so that a room of nodes shares its servers evenly, and those of one that is lost
/// go to all the others (rendezvous hashing: the highest hash of node and server together).
pub fn spread(exports: &mut [NbdExport], node: &[u8]) {
    exports.sort_by_cached_key(|export| {
        let server = format!("{}:{}", export.host, export.port);
        std::cmp::Reverse(hash(node.iter().chain(server.as_bytes())))
    });
}

/// FNV-1a, and the end of MurmurHash3 because servers differ in their last digits only. It must
/// stay as it is: two releases in one room shall agree.
fn hash<'a>(bytes: impl Iterator<Item = &'a u8>) -> u64 {
    let fnv = bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (fnv ^ fnv >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ mixed >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(count: u8) -> Vec<NbdExport> {
        let of = |n: u8| NbdExport {
            host: format!("10.0.0.{n}"),
            port: 10809,
            names: vec![String::new()],
            origin: "test".into(),
        };
        (1..=count).map(of).collect()
    }

    #[test]
    fn nodes_share_the_servers_and_inherit_evenly_from_a_lost_one() {
        let mut first = [0; 3];
        let mut heirs = [0; 3];
        for node in 0u16..1000 {
            let mac = [0x52, 0x54, 0, 0x12, (node >> 8) as u8, node as u8];
            let mut exports = servers(3);
            spread(&mut exports, &mac);
            let number =
                |export: &NbdExport| usize::from(export.host.as_bytes()[7].saturating_sub(b'1'));
            first[number(&exports[0])] += 1;
            if number(&exports[0]) == 0 {
                heirs[number(&exports[1])] += 1;
            }
            // A server more takes from all the others, and nobody changes between them.
            let mut more = servers(4);
            spread(&mut more, &mac);
            assert!(more[0] == exports[0] || more[0].host == "10.0.0.4", "node {node}");
        }
        assert!(first.iter().all(|count| (280..390).contains(count)), "{first:?}");
        assert!(heirs[1..].iter().all(|count| (120..220).contains(count)), "{heirs:?}");
    }

    #[test]
    fn the_order_of_a_node_is_the_same_for_ever() {
        let mut exports = servers(3);
        exports.reverse();
        spread(&mut exports, b"\x52\x54\x00\x12\x34\x56");
        let hosts: Vec<_> = exports.iter().map(|export| export.host.as_str()).collect();
        assert_eq!(hosts, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    }
}
