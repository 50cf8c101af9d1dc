//! The file's keys: each read as what it should be, wherever it is.

use std::collections::BTreeMap;

use super::{
    json::{Located, Member, Offset, Result, Source, Value},
    keys::{self, KEYS, OWN},
};

/// A file whose keys are known and there once.
pub(super) struct File<'a> {
    source: Source<'a>,
    values: BTreeMap<&'static str, (Offset, Value<'a>)>,
}

impl<'a> File<'a> {
    /// Reads its structure.
    ///
    /// # Errors
    /// It is no JSON object, or has a key that there is not, or one twice.
    pub(super) fn parse(source: Source<'a>) -> Result<Self> {
        let mut file = Self { source, values: BTreeMap::new() };
        let mut own = None;
        for member in source.members()? {
            if format!("{}.", member.name) != OWN {
                file.add(&member, member.name.clone())?;
            } else if own.replace(member.clone()).is_some() {
                return Err(twice(&source, &member));
            }
        }
        if let Some(own) = own {
            for member in Value::new(source, "rnet", &own).members()? {
                file.add(&member, format!("{OWN}{}", member.name))?;
            }
        }
        Ok(file)
    }

    fn add(&mut self, member: &Member<'a>, name: String) -> Result<()> {
        let Some(key) = keys::known(&name) else {
            let meant = match keys::similar(&name) {
                Some(key) => format!("did you mean `{key}`?"),
                None => format!("known are {}", KEYS.map(|key| key.name).join(", ")),
            };
            return Err(self.source.refuse(member.at, format_args!("unknown key `{name}`; {meant}")));
        };
        match self.values.insert(key, (member.at, Value::new(self.source, key, member))) {
            None => Ok(()),
            Some(_) => Err(twice(&self.source, member)),
        }
    }

    /// Reads one key, if it is there.
    ///
    /// # Errors
    /// What `read` says of its value.
    pub(super) fn get<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Value<'a>) -> Result<T>,
    ) -> Result<Option<Located<T>>> {
        let Some((_, value)) = self.values.get(key) else { return Ok(None) };
        Ok(Some(Located { value: read(value)?, at: value.at() }))
    }

    /// Every key that is there, with its value.
    pub(super) fn said(&self) -> BTreeMap<&'static str, serde_json::Value> {
        self.values.iter().map(|(key, (_, value))| (*key, value.json())).collect()
    }

    /// Refuses a key for what other keys, or flags, say.
    pub(super) fn contradiction(&self, key: &'static str, why: impl std::fmt::Display) -> super::json::Error {
        let at = self.values.get(key).map_or(0, |(at, _)| *at);
        self.source.refuse(at, format_args!("`{key}`: {why}"))
    }
}

fn twice(source: &Source<'_>, member: &Member<'_>) -> super::json::Error {
    source.refuse(member.at, format_args!("`{}` is there twice: leave one out", member.name))
}
