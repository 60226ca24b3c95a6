//! Bytes for an address: TFTP, HTTP(S), files; with a size limit, retries and a deadline.
//!
//! Names are resolved by the caller's function, so this module needs no resolver of its own and
//! works before there is an `/etc/resolv.conf`.

mod http;
#[cfg(test)]
mod servers;
mod tftp;
mod url;

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

pub use url::{Host, Url};

use crate::console;
use crate::error::{Cause, Error, Result, WhileDoing};
use crate::net::dial;

/// From a host name to its addresses, best first.
pub type Resolve<'a> = &'a dyn Fn(&str) -> Result<Vec<IpAddr>>;

/// All of one attempt, however well it goes: a server that sends a byte now and then would
/// otherwise hold up a boot for ever.
const WHOLE: Duration = Duration::from_secs(300);

/// How long a server is asked by TFTP that has further addresses: three packets, all lost.
const OTHERS_WAIT: Duration = Duration::from_secs(2);

/// Reads `url`, at most `limit` bytes, in one attempt (TFTP repeats its packets within it) of at
/// most five minutes.
///
/// A file of more than `limit` bytes is refused, never cut.
pub fn fetch(url: &Url, limit: usize, resolve: Resolve<'_>) -> Result<Vec<u8>> {
    let clock = Clock::until(Instant::now() + WHOLE);
    attempt(url, limit, resolve, clock).map_err(|failed| failed.error)
}

/// Reads `url` like [`fetch`], and again for as long as the reason for a failure may pass, until
/// `deadline`; the last attempt's error is returned.
///
/// The deadline is for servers that are silent. A file that has begun to arrive by then may still
/// do so, within the five minutes; one on this machine is read whatever the clock says.
pub fn persistently(
    url: &Url,
    limit: usize,
    resolve: Resolve<'_>,
    deadline: Instant,
) -> Result<Vec<u8>> {
    // Quick at first: a server that is just starting is up in a moment. Then slow enough for a
    // rack of clients not to keep it from starting.
    const FIRST_PAUSE: Duration = Duration::from_millis(500);
    const LONGEST_PAUSE: Duration = Duration::from_secs(8);

    // From the first packet on: one silent attempt may take all of the time there is.
    let waiting = console::waiting("config", url.to_string());
    let mut pause = FIRST_PAUSE;
    loop {
        let Failed { error, retry_after } =
            match attempt(url, limit, resolve, Clock::until(deadline)) {
                Ok(bytes) => return Ok(bytes),
                Err(failed) => failed,
            };
        // A server may ask for more patience than we have, not for less.
        let wait = retry_after.unwrap_or_default().max(pause);
        let left = deadline.saturating_duration_since(Instant::now());
        if !error.is_transient() || wait >= left {
            return Err(error);
        }
        waiting.still(format!("{url} ({error})"));
        // There is no event for "the server has come up".
        std::thread::sleep(wait);
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
}

type Attempt = std::result::Result<Vec<u8>, Failed>;

struct Failed {
    error: Error,
    /// When the server asks for patience.
    retry_after: Option<Duration>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, retry_after: None }
    }
}

/// By when what must have come, in one attempt.
#[derive(Clone, Copy, Debug)]
struct Clock {
    began: Instant,
    /// The first bytes.
    patience: Instant,
    /// The last.
    end: Instant,
}

impl Clock {
    fn until(patience: Instant) -> Self {
        let began = Instant::now();
        Self { began, patience, end: began + WHOLE }
    }

    /// The same, with no more than this until the first bytes.
    fn patient_for(self, most: Duration) -> Self {
        Self { patience: self.patience.min(Instant::now() + most), ..self }
    }

    /// Until the first bytes must be here.
    fn patience_left(&self) -> Option<Duration> {
        time_left(self.patience.min(self.end))
    }

    /// Until all must be here.
    fn whole_left(&self) -> Option<Duration> {
        time_left(self.end)
    }

    /// For when [`Clock::patience_left`] is none.
    fn silence(&self, doing: impl Into<String>) -> Error {
        Error::silence(doing, self.began.elapsed())
    }

