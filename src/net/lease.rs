//! What a machine knows about its place in the network: one lease, from DHCP or typed by hand.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::{Lease6, Mac};

/// Everything kept of a DHCP acknowledgement (RFC 2131, 2132), or of a static `ip=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub broadcast: Option<Ipv4Addr>,
    /// Option 121 when present, else option 33 and one default route per router of option 3.
    pub routes: Vec<Route>,
    /// Bytes; option 26.
    pub mtu: Option<u16>,
    pub dns: Vec<IpAddr>,
    /// Option 15.
    pub domain: Option<String>,
    /// Option 119, else option 15.
    pub search: Vec<String>,
    pub hostname: Option<String>,
    pub ntp: Vec<IpAddr>,
    /// Option 2, seconds east of UTC, as LTSP exports it (`TIMEZONE`).
    pub time_offset: Option<i32>,
    pub nis_domain: Option<String>,
    /// Option 17.
    pub root_path: Option<String>,
    /// `siaddr`.
    pub next_server: Option<Ipv4Addr>,
    /// Option 66, or the `sname` field when `siaddr` is empty: a name or an address.
    pub tftp_server: Option<String>,
    /// Option 67, or the `file` field.
    pub filename: Option<String>,
    /// Option 54; none on a static address.
    pub server_id: Option<Ipv4Addr>,
    /// Seconds; `None` is for ever (static, or 0xffffffff).
    pub lease_seconds: Option<u32>,
    pub renew_seconds: Option<u32>,
    pub rebind_seconds: Option<u32>,
    /// Option 108: who can do with IPv6 alone should give up IPv4 for so long (RFC 8925). Sent only
    /// to machines that say they can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6_only_seconds: Option<u32>,
}

/// `/run/landfall/lease.json`: a lease and the link it is on, for anybody with jq, and for
/// `landfall plan --lease`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseFile {
    /// Name in the initramfs.
    pub link: String,
    pub mac: Mac,
    /// False for an address that was typed, as `ip=`.
    pub dhcp: bool,
    pub boot_server: Option<String>,
    #[serde(flatten)]
    pub leases: Leases,
}

impl LeaseFile {
    /// Below `/run`.
    pub const PATH: &str = "landfall/lease.json";

    pub fn text(&self) -> String {
        // Strings and numbers: there is nothing in it that JSON could not say.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

/// What one link was given, in both families.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leases {
    #[serde(flatten)]
    pub ipv4: Option<Lease>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Lease6>,
}

impl Leases {
    pub fn of_ipv4(lease: Lease) -> Self {
        Self { ipv4: Some(lease), ipv6: None }
    }

    /// The address that others should know: that of IPv4 where there is one, because it is in more
    /// people's lists.
    pub fn address(&self) -> Option<IpAddr> {
        let ipv6 = || self.ipv6.as_ref()?.address().map(|given| given.address.into());
        self.ipv4.as_ref().map(|lease| lease.address.into()).or_else(ipv6)
    }

    /// [`Self::address`] with the length of its prefix.
    pub fn network_address(&self) -> Option<(IpAddr, u8)> {
        let ipv6 = || {
            self.ipv6.as_ref()?.address().map(|given| (IpAddr::from(given.address), given.prefix))
        };
        self.ipv4.as_ref().map(|lease| (lease.address.into(), lease.prefix)).or_else(ipv6)
    }

    /// DHCP's root-path; in IPv6 a boot file URL of ours is that (RFC 5970 has no other place).
    pub fn root_path(&self) -> Option<&str> {
        let url = || self.ipv6.as_ref()?.boot_url().filter(|url| url.starts_with("nbd"));
        self.ipv4.as_ref().and_then(|lease| lease.root_path.as_deref()).or_else(url)
    }

    /// The boot file: its path on the boot server.
    pub fn filename(&self) -> Option<&str> {
        let path = || {
            let (_, rest) = self.ipv6.as_ref()?.boot_url()?.split_once("://")?;
            rest.split_once('/').map(|(_, path)| path).filter(|path| !path.is_empty())
        };
        self.ipv4.as_ref().and_then(|lease| lease.filename.as_deref()).or_else(path)
    }

    /// Whom the leases name for everything that nobody has placed elsewhere, in LTSP's order: `sname`
    /// is in `tftp_server` only when there is no `siaddr`.
    pub fn boot_server(&self) -> Option<String> {
        let shown = |address: Option<Ipv4Addr>| address.map(|address| address.to_string());
        let ipv4 = self.ipv4.as_ref();
        ipv4.and_then(|lease| lease.tftp_server.clone())
            .or_else(|| shown(ipv4?.next_server))
            .or_else(|| self.ipv6.as_ref()?.boot_server().map(str::to_owned))
            .or_else(|| shown(ipv4?.server_id))
    }

