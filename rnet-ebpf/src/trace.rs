//! Records of packets for whoever looks at them: see [`rnet_common::trace`].
//!
//! Nobody mostly does. What is left then is a look at a word beside the programs, in which the daemon says until when
//! somebody looks: who is gone without a word is soon forgotten.

use core::arch::asm;

use aya_ebpf::helpers::generated::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_skb_load_bytes,
};
use rnet_common::{
    Be16, Family, Ip4, Ip6, Program, Reason, SockAddr, TraceRecord, Tuple,
    flow::proto,
    trace::{BURST, COMM, Call, FILTERS, Recorder, WINDOW, trace_flags, widened},
};

use crate::{
    conntrack, maps,
    maps::Tables,
    packet::Parse,
    programs::ethertype,
    skb::{ETH_LEN, Skb},
};

/// Until when somebody looks, in nanoseconds of `CLOCK_MONOTONIC`; 0 when nobody does. The daemon writes it.
// SAFETY: no other symbol has the name.
#[unsafe(no_mangle)]
static mut TRACED_UNTIL: u64 = 0;

#[inline(always)]
fn traced_until() -> u64 {
    // SAFETY: a word that is written whole, and by the daemon alone.
    unsafe { (&raw const TRACED_UNTIL).read_volatile() }
}

/// Whether somebody looks, or did.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    traced_until() != 0
}

/// Records a packet whose verdict is settled, if somebody looks for such. `is_carried` says that the headers which it
/// came with are in this CPU's [`maps::Work`].
#[inline(never)]
pub(crate) fn packet(skb: Skb, program: Program, reason: u8, is_carried: bool) {
    let Some(recorder) = begin(skb.ifindex(), skb.len(), program, reason) else { return };
    let ethertype = skb.protocol();
    recorder.record.ethertype = Be16::from_wire(ethertype as u16);
    match ethertype {
        ethertype::IPV4 => look::<Ip4>(skb, recorder, is_carried),
        ethertype::IPV6 => look::<Ip6>(skb, recorder, is_carried),
        _ => {}
    }
    finish(recorder);
}

/// The same for a frame that `xdp_uplink` has rewritten.
#[inline(always)]
pub(crate) fn frame<A: Family + Wide>(
    ifindex: u32,
    length: u32,
    came: &Tuple<A>,
    left: &Tuple<A>,
    proto: u8,
    reason: u8,
) {
    let Some(recorder) = begin(ifindex, length, Program::XdpUplink, reason) else { return };
    let record = &mut recorder.record;
    let ethertype = if A::V6 { ethertype::IPV6 } else { ethertype::IPV4 };
    record.ethertype = Be16::from_wire(ethertype as u16);
    record.proto = proto;
    widen(&mut record.came, came);
    widen(&mut record.left, left);
    finish(recorder);
}

#[inline(always)]
fn begin(ifindex: u32, length: u32, program: Program, reason: u8) -> Option<&'static mut Recorder> {
    if conntrack::now() >= traced_until() {
        return None;
    }
    let recorder = maps::recorder()?;
    let record = &mut recorder.record;
    *record = TraceRecord::default();
    record.ifindex = ifindex;
    record.length = length;
    record.program = program as u8;
    record.reason = reason;
    Some(recorder)
}

/// Reads the headers that the packet leaves with, and takes those that it came with from where they were put.
#[inline(always)]
fn look<A: Wide>(skb: Skb, recorder: &mut Recorder, is_carried: bool) {
    let Recorder { record, word, .. } = recorder;
    let Some((found, mut l4)) = A::look(skb, word, &mut record.left) else { return };
    record.proto = found;
    let mut has_transport = l4 != 0;
    if is_carried && let Some(work) = maps::work::<A>() {
        let packet = &work.packet;
        record.proto = packet.proto;
        widen(&mut record.came, &packet.tuple);
        if packet.is_new {
            record.flags |= trace_flags::NEW_FLOW;
        }
        if has_transport {
            l4 = packet.l4;
        }
        // The error that it was made is another packet.
        has_transport &= record.reason != Reason::Answered as u8;
    }
    if has_transport {
        transport::<A>(skb, l4, record, word);
    }
    if !is_carried {
        record.came = record.left;
    }
}

/// Reads the ports, or what stands for them.
#[inline(always)]
fn transport<A: Wide>(skb: Skb, l4: usize, record: &mut TraceRecord, word: &mut u32) {
    const TCP_FLAGS: usize = 13;
    if !load(skb, l4, word) {
        return;
    }
    let first = *word;
    match record.proto {
        proto::TCP | proto::UDP | proto::SCTP => {
            record.left.sport = Be16::from_wire(first as u16);
            record.left.dport = Be16::from_wire((first >> 16) as u16);
            if record.proto == proto::TCP && load(skb, l4 + TCP_FLAGS, word) {
                record.detail = *word as u8;
            }
        }
        icmp if icmp == A::ICMP => {
            record.detail = first as u8;
            if !load(skb, l4 + 4, word) {
                return;
            }
            let id = Be16::from_wire(*word as u16);
            if record.detail == A::ECHO.0 {
                record.left.sport = id;
            } else if record.detail == A::ECHO.1 {
                record.left.dport = id;
            }
        }
        _ => {}
    }
}

