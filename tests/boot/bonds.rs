//! Ports that are not an address yet: bonds, VLANs, bridges, and what is put together of them.
//!
//! The switch is a machine of its own, so LACP has somebody to talk to. A cable that is pulled is
//! pulled at both ends, as cables are.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use landfall_tests::protocol::Link;
use landfall_tests::{
    Daemon, Initramfs, Kernel, Lab, Leases, Machine, Nbd, NbdKind, Node, ProbeRoot, RunningSwitch,
    SERVER, Switch, TreeDigest,
};

use crate::links::MACS;
use crate::{usual_dhcp, usual_vm};

/// On the switch: both ports are one, which waits to be spoken to.
const TRUNK: &str = "
    ip link add trunk type bond mode 802.3ad miimon 100 lacp_rate fast
    for port in port0 port1; do ip link set $port nomaster down && ip link set $port master trunk || exit; done
    ip link set trunk master lan up
";

/// On the switch: the servers are in VLAN 7, and whatever `trunk` is knows it by its tag only.
fn tagged(trunk: &str) -> String {
    format!(
        "ip link set lan type bridge vlan_filtering 1
         bridge vlan add dev uplink vid 7 pvid untagged
         bridge vlan del dev uplink vid 1
         bridge vlan add dev {trunk} vid 7
         bridge vlan del dev {trunk} vid 1"
    )
}

/// Everything that is not the machine: servers behind a switch, and a root that takes a while to
/// read.
struct Rack {
    dhcp: Daemon,
    _nbd: Nbd,
    switch: RunningSwitch,
    digest: TreeDigest,
}

impl Rack {
    fn new(lab: &Lab, ports: usize, script: &str) -> Result<Self> {
        let dhcp = usual_dhcp(lab)?.start(lab)?;
        let tree = ProbeRoot::new(lab)?.payload_mib(2)?;
        let digest = tree.digest()?;
        let image = tree.pack()?;
        let _nbd = Nbd::new(lab, NbdKind::NbdServer).export("root", &image).start()?;
        let switch = Switch::new(lab).ports(ports).script(script).start()?;
        Ok(Self { dhcp, _nbd, switch, digest })
    }

    /// A machine with a card on each of so many ports.
    fn boot(&self, lab: &Lab, ports: usize, words: &str) -> Result<Machine> {
        let mut vm = usual_vm(lab, Kernel::V6_12, words)?;
        for port in 0..ports {
            vm = vm.nic(self.switch.port(port)?);
        }
        vm.boot()
    }

    fn pull(&self, machine: &Machine, leg: usize) -> Result<()> {
        self.switch.cable_to(leg, machine, leg, false)
    }

    fn plug_in(&self, machine: &Machine, leg: usize) -> Result<()> {
        self.switch.cable_to(leg, machine, leg, true)
    }

    /// All of the root arrives, from the server and not from memory.
    fn reads(&self, node: &Node<'_>) -> Result<()> {
        node.drop_caches()?;
        assert_eq!(node.tree("/rofs")?, self.digest);
        Ok(())
    }

    /// The link of this name, and no other, has the address that the server has given.
    fn has_its_address(&self, node: &Node<'_>, name: &str) -> Result<()> {
        let link = only_addressed(node)?;
        assert_eq!(link.name, name, "{link:?}");
        let given = Leases::in_log(&self.dhcp.log_text()).one_address_of(&link.mac)?;
        assert_eq!(link.addresses, [format!("{given}/24")]);
        Ok(())
    }
}

fn only_addressed(node: &Node<'_>) -> Result<Link> {
    let links = node.state()?.links;
    let addressed = |link: &&Link| link.name != "lo" && !link.addresses.is_empty();
    let with: Vec<_> = links.iter().filter(addressed).collect();
    let [link] = with[..] else { anyhow::bail!("{links:#?}") };
    Ok(link.clone())
}

/// A file below the bond's folder in sysfs.
fn bonding(node: &Node<'_>, name: &str) -> Result<String> {
    let text = node.file(&format!("/sys/class/net/bond0/bonding/{name}"))?;
    Ok(text.trim().to_owned())
}

/// What the kernel has decided will be so in the end.
fn becomes(node: &Node<'_>, name: &str, wanted: &str) -> Result<()> {
    let started = Instant::now();
    loop {
        let is = bonding(node, name)?;
        if is == wanted {
            return Ok(());
        }
        ensure!(started.elapsed() < Duration::from_secs(60), "{name} is {is:?}, not {wanted:?}");
        thread::sleep(Duration::from_millis(300));
    }
}

