//! HOSTS_*, SERVER_NAME, HOSTNAME_ADDRESS: /etc/hosts, written anew like LTSP did.
//!
//! LTSP gave the node's own name to a loopback address, and whoever runs a cluster of them deleted
//! that line again: HOSTNAME_ADDRESS says which address the name has on the node itself.

use std::net::{IpAddr, Ipv4Addr};

use super::{Draft, Facts, View};
use crate::config::Settings;
use crate::error::{Error, Result};

const HEADER: &str = "# Written by landfall at boot, from lts.conf.\n";

/// Writes /etc/hosts of a node called `name`; gives the number of HOSTS_ lines. With an address that
/// makes no sense the file is the usual one.
pub fn apply(
    name: &str,
    settings: &Settings,
    facts: &Facts,
    draft: &mut Draft<'_>,
) -> Result<usize> {
    let lines: Vec<_> = settings.family("HOSTS_").into_iter().map(|(_, line)| line).collect();
    let image = draft.read_text("/etc/hosts.ltsp")?;
    let (address, wrong) = match own_address(settings, facts) {
        Ok(address) => (address, None),
        Err(error) => (Some(USUAL), Some(error)),
    };
    let text = render(name, address, settings, facts, image.as_deref(), &lines);
    draft.write("/etc/hosts", text, 0o644);
    wrong.map_or(Ok(lines.len()), Err)
}

/// LTSP's.
const USUAL: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// The address of the node's own line; none if there shall be no such line.
fn own_address(settings: &Settings, facts: &Facts) -> Result<Option<IpAddr>> {
    let Some(value) = settings.filled("HOSTNAME_ADDRESS").map(str::trim) else {
        return Ok(Some(USUAL));
    };
    let doing = || format!("reading HOSTNAME_ADDRESS {value:?}");
    match value.to_ascii_lowercase().as_str() {
        "off" => Ok(None),
        "lease" => match facts.leases.address() {
            Some(address) => Ok(Some(address)),
            None => Err(Error::refused(doing(), "the node has no address")),
        },
        address => address.parse().map(Some).map_err(|_| {
            Error::invalid(doing(), "it is \"lease\", \"off\" or the address of the node's name")
        }),
    }
}

fn render(
    name: &str,
    address: Option<IpAddr>,
    settings: &Settings,
    facts: &Facts,
    image: Option<&str>,
    lines: &[&str],
) -> String {
    let mut text = format!("{HEADER}127.0.0.1 localhost\n");
    let names = match (domain(settings, facts), name.split_once('.')) {
        (Some(domain), None) => format!("{name}.{domain} {name}"),
        // A full name already; the short one is what programs ask for as well.
        (_, Some((short, _))) => format!("{name} {short}"),
        (None, None) => name.to_owned(),
    };
    if let Some(address) = address {
        text += &format!("{address} {names}\n");
    }
    let server = super::server(settings, facts).filter(|server| server.parse::<IpAddr>().is_ok());
    if let Some(server) = server {
        let alias = settings.filled("SERVER_NAME").unwrap_or("server");
        text += &format!("{server} {alias}\n");
    }
    text += "::1 ip6-localhost ip6-loopback\n\
             fe00::0 ip6-localnet\n\
             ff00::0 ip6-mcastprefix\n\
             ff02::1 ip6-allnodes\n\
             ff02::2 ip6-allrouters\n";
    for more in
        image.map(str::trim_end).into_iter().filter(|t| !t.is_empty()).chain(lines.iter().copied())
    {
        text += more;
        text.push('\n');
    }
    text
}

