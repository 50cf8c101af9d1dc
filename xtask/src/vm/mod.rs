//! The tests on kernels that this machine does not run: Debian's own, each booted in an emulator with a file system
//! made for it. A kernel that rnet runs on must pass them, one that it does not must be refused in good order.

mod cpio;
mod guest;
mod machine;
mod modules;
mod report;
mod table;

use std::{ffi::OsString, fs, path::Path, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use self::{
    guest::{Guest, Step, Work},
    report::{MARK, Report},
    table::Row,
};
use crate::{
    build,
    command::workspace,
    progress::{heading, note, step},
    setup, test,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Which kernels; all of them if none is named.
    #[arg(long = "kernel", value_enum, value_name = "NAME")]
    kernels: Vec<Kernel>,
    /// Parts of tests' names, or other arguments for the tests' own runner, instead of the usual selection.
    #[arg(last = true)]
    filter: Vec<OsString>,
}

/// The kernel of a release of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kernel {
    /// Debian 11's: refused.
    #[value(name = "5.10")]
    Bullseye,
    /// Debian 12's: refused.
    #[value(name = "6.1")]
    Bookworm,
    /// Debian 13's.
    #[value(name = "6.12")]
    Trixie,
    /// The newest that Debian has.
    #[value(name = "sid")]
    Sid,
}

/// What becomes of rnet on a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Runs,
    IsRefused,
}

impl Kernel {
    /// The release of Debian whose kernel it is, and what becomes of rnet there.
    fn described(self) -> (&'static str, Expected) {
        match self {
            Self::Bullseye => ("bullseye", Expected::IsRefused),
            Self::Bookworm => ("bookworm", Expected::IsRefused),
            Self::Trixie => ("trixie", Expected::Runs),
            Self::Sid => ("sid", Expected::Runs),
        }
    }
}

/// The one test for kernels that are refused, and the first for all others.
const REFUSAL: &str = "kernel::one_that_is_too_old_is_refused_in_one_line_and_nothing_is_left";
const LOADING: &str = "kernel::one_that_is_new_enough_takes_every_program";

/// One of each kind: a test takes ten seconds and more, most of which the verifier needs, and all would take an hour.
const PACKETS: [&str; 4] = ["egress::tcp", "hairpin::", "xdp::", "ipv6::"];
const TRAFFIC: [&str; 2] = ["publish::offloaded", "egress::offloaded"];

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the guests are of this machine's programs, and the kernels for x86_64 alone");
    }
    setup::called_tools()?;
    let emulator = setup::emulator()?;
    let kernels = if options.kernels.is_empty() { Kernel::value_variants() } else { &options.kernels };
    let kernels = kernels
        .iter()
        .map(|kernel| Ok((*kernel, setup::kernel(kernel.described().0, &emulator)?)))
        .collect::<Result<Vec<_>>>()?;
    let built = build::run(&build::Options::default())?;
    let (e2e, datapath) = (test::executable("e2e")?, test::executable("datapath")?);
    let programs = [
        Work { name: "rnet", file: &built.rnet },
        Work { name: "e2e", file: &e2e },
        Work { name: "datapath", file: &datapath },
    ];
    let data = [Work { name: "datapath.o", file: &built.object }];
    let filter = options.filter.iter().map(|argument| argument.to_string_lossy().into_owned());
    let filter: Vec<_> = filter.collect();

    let mut rows = Vec::new();
    for (which, kernel) in &kernels {
        let expected = which.described().1;
        let logs = workspace().join("target/vm").join(&kernel.release);
        fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
        let initramfs = logs.join("initramfs.cpio");
        let steps = steps(expected, &filter);
        step(format_args!("making a file system for Linux {}", kernel.release), || {
            let archive = Guest::new(&emulator, &programs, &data)?.finish(kernel, &steps)?;
            fs::write(&initramfs, archive).with_context(|| format!("write {}", initramfs.display()))
        })?;
        heading(format_args!("Linux {}", kernel.release));
        let outcome = machine::run(&emulator, kernel, &initramfs, &logs, say);
        if std::env::var_os("KEEP").is_none() {
            remove(&initramfs);
        }
        match &outcome {
            Ok(report) if !report.is_over => note("the guest has ended early: see its log"),
            Ok(_) => {}
            Err(error) => note(format_args!("{error:#}")),
        }
        note(format_args!("the kernel's own messages: {}", logs.join("console.log").display()));
        rows.extend(table::rows(&kernel.release, expected, &steps, outcome.as_ref().ok()));
    }
    print!("{}", table::text(&rows));
    let is_good = rows.iter().all(Row::is_good);
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is run on a kernel.
fn steps(expected: Expected, filter: &[String]) -> Vec<Step> {
    let owned = |arguments: &[&str]| arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let chosen = |usual: &[&str]| if filter.is_empty() { owned(usual) } else { filter.to_vec() };
    match expected {
        Expected::IsRefused => vec![("refusal", "e2e", owned(&["--ignored", "--exact", REFUSAL]))],
        Expected::Runs => vec![
            ("loading", "e2e", owned(&["--exact", LOADING])),
            ("packets", "datapath", chosen(&PACKETS)),
            ("traffic", "e2e", chosen(&TRAFFIC)),
        ],
    }
}

/// Passes on what a guest says, but for the marks.
fn say(line: &str) {
    if !line.starts_with(MARK) {
        eprintln!("{line}");
    }
}

fn remove(file: &Path) {
    if let Err(error) = fs::remove_file(file) {
        note(format_args!("{} stays: {error}", file.display()));
    }
}
