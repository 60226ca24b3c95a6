//! The resolver against dnsmasq, and against servers with habits that dnsmasq does not have.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
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

/// Answers each question by what `answer` makes of its name and type: flags and records, each
/// without an owner, which is the name itself. `None`: not at all.
fn server(answer: fn(&str, u16) -> Option<(u16, Vec<Vec<u8>>)>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
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
    address
}

fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    let head = [kind.to_be_bytes(), [0, 1], [0, 0], [0, 60], (data.len() as u16).to_be_bytes()];
    [head.concat(), data.to_vec()].concat()
}

const OK: u16 = 0x8180;
const A: u16 = 1;
const AAAA: u16 = 28;

#[test]
fn a_family_that_is_never_answered_for_costs_little() {
    let only_four = server(|_, kind| (kind == A).then(|| (OK, vec![record(A, &[10, 0, 0, 1])])));
    let began = Instant::now();
    assert_eq!(look_up(&at(only_four), "boot.lan").unwrap(), "10.0.0.1");
    assert!((40..400).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

#[test]
fn one_family_is_enough_whatever_the_other_says() {
    let servfail = server(|_, kind| match kind {
        A => Some((OK, vec![record(A, &[10, 0, 0, 1])])),
        _ => Some((0x8182, vec![])),
    });
    assert_eq!(look_up(&at(servfail), "boot.lan").unwrap(), "10.0.0.1");
    // RFC 4074 section 4.2: some say that there is no such name, and mean no such record.
    let nxdomain = server(|_, kind| match kind {
        AAAA => {
            Some((OK, vec![record(AAAA, &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])]))
        }
        _ => Some((0x8183, vec![])),
    });
    assert_eq!(look_up(&at(nxdomain), "boot.lan").unwrap(), "fd00::1");
    let nothing = server(|_, _| Some((0x8182, vec![])));
    let error = look_up(&at(nothing), "boot.lan").unwrap_err();
    assert!(error.to_string().ends_with("not now: the server failed (SERVFAIL)"), "{error}");
}

#[test]
fn aliases_are_followed_from_answer_to_answer_but_not_for_ever() {
    let chain = server(|name, kind| match (name, kind) {
        ("boot.lan", _) => Some((OK, vec![record(5, b"\x03nas\x03lan\0")])),
        ("nas.lan", A) => Some((OK, vec![record(A, &[10, 0, 0, 7])])),
        ("nas.lan", _) => Some((OK, vec![])),
        _ => None,
    });
    assert_eq!(look_up(&at(chain), "boot.lan").unwrap(), "10.0.0.7");
    let endless = server(|name, _| {
        let other: &[u8] = if name == "a.lan" { b"\x01b\x03lan\0" } else { b"\x01a\x03lan\0" };
        Some((OK, vec![record(5, other)]))
    });
    let error = look_up(&at(endless), "a.lan").unwrap_err();
    assert!(error.to_string().contains("knows no address"), "{error}");
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
