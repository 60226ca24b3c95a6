//! Addresses for host names: a stub resolver for the few names that a boot needs (RFC 1035, 2181).
//!
//! Ours, because libc's reads `/etc/resolv.conf`, which does not exist yet, and says of every
//! failure the same thing. It asks for addresses of both families at once (RFC 8305 section 3) and
//! follows aliases, within one answer and from one to the next. It has no cache, no EDNS, no DNSSEC,
//! and it does not ask again later: whether that is worth while, the caller knows.

mod exchange;
mod message;
#[cfg(test)]
mod servers;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Cause, Error, Result};
use exchange::Outcome;
pub use message::{Answer, Family, question, read};

pub const PORT: u16 = 53;
/// All of it, whatever servers do.
const LONGEST: Duration = Duration::from_secs(20);
/// How long a server may be silent: the first time in a lookup, the second, the third.
const PATIENCE: [Duration; 3] =
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
        let mut servers = Servers::of(&self.servers);
        let mut reasons = Reasons::default();
        for name in &names {
            match servers.ask(name, until) {
                Ok((_, Outcome::Addresses(addresses))) => return Ok(addresses),
                Ok((server, Outcome::Nothing)) => reasons.nothing(server, name),
                // A server may refuse every zone but its own, and the right name comes later.
                Err(errors) => errors.into_iter().for_each(|error| reasons.failed(name, error)),
            }
            if servers.are_all_silent() {
                break;
            }
        }
        Err(reasons.into_error(doing()))
    }
}

/// The servers of one lookup.
struct Servers(Vec<Server>);

struct Server {
    address: SocketAddr,
    /// How often it has been so in this lookup.
    silences: usize,
    /// To the question for the name of which there is talk.
    has_failed: bool,
}

impl Servers {
    fn of(addresses: &[SocketAddr]) -> Self {
        let servers = addresses.iter().take(MOST_SERVERS);
        let server =
            |address: &SocketAddr| Server { address: *address, silences: 0, has_failed: false };
        Self(servers.map(server).collect())
    }

    /// Who is to be asked next, and how long that may take: who has been silent for this name or for
    /// one before it comes last, so that a dead server does not cost its second for each of seven
    /// names; and is asked a little more patiently.
    fn next(&mut self) -> Option<(&mut Server, Duration)> {
        let open = self.0.iter_mut().filter(|server| !server.has_failed);
        let server = open.min_by_key(|server| server.silences)?;
        let patience = *PATIENCE.get(server.silences)?;
        Some((server, patience))
    }

    /// Asks one server after the other until one knows `name`, or knows that there is no such name.
    /// The reasons of all that answer otherwise; an answer, even a bad one, says more than silence.
    fn ask(&mut self, name: &str, until: Instant) -> Result<(SocketAddr, Outcome), Vec<Error>> {
        let began = Instant::now();
        let mut errors = Vec::new();
        self.0.iter_mut().for_each(|server| server.has_failed = false);
        while let Some((server, patience)) = self.next() {
            let address = server.address;
            match exchange::ask(address, name, until.min(Instant::now() + patience)) {
                Ok(outcome) => return Ok((address, outcome)),
                Err(Cause::Silence(_)) => server.silences = server.silences.saturating_add(1),
                Err(cause) => {
                    server.has_failed = true;
                    errors.push(Error::new(format!("asking {}", shown(address)), cause));
                }
            }
        }
        if errors.is_empty() {
            let all: Vec<_> = self.0.iter().map(|server| shown(server.address)).collect();
            let doing = format!("asking {}", all.join(", "));
            errors.push(Error::silence(doing, began.elapsed()));
        }
        Err(errors)
    }

    fn are_all_silent(&self) -> bool {
        self.0.iter().all(|server| server.silences >= PATIENCE.len())
    }
}

/// Why a lookup came to nothing.
#[derive(Default)]
struct Reasons {
    /// Names that have no address, as these servers say.
    nothing: Vec<String>,
    says: Vec<String>,
    /// Each with the names of which it was said.
    failures: Vec<(Error, Vec<String>)>,
}

