//! Who the machine is to DHCPv6 servers: its DUID (RFC 8415 section 11, RFC 6355) and the IAID of
//! a link. Firmware, agent and running system have to send the same, or each gets an address of
//! its own.
//!
//! What firmware sends, as its sources say:
//!
//! | | DUID | IAID |
//! |---|---|---|
//! | iPXE | UUID, in the order people write it | CRC-32 of the hardware address, from 0 and not inverted |
//! | EDK2 | UUID, as SMBIOS stores it | dice, and the hardware address over them |
//!
//! So nobody can be the same client as EDK2's next boot, not even EDK2, and we are iPXE's: its
//! order is also that of RFC 6355 and of systemd. Software of the running system takes any DUID
//! and IAID that it is told.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Mac;

/// RFC 8415 section 11.1: a type and at most 128 bytes.
const LONGEST: usize = 130;
const LLT: u16 = 1;
const EN: u16 = 2;
const LL: u16 = 3;
const UUID: u16 = 4;
/// IANA's hardware type, as in ARP.
const ETHERNET: u16 = 1;

/// UUIDs of boards whose makers did not give them any, in the order people write.
const DUMMIES: &[[u8; 16]] = &[
    *b"\x03\x00\x02\x00\x04\x00\x05\x00\x00\x06\x00\x07\x00\x08\x00\x09",
    *b"\x00\x02\x00\x03\x00\x04\x00\x05\x00\x06\x00\x07\x00\x08\x00\x09",
    *b"\x03\x02\x01\x00\x05\x04\x07\x06\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f",
    *b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f",
    *b"\x12\x34\x56\x78\x12\x34\x56\x78\x90\xab\xcd\xde\xef\xaa\xbb\xcc",
    *b"\x12\x34\x56\x78\x12\x34\x12\x34\x12\x34\x12\x34\x56\x78\x90\xab",
    *b"\x10\x00\x00\x00\x00\x00\x80\x00\x00\x40\x00\x00\x00\x00\x00\x00",
    *b"\x11\x11\x11\x11\x22\x22\x33\x33\x44\x44\x55\x55\x55\x55\x55\x55",
    // Dell's, of a board that was changed and not given its service tag.
    *b"\x4c\x4c\x45\x44\x00\x00\x20\x10\x80\x20\x80\xc0\x4f\x20\x20\x20",
];

/// A client or a server of DHCPv6. Shown and read as `00:04:12:34…`, type included.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duid(Vec<u8>);

impl Duid {
    /// The machine with this SMBIOS UUID (as the firmware stores it) where that is one, else the
    /// one with this port.
    pub fn of_machine(uuid: Option<[u8; 16]>, mac: Mac) -> Self {
        uuid.and_then(Self::of_uuid).unwrap_or_else(|| Self::of_mac(mac))
    }

    /// DUID-UUID (RFC 6355) of a UUID as the firmware stores it, whose first three fields are
    /// little-endian. `None` when it is nobody's.
    pub fn of_uuid(stored: [u8; 16]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h, rest @ ..] = stored;
        let [i, j, k, l, m, n, o, p] = rest;
        let written = [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p];
        // All zeros, all ones, and whatever else somebody filled a page of flash with.
        let is_filler = written.windows(2).all(|pair| pair.first() == pair.last());
        let is_dummy = DUMMIES.iter().any(|dummy| *dummy == written || *dummy == stored);
        (!is_filler && !is_dummy).then(|| Self([UUID.to_be_bytes().as_slice(), &written].concat()))
    }

    /// DUID-LL: stays with the port, where the machine has no UUID.
    pub fn of_mac(mac: Mac) -> Self {
        Self([LL.to_be_bytes().as_slice(), &ETHERNET.to_be_bytes(), &mac.0].concat())
    }

    /// As a message has it. `None` when it is too short or too long to be one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (3..=LONGEST).contains(&bytes.len()).then(|| Self(bytes.to_vec()))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// `DUIDType=` and `DUIDRawData=` of networkd, which wants the type apart.
    pub fn networkd(&self) -> (String, String) {
        let (kind, data) = self.0.split_first_chunk::<2>().unwrap_or((&[0; 2], &[]));
        let kind = match u16::from_be_bytes(*kind) {
            LLT => "link-layer-time".to_owned(),
            EN => "vendor".to_owned(),
            LL => "link-layer".to_owned(),
            UUID => "uuid".to_owned(),
            other => other.to_string(),
        };
        (kind, hex(data))
    }
}

