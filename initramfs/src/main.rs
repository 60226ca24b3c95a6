//! The command line of the image builder.

use std::env;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use landfall_initramfs::{Build, DEFAULT_LEVEL, Signatures, build};

/// Builds reproducible netboot initramfs images around Landfall.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Build(BuildArguments),
}

/// Packs the agent and a kernel's modules into one image.
///
/// SOURCE_DATE_EPOCH is the time of everything in the image, 1970 if unset.
#[derive(Args)]
struct BuildArguments {
    /// A version, a lib/modules/VERSION directory, or the root of an unpacked kernel package
    #[arg(long, value_name = "DIR-OR-VERSION")]
    kernel: PathBuf,
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// The static landfall binary [default: landfall beside this program]
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Only these network drivers, names or globs, instead of all Ethernet
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    drivers: Option<Vec<String>>,
    /// Further modules: names, globs, or directories of the tree that end with "/"
    #[arg(long, value_name = "LIST", value_delimiter = ',', num_args = 1..)]
    modules: Vec<String>,
    /// Look for firmware here before /lib/firmware; repeatable
    #[arg(long, value_name = "DIR")]
    firmware: Vec<PathBuf>,
    /// Certificates in PEM form for https://; repeatable
    #[arg(long, value_name = "FILE")]
    ca: Vec<PathBuf>,
    /// An lts.conf for nodes that find none on the network
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Add a shell for people at the console; the busybox must be static
    #[arg(
        long,
        value_name = "BUSYBOX",
        num_args = 0..=1,
        default_missing_value = "/bin/busybox"
    )]
    rescue_shell: Option<PathBuf>,
    /// Add a file or directory; repeatable
    #[arg(long, value_name = "SRC:DEST", value_parser = parse_addition)]
    add: Vec<(PathBuf, String)>,
    /// Strip signatures and debug data from modules; for test machines: taints the kernel, and
    /// Secure Boot refuses them
    #[arg(long)]
    unsigned: bool,
    /// Of zstd, 1 to 22
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LEVEL, value_parser = clap::value_parser!(i32).range(1..=22))]
    level: i32,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("landfall-initramfs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let Command::Build(arguments) = arguments.command;
    let agent = match arguments.agent {
        Some(agent) => agent,
        None => env::current_exe().context("finding this program")?.with_file_name("landfall"),
    };
    let summary = build(&Build {
        kernel: arguments.kernel,
        output: arguments.output,
        agent,
        drivers: arguments.drivers,
        modules: arguments.modules,
        firmware: arguments.firmware,
        ca: arguments.ca,
        config: arguments.config,
        rescue_shell: arguments.rescue_shell,
        add: arguments.add,
        signatures: if arguments.unsigned { Signatures::Strip } else { Signatures::Keep },
        level: arguments.level,
        epoch: epoch()?,
    })?;
    // Not `println!`, which panics when its reader has gone (`| head`).
    writeln!(io::stdout(), "{summary}").context("printing the summary")
}

fn epoch() -> Result<u32> {
    match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.trim().parse().with_context(|| {
            format!("SOURCE_DATE_EPOCH is \"{text}\", not seconds between 1970 and 2106")
        }),
        Err(_) => Ok(0),
    }
}

fn parse_addition(text: &str) -> Result<(PathBuf, String), String> {
    match text.rsplit_once(':') {
        Some((source, destination)) if !source.is_empty() && !destination.is_empty() => {
            Ok((PathBuf::from(source), destination.to_owned()))
        }
        _ => Err("not of the form SRC:DEST".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    #[rustfmt::skip]
    fn lists_and_optional_values_are_read_as_people_write_them() {
        let parse = |line: &str| {
            let words = format!("landfall-initramfs build --kernel 6.1 --output x {line}");
            let Command::Build(build) = Arguments::parse_from(words.split_whitespace()).command;
            (build.drivers, build.modules, build.rescue_shell, build.add)
        };
        let list = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let none = Vec::<(PathBuf, String)>::new;
        let cases = [
            ("",                                (None, list(&[]), None, none())),
            ("--drivers igb,e1000*",            (Some(list(&["igb", "e1000*"])), list(&[]), None, none())),
            ("--modules a b,c --unsigned",      (None, list(&["a", "b", "c"]), None, none())),
            ("--rescue-shell --unsigned",       (None, list(&[]), Some("/bin/busybox".into()), none())),
            ("--rescue-shell /opt/busybox",     (None, list(&[]), Some("/opt/busybox".into()), none())),
            ("--add a:/b --add c:d:/e",         (None, list(&[]), None, vec![("a".into(), "/b".into()), ("c:d".into(), "/e".into())])),
        ];
        for (line, expected) in cases {
            assert_eq!(parse(line), expected, "{line}");
        }
    }
}
