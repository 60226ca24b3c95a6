//! What a client makes known: to the worker, which acts on it, and to the operator, in words.

use std::fmt;
use std::net::Ipv4Addr;

use super::message::Reply;
use super::pxe::Boot;
use super::who;
use crate::net::{Lease, Mac};

/// What the rest of the agent should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// An offer and what becomes of it, for whoever asks later why.
    Weighed(Box<Weighed>),
    /// A server offers this, which will do unless a better offer comes in a moment.
    Held(Box<Lease>),
    /// A server offers this, and it will be requested.
    Accepted(Box<Lease>),
    /// An offer that cannot be used, and why.
    Unusable { server: Option<Ipv4Addr>, why: &'static str },
    /// A server that gives no addresses and knows what to boot.
    BootServer { server: Ipv4Addr, boot: Box<Boot> },
    /// The server of the accepted offer no longer answers.
    Unanswered { server: Option<Ipv4Addr> },
    /// A granted address is somebody else's. Unless it was `declined`, that is not believed, since
    /// the same station has claimed every other address too.
    Conflict { address: Ipv4Addr, by: Mac, declined: bool },
    /// The lease is ours.
    Granted(Box<Lease>),
    /// The lease goes on, with these values.
    Extended(Box<Lease>),
    /// A server took the lease or the offer back.
    Refused { server: Option<Ipv4Addr>, words: Option<String> },
    /// The lease has ended and nobody extended it.
    Expired,
}

/// One offer, what it says, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighed {
    pub server: Option<Ipv4Addr>,
    /// None in an offer without one.
    pub address: Option<Ipv4Addr>,
    /// In words: address, router, what to boot.
    pub says: String,
    pub verdict: Verdict,
}

/// Why an offer was chosen, or not. Its words continue "the offer of 10.0.0.1 …".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It says all that this boot wants to know.
    Taken,
    /// Nobody has said more.
    Best,
    SaysLess {
        than: Option<Ipv4Addr>,
    },
    NoBetter {
        than: Option<Ipv4Addr>,
    },
    TooLate {
        taken: Option<Ipv4Addr>,
    },
    Unusable(&'static str),
    Proxy,
}

impl Verdict {
    pub fn is_chosen(self) -> bool {
        matches!(self, Self::Taken | Self::Best)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Taken => write!(f, "is taken: it says all that this boot wants to know"),
            Self::Best => {
                write!(f, "is taken: nobody has offered more meanwhile")
            }
            Self::SaysLess { than } => write!(f, "is passed over: that of {} says more", who(than)),
            Self::NoBetter { than } => {
                write!(f, "is passed over: it says no more than that of {}", who(than))
            }
            Self::TooLate { taken } => {
                write!(f, "is too late: that of {} has been accepted", who(taken))
            }
            Self::Unusable(why) => write!(f, "is of no use: {why}"),
            Self::Proxy => write!(f, "is no address: a boot server's, which may be asked later"),
        }
    }
}

impl Weighed {
    pub fn lease(offer: &Lease, verdict: Verdict) -> Self {
        Self { server: offer.server_id, address: Some(offer.address), says: says(offer), verdict }
    }

    pub fn reply(reply: &Reply, verdict: Verdict) -> Self {
        match &reply.lease {
            Ok(offer) => Self { server: reply.server, ..Self::lease(offer, verdict) },
            Err(_) => Self {
                server: reply.server,
                address: None,
                says: booting(&reply.boot).join(", "),
                verdict,
            },
        }
    }
}

/// One line for the log.
impl fmt::Display for Weighed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let says = if self.says.is_empty() { "nothing" } else { &self.says };
        write!(f, "the offer of {} ({says}) {}", who(self.server), self.verdict)
    }
}

/// What an offer says, in the order in which it matters here.
fn says(offer: &Lease) -> String {
    let mut parts = vec![format!("{}/{}", offer.address, offer.prefix)];
    parts.push(match offer.gateway() {
        Some(router) => format!("router {router}"),
        None => "no router".to_owned(),
    });
    let boot = Boot {
        next_server: offer.next_server,
        tftp_server: offer.tftp_server.clone(),
        filename: offer.filename.clone(),
        root_path: offer.root_path.clone(),
        menu: None,
    };
    match booting(&boot) {
        nothing if nothing.is_empty() => parts.push("nothing to boot".to_owned()),
        something => parts.extend(something),
    }
    parts.join(", ")
}

fn booting(boot: &Boot) -> Vec<String> {
    let server = boot.tftp_server.clone().or(boot.next_server.map(|server| server.to_string()));
    let parts = [
        server.map(|server| format!("boot server {server}")),
        boot.filename.as_ref().map(|file| format!("file {file}")),
        boot.root_path.as_ref().map(|root| format!("root {root}")),
    ];
    parts.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::lease::tests::lease;

    #[test]
    #[rustfmt::skip]
    fn an_offer_and_its_fate_are_one_sentence() {
        let server = Some(Ipv4Addr::new(10, 0, 0, 1));
        let plain = Lease { server_id: server, ..lease("10.0.0.57/24") };
        let boot = Lease {
            next_server: server,
            filename: Some("grub.0".into()),
            root_path: Some("nbd:10.0.0.1".into()),
            ..plain.clone()
        };
        let cases = [
            (&boot,  Verdict::Taken,
             "the offer of 10.0.0.1 (10.0.0.57/24, no router, boot server 10.0.0.1, file grub.0, root nbd:10.0.0.1) \
              is taken: it says all that this boot wants to know"),
            (&plain, Verdict::SaysLess { than: Some([10, 0, 0, 2].into()) },
             "the offer of 10.0.0.1 (10.0.0.57/24, no router, nothing to boot) is passed over: that of 10.0.0.2 says more"),
            (&plain, Verdict::TooLate { taken: None },
             "the offer of 10.0.0.1 (10.0.0.57/24, no router, nothing to boot) is too late: that of a server without name has been accepted"),
        ];
        for (offer, verdict, expected) in cases {
            assert_eq!(Weighed::lease(offer, verdict).to_string(), expected);
        }
    }
}
