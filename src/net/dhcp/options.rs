//! The options of a DHCP message: gathered from wherever RFC 2131, 2132 and 3396 let a server put
//! them, and read with the suspicion that bytes from a network deserve.
//!
//! A malformed option counts as absent: half of a lease is worth more than none, and the pieces
//! without which there is no lease (address, mask) are checked by the caller.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use crate::net::Route;
use crate::net::names::{MANY, is_host_name, text};

pub const SUBNET_MASK: u8 = 1;
pub const TIME_OFFSET: u8 = 2;
pub const ROUTERS: u8 = 3;
pub const DNS_SERVERS: u8 = 6;
pub const HOST_NAME: u8 = 12;
pub const DOMAIN_NAME: u8 = 15;
pub const ROOT_PATH: u8 = 17;
pub const INTERFACE_MTU: u8 = 26;
pub const BROADCAST: u8 = 28;
pub const STATIC_ROUTES: u8 = 33;
pub const NIS_DOMAIN: u8 = 40;
pub const NTP_SERVERS: u8 = 42;
pub const VENDOR_SPECIFIC: u8 = 43;
pub const REQUESTED_ADDRESS: u8 = 50;
pub const LEASE_TIME: u8 = 51;
pub const OVERLOAD: u8 = 52;
pub const MESSAGE_TYPE: u8 = 53;
pub const SERVER_ID: u8 = 54;
pub const REQUEST_LIST: u8 = 55;
pub const MESSAGE: u8 = 56;
pub const MAX_SIZE: u8 = 57;
pub const RENEWAL_TIME: u8 = 58;
pub const REBINDING_TIME: u8 = 59;
pub const VENDOR_CLASS: u8 = 60;
pub const CLIENT_ID: u8 = 61;
pub const TFTP_SERVER: u8 = 66;
pub const BOOT_FILE: u8 = 67;
pub const USER_CLASS: u8 = 77;
pub const CLIENT_ARCH: u8 = 93;
pub const CLIENT_INTERFACE: u8 = 94;
pub const CLIENT_UUID: u8 = 97;
pub const IPV6_ONLY: u8 = 108;
pub const DOMAIN_SEARCH: u8 = 119;
pub const CLASSLESS_ROUTES: u8 = 121;
/// Windows servers sent option 121 under this number before it was assigned, and some still do.
pub const CLASSLESS_ROUTES_MICROSOFT: u8 = 249;

const PAD: u8 = 0;
const END: u8 = 255;

/// Options by number, parts of long ones joined in order of appearance (RFC 3396).
#[derive(Debug, Default)]
pub struct Options {
    values: BTreeMap<u8, Vec<u8>>,
}

/// What option 52 says about the two fixed fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overloaded {
    pub file: bool,
    pub sname: bool,
}

impl Options {
    /// Reads the options field and then, when option 52 says so, `file` and `sname`, in the order
    /// that RFC 3396 section 5 prescribes.
    pub fn gather(options: &[u8], file: &[u8], sname: &[u8]) -> (Self, Overloaded) {
        let mut all = Self::default();
        all.append(options);
        let overloaded = match all.bytes(OVERLOAD) {
            Some([1]) => Overloaded { file: true, sname: false },
            Some([2]) => Overloaded { file: false, sname: true },
            Some([3]) => Overloaded { file: true, sname: true },
            _ => Overloaded::default(),
        };
        if overloaded.file {
            all.append(file);
        }
        if overloaded.sname {
            all.append(sname);
        }
        (all, overloaded)
    }

    /// Stops at END, and before an option that claims more bytes than there are.
    fn append(&mut self, mut field: &[u8]) {
        loop {
            match field {
                [PAD, rest @ ..] => field = rest,
                [END, ..] | [] | [_] => return,
                [number, length, rest @ ..] => {
                    let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else {
                        return;
                    };
                    self.values.entry(*number).or_default().extend_from_slice(value);
                    field = rest;
                }
            }
        }
    }

    pub fn bytes(&self, number: u8) -> Option<&[u8]> {
        self.values.get(&number).map(Vec::as_slice)
    }

