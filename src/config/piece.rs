//! Parts of a file's text, without a copy of their own.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A part of a text that is kept as long as its parts are: a file for thousands of nodes has tens
/// of thousands of names and values, and to allocate each took longer than to find it.
#[derive(Clone)]
pub struct Piece {
    text: Arc<str>,
    from: u32,
    to: u32,
}

impl Piece {
    /// `part` without a copy if it is a part of `text`, else with one.
    pub(super) fn of(text: &Arc<str>, part: &str) -> Self {
        let from = part.as_ptr().addr().checked_sub(text.as_ptr().addr());
        let to = from.and_then(|from| from.checked_add(part.len()));
        if let (Some(from), Some(to)) = (from, to)
            && to <= text.len()
            && let (Ok(from), Ok(to)) = (u32::try_from(from), u32::try_from(to))
        {
            return Self { text: text.clone(), from, to };
        }
        Self::from(part)
    }

    pub fn as_str(&self) -> &str {
        // Both are between characters: they come from a part, or from the whole.
        self.text.get(self.from as usize..self.to as usize).unwrap_or_default()
    }
}

impl From<&str> for Piece {
    /// A copy; of a text beyond 4 GiB, which no file has, it is empty.
    fn from(text: &str) -> Self {
        let to = u32::try_from(text.len()).unwrap_or_default();
        Self { text: text.into(), from: 0, to }
    }
}

impl Deref for Piece {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

impl PartialEq for Piece {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Piece {}

impl PartialEq<str> for Piece {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Piece {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_shared_and_anything_else_is_copied() {
        let text: Arc<str> = "příliš žluťoučký".into();
        let elsewhere = text.to_string();
        for (part, shared) in [
            (&text[..], true),
            (&text[3..7], true),
            (&text[text.len()..], true),
            (&elsewhere[3..7], false),
            ("", false),
        ] {
            let piece = Piece::of(&text, part);
            assert_eq!(piece, *part);
            assert_eq!(Arc::ptr_eq(&piece.text, &text), shared, "{part:?}");
        }
        assert_eq!(Piece::from("x").to_string(), "x");
    }
}
