//! What an answer costs in system calls, counted by strace under busy clients.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, process, thread};

use anyhow::{Context, Result, anyhow, ensure};

use super::{Case, bare};
use crate::harness::client::APHORISMS;
use crate::harness::{Client, Server, WAIT_LIMIT};
use crate::servers::Entry;
use crate::trial::note;

pub(crate) const CASES: &[Case] = &[
    bare("per_answer", per_answer).alone(),
    bare("awaited_without_delay", awaited_without_delay)
        .arguments(&["--await"])
        .on(|entry| entry.package == "zen-async" && !entry.is_example)
        .alone(),
];

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

/// `--await` with nothing to wait for costs no system call: no timer is set.
fn awaited_without_delay(entry: &'static Entry, arguments: &'static [&'static str]) -> Result<()> {
    let [plain, awaited] = [shares(entry, &[])?, shares(entry, arguments)?].map(|shares| shares.values().sum::<f64>());
    note(format!("{}: {plain:.2} system calls per answer, {awaited:.2} with --await", entry.name));
    ensure!((awaited - plain).abs() < 0.5, "{plain:.2} calls per answer, {awaited:.2} with --await");
    Ok(())
}

/// System calls per answer, by name. Two traces differ only in the number of questions: their difference is the
/// answers' own, without the cost of starting, accepting and ending.
fn shares(entry: &'static Entry, arguments: &[&str]) -> Result<BTreeMap<String, f64>> {
    let short = traced(entry, arguments, SHORT)?;
    let long = traced(entry, arguments, LONG)?;
    let answers = f64::from(CLIENTS * (LONG - SHORT));
    let share = |(name, calls)| {
        let share = f64::from(calls - short.get(&name).unwrap_or(&0)) / answers;
        (name, share)
    };
    Ok(long.into_iter().map(share).collect())
}

/// The calls of a whole run, by name, in which each client asks this number of questions.
fn traced(entry: &'static Entry, arguments: &[&str], questions: u32) -> Result<BTreeMap<String, i32>> {
    let table = std::env::temp_dir().join(format!("zen-strace-{}-{}-{questions}", process::id(), entry.name));
    let output = table.to_string_lossy();
    let mut server = Server::start_under(&["strace", "-f", "-c", "-U", "name,calls", "-o", &output], entry, arguments)?;
    let asked = keep_busy(server.address(), entry.at_once, questions);
    let stopped = server.stop(WAIT_LIMIT);
    let text = fs::read_to_string(&table).unwrap_or_default();
    let _ = fs::remove_file(&table);
    asked?;
    stopped?;
    let calls: BTreeMap<_, _> = text.lines().filter_map(row).collect();
    ensure!(!calls.is_empty(), "strace counted nothing:\n{text}");
    Ok(calls)
}

/// 64 clients, each with its next question as soon as it has its answer; as many at once as are served at once.
fn keep_busy(address: SocketAddr, at_once: Option<usize>, questions: u32) -> Result<()> {
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
    thread::scope(|scope| {
        let clients: Vec<_> = (0..at_once.unwrap_or(CLIENTS as usize)).map(|_| scope.spawn(converse)).collect();
        clients.into_iter().try_for_each(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)
    })
    .context("a busy client")
}

/// A row of `strace -c -U name,calls`; the headings and the sum are none.
fn row(line: &str) -> Option<(String, i32)> {
    let mut fields = line.split_whitespace();
    let (name, calls) = (fields.next()?, fields.next()?);
    (name != "total").then_some((name.to_owned(), calls.parse().ok()?))
}

const WAITS: [&str; 5] = ["epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll"];

const CLIENTS: u32 = 64;
const SHORT: u32 = 10;
const LONG: u32 = 110;
