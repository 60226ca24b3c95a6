//! `/run/landfall/status`: who connects gets one JSON document, and who says `watch` one a second,
//! if it is root. `landfall status` is its client.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use lexopt::prelude::*;
use socket2::{Domain, SockAddr, Socket, Type};

use super::status::{Status, now};
use super::{Shared, spawn};
use crate::desk::Output;
use crate::error::{Error, Result, WhileDoing};

pub const HELP: &str = "\
landfall status [--json] [--watch]
    What the keeper of this machine's root knows: where the root is read from, how its servers
    are, how far the copy to memory is, the last failover, the lease.
    --json     the document itself, for programs
    --watch    once a second, until ctrl-C
    Exit status 0 if the root can be read, 1 if no server of it can, 2 if no keeper answers
    or none that answers. Only root may ask.
    In a root without this program: /run/landfall/landfall status
    JSON: one object a line, in which members may be added. Sizes are bytes, times seconds since the
    kernel's start as in dmesg; .now is the moment of the answer.
      .root.state        streamed, lost, in_memory, or unknown (not told yet)
      .root.lost_since   null while a server can be read
      .sources[].state   in_use, standby, unreachable, refuses, another_image, unusable, let_go
      .copy.state        waiting, copying, paused, complete, given_up; .copy is null without lazy
      .failovers         new connections after a loss, also to the same server
";

const PATH: &str = "/run/landfall/status";
const WATCH: &str = "watch\n";

/// Clients at a time; a root of its own is no reason to serve more.
const MOST_CLIENTS: usize = 16;

/// Those of them that stay. The others are gone in a moment, so there is always room for one more
/// question.
const MOST_WATCHERS: usize = 12;

/// For a client that takes what it has asked for.
const PATIENCE: Duration = Duration::from_secs(2);

/// For the keeper to answer, which waits for nobody, on a machine that may be busy.
const ANSWERING: Duration = Duration::from_secs(5);

static CLIENTS: AtomicUsize = AtomicUsize::new(0);
static WATCHERS: AtomicUsize = AtomicUsize::new(0);

/// Begins to answer, root alone.
///
/// Ordinary users may not ask. Each question takes a thread and memory, locked, of the process that
/// everybody's files hang on, and a few users who ask for fun would keep out the administrator for
/// whom it is. What it says they mostly know: `/proc/cmdline` has the servers' names, and whether
/// files can be read is seen by reading one. Where monitoring is to know, root writes down what
/// `landfall status --json` says.
pub fn serve(shared: &Shared) -> Result<()> {
    let path = Path::new(PATH);
    let folder = path.parent().unwrap_or(Path::new("/run"));
    fs::create_dir_all(folder).while_doing(|| format!("listening at {PATH}"))?;
    // Of a keeper that was dismissed.
    let _ = fs::remove_file(path);
    serve_at(path, shared)
}

fn serve_at(path: &Path, shared: &Shared) -> Result<()> {
    let doing = || format!("listening at {}", path.display());
    let listener = UnixListener::bind(path).while_doing(doing)?;
    // Whatever the umask made of it; there are no users yet who could be quicker.
    fs::set_permissions(path, Permissions::from_mode(0o600)).while_doing(doing)?;
    let shared = shared.clone();
    spawn("status socket", move || {
        for client in listener.incoming() {
            let Ok(client) = client else {
                // Out of descriptors or memory, for a moment.
                thread::sleep(Duration::from_millis(100));
                continue;
            };
            let Some(place) = Place::take(&CLIENTS, MOST_CLIENTS) else { continue };
            let shared = shared.clone();
            // Who finds no thread is hung up on, like who finds no place.
            let _ = thread::Builder::new().name("status".into()).spawn(move || {
                let _place = place;
                // Who has gone does not want to know any more.
                let _ = answer(client, &shared);
            });
        }
    })
}

