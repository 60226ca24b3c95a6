//! What was asked for: the values of `landfall.verity=` and of the keys that go with it.
//!
//! A word of these that cannot be understood stops the boot, unlike any other on the command line:
//! whoever wants a verified root does not want one that is not, for a typing error.

use std::fmt;

use crate::error::{Error, Result};
use crate::root::plan::NbdExport;

/// What was typed, key by key; the last one of a name counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerityRequest {
    /// `landfall.verity=`
    pub root_hash: Option<String>,
    /// `landfall.verity.hash-offset=`
    pub hash_offset: Option<String>,
    /// `landfall.verity.hash=`
    pub hash: Option<String>,
    /// `landfall.verity.on-corruption=`
    pub on_corruption: Option<String>,
}

/// A root of which every block is checked before it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerityPlan {
    pub root_hash: RootHash,
    pub place: TreePlace,
    pub on_corruption: OnCorruption,
}

/// Where the hash tree is, with its superblock in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreePlace {
    /// In the image; without an offset, where its file system ends.
    Image { offset: Option<u64> },
    /// In an export of its own, of any of these servers.
    Export { exports: Vec<NbdExport>, offset: u64 },
}

/// What the kernel does when a block is not what it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnCorruption {
    /// Who reads it gets EIO.
    #[default]
    Error,
    Reboot,
    /// For `panic=` and kdump to decide.
    Panic,
}

/// The digest that all others hang on. Which algorithm made it, the superblock says.
#[derive(Clone, PartialEq, Eq)]
pub struct RootHash(Vec<u8>);

impl VerityPlan {
    /// What the keys come to; `exports` finds the servers of a `nbd://…`, as for `root=`.
    ///
    /// # Errors
    /// A value cannot be read, or there is no root hash for what else was said.
    pub fn decide(
        request: &VerityRequest,
        exports: impl FnOnce(&str) -> Result<Vec<NbdExport>>,
    ) -> Result<Option<Self>> {
        let VerityRequest { root_hash, hash_offset, hash, on_corruption } = request;
        let Some(root_hash) = root_hash else {
            let others =
                [("hash-offset", hash_offset), ("hash", hash), ("on-corruption", on_corruption)];
            return match others.iter().find(|(_, value)| value.is_some()) {
                None => Ok(None),
                Some((key, _)) => Err(Error::invalid(
                    format!("reading landfall.verity.{key}="),
                    "there is no landfall.verity= beside it, and nothing would be verified",
                )
                .with_hint("add landfall.verity=ROOTHASH, as veritysetup format printed it")),
            };
        };
        let root_hash = read("landfall.verity", root_hash, RootHash::parse)?;
        let offset = hash_offset
            .as_deref()
            .map(|value| read("landfall.verity.hash-offset", value, parse_offset))
            .transpose()?;
        let on_corruption = on_corruption
            .as_deref()
            .map(|value| read("landfall.verity.on-corruption", value, OnCorruption::parse))
            .transpose()?
            .unwrap_or_default();
        let place = match hash {
            None => TreePlace::Image { offset },
            Some(value) => {
                let doing = || format!("reading landfall.verity.hash={value}");
                let exports = exports(value).map_err(|error| Error::new(doing(), error))?;
                TreePlace::Export { exports, offset: offset.unwrap_or(0) }
            }
        };
        Ok(Some(Self { root_hash, place, on_corruption }))
    }
}

fn read<T>(key: &str, value: &str, parse: fn(&str) -> Result<T, String>) -> Result<T> {
    parse(value).map_err(|why| Error::invalid(format!("reading {key}={value}"), why))
}

/// A place in bytes. Where superblocks can be: at sectors.
fn parse_offset(text: &str) -> Result<u64, String> {
    const SECTOR: u64 = 512;
    let offset = digits(text).ok_or("not a number of bytes")?;
    if offset.is_multiple_of(SECTOR) {
        Ok(offset)
    } else {
        Err(format!("not a multiple of {SECTOR} bytes"))
    }
}

/// Without the sign that `parse` would take.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl RootHash {
    /// From MD5's to SHA-512's: a shorter one has no algorithm that anybody should use.
    const SHORTEST: usize = 16;
    const LONGEST: usize = 64;

    fn parse(text: &str) -> Result<Self, String> {
        let digit =
            |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        if text.is_empty() {
            return Err("there is no root hash behind the =".into());
        }
        if let Some(odd) = text.chars().find(|c| !c.is_ascii_hexdigit()) {
            return Err(format!(
                "a root hash has digits from 0 to f, not '{}'",
                odd.escape_debug()
            ));
        }
        let bytes: Option<Vec<u8>> = text
            .as_bytes()
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
                _ => None,
            })
            .collect();
        match bytes {
            Some(bytes) if (Self::SHORTEST..=Self::LONGEST).contains(&bytes.len()) => {
                Ok(Self(bytes))
            }
            _ => Err(format!(
                "{} digits are no root hash (sha256 has 64); is it all there?",
                text.len()
            )),
        }
    }

    pub fn of(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Enough of it to tell two apart, in a line that still fits a console.
    pub fn shortened(&self) -> String {
        const KEPT: usize = 8;
        format!("{}…", hex(self.0.get(..KEPT).unwrap_or(&self.0)))
    }
}

