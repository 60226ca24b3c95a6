//! The client against dnsmasq, in namespaces of its own, so it needs no rights and disturbs nobody.
//!
//! `eth0` is the machine's; its cable ends at a bridge with the DHCP server (10.5.0.1), and a second
//! cable goes from there to another server (10.5.0.2).

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::pxe::{self, Boot};
use super::{Identity, Known, News, Report, Target, run};
use crate::net::choice::Wants;
use crate::net::namespaces::in_namespaces;
use crate::net::plan::tests::plan;
use crate::net::{HardwareAddress, Lease, NetworkPlan};

/// Runs `test`, whose name is `name`, in new namespaces.
fn isolated(name: &str, test: impl FnOnce(&Lab)) {
    in_namespaces(&format!("net::dhcp::real_servers::{name}"), || test(&Lab::new()));
}

/// A child that ends with the test.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")))
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn shell(command: &str) {
    let status = Command::new("sh").args(["-ec", command]).status().unwrap();
    assert!(status.success(), "{command}");
}

/// A namespace, held open by a process that sleeps.
fn namespace() -> Process {
    let holder = Process::start(Command::new("unshare").args(["--net", "sleep", "600"]));
    let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let deadline = Instant::now() + Duration::from_secs(5);
    while of(&holder.pid()) == of("self") {
        assert!(Instant::now() < deadline, "a namespace");
        thread::sleep(Duration::from_millis(5));
    }
    holder
}

struct Lab {
    server: Process,
    other: Process,
}

impl Lab {
    fn new() -> Self {
        let lab = Self { server: namespace(), other: namespace() };
        let (server, other) = (lab.server.pid(), lab.other.pid());
        shell(&format!(
            "mount -t sysfs none /sys
             ip link add eth0 type veth peer name s0 netns {server}
             ip link set eth0 up
             at() {{ nsenter --net --target $1 ip $2; }}
             at {server} 'link add name br0 type bridge'
             at {server} 'link add p0 type veth peer name eth0 netns {other}'
             for link in s0 p0; do
                 at {server} \"link set $link master br0\"; at {server} \"link set $link up\"
             done
             at {server} 'addr add 10.5.0.1/24 dev br0'; at {server} 'link set br0 up'
             at {other} 'addr add 10.5.0.2/24 dev eth0'; at {other} 'link set eth0 up'
             # The kernel tells the bridge of carriers once a second.
             for link in s0 p0; do
                 until at {server} \"-d link show $link\" | grep -q 'state forwarding'; do sleep 0.05; done
             done"
        ));
        lab
    }

    fn dnsmasq(place: &Process, link: &str, options: &[&str]) -> Process {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &place.pid(), "dnsmasq", "--no-daemon"]);
        command.args(["--conf-file=/dev/null", "--no-ping", "--leasefile-ro", "--port=0"]);
        command.args(["--log-dhcp", "--pid-file=", "--bind-dynamic"]);
        Process::start(command.arg(format!("--interface={link}")).args(options))
    }
}

fn identity(architecture: Option<u16>) -> Identity {
    let mac = std::fs::read_to_string("/sys/class/net/eth0/address").unwrap();
    Identity {
        hardware: HardwareAddress::Ethernet(mac.trim().parse().unwrap()),
        client_id: None,
        hostname: None,
        vendor_class: "landfall".into(),
        uuid: Some(*b"0123456789abcdef"),
        architecture,
        can_do_without_ipv4: false,
    }
}

fn target() -> Target {
    let index = std::fs::read_to_string("/sys/class/net/eth0/ifindex").unwrap();
    Target { index: index.trim().parse().unwrap(), name: "eth0".into() }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().unwrap()
}

/// Everything that a client tells until it has a lease, and the time that took.
fn lease(known: Option<Known>) -> (Vec<News>, Lease, Duration) {
    lease_for(plan(), known)
}

fn lease_for(plan: NetworkPlan, known: Option<Known>) -> (Vec<News>, Lease, Duration) {
    let began = Instant::now();
    let told = Arc::new(Mutex::new((Vec::new(), Duration::ZERO)));
    let tell = |report| {
        let told = Arc::clone(&told);
        async move {
            let Report::News(news) = report else { return true };
            let goes_on = !matches!(news, News::Granted(_));
            let mut told = told.lock().unwrap();
            told.0.push(news);
            told.1 = began.elapsed();
            goes_on
        }
    };
    let client = run(target(), identity(Some(0)), Wants::of(&plan), known, tell);
    let patience = Duration::from_secs(20);
    runtime().block_on(async { timeout(patience, client).await }).expect("a lease");
    let (told, took) = told.lock().unwrap().clone();
    match told.last() {
        Some(News::Granted(lease)) => (told.clone(), (**lease).clone(), took),
        last => panic!("{last:?}"),
    }
}

