//! The bytes of the NBD protocol: what is sent, and what may come back.
//!
//! Follows `doc/proto.md` of NetworkBlockDevice/nbd. Pure: builds and reads slices, owns no
//! socket. Everything is big-endian. Structured replies and `base:allocation` are for connections
//! that stay ours, because the kernel's driver speaks neither. Deliberately absent: extended headers
//! (no image of ours needs requests of more than 4 GiB), other metadata contexts, TLS, and every
//! command but reading, writing, asking for the state of blocks, and leaving.

use std::fmt;

/// First eight bytes of every server.
pub const NBD_MAGIC: [u8; 8] = *b"NBDMAGIC";
/// Second eight bytes of a newstyle server, and first of every option.
pub const OPTION_MAGIC: [u8; 8] = *b"IHAVEOPT";
/// Second eight bytes of a server from before 2011, which knows no export names.
pub const OLDSTYLE_MAGIC: [u8; 8] = 0x0000_4202_8186_1253u64.to_be_bytes();
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;

/// Handshake flags, the same bits in both directions.
pub const FIXED_NEWSTYLE: u16 = 1;
pub const NO_ZEROES: u16 = 2;

/// What follows the answer to EXPORT_NAME unless both sides agreed on [`NO_ZEROES`].
pub const ZEROES: usize = 124;

/// Longest name, description or message that the protocol allows.
pub const LONGEST_STRING: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Opt {
    ExportName = 1,
    Abort = 2,
    List = 3,
    Go = 7,
    StructuredReply = 8,
    SetMetaContext = 10,
}

/// An option with its data. `data` longer than 4 GiB cannot be built from what we send.
pub fn option(option: Opt, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + data.len());
    bytes.extend(OPTION_MAGIC);
    bytes.extend((option as u32).to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

/// Data of GO: the export's name, and a request for everything the server may tell about it.
/// Asking for block sizes is also our promise to keep to them.
pub fn go(name: &str) -> Vec<u8> {
    const ASKED: [u16; 3] = [info::NAME, info::DESCRIPTION, info::BLOCK_SIZE];
    let mut data = Vec::with_capacity(6 + name.len() + 2 * ASKED.len());
    data.extend((name.len() as u32).to_be_bytes());
    data.extend(name.as_bytes());
    data.extend((ASKED.len() as u16).to_be_bytes());
    for kind in ASKED {
        data.extend(kind.to_be_bytes());
    }
    data
}

/// The context in which blocks are allocated or not, and zeroes or not.
pub const BASE_ALLOCATION: &str = "base:allocation";

/// Data of SET_META_CONTEXT: an export's name, and the only context that we know.
pub fn set_meta_context(name: &str) -> Vec<u8> {
    const QUERIES: u32 = 1;
    let mut data = Vec::with_capacity(12 + name.len() + BASE_ALLOCATION.len());
    data.extend((name.len() as u32).to_be_bytes());
    data.extend(name.as_bytes());
    data.extend(QUERIES.to_be_bytes());
    data.extend((BASE_ALLOCATION.len() as u32).to_be_bytes());
    data.extend(BASE_ALLOCATION.as_bytes());
    data
}

/// The number that a server gives a context, and the context's name.
pub fn parse_meta_context(bytes: &[u8]) -> Option<(u32, &[u8])> {
    Some((u32_at(bytes, 0)?, bytes.get(4..)?))
}

/// Kinds of information in answers to GO.
pub mod info {
    pub const EXPORT: u16 = 0;
    pub const NAME: u16 = 1;
    pub const DESCRIPTION: u16 = 2;
    pub const BLOCK_SIZE: u16 = 3;
}

/// What kind of answer an option got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Ack,
    Server,
    Info,
    MetaContext,
    Unsupported,
    Policy,
    Invalid,
    Platform,
    TlsRequired,
    Unknown,
    Shutdown,
    BlockSizeRequired,
    TooBig,
    /// An error of a number that this version does not know.
    OtherError(u32),
    /// Neither an error nor anything that was asked for.
    Other(u32),
}

