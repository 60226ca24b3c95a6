//! The network after the handover, against real servers and the real kernel, in namespaces: what the
//! keeper does for as long as nobody else does.
//!
//! The machine's side is in the namespace of the test, where `eth0` leads to the servers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::bring_up;
use super::keep::{Renewer, Renewers};
use super::plan::tests::plan;
use super::real_links::{Lab, Process, isolated_in, run, wait_until};
use crate::keeper::network::orders::{Heal, NetworkOrders};
use crate::keeper::network::status::{NetworkStatus, RenewedBy};
use crate::keeper::network::{Place, keep};

fn isolated(name: &str, test: impl FnOnce(&Lab)) {
    isolated_in("real_kept", name, test);
}

/// The keeper's part in it, in a thread of the test.
struct Keeper {
    status: Arc<Mutex<NetworkStatus>>,
    /// The root is, and needs no network.
    is_in_memory: Arc<AtomicBool>,
}

impl Keeper {
    fn start(orders: NetworkOrders) -> Self {
        let status = Arc::new(Mutex::new(NetworkStatus::default()));
        let tell = Arc::clone(&status);
        std::fs::create_dir_all("/run/landfall").unwrap();
        let place = Place::open().unwrap();
        let is_in_memory = Arc::new(AtomicBool::new(false));
        let in_memory = Arc::clone(&is_in_memory);
        let is_streamed = move || !in_memory.load(Ordering::Relaxed);
        thread::spawn(move || {
            keep(place, orders, is_streamed, |status| *tell.lock().unwrap() = status).unwrap()
        });
        let keeper = Self { status, is_in_memory };
        wait_until("the keeper", || !keeper.status().link.is_empty());
        keeper
    }

    fn status(&self) -> NetworkStatus {
        self.status.lock().unwrap().clone()
    }
}

/// A boot that has ended: what it leaves behind, and what the keeper is told.
fn handed_over(heal: Heal) -> NetworkOrders {
    run("mount -t tmpfs none /run");
    let network = bring_up(&plan()).unwrap();
    network.make_permanent().unwrap();
    let orders = network.orders(vec!["10.5.0.1".parse().unwrap()], heal).unwrap();
    network.stop();
    // As they travel.
    serde_json::from_str(&serde_json::to_string(&orders).unwrap()).unwrap()
}

/// As if it were later: T1 is in `seconds`. It is as soon as T1 may be in two minutes, so that it does
/// not come earlier by chance.
fn later(orders: &mut NetworkOrders, seconds: u64) {
    for lease in orders.links.iter_mut().filter_map(|link| link.ipv4.as_mut()) {
        lease.lease.renew_seconds = Some(12);
        lease.granted = lease.granted.saturating_sub(Duration::from_secs(12 - seconds));
    }
}

const POOL: &str = "--dhcp-range=10.5.0.50,10.5.0.50,255.255.255.0,2m";
const NO_ROUTER: &str = "--dhcp-option=3";

fn server(lab: &Lab, options: &[&str]) -> Process {
    lab.dnsmasq("s0", &[&[POOL, "--dhcp-authoritative"], options].concat())
}

fn has(address: &str) -> bool {
    run("ip -4 addr show dev eth0").contains(&format!("inet {address}/24 "))
}

fn default_route() -> String {
    run("ip -4 route show default").trim().to_owned()
}

/// With the time that it took.
fn put_back(what: &str, is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    wait_until(what, is_so);
    println!("{what} after {:?}", began.elapsed());
}

#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn a_lease_that_nobody_renews_is_renewed_at_t1() {
    isolated("a_lease_that_nobody_renews_is_renewed_at_t1", |lab| {
        let first = server(lab, &["--dhcp-option=3,10.5.0.1"]);
        let mut orders = handed_over(Heal::WhileStreamed);
        assert_eq!(orders.renewers, Renewers::default());
        later(&mut orders, 2);
        let keeper = Keeper::start(orders);
        // As udev does when the running system starts.
        run("ip link set eth0 down");
        run("ip link set eth0 name enp9");
        run("ip link set enp9 up");
        wait_until("a renewal", || keeper.status().leases[0].renewals == 1);
        assert_eq!(keeper.status().link, "enp9");
        let lease = &keeper.status().leases[0];
        assert_eq!((lease.renewed_by, lease.trouble.as_deref()), (RenewedBy::Keeper, None));
        assert_eq!(lease.address, "10.5.0.50");
        let shown = run("ip -4 addr show dev enp9");
        assert!(shown.contains("valid_lft forever"), "{shown}");
        let text = std::fs::read_to_string("/run/landfall/lease.json").unwrap();
        assert!(text.contains("\"10.5.0.50\""), "{text}");
        // By unicast, as a neighbour of the server.
        assert!(
            run("cat /proc/net/udp").lines().all(|line| !line.contains(":0044 ")),
            "its port is closed"
        );
        drop(first);
    });
}