const POOL: &str = "--dhcp-range=10.5.0.50,10.5.0.51,255.255.255.0,10m";

/// The first REQUEST of a client that knows its address is answered: no DISCOVER, no OFFER.
#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn a_known_address_costs_one_round_trip() {
    isolated("a_known_address_costs_one_round_trip", |lab| {
        // Only a server that is alone dares to speak of leases that it does not remember.
        let options = [POOL, "--dhcp-authoritative", "--dhcp-option=66,boot"];
        let _server = Lab::dnsmasq(&lab.server, "br0", &options);
        thread::sleep(Duration::from_millis(300));
        let address = [10, 5, 0, 51].into();
        let known = |is_configured| Some(Known { address, is_configured });
        let (told, lease, took) = lease(known(false));
        assert_eq!(lease.address, address);
        assert!(matches!(told[..], [News::Granted(_)]), "{told:?}");
        println!("confirmed and probed after {took:?}");
        assert!(took < Duration::from_millis(150), "{took:?}");
        let (_, _, took) = self::lease(known(true));
        println!("confirmed after {took:?}");
        assert!(took < Duration::from_millis(50), "{took:?}");
        // Of another network: a NAK, and then the usual way.
        let known = Some(Known { address: [10, 9, 9, 9].into(), is_configured: false });
        let (told, lease, took) = self::lease(known);
        println!("refused, and another granted after {took:?}");
        assert!(matches!(told[0], News::Refused { .. }), "{told:?}");
        assert_eq!(lease.network().to_string(), "10.5.0.0/24");
    });
}

#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn an_address_in_use_is_declined() {
    isolated("an_address_in_use_is_declined", |lab| {
        let _server = Lab::dnsmasq(&lab.server, "br0", &[POOL, "--dhcp-option=66,boot"]);
        thread::sleep(Duration::from_millis(300));
        let (_, first, took) = lease(None);
        println!("granted after {took:?}");
        assert!(took < Duration::from_millis(400), "{took:?}");
        // Somebody has typed this address into another machine.
        let other = lab.other.pid();
        shell(&format!("nsenter --net --target {other} ip addr add {}/24 dev eth0", first.address));
        let (told, second, took) = lease(None);
        println!("declined, and another granted after {took:?}");
        let conflict = told.iter().find(|news| matches!(news, News::Conflict { .. }));
        let Some(News::Conflict { address, declined: true, .. }) = conflict else {
            panic!("{told:?}");
        };
        assert_eq!(*address, first.address);
        assert_ne!(second.address, first.address);
    });
}

/// Asks the boot server as the worker does: with the address on the link.
fn ask_boot_server(architecture: u16) -> (Option<Boot>, Duration) {
    let began = Instant::now();
    let address = [10, 5, 0, 57].into();
    let answer = runtime().block_on(async {
        pxe::ask(&target(), &identity(Some(architecture)), address, None, pxe::PATIENCE)
            .await
            .unwrap()
    });
    (answer.map(|(_, boot)| boot), began.elapsed())
}

