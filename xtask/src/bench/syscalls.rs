//! System calls per answer, counted in a short and a long run under strace. The difference between the two runs leaves
//! out the calls of the start, of accepting and of closing.

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
        // A share below zero means that the short run had more such calls than the long one: the machine was busy.
        if counted.calls.values().all(|&share| share > -TOLERANCE) {
            return Ok(counted);
        }
    }
    Err(Missing("an idle machine, which strace needs,".to_owned()).into())
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
    let calls = each.into_iter().filter(|(_, share)| share.abs() >= SMALLEST_SHARE).collect();
    Ok(SystemCalls { connections, answers: many - few, per_answer, calls })
}

/// Returns the number of answers of one run, and its system calls by name.
fn traced(
    conditions: &Conditions<'_>,
    target: &Target,
    connections: usize,
    time: Duration,
) -> Result<(u64, BTreeMap<String, u64>)> {
    // Calls are counted and no time is measured, so server and load need no separate processors.
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

/// The number of connections, with which a server finds several ready at a time.
const CONNECTIONS: usize = 16;
const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_millis(250);
const ATTEMPTS: usize = 3;
/// The largest error of a share of calls per answer that is accepted.
const TOLERANCE: f64 = 0.02;
/// The smallest share of calls per answer that is listed. Rarer calls belong to the start, the end or a timer.
const SMALLEST_SHARE: f64 = 0.005;
