//! Debian root images with systemd, made on the spot: the kind of root that our users serve.
//!
//! All hold what the seed configuration touches (a docker.service to edit, an ssh to configure,
//! services to keep and to remove), no SSH host keys, and one service of ours: the probe, which
//! starts after `multi-user.target` and takes no part in the boot. Two small ones differ in who
//! keeps the network; two of different releases hold what the settings of lts.conf touch, and
//! differ wherever a family of settings has two ways to take effect. Of two more, one installation
//! each, come the roots that network software takes over: one for each software, enabled alone.

use std::fs;
use std::hash::Hash;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use landfall_tests::{Kernel, workshop};

use crate::{mirror, say};

/// Of `root` in every image; the demo tells it.
pub const PASSWORD: &str = "landfall";

/// Where the probe lies; its folder is in nobody's PATH.
const PROBE: &str = "usr/libexec/landfall-probe";

/// What a root needs for nothing but its network.
const LITTLE: &str = "systemd,systemd-sysv,udev,dbus,kmod,procps,iproute2";

const COMMON: &str = "systemd,systemd-sysv,udev,dbus,libpam-systemd,kmod,procps,iproute2,\
                      iputils-ping,tzdata,openssh-server,rpcbind,at,nano,less";

/// What mmdebstrap shall believe, whatever else apt trusts on this host.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Nobody reads manuals in there, and smaller roots boot sooner.
pub const WITHOUT_MANUALS: [&str; 3] = [
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
];

/// Folders of modules, and modules without their ending, that the running system asks for: the
/// initramfs brings only what leads to the root.
const MODULES: &[&str] = &[
    // rc.local of the seed, and network software.
    "kernel/net/bridge",
    "kernel/net/llc",
    "kernel/net/802",
    "kernel/net/packet",
    "kernel/fs/configfs",
    "kernel/drivers/net/netconsole",
    // Swap in memory, on a disk, over the network, and encrypted.
    "kernel/drivers/block/zram",
    "kernel/mm",
    "kernel/lib/lz4",
    "kernel/drivers/block/virtio_blk",
    "kernel/drivers/block/nbd",
    "kernel/drivers/md/dm-mod",
    "kernel/drivers/md/dm-crypt",
    "kernel/drivers/dax",
    "kernel/crypto",
    "kernel/arch/x86/crypto",
    // A disk for containers.
    "kernel/fs/ext4",
    "kernel/fs/jbd2",
    "kernel/fs/mbcache",
    "kernel/lib/crc16",
];

#[derive(Hash)]
struct Recipe {
    name: &'static str,
    /// Debian's release.
    suite: &'static str,
    packages: &'static str,
    files: &'static [File],
    links: &'static [Link],
    /// The roots that are made of it, each with something more; the one itself if there is none.
    variants: &'static [Variant],
}

/// A root that differs from another in a few files.
#[derive(Hash)]
struct Variant {
    name: &'static str,
    files: &'static [File],
    links: &'static [Link],
}

/// Path and target.
type Link = (&'static str, &'static str);

#[derive(Hash)]
struct File {
    path: &'static str,
    mode: u32,
    text: &'static str,
}

const fn file(path: &'static str, text: &'static str) -> File {
    File { path, mode: 0o644, text }
}

const fn program(path: &'static str, text: &'static str) -> File {
    File { path, mode: 0o755, text }
}

/// The administrator's own network file is the plain one from the manual: it knows nothing of a
/// root that must survive a stop of the service.
const NETWORKD: Recipe = Recipe {
    name: "networkd",
    suite: "bookworm",
    packages: "systemd",
    files: &[
        RC_LOCAL,
        WIRED,
        // The seed's netconsole goes out through a bridge of this name.
        file("etc/systemd/network/30-vmbr0.netdev", "[NetDev]\nName=vmbr0\nKind=bridge\n"),
        file(
            "etc/systemd/network/30-vmbr0.network",
            "[Match]\nName=vmbr0\n\n[Link]\nRequiredForOnline=no\n\n\
             [Network]\nAddress=10.9.0.99/16\nConfigureWithoutCarrier=yes\n",
        ),
    ],
    links: &[NETWORKD_LINK],
    variants: &[],
};

const IFUPDOWN: Recipe = Recipe {
    name: "ifupdown",
    suite: "bookworm",
    packages: "ifupdown,isc-dhcp-client",
    files: &[
        file(
            "etc/network/interfaces",
            "auto lo\niface lo inet loopback\n\nauto enp0s3\niface enp0s3 inet dhcp\n",
        ),
        RC_LOCAL,
    ],
    links: &[],
    variants: &[],
};

