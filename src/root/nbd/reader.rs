//! A connection for reading much: many requests in flight, and as few bytes as the server can do
//! with.
//!
//! Agrees on structured replies and `base:allocation` where the server has them, and so is a type
//! of its own: nothing turns it into a stream for the kernel, whose driver speaks neither.
//! What a server says is held against what was asked: each byte of an answer comes once, and
//! nothing comes that nobody wanted.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::client::{self, CONNECTING, Connection, Peer, SILENCE, agreed, dialled};
use super::negotiate::{Dialect, Export, negotiate_structured, plain};
use super::protocol::{
    self as nbd, ChunkHeader, ChunkKind, Command, Extent, ReplyStart, SimpleReply,
};
use crate::error::{Error, Result, WhileDoing};
use crate::root::identity::Pipelined;
use crate::sys::socket;

pub struct Reader {
    stream: TcpStream,
    peer: Peer,
    export: Export,
    dialect: Dialect,
    asked: Vec<Asked>,
    cookie: u64,
    /// Bytes of the last [`Event::Data`] that nobody has taken yet.
    due: u32,
    /// Said next, because data comes before it.
    ended: Option<Event>,
}

/// What an answer is made of. Offsets are those of the export.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// As many bytes follow; [`Reader::payload`] must take them, in as many pieces as it likes.
    Data { cookie: u64, offset: u64, length: u32 },
    /// These bytes are zeroes.
    Hole { cookie: u64, offset: u64, length: u32 },
    /// States of the blocks that were asked for, from the first on. The last may end beyond.
    Map { cookie: u64, extents: Vec<Extent> },
    /// There is no more to come; with an error, what came is worth nothing.
    Ended { cookie: u64, error: Option<u32> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Read,
    Map,
}

/// A request that has no complete answer yet.
struct Asked {
    cookie: u64,
    question: Question,
    offset: u64,
    length: u32,
    heard: Heard,
    error: Option<u32>,
    /// Pieces of the answer that bring nothing forward.
    idle: u32,
}

impl Reader {
    /// Connects to `peer` and agrees on the first of `names` that it knows; tries once.
    pub fn open(peer: &Peer, names: &[String]) -> Result<Self> {
        Self::open_within(peer, names, Duration::MAX)
    }

    /// [`Self::open`] that takes no longer than `patience`, and later waits no longer than what is
    /// left of it for an answer.
    pub fn open_within(peer: &Peer, names: &[String], patience: Duration) -> Result<Self> {
        let stream = dialled(peer, CONNECTING.min(patience))?;
        let (stream, export, dialect) = agreed(stream, peer, names, patience, |stream, names| {
            negotiate_structured(stream, peer, names)
        })?;
        Ok(Self::new(stream, peer.clone(), export, dialect))
    }

    fn new(stream: TcpStream, peer: Peer, export: Export, dialect: Dialect) -> Self {
        let asked = Vec::new();
        Self { stream, peer, export, dialect, asked, cookie: 0, due: 0, ended: None }
    }

    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    pub fn export(&self) -> &Export {
        &self.export
    }

    /// Whether the server can be asked which blocks are zeroes.
    pub fn has_map(&self) -> bool {
        matches!(self.dialect, Dialect::Structured { allocation: Some(_) })
    }

    /// For whoever has to wake up a thread that waits in [`Self::event`], by shutting it down.
    pub fn another_handle(&self) -> Option<TcpStream> {
        self.stream.try_clone().ok()
    }

    /// Asks for `length` bytes at `offset`, at most the export's largest request and as aligned as
    /// it demands. Gives the cookie of the answer.
    pub fn request_read(&mut self, offset: u64, length: u32) -> Result<u64> {
        self.request(Question::Read, offset, length)
    }

    /// Asks for the states of `length` bytes of blocks at `offset`, of a server that has a map.
    pub fn request_map(&mut self, offset: u64, length: u32) -> Result<u64> {
        self.request(Question::Map, offset, length)
    }

