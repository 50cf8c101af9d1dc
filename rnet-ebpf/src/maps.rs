//! Every map, behind functions that keep its rules.

use core::{
    intrinsics::{AtomicOrdering, atomic_xadd},
    ptr::addr_of_mut,
};

use aya_ebpf::{
    bindings::{
        BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST, bpf_fib_lookup, bpf_redir_neigh, bpf_sock,
        bpf_sock_tuple, xdp_action,
    },
    btf_maps::{
        Array, DevMapHash, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SockMap, lpm_trie::Key,
    },
    helpers::generated::{bpf_map_lookup_elem, bpf_sk_release},
    macros::btf_map,
    maps::ring_buf::RingBufEntry,
};
use rnet_common::{
    Backend, Be16, Counter, Endpoint, EndpointFlags, Family, Flow, FlowKey, FragmentHead, FragmentKey,
    HeldKey, Ip4, Ip6, Mapping, PeerKey, PortKey, Pressure, Program, Settings, SockAddr, SourceKey,
    SourceNet, Tuple, Uplink, Veth,
    counter::{COUNTERS, REASONS},
    limits,
    local::{self, relay_index},
    source,
    trace::{self, Recorder, TraceFilter, TraceRecord},
};

use crate::{
    frame::LARGEST,
    packet::Packet,
    recent::{Cursor, RECENT},
    route::Hop,
};

/// Memory is taken for entries that exist, not for the table's limit.
const SPARSE: usize = BPF_F_NO_PREALLOC as usize;

type Flows<A> = HashMap<FlowKey<A>, Flow<A>, { limits::FLOWS }, SPARSE>;
type Ports<A> = HashMap<PortKey<A>, Backend<A>, { limits::PORTS }, SPARSE>;
type Sources<A> = LpmTrie<SourceKey<A>, u32, { limits::SOURCES }>;
type Endpoints<A> = HashMap<A, Endpoint<A>, { limits::ENDPOINTS }, SPARSE>;
type Locals<A> = HashMap<A, u32, { limits::LOCALS }, SPARSE>;
type Peers<A> = LruHashMap<PeerKey<A>, SockAddr<A>, { limits::PEERS }>;
type Diverted<A> = LruHashMap<SockAddr<A>, SockAddr<A>, { limits::DIVERTED }>;
type Fragments<A> = LruHashMap<FragmentKey<A>, FragmentHead, { limits::FRAGMENTS }>;

/// Next hops that each CPU keeps: few enough to stay in its cache. A power of two.
const HOPS: usize = 64;

/// What a program works on: too large for the stack, where it has 512 bytes.
///
/// It also spares the verifier work, which knows nothing of what a map holds: what was found out about a packet on one
/// way through the parser is not told apart from what was found out on another, and all that follows is looked at once.
#[repr(C)]
pub(crate) struct Work<A> {
    pub(crate) packet: Packet<A>,
    pub(crate) new: NewFlow<A>,
}

/// Both halves of a flow while it is made, with their keys.
#[repr(C)]
pub(crate) struct NewFlow<A> {
    pub(crate) forward: Flow<A>,
    pub(crate) reply: Flow<A>,
    pub(crate) key: FlowKey<A>,
    pub(crate) twin_key: FlowKey<A>,
    /// Of an entry that is in the way.
    pub(crate) old_key: FlowKey<A>,
    /// And of its twin.
    pub(crate) old_twin_key: FlowKey<A>,
    /// The mapping of the endpoint whose container opens it; 0 when somebody outside does.
    pub(crate) opener: u32,
    /// The source becomes an address of the host.
    pub(crate) as_host: bool,
}

/// What the kernel's helpers are asked with, kept off the stack likewise.
#[repr(C)]
pub(crate) struct Question {
    pub(crate) route: bpf_fib_lookup,
    pub(crate) hop: bpf_redir_neigh,
    pub(crate) socket: bpf_sock_tuple,
}

