//! Gets the text of lts.conf, wherever it is, and says so when it is not where it should be.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::syntax::{Place, Problem, Severity};
use super::{Evaluation, Origin};
use crate::directives::Tree;
use crate::fetch::{Resolve, Url, persistently};

/// An lts.conf for a thousand nodes has some hundred KiB; what is larger is an image.
const LIMIT: usize = 4 << 20;

/// For another host, after the first one's silence: whoever is up answers sooner.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// A configuration file's text and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub text: String,
    pub source: Source,
    /// Of the bytes; those of the words come with the evaluation.
    pub problems: Vec<Problem>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Fetched(Url),
    Image(PathBuf),
    /// There is no configuration anywhere; the text is empty.
    Nowhere,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fetched(url) => write!(f, "{url}"),
            Self::Image(path) => write!(f, "{}", path.display()),
            Self::Nowhere => f.write_str("nowhere"),
        }
    }
}

/// Fetches the first of `candidates` that is there and not empty, else reads `builtin`.
///
/// Never fails: without a configuration a node still boots, and says on its console that it has
/// none. An address that does not answer is tried again until `patience` is over, shared by all
/// candidates; one that answers "no such file" is not. After that a host that has already been
/// asked is not asked for its other files, and another one gets a second. An empty file counts as
/// missing (C90): it is what a server leaves behind that ran out of disk.
pub fn load(
    candidates: &[Url],
    builtin: &Path,
    patience: Duration,
    resolve: Resolve<'_>,
) -> Loaded {
    let deadline = Instant::now() + patience;
    let mut reasons = Vec::new();
    for (number, url) in candidates.iter().enumerate() {
        let now = Instant::now();
        let mut deadline = deadline;
        if let Some(host) = url.host().filter(|_| now >= deadline) {
            if candidates.iter().take(number).any(|earlier| earlier.host() == Some(host)) {
                reasons.push(format!("{url}: not asked, {host} has had its time"));
                continue;
            }
            deadline = now + LEAST_PATIENCE;
        }
        match persistently(url, LIMIT, resolve, deadline) {
            Ok(bytes) if bytes.trim_ascii().is_empty() => reasons.push(format!("{url}: empty")),
            Ok(bytes) => {
                return decode(bytes, Source::Fetched(url.clone()));
            }
            Err(error) => {
                let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
                reasons.push(format!("{error}{hint}"));
            }
        }
    }
    let image = read_image(builtin);
    let then = match &image {
        Some(_) => format!("using the image's own {}", builtin.display()),
        None => {
            let builtin = builtin.display();
            format!("there is no {builtin} in the image either, so there are no settings")
        }
    };
    match (reasons.split_last(), &image) {
        (Some((last, others)), _) => {
            for reason in others {
                log::warn!(target: "config", "{reason}");
            }
            log::warn!(target: "config", "{last}; {then}");
        }
        // Nobody asked for anything else.
        (None, Some(_)) => log::info!(target: "config", "{then}"),
        (None, None) => log::info!(target: "config", "no server to ask, {then}"),
    }
    image.unwrap_or(Loaded { text: String::new(), source: Source::Nowhere, problems: Vec::new() })
}

/// Says on the console what `loaded` means for this machine, and what is wrong with it.
pub fn announce(loaded: &Loaded, evaluation: &Evaluation) {
    /// The console scrolls; who reads ten has enough to mend.
    const MOST: usize = 10;

    let source = &loaded.source;
    let problems = loaded.problems.iter().chain(&evaluation.problems);
    for problem in problems.clone().take(MOST) {
        // Names of sections are quoted in them, and a terminal obeys what it is sent.
        let text = problem.to_string().replace(char::is_control, "?");
        log::warn!(target: "config", "{source}: {text}");
    }
    let count = problems.count();
    if count > MOST {
        log::warn!(target: "config", "{source}: {} more problems", count.saturating_sub(MOST));
    }
    if *source != Source::Nowhere {
        let of_file = evaluation
            .settings
            .iter()
            .filter(|(_, setting)| matches!(setting.origin, Origin::File(_)));
        let sections: Vec<_> = evaluation
            .sections
            .iter()
            .map(|name| format!("[{}]", name.replace(char::is_control, "?")))
            .collect();
        let sections = match sections.is_empty() {
            true => "no section is for this machine".to_owned(),
            false => sections.join(", "),
        };
        let count = of_file.count();
        let plural = if count == 1 { "" } else { "s" };
        log::info!(target: "config", "{count} setting{plural} from {source}: {sections}");
    }
}

/// The copy in the root image, for when nothing else was found before the root was there.
pub fn load_from_root(root: &Path) -> Option<Loaded> {
    let bytes = match Tree::open(root).and_then(|tree| tree.read("/etc/lts.conf")) {
        Ok(bytes) => bytes?,
        Err(error) => {
            log::warn!(target: "config", "{error}");
            return None;
        }
    };
    (!bytes.trim_ascii().is_empty()).then(|| decode(bytes, Source::Image("/etc/lts.conf".into())))
}

