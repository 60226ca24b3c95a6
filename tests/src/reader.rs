//! The reader in a running system, as a test asks it: what it has read is compared with the image
//! that was served, block by block, while it comes in.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::checksum::TreeDigest;
use crate::initramfs::Initramfs;
use crate::lab::Lab;
use crate::machine::Machine;
use crate::reading::{
    Answer, Asked, BLOCK, Hello, Line, PIECE, Question, Report, STILL_THERE, Said, sum,
};
use crate::servers::Nbd;
use crate::workshop;

/// Reading a whole root from a slow server on an emulated machine takes the longest.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where the keeper says how the root is.
const STATUS: &str = "/run/landfall/status";

/// Where the image of the initramfs keeps what goes to `/run`.
const PACKED: &str = "landfall-reader";

/// Started early and stopped with everything else.
const UNIT: &str = "[Unit]\n\
    Description=Reads the root all the time\n\
    DefaultDependencies=no\n\
    Conflicts=shutdown.target\n\
    Before=shutdown.target\n\n\
    [Service]\n\
    OOMPolicy=continue\n\
    ExecStart=/run/landfall-reader\n\
    OOMScoreAdjust=-1000\n\
    TimeoutStopSec=3\n";

const WANTED: &str = "[Unit]\nWants=landfall-reader.service\n";

/// Where a root has no systemd, the boot itself starts it.
const START: &str = "/run/landfall-reader </dev/null >/dev/null 2>&1 &";

impl Initramfs {
    /// With the reader, and its unit for a root with systemd, for [`reader_words`] to unpack.
    pub fn reader(self) -> Result<Self> {
        let units = format!("{PACKED}/systemd/system");
        Ok(self
            .program(&format!("{PACKED}/landfall-reader"), &workshop::prepared("bin/reader")?)
            .file(&format!("{units}/landfall-reader.service"), UNIT)
            .file(&format!("{units}/sysinit.target.d/landfall-reader.conf"), WANTED))
    }
}

/// On the kernel's command line: the reader goes to `/run`, and starts with the root's systemd, or at
/// once. The root's image knows nothing of it.
pub fn reader_words(systemd: bool) -> String {
    // PID 1 is still the agent, whose root has the initramfs in it.
    let copy = format!("cp -r /proc/1/root/{PACKED}/. /run/");
    let start = if systemd { String::new() } else { format!("; {START}") };
    format!("\"ltsp.PREINIT_90_READER={copy}{start}\"")
}

pub struct Reader<'machine> {
    machine: &'machine Machine,
    pub hello: Hello,
    image: File,
    asked: Cell<u64>,
    /// Those that nobody has taken yet.
    answers: RefCell<BTreeMap<u64, Answer>>,
    /// Blocks that came in, and those of them that are not as in the image.
    compared: Cell<u64>,
    wrong: RefCell<Vec<u64>>,
}

/// An answer that may take its time.
#[derive(Clone, Copy, Debug)]
pub struct Pending(u64);

impl Machine {
    /// Waits for the reader to speak. The image is the one that was served.
    pub fn reader(&self, image: &Path) -> Result<Reader<'_>> {
        let image = File::open(image).with_context(|| image.display().to_string())?;
        let (console, _) = self.reader_port()?;
        let hello = console.wait("the reader", PATIENCE, |heard| {
            // What one before it has said is nobody's business any more.
            let hello = |line: String| match serde_json::from_str(&line) {
                Ok(Said::Hello(hello)) => Some(hello),
                _ => None,
            };
            std::iter::from_fn(|| heard.control.pop_front()).find_map(hello).map(Ok)
        });
        let hello = hello.map_err(|error| self.with_console(error))?;
        Ok(Reader {
            machine: self,
            hello,
            image,
            asked: Cell::new(0),
            answers: RefCell::default(),
            compared: Cell::new(0),
            wrong: RefCell::default(),
        })
    }
}

