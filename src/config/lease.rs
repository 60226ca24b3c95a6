//! What the network said, under the names that LTSP's DHCP script gave it.
//!
//! The same names are in klibc's `/run/net-IFACE.conf`; files and commands of LTSP 5 know them.

use std::net::{IpAddr, Ipv4Addr};

use super::Origin;
use crate::net::Lease;

/// The variables of `lease` on `device`, for the base of an evaluation. What the lease does not
/// say is left out.
///
/// `boot_server` is the one that was decided on, and becomes `ROOTSERVER` and `SERVER`.
pub fn lease_variables(
    lease: &Lease,
    device: &str,
    boot_server: Option<&str>,
) -> Vec<(String, String, Origin)> {
    let dns = |at: usize| lease.dns.iter().filter(|ip| ip.is_ipv4()).nth(at);
    let default_route = lease.routes.iter().find(|route| route.to.prefix_len() == 0);
    let text = |value: Option<&dyn ToString>| value.map(ToString::to_string);
    let netmask = u32::MAX.checked_shl(32_u32.saturating_sub(lease.prefix.into())).unwrap_or(0);
    let ntp = some_joined(&lease.ntp);
    let values = [
        ("DEVICE", Some(device.to_owned())),
        ("IPV4ADDR", Some(lease.address.to_string())),
        ("IPV4NETMASK", Some(Ipv4Addr::from_bits(netmask).to_string())),
        ("IPV4BROADCAST", text(lease.broadcast.as_ref().map(|ip| ip as _))),
        ("IPV4GATEWAY", default_route.and_then(|route| route.via).map(|ip| ip.to_string())),
        ("IPV4DNS0", text(dns(0).map(|ip| ip as _))),
        ("IPV4DNS1", text(dns(1).map(|ip| ip as _))),
        ("DNS_SERVER", some_joined(&lease.dns)),
        ("HOSTNAME", lease.hostname.clone()),
        ("DNSDOMAIN", lease.domain.clone()),
        ("SEARCH_DOMAIN", Some(lease.search.join(" "))),
        ("NISDOMAIN", lease.nis_domain.clone()),
        ("ROOTSERVER", boot_server.map(str::to_owned)),
        ("SERVER", boot_server.map(str::to_owned)),
        ("ROOTPATH", lease.root_path.clone()),
        ("filename", lease.filename.clone()),
        ("NTPSVR", ntp.clone()),
        ("TIMESVR", ntp),
        ("TIMEZONE", lease.time_offset.map(|seconds| seconds.to_string())),
    ];
    values
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)))
        // Bytes from the network; an environment cannot carry a NUL.
        .map(|(name, value)| (name.to_owned(), value.replace('\0', ""), Origin::Dhcp))
        .collect()
}

fn some_joined(addresses: &[IpAddr]) -> Option<String> {
    let words: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    Some(words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Route;

    #[test]
    fn a_lease_has_the_names_of_ltsp() {
        let lease = Lease {
            address: [10, 0, 0, 57].into(),
            prefix: 22,
            broadcast: None,
            routes: vec![
                Route { to: "10.9.0.0/16".parse().unwrap(), via: None },
                Route { to: "0.0.0.0/0".parse().unwrap(), via: Some([10, 0, 0, 1].into()) },
            ],
            mtu: None,
            dns: vec!["10.0.0.2".parse().unwrap(), "fd00::1".parse().unwrap()],
            domain: Some("example.org".into()),
            search: vec!["a.org".into(), "b.org".into()],
            hostname: Some(String::new()),
            ntp: vec![],
            time_offset: Some(3600),
            nis_domain: None,
            root_path: Some("/opt/ltsp/amd64".into()),
            next_server: None,
            tftp_server: None,
            filename: Some("/ltsp/amd64/pxelinux.0".into()),
            server_id: None,
            lease_seconds: None,
            renew_seconds: None,
            rebind_seconds: None,
        };
        let variables = lease_variables(&lease, "eth0", Some("10.0.0.1"));
        let text: Vec<_> = variables.iter().map(|(n, v, _)| format!("{n}={v}")).collect();
        assert_eq!(
            text,
            [
                "DEVICE=eth0",
                "IPV4ADDR=10.0.0.57",
                "IPV4NETMASK=255.255.252.0",
                "IPV4GATEWAY=10.0.0.1",
                "IPV4DNS0=10.0.0.2",
                "DNS_SERVER=10.0.0.2 fd00::1",
                "DNSDOMAIN=example.org",
                "SEARCH_DOMAIN=a.org b.org",
                "ROOTSERVER=10.0.0.1",
                "SERVER=10.0.0.1",
                "ROOTPATH=/opt/ltsp/amd64",
                "filename=/ltsp/amd64/pxelinux.0",
                "TIMEZONE=3600",
            ]
        );
    }
}
