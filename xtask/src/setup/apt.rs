//! Debian's packages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    command::{find, output},
    progress::note,
    root::as_root,
};

/// Whether this machine installs its software with apt.
pub(super) fn is_here() -> bool {
    find("apt-get").is_some()
}

/// The version that would be installed.
pub(super) fn candidate(package: &str) -> Option<String> {
    let policy = output(Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C")).ok()?;
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// Fetches the package lists.
pub(super) fn update() -> Result<()> {
    output(as_root("apt-get", "to refresh the package lists")?.arg("update")).map(drop)
}

/// Installs packages. Refuses to remove others for it: two compilers of Debian's exclude each other.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    if packages.iter().any(|package| candidate(package).is_none()) {
        update()?;
    }
    if let Err(error) = try_install(packages) {
        // Lists that are some days old name versions that the mirror has replaced.
        note("apt-get failed; trying again with fresh package lists");
        update().map_err(|_| error)?;
        try_install(packages)?;
    }
    Ok(())
}

/// Fetches packages into a directory, with what they depend on and this machine lacks, without installing any of it.
pub(super) fn download(packages: &[&str], directory: &Path) -> Result<Vec<PathBuf>> {
    let partial = directory.join("partial");
    fs::create_dir_all(&partial).with_context(|| format!("create {}", partial.display()))?;
    let fetch = || {
        let mut apt = Command::new("apt-get");
        apt.args(["install", "--download-only", "--yes", "--no-install-recommends", "--no-remove"]);
        // Nothing is installed, so that neither root nor the package manager's lock is needed.
        apt.args(["-o", "Debug::NoLocking=1", "-o"])
            .arg(format!("Dir::Cache::archives={}", directory.display()));
        output(apt.args(packages))
    };
    if let Err(error) = fetch() {
        note("apt-get failed; trying again with fresh package lists");
        update().map_err(|_| error)?;
        fetch()?;
    }
    packages_in(directory)
}

/// Fetches packages of another suite with everything that they depend on, as if nothing were installed. `private`
/// takes the packages and all that apt notes down about the suite.
pub(super) fn download_of_suite(
    mirror: &str,
    suite: &str,
    packages: &[&str],
    private: &Path,
) -> Result<Vec<PathBuf>> {
    let suite = Suite::open(mirror, suite, private)?;
    let install = ["install", "--download-only", "--yes", "--no-install-recommends"];
    output(suite.command("apt-get").args(install).args(packages))?;
    packages_in(&private.join("archives"))
}

/// The packages of a suite, whatever the machine's own is.
pub(super) struct Suite<'a> {
    /// Takes all that apt notes down about the suite.
    private: &'a Path,
}

impl<'a> Suite<'a> {
    /// Fetches the suite's package lists.
    pub(super) fn open(mirror: &str, suite: &str, private: &'a Path) -> Result<Self> {
        const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
        for dir in ["lists/partial", "archives/partial"].map(|dir| private.join(dir)) {
            fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        }
        let signed =
            if Path::new(KEYRING).is_file() { format!("[signed-by={KEYRING}] ") } else { String::new() };
        let dir = private.display();
        // Proxies and the like are taken from the machine's own configuration, which is read before this file.
        let config = format!(
            "Dir::State::lists \"{dir}/lists\";
Dir::State::status \"{dir}/status\";
Dir::Cache \"{dir}\";
Dir::Etc::sourcelist \"{dir}/sources.list\";
Dir::Etc::sourceparts \"/dev/null\";
Dir::Etc::preferences \"/dev/null\";
Dir::Etc::preferencesparts \"/dev/null\";
Acquire::Languages \"none\";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";
APT::Sandbox::User \"root\";
Debug::NoLocking \"1\";
"
        );
        let files = [
            ("status", String::new()),
            ("sources.list", format!("deb {signed}{mirror} {suite} main\n")),
            ("apt.conf", config),
        ];
        for (name, content) in files {
            let file = private.join(name);
            fs::write(&file, content).with_context(|| format!("write {}", file.display()))?;
        }
        let suite = Self { private };
        output(suite.command("apt-get").arg("update"))?;
        Ok(suite)
    }

