//! Router advertisements and solicitations of one link: raw ICMPv6, see icmp6 in RFC 3542.

use std::io;
use std::mem;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Result, WhileDoing};

/// Of `linux/icmpv6.h`; the libc crate has neither.
const ICMPV6_FILTER: libc::c_int = 1;
const ROUTER_ADVERTISEMENT: u32 = 134;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A message that [`receive`] put into its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    pub length: usize,
    pub source: Ipv6Addr,
    /// 255 if it comes from this link: routers count down.
    pub hop_limit: Option<u8>,
}

/// Opens a non-blocking socket for the router advertisements of a link, whose checksums the kernel
/// has verified. Must be called on a tokio runtime.
pub fn open(link: &str, index: u32) -> Result<AsyncFd<OwnedFd>> {
    let doing = || format!("opening an ICMPv6 socket on {link}");
    let kind = Type::RAW.nonblocking().cloexec();
    let socket = Socket::new(Domain::IPV6, kind, Some(Protocol::ICMPV6)).while_doing(doing)?;
    // A bit that is set is a type that is not wanted.
    let mut unwanted = [u32::MAX; 8];
    if let Some(word) = unwanted.get_mut(ROUTER_ADVERTISEMENT as usize / 32) {
        *word = !(1 << (ROUTER_ADVERTISEMENT % 32));
    }
    // SAFETY: the option takes an icmp6_filter, which is eight u32, and `unwanted` is that and
    // outlives the call.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_ICMPV6,
            ICMPV6_FILTER,
            (&raw const unwanted).cast(),
            size_of_val(&unwanted) as libc::socklen_t,
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error()).while_doing(doing);
    }
    let prepare = || {
        socket.bind_device(Some(link.as_bytes()))?;
        socket.set_recv_hoplimit_v6(true)?;
        // Whoever gets it verifies that it comes from this link.
        socket.set_multicast_hops_v6(255)?;
        socket.set_multicast_loop_v6(false)?;
        socket.join_multicast_v6(&ALL_NODES, index)
    };
    prepare().while_doing(doing)?;
    // SAFETY: an OwnedFd names the same open file until it is dropped, and only the AsyncFd, which
    // owns it, can drop it.
    let watched = unsafe { AsyncFd::register_with_interest(socket.into(), Interest::READABLE) };
    watched.map_err(io::Error::from).while_doing(doing)
}

/// Sends one message, to which the kernel adds the checksum.
pub fn send(socket: &impl AsFd, message: &[u8], to: Ipv6Addr, index: u32) -> io::Result<()> {
    let to = SocketAddrV6::new(to, 0, 0, index);
    SockRef::from(&socket.as_fd()).send_to(message, &to.into()).map(drop)
}

/// Takes the next message, cut to the buffer; `WouldBlock` when there is none.
pub fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    // u64: control messages must be aligned.
    let mut control = [0u64; 16];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: sockaddr_in6 is plain data, of which zero is a value.
    let mut source: libc::sockaddr_in6 = unsafe { mem::zeroed() };
    // SAFETY: msghdr is plain data (musl pads it), for which zero is "not given".
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = (&raw mut source).cast();
    header.msg_namelen = size_of_val(&source) as libc::socklen_t;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    // `as _`: size_t with glibc, socklen_t with musl; 128 fits both.
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: header points to one iovec, to the buffer it describes, to the address and to the
    // control space, all of which outlive the call and are not otherwise used during it.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, 0) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let source = Ipv6Addr::from(source.sin6_addr.s6_addr);
    Ok(Received { length, source, hop_limit: hop_limit(&header) })
}

/// What `IPV6_HOPLIMIT` says of the message.
fn hop_limit(header: &libc::msghdr) -> Option<u8> {
    // SAFETY: the header is as the kernel filled it in, and its control space is still alive: the
    // only caller holds both. The macros stay inside msg_controllen.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: not null, so it is a whole cmsghdr inside the control space.
        let kind = unsafe { ((*message).cmsg_level, (*message).cmsg_type) };
        if kind == (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) {
            // SAFETY: the kernel writes one int behind this header; its alignment is not promised,
            // hence unaligned.
            let limit = unsafe { libc::CMSG_DATA(message).cast::<libc::c_int>().read_unaligned() };
            return u8::try_from(limit).ok();
        }
        // SAFETY: as for CMSG_FIRSTHDR.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    None
}
