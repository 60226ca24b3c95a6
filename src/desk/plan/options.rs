//! What was asked of `landfall plan`: options to questions. Reads no file.

use std::path::PathBuf;

use lexopt::prelude::*;

use super::node::{self, Node};
use crate::machine::Identity;
use crate::net::Mac;

#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    Help,
    /// What a boot with a command line would do, apart from its configuration.
    CommandLine(String),
    Node(Box<NodeQuestion>),
    Diff(Box<DiffQuestion>),
}

#[derive(Debug, PartialEq, Eq)]
pub struct NodeQuestion {
    pub config: PathBuf,
    pub node: Node,
    /// Instead of an address and all that DHCP would say.
    pub lease: Option<PathBuf>,
    pub site: Site,
    pub format: Format,
}

#[derive(Debug, PartialEq, Eq)]
pub struct DiffQuestion {
    pub old: PathBuf,
    pub new: PathBuf,
    pub nodes: PathBuf,
    pub site: Site,
    pub format: Format,
}

/// What is the same for all nodes of a question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    pub command_line: String,
    pub image: Option<PathBuf>,
    pub memory_kib: Option<u64>,
    /// The boot server that DHCP names: a name or an address.
    pub server: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// Options as they were typed.
#[derive(Default)]
struct Typed {
    config: Option<String>,
    mac: Option<String>,
    ip: Option<String>,
    hostname: Option<String>,
    uuid: Option<String>,
    lease: Option<String>,
    diff: Option<(String, String)>,
    nodes: Option<String>,
    cmdline: Option<String>,
    image: Option<String>,
    memory: Option<String>,
    server: Option<String>,
    format: Option<String>,
    words: Vec<String>,
}

/// # Errors
/// One line, for whoever typed it.
pub fn read(parser: &mut lexopt::Parser) -> Result<Asked, lexopt::Error> {
    let mut typed = Typed::default();
    while let Some(argument) = parser.next()? {
        let (slot, name) = match argument {
            Short('h') | Long("help") => return Ok(Asked::Help),
            Value(word) => {
                typed.words.push(word.string()?);
                continue;
            }
            Long("diff") => {
                if typed.diff.is_some() {
                    return Err("--diff is given twice".into());
                }
                let mut files = parser.values().map_err(|_| needs_two())?;
                let old = files.next().ok_or_else(needs_two)?.string()?;
                let new = files.next().ok_or_else(needs_two)?.string()?;
                // What follows is read as words again, and then has nothing to be.
                typed.words.extend(files.map(ValueExt::string).collect::<Result<Vec<_>, _>>()?);
                typed.diff = Some((old, new));
                continue;
            }
            Long("config") => (&mut typed.config, "config"),
            Long("mac") => (&mut typed.mac, "mac"),
            Long("ip") => (&mut typed.ip, "ip"),
            Long("hostname") => (&mut typed.hostname, "hostname"),
            Long("uuid") => (&mut typed.uuid, "uuid"),
            Long("lease") => (&mut typed.lease, "lease"),
            Long("nodes") => (&mut typed.nodes, "nodes"),
            Long("cmdline") => (&mut typed.cmdline, "cmdline"),
            Long("image") => (&mut typed.image, "image"),
            Long("memory") => (&mut typed.memory, "memory"),
            Long("server") => (&mut typed.server, "server"),
            Long("format") => (&mut typed.format, "format"),
            other => return Err(other.unexpected()),
        };
        let value = parser.value()?.string()?;
        if slot.replace(value).is_some() {
            return Err(format!("--{name} is given twice").into());
        }
    }
    understand(typed).map_err(Into::into)
}

fn needs_two() -> lexopt::Error {
    "--diff needs two files: OLD NEW".into()
}

