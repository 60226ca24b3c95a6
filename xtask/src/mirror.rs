//! Which Debian mirror this host uses: we fetch kernels and packages from where it fetches its own.

use std::env;
use std::process::Command;

use anyhow::{Result, bail};

use crate::say;

/// Of the main archive, without a final slash.
pub fn find() -> Result<String> {
    if let Ok(mirror) = env::var("MIRROR") {
        return Ok(mirror.trim_end_matches('/').to_owned());
    }
    // As apt itself understands the host's sources, in either format and in any file.
    let format = "$(CREATED_BY)|$(COMPONENT)|$(SITE)";
    let targets =
        say::run_quietly(Command::new("apt-get").args(["indextargets", "--format", format]));
    match choose(&targets.unwrap_or_default()) {
        Some(mirror) => Ok(mirror),
        None => bail!(
            "this host's apt sources name no Debian mirror; please name one: MIRROR=http://…/debian"
        ),
    }
}

fn choose(targets: &str) -> Option<String> {
    let main = targets.lines().filter_map(|line| line.strip_prefix("Packages|main|"));
    // Security updates and other vendors have a `main` as well, in folders of another name.
    let mut archives = main.filter(|site| site.trim_end_matches('/').ends_with("/debian"));
    archives.next().map(|site| site.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn the_main_archive_is_told_from_what_else_apt_knows() {
        let cases = [
            ("Packages|main|http://mirror.example/debian\n",                Some("http://mirror.example/debian")),
            ("Packages|main|http://mirror.example/debian/\n",               Some("http://mirror.example/debian")),
            ("Packages|main|http://mirror.example/debian-security\n",       None),
            ("Translations|main|http://mirror.example/debian\n",            None), // no index of packages
            ("Packages|main|https://vendor.example/node\nPackages|main|http://m.example/debian\n",
                                                                            Some("http://m.example/debian")),
            ("",                                                            None),
        ];
        for (targets, expected) in cases {
            assert_eq!(choose(targets).as_deref(), expected, "{targets:?}");
        }
    }
}
