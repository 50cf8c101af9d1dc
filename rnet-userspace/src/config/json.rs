//! JSON whose values know where they are in the file, so that a refusal can name the place.
//!
//! serde_json reads the structure; every value stays the slice of the text that it is ([`RawValue`]) until its key
//! says what it should be.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Why a configuration file is refused, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {why}")]
pub struct Error {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub why: String,
}

/// What comes of reading a file.
pub(super) type Result<T> = std::result::Result<T, Error>;

/// A file's text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    /// What the file is called in messages.
    pub(super) file: &'a str,
    /// All of it.
    pub(super) text: &'a str,
}

/// Where something is in a file, in bytes from its beginning.
pub(super) type Offset = usize;

/// A value and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) at: Offset,
}

/// A value that nobody has read yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a> {
    source: Source<'a>,
    /// The key that it is under, as it is named in messages: `rnet.uplinks`.
    key: &'a str,
    raw: &'a RawValue,
}

/// A member of an object.
#[derive(Clone, Debug)]
pub(super) struct Member<'a> {
    pub(super) name: String,
    /// Where its name is.
    pub(super) at: Offset,
    pub(super) raw: &'a RawValue,
}

impl<'a> Source<'a> {
    /// Refuses what is at `at`.
    pub(super) fn refuse(&self, at: Offset, why: impl fmt::Display) -> Error {
        let before = &self.text[..at.min(self.text.len())];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Error {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            why: why.to_string(),
        }
    }

    /// The members of the file's object; none of an empty file, as with Docker.
    ///
    /// # Errors
    /// It is no JSON object.
    pub(super) fn members(&self) -> Result<Vec<Member<'a>>> {
        if self.text.trim_ascii().is_empty() {
            return Ok(Vec::new());
        }
        let Object(pairs) = serde_json::from_str(self.text).map_err(|e| self.not_understood(&e))?;
        Ok(self.located(pairs))
    }

    fn located(&self, pairs: Vec<(String, &'a RawValue)>) -> Vec<Member<'a>> {
        let member = |(name, raw)| Member { name, at: self.key_before(self.offset(raw)), raw };
        pairs.into_iter().map(member).collect()
    }

    /// Where a value lies in the text that it is borrowed from.
    fn offset(&self, raw: &RawValue) -> Offset {
        raw.get().as_ptr().addr() - self.text.as_ptr().addr()
    }

    /// Where the key of the value at `value` begins: serde_json has seen that it is a string and a colon.
    fn key_before(&self, value: Offset) -> Offset {
        let quotes = self.text[..value].rmatch_indices('"').map(|(at, _)| at);
        // The first is the closing one. A quote inside has an odd number of backslashes before it.
        let escaped = |at: &usize| {
            let before = &self.text.as_bytes()[..*at];
            before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
        };
        quotes.skip(1).find(|at| !escaped(at)).unwrap_or(value)
    }

    /// serde_json counts columns in bytes, and says the place in its text as well.
    fn not_understood(&self, error: &serde_json::Error) -> Error {
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let line_start: usize =
            self.text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        let mut at = (line_start + error.column().saturating_sub(1)).min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        self.refuse(at, format_args!("invalid JSON: {}", text.strip_suffix(&place).unwrap_or(&text)))
    }
}

impl<'a> Value<'a> {
    /// The value of a member, whose key is called `key` in messages.
    pub(super) fn new(source: Source<'a>, key: &'a str, member: &Member<'a>) -> Self {
        Self { source, key, raw: member.raw }
    }

    /// Where it is.
    pub(super) fn at(&self) -> Offset {
        self.source.offset(self.raw)
    }

    /// It as it is.
    pub(super) fn json(&self) -> serde_json::Value {
        // Its syntax has been read already.
        serde_json::from_str(self.raw.get()).unwrap_or_default()
    }

    /// Refuses it under its key.
    pub(super) fn refuse(&self, why: impl fmt::Display) -> Error {
        self.source.refuse(self.at(), format_args!("`{}`: {why}", self.key))
    }

    /// As `true` or `false`.
    pub(super) fn boolean(&self) -> Result<bool> {
        self.typed("true or false")
    }

    /// As a whole number.
    pub(super) fn number(&self) -> Result<u64> {
        self.typed("a whole number")
    }

    /// As a string, which `read` makes something of.
    pub(super) fn string<T, E: fmt::Display>(
        &self,
        read: impl Fn(&str) -> std::result::Result<T, E>,
    ) -> Result<T> {
        read(&self.typed::<String>("a string")?).map_err(|e| self.refuse(e))
    }

    /// As a list.
    pub(super) fn list(&self) -> Result<Vec<Self>> {
        let items: Vec<&'a RawValue> = self.typed("a list")?;
        Ok(items.into_iter().map(|raw| Self { raw, ..*self }).collect())
    }

    /// As an object.
    pub(super) fn members(&self) -> Result<Vec<Member<'a>>> {
        let Object(pairs) = self.typed("an object")?;
        Ok(self.source.located(pairs))
    }

    /// The value of one of its members, which is refused under the same key.
    pub(super) fn member(&self, member: &Member<'a>) -> Self {
        Self { raw: member.raw, ..*self }
    }

    /// Whether it is a string, whatever it says.
    pub(super) fn is_string(&self) -> bool {
        self.raw.get().starts_with('"')
    }

    fn typed<T: Deserialize<'a>>(&self, expected: &str) -> Result<T> {
        let text: &'a str = self.raw.get();
        serde_json::from_str(text).map_err(|_| {
            let found = match text.as_bytes().first() {
                Some(b'"') => "a string".to_owned(),
                Some(b'{') => "an object".to_owned(),
                Some(b'[') => "a list".to_owned(),
                // A boolean, null or a number says itself what it is.
                _ => text.to_owned(),
            };
            self.refuse(format_args!("it should be {expected}, and is {found}"))
        })
    }
}

