//! The root image of a plan: a folder, a squashfs, or one of which nothing is known.
//!
//! Everything that is asked of it is remembered: answers, because a plan for a thousand nodes asks
//! the same a thousand times; questions, because without an image the plan depends on them; and what
//! could not be looked at, because an ordinary user may not read everything in an image's folder,
//! and a plan that is wrong for that reason must say so.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use super::squashfs::Squashfs;
use crate::directives::{Kind, Tree, View};
use crate::error::{Error, Result, WhileDoing};

/// Bytes of file contents that are kept: the configuration files of an image have some hundred KiB.
const MOST_KEPT: usize = 64 << 20;

/// As the kernel's own bound (`MAXSYMLINKS`).
const MOST_LINKS: u32 = 40;

pub struct Image {
    source: Source,
    /// As it was given; none if nothing was.
    name: Option<String>,
    answers: RefCell<Answers>,
    questions: RefCell<BTreeSet<String>>,
    /// Path and reason.
    unreadable: RefCell<BTreeMap<String, String>>,
}

enum Source {
    Unknown,
    Folder(Tree),
    Squashfs(Box<Squashfs>),
}

#[derive(Default)]
struct Answers {
    contents: HashMap<String, Option<Vec<u8>>>,
    bytes: usize,
    kinds: HashMap<String, Option<Kind>>,
    names: HashMap<String, Vec<String>>,
    lengths: HashMap<String, u64>,
    exists: HashMap<String, bool>,
    executable: HashMap<String, bool>,
}

impl Image {
    /// One in which nothing is known to be.
    pub fn unknown() -> Self {
        Self::of(Source::Unknown, None)
    }

    /// # Errors
    /// `path` is neither a folder nor a squashfs that can be read.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let doing = || format!("looking at the image {name}");
        let source = match fs::metadata(path).while_doing(doing)?.is_dir() {
            true => Source::Folder(Tree::open(path)?),
            false => Source::Squashfs(Box::new(Squashfs::open(path).map_err(|error| {
                error.with_hint("an image is given as a folder or as a squashfs")
            })?)),
        };
        Ok(Self::of(source, Some(name)))
    }

    fn of(source: Source, name: Option<String>) -> Self {
        Self {
            source,
            name,
            answers: RefCell::default(),
            questions: RefCell::default(),
            unreadable: RefCell::default(),
        }
    }

    /// As it was given; none if nothing is known of it.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What a copy to memory takes; known of a squashfs only.
    pub fn size_bytes(&self) -> Option<u64> {
        match &self.source {
            Source::Squashfs(squashfs) => Some(squashfs.size_bytes()),
            Source::Folder(_) | Source::Unknown => None,
        }
    }

    /// `squashfs 4.0 (zstd)`.
    pub fn description(&self) -> String {
        match &self.source {
            Source::Squashfs(squashfs) => squashfs.description(),
            Source::Folder(_) => "a folder".to_owned(),
            Source::Unknown => "unknown".to_owned(),
        }
    }

    /// Paths that have been asked about so far.
    pub fn questions(&self) -> Vec<String> {
        self.questions.borrow().iter().cloned().collect()
    }

    /// What could not be looked at so far: path and reason.
    pub fn unreadable(&self) -> Vec<(String, String)> {
        self.unreadable.borrow().iter().map(|(path, why)| (path.clone(), why.clone())).collect()
    }

    fn view(&self) -> &dyn View {
        match &self.source {
            Source::Unknown => &Nothing,
            Source::Folder(tree) => tree,
            Source::Squashfs(squashfs) => squashfs.as_ref(),
        }
    }

    fn ask<T: Clone>(
        &self,
        path: &str,
        answers: impl Fn(&mut Answers) -> &mut HashMap<String, T>,
        look: impl FnOnce(&dyn View) -> Result<T>,
    ) -> Result<T> {
        if let Some(answer) = answers(&mut self.answers.borrow_mut()).get(path) {
            return Ok(answer.clone());
        }
        self.questions.borrow_mut().insert(path.to_owned());
        let answer = look(self.view()).inspect_err(|error| self.note(path, error))?;
        answers(&mut self.answers.borrow_mut()).insert(path.to_owned(), answer.clone());
        Ok(answer)
    }

    fn note(&self, path: &str, error: &Error) {
        self.unreadable.borrow_mut().insert(path.to_owned(), error.cause().to_string());
    }

    /// A question that has no errors says no for what it may not see as well: finds that out.
    fn note_if_hidden(&self, path: &str) {
        let mut at = path.to_owned();
        for _ in 0..MOST_LINKS {
            match self.view().kind(&at) {
                Ok(Some(Kind::Link(target))) => {
                    let folder = at.rsplit_once('/').map(|(folder, _)| folder).unwrap_or_default();
                    at = match target.starts_with('/') {
                        true => target,
                        false => format!("{folder}/{target}"),
                    };
                }
                Ok(_) => return,
                Err(error) => return self.note(path, &error),
            }
        }
    }
}

