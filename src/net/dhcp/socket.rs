//! How DHCP messages travel: in hand-made IP and UDP headers while the machine has no address, in
//! an ordinary UDP socket once it has one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use socket2::{Domain, SockFilter, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;

use super::Target;
use crate::error::{Result, WhileDoing};
use crate::sys::packet::{self, ETHERNET_BROADCAST, Protocol};

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
const UDP: u8 = 17;
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// More than we allow a server to send (option 57); the rest is cut and then not parsed.
pub const LARGEST_PACKET: usize = 2048;

/// The ear and mouth of one link's client.
#[derive(Debug)]
pub enum Wire {
    /// Before there is an address.
    Packets { socket: AsyncFd<OwnedFd>, index: u32, everybody: Vec<u8> },
    /// With one: the kernel answers ARP for us, so servers may be asked and may answer directly.
    Udp(UdpSocket),
}

impl Wire {
    /// Must be called on the runtime.
    pub fn packets(link: &Target) -> Result<Self> {
        Self::packets_to(link.index, everybody(&link.name))
    }

    /// Without a look at a file: `everybody` is the hardware address of all stations of the link. Must
    /// be called on the runtime.
    pub fn packets_to(index: u32, everybody: Vec<u8>) -> Result<Self> {
        let socket = packet::open(index, Protocol::Ipv4, &only_dhcp_answers())?;
        Ok(Self::Packets { socket, index, everybody })
    }

    /// Must be called on the runtime.
    pub fn udp(link: &str) -> Result<Self> {
        client_port(link).map(Self::Udp).while_doing(|| format!("opening the DHCP port on {link}"))
    }

    /// Sends to the server, or to all of them.
    pub async fn send(&self, message: &[u8], to: Option<Ipv4Addr>) -> io::Result<()> {
        match self {
            Self::Packets { socket, index, everybody } => {
                let packet = wrap(message);
                // A full queue of a link that is just coming up: the next try is near.
                packet::send(socket.get_ref(), Protocol::Ipv4, *index, everybody, &packet)
            }
            Self::Udp(socket) => {
                let to = (to.unwrap_or(Ipv4Addr::BROADCAST), SERVER_PORT);
                socket.send_to(message, to).await.map(drop)
            }
        }
    }

    /// The next message for a DHCP client on this link, whoever it is for. Loses nothing when it
    /// is dropped before it is ready.
    pub async fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = [0; LARGEST_PACKET];
        loop {
            match self {
                Self::Packets { socket, .. } => {
                    let mut ready = socket.readable().await?;
                    let Ok(received) =
                        ready.try_io(|socket| packet::receive(socket.get_ref(), &mut buffer))
                    else {
                        continue;
                    };
                    let received = received?;
                    let packet = buffer.get(..received.length).unwrap_or_default();
                    if let Some(message) = unwrap(packet, received.checksum_is_pending) {
                        return Ok(message.to_vec());
                    }
                }
                Self::Udp(socket) => {
                    let (length, _) = socket.recv_from(&mut buffer).await?;
                    return Ok(buffer.get(..length).unwrap_or_default().to_vec());
                }
            }
        }
    }
}

/// The port at which clients are answered, on one link. Must be called on the runtime.
pub fn client_port(link: &str) -> io::Result<UdpSocket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::IPV4, kind, Some(socket2::Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    socket.bind_device(Some(link.as_bytes()))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, CLIENT_PORT)).into())?;
    UdpSocket::from_std(socket.into())
}

/// The hardware address of all stations: six bytes of ones, or the twenty that InfiniBand makes
/// of its partition (RFC 4391 section 4).
fn everybody(link: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{link}/broadcast"));
    hardware_address(&text.unwrap_or_default()).unwrap_or_else(|| ETHERNET_BROADCAST.to_vec())
}

fn hardware_address(text: &str) -> Option<Vec<u8>> {
    let byte = |text: &str| u8::from_str_radix(text, 16).ok();
    let bytes: Vec<u8> = text.trim().split(':').map(byte).collect::<Option<_>>()?;
    [6, 20].contains(&bytes.len()).then_some(bytes)
}

