//! Which rnet this is. Only the program itself knows the commit: as a constant of this library it would have all of it
//! built again for each commit.

use std::sync::OnceLock;

/// The release.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

static BUILD: OnceLock<(&str, String)> = OnceLock::new();

/// Says once, and first of all, what the program was built from: the commit's abbreviated id, with `-dirty` where the
/// sources differed from it, and its date.
pub fn built_from(commit: Option<&'static str>, date: Option<&'static str>) {
    if let (Some(commit), Some(date)) = (commit, date) {
        BUILD.get_or_init(|| (commit, format!("{RELEASE} ({commit}, {date})")));
    }
}

/// The commit; empty where it is not known.
pub fn commit() -> &'static str {
    BUILD.get().map_or("", |(commit, _)| commit)
}

/// The release and, where it is known, the commit with its date.
pub fn full() -> &'static str {
    BUILD.get().map_or(RELEASE, |(_, full)| full)
}
