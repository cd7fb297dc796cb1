//! What an answer costs in system calls, counted by strace under busy clients.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};

use super::{Case, bare};
use crate::harness::client::APHORISMS;
use crate::harness::folder::Folder;
use crate::harness::tracer::counted;
use crate::harness::{Client, Server, WAIT_LIMIT, at_once};
use crate::servers::Entry;
use crate::trial::note;

pub(crate) const CASES: &[Case] = &[
    bare("per_answer", per_answer).alone(),
    bare("awaited_without_delay", awaited_without_delay)
        .arguments(&["--await"])
        .on(|entry| entry.package == "zen-async" && !entry.is_example)
        .alone(),
];

/// Expects two system calls per answer of a blocking server (recv, send), and of zen-poll at most five more per wait,
/// which the `k` answers between two waits share. For other servers the numbers are only reported.
fn per_answer(entry: &'static Entry, arguments: &'static [&'static str]) -> Result<()> {
    let shares = shares(entry, arguments)?;
    let calls: f64 = shares.values().sum();
    let waits: f64 = WAITS.iter().filter_map(|name| shares.get(*name)).sum();
    let k = 1.0 / waits.max(f64::EPSILON);
    let share = |(name, share): (&String, &f64)| (name.clone(), format!("{share:.2}"));
    let each: BTreeMap<_, _> = shares.iter().map(share).filter(|(_, share)| share != "0.00").collect();
    let per_wait = if waits > 0.01 { format!(", {k:.1} answers per wait") } else { String::new() };
    note(format!("{}: {calls:.2} system calls per answer{per_wait}", entry.name));
    match entry.package {
        "zen-single" | "zen-threaded" => ensure!((calls - 2.0).abs() <= 0.05, "{calls:.2} calls per answer: {each:?}"),
        "zen-poll" => ensure!(calls <= 2.0 + 5.0 / k + 0.05, "{calls:.2} calls per answer with k = {k:.1}: {each:?}"),
        _ => {}
    }
    Ok(())
}

/// `--await` without a delay costs no system call, because no timer is set.
fn awaited_without_delay(entry: &'static Entry, arguments: &'static [&'static str]) -> Result<()> {
    let [plain, awaited] = [shares(entry, &[])?, shares(entry, arguments)?].map(|shares| shares.values().sum::<f64>());
    note(format!("{}: {plain:.2} system calls per answer, {awaited:.2} with --await", entry.name));
    ensure!((awaited - plain).abs() < 0.5, "{plain:.2} calls per answer, {awaited:.2} with --await");
    Ok(())
}

/// Returns system calls per answer, by name. Two traces differ only in the number of questions, so their difference
/// leaves out the cost of starting, accepting and closing.
pub(crate) fn shares(entry: &'static Entry, arguments: &[&str]) -> Result<BTreeMap<String, f64>> {
    let short = traced(entry, arguments, SHORT)?;
    let long = traced(entry, arguments, LONG)?;
    let answers = f64::from(CLIENTS * (LONG - SHORT));
    let share = |(name, calls)| {
        let share = (calls as f64 - *short.get(&name).unwrap_or(&0) as f64) / answers;
        (name, share)
    };
    Ok(long.into_iter().map(share).collect())
}

/// Runs a server whose clients each ask this many questions, and returns its number of system calls, by name.
fn traced(entry: &'static Entry, arguments: &[&str], questions: u32) -> Result<BTreeMap<String, u64>> {
    let folder = Folder::new()?;
    let table = folder.path().join("table");
    let output = table.to_string_lossy();
    let mut server = Server::start_under(&["strace", "-f", "-c", "-U", "name,calls", "-o", &output], entry, arguments)?;
    let asked = keep_busy(server.address(), entry.at_once, questions);
    let stopped = server.stop(WAIT_LIMIT);
    asked?;
    stopped?;
    let text = fs::read_to_string(&table)?;
    counted(&text)
}

/// Runs 64 clients that ask without a pause, as many at a time as the server serves.
fn keep_busy(address: SocketAddr, together: Option<usize>, questions: u32) -> Result<()> {
    let begun = AtomicUsize::new(0);
    let converse = || -> Result<()> {
        while begun.fetch_add(1, Ordering::Relaxed) < CLIENTS as usize {
            let mut client = Client::connect(address)?;
            for (question, answer) in APHORISMS.iter().cycle().take(questions as usize) {
                client.ask(question, answer)?;
            }
        }
        Ok(())
    };
    at_once(together.unwrap_or(CLIENTS as usize), |_| converse()).map(drop).context("a busy client")
}

const WAITS: [&str; 5] = ["epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll"];

const CLIENTS: u32 = 64;

/// The questions of each client in the short and in the long trace.
const SHORT: u32 = 10;
const LONG: u32 = 110;
