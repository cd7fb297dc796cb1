//! `cargo xtask play --live`: a server under strace, watched while a page adds clients, removes them, or swaps the
//! architecture.
//!
//! 1. `http` serves the page on a loopback address that has an unguessable token in it.
//! 2. `clients` behave, each in its own way, until they are removed.
//! 3. `traced` runs the server under strace, and reads the log as it grows.
//! 4. `stage` holds the server and its clients. It streams the `picture` of the last seconds and the `counters` to the
//!    page, and ends the run when no page has been open for a while.
//!
//! All of it runs on one thread, except starting and stopping the server, which block. strace and the server are one
//! process group, and end with the run.

mod clients;
mod counters;
mod http;
mod page;
mod picture;
mod stage;
mod traced;
mod trials;

use std::cell::RefCell;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime;
use tokio::task::LocalSet;

use crate::servers::{self, Entry};
use crate::workspace;
use http::Site;
use stage::Stage;

pub(crate) use trials::trials;

/// Runs the server and its page until the page is closed.
pub(crate) fn run(server: &str) -> Result<ExitCode> {
    let entry = servers::named(server)?;
    workspace::build()?;
    serve(entry, LOST_AFTER, |address| {
        println!("open {address} in a browser; the server ends with Ctrl-C, or 30 s after the page is closed");
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the server and its page until no page has been open for `lost_after`. For the first page it waits ten times as
/// long. Calls `opened` with the address of the page.
fn serve(entry: &'static Entry, lost_after: Duration, opened: impl FnOnce(&str)) -> Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    LocalSet::new().block_on(&runtime, async {
        let stage = Rc::new(RefCell::new(Stage::new(entry, lost_after)));
        stage::swap(Rc::clone(&stage), entry).await?;
        let site = Site::open().await?;
        opened(&site.address());
        let ended = tokio::select! {
            error = site.serve(&stage) => Err(error),
            () = stage::stream(&stage) => Ok(()),
        };
        stage::close(&stage).await?;
        ended
    })
}

/// The time for which the server runs without an open page.
const LOST_AFTER: Duration = Duration::from_secs(30);
