//! lts.conf: text to settings.

mod settings;

pub use settings::{Origin, Setting, Settings};
