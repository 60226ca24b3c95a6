//! Links to hand over, roots to hand them to, and what holds for all of them.

use super::*;
use crate::net::Lease;
use crate::net::Mac;
use crate::net::bond::BondOptions;
use crate::net::configured::Composition;
use crate::net::description::{AddressRequest, Ipv4Method, Ipv6Method};
use crate::net::kernel::Origin;
use crate::net::lease::tests::lease;
use crate::net::lease6::tests::address6;
use crate::net::lease6::{Lease6, Origin6, Preference, Router6};
use crate::net::plan::tests::plan;

pub const NODE: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);
pub const SECOND: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xdd]);

/// Path and contents; where those begin with `->`, it is a link.
pub type Files<'a> = &'a [(&'a str, &'a str)];

pub const WITH_NETWORKD: Files<'static> =
    &[("etc/systemd/system/multi-user.target.wants/systemd-networkd.service", "->/x")];
pub const WITH_NETWORK_MANAGER: Files<'static> =
    &[("etc/systemd/system/multi-user.target.wants/NetworkManager.service", "->/x")];

pub fn root(files: Files<'_>) -> (tempfile::TempDir, Tree) {
    let folder = tempfile::tempdir().unwrap();
    for (path, contents) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match contents.strip_prefix("->") {
            Some(target) => std::os::unix::fs::symlink(target, path).unwrap(),
            None => fs::write(path, contents).unwrap(),
        }
    }
    let tree = Tree::open(folder.path()).unwrap();
    (folder, tree)
}

pub fn inheritance<'a>(links: &'a [Configured], plan: &'a NetworkPlan) -> Inheritance<'a> {
    Inheritance {
        links,
        index: &|name| (name == "eth0").then_some(2),
        plan,
        ignore_peer_dns: false,
        mode: HandoverMode::Dhcp,
        wishes: Wishes::default(),
    }
}

/// What `ip=` asked for.
pub fn request(ipv4: Ipv4Method, ipv6: Ipv6Method) -> AddressRequest {
    AddressRequest { ipv4, ipv6, ..AddressRequest::any() }
}

/// A port with a lease.
pub fn port() -> Configured {
    Configured {
        name: "eth0".to_owned(),
        mac: NODE,
        permanent_mac: None,
        composition: Composition::Port,
        master: None,
        mtu: None,
        request: Some(request(Ipv4Method::Dhcp { request: None }, Ipv6Method::Off)),
        ipv4: Some(lease("10.0.0.5/24")),
        origin: Origin::Dhcp,
        ipv6: None,
        routes: Vec::new(),
        boots: true,
    }
}

/// A link that somebody before us has made of links with these addresses.
fn foreign(name: &str, beneath: &[Mac]) -> Configured {
    let composition = Composition::Foreign { beneath: beneath.to_vec() };
    Configured { name: name.to_owned(), composition, request: None, ..port() }
}

/// A link without any address.
pub fn part(name: &str, mac: Mac, composition: Composition) -> Configured {
    Configured {
        name: name.to_owned(),
        mac,
        composition,
        request: None,
        ipv4: None,
        boots: false,
        ..port()
    }
}

/// A bond of two ports, of which the second has the first one's address by now, with a VLAN on it
/// that has the lease.
pub fn vlan_on_bond() -> Vec<Configured> {
    let options = BondOptions::parse("mode=active-backup,primary=eth0").unwrap();
    let member = |name: &str, own| Configured {
        permanent_mac: Some(own),
        master: Some("bond0".to_owned()),
        ..part(name, NODE, Composition::Port)
    };
    vec![
        member("eth0", NODE),
        member("eth1", SECOND),
        part("bond0", NODE, Composition::Bond { options }),
        Configured {
            name: "bond0.5".to_owned(),
            composition: Composition::Vlan { id: 5, over: "bond0".to_owned() },
            ..port()
        },
    ]
}

pub fn bridge() -> Vec<Configured> {
    let member =
        Configured { master: Some("br0".to_owned()), ..part("eth0", NODE, Composition::Port) };
    vec![member, Configured { name: "br0".to_owned(), composition: Composition::Bridge, ..port() }]
}

/// What a router and a DHCPv6 server have given.
pub fn lease6() -> Lease6 {
    let router = Router6 {
        address: "fe80::1".parse().unwrap(),
        preference: Preference::Medium,
        lifetime_seconds: Some(1800),
    };
    Lease6 {
        addresses: vec![
            address6("2001:db8::7/128", Origin6::Dhcp),
            address6("2001:db8::5054:ff:feaa:bbcc/64", Origin6::Slaac),
        ],
        routers: vec![router],
        dns: vec!["2001:db8::53".parse().unwrap()],
        client: Some("00:03:00:01:52:54:00:aa:bb:cc".parse().unwrap()),
        iaid: Some(7),
        managed: true,
        ..Lease6::default()
    }
}

