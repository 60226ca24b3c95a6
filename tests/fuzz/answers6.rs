//! What DHCPv6 servers may answer, for as long as they like.

use std::net::Ipv6Addr;
use std::time::Duration;

use landfall::net::Mac;
use landfall::net::dhcp6::{
    self, Ask, Chance, Client, Envelope, Event, Identity, Mode, News, Reply, Rules, Step,
};
use landfall::net::duid::Duid;

use super::is_bounded;

const MAC: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);
const IAID: u32 = 7;
const SERVER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// A lease of minutes goes through all its states in so many steps.
const MOST_STEPS: usize = 200;

/// The choice of a client in the first byte, then what happens to it, one after the other: a byte
/// that says what, and for a message of a server two with its length and the message itself. All of
/// it is a message too. Whatever comes, a lease is one that the kernel can take, and nobody is asked more often than the
/// clock says.
pub fn dhcp6(data: &[u8]) {
    let _ = dhcp6::parse(data, IAID).map(sound);
    let Some((&choice, mut rest)) = data.split_first() else { return };
    let identity = Identity {
        duid: Duid::of_mac(MAC),
        iaid: IAID,
        hostname: Some("n1.lan".to_owned()),
        class: "landfall".to_owned(),
        architecture: Some(7),
    };
    let rules = Rules {
        duid: identity.duid.clone(),
        mode: if choice & 1 != 0 { Mode::Information } else { Mode::Address },
        wants_boot_url: choice & 2 != 0,
    };
    let mut now = Duration::ZERO;
    let chance = |now| Chance { now, dice: u32::from_ne_bytes([choice; 4]) };
    let (mut client, mut step) = Client::start(rules, chance(now));
    let mut asked = (Envelope { transaction: 0, hundredths: 0 }, None);
    let mut ours: Vec<Ipv6Addr> = Vec::new();
    let mut sleepless = 0;
    for _ in 0..MOST_STEPS {
        if let Some(sent) = check(&step, &identity) {
            asked = sent;
        }
        if let Some(news) = step.news.take() {
            ours = match &news {
                News::Granted(lease) | News::Extended(lease) => {
                    lease.addresses.iter().map(|one| one.address).collect()
                }
                News::Declined(address) => {
                    assert!(ours.contains(address), "{address} was never ours");
                    Vec::new()
                }
                News::Withdrawn { .. } | News::Expired => {
                    assert!(!ours.is_empty(), "{news:?} of nothing");
                    Vec::new()
                }
                _ => ours,
            };
        }
        let Some((&what, after)) = rest.split_first() else { break };
        rest = after;
        let event = match what {
            0..=63 => Event::Timeout,
            64..=79 => Event::Unsent,
            80..=95 => Event::Moved,
            96..=111 => Event::Duplicate(ours.first().copied().unwrap_or(SERVER)),
            _ => {
                let Some((length, after)) = rest.split_first_chunk::<2>() else { break };
                let length = usize::from(u16::from_be_bytes(*length));
                let (message, after) = after.split_at(length.min(after.len()));
                rest = after;
                match parsed(what, message, &asked, &identity) {
                    Some(reply) => Event::Received { reply: Box::new(reply), from: SERVER },
                    None => continue,
                }
            }
        };
        if matches!(event, Event::Timeout) {
            let Some(until) = client.until() else { continue };
            assert!(until >= now, "{client:?} wants to be woken in the past");
            now = until;
        } else {
            // Answers and troubles take a while too, but nobody oversleeps for them.
            let later = now + Duration::from_millis(7);
            now = client.until().map_or(later, |until| until.min(later));
        }
        // What could not be sent is what was to be sent.
        let event = match event {
            Event::Unsent if step.send.is_none() => continue,
            event => event,
        };
        let woken = matches!(event, Event::Timeout);
        (client, step) = client.step(event, chance(now));
        // The end of one thing may be the moment of the next; of a third it is not.
        let is_due = woken && client.until().is_some_and(|until| until <= now);
        sleepless = if is_due { sleepless + 1 } else { 0 };
        assert!(sleepless < 2, "{client:?} would never sleep");
    }
}

/// A message, as it came or (`what` is even) as one that is an answer to the last question: behind
/// a head and identifiers that are right, so that the rest is read.
fn parsed(
    what: u8,
    message: &[u8],
    (envelope, server): &(Envelope, Option<Duid>),
    identity: &Identity,
) -> Option<Reply> {
    let reply = match what {
        _ if what & 1 != 0 => dhcp6::parse(message, IAID),
        _ => {
            let [_, x, y, z] = envelope.transaction.to_be_bytes();
            let kind = if what & 2 != 0 { 2 } else { 7 };
            let mut whole = vec![kind, x, y, z];
            let server = server.clone().unwrap_or_else(|| Duid::of_mac(Mac([1; 6])));
            for (code, id) in [(1u16, identity.duid.bytes()), (2, server.bytes())] {
                whole.extend(code.to_be_bytes());
                whole.extend((id.len() as u16).to_be_bytes());
                whole.extend(id);
            }
            // An association of ours, of which the bytes say the rest.
            if what & 4 != 0 {
                let (times, inner) = message.split_at_checked(8)?;
                let length = u16::try_from(12 + inner.len()).ok()?;
                whole.extend([[0, 3], length.to_be_bytes()].concat());
                whole.extend([&IAID.to_be_bytes(), times, inner].concat());
            } else {
                whole.extend(message);
            }
            dhcp6::parse(&whole, IAID)
        }
    };
    reply.ok().map(sound)
}

/// What is believed of a message could be a machine's, and is bounded.
fn sound(reply: Reply) -> Reply {
    for one in &reply.lease.addresses {
        assert!(!one.address.is_multicast() && !one.address.is_loopback(), "{one:?}");
        assert_ne!(one.valid_seconds, Some(0), "{one:?}");
    }
    is_bounded(&reply.lease);
    assert!(!reply.status.sentence().contains(char::is_control));
    reply
}

/// What a step does can be done. The envelope of what it sends, and to which server.
fn check(step: &Step, identity: &Identity) -> Option<(Envelope, Option<Duid>)> {
    match &step.news {
        Some(News::Granted(lease) | News::Extended(lease)) => {
            assert!(!lease.addresses.is_empty(), "{lease:?}");
            is_bounded(lease);
        }
        Some(News::Accepted(lease) | News::Informed(lease)) => is_bounded(lease),
        Some(
            News::Unusable { server, why }
            | News::Refused { server, why }
            | News::Withdrawn { server, why },
        ) => {
            assert!(!why.is_empty() && !why.contains(char::is_control), "{why:?}");
            assert!(server.to_string().starts_with("fe80::1 ("), "{server}");
        }
        Some(News::Declined(_) | News::Expired) | None => {}
    }
    let (ask, envelope) = step.send.as_ref()?;
    let bytes = dhcp6::encode(identity, *envelope, ask);
    assert!(bytes.len() <= 1232, "{} bytes would need fragments", bytes.len());
    assert!(dhcp6::parse(&bytes, IAID).is_err(), "a client answers itself");
    let server = match ask {
        Ask::Request { server, addresses }
        | Ask::Renew { server, addresses }
        | Ask::Decline { server, addresses }
        | Ask::Release { server, addresses } => {
            assert!(!addresses.is_empty(), "{ask:?}");
            Some(server.clone())
        }
        Ask::Rebind { addresses } | Ask::Confirm { addresses } => {
            assert!(!addresses.is_empty(), "{ask:?}");
            None
        }
        Ask::Solicit { .. } | Ask::Information => None,
    };
    Some((*envelope, server))
}