/// See [`SCRATCH`].
type Scratch = [u32; LARGEST / 4 + 1];

#[btf_map]
static FLOWS4: Flows<Ip4> = HashMap::new();
#[btf_map]
static FLOWS6: Flows<Ip6> = HashMap::new();
#[btf_map]
static PORTS4: Ports<Ip4> = HashMap::new();
#[btf_map]
static PORTS6: Ports<Ip6> = HashMap::new();
/// Who may use ports that are not open to everyone; the value is not used.
#[btf_map]
static SOURCES4: Sources<Ip4> = LpmTrie::new();
#[btf_map]
static SOURCES6: Sources<Ip6> = LpmTrie::new();
#[btf_map]
static ENDPOINTS4: Endpoints<Ip4> = HashMap::new();
#[btf_map]
static ENDPOINTS6: Endpoints<Ip6> = HashMap::new();
/// The host's own addresses, each [`local::PLAIN`] or a [`local::NAME_SERVER`].
#[btf_map]
static LOCALS4: Locals<Ip4> = HashMap::new();
#[btf_map]
static LOCALS6: Locals<Ip6> = HashMap::new();
#[btf_map]
static FRAGMENTS4: Fragments<Ip4> = LruHashMap::new();
#[btf_map]
static FRAGMENTS6: Fragments<Ip6> = LruHashMap::new();
#[btf_map]
static WORK4: PerCpuArray<Work<Ip4>, 1> = PerCpuArray::new();
#[btf_map]
static WORK6: PerCpuArray<Work<Ip6>, 1> = PerCpuArray::new();
/// Next hops, by a hash of the tuple: another flow's is overwritten.
#[btf_map]
static HOPS4: PerCpuArray<Hop<Ip4>, HOPS> = PerCpuArray::new();
#[btf_map]
static HOPS6: PerCpuArray<Hop<Ip6>, HOPS> = PerCpuArray::new();
/// The keys of flows that were opened last, which [`crate::recent`] goes round in.
#[btf_map]
static RECENT4: Array<FlowKey<Ip4>, { RECENT as usize }> = Array::new();
#[btf_map]
static RECENT6: Array<FlowKey<Ip6>, { RECENT as usize }> = Array::new();
#[btf_map]
static CURSORS: Array<Cursor, 2> = Array::new();
#[btf_map]
static QUESTION: PerCpuArray<Question, 1> = PerCpuArray::new();
#[btf_map]
static PUT_BACKS: PerCpuArray<PutBacks, 1> = PerCpuArray::new();
/// Containers' interfaces by their host side's index.
#[btf_map]
static VETHS: HashMap<u32, Veth, { limits::ENDPOINTS }, SPARSE> = HashMap::new();
/// Interfaces that carry `from_uplink`.
#[btf_map]
static UPLINKS: HashMap<u32, Uplink, { limits::LOCALS }, SPARSE> = HashMap::new();
/// Host sides of veths whose other end takes frames without a packet buffer, by their index. The kernel takes out
/// those that are gone.
#[btf_map]
static FRAME_VETHS: DevMapHash<{ limits::ENDPOINTS }> = DevMapHash::new();
/// Where `xdp_uplink` sums up a packet: as long as the largest, and a word of zeros.
#[btf_map]
static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();
/// How many addresses each port is published on.
#[btf_map]
static HELD: HashMap<HeldKey, u32, { limits::PORTS }, SPARSE> = HashMap::new();
/// The controller has it mapped into its memory, so that both sides can add to its numbers atomically.
#[btf_map]
static MAPPINGS: Array<Mapping, { limits::MAPPINGS }, { BPF_F_MMAPABLE as usize }> = Array::new();
/// What the host's own sockets addressed, by where they were led.
#[btf_map]
static PEERS4: Peers<Ip4> = LruHashMap::new();
#[btf_map]
static PEERS6: Peers<Ip6> = LruHashMap::new();
/// Where connections are to go that the host's own sockets make to the daemon's relay, by where they come from.
#[btf_map]
static DIVERTED4: Diverted<Ip4> = LruHashMap::new();
#[btf_map]
static DIVERTED6: Diverted<Ip6> = LruHashMap::new();
/// The relay's listening sockets, one of each family. The kernel takes them out when they are closed, so that
/// without the daemon nobody is sent to what another may listen on.
#[btf_map]
static RELAYS: SockMap<2> = SockMap::new();
#[btf_map]
static SETTINGS: Array<Settings, 1> = Array::new();
/// Written by the collector; programs take from what room there is.
#[btf_map]
static PRESSURE: Array<Pressure, 1> = Array::new();
/// When a source outside has made up for the flows that it has opened ([`rnet_common::pressure::admits`]).
#[btf_map]
static SOURCE_RATES: LruHashMap<SourceNet, u64, { limits::SOURCE_RATES }> = LruHashMap::new();
#[btf_map]
static COUNTS: PerCpuArray<Counter, COUNTERS> = PerCpuArray::new();
/// What is recorded, while somebody looks.
#[btf_map]
static TRACE_FILTERS: Array<TraceFilter, { trace::FILTERS as usize }> = Array::new();
#[btf_map]
static TRACE_RECORDERS: PerCpuArray<Recorder, 1> = PerCpuArray::new();
#[btf_map]
static TRACE_RECORDS: RingBuf<TraceRecord, { trace::BUFFER }> = RingBuf::new();

