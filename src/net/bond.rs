//! Options of a bond: one table from the words of `bond=` to the kernel's attributes and to the
//! keys of who runs the network later.
//!
//! Names, values and what contradicts what are the kernel's (Documentation/networking/bonding.rst,
//! drivers/net/bonding/bond_options.c). Options that a mode merely ignores are accepted, those that
//! the kernel refuses are refused here, where somebody can still read why.

use std::net::{Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_route::link::{BondMode, InfoBond};

use super::Mac;
use super::description::link_name;

/// `mode=802.3ad,miimon=100,…`, understood and free of contradictions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BondOptions {
    /// In the order they were written, each name of the table once.
    values: Vec<(&'static str, Value)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    /// Also the kernel's number of a word, and 0 or 1.
    Number(u32),
    Ipv4(Vec<Ipv4Addr>),
    Ipv6(Vec<Ipv6Addr>),
    Mac(Mac),
    Link(String),
}

struct Row {
    name: &'static str,
    kind: Kind,
    /// Where the kernel takes it, one bit for each number of a mode.
    modes: u8,
    /// Key of systemd.netdev(5), and the unit behind a number.
    networkd: Option<(&'static str, &'static str)>,
    /// Whether NetworkManager 1.42, the oldest one in use, has it; one unknown option makes it
    /// refuse the whole connection.
    network_manager: bool,
}

enum Kind {
    Number {
        range: (u32, u32),
        attribute: fn(u32) -> InfoBond,
    },
    /// The place of a word is the kernel's number for it.
    Word {
        words: &'static [&'static str],
        attribute: fn(u32) -> InfoBond,
    },
    /// `0`, `1`, `off`, `on`.
    Switch {
        attribute: fn(bool) -> InfoBond,
    },
    Ipv4,
    Ipv6,
    Mac,
    /// The kernel wants its index, which only who makes the bond knows.
    Link,
}

const RR: u8 = 1;
const BACKUP: u8 = 1 << 1;
const AD: u8 = 1 << 4;
const TLB: u8 = 1 << 5;
const ALB: u8 = 1 << 6;
const ALL: u8 = 0x7f;
/// Modes that can monitor with ARP.
const ARP: u8 = ALL & !(AD | TLB | ALB);

const MODES: &[&str] = &[
    "balance-rr",
    "active-backup",
    "balance-xor",
    "broadcast",
    "802.3ad",
    "balance-tlb",
    "balance-alb",
];

/// Milliseconds; what the kernel's own documentation recommends, and sets itself for the modes that
/// cannot do without.
const MIIMON: u32 = 100;
const MOST: u32 = i32::MAX as u32;
/// `BOND_MAX_ARP_TARGETS` and `BOND_MAX_NS_TARGETS`.
const MOST_TARGETS: usize = 16;

