//! Disks of machines, made without root rights: a table, and partitions with what is in them.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::lab::{Lab, run};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Gpt,
    Mbr,
}

/// A disk while it is put together; partitions come one behind the other.
pub struct Disk {
    path: PathBuf,
    table: Table,
    partitions: Vec<Partition>,
}

struct Partition {
    /// As sfdisk names it.
    kind: &'static str,
    content: Option<PathBuf>,
}

const SECTOR: u64 = 512;
const PARTITION_MIB: u64 = 64;

impl Disk {
    /// `NAME.img` in the lab's folder.
    pub fn new(lab: &Lab, name: &str, table: Table) -> Self {
        Self { path: lab.file(&format!("{name}.img")), table, partitions: Vec::new() }
    }

    /// Swap with its signature.
    pub fn swap(mut self) -> Result<Self> {
        let content = self.part()?;
        run(Command::new("mkswap").arg("--quiet").arg(&content))?;
        self.partitions.push(Partition { kind: "swap", content: Some(content) });
        Ok(self)
    }

    /// The type of swap, and nothing in it.
    pub fn unformatted_swap(mut self) -> Self {
        self.partitions.push(Partition { kind: "swap", content: None });
        self
    }

    pub fn ext4(mut self, label: &str) -> Result<Self> {
        let content = self.part()?;
        run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-L", label]).arg(&content))?;
        self.partitions.push(Partition { kind: "linux", content: Some(content) });
        Ok(self)
    }

    /// The finished disk.
    pub fn make(self) -> Result<PathBuf> {
        let mut disk = fs::File::create(&self.path)?;
        let count = self.partitions.len() as u64;
        // A MiB in front for the table, one behind for its second copy.
        disk.set_len((count * PARTITION_MIB + 2) << 20)?;
        let label = if self.table == Table::Gpt { "gpt" } else { "dos" };
        let mut table = format!("label: {label}\nunit: sectors\n");
        for (number, partition) in self.partitions.iter().enumerate() {
            let start = 1 + number as u64 * PARTITION_MIB;
            table += &format!(
                "start={}, size={}, type={}\n",
                (start << 20) / SECTOR,
                (PARTITION_MIB << 20) / SECTOR,
                partition.kind
            );
            if let Some(content) = &partition.content {
                disk.seek(SeekFrom::Start(start << 20))?;
                disk.write_all(&fs::read(content)?)?;
                fs::remove_file(content)?;
            }
        }
        write_table(&self.path, &table)?;
        Ok(self.path)
    }

    fn part(&self) -> Result<PathBuf> {
        let path = self.path.with_extension(format!("part{}", self.partitions.len()));
        fs::File::create(&path)?.set_len(PARTITION_MIB << 20)?;
        Ok(path)
    }
}

/// Lets sfdisk write a partition table, as its input has it, onto a disk that is a file.
pub(crate) fn write_table(disk: &Path, table: &str) -> Result<()> {
    let mut sfdisk = Command::new("sfdisk")
        .args(["--quiet", "--no-reread", "--no-tell-kernel", "--wipe-partitions=never"])
        .arg(disk)
        .stdin(Stdio::piped())
        .spawn()
        .context("starting sfdisk")?;
    sfdisk.stdin.take().context("a pipe")?.write_all(table.as_bytes())?;
    ensure!(sfdisk.wait()?.success(), "sfdisk refused:\n{table}");
    Ok(())
}
