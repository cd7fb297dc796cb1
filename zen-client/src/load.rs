//! `zen-client load`: asks as fast as answers arrive, or at a given rate, and measures the answers.
//!
//! Read `load/generator.rs` first: the loop that does the work. `schedule.rs` has the open loop, `tally.rs` the counts,
//! `verdicts.rs` the judgements on a run, and `find_max.rs` the search for the highest rate.

mod clock;
mod connection;
mod failures;
mod find_max;
mod generator;
mod measured;
mod mix;
mod objective;
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
use clock::{Clock, nanos};
use find_max::find_max;
use generator::{Generator, Shared};
use progress::{Progress, WATCH_PERIOD};

#[cfg(test)]
pub(crate) use clock::Nanos;
pub(crate) use measured::Measured;
pub(crate) use objective::Objectives;
pub(crate) use plan::Plan;
pub(crate) use report::Report;
pub(crate) use tally::{Tally, Window};

/// The options of `zen-client load`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    plan: Plan,
    /// Find the highest rate at which OBJECTIVE holds twice, such as 'p99<5ms,errors<1%': METRIC<VALUE or METRIC>VALUE;
    /// METRIC is p50, p90, p99, p999 or max of the response time, unserved, or errors; VALUE is a duration or
    /// percentage
    #[arg(long, value_name = "OBJECTIVE", conflicts_with_all = ["rate", "duration", "fail_if"])]
    find_max: Option<Objectives>,
    /// Exit with 1 if one of these is true of the run, such as 'p99>5ms,errors>1%'; otherwise only for a wrong answer,
    /// or for a run without an answer
    #[arg(long, value_name = "OBJECTIVE")]
    fail_if: Option<Objectives>,
    /// Print one JSON object instead of the tables
    #[arg(long)]
    json: bool,
    /// Add the histograms to the JSON object: [microseconds, count] of all that was counted
    #[arg(long, requires = "json")]
    histogram: bool,
}

impl Options {
    /// Returns the contradiction between flags that are right by themselves, if there is one.
    pub(crate) fn contradiction(&self) -> Option<String> {
        self.plan.contradiction()
    }
}

/// Loads a server and prints the result; an error if the run was no success.
pub(crate) fn load(options: &Options) -> Result<ExitCode> {
    let progress = Progress::start()?;
    let (server, timeout, retries) = (options.server.clone(), options.plan.timeout, options.plan.retries);
    let (first, addresses) = progress.unless_interrupted(move || connect_first(&server, timeout, retries))??;
    let mut first = Some(first);
    let mut run = |plan: &Plan| measure(plan, &addresses, first.take(), &progress);
    let (search, measured) = match &options.find_max {
        Some(objectives) => find_max(objectives, &options.plan, &mut run).map(|(search, run)| (Some(search), run))?,
        None => (None, run(&options.plan)?),
    };
    progress.end();
    let failure_reason = match (&options.fail_if, &search) {
        (_, Some(search)) if search.rate.is_none() => Some(search.text.clone()),
        (_, Some(_)) => None,
        (Some(objectives), None) => measured.no_result().or_else(|| objection_by(objectives, &measured)),
        (None, None) => measured.failure_reason(),
    };
    let report = Report::new(&measured, options.fail_if.as_ref(), search, options.histogram);
    let mut stdout = text::stdout();
    let said = if options.json {
        text::print(&mut stdout, format_args!("{}", serde_json::to_string_pretty(&report)?))
    } else {
        write!(stdout, "{}", table::table(&report)).context("cannot write to stdout")
    };
    match (failure_reason, said) {
        // The server's failure is reported even if stdout cannot be written.
        (Some(failure_reason), _) => Err(anyhow!(failure_reason)),
        (None, said) => said.map(|()| ExitCode::SUCCESS),
    }
}

fn objection_by(objectives: &Objectives, measured: &Measured) -> Option<String> {
    let outcomes = objectives.judge(measured).into_iter().filter(|outcome| outcome.is_true);
    let true_ones: Vec<_> = outcomes.map(|outcome| outcome.text).collect();
    (!true_ones.is_empty()).then(|| format!("--fail-if {}", true_ones.join(", ")))
}

/// Returns the first connection, and the addresses of the run: without retries only the one that accepted, with retries
/// all, that one first.
fn connect_first(server: &Server, timeout: Duration, retries: u32) -> Result<(TcpStream, Vec<SocketAddr>)> {
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

/// Runs a plan at some servers, without a progress bar.
pub(crate) fn measure_quietly(plan: &Plan, servers: &[SocketAddr]) -> Result<Measured> {
    measure(plan, servers, None, &Progress::none())
}

/// Searches for the highest rate of one server, without a progress bar.
pub(crate) fn find_max_quietly(objectives: &Objectives, plan: &Plan, server: SocketAddr) -> Result<Option<u64>> {
    find_max(objectives, plan, |plan| measure_quietly(plan, &[server])).map(|(search, _)| search.rate)
}

/// Runs a plan: opens all connections, lets each thread do its share, and adds up the counts. The connections are
/// spread over `addresses`.
fn measure(
    plan: &Plan,
    addresses: &[SocketAddr],
    mut first: Option<TcpStream>,
    progress: &Progress,
) -> Result<Measured> {
    sources::raise_descriptor_limit(plan.connections + plan.idle, plan.threads)?;
    let clock = Clock::start();
    progress.opening(plan.connections + plan.idle);
    let mut generators = Vec::new();
    for thread in 0..plan.threads {
        let mut generator = Generator::new(plan, addresses, thread, clock)?;
        generator.open_all(first.take(), || !progress.is_interrupted())?;
        generators.push(generator);
    }
    let start = clock.now();
    let window_start = start + nanos(plan.warmup);
    let mut window = Window { start: window_start, end: window_start + nanos(plan.duration) };
    let (end, stop) = (AtomicU64::new(window.end), AtomicU64::new(u64::MAX));
    let shared = Arc::new(Shared { end, stop, answers: AtomicU64::new(0) });
    let mut threads = Vec::new();
    for (n, generator) in generators.into_iter().enumerate() {
        let shared = Arc::clone(&shared);
        let run = move || generator.run(start, window, &shared);
        threads.push(thread::Builder::new().name(format!("load-{n}")).spawn(run).context("cannot start a thread")?);
    }
    let mut is_interrupted = false;
    while !threads.iter().all(|thread| thread.is_finished()) {
        thread::park_timeout(WATCH_PERIOD);
        let so_far = Duration::from_nanos(clock.now() - start);
        progress.show(so_far, plan.warmup + plan.duration, shared.answers.load(Ordering::Relaxed));
        if progress.is_interrupted() && !is_interrupted {
            is_interrupted = true;
            let cut = clock.now() + nanos(NOTICE);
            shared.stop.store(cut + nanos(LAST_WAIT), Ordering::Relaxed);
            window.end = window.end.min(cut);
            shared.end.store(window.end, Ordering::Relaxed);
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
    Ok(Measured { plan: plan.clone(), addresses: addresses.to_vec(), tally, seconds, is_interrupted })
}

/// The time from an interrupt to the end of the measured time, so that every thread notices before the end.
const NOTICE: Duration = Duration::from_millis(250);
/// The time for which an interrupted run waits for missing answers, so that it ends within 1.5 s.
const LAST_WAIT: Duration = Duration::from_millis(750);
