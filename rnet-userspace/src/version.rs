//! Which rnet this is.

/// The release.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// The commit that it is built from, with `-dirty` where its sources differed; empty where that is not known.
pub const COMMIT: &str = env!("RNET_COMMIT");

/// The release and, where it is known, the commit with its date.
pub const FULL: &str = env!("RNET_VERSION");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commit_is_named_wherever_it_is_known() {
        match COMMIT {
            "" => assert_eq!(FULL, RELEASE),
            commit => assert!(FULL.starts_with(&format!("{RELEASE} ({commit}, 2")), "{FULL}"),
        }
    }
}
