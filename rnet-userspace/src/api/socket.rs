//! The daemon's sockets in the file system: bound once, private from the first moment, removed at the end.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use tokio::net::{UnixListener, UnixStream};

use crate::store::create_run_dir;

/// Whoever may write to the socket rules the host's network: root, and whom root adds to the file's group.
const MODE: u32 = 0o660;

/// The file of a bound socket, removed when this is dropped unless another daemon has put its own there.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

/// Makes sure that no daemon answers at `path`.
///
/// # Errors
/// When one does, which is named; or when something is there that is not a socket.
pub(super) async fn refuse_if_live(path: &Path, instance: &str) -> Result<()> {
    match listener(path).await? {
        None => Ok(()),
        Some(who) => bail!(
            "another daemon of instance {instance} is running{who}: stop it, or choose another name with --instance"
        ),
    }
}

/// Makes sure that no program at all answers at `path`.
///
/// # Errors
/// When one does, which is named; or when something is there that is not a socket.
pub(crate) async fn refuse_if_taken(path: &Path) -> Result<()> {
    match listener(path).await? {
        None => Ok(()),
        Some(who) => bail!("listen at {}: another program does{who}: choose another path", path.display()),
    }
}

/// Who listens at `path`, as `, pid 7`, if anybody does.
async fn listener(path: &Path) -> Result<Option<String>> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => {}
        Ok(_) => bail!("listen at {}: there is something that is not a socket; move it away", path.display()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("look at {}", path.display())),
    }
    match UnixStream::connect(path).await {
        Ok(stream) => {
            // The kernel notes who called listen().
            let pid = stream.peer_cred().ok().and_then(|cred| cred.pid());
            Ok(Some(pid.map(|pid| format!(", pid {pid}")).unwrap_or_default()))
        }
        Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(None),
        Err(e) => Err(e).with_context(|| format!("find out who listens at {}", path.display())),
    }
}

/// Listens at `path`, in place of a socket that nobody listens at.
///
/// # Errors
/// When the directory or the socket cannot be made.
pub(crate) fn bind(path: &Path) -> Result<(UnixListener, SocketFile)> {
    let listening = || format!("listen at {}", path.display());
    let directory = path.parent().unwrap_or(Path::new("/"));
    create_run_dir(directory)?;

    // Bound under another name and renamed once its mode is right, nobody can connect before it is.
    let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
    let discard = |e: io::Error| {
        // What matters is the first error; a left-over name does no harm.
        let _ = fs::remove_file(&unfinished);
        e
    };
    match fs::remove_file(&unfinished) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).with_context(listening),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&unfinished).with_context(listening)?;
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(MODE))
        .and_then(|()| fs::rename(&unfinished, path))
        .map_err(discard)
        .with_context(listening)?;
    let inode = fs::symlink_metadata(path).with_context(listening)?.ino();
    Ok((listener, SocketFile { path: path.to_owned(), inode }))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !fs::symlink_metadata(&self.path).is_ok_and(|there| there.ino() == self.inode) {
            return;
        }
        remove(&self.path);
    }
}

/// Removes a socket's file.
pub(super) fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), "remove socket: {e}");
        }
        Ok(()) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/rnet.sock");
        refuse_if_live(&path, "x").await.unwrap();

        let (listener, file) = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, MODE);
        let refused = refuse_if_live(&path, "x").await.unwrap_err().to_string();
        assert!(
            refused
                .starts_with(&format!("another daemon of instance x is running, pid {}", std::process::id())),
            "{refused}"
        );
        let refused = refuse_if_taken(&path).await.unwrap_err().to_string();
        assert!(refused.contains("another program does, pid "), "{refused}");

        drop(listener);
        refuse_if_live(&path, "x").await.unwrap();
        refuse_if_taken(&path).await.unwrap();
        let (_second, second_file) = bind(&path).unwrap();
        drop(file);
        assert!(path.exists(), "the first daemon's end leaves the second's socket");
        drop(second_file);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_is_not_a_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rnet.sock");
        fs::write(&path, "precious").unwrap();
        let refused = refuse_if_live(&path, "x").await.unwrap_err().to_string();
        assert!(refused.contains("not a socket"), "{refused}");
    }
}
