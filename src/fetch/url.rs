//! The addresses we fetch from: `tftp://`, `http://`, `https://`, `file:`.
//!
//! Strict on purpose: an address is typed by hand on a command line, and what is wrong with it
//! should be said before the network is asked.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::Error;
use crate::net::dial::Literal;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Url {
    Tftp {
        host: Host,
        port: u16,
        /// With its leading slash, and not decoded: TFTP knows no escapes.
        path: String,
    },
    Http {
        tls: bool,
        host: Host,
        port: u16,
        /// Path and query.
        target: String,
    },
    /// An absolute path.
    File(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Address(Literal),
    /// Letters, digits, dots, `-` and `_`.
    Name(String),
}

impl Host {
    /// Reads `name`, `10.0.0.1`, `fd00::1`, `[fd00::1]` or `[fe80::1%eth0]`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Self::Address(address));
        }
        let wellformed = !text.is_empty()
            && text.len() <= 253
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            // 10.0.0.256 and 10.0.0 are mistakes, not names.
            && !text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        wellformed.then(|| Self::Name(text.to_owned()))
    }
}

impl Url {
    /// The host to resolve; none for files.
    pub fn host(&self) -> Option<&Host> {
        match self {
            Self::Tftp { host, .. } | Self::Http { host, .. } => Some(host),
            Self::File(_) => None,
        }
    }

    /// As the server sees it: which of our links it is on is none of its business.
    #[must_use]
    pub fn without_link(&self) -> Self {
        let mut url = self.clone();
        if let Self::Tftp { host, .. } | Self::Http { host, .. } = &mut url
            && let Host::Address(literal) = host
        {
            literal.link = None;
        }
        url
    }

    /// The same place with another file: `tftp://h/a/b` and `c` give `tftp://h/a/c`.
    #[must_use]
    pub fn beside(&self, file: &str) -> Self {
        let beside = |path: &str| {
            let path = path.split(['?']).next().unwrap_or_default();
            let directory = path.rsplit_once('/').map(|(directory, _)| directory);
            format!("{}/{file}", directory.unwrap_or_default())
        };
        let mut url = self.clone();
        match &mut url {
            Self::Tftp { path, .. } => *path = beside(path),
            Self::Http { target, .. } => *target = beside(target),
            Self::File(path) => path.set_file_name(file),
        }
        url
    }
}

impl Url {
    /// What `reference` means in a file that came from here: a whole address, a path on the same
    /// server, or a path from the folder of that file. `.` and `..` are resolved, so that one file
    /// has one address.
    pub fn join(&self, reference: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::invalid(format!("reading the address {reference:?}"), why);
        if reference.contains("://") || reference.starts_with("file:") {
            return match (self, reference.parse()?) {
                (Self::Tftp { .. } | Self::Http { .. }, Self::File(_)) => {
                    Err(wrong("a file from a server cannot name one of this machine"))
                }
                (_, url) => Ok(url),
            };
        }
        if reference.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(wrong("there is a control character in it"));
        }
        let mut url = self.clone();
        match &mut url {
            Self::Tftp { path, .. } => *path = joined(path, reference),
            Self::Http { .. } if reference.contains('#') => {
                return Err(wrong("\"#…\" is for browsers; leave it out"));
            }
            Self::Http { target, .. } => {
                let (path, query) = match reference.split_once('?') {
                    Some((path, query)) => (path, format!("?{}", escaped(query))),
                    None => (reference, String::new()),
                };
                let here = target.split('?').next().unwrap_or_default();
                *target = format!("{}{query}", joined(here, &escaped(path)));
            }
            Self::File(path) => *path = joined(&path.to_string_lossy(), reference).into(),
        }
        Ok(url)
    }
}

