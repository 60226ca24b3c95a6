//! Finding the server of the root image, for as long as it takes.
//!
//! After a power cut a room full of clients is up minutes before its server. Whatever waiting can
//! cure is retried for ever, visibly; a refusal ends it at once, with the server's own words.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::nbd::client::{CONNECTING, Connection, Peer};
use super::plan::NbdExport;
use crate::console;
use crate::error::{Error, Result};
use crate::net::dial::{self, Literal};

/// Turns a host name into addresses.
pub type Resolve<'a> = &'a dyn Fn(&str) -> Result<Vec<IpAddr>>;

/// One server of an image, by an address: whoever has this needs no resolver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub peer: Peer,
    /// What the image may be called there.
    pub names: Vec<String>,
}

/// All addresses of all servers, in the order in which this node prefers them, and that of `first`
/// before the others of its server.
///
/// A name that cannot be looked up is left out with a warning; where nobody answers such questions,
/// the others are not asked, for the boot does not need them.
pub fn sources(first: &Connection, exports: &[NbdExport], resolve: Resolve<'_>) -> Vec<Source> {
    /// Each is asked when a server is lost, in a thread of its own.
    const MOST: usize = 16;
    let mut has_resolver = true;
    let mut found = Vec::new();
    for export in exports {
        let host = Host::of(export);
        let looked_up = match &host.literal {
            Some(literal) => literal.at(export.port).map(|address| vec![(address, None)]),
            None if !has_resolver => Err(Error::refused(
                format!("looking for {}", host.name),
                "nobody answers such questions at the moment",
            )),
            None => resolve(host.name).map(|found| {
                let at = |ip| (SocketAddr::new(ip, export.port), Some(host.name.to_owned()));
                found.into_iter().map(at).collect()
            }),
        };
        match looked_up {
            Ok(addresses) => found.extend(addresses.into_iter().map(|(address, name)| {
                let peer = Peer { address, name };
                Source { peer, names: export.names.clone() }
            })),
            Err(error) => {
                has_resolver &= !error.is_transient();
                log::warn!(target: "root", "{error}; {host} is no mirror of this boot");
            }
        }
    }
    let used = Source { peer: first.peer().clone(), names: vec![first.export().name.clone()] };
    in_order(&used, &found, MOST)
}

/// At most so many of `found`, without what is in it twice, and with `used` before the other
/// addresses of its server; before everything if its server is not among them.
fn in_order(used: &Source, found: &[Source], most: usize) -> Vec<Source> {
    let is_one = |one: &Source, other: &Source| {
        one.peer.address == other.peer.address
            && one.names.iter().any(|name| other.names.contains(name))
    };
    let place = found
        .iter()
        .position(|source| is_one(source, used) || source.peer.is_of_the_server_of(&used.peer));
    let place = place.unwrap_or(0).min(most.saturating_sub(1));
    let (before, after) = found.split_at(place.min(found.len()));
    let mut sources: Vec<Source> = Vec::new();
    for source in before.iter().chain([used]).chain(after) {
        if !sources.iter().any(|known| is_one(known, source)) {
            sources.push(source.clone());
        }
    }
    sources.truncate(most);
    sources
}

