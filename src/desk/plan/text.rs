//! The plan for people: sections in the order of the boot, to be read in a change request. No
//! colour, and contents indented instead of framed.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::document::{
    Described, Document, File, HandoverMode, Kind, Memory, Method, Network, Origin, Problem,
    Setting, Severity, Swap, Tmpfs,
};
use super::page::Page;
use super::secrets::{Secrets, hidden_in_line, hidden_in_value};
use crate::net::description;
use crate::root::Size;

/// When those of INIT_COMMAND run.
const EARLY: &str = "(They run after the host name, /etc/hosts, /etc/resolv.conf and the kernel \
                     modules, and may change what all other files are made of.)";

/// More than this many paths are counted, and named in the JSON.
const MOST_PATHS: usize = 40;

pub fn render(plan: &Document) -> String {
    let mut page = Page::default();
    page.line(0, &title(plan));
    unknown(&mut page, plan);
    machine(&mut page, plan);
    network(&mut page, &plan.network);
    configuration(&mut page, plan);
    root(&mut page, plan);
    memory(&mut page, &plan.memory);
    swap_lines(plan.swap.as_ref()).iter().for_each(|line| page.line(1, line));
    directives(&mut page, plan);
    handover(&mut page, plan);
    problems(&mut page, &plan.problems);
    Secrets::of(&plan.settings).hidden_in(&page.text)
}

fn title(plan: &Document) -> String {
    let node = &plan.node;
    let name = node.hostname.as_ref().or(node.mac.as_ref()).or(node.address.as_ref());
    format!("Plan for {}", name.map_or("a node", String::as_str))
}

fn unknown(page: &mut Page, plan: &Document) {
    if plan.unknown.is_empty() {
        return;
    }
    page.heading("Not known here");
    for sentence in &plan.unknown {
        page.wrapped(1, sentence.split(' '));
    }
    let paths = &plan.image.depends_on;
    if !paths.is_empty() {
        page.line(
            1,
            "The plan depends on these paths of the image, of which none is assumed to exist:",
        );
        let paths = gathered(paths);
        page.wrapped(2, paths.iter().take(MOST_PATHS).map(String::as_str));
        let more = paths.len().saturating_sub(MOST_PATHS);
        if more > 0 {
            page.line(2, &format!("and {more} more"));
        }
    }
}

/// `/bin/{a,b,c}` for several paths in one folder.
fn gathered(paths: &[String]) -> Vec<String> {
    let mut folders: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for path in paths {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        folders.entry(folder).or_default().push(name);
    }
    let shown = |(folder, names): (&str, Vec<&str>)| match names.as_slice() {
        [name] => format!("{folder}/{name}"),
        names => format!("{folder}/{{{}}}", names.join(",")),
    };
    folders.into_iter().map(shown).collect()
}

fn machine(page: &mut Page, plan: &Document) {
    page.heading("Machine");
    let node = &plan.node;
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "not known".to_owned());
    page.item(
        "command line",
        &match plan.command_line.as_str() {
            "" => "(empty)".to_owned(),
            line => hidden_in_line(line),
        },
    );
    page.item("MAC address", &shown(&node.mac));
    if let Some(uuid) = &node.uuid {
        page.item("UUID", uuid);
    }
    if let Some(bytes) = plan.memory.total_bytes {
        page.item("memory", &Size(bytes).to_string());
    }
}

fn network(page: &mut Page, network: &Network) {
    page.heading("Network");
    described_lines(&network.described).iter().for_each(|line| page.line(1, line));
    let through = |gateway: &Option<String>| {
        gateway.as_ref().map(|via| format!(" through {via}")).unwrap_or_default()
    };
    page.item(
        "address",
        &match (&network.address, network.prefix) {
            (Some(address), Some(prefix)) => {
                format!("{address}/{prefix}{}", through(&network.gateway))
            }
            _ => "DHCP or a router decides it".to_owned(),
        },
    );
    let is_known = |one: &&String| {
        let (address, _) = one.split_once('/').unwrap_or((one, ""));
        network.address.as_deref() == Some(address)
    };
    for one in network.ipv6.iter().filter(|one| !is_known(one)) {
        page.item("and", &format!("{one}{}", through(&network.ipv6_gateway)));
    }
    if let Some(server) = &network.boot_server {
        page.item("boot server", server);
    }
    for (label, words) in [
        ("DNS servers", &network.dns),
        ("search list", &network.search),
        ("NTP servers", &network.ntp),
    ] {
        if !words.is_empty() {
            page.item(label, &words.join(" "));
        }
    }
    if let Some(seconds) = network.lease_seconds {
        page.item("lease", &format!("{seconds} s"));
    }
    // An address that was typed stays as it is.
    if (network.method, network.handover) != (Method::Static, HandoverMode::Dhcp) {
        page.item("handover", promise(network.handover));
    }
    if let Some(configured) = &network.configured {
        page.heading("Network once the configuration is there (NET_*)");
        described_lines(configured).iter().for_each(|line| page.line(1, line));
    }
}

