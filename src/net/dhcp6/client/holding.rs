//! From the grant on: how long addresses last, and what may happen to them meanwhile (RFC 8415
//! sections 18.2.3 to 18.2.5, 18.2.8 and 18.2.10).

use std::net::Ipv6Addr;

use super::{Chance, Client, News, OTHERS, Server, Step, told};
use crate::net::Lease6;
use crate::net::dhcp6::message::Reply;
use crate::net::dhcp6::options::Code;
use crate::net::dhcp6::phase::{Offer, Phase};
use crate::net::dhcp6::timing::{self, Times};
use crate::net::lease6::Address6;

impl Client {
    pub(super) fn granted(
        &mut self,
        mut lease: Lease6,
        server: Server,
        chance: Chance,
        news: fn(Box<Lease6>) -> News,
    ) -> Step {
        if self.is_for_others(&lease) {
            return self.release(lease, server, chance);
        }
        if !self.keeps.is_empty() {
            lease.addresses.retain(|one| self.keeps.contains(&one.address));
        }
        let times = Times::of(&lease, chance.now, chance.dice);
        let lease = Box::new(lease);
        (self.refusals, self.others) = (0, 0);
        self.phase = Phase::Bound { lease: lease.clone(), times };
        self.until = times.next();
        told(news(lease))
    }

    pub(super) fn extended(&mut self, reply: Reply, server: Server, chance: Chance) -> Step {
        let Some(association) = &reply.association else { return Step::default() };
        if !reply.status.is_success() {
            return Step::default();
        }
        let (Phase::Renewing { lease, .. } | Phase::Rebinding { lease, .. }) = &self.phase else {
            return Step::default();
        };
        match association.status.code {
            Code::Success if !reply.lease.addresses.is_empty() => {
                self.granted(reply.lease, server, chance, News::Extended)
            }
            // It forgot us, and may know us again.
            Code::NoBinding => {
                let lease = (**lease).clone();
                let offer = Offer { server: reply.server, preference: 0, lease };
                let offer = Box::new(offer);
                self.enter(Phase::Requesting { offer, in_use: true }, chance)
            }
            Code::Success if association.withdrawn.is_empty() => Step::default(),
            Code::Success | Code::NotOnLink => {
                let why = match association.status.is_success() {
                    true => "it takes the address back".to_owned(),
                    false => association.status.sentence(),
                };
                self.forget();
                self.restart(Some(News::Withdrawn { server, why }), chance)
            }
            // The addresses last a while yet: another server may be better disposed.
            _ => Step::default(),
        }
    }

    pub(super) fn confirmed(&mut self, reply: &Reply, server: Server, chance: Chance) -> Step {
        match reply.status.code {
            Code::Success => self.resume(chance),
            Code::NotOnLink => {
                let why = reply.status.sentence();
                self.forget();
                self.restart(Some(News::Withdrawn { server, why }), chance)
            }
            _ => Step::default(),
        }
    }

    /// Nothing of it is of use to who keeps addresses.
    pub(super) fn is_for_others(&self, lease: &Lease6) -> bool {
        let is_kept = |one: &Address6| self.keeps.contains(&one.address);
        !self.keeps.is_empty() && !lease.addresses.iter().any(is_kept)
    }

    /// Addresses of which none is kept: nobody will use them, and the server may have them back.
    fn release(&mut self, lease: Lease6, server: Server, chance: Chance) -> Step {
        self.forget();
        self.others = self.others.saturating_add(1);
        let addresses = lease.addresses.iter().map(|one| one.address).collect();
        let releasing = Phase::Releasing { server: server.duid.clone(), addresses };
        let step = self.enter(releasing, chance);
        Step { news: Some(News::Unusable { server, why: OTHERS.to_owned() }), ..step }
    }

    /// It would grant the same again.
    pub(super) fn pause_after_others(&mut self, chance: Chance) -> Step {
        self.phase = Phase::Pausing;
        let pause = timing::after_others(self.others, chance.dice);
        self.until = Some(chance.now.saturating_add(pause));
        Step::default()
    }

    /// No address is wished for any more, unless the machine keeps it nevertheless.
    pub(super) fn forget(&mut self) {
        self.wish.clone_from(&self.keeps);
    }

    /// Nobody has said that the addresses are not for this link.
    pub(super) fn resume(&mut self, chance: Chance) -> Step {
        let Phase::Confirming { lease, times, .. } = &self.phase else { return Step::default() };
        let (lease, times) = (lease.clone(), *times);
        self.until = times.next().map(|next| next.max(chance.now));
        self.phase = Phase::Bound { lease, times };
        Step::default()
    }

    pub(super) fn duplicate(&mut self, address: Ipv6Addr, chance: Chance) -> Step {
        let (Phase::Bound { lease, .. }
        | Phase::Renewing { lease, .. }
        | Phase::Rebinding { lease, .. }
        | Phase::Confirming { lease, .. }) = &self.phase
        else {
            return Step::default();
        };
        let Some(server) = lease.server.clone() else { return Step::default() };
        if !lease.addresses.iter().any(|one| one.address == address) {
            return Step::default();
        }
        self.forget();
        let addresses = vec![address];
        let step = self.enter(Phase::Declining { server, addresses }, chance);
        Step { news: Some(News::Declined(address)), ..step }
    }

    pub(super) fn moved(&mut self, chance: Chance) -> Step {
        match &self.phase {
            Phase::Bound { lease, times }
            | Phase::Renewing { lease, times }
            | Phase::Rebinding { lease, times } => {
                let (lease, times) = (lease.clone(), *times);
                let deadline = chance.now.saturating_add(timing::CONFIRM_FOR).min(times.end);
                self.enter(Phase::Confirming { lease, times, deadline }, chance)
            }
            Phase::Informed | Phase::Informing => self.enter(Phase::Informing, chance),
            Phase::Pausing | Phase::Soliciting { best: None } => {
                self.enter(Phase::Soliciting { best: None }, chance)
            }
            _ => Step::default(),
        }
    }
}