fn understand(typed: Typed) -> Result<Asked, String> {
    let words = typed.words.join(" ");
    let command_line = match (typed.cmdline, typed.words.is_empty()) {
        (Some(_), false) => {
            return Err(format!(
                "the kernel command line is given twice: --cmdline and \"{words}\""
            ));
        }
        (Some(line), true) => line,
        (None, _) => words,
    };
    let one_node = [
        ("--config", typed.config.is_some()),
        ("--mac", typed.mac.is_some()),
        ("--ip", typed.ip.is_some()),
        ("--hostname", typed.hostname.is_some()),
        ("--uuid", typed.uuid.is_some()),
        ("--lease", typed.lease.is_some()),
    ];
    let any_node = [
        ("--image", typed.image.is_some()),
        ("--memory", typed.memory.is_some()),
        ("--server", typed.server.is_some()),
        ("--format", typed.format.is_some()),
    ];
    let format = match typed.format.as_deref() {
        None | Some("text") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => return Err(format!("--format is \"{other}\"; it may be text or json")),
    };
    let site = Site {
        command_line,
        image: typed.image.map(|image| file("--image", image)).transpose()?,
        memory_kib: typed.memory.as_deref().map(memory).transpose()?,
        server: typed.server.map(server).transpose()?,
    };

    if let Some((old, new)) = typed.diff {
        if let Some((option, _)) = one_node.iter().find(|(_, given)| *given) {
            return Err(format!(
                "{option} is for one node; --diff takes its nodes from --nodes LIST"
            ));
        }
        let nodes = typed.nodes.ok_or("--diff needs --nodes LIST, with one node a line")?;
        let (old, new) = (file("--diff", old)?, file("--diff", new)?);
        let nodes = file("--nodes", nodes)?;
        return Ok(Asked::Diff(Box::new(DiffQuestion { old, new, nodes, site, format })));
    }
    if typed.nodes.is_some() {
        return Err("--nodes belongs to --diff OLD NEW".to_owned());
    }
    let Some(config) = typed.config else {
        let others = one_node.iter().chain(&any_node).find(|(_, given)| *given);
        return match others {
            Some((option, _)) => Err(format!("{option} needs --config FILE")),
            None => Ok(Asked::CommandLine(site.command_line)),
        };
    };
    let lease = typed.lease.map(|lease| file("--lease", lease)).transpose()?;
    if lease.is_some() {
        let said = [
            ("--ip", typed.ip.is_some()),
            ("--hostname", typed.hostname.is_some()),
            ("--server", site.server.is_some()),
        ];
        if let Some((option, _)) = said.iter().find(|(_, given)| *given) {
            return Err(format!("{option} and --lease exclude each other: a lease says both"));
        }
    } else if typed.mac.is_none() {
        return Err("--config needs --mac MAC, or --lease FILE".to_owned());
    }
    let (address, prefix) = match typed.ip.as_deref() {
        Some(ip) => {
            let (address, prefix) = node::address(ip).map_err(|why| format!("--ip: {why}"))?;
            (Some(address), prefix)
        }
        None => (None, None),
    };
    let node = Node {
        mac: typed
            .mac
            .map(|mac| mac.parse::<Mac>().map_err(|why| format!("--mac: {why}")))
            .transpose()?,
        address,
        prefix,
        hostname: typed
            .hostname
            .map(|name| node::hostname(&name).map_err(|why| format!("--hostname: {why}")))
            .transpose()?,
        uuid: typed.uuid.as_deref().map(uuid).transpose()?,
    };
    let config = file("--config", config)?;
    Ok(Asked::Node(Box::new(NodeQuestion { config, node, lease, site, format })))
}

fn file(option: &str, path: String) -> Result<PathBuf, String> {
    match path.as_str() {
        "" => Err(format!("{option}: the name of a file is empty")),
        // Its name is in what is printed, and it may be read twice.
        "-" => Err(format!("{option}: the standard input cannot be used; name a file")),
        _ => Ok(path.into()),
    }
}

fn uuid(text: &str) -> Result<[u8; 16], String> {
    Identity::of_uuid(text).and_then(|identity| identity.uuid).ok_or_else(|| {
        format!("--uuid: \"{text}\" is not a UUID like 4c4c4544-0042-3010-8052-b4c04f564231")
    })
}

fn server(text: String) -> Result<String, String> {
    if text.parse::<std::net::Ipv4Addr>().is_ok() || node::hostname(&text).is_ok() {
        return Ok(text);
    }
    Err(format!("--server: \"{text}\" is neither an address nor a host name"))
}

