//! The whole stage against the kernel and dnsmasq, checked with iproute2: each test is run again
//! in namespaces of its own, so it needs no rights and disturbs nobody.
//!
//! `eth0` and `eth1` are the machine's, `s0` (10.5.0.1) and `s1` (10.6.0.1) the other ends of their
//! cables, in the servers' namespace.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::keep;
use super::kernel::Origin;
use super::namespaces::in_namespaces;
use super::plan::tests::plan;
use super::{Lease, Network, NetworkPlan, bring_up};

/// Runs `test`, whose name is `name`, in new namespaces.
fn isolated(name: &str, test: impl FnOnce(&Lab)) {
    isolated_in("real_links", name, test);
}

/// The same for a test of another module of `net`.
pub(super) fn isolated_in(module: &str, name: &str, test: impl FnOnce(&Lab)) {
    in_namespaces(&format!("net::{module}::{name}"), || test(&Lab::new()));
}

/// A child that ends with the test.
pub(super) struct Process(Child);

impl Process {
    pub(super) fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")))
    }
}

impl Process {
    /// Lets it say goodbye, and waits for that.
    pub(super) fn end(&mut self) {
        // One that is still starting would just die.
        wait_until("a handler for SIGTERM", || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
            u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << (libc::SIGTERM - 1)) != 0
        });
        run(&format!("kill {}", self.0.id()));
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) struct Lab {
    /// Its namespace is the servers'.
    servers: Process,
}

impl Lab {
    fn new() -> Self {
        // The kernel's view of links is per namespace, that of /sys by who mounted it.
        run("mount -t sysfs none /sys");
        let servers = Process::start(Command::new("unshare").args(["--net", "sleep", "600"]));
        let lab = Self { servers };
        let entered = || {
            let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
            of(&lab.pid()) != of("self")
        };
        wait_until("the servers' namespace", entered);
        for (number, net) in [(0, "10.5.0.1/24"), (1, "10.6.0.1/24")] {
            run(&format!(
                "ip link add eth{number} type veth peer name s{number} netns {}",
                lab.pid()
            ));
            lab.there(&format!("ip addr add {net} dev s{number}"));
            lab.there(&format!("ip link set s{number} up"));
        }
        lab
    }

    pub(super) fn pid(&self) -> String {
        self.servers.0.id().to_string()
    }

    /// Runs a command at the servers' end.
    pub(super) fn there(&self, command: &str) {
        run(&format!("nsenter --net --target {} {command}", self.pid()));
    }

    /// dnsmasq on one of the links.
    pub(super) fn dnsmasq(&self, link: &str, options: &[&str]) -> Process {
        let mut command = Command::new("nsenter");
        command.args([
            "--net",
            "--target",
            &self.pid(),
            "dnsmasq",
            "--no-daemon",
            "--conf-file=/dev/null",
        ]);
        command.args([
            "--no-ping",
            "--bind-dynamic",
            "--leasefile-ro",
            "--no-resolv",
            "--no-hosts",
        ]);
        command.args(["--pid-file=", &format!("--interface={link}")]);
        Process::start(command.args(options))
    }
}

pub(super) fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(super) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "waiting for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Addresses of a link as `10.5.0.7/24`, with the seconds they still have.
fn addresses(link: &str) -> Vec<(String, u64)> {
    let all: serde_json::Value =
        serde_json::from_str(&run(&format!("ip -j -4 addr show dev {link}"))).unwrap();
    let all = all[0]["addr_info"].as_array().cloned().unwrap_or_default();
    let shown = |info: &serde_json::Value| {
        let address = format!("{}/{}", info["local"].as_str().unwrap(), info["prefixlen"]);
        (address, info["valid_life_time"].as_u64().unwrap())
    };
    all.iter().map(shown).collect()
}

fn routes() -> Vec<String> {
    run("ip -4 route").lines().map(|line| line.trim().to_owned()).collect()
}

fn is_up(link: &str) -> bool {
    run(&format!("ip -j link show dev {link}")).contains("\"UP\"")
}

const FOREVER: u64 = u32::MAX as u64;
const POOL: &str = "--dhcp-range=10.5.0.50,10.5.0.50,255.255.255.0,2m";
const OTHER_POOL: &str = "--dhcp-range=10.6.0.50,10.6.0.50,255.255.255.0,2m";

fn lease_of(network: &Network) -> &Lease {
    network.leases().ipv4.as_ref().expect("an IPv4 lease")
}

fn dhcp() -> Network {
    bring_up(&plan()).unwrap()
}

/// What a command line asks for.
fn planned(line: &str) -> NetworkPlan {
    let request = crate::cmdline::Request::read(line);
    assert!(request.problems.is_empty(), "{:?}", request.problems);
    crate::plan::Plan::decide(request, &crate::machine::Identity::default()).network
}