/// The path that `reference` names from a file at `path` (RFC 3986, 5.2.3 and 5.2.4).
fn joined(path: &str, reference: &str) -> String {
    let folder = match reference.starts_with('/') {
        true => "",
        false => path.rsplit_once('/').map(|(folder, _)| folder).unwrap_or_default(),
    };
    let mut names = Vec::new();
    for name in folder.split('/').chain(reference.split('/')) {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// `text` as HTTP takes it; what is escaped already stays so.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
    let escape = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(escape).collect()
}

const TFTP_PORT: u16 = 69;

impl FromStr for Url {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::invalid(format!("reading the address {text:?}"), why);
        if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(wrong("there is a blank or a control character in it"));
        }
        if let Some(path) = text.strip_prefix("file:") {
            let path = match path.strip_prefix("//") {
                // file://host/… does not exist for us; file:///path does.
                Some(path) if path.starts_with('/') => path,
                Some(_) => return Err(wrong("a file has no host; write file:/PATH")),
                None => path,
            };
            if !path.starts_with('/') {
                return Err(wrong("a file needs its whole path, from / on"));
            }
            // One slash is as good as many, and "//" would look like a host when written back.
            return Ok(Self::File(format!("/{}", path.trim_start_matches('/')).into()));
        }
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| wrong("it must begin with tftp://, http://, https:// or file:/"))?;
        let (authority, path) = match rest.find(['/', '?', '#']) {
            Some(at) => rest.split_at_checked(at).unwrap_or((rest, "")),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err(wrong("user names in addresses are not supported"));
        }
        let (host, port) =
            split_port(authority).ok_or_else(|| wrong("that is not a port number"))?;
        let host = Host::parse(host)
            .ok_or_else(|| wrong("the host is neither a name nor an IP address"))?;
        match scheme.to_ascii_lowercase().as_str() {
            "tftp" if path.len() < 2 || !path.starts_with('/') => {
                Err(wrong("the name of the file is missing"))
            }
            "tftp" => {
                let path = path.trim_end_matches(";mode=octet").to_owned();
                Ok(Self::Tftp { host, port: port.unwrap_or(TFTP_PORT), path })
            }
            scheme @ ("http" | "https") => {
                if path.contains('#') {
                    return Err(wrong("\"#…\" is for browsers; leave it out"));
                }
                let tls = scheme == "https";
                let slash = if path.starts_with('/') { "" } else { "/" };
                let port = port.unwrap_or(if tls { 443 } else { 80 });
                Ok(Self::Http { tls, host, port, target: format!("{slash}{path}") })
            }
            _ => Err(wrong("only tftp, http, https and file are known")),
        }
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`; `None` if the port is none.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let after_bracket = authority.rfind(']').map_or(0, |at| at.saturating_add(1));
    let (_, tail) = authority.split_at_checked(after_bracket)?;
    match tail.rsplit_once(':') {
        None => Some((authority, None)),
        Some((_, port)) => {
            let host = authority.strip_suffix(port)?.strip_suffix(':')?;
            // `+1` would pass as a number.
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port.parse().ok().filter(|port| digits && *port != 0)?;
            Some((host, Some(port)))
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // RFC 6874: % begins an escape, and %25 is its own.
            Self::Address(Literal { address, link: Some(link) }) => {
                write!(f, "[{address}%25{link}]")
            }
            Self::Address(Literal { address, link: None }) if address.is_ipv6() => {
                write!(f, "[{address}]")
            }
            Self::Address(literal) => write!(f, "{literal}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = |port: &u16, usual: u16| match *port {
            port if port == usual => String::new(),
            port => format!(":{port}"),
        };
        match self {
            Self::Tftp { host, port: number, path } => {
                write!(f, "tftp://{host}{}{path}", port(number, TFTP_PORT))
            }
            Self::Http { tls: false, host, port: number, target } => {
                write!(f, "http://{host}{}{target}", port(number, 80))
            }
            Self::Http { tls: true, host, port: number, target } => {
                write!(f, "https://{host}{}{target}", port(number, 443))
            }
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    #[rustfmt::skip]
    fn addresses_are_read_and_written_back() {
        let cases = [
            ("tftp://10.0.0.1/ltsp/amd64/lts.conf", Some("tftp://10.0.0.1/ltsp/amd64/lts.conf")),
            ("TFTP://ltsp-1:6969/lts.conf",         Some("tftp://ltsp-1:6969/lts.conf")),
            ("tftp://h/x;mode=octet",               Some("tftp://h/x")),
            ("tftp://h/a#b?c",                      Some("tftp://h/a#b?c")),
            ("file:////A",                          Some("file:/A")), // "//A" would look like a host
            ("http://h",                            Some("http://h/")),
            ("http://h:80?mac=52-54",               Some("http://h/?mac=52-54")),
            ("https://h:8443/a/b?c=d&e",            Some("https://h:8443/a/b?c=d&e")),
            ("http://[fd00::1]:8080/x",             Some("http://[fd00::1]:8080/x")),
            ("http://[fd00::1]/x",                  Some("http://[fd00::1]/x")),
            ("http://[fe80::1%25eth0]:8080/x",      Some("http://[fe80::1%25eth0]:8080/x")),
            ("http://[fe80::1%eth0]/x",             Some("http://[fe80::1%25eth0]/x")), // as people write it
            ("tftp://[fe80::1%eth0]/x",             Some("tftp://[fe80::1%25eth0]/x")),
            ("tftp://[fd00::1]/lts.conf",           Some("tftp://[fd00::1]/lts.conf")),
            ("https://[fd00::1]:8443/x",            Some("https://[fd00::1]:8443/x")),
            ("http://[fe80::1%eth0/../x]/x",        None),
            ("file:/etc/lts.conf",                  Some("file:/etc/lts.conf")),
            ("file:///etc/lts.conf",                Some("file:/etc/lts.conf")),
            ("file://etc/lts.conf",                 None),
            ("file:lts.conf",                       None),
            ("tftp://10.0.0.1",                     None),
            ("tftp://10.0.0.1/",                    None),
            ("tftp://10.0.0.256/x",                 None),
            ("tftp:///x",                           None),
            ("tftp://h:0/x",                        None),
            ("tftp://h:/x",                         None),
            ("tftp://h:+69/x",                      None),
            ("tftp://h:65536/x",                    None),
            ("http://fd00::1/x",                    None), // brackets missing
            ("http://[10.0.0.1]/x",                 None),
            ("http://u:p@h/x",                      None),
            ("http://h/x#y",                        None),
            ("http://h/x y",                        None),
            ("nfs://h/x",                           None),
            ("10.0.0.1/lts.conf",                   None),
            ("",                                    None),
        ];
        for (text, expected) in cases {
            let url = text.parse::<Url>().ok().map(|url| url.to_string());
            assert_eq!(url.as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_file_names_its_neighbours() {
        let cases = [
            ("tftp://h/ltsp/amd64/lts.conf", "common.conf",        Some("tftp://h/ltsp/amd64/common.conf")),
            ("tftp://h/ltsp/amd64/lts.conf", "../x/./y",           Some("tftp://h/ltsp/x/y")),
            ("tftp://h/lts.conf",            "../../x",            Some("tftp://h/x")), // never above the top
            ("tftp://h:6969/a/b",            "/x//y",              Some("tftp://h:6969/x/y")),
            ("tftp://h/a/b",                 "rack 7.conf",        Some("tftp://h/a/rack 7.conf")),
            ("tftp://h/a/b",                 "http://i/x?y=z",     Some("http://i/x?y=z")),
            ("http://h/a/b?mac=/x/y",        "c",                  Some("http://h/a/c")),
            ("http://h/a/b",                 "/rack 7/é?x=a b/..", Some("http://h/rack%207/%C3%A9?x=a%20b/..")),
            ("http://h/a/b",                 "%20{x}",             Some("http://h/a/%20%7Bx%7D")),
            ("http://h/a/b",                 "c#d",                None),
            ("https://h/a/b",                "file:/etc/shadow",   None),
            ("https://h/a/b",                "file:///etc/shadow", None),
            ("tftp://h/a/b",                 "a\u{7}",             None),
            ("tftp://h/a/b",                 "nfs://h/x",          None),
            ("file:/etc/lts.conf",           "lts.d/a.conf",       Some("file:/etc/lts.d/a.conf")),
            ("file:/etc/lts.conf",           "../../srv/a",        Some("file:/srv/a")),
            ("file:/etc/lts.conf",           "file:/srv/a",        Some("file:/srv/a")),
        ];
        for (from, reference, expected) in cases {
            let url = from.parse::<Url>().unwrap().join(reference);
            let got = url.as_ref().ok().map(ToString::to_string);
            assert_eq!(got.as_deref(), expected, "{reference} in {from}: {url:?}");
        }
    }

    proptest! {
        #[test]
        fn no_reference_is_too_strange(reference in "(tftp|http|file|x)?:?[/.]{0,5}\\PC{0,30}") {
            let from = "http://h/a/b?c".parse::<Url>().unwrap();
            if let Ok(url) = from.join(&reference) {
                prop_assert_eq!(url.to_string().parse::<Url>().unwrap(), url);
            }
        }

        #[test]
        fn no_text_is_too_strange(text in "(tftp|http|file|x)?:?/{0,3}\\PC{0,30}") {
            if let Ok(url) = text.parse::<Url>() {
                prop_assert_eq!(url.to_string().parse::<Url>().unwrap(), url);
            }
        }
    }
}
