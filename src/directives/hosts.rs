//! HOSTS_*, SERVER_NAME: /etc/hosts, written anew like LTSP did.

use std::net::IpAddr;

use super::{Draft, Facts, View};
use crate::config::Settings;
use crate::error::Result;

/// Writes /etc/hosts of a node called `name`; gives the number of HOSTS_ lines.
pub fn apply(
    name: &str,
    settings: &Settings,
    facts: &Facts,
    draft: &mut Draft<'_>,
) -> Result<usize> {
    let lines: Vec<_> = settings.family("HOSTS_").into_iter().map(|(_, line)| line).collect();
    let image = draft.read_text("/etc/hosts.ltsp")?;
    let text = render(name, settings, facts, image.as_deref(), &lines);
    draft.write("/etc/hosts", text, 0o644);
    Ok(lines.len())
}

fn render(
    name: &str,
    settings: &Settings,
    facts: &Facts,
    image: Option<&str>,
    lines: &[&str],
) -> String {
    let mut text = String::from("127.0.0.1 localhost\n");
    text += &match domain(settings, facts) {
        Some(domain) if !name.contains('.') => format!("127.0.0.2 {name}.{domain} {name}\n"),
        // A full name already; the short one is what programs ask for as well.
        _ => match name.split_once('.') {
            Some((short, _)) => format!("127.0.0.2 {name} {short}\n"),
            None => format!("127.0.0.2 {name}\n"),
        },
    };
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
    let lease = facts.lease.as_ref();
    let first = |name: &str| Some((*settings.list(name).first()?).to_owned());
    first("SEARCH_DOMAIN")
        .or_else(|| first("DNSDOMAIN"))
        .or_else(|| lease?.search.first().cloned())
        .or_else(|| lease?.domain.clone())
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
            tree.read_text("/etc/hosts").unwrap().unwrap(),
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
            let text = render(name, &settings, &Facts::default(), None, &[]);
            assert_eq!(text.lines().nth(1), Some(expected), "{name} in {search:?}");
            assert_eq!(text.lines().nth(2), Some("::1 ip6-localhost ip6-loopback"), "{name}");
        }
    }
}