#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn everything_in_the_lease_reaches_the_kernel() {
    isolated("everything_in_the_lease_reaches_the_kernel", |lab| {
        let _server = lab.dnsmasq(
            "s0",
            &[
                POOL,
                "--dhcp-option=26,1400",
                "--dhcp-option=17,nbd:10.5.0.1/focal",
                "--dhcp-option=121,10.9.0.0/16,10.5.0.7,0.0.0.0/0,10.5.0.1",
                "--dhcp-option=119,eng.lan,lab.lan",
                "--dhcp-boot=/ltsp/amd64/pxelinux.0",
                "--host-record=boot.eng.lan,10.5.0.9",
            ],
        );
        let network = dhcp();
        assert_eq!((network.link(), network.boot_server().as_deref()), ("eth0", Some("10.5.0.1")));
        assert_eq!(lease_of(&network).root_path.as_deref(), Some("nbd:10.5.0.1/focal"));
        assert_eq!(lease_of(&network).filename.as_deref(), Some("/ltsp/amd64/pxelinux.0"));
        assert_eq!(lease_of(&network).search, ["eng.lan", "lab.lan"]);

        let [(address, seconds)] = &addresses("eth0")[..] else {
            panic!("{:?}", addresses("eth0"))
        };
        assert_eq!(address, "10.5.0.50/24");
        // The kernel's end of it is later than ours, so that the address can be kept.
        assert!((130..=150).contains(seconds), "{seconds} s");
        assert_eq!(
            routes(),
            [
                "default via 10.5.0.1 dev eth0 proto dhcp src 10.5.0.50",
                "10.5.0.0/24 dev eth0 proto kernel scope link src 10.5.0.50",
                "10.9.0.0/16 via 10.5.0.7 dev eth0 proto dhcp src 10.5.0.50",
            ]
        );
        assert!(run("ip link show dev eth0").contains("mtu 1400"));
        assert!(!is_up("eth1"), "a link that is not used is left as it was");

        assert_eq!(network.resolve("boot").unwrap(), [std::net::Ipv4Addr::new(10, 5, 0, 9)]);
        let unknown = network.resolve("nobody").unwrap_err();
        // dnsmasq's way to say that it does not know, and has nobody to ask.
        assert!(unknown.to_string().contains("asking 10.5.0.1: refused: "), "{unknown}");

        network.make_permanent().unwrap();
        network.stop();
        assert_eq!(addresses("eth0"), [("10.5.0.50/24".to_owned(), FOREVER)]);
    });
}

/// A rack where the first port goes to a network that nobody serves.
#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn the_link_with_a_server_is_found() {
    isolated("the_link_with_a_server_is_found", |lab| {
        let _server = lab.dnsmasq("s1", &[OTHER_POOL]);
        let network = dhcp();
        assert_eq!(network.link(), "eth1");
        assert_eq!(addresses("eth0"), []);
        assert!(!is_up("eth0"));
        network.stop();
    });
}

/// After a power cut the clients are up before their server.
#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn a_server_that_starts_late_is_awaited() {
    isolated("a_server_that_starts_late_is_awaited", |lab| {
        thread::scope(|scope| {
            let server = scope.spawn(|| {
                thread::sleep(Duration::from_secs(2));
                lab.dnsmasq("s0", &[POOL])
            });
            let network = dhcp();
            assert_eq!(network.link(), "eth0");
            network.stop();
            drop(server.join());
        });
    });
}

/// A cable that is plugged in late, and a driver that is loaded late.
#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn links_and_carriers_may_come_later() {
    isolated("links_and_carriers_may_come_later", |lab| {
        let _server = lab.dnsmasq("s1", &[OTHER_POOL]);
        lab.there("ip link set s0 down");
        lab.there("ip link set s1 down");
        run("ip link set eth1 name absent");
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(500));
                run("ip link set absent name eth1");
                thread::sleep(Duration::from_millis(500));
                lab.there("ip link set s1 up");
            });
            let network = bring_up(&planned("ip=eth1:dhcp")).unwrap();
            assert_eq!(network.link(), "eth1");
            assert!(!is_up("eth0"), "a link that is not meant is not touched");
            network.stop();
        });
    });
}

/// A copy of the root into memory may take longer than the lease.
#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn the_lease_is_renewed_while_the_boot_goes_on() {
    isolated("the_lease_is_renewed_while_the_boot_goes_on", |lab| {
        // Later than the choice, which waits for something better than a server without a boot file.
        let _server = lab.dnsmasq("s0", &[POOL, "--dhcp-option=option:T1,6"]);
        let network = dhcp();
        assert_eq!(lease_of(&network).renew_seconds, Some(6), "dnsmasq does not do as it is told");
        let rest = || addresses("eth0").first().map_or(0, |(_, seconds)| *seconds);
        wait_until("some of the lease to pass", || rest() < 149);
        wait_until("a renewal", || rest() >= 149);
        network.stop();
    });
}

#[test]
#[ignore = "needs network namespaces"]
fn an_address_by_hand_needs_no_server() {
    isolated("an_address_by_hand_needs_no_server", |lab| {
        lab.there("ip link set s0 down");
        let network = bring_up(&planned("ip=10.6.0.9::10.6.0.1:255.255.255.0:::off")).unwrap();
        assert_eq!(network.link(), "eth1", "the first with carrier");
        assert_eq!(addresses("eth1"), [("10.6.0.9/24".to_owned(), FOREVER)]);
        assert_eq!(routes()[0], "default via 10.6.0.1 dev eth1 proto static");
        network.stop();
    });
}

