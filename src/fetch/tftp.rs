//! TFTP, the reading half: RFC 1350 with options (2347), block size (2348), timeout and transfer
//! size (2349) and window size (7440).
//!
//! [`Download`] is the protocol without a socket: packets in, packets out. [`fetch`] owns the
//! socket and the clock. Servers of every age answer here, so each option is a wish: one that
//! negotiates nothing, or answers error 8, is asked the plain way. Never written: sending files,
//! netascii, multicast.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::{Attempt, Clock, time_left};
use crate::console::Progress;
use crate::error::{Error, Result, WhileDoing};
use crate::sys;

/// Bytes of payload that fit an Ethernet frame with room for a tunnel's headers.
const BLOCK_SIZE: u16 = 1428;
/// Without options (RFC 1350).
const PLAIN_BLOCK_SIZE: u16 = 512;
/// Blocks in flight; a 23 KiB burst fits any switch port's buffer.
const WINDOW: u16 = 16;
/// Seconds until the server repeats by itself; we repeat sooner.
const SERVER_TIMEOUT: u8 = 1;

/// How long to wait for a sign of life before each repetition. Silence to the end is a failed
/// attempt: by then even a switch port in its spanning-tree delay has been given 15 seconds.
const PATIENCE: [Duration; 6] = [
    Duration::from_millis(300),
    Duration::from_millis(700),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// Reads `path` from `server`, at most `limit` bytes, in one attempt with its own repetitions.
///
/// `path` begins with a slash. A server that has no such file is asked for it without the slash:
/// which of the two forms a server wants depends on whether it changed its root.
pub fn fetch(
    server: SocketAddr,
    path: &str,
    limit: usize,
    clock: Clock,
    progress: &Progress,
) -> Attempt {
    let doing = || format!("asking {server} by TFTP for {path}");
    let mut end = attempt(server, path, limit, clock, progress, doing)?;
    if let End::Missing(_) = end
        && let Some(relative) = path.strip_prefix('/')
    {
        end = match attempt(server, relative, limit, clock, progress, doing)? {
            End::Missing(_) => end,
            other => other,
        };
    }
    match end {
        End::Complete(data) => Ok(data),
        End::Missing(words) => Err(Error::refused(doing(), words).into()),
    }
}

enum End {
    Complete(Vec<u8>),
    /// The server's words.
    Missing(String),
}

fn attempt(
    server: SocketAddr,
    name: &str,
    limit: usize,
    clock: Clock,
    progress: &Progress,
    doing: impl Fn() -> String,
) -> Result<End> {
    let mut download = Download::with_options(name, limit);
    loop {
        match exchange(server, &mut download, clock, progress, &doing)? {
            Outcome::Complete => return Ok(End::Complete(download.into_data())),
            Outcome::Missing(words) => return Ok(End::Missing(words)),
            // A new port, so that stragglers of the first exchange cannot be taken for the second.
            Outcome::TryPlain => download = Download::plain(name, limit),
        }
    }
}

/// One exchange from one port of ours.
fn exchange(
    server: SocketAddr,
    download: &mut Download,
    clock: Clock,
    progress: &Progress,
    doing: &impl Fn() -> String,
) -> Result<Outcome> {
    if clock.patience_left().is_none() {
        return Err(clock.silence(doing()));
    }
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).while_doing(doing)?;
    // The server answers from another port, so the socket cannot be connected; without this a
    // closed port would look like silence.
    sys::udp::report_unreachable(&socket, server.is_ipv6()).while_doing(doing)?;

    let mut peer = Peer::Asked(server);
    let mut packet = vec![0; usize::from(u16::MAX)];
    socket.send_to(&download.last_sent, server).while_doing(doing)?;
    let mut silences = PATIENCE.iter();
    let began = Instant::now();
    'listening: loop {
        let Some(patience) = silences.next() else {
            return Err(Error::silence(doing(), began.elapsed()));
        };
        // What is on its way may outlive the patience.
        let left = match clock.whole_left() {
            None => return Err(clock.too_slow(doing())),
            left if download.received() > 0 => left,
            Some(_) => clock.patience_left(),
        };
        let Some(left) = left else { return Err(clock.silence(doing())) };
        let until = Instant::now() + left.min(*patience);
        while let Some(left) = time_left(until) {
            socket.set_read_timeout(Some(left)).while_doing(doing)?;
            let (length, from) = match socket.recv_from(&mut packet) {
                Ok(received) => received,
                Err(error) if is_timeout(&error) => continue,
                Err(error) => return Err(Error::new(doing(), error)),
            };
            let packet = packet.get(..length).unwrap_or_default();
            if !peer.accepts(from) {
                // RFC 1350, 4: told, and ignored. One from elsewhere is not worth an answer, which
                // would only help whoever forges addresses.
                if from.ip() == server.ip() {
                    let _ = socket.send_to(&error_packet(UNKNOWN_TRANSFER, "unknown port"), from);
                }
                continue;
            }
            let before = download.received();
            let step = download.step(packet);
            peer = match step {
                Step::Ignore => peer,
                _ => Peer::Pinned(from),
            };
            let answer = |bytes: &[u8]| socket.send_to(bytes, from).while_doing(doing).map(|_| ());
            match step {
                Step::Ignore | Step::Wait => {}
                Step::Send => answer(&download.last_sent)?,
                Step::End(outcome) => {
                    if matches!(outcome, Outcome::Complete) {
                        // If this one is lost, the server repeats its last block to a closed port.
                        answer(&download.last_sent)?;
                    }
                    progress.at(download.received() as u64);
                    return Ok(outcome);
                }
                Step::Fail(reply, cause) => {
                    if let Some(reply) = reply {
                        answer(&reply)?;
                    }
                    return Err(Error::new(doing(), cause));
                }
            }
            if download.received() != before {
                progress.at(download.received() as u64);
                silences = PATIENCE.iter();
                continue 'listening;
            }
        }
        download.after_silence();
        socket.send_to(&download.last_sent, peer.address()).while_doing(doing)?;
    }
}

