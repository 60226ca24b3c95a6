//! The handshake: from a fresh connection to an agreed export.
//!
//! Fixed newstyle with GO; EXPORT_NAME for servers without it. Works over anything that reads and
//! writes; deadlines are the stream's business. [`negotiate`] never asks for structured replies,
//! because the same socket may be given to the kernel, which does not speak them;
//! [`negotiate_structured`] is for connections that stay ours. On `Ok` the stream stands at the
//! first byte of the transmission phase.

use std::fmt::Display;
use std::io::{self, Read, Write};

use super::protocol::{self as nbd, Flags, Info, Opt, Reply, ReplyHeader};
use crate::error::{Error, Result, WhileDoing};
use crate::root::size::Size;

/// An export as its server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The one of the names asked for that the server knows.
    pub name: String,
    pub description: Option<String>,
    pub size_bytes: u64,
    pub flags: Flags,
    pub blocks: Blocks,
}

/// Sizes that requests must keep to, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Offsets and lengths are multiples of it; a power of two up to 64 KiB.
    pub minimum: u32,
    pub preferred: u32,
    /// Longest request.
    pub maximum: u32,
}

impl Blocks {
    /// Longest aligned request. The protocol lets `maximum` be all ones.
    pub fn longest(self) -> u32 {
        self.maximum.saturating_sub(self.maximum.checked_rem(self.minimum).unwrap_or(0))
    }

    /// The request that a server takes for `length` bytes at `offset` of an export of `size`
    /// bytes: start and length, grown to whole blocks.
    pub fn around(self, offset: u64, length: u64, size: u64) -> (u64, u64) {
        let minimum = u64::from(self.minimum).max(1);
        let start = offset.saturating_sub(offset % minimum);
        let end = offset.saturating_add(length).checked_next_multiple_of(minimum);
        (start, end.unwrap_or(size).min(size).saturating_sub(start))
    }
}

impl Default for Blocks {
    /// What the protocol assumes of a server that says nothing.
    fn default() -> Self {
        Self { minimum: 1, preferred: 4096, maximum: 32 << 20 }
    }
}

/// How a handshake can end without an error.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Agreed(Export),
    /// A server too old for GO closed the connection after the first name, which is all it can
    /// say about an export that it does not know; other names need another connection.
    HungUp,
}

/// Most names that are kept of a server's list.
const MOST_LISTED: usize = 1024;
/// Most pieces of information about one export; the protocol knows four kinds.
const MOST_INFOS: usize = 64;
/// Longest answer to an option: a name, a description and their lengths.
const LONGEST_REPLY: usize = 2 * nbd::LONGEST_STRING + 64;

/// Asks `peer` for the first of `names` that it knows.
///
/// An unknown export is not transient: the error names those that the server does offer.
pub fn negotiate(
    stream: &mut (impl Read + Write),
    peer: &dyn Display,
    names: &[String],
) -> Result<Outcome> {
    let mut talk = Talk { stream, peer, dialect: Dialect::Simple };
    match talk.greet()? {
        Style::Fixed { zeroes } => talk.ask_for_any(names, zeroes),
        Style::NamesOnly { zeroes } => talk.export_name(first(names), zeroes),
    }
}

/// How a server answers in the transmission phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Simple,
    /// In pieces, holes left out.
    Structured {
        /// The number of `base:allocation`, if the server knows what it has allocated.
        allocation: Option<u32>,
    },
}

/// [`negotiate`] for a connection that never goes to the kernel: in as rich a dialect as the server
/// speaks.
pub fn negotiate_structured(
    stream: &mut (impl Read + Write),
    peer: &dyn Display,
    names: &[String],
) -> Result<(Outcome, Dialect)> {
    let mut talk = Talk { stream, peer, dialect: Dialect::Simple };
    let outcome = match talk.greet()? {
        Style::Fixed { zeroes } => {
            talk.ask_for_structured_replies()?;
            talk.ask_for_any(names, zeroes)
        }
        Style::NamesOnly { zeroes } => talk.export_name(first(names), zeroes),
    };
    Ok((outcome?, talk.dialect))
}