/// For the settings: systemd 252, chrony, a plain resolv.conf, and an rc.local.
const BOOKWORM: Recipe = Recipe {
    name: "bookworm",
    suite: "bookworm",
    packages: "rsyslog,cron,chrony,keyboard-configuration,cryptsetup-bin,nbd-client",
    files: &[RC_LOCAL, WIRED, OVERLAY, OVERLAY_SECRET, CONTAINERD, KUBELET, CONTAINERD_DATA],
    links: &[NETWORKD_LINK, OVERLAY_LINK],
    variants: &[],
};

/// For the settings: systemd 257, timesyncd, systemd-resolved, and no rc.local.
const TRIXIE: Recipe = Recipe {
    name: "trixie",
    suite: "trixie",
    packages: "rsyslog,cron,systemd-timesyncd,systemd-resolved,keyboard-configuration,\
               cryptsetup-bin,systemd-cryptsetup,nbd-client",
    files: &[WIRED, OVERLAY, OVERLAY_SECRET, CONTAINERD, KUBELET, DOCKER, CONTAINERD_DATA],
    links: &[NETWORKD_LINK, OVERLAY_LINK],
    variants: &[],
};

/// All software that may look after a network, and none of it enabled.
const fn networks(name: &'static str, suite: &'static str, variants: &'static [Variant]) -> Recipe {
    Recipe {
        name,
        suite,
        packages: "network-manager,netplan.io,ifupdown2",
        // An administrator's own file, which is there whoever is in charge.
        files: &[WIRED],
        links: &[],
        variants,
    }
}

const NETWORKS: [Recipe; 2] = [
    networks(
        "networks-bookworm",
        "bookworm",
        &[
            variant("networkd-bookworm", &[], &[NETWORKD_LINK]),
            variant("nm-bookworm", &[NM_PROFILE], &[NM_LINK]),
            variant("netplan-bookworm", &[NETPLAN], &[]),
            variant("ifupdown2-bookworm", &[INTERFACES], &[NETWORKING_LINK]),
            variant("none-bookworm", &[], &[]),
        ],
    ),
    networks(
        "networks-trixie",
        "trixie",
        &[
            variant("networkd-trixie", &[], &[NETWORKD_LINK]),
            variant("nm-trixie", &[NM_PROFILE], &[NM_LINK]),
            variant("netplan-trixie", &[NETPLAN], &[]),
            variant("ifupdown2-trixie", &[INTERFACES], &[NETWORKING_LINK]),
            variant("none-trixie", &[], &[]),
        ],
    ),
];

/// The other ifupdown cannot be installed beside its successor.
const IFUPDOWN_TRIXIE: Recipe = Recipe {
    name: "ifupdown-trixie",
    suite: "trixie",
    packages: "ifupdown,dhcpcd-base",
    files: &[file(
        "etc/network/interfaces",
        "auto lo\niface lo inet loopback\n\nauto enp0s3\niface enp0s3 inet dhcp\n",
    )],
    links: &[],
    variants: &[],
};

const fn variant(name: &'static str, files: &'static [File], links: &'static [Link]) -> Variant {
    Variant { name, files, links }
}

/// For every device there is, as a desktop's installer leaves it.
const NM_PROFILE: File = File {
    path: "etc/NetworkManager/system-connections/all.nmconnection",
    mode: 0o600,
    text: "[connection]\nid=all\nuuid=0a7d5c26-9a3c-4b8f-8f11-3f6a3a6f0d01\ntype=ethernet\n\n\
           [ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\n",
};

const NM_LINK: Link = (
    "etc/systemd/system/multi-user.target.wants/NetworkManager.service",
    "/lib/systemd/system/NetworkManager.service",
);

/// What cloud-init writes for a machine with one card.
const NETPLAN: File = File {
    path: "etc/netplan/50-cloud-init.yaml",
    mode: 0o600,
    text: "network:\n  version: 2\n  ethernets:\n    enp0s3:\n      dhcp4: true\n      \
           match:\n        macaddress: 52:54:00:77:00:01\n      set-name: enp0s3\n",
};

const INTERFACES: File =
    file("etc/network/interfaces.d/lan", "auto enp0s3\niface enp0s3 inet dhcp\n");

const NETWORKING_LINK: Link = (
    "etc/systemd/system/multi-user.target.wants/networking.service",
    "/lib/systemd/system/networking.service",
);

const RC_LOCAL: File = program("etc/rc.local", "#!/bin/sh -e\n\nexit 0\n");

const WIRED: File =
    file("etc/systemd/network/20-wired.network", "[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n");

const NETWORKD_LINK: Link = (
    "etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
    "/lib/systemd/system/systemd-networkd.service",
);

