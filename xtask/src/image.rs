//! `cargo xtask image`: an initramfs for Debian's kernels, as a site would build it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use landfall_initramfs::{Build, Signatures};
use landfall_tests::{Arch, Kernel, workshop};

use crate::{agent, kernels, needs, say};

#[derive(clap::Args)]
pub struct Options {
    /// 6.1, 6.12 or 6.12-arm64 for Debian's current kernel of that series, else an installed release or the
    /// folder of an unpacked package.
    #[arg(long, value_name = "VERSION", default_values = ["6.1", "6.12"])]
    kernel: Vec<String>,
    /// Network drivers to pack instead of all.
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    drivers: Option<Vec<String>>,
    /// A lts.conf to build in.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A static busybox to build in, for the rescue shell.
    #[arg(long, value_name = "FILE")]
    rescue_shell: Option<PathBuf>,
    /// Strip signatures and debug data from modules: for test machines.
    #[arg(long)]
    unsigned: bool,
}

pub fn run(options: &Options) -> Result<()> {
    needs::image()?;
    let folder = workshop::dir().join("images");
    fs::create_dir_all(&folder)?;
    for version in &options.kernel {
        let known = Kernel::ALL.into_iter().find(|kernel| kernel.series() == version);
        let tree = match known {
            Some(kernel) => kernels::prepare(kernel)?,
            None => PathBuf::from(version),
        };
        // A tree of somebody's own is a PC's until they name an agent to landfall-initramfs.
        let arch = known.map_or(Arch::Amd64, Kernel::arch);
        agent::build_for(arch)?;
        let label = version.trim_matches('/').replace('/', "-");
        let output = folder.join(format!("initramfs-{label}.img"));
        let summary = say::step(&format!("building {}", output.display()), || {
            let mut image = Build::new(&tree, workshop::program("landfall", arch)?, &output);
            image.drivers.clone_from(&options.drivers);
            image.config.clone_from(&options.config);
            image.rescue_shell.clone_from(&options.rescue_shell);
            image.signatures = if options.unsigned { Signatures::Strip } else { Signatures::Keep };
            landfall_initramfs::build(&image)
        })?;
        println!("{summary}");
        let kernel = tree.join("vmlinuz");
        if kernel.exists() {
            let copy = folder.join(format!("vmlinuz-{label}"));
            fs::copy(&kernel, &copy).with_context(|| copy.display().to_string())?;
            println!("{}\n{}", copy.display(), output.display());
        }
    }
    Ok(())
}
