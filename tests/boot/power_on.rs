//! From power-on: a machine with nothing but a network card finds its loader, its kernel and its
//! root, by the configurations of `initramfs/examples` and no others.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use landfall_tests::{
    BootFolder, Daemon, Dnsmasq, Firmware, Initramfs, Kernel, Lab, Leases, Nbd, NbdKind, Node,
    ProbeRoot, Signatures, dhcpd, example, kea, kea_program, leased, nginx, tftpd, workshop,
};

use crate::seed;

const KERNEL: Kernel = Kernel::V6_12;

const MAC: &str = "52:54:00:77:00:01";

/// As SMBIOS has it; firmware tells it the server.
const UUID: &str = "00112233-4455-6677-8899-aabbccddeeff";

/// The root's name in all examples.
const EXPORT: &str = "/opt/ltsp/amd64";

/// Firmware and loaders wait for people, for other servers and for IPv6.
const PATIENCE: Duration = Duration::from_secs(400);

/// What an emulated machine on a busy host needs, see `Vm`.
const CONSOLE: (&str, &str) = ("console=ttyS0,115200", "console=ttyS0,115200 no_timer_check");

/// The wire, the root, and what the loaders load.
struct Site {
    lab: Lab,
    folder: BootFolder,
    _root: Nbd,
}

impl Site {
    fn new(name: &str, root: Root, lts_conf: &str) -> Result<Self> {
        let lab = Lab::new(name)?;
        let image = match root {
            Root::Probe => ProbeRoot::new(&lab)?.pack()?,
            Root::Debian => workshop::debian("networkd")?,
        };
        let nbd = Nbd::new(&lab, NbdKind::NbdServer).export(EXPORT, &image).start()?;
        // As an operator's image, the modules have their signatures.
        let initramfs = Initramfs::new(KERNEL).signatures(Signatures::Keep).build()?;
        let folder = BootFolder::new(&lab, KERNEL, &initramfs, lts_conf)?;
        Ok(Self { lab, folder, _root: nbd })
    }

    fn grub(mut self, menu: &str) -> Result<Self> {
        self.folder = self.folder.grub(menu)?;
        Ok(self)
    }

    fn pxelinux(mut self, menu: &str) -> Result<Self> {
        self.folder = self.folder.pxelinux(menu)?;
        Ok(self)
    }

    fn ipxe(mut self, script: &str) -> Result<Self> {
        self.folder = self.folder.ipxe(script)?;
        Ok(self)
    }

    fn tftpd(&self) -> Result<Daemon> {
        tftpd(&self.lab, self.folder.path(), &[])
    }

    /// A dnsmasq with an example of its own, serving the folder.
    fn dnsmasq(&self, name: &str) -> Result<Daemon> {
        let folder = self.folder.path().display().to_string();
        Dnsmasq::configured(&self.lab, &example(name, &[("/srv/tftp", &folder)])?)
    }

