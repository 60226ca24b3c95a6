//! Our client against the servers of the field, on loopback.
//!
//! `cargo test -p landfall --lib real_servers -- --ignored`; needs nbd-server, qemu-nbd and nbdkit.

use std::fs;
use std::io::{BufRead, BufReader, Read, Seek};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::copy::{self, FullSpeed, Job, Pace, Progress, Refusals, Turn};
use super::identity::{Identity, Region};
use super::nbd::client::{Connection, Peer};
use super::nbd::reader::Reader;
use super::plan::NbdExport;
use super::{Source, ram, server};
use crate::error::Result;

/// A server that ends with the test.
struct Server {
    child: Child,
    /// Of a server that puts itself into the background.
    pid_file: Option<PathBuf>,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let pid = self.pid_file.as_ref().and_then(|path| fs::read_to_string(path).ok());
        if let Some(pid) = pid.and_then(|pid| Pid::from_raw(pid.trim().parse().ok()?)) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start(port: u16, program: &str, arguments: &[&str]) -> Server {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let stderr = BufReader::new(child.stderr.take().unwrap());
    // Shown by the test harness when the test fails.
    thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|l| eprintln!("{l}")));
    let deadline = Instant::now() + Duration::from_secs(10);
    // A bare connection would use up the only client that some of these servers allow.
    while !listens(port) {
        assert!(Instant::now() < deadline, "{program} does not listen on {port}");
        thread::sleep(Duration::from_millis(20));
    }
    Server { child, pid_file: None, port }
}

fn listens(port: u16) -> bool {
    const LISTEN: &str = "0A";
    let table = |path| fs::read_to_string(path).unwrap_or_default();
    let port = format!(":{port:04X}");
    [table("/proc/net/tcp"), table("/proc/net/tcp6")].concat().lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&port)) && fields.nth(1) == Some(LISTEN)
    })
}

fn nbdkit(port: u16, arguments: &[&str]) -> Server {
    let port_text = port.to_string();
    let fixed = ["-f", "-r", "-i", "127.0.0.1", "-p", port_text.as_str()];
    start(port, "nbdkit", &[&fixed[..], arguments].concat())
}

fn qemu_nbd(port: u16, arguments: &[&str]) -> Server {
    let port_text = port.to_string();
    let fixed = ["-r", "-f", "raw", "-b", "127.0.0.1", "-p", port_text.as_str()];
    start(port, "qemu-nbd", &[&fixed[..], arguments].concat())
}

fn nbd_server(directory: &Path, exports: &[(&str, &Path)]) -> Server {
    let port = free_port();
    let mut config =
        format!("[generic]\nport = {port}\nlistenaddr = 127.0.0.1\nallowlist = true\n");
    for (name, path) in exports {
        config += &format!("[{name}]\nexportname = {}\nreadonly = true\n", path.display());
    }
    let file = directory.join("nbd.conf");
    fs::write(&file, config).unwrap();
    let pid_file = directory.join("nbd.pid");
    let arguments = ["-C", file.to_str().unwrap(), "-p", pid_file.to_str().unwrap()];
    let mut server = start(port, "nbd-server", &arguments);
    server.pid_file = Some(pid_file);
    server
}

/// An image of an odd size with data, zeroes, and data that looks like none other.
fn image(directory: &Path, name: &str, length: usize, seed: u64) -> PathBuf {
    let mut state = seed;
    let mut bytes: Vec<u8> = (0..length)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .collect();
    let third = length / 3;
    bytes[third..2 * third].fill(0);
    let path = directory.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn connect(port: u16, names: &[&str]) -> Result<Connection> {
    let export = NbdExport {
        host: "127.0.0.1".into(),
        port,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        origin: "test".into(),
    };
    server::connect(&[export], &|_| Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]))
}

fn copied(port: u16, names: &[&str]) -> Result<Vec<u8>> {
    copied_from(port, names, 0)
}

fn copied_from(port: u16, names: &[&str], offset: u64) -> Result<Vec<u8>> {
    let job = job(&[port], names, offset)?;
    let length = job.region.length;
    let file = ram::copy(job, "the image")?;
    Ok(contents(file, length))
}

/// A copy beside the test, which does something to its server.
fn copying(port: u16) -> JoinHandle<Result<Vec<u8>>> {
    thread::spawn(move || copied(port, &[""]))
}