/// A family's tables.
pub(crate) trait Tables: Family + Into<SourceNet> {
    fn flows() -> &'static Flows<Self>;
    fn ports() -> &'static Ports<Self>;
    fn sources() -> &'static Sources<Self>;
    fn endpoints() -> &'static Endpoints<Self>;
    fn locals() -> &'static Locals<Self>;
    fn fragments() -> &'static Fragments<Self>;
    fn works() -> &'static PerCpuArray<Work<Self>, 1>;
    fn hops() -> &'static PerCpuArray<Hop<Self>, HOPS>;
    fn recent() -> &'static Array<FlowKey<Self>, { RECENT as usize }>;
    fn peers() -> &'static Peers<Self>;
    fn diverted() -> &'static Diverted<Self>;
}

macro_rules! tables {
    ($family:ty, $flows:ident, $ports:ident, $sources:ident, $endpoints:ident, $locals:ident, $fragments:ident, $work:ident, $hops:ident, $recent:ident,
     $peers:ident, $diverted:ident) => {
        impl Tables for $family {
            #[inline(always)]
            fn flows() -> &'static Flows<Self> {
                &$flows
            }

            #[inline(always)]
            fn ports() -> &'static Ports<Self> {
                &$ports
            }

            #[inline(always)]
            fn sources() -> &'static Sources<Self> {
                &$sources
            }

            #[inline(always)]
            fn endpoints() -> &'static Endpoints<Self> {
                &$endpoints
            }

            #[inline(always)]
            fn locals() -> &'static Locals<Self> {
                &$locals
            }

            #[inline(always)]
            fn fragments() -> &'static Fragments<Self> {
                &$fragments
            }

            #[inline(always)]
            fn works() -> &'static PerCpuArray<Work<Self>, 1> {
                &$work
            }

            #[inline(always)]
            fn hops() -> &'static PerCpuArray<Hop<Self>, HOPS> {
                &$hops
            }

            #[inline(always)]
            fn recent() -> &'static Array<FlowKey<Self>, { RECENT as usize }> {
                &$recent
            }

            #[inline(always)]
            fn peers() -> &'static Peers<Self> {
                &$peers
            }

            #[inline(always)]
            fn diverted() -> &'static Diverted<Self> {
                &$diverted
            }
        }
    };
}

