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

use crate::net::description::Ipv6Method;

/// Below `/proc/sys/net/ipv6`, with the link's name for `*`; to be set before the link is.
const SETTINGS: &[(&str, &str)] = &[
    // Machines that get power at the same moment were to be spread over it; their firmware does.
    ("conf/*/router_solicitation_delay", "0"),
    // What duplicate address detection waits for answers, too.
    ("neigh/*/retrans_time_ms", "50"),
    (ACCEPT_RA, "2"),
    // Routes that routers advertise beside the default one (RFC 4191).
    ("conf/*/accept_ra_rt_info_max_plen", "128"),
    // The address that firmware had, and that access lists know, is the one of the hardware
    // address, and it stays.
    ("conf/*/addr_gen_mode", "0"),
    ("conf/*/use_tempaddr", "0"),
];

/// Whether routers are believed: 2, because a host that forwards would not listen to them otherwise,
/// and 0 where somebody typed both address and router.
const ACCEPT_RA: &str = "conf/*/accept_ra";

/// Those that only the boot needs: three tries of 50 ms to find a neighbour are not enough for the
/// life of a machine.
const FOR_THE_BOOT: &[&str] = &["neigh/*/retrans_time_ms"];

/// What was there before, by setting.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Haste {
    before: Vec<(&'static str, String)>,
}

impl Haste {
    /// Sets everything for a link that is not up yet. `ipv6` is normally `/proc/sys/net/ipv6`.
    /// What a kernel does not have is no failure: the link is then as slow as it always was.
    ///
    /// A link without IPv6 of ours is left as it is, routers and all.
    pub fn begin(ipv6: &Path, link: &str, method: Ipv6Method) -> Self {
        let mut haste = Self::default();
        if method == Ipv6Method::Off {
            return haste;
        }
        let is_all_typed = matches!(method, Ipv6Method::Static { gateway: Some(_), .. });
        for (setting, value) in SETTINGS {
            let value = if is_all_typed && *setting == ACCEPT_RA { "0" } else { value };
            let Some(path) = path(ipv6, setting, link) else { continue };
            let Ok(before) = fs::read_to_string(&path) else { continue };
            if let Err(error) = fs::write(&path, value) {
                log::debug!(target: "network", "writing {}: {error}", path.display());
            } else if FOR_THE_BOOT.contains(setting) {
                haste.before.push((setting, before.trim().to_owned()));
            }
        }
        haste
    }

    /// Gives back what only the boot needs, when the link has its addresses. It may have another
    /// name by now.
    pub fn end(self, ipv6: &Path, link: &str) {
        for (setting, before) in self.before {
            let Some(path) = path(ipv6, setting, link) else { continue };
            if let Err(error) = fs::write(&path, before) {
                log::debug!(target: "network", "writing {}: {error}", path.display());
            }
        }
    }
}

/// A name with a dot is a file name like any other, but one with a slash is no link's.
fn path(ipv6: &Path, setting: &str, link: &str) -> Option<PathBuf> {
    let is_name = !link.contains('/') && link != "..";
    is_name.then(|| ipv6.join(setting.replace('*', link)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_boot_needs_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let ipv6 = folder.path();
        for path in ["conf/eth0.7", "neigh/eth0.7", "neigh/rack0"] {
            fs::create_dir_all(ipv6.join(path)).unwrap();
        }
        let file = |path: &str| ipv6.join(path);
        fs::write(file("conf/eth0.7/accept_ra"), "1\n").unwrap();
        fs::write(file("neigh/eth0.7/retrans_time_ms"), "1000\n").unwrap();
        let read = |path: &str| fs::read_to_string(file(path)).unwrap();

        fs::write(file("neigh/rack0/retrans_time_ms"), "50\n").unwrap();
        assert_eq!(Haste::begin(ipv6, "eth0.7", Ipv6Method::Off), Haste::default());
        assert_eq!(read("conf/eth0.7/accept_ra"), "1\n", "nobody here asks");
        let haste = Haste::begin(ipv6, "eth0.7", Ipv6Method::Auto);
        assert_eq!(read("conf/eth0.7/accept_ra"), "2");
        assert_eq!(read("neigh/eth0.7/retrans_time_ms"), "50");
        assert!(!file("conf/eth0.7/use_tempaddr").exists(), "an old kernel is left as it is");
        haste.end(ipv6, "rack0");
        assert_eq!(read("conf/eth0.7/accept_ra"), "2");
        assert_eq!(read("neigh/rack0/retrans_time_ms"), "1000", "by its name of now");

        let address = "2001:db8::5".parse().unwrap();
        let gateway = Some("fe80::1".parse().unwrap());
        let typed = Ipv6Method::Static { address, prefix: 64, gateway, peer: None };
        Haste::begin(ipv6, "eth0.7", typed);
        assert_eq!(read("conf/eth0.7/accept_ra"), "0", "no router has anything to add");
        assert_eq!(Haste::begin(ipv6, "../x", Ipv6Method::Auto), Haste::default());
    }
}
