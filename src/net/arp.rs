//! ARP on an Ethernet link (RFC 826), as far as address conflicts go (RFC 5227): is an address that
//! a server grants in use by somebody else, and telling the neighbours that it is ours now.
//!
//! Nothing here answers: that is the kernel's, as soon as it has the address.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::time::Duration;

use socket2::SockFilter;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

use super::Mac;
use crate::error::{Result, WhileDoing};
use crate::sys::packet;

/// Hardware Ethernet, protocol IPv4, six and four bytes of address.
const ETHERNET_AND_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
/// RFC 5227 section 2.3 (ANNOUNCE_INTERVAL).
const BETWEEN_ANNOUNCEMENTS: Duration = Duration::from_secs(2);
/// RFC 5227 section 1.1 (PROBE_MIN, ANNOUNCE_WAIT).
const BETWEEN_PROBES: Duration = Duration::from_secs(1);
const AFTER_PROBES: Duration = Duration::from_secs(2);
/// Of a packet; frames are padded to more.
const LENGTH: usize = 28;

/// Asks who has `address`, without claiming it: its sender has no address (RFC 5227 section 1.1).
pub fn probe(mac: Mac, address: Ipv4Addr) -> [u8; LENGTH] {
    packet(mac, Ipv4Addr::UNSPECIFIED, address)
}

/// Says that `address` is here, to caches and switches (RFC 5227 section 3 explains why it is a
/// request).
pub fn announcement(mac: Mac, address: Ipv4Addr) -> [u8; LENGTH] {
    packet(mac, address, address)
}

