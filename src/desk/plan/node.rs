//! Who a plan is for: one node from options, or many from a list.
//!
//! A list has one node a line: words in any order, recognised by their shape, and `#` for comments.
//! dnsmasq's `dhcp-host=` lines are understood as well, so that the list may be the file that the
//! DHCP server reads.

use std::net::Ipv4Addr;

use crate::net::Mac;

/// What is known of a node before it boots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub mac: Option<Mac>,
    pub address: Option<Ipv4Addr>,
    pub prefix: Option<u8>,
    pub hostname: Option<String>,
    /// SMBIOS system UUID as the firmware stores it.
    pub uuid: Option<[u8; 16]>,
}

impl Node {
    /// What people call it.
    pub fn name(&self) -> String {
        let mac = || self.mac.map(|mac| mac.to_string());
        let address = || self.address.map(|address| address.to_string());
        self.hostname.clone().or_else(mac).or_else(address).unwrap_or_default()
    }
}

/// `10.0.0.5` or `10.0.0.5/24`.
pub fn address(text: &str) -> Result<(Ipv4Addr, Option<u8>), String> {
    let wrong = || format!("\"{text}\" is not an address like 10.0.0.5 or 10.0.0.5/24");
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address = address.parse().map_err(|_| wrong())?;
    let prefix = prefix.map(|prefix| match prefix.parse() {
        Ok(prefix @ 1..=32) => Ok(prefix),
        _ => Err(wrong()),
    });
    Ok((address, prefix.transpose()?))
}

/// A name that a host may have, for the kernel and for DHCP.
pub fn hostname(text: &str) -> Result<String, String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match text.bytes().all(known) && !numeric && text.len() <= 64 {
        true => Ok(text.to_owned()),
        false => Err(format!("\"{text}\" is not a host name")),
    }
}

/// The nodes of a list.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct List {
    pub nodes: Vec<Node>,
    /// What is of many nodes and hence of none, each with its line.
    pub skipped: Vec<String>,
}

/// Reads a list; what is wrong with it, line by line, instead if something is.
pub fn list(text: &str) -> Result<List, Vec<(usize, String)>> {
    let List { mut nodes, mut skipped } = List::default();
    let mut wrong = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.split('#').next().unwrap_or_default().trim();
        let fields = line.strip_prefix("dhcp-host=").map(str::trim);
        if let Some(pattern) = fields.and_then(|fields| fields.split(',').find(is_pattern)) {
            skipped.push(format!("line {number}: {} is a pattern of many nodes", pattern.trim()));
            continue;
        }
        let read = match fields {
            Some(fields) => dnsmasq(fields),
            None => words(line.split_whitespace()),
        };
        match read {
            Ok(Some(node)) if nodes.contains(&node) => {}
            Ok(node) => nodes.extend(node),
            Err(why) => wrong.push((number, why)),
        }
    }
    if wrong.is_empty() { Ok(List { nodes, skipped }) } else { Err(wrong) }
}

fn words<'a>(words: impl Iterator<Item = &'a str>) -> Result<Option<Node>, String> {
    let mut node = Node::default();
    let mut some = false;
    for word in words {
        some = true;
        take(&mut node, word)?;
    }
    Ok(some.then_some(node))
}

fn take(node: &mut Node, word: &str) -> Result<(), String> {
    let twice = |what: &str| Err(format!("\"{word}\" is a second {what}"));
    if let Ok(mac) = word.parse() {
        match node.mac.replace(mac) {
            Some(_) => return twice("MAC address"),
            None => return Ok(()),
        }
    }
    if let Ok((address, prefix)) = address(word) {
        node.prefix = prefix;
        match node.address.replace(address) {
            Some(_) => return twice("address"),
            None => return Ok(()),
        }
    }
    let name = hostname(word).map_err(|_| {
        format!("\"{word}\" is neither a MAC address nor an IPv4 address nor a host name")
    })?;
    match node.hostname.replace(name) {
        Some(_) => twice("host name"),
        None => Ok(()),
    }
}

/// The fields of `dhcp-host=` (dnsmasq(8)), of which only those are a node's that say who it is.
/// `None` for a host that dnsmasq is told to ignore.
fn dnsmasq(fields: &str) -> Result<Option<Node>, String> {
    let fields: Vec<_> = fields.split(',').map(str::trim).collect();
    if fields.contains(&"ignore") {
        return Ok(None);
    }
    let tags = ["set:", "tag:", "net:", "id:"];
    let matters = |field: &&&str| {
        let tag = tags.iter().any(|tag| field.starts_with(tag));
        // The other family's addresses are in brackets.
        !field.is_empty() && !tag && !field.starts_with('[') && !is_lease_time(field)
    };
    let wanted: Vec<_> = fields.iter().filter(matters).copied().collect();
    words(wanted.into_iter())
}

