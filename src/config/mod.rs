//! lts.conf: text to settings.
//!
//! [`load`] gets the text from where the plan or LTSP's rule says (`location`, `source`);
//! [`evaluate`] makes one machine's settings of it (`syntax`, `select`, `import`) without touching
//! anything. What the settings do to a root is `directives`' business.

mod evaluate;
mod import;
mod known;
mod location;
mod node;
mod order;
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
pub use reading::{Include, Reading, Substitution, Text, include_from_disk};
pub use select::Identity;
pub use settings::{Origin, Setting, Settings, means_yes};
pub use source::{Loaded, Source};
pub use syntax::{Bound, Document, Entry, Place, Problem, Quoting, Section, Severity};
