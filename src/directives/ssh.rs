//! SSH_AUTHORIZED_KEYS_*, SSH_HOST_KEYS: who may log in, and how the node proves who it is.

use base64::prelude::{BASE64_STANDARD_NO_PAD, Engine};

use super::covered::{Covered, is_systemds};
use super::{Draft, View, accounts};
use crate::config::Settings;
use crate::error::{Error, Result, WhileDoing};

/// What sshd(8) takes in authorized_keys.
const TYPES: [&str; 8] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-dss",
];

/// A line for somebody's authorized_keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    pub user: &'a str,
    /// As it is written to the file: options, type, key, comment.
    pub line: &'a str,
    /// Type and key, by which it is known again.
    identity: (&'a str, &'a str),
}

/// Gives the number of keys, and the settings that come to nothing.
pub fn authorize(
    settings: &Settings,
    covered: &Covered,
    draft: &mut Draft<'_>,
) -> (usize, Vec<(String, Error)>) {
    let mut count: usize = 0;
    let mut problems = Vec::new();
    for (name, value) in settings.family("SSH_AUTHORIZED_KEYS_") {
        match parse(value).and_then(|key| add(key, covered, draft)) {
            Ok(()) => count = count.saturating_add(1),
            Err(error) => problems.push((name.to_owned(), error)),
        }
    }
    (count, problems)
}

/// Reads `[USER:] KEYLINE`.
///
/// # Errors
/// The line is no key that sshd would take.
pub fn parse(value: &str) -> Result<Key<'_>> {
    let value = value.trim();
    let is_name = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
    };
    let (user, line) = match value.split_once(':') {
        Some((user, line)) if is_name(user) => (user, line.trim()),
        _ => ("root", value),
    };
    let doing = || format!("reading the key {:?}", shortened(line));
    if line.contains("PRIVATE KEY") {
        return Err(Error::invalid(doing(), "this is a private key, which must stay where it is")
            .with_hint("the public one is in the file that ends with .pub"));
    }
    let identity = identity(line).ok_or_else(|| {
        let why = "it has no type of key that is known";
        Error::invalid(doing(), why).with_hint("it looks like: ssh-ed25519 AAAAC3… name@host")
    })?;
    check(identity.0, identity.1).map_err(|why| Error::invalid(doing(), why))?;
    Ok(Key { user, line, identity })
}

/// Type and key of a line, behind its options if it has some.
fn identity(line: &str) -> Option<(&str, &str)> {
    let of = |text: &'_ str| -> Option<usize> {
        let kind = text.split_whitespace().next()?;
        TYPES.contains(&kind).then_some(text.len())
    };
    let line = line.trim();
    let start = match of(line) {
        Some(_) => line,
        None => behind_options(line).filter(|rest| of(rest).is_some())?,
    };
    let mut words = start.split_whitespace();
    Some((words.next()?, words.next().unwrap_or_default()))
}

/// What follows the first blank that is not in quotes.
fn behind_options(line: &str) -> Option<&str> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' if !escaped => quoted = !quoted,
            c if c.is_whitespace() && !quoted => return Some(line.get(at..)?.trim_start()),
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

/// The key says its own type once more, in its first bytes (RFC 4253, 6.6).
fn check(kind: &str, key: &str) -> Result<(), String> {
    let cut = || "the key is cut off or damaged".to_owned();
    let bytes = BASE64_STANDARD_NO_PAD.decode(key.trim_end_matches('=')).map_err(|_| cut())?;
    let (length, rest) = bytes.split_first_chunk().ok_or_else(cut)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| cut())?;
    let own = rest.get(..length).ok_or_else(cut)?;
    if own != kind.as_bytes() {
        let own = String::from_utf8_lossy(own).escape_debug().to_string();
        return Err(format!("its type is {kind}, and the key itself is {own}"));
    }
    // Fields with their lengths in front, to the end.
    let mut rest = rest.get(length..).unwrap_or_default();
    if rest.is_empty() {
        return Err(cut());
    }
    while !rest.is_empty() {
        let (length, field) = rest.split_first_chunk().ok_or_else(cut)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| cut())?;
        rest = field.get(length..).ok_or_else(cut)?;
    }
    Ok(())
}