/// Lets the kernel drop everything but unfragmented UDP to port 68, so that a busy link does not
/// wake us for each of its packets. Classic BPF; the opcodes are those of `linux/bpf_common.h`.
fn only_dhcp_answers() -> [SockFilter; 9] {
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_HALF_INDEXED: u16 = 0x48;
    const LOAD_IP_HEADER_LENGTH: u16 = 0xb1;
    const IF_EQUAL: u16 = 0x15;
    const IF_BITS: u16 = 0x45;
    const RETURN: u16 = 0x06;
    let op = SockFilter::new;
    [
        op(LOAD_BYTE, 0, 0, 9), // protocol
        op(IF_EQUAL, 0, 6, UDP.into()),
        op(LOAD_HALF, 0, 0, 6), // flags and fragment offset
        op(IF_BITS, 4, 0, 0x3fff),
        op(LOAD_IP_HEADER_LENGTH, 0, 0, 0),
        op(LOAD_HALF_INDEXED, 0, 0, 2), // destination port
        op(IF_EQUAL, 0, 1, CLIENT_PORT.into()),
        op(RETURN, 0, 0, u32::MAX),
        op(RETURN, 0, 0, 0),
    ]
}

/// Puts IP and UDP headers before a message from nobody to everybody.
fn wrap(message: &[u8]) -> Vec<u8> {
    let udp_length = u16::try_from(message.len().saturating_add(UDP_HEADER)).unwrap_or(u16::MAX);
    let total = udp_length.saturating_add(20);
    let [source, destination] = [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST];

    let mut ip = Vec::with_capacity(message.len().saturating_add(IP_HEADER + UDP_HEADER));
    ip.extend([0x45, 0x10]); // version 4, five words; low delay, as other clients ask for
    ip.extend(total.to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, UDP, 0, 0]); // not a fragment; 64 hops; checksum to come
    ip.extend(source.octets());
    ip.extend(destination.octets());
    let checksum = !sum(0, &ip);
    ip.splice(10..12, checksum.to_be_bytes());

    let mut udp = Vec::with_capacity(message.len().saturating_add(UDP_HEADER));
    udp.extend(CLIENT_PORT.to_be_bytes());
    udp.extend(SERVER_PORT.to_be_bytes());
    udp.extend(udp_length.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(message);
    let checksum = match !sum(pseudo_header(source, destination, udp_length), &udp) {
        0 => u16::MAX, // 0 means "none" (RFC 768)
        checksum => checksum,
    };
    udp.splice(6..8, checksum.to_be_bytes());
    ip.extend(udp);
    ip
}

/// The UDP payload of a packet that is whole and undamaged, as far as its checksums can tell.
fn unwrap(packet: &[u8], checksum_is_pending: bool) -> Option<&[u8]> {
    let (&[version_and_words, _, length_high, length_low, _, _, _, _, _, protocol, ..], _) =
        packet.split_first_chunk::<IP_HEADER>()?;
    let header_length = usize::from(version_and_words & 0x0f).checked_mul(4)?;
    let total = usize::from(u16::from_be_bytes([length_high, length_low]));
    if version_and_words >> 4 != 4 || header_length < IP_HEADER || protocol != UDP {
        return None;
    }
    // Short frames are padded by Ethernet: what is behind `total` is not ours.
    let (header, udp) = packet.get(..total)?.split_at_checked(header_length)?;
    if sum(0, header) != u16::MAX {
        return None;
    }
    let source = Ipv4Addr::from(*header.get(12..16)?.first_chunk::<4>()?);
    let destination = Ipv4Addr::from(*header.get(16..20)?.first_chunk::<4>()?);
    let (&[_, _, to_high, to_low, length_high, length_low, sum_high, sum_low], _) =
        udp.split_first_chunk::<UDP_HEADER>()?;
    let length = u16::from_be_bytes([length_high, length_low]);
    let udp = udp.get(..usize::from(length))?;
    let none = [sum_high, sum_low] == [0, 0];
    let whole = none
        || checksum_is_pending
        || sum(pseudo_header(source, destination, length), udp) == u16::MAX;
    (u16::from_be_bytes([to_high, to_low]) == CLIENT_PORT && whole).then_some(())?;
    udp.get(UDP_HEADER..)
}

