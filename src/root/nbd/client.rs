//! A connection in the transmission phase, read from in userland, and for swap written to.
//!
//! Used to look at the image before anything is decided, and to copy it into memory. Between
//! replies the connection is in the state that the handshake left it in, so it can be given to the
//! kernel at any time at which nothing is in flight ([`Connection::into_stream`]).

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::negotiate::{Export, Outcome, negotiate, plain};
use super::protocol::{self as nbd, Command, SimpleReply};
use crate::error::{Cause, Error, Result, WhileDoing};
use crate::net::dial;
use crate::root::identity::Pipelined;
use crate::root::probe::ReadAt;
use crate::sys::socket::{self, Until};

/// A server that is up answers a connection within a round trip; a switch port that still learns
/// drops the first SYNs, and the kernel repeats them after 1 and 3 s.
pub const CONNECTING: Duration = Duration::from_secs(5);
/// A whole handshake. Servers fork, open and lock the image in it, with a hundred clients waiting.
const HANDSHAKE: Duration = Duration::from_secs(15);
/// Between two bytes of a reply; a disk that spins up takes ten seconds.
pub(super) const SILENCE: Duration = Duration::from_secs(15);

/// A server at one of its addresses, with the name that people know it by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub address: SocketAddr,
    /// `None` when the address is all that was given.
    pub name: Option<String>,
}

impl Peer {
    /// Whether both are addresses of one name.
    pub fn is_of_the_server_of(&self, other: &Self) -> bool {
        self.name.is_some()
            && self.name == other.name
            && self.address.port() == other.address.port()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({})", self.address),
            None => self.address.fmt(f),
        }
    }
}

pub(super) fn dialled(peer: &Peer, within: Duration) -> Result<TcpStream> {
    let connected = dial::connect(&[peer.address], within);
    let (stream, _) = connected.while_doing(|| format!("connecting to {peer}"))?;
    Ok(stream)
}

