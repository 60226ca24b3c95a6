//! The kernel's form of `ip=`, seven fields and more, and dracut's that is made after it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::method::{METHODS, Method, method};
use super::{dhcp, selector};
use crate::cmdline::fields;
use crate::net::Mac;
use crate::net::description::{AddressRequest, Ipv4Method, Ipv6Method, Needs, is_host_name};

/// `HOST_NAME_MAX` of Linux.
const LONGEST_HOST_NAME: usize = 64;

/// The kernel's form, and dracut's that is made after it.
pub fn with_address(fields: &[&str]) -> Result<AddressRequest, String> {
    let field = |number: usize| number.checked_sub(1).and_then(|at| fields.get(at)).copied();
    let text = |number| field(number).unwrap_or_default();
    let (address, own_prefix) = own_address(text(1))?;
    let (server, peer) = server_or_peer(text(2))?;
    let gateway = fields::address("field 3, the gateway,", text(3))?;
    let mask = netmask(text(4), address)?;
    let hostname = host_name(text(5))?;
    let on = match text(6) {
        "" => None,
        link => Some(selector("field 6, the link,", link)?),
    };
    let word = text(7);
    let method = method(word).map_err(|why| format!("field 7: {why}"))?;
    let method =
        method.ok_or_else(|| format!("field 7, the method, is \"{word}\"; it may be {METHODS}"))?;
    let Tail { dns, ntp, mtu, cloned_mac } = tail(fields.get(7..).unwrap_or_default())?;
    let prefix = match (own_prefix, mask) {
        (Some(own), Some(mask)) if own != mask => {
            return Err(format!("field 1 says /{own}, and field 4, the netmask, /{mask}"));
        }
        (own, mask) => own.or(mask),
    };
    let request =
        AddressRequest { on, mtu, cloned_mac, server, hostname, dns, ntp, ..AddressRequest::any() };
    let is_static = match method {
        Method::Fixed => true,
        // What pxelinux's IPAPPEND 1 writes: the lease the ROM got, without a method. And nobody
        // asks for an address with a prefix, or for one of IPv6.
        Method::Unsaid => {
            let is_ipv6 = address.is_some_and(|address| address.is_ipv6());
            let has_server = request.server.is_some() || peer.is_some();
            own_prefix.is_some() || is_ipv6 || address.is_some() && prefix.is_some() && has_server
        }
        Method::Asked { .. } => false,
    };
    if is_static {
        let address = address.ok_or_else(|| {
            format!("field 1, the address, is missing, which \"{word}\" in field 7 needs")
        })?;
        return fixed(request, address, prefix, gateway, peer);
    }
    let wanted = match address {
        None => None,
        Some(IpAddr::V4(address)) => Some(address),
        Some(IpAddr::V6(_)) => {
            return Err("field 1 is an IPv6 address, for which nobody can be asked; \
                        field 7, the method, may be none"
                .into());
        }
    };
    Ok(match method {
        Method::Asked { ipv4, ipv6, needs, client_id } => {
            if wanted.is_some() && !ipv4 {
                return Err(format!("field 1 is an IPv4 address, and \"{word}\" asks for none"));
            }
            AddressRequest { ipv4: dhcp(ipv4, wanted), ipv6, needs, client_id, ..request }
        }
        Method::Unsaid | Method::Fixed => AddressRequest { ipv4: dhcp(true, wanted), ..request },
    })
}

/// Fills in a static address.
fn fixed(
    request: AddressRequest,
    address: IpAddr,
    prefix: Option<u8>,
    gateway: Option<IpAddr>,
    peer: Option<Peer>,
) -> Result<AddressRequest, String> {
    // A mask is never guessed from the class of the address: four programs guess four masks.
    let prefix = peer.and_then(|peer| peer.prefix).or(prefix).ok_or_else(|| match address {
        IpAddr::V4(_) => "a static address needs its netmask in field 4".to_owned(),
        IpAddr::V6(_) => "a static address needs its prefix length in field 4".to_owned(),
    })?;
    if gateway == Some(address) {
        return Err("field 3, the gateway, is the address itself".into());
    }
    // The other end of a link of two; anything else in field 2 is the boot server.
    let is_of_two = match address {
        IpAddr::V4(_) => prefix >= 31,
        IpAddr::V6(_) => prefix >= 127,
    };
    let (peer, server) = match peer {
        Some(peer) if peer.prefix.is_some() || is_of_two => (Some(peer.address), None),
        Some(peer) => (None, Some(peer.address.to_string())),
        None => (None, request.server.clone()),
    };
    let needs = |ipv4| if ipv4 { Needs::Ipv4 } else { Needs::Ipv6 };
    let request = AddressRequest { needs: needs(address.is_ipv4()), server, ..request };
    let other = |what: &str| Err(format!("{what} is not of the family of the address in field 1"));
    match (address, gateway, peer) {
        (IpAddr::V4(address), None | Some(IpAddr::V4(_)), None | Some(IpAddr::V4(_))) => {
            let (gateway, peer) = (gateway.and_then(v4), peer.and_then(v4));
            let ipv4 = Ipv4Method::Static { address, prefix, gateway, peer };
            Ok(AddressRequest { ipv4, ipv6: Ipv6Method::Off, ..request })
        }
        (IpAddr::V6(address), None | Some(IpAddr::V6(_)), None | Some(IpAddr::V6(_))) => {
            let (gateway, peer) = (gateway.and_then(v6), peer.and_then(v6));
            let ipv6 = Ipv6Method::Static { address, prefix, gateway, peer };
            Ok(AddressRequest { ipv4: Ipv4Method::Off, ipv6, ..request })
        }
        (IpAddr::V4(_), Some(IpAddr::V6(_)), _) | (IpAddr::V6(_), Some(IpAddr::V4(_)), _) => {
            other("field 3, the gateway,")
        }
        _ => other("field 2, the peer,"),
    }
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}

