//! TCP connections to the server of the root image, and what is asked of them.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};

/// Makes a dead peer show itself: after `timeout` without a byte, reading and writing fail.
pub fn expect_answers_within(stream: &TcpStream, timeout: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))
}

/// Prepares a connection that the kernel will own, for as long a `patience` as TCP can have.
///
/// The kernel obeys `SO_RCVTIMEO` too and would take an idle minute for a broken link, so both
/// timeouts go. Probes of an idle connection keep address translation on the way alive.
pub fn make_patient(stream: &TcpStream, patience: Duration) -> io::Result<()> {
    const PROBE_AFTER: Duration = Duration::from_secs(60);
    const PROBE_EVERY: Duration = Duration::from_secs(30);
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY);
    socket.set_tcp_keepalive(&probes)?;
    // Overrides the number of unanswered probes and of retransmissions alike (tcp(7)).
    socket.set_tcp_user_timeout(Some(patience))
}

/// A stream that must have said everything by a deadline, however slowly it drips.
pub struct Until<'a> {
    stream: &'a TcpStream,
    since: Instant,
    allowed: Duration,
}

impl<'a> Until<'a> {
    pub fn now_plus(stream: &'a TcpStream, allowed: Duration) -> Self {
        Self { stream, since: Instant::now(), allowed }
    }

    fn left(&self) -> io::Result<Duration> {
        // A timeout of zero would mean none at all.
        self.allowed
            .checked_sub(self.since.elapsed())
            .filter(|left| *left > Duration::from_millis(1))
            .ok_or_else(|| silent(self.allowed))
    }
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer).map_err(|error| named(error, self.allowed))
    }
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(bytes).map_err(|error| named(error, self.allowed))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A timeout of a socket is EAGAIN, "Resource temporarily unavailable": true of nothing here.
pub fn named(error: io::Error, timeout: Duration) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { silent(timeout) } else { error }
}

fn silent(timeout: Duration) -> io::Error {
    let words = format!("no answer for {} s", timeout.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, words)
}