tables!(
    Ip4, FLOWS4, PORTS4, SOURCES4, ENDPOINTS4, LOCALS4, FRAGMENTS4, WORK4, HOPS4, RECENT4, PEERS4, DIVERTED4
);
tables!(
    Ip6, FLOWS6, PORTS6, SOURCES6, ENDPOINTS6, LOCALS6, FRAGMENTS6, WORK6, HOPS6, RECENT6, PEERS6, DIVERTED6
);

/// What came of inserting an entry that must be new.
pub(crate) enum Inserted {
    Yes,
    /// There is one already.
    Exists,
    /// The table is full, or there is no memory.
    Full,
}

/// A flow entry, in the table. It stays readable for the program's run even if it is removed meanwhile: the kernel gets
/// its memory back only after a grace period. The table itself may have another entry in it at once (Linux 6.1,
/// `bpf_mem_cache_free`), so that a packet that passes while another CPU removes its flow may be taken for another's.
#[inline(always)]
pub(crate) fn flow<A: Tables>(key: &FlowKey<A>) -> Option<*mut Flow<A>> {
    A::flows().get_ptr_mut(key)
}

/// Inserts a flow entry unless there is one with its key.
#[inline(always)]
pub(crate) fn insert_flow<A: Tables>(key: &FlowKey<A>, flow: &Flow<A>) -> Inserted {
    const EEXIST: i32 = -17;
    match A::flows().insert(key, flow, BPF_NOEXIST as u64) {
        Ok(()) => Inserted::Yes,
        Err(EEXIST) => Inserted::Exists,
        Err(_) => Inserted::Full,
    }
}

/// Removes a flow entry.
#[inline(always)]
pub(crate) fn remove_flow<A: Tables>(key: &FlowKey<A>) {
    // There may be none: a twin that another CPU has removed.
    let _ = A::flows().remove(key);
}

/// The endpoint with this address.
#[inline(always)]
pub(crate) fn endpoint<A: Tables>(addr: &A) -> Option<&'static Endpoint<A>> {
    // SAFETY: as for `flow`: memory of an entry, of which any bytes are one. The controller replaces an entry whole.
    unsafe { A::endpoints().get(addr) }
}

/// The container's interface at the other end of the veth.
#[inline(always)]
pub(crate) fn veth(ifindex: u32) -> Option<&'static Veth> {
    // SAFETY: as for `endpoint`.
    unsafe { VETHS.get(ifindex) }
}

/// What this CPU's program works on.
#[inline(always)]
pub(crate) fn work<A: Tables>() -> Option<&'static mut Work<A>> {
    // SAFETY: this CPU's slot. TC programs run with bottom halves off and do not interrupt one another, and each
    // takes the slot once.
    A::works().get_ptr_mut(0).map(|work| unsafe { &mut *work })
}

/// Where this CPU keeps the next hop of packets with this tuple, or of others.
#[inline(always)]
pub(crate) fn hop<A: Tables>(to: &Tuple<A>) -> Option<&'static mut Hop<A>> {
    // Fibonacci hashing: the upper half of the product depends on all bits.
    let hash = (to.src.sum() + to.dst.sum() + to.ports() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    // SAFETY: this CPU's slot. TC programs run with bottom halves off and do not interrupt one another, and none
    // takes two at once.
    A::hops().get_ptr_mut(hash as u32 % HOPS as u32).map(|hop| unsafe { &mut *hop })
}

/// A slot of the ring of flows that were opened last, by any number.
#[inline(always)]
pub(crate) fn recent<A: Tables>(number: u32) -> Option<*mut FlowKey<A>> {
    A::recent().get_ptr_mut(number % RECENT)
}

/// Where in the family's ring one is.
#[inline(always)]
pub(crate) fn cursor<A: Tables>() -> Option<*mut Cursor> {
    CURSORS.get_ptr_mut(A::V6 as u32)
}

/// Where questions to the kernel are put together: zeroed by whoever asks.
#[inline(always)]
pub(crate) fn question() -> Option<*mut Question> {
    QUESTION.get_ptr_mut(0)
}

