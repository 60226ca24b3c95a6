//! Changes to a root that are decided, and not made.
//!
//! A family looks at the root and at what the families before it have decided through one
//! [`Draft`], and decides in the same words in which files are written. Booting, the changes are
//! carried out on the new root; at a desk, `landfall plan` prints them. That both come from the same
//! code is what keeps the plan honest.

#[cfg(test)]
mod agreement;
mod model;

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::tree::{Kind, Owner, Tree};
use crate::error::{Error, Result};
use model::{Model, Origin, Place, Stop};

/// A root that can be looked at: the new root of a boot, an image's folder, or its squashfs. Paths
/// are absolute, as the running system will see them, and no link leads out of the root.
pub trait View {
    /// The contents of a regular file, links followed; `None` if there is none.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>>;

    /// What is at `path`, without following a last link.
    fn kind(&self, path: &str) -> Result<Option<Kind>>;

    /// Whether something is at `path`, links followed.
    fn exists(&self, path: &str) -> bool;

    /// Whether `path`, links followed, is a file that may be executed.
    fn is_executable(&self, path: &str) -> bool;

    /// The names in a directory, in no order; none if there is no such directory.
    fn names(&self, path: &str) -> Result<Vec<String>>;

    /// The bytes of a regular file, without following a last link; 0 for anything else. A view that
    /// can tell without reading should.
    fn length(&self, path: &str) -> Result<u64> {
        Ok(match self.kind(path)? {
            Some(Kind::File { .. }) => self.read(path)?.map_or(0, |bytes| bytes.len() as u64),
            _ => 0,
        })
    }

    /// Like [`View::read`], for files that are text by nature.
    fn read_text(&self, path: &str) -> Result<Option<String>> {
        Ok(self.read(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// One thing to be done to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub path: String,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Missing directories above are made, as for all of these.
    File {
        contents: Vec<u8>,
        mode: Mode,
        /// User and group; the same as the agent's, root, if none.
        owner: Option<Owner>,
    },
    Link {
        target: String,
    },
    Directory {
        mode: u32,
        owner: Option<Owner>,
    },
    /// A file or a link is removed, not what it leads to.
    Removed,
    /// Everything below another path of the root is copied here (OVERLAY_DIR).
    Copied {
        from: String,
    },
}

/// Permissions of a file, and what becomes of one that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Written through links into a file that is there, which keeps its mode; else new with this.
    New(u32),
    /// A new file in place of whatever is there.
    Replace(u32),
}

/// Where what a draft shows at a path comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The image has it at this path, with all that is in it.
    Image(String),
    File {
        contents: Vec<u8>,
        mode: u32,
        owner: Owner,
    },
    Link(String),
    /// Something in it is not the image's.
    Directory,
}

/// A root with changes that are not made yet.
pub struct Draft<'v> {
    model: Model<'v>,
    changes: Vec<Change>,
    /// The change that wrote the file at a place, so that a second word about it becomes one.
    written: BTreeMap<String, usize>,
    errors: Vec<Error>,
}

impl<'v> Draft<'v> {
    pub fn over(image: &'v dyn View) -> Self {
        Self {
            model: Model::over(image),
            changes: Vec::new(),
            written: BTreeMap::new(),
            errors: Vec::new(),
        }
    }

    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    pub fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    /// Where what is at `path` comes from, a last link not followed; none if there is nothing.
    pub fn source(&self, path: &str) -> Result<Option<Source>> {
        let origin = match self.model.origin(path) {
            Ok(origin) => origin,
            Err(stop) => nothing(stop, || format!("looking at {path} of the new root"))?,
        };
        Ok(origin.map(|origin| match origin {
            Origin::Image(path) => Source::Image(path),
            Origin::Link(target) => Source::Link(target),
            Origin::Directory => Source::Directory,
            Origin::File { contents, executable } => {
                let ours = self.changes.iter().rev().find_map(|change| match &change.what {
                    What::File { mode, owner, .. } if change.path == path => Some((*mode, *owner)),
                    _ => None,
                });
                let (mode, owner) = match ours {
                    Some((Mode::Replace(mode), owner)) => (mode, owner.unwrap_or_default()),
                    // It may have kept a mode that we do not know.
                    _ if executable => (0o700, (0, 0)),
                    _ => (0o600, (0, 0)),
                };
                Source::File { contents, mode, owner }
            }
        }))
    }

