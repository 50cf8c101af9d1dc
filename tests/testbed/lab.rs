//! The programs on maps of their own, in a network namespace of their own, run one packet at a time.
//!
//! `BPF_PROG_TEST_RUN` needs interfaces and routes that are really there: the programs look up routes. Where a packet
//! is sent to can't be seen, only that it is redirected; that is for the tests between namespaces.
#![expect(clippy::unwrap_used, reason = "a lab that cannot be made fails its test")]

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use crate::{bpf, netns::Netns, packet::Ethernet};
use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, lpm_trie},
    programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};
use nix::sched::{CloneFlags, setns};
use rnet_common::{
    Backend, Be16, Counter, Endpoint, EndpointFlags, Family, Flow, FlowKey, Ip4, Ip6, Mac, Mapping, PortKey,
    Pressure, Program, Reason, Settings, Side, SourceKey, Tuple, Uplink, Veth, counter::counter_index,
    limits::FLOWS,
};

/// TC actions (linux/pkt_cls.h).
pub const UNSPEC: i32 = -1;
/// Dropped.
pub const SHOT: i32 = 2;
/// Sent to another interface.
pub const REDIRECT: i32 = 7;

/// The host's first address.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The host's second address.
pub const HOST_SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
/// A client outside, the next hop of the default route.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
/// The address of the bridge of the first network.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);
/// On the first network.
pub const WEB: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);
/// On the first network, too.
pub const APP: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 3);
/// On a network of its own.
pub const OTHER: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
/// The address of the other network's bridge.
pub const OTHER_GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 1);

/// The host's address.
pub const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// A client outside.
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
/// The address of the bridge of the first network.
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1);

/// The client's Ethernet address.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 0];

/// A container of the lab.
#[derive(Clone, Copy)]
pub struct Container {
    /// Its address.
    pub addr: Ipv4Addr,
    /// Its network's gateway.
    pub gateway: Ipv4Addr,
    /// The Ethernet address of its interface.
    pub mac: [u8; 6],
    /// That of the bridge.
    pub gateway_mac: [u8; 6],
    /// The host's end of its veth.
    pub ifindex: u32,
    /// The bridge.
    pub bridge: u32,
    /// Its network's number.
    pub network: u32,
    /// Its mapping, of the same generation.
    pub mapping: u32,
}

/// The programs with their namespace.
pub struct Lab {
    /// Programs and maps.
    pub ebpf: Ebpf,
    /// Packets are run in the namespace of the thread that asks: this one's, until the lab is gone.
    outside: File,
    /// Where they run.
    pub ns: Netns,
    /// The interface that leads outside.
    pub uplink: u32,
    /// Its Ethernet address.
    pub uplink_mac: [u8; 6],
    /// At [`WEB`].
    pub web: Container,
    /// At [`APP`].
    pub app: Container,
    /// At [`OTHER`].
    pub other: Container,
}

/// What became of a packet.
#[derive(Debug)]
pub struct Outcome {
    /// The TC action.
    pub action: i32,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
}

/// Which program.
#[derive(Clone, Copy)]
pub enum From {
    /// `from_uplink`, on the uplink.
    Uplink,
    /// `from_container`, on the veth with this index.
    Container(u32),
    /// The host's stack, out of the uplink: what it took in from an interface, or with 0 what it made itself.
    Stack(u32),
    /// The ports of the bridge with this index, to the host's stack.
    Bridge(u32),
    /// The host's stack, to the ports of the bridge with the second index: what it took in from an interface, or with 0
    /// what it made itself.
    ToBridge(u32, u32),
}

impl From {
    /// The program itself.
    pub fn program(self) -> Program {
        match self {
            Self::Uplink => Program::FromUplink,
            Self::Container(_) => Program::FromContainer,
            Self::Stack(_) => Program::ToUplink,
            Self::Bridge(_) => Program::FromBridge,
            Self::ToBridge(..) => Program::ToBridge,
        }
    }
}

impl Lab {
    /// Two networks: `web` and `app` on one, `other` on another. Nothing is published.
    pub fn new() -> Self {
        Self::with_flows(FLOWS as u32)
    }