/// Takes a fresh connection through the handshake, within `patience`, and through another one for
/// each name that a server of the oldest newstyle does not know.
pub(super) fn agreed<T>(
    mut stream: TcpStream,
    peer: &Peer,
    mut names: &[String],
    patience: Duration,
    negotiate: impl Fn(&mut Until<'_>, &[String]) -> Result<(Outcome, T)>,
) -> Result<(TcpStream, Export, T)> {
    let started = Instant::now();
    // A socket takes no timeout of zero.
    let at_most = |usual: Duration| {
        usual.min(patience.saturating_sub(started.elapsed())).max(Duration::from_millis(10))
    };
    loop {
        let mut limited = Until::now_plus(&stream, at_most(HANDSHAKE));
        match negotiate(&mut limited, names)? {
            (Outcome::Agreed(export), more) => {
                socket::expect_answers_within(&stream, at_most(SILENCE))
                    .while_doing(|| format!("preparing the connection to {peer}"))?;
                return Ok((stream, export, more));
            }
            (Outcome::HungUp, _) => match names {
                [_, rest @ ..] if !rest.is_empty() => {
                    names = rest;
                    stream = dialled(peer, at_most(CONNECTING))?;
                }
                _ => {
                    let name = names.first().map_or("", String::as_str);
                    let doing = format!("asking {peer} for export \"{name}\"");
                    let why = "the server hung up, an old one's way to say that it is unknown";
                    return Err(Error::refused(doing, why));
                }
            },
        }
    }
}

pub struct Connection {
    stream: TcpStream,
    peer: Peer,
    export: Export,
}

impl Connection {
    /// Connects to `peer` and agrees on the first of `names` that it knows; tries once.
    pub fn open(peer: &Peer, names: &[String]) -> Result<Self> {
        Self::over(dialled(peer, CONNECTING)?, peer, names, Duration::MAX)
    }

    /// [`Self::open`] that takes no longer than `within` allows for connecting and for everything,
    /// and waits for answers no longer than what is left of that.
    pub fn open_within(
        peer: &Peer,
        names: &[String],
        (connecting, all): (Duration, Duration),
    ) -> Result<Self> {
        let started = Instant::now();
        let stream = dialled(peer, connecting)?;
        Self::over(stream, peer, names, all.saturating_sub(started.elapsed()))
    }

    /// [`Self::open`] over a fresh connection to `peer`, that takes no longer than `patience`, and
    /// later waits no longer than what is left of it for an answer.
    pub fn over(
        stream: TcpStream,
        peer: &Peer,
        names: &[String],
        patience: Duration,
    ) -> Result<Self> {
        let (stream, export, ()) = agreed(stream, peer, names, patience, |stream, names| {
            negotiate(stream, peer, names).map(|outcome| (outcome, ()))
        })?;
        Ok(Self { stream, peer: peer.clone(), export })
    }

    pub fn export(&self) -> &Export {
        &self.export
    }

    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Asks for `length` bytes at `offset`, at most the export's largest request; the answer, in
    /// whatever order the server likes, carries `cookie`.
    pub fn request_read(&mut self, cookie: u64, offset: u64, length: u32) -> Result<()> {
        let request = nbd::request(Command::Read, cookie, offset, length);
        self.stream
            .write_all(&request)
            .map_err(|error| socket::named(error, SILENCE))
            .while_doing(|| format!("asking {} to read", self.peer))
    }

    /// Writes `bytes` at `offset`, and waits for the server to have taken them; as aligned as the
    /// export demands, and no longer than its largest request. Nothing else may be in flight.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let doing = || format!("writing to {}", self.peer);
        let length = u32::try_from(bytes.len())
            .map_err(|_| Error::invalid(doing(), "too much for one request"))?;
        let request = nbd::request(Command::Write, offset, offset, length);
        let sent = self.stream.write_all(&request).and_then(|()| self.stream.write_all(bytes));
        sent.map_err(|error| socket::named(error, SILENCE)).while_doing(doing)?;
        match self.reply()? {
            reply if reply.cookie != offset => Err(self.confused("the answer to another request")),
            SimpleReply { error: 0, .. } => Ok(()),
            reply => {
                let why = format!("the server answers with error {}", reply.error);
                Err(Error::refused(format!("writing to {}", self.peer), why))
            }
        }
    }

    /// Waits for the next answer. When it has no error, [`Self::payload`] must follow with as many
    /// bytes as were asked for under its cookie.
    pub fn reply(&mut self) -> Result<SimpleReply> {
        let mut bytes = [0; nbd::SIMPLE_REPLY];
        self.receive(&mut bytes)?;
        nbd::parse_simple_reply(&bytes).ok_or_else(|| self.confused("no reply"))
    }

    pub fn payload(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.receive(buffer)
    }

    /// Takes leave, so that the server does not log a broken connection.
    pub fn disconnect(mut self) {
        let _ = self.stream.write_all(&nbd::request(Command::Disconnect, 0, 0, 0));
    }

    /// The bare connection, for the kernel. No request may be in flight.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// What a reply's error number says, as one of ours.
    pub fn read_error(&self, number: u32, offset: u64) -> Error {
        read_error(&self.peer, number, offset)
    }

    /// An answer that breaks the protocol: the connection is worth nothing any more.
    pub fn confused(&self, what: &str) -> Error {
        Error::invalid(format!("reading from {}", self.peer), format!("{what} where one was due"))
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.stream
            .read_exact(buffer)
            .map_err(|error| socket::named(plain(error), SILENCE))
            .while_doing(|| format!("reading from {}", self.peer))
    }

    /// One request, aligned as the export demands.
    fn read_once(&mut self, offset: u64, length: u32) -> Result<Vec<u8>> {
        self.request_read(offset, offset, length)?;
        let reply = self.reply()?;
        if reply.cookie != offset {
            return Err(self.confused("the answer to another request"));
        }
        if reply.error != 0 {
            return Err(self.read_error(reply.error, offset));
        }
        let mut bytes = vec![0; length as usize];
        self.payload(&mut bytes)?;
        Ok(bytes)
    }
}

