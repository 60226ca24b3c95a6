//! DHCP as it is where nobody looks after it: lost and late packets, servers that take back, leave
//! out, overload or lie, and two of them at once.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use landfall_tests::{
    Asked, Daemon, Dnsmasq, Kernel, Lab, Machine, Node, Packet, Reply, Rogue, SERVER, Switch, code,
    dhcpd, tftpd,
};
use serde_json::{Value, json};

use crate::links::{MACS, address, has_its_address_from};
use crate::{usual_dhcp, usual_root, usual_vm};

const ROGUE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 66);
/// What the rogue gives; outside of the pool of the real server.
const ROGUES: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 200);

/// For a line that must be there already.
const SAID: Duration = Duration::from_secs(2);

/// The usual configuration from a TFTP server that is no DHCP server.
fn plain_tftp(lab: &Lab) -> Result<Daemon> {
    let folder = lab.served("tftp", &[("ltsp/amd64/lts.conf", "[default]\nRACK = 1\n")])?;
    tftpd(lab, &folder, &[])
}

/// What a decent server would say to this, with [`SERVER`] as the boot server.
fn decent(asked: &Asked) -> Reply {
    let kind = if asked.kind() == code::DISCOVER { code::OFFER } else { code::ACK };
    Reply::to(asked, kind, ROGUE, ROGUES)
        .next_server(SERVER)
        .file(b"ltsp/amd64/pxelinux.0")
        .option(code::ROUTER, &SERVER.octets())
}

fn lease(node: &Node<'_>) -> Result<Value> {
    Ok(serde_json::from_str(&node.file("/run/landfall/lease.json")?)?)
}

