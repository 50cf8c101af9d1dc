//! The functions of templates, and how values are shown.

use serde_json::Value;

use super::Result;

/// Every function with the fewest and the most arguments that it takes.
const FUNCTIONS: [(&str, usize, usize); 18] = [
    ("and", 1, MANY),
    ("eq", 2, MANY),
    ("index", 1, MANY),
    ("join", 2, 2),
    ("json", 1, 1),
    ("len", 1, 1),
    ("lower", 1, 1),
    ("ne", 2, 2),
    ("not", 1, 1),
    ("or", 1, MANY),
    ("pad", 3, 3),
    ("print", 0, MANY),
    ("printf", 1, MANY),
    ("println", 0, MANY),
    ("split", 2, 2),
    ("title", 1, 1),
    ("truncate", 2, 2),
    ("upper", 1, 1),
];
const MANY: usize = usize::MAX;
/// Columns that `pad` adds at most.
const WIDEST: usize = 65_536;

/// Checks that there is a function and that it takes so many arguments.
pub(super) fn check(function: &str, args: usize) -> Result<()> {
    let Some((_, fewest, most)) = FUNCTIONS.iter().find(|(name, ..)| *name == function) else {
        let names = FUNCTIONS.map(|(name, ..)| name).join(", ");
        return Err(format!("function \"{function}\" is not there; there are: {names}"));
    };
    if (*fewest..=*most).contains(&args) {
        return Ok(());
    }
    Err(format!("wrong number of args for {function}: want at least {fewest} got {args}"))
}

/// Calls a function that has been checked.
pub(super) fn call(function: &str, args: &[Value]) -> Result<Value> {
    let text = |n: usize| args.get(n).map(shown).unwrap_or_default();
    match (function, args) {
        ("and", _) => Ok(args.iter().find(|arg| !is_true(arg)).or(args.last()).cloned().unwrap_or_default()),
        ("or", _) => Ok(args.iter().find(|arg| is_true(arg)).or(args.last()).cloned().unwrap_or_default()),
        ("not", [arg]) => Ok((!is_true(arg)).into()),
        ("eq", [first, others @ ..]) => Ok(others.contains(first).into()),
        ("ne", [a, b]) => Ok((a != b).into()),
        ("index", [of, keys @ ..]) => keys.iter().try_fold(of.clone(), index),
        ("join", [Value::Array(items), _]) => {
            Ok(items.iter().map(shown).collect::<Vec<_>>().join(&text(1)).into())
        }
        ("json", [arg]) => serde_json::to_string(arg).map(Value::from).map_err(|e| e.to_string()),
        ("len", [Value::Array(items)]) => Ok(items.len().into()),
        ("len", [Value::Object(fields)]) => Ok(fields.len().into()),
        ("len", [Value::String(text)]) => Ok(text.len().into()),
        ("len", [Value::Null]) => Ok(0.into()),
        ("lower", _) => Ok(text(0).to_lowercase().into()),
        ("upper", _) => Ok(text(0).to_uppercase().into()),
        ("title", _) => Ok(title(&text(0)).into()),
        ("pad", [_, before, after]) => Ok(format!("{}{}{}", blanks(before)?, text(0), blanks(after)?).into()),
        ("print", _) => Ok(args.iter().map(shown).collect::<String>().into()),
        ("println", _) => Ok((args.iter().map(shown).collect::<Vec<_>>().join(" ") + "\n").into()),
        ("printf", [Value::String(format), args @ ..]) => printf(format, args),
        ("split", _) => Ok(text(0).split(&text(1)).map(Value::from).collect()),
        ("truncate", [_, length]) => Ok(text(0).chars().take(number(length)?).collect::<String>().into()),
        (_, args) => {
            let kinds = args.iter().map(kind).collect::<Vec<_>>().join(" and ");
            Err(format!("{function} of {kinds} cannot be told"))
        }
    }
}

/// A value as Go prints it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let pairs = fields.iter().map(|(key, value)| format!("{key}:{}", shown(value)));
            format!("map[{}]", pairs.collect::<Vec<_>>().join(" "))
        }
    }
}

/// Whether a value counts as true: whether it is neither zero nor empty.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "map",
    }
}

fn index(of: Value, key: &Value) -> Result<Value> {
    match (of, key) {
        (Value::Object(mut fields), Value::String(key)) => Ok(fields.remove(key).unwrap_or_default()),
        (Value::Array(mut items), Value::Number(_)) => {
            let at = number(key)?;
            if at < items.len() {
                Ok(items.swap_remove(at))
            } else {
                Err(format!("index out of range: {at}"))
            }
        }
        (Value::Null, _) => Err("index of untyped nil".to_owned()),
        (of, key) => Err(format!("can't index item of type {} with {}", kind(&of), kind(key))),
    }
}

fn blanks(width: &Value) -> Result<String> {
    let width = number(width)?;
    if width > WIDEST {
        return Err(format!("cannot pad by {width}: {WIDEST} is the most"));
    }
    Ok(" ".repeat(width))
}

fn number(value: &Value) -> Result<usize> {
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| format!("cannot count with {}", shown(value)))
}

fn title(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// The verbs that fields are shown with: `%s`, `%d`, `%v`, and `%%`.
fn printf(format: &str, args: &[Value]) -> Result<Value> {
    let (mut text, mut args, mut chars) = (String::new(), args.iter(), format.chars());
    while let Some(c) = chars.next() {
        match (c, (c == '%').then(|| chars.next())) {
            (_, None) => text.push(c),
            (_, Some(Some('%'))) => text.push('%'),
            (_, Some(Some('s' | 'd' | 'v'))) => {
                let arg =
                    args.next().ok_or_else(|| format!("printf {format:?}: there are too few values"))?;
                text.push_str(&shown(arg));
            }
            (_, Some(verb)) => {
                let verb = verb.map(String::from).unwrap_or_default();
                return Err(format!("printf: %{verb} is not there; there are %s, %d, %v and %%"));
            }
        }
    }
    Ok(text.into())
}
