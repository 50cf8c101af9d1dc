//! A packet in an XDP program: a frame as the device has received it, before the kernel has a packet buffer for it.

use core::arch::asm;

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{bpf_csum_diff, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use rnet_common::checksum::fold;

use crate::{
    maps,
    skb::{Wire, field},
};

/// The largest frame that is looked at, in bytes.
pub(crate) const LARGEST: usize = 256;

/// A frame, with the bounds of what is readable: all of it, unless the device has spread it over several buffers.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    context: *mut xdp_md,
    data: usize,
    end: usize,
}

impl Frame {
    #[inline(always)]
    pub(crate) fn new(context: &XdpContext) -> Self {
        let context = context.ctx;
        let (data, end) = (field!(context, xdp_md, data), field!(context, xdp_md, data_end));
        Self { context, data: data as usize, end: end as usize }
    }

    /// Interface that received it.
    #[inline(always)]
    pub(crate) fn ifindex(self) -> u32 {
        field!(self.context, xdp_md, ingress_ifindex) as u32
    }

    /// How many bytes are readable.
    #[inline(always)]
    pub(crate) fn len(self) -> usize {
        self.end - self.data
    }

    /// Reads a field at `offset` from the start of the frame.
    #[inline(always)]
    pub(crate) fn read<T: Wire>(self, offset: usize) -> Option<T> {
        // SAFETY: as in `Skb::read`: `at` keeps the read inside the packet.
        self.at(offset).map(|field| unsafe { *field })
    }

    /// Overwrites a field.
    #[inline(always)]
    pub(crate) fn write<T: Wire>(self, offset: usize, value: T) -> Option<()> {
        // SAFETY: as in `read`; nobody else has the frame while the program runs.
        self.at(offset).map(|field| unsafe { *field = value })
    }

    #[inline(always)]
    fn at<T: Wire>(self, offset: usize) -> Option<*mut T> {
        let at = self.data + offset;
        (at + size_of::<T>() <= self.end).then_some(at as *mut T)
    }

    /// The ones' complement sum of `length` bytes from `offset` on, of at most [`LARGEST`], folded.
    #[inline(always)]
    pub(crate) fn sum(self, offset: usize, length: usize) -> Option<u16> {
        let scratch = maps::scratch()?;
        let mut length = length;
        // The compiler knows of a comparison before and would leave this one out, but verifiers up to that of Linux 6.12
        // have not concluded from it that the length is not negative.
        // SAFETY: changes nothing.
        unsafe { asm!("{0} = {0}", inout(reg) length, options(pure, nomem, nostack)) };
        if length == 0 || length >= LARGEST {
            return None;
        }
        // The helper takes whole words: what is behind the last byte is zero.
        // SAFETY: `length` is below the buffer's size less a word.
        unsafe { scratch.cast::<u8>().add(length).cast::<u32>().write_unaligned(0) };
        // SAFETY: a valid context, and a buffer of at least as many bytes as are said; the helper checks the offset.
        let copied =
            unsafe { bpf_xdp_load_bytes(self.context, offset as u32, scratch.cast(), length as u32) };
        if copied != 0 {
            return None;
        }
        let words = (length as u32 + 3) & !3;
        // SAFETY: a buffer of at least as many bytes as are said, and none to be taken off.
        let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, scratch.cast(), words, 0) };
        u64::try_from(sum).ok().map(fold)
    }
}
