//! IPv6 addresses and routes. Most are the kernel's own doing, of what routers advertise.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::Ipv6Net;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, CacheInfo};
use rtnetlink::packet_route::route::{RouteFlags, RouteProtocol};

use super::{Kernel, Link, explain};
use crate::error::Result;
use crate::net::lease6::Address6;

/// An IPv6 address of a link, as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known6 {
    /// Number of the link.
    pub on: u32,
    pub address: Ipv6Addr,
    pub prefix: u8,
    /// Seconds; `None` is for ever.
    pub preferred: Option<u32>,
    pub valid: Option<u32>,
    pub state: State6,
}

/// What has become of duplicate address detection (RFC 4862 section 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State6 {
    /// Nothing may come from it yet.
    Tentative,
    Usable,
    /// Somebody else has it.
    Duplicate,
}

/// `IP6_RT_PRIO_USER` of the kernel.
const USUAL_METRIC: u32 = 1024;

impl Kernel {
    /// IPv6 addresses of all links.
    pub async fn addresses6(&self) -> Result<Vec<Known6>> {
        let all = self.all_addresses(AddressFamily::Inet6).await?;
        Ok(all.into_iter().filter_map(read).collect())
    }

    /// Adds the address, or changes its lifetimes.
    pub async fn set_address6(&self, link: &Link, given: &Address6) -> Result<()> {
        let Address6 { address, prefix, preferred_seconds, valid_seconds, .. } = *given;
        let mut request = self.handle.address().add(link.index, address.into(), prefix).replace();
        let mut life = CacheInfo::default();
        life.ifa_valid = valid_seconds.unwrap_or(u32::MAX);
        life.ifa_preferred = preferred_seconds.unwrap_or(u32::MAX).min(life.ifa_valid);
        let attributes = &mut request.message_mut().attributes;
        attributes.push(AddressAttribute::CacheInfo(life));
        if prefix < 128 {
            // Which neighbours are on the link is for routers to say (RFC 5942); a typed prefix is
            // a word on that, one of DHCPv6 is not.
            return request.execute().await.map_err(|error| {
                explain(format!("giving {} {address}/{prefix}", link.name), error)
            });
        }
        attributes.push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
        request
            .execute()
            .await
            .map_err(|error| explain(format!("giving {} {address}", link.name), error))
    }

    /// `via`: `None` for neighbours on the link itself. `on_link`: the router is one although no
    /// prefix says so. `rank`: how far behind the usual metric, 1024.
    pub async fn add_route6(
        &self,
        link: &Link,
        to: Ipv6Net,
        via: Option<Ipv6Addr>,
        on_link: bool,
        rank: u32,
    ) -> Result<()> {
        let mut builder = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(to.network(), to.prefix_len())
            .output_interface(link.index)
            .priority(USUAL_METRIC.saturating_add(rank))
            .protocol(RouteProtocol::Static);
        if let Some(via) = via {
            builder = builder.gateway(via);
        }
        let mut message = builder.build();
        if on_link {
            message.header.flags |= RouteFlags::Onlink;
        }
        self.handle.route().add(message).replace().execute().await.map_err(|error| {
            let via = via.map(|via| format!(" through {via}")).unwrap_or_default();
            explain(format!("routing {to}{via} over {}", link.name), error)
        })
    }
}

/// `None` for IPv4.
pub fn read(message: AddressMessage) -> Option<Known6> {
    let (mut address, mut life) = (None, None);
    // The header has the lower eight bits only, and always.
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Address(IpAddr::V6(other)) => address = address.or(Some(other)),
            // The other end is in `Address` where there is one.
            AddressAttribute::Local(IpAddr::V6(own)) => address = Some(own),
            AddressAttribute::CacheInfo(info) => life = Some(info),
            AddressAttribute::Flags(all) => flags = all,
            _ => {}
        }
    }
    let seconds = |seconds: u32| (seconds != u32::MAX).then_some(seconds);
    let state = if flags.contains(AddressFlags::Dadfailed) {
        State6::Duplicate
    } else if flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic) {
        State6::Tentative
    } else {
        State6::Usable
    };
    Some(Known6 {
        on: message.header.index,
        address: address?,
        prefix: message.header.prefix_len,
        preferred: life.as_ref().and_then(|life| seconds(life.ifa_preferred)),
        valid: life.as_ref().and_then(|life| seconds(life.ifa_valid)),
        state,
    })
}
