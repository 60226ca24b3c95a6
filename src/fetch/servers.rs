//! Tests against the servers that are out there, on loopback addresses of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Url, fetch, persistently};
use crate::error::{Error, Result};

struct Server(Child);

impl Server {
    fn start(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap_or_else(|error| panic!("{program}: {error}")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn resolve(name: &str) -> Result<Vec<std::net::IpAddr>> {
    match name {
        "boot.example.org" => Ok(vec![[127, 0, 0, 80].into()]),
        _ => Err(Error::refused(format!("looking up {name}"), "no such name")),
    }
}

/// Files of every size at which a block, a window or a block number ends.
fn folder(sizes: &[usize]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for size in sizes {
        fs::write(folder.path().join(size.to_string()), contents(*size)).unwrap();
    }
    folder
}

fn contents(size: usize) -> Vec<u8> {
    (0..size as u32).flat_map(u32::to_be_bytes).take(size).collect()
}

const LIMIT: usize = 64 << 20;
const SIZES: [usize; 11] =
    [0, 1, 511, 512, 513, 1428, 1428 * 2, 1428 * 16, 1428 * 16 + 1, 200 << 10, 5 << 20];

fn all_arrive(server: &str, sizes: &[usize]) {
    let get = |file: &str| -> Url { format!("tftp://{server}/{file}").parse().unwrap() };
    let deadline = Instant::now() + Duration::from_secs(10);
    // The first one waits for the server to start.
    persistently(&get("1"), LIMIT, &resolve, deadline).unwrap();
    for size in sizes {
        let began = Instant::now();
        let bytes = fetch(&get(&size.to_string()), LIMIT, &resolve).unwrap();
        assert!(bytes == contents(*size), "{server}: {size} bytes came as {}", bytes.len());
        println!("{server}: {size} bytes in {:?}", began.elapsed());
    }
    let error = fetch(&get("missing"), LIMIT, &resolve).unwrap_err();
    println!("{server}: {error}");
    assert!(!error.is_transient(), "{server}: {error}");
    let error = fetch(&get("1428"), 1427, &resolve).unwrap_err();
    assert!(error.to_string().ends_with("larger than 1427 bytes"), "{server}: {error}");
}

#[test]
#[ignore = "needs in.tftpd"]
fn files_come_from_tftpd() {
    let sizes = folder(&SIZES);
    let root = sizes.path().to_str().unwrap();
    let listen = ["--listen", "--foreground", "--user", "root", "--address"];
    let chrooted = [&listen[..], &["127.0.0.69:6901", "--secure", root]].concat();
    let _server = Server::start("in.tftpd", &chrooted);
    all_arrive("127.0.0.69:6901", &SIZES);
}

/// Beyond 32 MiB of plain blocks the number starts again at 0.
#[test]
#[ignore = "needs in.tftpd"]
fn files_come_from_a_tftpd_that_refuses_all_options() {
    let sizes = [1, 512, 1428, 200 << 10, (32 << 20) + (3 << 10)];
    let folder = folder(&sizes);
    let root = folder.path().to_str().unwrap();
    let _server = Server::start(
        "in.tftpd",
        &[
            "--listen",
            "--foreground",
            "--user",
            "root",
            "--address",
            "127.0.0.69:6902",
            "--refuse",
            "blksize",
            "--refuse",
            "tsize",
            "--refuse",
            "timeout",
            "--secure",
            root,
        ],
    );
    all_arrive("127.0.0.69:6902", &sizes);
}

/// A server that maps names may know ours without its first slash only.
#[test]
#[ignore = "needs in.tftpd"]
fn a_name_is_asked_for_without_its_slash_as_well() {
    let folder = folder(&[1]);
    let root = folder.path().to_str().unwrap();
    let map = folder.path().join("map");
    fs::write(&map, "a ^/\n").unwrap();
    let map = map.to_str().unwrap();
    let listen = ["--listen", "--foreground", "--user", "root", "--address", "127.0.0.69:6903"];
    let _server =
        Server::start("in.tftpd", &[&listen[..], &["-m", map, "--secure", root]].concat());
    let url: Url = "tftp://127.0.0.69:6903/1".parse().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    assert_eq!(persistently(&url, LIMIT, &resolve, deadline).unwrap(), contents(1));
}

fn dnsmasq<'a>(address: &'a str, root: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let usual = [
        "--conf-file=/dev/null",
        "--port=0",
        "--enable-tftp",
        "--no-daemon",
        "--user=root",
        "--pid-file=",
        "--listen-address",
        address,
        "--tftp-root",
        root,
    ];
    [&usual[..], more].concat()
}

#[test]
#[ignore = "needs dnsmasq"]
fn files_come_from_dnsmasq() {
    let sizes = folder(&SIZES);
    let root = sizes.path().to_str().unwrap();
    let server = Server::start("dnsmasq", &dnsmasq("127.0.0.72", root, &["--bind-interfaces"]));
    all_arrive("127.0.0.72", &SIZES);
    drop(server);
    let server = Server::start(
        "dnsmasq",
        &dnsmasq("127.0.0.72", root, &["--bind-interfaces", "--tftp-no-blocksize"]),
    );
    all_arrive("127.0.0.72", &SIZES);
    drop(server);
    // With --bind-interfaces, dnsmasq 2.90 in this mode never answers: the wildcard is needed.
    let single = ["--interface=lo", "--tftp-single-port"];
    let _server = Server::start("dnsmasq", &dnsmasq("127.0.0.73", root, &single));
    all_arrive("127.0.0.73", &SIZES);
}

#[test]
#[ignore = "needs nginx"]
fn files_come_from_nginx() {
    let folder = folder(&[0, 1, 200 << 10]);
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir(at("secret")).unwrap();
    fs::write(at("nginx.conf"), nginx_conf(folder.path())).unwrap();
    let _server = Server::start("nginx", &["-c", &at("nginx.conf"), "-e", &at("error.log")]);
    let get =
        |path: &str| -> Url { format!("http://boot.example.org:8081{path}").parse().unwrap() };
    let deadline = Instant::now() + Duration::from_secs(10);
    for size in [0, 1, 200 << 10] {
        let bytes = persistently(&get(&format!("/{size}")), LIMIT, &resolve, deadline).unwrap();
        assert!(bytes == contents(size), "{size} bytes came as {}", bytes.len());
    }
    assert_eq!(fetch(&get("/moved"), LIMIT, &resolve).unwrap(), contents(1));
    let cases = [
        ("/missing", "refused: 404 Not Found", false),
        ("/secret/", "refused: 403 Forbidden", false),
        ("/busy", "not now: 503 Service Unavailable", true),
        ("/circle", "refused: more than 5 redirects", false),
        ("/elsewhere", "looking up other.example.org: refused: no such name", false),
        ("/cut", "Peer disconnected", true),
        ("/204800?x=y", "refused: the file is larger than 204799 bytes", false),
        ("/chunked", "refused: the file is larger than 204799 bytes", false),
    ];
    for (path, words, transient) in cases {
        let error = fetch(&get(path), (200 << 10) - 1, &resolve).unwrap_err();
        println!("{error}");
        assert!(error.to_string().ends_with(words), "{path}: {error}");
        assert_eq!(error.is_transient(), transient, "{path}: {error}");
    }
    // A server that asks for patience gets it: one second, not our half.
    let began = Instant::now();
    persistently(&get("/busy"), LIMIT, &resolve, began + Duration::from_millis(1500)).unwrap_err();
    assert!((1000..1500).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

fn nginx_conf(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"
daemon off; master_process off; pid {folder}/pid;
events {{}}
http {{
    access_log off; root {folder}; gzip on;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    server {{
        listen 127.0.0.80:8081;
        location = /moved {{ return 302 /1; }}
        location = /circle {{ return 301 /circle; }}
        location = /elsewhere {{ return 302 http://other.example.org/1; }}
        location = /busy {{ add_header Retry-After 1 always; return 503; }}
        location = /chunked {{ proxy_http_version 1.1; proxy_pass http://127.0.0.80:8081/204800; proxy_buffering off; proxy_hide_header Content-Length; }}
        location = /cut {{ return 444; }}
    }}
}}
"#
    )
}
