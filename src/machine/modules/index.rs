//! What depmod wrote about one kernel's modules: where they are, what they need, what they drive.
//!
//! Takes the text of `modules.dep`, `modules.alias`, `modules.softdep`, `modules.builtin` and
//! `modules.builtin.modinfo` (depmod(8), kmod 34) and answers which modules a name or a device
//! stands for, and in which order they load. `modules.devname` (nodes that load a module when they
//! are opened) and `modules.symbols` are not read. Lines that make no sense are skipped: a damaged
//! index should cost the machine one driver, not its boot.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Result, WhileDoing};

use super::{Aliases, Softdep, binary};

/// The modules of one kernel.
#[derive(Clone, Debug, Default)]
pub struct Index {
    modules: HashMap<String, Module>,
    builtin: HashSet<String>,
    builtin_aliases: Aliases,
    aliases: Aliases,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Normalized: `_` for `-`.
    pub name: String,
    /// Relative to `lib/modules/VERSION`.
    pub path: PathBuf,
    /// Modules whose symbols this one uses, in depmod's order: the one to load first is last.
    pub needs: Vec<String>,
    /// Names or aliases.
    pub softdep: Softdep,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// One for a module's own name, any number for an alias.
    Modules(Vec<&'a Module>),
    /// Part of the kernel: there is nothing to load.
    BuiltIn,
    Nothing,
}

/// One module to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    pub module: &'a Module,
    /// False for a soft dependency: when it fails, its user is tried all the same.
    pub required: bool,
}

/// The contents of depmod's files; absent ones are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    pub dep: String,
    pub alias: String,
    pub softdep: String,
    pub builtin: String,
    /// `modules.builtin.modinfo`: `module.key=value`, each ended by a zero byte.
    pub builtin_modinfo: String,
}

impl Texts {
    /// Reads the files of `directory` (`lib/modules/VERSION`). Only `modules.dep` has to exist, as
    /// a text or in its binary form.
    pub fn read(directory: &Path) -> Result<Self> {
        let dep = directory.join("modules.dep");
        if !dep.exists() && dep.with_extension("dep.bin").exists() {
            return Ok(Self::read_binary(directory));
        }
        let optional = |name: &str| match read_text(&directory.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            other => other.while_doing(|| format!("reading {}", directory.join(name).display())),
        };
        Ok(Self {
            dep: read_text(&dep).while_doing(|| format!("reading {}", dep.display()))?,
            alias: optional("modules.alias")?,
            softdep: optional("modules.softdep")?,
            builtin: optional("modules.builtin")?,
            builtin_modinfo: optional("modules.builtin.modinfo")?,
        })
    }

    /// From the files that mkinitcpio leaves. Soft dependencies have no binary form.
    fn read_binary(directory: &Path) -> Self {
        let entries = |name: &str| {
            binary::entries(&fs::read(directory.join(name)).unwrap_or_default()).into_iter()
        };
        let aliases =
            entries("modules.alias.bin").map(|(key, module)| format!("alias {key} {module}\n"));
        let built_in = entries("modules.builtin.alias.bin")
            .map(|(key, module)| format!("{module}.alias={key}\0"));
        Self {
            dep: entries("modules.dep.bin").map(|(_, line)| line + "\n").collect(),
            alias: aliases.collect(),
            softdep: read_text(&directory.join("modules.softdep")).unwrap_or_default(),
            builtin: entries("modules.builtin.bin").map(|(name, _)| name + ".ko\n").collect(),
            builtin_modinfo: built_in.collect(),
        }
    }
}

