//! What the kernel tells of a link, as a [`Link`].

use std::path::Path;

use rtnetlink::packet_route::link::{
    BondAdInfo, BondMode, InfoBond, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo,
    LinkLayerType, LinkMessage,
};

use super::{Kind, Link, Shape};
use crate::net::Mac;
use crate::net::link::is_wireless;

/// `None` for what has no name or no Ethernet-like address.
pub fn link(message: LinkMessage) -> Option<Link> {
    let flags = message.header.flags;
    let mut shape = match message.header.link_layer_type {
        LinkLayerType::Loopback => Shape::Loopback,
        LinkLayerType::Ether => Shape::Port,
        _ => Shape::Other,
    };
    let mut kind = if shape == Shape::Port { Kind::Port } else { Kind::Other };
    let (mut name, mut mac, mut permanent_mac, mut mtu) = (None, None, None, 0);
    let (mut master, mut lower, mut has_partner, mut primary) = (None, None, None, None);
    let mut mode = None;
    let six = |bytes: Vec<u8>| Some(Mac(<[u8; 6]>::try_from(bytes).ok()?));
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text),
            LinkAttribute::Mtu(bytes) => mtu = bytes,
            LinkAttribute::Address(bytes) => mac = six(bytes),
            LinkAttribute::PermAddress(bytes) => {
                permanent_mac = six(bytes).filter(|mac| *mac != Mac([0; 6]));
            }
            LinkAttribute::Controller(index) => master = Some(index),
            LinkAttribute::Link(index) => lower = Some(index),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(made) if kind == Kind::Port => kind = kind_of(&made),
                        LinkInfo::Data(InfoData::Bond(facts)) => {
                            has_partner = partner(&facts);
                            mode = facts.iter().find_map(|fact| match fact {
                                InfoBond::Mode(mode) => Some(u8::from(*mode)),
                                _ => None,
                            });
                            primary = facts.iter().find_map(|fact| match fact {
                                InfoBond::Primary(index) => Some(*index),
                                _ => None,
                            });
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if shape == Shape::Port && (kind != Kind::Port || master.is_some()) {
        shape = Shape::Composed;
    }
    let name = name?;
    Some(Link {
        index: message.header.index,
        driver: if kind == Kind::Port { driver_of(&name) } else { None },
        is_peripheral: kind == Kind::Port && is_peripheral(&name),
        name,
        shape,
        kind,
        master: master.filter(|index| *index != 0),
        lower,
        has_partner,
        primary,
        mode,
        mac: mac.unwrap_or(Mac([0; 6])),
        permanent_mac,
        is_up: flags.contains(LinkFlags::Up),
        has_carrier: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        mtu,
    })
}

/// Only what software made has a kind; one end of a veth is a port to a container, and so are the
/// ports of a switch chip (DSA).
fn kind_of(kind: &InfoKind) -> Kind {
    match kind {
        InfoKind::Veth | InfoKind::Dsa => Kind::Port,
        InfoKind::Bond => Kind::Bond,
        InfoKind::Bridge => Kind::Bridge,
        InfoKind::Vlan => Kind::Vlan,
        _ => Kind::Other,
    }
}

/// Whether the switch has answered a bond by IEEE 802.3ad; `None` for other bonds.
fn partner(facts: &[InfoBond]) -> Option<bool> {
    facts.contains(&InfoBond::Mode(BondMode::Ieee8023Ad)).then(|| {
        facts.iter().any(|fact| match fact {
            InfoBond::AdInfo(infos) => infos
                .iter()
                .any(|info| matches!(info, BondAdInfo::PartnerMac(mac) if *mac != [0; 6])),
            _ => false,
        })
    })
}

fn is_peripheral(name: &str) -> bool {
    let bus = std::fs::read_link(format!("/sys/class/net/{name}/device/subsystem"));
    bus.is_ok_and(|bus| bus.ends_with("usb")) || is_wireless(name, Path::new("/sys"))
}

/// The name of a port's driver.
fn driver_of(name: &str) -> Option<String> {
    let link = std::fs::read_link(format!("/sys/class/net/{name}/device/driver")).ok()?;
    Some(link.file_name()?.to_str()?.to_owned())
}
