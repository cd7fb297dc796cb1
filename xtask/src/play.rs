//! `cargo xtask play`: a page that asks what a client will see, and then plays what happened.
//!
//! ```console
//! $ cargo xtask play                      # the page, with every scenario, under target/play
//! $ cargo xtask play single poll          # with these servers only
//! $ cargo xtask play --scenario draining  # with this scenario only
//! $ cargo xtask play --live single        # a page of a server that runs now, with clients to add
//! ```
//!
//! 1. `trace` records each scenario with each server to which it applies, some at the same time.
//! 2. The recordings are written as JSON, and into one self-contained page.
//! 3. In the page, `questions.js` derives a question from a recording and `reasons.js` explains the answer.
//!    `lanes.js` draws, `words.js` has all texts in both languages, and `play.js` is the rest.

mod browser;
mod explanations;
mod live;
mod trials;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;

use crate::servers::{self, Entry, SERVERS};
use crate::trace::model::Model;
use crate::trace::recording::{Recording, Scene};
use crate::trace::scenario::{self, SCENARIOS, Scenario};
use crate::trace::svg;
use crate::workspace;

pub(crate) use trials::trials;

/// Writes a page that asks what a client will see, and then plays what happened
#[derive(Args)]
pub(crate) struct Flags {
    /// Servers, as in `test-all`: single, workers, poll … [default: all]
    #[arg(value_name = "SERVER")]
    servers: Vec<String>,
    /// What the clients do: three-talkers, silent-client …; repeat it for more [default: all]
    #[arg(long = "scenario", value_name = "NAME")]
    scenarios: Vec<String>,
    /// Run this server instead, and watch it on a page that adds clients, removes them, and swaps the server
    #[arg(long, value_name = "SERVER", conflicts_with_all = ["servers", "scenarios"])]
    live: Option<String>,
}

pub(crate) fn run(flags: &Flags) -> Result<ExitCode> {
    if let Some(server) = &flags.live {
        return live::run(server);
    }
    let scenarios: Vec<&'static Scenario> = match flags.scenarios.as_slice() {
        [] => SCENARIOS.iter().collect(),
        names => names.iter().map(|name| scenario::named(name)).collect::<Result<_>>()?,
    };
    let servers: Vec<&'static Entry> = match flags.servers.as_slice() {
        [] => SERVERS.iter().collect(),
        names => names.iter().map(|name| servers::named(name)).collect::<Result<_>>()?,
    };
    workspace::build()?;
    let mut scenes = Vec::new();
    for scenario in scenarios {
        for entry in &servers {
            match Scene::new(entry, scenario, &[]) {
                Ok(scene) => scenes.push(scene),
                Err(why) => println!("skipped {} with {}: {why}", scenario.name, entry.name),
            }
        }
    }
    let folder = workspace::target()?.join("play");
    let models = recorded(&scenes, &folder)?;
    let page = written(&models, &folder)?;
    println!("{} recordings are in {}: open it in a browser", models.len(), page.display());
    Ok(ExitCode::SUCCESS)
}

/// Records these scenes, some at the same time since they mostly wait. Each is kept as JSON under `folder`.
fn recorded(scenes: &[Scene], folder: &Path) -> Result<Vec<Model>> {
    let next = Mutex::new(scenes.iter().enumerate());
    let record = || -> Result<Vec<(usize, Model)>> {
        let mut own = Vec::new();
        loop {
            let scene = next.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((place, scene)) = scene else { return Ok(own) };
            let (server, scenario) = (scene.entry.name, scene.scenario.name);
            let folder = folder.join(scenario).join(server);
            let recording = Recording::of(scene, &folder).with_context(|| format!("{scenario} with {server}"))?;
            let json = serde_json::to_string(&recording.model).context("a recording as JSON")?;
            fs::write(folder.join("recording.json"), json).context("cannot keep a recording")?;
            own.push((place, recording.model));
        }
    };
    let mut models = thread::scope(|scope| {
        let recorders: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(record)).collect();
        let mut models = Vec::new();
        for recorder in recorders {
            models.extend(recorder.join().map_err(|_| anyhow!("a recorder panicked"))??);
        }
        anyhow::Ok(models)
    })?;
    models.sort_by_key(|(place, _)| *place);
    Ok(models.into_iter().map(|(_, model)| model).collect())
}

/// Writes the page and returns its path.
fn written(models: &[Model], folder: &Path) -> Result<PathBuf> {
    let page = page(models)?;
    ensure!(
        page.len() <= MOST_BYTES,
        "the page has {} bytes, more than {MOST_BYTES}: name fewer servers or scenarios",
        page.len()
    );
    let file = folder.join("play.html");
    fs::write(&file, page).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// Returns the whole page, which is self-contained.
fn page(models: &[Model]) -> Result<String> {
    let data = serde_json::to_string(models).context("the recordings as JSON")?;
    let scripts = [WORDS, LANES, QUESTIONS, REASONS, PLAY].concat();
    Ok(PAGE
        .replace("{{style}}", &[svg::STYLE, STYLE].concat())
        .replace("{{scripts}}", &scripts)
        // No element ends, and no comment begins, inside the data.
        .replace("{{data}}", &data.replace('<', "\\u003c")))
}

/// The number of scenes that are recorded at the same time.
const AT_ONCE: usize = 3;
/// The most bytes of the page. A browser opens a page of this size immediately, and it fits into an e-mail.
const MOST_BYTES: usize = 3_000_000;

const PAGE: &str = include_str!("play/page/play.html");
const STYLE: &str = include_str!("play/page/play.css");
const WORDS: &str = include_str!("play/page/words.js");
const LANES: &str = include_str!("play/page/lanes.js");
const QUESTIONS: &str = include_str!("play/page/questions.js");
const REASONS: &str = include_str!("play/page/reasons.js");
const PLAY: &str = include_str!("play/page/play.js");