    /// The same with so many entries in the tables of flows.
    pub fn with_flows(entries: u32) -> Self {
        let ns = Netns::new("lab");
        ns.ip("link add up0 type veth peer up1
               link add c1 type veth peer c1p
               link add c2 type veth peer c2p
               link add c3 type veth peer c3p
               link add br0 type bridge
               link add br1 type bridge
               addr add 192.0.2.1/24 dev up0
               addr add 192.0.2.9/24 dev up0
               addr add 172.17.0.1/16 dev br0
               addr add 172.18.0.1/16 dev br1
               addr add 2001:db8::1/64 dev up0 nodad
               addr add fd00:1::1/64 dev br0 nodad
               link set up0 up
               link set up1 up
               link set c1 up
               link set c2 up
               link set c3 up
               link set br0 up
               link set br1 up
               route add default via 192.0.2.100
               -6 route add default via 2001:db8::100");
        for bridge in ["br0", "br1"] {
            ns.set_sysctl(&format!("net/ipv4/conf/{bridge}/forwarding"), "1");
            ns.set_sysctl(&format!("net/ipv6/conf/{bridge}/forwarding"), "1");
        }
        let index = |name: &str| ns.run(|| nix::net::if_::if_nametoindex(name).unwrap());
        let container = |number: u8, addr, gateway, bridge: &str, network| Container {
            addr,
            gateway,
            mac: [2, 0, 0, 0, 0, number],
            gateway_mac: ns.mac(bridge),
            ifindex: index(&format!("c{number}")),
            bridge: index(bridge),
            network,
            mapping: number.into(),
        };
        let mut lab = Self {
            ebpf: bpf::loader()
                .map_max_entries("FLOWS4", entries)
                .map_max_entries("FLOWS6", entries)
                .load(&bpf::object())
                .unwrap(),
            uplink: index("up0"),
            uplink_mac: ns.mac("up0"),
            web: container(1, WEB, GATEWAY, "br0", 1),
            app: container(2, APP, GATEWAY, "br0", 1),
            other: container(3, OTHER, OTHER_GATEWAY, "br1", 2),
            outside: File::open("/proc/thread-self/ns/net").unwrap(),
            ns,
        };
        setns(File::open(lab.ns.path()).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        for name in ["from_container", "from_uplink", "to_uplink", "from_bridge", "to_bridge"] {
            bpf::verify(name, || lab.program(name).load());
        }
        let xdp: &mut Xdp = lab.ebpf.program_mut("xdp_uplink").unwrap().try_into().unwrap();
        bpf::verify("xdp_uplink", || xdp.load());
        lab.set_snat_ports(1024, 32767);
        let uplink = lab.uplink;
        let value = Uplink { mac: Mac(lab.uplink_mac), flags: 0 };
        lab.table("UPLINKS").insert(uplink, value, 0).unwrap();
        for addr in [HOST, HOST_SECOND, GATEWAY, OTHER_GATEWAY, Ipv4Addr::LOCALHOST] {
            lab.table::<Ip4, u32>("LOCALS4").insert(Ip4::from(addr), 0, 0).unwrap();
        }
        for addr in [HOST6, GATEWAY6] {
            lab.table::<Ip6, u32>("LOCALS6").insert(Ip6::from(addr), 0, 0).unwrap();
        }
        for container in [lab.web, lab.app, lab.other] {
            lab.set_endpoint(&container, EndpointFlags::ICC | EndpointFlags::MASQUERADE);
        }
        lab
    }

    /// Says which source ports masqueraded flows get.
    pub fn set_snat_ports(&mut self, min: u16, max: u16) {
        let map = self.ebpf.map_mut("SETTINGS").unwrap();
        Array::try_from(map).unwrap().set(0, Settings::new(0, min..=max), 0).unwrap();
    }

    /// Makes a container known, or changes its flags.
    pub fn set_endpoint(&mut self, container: &Container, flags: u32) {
        self.set_mapping(container.mapping, container.mapping);
        let endpoint = Endpoint::<Ip4> {
            gateway: container.gateway.into(),
            ifindex: container.ifindex,
            bridge: container.bridge,
            network: container.network,
            flags,
            mapping: container.mapping,
            generation: container.mapping,
            mtu: 1500,
            mac: Mac(container.mac),
            gateway_mac: Mac(container.gateway_mac),
        };
        self.table("ENDPOINTS4").insert(Ip4::from(container.addr), endpoint, 0).unwrap();
        let veth =
            Veth::new(Mac(container.mac), if container.network == 1 { EndpointFlags::IPV6 } else { 0 });
        self.table("VETHS").insert(container.ifindex, veth, 0).unwrap();
        if container.network == 1 {
            let endpoint = Endpoint::<Ip6> {
                gateway: GATEWAY6.into(),
                ifindex: container.ifindex,
                bridge: container.bridge,
                network: container.network,
                flags,
                mapping: container.mapping,
                generation: container.mapping,
                mtu: 1500,
                mac: Mac(container.mac),
                gateway_mac: Mac(container.gateway_mac),
            };
            self.table("ENDPOINTS6").insert(Ip6::from(container.addr6()), endpoint, 0).unwrap();
        }
    }

    /// Gives a mapping a generation.
    pub fn set_mapping(&mut self, slot: u32, generation: u32) {
        let map = self.ebpf.map_mut("MAPPINGS").unwrap();
        Array::try_from(map).unwrap().set(slot, Mapping::new(generation), 0).unwrap();
    }

    /// Says how many flows a container may open still.
    pub fn set_room(&mut self, container: &Container, room: i32) {
        let mapping = Mapping { room, ..self.mapping(container.mapping) };
        let map = self.ebpf.map_mut("MAPPINGS").unwrap();
        Array::try_from(map).unwrap().set(container.mapping, mapping, 0).unwrap();
    }

    /// Tells the programs what a collector would.
    pub fn set_pressure(&mut self, pressure: Pressure) {
        let map = self.ebpf.map_mut("PRESSURE").unwrap();
        Array::try_from(map).unwrap().set(0, pressure, 0).unwrap();
    }

    /// What the programs have left of it.
    pub fn pressure(&self) -> Pressure {
        Array::<_, Pressure>::try_from(self.ebpf.map("PRESSURE").unwrap()).unwrap().get(&0, 0).unwrap()
    }

    /// Publishes a port on an address of the host, under the next generation of mapping 10 plus the protocol's number,
    /// which is returned.
    pub fn publish(&mut self, addr: Ipv4Addr, port: u16, proto: u8, to: Ipv4Addr, to_port: u16) -> u32 {
        let mapping = 10 + u32::from(proto);
        let generation = self.mapping(mapping).generation + 1;
        self.set_mapping(mapping, generation);
        let key = PortKey::new(Ip4::from(addr), Be16::new(port), proto);
        let backend = Backend::<Ip4>::new(to.into(), Be16::new(to_port), mapping, generation, 0);
        self.table("PORTS4").insert(key, backend, 0).unwrap();
        mapping
    }

    /// Publishes an IPv6 port on every address of the host, likewise.
    pub fn publish6(&mut self, port: u16, proto: u8, to: Ipv6Addr, to_port: u16) -> u32 {
        let mapping = 100 + u32::from(proto);
        self.set_mapping(mapping, 1);
        let key = PortKey::new(Ip6::default(), Be16::new(port), proto);
        let backend = Backend::<Ip6>::new(to.into(), Be16::new(to_port), mapping, 1, 0);
        self.table("PORTS6").insert(key, backend, 0).unwrap();
        mapping
    }

    /// Opens a port published on every address of the host to one list of sources alone.
    pub fn restrict(&mut self, port: u16, proto: u8, list: u32) {
        let key = PortKey::new(Ip4::default(), Be16::new(port), proto);
        let mut ports = self.table::<_, Backend<Ip4>>("PORTS4");
        let mut backend = ports.get(&key, 0).unwrap();
        backend.sources = list;
        ports.insert(key, backend, 0).unwrap();
    }

    /// The same for IPv6.
    pub fn restrict6(&mut self, port: u16, proto: u8, list: u32) {
        let key = PortKey::new(Ip6::default(), Be16::new(port), proto);
        let mut ports = self.table::<_, Backend<Ip6>>("PORTS6");
        let mut backend = ports.get(&key, 0).unwrap();
        backend.sources = list;
        ports.insert(key, backend, 0).unwrap();
    }

    /// Adds a prefix to a list of sources.
    pub fn allow(&mut self, list: u32, addr: IpAddr, prefix: u32) {
        match addr {
            IpAddr::V4(addr) => self.add_source(list, Ip4::from(addr), prefix, "SOURCES4"),
            IpAddr::V6(addr) => self.add_source(list, Ip6::from(addr), prefix, "SOURCES6"),
        }
    }

    fn add_source<A: Family>(&mut self, list: u32, addr: A, prefix: u32, map: &str)
    where
        SourceKey<A>: Pod,
    {
        let map = self.ebpf.map_mut(map).unwrap();
        let mut trie = LpmTrie::<_, SourceKey<A>, u32>::try_from(map).unwrap();
        trie.insert(&lpm_trie::Key::new(u32::BITS + prefix, SourceKey::new(list, addr)), 0, 0).unwrap();
    }

    /// Ethernet addresses of what arrives from the client.
    pub fn client_link(&self) -> Ethernet {
        Ethernet { src: CLIENT_MAC, dst: self.uplink_mac }
    }

    /// Runs a program on a frame.
    pub fn run(&self, from: From, frame: &[u8]) -> Outcome {
        self.run_repeatedly(from, frame, 1).0
    }

    /// Runs a program `repeat` times, each time on what the time before has left of the frame. The duration is that of
    /// one run, on average and in whole nanoseconds.
    pub fn run_repeatedly(&self, from: From, frame: &[u8], repeat: u32) -> (Outcome, Duration) {
        let (name, came_in, ifindex) = match from {
            From::Uplink => ("from_uplink", self.uplink, self.uplink),
            From::Container(ifindex) => ("from_container", ifindex, ifindex),
            From::Stack(came_in) => ("to_uplink", came_in, self.uplink),
            From::Bridge(bridge) => ("from_bridge", bridge, bridge),
            From::ToBridge(came_in, bridge) => ("to_bridge", came_in, bridge),
        };
        /// `__sk_buff` in words, of which the 10th is `ingress_ifindex` and the 11th `ifindex` (linux/bpf.h).
        const WORDS: usize = 48;
        let mut context = [0u8; WORDS * 4];
        context[36..40].copy_from_slice(&came_in.to_ne_bytes());
        context[40..44].copy_from_slice(&ifindex.to_ne_bytes());
        let mut out = vec![0; frame.len() + 256];
        let program: &SchedClassifier = self.ebpf.program(name).unwrap().try_into().unwrap();
        let result = program.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::new()
        });
        let result = result.unwrap_or_else(|e| panic!("run {name}: {e:?}"));
        out.truncate(result.data_size_out as usize);
        (Outcome { action: result.return_value.cast_signed(), frame: out }, result.duration)
    }

