//! Router advertisements and DHCPv6 against the kernel, dnsmasq, radvd and Kea, checked with
//! iproute2, in the namespaces of `real_links`.
//!
//! `eth0` is the machine's, and its own kernel does SLAAC there; `s0` (2001:db8:5::1) is the other
//! end of its cable.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv6Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::description::Ipv6Method;
use super::dhcp::Target;
use super::dhcp6::{self, Identity, Mode, News, Order};
use super::duid::{self, Duid};
use super::lease6::Lease6;
use super::real_links::{Lab, Process, isolated_in, run, wait_until};
use super::{Mac, ra};

const ROUTER: &str = "2001:db8:5::1";
/// Longer than any server takes to start, shorter than a boot that nobody waits for.
const PATIENCE: Duration = Duration::from_secs(20);

fn isolated(name: &str, test: impl AsyncFnOnce(&Lab)) {
    isolated_in("real_links6", name, |lab| {
        for setting in ["forwarding=1", "accept_dad=0"] {
            lab.there(&format!("sysctl -q -w net.ipv6.conf.s0.{setting}"));
        }
        lab.there(&format!("ip addr add {ROUTER}/64 dev s0 nodad"));
        lab.there("ip link set s0 down");
        lab.there("ip link set s0 up");
        lab.there(&format!("ip addr replace {ROUTER}/64 dev s0 nodad"));
        let _ = ra::Haste::begin(Path::new("/proc/sys/net/ipv6"), "eth0", Ipv6Method::Auto);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(lab));
    });
}

fn set_up() -> Instant {
    run("ip link set eth0 up");
    wait_until("carrier on eth0", || run("ip link show dev eth0").contains("LOWER_UP"));
    Instant::now()
}

fn mac() -> Mac {
    fs::read_to_string("/sys/class/net/eth0/address").unwrap().trim().parse().unwrap()
}

fn target() -> Target {
    let index = fs::read_to_string("/sys/class/net/eth0/ifindex").unwrap();
    Target { index: index.trim().parse().unwrap(), name: "eth0".to_owned() }
}

/// What the listener says, in the background.
fn listen() -> mpsc::UnboundedReceiver<ra::Report> {
    let (tell, reports) = mpsc::unbounded_channel();
    let (target, mac) = (target(), mac());
    tokio::spawn(ra::listen(target, mac, move |report| {
        let told = tell.send(report).is_ok();
        async move { told }
    }));
    reports
}

/// The first state of the routers that is so.
async fn until(
    reports: &mut mpsc::UnboundedReceiver<ra::Report>,
    what: &str,
    is_so: impl Fn(&Lease6) -> bool,
) -> Lease6 {
    let mut last = None;
    let found = timeout(PATIENCE, async {
        loop {
            if let ra::Report::Changed(lease) = reports.recv().await.expect("it listens for ever") {
                if is_so(&lease) {
                    return *lease;
                }
                last = Some(lease);
            }
        }
    });
    found.await.unwrap_or_else(|_| panic!("no {what} after {PATIENCE:?}, but {last:?}"))
}

/// A client in the background.
struct Client {
    reports: mpsc::UnboundedReceiver<dhcp6::Report>,
    orders: mpsc::Sender<Order>,
}

impl Client {
    fn start(mode: Mode) -> Self {
        Self::start_with(mode, false)
    }

    fn start_with(mode: Mode, wants_boot_url: bool) -> Self {
        let (tell, reports) = mpsc::unbounded_channel();
        let (orders, inbox) = mpsc::channel(4);
        let identity = Identity {
            duid: Duid::of_machine(Some(*b"0123456789abcdef"), mac()),
            iaid: duid::iaid(mac()),
            hostname: Some("n1".to_owned()),
            class: "landfall".to_owned(),
            architecture: Some(7),
        };
        tokio::spawn(dhcp6::run(target(), identity, mode, wants_boot_url, inbox, move |report| {
            let told = tell.send(report).is_ok();
            async move { told }
        }));
        Self { reports, orders }
    }

    async fn news(&mut self) -> News {
        let next = timeout(PATIENCE, async {
            loop {
                if let dhcp6::Report::News(news) = self.reports.recv().await.expect("for ever") {
                    return news;
                }
            }
        });
        next.await.expect("news in time")
    }

