//! `zen-client load`: asks as fast as answers come, or at a steady rate, and measures what that is like.
//!
//! Read `load/generator.rs` first: the loop that does the work. `schedule.rs` holds the open loop, `tally.rs` what is
//! counted, `verdicts.rs` what a run says about itself.

mod clock;
mod connection;
mod failures;
mod generator;
mod measured;
mod mix;
mod options;
mod plan;
mod progress;
mod report;
mod schedule;
mod sources;
mod table;
mod tally;
mod verdicts;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use fastrand::Rng;

use crate::connect::Addresses;
use crate::options::Server;
use crate::pause::pause;
use crate::text;
use clock::{Clock, Nanos, nanos};
use generator::{Board, Generator};
use measured::Measured;
use progress::{GLANCE, Progress};
use tally::{Tally, Window};

pub(crate) use failures::Retries;
pub(crate) use options::Options;
pub(crate) use plan::Plan;
pub(crate) use report::{Report, Times};
pub(crate) use tally::Sabotage;

/// Loads a server and prints the result; succeeds when every answer came and was right.
pub(crate) fn load(options: &Options) -> Result<ExitCode> {
    let progress = Progress::start()?;
    let (server, timeout, retries) = (options.server.clone(), options.timeout(), options.retries);
    let (first, addresses) = progress.unless_interrupted(move || reach(&server, timeout, retries))??;
    let measured = measure(&options.plan(addresses), Some(first), &progress)?;
    progress.end();
    let report = Report::new(&measured, options.histogram);
    let mut stdout = text::stdout();
    let said = if options.json {
        text::print(&mut stdout, format_args!("{}", serde_json::to_string_pretty(&report)?))
    } else {
        write!(stdout, "{}", table::table(&report)).context("cannot write to stdout")
    };
    match (measured.objection(), said) {
        // What is wrong with the server is told even if nobody reads the rest.
        (Some(objection), _) => Err(anyhow!(objection)),
        (None, said) => said.map(|()| ExitCode::SUCCESS),
    }
}

/// The first connection, and the addresses that the run is about: without retries only the one that let us connect, with
/// them all, that one first.
fn reach(server: &Server, timeout: Duration, retries: u32) -> Result<(TcpStream, Vec<SocketAddr>)> {
    let mut addresses = Addresses::resolve(server, Some(timeout))?;
    let mut random = Rng::new();
    let mut tries = 0;
    let (first, address) = loop {
        match addresses.connect(Some(timeout)) {
            Err(_) if tries < retries => tries += 1,
            outcome => break outcome?,
        }
        thread::sleep(pause(tries, &mut random));
    };
    Ok((first, if retries > 0 { addresses.all_from(address) } else { vec![address] }))
}

/// A run without an audience.
pub(crate) fn measured_quietly(plan: &Plan) -> Result<Report> {
    Ok(Report::new(&measure(plan, None, &Progress::none())?, false))
}

/// An interrupted run ends this much later, so that every thread hears of it in time.
const NOTICE: Duration = Duration::from_millis(250);
/// How long an interrupted run waits for the answers on their way: its result is there within 1.5 s.
const IMPATIENCE: Duration = Duration::from_millis(750);

/// Runs a plan: opens everything, lets each thread do its share, and adds up what they counted.
fn measure(plan: &Plan, mut first: Option<TcpStream>, progress: &Progress) -> Result<Measured> {
    sources::raise_descriptor_limit(plan.connections + plan.idle, plan.threads)?;
    let clock = Clock::start();
    progress.opening(plan.connections + plan.idle);
    let mut generators = Vec::new();
    for thread in 0..plan.threads {
        let mut generator = Generator::new(plan, thread, clock)?;
        generator.open_all(first.take(), || !progress.is_interrupted())?;
        generators.push(generator);
    }
    let start = clock.now();
    let window_start = start + nanos(plan.warmup);
    let mut window = Window { start: window_start, end: window_start + nanos(plan.duration) };
    let (end, stop) = (AtomicU64::new(window.end), AtomicU64::new(Nanos::MAX));
    let board = Arc::new(Board { end, stop, answers: AtomicU64::new(0) });
    let mut threads = Vec::new();
    for (n, generator) in generators.into_iter().enumerate() {
        let board = Arc::clone(&board);
        let run = move || generator.run(start, window, &board);
        threads.push(thread::Builder::new().name(format!("load-{n}")).spawn(run).context("cannot start a thread")?);
    }
    let mut is_interrupted = false;
    while !threads.iter().all(|thread| thread.is_finished()) {
        thread::park_timeout(GLANCE);
        let so_far = Duration::from_nanos(clock.now() - start);
        progress.show(so_far, plan.warmup + plan.duration, board.answers.load(Ordering::Relaxed));
        if progress.is_interrupted() && !is_interrupted {
            is_interrupted = true;
            let cut = clock.now() + nanos(NOTICE);
            board.stop.store(cut + nanos(IMPATIENCE), Ordering::Relaxed);
            window.end = window.end.min(cut);
            board.end.store(window.end, Ordering::Relaxed);
        }
    }
    let mut tally = None::<Tally>;
    for thread in threads {
        let counted =
            thread.join().map_err(|_| anyhow!("a thread of the load generator panicked: this is a bug"))??;
        match &mut tally {
            Some(tally) => tally.add(&counted),
            none => *none = Some(counted),
        }
    }
    let Some(tally) = tally else { bail!("no thread has counted anything") };
    let seconds = window.end.saturating_sub(window.start) as f64 / 1e9;
    Ok(Measured { plan: plan.clone(), tally, seconds, is_interrupted })
}
