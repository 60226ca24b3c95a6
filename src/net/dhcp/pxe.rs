//! What is there to boot, where the DHCP server does not know it: PXE boot servers ("proxyDHCP") that
//! give no addresses and answer beside it (Intel, PXE specification 2.1, section 2).
//!
//! They answer only who claims to be a PXE client, and a DHCP server that hears such a claim may
//! answer with an address of another pool. Therefore port 67 never hears it: this is an exchange of
//! its own, after there is an address, with port 4011 (dnsmasq, Windows), where whoever listens gives
//! no addresses. It begins with a broadcast, so no offer needs to have named the server.
//!
//! Answers go to the address that the question came from, so the kernel must have it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::message::{self, Ask, Envelope, Identity, Kind, Reply};
use super::{Target, socket};
use crate::error::{Result, WhileDoing};
use crate::net::{Lease, dice};

const PORT: u16 = 4011;
/// All of it; a boot that needs nothing of a boot server should not notice that there is none.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Between two questions.
const AGAIN: Duration = Duration::from_millis(250);

/// What a message says of booting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boot {
    /// `siaddr`.
    pub next_server: Option<Ipv4Addr>,
    /// Option 66, or the `sname` field when `siaddr` is empty.
    pub tftp_server: Option<String>,
    /// Option 67, or the `file` field.
    pub filename: Option<String>,
    /// Option 17.
    pub root_path: Option<String>,
    /// Types of the items on the menu of a PXE boot server; `None`: it is not one.
    pub menu: Option<Vec<u16>>,
}

impl Boot {
    /// Puts what `lease` does not say into it.
    ///
    /// Server and file belong together: half of each of two servers would be a file that is not
    /// there.
    pub fn complete(self, lease: &mut Lease) {
        if lease.filename.is_none() && named_server(lease).is_none() && self.names_server() {
            lease.next_server = self.next_server;
            lease.tftp_server = self.tftp_server;
            lease.filename = self.filename;
        }
        if lease.root_path.is_none() {
            lease.root_path = self.root_path;
        }
    }

    fn names_server(&self) -> bool {
        self.next_server.is_some() || self.tftp_server.is_some()
    }
}

/// The boot server, unless a DHCP server has put only itself there, as dnsmasq always does.
fn named_server(lease: &Lease) -> Option<String> {
    let next = lease.next_server.filter(|server| Some(*server) != lease.server_id);
    lease.tftp_server.clone().or(next.map(|server| server.to_string()))
}

/// Whether a boot server could say what `lease` does not.
pub fn could_complete(lease: &Lease) -> bool {
    named_server(lease).is_none() && lease.filename.is_none() && lease.root_path.is_none()
}

/// Asks the boot servers of a link whose `address` the kernel has: `server`, when one is known, or
/// whoever listens. `Ok(None)` when none says anything in time.
///
/// Must be called on the runtime.
pub async fn ask(
    target: &Target,
    identity: &Identity,
    address: Ipv4Addr,
    server: Option<Ipv4Addr>,
    patience: Duration,
) -> Result<Option<(Ipv4Addr, Boot)>> {
    let doing = || format!("asking the boot servers on {}", target.name);
    let socket = socket::client_port(&target.name).while_doing(doing)?;
    let until = Instant::now() + patience;
    let mut question = Question {
        transaction: dice::roll(),
        item: None,
        to: server.unwrap_or(Ipv4Addr::BROADCAST),
    };
    loop {
        let again = until.min(Instant::now() + AGAIN);
        let envelope = Envelope { transaction: question.transaction, seconds: 0, broadcast: false };
        let bytes =
            message::encode(identity, envelope, &Ask::Boot { address, item: question.item });
        if let Err(error) = socket.send_to(&bytes, (question.to, PORT)).await {
            log::debug!(target: "network", "{}: {error}", doing());
        }
        match timeout_at(again, answer(&socket, question.transaction)).await {
            Ok(answer) => {
                let (from, reply) = answer.while_doing(doing)?;
                match question.judge(from, reply.boot) {
                    Judged::Enough(boot) => return Ok(Some((from, boot))),
                    Judged::Ask(next) => question = next,
                }
            }
            Err(_) if Instant::now() >= until => return Ok(None),
            Err(_) => {}
        }
    }
}