/// Records a call of a process that was led to a published port or refused it, if somebody looks for such. `from` is
/// where its socket is bound or wants to be, `addressed` what the process asks for, `to` what it gets.
///
/// A process is interrupted by packets, whose programs have this CPU's [`Recorder`]: the record is made in the buffer.
#[inline(never)]
pub(crate) fn call<A: Wide>(
    from: &SockAddr<A>,
    addressed: &SockAddr<A>,
    to: &SockAddr<A>,
    call: Call,
    proto: u8,
) {
    if conntrack::now() >= traced_until() {
        return;
    }
    let Some(mut entry) = maps::reserve_record() else { return maps::note_lost() };
    let record = entry.write(TraceRecord::default());
    let ethertype = if A::V6 { ethertype::IPV6 } else { ethertype::IPV4 };
    record.ethertype = Be16::from_wire(ethertype as u16);
    (record.program, record.reason, record.proto) = (call as u8, call.reason() as u8, proto);
    (record.came.src, record.came.sport) = (from.addr.wide(), from.port);
    (record.left.src, record.left.sport) = (from.addr.wide(), from.port);
    (record.came.dst, record.came.dport) = (addressed.addr.wide(), addressed.port);
    (record.left.dst, record.left.dport) = (to.addr.wide(), to.port);
    // SAFETY: takes nothing and cannot fail; the first half is the process, the other the thread.
    record.process = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    // SAFETY: as many bytes as are said. It fails for no process that calls.
    unsafe { bpf_get_current_comm(record.comm.as_mut_ptr().cast(), COMM as u32) };
    // SAFETY: takes nothing and cannot fail.
    record.time = unsafe { bpf_ktime_get_ns() };
    match is_wanted(record) {
        true => entry.submit(0),
        false => entry.discard(0),
    }
}

/// Hands over a record that is complete, if somebody looks for it.
#[inline(always)]
fn finish(recorder: &mut Recorder) {
    if !is_wanted(&recorder.record) {
        return;
    }
    // SAFETY: takes nothing and cannot fail.
    let now = unsafe { bpf_ktime_get_ns() };
    if recorder.window != now >> WINDOW {
        recorder.window = now >> WINDOW;
        recorder.written = 0;
    }
    recorder.record.time = now;
    if recorder.written >= BURST || !maps::hand_over(&recorder.record) {
        recorder.lost += 1;
        return;
    }
    recorder.written += 1;
}

#[inline(always)]
fn is_wanted(record: &TraceRecord) -> bool {
    let mut record: *const TraceRecord = record;
    for number in 0..FILTERS {
        // Nothing of the record is kept on the stack from one filter to the next, as the compiler would: there is no
        // room.
        // SAFETY: changes nothing.
        unsafe { asm!("{0} = {0}", inout(reg) record, options(nostack)) };
        // SAFETY: the same reference.
        if maps::trace_filter(number).is_some_and(|filter| filter.matches(unsafe { &*record })) {
            return true;
        }
    }
    false
}

#[inline(always)]
fn widen<A: Wide>(wide: &mut Tuple<Ip6>, tuple: &Tuple<A>) {
    wide.src = tuple.src.wide();
    wide.dst = tuple.dst.wide();
    wide.sport = tuple.sport;
    wide.dport = tuple.dport;
}

/// Copies part of the packet, be it in its linear part or not. False if the packet is shorter.
#[inline(always)]
fn load<T>(skb: Skb, offset: usize, to: &mut T) -> bool {
    // SAFETY: a valid context, and room for as many bytes as are said; the helper checks the offset.
    unsafe {
        bpf_skb_load_bytes(
            skb.as_ptr().cast(),
            offset as u32,
            core::ptr::from_mut(to).cast(),
            size_of::<T>() as u32,
        ) == 0
    }
}

/// A family's part.
pub(crate) trait Wide: Tables + Parse {
    /// The address in the words of IPv6's.
    fn wide(&self) -> Ip6;
    /// Reads the addresses, and returns the protocol number and where the transport header is: 0 in a fragment
    /// without one. `word` is overwritten.
    fn look(skb: Skb, word: &mut u32, to: &mut Tuple<Ip6>) -> Option<(u8, usize)>;
}

impl Wide for Ip4 {
    #[inline(always)]
    fn wide(&self) -> Ip6 {
        widened(*self)
    }

    #[inline(always)]
    fn look(skb: Skb, word: &mut u32, to: &mut Tuple<Ip6>) -> Option<(u8, usize)> {
        const OFFSET: u16 = 0x1fff;
        if !load(skb, ETH_LEN + 12, word) {
            return None;
        }
        to.src = Self::from_wire(*word).wide();
        if !load(skb, ETH_LEN + 16, word) {
            return None;
        }
        to.dst = Self::from_wire(*word).wide();
        if !load(skb, ETH_LEN, word) {
            return None;
        }
        let mut l4 = ETH_LEN + (*word as u8 & 0xf) as usize * 4;
        if !load(skb, ETH_LEN + 6, word) {
            return None;
        }
        // Behind the offset come the time to live and the protocol.
        if u16::from_be(*word as u16) & OFFSET != 0 {
            l4 = 0;
        }
        Some(((*word >> 24) as u8, l4))
    }
}

impl Wide for Ip6 {
    #[inline(always)]
    fn wide(&self) -> Ip6 {
        *self
    }

    #[inline(always)]
    fn look(skb: Skb, word: &mut u32, to: &mut Tuple<Ip6>) -> Option<(u8, usize)> {
        if !load(skb, ETH_LEN + 8, &mut to.src)
            || !load(skb, ETH_LEN + 24, &mut to.dst)
            || !load(skb, ETH_LEN + 4, word)
        {
            return None;
        }
        Some(((*word >> 16) as u8, ETH_LEN + Self::HEADER))
    }
}
