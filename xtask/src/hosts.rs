//! Build hosts: a Debian with an initramfs generator, onto which our packages are installed the way
//! a user installs them, and the images that it then makes.
//!
//! Two steps, because the first one knows nothing of our code: a base (Debian, the generator, a
//! kernel, the image before us), kept as a tar; and on it, whenever our packages have changed, what
//! an administrator types. Both are mmdebstrap's, which needs no rights where user namespaces exist.
//!
//! The result is `hosts/SUITE-GENERATOR/`, read by the boot tests as `landfall_tests::Host`: the
//! images that the script of the recipe keeps, and what else it leaves in `$out`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use landfall_tests::{Host, Kernel, workshop};

use crate::{agent, deb, debian, kernels, needs, say};

/// Of Debian 12 and 13, with everything that a recipe does to it.
#[derive(Hash)]
pub struct Recipe {
    pub suite: &'static str,
    /// The package of the generator, hence also the last part of the name of ours.
    pub generator: &'static str,
    /// What else a minimal Debian needs, separated by commas.
    pub packages: &'static str,
    /// Typed into the chroot before there is a kernel: settings of the generator.
    pub settings: &'static str,
    /// Typed into the chroot once the kernel has got its image. Runs under `sh -eu` and has
    /// `$release` of the kernel, `$debs` with our packages, `$image` that the generator writes,
    /// `$out` for what is to be kept, and `keep NAME`, which copies the image to `$out/NAME.img`.
    pub script: &'static str,
}

/// All that there are.
pub const RECIPES: &[Recipe] =
    &[initramfs_tools("bookworm"), initramfs_tools("trixie"), dracut("bookworm"), dracut("trixie")];

const fn initramfs_tools(suite: &'static str) -> Recipe {
    Recipe {
        suite,
        generator: "initramfs-tools",
        packages: "zstd,udev,kmod,procps,systemd-sysv",
        settings: include_str!("hosts/initramfs-tools-settings.sh"),
        script: include_str!("hosts/initramfs-tools.sh"),
    }
}

const fn dracut(suite: &'static str) -> Recipe {
    Recipe {
        suite,
        generator: "dracut",
        packages: "dracut-network,nbd-client,dbus,iproute2,linux-base,zstd,udev,kmod,procps,systemd-sysv,cpio",
        settings: include_str!("hosts/dracut-settings.sh"),
        script: include_str!("hosts/dracut.sh"),
    }
}

/// In front of each recipe's script.
const PRELUDE: &str = r#"
export DEBIAN_FRONTEND=noninteractive
image=/boot/initrd.img-$release
debs=/landfall/debs
out=/landfall/out
mkdir -p "$out"
keep() { cp "$image" "$out/$1.img"; }
"#;

/// Behind the settings: what the kernel's package does when it is installed.
const KERNEL: &str = r#"
depmod "$release"
run-parts --exit-on-error --arg="$release" --arg="/boot/vmlinuz-$release" /etc/kernel/postinst.d
"#;

/// As dh_* leave it to builders of packages: the same inputs then give the same image, byte for byte.
const EPOCH: &str = "SOURCE_DATE_EPOCH=1750000000";

/// Every host of [`RECIPES`] whose name has this word in it, from the programs in the workshop and
/// the hooks of this tree.
pub fn prepare(word: Option<&str>) -> Result<()> {
    needs::packages()?;
    agent::build_image_builder()?;
    for kernel in Kernel::AMD64 {
        kernels::prepare(kernel)?;
    }
    let wanted = |recipe: &&Recipe| word.is_none_or(|word| recipe.host().name().contains(word));
    let recipes: Vec<_> = RECIPES.iter().filter(wanted).collect();
    let debs = Debs::default();
    say::side_by_side(&recipes, |recipe| recipe.prepare(&debs))
}

/// Our packages: made at most once, and only if a host is not there yet.
#[derive(Default)]
struct Debs(Mutex<Option<Vec<PathBuf>>>);

impl Debs {
    fn made(&self) -> Result<Vec<PathBuf>> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if made.is_none() {
            *made = Some(deb::pack(&workshop::dir().join("debs"))?);
        }
        made.clone().context("no packages")
    }
}

impl Recipe {
    fn host(&self) -> Host {
        Host { suite: self.suite, generator: self.generator }
    }

    /// The kernel of the release, the very one that the roots have modules for.
    fn kernel(&self) -> Result<Kernel> {
        self.host().kernel()
    }

    /// Leaves `hosts/SUITE-GENERATOR`, a link to the folder made of exactly these inputs.
    fn prepare(&self, debs: &Debs) -> Result<()> {
        let base = self.base()?;
        // Not the packages themselves: each commit gives them another time.
        let ours = ["landfall", "landfall-initramfs"].map(|program| format!("bin/{program}"));
        let mut contents = Vec::new();
        for path in ours.map(|path| workshop::dir().join(path)).into_iter().chain(
            ["debian", "initramfs.conf", self.generator]
                .map(|path| workshop::workspace().join("hooks").join(path)),
        ) {
            read(&path, &mut contents)?;
        }
        let name = self.host().name();
        let inputs = (self, PRELUDE, base.file_name(), contents);
        let folder = workshop::once("hosts", &format!("{name}.dir"), &inputs, |folder| {
            let debs = debs.made()?;
            let what = format!("installing our packages on {name}, and making its images");
            say::step(&what, || self.install(&base, &debs, folder))?;
            weigh(&name, folder)
        })?;
        debian::point(&folder.with_file_name(name), &folder)
    }