/// Boots with the rogue as the only DHCP server of a network that is otherwise as usual.
fn boots_by(
    test: &str,
    words: &str,
    script: impl FnMut(&Asked) -> Vec<Packet> + Send + 'static,
    look: impl FnOnce(&Machine, &Node<'_>, &Rogue) -> Result<()>,
) -> Result<()> {
    let lab = Lab::new(test)?;
    let _tftp = plain_tftp(&lab)?;
    let _nbd = usual_root(&lab)?;
    let rogue = Rogue::start(&lab, ROGUE, script)?;
    let machine = usual_vm(&lab, Kernel::V6_12, words)?.boot()?;
    let node = machine.node()?;
    look(&machine, &node, &rogue)?;
    machine.never_said("panicked")
}

/// A server that has given the address to somebody else between offer and request.
#[test]
#[ignore = "boots a virtual machine"]
fn an_address_that_is_refused_is_given_up_for_the_next() -> Result<()> {
    let next = Ipv4Addr::new(10, 77, 0, 201);
    let mut refused = 0;
    let script = move |asked: &Asked| {
        if asked.kind() == code::REQUEST && asked.address(code::REQUESTED) == Some(ROGUES) {
            refused += 1;
            let words = b"somebody else has it";
            let nak = Reply::to(asked, code::NAK, ROGUE, Ipv4Addr::UNSPECIFIED);
            return vec![nak.option(code::MESSAGE, words).packet()];
        }
        let yours = if refused == 0 { ROGUES } else { next };
        let kind = if asked.kind() == code::DISCOVER { code::OFFER } else { code::ACK };
        vec![Reply::to(asked, kind, ROGUE, yours).next_server(SERVER).packet()]
    };
    boots_by("dhcp-refused", "", script, |_, node, rogue| {
        assert_eq!(address(node, MACS[0])?, next);
        let wanted: Vec<_> = rogue
            .asked()
            .iter()
            .filter(|asked| asked.kind() == code::REQUEST)
            .filter_map(|asked| asked.address(code::REQUESTED))
            .collect();
        // A refusal begins it all anew (RFC 2131 section 3.1.5); it does not ask again in vain.
        assert_eq!(wanted, [ROGUES, next]);
        Ok(())
    })
}

/// A radio link, a tunnel, or a switch on its last legs: a fifth of the packets is lost, the rest is
/// late, in another order, and some come twice.
#[test]
#[ignore = "boots a virtual machine"]
fn lost_late_disordered_and_doubled_packets_cost_seconds() -> Result<()> {
    let lab = Lab::new("dhcp-netem")?;
    let dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;
    let bad = "netem delay 200ms 50ms loss 20% duplicate 10% reorder 25% 50%";
    let switch = Switch::new(&lab)
        .script(&format!(
            "tc qdisc add dev port0 root {bad}\n\
             tc qdisc add dev uplink root {bad}"
        ))
        .start()?;

    let machine = usual_vm(&lab, Kernel::V6_12, "")?.nic(switch.port(0)?).boot()?;
    machine.line("network: eth0 is 10.77.0.")?;
    // A root over such a cable is a root for patient people, and not what this is about.
    switch.run("tc qdisc del dev port0 root")?;
    switch.run("tc qdisc del dev uplink root")?;
    let node = machine.node()?;
    // Offers that came twice or late have confused neither of the two.
    has_its_address_from(&node, &dhcp)?;
    machine.never_said("FAILED")
}

/// Where the plain server is.
const OFFICE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// Boots with a server that names a boot server, of which `lost` answers are lost, and one that gives
/// nothing but addresses from 100 on.
fn boots_beside(test: &str, lost: u32, plain: impl FnOnce(&Lab) -> Result<Daemon>) -> Result<()> {
    let lab = Lab::new(test)?;
    let plain = lab.on_another_host(OFFICE, || plain(&lab))?;
    lab.lose_dhcp_answers(lost)?;
    let dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let machine = usual_vm(&lab, Kernel::V6_12, "")?.boot()?;
    let node = machine.node()?;
    has_its_address_from(&node, &dhcp)?;
    // The one that pings before it offers may be later than the whole boot.
    let until = Instant::now() + Duration::from_secs(10);
    while !plain.log_text().contains("DHCPOFFER") {
        ensure!(Instant::now() < until, "it was not there: {}", plain.log_text());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!plain.log_text().contains("DHCPACK"), "{}", plain.log_text());
    assert_eq!(lease(&node)?["server_id"], json!(SERVER.to_string()));
    Ok(())
}

/// The address of the office's router, which also plays DHCP server, gets no machine a root.
#[test]
#[ignore = "boots a virtual machine"]
fn of_two_servers_on_one_wire_the_one_that_names_a_boot_server_wins() -> Result<()> {
    // It looks for a second whether an address is in use, before it offers it.
    boots_beside("dhcp-two", 2, |lab| {
        dhcpd(
            lab,
            "subnet 10.77.0.0 netmask 255.255.255.0 {\n range 10.77.0.100 10.77.0.149;\n}\n\
             authoritative;\n",
        )
    })
}

/// dnsmasq writes its own address where the next server's would be, whether it serves files or
/// not: that alone is no boot server.
#[test]
#[ignore = "boots a virtual machine"]
fn a_server_that_names_only_itself_does_not_win_over_one_with_a_boot_file() -> Result<()> {
    boots_beside("dhcp-two-dnsmasq", 0, |lab| {
        let plain = Dnsmasq::new().log("dnsmasq-plain.log").option("port=0");
        plain.leases("10.77.0.100,10.77.0.149,1h").start(lab)
    })
}

/// A boot network that leads nowhere, on purpose.
#[test]
#[ignore = "boots a virtual machine"]
fn an_offer_without_a_router_boots_from_its_own_wire() -> Result<()> {
    let lab = Lab::new("dhcp-no-router")?;
    let dhcp = usual_dhcp(&lab)?.option("dhcp-option=3").start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let machine = usual_vm(&lab, Kernel::V6_12, "")?.boot()?;
    let node = machine.node()?;
    has_its_address_from(&node, &dhcp)?;
    let routes = node.state()?.routes;
    assert!(routes.iter().all(|route| route.to != "0.0.0.0/0"), "{routes:?}");
    machine.never_said("through 10.77.0.")
}

/// Servers that run out of space go on in the fields for names (RFC 2132 section 9.3).
#[test]
#[ignore = "boots a virtual machine"]
fn options_in_the_fields_for_names_are_read() -> Result<()> {
    let option = |code: u8, value: &[u8]| [&[code, value.len() as u8], value].concat();
    let script = move |asked: &Asked| {
        let kind = if asked.kind() == code::DISCOVER { code::OFFER } else { code::ACK };
        let file = [
            option(code::TFTP_SERVER, SERVER.to_string().as_bytes()),
            option(code::ROUTER, &SERVER.octets()),
            vec![255],
        ];
        let sname = [option(code::HOST_NAME, b"node7"), vec![255]];
        let reply = Reply::to(asked, kind, ROGUE, ROGUES).option(code::OVERLOAD, &[3]);
        vec![reply.file(&file.concat()).sname(&sname.concat()).packet()]
    };
    boots_by("dhcp-overload", "", script, |machine, node, _| {
        assert_eq!(address(node, MACS[0])?, ROGUES);
        let state = node.state()?;
        assert_eq!(state.host_name, "node7");
        let default = state.routes.iter().find(|route| route.to == "0.0.0.0/0");
        assert_eq!(default.and_then(|route| route.via.as_deref()), Some("10.77.0.1"));
        // It is from the boot server that option 66 names.
        machine.line_within("tftp://10.77.0.1/", SAID).map(drop)
    })
}

/// Sites with many networks: forty routes do not fit into one option, and a real server splits
/// them wherever 255 bytes are full.
#[test]
#[ignore = "boots a virtual machine"]
fn an_option_longer_than_255_bytes_is_put_together() -> Result<()> {
    let lab = Lab::new("dhcp-long-options")?;
    let _tftp = plain_tftp(&lab)?;
    let _nbd = usual_root(&lab)?;
    // RFC 3442: width, as many bytes of the network as it has, gateway.
    let bytes = (0..40_u8).flat_map(|number| [24, 172, 16, number, 10, 77, 0, 1]);
    let bytes: Vec<_> = bytes.map(|byte| byte.to_string()).collect();
    ensure!(bytes.len() > 255);
    let room = |number| format!("a-room-with-a-name-that-is-long-{number}.example");
    let search: Vec<_> = (0..16).map(room).collect();
    let quoted: Vec<_> = search.iter().map(|name| format!("{name:?}")).collect();
    let server = dhcpd(
        &lab,
        &format!(
            "option routes code 121 = array of unsigned integer 8;\n\
             authoritative;\n\
             subnet 10.77.0.0 netmask 255.255.255.0 {{\n\
             range 10.77.0.50 10.77.0.99;\n\
             next-server {SERVER};\n\
             filename \"ltsp/amd64/pxelinux.0\";\n\
             option routes {};\n\
             option domain-search {};\n\
             }}\n",
            bytes.join(", "),
            quoted.join(", ")
        ),
    )?;

    let machine = usual_vm(&lab, Kernel::V6_12, "")?.boot()?;
    let node = machine.node()?;
    has_its_address_from(&node, &server)?;
    let routes = node.state()?.routes;
    for number in 0..40 {
        let to = format!("172.16.{number}.0/24");
        let route = routes.iter().find(|route| route.to == to);
        let via = route.with_context(|| format!("no route to {to}: {routes:?}"))?.via.as_deref();
        assert_eq!(via, Some("10.77.0.1"), "{to}");
    }
    // Its names point at each other across the seams (RFC 3397).
    assert_eq!(lease(&node)?["search"], json!(search));
    Ok(())
}

/// A proxy (PXE specification 2.1) offers no address but names a boot server, to machines whose
/// DHCP server nobody may touch.
#[test]
#[ignore = "boots a virtual machine"]
fn a_proxy_names_the_boot_server_beside_a_server_that_knows_none() -> Result<()> {
    let lab = Lab::new("dhcp-proxy")?;
    let dhcp = lab.on_another_host(Ipv4Addr::new(10, 77, 0, 2), || {
        Dnsmasq::new().option("port=0").start(&lab)
    })?;
    let proxy = Dnsmasq::proxy(SERVER).start(&lab)?;
    let _tftp = plain_tftp(&lab)?;
    let _nbd = usual_root(&lab)?;

    let machine = usual_vm(&lab, Kernel::V6_12, "")?.boot()?;
    let node = machine.node()?;
    has_its_address_from(&node, &dhcp)?;
    // The address is from the one, the configuration from where the other says.
    machine.line_within("from tftp://10.77.0.1/ltsp/amd64/lts.conf", SAID)?;
    assert!(!proxy.log_text().contains("DHCPACK(br0) 10.77"), "{}", proxy.log_text());
    Ok(())
}

/// Answers that nobody should act on, by what is wrong with them.
fn unusable(asked: &Asked) -> Vec<(&'static str, Packet)> {
    let kind = if asked.kind() == code::DISCOVER { code::OFFER } else { code::ACK };
    let good = decent(asked);
    let message = good.message();
    let from = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = message.clone();
        change(&mut bytes);
        Packet::of(bytes)
    };
    let giving =
        |yours: [u8; 4]| Reply::to(asked, kind, ROGUE, yours.into()).next_server(SERVER).packet();
    let options = |bytes: &[u8]| Reply::bare(asked, ROGUES).bytes(bytes).packet();
    vec![
        ("nothing at all", Packet::of([])),
        ("one byte", Packet::of([2])),
        ("cut in the fixed part", from(&|bytes| bytes.truncate(100))),
        ("cut in the cookie", from(&|bytes| bytes.truncate(238))),
        ("no options", from(&|bytes| bytes.truncate(240))),
        ("another cookie", from(&|bytes| bytes[236] = 98)),
        ("a question", from(&|bytes| bytes[0] = 1)),
        ("to another transaction", from(&|bytes| bytes[4] ^= 0x55)),
        ("to another machine", from(&|bytes| bytes[33] ^= 0x55)),
        ("zeros", Packet::of([0; 548])),
        ("all ones", Packet::of([0xff; 548])),
        ("no kind", options(&[54, 4, 10, 77, 0, 66, 1, 4, 255, 255, 255, 0])),
        ("a kind without a value", options(&[53, 0])),
        ("a kind that nobody knows", options(&[53, 1, 200])),
        ("a length beyond the end", options(&[53, 1, kind, 54, 200, 10])),
        ("a code without a length", Packet::of(&message[..message.len() - 1][..242])),
        ("no address", giving([0, 0, 0, 0])),
        ("everybody's address", giving([255, 255, 255, 255])),
        ("its own loopback", giving([127, 0, 0, 1])),
        ("a group's address", giving([224, 0, 0, 1])),
        ("a datagram shorter than its header", good.packet().claiming(3)),
        ("a datagram that ends early", good.packet().claiming(60)),
        ("a datagram longer than its packet", good.packet().claiming(60_000)),
    ]
}

