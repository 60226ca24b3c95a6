//! The block device `/dev/nbdN`, set up through generic netlink and never through ioctl.
//!
//! With ioctl a thread has to sit in the kernel for as long as the device lives, and the SIGSTOP
//! that systemd sends to every process at shutdown ends it, and the root with it. A device set up
//! through netlink needs nobody.
//!
//! How long the kernel waits:
//!
//! - `TIMEOUT` is 0. Any other value makes the kernel give up a connection whose server is merely
//!   slow; who is hung, and not slow, is found out by the keeper, which asks him anew.
//! - `DEAD_CONN_TIMEOUT`, for which requests wait once the connection is lost, is 0 below a
//!   multipath device (`root::mapping`): that keeps them, and gets them back at once. Without one it
//!   is a day, because the EIO after it is cached by the file system for good.
//! - TCP gives up below a multipath device after half a minute, since another connection is better
//!   then than this one; elsewhere after a day, so that a switch may reboot.
//! - One connection. With two, the kernel's own 30 s count as a timeout even where `TIMEOUT` is 0
//!   (`nbd_xmit_timeout`), and several were not faster when they were measured.

use std::fs::{self, File};
use std::net::TcpStream;
use std::num::NonZeroI32;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_generic::ctrl::nlas::{GenlCtrlAttrs, McastGrpAttrs};
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use rustix::fs::{Mode, OFlags};

use super::client::Connection;
use super::negotiate::Export;
use super::netlink::{Command, DeviceStatus, Message};
use super::protocol::Flags;
use crate::console;
use crate::error::{Cause, Error, Result, WhileDoing};
use crate::sys::socket;

/// What a device is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A root image, which is never written to, whatever its server would allow.
    Root,
    /// The same as a path of a multipath device.
    Path,
    /// Swap. Once its connection is lost it fails at once: servers of LTSP make a new file for each
    /// connection, so what was swapped out is gone, and a process that is told so can be killed.
    Swap,
}

/// Zero means that no request is ever too slow; see above.
const TIMEOUT: Duration = Duration::ZERO;
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);
const HALF_A_MINUTE: Duration = Duration::from_secs(30);
/// Sectors are never smaller, and partition tables count in them.
const SMALLEST_BLOCK: u32 = 512;

/// Connects `/dev/nbd{index}` to the server at the other end of `connection`.
///
/// The device's sectors are as small as the export allows. On `Err` the device is as it was.
pub fn connect(index: u32, connection: Connection, purpose: Use) -> Result<PathBuf> {
    let device = PathBuf::from(format!("/dev/nbd{index}"));
    let doing = || format!("connecting {}", device.display());
    let export = connection.export().clone();
    let (request, stream) = request(connection, purpose).while_doing(doing)?;
    let request = request.index(index).sockets(&[stream.as_fd()]);
    let mut family = Family::open().while_doing(doing)?;
    connect_when_free(&mut family, index, &request).while_doing(doing)?;
    // The kernel has the connection now; closing ours only gives up our name for it.
    drop::<TcpStream>(stream);

    tune(index, &export);
    // The partition table is read when the device is opened for the first time.
    let _waiting = console::waiting("root", format!("{} to be read", device.display()));
    File::open(&device).while_doing(|| format!("opening {}", device.display()))?;
    Ok(device)
}

/// Connects the first device from `/dev/nbd{first}` on that nobody uses, as a path of the root;
/// gives its index. Nothing of it is read here, and nothing is waited for; it wants to be
/// [tuned](tune).
pub fn connect_next(first: u32, connection: Connection) -> Result<u32> {
    /// More than anybody has; the kernel makes a device that is asked for by its index.
    const MOST: u32 = 64;
    let server = connection.peer().to_string();
    let doing = || format!("connecting another NBD device to {server}");
    let (request, stream) = request(connection, Use::Path).while_doing(doing)?;
    let mut family = Family::open().while_doing(doing)?;
    for index in first..first.saturating_add(MOST) {
        if has_server(index) {
            continue;
        }
        match family.ask(request.clone().index(index).sockets(&[stream.as_fd()])) {
            Err(error) if is_busy(&error) => {}
            Err(error) => return Err(error).while_doing(doing),
            Ok(_) => return Ok(index),
        }
    }
    Err(Error::refused(doing(), "all devices are in use"))
}

