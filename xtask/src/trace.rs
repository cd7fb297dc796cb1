//! `cargo xtask trace`: what each thread of a server waited for, drawn.
//!
//! ```console
//! $ cargo xtask trace single workers poll    # a timeline of each, here and as pictures under target/trace
//! $ cargo xtask trace                        # of all servers
//! $ cargo xtask trace --poster               # and all of them side by side on one page
//! $ cargo xtask trace --readme               # the picture at the top of the project's README
//! ```
//!
//! 1. `scenario`: what the clients do. Unless another is named, three ask three questions each; client 1 thinks in
//!    between, the others connect meanwhile.
//! 2. `recording` runs the server under strace, three times, and keeps the run with the least disturbance. It also runs
//!    the server without strace, to show what strace costs. `strace` parses the log.
//! 3. `lanes` turns the calls into intervals: asleep in accept(), recv() or epoll_wait(), working, or sending, and for
//!    which client. `sources` finds the source lines. The result is a `model`.
//! 4. `summary` computes the figures. `terminal`, `svg`, `perfetto` and `poster` draw.

mod drawing;
pub(crate) mod lanes;
pub(crate) mod model;
mod perfetto;
mod poster;
pub(crate) mod recording;
pub(crate) mod scenario;
pub(crate) mod sources;
pub(crate) mod strace;
mod summary;
pub(crate) mod svg;
mod terminal;
mod trials;

use std::fs;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::servers::{self, Entry, SERVERS};
use crate::workspace;
use recording::{Recording, Scene};

pub(crate) use trials::trials;

/// Draws what each thread of a server waited for while clients ask
#[derive(Args)]
pub(crate) struct Flags {
    /// Servers, as in `test-all`: single, workers, poll … [default: all]
    #[arg(value_name = "SERVER")]
    servers: Vec<String>,
    /// Draw them side by side on one page too
    #[arg(long, conflicts_with = "scenario")]
    poster: bool,
    /// Redraw the picture of single that the project's README begins with
    #[arg(long, conflicts_with_all = ["servers", "poster", "scenario", "delay"])]
    readme: bool,
    /// What the clients do: three-talkers, silent-client … [default: three-talkers]
    #[arg(long, value_name = "NAME", default_value = "three-talkers", hide_default_value = true)]
    scenario: String,
    /// Let the servers simulate work on each answer by sleeping for this time
    #[arg(long, value_name = "DURATION")]
    delay: Option<String>,
}

pub(crate) fn run(flags: &Flags) -> Result<ExitCode> {
    let entries = if flags.readme { vec![servers::named(IN_README)?] } else { chosen(&flags.servers)? };
    workspace::build()?;
    let folder = workspace::target()?.join("trace");
    let mut recordings = Vec::new();
    let mut written = Vec::new();
    let scenario = scenario::named(&flags.scenario)?;
    say(&format!("{}: {}\n\n", scenario.name, scenario.about));
    for entry in entries {
        let delay = flags.delay.as_ref().map(|delay| ["--delay", delay]);
        let scene = match Scene::new(entry, scenario, delay.as_ref().map_or(&[], |delay| delay)) {
            Ok(scene) => scene,
            Err(why) => {
                say(&format!("{}: skipped {}: {why}\n\n", entry.name, scenario.name));
                continue;
            }
        };
        let own = folder.join(entry.name);
        let recording = Recording::calmest(&scene, &own).with_context(|| format!("tracing {}", entry.name))?;
        say(&format!("{}\n", terminal::shown(&recording)));
        let picture = svg::document(&recording);
        if flags.readme {
            written.push(write(&workspace::root()?.join(README_PICTURE), &picture)?);
        }
        written.push(write(&own.join("timeline.svg"), &picture)?);
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
pub(crate) fn chosen(names: &[String]) -> Result<Vec<&'static Entry>> {
    if names.is_empty() {
        return Ok(SERVERS.iter().collect());
    }
    names.iter().map(|name| servers::named(name)).collect()
}

/// Prints to stdout, and ignores a closed pipe, because the files are written in any case.
fn say(text: &str) {
    let _ = stdout().write_all(text.as_bytes());
}

fn write(path: &Path, text: &str) -> Result<PathBuf> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.to_owned())
}

/// The picture at the top of the project's README, and the server that it shows.
const README_PICTURE: &str = ".github/wait.svg";
const IN_README: &str = "single";
