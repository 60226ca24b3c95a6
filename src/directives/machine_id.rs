//! /etc/machine-id: one per node, the same at every boot.
//!
//! Nodes share their image, so an id in the image is the same on all of them, and an empty one is a
//! new machine at every boot, to journald, to DHCP and to Kubernetes (C73). The id is LTSP's, made
//! of the boot MAC address, which LTSP put into D-Bus' file (C72): two files that differ would be
//! two machines. `systemd.machine_id=` on the command line still outranks it, in systemd.

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
        (Some(Mac(mac)), _) => Some(format!("{}{}", hex(&mac), "0".repeat(20))),
        // What boards say that were never given one.
        (None, Some(uuid)) if uuid == [0; 16] || uuid == [0xff; 16] => None,
        (None, uuid) => uuid.map(|uuid| hex(&uuid)),
    }
}

pub fn apply(id: &str, draft: &mut Draft<'_>) -> Result<()> {
    let text = format!("{id}\n");
    // A container image may have it as a mount point or a link: replaced in any case.
    draft.replace(MACHINE_ID, text.as_str(), 0o444);
    let linked =
        matches!(draft.kind(DBUS)?, Some(Kind::Link(target)) if target.ends_with("etc/machine-id"));
    if draft.exists("/var/lib/dbus") && !linked {
        draft.replace(DBUS, text, 0o444);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directives::Tree;
    use crate::directives::draft::on;

    #[test]
    fn a_node_is_the_same_machine_at_every_boot_c72_c73() {
        let mac = "52:54:00:aa:bb:cc".parse().ok();
        let id = choose(mac, Some([1; 16])).unwrap();
        assert_eq!(id, "525400aabbcc00000000000000000000");
        assert_eq!(choose(None, Some([0xab; 16])).unwrap(), "ab".repeat(16));
        assert_eq!(choose(None, Some([0xff; 16])), None);
        assert_eq!(choose(None, None), None);

        for (case, link) in
            [("dbus has a file", None), ("dbus has a link", Some("/etc/machine-id"))]
        {
            let folder = tempfile::tempdir().unwrap();
            let tree = Tree::open(folder.path()).unwrap();
            tree.write(MACHINE_ID, "0123456789abcdef0123456789abcdef\n", 0o444).unwrap();
            match link {
                Some(target) => tree.link(DBUS, target).unwrap(),
                None => tree.write(DBUS, "old\n", 0o644).unwrap(),
            }
            on(&tree, |draft| apply(&id, draft)).unwrap();
            for file in [MACHINE_ID, DBUS] {
                assert_eq!(
                    tree.read_text(file).unwrap().unwrap(),
                    format!("{id}\n"),
                    "{case}: {file}"
                );
            }
            assert_eq!(
                tree.kind(DBUS).unwrap().map(|k| matches!(k, Kind::Link(_))),
                Some(link.is_some())
            );
        }
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        on(&tree, |draft| apply(&id, draft)).unwrap();
        assert!(!tree.exists("/var"));
    }
}