/// The console tells of each leg once, and of nothing that had to be done twice.
fn was_made_in_one_go(machine: &Machine) -> Result<()> {
    machine.never_said("it is tried again")?;
    for leg in ["eth0", "eth1"] {
        let line = format!("network: {leg} is a part of bond0");
        let said = machine.console().iter().filter(|said| said.contains(&line)).count();
        ensure!(said == 1, "{line:?} is on the console {said} times");
    }
    Ok(())
}

/// Two cables to two switches that know nothing of each other. Whichever is out while the machine
/// boots, and whichever goes afterwards, nobody notices.
#[test]
#[ignore = "boots a virtual machine"]
fn an_active_backup_bond_boots_over_one_leg_and_lives_on_over_the_other() -> Result<()> {
    let lab = Lab::new("bond-active-backup")?;
    let rack = Rack::new(&lab, 2, "")?;
    let words = "bond=bond0:eth0,eth1:mode=active-backup,miimon=100,primary=eth0 ip=bond0:dhcp";
    let machine = rack.boot(&lab, 2, words)?;
    machine.line("landfall: version")?;
    rack.pull(&machine, 0)?;
    let node = machine.node()?;

    rack.has_its_address(&node, "bond0")?;
    assert_eq!(bonding(&node, "mode")?, "active-backup 1");
    assert_eq!(bonding(&node, "miimon")?, "100");
    assert_eq!(bonding(&node, "slaves")?, "eth0 eth1");
    assert_eq!(bonding(&node, "primary")?, "eth0");
    assert_eq!(bonding(&node, "active_slave")?, "eth1");
    rack.reads(&node)?;

    rack.plug_in(&machine, 0)?;
    becomes(&node, "active_slave", "eth0")?;
    rack.pull(&machine, 1)?;
    rack.reads(&node)?;
    rack.plug_in(&machine, 1)?;
    rack.pull(&machine, 0)?;
    becomes(&node, "active_slave", "eth1")?;
    rack.reads(&node)?;
    rack.has_its_address(&node, "bond0")?;
    was_made_in_one_go(&machine)
}

/// What most racks have. The switch must agree before a packet gets through; with one leg out it
/// agrees on the other alone. Legs are "every port that a cable goes into".
#[test]
#[ignore = "boots a virtual machine"]
fn an_lacp_bond_waits_for_its_partner_and_lives_on_over_either_leg() -> Result<()> {
    let lab = Lab::new("bond-lacp")?;
    let rack = Rack::new(&lab, 2, TRUNK)?;
    let words = "bond=bond0:physical:mode=802.3ad,miimon=100,lacp_rate=fast ip=bond0:dhcp";
    let machine = rack.boot(&lab, 2, words)?;
    machine.line("landfall: version")?;
    rack.pull(&machine, 1)?;
    let node = machine.node()?;

    rack.has_its_address(&node, "bond0")?;
    assert_eq!(bonding(&node, "mode")?, "802.3ad 4");
    let mut slaves: Vec<_> = bonding(&node, "slaves")?.split(' ').map(str::to_owned).collect();
    slaves.sort_unstable();
    assert_eq!(slaves, ["eth0", "eth1"]);
    assert_ne!(bonding(&node, "ad_partner_mac")?, "00:00:00:00:00:00");
    rack.reads(&node)?;

    rack.plug_in(&machine, 1)?;
    becomes(&node, "ad_num_ports", "2")?;
    rack.pull(&machine, 0)?;
    rack.reads(&node)?;
    becomes(&node, "ad_num_ports", "1")?;
    rack.reads(&node)?;
    rack.has_its_address(&node, "bond0")?;
    was_made_in_one_go(&machine)
}

/// Both legs, and a partner that speaks once in 30 s, as switches do unless they are told to. What
/// is being waited for must be on the console.
#[test]
#[ignore = "boots a virtual machine"]
fn while_a_switch_does_not_speak_lacp_the_console_says_that_the_partner_is_missing() -> Result<()> {
    let lab = Lab::new("bond-lacp-late")?;
    // The ports are up, and not yet configured to be a trunk.
    let rack = Rack::new(&lab, 2, "for port in $ports; do ip link set $port nomaster; done")?;
    let words = "bond=bond0:eth0,eth1:mode=802.3ad,miimon=100 ip=bond0:dhcp";
    let machine = rack.boot(&lab, 2, words)?;
    machine.line("the switch to answer bond0 (802.3ad)")?;
    for line in TRUNK.lines().map(str::trim).filter(|line| !line.is_empty()) {
        rack.switch.run(line)?;
    }
    let node = machine.node()?;
    rack.has_its_address(&node, "bond0")?;
    machine.never_said("FAILED")
}

