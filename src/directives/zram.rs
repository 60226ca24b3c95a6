//! ZRAM_SWAP: swap in memory, compressed.
//!
//! By a unit of the running system, whose kernel modules, unlike ours, are sure to have zram. The
//! size is worked out there too, so that the unit says what the configuration says.

use super::Draft;
use super::covered::is_systemds;
use super::size::Size;
use super::swap::program;
use crate::config::Settings;
use crate::error::{Error, Result};

const UNIT: &str = "landfall-zram.service";
const SCRIPT: &str = "/usr/lib/landfall/zram-swap";

/// Gives the size as it was set; none if there shall be no such swap.
pub fn apply(settings: &Settings, draft: &mut Draft<'_>) -> Result<Option<String>> {
    let Some(size) = parse(settings.get("ZRAM_SWAP").unwrap_or_default())? else {
        return Ok(None);
    };
    let doing = || format!("preparing {size} of compressed swap");
    if !is_systemds(draft) {
        return Err(Error::refused(doing(), "the image has no systemd"));
    }
    for name in ["modprobe", "mkswap", "swapon"] {
        if program(name, draft).is_none() {
            return Err(Error::refused(doing(), format!("the image has no {name}")));
        }
    }
    draft.replace(SCRIPT, script(size), 0o755);
    draft.replace(&format!("/etc/systemd/system/{UNIT}"), UNIT_FILE, 0o644);
    draft.link(&format!("/etc/systemd/system/swap.target.wants/{UNIT}"), &format!("../{UNIT}"));
    Ok(Some(size.to_string()))
}

/// Reads the value of ZRAM_SWAP.
///
/// # Errors
/// It is neither a size nor `off`.
pub fn parse(value: &str) -> Result<Option<Size>> {
    match value.trim() {
        "" => Ok(None),
        off if off.eq_ignore_ascii_case("off") => Ok(None),
        other => Size::parse(other).map(Some).ok_or_else(|| {
            let why = "it is neither a size (2G, 512M, 50%) nor off";
            Error::invalid(format!("reading {other:?}"), why)
        }),
    }
}

fn script(size: Size) -> String {
    // The first line of /proc/meminfo is MemTotal, in KiB.
    let bytes = match size.share() {
        Some(share) => format!("read -r _ kib _ </proc/meminfo\nsize=$((kib * {share} / 100))K"),
        None => format!("size={}", size.to_string().to_ascii_uppercase()),
    };
    format!(
        "#!/bin/sh -e\n\
         # Written by landfall at boot: ZRAM_SWAP.\n\
         {bytes}\n\
         modprobe zram\n\
         # A new device, whoever else has some.\n\
         read -r number </sys/class/zram-control/hot_add\n\
         echo \"$size\" >\"/sys/block/zram$number/disksize\"\n\
         mkswap \"/dev/zram$number\"\n\
         # Before any swap that has to be fetched from somewhere.\n\
         exec swapon --priority 100 \"/dev/zram$number\"\n"
    )
}

/// systemd switches the swap off itself at shutdown.
const UNIT_FILE: &str = "\
# Written by landfall at boot: ZRAM_SWAP.
[Unit]
Description=Compressed swap in memory
DefaultDependencies=no
Before=swap.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/landfall/zram-swap
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directives::Tree;
    use crate::directives::draft::on;

    #[test]
    #[rustfmt::skip]
    fn a_size_is_said_as_for_tmpfs() {
        let cases = [
            ("",      Some(None)),
            ("off",   Some(None)),
            ("Off",   Some(None)),
            ("2G",    Some(Some("2G"))),
            (" 50% ", Some(Some("50%"))),
            ("512m",  Some(Some("512m"))),
            ("08%",   Some(Some("8%"))), // octal to the shell
            ("0",     None),
            ("0%",    None),
            ("50 %",  None),
            ("2GB",   None),
            ("true",  None),
            ("-1G",   None),
            ("99999999999999999999", None),
            ("99999999999999G", None),
        ];
        for (value, expected) in cases {
            assert_eq!(parse(value).ok().map(|size| size.map(|size| size.to_string())), expected.map(|size: Option<&str>| size.map(str::to_owned)), "{value:?}");
        }
    }

    #[test]
    fn the_unit_needs_what_its_script_runs() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        let settings = Settings::of(&[("ZRAM_SWAP", "50%")]);
        let make = || on(&tree, |draft| apply(&settings, draft));
        assert!(make().unwrap_err().to_string().contains("no systemd"));
        tree.write("/usr/lib/systemd/systemd", "", 0o755).unwrap();
        for name in ["modprobe", "mkswap", "swapon"] {
            assert!(make().unwrap_err().to_string().ends_with(name), "{name}");
            tree.write(&format!("/sbin/{name}"), "", 0o755).unwrap();
        }
        assert_eq!(make().unwrap().as_deref(), Some("50%"));
        let script = tree.read_text(SCRIPT).unwrap().unwrap();
        assert!(script.contains("\nsize=$((kib * 50 / 100))K\n"), "{script}");
        assert!(tree.is_executable(SCRIPT));
        assert!(tree.exists("/etc/systemd/system/swap.target.wants/landfall-zram.service"));
        assert!(super::script(Size::parse("512m").unwrap()).contains("\nsize=512M\n"));
    }
}
