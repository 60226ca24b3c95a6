//! What is asked of the root stage, decided before it runs.

/// Where the image comes from and how it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootPlan {
    pub source: RootSource,
    pub ram: RamMode,
    /// `pN` of `root=/dev/nbd0pN`: the partition that holds the root, else it is looked for.
    pub partition: Option<u32>,
    /// `rootfstype=`; else recognised from the image's first bytes.
    pub fstype: Option<String>,
    /// `rootflags=`, mount options of the image.
    pub flags: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootSource {
    Nbd(NbdExport),
}

/// An export of an NBD server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdExport {
    /// Name or address.
    pub host: String,
    pub port: u16,
    /// Tried in this order: `root=` spellings in the wild disagree about a leading slash (C81a).
    /// Never empty; the empty name is the server's default export.
    pub names: Vec<String>,
    /// Who said so, for messages: `nbdroot= on the kernel command line`, `DHCP option 17`.
    pub origin: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RamMode {
    /// Blocks are read from the server when they are needed.
    Off,
    /// The whole image is copied into memory before the real init starts.
    Copy,
}
