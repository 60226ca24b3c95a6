//! What the harness asks a machine, and what the machine answers: one JSON value a line, over the
//! second serial port.
//!
//! The machine speaks first ([`Hello`]), then answers each [`Request`] with one [`Reply`], in
//! order. Requests stay below 4 KiB, the input buffer of a Linux terminal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::checksum::TreeDigest;

/// The second serial port, as the guest sees it. Built into Debian's kernels, so that it works
/// with any initramfs, and independent of the network under test. On arm64 the console is a port
/// of another kind, with names of its own.
pub const PORT: &str = if cfg!(target_arch = "aarch64") { "/dev/ttyS0" } else { "/dev/ttyS1" };

/// Said once, as soon as the probe runs: as PID 1, or as a service after `multi-user.target`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    pub pid: u32,
    /// `/proc/uptime` at that moment.
    pub uptime_seconds: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    State,
    /// A text file.
    File(String),
    Info(String),
    /// The names in a directory, sorted.
    List(String),
    /// Everything below a directory, on its file system, read and summed.
    Tree(String),
    /// Writes a file anew.
    Write {
        path: String,
        text: String,
    },
    /// Gives every clean page cache page back, so that the next read goes to the device.
    DropCaches,
    /// A command with its arguments; PATH is searched.
    Run(Vec<String>),
    /// `reboot(2)` at once, without asking any init.
    PowerOff,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    State(Box<State>),
    Text(String),
    Info(Info),
    Names(Vec<String>),
    Tree(TreeDigest),
    Ran(Ran),
    Done,
    /// Could not; the words are those of the system.
    Failed(String),
}

/// The machine as its PID 1 has it now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub kernel: String,
    /// `/proc/cmdline`.
    pub command_line: String,
    /// Of PID 1.
    pub arguments: Vec<String>,
    /// Of PID 1, as `NAME=value`.
    pub environment: Vec<String>,
    /// Of PID 1: descriptor and what it is open on. Not the probe's own control port.
    pub open_files: Vec<(u32, String)>,
    pub mounts: Vec<Mount>,
    pub links: Vec<Link>,
    /// `/proc/net/route`, decoded.
    pub routes: Vec<Route>,
    /// Bytes, by the names of `/proc/meminfo`.
    pub memory: BTreeMap<String, u64>,
    pub processes: Vec<Process>,
    /// What the children that PID 1 has ever waited for used: the kernel keeps the sum across
    /// `execve`, so it also tells of children of the program that PID 1 was before.
    pub reaped_children: ChildrenUsage,
    /// `/proc/sys/kernel/tainted`.
    pub tainted: u64,
    pub host_name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The directory of the file system that is mounted here.
    pub root: String,
    pub target: String,
    pub fstype: String,
    pub source: String,
    /// Of the mount and of the file system.
    pub options: Vec<String>,
}

impl Mount {
    /// The value of `name=`, or an empty text for a bare `name`.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find_map(|option| match option.split_once('=') {
            Some((key, value)) => (key == name).then_some(value),
            None => (option == name).then_some(""),
        })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Link {
    pub name: String,
    pub mac: String,
    pub mtu: u32,
    pub carrier: bool,
    pub up: bool,
    /// `ADDRESS/PREFIX`, IPv4.
    pub addresses: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub link: String,
    /// `ADDRESS/PREFIX`; `0.0.0.0/0` is the default route.
    pub to: String,
    pub via: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    pub name: String,
    /// Empty for kernel threads.
    pub arguments: Vec<String>,
    pub kernel_thread: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildrenUsage {
    pub page_faults: i64,
    pub largest_kib: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    File,
    Directory,
    /// With its target.
    Link(String),
    Device,
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// `None`: ended by a signal.
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// What the probe has seen that watched the network from the boot on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Watched {
    /// To and fro over one connection.
    pub connection: Stall,
    /// Reads of the root's device.
    pub disk: Stall,
}

/// The longest that something took.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stall {
    pub longest_seconds: f64,
    /// `/proc/uptime` when that one began.
    pub at_uptime_seconds: f64,
    pub answers: u64,
    /// It has come to an end.
    pub error: Option<String>,
}
