//! What a fixture may say. A word that is none of these is an error: a typing error would
//! otherwise be a case that proves nothing.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

/// One row of the conformance list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixture {
    /// `C3`, `C1a`.
    pub row: String,
    pub class: Class,
    /// Who would suffer, or what the rule is.
    pub why: String,
    /// What we do instead of what the row says, and why.
    pub differs: Option<String>,
    /// Tests elsewhere that show what no table can: `boot::ram::NAME`, `unit::net::mac::NAME`.
    #[serde(default)]
    pub proved_by: Vec<String>,
    /// The issue that the rest of the row belongs to, and what holds today.
    pub waits_for: Option<String>,
    #[serde(default, rename = "case")]
    pub cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
pub enum Class {
    /// As LTSP 5 did it.
    L,
    /// Better than LTSP 5 did it.
    D,
}

/// A node, its configuration, and what must come of the two. The node is the one of the list
/// unless the case says otherwise.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Case {
    pub name: String,
    /// What the boot server serves.
    pub lts_conf: Option<String>,
    /// The same, by the name of a file in `tests/fixtures`.
    pub lts_conf_file: Option<String>,
    /// `/etc/lts.conf` of the initramfs. That of the root image takes part only in a boot.
    pub lts_conf_of_image: Option<String>,
    /// Without `ltsp.` settings it is what the boot loader says of anything.
    pub cmdline: String,
    pub lease: Lease,
    pub mac: Option<String>,
    pub memory_mib: Option<u64>,
    /// Of the root image, by absolute path.
    pub image: BTreeMap<String, Item>,
    pub expect: Expect,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lease {
    /// `10.0.0.5/24`.
    pub address: Option<String>,
    /// `""`: none.
    pub hostname: Option<String>,
    pub dns: Vec<String>,
    pub domain: Option<String>,
    pub search: Vec<String>,
    pub root_path: Option<String>,
    pub next_server: Option<String>,
    pub filename: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, untagged)]
pub enum Item {
    Text(String),
    Program { program: String },
    Link { link: String },
}

/// What is not said here is not looked at, with two exceptions: nothing may be wrong with a
/// configuration, and no family may fail, unless it is said.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// Exactly what the file and the command line set.
    pub settings: Option<BTreeMap<String, String>>,
    /// Names that nobody sets, DHCP neither.
    pub unset: Vec<String>,
    /// True and false, as LTSP reads booleans.
    pub yes: Vec<String>,
    pub no: Vec<String>,
    /// All that is wrong, in order, each with a word of what is said about it.
    pub problems: Vec<Problem>,
    /// All families that fail.
    pub errors: Vec<Failure>,

    pub hostname: Option<String>,
    /// By absolute path.
    pub files: BTreeMap<String, File>,
    pub links: BTreeMap<String, String>,
    pub gone: Vec<String>,
    pub there: Vec<String>,
    pub services_removed: Option<usize>,
    /// Each with its parameters, if any.
    pub modules: Option<Vec<String>>,
    /// The PREINIT script, line by line.
    pub preinit: Option<Vec<String>>,
    /// What that script does under this machine's `sh`, in an empty folder that it knows as `$DIR`:
    /// that the lines are one script, in this order, and that a shell takes it for what it is. That
    /// the shell of a root runs it, with which variables, and what a boot makes of its status, only
    /// the tests of `directives::preinit` and a boot can say.
    pub shell: Option<Shell>,

    /// The address that is asked first for lts.conf.
    pub config: Option<String>,
    pub network: Option<Network>,
    pub root: Option<Root>,
    /// Whether the image is copied into memory.
    pub to_ram: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    pub line: usize,
    pub word: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    pub family: String,
    pub word: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// Exactly.
    pub text: Option<String>,
    /// Exactly, but for comments.
    pub lines: Option<Vec<String>>,
    pub ends: Option<Vec<String>>,
    /// Names that it runs under its own interpreter, in order, where it is made of bare names; one
    /// called `fails` does so.
    pub runs: Option<Vec<String>>,
    pub has: Vec<String>,
    pub lacks: Vec<String>,
    pub executable: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shell {
    pub files: BTreeMap<String, String>,
    pub gone: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// A MAC address or a device.
    pub port: Option<String>,
    /// `dhcp`, `dhcp 10.0.0.5`, `10.0.0.5/24 10.0.0.254`.
    pub addressing: Option<String>,
    pub boot_server: Option<String>,
    pub hostname: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// `10.0.0.1:10809`.
    pub server: String,
    /// In the order in which they are tried.
    pub exports: Vec<String>,
}

impl Fixture {
    /// # Panics
    /// The file is no fixture.
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("a readable fixture");
        toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}
