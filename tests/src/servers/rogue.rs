//! A DHCP server that says what a test tells it to, byte by byte: no server of the field would.
//!
//! It is a host of its own on the wire, as an access point is that somebody has brought along.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fd::OwnedFd;
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, socket_with, sockopt,
};

use crate::lab::Lab;

/// Numbers of options that tests speak about (RFC 2132, 3397).
pub mod code {
    pub const MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const HOST_NAME: u8 = 12;
    pub const REQUESTED: u8 = 50;
    pub const LEASE_SECONDS: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const KIND: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const MESSAGE: u8 = 56;
    pub const TFTP_SERVER: u8 = 66;
    pub const SEARCH: u8 = 119;

    /// Values of [`KIND`].
    pub const DISCOVER: u8 = 1;
    pub const OFFER: u8 = 2;
    pub const REQUEST: u8 = 3;
    pub const ACK: u8 = 5;
    pub const NAK: u8 = 6;
}

const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Of BOOTP's fixed part, before the cookie.
const FIXED: usize = 236;

/// Silent when dropped.
pub struct Rogue {
    stop: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<Asked>>>,
    thread: Option<JoinHandle<()>>,
}

impl Rogue {
    /// On `br0`, with this address. For each message of a client `script` says what goes onto the
    /// wire, to everybody.
    pub fn start(
        lab: &Lab,
        address: Ipv4Addr,
        mut script: impl FnMut(&Asked) -> Vec<Packet> + Send + 'static,
    ) -> Result<Self> {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, heard) = (Arc::clone(&stop), Arc::clone(&asked));
        let thread = lab.on_another_host(address, || {
            let ear = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 67)).context("binding port 67")?;
            // How long dropping it takes.
            ear.set_read_timeout(Some(Duration::from_millis(100)))?;
            let mouth = mouth(address)?;
            Ok(thread::spawn(move || {
                let mut buffer = [0; 2048];
                while !stopped.load(Ordering::Relaxed) {
                    let Ok(length) = ear.recv(&mut buffer) else { continue };
                    let Some(asked) = buffer.get(..length).and_then(Asked::parse) else { continue };
                    for packet in script(&asked) {
                        // What does not fit into any packet is not said.
                        let _ = packet.send(&mouth);
                    }
                    lock(&heard).push(asked);
                }
            }))
        })?;
        Ok(Self { stop, asked, thread: Some(thread) })
    }

    /// Everything that it has been asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.asked).clone()
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A script that panicked has been heard of.
            let _ = thread.join();
        }
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A raw socket, for datagrams that contradict themselves.
fn mouth(address: Ipv4Addr) -> Result<OwnedFd> {
    let raw = socket_with(
        AddressFamily::INET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(ipproto::UDP),
    )?;
    sockopt::set_socket_broadcast(&raw, true)?;
    // The sender's address also says through which card "everybody" is reached.
    rustix::net::bind(&raw, &SocketAddrV4::new(address, 0))?;
    Ok(raw)
}

/// What a client has sent.
#[derive(Clone, Debug)]
pub struct Asked {
    fixed: Vec<u8>,
    options: Vec<(u8, Vec<u8>)>,
}

impl Asked {
    fn parse(message: &[u8]) -> Option<Self> {
        let (fixed, rest) = message.split_at_checked(FIXED)?;
        let mut rest = rest.strip_prefix(&COOKIE)?;
        let mut options = Vec::new();
        while let [code, after @ ..] = rest {
            match (code, after) {
                (0, _) => rest = after,
                (255, _) => break,
                (_, [length, after @ ..]) => {
                    let (value, after) = after.split_at_checked((*length).into())?;
                    options.push((*code, value.to_vec()));
                    rest = after;
                }
                _ => return None,
            }
        }
        let asked = Self { fixed: fixed.to_vec(), options };
        asked.option(code::KIND).is_some().then_some(asked)
    }

    /// [`code::DISCOVER`], [`code::REQUEST`] …
    pub fn kind(&self) -> u8 {
        self.option(code::KIND).and_then(|value| value.first()).copied().unwrap_or(0)
    }

    pub fn option(&self, code: u8) -> Option<&[u8]> {
        let (_, value) = self.options.iter().find(|(other, _)| *other == code)?;
        Some(value)
    }

    /// An option that is an address.
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        let octets: [u8; 4] = self.option(code)?.try_into().ok()?;
        Some(octets.into())
    }
}

/// An answer in the making: the fixed part as it should be, the rest as it is told.
#[derive(Clone, Debug)]
pub struct Reply {
    fixed: Vec<u8>,
    options: Vec<u8>,
}

impl Reply {
    /// From a server, about an address, with a lease of an hour in a /24.
    pub fn to(asked: &Asked, kind: u8, server: Ipv4Addr, yours: Ipv4Addr) -> Self {
        let reply = Self::bare(asked, yours).option(code::KIND, &[kind]);
        let reply = reply.option(code::SERVER, &server.octets());
        if kind == code::NAK {
            return reply;
        }
        reply
            .option(code::LEASE_SECONDS, &3600_u32.to_be_bytes())
            .option(code::MASK, &[255, 255, 255, 0])
    }