    fn request(&mut self, question: Question, offset: u64, length: u32) -> Result<u64> {
        self.cookie = self.cookie.wrapping_add(1);
        let cookie = self.cookie;
        let command = match question {
            Question::Read => Command::Read,
            Question::Map => Command::BlockStatus,
        };
        let heard = Heard::default();
        self.asked.push(Asked { cookie, question, offset, length, heard, error: None, idle: 0 });
        self.stream
            .write_all(&nbd::request(command, cookie, offset, length))
            .map_err(|error| socket::named(error, SILENCE))
            .while_doing(|| format!("asking {} to read", self.peer))?;
        Ok(cookie)
    }

    /// Waits for the next piece of an answer. After an error the connection is worth nothing.
    pub fn event(&mut self) -> Result<Event> {
        if self.due > 0 {
            return Err(self.confused("an event before the data of the last"));
        }
        if let Some(ended) = self.ended.take() {
            return Ok(ended);
        }
        loop {
            let start =
                nbd::parse_reply_start(&self.bytes()?).ok_or_else(|| self.confused("no reply"))?;
            match start {
                ReplyStart::Simple(reply) => return self.simple(reply),
                ReplyStart::Chunk(start) => {
                    let header = start.with_length(self.bytes()?);
                    if let Some(event) = self.chunk(header)? {
                        return Ok(event);
                    }
                }
            }
        }
    }

    /// The next bytes of the last [`Event::Data`].
    pub fn payload(&mut self, buffer: &mut [u8]) -> Result<()> {
        let left = u32::try_from(buffer.len()).ok().and_then(|length| self.due.checked_sub(length));
        self.due = left.ok_or_else(|| self.confused("less data"))?;
        self.fill(buffer)
    }

    /// Takes leave, so that the server does not log a broken connection.
    pub fn disconnect(mut self) {
        let _ = self.stream.write_all(&nbd::request(Command::Disconnect, 0, 0, 0));
    }

    /// What the server's error number says, as one of ours.
    pub fn read_error(&self, number: u32, offset: u64) -> Error {
        client::read_error(&self.peer, number, offset)
    }

    fn simple(&mut self, reply: SimpleReply) -> Result<Event> {
        let SimpleReply { error, cookie } = reply;
        let asked = self.asked.swap_remove(self.place_of(cookie)?);
        if error != 0 {
            return Ok(Event::Ended { cookie, error: Some(error) });
        }
        match (self.dialect, asked.question) {
            (Dialect::Simple, Question::Read) => {
                self.due = asked.length;
                self.ended = Some(Event::Ended { cookie, error: None });
                Ok(Event::Data { cookie, offset: asked.offset, length: asked.length })
            }
            _ => Err(self.confused("a simple reply")),
        }
    }

