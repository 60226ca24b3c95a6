//! Who this machine is, apart from its network: SMBIOS or device tree, architecture, memory.

use std::fs;
use std::path::Path;

/// What the firmware says of the machine, where it says anything usable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// SMBIOS system UUID in the byte order of the firmware's table, as PXE ROMs send it in DHCP
    /// option 97: the first three fields are little-endian (SMBIOS 2.6, section 7.2.1).
    pub uuid: Option<[u8; 16]>,
    pub serial: Option<String>,
}

impl Identity {
    /// Reads `class/dmi/id` below `sys` (normally `/sys`), and what a board without SMBIOS has
    /// instead: a device tree, whose root may have a serial number, but no UUID.
    pub fn read(sys: &Path) -> Self {
        let field = |path: &str| {
            fs::read_to_string(sys.join(path))
                // A device tree's strings end as C's do.
                .map(|text| text.trim_end_matches('\0').trim().to_owned())
                .ok()
                .filter(|text| !text.is_empty())
        };
        let serial = |path: &str| field(path).filter(|serial| !is_dummy(serial));
        Self {
            uuid: field("class/dmi/id/product_uuid").as_deref().and_then(uuid_as_stored),
            serial: serial("class/dmi/id/product_serial")
                .or_else(|| serial("firmware/devicetree/base/serial-number")),
        }
    }

    /// A machine that is somewhere else: its UUID in the order people write.
    pub fn of_uuid(text: &str) -> Option<Self> {
        Some(Self { uuid: Some(uuid_as_stored(text)?), serial: None })
    }

    /// `4c4c4544-0042-…`, the order people write.
    pub fn uuid_text(&self) -> Option<String> {
        let bytes = swapped(self.uuid?);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let group = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
        let groups = [group(0, 8), group(8, 12), group(12, 16), group(16, 20), group(20, 32)];
        Some(groups.join("-"))
    }
}

/// Kilobytes of RAM, from the text of `/proc/meminfo`.
pub fn memory_kib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// From the text of sysfs, which is in the order people write, back to the table's order. Boards
/// that were never given a UUID say all zeros or all ones.
fn uuid_as_stored(text: &str) -> Option<[u8; 16]> {
    let hex: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let mut bytes = [0; 16];
    if hex.len() != 32 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    let unset = bytes.iter().all(|b| *b == 0) || bytes.iter().all(|b| *b == 0xff);
    (!unset).then(|| swapped(bytes))
}

fn swapped(bytes: [u8; 16]) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
    let [i, j, k, l, m, n, o, p] = rest;
    [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
}

fn is_dummy(serial: &str) -> bool {
    let known = [
        "to be filled by o.e.m.",
        "default string",
        "system serial number",
        "not specified",
        "none",
        "0",
        "123456789",
    ];
    known.contains(&serial.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uuid_is_the_one_the_pxe_rom_sent() {
        let text = "00112233-4455-6677-8899-aabbccddeeff";
        let uuid = uuid_as_stored(text).unwrap();
        assert_eq!(uuid[..8], [0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66]);
        assert_eq!(uuid[8..], [0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]);
        let identity = Identity { uuid: Some(uuid), serial: None };
        assert_eq!(identity.uuid_text().as_deref(), Some(text));
    }

    #[test]
    #[rustfmt::skip]
    fn a_machine_is_known_by_its_firmware_or_by_its_device_tree() {
        const UUID: &str = "class/dmi/id/product_uuid";
        const SERIAL: &str = "class/dmi/id/product_serial";
        const TREE: &str = "firmware/devicetree/base/serial-number";
        const WRITTEN: &str = "00112233-4455-6677-8899-aabbccddeeff";
        let cases: [(&[(&str, &str)], Option<&str>, Option<&str>); 6] = [
            (&[(UUID, "00112233-4455-6677-8899-AABBCCDDEEFF\n"), (SERIAL, "CZ1234\n")], Some(WRITTEN), Some("CZ1234")),
            (&[(TREE, "10000000abcdef01\0")], None, Some("10000000abcdef01")), // a board
            (&[(SERIAL, "CZ1234\n"), (TREE, "1\0")], None, Some("CZ1234")),    // U-Boot with both
            (&[(SERIAL, "Not Specified\n"), (TREE, "77\0")], None, Some("77")),
            (&[(TREE, "\0")], None, None),
            (&[], None, None),                                                 // QEMU's virt machine
        ];
        for (files, uuid, serial) in cases {
            let sys = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = sys.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            let identity = Identity::read(sys.path());
            assert_eq!(identity.uuid_text().as_deref(), uuid, "{files:?}");
            assert_eq!(identity.serial.as_deref(), serial, "{files:?}");
        }
    }

    #[test]
    fn what_a_vendor_forgot_to_fill_in_is_nobodys_identity() {
        for text in [
            "00000000-0000-0000-0000-000000000000",
            "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
            "x",
            "",
        ] {
            assert_eq!(uuid_as_stored(text), None, "{text}");
        }
        assert!(is_dummy("To Be Filled By O.E.M."));
        assert!(!is_dummy("CZ1234"));
    }
}
