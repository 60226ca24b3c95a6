//! The resolver against dnsmasq, and against servers with habits that dnsmasq does not have.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use super::Resolver;
use crate::error::Result;

const NO_HOSTS: &str = "/nonexistent";

fn at(server: SocketAddr) -> Resolver {
    Resolver { servers: vec![server], search: Vec::new() }
}

fn look_up(resolver: &Resolver, host: &str) -> Result<String> {
    let shown = |addresses: Vec<IpAddr>| addresses.iter().map(ToString::to_string).collect();
    let found: Vec<String> = resolver.look_up(host, Path::new(NO_HOSTS)).map(shown)?;
    Ok(found.join(" "))
}

/// What a server of ours makes of a name and a type: flags and records, each without an owner, which
/// is the name itself. `None`: no answer at all.
type Habit = fn(&str, u16) -> Option<(u16, Vec<Vec<u8>>)>;

/// Answers each question by its habit. The questions so far can be counted.
fn server(answer: Habit) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let questions = Arc::new(AtomicUsize::new(0));
    let heard = Arc::clone(&questions);
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            heard.fetch_add(1, SeqCst);
            let mut message = buffer[..length].to_vec();
            let labels = &message[12..length - 4];
            let mut name = String::new();
            let mut rest = labels;
            while let [length @ 1..=63, tail @ ..] = rest {
                let (label, tail) = tail.split_at(usize::from(*length));
                name = format!("{name}{}.", std::str::from_utf8(label).unwrap());
                rest = tail;
            }
            let kind = u16::from_be_bytes([message[length - 4], message[length - 3]]);
            let Some((flags, records)) = answer(name.trim_end_matches('.'), kind) else { continue };
            message[2..4].copy_from_slice(&flags.to_be_bytes());
            message[7] = records.len() as u8;
            for record in records {
                message.extend([&[0xc0, 12], record.as_slice()].concat());
            }
            let _ = socket.send_to(&message, client);
        }
    });
    (address, questions)
}

fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    let head = [kind.to_be_bytes(), [0, 1], [0, 0], [0, 60], (data.len() as u16).to_be_bytes()];
    [head.concat(), data.to_vec()].concat()
}

const OK: u16 = 0x8180;
const TRUNCATED: u16 = 0x8380;
const SERVFAIL: u16 = 0x8182;
const NXDOMAIN: u16 = 0x8183;
const REFUSED: u16 = 0x8185;
const SIX: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const A: u16 = 1;
const AAAA: u16 = 28;

#[test]
fn a_family_that_is_never_answered_for_costs_little() {
    let (only_four, questions) =
        server(|_, kind| (kind == A).then(|| (OK, vec![record(A, &[10, 0, 0, 1])])));
    assert_eq!(look_up(&at(only_four), "boot.lan").unwrap(), "10.0.0.1");
    assert_eq!(questions.load(SeqCst), 2, "one for each family, and nobody asked again");
}

/// With IPv6 alone there would be nothing to fall back to.
#[test]
fn an_address_of_ipv4_may_be_a_little_late() {
    let (late, _) = server(|_, kind| match kind {
        A => {
            thread::sleep(Duration::from_millis(80));
            Some((OK, vec![record(A, &[10, 0, 0, 1])]))
        }
        _ => Some((OK, vec![record(AAAA, &SIX)])),
    });
    assert_eq!(look_up(&at(late), "boot.lan").unwrap(), "fd00::1 10.0.0.1");
}

/// Firewalls let UDP through and forget TCP.
#[test]
fn an_answer_that_tcp_does_not_bring_is_missing_alone() {
    let habit: Habit = |_, kind| match kind {
        A => Some((OK, vec![record(A, &[10, 0, 0, 1])])),
        _ => Some((TRUNCATED, vec![])),
    };
    let (refuses_tcp, _) = server(habit);
    assert_eq!(look_up(&at(refuses_tcp), "boot.lan").unwrap(), "10.0.0.1");
    // The kernel completes the connection; nobody ever reads from it.
    let (swallows_tcp, _) = server(habit);
    let _listener = TcpListener::bind(swallows_tcp).unwrap();
    assert_eq!(look_up(&at(swallows_tcp), "boot.lan").unwrap(), "10.0.0.1");
    let (only_long_ones, _) = server(|_, _| Some((TRUNCATED, vec![])));
    let error = look_up(&at(only_long_ones), "boot.lan").unwrap_err();
    let why = "does not fit a datagram, and by TCP there is none: Connection refused";
    assert!(error.to_string().ends_with(why), "{error}");
}

