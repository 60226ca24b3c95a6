//! What the grammars of network keys have in common: fields between colons, addresses, masks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::net::Mac;

/// The smallest MTU of IPv4 (RFC 791), and the largest that a packet's length field can fill.
const MTU: std::ops::RangeInclusive<u32> = 68..=65_535;

/// Splits at every `:` that stands outside of brackets.
pub fn split(value: &str) -> Result<Vec<&str>, String> {
    let mut fields = Vec::new();
    let mut rest = value;
    let mut inside = false;
    let mut begin = 0;
    for (at, c) in value.char_indices() {
        match c {
            '[' if !inside => inside = true,
            ']' if inside => inside = false,
            '[' | ']' => return Err(format!("a \"{c}\" too many in \"{value}\"")),
            ':' if !inside => {
                fields.push(value.get(begin..at).unwrap_or_default());
                begin = at.saturating_add(1);
                rest = value.get(begin..).unwrap_or_default();
            }
            _ => {}
        }
    }
    if inside {
        return Err(format!("a \"[\" in \"{value}\" is never closed"));
    }
    fields.push(rest);
    Ok(fields)
}

/// An address of either family, IPv6 in brackets; nothing, `0.0.0.0` and `[::]` are none.
///
/// `what` is for the message: `field 3, the gateway,`.
pub fn address(what: &str, text: &str) -> Result<Option<IpAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    match with_prefix(text) {
        Some((address, None)) => Ok(Some(address).filter(|address| !address.is_unspecified())),
        _ => Err(format!("{what} is \"{text}\", which is not {ADDRESS}")),
    }
}

pub const ADDRESS: &str = "an IPv4 address, or an IPv6 address in brackets";

/// `10.0.0.5`, `10.0.0.5/24`, `[fd00::5]`, `[fd00::5]/64`, `[fd00::5/64]`; an IPv4 mask may be
/// written out. The length is one that the family has.
pub fn with_prefix(text: &str) -> Option<(IpAddr, Option<u8>)> {
    let Some(rest) = text.strip_prefix('[') else {
        let (address, prefix) = halves(text);
        let address: Ipv4Addr = address.parse().ok()?;
        let prefix = match prefix {
            Some(prefix) => Some(ipv4_prefix(prefix)?),
            None => None,
        };
        return Some((address.into(), prefix));
    };
    let (inside, behind) = rest.split_once(']')?;
    let (address, prefix) = match behind {
        "" => halves(inside),
        _ => (inside, Some(behind.strip_prefix('/')?)),
    };
    let address: Ipv6Addr = address.parse().ok()?;
    let prefix = match prefix {
        Some(prefix) => Some(length(prefix, 128)?),
        None => None,
    };
    Some((address.into(), prefix))
}

fn halves(text: &str) -> (&str, Option<&str>) {
    match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    }
}

/// A prefix length or a dotted mask without a gap.
pub fn ipv4_prefix(text: &str) -> Option<u8> {
    length(text, 32).or_else(|| ipnet::ipv4_mask_to_prefix(text.parse().ok()?).ok())
}

pub fn length(text: &str, most: u8) -> Option<u8> {
    number(text)?.try_into().ok().filter(|length| *length <= most)
}

/// Digits only.
pub fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

pub fn seconds(text: &str) -> Result<u32, String> {
    number(text).ok_or_else(|| "not a number of seconds".to_owned())
}

pub fn mtu(what: &str, text: &str) -> Result<Option<u32>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let (least, most) = (MTU.start(), MTU.end());
    number(text)
        .filter(|mtu| MTU.contains(mtu))
        .map(Some)
        .ok_or_else(|| format!("{what} is \"{text}\"; an MTU is {least} to {most}"))
}

/// An address that a link may be given instead of its own.
pub fn cloned_mac(what: &str, text: &str) -> Result<Option<Mac>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let mac: Mac = text.parse().map_err(|why| format!("{what}: {why}"))?;
    if !mac.is_unicast() {
        return Err(format!("{what} is {mac}, which no port can have"));
    }
    Ok(Some(mac))
}