/// How such a copy ends. One for which there is no server goes on for ever, and a server may well end
/// by itself.
fn ended(copy: JoinHandle<Result<Vec<u8>>>) -> Result<Vec<u8>> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !copy.is_finished() {
        assert!(Instant::now() < deadline, "the copy does not end");
        thread::sleep(Duration::from_millis(50));
    }
    copy.join().unwrap()
}

/// From all of these servers, of which the first has the image.
fn job(ports: &[u16], names: &[&str], offset: u64) -> Result<Job> {
    let mut connection = connect(ports[0], names)?;
    let region = Region { offset, length: connection.export().size_bytes - offset };
    let identity = Identity::take(&mut connection, region)?;
    let source = |port: &u16| Source {
        peer: Peer { address: (Ipv4Addr::LOCALHOST, *port).into(), name: None },
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let sources = ports.iter().map(source).collect();
    Ok(Job { sources, identity, region, first: Some(connection) })
}

fn contents(mut file: fs::File, length: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    // The last sector is filled up.
    assert!(bytes.len() as u64 - length < 512);
    bytes.truncate(length as usize);
    bytes
}

/// A copy that is not waited for on a console, with what it has got from where.
fn copy_with_progress(job: Job, pace: Arc<dyn Pace>) -> Result<(Vec<u8>, Progress, fs::File)> {
    let length = job.region.length;
    let copying = copy::start(job, pace, Refusals::Drop)?;
    let outcome = copying.wait(Duration::from_secs(60));
    outcome.expect("it takes too long")?;
    let progress = copying.progress();
    let file = copying.finish()?;
    Ok((contents(file.try_clone().unwrap(), length), progress, file))
}

/// A quarter of a mebibyte every 10 ms: a loopback is quicker with an image than with its map.
struct Leisurely(Mutex<Instant>);

impl Pace for Leisurely {
    fn turn(&self, _: u32, _: u64) -> Turn {
        let mut next = self.0.lock().unwrap();
        let now = Instant::now();
        if now < *next {
            return Turn::After(*next - now);
        }
        *next = now + Duration::from_millis(10);
        Turn::Now
    }
}

fn same(left: &[u8], path: &Path) -> bool {
    left == fs::read(path).unwrap()
}

const LENGTH: usize = (24 << 20) + 4096;

/// Everybody has another server.
#[test]
#[ignore = "needs nbd-server, qemu-nbd and nbdkit"]
fn a_copy_from_every_server_is_identical() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "a.img", LENGTH, 1);
    let text = path.to_str().unwrap();

    let server = nbd_server(dir.path(), &[("other", &path), ("/opt/ltsp/amd64", &path)]);
    assert!(same(&copied(server.port, &["/opt/ltsp/amd64"]).unwrap(), &path), "nbd-server");
    let spelled = &["opt/ltsp/amd64", "/opt/ltsp/amd64"];
    assert!(same(&copied(server.port, spelled).unwrap(), &path), "nbd-server, second spelling");

    let server = qemu_nbd(free_port(), &["-x", "focal", "-t", "-e", "4", "--", text]);
    assert!(same(&copied(server.port, &["focal"]).unwrap(), &path), "qemu-nbd");

    let server = nbdkit(free_port(), &["file", text]);
    assert!(same(&copied(server.port, &["anything"]).unwrap(), &path), "nbdkit");

    let block_sizes = [
        "--filter=blocksize-policy",
        "file",
        text,
        "blocksize-minimum=4096",
        "blocksize-preferred=65536",
        "blocksize-maximum=131072",
        "blocksize-error-policy=error",
    ];
    let server = nbdkit(free_port(), &block_sizes);
    assert!(
        same(&copied(server.port, &[""]).unwrap(), &path),
        "nbdkit that insists on block sizes"
    );
    let whole = fs::read(&path).unwrap();
    let part = copied_from(server.port, &[""], 34 * 512).unwrap();
    assert!(part == whole[34 * 512..], "a region that does not begin at a block");
}