#[test]
fn one_family_is_enough_whatever_the_other_says() {
    let (servfail, _) = server(|_, kind| match kind {
        A => Some((OK, vec![record(A, &[10, 0, 0, 1])])),
        _ => Some((SERVFAIL, vec![])),
    });
    assert_eq!(look_up(&at(servfail), "boot.lan").unwrap(), "10.0.0.1");
    // RFC 4074 section 4.2: some say that there is no such name, and mean no such record.
    let (nxdomain, _) = server(|_, kind| match kind {
        AAAA => Some((OK, vec![record(AAAA, &SIX)])),
        _ => Some((NXDOMAIN, vec![])),
    });
    assert_eq!(look_up(&at(nxdomain), "boot.lan").unwrap(), "fd00::1");
}

/// Whoever reads it has to know whether to look at the name, or at the server.
#[test]
fn a_failure_says_its_reason() {
    let (failing, _) = server(|_, _| Some((SERVFAIL, vec![])));
    let error = look_up(&at(failing), "boot.lan").unwrap_err();
    assert!(error.to_string().ends_with("not now: the server failed (SERVFAIL)"), "{error}");
    let (strict, _) = server(|_, _| Some((REFUSED, vec![])));
    let error = look_up(&at(strict), "boot.lan").unwrap_err();
    assert!(error.to_string().contains("(REFUSED)"), "{error}");
    assert!(!error.to_string().contains("knows no address"), "{error}");
    // An authority for its own zone, and for nothing else.
    let (own, _) =
        server(|name, _| Some((if name.ends_with(".lan") { NXDOMAIN } else { REFUSED }, vec![])));
    let resolver = Resolver { servers: vec![own], search: vec!["lan".to_owned()] };
    let error = look_up(&resolver, "boot").unwrap_err().to_string();
    assert!(error.contains("knows no address of boot.lan; asking"), "{error}");
    assert!(error.ends_with("(REFUSED) (for boot)"), "{error}");
}

/// A dead server at the top of the list is a day's work for somebody, and must not be a minute's
/// for every machine.
#[test]
fn a_silent_server_is_waited_for_once_and_not_for_each_name() {
    let (dead, unheard) = server(|_, _| None);
    let (alive, questions) = server(|name, kind| match (name, kind) {
        ("boot", A) => Some((OK, vec![record(A, &[10, 0, 0, 1])])),
        ("boot", _) => Some((OK, vec![])),
        _ => Some((NXDOMAIN, vec![])),
    });
    let search = ["a", "b", "c", "d", "e", "f"].map(|one| format!("{one}.lan")).to_vec();
    let resolver = Resolver { servers: vec![dead, alive], search };
    assert_eq!(look_up(&resolver, "boot").unwrap(), "10.0.0.1");
    assert_eq!(unheard.load(SeqCst), 4, "for the first name: two questions, and both again");
    assert_eq!(questions.load(SeqCst), 14, "two for each of seven names");
}

/// Networks lose datagrams.
#[test]
fn a_question_that_was_lost_is_asked_again() {
    static LOST: AtomicUsize = AtomicUsize::new(0);
    let (lossy, questions) = server(|_, kind| match LOST.fetch_add(1, SeqCst) {
        0 | 1 => None,
        _ if kind == A => Some((OK, vec![record(A, &[10, 0, 0, 1])])),
        _ => Some((OK, vec![record(AAAA, &SIX)])),
    });
    assert_eq!(look_up(&at(lossy), "boot.lan").unwrap(), "fd00::1 10.0.0.1");
    assert_eq!(questions.load(SeqCst), 4);
}