    /// Takes over what an earlier lease of this machine said of booting, where these, which may be
    /// typed ones, say nothing.
    pub fn remember(&mut self, before: &Self) {
        let (Some(lease), Some(before)) = (&mut self.ipv4, &before.ipv4) else { return };
        if !(lease.tftp_server.is_some() || lease.next_server.is_some() || lease.filename.is_some())
        {
            lease.tftp_server.clone_from(&before.tftp_server);
            lease.next_server = before.next_server;
            lease.filename.clone_from(&before.filename);
        }
        if lease.root_path.is_none() {
            lease.root_path.clone_from(&before.root_path);
        }
        lease.server_id = lease.server_id.or(before.server_id);
        if lease.hostname.is_none() {
            lease.hostname.clone_from(&before.hostname);
        }
    }

    /// They speak of booting, and [`Self::boot_server`] is more than a guess.
    pub fn speak_of_booting(&self) -> bool {
        let ipv4 = self.ipv4.as_ref().is_some_and(|lease| {
            let Lease { tftp_server, next_server, filename, .. } = lease;
            tftp_server.is_some() || next_server.is_some() || filename.is_some()
        });
        ipv4 || self.ipv6.as_ref().is_some_and(|lease| lease.boot_url().is_some())
    }

    pub fn hostname(&self) -> Option<&str> {
        let ipv6 = || self.ipv6.as_ref()?.hostname.as_deref();
        self.ipv4.as_ref().and_then(|lease| lease.hostname.as_deref()).or_else(ipv6)
    }

    pub fn domain(&self) -> Option<&str> {
        self.ipv4.as_ref()?.domain.as_deref()
    }

    pub fn dns(&self) -> Vec<IpAddr> {
        let ipv4 = self.ipv4.as_ref().map(|lease| lease.dns.clone()).unwrap_or_default();
        let ipv6 = self.ipv6.iter().flat_map(|lease| &lease.dns).map(|server| (*server).into());
        ipv4.into_iter().chain(ipv6).collect()
    }

    pub fn search(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let ipv4 = self.ipv4.iter().flat_map(|lease| &lease.search);
        for name in ipv4.chain(self.ipv6.iter().flat_map(|lease| &lease.search)) {
            if !all.contains(name) {
                all.push(name.clone());
            }
        }
        all
    }

    pub fn ntp(&self) -> Vec<IpAddr> {
        let ipv4 = self.ipv4.as_ref().map(|lease| lease.ntp.clone()).unwrap_or_default();
        let ipv6 = self.ipv6.iter().flat_map(|lease| &lease.ntp).map(|server| (*server).into());
        ipv4.into_iter().chain(ipv6).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub to: Ipv4Net,
    /// `None`: on the link itself (a router of 0.0.0.0 in option 121).
    pub via: Option<Ipv4Addr>,
}

impl Lease {
    /// A lease that says nothing but where the machine is.
    pub fn of_address(address: Ipv4Addr, prefix: u8) -> Self {
        Self {
            address,
            prefix,
            broadcast: None,
            routes: Vec::new(),
            mtu: None,
            dns: Vec::new(),
            domain: None,
            search: Vec::new(),
            hostname: None,
            ntp: Vec::new(),
            time_offset: None,
            nis_domain: None,
            root_path: None,
            next_server: None,
            tftp_server: None,
            filename: None,
            server_id: None,
            lease_seconds: None,
            renew_seconds: None,
            rebind_seconds: None,
            v6_only_seconds: None,
        }
    }

    /// What a static `ip=` says, in the form of a lease.
    pub fn typed(address: Ipv4Addr, prefix: u8, gateway: Option<Ipv4Addr>) -> Self {
        let default = |via| Route { to: Ipv4Net::default(), via: Some(via) };
        Self {
            routes: gateway.map(default).into_iter().collect(),
            ..Self::of_address(address, prefix)
        }
    }

    /// The network of the address; the single host when the prefix makes no sense.
    pub fn network(&self) -> Ipv4Net {
        Ipv4Net::new(self.address, self.prefix).unwrap_or_else(|_| self.address.into()).trunc()
    }

    /// First default route that goes through a router.
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        self.routes.iter().filter(|route| route.to.prefix_len() == 0).find_map(|route| route.via)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// `lease("10.0.0.5/24")`.
    pub fn lease(address: &str) -> Lease {
        let net: Ipv4Net = address.parse().unwrap();
        Lease::of_address(net.addr(), net.prefix_len())
    }
}
