//! lts.conf: text to settings.
//!
//! [`Configuration`] gets the files from where the plan or LTSP's rule says (`location`, `source`);
//! a [`Reading`] has them parsed (`syntax`), and makes one machine's settings of them (`select`,
//! `import`, `evaluate`) without touching anything. What the settings do to a root is `directives`'
//! business.

mod cursor;
mod evaluate;
mod import;
mod known;
mod location;
pub mod network;
mod node;
mod order;
mod piece;
mod problem;
mod reading;
mod select;
mod settings;
mod source;
mod syntax;

pub use evaluate::{Evaluation, evaluate};
pub use known::{KNOWN, Known, Standing, Topic, Value, nearest, remarks};
pub use location::{Location, Placeholders, debian_arch};
pub use node::{Configuration, base};
pub(crate) use order::version_order;
pub use piece::Piece;
pub use problem::{Bound, Place, Problem, Severity};
pub use reading::{FromDisk, Include, Reading, Substitution, Text, include_from_disk};
pub use select::Identity;
pub use settings::{Origin, Setting, Settings, is_true, means_yes};
pub use source::{LIMIT, Loaded, Source, load};
pub use syntax::{Document, Entry, Quoting, Section};
