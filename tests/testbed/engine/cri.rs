//! The interface between a kubelet and containerd (CRI, `runtime.v1`), as far as tests of networking need it. The
//! messages are written by hand, with their tags from the interface's `api.proto`: generating them takes protoc.

mod messages;

use std::path::PathBuf;

use tokio::runtime;
use tonic::{
    Request,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

pub use self::messages::{
    ContainerConfig, ContainerMetadata, DnsConfig, ImageSpec, LinuxPodSandboxConfig, PodIp, PodSandboxConfig,
    PodSandboxMetadata, PodSandboxNetworkStatus, PodSandboxStatus, PodSandboxStatusResponse, PortMapping,
    VersionResponse,
};
use self::messages::{
    ContainerId, CreateContainerRequest, ImageStatusRequest, ImageStatusResponse, Nothing, PodSandboxId,
    PodSandboxStatusRequest, RunPodSandboxRequest, VersionRequest,
};
use crate::Netns;

const RUNTIME: &str = "runtime.v1.RuntimeService";
const IMAGES: &str = "runtime.v1.ImageService";

/// A client. Each call makes a connection of its own. What a call is refused with is returned as its text.
#[derive(Debug)]
pub struct Cri<'m> {
    ns: &'m Netns,
    socket: PathBuf,
}

impl<'m> Cri<'m> {
    pub(super) fn new(ns: &'m Netns, socket: PathBuf) -> Self {
        Self { ns, socket }
    }

    /// What answers.
    pub fn version(&self) -> Result<VersionResponse, String> {
        self.call(RUNTIME, "Version", VersionRequest { version: "v1".into() })
    }

    /// Makes a pod's sandbox, with its network. Returns its id.
    pub fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<String, String> {
        let request = RunPodSandboxRequest { config: Some(config) };
        self.call(RUNTIME, "RunPodSandbox", request).map(|reply: PodSandboxId| reply.pod_sandbox_id)
    }

    /// Makes a container in a sandbox. Returns its id.
    pub fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        of: PodSandboxConfig,
    ) -> Result<String, String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.into(),
            config: Some(config),
            sandbox_config: Some(of),
        };
        self.call(RUNTIME, "CreateContainer", request).map(|reply: ContainerId| reply.container_id)
    }

    /// Starts a container.
    pub fn start_container(&self, container: &str) -> Result<(), String> {
        let request = ContainerId { container_id: container.into() };
        self.call(RUNTIME, "StartContainer", request).map(|Nothing {}| ())
    }

    /// Ends a sandbox's containers and takes its network down.
    pub fn stop_pod_sandbox(&self, sandbox: &str) -> Result<(), String> {
        let request = PodSandboxId { pod_sandbox_id: sandbox.into() };
        self.call(RUNTIME, "StopPodSandbox", request).map(|Nothing {}| ())
    }

    /// Removes a sandbox.
    pub fn remove_pod_sandbox(&self, sandbox: &str) -> Result<(), String> {
        let request = PodSandboxId { pod_sandbox_id: sandbox.into() };
        self.call(RUNTIME, "RemovePodSandbox", request).map(|Nothing {}| ())
    }

    /// The state of a sandbox, with what containerd alone knows of it.
    pub fn pod_sandbox_status(&self, sandbox: &str) -> Result<PodSandboxStatusResponse, String> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox.into(), verbose: true };
        self.call(RUNTIME, "PodSandboxStatus", request)
    }

    /// Whether there is an image of this name.
    pub(super) fn has_image(&self, image: &str) -> Result<bool, String> {
        let request = ImageStatusRequest { image: Some(ImageSpec { image: image.into() }) };
        self.call(IMAGES, "ImageStatus", request).map(|reply: ImageStatusResponse| reply.image.is_some())
    }

    fn call<Q, R>(&self, service: &str, method: &str, request: Q) -> Result<R, String>
    where
        Q: prost::Message + Send + Sync + 'static,
        R: prost::Message + Default + Send + Sync + 'static,
    {
        let path = PathAndQuery::try_from(format!("/{service}/{method}"));
        let path = path.unwrap_or_else(|e| panic!("{service}/{method}: {e}"));
        let to = format!("unix://{}", self.socket.display());
        self.ns.run(|| {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.unwrap_or_else(|e| panic!("make a runtime: {e}"));
            runtime.block_on(async {
                let endpoint = Endpoint::from_shared(to).map_err(|e| e.to_string())?;
                let channel: Channel = endpoint.connect().await.map_err(|e| e.to_string())?;
                let mut client = tonic::client::Grpc::new(channel);
                client.ready().await.map_err(|e| e.to_string())?;
                let reply = client.unary(Request::new(request), path, ProstCodec::default()).await;
                reply.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
            })
        })
    }
}