/// Until it is back, and then from the beginning: it has forgotten everybody.
#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn an_address_outlives_its_lease_and_its_server() {
    isolated("an_address_outlives_its_lease_and_its_server", |lab| {
        let first = server(lab, &["--dhcp-option=3,10.5.0.1"]);
        let mut orders = handed_over(Heal::WhileStreamed);
        drop(first);
        for lease in orders.links.iter_mut().filter_map(|link| link.ipv4.as_mut()) {
            lease.lease.lease_seconds = Some(3);
            (lease.lease.renew_seconds, lease.lease.rebind_seconds) = (Some(1), Some(2));
        }
        let keeper = Keeper::start(orders);
        let ended = || {
            keeper.status().leases[0]
                .trouble
                .as_ref()
                .is_some_and(|words| words.contains("has ended"))
        };
        wait_until("the end of the lease", ended);
        assert!(has("10.5.0.50"));
        let _second = server(lab, &["--dhcp-option=3,10.5.0.2"]);
        wait_until("the server's word", || keeper.status().leases[0].renewals == 1);
        assert_eq!(keeper.status().leases[0].trouble, None);
        // It names another router.
        put_back("the new router", || default_route().contains("via 10.5.0.2 "));
        assert_eq!(default_route().lines().count(), 1, "{}", default_route());
        assert!(has("10.5.0.50"));
    });
}

/// A server that lost its leases has given the address to the next one who asked.
#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn somebody_else_with_the_address_is_seen() {
    isolated("somebody_else_with_the_address_is_seen", |lab| {
        let first = server(lab, &[NO_ROUTER]);
        let mut orders = handed_over(Heal::WhileStreamed);
        drop(first);
        for lease in orders.links.iter_mut().filter_map(|link| link.ipv4.as_mut()) {
            lease.lease.lease_seconds = Some(3);
            (lease.lease.renew_seconds, lease.lease.rebind_seconds) = (Some(1), Some(2));
        }
        lab.there("ip addr add 10.5.0.50/24 dev s0");
        let keeper = Keeper::start(orders);
        let trouble = || keeper.status().leases[0].trouble.clone().unwrap_or_default();
        wait_until("a word on it", || trouble().ends_with("HAS THE ADDRESS AS WELL"));
        assert!(has("10.5.0.50"));
        lab.there("ip addr del 10.5.0.50/24 dev s0");
        let _second = server(lab, &[NO_ROUTER]);
        wait_until("its own lease again", || trouble().is_empty());
    });
}

/// The server gives the address to nobody any more.
#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn a_server_that_wants_another_address_does_not_get_its_way() {
    isolated("a_server_that_wants_another_address_does_not_get_its_way", |lab| {
        let first = server(lab, &[NO_ROUTER]);
        let mut orders = handed_over(Heal::WhileStreamed);
        drop(first);
        let moved = ["--dhcp-range=10.5.0.60,10.5.0.61,255.255.255.0,2m", "--dhcp-authoritative"];
        let _second = lab.dnsmasq("s0", &moved);
        thread::sleep(Duration::from_millis(300));
        later(&mut orders, 1);
        let keeper = Keeper::start(orders);
        wait_until("a word on it", || keeper.status().leases[0].trouble.is_some());
        thread::sleep(Duration::from_secs(2));
        let shown = run("ip -4 -o addr show dev eth0");
        assert!(has("10.5.0.50") && shown.lines().count() == 1, "{shown}");
        println!("{:?}", keeper.status().leases[0].trouble);
    });
}