    /// Runs a program on a frame and says under which reason it was counted, which must be one alone.
    pub fn judge(&mut self, from: From, frame: &[u8]) -> (Outcome, Reason) {
        let program = from.program();
        let before: Vec<Counter> = Reason::ALL.iter().map(|reason| self.counter(program, *reason)).collect();
        let outcome = self.run(from, frame);
        let counted: Vec<Reason> = Reason::ALL
            .iter()
            .zip(before)
            .filter(|(reason, before)| self.counter(program, **reason).packets != before.packets)
            .map(|(reason, _)| *reason)
            .collect();
        let [reason] = counted[..] else { panic!("counted under {counted:?}") };
        (outcome, reason)
    }

    /// What a program has counted under a reason.
    pub fn counter(&self, program: Program, reason: Reason) -> Counter {
        let counts = PerCpuArray::<_, Counter>::try_from(self.ebpf.map("COUNTS").unwrap()).unwrap();
        let cpus = counts.get(&counter_index(program, reason), 0).unwrap();
        cpus.iter().fold(Counter::default(), |sum, cpu| Counter {
            packets: sum.packets + cpu.packets,
            bytes: sum.bytes + cpu.bytes,
        })
    }

    /// A mapping.
    pub fn mapping(&self, slot: u32) -> Mapping {
        Array::<_, Mapping>::try_from(self.ebpf.map("MAPPINGS").unwrap()).unwrap().get(&slot, 0).unwrap()
    }

