//! How lists are asked for and shown: as tables, as JSON, or by a template, with Docker's words for all of it.

use std::{collections::BTreeMap, str::FromStr};

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::{
    print, table,
    template::{Filling, Template},
};
use crate::api::calls::Filters;

/// Arguments of everything that lists what can be chosen from.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
    /// Do not cut anything short
    #[arg(long)]
    pub(super) no_trunc: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// table, json, or a template as '{{.ID}}' or 'table {{.ID}}\t{{.Labels}}'
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: ListFormat,
}

/// Arguments that choose.
#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Only what this is true for, as name=web
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = filter)]
    filters: Vec<(String, String)>,
}

/// How a list is shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ListFormat {
    /// A table of the usual columns.
    Table,
    /// A table of these columns, divided by tabs.
    Columns(Template),
    /// One JSON object a line.
    Json,
    /// One line each, as the template makes it.
    Template(Template),
}

/// How one thing is shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ObjectFormat {
    /// JSON without line breaks.
    Json,
    /// What the template makes of it.
    Template(Template),
}

/// Something in a list.
pub(super) trait Row: Serialize {
    /// The heads of the columns that each field can stand in.
    const HEADS: &'static [(&'static str, &'static str)];
    /// The fields that a table shows.
    const COLUMNS: &'static [&'static str];

    /// What is shown when ids only are wanted.
    fn id(&self) -> &str;
    /// Its labels.
    fn labels(&self) -> &BTreeMap<String, String>;
}

impl ListArgs {
    /// What is asked of each field.
    pub(super) fn filters(&self) -> Filters {
        self.filter.filters()
    }

    /// Prints a list.
    pub(super) fn print<R: Row>(&self, rows: impl IntoIterator<Item = R>) -> Result<()> {
        let mut rows = rows.into_iter();
        if self.quiet {
            return rows.try_for_each(|row| print::line(row.id()));
        }
        match &self.format {
            ListFormat::Json => rows.try_for_each(|row| print::json(&row)),
            ListFormat::Template(template) => rows.try_for_each(|row| print::line(&filled(template, &row)?)),
            ListFormat::Columns(template) => print::line(&columns(template, rows)?),
            ListFormat::Table => print::line(&usual::<R>(rows)?),
        }
    }
}

impl FilterArgs {
    /// What is asked of each field.
    pub(super) fn filters(&self) -> Filters {
        by_field(&self.filters)
    }
}

/// Values that were given one by one.
pub(super) fn by_field(given: &[(String, String)]) -> Filters {
    let mut filters = Filters::new();
    for (field, value) in given {
        filters.entry(field.clone()).or_default().insert(value.clone());
    }
    filters
}

impl FromStr for ListFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            text => match text.strip_prefix("table ") {
                Some(columns) => template(columns.trim_start()).map(Self::Columns),
                None => template(text).map(Self::Template),
            },
        }
    }
}

impl FromStr for ObjectFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "json" => Ok(Self::Json),
            text => template(text).map(Self::Template),
        }
    }
}

impl ObjectFormat {
    /// Prints the things that were looked up.
    pub(super) fn print(&self, objects: &[impl Serialize]) -> Result<()> {
        match self {
            Self::Json => print::json(&objects),
            Self::Template(template) => objects.iter().try_for_each(|object| {
                let data = serde_json::to_value(object).context("write JSON")?;
                print::line(&template.fill(Filling { data: &data, labels: Some(&BTreeMap::new()) })?)
            }),
        }
    }
}

/// A word that is no template would print itself once for everything in the list.
fn template(text: &str) -> Result<Template, String> {
    if !text.contains("{{") {
        return Err("it should be json, or a template as '{{.ID}}'; where lists are shown also table, or \
                    'table {{.ID}}\\t{{.Labels}}'"
            .to_owned());
    }
    text.parse()
}

/// Reads one value of a filter.
pub(super) fn filter(text: &str) -> Result<(String, String), String> {
    let (field, value) = text
        .split_once('=')
        .ok_or_else(|| "invalid argument: bad format of filter (expected name=value)".to_owned())?;
    Ok((field.trim().to_lowercase(), value.trim().to_owned()))
}

fn filled<R: Row>(template: &Template, row: &R) -> Result<String> {
    let data = serde_json::to_value(row).context("write JSON")?;
    template.fill(Filling { data: &data, labels: Some(row.labels()) })
}