impl From<u32> for Reply {
    fn from(number: u32) -> Self {
        const ERROR: u32 = 1 << 31;
        match number {
            1 => Self::Ack,
            2 => Self::Server,
            3 => Self::Info,
            4 => Self::MetaContext,
            0x8000_0001 => Self::Unsupported,
            0x8000_0002 => Self::Policy,
            0x8000_0003 => Self::Invalid,
            0x8000_0004 => Self::Platform,
            0x8000_0005 => Self::TlsRequired,
            0x8000_0006 => Self::Unknown,
            0x8000_0007 => Self::Shutdown,
            0x8000_0008 => Self::BlockSizeRequired,
            0x8000_0009 => Self::TooBig,
            number if number & ERROR != 0 => Self::OtherError(number & !ERROR),
            number => Self::Other(number),
        }
    }
}

/// The fixed part of an answer to an option; `length` bytes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHeader {
    pub option: u32,
    pub reply: Reply,
    pub length: u32,
}

pub const REPLY_HEADER: usize = 20;

/// `None` when the bytes are no answer to an option.
pub fn parse_reply_header(bytes: &[u8; REPLY_HEADER]) -> Option<ReplyHeader> {
    (u64_at(bytes, 0)? == REPLY_MAGIC).then_some(())?;
    Some(ReplyHeader {
        option: u32_at(bytes, 8)?,
        reply: u32_at(bytes, 12)?.into(),
        length: u32_at(bytes, 16)?,
    })
}

/// One piece of information about an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Info {
    Export { size: u64, flags: Flags },
    Name(String),
    Description(String),
    BlockSize { minimum: u32, preferred: u32, maximum: u32 },
    Other(u16),
}

/// `None` when the length does not fit the kind.
pub fn parse_info(bytes: &[u8]) -> Option<Info> {
    let kind = u16_at(bytes, 0)?;
    let data = bytes.get(2..)?;
    Some(match (kind, data.len()) {
        (info::EXPORT, 10) => {
            Info::Export { size: u64_at(data, 0)?, flags: Flags(u16_at(data, 8)?) }
        }
        (info::BLOCK_SIZE, 12) => Info::BlockSize {
            minimum: u32_at(data, 0)?,
            preferred: u32_at(data, 4)?,
            maximum: u32_at(data, 8)?,
        },
        (info::EXPORT | info::BLOCK_SIZE, _) => return None,
        (info::NAME, _) => Info::Name(text(data)),
        (info::DESCRIPTION, _) => Info::Description(text(data)),
        (kind, _) => Info::Other(kind),
    })
}

/// Size and flags in the answer to EXPORT_NAME.
pub fn parse_export(bytes: &[u8; 10]) -> Option<(u64, Flags)> {
    Some((u64_at(bytes, 0)?, Flags(u16_at(bytes, 8)?)))
}

/// The name in one answer to LIST, as the server spells it.
pub fn parse_listed(bytes: &[u8]) -> Option<&[u8]> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    bytes.get(4..)?.get(..length)
}

/// Transmission flags of an export.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Flags(pub u16);

impl Flags {
    pub const HAS_FLAGS: Self = Self(1 << 0);
    pub const READ_ONLY: Self = Self(1 << 1);
    pub const SEND_FLUSH: Self = Self(1 << 2);
    pub const SEND_FUA: Self = Self(1 << 3);
    pub const ROTATIONAL: Self = Self(1 << 4);
    pub const CAN_MULTI_CONN: Self = Self(1 << 8);

    pub fn has(self, flag: Self) -> bool {
        self.0 & flag.0 == flag.0
    }

    #[must_use]
    pub fn with(self, flag: Self) -> Self {
        Self(self.0 | flag.0)
    }