/// One of so many at a time, given back when it is dropped.
#[derive(Debug)]
struct Place(&'static AtomicUsize);

impl Place {
    fn take(taken: &'static AtomicUsize, most: usize) -> Option<Self> {
        let place = Self(taken);
        (taken.fetch_add(1, Ordering::Relaxed) < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn answer(mut client: UnixStream, shared: &Shared) -> io::Result<()> {
    /// Who wants to watch says so at once.
    const ASKING: Duration = Duration::from_millis(200);
    client.set_read_timeout(Some(ASKING))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut asked = [0; WATCH.len()];
    let watching = client.read_exact(&mut asked).is_ok() && asked == *WATCH.as_bytes();
    let place = if watching { Place::take(&WATCHERS, MOST_WATCHERS) } else { None };
    if watching && place.is_none() {
        return Ok(());
    }
    loop {
        let mut status = shared.status().clone();
        status.version = env!("CARGO_PKG_VERSION").to_owned();
        status.now = now();
        let mut line = serde_json::to_vec(&status).map_err(io::Error::other)?;
        line.push(b'\n');
        client.write_all(&line)?;
        if !watching {
            return Ok(());
        }
        thread::sleep(Duration::from_secs(1));
    }
}

/// `landfall status`
pub fn show(parser: &mut lexopt::Parser) -> Result<Output, lexopt::Error> {
    let (mut json, mut watch) = (false, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("json") => json = true,
            Short('w') | Long("watch") => watch = true,
            other => return Err(other.unexpected()),
        }
    }
    match ask(Path::new(PATH), ANSWERING, json, watch) {
        Ok(output) => Ok(output),
        Err(error) => {
            let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            let _ = writeln!(io::stderr(), "landfall: {error}{hint}");
            Ok(Output { text: String::new(), status: ExitCode::from(2) })
        }
    }
}

fn ask(path: &Path, patience: Duration, json: bool, watch: bool) -> Result<Output> {
    let doing = || format!("asking the keeper at {}", path.display());
    let failed = |error| no_answer(doing(), error, patience);
    let mut keeper = connect(path, patience).map_err(failed)?;
    if watch {
        keeper.write_all(WATCH.as_bytes()).map_err(failed)?;
    } else {
        keeper.shutdown(std::net::Shutdown::Write).map_err(failed)?;
    }
    let mut answer = BufReader::new(keeper);
    let mut screen = io::stdout();
    loop {
        let mut line = String::new();
        if answer.read_line(&mut line).map_err(failed)? == 0 {
            let why = if watch {
                "it has ended, or too many watch it already"
            } else {
                "it has ended, or too many ask it at once"
            };
            return Err(Error::refused(doing(), why));
        }
        let status: Status = serde_json::from_str(&line)
            .map_err(|error| Error::invalid(doing(), error.to_string()))?;
        let text = if json { line } else { status.text() };
        if !watch {
            let status = ExitCode::from(u8::from(status.root.lost_since.is_some()));
            return Ok(Output { text, status });
        }
        let clear = if screen.is_terminal() && !json { "\x1b[H\x1b[J" } else { "" };
        if write!(screen, "{clear}{text}").and_then(|()| screen.flush()).is_err() {
            // A closed pipe is the reader's business.
            return Ok(Output { text: String::new(), status: ExitCode::SUCCESS });
        }
    }
}

/// A keeper that does not accept has a queue, and connect(2) waits for a place in it for as long as
/// a send may take (unix(7)): std's own way has no time for that.
fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let keeper = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    keeper.set_write_timeout(Some(patience))?;
    keeper.set_read_timeout(Some(patience))?;
    keeper.connect(&SockAddr::unix(path)?)?;
    Ok(UnixStream::from(OwnedFd::from(keeper)))
}

fn no_answer(doing: String, error: io::Error, patience: Duration) -> Error {
    match error.kind() {
        // Time that is up for a socket is an operation that would block.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::silence(doing, patience)
            .with_hint("the keeper hangs, or somebody has stopped it"),
        io::ErrorKind::PermissionDenied => Error::new(doing, error).with_hint("only root may ask"),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::new(doing, error)
            .with_hint("this machine was not booted by Landfall, or its keeper has ended"),
        _ => Error::new(doing, error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn said(error: &Error) -> String {
        format!("{error}; {}", error.hint().unwrap_or_default())
    }

    /// Scripts that watch and are never ended: the administrator still gets an answer.
    #[test]
    fn watchers_leave_room_for_a_question_and_ordinary_users_have_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status");
        serve_at(&path, &Shared::default()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let patience = Duration::from_secs(60);
        let watch = || {
            let mut watcher = connect(&path, patience).unwrap();
            watcher.write_all(WATCH.as_bytes()).unwrap();
            let mut answer = BufReader::new(watcher);
            let mut line = String::new();
            let length = answer.read_line(&mut line).unwrap();
            (length > 0).then_some(answer)
        };
        let watchers: Vec<_> = (0..MOST_CLIENTS).map(|_| watch()).collect();
        assert_eq!(watchers.iter().flatten().count(), MOST_WATCHERS);
        let answer = ask(&path, patience, true, false).unwrap();
        assert!(answer.text.contains("\"failovers\":0"), "{}", answer.text);

        // Their places are free as soon as it is seen that they have gone.
        drop(watchers);
        let deadline = Instant::now() + patience;
        while watch().is_none() {
            assert!(Instant::now() < deadline, "places of watchers who have gone are not free");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Not for ever in somebody's terminal, and not for ever in their monitoring.
    #[test]
    fn a_keeper_that_hangs_is_said_to_hang() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status");
        let keeper = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        keeper.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        keeper.listen(0).unwrap();
        let patience = Duration::from_millis(200);
        let expected = format!(
            "asking the keeper at {}: no answer for 0.2 s; the keeper hangs, or somebody has stopped it",
            path.display()
        );
        // The first waits in the queue for a word, and the next for a place in the queue.
        let mut queue = Vec::new();
        for place in 0..3 {
            let error = ask(&path, patience, false, false).map(|_| ()).unwrap_err();
            assert_eq!(said(&error), expected, "place {place}");
            queue.extend(connect(&path, patience));
        }
        assert!(queue.len() < 3, "the queue has no end");
    }

    #[test]
    fn a_machine_without_a_keeper_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status");
        let error = || ask(&path, ANSWERING, false, false).map(|_| ()).unwrap_err();
        let expected = |why| {
            let asking = format!("asking the keeper at {}", path.display());
            format!(
                "{asking}: {why}; this machine was not booted by Landfall, or its keeper has ended"
            )
        };
        assert_eq!(said(&error()), expected("No such file or directory"));
        drop(UnixListener::bind(&path).unwrap());
        assert_eq!(said(&error()), expected("Connection refused"));
    }
}
