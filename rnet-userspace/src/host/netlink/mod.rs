//! Requests to the kernel over netlink that return when the kernel has answered.

mod socket;

use std::{
    collections::BTreeSet,
    future::Future,
    io,
    iter::repeat_with,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use anyhow::{Context, Result};
use futures::{Stream, StreamExt as _, TryStreamExt};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressHeaderFlags, AddressMessage},
    link::{LinkAttribute, LinkMessage},
    route::RouteMessage,
    tc::{TcHandle, TcMessage},
};
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder,
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
};
use rustix::io::Errno;
use tokio::runtime::{self, Runtime};

use self::socket::{Record, Socket};
use super::netns;
use crate::controller::{
    backend::Link,
    model::{InterfaceAddr, MacAddr},
};

/// A netlink socket of one network namespace, and the runtime that drives it. Errors of single requests are the
/// kernel's, without saying what was asked for.
pub(super) struct Netlink {
    runtime: Runtime,
    handle: Handle,
    record: Record,
}

/// How often what changes while it is listed is listed again. A host on which routes come and go without end is served by
/// what it has last said: whoever follows it is told of the changes.
const TRIES: usize = 8;

impl Netlink {
    /// A socket of the calling thread's namespace; it stays there wherever it is used.
    pub(super) fn open() -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .context("start a runtime for netlink")?;
        let (mut connection, handle, _) = {
            let _context = runtime.enter();
            rtnetlink::new_connection_with_socket::<Socket>().context("open a netlink socket")?
        };
        let record = connection.socket_mut().record();
        // It makes progress while a request is waited for, and only then.
        runtime.spawn(connection);
        Ok(Self { runtime, handle, record })
    }

    /// A socket of the namespace at `path`.
    pub(super) fn in_netns(path: &Path) -> Result<Self> {
        netns::within(path, Self::open)
    }

    /// The link of this name. An alternative name is not one.
    pub(super) fn link(&self, name: &str) -> Result<Option<LinkMessage>> {
        let found = self.wait(self.handle.link().get().match_name(name).execute().try_next());
        match found {
            Ok(link) => Ok(link.filter(|link| name_of(link) == Some(name))),
            Err(e) if is(&e, Errno::NODEV) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("look up link {name}")),
        }
    }

    /// The link of this name, which must be there.
    pub(super) fn existing_link(&self, name: &str) -> Result<LinkMessage> {
        self.link(name)?.with_context(|| format!("there is no link {name}"))
    }

    /// Every link.
    pub(super) fn links(&self) -> Result<Vec<LinkMessage>> {
        self.list(|| self.handle.link().get().execute()).context("list links")
    }

    /// Makes a link; one of that name that is there already is an error.
    pub(super) fn add_link(&self, link: LinkMessage) -> io::Result<()> {
        self.wait(self.handle.link().add(link).execute())
    }

    /// Changes the link whose index `change` names.
    pub(super) fn change_link(&self, change: LinkMessage) -> io::Result<()> {
        self.wait(self.handle.link().change(change).execute())
    }

    /// Brings a link up.
    pub(super) fn set_up(&self, index: u32) -> Result<()> {
        self.change_link(LinkUnspec::new_with_index(index).up().build()).context("bring the link up")
    }

    /// Removes the link of this name, if there is one.
    pub(super) fn delete_link(&self, name: &str) -> Result<()> {
        let Some(link) = self.link(name)? else { return Ok(()) };
        match self.wait(self.handle.link().del(link.header.index).execute()) {
            Err(e) if !is(&e, Errno::NODEV) => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Removes the links of these names, those that are there, together: with each request that removes any, the kernel
    /// waits several times until no packet can be on its way through them, and lets nobody else change a link
    /// meanwhile.
    pub(super) fn delete_links(&self, names: &BTreeSet<String>) -> Result<()> {
        let links = self.links()?;
        let groups: BTreeSet<u32> = links.iter().filter_map(group_of).collect();
        let doomed: Vec<u32> = links
            .iter()
            .filter(|link| name_of(link).is_some_and(|name| names.contains(name)))
            .map(|link| link.header.index)
            .collect();
        if doomed.is_empty() {
            return Ok(());
        }
        // What a request can name several links by. Nobody else has this one, which is not looked at anywhere else.
        let group = repeat_with(rand::random).find(|group| *group != 0 && !groups.contains(group));
        let group = group.unwrap_or(u32::MAX);
        for index in doomed {
            match self.change_link(LinkUnspec::new_with_index(index).link_group(group).build()) {
                Err(e) if !is(&e, Errno::NODEV) => return Err(e).context("put links into a group"),
                _ => {}
            }
        }
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::Group(group));
        match self.wait(self.handle.link().del_with_message(request).execute()) {
            // All have gone by themselves.
            Err(e) if !is(&e, Errno::NODEV) => Err(e).context("remove a group of links"),
            _ => Ok(()),
        }
    }

    /// Gives a link an address that can be used at once.
    pub(super) fn add_address(&self, index: u32, addr: InterfaceAddr) -> Result<()> {
        let mut request = self.handle.address().add(index, addr.ip(), addr.prefix());
        // Addresses are handed out by one hand: nothing is gained by waiting until detection of duplicates ends.
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        self.wait(request.execute()).with_context(|| format!("add address {addr}"))
    }

    /// Takes an address from a link; one that is gone already is fine.
    pub(super) fn delete_address(&self, addr: AddressMessage) -> Result<()> {
        match self.wait(self.handle.address().del(addr).execute()) {
            Err(e) if !is(&e, Errno::ADDRNOTAVAIL) => Err(e).context("remove an address"),
            _ => Ok(()),
        }
    }

    /// Every address.
    pub(super) fn addresses(&self) -> Result<Vec<AddressMessage>> {
        self.list(|| self.handle.address().get().execute()).context("list addresses")
    }

    /// Adds the default route of the gateway's family.
    pub(super) fn add_default_route(&self, index: u32, gateway: IpAddr) -> Result<()> {
        let route = match gateway {
            IpAddr::V4(gateway) => {
                RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index).build()
            }
            IpAddr::V6(gateway) => {
                RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).output_interface(index).build()
            }
        };
        self.wait(self.handle.route().add(route).execute())
            .with_context(|| format!("add a default route through {gateway}"))
    }

    /// Adds a route.
    pub(super) fn add_route(&self, route: RouteMessage) -> io::Result<()> {
        self.wait(self.handle.route().add(route).execute())
    }

    /// Removes a route; one that is gone already is fine.
    pub(super) fn delete_route(&self, route: RouteMessage) -> Result<()> {
        match self.wait(self.handle.route().del(route).execute()) {
            Err(e) if !is(&e, Errno::SRCH) => Err(e).context("remove a route"),
            _ => Ok(()),
        }
    }

    /// Every route of all tables.
    pub(super) fn routes(&self) -> Result<Vec<RouteMessage>> {
        let list = |family: RouteMessage| self.list(|| self.handle.route().get(family.clone()).execute());
        let mut routes =
            list(RouteMessageBuilder::<Ipv4Addr>::new().build()).context("list the routes of IPv4")?;
        routes
            .extend(list(RouteMessageBuilder::<Ipv6Addr>::new().build()).context("list the routes of IPv6")?);
        Ok(routes)
    }

    /// For requests that are nobody else's.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Puts a queueing discipline in the place of another.
    pub(super) fn set_qdisc(&self, qdisc: TcMessage) -> io::Result<()> {
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(qdisc));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let mut handle = self.handle.clone();
        self.wait(async move {
            let mut answers = handle.request(request)?;
            while let Some(answer) = answers.next().await {
                if let NetlinkPayload::Error(error) = answer.payload
                    && error.code.is_some()
                {
                    return Err(rtnetlink::Error::NetlinkError(error));
                }
            }
            Ok(())
        })
    }

    /// Every queueing discipline.
    pub(super) fn qdiscs(&self) -> Result<Vec<TcMessage>> {
        self.list(|| self.handle.qdisc().get().execute()).context("list queueing disciplines")
    }

    /// Has an interface send through `to` what it receives. Of an `ifb` that is the way back.
    pub(super) fn redirect_incoming(&self, index: u32, to: u32) -> io::Result<()> {
        /// `ETH_P_ALL` of linux/if_ether.h.
        const EVERY_PROTOCOL: u16 = 3;
        let index = index.cast_signed();
        self.wait(self.handle.qdisc().add(index).ingress().execute())?;
        let filter = self.handle.traffic_filter(index).add().ingress().protocol(EVERY_PROTOCOL.to_be());
        self.wait(async { filter.redirect(to)?.execute().await })
    }

    /// Takes away what [`Netlink::redirect_incoming`] has made.
    pub(super) fn delete_incoming(&self, index: u32) -> Result<()> {
        let mut request = self.handle.qdisc().del(index.cast_signed());
        request.message_mut().header.parent = TcHandle::INGRESS;
        match self.wait(request.execute()) {
            Err(e) if !is(&e, Errno::NOENT) && !is(&e, Errno::INVAL) => {
                Err(e).context("remove the queue of what is received")
            }
            _ => Ok(()),
        }
    }

    /// Waits for the answer to a request.
    pub(super) fn wait<T>(&self, answer: impl Future<Output = Result<T, rtnetlink::Error>>) -> io::Result<T> {
        self.record.begin();
        let answer = self.runtime.block_on(answer);
        if let Some(error) = self.record.error() {
            return Err(error);
        }
        answer.map_err(|error| {
            if let rtnetlink::Error::NetlinkError(answer) = error {
                answer.to_io()
            } else {
                io::Error::other(error)
            }
        })
    }

    /// Waits for all of a list, which is asked for again where it has changed meanwhile.
    pub(super) fn list<T, S>(&self, ask: impl Fn() -> S) -> io::Result<Vec<T>>
    where
        S: Stream<Item = Result<T, rtnetlink::Error>>,
    {
        let mut listed = Vec::new();
        for _ in 0..TRIES {
            listed = self.wait(ask().try_collect())?;
            if !self.record.is_inconsistent() {
                break;
            }
        }
        Ok(listed)
    }
}