impl Reader<'_> {
    pub fn report(&self) -> Result<Report> {
        match self.ask(Question::Report)? {
            Answer::Report(report) => Ok(report),
            other => unexpected(&other),
        }
    }

    pub fn drop_caches(&self) -> Result<()> {
        self.ask(Question::DropCaches).map(drop)
    }

    pub fn tree(&self, path: &str) -> Result<TreeDigest> {
        match self.ask(Question::Tree(path.to_owned()))? {
            Answer::Tree(tree) => Ok(tree),
            other => unexpected(&other),
        }
    }

    pub fn text(&self, path: &str) -> Result<String> {
        match self.ask(Question::Text(path.to_owned()))? {
            Answer::Text(text) => Ok(text),
            other => unexpected(&other),
        }
    }

    /// How the root is, in the keeper's words.
    pub fn status(&self) -> Result<Value> {
        match self.ask(Question::Socket(STATUS.to_owned()))? {
            Answer::Text(text) => serde_json::from_str(&text).with_context(|| text.clone()),
            other => unexpected(&other),
        }
    }

    /// Waits until the keeper's words are so.
    pub fn status_until(
        &self,
        what: &str,
        within: Duration,
        mut wanted: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        let deadline = Instant::now() + within;
        loop {
            let status = self.status()?;
            if wanted(&status) {
                return Ok(status);
            }
            if Instant::now() > deadline {
                let error = anyhow::anyhow!("not {what} after {within:?}: {status:#}");
                return Err(self.machine.with_console(error));
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// How far the copy to memory is, from 0 to 1; 1 only when the root is read from it.
    pub fn copied(&self) -> Result<f64> {
        Ok(copied(&self.status()?))
    }

    /// Waits until so much of the image is in memory.
    pub fn copied_to(&self, share: f64) -> Result<Value> {
        let what = format!("{:.0} % in memory", share * 100.0);
        self.status_until(&what, PATIENCE, |status| copied(status) >= share)
    }

    /// Of two servers the one that is read from now, and the other. They must be counted.
    pub fn serving<'a>(
        &self,
        lab: &Lab,
        two: &'a mut [Nbd; 2],
    ) -> Result<(&'a mut Nbd, &'a mut Nbd)> {
        let [one, other] = two;
        let before = (one.sent(lab)?, other.sent(lab)?);
        self.drop_caches()?;
        self.reads_on()?;
        let sent = (one.sent(lab)? - before.0, other.sent(lab)? - before.1);
        Ok(if sent.0 > sent.1 { (one, other) } else { (other, one) })
    }

    /// Stops every process for a while but PID 1 and the reader.
    pub fn freeze(&self, time: Duration) -> Result<()> {
        self.ask(Question::Freeze(time.as_secs_f64())).map(drop)
    }

    /// Tells PID 1 what systemd(1) lists under "signals"; no program of the root is needed for it.
    pub fn signal_init(&self, signal: i32) -> Result<()> {
        self.ask(Question::SignalInit(signal)).map(drop)
    }

    /// Takes all memory but so much, and keeps it for a while.
    pub fn squeeze(&self, leave_mib: u64, time: Duration) -> Result<()> {
        let end = self.hog(Some(leave_mib << 20), time)?;
        ensure!(end == STILL_THERE, "the hog did not have its memory to the end: {end}");
        Ok(())
    }

    /// Takes memory until the kernel kills who does.
    pub fn run_out_of_memory(&self) -> Result<()> {
        let began = Instant::now();
        let end = self.hog(None, Duration::from_secs(120))?;
        eprintln!("out of memory after {:.1} s: {end}", began.elapsed().as_secs_f64());
        ensure!(end.contains("signal: 9"), "the hog was to be killed for want of memory: {end}");
        Ok(())
    }

    fn hog(&self, leave_bytes: Option<u64>, time: Duration) -> Result<String> {
        match self.ask(Question::Hog { leave_bytes, seconds: time.as_secs_f64() })? {
            Answer::Text(end) => Ok(end),
            other => unexpected(&other),
        }
    }

    /// Reads the whole device past the page cache, which must have the bytes of the image.
    pub fn device_is_the_image(&self) -> Result<()> {
        let Answer::Device(sums) = self.ask(Question::Device)? else { bail!("another answer") };
        let mut piece = vec![0; PIECE.try_into()?];
        let pieces = self.hello.device_bytes.div_ceil(PIECE);
        ensure!(sums.len() as u64 == pieces, "{} of {pieces} pieces were read", sums.len());
        for (number, own) in (0..).zip(&sums) {
            let offset = number * PIECE;
            let length = PIECE.min(self.hello.device_bytes - offset).try_into()?;
            self.image.read_exact_at(&mut piece[..length], offset)?;
            ensure!(sum(&piece[..length]) == *own, "MiB {number} of the root is not the image's");
        }
        Ok(())
    }

    /// Waits until both lines have read again, from the beginning to the end of a few reads.
    pub fn reads_on(&self) -> Result<Report> {
        self.reads_on_within(PATIENCE)
    }

    pub fn reads_on_within(&self, within: Duration) -> Result<Report> {
        const FEW: u64 = 5;
        let (before, deadline) = (self.report()?, Instant::now() + within);
        loop {
            let report = self.report()?;
            let goes_on = |before: &Line, now: &Line| now.reads >= before.reads + FEW;
            if goes_on(&before.device, &report.device) && goes_on(&before.files, &report.files) {
                return Ok(report);
            }
            if Instant::now() > deadline {
                let error = anyhow::anyhow!("the root is not read after {within:?}: {report:?}");
                return Err(self.machine.with_console(error));
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Not one read may have failed so far, and each must have had the image's bytes.
    pub fn never_failed(&self) -> Result<Report> {
        let report = self.report()?;
        for (name, line) in [("device", &report.device), ("files", &report.files)] {
            if line.error_count > 0 {
                let error =
                    anyhow::anyhow!("{} errors: {name}: {:#?}", line.error_count, line.errors);
                return Err(self.machine.with_console(error));
            }
        }
        let (wrong, compared) = (self.wrong.borrow(), self.compared.get());
        ensure!(wrong.is_empty(), "of {compared} blocks these were others': {wrong:?}");
        Ok(report)
    }

    /// Asks without waiting; for what waits for a root that is away.
    pub fn begin(&self, what: Question) -> Result<Pending> {
        let number = self.asked.get() + 1;
        self.asked.set(number);
        let mut line = serde_json::to_string(&Asked { number, what })?;
        line.push('\n');
        ensure!(line.len() < 4096, "the guest's terminal takes no more than 4 KiB at a time");
        let (_, mut port) = self.machine.reader_port()?;
        port.write_all(line.as_bytes()).context("asking the reader")?;
        Ok(Pending(number))
    }

    pub fn answer(&self, pending: Pending, within: Duration) -> Result<Answer> {
        let (console, _) = self.machine.reader_port()?;
        let Pending(wanted) = pending;
        let answer = console.wait("an answer of the reader", within, |heard| {
            while let Some(line) = heard.control.pop_front() {
                match serde_json::from_str(&line) {
                    Ok(Said::Read(blocks)) => {
                        if let Err(error) = self.compare(&blocks) {
                            return Some(Err(error));
                        }
                    }
                    Ok(Said::Answer { number, answer }) => {
                        self.answers.borrow_mut().insert(number, answer);
                    }
                    Ok(Said::Hello(_)) => {
                        return Some(Err(anyhow::anyhow!("the reader has begun anew")));
                    }
                    Err(error) => {
                        return Some(Err(error).with_context(|| format!("not the reader: {line}")));
                    }
                }
            }
            self.answers.borrow_mut().remove(&wanted).map(Ok)
        });
        match answer.map_err(|error| self.machine.with_console(error))? {
            Answer::Failed(words) => bail!("the reader: {words}"),
            answer => Ok(answer),
        }
    }

    fn ask(&self, question: Question) -> Result<Answer> {
        let what = format!("{question:?}");
        let pending = self.begin(question)?;
        self.answer(pending, PATIENCE).context(what)
    }

    fn compare(&self, blocks: &[(u64, u64)]) -> Result<()> {
        let mut content = vec![0; BLOCK.try_into()?];
        for (number, own) in blocks {
            self.image.read_exact_at(&mut content, number * BLOCK)?;
            if sum(&content) != *own {
                self.wrong.borrow_mut().push(*number);
            }
        }
        self.compared.set(self.compared.get() + blocks.len() as u64);
        Ok(())
    }
}

impl Report {
    /// The longest that either line has stood still since, in seconds; one that still does counts
    /// with what it has so far.
    pub fn longest_since(&self, at: f64) -> f64 {
        self.device.longest_since(at, self.at).max(self.files.longest_since(at, self.at))
    }
}

impl Line {
    fn longest_since(&self, at: f64, now: f64) -> f64 {
        let over = self.pauses.iter().filter(|pause| pause.at + pause.seconds > at);
        let over = over.map(|pause| pause.seconds).fold(0.0, f64::max);
        self.reading_since.map_or(over, |since| over.max(now - since))
    }
}

fn copied(status: &Value) -> f64 {
    let number = |path| status.pointer(path).and_then(Value::as_f64);
    if status.pointer("/root/state").and_then(Value::as_str) == Some("in_memory") {
        return 1.0;
    }
    match (number("/copy/done_bytes"), number("/copy/total_bytes")) {
        (Some(done), Some(total)) if total > 0.0 => (done / total).min(0.999),
        _ => 0.0,
    }
}

fn unexpected<T>(answer: &Answer) -> Result<T> {
    bail!("an answer to another question: {answer:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Pause;

    #[test]
    fn a_pause_counts_that_ends_after_the_moment_or_has_not_ended_yet() {
        let pause = |at, seconds| Pause { at, seconds };
        let line = |pauses, reading_since| Line { pauses, reading_since, ..Line::default() };
        let report = |device, files| Report { at: 100.0, device, files };

        let one = line(vec![pause(10.0, 3.0), pause(20.0, 1.0)], None);
        assert_eq!(report(one.clone(), Line::default()).longest_since(0.0), 3.0);
        assert_eq!(report(one.clone(), Line::default()).longest_since(12.0), 3.0);
        assert_eq!(report(one.clone(), Line::default()).longest_since(14.0), 1.0);
        assert_eq!(report(one.clone(), Line::default()).longest_since(30.0), 0.0);
        assert_eq!(report(Line::default(), line(vec![], Some(93.0))).longest_since(30.0), 7.0);
        assert_eq!(report(one, line(vec![], Some(99.5))).longest_since(0.0), 3.0);
    }
}