/// The number of a link's addresses among those of its machine, as iPXE makes it of the hardware
/// address.
pub fn iaid(mac: Mac) -> u32 {
    let mut crc = 0u32;
    for byte in mac.0 {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            let lowest = crc & 1;
            crc >>= 1;
            if lowest == 1 {
                crc ^= 0xedb8_8320;
            }
        }
    }
    crc
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

impl fmt::Display for Duid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Duid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Duid({self})")
    }
}

impl FromStr for Duid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let byte = |pair: &str| {
            let is_hex = pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit());
            u8::from_str_radix(pair, 16).ok().filter(|_| is_hex)
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        bytes
            .and_then(|bytes| Self::from_bytes(&bytes))
            .ok_or_else(|| format!("\"{text}\" is not a DUID like 00:03:00:01:52:54:00:aa:bb:cc"))
    }
}

impl TryFrom<String> for Duid {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Duid> for String {
    fn from(duid: Duid) -> Self {
        duid.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Identity;

    const NODE: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);

    fn of(uuid: &str) -> String {
        let stored = Identity::of_uuid(uuid).and_then(|identity| identity.uuid);
        Duid::of_machine(stored, NODE).to_string()
    }

    #[test]
    #[rustfmt::skip]
    fn a_machine_is_its_uuid_unless_that_is_nobodys() {
        const LINK: &str = "00:03:00:01:52:54:00:aa:bb:cc";
        let cases = [
            // In the order people write: what RFC 6355, iPXE and systemd send.
            ("00112233-4455-6677-8899-aabbccddeeff", "00:04:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff"),
            ("4c4c4544-0042-4810-8051-b7c04f4e4a32", "00:04:4c:4c:45:44:00:42:48:10:80:51:b7:c0:4f:4e:4a:32"),
            ("00000000-0000-0000-0000-000000000000", LINK), // never set
            ("ffffffff-ffff-ffff-ffff-ffffffffffff", LINK), // not present, may be set
            ("fefefefe-fefe-fefe-fefe-fefefefefefe", LINK),
            ("03000200-0400-0500-0006-000700080009", LINK), // AMI's example
            ("00020003-0004-0005-0006-000700080009", LINK), // the same, the other way round
            ("12345678-1234-5678-90ab-cddeefaabbcc", LINK),
            ("78563412-3412-7856-90ab-cddeefaabbcc", LINK), // the same, the other way round
            ("4c4c4544-0000-2010-8020-80c04f202020", LINK), // a Dell without service tag
        ];
        for (uuid, expected) in cases {
            assert_eq!(of(uuid), expected, "{uuid}");
        }
        assert_eq!(Duid::of_machine(None, NODE).to_string(), LINK);
    }

    /// The values are those of iPXE's `crc32_le(0, …)`, worked out by another program (Python's
    /// zlib.crc32 of all bits inverted, inverted).
    #[test]
    fn a_link_has_the_number_that_ipxe_gives_it() {
        for (mac, expected) in IAIDS {
            assert_eq!(iaid(Mac(*mac)), *expected, "{mac:02x?}");
        }
    }

    const IAIDS: &[([u8; 6], u32)] =
        &[([0; 6], 0), (NODE.0, 0xcdd9_e1a9), ([0xff; 6], 0xf01b_4ca3)];

    #[test]
    #[rustfmt::skip]
    fn only_what_a_server_may_send_is_a_duid() {
        let long = ["00"; 131].join(":");
        let cases = [
            ("00:03:00:01:52:54:00:aa:bb:cc", true),
            ("00:01:00",  true),
            ("00:01",     false), // a type of nobody
            ("",          false),
            ("0:1:2",     false),
            ("00:+1:22",  false),
            ("00-01-22",  false),
            (&long,       false),
        ];
        for (text, is_one) in cases {
            let read = text.parse::<Duid>();
            assert_eq!(read.is_ok(), is_one, "{text}");
            if let Ok(duid) = read {
                assert_eq!(duid.to_string(), text);
                let json = serde_json::to_string(&duid).unwrap();
                assert_eq!(serde_json::from_str::<Duid>(&json).unwrap(), duid);
            }
        }
    }

    #[test]
    fn networkd_is_told_the_type_apart() {
        let told = |text: &str| text.parse::<Duid>().unwrap().networkd();
        let pair = |kind: &str, data: &str| (kind.to_owned(), data.to_owned());
        assert_eq!(told("00:04:00:11:22"), pair("uuid", "00:11:22"));
        assert_eq!(told("00:02:00:00:ab"), pair("vendor", "00:00:ab"));
        assert_eq!(told("00:09:ab"), pair("9", "ab"));
        assert_eq!(Duid::of_mac(NODE).networkd(), pair("link-layer", "00:01:52:54:00:aa:bb:cc"));
    }
}