fn own_address(text: &str) -> Result<(Option<IpAddr>, Option<u8>), String> {
    if text.is_empty() {
        return Ok((None, None));
    }
    let wrong = |why: &str| Err(format!("field 1, the address, is \"{text}\", {why}"));
    let Some((address, prefix)) = fields::with_prefix(text) else {
        return wrong(&format!("which is not {}", fields::ADDRESS));
    };
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    match prefix {
        Some(0) => wrong("whose prefix leaves no network"),
        None if address.is_unspecified() => Ok((None, None)),
        _ if address.is_unspecified()
            || address.is_multicast()
            || address.is_loopback()
            || is_broadcast =>
        {
            wrong("which no link can have")
        }
        _ => Ok((Some(address), prefix)),
    }
}

#[derive(Clone, Copy)]
struct Peer {
    address: IpAddr,
    prefix: Option<u8>,
}

/// Field 2: a name is the boot server for certain, an address may be the other end of the link.
fn server_or_peer(text: &str) -> Result<(Option<String>, Option<Peer>), String> {
    if text.is_empty() {
        return Ok((None, None));
    }
    match fields::with_prefix(text) {
        Some((address, None)) if address.is_unspecified() => Ok((None, None)),
        Some((address, prefix)) => {
            let server = prefix.is_none().then(|| address.to_string());
            Ok((server, Some(Peer { address, prefix })))
        }
        None if text.contains(['/', '[', ']']) => Err(format!(
            "field 2, the boot server or the peer, is \"{text}\", neither a name nor an address"
        )),
        None => Ok((Some(text.to_owned()), None)),
    }
}

/// The name of the machine, its domain included: what is behind the first dot is no domain of NIS
/// here, as it is to the kernel, because nobody but the kernel reads it so (dracut, NetworkManager
/// and systemd set the whole).
fn host_name(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > LONGEST_HOST_NAME || !is_host_name(text) {
        return Err(format!(
            "field 5, the host name, is \"{text}\"; one has letters, digits, \"-\", \"_\" and \".\", \
             {LONGEST_HOST_NAME} at most"
        ));
    }
    Ok(Some(text.to_owned()))
}

/// A dotted mask or a prefix length.
fn netmask(text: &str, address: Option<IpAddr>) -> Result<Option<u8>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if address.is_some_and(|address| address.is_ipv6()) {
        let length = fields::length(text, 128).filter(|length| *length > 0);
        return length.map(Some).ok_or_else(|| {
            format!(
                "field 4, the netmask, is \"{text}\"; of an IPv6 address it is the prefix length"
            )
        });
    }
    fields::ipv4_prefix(text).filter(|length| *length > 0).map(Some).ok_or_else(|| {
        let gap = text.parse::<Ipv4Addr>().is_ok_and(|mask| !mask.is_unspecified());
        let why = if gap { "whose bits have a gap" } else { "neither a mask nor a prefix" };
        format!("field 4, the netmask, is \"{text}\", {why}")
    })
}

#[derive(Default)]
struct Tail {
    dns: Vec<IpAddr>,
    ntp: Vec<IpAddr>,
    mtu: Option<u32>,
    cloned_mac: Option<Mac>,
}

/// What stands behind the method. Field 8 decides: digits are an MTU, an address is a name server,
/// anything else is a hardware address, which takes six fields if it is written with colons.
fn tail(fields: &[&str]) -> Result<Tail, String> {
    let [first, rest @ ..] = fields else { return Ok(Tail::default()) };
    let whole = fields.join(":");
    if whole.parse::<Mac>().is_ok() {
        return Ok(Tail { cloned_mac: fields::cloned_mac("field 8", &whole)?, ..Tail::default() });
    }
    let is_number = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit());
    let mac = rest.join(":");
    if is_number || first.is_empty() && mac.parse::<Mac>().is_ok() {
        return Ok(Tail {
            mtu: fields::mtu("field 8", first)?,
            cloned_mac: fields::cloned_mac("field 9", &mac)?,
            ..Tail::default()
        });
    }
    if !first.is_empty() && fields::with_prefix(first).is_none() {
        return Err(format!(
            "field 8 is \"{first}\", neither a DNS server, nor an MTU, nor a MAC address"
        ));
    }
    if fields.len() > 3 {
        return Err("more than ten fields".into());
    }
    let server = |number: usize, what: &str| {
        let text = number.checked_sub(8).and_then(|at| fields.get(at)).copied();
        fields::address(&format!("field {number}, {what},"), text.unwrap_or_default())
    };
    let dns = [server(8, "a DNS server")?, server(9, "a DNS server")?];
    let ntp = server(10, "an NTP server")?;
    Ok(Tail {
        dns: dns.into_iter().flatten().collect(),
        ntp: ntp.into_iter().collect(),
        ..Tail::default()
    })
}
