//! The copy against servers that do what those of the field rarely do.
//!
//! `cargo test -p landfall --lib scripted -- --ignored`

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::root::identity::Sample;

const KIB: usize = 1 << 10;

/// A server of one image, with a map, that answers reads as it was told to.
struct Scripted {
    image: Vec<u8>,
    /// Length and state (3: a hole of zeroes) of the extents of the whole image.
    map: Vec<(u32, u32)>,
    /// Asked for it, it hangs up.
    chokes_on_its_map: bool,
    /// No answer: it hangs up.
    read: Box<dyn Fn(&Scripted, Request) -> Vec<u8> + Send + Sync>,
    /// It knows no export of that name, at the moment.
    refuses: AtomicBool,
    reads: AtomicUsize,
    handshakes: AtomicUsize,
}

#[derive(Clone, Copy)]
struct Request {
    cookie: u64,
    offset: u64,
    length: u32,
    /// How many reads came before.
    nth: usize,
}

impl Scripted {
    fn new(
        image: &[u8],
        read: impl Fn(&Scripted, Request) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self {
            image: image.to_vec(),
            map: Vec::new(),
            chokes_on_its_map: false,
            read: Box::new(read),
            refuses: AtomicBool::new(false),
            reads: AtomicUsize::new(0),
            handshakes: AtomicUsize::new(0),
        }
    }

    fn start(self) -> (Arc<Self>, Source) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = Arc::new(self);
        let serving = Arc::clone(&server);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (serving, stream) = (Arc::clone(&serving), stream.unwrap());
                thread::spawn(move || serving.serve(stream));
            }
        });
        let peer = Peer { address: (Ipv4Addr::LOCALHOST, address.port()).into(), name: None };
        (server, Source { peer, names: vec!["img".to_owned()] })
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        stream.write_all(b"NBDMAGICIHAVEOPT\0\x03")?;
        read::<4>(&mut stream)?;
        loop {
            let option = read::<16>(&mut stream)?;
            let option_number = u32::from_be_bytes(option[8..12].try_into().unwrap());
            let length = u32::from_be_bytes(option[12..].try_into().unwrap());
            io::copy(&mut (&mut stream).take(length.into()), &mut io::sink())?;
            let mut reply = |kind: u32, data: &[u8]| {
                let mut bytes = 0x0003_e889_0455_65a9u64.to_be_bytes().to_vec();
                for word in [option_number, kind, data.len() as u32] {
                    bytes.extend(word.to_be_bytes());
                }
                bytes.extend(data);
                stream.write_all(&bytes)
            };
            match option_number {
                2 => return Ok(()),
                7 if self.refuses.load(Ordering::Relaxed) => reply(1 << 31 | 6, b"")?,
                7 => {
                    let size = (self.image.len() as u64).to_be_bytes();
                    reply(3, &[&b"\0\0"[..], &size, b"\0\x03"].concat())?;
                    reply(1, b"")?;
                    break;
                }
                8 => reply(1, b"")?,
                10 if self.map.is_empty() => reply(1, b"")?,
                10 => {
                    reply(4, b"\0\0\0\x07base:allocation")?;
                    reply(1, b"")?;
                }
                _ => reply(1 << 31 | 1, b"")?,
            }
        }
        loop {
            let request = read::<28>(&mut stream)?;
            let cookie = u64::from_be_bytes(request[8..16].try_into().unwrap());
            let offset = u64::from_be_bytes(request[16..24].try_into().unwrap());
            let length = u32::from_be_bytes(request[24..].try_into().unwrap());
            match request[7] {
                0 => {
                    let nth = self.reads.fetch_add(1, Ordering::Relaxed);
                    let answer = (self.read)(self, Request { cookie, offset, length, nth });
                    if answer.is_empty() {
                        return Ok(());
                    }
                    stream.write_all(&answer)?;
                }
                7 if !self.chokes_on_its_map => {
                    let mut bytes = 7u32.to_be_bytes().to_vec();
                    for (length, state) in &self.map {
                        bytes.extend(length.to_be_bytes());
                        bytes.extend(state.to_be_bytes());
                    }
                    stream.write_all(&chunk(true, 5, cookie, &bytes))?;
                }
                _ => return Ok(()),
            }
        }
    }

    fn part(&self, request: Request) -> &[u8] {
        let start = request.offset as usize;
        &self.image[start..start + request.length as usize]
    }

    /// What a good server says: data and holes, by pages.
    fn truth(&self, request: Request) -> Vec<u8> {
        let mut answer = Vec::new();
        for (place, page) in self.part(request).chunks(4096).enumerate() {
            let at = (request.offset + place as u64 * 4096).to_be_bytes();
            let length = (page.len() as u32).to_be_bytes();
            answer.extend(match page.iter().all(|byte| *byte == 0) {
                true => chunk(false, 2, request.cookie, &[&at[..], &length].concat()),
                false => chunk(false, 1, request.cookie, &[&at[..], page].concat()),
            });
        }
        answer.extend(chunk(true, 0, request.cookie, b""));
        answer
    }

    /// Rubbish for all of it, and then the word that it is rubbish.
    fn rubbish(&self, request: Request) -> Vec<u8> {
        let at = request.offset.to_be_bytes();
        let bytes = vec![0xee; request.length as usize];
        let mut answer = chunk(false, 1, request.cookie, &[&at[..], &bytes].concat());
        answer.extend(chunk(true, 0x8001, request.cookie, b"\0\0\0\x05\0\0"));
        answer
    }
}

