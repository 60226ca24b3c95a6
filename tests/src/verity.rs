//! Hash trees for images, by veritysetup.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A hash tree in its image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashTree {
    pub root_hash: String,
    /// Of its superblock.
    pub offset: u64,
}

/// Puts a hash tree behind the image, with so many bytes between them.
pub fn append_hash_tree(image: &Path, gap: u64, options: &[&str]) -> Result<HashTree> {
    let offset = fs::metadata(image)?.len() + gap;
    let place = format!("--hash-offset={offset}");
    let options = [options, &[place.as_str()]].concat();
    let root_hash = veritysetup(image, image, &options)?;
    Ok(HashTree { root_hash, offset })
}

/// Writes a hash tree into a file of its own; gives the root hash.
pub fn separate_hash_tree(image: &Path, hash: &Path) -> Result<String> {
    veritysetup(image, hash, &[])
}

fn veritysetup(image: &Path, hash: &Path, options: &[&str]) -> Result<String> {
    let output = Command::new("veritysetup")
        .args(options)
        .arg("format")
        .args([image, hash])
        .output()
        .context("veritysetup")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "veritysetup: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let line = said.lines().find_map(|line| line.strip_prefix("Root hash:"));
    Ok(line.with_context(|| format!("no root hash: {said}"))?.trim().to_owned())
}

/// Changes one bit of the image, where it has `bytes`.
pub fn flip_a_bit(image: &Path, bytes: &[u8]) -> Result<()> {
    let content = fs::read(image)?;
    let places: Vec<_> =
        content.windows(bytes.len()).enumerate().filter(|(_, seen)| *seen == bytes).collect();
    ensure!(places.len() == 1, "it has them in {} places", places.len());
    let (place, _) = places[0];
    let changed = bytes.first().context("no bytes")? ^ 0x10;
    let file = File::options().write(true).open(image)?;
    Ok(file.write_all_at(&[changed], place as u64)?)
}
