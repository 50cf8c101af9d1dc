//! Tables that an rnet of another version has left: their shape is not known here, so that the flows in them cannot
//! be carried over.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use rnet_common::LAYOUT_VERSION;

/// Refuses to start beside tables of another layout. What they serve goes on.
///
/// # Errors
/// There are some: says what can be done.
pub(super) fn refuse_others(pin_dir: &Path) -> Result<()> {
    let others = others(pin_dir)?;
    let Some(first) = others.first() else { return Ok(()) };
    bail!(
        "{} holds the tables of an rnet of another version, with another layout than this one's v{LAYOUT_VERSION}, and \
         the connections in them cannot be carried over: start with --replace-layout, which cuts open connections and \
         takes over all else, or take the instance down with that version's `rnet down` first",
        first.display()
    )
}

/// Removes tables of other layouts, once all that they did is done by this one's programs.
///
/// # Errors
/// A directory cannot be read or removed.
pub(super) fn remove_others(pin_dir: &Path) -> Result<()> {
    for path in others(pin_dir)? {
        tracing::info!("removing what an rnet of another version left in {}", path.display());
        super::remove_dir(&path)?;
    }
    Ok(())
}

/// Directories of other layouts beside `pin_dir`, in order.
fn others(pin_dir: &Path) -> Result<Vec<PathBuf>> {
    let Some(instance) = pin_dir.parent() else { return Ok(Vec::new()) };
    let of = || format!("read directory {}", instance.display());
    let entries = match fs::read_dir(instance) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(of)?,
    };
    let mut others = Vec::new();
    for entry in entries {
        let path = entry.with_context(of)?.path();
        let version = path.file_name().and_then(|name| name.to_str()?.strip_prefix('v'));
        if version.is_some_and(is_number) && path != pin_dir {
            others.push(path);
        }
    }
    others.sort();
    Ok(others)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_layouts_are_refused_or_removed_and_nothing_else() {
        let instance = tempfile::tempdir().unwrap();
        let own = instance.path().join(format!("v{LAYOUT_VERSION}"));
        refuse_others(&own).unwrap();
        refuse_others(&instance.path().join("not-there").join("v1")).unwrap();
        for name in ["vx", "other", "v"] {
            fs::create_dir(instance.path().join(name)).unwrap();
        }
        fs::create_dir(&own).unwrap();
        refuse_others(&own).unwrap();
        for name in ["v0/links", "v99"] {
            fs::create_dir_all(instance.path().join(name)).unwrap();
        }
        let refusal = refuse_others(&own).unwrap_err().to_string();
        assert!(refusal.contains("/v0 holds") && refusal.contains("--replace-layout"), "{refusal}");
        remove_others(&own).unwrap();
        refuse_others(&own).unwrap();
        assert_eq!(fs::read_dir(instance.path()).unwrap().count(), 4);
        assert!(own.exists());
    }
}