/// An object with its members in order, those that are there twice included.
struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn source(text: &str) -> Source<'_> {
        Source { file: "f", text }
    }

    fn value<'a>(text: &'a str, key: &'a str) -> Value<'a> {
        let members = source(text).members().unwrap();
        let member = members.iter().find(|m| m.name == key).unwrap();
        Value::new(source(text), key, member)
    }

    #[test]
    fn what_is_no_object_is_refused_where_it_ends_to_be_one() {
        for (text, expected) in [
            ("{\n \"a\": 1,\n}", "f:3:1: invalid JSON: trailing comma"),
            ("{\"a\" 1}", "f:1:6: invalid JSON: expected `:`"),
            ("{\"é\": x}", "f:1:7: invalid JSON: expected value"),
            ("{\"a\": 1} x", "f:1:10: invalid JSON: trailing characters"),
            ("[1]", "f:1:1: invalid JSON: invalid type: sequence, expected an object"),
        ] {
            assert_eq!(source(text).members().unwrap_err().to_string(), expected, "{text}");
        }
        let cut = source("{\n\"a\":").members().unwrap_err();
        assert!(cut.why.contains("EOF while parsing") && cut.line == 2, "{cut}");
        assert_eq!(source(" \n").members().unwrap().len(), 0);
    }

    #[test]
    fn keys_and_values_know_their_places() {
        let text = "{ \"a\":\n  \"x\", \"q\\\"\\\\\" : [1, {\"z\": 2}] }";
        let members = source(text).members().unwrap();
        let places: Vec<_> = members.iter().map(|m| (m.name.as_str(), m.at)).collect();
        assert_eq!(places, [("a", 2), ("q\"\\", 14)]);
        assert_eq!(value(text, "a").at(), 9);
        let list = value(text, "q\"\\").list().unwrap();
        assert_eq!(list[1].members().unwrap()[0].name, "z");
        assert_eq!(list[0].refuse("no").to_string(), "f:2:19: `q\"\\`: no");
    }

    #[test]
    fn another_type_is_named_with_the_right_one() {
        let why = |text: &str, read: fn(&Value<'_>) -> Error| read(&value(text, "k")).to_string();
        let boolean: fn(&Value<'_>) -> Error = |v| v.boolean().unwrap_err();
        assert_eq!(
            why("{\"k\": \"yes\"}", boolean),
            "f:1:7: `k`: it should be true or false, and is a string"
        );
        assert!(why("{\"k\": null}", boolean).ends_with("and is null"));
        assert!(why("{\"k\": -1}", |v| v.number().unwrap_err()).ends_with("a whole number, and is -1"));
        assert!(why("{\"k\": 1.5}", |v| v.number().unwrap_err()).ends_with("and is 1.5"));
        assert!(why("{\"k\": {}}", |v| v.list().unwrap_err()).ends_with("a list, and is an object"));
        assert!(why("{\"k\": []}", |v| v.members().unwrap_err()).ends_with("an object, and is a list"));
    }

    proptest! {
        /// Whatever stands around it, a value is found where it is.
        #[test]
        fn places_survive_any_layout(before in "[ \n\t]{0,9}", key in "[a-zé\"\\\\]{0,9}", between in "[ \n]{0,5}") {
            let name = serde_json::to_string(&key).unwrap();
            let text = format!("{{{before}{name}{between}:{between}42{before}}}");
            let members = source(&text).members().unwrap();
            prop_assert_eq!(&members[0].name, &key);
            prop_assert_eq!(members[0].at, 1 + before.len());
            let value = Value::new(source(&text), "k", &members[0]);
            prop_assert_eq!(value.at(), text.find("42").unwrap());
            prop_assert_eq!(value.number().unwrap(), 42);
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = source(&text).members();
        }
    }
}
