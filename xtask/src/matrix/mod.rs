//! The matrix server × case: every case runs against every server that it applies to, and after each the verdict
//! must hold.
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
mod ancestor;
mod capacity;
mod command_line;
mod conformance;
mod endings;
mod faults;
mod hostile;
mod lifecycle;
mod logging;
mod parallel;
mod spread;
mod supervision;
mod syscalls;

use anyhow::{Result, bail};

use crate::harness::verdict::{Ctx, ended, served};
use crate::servers::{Entry, SERVERS};
use crate::trial::Trial;
use crate::workspace;

/// All tests of the matrix, for which everything is built first.
pub(crate) fn trials() -> Result<Vec<Trial>> {
    let broken = workspace::build()?;
    let mut trials = conformance::trials()?;
    trials.extend(endings::trials());
    let tables = [
        ("ancestor", ancestor::CASES),
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
    // What lies there of a server that does not build is an old one: it is not worth a test.
    for entry in SERVERS.iter().filter(|entry| broken.contains(&entry.package)) {
        let of_entry = format!("matrix::{}::", entry.name);
        for trial in trials.iter_mut().filter(|trial| trial.name.starts_with(&of_entry)) {
            trial.run = Box::new(|| bail!("{} does not build", entry.package));
        }
    }
    Ok(trials)
}

/// A line of a table. Without more said it applies to every server but the exhibit, with no extra arguments, and may
/// run beside others.
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
    /// Against a server that was started for it and is judged after it.
    Served(fn(&mut Ctx) -> Result<()>),
    /// Against a server that was started for it and that it ends.
    Ended(fn(&mut Ctx) -> Result<()>),
    /// On its own: it starts what it needs, with its line's arguments.
    Bare(fn(&'static Entry, &'static [&'static str]) -> Result<()>),
}

/// A case with a server; the verdict follows it.
pub(crate) const fn case(name: &'static str, run: fn(&mut Ctx) -> Result<()>) -> Case {
    with(name, Run::Served(run))
}

/// A case after which the server has ended, all of it.
pub(crate) const fn ending(name: &'static str, run: fn(&mut Ctx) -> Result<()>) -> Case {
    with(name, Run::Ended(run))
}

/// A case that starts by itself what it needs; no verdict follows it.
pub(crate) const fn bare(name: &'static str, run: fn(&'static Entry, &'static [&'static str]) -> Result<()>) -> Case {
    with(name, Run::Bare(run))
}

const fn with(name: &'static str, run: Run) -> Case {
    Case { name, run, arguments: &[], applies: |entry| !entry.is_example, wrapper: &[], is_alone: false }
}

impl Case {
    /// Further arguments for the server.
    pub(crate) const fn arguments(self, arguments: &'static [&'static str]) -> Case {
        Case { arguments, ..self }
    }

    /// The servers it applies to.
    pub(crate) const fn on(self, applies: fn(&Entry) -> bool) -> Case {
        Case { applies, ..self }
    }

    /// What the server runs under: `&["strace", "-f", "-o", "/dev/null", …]`, `&["prlimit", "--nofile=64"]`.
    pub(crate) const fn under(self, wrapper: &'static [&'static str]) -> Case {
        Case { wrapper, ..self }
    }

    /// For what looks at the processor, at the clock, or uses strace: nothing runs beside it.
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
