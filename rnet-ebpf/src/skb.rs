//! The kernel's packet buffer. All pointer arithmetic on packets is here.

use core::{arch::asm, intrinsics::is_val_statically_known, mem::offset_of};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM},
    helpers::generated::{
        bpf_l4_csum_replace, bpf_skb_change_type, bpf_skb_pull_data, bpf_skb_store_bytes, bpf_skb_vlan_pop,
    },
    programs::TcContext,
};
use rnet_common::Mac;

/// Length of an Ethernet header without tags.
pub(crate) const ETH_LEN: usize = 14;

/// How far into a frame headers are looked for. The verifier wants a limit.
const DEEPEST: usize = 2048;

/// An offset that the verifier sees the limits of: what is compared with them and what is used are one register, as
/// the compiler, which would rather compute both from something earlier, cannot look into this.
#[inline(always)]
fn bounded(offset: usize) -> Option<usize> {
    if is_val_statically_known(offset) {
        return Some(offset);
    }
    let mut seen = offset;
    // SAFETY: changes nothing. An assembly of no instruction would have line information of its own, which the kernel
    // refuses.
    unsafe { asm!("{0} = {0}", inout(reg) seen, options(pure, nomem, nostack)) };
    (seen <= DEEPEST).then_some(seen)
}

/// `skb->pkt_type` of a packet for this host (`PACKET_HOST`, linux/if_packet.h).
const PACKET_HOST: u32 = 0;

/// A type of which every bit pattern is a value, and which a packet may hold.
///
/// # Safety
/// Implementors are integers or `repr(transparent)` around integers.
pub(crate) unsafe trait Wire: Copy {}
// SAFETY: an integer.
unsafe impl Wire for u8 {}
// SAFETY: an integer.
unsafe impl Wire for u16 {}
// SAFETY: an integer.
unsafe impl Wire for u32 {}
// SAFETY: an array of integers.
unsafe impl Wire for [u32; 3] {}
// SAFETY: as above.
unsafe impl Wire for [u32; 4] {}
// SAFETY: `repr(transparent)` around an array of integers.
unsafe impl Wire for Mac {}

/// Reads a field of the context: a word, or for `data` and `data_end` a pointer, which the verifier makes of it.
///
/// The verifier allows no arithmetic on a context before it is read, and a compiler that sees two reads of one field
/// may compute the field's address once for both. It does not see into this.
macro_rules! field {
    ($context:expr, $type:ty, $field:ident) => {{
        let value: u64;
        // SAFETY: the kernel passes a valid context, which outlives the program's run; the field lies in it.
        unsafe {
            ::core::arch::asm!(
                "{value} = *(u32 *)({ctx} + {offset})",
                value = out(reg) value,
                ctx = in(reg) $context,
                offset = const ::core::mem::offset_of!($type, $field),
                options(nostack, readonly),
            );
        }
        value
    }};
}
pub(crate) use field;

/// A packet in a TC program.
#[derive(Clone, Copy)]
pub(crate) struct Skb(*mut __sk_buff);

impl Skb {
    #[inline(always)]
    pub(crate) fn new(ctx: &TcContext) -> Self {
        Self(ctx.skb.skb)
    }

    #[inline(always)]
    pub(crate) fn as_ptr(self) -> *mut __sk_buff {
        self.0
    }

    /// Length of the frame in bytes, Ethernet header included.
    #[inline(always)]
    pub(crate) fn len(self) -> u32 {
        field!(self.0, __sk_buff, len) as u32
    }

    /// Interface whose hook this is.
    #[inline(always)]
    pub(crate) fn ifindex(self) -> u32 {
        field!(self.0, __sk_buff, ifindex) as u32
    }

    /// Interface that the packet arrived at, as the host's stack last took it in: for what came out of a bridge, the
    /// bridge. 0 for what the host itself sends.
    #[inline(always)]
    pub(crate) fn ingress_ifindex(self) -> u32 {
        field!(self.0, __sk_buff, ingress_ifindex) as u32
    }

    /// EtherType in network byte order, past any VLAN tag.
    #[inline(always)]
    pub(crate) fn protocol(self) -> u32 {
        field!(self.0, __sk_buff, protocol) as u32
    }