    pub fn byte(&self, number: u8) -> Option<u8> {
        match self.bytes(number)? {
            [byte] => Some(*byte),
            _ => None,
        }
    }

    pub fn u16(&self, number: u8) -> Option<u16> {
        Some(u16::from_be_bytes(self.bytes(number)?.try_into().ok()?))
    }

    pub fn u32(&self, number: u8) -> Option<u32> {
        Some(u32::from_be_bytes(self.bytes(number)?.try_into().ok()?))
    }

    pub fn i32(&self, number: u8) -> Option<i32> {
        Some(i32::from_be_bytes(self.bytes(number)?.try_into().ok()?))
    }

    pub fn address(&self, number: u8) -> Option<Ipv4Addr> {
        let address = Ipv4Addr::from(self.u32(number)?);
        (!address.is_unspecified()).then_some(address)
    }

    /// Each address once; 0.0.0.0, which some servers send for "none", left out.
    pub fn addresses(&self, number: u8) -> Vec<Ipv4Addr> {
        let mut addresses = Vec::new();
        for chunk in self.bytes(number).unwrap_or_default().as_chunks::<4>().0 {
            let address = Ipv4Addr::from(*chunk);
            if !address.is_unspecified() && !addresses.contains(&address) && addresses.len() < MANY
            {
                addresses.push(address);
            }
        }
        addresses
    }

    pub fn ip_addresses(&self, number: u8) -> Vec<IpAddr> {
        self.addresses(number).into_iter().map(IpAddr::V4).collect()
    }

    pub fn text(&self, number: u8) -> Option<String> {
        text(self.bytes(number)?)
    }

    /// A name that may go to a shell's environment, `/etc/hosts` or `sethostname(2)` as it is.
    pub fn name(&self, number: u8) -> Option<String> {
        self.text(number).filter(|name| is_host_name(name))
    }

    /// Option 15. By the RFC one name, in the field often several separated by blanks, from the
    /// days before option 119.
    pub fn domains(&self) -> Vec<String> {
        let text = self.text(DOMAIN_NAME).unwrap_or_default();
        let names = text.split_ascii_whitespace().map(|name| name.trim_end_matches('.'));
        names.filter(|name| is_host_name(name)).take(MANY).map(str::to_owned).collect()
    }

    /// Option 119 (RFC 3397).
    pub fn search(&self) -> Vec<String> {
        self.bytes(DOMAIN_SEARCH).and_then(parse_search).unwrap_or_default()
    }

    /// What a PXE boot server has on its menu (option 43 as the class `PXEClient` means it): the
    /// types of its items. Empty when it has none; `None`: this is no PXE server's.
    pub fn boot_menu(&self) -> Option<Vec<u16>> {
        const BOOT_MENU: u8 = 9;
        if !self.bytes(VENDOR_CLASS)?.starts_with(b"PXEClient") {
            return None;
        }
        let mut inner = Self::default();
        inner.append(self.bytes(VENDOR_SPECIFIC).unwrap_or_default());
        let mut items = Vec::new();
        let mut menu = inner.bytes(BOOT_MENU).unwrap_or_default();
        while let &[high, low, length, ref rest @ ..] = menu
            && let Some((_text, rest)) = rest.split_at_checked(usize::from(length))
            && items.len() < MANY
        {
            items.push(u16::from_be_bytes([high, low]));
            menu = rest;
        }
        Some(items)
    }

    /// Bits of option 1. A mask with holes, or with no bit at all, is no mask.
    pub fn prefix(&self) -> Option<u8> {
        let mask = self.u32(SUBNET_MASK)?;
        let prefix = mask.leading_ones();
        (prefix > 0 && prefix.saturating_add(mask.trailing_zeros()) == u32::BITS)
            .then(|| u8::try_from(prefix).unwrap_or_default())
    }

    pub fn has_classless_routes(&self) -> bool {
        self.classless_routes().is_some()
    }

    fn classless_routes(&self) -> Option<Vec<Route>> {
        [CLASSLESS_ROUTES, CLASSLESS_ROUTES_MICROSOFT]
            .into_iter()
            .find_map(|number| parse_classless_routes(self.bytes(number)?))
    }

