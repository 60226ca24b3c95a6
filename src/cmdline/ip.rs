//! `ip=`: the kernel's form (Documentation/admin-guide/nfs/nfsroot.rst), read as LTSP reads it where
//! the two differ, and the forms of dracut.cmdline(7).
//!
//! ```text
//! METHOD[,METHOD]    dhcp,TYPE,TEXT
//! LINK:METHOD[:[MTU][:MAC]]
//! ADDRESS[/PREFIX]:SERVER|PEER[/PREFIX]:GATEWAY:NETMASK:HOST:LINK:METHOD[:DNS[:DNS[:NTP]]]
//! ADDRESS[/PREFIX]:SERVER|PEER[/PREFIX]:GATEWAY:NETMASK:HOST:LINK:METHOD[:[MTU][:MAC]]
//! ```
//!
//! Strict on every field: a boot that goes its own way because of a typing error is worse than one
//! that says so.

mod kernels;
mod method;

use std::net::Ipv4Addr;

use super::fields;
use crate::net::description::{AddressRequest, Ipv4Method, Ipv6Method, Selector, link_name};
use kernels::with_address;
use method::{METHODS, Method, method};

/// Reads the value of `ip=`.
pub fn address_request(value: &str) -> Result<AddressRequest, String> {
    let fields = fields::split(value)?;
    let (first, second) = match fields.as_slice() {
        [] => ("", None),
        [first] => (*first, None),
        [first, second, ..] => (*first, Some(*second)),
    };
    let Some(second) = second else { return lone(first) };
    if first.is_empty() || looks_like_address(first) {
        return with_address(&fields);
    }
    let method = method(second).map_err(|why| format!("field 2: {why}"))?;
    match method {
        Some(Method::Unsaid) => {
            Err(format!("field 2, the method, is missing; it may be {METHODS}"))
        }
        Some(method) => on_link(first, method, fields.get(2..).unwrap_or_default()),
        None if fields::with_prefix(second).is_some() => Err(live_boot(&fields)),
        None if fields.len() > 4 => {
            Err(format!("field 1, the address, is \"{first}\", which is not {}", fields::ADDRESS))
        }
        None => Err(format!("field 2, the method, is \"{second}\"; it may be {METHODS}")),
    }
}

fn looks_like_address(text: &str) -> bool {
    let is_dotted = text.contains('.')
        && text.bytes().all(|byte| byte.is_ascii_digit() || b"./".contains(&byte));
    text.starts_with('[') || is_dotted
}

/// A value of one field: a method, or an address.
fn lone(text: &str) -> Result<AddressRequest, String> {
    if looks_like_address(text) {
        // All other fields are empty, so that the rules for them hold.
        return with_address(&[text]);
    }
    Ok(match method(text)? {
        // `off` has no address to be static with: LTSP means "whatever there is" by it.
        Some(Method::Unsaid | Method::Fixed) => AddressRequest::any(),
        Some(Method::Asked { ipv4, ipv6, needs, client_id }) => AddressRequest {
            ipv4: dhcp(ipv4, None),
            ipv6,
            needs,
            client_id,
            ..AddressRequest::any()
        },
        None => {
            return Err(format!(
                "\"{text}\" is neither a method (dhcp, dhcp6, on, off …) nor an address; the form is \
                 ip=CLIENT:SERVER:GATEWAY:NETMASK:HOST:DEVICE:METHOD or ip=DEVICE:METHOD"
            ));
        }
    })
}

/// `LINK:METHOD[:[MTU][:MAC]]`
fn on_link(link: &str, method: Method, tail: &[&str]) -> Result<AddressRequest, String> {
    let on = Some(selector("field 1, the link,", link)?);
    let mut request = match method {
        // Set up, and without addresses.
        Method::Unsaid | Method::Fixed => AddressRequest {
            on,
            ipv4: Ipv4Method::Off,
            ipv6: Ipv6Method::Off,
            ..AddressRequest::any()
        },
        Method::Asked { ipv4, ipv6, needs, client_id } => {
            let ipv4 = dhcp(ipv4, None);
            AddressRequest { on, ipv4, ipv6, needs, client_id, ..AddressRequest::any() }
        }
    };
    let [mtu, mac @ ..] = tail else { return Ok(request) };
    request.mtu = fields::mtu("field 3", mtu).map_err(|why| match fields::with_prefix(mtu) {
        Some(_) => {
            format!("field 3 is \"{mtu}\", where an MTU may be; name servers go to nameserver=")
        }
        None => why,
    })?;
    request.cloned_mac = fields::cloned_mac("field 4", &mac.join(":"))?;
    Ok(request)
}

