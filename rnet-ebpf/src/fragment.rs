//! Fragments after the first: they have no ports, and get those of the first.
//!
//! Nothing is reassembled. A fragment that comes before its first is put back into the interface's queue, behind
//! what has arrived meanwhile, a bounded number of times: that puts in order what a burst has mixed up. So is what a
//! processor puts back in all.

use aya_ebpf::{bindings::BPF_F_INGRESS, helpers::generated::bpf_redirect};
use rnet_common::{FragmentHead, FragmentKey, Reason, Side, fragment::LIFETIME};

use crate::{
    conntrack::now,
    deliver::Carried,
    maps,
    nat::Net,
    packet::{self, Class, Packet, Part},
    skb::Skb,
};

/// Times that a fragment is put back: well under a millisecond in all.
const MOST: u32 = 128;
/// Times that a CPU puts one back within a tick of the clock, 1 to 10 ms. Whoever sends fragments alone would have it do
/// nothing else.
const MOST_A_TICK: u64 = 4096;

/// Notes the ports of a first fragment, and gives them to the others.
///
/// # Errors
/// What to do with a fragment whose first is not known: [`Unknown`].
#[inline(always)]
pub(crate) fn join<A: Net>(skb: Skb, packet: &mut Packet<A>, side: Side) -> Result<(), Unknown> {
    if find_head(packet, side) {
        return Ok(());
    }
    if skb.tries() == MOST || !maps::may_put_back(now(), MOST_A_TICK) {
        return Err(Unknown::Lost);
    }
    skb.set_tries(skb.tries() + 1);
    Err(Unknown::Early(put_back(skb)))
}

/// The same, where nothing can be put back. False if the first is not known.
#[inline(never)]
pub(crate) fn find_head<A: Net>(packet: &mut Packet<A>, side: Side) -> bool {
    let tuple = &mut packet.tuple;
    let key = FragmentKey::new(tuple.src, tuple.dst, packet.fragment_id, packet.proto, side);
    if packet.part == Part::Head {
        maps::note_fragment_head(&key, &FragmentHead::new(now(), tuple.sport, tuple.dport));
        return true;
    }
    let Some(head) = maps::fragment_head(&key) else { return false };
    if now().saturating_sub(head.seen) > LIFETIME {
        return false;
    }
    tuple.sport = head.sport;
    tuple.dport = head.dport;
    if packet::is_tracked::<A>(packet.proto) {
        packet.class = Class::Continues;
    }
    true
}

/// A fragment whose first is not known.
pub(crate) enum Unknown {
    /// Put back into the queue.
    Early(Carried),
    /// Put back too often.
    Lost,
}

/// Into the queue that it came from.
#[inline(always)]
fn put_back(skb: Skb) -> Carried {
    // SAFETY: takes integers; the kernel checks the interface when it acts on the verdict.
    let action = unsafe { bpf_redirect(skb.ifindex(), u64::from(BPF_F_INGRESS)) as i32 };
    Carried { reason: Reason::FragmentEarly as u8, action }
}
