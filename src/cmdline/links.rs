//! `BOOTIF=`, `bootdev=`, `ifname=`, `vlan=`, `bond=`, `bridge=`, `team=`, `rd.route=` and
//! `nameserver=`, as dracut.cmdline(7) has them; ports may be chosen by MAC, driver and kind too.

use std::net::IpAddr;

use ipnet::IpNet;

use super::fields;
use crate::net::bond::BondOptions;
use crate::net::description::{
    Bond, Bridge, HandoverMode, RouteRequest, Selector, Vlan, link_name,
};
use crate::net::{HardwareAddress, Mac};

/// What dracut makes of a key that names no ports.
const TWO_PORTS: [&str; 2] = ["eth0", "eth1"];

/// The port that the firmware has booted from.
pub fn bootif(value: &str) -> Result<Mac, String> {
    if let Some(mac) = Mac::from_bootif(value) {
        return Ok(mac);
    }
    // Hardware type 32 and a GUID, the last eight of twenty bytes; or all of them.
    let bytes = value.split(['-', ':']).filter(|part| part.len() == 2).count();
    if matches!(bytes, 8 | 9 | 20 | 21) {
        return Err(
            "this is the address of an InfiniBand port, and no machine boots from one here; \
                    ip= chooses another port"
                .into(),
        );
    }
    Err("not a hardware address like 01-52-54-00-aa-bb-cc".to_owned())
}

/// `NAME:ADDRESS`
pub fn ifname(value: &str) -> Result<(String, HardwareAddress), String> {
    let (name, address) = value.split_once(':').ok_or("the form is NAME:HARDWARE-ADDRESS")?;
    Ok((link_name(name)?, address.parse()?))
}

/// `NAME:OVER`; the number is at the end of the name, with or without zeros in front of it.
pub fn vlan(value: &str) -> Result<Vlan, String> {
    let (name, over) = value.split_once(':').ok_or("the form is NAME:LINK, like vlan5:eth0")?;
    let name = link_name(name)?;
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let id = name.strip_prefix(stem).filter(|id| !id.is_empty()).ok_or_else(|| {
        format!("\"{name}\" does not end with the number of the VLAN, like vlan5 or eth0.5")
    })?;
    let id = id.trim_start_matches('0').parse().ok().filter(|id| (1..=4094).contains(id));
    let id = id.ok_or_else(|| format!("\"{name}\" ends with no number of a VLAN, 1 to 4094"))?;
    match members(over)? {
        (ports, None) if ports.len() == 1 => {
            let over = ports.into_iter().next().ok_or("the link below is missing")?;
            Ok(Vlan { name, id, over })
        }
        (_, None) => Err("a VLAN is over one link".into()),
        (_, Some(_)) => Err("the form is NAME:LINK, and nothing behind it".into()),
    }
}

/// `NAME[:MEMBERS[:OPTIONS[:MTU]]]`
pub fn bond(value: &str) -> Result<Bond, String> {
    let (name, rest) = name_and_rest(value);
    let name = link_name(if name.is_empty() && rest.is_none() { "bond0" } else { name })?;
    let (mut ports, rest) = members(rest.unwrap_or_default())?;
    if ports.is_empty() {
        ports = TWO_PORTS.map(Selector::named).into();
    }
    let (options, mtu) = options_and_mtu(rest.unwrap_or_default());
    Ok(Bond {
        name,
        members: ports,
        options: BondOptions::parse(options)?,
        mtu: fields::mtu("the MTU", mtu.unwrap_or_default())?,
    })
}

/// `NAME[:PORTS]`
pub fn bridge(value: &str) -> Result<Bridge, String> {
    let (name, rest) = name_and_rest(value);
    let name = link_name(if name.is_empty() && rest.is_none() { "br0" } else { name })?;
    let (mut ports, rest) = members(rest.unwrap_or_default())?;
    if rest.is_some() {
        return Err("the form is NAME:LINK,LINK, and nothing behind it".into());
    }
    if ports.is_empty() {
        ports = vec![Selector::named("eth0")];
    }
    Ok(Bridge { name, ports })
}

/// What to write for a team, which needs a daemon that no running system would take over.
pub fn team(value: &str) -> String {
    let mut parts = value.split(':');
    let mut part =
        |default: &str| parts.next().filter(|part| !part.is_empty()).unwrap_or(default).to_owned();
    let (name, ports, runner) = (part("team0"), part("eth0,eth1"), part("activebackup"));
    let mode = match runner.as_str() {
        "roundrobin" | "random" => "balance-rr",
        "broadcast" => "broadcast",
        "loadbalance" => "balance-xor",
        "lacp" => "802.3ad",
        _ => "active-backup",
    };
    format!("teams are not made here; a bond does the same: bond={name}:{ports}:mode={mode}")
}

