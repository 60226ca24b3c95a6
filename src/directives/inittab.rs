//! DISABLE_GETTYS: no logins on the second to the sixth console, where sysvinit starts them.
//!
//! On by default, as with LTSP: nobody sits there. systemd starts its own on demand, and knows no
//! `/etc/inittab`.

use super::{Draft, View};
use crate::config::Settings;
use crate::error::Result;

const INITTAB: &str = "/etc/inittab";

/// Gives the number of lines that went.
pub fn apply(settings: &Settings, draft: &mut Draft<'_>) -> Result<usize> {
    if settings.filled("DISABLE_GETTYS").is_some() && !settings.is_true("DISABLE_GETTYS") {
        return Ok(0);
    }
    let Some(text) = draft.read_text(INITTAB)? else { return Ok(0) };
    let (kept, gone): (Vec<_>, Vec<_>) = text.split_inclusive('\n').partition(|l| !is_getty(l));
    if !gone.is_empty() {
        draft.write(INITTAB, kept.concat(), 0o644);
    }
    Ok(gone.len())
}

/// sysvinit names the console in the command (`2:23:respawn:/sbin/getty 38400 tty2`), busybox in
/// the first field (`tty2::askfirst:/bin/sh`).
fn is_getty(line: &str) -> bool {
    let is_console = |word: &str| {
        matches!(word.trim_start_matches("/dev/"), "tty2" | "tty3" | "tty4" | "tty5" | "tty6")
    };
    let mut fields = line.trim().splitn(4, ':');
    let (id, command) = (fields.next().unwrap_or_default(), fields.nth(2));
    !id.starts_with('#')
        && command
            .is_some_and(|command| is_console(id) || command.split_whitespace().any(is_console))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directives::Tree;
    use crate::directives::draft::on;

    const TEXT: &str = "\
# 2:23:respawn:/sbin/getty 38400 tty2
id:2:initdefault:
1:2345:respawn:/sbin/getty 38400 tty1
2:23:respawn:/sbin/getty 38400 tty2
6:23:respawn:/sbin/getty 38400 tty6
7:23:respawn:/sbin/getty 38400 tty7
T0:23:respawn:/sbin/getty -L ttyS0 9600 vt100
tty3::askfirst:-/bin/sh
";

    #[test]
    #[rustfmt::skip]
    fn the_consoles_two_to_six_lose_their_logins_2_3() {
        for (value, gone, lines) in [(None, 3, 5), (Some("y"), 3, 5), (Some(""), 3, 5), (Some("false"), 0, 8)] {
            let folder = tempfile::tempdir().unwrap();
            let tree = Tree::open(folder.path()).unwrap();
            tree.write(INITTAB, TEXT, 0o644).unwrap();
            let settings = Settings::of(&value.map(|value| ("DISABLE_GETTYS", value)).into_iter().collect::<Vec<_>>());
            assert_eq!(on(&tree, |draft| apply(&settings, draft)).unwrap(), gone, "{value:?}");
            let text = tree.read_text(INITTAB).unwrap().unwrap();
            assert_eq!(text.lines().count(), lines, "{value:?}: {text}");
            assert!(text.contains("tty1\n") && text.contains("tty7\n") && text.contains("ttyS0"));
        }
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        assert_eq!(on(&tree, |draft| apply(&Settings::default(), draft)).unwrap(), 0);
        assert!(!tree.exists(INITTAB));
    }
}
