//! Packets of one link without an address of our own: `AF_PACKET`, see packet(7).

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use socket2::{Domain, SockAddr, SockAddrStorage, SockFilter, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Result, WhileDoing};

const ETHERNET_BROADCAST: [u8; 6] = [0xff; 6];

/// The length and state of a packet that [`receive`] put into its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    pub length: usize,
    /// The sender left the transport checksum to hardware that this packet never met: it came
    /// from the same host (a virtual machine's bridge, a veth).
    pub checksum_is_pending: bool,
}

/// Opens a non-blocking socket for the IPv4 packets of the link `index` that pass `filter`.
///
/// Packets begin with the IP header, for the filter too; the kernel adds and removes that of the
/// link. Must be called on a tokio runtime.
pub fn open(index: u32, filter: &[SockFilter]) -> Result<AsyncFd<OwnedFd>> {
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
    socket.bind(&link_address(index, None)).while_doing(doing)?;
    // SAFETY: an OwnedFd names the same open file until it is dropped, and only the AsyncFd, which
    // owns it, can drop it.
    let watched = unsafe { AsyncFd::register_with_interest(socket.into(), Interest::READABLE) };
    watched.map_err(io::Error::from).while_doing(doing)
}

/// Sends one IPv4 packet to every station on the link.
pub fn send_to_all(socket: &impl AsFd, index: u32, packet: &[u8]) -> io::Result<()> {
    let to = link_address(index, Some(ETHERNET_BROADCAST));
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

/// IPv4 on the link `index`, to the station with this hardware address if there is one.
fn link_address(index: u32, station: Option<[u8; 6]>) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll fits the storage and may hold any bytes; zeroed is one of its values.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = (libc::ETH_P_IP as u16).to_be();
    address.sll_ifindex = i32::try_from(index).unwrap_or_default();
    if let Some(station) = station {
        address.sll_halen = 6;
        for (to, from) in address.sll_addr.iter_mut().zip(station) {
            *to = from;
        }
    }
    // SAFETY: family and length are those of the sockaddr_ll just written.
    unsafe { SockAddr::new(storage, socklen(size_of::<libc::sockaddr_ll>())) }
}

fn socklen(size: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(size).unwrap_or_default()
}