fn described_lines(described: &[Described]) -> Vec<String> {
    described.iter().map(|one| format!("{}: {}", one.about, one.text)).collect()
}

fn promise(mode: HandoverMode) -> &'static str {
    match mode {
        HandoverMode::Dhcp => description::HandoverMode::Dhcp,
        HandoverMode::Static => description::HandoverMode::Static,
        HandoverMode::Unmanaged => description::HandoverMode::Unmanaged,
    }
    .promise()
}

/// What is in force in the end.
pub fn network_lines(network: &Network) -> Vec<String> {
    let mut lines = described_lines(network.configured.as_ref().unwrap_or(&network.described));
    lines.push(format!("handover: {}", promise(network.handover)));
    lines
}

fn configuration(page: &mut Page, plan: &Document) {
    page.heading("Configuration");
    page.item("file", &plan.configuration.files.join(", "));
    let addresses = &plan.configuration.addresses;
    for (number, address) in addresses.iter().enumerate() {
        page.item(if number == 0 { "fetched from" } else { "or from" }, address);
    }
    let sections: Vec<_> = plan.sections.iter().map(|name| format!("[{name}]")).collect();
    page.item(
        "sections",
        &match sections.is_empty() {
            true => "none is for this node".to_owned(),
            false => sections.join(" "),
        },
    );
    if !plan.settings.is_empty() {
        page.text.push('\n');
    }
    let places: Vec<_> =
        plan.settings.values().map(|setting| short_origin(setting, plan.network.method)).collect();
    let width = places.iter().map(|place| place.chars().count()).max().unwrap_or_default();
    for ((name, setting), place) in plan.settings.iter().zip(&places) {
        page.line(1, &format!("{place:<width$}  {name} = {}", quoted(name, &setting.value)));
    }
    for name in &plan.deferred {
        page.line(1, &format!("{name}: a shell of the node decides it"));
    }
}

/// `lts.conf:12`, or who said it.
pub fn origin(setting: &Setting) -> String {
    match (setting.origin, &setting.file, setting.line) {
        (Origin::File, Some(file), Some(line)) => format!("{file}:{line}"),
        (Origin::CommandLine, ..) => "command line".to_owned(),
        (Origin::Dhcp, ..) => "DHCP".to_owned(),
        _ => "landfall".to_owned(),
    }
}

/// The same without the folder, which stands above already.
fn short_origin(setting: &Setting, method: Method) -> String {
    if (setting.origin, method) == (Origin::Dhcp, Method::Static) {
        return "ip=".to_owned();
    }
    let origin = origin(setting);
    match origin.rsplit_once('/') {
        Some((_, name)) if setting.file.is_some() => name.to_owned(),
        _ => origin,
    }
}

/// A setting's value as it can be told from what is beside it.
pub fn quoted(name: &str, value: &str) -> String {
    let value = hidden_in_value(name, value);
    format!("\"{}\"", value.replace('\t', "\u{fffd}"))
}

fn root(page: &mut Page, plan: &Document) {
    page.heading("Root");
    for line in root_lines(plan) {
        page.line(1, &line);
    }
    if let Some(name) = &plan.image.name {
        page.line(1, &format!("looked at in {name} ({})", plan.image.description));
    }
    page.heading("Overlay");
    let changes = plan.memory.tmpfs.first();
    page.line(
        1,
        &match changes {
            Some(changes) => format!("changes are kept in memory, at most {}", share(changes)),
            None => "changes are kept in memory".to_owned(),
        },
    );
}

