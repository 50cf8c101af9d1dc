//! The image that containers are run from: busybox alone.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::json;
use tempfile::TempDir;

use super::programs;
use crate::process;

const TOOL_LIMIT: Duration = Duration::from_secs(20);

/// The image's name in every engine.
pub const IMAGE: &str = "docker.io/library/testbed:latest";

/// What containers run when they are told nothing else: nothing, until they are asked to end. A first process is not
/// ended by a signal that it does nothing about.
pub(super) const COMMAND: [&str; 3] =
    ["/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait; done"];

/// The root of a container's files.
#[derive(Debug)]
pub(super) struct Rootfs {
    dir: TempDir,
}

impl Rootfs {
    pub(super) fn new() -> Self {
        let dir = TempDir::new().unwrap_or_else(|e| panic!("make a directory: {e}"));
        let rootfs = Self { dir };
        fill(rootfs.path()).unwrap_or_else(|e| panic!("make a container's files: {e}"));
        rootfs
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The files as one archive in a directory.
    pub(super) fn archive(&self, to: &Path) -> PathBuf {
        let file = to.join("layer.tar");
        pack(self.path(), &["."], &file);
        file
    }

    /// The files as an image with its name and its command, as `docker save` writes one.
    pub(super) fn image(&self, to: &Path) -> PathBuf {
        let layer = self.archive(to);
        let mut sum = Command::new("sha256sum");
        sum.arg(&layer);
        let sum = process::run(sum, TOOL_LIMIT).assert_ok("sum up a layer").stdout;
        let layer_id = format!("sha256:{}", sum.split(' ').next().unwrap_or_default());
        let architecture = match env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = json!({
            "architecture": architecture, "os": "linux", "config": { "Cmd": COMMAND },
            "rootfs": { "type": "layers", "diff_ids": [layer_id] },
        });
        let manifest = json!([{ "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"] }]);
        for (name, content) in [("config.json", config), ("manifest.json", manifest)] {
            let file = to.join(name);
            let written = fs::write(&file, content.to_string());
            written.unwrap_or_else(|e| panic!("write {}: {e}", file.display()));
        }
        let file = to.join("image.tar");
        pack(to, &["manifest.json", "config.json", "layer.tar"], &file);
        file
    }
}

fn pack(dir: &Path, files: &[&str], to: &Path) {
    let mut tar = Command::new("tar");
    tar.arg("--create").arg("--file").arg(to).arg("--directory").arg(dir).args(files);
    process::run(tar, TOOL_LIMIT).assert_ok("make an archive");
}

fn fill(root: &Path) -> std::io::Result<()> {
    for dir in ["bin", "dev", "etc", "proc", "sys", "tmp", "run", "var"] {
        fs::create_dir(root.join(dir))?;
    }
    let busybox = programs::outside("busybox");
    fs::copy(&busybox, root.join("bin/busybox"))?;
    let mut list = Command::new(&busybox);
    list.arg("--list");
    let list = process::run(list, TOOL_LIMIT).assert_ok("list busybox's commands");
    for applet in list.stdout.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")
}
