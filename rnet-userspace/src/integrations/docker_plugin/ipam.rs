//! Address management, for networks that are made with `--ipam-driver rnet`: rnet's pools and rules, for addresses that
//! Docker keeps the records of.

use std::net::IpAddr;

use anyhow::Context as _;
use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use super::{
    Plugin,
    error::{Error, Result},
    messages::{ReleaseAddress, RequestAddress, RequestPool},
    state::{Kept, Pool},
};
use crate::controller::{
    ipam::{check_fixed, default_gateway, lowest_free},
    model::subnet::check_ip_range,
    request::FreeSubnet,
};

impl Plugin {
    pub(super) async fn request_pool(&self, asked: RequestPool) -> Result<Value> {
        // One at a time: what is free is known before it is noted.
        let _turn = self.pools.lock().await;
        if let Some(pool) = asked.pool.and_then(|subnet| repeated(&self.state.kept(), subnet, asked.sub_pool))
        {
            return Ok(pool);
        }
        let avoid = self.state.kept().pools.into_values().map(|pool| pool.subnet).collect();
        let wanted = FreeSubnet { subnet: asked.pool, ipv6: asked.ipv6, avoid };
        let subnet = self.patiently(|| self.client.free_subnet(&wanted)).await?;
        if let Some(range) = asked.sub_pool {
            check_ip_range(subnet, range)?;
        }
        self.state.change(|kept| {
            let pool = Pool { subnet, range: asked.sub_pool, taken: Default::default() };
            kept.pools.insert(subnet.to_string(), pool);
            Ok::<_, Error>(())
        })?;
        Ok(promised(subnet))
    }

    pub(super) fn release_pool(&self, id: &str) -> Result<Value> {
        self.state.change(|kept| {
            kept.pools.remove(id);
            Ok::<_, Error>(())
        })?;
        Ok(json!({}))
    }

    pub(super) fn request_address(&self, asked: &RequestAddress) -> Result<Value> {
        let given = self.state.change(|kept| {
            let pool = kept.pools.get_mut(&asked.pool).ok_or_else(|| unknown(&asked.pool))?;
            give(pool, asked.addr, asked.options.is_gateway())
        })?;
        Ok(json!({ "Address": given, "Data": {} }))
    }

    pub(super) fn release_address(&self, asked: &ReleaseAddress) -> Result<Value> {
        self.state.change(|kept| {
            if let Some(pool) = kept.pools.get_mut(&asked.pool) {
                pool.taken.remove(&asked.addr);
            }
            Ok::<_, Error>(())
        })?;
        Ok(json!({}))
    }
}

/// The answer to a request that was answered before, and came again: nobody has an address of the pool.
fn repeated(kept: &Kept, subnet: IpNetwork, range: Option<IpNetwork>) -> Option<Value> {
    let pool = kept.pools.get(&subnet.to_string())?;
    (pool.range == range && pool.taken.is_empty()).then(|| promised(subnet))
}

fn promised(subnet: IpNetwork) -> Value {
    json!({ "PoolID": subnet.to_string(), "Pool": subnet, "Data": {} })
}

fn give(pool: &mut Pool, asked: Option<IpAddr>, is_gateway: bool) -> Result<IpNetwork> {
    let taken = |addr: &IpAddr| pool.taken.contains(addr);
    let wanted = asked.or_else(|| is_gateway.then(|| default_gateway(pool.subnet)));
    let addr = match wanted {
        Some(addr) => check_fixed(pool.subnet, addr, taken).map(|()| addr),
        None => lowest_free(pool.subnet, pool.range, taken),
    };
    let addr = addr.map_err(|e| Error::Invalid(e.to_string()))?;
    pool.taken.insert(addr);
    Ok(IpNetwork::new(addr, pool.subnet.prefix()).context("write an address with its prefix")?)
}

fn unknown(pool: &str) -> Error {
    Error::Invalid(format!("rnet has no address pool {pool}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(subnet: &str, range: Option<&str>) -> Pool {
        Pool {
            subnet: subnet.parse().unwrap(),
            range: range.map(|range| range.parse().unwrap()),
            taken: Default::default(),
        }
    }

    #[test]
    fn the_gateway_is_the_first_and_others_are_the_lowest_free() {
        let mut pool = pool("10.1.0.0/24", Some("10.1.0.128/25"));
        let mut ask = |addr: Option<&str>, is_gateway| {
            let addr = addr.map(|addr| addr.parse().unwrap());
            give(&mut pool, addr, is_gateway).map(|given| given.to_string()).map_err(|e| e.to_string())
        };
        assert_eq!(ask(None, true).unwrap(), "10.1.0.1/24");
        assert_eq!(ask(None, true).unwrap_err(), "Address already in use: 10.1.0.1");
        assert_eq!(ask(None, false).unwrap(), "10.1.0.128/24");
        assert_eq!(ask(Some("10.1.0.7"), false).unwrap(), "10.1.0.7/24");
        assert!(ask(Some("10.2.0.7"), false).unwrap_err().contains("out of range"));
        assert_eq!(ask(None, false).unwrap(), "10.1.0.129/24");
    }
}
