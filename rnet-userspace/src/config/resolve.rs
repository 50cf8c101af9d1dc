//! From keys to what the daemon is made with: values that contradict one another are refused.

use std::path::PathBuf;

use anyhow::Context as _;
use ipnetwork::IpNetwork;
use time::OffsetDateTime;

use super::{
    DaemonConfig, MAX_FLOWS, MAX_PORTS, MAX_SOURCE_RATE,
    file::File,
    json::{Located, Result},
    value::{self, Pool},
};
use crate::{
    api::{connections, tls},
    controller::{
        model::{
            name::check_interface,
            subnet::{check_gateway, check_ip_range, check_subnet},
            timeouts,
        },
        request::Subnet,
    },
};

/// RFC 8200 5: with less, the kernel takes IPv6 off an interface.
const LEAST_MTU_V6: u32 = 1280;

/// Adds what the file says.
///
/// # Errors
/// A value is none that its key can have, or contradicts another.
pub(super) fn add(file: &File<'_>, config: &mut DaemonConfig) -> Result<()> {
    default_network(file, config)?;
    for_containers(file, config)?;
    datapath(file, config)?;
    interface(file, config)?;
    if let Some(docker) = file.get("rnet.docker", value::docker)? {
        config.docker = docker.value;
    }
    if let Some(level) = file.get("log-level", |v| v.string(value::level))? {
        config.log_level = level.value;
    }
    Ok(())
}

fn default_network(file: &File<'_>, config: &mut DaemonConfig) -> Result<()> {
    let network = &mut config.instance.default_network;
    if let Some(subnet) = subnet_v4(file)? {
        network.subnet = Some(subnet);
    }
    if let Some(ipv6) = file.get("ipv6", |v| v.boolean())? {
        network.ipv6 = ipv6.value;
    }
    if let Some(subnet) = subnet_v6(file, network.ipv6)? {
        network.subnet_v6 = Some(subnet);
    }
    if let Some(mtu) = file.get("mtu", value::mtu)? {
        network.mtu = mtu.value;
    }
    if let Some(mtu) = network.mtu.filter(|mtu| network.ipv6 && *mtu < LEAST_MTU_V6) {
        return Err(
            file.contradiction("mtu", format_args!("{mtu} is too little for `ipv6`, which needs 1280"))
        );
    }
    if let Some(icc) = file.get("icc", |v| v.boolean())? {
        network.icc = icc.value;
    }
    if let Some(masquerade) = file.get("ip-masq", |v| v.boolean())? {
        network.masquerade = masquerade.value;
    }
    Ok(())
}

/// As with Docker, `fixed-cidr` is a part of `bip`'s network, or without one the network itself.
fn subnet_v4(file: &File<'_>) -> Result<Option<Subnet>> {
    let bip = file.get("bip", |v| {
        let bip = v.string(value::cidr_v4)?;
        let subnet = network_of(bip);
        check_subnet(subnet).and_then(|()| check_gateway(subnet, bip.ip())).map_err(|e| v.refuse(e))?;
        Ok(bip)
    })?;
    let range = file.get("fixed-cidr", |v| {
        let range = v.string(value::cidr_v4)?;
        match bip {
            Some(bip) => check_ip_range(network_of(bip.value), range),
            None => check_subnet(range),
        }
        .map_err(|e| v.refuse(e))?;
        Ok(range)
    })?;
    let gateway = file.get("default-gateway", |v| v.string(value::ip_v4))?;
    let Some(subnet) = bip.map(|b| network_of(b.value)).or(range.map(|r| r.value)) else {
        return match gateway {
            Some(_) => Err(file.contradiction("default-gateway", "it needs `bip` or `fixed-cidr` to be in")),
            None => Ok(None),
        };
    };
    if let (Some(gateway), Some(bip)) = (gateway, bip)
        && gateway.value != bip.value.ip()
    {
        return Err(file.contradiction(
            "default-gateway",
            format_args!(
                "{} is not the bridge's address, which `bip` says is {}: what containers send is carried from the \
                 bridge, by the host's routes; leave it out",
                gateway.value,
                bip.value.ip()
            ),
        ));
    }
    if let Some(gateway) = gateway {
        check_gateway(subnet, gateway.value).map_err(|e| file.contradiction("default-gateway", e))?;
    }
    Ok(Some(Subnet {
        subnet: Some(subnet),
        ip_range: bip.and(range).map(|r| r.value),
        gateway: gateway.map(|g| g.value).or(bip.map(|b| b.value.ip())),
        ..Subnet::default()
    }))
}