    /// For when [`Clock::whole_left`] is none.
    fn too_slow(&self, doing: impl Into<String>) -> Error {
        let seconds = self.began.elapsed().as_secs();
        Error::new(doing, Cause::NotNow(format!("it is too slow, and not done after {seconds} s")))
    }
}

fn time_left(until: Instant) -> Option<Duration> {
    until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}

fn attempt(url: &Url, limit: usize, resolve: Resolve<'_>, clock: Clock) -> Attempt {
    let progress = console::progress("config", url.to_string(), None);
    match url {
        Url::File(path) => {
            let doing = || format!("reading {}", path.display());
            let file = File::open(path).while_doing(doing)?;
            let mut bytes = Vec::new();
            // One more than allowed shows that there is more.
            let most = (limit as u64).saturating_add(1);
            file.take(most).read_to_end(&mut bytes).while_doing(doing)?;
            if bytes.len() > limit {
                let why = format!("the file is larger than {limit} bytes");
                return Err(Error::refused(doing(), why).into());
            }
            Ok(bytes)
        }
        Url::Tftp { host, port, path } => {
            let mut servers = addresses(host, *port, resolve)?.into_iter().peekable();
            let mut failure: Option<(SocketAddr, Failed)> = None;
            while let Some(server) = servers.next() {
                // UDP cannot be dialled: an address that leads nowhere is as silent as a server
                // that is busy.
                let clock =
                    if servers.peek().is_some() { clock.patient_for(OTHERS_WAIT) } else { clock };
                match tftp::fetch(server, path, limit, clock, &progress) {
                    Ok(bytes) => return Ok(bytes),
                    Err(failed) => match &failure {
                        Some((at, known))
                            if !dial::outweighs(
                                (&[server], &failed.error),
                                (&[*at], &known.error),
                            ) =>
                        {
                            log::debug!(target: "config", "{}", failed.error);
                        }
                        _ => failure = Some((server, failed)),
                    },
                }
            }
            Err(failure.map_or_else(|| no_address(host).into(), |(_, failed)| failed))
        }
        Url::Http { .. } => http::fetch(url, limit, resolve, clock, &progress),
    }
}

/// Each silent one costs time; and `ureq` bears no more than 16.
const MOST_ADDRESSES: usize = 8;

/// In the order in which they are to be tried.
fn addresses(host: &Host, port: u16, resolve: Resolve<'_>) -> Result<Vec<SocketAddr>> {
    match host {
        Host::Address(literal) => Ok(vec![literal.at(port)?]),
        Host::Name(name) => {
            let found = resolve(name)?;
            if found.is_empty() {
                return Err(no_address(host));
            }
            let found: Vec<_> = found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
            // The order first: many addresses of one family must not hide the other.
            Ok(dial::order(&found).into_iter().take(MOST_ADDRESSES).collect())
        }
    }
}

