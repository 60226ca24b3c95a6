//! The commands of the project. Each prepares what it needs, says what it does while it does it,
//! and keeps what it made under `target/landfall`, so that a second run is quick.

mod agent;
mod apt;
mod bench;
mod deb;
mod debian;
mod demo;
mod desk;
mod dist;
mod fuzz;
mod hosts;
mod image;
mod interrupt;
mod kernels;
mod manual;
mod mirror;
mod musl;
mod namespace;
mod needs;
mod notices;
mod packages;
mod say;
mod soak;
mod stages;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "The commands of the Landfall project")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Boots a machine without a disk on this terminal, from real servers into a real Debian.
    Demo {
        /// From power-on: the machine's firmware, a BIOS if nothing is said, finds a boot loader by
        /// DHCP, and that the rest.
        #[arg(long, value_name = "FIRMWARE", num_args = 0..=1, default_missing_value = "bios")]
        pxe: Option<demo::Pxe>,
        /// Unattended: waits for multi-user.target, looks whether the configuration took effect,
        /// switches off, and tells how long each stage took.
        #[arg(long)]
        exit: bool,
        /// Set by the command itself, once everything is there and it is alone in its namespaces.
        #[arg(long, hide = true)]
        prepared: bool,
    },
    /// Unit and plan tests, then boot tests in virtual machines.
    Test {
        /// Only the tests with this word in their name.
        word: Option<String>,
        /// Leaves out what repeats with the generators and the network software of Debian 12 what is
        /// tested with those of 13, and so takes a sixth less.
        #[arg(long, conflicts_with = "word")]
        quick: bool,
    },
    /// Makes what boot tests need, and runs none.
    Prepare,
    /// Makes Debians with initramfs generators and our packages, and the images they generate.
    Hosts {
        /// Only those with this word in their name (`trixie`, `bookworm-initramfs-tools`).
        word: Option<String>,
    },
    /// Builds an initramfs for Debian kernels.
    Image(image::Options),
    /// Builds Debian packages, and has lintian look at them.
    Deb(deb::Options),
    /// Builds a release: a tarball for both architectures, and its checksum.
    Dist,
    /// Writes the manual pages and completions in man/ anew.
    Manual,
    /// Looks for texts that break a promise of the parsers.
    Fuzz(fuzz::Options),
    /// Measures sizes, check and plan of a large file, boots, copies side by side with other
    /// programs, and pauses of a root.
    Bench(bench::Options),
    /// Boots a machine many times in a row, with its root streamed and copied behind it in turns, and
    /// tells how each went; Ctrl-C ends it with the summary.
    Soak(soak::Options),
    /// Set by the command itself: runs a test in a network of its own.
    #[command(hide = true)]
    Wired {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<std::ffi::OsString>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a backtrace: what failed is a machine or a program, not a line of ours.
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Demo { pxe, exit, prepared: false } => demo::prepare_and_run(pxe, exit),
        Verb::Demo { pxe, exit, prepared: true } => demo::run(pxe, exit),
        Verb::Test { word: Some(word), .. } => test::run(test::Which::Named(&word)),
        Verb::Test { quick: true, .. } => test::run(test::Which::Quick),
        Verb::Test { .. } => test::run(test::Which::All),
        Verb::Prepare => test::prepare(test::Which::All).map(drop),
        Verb::Hosts { word } => agent::build().and_then(|_| hosts::prepare(word.as_deref())),
        Verb::Image(options) => image::run(&options),
        Verb::Deb(options) => deb::run(&options),
        Verb::Dist => dist::run(),
        Verb::Manual => manual::run(),
        Verb::Fuzz(options) => fuzz::run(&options),
        Verb::Bench(options) => bench::run(&options),
        Verb::Soak(options) => soak::run(&options),
        Verb::Wired { program } => namespace::become_wired(&program),
    }
}
