//! The binary of the packages: optimised, stripped, and linked with nothing that the target must have.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::target_dir,
    command::{cargo, exec, output},
};

/// Flags of the last step alone, so that everything else is what `cargo xtask build --release` has built.
///
/// The C library's archive resolves names and users by shared objects of the very same version. The linker warns of
/// whatever uses them: such a program would work here, and not on the next machine.
const FLAGS: [&str; 3] = ["target-feature=+crt-static", "strip=symbols", "link-arg=-Wl,--fatal-warnings"];

/// Builds it and tells where it is.
pub(super) fn build() -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["rustc", "--release", "--package", "rnet-userspace", "--bin", "rnet", "--"]);
    for flag in FLAGS {
        build.args(["-C", flag]);
    }
    exec(&mut build).context("linking it takes the C library's archive: libc6-dev or glibc-static")?;
    let built = target_dir().join("release/rnet");
    refuse_dependencies(&built)?;
    Ok(built)
}

/// Makes sure that the file asks for neither an interpreter nor a library.
fn refuse_dependencies(file: &Path) -> Result<()> {
    let headers =
        output(Command::new("readelf").args(["--program-headers", "--dynamic", "--wide"]).arg(file))?;
    let needed: Vec<_> = headers.lines().filter(|line| is_dependency(line)).map(str::trim).collect();
    if !needed.is_empty() {
        bail!("{} is not linked statically: {}", file.display(), needed.join("; "));
    }
    Ok(())
}

fn is_dependency(line: &str) -> bool {
    line.trim_start().starts_with("INTERP ") || line.contains("(NEEDED)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_needs_libraries_is_refused() {
        let this = std::env::current_exe().unwrap();
        let refused = refuse_dependencies(&this).unwrap_err().to_string();
        assert!(refused.contains("INTERP") && refused.contains("libc.so.6"), "{refused}");
    }
}