pub fn root_lines(plan: &Document) -> Vec<String> {
    let Some(root) = &plan.root else { return vec!["the image that DHCP names".to_owned()] };
    let exports: Vec<_> = root.exports.iter().map(|name| format!("\"{name}\"")).collect();
    let exports = match exports.iter().all(|name| name == "\"\"") {
        true => "the default export".to_owned(),
        false => format!("export {}", exports.join(" or ")),
    };
    let mut lines = vec![
        format!("{exports} of {}:{}, from {}", root.host, root.port, root.origin),
        match (root.copied, root.lazily) {
            (true, _) => "copied to memory before it is started".to_owned(),
            (false, true) => match root.rate {
                None => "copied to memory behind the running system".to_owned(),
                Some(rate) => {
                    format!("copied to memory behind the running system, at most {}/s", Size(rate))
                }
            },
            (false, false) => "streamed".to_owned(),
        },
    ];
    if !root.mirrors.is_empty() {
        lines.push(format!("after that {}", root.mirrors.join(", then ")));
    }
    if root.lost != "wait" {
        lines.push(format!("when no server answers: {}", root.lost));
    }
    if let Some(verity) = &root.verity {
        let place = match (verity.servers.as_slice(), verity.offset) {
            ([], None) => "behind its file system".to_owned(),
            ([], Some(offset)) => format!("at byte {offset} of it"),
            (servers, _) => format!("from {}", servers.join(" or ")),
        };
        let hash = verity.root_hash.get(..16).unwrap_or(&verity.root_hash);
        let then = &verity.on_corruption;
        lines.push(format!(
            "verified against {hash}…, with the tree {place}; a changed block: {then}"
        ));
    }
    lines.extend(root.partition.map(|number| format!("partition {number} of it")));
    lines.extend(root.filesystem.as_ref().map(|name| format!("file system {name}")));
    if !root.flags.is_empty() {
        lines.push(format!("mounted with {}", root.flags));
    }
    lines
}

fn share(tmpfs: &Tmpfs) -> String {
    let of = if tmpfs.size.ends_with('%') { " of the memory" } else { "" };
    match tmpfs.bytes.filter(|_| !of.is_empty()) {
        Some(bytes) => format!("{}{of} ({})", tmpfs.size, Size(bytes)),
        None => format!("{}{of}", tmpfs.size),
    }
}

fn memory(page: &mut Page, memory: &Memory) {
    page.heading("Memory");
    for line in memory_lines(memory) {
        page.line(1, &line);
    }
}

pub fn swap_lines(swap: Option<&Swap>) -> Vec<String> {
    let line = |swap: &Swap| {
        let exports: Vec<_> = swap.exports.iter().map(|name| format!("\"{name}\"")).collect();
        let how = if swap.encrypted { ", encrypted" } else { "" };
        format!("swap: export {} of {}:{}{how}", exports.join(" or "), swap.host, swap.port)
    };
    swap.map(line).into_iter().collect()
}

pub fn memory_lines(memory: &Memory) -> Vec<String> {
    let image = match (memory.copied, memory.image_bytes) {
        (false, _) => "image: none, it is streamed".to_owned(),
        (true, None) => "image: all of its size, which is not known here".to_owned(),
        (true, Some(bytes)) => format!(
            "image: {}{}",
            Size(bytes),
            match memory.fits {
                Some(true) => ", which fits",
                Some(false) => ", which does not fit",
                None => "",
            }
        ),
    };
    let mut lines = vec![image];
    for tmpfs in &memory.tmpfs {
        let what = match tmpfs.path.as_str() {
            "/" => "changes of the root".to_owned(),
            path => path.to_owned(),
        };
        lines.push(format!("{what}: at most {}", share(tmpfs)));
    }
    lines
}

fn directives(page: &mut Page, plan: &Document) {
    page.heading("Host name");
    let certain = plan.network.complete || plan.settings.contains_key("HOSTNAME");
    page.line(
        1,
        &match (&plan.hostname, certain) {
            (Some(name), true) => name.clone(),
            (Some(name), false) => format!("{name}, unless DHCP gives another"),
            (None, true) => "none".to_owned(),
            (None, false) => "what DHCP gives".to_owned(),
        },
    );
    if !plan.modules.is_empty() {
        page.heading("Kernel modules, in this order");
        for module in &plan.modules {
            page.line(1, format!("{} {}", module.name, module.parameters).trim_end());
        }
    }
    commands(page, "Commands before most files are written (INIT_COMMAND)", &plan.commands.early);
    if !plan.commands.early.is_empty() {
        page.wrapped(1, EARLY.split(' '));
    }
    // A page is read for what the root becomes.
    let (of_run, of_root): (Vec<_>, Vec<_>) =
        plan.files.iter().partition(|file| file.path.starts_with("/run/"));
    for (heading, files) in [("Files, in this order", of_root), ("Files in /run", of_run)] {
        if !files.is_empty() {
            page.heading(heading);
            files.into_iter().for_each(|file| self::file(page, file, plan.network.method));
        }
    }
    if !plan.services_removed.is_empty() {
        page.heading(&format!("Services removed ({})", plan.services_removed.len()));
        page.wrapped(1, plan.services_removed.iter().map(String::as_str));
    }
    for (what, units) in [
        ("Units enabled", &plan.units.enabled),
        ("Units disabled", &plan.units.disabled),
        ("Units masked", &plan.units.masked),
    ] {
        if !units.is_empty() {
            page.heading(what);
            page.wrapped(1, units.iter().map(String::as_str));
        }
    }
    commands(page, "Commands before the real init (PREINIT)", &plan.commands.late);
    if !plan.commands.late.is_empty() {
        page.line(1, "(They may change the files above.)");
    }
}

