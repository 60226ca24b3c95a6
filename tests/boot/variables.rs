//! The settings of lts.conf, group by group, on Debian 12 and 13: the plan that was made of them
//! beforehand must have come true, file by file, and what the files are for must work.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use landfall_tests::{
    Daemon, Disk, Dnsmasq, Initramfs, Kernel, Lab, Machine, Nbd, NbdKind, Node, SERVER, Table, Vm,
    workshop,
};

use crate::promise::Plan;
use crate::{ROOT, usual_vm};

/// A Debian root with its configuration, and the servers of both.
struct Site {
    lab: Lab,
    kernel: Kernel,
    image: PathBuf,
    config: PathBuf,
    _dhcp: Daemon,
    _nbd: Nbd,
}

impl Site {
    fn new(test: &str, root: &str, config: &str) -> Result<Self> {
        Self::with_exports(test, root, config, |_, nbd| Ok(nbd))
    }

    fn with_exports(
        test: &str,
        root: &str,
        config: &str,
        more: impl FnOnce(&Lab, Nbd) -> Result<Nbd>,
    ) -> Result<Self> {
        let lab = Lab::new(test)?;
        let tftp = lab.served("tftp", &[("ltsp/amd64/lts.conf", config)])?;
        let dhcp = Dnsmasq::new().tftp(&tftp).name("boothost.example", SERVER).start(&lab)?;
        let image = workshop::debian(root)?;
        let nbd = more(&lab, Nbd::new(&lab, NbdKind::NbdServer).export("root", &image))?.start()?;
        let kernel = if root == "trixie" { Kernel::V6_12 } else { Kernel::V6_1 };
        let config = tftp.join("ltsp/amd64/lts.conf");
        Ok(Self { lab, kernel, image, config, _dhcp: dhcp, _nbd: nbd })
    }

    fn vm(&self) -> Result<Vm<'_>> {
        Ok(usual_vm(&self.lab, self.kernel, "")?.memory_mib(1024))
    }

    /// Compares the node with its plan before anything else is done to it.
    fn node_as_planned<'m>(&self, machine: &'m Machine, more: &[&str]) -> Result<Node<'m>> {
        let node = machine.node()?;
        Plan::of(&node, &self.config, &self.image)?.is_kept(&node, more)?;
        Ok(node)
    }
}

/// What a running Debian itself writes below /etc during its first minute.
const OF_THE_SYSTEM: &[&str] =
    &["/etc/ld.so.cache", "/etc/.pwd.lock", "/etc/.updated", "/etc/ssh/ssh_host_", "/etc/mtab"];

