//! DHCPv6 messages on the wire (RFC 8415, and 3646, 4704, 5908, 5970, 7083 for options): the ones a
//! client sends, and the ones it gets.
//!
//! Pure: no socket, no clock, no dice. Never sent: RELEASE of an address that was in use, because the
//! root of the machine hangs on it; anything that claims to be a PXE client.

use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use super::options::{self, Options, Status};
use crate::net::duid::Duid;
use crate::net::lease6::{Address6, Lease6, Origin6};
use crate::net::names;

/// More addresses in one association than anybody hands out.
const MANY_ADDRESSES: usize = 16;
/// RFC 8415 section 21.24: what lies outside is ignored.
const LIMITS_OF_MAX_RT: std::ops::RangeInclusive<u32> = 60..=86_400;
/// Section 21.23: a shorter refresh is that.
const SHORTEST_REFRESH: u32 = 600;
/// IANA keeps this number for nobody. The class is a word of the operator's, not a vendor's, and
/// servers compare the word.
const NO_ENTERPRISE: u32 = 0;

/// Options asked for, the most wanted first.
const WANTED: &[u16] = &[
    options::DNS_SERVERS,
    options::BOOT_FILE_URL,
    options::BOOT_FILE_PARAMS,
    options::DOMAIN_LIST,
    options::NTP_SERVER,
    options::SNTP_SERVERS,
    options::CLIENT_FQDN,
    options::SOL_MAX_RT,
];

/// What RFC 8415 section 21.7 wants in addition where nothing but options are asked for.
const WANTED_INFORMATION: &[u16] = &[options::INFORMATION_REFRESH, options::INF_MAX_RT];

/// What the machine says of itself in every message; see `duid` for why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub duid: Duid,
    pub iaid: u32,
    pub hostname: Option<String>,
    /// Sent as vendor class and as user class: servers have rules for the one or the other.
    pub class: String,
    /// RFC 4578 section 2.1, as extended by IANA.
    pub architecture: Option<u16>,
}

/// A message to be sent, without what only the sender knows (transaction, time).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    Solicit {
        /// Addresses that this machine had.
        wish: Vec<Ipv6Addr>,
    },
    /// Accepts an offer.
    Request {
        server: Duid,
        addresses: Vec<Ipv6Addr>,
    },
    /// Asks whether the link is still the one that these addresses are for.
    Confirm {
        addresses: Vec<Ipv6Addr>,
    },
    Renew {
        server: Duid,
        addresses: Vec<Ipv6Addr>,
    },
    Rebind {
        addresses: Vec<Ipv6Addr>,
    },
    /// Somebody else has these addresses.
    Decline {
        server: Duid,
        addresses: Vec<Ipv6Addr>,
    },
    /// These were granted, and are not wanted.
    Release {
        server: Duid,
        addresses: Vec<Ipv6Addr>,
    },
    /// Everything but an address.
    Information,
}

/// The envelope of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// 24 bits.
    pub transaction: u32,
    /// Hundredths of a second since the exchange began; servers help each other out with those who
    /// wait long.
    pub hundredths: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Advertise,
    Reply,
}

/// An answer of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub kind: Kind,
    pub transaction: u32,
    pub client: Duid,
    pub server: Duid,
    /// The highest is to be taken, and 255 at once.
    pub preference: u8,
    /// Option 14: the addresses of a solicit are granted already.
    pub committed: bool,
    /// Of the message as a whole.
    pub status: Status,
    /// What it says of our addresses; `None` when it says nothing.
    pub association: Option<Association>,
    /// All options, and the usable addresses of the association.
    pub lease: Lease6,
    /// Seconds; what the server wants as the longest pause between two solicits, or between two
    /// requests for information.
    pub solicit_max_wait: Option<u32>,
    pub information_max_wait: Option<u32>,
    /// Seconds after which the options are to be asked for again.
    pub refresh: Option<u32>,
}

/// IA_NA, apart from its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Association {
    pub status: Status,
    /// Addresses that are in it and last 0 s: the server takes them back.
    pub withdrawn: Vec<Ipv6Addr>,
}

