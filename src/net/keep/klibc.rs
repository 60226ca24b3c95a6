//! `/run/net-IFACE.conf` and `/run/net6-IFACE.conf`, which initramfs-tools' scripts, LTSP and
//! cloud-init read: assignments for a shell, by the names of klibc's ipconfig and of dhclient's
//! script for initramfs-tools.

use super::RunFile;
use super::share::Share;
use crate::directives::assignment;
use crate::net::{Lease6, Leases, NetworkPlan, scoped, variables};

pub fn files(share: &Share<'_>, plan: &NetworkPlan) -> Vec<RunFile> {
    let link = share.link;
    let of_ipv4 = link.ipv4.as_ref().map(|lease| {
        let leases = Leases::of_ipv4(lease.clone());
        let variables = variables(&link.name, &link.name, link.mac, link.origin, plan, &leases);
        RunFile::open(format!("net-{}.conf", link.name), text(&variables))
    });
    let of_ipv6 = link.ipv6.as_ref().and_then(|lease| {
        let variables = variables6(&link.name, lease)?;
        Some(RunFile::open(format!("net6-{}.conf", link.name), text(&variables)))
    });
    [of_ipv4, of_ipv6].into_iter().flatten().collect()
}

fn variables6(link: &str, lease: &Lease6) -> Option<Vec<(String, String)>> {
    let address = lease.address()?;
    let nth = |index: usize| {
        let server = lease.dns.get(index).map(|server| scoped((*server).into(), link).to_string());
        server.unwrap_or_default()
    };
    let router = lease.routers.first().map(|router| router.address.to_string());
    let all = [
        ("DEVICE6", link.to_owned()),
        ("IPV6PROTO", address.origin.klibc().to_owned()),
        ("IPV6ADDR", address.address.to_string()),
        ("IPV6NETMASK", address.prefix.to_string()),
        ("IPV6GATEWAY", router.unwrap_or_default()),
        ("IPV6DNS0", nth(0)),
        ("IPV6DNS1", nth(1)),
        ("IPV6DOMAINSEARCH", lease.search.join(" ")),
        ("HOSTNAME", lease.hostname.clone().unwrap_or_default()),
    ];
    let known = all.into_iter().filter(|(_, value)| !value.is_empty());
    Some(known.map(|(name, value)| (name.to_owned(), value)).collect())
}

fn text(variables: &[(String, String)]) -> String {
    variables.iter().map(|(name, value)| assignment(name, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_the_server_sent() {
        let variables = [("ROOTPATH".to_owned(), "it's; $(reboot)".to_owned())];
        assert_eq!(text(&variables), "ROOTPATH='it'\\''s; $(reboot)'\n");
    }
}