/// Whom we listen to: RFC 1350 lets the server answer from a port of its choice, which then is
/// the transfer. Servers for NAT keep the well-known one.
#[derive(Clone, Copy)]
enum Peer {
    Asked(SocketAddr),
    Pinned(SocketAddr),
}

impl Peer {
    fn accepts(self, from: SocketAddr) -> bool {
        match self {
            Self::Asked(server) => from.ip() == server.ip(),
            Self::Pinned(server) => from == server,
        }
    }

    fn address(self) -> SocketAddr {
        match self {
            Self::Asked(address) | Self::Pinned(address) => address,
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

const READ_REQUEST: u16 = 1;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OPTIONS_ACK: u16 = 6;

const UNDEFINED: u16 = 0;
const NOT_FOUND: u16 = 1;
const ACCESS_VIOLATION: u16 = 2;
const DISK_FULL: u16 = 3;
const ILLEGAL_OPERATION: u16 = 4;
const UNKNOWN_TRANSFER: u16 = 5;
const BAD_OPTION: u16 = 8;

/// One download, as the state between two packets.
struct Download {
    limit: usize,
    asked_for_options: bool,
    /// Nothing has come from the server yet.
    fresh: bool,
    block_size: usize,
    window: u16,
    total: Option<usize>,
    data: Vec<u8>,
    /// Number of the next block, without roll-over: 65536 goes over the wire as 0.
    next: u64,
    /// Blocks since the last acknowledgement.
    unacknowledged: u16,
    /// The packet that the server should have answered.
    last_sent: Vec<u8>,
    /// `last_sent` has already been repeated since the last progress.
    repeated: bool,
}

/// What to do after a packet.
enum Step {
    /// Not a packet of this transfer.
    Ignore,
    Wait,
    /// `last_sent`.
    Send,
    End(Outcome),
    /// Send this if there is anything, and give up.
    Fail(Option<Vec<u8>>, crate::error::Cause),
}

enum Outcome {
    Complete,
    Missing(String),
    TryPlain,
}

impl Download {
    fn with_options(name: &str, limit: usize) -> Self {
        let options = [
            ("tsize", "0".to_owned()),
            ("blksize", BLOCK_SIZE.to_string()),
            ("timeout", SERVER_TIMEOUT.to_string()),
            ("windowsize", WINDOW.to_string()),
        ];
        Self::new(name, limit, &options)
    }

    fn plain(name: &str, limit: usize) -> Self {
        Self::new(name, limit, &[])
    }

    fn new(name: &str, limit: usize, options: &[(&str, String)]) -> Self {
        let mut request = READ_REQUEST.to_be_bytes().to_vec();
        let words = [name, "octet"].into_iter();
        for word in words.chain(options.iter().flat_map(|(key, value)| [*key, value])) {
            request.extend(word.bytes().filter(|byte| *byte != 0));
            request.push(0);
        }
        Self {
            limit,
            asked_for_options: !options.is_empty(),
            fresh: true,
            block_size: usize::from(PLAIN_BLOCK_SIZE),
            window: 1,
            total: None,
            data: Vec::new(),
            next: 1,
            unacknowledged: 0,
            last_sent: request,
            repeated: false,
        }
    }

    fn received(&self) -> usize {
        self.data.len()
    }

    fn into_data(self) -> Vec<u8> {
        if let Some(total) = self.total.filter(|total| *total != self.data.len()) {
            log::debug!(target: "config", "TFTP: {} bytes were announced and {} came", total, self.data.len());
        }
        self.data
    }

    /// The server has said nothing for a while; `last_sent` is what to say again.
    fn after_silence(&mut self) {
        self.repeated = false;
        if !self.fresh {
            self.acknowledge();
        }
    }

    fn step(&mut self, packet: &[u8]) -> Step {
        let Some((opcode, body)) = take_u16(packet) else { return Step::Ignore };
        match opcode {
            DATA => match take_u16(body) {
                Some((block, data)) => self.data(block, data),
                None => Step::Ignore,
            },
            OPTIONS_ACK if self.asked_for_options => self.options(body),
            ERROR => self.error(body),
            _ => Step::Ignore,
        }
    }

    fn options(&mut self, body: &[u8]) -> Step {
        if !self.fresh {
            // Our acknowledgement of it was lost; later it is a stray double.
            return if self.data.is_empty() { self.repeat() } else { Step::Ignore };
        }
        let mut words = body.split(|byte| *byte == 0);
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
            let Some(number) = number else { return self.bad_options() };
            // Smaller is the server's right, larger is not (RFC 2348, 7440).
            if name.eq_ignore_ascii_case(b"blksize") {
                match usize::try_from(number) {
                    Ok(size) if (8..=usize::from(BLOCK_SIZE)).contains(&size) => {
                        self.block_size = size;
                    }
                    _ => return self.bad_options(),
                }
            } else if name.eq_ignore_ascii_case(b"windowsize") {
                match u16::try_from(number) {
                    Ok(size) if (1..=WINDOW).contains(&size) => self.window = size,
                    _ => return self.bad_options(),
                }
            } else if name.eq_ignore_ascii_case(b"tsize") {
                match usize::try_from(number) {
                    Ok(total) if total <= self.limit => self.total = Some(total),
                    _ => return self.too_large(),
                }
            } else if !name.eq_ignore_ascii_case(b"timeout") {
                return self.bad_options();
            }
        }
        self.fresh = false;
        self.acknowledge();
        Step::Send
    }

    /// Gives up on options; a server that garbles them may still serve the plain way.
    fn bad_options(&self) -> Step {
        Step::End(Outcome::TryPlain)
    }

    fn too_large(&self) -> Step {
        let reply = error_packet(DISK_FULL, "too large");
        let why = format!("the file is larger than {} bytes", self.limit);
        Step::Fail(Some(reply), crate::error::Cause::Refused(why))
    }

    fn data(&mut self, block: u16, data: &[u8]) -> Step {
        // The distance survives the roll-over of the 16 bits on the wire.
        let ahead = block.wrapping_sub(self.next as u16);
        if self.fresh && ahead != 0 {
            return Step::Ignore;
        }
        if ahead != 0 {
            // Before or after the expected block: one was lost, or our acknowledgement was. Said
            // once only: answering every double doubles the rest of the transfer (RFC 1123,
            // 4.2.3.1), and a window is full of blocks after a lost one.
            return self.repeat();
        }
        if data.len() > self.block_size {
            let reply = error_packet(ILLEGAL_OPERATION, "block too long");
            let why = format!("block {} has {} bytes", self.next, data.len());
            return Step::Fail(Some(reply), crate::error::Cause::Invalid(why));
        }
        if self.data.len().saturating_add(data.len()) > self.limit {
            return self.too_large();
        }
        self.fresh = false;
        self.repeated = false;
        self.data.extend_from_slice(data);
        self.next = self.next.saturating_add(1);
        self.unacknowledged = self.unacknowledged.saturating_add(1);
        if data.len() < self.block_size {
            self.acknowledge();
            return Step::End(Outcome::Complete);
        }
        if self.unacknowledged >= self.window {
            self.acknowledge();
            return Step::Send;
        }
        Step::Wait
    }

    fn error(&self, body: &[u8]) -> Step {
        let Some((code, text)) = take_u16(body) else { return Step::Ignore };
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        // Some server wrote it; the console must survive it.
        let words: String = String::from_utf8_lossy(text)
            .chars()
            .filter(|character| !character.is_control())
            .take(120)
            .collect();
        let words = if words.is_empty() { format!("error {code}") } else { words };
        match code {
            NOT_FOUND | ACCESS_VIOLATION => Step::End(Outcome::Missing(words)),
            // RFC 2347 has 8 for it; older servers say 0 or 4 to what they do not know.
            BAD_OPTION | UNDEFINED | ILLEGAL_OPERATION if self.asked_for_options && self.fresh => {
                Step::End(Outcome::TryPlain)
            }
            // It has been restarted.
            UNKNOWN_TRANSFER => Step::Fail(None, crate::error::Cause::NotNow(words)),
            _ => Step::Fail(None, crate::error::Cause::Refused(words)),
        }
    }

    /// Puts the acknowledgement of all that has come into `last_sent`.
    fn acknowledge(&mut self) {
        let [high, low] = (self.next.saturating_sub(1) as u16).to_be_bytes();
        let [zero, opcode] = ACK.to_be_bytes();
        self.last_sent = vec![zero, opcode, high, low];
        self.unacknowledged = 0;
    }

    fn repeat(&mut self) -> Step {
        if std::mem::replace(&mut self.repeated, true) {
            return Step::Wait;
        }
        self.acknowledge();
        Step::Send
    }
}

fn take_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*number), rest))
}

