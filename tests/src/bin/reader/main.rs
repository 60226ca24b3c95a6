//! The program that reads the root all the time, in the running system of a boot test
//! (`landfall_tests::reading`).
//!
//! It is a process in memory that is locked, started from a file in memory, with a serial port for
//! its words: with the root dead and the network gone it still says what it sees. It has no other
//! file open than the root's device and, one after the other, the files that it reads.

mod answers;
mod clock;
mod lines;

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, mpsc};
use std::thread;

use landfall_tests::reading::{Answer, Asked, Hello, PORT, Said};
use rustix::fs::OFlags;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::Pid;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::lines::{Device, Lines};

fn main() -> io::Result<()> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    if let [verb, leave_bytes] = words.as_slice()
        && verb == "hog"
    {
        // Anything but a number is no bound.
        return answers::be_a_hog(leave_bytes.parse().ok());
    }
    // Before anything is read: its own pages must never have to be.
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)?;
    // An emulated machine that starts a hundred services has no time for those who only watch.
    let _ = rustix::process::setpriority_process(None::<Pid>, -20);
    std::env::set_current_dir("/run")?;

    let port = open_port()?;
    let say = speak(port.try_clone()?);
    let device = Arc::new(Device::of("/rofs")?);
    let hello = Hello { at: clock::now(), device: device.path.clone(), device_bytes: device.bytes };
    let _ = say.send(Said::Hello(hello));
    let lines = Lines::start(Arc::clone(&device), "/rofs", say.clone());

    for line in BufReader::new(port).lines() {
        let Ok(Asked { number, what }) = serde_json::from_str(&line?) else { continue };
        let (say, device, lines) = (say.clone(), Arc::clone(&device), Arc::clone(&lines));
        // Some answers wait for the root, and the others must not wait for them.
        thread::spawn(move || {
            let answer = answers::answer(what, &device, &lines);
            let answer = answer.unwrap_or_else(|error| Answer::Failed(error.to_string()));
            let _ = say.send(Said::Answer { number, answer });
        });
    }
    Ok(())
}

fn open_port() -> io::Result<File> {
    let flags = OFlags::NOCTTY.bits() as i32;
    let port = OpenOptions::new().read(true).write(true).custom_flags(flags).open(PORT)?;
    let mut modes = tcgetattr(&port)?;
    modes.make_raw();
    tcsetattr(&port, OptionalActions::Flush, &modes)?;
    Ok(port)
}

/// One thread writes what all have to say.
fn speak(mut port: File) -> mpsc::Sender<Said> {
    let (say, said) = mpsc::channel::<Said>();
    thread::spawn(move || {
        for said in said {
            let Ok(mut line) = serde_json::to_string(&said) else { continue };
            line.push('\n');
            if port.write_all(line.as_bytes()).is_err() {
                return;
            }
        }
    });
    say
}
