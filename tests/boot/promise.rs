//! What `landfall plan` promised of a node, against what the node became, file by file.
//!
//! The plan is made on the host, by the binary that the node booted with, from what an operator
//! has: the configuration, the image, and the node's lease, memory and command line.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use landfall_tests::{Node, workshop};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The part of `landfall plan --format json` that can be looked at in a node.
#[derive(Deserialize)]
pub struct Plan {
    settings: BTreeMap<String, Setting>,
    hostname: Option<String>,
    modules: Vec<Module>,
    files: Vec<File>,
    services_removed: Vec<String>,
    units: Units,
    memory: Memory,
    problems: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Setting {
    value: String,
}

#[derive(Deserialize)]
struct Module {
    name: String,
}

#[derive(Clone, Deserialize)]
struct File {
    path: String,
    kind: String,
    contents: Option<String>,
    mode: Option<String>,
    replaces: Option<bool>,
    owner: Option<Owner>,
    target: Option<String>,
    from: Option<String>,
}

#[derive(Clone, Deserialize)]
struct Owner {
    user: u32,
    group: u32,
}

#[derive(Deserialize)]
struct Units {
    enabled: Vec<String>,
    disabled: Vec<String>,
    masked: Vec<String>,
}

#[derive(Deserialize)]
struct Memory {
    tmpfs: Vec<Tmpfs>,
}

#[derive(Deserialize)]
struct Tmpfs {
    path: String,
    bytes: Option<u64>,
}

/// Of modules that the initramfs does not have; the plan cannot know which, it names them all.
const LEFT_TO_THE_ROOT: [&str; 2] =
    ["/etc/modules-load.d/landfall.conf", "/etc/modprobe.d/landfall.conf"];

/// Where the root can be seen without what is mounted on it.
const BARE: &str = "/run/bare-root";

impl Plan {
    /// Of the node that booted `image` with the configuration `config`; nothing may be wrong with it.
    pub fn of(node: &Node<'_>, config: &Path, image: &Path) -> Result<Self> {
        let state = node.state()?;
        let lease = config.with_extension("lease.json");
        std::fs::write(&lease, node.file("/run/landfall/lease.json")?)?;
        let memory = state.memory.get("MemTotal").context("no MemTotal")?;
        let output = Command::new(workshop::agent()?)
            .args(["plan", "--format", "json", "--memory", &memory.to_string()])
            .args(["--cmdline", state.command_line.trim()])
            .arg("--config")
            .arg(config)
            .arg("--lease")
            .arg(&lease)
            .arg("--image")
            .arg(image)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let plan: Self = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("the plan: {}: {said}", output.status))?;
        ensure!(output.status.success() && plan.problems.is_empty(), "{:#?}", plan.problems);
        Ok(plan)
    }

    /// Everything that was promised must be there, and nothing else in /etc may be new, but for
    /// `more`: what the running system made itself by now.
    pub fn is_kept(&self, node: &Node<'_>, more: &[&str]) -> Result<()> {
        node.output(&["sh", "-c", &format!("mkdir {BARE} && mount --bind / {BARE}")])?;
        let mut faults = Vec::new();
        self.files_are_there(node, &mut faults)?;
        self.nothing_else_is(node, more, &mut faults)?;
        self.settings_are_known(node, &mut faults)?;
        self.system_is_as_said(node, &mut faults)?;
        node.output(&["umount", BARE])?;
        ensure!(faults.is_empty(), "promised and not found:\n{}", faults.join("\n"));
        Ok(())
    }

    /// The last word about each path.
    fn outcome(&self) -> BTreeMap<&str, &File> {
        self.files.iter().map(|file| (file.path.as_str(), file)).collect()
    }

    fn files_are_there(&self, node: &Node<'_>, faults: &mut Vec<String>) -> Result<()> {
        let outcome = self.outcome();
        let paths: Vec<_> = outcome.keys().copied().collect();
        let found = Found::of(node, &paths)?;
        for (path, file) in &outcome {
            let found = found.get(path).with_context(|| format!("no word about {path}"))?;
            if let Some(fault) = fault(file, found, node)? {
                faults.push(format!("{path}: {fault}"));
            }
        }
        for file in self.files.iter().filter(|file| file.kind == "copied") {
            self.copied(file, node, faults)?;
        }
        Ok(())
    }

