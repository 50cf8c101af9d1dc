//! Which networks are wanted, and which can go.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    filters::{Filters, Patterns},
    timestamp,
};
use crate::{
    api::error::{ApiError, ApiResult},
    controller::view,
};

const LISTED: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];
const PRUNED: [&str; 3] = ["label", "label!", "until"];

/// What networks are listed by.
pub(super) struct Listed {
    filters: Filters,
    ids: Patterns,
    names: Patterns,
    dangling: Option<bool>,
}

impl Listed {
    pub(super) fn parse(filters: &str) -> ApiResult<Self> {
        let filters = Filters::parse(filters, &LISTED)?;
        if filters.values("type").any(|kind| !matches!(kind, "custom" | "builtin")) {
            return Err(filters.invalid("type"));
        }
        Ok(Self {
            ids: filters.patterns("id"),
            names: filters.patterns("name"),
            dangling: filters.flag("dangling")?,
            filters,
        })
    }

    pub(super) fn includes(&self, network: &view::Network) -> bool {
        let kind = if network.predefined { "builtin" } else { "custom" };
        let is_dangling = !network.predefined && network.containers.is_empty();
        self.ids.fit(&network.id)
            && self.names.fit(&network.name)
            && self.dangling.is_none_or(|wanted| wanted == is_dangling)
            && self.filters.any("driver", |driver| driver == network.driver)
            && self.filters.any("scope", |scope| scope == "local")
            && self.filters.any("type", |wanted| wanted == kind)
            && self.filters.has_labels("label", &network.labels)
    }
}

/// What unused networks are removed by.
pub(super) struct Pruned {
    filters: Filters,
    until: Option<OffsetDateTime>,
}

impl Pruned {
    pub(super) fn parse(filters: &str, now: OffsetDateTime) -> ApiResult<Self> {
        let filters = Filters::parse(filters, &PRUNED)?;
        let mut times = filters.values("until");
        let until = times.next().map(|text| timestamp::parse(text, now).map_err(ApiError::bad_request));
        let until = until.transpose()?;
        if times.next().is_some() {
            return Err(ApiError::bad_request("more than one until filter specified"));
        }
        drop(times);
        Ok(Self { filters, until })
    }

    /// Whether nobody uses a network and it is meant.
    pub(super) fn includes(&self, network: &view::Network) -> bool {
        let created = OffsetDateTime::parse(&network.created, &Rfc3339);
        let is_old = self.until.is_none_or(|until| created.is_ok_and(|created| created <= until));
        !network.predefined
            && network.containers.is_empty()
            && is_old
            && self.filters.has_labels("label", &network.labels)
            && (!self.filters.contains("label!") || !self.filters.has_labels("label!", &network.labels))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn network(name: &str, labels: &[(&str, &str)], members: usize) -> view::Network {
        let member = view::NetworkMember {
            name: "web".into(),
            endpoint: "e".into(),
            mac: "02:42:ac:11:00:02".parse().unwrap(),
            addrs: Vec::new(),
        };
        view::Network {
            engine: None,
            id: format!("{name}-0123"),
            name: name.into(),
            driver: if name == "host" { "host" } else { "bridge" }.into(),
            created: "2026-01-02T03:04:05Z".into(),
            bridge: None,
            subnets: Vec::new(),
            internal: false,
            attachable: false,
            ipv4: true,
            ipv6: false,
            predefined: matches!(name, "bridge" | "host"),
            options: BTreeMap::new(),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            containers: (0..members).map(|n| (n.to_string(), member.clone())).collect(),
        }
    }

    fn all() -> [view::Network; 4] {
        [
            network("bridge", &[], 0),
            network("host", &[], 0),
            network("front", &[("a", "1")], 0),
            network("back", &[("a", "2")], 1),
        ]
    }

    #[test]
    fn every_filter_chooses() {
        for (filters, names) in [
            ("", &["bridge", "host", "front", "back"][..]),
            (r#"{"driver":["bridge"]}"#, &["bridge", "front", "back"]),
            (r#"{"id":["^front-01"]}"#, &["front"]),
            (r#"{"name":["b"]}"#, &["bridge", "back"]),
            (r#"{"name":["^b","ost$"]}"#, &["bridge", "host", "back"]),
            (r#"{"label":["a"]}"#, &["front", "back"]),
            (r#"{"label":["a=2"]}"#, &["back"]),
            (r#"{"label":["a=1","a=2"]}"#, &[]),
            (r#"{"type":["custom"]}"#, &["front", "back"]),
            (r#"{"type":{"builtin":true}}"#, &["bridge", "host"]),
            (r#"{"type":["custom"],"name":["f"]}"#, &["front"]),
            (r#"{"dangling":["true"]}"#, &["front"]),
            (r#"{"dangling":["0"]}"#, &["bridge", "host", "back"]),
            (r#"{"scope":["local"]}"#, &["bridge", "host", "front", "back"]),
            (r#"{"scope":["swarm"]}"#, &[]),
        ] {
            let listed = Listed::parse(filters).unwrap_or_else(|e| panic!("{filters}: {}", e.message));
            let all = all();
            let chosen: Vec<_> = all.iter().filter(|n| listed.includes(n)).map(|n| n.name.as_str()).collect();
            assert_eq!(chosen, names, "{filters}");
        }
        let refused = |filters: &str| Listed::parse(filters).err().unwrap().message;
        assert_eq!(refused(r#"{"type":["mine"]}"#), "invalid filter 'type=mine'");
        assert!(refused(r#"{"until":["1h"]}"#).starts_with("invalid filter 'until': known are dangling, "));
    }

    #[test]
    fn only_what_nobody_uses_is_pruned() {
        let now = OffsetDateTime::parse("2026-01-02T04:00:00Z", &Rfc3339).unwrap();
        for (filters, names) in [
            ("", &["front"][..]),
            (r#"{"label":["a=1"]}"#, &["front"]),
            (r#"{"label":["a=2"]}"#, &[]),
            (r#"{"label!":["a"]}"#, &[]),
            (r#"{"label!":["a=2"]}"#, &["front"]),
            (r#"{"until":["50m"]}"#, &["front"]),
            (r#"{"until":["2h"]}"#, &[]),
            (r#"{"until":["2026-01-02T03:04:05Z"]}"#, &["front"]),
        ] {
            let pruned = Pruned::parse(filters, now).unwrap_or_else(|e| panic!("{filters}: {}", e.message));
            let all = all();
            let chosen: Vec<_> = all.iter().filter(|n| pruned.includes(n)).map(|n| n.name.as_str()).collect();
            assert_eq!(chosen, names, "{filters}");
        }
        let refused = |filters: &str| Pruned::parse(filters, now).err().unwrap().message;
        assert_eq!(refused(r#"{"until":["1h","2h"]}"#), "more than one until filter specified");
        assert!(refused(r#"{"until":["soon"]}"#).contains("\"soon\""));
        assert!(refused(r#"{"name":["x"]}"#).starts_with("invalid filter 'name'"));
    }
}
