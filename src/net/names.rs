//! Names and texts that come from a network, in options of DHCP and of router advertisements, and
//! what of them may be used as it is.
//!
//! Lists of names are those of DHCPv6 and of routers, which forbid compression (RFC 8415 section 10,
//! RFC 8106 section 5.2); DHCPv4's are in `dhcp::options`.

/// Names in a list, addresses in a list: more is a mistake or an attack.
pub const MANY: usize = 16;

/// A list of names in full, each once. `None` when any is malformed, for half of a search list
/// finds other machines than the whole.
pub fn list(mut bytes: &[u8]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    while let [first, after_first @ ..] = bytes {
        // Padding behind the last name, and the root, which is no suffix.
        if *first == 0 {
            bytes = after_first;
            continue;
        }
        let (name, rest) = name(bytes)?;
        if !names.contains(&name) && names.len() < MANY {
            names.push(name);
        }
        bytes = rest;
    }
    Some(names)
}

/// One name, and what is behind it. One that ends with the bytes, as option 39 may (RFC 4704
/// section 4.2), ends so.
pub fn name(mut bytes: &[u8]) -> Option<(String, &[u8])> {
    let mut name = String::new();
    while let [length, rest @ ..] = bytes {
        if *length == 0 {
            bytes = rest;
            break;
        }
        // 64 and more would be a pointer, which must not be here.
        let (label, rest) = rest.split_at_checked(usize::from(*length)).filter(|_| *length < 64)?;
        let label = std::str::from_utf8(label).ok().filter(|label| !label.contains('.'))?;
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(label);
        bytes = rest;
    }
    is_host_name(&name).then_some((name, bytes))
}

/// A name as labels, for a message of ours; a name that DNS could not have is cut.
pub fn encode(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let labels = name.split('.').filter(|label| !label.is_empty());
    for label in labels {
        let label = label.as_bytes();
        let label = label.get(..63).unwrap_or(label);
        if bytes.len().saturating_add(label.len()) > 253 {
            break;
        }
        bytes.push(u8::try_from(label.len()).unwrap_or(63));
        bytes.extend(label);
    }
    bytes
}

/// The part before the first NUL, which some servers send and RFC 2132 forbids; `None` when that
/// is empty, not UTF-8, or has control characters that a console would obey.
pub fn text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes.split(|byte| *byte == 0).next()?).ok()?.trim();
    (!text.is_empty() && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

/// What may go to a shell's environment, `/etc/hosts` or `sethostname(2)` as it is.
pub fn is_host_name(name: &str) -> bool {
    (1..=253).contains(&name.len())
        && !name.starts_with(['-', '.'])
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    #[rustfmt::skip]
    fn a_list_of_names_is_whole_or_not_at_all() {
        let cases: [(&str, &[u8], Option<&[&str]>); 11] = [
            ("one",                   b"\x03eng\x03lan\0",          Some(&["eng.lan"])),
            ("two",                   b"\x03eng\0\x03lan\0",        Some(&["eng", "lan"])),
            ("one, padded",           b"\x03eng\0\0\0\0",           Some(&["eng"])),
            ("twice the same",        b"\x03eng\0\x03eng\0",        Some(&["eng"])),
            ("none",                  b"",                          Some(&[])),
            ("not ended",             b"\x03eng",                   Some(&["eng"])), // RFC 4704
            ("cut",                   b"\x03eng\0\x04la",           None),
            ("a pointer",             b"\x03eng\0\xc0\x00",         None),
            ("a pointer to itself",   b"\xc0\x00",                  None),
            ("a dot in a label",      b"\x03a.b\0",                 None),
            ("a command in a label",  b"\x04$(x)\0",                None),
        ];
        for (case, bytes, expected) in cases {
            let expected = expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
            assert_eq!(list(bytes), expected, "{case}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (list(&bytes), name(&bytes), text(&bytes));
        }

        #[test]
        fn what_is_encoded_is_read_again(name in "[a-z0-9]{1,20}(\\.[a-z0-9]{1,20}){0,4}") {
            prop_assert_eq!(list(&encode(&name)), Some(vec![name]));
        }

        #[test]
        fn any_text_becomes_a_bounded_name(name in ".{0,400}") {
            prop_assert!(encode(&name).len() <= 254);
        }
    }
}
