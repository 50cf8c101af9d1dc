//! Veths that others have put on their bridges, and what is at their other ends.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use futures::TryStreamExt as _;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};

use super::{
    adopted, bridge,
    netlink::{Netlink, link_of, name_of},
};
use crate::controller::model::{InterfaceAddr, MacAddr};

/// A port of a bridge that is one end of a veth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgePort {
    /// Its name.
    pub name: String,
    /// The other end, once it is in another network namespace.
    pub inside: Option<Inside>,
}

/// The end of a veth that is in another network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Its name there.
    pub name: String,
    /// Its Ethernet address.
    pub mac: MacAddr,
}

/// The ports of a bridge, but for those called as one of `known`, with the other ends as they are seen from here: no
/// path to their namespaces is needed. Nothing where there is no such bridge.
///
/// # Errors
/// The kernel does not answer.
pub fn ports_of(bridge: &str, known: &BTreeSet<String>) -> Result<Vec<BridgePort>> {
    let netlink = Netlink::open()?;
    let Some(bridge) = netlink.link(bridge)? else { return Ok(Vec::new()) };
    let mut ports = Vec::new();
    for port in netlink.ports_of(bridge.header.index)? {
        let Some(name) = name_of(&port).filter(|name| !known.contains(*name)) else { continue };
        let name = name.to_owned();
        let inside = match other_end(&port) {
            OtherEnd::Here => None,
            OtherEnd::Inside(namespace, index) => {
                // One that has gone meanwhile is none.
                let Some(link) = netlink.link_in(namespace, index)? else { continue };
                let mac = link_of(&link).mac;
                name_of(&link).map(|name| Inside { name: name.to_owned(), mac })
            }
            OtherEnd::None => continue,
        };
        ports.push(BridgePort { name, inside });
    }
    Ok(ports)
}

/// The addresses of a bridge; none where there is no such bridge.
///
/// # Errors
/// The kernel does not answer.
pub fn addresses_of(bridge: &str) -> Result<Vec<InterfaceAddr>> {
    let netlink = Netlink::open()?;
    match bridge::find(&netlink, bridge)? {
        Some(_) => Ok(adopted::state(bridge)?.addrs),
        None => Ok(Vec::new()),
    }
}

/// Where the other end of a port is.
enum OtherEnd {
    /// In this namespace.
    Here,
    /// In the namespace that has this number here, with this index.
    Inside(i32, u32),
    /// It has none: it is no veth.
    None,
}

fn other_end(port: &LinkMessage) -> OtherEnd {
    let (mut namespace, mut index) = (None, None);
    for attribute in &port.attributes {
        if let LinkAttribute::LinkNetNsId(id) = attribute {
            namespace = Some(*id);
        } else if let LinkAttribute::Link(link) = attribute {
            index = Some(*link);
        }
    }
    match (namespace, index) {
        (Some(namespace), Some(index)) => OtherEnd::Inside(namespace, index),
        (None, Some(_)) => OtherEnd::Here,
        (_, None) => OtherEnd::None,
    }
}

impl Netlink {
    /// The ports of a bridge.
    fn ports_of(&self, bridge: u32) -> Result<Vec<LinkMessage>> {
        let list = || {
            let mut request = self.handle().link().get();
            request.message_mut().attributes.push(LinkAttribute::Controller(bridge));
            request.execute()
        };
        let links: Vec<LinkMessage> = self.list(list).context("list the ports of a bridge")?;
        // Kernels that do not know the filter list all.
        let is_port = |link: &LinkMessage| link.attributes.contains(&LinkAttribute::Controller(bridge));
        Ok(links.into_iter().filter(is_port).collect())
    }

    /// A link of another namespace, which has this number here.
    fn link_in(&self, namespace: i32, index: u32) -> Result<Option<LinkMessage>> {
        let mut request = self.handle().link().get().match_index(index);
        request.message_mut().attributes.push(LinkAttribute::IfNetnsId(namespace));
        match self.wait(request.execute().try_next()) {
            // EINVAL: the namespace is gone.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENODEV | libc::EINVAL)) => Ok(None),
            found => found.context("look up the other end of a veth"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{
        netns,
        testing::{Name, in_new_netns, ip},
    };

    #[test]
    fn ports_are_known_by_what_is_inside() {
        in_new_netns(|| {
            ip("link add br0 type bridge");
            ip("link add br1 type bridge");
            let names = ["one", "two"].map(Name::new);
            for (i, name) in names.iter().enumerate() {
                netns::create(name).unwrap();
                ip(&format!(
                    "link add p{i} type veth peer name eth{i} address 02:00:00:00:00:0{i} netns {}",
                    &**name
                ));
                ip(&format!("link set p{i} master br{i}"));
            }
            ip("link add here type veth peer name there");
            ip("link set here master br0");
            let inside = Inside { name: "eth0".into(), mac: MacAddr([2, 0, 0, 0, 0, 0]) };
            let mut expected = vec![
                BridgePort { name: "p0".into(), inside: Some(inside) },
                BridgePort { name: "here".into(), inside: None },
            ];
            assert_eq!(ports_of("br0", &BTreeSet::new()).unwrap(), expected);
            expected.remove(0);
            assert_eq!(ports_of("br0", &["p0".into()].into()).unwrap(), expected);
            assert_eq!(ports_of("gone", &BTreeSet::new()).unwrap(), []);
        });
    }

    #[test]
    fn a_bridges_addresses_are_its_own() {
        in_new_netns(|| {
            ip("link add br0 type bridge");
            ip("addr add 10.1.0.1/24 dev br0");
            ip("addr add 10.2.0.1/24 dev lo");
            assert_eq!(addresses_of("br0").unwrap(), ["10.1.0.1/24".parse().unwrap()]);
            assert_eq!(addresses_of("gone").unwrap(), []);
        });
    }
}
