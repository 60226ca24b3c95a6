//! Whether somebody in the running system renews an address, so that the keeper does not. Pure.
//!
//! What was found in the root before it ran is a hint; what counts is what is done now:
//!
//! - systemd-networkd and NetworkManager have a socket that is bound to the very address and the
//!   client's port for as long as they have the lease;
//! - dhclient, dhcpcd and NetworkManager tell the kernel how long the address lasts, and the agent
//!   left it without an end.
//!
//! A client that does neither (udhcpc) renews beside the keeper, as the same client of the same
//! lease: two questions to the server in place of one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::net::Renewer;

/// Seconds before the end of an address that nobody prolongs: a share of what it lasts, which is
/// later than any client's last attempt.
fn margin(lasts: u32) -> u32 {
    (lasts / 16).clamp(3, 60)
}

/// An address's end, as somebody else has told the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Since the kernel's start.
    pub at: Duration,
    /// Seconds, when it was told.
    pub lasts: u32,
    /// It was told in the running system, not left by the agent.
    pub is_news: bool,
}

impl End {
    /// When somebody has to prolong it because nobody does.
    pub fn too_late(&self) -> Duration {
        self.at.saturating_sub(Duration::from_secs(margin(self.lasts).into()))
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Signs {
    pub now: Duration,
    /// When the lease has to be renewed, as far as the keeper knows.
    pub renew_at: Duration,
    /// Found in the root before it ran.
    pub found: Renewer,
    /// Somebody has the client's port of this address.
    pub has_port: bool,
    pub end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Keeper,
    Somebody,
}

pub fn renews(signs: Signs) -> Who {
    let is_about_to_end = signs.end.is_some_and(|end| signs.now >= end.too_late());
    let prolongs = signs.end.is_some_and(|end| end.is_news);
    let may_come = signs.found != Renewer::Nobody && signs.now < signs.renew_at;
    match () {
        () if is_about_to_end => Who::Keeper,
        () if prolongs || signs.has_port || may_come => Who::Somebody,
        () => Who::Keeper,
    }
}

/// Whether `table`, a text as `/proc/net/udp` or `udp6`, has a socket bound to this address and port.
/// A wildcard says nothing: dhclient has one for all links, whichever of them it looks after, and the
/// keeper's own is one.
pub fn is_bound(table: &str, address: IpAddr, port: u16) -> bool {
    let mut locals = table.lines().skip(1).map(|line| line.split_ascii_whitespace().nth(1));
    locals.any(|local| local.and_then(read_local) == Some((address, port)))
}

/// `0F02000A:0044`: 32-bit words as the processor has them in memory.
fn read_local(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let (words, rest) = address.as_bytes().as_chunks::<8>();
    let mut bytes = Vec::with_capacity(16);
    for word in words {
        let word = u32::from_str_radix(str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let address = match (bytes.as_slice(), rest) {
        (four, []) if four.len() == 4 => Ipv4Addr::from(*four.first_chunk::<4>()?).into(),
        (all, []) => Ipv6Addr::from(*all.first_chunk::<16>()?).into(),
        _ => return None,
    };
    Some((address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn who_renews_is_seen_by_what_is_done() {
        use Renewer::{Networkd, Nobody, NetworkManager};
        let end = |at, is_news| Some(End { at: Duration::from_secs(at), lasts: 120, is_news });
        // Renewed at 60 s. 120 s of which the last 7 are too late.
        let cases = [
            ("nobody was found, nobody is there",  30,  Nobody,         false, None,             Who::Keeper),
            ("networkd may still be starting",     30,  Networkd,       false, None,             Who::Somebody),
            ("networkd was to, and is not there",  61,  Networkd,       false, None,             Who::Keeper),
            ("networkd has the port",              61,  Networkd,       true,  None,             Who::Somebody),
            ("somebody else has the port",         61,  Nobody,         true,  None,             Who::Somebody),
            ("dhclient prolongs it",               61,  Nobody,         false, end(180, true),   Who::Somebody),
            ("dhclient has died",                  174, Nobody,         false, end(180, true),   Who::Keeper),
            ("as the agent left it",               61,  NetworkManager, false, end(120, false),  Who::Keeper),
            ("as the agent left it, early",        30,  NetworkManager, false, end(120, false),  Who::Somebody),
            ("a port alone prolongs nothing",      174, NetworkManager, true,  end(180, true),   Who::Keeper),
        ];
        for (case, now, found, has_port, end, expected) in cases {
            let now = Duration::from_secs(now);
            let signs = Signs { now, renew_at: Duration::from_secs(60), found, has_port, end };
            assert_eq!(renews(signs), expected, "{case}");
        }
    }

    #[test]
    fn the_last_moment_leaves_time_to_ask() {
        let too_late = |lasts: u32| {
            End { at: Duration::from_secs(100_000), lasts, is_news: true }.too_late().as_secs()
        };
        assert_eq!([30, 120, 3600, 86_400].map(too_late), [99_997, 99_993, 99_940, 99_940]);
    }

    #[test]
    fn only_the_port_of_the_very_address_counts() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            \x20 387: 0F02000A:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000   998        0 13338 2 0000000000000000 0\n\
            \x20 387: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 13339 2 0000000000000000 0\n\
            \x20 400: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   991        0 12000 2 0000000000000000 0\n";
        let bound = |address: &str, port| is_bound(table, address.parse().unwrap(), port);
        assert!(bound("10.0.2.15", 68));
        assert!(!bound("10.0.2.16", 68));
        assert!(!bound("10.0.2.15", 67));
        let table = "header\n 1: B80D0120000000000000000057000000:0222 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 5 2 0 0\n";
        assert!(is_bound(table, "2001:db8::57".parse().unwrap(), 546));
        assert!(!is_bound("header\nnonsense\n1: é:0044 x\n", "2001:db8::57".parse().unwrap(), 546));
    }
}
