//! netplan, where it speaks to systemd-networkd: what its own commands must know of the links.
//!
//! Our files for networkd come before those that its generator writes, so what networkd does does not
//! depend on this; `netplan get`, `netplan status` and `netplan apply` do. Of names for options of
//! bonds it has its own, so links that are made of others are not described here at all.
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
    if let Some(mtu) = share.link.mtu {
        line(format!("mtu: {mtu}"));
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
