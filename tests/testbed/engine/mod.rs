//! Real container engines, on a [`Machine`]. What the surroundings force:
//! - An engine gets a mount namespace beside the network namespace: too many of its paths below `/run`, `/etc` and
//!   `/var/lib` are fixed. rnet runs in it as well, as on one machine. Process ids are everybody's.
//! - Data is in memory: engines write through to the disk at every step, and overlayfs can't be stacked on the
//!   overlayfs that a test may itself run on.
//! - Control groups are below one that carries the machine's name, and made without systemd, which `/run` does not show.
//!   The runtime is runc: crun refuses hierarchies of both versions side by side.
//! - Without CAP_SYS_RESOURCE neither Podman's default limits can be set nor the OOM scores that containerd gives.
//! - Processes are found by the machine's name among their mounts: shims and containers leave their parents, and need
//!   not be in the machine's mount namespace.

mod containerd;
pub mod cri;
mod daemon;
mod dockerd;
mod image;
mod machine;
mod podman;
pub(crate) mod programs;

pub use self::{
    containerd::{Containerd, Pod},
    dockerd::Dockerd,
    image::IMAGE,
    machine::Machine,
    podman::Podman,
};
use crate::{Netns, tool::Tool};

/// Returns from a test that cannot run here, for want of root or of the engines, saying why. With
/// `RNET_REQUIRE_ALL=1` it fails instead. `require_engines!(trixie)` asks for Debian 13's.
#[macro_export]
macro_rules! require_engines {
    () => {
        if !$crate::engine::can_run() {
            return;
        }
    };
    (trixie) => {
        if !$crate::engine::can_run_trixie() {
            return;
        }
    };
}

/// Whether the machine's engines can be run here.
pub fn can_run() -> bool {
    crate::can_run() && is_nothing(&programs::missing())
}

/// Whether Debian 13's engines can be run here.
pub fn can_run_trixie() -> bool {
    crate::can_run() && is_nothing(&programs::missing_of_trixie())
}

fn is_nothing(missing: &[&str]) -> bool {
    if !missing.is_empty() {
        crate::skip(&format!("needs {}: get them with `cargo xtask setup --tests`", missing.join(", ")));
    }
    missing.is_empty()
}

/// The network namespace of a container that runs, as Docker and Podman both tell of it.
fn netns_of(tool: &Tool<'_>, name: &str) -> Netns {
    let pid = tool.line(&["inspect", "--type", "container", "--format", "{{.State.Pid}}", name]);
    assert_ne!(pid, "0", "{name} does not run");
    Netns::open(format!("/proc/{pid}/ns/net"))
}
