//! The options of a DHCPv6 message, read with the suspicion that bytes from a network deserve.
//!
//! Options are nested three deep at most (association, address, status), and are read so and no
//! deeper: there is nothing that could go round in circles.

use std::net::Ipv6Addr;

use crate::net::names::{self, MANY};

pub const SOLICIT: u8 = 1;
pub const ADVERTISE: u8 = 2;
pub const REQUEST: u8 = 3;
pub const CONFIRM: u8 = 4;
pub const RENEW: u8 = 5;
pub const REBIND: u8 = 6;
pub const REPLY: u8 = 7;
pub const RELEASE: u8 = 8;
pub const DECLINE: u8 = 9;
pub const INFORMATION_REQUEST: u8 = 11;

pub const CLIENT_ID: u16 = 1;
pub const SERVER_ID: u16 = 2;
pub const IA_NA: u16 = 3;
pub const IA_ADDRESS: u16 = 5;
pub const REQUEST_LIST: u16 = 6;
pub const PREFERENCE: u16 = 7;
pub const ELAPSED_TIME: u16 = 8;
pub const STATUS: u16 = 13;
pub const RAPID_COMMIT: u16 = 14;
pub const USER_CLASS: u16 = 15;
pub const VENDOR_CLASS: u16 = 16;
pub const DNS_SERVERS: u16 = 23;
pub const DOMAIN_LIST: u16 = 24;
pub const SNTP_SERVERS: u16 = 31;
pub const INFORMATION_REFRESH: u16 = 32;
pub const CLIENT_FQDN: u16 = 39;
pub const NTP_SERVER: u16 = 56;
pub const BOOT_FILE_URL: u16 = 59;
pub const BOOT_FILE_PARAMS: u16 = 60;
pub const CLIENT_ARCH: u16 = 61;
pub const CLIENT_INTERFACE: u16 = 62;
pub const SOL_MAX_RT: u16 = 82;
pub const INF_MAX_RT: u16 = 83;

/// What a server says of a request, or of a part of it (RFC 8415 section 21.13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub code: Code,
    /// The server's own words.
    pub words: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Success,
    UnspecFail,
    NoAddrsAvail,
    NoBinding,
    NotOnLink,
    UseMulticast,
    Other(u16),
}

impl Status {
    const SUCCESS: Self = Self { code: Code::Success, words: None };

    pub fn is_success(&self) -> bool {
        self.code == Code::Success
    }

    /// `it has no address left for this machine ("subnet full")`
    pub fn sentence(&self) -> String {
        let sentence = match self.code {
            Code::Success => "it agrees".to_owned(),
            Code::UnspecFail => "it cannot, and does not say why".to_owned(),
            Code::NoAddrsAvail => "it has no address for this machine".to_owned(),
            Code::NoBinding => "it does not know this machine's address".to_owned(),
            Code::NotOnLink => "the address is not one for this link".to_owned(),
            Code::UseMulticast => "it wants to be asked by multicast".to_owned(),
            Code::Other(code) => format!("status {code}"),
        };
        match &self.words {
            Some(words) => format!("{sentence} (\"{words}\")"),
            None => sentence,
        }
    }
}

/// Options in order of appearance.
#[derive(Debug)]
pub struct Options<'a>(Vec<(u16, &'a [u8])>);

/// IA_NA.
#[derive(Debug)]
pub struct Found {
    pub t1: u32,
    pub t2: u32,
    pub status: Status,
    pub addresses: Vec<Part>,
}

#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub address: Ipv6Addr,
    pub preferred: u32,
    pub valid: u32,
}

