//! Whose boot this is: ours, or that of the system whose initramfs Landfall was put into.

use std::fmt;

use super::root::is_ours;
use super::{same_key, words};

/// Why a command line is not for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotOurs {
    /// `landfall=off`
    Off,
    /// This word asks for another kind of root.
    Root(String),
    /// Nothing asks for any.
    Nothing,
}

impl fmt::Display for NotOurs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("landfall=off"),
            Self::Root(word) => write!(f, "{word} is not for Landfall"),
            Self::Nothing => f.write_str("no root= asks for Landfall (root=dhcp would)"),
        }
    }
}

/// Whether this command line asks for a root that Landfall brings, in an image that has another
/// init as well.
///
/// Of each key the last counts. `netroot=` is there only to say which server, so it is believed
/// even beside a `root=` that names a file system by label; `root=` beats `nbdroot=`, because a
/// machine that has a disk must boot from it. That is also why nothing at all is not ours: there are
/// disks that systemd finds by their type (systemd-gpt-auto-generator(8)), and roots that are
/// written in initramfs.conf(5). A word that only we or a boot loader for networks would write is
/// enough.
pub fn claim(line: &str) -> Result<(), NotOurs> {
    let words = words(line);
    let last = |key: &str| words.iter().rev().find(|word| same_key(word.key, key));
    let value = |key: &str| last(key).map(|word| word.value.unwrap_or_default());
    if value("landfall").is_some_and(|value| super::keys::switch(value) == Ok(false)) {
        return Err(NotOurs::Off);
    }
    let foreign = |key: &str, value: &str| Err(NotOurs::Root(format!("{key}={value}")));
    for key in ["netroot", "root"] {
        match value(key) {
            Some(root) if is_ours(root) => return Ok(()),
            Some(root) if !root.is_empty() => return foreign(key, root),
            _ => {}
        }
    }
    if last("nbdroot").is_some() {
        return Ok(());
    }
    // initramfs-tools' name for who mounts the root, and the word for its NFS.
    match (value("boot"), value("nfsroot")) {
        (Some("landfall"), _) => return Ok(()),
        (Some(boot), _) if !["", "local"].contains(&boot) => return foreign("boot", boot),
        (_, Some(nfs)) => return foreign("nfsroot", nfs),
        _ => {}
    }
    let tells = |key: &str| {
        same_key(key, "BOOTIF") || same_key(key, "landfall") || key.starts_with("landfall.")
    };
    if words.iter().any(|word| tells(word.key)) { Ok(()) } else { Err(NotOurs::Nothing) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn a_root_of_ours_is_claimed_and_no_other() {
        let cases = [
            // Every spelling of a root that we bring.
            ("root=nbd:10.0.0.1:focal ro quiet",           None),
            ("root=nbd://boot/focal",                      None),
            ("root=landfall:nbd:10.0.0.1:focal",           None),
            ("root=landfall",                              None),
            ("root=dhcp",                                  None),
            ("netroot=dhcp",                               None),
            ("netroot=nbd:10.0.0.1:focal rd.neednet=1",    None),
            ("root=/dev/nbd0 nbdroot=:/opt/ltsp/amd64",    None), // LTSP
            ("root=/dev/nbd0p1",                           None),
            ("nbdroot=10.0.0.1,focal",                     None),
            ("boot=landfall",                              None), // initramfs-tools' word
            // No root, but the machine was booted from a network, or is ours: option 17.
            ("BOOTIF=01-52-54-00-aa-bb-cc quiet",          None),
            ("landfall.ram=copy",                          None),
            ("landfall",                                   None),
            // A disk that systemd looks for, or that initramfs.conf names; with a network, it may
            // be one whose key comes from there.
            ("",                                           Some("")),
            ("BOOT_IMAGE=vmlinuz ip=dhcp quiet",           Some("")),
            ("root= boot=local",                           Some("")),
            // A typing error in a root of ours must be told, not be somebody else's silence.
            ("root=nbd:h:99999:x",                         None),
            ("root=/dev/nbdx",                             None),
            ("root=nbds://boot/focal",                     None),
            // What a machine with a disk says.
            ("root=UUID=0a1b ro quiet",                    Some("root=UUID=0a1b")),
            ("root=/dev/sda1",                             Some("root=/dev/sda1")),
            ("root=\"LABEL=my disk\"",                     Some("root=LABEL=my disk")),
            ("root=/dev/mapper/vg-root cryptopts=target=x",Some("root=/dev/mapper/vg-root")),
            ("root=ZFS=rpool/ROOT",                        Some("root=ZFS=rpool/ROOT")),
            ("root=UUID=0a1b nbdroot=10.0.0.1,focal",      Some("root=UUID=0a1b")),
            // Other network roots.
            ("root=/dev/nfs nfsroot=10.0.0.1:/srv",        Some("root=/dev/nfs")),
            ("root=nfs4:10.0.0.1:/srv",                    Some("root=nfs4:10.0.0.1:/srv")),
            ("root=live:http://boot/x.squashfs",           Some("root=live:http://boot/x.squashfs")),
            ("netroot=iscsi:@10.0.0.1::::x root=LABEL=r",  Some("netroot=iscsi:@10.0.0.1::::x")),
            ("boot=live",                                  Some("boot=live")),
            ("boot=nfs nfsroot=/srv",                      Some("boot=nfs")),
            ("nfsroot=/srv",                               Some("nfsroot=/srv")),
            // A file system on the disk that the server serves.
            ("root=LABEL=r netroot=nbd:10.0.0.1:disk",     None),
            // The last one counts.
            ("root=UUID=0a1b root=nbd:10.0.0.1:focal",     None),
            ("root=nbd:10.0.0.1:focal root=UUID=0a1b",     Some("root=UUID=0a1b")),
            ("root=nbd:10.0.0.1:focal -- root=UUID=0a1b",  None),
            // The switch.
            ("root=nbd:10.0.0.1:focal landfall=off",       Some("landfall=off")),
            ("landfall=0",                                 Some("landfall=off")),
            ("landfall=off landfall=on root=dhcp",         None),
            ("landfall=off landfall root=dhcp",            None),
            ("landfall.ram=off root=dhcp",                 None),
        ];
        for (line, expected) in cases {
            let got = claim(line).err().map(|why| match why {
                NotOurs::Off => "landfall=off".to_owned(),
                NotOurs::Root(word) => word,
                NotOurs::Nothing => String::new(),
            });
            assert_eq!(got.as_deref(), expected, "{line}");
        }
    }
}