/// How many fragments this CPU has put back within a tick of the clock.
#[derive(Clone, Copy)]
#[repr(C)]
struct PutBacks {
    tick: u64,
    count: u64,
}

/// Whether this CPU may put a fragment back at time `now`, having put back fewer than `most` within its tick.
#[inline(always)]
pub(crate) fn may_put_back(now: u64, most: u64) -> bool {
    let Some(put_backs) = PUT_BACKS.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's slot of a map, which nobody else uses while the program runs.
    let put_backs = unsafe { &mut *put_backs };
    if put_backs.tick != now {
        *put_backs = PutBacks { tick: now, count: 0 };
    }
    put_backs.count += 1;
    put_backs.count <= most
}

/// What is known of a fragmented packet from its first fragment.
#[inline(always)]
pub(crate) fn fragment_head<A: Tables>(key: &FragmentKey<A>) -> Option<FragmentHead> {
    // SAFETY: copied at once; an entry that is reused meanwhile is of a packet this old that it no longer matters.
    unsafe { A::fragments().get(key) }.copied()
}

/// Notes a packet's first fragment.
#[inline(always)]
pub(crate) fn note_fragment_head<A: Tables>(key: &FragmentKey<A>, head: &FragmentHead) {
    // Without the note the other fragments are dropped, as if this one had been lost.
    let _ = A::fragments().insert(key, head, 0);
}

/// Whether the address is one of the host's own.
#[inline(always)]
pub(crate) fn is_local<A: Tables>(addr: &A) -> bool {
    A::locals().get_ptr(addr).is_some()
}

/// Where a port leads that is published on this address of the host, or on all of them.
#[inline(always)]
pub(crate) fn published<A: Tables>(addr: &A, port: Be16, proto: u8) -> Option<&'static Backend<A>> {
    published_on(addr, port, proto).or_else(|| match is_for_names(addr, port) {
        true => None,
        false => published_on(&A::any(), port, proto),
    })
}

/// Whether it is where containers ask for names.
#[inline(always)]
pub(crate) fn is_for_names<A: Tables>(addr: &A, port: Be16) -> bool {
    // SAFETY: read at once; the controller replaces an entry whole.
    port == Be16::new(local::NAMES) && unsafe { A::locals().get(addr) } == Some(&local::NAME_SERVER)
}

/// Where a port leads that is published on this very address: one of the host, or on a routed network the
/// container's own.
#[inline(always)]
pub(crate) fn published_on<A: Tables>(addr: &A, port: Be16, proto: u8) -> Option<&'static Backend<A>> {
    // SAFETY: as for `endpoint`.
    unsafe { A::ports().get(PortKey::new(*addr, port, proto)) }
}

/// Whether a published port is open to this source.
#[inline(always)]
pub(crate) fn is_open_to<A: Tables>(backend: &Backend<A>, source: &A) -> bool {
    backend.sources == 0 || is_in_list(backend.sources, source)
}

/// Whether what an endpoint sends to this destination keeps its address, although the network masquerades.
#[inline(always)]
pub(crate) fn is_exempt<A: Tables>(source: &Endpoint<A>, destination: &A) -> bool {
    source.is(EndpointFlags::EXEMPTS) && is_in_list(source::exempt(source.network), destination)
}

#[inline(always)]
fn is_in_list<A: Tables>(list: u32, addr: &A) -> bool {
    A::sources().get(&Key::new(SourceKey::<A>::BITS, SourceKey::new(list, *addr))).is_some()
}

/// Whether the port is published on any address of the family.
#[inline(always)]
pub(crate) fn is_held(port: Be16, proto: u8, v6: bool) -> bool {
    HELD.get_ptr(HeldKey { port, proto, v6: v6 as u8 }).is_some()
}

/// Whether the interface is an uplink: replies that arrive there are translated.
#[inline(always)]
pub(crate) fn is_uplink(ifindex: u32) -> bool {
    uplink(ifindex).is_some()
}

