//! What a root will look like: an image, and what differs from it.
//!
//! Paths are followed here as the kernel will follow them once the root is `/`, through links of the
//! image and through those that are decided but not made: `/lib/x` and `/usr/lib/x` are one file
//! where `/lib` leads to `usr/lib`. Every method that changes something does to the model what the
//! method of the same name of [`Tree`](super::Tree) does to a real root, and fails where it would.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;

use rustix::io::Errno;

use super::View;
use crate::directives::tree::{
    DEEPEST, INTO_ITSELF, Kind, MOST_ENTRIES, check_length, check_name, split,
};
use crate::error::{Cause, Error, Result};

/// What has become of one path that no link is part of.
#[derive(Clone, Debug)]
enum Node {
    File {
        contents: Contents,
        executable: bool,
    },
    Link(String),
    /// Made by us: what is in it are other nodes, and nothing of the image.
    Directory,
    Absent,
}

#[derive(Clone, Debug)]
enum Contents {
    New(Vec<u8>),
    /// Those of another file of the image, which is read when somebody asks.
    Of(String),
}

/// Why a path leads nowhere.
#[derive(Debug)]
pub enum Stop {
    Errno(Errno),
    /// The image cannot be read.
    Image(Error),
}

impl From<Stop> for Cause {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Errno(errno) => errno.into(),
            Stop::Image(error) => error.into(),
        }
    }
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Image(error)
    }
}

type Step<T> = std::result::Result<T, Stop>;

/// As many as the kernel follows in one path.
const MOST_LINKS: usize = 40;

/// Where what is at a place comes from.
pub enum Origin {
    /// This path of the image.
    Image(String),
    File {
        contents: Vec<u8>,
        executable: bool,
    },
    Link(String),
    /// Made by us, or with something of ours in it.
    Directory,
}

pub struct Model<'v> {
    image: &'v dyn View,
    nodes: BTreeMap<String, Node>,
    /// What the image has said already: each question may go over the network, and every path
    /// begins with the same few directories. The image does not change while decisions are made.
    seen: RefCell<BTreeMap<String, Option<Kind>>>,
}

/// Where a path leads: a path without links, and what is there. Its directory is there in any case.
pub struct Place {
    pub path: String,
    pub kind: Option<Kind>,
}

impl<'v> Model<'v> {
    pub fn over(image: &'v dyn View) -> Self {
        Self { image, nodes: BTreeMap::new(), seen: RefCell::default() }
    }

    /// Follows `path` to its end, all links included.
    pub fn find(&self, path: &str) -> Step<Place> {
        check_length(path)?;
        let mut rest: Vec<Cow<'_, str>> = path.rsplit('/').map(Cow::Borrowed).collect();
        let mut at = String::new();
        let mut links: usize = 0;
        while let Some(name) = rest.pop() {
            let above = at.len();
            match &*name {
                "" | "." => continue,
                ".." => {
                    at.truncate(at.rfind('/').unwrap_or(0));
                    continue;
                }
                name => {
                    at.push('/');
                    at += name;
                }
            }
            match self.look(&at)? {
                Some(Kind::Directory) => {}
                Some(Kind::Link(target)) => {
                    links = links.saturating_add(1);
                    if links > MOST_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    at.truncate(if target.starts_with('/') { 0 } else { above });
                    rest.extend(target.rsplit('/').map(|name| Cow::Owned(name.to_owned())));
                }
                kind if rest.is_empty() => return Ok(Place { path: at, kind }),
                Some(_) => return Err(Errno::NOTDIR.into()),
                None => return Err(Errno::NOENT.into()),
            }
        }
        let path = if at.is_empty() { "/".to_owned() } else { at };
        Ok(Place { path, kind: Some(Kind::Directory) })
    }

    /// Like [`Model::find`], but for a link at the end.
    pub fn find_last(&self, path: &str) -> Step<Place> {
        check_length(path)?;
        if path == "/" {
            return self.find(path);
        }
        let (parent, name) = split(path)?;
        let parent = self.find_folder(parent)?;
        let path = below(&parent, name);
        Ok(Place { kind: self.look(&path)?, path })
    }

    /// Where what is at `path` comes from, a last link not followed.
    pub fn origin(&self, path: &str) -> Step<Option<Origin>> {
        let Place { path, kind } = self.find_last(path)?;
        if kind.is_none() {
            return Ok(None);
        }
        let inside = below(&path, "");
        Ok(Some(match self.nodes.get(&path) {
            Some(Node::File { contents: Contents::Of(path), .. }) => Origin::Image(path.clone()),
            Some(Node::File { contents: Contents::New(contents), executable }) => {
                Origin::File { contents: contents.clone(), executable: *executable }
            }
            Some(Node::Link(target)) => Origin::Link(target.clone()),
            Some(Node::Directory | Node::Absent) => Origin::Directory,
            None if self
                .nodes
                .range(inside.clone()..)
                .next()
                .is_some_and(|(path, _)| path.starts_with(&inside)) =>
            {
                Origin::Directory
            }
            None => Origin::Image(path),
        }))
    }

