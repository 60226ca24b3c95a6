//! Users and groups of the image: /etc/passwd and /etc/group, as passwd(5) and group(5) have them.
//!
//! The image's own files and no name service: a network node's directory is not up yet.

use super::View;
use crate::error::{Error, Result};

/// A line of /etc/passwd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    pub home: String,
}

/// The user called `name`. root is there even where the image has no such file.
pub fn user(view: &dyn View, name: &str) -> Result<User> {
    let passwd = view.read_text("/etc/passwd")?.unwrap_or_default();
    match passwd.lines().find_map(|line| user_of(line, |login, _| login == name)) {
        Some(user) => Ok(user),
        None if name == "root" => Ok(User { uid: 0, gid: 0, home: "/root".into() }),
        None => Err(unknown("user", name, "/etc/passwd")),
    }
}

/// `USER[:GROUP]` as numbers; each may be a name or a number. Without a group it is the user's
/// primary one, and 0 for a number that no user has.
pub fn owner(view: &dyn View, text: &str) -> Result<(u32, u32)> {
    let (name, group_name) = match text.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (text, None),
    };
    let (uid, primary) = match name.parse::<u32>() {
        Ok(uid) => {
            let passwd = view.read_text("/etc/passwd")?.unwrap_or_default();
            let user = passwd.lines().find_map(|line| user_of(line, |_, number| number == uid));
            (uid, user.map_or(0, |user| user.gid))
        }
        Err(_) => user(view, name).map(|user| (user.uid, user.gid))?,
    };
    Ok((uid, group_name.map_or(Ok(primary), |name| group(view, name))?))
}

fn group(view: &dyn View, name: &str) -> Result<u32> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    let text = view.read_text("/etc/group")?.unwrap_or_default();
    let gid_of = |line: &str| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    };
    match text.lines().find_map(gid_of) {
        Some(gid) => Ok(gid),
        None if name == "root" => Ok(0),
        None => Err(unknown("group", name, "/etc/group")),
    }
}

fn user_of(line: &str, is_meant: impl Fn(&str, u32) -> bool) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1)?.to_owned();
    is_meant(name, uid).then_some(User { uid, gid, home })
}

fn unknown(what: &str, name: &str, file: &str) -> Error {
    Error::refused(format!("looking for the {what} {name:?}"), format!("{file} has none"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directives::Tree;

    #[test]
    #[rustfmt::skip]
    fn owners_are_those_of_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        let bare = tempfile::tempdir().unwrap();
        let bare = Tree::open(bare.path()).unwrap();
        tree.write("/etc/passwd", "broken\nroot:x:0:0::/root:/bin/sh\ncore:x:1000:1001:Core,,,:/home/core:/bin/sh\n", 0o644).unwrap();
        tree.write("/etc/group", "root:x:0:\nbroken:x\nadm:x:4:core\n", 0o644).unwrap();
        let cases = [
            ("core",      Some((1000, 1001))),
            ("core:adm",  Some((1000, 4))),
            ("1000",      Some((1000, 1001))), // a number of the file
            ("77",        Some((77, 0))),      // and one of none
            ("77:88",     Some((77, 88))),
            ("root:root", Some((0, 0))),
            ("nobody",    None),
            ("core:none", None),
            ("core:",     None),
            ("",          None),
            ("-1",        None),
        ];
        for (text, expected) in cases {
            assert_eq!(owner(&tree, text).ok(), expected, "{text:?}");
        }
        assert_eq!(user(&tree, "core").unwrap().home, "/home/core");
        assert_eq!(owner(&bare, "root:root").unwrap(), (0, 0));
        assert_eq!(
            user(&tree, "nobody").unwrap_err().to_string(),
            "looking for the user \"nobody\": refused: /etc/passwd has none"
        );
    }
}