    /// A tree of the image, which later changes may have changed.
    fn copied(&self, file: &File, node: &Node<'_>, faults: &mut Vec<String>) -> Result<()> {
        let from = file.from.as_deref().context("copied from nowhere")?;
        let script = format!(
            "cd /rofs{from} && find . -mindepth 1 | while read -r name; do \
             to={BARE}/{}/$name; \
             [ \"$(stat -c '%a %u %g %F' \"$name\")\" = \"$(stat -c '%a %u %g %F' \"$to\")\" ] && \
             if [ -L \"$name\" ]; then [ \"$(readlink \"$name\")\" = \"$(readlink \"$to\")\" ]; \
             elif [ -f \"$name\" ]; then cmp -s \"$name\" \"$to\"; fi || echo \"$name\"; done",
            file.path.trim_matches('/')
        );
        let outcome = self.outcome();
        let different = node.output(&["sh", "-c", &script])?;
        for name in different.lines().map(|name| name.trim_start_matches("./")) {
            let path = format!("{}/{name}", file.path.trim_end_matches('/'));
            if !outcome.contains_key(path.as_str()) {
                faults.push(format!("{path}: it is not what is in {from}"));
            }
        }
        Ok(())
    }

    /// The layer for changes holds what the boot changed, and what the running system did since.
    fn nothing_else_is(
        &self,
        node: &Node<'_>,
        more: &[&str],
        faults: &mut Vec<String>,
    ) -> Result<()> {
        let outcome = self.outcome();
        let changed = node.output(&["find", "/cow/up/etc", "!", "-type", "d"])?;
        for path in changed.lines().filter_map(|path| path.strip_prefix("/cow/up")) {
            let copied = self.files.iter().filter(|file| file.kind == "copied").any(|file| {
                let name = path.strip_prefix(file.path.trim_end_matches('/'));
                let from = file.from.as_deref().unwrap_or_default();
                name.is_some_and(|name| node.exists(&format!("/rofs{from}{name}")).unwrap_or(false))
            });
            let of_modules = !self.modules.is_empty() && LEFT_TO_THE_ROOT.contains(&path);
            let known = outcome.contains_key(path) || copied || of_modules;
            if !known && !more.iter().any(|prefix| path.starts_with(prefix)) {
                faults.push(format!("{path}: nobody said that it would be changed"));
            }
        }
        Ok(())
    }

    fn settings_are_known(&self, node: &Node<'_>, faults: &mut Vec<String>) -> Result<()> {
        let mut found = BTreeMap::new();
        for line in node.file("/run/landfall/env")?.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.split_once('=').with_context(|| line.to_owned())?;
            let value = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\''));
            let value = value.with_context(|| line.to_owned())?.replace(r"'\''", "'");
            found.insert(name.to_owned(), value);
        }
        for (name, Setting { value }) in &self.settings {
            match found.remove(name) {
                Some(found) if found == *value => {}
                other => faults.push(format!("{name}: {value:?} was promised, and is {other:?}")),
            }
        }
        faults.extend(found.into_iter().map(|(name, value)| {
            format!("{name}: it is {value:?}, and nobody said that it would be set")
        }));
        Ok(())
    }

    fn system_is_as_said(&self, node: &Node<'_>, faults: &mut Vec<String>) -> Result<()> {
        let state = node.state()?;
        if let Some(name) = &self.hostname
            && *name != state.host_name
        {
            faults.push(format!("the node is called {}, and not {name}", state.host_name));
        }
        let loaded = node.file("/proc/modules")?;
        for Module { name } in &self.modules {
            let name = name.replace('-', "_");
            if !loaded.lines().any(|line| line.split(' ').next() == Some(&name)) {
                faults.push(format!("the module {name} is not loaded"));
            }
        }
        for name in &self.services_removed {
            for folder in ["/usr/lib/systemd/system", "/etc/systemd/system"] {
                let path = format!("{folder}/{name}.service");
                // Of a masked unit a link remains.
                if node.exists(&path)? && !self.outcome().contains_key(path.as_str()) {
                    faults.push(format!("{path} is there, and {name} should be removed"));
                }
            }
        }
        for (units, wanted) in [
            (&self.units.enabled, "enabled"),
            (&self.units.disabled, "disabled"),
            (&self.units.masked, "masked"),
        ] {
            for unit in units {
                let state = node.run(&["systemctl", "is-enabled", unit])?.stdout;
                if state.trim() != wanted {
                    faults.push(format!("{unit} is {}, and not {wanted}", state.trim()));
                }
            }
        }
        for Tmpfs { path, bytes } in &self.memory.tmpfs {
            let at = if path == "/" { "/cow" } else { path };
            let mount = node.mount(at)?;
            let size = mount.option("size").and_then(|size| size.strip_suffix('k'));
            let size = size.and_then(|size| size.parse::<u64>().ok()).map(|kib| kib << 10);
            // In whole pages.
            let right = match (size, bytes) {
                (Some(size), Some(bytes)) => size.abs_diff(*bytes) <= 4096,
                _ => true,
            };
            if mount.fstype != "tmpfs" || !right {
                faults
                    .push(format!("on {at} there is {mount:?}, and not {bytes:?} bytes of tmpfs"));
            }
        }
        Ok(())
    }
}

