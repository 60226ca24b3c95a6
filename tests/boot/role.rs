//! Landfall in an initramfs that has another init: a small one made by hand, whose shell script
//! does what the inits of the field do.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use landfall_tests::{Initramfs, Kernel, Lab, Machine, Nbd, NbdKind, Node, ProbeRoot, workshop};

use crate::{ROOT, usual_dhcp, usual_root, usual_vm};

/// What every init does first. `/run` is as initramfs-tools mounts it, the sharing of mounts as
/// systemd has it.
const BEGINNING: &str = "#!/bin/busybox sh
export PATH=/bin:/usr/bin
/bin/busybox mkdir -p /proc /sys /dev /run /root
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs -o noexec,nosuid,mode=755 tmpfs /run
mount --make-rshared /
exec >/dev/console 2>&1
";

/// As initramfs-tools and systemd end: the mounts move, and the new root becomes the root.
const END: &str = "
grep ' /root/' /proc/self/mountinfo | while read -r id parent device root target rest; do
    echo \"HOST: $target is mounted\"
done
mount --make-rprivate /
echo \"HOST: init is $(cat /run/landfall/init)\"
for api in run dev proc sys; do mount -o move /$api /root/$api; done
exec switch_root /root $(cat /root/run/landfall/init)
";

const MOUNT_ROOT: &str = "
landfall claims --verbose || { echo 'HOST: it is not for Landfall'; exec sleep 1000; }
landfall mount-root --print-init /root >/run/printed
echo \"HOST: mount-root says $?\"
";

/// The drivers are the image's and nobody has loaded them; udhcpc is what klibc's ipconfig is to
/// initramfs-tools.
const NETWORK: &str = "
modprobe virtio_pci; modprobe virtio_net
ip link set eth0 up
cat >/run/udhcpc <<'END'
#!/bin/busybox sh
case $1 in
bound|renew)
    ip addr add $ip/$mask dev $interface
    ip route add default via $router dev $interface
    echo \"HOST: $interface is $ip\" ;;
esac
END
mount -o remount,exec /run
chmod 755 /run/udhcpc
udhcpc -i eth0 -n -q -s /run/udhcpc
mount -o remount,noexec /run
";

/// The usual modules, a busybox, Landfall as a program, and this script as `/init`.
fn host(kernel: Kernel, script: &[&str]) -> Result<std::path::PathBuf> {
    with_busybox(Initramfs::new(kernel))
        .program("usr/bin/landfall", &workshop::agent()?)
        .script("init", &script.concat())
        .build()
}

fn with_busybox(image: Initramfs) -> Initramfs {
    image.program("bin/busybox", Path::new("/bin/busybox"))
}

/// Where things are mounted, sorted.
fn targets(node: &Node<'_>) -> Result<Vec<String>> {
    let mut targets: Vec<_> =
        node.state()?.mounts.iter().map(|mount| mount.target.clone()).collect();
    targets.sort_unstable();
    Ok(targets)
}

/// `what` of the boot's report.
fn choice(node: &Node<'_>, what: &str) -> Result<String> {
    let report: serde_json::Value = serde_json::from_str(&node.file("/run/landfall/report.json")?)?;
    let all = report["choices"].as_array().context("no choices")?;
    let found = all.iter().find(|choice| choice["what"] == what);
    let value = found.and_then(|choice| choice["value"].as_str());
    Ok(value.with_context(|| format!("no {what} in {report}"))?.to_owned())
}

/// The files that a boot leaves in `/run`, without what differs from boot to boot.
fn left(node: &Node<'_>) -> Result<Vec<(String, String)>> {
    let paths = ["/run/landfall/env", "/run/landfall/lease.json", "/run/net-eth0.conf"];
    paths.iter().map(|path| Ok(((*path).to_owned(), node.file(path)?))).collect::<Result<Vec<_>>>()
}