enum Style {
    Fixed { zeroes: bool },
    NamesOnly { zeroes: bool },
}

/// Answer to GO for one name.
enum Went {
    Agreed(Export),
    NoSuchName(Error),
    NoSuchOption,
}

struct Talk<'a, S> {
    stream: &'a mut S,
    peer: &'a dyn Display,
    dialect: Dialect,
}

impl<S: Read + Write> Talk<'_, S> {
    fn greet(&mut self) -> Result<Style> {
        let peer = self.peer;
        let doing = || format!("greeting {peer}");
        let magic: [u8; 8] = self.bytes().while_doing(doing)?;
        if magic != nbd::NBD_MAGIC {
            let why = format!("this is no NBD server: it says \"{}\"", nbd::text(&magic));
            return Err(Error::invalid(doing(), why).with_hint("is the port right?"));
        }
        let style: [u8; 8] = self.bytes().while_doing(doing)?;
        if style == nbd::OLDSTYLE_MAGIC {
            let why = "the server speaks the protocol of before 2011, which has no export names";
            return Err(
                Error::refused(doing(), why).with_hint("update it, or start nbdkit without -o")
            );
        }
        if style != nbd::OPTION_MAGIC {
            return Err(Error::invalid(doing(), "neither an old nor a new NBD server"));
        }
        let offered = u16::from_be_bytes(self.bytes().while_doing(doing)?);
        let flags = offered & (nbd::FIXED_NEWSTYLE | nbd::NO_ZEROES);
        self.send(&u32::from(flags).to_be_bytes()).while_doing(doing)?;
        let zeroes = flags & nbd::NO_ZEROES == 0;
        Ok(if flags & nbd::FIXED_NEWSTYLE != 0 {
            Style::Fixed { zeroes }
        } else {
            Style::NamesOnly { zeroes }
        })
    }

    fn ask_for_any(&mut self, names: &[String], zeroes: bool) -> Result<Outcome> {
        let mut denied = None;
        for name in names {
            self.ask_for_allocation(name)?;
            match self.go(name)? {
                Went::Agreed(export) => return Ok(Outcome::Agreed(export)),
                Went::NoSuchOption => return self.ask_by_list(names, zeroes),
                // The first name is the one that was typed.
                Went::NoSuchName(error) => denied = denied.or(Some(error)),
            }
        }
        let denied =
            denied.unwrap_or_else(|| Error::refused(self.asking(""), "no name to ask for"));
        let offered = self.list();
        self.leave();
        Err(match offered {
            Ok(Some(offered)) => denied.with_hint(hint(&offered)),
            // The refusal is worth more than the reason why there is no list.
            Ok(None) | Err(_) => denied,
        })
    }

    fn ask_for_structured_replies(&mut self) -> Result<()> {
        let peer = self.peer;
        let doing = || format!("asking {peer} for structured replies");
        self.send(&nbd::option(Opt::StructuredReply, &[])).while_doing(doing)?;
        // Whatever else it says, it goes on as if it had not been asked.
        if self.reply(Opt::StructuredReply).while_doing(doing)?.0.reply == Reply::Ack {
            self.dialect = Dialect::Structured { allocation: None };
        }
        Ok(())
    }

    /// A context holds for the export that GO names next, so each name asks anew. A server that
    /// refuses has no map, or no such export, which GO will find out.
    fn ask_for_allocation(&mut self, name: &str) -> Result<()> {
        let Dialect::Structured { .. } = self.dialect else { return Ok(()) };
        let peer = self.peer;
        let doing = || format!("asking {peer} for its map of \"{name}\"");
        let question = nbd::option(Opt::SetMetaContext, &nbd::set_meta_context(name));
        self.send(&question).while_doing(doing)?;
        let mut number = None;
        for _ in 0..MOST_INFOS {
            let (header, data) = self.reply(Opt::SetMetaContext).while_doing(doing)?;
            match header.reply {
                Reply::MetaContext => match nbd::parse_meta_context(&data) {
                    Some((id, context)) if context == nbd::BASE_ALLOCATION.as_bytes() => {
                        number = Some(id);
                    }
                    _ => return Err(Error::invalid(doing(), "a map that nobody asked for")),
                },
                Reply::Ack => {
                    self.dialect = Dialect::Structured { allocation: number };
                    return Ok(());
                }
                _ => {
                    self.dialect = Dialect::Structured { allocation: None };
                    return Ok(());
                }
            }
        }
        Err(Error::invalid(doing(), "maps without end"))
    }

    /// For servers without GO: EXPORT_NAME ends the connection when the name is wrong, so a server
    /// that can list its exports is asked for the list first.
    fn ask_by_list(&mut self, names: &[String], zeroes: bool) -> Result<Outcome> {
        let Some(offered) = self.list()? else {
            return self.export_name(first(names), zeroes);
        };
        let known = names.iter().find(|name| offered.iter().any(|o| o == name.as_bytes()));
        // The empty name is the default export, which a list need not contain.
        match known.or_else(|| names.iter().find(|name| name.is_empty())) {
            Some(name) => {
                self.ask_for_allocation(name)?;
                self.export_name(name, zeroes)
            }
            None => {
                self.leave();
                Err(Error::refused(self.asking(first(names)), "unknown export")
                    .with_hint(hint(&offered)))
            }
        }
    }

    fn go(&mut self, name: &str) -> Result<Went> {
        let peer = self.peer;
        let doing = || asking(peer, name);
        self.send(&nbd::option(Opt::Go, &nbd::go(name))).while_doing(doing)?;
        let (mut size, mut description, mut blocks) = (None, None, Blocks::default());
        for _ in 0..MOST_INFOS {
            let (header, data) = self.reply(Opt::Go).while_doing(doing)?;
            let said = nbd::text(&data);
            let refused = |why: &str| {
                let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
                Error::refused(doing(), format!("{why}{said}"))
            };
            match header.reply {
                Reply::Info => match nbd::parse_info(&data) {
                    Some(Info::Export { size: bytes, flags }) => size = Some((bytes, flags)),
                    Some(Info::BlockSize { minimum, preferred, maximum }) => {
                        blocks = checked_blocks(minimum, preferred, maximum)
                            .map_err(|why| Error::invalid(doing(), why))?;
                    }
                    Some(Info::Description(text)) => description = Some(text),
                    // The canonical name may differ ("" is some export); what we asked for is
                    // what works again after a reconnect.
                    Some(Info::Name(_) | Info::Other(_)) => {}
                    None => return Err(Error::invalid(doing(), "malformed export information")),
                },
                Reply::Ack => {
                    let (size, flags) =
                        size.ok_or_else(|| Error::invalid(doing(), "agreed without a size"))?;
                    let export = checked_export(name, size, flags, blocks, description)
                        .map_err(|why| Error::invalid(doing(), why))?;
                    return Ok(Went::Agreed(export));
                }
                Reply::Unsupported => return Ok(Went::NoSuchOption),
                Reply::Unknown => return Ok(Went::NoSuchName(refused("unknown export"))),
                Reply::Policy => {
                    return Ok(Went::NoSuchName(refused("the server does not give it to us")));
                }
                Reply::Shutdown => {
                    let why = crate::error::Cause::NotNow("the server is shutting down".into());
                    return Err(Error::new(doing(), why));
                }
                Reply::TlsRequired => {
                    return Err(refused("the server wants TLS")
                        .with_hint("this version speaks plain NBD only"));
                }
                Reply::Invalid
                | Reply::Platform
                | Reply::BlockSizeRequired
                | Reply::TooBig
                | Reply::OtherError(_) => {
                    return Err(refused(&format!("the server answers {:?}", header.reply)));
                }
                Reply::Server | Reply::MetaContext | Reply::Other(_) => {
                    let why = format!("an answer that fits no question ({:?})", header.reply);
                    return Err(Error::invalid(doing(), why));
                }
            }
        }
        Err(Error::invalid(doing(), "export information without end"))
    }

    /// The names of all exports; `None` when the server keeps them to itself.
    fn list(&mut self) -> Result<Option<Vec<Vec<u8>>>> {
        let peer = self.peer;
        let doing = || format!("asking {peer} for its list of exports");
        self.send(&nbd::option(Opt::List, &[])).while_doing(doing)?;
        let mut names = Vec::new();
        while names.len() < MOST_LISTED {
            let (header, data) = self.reply(Opt::List).while_doing(doing)?;
            match header.reply {
                Reply::Server => {
                    let name = nbd::parse_listed(&data)
                        .ok_or_else(|| Error::invalid(doing(), "malformed name"))?;
                    names.push(name.to_owned());
                }
                Reply::Ack => return Ok(Some(names)),
                _ => return Ok(None),
            }
        }
        Err(Error::invalid(doing(), "a list without end"))
    }

    fn export_name(&mut self, name: &str, zeroes: bool) -> Result<Outcome> {
        let peer = self.peer;
        let doing = || asking(peer, name);
        self.send(&nbd::option(Opt::ExportName, name.as_bytes())).while_doing(doing)?;
        let bytes: [u8; 10] = match self.bytes() {
            Err(error) if hung_up(&error) => return Ok(Outcome::HungUp),
            answer => answer.while_doing(doing)?,
        };
        if zeroes {
            let _: [u8; nbd::ZEROES] = self.bytes().while_doing(doing)?;
        }
        let (size, flags) = nbd::parse_export(&bytes)
            .ok_or_else(|| Error::invalid(doing(), "malformed export information"))?;
        checked_export(name, size, flags, Blocks::default(), None)
            .map(Outcome::Agreed)
            .map_err(|why| Error::invalid(doing(), why))
    }

    /// Politeness: the server logs a hang-up as an error. Whether it still listens is its affair.
    fn leave(&mut self) {
        let _ = self.send(&nbd::option(Opt::Abort, &[]));
    }

    fn reply(&mut self, asked: Opt) -> io::Result<(ReplyHeader, Vec<u8>)> {
        let header = nbd::parse_reply_header(&self.bytes()?)
            .ok_or_else(|| io::Error::other("the answer is not of the NBD protocol"))?;
        if header.option != asked as u32 {
            return Err(io::Error::other("the answer belongs to another question"));
        }
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        if length > LONGEST_REPLY {
            return Err(io::Error::other(format!("an answer of {length} bytes is too long")));
        }
        let mut data = vec![0; length];
        self.stream.read_exact(&mut data).map_err(plain)?;
        Ok((header, data))
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).map_err(plain)?;
        Ok(bytes)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    fn asking(&self, name: &str) -> String {
        asking(self.peer, name)
    }
}

