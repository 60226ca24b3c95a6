//! What a machine has said so far, on its console and on its control port, and waiting for more.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Filled by one thread for each port, read by the test; waiting is for an event, never by polling.
#[derive(Clone, Default)]
pub struct Console {
    shared: Arc<(Mutex<Heard>, Condvar)>,
}

#[derive(Default)]
pub(crate) struct Heard {
    /// Without terminal control sequences.
    pub lines: Vec<String>,
    /// Lines of the control port that nobody has taken yet.
    pub control: VecDeque<String>,
    /// Ports that are still listened to.
    ports: u32,
    /// The machine is gone, and everything that it said is here.
    pub ended: bool,
}

impl Console {
    /// Collects the console's lines until the machine is gone; each also goes to `log`, behind the
    /// seconds since now, and to standard output if `echo`.
    pub(crate) fn follow_console(
        &self,
        port: impl Read + Send + 'static,
        mut log: File,
        echo: bool,
    ) {
        let (console, started) = (self.clone(), Instant::now());
        self.change(|heard| heard.ports += 1);
        thread::spawn(move || {
            for_each_line(port, |line| {
                let line = plain(line);
                let _ = writeln!(log, "{:8.3} {line}", started.elapsed().as_secs_f32());
                if echo {
                    println!("{line}");
                }
                console.change(|heard| heard.lines.push(line));
            });
            console.change(Heard::close_port);
        });
    }

    pub(crate) fn follow_control(&self, port: impl Read + Send + 'static) {
        let console = self.clone();
        self.change(|heard| heard.ports += 1);
        thread::spawn(move || {
            for_each_line(port, |line| {
                console.change(|heard| heard.control.push_back(line.to_owned()));
            });
            console.change(Heard::close_port);
        });
    }

    /// Waits until `found` finds something; at the latest for `within`, or until the machine ends.
    pub(crate) fn wait<T>(
        &self,
        what: &str,
        within: Duration,
        mut found: impl FnMut(&mut Heard) -> Option<Result<T>>,
    ) -> Result<T> {
        let (heard, changed) = &*self.shared;
        let deadline = Instant::now() + within;
        let mut heard = lock(heard);
        loop {
            if let Some(result) = found(&mut heard) {
                return result;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if heard.ended || left.is_zero() {
                let why = if heard.ended { "the machine ended" } else { "the time is up" };
                bail!("waiting for {what}: {why} ({within:?})\n{}", heard.tail());
            }
            heard = changed.wait_timeout(heard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The first line, of those already there or of those to come, that `wanted` accepts.
    pub fn line(
        &self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let mut seen = 0;
        self.wait(what, within, |heard| {
            let fresh = &heard.lines[seen..];
            seen = heard.lines.len();
            fresh.iter().find(|line| wanted(line)).cloned().map(Ok)
        })
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.shared.0).lines.clone()
    }

    /// The last lines.
    pub(crate) fn tail(&self) -> String {
        lock(&self.shared.0).tail()
    }

    fn change(&self, change: impl FnOnce(&mut Heard)) {
        change(&mut lock(&self.shared.0));
        self.shared.1.notify_all();
    }
}

impl Heard {
    /// The other port may still have something to say: a last line must not be missed.
    fn close_port(&mut self) {
        self.ports -= 1;
        self.ended = self.ports == 0;
    }

    /// What a person looks at first when a test has failed.
    pub fn tail(&self) -> String {
        let from = self.lines.len().saturating_sub(40);
        let lines: Vec<_> = self.lines[from..].iter().map(|line| format!("    | {line}")).collect();
        lines.join("\n")
    }
}

/// A reader thread that panics while holding the lock has said all it could.
fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lines as they come, the last one too when it has no end; bytes that are no text are replaced.
fn for_each_line(port: impl Read, mut each: impl FnMut(&str)) {
    let mut port = BufReader::new(port);
    let mut line = Vec::new();
    // A lost connection is the end of what the machine says, as is a closed one.
    while port.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        each(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']));
        line.clear();
    }
}

/// Leaves out what only moves the cursor or sets colours. Of a line that was redrawn in place the
/// last state remains.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' if characters.peek() == Some(&'[') => {
                // CSI: parameters, then one final letter.
                while characters.next().is_some_and(|c| !('@'..='~').contains(&c) || c == '[') {}
            }
            '\u{1b}' => drop(characters.next()),
            '\r' => text.clear(),
            _ => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn a_console_line_is_what_a_person_would_have_read() {
        let cases = [
            ("plain",                              "plain"),
            ("[\u{1b}[0;32m  OK  \u{1b}[0m] Done", "[  OK  ] Done"), // systemd's colours
            ("\u{1b}[2J\u{1b}[01;1Hboot",          "boot"),          // firmware clears the screen
            ("copying 10 %\rcopying 20 %",         "copying 20 %"),  // progress in place
            ("\u{1b}cfresh",                       "fresh"),         // terminal reset
            ("cut off \u{1b}[3",                   "cut off "),
        ];
        for (line, expected) in cases {
            assert_eq!(plain(line), expected, "{line:?}");
        }
    }

    #[test]
    fn lines_wake_whoever_waits_and_the_end_of_the_machine_ends_the_wait() {
        let console = Console::default();
        let (reader, mut writer) = std::io::pipe().unwrap();
        console.follow_console(reader, File::create("/dev/null").unwrap(), false);
        let waiting = {
            let console = console.clone();
            thread::spawn(move || console.line("b", Duration::from_secs(60), |l| l == "b"))
        };
        writer.write_all(b"a\r\nb\r\n").unwrap();
        assert_eq!(waiting.join().unwrap().unwrap(), "b");

        drop(writer);
        let error = console.line("c", Duration::from_secs(60), |l| l == "c").unwrap_err();
        assert!(error.to_string().contains("the machine ended"), "{error}");
    }
}