#[rustfmt::skip]
const ROWS: &[Row] = &[
    word("mode", MODES, ALL, |n| InfoBond::Mode(byte(n).into()), "Mode"),
    number("miimon", (0, MOST), ALL, InfoBond::MiiMon, Some(("MIIMonitorSec", "ms"))),
    number("updelay", (0, MOST), ALL, InfoBond::UpDelay, Some(("UpDelaySec", "ms"))),
    number("downdelay", (0, MOST), ALL, InfoBond::DownDelay, Some(("DownDelaySec", "ms"))),
    number("peer_notif_delay", (0, 300_000), ALL, InfoBond::PeerNotifDelay, None),
    number("arp_interval", (0, MOST), ARP, InfoBond::ArpInterval, Some(("ARPIntervalSec", "ms"))),
    Row { name: "arp_ip_target", kind: Kind::Ipv4, modes: ARP, networkd: Some(("ARPIPTargets", "")), network_manager: true },
    Row { name: "ns_ip6_target", kind: Kind::Ipv6, modes: ARP, networkd: None, network_manager: false },
    word("arp_validate", &["none", "active", "backup", "all", "filter", "filter_active", "filter_backup"], ARP, |n| InfoBond::ArpValidate(n.into()), "ARPValidate"),
    word("arp_all_targets", &["any", "all"], ALL, |n| InfoBond::ArpAllTargets(n.into()), "ARPAllTargets"),
    newer(number("arp_missed_max", (1, 255), ARP, |n| InfoBond::MissedMax(byte(n)), None)),
    Row { name: "primary", kind: Kind::Link, modes: BACKUP | TLB | ALB, networkd: None, network_manager: true },
    word("primary_reselect", &["always", "better", "failure"], ALL, |n| InfoBond::PrimaryReselect(byte(n).into()), "PrimaryReselectPolicy"),
    word("fail_over_mac", &["none", "active", "follow"], ALL, |n| InfoBond::FailOverMac(byte(n).into()), "FailOverMACPolicy"),
    number("num_grat_arp", (0, 255), ALL, |n| InfoBond::NumPeerNotif(byte(n)), Some(("GratuitousARP", ""))),
    number("resend_igmp", (0, 255), ALL, InfoBond::ResendIgmp, Some(("ResendIGMP", ""))),
    word("xmit_hash_policy", &["layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac"], ALL, |n| InfoBond::XmitHashPolicy(byte(n).into()), "TransmitHashPolicy"),
    number("packets_per_slave", (0, 65_535), RR, InfoBond::PacketsPerPort, Some(("PacketsPerSlave", ""))),
    switch("tlb_dynamic_lb", TLB | ALB, InfoBond::TlbDynamicLb, Some("DynamicTransmitLoadBalancing")),
    number("lp_interval", (1, MOST), ALL, InfoBond::LpInterval, Some(("LearnPacketIntervalSec", "s"))),
    switch("all_slaves_active", ALL, |on| InfoBond::AllPortsActive(u8::from(on).into()), Some("AllSlavesActive")),
    number("min_links", (0, MOST), ALL, InfoBond::MinLinks, Some(("MinLinks", ""))),
    switch("use_carrier", ALL, InfoBond::UseCarrier, None),
    word("lacp_rate", &["slow", "fast"], AD, |n| InfoBond::AdLacpRate(byte(n).into()), "LACPTransmitRate"),
    newer(switch("lacp_active", AD, InfoBond::AdLacpActive, None)),
    word("ad_select", &["stable", "bandwidth", "count"], ALL, |n| InfoBond::AdSelect(byte(n).into()), "AdSelect"),
    number("ad_actor_sys_prio", (1, 65_535), AD, |n| InfoBond::AdActorSysPrio(word16(n)), Some(("AdActorSystemPriority", ""))),
    Row { name: "ad_actor_system", kind: Kind::Mac, modes: AD, networkd: Some(("AdActorSystem", "")), network_manager: true },
    number("ad_user_port_key", (0, 1023), AD, |n| InfoBond::AdUserPortKey(word16(n)), Some(("AdUserPortKey", ""))),
    newer(switch("coupled_control", AD, InfoBond::CoupledControl, None)),
];

/// Other names, of the kernel itself (`num_unsol_na`), of netlink, and of NetworkManager.
const ALIASES: &[(&str, &str)] = &[
    ("num_unsol_na", "num_grat_arp"),
    ("missed_max", "arp_missed_max"),
    ("active_slave", "primary"),
];

