//! Table sizes, unless the configuration says otherwise.

/// Flow entries, two for each flow.
pub const FLOWS: usize = 262_144;
/// Published ports, one for each (address, port, protocol).
pub const PORTS: usize = 131_072;
/// Prefixes of all lists of sources together, of each address family.
pub const SOURCES: usize = 65_536;
/// Endpoints.
pub const ENDPOINTS: usize = 16_384;
/// Published ports and endpoints together.
pub const MAPPINGS: usize = 2 * (PORTS + ENDPOINTS);
/// Addresses of the host.
pub const LOCALS: usize = 4_096;
/// Source ports that are tried for one new flow before it is refused.
pub const PORT_PROBES: u32 = 32;
/// Fragmented packets under way.
pub const FRAGMENTS: usize = 16_384;
/// Sources outside whose rate of new flows is known; the one that opened none for longest is forgotten first.
pub const SOURCE_RATES: usize = 16_384;
/// Peers of the host's own sockets that were led to a container; the one not asked for longest is forgotten first.
pub const PEERS: usize = 65_536;
/// Connections on their way to the daemon's relay, which takes each out as it accepts it.
pub const DIVERTED: usize = 4_096;
