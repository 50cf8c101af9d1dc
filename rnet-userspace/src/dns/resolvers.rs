//! The host's own name servers.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use crate::{bounded, controller::model::resolv_conf::nameservers};

/// Those of `/etc/resolv.conf`, which is read again when it has changed. A stub on a loopback address does: it is asked
/// from the host.
#[derive(Debug)]
pub(super) struct Resolvers {
    path: PathBuf,
    known: Mutex<(Option<SystemTime>, Vec<IpAddr>)>,
}

impl Default for Resolvers {
    fn default() -> Self {
        Self::of(Path::new("/etc/resolv.conf"))
    }
}

impl Resolvers {
    fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), known: Mutex::default() }
    }

    /// In their order.
    pub(super) fn of_host(&self) -> Vec<IpAddr> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = std::fs::metadata(&self.path).and_then(|file| file.modified()).ok();
        if changed.is_none() || changed != known.0 {
            let text = bounded::text_file(&self.path, bounded::SETTINGS).unwrap_or_default();
            *known = (changed, nameservers(&text).collect());
        }
        known.1.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;

    #[test]
    fn a_file_that_changes_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let resolvers = Resolvers::of(&path);
        assert!(resolvers.of_host().is_empty());
        fs::write(&path, "nameserver 192.0.2.1\nnameserver x\nnameserver ::1\n").unwrap();
        let expected: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(resolvers.of_host(), expected);
        fs::write(&path, "nameserver 192.0.2.2\n").unwrap();
        let later = SystemTime::now() + Duration::from_secs(5);
        fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(resolvers.of_host(), ["192.0.2.2".parse::<IpAddr>().unwrap()]);
    }
}
