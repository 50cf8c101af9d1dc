//! Whether somebody else's rules are in the firewall. Nothing is changed there.

use anyhow::{Context, Result, bail};
use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
        sockopt::Timeout, sockopt::set_socket_timeout,
    },
};

/// Message types of nf_tables (linux/netfilter/nfnetlink.h, nf_tables.h): `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_…`.
const NEW_CHAIN: u16 = 10 << 8 | 3;
const GET_CHAIN: u16 = 10 << 8 | 4;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NFPROTO_IPV4: u8 = 2;
/// Attributes of a chain.
const TABLE: u16 = 1;
const NAME: u16 = 3;
/// Lengths of `struct nlmsghdr` and `struct nfgenmsg`.
const HEADERS: usize = 16 + 4;

/// Whether the table `nat` of IPv4 has a chain called so, as iptables makes them by nf_tables. Those of
/// iptables-legacy are not seen.
///
/// # Errors
/// The kernel does not answer; without nf_tables there is no such chain.
pub fn has_nat_chain(name: &str) -> Result<bool> {
    let kind = SocketType::RAW;
    let socket = socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, Some(netlink::NETFILTER));
    let socket = socket.context("open a netlink socket")?;
    set_socket_timeout(&socket, Timeout::Recv, Some(std::time::Duration::from_secs(2)))
        .context("limit it")?;
    send(&socket, &request(name), SendFlags::empty()).context("ask nf_tables")?;
    let mut answer = [0; 8192];
    let (_, length) = recv(&socket, &mut answer[..], RecvFlags::empty()).context("hear from nf_tables")?;
    understand(answer.get(..length).unwrap_or(&answer))
}

fn request(chain: &str) -> Vec<u8> {
    let mut attributes = attribute(TABLE, "nat");
    attributes.extend(attribute(NAME, chain));
    let mut message = Vec::new();
    message.extend(((HEADERS + attributes.len()) as u32).to_ne_bytes());
    message.extend(GET_CHAIN.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence and port: there is one question and one answer.
    message.extend([0; 8]);
    message.extend([NFPROTO_IPV4, 0, 0, 0]);
    message.extend(attributes);
    message
}

fn attribute(kind: u16, text: &str) -> Vec<u8> {
    let mut attribute = Vec::new();
    attribute.extend((4 + text.len() as u16 + 1).to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(text.as_bytes());
    attribute.push(0);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

pub(super) fn understand(answer: &[u8]) -> Result<bool> {
    let kind = answer.get(4..6).and_then(|kind| Some(u16::from_ne_bytes(kind.try_into().ok()?)));
    let error = answer.get(16..20).and_then(|error| Some(i32::from_ne_bytes(error.try_into().ok()?)));
    match (kind, error) {
        (Some(NEW_CHAIN), _) => Ok(true),
        // Of `Errno` there are 4095; another number, which no kernel says, would make it panic.
        (Some(NLMSG_ERROR), Some(error @ -4095..=-1)) => match Errno::from_raw_os_error(-error) {
            // No such table or chain; no nf_tables.
            Errno::NOENT | Errno::INVAL | Errno::OPNOTSUPP => Ok(false),
            error => Err(error).context("ask nf_tables for a chain"),
        },
        _ => bail!("nf_tables answers something else"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::host::testing::in_new_netns;

    #[test]
    fn an_answer_that_is_none_is_refused() {
        let answer = |error: i32| {
            let mut answer = [0; 16];
            answer[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
            understand(&[&answer[..], &error.to_ne_bytes()].concat())
        };
        assert!(!answer(-Errno::NOENT.raw_os_error()).unwrap());
        for error in [0, 1, i32::MIN, -4096, i32::MAX, -Errno::PERM.raw_os_error()] {
            answer(error).unwrap_err();
        }
        understand(&[]).unwrap_err();
    }

    #[test]
    fn a_chain_is_seen_and_others_are_not() {
        in_new_netns(|| {
            assert!(!has_nat_chain("DOCKER").unwrap());
            let nft = |command: &str| {
                let nft = Command::new("nft").args(command.split(' ')).output().unwrap();
                assert!(nft.status.success(), "{}", String::from_utf8_lossy(&nft.stderr));
            };
            nft("add table ip nat");
            nft("add table ip filter");
            nft("add chain ip filter DOCKER");
            assert!(!has_nat_chain("DOCKER").unwrap());
            nft("add chain ip nat DOCKER");
            assert!(has_nat_chain("DOCKER").unwrap());
            assert!(!has_nat_chain("DOCKER-2").unwrap());
        });
    }
}
