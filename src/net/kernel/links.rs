//! Links as a whole: listing, making and changing them.

use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{
    InfoBond, InfoData, InfoKind, LinkAttribute, LinkInfo, LinkMessage,
};
use rtnetlink::{LinkBond, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVlan};

use super::{Kernel, Link, explain, read};
use crate::error::Result;
use crate::net::Mac;
use crate::net::topology::Made;

impl Kernel {
    pub async fn links(&self) -> Result<Vec<Link>> {
        let links = self.handle.link().get().execute();
        let links: Vec<LinkMessage> =
            links.try_collect().await.map_err(|error| explain("listing the links", error))?;
        Ok(links.into_iter().filter_map(read::link).collect())
    }

    pub async fn set_up(&self, link: &Link) -> Result<()> {
        let message = LinkUnspec::new_with_index(link.index).up().build();
        self.set(message, || format!("setting {} up", link.name)).await
    }

    pub async fn set_down(&self, link: &Link) -> Result<()> {
        let message = LinkUnspec::new_with_index(link.index).down().build();
        self.set(message, || format!("setting {} down", link.name)).await
    }

    /// Of a link that is down.
    pub async fn rename(&self, link: &Link, name: &str) -> Result<()> {
        let message = LinkUnspec::new_with_index(link.index).name(name).build();
        self.set(message, || format!("giving {} the name {name}", link.name)).await
    }

    pub async fn set_mac(&self, link: &Link, mac: Mac) -> Result<()> {
        let message = || LinkUnspec::new_with_index(link.index).address(mac.0.to_vec()).build();
        let doing = || format!("giving {} the address {mac}", link.name);
        if !link.is_up || self.set(message(), doing).await.is_err() {
            // Some drivers change it only while the link is down, which sets it up again.
            self.set_down(link).await?;
            self.set(message(), doing).await?;
        }
        Ok(())
    }

    /// Makes a bond, bridge or VLAN, down and empty.
    pub async fn make(&self, name: &str, what: &Made, mac: Option<Mac>) -> Result<()> {
        let address = mac.map(|mac| LinkAttribute::Address(mac.0.to_vec()));
        let message = match what {
            Made::Bond(options) => {
                let mut builder = LinkBond::new(name);
                for attribute in options.attributes() {
                    builder = builder.append_info_data(attribute);
                }
                with(builder, address).build()
            }
            Made::Vlan { id, over } => with(LinkVlan::new(name, *over, *id), address).build(),
            // Nothing is in a circle yet: a port may be used at once.
            Made::Bridge => with(LinkBridge::new(name).forward_delay(0), address).build(),
        };
        self.handle.link().add(message).execute().await.map_err(|error| {
            let what = match what {
                Made::Bond(_) => "bond".to_owned(),
                Made::Vlan { id, .. } => format!("VLAN {id} as"),
                Made::Bridge => "bridge".to_owned(),
            };
            explain(format!("making the {what} {name}"), error)
        })
    }

    /// Makes `port` the one that a bond prefers.
    pub async fn set_primary(&self, bond: &Link, port: &Link) -> Result<()> {
        let message = LinkUnspec::new_with_index(bond.index)
            .append_extra_attribute(LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Bond),
                LinkInfo::Data(InfoData::Bond(vec![InfoBond::Primary(port.index)])),
            ]))
            .build();
        // RTM_SETLINK does not look at what only a bond has.
        let changed = self.handle.link().change(message).execute().await;
        let doing = || format!("making {} the primary of {}", port.name, bond.name);
        changed.map_err(|error| explain(doing(), error))
    }

    /// Takes away a bond, bridge or VLAN.
    pub async fn remove(&self, link: &Link) -> Result<()> {
        let gone = self.handle.link().del(link.index).execute().await;
        gone.map_err(|error| explain(format!("removing {}", link.name), error))
    }

    /// Gives a link to a bond or bridge.
    pub async fn join(&self, link: &Link, master: &Link) -> Result<()> {
        self.set_down(link).await?;
        let message = LinkUnspec::new_with_index(link.index).controller(master.index).build();
        self.set(message, || format!("adding {} to {}", link.name, master.name)).await
    }

    pub async fn set_mtu(&self, link: &Link, mtu: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(link.index).mtu(mtu).build();
        self.set(message, || format!("setting the MTU of {} to {mtu}", link.name)).await
    }

    async fn set(&self, message: LinkMessage, doing: impl FnOnce() -> String) -> Result<()> {
        self.handle.link().set(message).execute().await.map_err(|error| explain(doing(), error))
    }
}

fn with<T>(
    builder: LinkMessageBuilder<T>,
    attribute: Option<LinkAttribute>,
) -> LinkMessageBuilder<T> {
    match attribute {
        Some(attribute) => builder.append_extra_attribute(attribute),
        None => builder,
    }
}