    /// Without any option.
    pub fn bare(asked: &Asked, yours: Ipv4Addr) -> Self {
        let mut fixed = asked.fixed.clone();
        fixed[0] = 2;
        // Nobody relays, and the client is not told anything but its address.
        fixed[12..28].fill(0);
        fixed[16..20].copy_from_slice(&yours.octets());
        fixed[44..].fill(0);
        Self { fixed, options: Vec::new() }
    }

    pub fn option(mut self, code: u8, value: &[u8]) -> Self {
        self.options.extend(option(code, value));
        self
    }

    /// Bytes that need not be an option.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.options.extend(bytes);
        self
    }

    /// `siaddr`
    pub fn next_server(mut self, address: Ipv4Addr) -> Self {
        self.fixed[20..24].copy_from_slice(&address.octets());
        self
    }

    /// At most 64 bytes: a name, or options if it is overloaded.
    pub fn sname(mut self, bytes: &[u8]) -> Self {
        self.fixed[44..44 + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// At most 128 bytes.
    pub fn file(mut self, bytes: &[u8]) -> Self {
        self.fixed[108..108 + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// The whole message, ended as it should be.
    pub fn message(&self) -> Vec<u8> {
        [&self.fixed[..], &COOKIE, &self.options, &[255]].concat()
    }

    pub fn packet(&self) -> Packet {
        Packet::of(self.message())
    }
}

/// An option as it is on the wire; what is too long for one goes into several (RFC 3396).
pub fn option(code: u8, value: &[u8]) -> Vec<u8> {
    let pieces = value.chunks(255).map(|piece| {
        let length = u8::try_from(piece.len()).unwrap_or(u8::MAX);
        [&[code, length], piece].concat()
    });
    let bytes: Vec<_> = pieces.flatten().collect();
    if value.is_empty() { vec![code, 0] } else { bytes }
}

/// A datagram from port 67 to port 68.
#[derive(Clone, Debug)]
pub struct Packet {
    payload: Vec<u8>,
    /// What its header says that it and the payload have together; `None`: the truth.
    claimed: Option<u16>,
}

impl Packet {
    pub fn of(payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: payload.into(), claimed: None }
    }

    /// With a lie about its length.
    pub fn claiming(mut self, bytes: u16) -> Self {
        self.claimed = Some(bytes);
        self
    }

    fn send(&self, mouth: &OwnedFd) -> rustix::io::Result<usize> {
        let length = u16::try_from(self.payload.len() + 8).unwrap_or(u16::MAX);
        let header = [67, 68, self.claimed.unwrap_or(length), 0].map(u16::to_be_bytes).concat();
        let datagram = [&header[..], &self.payload].concat();
        let everybody = SocketAddrV4::new(Ipv4Addr::BROADCAST, 0);
        rustix::net::sendto(mouth, &datagram, SendFlags::empty(), &everybody)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_what_a_client_with_the_same_rules_would_read() {
        let mut message = vec![0; FIXED];
        message[4..8].copy_from_slice(&[1, 2, 3, 4]);
        message.extend(COOKIE);
        message.extend([0, 53, 1, 1, 50, 4, 10, 77, 0, 9, 255, 0]);
        let asked = Asked::parse(&message).unwrap();
        assert_eq!(asked.kind(), code::DISCOVER);
        assert_eq!(asked.address(code::REQUESTED), Some(Ipv4Addr::new(10, 77, 0, 9)));

        let (server, yours) = (Ipv4Addr::new(10, 77, 0, 66), Ipv4Addr::new(10, 77, 0, 200));
        let reply = Reply::to(&asked, code::OFFER, server, yours).option(code::SEARCH, &[7; 300]);
        let message = reply.next_server(server).message();
        assert_eq!(message[4..8], [1, 2, 3, 4]);
        assert_eq!(message[16..20], yours.octets());
        assert_eq!(message[20..24], server.octets());
        let read = Asked::parse(&message).unwrap();
        let lengths: Vec<_> =
            read.options.iter().map(|(code, value)| (*code, value.len())).collect();
        assert_eq!(lengths, [(53, 1), (54, 4), (51, 4), (1, 4), (119, 255), (119, 45)]);
    }

    #[test]
    #[rustfmt::skip]
    fn what_is_no_question_is_not_answered() {
        let with = |rest: &[u8]| [&[0; FIXED][..], &COOKIE, rest].concat();
        let cases = [
            ("too short",             vec![0; 100]),
            ("no cookie",             vec![0; 300]),
            ("BOOTP without a kind",  with(&[255])),
            ("an option cut short",   with(&[53, 1, 1, 50, 4, 10])),
            ("no length",             with(&[53, 1, 1, 50])),
        ];
        for (case, message) in cases {
            assert!(Asked::parse(&message).is_none(), "{case}");
        }
    }
}