#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn what_is_taken_away_is_put_back() {
    isolated("what_is_taken_away_is_put_back", |lab| {
        let _server = server(lab, &["--dhcp-option=3,10.5.0.1"]);
        let keeper = Keeper::start(handed_over(Heal::WhileStreamed));
        let whole = || has("10.5.0.50") && default_route().contains("via 10.5.0.1 dev eth0");
        assert!(whole());
        run("ip addr flush dev eth0");
        put_back("the address and its routes", whole);
        run("ip route del default");
        put_back("the way out", whole);
        run("ip link set eth0 down");
        put_back("the link and its routes", || {
            whole() && run("ip link show dev eth0").contains("LOWER_UP")
        });
        assert_eq!(run("ip -4 route").lines().count(), 2, "{}", run("ip -4 route"));
        wait_until("its own account", || keeper.status().heal.times == 3);
        println!("{:?}", keeper.status().heal.last);

        // Another router is somebody's decision, and from now on what is to be.
        run("ip route replace default via 10.5.0.7 dev eth0");
        thread::sleep(Duration::from_secs(2));
        assert_eq!(default_route(), "default via 10.5.0.7 dev eth0");
        run("ip route del default");
        put_back("the other way out", || default_route().contains("via 10.5.0.7 dev eth0"));

        // So is another address in its place, from which the server is reached.
        run("ip addr add 10.5.0.77/24 dev eth0");
        run("ip addr del 10.5.0.50/24 dev eth0");
        run("ip addr add 10.5.0.77/24 dev eth0");
        thread::sleep(Duration::from_secs(2));
        assert!(has("10.5.0.77") && !has("10.5.0.50"), "{}", run("ip addr show dev eth0"));
        // Whose lease ends by itself then, until the address is back.
        let by = |who| keeper.status().leases[0].renewed_by == who;
        assert!(by(RenewedBy::Nobody), "{:?}", keeper.status().leases);
        run("ip addr add 10.5.0.50/24 dev eth0");
        wait_until("to be renewed again", || by(RenewedBy::Keeper));
    });
}

/// Whoever makes a bridge of the port later, with a client that stayed on the port.
#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn the_client_follows_the_address_to_a_bridge() {
    isolated("the_client_follows_the_address_to_a_bridge", |lab| {
        let _server = server(lab, &[NO_ROUTER]);
        let mut orders = handed_over(Heal::WhileStreamed);
        later(&mut orders, 5);
        let keeper = Keeper::start(orders);
        run("ip link add br0 type bridge forward_delay 0");
        run("ip link set br0 up");
        run("ip addr add 10.5.0.50/24 dev br0");
        run("ip link set eth0 master br0");
        run("ip addr del 10.5.0.50/24 dev eth0");
        wait_until("the lease's new link", || keeper.status().leases[0].link == "br0");
        wait_until("a renewal on the bridge", || keeper.status().leases[0].renewals == 1);
        assert_eq!(keeper.status().link, "br0");
        assert!(!has("10.5.0.50"), "{}", run("ip -4 addr"));
    });
}

/// A card that resets itself comes back under another number.
#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn the_client_follows_the_address_to_a_card_that_is_back() {
    isolated("the_client_follows_the_address_to_a_card_that_is_back", |lab| {
        let first = server(lab, &[NO_ROUTER]);
        let mut orders = handed_over(Heal::WhileStreamed);
        later(&mut orders, 8);
        let (mac, index) = (orders.links[0].mac, orders.links[0].index);
        let keeper = Keeper::start(orders);
        drop(first);
        run("ip link del eth0");
        run(&format!("ip link add eth0 address {mac} type veth peer name s0 netns {}", lab.pid()));
        lab.there("ip addr add 10.5.0.1/24 dev s0");
        lab.there("ip link set s0 up");
        put_back("the address", || has("10.5.0.50"));
        assert_ne!(crate::net::keep::index("eth0"), Some(index));
        let _second = server(lab, &[NO_ROUTER]);
        wait_until("a renewal", || keeper.status().leases[0].renewals == 1);
    });
}

#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn a_fight_is_fought_seldom_and_nobody_has_to_fight() {
    isolated("a_fight_is_fought_seldom_and_nobody_has_to_fight", |lab| {
        let _server = server(lab, &[NO_ROUTER]);
        let orders = handed_over(Heal::WhileStreamed);
        let keeper = Keeper::start(orders.clone());
        let ends = Instant::now() + Duration::from_secs(5);
        let mut taken = 0;
        while Instant::now() < ends {
            if has("10.5.0.50") {
                run("ip addr flush dev eth0");
                taken += 1;
            }
            thread::sleep(Duration::from_millis(20));
        }
        println!("taken {taken} times: {:?}", keeper.status().heal);
        assert!((4..=6).contains(&taken), "{taken}");
        put_back("the address, later", || has("10.5.0.50"));
    });
}

#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn heal_off_means_off() {
    isolated("heal_off_means_off", |lab| {
        let _server = server(lab, &[NO_ROUTER]);
        let keeper = Keeper::start(handed_over(Heal::Never));
        run("ip addr flush dev eth0");
        thread::sleep(Duration::from_secs(2));
        assert!(!has("10.5.0.50"));
        assert_eq!((keeper.status().heal.on, keeper.status().heal.times), (false, 0));
    });
}