/// LTSP's default for `OVERLAY_DIR`: what must come out of it with its mode, and as the link it is.
const OVERLAY: File = file("etc/ltsp/overlay-dir/etc/landfall-overlay/motd", "from the overlay\n");
const OVERLAY_SECRET: File = File {
    path: "etc/ltsp/overlay-dir/etc/landfall-overlay/secret",
    mode: 0o600,
    text: "for root's eyes\n",
};
const OVERLAY_LINK: Link = ("etc/ltsp/overlay-dir/etc/landfall-overlay/link", "motd");

/// Nobody starts them; what counts is that a container host has them.
const CONTAINERD: File = program("usr/bin/containerd", IDLE);
const KUBELET: File = program("usr/bin/kubelet", IDLE);
const DOCKER: File = program("usr/bin/dockerd", IDLE);
const IDLE: &str = "#!/bin/sh\nexec sleep infinity\n";

/// What an image was built with must not vanish under a mount.
const CONTAINERD_DATA: File = file("var/lib/containerd/from-the-image", "preloaded\n");

const FILES: &[File] = &[
    file("etc/hostname", "debian\n"),
    file("etc/hosts", "127.0.0.1 localhost\n127.0.0.2 debian.example debian\n"),
    file("etc/fstab", "UUID=b1ca8dd4-0ad9-4e64-a8d8-b0f4d2c2b0b5 / ext4 errors=remount-ro 0 1\n"),
    // Empty: to be filled at each boot.
    file("etc/machine-id", ""),
    file(
        "etc/systemd/system/docker.service",
        "[Unit]\nDescription=Stands where Docker's unit is\n\n\
         [Service]\nExecStart=/usr/bin/dockerd -H fd://\n",
    ),
    // Nobody wants them; what counts is whether the directives remove them.
    file("usr/lib/systemd/system/lightdm.service", UNWANTED),
    file("usr/lib/systemd/system/nfs-mountd.service", UNWANTED),
    // udev may still be busy with names of links when all units are up.
    file(
        "etc/systemd/system/landfall-probe.service",
        "[Unit]\nDescription=Answers the harness of the boot tests\n\
         After=multi-user.target rc-local.service\n\n\
         [Service]\nExecStartPre=udevadm settle\nExecStart=/usr/libexec/landfall-probe\n",
    ),
    // Of the few hundred devices of a machine that has been made up, those that rules do something
    // for: the rest takes an emulated one four seconds.
    file(
        "etc/systemd/system/systemd-udev-trigger.service.d/few.conf",
        "[Service]\nExecStart=\nExecStart=udevadm trigger --type=devices --action=add \
         --subsystem-match=block --subsystem-match=mem --subsystem-match=misc \
         --subsystem-match=net --subsystem-match=tty --subsystem-match=virtio\n",
    ),
];

/// A unit that stands for a service of one of the lists that KEEP_SYSTEM_SERVICES speaks about.
const UNWANTED: &str = "[Unit]\nDescription=Stands where a package's unit is\n\n\
                        [Service]\nExecStart=/bin/true\n";

const LINKS: &[Link] = &[
    (
        "etc/systemd/system/multi-user.target.wants/landfall-probe.service",
        "/etc/systemd/system/landfall-probe.service",
    ),
    // What no test is about, and each of which takes an emulated machine a tenth of a second and more.
    ("etc/systemd/system/dev-hugepages.mount", "/dev/null"),
    ("etc/systemd/system/dev-mqueue.mount", "/dev/null"),
    ("etc/systemd/system/e2scrub_reap.service", "/dev/null"),
    ("etc/systemd/system/getty@tty1.service", "/dev/null"),
    ("etc/systemd/system/modprobe@configfs.service", "/dev/null"),
    ("etc/systemd/system/modprobe@dm_mod.service", "/dev/null"),
    ("etc/systemd/system/modprobe@drm.service", "/dev/null"),
    ("etc/systemd/system/modprobe@efi_pstore.service", "/dev/null"),
    ("etc/systemd/system/modprobe@fuse.service", "/dev/null"),
    ("etc/systemd/system/modprobe@loop.service", "/dev/null"),
    ("etc/systemd/system/sys-fs-fuse-connections.mount", "/dev/null"),
    ("etc/systemd/system/sys-kernel-config.mount", "/dev/null"),
    ("etc/systemd/system/sys-kernel-debug.mount", "/dev/null"),
    ("etc/systemd/system/sys-kernel-tracing.mount", "/dev/null"),
    ("etc/systemd/system/systemd-ask-password-console.path", "/dev/null"),
    ("etc/systemd/system/systemd-ask-password-wall.path", "/dev/null"),
    ("etc/systemd/system/systemd-creds.socket", "/dev/null"),
    ("etc/systemd/system/systemd-journal-flush.service", "/dev/null"),
    ("etc/systemd/system/systemd-networkd-persistent-storage.service", "/dev/null"),
    ("etc/systemd/system/systemd-pcrextend.socket", "/dev/null"),
    ("etc/systemd/system/systemd-pcrlock.socket", "/dev/null"),
    ("etc/systemd/system/systemd-pstore.service", "/dev/null"),
    ("etc/systemd/system/systemd-random-seed.service", "/dev/null"),
    ("etc/systemd/system/systemd-sysext.socket", "/dev/null"),
    ("etc/systemd/system/systemd-udev-load-credentials.service", "/dev/null"),
];