/// Everything of a CONNECT but the index and the socket, and that socket, prepared.
fn request(connection: Connection, purpose: Use) -> Result<(Message, TcpStream)> {
    let doing = || "preparing the connection";
    let export = connection.export().clone();
    let block_size = kernel_block_size(&export).map_err(|why| Error::refused(doing(), why))?;
    let (dead_conn_timeout, patience) = match purpose {
        Use::Root => (A_DAY, A_DAY),
        Use::Path => (Duration::ZERO, HALF_A_MINUTE),
        Use::Swap => (Duration::ZERO, A_DAY),
    };
    let stream = connection.into_stream();
    socket::make_patient(&stream, patience).while_doing(doing)?;
    let message = Message::new(Command::Connect)
        .size_bytes(export.size_bytes)
        .block_size_bytes(u64::from(block_size))
        .timeout_seconds(TIMEOUT.as_secs())
        .dead_conn_timeout_seconds(dead_conn_timeout.as_secs())
        .server_flags(u64::from(kernel_flags(export.flags, purpose).0))
        .client_flags(0)
        .backend_identifier(&backend_identifier(&export.name));
    Ok((message, stream))
}

/// Tells the server goodbye and fails all requests. What is not connected may be disconnected.
pub fn disconnect(index: u32) -> Result<()> {
    let doing = || format!("disconnecting /dev/nbd{index}");
    let request = Message::new(Command::Disconnect).index(index);
    Family::open().and_then(|mut family| family.ask(request)).while_doing(doing).map(|_| ())
}

/// Whether `/dev/nbd{index}` has been given a connection, be it alive or dead by now.
pub fn is_connected(index: u32) -> Result<bool> {
    let doing = || format!("asking for the state of /dev/nbd{index}");
    Family::open().and_then(|mut family| family.is_connected(index)).while_doing(doing)
}

/// Who the kernel lets reconfigure the device.
pub fn backend_identifier(export: &str) -> String {
    format!("{OURS}{export}")
}

/// What begins the identifier of every device of ours.
const OURS: &str = "landfall:";

pub fn is_our_identifier(identifier: &str) -> bool {
    identifier.starts_with(OURS)
}

/// Whether the device is mounted, in whichever namespace: who mounts it claims it for himself.
pub fn is_mounted(index: u32) -> bool {
    let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC;
    let opened = rustix::fs::open(format!("/dev/nbd{index}"), flags, Mode::empty());
    opened.is_err_and(|errno| errno == rustix::io::Errno::BUSY)
}

/// Whether a device of this export can take the place of one with blocks of `block_bytes`, below a
/// file system that is mounted.
///
/// Of what servers announce besides the size, only this makes a difference: all others of their
/// flags are about writing, which nobody does.
pub fn suits(export: &Export, block_bytes: u32) -> Result<(), String> {
    match kernel_block_size(export)? {
        size if size > block_bytes => Err(format!(
            "it reads in blocks of {size} bytes or more, and the root was mounted from {block_bytes}"
        )),
        _ => Ok(()),
    }
}

/// The smallest sectors that both sides can do, in bytes.
pub fn kernel_block_size(export: &Export) -> Result<u32, String> {
    let size = export.blocks.minimum.max(SMALLEST_BLOCK);
    let page = rustix::param::page_size();
    if size as usize > page {
        return Err(format!(
            "the server reads in blocks of {size} bytes or more, the kernel of {page} at most"
        ));
    }
    Ok(size)
}

fn kernel_flags(offered: Flags, purpose: Use) -> Flags {
    let always = Flags::HAS_FLAGS.with(Flags::ROTATIONAL);
    match purpose {
        Use::Root | Use::Path => offered.only(always).with(Flags::READ_ONLY),
        Use::Swap => offered.only(always.with(Flags::SEND_FLUSH).with(Flags::SEND_FUA)),
    }
}