/// Removes the link of this name if it is the one that was made with this Ethernet address, on a socket of its own: the
/// answer to the request that made it may have been lost with its socket.
pub(super) fn delete_made(name: &str, mac: [u8; 6]) -> Result<()> {
    let netlink = Netlink::open()?;
    match netlink.link(name)? {
        Some(link) if link_of(&link).mac == MacAddr(mac) => netlink.delete_link(name),
        _ => Ok(()),
    }
}

/// What identifies a link; without an Ethernet address, that is all zeros, as the loopback's is.
pub(super) fn link_of(message: &LinkMessage) -> Link {
    let mac = message.attributes.iter().find_map(|attribute| {
        let LinkAttribute::Address(octets) = attribute else { return None };
        octets.as_slice().try_into().ok()
    });
    Link { index: message.header.index, mac: MacAddr(mac.unwrap_or_default()) }
}

/// The name of a link.
pub(super) fn name_of(message: &LinkMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| {
        let LinkAttribute::IfName(name) = attribute else { return None };
        Some(name.as_str())
    })
}

pub(super) fn group_of(message: &LinkMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| {
        let LinkAttribute::Group(group) = attribute else { return None };
        Some(*group)
    })
}

/// A random address that is locally administered and of one station. An interface that is given one keeps it:
/// the kernel changes a bridge's with its ports otherwise, and udev that of an interface of random address.
pub(super) fn random_mac() -> [u8; 6] {
    let mut mac: [u8; 6] = rand::random();
    mac[0] = mac[0] & 0xfc | 0x02;
    mac
}