fn read<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn chunk(last: bool, kind: u16, cookie: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x66\x8e\x33\xef".to_vec();
    bytes.extend(u16::from(last).to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

/// Data, and holes of which every other is a whole piece of the copy.
fn image() -> Vec<u8> {
    (0..8 * 256 * KIB)
        .map(|at| if (at / (96 * KIB)).is_multiple_of(3) { (at / 7) as u8 | 1 } else { 0 })
        .collect()
}

fn job(sources: &[Source], image: &[u8], offset: u64) -> Job {
    let region = Region { offset, length: image.len() as u64 - offset };
    let bytes = |at: usize| image[at..at + 4096].to_vec();
    let sample = |at: usize| Sample { offset: at as u64, bytes: bytes(at) };
    let samples = vec![sample(offset as usize), sample(image.len() - 4096)];
    let identity = Identity { size_bytes: image.len() as u64, samples };
    Job { sources: sources.to_vec(), identity, region, first: None }
}

fn contents(copying: Copying, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; length as usize];
    copying.finish().unwrap().read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

const LONG: Duration = Duration::from_secs(20);

/// What is rubbish must not show through where the right answer, ours or a mirror's, has holes.
#[test]
#[ignore = "needs root, for a file system of its own"]
fn nothing_of_a_failed_answer_stays() {
    let image = image();
    for offset in [0, 34 * 512] {
        let (bad, first) = Scripted::new(&image, |server, request| {
            // Samples are good; so are answers to every third read.
            match request.length > 4096 && request.nth % 3 != 0 {
                true => server.rubbish(request),
                false => server.truth(request),
            }
        })
        .start();
        let (_, mirror) = Scripted::new(&image, Scripted::truth).start();
        for sources in [vec![first.clone()], vec![first, mirror]] {
            let job = job(&sources, &image, offset);
            let length = job.region.length;
            let copying = start(job, Arc::new(FullSpeed), Refusals::Drop).unwrap();
            copying.wait(LONG).expect("it takes too long").unwrap();
            assert!(contents(copying, length) == image[offset as usize..], "from {offset} on");
        }
        assert!(bad.reads.load(Ordering::Relaxed) > 20);
    }
}

/// Nothing but a server's coming back with the image ends the wait, and nothing is fetched twice.
#[test]
#[ignore = "needs root, for a file system of its own"]
fn a_server_that_refuses_for_a_while_is_asked_again() {
    const LATER: usize = 6;
    let image = image();
    for refusals in [Refusals::AskAgain, Refusals::Drop] {
        let was_restarted = AtomicBool::new(false);
        let (server, source) = Scripted::new(&image, move |server, request| {
            // In the middle it is started again, before its exports are there.
            if request.nth >= 8 && !was_restarted.swap(true, Ordering::Relaxed) {
                server.refuses.store(true, Ordering::Relaxed);
            }
            match server.refuses.load(Ordering::Relaxed) {
                true => Vec::new(),
                false => server.truth(request),
            }
        })
        .start();
        let job = job(&[source], &image, 0);
        let copying = start(job, Arc::new(FullSpeed), refusals).unwrap();
        let outcome = copying.wait(Duration::from_secs(2));
        if refusals == Refusals::Drop {
            let error = outcome.expect("it waits").unwrap_err();
            assert!(error.to_string().contains("unknown export"), "{error}");
            continue;
        }
        assert!(outcome.is_none(), "{outcome:?}");
        let progress = copying.progress();
        assert!(progress.done_bytes > 0 && !progress.sources[0].is_dropped, "{progress:?}");
        assert!(progress.trouble().unwrap().contains("unknown export"), "{progress:?}");
        let reads = server.reads.load(Ordering::Relaxed);
        assert!(server.handshakes.load(Ordering::Relaxed) < 4 * LATER, "it asks too often");
        server.refuses.store(false, Ordering::Relaxed);
        copying.wait(LONG).expect("it takes too long").unwrap();
        // Two samples for each new connection, and no piece that was there.
        let new = server.reads.load(Ordering::Relaxed) - reads;
        assert!(new <= 8 + 2 * 4, "{new} reads after {reads}");
        assert!(contents(copying, image.len() as u64) == image);
    }
}

/// Believed, such a map blanks files.
#[test]
#[ignore = "needs root, for a file system of its own"]
fn a_map_that_lies_is_not_used() {
    let image = image();
    let mut server = Scripted::new(&image, Scripted::truth);
    // Right at the front, and wrong up to the end, where the image has data.
    let half = image.len() as u32 / 2;
    server.map = vec![(half, 0), (half, 3)];
    let (_, source) = server.start();
    let mut job = job(&[source], &image, 0);
    let at = image.len() as u64 / 4 * 3 / 4096 * 4096;
    let at = (at..).step_by(4096).find(|at| image[*at as usize] != 0).unwrap();
    let bytes = image[at as usize..at as usize + 4096].to_vec();
    job.identity.samples.push(Sample { offset: at, bytes });
    let allocated = allocated(&job.sources, &job.identity, job.region, LONG);
    assert_eq!(allocated, None, "its word is worth nothing before the copy either");
    let copying = start(job, Arc::new(FullSpeed), Refusals::Drop).unwrap();
    copying.wait(LONG).expect("it takes too long").unwrap();
    assert_eq!(copying.progress().holes_bytes, 0);
    assert!(contents(copying, image.len() as u64) == image);
}

/// It saves time, and is not worth more than the copy.
#[test]
#[ignore = "needs root, for a file system of its own"]
fn a_map_that_cannot_be_had_is_done_without() {
    let image = image();
    let mut server = Scripted::new(&image, Scripted::truth);
    server.map = vec![(image.len() as u32, 0)];
    server.chokes_on_its_map = true;
    let (_, source) = server.start();
    let copying =
        start(job(&[source], &image, 0), Arc::new(FullSpeed), Refusals::AskAgain).unwrap();
    copying.wait(LONG).expect("it asks for ever").unwrap();
    assert!(contents(copying, image.len() as u64) == image);
}

/// A pace that wants each chunk to be there before the next is asked for.
struct OneByOne;

impl Pace for OneByOne {
    fn turn(&self, _: u32, in_flight: u64) -> Turn {
        match in_flight > 0 {
            true => Turn::After(Duration::from_millis(20)),
            false => Turn::Now,
        }
    }
}

/// Most images end in free space. Nothing is asked for behind the last of the data, and nothing has
/// to be.
#[test]
#[ignore = "needs root, for a file system of its own"]
fn an_image_that_ends_in_zeroes_is_copied_to_its_end() {
    let mut image = image();
    let half = image.len() / 2;
    image[half..].fill(0);
    let mut server = Scripted::new(&image, Scripted::truth);
    server.map = vec![(half as u32, 0), (half as u32, 3)];
    let (_, source) = server.start();
    let job = job(&[source], &image, 0);
    let copying = start(job, Arc::new(OneByOne), Refusals::AskAgain).unwrap();
    copying.wait(LONG).expect("it never ends").unwrap();
    assert_eq!(copying.progress().done_bytes, image.len() as u64);
    assert!(contents(copying, image.len() as u64) == image);
}

/// Over connections that stay, nobody is asked who he is: the bytes have to say it.
#[test]
#[ignore = "needs root, for a file system of its own"]
fn an_image_that_is_written_over_in_mid_copy_is_not_handed_on() {
    let image = image();
    for refusals in [Refusals::Drop, Refusals::AskAgain] {
        let (server, source) = Scripted::new(&image, |server, request| {
            // From the middle on it is another image.
            match request.length > 4096 && request.offset as usize >= server.image.len() / 2 {
                true => {
                    let bytes = vec![0xee; request.length as usize];
                    let at = request.offset.to_be_bytes();
                    chunk(true, 1, request.cookie, &[&at[..], &bytes].concat())
                }
                false => server.truth(request),
            }
        })
        .start();
        let copying = start(job(&[source], &image, 0), Arc::new(FullSpeed), refusals).unwrap();
        copying.wait(LONG).expect("it takes too long").unwrap();
        let error = copying.finish().unwrap_err();
        assert!(error.to_string().contains("it is another one in the page at byte"), "{error}");
        assert!(server.reads.load(Ordering::Relaxed) >= 8);
    }
}

/// As small a window as a pace of the keeper may leave.
struct Narrow;

impl Pace for Narrow {
    fn turn(&self, length: u32, in_flight: u64) -> Turn {
        match in_flight > 0 && in_flight + u64::from(length) > 512 * KIB as u64 {
            true => Turn::After(Duration::from_millis(50)),
            false => Turn::Now,
        }
    }
}

/// A mirror must not hold the places of all.
#[test]
#[ignore = "needs root, for a file system of its own"]
fn a_mirror_that_is_slow_or_hangs_costs_no_more_than_what_it_would_have_brought() {
    let image = image();
    for (case, seconds) in [("slow", 2), ("hung", 60)] {
        let (_, bad) = Scripted::new(&image, move |server, request| {
            if request.length > 4096 {
                thread::sleep(Duration::from_secs(seconds));
            }
            server.truth(request)
        })
        .start();
        let (_, quick) = Scripted::new(&image, Scripted::truth).start();
        let began = Instant::now();
        let job = job(&[bad, quick], &image, 0);
        let copying = start(job, Arc::new(Narrow), Refusals::AskAgain).unwrap();
        copying.wait(LONG).expect("it takes too long").unwrap();
        let took = began.elapsed();
        assert!(took < Duration::from_secs(3), "{case}: {took:?}");
        assert!(contents(copying, image.len() as u64) == image);
    }
}

/// A pace that leaves the places of servers to somebody else, for as long as it says so.
#[derive(Default)]
struct Polite {
    leaves: AtomicBool,
}

impl Pace for Polite {
    fn turn(&self, _: u32, _: u64) -> Turn {
        Turn::Now
    }

    fn may_connect(&self) -> bool {
        !self.leaves.load(Ordering::Relaxed)
    }
}

/// A server that was restarted has all its places free; the first is not for the copy.
#[test]
#[ignore = "needs root, for a file system of its own"]
fn nobody_connects_while_somebody_else_needs_the_place() {
    let image = image();
    let pace = Arc::new(Polite::default());
    let told = Arc::clone(&pace);
    let was_restarted = AtomicBool::new(false);
    let (server, source) = Scripted::new(&image, move |server, request| {
        if request.nth >= 8 && !was_restarted.swap(true, Ordering::Relaxed) {
            told.leaves.store(true, Ordering::Relaxed);
        }
        if told.leaves.load(Ordering::Relaxed) {
            return Vec::new();
        }
        server.truth(request)
    })
    .start();
    let copying =
        start(job(&[source], &image, 0), Arc::clone(&pace) as _, Refusals::AskAgain).unwrap();
    assert!(copying.wait(Duration::from_secs(1)).is_none(), "it has the image already");
    let handshakes = server.handshakes.load(Ordering::Relaxed);
    assert!(copying.wait(Duration::from_secs(3)).is_none());
    assert_eq!(server.handshakes.load(Ordering::Relaxed), handshakes, "it takes a place");
    pace.leaves.store(false, Ordering::Relaxed);
    copying.wait(LONG).expect("it takes too long").unwrap();
    assert!(contents(copying, image.len() as u64) == image);
}

/// One bad sector: the rest is fetched first, and then the copy ends, with its memory.
#[test]
#[ignore = "needs root, for a file system of its own"]
fn a_block_that_nobody_can_read_ends_the_copy() {
    const BAD: u64 = 2 * 256 * KIB as u64;
    let image = image();
    for refusals in [Refusals::AskAgain, Refusals::Drop] {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let bad = move |server: &Scripted, request: Request| {
            if request.length <= 4096 {
                return server.truth(request);
            }
            log.lock().unwrap().push(request.offset);
            match request.offset == BAD {
                true => server.rubbish(request),
                false => server.truth(request),
            }
        };
        let (_, first) = Scripted::new(&image, bad.clone()).start();
        let (_, mirror) = Scripted::new(&image, bad).start();
        let job = job(&[first, mirror], &image, 0);
        let copying = start(job, Arc::new(FullSpeed), refusals).unwrap();
        let error = copying.wait(LONG).expect("it goes on for ever").unwrap_err().to_string();
        let expected = "no server can read bytes 524288 to 786431 of it";
        assert!(error.contains(expected) || refusals == Refusals::Drop, "{error}");
        let done = copying.progress().done_bytes;
        assert_eq!(done, image.len() as u64 - 256 * KIB as u64, "all the others are there");
        let asked = asked.lock().unwrap();
        let times = asked.iter().filter(|at| **at == BAD).count();
        assert!(refusals == Refusals::Drop || times == 6, "three times each: {asked:?}");
        let last_good = asked.iter().rposition(|at| *at != BAD).unwrap();
        let before = asked[..last_good].iter().filter(|at| **at == BAD).count();
        assert!(before <= 2, "it is the last that is asked for: {asked:?}");
    }
}
