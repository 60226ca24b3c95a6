//! `cargo xtask manual`: the manual pages and completions in `man`, made of what the programs
//! themselves say: their help texts, the table of kernel parameters, the image builder's options.
//!
//! They are in the tree, so that packing needs nothing but them; a test tells when one is out of
//! date. `landfall settings --man` makes the fourth page, landfall-lts.conf(5).

mod commands;
mod pages;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;
use landfall_initramfs::arguments::Arguments;
use landfall_tests::workshop::workspace;

/// Writes all files anew; says which have changed.
pub fn run() -> Result<()> {
    for (path, text) in files()? {
        if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            fs::create_dir_all(path.parent().context("a folder")?)?;
            fs::write(&path, text).with_context(|| path.display().to_string())?;
            println!("{}", path.display());
        }
    }
    Ok(())
}

/// Each path with what is to be there.
fn files() -> Result<Vec<(PathBuf, String)>> {
    let folder = workspace().join("man");
    let builder = Arguments::command();
    let mut files = vec![
        (folder.join("landfall.1"), pages::landfall()?),
        (folder.join("landfall-initramfs.1"), pages::builder(&builder)?),
    ];
    // Names are those by which each shell finds them.
    for (shell, name) in
        [(Shell::Bash, "bash/%"), (Shell::Zsh, "zsh/_%"), (Shell::Fish, "fish/%.fish")]
    {
        for (program, command) in
            [("landfall", commands::as_clap()?), ("landfall-initramfs", builder.clone())]
        {
            let path = folder.join("completions").join(name.replace('%', program));
            files.push((path, completion(shell, program, command)?));
        }
    }
    Ok(files)
}

fn completion(shell: Shell, program: &str, mut command: clap::Command) -> Result<String> {
    // clap_complete 4.6 looks for a program with a dash under a name that it does not give it.
    let plain = program.replace('-', "_");
    let name = if shell == Shell::Bash { plain.as_str() } else { program };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut text);
    let lines = String::from_utf8(text)?;
    let lines =
        lines.lines().map(|line| match line.trim_end().strip_suffix(&format!(" {plain}")) {
            Some(registration) => format!("{registration} {program}\n"),
            None => format!("{}\n", line.trim_end()),
        });
    Ok(lines.collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_pages_and_completions_in_the_tree_are_those_of_the_programs() {
        for (path, text) in files().unwrap() {
            let committed = fs::read_to_string(&path).unwrap_or_default();
            assert!(committed == text, "{} is out of date: cargo xtask manual", path.display());
        }
    }

    /// A reader of the manual would see the request that groff did not know.
    #[test]
    fn groff_has_no_complaint_about_a_page() {
        for (path, text) in files().unwrap() {
            if path.extension().is_none_or(|extension| extension != "1") {
                continue;
            }
            let mut groff = Command::new("groff");
            groff.args(["-man", "-Tutf8", "-ww", "-z", "-rLL=78n"]);
            let mut groff = groff.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            groff.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            let said = groff.wait_with_output().unwrap().stderr;
            assert_eq!(String::from_utf8_lossy(&said), "", "{}", path.display());
        }
    }

    /// As bash calls it while a person types; the other shells' files come from the same table.
    fn bash_completes(line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split(' ').collect();
        let file = workspace().join("man/completions/bash").join(words[0]);
        let script = r#"
            source "$0"
            function=$(complete -p "$1") function=${function#*-F } function=${function%% *}
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            "$function" "$1" "${!#}" "${@: -2:1}"
            printf '%s\n' "${COMPREPLY[@]}"
        "#;
        let mut bash = Command::new("bash");
        let output = bash.arg("-c").arg(script).arg(file).args(&words).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{line}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().map(ToOwned::to_owned).collect()
    }

    #[test]
    #[rustfmt::skip]
    fn bash_completes_commands_options_and_values() {
        let cases = [
            ("landfall pl",                             "plan"),
            ("landfall help set",                       "settings"),
            ("landfall check --format ",                "text json"),
            ("landfall plan --me",                      "--memory"),
            ("landfall-initramfs list firm",            "firmware"),
            ("landfall-initramfs build --unsigned --l", "--level"),
        ];
        for (line, expected) in cases {
            assert_eq!(bash_completes(line).join(" "), expected, "{line}");
        }
    }

    /// Names with a dash have been a trap for the generator.
    #[test]
    fn bash_completes_the_options_of_every_command() {
        for command in commands::all().unwrap() {
            let line = format!("landfall {} --", command.name);
            let mut got = bash_completes(&line);
            got.retain(|option| option != "--help");
            let options = command.options.iter();
            let expected: Vec<_> = options.map(|option| format!("--{}", option.name)).collect();
            got.sort();
            let mut expected = expected;
            expected.sort();
            assert_eq!(got, expected, "{line}");
        }
    }
}