pub fn encode(identity: &Identity, envelope: Envelope, ask: &Ask) -> Vec<u8> {
    let (kind, server, addresses) = match ask {
        Ask::Solicit { wish } => (options::SOLICIT, None, Some(wish.as_slice())),
        Ask::Request { server, addresses } => {
            (options::REQUEST, Some(server), Some(addresses.as_slice()))
        }
        Ask::Confirm { addresses } => (options::CONFIRM, None, Some(addresses.as_slice())),
        Ask::Renew { server, addresses } => {
            (options::RENEW, Some(server), Some(addresses.as_slice()))
        }
        Ask::Rebind { addresses } => (options::REBIND, None, Some(addresses.as_slice())),
        Ask::Decline { server, addresses } => {
            (options::DECLINE, Some(server), Some(addresses.as_slice()))
        }
        Ask::Release { server, addresses } => {
            (options::RELEASE, Some(server), Some(addresses.as_slice()))
        }
        Ask::Information => (options::INFORMATION_REQUEST, None, None),
    };
    let [_, x, y, z] = envelope.transaction.to_be_bytes();
    let mut message = vec![kind, x, y, z];
    option(&mut message, options::CLIENT_ID, identity.duid.bytes());
    if let Some(server) = server {
        option(&mut message, options::SERVER_ID, server.bytes());
    }
    if let Some(addresses) = addresses {
        option(&mut message, options::IA_NA, &association(identity.iaid, addresses));
    }
    option(&mut message, options::ELAPSED_TIME, &envelope.hundredths.to_be_bytes());
    if matches!(ask, Ask::Solicit { .. }) {
        option(&mut message, options::RAPID_COMMIT, &[]);
    }
    // These are about addresses alone (RFC 8415 sections 18.2.3, 18.2.7 and 18.2.8).
    if matches!(ask, Ask::Confirm { .. } | Ask::Decline { .. } | Ask::Release { .. }) {
        return message;
    }
    let more = if matches!(ask, Ask::Information) { WANTED_INFORMATION } else { &[] };
    let wanted: Vec<u8> = WANTED.iter().chain(more).flat_map(|code| code.to_be_bytes()).collect();
    option(&mut message, options::REQUEST_LIST, &wanted);
    if !identity.class.is_empty() {
        let class = counted(identity.class.as_bytes());
        option(&mut message, options::USER_CLASS, &class);
        let vendor = [NO_ENTERPRISE.to_be_bytes().as_slice(), &class].concat();
        option(&mut message, options::VENDOR_CLASS, &vendor);
    }
    if let Some(name) = identity.hostname.as_deref().map(names::encode).filter(|n| !n.is_empty()) {
        // The server is to enter the address into DNS, as it does with DHCPv4's option 12.
        const SERVER_UPDATES: u8 = 1;
        option(&mut message, options::CLIENT_FQDN, &[&[SERVER_UPDATES], name.as_slice()].concat());
    }
    if let Some(architecture) = identity.architecture {
        option(&mut message, options::CLIENT_ARCH, &architecture.to_be_bytes());
        // UNDI 3.16 is what firmware of today says.
        option(&mut message, options::CLIENT_INTERFACE, &[1, 3, 16]);
    }
    message
}

fn option(message: &mut Vec<u8>, code: u16, value: &[u8]) {
    // Nothing of ours comes near 64 KiB but a class that somebody typed.
    let length = u16::try_from(value.len()).unwrap_or_default();
    message.extend(code.to_be_bytes());
    message.extend(length.to_be_bytes());
    message.extend(value.get(..usize::from(length)).unwrap_or_default());
}

/// An element of option 15 or 16: its length, and itself, bounded to what is sensible.
fn counted(text: &[u8]) -> Vec<u8> {
    let text = text.get(..255).unwrap_or(text);
    [u16::try_from(text.len()).unwrap_or_default().to_be_bytes().as_slice(), text].concat()
}

/// IA_NA. Times are 0: those are the server's to choose.
fn association(iaid: u32, addresses: &[Ipv6Addr]) -> Vec<u8> {
    let mut value = iaid.to_be_bytes().to_vec();
    value.extend([0; 8]);
    for address in addresses.iter().take(MANY_ADDRESSES) {
        option(&mut value, options::IA_ADDRESS, &[address.octets().as_slice(), &[0; 8]].concat());
    }
    value
}

