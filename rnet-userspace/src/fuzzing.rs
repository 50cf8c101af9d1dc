//! Everything that reads what others have written, each as a function of bytes that panics when something about the
//! reading is wrong: what is accepted must be written as it is read, what is refused must say why, and neither may take
//! more memory than its input justifies.
//!
//! `tests/fuzz` runs them: over mutated seeds in every test run, and guided by coverage with `cargo xtask fuzz`.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

/// What inputs are made of, for whoever makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Lines of text.
    Text,
    /// A JSON value, with lines of text before it or without.
    Json,
    /// Bytes.
    Bytes,
}

/// One reader of outside input.
#[derive(Clone, Copy)]
pub struct Target {
    /// What it is called, and its corpus is.
    pub name: &'static str,
    /// What its inputs are made of.
    pub shape: Shape,
    /// Reads an input.
    pub run: fn(&[u8]),
    /// What inputs like to have in them.
    pub words: &'static [&'static str],
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// All of them.
pub fn targets() -> Vec<Target> {
    let lists = [
        crate::api::docker::fuzzing::TARGETS,
        crate::api::fuzzing::TARGETS,
        crate::cli::fuzzing::TARGETS,
        crate::config::fuzzing::TARGETS,
        crate::controller::fuzzing::TARGETS,
        crate::dns::fuzzing::TARGETS,
        crate::host::fuzzing::TARGETS,
        crate::integrations::cni::fuzzing::TARGETS,
        crate::integrations::docker::fuzzing::TARGETS,
        crate::integrations::docker_plugin::fuzzing::TARGETS,
        crate::integrations::netavark::fuzzing::TARGETS,
        crate::store::fuzzing::TARGETS,
    ];
    lists.into_iter().flatten().copied().collect()
}

/// Input as text, if it is any.
pub(crate) fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

/// The first line, and what is behind it.
pub(crate) fn first_line(input: &str) -> (&str, &str) {
    input.split_once('\n').unwrap_or((input, ""))
}

/// Checks that a refusal says something, and no more than can be read.
pub(crate) fn refused(why: impl fmt::Display, input: &[u8]) {
    let why = why.to_string();
    assert!(!why.trim().is_empty(), "a refusal says nothing");
    assert!(why.len() <= 8192 + 16 * input.len(), "a refusal of {} bytes: {why}", why.len());
}

/// Reads JSON, and checks that what is accepted is written as what it is read from again.
pub(crate) fn round_trip<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(
    input: &[u8],
) -> Option<T> {
    match serde_json::from_slice::<T>(input) {
        Ok(value) => {
            let written =
                serde_json::to_vec(&value).unwrap_or_else(|e| panic!("{value:?} can't be written: {e}"));
            let again = serde_json::from_slice::<T>(&written);
            let again = again
                .unwrap_or_else(|e| panic!("{} is not read again: {e}", String::from_utf8_lossy(&written)));
            assert_eq!(again, value);
            Some(value)
        }
        Err(e) => {
            refused(e, input);
            None
        }
    }
}

/// Checks that what a text is read as is written as something that is read as the same.
pub(crate) fn settles<T>(text: &str)
where
    T: std::str::FromStr + fmt::Display + PartialEq + fmt::Debug,
    T::Err: fmt::Display,
{
    match text.parse::<T>() {
        Ok(value) => match value.to_string().parse::<T>() {
            Ok(again) => assert_eq!(again, value, "of {text:?}"),
            Err(e) => panic!("{text:?} is {value}, which is refused: {e}"),
        },
        Err(e) => refused(e, text.as_bytes()),
    }
}

#[cfg(test)]
#[path = "../../tests/fuzz/run.rs"]
mod run;