    #[must_use]
    pub fn only(self, flags: Self) -> Self {
        Self(self.0 & flags.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({:#b})", self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Command {
    Read = 0,
    Write = 1,
    Disconnect = 2,
    BlockStatus = 7,
}

pub const REQUEST: usize = 28;

/// A request of the transmission phase. `cookie` comes back in its reply.
pub fn request(command: Command, cookie: u64, offset: u64, length: u32) -> [u8; REQUEST] {
    let mut bytes = [0; REQUEST];
    let fields = REQUEST_MAGIC
        .to_be_bytes()
        .into_iter()
        .chain(0u16.to_be_bytes())
        .chain((command as u16).to_be_bytes())
        .chain(cookie.to_be_bytes())
        .chain(offset.to_be_bytes())
        .chain(length.to_be_bytes());
    for (place, byte) in bytes.iter_mut().zip(fields) {
        *place = byte;
    }
    bytes
}

pub const SIMPLE_REPLY: usize = 16;

/// Answer to a request; the bytes that were read follow when `error` is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimpleReply {
    pub error: u32,
    pub cookie: u64,
}

/// `None` when the bytes are no simple reply: the two sides have lost each other.
pub fn parse_simple_reply(bytes: &[u8; SIMPLE_REPLY]) -> Option<SimpleReply> {
    (u32_at(bytes, 0)? == SIMPLE_REPLY_MAGIC).then_some(())?;
    Some(SimpleReply { error: u32_at(bytes, 4)?, cookie: u64_at(bytes, 8)? })
}

/// The fixed part of a structured reply that follows its magic number; `length` bytes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    pub kind: ChunkKind,
    /// No other chunk of the same reply follows.
    pub last: bool,
    pub cookie: u64,
    pub length: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkKind {
    None,
    OffsetData,
    OffsetHole,
    BlockStatus,
    /// Of whatever sort: all of them begin with an error number.
    Error,
    Unknown(u16),
}

/// How a reply begins, of either sort. The fields of a structured one are still to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyStart {
    Simple(SimpleReply),
    Chunk(ChunkStart),
}

/// The first 16 bytes of a [`ChunkHeader`]; its length is the next four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkStart {
    kind: ChunkKind,
    last: bool,
    cookie: u64,
}

impl ChunkStart {
    pub fn with_length(self, length: [u8; 4]) -> ChunkHeader {
        let Self { kind, last, cookie } = self;
        ChunkHeader { kind, last, cookie, length: u32::from_be_bytes(length) }
    }
}

/// A structured header is four bytes longer than a simple one, and both may come on a connection
/// that has agreed on structured replies: servers may answer all but reading simply.
pub fn parse_reply_start(bytes: &[u8; SIMPLE_REPLY]) -> Option<ReplyStart> {
    const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
    const DONE: u16 = 1;
    const ERROR: u16 = 1 << 15;
    if u32_at(bytes, 0)? != STRUCTURED_REPLY_MAGIC {
        return parse_simple_reply(bytes).map(ReplyStart::Simple);
    }
    let kind = match u16_at(bytes, 6)? {
        0 => ChunkKind::None,
        1 => ChunkKind::OffsetData,
        2 => ChunkKind::OffsetHole,
        5 => ChunkKind::BlockStatus,
        error if error & ERROR != 0 => ChunkKind::Error,
        other => ChunkKind::Unknown(other),
    };
    let last = u16_at(bytes, 4)? & DONE != 0;
    Some(ReplyStart::Chunk(ChunkStart { kind, last, cookie: u64_at(bytes, 8)? }))
}

/// What precedes the bytes of an OFFSET_DATA chunk: where in the export they lie.
pub const DATA_OFFSET: usize = 8;
/// Length of an OFFSET_HOLE chunk.
pub const HOLE: usize = 12;
/// Shortest error chunk.
pub const ERROR_START: usize = 6;

/// Offset in the export and length of a hole.
pub fn parse_hole(bytes: &[u8; HOLE]) -> Option<(u64, u32)> {
    Some((u64_at(bytes, 0)?, u32_at(bytes, 8)?))
}

/// The error number of an error chunk, never zero.
pub fn parse_error(bytes: &[u8]) -> Option<u32> {
    let said = usize::from(u16_at(bytes, 4)?);
    bytes.get(ERROR_START..)?.get(..said)?;
    u32_at(bytes, 0).filter(|number| *number != 0)
}

/// A run of blocks of one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub length: u32,
    /// Reads as zeroes. What is a hole is not the question: it may read as anything.
    pub is_zero: bool,
}

