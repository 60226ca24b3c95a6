//! `ip=` in the kernel's form (Documentation/admin-guide/nfs/nfsroot.rst), read as LTSP reads it
//! where the two differ.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use crate::net::{Addressing, Mac};

/// `ip=CLIENT:SERVER:GATEWAY:NETMASK:HOST:DEVICE:AUTOCONF[:DNS0[:DNS1[:NTP0]]]`, or a lone method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpRequest {
    pub addressing: Addressing,
    /// The boot server, as pxelinux's IPAPPEND fills it in; never the peer.
    pub server: Option<String>,
    pub hostname: Option<String>,
    pub device: Option<String>,
    pub dns: Vec<IpAddr>,
    pub ntp: Vec<IpAddr>,
}

impl FromStr for IpRequest {
    type Err = String;

    /// Strict on every field: a boot that goes its own way because of a typing error is worse
    /// than one that says so. Static needs a method of `off`, `none`, `static` or nothing, an
    /// address and a netmask; where the address stands with DHCP, it is asked for.
    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let mut fields = value.split(':');
        let mut next = || fields.next().unwrap_or_default();
        let first = next();
        if value.contains('[') {
            return Err("IPv6 addresses are not supported here yet".into());
        }
        let lone = !value.contains(':');
        // A lone "off" has no address to be static with: LTSP means "whatever there is" by it.
        if lone && (first.is_empty() || Method::from_word(first).is_some()) {
            return Ok(Self::dhcp(None));
        }
        if lone && first.parse::<Ipv4Addr>().is_err() {
            return Err(format!(
                "\"{first}\" is neither a method (dhcp, off) nor an address; \
                 the form is ip=CLIENT:SERVER:GATEWAY:NETMASK:HOST:DEVICE:METHOD"
            ));
        }
        let client = address("field 1, the address,", first)?;
        let server = Some(next()).filter(|s| !s.is_empty() && *s != "0.0.0.0").map(str::to_owned);
        let gateway = address("field 3, the gateway,", next())?;
        let prefix = netmask(next())?;
        let hostname = Some(next()).filter(|s| !s.is_empty()).map(str::to_owned);
        let device = Some(next()).filter(|s| !s.is_empty()).map(str::to_owned);
        let word = next();
        let method = if word.is_empty() {
            Method::Unsaid
        } else {
            Method::from_word(word).ok_or_else(|| {
                format!("field 7, the method, is \"{word}\"; it may be dhcp, on, any, off, none or static")
            })?
        };
        let mut servers =
            |what| -> Result<Option<IpAddr>, String> { Ok(address(what, next())?.map(IpAddr::V4)) };
        let dns = [servers("field 8, a DNS server,")?, servers("field 9, a DNS server,")?];
        let ntp = servers("field 10, an NTP server,")?;
        if fields.next().is_some() {
            return Err("more than ten fields".into());
        }
        let addressing = match (method, client, prefix) {
            (Method::Off, Some(_), None) => {
                return Err("a static address needs its netmask in field 4".into());
            }
            (Method::Off, Some(address), Some(prefix)) => {
                Addressing::Static { address, prefix, gateway }
            }
            // What pxelinux's IPAPPEND 1 writes: the lease the ROM got, without a method.
            (Method::Unsaid, Some(address), Some(prefix)) if server.is_some() => {
                Addressing::Static { address, prefix, gateway }
            }
            (_, request, _) => Addressing::Dhcp { request },
        };
        Ok(Self {
            addressing,
            server,
            hostname,
            device,
            dns: dns.into_iter().flatten().collect(),
            ntp: ntp.into_iter().collect(),
        })
    }
}

