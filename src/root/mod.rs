//! Where the root image is, and how it becomes a block device that can be mounted.

mod plan;

pub use plan::{NbdExport, RamMode, RootPlan, RootSource};
