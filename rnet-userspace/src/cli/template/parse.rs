//! Reading a template.

use std::{fmt, iter::Peekable, vec::IntoIter};

use serde_json::Value;

use super::{Result, call};

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Text(String),
    Show(Expr),
    If { condition: Expr, then: Vec<Node>, otherwise: Vec<Node> },
    With { what: Expr, then: Vec<Node>, otherwise: Vec<Node> },
    Range { key: Option<String>, item: Option<String>, over: Expr, each: Vec<Node>, otherwise: Vec<Node> },
}

/// What has a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    Dot,
    /// By its name without `$`; empty for what the whole template is filled with.
    Variable(String),
    Literal(Value),
    Field(Box<Expr>, String),
    /// `.Label "KEY"`
    Label(Box<Expr>),
    Call(String, Vec<Expr>),
}

/// How deep blocks, parentheses, fields and pipes may be nested: each level takes stack, here and when it is filled.
const DEEPEST: usize = 100;

fn too_deep() -> String {
    format!("it is nested deeper than {DEEPEST} levels")
}

/// The parts of a template.
pub(super) fn parse(text: &str) -> Result<Vec<Node>> {
    let mut parser = Parser { pieces: pieces(text)?.into_iter().peekable(), depth: 0 };
    let nodes = parser.nodes()?;
    match parser.pieces.next() {
        None => Ok(nodes),
        Some(Piece::Action(tokens)) => {
            Err(format!("unexpected {{{{{}}}}}", word(&tokens).unwrap_or_default()))
        }
        Some(Piece::Text(text)) => Err(format!("unexpected {text:?}")),
    }
}

enum Piece {
    Text(String),
    Action(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// A function or keyword.
    Word(String),
    /// `.`, or the names of `.A.B`; whether it stands right behind what is before it.
    Path(Vec<String>, bool),
    Variable(String),
    Literal(Value),
    Open,
    Close,
    Pipe,
    Comma,
    Assign,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => f.write_str(word),
            Self::Path(names, _) => write!(f, ".{}", names.join(".")),
            Self::Variable(name) => write!(f, "${name}"),
            Self::Literal(value) => write!(f, "{value}"),
            Self::Open => f.write_str("("),
            Self::Close => f.write_str(")"),
            Self::Pipe => f.write_str("|"),
            Self::Comma => f.write_str(","),
            Self::Assign => f.write_str(":="),
        }
    }
}

/// Text and actions in turn, white space trimmed where `-` asks for it.
fn pieces(text: &str) -> Result<Vec<Piece>> {
    let (mut pieces, mut rest, mut trim) = (Vec::new(), text, false);
    while let Some(at) = rest.find("{{") {
        let (before, after) = rest.split_at(at);
        let mut inner = &after[2..];
        let trim_before = inner.starts_with("- ");
        inner = if trim_before { &inner[2..] } else { inner };
        let mut literal = if trim { before.trim_start() } else { before };
        literal = if trim_before { literal.trim_end() } else { literal };
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal.to_owned()));
        }
        let end = end_of_action(inner).ok_or("unclosed action")?;
        let mut action = &inner[..end];
        rest = &inner[end + 2..];
        trim = action.ends_with(" -");
        action = if trim { &action[..action.len() - 2] } else { action };
        let action = action.trim();
        if !(action.starts_with("/*") && action.ends_with("*/")) {
            pieces.push(Piece::Action(tokens(action)?));
        }
    }
    let literal = if trim { rest.trim_start() } else { rest };
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal.to_owned()));
    }
    Ok(pieces)
}