fn commands(page: &mut Page, heading: &str, commands: &[String]) {
    if commands.is_empty() {
        return;
    }
    page.heading(heading);
    for (command, number) in commands.iter().zip(1..) {
        page.line(1, &format!("{number}. {}", hidden_in_line(command)));
    }
}

fn file(page: &mut Page, file: &File, method: Method) {
    page.line(1, &file_line(file));
    if file.kind != Kind::File {
        return;
    }
    match &file.contents {
        // It is the file that the plan is made of.
        Some(text) if file.path == "/etc/lts.conf" => {
            page.line(3, &format!("(the configuration, {} lines)", text.lines().count()));
        }
        // All of it is in the list of settings.
        Some(_) if file.path == "/run/landfall/env" => page.line(3, "(the settings above)"),
        Some(_) if is_of_lease(&file.path) => page.line(
            3,
            match method {
                Method::Dhcp => "(the lease above)",
                Method::Static => "(the address above)",
            },
        ),
        Some(text) if text.is_empty() => page.line(3, "(empty)"),
        Some(text) => page.block(3, text),
        None => page.line(3, "(no text; see --format json)"),
    }
}

/// Those by which a boot tells the running system what DHCP or `ip=` said.
pub fn is_of_lease(path: &str) -> bool {
    let of_link = |name: &str| {
        (name.starts_with("net-") || name.starts_with("net6-")) && name.ends_with(".conf")
    };
    path == "/run/landfall/lease.json" || path.strip_prefix("/run/").is_some_and(of_link)
}

/// What happens to a file, without its contents.
pub fn file_line(file: &File) -> String {
    let path = &file.path;
    let mode = file.mode.as_deref().unwrap_or_default();
    let owner = file
        .owner
        .map(|owner| format!(", owner {}:{}", owner.user, owner.group))
        .unwrap_or_default();
    match file.kind {
        Kind::File if file.replaces == Some(false) => {
            format!("write {path} ({mode} if it is new{owner})")
        }
        Kind::File => format!("write {path} ({mode}{owner})"),
        Kind::Link => format!("link {path} -> {}", file.target.as_deref().unwrap_or_default()),
        Kind::Directory => format!("directory {path} ({mode}{owner})"),
        Kind::Removed => format!("remove {path}"),
        Kind::Copied => {
            format!("copy all of {} to {path}", file.from.as_deref().unwrap_or_default())
        }
    }
}

fn handover(page: &mut Page, plan: &Document) {
    page.heading("Handover");
    page.line(1, &handover_line(plan));
}

pub fn handover_line(plan: &Document) -> String {
    match &plan.handover.init {
        Some(init) => init.clone(),
        None if plan.image.name.is_some() => "nothing that could be started".to_owned(),
        None => format!("the first that can be started of {}", plan.handover.candidates.join(" ")),
    }
}

fn problems(page: &mut Page, problems: &[Problem]) {
    page.heading("Problems");
    if problems.is_empty() {
        page.line(1, "none");
    }
    for problem in problems {
        page.line(1, &problem_line(problem));
        if let Some(help) = &problem.help {
            page.line(2, &format!("help: {help}"));
        }
    }
}

/// `lts.conf:7:1: error: …`, as compilers write it.
pub fn problem_line(problem: &Problem) -> String {
    let number = |number: Option<usize>| number.map(|number| number.to_string());
    let mut line = String::new();
    let place = [&problem.file, &number(problem.line), &number(problem.column)];
    for part in place.into_iter().flatten() {
        let _ = write!(line, "{part}:");
    }
    if !line.is_empty() {
        line.push(' ');
    }
    line += match problem.severity {
        Severity::Error => "error: ",
        Severity::Warning => "warning: ",
    };
    line + &hidden_in_line(&problem.message.replace(char::is_control, "?"))
}