fn dhcp(asked: bool, request: Option<Ipv4Addr>) -> Ipv4Method {
    if asked { Ipv4Method::Dhcp { request } } else { Ipv4Method::Off }
}

fn selector(what: &str, text: &str) -> Result<Selector, String> {
    let name = link_name(text).map_err(|why| format!("{what}: {why}"))?;
    Ok(Selector::named(&name))
}

/// live-boot's own order of the fields, said in ours.
fn live_boot(fields: &[&str]) -> String {
    let text = |at: usize| fields.get(at).copied().unwrap_or_default();
    let dns = match text(4) {
        "" => String::new(),
        dns => format!(":{dns}"),
    };
    format!(
        "this is the order of live-boot, which no other program reads; write \
         ip={}::{}:{}::{}:none{dns}",
        text(1),
        text(3),
        text(2),
        text(0),
    )
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::net::Mac;
    use crate::net::description::Needs;

    fn dhcp(request: Option<[u8; 4]>) -> Ipv4Method {
        Ipv4Method::Dhcp { request: request.map(Ipv4Addr::from) }
    }

    fn fixed(address: [u8; 4], prefix: u8, gateway: Option<[u8; 4]>) -> Ipv4Method {
        let gateway = gateway.map(Ipv4Addr::from);
        Ipv4Method::Static { address: address.into(), prefix, gateway, peer: None }
    }

    #[test]
    #[rustfmt::skip]
    fn the_kernels_form_is_read_as_ltsp_reads_it() {
        // value, method of IPv4, server, host, link
        let cases = [
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
            // To the kernel example.org is a domain of NIS
            ("::::n5.example.org::dhcp", dhcp(None), None, Some("n5.example.org"), None),
            ("::::a234567890123456789012345678901234567890123456789012345678901234::dhcp",
                dhcp(None), None, Some("a234567890123456789012345678901234567890123456789012345678901234"), None),
        ];
        for (value, ipv4, server, host, link) in cases {
            let got = address_request(value).unwrap_or_else(|why| panic!("ip={value}: {why}"));
            assert_eq!(got.ipv4, ipv4, "ip={value}");
            assert_eq!(got.server.as_deref(), server, "ip={value}");
            assert_eq!(got.hostname.as_deref(), host, "ip={value}");
            assert_eq!(got.on, link.map(Selector::named), "ip={value}");
        }
    }

    const MAC: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);

    fn asked(ipv4: bool, ipv6: Ipv6Method, needs: Needs) -> AddressRequest {
        AddressRequest { ipv4: super::dhcp(ipv4, None), ipv6, needs, ..AddressRequest::any() }
    }

    fn on(link: &str, request: AddressRequest) -> AddressRequest {
        AddressRequest { on: Some(Selector::named(link)), ..request }
    }

    #[test]
    #[rustfmt::skip]
    fn each_method_asks_for_its_families() {
        use Ipv6Method::{Auto, Dhcp, LinkLocal, Off};
        use Needs::{Both, Either, Ipv4, Ipv6};
        let cases = [
            ("dhcp",        asked(true,  Off, Ipv4)),
            ("dhcp4",       asked(true,  Off, Ipv4)),
            ("single-dhcp", asked(true,  Off, Ipv4)),       // dracut: the first lease wins, as always here
            ("bootp",       asked(true,  Off, Ipv4)),       // the kernel's; whoever answers speaks DHCP
            ("rarp",        asked(true,  Off, Ipv4)),
            ("both",        asked(true,  Off, Ipv4)),       // of BOOTP and DHCP
            ("on",          asked(true,  Auto, Either)),
            ("any",         asked(true,  Auto, Either)),
            ("all",         asked(true,  Auto, Either)),    // klibc
            ("",            asked(true,  Auto, Either)),    // dracut: dhcp; NetworkManager, kernel: any
            ("none",        asked(true,  Auto, Either)),    // without an address: whatever there is
            ("off",         asked(true,  Auto, Either)),
            ("dhcp6",       asked(false, Dhcp, Ipv6)),
            ("auto6",       asked(false, Auto, Ipv6)),
            ("either6",     asked(false, Auto, Ipv6)),
            ("link6",       asked(false, LinkLocal, Ipv6)),
            ("link-local",  asked(false, LinkLocal, Ipv6)), // systemd 255
            ("dhcp,dhcp6",  asked(true,  Dhcp, Both)),
            ("auto6,dhcp",  asked(true,  Auto, Both)),
            ("eth0:dhcp",   on("eth0", asked(true, Off, Ipv4))),
            ("eth0:dhcp,auto6", on("eth0", asked(true, Auto, Both))),
            (":::::eth0:dhcp6", on("eth0", asked(false, Dhcp, Ipv6))),
            ("eth0:none",   on("eth0", asked(false, Off, Either))), // set up, and no more
            ("bond0.5:on",  on("bond0.5", asked(true, Auto, Either))),
            ("enx525400aabbcc:dhcp", AddressRequest { on: Some(Selector::Mac(MAC)), ..asked(true, Off, Ipv4) }),
            ("enx525400aabbc:dhcp",  on("enx525400aabbc", asked(true, Off, Ipv4))), // too short: a name
            ("dhcp,0,node-5", AddressRequest { client_id: Some((0, b"node-5".to_vec())), ..asked(true, Off, Ipv4) }),
            (":::::eth0:dhcp,255,a,b", AddressRequest { client_id: Some((255, b"a,b".to_vec())), ..on("eth0", asked(true, Off, Ipv4)) }),
        ];
        for (value, expected) in cases {
            let got = address_request(value).unwrap_or_else(|why| panic!("ip={value}: {why}"));
            assert_eq!(got, expected, "ip={value}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn field_eight_says_what_follows_it() {
        let dns = |servers: &[&str]| servers.iter().map(|s| s.parse().unwrap()).collect::<Vec<IpAddr>>();
        // value; name servers, time servers, MTU, MAC
        let cases = [
            ("eth0:dhcp:1500",                              dns(&[]), dns(&[]), Some(1500), None),
            ("eth0:dhcp:9000:52:54:00:aa:bb:cc",            dns(&[]), dns(&[]), Some(9000), Some(MAC)),
            ("eth0:dhcp::52:54:00:aa:bb:cc",                dns(&[]), dns(&[]), None,       Some(MAC)),
            ("eth0:dhcp::52-54-00-aa-bb-cc",                dns(&[]), dns(&[]), None,       Some(MAC)),
            ("eth0:dhcp:",                                  dns(&[]), dns(&[]), None,       None),
            ("10.0.0.5::10.0.0.1:24::eth0:none:9000",       dns(&[]), dns(&[]), Some(9000), None),
            ("10.0.0.5::10.0.0.1:24::eth0:none:9000:52:54:00:aa:bb:cc", dns(&[]), dns(&[]), Some(9000), Some(MAC)),
            ("10.0.0.5::10.0.0.1:24::eth0:none::52:54:00:aa:bb:cc",     dns(&[]), dns(&[]), None,       Some(MAC)),
            ("10.0.0.5::10.0.0.1:24::eth0:none:52:54:00:aa:bb:cc",      dns(&[]), dns(&[]), None,       Some(MAC)),
            ("10.0.0.5::10.0.0.1:24::eth0:none:10.0.0.53",              dns(&["10.0.0.53"]), dns(&[]), None, None),
            ("10.0.0.5::10.0.0.1:24::eth0:none:10.0.0.53:[fd00::53]",   dns(&["10.0.0.53", "fd00::53"]), dns(&[]), None, None),
            ("10.0.0.5::10.0.0.1:24::eth0:none::10.0.0.53",             dns(&["10.0.0.53"]), dns(&[]), None, None),
            ("10.0.0.5::10.0.0.1:24::eth0:none:::10.0.0.9",             dns(&[]), dns(&["10.0.0.9"]), None, None),
            // As the kernel writes what it has not got.
            ("10.0.0.5:10.0.0.1::24::eth0:off:10.0.0.2:0.0.0.0:10.0.0.3", dns(&["10.0.0.2"]), dns(&["10.0.0.3"]), None, None),
            (":::::eth0:dhcp:1280",                                     dns(&[]), dns(&[]), Some(1280), None),
        ];
        for (value, dns, ntp, mtu, mac) in cases {
            let got = address_request(value).unwrap_or_else(|why| panic!("ip={value}: {why}"));
            assert_eq!((got.dns, got.ntp, got.mtu, got.cloned_mac), (dns, ntp, mtu, mac), "ip={value}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn field_two_is_the_boot_server_unless_the_link_has_two_ends() {
        let four = |prefix, gateway: Option<[u8; 4]>, peer: Option<[u8; 4]>| {
            let (gateway, peer) = (gateway.map(Ipv4Addr::from), peer.map(Ipv4Addr::from));
            Ok(Ipv4Method::Static { address: [10, 0, 0, 5].into(), prefix, gateway, peer })
        };
        let six = |prefix, gateway: Option<&str>, peer: Option<&str>| {
            let (gateway, peer) = (gateway.map(|g| g.parse().unwrap()), peer.map(|p| p.parse().unwrap()));
            Err(Ipv6Method::Static { address: "2001:db8::5".parse().unwrap(), prefix, gateway, peer })
        };
        // Ok: of IPv4, Err: of IPv6; boot server
        let cases = [
            ("10.0.0.5:10.0.0.1::24::eth0:none",      four(24, None, None),               Some("10.0.0.1")),
            ("10.0.0.5:10.0.0.4::31::eth0:none",      four(31, None, Some([10,0,0,4])),   None),
            ("10.0.0.5:10.0.0.4:10.0.0.4:255.255.255.255::eth0:none", four(32, Some([10,0,0,4]), Some([10,0,0,4])), None),
            ("10.0.0.5:10.9.0.4/32:::::none",         four(32, None, Some([10,9,0,4])),   None), // the mask of the peer
            ("10.0.0.5:10.9.0.4/24::255.255.255.255:::none", four(24, None, Some([10,9,0,4])), None), // as iproute2 takes it
            ("10.0.0.5:boot.example:10.0.0.1:255.255.255.254::eth0:none", four(31, Some([10,0,0,1]), None), Some("boot.example")),
            ("10.0.0.5/24::10.0.0.1:::eth0:none",     four(24, Some([10,0,0,1]), None),   None), // NetworkManager
            ("10.0.0.5/24::10.0.0.1:255.255.255.0::eth0:none", four(24, Some([10,0,0,1]), None), None),
            ("10.0.0.5/24",                           four(24, None, None),               None), // nobody asks for a prefix
            ("10.0.0.5/255.255.0.0",                  four(16, None, None),               None),
            ("10.0.0.5::10.0.0.1:24::eth0:static",    four(24, Some([10,0,0,1]), None),   None),
            ("[2001:db8::5]::[2001:db8::1]:64::eth0:none", six(64, Some("2001:db8::1"), None), None),
            ("[2001:db8::5]/64::[fe80::1]:::eth0:none",    six(64, Some("fe80::1"), None),     None),
            ("[2001:db8::5/64]::[fe80::1]:::eth0:none",    six(64, Some("fe80::1"), None),     None),
            ("[2001:db8::5]:[2001:db8::9]::64::eth0:none", six(64, None, None),                Some("2001:db8::9")),
            ("[2001:db8::5]:[2001:db8::4]::127::eth0:none", six(127, None, Some("2001:db8::4")), None),
            ("[2001:db8::5]/64",                           six(64, None, None),                None),
            ("[2001:db8::5]:::64::eth0:",                  six(64, None, None),                None), // nobody asks for IPv6
        ];
        for (value, expected, server) in cases {
            let got = address_request(value).unwrap_or_else(|why| panic!("ip={value}: {why}"));
            let method = match got.needs {
                Needs::Ipv4 => Ok(got.ipv4),
                _ => Err(got.ipv6),
            };
            assert_eq!(method, expected, "ip={value}");
            assert_eq!(got.server.as_deref(), server, "ip={value}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_typing_error_is_named_by_its_field() {
        let cases = [
            ("dhpc",                                  "\"dhpc\" is neither"),
            ("10.0.0.5:10.0.0.1::255.0.255.0:::off",  "netmask"),
            ("10.0.0.5:10.0.0.1::0:::off",            "netmask"),
            ("10.0.0.5:10.0.0.1::33:::off",           "netmask"),
            ("10.0.0.5:10.0.0.1:gw:24:::off",         "field 3"),
            ("10.0.0.5:::::eth0:off",                 "netmask"), // the kernel would guess from the class
            ("[2001:db8::5]:::::eth0:off",            "prefix length"), // NetworkManager: 64, systemd: 128
            ("[2001:db8::5]",                         "prefix length"),
            ("[2001:db8::5]:::ffff::::eth0:off",      "field 4"),
            ("2001:db8::5:::64::eth0:off",            "field 1"), // no brackets
            ("[2001:db8::5:::64::eth0:off",           "never closed"),
            ("10.0.0.300:::24::eth0:off",             "field 1"),
            ("224.0.0.5:::24::eth0:off",              "no link can have"),
            ("10.0.0.5/16:::24::eth0:off",            "field 1 says /16"),
            ("10.0.0.5::10.0.0.5:24::eth0:off",       "is the address itself"),
            ("10.0.0.5::[fd00::1]:24::eth0:off",      "family"),
            ("[fd00::5]:10.0.0.4/24::64::eth0:off",   "family"),
            (":::::eth0:none",                        "field 1, the address, is missing"),
            ("[fd00::5]/64:::::eth0:dhcp6",           "IPv6 address, for which nobody"),
            ("10.0.0.5:::::eth0:auto6",               "asks for none"),
            ("eth0",                                  "neither a method"),
            ("eth0:",                                 "field 2, the method, is missing"),
            ("eth0:dhpc",                             "field 2, the method, is \"dhpc\""),
            ("dhcp:eth0",                             "field 2"), // the other way round
            ("eth0:dhcp:abc",                         "field 3"),
            ("eth0:dhcp:10.0.0.1",                    "nameserver="),
            ("eth0:dhcp:10",                          "68 to 65535"),
            ("eth0:dhcp::01:00:5e:00:00:01",          "no port can have"),
            ("eth0:dhcp::52:54:00:aa:bb",             "field 4"),
            ("a-very-long-name:dhcp",                 "field 1"),
            ("10.0.0.5:s::24:n5;reboot:eth0:off",     "field 5"),
            ("10.0.0.5:s::24:n 5:eth0:off",           "field 5"),
            ("10.0.0.5:s::24:[n5]:eth0:off",          "field 5"),
            ("10.0.0.5:s::24:-n5:eth0:off",           "field 5"),
            ("::::a2345678901234567890123456789012345678901234567890123456789012345::dhcp", "64 at most"),
            ("10.0.0.5:s::24::e/h:off",               "field 6"),
            ("10.0.0.5:s::24::eth0:sometimes",        "field 7"),
            ("10.0.0.5:s::24::eth0:off:dns",          "field 8"),
            ("10.0.0.5:s::24::eth0:off:10.0.0.1:dns", "field 9"),
            ("a:b:c:d:e:f:g:h:i:j:k",                 "field 1"),
            ("10.0.0.5:s::24::e:off::::x",            "more than ten"),
            ("ibft",                                  "iSCSI"),
            (":::::eth0:ibft",                        "iSCSI"),
            ("on,dhcp6",                              "neither a method"), // on is both already
            ("dhcp,dhcp",                             "two methods of one family"),
            ("auto6,dhcp6",                           "two methods of one family"),
            ("dhcp,256,x",                            "0 to 255"),
            ("dhcp,0,",                               "1 to 254"),
            ("eth0:10.0.0.5:255.255.255.0:10.0.0.1:10.0.0.53",
                "live-boot, which no other program reads; write ip=10.0.0.5::10.0.0.1:255.255.255.0::eth0:none:10.0.0.53"),
        ];
        for (value, expected) in cases {
            let why = address_request(value).expect_err(value);
            assert!(why.contains(expected), "ip={value}: {why}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_value_makes_it_panic(value in "[a-z0-9:.,/\\[\\]-]*") {
            if let Err(why) = address_request(&value) {
                proptest::prop_assert!(!why.is_empty());
            }
        }
    }
}
