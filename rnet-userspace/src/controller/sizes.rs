//! How many of each thing one request may ask for. What is kept is read and written as a whole, and shown to everybody who
//! asks for a list: a megabyte of names in one container is a megabyte for each of them.

use super::{
    error::{Error, Result},
    request::{CreateContainer, CreateNetwork},
};

/// Of what is one line, or one word, of a container's `resolv.conf`. glibc uses three servers, and takes any number of domains.
const RESOLVER: usize = 32;
/// Lines of a container's `hosts`.
const HOSTS: usize = 1024;
/// Other names of a container on one network.
const ALIASES: usize = 64;
/// Networks of a container.
const NETWORKS: usize = 128;
const SYSCTLS: usize = 256;
/// Labels, options and reserved addresses of a network.
const MEMBERS: usize = 1024;

/// # Errors
/// [`Error::Invalid`]: a list is too long.
pub(super) fn check_container(request: &CreateContainer) -> Result<()> {
    check("name servers", request.dns.len(), RESOLVER)?;
    check("search domains", request.dns_search.len(), RESOLVER)?;
    check("options of resolv.conf", request.dns_options.len(), RESOLVER)?;
    check("extra hosts", request.extra_hosts.len(), HOSTS)?;
    check("sysctls", request.sysctls.len(), SYSCTLS)?;
    check("networks", request.networks.len(), NETWORKS)
}

/// # Errors
/// As those of [`check_container`].
pub(super) fn check_aliases(aliases: &[String]) -> Result<()> {
    check("aliases", aliases.len(), ALIASES)
}

/// # Errors
/// As those of [`check_container`].
pub(super) fn check_network(request: &CreateNetwork) -> Result<()> {
    check("labels", request.labels.len(), MEMBERS)?;
    check("options", request.options.len(), MEMBERS)?;
    let reserved = request.subnets.iter().map(|subnet| subnet.aux.len()).sum();
    check("auxiliary addresses", reserved, MEMBERS)
}

fn check(what: &str, many: usize, most: usize) -> Result<()> {
    if many > most {
        return Err(Error::Invalid(format!("{many} {what} are too many: {most} are allowed")));
    }
    Ok(())
}