fn packet(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> [u8; LENGTH] {
    let parts: [&[u8]; 6] = [
        &ETHERNET_AND_IPV4,
        &REQUEST.to_be_bytes(),
        &mac.0,
        &sender.octets(),
        &[0; 6], // the question, or nobody in particular
        &target.octets(),
    ];
    let mut packet = [0; LENGTH];
    for (to, from) in packet.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    packet
}

/// Whose `address` is, when `packet` says that it is not `ours`.
///
/// A probe of somebody else for the same address counts as one by RFC 5227 section 2.1.1, and not
/// here: switches that track their hosts probe for what they have just seen in a DHCP ACK, and two
/// machines that a server gave the same address at the same moment are not to be expected.
pub fn claimant(packet: &[u8], ours: Mac, address: Ipv4Addr) -> Option<Mac> {
    let (head, rest) = packet.split_first_chunk::<6>()?;
    let (operation, rest) = rest.split_first_chunk::<2>()?;
    let (mac, rest) = rest.split_first_chunk::<6>()?;
    let (sender, _target) = rest.split_first_chunk::<4>()?;
    let speaks = [REQUEST, REPLY].contains(&u16::from_be_bytes(*operation));
    let (mac, sender) = (Mac(*mac), Ipv4Addr::from(*sender));
    (*head == ETHERNET_AND_IPV4 && speaks && sender == address && mac != ours).then_some(mac)
}

/// An ear for the ARP of one link.
#[derive(Debug)]
pub struct Ear {
    socket: AsyncFd<OwnedFd>,
    index: u32,
}

impl Ear {
    /// Must be called on the runtime.
    pub fn open(index: u32) -> Result<Self> {
        let all = [SockFilter::new(0x06, 0, 0, u32::MAX)];
        Ok(Self { socket: packet::open(index, packet::Protocol::Arp, &all)?, index })
    }

    /// Asks the link who has `address`.
    pub fn ask(&self, mac: Mac, address: Ipv4Addr) -> io::Result<()> {
        packet::send_to_all(
            &self.socket.get_ref(),
            packet::Protocol::Arp,
            self.index,
            &probe(mac, address),
        )
    }

    /// The next sign that `address` is somebody else's. Loses nothing when it is dropped before it
    /// is ready.
    pub async fn claimant(&self, ours: Mac, address: Ipv4Addr) -> io::Result<Mac> {
        let mut buffer = [0; 64];
        loop {
            let mut ready = self.socket.readable().await?;
            let Ok(received) =
                ready.try_io(|socket| packet::receive(socket.get_ref(), &mut buffer))
            else {
                continue;
            };
            let packet = buffer.get(..received?.length).unwrap_or_default();
            if let Some(mac) = claimant(packet, ours, address) {
                return Ok(mac);
            }
        }
    }
}

/// Who else has `address`, which is ours: asked three times, and listened for until two seconds after
/// the last (RFC 5227 section 2.1.1). To be called on the runtime.
///
/// `own`: of all links of this machine. The kernel answers for any of its addresses on any of them, so
/// a second card on the same switch says that it has the address (`arp_ignore` 0, as usual).
/// `nobody`: an address that nobody can have. Who says that it is his answers for every address (a
/// router with proxy ARP), and is not believed.
pub async fn rival(
    index: u32,
    ours: Mac,
    own: &[Mac],
    address: Ipv4Addr,
    nobody: Option<Ipv4Addr>,
) -> Result<Option<Mac>> {
    let Some(by) = stranger(index, ours, own, address).await? else { return Ok(None) };
    let Some(nobody) = nobody else { return Ok(Some(by)) };
    let is_liar = stranger(index, ours, own, nobody).await? == Some(by);
    if is_liar {
        log::debug!(target: "network", "{by} says that it has {address}, and {nobody} as well");
    }
    Ok((!is_liar).then_some(by))
}

/// The first who says that the address is his, and is not of this machine.
async fn stranger(index: u32, ours: Mac, own: &[Mac], address: Ipv4Addr) -> Result<Option<Mac>> {
    let ear = Ear::open(index)?;
    let doing = || format!("asking who has {address}");
    let theirs = async {
        loop {
            match ear.claimant(ours, address).await {
                Ok(mac) if own.contains(&mac) => {}
                other => return other,
            }
        }
    };
    let mut theirs = pin!(theirs);
    for pause in [BETWEEN_PROBES, BETWEEN_PROBES, AFTER_PROBES] {
        ear.ask(ours, address).while_doing(doing)?;
        if let Ok(by) = timeout(pause, theirs.as_mut()).await {
            return by.map(Some).while_doing(doing);
        }
    }
    Ok(None)
}

/// Tells the link `index` that `address` is at `mac`, twice, two seconds apart: for who keeps a
/// cache, and for switches that have never heard from this port. To be called when the kernel has
/// the address, and not to be waited for.
pub async fn announce(index: u32, mac: Mac, address: Ipv4Addr) {
    let packet = announcement(mac, address);
    for pause in [BETWEEN_ANNOUNCEMENTS, Duration::ZERO] {
        let sent = Ear::open(index).and_then(|ear| {
            packet::send_to_all(&ear.socket.get_ref(), packet::Protocol::Arp, index, &packet)
                .while_doing(|| format!("announcing {address}"))
        });
        if let Err(error) = sent {
            log::debug!(target: "network", "{error}");
        }
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NODE: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);
    const OTHER: Mac = Mac([0x52, 0x54, 0, 1, 2, 3]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 57);

    #[test]
    fn a_probe_claims_nothing_and_an_announcement_does() {
        let expected =
            b"\0\x01\x08\0\x06\x04\0\x01\x52\x54\0\xaa\xbb\xcc\0\0\0\0\0\0\0\0\0\0\x0a\0\0\x39";
        assert_eq!(probe(NODE, ADDRESS), *expected);
        let mut expected = *expected;
        expected[14..18].copy_from_slice(&[10, 0, 0, 57]);
        assert_eq!(announcement(NODE, ADDRESS), expected);
    }

    #[test]
    #[rustfmt::skip]
    fn who_speaks_from_the_address_has_it() {
        let reply = |mac, sender| {
            let mut packet = packet(mac, sender, Ipv4Addr::UNSPECIFIED);
            packet[7] = 2;
            packet.to_vec()
        };
        let changed = |at: usize, byte: u8| {
            let mut packet = reply(OTHER, ADDRESS);
            packet[at] = byte;
            packet
        };
        let padded = [reply(OTHER, ADDRESS), vec![0; 18]].concat();
        let cases = [
            ("its owner answers",                        reply(OTHER, ADDRESS),                     Some(OTHER)),
            ("with the padding of Ethernet",             padded,                                    Some(OTHER)),
            ("its owner asks for somebody",              packet(OTHER, ADDRESS, [10, 0, 0, 1].into()).to_vec(), Some(OTHER)),
            ("its owner announces it",                   announcement(OTHER, ADDRESS).to_vec(),     Some(OTHER)),
            ("another address",                          reply(OTHER, [10, 0, 0, 58].into()),       None),
            ("ourselves, come back over a loop",         reply(NODE, ADDRESS),                      None),
            ("a switch that tracks its hosts",           probe(OTHER, ADDRESS).to_vec(),            None),
            ("another hardware",                         changed(1, 6),                             None),
            ("another protocol",                         changed(3, 6),                             None),
            ("another operation",                        changed(7, 8),                             None),
            ("cut short",                                reply(OTHER, ADDRESS)[..17].to_vec(),      None),
        ];
        for (case, packet, expected) in cases {
            assert_eq!(claimant(&packet, NODE, ADDRESS), expected, "{case}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = claimant(&bytes, NODE, ADDRESS);
        }
    }
}