#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn the_running_system_finds_its_files() {
    isolated("the_running_system_finds_its_files", |lab| {
        let _server = lab.dnsmasq("s0", &[POOL]);
        let network = dhcp();
        let (folder, _) =
            keep::tests::root(&[("root/etc/network/interfaces", "iface eth0 inet dhcp\n")]);
        let (root, run) = (folder.path().join("root"), folder.path().join("run"));
        let links = [network.boot.clone()];
        let inheritance = keep::tests::inheritance(&links, &network.plan);
        let kept = keep::write(&inheritance, &root, &run).unwrap();
        network.stop();
        assert_eq!(
            kept.files,
            [
                "/etc/network/interfaces",
                "/run/net-eth0.conf",
                "/run/landfall/lease.json",
                "/run/systemd/network/10-landfall-eth0.network",
                "/run/NetworkManager/conf.d/10-landfall.conf",
                "/run/systemd/system/networking.service.d/10-landfall.conf",
                "/run/systemd/system/ifup@.service.d/10-landfall.conf",
            ]
        );
        let interfaces = std::fs::read_to_string(root.join("etc/network/interfaces")).unwrap();
        assert!(interfaces.contains("iface eth0 inet manual") && !interfaces.contains("dhcp"));
    });
}

/// What another init does to a link before it starts us.
fn configured_before_us(address: &str) {
    run(&format!("ip addr add {address}/24 dev eth0"));
    run("ip link set eth0 up");
    run("ip route add default via 10.5.0.1 dev eth0");
    run("ip route add 10.9.0.0/16 via 10.5.0.7 dev eth0");
    wait_until("carrier on eth0", || run("ip link show dev eth0").contains("LOWER_UP"));
}

/// An operator may be logged in through that address.
#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn an_address_that_is_there_is_kept_and_its_lease_is_got() {
    isolated("an_address_that_is_there_is_kept_and_its_lease_is_got", |lab| {
        let _server = lab.dnsmasq("s0", &["--dhcp-range=10.5.0.50,10.5.0.99,255.255.255.0,2m"]);
        let _other = lab.dnsmasq("s1", &[OTHER_POOL, "--dhcp-boot=/pxelinux.0"]);
        configured_before_us("10.5.0.77");
        let network = dhcp();
        assert_eq!(
            (network.link(), network.boot.origin),
            ("eth0", Origin::Dhcp),
            "no second identity"
        );
        let shown = addresses("eth0");
        assert_eq!(shown.len(), 1, "{shown:?}");
        assert!(shown[0].0 == "10.5.0.77/24" && shown[0].1 <= 150, "{shown:?}");
        assert!(!is_up("eth1"));
        // What somebody has added on purpose stays.
        assert!(
            routes().contains(&"10.9.0.0/16 via 10.5.0.7 dev eth0".to_owned()),
            "{:?}",
            routes()
        );
        let defaults = routes().into_iter().filter(|route| route.starts_with("default"));
        assert_eq!(
            defaults.collect::<Vec<_>>(),
            ["default via 10.5.0.1 dev eth0 proto dhcp src 10.5.0.77"]
        );
        network.make_permanent().unwrap();
        network.stop();
        assert_eq!(addresses("eth0"), [("10.5.0.77/24".to_owned(), FOREVER)]);
    });
}

/// A rack with addresses by hand has no DHCP server at all.
#[test]
#[ignore = "needs network namespaces"]
fn an_address_that_is_there_is_enough_when_nobody_answers() {
    isolated("an_address_that_is_there_is_enough_when_nobody_answers", |_| {
        configured_before_us("10.5.0.77");
        let before = routes();
        let network = dhcp();
        assert_eq!((network.link(), network.boot.origin), ("eth0", Origin::Host));
        assert_eq!(lease_of(&network).gateway(), Some([10, 5, 0, 1].into()));
        network.make_permanent().unwrap();
        network.stop();
        assert_eq!(addresses("eth0"), [("10.5.0.77/24".to_owned(), FOREVER)]);
        assert_eq!(routes(), before);
    });
}

/// A second address would be a second machine to everybody who logs it.
#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn an_address_that_the_server_refuses_is_replaced() {
    isolated("an_address_that_the_server_refuses_is_replaced", |lab| {
        let _server = lab.dnsmasq("s0", &[POOL]);
        configured_before_us("10.5.0.77");
        let network = dhcp();
        let shown = addresses("eth0");
        assert_eq!(shown.len(), 1, "{shown:?}");
        assert_eq!(shown[0].0, "10.5.0.50/24");
        assert!(
            routes().contains(&"default via 10.5.0.1 dev eth0 proto dhcp src 10.5.0.50".to_owned()),
            "{:?}",
            routes()
        );
        network.stop();
    });
}
