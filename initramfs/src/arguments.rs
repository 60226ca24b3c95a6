//! The command line of the image builder: the program reads it, its manual page and completions are
//! made of it.

use std::convert::Infallible;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::DEFAULT_LEVEL;

/// Builds reproducible netboot initramfs images around Landfall.
#[derive(Parser)]
#[command(name = "landfall-initramfs", version)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    Build(BuildArguments),
    List(ListArguments),
    Uki(UkiArguments),
}

/// The kernel, and which of its modules.
#[derive(Args)]
pub struct Choice {
    /// A version, a lib/modules/VERSION directory, or the root of an unpacked kernel package
    #[arg(long, value_name = "DIR-OR-VERSION")]
    pub kernel: PathBuf,
    /// Only these network drivers, names or globs, instead of all Ethernet
    #[arg(long, value_name = "LIST", value_parser = parse_list)]
    drivers: Option<List>,
    /// Further modules: names, globs, or directories of the tree that end with "/"; repeatable
    #[arg(long, value_name = "LIST", value_parser = parse_list, num_args = 1..)]
    modules: Vec<List>,
    /// Look for firmware here before /lib/firmware; repeatable
    #[arg(long, value_name = "DIR")]
    pub firmware: Vec<PathBuf>,
}

impl Choice {
    /// None for all Ethernet, as with an empty list: a hook passes on what its configuration has.
    pub fn drivers(&self) -> Option<Vec<String>> {
        self.drivers.as_ref().map(|list| list.0.clone()).filter(|names| !names.is_empty())
    }

    pub fn modules(&self) -> Vec<String> {
        self.modules.iter().flat_map(|list| list.0.clone()).collect()
    }
}

/// Packs the agent and a kernel's modules into one image.
///
/// SOURCE_DATE_EPOCH is the time of everything in the image, 1970 if unset.
#[derive(Args)]
pub struct BuildArguments {
    #[command(flatten)]
    pub choice: Choice,
    /// The image to write; one that exists is replaced at the end
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// The static landfall binary [default: landfall beside this program]
    #[arg(long, value_name = "FILE")]
    pub agent: Option<PathBuf>,
    /// Certificates in PEM form for https://; repeatable
    #[arg(long, value_name = "FILE")]
    pub ca: Vec<PathBuf>,
    /// An lts.conf for nodes that find none on the network
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Add a shell for people at the console; the busybox must be static
    #[arg(
        long,
        value_name = "BUSYBOX",
        num_args = 0..=1,
        default_missing_value = "/bin/busybox"
    )]
    pub rescue_shell: Option<PathBuf>,
    /// Add a file or directory; repeatable
    #[arg(long, value_name = "SRC:DEST", value_parser = parse_addition)]
    pub add: Vec<(PathBuf, String)>,
    /// Strip signatures and debug data from modules; for test machines: taints the kernel, and
    /// Secure Boot refuses them
    #[arg(long)]
    pub unsigned: bool,
    /// Of zstd, 1 to 22
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LEVEL, value_parser = clap::value_parser!(i32).range(1..=22))]
    pub level: i32,
}

/// Tells what build would take, for hooks that copy it into an image of their own.
///
/// Needs no agent and writes nothing but the list.
#[derive(Args)]
pub struct ListArguments {
    /// What to tell about the modules
    #[arg(value_name = "WHAT")]
    pub what: Listed,
    #[command(flatten)]
    pub choice: Choice,
    /// Name on standard error the firmware that is not on this system, by driver
    #[arg(long)]
    pub verbose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Listed {
    /// Their files, one path a line, closed under dependencies
    Modules,
    /// Files that these modules can ask for, one path a line
    Firmware,
    /// Lines for modprobe.d(5) that the kernel does not bring itself
    Softdeps,
}

/// Makes one file of a kernel, an image and a command line, which UEFI firmware starts by itself.
///
/// It may be signed afterwards, with sbsign(1); then the signature covers all three, and Secure
/// Boot accepts no other command line.
#[derive(Args)]
pub struct UkiArguments {
    /// The kernel (vmlinuz)
    #[arg(long, value_name = "FILE")]
    pub kernel: PathBuf,
    /// An image of build, or of another generator; repeatable, the first is unpacked first
    #[arg(long, value_name = "FILE", required = true)]
    pub initramfs: Vec<PathBuf>,
    /// The kernel's command line
    #[arg(long, value_name = "TEXT")]
    pub cmdline: String,
    /// systemd's stub [default: that of the package systemd-boot-efi for the kernel's
    /// architecture]
    #[arg(long, value_name = "FILE")]
    pub stub: Option<PathBuf>,
    /// The file to write; one that exists is replaced at the end
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
}

/// Words with commas or blanks between them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct List(Vec<String>);

fn parse_list(text: &str) -> Result<List, Infallible> {
    let words = text.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty());
    Ok(List(words.map(ToOwned::to_owned).collect()))
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
            match Arguments::parse_from(words.split_whitespace()).command {
                Command::Build(build) => {
                    let choice = (build.choice.drivers(), build.choice.modules());
                    (choice.0, choice.1, build.rescue_shell, build.add)
                }
                _ => unreachable!("{words}"),
            }
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

    /// What a configuration file in shell syntax has is passed on as one word, empty or not.
    #[test]
    #[rustfmt::skip]
    fn a_hook_passes_on_what_its_configuration_has() {
        let cases = [
            ("",              None),
            (" ",             None),
            ("igb",           Some(vec!["igb"])),
            ("igb e1000e",    Some(vec!["igb", "e1000e"])),
            (" igb,\te1000* ", Some(vec!["igb", "e1000*"])),
        ];
        for (text, expected) in cases {
            let line = ["x", "list", "modules", "--kernel", "6.1", "--drivers", text, "--modules", text];
            let Command::List(list) = Arguments::parse_from(line).command else { unreachable!() };
            let expected: Option<Vec<String>> =
                expected.map(|words| words.into_iter().map(ToOwned::to_owned).collect());
            assert_eq!(list.what, Listed::Modules);
            assert_eq!(list.choice.drivers(), expected, "{text:?}");
            assert_eq!(list.choice.modules(), expected.unwrap_or_default(), "{text:?}");
        }
    }
}