/// Which servers have what we would like: a new version that has more, or less, shows here.
#[test]
#[ignore = "needs nbd-server, qemu-nbd and nbdkit"]
fn holes_are_not_asked_for_where_the_server_has_a_map() {
    const MIB: u64 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let data = fs::read(image(dir.path(), "data.img", 3 * MIB as usize, 1)).unwrap();
    let path = dir.path().join("sparse.img");
    let file = fs::File::create(&path).unwrap();
    file.set_len(100 * MIB).unwrap();
    for at in [0, 50, 97] {
        file.write_all_at(&data, at * MIB).unwrap();
    }
    let text = path.to_str().unwrap();
    let qemu = qemu_nbd(free_port(), &["-x", "img", "-t", "-e", "8", "--", text]);
    let kit = nbdkit(free_port(), &["file", text]);
    let nbd = nbd_server(dir.path(), &[("img", &path)]);
    for (program, server, has_map) in
        [("qemu-nbd", &qemu, true), ("nbdkit", &kit, true), ("nbd-server", &nbd, false)]
    {
        let one = job(&[server.port], &["img"], 0).unwrap();
        let reader = Reader::open(&one.sources[0].peer, &one.sources[0].names).unwrap();
        assert_eq!(reader.has_map(), has_map, "{program}");
        reader.disconnect();
        let patience = Duration::from_secs(5);
        let allocated = copy::allocated(&one.sources, &one.identity, one.region, patience);
        // Where the data has zeroes of its own, qemu-nbd knows of them.
        let is_right = |bytes: u64| (5 * MIB..=9 * MIB + 65536).contains(&bytes);
        assert_eq!(allocated.is_some_and(is_right), has_map, "{program}: {allocated:?}");
        let pace = Arc::new(Leisurely(Mutex::new(Instant::now())));
        let (bytes, progress, file) = copy_with_progress(one, pace).unwrap();
        assert!(same(&bytes, &path), "{program}");
        assert_eq!(progress.done_bytes, 100 * MIB, "{program}");
        if has_map {
            // What is asked for before the map is there comes in full.
            assert!(progress.holes_bytes > 50 * MIB, "{program}: {progress:?}");
        }
        let kept = file.metadata().unwrap().blocks() * 512;
        assert!(kept <= 9 * MIB, "{program}: {kept} bytes of memory");
    }
}

/// A mirror that is slow, one that dies, and one with yesterday's image: the copy is as good.
#[test]
#[ignore = "needs nbdkit"]
fn several_servers_are_as_good_as_their_best() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "a.img", LENGTH, 1);
    let old = image(dir.path(), "old.img", LENGTH, 2);
    let text = path.to_str().unwrap();
    let rate = |rate: &str| nbdkit(free_port(), &["--filter=rate", "file", text, rate]);
    // In bits. 5 MB/s, 100 kB/s, and one with 1.25 MB/s that is gone after half a second; what they
    // may have saved up before they are asked is for two seconds, and not half of the image.
    let (good, slow, dies) = (rate("rate=40M"), rate("rate=800k"), rate("rate=10M"));
    let other = nbdkit(free_port(), &["file", old.to_str().unwrap()]);
    let gone = free_port();
    let ports = [good.port, slow.port, dies.port, other.port, gone];
    let started = Instant::now();
    let all = job(&ports, &[""], 0).unwrap();
    let copy = thread::spawn(move || copy_with_progress(all, Arc::new(FullSpeed)));
    thread::sleep(Duration::from_millis(500));
    drop(dies);
    let (bytes, progress, _) = copy.join().unwrap().unwrap();
    let took = started.elapsed();
    assert!(same(&bytes, &path));
    let [good, slow, dies, other, gone] = progress.sources.as_slice() else { panic!() };
    assert!(
        good.bytes > dies.bytes && dies.bytes > 0 && slow.bytes < LENGTH as u64 / 8,
        "{progress:#?}"
    );
    assert!(other.is_dropped && other.bytes == 0, "{other:?}");
    assert!(gone.trouble.is_some() && !gone.is_dropped, "{gone:?}");
    // The slow one alone needs twenty seconds for what it has in flight at the end.
    assert!(took < Duration::from_secs(15), "took {took:?}: {progress:#?}");
}

/// A copy that nobody wants any more gives its memory back, and leaves nobody waiting.
#[test]
#[ignore = "needs nbdkit"]
fn a_cancelled_copy_is_gone_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "a.img", LENGTH, 1);
    let server =
        nbdkit(free_port(), &["--filter=delay", "file", path.to_str().unwrap(), "rdelay=2"]);
    let job = job(&[server.port], &[""], 0).unwrap();
    let copying = copy::start(job, Arc::new(FullSpeed), Refusals::Drop).unwrap();
    assert!(copying.wait(Duration::from_millis(300)).is_none());
    let started = Instant::now();
    copying.cancel();
    assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
}

