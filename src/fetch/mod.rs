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

use crate::console::{self, Waiting};
use crate::error::{Error, Result, WhileDoing};

/// From a host name to its addresses, best first.
pub type Resolve<'a> = &'a dyn Fn(&str) -> Result<Vec<IpAddr>>;

/// Reads `url`, at most `limit` bytes, in one attempt (TFTP repeats its packets within it).
///
/// A file of more than `limit` bytes is refused, never cut.
pub fn fetch(url: &Url, limit: usize, resolve: Resolve<'_>) -> Result<Vec<u8>> {
    attempt(url, limit, resolve).map_err(|failed| failed.error)
}

/// Reads `url` like [`fetch`], and again for as long as the reason for a failure may pass, until
/// `deadline`. At least one attempt is made; the last one's error is returned.
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

    let mut waiting: Option<Waiting> = None;
    let mut pause = FIRST_PAUSE;
    loop {
        let Failed { error, retry_after } = match attempt(url, limit, resolve) {
            Ok(bytes) => return Ok(bytes),
            Err(failed) => failed,
        };
        let wait = retry_after.unwrap_or(pause);
        let left = deadline.saturating_duration_since(Instant::now());
        if !error.is_transient() || wait >= left {
            return Err(error);
        }
        waiting
            .get_or_insert_with(|| console::waiting("config", url.to_string()))
            .still(format!("{url} ({error})"));
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

fn attempt(url: &Url, limit: usize, resolve: Resolve<'_>) -> Attempt {
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
            let mut failure = None;
            for ip in addresses(host, resolve)? {
                match tftp::fetch(SocketAddr::new(ip, *port), path, limit, &progress) {
                    Ok(bytes) => return Ok(bytes),
                    Err(failed) => failure = Some(failed),
                }
            }
            Err(failure.unwrap_or_else(|| no_address(host).into()))
        }
        Url::Http { .. } => http::fetch(url, limit, resolve, &progress),
    }
}

fn addresses(host: &Host, resolve: Resolve<'_>) -> Result<Vec<IpAddr>> {
    match host {
        Host::Address(ip) => Ok(vec![*ip]),
        Host::Name(name) => match resolve(name)? {
            // Each silent one costs seconds.
            addresses if !addresses.is_empty() => Ok(addresses.into_iter().take(4).collect()),
            _ => Err(no_address(host)),
        },
    }
}

fn no_address(host: &Host) -> Error {
    Error::refused(format!("looking up {host}"), "it has no address")
}
