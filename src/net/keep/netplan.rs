//! netplan, where it speaks to systemd-networkd: what its own commands must know of the links.
//!
//! Our files for networkd come before those that its generator writes, so what networkd does does not
//! depend on this; `netplan get`, `netplan status` and `netplan apply` do. Of names for options of
//! bonds it has its own, so links that are made of others are not described here at all.
//!
//! Nor are the names and sizes of ports: for those it writes a `.link` file, with which udev would no
//! longer give the port the name that the rest of the image knows it by.
//!
//! Where it speaks to NetworkManager it would only write a second profile for each link.

use super::share::{Ipv4, Ipv6, Share};
use super::{HEADER, RunFile};
use crate::net::Lease;

/// After the image's own files, whose keys it must outrank.
const PATH: &str = "netplan/99-landfall.yaml";

pub fn file(shares: &[Share<'_>]) -> Option<RunFile> {
    let ports: Vec<_> =
        shares.iter().filter(|share| share.is_port() && share.has_addresses()).collect();
    let is_whole = shares.iter().all(|share| share.is_port() && share.vlans().next().is_none());
    if ports.is_empty() || !is_whole {
        return None;
    }
    let mut text = format!("{HEADER}network:\n  version: 2\n  ethernets:\n");
    for share in ports {
        text += &port(share);
    }
    // Others may not read it: netplan complains if they could.
    Some(RunFile::private(PATH, text))
}

fn port(share: &Share<'_>) -> String {
    let mut lines = vec![
        format!("    landfall-{}:", share.link.name),
        "      renderer: networkd".to_owned(),
        format!("      match: {{macaddress: \"{}\"}}", share.hardware()),
        // KeepConfiguration=, in its language.
        "      critical: true".to_owned(),
    ];
    let mut line = |text: String| lines.push(format!("      {text}"));
    line(format!("dhcp4: {}", share.ipv4.asks()));
    if share.ipv4.asks() {
        line("dhcp-identifier: mac".to_owned());
    }
    line(format!("dhcp6: {}", matches!(share.ipv6, Ipv6::Dhcp(_))));
    match share.ipv6 {
        Ipv6::Auto(_) | Ipv6::Dhcp(_) => line("accept-ra: true".to_owned()),
        Ipv6::LinkLocal => line("accept-ra: false".to_owned()),
        Ipv6::Fixed { routers, .. } => line(format!("accept-ra: {routers}")),
        Ipv6::Untouched => {}
    }
    let addresses = addresses(share);
    if !addresses.is_empty() {
        line(format!("addresses: [{}]", quoted(&addresses)));
    }
    if let Ipv4::Fixed(lease) = share.ipv4 {
        routes(lease).into_iter().for_each(&mut line);
    }
    if !share.dns.is_empty() {
        let servers: Vec<_> = share.dns.iter().map(ToString::to_string).collect();
        let search = quoted(&share.search);
        line(format!("nameservers: {{addresses: [{}], search: [{search}]}}", quoted(&servers)));
    }
    lines.join("\n") + "\n"
}

fn addresses(share: &Share<'_>) -> Vec<String> {
    let mut addresses = Vec::new();
    if let Ipv4::Fixed(lease) = share.ipv4 {
        addresses.push(format!("{}/{}", lease.address, lease.prefix));
    }
    if let Ipv6::Fixed { lease, .. } = share.ipv6 {
        addresses
            .extend(lease.addresses.iter().map(|one| format!("{}/{}", one.address, one.prefix)));
    }
    addresses
}

fn routes(lease: &Lease) -> Vec<String> {
    let through = lease.routes.iter().filter_map(|route| {
        let via = route.via?;
        let on_link = if lease.network().contains(&via) { "" } else { ", on-link: true" };
        Some(format!("  - {{to: \"{}\", via: \"{via}\"{on_link}}}", route.to))
    });
    let lines: Vec<_> = through.collect();
    match lines.is_empty() {
        true => lines,
        false => std::iter::once("routes:".to_owned()).chain(lines).collect(),
    }
}

/// In JSON's quotes, which are YAML's: search domains are whatever a server has sent.
fn quoted(words: &[String]) -> String {
    let words = words.iter().map(|word| serde_json::Value::from(word.as_str()).to_string());
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Route;
    use crate::net::configured::Configured;
    use crate::net::description::{HandoverMode, Ipv6Method};
    use crate::net::keep::tests::{Files, dual_stack, left, port, text, v6_only, vlan_on_bond};
    use crate::net::lease::tests::lease;

    const NETPLAN: Files<'static> = &[
        ("usr/lib/systemd/system-generators/netplan", ""),
        ("etc/netplan/50-cloud-init.yaml", "network: {version: 2}\n"),
    ];

    #[test]
    fn netplan_knows_the_port() {
        let left = left(&[port()], NETPLAN, HandoverMode::Dhcp);
        let expected = "\
network:
  version: 2
  ethernets:
    landfall-eth0:
      renderer: networkd
      match: {macaddress: \"52:54:00:aa:bb:cc\"}
      critical: true
      dhcp4: true
      dhcp-identifier: mac
      dhcp6: false
";
        assert_eq!(text(&left, "netplan/"), expected);
        // What it would write comes after ours.
        assert!(text(&left, "10-landfall-eth0.network").contains("DHCP=ipv4\n"));
    }

    #[test]
    fn a_frozen_lease_is_written_down() {
        let routes = vec![
            Route { to: "0.0.0.0/0".parse().unwrap(), via: Some([10, 9, 0, 1].into()) },
            Route { to: "10.7.0.0/16".parse().unwrap(), via: Some([10, 0, 0, 9].into()) },
        ];
        let dns = vec![[10, 0, 0, 1].into()];
        let search = vec!["lab.example".to_owned()];
        let lease = Lease { routes, dns, search, ..lease("10.0.0.5/24") };
        let link = Configured { ipv4: Some(lease), mtu: Some(9000), ..dual_stack() };
        let left = left(&[link], NETPLAN, HandoverMode::Static);
        let text = text(&left, "netplan/");
        let expected = "\
      dhcp4: false
      dhcp6: false
      accept-ra: true
      addresses: [\"10.0.0.5/24\", \"2001:db8::7/128\", \"2001:db8::5054:ff:feaa:bbcc/64\"]
      routes:
        - {to: \"0.0.0.0/0\", via: \"10.9.0.1\", on-link: true}
        - {to: \"10.7.0.0/16\", via: \"10.0.0.9\"}
      nameservers: {addresses: [\"10.0.0.1\", \"2001:db8::53\"], search: [\"lab.example\"]}
";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn only_where_all_of_it_can_be_said() {
        let none = |links: &[Configured], files: Files<'_>, mode| {
            !left(links, files, mode).run.iter().any(|file| file.path.contains("/netplan/"))
        };
        let for_the_other: Files<'_> = &[
            NETPLAN[0],
            ("etc/netplan/01.yaml", "network: {renderer: NetworkManager}\n"),
            ("etc/systemd/system/multi-user.target.wants/NetworkManager.service", "->/x"),
        ];
        assert!(none(&vlan_on_bond(), NETPLAN, HandoverMode::Dhcp), "options of bonds");
        assert!(none(&[port()], NETPLAN, HandoverMode::Unmanaged), "hands off");
        assert!(none(&[port()], for_the_other, HandoverMode::Dhcp), "a second profile");
        assert!(none(&[port()], &[NETPLAN[1]], HandoverMode::Dhcp), "no generator");
        assert!(!none(&[v6_only(Ipv6Method::Auto)], NETPLAN, HandoverMode::Dhcp));
    }
}
