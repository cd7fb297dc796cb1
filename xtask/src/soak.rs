//! `cargo xtask soak`: runs all servers but the examples in parallel for minutes, each under a mix of honest, slow,
//! hostile and resetting clients, and reports leaks of descriptors, threads and memory.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;

use crate::harness::client::{APHORISMS, Received};
use crate::harness::honest::HonestClient;
use crate::harness::process::Usage;
use crate::harness::{Client, Server, WAIT_LIMIT, wait_for};
use crate::servers::{Entry, SERVERS};
use crate::workspace;

/// Runs all servers under a mix of clients and watches their descriptors and memory.
#[derive(Args)]
pub(crate) struct Flags {
    /// How many minutes to run
    #[arg(long, default_value = "10", value_parser = minutes)]
    minutes: Duration,
}

pub(crate) fn run(flags: &Flags) -> Result<ExitCode> {
    workspace::build()?;
    let is_over = AtomicBool::new(false);
    let reports: Vec<_> = thread::scope(|scope| {
        let entries = SERVERS.iter().filter(|entry| !entry.is_example);
        let soaks: Vec<_> =
            entries.map(|entry| (entry, scope.spawn(|| soak(entry, flags.minutes, &is_over)))).collect();
        let reports = soaks.into_iter().map(|(entry, soak)| {
            let report = soak.join().unwrap_or_else(|_| Err(anyhow!("the soak panicked")));
            // When one fails, the others stop too.
            is_over.fetch_or(report.is_err(), Ordering::Relaxed);
            (entry, report)
        });
        reports.collect()
    });
    println!("{HEADINGS}");
    let mut failures = Vec::new();
    for (entry, report) in &reports {
        match report.as_ref().map_err(|error| format!("{error:#}")).and_then(|report| {
            println!("{}", report.row(entry.name));
            report.verdict()
        }) {
            Ok(()) => {}
            Err(error) => failures.push(format!("{}: {error}", entry.name)),
        }
    }
    failures.iter().for_each(|failure| println!("FAILED {failure}"));
    println!("{} passed, {} failed", reports.len() - failures.len(), failures.len());
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The measurements of one server.
struct Report {
    answers: usize,
    visits: usize,
    longest_wait: Duration,
    /// What it used, sampled every second.
    usage: Vec<Usage>,
}

fn soak(entry: &'static Entry, time: Duration, is_over: &AtomicBool) -> Result<Report> {
    let mut server = Server::start(entry, &["--question-timeout", "500ms", "--idle-timeout", "1s", "--grace", "2s"])?;
    server.extend_time_limit(time + 2 * WAIT_LIMIT);
    let honest = HonestClient::start(server.address(), entry.makes_clients_wait())?;
    let end = Instant::now() + time;
    let goes_on = || Instant::now() < end && !is_over.load(Ordering::Relaxed);
    let visits = AtomicUsize::new(0);
    let mut usage = Vec::new();
    thread::scope(|scope| -> Result<()> {
        let misbehaving = scope.spawn(|| -> Result<()> {
            let mut behaviours = BEHAVIOURS.iter().cycle();
            while goes_on() {
                let (name, behaviour) = behaviours.next().expect("it is a cycle");
                behaviour(&server).with_context(|| format!("the {name} client"))?;
                visits.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        while goes_on() && !misbehaving.is_finished() {
            thread::sleep(Duration::from_secs(1));
            usage.push(server.usage());
        }
        misbehaving.join().map_err(|_| anyhow!("a misbehaving client panicked"))?
    })
    .with_context(|| format!("its log ends with {:?}", server.log().lines().last().unwrap_or_default()))?;
    let answers = honest.answers();
    let report = honest.finish()?;
    server.stop(WAIT_LIMIT)?;
    let longest_wait = report.waits.last().copied().unwrap_or_default();
    Ok(Report { answers, visits: visits.into_inner(), longest_wait, usage })
}

const HEADINGS: &str =
    "server          answers   visits   longest wait   descriptors (threads), early → late   memory, early → late";

impl Report {
    /// Returns the most that was held in the second quarter of the time, and in the last. (In the first quarter,
    /// buffers and pools still grow.)
    fn early_and_late(&self) -> (Usage, Usage) {
        let quarter = (self.usage.len() / 4).max(1);
        let most = |part: &[Usage]| Usage {
            descriptors: part.iter().map(|usage| usage.descriptors).max().unwrap_or_default(),
            threads: part.iter().map(|usage| usage.threads).max().unwrap_or_default(),
            memory: part.iter().map(|usage| usage.memory).max().unwrap_or_default(),
            ..Usage::default()
        };
        let early = self.usage.get(quarter..2 * quarter).unwrap_or_default();
        let late = self.usage.get(self.usage.len().saturating_sub(quarter)..).unwrap_or_default();
        (most(early), most(late))
    }

    fn row(&self, name: &str) -> String {
        let (early, late) = self.early_and_late();
        let descriptors =
            format!("{} ({}) → {} ({})", early.descriptors, early.threads, late.descriptors, late.threads);
        let memory = format!("{} → {} KiB", early.memory / 1024, late.memory / 1024);
        let wait = format!("{:.0?}", self.longest_wait);
        format!("{name:<15} {:>7}  {:>7}   {wait:>12}   {descriptors:<35}   {memory}", self.answers, self.visits)
    }

    fn verdict(&self) -> Result<(), String> {
        let judge = || {
            let (early, late) = self.early_and_late();
            ensure!(self.usage.len() >= 8, "too short to judge: give it more --minutes");
            ensure!(self.visits >= BEHAVIOURS.len(), "not every kind of client was tried: give it more --minutes");
            ensure!(late.descriptors <= early.descriptors + SLACK, "descriptors leak (early → late in the table)");
            ensure!(late.threads <= early.threads + SLACK, "threads leak (early → late in the table)");
            ensure!(late.memory <= early.memory + MEMORY_SLACK, "memory leaks (early → late in the table)");
            Ok(())
        };
        judge().map_err(|error| format!("{error:#}"))
    }
}

type Behaviour = fn(&Server) -> Result<()>;

/// The clients that misbehave, each in turn.
const BEHAVIOURS: [(&str, Behaviour); 10] = [
    ("leaving", |server| (0..20).try_for_each(|_| server.client().map(drop))),
    ("resetting", |server| (0..20).try_for_each(|_| server.client()?.reset())),
    ("pipelining", |server| {
        let mut client = server.client()?;
        client.send(&APHORISMS[2].0.repeat(1000))?;
        client.expect(&APHORISMS[2].1.repeat(1000))
    }),
    ("cut short", |server| {
        let mut client = server.client()?;
        client.send(b"Simple is better than?Simple is")?;
        client.end_sending()?;
        client.expect(b"complex.")?;
        client.expect_end()
    }),
    ("resetting in mid-question", |server| {
        let mut client = server.client()?;
        client.ask_all()?;
        client.send(b"Simple is")?;
        client.reset()
    }),
    ("too long", |server| {
        let mut client = server.client()?;
        client.send(&[b'x'; 1000])?;
        client.expect(b"Error: question too long.")?;
        client.expect_end()
    }),
    ("garbage", |server| {
        let mut client = server.client()?;
        client.send(b"\x16\x03\x01\0\xff\x1b[31m\r\nGET / HTTP/1.1?\0?")?;
        client.expect(b"Error: unknown aphorism.Error: unknown aphorism.")
    }),
    ("silent", |server| server.client()?.expect_end()),
    ("dripping", |server| {
        let mut client = server.client()?;
        // The server closes in the middle of this; a write after that fails.
        for _ in 0..40 {
            if client.push(b"x").is_err() || client.try_read()? != Received::Nothing {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err(anyhow!("it was not disconnected"))
    }),
    ("never reading", |server| {
        let mut client = Client::connect_with_buffer(server.address(), 4096)?;
        // The network's buffers fill up; once the server resets, a send fails.
        let reset = wait_for(WAIT_LIMIT, || client.push(&[b'?'; 4096]).is_err().then_some(()));
        reset.context("it was not reset")
    }),
];

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes = text.parse().ok().filter(|minutes: &f64| (0.01..=1440.0).contains(minutes));
    minutes
        .map(|minutes| Duration::from_secs_f64(minutes * 60.0))
        .ok_or_else(|| "a number of minutes, like 10 or 0.5".into())
}

/// The most descriptors or threads that may be added: those of the clients that are connected when a sample is taken.
const SLACK: usize = 24;

/// Bytes that an allocator may keep after the server has freed them.
const MEMORY_SLACK: u64 = 1 << 20;
