//! The pages of section 1, in roff.

use std::fmt::Write;

use anyhow::Result;
use clap_mangen::Man;
use landfall::cmdline::KEYS;
use landfall::command::help;

use super::commands;

const ABOUT: &str = "\
.SH DESCRIPTION
\\fBlandfall\\fR is the first program of a machine that boots from the network.
It configures the network, connects the root image that the kernel command line or DHCP names, puts
a writable layer over it, applies the configuration that this machine has in a shared lts.conf, and
starts the real init.
.PP
It runs as \\fI/init\\fR of an initramfs that
.BR landfall\\-initramfs (1)
builds, or in the initramfs of initramfs\\-tools or dracut, where
\\fI/etc/landfall/initramfs.conf\\fR says how.
Started by a person it is a tool for the desk, and changes nothing.
";

const END: &str = "\
.PP
A word \\fBltsp.\\fINAME\\fB=\\fIVALUE\\fR is a setting of lts.conf; the file is stronger.
Another word whose name is in upper case is the same, and weaker than DHCP too.
.SH FILES
.TP
.I /etc/landfall/initramfs.conf
How Landfall takes part in an initramfs that this system makes, and with which drivers.
.TP
.I /run/landfall
On a machine that Landfall has booted: what it was told and what it did.
.TP
.I /run/landfall/landfall
This program, in memory: it works while the root is lost.
.TP
.I /run/landfall/report.json
What the boot did, with times.
.TP
.I /run/landfall/lease.json
The leases of the boot, as they are kept up to date.
.TP
.I /run/landfall/status
The socket of \\fBlandfall status\\fR.
.TP
.I /run/initramfs/shutdown
This program once more: what systemd becomes at last.
.SH SEE ALSO
.BR landfall\\-initramfs (1),
.BR landfall\\-lts.conf (5)
";

/// landfall(1)
pub fn landfall() -> Result<String> {
    let mut page = head("landfall", "boots machines over the network");
    page.push_str(".SH SYNOPSIS\n");
    let all = commands::all()?;
    for usage in all.iter().flat_map(|command| &command.usages) {
        let (name, rest) = match usage.match_indices(' ').nth(1) {
            Some((at, _)) => usage.split_at(at),
            None => (*usage, ""),
        };
        let _ = writeln!(page, "\\fB{}\\fR{}\n.br", escaped(name), escaped(rest));
    }
    page.push_str("\\fBlandfall help\\fR [COMMAND]\n");
    page.push_str(ABOUT);
    page.push_str(".SH COMMANDS\n");
    let overview = commands::overview()?;
    for command in &all {
        let about = match command.about.as_str() {
            "" => "Prints what its name says.",
            about => about,
        };
        let _ = write!(page, ".TP\n.B {}\n{}\n", escaped(command.name), escaped(about));
    }
    let mut shown = vec![overview];
    for text in all.iter().filter_map(|command| help(command.name)) {
        if shown.contains(&text) {
            continue;
        }
        shown.push(text);
        let about = all.iter().filter(|command| help(command.name) == Some(text));
        let names: Vec<_> = about.map(|command| command.name.to_uppercase()).collect();
        // The first line of some is a heading of its own.
        let body = match text.split_once("\n\n") {
            Some((heading, body)) if heading.contains(": ") && !heading.contains('\n') => body,
            _ => text,
        };
        let _ = writeln!(page, ".SH {}", escaped(&names.join(", ")));
        let _ = writeln!(page, ".nf\n{}\n.fi", escaped(body.trim_end()));
    }
    page.push_str(".SH KERNEL PARAMETERS\n");
    for key in KEYS {
        let value = match key.value {
            "" => String::new(),
            value => format!("=\\fI{}\\fR", escaped(value)),
        };
        let _ = write!(page, ".TP\n\\fB{}\\fR{value}\n", escaped(key.name));
        let _ = writeln!(page, "{}", emphasised(key.manual));
    }
    page.push_str(END);
    Ok(page)
}