    /// Switches the machine on, waits for the root's own system and looks at it.
    fn boot(&self, firmware: Firmware, look: impl FnOnce(&Node<'_>) -> Result<()>) -> Result<()> {
        let machine = self.lab.vm(KERNEL).firmware(firmware).uuid(UUID).memory_mib(1024).boot()?;
        let node = machine.node_within(PATIENCE)?;
        let (age, up) = (machine.age().as_secs_f64(), node.hello.uptime_seconds);
        eprintln!("{firmware:?}: {age:.0} s, of which {:.0} s before the kernel", age - up);
        assert_eq!(node.mount("/")?.fstype, "overlay");
        look(&node)?;
        machine.never_said("FAILED in stage")
    }
}

#[derive(Clone, Copy)]
enum Root {
    Probe,
    /// systemd with networkd, which asks for a lease of its own.
    Debian,
}

const NOTHING: &str = "[default]\nRACK = 1\n";

/// Of a loader, with what the emulated machine needs.
fn loader(name: &str) -> Result<String> {
    example(name, &[CONSOLE])
}

/// `multi-user.target` is there, and networkd has asked the server itself.
fn is_a_debian_with_a_lease(node: &Node<'_>) -> Result<()> {
    node.output(&["systemctl", "is-active", "multi-user.target"])?;
    node.output(&[
        "/lib/systemd/systemd-networkd-wait-online",
        "--interface=enp0s3",
        "--ipv4",
        "--timeout=120",
    ])?;
    Ok(())
}

/// In the server's log and in its memory there is one client with one address, and each of so many
/// `stages` was told it; it is the one that the node has.
fn is_one_client(
    server: &Daemon,
    node: &Node<'_>,
    lab: &Lab,
    name: &str,
    stages: usize,
) -> Result<()> {
    let leases = Leases::in_log(&server.log_text());
    let address = leases.one_address_of(MAC)?;
    ensure!(leases.count() >= stages, "only {leases:#?}");
    assert_eq!(leased(&lab.file(name))?.into_iter().collect::<Vec<_>>(), [address]);
    assert_eq!(addresses(node)?, [address]);
    Ok(())
}

fn addresses(node: &Node<'_>) -> Result<Vec<Ipv4Addr>> {
    let state = node.state()?;
    let link = state.links.iter().find(|link| link.mac == MAC).context("the link is gone")?;
    let address = |text: &String| text.split('/').next()?.parse().ok();
    Ok(link.addresses.iter().filter_map(address).collect())
}

/// The way of the most machines for twenty years; Kea tells the firmware by its architecture.
#[test]
#[ignore = "boots a virtual machine"]
fn a_pxe_rom_and_pxelinux_lead_to_a_debian_and_kea_sees_one_client() -> Result<()> {
    let site = Site::new("power-on-pxelinux", Root::Debian, NOTHING)?
        .pxelinux(&loader("pxelinux.cfg")?)?;
    let _tftp = site.tftpd()?;
    let memory = site.lab.file("kea.leases").display().to_string();
    let server =
        kea(&site.lab, &example("kea-dhcp4.conf", &[("/var/lib/kea/kea-leases4.csv", &memory)])?)?;
    site.boot(Firmware::Bios, |node| {
        is_a_debian_with_a_lease(node)?;
        let words = node.file("/proc/cmdline")?;
        assert!(words.contains("BOOTIF=01-52-54-00-77-00-01"), "{words}");
        // The ROM, Landfall, networkd.
        is_one_client(&server, node, &site.lab, "kea.leases", 3)
    })
}

/// The first user's site: GRUB's menu as it is there, `BOOTIF=` without `01-`, and the node's
/// configuration byte for byte.
#[test]
#[ignore = "boots a virtual machine"]
fn the_seeds_grub_leads_to_the_seeds_configuration() -> Result<()> {
    const MENU: &str = include_str!("../fixtures/seed-grub.cfg");
    let menu = MENU.replace("console=ttyS0,9600n8", "console=ttyS0,9600n8 no_timer_check");
    let site = Site::new("power-on-seed", Root::Debian, seed::SEED)?.grub(&menu)?;
    let _tftp = site.tftpd()?;
    let server = dhcpd(&site.lab, &example("dhcpd.conf", &[])?)?;
    site.boot(Firmware::Bios, |node| {
        let words = node.file("/proc/cmdline")?;
        for word in
            ["BOOT_IMAGE=/ltsp/amd64/vmlinuz ", "root=/dev/nbd0 ", "BOOTIF=52-54-00-77-00-01"]
        {
            assert!(words.contains(word), "{word}: {words}");
        }
        seed::took_effect(node)?;
        is_a_debian_with_a_lease(node)?;
        is_one_client(&server, node, &site.lab, "dhcpd.leases", 3)
    })
}

/// HTTP from the first byte: what a data centre of today does.
#[test]
#[ignore = "boots a virtual machine"]
fn an_ipxe_in_the_card_loads_by_http() -> Result<()> {
    let site =
        Site::new("power-on-ipxe-bios", Root::Probe, NOTHING)?.ipxe(&loader("boot.ipxe")?)?;
    let _http = nginx(&site.lab, site.folder.path())?;
    let server = site.dnsmasq("dnsmasq.conf")?;
    site.boot(Firmware::Bios, |node| {
        // The ROM and Landfall; nobody renews the lease in this root.
        is_one_client(&server, node, &site.lab, "dnsmasq.leases", 2)
    })
}

/// UEFI firmware sends no client identifier; dhcpd would give each stage its own address.
#[test]
#[ignore = "boots a virtual machine"]
fn uefi_and_grub_lead_to_a_debian_and_dhcpd_sees_one_client() -> Result<()> {
    let site =
        Site::new("power-on-grub-uefi", Root::Debian, NOTHING)?.grub(&loader("grub.cfg")?)?;
    let _tftp = site.tftpd()?;
    let server = dhcpd(&site.lab, &example("dhcpd.conf", &[])?)?;
    site.boot(Firmware::Uefi, |node| {
        is_a_debian_with_a_lease(node)?;
        assert!(node.exists("/sys/firmware/efi")?);
        // The firmware, Landfall, networkd.
        is_one_client(&server, node, &site.lab, "dhcpd.leases", 3)
    })
}

/// The only chain with two loaders, hence four stages that ask.
#[test]
#[ignore = "boots a virtual machine"]
fn uefi_and_ipxe_lead_to_a_debian_and_dnsmasq_sees_one_client() -> Result<()> {
    let site =
        Site::new("power-on-ipxe-uefi", Root::Debian, NOTHING)?.ipxe(&loader("boot.ipxe")?)?;
    let _http = nginx(&site.lab, site.folder.path())?;
    let server = site.dnsmasq("dnsmasq.conf")?;
    site.boot(Firmware::Uefi, |node| {
        is_a_debian_with_a_lease(node)?;
        is_one_client(&server, node, &site.lab, "dnsmasq.leases", 4)
    })
}

/// Where somebody else runs the DHCP server and will not touch it.
fn leads_past_a_server_that_knows_nothing(site: &Site, firmware: Firmware) -> Result<()> {
    let dhcp = site
        .lab
        .on_another_host(Ipv4Addr::new(10, 77, 0, 2), || Dnsmasq::new().start(&site.lab))?;
    let proxy = site.dnsmasq("dnsmasq-proxy.conf")?;
    site.boot(firmware, |node| {
        // The configuration is there, though DHCP says nothing of its server.
        let settings = node.file("/run/landfall/report.json")?;
        assert!(settings.contains("10.77.0.1/ltsp/amd64/lts.conf"), "{settings}");
        let address = Leases::in_log(&dhcp.log_text()).one_address_of(MAC)?;
        assert_eq!(addresses(node)?, [address]);
        assert!(!proxy.log_text().contains("DHCPACK"), "{}", proxy.log_text());
        Ok(())
    })
}

#[test]
#[ignore = "boots a virtual machine"]
fn pxelinux_behind_a_proxy_needs_nothing_of_the_dhcp_server() -> Result<()> {
    let site = Site::new("power-on-proxy-bios", Root::Probe, NOTHING)?
        .pxelinux(&loader("proxy.pxelinux.cfg")?)?;
    leads_past_a_server_that_knows_nothing(&site, Firmware::Bios)
}

#[test]
#[ignore = "boots a virtual machine"]
fn grub_behind_a_proxy_needs_nothing_of_the_dhcp_server() -> Result<()> {
    let site =
        Site::new("power-on-proxy-uefi", Root::Probe, NOTHING)?.grub(&loader("proxy.grub.cfg")?)?;
    leads_past_a_server_that_knows_nothing(&site, Firmware::Uefi)
}

/// Whoever wants another loader removes a few number signs; then the file must still be one.
#[test]
#[ignore = "runs servers of the workshop"]
fn what_the_examples_offer_in_comments_is_valid() -> Result<()> {
    let lab = Lab::new("examples")?;
    let cases = [
        ("dnsmasq.conf", Command::new("dnsmasq"), &["--test", "-C"]),
        ("dhcpd.conf", workshop::packaged_program("usr/sbin/dhcpd")?, &["-t", "-cf"]),
    ];
    for (name, mut command, arguments) in cases {
        // A comment has one blank behind its sign; an alternative has none, or is indented.
        let uncommented = |line: &str| {
            let (before, after) = line.split_once('#')?;
            let offered = before.trim().is_empty()
                && (after.starts_with("    ") || !after.starts_with([' ', '\n']));
            offered.then(|| after.to_owned())
        };
        let text = example(name, &[])?;
        let lines = text.lines().map(|line| uncommented(line).unwrap_or_else(|| line.to_owned()));
        let lines: Vec<_> = lines.collect();
        ensure!(lines.join("\n") != text.trim_end(), "{name} offers nothing");
        let file = lab.file(name);
        fs::write(&file, lines.join("\n") + "\n")?;
        let output = command.args(arguments).arg(&file).output()?;
        ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }

    // Kea's is for another place: in front of the classes that are there.
    let name = "kea-dhcp4.conf";
    let memory = lab.file("kea.leases").display().to_string();
    let text = example(name, &[("/var/lib/kea/kea-leases4.csv", &memory)])?;
    let lines = text.lines().map(str::trim).skip_while(|line| !line.starts_with("// {"));
    let class: String = lines.map_while(|line| line.strip_prefix("//")).collect();
    let classes = "\"client-classes\": [";
    ensure!(class.contains("boot.ipxe") && text.contains(classes), "{name} offers nothing");
    let file = lab.file(name);
    fs::write(&file, text.replace(classes, &format!("{classes}{class}")))?;
    let output = kea_program(&lab)?.arg("-t").arg(&file).output()?;
    ensure!(output.status.success(), "{name}: {output:?}");
    Ok(())
}