/// Connects to the first of these servers, and there to the first address, that agrees on one of
/// its export's names.
///
/// Names are resolved again for every round, because their records may be what is missing yet.
/// Fails only where none of them has a reason that waiting may cure; a server that refuses while
/// there are others is left out with a warning.
pub fn connect(exports: &[NbdExport], resolve: Resolve<'_>) -> Result<Connection> {
    /// What a server gets in the first round before the next one is asked; twice as long in each
    /// round after it.
    const FIRST_PATIENCE: Duration = Duration::from_secs(2);
    const MOST_PATIENCE: Duration = Duration::from_secs(60);
    let mut candidates: Vec<_> = exports.iter().map(|export| (export, Host::of(export))).collect();
    let whom: Vec<_> = candidates.iter().map(|(_, host)| host.to_string()).collect();
    let waiting = console::waiting("root", format!("{} to answer", whom.join(" or ")));
    let started = Instant::now();
    let mut backoff = Backoff::new();
    let mut patience = if exports.len() > 1 { FIRST_PATIENCE } else { Duration::MAX };
    loop {
        let mut troubles = Vec::new();
        let mut refusals = Vec::new();
        for (export, host) in &candidates {
            match try_once(export, host, resolve, patience) {
                Ok(connection) => {
                    if started.elapsed() > Duration::from_secs(2) {
                        let seconds = started.elapsed().as_secs_f32();
                        let peer = connection.peer();
                        log::info!(target: "root", "{peer} answers after {seconds:.0} s");
                    }
                    return Ok(connection);
                }
                Err(error) if error.is_transient() => {
                    troubles.push(format!("{host}: {}", error.cause()));
                    log::debug!(target: "root", "{error}");
                }
                Err(error) => refusals.push((host.to_string(), error)),
            }
        }
        if troubles.is_empty() {
            // The first is the one that this node should have got its image from.
            let first = refusals.into_iter().next().map(|(_, error)| error);
            return Err(first.unwrap_or_else(|| {
                Error::refused("looking for the root", "no server of it is known")
            }));
        }
        for (refusing, error) in refusals {
            log::warn!(target: "root", "{error}; asking the other servers only");
            candidates.retain(|(_, host)| host.to_string() != refusing);
        }
        waiting.still(troubles.join("; "));
        thread::sleep(backoff.next());
        patience = patience.saturating_mul(2);
        if patience > MOST_PATIENCE {
            patience = Duration::MAX;
        }
    }
}

/// [`connect`] that gives up after `patience`, and whose connection has the rest of it for what is
/// asked through it. Looking up a name has bounds of its own.
pub fn connect_within(
    export: &NbdExport,
    resolve: Resolve<'_>,
    patience: Duration,
) -> Result<Connection> {
    let host = Host::of(export);
    let _waiting = console::waiting("swap", format!("{host} to answer"));
    let started = Instant::now();
    let left = || patience.saturating_sub(started.elapsed());
    let mut backoff = Backoff::new();
    loop {
        match try_once(export, &host, resolve, left()) {
            Err(error) if error.is_transient() => {
                let pause = backoff.next();
                if pause >= left() {
                    return Err(error);
                }
                thread::sleep(pause);
            }
            result => return result,
        }
    }
}

/// Where to look, as people say it.
struct Host<'a> {
    name: &'a str,
    literal: Option<Literal>,
    port: u16,
}

impl<'a> Host<'a> {
    fn of(export: &'a NbdExport) -> Self {
        let name = export.host.trim_start_matches('[').trim_end_matches(']');
        Self { name, literal: name.parse().ok(), port: export.port }
    }
}

impl std::fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.literal {
            Some(literal) if literal.address.is_ipv6() => write!(f, "[{literal}]:{}", self.port),
            Some(literal) => write!(f, "{literal}:{}", self.port),
            None => write!(f, "{}:{}", self.name, self.port),
        }
    }
}

