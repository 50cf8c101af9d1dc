//! The daemon, asked from code that may block.

use std::future::Future;

use tokio::runtime::{self, Runtime};

use super::error::{Code, Error, Result};
use crate::api::{
    self,
    client::{self, Client},
};

/// A daemon.
#[derive(Debug)]
pub(super) struct Daemon {
    client: Client,
    runtime: Runtime,
}

impl Daemon {
    /// The daemon of an instance. Nobody is asked yet.
    ///
    /// # Errors
    /// [`Code::Io`] when there can be no event loop.
    pub(super) fn of(instance: &str) -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Error::new(Code::Io, format!("start an event loop: {e}")))?;
        Ok(Self { client: Client::new(api::socket_path(instance), instance), runtime })
    }

    /// Waits for what the daemon says.
    ///
    /// # Errors
    /// What it refuses.
    pub(super) fn ask<'a, T, F>(&'a self, question: impl FnOnce(&'a Client) -> F) -> client::Result<T>
    where
        F: Future<Output = client::Result<T>> + 'a,
    {
        self.runtime.block_on(question(&self.client))
    }

    /// The same, where what is not there is nothing.
    ///
    /// # Errors
    /// What it refuses for another reason.
    pub(super) fn find<'a, T, F>(
        &'a self,
        question: impl FnOnce(&'a Client) -> F,
    ) -> client::Result<Option<T>>
    where
        F: Future<Output = client::Result<T>> + 'a,
    {
        match self.ask(question) {
            Err(e) if e.is_not_found() => Ok(None),
            found => found.map(Some),
        }
    }
}