/// All roots; some minutes, the first time.
pub fn prepare() -> Result<()> {
    say::side_by_side(&[NETWORKD, IFUPDOWN, BOOKWORM, TRIXIE], Recipe::prepare)
}

/// Those that only a test of the handover boots.
pub fn prepare_networks() -> Result<()> {
    let [bookworm, trixie] = NETWORKS;
    say::side_by_side(&[bookworm, trixie, IFUPDOWN_TRIXIE], Recipe::prepare)
}

/// The one that the demo boots.
pub fn prepare_networkd() -> Result<()> {
    NETWORKD.prepare()
}

/// The line of sources.list for a release.
pub fn source(suite: &str) -> Result<String> {
    Ok(format!("deb [signed-by={KEYRING}] {} {suite} main", mirror::find()?))
}

/// Makes `link` lead to `made`, beside it, and removes what it led to: of no use to anybody.
pub fn point(link: &Path, made: &Path) -> Result<()> {
    if let Ok(before) = fs::read_link(link)
        && Some(before.as_os_str()) != made.file_name()
    {
        let before = made.with_file_name(before);
        let _ = if before.is_dir() { fs::remove_dir_all(before) } else { fs::remove_file(before) };
    }
    let _ = fs::remove_file(link);
    Ok(symlink(made.file_name().context("a name")?, link)?)
}

impl Recipe {
    /// Leaves `roots/NAME.squashfs`, a link to the image made of exactly these inputs; one for each
    /// variant if there are any.
    fn prepare(&self) -> Result<()> {
        let releases = Kernel::AMD64.map(|kernel| kernel.release().ok());
        let probe = workshop::fingerprint(&workshop::probe()?)?;
        let inputs = (self, FILES, LINKS, COMMON, LITTLE, MODULES, releases, probe);
        let what = format!("making a Debian root with {}", self.name);
        if self.variants.is_empty() {
            return offer(self.name, &inputs, |image| {
                say::step(&what, || {
                    let tar = image.with_extension("tar");
                    self.install(&tar)?;
                    pack(&tar, image)?;
                    Ok(fs::remove_file(&tar)?)
                })
            });
        }
        let tar = workshop::once("roots", &format!("{}.tar", self.name), &inputs, |tar| {
            say::step(&what, || self.install(tar))
        })?;
        for variant in self.variants {
            offer(variant.name, &(&inputs, variant), |image| variant.make(&tar, image))?;
        }
        Ok(())
    }

    fn install(&self, tar: &Path) -> Result<()> {
        let additions = tar.with_extension("additions.tar");
        self.lay_out(&additions)?;
        let depmod = "for release in \"$1\"/lib/modules/*; do \
                      chroot \"$1\" depmod \"${release##*/}\"; done";
        let packages = if self.variants.is_empty() { COMMON } else { LITTLE };
        let mut command = Command::new("mmdebstrap");
        command
            .args(["--quiet", "--variant=minbase", "--format=tar"])
            .arg(format!("--include={packages},{}", self.packages))
            .args(WITHOUT_MANUALS)
            .arg(format!("--customize-hook=echo root:{PASSWORD} | chroot \"$1\" chpasswd"))
            // One set of host keys in an image that many machines boot would be no secret.
            .arg("--customize-hook=rm -f \"$1\"/etc/ssh/ssh_host_*");
        if !self.variants.is_empty() {
            // Packages enable what they bring; here a variant does.
            let disable = "find \"$1\"/etc/systemd/system -type l \\( -name 'NetworkManager*' \
                           -o -name 'systemd-network*' -o -name 'networking*' \
                           -o -name '*nm-dispatcher*' \\) -delete";
            command.arg(format!("--customize-hook={disable}"));
        }
        command
            .arg(format!("--customize-hook=tar-in {} /", additions.display()))
            .arg(format!("--customize-hook={depmod}"))
            // Else each boot is the first after an update for systemd (systemd-update-done.service),
            // which then makes caches anew that are in the image.
            .arg("--customize-hook=touch \"$1\"/etc/.updated \"$1\"/var/.updated")
            .arg(self.suite)
            .arg(tar)
            .arg(source(self.suite)?);
        say::run_quietly(&mut command)?;
        Ok(fs::remove_file(&additions)?)
    }

