//! HTTP and HTTPS by `ureq`, with everything that it would take from its surroundings taken away:
//! proxies from the environment (which for PID 1 is the kernel command line), the system's
//! resolver, redirects to anywhere, bodies without a limit, waits without an end.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use ureq::http::header::{LOCATION, RETRY_AFTER};
use ureq::http::{StatusCode, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use super::{Attempt, Clock, Failed, MOST_ADDRESSES, Resolve, Url, addresses};
use crate::console::Progress;
use crate::error::{Cause, Error};
use crate::net::dial;

const CONNECT: Duration = Duration::from_secs(10);
/// From the end of the request to the end of the headers: the server may be making the file up.
const ANSWER: Duration = Duration::from_secs(30);
/// Between two pieces of the body.
const READ: Duration = Duration::from_secs(10);
const MOST_REDIRECTS: usize = 5;
#[cfg(feature = "tls")]
const CA_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Reads `url`, at most `limit` bytes, in one attempt.
pub fn fetch(
    url: &Url,
    limit: usize,
    resolve: Resolve<'_>,
    clock: Clock,
    progress: &Progress,
) -> Attempt {
    let mut url = url.clone();
    for _ in 0..=MOST_REDIRECTS {
        match get(&url, limit, resolve, clock, progress)? {
            Answer::Body(body) => return Ok(body),
            Answer::Elsewhere(next) => {
                log::debug!(target: "config", "{url} is at {next}");
                url = next;
            }
        }
    }
    let why = format!("more than {MOST_REDIRECTS} redirects");
    Err(Error::refused(format!("getting {url}"), why).into())
}

enum Answer {
    Body(Vec<u8>),
    Elsewhere(Url),
}

fn get(
    url: &Url,
    limit: usize,
    resolve: Resolve<'_>,
    clock: Clock,
    progress: &Progress,
) -> Result<Answer, Failed> {
    let doing = || format!("getting {url}");
    let Url::Http { tls, host, port, .. } = url else {
        return Err(Error::invalid(doing(), "not an http address").into());
    };
    let known = Known(addresses(host, *port, resolve)?);
    let (Some(patience), Some(whole)) = (clock.patience_left(), clock.whole_left()) else {
        return Err(clock.silence(doing()).into());
    };
    // One after the other, and together they must fit: half for the connection, so that there is
    // as much for the answer. (A slow TLS handshake comes in between, and may take its own half.)
    let connect = CONNECT.min(patience / 2);
    let answer = ANSWER.min(patience.saturating_sub(connect));
    let config = ureq::Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(concat!("landfall/", env!("CARGO_PKG_VERSION")))
        .timeout_global(Some(whole))
        .timeout_connect(Some(connect))
        .timeout_send_request(Some(connect))
        .timeout_recv_response(Some(answer))
        .timeout_per_read(Some(READ))
        .timeout_per_write(Some(READ));
    let config = if *tls { with_tls(config)? } else { config };
    let agent = agent(config.build(), known);

    let mut response = agent
        .get(url.without_link().to_string())
        .call()
        .map_err(|error| translate(doing(), clock, error))?;
    let status = response.status();
    if status.is_redirection() {
        let target = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let next = target.and_then(|target| redirected(url, target)).ok_or_else(|| {
            Error::refused(doing(), format!("{} to {}", words(status), target.unwrap_or("nowhere")))
        })?;
        return Ok(Answer::Elsewhere(next));
    }
    if !status.is_success() {
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        return Err(refusal(doing(), status, after));
    }

    let too_large = || Error::refused(doing(), format!("the file is larger than {limit} bytes"));
    if response.body().content_length().is_some_and(|length| length > limit as u64) {
        return Err(too_large().into());
    }
    let mut body = Vec::new();
    let mut reader = response.body_mut().with_config().limit(u64::MAX).reader();
    let mut piece = [0; 16 * 1024];
    loop {
        match reader.read(&mut piece) {
            Ok(0) => return Ok(Answer::Body(body)),
            Ok(length) => body.extend_from_slice(piece.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(translate(doing(), clock, error.into()).into()),
        }
        if body.len() > limit {
            return Err(too_large().into());
        }
        progress.at(body.len() as u64);
    }
}

/// The addresses of the one host this agent may talk to: `ureq` wants a resolver that owns all it
/// knows, and the caller's borrows the network.
#[derive(Debug)]
struct Known(Vec<SocketAddr>);

impl Resolver for Known {
    fn resolve(
        &self,
        _: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        // It panics beyond its capacity.
        for address in self.0.iter().take(MOST_ADDRESSES) {
            addresses.push(*address);
        }
        if self.0.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(addresses) }
    }
}

#[cfg(feature = "tls")]
fn agent(config: ureq::config::Config, known: Known) -> ureq::Agent {
    let connector = Dial.chain(ureq::unversioned::transport::RustlsConnector::default());
    ureq::Agent::with_parts(config, connector, known)
}

#[cfg(not(feature = "tls"))]
fn agent(config: ureq::config::Config, known: Known) -> ureq::Agent {
    ureq::Agent::with_parts(config, Dial, known)
}

/// `ureq`'s own connector tries one address after the other, and gives the first half the time.
#[derive(Debug)]
struct Dial;

impl Connector<()> for Dial {
    type Out = Tcp;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Tcp>, ureq::Error> {
        let addresses: Vec<SocketAddr> = details.addrs.iter().copied().collect();
        let within = details.timeout.not_zero().map_or(CONNECT, |left| *left);
        let (stream, _) =
            dial::connect(&addresses, within).map_err(|error| match addresses.as_slice() {
                [_] if error.kind() == io::ErrorKind::TimedOut => {
                    ureq::Error::Timeout(details.timeout.reason)
                }
                _ => error.into(),
            })?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Tcp { stream, buffers }))
    }
}

