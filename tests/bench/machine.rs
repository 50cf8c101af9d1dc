//! The machine that was measured on, as far as it bears on the figures.

use std::{fs, process::Command};

use serde::Serialize;

/// What the machine is and how it is set. Absent is what it does not tell.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    /// The kernel's release and version.
    pub(crate) kernel: String,
    /// The architecture, as the kernel calls it.
    pub(crate) architecture: String,
    /// The distribution's name and version.
    pub(crate) distribution: Option<String>,
    /// The processor's name.
    pub(crate) cpu: Option<String>,
    /// How many processors are online.
    pub(crate) cpus: usize,
    /// Memory that the kernel has, in bytes.
    pub(crate) memory_bytes: Option<u64>,
    /// It runs under a hypervisor. Not every hypervisor says so.
    pub(crate) virtual_machine: bool,
    /// Who made the machine and what it is, by its firmware.
    pub(crate) product: Option<String>,
    /// How the first processor's clock is governed.
    pub(crate) governor: Option<String>,
    /// `net.core.bpf_jit_enable`: 0 interprets programs, 1 compiles them, 2 also prints them.
    pub(crate) bpf_jit: Option<String>,
    /// `kernel.bpf_stats_enabled`: 1 adds the time of two clock reads to each run of a program.
    pub(crate) bpf_stats: Option<String>,
    /// `net.ipv4.tcp_congestion_control`, the default of namespaces too.
    pub(crate) congestion_control: Option<String>,
    /// What the rules were made with.
    pub(crate) tools: Vec<Tool>,
}

/// A program and its version.
#[derive(Debug, Serialize)]
pub(crate) struct Tool {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it says of itself; absent when it could not be run.
    pub(crate) version: Option<String>,
}

/// Tools and the option that they tell their version by.
const TOOLS: [(&str, &str); 4] =
    [("iptables", "--version"), ("nft", "--version"), ("ip", "-V"), ("ethtool", "--version")];

impl Machine {
    /// This machine.
    pub(crate) fn look() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let kernel = ["osrelease", "version"].map(|name| line(&format!("/proc/sys/kernel/{name}")));
        let product = ["sys_vendor", "product_name"].map(|name| line(&format!("/sys/class/dmi/id/{name}")));
        Self {
            kernel: kernel.into_iter().flatten().collect::<Vec<_>>().join(" "),
            architecture: std::env::consts::ARCH.to_owned(),
            distribution: distribution(&os_release),
            cpu: field(&cpuinfo, "model name"),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_bytes(&meminfo),
            virtual_machine: is_virtual(&cpuinfo) || line("/sys/hypervisor/type").is_some(),
            product: Some(product.into_iter().flatten().collect::<Vec<_>>().join(" "))
                .filter(|p| !p.is_empty()),
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            bpf_jit: line("/proc/sys/net/core/bpf_jit_enable"),
            bpf_stats: line("/proc/sys/kernel/bpf_stats_enabled"),
            congestion_control: line("/proc/sys/net/ipv4/tcp_congestion_control"),
            tools: TOOLS.map(|(name, option)| Tool { name, version: version(name, option) }).into(),
        }
    }

    /// What and how much, for people.
    pub(crate) fn rows(&self) -> Vec<[String; 2]> {
        let told = |value: &Option<String>| value.clone().unwrap_or_else(|| "not told".to_owned());
        let mut rows = vec![
            ("kernel", format!("{} ({})", self.kernel, self.architecture)),
            ("distribution", told(&self.distribution)),
            ("processors", format!("{} × {}", self.cpus, told(&self.cpu))),
            ("memory", self.memory_bytes.map_or_else(|| told(&None), gibibytes)),
            ("virtual machine", if self.virtual_machine { "yes" } else { "not that it says" }.to_owned()),
            ("product", told(&self.product)),
            ("CPU frequency governor", self.governor.clone().unwrap_or_else(|| "none".to_owned())),
            ("net.core.bpf_jit_enable", told(&self.bpf_jit)),
            ("kernel.bpf_stats_enabled", told(&self.bpf_stats)),
            ("net.ipv4.tcp_congestion_control", told(&self.congestion_control)),
        ];
        rows.extend(self.tools.iter().map(|tool| (tool.name, told(&tool.version))));
        rows.into_iter().map(|(name, value)| [name.to_owned(), value]).collect()
    }
}

fn gibibytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one digit after the point is shown")]
    let gibibytes = bytes as f64 / f64::from(1 << 30);
    format!("{gibibytes:.1} GiB")
}

/// The first line of a file, unless it is not there or empty.
fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

/// A field of `/proc/cpuinfo`, of the first processor that has it.
fn field(cpuinfo: &str, name: &str) -> Option<String> {
    let fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    fields.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned()).next()
}

/// Whether the processor says that it is one of a virtual machine. Only x86 has a flag for it.
fn is_virtual(cpuinfo: &str) -> bool {
    field(cpuinfo, "flags").is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"))
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn distribution(os_release: &str) -> Option<String> {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim_matches(['"', '\'']).to_owned())
}

/// What a program says first when it is asked for its version.
fn version(program: &str, option: &str) -> Option<String> {
    let output = Command::new(program).arg(option).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_tells_its_name_and_its_hypervisor() {
        let virtual_one =
            "processor\t: 0\nmodel name\t: A CPU: fast\nflags\t\t: fpu hypervisor sse\n\nprocessor\t: 1\n";
        assert_eq!(field(virtual_one, "model name"), Some("A CPU: fast".to_owned()));
        assert!(is_virtual(virtual_one));
        let real_one = "processor\t: 0\nflags\t\t: fpu nohypervisor sse\n";
        assert_eq!(field(real_one, "model name"), None);
        assert!(!is_virtual(real_one));
    }

    #[test]
    fn memory_is_counted_in_bytes() {
        assert_eq!(memory_bytes("MemTotal:        4028856 kB\nMemFree: 1 kB\n"), Some(4_028_856 * 1024));
        assert_eq!(memory_bytes("MemFree: 1 kB\n"), None);
        assert_eq!(gibibytes(3 << 29), "1.5 GiB");
    }

    #[test]
    fn a_distribution_is_called_by_its_pretty_name() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\n";
        assert_eq!(distribution(debian), Some("Debian GNU/Linux 12 (bookworm)".to_owned()));
        assert_eq!(distribution("ID=alpine\n"), None);
    }

    #[test]
    fn this_machine_has_a_kernel_and_processors() {
        let machine = Machine::look();
        assert!(machine.kernel.starts_with(|c: char| c.is_ascii_digit()), "{}", machine.kernel);
        assert!(machine.cpus > 0 && machine.memory_bytes > Some(0));
        assert!(machine.rows().iter().flatten().all(|text| !text.is_empty()), "{:?}", machine.rows());
    }
}
