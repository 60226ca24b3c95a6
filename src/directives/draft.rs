//! Changes to a root that are decided, and not made.
//!
//! A family looks at the root and at what the families before it have decided through one
//! [`Draft`], and decides in the same words in which files are written. Booting, the changes are
//! carried out on the new root; at a desk, `landfall plan` prints them. That both come from the same
//! code is what keeps the plan honest.

use super::tree::{Kind, Tree};
use crate::error::{Error, Result};

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
        owner: Option<(u32, u32)>,
    },
    Link {
        target: String,
    },
    Directory {
        mode: u32,
        owner: Option<(u32, u32)>,
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

/// A root with changes that are not made yet.
pub struct Draft<'v> {
    image: &'v dyn View,
    changes: Vec<Change>,
}

impl<'v> Draft<'v> {
    pub fn over(image: &'v dyn View) -> Self {
        Self { image, changes: Vec::new() }
    }

    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    pub fn into_changes(self) -> Vec<Change> {
        self.changes
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
        owner: (u32, u32),
    ) {
        self.file(path, contents.into(), Mode::Replace(mode), Some(owner));
    }

    /// Puts a link in place of what is there.
    pub fn link(&mut self, path: &str, target: &str) {
        self.note(path, What::Link { target: target.to_owned() });
    }

    /// Makes a directory, unless there is one, which then gets this mode and owner.
    pub fn directory(&mut self, path: &str, mode: u32, owner: Option<(u32, u32)>) {
        self.note(path, What::Directory { mode, owner });
    }

    /// Removes a file or a link; says whether there was one.
    pub fn remove(&mut self, path: &str) -> Result<bool> {
        let there = matches!(self.kind(path)?, Some(kind) if kind != Kind::Directory);
        if there {
            self.note(path, What::Removed);
        }
        Ok(there)
    }

    /// Copies what is below `from` to `path`, over what is there.
    pub fn copy_tree(&mut self, from: &str, path: &str) {
        self.note(path, What::Copied { from: from.to_owned() });
    }

    fn file(&mut self, path: &str, contents: Vec<u8>, mode: Mode, owner: Option<(u32, u32)>) {
        self.note(path, What::File { contents, mode, owner });
    }

    fn note(&mut self, path: &str, what: What) {
        // The later of two words about one path is the one that counts, at its later place.
        self.changes
            .retain(|change| change.path != path || matches!(change.what, What::Copied { .. }));
        self.changes.push(Change { path: path.to_owned(), what });
    }

    fn changed(&self, path: &str) -> Option<&What> {
        self.changes.iter().rev().find(|change| change.path == path).map(|change| &change.what)
    }
}

impl View for Draft<'_> {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        match self.changed(path) {
            Some(What::File { contents, .. }) => Ok(Some(contents.clone())),
            Some(What::Link { target }) => self.read(&beside(path, target)),
            Some(What::Removed) => Ok(None),
            Some(What::Directory { .. } | What::Copied { .. }) | None => self.image.read(path),
        }
    }

    fn kind(&self, path: &str) -> Result<Option<Kind>> {
        Ok(match self.changed(path) {
            Some(What::File { mode: Mode::New(mode) | Mode::Replace(mode), .. }) => {
                Some(Kind::File { executable: mode & 0o111 != 0 })
            }
            Some(What::Link { target }) => Some(Kind::Link(target.clone())),
            Some(What::Directory { .. }) => Some(Kind::Directory),
            Some(What::Removed) => None,
            Some(What::Copied { .. }) | None => self.image.kind(path)?,
        })
    }

    fn exists(&self, path: &str) -> bool {
        match self.changed(path) {
            Some(What::Removed) => false,
            Some(What::Link { target }) => self.exists(&beside(path, target)),
            Some(What::File { .. } | What::Directory { .. }) => true,
            Some(What::Copied { .. }) | None => self.image.exists(path),
        }
    }

    fn is_executable(&self, path: &str) -> bool {
        match self.changed(path) {
            Some(What::Link { target }) => self.is_executable(&beside(path, target)),
            Some(What::File { mode: Mode::New(mode) | Mode::Replace(mode), .. }) => {
                mode & 0o111 != 0
            }
            Some(What::Removed | What::Directory { .. }) => false,
            Some(What::Copied { .. }) | None => self.image.is_executable(path),
        }
    }

    fn names(&self, path: &str) -> Result<Vec<String>> {
        let mut names = self.image.names(path)?;
        for change in &self.changes {
            let Some((folder, name)) = change.path.rsplit_once('/') else { continue };
            if folder != path.trim_end_matches('/') {
                continue;
            }
            names.retain(|other| other != name);
            if change.what != What::Removed {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn length(&self, path: &str) -> Result<u64> {
        match self.changed(path) {
            Some(What::File { contents, .. }) => Ok(contents.len() as u64),
            Some(What::Copied { .. }) | None => self.image.length(path),
            Some(_) => Ok(0),
        }
    }
}

/// Where a link at `path` leads.
fn beside(path: &str, target: &str) -> String {
    match (target.starts_with('/'), path.rsplit_once('/')) {
        (false, Some((folder, _))) => format!("{folder}/{target}"),
        _ => target.to_owned(),
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
        What::File { contents, mode, owner } => {
            match mode {
                Mode::New(mode) => tree.write(path, contents, *mode)?,
                Mode::Replace(mode) => tree.replace(path, contents, *mode)?,
            }
            owner.map_or(Ok(()), |owner| tree.give_to(path, owner))
        }
        What::Link { target } => tree.link(path, target),
        What::Directory { mode, owner } => {
            tree.make_directory(path, *mode)?;
            owner.map_or(Ok(()), |owner| tree.give_to(path, owner))
        }
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