fn add(key: Key<'_>, covered: &Covered, draft: &mut Draft<'_>) -> Result<()> {
    let doing = || format!("authorizing a key for {}", key.user);
    let user = accounts::user(draft, key.user).while_doing(doing)?;
    let home = user.home.trim_end_matches('/');
    if !home.starts_with('/') || home == "/nonexistent" || home == "/dev/null" {
        return Err(Error::refused(doing(), format!("the user's home is {:?}", user.home)));
    }
    let folder = format!("{home}/.ssh");
    if let Some(mount) = covered.mount_over(&folder, draft) {
        let why = format!("{} is mounted on {}, which will hide it", mount.source, mount.at);
        return Err(Error::refused(doing(), why).with_hint("put the key into the home there"));
    }
    let owner = (user.uid, user.gid);
    if draft.kind(home)?.is_none() {
        draft.directory(home, 0o700, Some(owner));
    }
    let path = format!("{folder}/authorized_keys");
    let mut text = draft.read_text(&path)?.unwrap_or_default();
    if text.lines().any(|line| identity(line) == Some(key.identity)) {
        return Ok(());
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text += key.line;
    text.push('\n');
    draft.directory(&folder, 0o700, Some(owner));
    draft.replace_for(&path, text, 0o600, owner);
    Ok(())
}

/// What is set for a service that is removed.
pub fn unreachable(settings: &Settings) -> Vec<(String, Error)> {
    let keys = !settings.family("SSH_AUTHORIZED_KEYS_").is_empty();
    let families = [
        ("SSH_AUTHORIZED_KEYS_", keys),
        ("SSH_HOST_KEYS", settings.filled("SSH_HOST_KEYS").is_some()),
    ];
    let set = families.into_iter().filter(|(_, is_set)| *is_set);
    set.map(|(family, _)| {
        let error = Error::refused("letting anybody log in by ssh", "the service ssh is removed")
            .with_hint("ssh in KEEP_SYSTEM_SERVICES or ENABLE_SYSTEM_SERVICES keeps it");
        (family.to_owned(), error)
    })
    .collect()
}

fn shortened(line: &str) -> String {
    line.chars().take(40).collect()
}

/// Makes the host keys that are missing, before sshd needs them; says whether it will.
pub fn host_keys(settings: &Settings, covered: &Covered, draft: &mut Draft<'_>) -> Result<bool> {
    let doing = "making the host keys of sshd";
    match settings.filled("SSH_HOST_KEYS").map(str::trim) {
        None => return Ok(false),
        Some("generate") => {}
        Some(other) => {
            return Err(Error::invalid(doing, format!("{other:?} is not generate, its one value")));
        }
    }
    if !is_systemds(draft) {
        return Err(Error::refused(doing, "the image has no systemd"));
    }
    let program = ["/usr/bin/ssh-keygen", "/usr/local/bin/ssh-keygen", "/bin/ssh-keygen"];
    let Some(program) = program.into_iter().find(|path| draft.is_executable(path)) else {
        return Err(Error::refused(doing, "the image has no ssh-keygen"));
    };
    // `RequiresMountsFor=` would leave a node without sshd whose disk is gone, which is when
    // somebody has to log in.
    let after =
        covered.mount_over("/etc/ssh", draft).map(|mount| format!("After={}\n", mount.unit()));
    let unit = format!(
        "# Written by landfall at boot: SSH_HOST_KEYS.\n\
         [Unit]\n\
         Description=Host keys of sshd\n\
         {}\
         Before=ssh.service sshd.service\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart={program} -A\n",
        after.unwrap_or_default(),
    );
    draft.replace(&format!("/etc/systemd/system/{UNIT}"), unit, 0o644);
    draft.link(
        &format!("/etc/systemd/system/multi-user.target.wants/{UNIT}"),
        &format!("../{UNIT}"),
    );
    Ok(true)
}

const UNIT: &str = "landfall-ssh-host-keys.service";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directives::Tree;
    use crate::directives::draft::on;
    use crate::directives::mounts::Mounts;
    use crate::directives::{Change, What};

    const ED25519: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    #[test]
    #[rustfmt::skip]
    fn a_line_must_be_a_key_that_sshd_takes() {
        let seed = include_str!("../../tests/fixtures/seed-lts.conf");
        let rsa = seed.split('\'').find(|part| part.starts_with("ssh-rsa ")).unwrap();
        let with = |before: &str, after: &str| format!("{before}{ED25519}{after}");
        let cases = [
            (with("", ""),                                  Ok("root")),
            (with("", " me@host: a comment"),               Ok("root")),
            (with("core: ", " me"),                         Ok("core")),
            (with("core:", ""),                             Ok("core")),
            (with("first.last: ", ""),                      Ok("first.last")),
            (with("restrict,pty ", ""),                     Ok("root")),
            (with(r#"command="echo \"a: b\"",no-pty "#, ""), Ok("root")),
            (with(r#"core: from="10.0.0.0/8" "#, ""),       Ok("core")),
            (rsa.to_owned(),                                Ok("root")),
            (rsa.replacen("ssh-rsa", "ssh-ed25519", 1),     Err("the key itself is ssh-rsa")),
            (rsa.replace("uAb9", ""),                       Err("cut off")),
            (with("", "").replace("HR4f", ""),              Err("cut off")),
            (with("", "").replace("AAAAC3", "AAAA C3"),     Err("cut off")),
            ("ssh-ed25519".into(),                          Err("cut off")),
            ("ssh-foo AAAA".into(),                         Err("no type of key")),
            ("https://example.org/me.keys".into(),          Err("no type of key")),
            (r#"command="never closed ssh-rsa AAAA"#.into(), Err("no type of key")),
            ("-----BEGIN OPENSSH PRIVATE KEY-----".into(),  Err("private key")),
            ("".into(),                                     Err("no type of key")),
        ];
        for (value, expected) in &cases {
            match (parse(value), expected) {
                (Ok(key), Ok(user)) => assert_eq!(key.user, *user, "{value}"),
                (Err(error), Err(why)) => assert!(error.to_string().contains(why), "{value}: {error}"),
                (got, _) => panic!("{value}: {got:?}"),
            }
        }
    }

    #[test]
    fn keys_go_to_the_users_home_once() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        let passwd = "root:x:0:0::/root:/bin/sh\ncore:x:1000:1001::/home/core:/bin/sh\n\
                      nobody:x:65534:65534::/nonexistent:/bin/false\nme:x:5:5::/mnt/me:/bin/sh\n";
        tree.write("/etc/passwd", passwd, 0o644).unwrap();
        tree.write("/root/.ssh/authorized_keys", "# mine", 0o644).unwrap();
        let line = |before: &str, after: &str| format!("{before}{ED25519}{after}");
        let (first, again) = (line("", " first"), line("restrict ", " again"));
        let (core, nobody) = (line("core: ", " c"), line("nobody: ", ""));
        let (me, them) = (line("me: ", ""), line("them: ", ""));
        let settings = Settings::of(&[
            ("SSH_AUTHORIZED_KEYS_1", &first),
            ("SSH_AUTHORIZED_KEYS_2", &again),
            ("SSH_AUTHORIZED_KEYS_3", &core),
            ("SSH_AUTHORIZED_KEYS_4", &nobody),
            ("SSH_AUTHORIZED_KEYS_5", &me),
            ("SSH_AUTHORIZED_KEYS_6", &them),
        ]);
        let covered = Covered::under(Mounts::of("/dev/x /mnt ext4 rw 0 0", &tree));
        let mut draft = Draft::over(&tree);
        let (count, problems) = authorize(&settings, &covered, &mut draft);
        assert_eq!(count, 3);
        let problems: Vec<_> = problems.iter().map(|(_, error)| error.to_string()).collect();
        assert_eq!(
            problems,
            [
                "authorizing a key for nobody: refused: the user's home is \"/nonexistent\"",
                "authorizing a key for me: refused: /dev/x is mounted on /mnt, which will hide it",
                "authorizing a key for them: looking for the user \"them\": refused: /etc/passwd has none",
            ]
        );
        let file = |text: String, owner| What::File {
            contents: text.into_bytes(),
            mode: crate::directives::Mode::Replace(0o600),
            owner: Some(owner),
        };
        let folder = |owner| What::Directory { mode: 0o700, owner: Some(owner) };
        let expected = [
            ("/root/.ssh", folder((0, 0))),
            ("/root/.ssh/authorized_keys", file(format!("# mine\n{first}\n"), (0, 0))),
            ("/home/core", folder((1000, 1001))),
            ("/home/core/.ssh", folder((1000, 1001))),
            ("/home/core/.ssh/authorized_keys", file(line("", " c\n"), (1000, 1001))),
        ];
        let expected = expected.map(|(path, what)| Change { path: path.into(), what });
        assert_eq!(draft.changes(), expected);
    }

    #[test]
    fn host_keys_are_made_where_the_disk_is_and_before_sshd() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        let settings = Settings::of(&[("SSH_HOST_KEYS", "generate")]);
        let covered = Covered::under(Mounts::of("/dev/x /etc/ssh ext4 nofail", &tree));
        let make = |settings: &Settings| on(&tree, |draft| host_keys(settings, &covered, draft));
        assert!(make(&settings).unwrap_err().to_string().contains("no systemd"));
        tree.write("/lib/systemd/systemd", "", 0o755).unwrap();
        assert!(make(&settings).unwrap_err().to_string().contains("no ssh-keygen"));
        tree.write("/usr/bin/ssh-keygen", "", 0o755).unwrap();
        assert!(make(&Settings::of(&[("SSH_HOST_KEYS", "yes")])).is_err());
        assert!(!make(&Settings::default()).unwrap());
        assert!(make(&settings).unwrap());
        let unit = tree.read_text(&format!("/etc/systemd/system/{UNIT}")).unwrap().unwrap();
        for line in [
            "After=etc-ssh.mount",
            "Before=ssh.service sshd.service",
            "ExecStart=/usr/bin/ssh-keygen -A",
        ] {
            assert!(unit.lines().any(|other| other == line), "{line} in {unit}");
        }
        assert!(!unit.contains("Requires"), "without its disk a node still needs sshd: {unit}");
        assert!(tree.exists(&format!("/etc/systemd/system/multi-user.target.wants/{UNIT}")));
    }
}
