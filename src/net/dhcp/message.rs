//! DHCPv4 messages on the wire (RFC 2131, 2132, 3396, 3397, 3442, 4390, 4578, 6842, 8925): the ones
//! a client sends, and the ones it gets.
//!
//! Pure: no socket, no clock, no dice. Never sent: RELEASE, because the root of the machine hangs on
//! the address; INFORM; anything to a DHCP server that claims to be a PXE client.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::options::{self, Options};
use super::pxe::Boot;
use crate::net::{HardwareAddress, Lease, Mac, names};

const BOOTREQUEST: u8 = 1;
const BOOTREPLY: u8 = 2;
/// Hardware types of ARP (RFC 826), which DHCP uses too.
const ETHERNET: u8 = 1;
const INFINIBAND: u8 = 32;
const MAGIC_COOKIE: [u8; 4] = [99, 130, 83, 99];
const FLAG_BROADCAST: u16 = 0x8000;

/// Relay agents of the BOOTP age drop what is shorter (RFC 1542 section 2.1).
const SHORTEST_MESSAGE: usize = 300;
/// What fits one Ethernet frame: a larger promise makes relays fragment.
const LARGEST_ANSWER: u16 = 1500 - 28;
/// RFC 2132 section 5.1 ends at 68; below 576 IPv4 is not obliged to work.
const SMALLEST_MTU: u16 = 576;
/// Seconds; MIN_V6ONLY_WAIT of RFC 8925 section 3.4.
const SHORTEST_WITHOUT_IPV4: u32 = 300;
/// Seconds of a lease that does not say how long it lasts, which RFC 2131 (table 3) does not allow.
/// Not for ever: who says nothing may give the address to somebody else, and a renewal finds out.
/// What has no end because it has no lease, an answer of BOOTP, is no answer here anyway.
const UNSAID_LEASE: u32 = 3600;
/// Option 77, as iPXE writes its own: one bare word, not the counted words of RFC 3004, because
/// that is what the rules of servers in the field compare with.
const USER_CLASS: &[u8] = b"landfall";

/// Options asked for, the most wanted first, since servers may stop when a message is full.
const WANTED: &[u8] = &[
    options::SUBNET_MASK,
    options::CLASSLESS_ROUTES, // RFC 3442: before the router option
    options::ROUTERS,
    options::DNS_SERVERS,
    options::ROOT_PATH,
    options::TFTP_SERVER,
    options::BOOT_FILE,
    options::INTERFACE_MTU,
    options::HOST_NAME,
    options::DOMAIN_NAME,
    options::DOMAIN_SEARCH,
    options::NTP_SERVERS,
    options::LEASE_TIME,
    options::RENEWAL_TIME,
    options::REBINDING_TIME,
    options::BROADCAST,
    options::STATIC_ROUTES,
    options::TIME_OFFSET,
    options::NIS_DOMAIN,
    options::CLASSLESS_ROUTES_MICROSOFT,
];

/// What PXE boot servers may have to say.
const WANTED_OF_BOOT_SERVERS: &[u8] = &[
    options::VENDOR_SPECIFIC,
    options::SERVER_ID,
    options::VENDOR_CLASS,
    options::TFTP_SERVER,
    options::BOOT_FILE,
    options::ROOT_PATH,
];

/// What the machine says of itself in every message, so that firmware, boot loader and the real
/// system's DHCP client are one client to the server: the address they get must be the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub hardware: HardwareAddress,
    /// Type and bytes of option 61; `None`: as firmware makes it of the hardware address.
    pub client_id: Option<(u8, Vec<u8>)>,
    pub hostname: Option<String>,
    pub vendor_class: String,
    /// As the firmware stores it (RFC 4578 section 2.3).
    pub uuid: Option<[u8; 16]>,
    /// RFC 4578 section 2.1, as extended by IANA.
    pub architecture: Option<u16>,
    /// The machine would do with IPv6 alone, should the network say so (option 108, RFC 8925).
    pub can_do_without_ipv4: bool,
}

impl Identity {
    /// The value of option 61.
    pub fn client_id(&self) -> Vec<u8> {
        match (&self.client_id, self.hardware) {
            (Some((kind, id)), _) => [&[*kind], id.as_slice()].concat(),
            (None, HardwareAddress::Ethernet(mac)) => [[ETHERNET].as_slice(), &mac.0].concat(),
            // RFC 4390 section 2.1 sends us to RFC 4361: 255, four bytes of IAID, a DUID. The boot
            // ROMs of such cards take a DUID of their vendor (type 2, enterprise 0x2c9 as they
            // write it) with the GUID of the port, the last eight bytes of its address.
            (None, HardwareAddress::Infiniband(address)) => {
                const VENDOR: [u8; 12] = [0xff, 0, 0, 0, 0, 0, 2, 0, 0, 2, 0xc9, 0];
                [VENDOR.as_slice(), address.last_chunk::<8>().map_or(&[], |guid| guid)].concat()
            }
        }
    }
}

