//! Limits of what a container may send and be sent, by the kernel's token buckets (tbf).
//!
//! Both are on the container's own end of its veth, which every packet passes: datapaths that redirect reach the
//! container past the queues of the host's end. What is sent waits in the queue of that end. What is received is led
//! through an interface of kind `ifb` beside it, which has such a queue; it is called `ifb` and the end's index.

use std::path::Path;

use anyhow::{Context, Result};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcHeader, TcMessage, TcOption};
use rtnetlink::{LinkIfb, packet_core::DefaultNla};

use super::netlink::{Netlink, name_of};

/// How long a packet may wait in a queue (the default of CNI's bandwidth plugin), in microseconds.
const LATENCY_US: u64 = 25_000;

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// In bytes a second.
    pub rate: u64,
    /// What may be sent at once, in bytes.
    pub burst: u32,
}

/// Limits what an interface of the namespace at `netns` sends (`outgoing`) and receives. What was limited otherwise is
/// limited so.
///
/// # Errors
/// When there is no such interface, or the kernel lacks what it takes: `sch_tbf`, and for what is received `ifb`,
/// `cls_u32` and `act_mirred`.
pub fn limit(netns: &Path, name: &str, outgoing: Option<Limit>, incoming: Option<Limit>) -> Result<()> {
    let netlink = Netlink::in_netns(netns)?;
    let index = netlink.existing_link(name)?.header.index;
    unlimit_incoming(&netlink, index)?;
    if let Some(limit) = outgoing {
        netlink.set_qdisc(bucket(index, limit)).with_context(|| format!("limit what {name} sends"))?;
    }
    if let Some(limit) = incoming {
        limit_incoming(&netlink, index, limit).with_context(|| format!("limit what {name} receives"))?;
    }
    Ok(())
}

/// Takes away what an interface of the namespace at `netns` would leave there.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn unlimit(netns: &Path, name: &str) -> Result<()> {
    let netlink = Netlink::in_netns(netns)?;
    netlink.link(name)?.map_or(Ok(()), |link| unlimit_incoming(&netlink, link.header.index))
}

/// Whether there is a limit for what an interface sends, and for what it receives.
///
/// # Errors
/// When there is no such interface, or the kernel cannot be asked.
pub fn is_limited(netns: &Path, name: &str) -> Result<(bool, bool)> {
    let netlink = Netlink::in_netns(netns)?;
    let index = netlink.existing_link(name)?.header.index;
    let beside = netlink.link(&beside(index))?.map(|link| link.header.index);
    let has = |index: u32, kind: &str, qdiscs: &[TcMessage]| {
        qdiscs.iter().any(|qdisc| {
            let kind = TcAttribute::Kind(kind.to_owned());
            u32::try_from(qdisc.header.index) == Ok(index) && qdisc.attributes.contains(&kind)
        })
    };
    let qdiscs = netlink.qdiscs()?;
    let receives = beside.is_some_and(|beside| has(beside, "tbf", &qdiscs) && has(index, "ingress", &qdiscs));
    Ok((has(index, "tbf", &qdiscs), receives))
}

fn limit_incoming(netlink: &Netlink, index: u32, limit: Limit) -> Result<()> {
    let name = beside(index);
    netlink.add_link(LinkIfb::new(&name).build()).with_context(|| format!("make {name}"))?;
    let beside = netlink.existing_link(&name)?.header.index;
    netlink.set_qdisc(bucket(beside, limit))?;
    netlink.set_up(beside)?;
    netlink.redirect_incoming(index, beside).with_context(|| format!("lead packets through {name}"))
}

/// Without its `ifb`, an interface would receive nothing.
fn unlimit_incoming(netlink: &Netlink, index: u32) -> Result<()> {
    let name = beside(index);
    if netlink.links()?.iter().any(|link| name_of(link) == Some(&name)) {
        netlink.delete_incoming(index)?;
        netlink.delete_link(&name)?;
    }
    Ok(())
}

fn beside(index: u32) -> String {
    format!("ifb{index}")
}

/// A token bucket in place of the queue of an interface, as `tc_tbf_qopt` of linux/pkt_sched.h has it.
fn bucket(index: u32, limit: Limit) -> TcMessage {
    const TCA_TBF_PARMS: u16 = 1;
    const TCA_TBF_RATE64: u16 = 4;
    const TCA_TBF_BURST: u16 = 6;
    const LINK_LAYER_ETHERNET: u8 = 1;
    let waiting = limit.rate.saturating_mul(LATENCY_US) / 1_000_000;
    let queue = u32::try_from(waiting.saturating_add(limit.burst.into())).unwrap_or(u32::MAX);
    let mut parameters = [0; 36];
    // `tc_ratespec`: at 1 the link layer, at 8 the rate, which is `~0` where it stands elsewhere.
    parameters[1] = LINK_LAYER_ETHERNET;
    parameters[8..12].copy_from_slice(&u32::try_from(limit.rate).unwrap_or(u32::MAX).to_ne_bytes());
    // Behind it and the one of the peak rate, the length of the queue. The burst stands elsewhere in bytes.
    parameters[24..28].copy_from_slice(&queue.to_ne_bytes());
    let mut options = vec![
        DefaultNla::new(TCA_TBF_PARMS, parameters.to_vec()),
        DefaultNla::new(TCA_TBF_BURST, limit.burst.to_ne_bytes().to_vec()),
    ];
    if limit.rate >= u64::from(u32::MAX) {
        options.push(DefaultNla::new(TCA_TBF_RATE64, limit.rate.to_ne_bytes().to_vec()));
    }
    let mut message = TcMessage::default();
    message.header = TcHeader { index: index.cast_signed(), parent: TcHandle::ROOT, ..TcHeader::default() };
    message.attributes.push(TcAttribute::Kind("tbf".to_owned()));
    message.attributes.push(TcAttribute::Options(options.into_iter().map(TcOption::Other).collect()));
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{
        netns,
        testing::{Name, in_new_netns, ip},
    };

    #[test]
    fn limits_are_set_seen_and_taken_away() {
        in_new_netns(|| {
            let name = Name::new("limit");
            let ns = netns::create(&name).unwrap();
            ip(&format!("link add name v0 type veth peer name eth0 netns {}", &*name));
            let slow = Limit { rate: 1_000_000, burst: 65_536 };
            let fast = Limit { rate: 10_000_000_000, burst: u32::MAX / 8 };
            assert_eq!(is_limited(&ns, "eth0").unwrap(), (false, false));
            limit(&ns, "eth0", Some(slow), None).unwrap();
            assert_eq!(is_limited(&ns, "eth0").unwrap(), (true, false));
            for _ in 0..2 {
                limit(&ns, "eth0", Some(fast), Some(slow)).unwrap();
                assert_eq!(is_limited(&ns, "eth0").unwrap(), (true, true));
            }
            unlimit(&ns, "eth0").unwrap();
            assert_eq!(is_limited(&ns, "eth0").unwrap(), (true, false));
            let inside = Netlink::in_netns(&ns).unwrap();
            assert!(inside.links().unwrap().iter().all(|link| !name_of(link).unwrap().starts_with("ifb")));
            unlimit(&ns, "eth9").unwrap();
            limit(&ns, "eth9", Some(slow), None).unwrap_err();
        });
    }
}
