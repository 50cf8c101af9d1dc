//! The client's part of Docker's calls.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    marker::PhantomData,
};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{Method, Response, body::Incoming};
use serde::de::DeserializeOwned;

use super::{
    client::{Client, Result, escape},
    docker,
};

/// What is asked of each field, as the daemon's `filters` take it.
pub type Filters = BTreeMap<String, BTreeSet<String>>;

impl Client {
    /// The networks that `filters` choose.
    pub async fn networks(&self, filters: &Filters) -> Result<Vec<docker::Network>> {
        self.get(&format!("/networks?{}", self.filters(filters)?)).await
    }

    /// One network.
    pub async fn network(&self, network: &str) -> Result<docker::Network> {
        self.get(&format!("/networks/{}", escape(network))).await
    }

    /// Removes a network.
    pub async fn remove_network(&self, network: &str) -> Result<()> {
        self.call(Method::DELETE, &format!("/networks/{}", escape(network)), None).await.map(drop)
    }

    /// Removes the networks that nobody uses and `filters` choose.
    pub async fn prune_networks(&self, filters: &Filters) -> Result<docker::Pruned> {
        let path = format!("/networks/prune?{}", self.filters(filters)?);
        let answer = self.call(Method::POST, &path, None).await?;
        self.understand(&answer)
    }

    /// Puts a container on a network.
    pub async fn connect(&self, network: &str, connect: &docker::Connect) -> Result<()> {
        self.tell(&format!("/networks/{}/connect", escape(network)), connect).await
    }

    /// Takes a container off a network.
    pub async fn disconnect(&self, network: &str, disconnect: &docker::Disconnect) -> Result<()> {
        self.tell(&format!("/networks/{}/disconnect", escape(network)), disconnect).await
    }

    /// The containers that `filters` choose: those that run, or all; the newest `limit`, if there is one.
    pub async fn containers(
        &self,
        all: bool,
        limit: Option<u32>,
        filters: &Filters,
    ) -> Result<Vec<docker::Summary>> {
        let limit = limit.unwrap_or_default();
        self.get(&format!("/containers/json?all={all}&limit={limit}&{}", self.filters(filters)?)).await
    }

    /// One container, as Docker shows it.
    pub async fn inspect_container(&self, container: &str) -> Result<docker::Container> {
        self.get(&format!("/containers/{}/json", escape(container))).await
    }

    /// What happens, and what has happened between two times. Each is empty where there is none, as is what
    /// `filters` do not ask for.
    pub async fn events(&self, since: &str, until: &str, filters: &Filters) -> Result<Events> {
        let times = format!("since={}&until={}", escape(since), escape(until));
        let answer =
            self.send(Method::GET, &format!("/events?{times}&{}", self.filters(filters)?), None).await?;
        Ok(Values::of(self, answer))
    }

    fn filters(&self, filters: &Filters) -> Result<String> {
        let json = serde_json::to_string(filters).map_err(|e| self.broken(e))?;
        Ok(format!("filters={}", escape(&json)))
    }
}

/// Values that are told one after the other, as they come.
#[derive(Debug)]
pub struct Values<T> {
    client: Client,
    body: Incoming,
    read: VecDeque<u8>,
    of: PhantomData<fn() -> T>,
}

/// Events, as they come.
pub type Events = Values<docker::Event>;

impl<T: DeserializeOwned> Values<T> {
    /// Those of an answer that has begun.
    pub(super) fn of(client: &Client, answer: Response<Incoming>) -> Self {
        Self { client: client.clone(), body: answer.into_body(), read: VecDeque::new(), of: PhantomData }
    }

    /// The next one; nothing when there are no more.
    ///
    /// # Errors
    /// [`super::client::Error::Broken`] when the connection broke, or what came is no such value.
    pub async fn next(&mut self) -> Result<Option<T>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return self.client.understand(&line).map(Some);
            }
            match self.frame().await? {
                Some(bytes) => self.read.extend(bytes),
                None => return Ok(None),
            }
        }
    }

    async fn frame(&mut self) -> Result<Option<Bytes>> {
        match self.body.frame().await.transpose().map_err(|e| self.client.broken(e))? {
            Some(frame) => Ok(Some(frame.into_data().unwrap_or_default())),
            None => Ok(None),
        }
    }
}