fn subnet_v6(file: &File<'_>, ipv6: bool) -> Result<Option<Subnet>> {
    let subnet = file.get("fixed-cidr-v6", |v| {
        let subnet = v.string(value::cidr_v6)?;
        check_subnet(subnet).map_err(|e| v.refuse(e))?;
        Ok(subnet)
    })?;
    let gateway = file.get("default-gateway-v6", |v| v.string(value::ip_v6))?;
    let Some(subnet) = subnet else {
        return match gateway {
            Some(_) => Err(file.contradiction("default-gateway-v6", "it needs `fixed-cidr-v6` to be in")),
            None => Ok(None),
        };
    };
    if !ipv6 {
        return Err(
            file.contradiction("fixed-cidr-v6", "the default network has no IPv6: set `ipv6` to true")
        );
    }
    if let Some(gateway) = gateway {
        check_gateway(subnet.value, gateway.value)
            .map_err(|e| file.contradiction("default-gateway-v6", e))?;
    }
    Ok(Some(Subnet { subnet: Some(subnet.value), gateway: gateway.map(|g| g.value), ..Subnet::default() }))
}

/// What containers and networks get that ask for nothing else.
fn for_containers(file: &File<'_>, config: &mut DaemonConfig) -> Result<()> {
    let instance = &mut config.instance;
    if let Some(dns) = file.get("dns", |v| value::strings(v, value::ip))? {
        instance.dns = dns.value;
    }
    if let Some(search) = file.get("dns-search", |v| value::strings(v, value::search_domain))? {
        instance.dns_search = search.value;
    }
    if let Some(options) = file.get("dns-opts", |v| value::strings(v, value::dns_option))? {
        instance.dns_options = options.value;
    }
    if let Some(ip) = file.get("ip", |v| v.string(value::ip))? {
        instance.bind = ip.value;
    }
    if let Some(Located { value: pools, .. }) = file.get("default-address-pools", value::pools)? {
        replace_pools(&mut instance.pools, pools);
    }
    Ok(())
}

/// Where rnet's own networks come from beside Docker's: whichever starts first, none takes the other's.
const BESIDE_DOCKER: (&str, u8) = ("10.213.0.0/16", 24);

/// Takes Docker's own pools out of those that nobody has asked for.
pub(super) fn leave_pools_to_docker(config: &mut DaemonConfig) -> anyhow::Result<()> {
    let (pool, prefix) = BESIDE_DOCKER;
    let pool = pool.parse().with_context(|| format!("understand pool {pool}"))?;
    replace_pools(&mut config.instance.pools, vec![(pool, prefix)]);
    Ok(())
}

/// Pools of one family leave those of the other as they are.
fn replace_pools(pools: &mut Vec<Pool>, by: Vec<Pool>) {
    pools.retain(|(pool, _)| !by.iter().any(|(other, _)| other.is_ipv6() == pool.is_ipv6()));
    pools.extend(by);
}

