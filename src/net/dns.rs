//! Addresses for host names: a stub resolver for the few names that a boot needs (RFC 1035, 2181).
//!
//! Ours, because libc's reads `/etc/resolv.conf`, which does not exist yet, and says of every
//! failure the same thing. It asks for addresses of both families at once (RFC 8305 section 3) and
//! follows aliases, within one answer and from one to the next. It has no cache, no EDNS, no DNSSEC,
//! and it does not ask again later: whether that is worth while, the caller knows.

mod message;
#[cfg(test)]
mod servers;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use super::dice;
use crate::error::{Cause, Error, Result};
use crate::sys::socket::Until;
pub use message::{Answer, Family, question, read};

pub const PORT: u16 = 53;
/// All of it, whatever servers do.
const LONGEST: Duration = Duration::from_secs(20);
/// How long the second family may take after the first has addresses: a server that has the one has
/// mostly the other, and some never answer a question for the family that they do not know.
const FOR_THE_OTHER_FAMILY: Duration = Duration::from_millis(50);
/// Aliases from one answer to the next, each a question more.
const MOST_ALIASES: usize = 4;
/// How long each server may take, round by round.
const ROUNDS: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// As libc: more would make a failure last minutes.
const MOST_SERVERS: usize = 3;
const MOST_SEARCHED: usize = 6;

/// Where names are looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// With the link that a link-local one is on, as its scope.
    pub servers: Vec<SocketAddr>,
    /// Domains that are appended to short names.
    pub search: Vec<String>,
}

/// What one name came to.
enum Outcome {
    Addresses(Vec<IpAddr>),
    /// The name does not exist, or has no address.
    Nothing,
}