    /// All routes of the lease: option 121 alone when it is there (RFC 3442), else options 33, 3.
    pub fn routes(&self) -> Vec<Route> {
        if let Some(routes) = self.classless_routes() {
            return routes;
        }
        let mut routes = Vec::new();
        for pair in self.bytes(STATIC_ROUTES).unwrap_or_default().as_chunks::<8>().0 {
            let [a, b, c, d, e, f, g, h] = *pair;
            let (to, via) = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
            if !to.is_unspecified() && !via.is_unspecified() {
                routes.push(Route { to: classful(to), via: Some(via) });
            }
        }
        for router in self.addresses(ROUTERS) {
            routes.push(Route { to: Ipv4Net::default(), via: Some(router) });
        }
        routes
    }
}

/// Option 33 has no masks: the class of the destination decides (RFC 1812 5.2.4.3 ended classes,
/// not this option), except that a destination with host bits can only mean that host.
fn classful(to: Ipv4Addr) -> Ipv4Net {
    let [first, ..] = to.octets();
    let prefix = match first {
        0..=127 => 8,
        128..=191 => 16,
        192..=223 => 24,
        _ => 32,
    };
    match Ipv4Net::new(to, prefix) {
        Ok(net) if net.network() == to => net,
        _ => Ipv4Net::from(to),
    }
}

/// `None` when any part is malformed: RFC 3442 lets 121 replace the router option, and half of a
/// routing table is worse than that option.
fn parse_classless_routes(mut bytes: &[u8]) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    while let [prefix, rest @ ..] = bytes {
        let significant = usize::from(prefix.div_ceil(8));
        let (destination, rest) = rest.split_at_checked(significant)?;
        let mut octets = [0; 4];
        octets.get_mut(..significant)?.copy_from_slice(destination);
        let (via, rest) = rest.split_first_chunk::<4>()?;
        let via = Ipv4Addr::from(*via);
        routes.push(Route {
            // Host bits are to be ignored, by the same RFC.
            to: Ipv4Net::new(octets.into(), *prefix).ok()?.trunc(),
            via: (!via.is_unspecified()).then_some(via),
        });
        bytes = rest;
    }
    (!routes.is_empty()).then_some(routes)
}