impl<'a> Options<'a> {
    /// `None` when an option claims more bytes than there are, or something is left over: the
    /// message was cut, and its end may have been the important part.
    pub fn read(mut bytes: &'a [u8]) -> Option<Self> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let (&[c, d, l, m], rest) = bytes.split_first_chunk::<4>()?;
            let (value, rest) = rest.split_at_checked(u16::from_be_bytes([l, m]).into())?;
            all.push((u16::from_be_bytes([c, d]), value));
            bytes = rest;
        }
        Some(Self(all))
    }

    pub fn all(&self, code: u16) -> Vec<&'a [u8]> {
        self.0.iter().filter(|(number, _)| *number == code).map(|(_, value)| *value).collect()
    }

    /// The first, where RFC 8415 allows one and a server sends more.
    pub fn bytes(&self, code: u16) -> Option<&'a [u8]> {
        self.0.iter().find(|(number, _)| *number == code).map(|(_, value)| *value)
    }

    pub fn byte(&self, code: u16) -> Option<u8> {
        match self.bytes(code)? {
            [byte] => Some(*byte),
            _ => None,
        }
    }

    pub fn u32(&self, code: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.bytes(code)?.try_into().ok()?))
    }

    pub fn text(&self, code: u16) -> Option<String> {
        names::text(self.bytes(code)?)
    }

    /// Each address once; `::` left out.
    pub fn addresses(&self, code: u16) -> Vec<Ipv6Addr> {
        addresses(self.bytes(code).unwrap_or_default())
    }

    /// Success where there is none; `None` when it is too short to have a code.
    pub fn status(&self) -> Option<Status> {
        let Some(bytes) = self.bytes(STATUS) else { return Some(Status::SUCCESS) };
        let (code, words) = bytes.split_first_chunk::<2>()?;
        let code = match u16::from_be_bytes(*code) {
            0 => Code::Success,
            1 => Code::UnspecFail,
            2 => Code::NoAddrsAvail,
            3 => Code::NoBinding,
            4 => Code::NotOnLink,
            5 => Code::UseMulticast,
            other => Code::Other(other),
        };
        let words = names::text(words).map(|words| words.chars().take(200).collect());
        Some(Status { code, words })
    }

    /// The association with this number. `None` when it is damaged, `Some(None)` when it is not
    /// there; those with other numbers are other links' and are not looked at.
    pub fn associations(&self, iaid: u32) -> Option<Option<Found>> {
        for value in self.all(IA_NA) {
            let (number, rest) = value.split_first_chunk::<4>()?;
            if u32::from_be_bytes(*number) == iaid {
                let found = found(rest)?;
                // Section 21.4: with these times it counts as absent.
                let is_sane = found.t1 <= found.t2 || found.t2 == 0;
                return Some(is_sane.then_some(found));
            }
        }
        Some(None)
    }

    /// Option 56 (RFC 5908): addresses, and names. Multicast groups are for those who can wait.
    pub fn ntp(&self) -> (Vec<Ipv6Addr>, Vec<String>) {
        let (mut servers, mut by_name) = (Vec::new(), Vec::new());
        for value in self.all(NTP_SERVER) {
            for (kind, value) in Options::read(value).map(|inner| inner.0).unwrap_or_default() {
                match kind {
                    1 => servers.extend(addresses(value).into_iter().take(1)),
                    3 => by_name.extend(names::name(value).map(|(name, _)| name)),
                    _ => {}
                }
            }
        }
        servers.truncate(MANY);
        by_name.truncate(MANY);
        (servers, by_name)
    }

    /// Option 60: none when any is cut or no text.
    pub fn boot_params(&self) -> Vec<String> {
        let mut bytes = self.bytes(BOOT_FILE_PARAMS).unwrap_or_default();
        let mut params = Vec::new();
        while !bytes.is_empty() && params.len() < MANY {
            let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return Vec::new() };
            let length = usize::from(u16::from_be_bytes(*length));
            let Some((value, rest)) = rest.split_at_checked(length) else { return Vec::new() };
            match names::text(value) {
                Some(text) => params.push(text),
                None => return Vec::new(),
            }
            bytes = rest;
        }
        params
    }

    /// Option 39: a name behind flags.
    pub fn fqdn(&self) -> Option<String> {
        let (_flags, name) = self.bytes(CLIENT_FQDN)?.split_first()?;
        names::name(name).map(|(name, _)| name)
    }
}

fn found(value: &[u8]) -> Option<Found> {
    let (t1, rest) = value.split_first_chunk::<4>()?;
    let (t2, rest) = rest.split_first_chunk::<4>()?;
    let (t1, t2) = (u32::from_be_bytes(*t1), u32::from_be_bytes(*t2));
    let inner = Options::read(rest)?;
    let mut parts = Vec::new();
    for value in inner.all(IA_ADDRESS) {
        let (address, rest) = value.split_first_chunk::<16>()?;
        let (preferred, rest) = rest.split_first_chunk::<4>()?;
        let (valid, rest) = rest.split_first_chunk::<4>()?;
        if Options::read(rest)?.status()?.is_success() {
            parts.push(Part {
                address: Ipv6Addr::from(*address),
                preferred: u32::from_be_bytes(*preferred),
                valid: u32::from_be_bytes(*valid),
            });
        }
    }
    Some(Found { t1, t2, status: inner.status()?, addresses: parts })
}

fn addresses(bytes: &[u8]) -> Vec<Ipv6Addr> {
    let (chunks, rest) = bytes.as_chunks::<16>();
    let mut addresses = Vec::new();
    if !rest.is_empty() {
        return addresses;
    }
    for chunk in chunks {
        let address = Ipv6Addr::from(*chunk);
        let is_known = addresses.contains(&address);
        if !address.is_unspecified() && !is_known && addresses.len() < MANY {
            addresses.push(address);
        }
    }
    addresses
}
