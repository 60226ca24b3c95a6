//! What the harness asks the reader to do.

use std::fs;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use landfall_tests::checksum;
use landfall_tests::reading::{Answer, PIECE, Question, STILL_THERE, sum};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::mm::{MlockAllFlags, mlockall};

use crate::lines::{Aligned, Device, Lines};

pub fn answer(question: Question, device: &Device, lines: &Lines) -> io::Result<Answer> {
    Ok(match question {
        Question::Report => Answer::Report(lines.report()),
        Question::DropCaches => {
            fs::write("/proc/sys/vm/drop_caches", "3")?;
            Answer::Done
        }
        Question::Tree(path) => Answer::Tree(checksum::tree(Path::new(&path))?),
        Question::Device => Answer::Device(sums(device)?),
        Question::Text(path) => Answer::Text(text(fs::read(path)?)),
        Question::Socket(path) => {
            let mut said = Vec::new();
            let mut stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            stream.read_to_end(&mut said)?;
            Answer::Text(text(said))
        }
        Question::Freeze(seconds) => {
            // By kill(2) neither PID 1 nor the caller is among all processes.
            kill(Pid::from_raw(-1), Signal::SIGSTOP)?;
            thread::sleep(Duration::from_secs_f64(seconds));
            kill(Pid::from_raw(-1), Signal::SIGCONT)?;
            Answer::Done
        }
        Question::SignalInit(signal) => {
            signal_init(signal)?;
            Answer::Done
        }
        Question::Hog { leave_bytes, seconds } => Answer::Text(hog(leave_bytes, seconds)?),
    })
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

fn sums(device: &Device) -> io::Result<Vec<u64>> {
    let mut buffer = Aligned::new(PIECE);
    let mut sums = Vec::new();
    for offset in (0..device.bytes).step_by(PIECE as usize) {
        let length = device.read(&mut buffer, offset)?;
        sums.push(sum(&buffer.bytes()[..length]));
    }
    Ok(sums)
}

/// Realtime signals are more than nix has names for.
#[allow(unsafe_code)]
fn signal_init(signal: i32) -> io::Result<()> {
    // SAFETY: kill(2) takes two numbers, and touches no memory of ours.
    match unsafe { nix::libc::kill(1, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What the kernel keeps free, in KiB, while somebody takes all there is.
const MIN_FREE: &str = "/proc/sys/vm/min_free_kbytes";
const KEPT_FREE_KIB: &str = "65536";

/// A process of its own: what happens to it must not happen to the reader.
fn hog(leave_bytes: Option<u64>, seconds: f64) -> io::Result<String> {
    let Some(leave_bytes) = leave_bytes else {
        // Else the page cache counts as memory to be had until its last page: the machine reads its
        // programs from the server again and again, for minutes, before anybody is killed. With
        // this it is as out of memory as soon as free pages and page cache together are less.
        let before = fs::read_to_string(MIN_FREE)?;
        fs::write(MIN_FREE, KEPT_FREE_KIB)?;
        let end = end_of_hog("all", seconds);
        fs::write(MIN_FREE, before.trim())?;
        return end;
    };
    end_of_hog(&leave_bytes.to_string(), seconds)
}

fn end_of_hog(leave: &str, seconds: f64) -> io::Result<String> {
    let mut child =
        Command::new("/proc/self/exe").args(["hog", leave]).stdin(Stdio::null()).spawn()?;
    let began = Instant::now();
    while began.elapsed().as_secs_f64() < seconds {
        if let Some(status) = child.try_wait()? {
            return Ok(status.to_string());
        }
        thread::sleep(Duration::from_millis(50));
    }
    child.kill()?;
    child.wait()?;
    Ok(STILL_THERE.to_owned())
}

/// Takes memory and keeps it, until it is killed; without a number all that there is.
pub fn be_a_hog(leave_bytes: Option<u64>) -> io::Result<()> {
    // Anybody else is a worse choice.
    fs::write("/proc/self/oom_score_adj", "1000")?;
    // Nor is there any other way out than to kill it.
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)?;
    let mut taken = Vec::new();
    loop {
        while leave_bytes.is_none_or(|leave| available().is_ok_and(|bytes| bytes > leave)) {
            // Written to, or it would be taken on paper only.
            taken.push(vec![1_u8; 1 << 20]);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn available() -> io::Result<u64> {
    let table = fs::read_to_string("/proc/meminfo")?;
    let line = table.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.ok_or_else(|| io::Error::other("no MemAvailable"))? << 10)
}
