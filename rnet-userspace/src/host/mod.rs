//! What touches the kernel's network: netlink, namespaces, sysctl, resolv.conf, hosts, hostname.

pub mod process;