/// Who has LUKS or plymouth in an initramfs keeps them, and gets the system that Landfall's own
/// image gives.
#[test]
#[ignore = "boots a virtual machine"]
fn a_hosts_init_gets_the_same_root_from_the_root_handler() -> Result<()> {
    let lab = Lab::new("role-handler")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let reference = usual_vm(&lab, Kernel::V6_12, "")?.boot()?;
    let node = reference.node()?;
    let (expected, expected_files) = (targets(&node)?, left(&node)?);
    let root = choice(&node, "root")?;
    drop(reference);

    for kernel in Kernel::AMD64 {
        // Where the seed's init= leads nowhere, other inits would stop.
        let words = format!("{ROOT} init=/sbin/init-ltsp");
        let image = host(kernel, &[BEGINNING, MOUNT_ROOT, END])?;
        let machine = lab.vm(kernel).initramfs(image).cmdline(&words).boot()?;
        let node = machine.node()?;
        machine.line("HOST: mount-root says 0")?;
        machine.line("HOST: init is /sbin/init")?;
        // Nothing of ours is in the way of the host's own mounts.
        for api in ["dev", "dev/pts", "proc", "sys", "run"] {
            machine.never_said(&format!("HOST: /root/{api} is mounted"))?;
        }
        let mounts = targets(&node)?;
        assert_eq!(
            mounts,
            [&expected[..2], &["/dev".into(), "/dev/pts".into()], &expected[3..]].concat()
        );
        assert_eq!(left(&node)?, expected_files);
        assert_eq!(choice(&node, "root")?, root);
        assert_eq!(choice(&node, "init")?, "/sbin/init");
        assert_eq!(node.file("/run/landfall/init")?, "/sbin/init\n");
        assert_eq!(node.file("/run/printed")?, "/sbin/init\n");
        assert_eq!(node.output(&["busybox", "readlink", "/sbin/init-ltsp"])?, "/sbin/init\n");
        let run = node.mount("/run")?;
        ensure!(run.option("noexec").is_none(), "{run:?}");
        // The new root is where its changes go, and the image is beside it.
        node.write("/etc/motd", "changed\n")?;
        assert_eq!(node.file("/cow/up/etc/motd")?, "changed\n");
        assert_eq!(node.file("/rofs/etc/motd")?, "from the image\n");
        assert!(!node.exists("/run/landfall/layers")?);
        let printk = node.file("/proc/sys/kernel/printk")?;
        assert!(printk.starts_with('7'), "{printk}");
    }
    Ok(())
}

/// The image in memory has nobody who keeps it but the mount.
#[test]
#[ignore = "boots a virtual machine"]
fn a_root_in_memory_outlives_the_root_handler() -> Result<()> {
    let lab = Lab::new("role-ram")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let nbd = usual_root(&lab)?;

    let image = host(Kernel::V6_12, &[BEGINNING, MOUNT_ROOT, END])?;
    let words = format!("{ROOT} toram");
    let machine = lab.vm(Kernel::V6_12).initramfs(image).cmdline(&words).boot()?;
    let node = machine.node()?;
    drop(nbd);
    node.drop_caches()?;
    assert!(node.mount("/rofs")?.source.starts_with("/dev/loop"));
    node.tree("/rofs").map(drop)
}

/// dropbear in the initramfs has an operator at the other end, who must not be cut off.
#[test]
#[ignore = "boots a virtual machine"]
fn a_network_that_is_up_is_adopted() -> Result<()> {
    let lab = Lab::new("role-adopted")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let image = host(Kernel::V6_12, &[BEGINNING, NETWORK, MOUNT_ROOT, END])?;
    let machine = lab.vm(Kernel::V6_12).initramfs(image).cmdline(ROOT).boot()?;
    let node = machine.node()?;
    let before = machine.line("HOST: eth0 is ")?;
    let before = before.rsplit(' ').next().context("an address")?;
    let state = node.state()?;
    let link = state.links.iter().find(|link| link.name == "eth0").context("no eth0")?;
    assert_eq!(link.addresses, [format!("{before}/24")]);
    assert_eq!(choice(&node, "address")?, format!("{before}/24"));
    Ok(())
}

/// An emergency shell of the host may call again, once somebody has mended the server.
#[test]
#[ignore = "boots a virtual machine"]
fn a_failure_is_the_hosts_business_and_leaves_nothing() -> Result<()> {
    let lab = Lab::new("role-fails")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let image = ProbeRoot::new(&lab)?.without("sbin/init")?.without("bin/sh")?.pack()?;
    let swap = lab.file("swap.img");
    fs::File::create(&swap)?.set_len(16 << 20)?;
    let nbd = Nbd::new(&lab, NbdKind::NbdServer).export("root", &image).writable("swap", &swap);
    let nbd = nbd.start()?;

    let again = "
echo \"HOST: mounted: $(grep -c -e ' /root ' -e landfall/layers /proc/self/mountinfo), swaps: $(grep -c /dev /proc/swaps), nbd: $(cat /sys/block/nbd[01]/pid 2>/dev/null)\"
cut -f 1 /proc/sys/kernel/printk | sed 's/^/HOST: printk is /'
echo 'HOST: press a key'; read -r key
landfall mount-root /root
";
    let image = host(Kernel::V6_12, &[BEGINNING, MOUNT_ROOT, again, END])?;
    let words = format!("{ROOT} ltsp.NBD_SWAP=true");
    let mut machine = lab.vm(Kernel::V6_12).initramfs(image).cmdline(&words).boot()?;
    machine.line("swap: nbd1 is \"swap\"")?;
    machine.failed_in("handover", &["looking for an init in the root image"])?;
    machine.line("HOST: mount-root says 1")?;
    let state = machine.line("HOST: mounted: ")?;
    ensure!(state.contains("mounted: 0, swaps: 0, nbd:"), "{state}");
    ensure!(state.trim_end().ends_with("nbd:"), "{state}");
    machine.line("HOST: printk is 7")?;
    machine.line("HOST: press a key")?;
    drop(nbd);
    let image = ProbeRoot::new(&lab)?.pack()?;
    let _nbd = Nbd::new(&lab, NbdKind::NbdServer).export("root", &image).start()?;
    machine.type_line("")?;
    let console = machine.console().len();
    // The failure is on the console already, so that is not what ends the wait for the probe.
    machine.line("HOST: init is /sbin/init")?;
    ensure!(machine.console().len() > console);
    machine.never_said("rebooting")
}

