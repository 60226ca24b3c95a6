//! One server asked for one name: two datagrams, and TCP for what does not fit them.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::message::{Answer, Family, question, read};
use crate::error::Cause;
use crate::net::dice;
use crate::sys::socket::Until;

/// How long IPv6 may take after there are addresses of IPv4 (RFC 8305 section 3): some servers never
/// answer a question for a family that they do not know, and there IPv4 is the one that works.
const FOR_IPV6: Duration = Duration::from_millis(50);
/// The other way round. Every server knows IPv4, so its answer is only late; and without it a
/// network whose IPv6 leads nowhere has nothing else to try. A resolver that hands its answers on
/// one by one would wait for neither, but ours has callers that want all at once.
const FOR_IPV4: Duration = Duration::from_millis(200);
/// For answers by TCP, even where the time for datagrams is over: what has been answered is worth
/// more than what has not.
const FOR_TCP: Duration = Duration::from_secs(1);
/// Aliases from one answer to the next, each a question more.
const MOST_ALIASES: usize = 4;

/// What one name came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Addresses(Vec<IpAddr>),
    /// The name does not exist, or has no address.
    Nothing,
}

/// Both addresses of one name, from one server. The cause is silence only if that is all there was.
pub fn ask(server: SocketAddr, name: &str, until: Instant) -> Result<Outcome, Cause> {
    let mut name = name.to_owned();
    for _ in 0..=MOST_ALIASES {
        match verdict(exchange(server, &name, until)?)? {
            Verdict::Addresses(addresses) => return Ok(Outcome::Addresses(addresses)),
            Verdict::Nothing => return Ok(Outcome::Nothing),
            Verdict::Alias(target) => name = target,
        }
    }
    Err(Cause::Invalid(format!("more than {MOST_ALIASES} aliases lead from one to the next")))
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Addresses(Vec<IpAddr>),
    Alias(String),
    Nothing,
}

/// What both families together came to. One is enough, whatever is wrong with the other.
fn verdict(heard: [Result<Answer, Cause>; 2]) -> Result<Verdict, Cause> {
    let mut addresses = Vec::new();
    let mut alias = None;
    let mut has_nothing = false;
    let mut is_unknown = false;
    let (mut silence, mut failure) = (None, None);
    for answer in heard {
        match answer {
            Ok(Answer::Addresses(found)) => addresses.extend(found),
            Ok(Answer::Alias(target)) => alias = Some(target),
            Ok(Answer::Nothing) => has_nothing = true,
            Ok(Answer::Truncated) => {
                failure = failure.or(Some(Cause::Invalid("its answer has no end".to_owned())));
            }
            Ok(Answer::Failed(code)) => {
                is_unknown |= matches!(code, FORMERR | NOTIMP);
                failure = failure.or(Some(failed(code)));
            }
            Err(cause @ Cause::Silence(_)) => silence = Some(cause),
            Err(cause) => failure = failure.or(Some(cause)),
        }
    }
    match (alias, failure, silence) {
        _ if !addresses.is_empty() => Ok(Verdict::Addresses(addresses)),
        (Some(target), ..) => Ok(Verdict::Alias(target)),
        // RFC 4074 section 4.3: who does not know a family has nothing of it.
        (None, Some(_), _) if has_nothing && is_unknown => Ok(Verdict::Nothing),
        (None, Some(cause), _) => Err(cause),
        (None, None, Some(_)) if has_nothing => {
            let why = "it has none of one family, and is silent about the other";
            Err(Cause::NotNow(why.to_owned()))
        }
        (None, None, Some(silence)) => Err(silence),
        (None, None, None) => Ok(Verdict::Nothing),
    }
}

const FORMERR: u8 = 1;
const NOTIMP: u8 = 4;

