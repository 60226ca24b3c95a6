//! systemd-networkd: one `.network` file with which it adopts the configured link.
//!
//! Keys and their sections are those of systemd.network(5) of version 252, and of later ones.

use std::fmt::Write;

use super::Port;
use crate::directives::View;
use crate::net::{Addressing, kernel};

/// Where files for networkd may be; of equal names, the one in an earlier folder counts.
const FOLDERS: [&str; 4] = [
    "/etc/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
    "/lib/systemd/network",
];

/// Below `/run`. The first file, by name, that matches a link is the only one that counts for it,
/// so ours must come before all of the image's.
pub fn path(link: &str, view: &dyn View) -> String {
    let name = format!("10-landfall-{link}.network");
    let earlier = FOLDERS.iter().any(|folder| {
        let names = view.names(folder).unwrap_or_default();
        names.iter().any(|other| other.ends_with(".network") && *other <= name)
    });
    // '+' comes before digits and letters.
    let first = if earlier { "+" } else { "" };
    format!("systemd/network/{first}{name}")
}

/// `KeepConfiguration` also keeps the address when the lease cannot be renewed, and
/// `IgnoreCarrierLoss` lets somebody pull a cable and put it back.
pub fn render(port: &Port<'_>) -> String {
    let Port { mac, plan, lease, wishes, .. } = port;
    if port.is_composed() {
        let macs: Vec<_> = port.beneath.iter().map(ToString::to_string).collect();
        return format!(
            "# Written by landfall at boot: the root file system is behind these links.\n\
             [Match]\nMACAddress={}\n\n[Link]\nUnmanaged=yes\n",
            macs.join(" ")
        );
    }
    // Bridges, VLANs and the like may have the address of the port they use; they are no "ether".
    let mut text = format!(
        "# Written by landfall at boot: the root file system is behind this link.\n\
         [Match]\nMACAddress={mac}\nType=ether\n\n\
         [Network]\nKeepConfiguration=yes\nIgnoreCarrierLoss=yes\n"
    );
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key}={value}");
    };
    for server in plan.dns.iter().filter(|_| !wishes.own_dns) {
        line("DNS", server);
    }
    for server in plan.ntp.iter().filter(|_| !wishes.own_ntp) {
        line("NTP", server);
    }
    match plan.addressing {
        Addressing::Dhcp { .. } => {
            line("DHCP", &"ipv4");
            // The same client to the server as before, or it would give another address; and no
            // goodbye at shutdown, when the root is still needed.
            line("\n[DHCPv4]\nClientIdentifier", &"mac");
            line("SendRelease", &"no");
            // What a setting names is told to resolved and timesyncd, which would add these.
            if wishes.own_dns {
                line("UseDNS", &"no");
            }
            if wishes.own_ntp {
                line("UseNTP", &"no");
            }
            if !plan.vendor_class.is_empty() {
                line("VendorClassIdentifier", &plan.vendor_class);
            }
            if let Some(name) = &plan.hostname {
                line("UseHostname", &"no");
                line("Hostname", name);
            }
        }
        Addressing::Static { .. } => {
            line("Address", &format_args!("{}/{}", lease.address, lease.prefix));
            for entry in kernel::entries(lease) {
                line("\n[Route]\nDestination", &entry.route.to);
                if let Some(via) = entry.route.via {
                    line("Gateway", &via);
                }
                if entry.on_link {
                    line("GatewayOnLink", &"yes");
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::keep::Wishes;
    use crate::net::keep::tests::{Files, port, root};
    use crate::net::lease::tests::lease;
    use crate::net::plan::tests::plan;
    use crate::net::{Lease, NetworkPlan, Route};

    #[test]
    #[rustfmt::skip]
    fn our_file_comes_before_those_of_the_image() {
        let cases: [(Files<'_>, &str); 4] = [
            (&[],                                              "systemd/network/10-landfall-eth0.network"),
            (&[("usr/lib/systemd/network/80-dhcp.network", "")], "systemd/network/10-landfall-eth0.network"),
            (&[("etc/systemd/network/05-lan.network", "")],    "systemd/network/+10-landfall-eth0.network"),
            (&[("etc/systemd/network/05-lan.link", "")],       "systemd/network/10-landfall-eth0.network"),
        ];
        for (files, expected) in cases {
            let (_folder, tree) = root(files);
            assert_eq!(path("eth0", &tree), expected, "{files:?}");
        }
    }

    #[test]
    fn networkd_adopts_a_lease() {
        let plan = NetworkPlan { hostname: Some("n1".into()), ..plan() };
        let lease = lease("10.0.0.5/24");
        let expected = "\
# Written by landfall at boot: the root file system is behind this link.
[Match]
MACAddress=52:54:00:aa:bb:cc
Type=ether

[Network]
KeepConfiguration=yes
IgnoreCarrierLoss=yes
DHCP=ipv4

[DHCPv4]
ClientIdentifier=mac
SendRelease=no
VendorClassIdentifier=landfall
UseHostname=no
Hostname=n1
";
        assert_eq!(render(&port(&plan, &lease)), expected);

        let wishes = Wishes { own_dns: true, own_ntp: true, ..Wishes::default() };
        let plan = NetworkPlan { dns: vec![[10, 0, 0, 1].into()], ..plan };
        let text = render(&Port { wishes, ..port(&plan, &lease) });
        let more = expected.replace("SendRelease=no\n", "SendRelease=no\nUseDNS=no\nUseNTP=no\n");
        assert_eq!(text, more, "C54: those of a setting, and no others");
    }

    #[test]
    fn networkd_adopts_a_typed_address() {
        let address = [10, 0, 0, 5].into();
        let gateway = Some([10, 9, 0, 1].into());
        let plan = NetworkPlan {
            addressing: Addressing::Static { address, prefix: 24, gateway },
            dns: vec![[10, 0, 0, 1].into()],
            ..plan()
        };
        let routes = vec![Route { to: ipnet::Ipv4Net::default(), via: gateway }];
        let lease = Lease { routes, ..lease("10.0.0.5/24") };
        let expected = "\
KeepConfiguration=yes
IgnoreCarrierLoss=yes
DNS=10.0.0.1
Address=10.0.0.5/24

[Route]
Destination=0.0.0.0/0
Gateway=10.9.0.1
GatewayOnLink=yes
";
        let text = render(&port(&plan, &lease));
        assert_eq!(text.split_once("[Network]\n").unwrap().1, expected);
    }
}