/// As veritysetup writes it.
impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl OnCorruption {
    fn parse(text: &str) -> Result<Self, String> {
        let all = [Self::Error, Self::Reboot, Self::Panic];
        let found = all.into_iter().find(|one| one.word() == text);
        found.ok_or_else(|| "may be error, reboot or panic".into())
    }

    /// As after `landfall.verity.on-corruption=`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Reboot => "reboot",
            Self::Panic => "panic",
        }
    }

    /// The kernel's word for it, of those that follow a table's line.
    pub fn feature(self) -> Option<&'static str> {
        match self {
            Self::Error => None,
            Self::Reboot => Some("restart_on_corruption"),
            Self::Panic => Some("panic_on_corruption"),
        }
    }
}

/// For people: what happens where something is found.
impl fmt::Display for OnCorruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "an I/O error for who reads it",
            Self::Reboot => "a reboot",
            Self::Panic => "a panic",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256: &str = "e516f0f7e86b849e77e50aa306d9bc2a0593ddfd265713f2f090ff3106b0c5ea";

    fn exports(value: &str) -> Result<Vec<NbdExport>> {
        let host = value.strip_prefix("nbd://").ok_or_else(|| Error::invalid("-", "no nbd://"))?;
        Ok(vec![NbdExport { host: host.into(), port: 1, names: vec![], origin: String::new() }])
    }

    /// Root hash, offset, hash export, mode; then what comes of it.
    fn decided(words: [&str; 4]) -> String {
        let [root_hash, hash_offset, hash, on_corruption] =
            words.map(|word| (word != "-").then(|| word.to_owned()));
        let request = VerityRequest { root_hash, hash_offset, hash, on_corruption };
        match VerityPlan::decide(&request, exports) {
            Ok(None) => "none".into(),
            Ok(Some(plan)) => {
                let place = match &plan.place {
                    TreePlace::Image { offset: None } => "at the end".into(),
                    TreePlace::Image { offset: Some(offset) } => format!("at {offset}"),
                    TreePlace::Export { exports, offset } => {
                        format!("{} at {offset}", exports[0].host)
                    }
                };
                format!("{} {place} {:?}", plan.root_hash.shortened(), plan.on_corruption)
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    #[rustfmt::skip]
    fn keys_are_read_and_nothing_is_ignored() {
        let sha512 = SHA256.repeat(2);
        let upper = SHA256.to_uppercase();
        let cases = [
            (["-", "-", "-", "-"],                       "none"),
            ([SHA256, "-", "-", "-"],                    "e516f0f7e86b849e… at the end Error"),
            ([&upper, "-", "-", "-"],                    "e516f0f7e86b849e… at the end Error"),
            ([&sha512, "-", "-", "-"],                   "e516f0f7e86b849e… at the end Error"),
            ([SHA256, "0", "-", "error"],                "e516f0f7e86b849e… at 0 Error"),
            ([SHA256, "4096", "-", "reboot"],            "e516f0f7e86b849e… at 4096 Reboot"),
            ([SHA256, "-", "nbd://a", "panic"],          "e516f0f7e86b849e… a at 0 Panic"),
            ([SHA256, "8192", "nbd://a", "-"],           "e516f0f7e86b849e… a at 8192 Error"),
            // Half a request is no request for an unverified root.
            (["-", "4096", "-", "-"],                    "reading landfall.verity.hash-offset=: there is no landfall.verity= beside it, and nothing would be verified"),
            (["-", "-", "nbd://a", "-"],                 "reading landfall.verity.hash=: there is no landfall.verity= beside it, and nothing would be verified"),
            (["-", "-", "-", "error"],                   "reading landfall.verity.on-corruption=: there is no landfall.verity= beside it, and nothing would be verified"),
            (["", "-", "-", "-"],                        "reading landfall.verity=: there is no root hash behind the ="),
            (["e516", "-", "-", "-"],                    "reading landfall.verity=e516: 4 digits are no root hash (sha256 has 64); is it all there?"),
            (["e516f", "-", "-", "-"],                   "reading landfall.verity=e516f: 5 digits are no root hash (sha256 has 64); is it all there?"),
            (["0x16", "-", "-", "-"],                    "reading landfall.verity=0x16: a root hash has digits from 0 to f, not 'x'"),
            (["e5é1", "-", "-", "-"],                    "reading landfall.verity=e5é1: a root hash has digits from 0 to f, not 'é'"),
            ([SHA256, "1000", "-", "-"],                 "reading landfall.verity.hash-offset=1000: not a multiple of 512 bytes"),
            ([SHA256, "+512", "-", "-"],                 "reading landfall.verity.hash-offset=+512: not a number of bytes"),
            ([SHA256, "", "-", "-"],                     "reading landfall.verity.hash-offset=: not a number of bytes"),
            ([SHA256, "99999999999999999999", "-", "-"], "reading landfall.verity.hash-offset=99999999999999999999: not a number of bytes"),
            ([SHA256, "-", "tftp://a", "-"],             "reading landfall.verity.hash=tftp://a: -: no nbd://"),
            ([SHA256, "-", "-", "restart"],              "reading landfall.verity.on-corruption=restart: may be error, reboot or panic"),
        ];
        for (words, expected) in cases {
            assert_eq!(decided(words), expected, "{words:?}");
        }
        let hash = RootHash::parse(&upper).unwrap();
        assert_eq!(hash.to_string(), SHA256);
    }

    /// One too long by a digit, or of an algorithm that nobody has.
    #[test]
    fn a_root_hash_has_from_32_to_128_digits() {
        for (digits, fine) in [(30, false), (32, true), (40, true), (128, true), (130, false)] {
            assert_eq!(RootHash::parse(&"a".repeat(digits)).is_ok(), fine, "{digits}");
        }
        assert!(RootHash::parse(&"a".repeat(65)).is_err());
    }
}