/// A box that somebody has plugged in, with firmware that nobody has tested, or somebody who means
/// it: each of its answers comes first, and none may decide anything.
#[test]
#[ignore = "boots a virtual machine"]
fn broken_answers_are_dropped_and_the_good_one_counts() -> Result<()> {
    let lab = Lab::new("dhcp-broken-answers")?;
    let script = |asked: &Asked| unusable(asked).into_iter().map(|(_, packet)| packet).collect();
    let rogue = Rogue::start(&lab, ROGUE, script)?;
    lab.lose_dhcp_answers(2)?;
    let dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let machine = usual_vm(&lab, Kernel::V6_12, "")?.boot()?;
    let node = machine.node()?;
    has_its_address_from(&node, &dhcp)?;
    let asked = rogue.asked();
    let discovers = asked.iter().filter(|asked| asked.kind() == code::DISCOVER).count();
    ensure!(discovers >= 3, "the rogue had no chance: {asked:?}");
    for asked in &asked {
        assert_ne!(asked.address(code::SERVER), Some(ROGUE), "{asked:?}");
    }
    machine.never_said("panicked")?;
    machine.never_said("FAILED")
}

/// An answer that does what it should may still carry rubbish: what is broken is left out, and the
/// machine boots with the rest.
#[test]
#[ignore = "boots a virtual machine"]
fn a_good_answer_with_broken_options_still_boots() -> Result<()> {
    let script = |asked: &Asked| {
        let reply = decent(asked)
            // Names of which one points at itself, one behind the end, one never ends.
            .option(code::SEARCH, &[0xc0, 0])
            .option(code::SEARCH, &[3, b'l', b'a', b'b', 0xc0, 200, 63, b'x'])
            // Wider than an address, and cut short.
            .option(121, &[33, 10, 0, 0, 0, 0, 10, 77, 0, 1, 24, 10])
            .option(249, &[255])
            // An MTU that nothing would fit through, and one of three bytes.
            .option(26, &[0, 1])
            .option(42, &[10, 77, 0])
            .option(6, &[10, 77, 0, 1, 10])
            // Renewal after the end, rebinding before the renewal.
            .option(58, &u32::MAX.to_be_bytes())
            .option(59, &[0, 0, 0, 1])
            // Neither a name nor text.
            .option(code::HOST_NAME, b"../../etc/passwd\x1b[2J")
            .option(15, &[0xff, 0xfe, 0, 1])
            // Overloaded in a field that is overloaded.
            .option(code::OVERLOAD, &[3])
            .file(&[52, 1, 3, 255])
            .sname(&[52, 1, 3, 66, 61]);
        // And more of it than any option may have.
        let huge = (0..3).fold(reply, |reply, _| reply.option(224, &[0xaa; 255]));
        vec![huge.packet()]
    };
    boots_by("dhcp-broken-options", "", script, |_, node, _| {
        assert_eq!(address(node, MACS[0])?, ROGUES);
        let name = node.state()?.host_name;
        ensure!(!name.contains(['/', '\u{1b}']), "{name:?}");
        let link = crate::links::link(node, MACS[0])?;
        assert_eq!(link.mtu, 1500, "{link:?}");
        Ok(())
    })
}

/// More than any packet holds: sixty kilobytes in forty fragments, each of which looks like a
/// packet to whoever listens before there is an address.
#[test]
#[ignore = "boots a virtual machine"]
fn an_answer_of_sixty_kilobytes_does_no_harm() -> Result<()> {
    let script = |asked: &Asked| {
        let huge = (0..230).fold(decent(asked), |reply, _| reply.option(224, &[0x35; 255]));
        vec![huge.packet(), decent(asked).packet()]
    };
    boots_by("dhcp-huge", "", script, |machine, node, _| {
        assert_eq!(address(node, MACS[0])?, ROGUES);
        machine.never_said("FAILED")
    })
}