/// Where a path is to be looked at: what is mounted hides files of the root, and /run is mounted.
fn root_of(path: &str) -> &'static str {
    if path.starts_with("/run/") { "/" } else { BARE }
}

/// What is at a path, seen from [`root_of`] it.
struct Found {
    /// `st_mode`; none if nothing is there.
    mode: Option<u32>,
    user: u32,
    group: u32,
    target: String,
    /// SHA-256 of the contents, links followed.
    digest: String,
}

impl Found {
    /// In as few questions as fit the line to the machine.
    fn of<'p>(node: &Node<'_>, paths: &[&'p str]) -> Result<BTreeMap<&'p str, Self>> {
        const SCRIPT: &str = "for path in \"$@\"; do \
            stat --printf '%f %u %g|' \"$path\" 2>/dev/null || printf 'none 0 0|'; \
            printf '%s|' \"$(readlink \"$path\")\"; \
            [ -f \"$path\" ] && sha256sum <\"$path\" | cut -c -64 || echo; done";
        let mut all = BTreeMap::new();
        let mut rest = paths;
        while let Some(first) = rest.first() {
            let root = root_of(first);
            let mut length = 0;
            let fits = |path: &&&str| {
                length += path.len() + 3;
                length < 3000 && root_of(path) == root
            };
            let (some, others) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            rest = others;
            let words = [&["chroot", root, "sh", "-c", SCRIPT, "sh"], some].concat();
            let answer = node.output(&words)?;
            ensure!(answer.lines().count() == some.len(), "{some:?}: {answer}");
            for (path, line) in some.iter().zip(answer.lines()) {
                all.insert(*path, Self::parse(line).with_context(|| line.to_owned())?);
            }
        }
        Ok(all)
    }

    fn parse(line: &str) -> Option<Self> {
        let (stat, rest) = line.split_once('|')?;
        let (target, digest) = rest.rsplit_once('|')?;
        let mut stat = stat.split(' ');
        let mode = match stat.next()? {
            "none" => None,
            hex => Some(u32::from_str_radix(hex, 16).ok()?),
        };
        let (user, group) = (stat.next()?.parse().ok()?, stat.next()?.parse().ok()?);
        Some(Self { mode, user, group, target: target.to_owned(), digest: digest.to_owned() })
    }
}

/// In what `found` is not what was promised.
fn fault(file: &File, found: &Found, node: &Node<'_>) -> Result<Option<String>> {
    const KIND: u32 = 0o170_000;
    let kind = found.mode.map(|mode| mode & KIND);
    let (wanted, name) = match file.kind.as_str() {
        "removed" => return Ok(kind.map(|_| "it is there, and should be removed".to_owned())),
        "link" => (0o120_000, "link"),
        "directory" | "copied" => (0o040_000, "directory"),
        // Written through a link into a file that is there.
        "file" if file.replaces == Some(false) && kind == Some(0o120_000) => (0o120_000, "link"),
        "file" => (0o100_000, "file"),
        other => bail!("a plan with {other}"),
    };
    if kind != Some(wanted) {
        let mode = found.mode.map_or("nothing".to_owned(), |mode| format!("{mode:o}"));
        return Ok(Some(format!("it is no {name}, but {mode}")));
    }
    if let Some(target) = &file.target
        && found.target != *target
    {
        return Ok(Some(format!("it leads to {}, and not to {target}", found.target)));
    }
    if let Some(text) = &file.contents {
        let wanted: String =
            Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        if found.digest != wanted {
            let got = node.output(&["chroot", root_of(&file.path), "cat", &file.path])?;
            return Ok(Some(format!("it has\n{got}\nand not\n{text}")));
        }
    }
    // What is written through links, or into a file of the image, keeps its mode and owner.
    let ours = file.kind == "directory" || file.replaces == Some(true);
    if let (true, Some(wanted)) = (ours, &file.mode) {
        let got = format!("{:04o}", found.mode.unwrap_or_default() & 0o7777);
        if got != *wanted {
            return Ok(Some(format!("its mode is {got}, and not {wanted}")));
        }
        let wanted = file.owner.as_ref().map_or((0, 0), |owner| (owner.user, owner.group));
        if (found.user, found.group) != wanted {
            let got = (found.user, found.group);
            return Ok(Some(format!("it belongs to {got:?}, and not to {wanted:?}")));
        }
    }
    Ok(None)
}
