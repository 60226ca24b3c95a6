//! The kernel's announcements of devices that come and go.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with, sockopt,
};

use crate::error::{Result, WhileDoing};

/// The kernel's own broadcasts; group 2 carries what udev has made of them.
const KERNEL_GROUP: u32 = 1;

/// The kernel builds an event in 2 KiB (`UEVENT_BUFFER_SIZE`) and puts the device path in front.
const EVENT_BYTES: usize = 8 << 10;

/// Bytes that may queue up while a driver is being loaded; what udev asks for too.
const QUEUE_BYTES: usize = 16 << 20;

/// Hears everything from the moment it is opened.
pub struct Listener {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

pub enum Received<'a> {
    /// `ACTION@DEVPATH`, then `KEY=value` texts, each ended by a zero byte.
    Event(&'a [u8]),
    /// Events were lost; sysfs has to be looked through again.
    Overrun,
}

impl Listener {
    pub fn open() -> Result<Self> {
        let doing = || "listening for new devices";
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(KOBJECT_UEVENT),
        )
        .while_doing(doing)?;
        // A short queue only means an overrun more: not worth failing for.
        let _ = sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE_BYTES);
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP)).while_doing(doing)?;
        Ok(Self { socket, buffer: vec![0; EVENT_BYTES] })
    }

    /// Waits for the next event of the kernel. Any process in this network namespace may send to
    /// the socket; what is not from the kernel is not returned.
    pub fn receive(&mut self) -> Result<Received<'_>> {
        let length = loop {
            match recvfrom(&self.socket, self.buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok((length, _, Some(sender))) => {
                    if SocketAddrNetlink::try_from(sender).is_ok_and(|sender| sender.pid() == 0) {
                        break length;
                    }
                }
                Ok((_, _, None)) | Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => return Ok(Received::Overrun),
                Err(errno) => return Err(errno).while_doing(|| "listening for new devices"),
            }
        };
        Ok(Received::Event(self.buffer.get(..length).unwrap_or_default()))
    }
}