    /// Takes what is foreseen to fail: [`carry_out`] will meet the same.
    pub fn take_errors(&mut self) -> Vec<Error> {
        std::mem::take(&mut self.errors)
    }

    /// Decides what somebody else has decided before: afterwards the draft shows a root to which all
    /// of it has been done.
    pub fn adopt(&mut self, changes: &[Change]) {
        for Change { path, what } in changes {
            match what {
                What::File { contents, mode, owner } => {
                    self.file(path, contents.clone(), *mode, *owner);
                }
                What::Link { target } => self.link(path, target),
                What::Directory { mode, owner } => self.directory(path, *mode, *owner),
                What::Removed => self.take_away(path),
                What::Copied { from } => self.copy_tree(from, path),
            }
        }
    }

    /// Writes a file, through links to a file that is there, else in place of whatever is there.
    pub fn write(&mut self, path: &str, contents: impl Into<Vec<u8>>, mode: u32) {
        self.file(path, contents.into(), Mode::New(mode), None);
    }

    /// Puts a new file in place of what is there; a link is replaced, not followed.
    pub fn replace(&mut self, path: &str, contents: impl Into<Vec<u8>>, mode: u32) {
        self.file(path, contents.into(), Mode::Replace(mode), None);
    }

    /// [`Draft::replace`] for a file that is not root's.
    pub fn replace_for(
        &mut self,
        path: &str,
        contents: impl Into<Vec<u8>>,
        mode: u32,
        owner: Owner,
    ) {
        self.file(path, contents.into(), Mode::Replace(mode), Some(owner));
    }

    /// Puts a link in place of what is there.
    pub fn link(&mut self, path: &str, target: &str) {
        let place = self.model.link(path, target);
        self.forget_writing(&place);
        self.note(path, What::Link { target: target.to_owned() });
        self.foresee(place, || format!("linking {path} of the new root to {target}"));
    }

    /// Makes a directory, unless there is one, which then gets this mode and owner.
    pub fn directory(&mut self, path: &str, mode: u32, owner: Option<Owner>) {
        let place = self.model.make_directory(path);
        self.note(path, What::Directory { mode, owner });
        self.foresee(place, || format!("making the directory {path} of the new root"));
    }

    /// Removes a file or a link; says whether there was one.
    pub fn remove(&mut self, path: &str) -> Result<bool> {
        let there = matches!(self.kind(path)?, Some(kind) if kind != Kind::Directory);
        if there {
            self.take_away(path);
        }
        Ok(there)
    }

    fn take_away(&mut self, path: &str) {
        let place = self.model.remove(path);
        self.forget_writing(&place);
        self.note(path, What::Removed);
        self.foresee(place, || format!("removing {path} of the new root"));
    }

    /// Copies what is below `from` to `path`, over what is there.
    pub fn copy_tree(&mut self, from: &str, path: &str) {
        // It may copy a file as it is now, whose later words must stay later.
        self.written.clear();
        let errors = self.model.copy_tree(from, path);
        self.note(path, What::Copied { from: from.to_owned() });
        self.errors.extend(errors);
    }

    fn file(&mut self, path: &str, contents: Vec<u8>, mode: Mode, owner: Option<Owner>) {
        let place = match mode {
            Mode::New(mode) => self.model.write(path, &contents, mode),
            Mode::Replace(mode) => self.model.replace(path, &contents, mode),
        };
        let before = place.as_ref().ok().and_then(|place| self.written.get(place).copied());
        if let Some(before) = before
            && let Some(change) = self.changes.get_mut(before)
            && change.path == path
            && let What::File { contents: old_contents, mode: old_mode, owner: old_owner } =
                &mut change.what
        {
            *old_contents = contents;
            if let Mode::Replace(_) = mode {
                (*old_mode, *old_owner) = (mode, owner);
            }
            return;
        }
        if let Ok(place) = &place {
            self.written.insert(place.clone(), self.changes.len());
        }
        self.note(path, What::File { contents, mode, owner });
        self.foresee(place, || format!("writing {path} of the new root"));
    }

    fn note(&mut self, path: &str, what: What) {
        self.changes.push(Change { path: path.to_owned(), what });
    }