/// Anybody who merely looks at the device (udev, a probe) makes it busy for a moment.
fn connect_when_free(family: &mut Family, index: u32, request: &Message) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(10);
    const PAUSE: Duration = Duration::from_millis(50);
    let started = Instant::now();
    let waiting = console::waiting("root", format!("/dev/nbd{index} to be free"));
    loop {
        match family.ask(request.clone()) {
            Err(error) if is_busy(&error) && has_server(index) => {
                return Err(error.with_hint(format!("/dev/nbd{index} has a server already")));
            }
            Err(error) if is_busy(&error) && started.elapsed() < PATIENCE => {
                waiting.still(format!("/dev/nbd{index} to be free"));
                // The kernel announces no such event.
                thread::sleep(PAUSE);
            }
            answer => return answer.map(|_| ()),
        }
    }
}

/// The driver's status has "connected" for a device, too, that somebody merely has open: it counts
/// both in one place. This file is there from the connection to its end.
fn has_server(index: u32) -> bool {
    Path::new(&format!("/sys/block/nbd{index}/pid")).exists()
}

fn is_busy(error: &Error) -> bool {
    matches!(error.cause(), Cause::Os(error) if error.raw_os_error() == Some(libc::EBUSY))
}

/// Requests of a size that is worth a round trip. A failure costs speed only.
pub fn tune(index: u32, export: &Export) {
    /// The driver's own limit of 128 KiB splits a block of a squashfs made with `-b 1M` in eight.
    const REQUEST_KIB: u32 = 1024;
    /// Also what one page fault reads around itself, so not more than two blocks of a squashfs.
    const READ_AHEAD_KIB: u32 = 256;
    let queue = PathBuf::from(format!("/sys/block/nbd{index}/queue"));
    let hardware = fs::read_to_string(queue.join("max_hw_sectors_kb"))
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok())
        .unwrap_or(u32::MAX);
    let request = REQUEST_KIB.min(hardware).min(export.blocks.longest() / 1024);
    set(&queue.join("max_sectors_kb"), request);
    set(&queue.join("read_ahead_kb"), READ_AHEAD_KIB);
}

fn set(attribute: &Path, value: u32) {
    if let Err(error) = fs::write(attribute, value.to_string()) {
        log::debug!(target: "root", "setting {} to {value}: {error}", attribute.display());
    }
}

/// Hears from the kernel which devices have lost their connection.
pub struct LostLinks(Socket);

impl LostLinks {
    pub fn listen() -> Result<Self> {
        let doing = || "listening to the kernel's NBD driver";
        let family = Family::open().while_doing(doing)?;
        let group = family.group.ok_or_else(|| Error::refused(doing(), "it tells nothing"))?;
        family.socket.add_membership(group).while_doing(doing)?;
        family.socket.set_non_blocking(true).while_doing(doing)?;
        Ok(Self(family.socket))
    }

    /// The indices of devices that have lost theirs since the last call; does not wait.
    pub fn read(&mut self) -> Vec<u32> {
        let mut lost = Vec::new();
        loop {
            let mut received = Vec::with_capacity(4096);
            match self.0.recv(&mut received, 0) {
                Ok(_) => {}
                // Messages were lost: whoever asks looks at the devices themselves as well.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => continue,
                Err(_) => return lost,
            }
            let message = NetlinkMessage::<GenlMessage<Message>>::deserialize(&received);
            if let Ok(NetlinkPayload::InnerMessage(news)) = message.map(|message| message.payload) {
                let (header, news) = news.into_parts();
                if header.cmd == Command::LinkDead as u8 {
                    lost.extend(news.about);
                }
            }
        }
    }
}

impl AsFd for LostLinks {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A socket to the kernel's `nbd` family.
struct Family {
    socket: Socket,
    id: u16,
    /// The one multicast group that it has.
    group: Option<u32>,
    sequence: u32,
}

impl Family {
    fn open() -> Result<Self> {
        let doing = || "talking to the kernel's NBD driver";
        let mut socket = Socket::new(NETLINK_GENERIC).while_doing(doing)?;
        socket.bind_auto().while_doing(doing)?;
        socket.connect(&SocketAddr::new(0, 0)).while_doing(doing)?;
        let mut family = Self { socket, id: 0, group: None, sequence: 0 };
        family.id = family.look_up()?;
        Ok(family)
    }