    /// Whether the frame carries a VLAN tag. `__netif_receive_skb_core` has moved it out of the frame.
    #[inline(always)]
    pub(crate) fn is_vlan(self) -> bool {
        field!(self.0, __sk_buff, vlan_present) != 0
    }

    /// Whether the frame carries a tag that names no VLAN but a priority alone (IEEE 802.1Q, VLAN 0). The kernel takes
    /// it for untagged.
    #[inline(always)]
    fn has_priority_tag(self) -> bool {
        const VLAN: u64 = 0xfff;
        self.is_vlan() && field!(self.0, __sk_buff, vlan_tci) & VLAN == 0
    }

    /// Takes off a tag that names no VLAN. False if it cannot be, or if another is below it.
    #[inline(always)]
    pub(crate) fn untag(self) -> bool {
        if !self.has_priority_tag() {
            return true;
        }
        // SAFETY: a valid context; pointers into the packet are not kept across this call.
        unsafe { bpf_skb_vlan_pop(self.0) == 0 && !self.has_priority_tag() }
    }

    /// How often a program has put the packet back. The kernel keeps the field for packet schedulers, and it is zero
    /// in what an interface receives.
    #[inline(always)]
    pub(crate) fn tries(self) -> u32 {
        field!(self.0, __sk_buff, tc_index) as u32
    }

    #[inline(always)]
    pub(crate) fn set_tries(self, tries: u32) {
        // SAFETY: as for `field!`; this field may be written.
        unsafe {
            asm!(
                "*(u32 *)({ctx} + {offset}) = {tries}",
                ctx = in(reg) self.0,
                offset = const offset_of!(__sk_buff, tc_index),
                tries = in(reg) u64::from(tries),
                options(nostack),
            );
        }
    }

    /// Length of a segment of a segmentation-offloaded packet, without headers; 0 for any other.
    #[inline(always)]
    pub(crate) fn gso_size(self) -> u32 {
        field!(self.0, __sk_buff, gso_size) as u32
    }

    /// Whether the frame is addressed to this host: neither to another nor to a group.
    #[inline(always)]
    pub(crate) fn is_for_host(self) -> bool {
        field!(self.0, __sk_buff, pkt_type) as u32 == PACKET_HOST
    }

    /// Makes the first `len` bytes readable; false if the packet is shorter.
    #[inline(always)]
    pub(crate) fn pull(self, len: usize) -> bool {
        let Some(len) = bounded(len) else { return false };
        let (data, end) = self.bounds();
        // SAFETY: a valid context; pointers into the packet are not kept across this call.
        data + len <= end || unsafe { bpf_skb_pull_data(self.0, len as u32) } == 0
    }

    /// Reads a field at `offset` from the start of the frame.
    #[inline(always)]
    pub(crate) fn read<T: Wire>(self, offset: usize) -> Option<T> {
        let offset = bounded(offset)?;
        let (data, end) = self.bounds();
        if data + offset + size_of::<T>() > end {
            return None;
        }
        // SAFETY: the line above keeps the read inside the packet, which the verifier checks again. Fields are
        // read as words although the packet may lie at any address: the verifier accepts that only where the
        // machine reads such words whole (CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS), and every bit pattern is a
        // value of a `Wire`.
        Some(unsafe { *((data + offset) as *const T) })
    }

    /// Overwrites a field at `offset` from the start of the frame, which has been read or pulled. Checksums are the
    /// caller's affair.
    ///
    /// A program that does so gets a prologue from the verifier that unshares the packet if it is a clone
    /// (`tc_cls_act_gen_prologue`).
    #[inline(always)]
    pub(crate) fn put<T: Wire>(self, offset: usize, value: T) -> bool {
        let Some(offset) = bounded(offset) else { return false };
        let (data, end) = self.bounds();
        if data + offset + size_of::<T>() > end {
            return false;
        }
        // SAFETY: as in `read`; and a `Wire` has no invalid bytes to write.
        unsafe { *((data + offset) as *mut T) = value };
        true
    }

