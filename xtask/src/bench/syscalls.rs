//! How many system calls an answer costs: two runs under strace, a short and a long one. Their difference is the
//! answers' own, without starting, accepting and ending.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::load::{Load, LoadConfig};
use super::results::SystemCalls;
use super::run::Conditions;
use super::target::Target;
use crate::harness::{Missing, WAIT_LIMIT, process, strace};

/// Counts them for a target.
pub(crate) fn per_answer(conditions: &Conditions<'_>, target: &Target) -> Result<SystemCalls> {
    for _ in 0..ATTEMPTS {
        let counted = once(conditions, target)?;
        // Less than nothing: in the short run the server has slept and woken more often than in the long one.
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
    // Nothing here looks at the clock.
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
    // strace tells what it has counted when those that it traces have ended.
    for pid in server.processes() {
        if process::binary(pid).is_some_and(|binary| binary.file_name() != strace.file_name()) {
            let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
        }
    }
    ensure!(server.ends_within(WAIT_LIMIT), "strace does not end");
    let text = fs::read_to_string(&table).context("the table of strace")?;
    let _ = fs::remove_file(&table);
    let calls: BTreeMap<_, _> = text.lines().filter_map(row).collect();
    ensure!(!calls.is_empty(), "strace counted nothing");
    Ok((report.answers, calls))
}

/// Parses a row of `strace -c -U name,calls`; the headings and the sum are none.
fn row(line: &str) -> Option<(String, u64)> {
    let mut fields = line.split_whitespace();
    let (name, calls) = (fields.next()?, fields.next()?);
    (name != "total").then_some((name.to_owned(), calls.parse().ok()?))
}

/// Enough that a server that waits for many at once does.
const CONNECTIONS: usize = 16;
const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_millis(250);
const ATTEMPTS: usize = 3;
const FAR_OFF: f64 = 0.02;
/// A rarer call is a start, an end or a timer.
const WORTH_TELLING: f64 = 0.005;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_strace_are_read() {
        assert_eq!(row("recvfrom        123"), Some(("recvfrom".to_owned(), 123)));
        assert_eq!(row("total           456"), None);
        assert_eq!(row("--------- ---------"), None);
        assert_eq!(row("syscall       calls"), None);
    }
}
