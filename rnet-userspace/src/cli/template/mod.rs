//! Go's templates, as `docker --format` takes them: the part of the language that is about showing fields.
//!
//! Understood are fields, `index`, `range`, `if`, `with`, variables of `range`, pipes, and the functions that
//! [`call`] lists. Everything else is refused when the template is read, before anything is asked of the daemon.

mod call;
mod parse;

use std::{collections::BTreeMap, str::FromStr};

use serde_json::Value;

use self::parse::{Expr, Node, parse};

/// A template that has been read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template {
    nodes: Vec<Node>,
}

/// What a template is filled with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filling<'a> {
    /// What `.` is.
    pub(super) data: &'a Value,
    /// What `.Label "KEY"` finds; absent for the heads of columns, which are called as their labels.
    pub(super) labels: Option<&'a BTreeMap<String, String>>,
}

/// Why a template cannot be filled: words of Go's where it has them.
type Result<T, E = String> = std::result::Result<T, E>;

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self> {
        // A shell passes these on as they are typed.
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        parse(&text).map(|nodes| Self { nodes }).map_err(|e| format!("template parsing error: {e}"))
    }
}

impl Template {
    /// The text that it makes.
    ///
    /// # Errors
    /// When it asks for what is not there.
    pub(super) fn fill(&self, filling: Filling<'_>) -> anyhow::Result<String> {
        let mut text = String::new();
        let mut scope = Scope { filling, variables: Vec::new() };
        match scope.run(&self.nodes, filling.data, &mut text) {
            Ok(()) => Ok(text),
            Err(e) => Err(anyhow::anyhow!("template parsing error: {e}")),
        }
    }
}

struct Scope<'a> {
    filling: Filling<'a>,
    variables: Vec<(String, Value)>,
}

impl Scope<'_> {
    fn run(&mut self, nodes: &[Node], dot: &Value, text: &mut String) -> Result<()> {
        for node in nodes {
            match node {
                Node::Text(literal) => text.push_str(literal),
                Node::Show(expr) => text.push_str(&call::shown(&self.value(expr, dot)?)),
                Node::If { condition, then, otherwise } => {
                    let holds = call::is_true(&self.value(condition, dot)?);
                    self.run(if holds { then } else { otherwise }, dot, text)?;
                }
                Node::With { what, then, otherwise } => {
                    let what = self.value(what, dot)?;
                    if call::is_true(&what) {
                        self.run(then, &what, text)?;
                    } else {
                        self.run(otherwise, dot, text)?;
                    }
                }
                Node::Range { key, item, over, each, otherwise } => {
                    let items = items(self.value(over, dot)?)?;
                    if items.is_empty() {
                        self.run(otherwise, dot, text)?;
                    }
                    for (at, of) in items {
                        let known = self.variables.len();
                        self.variables.extend(key.iter().map(|name| (name.clone(), at.clone())));
                        self.variables.extend(item.iter().map(|name| (name.clone(), of.clone())));
                        self.run(each, &of, text)?;
                        self.variables.truncate(known);
                    }
                }
            }
        }
        Ok(())
    }

    fn value(&self, expr: &Expr, dot: &Value) -> Result<Value> {
        match expr {
            Expr::Dot => Ok(dot.clone()),
            Expr::Literal(value) => Ok(value.clone()),
            Expr::Variable(name) if name.is_empty() => Ok(self.filling.data.clone()),
            Expr::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.map(|(_, value)| value.clone()).ok_or_else(|| format!("undefined variable \"${name}\""))
            }
            Expr::Field(of, name) => field(&self.value(of, dot)?, name),
            Expr::Label(key) => {
                let Value::String(key) = self.value(key, dot)? else {
                    return Err("wrong type for value of Label; expected string".to_owned());
                };
                Ok(Value::String(match self.filling.labels {
                    Some(labels) => labels.get(&key).cloned().unwrap_or_default(),
                    None => key.to_uppercase(),
                }))
            }
            Expr::Call(function, args) => {
                let args = args.iter().map(|arg| self.value(arg, dot)).collect::<Result<Vec<_>>>()?;
                call::call(function, &args)
            }
        }
    }
}

