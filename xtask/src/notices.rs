//! What the licences of others ask of us: static programs carry their code, so packages and
//! releases carry their notices.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use landfall_tests::Arch;
use serde::Deserialize;

use crate::{agent, musl};

/// The name that the file has in packages and releases.
pub const FILE: &str = "third-party.txt";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: PathBuf,
    /// None for our own.
    source: Option<String>,
    license: Option<String>,
}

/// Each crate that is linked into a program, with its licence; behind the list, each notice once.
pub fn text() -> Result<String> {
    let metadata = agent::cargo_output(&["metadata", "--format-version=1"])?;
    let metadata: Metadata = serde_json::from_str(&metadata).context("reading cargo metadata")?;
    let linked = linked()?;
    let mut list = String::from(
        "The programs contain code of others, under the licences named here; where there is a \
         choice, it is\nthe first that is not Apache-2.0. The notices follow the list.\n\n\
         Rust's standard library, of the Rust project's developers: MIT OR Apache-2.0\n\
         musl, of its authors: MIT\n",
    );
    let mut notices: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut add = |notice: String, owner: &str| {
        let owners = notices.entry(notice).or_default();
        owners.push(owner.to_owned());
    };
    for package in metadata.packages.iter().filter(|package| package.source.is_some()) {
        let Package { name, version, .. } = package;
        if !linked.contains(&format!("{name} v{version}")) {
            continue;
        }
        let license = package.license.as_deref().context("a crate names no licence")?;
        list.push_str(&format!("{name} {version}: {license}\n"));
        let folder = package.manifest_path.parent().context("a folder")?;
        for file in notice_files(folder)? {
            let notice = fs::read(&file).with_context(|| file.display().to_string())?;
            add(tidy(&String::from_utf8_lossy(&notice)), name);
        }
    }
    add(tidy(&fs::read_to_string(musl::copyright(Arch::Amd64)?)?), "musl");
    ensure!(notices.len() > 10, "the crates' notices were not found");
    for (notice, owners) in notices {
        list.push_str(&format!("\n{}\n{}\n\n{notice}", "-".repeat(78), owners.join(", ")));
    }
    Ok(list)
}

/// `name vVERSION` of what the programs are linked from; what runs at compile time is not in it.
fn linked() -> Result<BTreeSet<String>> {
    let mut linked = BTreeSet::new();
    for arch in [Arch::Amd64, Arch::Arm64] {
        let tree = agent::cargo_output(&[
            "tree",
            "--package=landfall",
            "--package=landfall-initramfs",
            "--edges=normal,no-proc-macro",
            "--prefix=none",
            "--no-dedupe",
            "--format={p}",
            "--target",
            arch.target(),
        ])?;
        linked.extend(tree.lines().map(|line| match line.split_once(" (") {
            Some((package, _)) => package.to_owned(),
            None => line.to_owned(),
        }));
    }
    Ok(linked)
}

/// Of a crate and of what it has bundled. Not Apache's, which asks for its text alone, and that is
/// in our own LICENSE; unless there is no other.
fn notice_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = open.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().to_uppercase();
            if entry.file_type()?.is_dir() {
                if depth < 2 {
                    open.push((entry.path(), depth + 1));
                }
            } else if ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"]
                .iter()
                .any(|start| name.starts_with(start))
                && !name.ends_with(".RS")
            {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    let is_apache = |file: &PathBuf| file.to_string_lossy().to_uppercase().contains("APACHE");
    if !files.iter().all(is_apache) {
        files.retain(|file| !is_apache(file));
    }
    Ok(files)
}

/// The same text in another layout is the same notice.
fn tidy(text: &str) -> String {
    let lines: String = text.trim().lines().map(|line| format!("{}\n", line.trim_end())).collect();
    lines.trim_start_matches('\u{feff}').to_owned()
}

#[cfg(test)]
mod tests {
    use landfall_tests::workshop::workspace;

    use super::*;

    #[test]
    #[ignore = "needs the release programs"]
    fn the_notices_of_all_who_ask_for_them_are_there() {
        let text = text().unwrap();
        for expected in [
            "\nzstd-sys ",
            "Copyright (c) Meta Platforms",
            "Copyright (c) Tokio Contributors",
            "musl",
            "ISC",
            "Isis Agora Lovecruft",
        ] {
            assert!(text.contains(expected), "{expected}");
        }
        // What runs at compile time, or in tests, is not shipped.
        assert!(!text.contains("\nsyn ") && !text.contains("\nproptest "));
        let workspace = workspace().display().to_string();
        assert!(!text.contains(&workspace), "it names this machine's folders");
    }
}
