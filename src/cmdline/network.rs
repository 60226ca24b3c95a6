//! What the words about the network mean together, once all of them are read: their order is of no
//! importance.

use std::net::Ipv4Addr;

use super::keys::same_key;
use super::{IpRequest, Problem, Request, Word, fields};
use crate::net::description::{About, AddressRequest, Description, Ipv4Method, Ipv6Method, Needs};

/// Words that say nothing by themselves, and where the pieces of the description come from.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    pub netmask: Option<u8>,
    pub gateway: Option<Ipv4Addr>,
    pub no_bootif: bool,
    /// Byte offsets of words.
    origins: Vec<(About, usize)>,
}

/// How many pieces of each kind there are.
pub fn pieces(network: &Description) -> [About; 5] {
    [
        About::Address(network.addresses.len()),
        About::Name(network.names.len()),
        About::Bond(network.bonds.len()),
        About::Vlan(network.vlans.len()),
        About::Bridge(network.bridges.len()),
    ]
}

impl Pending {
    /// Notes which piece `word` has added, if any: the first that was not there before.
    pub fn remember(&mut self, before: [About; 5], network: &Description, word: &Word<'_>) {
        let added = before.into_iter().zip(pieces(network)).find(|(before, now)| before != now);
        if let Some((piece, _)) = added {
            self.origins.push((piece, word.at));
        }
    }
}

pub fn netmask(value: &str) -> Result<u8, String> {
    fields::ipv4_prefix(value)
        .filter(|prefix| *prefix > 0)
        .ok_or_else(|| format!("\"{value}\" is neither a mask nor a prefix"))
}

pub fn gateway(value: &str) -> Result<Ipv4Addr, String> {
    value.parse().map_err(|_| format!("\"{value}\" is not an IPv4 address"))
}

/// Waits that end nothing here.
pub fn other_timeout(word: &Word<'_>) -> Result<(), String> {
    match word.key.strip_prefix("rd.net.timeout.") {
        Some("dhcp" | "iflink" | "ifup" | "route") => {
            fields::seconds(word.value.unwrap_or_default()).map(drop)
        }
        _ => Err(
            "no such timeout; there are ip-required, carrier, ipv6auto, ipv6dad, dhcp, iflink, \
                  ifup and route"
                .into(),
        ),
    }
}

impl Request {
    pub(super) fn settle_network(&mut self, words: &[Word<'_>]) {
        if self.pending.no_bootif {
            self.network.bootif = None;
        }
        self.network.place_bootif();
        if let Err((key, why)) = self.one_word_address() {
            let word = words.iter().rev().find(|word| same_key(word.key, key));
            self.problems.extend(word.map(|word| Problem::of(word, why)));
        }
        let complaints = self.network.check();
        for complaint in &complaints {
            let origin = self.pending.origins.iter().find(|(about, _)| *about == complaint.about);
            let word = words.iter().rev().find(|word| match (origin, complaint.about) {
                (Some((_, at)), _) => word.at == *at,
                (None, About::Bootdev) => same_key(word.key, "bootdev"),
                (None, _) => false,
            });
            self.problems.extend(word.map(|word| Problem::of(word, complaint.why.clone())));
        }
        self.network = std::mem::take(&mut self.network).without(&complaints);
        self.problems.sort_by_key(|problem| problem.at);
        self.ip = self.network.addresses.first().map(IpRequest::from);
        self.bootif = self.network.bootif;
    }

    /// `ip=ADDRESS netmask=MASK gateway=ADDRESS`
    fn one_word_address(&mut self) -> Result<(), (&'static str, String)> {
        let Pending { netmask, gateway, .. } = self.pending;
        let prefix = match (netmask, gateway) {
            (None, None) => return Ok(()),
            (None, Some(_)) => {
                let why = "goes with netmask=, and with an ip= of an address alone";
                return Err(("gateway", why.to_owned()));
            }
            (Some(prefix), _) => prefix,
        };
        let alone = self.network.addresses.iter_mut().find_map(|request| match request.ipv4 {
            Ipv4Method::Dhcp { request: Some(address) } => {
                let only = AddressRequest { ipv4: request.ipv4, ..AddressRequest::any() };
                (*request == only).then_some((request, address))
            }
            _ => None,
        });
        let Some((request, address)) = alone else {
            return Err(("netmask", "goes with an ip= of an address alone".to_owned()));
        };
        request.ipv4 = Ipv4Method::Static { address, prefix, gateway, peer: None };
        request.ipv6 = Ipv6Method::Off;
        request.needs = Needs::Ipv4;
        Ok(())
    }
}