fn read_image(path: &Path) -> Option<Loaded> {
    match std::fs::read(path) {
        Ok(bytes) if bytes.trim_ascii().is_empty() => None,
        Ok(bytes) => Some(decode(bytes, Source::Image(path.to_owned()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            log::warn!(target: "config", "reading {}: {error}", path.display());
            None
        }
    }
}

/// Everything later works on text; what is not UTF-8 becomes U+FFFD, and is reported.
fn decode(bytes: Vec<u8>, source: Source) -> Loaded {
    match String::from_utf8(bytes) {
        Ok(text) => Loaded { text, source, problems: Vec::new() },
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let before = error.as_bytes().get(..good).unwrap_or_default();
            let line = before.iter().filter(|byte| **byte == b'\n').count().saturating_add(1);
            let in_line = before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
            let column = String::from_utf8_lossy(in_line).chars().count().saturating_add(1);
            Loaded {
                text: String::from_utf8_lossy(error.as_bytes()).into_owned(),
                source,
                problems: vec![Problem {
                    place: Place { file: 0, line, column },
                    text: "this is not UTF-8; such bytes are lost".into(),
                    severity: Severity::Warning,
                    help: None,
                }],
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Result};

    fn nobody(name: &str) -> Result<Vec<std::net::IpAddr>> {
        Err(Error::refused(format!("looking up {name}"), "no such name"))
    }

    fn file(path: &Path) -> Url {
        Url::File(path.to_owned())
    }

    #[test]
    fn the_first_file_with_something_in_it_counts_alone_c90_c91() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("empty"), " \n").unwrap();
        std::fs::write(at("server"), "[default]\nA=server\n").unwrap();
        std::fs::write(at("image"), "[default]\nB=image\n").unwrap();
        let cases: &[(&[&str], &str, &str, &str)] = &[
            (&["server"], "image", "[default]\nA=server\n", "server"),
            (&["missing", "server"], "image", "[default]\nA=server\n", "server"),
            (&["empty"], "image", "[default]\nB=image\n", "image"),
            (&["missing"], "image", "[default]\nB=image\n", "image"),
            (&[], "image", "[default]\nB=image\n", "image"),
            (&["missing"], "empty", "", "nowhere"),
            (&[], "missing", "", "nowhere"),
        ];
        for (candidates, builtin, text, source) in cases {
            let urls: Vec<_> = candidates.iter().map(|name| file(&at(name))).collect();
            let loaded = load(&urls, &at(builtin), Duration::ZERO, &nobody);
            assert_eq!(loaded.text, *text, "{candidates:?}, {builtin}");
            assert!(loaded.source.to_string().ends_with(source), "{candidates:?}, {builtin}");
        }
    }

    #[test]
    fn a_silent_host_is_given_up_once_for_all_its_files() {
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = silent.local_addr().unwrap();
        let names = ["a", "b", "c"];
        let urls = names.map(|name| format!("tftp://{at}/{name}").parse().unwrap());
        let began = Instant::now();
        let loaded = load(&urls, Path::new("/nowhere"), Duration::from_millis(700), &nobody);
        assert_eq!(loaded.source, Source::Nowhere);
        assert!((700..1200).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
        silent.set_nonblocking(true).unwrap();
        let mut packet = [0; 100];
        while silent.recv_from(&mut packet).is_ok() {
            assert!(packet.starts_with(b"\0\x01/a\0"), "{packet:?}");
        }
    }

    #[test]
    fn another_host_is_asked_although_the_first_one_took_all_the_time() {
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let other = std::net::UdpSocket::bind("127.0.0.2:0").unwrap();
        let urls = [&silent, &other]
            .map(|socket| format!("tftp://{}/a", socket.local_addr().unwrap()).parse().unwrap());
        let server = std::thread::spawn(move || {
            let (_, client) = other.recv_from(&mut [0; 100]).unwrap();
            other.send_to(b"\0\x03\0\x01[default]\n", client).unwrap();
        });
        let loaded = load(&urls, Path::new("/nowhere"), Duration::from_millis(300), &nobody);
        server.join().unwrap();
        assert_eq!(loaded.text, "[default]\n");
    }

    #[test]
    fn bytes_that_are_no_text_cost_themselves_and_are_reported() {
        let loaded = decode(b"[default]\nA=\"na\xefve\"\nB=1\n".to_vec(), Source::Nowhere);
        assert_eq!(loaded.text, "[default]\nA=\"na\u{fffd}ve\"\nB=1\n");
        assert_eq!((loaded.problems[0].place.line, loaded.problems[0].place.column), (2, 6));
    }
}