/// The uplink with this index.
#[inline(always)]
pub(crate) fn uplink(ifindex: u32) -> Option<&'static Uplink> {
    // SAFETY: as for `endpoint`.
    unsafe { UPLINKS.get(ifindex) }
}

/// The XDP action that sends a frame to the other end of a veth, if that takes it.
#[inline(always)]
pub(crate) fn enter(ifindex: u32) -> Option<u32> {
    FRAME_VETHS.redirect(ifindex, xdp_action::XDP_PASS.into()).ok()
}

/// Where this CPU's program sums up a packet.
#[inline(always)]
pub(crate) fn scratch() -> Option<*mut u32> {
    SCRATCH.get_ptr_mut(0).map(<*mut Scratch>::cast)
}

/// Whether the mapping is still of this generation.
#[inline(always)]
pub(crate) fn is_current(mapping: u32, generation: u32) -> bool {
    MAPPINGS.get(mapping).is_some_and(|m| m.generation == generation)
}

/// Notes that a mapping made a flow.
#[inline(always)]
pub(crate) fn note_opened(mapping: u32) {
    if let Some(mapping) = MAPPINGS.get_ptr_mut(mapping) {
        // SAFETY: a pointer into an array map, whose slots live as long as the map.
        add(unsafe { addr_of_mut!((*mapping).flows) }, 1);
    }
}

/// How many flows the container of an endpoint with this mapping may open still.
#[inline(always)]
pub(crate) fn room(mapping: u32) -> i32 {
    MAPPINGS.get(mapping).map_or(0, |mapping| mapping.room)
}

/// Notes that the container of an endpoint with this mapping opened a flow.
#[inline(always)]
pub(crate) fn take_room(mapping: u32) {
    if let Some(mapping) = MAPPINGS.get_ptr_mut(mapping) {
        // SAFETY: a pointer into an array map, whose slots live as long as the map.
        take_one(unsafe { addr_of_mut!((*mapping).room) });
    }
}

/// Takes a flow from the room of the family's table.
#[inline(always)]
pub(crate) fn take_table_room<A: Tables>() {
    if let Some(pressure) = pressure() {
        // SAFETY: as in `take_room`.
        take_one(unsafe { addr_of_mut!((*pressure).room[A::V6 as usize]) });
    }
}

/// Keeps the counts of a flow entry that is removed.
#[inline(always)]
pub(crate) fn note_ended<A: Family>(flow: &Flow<A>) {
    if !is_current(flow.mapping, flow.generation) {
        return;
    }
    if let Some(mapping) = MAPPINGS.get_ptr_mut(flow.mapping) {
        // SAFETY: as in `note_opened`.
        add(unsafe { addr_of_mut!((*mapping).ended_packets) }, flow.packets);
        // SAFETY: as in `note_opened`.
        add(unsafe { addr_of_mut!((*mapping).ended_bytes) }, flow.bytes);
    }
}

/// What a socket addressed that was led to the key's peer.
#[inline(always)]
pub(crate) fn addressed<A: Tables>(key: &PeerKey<A>) -> Option<&'static SockAddr<A>> {
    // SAFETY: read at once. An entry is reused for another socket only when as many others have been used since as
    // the table holds, which does not happen meanwhile.
    unsafe { A::peers().get(key) }
}

/// Notes what a socket addressed.
#[inline(always)]
pub(crate) fn note_addressed<A: Tables>(key: &PeerKey<A>, addressed: &SockAddr<A>) {
    // Without it the socket is told the container's address.
    let _ = A::peers().insert(key, addressed, 0);
}

