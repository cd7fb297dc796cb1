//! `cargo xtask deploy`: tests each part of `xtask/deploy/` with the real programs.
//!
//! ```console
//! $ cargo xtask deploy test                # all of it
//! $ cargo xtask deploy test start alive    # two rows
//! $ cargo xtask deploy test --list
//! $ cargo xtask deploy plan --clients 1000000 --rate 200000    # how many machines
//! ```
//!
//! A row is a topic of `xtask/deploy/README.md` and a file in `src/deploy/`, from the start of one server to several
//! hosts behind a balancer.

mod alive;
mod balancer;
mod dns;
mod fixture;
mod haproxy;
mod hitless;
mod holder;
mod hosts;
mod log;
mod metrics;
mod privilege;
mod restart;
mod rolling;
mod service;
mod start;
mod unit;
mod visits;

use std::process::ExitCode;

use anyhow::{Result, ensure};

use crate::bench::capacity;
use crate::trial::{self, Trial};
use crate::workspace;

/// Tests deployments with the real programs (systemd, inetd, HAProxy, Prometheus …), and plans them
#[derive(clap::Args)]
pub(crate) struct Flags {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Test(Test),
    Plan(capacity::Flags),
    Confined(privilege::Confined),
}

/// Tests every part with the real programs
#[derive(clap::Args)]
struct Test {
    /// Only tests that have one of these in their name, such as the name of a row
    row: Vec<String>,
    /// List the tests instead of running them
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(flags: &Flags) -> Result<ExitCode> {
    match &flags.what {
        What::Test(flags) => test(flags),
        What::Plan(flags) => capacity::run(flags),
        What::Confined(flags) => privilege::confined(flags),
    }
}

/// Returns the tests of all rows.
pub(crate) fn trials() -> Result<Vec<Trial>> {
    let broken = workspace::build()?;
    ensure!(broken.is_empty(), "these do not build: {}", broken.join(", "));
    let rows = [
        start::trials()?,
        privilege::trials()?,
        alive::trials()?,
        log::trials()?,
        metrics::trials()?,
        restart::trials()?,
        hitless::trials()?,
        balancer::trials()?,
        dns::trials()?,
        rolling::trials()?,
        hosts::trials()?,
    ];
    Ok(rows.into_iter().flatten().collect())
}

fn test(flags: &Test) -> Result<ExitCode> {
    let mut trials = trials()?;
    for row in &flags.row {
        ensure!(trials.iter().any(|trial| trial.name.contains(row)), "no test has {row:?} in its name; try --list");
    }
    trials.retain(|trial| flags.row.is_empty() || flags.row.iter().any(|row| trial.name.contains(row)));
    if flags.list {
        trials.iter().for_each(|trial| println!("{}", trial.name));
        return Ok(ExitCode::SUCCESS);
    }
    let tally = trial::run(trials);
    Ok(if tally.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
