//! Gets the text of lts.conf and of what it includes, wherever they are, and says so when it is not
//! where it should be.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Evaluation, Origin, Problem, Reading, Text};
use crate::directives::Tree;
use crate::error::{Error, Result, WhileDoing};
use crate::fetch::{Resolve, Url, persistently};

/// Of all files together. An lts.conf for a thousand nodes has some hundred KiB; what is larger is
/// an image. A desk takes no more than a node.
pub const LIMIT: usize = 4 << 20;

/// For all that is included: who asks has just been served.
const PATIENCE_WITH_INCLUDES: Duration = Duration::from_secs(30);

/// For another host, after the first one's silence: whoever is up answers sooner.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// A configuration file's text and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Named as the source prints itself.
    pub text: Text,
    pub source: Source,
}

impl Loaded {
    fn of(bytes: Vec<u8>, source: Source) -> Self {
        Self { text: Text::of_bytes(source.to_string(), bytes), source }
    }
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
                return Loaded::of(bytes, Source::Fetched(url.clone()));
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
    image.unwrap_or_else(|| Loaded::of(Vec::new(), Source::Nowhere))
}

/// Gets what the files of one configuration include.
pub struct Includer<'a> {
    /// What has been read, by its name.
    known: Vec<(String, Source)>,
    /// The root of images' files; none: that of the agent itself.
    root: Option<&'a Tree>,
    /// In bytes.
    room: usize,
    deadline: Instant,
    resolve: Resolve<'a>,
}

impl<'a> Includer<'a> {
    pub fn new(first: &Loaded, root: Option<&'a Tree>, resolve: Resolve<'a>) -> Self {
        Self {
            known: vec![(first.text.name.clone(), first.source.clone())],
            root,
            room: LIMIT.saturating_sub(first.text.text.len()),
            deadline: Instant::now() + PATIENCE_WITH_INCLUDES,
            resolve,
        }
    }

    /// The file that `path` means in the file `from`; without its text if it has been there before.
    pub fn get(&mut self, from: &Text, path: &str) -> Result<Text> {
        let doing = || format!("including {path}");
        let from = self.known.iter().find(|(name, _)| *name == from.name);
        let (_, from) = from.ok_or_else(|| Error::refused(doing(), "nobody knows from where"))?;
        let source = from.join(path).while_doing(doing)?;
        let name = source.to_string();
        if self.known.iter().any(|(known, _)| *known == name) {
            return Ok(Text { name, text: String::new() });
        }
        let bytes = self.read(&source).while_doing(doing)?;
        self.room = self.room.saturating_sub(bytes.len());
        self.known.push((name.clone(), source));
        Ok(Text::of_bytes(name, bytes))
    }

    fn read(&self, source: &Source) -> Result<Vec<u8>> {
        match (source, self.root) {
            (Source::Fetched(url), _) => persistently(url, self.room, self.resolve, self.deadline),
            (Source::Image(path), None) => {
                persistently(&Url::File(path.clone()), self.room, self.resolve, self.deadline)
            }
            (Source::Image(path), Some(root)) => {
                let doing = || format!("reading {} of the root image", path.display());
                let bytes = root.read(&path.to_string_lossy())?;
                let bytes =
                    bytes.ok_or_else(|| Error::refused(doing(), "there is no such file"))?;
                match bytes.len() <= self.room {
                    true => Ok(bytes),
                    false => {
                        Err(Error::refused(doing(), "all files together have more than 4 MiB"))
                    }
                }
            }
            (Source::Nowhere, _) => Err(Error::refused("reading nothing", "it is nowhere")),
        }
    }
}

impl Source {
    /// What `path` means in a file from here.
    fn join(&self, path: &str) -> Result<Self> {
        match self {
            Self::Fetched(url) => url.join(path).map(Self::Fetched),
            Self::Image(file) => Ok(match Url::File(file.clone()).join(path)? {
                Url::File(path) => Self::Image(path),
                url => Self::Fetched(url),
            }),
            Self::Nowhere => Err(Error::refused("looking beside it", "it is nowhere")),
        }
    }
}

/// Says on the console what the files mean for this machine, and what is wrong with them.
pub fn announce(source: &Source, reading: &Reading, evaluation: &Evaluation) {
    announce_problems(reading, reading.problems.iter().chain(&evaluation.problems).collect());
    if *source == Source::Nowhere {
        return;
    }
    let of_file =
        evaluation.settings.iter().filter(|(_, setting)| matches!(setting.origin, Origin::File(_)));
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
    let more = match reading.files.len() {
        0 | 1 => String::new(),
        2 => " and 1 included file".to_owned(),
        files => format!(" and {} included files", files.saturating_sub(1)),
    };
    log::info!(target: "config", "{count} setting{plural} from {source}{more}: {sections}");
}

/// Says what is wrong, in the order of the files.
pub fn announce_problems(reading: &Reading, mut problems: Vec<&Problem>) {
    /// The console scrolls; who reads ten has enough to mend.
    const MOST: usize = 10;

    problems.sort_by_key(|problem| problem.place);
    for problem in problems.iter().take(MOST) {
        let file = reading.name_of(problem.place);
        let help = problem.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        // Names of sections are quoted in them, and a terminal obeys what it is sent.
        let line = format!("{file}: {problem}{help}").replace(char::is_control, "?");
        log::warn!(target: "config", "{line}");
    }
    let more = problems.len().saturating_sub(MOST);
    if more > 0 {
        let file = reading.name_of(super::Place::default());
        log::warn!(target: "config", "{file}: {more} more problems");
    }
}

