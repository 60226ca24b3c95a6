//! Packets of one link without an address of our own: `AF_PACKET`, see packet(7).

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use socket2::{Domain, SockAddr, SockAddrStorage, SockFilter, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Result, WhileDoing};

pub const ETHERNET_BROADCAST: [u8; 6] = [0xff; 6];

/// What a socket hears and says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Ipv4,
    Arp,
}

/// The length and state of a packet that [`receive`] put into its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    pub length: usize,
    /// The sender left the transport checksum to hardware that this packet never met: it came
    /// from the same host (a virtual machine's bridge, a veth).
    pub checksum_is_pending: bool,
}

/// Opens a non-blocking socket for the packets of the link `index` that pass `filter`.
///
/// Packets begin with the IP or ARP header, for the filter too; the kernel adds and removes that of the
/// link. Must be called on a tokio runtime.
pub fn open(index: u32, protocol: Protocol, filter: &[SockFilter]) -> Result<AsyncFd<OwnedFd>> {
    let doing = || format!("opening a packet socket on link {index}");
    // Protocol 0 hears nothing, so no packet gets in before the filter is there.
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new_raw(Domain::PACKET, kind, None).while_doing(doing)?;
    socket.attach_filter(filter).while_doing(doing)?;
    let yes: libc::c_int = 1;
    // SAFETY: the option takes an int, and `yes` is one that outlives the call.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_AUXDATA,
            (&raw const yes).cast(),
            socklen(size_of::<libc::c_int>()),
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error()).while_doing(doing);
    }
    socket.bind(&link_address(index, protocol, &[])).while_doing(doing)?;
    // SAFETY: an OwnedFd names the same open file until it is dropped, and only the AsyncFd, which
    // owns it, can drop it.
    let watched = unsafe { AsyncFd::register_with_interest(socket.into(), Interest::READABLE) };
    watched.map_err(io::Error::from).while_doing(doing)
}

/// Sends one packet to every station on an Ethernet link.
pub fn send_to_all(
    socket: &impl AsFd,
    protocol: Protocol,
    index: u32,
    packet: &[u8],
) -> io::Result<()> {
    send(socket, protocol, index, &ETHERNET_BROADCAST, packet)
}

/// Sends one packet to the station with this hardware address, of as many bytes as the link's.
pub fn send(
    socket: &impl AsFd,
    protocol: Protocol,
    index: u32,
    station: &[u8],
    packet: &[u8],
) -> io::Result<()> {
    let to = link_address(index, protocol, station);
    SockRef::from(&socket.as_fd()).send_to(packet, &to).map(drop)
}

/// Takes the next packet, cut to the buffer; `WouldBlock` when there is none.
pub fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    // u64: control messages must be aligned.
    let mut control = [0u64; 16];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: msghdr is plain data (musl pads it), for which zero is "not given".
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    // `as _`: size_t with glibc, socklen_t with musl; 128 fits both.
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: header points to one iovec, to the buffer it describes and to the control space, all
    // of which outlive the call and are not otherwise used during it.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, 0) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    Ok(Received { length, checksum_is_pending: checksum_is_pending(&header) })
}

/// What `PACKET_AUXDATA` says about the packet; `false` when it says nothing.
fn checksum_is_pending(header: &libc::msghdr) -> bool {
    // SAFETY: the header is as the kernel filled it in, and its control space is still alive: the
    // only caller holds both. The macros stay inside msg_controllen.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: not null, so it is a whole cmsghdr inside the control space.
        let kind = unsafe { ((*message).cmsg_level, (*message).cmsg_type) };
        if kind == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
            // SAFETY: the kernel writes one tpacket_auxdata behind this header; its alignment is
            // not promised, hence unaligned.
            let data: libc::tpacket_auxdata = unsafe {
                libc::CMSG_DATA(message).cast::<libc::tpacket_auxdata>().read_unaligned()
            };
            return data.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0;
        }
        // SAFETY: as for CMSG_FIRSTHDR.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    false
}

/// The link `index`, and the station with this hardware address if there is one.
fn link_address(index: u32, protocol: Protocol, station: &[u8]) -> SockAddr {
    /// InfiniBand's have twenty bytes. The kernel takes them behind the eight that sockaddr_ll has
    /// room for, if the length of the address says so (packet_sendmsg).
    #[repr(C)]
    struct LongAddress {
        usual: libc::sockaddr_ll,
        rest: [u8; 12],
    }

    let protocol = match protocol {
        Protocol::Ipv4 => libc::ETH_P_IP,
        Protocol::Arp => libc::ETH_P_ARP,
    };
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: LongAddress is plain bytes of the C layout, fits the storage of 128 and may hold any
    // of them; zeroed is one of its values.
    let address = unsafe { storage.view_as::<LongAddress>() };
    address.usual.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.usual.sll_protocol = (protocol as u16).to_be();
    address.usual.sll_ifindex = i32::try_from(index).unwrap_or_default();
    let room = address.usual.sll_addr.iter_mut().chain(&mut address.rest);
    let mut length = 0u8;
    for (to, from) in room.zip(station) {
        *to = *from;
        length = length.saturating_add(1);
    }
    address.usual.sll_halen = length;
    let size = size_of::<libc::sockaddr_ll>() + usize::from(length.saturating_sub(8));
    // SAFETY: family and length are those of the address just written.
    unsafe { SockAddr::new(storage, socklen(size)) }
}

fn socklen(size: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(size).unwrap_or_default()
}