/// A message to be sent, without what only the sender knows (transaction, time).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    Discover {
        /// An address that this machine had, or was promised on the command line.
        wish: Option<Ipv4Addr>,
    },
    /// Accepts an offer.
    Select { address: Ipv4Addr, server: Option<Ipv4Addr> },
    /// Asks whether an address that this machine had is still its own (INIT-REBOOT).
    Confirm { address: Ipv4Addr },
    /// Renews or rebinds: the address is configured and can be answered to.
    Extend { address: Ipv4Addr },
    /// Gives back an address that somebody else uses.
    Decline { address: Ipv4Addr, server: Option<Ipv4Addr> },
    /// To PXE boot servers, never to DHCP servers: what is there to boot, and how to get `item` of
    /// their menu. The address is configured.
    Boot { address: Ipv4Addr, item: Option<u16> },
}

/// The envelope of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    pub transaction: u32,
    /// Seconds since the exchange began; relays prefer those who wait long.
    pub seconds: u16,
    /// Asks for answers to everybody, for networks that lose those to a machine without address.
    pub broadcast: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Offer,
    Ack,
    Nak,
}

/// An answer of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub kind: Kind,
    pub transaction: u32,
    /// Whom it is for; none where a hardware address has no room (InfiniBand).
    pub mac: Option<Mac>,
    /// Option 61, which servers of this age send back (RFC 6842).
    pub client_id: Option<Vec<u8>>,
    /// Option 54.
    pub server: Option<Ipv4Addr>,
    /// What is granted, or why nobody could use it; always the latter in a NAK.
    pub lease: Result<Lease, &'static str>,
    /// What it says of booting, with or without an address.
    pub boot: Boot,
    /// Option 56, mostly the reason of a NAK.
    pub words: Option<String>,
}

pub fn encode(identity: &Identity, envelope: Envelope, ask: &Ask) -> Vec<u8> {
    let mut message = Vec::with_capacity(SHORTEST_MESSAGE);
    let (kind, chaddr, broadcast) = match identity.hardware {
        HardwareAddress::Ethernet(Mac(mac)) => (ETHERNET, mac, envelope.broadcast),
        // Twenty bytes do not fit, so nobody could answer to them (RFC 4390 section 2.1).
        HardwareAddress::Infiniband(_) => (INFINIBAND, [0; 6], true),
    };
    let length = if kind == ETHERNET { 6 } else { 0 };
    message.extend([BOOTREQUEST, kind, length, 0]);
    message.extend(envelope.transaction.to_be_bytes());
    message.extend(envelope.seconds.to_be_bytes());
    let flags = if broadcast { FLAG_BROADCAST } else { 0 };
    message.extend(flags.to_be_bytes());
    let current = match ask {
        Ask::Extend { address } | Ask::Boot { address, .. } => *address,
        _ => Ipv4Addr::UNSPECIFIED,
    };
    message.extend(current.octets());
    message.extend([0; 12]); // yiaddr, siaddr, giaddr
    message.extend(chaddr);
    message.extend([0; 10]); // rest of chaddr
    message.extend([0; 64 + 128]); // sname, file
    message.extend(MAGIC_COOKIE);

    let mut option = |number: u8, value: &[u8]| {
        // Nothing of ours is longer but a host name or a class that somebody typed.
        let value = value.get(..255).unwrap_or(value);
        message.extend([number, u8::try_from(value.len()).unwrap_or(u8::MAX)]);
        message.extend(value);
    };
    let (kind, requested, chosen) = match ask {
        Ask::Discover { wish } => (1, *wish, None),
        Ask::Select { address, server } => (3, Some(*address), *server),
        Ask::Confirm { address } => (3, Some(*address), None),
        Ask::Extend { .. } | Ask::Boot { .. } => (3, None, None),
        Ask::Decline { address, server } => (4, Some(*address), *server),
    };
    option(options::MESSAGE_TYPE, &[kind]);
    if let Some(address) = requested {
        option(options::REQUESTED_ADDRESS, &address.octets());
    }
    if let Some(server) = chosen {
        option(options::SERVER_ID, &server.octets());
    }
    option(options::CLIENT_ID, &identity.client_id());
    match ask {
        // Nothing else belongs into it (RFC 2131 table 5).
        Ask::Decline { .. } => {}
        Ask::Boot { item, .. } => {
            let architecture = identity.architecture.unwrap_or_default();
            let class = format!("PXEClient:Arch:{architecture:05}:UNDI:003016");
            option(options::VENDOR_CLASS, class.as_bytes());
            if let Some(item) = item {
                let [high, low] = item.to_be_bytes();
                // PXE_BOOT_ITEM with layer 0, the end of the encapsulated options.
                option(options::VENDOR_SPECIFIC, &[71, 4, high, low, 0, 0, 255]);
            }
            describe(identity, &mut option);
            option(options::REQUEST_LIST, WANTED_OF_BOOT_SERVERS);
        }
        _ => {
            if !identity.vendor_class.is_empty() {
                option(options::VENDOR_CLASS, identity.vendor_class.as_bytes());
            }
            describe(identity, &mut option);
            let without_ipv4 = [options::IPV6_ONLY];
            let more: &[u8] = if identity.can_do_without_ipv4 { &without_ipv4 } else { &[] };
            option(options::REQUEST_LIST, &[WANTED, more].concat());
        }
    }
    message.push(255);
    message.resize(message.len().max(SHORTEST_MESSAGE), 0);
    message
}

