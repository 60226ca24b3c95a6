//! Where the root image is, and how it becomes a block device that can be mounted.

mod nbd;
mod partitions;
mod plan;
mod probe;
mod size;

pub use plan::{NbdExport, RamMode, RootPlan, RootSource};
