//! Hardware addresses of links, in every spelling that boot loaders and people use.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The hardware address of a link: six bytes, or InfiniBand's twenty (RFC 4391 section 9.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HardwareAddress {
    Ethernet(Mac),
    Infiniband([u8; 20]),
}

impl FromStr for HardwareAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(bytes) = bytes(text) {
            return Ok(Self::Ethernet(Mac(bytes)));
        }
        bytes(text).map(Self::Infiniband).ok_or_else(|| {
            format!("\"{text}\" is not a hardware address: 6 bytes like 52:54:00:aa:bb:cc, or 20 of InfiniBand")
        })
    }
}

impl fmt::Display for HardwareAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ethernet(mac) => mac.fmt(f),
            Self::Infiniband(bytes) => {
                for (at, byte) in bytes.iter().enumerate() {
                    let separator = if at == 0 { "" } else { ":" };
                    write!(f, "{separator}{byte:02x}")?;
                }
                Ok(())
            }
        }
    }
}

/// Exactly `N` bytes in two digits each, with `:` or `-` between all of them.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let separator = if text.contains('-') { '-' } else { ':' };
    let mut bytes = [0; N];
    let mut parts = text.split(separator);
    for byte in &mut bytes {
        let part = parts.next()?;
        if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// `52-54-00-aa-bb-cc`: the form of file names and of pxelinux.
    pub fn dashed(&self) -> String {
        self.to_string().replace(':', "-")
    }

    /// Whether a single port can have it: neither a group's address nor none at all.
    pub fn is_unicast(&self) -> bool {
        let [first, ..] = self.0;
        first & 1 == 0 && self.0 != [0; 6]
    }

    /// Reads the value of `BOOTIF=`: pxelinux and iPXE put the hardware type in front (`01-`, or
    /// `20-` for InfiniBand's type 32), GRUB configurations in the wild leave it out.
    pub fn from_bootif(value: &str) -> Option<Self> {
        let address = match value.as_bytes() {
            [a, b, b'-' | b':', rest @ ..]
                if rest.len() == 17 && a.is_ascii_hexdigit() && b.is_ascii_hexdigit() =>
            {
                value.get(3..)?
            }
            _ => value,
        };
        address.parse().ok()
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("\"{text}\" is not a MAC address like 52:54:00:aa:bb:cc");
        bytes(text).map(Self).ok_or_else(wrong)
    }
}

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn bootif_is_understood_in_every_spelling_in_the_wild() {
        let node = Some(Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]));
        let cases = [
            ("01-52-54-00-aa-bb-cc", node), // pxelinux, iPXE
            ("01-52-54-00-AA-BB-CC", node),
            ("52-54-00-aa-bb-cc",    node), // the seed's grub.cfg (C80)
            ("52:54:00:aa:bb:cc",    node),
            ("01:52:54:00:aa:bb:cc", node),
            ("52-54-00-aa-bb",       None),
            ("52-54-00-aa-bb-cg",    None),
            ("52-54-00-aa-bb-+c",    None),
            ("",                     None),
            ("é2-54-00-aa-bb-cc-00", None), // not ASCII: must not split a character
        ];
        for (value, expected) in cases {
            assert_eq!(Mac::from_bootif(value), expected, "BOOTIF={value}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_hardware_address_has_six_bytes_or_twenty() {
        let ethernet = HardwareAddress::Ethernet(Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]));
        let mut bytes = [0; 20];
        [bytes[0], bytes[1], bytes[4], bytes[5], bytes[19]] = [0x80, 0, 0xfe, 0x80, 0xb1];
        let infiniband = "80:00:00:00:fe:80:00:00:00:00:00:00:00:00:00:00:00:00:00:b1";
        let cases = [
            ("52:54:00:aa:bb:cc",            Ok(ethernet)),
            ("52-54-00-AA-BB-CC",            Ok(ethernet)),
            (infiniband,                     Ok(HardwareAddress::Infiniband(bytes))),
            ("52:54:00:aa:bb",               Err(())),
            ("52:54:00:aa:bb:cc:dd",         Err(())),
            ("52:54-00:aa:bb:cc",            Err(())), // not both separators
            ("00:02:c9:03:00:0a:cb:b1",      Err(())), // a GUID is only the tail of an address
            ("",                             Err(())),
        ];
        for (text, expected) in cases {
            let got = text.parse::<HardwareAddress>();
            assert_eq!(got.clone().map_err(drop), expected, "{text}");
            if let Ok(address) = got {
                assert_eq!(address.to_string(), text.to_lowercase().replace('-', ":"));
            }
        }
    }
}