impl BondOptions {
    /// Reads `NAME=VALUE`s with `,` or `;` between them. A piece without `=` is one more address of
    /// the list before it, so that `arp_ip_target=A;B` and `arp_ip_target=A,B` mean the same.
    ///
    /// # Errors
    /// A sentence about the option that is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        if text.is_empty() {
            return Ok(options);
        }
        let mut last = None;
        for piece in text.split([',', ';']) {
            let Some((name, value)) = piece.split_once('=') else {
                last = Some(options.one_more(last, piece)?);
                continue;
            };
            let row = row(name)?;
            let value = row.value(value)?;
            if options.value(row.name).is_some() {
                return Err(format!("{name} is there twice"));
            }
            options.values.push((row.name, value));
            last = Some(row);
        }
        options.check()?;
        Ok(options)
    }

    pub fn mode(&self) -> BondMode {
        byte(self.mode_number()).into()
    }

    /// The port that is preferred to the others, by name; the kernel wants its index, after the port
    /// has become a member ([`InfoBond::Primary`]).
    pub fn primary(&self) -> Option<&str> {
        match self.value("primary") {
            Some(Value::Link(name)) => Some(name),
            _ => None,
        }
    }

    /// Whether the bond's address is that of whichever port is in use.
    pub fn has_its_ports_address(&self) -> bool {
        // 1: active
        self.number("fail_over_mac") == Some(1)
    }

    /// For the kernel, in a message that makes the bond: all but [`Self::primary`].
    pub fn attributes(&self) -> Vec<InfoBond> {
        let effective = self.effective();
        effective.iter().filter_map(|(row, value)| row.attribute(value)).collect()
    }

    /// Keys and values of `[Bond]` in systemd.netdev(5). It has no key for [`Self::primary`], which
    /// is a property of the port there (`PrimarySlave=` of systemd.network(5)).
    pub fn networkd(&self) -> Vec<(&'static str, String)> {
        let effective = self.effective();
        let known = effective.iter().filter_map(|(row, value)| {
            let (key, unit) = row.networkd?;
            Some((key, row.for_networkd(value, unit)?))
        });
        known.collect()
    }

    /// Options of `[bond]` in a keyfile of NetworkManager.
    pub fn network_manager(&self) -> Vec<(&'static str, String)> {
        let effective = self.effective();
        let known = effective.iter().filter(|(row, _)| row.network_manager);
        known.map(|(row, value)| (row.name, row.text(value, ","))).collect()
    }

    /// All of them by the kernel's names, as `bond-…` of ifupdown wants them; several addresses have
    /// blanks between them.
    pub fn kernel(&self) -> Vec<(&'static str, String)> {
        let effective = self.effective();
        effective.iter().map(|(row, value)| (row.name, row.text(value, " "))).collect()
    }

    /// The mode first, because the kernel judges the others by it; and a monitor, because a bond
    /// without one keeps sending into a dead cable for ever.
    fn effective(&self) -> Vec<(&'static Row, Value)> {
        let mut values = vec![("mode", Value::Number(self.mode_number()))];
        if self.miimon() > 0 && self.value("miimon").is_none() {
            values.push(("miimon", Value::Number(self.miimon())));
        }
        values.extend(self.values.iter().filter(|(name, _)| *name != "mode").cloned());
        values.into_iter().filter_map(|(name, value)| Some((row(name).ok()?, value))).collect()
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Of an option that is not there: nothing.
    fn number(&self, name: &str) -> Option<u32> {
        match self.value(name) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    fn mode_number(&self) -> u32 {
        self.number("mode").unwrap_or_default()
    }

    fn watches_arp(&self) -> bool {
        self.number("arp_interval").is_some_and(|interval| interval > 0)
    }

    fn miimon(&self) -> u32 {
        self.number("miimon").unwrap_or(if self.watches_arp() { 0 } else { MIIMON })
    }

    fn one_more(&mut self, list: Option<&'static Row>, text: &str) -> Result<&'static Row, String> {
        let wrong = || format!("\"{text}\" is no option: options are NAME=VALUE");
        let row = list.ok_or_else(wrong)?;
        let (_, before) = self.values.last_mut().ok_or_else(wrong)?;
        let too_many = match (before, row.value(text)) {
            (Value::Ipv4(all), Ok(Value::Ipv4(more))) => {
                all.extend(more);
                all.len() > MOST_TARGETS
            }
            (Value::Ipv6(all), Ok(Value::Ipv6(more))) => {
                all.extend(more);
                all.len() > MOST_TARGETS
            }
            (Value::Ipv4(_) | Value::Ipv6(_), Err(why)) => return Err(why),
            _ => return Err(wrong()),
        };
        if too_many {
            return Err(format!("{} may have {MOST_TARGETS} addresses", row.name));
        }
        Ok(row)
    }

    /// What the kernel would refuse, or accept and never act upon.
    fn check(&self) -> Result<(), String> {
        let mode = self.mode_number();
        for (name, _) in &self.values {
            let row = row(name)?;
            if row.modes.checked_shr(mode).unwrap_or_default() & 1 == 0 {
                let mode = MODES.get(mode as usize).copied().unwrap_or_default();
                return Err(format!("{name} is not for mode {mode}, but for {}", modes(row.modes)));
            }
        }
        let is_set = |name: &str| self.number(name).is_some_and(|number| number > 0);
        let targets = ["arp_ip_target", "ns_ip6_target"].map(|name| self.value(name).is_some());
        let has_targets = targets.contains(&true);
        if self.watches_arp() && is_set("miimon") {
            return Err("miimon and arp_interval exclude each other".into());
        }
        if self.watches_arp() && !has_targets {
            return Err("arp_interval needs arp_ip_target, an address to ask for".into());
        }
        if !self.watches_arp() && (has_targets || is_set("arp_validate")) {
            return Err("arp_ip_target, ns_ip6_target and arp_validate need arp_interval".into());
        }
        if self.number("miimon") == Some(0) && !self.watches_arp() {
            return Err("with miimon=0 and no arp_interval nothing would notice a dead port".into());
        }
        for name in ["updelay", "downdelay", "peer_notif_delay"] {
            if is_set(name) && self.miimon() == 0 {
                return Err(format!("{name} needs miimon, which arp_interval excludes"));
            }
        }
        let delay = self.number("peer_notif_delay").unwrap_or_default();
        match delay.checked_rem(self.miimon()) {
            None | Some(0) => Ok(()),
            Some(_) => {
                Err(format!("peer_notif_delay must be a multiple of miimon, {}", self.miimon()))
            }
        }
    }
}

impl Row {
    fn value(&self, text: &str) -> Result<Value, String> {
        let wrong = |wanted: &str| Err(format!("{} is \"{text}\"; it may be {wanted}", self.name));
        match &self.kind {
            Kind::Number { range: (least, most), .. } => match number_of(text) {
                Some(number) if (*least..=*most).contains(&number) => Ok(Value::Number(number)),
                _ => wrong(&format!("{least} to {most}")),
            },
            Kind::Word { words, .. } => {
                let named = words.iter().position(|word| *word == text);
                let place = named.or_else(|| number_of(text).map(|number| number as usize));
                match place.filter(|place| *place < words.len()) {
                    Some(place) => Ok(Value::Number(place as u32)),
                    None => wrong(&words.join(", ")),
                }
            }
            Kind::Switch { .. } => match text {
                "1" | "on" => Ok(Value::Number(1)),
                "0" | "off" => Ok(Value::Number(0)),
                _ => wrong("0 or 1"),
            },
            Kind::Ipv4 => match text.parse::<Ipv4Addr>() {
                Ok(address) if !address.is_unspecified() && !address.is_broadcast() => {
                    Ok(Value::Ipv4(vec![address]))
                }
                _ => wrong("an IPv4 address"),
            },
            Kind::Ipv6 => {
                let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                match bare.unwrap_or(text).parse::<Ipv6Addr>() {
                    Ok(address) if !address.is_unspecified() && !address.is_multicast() => {
                        Ok(Value::Ipv6(vec![address]))
                    }
                    _ => wrong("an IPv6 address in brackets"),
                }
            }
            Kind::Mac => match text.parse::<Mac>() {
                Ok(mac) if mac.is_unicast() => Ok(Value::Mac(mac)),
                _ => wrong("the MAC address of a single system"),
            },
            Kind::Link => Ok(Value::Link(link_name(text)?)),
        }
    }

    fn attribute(&self, value: &Value) -> Option<InfoBond> {
        Some(match (&self.kind, value) {
            (Kind::Number { attribute, .. }, Value::Number(number)) => attribute(*number),
            (Kind::Word { attribute, .. }, Value::Number(number)) => attribute(*number),
            (Kind::Switch { attribute }, Value::Number(number)) => attribute(*number != 0),
            (Kind::Ipv4, Value::Ipv4(addresses)) => InfoBond::ArpIpTarget(addresses.clone()),
            (Kind::Ipv6, Value::Ipv6(addresses)) => InfoBond::NsIp6Target(addresses.clone()),
            (Kind::Mac, Value::Mac(mac)) => InfoBond::AdActorSystem(mac.0),
            _ => return None,
        })
    }

    fn text(&self, value: &Value, separator: &str) -> String {
        match (&self.kind, value) {
            (Kind::Word { words, .. }, Value::Number(number)) => {
                words.get(*number as usize).copied().unwrap_or_default().to_owned()
            }
            (_, Value::Number(number)) => number.to_string(),
            (_, Value::Ipv4(addresses)) => joined(addresses, separator),
            (_, Value::Ipv6(addresses)) => joined(addresses, separator),
            (_, Value::Mac(mac)) => mac.to_string(),
            (_, Value::Link(name)) => name.clone(),
        }
    }

    fn for_networkd(&self, value: &Value, unit: &str) -> Option<String> {
        match (&self.kind, value) {
            (Kind::Switch { .. }, Value::Number(number)) => {
                Some(if *number == 0 { "no" } else { "yes" }.to_owned())
            }
            // It has no words for the filters.
            (_, Value::Number(4..)) if self.name == "arp_validate" => None,
            _ => Some(format!("{}{unit}", self.text(value, " "))),
        }
    }
}

fn row(name: &str) -> Result<&'static Row, String> {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    let name = alias.map_or(name, |(_, name)| name);
    let row = ROWS.iter().find(|row| row.name == name);
    row.ok_or_else(|| format!("\"{name}\" is no option of a bond"))
}

fn modes(bits: u8) -> String {
    let named = MODES.iter().enumerate().filter(|(number, _)| {
        u32::try_from(*number).ok().and_then(|n| bits.checked_shr(n)).is_some_and(|b| b & 1 == 1)
    });
    named.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
}

fn joined<T: ToString>(items: &[T], separator: &str) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(separator)
}

