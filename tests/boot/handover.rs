//! The network changes hands: from the boot to whatever looks after it in the running system.
//!
//! From before there is an init, a program in the machine talks over one connection and reads the
//! root's disk, and notes the longest that either ever stood still. Roots and their software are
//! those of `xtask/src/debian.rs`, each with an administrator's own configuration for the port,
//! which knows nothing of a root behind it.

mod bond;
mod ipv6;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use landfall_tests::protocol::Watched;
use landfall_tests::{Daemon, Dnsmasq, Kernel, Lab, Nbd, NbdKind, Node, SERVER, workshop};

use crate::usual_vm;

const MAC: &str = "52:54:00:77:00:01";
/// Of the machine that answers whatever it is told.
const PORT: u16 = 7777;
const ROUTER: &str = "10.77.0.1";
const WATCHED: &str = "/run/landfall-watched.json";

/// Longer, and somebody's video conference or somebody's database would have noticed.
const LONGEST_STALL: f64 = 1.0;
/// Every stall of the handover's own making is there each time. One that is not was of the machine
/// that plays all the machines.
const TRIES: u32 = 3;

/// That something stood still for longer than that.
#[derive(Debug)]
struct StoodStill(String);

impl std::fmt::Display for StoodStill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StoodStill {}

/// Runs a test again in which something stood still while this host had more to do than to run
/// tests, a few times; any other failure is one at once.
fn steadily(test: impl Fn() -> Result<()>) -> Result<()> {
    for attempt in 1..TRIES {
        match test() {
            Err(error) if error.is::<StoodStill>() && is_overloaded()? => {
                eprintln!("attempt {attempt}: {error}");
            }
            outcome => return outcome,
        }
    }
    test()
}

/// Tests alone keep as many programs running as there are processors, and servers a few moments.
fn is_overloaded() -> Result<bool> {
    let load = fs::read_to_string("/proc/loadavg")?;
    let load: f64 = load.split(' ').next().context("the load")?.parse()?;
    let cores = thread::available_parallelism()?.get();
    Ok(load > 1.5 * f64::from(u32::try_from(cores)?))
}

/// Everything that is not the machine: what it talks to, who leases it its address, and its root.
struct Room {
    lab: Lab,
    tftp: PathBuf,
    dhcp: Daemon,
    _nbd: Nbd,
}

impl Room {
    /// Leases are for so many minutes.
    fn new(test: &str, manager: &Manager, minutes: u32) -> Result<Self> {
        let lab = Lab::new(test)?;
        let peer = format!("{SERVER}:{PORT}");
        let tftp = lab.served("tftp", &[("ltsp/amd64/lts.conf", &configuration(&peer))])?;
        let dhcp = Dnsmasq::configured(&lab, &server(&tftp, minutes, ROUTER))?;
        echo(&peer)?;
        let _nbd = root_of(&lab, manager)?;
        Ok(Self { lab, tftp, dhcp, _nbd })
    }
}

fn root_of(lab: &Lab, manager: &Manager) -> Result<Nbd> {
    let image = workshop::debian(manager.root)?;
    Nbd::new(lab, NbdKind::NbdServer).export("root", &image).start()
}

/// The root can still be read, from the server and not from memory.
fn reads(node: &Node<'_>) -> Result<()> {
    node.drop_caches()?;
    ensure!(node.tree("/rofs/usr/sbin")?.files > 0, "the root cannot be read any more");
    Ok(())
}

/// One way of running a network.
struct Manager {
    root: &'static str,
    /// What is restarted, and what asks the DHCP server again when it is; empty: nothing does.
    service: &'static str,
    /// Who is told of name servers: a line that must be in this file.
    names: (&'static str, &'static str),
    /// The lease is renewed in the running system.
    renews: bool,
}

impl Manager {
    const fn new(root: &'static str, service: &'static str, renews: bool) -> Self {
        Self { root, service, names: ("/etc/resolv.conf", "nameserver 10.77.0.1"), renews }
    }
}

