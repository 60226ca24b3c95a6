//! Where the root image is, and how it becomes a block device that can be mounted.

mod nbd;
mod plan;
mod size;

pub use plan::{NbdExport, RamMode, RootPlan, RootSource};
