//! Sizes, as tmpfs and zram take them: `2G`, `512m`, `1048576`, `50%`.

use std::fmt::{self, Display, Formatter};

/// A number, and what it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    number: u64,
    /// As it is written; bytes if none.
    suffix: Option<char>,
}

impl Size {
    /// Reads a size that means something: 0 would be no bound at all, and what does not fit into
    /// 64 bits any.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let mut rest = text.strip_prefix(digits)?.chars();
        let size = Self { number: digits.parse().ok()?, suffix: rest.next() };
        let is_one = rest.next().is_none() && size.bytes(1 << 40).is_some_and(|bytes| bytes > 0);
        is_one.then_some(size)
    }

    /// Bytes; of a share, those of a memory of `memory` bytes.
    pub fn bytes(self, memory: u64) -> Option<u64> {
        let unit: u64 = match self.suffix {
            None => 1,
            Some('k' | 'K') => 1 << 10,
            Some('m' | 'M') => 1 << 20,
            Some('g' | 'G') => 1 << 30,
            Some('t' | 'T') => 1 << 40,
            Some('%') => {
                let share = u128::from(memory).checked_mul(u128::from(self.number))? / 100;
                return u64::try_from(share).ok();
            }
            Some(_) => return None,
        };
        self.number.checked_mul(unit)
    }

    /// Percent of the memory, if it is a share.
    pub fn share(self) -> Option<u64> {
        (self.suffix == Some('%')).then_some(self.number)
    }
}

/// The number anew: to a shell and to the kernel, zeros in front make it octal.
impl Display for Size {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number)?;
        self.suffix.map_or(Ok(()), |suffix| write!(f, "{suffix}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn a_size_is_said_as_for_tmpfs() {
        let cases = [
            ("2G",    Some(("2G", 2 << 30))),
            ("512m",  Some(("512m", 512 << 20))),
            ("1T",    Some(("1T", 1 << 40))),
            ("4096",  Some(("4096", 4096))),
            ("50%",   Some(("50%", 500))),
            ("08%",   Some(("8%", 80))), // not octal
            ("010G",  Some(("10G", 10 << 30))),
            ("",      None),
            ("G",     None),
            ("0",     None),
            ("0%",    None),
            ("50 %",  None),
            ("2GB",   None),
            ("2x",    None),
            ("-1G",   None),
            ("+1G",   None),
            ("99999999999999999999", None),
            ("99999999999999G", None),
        ];
        for (text, expected) in cases {
            let size = Size::parse(text);
            let got = size.map(|size| (size.to_string(), size.bytes(1000).unwrap()));
            assert_eq!(got, expected.map(|(text, bytes): (&str, u64)| (text.to_owned(), bytes)), "{text:?}");
        }
    }
}