fn columns<R: Row>(template: &Template, rows: impl Iterator<Item = R>) -> Result<String> {
    let cells = |line: String| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
    let heads: Value =
        R::HEADS.iter().map(|(field, head)| ((*field).to_owned(), Value::from(*head))).collect();
    let header = cells(template.fill(Filling { data: &heads, labels: None })?);
    let rows = rows.map(|row| filled(template, &row).map(cells)).collect::<Result<Vec<_>>>()?;
    Ok(table::render_rows(header, rows))
}

fn usual<R: Row>(rows: impl Iterator<Item = R>) -> Result<String> {
    let head = |field: &str| {
        let found = R::HEADS.iter().find(|(known, _)| *known == field);
        found.map(|(_, head)| (*head).to_owned()).unwrap_or_default()
    };
    let cells = |row: R| {
        let data = serde_json::to_value(&row).context("write JSON")?;
        let cell = |field: &&str| data.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(R::COLUMNS.iter().map(cell).collect())
    };
    let rows = rows.map(cells).collect::<Result<Vec<_>>>()?;
    Ok(table::render_rows(R::COLUMNS.iter().map(|field| head(field)).collect(), rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Thing {
        #[serde(rename = "ID")]
        id: String,
        name: String,
        #[serde(skip)]
        labels: BTreeMap<String, String>,
    }

    impl Row for Thing {
        const HEADS: &'static [(&'static str, &'static str)] = &[("ID", "THING ID"), ("Name", "NAME")];
        const COLUMNS: &'static [&'static str] = &["Name", "ID"];

        fn id(&self) -> &str {
            &self.id
        }

        fn labels(&self) -> &BTreeMap<String, String> {
            &self.labels
        }
    }

    fn things() -> impl Iterator<Item = Thing> {
        [("1", "web"), ("2", "a-longer-name")].into_iter().map(|(id, name)| Thing {
            id: id.into(),
            name: name.into(),
            labels: [("tier".to_owned(), format!("t{id}"))].into(),
        })
    }

    #[test]
    fn a_table_has_the_columns_asked_for_under_their_heads() {
        let expected = "NAME            THING ID\nweb             1\na-longer-name   2";
        assert_eq!(usual(things()).unwrap(), expected);
        let ListFormat::Columns(template) = r#"table {{.ID}}\t{{.Name}}\t{{.Label "tier"}}"#.parse().unwrap()
        else {
            panic!("these are columns")
        };
        let expected = "\
THING ID   NAME            TIER
1          web             t1
2          a-longer-name   t2";
        assert_eq!(columns(&template, things()).unwrap(), expected);
        assert_eq!(columns(&template, things().take(0)).unwrap(), "THING ID   NAME      TIER");
    }

    #[test]
    fn a_template_makes_a_line_each() {
        let ListFormat::Template(template) = "{{.Name}}={{.Label \"tier\"}}".parse().unwrap() else {
            panic!("this is a template")
        };
        let lines: Vec<_> = things().map(|thing| filled(&template, &thing).unwrap()).collect();
        assert_eq!(lines, ["web=t1", "a-longer-name=t2"]);
        let missing: Template = "{{.Nmae}}".parse().unwrap();
        assert!(columns(&missing, things()).unwrap_err().to_string().contains("there are: ID, Name"));
    }

    #[test]
    fn a_format_is_told_from_a_word() {
        assert_eq!("table".parse(), Ok(ListFormat::Table));
        assert_eq!(" json ".parse(), Ok(ListFormat::Json));
        assert_eq!("json".parse(), Ok(ObjectFormat::Json));
        assert!("yaml".parse::<ListFormat>().unwrap_err().contains("template as '{{.ID}}'"));
        assert!("table".parse::<ObjectFormat>().is_err());
        assert!("{{.ID".parse::<ListFormat>().unwrap_err().contains("unclosed action"));
    }

    #[test]
    fn a_filter_is_a_field_and_a_value() {
        assert_eq!(filter(" Name = web"), Ok(("name".into(), "web".into())));
        assert_eq!(filter("label=a=b"), Ok(("label".into(), "a=b".into())));
        assert!(filter("web").unwrap_err().contains("expected name=value"));
    }
}