/// One round: the menu of whoever answers, or one item of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Question {
    transaction: u32,
    item: Option<u16>,
    to: Ipv4Addr,
}

#[derive(Debug, PartialEq, Eq)]
enum Judged {
    Enough(Boot),
    Ask(Question),
}

impl Question {
    /// An answer that names a file or a root is enough. One that has only a menu is asked for its
    /// first item, as firmware does when nobody presses a key.
    fn judge(self, from: Ipv4Addr, boot: Boot) -> Judged {
        let is_enough = boot.filename.is_some() || boot.root_path.is_some();
        // 0 stands for "boot from the disk".
        let first = boot.menu.iter().flatten().copied().find(|item| *item != 0);
        match first {
            Some(item) if !is_enough && self.item.is_none() => {
                // Another transaction, so that a double of the menu is not taken for the item.
                let transaction = self.transaction.wrapping_add(1);
                Judged::Ask(Self { transaction, item: Some(item), to: from })
            }
            _ => Judged::Enough(boot),
        }
    }
}

/// The next answer to this transaction that speaks of booting.
async fn answer(socket: &UdpSocket, transaction: u32) -> io::Result<(Ipv4Addr, Reply)> {
    let mut buffer = [0; socket::LARGEST_PACKET];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await?;
        let SocketAddr::V4(from) = from else { continue };
        let bytes = buffer.get(..length).unwrap_or_default();
        let Ok(reply) = message::parse(bytes) else { continue };
        if reply.transaction == transaction && is_of_use(&reply) {
            return Ok((reply.server.unwrap_or(*from.ip()), reply));
        }
    }
}

/// Others may send to this port too: what renews the lease, for one.
fn is_of_use(reply: &Reply) -> bool {
    let Boot { filename, root_path, menu, .. } = &reply.boot;
    reply.kind != Kind::Nak && (filename.is_some() || root_path.is_some() || menu.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::lease::tests::lease;

    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

    #[test]
    #[rustfmt::skip]
    fn a_menu_is_asked_for_its_first_item_once() {
        let question = Question { transaction: 7, item: None, to: Ipv4Addr::BROADCAST };
        let file = |menu: Option<Vec<u16>>| Boot { filename: Some("grub.0".into()), menu, ..Boot::default() };
        let only = |menu: &[u16]| Boot { next_server: Some(SERVER), menu: Some(menu.to_vec()), ..Boot::default() };
        let next = |item| Judged::Ask(Question { transaction: 8, item: Some(item), to: SERVER });
        let chosen = Question { item: Some(1), ..question };
        let cases = [
            ("a file",                    question, file(None)),
            ("a file beside a menu",      question, file(Some(vec![1]))),
            ("an answer to an item",      chosen,   only(&[1])),
            ("nothing but the disk",      question, only(&[0])),
        ];
        for (case, question, boot) in cases {
            assert_eq!(question.judge(SERVER, boot.clone()), Judged::Enough(boot), "{case}");
        }
        assert_eq!(question.judge(SERVER, only(&[0x8000, 1])), next(0x8000));
        assert_eq!(question.judge(SERVER, only(&[0, 2])), next(2), "the disk is not an answer");
    }

    #[test]
    fn what_the_lease_says_stays() {
        let boot = Boot {
            next_server: Some(SERVER),
            filename: Some("grub.0".into()),
            root_path: Some("nbd:10.0.0.9".into()),
            ..Boot::default()
        };
        let mut empty = lease("10.0.0.5/24");
        assert!(could_complete(&empty));
        boot.clone().complete(&mut empty);
        assert_eq!((empty.next_server, empty.filename.as_deref()), (Some(SERVER), Some("grub.0")));
        assert!(!could_complete(&empty));

        let itself = Lease { next_server: Some(SERVER), server_id: Some(SERVER), ..empty.clone() };
        assert!(could_complete(&Lease { filename: None, root_path: None, ..itself }), "dnsmasq");

        let mut named = Lease { tftp_server: Some("boot".into()), ..lease("10.0.0.5/24") };
        boot.complete(&mut named);
        assert_eq!((named.next_server, named.filename), (None, None), "of another server");
        assert_eq!(named.root_path.as_deref(), Some("nbd:10.0.0.9"));
    }
}