fn no_address(host: &Host) -> Error {
    Error::refused(format!("looking up {host}"), "it has no address")
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::net::{TcpListener, UdpSocket};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    const LIMIT: usize = 1 << 20;

    fn nobody(name: &str) -> Result<Vec<IpAddr>> {
        Err(Error::refused(format!("looking up {name}"), "no such name"))
    }

    fn soon(milliseconds: u64) -> Instant {
        Instant::now() + Duration::from_millis(milliseconds)
    }

    /// Serves each connection in turn with `serve`, and tells when they came.
    fn http_server(serve: fn(&mut dyn Write) -> io::Result<()>) -> (Url, mpsc::Receiver<Instant>) {
        http_server_at("127.0.0.1:0", serve)
    }

    fn http_server_at(
        address: &str,
        serve: fn(&mut dyn Write) -> io::Result<()>,
    ) -> (Url, mpsc::Receiver<Instant>) {
        let listener = TcpListener::bind(address).unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap()).parse().unwrap();
        let (count, requests) = mpsc::channel();
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let came = Instant::now();
                let _ = stream.read(&mut [0; 2000]);
                let _ = serve(&mut stream);
                if count.send(came).is_err() {
                    return;
                }
            }
        });
        (url, requests)
    }

    #[test]
    fn a_silent_server_costs_the_patience_and_no_more() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        // The kernel completes the connection; nobody ever reads from it.
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let urls = [
            format!("tftp://{}/x", udp.local_addr().unwrap()),
            format!("http://{}/x", tcp.local_addr().unwrap()),
        ];
        for url in urls {
            let began = Instant::now();
            let error =
                persistently(&url.parse().unwrap(), LIMIT, &nobody, soon(1200)).unwrap_err();
            assert!(matches!(error.cause(), Cause::Silence(_)), "{error}");
            assert!((400..1900).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());

            let began = Instant::now();
            let error = persistently(&url.parse().unwrap(), LIMIT, &nobody, began).unwrap_err();
            assert!(matches!(error.cause(), Cause::Silence(_)), "too late: {error}");
            assert!(began.elapsed().as_millis() < 200, "{:?}", began.elapsed());
        }
    }

    #[test]
    fn a_dripping_http_server_may_outlive_the_patience_and_not_the_whole() {
        let (url, _requests) = http_server(|stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n")?;
            for _ in 0..12 {
                thread::sleep(Duration::from_millis(100));
                stream.write_all(b"x")?;
            }
            Ok(())
        });
        let clock = Clock { patience: soon(500), ..Clock::until(soon(0)) };
        let bytes = attempt(&url, LIMIT, &nobody, clock).map_err(|failed| failed.error).unwrap();
        assert_eq!(bytes, [b'x'; 12]);

        let clock = Clock { end: soon(700), ..Clock::until(soon(500)) };
        let began = Instant::now();
        let error = attempt(&url, LIMIT, &nobody, clock).map_err(|f| f.error).unwrap_err();
        assert!(error.to_string().contains("too slow"), "{error}");
        assert!((600..1000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    }

    #[test]
    fn a_dripping_tftp_server_may_outlive_the_patience_and_not_the_whole() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let url: Url = format!("tftp://{}/x", server.local_addr().unwrap()).parse().unwrap();
        thread::spawn(move || {
            // Plain blocks, one every 100 ms; ten of them are a file.
            loop {
                let mut packet = [0; 600];
                let Ok((_, client)) = server.recv_from(&mut packet) else { return };
                let block = match packet {
                    [0, 4, _, block, ..] => block + 1,
                    [0, 1, ..] => 1,
                    _ => continue,
                };
                thread::sleep(Duration::from_millis(100));
                let length = if block == 10 { 1 } else { 512 };
                let data = [&[0, 3, 0, block][..], &vec![7; length]].concat();
                let _ = server.send_to(&data, client);
            }
        });
        let clock = Clock::until(soon(500));
        let bytes = attempt(&url, LIMIT, &nobody, clock).map_err(|failed| failed.error).unwrap();
        assert_eq!(bytes.len(), 9 * 512 + 1);

        let clock = Clock { end: soon(600), ..Clock::until(soon(500)) };
        let began = Instant::now();
        let error = attempt(&url, LIMIT, &nobody, clock).map_err(|f| f.error).unwrap_err();
        assert!(error.to_string().contains("too slow"), "{error}");
        assert!((500..900).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    }

    fn hello(stream: &mut dyn Write) -> io::Result<()> {
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
    }

    /// As TFTP: one short block is a file.
    fn tftp_server_at(address: &str) -> SocketAddr {
        let server = UdpSocket::bind(address).unwrap();
        let at = server.local_addr().unwrap();
        thread::spawn(move || {
            let mut packet = [0; 600];
            while let Ok((_, client)) = server.recv_from(&mut packet) {
                if packet[1] == 1 {
                    let _ = server.send_to(b"\0\x03\0\x01hello", client);
                }
            }
        });
        at
    }

    #[test]
    fn files_come_over_ipv6_from_addresses_that_are_typed() {
        let (http, _requests) = http_server_at("[::1]:0", hello);
        let Url::Http { port, .. } = http else { panic!("{http}") };
        let tftp = tftp_server_at("[::1]:0").port();
        let urls = [
            format!("http://[::1]:{port}/x"),
            format!("http://[::1%25lo]:{port}/x"),
            format!("http://[::1%lo]:{port}/x"),
            format!("tftp://[::1]:{tftp}/x"),
            format!("tftp://[::1%lo]:{tftp}/x"),
        ];
        for url in urls {
            let bytes = fetch(&url.parse().unwrap(), LIMIT, &nobody).unwrap();
            assert_eq!(bytes, b"hello", "{url}");
        }
        let unknown = fetch(&"http://[fe80::1%nowhere]/x".parse().unwrap(), LIMIT, &nobody);
        let words = unknown.unwrap_err().to_string();
        assert_eq!(words, "finding the link of fe80::1%nowhere: No such device");
    }

    #[test]
    fn a_name_with_a_dead_end_costs_little() {
        let (http, _requests) = http_server(hello);
        let Url::Http { port, .. } = http else { panic!("{http}") };
        let tftp = tftp_server_at("127.0.0.1:0").port();
        // A documentation prefix, which no route leads to, or at least nobody behind it; and an
        // address of the loopback where nobody listens.
        let both = |_: &str| -> Result<Vec<IpAddr>> {
            Ok(vec!["2001:db8::1".parse().unwrap(), [127, 9, 9, 9].into(), [127, 0, 0, 1].into()])
        };
        for url in [format!("http://boot:{port}/x"), format!("tftp://boot:{tftp}/x")] {
            let began = Instant::now();
            let bytes = fetch(&url.parse().unwrap(), LIMIT, &both).unwrap();
            assert_eq!(bytes, b"hello", "{url}");
            assert!(began.elapsed() < Duration::from_secs(3), "{url}: {:?}", began.elapsed());
        }
    }

    #[test]
    fn many_addresses_of_one_family_do_not_hide_the_other() {
        let (http, _requests) = http_server(hello);
        let Url::Http { port, .. } = http else { panic!("{http}") };
        let many = |_: &str| -> Result<Vec<IpAddr>> {
            let nowhere = (1..=20).map(|last| format!("2001:db8::{last:x}").parse().unwrap());
            Ok(nowhere.chain([[127, 0, 0, 1].into()]).collect())
        };
        let all = addresses(&Host::Name("boot".to_owned()), port, &many).unwrap();
        assert_eq!(all.len(), MOST_ADDRESSES);
        let bytes = fetch(&format!("http://boot:{port}/x").parse().unwrap(), LIMIT, &many).unwrap();
        assert_eq!(bytes, b"hello");
    }

    /// Without it each file that is not there would be asked for until the deadline.
    #[test]
    fn a_missing_file_is_missing_though_ipv6_leads_nowhere() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let (count, requests) = mpsc::channel();
        thread::spawn(move || {
            while let Ok((_, client)) = server.recv_from(&mut [0; 600]) {
                let _ = server.send_to(b"\0\x05\0\x01File not found\0", client);
                if count.send(()).is_err() {
                    return;
                }
            }
        });
        // Nobody listens there either.
        let both = |_: &str| -> Result<Vec<IpAddr>> {
            Ok(vec!["::1".parse().unwrap(), [127, 0, 0, 1].into()])
        };
        let url = format!("tftp://boot:{port}/x").parse().unwrap();
        let error = persistently(&url, LIMIT, &both, soon(60_000)).unwrap_err();
        assert!(!error.is_transient() && error.to_string().contains("not found"), "{error}");
        assert_eq!(requests.try_iter().count(), 2, "one attempt: with options, and without");
    }

    #[test]
    fn a_server_cannot_ask_for_a_storm() {
        static ASKED: AtomicU32 = AtomicU32::new(0);
        let (url, requests) = http_server(|stream| {
            match ASKED.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => stream.write_all(
                b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            ),
            _ => stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nx"),
        }
        });
        assert_eq!(persistently(&url, LIMIT, &nobody, soon(60_000)).unwrap(), b"x");
        let came = [(); 3].map(|()| requests.recv().unwrap());
        let pauses = [came[1] - came[0], came[2] - came[1]].map(|pause| pause.as_millis());
        assert!(pauses[0] >= 500 && pauses[1] >= 1000, "{pauses:?}");
    }
}
