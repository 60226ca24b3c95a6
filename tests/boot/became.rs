//! What a machine became, and in what it differs from one that booted the same root through another
//! image.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use landfall_tests::Node;
use landfall_tests::protocol::{Mount, State};
use serde_json::Value;

/// Facts by name, each as a text; what depends on time and chance is left out.
pub struct Became(BTreeMap<String, String>);

/// In what a machine must differ from one with our image, and why.
pub struct Known {
    /// How the names of such facts begin.
    name: &'static str,
    /// What it is instead, where not just anything will do.
    value: Option<&'static str>,
    why: &'static str,
}

impl Known {
    pub const fn any(name: &'static str, why: &'static str) -> Self {
        Self { name, value: None, why }
    }

    pub const fn exactly(name: &'static str, value: &'static str, why: &'static str) -> Self {
        Self { name, value: Some(value), why }
    }

    fn covers(&self, name: &str, value: Option<&String>) -> bool {
        name.starts_with(self.name)
            && self.value.is_none_or(|known| value.is_some_and(|value| value == known))
    }
}

/// Names that the boot's link has: from the kernel, and from udev.
const LINK: [&str; 2] = ["eth0", "enp0s3"];

/// Where the boot writes for those who come after it.
const LEFT_FILES: &str =
    "cd /run && find landfall net-*.conf -printf '%p %y %m %U %G %l\\n' | sort";

impl Became {
    /// Of a Debian root, after `multi-user.target`.
    pub fn of(node: &Node<'_>) -> Result<Self> {
        let state = node.state()?;
        let mut facts = BTreeMap::new();
        let mut say = |name: String, value: String| facts.insert(name, without_link_name(&value));

        for (target, mount) in mounts(&state) {
            say(format!("mount {target}"), mount);
        }
        for link in state.links.iter().filter(|link| link.name != "lo") {
            say(format!("link {}", link.mac), format!("{} {:?}", link.up, link.addresses));
        }
        // networkd adds one to each gateway, as soon as it has had its own answer from DHCP.
        for route in state.routes.iter().filter(|route| !route.to.ends_with("/32")) {
            say(format!("route {}", route.to), format!("{:?} {}", route.via, route.link));
        }
        for entry in &state.environment {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            say(format!("environment {name}"), value.to_owned());
        }
        let arguments = state.arguments.iter().map(|argument| without_descriptor(argument));
        say("arguments".into(), format!("{:?}", arguments.collect::<Vec<_>>()));
        say("host name".into(), state.host_name);

        let report: Value = serde_json::from_str(&node.file("/run/landfall/report.json")?)?;
        for choice in report["choices"].as_array().context("no choices")? {
            say(format!("choice {}", choice["what"]), choice["value"].to_string());
        }
        say("warnings".into(), report["warnings"].to_string());
        for line in node.output(&["sh", "-c", LEFT_FILES])?.lines() {
            let (path, about) = line.split_once(' ').context("a path")?;
            say(format!("file /run/{}", without_link_name(path)), about.to_owned());
        }
        for path in ["/run/landfall/env", "/etc/fstab", "/etc/hosts", "/etc/resolv.conf"] {
            say(format!("contents {path}"), node.file(path)?);
        }
        let changed = "cd /cow/up && find etc ! -type d | grep -v '^etc/ssh/ssh_host' | sort";
        say("changed".into(), node.output(&["sh", "-c", changed])?);
        let failed = node.output(&["systemctl", "--failed", "--plain", "--no-legend"])?;
        let units: Vec<_> = failed.lines().filter_map(|l| l.split_whitespace().next()).collect();
        say("failed".into(), units.join(" "));
        Ok(Self(facts))
    }

    /// Nothing may be different from `ours` but for what is `known`, and each of those must be.
    pub fn is_like(&self, ours: &Self, known: &[Known]) -> Result<()> {
        let names = ours.0.keys().chain(self.0.keys());
        let mut differ: Vec<_> =
            names.filter(|name| ours.0.get(*name) != self.0.get(*name)).collect();
        differ.sort_unstable();
        differ.dedup();
        let mut faults = Vec::new();
        for name in &differ {
            if !known.iter().any(|known| known.covers(name, self.0.get(*name))) {
                faults.push(format!(
                    "{name}\n  {:?}\n  {:?}",
                    ours.0.get(*name),
                    self.0.get(*name)
                ));
            }
        }
        for Known { name: prefix, why, .. } in known {
            if !differ.iter().any(|name| name.starts_with(prefix)) {
                faults.push(format!("{prefix} is the same, although {why}"));
            }
        }
        ensure!(faults.is_empty(), "of ours, and of theirs:\n{}", faults.join("\n"));
        Ok(())
    }
}

/// What is mounted, by its target: the last one is the one that is seen.
pub fn mounts(state: &State) -> BTreeMap<String, String> {
    // Those of a service are there while it runs.
    let lasting = |mount: &&Mount| !mount.target.starts_with("/run/credentials/");
    let about = |mount: &Mount| {
        let mut options = mount.options.clone();
        // Shares of the memory, which kernels count before and after they have freed an image.
        if ["devtmpfs", "tmpfs"].contains(&mount.fstype.as_str()) {
            options.retain(|o| !o.starts_with("size=") && !o.starts_with("nr_inodes="));
            options.push(format!("{} tenths of the memory", tenths(mount, state)));
        }
        options.sort();
        options.dedup();
        format!("{} {} {}", mount.fstype, mount.source, options.join(","))
    };
    let mounts = state.mounts.iter().filter(lasting);
    mounts.map(|mount| (mount.target.clone(), about(mount))).collect()
}

/// How large a file system in memory may become.
fn tenths(mount: &Mount, state: &State) -> u64 {
    let kib = mount.option("size").and_then(|size| size.strip_suffix('k')?.parse::<u64>().ok());
    let total = state.memory.get("MemTotal").copied().unwrap_or(1).max(1);
    // Half of it unless somebody says otherwise, and then the kernel does not say it either.
    kib.map_or(5, |kib| ((kib << 10) * 10 + total / 2) / total)
}

fn without_link_name(text: &str) -> String {
    LINK.iter().fold(text.to_owned(), |text, name| text.replace(name, "LINK"))
}

/// How many files were open before it is nobody's business.
fn without_descriptor(argument: &str) -> &str {
    const DESCRIPTOR: &str = "--deserialize=";
    if argument.starts_with(DESCRIPTOR) { DESCRIPTOR } else { argument }
}