/// `None` when any name is malformed. A compression pointer counts from the start of the joined
/// option and must point before itself, so that pointers alone lead nowhere for ever; a label and a
/// pointer back to it would, and what ends them is the length that a name may have.
fn parse_search(bytes: &[u8]) -> Option<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    let mut next = 0;
    while next < bytes.len() && names.len() < MANY {
        let mut name = String::new();
        let mut at = next;
        let mut after_name = None;
        loop {
            let length = *bytes.get(at)?;
            let after_length = at.checked_add(1)?;
            match length {
                0 => {
                    next = after_name.unwrap_or(after_length);
                    break;
                }
                1..=63 => {
                    let end = after_length.checked_add(usize::from(length))?;
                    let label = std::str::from_utf8(bytes.get(after_length..end)?).ok()?;
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.push_str(label);
                    if !is_host_name(&name) || label.contains('.') {
                        return None;
                    }
                    at = end;
                }
                0xc0.. => {
                    let low = *bytes.get(after_length)?;
                    let target = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                    if target >= at {
                        return None;
                    }
                    after_name.get_or_insert(after_length.checked_add(1)?);
                    at = target;
                }
                _ => return None,
            }
        }
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    (!names.is_empty()).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn options(number: u8, value: &[u8]) -> Options {
        let mut field = Vec::new();
        for part in value.chunks(255) {
            field.extend([number, part.len() as u8]);
            field.extend(part);
        }
        Options::gather(&field, &[], &[]).0
    }

    #[test]
    #[rustfmt::skip]
    fn options_are_found_in_every_field_that_may_hold_them() {
        type Row<'a> = (&'a str, &'a [u8], &'a [u8], &'a [u8], Option<&'a [u8]>);
        let cases: [Row<'_>; 9] = [
            ("plain",                    &[17, 2, b'/', b'r', 255],        &[],                &[],               Some(b"/r")),
            ("padding before it",        &[0, 0, 17, 1, b'/'],             &[],                &[],               Some(b"/")),
            ("after END is nothing",     &[255, 17, 1, b'/'],              &[],                &[],               None),
            ("in file",                  &[52, 1, 1, 255],                 &[17, 1, b'/', 255], &[],              Some(b"/")),
            ("in sname",                 &[52, 1, 2, 255],                 &[],                &[17, 1, b'/'],    Some(b"/")),
            ("in all three, RFC 3396",   &[17, 1, b'a', 52, 1, 3, 255],    &[17, 1, b'b'],     &[17, 1, b'c'],    Some(b"abc")),
            ("file is a name, not options", &[53, 1, 2, 255],              &[17, 1, b'/'],     &[],               None),
            ("length beyond the end",    &[17, 9, b'/'],                   &[],                &[],               None),
            ("number without length",    &[53, 1, 2, 17],                  &[],                &[],               None),
        ];
        for (case, field, file, sname, expected) in cases {
            let (options, _) = Options::gather(field, file, sname);
            assert_eq!(options.bytes(ROOT_PATH), expected, "{case}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_mask_is_ones_and_then_zeros() {
        let cases = [
            ([255, 255, 255, 0],   Some(24)),
            ([255, 255, 254, 0],   Some(23)),
            ([255, 255, 255, 255], Some(32)),
            ([128, 0, 0, 0],       Some(1)),
            ([0, 0, 0, 0],         None),
            ([255, 0, 255, 0],     None),
            ([0, 255, 255, 255],   None),
        ];
        for (mask, expected) in cases {
            assert_eq!(options(SUBNET_MASK, &mask).prefix(), expected, "mask {mask:?}");
        }
        assert_eq!(options(SUBNET_MASK, &[255, 255]).prefix(), None, "a short mask");
    }

    fn shown(options: &Options) -> Vec<String> {
        let via = |route: &Route| route.via.map_or("link".to_owned(), |via| via.to_string());
        options.routes().iter().map(|route| format!("{} {}", route.to, via(route))).collect()
    }

    #[test]
    #[rustfmt::skip]
    fn routes_follow_rfc_3442() {
        let router = [3, 4, 10, 0, 0, 254].as_slice();
        let cases: [(&str, &[u8], &[&str]); 9] = [
            ("no 121: the router option",       &[],                                              &["0.0.0.0/0 10.0.0.254"]),
            ("121 replaces the router",         &[121, 8, 24, 10, 1, 2, 10, 0, 0, 1],             &["10.1.2.0/24 10.0.0.1"]),
            ("a default route in 121",          &[121, 5, 0, 10, 0, 0, 1],                        &["0.0.0.0/0 10.0.0.1"]),
            ("on the link itself",              &[121, 9, 32, 10, 0, 0, 9, 0, 0, 0, 0],           &["10.0.0.9/32 link"]),
            ("host bits are ignored",           &[121, 7, 9, 10, 255, 10, 0, 0, 1],               &["10.128.0.0/9 10.0.0.1"]),
            ("249 stands in for 121",           &[249, 5, 0, 10, 0, 0, 3],                        &["0.0.0.0/0 10.0.0.3"]),
            ("a malformed 121 is absent",       &[121, 5, 33, 1, 2, 3, 4],                        &["0.0.0.0/0 10.0.0.254"]),
            ("33 goes with the router",         &[33, 8, 172, 16, 0, 0, 10, 0, 0, 2],             &["172.16.0.0/16 10.0.0.2", "0.0.0.0/0 10.0.0.254"]),
            ("33 with host bits is a host",     &[33, 8, 192, 168, 7, 7, 10, 0, 0, 2],            &["192.168.7.7/32 10.0.0.2", "0.0.0.0/0 10.0.0.254"]),
        ];
        for (case, field, expected) in cases {
            let (mut field, expected) = (field.to_vec(), expected.to_vec());
            if let Some(length) = field.get(1).copied() {
                field.truncate(2 + usize::from(length));
                field[1] = (field.len() - 2) as u8;
            }
            field.extend(router);
            let (options, _) = Options::gather(&field, &[], &[]);
            assert_eq!(shown(&options), expected, "{case}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn search_lists_may_be_compressed_but_not_endless() {
        let cases: [(&str, &[u8], &[&str]); 11] = [
            ("one name",               b"\x03eng\x05apple\x03com\x00",                       &["eng.apple.com"]),
            ("RFC 3397's example",     b"\x03eng\x05apple\x03com\x00\x09marketing\xc0\x04",  &["eng.apple.com", "marketing.apple.com"]),
            ("pointer to itself",      b"\x03eng\xc0\x04",                                   &[]),
            ("pointer to its label",   b"\x03eng\xc0\x00",                                   &[]),
            ("pointer to a pointer",   b"\x01a\x00\xc0\x00\xc0\x03",                          &["a"]),
            ("pointer forward",        b"\xc0\x02\x03eng\x00",                               &[]),
            ("name never ends",        b"\x03eng",                                           &[]),
            ("label too long",         b"\x40eng\x00",                                       &[]),
            ("blank in a label",       b"\x03a b\x00",                                       &[]),
            ("dot in a label",         b"\x03a.b\x00",                                       &[]),
            ("the root alone",         b"\x00",                                              &[]),
        ];
        for (case, value, expected) in cases {
            assert_eq!(options(DOMAIN_SEARCH, value).search(), expected, "{case}");
        }
        let long = [b"\x3f".as_slice(), &[b'a'; 63]].concat().repeat(4);
        assert!(options(DOMAIN_SEARCH, &[&long, b"\0".as_slice()].concat()).search().is_empty());
    }

    #[test]
    #[rustfmt::skip]
    fn a_boot_menu_is_read_to_its_first_mistake() {
        let cases: [(&str, &[u8], Option<&[u16]>); 7] = [
            ("no PXE server",         b"\x2b\x03\x06\x01\x08",                                       None),
            ("another class",         b"\x3c\x04MSFT\x2b\x03\x06\x01\x08",                           None),
            ("no menu",               b"\x3c\x09PXEClient\x2b\x03\x06\x01\x08",                      Some(&[])),
            ("nothing encapsulated",  b"\x3c\x09PXEClient",                                           Some(&[])),
            ("two items",             b"\x3c\x09PXEClient\x2b\x0b\x09\x09\x80\x00\x01a\x00\x00\x02bc",  Some(&[0x8000, 0])),
            ("a text beyond its end", b"\x3c\x09PXEClient\x2b\x08\x09\x06\x80\x00\x00\x80\x01\xff",     Some(&[0x8000])),
            ("a menu beyond its end", b"\x3c\x09PXEClient\x2b\x05\x09\xff\x80\x00\x00",                Some(&[])),
        ];
        for (case, field, expected) in cases {
            let (options, _) = Options::gather(field, &[], &[]);
            assert_eq!(options.boot_menu().as_deref(), expected, "{case}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn text_is_safe_to_print() {
        let cases: [(&[u8], Option<&str>); 6] = [
            (b"/opt/ltsp/amd64",     Some("/opt/ltsp/amd64")),
            (b"/opt/ltsp/amd64\0\0", Some("/opt/ltsp/amd64")), // not every server counts right
            (b"",                    None),
            (b"\0",                  None),
            (b"\x1b[2J",             None),
            (b"\xff",                None),
        ];
        for (value, expected) in cases {
            assert_eq!(text(value).as_deref(), expected, "{value:?}");
        }
        assert_eq!(options(HOST_NAME, b"n1;reboot").name(HOST_NAME), None);
        assert_eq!(options(DOMAIN_NAME, b"a.org. b.org").domains(), ["a.org", "b.org"]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(field in proptest::collection::vec(any::<u8>(), 0..600),
                                  number in prop::sample::select(vec![1u8, 3, 15, 33, 119, 121, 249])) {
            let (any_options, _) = Options::gather(&field, &field, &field);
            for options in [any_options, options(number, &field)] {
                let _ = (options.routes(), options.search(), options.domains(), options.prefix());
                let _ = (options.addresses(number), options.text(number), options.name(number));
                let _ = options.boot_menu();
            }
        }
    }
}
