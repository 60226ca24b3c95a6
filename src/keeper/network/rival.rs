//! An address that we keep although its server has taken it back, or has forgotten us: the server may
//! give it to somebody else, and then two machines have it, of which one has its root behind it.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Event, Number};
use crate::net::kernel::HeldLink;
use crate::net::{AbortOnDrop, Lease, Mac, arp, dhcp};
use crate::sys::clock::since_boot;

/// Three packets to everybody each time, from each node that has lost its server.
const EVERY: Duration = Duration::from_secs(600);

/// The search for somebody else who has the address of a lease, and its last result.
#[derive(Default)]
pub struct Search {
    task: Option<AbortOnDrop>,
    found: Option<Mac>,
}

/// The address of the network of `lease` itself, which is nobody's: who says that it is his answers for
/// all. A network of one or two has none to spare (RFC 3021).
pub fn nobodys(lease: &Lease) -> Option<Ipv4Addr> {
    let network = lease.network();
    (network.prefix_len() < 31).then(|| network.network())
}

/// Those of all links of this machine, also what is burnt in.
pub fn own_macs(links: &[HeldLink]) -> Vec<Mac> {
    links.iter().flat_map(|link| [Some(link.mac), link.permanent_mac]).flatten().collect()
}

/// What is worth a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    Same,
    /// Somebody has it, or somebody else than before.
    Rival(Mac),
    /// Nobody has any more.
    Gone,
}

impl Search {
    /// Looks now and every ten minutes, unless that is going on.
    pub fn begin(
        &mut self,
        number: Number,
        (index, ours): (u32, Mac),
        own: Vec<Mac>,
        (address, nobody): (Ipv4Addr, Option<Ipv4Addr>),
        outbox: mpsc::Sender<Event>,
    ) {
        // All zeroes: no Ethernet, where our ARP says nothing.
        if self.task.is_some() || ours == Mac([0; 6]) {
            return;
        }
        let task = tokio::spawn(async move {
            loop {
                match arp::rival(index, ours, &own, address, nobody).await {
                    Ok(by) => {
                        if outbox.send(Event::Claimed { number, by }).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => log::debug!(target: "network", "{error}"),
                }
                dhcp::sleep_until_boot(since_boot().saturating_add(EVERY)).await;
            }
        });
        self.task = Some(AbortOnDrop(task.abort_handle()));
    }

    /// The lease goes on, or is somebody else's business, or on another link.
    pub fn end(&mut self) {
        *self = Self::default();
    }

    pub fn found(&self) -> Option<Mac> {
        self.found
    }

    pub fn heard(&mut self, by: Option<Mac>) -> Finding {
        // One that was sent before the end of the search.
        if self.task.is_none() {
            return Finding::Same;
        }
        let before = std::mem::replace(&mut self.found, by);
        match (before, by) {
            (before, by) if before == by => Finding::Same,
            (_, Some(by)) => Finding::Rival(by),
            (_, None) => Finding::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::lease::tests::lease;

    #[test]
    fn a_second_card_is_of_this_machine_and_a_network_is_nobodys() {
        let (one, other) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let link = HeldLink {
            index: 3,
            name: "eth1".into(),
            mac: one,
            permanent_mac: Some(other),
            master: None,
            everybody: None,
            is_up: true,
            has_carrier: true,
        };
        assert_eq!(own_macs(&[link]), [one, other]);
        let nobody = |text| nobodys(&lease(text)).map(|address| address.to_string());
        assert_eq!(nobody("10.0.0.50/24").as_deref(), Some("10.0.0.0"));
        assert_eq!(nobody("10.0.0.50/31"), None);
        assert_eq!(nobody("10.0.0.50/32"), None);
    }

    #[test]
    fn a_rival_is_said_once() {
        let (one, other) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let task = runtime.spawn(std::future::pending::<()>());
        let mut search = Search { task: Some(AbortOnDrop(task.abort_handle())), found: None };
        let cases = [
            ("nobody has it", None, Finding::Same),
            ("somebody has", Some(one), Finding::Rival(one)),
            ("and still has", Some(one), Finding::Same),
            ("another one", Some(other), Finding::Rival(other)),
            ("nobody any more", None, Finding::Gone),
        ];
        for (case, by, expected) in cases {
            assert_eq!(search.heard(by), expected, "{case}");
        }
        search.end();
        assert_eq!(search.heard(Some(one)), Finding::Same, "the lease goes on");
        assert_eq!(search.found(), None);
    }
}