    /// What we put on top of the packages.
    fn lay_out(&self, tar: &Path) -> Result<()> {
        let tree = tar.with_extension("tree");
        let _ = fs::remove_dir_all(&tree);
        lay_out(&tree, FILES.iter().chain(self.files), LINKS.iter().chain(self.links))?;
        fs::copy(workshop::probe()?, place(&tree, PROBE)?)?;
        for kernel in Kernel::AMD64 {
            // The demo needs only one of them.
            if let Ok(package) = kernel.tree() {
                copy_modules(&package, &kernel.release()?, &tree)?;
            }
        }
        archive(&tree, &["."], tar)?;
        Ok(fs::remove_dir_all(&tree)?)
    }
}

impl Variant {
    fn make(&self, base: &Path, image: &Path) -> Result<()> {
        say::step(&format!("making the root {} of it", self.name), || {
            let [tree, more, whole] =
                ["tree", "more.tar", "tar"].map(|extension| image.with_extension(extension));
            let _ = fs::remove_dir_all(&tree);
            lay_out(&tree, self.files, self.links)?;
            let names: Vec<_> = self.files.iter().map(|file| file.path).collect();
            let names = [names, self.links.iter().map(|(path, _)| *path).collect()].concat();
            fs::copy(base, &whole)?;
            if !names.is_empty() {
                // Without their folders, which have an owner and a mode already.
                archive(&tree, &names, &more)?;
                say::run_quietly(Command::new("tar").arg("-Af").arg(&whole).arg(&more))?;
                fs::remove_file(&more)?;
                fs::remove_dir_all(&tree)?;
            }
            pack(&whole, image)?;
            Ok(fs::remove_file(&whole)?)
        })
    }
}

/// Leaves `roots/NAME.squashfs`, a link to the image.
fn offer(name: &str, inputs: &impl Hash, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let image = workshop::once("roots", &format!("{name}.img"), inputs, make)?;
    point(&image.with_file_name(format!("{name}.squashfs")), &image)
}

fn lay_out<'a>(
    tree: &Path,
    files: impl IntoIterator<Item = &'a File>,
    links: impl IntoIterator<Item = &'a Link>,
) -> Result<()> {
    for File { path, mode, text } in files {
        let path = place(tree, path)?;
        fs::File::create(&path)?.write_all(text.as_bytes())?;
        fs::set_permissions(&path, PermissionsExt::from_mode(*mode))?;
    }
    for (path, target) in links {
        symlink(target, place(tree, path)?)?;
    }
    Ok(())
}

fn archive(tree: &Path, names: &[&str], tar: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command.args(["--owner=0", "--group=0", "--numeric-owner", "-cf"]).arg(tar);
    command.arg("-C").arg(tree).args(names);
    say::run_quietly(&mut command).map(drop)
}

fn pack(tar: &Path, image: &Path) -> Result<()> {
    let mut command = Command::new("mksquashfs");
    command
        .arg("-")
        .arg(image)
        .args(["-tar", "-comp", "zstd", "-Xcompression-level", "3", "-noappend"])
        .args(["-quiet", "-no-progress"])
        .stdin(fs::File::open(tar)?);
    say::run_quietly(&mut command).map(drop)
}

fn copy_modules(package: &Path, release: &str, tree: &Path) -> Result<()> {
    let from = package.join("lib/modules").join(release);
    let to = format!("usr/lib/modules/{release}");
    let lists = ["modules.order", "modules.builtin", "modules.builtin.modinfo"];
    for name in MODULES.iter().chain(&lists) {
        // A folder or a list, or a module, which newer releases compress.
        for name in ["", ".ko", ".ko.xz"].map(|ending| format!("{name}{ending}")) {
            let source = from.join(&name);
            if source.exists() {
                let target = place(tree, &format!("{to}/{name}"))?;
                say::run_quietly(Command::new("cp").args(["-r", "--"]).arg(source).arg(target))?;
            }
        }
    }
    Ok(())
}

/// The path below `tree`, with its folder.
fn place(tree: &Path, path: &str) -> Result<PathBuf> {
    let path = tree.join(path);
    fs::create_dir_all(path.parent().context("a folder")?)?;
    Ok(path)
}