/// Reads an answer to a client whose link has the number `iaid`. `Err` says why the bytes are no
/// answer to any DHCPv6 client.
pub fn parse(bytes: &[u8], iaid: u32) -> Result<Reply, &'static str> {
    let (&[kind, x, y, z], rest) =
        bytes.split_first_chunk::<4>().ok_or("shorter than a DHCPv6 message")?;
    let kind = match kind {
        options::ADVERTISE => Kind::Advertise,
        options::REPLY => Kind::Reply,
        _ => return Err("neither an offer nor a reply"),
    };
    let options = Options::read(rest).ok_or("its options are damaged")?;
    let id = |code| match options.all(code).as_slice() {
        [one] => Duid::from_bytes(one),
        _ => None,
    };
    let client = id(options::CLIENT_ID).ok_or("it does not say which client it is for")?;
    let server = id(options::SERVER_ID).ok_or("it does not say which server it is from")?;
    let status = options.status().ok_or("its status is damaged")?;
    let mut lease = lease(&options);
    let association = match options.associations(iaid) {
        None => return Err("its association is damaged"),
        Some(found) => found.map(|found| {
            let mut withdrawn = Vec::new();
            for part in found.addresses.iter().take(MANY_ADDRESSES) {
                if part.valid == 0 {
                    withdrawn.push(part.address);
                } else if is_for_a_host(part.address) && part.preferred <= part.valid {
                    lease.addresses.push(Address6 {
                        address: part.address,
                        prefix: 128,
                        preferred_seconds: finite(part.preferred),
                        valid_seconds: finite(part.valid),
                        origin: Origin6::Dhcp,
                    });
                }
            }
            lease.renew_seconds = finite(found.t1);
            lease.rebind_seconds = finite(found.t2);
            Association { status: found.status, withdrawn }
        }),
    };
    lease.client = Some(client.clone());
    lease.server = Some(server.clone());
    lease.iaid = Some(iaid);
    let wait = |code| options.u32(code).filter(|seconds| LIMITS_OF_MAX_RT.contains(seconds));
    Ok(Reply {
        kind,
        transaction: u32::from_be_bytes([0, x, y, z]),
        client,
        server,
        preference: options.byte(options::PREFERENCE).unwrap_or(0),
        committed: options.bytes(options::RAPID_COMMIT).is_some(),
        status,
        association,
        lease,
        solicit_max_wait: wait(options::SOL_MAX_RT),
        information_max_wait: wait(options::INF_MAX_RT),
        refresh: options
            .u32(options::INFORMATION_REFRESH)
            .map(|seconds| seconds.max(SHORTEST_REFRESH))
            .filter(|seconds| *seconds != u32::MAX),
    })
}

/// All options that are not about addresses. A malformed one counts as absent: half of a
/// configuration is worth more than none.
fn lease(options: &Options<'_>) -> Lease6 {
    let (mut ntp, ntp_names) = options.ntp();
    for server in options.addresses(options::SNTP_SERVERS) {
        if !ntp.contains(&server) {
            ntp.push(server);
        }
    }
    Lease6 {
        dns: options.addresses(options::DNS_SERVERS),
        search: options.bytes(options::DOMAIN_LIST).and_then(names::list).unwrap_or_default(),
        ntp,
        ntp_names,
        boot_url: options.text(options::BOOT_FILE_URL),
        boot_params: options.boot_params(),
        hostname: options.fqdn(),
        ..Lease6::default()
    }
}

/// `None`: for ever.
fn finite(seconds: u32) -> Option<u32> {
    (seconds != u32::MAX).then_some(seconds)
}

/// Addresses of one link and of one host are the kernel's own business.
fn is_for_a_host(address: Ipv6Addr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_unicast_link_local()
        || address.to_ipv4_mapped().is_some())
}

#[cfg(test)]
mod tests {
    use dhcproto::v6::{
        self, DhcpOption, IAAddr, IANA, NtpSuboption, ORO, OptionCode, UnknownOption,
    };
    use dhcproto::{Decodable, Decoder, Encodable};
    use proptest::prelude::*;

    use super::*;
    use crate::net::Mac;