/// The options by which servers tell machines apart.
fn describe(identity: &Identity, option: &mut impl FnMut(u8, &[u8])) {
    option(options::MAX_SIZE, &LARGEST_ANSWER.to_be_bytes());
    option(options::USER_CLASS, USER_CLASS);
    if let Some(name) = identity.hostname.as_deref().filter(|name| !name.is_empty()) {
        option(options::HOST_NAME, name.as_bytes());
    }
    if let Some(architecture) = identity.architecture {
        option(options::CLIENT_ARCH, &architecture.to_be_bytes());
        // RFC 4578 wants both or neither; UNDI 3.16 is what firmware of today says.
        option(options::CLIENT_INTERFACE, &[1, 3, 16]);
    }
    if let Some(uuid) = identity.uuid {
        option(options::CLIENT_UUID, &[[0].as_slice(), &uuid].concat());
    }
}

/// Reads an answer. `Err` says why the bytes are no answer to any DHCP client.
pub fn parse(bytes: &[u8]) -> Result<Reply, &'static str> {
    const SHORT: &str = "shorter than a DHCP message";
    let (header, rest) = bytes.split_first_chunk::<44>().ok_or(SHORT)?;
    let (sname, rest) = rest.split_at_checked(64).ok_or(SHORT)?;
    let (file, rest) = rest.split_at_checked(128).ok_or(SHORT)?;
    let (cookie, field) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
    let [op, hardware, length, _hops, x0, x1, x2, x3, header @ ..] = *header;
    let [_, _, _, _, _, _, _, _, y0, y1, y2, y3, s0, s1, s2, s3, header @ ..] = header;
    let [_, _, _, _, a, b, c, d, e, f, ..] = header;
    let mac = match (hardware, length) {
        (ETHERNET, 6) => Some(Mac([a, b, c, d, e, f])),
        (INFINIBAND, _) => None,
        _ => return Err("not an answer to an Ethernet or InfiniBand client"),
    };
    if op != BOOTREPLY {
        return Err("not an answer");
    }
    if *cookie != MAGIC_COOKIE {
        return Err("BOOTP without DHCP options");
    }
    let (options, overloaded) = Options::gather(field, file, sname);
    let kind = match options.byte(options::MESSAGE_TYPE) {
        Some(2) => Kind::Offer,
        Some(5) => Kind::Ack,
        Some(6) => Kind::Nak,
        _ => return Err("neither offer nor ACK nor NAK"),
    };
    let next_server = Ipv4Addr::new(s0, s1, s2, s3);
    let next_server = (!next_server.is_unspecified()).then_some(next_server);
    let sname = || names::text(sname).filter(|_| !overloaded.sname && next_server.is_none());
    let file = || names::text(file).filter(|_| !overloaded.file);
    let boot = Boot {
        next_server,
        tftp_server: options.text(options::TFTP_SERVER).or_else(sname),
        filename: options.text(options::BOOT_FILE).or_else(file),
        root_path: options.text(options::ROOT_PATH),
        menu: options.boot_menu(),
    };
    let address = Ipv4Addr::new(y0, y1, y2, y3);
    let lease = match kind {
        Kind::Nak => Err("refused"),
        Kind::Offer | Kind::Ack => lease(address, &boot, &options),
    };
    Ok(Reply {
        kind,
        transaction: u32::from_be_bytes([x0, x1, x2, x3]),
        mac,
        client_id: options.bytes(options::CLIENT_ID).map(<[u8]>::to_vec),
        server: options.address(options::SERVER_ID),
        lease,
        boot,
        words: options.text(options::MESSAGE),
    })
}

