//! `cargo xtask trace`: what each thread of a server waited for, drawn.
//!
//! ```console
//! $ cargo xtask trace single workers poll    # a timeline of each, here and as pictures under target/trace
//! $ cargo xtask trace                        # of all servers
//! $ cargo xtask trace --poster               # and all of them side by side on one page
//! ```
//!
//! 1. `scenario`: three clients ask three questions each; client 1 thinks in between, the others connect meanwhile.
//! 2. `recording`: the server runs under strace, whose log `strace` reads; and once more without it.
//! 3. `lanes` turns calls into intervals: asleep in accept(), recv(), epoll_wait(); working; sending; and
//!    for which client.
//! 4. `summary` counts; `terminal`, `svg`, `perfetto` and `poster` show.

mod drawing;
mod lanes;
mod perfetto;
mod poster;
mod recording;
mod scenario;
mod strace;
mod summary;
mod svg;
mod terminal;
mod trials;

use std::fs;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::servers::{Entry, SERVERS};
use crate::workspace;
use recording::Recording;

pub(crate) use trials::trials;

/// Draws what each thread of a server waited for while three clients ask
#[derive(Args)]
pub(crate) struct Flags {
    /// Servers, as in `test-all`: single, workers, poll … [default: all]
    #[arg(value_name = "SERVER")]
    servers: Vec<String>,
    /// Draw them side by side on one page too
    #[arg(long)]
    poster: bool,
    /// Let the servers simulate work on each answer by sleeping for this time
    #[arg(long, value_name = "DURATION")]
    delay: Option<String>,
}

pub(crate) fn run(flags: &Flags) -> Result<ExitCode> {
    let entries = chosen(&flags.servers)?;
    workspace::build()?;
    let folder = workspace::target()?.join("trace");
    let mut recordings = Vec::new();
    let mut written = Vec::new();
    for entry in entries {
        let delay = flags.delay.as_ref().map(|delay| ["--delay", delay]);
        let own = folder.join(entry.name);
        let recording = Recording::calmest(entry, delay.as_ref().map_or(&[], |delay| delay), &own)
            .with_context(|| format!("tracing {}", entry.name))?;
        say(&format!("{}\n", terminal::shown(&recording)));
        written.push(write(&own.join("timeline.svg"), &svg::document(&recording))?);
        written.push(write(&own.join("trace.json"), &perfetto::json(&recording)?)?);
        written.push(own.join(recording::LOG));
        recordings.push(recording);
    }
    say(terminal::LEGEND);
    if flags.poster {
        written.push(write(&folder.join("poster.html"), &poster::page(&recordings))?);
    }
    let written: String = written.iter().map(|path| format!("  {}\n", path.display())).collect();
    say(&format!("\nwritten:\n{written}trace.json can be opened at https://ui.perfetto.dev\n"));
    Ok(ExitCode::SUCCESS)
}

/// Returns the servers of these names, in the order of the names, or all servers if none is named.
fn chosen(names: &[String]) -> Result<Vec<&'static Entry>> {
    if names.is_empty() {
        return Ok(SERVERS.iter().collect());
    }
    let find = |name: &String| match SERVERS.iter().find(|entry| entry.name == name) {
        Some(entry) => Ok(entry),
        None => bail!("no server is called {name}: {}", SERVERS.iter().map(|s| s.name).collect::<Vec<_>>().join(", ")),
    };
    names.iter().map(find).collect()
}

/// Prints to stdout, and ignores a closed pipe, because the files are written in any case.
fn say(text: &str) {
    let _ = stdout().write_all(text.as_bytes());
}

fn write(path: &Path, text: &str) -> Result<PathBuf> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.to_owned())
}
