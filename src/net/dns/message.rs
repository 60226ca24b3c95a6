//! Questions and answers of DNS on the wire (RFC 1035 section 4, RFC 3596). Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const A: u16 = 1;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const AAAA: u16 = 28;
const INTERNET: u16 = 1;
/// A name of 255 bytes has no more labels (RFC 1035 section 3.1).
const MOST_LABELS: usize = 127;
const MOST_ADDRESSES: usize = 16;
const LONGEST_CHAIN: usize = 8;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    fn record(self) -> u16 {
        match self {
            Self::Ipv4 => A,
            Self::Ipv6 => AAAA,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Addresses(Vec<IpAddr>),
    /// There is no such name, or it has no address of this family.
    Nothing,
    /// Another name that has to be asked for: the server does not follow aliases by itself.
    Alias(String),
    /// The whole answer must be fetched by TCP.
    Truncated,
    /// RCODE of RFC 1035 section 4.1.1.
    Failed(u8),
}

/// Whether it could be asked for.
pub fn is_name(name: &str) -> bool {
    question(0, name, Family::Ipv4).is_some()
}

/// The question for the addresses of `name`; `None` when it cannot be a name.
pub fn question(id: u16, name: &str, family: Family) -> Option<Vec<u8>> {
    let mut bytes = id.to_be_bytes().to_vec();
    // Recursion desired; one question.
    bytes.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
    if name.len() > 253 {
        return None;
    }
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        if !label.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        bytes.push(length);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(family.record().to_be_bytes());
    bytes.extend(INTERNET.to_be_bytes());
    Some(bytes)
}

/// What `bytes` answer to the question `id` for `name`; `None` when they answer another one, or
/// are damaged, and the right answer may still come.
pub fn read(bytes: &[u8], id: u16, name: &str, family: Family) -> Option<Answer> {
    let mut reader = Reader { bytes, at: 0 };
    let (their_id, flags) = (reader.u16()?, reader.u16()?);
    let (questions, answers, authorities) = (reader.u16()?, reader.u16()?, reader.u16()?);
    reader.skip(2)?; // additional records
    let is_answer = flags & 0x8000 != 0;
    if their_id != id || !is_answer || questions != 1 {
        return None;
    }
    let asked = reader.name()?;
    if !asked.eq_ignore_ascii_case(name)
        || (reader.u16()?, reader.u16()?) != (family.record(), INTERNET)
    {
        return None;
    }
    if flags & 0x0200 != 0 {
        return Some(Answer::Truncated);
    }
    match u8::try_from(flags & 0x000f).unwrap_or_default() {
        0 => {}
        3 => return Some(Answer::Nothing),
        code => return Some(Answer::Failed(code)),
    }
    let mut addresses: Vec<(String, IpAddr)> = Vec::new();
    let mut aliases: Vec<(String, String)> = Vec::new();
    for _ in 0..answers {
        let Record { owner, kind, at, end } = reader.record()?;
        let data = bytes.get(at..end)?;
        match kind {
            A if family == Family::Ipv4 => {
                addresses.push((owner, Ipv4Addr::from(*data.as_array::<4>()?).into()));
            }
            AAAA if family == Family::Ipv6 => {
                addresses.push((owner, Ipv6Addr::from(*data.as_array::<16>()?).into()));
            }
            CNAME => {
                let mut reader = Reader { bytes, at };
                aliases.push((owner, reader.name()?.to_ascii_lowercase()));
            }
            _ => {}
        }
    }
    // Only what the name leads to counts: anything else in the answer is none of our business.
    let asked = name.to_ascii_lowercase();
    let mut name = asked.clone();
    for _ in 0..LONGEST_CHAIN {
        let found = addresses.iter().filter(|(owner, _)| *owner == name);
        let found: Vec<_> = found.map(|(_, address)| *address).take(MOST_ADDRESSES).collect();
        if !found.is_empty() {
            return Some(Answer::Addresses(found));
        }
        match aliases.iter().find(|(owner, _)| *owner == name) {
            Some((_, target)) => name.clone_from(target),
            // The start of authority says that the end of the chain has been looked at, and has
            // no such address (RFC 2308 section 2.2).
            None if name != asked && is_name(&name) && !reader.has_soa(authorities) => {
                return Some(Answer::Alias(name));
            }
            None => break,
        }
    }
    Some(Answer::Nothing)
}

/// A resource record of the class internet; its data is from `at` to `end`.
struct Record {
    owner: String,
    kind: u16,
    at: usize,
    end: usize,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn u8(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at = self.at.checked_add(1)?;
        Some(byte)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.u8()?, self.u8()?]))
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.at = self.at.checked_add(count)?;
        (self.at <= self.bytes.len()).then_some(())
    }

    fn record(&mut self) -> Option<Record> {
        let owner = self.name()?.to_ascii_lowercase();
        let (kind, class) = (self.u16()?, self.u16()?);
        self.skip(4)?; // time to live
        let length = usize::from(self.u16()?);
        let at = self.at;
        self.skip(length)?;
        // 0 is reserved, and nobody's.
        let kind = if class == INTERNET { kind } else { 0 };
        Some(Record { owner, kind, at, end: self.at })
    }

    fn has_soa(&mut self, records: u16) -> bool {
        (0..records).map_while(|_| self.record()).any(|record| record.kind == SOA)
    }

    /// A name in its usual spelling. Compression pointers must point backwards, so they end.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut after = None;
        let mut limit = self.at;
        for _ in 0..=MOST_LABELS {
            match self.u8()? {
                0 => {
                    self.at = after.unwrap_or(self.at);
                    return Some(name);
                }
                length @ 1..=63 => {
                    let end = self.at.checked_add(usize::from(length))?;
                    let label = std::str::from_utf8(self.bytes.get(self.at..end)?).ok()?;
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.push_str(label);
                    self.at = end;
                }
                high @ 0xc0.. => {
                    let low = self.u8()?;
                    after.get_or_insert(self.at);
                    let target = usize::from(u16::from_be_bytes([high & 0x3f, low]));
                    if target >= limit {
                        return None;
                    }
                    limit = target;
                    self.at = target;
                }
                _ => return None,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An answer to "boot.lan" with these flags and records, each without its owner's end.
    fn answer(flags: u16, records: &[&[u8]]) -> Vec<u8> {
        answer_of(Family::Ipv4, flags, records, &[])
    }

    fn answer_of(family: Family, flags: u16, records: &[&[u8]], authority: &[&[u8]]) -> Vec<u8> {
        let mut bytes = question(7, "boot.lan", family).unwrap();
        bytes[2..4].copy_from_slice(&flags.to_be_bytes());
        bytes[7] = records.len() as u8;
        bytes[9] = authority.len() as u8;
        bytes.extend(records.concat());
        bytes.extend(authority.concat());
        bytes
    }

    const OK: u16 = 0x8180;
    /// Owner: pointer to the question at 12.
    const ADDRESS: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01";
    const ALIAS: &[u8] = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x06\x03nas\xc0\x11";
    const ADDRESS_OF_ALIAS: &[u8] = b"\x03NAS\xc0\x11\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x02";
    const ADDRESS_OF_NOBODY: &[u8] = b"\x04evil\0\0\x01\0\x01\0\0\0\x3c\0\x04\x06\x06\x06\x06";
    const ADDRESS_OF_SIX: &[u8] =
        b"\xc0\x0c\0\x1c\0\x01\0\0\0\x3c\0\x10\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01";
    const AUTHORITY: &[u8] = b"\xc0\x11\0\x06\0\x01\0\0\0\x3c\0\x02xx";
    const LOOP: &[u8] = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x02\xc0\x0c";
    const TEXT: &[u8] = b"\xc0\x0c\0\x10\0\x01\0\0\0\x3c\0\x02\x01x";
    const POINTS_AT_ITSELF: &[u8] = b"\xc0\x1a\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01";

    #[test]
    #[rustfmt::skip]
    fn answers_are_read_with_suspicion() {
        let found = |last| Some(Answer::Addresses(vec![Ipv4Addr::new(10, 0, 0, last).into()]));
        let cases = [
            ("an address",                   answer(OK, &[ADDRESS]),                    found(1)),
            ("other types are passed over",  answer(OK, &[TEXT, ADDRESS]),              found(1)),
            ("through an alias",             answer(OK, &[ALIAS, ADDRESS_OF_ALIAS]),    found(2)),
            ("in any order",                 answer(OK, &[ADDRESS_OF_ALIAS, ALIAS]),    found(2)),
            ("an alias of nothing",          answer_of(Family::Ipv4, OK, &[ALIAS], &[AUTHORITY]), Some(Answer::Nothing)),
            ("an alias of another zone",     answer(OK, &[ALIAS]),                      Some(Answer::Alias("nas.lan".into()))),
            ("an alias with a name server",  answer_of(Family::Ipv4, OK, &[ALIAS], &[TEXT]), Some(Answer::Alias("nas.lan".into()))),
            ("an address of the other family", answer(OK, &[ADDRESS_OF_SIX]),           Some(Answer::Nothing)),
            ("an alias of itself",           answer(OK, &[LOOP]),                       Some(Answer::Nothing)),
            ("an address nobody asked for",  answer(OK, &[ADDRESS_OF_NOBODY]),          Some(Answer::Nothing)),
            ("a name without addresses",     answer(OK, &[]),                           Some(Answer::Nothing)),
            ("no such name",                 answer(0x8183, &[]),                       Some(Answer::Nothing)),
            ("the server failed",            answer(0x8182, &[]),                       Some(Answer::Failed(2))),
            ("does not fit",                 answer(0x8380, &[]),                       Some(Answer::Truncated)),
            ("a question",                   answer(0x0100, &[]),                       None),
            ("an endless name",              answer(OK, &[POINTS_AT_ITSELF]),           None),
            ("cut short",                    answer(OK, &[&ADDRESS[..9]]),              None),
        ];
        for (case, bytes, expected) in cases {
            assert_eq!(read(&bytes, 7, "boot.lan", Family::Ipv4), expected, "{case}");
        }
        assert_eq!(read(&answer(OK, &[ADDRESS]), 8, "boot.lan", Family::Ipv4), None, "another question's number");
        assert_eq!(read(&answer(OK, &[ADDRESS]), 7, "root.lan", Family::Ipv4), None, "another question");
        assert_eq!(read(&answer(OK, &[ADDRESS]), 7, "BOOT.lan", Family::Ipv4), found(1), "case does not matter");
    }

    #[test]
    fn the_other_family_is_another_question() {
        let six = |records| answer_of(Family::Ipv6, OK, records, &[]);
        let found = Some(Answer::Addresses(vec!["fd00::1".parse().unwrap()]));
        assert_eq!(read(&six(&[ADDRESS_OF_SIX]), 7, "boot.lan", Family::Ipv6), found);
        assert_eq!(read(&six(&[ADDRESS]), 7, "boot.lan", Family::Ipv6), Some(Answer::Nothing));
        assert_eq!(read(&six(&[ADDRESS_OF_SIX]), 7, "boot.lan", Family::Ipv4), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = read(&bytes, 7, "boot.lan", Family::Ipv4);
            for family in [Family::Ipv4, Family::Ipv6] {
                let many = answer_of(family, OK, &[&bytes, ALIAS, &bytes], &[&bytes]);
                let _ = read(&many, 7, "boot.lan", family);
            }
        }

        #[test]
        fn no_name_makes_it_panic(name in ".{0,300}") {
            let _ = question(7, &name, Family::Ipv6);
        }
    }
}
