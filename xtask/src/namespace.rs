//! Runs a program where it may make networks, and where nothing that it starts outlives it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use landfall_tests::Lab;

use crate::{needs, say};

/// The words in front of a program that start it with its own mounts and process numbers
/// (and for an ordinary user as root of its own user namespace). When the program ends, so does
/// everything that it started.
pub fn prefix() -> Result<Vec<&'static str>> {
    let mut words = vec!["unshare"];
    if !needs::is_root() {
        // in.tftpd changes its groups, and a Debian root has files of many users.
        words.extend(["--user", "--map-root-user", "--map-auto"]);
    }
    words.extend(["--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    let mut trial = Command::new("unshare");
    say::run_quietly(trial.args(&words[1..]).arg("true")).context(
        "making namespaces; an ordinary user needs kernel.unprivileged_userns_clone=1, on some \
         hosts kernel.apparmor_restrict_unprivileged_userns=0, and a line in /etc/subuid and \
         /etc/subgid",
    )?;
    Ok(words)
}

/// Starts this very program again in there, with other arguments, and waits for it.
pub fn run_self(arguments: &[&str]) -> Result<()> {
    let words = prefix()?;
    let own = std::env::current_exe()?;
    let status = Command::new(words[0])
        .args(&words[1..])
        .arg(own)
        .args(arguments)
        .env("PATH", needs::extend_path())
        .status()?;
    // The program has said what went wrong.
    std::process::exit(status.code().unwrap_or(1));
}

/// As cargo takes the program that is to start a test.
pub fn as_cargo_runner() -> Result<OsString> {
    Ok(prefix()?.join(" ").into())
}

/// The same with a network, [`become_wired`], around the test.
pub fn as_wired_cargo_runner() -> Result<OsString> {
    let mut runner = as_cargo_runner()?;
    runner.push(" ");
    runner.push(std::env::current_exe()?);
    runner.push(" wired");
    Ok(runner)
}

/// Becomes `program` in a network of its own: with loopback, as every test needs it, and with one
/// address more, without which in.tftpd and others do not find any network at all.
pub fn become_wired(program: &[OsString]) -> Result<()> {
    let (program, arguments) = program.split_first().context("a program")?;
    let _lab = Lab::new("wired")?;
    Err(Command::new(program).args(arguments).exec()).context("starting the test")
}