/// Where the daemon's relay for the family listens, on its loopback address, if it does.
#[inline(always)]
pub(crate) fn relay_port(v6: bool) -> Option<Be16> {
    let index = relay_index(v6);
    // SAFETY: a map and a key of its type.
    let socket =
        unsafe { bpf_map_lookup_elem((&raw const RELAYS).cast_mut().cast(), (&raw const index).cast()) };
    if socket.is_null() {
        return None;
    }
    // SAFETY: such a map has sockets, which stay until they are released. The field is in host byte order.
    let port = unsafe { (&raw const (*socket.cast::<bpf_sock>()).src_port).read_volatile() };
    // SAFETY: releases what the look-up took.
    unsafe { bpf_sk_release(socket) };
    Some(Be16::new(port as u16))
}

/// Tells the relay where a connection is to go. Fails when there is no memory.
#[inline(always)]
pub(crate) fn divert<A: Tables>(from: &SockAddr<A>, to: &SockAddr<A>) -> Option<()> {
    A::diverted().insert(from, to, 0).ok()
}

/// The settings.
#[inline(always)]
pub(crate) fn settings() -> Option<&'static Settings> {
    SETTINGS.get(0)
}

/// What the collector has found.
#[inline(always)]
pub(crate) fn pressure() -> Option<*mut Pressure> {
    PRESSURE.get_ptr_mut(0)
}

/// When a source has made up for the flows that it has opened, if it is known.
#[inline(always)]
pub(crate) fn due(source: &SourceNet) -> Option<*mut u64> {
    SOURCE_RATES.get_ptr_mut(source)
}

/// The same for one that is not known yet.
#[inline(always)]
pub(crate) fn note_due(source: &SourceNet, due: u64) {
    // Without the note it is let pass once more.
    let _ = SOURCE_RATES.insert(source, due, 0);
}

/// Counts a packet of `bytes` under a program's reason.
#[inline(always)]
pub(crate) fn count(program: Program, reason: u8, bytes: u32) {
    let index = program as u32 * REASONS + reason as u32 % REASONS;
    if let Some(counter) = COUNTS.get_ptr_mut(index) {
        // SAFETY: this CPU's slot, which no other CPU writes; TC and XDP programs run with bottom halves off, so
        // that they do not interrupt one another.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes as u64;
        }
    }
}

/// Where this CPU puts together a record.
#[inline(always)]
pub(crate) fn recorder() -> Option<&'static mut Recorder> {
    // SAFETY: this CPU's slot, as for `work`; each program takes it once, at its end.
    TRACE_RECORDERS.get_ptr_mut(0).map(|recorder| unsafe { &mut *recorder })
}

/// A filter of those who look.
#[inline(always)]
pub(crate) fn trace_filter(number: u32) -> Option<&'static TraceFilter> {
    TRACE_FILTERS.get(number)
}

/// Hands over a record. False when there is no room.
#[inline(always)]
pub(crate) fn hand_over(record: &TraceRecord) -> bool {
    TRACE_RECORDS.output(record, 0).is_ok()
}

/// The same as [`add`] for a room, of which there is one less.
#[inline(always)]
fn take_one(room: *mut i32) {
    // SAFETY: as for `add`.
    unsafe { atomic_xadd::<i32, i32, { AtomicOrdering::Relaxed }>(room, -1) };
}

/// Room for a record that is made where it is handed over.
#[inline(always)]
pub(crate) fn reserve_record() -> Option<RingBufEntry<TraceRecord>> {
    TRACE_RECORDS.reserve(0)
}

/// Counts a record that there was no room for.
#[inline(always)]
pub(crate) fn note_lost() {
    if let Some(recorder) = TRACE_RECORDERS.get_ptr_mut(0) {
        // SAFETY: this CPU's slot; a packet's program may be in the middle of it, so the field is added to as a whole.
        add(unsafe { &raw mut (*recorder).lost }, 1);
    }
}

/// Adds to a number in a map that other CPUs may add to. The target has no compare-and-swap below its third
/// instruction set, so the standard library's atomics offer it no addition; the instruction is there.
#[inline(always)]
fn add(number: *mut u64, by: u64) {
    // SAFETY: callers pass a field of a map value: aligned, and alive while the program runs.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(number, by) };
}