/// `52:54:00:*:*:06`, or `*:*:*:*:*:*` for anybody.
fn is_pattern(field: &&str) -> bool {
    let pattern = |c: char| c.is_ascii_hexdigit() || ":-*".contains(c);
    field.contains('*') && field.trim().chars().all(pattern)
}

fn is_lease_time(field: &str) -> bool {
    let number = field.strip_suffix(['s', 'm', 'h', 'd', 'w']).unwrap_or(field);
    field == "infinite" || (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn words_of_a_list_are_recognised_by_their_shape() {
        let node = |mac: &str, ip: &str, name: &str| {
            let (address, prefix) = address(ip).map_or((None, None), |(a, p)| (Some(a), p));
            Some(Node {
                mac: mac.parse().ok(), address, prefix,
                hostname: Some(name.to_owned()).filter(|name| !name.is_empty()), uuid: None,
            })
        };
        const MAC: &str = "52:54:00:aa:bb:cc";
        let cases = [
            ("52:54:00:aa:bb:cc 10.0.0.5/16 node1",                      node(MAC, "10.0.0.5/16", "node1")),
            ("  node1\t10.0.0.5 52-54-00-AA-BB-CC # rack 4",             node(MAC, "10.0.0.5", "node1")),
            ("node1.example.org",                                        node("", "", "node1.example.org")),
            ("10.0.0.5",                                                 node("", "10.0.0.5", "")),
            ("52:54:00:aa:bb:cc",                                        node(MAC, "", "")),
            ("",                                                         None),
            ("# nothing",                                                None),
            ("dhcp-host=52:54:00:aa:bb:cc,10.0.0.5,node1",               node(MAC, "10.0.0.5", "node1")),
            ("dhcp-host=52:54:00:aa:bb:cc,set:rack4,10.0.0.5,node1,12h", node(MAC, "10.0.0.5", "node1")),
            ("dhcp-host=52:54:00:aa:bb:cc,id:*,node1,infinite",          node(MAC, "", "node1")),
            ("dhcp-host=node1,10.0.0.5,3600",                            node("", "10.0.0.5", "node1")),
            ("dhcp-host=52:54:00:aa:bb:cc,[fd00::5],node1",              node(MAC, "", "node1")),
            ("dhcp-host=52:54:00:aa:bb:cc,ignore",                       None),
        ];
        for (line, expected) in cases {
            let expected = List { nodes: expected.into_iter().collect(), ..List::default() };
            assert_eq!(list(line), Ok(expected), "{line}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn what_is_no_node_is_said_with_its_line() {
        let cases = [
            ("10.0.0.300",                               "neither a MAC"),
            ("10.0.0.5/33",                              "neither a MAC"),
            ("node1 node2",                              "\"node2\" is a second host name"),
            ("10.0.0.5 10.0.0.6",                        "\"10.0.0.6\" is a second address"),
            ("52:54:00:aa:bb:cc 52:54:00:aa:bb:cd",      "second MAC"),
            ("52:54:00:*:*:* node1",                     "neither a MAC"),
            ("node1;reboot",                             "neither a MAC"),
        ];
        for (line, expected) in cases {
            let wrong = list(&format!("a\n{line}\nb\n")).unwrap_err();
            assert_eq!(wrong.len(), 1, "{line}: {wrong:?}");
            assert_eq!(wrong[0].0, 2, "{line}");
            assert!(wrong[0].1.contains(expected), "{line}: {wrong:?}");
        }
        assert_eq!(list("n1\nn2\nn1\n").unwrap().nodes.len(), 2, "a node is a node once");
    }

    /// The DHCP server's own file is a list as it is.
    #[test]
    fn a_pattern_of_dnsmasq_is_left_out_with_a_note() {
        for pattern in ["52:54:00:*:*:06", "*:*:*:*:*:*", "06-*:*:*:*:*:*"] {
            let got = list(&format!("n1\ndhcp-host=set:rack4, {pattern} ,10.0.0.5\nn2\n")).unwrap();
            assert_eq!(got.nodes.len(), 2, "{pattern}");
            assert_eq!(got.skipped, [format!("line 2: {pattern} is a pattern of many nodes")]);
        }
    }
}
