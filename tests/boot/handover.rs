//! The network changes hands: from the boot to whatever looks after it in the running system.
//!
//! From before there is an init, a program in the machine talks over one connection and reads the
//! root's disk, and notes the longest that either ever stood still. Roots and their software are
//! those of `xtask/src/debian.rs`, each with an administrator's own configuration for the port,
//! which knows nothing of a root behind it.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use landfall_tests::protocol::Watched;
use landfall_tests::{Dnsmasq, Kernel, Lab, Nbd, NbdKind, Node, SERVER, workshop};

use crate::usual_vm;

const MAC: &str = "52:54:00:77:00:01";
/// Of the machine that answers whatever it is told.
const PORT: u16 = 7777;
const WATCHED: &str = "/run/landfall-watched.json";

/// Longer, and somebody's video conference or somebody's database would have noticed.
const LONGEST_STALL: f64 = 1.0;

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

/// A root, as `landfall.handover=` hands it over.
fn inherits(test: &str, manager: &Manager, mode: &str) -> Result<()> {
    let lab = Lab::new(test)?;
    // The kind of lease that ends while somebody works.
    let tftp = lab.served("tftp", &[("ltsp/amd64/lts.conf", &configuration())])?;
    let leases = lab.file("dnsmasq.leases");
    let dhcp = Dnsmasq::new()
        .tftp(&tftp)
        .leases("10.77.0.50,10.77.0.99,120")
        .name("printer.lab.example", "10.77.0.9")
        .option("domain=lab.example")
        .option(format!("dhcp-option=6,{SERVER}"))
        .option("leasefile-ro")
        .start(&lab)?;
    let _ = leases;
    echo(PORT)?;
    let _nbd =
        Nbd::new(&lab, NbdKind::NbdServer).export("root", &workshop::debian(manager.root)?).start()?;

    let words = format!("landfall.handover={mode}");
    let mut machine = usual_vm(&lab, Kernel::V6_12, &words)?.memory_mib(1024).boot()?;
    {
        let node = machine.node()?;
        let address = address(&node)?;
        let (client, asked) = identities(&dhcp.log_text(), &address)?;
        ensure!(client == [format!("01:{MAC}")], "the server knows it as {client:?}");
        if mode == "dhcp" && manager.renews {
            ensure!(asked >= 2, "nobody in the running system has asked for the lease");
        }
        if !manager.renews || mode != "dhcp" {
            ensure!(asked == 1, "somebody has asked again: {}", dhcp.log_text());
            ensure!(lifetime(&node)? == "forever", "the address ends, and nobody renews it");
        }
        knows_names(&node, manager)?;
        never_stood_still(&node, "the start")?;

        if !manager.service.is_empty() {
            node.output(&["systemctl", "restart", manager.service])?;
            // Long enough for a client that starts anew.
            thread::sleep(Duration::from_secs(5));
            ensure!(self::address(&node)? == address, "another address after a restart");
            knows_names(&node, manager)?;
            never_stood_still(&node, "the restart of the service")?;
            let (client, _) = identities(&dhcp.log_text(), &address)?;
            ensure!(client.len() == 1, "the server knows it as {client:?}");
        }
        node.drop_caches()?;
        ensure!(node.tree("/rofs/usr/sbin")?.files > 0, "the root cannot be read any more");
        ensure!(!dhcp.log_text().contains("DHCPRELEASE"), "the lease was given back");
        node.begin(&["systemctl", "poweroff"])?;
    }
    machine.ended_by("Power down", Duration::from_secs(60))?;
    ensure!(!dhcp.log_text().contains("DHCPRELEASE"), "the lease was given back at the end");
    Ok(())
}

/// The watcher is started while the root is complete and nothing runs in it yet: PREINIT commands
/// are the boot's last.
fn configuration() -> String {
    format!(
        "[default]\nPREINIT_01_WATCH = \"/usr/libexec/landfall-probe watch {SERVER}:{PORT} /dev/nbd0 \
         {WATCHED} </dev/null >/dev/null 2>&1 &\"\n"
    )
}

/// Answers on the server's port for as long as the test runs.
fn echo(port: u16) -> Result<()> {
    let listener = TcpListener::bind((SERVER, port))?;
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

/// `forever` or seconds.
fn lifetime(node: &Node<'_>) -> Result<String> {
    let shown = node.output(&["ip", "-4", "-o", "address", "show", "scope", "global"])?;
    let life = shown.split_once("valid_lft ").map(|(_, rest)| rest.split(' ').next());
    Ok(life.flatten().context(shown.clone())?.trim().to_owned())
}

/// As whom the server has been asked for this address, each once, and how often.
fn identities(log: &str, address: &str) -> Result<(Vec<String>, usize)> {
    let address = address.split('/').next().unwrap_or_default();
    let mut clients: Vec<String> = Vec::new();
    let mut asked = 0;
    // `dnsmasq-dhcp: 42 client identifier: …` is not in every version's log: what counts is that no
    // other address has been given, and that the lease is asked for by this client.
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("DHCPACK(") {
            ensure!(rest.contains(address), "another lease: {line}");
            asked += 1;
        }
        if let Some((_, id)) = line.split_once("client-id ")
            && !clients.iter().any(|known| known == id.trim())
        {
            clients.push(id.trim().to_owned());
        }
    }
    Ok((clients, asked))
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
        ensure!(
            stall.longest_seconds < LONGEST_STALL,
            "the {what} stood still for too long until {until}: {stall:?}"
        );
    }
    Ok(())
}