pub fn v6_only(method: Ipv6Method) -> Configured {
    Configured {
        request: Some(request(Ipv4Method::Off, method)),
        ipv4: None,
        ipv6: Some(lease6()),
        ..port()
    }
}

pub fn dual_stack() -> Configured {
    Configured {
        request: Some(request(Ipv4Method::Dhcp { request: None }, Ipv6Method::Auto)),
        ipv6: Some(lease6()),
        ..port()
    }
}

/// The text of the only file with this in its path, without its first line.
pub fn text(left: &Left, part: &str) -> String {
    let files: Vec<_> = left.run.iter().filter(|file| file.path.contains(part)).collect();
    let [file] = files.as_slice() else { panic!("{part}: {files:#?}") };
    file.text.strip_prefix(HEADER).unwrap_or(&file.text).to_owned()
}

/// Everything that is left to a root.
pub fn left(links: &[Configured], files: Files<'_>, mode: HandoverMode) -> Left {
    let plan = plan();
    let (_folder, tree) = root(files);
    foresee(&Inheritance { mode, ..inheritance(links, &plan) }, &tree)
}

#[test]
#[rustfmt::skip]
fn who_renews_is_known_for_each_family() {
    use HandoverMode::{Dhcp, Static, Unmanaged};
    use Renewer::{Networkd, NetworkManager, Nobody};
    let typed = || Configured { origin: Origin::CommandLine, ..port() };
    let slaac = || Configured {
        ipv6: Some(Lease6 { addresses: vec![address6("2001:db8::5/64", Origin6::Slaac)], ..lease6() }),
        ..dual_stack()
    };
    let another = || {
        let mut link = port();
        link.request.as_mut().unwrap().client_id = Some((0, b"rack7".to_vec()));
        link
    };
    let foreign = || foreign("bond0", &[NODE, SECOND]);
    let cases: [(&str, Vec<Configured>, Files<'_>, HandoverMode, Renewer, Renewer); 12] = [
        ("nobody is there",               vec![dual_stack()],           &[],                  Dhcp,      Nobody,         Nobody),
        ("networkd would lose the other", vec![dual_stack()],           WITH_NETWORKD,        Dhcp,      Networkd,       Nobody),
        ("NetworkManager has both",       vec![dual_stack()],           WITH_NETWORK_MANAGER, Dhcp,      NetworkManager, NetworkManager),
        ("the kernel has its own",        vec![slaac()],                WITH_NETWORKD,        Dhcp,      Networkd,       Nobody),
        ("one family",                    vec![v6_only(Ipv6Method::Dhcp)], WITH_NETWORK_MANAGER, Dhcp,   Nobody,         NetworkManager),
        ("what was typed has no end",     vec![typed()],                WITH_NETWORKD,        Dhcp,      Nobody,         Nobody),
        ("frozen",                        vec![dual_stack()],           WITH_NETWORKD,        Static,    Nobody,         Nobody),
        ("hands off",                     vec![dual_stack()],           WITH_NETWORKD,        Unmanaged, Nobody,         Nobody),
        ("the host's own bond",           vec![foreign()],              WITH_NETWORKD,        Dhcp,      Nobody,         Nobody),
        ("a VLAN on a bond of ours",      vlan_on_bond(),               WITH_NETWORKD,        Dhcp,      Networkd,       Nobody),
        ("networkd cannot be the client", vec![another()],              WITH_NETWORKD,        Dhcp,      Nobody,         Nobody),
        ("NetworkManager can",            vec![another()],              WITH_NETWORK_MANAGER, Dhcp,      NetworkManager, Nobody),
    ];
    for (case, links, files, mode, ipv4, ipv6) in cases {
        let left = left(&links, files, mode);
        assert_eq!(left.renewers, Renewers { ipv4, ipv6 }, "{case}");
        assert_eq!(left.errors.len(), usize::from(case.contains("cannot")), "{case}: {:?}", left.errors);
    }
}

/// A VLAN on a bond: its ports have its address, and must not be taken for it.
#[test]
fn what_a_host_has_composed_is_left_alone_with_its_parts() {
    let beneath = [NODE, Mac([2, 0, 0, 0, 0, 7])];
    let plan = plan();
    let links = [foreign("bond0.5", &beneath)];
    let (_folder, tree) = root(&[
        ("etc/network/interfaces", ""),
        ("usr/lib/udev/ifupdown-hotplug", ""),
        WITH_NETWORKD[0],
    ]);
    let left = foresee(&inheritance(&links, &plan), &tree);
    assert_eq!(
        text(&left, "systemd/network/"),
        "[Match]\nMACAddress=52:54:00:aa:bb:cc 02:00:00:00:00:07\n\n[Link]\nUnmanaged=yes\n"
    );
    assert!(text(&left, "NetworkManager").ends_with(
        "match-device=interface-name:=bond0.5,mac:52:54:00:aa:bb:cc,mac:02:00:00:00:00:07\n\
         managed=0\n"
    ));
    assert!(carry_out(&left.root, &tree).is_empty());
    let interfaces = tree.read_text("/etc/network/interfaces").unwrap().unwrap();
    let stanza = "auto bond0.5\nno-auto-down bond0.5\niface bond0.5 inet manual\n";
    assert!(interfaces.ends_with(stanza), "{interfaces}");
}

/// What a desk shows is what a boot writes, for it is the same.
#[test]
fn the_root_is_changed_only_where_ifupdown_reads() {
    let (plan, links) = (plan(), [port()]);
    let (_folder, tree) = root(&[]);
    let left = foresee(&inheritance(&links, &plan), &tree);
    assert_eq!((left.root.len(), left.run.len()), (0, 4));
    assert_eq!(left.run[0].path, "/run/net-eth0.conf");

    let (_folder, tree) = root(&[("etc/network/interfaces", "iface eth0 inet dhcp\n")]);
    let wishes = Wishes { method: Some("not one"), ..Wishes::default() };
    let left = foresee(&Inheritance { wishes, ..inheritance(&links, &plan) }, &tree);
    assert_eq!((left.root.len(), left.run.len(), left.errors.len()), (1, 6, 1));
    assert_eq!(left.root[0].path, "/etc/network/interfaces");
    assert!(left.errors[0].to_string().contains("NET_DEVICE_METHOD"));
    // Nothing is done before somebody carries it out.
    let before = tree.read_text("/etc/network/interfaces").unwrap().unwrap();
    assert_eq!(before, "iface eth0 inet dhcp\n");
    assert!(carry_out(&left.root, &tree).is_empty());
    let after = tree.read_text("/etc/network/interfaces").unwrap().unwrap();
    assert!(after.ends_with("iface eth0 inet manual\n"), "{after}");
}

#[test]
fn the_lease_is_readable_by_jq() {
    let lease = Lease { lease_seconds: Some(60), ..lease("10.0.0.5/24") };
    let link = Configured { ipv4: Some(lease.clone()), ..dual_stack() };
    let text = text(&left(&[link], &[], HandoverMode::Dhcp), "lease.json");
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let read: LeaseFile = serde_json::from_str(&text).unwrap();
    assert_eq!((read.link.as_str(), read.mac, read.leases.ipv4), ("eth0", NODE, Some(lease)));
    assert_eq!(value["mac"], "52:54:00:aa:bb:cc");
    assert_eq!(value["address"], "10.0.0.5");
    assert_eq!(value["lease_seconds"], 60);
    assert_eq!(value["ipv6"]["addresses"][0]["address"], "2001:db8::7");

    let only = v6_only(Ipv6Method::Auto);
    let text = self::text(&left(&[only], &[], HandoverMode::Dhcp), "lease.json");
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((value["link"].as_str(), value["address"].as_str()), (Some("eth0"), None));
}

#[test]
fn a_shell_finds_both_families() {
    let left = left(&[dual_stack()], &[], HandoverMode::Dhcp);
    assert!(text(&left, "/net-eth0.conf").contains("PROTO='dhcp'\nIPV4ADDR='10.0.0.5'\n"));
    assert_eq!(
        text(&left, "/net6-eth0.conf"),
        "DEVICE6='eth0'\nIPV6PROTO='dhcp6'\nIPV6ADDR='2001:db8::7'\nIPV6NETMASK='128'\n\
         IPV6GATEWAY='fe80::1'\nIPV6DNS0='2001:db8::53'\n"
    );
}

/// Profiles are refused if others could read them, and the umask of a kernel's first program is 0.
#[test]
fn files_have_their_modes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("NetworkManager/x");
    for mode in [0o644, 0o600] {
        let file = RunFile { path: "/run/NetworkManager/x".into(), text: "x\n".into(), mode };
        write_below(folder.path(), &file).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
    }
}

#[test]
fn cloud_init_makes_no_network_of_its_own() {
    let (plan, links) = (plan(), [port()]);
    let (folder, tree) = root(&[("etc/cloud/cloud.cfg", "")]);
    for (mode, is_told) in [(HandoverMode::Dhcp, true), (HandoverMode::Unmanaged, false)] {
        let left = foresee(&Inheritance { mode, ..inheritance(&links, &plan) }, &tree);
        assert!(carry_out(&left.root, &tree).is_empty());
        let text = tree.read_text(CLOUD_DROP_IN).unwrap().unwrap_or_default();
        assert_eq!(text.ends_with("network:\n  config: disabled\n"), is_told, "{mode:?}: {text}");
        std::fs::remove_file(folder.path().join(CLOUD_DROP_IN.trim_start_matches('/'))).ok();
    }
}
