//! The plan of one node, as it is printed: `--format json` prints these types, and the text is
//! rendered from them, so both say the same.
//!
//! Programs read this: fields are added, and none is renamed or removed without another number in
//! [`SCHEMA`]. `plan.schema.json` beside this folder is generated from the types by a test.

use std::collections::BTreeMap;

use serde::Serialize;

/// Version of the format.
pub const SCHEMA: u32 = 1;

/// What one node would do with its next boot.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Document {
    /// Version of this format: 1.
    pub schema: u32,
    /// Version of the program.
    pub version: String,
    pub node: Node,
    /// The kernel command line that the plan is for.
    pub command_line: String,
    /// Sentences: what is not known here, and what was assumed instead.
    pub unknown: Vec<String>,
    pub network: Network,
    pub configuration: Configuration,
    /// Names of the sections in force, strongest first.
    pub sections: Vec<String>,
    /// By name.
    pub settings: BTreeMap<String, Setting>,
    /// Settings whose value a shell of the node decides, which does not run here.
    pub deferred: Vec<String>,
    /// Null if it is not known which image the node would boot.
    pub root: Option<Root>,
    pub image: Image,
    /// The name the node gives itself; null if it is not known.
    pub hostname: Option<String>,
    pub modules: Vec<Module>,
    pub commands: Commands,
    /// What becomes of the root's files, in order.
    pub files: Vec<File>,
    /// Names of services that are removed, whether or not the image has them.
    pub services_removed: Vec<String>,
    pub units: Units,
    /// Swap of a server; null if there is none.
    pub swap: Option<Swap>,
    pub memory: Memory,
    pub handover: Handover,
    /// What a person should mend.
    pub problems: Vec<Problem>,
}

#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Node {
    /// `52:54:00:aa:bb:cc`.
    pub mac: Option<String>,
    /// What DHCP or `ip=` gives it.
    pub address: Option<String>,
    /// The name that DHCP or `ip=` gives it.
    pub hostname: Option<String>,
    /// SMBIOS system UUID.
    pub uuid: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Network {
    pub method: Method,
    /// Which links take part: `every Ethernet link`, a name, or the port with a MAC address.
    pub links: String,
    /// What the kernel command line says of links, addresses and routes.
    pub described: Vec<Described>,
    /// The same with the settings `NET_*`; null if they change nothing.
    pub configured: Option<Vec<Described>>,
    /// Who looks after the network of the running system.
    pub handover: HandoverMode,
    /// The one that others know: of IPv4, or of IPv6 if there is none. Null if DHCP or a router
    /// decides it.
    pub address: Option<String>,
    pub prefix: Option<u8>,
    pub gateway: Option<String>,
    /// Addresses of IPv6, with their prefix.
    pub ipv6: Vec<String>,
    pub ipv6_gateway: Option<String>,
    /// Address that DHCP is asked for.
    pub requested: Option<String>,
    pub dns: Vec<String>,
    pub search: Vec<String>,
    pub ntp: Vec<String>,
    pub boot_server: Option<String>,
    /// Null if it is not known, or for ever.
    pub lease_seconds: Option<u32>,
    /// Whether all is known that DHCP would say.
    pub complete: bool,
}

/// A link, what is asked for it, or a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Described {
    /// Name of a link, or what takes its place.
    pub about: String,
    /// In words.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum HandoverMode {
    /// The running system renews the lease.
    Dhcp,
    /// The lease becomes an address that needs no server.
    Static,
    /// The running system keeps its hands off.
    Unmanaged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// A DHCP server or routers are asked.
    Dhcp,
    Static,
}