/// Digits and nothing else: `+1` is no number to the kernel.
fn number_of(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn byte(number: u32) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

fn word16(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

const fn number(
    name: &'static str,
    range: (u32, u32),
    modes: u8,
    attribute: fn(u32) -> InfoBond,
    networkd: Option<(&'static str, &'static str)>,
) -> Row {
    Row { name, kind: Kind::Number { range, attribute }, modes, networkd, network_manager: true }
}

const fn word(
    name: &'static str,
    words: &'static [&'static str],
    modes: u8,
    attribute: fn(u32) -> InfoBond,
    networkd: &'static str,
) -> Row {
    let kind = Kind::Word { words, attribute };
    Row { name, kind, modes, networkd: Some((networkd, "")), network_manager: true }
}

const fn switch(
    name: &'static str,
    modes: u8,
    attribute: fn(bool) -> InfoBond,
    networkd: Option<&'static str>,
) -> Row {
    let networkd = match networkd {
        Some(key) => Some((key, "")),
        None => None,
    };
    Row { name, kind: Kind::Switch { attribute }, modes, networkd, network_manager: true }
}

/// Not known to every NetworkManager in use.
const fn newer(row: Row) -> Row {
    Row { network_manager: false, ..row }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::link::{
        BondAdSelect, BondArpValidate, BondFailOverMac, BondLacpRate, BondPrimaryReselect,
        BondXmitHashPolicy,
    };

    fn attributes(text: &str) -> Vec<InfoBond> {
        BondOptions::parse(text).unwrap_or_else(|why| panic!("{text}: {why}")).attributes()
    }

    #[test]
    fn every_mode_has_a_name_and_a_number() {
        for (number, name) in MODES.iter().enumerate() {
            let mode = BondMode::from(u8::try_from(number).unwrap());
            assert_eq!(mode.to_string(), *name);
            for text in [format!("mode={name}"), format!("mode={number}")] {
                assert_eq!(BondOptions::parse(&text).unwrap().mode(), mode, "{text}");
            }
        }
        assert_eq!(BondOptions::parse("").unwrap().mode(), BondMode::BalanceRr);
    }

    #[test]
    #[rustfmt::skip]
    fn options_become_the_kernels_attributes() {
        use InfoBond::*;
        let (rr, backup, ad, tlb) = (Mode(BondMode::BalanceRr), Mode(BondMode::ActiveBackup), Mode(BondMode::Ieee8023Ad), Mode(BondMode::BalanceTlb));
        let [a, b] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
        let cases = [
            // A bond that nobody watches never fails over.
            ("", vec![rr.clone(), MiiMon(100)]),
            ("mode=active-backup", vec![backup.clone(), MiiMon(100)]),
            ("miimon=250,mode=1", vec![backup.clone(), MiiMon(250)]), // order does not matter
            ("mode=1;miimon=250", vec![backup.clone(), MiiMon(250)]),
            // dracut: addresses have `;` between them; the rest of the world, `,`.
            ("mode=1,arp_interval=500,arp_ip_target=10.0.0.1;10.0.0.2,arp_validate=all",
                vec![backup.clone(), ArpInterval(500), ArpIpTarget(vec![a, b]), ArpValidate(BondArpValidate::All)]),
            ("mode=1;arp_interval=500;arp_ip_target=10.0.0.1,10.0.0.2",
                vec![backup.clone(), ArpInterval(500), ArpIpTarget(vec![a, b])]),
            ("mode=1,miimon=0,arp_interval=500,arp_ip_target=10.0.0.1",
                vec![backup.clone(), MiiMon(0), ArpInterval(500), ArpIpTarget(vec![a])]),
            ("mode=1,arp_interval=9,ns_ip6_target=[2001:db8::1];[2001:db8::2]",
                vec![backup.clone(), ArpInterval(9), NsIp6Target(vec!["2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap()])]),
            ("mode=802.3ad,lacp_rate=fast,xmit_hash_policy=layer3+4,ad_select=bandwidth,min_links=1",
                vec![ad.clone(), MiiMon(100), AdLacpRate(BondLacpRate::Fast), XmitHashPolicy(BondXmitHashPolicy::Layer34), AdSelect(BondAdSelect::Bandwidth), MinLinks(1)]),
            ("mode=4,lacp_rate=1,ad_actor_system=02:00:00:00:00:01,ad_actor_sys_prio=1,ad_user_port_key=1023",
                vec![ad, MiiMon(100), AdLacpRate(BondLacpRate::Fast), AdActorSystem([2, 0, 0, 0, 0, 1]), AdActorSysPrio(1), AdUserPortKey(1023)]),
            ("mode=5,tlb_dynamic_lb=0,lp_interval=2", vec![tlb, MiiMon(100), TlbDynamicLb(false), LpInterval(2)]),
            ("packets_per_slave=0", vec![rr, MiiMon(100), PacketsPerPort(0)]),
            ("mode=1,miimon=50,updelay=200,downdelay=100,fail_over_mac=active,primary_reselect=failure,num_unsol_na=3",
                vec![backup.clone(), MiiMon(50), UpDelay(200), DownDelay(100), FailOverMac(BondFailOverMac::Active), PrimaryReselect(BondPrimaryReselect::Failure), NumPeerNotif(3)]),
            ("mode=1,primary=eth1", vec![backup, MiiMon(100)]), // by index, later
        ];
        for (text, expected) in cases {
            assert_eq!(attributes(text), expected, "{text}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn what_contradicts_itself_says_so() {
        let cases = [
            ("mode=7",                                   "balance-rr, active-backup"),
            ("mode=lacp",                                "mode is \"lacp\""),
            ("mode=1,mode=1",                            "twice"),
            ("num_grat_arp=1,num_unsol_na=2",            "twice"), // one option to the kernel
            ("mode",                                     "NAME=VALUE"),
            ("mode=1,eth0",                              "NAME=VALUE"),
            ("miimom=100",                               "\"miimom\" is no option"),
            ("miimon=",                                  "0 to 2147483647"),
            ("miimon=+1",                                "0 to 2147483647"),
            ("mode=1,lacp_rate=fast",                    "lacp_rate is not for mode active-backup, but for 802.3ad"),
            ("packets_per_slave=2,mode=4",               "packets_per_slave is not for mode 802.3ad, but for balance-rr"),
            ("mode=4,arp_interval=100,arp_ip_target=10.0.0.1", "arp_interval is not for mode 802.3ad"),
            ("mode=6,arp_validate=all",                  "arp_validate is not for mode balance-alb"),
            ("primary=eth0",                             "primary is not for mode balance-rr, but for active-backup, balance-tlb, balance-alb"),
            ("mode=1,miimon=100,arp_interval=100,arp_ip_target=10.0.0.1", "exclude each other"),
            ("mode=1,arp_interval=100",                  "needs arp_ip_target"),
            ("mode=1,arp_ip_target=10.0.0.1",            "need arp_interval"),
            ("mode=1,miimon=0",                          "dead port"),
            ("mode=1,arp_interval=9,arp_ip_target=10.0.0.1,updelay=9", "updelay needs miimon"),
            ("mode=1,miimon=100,peer_notif_delay=150",   "multiple of miimon, 100"),
            ("mode=1,arp_interval=9,arp_ip_target=0.0.0.0", "arp_ip_target is \"0.0.0.0\""),
            ("mode=1,arp_interval=9,arp_ip_target=10.0.0.1;gw", "arp_ip_target is \"gw\""),
            ("mode=4,ad_actor_system=01:00:5e:00:00:01", "single system"),
            ("mode=1,primary=an-interface-of-bond",      "15"),
            ("mode=1,",                                  "NAME=VALUE"),
        ];
        for (text, expected) in cases {
            let why = BondOptions::parse(text).expect_err(text);
            assert!(why.contains(expected), "{text}: {why}");
        }
        let many = format!("mode=1,arp_interval=9,arp_ip_target={}", ["10.0.0.1"; 17].join(";"));
        assert!(BondOptions::parse(&many).unwrap_err().contains("16"));
    }

    #[test]
    #[rustfmt::skip]
    fn the_hosts_software_is_told_the_same() {
        type Pairs = &'static [(&'static str, &'static str)];
        let cases: [(&str, Pairs, Pairs); 4] = [
            ("", &[("Mode", "balance-rr"), ("MIIMonitorSec", "100ms")],
                 &[("mode", "balance-rr"), ("miimon", "100")]),
            ("mode=4,lacp_rate=1,all_slaves_active=1,lacp_active=off",
                &[("Mode", "802.3ad"), ("MIIMonitorSec", "100ms"), ("LACPTransmitRate", "fast"), ("AllSlavesActive", "yes")],
                // lacp_active is younger than the NetworkManager of Debian 12.
                &[("mode", "802.3ad"), ("miimon", "100"), ("lacp_rate", "fast"), ("all_slaves_active", "1")]),
            ("mode=1,arp_interval=500,arp_ip_target=10.0.0.1;10.0.0.2,arp_validate=filter",
                &[("Mode", "active-backup"), ("ARPIntervalSec", "500ms"), ("ARPIPTargets", "10.0.0.1 10.0.0.2")],
                &[("mode", "active-backup"), ("arp_interval", "500"), ("arp_ip_target", "10.0.0.1,10.0.0.2"), ("arp_validate", "filter")]),
            ("mode=6,active_slave=eth1,lp_interval=3", // NetworkManager's old name
                &[("Mode", "balance-alb"), ("MIIMonitorSec", "100ms"), ("LearnPacketIntervalSec", "3s")],
                &[("mode", "balance-alb"), ("miimon", "100"), ("primary", "eth1"), ("lp_interval", "3")]),
        ];
        for (text, networkd, network_manager) in cases {
            let options = BondOptions::parse(text).unwrap();
            let own = |pairs: Vec<(&'static str, String)>| pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Vec<_>>();
            let want = |pairs: Pairs| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Vec<_>>();
            assert_eq!(own(options.networkd()), want(networkd), "{text}");
            assert_eq!(own(options.network_manager()), want(network_manager), "{text}");
        }
    }

    #[test]
    fn every_row_is_there_once_and_every_alias_leads_somewhere() {
        for (at, row) in ROWS.iter().enumerate() {
            assert!(!ROWS.iter().skip(at + 1).any(|other| other.name == row.name), "{}", row.name);
            assert!(row.modes != 0, "{}", row.name);
        }
        for (alias, name) in ALIASES {
            assert!(!ROWS.iter().any(|row| row.name == *alias), "{alias}");
            assert!(ROWS.iter().any(|row| row.name == *name), "{alias}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_options_make_it_panic(text in "[a-z0-9_=,;:.\\[\\]-]*") {
            if let Ok(options) = BondOptions::parse(&text) {
                options.attributes();
                options.networkd();
            }
        }
    }
}