const BUILDER_END: &str = "\
.SH ENVIRONMENT
.TP
.B SOURCE_DATE_EPOCH
Seconds since 1970: the time of everything in an image, 1970 if unset.
The same inputs give the same bytes.
.SH EXIT STATUS
0 if all went well, 1 if not, 2 if the command line could not be understood.
An image that exists is replaced by a complete one only.
.SH EXAMPLES
.TP
An image for the kernel that runs here, with two drivers and a configuration:
.nf
landfall\\-initramfs build \\-\\-kernel $(uname \\-r) \\-\\-drivers igb,virtio_net \\e
    \\-\\-config lts.conf \\-\\-output landfall.img
.fi
.SH SEE ALSO
.BR landfall (1),
.BR landfall\\-lts.conf (5)
";

/// landfall-initramfs(1), with its commands: each is too small for a page of its own.
pub fn builder(command: &clap::Command) -> Result<String> {
    let mut page = head("landfall-initramfs", "builds images that boot machines over the network");
    let about = section(&Man::new(command.clone()), "DESCRIPTION")?;
    // `build` knows its full name, which its usage shows, only as a part of the whole.
    let mut whole = command.clone();
    whole.build();
    let subcommands: Vec<_> =
        whole.get_subcommands().filter(|command| command.get_name() != "help").collect();
    page.push_str(".SH SYNOPSIS\n");
    for subcommand in &subcommands {
        let synopsis = section(&Man::new((*subcommand).clone()), "SYNOPSIS")?;
        let _ = writeln!(page, "{}\n.br", synopsis.trim_end());
    }
    let _ = write!(page, ".SH DESCRIPTION\n{about}");
    for subcommand in subcommands {
        let man = Man::new(subcommand.clone());
        let _ = writeln!(page, ".SH {}", escaped(&subcommand.get_name().to_uppercase()));
        page.push_str(&section(&man, "DESCRIPTION")?);
        page.push_str(&section(&man, "OPTIONS")?);
    }
    page.push_str(BUILDER_END);
    Ok(page)
}

fn head(name: &str, about: &str) -> String {
    format!(
        ".\\\" Made by `cargo xtask manual`; do not edit.\n.TH {} 1 \"\" Landfall\n.SH NAME\n\
         {} \\- {about}\n",
        escaped(&name.to_uppercase()),
        escaped(name)
    )
}

/// What the generator has for one section, without its heading.
fn section(man: &Man, heading: &str) -> Result<String> {
    let mut text = Vec::new();
    match heading {
        "SYNOPSIS" => man.render_synopsis_section(&mut text)?,
        "OPTIONS" => man.render_options_section(&mut text)?,
        _ => man.render_description_section(&mut text)?,
    }
    // The string is defined in a preamble that it writes in front of whole pages.
    let text = String::from_utf8(text)?.replace("\\*(Aq", "\\(aq");
    let from = text.find(&format!(".SH {heading}\n")).map_or(0, |at| at + heading.len() + 5);
    Ok(text.get(from..).unwrap_or_default().to_owned())
}

/// A text that groff shows as it is.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for line in text.split('\n') {
        if line.starts_with(['.', '\'']) {
            out.push_str("\\&");
        }
        for c in line.chars() {
            match c {
                '\\' => out.push_str("\\e"),
                '-' => out.push_str("\\-"),
                '\'' => out.push_str("\\(aq"),
                '`' => out.push_str("\\(ga"),
                '^' => out.push_str("\\(ha"),
                '~' => out.push_str("\\(ti"),
                c if !c.is_ascii() => out.push_str(&format!("\\[u{:04X}]", u32::from(c))),
                c => out.push(c),
            }
        }
        out.push('\n');
    }
    out.pop();
    out
}

/// What stands between backticks is bold, as it is in the README.
fn emphasised(markdown: &str) -> String {
    let parts = markdown.split('`').enumerate();
    parts
        .map(|(number, part)| match number % 2 {
            0 => escaped(part),
            _ => format!("\\fB{}\\fR", escaped(part)),
        })
        .collect()
}