/// RCODE of RFC 1035 section 4.1.1, and of others.
fn failed(code: u8) -> Cause {
    match code {
        FORMERR => Cause::Refused("it does not understand the question (FORMERR)".to_owned()),
        2 => Cause::NotNow("the server failed (SERVFAIL)".to_owned()),
        NOTIMP => Cause::Refused("it does not know such questions (NOTIMP)".to_owned()),
        5 => Cause::Refused(
            "it does not answer this machine, or not for this name (REFUSED)".to_owned(),
        ),
        code => Cause::Refused(format!("DNS error {code}")),
    }
}

/// A question that has been sent.
struct Asked {
    id: u16,
    family: Family,
    question: Vec<u8>,
    heard: Option<Result<Answer, Cause>>,
}

impl Asked {
    fn is_answered_with(&self, wanted: fn(&Answer) -> bool) -> bool {
        self.heard.as_ref().is_some_and(|heard| heard.as_ref().is_ok_and(wanted))
    }
}

/// One question for each family to one server; what came of them in the same order, IPv6 first.
/// Fails as a whole only where nothing could be asked.
fn exchange(
    server: SocketAddr,
    name: &str,
    until: Instant,
) -> Result<[Result<Answer, Cause>; 2], Cause> {
    // Sixteen bits for each question, sixteen from the kernel's choice of port: what a stranger off
    // the path would have to guess.
    let [a, b, c, d] = dice::roll().to_ne_bytes();
    let asked = |id, family| {
        let id = u16::from_be_bytes(id);
        let question = question(id, name, family);
        let question =
            question.ok_or_else(|| Cause::Invalid(format!("\"{name}\" is not a host name")))?;
        Ok::<_, Cause>(Asked { id, family, question, heard: None })
    };
    let mut asked = [asked([a, b], Family::Ipv6)?, asked([c, d], Family::Ipv4)?];
    let began = Instant::now();
    by_datagrams(server, name, &mut asked, until)?;

    let by = until.max(Instant::now() + FOR_TCP);
    for place in [0, 1] {
        // What there is of the one is not held up by the other.
        let has_addresses =
            asked.iter().any(|one| one.is_answered_with(|a| matches!(a, Answer::Addresses(_))));
        let by = if has_addresses { by.min(Instant::now() + FOR_IPV4) } else { by };
        if let Some(one) = asked.get_mut(place)
            && one.is_answered_with(|answer| *answer == Answer::Truncated)
        {
            one.heard = Some(by_tcp(server, one, name, by));
        }
    }
    let silence = || Err(Cause::Silence(began.elapsed()));
    let [six, four] = asked;
    Ok([six, four].map(|one| one.heard.unwrap_or_else(silence)))
}

/// Sends the questions, again half way to the end those that have no answer yet, and takes what
/// comes.
fn by_datagrams(
    server: SocketAddr,
    name: &str,
    asked: &mut [Asked; 2],
    until: Instant,
) -> Result<(), Cause> {
    let anywhere: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((anywhere, 0))?;
    // The kernel drops what does not come from this address and port.
    socket.connect(server)?;
    for one in asked.iter() {
        socket.send(&one.question)?;
    }
    let mut until = until;
    let now = Instant::now();
    let mut again = Some(now + until.saturating_duration_since(now) / 2);
    let mut buffer = [0; 1232];
    while asked.iter().any(|one| one.heard.is_none()) {
        let now = Instant::now();
        if now >= until {
            break;
        }
        if again.is_some_and(|again| now >= again) {
            again = None;
            for one in asked.iter().filter(|one| one.heard.is_none()) {
                socket.send(&one.question)?;
            }
        }
        let next = again.map_or(until, |again| again.min(until));
        let rest = next.saturating_duration_since(now).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(rest))?;
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            // An answer that is here already stays.
            Err(_) if asked.iter().any(|one| one.heard.is_some()) => break,
            Err(error) => return Err(error.into()),
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        for one in asked.iter_mut().filter(|one| one.heard.is_none()) {
            let Some(answer) = read(bytes, one.id, name, one.family) else { continue };
            // Whoever has said so much is awake: the other answer is on its way, or never comes.
            if matches!(answer, Answer::Addresses(_) | Answer::Truncated) {
                let wait = if one.family == Family::Ipv6 { FOR_IPV4 } else { FOR_IPV6 };
                until = until.min(Instant::now() + wait);
            }
            one.heard = Some(Ok(answer));
        }
    }
    Ok(())
}

