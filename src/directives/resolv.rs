//! DNS_SERVER, SEARCH_DOMAIN: the resolver of the running system.
//!
//! Four owners are possible. systemd-resolved gets a drop-in, because its own file below /run is
//! written by itself later (LTSP wrote through the link, into nothing). Debian's resolvconf gets
//! its `base` file. openresolv, which writes /etc/resolv.conf anew whenever a link reports to it,
//! gets its configuration and the file. Otherwise /etc/resolv.conf is ours, as a file of its own;
//! a systemd-resolved that finds such a file reads it and leaves it alone.
//!
//! Debian 13 differs from 12 only in paths: resolved is a package of its own in both, with
//! a `/usr/sbin/resolvconf` that is resolvectl, and which needs neither file.

use super::units::{self, Unit};
use super::{Draft, Facts, Kind, View};
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::net::dial::Literal;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const DROP_IN: &str = "/etc/systemd/resolved.conf.d/landfall.conf";
const BASE: &str = "/etc/resolvconf/resolv.conf.d/base";
const OPENRESOLV: &str = "/etc/resolvconf.conf";
const RESOLVED: &str = "systemd-resolved.service";

/// What the resolver shall know.
#[derive(Debug, Default, PartialEq, Eq)]
struct Resolver {
    servers: Vec<String>,
    search: Vec<String>,
}

/// Gives the file that was written, none if there is nothing to say; and the words that were left
/// out for making no sense.
pub fn apply(
    settings: &Settings,
    facts: &Facts,
    draft: &mut Draft<'_>,
) -> Result<(Option<&'static str>, Vec<Error>)> {
    let (resolver, wrong) = choose(settings, facts);
    match resolver == Resolver::default() {
        true => Ok((None, wrong)),
        false => Ok((Some(write(&resolver, draft)?), wrong)),
    }
}