    /// The entry of packets with this tuple that arrive at `side`.
    pub fn flow(&mut self, tuple: Tuple<Ip4>, proto: u8, side: Side) -> Option<Flow<Ip4>> {
        self.table("FLOWS4").get(&FlowKey::new(tuple, proto, side), 0).ok()
    }

    /// Adds or replaces an entry.
    pub fn set_flow(&mut self, tuple: Tuple<Ip4>, proto: u8, side: Side, flow: Flow<Ip4>) {
        self.table("FLOWS4").insert(FlowKey::new(tuple, proto, side), flow, 0).unwrap();
    }

    /// All IPv4 entries.
    pub fn flows(&mut self) -> Vec<(FlowKey<Ip4>, Flow<Ip4>)> {
        self.table("FLOWS4").iter().map(Result::unwrap).collect()
    }

    /// A hash map by its name.
    pub fn table<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        self.ebpf.map_mut(name).unwrap().try_into().unwrap()
    }

    fn program(&mut self, name: &str) -> &mut SchedClassifier {
        self.ebpf.program_mut(name).unwrap().try_into().unwrap()
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The thread may run the next test.
        let _ = setns(&self.outside, CloneFlags::CLONE_NEWNET);
    }
}

impl Container {
    /// Its IPv6 address. Only the first network has IPv6.
    pub fn addr6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, u16::from(self.addr.octets()[3]))
    }

    /// What it sends.
    pub fn from(self) -> From {
        From::Container(self.ifindex)
    }

    /// What the stack sends of it out of the uplink.
    pub fn via_stack(self) -> From {
        From::Stack(self.bridge)
    }

    /// Ethernet addresses of what it sends by way of its gateway.
    pub fn to_gateway(self) -> Ethernet {
        Ethernet { src: self.mac, dst: self.gateway_mac }
    }
}

/// A tuple in the words of a map.
pub fn tuple(src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16)) -> Tuple<Ip4> {
    Tuple { src: src.0.into(), dst: dst.0.into(), sport: Be16::new(src.1), dport: Be16::new(dst.1) }
}