/// A field by its name; where there is none, the one whose name differs in case alone: what is a field of Go's
/// here may begin with a small letter in JSON.
fn field(of: &Value, name: &str) -> Result<Value> {
    match of {
        Value::Object(fields) => {
            let found = fields.get(name).or_else(|| {
                let alike = |(key, _): &(&String, &Value)| key.eq_ignore_ascii_case(name);
                fields.iter().find(alike).map(|(_, value)| value)
            });
            found.cloned().ok_or_else(|| {
                let there = fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                format!(
                    "executing \"\" at <.{name}>: map has no entry for key \"{name}\"; there are: {there}"
                )
            })
        }
        Value::Null => {
            Err(format!("executing \"\" at <.{name}>: nil pointer evaluating interface {{}}.{name}"))
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(format!("executing \"\" at <.{name}>: can't evaluate field {name} in {}", call::kind(of)))
        }
    }
}

fn items(of: Value) -> Result<Vec<(Value, Value)>> {
    match of {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => Ok(items.into_iter().enumerate().map(|(n, item)| (n.into(), item)).collect()),
        Value::Object(fields) => Ok(fields.into_iter().map(|(key, value)| (key.into(), value)).collect()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Err(format!("range can't iterate over {}", call::shown(&of)))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fill(template: &str) -> Result<String> {
        let data = json!({
            "ID": "0123456789ab", "Name": "web", "Count": 3, "Up": true, "None": null, "timeNano": 5,
            "Networks": { "n1": { "IP": "10.1.0.2" }, "n2": { "IP": "10.2.0.2" } },
            "Config": [{ "Subnet": "10.1.0.0/24" }, { "Subnet": "fd00::/64" }],
            "Ports": { "80/tcp": [{ "HostPort": "8080" }], "81/tcp": null },
            "Empty": [], "Words": ["b", "a"],
        });
        let labels = [("com.example.a".to_owned(), "1".to_owned())].into();
        let template: Template = template.parse()?;
        template.fill(Filling { data: &data, labels: Some(&labels) }).map_err(|e| e.to_string())
    }

    #[test]
    fn what_dockers_users_write_is_understood() {
        for (template, text) in [
            ("plain", "plain"),
            ("{{.ID}}: {{.Name}}", "0123456789ab: web"),
            ("{{ .ID }}\\t{{.Name}}", "0123456789ab\tweb"),
            ("{{json .Config}}", r#"[{"Subnet":"10.1.0.0/24"},{"Subnet":"fd00::/64"}]"#),
            ("{{.Config | json}}", r#"[{"Subnet":"10.1.0.0/24"},{"Subnet":"fd00::/64"}]"#),
            ("{{json .Networks.n1}}", r#"{"IP":"10.1.0.2"}"#),
            ("{{.Networks.n1.IP}}", "10.1.0.2"),
            ("{{range .Networks}}{{.IP}} {{end}}", "10.1.0.2 10.2.0.2 "),
            ("{{range $name, $of := .Networks}}{{$name}}={{$of.IP}};{{end}}", "n1=10.1.0.2;n2=10.2.0.2;"),
            ("{{range $of := .Config}}{{$of.Subnet}} {{$.Name}} {{end}}", "10.1.0.0/24 web fd00::/64 web "),
            ("{{range $n, $w := .Words}}{{$n}}{{$w}}{{end}}", "0b1a"),
            ("{{range .Empty}}x{{else}}nothing{{end}}", "nothing"),
            ("{{(index .Config 0).Subnet}}", "10.1.0.0/24"),
            ("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8080"),
            ("{{index .Networks \"n2\" \"IP\"}}", "10.2.0.2"),
            ("{{if .Up}}up{{else}}down{{end}}", "up"),
            ("{{if .Empty}}a{{else if eq .Name \"web\"}}b{{else}}c{{end}}", "b"),
            ("{{with .Networks.n1}}{{.IP}}{{end}}{{with .None}}x{{else}}y{{end}}", "10.1.0.2y"),
            ("{{upper .Name}} {{lower \"AB\"}} {{len .Words}} {{join .Words \",\"}}", "WEB ab 2 b,a"),
            ("{{println .Name}}{{print .Count}}", "web\n3"),
            ("{{index (split .Name \"e\") 1}}", "b"),
            ("{{printf \"%s-%d-%v\" .Name .Count .Up}}", "web-3-true"),
            ("{{truncate .ID 4}}{{pad .Name 1 2}}|", "0123 web  |"),
            ("{{.None}} {{.Words}} {{.Networks.n1}}", "<no value> [b a] map[IP:10.1.0.2]"),
            ("{{.Label \"com.example.a\"}}{{.Label \"b\"}}", "1"),
            ("a {{- .Name -}} b", "awebb"),
            ("{{/* why */}}{{.TimeNano}}", "5"),
            ("{{and .Up .Name}} {{or .None .Name}} {{not .Up}} {{ne 1 2}}", "web web false true"),
            ("{{\"{{\"}}{{`a`}}", "{{a"),
        ] {
            assert_eq!(fill(template).as_deref(), Ok(text), "{template}");
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        for (template, reason) in [
            ("{{.Nmae}}", "map has no entry for key \"Nmae\"; there are: Config, Count, "),
            ("{{.None.IP}}", "nil pointer evaluating interface {}.IP"),
            ("{{.Name.First}}", "can't evaluate field First in string"),
            ("{{index .Config 2}}", "index out of range: 2"),
            ("{{index .Name \"x\"}}", "can't index item of type string"),
            ("{{range .Name}}{{end}}", "range can't iterate over web"),
            ("{{len .Count}}", "len of number"),
            ("{{printf \"%q\" .Name}}", "%q"),
        ] {
            let refused = fill(template).unwrap_err();
            assert!(refused.starts_with("template parsing error: ") && refused.contains(reason), "{refused}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused_when_it_is_read() {
        for (template, reason) in [
            ("{{.Name", "unclosed action"),
            ("{{}}", "missing value for command"),
            ("{{.Name | }}", "missing value for command"),
            ("{{if .Up}}", "unexpected end: {{if}} is not closed"),
            ("{{end}}", "unexpected {{end}}"),
            ("{{else}}", "unexpected {{else}}"),
            ("{{frobnicate .Name}}", "function \"frobnicate\" is not there; there are: and, "),
            ("{{$x := .Name}}", "variables are known in {{range}} only"),
            ("{{template \"x\"}}", "function \"template\" is not there"),
            ("{{.my-net}}", "unexpected '-': write (index . \"NAME\")"),
            ("{{(.Name}}", "unclosed left paren"),
            ("{{\"a}}", "unclosed action"),
            ("{{range $a, $b, $c := .X}}{{end}}", "too many variables"),
            ("{{json}}", "wrong number of args for json"),
        ] {
            let refused = template.parse::<Template>().unwrap_err();
            assert!(
                refused.starts_with("template parsing error: ") && refused.contains(reason),
                "{template}: {refused}"
            );
        }
    }

    #[test]
    fn heads_of_columns_are_called_as_their_labels() {
        let template: Template = "{{.Name}} {{.Label \"tier\"}}".parse().unwrap();
        let data = json!({ "Name": "NAME" });
        assert_eq!(template.fill(Filling { data: &data, labels: None }).unwrap(), "NAME TIER");
    }

    #[test]
    fn what_would_take_all_stack_or_memory_is_refused() {
        let deep = |open: &str, middle: &str, close: &str| {
            format!("{}{middle}{}", open.repeat(50_000), close.repeat(50_000))
        };
        let inside = |action: String| format!("{{{{{action}}}}}");
        for template in [
            inside(deep("(", ".Name", ")")),
            inside(deep(".a", "", "")),
            inside(format!("1{}", deep(" | len", "", ""))),
            deep("{{if .Up}}", "x", "{{end}}"),
            format!("{{{{if .Up}}}}{}", deep("{{else if .Up}}", "{{end}}", "")),
        ] {
            let refused = fill(&template).unwrap_err();
            assert!(refused.contains("nested deeper than 100 levels"), "{}", refused.len());
        }
        assert_eq!(fill(&inside(format!("{}.Name{}", "(".repeat(90), ")".repeat(90)))).unwrap(), "web");
        let refused = fill("{{pad .Name 9223372036854775807 1}}").unwrap_err();
        assert!(refused.contains("65536 is the most"), "{refused}");
    }
}
