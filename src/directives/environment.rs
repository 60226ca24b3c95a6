//! `/run/landfall/env`: the settings for whatever runs later, in the words of a shell.
//!
//! Units and scripts of the running system read it (`EnvironmentFile=`, or `.` in a script), where
//! LTSP had its `ltsp_config_env`.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::config::Settings;
use crate::error::{Result, WhileDoing};

/// Writes `landfall/env` below `run`, readable for root alone: settings hold secrets.
pub fn leave_environment(settings: &Settings, run: &Path) -> Result<()> {
    let folder = run.join("landfall");
    let path = folder.join("env");
    let new = folder.join("env.new");
    let write = || {
        fs::create_dir_all(&folder)?;
        // Left by nobody but an attempt that failed; its mode would stay.
        let _ = fs::remove_file(&new);
        let mut file: File =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(render(settings).as_bytes())?;
        fs::rename(&new, &path)
    };
    write().while_doing(|| format!("writing {}", path.display()))
}

/// What [`leave_environment`] writes: one line each, in name order. Names that no shell can have are left out.
pub fn render(settings: &Settings) -> String {
    let is_name = |name: &str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && !name.is_empty()
    };
    let mut text = String::from("# The settings of this boot, written by landfall.\n");
    for (name, setting) in settings.iter().filter(|(name, _)| is_name(name)) {
        text.push_str(&assignment(name, &setting.value));
    }
    text
}

/// A line by which a shell gives `name` exactly this value.
pub fn assignment(name: &str, value: &str) -> String {
    format!("{name}='{}'\n", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    /// Whatever is in a value, a shell that reads the file has it as it is, and runs nothing.
    #[test]
    fn a_shell_reads_every_value_back() {
        let values = [
            ("A", "plain"),
            ("B", "it's \"two\"  blanks\tand a tab"),
            ("C", "$(echo no) `echo no` $A ${A} \\ \\n ; & | > < * ~ # !"),
            ("D", ""),
            ("E", "''"),
            ("F", "é\nline two\n"),
            ("filename", "/x"),
        ];
        let mut settings = Settings::of(&values);
        settings.insert("NO-NAME", "$(no)", crate::config::Origin::CommandLine);
        settings.insert("9", "no", crate::config::Origin::CommandLine);
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            leave_environment(&settings, folder.path()).unwrap();
        }
        let path = folder.path().join("landfall/env");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path().join("landfall")).unwrap().count(), 1);
        for (name, value) in values {
            let script = format!(". {} && printf %s. \"${name}\"", path.display());
            let output = Command::new("/bin/sh").args(["-ec", &script]).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert_eq!(text, format!("{value}."), "{name}");
            assert!(output.stderr.is_empty(), "{name}");
        }
    }
}