/// Of a search list only the first domain: LTSP put the whole list behind the name's dot.
fn domain(settings: &Settings, facts: &Facts) -> Option<String> {
    let first = |name: &str| Some((*settings.list(name).first()?).to_owned());
    first("SEARCH_DOMAIN")
        .or_else(|| first("DNSDOMAIN"))
        .or_else(|| facts.leases.search().first().cloned())
        .or_else(|| facts.leases.domain().map(str::to_owned))
        .filter(|domain| !domain.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;
    use crate::directives::Tree;
    use crate::directives::draft::on;

    #[test]
    fn hosts_is_the_file_that_ltsp_wrote_c65() {
        let mut settings = Settings::default();
        for (name, value) in
            [("DNSDOMAIN", "example.org"), ("SERVER", "10.0.0.1"), ("HOSTS_1", "10.0.0.9 reg")]
        {
            settings.insert(name, value, Origin::Agent);
        }
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        tree.write("/etc/hosts", "10.0.0.7 of-the-image\n", 0o644).unwrap();
        tree.write("/etc/hosts.ltsp", "10.0.0.8 of-the-site\n\n", 0o644).unwrap();
        assert_eq!(
            on(&tree, |draft| apply("node7", &settings, &Facts::default(), draft)).unwrap(),
            1
        );
        assert_eq!(
            tree.read_text("/etc/hosts").unwrap().unwrap().split_once('\n').unwrap().1,
            "127.0.0.1 localhost\n\
             127.0.0.2 node7.example.org node7\n\
             10.0.0.1 server\n\
             ::1 ip6-localhost ip6-loopback\n\
             fe00::0 ip6-localnet\n\
             ff00::0 ip6-mcastprefix\n\
             ff02::1 ip6-allnodes\n\
             ff02::2 ip6-allrouters\n\
             10.0.0.8 of-the-site\n\
             10.0.0.9 reg\n"
        );
    }

    #[test]
    #[rustfmt::skip]
    fn the_nodes_own_line_is_what_getaddrinfo_can_use() {
        let cases = [
            ("node7",             "",            "127.0.0.2 node7"),
            ("node7",             "a.org b.org", "127.0.0.2 node7.a.org node7"),
            ("node7.example.org", "",            "127.0.0.2 node7.example.org node7"),
            ("node7.example.org", "a.org",       "127.0.0.2 node7.example.org node7"),
        ];
        for (name, search, expected) in cases {
            let mut settings = Settings::default();
            settings.insert("SEARCH_DOMAIN", search, Origin::Agent);
            settings.insert("SERVER", "ltsp-1", Origin::Agent); // a name is no line of hosts
            let text = render(name, Some(USUAL), &settings, &Facts::default(), None, &[]);
            assert_eq!(text.lines().nth(2), Some(expected), "{name} in {search:?}");
            assert_eq!(text.lines().nth(3), Some("::1 ip6-localhost ip6-loopback"), "{name}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn the_name_has_the_address_that_the_operator_wants() {
        let leased = Facts { leases: crate::net::Leases::of_ipv4(crate::directives::tests::lease([10, 9, 0, 5], 16)), ..Facts::default() };
        let cases = [
            (None,              Some("127.0.0.2 n1"), true),
            (Some(""),          Some("127.0.0.2 n1"), true),
            (Some("127.0.1.1"), Some("127.0.1.1 n1"), true),
            (Some("fd00::5"),   Some("fd00::5 n1"),   true),
            (Some("lease"),     Some("10.9.0.5 n1"),  true),
            (Some("OFF"),       None,                 true),
            (Some("n1"),        Some("127.0.0.2 n1"), false),
        ];
        for (value, expected, good) in cases {
            let folder = tempfile::tempdir().unwrap();
            let tree = Tree::open(folder.path()).unwrap();
            let settings = Settings::of(&value.map(|value| ("HOSTNAME_ADDRESS", value)).into_iter().collect::<Vec<_>>());
            let result = on(&tree, |draft| apply("n1", &settings, &leased, draft));
            assert_eq!(result.is_ok(), good, "{value:?}");
            let text = tree.read_text("/etc/hosts").unwrap().unwrap();
            assert_eq!(text.lines().find(|line| line.ends_with(" n1")), expected, "{value:?}");
        }
        let unknown = Settings::of(&[("HOSTNAME_ADDRESS", "lease")]);
        assert!(own_address(&unknown, &Facts::default()).is_err());
    }
}