/// What a server's error number says about reading its image.
pub(super) fn read_error(peer: &Peer, number: u32, offset: u64) -> Error {
    const SHUTTING_DOWN: u32 = 108;
    let doing = format!("reading byte {offset} of the image from {peer}");
    match i32::try_from(number) {
        Ok(_) if number == SHUTTING_DOWN => {
            Error::new(doing, Cause::NotNow("the server is shutting down".into()))
        }
        // The protocol's error numbers are Linux's.
        Ok(code) => {
            let cause = Cause::Os(io::Error::from_raw_os_error(code));
            Error::refused(doing, format!("the server says \"{cause}\""))
        }
        Err(_) => Error::refused(doing, format!("the server answers with error {number}")),
    }
}

impl Pipelined for Connection {
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
            // Each offset is asked for once, so it names its request.
            self.request_read(*offset, *offset, *length)?;
        }
        for _ in requests {
            let reply = self.reply()?;
            if reply.error != 0 {
                return Err(self.read_error(reply.error, reply.cookie));
            }
            let asked = requests.iter().find(|(offset, _)| *offset == reply.cookie);
            let Some((offset, length)) = asked else {
                return Err(self.confused("the answer to another request"));
            };
            let mut bytes = vec![0; *length as usize];
            self.payload(&mut bytes)?;
            take(*offset, &bytes);
        }
        Ok(())
    }
}

impl ReadAt for Connection {
    fn size_bytes(&self) -> u64 {
        self.export.size_bytes
    }

    /// One piece after the other: for a look at the image, not for copying it.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        // A probe's reads are small. As large as the largest minimum, so never less than a block.
        const PIECE: u64 = 64 << 10;
        let blocks = self.export.blocks;
        let piece = PIECE.min(u64::from(blocks.longest()));
        let mut filled = 0;
        while filled < buffer.len() {
            let wanted = offset.saturating_add(filled as u64);
            let missing = (buffer.len() as u64).saturating_sub(filled as u64);
            let (start, length) = blocks.around(wanted, missing, self.export.size_bytes);
            let skip = wanted.saturating_sub(start);
            let length = u32::try_from(length.min(piece)).unwrap_or(u32::MAX);
            let bytes = self.read_once(start, length)?;
            let new = bytes.get(skip as usize..).unwrap_or_default();
            if new.is_empty() {
                let doing = format!("reading byte {wanted} of the image from {}", self.peer);
                return Err(Error::invalid(doing, "it is beyond the end"));
            }
            for (place, byte) in buffer.iter_mut().skip(filled).zip(new) {
                *place = *byte;
            }
            filled = filled.saturating_add(new.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// nbd-server of before NBD_OPT_GO ends the connection for a name that it does not know (C81a).
    #[test]
    fn a_server_that_hangs_up_is_asked_for_the_next_name() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut asked = Vec::new();
            for known in ["img", "img"] {
                let (mut stream, _) = listener.accept().unwrap();
                // Newstyle of before it was fixed.
                stream.write_all(b"NBDMAGICIHAVEOPT\0\0").unwrap();
                // Flags, then magic, NBD_OPT_EXPORT_NAME and a length.
                let mut header = [0; 20];
                stream.read_exact(&mut header).unwrap();
                let length = u32::from_be_bytes(header[16..].try_into().unwrap());
                let mut name = vec![0; length as usize];
                stream.read_exact(&mut name).unwrap();
                asked.push(String::from_utf8(name).unwrap());
                if asked.last().unwrap() == known {
                    stream.write_all(&8192_u64.to_be_bytes()).unwrap();
                    // NBD_FLAG_HAS_FLAGS, and what nobody reads.
                    stream.write_all(&[0, 1]).unwrap();
                    stream.write_all(&[0; 124]).unwrap();
                }
            }
            asked
        });
        let peer = Peer { address, name: None };
        let names = ["/img", "img"].map(str::to_owned);
        let connection = Connection::open(&peer, &names).unwrap();
        let export = connection.export();
        assert_eq!((export.name.as_str(), export.size_bytes), ("img", 8192));
        assert_eq!(server.join().unwrap(), names);
    }
}