/// Where `}}` stands outside of quotes.
fn end_of_action(text: &str) -> Option<usize> {
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in text.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if open == c => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if text[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    None
}

fn tokens(action: &str) -> Result<Vec<Token>> {
    let (mut tokens, mut rest, mut glued) = (Vec::new(), action, false);
    while !rest.is_empty() {
        let blank = rest.len() - rest.trim_start().len();
        if blank > 0 {
            (rest, glued) = (&rest[blank..], false);
            continue;
        }
        let (token, length) = token(rest, glued)?;
        tokens.push(token);
        (rest, glued) = (&rest[length..], true);
    }
    Ok(tokens)
}

/// The first token of `text`, and how long it is there.
fn token(text: &str, glued: bool) -> Result<(Token, usize)> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let until = |from: usize, ends: &dyn Fn(char) -> bool| {
        text[from..].find(ends).map_or(text.len(), |length| from + length)
    };
    let first = text.chars().next().unwrap_or_default();
    Ok(match first {
        '(' => (Token::Open, 1),
        ')' => (Token::Close, 1),
        '|' => (Token::Pipe, 1),
        ',' => (Token::Comma, 1),
        ':' if text.starts_with(":=") => (Token::Assign, 2),
        '"' => {
            let mut json = serde_json::Deserializer::from_str(text).into_iter::<String>();
            let read = json.next().and_then(std::result::Result::ok);
            let read = read.ok_or_else(|| format!("{text}: invalid text in quotes"))?;
            (Token::Literal(read.into()), json.byte_offset())
        }
        '`' => {
            let end = text[1..].find('`').ok_or("unterminated raw quoted string")?;
            (Token::Literal(text[1..=end].into()), end + 2)
        }
        '$' => {
            let end = until(1, &|c| !is_name(c));
            (Token::Variable(text[1..end].to_owned()), end)
        }
        '.' => {
            let end = until(1, &|c| !is_name(c) && c != '.');
            let names: Vec<_> = text[1..end].split('.').map(str::to_owned).collect();
            match names.as_slice() {
                [only] if only.is_empty() => (Token::Path(Vec::new(), glued), end),
                names if names.iter().any(String::is_empty) => return Err("unexpected . after .".to_owned()),
                _ => (Token::Path(names, glued), end),
            }
        }
        c if c.is_ascii_digit() || (c == '-' && !glued) => {
            let end = until(1, &|c| !c.is_ascii_digit());
            let number = &text[..end];
            let parsed = number.parse::<i64>().map_err(|_| format!("bad number syntax: {number}"))?;
            (Token::Literal(parsed.into()), end)
        }
        '-' => return Err("unexpected '-': write (index . \"NAME\") for a name with one".to_owned()),
        c if is_name(c) => {
            let end = until(0, &|c| !is_name(c));
            let token = match &text[..end] {
                "true" => Token::Literal(true.into()),
                "false" => Token::Literal(false.into()),
                "nil" => Token::Literal(Value::Null),
                name => Token::Word(name.to_owned()),
            };
            (token, end)
        }
        c => return Err(format!("unexpected {c:?} in {{{{{text}}}}}")),
    })
}

/// The word that an action begins with.
fn word(tokens: &[Token]) -> Option<&str> {
    match tokens.first() {
        Some(Token::Word(word)) => Some(word),
        _ => None,
    }
}

struct Parser {
    pieces: Peekable<IntoIter<Piece>>,
    /// Blocks that are open.
    depth: usize,
}

impl Parser {
    /// Up to the end, or to an `else` or `end`.
    fn nodes(&mut self) -> Result<Vec<Node>> {
        let mut nodes = Vec::new();
        while let Some(piece) =
            self.pieces.next_if(|p| !matches!(p, Piece::Action(t) if matches!(word(t), Some("else" | "end"))))
        {
            nodes.push(match piece {
                Piece::Text(text) => Node::Text(text),
                Piece::Action(tokens) => self.action(tokens)?,
            });
        }
        Ok(nodes)
    }

    fn action(&mut self, tokens: Vec<Token>) -> Result<Node> {
        let keyword = word(&tokens).filter(|w| matches!(*w, "if" | "with" | "range")).map(str::to_owned);
        let Some(keyword) = keyword else {
            if tokens.contains(&Token::Assign) {
                return Err("variables are known in {{range}} only".to_owned());
            }
            return Ok(Node::Show(pipeline(tokens)?));
        };
        let mut head = tokens[1..].to_vec();
        let mut names = Vec::new();
        if let Some(at) = head.iter().position(|token| *token == Token::Assign) {
            if keyword != "range" {
                return Err("variables are known in {{range}} only".to_owned());
            }
            for token in head.drain(..=at) {
                match token {
                    Token::Variable(ref name) if !name.is_empty() => names.push(name.clone()),
                    Token::Comma | Token::Assign => {}
                    Token::Variable(_)
                    | Token::Word(_)
                    | Token::Path(..)
                    | Token::Literal(_)
                    | Token::Open
                    | Token::Close
                    | Token::Pipe => return Err(format!("unexpected {token} in range")),
                }
            }
        }
        let (key, item) = match names.len() {
            0 => (None, None),
            1 => (None, names.pop()),
            2 => (Some(names.remove(0)), names.pop()),
            _ => return Err("too many variables in range".to_owned()),
        };
        let head = pipeline(head)?;
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(too_deep());
        }
        let then = self.nodes()?;
        let otherwise = self.otherwise(&keyword)?;
        self.depth -= 1;
        Ok(match keyword.as_str() {
            "if" => Node::If { condition: head, then, otherwise },
            "with" => Node::With { what: head, then, otherwise },
            _ => Node::Range { key, item, over: head, each: then, otherwise },
        })
    }

    /// What follows `else`, up to the `end` of a block.
    fn otherwise(&mut self, keyword: &str) -> Result<Vec<Node>> {
        let Some(Piece::Action(tokens)) = self.pieces.next() else {
            return Err(format!("unexpected end: {{{{{keyword}}}}} is not closed by {{{{end}}}}"));
        };
        if word(&tokens) == Some("end") {
            return Ok(Vec::new());
        }
        if tokens.len() > 1 {
            // `else if` is an `if` in the `else`, and shares its `end`.
            return Ok(vec![self.action(tokens[1..].to_vec())?]);
        }
        let nodes = self.nodes()?;
        match self.pieces.next() {
            Some(Piece::Action(tokens)) if word(&tokens) == Some("end") => Ok(nodes),
            _ => Err(format!("unexpected end: {{{{{keyword}}}}} is not closed by {{{{end}}}}")),
        }
    }
}