    const IAID: u32 = 0x1234_5678;
    const NODE: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);

    fn address(last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)
    }

    fn identity() -> Identity {
        Identity {
            duid: Duid::of_mac(NODE),
            iaid: IAID,
            hostname: Some("n1.lan".into()),
            class: "landfall".into(),
            architecture: Some(7),
        }
    }

    fn server() -> Duid {
        Duid::from_bytes(b"\0\x02server").unwrap()
    }

    fn decoded(ask: &Ask) -> v6::Message {
        let envelope = Envelope { transaction: 0x00ab_cdef, hundredths: 321 };
        v6::Message::decode(&mut Decoder::new(&encode(&identity(), envelope, ask))).unwrap()
    }

    #[test]
    #[rustfmt::skip]
    fn each_message_has_what_rfc_8415_wants_in_it_and_no_more() {
        use v6::MessageType as Type;
        let (server, addresses) = (server(), vec![address(5)]);
        // type; server, association, its address, rapid commit, requested options
        let cases = [
            (Ask::Solicit { wish: Vec::new() },                                       Type::Solicit,            [false, true,  false, true,  true]),
            (Ask::Solicit { wish: addresses.clone() },                                Type::Solicit,            [false, true,  true,  true,  true]),
            (Ask::Request { server: server.clone(), addresses: addresses.clone() },   Type::Request,            [true,  true,  true,  false, true]),
            (Ask::Confirm { addresses: addresses.clone() },                           Type::Confirm,            [false, true,  true,  false, false]),
            (Ask::Renew { server: server.clone(), addresses: addresses.clone() },     Type::Renew,              [true,  true,  true,  false, true]),
            (Ask::Rebind { addresses: addresses.clone() },                            Type::Rebind,             [false, true,  true,  false, true]),
            (Ask::Decline { server: server.clone(), addresses: addresses.clone() },   Type::Decline,            [true,  true,  true,  false, false]),
            (Ask::Release { server, addresses },                                      Type::Release,            [true,  true,  true,  false, false]),
            (Ask::Information,                                                        Type::InformationRequest, [false, false, false, false, true]),
        ];
        for (ask, kind, expected) in cases {
            let message = decoded(&ask);
            let options = message.opts();
            assert_eq!((message.msg_type(), message.xid_num()), (kind, 0x00ab_cdef), "{ask:?}");
            assert_eq!(options.get(OptionCode::ClientId), Some(&DhcpOption::ClientId(Duid::of_mac(NODE).bytes().to_vec())));
            assert_eq!(options.get(OptionCode::ElapsedTime), Some(&DhcpOption::ElapsedTime(321)), "{ask:?}");
            let association = options.get(OptionCode::IANA);
            let inner = association.map(|option| match option {
                DhcpOption::IANA(IANA { id: IAID, t1: 0, t2: 0, opts }) => opts.get(OptionCode::IAAddr),
                other => panic!("{other:?}"),
            });
            let got = [
                options.get(OptionCode::ServerId).is_some(),
                association.is_some(),
                inner.flatten().is_some(),
                options.get(OptionCode::RapidCommit).is_some(),
                options.get(OptionCode::ORO).is_some(),
            ];
            assert_eq!(got, expected, "{ask:?}");
        }
    }

    #[test]
    fn what_we_say_of_ourselves_is_what_another_implementation_reads() {
        let message = decoded(&Ask::Information);
        let options = message.opts();
        let Some(DhcpOption::ORO(ORO { opts })) = options.get(OptionCode::ORO) else {
            panic!("no option 6");
        };
        let wanted: Vec<u16> = opts.iter().map(|code| (*code).into()).collect();
        assert_eq!(wanted, [23, 59, 60, 24, 56, 31, 39, 82, 32, 83]);
        assert_eq!(
            options.get(OptionCode::ClientArchType),
            Some(&DhcpOption::ClientArchType(vec![dhcproto::v4::Architecture::from(7)]))
        );
        let Some(DhcpOption::VendorClass(class)) = options.get(OptionCode::VendorClass) else {
            panic!("no option 16");
        };
        assert_eq!((class.num, &class.data), (0, &vec![b"landfall".to_vec()]));
        let Some(DhcpOption::UserClass(class)) = options.get(OptionCode::UserClass) else {
            panic!("no option 15");
        };
        assert_eq!(class.data, [b"landfall"]);
        for (code, expected) in [(39, b"\x01\x02n1\x03lan".as_slice()), (62, &[1, 3, 16])] {
            let Some(DhcpOption::Unknown(option)) = options.get(OptionCode::from(code)) else {
                panic!("no option {code}");
            };
            assert_eq!(option.data(), expected);
        }
    }

    #[test]
    fn names_of_any_length_do_not_break_the_message() {
        let identity = Identity {
            hostname: Some("h".repeat(40_000)),
            class: "c".repeat(90_000),
            ..identity()
        };
        let envelope = Envelope { transaction: u32::MAX, hundredths: 0 };
        let bytes = encode(&identity, envelope, &Ask::Solicit { wish: vec![address(1); 900] });
        let message = v6::Message::decode(&mut Decoder::new(&bytes)).unwrap();
        assert!(bytes.len() < 1280 && message.xid_num() == 0x00ff_ffff, "{} bytes", bytes.len());
    }

    fn unknown(code: u16, data: &[u8]) -> DhcpOption {
        DhcpOption::Unknown(UnknownOption::new(OptionCode::from(code), data.to_vec()))
    }

    fn granted(parts: &[(Ipv6Addr, u32, u32)]) -> DhcpOption {
        let mut opts = v6::DhcpOptions::new();
        // It puts each in front of its equals.
        for (addr, preferred_life, valid_life) in parts.iter().rev().copied() {
            let none = v6::DhcpOptions::new();
            opts.insert(DhcpOption::IAAddr(IAAddr {
                addr,
                preferred_life,
                valid_life,
                opts: none,
            }));
        }
        DhcpOption::IANA(IANA { id: IAID, t1: 50, t2: 80, opts })
    }

    /// A server's answer with the usual things in it, and these.
    fn reply_with(options: Vec<DhcpOption>) -> Vec<u8> {
        let mut message = v6::Message::new_with_id(v6::MessageType::Reply, [0, 0, 7]);
        message.opts_mut().insert(DhcpOption::ClientId(Duid::of_mac(NODE).bytes().to_vec()));
        message.opts_mut().insert(DhcpOption::ServerId(server().bytes().to_vec()));
        for option in options {
            message.opts_mut().insert(option);
        }
        message.to_vec().unwrap()
    }

    fn parsed(options: Vec<DhcpOption>) -> Reply {
        parse(&reply_with(options), IAID).unwrap()
    }

    #[test]
    fn a_reply_is_read_completely() {
        let name = |text: &str| text.parse::<dhcproto::Name>().unwrap();
        let reply = parsed(vec![
            granted(&[(address(5), 60, 100), (address(6), u32::MAX, u32::MAX)]),
            DhcpOption::Preference(7),
            DhcpOption::RapidCommit,
            DhcpOption::DomainNameServers(vec![address(1), address(2)]),
            // Not by DhcpOption: that one compresses names, which RFC 8415 section 10 forbids.
            unknown(24, b"\x03eng\x03lan\0\x03lan\0"),
            DhcpOption::NtpServer(vec![
                NtpSuboption::ServerAddress(address(3)),
                NtpSuboption::FQDN(name("time.lan.")),
            ]),
            unknown(31, &address(4).octets()),
            unknown(39, b"\x01\x02n7\x03lan\0"),
            unknown(59, b"nbd://[2001:db8::1]/focal"),
            unknown(60, b"\0\x02ro\0\x05quiet"),
            unknown(82, &600u32.to_be_bytes()),
            unknown(83, &5u32.to_be_bytes()),
        ]);
        assert_eq!((reply.kind, reply.transaction), (Kind::Reply, 7));
        assert_eq!((reply.client, reply.server), (Duid::of_mac(NODE), server()));
        assert!(reply.committed && reply.preference == 7 && reply.status.is_success());
        assert_eq!((reply.solicit_max_wait, reply.information_max_wait), (Some(600), None));
        let of = |last, preferred_seconds, valid_seconds| Address6 {
            address: address(last),
            prefix: 128,
            preferred_seconds,
            valid_seconds,
            origin: Origin6::Dhcp,
        };
        let expected = Lease6 {
            addresses: vec![of(5, Some(60), Some(100)), of(6, None, None)],
            dns: vec![address(1), address(2)],
            search: vec!["eng.lan".into(), "lan".into()],
            ntp: vec![address(3), address(4)],
            ntp_names: vec!["time.lan".into()],
            boot_url: Some("nbd://[2001:db8::1]/focal".into()),
            boot_params: vec!["ro".into(), "quiet".into()],
            hostname: Some("n7.lan".into()),
            server: Some(server()),
            client: Some(Duid::of_mac(NODE)),
            iaid: Some(IAID),
            renew_seconds: Some(50),
            rebind_seconds: Some(80),
            ..Lease6::default()
        };
        assert_eq!(reply.lease, expected);
    }

    #[test]
    #[rustfmt::skip]
    fn addresses_that_nobody_could_use_are_not_taken() {
        let cases = [
            ("one",                       granted(&[(address(5), 60, 100)]),              vec![address(5)], vec![]),
            ("taken back",                granted(&[(address(5), 0, 0)]),                 vec![],           vec![address(5)]),
            ("preferred beyond its end",  granted(&[(address(5), 101, 100)]),             vec![],           vec![]),
            ("of nobody",                 granted(&[(Ipv6Addr::UNSPECIFIED, 60, 100)]),   vec![],           vec![]),
            ("of the host",               granted(&[(Ipv6Addr::LOCALHOST, 60, 100)]),     vec![],           vec![]),
            ("of a group",                granted(&[("ff02::1".parse().unwrap(), 6, 9)]), vec![],           vec![]),
            ("of the link",               granted(&[("fe80::5".parse().unwrap(), 6, 9)]), vec![],           vec![]),
            ("of the other protocol",     granted(&[("::ffff:10.0.0.1".parse().unwrap(), 6, 9)]), vec![],   vec![]),
        ];
        for (case, option, addresses, withdrawn) in cases {
            let reply = parsed(vec![option]);
            let got: Vec<_> = reply.lease.addresses.iter().map(|one| one.address).collect();
            assert_eq!((got, reply.association.unwrap().withdrawn), (addresses, withdrawn), "{case}");
        }
    }

    #[test]
    fn associations_of_others_and_impossible_ones_are_absent() {
        let DhcpOption::IANA(ours) = granted(&[(address(5), 60, 100)]) else { unreachable!() };
        let other = DhcpOption::IANA(IANA { id: 1, ..ours.clone() });
        let late = DhcpOption::IANA(IANA { t1: 90, ..ours });
        for option in [other, late] {
            let reply = parsed(vec![option]);
            assert_eq!((reply.association, reply.lease.addresses), (None, Vec::new()));
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_status_is_a_sentence() {
        let status = |code: u16, words: &[u8]| unknown(13, &[&code.to_be_bytes(), words].concat());
        let cases = [
            (status(0, b""),             "it agrees"),
            (status(1, b"out of paper"), "it cannot, and does not say why (\"out of paper\")"),
            (status(2, b""),             "it has no address for this machine"),
            (status(3, b""),             "it does not know this machine's address"),
            (status(4, b""),             "the address is not one for this link"),
            (status(5, b""),             "it wants to be asked by multicast"),
            (status(99, b"\x1b[2J"),     "status 99"), // a console would obey
        ];
        for (option, expected) in cases {
            assert_eq!(parsed(vec![option]).status.sentence(), expected);
        }
    }

    #[test]
    #[rustfmt::skip]
    fn what_is_no_answer_says_why() {
        let good = reply_with(vec![granted(&[(address(5), 60, 100)])]);
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            bytes
        };
        let without = |code: u16| {
            let mut message = v6::Message::decode(&mut Decoder::new(&good)).unwrap();
            message.opts_mut().remove(OptionCode::from(code));
            message.to_vec().unwrap()
        };
        let second_server = [good.as_slice(), b"\0\x02\0\x04\0\x02ab"].concat();
        let cases = [
            ("nothing",         Vec::new(),                      "shorter than a DHCPv6 message"),
            ("a solicit",       changed(&|b| b[0] = 1),          "neither an offer nor a reply"),
            ("reconfigure",     changed(&|b| b[0] = 10),         "neither an offer nor a reply"),
            ("cut",             changed(&|b| _ = b.pop()),       "its options are damaged"),
            ("too long",        changed(&|b| b.push(0)),         "its options are damaged"),
            ("for nobody",      without(1),                      "it does not say which client it is for"),
            ("from nobody",     without(2),                      "it does not say which server it is from"),
            ("from two",        second_server,                   "it does not say which server it is from"),
            ("short status",    reply_with(vec![unknown(13, &[0])]), "its status is damaged"),
            ("short IA",        reply_with(vec![unknown(3, &[0x12, 0x34, 0x56, 0x78, 0])]), "its association is damaged"),
        ];
        for (case, bytes, expected) in cases {
            assert_eq!(parse(&bytes, IAID), Err(expected), "{case}");
        }
        assert!(parse(&good, IAID).is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            let _ = parse(&bytes, IAID);
        }

        /// Headers right, contents anything: as deep as the parser goes.
        #[test]
        fn no_options_make_it_panic(
            codes in proptest::collection::vec((0u16..90, proptest::collection::vec(any::<u8>(), 0..60)), 0..12),
            inner in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut options: Vec<_> = codes.iter().map(|(code, data)| (*code, data.clone())).collect();
            options.push((3, [IAID.to_be_bytes().as_slice(), &[0; 8], &inner].concat()));
            let mut bytes = reply_with(Vec::new());
            for (code, data) in &options {
                option(&mut bytes, *code, data);
            }
            let _ = parse(&bytes, IAID);
        }

        /// Every way to cut a good message is noticed.
        #[test]
        fn a_cut_message_is_never_believed(length in 0usize..200) {
            let good = reply_with(vec![granted(&[(address(5), 60, 100)])]);
            if length < good.len() {
                let cut = parse(&good[..length], IAID);
                prop_assert!(cut.is_err() || cut.unwrap().lease.addresses.is_empty());
            }
        }

        /// Whatever a well-formed server message says, two implementations read the same.
        #[test]
        fn it_agrees_with_dhcproto(
            parts in proptest::collection::vec((1u16.., 0u32..1000, 0u32..1000), 0..6),
            dns in proptest::collection::vec(1u16.., 0..6),
            t1 in any::<u32>(), t2 in any::<u32>(),
            preference in any::<u8>(),
            code in 0u16..9,
            url in "[!-~]{1,300}",
        ) {
            let parts: Vec<_> = parts.iter().map(|(last, a, b)| (address(*last), *a, *b)).collect();
            let DhcpOption::IANA(association) = granted(&parts) else { unreachable!() };
            let mut options = vec![
                DhcpOption::IANA(IANA { t1, t2, ..association }),
                DhcpOption::Preference(preference),
                unknown(13, &code.to_be_bytes()),
                unknown(59, url.as_bytes()),
            ];
            let dns: Vec<_> = dns.into_iter().map(address).collect();
            if !dns.is_empty() {
                options.push(DhcpOption::DomainNameServers(dns.clone()));
            }
            let bytes = reply_with(options);
            let reply = parse(&bytes, IAID).unwrap();
            let theirs = v6::Message::decode(&mut Decoder::new(&bytes)).unwrap();

            prop_assert_eq!(reply.transaction, theirs.xid_num());
            prop_assert_eq!(reply.preference, preference);
            prop_assert_eq!(reply.status.is_success(), code == 0);
            prop_assert_eq!(reply.lease.boot_url.as_deref(), Some(url.as_str()));
            let mut once: Vec<_> = Vec::new();
            for server in dns {
                if !once.contains(&server) { once.push(server); }
            }
            prop_assert_eq!(reply.lease.dns, once);
            let Some(DhcpOption::IANA(association)) = theirs.opts().get(OptionCode::IANA) else {
                panic!("no association");
            };
            let is_sane = t1 <= t2 || t2 == 0;
            prop_assert_eq!(reply.association.is_some(), is_sane);
            let mut usable = Vec::new();
            for option in association.opts.get_all(OptionCode::IAAddr).unwrap_or_default() {
                if let DhcpOption::IAAddr(one) = option
                    && one.valid_life > 0 && one.preferred_life <= one.valid_life && is_sane
                {
                    usable.push((one.addr, Some(one.valid_life)));
                }
            }
            let got: Vec<_> = reply.lease.addresses.iter().map(|one| (one.address, one.valid_seconds)).collect();
            prop_assert_eq!(got, usable);
        }
    }
}