fn by_tcp(server: SocketAddr, asked: &Asked, name: &str, until: Instant) -> Result<Answer, Cause> {
    let whole = || -> io::Result<Vec<u8>> {
        // Neither takes a timeout of zero.
        let left = || until.saturating_duration_since(Instant::now()).max(Duration::from_millis(2));
        let stream = TcpStream::connect_timeout(&server, left())?;
        let mut stream = Until::now_plus(&stream, left());
        let length = u16::try_from(asked.question.len()).unwrap_or(u16::MAX);
        stream.write_all(&[&length.to_be_bytes(), asked.question.as_slice()].concat())?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = whole().map_err(|error| {
        let why = "its answer does not fit a datagram, and by TCP there is none";
        Cause::NotNow(format!("{why}: {}", Cause::Os(error)))
    })?;
    read(&bytes, asked.id, name, asked.family)
        .ok_or_else(|| Cause::Invalid("its answer by TCP is to another question".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn one_family_is_enough_and_a_failure_says_its_reason() {
        let six = || Ok(Answer::Addresses(vec!["fd00::1".parse().unwrap()]));
        let four = || Ok(Answer::Addresses(vec!["10.0.0.1".parse().unwrap()]));
        let nothing = || Ok(Answer::Nothing);
        let silent = || Err(Cause::Silence(Duration::from_secs(1)));
        let tcp = || Err(Cause::NotNow("by TCP".to_owned()));
        let alias = || Ok(Answer::Alias("nas.lan".to_owned()));
        let code = |code| Ok(Answer::Failed(code));
        let cases = [
            // IPv6,                IPv4,       what it comes to
            (six(),                 four(),     "fd00::1 10.0.0.1"),
            (six(),                 silent(),   "fd00::1"),
            (silent(),              four(),     "10.0.0.1"),
            (tcp(),                 four(),     "10.0.0.1"),  // TCP is blocked, and was needed for the one
            (six(),                 code(2),    "fd00::1"),
            (six(),                 nothing(),  "fd00::1"),
            (alias(),               code(2),    "alias nas.lan"),
            (alias(),               four(),     "10.0.0.1"),
            (nothing(),             nothing(),  "nothing"),
            (code(4),               nothing(),  "nothing"),   // of a server that knows no IPv6
            (code(1),               nothing(),  "nothing"),
            (code(4),               code(4),    "refused: it does not know such questions (NOTIMP)"),
            (code(5),               code(5),    "refused: it does not answer this machine, or not for this name (REFUSED)"),
            (code(5),               nothing(),  "refused: it does not answer this machine, or not for this name (REFUSED)"),
            (code(2),               silent(),   "not now: the server failed (SERVFAIL)"),
            (code(9),               silent(),   "refused: DNS error 9"),
            (Ok(Answer::Truncated), nothing(),  "its answer has no end"),
            (tcp(),                 silent(),   "not now: by TCP"),
            (silent(),              nothing(),  "not now: it has none of one family, and is silent about the other"),
            (silent(),              silent(),   "no answer for 1.0 s"),
        ];
        for (six, four, expected) in cases {
            let case = format!("{six:?}, {four:?}");
            let got = match verdict([six, four]) {
                Ok(Verdict::Addresses(found)) => found.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "),
                Ok(Verdict::Alias(name)) => format!("alias {name}"),
                Ok(Verdict::Nothing) => "nothing".to_owned(),
                Err(cause) => cause.to_string(),
            };
            assert_eq!(got, expected, "{case}");
        }
    }
}