/// One connection for one request.
#[derive(Debug)]
struct Tcp {
    stream: TcpStream,
    buffers: LazyBuffers,
}

impl Transport for Tcp {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let timeout = timeout.for_write();
        self.stream.set_write_timeout(timeout.not_zero().map(|left| *left))?;
        let output = self.buffers.output();
        let bytes = output.get(..amount).unwrap_or(output);
        self.stream.write_all(bytes).map_err(|error| late(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let timeout = timeout.for_read();
        self.stream.set_read_timeout(timeout.not_zero().map(|left| *left))?;
        let amount = loop {
            match self.stream.read(self.buffers.input_append_buf()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(|error| late(error, timeout))?,
            }
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    /// Asked before another request; there is none.
    fn is_open(&mut self) -> bool {
        false
    }
}

/// A timeout of a socket is EAGAIN.
fn late(error: io::Error, timeout: NextTimeout) -> ureq::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ureq::Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}

/// Where a `Location` leads from `from`: a whole address, a path, or a path beside it. From https
/// only to https, since whoever asked for it wanted nobody on the way to choose the file.
fn redirected(from: &Url, target: &str) -> Option<Url> {
    let target = target.split('#').next().unwrap_or_default();
    let Url::Http { tls, host, port, .. } = from else { return None };
    let scheme = if *tls { "https" } else { "http" };
    let url = if target.contains("://") {
        target.parse().ok()?
    } else if let Some(rest) = target.strip_prefix("//") {
        format!("{scheme}://{rest}").parse().ok()?
    } else if target.starts_with('/') {
        format!("{scheme}://{host}:{port}{target}").parse().ok()?
    } else {
        from.beside(target).to_string().parse().ok()?
    };
    match url {
        Url::Http { tls: safe, .. } if safe || !tls => Some(url),
        _ => None,
    }
}

fn words(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// What a status other than success means for another try.
fn refusal(doing: String, status: StatusCode, retry_after: Option<&str>) -> Failed {
    let words = words(status);
    let may_pass = status.is_server_error()
        || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
    if !may_pass {
        let error = Error::refused(doing, words);
        let login = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
        return if login {
            error.with_hint("the server wants to know more about us than the address").into()
        } else {
            error.into()
        };
    }
    // The other form is a date, and our clock may be years off.
    let retry_after =
        retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    Failed { error: Error::new(doing, Cause::NotNow(words)), retry_after }
}

fn translate(doing: String, clock: Clock, error: ureq::Error) -> Error {
    match error {
        ureq::Error::Io(error) => {
            #[cfg(feature = "tls")]
            if let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
                return tls_error(doing, inner);
            }
            Error::new(doing, error)
        }
        ureq::Error::Timeout(ureq::Timeout::Global) => clock.too_slow(doing),
        ureq::Error::Timeout(ureq::Timeout::PerRead | ureq::Timeout::PerWrite) => {
            Error::silence(doing, READ)
        }
        ureq::Error::Timeout(_) => clock.silence(doing),
        #[cfg(feature = "tls")]
        ureq::Error::Rustls(error) => tls_error(doing, &error),
        other => Error::invalid(doing, other.to_string()),
    }
}

#[cfg(feature = "tls")]
fn tls_error(doing: String, error: &rustls::Error) -> Error {
    use rustls::CertificateError::{
        Expired, ExpiredContext, NotValidYet, NotValidYetContext, UnknownIssuer,
    };

    let ours = Error::invalid(doing, error.to_string());
    match error {
        rustls::Error::InvalidCertificate(UnknownIssuer) => {
            ours.with_hint(format!("its issuer is not in {CA_FILE} of the boot image"))
        }
        rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        ) => ours.with_hint("is this machine's clock right?"),
        _ => ours,
    }
}

type Config = ureq::config::ConfigBuilder<ureq::typestate::AgentScope>;

#[cfg(feature = "tls")]
fn with_tls(config: Config) -> Result<Config, Error> {
    use std::sync::Arc;

    use crate::error::WhileDoing;

    let doing = || format!("reading {CA_FILE}");
    let pem = std::fs::read(CA_FILE).while_doing(doing).map_err(|error| {
        error.with_hint("https needs the certificates of the site's CA in the boot image")
    })?;
    // One that cannot be read only cannot vouch for anybody.
    let certificates: Vec<_> = ureq::tls::parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(Error::invalid(doing(), "there is no certificate in it"));
    }
    let tls = ureq::tls::TlsConfig::builder()
        .root_certs(ureq::tls::RootCerts::new_with_certs(&certificates))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    Ok(config.tls_config(tls))
}

