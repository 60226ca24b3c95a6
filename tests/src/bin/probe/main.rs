//! The program that the boot tests find at the end of a boot, and ask what it sees.
//!
//! As `/sbin/init` of a probe root it is PID 1 and does nothing on its own: what it reports is
//! what the boot left. In a full Debian root it is a service that starts after
//! `multi-user.target`. It answers on the second serial port (`landfall_tests::protocol`), and
//! mounts nothing but a `/proc` or `/dev` that the boot failed to provide, which it says on the
//! console.

mod state;
mod watch;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::{self, Command, Stdio};

use landfall_tests::checksum;
use landfall_tests::protocol::{Hello, Info, Kind, PORT, Ran, Reply, Request};
use rustix::fs::OFlags;
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

fn main() {
    let words: Vec<_> = std::env::args().skip(1).collect();
    if let [verb, peer, device, file] = words.as_slice()
        && verb == "watch"
    {
        let result = watch::watch(peer, device, file);
        say(&format!("probe: watching {peer} and {device}: {result:?}"));
        return;
    }
    if process::id() == 1 {
        provide("/proc/self", "proc", "/proc");
        provide(PORT, "devtmpfs", "/dev");
        provide("/sys/class/net", "sysfs", "/sys");
    }
    let result = serve();
    say(&format!("probe: control port: {result:?}"));
    if process::id() == 1 {
        // A PID 1 that returns makes the kernel panic over the lines that tell why.
        let _ = reboot(RebootCommand::PowerOff);
    }
}

/// Mounts what the boot should have left, and says so: a test can then still ask for the rest.
fn provide(witness: &str, fstype: &str, target: &str) {
    if Path::new(witness).exists() {
        return;
    }
    let result = mount(fstype, target, fstype, MountFlags::empty(), None);
    say(&format!("probe: the boot left no {target}; mounting it: {result:?}"));
}

fn say(line: &str) {
    if let Ok(mut console) = OpenOptions::new().write(true).open("/dev/console") {
        let _ = writeln!(console, "{line}");
    }
}

fn serve() -> io::Result<()> {
    // Not the controlling terminal: PID 1 would otherwise get its signals.
    let port = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NOCTTY.bits() as i32)
        .open(PORT)?;
    let mut modes = tcgetattr(&port)?;
    modes.make_raw();
    tcsetattr(&port, OptionalActions::Flush, &modes)?;

    let mut out = &port;
    let hello = Hello { pid: process::id(), uptime_seconds: state::uptime()? };
    send(&mut out, &hello)?;
    for line in BufReader::new(&port).lines() {
        let reply = match serde_json::from_str(&line?) {
            Ok(request) => answer(request).unwrap_or_else(|error| Reply::Failed(error.to_string())),
            Err(error) => Reply::Failed(format!("not a request: {error}")),
        };
        send(&mut out, &reply)?;
    }
    Ok(())
}

fn send(port: &mut impl Write, message: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_string(message)?;
    line.push('\n');
    port.write_all(line.as_bytes())
}

fn answer(request: Request) -> io::Result<Reply> {
    Ok(match request {
        Request::State => Reply::State(Box::new(state::read()?)),
        Request::File(path) => Reply::Text(String::from_utf8_lossy(&fs::read(path)?).into_owned()),
        Request::Info(path) => Reply::Info(info(Path::new(&path))?),
        Request::List(path) => Reply::Names(list(Path::new(&path))?),
        Request::Tree(path) => Reply::Tree(checksum::tree(Path::new(&path))?),
        Request::Write { path, text } => {
            fs::write(path, text)?;
            Reply::Done
        }
        Request::DropCaches => {
            rustix::fs::sync();
            fs::write("/proc/sys/vm/drop_caches", "3")?;
            Reply::Done
        }
        Request::Run(words) => Reply::Ran(run(&words)?),
        Request::PowerOff => power_off()?,
    })
}

fn info(path: &Path) -> io::Result<Info> {
    let meta = fs::symlink_metadata(path)?;
    let kind = if meta.is_file() {
        Kind::File
    } else if meta.is_dir() {
        Kind::Directory
    } else if meta.is_symlink() {
        Kind::Link(fs::read_link(path)?.to_string_lossy().into_owned())
    } else if meta.rdev() != 0 {
        Kind::Device
    } else {
        Kind::Other
    };
    let mode = meta.mode() & 0o7777;
    Ok(Info { kind, mode, uid: meta.uid(), gid: meta.gid(), size: meta.len() })
}

fn list(path: &Path) -> io::Result<Vec<String>> {
    let mut names = fs::read_dir(path)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn run(words: &[String]) -> io::Result<Ran> {
    let [program, arguments @ ..] = words else {
        return Err(io::Error::other("no program was named"));
    };
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Ran {
        status: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    })
}

fn power_off() -> io::Result<Reply> {
    rustix::fs::sync();
    let _ = File::open("/dev/console").map(|console| rustix::termios::tcdrain(&console));
    reboot(RebootCommand::PowerOff)?;
    Ok(Reply::Done)
}