const NETWORKD: &str = "systemd-networkd.service";
const NETWORK_MANAGER: &str = "NetworkManager.service";
const NETWORKING: &str = "networking.service";
/// Where systemd-resolved says whom it asks.
const RESOLVED: (&str, &str) = ("/run/systemd/resolve/resolv.conf", "nameserver 10.77.0.1");

/// A root, as `landfall.handover=` hands it over.
fn inherits(test: &str, manager: &Manager, mode: &str) -> Result<()> {
    let Room { lab, dhcp, .. } = &Room::new(test, manager, 10)?;
    let words = format!("landfall.handover={mode}");
    let mut machine = usual_vm(lab, Kernel::V6_12, &words)?.memory_mib(1024).boot()?;
    {
        let node = machine.node()?;
        let address = address(&node)?;
        match manager.renews && mode == "dhcp" {
            true => asked_again(dhcp, &node)?,
            false => {
                let asked = acknowledged(&dhcp.log_text());
                ensure!(asked.len() == 1, "somebody has asked again: {asked:?}");
                let life = lifetime(&node)?;
                ensure!(life == "forever", "it ends after {life}, and nobody renews it");
            }
        }
        one_lease(lab, &address)?;
        one_way_out(&node)?;
        knows_names(&node, manager)?;
        never_stood_still(&node, "the start")?;

        if !manager.service.is_empty() {
            node.output(&["systemctl", "restart", manager.service])?;
            // Long enough for a client that starts anew.
            thread::sleep(Duration::from_secs(5));
            ensure!(self::address(&node)? == address, "another address after a restart");
            knows_names(&node, manager)?;
            one_way_out(&node)?;
            never_stood_still(&node, "the restart of the service")?;
            one_lease(lab, &address)?;
        }
        reads(&node)?;
        ensure!(!dhcp.log_text().contains("DHCPRELEASE"), "the lease was given back");
        node.begin(&["systemctl", "poweroff"])?;
    }
    machine.ended_by("Power down", Duration::from_secs(60))?;
    ensure!(!dhcp.log_text().contains("DHCPRELEASE"), "the lease was given back at the end");
    Ok(())
}

/// The room gets another router. Whoever renews the lease hears of it, and nothing may lead to the
/// one of the boot any more.
fn follows_the_router(test: &str, manager: &Manager) -> Result<()> {
    // The shortest there is: renewed after a minute.
    let Room { lab, tftp, dhcp, _nbd } = Room::new(test, manager, 2)?;
    let machine = usual_vm(&lab, Kernel::V6_12, "")?.memory_mib(1024).boot()?;
    let node = machine.node()?;
    let address = address(&node)?;
    asked_again(&dhcp, &node)?;
    one_way_out(&node)?;

    dhcp.kill();
    let _dhcp = Dnsmasq::configured(&lab, &server(&tftp, 2, "10.77.0.2"))?;
    let deadline = Instant::now() + Duration::from_secs(150);
    let routes = ["ip", "-4", "route", "show", "default"];
    while !node.output(&routes)?.contains("via 10.77.0.2 ") {
        ensure!(Instant::now() < deadline, "nobody follows: {}", node.output(&routes)?);
        thread::sleep(Duration::from_secs(1));
    }
    let now = node.output(&routes)?;
    ensure!(now.lines().count() == 1, "one is left of the boot: {now}");
    ensure!(self::address(&node)? == address, "another address");
    never_stood_still(&node, "the change of routers")
}

/// A DHCP server that keeps books, and knows one name. Leases are for so many minutes.
fn server(tftp: &Path, minutes: u32, router: &str) -> String {
    format!(
        "no-resolv\nno-hosts\nlog-dhcp\nexcept-interface=lo\n\
         dhcp-range=10.77.0.50,10.77.0.99,{minutes}m\ndomain=lab.example\n\
         dhcp-option=3,{router}\ndhcp-option=6,{SERVER}\ndhcp-boot=/ltsp/amd64/pxelinux.0\n\
         enable-tftp\ntftp-root={}\nhost-record=printer.lab.example,10.77.0.9\n",
        tftp.display()
    )
}