#[test]
fn aliases_are_followed_from_answer_to_answer_but_not_for_ever() {
    let (chain, _) = server(|name, kind| match (name, kind) {
        ("boot.lan", _) => Some((OK, vec![record(5, b"\x03nas\x03lan\0")])),
        ("nas.lan", A) => Some((OK, vec![record(A, &[10, 0, 0, 7])])),
        ("nas.lan", _) => Some((OK, vec![])),
        _ => None,
    });
    assert_eq!(look_up(&at(chain), "boot.lan").unwrap(), "10.0.0.7");
    let (endless, _) = server(|name, _| {
        let other: &[u8] = if name == "a.lan" { b"\x01b\x03lan\0" } else { b"\x01a\x03lan\0" };
        Some((OK, vec![record(5, other)]))
    });
    let error = look_up(&at(endless), "a.lan").unwrap_err();
    assert!(
        error.to_string().ends_with("more than 4 aliases lead from one to the next"),
        "{error}"
    );
}

/// dnsmasq on a loopback address of its own.
struct Dnsmasq(Child, SocketAddr);

impl Dnsmasq {
    fn start(address: &str, options: &[&str]) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let mut command = Command::new("dnsmasq");
        command.args(["--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]);
        command.args(["--pid-file=", "--user=root", "--bind-interfaces", "--local=/lan/"]);
        command.arg(format!("--listen-address={}", address.ip()));
        command.arg(format!("--port={}", address.port())).args(options);
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Self(child, address);
        let deadline = Instant::now() + Duration::from_secs(5);
        while std::net::TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "dnsmasq at {address}");
            thread::sleep(Duration::from_millis(10));
        }
        server
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs dnsmasq"]
fn names_come_from_dnsmasq_over_both_families() {
    let many: Vec<String> =
        (1..=60).map(|last| format!("--host-record=many.lan,10.0.1.{last}")).collect();
    let mut options = vec![
        "--host-record=both.lan,10.0.0.1,fd00::1",
        "--host-record=four.lan,10.0.0.2",
        "--host-record=six.lan,fd00::2",
        "--cname=alias.lan,second.lan",
        "--cname=second.lan,both.lan",
    ];
    options.extend(many.iter().map(String::as_str));
    for address in ["127.0.0.53:5300", "[::1]:5301"] {
        let server = Dnsmasq::start(address, &options);
        let resolver = Resolver { servers: vec![server.1], search: vec!["lan".to_owned()] };
        let cases = [
            ("both.lan", "fd00::1 10.0.0.1"),
            ("four.lan", "10.0.0.2"),
            ("six.lan", "fd00::2"),
            ("alias.lan", "fd00::1 10.0.0.1"),
            ("both", "fd00::1 10.0.0.1"),
        ];
        for (name, expected) in cases {
            let began = Instant::now();
            assert_eq!(look_up(&resolver, name).unwrap(), expected, "{name} at {address}");
            println!("{name} at {address} after {:?}", began.elapsed());
        }
        // More than 512 bytes: by TCP. As many as anybody could try.
        assert_eq!(look_up(&resolver, "many.lan").unwrap().split(' ').count(), 16);
        let error = look_up(&resolver, "nobody.lan").unwrap_err();
        assert!(error.to_string().contains("knows no address of nobody.lan"), "{error}");
    }
}

/// A server of a router advertisement is mostly a link-local one.
#[test]
#[ignore = "needs dnsmasq"]
fn a_server_may_be_on_a_link() {
    let server = Dnsmasq::start("[::1]:5302", &["--host-record=boot.lan,10.0.0.1"]);
    let on_loopback: SocketAddr = std::net::SocketAddrV6::new(
        "::1".parse().unwrap(),
        server.1.port(),
        0,
        1, // the loopback is always the first link
    )
    .into();
    let dead: SocketAddr = "[fe80::1%1]:5302".parse().unwrap();
    let resolver = Resolver { servers: vec![dead, on_loopback], search: Vec::new() };
    assert_eq!(look_up(&resolver, "boot.lan").unwrap(), "10.0.0.1");
}