    pub fn contents(&self, path: &str) -> Result<Option<Vec<u8>>> {
        match self.nodes.get(path) {
            Some(Node::File { contents: Contents::New(bytes), .. }) => Ok(Some(bytes.clone())),
            Some(Node::File { contents: Contents::Of(path), .. }) => self.image.read(path),
            Some(_) => Ok(None),
            None => self.image.read(path),
        }
    }

    /// Bytes of a file that [`Model::find`] has found.
    pub fn length(&self, path: &str) -> Result<u64> {
        match self.nodes.get(path) {
            Some(Node::File { contents: Contents::New(bytes), .. }) => Ok(bytes.len() as u64),
            Some(Node::File { contents: Contents::Of(path), .. }) => self.image.length(path),
            Some(_) => Ok(0),
            None => self.image.length(path),
        }
    }

    /// The names in a directory that [`Model::find`] has found.
    pub fn names(&self, folder: &str) -> Result<Vec<String>> {
        let mut names = match self.nodes.get(folder) {
            Some(_) => Vec::new(),
            None => self.image.names(folder)?,
        };
        let first = below(folder, "");
        let nodes = self.nodes.range(first.clone()..);
        for (path, node) in nodes.take_while(|(path, _)| path.starts_with(&first)) {
            let Some(name) = path.get(first.len()..).filter(|name| !name.contains('/')) else {
                continue;
            };
            names.retain(|other| other != name);
            if !matches!(node, Node::Absent) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Gives the place of the file that was written.
    pub fn write(&mut self, path: &str, contents: &[u8], mode: u32) -> Step<String> {
        let found = match self.find(path) {
            Ok(Place { path, kind: Some(Kind::File { executable }) }) => Some((path, executable)),
            Ok(Place { kind: Some(Kind::Directory), .. }) => return Err(Errno::ISDIR.into()),
            Ok(_) | Err(Stop::Errno(Errno::NOENT)) => None,
            Err(stop) => return Err(stop),
        };
        let Some((place, executable)) = found else { return self.replace(path, contents, mode) };
        let contents = Contents::New(contents.to_owned());
        self.nodes.insert(place.clone(), Node::File { contents, executable });
        Ok(place)
    }

    pub fn replace(&mut self, path: &str, contents: &[u8], mode: u32) -> Step<String> {
        let contents = Contents::New(contents.to_owned());
        self.put(path, Node::File { contents, executable: mode & 0o111 != 0 })
    }

    pub fn link(&mut self, path: &str, target: &str) -> Step<String> {
        check_length(target)?;
        self.put(path, Node::Link(target.to_owned()))
    }

    pub fn make_directory(&mut self, path: &str) -> Step<String> {
        let place = self.make_way(path)?;
        if self.look(&place)?.is_none() {
            self.nodes.insert(place.clone(), Node::Directory);
            return Ok(place);
        }
        self.find_folder(path)
    }

    pub fn remove(&mut self, path: &str) -> Step<String> {
        let Place { path, kind } = self.find_last(path)?;
        if kind == Some(Kind::Directory) {
            return Err(Errno::ISDIR.into());
        }
        self.nodes.insert(path.clone(), Node::Absent);
        Ok(path)
    }

    /// Gives everything that could not be copied.
    pub fn copy_tree(&mut self, from: &str, to: &str) -> Vec<Error> {
        let failed =
            |stop| vec![Error::new(format!("copying {from} of the new root to {to}"), stop)];
        let source = match self.find_folder(from) {
            Ok(source) => source,
            Err(stop) => return failed(stop),
        };
        let target = match self.find_folder(to) {
            Err(Stop::Errno(Errno::NOENT)) => self.make_directory(to),
            result => result,
        };
        let target = match target {
            Ok(target) => target,
            Err(stop) => return failed(stop),
        };
        let mut copying =
            Copying { target: target.clone(), entries: 0, full: false, errors: Vec::new() };
        self.copy_folder(&source, &target, from, to, 1, &mut copying);
        copying.errors
    }

    /// `source` and `target` are places; `from` and `to` are what the operator calls them.
    fn copy_folder(
        &mut self,
        source: &str,
        target: &str,
        from: &str,
        to: &str,
        depth: usize,
        copying: &mut Copying,
    ) {
        let doing = |from: &str| format!("copying {from} of the new root");
        if source == copying.target {
            return copying.errors.push(Error::refused(doing(from), INTO_ITSELF));
        }
        let mut names = match self.names(source) {
            Ok(names) => names,
            Err(error) => return copying.errors.push(error),
        };
        names.sort();
        for name in names {
            if copying.full {
                return;
            }
            copying.entries = copying.entries.saturating_add(1);
            if copying.entries > MOST_ENTRIES || depth > DEEPEST {
                copying.full = true;
                let why =
                    format!("there are more than {MOST_ENTRIES}, or {DEEPEST} levels of them");
                return copying.errors.push(Error::refused(doing(from), why));
            }
            let (source, target) = (below(source, &name), below(target, &name));
            let (from, to) = (below(from, &name), below(to, &name));
            let copied = match self.look(&source) {
                Ok(Some(Kind::Directory)) => self.enter(&target, &to).map(|target| {
                    let depth = depth.saturating_add(1);
                    self.copy_folder(&source, &target, &from, &to, depth, copying);
                }),
                Ok(Some(Kind::Link(leads_to))) => self.place(target, Node::Link(leads_to)),
                Ok(Some(Kind::File { executable })) => {
                    let contents = match self.nodes.get(&source) {
                        Some(Node::File { contents, .. }) => contents.clone(),
                        _ => Contents::Of(source),
                    };
                    self.place(target, Node::File { contents, executable })
                }
                Ok(Some(Kind::Other) | None) => Ok(()),
                Err(stop) => Err(stop),
            };
            if let Err(stop) = copied {
                copying.errors.push(Error::new(doing(&from), stop));
            }
        }
    }

    /// The directory to which `to` leads; else `target`, its place, becomes one.
    fn enter(&mut self, target: &str, to: &str) -> Step<String> {
        match self.find_folder(to) {
            Err(Stop::Errno(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {
                self.place(target.to_owned(), Node::Directory)?;
                Ok(target.to_owned())
            }
            result => result,
        }
    }

    /// Puts a node in place of what is there.
    fn put(&mut self, path: &str, node: Node) -> Step<String> {
        let place = self.make_way(path)?;
        self.place(place.clone(), node)?;
        Ok(place)
    }

    fn place(&mut self, place: String, node: Node) -> Step<()> {
        if self.look(&place)? == Some(Kind::Directory) {
            return Err(Errno::ISDIR.into());
        }
        self.nodes.insert(place, node);
        Ok(())
    }

    /// Makes the directories above `path` that are missing; gives its place.
    fn make_way(&mut self, path: &str) -> Step<String> {
        check_length(path)?;
        let (mut parent, name) = split(path)?;
        // Innermost first.
        let mut missing = Vec::new();
        let mut folder = loop {
            match self.find_folder(parent) {
                Err(Stop::Errno(Errno::NOENT)) if parent != "/" => {
                    let (above, last) = split(parent)?;
                    missing.push(last);
                    parent = above;
                }
                result => break result?,
            }
        };
        for last in missing.into_iter().rev() {
            let place = below(&folder, last);
            // A link to nowhere is there, and is no directory.
            if self.look(&place)?.is_some() {
                return Err(Errno::NOENT.into());
            }
            self.nodes.insert(place.clone(), Node::Directory);
            folder = place;
        }
        Ok(below(&folder, name))
    }

    fn find_folder(&self, path: &str) -> Step<String> {
        match self.find(path)? {
            Place { path, kind: Some(Kind::Directory) } => Ok(path),
            Place { kind: Some(_), .. } => Err(Errno::NOTDIR.into()),
            Place { kind: None, .. } => Err(Errno::NOENT.into()),
        }
    }

    /// What is at a place.
    fn look(&self, place: &str) -> Step<Option<Kind>> {
        check_name(place.rsplit('/').next().unwrap_or_default())?;
        if let Some(node) = self.nodes.get(place) {
            return Ok(match node {
                Node::File { executable, .. } => Some(Kind::File { executable: *executable }),
                Node::Link(target) => Some(Kind::Link(target.clone())),
                Node::Directory => Some(Kind::Directory),
                Node::Absent => None,
            });
        }
        // The image may have something of this name below what has become a directory of ours.
        let folder = place.rsplit_once('/').map_or("", |(folder, _)| folder);
        match self.nodes.get(folder) {
            Some(Node::Directory) => Ok(None),
            _ => self.look_into_the_image(place),
        }
    }

    fn look_into_the_image(&self, place: &str) -> Step<Option<Kind>> {
        if let Some(kind) = self.seen.borrow().get(place) {
            return Ok(kind.clone());
        }
        let kind = self.image.kind(place)?;
        self.seen.borrow_mut().insert(place.to_owned(), kind.clone());
        Ok(kind)
    }
}

struct Copying {
    /// Place of the directory to which everything goes.
    target: String,
    entries: usize,
    /// A bound was reached.
    full: bool,
    errors: Vec<Error>,
}

fn below(folder: &str, name: &str) -> String {
    format!("{}/{name}", folder.trim_end_matches('/'))
}