    /// Takes a piece of a structured reply; `None` when it says nothing by itself.
    fn chunk(&mut self, header: ChunkHeader) -> Result<Option<Event>> {
        /// A name's length for the error's words, and what surrounds them.
        const LONGEST_ERROR: usize = nbd::LONGEST_STRING + 64;
        /// As many extents as qemu gives at most.
        const LONGEST_MAP: usize = 4 + 8 * (128 << 10);
        /// Nobody has more to say that is of no use.
        const MOST_IDLE: u32 = 64;
        let Dialect::Structured { allocation } = self.dialect else {
            return Err(self.confused("a structured reply"));
        };
        let ChunkHeader { kind, last, cookie, length } = header;
        let mut place = self.place_of(cookie)?;
        let event = match kind {
            ChunkKind::None if length == 0 && last => None,
            ChunkKind::OffsetData if length > nbd::DATA_OFFSET as u32 => {
                let offset = u64::from_be_bytes(self.bytes()?);
                let length = length.saturating_sub(nbd::DATA_OFFSET as u32);
                self.hear(place, offset, length)?;
                self.due = length;
                Some(Event::Data { cookie, offset, length })
            }
            ChunkKind::OffsetHole if length == nbd::HOLE as u32 => {
                let (offset, length) =
                    nbd::parse_hole(&self.bytes()?).ok_or_else(|| self.confused("no hole"))?;
                self.hear(place, offset, length)?;
                Some(Event::Hole { cookie, offset, length })
            }
            ChunkKind::BlockStatus => {
                let bytes = self.bytes_up_to(length, LONGEST_MAP)?;
                let (context, extents) =
                    nbd::parse_block_status(&bytes).ok_or_else(|| self.confused("no map"))?;
                let asked = self.asked.get_mut(place);
                // One map for one question, which is then as heard as an answer can be.
                let first = asked.is_some_and(|asked| {
                    asked.question == Question::Map
                        && asked.heard.add(asked.offset, u64::from(asked.length))
                });
                if !first || Some(context) != allocation {
                    return Err(self.confused("another map"));
                }
                Some(Event::Map { cookie, extents })
            }
            ChunkKind::Error => {
                let bytes = self.bytes_up_to(length, LONGEST_ERROR)?;
                let error =
                    nbd::parse_error(&bytes).ok_or_else(|| self.confused("a malformed error"))?;
                match self.asked.get_mut(place) {
                    Some(asked) if asked.idle < MOST_IDLE => {
                        asked.idle = asked.idle.saturating_add(1);
                        asked.error.get_or_insert(error);
                    }
                    _ => return Err(self.confused("errors without end")),
                }
                None
            }
            _ => return Err(self.confused("an unknown piece of a reply")),
        };
        if !last {
            return Ok(event);
        }
        // Reading the piece has not changed the list, but let nothing depend on it.
        place = self.place_of(cookie)?;
        let asked = self.asked.swap_remove(place);
        if asked.error.is_none() && asked.heard.length() != u64::from(asked.length) {
            return Err(self.confused("the rest of an answer"));
        }
        let ended = Event::Ended { cookie, error: asked.error };
        Ok(Some(match event {
            None => ended,
            Some(event) => {
                self.ended = Some(ended);
                event
            }
        }))
    }

    /// Notes a piece of an answer: of what was asked for, and not heard before.
    fn hear(&mut self, place: usize, offset: u64, length: u32) -> Result<()> {
        let length = u64::from(length);
        let fits = self.asked.get_mut(place).is_some_and(|asked| {
            let end = asked.offset.saturating_add(u64::from(asked.length));
            asked.question == Question::Read
                && offset >= asked.offset
                && offset.checked_add(length).is_some_and(|last| last <= end)
                && asked.heard.add(offset, length)
        });
        if fits { Ok(()) } else { Err(self.confused("bytes that were not asked for")) }
    }

    fn place_of(&self, cookie: u64) -> Result<usize> {
        let place = self.asked.iter().position(|asked| asked.cookie == cookie);
        place.ok_or_else(|| self.confused("an answer to nothing"))
    }

    /// An answer that breaks the protocol.
    fn confused(&self, what: &str) -> Error {
        let doing = format!("reading from {}", self.peer);
        Error::invalid(doing, format!("{what} where the protocol has none"))
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn bytes_up_to(&mut self, length: u32, longest: usize) -> Result<Vec<u8>> {
        let length = length as usize;
        if length > longest {
            return Err(self.confused("a piece of a reply that is as long"));
        }
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.stream
            .read_exact(buffer)
            .map_err(|error| socket::named(plain(error), SILENCE))
            .while_doing(|| format!("reading from {}", self.peer))
    }
}

/// A connection that was made for looking at the image, and is as good for reading it: what it
/// cannot do any more is change its dialect.
impl From<Connection> for Reader {
    fn from(connection: Connection) -> Self {
        let (peer, export) = (connection.peer().clone(), connection.export().clone());
        Self::new(connection.into_stream(), peer, export, Dialect::Simple)
    }
}

impl Pipelined for Reader {
    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn export(&self) -> &Export {
        &self.export
    }