fn try_once(
    export: &NbdExport,
    host: &Host<'_>,
    resolve: Resolve<'_>,
    patience: Duration,
) -> Result<Connection> {
    /// A name with more addresses than this is not a boot server's.
    const MOST_ADDRESSES: usize = 16;
    /// For addresses of one family when a server has answered in the other: it is mostly the same
    /// server, and if not, it is as near.
    const ANOTHER_WAY: Duration = Duration::from_secs(1);
    let (mut addresses, name) = match &host.literal {
        Some(literal) => (vec![literal.at(host.port)?], None),
        None => {
            let found = resolve(host.name)?.into_iter();
            let found: Vec<_> = found.map(|address| SocketAddr::new(address, host.port)).collect();
            // In this order, or many addresses of one family would leave none of the other.
            let best = dial::order(&found).into_iter().take(MOST_ADDRESSES).collect();
            (best, Some(host.name.to_owned()))
        }
    };
    let started = Instant::now();
    let left = || patience.saturating_sub(started.elapsed());
    let mut reason: Option<(Vec<SocketAddr>, Error)> = None;
    let keep =
        |reason: &mut Option<(Vec<SocketAddr>, Error)>, at: Vec<SocketAddr>, error| match reason {
            Some(known) if !dial::outweighs((&at, &error), (&known.0, &known.1)) => {
                log::debug!(target: "root", "{error}");
            }
            reason => *reason = Some((at, error)),
        };
    // Whoever answers first, until one of them has the image.
    while !addresses.is_empty() {
        let connecting = || match addresses.as_slice() {
            [address] => {
                format!("connecting to {}", Peer { address: *address, name: name.clone() })
            }
            _ => format!("connecting to {host}"),
        };
        let within = match &reason {
            Some((at, _)) if dial::are_another_way(&addresses, at) => ANOTHER_WAY,
            _ => CONNECTING,
        };
        let (stream, address) = match dial::connect(&addresses, left().min(within)) {
            Ok(connected) => connected,
            Err(error) => {
                let error = Error::new(connecting(), error);
                keep(&mut reason, addresses, error);
                break;
            }
        };
        let peer = Peer { address, name: name.clone() };
        match Connection::over(stream, &peer, &export.names, left()) {
            Ok(connection) => return Ok(connection),
            Err(error) => keep(&mut reason, vec![address], error),
        }
        addresses.retain(|other| *other != address);
    }
    Err(reason.map(|(_, error)| error).unwrap_or_else(|| {
        Error::refused(format!("looking for {}", host.name), "the name has no address")
    }))
}

/// Pauses between tries: 0.2 s, doubling to 5 s if nothing else is said, each shortened by up to a
/// quarter so that clients that lost their server together do not come back together.
#[derive(Debug)]
pub struct Backoff {
    pause: Duration,
    longest: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(5);

    pub fn new() -> Self {
        Self::up_to(Self::LONGEST)
    }

    /// The same with another longest pause.
    pub fn up_to(longest: Duration) -> Self {
        Self::between(Self::FIRST, longest)
    }

    /// The same with other pauses.
    pub fn between(first: Duration, longest: Duration) -> Self {
        Self { pause: first, longest }
    }

    pub fn next(&mut self) -> Duration {
        self.next_shortened_by(dice())
    }

    fn next_shortened_by(&mut self, dice: u8) -> Duration {
        let pause = self.pause;
        self.pause = pause.saturating_mul(2).min(self.longest);
        pause.saturating_sub(pause / 4 * u32::from(dice) / 255)
    }
}

/// Another part of it each time, from nothing to all.
pub fn a_part_of(time: Duration) -> Duration {
    time * u32::from(dice()) / 255
}