fn asking(peer: &dyn Display, name: &str) -> String {
    match name {
        "" => format!("asking {peer} for its default export"),
        name => format!("asking {peer} for export \"{name}\""),
    }
}

/// The empty name is the protocol's own for "the export you would choose".
fn first(names: &[String]) -> &str {
    names.first().map_or("", String::as_str)
}

fn hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// std's words for an early end are about its buffer, not about a server.
pub(super) fn plain(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        io::Error::new(io::ErrorKind::UnexpectedEof, "the server hung up")
    } else {
        error
    }
}

fn hint(offered: &[Vec<u8>]) -> String {
    const MOST_SHOWN: usize = 12;
    let names: Vec<_> =
        offered.iter().take(MOST_SHOWN).map(|name| format!("\"{}\"", nbd::text(name))).collect();
    match offered.len().saturating_sub(MOST_SHOWN) {
        _ if names.is_empty() => "the server offers no exports".into(),
        0 => format!("the server offers {}", names.join(", ")),
        more => format!("the server offers {} and {more} more", names.join(", ")),
    }
}

fn checked_blocks(minimum: u32, preferred: u32, maximum: u32) -> Result<Blocks, String> {
    const LARGEST_MINIMUM: u32 = 64 << 10;
    let sane = minimum.is_power_of_two()
        && minimum <= LARGEST_MINIMUM
        && preferred >= minimum
        && maximum >= preferred;
    if sane {
        Ok(Blocks { minimum, preferred, maximum })
    } else {
        Err(format!("block sizes {minimum}, {preferred}, {maximum} contradict each other"))
    }
}