impl Resolver {
    /// All addresses of `host`, those of IPv6 first; never an empty list. Takes at most 20 s.
    /// Addresses and names in `hosts` (a file like `/etc/hosts`) need no server.
    pub fn look_up(&self, host: &str, hosts: &Path) -> Result<Vec<IpAddr>> {
        let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Ok(address) = literal.unwrap_or(host).parse() {
            return Ok(vec![address]);
        }
        let known = fs::read_to_string(hosts).unwrap_or_default();
        let known = find_in_hosts(&known, host);
        if !known.is_empty() {
            return Ok(known);
        }
        let doing = || format!("looking up \"{host}\"");
        if self.servers.is_empty() {
            return Err(Error::refused(doing(), "nobody named a DNS server")
                .with_hint("use an address, or have DHCP send option 6"));
        }
        let names = candidates(host, &self.search);
        if names.is_empty() {
            return Err(Error::invalid(doing(), "it is not a host name"));
        }
        let until = Instant::now() + LONGEST;
        let mut failure: Option<Error> = None;
        for name in &names {
            match self.ask_all(name, until) {
                Ok(Outcome::Addresses(addresses)) => return Ok(addresses),
                Ok(Outcome::Nothing) => {}
                // Servers that are silent for one name are for all; seven seconds are enough.
                Err(error) if matches!(error.cause(), Cause::Silence(_)) => {
                    return Err(Error::new(doing(), error));
                }
                // A server may refuse every zone but its own, and the right name comes later.
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if error.is_transient() => Err(Error::new(doing(), error)),
            _ => {
                let why = format!("{} knows no address of {}", self.names(), names.join(" or "));
                // After a power cut the name server is up before the server whose name it learns
                // by DHCP; who mistyped a name reads it in the wait.
                Err(Error::new(doing(), Cause::NotNow(why)))
            }
        }
    }

    fn servers(&self) -> impl Iterator<Item = SocketAddr> {
        self.servers.iter().copied().take(MOST_SERVERS)
    }

    fn names(&self) -> String {
        self.servers().map(shown).collect::<Vec<_>>().join(", ")
    }

    /// Asks one server after the other until one knows `name` or knows that there is no such name;
    /// the silent ones again, each time a little more patiently.
    fn ask_all(&self, name: &str, until: Instant) -> Result<Outcome> {
        let mut silent: Vec<SocketAddr> = self.servers().collect();
        let mut failure: Option<Error> = None;
        let begun = Instant::now();
        for patience in ROUNDS {
            for server in std::mem::take(&mut silent) {
                match ask(server, name, until.min(Instant::now() + patience)) {
                    Ok(outcome) => return Ok(outcome),
                    Err(Cause::Silence(_)) => silent.push(server),
                    Err(cause) => {
                        failure = Some(Error::new(format!("asking {}", shown(server)), cause));
                    }
                }
            }
        }
        // An answer, even a bad one, says more than silence.
        Err(failure
            .unwrap_or_else(|| Error::silence(format!("asking {}", self.names()), begun.elapsed())))
    }
}

/// Without the port that everybody knows.
fn shown(server: SocketAddr) -> String {
    match server {
        SocketAddr::V6(v6) if v6.port() == PORT && v6.scope_id() != 0 => {
            format!("{}%{}", v6.ip(), v6.scope_id())
        }
        _ if server.port() == PORT => server.ip().to_string(),
        _ => server.to_string(),
    }
}

/// Both addresses of one name, from one server.
fn ask(server: SocketAddr, name: &str, until: Instant) -> Result<Outcome, Cause> {
    let began = Instant::now();
    let mut name = name.to_owned();
    for _ in 0..=MOST_ALIASES {
        let answers = exchange(server, &name, until)?;
        let mut addresses = Vec::new();
        let mut alias = None;
        let mut failure = None;
        for answer in answers {
            match answer {
                Some(Answer::Addresses(found)) => addresses.extend(found),
                Some(Answer::Alias(target)) => alias = Some(target),
                Some(Answer::Nothing) => {}
                Some(Answer::Truncated) => {
                    failure = Some(Cause::Invalid("its answer has no end".into()));
                }
                Some(Answer::Failed(2)) => {
                    failure = Some(Cause::NotNow("the server failed (SERVFAIL)".into()));
                }
                Some(Answer::Failed(code)) => {
                    failure = Some(Cause::Refused(format!("DNS error {code}")));
                }
                None => failure = failure.or(Some(Cause::Silence(began.elapsed()))),
            }
        }
        // One family is enough, whatever is wrong with the other.
        match (alias, failure) {
            _ if !addresses.is_empty() => return Ok(Outcome::Addresses(addresses)),
            (Some(target), _) => name = target,
            (None, Some(cause)) => return Err(cause),
            (None, None) => return Ok(Outcome::Nothing),
        }
    }
    Err(Cause::Invalid(format!("more than {MOST_ALIASES} aliases lead from one to the next")))
}

/// A question that has been sent.
struct Asked {
    id: u16,
    family: Family,
    answer: Option<Answer>,
}

/// One question for each family to one server; the answers in the same order, IPv6 first.
fn exchange(server: SocketAddr, name: &str, until: Instant) -> Result<[Option<Answer>; 2], Cause> {
    // Sixteen bits for each question, sixteen from the kernel's choice of port: what a stranger off
    // the path would have to guess.
    let [a, b, c, d] = dice::roll().to_ne_bytes();
    let asked = |id, family| Asked { id: u16::from_be_bytes(id), family, answer: None };
    let mut asked = [asked([a, b], Family::Ipv6), asked([c, d], Family::Ipv4)];

    let anywhere: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((anywhere, 0))?;
    // The kernel drops what does not come from this address and port.
    socket.connect(server)?;
    for Asked { id, family, .. } in &asked {
        let question = question(*id, name, *family)
            .ok_or_else(|| Cause::Invalid(format!("\"{name}\" is not a host name")))?;
        socket.send(&question)?;
    }
    let mut until = until;
    let mut buffer = [0; 1232];
    while asked.iter().any(|asked| asked.answer.is_none()) {
        let rest = until.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(rest))?;
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        for Asked { id, family, answer } in asked.iter_mut().filter(|asked| asked.answer.is_none())
        {
            let Some(read) = read(bytes, *id, name, *family) else { continue };
            let read = match read {
                Answer::Truncated => ask_by_tcp(server, *id, name, *family, until)?,
                read => read,
            };
            if matches!(read, Answer::Addresses(_)) {
                until = until.min(Instant::now() + FOR_THE_OTHER_FAMILY);
            }
            *answer = Some(read);
        }
    }
    let [six, four] = asked;
    Ok([six.answer, four.answer])
}