    fn read_each(
        &mut self,
        requests: &[(u64, u32)],
        take: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<()> {
        for (offset, length) in requests {
            self.request_read(*offset, *length)?;
        }
        let mut left = requests.len();
        while left > 0 {
            match self.event()? {
                Event::Data { offset, length, .. } => {
                    let mut bytes = vec![0; length as usize];
                    self.payload(&mut bytes)?;
                    take(offset, &bytes);
                }
                Event::Hole { offset, length, .. } => take(offset, &vec![0; length as usize]),
                Event::Ended { error: None, .. } => left = left.saturating_sub(1),
                Event::Ended { error: Some(number), .. } => {
                    let offset = requests.first().map_or(0, |(offset, _)| *offset);
                    return Err(self.read_error(number, offset));
                }
                Event::Map { .. } => return Err(self.confused("a map")),
            }
        }
        Ok(())
    }
}

/// Which parts of an answer have come: ranges in order, none touching the next.
#[derive(Debug, Default)]
struct Heard {
    ranges: Vec<(u64, u64)>,
}

impl Heard {
    /// Whether these bytes are new, some, and not the fringe of a puzzle.
    fn add(&mut self, offset: u64, length: u64) -> bool {
        /// Servers answer from the front to the end, or in a few threads.
        const MOST: usize = 256;
        let end = offset.saturating_add(length);
        let after = self.ranges.partition_point(|(start, _)| *start < offset);
        let before = after.checked_sub(1).and_then(|place| self.ranges.get(place)).copied();
        let next = self.ranges.get(after).copied();
        if end <= offset
            || before.is_some_and(|(_, until)| until > offset)
            || next.is_some_and(|(start, _)| start < end)
        {
            return false;
        }
        let joins_before = before.filter(|(_, until)| *until == offset);
        let joins_next = next.filter(|(start, _)| *start == end);
        let range =
            (joins_before.map_or(offset, |(start, _)| start), joins_next.map_or(end, |(_, e)| e));
        let first = if joins_before.is_some() { after.saturating_sub(1) } else { after };
        let behind = if joins_next.is_some() { after.saturating_add(1) } else { after };
        self.ranges.splice(first..behind, [range]);
        self.ranges.len() <= MOST
    }