/// Asks until the answer has `wanted` in it.
fn until(node: &Node<'_>, words: &[&str], wanted: &str) -> Result<String> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let ran = node.run(words)?;
        if ran.stdout.contains(wanted) {
            return Ok(ran.stdout);
        }
        if Instant::now() > deadline {
            bail!("{words:?}: no {wanted:?} in {ran:?}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Names, time, log, cron, keyboard, kernel, commands, services.
const SYSTEM: &str = r#"
[default]
HOSTNAME                = node7
HOSTNAME_ADDRESS        = lease
HOSTS_1                 = "10.77.0.9 registry"
DNS_SERVER              = 10.77.0.1
SEARCH_DOMAIN           = "example lab.example"
TIMEZONE                = Europe/Prague
TIMESERVER              = auto
HWCLOCK                 = utc
SYSLOG_HOST             = 10.77.0.1:514
CRONTAB_1               = "*/5 * * * * root touch /run/cron-was-here"
SHUTDOWN_TIME           = 23:55
XKBLAYOUT               = cz
XKBVARIANT              = qwerty
SYSCTL_1                = "kernel.panic=11 net.ipv4.ip_local_port_range=20000 60999"
MODULE_1                = br_netfilter
MODULE_2                = "zram num_devices=3"
INIT_COMMAND_1          = "echo early > /etc/landfall-early"
PREINIT_1               = "echo $SERVER > /run/preinit-was-here"
RCFILE_1                = "echo rc > /run/rc-was-here"
KEEP_SYSTEM_SERVICES    = "ssh rpcbind systemd-logind"
RM_SYSTEM_SERVICES      = "docker"
MASK_SYSTEM_SERVICES    = "apt-daily.timer"
DISABLE_SYSTEM_SERVICES = "dpkg-db-backup.timer rpcbind"
FILE_MARK               = "/etc/systemd/system/mark.service content=[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=touch /run/mark-was-here\n\n[Install]\nWantedBy=multi-user.target"
ENABLE_SYSTEM_SERVICES  = "mark"
"#;

/// Says it again until it is heard: a datagram may be lost, and rsyslog pauses for half a minute
/// after one that it could not send.
fn word_reaches_the_log_host(node: &Node<'_>, log: &UdpSocket) -> Result<()> {
    log.set_read_timeout(Some(Duration::from_secs(1)))?;
    let deadline = Instant::now() + Duration::from_secs(90);
    let mut line = [0; 2048];
    while Instant::now() < deadline {
        node.output(&["logger", "a word for the log host"])?;
        while let Ok(length) = log.recv(&mut line) {
            let line = String::from_utf8_lossy(&line[..length]);
            if line.contains("a word for the log host") {
                assert!(line.contains("node7"), "{line}");
                return Ok(());
            }
        }
    }
    bail!("the log of the node does not arrive")
}

/// The same on both: what Debian makes of it.
fn the_system_obeys<'m>(site: &Site, machine: &'m Machine, log: &UdpSocket) -> Result<Node<'m>> {
    let more = [OF_THE_SYSTEM, &["/etc/landfall-early"]].concat();
    let node = site.node_as_planned(machine, &more)?;
    assert_eq!(node.file("/etc/landfall-early")?, "early\n");
    assert_eq!(node.file("/run/preinit-was-here")?, "10.77.0.1\n");
    assert_eq!(node.file("/run/rc-was-here")?, "rc\n");
    assert_eq!(node.output(&["hostname"])?, "node7\n");
    assert!(node.output(&["getent", "hosts", "registry"])?.starts_with("10.77.0.9 "));
    assert!(node.output(&["getent", "ahostsv4", "node7"])?.starts_with("10.77.0."));
    // By the search domain, hence by the resolver of the settings.
    until(&node, &["getent", "hosts", "boothost"], "10.77.0.1 ")?;
    assert!(node.output(&["date", "+%Z"])?.starts_with("CE"));
    for (name, value) in [("kernel/panic", "11"), ("net/ipv4/ip_local_port_range", "20000\t60999")]
    {
        assert_eq!(node.file(&format!("/proc/sys/{name}"))?.trim(), value, "{name}");
    }
    assert!(node.exists("/sys/block/zram2")?, "a module has not its parameters");
    assert!(node.exists("/run/mark-was-here")?, "an enabled unit was not started");
    let units = [
        ("cron.service", "active"),
        ("rsyslog.service", "active"),
        ("mark.service", "active"),
        ("systemd-logind.service", "active"),
        ("apt-daily.timer", "inactive"),      // masked
        ("dpkg-db-backup.timer", "inactive"), // disabled
        ("rpcbind.socket", "active"),         // kept, whatever else is said of it
        ("docker.service", "inactive"),       // removed
    ];
    for (unit, wanted) in units {
        assert_eq!(node.run(&["systemctl", "is-active", unit])?.stdout.trim(), wanted, "{unit}");
    }
    let complaints = node.output(&["journalctl", "-b", "-u", "cron", "--no-pager", "-o", "cat"])?;
    assert!(!complaints.contains("rror"), "{complaints}");

    word_reaches_the_log_host(&node, log)?;
    Ok(node)
}

/// An operator who moves a rack to Debian 13 must find that their file still means the same.
#[test]
#[ignore = "boots a virtual machine"]
fn the_system_is_as_planned_on_debian_12() -> Result<()> {
    let site = Site::new("variables-system-12", "bookworm", SYSTEM)?;
    let log = UdpSocket::bind((SERVER, 514))?;
    let machine = site.vm()?.boot()?;
    let node = the_system_obeys(&site, &machine, &log)?;
    until(&node, &["chronyc", "-n", "sources"], "10.77.0.1")?;
    assert!(node.file("/etc/resolv.conf")?.contains("nameserver 10.77.0.1\n"));
    Ok(())
}

#[test]
#[ignore = "boots a virtual machine"]
fn the_system_is_as_planned_on_debian_13() -> Result<()> {
    let site = Site::new("variables-system-13", "trixie", SYSTEM)?;
    let log = UdpSocket::bind((SERVER, 514))?;
    let machine = site.vm()?.boot()?;
    let node = the_system_obeys(&site, &machine, &log)?;
    let time = ["timedatectl", "show-timesync", "--property=SystemNTPServers", "--value"];
    until(&node, &time, "10.77.0.1")?;
    assert!(node.output(&["resolvectl", "dns"])?.contains("Global: 10.77.0.1"));
    Ok(())
}

/// Mounts, room for containers, swap, keys, files.
const STORAGE: &str = r#"
[default]
KEEP_SYSTEM_SERVICES  = "ssh"
FSTAB_01_DATA         = "LABEL=data /srv/data/here ext4 nofail,noatime 0 0"
FSTAB_02_SSH          = "tmpfs /etc/ssh tmpfs mode=755 0 0"
IMAGE_FILES_SSH       = "/etc/ssh/*_config"
SSH_HOST_KEYS         = generate
SSH_AUTHORIZED_KEYS_1 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAswVXqfxOkOM1h9osfsETZbgKXK7xQ5XoOozfIXPGGG admin@site"
ZRAM_SWAP             = 25%
USE_LOCAL_SWAP        = true
FILE_1                = "/etc/site/secret mode=0600 owner=root:adm content=one\n\ttwo\n"
FILE_2                = "/etc/site/binary base64=AAEC/w=="
FILE_3                = "/etc/issue append=Somebody else's machine."
"#;

/// The same on both.
fn storage_is_there(node: &Node<'_>) -> Result<()> {
    assert_eq!(node.mount("/srv/data/here")?.fstype, "ext4");
    assert_eq!(node.mount("/etc/ssh")?.fstype, "tmpfs");
    // What the mount hides is linked, and sshd has keys and runs with both.
    assert!(node.file("/etc/ssh/sshd_config")?.contains("UsePAM"));
    assert!(node.list("/etc/ssh")?.contains(&"ssh_host_ed25519_key".to_owned()));
    assert_eq!(node.output(&["systemctl", "is-active", "ssh"])?.trim(), "active");
    let allowed = node
        .output(&["sshd", "-T", "-C", "user=root"])
        .or_else(|_| node.output(&["/usr/sbin/sshd", "-T", "-C", "user=root"]))?;
    assert!(allowed.contains("authorizedkeysfile .ssh/authorized_keys"), "{allowed}");
    assert_eq!(node.file("/var/lib/containerd/from-the-image")?, "preloaded\n");
    assert!(node.file("/etc/issue")?.ends_with("Somebody else's machine.\n"));
    until(node, &["cat", "/proc/swaps"], "/dev/zram")?;
    Ok(())
}

/// Old disks have MBR tables, and old nodes no reason to encrypt.
#[test]
#[ignore = "boots a virtual machine"]
fn storage_is_as_planned_on_debian_12() -> Result<()> {
    let config = format!("{STORAGE}ENCRYPT_SWAP = False\n");
    let site = Site::new("variables-storage-12", "bookworm", &config)?;
    let data = Disk::new(&site.lab, "data", Table::Gpt).ext4("data")?.swap()?.make()?;
    let old = Disk::new(&site.lab, "old", Table::Mbr).unformatted_swap().swap()?.make()?;
    let machine = site.vm()?.disk(data).disk(old).boot()?;
    let node = site.node_as_planned(&machine, OF_THE_SYSTEM)?;
    storage_is_there(&node)?;
    until(&node, &["cat", "/proc/swaps"], "/dev/vda2")?;
    let swaps = until(&node, &["cat", "/proc/swaps"], "/dev/vdb2")?;
    // Without a signature it may be anybody's.
    assert!(!swaps.contains("/dev/vdb1"), "{swaps}");
    // As a runtime finds it.
    for path in ["/var/lib/containerd", "/var/lib/kubelet"] {
        assert_eq!(node.mount(path)?.fstype, "tmpfs", "{path}");
    }
    Ok(())
}

/// New ones have GPT, encrypt by themselves, keep docker's images on a disk, and swap to the
/// server when their own is not enough.
#[test]
#[ignore = "boots a virtual machine"]
fn storage_is_as_planned_on_debian_13() -> Result<()> {
    let config = format!(
        "{STORAGE}NBD_SWAP = true\n\
         CONTAINER_DIRS = \"/var/lib/docker=LABEL=docker /var/lib/containerd=tmpfs:64M\"\n"
    );
    let site = Site::with_exports("variables-storage-13", "trixie", &config, |lab, nbd| {
        let swap = lab.file("swap.img");
        std::fs::File::create(&swap)?.set_len(64 << 20)?;
        Ok(nbd.writable("swap", &swap))
    })?;
    let data = Disk::new(&site.lab, "data", Table::Gpt);
    let data = data.ext4("data")?.ext4("docker")?.unformatted_swap().make()?;
    let machine = site.vm()?.disk(data).boot()?;
    let node = site.node_as_planned(&machine, OF_THE_SYSTEM)?;
    storage_is_there(&node)?;
    until(&node, &["swapon", "--show=NAME", "--noheadings"], "dm-")?;
    for name in ["landfall-swap-vda3", "landfall-swap-nbd1"] {
        let state = until(&node, &["cryptsetup", "status", name], "is active and is in use")?;
        assert!(state.contains("aes-xts-plain64"), "{state}");
    }
    assert_eq!(node.mount("/var/lib/docker")?.fstype, "ext4");
    assert_eq!(node.mount("/var/lib/containerd")?.fstype, "tmpfs");
    containers_have_room(&node, "/var/lib/docker")
}

/// What container runtimes do: an overlay with its changes in their own folder, and a root that is
/// left by pivot_root(2). On the overlay of the root the first is impossible, and in a root that
/// was not reached by a change of root the second.
fn containers_have_room(node: &Node<'_>, folder: &str) -> Result<()> {
    let container = |folder: &str| {
        let script = format!(
            "set -e; mkdir -p {folder}/changes {folder}/work {folder}/root; \
             mount -t overlay overlay {folder}/root \
             -o lowerdir=/rofs,upperdir={folder}/changes,workdir={folder}/work; \
             cd {folder}/root; mkdir before; pivot_root . before; test -d /before/rofs; \
             echo here > /etc/container; cat /etc/container"
        );
        node.run(&["unshare", "--mount", "sh", "-c", &script])
    };
    let ran = container(folder)?;
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(0), "here\n"), "{ran:?}");
    assert!(!node.exists("/etc/container")?);
    // The reason for all of it.
    let ran = container("/srv")?;
    assert_ne!(ran.status, Some(0), "an overlay on the root's own overlay: {ran:?}");
    Ok(())
}