/// For answers that do not fit a datagram.
fn ask_by_tcp(
    server: SocketAddr,
    id: u16,
    name: &str,
    family: Family,
    until: Instant,
) -> Result<Answer, Cause> {
    // What has been answered is worth a second more than what has not.
    let allowed = until.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
    let question = question(id, name, family).unwrap_or_default();
    let stream = TcpStream::connect_timeout(&server, allowed)?;
    let mut stream = Until::now_plus(&stream, allowed);
    let length = u16::try_from(question.len()).unwrap_or(u16::MAX);
    stream.write_all(&[&length.to_be_bytes(), question.as_slice()].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes)?;
    read(&bytes, id, name, family)
        .ok_or_else(|| Cause::Invalid("its answer is to another question".into()))
}

/// The names to ask for, best first: a name with a dot is probably whole.
fn candidates(host: &str, search: &[String]) -> Vec<String> {
    let is_name = |name: &String| message::is_name(name);
    if let Some(absolute) = host.strip_suffix('.') {
        return vec![absolute.to_owned()].into_iter().filter(is_name).collect();
    }
    let whole = std::iter::once(host.to_owned());
    let searched = search
        .iter()
        .take(MOST_SEARCHED)
        .map(|domain| format!("{host}.{}", domain.trim_end_matches('.')));
    let names: Vec<String> = if host.contains('.') {
        whole.chain(searched).collect()
    } else {
        searched.chain(whole).collect()
    };
    names.into_iter().filter(is_name).collect()
}

/// Addresses of `host` in the format of hosts(5).
fn find_in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
        if words.any(|name| name.eq_ignore_ascii_case(host)) && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn short_names_are_searched_first_and_whole_ones_last() {
        let search = ["a.org".to_owned(), "b.org.".to_owned()];
        let cases: [(&str, &[&str]); 6] = [
            ("ltsp-1",         &["ltsp-1.a.org", "ltsp-1.b.org", "ltsp-1"]),
            ("ltsp-1.lan",     &["ltsp-1.lan", "ltsp-1.lan.a.org", "ltsp-1.lan.b.org"]),
            ("ltsp-1.lan.",    &["ltsp-1.lan"]),
            ("",               &[]),
            ("a..b",           &[]),
            (&"x".repeat(64),  &[]),
        ];
        for (host, expected) in cases {
            assert_eq!(candidates(host, &search), expected, "{host:?}");
        }
    }

    #[test]
    fn what_needs_no_server_asks_none() {
        let folder = tempfile::tempdir().unwrap();
        let hosts = folder.path().join("hosts");
        fs::write(&hosts, "10.0.0.1 Ltsp-1 boot # comment nas\nnonsense boot\n::1 boot\n").unwrap();
        let resolver = Resolver::default();
        let look_up = |host| {
            resolver
                .look_up(host, &hosts)
                .map(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(look_up("10.0.0.7").unwrap(), "10.0.0.7");
        assert_eq!(look_up("[fe80::1]").unwrap(), "fe80::1");
        assert_eq!(look_up("ltsp-1").unwrap(), "10.0.0.1");
        assert_eq!(look_up("boot").unwrap(), "10.0.0.1 ::1");
        let error = look_up("nas").unwrap_err();
        assert_eq!(error.to_string(), "looking up \"nas\": refused: nobody named a DNS server");
        assert!(!error.is_transient());
    }

    #[test]
    fn a_closed_port_is_an_error_that_waiting_may_cure() {
        // Nothing listens on this address of the loopback.
        let resolver =
            Resolver { servers: vec![([127, 9, 9, 9], PORT).into()], search: Vec::new() };
        let error = resolver.look_up("ltsp-1", Path::new("/nonexistent")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "looking up \"ltsp-1\": asking 127.9.9.9: Connection refused"
        );
        assert!(error.is_transient());
    }
}