    fn look_up(&mut self) -> Result<u16> {
        let doing = || "looking for the kernel's NBD driver";
        let name = GenlCtrlAttrs::FamilyName(Message::family_name().to_owned());
        let question = GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: vec![name] };
        let (mut id, mut group) = (None, None);
        let answer = self.transact(GenlMessage::from_payload(question), |answer: GenlCtrl| {
            for nla in answer.nlas {
                match nla {
                    GenlCtrlAttrs::FamilyId(number) => id = Some(number),
                    GenlCtrlAttrs::McastGroups(groups) => {
                        group = groups.into_iter().flatten().find_map(|nla| match nla {
                            McastGrpAttrs::Id(number) => Some(number),
                            McastGrpAttrs::Name(_) => None,
                        });
                    }
                    _ => {}
                }
            }
        });
        self.group = group;
        let absent =
            || Error::refused(doing(), "the kernel has none").with_hint("module nbd is not loaded");
        match answer {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Err(absent()),
            answer => {
                answer.while_doing(doing)?;
                id.ok_or_else(absent)
            }
        }
    }

    /// Sends a request and waits until the kernel has carried it out.
    fn ask(&mut self, request: Message) -> Result<Vec<DeviceStatus>> {
        let mut message = GenlMessage::from_payload(request);
        message.set_resolved_family_id(self.id);
        let mut devices = Vec::new();
        self.transact(message, |answer: Message| devices.extend(answer.devices))
            .while_doing(|| "asking the kernel's NBD driver")?;
        Ok(devices)
    }

    fn is_connected(&mut self, index: u32) -> Result<bool> {
        let devices = self.ask(Message::new(Command::Status).index(index))?;
        Ok(devices.iter().any(|device| device.index == index && device.connected))
    }

    /// One request, and its answers up to the acknowledgement.
    fn transact<F>(
        &mut self,
        request: GenlMessage<F>,
        mut use_answer: impl FnMut(F),
    ) -> std::io::Result<()>
    where
        F: std::fmt::Debug,
        GenlMessage<F>: NetlinkSerializable + NetlinkDeserializable,
    {
        use std::io::Error as Io;
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        loop {
            let mut received = Vec::with_capacity(64 << 10);
            self.socket.recv(&mut received, 0)?;
            let mut rest = received.as_slice();
            while !rest.is_empty() {
                let length = NetlinkBuffer::new_checked(rest).map_err(Io::other)?.length() as usize;
                let message =
                    NetlinkMessage::<GenlMessage<F>>::deserialize(rest).map_err(Io::other)?;
                // Netlink pads each message to four bytes.
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => use_answer(answer.into_parts().1),
                    NetlinkPayload::Error(error) => {
                        return match error.code.map(NonZeroI32::get) {
                            None => Ok(()),
                            Some(code) => Err(Io::from_raw_os_error(code.saturating_neg())),
                        };
                    }
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::nbd::negotiate::Blocks;

    #[test]
    #[rustfmt::skip]
    fn sectors_are_as_small_as_both_sides_can() {
        let page = rustix::param::page_size() as u32;
        let cases = [
            (1,        Ok(512)),
            (512,      Ok(512)),
            (page,     Ok(page)),
            (page * 2, Err(())),
        ];
        for (minimum, expected) in cases {
            let export = Export {
                name: "img".into(), description: None, size_bytes: 1 << 20, flags: Flags(3),
                blocks: Blocks { minimum, preferred: minimum, maximum: 32 << 20 },
            };
            assert_eq!(kernel_block_size(&export).map_err(drop), expected, "minimum {minimum}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_server_with_larger_blocks_is_no_mirror() {
        let cases = [
            (1,    512,  Ok(())),
            (512,  512,  Ok(())),
            (512,  4096, Ok(())), // what is asked for is aligned to more than it needs
            (4096, 4096, Ok(())),
            (4096, 512,  Err(())),
        ];
        for (minimum, mounted, expected) in cases {
            let export = Export {
                name: "img".into(), description: None, size_bytes: 1 << 20, flags: Flags(3),
                blocks: Blocks { minimum, preferred: minimum, maximum: 32 << 20 },
            };
            assert_eq!(suits(&export, mounted).map_err(drop), expected, "{minimum} for {mounted}");
        }
    }

    #[test]
    fn the_device_is_read_only_even_where_the_export_is_not() {
        let offered = Flags(0b1_0111_1101); // everything but read-only
        assert_eq!(kernel_flags(offered, Use::Root), Flags(0b1_0011));
        assert_eq!(kernel_flags(offered, Use::Swap), Flags(0b1_1101));
    }
}
