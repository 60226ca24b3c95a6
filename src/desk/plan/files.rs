//! Changes of the root, as a plan shows them.

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;

use super::document::{File, Kind, Owner};
use crate::directives::{Change, Mode, What};
use crate::net::RunFile;

pub fn shown(change: &Change) -> File {
    let path = &change.path;
    let owned_by = |owner: Option<(u32, u32)>| owner.map(|(user, group)| Owner { user, group });
    match &change.what {
        What::File { contents, mode, owner } => {
            let (mode, replaces) = match mode {
                Mode::New(mode) => (*mode, false),
                Mode::Replace(mode) => (*mode, true),
            };
            let (text, base64) = match String::from_utf8(contents.clone()) {
                Ok(text) => (Some(text), None),
                Err(error) => (None, Some(BASE64.encode(error.as_bytes()))),
            };
            File {
                contents: text,
                base64,
                mode: Some(octal(mode)),
                replaces: Some(replaces),
                owner: owned_by(*owner),
                ..nothing_but(path, Kind::File)
            }
        }
        What::Link { target } => {
            File { target: Some(target.clone()), ..nothing_but(path, Kind::Link) }
        }
        What::Directory { mode, owner } => File {
            mode: Some(octal(*mode)),
            owner: owned_by(*owner),
            ..nothing_but(path, Kind::Directory)
        },
        What::Removed => nothing_but(path, Kind::Removed),
        What::Copied { from } => {
            File { from: Some(from.clone()), ..nothing_but(path, Kind::Copied) }
        }
    }
}

/// What the network stage leaves in `/run`.
pub fn left(file: RunFile) -> File {
    below_run((file.path, file.text), file.mode)
}

/// A file that a boot leaves in `/run`.
pub fn below_run((path, contents): (String, String), mode: u32) -> File {
    File {
        contents: Some(contents),
        mode: Some(octal(mode)),
        replaces: Some(true),
        ..nothing_but(&path, Kind::File)
    }
}

fn octal(mode: u32) -> String {
    format!("{mode:04o}")
}

fn nothing_but(path: &str, kind: Kind) -> File {
    File {
        path: path.to_owned(),
        kind,
        contents: None,
        base64: None,
        mode: None,
        replaces: None,
        owner: None,
        target: None,
        from: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_shown_in_base64() {
        let change = |contents: &[u8]| Change {
            path: "/etc/x".into(),
            what: What::File { contents: contents.into(), mode: Mode::New(0o644), owner: None },
        };
        assert_eq!(shown(&change(b"text\n")).contents.as_deref(), Some("text\n"));
        let file = shown(&change(&[0xff]));
        assert_eq!((file.contents, file.base64.as_deref()), (None, Some("/w==")));
        assert_eq!((file.mode.as_deref(), file.replaces), (Some("0644"), Some(false)));
    }
}
