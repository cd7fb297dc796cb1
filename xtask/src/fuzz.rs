//! `cargo xtask fuzz`: runs the protocol's fuzz target for longer than a test may take.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::workspace;

/// Fuzzes the protocol
#[derive(clap::Args)]
pub(crate) struct Flags {
    /// How many seconds to fuzz
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
}

pub(crate) fn run(flags: &Flags) -> Result<ExitCode> {
    let time = (flags.seconds * 1000).to_string();
    let status = workspace::cargo()
        .args(["test", "--quiet", "--release", "--package", "zen-proto", "--test", "fuzz", "--", "--nocapture"])
        // Bolero on stable: the corpus first, then random input until the time is over.
        .env("BOLERO_RANDOM_TEST_TIME_MS", &time)
        .status()
        .context("cannot run cargo test")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