#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Configuration {
    /// The file, then what it includes.
    pub files: Vec<String>,
    /// Where the node looks for it, in this order.
    pub addresses: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Setting {
    pub value: String,
    pub origin: Origin,
    /// Null if it is not from a file.
    pub file: Option<String>,
    /// 1-based; null if it is not from a file.
    pub line: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    File,
    /// The kernel command line.
    CommandLine,
    /// The lease, or a static `ip=`.
    Dhcp,
    /// Landfall itself.
    Agent,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Root {
    pub host: String,
    pub port: u16,
    /// Names of the export, tried in this order; the empty one is the server's default.
    pub exports: Vec<String>,
    /// Who says so.
    pub origin: String,
    /// Further servers of the same image, in the order in which this node asks them.
    pub mirrors: Vec<String>,
    /// Whether the image is copied to memory before it is started; streamed if not.
    pub copied: bool,
    /// Whether it is copied to memory behind the running system.
    pub lazily: bool,
    /// Most bytes a second that such a copy reads; null: as many as are left over.
    pub rate: Option<u64>,
    /// What happens while no server answers, as after `landfall.lost=`.
    pub lost: String,
    /// Null: what the server sends is believed.
    pub verity: Option<Verity>,
    pub partition: Option<u32>,
    /// Null: recognised by itself.
    pub filesystem: Option<String>,
    /// Mount options.
    pub flags: String,
}

/// How each block of the root is verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Verity {
    /// Hexadecimal.
    pub root_hash: String,
    /// Bytes from the beginning of what has the tree to its superblock; null: behind the file
    /// system.
    pub offset: Option<u64>,
    /// Servers of an export with nothing but the tree; none: it is in the image.
    pub servers: Vec<String>,
    /// What a changed block means: `error`, `reboot` or `panic`.
    pub on_corruption: String,
}

#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Image {
    /// As given; null if the plan was made without one.
    pub name: Option<String>,
    /// `squashfs 4.0 (zstd)`, `a folder`, `unknown`.
    pub description: String,
    /// Paths whose state in the image this plan depends on; filled only if the image is unknown.
    pub depends_on: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Module {
    pub name: String,
    pub parameters: String,
}

/// Shell commands of the operator, in the order in which they run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Commands {
    /// `INIT_COMMAND_`: after the host name, `/etc/hosts`, `/etc/resolv.conf` and the kernel
    /// modules, before all other settings look at the root's files.
    pub early: Vec<String>,
    /// `PREINIT_`: after all files are written, before the real init.
    pub late: Vec<String>,
    /// `RCFILE_`: by the real system, as the end of `/etc/rc.local`.
    pub rc_local: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct File {
    pub path: String,
    pub kind: Kind,
    /// Of a file, if it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contents: Option<String>,
    /// Of a file, if it is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// Octal; of a file or a directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Of a file: true if it takes the place of whatever is there. False if it is written through
    /// links into a file that is there, which then keeps its mode and owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<bool>,
    /// Root if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Of a link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Of what is copied: the folder whose contents are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    File,
    Link,
    Directory,
    Removed,
    Copied,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Owner {
    pub user: u32,
    pub group: u32,
}

/// Units of systemd that the files above start, keep from starting, or leave unstarted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Units {
    pub enabled: Vec<String>,
    pub disabled: Vec<String>,
    pub masked: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Swap {
    pub host: String,
    pub port: u16,
    /// Names of the export, tried in this order.
    pub exports: Vec<String>,
    /// With a key that nobody keeps.
    pub encrypted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Memory {
    /// Of the node; null if it was not given.
    pub total_bytes: Option<u64>,
    /// Of the image; null if it is not known.
    pub image_bytes: Option<u64>,
    /// The image is copied to memory.
    pub copied: bool,
    /// Whether that copy fits; null if that cannot be said, or nothing is copied.
    pub fits: Option<bool>,
    /// File systems in memory, and how much they may take.
    pub tmpfs: Vec<Tmpfs>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Tmpfs {
    /// `/` for the layer of changes.
    pub path: String,
    /// As tmpfs understands it: `50%`, `2G`.
    pub size: String,
    /// Null if it is a share of a memory whose size is not known.
    pub bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Handover {
    /// The real init; null if the image is not known, or has none.
    pub init: Option<String>,
    /// Tried in this order.
    pub candidates: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Problem {
    /// `kernel command line` for that; null if it has no one place.
    pub file: Option<String>,
    /// 1-based.
    pub line: Option<usize>,
    /// 1-based, in characters.
    pub column: Option<usize>,
    pub severity: Severity,
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It has been understood, but probably not as it was meant.
    Warning,
    /// What this line says is not in force.
    Error,
}