#[cfg(not(feature = "tls"))]
fn with_tls(_: Config) -> Result<Config, Error> {
    Err(Error::refused("using https", "this landfall was built without TLS"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn redirects_stay_as_safe_as_they_began() {
        let cases = [
            ("http://h/a/b",       "/c",                Some("http://h/c")),
            ("http://h:8080/a/b",  "c?d=e",             Some("http://h:8080/a/c?d=e")),
            ("http://h/a",         "https://g/x#y",     Some("https://g/x")),
            ("https://h/a",        "//g/x",             Some("https://g/x")),
            ("https://h/a",        "/c",                Some("https://h/c")),
            ("https://h/a",        "http://h/a",        None),
            ("http://h/a",         "file:///etc/passwd", None),
            ("http://h/a",         "tftp://h/a",        None),
            ("http://h/a",         "http://u@h/a",      None),
        ];
        for (from, target, expected) in cases {
            let url = redirected(&from.parse().unwrap(), target).map(|url| url.to_string());
            assert_eq!(url.as_deref(), expected, "{from} to {target}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn only_what_may_pass_is_tried_again() {
        let cases = [
            (404, None,        false, None),
            (403, None,        false, None),
            (410, Some("5"),   false, None),
            (429, Some("5"),   true,  Some(5)),
            (503, Some("Fri, 31 Dec 1999 23:59:59 GMT"), true, None),
            (500, None,        true,  None),
        ];
        for (status, header, transient, seconds) in cases {
            let failed = refusal("x".into(), StatusCode::from_u16(status).unwrap(), header);
            assert_eq!(failed.error.is_transient(), transient, "{status}");
            assert_eq!(failed.retry_after, seconds.map(Duration::from_secs), "{status}");
        }
    }
}