    /// The base's tar.
    fn base(&self) -> Result<PathBuf> {
        let kernel = kernels::prepare(self.kernel()?)?;
        let release = self.kernel()?.release()?;
        let inputs = (self.suite, self.generator, self.packages, self.settings, KERNEL, &release);
        let name = self.host().name();
        let tar = workshop::once("hosts", &format!("{name}.tar.zst"), &inputs, |path| {
            let what = format!("making a Debian {} with {}", self.suite, self.generator);
            say::step(&what, || self.make_base(&kernel, &release, path))
        })?;
        debian::point(&tar.with_file_name(format!("{name}.base")), &tar)?;
        Ok(tar)
    }

    fn make_base(&self, kernel: &Path, release: &str, tar: &Path) -> Result<()> {
        let script = tar.with_extension("base.sh");
        fs::write(&script, format!("{}{KERNEL}", self.settings))?;
        // mmdebstrap knows the format by the name.
        let unfinished = tar.with_extension("unfinished.tar.zst");
        let boot = |name: &str| kernel.join(format!("boot/{name}-{release}")).display().to_string();
        let mut command = Command::new("mmdebstrap");
        command
            .args(["--quiet", "--variant=minbase"])
            .arg(format!("--include={},{}", self.generator, self.packages))
            .args(debian::WITHOUT_MANUALS)
            .arg("--customize-hook=mkdir -p \"$1\"/usr/lib/modules \"$1\"/landfall")
            .arg(format!(
                "--customize-hook=copy-in {} /usr/lib/modules",
                kernel.join("lib/modules").join(release).display()
            ))
            .arg(format!(
                "--customize-hook=copy-in {} {} {} /boot",
                boot("vmlinuz"),
                boot("config"),
                boot("System.map")
            ))
            .arg(format!("--customize-hook=upload {} /landfall/base.sh", script.display()))
            .arg(run("base.sh", release))
            .arg(self.suite)
            .arg(&unfinished)
            .arg(debian::source(self.suite)?);
        say::run_quietly(&mut command)?;
        fs::remove_file(script)?;
        Ok(fs::rename(unfinished, tar)?)
    }

    fn install(&self, base: &Path, debs: &[PathBuf], folder: &Path) -> Result<()> {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder)?;
        let release = self.kernel()?.release()?;
        let script = folder.with_extension("install.sh");
        fs::write(&script, format!("{PRELUDE}{}", self.script))?;
        let debs: Vec<_> = debs.iter().map(|deb| deb.display().to_string()).collect();
        let mut command = Command::new("mmdebstrap");
        command
            .args(["--quiet", "--variant=custom", "--format=null"])
            // Nothing is fetched: all is in the base.
            .arg("--skip=update,cleanup,check/empty")
            .arg(format!(
                "--setup-hook=zstd -dc {} | tar --extract --directory \"$1\" --exclude=./dev/*",
                base.display()
            ))
            .arg("--customize-hook=mkdir -p \"$1\"/landfall/debs")
            .arg(format!("--customize-hook=copy-in {} /landfall/debs", debs.join(" ")))
            .arg(format!("--customize-hook=upload {} /landfall/install.sh", script.display()))
            .arg(run("install.sh", &release))
            .arg(format!("--customize-hook=sync-out /landfall/out {}", folder.display()))
            .arg(self.suite)
            .arg("-")
            .arg(debian::source(self.suite)?);
        say::run_quietly(&mut command)?;
        fs::remove_file(script)?;
        symlink(self.kernel()?.vmlinuz()?, folder.join("vmlinuz"))?;
        Ok(())
    }
}

/// The hook that runs a script of `/landfall` in the chroot.
fn run(script: &str, release: &str) -> String {
    format!(
        "--customize-hook=chroot \"$1\" env {EPOCH} release={release} sh -eu /landfall/{script}"
    )
}

/// Tells by how much the images differ in size from the one before us.
fn weigh(host: &str, folder: &Path) -> Result<()> {
    let bytes = |path: &Path| Ok::<_, anyhow::Error>(i64::try_from(fs::metadata(path)?.len())?);
    let before = bytes(&folder.join("plain.img"))?;
    for path in files_in(folder)? {
        if path.extension().is_some_and(|extension| extension == "img") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            eprintln!("xtask: {host}: {name}: {before} {:+} bytes", bytes(&path)? - before);
        }
    }
    Ok(())
}

/// In the order of their names.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut files = entries.collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// Path and contents of a file, or of all that are below a folder.
fn read(path: &Path, contents: &mut Vec<(PathBuf, Vec<u8>)>) -> Result<()> {
    if !path.is_dir() {
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        contents.push((path.to_path_buf(), bytes));
        return Ok(());
    }
    files_in(path)?.iter().try_for_each(|path| read(path, contents))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No Debian has mkinitcpio: its files run against stand-ins, with real modules and programs.
    #[test]
    #[ignore = "needs the release programs and a host"]
    fn the_files_for_mkinitcpio_do_what_they_promise() {
        let script = r#"
dpkg --install "$debs"/landfall_*.deb
bash "$debs/mkinitcpio/test.sh" "/lib/modules/$release" >"$out/said"
"#;
        let host = Recipe { script, ..initramfs_tools("trixie") };
        let folder = tempfile::tempdir().unwrap();
        let mut given = deb::pack(&folder.path().join("debs")).unwrap();
        for folder in ["mkinitcpio", "dracut"] {
            given.push(workshop::workspace().join("hooks").join(folder));
        }
        let out = folder.path().join("out");
        host.install(&host.base().unwrap(), &given, &out).unwrap();
        assert_eq!(fs::read_to_string(out.join("said")).unwrap(), "ok\n");
    }
}