/// Commands behind `|` get what is before them as their last argument.
fn pipeline(tokens: Vec<Token>) -> Result<Expr> {
    let deeper = |token: &Token| match token {
        Token::Path(names, _) => names.len(),
        Token::Open | Token::Pipe => 1,
        Token::Word(_)
        | Token::Variable(_)
        | Token::Literal(_)
        | Token::Close
        | Token::Comma
        | Token::Assign => 0,
    };
    if tokens.iter().map(deeper).sum::<usize>() > DEEPEST {
        return Err(too_deep());
    }
    let mut tokens = tokens.into_iter().peekable();
    let expr = commands(&mut tokens)?;
    match tokens.next() {
        None => Ok(expr),
        Some(Token::Close) => Err("unexpected right paren".to_owned()),
        Some(other) => Err(format!("unexpected {other}")),
    }
}

fn commands(tokens: &mut Peekable<IntoIter<Token>>) -> Result<Expr> {
    let mut expr = command(tokens, None)?;
    while tokens.next_if_eq(&Token::Pipe).is_some() {
        expr = command(tokens, Some(expr))?;
    }
    Ok(expr)
}

fn command(tokens: &mut Peekable<IntoIter<Token>>, piped: Option<Expr>) -> Result<Expr> {
    if let Some(Token::Word(function)) = tokens.next_if(|token| matches!(token, Token::Word(_))) {
        let mut args = Vec::new();
        while let Some(arg) = operand(tokens)? {
            args.push(arg);
        }
        args.extend(piped);
        call::check(&function, args.len())?;
        return Ok(Expr::Call(function, args));
    }
    let first = operand(tokens)?.ok_or("missing value for command")?;
    let arg = operand(tokens)?;
    match (first, arg, piped) {
        (first, None, None) => Ok(first),
        (Expr::Field(of, name), Some(key), None) if name == "Label" && *of == Expr::Dot => {
            Ok(Expr::Label(Box::new(key)))
        }
        _ => Err("can't give argument to non-function".to_owned()),
    }
}

/// One value, if there is another.
fn operand(tokens: &mut Peekable<IntoIter<Token>>) -> Result<Option<Expr>> {
    let ends = |token: &Token| matches!(token, Token::Pipe | Token::Close | Token::Comma | Token::Assign);
    let Some(token) = tokens.next_if(|token| !ends(token)) else { return Ok(None) };
    let mut expr = match token {
        Token::Path(names, _) => names.into_iter().fold(Expr::Dot, nested),
        Token::Variable(name) => Expr::Variable(name),
        Token::Literal(value) => Expr::Literal(value),
        Token::Word(function) => {
            call::check(&function, 0)?;
            Expr::Call(function, Vec::new())
        }
        Token::Open => {
            let inner = commands(tokens)?;
            if tokens.next() != Some(Token::Close) {
                return Err("unclosed left paren".to_owned());
            }
            inner
        }
        Token::Close | Token::Pipe | Token::Comma | Token::Assign => return Ok(None),
    };
    while let Some(Token::Path(names, _)) = tokens.next_if(|token| matches!(token, Token::Path(_, true))) {
        expr = names.into_iter().fold(expr, nested);
    }
    Ok(Some(expr))
}

fn nested(of: Expr, name: String) -> Expr {
    Expr::Field(Box::new(of), name)
}
