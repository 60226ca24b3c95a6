//! Addresses that mean nothing without their link (`fe80::…`), in what a server says of booting.

use std::net::Ipv6Addr;

/// `text` with the number of the link behind each such address in brackets that has none, as in
/// `tftp://[fe80::1%2]/boot`: the answer came over that link, and firmware takes it so. A number and
/// not its name, because the running system may give the link another.
pub fn on_link(text: &str, link: u32) -> String {
    let mut scoped = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        scoped.push_str(before);
        scoped.push('[');
        rest = after;
        if let Some((inside, _)) = after.split_once(']')
            && let Ok(address) = inside.parse::<Ipv6Addr>()
            && address.is_unicast_link_local()
        {
            scoped.push_str(&format!("{inside}%{link}"));
            rest = after.strip_prefix(inside).unwrap_or(after);
        }
    }
    scoped.push_str(rest);
    scoped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::Url;
    use crate::net::Lease6;

    #[test]
    #[rustfmt::skip]
    fn an_address_of_the_link_is_one_of_this_link() {
        let cases = [
            ("tftp://[fe80::1]/grubx64.efi",            "tftp://[fe80::1%2]/grubx64.efi"),
            ("http://[fe80::1]:8080/[fe80::2]",         "http://[fe80::1%2]:8080/[fe80::2%2]"),
            ("root=nbd:[fe80::1]:root",                 "root=nbd:[fe80::1%2]:root"),
            ("tftp://[fe80::1%eth0]/x",                 "tftp://[fe80::1%eth0]/x"), // it says so already
            ("tftp://[2001:db8::1]/x",                  "tftp://[2001:db8::1]/x"),
            ("tftp://boot.lan/fe80::1",                 "tftp://boot.lan/fe80::1"),
            ("[[fe80::1",                               "[[fe80::1"),
            ("]x[",                                     "]x["),
            ("",                                        ""),
        ];
        for (said, expected) in cases {
            assert_eq!(on_link(said, 2), expected, "{said}");
        }
    }

    /// Those who use it can.
    #[test]
    fn such_an_address_can_be_reached() {
        for link in [1, 25, 7] {
            let url = on_link("tftp://[fe80::1]/x", link);
            let Url::Tftp { host: crate::fetch::Host::Address(literal), .. } = url.parse().unwrap()
            else {
                panic!("{url}")
            };
            let expected = format!("[fe80::1%{link}]:69");
            assert_eq!(literal.at(69).unwrap().to_string(), expected);
            let lease = Lease6 { boot_url: Some(url), ..Lease6::default() };
            let server = lease.boot_server().unwrap().parse::<crate::net::dial::Literal>();
            assert_eq!(server.unwrap().at(69).unwrap().to_string(), expected);
        }
    }
}
