//! Addresses for host names: a stub resolver for the few names that a boot needs (RFC 1035, 2181).
//!
//! Ours, because libc's reads `/etc/resolv.conf`, which does not exist yet, and says of every
//! failure the same thing. It asks for A records only and follows a CNAME within one answer, as
//! recursive servers send it. It has no cache, no EDNS, no DNSSEC, and it does not ask again later:
//! whether that is worth while, the caller knows.

mod message;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use super::dice;
use crate::error::{Cause, Error, Result};
use message::Answer;

const PORT: u16 = 53;
/// How long each server may take, round by round.
const ROUNDS: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// As libc: more would make a failure last minutes.
const MOST_SERVERS: usize = 3;
const MOST_SEARCHED: usize = 6;

/// Where names are looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    pub servers: Vec<IpAddr>,
    /// Domains that are appended to short names.
    pub search: Vec<String>,
}

/// What one name came to.
enum Outcome {
    Addresses(Vec<Ipv4Addr>),
    /// The name does not exist, or has no address.
    Nothing,
}

impl Resolver {
    /// All addresses of `host`; never an empty list. Addresses and names in `hosts` (a file like
    /// `/etc/hosts`) need no server.
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
        let mut failure: Option<Error> = None;
        for name in &names {
            match self.ask_all(name) {
                Ok(Outcome::Addresses(addresses)) => {
                    return Ok(addresses.into_iter().map(IpAddr::V4).collect());
                }
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

    fn servers(&self) -> impl Iterator<Item = IpAddr> {
        self.servers.iter().copied().take(MOST_SERVERS)
    }

    fn names(&self) -> String {
        self.servers().map(|server| server.to_string()).collect::<Vec<_>>().join(", ")
    }

    /// Asks one server after the other until one knows `name` or knows that there is no such name;
    /// the silent ones again, each time a little more patiently.
    fn ask_all(&self, name: &str) -> Result<Outcome> {
        let mut silent: Vec<IpAddr> = self.servers().collect();
        let mut failure: Option<Error> = None;
        let begun = Instant::now();
        for patience in ROUNDS {
            for server in std::mem::take(&mut silent) {
                match ask(server, name, patience) {
                    Ok(outcome) => return Ok(outcome),
                    Err(Cause::Silence(_)) => silent.push(server),
                    Err(cause) => failure = Some(Error::new(format!("asking {server}"), cause)),
                }
            }
        }
        // An answer, even a bad one, says more than silence.
        Err(failure
            .unwrap_or_else(|| Error::silence(format!("asking {}", self.names()), begun.elapsed())))
    }
}

/// One question to one server.
fn ask(server: IpAddr, name: &str, patience: Duration) -> Result<Outcome, Cause> {
    // Sixteen bits for the question, sixteen from the kernel's choice of port: what a stranger off
    // the path would have to guess.
    let [high, low, ..] = dice::roll().to_ne_bytes();
    let id = u16::from_be_bytes([high, low]);
    let question = message::question(id, name)
        .ok_or_else(|| Cause::Invalid(format!("\"{name}\" is not a host name")))?;
    let anywhere: IpAddr = match server {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((anywhere, 0))?;
    // The kernel drops what does not come from this address and port.
    socket.connect((server, PORT))?;
    socket.send(&question)?;
    let until = Instant::now() + patience;
    let mut buffer = [0; 1232];
    loop {
        let rest = until.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Err(Cause::Silence(patience));
        }
        socket.set_read_timeout(Some(rest))?;
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(Cause::Silence(patience));
            }
            Err(error) => return Err(error.into()),
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        let Some(answer) = message::read(bytes, id, name) else { continue };
        let answer = match answer {
            Answer::Truncated => ask_by_tcp(server, &question, id, name, patience)?,
            answer => answer,
        };
        return match answer {
            Answer::Addresses(addresses) => Ok(Outcome::Addresses(addresses)),
            Answer::Nothing => Ok(Outcome::Nothing),
            Answer::Truncated => Err(Cause::Invalid("its answer has no end".into())),
            Answer::Failed(2) => Err(Cause::NotNow("the server failed (SERVFAIL)".into())),
            Answer::Failed(code) => Err(Cause::Refused(format!("DNS error {code}"))),
        };
    }
}

/// For answers that do not fit a datagram.
fn ask_by_tcp(
    server: IpAddr,
    question: &[u8],
    id: u16,
    name: &str,
    patience: Duration,
) -> Result<Answer, Cause> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((server, PORT)), patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let length = u16::try_from(question.len()).unwrap_or(u16::MAX);
    stream.write_all(&[&length.to_be_bytes(), question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes)?;
    message::read(&bytes, id, name)
        .ok_or_else(|| Cause::Invalid("its answer is to another question".into()))
}

/// The names to ask for, best first: a name with a dot is probably whole.
fn candidates(host: &str, search: &[String]) -> Vec<String> {
    let is_name = |name: &String| message::question(0, name).is_some();
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
        let resolver = Resolver { servers: vec![[127, 9, 9, 9].into()], search: Vec::new() };
        let error = resolver.look_up("ltsp-1", Path::new("/nonexistent")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "looking up \"ltsp-1\": asking 127.9.9.9: Connection refused"
        );
        assert!(error.is_transient());
    }
}