#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn a_proxy_says_what_to_boot_and_gives_no_address() {
    isolated("a_proxy_says_what_to_boot_and_gives_no_address", |lab| {
        let log = tempfile::NamedTempFile::new().unwrap();
        let log_option = format!("--log-facility={}", log.path().display());
        let pxe_pool = "--dhcp-range=set:pxe,10.5.0.200,10.5.0.210,255.255.255.0,10m";
        let class = "--dhcp-vendorclass=set:pxe,PXEClient";
        let server = [POOL, pxe_pool, class, &log_option];
        let _server = Lab::dnsmasq(&lab.server, "br0", &server);
        shell("ip addr add 10.5.0.57/24 dev eth0");

        let (nothing, took) = ask_boot_server(0);
        println!("nobody answers within {took:?}");
        assert!(nothing.is_none() && took < Duration::from_millis(1100), "{nothing:?} {took:?}");

        let proxy = "--dhcp-range=10.5.0.0,proxy";
        let check = |case: &str, options: &[&str], architecture, server: u8, file: &str| {
            let _proxy = Lab::dnsmasq(&lab.other, "eth0", &[&[proxy], options].concat());
            thread::sleep(Duration::from_millis(300));
            let (boot, took) = ask_boot_server(architecture);
            println!("{case}: {boot:?} after {took:?}");
            let boot = boot.unwrap_or_else(|| panic!("{case}: no answer"));
            assert_eq!(boot.next_server, Some([10, 5, 0, server].into()), "{case}");
            assert_eq!(boot.filename.as_deref(), Some(file), "{case}");
            let mut lease = Lease::of_address([10, 5, 0, 57].into(), 24);
            boot.complete(&mut lease);
            assert!(!pxe::could_complete(&lease), "{case}");
        };
        // Nobody listens at port 4011 without a menu, or the question for one.
        let file = ["--dhcp-boot=ltsp/pxelinux.0,boot,10.5.0.9", "--pxe-prompt=Landfall,0"];
        check("a file, BIOS", &file, 0, 9, "ltsp/pxelinux.0");
        check("a file, UEFI", &file, 7, 9, "ltsp/pxelinux.0");
        let menu = [
            "--pxe-service=x86PC,Landfall,ltsp/pxelinux",
            "--pxe-service=x86-64_EFI,Landfall,ltsp/grubx64.efi",
        ];
        check("a menu, BIOS", &menu, 0, 2, "ltsp/pxelinux.0");
        check("a menu, UEFI", &menu, 7, 2, "ltsp/grubx64.efi");

        let heard = std::fs::read_to_string(log.path()).unwrap();
        assert!(!heard.contains("PXEClient"), "the DHCP server was drawn into it:\n{heard}");
    });
}

/// The plain offer mostly comes first; who is first is not for a test to say.
#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn the_offer_that_says_more_wins() {
    isolated("the_offer_that_says_more_wins", |lab| {
        let _plain = Lab::dnsmasq(&lab.server, "br0", &[POOL]);
        let pool = "--dhcp-range=10.5.0.60,10.5.0.60,255.255.255.0,10m";
        let _better = Lab::dnsmasq(&lab.other, "eth0", &[pool, "--dhcp-option=17,nbd:10.5.0.2"]);
        thread::sleep(Duration::from_millis(300));
        let plan = NetworkPlan { root_from_dhcp: true, ..plan() };
        let (told, lease, took) = lease_for(plan, None);
        let words: Vec<_> = told
            .iter()
            .filter_map(|news| match news {
                News::Weighed(weighed) => Some(weighed.to_string()),
                _ => None,
            })
            .collect();
        println!("{words:#?} after {took:?}");
        assert_eq!(lease.server_id, Some([10, 5, 0, 2].into()));
        let (plain, better): (Vec<_>, Vec<_>) =
            words.iter().partition(|words| words.starts_with("the offer of 10.5.0.1 "));
        assert!(better[0].ends_with("it says all that this boot wants to know"), "{words:?}");
        let passed_over = "is passed over: that of 10.5.0.2 says more";
        let too_late = "is too late: that of 10.5.0.2 has been accepted";
        assert!(
            plain.iter().all(|words| words.ends_with(passed_over) || words.ends_with(too_late)),
            "{words:?}"
        );
    });
}

/// Who has heard from the machine before, under another hardware address, learns the new one.
#[test]
#[ignore = "needs network namespaces"]
fn an_announcement_is_believed() {
    isolated("an_announcement_is_believed", |lab| {
        let other = lab.other.pid();
        let there = |command: &str| format!("nsenter --net --target {other} ip {command}");
        shell(&there("neigh replace 10.5.0.57 lladdr 02:00:00:00:00:09 dev eth0 nud stale"));
        // An entry is not overwritten in its first second.
        thread::sleep(Duration::from_millis(1200));
        let HardwareAddress::Ethernet(mac) = identity(None).hardware else { panic!("no Ethernet") };
        let announce = crate::net::arp::announce(target().index, mac, [10, 5, 0, 57].into());
        runtime().block_on(async { _ = timeout(Duration::from_millis(300), announce).await });
        shell(&format!("{} | grep -q 'lladdr {mac} '", there("neigh show 10.5.0.57")));
    });
}