/// Authors' names in `.modinfo` are not always UTF-8.
fn read_text(path: &Path) -> io::Result<String> {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

impl Index {
    /// Reads `lib/modules/VERSION`.
    pub fn read(directory: &Path) -> Result<Self> {
        Texts::read(directory).map(|texts| Self::parse(&texts))
    }

    pub fn parse(texts: &Texts) -> Self {
        let mut index = Self::default();
        for line in texts.dep.lines() {
            let Some((path, needs)) = line.split_once(':') else { continue };
            let Some(name) = module_name(path) else { continue };
            let needs = needs.split_ascii_whitespace().filter_map(module_name).collect();
            let (path, softdep) = (PathBuf::from(path), Softdep::default());
            index.modules.insert(name.clone(), Module { name, path, needs, softdep });
        }
        for line in texts.alias.lines() {
            let mut words = line.split_ascii_whitespace();
            if let (Some("alias"), Some(pattern), Some(module)) =
                (words.next(), words.next(), words.next())
            {
                index.add_alias(pattern, module);
            }
        }
        for line in texts.softdep.lines() {
            let mut words = line.splitn(3, char::is_whitespace);
            if let (Some("softdep"), Some(name), Some(rest)) =
                (words.next(), words.next(), words.next())
            {
                index.add_softdep(name, &parse_softdep(rest));
            }
        }
        index.builtin = texts.builtin.lines().filter_map(module_name).collect();
        for entry in texts.builtin_modinfo.split('\0') {
            if let Some((key, pattern)) = entry.split_once('=')
                && let Some((module, "alias")) = key.split_once('.')
            {
                index.builtin_aliases.add(pattern, &normalized(module));
            }
        }
        index
    }

    pub fn add_alias(&mut self, pattern: &str, module: &str) {
        self.aliases.add(pattern, &normalized(module));
    }

    /// Does nothing for a module that is not in the index.
    pub fn add_softdep(&mut self, name: &str, softdep: &Softdep) {
        if let Some(module) = self.modules.get_mut(&normalized(name)) {
            module.softdep.pre.extend_from_slice(&softdep.pre);
            module.softdep.post.extend_from_slice(&softdep.post);
        }
    }

    pub fn module(&self, name: &str) -> Option<&Module> {
        self.modules.get(&normalized(name))
    }

    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(&normalized(name))
    }

    /// In no particular order.
    pub fn modules(&self) -> impl Iterator<Item = &Module> {
        self.modules.values()
    }

    /// Looks up a module's name (`nbd`), or else an alias (`fs-squashfs`, `crypto-crc32c`, a
    /// device's modalias).
    pub fn find(&self, name: &str) -> Found<'_> {
        if let Some(module) = self.module(name) {
            return Found::Modules(vec![module]);
        }
        if self.is_builtin(name) {
            return Found::BuiltIn;
        }
        let modules: Vec<_> =
            self.aliases.matching(name).into_iter().filter_map(|name| self.module(name)).collect();
        if !modules.is_empty() {
            Found::Modules(modules)
        } else if !self.builtin_aliases.matching(name).is_empty() {
            Found::BuiltIn
        } else {
            Found::Nothing
        }
    }

    /// Everything that has to be loaded for `name`, the module itself included, in order.
    ///
    /// For each module on the way, as modprobe does: its `pre:` soft dependencies, what it needs,
    /// itself, its `post:` ones. Built-in and unknown names are left out, and circles, which soft
    /// dependencies of real kernels do contain, are cut where they close.
    pub fn load_order(&self, name: &str) -> Vec<Step<'_>> {
        let Some(module) = self.module(name) else { return Vec::new() };
        let mut order = Vec::new();
        self.visit(module, &mut HashSet::new(), &mut order);
        let required = self.hard_dependencies(module);
        order
            .into_iter()
            .map(|module| Step { module, required: required.contains(module.name.as_str()) })
            .collect()
    }

    /// Recursion is as deep as the longest chain of distinct modules; the longest of a stock
    /// kernel has about ten.
    fn visit<'a>(
        &'a self,
        module: &'a Module,
        seen: &mut HashSet<&'a str>,
        order: &mut Vec<&'a Module>,
    ) {
        if !seen.insert(&module.name) {
            return;
        }
        for name in &module.softdep.pre {
            self.visit_soft(name, seen, order);
        }
        for need in module.needs.iter().rev().filter_map(|name| self.module(name)) {
            self.visit(need, seen, order);
        }
        order.push(module);
        for name in &module.softdep.post {
            self.visit_soft(name, seen, order);
        }
    }

    fn visit_soft<'a>(
        &'a self,
        name: &str,
        seen: &mut HashSet<&'a str>,
        order: &mut Vec<&'a Module>,
    ) {
        if let Found::Modules(modules) = self.find(name) {
            for module in modules {
                self.visit(module, seen, order);
            }
        }
    }

    fn hard_dependencies<'a>(&'a self, module: &'a Module) -> HashSet<&'a str> {
        let mut required = HashSet::new();
        let mut open = vec![module];
        while let Some(module) = open.pop() {
            if required.insert(module.name.as_str()) {
                open.extend(module.needs.iter().filter_map(|name| self.module(name)));
            }
        }
        required
    }
}