/// The watcher is started while the root is complete and nothing runs in it yet: PREINIT commands
/// are the boot's last.
fn configuration(peer: &str) -> String {
    format!(
        "[default]\nKEEP_SYSTEM_SERVICES = \"NetworkManager\"\nHOSTNAME = \"node7\"\n\
         PREINIT_01_WATCH = \"/usr/libexec/landfall-probe watch {peer} /dev/dm-0 \
         {WATCHED} </dev/null >/dev/null 2>&1 &\"\n"
    )
}

/// Answers there for as long as the test runs.
fn echo(at: &str) -> Result<()> {
    let listener = TcpListener::bind(at)?;
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            thread::spawn(move || answer(connection));
        }
    });
    Ok(())
}

fn answer(mut connection: TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut question = [0; 8];
    loop {
        connection.read_exact(&mut question)?;
        connection.write_all(&question)?;
    }
}

fn address(node: &Node<'_>) -> Result<String> {
    let state = node.state()?;
    let link = state.links.iter().find(|link| link.mac == MAC).context("the link is gone")?;
    ensure!(link.addresses.len() == 1, "not one address: {link:?}");
    Ok(link.addresses[0].clone())
}

/// There is one default route, as there would be without us.
fn one_way_out(node: &Node<'_>) -> Result<()> {
    let routes = node.output(&["ip", "-4", "route", "show", "default"])?;
    ensure!(routes.lines().count() == 1 && routes.contains("via 10.77.0.1"), "{routes}");
    Ok(())
}

/// `forever` or seconds.
fn lifetime(node: &Node<'_>) -> Result<String> {
    let shown = node.output(&["ip", "-4", "-o", "address", "show", "scope", "global"])?;
    let life = shown.split_once("valid_lft ").map(|(_, rest)| rest.split(' ').next());
    Ok(life.flatten().context(shown.clone())?.trim().to_owned())
}

/// The address must have gone to one client only, the one that firmware is.
fn one_lease(lab: &Lab, address: &str) -> Result<()> {
    let text = fs::read_to_string(lab.file("dnsmasq.leases"))?;
    // `EXPIRY MAC ADDRESS NAME CLIENT`
    let leases: Vec<Vec<_>> = text.lines().map(|line| line.split(' ').collect()).collect();
    let [lease] = leases.as_slice() else { bail!("not one lease:\n{text}") };
    let own = address.split('/').next().unwrap_or_default();
    ensure!(lease.get(2) == Some(&own), "another address than {address}:\n{text}");
    let client = format!("01:{MAC}");
    ensure!(lease.get(4) == Some(&client.as_str()), "another client than {client}:\n{text}");
    Ok(())
}