/// A node of our first user, said without a line of shell: the same file as in the README.
#[test]
#[ignore = "boots a virtual machine"]
fn the_seed_said_without_shell_is_as_planned() -> Result<()> {
    let config = include_str!("../fixtures/declarative-lts.conf");
    let site = Site::new("variables-declarative", "trixie", config)?;
    let initramfs = Initramfs::new(site.kernel).build()?;
    let words = format!("{ROOT} systemd.default_timeout_start_sec=20");
    let machine =
        site.lab.vm(site.kernel).initramfs(initramfs).memory_mib(1024).cmdline(&words).boot()?;
    let node = site.node_as_planned(&machine, OF_THE_SYSTEM)?;
    assert!(!node.file("/etc/hosts")?.contains("127.0.0.2"));
    let exec = node.output(&["systemctl", "show", "--property=ExecStart", "docker.service"])?;
    assert!(exec.contains("--storage-driver overlay2"), "{exec}");
    for (name, value) in [
        ("kernel/softlockup_panic", "1"),
        ("fs/file-max", "20000000"),
        ("net/ipv4/neigh/default/gc_thresh3", "100000"),
        ("net/ipv4/ip_forward", "1"),
    ] {
        assert_eq!(node.file(&format!("/proc/sys/{name}"))?.trim(), value, "{name}");
    }
    // There is no cluster here: that it was tried is what the file promises.
    let joined = ["systemctl", "show", "--property=Result", "kubeadm-join.service"];
    until(&node, &joined, "Result=exit-code")?;
    // The disks are not there either, and a node without them must have its sshd.
    assert_eq!(node.output(&["systemctl", "is-active", "ssh"])?.trim(), "active");
    assert!(node.file("/root/.ssh/authorized_keys")?.ends_with("admin@kubernetes\n"));
    Ok(())
}
