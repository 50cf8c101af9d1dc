//! What resolv.conf(5) says.

use std::net::IpAddr;

/// The addresses of the `nameserver` lines, in their order. A zone, as in `fe80::1%eth0`, is an interface of the host:
/// no use to anybody else.
pub fn nameservers(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok())?
    })
}

/// Checks a domain that names are looked up in; `.` for none.
///
/// # Errors
/// Says that it is none.
pub fn check_search_domain(text: &str) -> Result<(), String> {
    let label = |label: &str| {
        let allowed = label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        !label.is_empty() && label.len() <= 63 && allowed && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_domain = text.len() <= 255 && text.strip_suffix('.').unwrap_or(text).split('.').all(label);
    if text == "." || is_domain { Ok(()) } else { Err(format!("{text} is not a valid domain")) }
}

/// Checks an option: one word.
///
/// # Errors
/// Says what it should be.
pub fn check_option(text: &str) -> Result<(), String> {
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("{text:?} is no option of resolv.conf: it should be one word, as ndots:2"));
    }
    Ok(())
}