fn lease(address: Ipv4Addr, boot: &Boot, options: &Options) -> Result<Lease, &'static str> {
    let without_ipv4 = options.u32(options::IPV6_ONLY);
    if address.is_unspecified() {
        return Err(match (without_ipv4, &boot.menu) {
            (Some(_), _) => "it says that this network is for IPv6 alone",
            (None, Some(_)) => "it is a PXE boot server's and has no address",
            (None, None) => "it has no address",
        });
    }
    if address.is_loopback() || address.is_multicast() || address.is_broadcast() {
        return Err("its address is not one for a host");
    }
    let routes = options.routes();
    // Clouds without a shared segment give a host address and say in option 121 how to leave it.
    let prefix = match options.prefix() {
        Some(prefix) => prefix,
        None if options.bytes(options::SUBNET_MASK).is_some() => {
            return Err("its subnet mask is not one");
        }
        None if options.has_classless_routes() => 32,
        None => return Err("it has no subnet mask"),
    };
    if options.u32(options::LEASE_TIME) == Some(0) {
        return Err("it lasts 0 s");
    }
    let domains = options.domains();
    let search = match options.search() {
        search if search.is_empty() => domains.clone(),
        search => search,
    };
    let seconds = |number| options.u32(number).filter(|seconds| *seconds != u32::MAX);
    // T1 and T2 of no time at all would be a renewal without end.
    let share = |number| seconds(number).filter(|seconds| *seconds > 0);
    let lasts = match options.u32(options::LEASE_TIME) {
        Some(u32::MAX) => None,
        lasts => Some(lasts.unwrap_or(UNSAID_LEASE)),
    };
    Ok(Lease {
        address,
        prefix,
        broadcast: options.address(options::BROADCAST),
        routes,
        mtu: options.u16(options::INTERFACE_MTU).filter(|mtu| *mtu >= SMALLEST_MTU),
        dns: options.ip_addresses(options::DNS_SERVERS),
        domain: domains.into_iter().next(),
        search,
        hostname: options.name(options::HOST_NAME),
        ntp: options.ip_addresses(options::NTP_SERVERS),
        time_offset: options.i32(options::TIME_OFFSET),
        nis_domain: options.name(options::NIS_DOMAIN),
        root_path: boot.root_path.clone(),
        next_server: boot.next_server,
        tftp_server: boot.tftp_server.clone(),
        filename: boot.filename.clone(),
        server_id: options.address(options::SERVER_ID),
        lease_seconds: lasts,
        renew_seconds: share(options::RENEWAL_TIME),
        rebind_seconds: share(options::REBINDING_TIME),
        v6_only_seconds: without_ipv4.map(|seconds| seconds.max(SHORTEST_WITHOUT_IPV4)),
    })
}

#[cfg(test)]
mod tests {
    use dhcproto::v4::{self, DhcpOption, OptionCode};
    use dhcproto::{Decodable, Decoder, Encodable};
    use ipnet::Ipv4Net;
    use proptest::prelude::*;

    use super::*;
    use crate::net::Route;

    const NODE: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn identity() -> Identity {
        Identity {
            hardware: HardwareAddress::Ethernet(NODE),
            client_id: None,
            hostname: Some("n1".into()),
            vendor_class: "landfall".into(),
            uuid: Some(*b"0123456789abcdef"),
            architecture: Some(7),
            can_do_without_ipv4: false,
        }
    }

    fn envelope() -> Envelope {
        Envelope { transaction: 0xdead_beef, seconds: 3, broadcast: false }
    }

    fn decoded(bytes: &[u8]) -> v4::Message {
        v4::Message::decode(&mut Decoder::new(bytes)).unwrap()
    }

    #[test]
    fn what_we_send_is_what_another_implementation_reads() {
        let bytes = encode(&identity(), envelope(), &Ask::Discover { wish: Some(SERVER) });
        let message = decoded(&bytes);
        assert!(bytes.len() >= SHORTEST_MESSAGE);
        assert_eq!(message.opcode(), v4::Opcode::BootRequest);
        assert_eq!((message.xid(), message.secs()), (0xdead_beef, 3));
        assert_eq!(message.chaddr(), NODE.0);
        let options = message.opts();
        assert_eq!(options.msg_type(), Some(v4::MessageType::Discover));
        let mac_id = [[1].as_slice(), &NODE.0].concat();
        let uuid = [b"\0".as_slice(), b"0123456789abcdef"].concat();
        for expected in [
            DhcpOption::ClientIdentifier(mac_id),
            DhcpOption::RequestedIpAddress(SERVER),
            DhcpOption::MaxMessageSize(1472),
            DhcpOption::ClassIdentifier(b"landfall".to_vec()),
            DhcpOption::UserClass(b"landfall".to_vec()),
            DhcpOption::Hostname("n1".into()),
            DhcpOption::ClientSystemArchitecture(v4::Architecture::from(7)),
            DhcpOption::ClientNetworkInterface(1, 3, 16),
            DhcpOption::ClientMachineIdentifier(uuid),
        ] {
            assert_eq!(options.get(OptionCode::from(&expected)), Some(&expected));
        }
        let Some(DhcpOption::ParameterRequestList(wanted)) =
            options.get(OptionCode::ParameterRequestList)
        else {
            panic!("no option 55");
        };
        assert_eq!(wanted.iter().map(|code| u8::from(*code)).collect::<Vec<_>>(), WANTED);
    }

