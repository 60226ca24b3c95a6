//! What std leaves out of UDP sockets.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use crate::error::{Result, WhileDoing};

/// Lets a socket that is not connected report that nobody listens at the other end
/// (`ECONNREFUSED` from the next receive) instead of staying silent: `IP_RECVERR` of ip(7).
pub fn report_unreachable(socket: &UdpSocket, v6: bool) -> Result<()> {
    let (level, option) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
    } else {
        (libc::IPPROTO_IP, libc::IP_RECVERR)
    };
    let on: libc::c_int = 1;
    // SAFETY: `on` is a live c_int for the time of the call, and its size is passed with it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
    .while_doing(|| "asking for errors of the network")
}