/// Sets the MTU where there is one to set.
pub(super) fn with_mtu<T>(link: LinkMessageBuilder<T>, mtu: Option<u32>) -> LinkMessageBuilder<T> {
    match mtu {
        Some(mtu) => link.mtu(mtu),
        None => link,
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

#[cfg(test)]
mod tests {
    use rtnetlink::LinkVeth;

    use super::*;
    use crate::host::testing::in_new_netns;

    #[test]
    fn links_are_removed_together_and_others_stay() {
        in_new_netns(|| {
            let netlink = Netlink::open().unwrap();
            for (a, b) in [("a", "a1"), ("b", "b1"), ("c", "c1")] {
                netlink.add_link(LinkVeth::new(a, b).build()).unwrap();
            }
            let names = || {
                let links = netlink.links().unwrap();
                links.iter().filter_map(name_of).map(str::to_owned).collect::<BTreeSet<_>>()
            };
            let before = names();
            netlink.delete_links(&["gone".to_owned()].into()).unwrap();
            assert_eq!(names(), before);
            netlink.delete_links(&["a", "c", "gone"].map(str::to_owned).into()).unwrap();
            let gone: Vec<_> = before.difference(&names()).cloned().collect();
            assert_eq!(gone, ["a", "a1", "c", "c1"]);
            assert!(netlink.links().unwrap().iter().all(|link| group_of(link) == Some(0)));
        });
    }
}
