//! The tests on kernels that this machine does not run: Debian's own, each booted in an emulator with a file system
//! made for it. A kernel that rnet runs on must pass them, one that it does not must be refused in good order.

mod cpio;
mod guest;
mod machine;
mod modules;
mod plan;
mod report;
mod table;

use std::{ffi::OsString, fs, path::Path, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use self::{
    guest::{Guest, Work},
    plan::Kernel,
    report::MARK,
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

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the guests are of this machine's programs, and the kernels for x86_64 alone");
    }
    setup::called_tools()?;
    let emulator = setup::emulator()?;
    let kernels = if options.kernels.is_empty() { Kernel::value_variants() } else { &options.kernels };
    let kernels = kernels
        .iter()
        .map(|kernel| Ok((*kernel, setup::kernel(kernel.suite(), &emulator)?)))
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
        let logs = workspace().join("target/vm").join(&kernel.release);
        fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
        let initramfs = logs.join("initramfs.cpio");
        let steps = which.steps(&filter);
        step(format_args!("making a file system for Linux {}", kernel.release), || {
            let archive = Guest::new(&emulator, &programs, &data)?.finish(kernel, &steps)?;
            fs::write(&initramfs, archive).with_context(|| format!("write {}", initramfs.display()))
        })?;
        heading(format_args!("Linux {}", kernel.release));
        let outcome = machine::run(&emulator, kernel, &initramfs, &logs, say);
        remove(&initramfs);
        match &outcome {
            Ok(report) if !report.is_over => note("the guest has ended early: see its log"),
            Ok(_) => {}
            Err(error) => note(format_args!("{error:#}")),
        }
        note(format_args!("the kernel's own messages: {}", logs.join("console.log").display()));
        rows.extend(table::rows(&kernel.release, which.expected(), &steps, outcome.as_ref().ok()));
    }
    print!("{}", table::text(&rows));
    let is_good = rows.iter().all(Row::is_good);
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