/// The copy in the root image, for when nothing else was found before the root was there.
pub fn load_from_root(root: &Tree) -> Option<Loaded> {
    let path = "/etc/lts.conf";
    match root.read(path) {
        Ok(Some(bytes)) if !bytes.trim_ascii().is_empty() => {
            Some(Loaded::of(bytes, Source::Image(path.into())))
        }
        Ok(_) => None,
        Err(error) => {
            log::warn!(target: "config", "{error}");
            None
        }
    }
}

fn read_image(path: &Path) -> Option<Loaded> {
    match std::fs::read(path) {
        Ok(bytes) if bytes.trim_ascii().is_empty() => None,
        Ok(bytes) => Some(Loaded::of(bytes, Source::Image(path.to_owned()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            log::warn!(target: "config", "reading {}: {error}", path.display());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Place;

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
            assert_eq!(loaded.text.text, *text, "{candidates:?}, {builtin}");
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
        assert_eq!(loaded.text.text, "[default]\n");
    }

    #[test]
    fn bytes_that_are_no_text_cost_themselves_and_are_reported() {
        let loaded = Loaded::of(b"[default]\nA=\"na\xefve\"\nB=1\n".to_vec(), Source::Nowhere);
        assert_eq!(loaded.text.text, "[default]\nA=\"na\u{fffd}ve\"\nB=1\n");
        let problems = Reading::of_text(&loaded.text.text).problems;
        assert_eq!((problems[0].place.line, problems[0].place.column), (2, 6));
        assert_eq!(problems[0].text, "this is not UTF-8; such bytes are lost");
    }

    /// A reading of the file `name` of `folder` as the machine makes it, in `root` or outside.
    fn read(folder: &Path, name: &str, root: Option<&Tree>) -> Reading {
        let loaded = match root {
            Some(root) => load_from_root(root).unwrap(),
            None => load(&[file(&folder.join(name))], Path::new("/"), Duration::ZERO, &nobody),
        };
        let mut includer = Includer::new(&loaded, root, &nobody);
        Reading::of(loaded.text.clone(), &mut |from, path| includer.get(from, path))
    }

    #[test]
    fn what_a_file_includes_is_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("etc/racks")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(at(name), text).unwrap();
        write(
            "etc/lts.conf",
            "include racks/7.conf\n[default]\nA=1\ninclude racks/../racks/7.conf\n",
        );
        write("etc/racks/7.conf", "include \"../lts.conf\"\ninclude 8.conf\n[n7]\nB=2\n");
        write("etc/racks/8.conf", "[n8]\nC=3\ninclude ../../../etc/missing.conf\n");
        let tree = Tree::open(folder.path()).unwrap();
        for root in [None, Some(&tree)] {
            let reading = read(folder.path(), "etc/lts.conf", root);
            let names: Vec<_> = reading.document.sections.iter().map(|s| s.name.as_str()).collect();
            assert_eq!(names, ["default", "n7", "n8"], "{root:?}");
            let ends = ["etc/lts.conf", "etc/racks/7.conf", "etc/racks/8.conf"];
            for (text, end) in reading.files.iter().zip(ends) {
                assert!(text.name.ends_with(end), "{}", text.name);
            }
            assert_eq!(reading.problems.len(), 1, "{:?}", reading.problems);
            let problem = &reading.problems[0];
            let Place { file, line, column } = problem.place;
            assert_eq!((file, line, column), (2, 3, 9), "{problem}");
            assert!(problem.text.starts_with("including ../../../etc/missing.conf: "), "{problem}");
        }
    }

    #[test]
    fn files_that_are_too_much_together_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        let half = format!("include etc/b\ninclude b\n#{}\n", "x".repeat(LIMIT / 2));
        for name in ["lts.conf", "b"] {
            std::fs::write(folder.path().join("etc").join(name), &half).unwrap();
        }
        let tree = Tree::open(folder.path()).unwrap();
        for root in [None, Some(&tree)] {
            let reading = read(folder.path(), "etc/lts.conf", root);
            assert_eq!(reading.files.len(), 1, "{root:?}");
            assert_eq!(reading.problems.len(), 2, "{:?}", reading.problems);
        }
    }

    #[test]
    fn what_a_served_file_includes_is_asked_for_once_and_beside_it() {
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = server.local_addr().unwrap();
        let asked = std::thread::spawn(move || {
            let mut asked = Vec::new();
            while asked.len() < 2 {
                let mut packet = [0; 100];
                let (_, client) = server.recv_from(&mut packet).unwrap();
                // A request; its answer's acknowledgement has another number.
                if packet[1] == 1 {
                    let path = packet[2..].split(|byte| *byte == 0).next().unwrap();
                    asked.push(String::from_utf8(path.to_vec()).unwrap());
                    server
                        .send_to(b"\0\x03\0\x01[n7]\nA=1\ninclude ../lts.conf\n", client)
                        .unwrap();
                }
            }
            asked
        });
        let text = "include x/7.conf\ninclude /x/7.conf\ninclude //a/../7.conf\n";
        let url: Url = format!("tftp://{at}/lts.conf").parse().unwrap();
        let loaded = Loaded::of(text.into(), Source::Fetched(url));
        let mut includer = Includer::new(&loaded, None, &nobody);
        let reading = Reading::of(loaded.text.clone(), &mut |from, path| includer.get(from, path));
        assert_eq!(asked.join().unwrap(), ["/x/7.conf", "/7.conf"]);
        let names: Vec<_> = reading.files.iter().map(|file| file.name.clone()).collect();
        let expected = ["lts.conf", "x/7.conf", "7.conf"].map(|name| format!("tftp://{at}/{name}"));
        assert_eq!(names, expected);
    }
}