/// What a UDP checksum covers beside the datagram.
fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, length: u16) -> u16 {
    let mut bytes = [source.octets(), destination.octets()].concat();
    bytes.extend([0, UDP]);
    bytes.extend(length.to_be_bytes());
    sum(0, &bytes)
}

/// One's complement sum of big-endian words (RFC 1071), continued from `start`.
fn sum(start: u16, bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<2>();
    let words = words.iter().map(|word| u64::from(u16::from_be_bytes(*word)));
    let rest = rest.first().map_or(0, |byte| u64::from(*byte) << 8);
    // A packet has less than 2^15 words of less than 2^16.
    let mut sum = words.fold(u64::from(start), u64::saturating_add).saturating_add(rest);
    while sum > 0xffff {
        sum = (sum & 0xffff).saturating_add(sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An answer as a server would send it: ours with the ports exchanged.
    fn answer(payload: &[u8]) -> Vec<u8> {
        let mut packet = wrap(payload);
        packet[20..24].copy_from_slice(&[0, 67, 0, 68]);
        packet
    }

    #[test]
    fn the_ip_header_is_the_one_of_rfc_1071_arithmetic() {
        let packet = wrap(b"hello");
        assert_eq!(packet.len(), 20 + 8 + 5);
        assert_eq!(sum(0, &packet[..20]), 0xffff);
        assert_eq!(packet[16..20], [255; 4]);
        assert_eq!(packet[20..26], [0, 68, 0, 67, 0, 13]);
    }

    #[test]
    #[rustfmt::skip]
    fn damage_is_noticed_and_offloading_is_not_damage() {
        fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
            let mut packet = answer(b"message");
            change(&mut packet);
            packet
        }
        let cases = [
            ("whole",                           answer(b"message"),                       false, true),
            ("odd length",                      answer(b"messages"),                      false, true),
            ("Ethernet padding behind it",      changed(|p| p.extend([0; 12])),           false, true),
            ("no UDP checksum",                 changed(|p| p[26..28].fill(0)),           false, true),
            ("checksum left to the hardware",   changed(|p| p[26] ^= 1),                  true,  true),
            ("UDP checksum wrong",              changed(|p| p[26] ^= 1),                  false, false),
            ("payload damaged",                 changed(|p| p[30] ^= 1),                  false, false),
            ("IP header damaged",               changed(|p| p[8] ^= 1),                   true,  false),
            ("cut short",                       changed(|p| p.truncate(30)),              true,  false),
            ("to the server, not to us",        wrap(b"message"),                         false, false),
            ("nothing",                         Vec::new(),                               true,  false),
        ];
        for (case, packet, pending, expected) in cases {
            assert_eq!(unwrap(&packet, pending).is_some(), expected, "{case}");
        }
        assert_eq!(unwrap(&answer(b"message"), false), Some(b"message".as_slice()));
    }

    #[test]
    #[rustfmt::skip]
    fn the_address_of_all_stations_comes_from_the_link() {
        let infiniband = "00:ff:ff:ff:ff:12:40:1b:80:01:00:00:00:00:00:00:ff:ff:ff:ff\n";
        let cases = [
            ("Ethernet",   "ff:ff:ff:ff:ff:ff\n", Some(6)),
            ("InfiniBand", infiniband,            Some(20)),
            ("a tunnel",   "00:00:00:00\n",       None),
            ("no file",    "",                    None),
        ];
        for (case, text, length) in cases {
            assert_eq!(hardware_address(text).map(|bytes| bytes.len()), length, "{case}");
        }
    }

    proptest! {
        #[test]
        fn no_packet_makes_it_panic(packet in proptest::collection::vec(any::<u8>(), 0..100), pending: bool) {
            let _ = unwrap(&packet, pending);
            let mut udp = answer(&packet);
            udp.truncate(udp.len() / 2);
            let _ = unwrap(&udp, pending);
        }

        #[test]
        fn what_is_wrapped_can_be_unwrapped(message in proptest::collection::vec(any::<u8>(), 0..1472)) {
            let packet = answer(&message);
            prop_assert_eq!(unwrap(&packet, false), Some(message.as_slice()));
        }
    }
}