/// `NETWORK/PREFIX:[GATEWAY][:LINK]`, IPv6 in brackets.
pub fn route(value: &str) -> Result<RouteRequest, String> {
    let fields = fields::split(value)?;
    let text = |at: usize| fields.get(at).copied().unwrap_or_default();
    if fields.len() > 3 {
        return Err("the form is NETWORK/PREFIX:GATEWAY:LINK, IPv6 in brackets".into());
    }
    let network = text(0);
    let Some((address, Some(prefix))) = fields::with_prefix(network) else {
        return Err(format!(
            "field 1, the network, is \"{network}\", not NETWORK/PREFIX, IPv6 in brackets"
        ));
    };
    let to = IpNet::new(address, prefix).map_err(|_| "no such prefix length".to_owned())?;
    let via = fields::address("field 2, the gateway,", text(1))?;
    if via.is_some_and(|via| via.is_ipv4() != address.is_ipv4()) {
        return Err("field 2, the gateway, is not of the family of the network".into());
    }
    let on = match text(2) {
        "" => None,
        link => Some(link_name(link).map_err(|why| format!("field 3, the link,: {why}"))?),
    };
    if via.is_none() && on.is_none() {
        return Err("neither a gateway nor a link".into());
    }
    // dracut's own example has bits behind the prefix, which the kernel refuses.
    Ok(RouteRequest { to: to.trunc(), via, on })
}

pub fn nameserver(value: &str) -> Result<IpAddr, String> {
    let bare = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match bare.unwrap_or(value).parse::<IpAddr>() {
        Ok(address) if !address.is_unspecified() && !address.is_multicast() => Ok(address),
        _ => Err(format!("\"{value}\" is not the address of a name server")),
    }
}

pub fn handover(value: &str) -> Result<HandoverMode, String> {
    match value {
        "dhcp" => Ok(HandoverMode::Dhcp),
        "static" => Ok(HandoverMode::Static),
        "unmanaged" => Ok(HandoverMode::Unmanaged),
        _ => Err("may be dhcp, static or unmanaged".into()),
    }
}

fn name_and_rest(value: &str) -> (&str, Option<&str>) {
    match value.split_once(':') {
        Some((name, rest)) => (name, Some(rest)),
        None => (value, None),
    }
}

/// Links with commas between them, up to a `:` that belongs to none of them; and what stands behind
/// that.
fn members(text: &str) -> Result<(Vec<Selector>, Option<&str>), String> {
    if text.is_empty() {
        return Ok((Vec::new(), None));
    }
    if let Some(behind) = text.strip_prefix(':') {
        return Ok((Vec::new(), Some(behind)));
    }
    let mut found = Vec::new();
    let mut ahead = text;
    loop {
        let (selector, behind) = member(ahead)?;
        found.push(selector);
        ahead = match behind.split_at_checked(1) {
            Some((",", more)) => more,
            Some((_, more)) => return Ok((found, Some(more))),
            None => return Ok((found, None)),
        };
    }
}

/// The first link of `text`, and what is behind it: nothing, or something that begins with `,` or
/// `:`.
fn member(text: &str) -> Result<(Selector, &str), String> {
    if let Some(address) = text.strip_prefix("mac:") {
        let (mac, behind) = address.split_at_checked(17).unwrap_or((address, ""));
        let mac: Mac = mac.parse()?;
        if !behind.is_empty() && !behind.starts_with([',', ':']) {
            return Err(format!("\"{behind}\" behind the MAC address {mac}"));
        }
        return Ok((Selector::Mac(mac), behind));
    }
    let (driver, text) = match text.strip_prefix("driver:") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let end = text.find([',', ':']).unwrap_or(text.len());
    let (name, behind) = text.split_at_checked(end).unwrap_or((text, ""));
    if driver {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(format!("\"{name}\" is no name of a driver"));
        }
        return Ok((Selector::Driver(name.to_owned()), behind));
    }
    let selector = match name {
        "physical" => Selector::Physical,
        _ => Selector::named(&link_name(name)?),
    };
    Ok((selector, behind))
}

/// Splits before the MTU: at a `:` outside of brackets that is not inside of a hardware address, the
/// one value of an option that has colons.
fn options_and_mtu(text: &str) -> (&str, Option<&str>) {
    let mut bracketed = false;
    let mut piece = 0;
    for (at, c) in text.char_indices() {
        match c {
            '[' => bracketed = true,
            ']' => bracketed = false,
            ',' | ';' => piece = at.saturating_add(1),
            ':' if !bracketed => {
                let option = text.get(piece..).unwrap_or_default();
                let value = option.strip_prefix("ad_actor_system=").unwrap_or_default();
                let (mac, behind) = value.split_at_checked(17).unwrap_or_default();
                let end = text.len().saturating_sub(behind.len());
                if mac.parse::<Mac>().is_err() || at >= end {
                    let behind = text.get(at.saturating_add(1)..).unwrap_or_default();
                    return (text.get(..at).unwrap_or_default(), Some(behind));
                }
            }
            _ => {}
        }
    }
    (text, None)
}
