//! One test's world: a network namespace with a bridge, and a folder for what happened in it.

use std::cell::Cell;
use std::fs::{self, File};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::ParseIntError;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};

use crate::kernel::Kernel;
use crate::vm::Vm;

/// Address of every server of a lab; machines get theirs from 10.77.0.0/24.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// The same where [`Lab::with_ipv6`] was asked for; machines get theirs from fd77::/64.
pub const SERVER6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);

/// The network namespace of the calling thread.
const OWN_NETWORK: &str = "/proc/thread-self/ns/net";

pub struct Lab {
    folder: PathBuf,
    taps: Cell<u32>,
    hosts: Cell<u32>,
    /// Of what is plugged in from now on.
    mtu: Cell<Option<u32>>,
    ipv6: bool,
}

impl Lab {
    /// Moves the calling thread into a fresh network namespace with a bridge `br0` (and so do all
    /// programs and threads it starts from now on), and empties the folder `labs/NAME`.
    ///
    /// Needs to be root, or inside a user namespace as `cargo xtask test` provides one: a process
    /// with threads cannot enter one any more.
    pub fn new(name: &str) -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).context(
            "making a network namespace; an ordinary user runs boot tests by `cargo xtask test WORD`",
        )?;
        let folder = crate::workshop::dir().join("labs").join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let (taps, hosts, mtu) = (Cell::new(0), Cell::new(0), Cell::new(None));
        let lab = Self { folder, taps, hosts, mtu, ipv6: false };
        ip("link set lo up")?;
        lab.add_wire("br0", Some(SERVER))?;
        Ok(lab)
    }

    /// Gives the servers an address of the other family as well: those that are started from now
    /// on listen on both.
    pub fn with_ipv6(mut self) -> Result<Self> {
        // A router, as far as servers of advertisements want to know, and one that does not heed
        // what it hears itself.
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
        // At once, the link's own address as well: nobody is there yet who could have either, and
        // Kea looks for addresses but once.
        fs::write("/proc/sys/net/ipv6/conf/br0/accept_dad", "0")?;
        ip("link set br0 down")?;
        ip("link set br0 up")?;
        ip(&format!("address add {SERVER6}/64 dev br0"))?;
        self.ipv6 = true;
        Ok(self)
    }

    /// The servers' address that is one of the wire `br0` alone (`fe80::…`).
    pub fn link_local(&self) -> Result<Ipv6Addr> {
        let words = ["-6", "-o", "address", "show", "dev", "br0", "scope", "link"];
        let text = String::from_utf8(Command::new("ip").args(words).output()?.stdout)?;
        let address =
            text.split_whitespace().find_map(|word| word.strip_suffix("/64")?.parse().ok());
        address.with_context(|| format!("no address in {text:?}"))
    }

    /// Packets to this IPv6 network get as far as the servers' host, and vanish there without a word.
    pub fn swallow(&self, network: &str) -> Result<()> {
        ip(&format!("route add blackhole {network}"))
    }

    pub(crate) fn has_ipv6(&self) -> bool {
        self.ipv6
    }

    /// Lets the switch that `br0` is run the spanning tree protocol: a port that gets carrier
    /// listens for so long, learns for as long again, and forwards nothing meanwhile. Between 2 s
    /// and 30 s each; switches come with 15 s.
    pub fn spanning_tree(&self, forward_delay: Duration) -> Result<()> {
        // In hundredths.
        let delay = forward_delay.as_millis() / 10;
        ip(&format!("link set br0 type bridge stp_state 1 forward_delay {delay}"))
    }

    /// The largest packet that fits through `br0` and through every port of a wire that comes from
    /// now on.
    pub fn mtu(&self, bytes: u32) -> Result<()> {
        self.mtu.set(Some(bytes));
        ip(&format!("link set br0 mtu {bytes}"))
    }

    /// One more address of the servers' host on `br0`: a server there is another one.
    pub fn add_address(&self, address: Ipv4Addr) -> Result<()> {
        ip(&format!("address add {address}/24 dev br0"))
    }

    /// Takes the port of the machine that was switched on first, and has but one card, out of the
    /// switch, or puts it back: the machine keeps its carrier, and nobody hears it.
    pub fn cut_off(&self, cut: bool) -> Result<()> {
        ip(&format!("link set tap0 {}", if cut { "down" } else { "up" }))
    }

    /// A further bridge; with an address, servers can be bound to it.
    pub fn add_wire(&self, name: &str, address: Option<Ipv4Addr>) -> Result<()> {
        ip(&format!("link add {name} type bridge"))?;
        if let Some(address) = address {
            ip(&format!("address add {address}/24 dev {name}"))?;
        }
        ip(&format!("link set {name} up"))
    }

    /// Lets `start` start servers on another host of the wire `br0`, which is what its only card is
    /// called there: two servers on one host would want the same port.
    pub fn on_another_host<T>(
        &self,
        address: Ipv4Addr,
        start: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        self.on_another_host_of("br0", address, start)
    }

    /// The same on any wire; the card is called `br0` there all the same.
    pub fn on_another_host_of<T>(
        &self,
        wire: &str,
        address: Ipv4Addr,
        start: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let here = File::open(OWN_NETWORK)?;
        let cable = format!("host{}", self.hosts.replace(self.hosts.get() + 1));
        ip(&format!("link add {cable} type veth peer name {cable}-far"))?;
        self.plug_in(&cable, wire)?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        let there = File::open(OWN_NETWORK)?;
        setns(&here, CloneFlags::CLONE_NEWNET)?;
        let result = (|| {
            // By this process's descriptor, since the namespace has no name.
            let there_as_path = format!("/proc/{}/fd/{}", process::id(), there.as_raw_fd());
            ip(&format!("link set {cable}-far netns {there_as_path}"))?;
            setns(&there, CloneFlags::CLONE_NEWNET)?;
            ip("link set lo up")?;
            ip(&format!("link set {cable}-far name br0 up"))?;
            ip(&format!("address add {address}/24 dev br0"))?;
            start()
        })();
        setns(&here, CloneFlags::CLONE_NEWNET)?;
        result
    }

    pub fn vm(&self, kernel: Kernel) -> Vm<'_> {
        Vm::new(self, kernel)
    }

    /// A file of this test; logs and images go here and stay until the test runs again.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A new folder of this test, with files in it, for the servers that serve one.
    pub fn served(&self, name: &str, files: &[(&str, &str)]) -> Result<PathBuf> {
        let folder = self.file(name);
        fs::create_dir_all(&folder)?;
        for (path, text) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().context("a file needs a folder")?)?;
            fs::write(&path, text).with_context(|| path.display().to_string())?;
        }
        Ok(folder)
    }

    /// The first `count` DHCP answers never reach the wire. The servers of the field do not lose
    /// packets on request, so the kernel loses them.
    pub fn lose_dhcp_answers(&self, count: u32) -> Result<()> {
        let rules = format!(
            "table inet lab {{\n chain out {{\n type filter hook output priority 0\n \
             udp sport 67 numgen inc mod 1000000 < {count} counter drop\n }}\n}}\n"
        );
        let file = self.file("nft.rules");
        fs::write(&file, rules)?;
        run(Command::new("nft").arg("-f").arg(file))
    }

    /// How many answers [`Self::lose_dhcp_answers`] has lost so far.
    pub fn lost_dhcp_answers(&self) -> Result<u32> {
        counter(&["list", "table", "inet", "lab"], "counter packets ")
    }

    /// Counts from now on, under a name, what comes in from the wires and is like this, in the words
    /// of nft(8). For promises of how long something takes: the clock of an emulated machine shows
    /// mostly how busy its host is, but who waits in vain repeats himself.
    pub fn count(&self, name: &str, like: &str) -> Result<()> {
        let rules = format!(
            "table bridge {name} {{\n chain seen {{\n type filter hook prerouting priority 0\n \
             {like} counter\n }}\n}}\n"
        );
        let file = self.file(&format!("nft.{name}"));
        fs::write(&file, rules)?;
        run(Command::new("nft").arg("-f").arg(file))
    }

    /// What [`Self::count`] has counted so far.
    pub fn counted(&self, name: &str) -> Result<u32> {
        counter(&["list", "table", "bridge", name], "counter packets ")
    }

    /// Counts from now on, under a name, what this host sends and is like this, in the words of nft(8).
    pub fn count_sent(&self, name: &str, like: &str) -> Result<()> {
        let rules = format!(
            "table inet {name} {{\n chain sent {{\n type filter hook output priority 0\n \
             {like} counter\n }}\n}}\n"
        );
        let file = self.file(&format!("nft.{name}"));
        fs::write(&file, rules)?;
        run(Command::new("nft").arg("-f").arg(file))
    }

    /// The bytes that [`Self::count_sent`] has counted so far, headers and all.
    pub fn sent(&self, name: &str) -> Result<u64> {
        counter(&["list", "table", "inet", name], " bytes ")
    }

    /// Connects a new tap device to a wire; its name.
    pub(crate) fn tap(&self, wire: &str) -> Result<String> {
        let name = format!("tap{}", self.taps.replace(self.taps.get() + 1));
        ip(&format!("tuntap add dev {name} mode tap"))?;
        self.plug_in(&name, wire)?;
        Ok(name)
    }

    fn plug_in(&self, port: &str, wire: &str) -> Result<()> {
        if let Some(mtu) = self.mtu.get() {
            ip(&format!("link set dev {port} mtu {mtu}"))?;
        }
        ip(&format!("link set dev {port} master {wire} up"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Images are made again by the next run; what one wants to read afterwards are the logs.
        if !std::thread::panicking() {
            for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
                if entry.path().extension().is_some_and(|extension| extension == "img") {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
    }
}

/// What comes behind these words in nft's answer, as in
/// `udp sport 67 numgen inc mod 1000000 < 2 counter packets 2 bytes 656 drop`.
fn counter<T: FromStr<Err = ParseIntError>>(arguments: &[&str], behind: &str) -> Result<T> {
    let output = Command::new("nft").args(arguments).output()?;
    let text = String::from_utf8(output.stdout)?;
    let rest = text.split_once(behind).map(|(_, rest)| rest);
    let count = rest.and_then(|rest| rest.split_whitespace().next());
    count.with_context(|| format!("no counter in:\n{text}"))?.parse().context("a number")
}

fn ip(arguments: &str) -> Result<()> {
    run(Command::new("ip").args(arguments.split(' ')))
}

/// Runs a short program of the host; its words on standard error become the error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
