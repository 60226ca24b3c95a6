//! Messages of the kernel's `nbd` family of generic netlink (`include/uapi/linux/nbd-netlink.h`).
//!
//! Only their bytes; [`super::device`] sends them. Numbers are in the machine's own byte order.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLA_F_NESTED, NlaBuffer, NlasIterator, ParseableParametrized,
};
use netlink_packet_generic::{GenlFamily, GenlHeader};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Command {
    Connect = 1,
    Disconnect = 2,
    /// From the kernel: a connection of a device is dead.
    LinkDead = 4,
    Status = 5,
}

/// One request, or one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub command: u8,
    attributes: Vec<DefaultNla>,
    /// The device that a message of the kernel is about; none in requests.
    pub about: Option<u32>,
    /// What an answer says about devices; empty in requests.
    pub devices: Vec<DeviceStatus>,
}

/// A device in the answer to [`Command::Status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceStatus {
    pub index: u32,
    pub connected: bool,
}

const INDEX: u16 = 1;
const SIZE_BYTES: u16 = 2;
const BLOCK_SIZE_BYTES: u16 = 3;
const TIMEOUT: u16 = 4;
const SERVER_FLAGS: u16 = 5;
const CLIENT_FLAGS: u16 = 6;
const SOCKETS: u16 = 7;
const DEAD_CONN_TIMEOUT: u16 = 8;
const DEVICE_LIST: u16 = 9;
const BACKEND_IDENTIFIER: u16 = 10;

const SOCK_ITEM: u16 = 1;
const SOCK_FD: u16 = 1;

const DEVICE_ITEM: u16 = 1;
const DEVICE_INDEX: u16 = 1;
const DEVICE_CONNECTED: u16 = 2;

impl Message {
    pub fn new(command: Command) -> Self {
        Self { command: command as u8, attributes: Vec::new(), about: None, devices: Vec::new() }
    }

    pub fn index(self, index: u32) -> Self {
        self.attribute(INDEX, &index.to_ne_bytes())
    }

    pub fn size_bytes(self, size: u64) -> Self {
        self.attribute(SIZE_BYTES, &size.to_ne_bytes())
    }

    pub fn block_size_bytes(self, size: u64) -> Self {
        self.attribute(BLOCK_SIZE_BYTES, &size.to_ne_bytes())
    }

    /// Seconds that one request may take before its connection counts as dead; 0 for any.
    pub fn timeout_seconds(self, seconds: u64) -> Self {
        self.attribute(TIMEOUT, &seconds.to_ne_bytes())
    }

    /// Seconds for which requests wait, without any connection, before they fail.
    pub fn dead_conn_timeout_seconds(self, seconds: u64) -> Self {
        self.attribute(DEAD_CONN_TIMEOUT, &seconds.to_ne_bytes())
    }

    /// Transmission flags of the handshake.
    pub fn server_flags(self, flags: u64) -> Self {
        self.attribute(SERVER_FLAGS, &flags.to_ne_bytes())
    }

    /// 1: destroy the device on disconnect; 2: disconnect on its last close.
    pub fn client_flags(self, flags: u64) -> Self {
        self.attribute(CLIENT_FLAGS, &flags.to_ne_bytes())
    }

    /// Who may reconfigure the device later; older kernels than 5.14 ignore it.
    pub fn backend_identifier(self, identifier: &str) -> Self {
        let mut bytes: Vec<u8> = identifier.bytes().filter(|byte| *byte != 0).collect();
        bytes.push(0);
        self.attribute(BACKEND_IDENTIFIER, &bytes)
    }