/// A machine room where the boot network is one of many on the same cable.
#[test]
#[ignore = "boots a virtual machine"]
fn a_tagged_vlan_reaches_its_root() -> Result<()> {
    let lab = Lab::new("vlan")?;
    let rack = Rack::new(&lab, 1, &tagged("port0"))?;
    let machine = rack.boot(&lab, 1, "vlan=vlan7:eth0 ip=vlan7:dhcp")?;
    let node = machine.node()?;
    rack.has_its_address(&node, "vlan7")?;
    let about = node.file("/proc/net/vlan/vlan7")?;
    assert!(about.contains("VID: 7\t") && about.contains("Device: eth0"), "{about}");
    rack.reads(&node)
}

/// The same without a word about who asks: what was described is what is meant, and an untagged
/// question on the port is nobody's.
#[test]
#[ignore = "boots a virtual machine"]
fn a_vlan_that_is_described_is_the_one_that_asks() -> Result<()> {
    let lab = Lab::new("vlan-unnamed")?;
    let rack = Rack::new(&lab, 1, &tagged("port0"))?;
    let machine = rack.boot(&lab, 1, "ip=dhcp vlan=eth0.0007:eth0")?;
    let node = machine.node()?;
    rack.has_its_address(&node, "eth0.0007")?;
    rack.reads(&node)
}

/// The whole of it, in an order in which nothing exists yet when it is first spoken of, with
/// semicolons and with legs by their addresses; and nobody gives addresses.
#[test]
#[ignore = "boots a virtual machine"]
fn a_static_address_on_a_vlan_on_a_bond_of_two_ports() -> Result<()> {
    let lab = Lab::new("vlan-on-bond")?;
    let rack = Rack::new(&lab, 2, &format!("{TRUNK}\n{}", tagged("trunk")))?;
    let words = format!(
        "ip=10.77.0.9:{SERVER}:{SERVER}:255.255.255.0:node9:bond0.7:none vlan=bond0.7:bond0 \
         bond=bond0:mac:{},mac:{}:mode=802.3ad;miimon=100;lacp_rate=fast",
        MACS[0], MACS[1]
    );
    let machine = rack.boot(&lab, 2, &words)?;
    let node = machine.node()?;
    let link = only_addressed(&node)?;
    assert_eq!(
        (link.name.as_str(), &link.addresses[..]),
        ("bond0.7", &["10.77.0.9/24".to_owned()][..])
    );
    let state = node.state()?;
    assert_eq!(state.host_name, "node9");
    let default = state.routes.iter().find(|route| route.to == "0.0.0.0/0").context("no route")?;
    assert_eq!((default.link.as_str(), default.via.as_deref()), ("bond0.7", Some("10.77.0.1")));
    assert!(!rack.dhcp.log_text().contains("DHCPDISCOVER"), "{}", rack.dhcp.log_text());
    rack.reads(&node)?;
    rack.pull(&machine, 0)?;
    rack.reads(&node)
}

/// Hosts of virtual machines, whose guests share the port with them.
#[test]
#[ignore = "boots a virtual machine"]
fn a_bridge_reaches_its_root() -> Result<()> {
    let lab = Lab::new("bridge")?;
    let dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = crate::usual_root(&lab)?;
    // Nobody loses half a minute to a spanning tree that nobody asked for.
    let words = "bridge=br0:eth0 ip=br0:dhcp";
    // Images do without the module unless it is asked for.
    let initramfs = Initramfs::new(Kernel::V6_12).modules(&["bridge"]).build()?;
    let machine = usual_vm(&lab, Kernel::V6_12, words)?.initramfs(initramfs).boot()?;
    let node = machine.node()?;
    let link = only_addressed(&node)?;
    assert_eq!(link.name, "br0", "{link:?}");
    let given = Leases::in_log(&dhcp.log_text()).one_address_of(&link.mac)?;
    assert_eq!(link.addresses, [format!("{given}/24")]);
    assert_eq!(node.list("/sys/class/net/br0/brif")?, ["eth0"]);
    Ok(())
}