fn checked_export(
    name: &str,
    size_bytes: u64,
    flags: Flags,
    blocks: Blocks,
    description: Option<String>,
) -> Result<Export, String> {
    if size_bytes == 0 {
        return Err("the export is empty".into());
    }
    // Offsets of files and devices are signed.
    if i64::try_from(size_bytes).is_err() {
        return Err(format!("an export of {} cannot be", Size(size_bytes)));
    }
    if !flags.has(Flags::HAS_FLAGS) {
        return Err("the export's flags are not valid".into());
    }
    Ok(Export { name: name.to_owned(), description, size_bytes, flags, blocks })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    /// A server that has said everything beforehand.
    struct Script {
        says: Cursor<Vec<u8>>,
        heard: Vec<u8>,
    }

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.says.read(buffer)
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.heard.extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn talk(says: &[Vec<u8>], names: &[&str]) -> (Result<Outcome>, Vec<u8>) {
        let mut script = Script { says: Cursor::new(says.concat()), heard: Vec::new() };
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        (negotiate(&mut script, &"server", &names), script.heard)
    }

    fn talk_structured(says: &[Vec<u8>], names: &[&str]) -> (Result<(Outcome, Dialect)>, Vec<u8>) {
        let mut script = Script { says: Cursor::new(says.concat()), heard: Vec::new() };
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        (negotiate_structured(&mut script, &"server", &names), script.heard)
    }

    fn greeting(flags: u16) -> Vec<u8> {
        [&b"NBDMAGICIHAVEOPT"[..], &flags.to_be_bytes()].concat()
    }

    fn reply(option: Opt, kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = 0x0003_e889_0455_65a9u64.to_be_bytes().to_vec();
        bytes.extend((option as u32).to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        bytes
    }

    fn go_error(number: u32) -> Vec<u8> {
        reply(Opt::Go, 1 << 31 | number, b"")
    }

    fn info_export(size: u64, flags: u16) -> Vec<u8> {
        let data = [&[0, 0][..], &size.to_be_bytes(), &flags.to_be_bytes()].concat();
        reply(Opt::Go, 3, &data)
    }

    fn info_blocks(minimum: u32, preferred: u32, maximum: u32) -> Vec<u8> {
        let sizes = [minimum, preferred, maximum].map(u32::to_be_bytes).concat();
        reply(Opt::Go, 3, &[&[0, 3][..], &sizes].concat())
    }

    fn listed(name: &str) -> Vec<u8> {
        let data = [&(name.len() as u32).to_be_bytes()[..], name.as_bytes()].concat();
        reply(Opt::List, 2, &data)
    }

    fn ack(option: Opt) -> Vec<u8> {
        reply(option, 1, b"")
    }

    fn old_export(size: u64, flags: u16) -> Vec<u8> {
        [&size.to_be_bytes()[..], &flags.to_be_bytes()].concat()
    }

    const FIXED: u16 = nbd::FIXED_NEWSTYLE | nbd::NO_ZEROES;
    const NO_BLOCKS: Blocks = Blocks { minimum: 1, preferred: 4096, maximum: 32 << 20 };

    #[test]
    #[rustfmt::skip]
    fn every_kind_of_server_comes_to_an_agreement() {
        let go = |name: &str| nbd::option(Opt::Go, &nbd::go(name));
        let export_name = |name: &str| nbd::option(Opt::ExportName, name.as_bytes());
        let list = || nbd::option(Opt::List, &[]);
        let hello = |flags: u16| u32::from(flags).to_be_bytes().to_vec();
        let cases = [
            ("GO with all information",
             vec![greeting(FIXED), info_export(8192, 0x103), info_blocks(512, 4096, 1 << 20), ack(Opt::Go)],
             vec!["img"], "img", Blocks { minimum: 512, preferred: 4096, maximum: 1 << 20 },
             vec![hello(3), go("img")]),
            ("GO with nothing but the size",
             vec![greeting(FIXED), info_export(8192, 3), ack(Opt::Go)],
             vec![""], "", NO_BLOCKS, vec![hello(3), go("")]),
            ("the second spelling is known (C81a)",
             vec![greeting(FIXED), go_error(6), info_export(8192, 3), ack(Opt::Go)],
             vec!["/img", "img"], "img", NO_BLOCKS, vec![hello(3), go("/img"), go("img")]),
            ("no GO, but a list",
             vec![greeting(FIXED), go_error(1), listed("other"), listed("img"), ack(Opt::List), old_export(8192, 3)],
             vec!["/img", "img"], "img", NO_BLOCKS, vec![hello(3), go("/img"), list(), export_name("img")]),
            ("no GO, no list, zeroes",
             vec![greeting(1), go_error(1), reply(Opt::List, 1 << 31 | 2, b""), old_export(8192, 3), vec![0; 124]],
             vec!["img"], "img", NO_BLOCKS, vec![hello(1), go("img"), list(), export_name("img")]),
            ("newstyle of before it was fixed",
             vec![greeting(0), old_export(8192, 1), vec![0; 124]],
             vec!["img"], "img", NO_BLOCKS, vec![hello(0), export_name("img")]),
        ];
        for (case, says, names, name, blocks, asked) in cases {
            let (outcome, heard) = talk(&says, &names);
            let Outcome::Agreed(export) = outcome.unwrap() else { panic!("{case}: hung up") };
            assert_eq!((&*export.name, export.size_bytes, export.blocks), (name, 8192, blocks), "{case}");
            assert_eq!(heard, asked.concat(), "{case}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_connection_of_our_own_has_what_the_server_can() {
        let structured = || nbd::option(Opt::StructuredReply, &[]);
        let map_of = |name: &str| nbd::option(Opt::SetMetaContext, &nbd::set_meta_context(name));
        let go = |name: &str| nbd::option(Opt::Go, &nbd::go(name));
        let agreed = || vec![info_export(8192, 3), ack(Opt::Go)];
        let no = |option: Opt, number: u32| reply(option, 1 << 31 | number, b"");
        let context = |id: u8| reply(Opt::SetMetaContext, 4, &[&[0, 0, 0, id][..], b"base:allocation"].concat());
        let cases = [
            ("everything",
             [vec![ack(Opt::StructuredReply), context(9), ack(Opt::SetMetaContext)], agreed()].concat(),
             vec!["img"], Dialect::Structured { allocation: Some(9) }, vec![structured(), map_of("img"), go("img")]),
            ("no map of this export",
             [vec![ack(Opt::StructuredReply), ack(Opt::SetMetaContext)], agreed()].concat(),
             vec!["img"], Dialect::Structured { allocation: None }, vec![structured(), map_of("img"), go("img")]),
            ("no maps at all",
             [vec![ack(Opt::StructuredReply), no(Opt::SetMetaContext, 1)], agreed()].concat(),
             vec!["img"], Dialect::Structured { allocation: None }, vec![structured(), map_of("img"), go("img")]),
            ("the second spelling has the map",
             [vec![ack(Opt::StructuredReply), no(Opt::SetMetaContext, 6), go_error(6), context(0), ack(Opt::SetMetaContext)], agreed()].concat(),
             vec!["/img", "img"], Dialect::Structured { allocation: Some(0) },
             vec![structured(), map_of("/img"), go("/img"), map_of("img"), go("img")]),
            ("a map of an export that does not exist is forgotten",
             [vec![ack(Opt::StructuredReply), context(9), ack(Opt::SetMetaContext), go_error(6), no(Opt::SetMetaContext, 1)], agreed()].concat(),
             vec!["/img", "img"], Dialect::Structured { allocation: None },
             vec![structured(), map_of("/img"), go("/img"), map_of("img"), go("img")]),
            ("a server that knows simple replies only is not asked for maps",
             [vec![no(Opt::StructuredReply, 1)], agreed()].concat(),
             vec!["img"], Dialect::Simple, vec![structured(), go("img")]),
        ];
        for (case, says, names, dialect, asked) in cases {
            let (outcome, heard) = talk_structured(&[vec![greeting(FIXED)], says].concat(), &names);
            let (Outcome::Agreed(export), got) = outcome.unwrap() else { panic!("{case}: hung up") };
            assert_eq!((&*export.name, got), ("img", dialect), "{case}");
            assert_eq!(heard, [vec![3u32.to_be_bytes().to_vec()], asked].concat().concat(), "{case}");
        }
        let strange = reply(Opt::SetMetaContext, 4, b"\0\0\0\x01qemu:dirty");
        let (outcome, _) = talk_structured(&[greeting(FIXED), ack(Opt::StructuredReply), strange], &["img"]);
        assert!(outcome.unwrap_err().to_string().ends_with("a map that nobody asked for"));
        let endless = vec![context(1); 2 * MOST_INFOS];
        let (outcome, _) = talk_structured(&[vec![greeting(FIXED), ack(Opt::StructuredReply)], endless].concat(), &["img"]);
        assert!(outcome.unwrap_err().to_string().ends_with("maps without end"));
    }

    #[test]
    #[rustfmt::skip]
    fn a_refusal_says_what_to_do() {
        let offers = || vec![listed("jammy"), listed("noble"), ack(Opt::List)];
        let no_list = || vec![reply(Opt::List, 1 << 31 | 2, b"")];
        let cases = [
            (vec![greeting(FIXED), go_error(6)], offers(),
             "asking server for export \"focal\": refused: unknown export",
             Some("the server offers \"jammy\", \"noble\""), false),
            (vec![greeting(FIXED), go_error(6)], no_list(),
             "asking server for export \"focal\": refused: unknown export", None, false),
            (vec![greeting(FIXED), go_error(1)], offers(),
             "asking server for export \"focal\": refused: unknown export",
             Some("the server offers \"jammy\", \"noble\""), false),
            (vec![greeting(FIXED), reply(Opt::Go, 1 << 31 | 2, b"not\nyou")], no_list(),
             "asking server for export \"focal\": refused: the server does not give it to us (not you)",
             None, false),
            (vec![greeting(FIXED), go_error(7)], vec![],
             "asking server for export \"focal\": not now: the server is shutting down", None, true),
            (vec![greeting(FIXED), go_error(5)], vec![],
             "asking server for export \"focal\": refused: the server wants TLS",
             Some("this version speaks plain NBD only"), false),
            (vec![greeting(FIXED), go_error(77)], vec![],
             "asking server for export \"focal\": refused: the server answers OtherError(77)", None, false),
            (vec![greeting(FIXED), ack(Opt::Go)], vec![],
             "asking server for export \"focal\": agreed without a size", None, false),
            (vec![greeting(FIXED), info_export(0, 3), ack(Opt::Go)], vec![],
             "asking server for export \"focal\": the export is empty", None, false),
            (vec![greeting(FIXED), info_export(1 << 63, 3), ack(Opt::Go)], vec![],
             "asking server for export \"focal\": an export of 8.0 EiB cannot be", None, false),
            (vec![greeting(FIXED), info_export(8192, 2), ack(Opt::Go)], vec![],
             "asking server for export \"focal\": the export's flags are not valid", None, false),
            (vec![greeting(FIXED), info_blocks(4096, 512, 0)], vec![],
             "asking server for export \"focal\": block sizes 4096, 512, 0 contradict each other", None, false),
            (vec![greeting(FIXED), reply(Opt::List, 1, b"")], vec![],
             "asking server for export \"focal\": the answer belongs to another question", None, false),
            (vec![greeting(FIXED), reply(Opt::Go, 3, &[0; 70_000])], vec![],
             "asking server for export \"focal\": an answer of 70000 bytes is too long", None, false),
            (vec![b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53".to_vec()], vec![],
             "greeting server: refused: the server speaks the protocol of before 2011, which has no export names",
             Some("update it, or start nbdkit without -o"), false),
            (vec![b"SSH-2.0-OpenSSH_9.2".to_vec()], vec![],
             "greeting server: this is no NBD server: it says \"SSH-2.0-\"", Some("is the port right?"), false),
            (vec![], vec![], "greeting server: the server hung up", None, true),
            (vec![greeting(FIXED)], vec![],
             "asking server for export \"focal\": the server hung up", None, true),
        ];
        for (mut says, more, message, hint, transient) in cases {
            says.extend(more);
            let error = talk(&says, &["focal"]).0.expect_err(message);
            assert_eq!(error.to_string(), message);
            assert_eq!(error.hint(), hint, "{message}");
            assert_eq!(error.is_transient(), transient, "{message}");
        }
    }

    #[test]
    fn a_hang_up_after_export_name_leaves_the_other_names_to_try() {
        let (outcome, _) = talk(&[greeting(0)], &["/img", "img"]);
        assert_eq!(outcome.unwrap(), Outcome::HungUp);
    }

    #[test]
    #[rustfmt::skip]
    fn requests_grow_to_whole_blocks_and_stay_in_the_export() {
        let cases = [
            // minimum, offset, length, size, request
            (1,    100,   50,  1000, (100, 50)),
            (512,  100,   50,  4096, (0, 512)),
            (512,  500,   50,  4096, (0, 1024)),
            (512,  512,  512,  4096, (512, 512)),
            (4096,   0, 5000,  5000, (0, 5000)), // the export itself has no whole blocks
            (4096, 9000,   1,  5000, (8192, 0)), // beyond its end
        ];
        for (minimum, offset, length, size, request) in cases {
            let blocks = Blocks { minimum, ..Blocks::default() };
            let case = format!("{length} at {offset} of {size}, minimum {minimum}");
            assert_eq!(blocks.around(offset, length, size), request, "{case}");
        }
    }

    #[test]
    fn a_long_list_is_cut_in_the_hint() {
        let names: Vec<_> = (0..14).map(|n| n.to_string().into_bytes()).collect();
        assert!(hint(&names).ends_with("\"11\" and 2 more"));
        assert_eq!(hint(&[]), "the server offers no exports");
    }

    /// Replies that never end must not be read for ever.
    #[test]
    fn endless_answers_end() {
        let infos = vec![reply(Opt::Go, 3, b"\0\x01x"); 2 * MOST_INFOS];
        let (outcome, _) = talk(&[vec![greeting(FIXED)], infos].concat(), &["img"]);
        let message = "asking server for export \"img\": export information without end";
        assert_eq!(outcome.unwrap_err().to_string(), message);

        let names = vec![listed("x"); 2 * MOST_LISTED];
        let (outcome, _) = talk(&[vec![greeting(FIXED), go_error(6)], names].concat(), &["img"]);
        let message = "asking server for export \"img\": refused: unknown export";
        assert_eq!(outcome.unwrap_err().to_string(), message);
    }

    proptest! {
        #[test]
        fn hostile_bytes_end_in_an_answer(
            bytes in proptest::collection::vec(any::<u8>(), 0..256),
            prefix in 0usize..6,
        ) {
            let prefix = match prefix {
                0 => vec![],
                1 => greeting(FIXED),
                2 => greeting(0),
                3 => [greeting(FIXED), go_error(1)].concat(),
                4 => [greeting(FIXED), go_error(6)].concat(),
                _ => [greeting(FIXED), ack(Opt::StructuredReply)].concat(),
            };
            let _ = talk(&[prefix.clone(), bytes.clone()], &["img", "/img"]);
            let _ = talk_structured(&[prefix, bytes], &["img", "/img"]);
        }

        #[test]
        fn hostile_replies_end_in_an_answer(
            replies in proptest::collection::vec(
                (any::<bool>(), 0u32..12, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)),
                0..8,
            ),
        ) {
            let mut says = vec![greeting(FIXED)];
            says.extend(replies.into_iter().map(|(go, kind, error, data)| {
                let kind = if error { 1 << 31 | kind } else { kind };
                reply(if go { Opt::Go } else { Opt::List }, kind, &data)
            }));
            let _ = talk(&says, &["img", "/img"]);
        }

        #[test]
        fn hostile_replies_to_richer_questions_end_in_an_answer(
            replies in proptest::collection::vec(
                (0usize..3, 0u32..12, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)),
                0..8,
            ),
        ) {
            let mut says = vec![greeting(FIXED), ack(Opt::StructuredReply)];
            says.extend(replies.into_iter().map(|(option, kind, error, data)| {
                let kind = if error { 1 << 31 | kind } else { kind };
                reply([Opt::SetMetaContext, Opt::Go, Opt::List][option], kind, &data)
            }));
            let _ = talk_structured(&says, &["img", "/img"]);
        }
    }
}
