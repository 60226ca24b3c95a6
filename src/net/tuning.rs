//! Settings of the kernel's IPv6 for a link, made before it goes up. Without them a usable address
//! takes two seconds more: one until the kernel is sure of the link's own address, one until it asks
//! for routers.

use std::fs;
use std::path::Path;

const SETTINGS: [(&str, &str); 5] = [
    ("accept_ra", "1"),
    ("autoconf", "1"),
    // Of the hardware address (RFC 4862), the same one whoever runs the link later.
    ("addr_gen_mode", "0"),
    // RFC 4429: an address may be used while it is still being asked for.
    ("optimistic_dad", "1"),
    ("use_optimistic", "1"),
];

/// A kernel without IPv6, or without one of these, is one that needs no settings.
pub fn before_up(link: &str) {
    let folder = Path::new("/proc/sys/net/ipv6/conf").join(link);
    for (name, value) in SETTINGS {
        if let Err(error) = fs::write(folder.join(name), value) {
            log::trace!(target: "network", "{link}: {name}: {error}");
        }
    }
}
