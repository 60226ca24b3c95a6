//! `probe watch HOST:PORT DEVICE FILE`: how long the network has ever stood still.
//!
//! Started by the boot, before there is an init, and still there long after: one connection over
//! which something goes to and fro, and a disk that is read past all caches. What it finds is in
//! FILE, written anew twice a second.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use landfall_tests::protocol::Watched;
use rustix::fs::OFlags;
use rustix::process::Pid;

use crate::state;

/// Between two questions: a tenth of what is too long, and little of an emulated machine's time.
const PAUSE: Duration = Duration::from_millis(100);
/// What the device is read in, and where reads may begin.
const BLOCK: usize = 4096;

pub fn watch(peer: &str, device: &str, file: &str) -> io::Result<()> {
    let seen = Arc::new(Mutex::new(Watched::default()));
    let connection = TcpStream::connect(peer)?;
    connection.set_nodelay(true)?;
    let disk =
        OpenOptions::new().read(true).custom_flags(OFlags::DIRECT.bits() as i32).open(device)?;
    for line in [Line::Connection(connection), Line::Disk(disk)] {
        let seen = Arc::clone(&seen);
        thread::spawn(move || line.follow(&seen));
    }
    // An emulated machine that starts a hundred services has no time for those who only watch.
    let _ = rustix::process::setpriority_process(None::<Pid>, -20);
    loop {
        thread::sleep(Duration::from_millis(500));
        let text = serde_json::to_string(&*seen.lock().expect("nobody panics"))?;
        let fresh = Path::new(file).with_extension("new");
        fs::write(&fresh, text)?;
        fs::rename(fresh, file)?;
    }
}

enum Line {
    Connection(TcpStream),
    Disk(File),
}

impl Line {
    fn follow(mut self, seen: &Mutex<Watched>) {
        for number in 0_u64.. {
            let (began, at) = (Instant::now(), state::uptime().unwrap_or_default());
            let result = self.ask(number);
            let mut seen = seen.lock().expect("nobody panics");
            let own = match self {
                Self::Connection(_) => &mut seen.connection,
                Self::Disk(_) => &mut seen.disk,
            };
            own.answers += 1;
            let seconds = began.elapsed().as_secs_f64();
            if seconds > own.longest_seconds {
                own.longest_seconds = seconds;
                own.at_uptime_seconds = at;
            }
            if let Err(error) = result {
                own.error = Some(error.to_string());
                return;
            }
            drop(seen);
            thread::sleep(PAUSE);
        }
    }

    fn ask(&mut self, number: u64) -> io::Result<()> {
        match self {
            Self::Connection(connection) => {
                connection.write_all(&number.to_be_bytes())?;
                let mut echo = [0; 8];
                connection.read_exact(&mut echo)?;
                match u64::from_be_bytes(echo) == number {
                    true => Ok(()),
                    false => Err(io::Error::other("another answer")),
                }
            }
            Self::Disk(disk) => {
                // The kernel wants it on the boundary of a block.
                let mut buffer = vec![0; 3 * BLOCK];
                let start = buffer.as_ptr().align_offset(BLOCK);
                // All over the first 32 MiB, as a system does that starts.
                let offset = (number * 257 % 8192) * BLOCK as u64;
                disk.read_exact_at(&mut buffer[start..start + BLOCK], offset)
            }
        }
    }
}
