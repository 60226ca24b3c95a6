//! Settings of the kernel that make IPv6 on a link a matter of a tenth of a second instead of two
//! to four: by default it waits up to 1 s on purpose, then 1 s for anybody who has its own address
//! on the link already, then up to 1 s again before it asks for a router, then 1 s for anybody who
//! has the address that it made.
//!
//! Whether an address is somebody else's is still asked. A neighbour on the same link answers
//! within milliseconds or, where it sleeps, not within a second either. Not asking at all
//! (`dad_transmits=0`) would save another 0.1 s and hide cloned machines. `optimistic_dad` looks
//! like the right thing and is not: an address is then there at once, but its first packets to
//! neighbours are lost until it has been asked for, and a connection stands still for 1 to 2 s.

use std::fs;
use std::path::{Path, PathBuf};

/// Below `/proc/sys/net/ipv6`, with the link's name for `*`; to be set before the link is.
const SETTINGS: &[(&str, &str)] = &[
    // Machines that get power at the same moment were to be spread over it; their firmware does.
    ("conf/*/router_solicitation_delay", "0"),
    // What duplicate address detection waits for answers, too.
    ("neigh/*/retrans_time_ms", "50"),
    // A host that forwards would not listen to routers otherwise.
    ("conf/*/accept_ra", "2"),
    // Routes that routers advertise beside the default one (RFC 4191).
    ("conf/*/accept_ra_rt_info_max_plen", "128"),
    // The address that firmware had, and that access lists know, is the one of the hardware
    // address, and it stays.
    ("conf/*/addr_gen_mode", "0"),
    ("conf/*/use_tempaddr", "0"),
];

/// Those that only the boot needs: three tries of 50 ms to find a neighbour are not enough for the
/// life of a machine.
const FOR_THE_BOOT: &[&str] = &["neigh/*/retrans_time_ms"];

/// What was there before.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Haste {
    before: Vec<(PathBuf, String)>,
}

impl Haste {
    /// Sets everything for a link that is not up yet. `ipv6` is normally `/proc/sys/net/ipv6`.
    /// What a kernel does not have is no failure: the link is then as slow as it always was.
    pub fn begin(ipv6: &Path, link: &str) -> Self {
        let mut haste = Self::default();
        // A name with a dot is a file name like any other, but one with a slash is no link's.
        if link.contains('/') || link == ".." {
            return haste;
        }
        for (setting, value) in SETTINGS {
            let path = ipv6.join(setting.replace('*', link));
            let Ok(before) = fs::read_to_string(&path) else { continue };
            if let Err(error) = fs::write(&path, value) {
                log::debug!(target: "network", "{link}: writing {}: {error}", path.display());
            } else if FOR_THE_BOOT.contains(setting) {
                haste.before.push((path, before.trim().to_owned()));
            }
        }
        haste
    }

    /// Gives back what only the boot needs, when the link has its addresses.
    pub fn end(self) {
        for (path, before) in self.before {
            if let Err(error) = fs::write(&path, before) {
                log::debug!(target: "network", "writing {}: {error}", path.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_boot_needs_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let ipv6 = folder.path();
        for path in ["conf/eth0.7", "neigh/eth0.7"] {
            fs::create_dir_all(ipv6.join(path)).unwrap();
        }
        let file = |path: &str| ipv6.join(path);
        fs::write(file("conf/eth0.7/accept_ra"), "1\n").unwrap();
        fs::write(file("neigh/eth0.7/retrans_time_ms"), "1000\n").unwrap();
        let read = |path: &str| fs::read_to_string(file(path)).unwrap();

        let haste = Haste::begin(ipv6, "eth0.7");
        assert_eq!(read("conf/eth0.7/accept_ra"), "2");
        assert_eq!(read("neigh/eth0.7/retrans_time_ms"), "50");
        assert!(!file("conf/eth0.7/use_tempaddr").exists(), "an old kernel is left as it is");
        haste.end();
        assert_eq!(read("conf/eth0.7/accept_ra"), "2");
        assert_eq!(read("neigh/eth0.7/retrans_time_ms"), "1000");

        assert_eq!(Haste::begin(ipv6, "../x"), Haste::default());
    }
}