impl View for Image {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let contents = self.ask(path, |answers| &mut answers.contents, |view| view.read(path))?;
        let mut answers = self.answers.borrow_mut();
        let length = contents.as_ref().map_or(0, Vec::len);
        answers.bytes = answers.bytes.saturating_add(length);
        if answers.bytes > MOST_KEPT {
            answers.contents.clear();
            answers.bytes = 0;
        }
        Ok(contents)
    }

    fn kind(&self, path: &str) -> Result<Option<Kind>> {
        self.ask(path, |answers| &mut answers.kinds, |view| view.kind(path))
    }

    fn exists(&self, path: &str) -> bool {
        let look = |view: &dyn View| {
            let there = view.exists(path);
            if !there {
                self.note_if_hidden(path);
            }
            Ok(there)
        };
        self.ask(path, |answers| &mut answers.exists, look).unwrap_or_default()
    }

    fn is_executable(&self, path: &str) -> bool {
        let look = |view: &dyn View| {
            let executable = view.is_executable(path);
            if !executable && !view.exists(path) {
                self.note_if_hidden(path);
            }
            Ok(executable)
        };
        self.ask(path, |answers| &mut answers.executable, look).unwrap_or_default()
    }

    fn names(&self, path: &str) -> Result<Vec<String>> {
        // Folders have no order of their own, and a plan is the same every time.
        let sorted = |view: &dyn View| {
            let mut names = view.names(path)?;
            names.sort_unstable();
            Ok(names)
        };
        self.ask(path, |answers| &mut answers.names, sorted)
    }

    fn length(&self, path: &str) -> Result<u64> {
        self.ask(path, |answers| &mut answers.lengths, |view| view.length(path))
    }
}

/// A root without anything in it.
struct Nothing;

impl View for Nothing {
    fn read(&self, _: &str) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn kind(&self, _: &str) -> Result<Option<Kind>> {
        Ok(None)
    }

    fn exists(&self, _: &str) -> bool {
        false
    }

    fn is_executable(&self, _: &str) -> bool {
        false
    }

    fn names(&self, _: &str) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// Root may read everything, so the reader has to be somebody else, if it is not already.
    fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    #[test]
    fn answers_are_those_of_the_folder_and_questions_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("etc")).unwrap();
        fs::write(folder.path().join("etc/b"), "x").unwrap();
        fs::write(folder.path().join("etc/a"), "x").unwrap();
        let image = Image::open(folder.path()).unwrap();
        for _ in 0..2 {
            assert_eq!(image.names("/etc").unwrap(), ["a", "b"]);
            assert_eq!(image.read("/etc/a").unwrap().as_deref(), Some(&b"x"[..]));
            assert_eq!(image.kind("/etc/c").unwrap(), None);
            assert!(image.exists("/etc/b") && !image.exists("/etc/c"));
            assert!(!image.is_executable("/etc/b"));
        }
        assert_eq!(image.questions(), ["/etc", "/etc/a", "/etc/b", "/etc/c"]);
        assert_eq!(image.unreadable(), []);
    }

    /// Somebody's plan must not be silently wrong because they may not read `/root` of the image.
    #[test]
    fn what_may_not_be_seen_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let hidden = folder.path().join("root");
        fs::create_dir(&hidden).unwrap();
        fs::write(hidden.join("file"), "x").unwrap();
        symlink("/root/file", folder.path().join("link")).unwrap();
        fs::set_permissions(&hidden, fs::Permissions::from_mode(0o000)).unwrap();
        let image = Image::open(folder.path()).unwrap();
        assert!(image.read("/root/file").is_err() || is_root());
        for path in ["/root/file", "/link"] {
            assert_eq!(image.exists(path), is_root(), "{path}");
            assert!(!image.is_executable(path), "{path}");
        }
        let denied = |path: &str| (path.to_owned(), "Permission denied".to_owned());
        let expected = if is_root() { vec![] } else { vec![denied("/link"), denied("/root/file")] };
        assert_eq!(image.unreadable(), expected);
        fs::set_permissions(&hidden, fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn what_is_no_image_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        let error = Image::open(&file).map(drop).unwrap_err();
        assert!(error.to_string().contains("not a squashfs"), "{error}");
        assert!(Image::open(&folder.path().join("nowhere")).is_err());
    }
}
