//! A TCP connection to a host that has several addresses (RFC 8305, "happy eyeballs"): IPv6 and IPv4
//! take turns, the next address is tried 250 ms after the last, and the first that answers wins.
//!
//! So a network whose IPv6 leads nowhere costs a quarter of a second, and not the patience of TCP.
//! Non-blocking sockets and one poll(2): nothing is left behind, and no thread.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};

use crate::error::{Cause, Error, Result, WhileDoing};

/// Connection Attempt Delay, RFC 8305 section 5.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(250);

/// Connects to whichever of `addresses` answers first, all within the given time. Small requests
/// leave at once (`TCP_NODELAY`).
///
/// An error names each address and what became of it; of one address, it is that address's own.
pub fn connect(addresses: &[SocketAddr], within: Duration) -> io::Result<(TcpStream, SocketAddr)> {
    let mut waiting = order(addresses).into_iter().peekable();
    let mut race = Race { running: Vec::new(), failures: Vec::new() };
    let now = Instant::now();
    let deadline = now.checked_add(within);
    let mut next_at = now;
    loop {
        if (race.running.is_empty() || Instant::now() >= next_at)
            && let Some(address) = waiting.next()
        {
            match begin(address) {
                Ok(socket) => race.running.push((address, socket)),
                // Mostly "network is unreachable": no reason to make the next one wait.
                Err(error) => {
                    race.failures.push((address, error));
                    continue;
                }
            }
            next_at = Instant::now() + BETWEEN_ATTEMPTS;
        }
        if race.running.is_empty() {
            return Err(joined(race.failures));
        }
        let next_at = waiting.peek().map(|_| next_at);
        let until = [next_at, deadline].into_iter().flatten().min();
        if let Some(winner) = race.wait(until)? {
            return Ok(winner);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let late = race.running.into_iter().map(|(address, _)| address).chain(waiting);
            race.failures.extend(late.map(|address| (address, silent(within))));
            return Err(joined(race.failures));
        }
    }
}

/// Connections on their way, and those that came to nothing.
struct Race {
    running: Vec<(SocketAddr, Socket)>,
    failures: Vec<(SocketAddr, io::Error)>,
}

impl Race {
    /// Waits for news of any connection, at most until then.
    fn wait(&mut self, until: Option<Instant>) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let sockets = self.running.iter().map(|(_, socket)| socket);
        let mut polled: Vec<_> =
            sockets.map(|socket| PollFd::new(socket, PollFlags::OUT)).collect();
        match poll(&mut polled, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let news: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut news = news.into_iter();
        for (address, socket) in std::mem::take(&mut self.running) {
            if news.next() != Some(true) {
                self.running.push((address, socket));
                continue;
            }
            match finish(socket) {
                Ok(stream) => return Ok(Some((stream, address))),
                Err(error) => self.failures.push((address, error)),
            }
        }
        Ok(None)
    }
}