    #[test]
    #[rustfmt::skip]
    fn each_request_names_the_address_where_rfc_2131_table_4_wants_it() {
        let address = Ipv4Addr::new(10, 0, 0, 57);
        let cases = [
            (Ask::Discover { wish: None },                    Ipv4Addr::UNSPECIFIED, None,          None),
            (Ask::Select { address, server: Some(SERVER) },   Ipv4Addr::UNSPECIFIED, Some(address), Some(SERVER)),
            (Ask::Confirm { address },                        Ipv4Addr::UNSPECIFIED, Some(address), None),
            (Ask::Extend { address },                         address,               None,          None),
            (Ask::Decline { address, server: Some(SERVER) },  Ipv4Addr::UNSPECIFIED, Some(address), Some(SERVER)),
            (Ask::Boot { address, item: None },               address,               None,          None),
        ];
        for (ask, ciaddr, requested, server) in cases {
            let message = decoded(&encode(&identity(), envelope(), &ask));
            assert_eq!(message.ciaddr(), ciaddr, "{ask:?}");
            let requested = requested.map(DhcpOption::RequestedIpAddress);
            assert_eq!(message.opts().get(OptionCode::RequestedIpAddress), requested.as_ref(), "{ask:?}");
            let server = server.map(DhcpOption::ServerIdentifier);
            assert_eq!(message.opts().get(OptionCode::ServerIdentifier), server.as_ref(), "{ask:?}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn option_61_is_what_the_firmware_of_the_port_sends() {
        let guid = [0, 2, 0xc9, 3, 0, 0, 0x10, 0x39];
        let infiniband = |qpn: u8| {
            let mut address = [0xfe; 20];
            address[1] = qpn;
            address[12..].copy_from_slice(&guid);
            HardwareAddress::Infiniband(address)
        };
        let of_the_port = [[0xff, 0, 0, 0, 0, 0, 2, 0, 0, 2, 0xc9, 0].as_slice(), &guid].concat();
        let mac = [[1].as_slice(), &NODE.0].concat();
        let cases = [
            ("Ethernet",                      HardwareAddress::Ethernet(NODE), None,                     mac),
            ("ip=dhcp,0,rack7",               HardwareAddress::Ethernet(NODE), Some((0, b"rack7".to_vec())), b"\0rack7".to_vec()),
            ("InfiniBand",                    infiniband(1),                   None,                     of_the_port.clone()),
            ("its queue pair is another each boot", infiniband(9),             None,                     of_the_port),
        ];
        for (case, hardware, client_id, expected) in cases {
            let identity = Identity { hardware, client_id, ..identity() };
            assert_eq!(identity.client_id(), expected, "{case}");
            let bytes = encode(&identity, envelope(), &Ask::Discover { wish: None });
            let message = decoded(&bytes);
            let sent = message.opts().get(OptionCode::ClientIdentifier);
            assert_eq!(sent, Some(&DhcpOption::ClientIdentifier(expected)), "{case}");
            let is_infiniband = matches!(hardware, HardwareAddress::Infiniband(_));
            assert_eq!(bytes[1..3], if is_infiniband { [32, 0] } else { [1, 6] }, "{case}");
            assert_eq!(message.flags().broadcast(), is_infiniband, "{case}: RFC 4390 section 2.1");
            assert_eq!(bytes[28..44].iter().all(|byte| *byte == 0), is_infiniband, "{case}");
        }
    }

    #[test]
    fn only_boot_servers_meet_a_pxe_client() {
        let address = Ipv4Addr::new(10, 0, 0, 57);
        let asks = [
            Ask::Discover { wish: None },
            Ask::Select { address, server: Some(SERVER) },
            Ask::Confirm { address },
            Ask::Extend { address },
            Ask::Decline { address, server: Some(SERVER) },
        ];
        for ask in asks {
            let bytes = encode(&identity(), envelope(), &ask);
            assert!(!bytes.windows(9).any(|word| word == b"PXEClient"), "{ask:?}");
        }
        let bytes = encode(&identity(), envelope(), &Ask::Boot { address, item: Some(0x8001) });
        let class = DhcpOption::ClassIdentifier(b"PXEClient:Arch:00007:UNDI:003016".to_vec());
        let message = decoded(&bytes);
        assert_eq!(message.opts().get(OptionCode::ClassIdentifier), Some(&class));
        let item = [71, 4, 0x80, 1, 0, 0, 255].to_vec();
        let item = DhcpOption::VendorExtensions(item);
        assert_eq!(message.opts().get(OptionCode::VendorExtensions), Some(&item));
    }

    #[test]
    fn a_decline_says_no_more_than_it_may() {
        let address = Ipv4Addr::new(10, 0, 0, 57);
        let decline = Ask::Decline { address, server: Some(SERVER) };
        let message = decoded(&encode(&identity(), envelope(), &decline));
        let mut sent: Vec<_> = message.opts().iter().map(|(code, _)| u8::from(*code)).collect();
        sent.sort_unstable();
        assert_eq!(sent, [50, 53, 54, 61]);
    }

    #[test]
    fn ipv4_is_given_up_only_by_who_can_do_without() {
        for can_do_without_ipv4 in [false, true] {
            let identity = Identity { can_do_without_ipv4, ..identity() };
            let message = decoded(&encode(&identity, envelope(), &Ask::Discover { wish: None }));
            let Some(DhcpOption::ParameterRequestList(wanted)) =
                message.opts().get(OptionCode::ParameterRequestList)
            else {
                panic!("no option 55");
            };
            let asked = wanted.iter().any(|code| u8::from(*code) == 108);
            assert_eq!(asked, can_do_without_ipv4);
        }
        let seconds = |seconds: u32| {
            let lease = lease_with(&[[108, 4].as_slice(), &seconds.to_be_bytes()].concat());
            lease.unwrap().v6_only_seconds
        };
        assert_eq!(seconds(1800), Some(1800));
        assert_eq!(seconds(0), Some(300), "the least that RFC 8925 knows");
    }

    /// What an offer with these bytes of options in front says.
    fn lease_with(options: &[u8]) -> Result<Lease, &'static str> {
        let mut bytes = offer().to_vec().unwrap();
        bytes.splice(240..240, options.iter().copied());
        parse(&bytes).unwrap().lease
    }

    #[test]
    fn long_and_scattered_options_are_whole() {
        // RFC 3396: three parts, one of them in `file` and one in `sname`.
        let path = "nbd:10.0.0.1:10809/".to_owned() + &"x".repeat(300);
        let (first, rest) = path.as_bytes().split_at(200);
        let (second, third) = rest.split_at(100);
        let mut bytes = offer().to_vec().unwrap();
        let option = |number: u8, value: &[u8]| [&[number, value.len() as u8], value].concat();
        bytes.splice(240..240, [option(52, &[3]), option(17, first)].concat());
        let put = |bytes: &mut Vec<u8>, at: usize, value: &[u8], room: usize| {
            let mut field = [option(17, value), vec![255]].concat();
            field.resize(room, 0);
            bytes.splice(at..at + room, field);
        };
        put(&mut bytes, 108, second, 128);
        put(&mut bytes, 44, &third[..19], 64);
        let lease = parse(&bytes).unwrap().lease.unwrap();
        assert_eq!(lease.root_path.as_deref(), Some(&path[..319]));
        assert_eq!((lease.filename, lease.tftp_server), (None, None), "neither is a name now");
    }

    #[test]
    fn names_of_any_length_do_not_break_the_message() {
        let identity = Identity {
            hostname: Some("h".repeat(400)),
            vendor_class: "c".repeat(400),
            ..identity()
        };
        decoded(&encode(&identity, envelope(), &Ask::Discover { wish: None }));
    }

    /// A server's answer with the usual things in it.
    fn offer() -> v4::Message {
        let zero = Ipv4Addr::UNSPECIFIED;
        let mut message =
            v4::Message::new_with_id(7, zero, Ipv4Addr::new(10, 0, 0, 57), SERVER, zero, &NODE.0);
        message.set_opcode(v4::Opcode::BootReply);
        message.set_fname_str("/ltsp/amd64/pxelinux.0");
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(v4::MessageType::Offer));
        options.insert(DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)));
        options.insert(DhcpOption::ServerIdentifier(SERVER));
        options.insert(DhcpOption::AddressLeaseTime(3600));
        message
    }

    fn lease_of(change: impl FnOnce(&mut v4::Message)) -> Result<Lease, &'static str> {
        let mut message = offer();
        change(&mut message);
        parse(&message.to_vec().unwrap()).unwrap().lease
    }

    fn with(option: DhcpOption) -> Result<Lease, &'static str> {
        lease_of(|message| _ = message.opts_mut().insert(option))
    }

    #[test]
    fn an_offer_is_read_completely() {
        let gateway = Ipv4Addr::new(10, 0, 0, 254);
        let lease = lease_of(|message| {
            for option in [
                DhcpOption::Router(vec![gateway]),
                DhcpOption::DomainNameServer(vec![SERVER, gateway]),
                DhcpOption::DomainName("example.org".into()),
                DhcpOption::Hostname("n57".into()),
                DhcpOption::RootPath("nbd:10.0.0.1:10809/focal".into()),
                DhcpOption::InterfaceMtu(9000),
                DhcpOption::NtpServers(vec![SERVER]),
                DhcpOption::TimeOffset(-3600),
                DhcpOption::Renewal(1000),
                DhcpOption::Rebinding(3000),
                DhcpOption::TFTPServerName(b"boot.example.org".to_vec()),
            ] {
                message.opts_mut().insert(option);
            }
        });
        let expected = Lease {
            address: Ipv4Addr::new(10, 0, 0, 57),
            prefix: 24,
            broadcast: None,
            routes: vec![Route { to: Ipv4Net::default(), via: Some(gateway) }],
            mtu: Some(9000),
            dns: vec![SERVER.into(), gateway.into()],
            domain: Some("example.org".into()),
            search: vec!["example.org".into()],
            hostname: Some("n57".into()),
            ntp: vec![SERVER.into()],
            time_offset: Some(-3600),
            nis_domain: None,
            root_path: Some("nbd:10.0.0.1:10809/focal".into()),
            next_server: Some(SERVER),
            tftp_server: Some("boot.example.org".into()),
            filename: Some("/ltsp/amd64/pxelinux.0".into()),
            server_id: Some(SERVER),
            lease_seconds: Some(3600),
            renew_seconds: Some(1000),
            rebind_seconds: Some(3000),
            v6_only_seconds: None,
        };
        assert_eq!(lease, Ok(expected));
    }

    #[test]
    #[rustfmt::skip]
    fn leases_that_nobody_could_use_say_why() {
        let host = |address: [u8; 4]| lease_of(|m| _ = m.set_yiaddr(address)).err();
        let cases = [
            ("no address",       host([0, 0, 0, 0]),         Some("it has no address")),
            ("proxyDHCP",        lease_of(|m| {
                m.set_yiaddr([0, 0, 0, 0]);
                m.opts_mut().insert(DhcpOption::ClassIdentifier(b"PXEClient".to_vec()));
            }).err(), Some("it is a PXE boot server's and has no address")),
            ("IPv6 only",        lease_of(|m| {
                m.set_yiaddr([0, 0, 0, 0]);
                m.opts_mut().insert(DhcpOption::Unknown(v4::UnknownOption::new(OptionCode::from(108), vec![0, 0, 7, 8])));
            }).err(), Some("it says that this network is for IPv6 alone")),
            ("loopback",         host([127, 0, 0, 1]),       Some("its address is not one for a host")),
            ("multicast",        host([224, 0, 0, 1]),       Some("its address is not one for a host")),
            ("mask with holes",  with(DhcpOption::SubnetMask([255, 0, 255, 0].into())).err(), Some("its subnet mask is not one")),
            ("over at once",     with(DhcpOption::AddressLeaseTime(0)).err(), Some("it lasts 0 s")),
            ("no mask",          lease_of(|m| _ = m.opts_mut().remove(OptionCode::SubnetMask)).err(), Some("it has no subnet mask")),
            ("no mask, but 121", lease_of(|m| {
                m.opts_mut().remove(OptionCode::SubnetMask);
                m.opts_mut().insert(DhcpOption::ClasslessStaticRoute(vec![(Ipv4Net::default(), SERVER)]));
            }).err(), None),
        ];
        for (case, got, expected) in cases {
            assert_eq!(got, expected, "{case}");
        }
    }

    #[test]
    fn values_with_a_meaning_of_their_own() {
        let infinite = with(DhcpOption::AddressLeaseTime(u32::MAX)).unwrap();
        assert_eq!(infinite.lease_seconds, None);
        assert_eq!(with(DhcpOption::InterfaceMtu(68)).unwrap().mtu, None, "below 576");
        let lasts = |length: Option<&[u8]>| {
            let lease = lease_of(|message| {
                message.opts_mut().remove(OptionCode::AddressLeaseTime);
                if let Some(value) = length {
                    let unknown =
                        v4::UnknownOption::new(OptionCode::AddressLeaseTime, value.to_vec());
                    message.opts_mut().insert(DhcpOption::Unknown(unknown));
                }
            });
            lease.unwrap().lease_seconds
        };
        assert_eq!(lasts(None), Some(3600), "unsaid");
        assert_eq!(lasts(Some(&[0, 1])), Some(3600), "malformed is unsaid");
        let never = with(DhcpOption::Renewal(0)).unwrap();
        assert_eq!(never.renew_seconds, None, "T1 of 0");
        let never = with(DhcpOption::Rebinding(0)).unwrap();
        assert_eq!(never.rebind_seconds, None, "T2 of 0");

        let named = |message: &mut v4::Message| _ = message.set_sname_str("boot");
        let lease = lease_of(named).unwrap();
        assert_eq!(lease.tftp_server, None, "siaddr is stronger than sname");
        let lease = lease_of(|message| {
            named(message);
            message.set_siaddr([0, 0, 0, 0]);
        });
        assert_eq!(lease.unwrap().tftp_server.as_deref(), Some("boot"));
    }

    #[test]
    fn a_nak_has_words_and_no_lease() {
        let mut message = offer();
        message.opts_mut().insert(DhcpOption::MessageType(v4::MessageType::Nak));
        message.opts_mut().insert(DhcpOption::Message("wrong network".into()));
        let reply = parse(&message.to_vec().unwrap()).unwrap();
        assert_eq!((reply.kind, reply.words.as_deref()), (Kind::Nak, Some("wrong network")));
        assert!(reply.lease.is_err());
    }

    #[test]
    fn messages_of_other_protocols_are_told_apart() {
        let good = offer().to_vec().unwrap();
        let mut request = good.clone();
        request[0] = 1;
        let mut bootp = good.clone();
        bootp[236] = 0;
        for (case, bytes) in [("request", &request[..]), ("bootp", &bootp), ("cut", &good[..239])] {
            assert!(parse(bytes).is_err(), "{case}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_options_make_it_panic(options in proptest::collection::vec(any::<u8>(), 0..700)) {
            let mut bytes = offer().to_vec().unwrap();
            bytes.truncate(240);
            bytes.extend([53, 1, 5]);
            bytes.extend(options);
            let _ = parse(&bytes);
        }

        /// Whatever a well-formed server message says, two implementations read the same.
        #[test]
        fn it_agrees_with_dhcproto(
            address in 0x0100_0000u32..0x7f00_0000,
            prefix in 1u8..=32,
            routers in proptest::collection::vec(1u32.., 0..4),
            classless in proptest::collection::vec((0u8..=32, any::<u32>(), 1u32..), 0..12),
            seconds in 1u32..,
            mtu in any::<u16>(),
            root in "[ -~]{0,300}",
        ) {
            let net = |(prefix, to, via): (u8, u32, u32)| {
                (Ipv4Net::new(to.into(), prefix).unwrap().trunc(), Ipv4Addr::from(via))
            };
            let classless: Vec<_> = classless.into_iter().map(net).collect();
            let mut message = offer();
            message.set_yiaddr(Ipv4Addr::from(address));
            let options = message.opts_mut();
            options.insert(DhcpOption::SubnetMask(Ipv4Net::new([0; 4].into(), prefix).unwrap().netmask()));
            options.insert(DhcpOption::AddressLeaseTime(seconds));
            options.insert(DhcpOption::InterfaceMtu(mtu));
            if !routers.is_empty() {
                options.insert(DhcpOption::Router(routers.iter().copied().map(Ipv4Addr::from).collect()));
            }
            if !classless.is_empty() {
                options.insert(DhcpOption::ClasslessStaticRoute(classless.clone()));
            }
            if !root.is_empty() {
                options.insert(DhcpOption::RootPath(root.clone()));
            }
            let bytes = message.to_vec().unwrap();

            let lease = parse(&bytes).unwrap().lease.unwrap();
            prop_assert_eq!(lease.address, Ipv4Addr::from(address));
            prop_assert_eq!(lease.prefix, prefix);
            prop_assert_eq!(lease.lease_seconds, (seconds != u32::MAX).then_some(seconds));
            prop_assert_eq!(lease.mtu, (mtu >= 576).then_some(mtu));
            prop_assert_eq!(lease.root_path.unwrap_or_default(), root.trim());
            let mut expected: Vec<_> = classless.into_iter().map(|(to, via)| Route { to, via: Some(via) }).collect();
            if expected.is_empty() {
                let mut seen = Vec::new();
                for router in routers.into_iter().map(Ipv4Addr::from) {
                    if !seen.contains(&router) {
                        seen.push(router);
                        expected.push(Route { to: Ipv4Net::default(), via: Some(router) });
                    }
                }
            }
            prop_assert_eq!(lease.routes, expected);
        }
    }
}