    fn forget_writing(&mut self, place: &std::result::Result<String, Stop>) {
        if let Ok(place) = place {
            self.written.remove(place);
        }
    }

    fn foresee(
        &mut self,
        place: std::result::Result<String, Stop>,
        doing: impl FnOnce() -> String,
    ) {
        if let Err(stop) = place {
            self.errors.push(Error::new(doing(), stop));
        }
    }
}

impl View for Draft<'_> {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let doing = || format!("reading {path} of the new root");
        match self.model.find(path) {
            Ok(Place { path, kind: Some(Kind::File { .. }) }) => self.model.contents(&path),
            Ok(Place { kind: Some(_), .. }) => Err(Error::refused(doing(), "it is not a file")),
            Ok(Place { kind: None, .. }) => Ok(None),
            Err(stop) => nothing(stop, doing),
        }
    }

    fn kind(&self, path: &str) -> Result<Option<Kind>> {
        match self.model.find_last(path) {
            Ok(place) => Ok(place.kind),
            Err(stop) => nothing(stop, || format!("looking at {path} of the new root")),
        }
    }

    fn exists(&self, path: &str) -> bool {
        self.model.find(path).is_ok_and(|place| place.kind.is_some())
    }

    fn is_executable(&self, path: &str) -> bool {
        let place = self.model.find(path);
        place.is_ok_and(|place| place.kind == Some(Kind::File { executable: true }))
    }

    fn names(&self, path: &str) -> Result<Vec<String>> {
        match self.model.find(path) {
            Ok(Place { path, kind: Some(Kind::Directory) }) => self.model.names(&path),
            Ok(_) => Ok(Vec::new()),
            Err(stop) => nothing(stop, || format!("listing {path} of the new root"))
                .map(Option::unwrap_or_default),
        }
    }

    fn length(&self, path: &str) -> Result<u64> {
        match self.model.find(path) {
            Ok(Place { path, kind: Some(Kind::File { .. }) }) => self.model.length(&path),
            Ok(_) => Ok(0),
            Err(stop) => nothing(stop, || format!("looking at {path} of the new root"))
                .map(Option::unwrap_or_default),
        }
    }
}

/// Nothing, where that is why a path leads nowhere.
fn nothing<T>(stop: Stop, doing: impl FnOnce() -> String) -> Result<Option<T>> {
    match stop {
        Stop::Errno(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        stop => Err(Error::new(doing(), stop)),
    }
}

impl View for Tree {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        Tree::read(self, path)
    }

    fn kind(&self, path: &str) -> Result<Option<Kind>> {
        Tree::kind(self, path)
    }

    fn exists(&self, path: &str) -> bool {
        Tree::exists(self, path)
    }

    fn is_executable(&self, path: &str) -> bool {
        Tree::is_executable(self, path)
    }

    fn names(&self, path: &str) -> Result<Vec<String>> {
        Tree::names(self, path)
    }

    fn length(&self, path: &str) -> Result<u64> {
        Tree::length(self, path)
    }
}

/// Makes `changes` in the root `tree`, in their order. One that fails does not stop the next; gives
/// what went wrong.
pub fn carry_out(changes: &[Change], tree: &Tree) -> Vec<Error> {
    changes.iter().filter_map(|change| carry_out_one(change, tree).err()).collect()
}

fn carry_out_one(change: &Change, tree: &Tree) -> Result<()> {
    let path = &change.path;
    match &change.what {
        What::File { contents, mode: Mode::New(mode), .. } => tree.write(path, contents, *mode),
        What::File { contents, mode: Mode::Replace(mode), owner } => {
            tree.replace(path, contents, *mode, *owner)
        }
        What::Link { target } => tree.link(path, target),
        What::Directory { mode, owner } => tree.make_directory(path, *mode, *owner),
        What::Removed => tree.remove(path).map(drop),
        What::Copied { from } => tree.copy_tree(from, path),
    }
}

/// Lets a family decide, and does what it decided: for the tests of families.
#[cfg(test)]
pub fn on<T>(tree: &Tree, decide: impl FnOnce(&mut Draft<'_>) -> T) -> T {
    let mut draft = Draft::over(tree);
    let decided = decide(&mut draft);
    let errors = carry_out(draft.changes(), tree);
    assert!(errors.is_empty(), "{errors:?}");
    decided
}