fn begin(address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    match socket.connect(&address.into()) {
        Ok(()) => Ok(socket),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

fn finish(socket: Socket) -> io::Result<TcpStream> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    socket.set_nonblocking(false)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

fn silent(waited: Duration) -> io::Error {
    let words = format!("no answer for {} s", waited.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, words)
}

/// One error for all: of a kind that waiting may cure, if any of them is.
fn joined(mut failures: Vec<(SocketAddr, io::Error)>) -> io::Error {
    let may_pass = |error: &io::Error| Error::new("", io::Error::from(error.kind())).is_transient();
    let kinds = failures.iter().map(|(_, error)| error);
    let kind = kinds.clone().find(|error| may_pass(error)).or(kinds.clone().next());
    let Some(kind) = kind.map(io::Error::kind) else {
        return io::Error::new(io::ErrorKind::AddrNotAvailable, "there is no address");
    };
    if failures.len() == 1
        && let Some((_, error)) = failures.pop()
    {
        return error;
    }
    let each: Vec<_> = failures
        .into_iter()
        .map(|(address, error)| format!("{}: {}", bare(address), Cause::Os(error)))
        .collect();
    io::Error::new(kind, each.join(", "))
}

/// Without its port, which is the same for all.
fn bare(address: SocketAddr) -> String {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
        _ => address.ip().to_string(),
    }
}

/// The order in which addresses of one host are tried: those there is a route to first, IPv6 and
/// IPv4 by turns, within a family as they were given (RFC 8305 section 4, RFC 6724 rule 1).
pub fn order(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    interleaved(addresses, has_route)
}

fn interleaved(
    addresses: &[SocketAddr],
    has_route: impl Fn(SocketAddr) -> bool,
) -> Vec<SocketAddr> {
    let addresses = addresses.iter().copied();
    let (with, without): (Vec<SocketAddr>, Vec<_>) = addresses.partition(|to| has_route(*to));
    let mut all = Vec::new();
    for group in [with, without] {
        let (six, four): (Vec<SocketAddr>, Vec<_>) = group.into_iter().partition(|to| to.is_ipv6());
        let (mut six, mut four) = (six.into_iter(), four.into_iter());
        loop {
            let pair = [six.next(), four.next()];
            if pair == [None, None] {
                break;
            }
            all.extend(pair.into_iter().flatten());
        }
    }
    let mut seen = Vec::new();
    all.retain(|to| {
        !seen.contains(to) && {
            seen.push(*to);
            true
        }
    });
    all
}

/// Whether `these` addresses of a host are of another family than `those`: mostly another way to the
/// same server, where addresses of one family are other servers.
pub fn are_another_way(these: &[SocketAddr], those: &[SocketAddr]) -> bool {
    these.iter().all(|one| those.iter().all(|other| one.is_ipv6() != other.is_ipv6()))
}

/// Which of two failures of one host, each with the addresses it is of, is the one to act upon: the
/// new one (`true`) or the one that is known.
///
/// It is one that waiting may cure, because the server that is down may be the only one that has
/// what is wanted. But who said no in one family means it, even though the other family leads
/// nowhere: waiting for that one would hold up every boot behind half of an IPv6.
pub fn outweighs(new: (&[SocketAddr], &Error), known: (&[SocketAddr], &Error)) -> bool {
    let is_another_way = are_another_way(new.0, known.0);
    match (new.1.is_transient(), known.1.is_transient()) {
        (true, false) => !(is_another_way && is_unreached(new.1)),
        (false, true) => is_another_way && is_unreached(known.1),
        (true, true) | (false, false) => false,
    }
}

/// Nobody there has said anything.
fn is_unreached(error: &Error) -> bool {
    match error.cause() {
        Cause::Silence(_) => true,
        Cause::Os(error) => matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::TimedOut
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::NetworkDown
        ),
        _ => false,
    }
}

/// Whether the kernel would know where to send packets: connecting a UDP socket sends none.
fn has_route(to: SocketAddr) -> bool {
    let from: SocketAddr = match to {
        SocketAddr::V4(_) => ([0; 4], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    UdpSocket::bind(from).and_then(|socket| socket.connect(to)).is_ok()
}

/// An address that somebody typed. One of a link alone (`fe80::1%eth0`) says which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Literal {
    pub address: IpAddr,
    /// Name or number.
    pub link: Option<String>,
}

impl Literal {
    /// Where to connect to. Fails when there is no such link, or none is named and one must be.
    pub fn at(&self, port: u16) -> Result<SocketAddr> {
        let IpAddr::V6(address) = self.address else {
            return Ok(SocketAddr::new(self.address, port));
        };
        let doing = || format!("finding the link of {self}");
        let scope = match &self.link {
            Some(link) => match link.parse() {
                Ok(number) => number,
                Err(_) => index_of(link).while_doing(doing)?,
            },
            None if address.is_unicast_link_local() => {
                let error = Error::refused(doing(), "such an address is another on each link");
                return Err(error.with_hint(format!("write {address}%LINK, as {address}%eth0")));
            }
            None => 0,
        };
        Ok(SocketAddrV6::new(address, port, 0, scope).into())
    }
}

fn index_of(link: &str) -> io::Result<u32> {
    let kind = Type::DGRAM.cloexec();
    let socket = Socket::new(Domain::UNIX, kind, None)?;
    Ok(rustix::net::netdevice::name_to_index(&socket, link)?)
}

/// Reads `10.0.0.1`, `fd00::1`, `[fd00::1]`, `fe80::1%eth0`, and with `%25` for `%` as URLs have it
/// (RFC 6874).
impl FromStr for Literal {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let (address, link) = match bracketed.unwrap_or(text).split_once('%') {
            Some((address, link)) => {
                let link = link.strip_prefix("25").filter(|rest| !rest.is_empty()).unwrap_or(link);
                (address, Some(link.to_owned()))
            }
            None => (bracketed.unwrap_or(text), None),
        };
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let needs_six = bracketed.is_some() || link.is_some();
        let is_fine = link.as_deref().is_none_or(is_link_name);
        if (needs_six && address.is_ipv4()) || !is_fine {
            return Err(());
        }
        Ok(Self { address, link })
    }
}

