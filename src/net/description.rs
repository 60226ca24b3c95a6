//! A machine's network as somebody describes it: the words of the command line (`ip=`, `bond=`,
//! `vlan=` …) and the settings `NET_*` of lts.conf, which mean the same.
//!
//! Only what was asked for, in the order it was written; `topology` finds out how it fits together.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::bond::BondOptions;
use super::kernel::Origin;
use super::{HardwareAddress, Mac};

mod consistency;
mod settings;
mod words;

pub use super::names::is_host_name;
pub use consistency::{About, Complaint};
pub use words::Line;

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
    /// `rd.net.timeout.ip-required`, in seconds; see [`Needs::Both`]. dracut's other timeouts end
    /// waits that nothing here gives up.
    pub one_family_after: Option<u32>,
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
    /// `physical`: every port of the board that a cable goes into.
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
        /// The other end of a link of two (`/127`, `/128`).
        peer: Option<Ipv6Addr>,
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

/// `landfall.handover=`: who looks after the network of the running system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HandoverMode {
    /// The system's own software adopts the link and renews the lease.
    #[default]
    Dhcp,
    /// The lease becomes a static configuration that needs no server any more.
    Static,
    /// The system's software leaves the link alone.
    Unmanaged,
}

/// What `BOOTIF` stands for as the name of a link: the port of [`Description::bootif`].
pub const BOOTIF: &str = "BOOTIF";

/// `IFNAMSIZ` without the zero at its end.
const LONGEST_NAME: usize = 15;

/// The name of a link, as the kernel's `dev_valid_name` takes it.
///
/// # Errors
/// A sentence about the name.
pub fn link_name(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("the name of a link is missing".into());
    }
    if text.len() > LONGEST_NAME {
        return Err(format!("\"{text}\" is too long for a link: {LONGEST_NAME} bytes at most"));
    }
    let is_wrong = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if text.contains(is_wrong) || [".", ".."].contains(&text) {
        return Err(format!("{text:?} is no name of a link"));
    }
    Ok(text.to_owned())
}

impl Selector {
    /// A name; or a hardware address that looks like one, as udev makes names of addresses and
    /// dracut addresses of such names.
    pub fn named(name: &str) -> Self {
        let digits = name.strip_prefix("enx").filter(|digits| digits.len() == 12);
        let address = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        // `from_str_radix` takes a sign.
        match address.filter(|_| name.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
            Some(address) => {
                let [_, _, bytes @ ..] = address.to_be_bytes();
                Self::Mac(Mac(bytes))
            }
            None => Self::Name(name.to_owned()),
        }
    }

    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Mac(mac) => write!(f, "mac:{mac}"),
            Self::Driver(driver) => write!(f, "driver:{driver}"),
            Self::Physical => f.write_str("physical"),
        }
    }
}

impl AddressRequest {
    /// Asks for whatever there is: `ip=on`, and no `ip=` at all.
    pub fn any() -> Self {
        Self {
            on: None,
            ipv4: Ipv4Method::Dhcp { request: None },
            ipv6: Ipv6Method::Auto,
            needs: Needs::Either,
            mtu: None,
            cloned_mac: None,
            server: None,
            hostname: None,
            dns: Vec::new(),
            ntp: Vec::new(),
            client_id: None,
        }
    }

    /// Makes one request of two for the same link, one for each family; `None`: they contradict.
    fn joined(&self, other: &Self) -> Option<Self> {
        let (ipv4, ipv6) = match (self.families(), other.families()) {
            ((true, false), (false, true)) => (self.ipv4, other.ipv6),
            ((false, true), (true, false)) => (other.ipv4, self.ipv6),
            _ => return None,
        };
        let both = |a: &[IpAddr], b: &[IpAddr]| a.iter().chain(b).copied().collect();
        Some(Self {
            on: self.on.clone(),
            ipv4,
            ipv6,
            needs: Needs::Both,
            mtu: one(self.mtu, other.mtu)?,
            cloned_mac: one(self.cloned_mac, other.cloned_mac)?,
            server: one(self.server.clone(), other.server.clone())?,
            hostname: one(self.hostname.clone(), other.hostname.clone())?,
            dns: both(&self.dns, &other.dns),
            ntp: both(&self.ntp, &other.ntp),
            client_id: one(self.client_id.clone(), other.client_id.clone())?,
        })
    }

    /// The other ends of links of two, which no prefix covers.
    pub fn peers(&self) -> Vec<IpNet> {
        let four = match self.ipv4 {
            Ipv4Method::Static { peer: Some(peer), .. } => Some(IpNet::from(IpAddr::V4(peer))),
            _ => None,
        };
        let six = match self.ipv6 {
            Ipv6Method::Static { peer: Some(peer), .. } => Some(IpNet::from(IpAddr::V6(peer))),
            _ => None,
        };
        four.into_iter().chain(six).collect()
    }

    /// Whether it can give the link an address.
    fn asks(&self) -> bool {
        self.families() != (false, false)
    }

    /// Whether it says something of IPv4, and of IPv6.
    fn families(&self) -> (bool, bool) {
        (self.ipv4 != Ipv4Method::Off, self.ipv6 != Ipv6Method::Off)
    }
}

/// What the two say together; `None`: not the same.
fn one<T: PartialEq>(a: Option<T>, b: Option<T>) -> Option<Option<T>> {
    match (a, b) {
        (Some(a), Some(b)) => (a == b).then_some(Some(a)),
        (a, b) => Some(a.or(b)),
    }
}

impl Description {
    /// Adds an `ip=`. Two for one link become one if they are about different families.
    pub fn add_address(&mut self, request: AddressRequest) {
        let same = self.addresses.iter_mut().find(|known| known.on == request.on);
        match same.and_then(|known| Some((known.joined(&request)?, known))) {
            Some((joined, known)) => *known = joined,
            None => self.addresses.push(request),
        }
    }

    /// The `ip=` of the link that the root is behind, as far as words tell: where there are several
    /// and no `bootdev=`, the boot finds out.
    pub fn boot_request(&self) -> Option<&AddressRequest> {
        let mut all = self.addresses.iter();
        all.find(|request| self.is_of_bootdev(request)).or(self.addresses.first())
    }

    /// Whether it is for the link of `bootdev=`.
    pub fn is_of_bootdev(&self, request: &AddressRequest) -> bool {
        let bootdev = self.bootdev.as_deref().map(Selector::named);
        bootdev.is_some() && request.on == bootdev
    }

    /// Where the IPv4 address of [`Self::boot_request`] will be from.
    pub fn origin(&self) -> Origin {
        match self.boot_request().map(|request| request.ipv4) {
            Some(Ipv4Method::Static { .. }) => Origin::CommandLine,
            Some(Ipv4Method::Dhcp { .. } | Ipv4Method::Off) | None => Origin::Dhcp,
        }
    }

    /// Puts the port of `BOOTIF=` where its name stands for it.
    pub(crate) fn place_bootif(&mut self) {
        let Some(mac) = self.bootif else { return };
        let place = |selector: &mut Selector| {
            if selector.name() == Some(BOOTIF) {
                *selector = Selector::Mac(mac);
            }
        };
        self.addresses.iter_mut().filter_map(|address| address.on.as_mut()).for_each(place);
        self.bonds.iter_mut().flat_map(|bond| &mut bond.members).for_each(place);
        self.vlans.iter_mut().map(|vlan| &mut vlan.over).for_each(place);
        self.bridges.iter_mut().flat_map(|bridge| &mut bridge.ports).for_each(place);
    }
}
