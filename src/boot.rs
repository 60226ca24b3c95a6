//! The boot as a list of stages.

/// A stage of the boot, in order; `break=` and the report use these names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Machine,
    Network,
    Config,
    Root,
    Overlay,
    Directives,
    Handover,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Network => "network",
            Self::Config => "config",
            Self::Root => "root",
            Self::Overlay => "overlay",
            Self::Directives => "directives",
            Self::Handover => "handover",
        }
    }

    /// Our own names, and those of initramfs-tools for people whose fingers know them.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "network" | "top" | "modules" | "premount" => Self::Network,
            "config" => Self::Config,
            "root" | "mount" | "mountroot" => Self::Root,
            "overlay" => Self::Overlay,
            "directives" | "bottom" => Self::Directives,
            "handover" | "init" => Self::Handover,
            _ => return None,
        })
    }
}