/// As dev_valid_name() of the kernel, without what would confuse in an address.
fn is_link_name(name: &str) -> bool {
    (1..16).contains(&name.len())
        && ![".", ".."].contains(&name)
        && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:%[]?#@".contains(&byte))
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.link {
            Some(link) => write!(f, "{}%{link}", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

impl From<IpAddr> for Literal {
    fn from(address: IpAddr) -> Self {
        Self { address, link: None }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn all(text: &str) -> Vec<SocketAddr> {
        text.split_ascii_whitespace()
            .map(|word| word.parse::<Literal>().unwrap().at(9).unwrap())
            .collect()
    }

    #[test]
    #[rustfmt::skip]
    fn families_take_turns_and_dead_ends_come_last() {
        let cases = [
            // given                                    without a route   tried
            ("10.0.0.1",                                "",               "10.0.0.1"),
            ("10.0.0.1 fd00::1",                        "",               "fd00::1 10.0.0.1"),
            ("10.0.0.1 10.0.0.2 fd00::1 fd00::2",       "",               "fd00::1 10.0.0.1 fd00::2 10.0.0.2"),
            ("10.0.0.1 10.0.0.2 10.0.0.3 fd00::1",      "",               "fd00::1 10.0.0.1 10.0.0.2 10.0.0.3"),
            ("10.0.0.1 fd00::1 fd00::2",                "fd00::1 fd00::2", "10.0.0.1 fd00::1 fd00::2"),
            ("10.0.0.1 fd00::1 fd00::2",                "fd00::1",        "fd00::2 10.0.0.1 fd00::1"),
            ("10.0.0.1 10.0.0.1",                       "",               "10.0.0.1"),
            ("",                                        "",               ""),
        ];
        for (given, dead, expected) in cases {
            let dead = all(dead);
            let got = interleaved(&all(given), |to| !dead.contains(&to));
            assert_eq!(got, all(expected), "{given} without {dead:?}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_no_counts_more_than_a_way_that_leads_nowhere() {
        let silent = || Error::silence("asking", Duration::from_secs(2));
        let refused = || Error::new("asking", io::Error::from(io::ErrorKind::ConnectionRefused));
        let busy = || Error::new("asking", Cause::NotNow("starting".to_owned()));
        let no = || Error::refused("asking", "no such export");
        let cases = [
            // known,       new,                        is the new one acted upon?
            ("fd00::1",     silent(),   "10.0.0.1", no(),       true),
            ("fd00::1",     refused(),  "10.0.0.1", no(),       true),  // it listens for IPv4 alone
            ("10.0.0.1",    no(),       "fd00::1",  silent(),   false),
            ("10.0.0.1",    no(),       "fd00::1",  busy(),     true),  // somebody is there
            ("fd00::1",     busy(),     "10.0.0.1", no(),       false),
            ("10.0.0.1",    no(),       "10.0.0.2", silent(),   true),  // another server, that is down
            ("10.0.0.2",    silent(),   "10.0.0.1", no(),       false),
            ("10.0.0.1",    no(),       "fd00::1 10.0.0.2", silent(), true),
            ("10.0.0.1",    silent(),   "fd00::1",  silent(),   false), // the first
            ("10.0.0.1",    no(),       "fd00::1",  no(),       false),
        ];
        for (known, old, at, new, expected) in cases {
            let got = outweighs((&all(at), &new), (&all(known), &old));
            assert_eq!(got, expected, "{known}: {old}; {at}: {new}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn literals_are_read_as_people_and_urls_write_them() {
        let cases = [
            ("10.0.0.1",          Some("10.0.0.1")),
            ("fd00::1",           Some("fd00::1")),
            ("[fd00::1]",         Some("fd00::1")),
            ("fe80::1%eth0",      Some("fe80::1%eth0")),
            ("[fe80::1%25eth0]",  Some("fe80::1%eth0")),
            ("[fe80::1%25]",      Some("fe80::1%25")), // the link with this number
            ("fe80::1%eth0.7",    Some("fe80::1%eth0.7")),
            ("[10.0.0.1]",        None),
            ("10.0.0.1%eth0",     None),
            ("fe80::1%",          None),
            ("fe80::1%../../x",   None),
            ("fe80::1%a-name-of-17-chars", None),
            ("boot",              None),
            ("",                  None),
        ];
        for (text, expected) in cases {
            let got = text.parse::<Literal>().ok().map(|literal| literal.to_string());
            assert_eq!(got.as_deref(), expected, "{text:?}");
        }
        let at = |text: &str| text.parse::<Literal>().unwrap().at(80);
        let on_loopback = at("fe80::1%lo").unwrap();
        assert!(matches!(on_loopback, SocketAddr::V6(v6) if v6.scope_id() == 1), "{on_loopback}");
        assert_eq!(at("fe80::1%7").unwrap().to_string(), "[fe80::1%7]:80");
        assert_eq!(at("fe80::1").unwrap_err().hint(), Some("write fe80::1%LINK, as fe80::1%eth0"));
        let unknown = at("fe80::1%nowhere").unwrap_err().to_string();
        assert_eq!(unknown, "finding the link of fe80::1%nowhere: No such device");
    }

    fn listener() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    #[test]
    fn the_first_that_answers_wins() {
        let (_listener, port) = listener();
        let at = |address: &str| SocketAddr::new(address.parse().unwrap(), port);
        // Nobody listens at the second, nor, on port 0, anywhere else.
        let began = Instant::now();
        let (stream, address) =
            connect(&[at("127.9.9.9"), at("127.0.0.1")], Duration::from_secs(5)).unwrap();
        assert_eq!(address, at("127.0.0.1"));
        assert_eq!(stream.peer_addr().unwrap(), address);
        assert!(began.elapsed() < BETWEEN_ATTEMPTS, "a refusal needs no patience");
        assert!(stream.nodelay().unwrap());
    }

    /// A listener whose queue is full: the kernel drops what knocks.
    fn silent_listener() -> (Vec<Socket>, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let knocking = (0..4).map(|_| begin(address).unwrap());
        let all: Vec<_> = knocking.chain([socket]).collect();
        std::thread::sleep(Duration::from_millis(20));
        (all, address)
    }

    #[test]
    fn a_silent_address_costs_a_quarter_of_a_second() {
        let (_full, silent) = silent_listener();
        let (_listener, port) = listener();
        let answers = SocketAddr::from(([127, 0, 0, 1], port));
        let began = Instant::now();
        let (_, address) = connect(&[silent, answers], Duration::from_secs(5)).unwrap();
        assert_eq!(address, answers);
        assert!((240..600).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    }

    #[test]
    fn an_error_names_each_address() {
        let (_full, silent) = silent_listener();
        let refused = SocketAddr::from(([127, 9, 9, 9], silent.port()));
        let began = Instant::now();
        let error = connect(&[silent, refused], Duration::from_secs(1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "127.9.9.9: Connection refused, 127.0.0.1: no answer for 1 s"
        );
        assert!(began.elapsed() < Duration::from_millis(1500));
        assert!(Error::new("", error).is_transient());

        let error = connect(&[refused], Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED), "its own, if it is one");
        assert_eq!(connect(&[], Duration::ZERO).unwrap_err().to_string(), "there is no address");
    }
}