    /// Overwrites the packet at `offset`, be it in the packet's linear part or not. Checksums are the caller's affair.
    #[inline(always)]
    pub(crate) fn write<T>(self, offset: usize, value: &T) -> bool {
        // SAFETY: a valid context, and a value of as many bytes as are said; the helper checks the offset.
        unsafe {
            bpf_skb_store_bytes(
                self.0.cast(),
                offset as u32,
                core::ptr::from_ref(value).cast(),
                size_of::<T>() as u32,
                0,
            ) == 0
        }
    }

    /// Adjusts the transport checksum at `offset` for a change of addresses, which it covers through the
    /// pseudo header: `difference` is folded ([`rnet_common::checksum`]).
    #[inline(always)]
    pub(crate) fn adjust_for_addresses(self, offset: usize, difference: u16, udp: bool) -> bool {
        let flags = u64::from(BPF_F_PSEUDO_HDR) | mangled(udp);
        // SAFETY: a valid context; the helper checks the offset. A size of 0 says that `to` is a difference.
        unsafe { bpf_l4_csum_replace(self.0, offset as u32, 0, difference as u64, flags) == 0 }
    }

    /// Overwrites the packet at `offset` with the first `length` bytes of `words`.
    #[inline(always)]
    pub(crate) fn write_bytes<const N: usize>(self, offset: usize, words: &[u32; N], length: usize) -> bool {
        let Some(length) = bounded(length).filter(|length| (1..=size_of::<[u32; N]>()).contains(length))
        else {
            return false;
        };
        // SAFETY: a valid context, and a buffer of at least as many bytes as are said.
        unsafe {
            bpf_skb_store_bytes(self.0.cast(), offset as u32, words.as_ptr().cast(), length as u32, 0) == 0
        }
    }

    /// Overwrites part of an IP header that no checksum of its own covers, as IPv6's: where the device has summed up
    /// the whole packet (`CHECKSUM_COMPLETE`), the sum follows.
    #[inline(always)]
    pub(crate) fn write_summed<T>(self, offset: usize, value: &T) -> bool {
        // SAFETY: as in `write`.
        unsafe {
            bpf_skb_store_bytes(
                self.0.cast(),
                offset as u32,
                core::ptr::from_ref(value).cast(),
                size_of::<T>() as u32,
                u64::from(BPF_F_RECOMPUTE_CSUM),
            ) == 0
        }
    }

    /// Adjusts the checksum at `offset` for a change in what it covers directly: `difference` is folded.
    #[inline(always)]
    pub(crate) fn adjust(self, offset: usize, difference: u16) -> bool {
        // SAFETY: as in `adjust_for_addresses`.
        unsafe { bpf_l4_csum_replace(self.0, offset as u32, 0, difference as u64, 0) == 0 }
    }

    /// Adjusts the transport checksum at `offset` for a word that changed in what it covers directly.
    #[inline(always)]
    pub(crate) fn adjust_for_word(self, offset: usize, from: u32, to: u32, udp: bool) -> bool {
        let flags = size_of::<u32>() as u64 | mangled(udp);
        // SAFETY: as in `adjust_for_addresses`.
        unsafe { bpf_l4_csum_replace(self.0, offset as u32, from as u64, to as u64, flags) == 0 }
    }

    /// Marks the packet as one for the receiver's own stack.
    ///
    /// A bridge port receives frames for other addresses (`PACKET_OTHERHOST`), which IP drops. Since Linux 6.15
    /// `bpf_redirect_peer` sees to this itself.
    #[inline(always)]
    pub(crate) fn set_for_host(self) {
        if !self.is_for_host() {
            // SAFETY: a valid context. It can fail only for types that a received packet does not have.
            unsafe { bpf_skb_change_type(self.0, PACKET_HOST) };
        }
    }

    #[inline(always)]
    fn bounds(self) -> (usize, usize) {
        (field!(self.0, __sk_buff, data) as usize, field!(self.0, __sk_buff, data_end) as usize)
    }
}

/// A UDP checksum of zero means none (RFC 768): the kernel then leaves it, and writes a computed zero as 0xffff.
#[inline(always)]
fn mangled(udp: bool) -> u64 {
    if udp { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 }
}