/// From the flip on the network is whoever's the running system is.
#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn what_a_root_in_memory_does_not_need_is_not_put_back() {
    isolated("what_a_root_in_memory_does_not_need_is_not_put_back", |lab| {
        let _server = server(lab, &[NO_ROUTER]);
        let keeper = Keeper::start(handed_over(Heal::WhileStreamed));
        run("ip addr flush dev eth0");
        wait_until("the address again", || has("10.5.0.50"));
        keeper.is_in_memory.store(true, Ordering::Relaxed);
        run("ip addr flush dev eth0");
        thread::sleep(Duration::from_secs(3));
        assert!(!has("10.5.0.50"));
        assert!(!keeper.status().heal.on);
    });
}

/// Whoever takes the client's port, or tells the kernel of an end, renews; when they do not any
/// more, the keeper does, in time.
#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn others_are_left_alone_for_as_long_as_they_renew() {
    isolated("others_are_left_alone_for_as_long_as_they_renew", |lab| {
        let _server = server(lab, &[NO_ROUTER]);
        let mut orders = handed_over(Heal::WhileStreamed);
        orders.renewers.ipv4 = Renewer::Nobody;
        later(&mut orders, 2);
        let keeper = Keeper::start(orders);
        let by = |who| keeper.status().leases[0].renewed_by == who;
        assert!(by(RenewedBy::Keeper));
        // As dhclient does, for a lease of 6 s.
        run("ip addr change 10.5.0.50/24 dev eth0 valid_lft 6 preferred_lft 6");
        wait_until("to be left to others", || by(RenewedBy::RunningSystem));
        thread::sleep(Duration::from_secs(2));
        assert!(by(RenewedBy::RunningSystem));
        // It has died: nobody prolongs it.
        wait_until("to be taken over", || by(RenewedBy::Keeper));
        let shown = run("ip -4 addr show dev eth0");
        assert!(shown.contains("valid_lft forever"), "{shown}");
        wait_until("a renewal", || keeper.status().leases[0].renewals >= 1);

        let bound = std::net::UdpSocket::bind("10.5.0.50:68").unwrap();
        run("ip addr change 10.5.0.50/24 dev eth0 preferred_lft 600");
        wait_until("to be left to the owner of the port", || by(RenewedBy::RunningSystem));
        drop(bound);
    });
}

/// The root is behind an address of DHCPv6, and a router whose advertisements the kernel has read.
#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn ipv6_is_renewed_and_put_back() {
    isolated("ipv6_is_renewed_and_put_back", |lab| {
        for setting in ["forwarding=1", "accept_dad=0"] {
            lab.there(&format!("sysctl -q -w net.ipv6.conf.s0.{setting}"));
        }
        lab.there("ip link set s0 down");
        lab.there("ip link set s0 up");
        lab.there("ip addr replace 2001:db8:5::1/64 dev s0 nodad");
        let options = ["--enable-ra", "--dhcp-range=2001:db8:5::50,2001:db8:5::50,64,2m"];
        let _server = lab.dnsmasq("s0", &options);
        run("mount -t tmpfs none /run");
        let request = crate::cmdline::Request::read("ip=dhcp6");
        let plan = crate::plan::Plan::decide(request, &crate::machine::Identity::default());
        let network = bring_up(&plan.network).unwrap();
        network.make_permanent().unwrap();
        let beyond = vec!["2001:db8:99::1".parse().unwrap()];
        let mut orders = network.orders(beyond, Heal::WhileStreamed).unwrap();
        network.stop();
        let lease = orders.links[0].ipv6.as_mut().expect("a lease of DHCPv6");
        assert_eq!(lease.lease.addresses[0].valid_seconds, Some(120));
        lease.lease.renew_seconds = Some(60);
        lease.granted = lease.granted.saturating_sub(Duration::from_secs(59));
        let keeper = Keeper::start(orders);
        wait_until("a renewal", || keeper.status().leases[0].renewals == 1);
        println!("{:?}", keeper.status().leases);

        let has = |words: &str| run("ip -6 addr show dev eth0").contains(words);
        let way = || run("ip -6 route show default").contains("via fe80:");
        wait_until("the router's route", way);
        // It is learnt with the next look.
        run("ip link set eth0 alias seen");
        thread::sleep(Duration::from_secs(1));
        run("sysctl -q -w net.ipv6.conf.eth0.accept_ra=0");
        run("ip -6 addr flush dev eth0 scope global");
        put_back("the address", || has("2001:db8:5::50/128"));
        run("ip -6 route flush default");
        put_back("the way out", way);
        run("ip link set eth0 down");
        put_back("all of it", || has("2001:db8:5::50/128") && way());
        assert!(!has("tentative dadfailed"), "{}", run("ip -6 addr show dev eth0"));
    });
}