fn datapath(file: &File<'_>, config: &mut DaemonConfig) -> Result<()> {
    if let Some(times) = file.get("rnet.timeouts", value::timeouts)? {
        config.instance.timeouts = timeouts::changed(config.instance.timeouts, &times.value)
            .map_err(|e| file.contradiction("rnet.timeouts", e))?;
    }
    if let Some(range) = file.get("rnet.snat-port-range", |v| v.string(value::port_range))? {
        config.instance.snat_ports = range.value;
    }
    if let Some(flows) = file.get("rnet.max-flows", |v| value::count(v, 1..=MAX_FLOWS))? {
        config.max_flows = Some(flows.value);
    }
    if let Some(ports) = file.get("rnet.max-ports", |v| value::count(v, 1..=MAX_PORTS))? {
        config.max_ports = Some(ports.value);
    }
    let limits = &mut config.instance.flow_limits;
    if let Some(flows) = file.get("rnet.max-flows-per-container", |v| value::limit(v, MAX_FLOWS))? {
        limits.per_container = Some(flows.value);
    }
    if let Some(rate) = file.get("rnet.source-rate", |v| value::limit(v, MAX_SOURCE_RATE))? {
        limits.source_rate = rate.value;
    }
    let name = |name: &str| check_interface(name).map(|()| name.to_owned()).map_err(|e| e.to_string());
    if let Some(uplinks) = file.get("rnet.uplinks", |v| value::strings(v, name))? {
        config.instance.uplinks = Some(uplinks.value);
    }
    if let Some(xdp) = file.get("rnet.xdp", |v| v.string(str::parse))? {
        config.instance.xdp = xdp.value;
    }
    Ok(())
}

/// The daemon's own interface: where it listens, and who may come.
fn interface(file: &File<'_>, config: &mut DaemonConfig) -> Result<()> {
    let path = |text: &str| match text {
        "" => Err("it should be the path of a PEM file"),
        text => Ok(PathBuf::from(text)),
    };
    let verify = file.get("tlsverify", |v| v.boolean())?.is_some_and(|verify| verify.value);
    let ca = file.get("tlscacert", |v| v.string(path))?;
    let cert = file.get("tlscert", |v| v.string(path))?;
    let key = file.get("tlskey", |v| v.string(path))?;
    if verify {
        let (Some(ca), Some(cert), Some(key)) = (&ca, &cert, &key) else {
            return Err(file.contradiction("tlsverify", "it needs `tlscacert`, `tlscert` and `tlskey`"));
        };
        let refuse = |key| move |e: anyhow::Error| file.contradiction(key, format_args!("{e:#}"));
        let authorities = tls::certificates(&ca.value).map_err(refuse("tlscacert"))?;
        let chain = tls::certificates(&cert.value).map_err(refuse("tlscert"))?;
        let private = tls::private_key(&key.value).map_err(refuse("tlskey"))?;
        let now = OffsetDateTime::now_utc();
        for (key, path, certificates) in [("tlscacert", ca, &authorities), ("tlscert", cert, &chain)] {
            let wrong = certificates.iter().filter_map(|certificate| tls::out_of_time(certificate, now));
            config.warnings.extend(
                wrong.map(|wrong| format!("`{key}`: a certificate in {} {wrong}", path.value.display())),
            );
        }
        config.tls = Some(tls::server_config(authorities, chain, private).map_err(refuse("tlsverify"))?);
    } else if let Some(unused) =
        [("tlscacert", ca), ("tlscert", cert), ("tlskey", key)].into_iter().find_map(|(k, v)| v.map(|_| k))
    {
        return Err(file.contradiction(unused, "it is of no use unless `tlsverify` is true"));
    }
    let hosts = file.get("hosts", |v| {
        let mut hosts = Vec::new();
        for item in v.list()? {
            let address: crate::api::address::Address = item.string(str::parse)?;
            if address.is_remote() && !verify {
                return Err(item.refuse(format_args!(
                    "{address} can be reached from outside, and whoever reaches it rules this host's network: set \
                     `tlsverify` with `tlscacert`, `tlscert` and `tlskey`, or listen on 127.0.0.1"
                )));
            }
            if hosts.contains(&address) {
                return Err(item.refuse(format_args!("{address} is there twice")));
            }
            hosts.push(address);
        }
        Ok(hosts)
    })?;
    if let Some(hosts) = hosts {
        config.hosts = hosts.value;
    }
    let connections = connections::FEWEST_CONNECTIONS..=connections::MOST_CONNECTIONS;
    if let Some(most) = file.get("rnet.max-connections", |v| value::count(v, connections))? {
        config.max_connections = most.value as usize;
    }
    if let Some(metrics) = file.get("metrics-addr", |v| v.string(value::listen_addr))? {
        config.metrics = Some(metrics.value);
    }
    Ok(())
}

fn network_of(bip: IpNetwork) -> IpNetwork {
    IpNetwork::new(bip.network(), bip.prefix()).unwrap_or(bip)
}