/// qemu-nbd's default: a second connection is accepted by the kernel and never answered.
#[test]
#[ignore = "needs qemu-nbd"]
fn a_server_for_one_client_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "a.img", LENGTH, 1);
    let server = qemu_nbd(free_port(), &["-x", "focal", "--", path.to_str().unwrap()]);
    let started = Instant::now();
    assert!(same(&copied(server.port, &["focal"]).unwrap(), &path));
    assert!(started.elapsed() < Duration::from_secs(5), "took {:?}", started.elapsed());
}

/// The operator's typing error must be answered with the right names.
#[test]
#[ignore = "needs nbd-server, qemu-nbd and nbdkit"]
fn an_unknown_export_is_answered_with_those_that_exist() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "a.img", 1 << 20, 1);
    let text = path.to_str().unwrap();

    let server = nbd_server(dir.path(), &[("jammy", &path), ("/opt/noble", &path)]);
    let error = connect(server.port, &["focal"]).map(drop).unwrap_err();
    assert_eq!(error.hint(), Some("the server offers \"jammy\", \"/opt/noble\""));
    assert!(error.to_string().contains("for export \"focal\": refused: unknown export"), "{error}");

    let server = qemu_nbd(free_port(), &["-x", "jammy", "-t", "--", text]);
    let error = connect(server.port, &["focal"]).map(drop).unwrap_err();
    assert_eq!(error.hint(), Some("the server offers \"jammy\""));

    let server = nbdkit(free_port(), &["-o", "file", text]);
    let error = connect(server.port, &["focal"]).map(drop).unwrap_err();
    assert!(error.to_string().contains("the protocol of before 2011"), "{error}");
}

/// C96: what was copied is kept, what is missing is fetched from the server's next life.
#[test]
#[ignore = "needs nbdkit"]
fn a_server_that_dies_in_mid_copy_and_returns_is_forgiven() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "a.img", LENGTH, 1);
    let text = path.to_str().unwrap();
    let port = free_port();
    let slow = ["--filter=rate", "file", text, "rate=40M"];
    let first = nbdkit(port, &slow);
    let copy = copying(port);
    thread::sleep(Duration::from_millis(1500));
    drop(first);
    assert!(!copy.is_finished(), "the copy was over before the server was");
    thread::sleep(Duration::from_millis(1500));
    let _second = nbdkit(port, &slow);
    assert!(same(&ended(copy).unwrap(), &path));
}

/// A mixture of two images mounts, and is neither.
#[test]
#[ignore = "needs nbdkit"]
fn an_image_replaced_in_mid_copy_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let old = image(dir.path(), "old.img", LENGTH, 1);
    let same_size = image(dir.path(), "new.img", LENGTH, 2);
    let other_size = image(dir.path(), "long.img", LENGTH + 512, 1);
    for (new, words) in
        [(same_size, "another image of the same size"), (other_size, "another image: it has")]
    {
        let port = free_port();
        let first = nbdkit(port, &["--filter=rate", "file", old.to_str().unwrap(), "rate=40M"]);
        let copy = copying(port);
        thread::sleep(Duration::from_millis(1000));
        drop(first);
        let _second = nbdkit(port, &["file", new.to_str().unwrap()]);
        let error = ended(copy).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
}

/// A disk of the server that fails now and then is no reason to stop, one that always does is.
#[test]
#[ignore = "needs nbdkit"]
fn failed_reads_are_repeated_but_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "a.img", LENGTH, 1);
    let text = path.to_str().unwrap();
    // The probe's own reads must succeed, so the errors begin when the file exists.
    let trigger = dir.path().join("fail");
    let trigger_setting = format!("error-file={}", trigger.display());
    for (rate, good) in [("error-pread-rate=10%", true), ("error-pread-rate=100%", false)] {
        let _ = fs::remove_file(&trigger);
        let server = nbdkit(
            free_port(),
            &[
                "--filter=error",
                "--filter=rate",
                "file",
                text,
                rate,
                &trigger_setting,
                "error=EIO",
                "rate=40M",
                // With several, version 1.32 dies of the connection that is given up while others
                // of its threads answer: "Assertion `sock >= 0' failed".
                "--threads=1",
            ],
        );
        let port = server.port;
        let copy = copying(port);
        thread::sleep(Duration::from_millis(500));
        fs::write(&trigger, "").unwrap();
        match ended(copy) {
            Ok(bytes) => assert!(good && same(&bytes, &path), "{rate}"),
            Err(error) => {
                assert!(!good, "{rate}: {error}");
                assert!(
                    error.to_string().contains("the server says \"Input/output error\""),
                    "{error}"
                );
            }
        }
    }
}

