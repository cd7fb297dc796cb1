//! `cargo xtask manual`: writes manual pages, and completions for bash, zsh and fish, for every server and zen-client.
//!
//! They are generated from each program's clap definition. What clap does not know (exit status, signals, environment,
//! further reading) is in `manual/sections.rs`.

mod sections;
mod trials;

#[path = "../../zen-client/src/pages.rs"]
mod pages;

// The option files of the servers.
#[path = "../../zen-async/src/options.rs"]
#[allow(dead_code, reason = "only its command line is used")]
mod zen_async;
#[path = "../../zen-poll/src/options.rs"]
#[allow(dead_code, reason = "only its command line is used")]
mod zen_poll;
#[path = "../../zen-single/src/options.rs"]
#[allow(dead_code, reason = "only its command line is used")]
mod zen_single;
#[path = "../../zen-threaded/src/options.rs"]
#[allow(dead_code, reason = "only its command line is used")]
mod zen_threaded;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::CommandFactory;

use crate::harness::WAIT_LIMIT;
use crate::harness::group::run_within;
use crate::workspace;
use sections::{OF_CLIENT, OF_SERVERS, Section};
pub(crate) use trials::trials;

/// Writes manual pages, and completions for bash, zsh and fish
#[derive(clap::Args)]
pub(crate) struct Flags {
    /// Folder to write to [default: target/manual]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(flags: &Flags) -> Result<ExitCode> {
    let folder = flags.out.clone().map_or_else(|| workspace::target().map(|target| target.join("manual")), Ok)?;
    workspace::build()?;
    write(&folder)?;
    println!("{}", folder.display());
    Ok(ExitCode::SUCCESS)
}

/// Writes all pages and completions. The example of zen-client must be built.
fn write(folder: &Path) -> Result<()> {
    for (name, command) in servers() {
        pages::write(&command.name(name), folder)?;
        append(&folder.join(format!("{name}.1")), OF_SERVERS)?;
    }
    // xtask does not link the client: an example of zen-client writes its pages.
    let output = run_within(WAIT_LIMIT, Command::new(workspace::binary("examples/manual")?).arg(folder))?;
    ensure!(output.status.success(), "zen-client: {}", String::from_utf8_lossy(&output.stderr));
    CLIENT_PAGES.iter().try_for_each(|page| append(&folder.join(page), OF_CLIENT))
}

/// Returns each server's command line, by package.
fn servers() -> [(&'static str, clap::Command); 4] {
    [
        ("zen-single", zen_single::Arguments::command()),
        ("zen-threaded", zen_threaded::Arguments::command()),
        ("zen-poll", zen_poll::Arguments::command()),
        ("zen-async", zen_async::Arguments::command()),
    ]
}

fn append(page: &Path, sections: &[Section]) -> Result<()> {
    let mut text = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    text.extend(sections.iter().map(Section::roff));
    fs::write(page, text).with_context(|| format!("cannot write {}", page.display()))
}

const CLIENT_PAGES: [&str; 5] =
    ["zen-client.1", "zen-client-check.1", "zen-client-load.1", "zen-client-say.1", "zen-client-selftest.1"];
