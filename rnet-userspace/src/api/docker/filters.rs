//! Docker's `filters`: which of many are wanted.

use std::collections::{BTreeMap, BTreeSet};

use regex_lite::Regex;
use serde::Deserialize;

use crate::api::error::{ApiError, ApiResult};

/// What is asked of each field: values of one field are alternatives, but for labels.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filters(BTreeMap<String, BTreeSet<String>>);

/// The values of a field, as newer clients and as older ones write them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    List(BTreeSet<String>),
    Map(BTreeMap<String, bool>),
}

impl Filters {
    /// Reads the `filters` of a query.
    ///
    /// # Errors
    /// When they are no filters, or one of them is not `known`: it would show what was not asked for.
    pub(super) fn parse(text: &str, known: &[&str]) -> ApiResult<Self> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let fields: BTreeMap<String, Values> = serde_json::from_str(text).map_err(|e| {
            ApiError::bad_request(format!(
                "invalid filters {text}: they should be as {{\"name\":[\"web\"]}}: {e}"
            ))
        })?;
        if let Some(field) = fields.keys().find(|field| !known.contains(&field.as_str())) {
            let known = known.join(", ");
            return Err(ApiError::bad_request(format!("invalid filter '{field}': known are {known}")));
        }
        let values = |values| match values {
            Values::List(values) => values,
            Values::Map(values) => values.into_keys().collect(),
        };
        Ok(Self(fields.into_iter().map(|(field, of)| (field, values(of))).collect()))
    }

    /// The values of a field.
    pub(super) fn values(&self, field: &str) -> impl Iterator<Item = &str> {
        self.0.get(field).into_iter().flatten().map(String::as_str)
    }

    /// Whether anything is asked of a field.
    pub(super) fn contains(&self, field: &str) -> bool {
        self.values(field).next().is_some()
    }

    /// Whether nothing is asked of a field, or `fits` holds for one of its values.
    pub(super) fn any(&self, field: &str, fits: impl FnMut(&str) -> bool) -> bool {
        !self.contains(field) || self.values(field).any(fits)
    }

    /// What is asked of a field whose values are patterns.
    pub(super) fn patterns(&self, field: &str) -> Patterns {
        Patterns(self.values(field).map(|value| (value.to_owned(), Regex::new(value).ok())).collect())
    }

    /// Whether `labels` has everything that is asked of `field`, each as `KEY` or `KEY=VALUE`.
    pub(super) fn has_labels(&self, field: &str, labels: &BTreeMap<String, String>) -> bool {
        self.values(field).all(|wanted| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|label| label == value),
            None => labels.contains_key(wanted),
        })
    }

    /// The value of a field that is true or false.
    ///
    /// # Errors
    /// When it is neither, or both.
    pub(super) fn flag(&self, field: &str) -> ApiResult<Option<bool>> {
        let mut flags = self.values(field).map(|value| match value {
            "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            _ => Err(self.invalid(field)),
        });
        match (flags.next().transpose()?, flags.next()) {
            (_, Some(_)) => Err(self.invalid(field)),
            (flag, None) => Ok(flag),
        }
    }

    /// Refuses a field's values.
    pub(super) fn invalid(&self, field: &str) -> ApiError {
        let values: Vec<_> = self.values(field).collect();
        ApiError::bad_request(format!("invalid filter '{field}={}'", values.join(", ")))
    }
}

/// Values of which one has to fit: as a whole, or as a regular expression of a part.
pub(super) struct Patterns(Vec<(String, Option<Regex>)>);

impl Patterns {
    /// Whether one of them fits `text`, or there are none.
    pub(super) fn fit(&self, text: &str) -> bool {
        let fits = |(value, regex): &(String, Option<Regex>)| {
            value == text || regex.as_ref().is_some_and(|regex| regex.is_match(text))
        };
        self.0.is_empty() || self.0.iter().any(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["name", "label", "dangling", "id"];

    fn parse(text: &str) -> Result<Filters, String> {
        Filters::parse(text, &KNOWN).map_err(|e| e.message)
    }

    #[test]
    fn both_spellings_mean_the_same() {
        let list = parse(r#"{"name":["a","b"],"label":["x=y"]}"#).unwrap();
        assert_eq!(list, parse(r#"{"label":{"x=y":true},"name":{"b":true,"a":true}}"#).unwrap());
        assert_eq!(list.values("name").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(parse("").unwrap(), parse("{}").unwrap());
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        assert_eq!(
            parse(r#"{"colour":["red"]}"#).unwrap_err(),
            "invalid filter 'colour': known are name, label, dangling, id"
        );
        assert!(parse("name=web").unwrap_err().starts_with("invalid filters name=web: they should be as"));
    }

    #[test]
    fn values_are_alternatives_and_labels_are_not() {
        let filters = parse(r#"{"name":["^web$","db"],"label":["a=1","b"]}"#).unwrap();
        let names = filters.patterns("name");
        let fitting = ["web", "web2", "my-db-1", "cache"].map(|name| names.fit(name));
        assert_eq!(fitting, [true, false, true, false]);
        assert!(filters.patterns("id").fit("anything"));
        let labels = |pairs: &[(&str, &str)]| {
            let labels = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            filters.has_labels("label", &labels)
        };
        assert!(labels(&[("a", "1"), ("b", ""), ("c", "3")]));
        assert!(!labels(&[("a", "2"), ("b", "")]) && !labels(&[("a", "1")]));
    }

    #[test]
    fn a_pattern_that_is_none_fits_as_a_whole() {
        let names = parse(r#"{"name":["(web"]}"#).unwrap().patterns("name");
        assert!(names.fit("(web") && !names.fit("web"));
    }

    #[test]
    fn a_flag_has_one_value() {
        let flag = |text: &str| parse(text).unwrap().flag("dangling").map_err(|e| e.message);
        assert_eq!(flag("{}"), Ok(None));
        assert_eq!(flag(r#"{"dangling":["1"]}"#), Ok(Some(true)));
        assert_eq!(flag(r#"{"dangling":{"false":true}}"#), Ok(Some(false)));
        assert_eq!(flag(r#"{"dangling":["yes"]}"#).unwrap_err(), "invalid filter 'dangling=yes'");
        assert_eq!(flag(r#"{"dangling":["0","1"]}"#).unwrap_err(), "invalid filter 'dangling=0, 1'");
    }
}
