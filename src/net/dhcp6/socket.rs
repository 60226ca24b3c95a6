//! How DHCPv6 messages travel: from the link's own address (`fe80::…`) to everybody who serves, so
//! unlike DHCPv4 an ordinary socket will do from the beginning.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::error::{Result, WhileDoing};

const CLIENT_PORT: u16 = 546;
const SERVER_PORT: u16 = 547;
/// All_DHCP_Relay_Agents_and_Servers.
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// More than a server may send without fragments on any Ethernet without jumbo frames; the rest is
/// cut and then not parsed.
const LARGEST_MESSAGE: usize = 4096;

/// The ear and mouth of one link's client.
#[derive(Debug)]
pub struct Wire {
    socket: UdpSocket,
    index: u32,
}

impl Wire {
    /// Must be called on the runtime.
    pub fn open(link: &str, index: u32) -> Result<Self> {
        let open = || {
            let kind = Type::DGRAM.nonblocking().cloexec();
            let socket = Socket::new(Domain::IPV6, kind, Some(Protocol::UDP))?;
            socket.set_only_v6(true)?;
            socket.set_reuse_address(true)?;
            socket.bind_device(Some(link.as_bytes()))?;
            let own = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, CLIENT_PORT, 0, index);
            socket.bind(&own.into())?;
            UdpSocket::from_std(socket.into())
        };
        let socket = open().while_doing(|| format!("opening the DHCPv6 port on {link}"))?;
        Ok(Self { socket, index })
    }

    /// Fails while the link has no address that is known to be its own alone.
    pub async fn send(&self, message: &[u8]) -> io::Result<()> {
        let to = SocketAddrV6::new(SERVERS, SERVER_PORT, 0, self.index);
        self.socket.send_to(message, to).await.map(drop)
    }

    /// The next message to a DHCPv6 client on this link, and whom it came from. Loses nothing when
    /// it is dropped before it is ready.
    pub async fn receive(&self) -> io::Result<(Vec<u8>, Ipv6Addr)> {
        let mut buffer = [0; LARGEST_MESSAGE];
        let (length, from) = self.socket.recv_from(&mut buffer).await?;
        let from = match from {
            SocketAddr::V6(from) => *from.ip(),
            // Not of such a socket.
            SocketAddr::V4(from) => from.ip().to_ipv6_mapped(),
        };
        Ok((buffer.get(..length).unwrap_or_default().to_vec(), from))
    }
}