    /// The kernel takes references of its own; the descriptors need to live until it has answered.
    pub fn sockets(self, sockets: &[BorrowedFd<'_>]) -> Self {
        let items: Vec<_> = sockets
            .iter()
            .map(|socket| {
                let descriptor = socket.as_raw_fd().to_ne_bytes().to_vec();
                let fd = DefaultNla::new(SOCK_FD, descriptor);
                DefaultNla::new(SOCK_ITEM | NLA_F_NESTED, emitted(&[fd]))
            })
            .collect();
        self.attribute(SOCKETS | NLA_F_NESTED, &emitted(&items))
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.attributes.push(DefaultNla::new(kind, value.to_vec()));
        self
    }
}

fn emitted(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

impl GenlFamily for Message {
    fn family_name() -> &'static str {
        "nbd"
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Message {
    fn buffer_len(&self) -> usize {
        self.attributes.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.attributes.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Message {
    fn parse_with_param(bytes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        let (mut devices, mut about) = (Vec::new(), None);
        for attribute in NlasIterator::new(bytes) {
            let attribute = attribute?;
            if attribute.kind() == INDEX {
                about = attribute.value().first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
            }
            if attribute.kind() != DEVICE_LIST {
                continue;
            }
            for item in NlasIterator::new(attribute.value()) {
                let item = item?;
                if item.kind() == DEVICE_ITEM {
                    devices.push(parse_device(item.value())?);
                }
            }
        }
        Ok(Self { command: header.cmd, attributes: Vec::new(), about, devices })
    }
}

fn parse_device(bytes: &[u8]) -> Result<DeviceStatus, DecodeError> {
    let mut device = DeviceStatus { index: 0, connected: false };
    for attribute in NlasIterator::new(bytes) {
        let attribute: NlaBuffer<&[u8]> = attribute?;
        match (attribute.kind(), attribute.value()) {
            (DEVICE_INDEX, value) => {
                let bytes = value.first_chunk().ok_or("an index that is no number")?;
                device.index = u32::from_ne_bytes(*bytes);
            }
            (DEVICE_CONNECTED, value) => device.connected = value.first() == Some(&1),
            _ => {}
        }
    }
    Ok(device)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use proptest::prelude::*;

    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn attributes_are_nested_as_the_kernel_wants_them() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let fd = file.as_raw_fd() as u8;
        let message = Message::new(Command::Connect).index(0).sockets(&[file.as_fd()]);
        assert_eq!(
            emitted(&message.attributes),
            [
                8, 0, 1, 0, 0, 0, 0, 0, // index
                16, 0, 7, 0x80, // sockets
                12, 0, 1, 0x80, // item
                8, 0, 1, 0, fd, 0, 0, 0
            ]
        );
    }

    #[test]
    fn an_identifier_ends_with_a_zero_and_has_no_other() {
        let message = Message::new(Command::Connect).backend_identifier("a\0b");
        assert_eq!(message.attributes, [DefaultNla::new(BACKEND_IDENTIFIER, b"ab\0".to_vec())]);
    }

    #[test]
    fn a_status_lists_devices() {
        let device = |index: u32, connected| {
            let value = emitted(&[
                DefaultNla::new(DEVICE_INDEX, index.to_ne_bytes().to_vec()),
                DefaultNla::new(DEVICE_CONNECTED, vec![connected]),
            ]);
            DefaultNla::new(DEVICE_ITEM | NLA_F_NESTED, value)
        };
        let list = emitted(&[device(0, 1), device(7, 0)]);
        let bytes = emitted(&[DefaultNla::new(DEVICE_LIST | NLA_F_NESTED, list)]);
        let parsed = Message::parse_with_param(&bytes, GenlHeader { cmd: 5, version: 1 }).unwrap();
        let expected = [
            DeviceStatus { index: 0, connected: true },
            DeviceStatus { index: 7, connected: false },
        ];
        assert_eq!(parsed.devices, expected);
    }

    #[test]
    fn news_of_a_dead_link_name_the_device() {
        let bytes = emitted(&[DefaultNla::new(INDEX, 7u32.to_ne_bytes().to_vec())]);
        let news = Message::parse_with_param(&bytes, GenlHeader { cmd: 4, version: 1 }).unwrap();
        assert_eq!((news.command, news.about), (Command::LinkDead as u8, Some(7)));
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Message::parse_with_param(&bytes, GenlHeader { cmd: 5, version: 1 });
        }
    }
}
