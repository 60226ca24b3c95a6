//! The one table of settings: `check`, the hints about unknown names and the manual page walk it.

/// A setting that Landfall knows, or a family of them when the name ends with `_`.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub name: &'static str,
    pub value: Value,
    pub standing: Standing,
    /// As the manual shows it; empty if there is none.
    pub default: &'static str,
    pub manual: &'static str,
}

/// What a value must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    Text,
}

/// What becomes of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Applied,
    /// LTSP's, and of no meaning here; the reason, for people.
    Ignored(&'static str),
}

pub const KNOWN: &[Known] = &[];

impl Known {
    /// The row of a setting's name.
    pub fn find(name: &str) -> Option<&'static Self> {
        KNOWN.iter().find(|known| match known.name.ends_with('_') {
            true => name.starts_with(known.name),
            false => name == known.name,
        })
    }
}