/// Context number and extents of a BLOCK_STATUS chunk. `None` when it is malformed: no extents,
/// or an empty one, which would be a way to keep us asking for ever.
pub fn parse_block_status(bytes: &[u8]) -> Option<(u32, Vec<Extent>)> {
    const STATE_ZERO: u32 = 1 << 1;
    let context = u32_at(bytes, 0)?;
    let (descriptors, rest) = bytes.get(4..)?.as_chunks::<8>();
    if descriptors.is_empty() || !rest.is_empty() {
        return None;
    }
    let extents = descriptors.iter().map(|descriptor| {
        let length = u32_at(descriptor, 0).filter(|length| *length > 0)?;
        Some(Extent { length, is_zero: u32_at(descriptor, 4)? & STATE_ZERO != 0 })
    });
    Some((context, extents.collect::<Option<_>>()?))
}

/// What a server may say, made safe for a console: one line of printable characters.
pub fn text(bytes: &[u8]) -> String {
    const LONGEST_SHOWN: usize = 256;
    String::from_utf8_lossy(bytes)
        .chars()
        .take(LONGEST_SHOWN)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim()
        .to_owned()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_are_laid_out_as_the_protocol_says() {
        assert_eq!(
            request(Command::Read, 0x0102_0304_0506_0708, 0x1000, 512),
            [
                0x25, 0x60, 0x95, 0x13, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0x10,
                0, 0, 0, 2, 0
            ]
        );
        assert_eq!(
            option(Opt::Go, &go("img")),
            b"IHAVEOPT\0\0\0\x07\0\0\0\x0f\0\0\0\x03img\0\x03\0\x01\0\x02\0\x03"
        );
        assert_eq!(option(Opt::List, &[]), b"IHAVEOPT\0\0\0\x03\0\0\0\0");
        assert_eq!(set_meta_context("img"), b"\0\0\0\x03img\0\0\0\x01\0\0\0\x0fbase:allocation");
    }

    #[test]
    #[rustfmt::skip]
    fn replies_of_both_sorts_are_told_apart() {
        let cookie = 0x0102_0304_0506_0708;
        let chunk = |kind, last| Some(ReplyStart::Chunk(ChunkStart { kind, last, cookie }));
        let cases: [(&[u8; 8], Option<ReplyStart>); 8] = [
            (b"\x67\x44\x66\x98\0\0\0\x05", Some(ReplyStart::Simple(SimpleReply { error: 5, cookie }))),
            (b"\x66\x8e\x33\xef\0\0\0\x01", chunk(ChunkKind::OffsetData, false)),
            (b"\x66\x8e\x33\xef\0\x01\0\0", chunk(ChunkKind::None, true)),
            (b"\x66\x8e\x33\xef\0\x01\0\x02", chunk(ChunkKind::OffsetHole, true)),
            (b"\x66\x8e\x33\xef\0\x01\0\x05", chunk(ChunkKind::BlockStatus, true)),
            (b"\x66\x8e\x33\xef\0\x01\x80\x02", chunk(ChunkKind::Error, true)),
            (b"\x66\x8e\x33\xef\0\0\0\x09", chunk(ChunkKind::Unknown(9), false)),
            (b"GET / HT", None),
        ];
        for (start, expected) in cases {
            let bytes: [u8; 16] = [&start[..], &cookie.to_be_bytes()].concat().try_into().unwrap();
            assert_eq!(parse_reply_start(&bytes), expected, "reply {start:?}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn the_state_of_blocks_is_taken_whole_or_not_at_all() {
        let data = Extent { length: 4096, is_zero: false };
        let zero = Extent { length: 512, is_zero: true };
        let cases: [(&[u8], Option<(u32, Vec<Extent>)>); 6] = [
            (b"\0\0\0\x07\0\0\x10\0\0\0\0\0",                         Some((7, vec![data]))),
            (b"\0\0\0\x07\0\0\x10\0\0\0\0\x01\0\0\x02\0\0\0\0\x03", Some((7, vec![data, zero]))), // a hole that is not zero
            (b"\0\0\0\x07",                                             None), // nothing said
            (b"\0\0\0\x07\0\0\x10\0\0\0\0",                          None),
            (b"\0\0\0\x07\0\0\0\0\0\0\0\0",                           None), // leads nowhere
            (b"",                                                         None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(parse_block_status(bytes), expected, "status {bytes:?}");
        }
    }

    #[test]
    fn an_error_is_a_number_and_as_many_words_as_it_says() {
        let cases: [(&[u8], Option<u32>); 5] = [
            (b"\0\0\0\x05\0\0", Some(5)),
            (b"\0\0\0\x05\0\x02no\0\0\0\0\0\0\x10\0", Some(5)),
            (b"\0\0\0\x05\0\x03no", None),
            (b"\0\0\0\0\0\0", None),
            (b"\0\0\0\x05", None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(parse_error(bytes), expected, "error {bytes:?}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn information_of_the_wrong_length_is_refused() {
        let cases: [(&[u8], Option<Info>); 8] = [
            (b"\0\0\0\0\0\0\0\0\x10\0\x01\x03", Some(Info::Export { size: 4096, flags: Flags(0x103) })),
            (b"\0\0\0\0\0\0\0\0\x10\0\x01",     None), // a byte short
            (b"\0\0\0\0\0\0\0\0\x10\0\x01\x03x", None), // a byte too many
            (b"\0\x01focal",                    Some(Info::Name("focal".into()))),
            (b"\0\x02two\nlines\x1b[2J",        Some(Info::Description("two lines [2J".into()))),
            (b"\0\x03\0\0\0\x01\0\0\x10\0\x02\0\0\0",
             Some(Info::BlockSize { minimum: 1, preferred: 4096, maximum: 32 << 20 })),
            (b"\0\x09anything",                 Some(Info::Other(9))),
            (b"\0",                             None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(parse_info(bytes), expected, "information {bytes:?}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn listed_names_keep_to_their_length() {
        let cases: [(&[u8], Option<&[u8]>); 5] = [
            (b"\0\0\0\x05jammyand a description", Some(b"jammy")),
            (b"\0\0\0\0",                         Some(b"")), // the default export
            (b"\0\0\0\x06jammy",                  None),
            (b"\xff\xff\xff\xffjammy",            None),
            (b"\0\0",                             None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(parse_listed(bytes), expected, "listed {bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse_info(&bytes);
            let _ = parse_listed(&bytes);
            let _ = text(&bytes);
            let _ = parse_meta_context(&bytes);
            let _ = parse_error(&bytes);
            if let Some((_, extents)) = parse_block_status(&bytes) {
                prop_assert!(extents.iter().all(|extent| extent.length > 0));
            }
            if let Some(bytes) = bytes.first_chunk() { let _ = parse_reply_start(bytes); }
            if let Some(bytes) = bytes.first_chunk() { let _ = parse_hole(bytes); }
            if let Some(bytes) = bytes.first_chunk() { let _ = parse_reply_header(bytes); }
            if let Some(bytes) = bytes.first_chunk() { let _ = parse_simple_reply(bytes); }
            if let Some(bytes) = bytes.first_chunk() { let _ = parse_export(bytes); }
        }
    }
}