/// A host's init that has waited long enough.
#[test]
#[ignore = "boots a virtual machine"]
fn a_host_may_stop_the_root_handler() -> Result<()> {
    let lab = Lab::new("role-stopped")?;
    let stop = "
landfall mount-root /root & handler=$!
sleep 4; kill -TERM $handler; wait $handler
echo \"HOST: it says $?\"
cut -f 1 /proc/sys/kernel/printk | sed 's/^/HOST: printk is /'
exec sleep 1000
";
    let image = host(Kernel::V6_12, &[BEGINNING, stop])?;
    let machine = lab.vm(Kernel::V6_12).initramfs(image).cmdline(ROOT).boot()?;
    machine.line("network: waiting for")?;
    machine.line("stopped by SIGTERM")?;
    machine.line("HOST: it says 1")?;
    machine.line("HOST: printk is 7").map(drop)
}

const ORIGINAL: &str = "
echo \"HOST: arguments $0 $*; RACK=$RACK\"
echo \"HOST: mounts $(wc -l </proc/self/mountinfo)\"
echo 'HOST: this is the original init'
exec sleep 1000
";

/// Landfall as `/init`, with a host's init beside it.
fn image_of_two(kernel: Kernel) -> Result<std::path::PathBuf> {
    with_busybox(Initramfs::new(kernel))
        .script("init.original", &[BEGINNING, ORIGINAL].concat())
        .build()
}

fn boot_original(lab: &Lab, words: &str) -> Result<Vec<String>> {
    let image = image_of_two(Kernel::V6_12)?;
    let machine: Machine = lab.vm(Kernel::V6_12).initramfs(image).cmdline(words).boot()?;
    machine.line_within("HOST: this is the original init", Duration::from_secs(60))?;
    Ok(machine.console())
}

/// A machine with a disk must boot from it after `apt install`.
#[test]
#[ignore = "boots a virtual machine"]
fn a_boot_that_is_not_ours_is_the_original_inits() -> Result<()> {
    let lab = Lab::new("role-original")?;
    let said = |console: &[String], text: &str| console.iter().any(|line| line.contains(text));
    for (words, why) in [
        (
            "root=UUID=0a1b ro single RACK=7",
            "landfall: root=UUID=0a1b is not for Landfall: /init.original goes on",
        ),
        (
            "root=nbd:10.77.0.1:root landfall=off single RACK=7",
            "landfall: landfall=off: /init.original goes on",
        ),
    ] {
        let console = boot_original(&lab, words)?;
        ensure!(said(&console, why), "{console:#?}");
        // What the kernel gave us; /proc, /sys, /dev, /dev/pts, /run and the root are its own.
        ensure!(said(&console, "HOST: arguments /init.original"), "{console:#?}");
        ensure!(said(&console, "single; RACK=7"), "{console:#?}");
        ensure!(said(&console, "HOST: mounts 6"), "{console:#?}");
        ensure!(!said(&console, "landfall: version"), "{console:#?}");
    }
    let console = boot_original(&lab, "root=UUID=0a1b quiet")?;
    ensure!(!said(&console, "landfall:"), "{console:#?}");
    Ok(())
}

#[test]
#[ignore = "boots a virtual machine"]
fn a_boot_that_is_ours_needs_no_original_init() -> Result<()> {
    let lab = Lab::new("role-init")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;
    let image = image_of_two(Kernel::V6_12)?;
    let machine = lab.vm(Kernel::V6_12).initramfs(image).cmdline(ROOT).boot()?;
    machine.node()?;
    machine.never_said("HOST:")?;
    drop(machine);

    // And where there is none, the switch has nobody to switch to.
    let machine = usual_vm(&lab, Kernel::V6_12, "landfall=off")?.boot()?;
    machine.node()?;
    machine.line("landfall=off: there is nobody else to boot this machine").map(drop)
}
