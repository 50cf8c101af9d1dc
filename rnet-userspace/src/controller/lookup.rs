//! Finding a record by id, name or the beginning of an id, in this order, as Docker does.

use std::collections::BTreeMap;

use super::error::{Error, Result};

/// The record that `wanted` means, if there is one. `named` finds the one that is called so.
///
/// # Errors
/// [`Error::Invalid`] when it is the beginning of several ids.
pub(super) fn find<'a, T>(
    records: &'a BTreeMap<String, T>,
    wanted: &str,
    named: impl FnOnce() -> Option<&'a T>,
) -> Result<Option<&'a T>> {
    if wanted.is_empty() {
        return Ok(None);
    }
    if let Some(found) = records.get(wanted).or_else(named) {
        return Ok(Some(found));
    }
    let mut by_prefix = records.range(wanted.to_owned()..).take_while(|(id, _)| id.starts_with(wanted));
    match (by_prefix.next(), by_prefix.next()) {
        (Some(_), Some(_)) => Err(Error::Invalid(format!(
            "multiple IDs found with provided prefix: {wanted}: give more digits"
        ))),
        (found, _) => Ok(found.map(|(_, record)| record)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_before_names_and_names_before_beginnings_of_ids() {
        let records: BTreeMap<String, &str> =
            [("aa11", "web"), ("aa22", "db"), ("bb33", "aa11"), ("cc44", "b")]
                .map(|(k, v)| (k.to_owned(), v))
                .into();
        let find = |wanted| {
            let named = || records.values().find(|name| **name == wanted);
            find(&records, wanted, named).map(|found| found.copied())
        };
        assert_eq!(find("aa11").unwrap(), Some("web"));
        assert_eq!(find("db").unwrap(), Some("db"));
        assert_eq!(find("b").unwrap(), Some("b"));
        assert_eq!(find("bb").unwrap(), Some("aa11"));
        assert_eq!(find("aa2").unwrap(), Some("db"));
        assert_eq!(find("dd").unwrap(), None);
        assert_eq!(find("").unwrap(), None);
        assert!(
            find("aa").unwrap_err().to_string().starts_with("multiple IDs found with provided prefix: aa")
        );
    }
}