fn dice() -> u8 {
    let mut dice = [0; 1];
    // Without randomness everybody waits as long, which is no reason to fail.
    let _ = rustix::rand::getrandom(&mut dice, rustix::rand::GetRandomFlags::NONBLOCK);
    dice[0]
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

    use super::*;
    use crate::root::probe::ReadAt;

    #[test]
    fn pauses_double_up_to_five_seconds() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..7).map(|_| backoff.next_shortened_by(0).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(Backoff::new().next_shortened_by(255).as_millis(), 150);
    }

    fn export(host: &str, port: u16) -> NbdExport {
        NbdExport { host: host.into(), port, names: vec!["img".into()], origin: "test".into() }
    }

    /// Serves one connection of the oldest newstyle, whose export is `size` bytes of 0x5a.
    fn serve_once(listener: TcpListener, size: u64) -> thread::JoinHandle<()> {
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"NBDMAGICIHAVEOPT\0\x02").unwrap();
            let mut asked = [0; 4 + 16 + 3];
            stream.read_exact(&mut asked).unwrap();
            assert_eq!(asked, *b"\0\0\0\x02IHAVEOPT\0\0\0\x01\0\0\0\x03img");
            stream.write_all(&[&size.to_be_bytes()[..], &[0, 3]].concat()).unwrap();
            let mut request = [0; 28];
            const DISCONNECT: u8 = 2;
            while stream.read_exact(&mut request).is_ok() && request[7] != DISCONNECT {
                let length = u32::from_be_bytes(*request.last_chunk().unwrap());
                stream.write_all(b"\x67\x44\x66\x98\0\0\0\0").unwrap();
                stream.write_all(&request[8..16]).unwrap();
                stream.write_all(&vec![0x5a; length as usize]).unwrap();
            }
        })
    }

    #[test]
    fn a_name_is_resolved_until_its_server_is_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let tries = Cell::new(0);
        let resolve = |name: &str| {
            assert_eq!(name, "ltsp-1");
            tries.set(tries.get() + 1);
            match tries.get() {
                1 => Err(Error::silence("asking for ltsp-1", Duration::from_secs(1))),
                // Nobody listens there.
                2 => Ok(vec![Ipv4Addr::new(127, 0, 0, 9).into()]),
                _ => Ok(vec![Ipv4Addr::new(127, 0, 0, 9).into(), Ipv4Addr::LOCALHOST.into()]),
            }
        };
        let server = serve_once(listener, 100_000);
        let mut connection = connect(&[export("ltsp-1", port)], &resolve).unwrap();
        assert_eq!(connection.peer().to_string(), format!("ltsp-1 (127.0.0.1:{port})"));
        assert_eq!(tries.get(), 3);
        let mut bytes = vec![0; 70_001];
        connection.read_at(29_999, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0x5a));
        let beyond = connection.read_at(99_999, &mut bytes).unwrap_err();
        assert!(beyond.to_string().ends_with("it is beyond the end"), "{beyond}");
        connection.disconnect();
        server.join().unwrap();
    }

    /// Of the documentation prefix: there is no way to them, or nobody at its end.
    fn nowhere(count: u16) -> impl Iterator<Item = IpAddr> {
        (1..=count).map(|last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into())
    }

    #[test]
    fn many_addresses_of_one_family_do_not_hide_the_other() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = serve_once(listener, 100);
        let resolve =
            |_: &str| Ok(nowhere(20).chain([Ipv4Addr::LOCALHOST.into()]).collect::<Vec<_>>());
        connect(&[export("ltsp-1", port)], &resolve).unwrap().disconnect();
        server.join().unwrap();
    }

    /// A swap area that no server has would otherwise cost all the patience there is for it.
    #[test]
    fn a_server_that_says_no_is_believed_though_ipv6_leads_nowhere() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (count, connections) = std::sync::mpsc::channel();
        let server = thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                // The oldest newstyle, whose no is to hang up.
                stream.write_all(b"NBDMAGICIHAVEOPT\0\x02").unwrap();
                let _ = stream.read_exact(&mut [0; 4 + 16 + 3]);
                if count.send(()).is_err() {
                    return;
                }
            }
        });
        let resolve =
            |_: &str| Ok(nowhere(1).chain([Ipv4Addr::LOCALHOST.into()]).collect::<Vec<_>>());
        let error = connect_within(&export("ltsp-1", port), &resolve, Duration::from_secs(60))
            .map(drop)
            .unwrap_err();
        assert!(error.to_string().contains("is unknown"), "{error}");
        assert_eq!(connections.try_iter().count(), 1, "asked once");
        drop(connections);
        let _ = std::net::TcpStream::connect(("127.0.0.1", port));
        let _ = server.join();
    }

    #[test]
    fn another_server_is_asked_when_one_is_not_there_or_says_no() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = serve_once(listener, 100);
        let resolve = |name: &str| match name {
            "unknown" => Err(Error::refused("asking for unknown", "no such name")),
            // Nobody listens there.
            "dead" => Ok(vec![Ipv4Addr::new(127, 0, 0, 9).into()]),
            _ => Ok(vec![Ipv4Addr::LOCALHOST.into()]),
        };
        let exports = [export("unknown", port), export("dead", port), export("ltsp-1", port)];
        let connection = connect(&exports, &resolve).unwrap();
        assert_eq!(connection.peer().name.as_deref(), Some("ltsp-1"));
        connection.disconnect();
        server.join().unwrap();
        let error = connect(&exports[..1], &resolve).map(drop).unwrap_err();
        assert!(error.to_string().contains("no such name"), "{error}");
    }

    #[test]
    #[rustfmt::skip]
    fn a_node_keeps_its_order_of_servers_whichever_of_them_it_began_with() {
        let source = |(name, last): (&str, u8)| Source {
            peer: Peer {
                address: SocketAddr::from(([10, 0, 0, last], 10809)),
                name: (!name.is_empty()).then(|| name.to_owned()),
            },
            names: vec!["img".into()],
        };
        type Named = (&'static str, u8);
        let cases: [(Named, &[Named], &[u8]); 7] = [
            (("", 1),  &[("", 1), ("", 2)],                          &[1, 2]),
            (("", 2),  &[("", 1), ("", 2)],                          &[1, 2]),
            (("b", 4), &[("a", 1), ("a", 2), ("b", 3), ("b", 4)],    &[1, 2, 4, 3]),
            (("b", 9), &[("a", 1), ("b", 3)],                        &[1, 9, 3]), // its record has changed
            (("c", 9), &[("a", 1), ("b", 3)],                        &[9, 1, 3]),
            (("", 5),  &[],                                          &[5]),
            (("", 9),  &[("", 1), ("", 2), ("", 3), ("", 4), ("", 9)], &[1, 2, 3, 9]), // too many
        ];
        for (used, found, expected) in cases {
            let found: Vec<_> = found.iter().copied().map(source).collect();
            let got = in_order(&source(used), &found, 4);
            let got: Vec<u8> = got.iter().map(|source| match source.peer.address.ip() {
                IpAddr::V4(address) => address.octets()[3],
                IpAddr::V6(_) => 0,
            }).collect();
            assert_eq!(got, expected, "began with {used:?}");
        }
    }

    #[test]
    fn literal_addresses_of_ipv6_need_no_resolver() {
        let nobody = |name: &str| -> Result<Vec<IpAddr>> { panic!("asking for {name}") };
        for host in ["::1", "[::1]", "::1%lo", "[::1%25lo]"] {
            let listener = TcpListener::bind("[::1]:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = serve_once(listener, 100);
            let connection = connect(&[export(host, port)], &nobody).unwrap();
            assert!(connection.peer().to_string().starts_with("[::1"), "{host}");
            connection.disconnect();
            server.join().unwrap();
        }
    }

    #[test]
    fn all_addresses_are_named_when_none_answers() {
        let port = TcpListener::bind("127.0.0.9:0").unwrap().local_addr().unwrap().port();
        let both = |_: &str| Ok(vec![[127, 0, 0, 9].into(), [127, 0, 0, 8].into()]);
        let error = connect_within(&export("ltsp-1", port), &both, Duration::from_millis(100))
            .map(drop)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "connecting to ltsp-1:{port}: 127.0.0.9: Connection refused, 127.0.0.8: Connection refused"
            )
        );
    }

    #[test]
    fn what_waiting_cannot_cure_ends_at_once() {
        let unknown = |_: &str| Err(Error::refused("asking for nowhere", "no such name"));
        let error = connect(&[export("nowhere", 1)], &unknown).map(drop).unwrap_err();
        assert_eq!(error.to_string(), "asking for nowhere: refused: no such name");
        let empty = |_: &str| Ok(vec![]);
        let error = connect(&[export("nowhere", 1)], &empty).map(drop).unwrap_err();
        assert_eq!(error.to_string(), "looking for nowhere: refused: the name has no address");
    }
}
