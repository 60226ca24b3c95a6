//! How fast an image comes into memory over loopback: our copy, nbdcopy and curl, taking turns in
//! one run, because what else the host does changes all numbers by more than they differ.

use std::fs::{self, File};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use landfall_tests::{Arch, workshop};

use crate::{agent, say};

const MIB: usize = 512;
const ROUNDS: usize = 7;
/// Where nbdcopy and curl write to, which is memory as well.
const TARGET: &str = "/dev/shm/landfall-bench.img";

/// Builds our copy the way the agent is built.
pub fn prepare() -> Result<()> {
    say::step("building the copy alone (release, static)", || {
        let program = ["-p", "landfall-tests", "--bin", "copy"];
        let alone = ["--no-default-features", "--features", "copy,landfall/default"];
        let how = ["--release", "--target", Arch::Amd64.target()];
        agent::cargo("build", &[&program[..], &alone, &how].concat())
    })
}

pub fn measure() -> Result<()> {
    let folder = workshop::dir().join("bench");
    fs::create_dir_all(&folder)?;
    let image = image(&folder)?;
    let ours = agent::built("copy", Arch::Amd64);
    let http = Server::start("nginx", |port| nginx(&folder, port))?;
    println!("copy of {MIB} MiB into memory over loopback, median of {ROUNDS}, MB/s");
    type Start = fn(&Path, u16) -> Command;
    for (name, start) in [("qemu-nbd", qemu_nbd as Start), ("nbdkit", nbdkit as Start)] {
        let server = Server::start(name, |port| Ok(start(&image, port)))?;
        let rivals: [(&str, Command); 3] = [
            ("landfall", command(&ours, &[&format!("127.0.0.1:{}", server.port)])),
            ("nbdcopy", nbdcopy(server.port)),
            ("curl, nginx", curl(http.port)),
        ];
        let mut rates = [const { Vec::new() }; 3];
        // The first round fills caches and is not counted.
        for round in 0..=ROUNDS {
            for ((name, rival), rates) in rivals.iter().zip(&mut rates) {
                let rate = rate(rival).with_context(|| (*name).to_owned())?;
                if round > 0 {
                    rates.push(rate);
                }
            }
        }
        let medians = rates.map(median);
        let shown: Vec<_> = rivals
            .iter()
            .zip(medians)
            .map(|((name, _), rate)| format!("{name} {rate:.0}"))
            .collect();
        println!(
            "    {name:<10} {}; {:.2} times nbdcopy",
            shown.join(", "),
            medians[0] / medians[1]
        );
    }
    fs::remove_file(TARGET).context("removing what was copied")
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

/// Megabytes a second, from the start of the program to its end, without what frees the memory of
/// the last one.
fn rate(program: &Command) -> Result<f64> {
    let _ = fs::remove_file(TARGET);
    let mut again = Command::new(program.get_program());
    again.args(program.get_args()).stdin(Stdio::null()).stdout(Stdio::null());
    let started = Instant::now();
    let status = again.status()?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(status.success(), "{status}");
    Ok((MIB << 20) as f64 / 1e6 / seconds)
}

/// Bytes without a page of zeroes: everybody has to carry all of them.
fn image(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("copy.img");
    if path.metadata().is_ok_and(|known| known.len() == (MIB << 20) as u64) {
        return Ok(path);
    }
    let mut state = 1u64;
    let mut bytes = vec![0; 1 << 20];
    let mut file = File::create(&path)?;
    for _ in 0..MIB {
        for word in bytes.chunks_exact_mut(8) {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            word.copy_from_slice(&state.to_be_bytes());
        }
        file.write_all(&bytes)?;
    }
    Ok(path)
}

fn command(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn qemu_nbd(image: &Path, port: u16) -> Command {
    let port = port.to_string();
    let fixed = ["-r", "-f", "raw", "-t", "-e", "16", "-b", "127.0.0.1", "-p", &port, "--"];
    let mut command = command(Path::new("qemu-nbd"), &fixed);
    command.arg(image);
    command
}

fn nbdkit(image: &Path, port: u16) -> Command {
    let port = port.to_string();
    let fixed = ["-f", "-r", "-i", "127.0.0.1", "-p", &port, "file"];
    let mut command = command(Path::new("nbdkit"), &fixed);
    command.arg(image);
    command
}

fn nbdcopy(port: u16) -> Command {
    command(Path::new("nbdcopy"), &[&format!("nbd://127.0.0.1:{port}/"), TARGET])
}

fn curl(port: u16) -> Command {
    let url = format!("http://127.0.0.1:{port}/copy.img");
    command(Path::new("curl"), &["--silent", "--show-error", "--fail", "--output", TARGET, &url])
}

fn nginx(folder: &Path, port: u16) -> Result<Command> {
    let config = folder.join("nginx.conf");
    let folder = folder.display();
    let text = format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr error;\n\
         events {{}}\n\
         http {{ access_log off; sendfile on;\n\
         server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n"
    );
    fs::write(&config, text)?;
    Ok(command(Path::new("nginx"), &["-c", &config.display().to_string()]))
}

/// Killed when dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(name: &str, command: impl FnOnce(u16) -> Result<Command>) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = command(port)?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let server = Self { child: child.with_context(|| format!("starting {name}"))?, port };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(Instant::now() < deadline, "{name} does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