    fn length(&self) -> u64 {
        self.ranges.iter().map(|(start, end)| end.saturating_sub(*start)).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use proptest::prelude::*;

    use super::*;
    use crate::root::nbd::negotiate::Blocks;
    use crate::root::nbd::protocol::Flags;

    const STRUCTURED: Dialect = Dialect::Structured { allocation: Some(7) };
    const DONE: u16 = 1;

    /// Of a server that says all this, whatever it is asked, and hangs up.
    fn reader(dialect: Dialect, says: &[u8]) -> Reader {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(says).unwrap();
        server.shutdown(std::net::Shutdown::Write).unwrap();
        // Takes what is asked until the test ends.
        std::thread::spawn(move || std::io::copy(&mut server, &mut std::io::sink()));
        let export = Export {
            name: "img".into(),
            description: None,
            size_bytes: 1 << 20,
            flags: Flags::HAS_FLAGS,
            blocks: Blocks::default(),
        };
        Reader::new(stream, Peer { address, name: None }, export, dialect)
    }

    fn simple(error: u32, cookie: u64, data: &[u8]) -> Vec<u8> {
        [&b"\x67\x44\x66\x98"[..], &error.to_be_bytes(), &cookie.to_be_bytes(), data].concat()
    }

    fn chunk(flags: u16, kind: u16, cookie: u64, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x66\x8e\x33\xef".to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        bytes
    }

    fn data(flags: u16, cookie: u64, offset: u64, length: usize) -> Vec<u8> {
        chunk(flags, 1, cookie, &[&offset.to_be_bytes()[..], &vec![0x5a; length]].concat())
    }

    fn hole(flags: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
        chunk(flags, 2, cookie, &[&offset.to_be_bytes()[..], &length.to_be_bytes()].concat())
    }

    fn map(flags: u16, context: u32, extents: &[(u32, u32)]) -> Vec<u8> {
        let mut bytes = context.to_be_bytes().to_vec();
        for (length, state) in extents {
            bytes.extend(length.to_be_bytes());
            bytes.extend(state.to_be_bytes());
        }
        chunk(flags, 5, 3, &bytes)
    }

    /// Asks for 8 KiB at 4 KiB (cookie 1), 4 KiB at 64 KiB (2), and a map of 1 MiB (3), and takes
    /// everything that comes.
    fn events(dialect: Dialect, says: &[u8]) -> (Vec<Event>, Error) {
        let mut reader = reader(dialect, says);
        reader.request_read(4096, 8192).unwrap();
        reader.request_read(65536, 4096).unwrap();
        if reader.has_map() {
            reader.request_map(0, 1 << 20).unwrap();
        }
        let mut events = Vec::new();
        loop {
            match reader.event() {
                Ok(event) => {
                    if let Event::Data { length, .. } = event {
                        // By pieces, as far as it goes.
                        let mut bytes = vec![0; length as usize];
                        let (left, right) = bytes.split_at_mut(length as usize / 3);
                        let taken = reader.payload(left).and_then(|()| reader.payload(right));
                        if let Err(error) = taken {
                            return (events, error);
                        }
                    }
                    events.push(event);
                }
                Err(error) => return (events, error),
            }
        }
    }

    #[test]
    fn answers_come_in_pieces_and_in_any_order() {
        let says = [
            data(0, 1, 8192, 4096),
            map(DONE, 7, &[(4096, 3), (1 << 20, 0)]),
            data(DONE, 2, 65536, 4096),
            hole(0, 1, 4096, 4096),
            chunk(DONE, 0, 1, b""),
        ];
        let (events, error) = events(STRUCTURED, &says.concat());
        let extents = vec![
            Extent { length: 4096, is_zero: true },
            Extent { length: 1 << 20, is_zero: false },
        ];
        let expected = [
            Event::Data { cookie: 1, offset: 8192, length: 4096 },
            Event::Map { cookie: 3, extents },
            Event::Ended { cookie: 3, error: None },
            Event::Data { cookie: 2, offset: 65536, length: 4096 },
            Event::Ended { cookie: 2, error: None },
            Event::Hole { cookie: 1, offset: 4096, length: 4096 },
            Event::Ended { cookie: 1, error: None },
        ];
        assert_eq!(events, expected);
        assert!(error.is_transient(), "the server hung up: {error}");
    }

    #[test]
    fn a_server_without_structured_replies_is_understood() {
        let says = [simple(0, 2, &[1; 4096]), simple(5, 1, b"")];
        let expected = [
            Event::Data { cookie: 2, offset: 65536, length: 4096 },
            Event::Ended { cookie: 2, error: None },
            Event::Ended { cookie: 1, error: Some(5) },
        ];
        assert_eq!(events(Dialect::Simple, &says.concat()).0, expected);
    }

    #[test]
    fn an_error_makes_the_whole_answer_worthless() {
        let words = b"\0\0\0\x05\0\x02no";
        let at = [&words[..], &8192u64.to_be_bytes()].concat();
        let says = [
            data(0, 1, 4096, 4096),
            chunk(0, 0x8002, 1, &at),
            chunk(DONE, 0, 1, b""),
            chunk(DONE, 0x8001, 3, words),
            simple(5, 2, b""),
        ];
        let expected = [
            Event::Data { cookie: 1, offset: 4096, length: 4096 },
            Event::Ended { cookie: 1, error: Some(5) },
            Event::Ended { cookie: 3, error: Some(5) },
            Event::Ended { cookie: 2, error: Some(5) },
        ];
        assert_eq!(events(STRUCTURED, &says.concat()).0, expected);
    }

    #[test]
    #[rustfmt::skip]
    fn what_was_not_asked_for_is_not_taken() {
        let error = b"\0\0\0\x05\0\0";
        let cases: [(&str, Vec<u8>); 20] = [
            ("the protocol of somebody else",  b"HTTP/1.1 400 Bad Request\r\n".to_vec()),
            ("an answer to nothing",           data(DONE, 9, 4096, 8192)),
            ("too early",                      data(0, 1, 4095, 4096)),
            ("too late",                       data(0, 1, 8192, 4097)),
            ("far away",                       data(0, 1, u64::MAX, 4096)),
            ("nothing",                        data(0, 1, 4096, 0)),
            ("shorter than an offset",         chunk(0, 1, 1, b"\0\0\0\0")),
            ("twice",                          [data(0, 1, 4096, 4096), data(0, 1, 4096, 4096)].concat()),
            ("twice in part",                  [data(0, 1, 4096, 4096), hole(0, 1, 8191, 4096)].concat()),
            ("a hole that is too long",        hole(0, 1, 4096, 8193)),
            ("a hole without a length",        chunk(0, 2, 1, &4096u64.to_be_bytes())),
            ("an end before the end",          [data(0, 1, 4096, 4096), chunk(DONE, 0, 1, b"")].concat()),
            ("an end with something",          chunk(DONE, 0, 1, b"x")),
            ("nothing that is not the end",    chunk(0, 0, 1, b"")),
            ("an unknown piece",               chunk(0, 9, 1, b"")),
            ("a simple reply to a read",       simple(0, 1, &[0; 8192])),
            ("a map of something else",        map(DONE, 8, &[(4096, 0)])),
            ("two maps",                       [map(0, 7, &[(4096, 0)]), map(DONE, 7, &[(4096, 0)])].concat()),
            ("an error that is too long",      chunk(0, 0x8001, 1, &[0; 5000])),
            ("errors without end",             chunk(0, 0x8001, 1, error).repeat(65)),
        ];
        for (case, says) in cases {
            let (events, error) = events(STRUCTURED, &says);
            assert!(!error.is_transient(), "{case}: {error} after {events:?}");
            let text = error.to_string();
            assert!(text.ends_with("where the protocol has none"), "{case}: {text}");
        }
        let (_, error) = events(Dialect::Simple, &data(DONE, 1, 4096, 8192));
        assert!(error.to_string().contains("a structured reply"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Nothing that a server sends is taken for more than was asked, nor for ever.
        #[test]
        fn hostile_answers_end(
            pieces in proptest::collection::vec(
                (0u16..2, 0u16..7, 0u64..4, proptest::collection::vec(any::<u8>(), 0..24)), 0..12,
            ),
            tail in proptest::collection::vec(any::<u8>(), 0..64),
            structured in any::<bool>(),
        ) {
            let mut says = Vec::new();
            for (flags, kind, cookie, mut bytes) in pieces {
                // Offsets that are mostly possible ones.
                if let Some(offset) = bytes.get_mut(..8) {
                    offset[..6].fill(0);
                }
                let kind = if kind == 6 { 0x8001 } else { kind };
                says.extend(chunk(flags, kind, cookie, &bytes));
            }
            says.extend(tail);
            let dialect = if structured { STRUCTURED } else { Dialect::Simple };
            let (events, _) = events(dialect, &says);
            let sum: u64 = events.iter().map(|event| match event {
                Event::Data { length, .. } | Event::Hole { length, .. } => u64::from(*length),
                _ => 0,
            }).sum();
            prop_assert!(sum <= 8192 + 4096, "{:?}", events);
        }

        /// Each byte is heard once, in whatever pieces it comes.
        #[test]
        fn what_was_heard_is_what_was_said(
            pieces in proptest::collection::vec((0u64..200, 0u64..40), 0..100),
        ) {
            let mut heard = Heard::default();
            let mut bytes = [false; 240];
            for (offset, length) in pieces {
                let place = offset as usize..(offset + length) as usize;
                let is_new = length > 0 && bytes[place.clone()].iter().all(|byte| !byte);
                prop_assert_eq!(heard.add(offset, length), is_new);
                if is_new {
                    bytes[place].fill(true);
                }
                prop_assert_eq!(heard.length(), bytes.iter().filter(|byte| **byte).count() as u64);
                prop_assert!(heard.ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
            }
        }
    }
}
