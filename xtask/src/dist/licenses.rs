//! The licences of the crates that become part of the binary, which ask to be passed on with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::command::{cargo, output};

/// Every crate with its licence, and the texts that it comes with, each once.
pub(super) fn collect() -> Result<String> {
    let metadata = output(cargo().args(["metadata", "--format-version", "1", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("read what cargo says of the crates")?;
    let packages = metadata["packages"].as_array().context("cargo names no crates")?;
    let linked = linked()?;
    let mut crates = String::new();
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages {
        let (name, version) = (text(package, "name"), text(package, "version"));
        let label = format!("{name} v{version}");
        if !linked.contains(&label) || package["source"].is_null() {
            continue;
        }
        crates += &format!("{label}: {}\n", text(package, "license"));
        let manifest = PathBuf::from(text(package, "manifest_path"));
        for file in files(manifest.parent().unwrap_or(Path::new("/")))? {
            let content = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            texts.entry(content.trim().replace("\r\n", "\n")).or_default().insert(label.clone());
        }
    }
    let mut all = format!("These crates are part of rnet.\n\n{crates}");
    for (content, labels) in texts {
        let labels: Vec<_> = labels.into_iter().collect();
        all += &format!("\n{}\n{}:\n\n{content}\n", "-".repeat(80), labels.join(", "));
    }
    Ok(all)
}

/// Names and versions of the crates that both halves are linked with.
fn linked() -> Result<BTreeSet<String>> {
    let mut tree = cargo();
    tree.args(["tree", "--locked", "--package", "rnet-userspace", "--package", "rnet-ebpf"]);
    let tree = output(tree.args(["--edges", "normal", "--prefix", "none", "--format", "{p}"]))?;
    let label = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    Ok(tree.lines().map(label).collect())
}

fn text<'a>(package: &'a Value, field: &str) -> &'a str {
    package[field].as_str().unwrap_or_default()
}

/// The files with licences in a crate's directory, sorted.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let listing = || format!("list {}", directory.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(listing)? {
        let path = entry.with_context(listing)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        let is_license = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"]
            .iter()
            .any(|word| name.starts_with(word));
        if is_license && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
