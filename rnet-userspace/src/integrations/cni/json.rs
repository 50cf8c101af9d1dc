//! Reading objects as Go does, which most engines and plugins are written in: keys in any case, `null` for what is not
//! there. containerd says `HostPort` where Podman says `hostPort`.

use serde_json::{Map, Value};

use super::error::{Code, Error, Result};

/// An object, and where it stands, for messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object<'a> {
    map: &'a Map<String, Value>,
    place: &'a str,
}

impl<'a> Object<'a> {
    /// `value` as an object.
    ///
    /// # Errors
    /// [`Code::Decode`] when it is something else.
    pub(super) fn of(value: &'a Value, place: &'a str) -> Result<Self> {
        let map = value.as_object().ok_or_else(|| wrong(place, "an object"))?;
        Ok(Self { map, place })
    }

    /// What a key has.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        let folded =
            || self.map.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value);
        self.map.get(key).or_else(folded).filter(|value| !value.is_null())
    }

    /// A string; an empty one is as good as none.
    ///
    /// # Errors
    /// [`Code::Decode`] when it is something else.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| self.wrong(key, "a string"))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// Whether it is so.
    ///
    /// # Errors
    /// [`Code::Decode`] when it is something else.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(key, "true or false"))
    }

    /// A whole number.
    ///
    /// # Errors
    /// [`Code::Decode`] when it is something else.
    pub(super) fn number(&self, key: &str) -> Result<Option<i64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_i64().map(Some).ok_or_else(|| self.wrong(key, "a whole number"))
    }

    /// A list; nothing is an empty one.
    ///
    /// # Errors
    /// [`Code::Decode`] when it is something else.
    pub(super) fn list(&self, key: &str) -> Result<&'a [Value]> {
        let Some(value) = self.get(key) else { return Ok(&[]) };
        value.as_array().map(Vec::as_slice).ok_or_else(|| self.wrong(key, "a list"))
    }

    /// A list of strings.
    ///
    /// # Errors
    /// [`Code::Decode`] when it is something else.
    pub(super) fn texts(&self, key: &str) -> Result<Vec<&'a str>> {
        let texts = self.list(key)?.iter().map(|value| value.as_str());
        texts.map(|text| text.ok_or_else(|| self.wrong(key, "a list of strings"))).collect()
    }

    /// One string or a list of them.
    ///
    /// # Errors
    /// [`Code::Decode`] when it is something else.
    pub(super) fn one_or_more(&self, key: &str) -> Result<Vec<&'a str>> {
        match self.get(key) {
            Some(Value::Array(_)) => self.texts(key),
            _ => Ok(self.text(key)?.into_iter().collect()),
        }
    }

    /// An object; nothing is none.
    ///
    /// # Errors
    /// [`Code::Decode`] when it is something else.
    pub(super) fn object(&self, key: &'a str) -> Result<Option<Self>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| self.wrong(key, "an object"))?;
        Ok(Some(Self { map, place: key }))
    }

    /// Keys and values, as they are written.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        self.map.iter()
    }

    fn wrong(&self, key: &str, what: &str) -> Error {
        match self.place {
            "" => wrong(key, what),
            place => wrong(&format!("{place}: {key}"), what),
        }
    }
}

fn wrong(place: &str, what: &str) -> Error {
    Error::new(Code::Decode, format!("{place} should be {what}"))
}