/// `kernel/net/8021q/8021q.ko.xz` is the module `8021q`; `None` for what is no module file.
pub fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next().unwrap_or(path);
    let (stem, compression) = file.rsplit_once(".ko")?;
    let known = matches!(compression, "" | ".xz" | ".zst" | ".gz");
    (known && !stem.is_empty()).then(|| normalized(stem))
}

/// The kernel and modprobe take `dm-mod` and `dm_mod` for the same name.
pub fn normalized(name: &str) -> String {
    name.replace('-', "_")
}

/// Reads what follows the module's name on a `softdep` line: `pre: a b post: c`.
pub fn parse_softdep(text: &str) -> Softdep {
    let mut softdep = Softdep::default();
    let mut list: Option<&mut Vec<String>> = None;
    for word in text.split_ascii_whitespace() {
        match word {
            "pre:" => list = Some(&mut softdep.pre),
            "post:" => list = Some(&mut softdep.post),
            // Newer kernels know weakdep; other sections may come, and are not ours.
            _ if word.ends_with(':') => list = None,
            name => {
                if let Some(list) = &mut list {
                    list.push(name.to_owned());
                }
            }
        }
    }
    softdep
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn index() -> Index {
        Index::parse(&Texts {
            dep: "\
kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko kernel/fs/mbcache.ko kernel/fs/jbd2/jbd2.ko
kernel/lib/crc16.ko:
kernel/fs/mbcache.ko:
kernel/fs/jbd2/jbd2.ko: kernel/lib/crc32c-x.ko
kernel/lib/crc32c-x.ko:
kernel/crypto/crc32c_generic.ko.xz:
kernel/arch/x86/crypto/crc32c-intel.ko.xz:
kernel/drivers/net/r8169.ko.zst: kernel/drivers/net/phy/libphy.ko.zst
kernel/drivers/net/phy/libphy.ko.zst:
kernel/drivers/net/phy/realtek.ko.zst: kernel/drivers/net/phy/libphy.ko.zst
kernel/net/left.ko:
kernel/net/right.ko:
kernel/drivers/mlx4_core.ko:
kernel/drivers/mlx4_en.ko: kernel/drivers/mlx4_core.ko
not a module line
kernel/README: kernel/x.ko
"
            .into(),
            alias: "\
# Aliases extracted from modules themselves.
alias fs-ext4 ext4
alias crypto-crc32c crc32c_generic
alias crypto-crc32c crc32c-intel
alias pci:v000010ECd00008168sv*sd*bc*sc*i* r8169
alias pci:v0000FFFF* not_in_the_image
broken
"
            .into(),
            softdep: "\
softdep ext4 pre: crypto-crc32c
softdep r8169 pre: realtek
softdep left pre: right unknown post: loop
softdep right post: left
softdep mlx4-core post: mlx4_en
softdep gone pre: ext4
"
            .into(),
            builtin: "kernel/block/loop.ko\nkernel/lib/zstd/zstd-decompress.ko\n".into(),
            builtin_modinfo: "loop.alias=block-major-7-*\0loop.file=drivers/block/loop\0".into(),
        })
    }

    #[test]
    #[rustfmt::skip]
    fn modules_load_after_what_they_need_and_soft_dependencies_do_not_bind() {
        let index = index();
        // A question mark: may fail.
        let cases = [
            ("ext4",      "crc32c_generic? crc32c_intel? crc32c_x jbd2 mbcache crc16 ext4"),
            ("r8169",     "libphy realtek? r8169"), // libphy comes first for realtek, and binds r8169
            ("crc32c-intel", "crc32c_intel"),
            ("left",      "right? left"),           // a circle; loop is built in, unknown is not there
            ("right",     "right left?"),
            ("mlx4_core", "mlx4_core mlx4_en?"),
            ("mlx4_en",   "mlx4_core mlx4_en"),     // also wanted by mlx4_core's softdep, but bound
            ("loop",      ""),
            ("nothing",   ""),
        ];
        for (name, expected) in cases {
            let order: Vec<_> = index
                .load_order(name)
                .iter()
                .map(|step| format!("{}{}", step.module.name, if step.required { "" } else { "?" }))
                .collect();
            assert_eq!(order.join(" "), expected, "{name}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn names_go_before_aliases_and_built_in_is_not_missing() {
        let index = index();
        let cases = [
            ("fs-ext4",          "ext4"),
            ("fs_ext4",          "ext4"),
            ("crypto-crc32c",    "crc32c_generic crc32c_intel"),
            ("crc32c_intel",     "crc32c_intel"),
            ("loop",             "(built in)"),
            ("zstd_decompress",  "(built in)"),
            ("block-major-7-0",  "(built in)"),
            ("nbd",              "(nothing)"),
            ("pci:v0000FFFFd1",  "(nothing)"), // an alias of a module that is not there
            ("pci:v000010ECd00008168sv00001043sd00008677bc02sc00i00", "r8169"),
        ];
        for (name, expected) in cases {
            let found = match index.find(name) {
                Found::Modules(modules) => {
                    modules.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(" ")
                }
                Found::BuiltIn => "(built in)".to_owned(),
                Found::Nothing => "(nothing)".to_owned(),
            };
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_modules_name_is_its_files_name() {
        let cases = [
            ("kernel/drivers/md/dm-mod.ko",  Some("dm_mod")),
            ("kernel/net/8021q/8021q.ko.xz", Some("8021q")),
            ("extra/nvidia.ko.zst",          Some("nvidia")),
            ("foo.ko.gz",                    Some("foo")),
            ("foo.ko.lz4",                   None),
            ("foo.koala",                    None),
            (".ko",                          None),
            ("kernel/",                      None),
        ];
        for (path, expected) in cases {
            assert_eq!(module_name(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn soft_dependencies_are_read_by_section() {
        let cases: [(&str, &[&str], &[&str]); 5] = [
            ("pre: a b post: c", &["a", "b"], &["c"]),
            ("post: c pre: a",   &["a"],      &["c"]),
            ("pre: a weak: w",   &["a"],      &[]),
            ("a b",              &[],         &[]), // no section: nobody knows when
            ("",                 &[],         &[]),
        ];
        for (text, pre, post) in cases {
            let softdep = parse_softdep(text);
            assert_eq!((softdep.pre, softdep.post), (
                pre.iter().map(ToString::to_string).collect(),
                post.iter().map(ToString::to_string).collect(),
            ), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_index_can_panic(dep in "(\\PC|\n)*", alias in "(alias \\PC*\n)*", softdep in "(softdep \\PC*\n)*") {
            let index = Index::parse(&Texts { dep, alias, softdep, ..Texts::default() });
            for module in index.modules() {
                index.load_order(&module.name);
            }
        }
    }
}