/// Somebody in the running system has the lease now, perhaps in a moment: the probe is there as soon
/// as the network software has been started.
fn asked_again(dhcp: &Daemon, node: &Node<'_>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while acknowledged(&dhcp.log_text()).len() < 2 {
        if Instant::now() > deadline {
            let log = node.output(&["journalctl", "-b", "-n", "60", "--no-pager"])?;
            bail!("nobody in the running system asks for the lease:\n{log}");
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// What the server has granted, each time.
fn acknowledged(log: &str) -> Vec<String> {
    log.lines().filter(|line| line.contains("DHCPACK(")).map(str::to_owned).collect()
}

fn knows_names(node: &Node<'_>, manager: &Manager) -> Result<()> {
    let (file, line) = manager.names;
    let text = node.file(file)?;
    ensure!(text.lines().any(|own| own.contains(line)), "{file}: {text}");
    for name in ["printer.lab.example", "printer"] {
        let found = node.output(&["getent", "hosts", name])?;
        ensure!(found.contains("10.77.0.9"), "{name}: {found}");
    }
    Ok(())
}

fn never_stood_still(node: &Node<'_>, until: &str) -> Result<()> {
    // It writes twice a second.
    thread::sleep(Duration::from_secs(1));
    let text = node.file(WATCHED)?;
    let watched: Watched = serde_json::from_str(&text)?;
    eprintln!("until {until}: {text}");
    for (what, stall) in [("connection", &watched.connection), ("disk", &watched.disk)] {
        ensure!(stall.error.is_none(), "the {what} was lost until {until}: {stall:?}");
        ensure!(stall.answers > 10, "nothing was heard of the {what}: {stall:?}");
        if stall.longest_seconds >= LONGEST_STALL {
            let text = format!("the {what} stood still for too long until {until}: {stall:?}");
            return Err(StoodStill(text).into());
        }
    }
    Ok(())
}

#[test]
#[ignore = "boots a virtual machine"]
fn networkd_follows_the_router() -> Result<()> {
    let manager = manager("networkd-trixie")?;
    steadily(|| follows_the_router("networkd_follows_the_router", manager))
}

#[test]
#[ignore = "boots a virtual machine"]
fn network_manager_follows_the_router() -> Result<()> {
    let manager = manager("nm-trixie")?;
    steadily(|| follows_the_router("network_manager_follows_the_router", manager))
}

/// The software of a root, and what is there of it to restart.
const MANAGERS: [Manager; 13] = [
    Manager::new("networkd-bookworm", NETWORKD, true),
    Manager::new("networkd-trixie", NETWORKD, true),
    Manager::new("nm-bookworm", NETWORK_MANAGER, true),
    Manager::new("nm-trixie", NETWORK_MANAGER, true),
    Manager::new("netplan-bookworm", NETWORKD, true),
    Manager::new("netplan-trixie", NETWORKD, true),
    Manager::new("ifupdown2-bookworm", NETWORKING, false),
    Manager::new("ifupdown2-trixie", NETWORKING, false),
    Manager::new("ifupdown", NETWORKING, false),
    Manager::new("ifupdown-trixie", NETWORKING, false),
    Manager::new("none-bookworm", "", false),
    Manager::new("none-trixie", "", false),
    Manager { names: RESOLVED, ..Manager::new("trixie", NETWORKD, true) },
];

fn manager(root: &str) -> Result<&'static Manager> {
    MANAGERS.iter().find(|manager| manager.root == root).context("a root of the table")
}

/// One test for each row, so that they run side by side and fail by name.
macro_rules! handovers {
    ($($name:ident: $root:literal, $mode:literal;)*) => {
        $(
            #[test]
            #[ignore = "boots a virtual machine"]
            fn $name() -> Result<()> {
                let manager = manager($root)?;
                steadily(|| inherits(stringify!($name), manager, $mode))
            }
        )*
    };
}

handovers! {
    networkd_of_bookworm_adopts:         "networkd-bookworm",  "dhcp";
    networkd_of_trixie_adopts:           "networkd-trixie",    "dhcp";
    network_manager_of_bookworm_adopts:  "nm-bookworm",        "dhcp";
    network_manager_of_trixie_adopts:    "nm-trixie",          "dhcp";
    netplan_of_bookworm_adopts:          "netplan-bookworm",   "dhcp";
    netplan_of_trixie_adopts:            "netplan-trixie",     "dhcp";
    ifupdown_of_bookworm_keeps:          "ifupdown",           "dhcp";
    ifupdown_of_trixie_keeps:            "ifupdown-trixie",    "dhcp";
    ifupdown2_of_bookworm_keeps:         "ifupdown2-bookworm", "dhcp";
    ifupdown2_of_trixie_keeps:           "ifupdown2-trixie",   "dhcp";
    a_root_without_any_keeps:            "none-trixie",        "dhcp";
    a_root_of_bookworm_without_any_keeps: "none-bookworm",     "dhcp";
    networkd_tells_resolved:             "trixie",             "dhcp";
    networkd_has_a_frozen_lease:         "networkd-bookworm",  "static";
    network_manager_has_a_frozen_lease:  "nm-trixie",          "static";
    netplan_has_a_frozen_lease:          "netplan-trixie",     "static";
    networkd_leaves_it_alone:            "networkd-trixie",    "unmanaged";
    network_manager_leaves_it_alone:     "nm-bookworm",        "unmanaged";
    ifupdown_leaves_it_alone:            "ifupdown-trixie",    "unmanaged";
}
