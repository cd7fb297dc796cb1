//! System calls per answer, from two runs under strace, a short and a long one. Their difference leaves out starting,
//! accepting and closing.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::load::{Load, LoadConfig};
use super::results::SystemCalls;
use super::run::Conditions;
use super::target::Target;
use crate::harness::tracer::counted;
use crate::harness::{Missing, WAIT_LIMIT, process, strace};

/// Counts the system calls per answer of a target.
pub(crate) fn per_answer(conditions: &Conditions<'_>, target: &Target) -> Result<SystemCalls> {
    for _ in 0..ATTEMPTS {
        let counted = once(conditions, target)?;
        // Less than nothing: in the short run the server has slept and woken up more often than in the long one.
        if counted.calls.values().all(|&share| share > -FAR_OFF) {
            return Ok(counted);
        }
    }
    Err(Missing("a machine with time for strace".to_owned()).into())
}

fn once(conditions: &Conditions<'_>, target: &Target) -> Result<SystemCalls> {
    let connections = CONNECTIONS.min(target.at_once.unwrap_or(CONNECTIONS));
    let (few, fewer_calls) = traced(conditions, target, connections, SHORT)?;
    let (many, calls) = traced(conditions, target, connections, LONG)?;
    ensure!(many > few, "too few answers under strace");
    let answers = (many - few) as f64;
    let more = |name: &str, n: u64| (n as f64 - *fewer_calls.get(name).unwrap_or(&0) as f64) / answers;
    let each: BTreeMap<String, f64> = calls.iter().map(|(name, &n)| (name.clone(), more(name, n))).collect();
    let per_answer = each.values().sum();
    let calls = each.into_iter().filter(|(_, share)| share.abs() >= WORTH_TELLING).collect();
    Ok(SystemCalls { connections, answers: many - few, per_answer, calls })
}

/// Returns the answers and the calls of one run, by name.
fn traced(
    conditions: &Conditions<'_>,
    target: &Target,
    connections: usize,
    time: Duration,
) -> Result<(u64, BTreeMap<String, u64>)> {
    // Nothing here measures time.
    conditions.processors.anywhere()?;
    let strace = strace()?;
    let table = conditions.folder.join("strace.txt");
    let arguments = ["-f", "-c", "-U", "name,calls", "-o", &table.to_string_lossy()].map(str::to_owned);
    let wrapper: Vec<String> = [strace.to_string_lossy().into_owned()].into_iter().chain(arguments).collect();
    let mut server = target.start(conditions.setting, &[], &wrapper)?;
    let config = LoadConfig {
        profile: conditions.setting.profile,
        workload: conditions.workload,
        clients: connections,
        pipeline: conditions.pipeline,
        threads: 1,
        warmup: Duration::ZERO,
        measured: time,
        seed: 1,
        folder: conditions.folder,
    };
    let report = Load::start(server.address(), config)?.finish()?;
    ensure!(report.failures.values().all(|&n| n == 0), "under strace: {}", report.problem().unwrap_or_default());
    // strace writes its table when the traced processes have exited.
    for pid in server.processes() {
        if process::binary(pid).is_some_and(|binary| binary.file_name() != strace.file_name()) {
            let _ = process::signal(pid, Signal::KILL);
        }
    }
    ensure!(server.ends_within(WAIT_LIMIT), "strace does not exit");
    let text = fs::read_to_string(&table).context("the table of strace")?;
    let _ = fs::remove_file(&table);
    Ok((report.answers, counted(&text)?))
}

/// Enough connections for a server to find several of them ready.
const CONNECTIONS: usize = 16;
const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_millis(250);
const ATTEMPTS: usize = 3;
const FAR_OFF: f64 = 0.02;
/// A rarer call belongs to a start, an end or a timer.
const WORTH_TELLING: f64 = 0.005;