    async fn granted(&mut self) -> Lease6 {
        loop {
            match self.news().await {
                News::Granted(lease) => return *lease,
                News::Accepted(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Global addresses of eth0 that may be used, as `2001:db8:5::50/128`.
fn addresses() -> Vec<String> {
    let all: serde_json::Value =
        serde_json::from_str(&run("ip -j -6 addr show dev eth0 scope global")).unwrap();
    let all = all[0]["addr_info"].as_array().cloned().unwrap_or_default();
    let usable = all.iter().filter(|info| info["tentative"] != true || info["optimistic"] == true);
    // What is of another scope is an empty object.
    let shown = |info: &serde_json::Value| {
        Some(format!("{}/{}", info["local"].as_str()?, info["prefixlen"]))
    };
    usable.filter_map(shown).collect()
}

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// A router with name servers and nothing else: what most v6-only networks are.
#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn an_address_without_any_server() {
    isolated("an_address_without_any_server", async |lab| {
        let _server = lab.dnsmasq(
            "s0",
            &[
                "--enable-ra",
                "--dhcp-range=2001:db8:5::,ra-only,64,10m",
                "--dhcp-option=option6:dns-server,[2001:db8:5::1],[2001:db8:5::2]",
                "--dhcp-option=option6:domain-search,eng.lan,lan",
                "--ra-param=s0,mtu:1400,high,60,1200",
            ],
        );
        set_up();
        let mut reports = listen();
        let lease = until(&mut reports, "router", |lease| !lease.routers.is_empty()).await;
        assert_eq!(lease.dns, [address(ROUTER), address("2001:db8:5::2")]);
        assert_eq!(
            (lease.search.as_slice(), lease.mtu),
            (&["eng.lan".into(), "lan".into()][..], Some(1400))
        );
        assert!(!lease.managed && !lease.other && lease.offers_slaac(), "{lease:?}");
        assert!(
            lease.routers[0]
                .lifetime_seconds
                .is_some_and(|seconds| (1190..=1200).contains(&seconds))
        );
        wait_until("an address that the kernel made", || !addresses().is_empty());
        let made: Vec<_> = addresses();
        let (made, _) = made[0].split_once('/').unwrap();
        assert!(lease.is_slaac(address(made)));
        let route = run("ip -6 route show default");
        assert!(route.contains(&format!("via {}", lease.gateway().unwrap())), "{route}");
        assert!(run("cat /proc/sys/net/ipv6/conf/eth0/mtu").trim() == "1400", "the kernel's part");
    });
}

/// With a server that gives each machine its address, as racks have it.
#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn an_address_from_a_server() {
    isolated("an_address_from_a_server", async |lab| {
        let _server = lab.dnsmasq(
            "s0",
            &[
                "--enable-ra",
                "--log-dhcp",
                "--dhcp-range=2001:db8:5::50,2001:db8:5::50,64,2m",
                "--dhcp-option=option6:dns-server,[2001:db8:5::1]",
                "--dhcp-option=option6:ntp-server,[2001:db8:5::3]",
                "--dhcp-option=option6:59,tftp://[2001:db8:5::1]/grubx64.efi",
                "--domain=lan",
            ],
        );
        set_up();
        let mut reports = listen();
        let routers = until(&mut reports, "router", |lease| !lease.routers.is_empty()).await;
        assert!(routers.managed && !routers.offers_slaac(), "{routers:?}");
        let since = Instant::now();
        let lease = Client::start(Mode::Address).granted().await;
        eprintln!("from the first solicit to a lease by DHCPv6: {:?}", since.elapsed());
        let [granted] = lease.addresses[..] else { panic!("{lease:?}") };
        assert_eq!((granted.address, granted.prefix), (address("2001:db8:5::50"), 128));
        assert_eq!(granted.valid_seconds, Some(120));
        assert_eq!(
            (lease.dns.as_slice(), lease.ntp.as_slice()),
            (&[address(ROUTER)][..], &[address("2001:db8:5::3")][..])
        );
        assert_eq!(lease.boot_server(), Some(ROUTER));
        assert_eq!(lease.hostname.as_deref(), Some("n1.lan"));
        let all = lease.joined(&routers);
        assert_eq!(all.address().map(|one| one.address), Some(granted.address));
        assert!(all.gateway().is_some());
    });
}

#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn everything_but_an_address_from_a_server() {
    isolated("everything_but_an_address_from_a_server", async |lab| {
        let _server = lab.dnsmasq(
            "s0",
            &[
                "--enable-ra",
                "--dhcp-range=2001:db8:5::,ra-stateless,64",
                "--dhcp-option=option6:dns-server,[2001:db8:5::1]",
                // Of the link alone: the one that the answer comes over.
                "--dhcp-option=option6:59,nbd://[fe80::1]/focal",
            ],
        );
        set_up();
        let mut reports = listen();
        let routers = until(&mut reports, "router", |lease| !lease.routers.is_empty()).await;
        assert!(routers.other && !routers.managed && routers.offers_slaac(), "{routers:?}");
        match Client::start(Mode::Information).news().await {
            News::Informed(lease) => {
                let url = format!("nbd://[fe80::1%{}]/focal", target().index);
                assert_eq!(lease.boot_url(), Some(url.as_str()));
                assert_eq!(lease.dns, [address(ROUTER)]);
            }
            other => panic!("{other:?}"),
        }
    });
}

/// After a power cut the machines are up before the router, and sometimes it goes away.
#[test]
#[ignore = "needs network namespaces and radvd"]
fn a_router_comes_late_and_goes() {
    isolated("a_router_comes_late_and_goes", async |lab| {
        set_up();
        let mut reports = listen();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let configuration = "interface s0 {
            AdvSendAdvert on; AdvDefaultPreference high; AdvLinkMTU 1400;
            AdvDefaultLifetime 600; MaxRtrAdvInterval 30;
            prefix 2001:db8:5::/64 { AdvValidLifetime 300; AdvPreferredLifetime 200; };
            route fd00:7::/48 { AdvRouteLifetime 300; AdvRoutePreference low; };
            RDNSS 2001:db8:5::1 { AdvRDNSSLifetime 300; };
            DNSSL eng.lan { AdvDNSSLLifetime 300; };
        };";
        let mut router = radvd(lab, configuration);
        let lease = until(&mut reports, "router", |lease| !lease.routers.is_empty()).await;
        assert_eq!((lease.mtu, lease.dns.as_slice()), (Some(1400), &[address(ROUTER)][..]));
        assert_eq!(lease.search, ["eng.lan"]);
        assert_eq!(lease.routes[0].to, "fd00:7::/48".parse().unwrap());
        assert!(run("ip -6 route show fd00:7::/48").contains("proto ra"), "the kernel's part");
        assert_eq!(lease.prefixes[0].valid_seconds, Some(300));
        // A router that is stopped properly takes itself back.
        router.process.end();
        until(&mut reports, "end of the router", |lease| lease.routers.is_empty()).await;
        wait_until("the kernel's opinion", || run("ip -6 route show default").is_empty());
    });
}

/// An address that the server gave away twice, or that somebody typed.
#[test]
#[ignore = "needs network namespaces and kea"]
fn an_address_that_somebody_has_is_declined() {
    isolated("an_address_that_somebody_has_is_declined", async |lab| {
        set_up();
        let _server = kea(lab, r#""pools": [ { "pool": "2001:db8:5::50 - 2001:db8:5::51" } ]"#, "");
        let mut client = Client::start(Mode::Address);
        let first = client.granted().await.addresses[0].address;
        lab.there(&format!("ip addr add {first}/128 dev s0 nodad"));
        run(&format!("ip addr add {first}/64 dev eth0"));
        wait_until("the kernel's verdict", || {
            run("ip -6 addr show dev eth0").contains("dadfailed")
        });
        run(&format!("ip addr del {first}/64 dev eth0"));
        client.orders.send(Order::Duplicate(first)).await.unwrap();
        assert_eq!(client.news().await, News::Declined(first));
        let second = client.granted().await.addresses[0].address;
        assert_ne!(first, second);
        assert!(second.to_string().starts_with("2001:db8:5::5"), "{second}");
    });
}

/// A lease of seconds is renewed before it ends, for as long as the machine runs; and a server that
/// has lost its memory is told again.
#[test]
#[ignore = "needs network namespaces and kea"]
fn a_lease_is_renewed_by_the_server() {
    isolated("a_lease_is_renewed_by_the_server", async |lab| {
        let pool = r#""pools": [ { "pool": "2001:db8:5::50 - 2001:db8:5::50" } ]"#;
        set_up();
        let server = kea(lab, pool, "");
        let mut client = Client::start(Mode::Address);
        let lease = client.granted().await;
        assert_eq!((lease.renew_seconds, lease.rebind_seconds), (Some(2), Some(4)));
        assert!(matches!(client.news().await, News::Extended(_)));
        drop(server);
        // It keeps its leases in memory.
        let _server = kea(lab, pool, "");
        match client.news().await {
            News::Granted(again) | News::Extended(again) => {
                assert_eq!(again.addresses, lease.addresses);
            }
            other => panic!("{other:?}"),
        }
    });
}

/// Two messages instead of four, where the server is told to; its preference then has no say.
#[test]
#[ignore = "needs network namespaces and kea"]
fn a_server_may_commit_itself_at_once() {
    isolated("a_server_may_commit_itself_at_once", async |lab| {
        let pool =
            r#""rapid-commit": true, "pools": [ { "pool": "2001:db8:5::50 - 2001:db8:5::5f" } ]"#;
        let options = r#"{ "name": "bootfile-url", "data": "http://[2001:db8:5::1]/root.img" },
            { "code": 60, "csv-format": false, "data": "00026162000163" },
            { "code": 82, "csv-format": false, "data": "00000e10" }"#;
        set_up();
        let _server = kea(lab, pool, options);
        let mut client = Client::start(Mode::Address);
        match client.news().await {
            News::Granted(lease) => {
                assert_eq!(lease.boot_server(), Some(ROUTER));
                assert_eq!(lease.boot_params, ["ab", "c"]);
            }
            other => panic!("{other:?}"),
        }
    });
}

/// The reason is the operator's to mend, so it must be told.
#[test]
#[ignore = "needs network namespaces and kea"]
fn a_server_without_addresses_says_so() {
    isolated("a_server_without_addresses_says_so", async |lab| {
        set_up();
        let _server = kea(lab, r#""pools": []"#, "");
        match Client::start(Mode::Address).news().await {
            News::Unusable { server, why } => {
                assert!(server.address.is_unicast_link_local(), "{server}");
                assert!(why.starts_with("it has no address for this machine"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    });
}

/// Left to itself, the kernel lets two to four seconds go by on purpose.
#[test]
#[ignore = "needs network namespaces and dnsmasq"]
fn a_usable_address_is_there_at_once() {
    isolated("a_usable_address_is_there_at_once", async |lab| {
        let _router =
            lab.dnsmasq("s0", &["--enable-ra", "--dhcp-range=2001:db8:5::,ra-only,64,10m"]);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let since = set_up();
        let _reports = listen();
        while addresses().is_empty() {
            assert!(since.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let took = since.elapsed();
        // Nobody listens there, and says so: packets of the address go and come.
        let refused = TcpStream::connect((ROUTER, 9)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let answered = since.elapsed();
        eprintln!("from carrier to an address by SLAAC: {took:?}, to an answer: {answered:?}");
        assert!(answered < Duration::from_millis(700), "{took:?} {answered:?}");
    });
}

/// A server, and the folder of its files.
struct Server {
    process: Process,
    _folder: tempfile::TempDir,
}

/// Starts a program at the servers' end: `program` adds its words, and is told in which folder
/// the file `configuration` is.
fn serve(lab: &Lab, configuration: &str, program: impl FnOnce(&mut Command, &Path)) -> Server {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("configuration"), configuration).unwrap();
    let mut command = Command::new("nsenter");
    command.args(["--net", "--target", &lab.pid()]);
    program(&mut command, folder.path());
    Server { process: Process::start(&mut command), _folder: folder }
}

fn radvd(lab: &Lab, configuration: &str) -> Server {
    serve(lab, configuration, |command, folder| {
        command.args(["radvd", "--nodaemon", "--logmethod", "none"]);
        command.arg("--config").arg(folder.join("configuration"));
        command.arg("--pidfile").arg(folder.join("pid"));
    })
}

/// Kea with its leases in memory alone; the path of the workshop is that of `cargo xtask`.
fn kea(lab: &Lab, subnet: &str, options: &str) -> Server {
    let configuration = format!(
        r#"{{ "Dhcp6": {{
            "interfaces-config": {{ "interfaces": [ "s0" ], "service-sockets-max-retries": 20, "service-sockets-retry-wait-time": 100 }},
            "lease-database": {{ "type": "memfile", "persist": false }},
            "renew-timer": 2, "rebind-timer": 4, "preferred-lifetime": 6, "valid-lifetime": 8,
            "decline-probation-period": 60, "server-id": {{ "type": "LL", "persist": false }},
            "loggers": [ {{ "name": "kea-dhcp6", "severity": "WARN", "output_options": [ {{ "output": "stderr" }} ] }} ],
            "option-data": [ {options} ],
            "subnet6": [ {{ "id": 1, "subnet": "2001:db8:5::/64", "interface": "s0", {subnet} }} ]
        }} }}"#
    );
    let workspace = std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs this");
    let packages = Path::new(&workspace).join("target/landfall/packages");
    let server = serve(lab, &configuration, |command, folder| {
        command.arg(packages.join("usr/lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(packages.join("usr/lib/x86_64-linux-gnu"));
        command.arg(packages.join("usr/sbin/kea-dhcp6"));
        command.arg("-c").arg(folder.join("configuration"));
        for variable in ["KEA_PIDFILE_DIR", "KEA_LOCKFILE_DIR", "KEA_DHCP_DATA_DIR"] {
            command.env(variable, folder);
        }
    });
    let listens = || {
        let sockets = Command::new("nsenter")
            .args(["--net", "--target", &lab.pid(), "ss", "-Hlun", "sport = :547"])
            .output()
            .unwrap();
        // One for what is sent to its own address, one for what is sent to all.
        String::from_utf8_lossy(&sockets.stdout).lines().count() >= 2
    };
    wait_until("Kea on its port", listens);
    server
}