/// KiB of a size like `64G`, with the suffixes of tmpfs; bytes without one.
fn memory(text: &str) -> Result<u64, String> {
    let wrong = || format!("--memory: \"{text}\" is not a size like 512M or 64G");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift: u32 = match text.get(digits.len()..).unwrap_or_default() {
        "" => 0,
        "k" | "K" | "KiB" => 10,
        "m" | "M" | "MiB" => 20,
        "g" | "G" | "GiB" => 30,
        "t" | "T" | "TiB" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(wrong)?;
    match bytes >> 10 {
        0 => Err(wrong()),
        kib => Ok(kib),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: &str) -> Result<Asked, String> {
        let words = line.split_whitespace().map(|word| word.replace('~', " "));
        read(&mut lexopt::Parser::from_args(words)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_question_about_a_node_is_understood() {
        let line = "--config lts.conf --mac 52:54:00:AA:BB:CC --ip 10.0.0.5/16 --hostname node1 \
                    --cmdline root=dhcp~quiet --image /srv/root --memory 64G --server 10.0.0.1 \
                    --uuid 00112233-4455-6677-8899-aabbccddeeff --format json";
        let Asked::Node(question) = ask(line).unwrap() else { panic!("another question") };
        assert_eq!(question.config, PathBuf::from("lts.conf"));
        assert_eq!(question.node.mac, "52:54:00:aa:bb:cc".parse().ok());
        assert_eq!(question.node.address, Some([10, 0, 0, 5].into()));
        assert_eq!(question.node.prefix, Some(16));
        assert_eq!(question.node.hostname.as_deref(), Some("node1"));
        assert_eq!(question.node.uuid.unwrap()[..4], [0x33, 0x22, 0x11, 0x00]);
        assert_eq!(question.site.command_line, "root=dhcp quiet");
        assert_eq!(question.site.image, Some("/srv/root".into()));
        assert_eq!(question.site.memory_kib, Some(64 << 20));
        assert_eq!(question.site.server.as_deref(), Some("10.0.0.1"));
        assert_eq!(question.format, Format::Json);
    }

    #[test]
    fn other_questions_are_understood() {
        assert_eq!(ask("ip=dhcp root=dhcp"), Ok(Asked::CommandLine("ip=dhcp root=dhcp".into())));
        assert_eq!(ask(""), Ok(Asked::CommandLine(String::new())));
        assert_eq!(ask("--config x --help"), Ok(Asked::Help));
        let Ok(Asked::Diff(question)) = ask("--diff old new --nodes list") else { panic!() };
        assert_eq!((question.old, question.new), ("old".into(), "new".into()));
        let Ok(Asked::Node(question)) = ask("--config c --lease lease.json root=dhcp") else {
            panic!()
        };
        assert_eq!((question.lease, question.node), (Some("lease.json".into()), Node::default()));
        assert_eq!(question.site.command_line, "root=dhcp");
    }

    #[test]
    #[rustfmt::skip]
    fn a_mistake_is_one_clear_line() {
        let cases = [
            ("--config c",                                    "--config needs --mac MAC, or --lease FILE"),
            ("--mac 52:54:00:aa:bb:cc",                       "--mac needs --config FILE"),
            ("--format json root=dhcp",                       "--format needs --config FILE"),
            ("--config c --mac 52:54",                        "--mac: \"52:54\" is not a MAC address like 52:54:00:aa:bb:cc"),
            ("--config c --mac 52:54:00:aa:bb:cc --ip 10.0",  "--ip: \"10.0\" is not an address like 10.0.0.5 or 10.0.0.5/24"),
            ("--config c --mac 52:54:00:aa:bb:cc --ip 10.0.0.5/0", "--ip: \"10.0.0.5/0\" is not an address like 10.0.0.5 or 10.0.0.5/24"),
            ("--config c --mac 52:54:00:aa:bb:cc --hostname a/b", "--hostname: \"a/b\" is not a host name"),
            ("--config c --mac 52:54:00:aa:bb:cc --uuid 1",   "--uuid: \"1\" is not a UUID like 4c4c4544-0042-3010-8052-b4c04f564231"),
            ("--config c --mac 52:54:00:aa:bb:cc --memory 64GB", "--memory: \"64GB\" is not a size like 512M or 64G"),
            ("--config c --mac 52:54:00:aa:bb:cc --memory 99999999999T", "--memory: \"99999999999T\" is not a size like 512M or 64G"),
            ("--config c --mac 52:54:00:aa:bb:cc --memory 5", "--memory: \"5\" is not a size like 512M or 64G"),
            ("--config c --mac 52:54:00:aa:bb:cc --server a:b", "--server: \"a:b\" is neither an address nor a host name"),
            ("--config c --mac 52:54:00:aa:bb:cc --format xml", "--format is \"xml\"; it may be text or json"),
            ("--config c --lease l --ip 10.0.0.5",            "--ip and --lease exclude each other: a lease says both"),
            ("--config c --lease l --server s",               "--server and --lease exclude each other: a lease says both"),
            ("--config c --config d",                         "--config is given twice"),
            ("--config - --mac 52:54:00:aa:bb:cc",            "--config: the standard input cannot be used; name a file"),
            ("--config c --mac 52:54:00:aa:bb:cc --cmdline a b", "the kernel command line is given twice: --cmdline and \"b\""),
            ("--diff old",                                    "--diff needs two files: OLD NEW"),
            ("--diff",                                        "--diff needs two files: OLD NEW"),
            ("--diff old new",                                "--diff needs --nodes LIST, with one node a line"),
            ("--diff old - --nodes l",                        "--diff: the standard input cannot be used; name a file"),
            ("--diff old new --nodes l --mac 52:54:00:aa:bb:cc", "--mac is for one node; --diff takes its nodes from --nodes LIST"),
            ("--nodes l",                                     "--nodes belongs to --diff OLD NEW"),
            ("--colour",                                      "invalid option '--colour'"),
            ("--config",                                      "missing argument for option '--config'"),
        ];
        for (line, expected) in cases {
            assert_eq!(ask(line).unwrap_err(), expected, "{line}");
        }
    }
}
