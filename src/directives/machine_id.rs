//! /etc/machine-id: one per node, the same at every boot.
//!
//! Nodes share their image, so an id in the image is the same on all of them, and an empty one is a
//! new machine at every boot, to journald, to DHCP and to Kubernetes (C73). The id is LTSP's, made
//! of the boot MAC address, which LTSP put into D-Bus' file (C72): two files that differ would be
//! two machines, so that one becomes a link. `systemd.machine_id=` on the command line stays in
//! force: systemd takes it before it looks at the file, and writes it there.
//!
//! The firmware's UUID, which systemd would take in a virtual machine, comes second: boards lie
//! about it more often than cards about their address.

use super::tree::Kind;
use super::{Draft, View};
use crate::error::Result;
use crate::net::Mac;

const MACHINE_ID: &str = "/etc/machine-id";
const DBUS: &str = "/var/lib/dbus/machine-id";

/// The id for a node; by its firmware's UUID where there is no MAC address.
pub fn choose(mac: Option<Mac>, uuid: Option<[u8; 16]>) -> Option<String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match (mac, uuid) {
        (Some(Mac(mac)), _) if mac != [0; 6] => Some(format!("{}{}", hex(&mac), "0".repeat(20))),
        (_, uuid) => uuid.map(|uuid| hex(&uuid)).filter(|uuid| !is_dummy(uuid)),
    }
}

/// What boards say that were never given a UUID of their own, as the firmware stores it.
fn is_dummy(uuid: &str) -> bool {
    const KNOWN: [&str; 4] = [
        // AMI's, in either order of its first bytes.
        "00020003000400050006000700080009",
        "03000200040005000006000700080009",
        // "12345678-1234-5678-90ab-cddeefaabbcc", likewise.
        "123456781234567890abcddeefaabbcc",
        "785634123412785690abcddeefaabbcc",
    ];
    let (first, rest) = uuid.split_at_checked(2).unwrap_or((uuid, ""));
    // All 00, all ff, all fe, all 11 …
    let is_one_byte = rest.as_bytes().chunks(2).all(|pair| pair == first.as_bytes());
    is_one_byte || KNOWN.contains(&uuid)
}

pub fn apply(id: &str, draft: &mut Draft<'_>) -> Result<()> {
    let text = format!("{id}\n");
    // A container image may have it as a mount point or a link: replaced in any case.
    draft.replace(MACHINE_ID, text.as_str(), 0o444);
    let linked =
        matches!(draft.kind(DBUS)?, Some(Kind::Link(target)) if target.ends_with("etc/machine-id"));
    if draft.exists("/var/lib/dbus") && !linked {
        draft.link(DBUS, MACHINE_ID);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directives::Tree;
    use crate::directives::draft::on;

    #[test]
    #[rustfmt::skip]
    fn a_node_has_an_id_of_its_own_c72_c73() {
        let mac = "52:54:00:aa:bb:cc".parse().ok();
        let uuid = |first: u8| { let mut uuid: [u8; 16] = std::array::from_fn(|i| u8::try_from(i).unwrap()); uuid[0] = first; Some(uuid) };
        let ami = Some([0x03, 0, 0x02, 0, 0x04, 0, 0x05, 0, 0, 0x06, 0, 0x07, 0, 0x08, 0, 0x09]);
        let cases = [
            ("LTSP's",            mac,                              uuid(1),          Some("525400aabbcc00000000000000000000")),
            ("no card",           None,                             uuid(0xab),       Some("ab0102030405060708090a0b0c0d0e0f")),
            ("a card of nobody",  Some(Mac([0; 6])),                uuid(0xab),       Some("ab0102030405060708090a0b0c0d0e0f")),
            ("nothing",           None,                             None,             None),
            ("never filled in",   None,                             Some([0xff; 16]), None),
            ("never filled in",   None,                             Some([0; 16]),    None),
            ("never filled in",   None,                             Some([0xfe; 16]), None),
            ("the vendor's own",  None,                             ami,              None),
        ];
        for (case, mac, uuid, expected) in cases {
            assert_eq!(choose(mac, uuid).as_deref(), expected, "{case}");
        }
    }

    #[test]
    fn both_files_say_the_same_at_every_boot_c72_c73() {
        let id = "525400aabbcc00000000000000000000";
        for (case, link) in
            [("dbus has a file", None), ("dbus has a link", Some("../../../etc/machine-id"))]
        {
            let folder = tempfile::tempdir().unwrap();
            let tree = Tree::open(folder.path()).unwrap();
            tree.write(MACHINE_ID, "0123456789abcdef0123456789abcdef\n", 0o444).unwrap();
            match link {
                Some(target) => tree.link(DBUS, target).unwrap(),
                None => tree.write(DBUS, "old\n", 0o644).unwrap(),
            }
            on(&tree, |draft| apply(id, draft)).unwrap();
            for file in [MACHINE_ID, DBUS] {
                let text = tree.read_text(file).unwrap().unwrap();
                assert_eq!(text, format!("{id}\n"), "{case}: {file}");
            }
            let target = link.unwrap_or(MACHINE_ID).to_owned();
            assert_eq!(tree.kind(DBUS).unwrap(), Some(Kind::Link(target)), "{case}");
        }
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        on(&tree, |draft| apply(id, draft)).unwrap();
        assert!(!tree.exists("/var"));
    }
}