impl Reasons {
    fn nothing(&mut self, server: SocketAddr, name: &str) {
        let server = shown(server);
        if !self.says.contains(&server) {
            self.says.push(server);
        }
        self.nothing.push(name.to_owned());
    }

    fn failed(&mut self, name: &str, error: Error) {
        let words = error.to_string();
        match self.failures.iter_mut().find(|(known, _)| known.to_string() == words) {
            Some((_, names)) => names.push(name.to_owned()),
            None => self.failures.push((error, vec![name.to_owned()])),
        }
    }

    fn into_error(mut self, doing: String) -> Error {
        if self.nothing.is_empty()
            && self.failures.len() == 1
            && let Some((error, _)) = self.failures.pop_if(|(error, _)| error.is_transient())
        {
            return Error::new(doing, error);
        }
        let mut sentences = Vec::new();
        if !self.nothing.is_empty() {
            let (servers, names) = (self.says.join(", "), self.nothing.join(" or "));
            sentences.push(format!("{servers} knows no address of {names}"));
        }
        let is_of_all = self.nothing.is_empty() && self.failures.len() == 1;
        for (error, names) in self.failures {
            sentences.push(match is_of_all {
                true => error.to_string(),
                false => format!("{error} (for {})", names.join(" or ")),
            });
        }
        // After a power cut the name server is up before the server whose name it learns by DHCP, and
        // before the servers that it asks itself; who mistyped a name reads it in the wait.
        Error::new(doing, Cause::NotNow(sentences.join("; ")))
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
    #[rustfmt::skip]
    fn a_failure_says_who_said_what() {
        let servers: [SocketAddr; 2] = [([10, 0, 0, 1], PORT).into(), ([10, 0, 0, 2], PORT).into()];
        let refused = |server: usize| Error::refused(format!("asking {}", shown(servers[server])), "by its rules");
        let failed = |server: usize| Error::new(format!("asking {}", shown(servers[server])), Cause::NotNow("SERVFAIL".to_owned()));
        let silent = || Error::silence("asking 10.0.0.1, 10.0.0.2", Duration::from_secs(7));
        type Said = Result<usize, Vec<Error>>;
        let cases: [(Vec<Said>, &str); 7] = [
            (vec![Ok(0)],                           "not now: 10.0.0.1 knows no address of a"),
            (vec![Ok(0), Ok(0)],                    "not now: 10.0.0.1 knows no address of a or b"),
            (vec![Ok(0), Ok(1)],                    "not now: 10.0.0.1, 10.0.0.2 knows no address of a or b"),
            (vec![Err(vec![refused(0)]), Err(vec![refused(0)])],
                                                    "not now: asking 10.0.0.1: refused: by its rules"),
            // Its own zone, and one that it is not asked for.
            (vec![Ok(0), Err(vec![refused(0)])],    "not now: 10.0.0.1 knows no address of a; asking 10.0.0.1: refused: by its rules (for b)"),
            (vec![Err(vec![refused(0), failed(1)])],
                "not now: asking 10.0.0.1: refused: by its rules (for a); asking 10.0.0.2: not now: SERVFAIL (for a)"),
            (vec![Err(vec![silent()])],             "asking 10.0.0.1, 10.0.0.2: no answer for 7.0 s"),
        ];
        for (said, expected) in cases {
            let mut reasons = Reasons::default();
            for (said, name) in said.into_iter().zip(["a", "b"]) {
                match said {
                    Ok(server) => reasons.nothing(servers[server], name),
                    Err(errors) => errors.into_iter().for_each(|error| reasons.failed(name, error)),
                }
            }
            let error = reasons.into_error("looking up \"a\"".to_owned());
            assert_eq!(error.to_string(), format!("looking up \"a\": {expected}"));
            assert!(error.is_transient(), "{error}");
        }
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
