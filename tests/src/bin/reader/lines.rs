//! The two lines that are read: the root's device, block by block in no order, and the files of the
//! root, one after the other.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use landfall_tests::reading::{BLOCK, Line, PAUSE, Pause, Report, Said, Trouble, sum};
use rustix::fs::{Advice, OFlags, fadvise, major, minor};

use crate::clock;

/// Between two reads of the device, each of which costs little: what is slept through of a pause is
/// no more than that.
const REST: Duration = Duration::from_millis(20);
/// Between two reads of files, for each of which an emulated machine unpacks a block.
const LONG_REST: Duration = Duration::from_millis(50);
/// The harness hears of the blocks that were read when there are so many.
const BATCH: usize = 50;
/// More would not tell more.
const ERRORS_KEPT: usize = 20;

/// The root's device. What it is made of may change while it is open.
pub struct Device {
    pub path: String,
    pub bytes: u64,
    /// Reads past the page cache.
    file: File,
}

impl Device {
    /// What a file system is mounted from.
    pub fn of(mounted: &str) -> io::Result<Self> {
        let number = fs::metadata(mounted)?.dev();
        let about = format!("/sys/dev/block/{}:{}/uevent", major(number), minor(number));
        let about = fs::read_to_string(about)?;
        let name = about.lines().find_map(|line| line.strip_prefix("DEVNAME="));
        let path = format!("/dev/{}", name.ok_or_else(|| io::Error::other("no DEVNAME"))?);
        let flags = OFlags::DIRECT.bits() as i32;
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open(&path)?;
        let bytes = file.seek(SeekFrom::End(0))?;
        Ok(Self { path, bytes, file })
    }

    /// Fills `aligned` from there; what is at the end of the device may be shorter.
    pub fn read(&self, aligned: &mut Aligned, offset: u64) -> io::Result<usize> {
        let left = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let buffer = aligned.bytes();
        let wanted = buffer.len().min(left);
        self.file.read_exact_at(&mut buffer[..wanted], offset)?;
        Ok(wanted)
    }
}

/// Memory that begins where the kernel wants it to for a read past the page cache.
pub struct Aligned {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    pub fn new(length: u64) -> Self {
        let (length, block) = (length as usize, BLOCK as usize);
        let memory = vec![0; length + block];
        let start = memory.as_ptr().align_offset(block);
        Self { memory, start, length }
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }
}

/// What has been seen so far.
pub struct Lines {
    device: Mutex<Line>,
    files: Mutex<Line>,
}

impl Lines {
    pub fn start(device: Arc<Device>, top: &str, say: Sender<Said>) -> Arc<Self> {
        let lines = Arc::new(Self { device: Mutex::default(), files: Mutex::default() });
        let own = Arc::clone(&lines);
        thread::spawn(move || follow_device(&device, &own.device, &say));
        let (own, top) = (Arc::clone(&lines), PathBuf::from(top));
        thread::spawn(move || follow_files(&top, &own.files));
        lines
    }

    pub fn report(&self) -> Report {
        Report {
            at: clock::now(),
            device: lock(&self.device).clone(),
            files: lock(&self.files).clone(),
        }
    }
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

fn follow_device(device: &Device, line: &Mutex<Line>, say: &Sender<Said>) {
    let blocks = device.bytes / BLOCK;
    let (mut buffer, mut batch) = (Aligned::new(BLOCK), Vec::new());
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    loop {
        // xorshift64: all over the device, and the same blocks each time.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let block = state % blocks.max(1);
        let what = || format!("block {block} of {}", device.path);
        if timed(line, what, || device.read(&mut buffer, block * BLOCK)).is_some() {
            batch.push((block, sum(buffer.bytes())));
        }
        if batch.len() >= BATCH {
            let _ = say.send(Said::Read(std::mem::take(&mut batch)));
        }
        thread::sleep(REST);
    }
}

fn follow_files(top: &Path, line: &Mutex<Line>) {
    let mut buffer = vec![0; 64 * 1024];
    let mut pending = Vec::new();
    loop {
        let Some(path) = pending.pop() else {
            pending.push(top.to_path_buf());
            thread::sleep(LONG_REST);
            continue;
        };
        let what = || path.display().to_string();
        let found = timed(line, what, || look(&path));
        match found {
            Some(Found::Directory(inside)) => pending.extend(inside),
            Some(Found::File(mut file)) => {
                while let Some(1..) = timed(line, what, || file.read(&mut buffer)) {
                    thread::sleep(LONG_REST);
                }
                // The next time it must come from the device again.
                let _ = fadvise(&file, 0, None, Advice::DontNeed);
            }
            Some(Found::Other) => {}
            None => thread::sleep(LONG_REST),
        }
    }
}

enum Found {
    Directory(Vec<PathBuf>),
    File(File),
    Other,
}

fn look(path: &Path) -> io::Result<Found> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_dir() {
        let inside = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
        return Ok(Found::Directory(inside.collect::<io::Result<_>>()?));
    }
    if meta.is_file() { File::open(path).map(Found::File) } else { Ok(Found::Other) }
}

/// Does it, and writes down how long it took and what went wrong.
fn timed<T>(
    line: &Mutex<Line>,
    what: impl Fn() -> String,
    read: impl FnOnce() -> io::Result<T>,
) -> Option<T> {
    let at = clock::now();
    lock(line).reading_since = Some(at);
    let result = read();
    let seconds = clock::now() - at;
    let mut line = lock(line);
    line.reading_since = None;
    line.reads += 1;
    if seconds > PAUSE {
        line.pauses.push(Pause { at, seconds });
    }
    result
        .map_err(|error| {
            line.error_count += 1;
            if line.errors.len() < ERRORS_KEPT {
                line.errors.push(Trouble { at, what: format!("{}: {error}", what()) });
            }
        })
        .ok()
}