/// A client that was started before its server.
#[test]
#[ignore = "needs nbdkit"]
fn a_server_that_starts_late_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "a.img", 1 << 20, 1);
    let port = free_port();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    let copy = copying(port);
    thread::sleep(Duration::from_secs(3));
    let _server = nbdkit(port, &["file", path.to_str().unwrap()]);
    assert!(same(&ended(copy).unwrap(), &path));
}

/// The servers of the field take what we write, and what they have is left alone.
#[test]
#[ignore = "needs nbd-server, qemu-nbd and nbdkit"]
fn an_empty_export_becomes_a_swap_area_and_files_stay_files() {
    let directory = tempfile::tempdir().unwrap();
    let export = |name: &str, fill: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = vec![0; 1 << 20];
        fill(&mut bytes);
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let empty = |_: &mut Vec<u8>| {};
    let ext4 = |bytes: &mut Vec<u8>| bytes[1080..1082].copy_from_slice(b"\x53\xef");
    let writable = ["-f", "-i", "127.0.0.1", "-p"];
    type Start<'a> = &'a dyn Fn(u16, &Path) -> Server;
    let starts: [(&str, Start<'_>); 3] = [
        ("nbdkit", &|port, path| {
            let port = &port.to_string();
            start(
                port.parse().unwrap(),
                "nbdkit",
                &[&writable[..], &[port, "file", path.to_str().unwrap()]].concat(),
            )
        }),
        ("qemu-nbd", &|port, path| {
            let text = &port.to_string();
            start(
                port,
                "qemu-nbd",
                &[
                    "-f",
                    "raw",
                    "-t",
                    "-x",
                    "swap",
                    "-b",
                    "127.0.0.1",
                    "-p",
                    text,
                    path.to_str().unwrap(),
                ],
            )
        }),
        ("nbd-server", &|port, path| {
            let config = directory.path().join("swap.conf");
            let text = format!(
                "[generic]\nport = {port}\nlistenaddr = 127.0.0.1\n[swap]\nexportname = {}\n",
                path.display()
            );
            fs::write(&config, text).unwrap();
            let pid_file = directory.path().join("swap.pid");
            let mut server = start(
                port,
                "nbd-server",
                &["-C", config.to_str().unwrap(), "-p", pid_file.to_str().unwrap()],
            );
            server.pid_file = Some(pid_file);
            server
        }),
    ];
    for (program, start) in starts {
        let blank = export(program, &empty);
        let server = start(free_port(), &blank);
        for time in ["blank", "made"] {
            let mut connection = connect(server.port, &["swap"]).unwrap();
            let before = fs::read(&blank).unwrap();
            super::swap::make_ready(&mut connection, false).unwrap();
            connection.disconnect();
            let after = fs::read(&blank).unwrap();
            assert_eq!(before != after, time == "blank", "{program}, {time}");
            assert_eq!(after[4086..4096], *b"SWAPSPACE2", "{program}, {time}");
        }
        drop(server);
        let files = export(&format!("{program}.ext4"), &ext4);
        let server = start(free_port(), &files);
        let mut connection = connect(server.port, &["swap"]).unwrap();
        let error = super::swap::make_ready(&mut connection, false).unwrap_err();
        assert!(error.to_string().contains("no swap space but ext"), "{program}: {error}");
        drop(connection);
        drop(server);
    }
    let server = nbd_server(directory.path(), &[("swap", &export("ro", &empty))]);
    let mut connection = connect(server.port, &["swap"]).unwrap();
    let error = super::swap::make_ready(&mut connection, false).unwrap_err();
    assert!(error.to_string().contains("lets nobody write"), "{error}");
}

/// A node with little memory boots without swap, too, and in time.
#[test]
fn swap_is_not_waited_for_longer_than_agreed() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let export = NbdExport {
        host: "127.0.0.1".into(),
        port: silent.local_addr().unwrap().port(),
        names: vec!["swap".into()],
        origin: "test".into(),
    };
    let closed = NbdExport { port: free_port(), ..export.clone() };
    for export in [export, closed] {
        // A busy machine is late by itself, and not each time.
        let took = || {
            let started = Instant::now();
            let patience = Duration::from_millis(400);
            let result = server::connect_within(&export, &|_| Ok(vec![]), patience);
            assert!(result.is_err(), "{export:?}");
            started.elapsed()
        };
        let quickest = (0..3).map(|_| took()).min().unwrap();
        assert!(quickest < Duration::from_secs(3), "{export:?}: {quickest:?}");
    }
}