fn write(resolver: &Resolver, draft: &mut Draft<'_>) -> Result<&'static str> {
    let link = match draft.kind(RESOLV_CONF)? {
        Some(Kind::Link(target)) => Some(target),
        _ => None,
    };
    let has_resolvconf =
        ["/sbin/resolvconf", "/usr/sbin/resolvconf"].iter().any(|path| draft.exists(path));
    let file = match link {
        Some(target) if is_resolveds(&target) && resolved_will_run(draft)? => {
            draft.write(DROP_IN, resolver.drop_in(), 0o644);
            DROP_IN
        }
        Some(_) if has_resolvconf && draft.exists("/etc/resolvconf/resolv.conf.d") => {
            draft.write(BASE, resolver.resolv_conf(), 0o644);
            BASE
        }
        // Also in place of a link: to wherever it leads, nobody is left who would write there.
        _ => {
            if has_resolvconf && let Some(own) = draft.read_text(OPENRESOLV)? {
                draft.write(OPENRESOLV, format!("{own}\n{}", resolver.openresolv()), 0o644);
            }
            draft.replace(RESOLV_CONF, resolver.resolv_conf(), 0o644);
            RESOLV_CONF
        }
    };
    Ok(file)
}

/// Its own files below /run, and the one for images whose /etc cannot be written.
fn is_resolveds(target: &str) -> bool {
    target.contains("systemd/resolve/") || target.ends_with("lib/systemd/resolv.conf")
}

/// Images link to it and mask the service, or do not start it, now and then.
fn resolved_will_run(draft: &Draft<'_>) -> Result<bool> {
    let there = matches!(units::find(draft, RESOLVED)?, Unit::File(_));
    Ok(there && units::is_enabled(draft, RESOLVED))
}

fn choose(settings: &Settings, facts: &Facts) -> (Resolver, Vec<Error>) {
    let leases = &facts.leases;
    let words = |name: &str| -> Option<Vec<String>> {
        let words: Vec<_> = settings.list(name).into_iter().map(str::to_owned).collect();
        (!words.is_empty()).then_some(words)
    };
    let numbered = || {
        let both = ["IPV4DNS0", "IPV4DNS1"].map(|name| words(name).unwrap_or_default());
        Some(both.concat()).filter(|words| !words.is_empty())
    };
    let of_lease = || {
        let all: Vec<String> = leases.dns().iter().map(ToString::to_string).collect();
        (!all.is_empty()).then_some(all)
    };
    let mut servers = words("DNS_SERVER").or_else(numbered).or_else(of_lease).unwrap_or_default();
    let mut search = words("SEARCH_DOMAIN")
        .or_else(|| words("DNSDOMAIN"))
        .or_else(|| Some(leases.search()).filter(|search| !search.is_empty()))
        .or_else(|| Some(vec![leases.domain()?.to_owned()]))
        .unwrap_or_default();
    let mut wrong = Vec::new();
    let mut leave_out = |what: &str, word: &str, why: &str| {
        wrong.push(Error::invalid(format!("reading {what} {word:?}"), why));
        false
    };
    servers.retain(|server| match server.parse::<Literal>() {
        // klibc writes 0.0.0.0 for "none".
        Ok(Literal { address, link }) if link.as_deref().is_none_or(is_plain) => {
            !address.is_unspecified()
        }
        _ => leave_out("the name server", server, "it is not an address; left out"),
    });
    // From the network, and on their way into a shell's file.
    search.retain(|domain| {
        is_plain(domain) || leave_out("the search domain", domain, "it is not a domain; left out")
    });
    (Resolver { servers, search }, wrong)
}

/// Harmless in a shell's file.
fn is_plain(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

const HEADER: &str = "# Written by landfall at boot, from lts.conf and DHCP.\n";

impl Resolver {
    fn resolv_conf(&self) -> String {
        let mut text = HEADER.to_owned();
        if !self.search.is_empty() {
            text += &format!("search {}\n", self.search.join(" "));
        }
        for server in &self.servers {
            text += &format!("nameserver {server}\n");
        }
        text
    }

    /// An empty line takes back what the image's own files say, to which ours would only be added.
    fn drop_in(&self) -> String {
        let mut text = format!("{HEADER}[Resolve]\n");
        if !self.servers.is_empty() {
            text += &format!("DNS=\nDNS={}\n", self.servers.join(" "));
        }
        if !self.search.is_empty() {
            text += &format!("Domains=\nDomains={}\n", self.search.join(" "));
        }
        text
    }

    /// Lines for a shell. What it prepends comes before everything that links report.
    fn openresolv(&self) -> String {
        let mut text = HEADER.to_owned();
        if !self.search.is_empty() {
            text += &format!("search_domains=\"{}\"\n", self.search.join(" "));
        }
        if !self.servers.is_empty() {
            text += &format!("name_servers=\"{}\"\n", self.servers.join(" "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;
    use crate::directives::Tree;
    use crate::directives::draft::on;
    use crate::directives::tests::lease;

    #[test]
    #[rustfmt::skip]
    fn the_resolver_knows_what_it_should() {
        let cases: &[(&str, &[(&str, &str)], &[&str], &[&str])] = &[
            ("C54", &[("DNS_SERVER", "10.0.0.2 10.0.0.3"), ("IPV4DNS0", "10.0.0.1")], &["10.0.0.2", "10.0.0.3"], &["example.org"]),
            ("C66", &[("IPV4DNS0", "10.0.0.1"), ("IPV4DNS1", "0.0.0.0")], &["10.0.0.1"], &["example.org"]),
            ("2.2", &[], &["10.0.0.53"], &["example.org"]),
            ("2.2", &[("SEARCH_DOMAIN", "a.org b.org")], &["10.0.0.53"], &["a.org", "b.org"]),
            ("",    &[("SEARCH_DOMAIN", "a.org $(reboot)")], &["10.0.0.53"], &["a.org"]),
            ("",    &[("DNS_SERVER", "fe80::1%2")], &["fe80::1%2"], &["example.org"]),
            ("",    &[("DNS_SERVER", "fe80::1%$(reboot)")], &[], &["example.org"]),
            ("",    &[("DNS_SERVER", "ns.example.org 10.0.0.2")], &["10.0.0.2"], &["example.org"]),
        ];
        let mut of_dhcp = lease([10, 0, 0, 5], 24);
        of_dhcp.dns = vec![[10, 0, 0, 53].into()];
        of_dhcp.domain = Some("example.org".into());
        let facts = Facts { leases: crate::net::Leases::of_ipv4(of_dhcp), ..Facts::default() };
        for (row, values, servers, search) in cases {
            let mut settings = Settings::default();
            for (name, value) in *values {
                settings.insert(*name, *value, Origin::Agent);
            }
            let (resolver, _) = choose(&settings, &facts);
            assert_eq!(resolver.servers, *servers, "{row}: {values:?}");
            assert_eq!(resolver.search, *search, "{row}: {values:?}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn whoever_owns_resolv_conf_is_told_c67() {
        let stub = Some("../run/systemd/resolve/stub-resolv.conf");
        let resolved = "/usr/lib/systemd/system/systemd-resolved.service";
        let enabled = "/etc/systemd/system/sysinit.target.wants/systemd-resolved.service";
        let cases: &[(&str, Option<&str>, &[&str], Option<&str>, &str)] = &[
            ("plain file",              None, &[RESOLV_CONF], None, RESOLV_CONF),
            ("nothing there",           None, &[], None, RESOLV_CONF),
            ("resolved",                stub, &[resolved, enabled], None, DROP_IN),
            ("resolved, trixie",        stub, &[resolved, enabled, "/usr/sbin/resolvconf"], None, DROP_IN),
            ("resolved's static file",  Some("../usr/lib/systemd/resolv.conf"), &[resolved, enabled], None, DROP_IN),
            ("resolved reads the file", None, &[RESOLV_CONF, resolved, enabled], None, RESOLV_CONF),
            ("resolved is masked",      stub, &[resolved, enabled], Some("/dev/null"), RESOLV_CONF),
            ("resolved is disabled",    stub, &[resolved], None, RESOLV_CONF),
            ("resolved is not there",   stub, &[], None, RESOLV_CONF),
            ("resolvconf",              Some("/run/resolvconf/resolv.conf"), &["/sbin/resolvconf", BASE], None, BASE),
            ("resolvconf, trixie",      Some("../run/resolvconf/resolv.conf"), &["/usr/sbin/resolvconf", BASE], None, BASE),
            ("resolvconf, not linked",  None, &[RESOLV_CONF, "/usr/sbin/resolvconf", BASE], None, RESOLV_CONF),
            ("openresolv",              None, &[RESOLV_CONF, "/usr/sbin/resolvconf", OPENRESOLV], None, RESOLV_CONF),
            ("another link",            Some("/run/NetworkManager/resolv.conf"), &[], None, RESOLV_CONF),
        ];
        let mut settings = Settings::default();
        settings.insert("DNS_SERVER", "10.0.0.2 10.0.0.3", Origin::Agent);
        settings.insert("SEARCH_DOMAIN", "a.org b.org", Origin::Agent);
        for (case, link, files, mask, expected) in cases {
            let folder = tempfile::tempdir().unwrap();
            let tree = Tree::open(folder.path()).unwrap();
            for file in *files {
                tree.write(file, "of the image\n", 0o755).unwrap();
            }
            if let Some(target) = link {
                tree.link(RESOLV_CONF, target).unwrap();
            }
            if let Some(target) = mask {
                tree.link("/etc/systemd/system/systemd-resolved.service", target).unwrap();
            }
            let file = on(&tree, |draft| apply(&settings, &Facts::default(), draft)).unwrap();
            assert_eq!(file.0, Some(*expected), "{case}");
            let text = tree.read_text(expected).unwrap().unwrap();
            let lines: Vec<_> = text.lines().skip(1).collect();
            let wanted: &[&str] = match *expected {
                DROP_IN => &["[Resolve]", "DNS=", "DNS=10.0.0.2 10.0.0.3", "Domains=", "Domains=a.org b.org"],
                _ => &["search a.org b.org", "nameserver 10.0.0.2", "nameserver 10.0.0.3"],
            };
            assert_eq!(lines, wanted, "{case}");
            if files.contains(&OPENRESOLV) {
                let text = tree.read_text(OPENRESOLV).unwrap().unwrap();
                let ours = "search_domains=\"a.org b.org\"\nname_servers=\"10.0.0.2 10.0.0.3\"\n";
                assert!(text.starts_with("of the image\n") && text.ends_with(ours), "{text}");
            }
        }
    }

    #[test]
    fn without_anything_to_say_the_images_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        let nothing =
            on(&tree, |draft| apply(&Settings::default(), &Facts::default(), draft)).unwrap();
        assert!(nothing.0.is_none() && nothing.1.is_empty());
        assert!(!tree.exists(RESOLV_CONF));
    }
}