impl IpRequest {
    fn dhcp(request: Option<Ipv4Addr>) -> Self {
        Self {
            addressing: Addressing::Dhcp { request },
            server: None,
            hostname: None,
            device: None,
            dns: Vec::new(),
            ntp: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Dhcp,
    Off,
    Unsaid,
}

impl Method {
    /// BOOTP and RARP live on as words only: every server of today answers DHCP.
    fn from_word(word: &str) -> Option<Self> {
        match word {
            "dhcp" | "on" | "any" | "all" | "both" | "bootp" | "rarp" => Some(Self::Dhcp),
            "off" | "none" | "static" => Some(Self::Off),
            _ => None,
        }
    }
}

fn address(what: &str, text: &str) -> Result<Option<Ipv4Addr>, String> {
    match text {
        "" | "0.0.0.0" => Ok(None),
        _ => text
            .parse()
            .map(Some)
            .map_err(|_| format!("{what} is \"{text}\", which is not an IPv4 address")),
    }
}

/// A dotted mask or a prefix length. A missing one is never guessed from the address class.
fn netmask(text: &str) -> Result<Option<u8>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(prefix) = text.parse::<u8>()
        && (1..=32).contains(&prefix)
    {
        return Ok(Some(prefix));
    }
    let mask: Ipv4Addr = text
        .parse()
        .map_err(|_| format!("field 4, the netmask, is \"{text}\", neither a mask nor a prefix"))?;
    ipnet::ipv4_mask_to_prefix(mask)
        .map(Some)
        .map_err(|_| format!("field 4, the netmask, is \"{text}\", whose bits have a gap"))
}

/// Where `BOOTIF=` names a port that no link choice of `ip=` contradicts.
pub fn bootif(value: &str) -> Result<Mac, String> {
    Mac::from_bootif(value)
        .ok_or_else(|| "not a hardware address like 01-52-54-00-aa-bb-cc".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dhcp(request: Option<[u8; 4]>) -> Addressing {
        Addressing::Dhcp { request: request.map(Ipv4Addr::from) }
    }

    fn fixed(address: [u8; 4], prefix: u8, gateway: Option<[u8; 4]>) -> Addressing {
        Addressing::Static { address: address.into(), prefix, gateway: gateway.map(Ipv4Addr::from) }
    }

    #[test]
    #[rustfmt::skip]
    fn the_kernels_form_is_read_as_ltsp_reads_it() {
        // value, addressing, server, host, device
        let cases = [
            ("dhcp", dhcp(None), None, None, None),
            ("on", dhcp(None), None, None, None),
            ("off", dhcp(None), None, None, None), // nothing to be static with
            ("", dhcp(None), None, None, None),
            (":::::eth1:dhcp", dhcp(None), None, None, Some("eth1")),
            // C84
            ("10.0.0.5:10.0.0.1:10.0.0.254:255.255.255.0:n5:eth1:off",
                fixed([10,0,0,5], 24, Some([10,0,0,254])), Some("10.0.0.1"), Some("n5"), Some("eth1")),
            // C85 asks DHCP for 10.0.0.5 in LTSP; `off` with address and mask is what the kernel
            // calls static, and the only reading under which a machine without DHCP can boot.
            ("10.0.0.5::10.0.0.254:255.255.255.0::eth1:off",
                fixed([10,0,0,5], 24, Some([10,0,0,254])), None, None, Some("eth1")),
            // C86
            (":10.0.0.9:::n9::dhcp", dhcp(None), Some("10.0.0.9"), Some("n9"), None),
            // pxelinux IPAPPEND 1 writes four fields
            ("10.0.0.5:10.0.0.1:10.0.0.254:255.255.255.0",
                fixed([10,0,0,5], 24, Some([10,0,0,254])), Some("10.0.0.1"), None, None),
            ("10.0.0.5:10.0.0.1::255.255.255.0::eth0:dhcp",
                dhcp(Some([10,0,0,5])), Some("10.0.0.1"), None, Some("eth0")),
            ("10.0.0.5", dhcp(Some([10,0,0,5])), None, None, None),
            ("10.0.0.5:boot::24:::none", fixed([10,0,0,5], 24, None), Some("boot"), None, None),
        ];
        for (value, addressing, server, host, device) in cases {
            let got: IpRequest = value.parse().unwrap_or_else(|why| panic!("ip={value}: {why}"));
            assert_eq!(got.addressing, addressing, "ip={value}");
            assert_eq!(got.server.as_deref(), server, "ip={value}");
            assert_eq!(got.hostname.as_deref(), host, "ip={value}");
            assert_eq!(got.device.as_deref(), device, "ip={value}");
        }
    }

    #[test]
    fn dns_and_ntp_follow_the_method() {
        let got: IpRequest =
            "10.0.0.5:10.0.0.1::24:n:eth0:off:10.0.0.2:0.0.0.0:10.0.0.3".parse().unwrap();
        assert_eq!(got.dns, vec![IpAddr::from([10, 0, 0, 2])]);
        assert_eq!(got.ntp, vec![IpAddr::from([10, 0, 0, 3])]);
    }

    #[test]
    #[rustfmt::skip]
    fn a_typing_error_is_named_by_its_field() {
        let cases = [
            ("dhpc",                                  "\"dhpc\" is neither"),
            ("10.0.0.5:10.0.0.1::255.0.255.0:::off",  "netmask"),
            ("10.0.0.5:10.0.0.1::0:::off",            "netmask"),
            ("10.0.0.5:10.0.0.1:gw:24:::off",         "field 3"),
            ("10.0.0.5:::::eth0:off",                 "netmask"), // the kernel would guess from the class
            ("eth0:dhcp",                             "field 1"), // dracut's form: a later issue
            ("10.0.0.5:s::24::eth0:sometimes",        "field 7"),
            ("10.0.0.5:s::24::eth0:off:dns",          "field 8"),
            ("a:b:c:d:e:f:g:h:i:j:k",                 "field 1"),
            ("10.0.0.5:s::24::e:off::::x",            "more than ten"),
            ("[fd00::1]:::64::eth0:off",              "IPv6"),
        ];
        for (value, expected) in cases {
            let why = value.parse::<IpRequest>().expect_err(value);
            assert!(why.contains(expected), "ip={value}: {why}");
        }
    }
}