    /// One of apt's programs, for which there is this suite alone.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.private.join("apt.conf")).env("LC_ALL", "C");
        command
    }

    /// What a package depends on, in turn, and the package itself.
    pub(super) fn closure(&self, package: &str) -> Result<Vec<String>> {
        let mut apt = self.command("apt-cache");
        // Only what it can't do without.
        apt.args(["depends", "--recurse", "--important", package]);
        Ok(named_in(&output(&mut apt)?))
    }

    /// Fetches these packages alone.
    pub(super) fn download(&self, packages: &[String]) -> Result<Vec<PathBuf>> {
        let archives = self.private.join("archives");
        output(self.command("apt-get").arg("download").args(packages).current_dir(&archives))?;
        packages_in(&archives)
    }
}

/// The packages that `apt-cache depends --recurse` goes through: what each depends on is indented.
fn named_in(depends: &str) -> Vec<String> {
    depends.lines().filter(|line| !line.starts_with([' ', '<', '|'])).map(str::to_owned).collect()
}

/// The mirror from which the machine's own Debian comes, if it is one.
pub(super) fn debian_mirror() -> Option<String> {
    // What a repository says of itself is known once its lists are there.
    named_mirror().or_else(|| update().ok().and_then(|()| named_mirror()))
}

fn named_mirror() -> Option<String> {
    const FIELDS: &str = "$(ORIGIN) $(RELEASE) $(COMPONENT) $(REPO_URI)";
    let targets =
        output(Command::new("apt-get").args(["indextargets", "--format", FIELDS, "Created-By: Packages"]));
    mirror_in(&targets.ok()?)
}

/// The mirror of a release itself, not of its security updates or the like.
fn mirror_in(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (origin, release, component) = (fields.next()?, fields.next()?, fields.next()?);
        let is_release = origin == "Debian" && component == "main" && !release.contains(['-', '/']);
        is_release.then(|| fields.next().map(str::to_owned))?
    })
}

fn packages_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let files = fs::read_dir(directory).with_context(|| format!("look into {}", directory.display()))?;
    let paths = files.filter_map(|file| Some(file.ok()?.path()));
    Ok(paths.filter(|path| path.extension().is_some_and(|extension| extension == "deb")).collect())
}

fn try_install(packages: &[&str]) -> Result<()> {
    let mut apt = as_root("env", &format!("to install {}", packages.join(" ")))?;
    apt.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--no-install-recommends"]);
    output(apt.args(["--no-remove", "-o", "DPkg::Lock::Timeout=120"]).args(packages)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_told_from_what_they_depend_on() {
        let depends = "linux-image-cloud-amd64
  Depends: linux-image-6.1.0-50-cloud-amd64
linux-image-6.1.0-50-cloud-amd64
  Depends: kmod
 |Depends: linux-initramfs-tool
    initramfs-tools
<linux-initramfs-tool>
kmod
";
        let wanted = ["linux-image-cloud-amd64", "linux-image-6.1.0-50-cloud-amd64", "kmod"];
        assert_eq!(named_in(depends), wanted);
    }

    #[test]
    fn the_mirror_is_the_one_of_the_release_itself() {
        let targets = "Debian bookworm-security main http://a.example/debian-security/
google-cloud bookworm main https://b.example/apt/
Debian bookworm contrib http://c.example/debian/
Debian bookworm-updates main http://d.example/debian/
Debian bookworm main http://e.example/debian/
$(ORIGIN) trixie main http://f.example/debian/";
        assert_eq!(mirror_in(targets).as_deref(), Some("http://e.example/debian/"));
        assert_eq!(mirror_in("Ubuntu noble main http://g.example/ubuntu/"), None);
    }
}
