//! One error type for the whole agent: sentences for people, a cause for decisions.
//!
//! Each layer says what it was doing and adds nothing it does not know itself; `Display` joins the
//! chain once, outermost sentence first. The cause is an enum only because somebody acts on it:
//! [`Error::is_transient`] decides between another try and the failure screen.

use std::fmt;
use std::io;
use std::time::Duration;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed attempt: what we were doing, to which object, and what stopped us.
#[derive(Debug)]
pub struct Error {
    doing: String,
    cause: Cause,
    hint: Option<String>,
}

/// What stopped an attempt.
#[derive(Debug)]
pub enum Cause {
    /// The kernel said no.
    Os(io::Error),
    /// Nobody answered for this long.
    Silence(Duration),
    /// The other side answered that it cannot now, but may later (it is starting, or too busy).
    NotNow(String),
    /// The other side answered, and refused; or this machine lacks what was asked of it.
    Refused(String),
    /// Bytes or words that break their own rules, ours or the network's.
    Invalid(String),
    /// The reason has a reason of its own.
    Because(Box<Error>),
}

impl Error {
    pub fn new(doing: impl Into<String>, cause: impl Into<Cause>) -> Self {
        Self { doing: doing.into(), cause: cause.into(), hint: None }
    }

    pub fn refused(doing: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(doing, Cause::Refused(why.into()))
    }

    pub fn invalid(doing: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(doing, Cause::Invalid(why.into()))
    }

    pub fn silence(doing: impl Into<String>, waited: Duration) -> Self {
        Self::new(doing, Cause::Silence(waited))
    }

    /// Adds what a person should look at first; the innermost hint is the one that is shown.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn hint(&self) -> Option<&str> {
        if let Cause::Because(inner) = &self.cause
            && let Some(hint) = inner.hint()
        {
            return Some(hint);
        }
        self.hint.as_deref()
    }

    pub fn cause(&self) -> &Cause {
        match &self.cause {
            Cause::Because(inner) => inner.cause(),
            cause => cause,
        }
    }

    /// Whether waiting may cure it: after a power cut the clients are up before their server.
    pub fn is_transient(&self) -> bool {
        match self.cause() {
            Cause::Silence(_) | Cause::NotNow(_) => true,
            Cause::Os(error) => matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::WouldBlock
                    | io::ErrorKind::Interrupted
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
                    | io::ErrorKind::NetworkDown
                    // Of an address that is still being asked for on its link.
                    | io::ErrorKind::AddrNotAvailable
            ),
            Cause::Refused(_) | Cause::Invalid(_) | Cause::Because(_) => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.cause)
    }
}

/// The reason alone, for a line that already names its object ("waiting for 10.0.0.5:10809: …").
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // std appends "(os error 111)", which helps nobody at a console.
            Cause::Os(error) => match error.raw_os_error() {
                Some(code) => {
                    let text = error.to_string();
                    let suffix = format!(" (os error {code})");
                    f.write_str(text.strip_suffix(&suffix).unwrap_or(&text))
                }
                None => write!(f, "{error}"),
            },
            Cause::Silence(waited) => write!(f, "no answer for {:.1} s", waited.as_secs_f32()),
            Cause::NotNow(why) => write!(f, "not now: {why}"),
            Cause::Refused(why) => write!(f, "refused: {why}"),
            Cause::Invalid(why) => f.write_str(why),
            Cause::Because(inner) => write!(f, "{inner}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self::Os(error)
    }
}

impl From<rustix::io::Errno> for Cause {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Os(errno.into())
    }
}

impl From<nix::errno::Errno> for Cause {
    fn from(errno: nix::errno::Errno) -> Self {
        Self::Os(errno.into())
    }
}

impl From<Error> for Cause {
    fn from(error: Error) -> Self {
        Self::Because(Box::new(error))
    }
}

/// `result.while_doing(|| format!("connecting to {peer}"))?`: each layer adds its own sentence.
pub trait WhileDoing<T> {
    fn while_doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Cause>> WhileDoing<T> for Result<T, E> {
    fn while_doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| Error::new(doing(), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_reads_as_one_sentence_and_keeps_the_innermost_cause_and_hint() {
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        let error: Error = Err::<(), _>(refused)
            .while_doing(|| "connecting to 10.0.0.5:10809")
            .map_err(|error| error.with_hint("is nbd-server running?"))
            .while_doing(|| "attaching the root image")
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "attaching the root image: connecting to 10.0.0.5:10809: Connection refused"
        );
        assert_eq!(error.hint(), Some("is nbd-server running?"));
        assert!(error.is_transient());
    }

    #[test]
    fn what_a_person_must_mend_is_not_transient() {
        assert!(!Error::refused("asking for export \"focal\"", "unknown export").is_transient());
        assert!(!Error::invalid("reading ip=", "no address").is_transient());
        assert!(Error::silence("waiting for an offer", Duration::from_secs(3)).is_transient());
        let missing = io::Error::from_raw_os_error(libc::ENOENT);
        assert!(!Error::new("opening /init", missing).is_transient());
    }
}
