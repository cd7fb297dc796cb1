//! The matrix server × case: every case runs against every server that it applies to. After most cases the server is
//! checked once more: see [`crate::harness::verdict`].
//!
//! A new case is a function and a line in its file's table:
//!
//! ```ignore
//! case("silence_after_connect", silence_after_connect).arguments(&["--idle-timeout", "300ms"]),
//!
//! fn silence_after_connect(ctx: &mut Ctx) -> Result<()> {
//!     ctx.client()?.expect_end()
//! }
//! ```

mod activation;
mod book;
mod capacity;
mod command_line;
mod conformance;
mod endings;
mod faults;
mod hostile;
mod lifecycle;
mod logging;
pub(crate) mod parallel;
mod spread;
mod supervision;
pub(crate) mod syscalls;

use anyhow::{Result, bail};

use crate::harness::verdict::{Ctx, ended, served};
use crate::servers::{Entry, SERVERS};
use crate::trial::Trial;
use crate::workspace;

/// Builds everything and returns all tests of the matrix.
pub(crate) fn trials() -> Result<Vec<Trial>> {
    let broken = workspace::build()?;
    let mut trials = conformance::trials()?;
    trials.extend(endings::trials());
    let tables = [
        ("book", book::CASES),
        ("capacity", capacity::CASES),
        ("command_line", command_line::CASES),
        ("draining", lifecycle::asked::CASES),
        ("draining", lifecycle::cut::CASES),
        ("draining", lifecycle::hangup::CASES),
        ("faults", faults::accepting::CASES),
        ("faults", faults::answering::CASES),
        ("faults", faults::descriptors::CASES),
        ("faults", faults::network::CASES),
        ("faults", faults::stopped::CASES),
        ("hostile", hostile::crowd::CASES),
        ("hostile", hostile::garbage::CASES),
        ("hostile", hostile::leaving::CASES),
        ("hostile", hostile::silence::CASES),
        ("hostile", hostile::unread::CASES),
        ("inetd", activation::direct::CASES),
        ("inetd", activation::inetd::CASES),
        ("inetd", activation::systemd::CASES),
        ("log", logging::CASES),
        ("log", logging::broken::CASES),
        ("log", logging::limit::CASES),
        ("log", logging::rotation::CASES),
        ("parallel", parallel::CASES),
        ("signals", lifecycle::inherited::CASES),
        ("spread", spread::CASES),
        ("children", supervision::children::CASES),
        ("supervision", supervision::CASES),
        ("supervision", supervision::workers::CASES),
        ("syscalls", syscalls::CASES),
    ];
    for (group, cases) in tables {
        for case in cases {
            let servers = SERVERS.iter().filter(|entry| (case.applies)(entry));
            trials.extend(servers.map(|entry| case.trial(entry, group)));
        }
    }
    // A server that does not build has no binary. Its tests fail with that reason.
    for entry in SERVERS.iter().filter(|entry| broken.contains(&entry.package)) {
        let of_entry = format!("matrix::{}::", entry.name);
        for trial in trials.iter_mut().filter(|trial| trial.name.starts_with(&of_entry)) {
            trial.run = Box::new(|| bail!("{} does not build", entry.package));
        }
    }
    Ok(trials)
}

/// A row of a table of cases. By default it applies to every server but the examples, has no extra arguments, and may
/// run in parallel with others.
pub(crate) struct Case {
    name: &'static str,
    run: Run,
    arguments: &'static [&'static str],
    applies: fn(&Entry) -> bool,
    wrapper: &'static [&'static str],
    is_alone: bool,
}

#[derive(Clone, Copy)]
enum Run {
    /// Runs against a server that was started for it and is checked after it.
    Served(fn(&mut Ctx) -> Result<()>),
    /// Runs against a server that was started for it, and ends that server.
    Ended(fn(&mut Ctx) -> Result<()>),
    /// Starts what it needs by itself. It receives the arguments of its row.
    Bare(fn(&'static Entry, &'static [&'static str]) -> Result<()>),
}

/// Returns a case against a server that is started for it, and checked and stopped after it.
pub(crate) const fn case(name: &'static str, run: fn(&mut Ctx) -> Result<()>) -> Case {
    with(name, Run::Served(run))
}

/// Returns a case after which every process of the server must have exited.
pub(crate) const fn ending(name: &'static str, run: fn(&mut Ctx) -> Result<()>) -> Case {
    with(name, Run::Ended(run))
}

/// Returns a case that starts what it needs by itself; there is no verdict after it.
pub(crate) const fn bare(name: &'static str, run: fn(&'static Entry, &'static [&'static str]) -> Result<()>) -> Case {
    with(name, Run::Bare(run))
}

const fn with(name: &'static str, run: Run) -> Case {
    Case { name, run, arguments: &[], applies: |entry| !entry.is_example, wrapper: &[], is_alone: false }
}

impl Case {
    /// Adds arguments to the server's command line.
    pub(crate) const fn arguments(self, arguments: &'static [&'static str]) -> Case {
        Case { arguments, ..self }
    }

    /// Restricts the case to some servers.
    pub(crate) const fn on(self, applies: fn(&Entry) -> bool) -> Case {
        Case { applies, ..self }
    }

    /// Sets the program that the server runs under: `&["strace", "-f", "-o", "/dev/null", …]`, `&["prlimit",
    /// "--nofile=64"]`.
    pub(crate) const fn under(self, wrapper: &'static [&'static str]) -> Case {
        Case { wrapper, ..self }
    }

    /// Runs the case alone: for cases that measure processor time or the clock, or that use strace.
    pub(crate) const fn alone(self) -> Case {
        Case { is_alone: true, ..self }
    }

    fn trial(&self, entry: &'static Entry, group: &str) -> Trial {
        let &Case { run, arguments, wrapper, is_alone, .. } = self;
        let trial = Trial::new(format!("matrix::{}::{group}::{}", entry.name, self.name), move || match run {
            Run::Served(run) => served(entry, wrapper, arguments, is_alone, run),
            Run::Ended(run) => ended(entry, wrapper, arguments, run),
            Run::Bare(run) => run(entry, arguments),
        });
        if is_alone { trial.alone() } else { trial }
    }
}
