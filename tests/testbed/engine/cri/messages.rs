//! CRI's messages, without the fields that nothing here needs.

use std::collections::HashMap;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Nothing {}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct VersionRequest {
    #[prost(string, tag = "1")]
    pub(super) version: String,
}

/// What answers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VersionResponse {
    /// The name, such as `containerd`.
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    /// Its version.
    #[prost(string, tag = "3")]
    pub runtime_version: String,
    /// The interface's version.
    #[prost(string, tag = "4")]
    pub runtime_api_version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) config: Option<PodSandboxConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PodSandboxId {
    #[prost(string, tag = "1")]
    pub(super) pod_sandbox_id: String,
}

/// What a pod is to be.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxConfig {
    /// Its names.
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<PodSandboxMetadata>,
    /// Its host name.
    #[prost(string, tag = "2")]
    pub hostname: String,
    /// Where its containers' logs go; nowhere when empty.
    #[prost(string, tag = "3")]
    pub log_directory: String,
    /// What it asks for names.
    #[prost(message, optional, tag = "4")]
    pub dns_config: Option<DnsConfig>,
    /// Its published ports.
    #[prost(message, repeated, tag = "5")]
    pub port_mappings: Vec<PortMapping>,
    /// Labels.
    #[prost(map = "string, string", tag = "6")]
    pub labels: HashMap<String, String>,
    /// Annotations, which CNI plugins may ask for.
    #[prost(map = "string, string", tag = "7")]
    pub annotations: HashMap<String, String>,
    /// What it is only on Linux.
    #[prost(message, optional, tag = "8")]
    pub linux: Option<LinuxPodSandboxConfig>,
}

/// A pod's names.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxMetadata {
    /// The pod's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its id in Kubernetes.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// Its namespace in Kubernetes.
    #[prost(string, tag = "3")]
    pub namespace: String,
    /// How often it has been made before.
    #[prost(uint32, tag = "4")]
    pub attempt: u32,
}

/// What a pod asks for names.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DnsConfig {
    /// Servers.
    #[prost(string, repeated, tag = "1")]
    pub servers: Vec<String>,
    /// Domains to search.
    #[prost(string, repeated, tag = "2")]
    pub searches: Vec<String>,
    /// Options of resolv.conf.
    #[prost(string, repeated, tag = "3")]
    pub options: Vec<String>,
}

/// A published port.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PortMapping {
    /// 0 TCP, 1 UDP, 2 SCTP.
    #[prost(int32, tag = "1")]
    pub protocol: i32,
    /// The port in the pod.
    #[prost(int32, tag = "2")]
    pub container_port: i32,
    /// The host's port.
    #[prost(int32, tag = "3")]
    pub host_port: i32,
    /// The host's address; all of them when empty.
    #[prost(string, tag = "4")]
    pub host_ip: String,
}

/// What a pod is only on Linux.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LinuxPodSandboxConfig {
    /// The control group below which it is.
    #[prost(string, tag = "1")]
    pub cgroup_parent: String,
    /// Sysctls.
    #[prost(map = "string, string", tag = "3")]
    pub sysctls: HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PodSandboxStatusRequest {
    #[prost(string, tag = "1")]
    pub(super) pod_sandbox_id: String,
    #[prost(bool, tag = "2")]
    pub(super) verbose: bool,
}

/// The state of a pod.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxStatusResponse {
    /// What every runtime tells.
    #[prost(message, optional, tag = "1")]
    pub status: Option<PodSandboxStatus>,
    /// What this one tells beside: JSON under `info`.
    #[prost(map = "string, string", tag = "2")]
    pub info: HashMap<String, String>,
}

/// What every runtime tells of a pod.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxStatus {
    /// 0 ready, 1 not.
    #[prost(int32, tag = "3")]
    pub state: i32,
    /// Its addresses.
    #[prost(message, optional, tag = "5")]
    pub network: Option<PodSandboxNetworkStatus>,
}

/// A pod's addresses.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxNetworkStatus {
    /// The first.
    #[prost(string, tag = "1")]
    pub ip: String,
    /// The others.
    #[prost(message, repeated, tag = "2")]
    pub additional_ips: Vec<PodIp>,
}

/// One more address of a pod.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodIp {
    /// The address.
    #[prost(string, tag = "1")]
    pub ip: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CreateContainerRequest {
    #[prost(string, tag = "1")]
    pub(super) pod_sandbox_id: String,
    #[prost(message, optional, tag = "2")]
    pub(super) config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    pub(super) sandbox_config: Option<PodSandboxConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ContainerId {
    #[prost(string, tag = "1")]
    pub(super) container_id: String,
}

/// What a container is to be.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerConfig {
    /// Its name.
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<ContainerMetadata>,
    /// Its image.
    #[prost(message, optional, tag = "2")]
    pub image: Option<ImageSpec>,
    /// What it runs in place of the image's entry point.
    #[prost(string, repeated, tag = "3")]
    pub command: Vec<String>,
    /// The arguments of that.
    #[prost(string, repeated, tag = "4")]
    pub args: Vec<String>,
}

/// A container's name.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerMetadata {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// How often it has been made before.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
}

/// An image.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ImageSpec {
    /// Its name.
    #[prost(string, tag = "1")]
    pub image: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ImageStatusRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) image: Option<ImageSpec>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ImageStatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) image: Option<Nothing>,
}
