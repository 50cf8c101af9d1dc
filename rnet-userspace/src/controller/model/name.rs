//! Names and ids of networks and containers.

use crate::controller::error::{Error, Result};

/// Longest name that is taken: with the instance's it becomes the name of a file.
const MAX_NAME: usize = 128;
/// Digits of an id that are shown where a short one will do.
const SHORT_ID: usize = 12;

const ADJECTIVES: [&str; 24] = [
    "amber", "brisk", "calm", "clear", "daring", "eager", "fleet", "gentle", "hardy", "keen", "lively",
    "lucid", "mellow", "nimble", "patient", "plucky", "quick", "quiet", "spry", "steady", "sunny", "tidy",
    "vivid", "witty",
];
const NOUNS: [&str; 24] = [
    "badger", "beacon", "birch", "canyon", "comet", "falcon", "fern", "glacier", "harbor", "heron", "island",
    "juniper", "lagoon", "maple", "meadow", "otter", "pebble", "prairie", "raven", "ridge", "sparrow",
    "summit", "tundra", "willow",
];

/// Checks the name of a network, a container or an instance (`what`): Docker's
/// `[a-zA-Z0-9][a-zA-Z0-9_.-]*`.
///
/// # Errors
/// [`Error::Invalid`] says which characters are allowed.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let all_allowed = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if !starts_well || !all_allowed {
        return Err(Error::Invalid(format!(
            "invalid {what} name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed"
        )));
    }
    if name.len() > MAX_NAME {
        return Err(Error::Invalid(format!(
            "invalid {what} name {name:?}: longer than {MAX_NAME} characters"
        )));
    }
    Ok(())
}

/// Checks a container's host name: what `sethostname` and a line of `hosts` take.
///
/// # Errors
/// [`Error::Invalid`] says what is allowed.
pub fn check_hostname(name: &str) -> Result<()> {
    let allowed = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    // HOST_NAME_MAX is 64 on Linux.
    if name.is_empty() || name.len() > 64 || !allowed || name.starts_with(['-', '.']) {
        return Err(Error::Invalid(format!(
            "invalid host name {name:?}: 1 to 64 letters, digits, dots, hyphens and underscores are allowed"
        )));
    }
    Ok(())
}

/// Checks the name of an interface to be made.
///
/// # Errors
/// [`Error::Invalid`] says what is wrong with it.
pub fn check_interface(name: &str) -> Result<()> {
    // IFNAMSIZ is 16, the terminating zero included. The kernel refuses slashes, colons and white space.
    let fits = !name.is_empty() && name.len() <= 15 && name != "." && name != "..";
    // Of `br%d` it makes `br0`. `all` and `default` are where settings of every interface are.
    let is_special = |c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control();
    if !fits || name.contains(is_special) || matches!(name, "all" | "default") {
        return Err(Error::Invalid(format!(
            "invalid interface name {name:?}: 1 to 15 characters are allowed, without slash, colon, per cent or white \
             space; all and default are not"
        )));
    }
    Ok(())
}

/// A new id: 64 hexadecimal digits. Its short form has a letter in it, so that nobody takes it for a number.
pub fn new_id() -> String {
    loop {
        let bytes: [u8; 32] = rand::random();
        let id: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        if !short_id(&id).bytes().all(|b| b.is_ascii_digit()) {
            return id;
        }
    }
}

/// The first twelve digits of an id.
pub fn short_id(id: &str) -> &str {
    id.get(..SHORT_ID).unwrap_or(id)
}

/// A name for a container that came without one, made of two words as Docker does; with a number behind it
/// when the plain ones are taken.
pub fn made_up_name(taken: impl Fn(&str) -> bool) -> String {
    for attempt in 0.. {
        let pick = |words: &[&'static str]| words[rand::random_range(0..words.len())];
        let mut name = format!("{}_{}", pick(&ADJECTIVES), pick(&NOUNS));
        if attempt > 5 {
            name.push_str(&attempt.to_string());
        }
        if !taken(&name) {
            return name;
        }
    }
    unreachable!("the loop has no end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_rule() {
        for good in ["a", "web", "Web_1.x-y", "0", &"n".repeat(128)] {
            check_name("container", good).unwrap();
        }
        for bad in ["", "-web", ".web", "_x", "we b", "web/1", "wéb", &"n".repeat(129)] {
            assert!(matches!(check_name("container", bad), Err(Error::Invalid(_))), "{bad}");
        }
        let error = check_name("network", "a b").unwrap_err().to_string();
        assert_eq!(error, r#"invalid network name "a b": only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed"#);
    }

    #[test]
    fn interface_names_fit_the_kernel() {
        for good in ["rnet0", "br-0123456789ab", "a.b"] {
            check_interface(good).unwrap();
        }
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "br%d", "all", "default", "sixteen-letters-"] {
            assert!(check_interface(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn host_names_fit_the_kernel() {
        check_hostname("web.example.org").unwrap();
        for bad in ["", "-x", "a\nb", "a b", &"h".repeat(65)] {
            assert!(check_hostname(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_are_unlike_and_have_64_digits() {
        let (a, b) = (new_id(), new_id());
        assert_ne!(a, b);
        assert!(a.len() == 64 && a.bytes().all(|c| c.is_ascii_hexdigit()));
        assert_eq!(short_id(&a), &a[..12]);
    }

    #[test]
    fn a_made_up_name_is_valid_and_free() {
        let name = made_up_name(|name| !name.ends_with(|c: char| c.is_ascii_digit()));
        check_name("container", &name).unwrap();
        assert!(name.ends_with(|c: char| c.is_ascii_digit()), "{name}");
    }
}
