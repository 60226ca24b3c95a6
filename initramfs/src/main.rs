//! Builds images, and tells hooks what it would build them of.

use std::env;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use landfall_initramfs::arguments::{
    Arguments, BuildArguments, Command, ListArguments, Listed, UkiArguments,
};
use landfall_initramfs::{Build, List, Signatures, Uki, build, unify};

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
    let text = match arguments.command {
        Command::Build(arguments) => image(arguments)?,
        Command::List(arguments) => listing(&arguments)?,
        Command::Uki(arguments) => unified(arguments)?,
    };
    // Not `println!`, which panics when its reader has gone (`| head`).
    io::stdout().write_all(text.as_bytes()).context("writing to standard output")
}

fn image(arguments: BuildArguments) -> Result<String> {
    let agent = match arguments.agent {
        Some(agent) => agent,
        None => env::current_exe().context("finding this program")?.with_file_name("landfall"),
    };
    let summary = build(&Build {
        drivers: arguments.choice.drivers(),
        modules: arguments.choice.modules(),
        kernel: arguments.choice.kernel,
        output: arguments.output,
        agent,
        firmware: arguments.choice.firmware,
        ca: arguments.ca,
        config: arguments.config,
        rescue_shell: arguments.rescue_shell,
        add: arguments.add,
        signatures: if arguments.unsigned { Signatures::Strip } else { Signatures::Keep },
        level: arguments.level,
        epoch: epoch()?,
    })?;
    Ok(format!("{summary}\n"))
}

fn listing(arguments: &ListArguments) -> Result<String> {
    let choice = &arguments.choice;
    let list = List::of(&choice.kernel, choice.drivers().as_deref(), &choice.modules())?;
    let lines = |paths: &mut dyn Iterator<Item = &PathBuf>| {
        paths.map(|path| format!("{}\n", path.display())).collect::<String>()
    };
    Ok(match arguments.what {
        Listed::Modules => lines(&mut list.modules().iter()),
        Listed::Softdeps => list.softdeps(),
        Listed::Firmware => {
            let firmware = list.firmware(&choice.firmware)?;
            if arguments.verbose {
                for (module, names) in &firmware.missing {
                    eprintln!("landfall-initramfs: no {} for {module}", names.join(", no "));
                }
            }
            lines(&mut firmware.found.iter())
        }
    })
}

fn unified(arguments: UkiArguments) -> Result<String> {
    let output = arguments.output.display().to_string();
    let bytes = unify(&Uki {
        kernel: arguments.kernel,
        initramfs: arguments.initramfs,
        cmdline: arguments.cmdline,
        stub: arguments.stub,
        output: arguments.output,
    })?;
    Ok(format!("{output}: {bytes} bytes\n"))
}

fn epoch() -> Result<u32> {
    match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.trim().parse().with_context(|| {
            format!("SOURCE_DATE_EPOCH is \"{text}\", not seconds between 1970 and 2106")
        }),
        Err(_) => Ok(0),
    }
}
