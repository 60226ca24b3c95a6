//! What servers may answer, for as long as they like.

use std::net::Ipv4Addr;
use std::time::Duration;

use landfall::cmdline::Request;
use landfall::machine;
use landfall::net::dhcp::{
    self, Ask, Chance, Client, Envelope, Event, Identity, Known, News, Rules, Step,
};
use landfall::net::dns::{self, Answer, Family};
use landfall::net::{HardwareAddress, Lease, Mac};
use landfall::plan::Plan;

const MAC: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);
const KNOWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
/// A lease of minutes goes through all its states in so many steps.
const MOST_STEPS: usize = 200;

/// The choice of a client in the first byte, then messages of servers: each has its length in two
/// bytes, and a length of 0 is silence, or a neighbour who objects. Whatever comes, a lease is one
/// that the kernel can take, and nobody is asked more often than the clock says.
pub fn dhcp4(data: &[u8]) {
    let Some((&choice, mut rest)) = data.split_first() else { return };
    let identity = identity(choice & 1 != 0);
    let line = if choice & 2 != 0 { "root=dhcp" } else { "root=nbd:10.0.0.1:focal" };
    let plan = Plan::decide(Request::read(line), &machine::Identity::default()).network;
    let known =
        (choice & 4 != 0).then_some(Known { address: KNOWN, is_configured: choice & 8 != 0 });
    let mut now = Duration::ZERO;
    let chance = |now| Chance { now, dice: u32::from(choice) };
    let (mut client, mut step) = Client::start(Rules::of(&plan, &identity), known, chance(now));
    let mut transaction = u32::from(choice);
    for _ in 0..MOST_STEPS {
        if let Some(envelope) = check(&step, &identity) {
            transaction = envelope.transaction;
        }
        assert!(step.probe.is_none() || client.probes().is_some(), "{step:?}");
        let Some((length, after)) = rest.split_first_chunk::<2>() else { break };
        let length = usize::from(u16::from_be_bytes(*length));
        let (message, after) = after.split_at(length.min(after.len()));
        rest = after;
        let event = match parsed(message, transaction, &identity) {
            Some(reply) => Event::Received(Box::new(reply)),
            None if choice & 16 != 0 && client.probes().is_some() => Event::Claimed(Mac([2; 6])),
            None => {
                let Some(until) = client.until() else { break };
                assert!(until >= now, "{client:?} wants to be woken in the past");
                now = until;
                Event::Timeout
            }
        };
        let woken = matches!(event, Event::Timeout);
        (client, step) = client.step(event, chance(now));
        if woken && let Some(until) = client.until() {
            assert!(until > now, "{client:?} would never sleep");
        }
    }
}

fn identity(is_infiniband: bool) -> Identity {
    let hardware = match is_infiniband {
        true => HardwareAddress::Infiniband([7; 20]),
        false => HardwareAddress::Ethernet(MAC),
    };
    Identity {
        hardware,
        client_id: None,
        hostname: Some("n1".into()),
        vendor_class: "landfall".into(),
        uuid: Some([1; 16]),
        architecture: Some(7),
        can_do_without_ipv4: true,
    }
}

/// A message as it came, and once more as one that is meant for this client.
fn parsed(message: &[u8], transaction: u32, identity: &Identity) -> Option<dhcp::Reply> {
    if let Ok(reply) = dhcp::parse(message)
        && let Ok(lease) = &reply.lease
    {
        is_sound(lease);
    }
    let mut message = message.to_vec();
    let is_ethernet = matches!(identity.hardware, HardwareAddress::Ethernet(_));
    let head = if is_ethernet { [2, 1, 6] } else { [2, 32, 0] };
    message.get_mut(..3)?.copy_from_slice(&head);
    message.get_mut(4..8)?.copy_from_slice(&transaction.to_be_bytes());
    if is_ethernet {
        message.get_mut(28..34)?.copy_from_slice(&MAC.0);
    }
    message.get_mut(236..240)?.copy_from_slice(&[99, 130, 83, 99]);
    dhcp::parse(&message).ok()
}

/// What a step does can be done.
fn check(step: &Step, identity: &Identity) -> Option<Envelope> {
    for news in &step.news {
        match news {
            News::Accepted(lease) | News::Granted(lease) | News::Extended(lease) => is_sound(lease),
            News::Weighed(weighed) => assert!(!weighed.to_string().contains('\n')),
            _ => {}
        }
    }
    assert!(step.news.len() <= 4, "{:?}", step.news);
    let send = step.send.as_ref()?;
    assert!(!matches!(send.ask, Ask::Boot { .. }), "that is another exchange");
    let bytes = dhcp::encode(identity, send.envelope, &send.ask);
    assert!((300..=548).contains(&bytes.len()), "{} bytes", bytes.len());
    assert!(dhcp::parse(&bytes).is_err(), "a client must not take a question for an answer");
    Some(send.envelope)
}

fn is_sound(lease: &Lease) {
    assert!((1..=32).contains(&lease.prefix), "{lease:?}");
    assert!(!lease.address.is_unspecified() && !lease.address.is_multicast(), "{lease:?}");
    assert!(lease.mtu.is_none_or(|mtu| mtu >= 576), "{lease:?}");
    assert!(lease.lease_seconds != Some(0), "{lease:?}");
    assert!(lease.dns.len() <= 16 && lease.search.len() <= 16 && lease.ntp.len() <= 16);
    let Lease { domain, search, hostname, root_path, filename, tftp_server, .. } = lease;
    let texts = [domain, hostname, root_path, filename, tftp_server].into_iter().flatten();
    for text in texts.chain(search) {
        assert!(!text.is_empty() && !text.chars().any(char::is_control), "{lease:?}");
    }
}

/// An answer to the question for `boot.lan`, of either family: read alike each time, and nothing in
/// it that was not asked for.
pub fn dns(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let family = if choice & 1 != 0 { Family::Ipv6 } else { Family::Ipv4 };
    let _ = dns::read(bytes, 7, "boot.lan", family);
    // With a head that is right, so that the rest is read.
    let mut message = dns::question(7, "boot.lan", family).expect("a name");
    message[2..4].copy_from_slice(&[0x81, 0x80]);
    message[7] = choice >> 4;
    message[9] = (choice >> 1) & 7;
    message.extend(bytes);
    let answer = dns::read(&message, 7, "boot.lan", family);
    assert_eq!(answer, dns::read(&message, 7, "BOOT.lan", family));
    assert_eq!(dns::read(&message, 8, "boot.lan", family), None);
    assert_eq!(dns::read(&message, 7, "boot.la", family), None);
    match answer {
        Some(Answer::Addresses(addresses)) => {
            assert!((1..=16).contains(&addresses.len()));
            assert!(addresses.iter().all(|one| one.is_ipv6() == (family == Family::Ipv6)));
        }
        Some(Answer::Alias(name)) => {
            assert!(dns::question(7, &name, family).is_some(), "{name:?}");
            assert_ne!(name, "boot.lan");
        }
        Some(Answer::Nothing | Answer::Truncated | Answer::Failed(_)) | None => {}
    }
}