fn error_packet(code: u16, text: &str) -> Vec<u8> {
    [&ERROR.to_be_bytes(), &code.to_be_bytes(), text.as_bytes(), &[0]].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn a_minute() -> Clock {
        Clock::until(Instant::now() + Duration::from_secs(60))
    }

    fn data(block: u16, bytes: &[u8]) -> Vec<u8> {
        [&DATA.to_be_bytes(), &block.to_be_bytes(), bytes].concat()
    }

    fn options(text: &str) -> Vec<u8> {
        [&OPTIONS_ACK.to_be_bytes(), text.as_bytes()].concat()
    }

    /// Feeds `packets` and writes down each step: `ack N`, `wait`, `ignore`, `done`, `plain`, …
    fn steps(download: &mut Download, packets: &[Vec<u8>]) -> String {
        let mut said = Vec::new();
        for packet in packets {
            said.push(match download.step(packet) {
                Step::Ignore => "ignore".to_owned(),
                Step::Wait => "wait".to_owned(),
                Step::Send => format!(
                    "ack {}",
                    u16::from_be_bytes([download.last_sent[2], download.last_sent[3]])
                ),
                Step::End(Outcome::Complete) => format!("done {}", download.received()),
                Step::End(Outcome::Missing(words)) => format!("missing {words}"),
                Step::End(Outcome::TryPlain) => "plain".to_owned(),
                Step::Fail(_, cause) => format!("fail {cause:?}"),
            });
        }
        said.join(", ")
    }

    #[test]
    fn the_request_asks_for_everything_and_promises_nothing() {
        let expected: &[u8] = b"\0\x01/a/lts.conf\0octet\0tsize\x000\0blksize\x001428\0timeout\x001\0windowsize\x0016\0";
        assert_eq!(Download::with_options("/a/lts.conf", 100).last_sent, expected);
        assert_eq!(Download::plain("x", 100).last_sent, b"\0\x01x\0octet\0");
    }

    #[test]
    #[rustfmt::skip]
    fn servers_of_every_kind_are_understood() {
        let full = &[7; 512][..];
        let big = &[7; 1428][..];
        let window2 = options("blksize\x001428\0windowsize\x002\0");
        let cases: &[(&str, Vec<Vec<u8>>, &str)] = &[
            ("negotiates nothing",   vec![data(1, full), data(2, b"x")],                             "ack 1, done 513"),
            ("empty file",           vec![data(1, b"")],                                             "done 0"),
            ("whole last block",     vec![data(1, full), data(2, b"")],                              "ack 1, done 512"),
            ("takes some options",   vec![options("tsize\x005\0blksize\x008\0"), data(1, b"01234567"), data(2, b"8")], "ack 0, ack 1, done 9"),
            ("options in capitals",  vec![options("BLKSIZE\x008\0"), data(1, b"0")],                 "ack 0, done 1"),
            ("takes the window",     vec![window2.clone(), data(1, big), data(2, big), data(3, big), data(4, b"")], "ack 0, wait, ack 2, wait, done 4284"),
            ("loses one of a window", vec![window2.clone(), data(1, big), data(3, big), data(4, big), data(2, big), data(3, b"x")], "ack 0, wait, ack 1, wait, wait, done 2857"),
            ("repeats OACK",         vec![window2.clone(), window2.clone(), window2.clone(), data(1, b"x")], "ack 0, ack 0, wait, done 1"),
            ("repeats a block",      vec![data(1, full), data(1, full), data(1, full), data(2, b"")], "ack 1, ack 1, wait, done 512"),
            ("straggler first",      vec![data(9, full), data(1, b"x")],                             "ignore, done 1"),
            ("wants larger blocks",  vec![options("blksize\x009000\0")],                             "plain"),
            ("wants a larger window", vec![options("windowsize\x0064\0")],                           "plain"),
            ("unasked option",       vec![options("rollover\x001\0")],                               "plain"),
            ("garbled option",       vec![options("blksize\0big\0")],                                "plain"),
            ("refuses options",      vec![error_packet(8, "no")],                                    "plain"),
            ("knows no options",     vec![error_packet(4, "what?")],                                 "plain"),
            ("has no such file",     vec![error_packet(1, "File\u{1b}[2J not found")],               "missing File[2J not found"),
            ("may not read it",      vec![error_packet(2, "")],                                      "missing error 2"),
            ("restarted",            vec![data(1, full), error_packet(5, "?")],                      "ack 1, fail NotNow(\"?\")"),
            ("announces too much",   vec![options("tsize\x005000\0")],                               "fail Refused(\"the file is larger than 4999 bytes\")"),
            ("sends too much",       vec![window2.clone(), data(1, big), data(2, big), data(3, big), data(4, big)], "ack 0, wait, ack 2, wait, fail Refused(\"the file is larger than 4999 bytes\")"),
            ("sends a long block",   vec![data(1, &[0; 513])],                                       "fail Invalid(\"block 1 has 513 bytes\")"),
            ("sends rubbish",        vec![vec![], vec![0], vec![0, 3], vec![0, 3, 0], vec![0, 9, 9], vec![0, 5]], "ignore, ignore, ignore, ignore, ignore, ignore"),
        ];
        for (case, packets, expected) in cases {
            let mut download = Download::with_options("x", 4999);
            assert_eq!(steps(&mut download, packets), *expected, "a server that {case}");
        }
        let mut plain = Download::plain("x", 4999);
        assert_eq!(steps(&mut plain, &[options("blksize\x008\0"), error_packet(8, "no")]), "ignore, fail Refused(\"no\")");
    }

    #[test]
    fn block_numbers_roll_over() {
        let mut download = Download::with_options("x", usize::MAX);
        assert_eq!(steps(&mut download, &[options("blksize\x008\0")]), "ack 0");
        for block in 1..=70_000_u32 {
            let said = steps(&mut download, &[data(block as u16, b"01234567")]);
            assert_eq!(said, format!("ack {}", block as u16), "block {block}");
        }
        assert_eq!(steps(&mut download, &[data(70_001_u32 as u16, b"")]), "done 560000");
    }

    /// A server of our own making, which misbehaves to order: it keeps silent at first, answers
    /// from another port, has a stranger talk in between, loses and doubles blocks.
    #[test]
    fn a_download_survives_the_network() {
        let well_known = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = well_known.local_addr().unwrap();
        let file: Vec<u8> = (0..3000_u32).map(|at| at as u8).collect();
        let sent = file.clone();
        let server_thread = std::thread::spawn(move || {
            let mut packet = [0; 2000];
            well_known.recv_from(&mut packet).unwrap(); // lost
            let (length, client) = well_known.recv_from(&mut packet).unwrap();
            assert!(packet[..length].starts_with(b"\0\x01/lts.conf\0octet\0"));
            let transfer = UdpSocket::bind("127.0.0.1:0").unwrap();
            let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
            let expect = |block: u16, packet: &mut [u8]| {
                let (length, from) = transfer.recv_from(packet).unwrap();
                assert_eq!((&packet[..length], from), (&[0, 4, 0, block as u8][..], client));
            };
            transfer.send_to(&options("blksize\x001000\0tsize\x003000\0"), client).unwrap();
            expect(0, &mut packet);
            stranger.send_to(&data(1, b"forged"), client).unwrap();
            let (length, _) = stranger.recv_from(&mut packet).unwrap();
            assert!(packet[..length].starts_with(&[0, 5, 0, 5]), "the stranger is told");
            transfer.send_to(&data(1, &sent[..1000]), client).unwrap();
            transfer.send_to(&data(1, &sent[..1000]), client).unwrap();
            expect(1, &mut packet);
            expect(1, &mut packet); // the double is answered once
            expect(1, &mut packet); // and again after a silence: block 2 was lost
            transfer.send_to(&data(2, &sent[1000..2000]), client).unwrap();
            expect(2, &mut packet);
            transfer.send_to(&data(3, &sent[2000..]), client).unwrap();
            expect(3, &mut packet);
            transfer.send_to(&data(4, b""), client).unwrap();
            expect(4, &mut packet);
        });
        let progress = crate::console::progress("config", "test", None);
        let got = fetch(server, "/lts.conf", 3000, a_minute(), &progress)
            .map_err(|failed| failed.error)
            .unwrap();
        assert_eq!(got, file);
        server_thread.join().unwrap();
    }

    #[test]
    fn a_closed_port_is_no_silence() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let progress = crate::console::progress("config", "test", None);
        let began = Instant::now();
        let error = fetch(server, "/lts.conf", 3000, a_minute(), &progress)
            .map_err(|failed| failed.error)
            .unwrap_err();
        assert!(
            error.is_transient() && error.to_string().ends_with("Connection refused"),
            "{error}"
        );
        assert!(began.elapsed().as_secs() < 5);
    }

    #[test]
    fn silence_repeats_the_request_first_and_the_acknowledgement_later() {
        let mut download = Download::with_options("x", 4999);
        let request = download.last_sent.clone();
        download.after_silence();
        assert_eq!(download.last_sent, request);
        let window = options("blksize\x008\0windowsize\x004\0");
        assert_eq!(steps(&mut download, &[window, data(1, b"01234567")]), "ack 0, wait");
        download.after_silence();
        assert_eq!(download.last_sent, [0, 4, 0, 1], "the half window is acknowledged");
    }

    proptest! {
        #[test]
        fn no_packet_is_too_strange(
            packets in proptest::collection::vec(
                (0_u8..8, proptest::collection::vec(any::<u8>(), 0..40)), 0..40)
        ) {
            let mut download = Download::with_options("x", 256);
            for (opcode, body) in packets {
                download.step(&[&[0, opcode][..], &body].concat());
                prop_assert!(download.received() <= 256);
                download.after_silence();
            }
        }

        /// Whatever is lost, doubled or late, what arrives is the file.
        #[test]
        fn a_bad_wire_cannot_change_the_file(
            length in 0_usize..400, window in 1_u64..=16, order in proptest::collection::vec(0_u64..20, 0..400)
        ) {
            let file: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let mut download = Download::with_options("x", 1000);
            steps(&mut download, &[options(&format!("blksize\x008\0windowsize\0{window}\0"))]);
            let block = |number: u64| {
                let from = ((number - 1) * 8).min(length as u64) as usize;
                data(number as u16, &file[from..(from + 8).min(length)])
            };
            let last = length as u64 / 8 + 1;
            // Any blocks near the wanted one, then the wanted one, until it is complete.
            let mut order = order.into_iter();
            loop {
                if let Some(offset) = order.next() {
                    let near = (download.next + offset).saturating_sub(10).clamp(1, last);
                    if let Step::End(_) = download.step(&block(near)) { break }
                } else if let Step::End(_) = download.step(&block(download.next)) { break }
            }
            prop_assert_eq!(download.into_data(), file);
        }
    }
}
