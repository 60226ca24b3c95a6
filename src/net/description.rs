//! A machine's network as somebody describes it: the words of the command line (`ip=`, `bond=`,
//! `vlan=` …) and the settings `NET_*` of lts.conf, which mean the same.
//!
//! Only what was asked for, in the order it was written; `topology` finds out how it fits together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::bond::BondOptions;
use super::{HardwareAddress, Mac};

/// Everything that was said about links, addresses and routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// `ip=`; none: every Ethernet port asks for addresses of both families.
    pub addresses: Vec<AddressRequest>,
    /// `BOOTIF=`: the port that the firmware has booted from, by its permanent address.
    pub bootif: Option<Mac>,
    /// `bootdev=`: of several links with an address, the one that the root is behind.
    pub bootdev: Option<String>,
    /// `ifname=NAME:ADDRESS`
    pub names: Vec<(String, HardwareAddress)>,
    pub bonds: Vec<Bond>,
    pub vlans: Vec<Vlan>,
    pub bridges: Vec<Bridge>,
    /// `rd.route=`
    pub routes: Vec<RouteRequest>,
    /// `nameserver=`, in front of those of a lease.
    pub dns: Vec<IpAddr>,
    /// `rd.peerdns=0` is false: name servers of DHCP and of router advertisements do not count.
    pub ignore_peer_dns: bool,
    pub timeouts: Timeouts,
}

/// How links are chosen that something is made of, or that an address is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// By the name that the kernel, or `ifname=`, gives.
    Name(String),
    /// `mac:52:54:00:aa:bb:cc`, or `enx525400aabbcc`: by the permanent address of a port.
    Mac(Mac),
    /// `driver:ixgbe`: every port of this kernel driver.
    Driver(String),
    /// `physical`: every port that a cable goes into.
    Physical,
}

/// `bond=NAME[:MEMBERS[:OPTIONS[:MTU]]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bond {
    pub name: String,
    pub members: Vec<Selector>,
    pub options: BondOptions,
    /// Bytes.
    pub mtu: Option<u32>,
}

/// `vlan=NAME:OVER`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vlan {
    pub name: String,
    /// 1 to 4094.
    pub id: u16,
    pub over: Selector,
}

/// `bridge=NAME[:PORTS]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    pub name: String,
    pub ports: Vec<Selector>,
}

/// One `ip=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRequest {
    /// `None`: whichever link gets one first.
    pub on: Option<Selector>,
    pub ipv4: Ipv4Method,
    pub ipv6: Ipv6Method,
    /// Which of the two the boot waits for.
    pub needs: Needs,
    /// Bytes.
    pub mtu: Option<u32>,
    /// The link gets this address instead of its own.
    pub cloned_mac: Option<Mac>,
    /// Second field, where it is no peer: name or address of the boot server.
    pub server: Option<String>,
    pub hostname: Option<String>,
    pub dns: Vec<IpAddr>,
    pub ntp: Vec<IpAddr>,
    /// `ip=dhcp,TYPE,TEXT`: type and bytes of DHCP option 61.
    pub client_id: Option<(u8, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv4Method {
    Off,
    /// `request`: an address to ask for, that the firmware or an earlier boot had.
    Dhcp {
        request: Option<Ipv4Addr>,
    },
    Static {
        address: Ipv4Addr,
        prefix: u8,
        gateway: Option<Ipv4Addr>,
        /// The other end of a link of two (`/31`, `/32`).
        peer: Option<Ipv4Addr>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6Method {
    /// Nobody here asks for anything; what the kernel makes of router advertisements stays.
    Off,
    /// Only the address that a link gives itself.
    LinkLocal,
    /// What routers advertise: addresses by SLAAC (RFC 4862), DHCPv6 as their flags say.
    Auto,
    /// An address by DHCPv6 whatever the flags say; routes come from routers all the same.
    Dhcp,
    Static {
        address: Ipv6Addr,
        prefix: u8,
        gateway: Option<Ipv6Addr>,
    },
}

/// Which families the boot waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    Either,
    Ipv4,
    Ipv6,
    /// Both, but after `rd.net.timeout.ip-required` (20 s) one will do.
    Both,
}

/// `rd.route=NETWORK/PREFIX:GATEWAY[:LINK]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRequest {
    pub to: IpNet,
    pub via: Option<IpAddr>,
    /// `None`: the link that the gateway is behind.
    pub on: Option<String>,
}

/// `rd.net.timeout.*` and `carrier_timeout=`, in seconds, where they mean something here: nothing
/// here gives up, so they say when something else may be taken instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// `rd.net.timeout.ip-required`
    pub both_families: Option<u32>,
    /// `rd.net.timeout.carrier`, `carrier_timeout`: how long other links wait for this one's carrier.
    pub carrier: Option<u32>,
    /// `rd.net.timeout.ipv6auto`, `rd.net.timeout.ipv6dad`: how long IPv6 is preferred.
    pub ipv6: Option<u32>,
}

/// `landfall.handover=`: who looks after the network of the running system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HandoverMode {
    /// The system's own software adopts the link and renews the lease.
    #[default]
    Dhcp,
    /// The lease becomes a static configuration that needs no server any more.
    Static,
    /// The system's software leaves the link alone.
    Unmanaged,
}
