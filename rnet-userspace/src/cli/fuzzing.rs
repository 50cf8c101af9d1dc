//! Templates, and the values of options.

use serde_json::json;

use super::{
    create, instance_name, joining, list,
    template::{Filling, Template},
};
use crate::{
    api::address::Address,
    config,
    controller::model::{
        MacAddr, Protocol,
        flow_filter::{protocol_name, protocol_number},
        timeouts,
        xdp::Xdp,
    },
    fuzzing::{Shape, Target, refused, settles, text},
    integrations::docker,
};

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "template", shape: Shape::Text, run: template, words: TEMPLATE },
    Target { name: "option-values", shape: Shape::Text, run: values, words: VALUES },
];
const TEMPLATE: &[&str] = &[
    "{{",
    "}}",
    "{{.",
    "{{- ",
    " -}}",
    "{{range ",
    "{{range $k, $v := ",
    "{{if ",
    "{{with ",
    "{{else}}",
    "{{else if ",
    "{{end}}",
    "{{/*",
    "*/}}",
    ".Name",
    ".Networks",
    ".Config",
    ".Labels",
    ".Label \"a\"",
    "index ",
    "json ",
    "len ",
    "printf \"%s\" ",
    "pad ",
    "truncate ",
    "split ",
    "join ",
    "upper",
    "title",
    " | ",
    "(",
    ")",
    "`",
    "\"",
    "\\n",
    "$",
    "$v",
    "eq ",
    "nil",
    "true",
    "-1",
    "65536",
    "18446744073709551615",
    "é",
];
const VALUES: &[&str] = &[
    "unix:///run/x",
    "tcp://",
    "[::1]",
    ":2376",
    "localhost",
    "127.0.0.1",
    "02:00:00:00:00:01",
    "-",
    "udp=30s",
    "=",
    "d",
    "h",
    "tcp",
    "icmpv6",
    "255",
    "1024-32767",
    "name=",
    "alias=",
    "ip=",
    "ip6=",
    "mac-address=",
    "gw-priority=",
    ",",
    "10.1.0.0/24",
    "native",
    "{{.ID}}",
    "table ",
    "+1",
];

fn template(input: &[u8]) {
    let Some(text) = text(input).filter(|text| text.len() <= 2048) else { return };
    let template: Template = match text.parse() {
        Ok(template) => template,
        Err(e) => return refused(e, input),
    };
    // What loops within loops make grows with their number, as in Go.
    if text.matches("range").count() > 5 {
        return;
    }
    let data = json!({
        "ID": "0123456789ab", "Name": "web", "Count": 3, "Up": true, "None": null,
        "Networks": { "n1": { "IP": "10.1.0.2" }, "n2": { "IP": "10.2.0.2" } },
        "Config": [{ "Subnet": "10.1.0.0/24" }, { "Subnet": "fd00::/64" }], "Empty": [], "é": "ü",
    });
    let labels = [("a".to_owned(), "1".to_owned())].into();
    let fill = |labels| template.fill(Filling { data: &data, labels });
    match fill(Some(&labels)) {
        Ok(text) => assert_eq!(fill(Some(&labels)).ok(), Some(text), "it is the same each time"),
        Err(e) => refused(format_args!("{e:#}"), input),
    }
    if let Err(e) = fill(None) {
        refused(format_args!("{e:#}"), input);
    }
}

fn values(input: &[u8]) {
    let Some(text) = text(input) else { return };
    settles::<Address>(text);
    settles::<MacAddr>(text);
    settles::<Protocol>(text);
    settles::<Xdp>(text);
    match protocol_number(text) {
        Ok(number) => assert_eq!(protocol_number(&protocol_name(number)), Ok(number)),
        Err(e) => refused(e, input),
    }
    match config::port_range(text) {
        Ok((first, last)) => assert!(0 < first && first <= last),
        Err(e) => refused(e, input),
    }
    match docker::socket(text) {
        Ok(path) => assert!(path.is_absolute()),
        Err(e) => refused(e, input),
    }
    match timeouts::parse(text) {
        Ok((name, _)) => assert!(text.starts_with(&name) && !name.is_empty()),
        Err(e) => refused(e, input),
    }
    match instance_name(text) {
        Ok(name) => assert!(!name.contains('/') && !matches!(name.as_str(), "" | "." | "..")),
        Err(e) => refused(e, input),
    }
    match create::cidr(text) {
        Ok(net) => assert_eq!(create::cidr(&net.to_string()), Ok(net)),
        Err(e) => refused(e, input),
    }
    match joining::network(text) {
        Ok(connect) => assert!(!connect.network.is_empty() || text.is_empty(), "{text:?}"),
        Err(e) => refused(format_args!("{e:#}"), input),
    }
    for outcome in [
        list::filter(text).map(drop),
        text.parse::<list::ListFormat>().map(drop),
        text.parse::<list::ObjectFormat>().map(drop),
        create::aux_address(text).map(drop),
        create::key_value(text).map(drop),
    ] {
        if let Err(e) = outcome {
            refused(e, input);
        }
    }
}
