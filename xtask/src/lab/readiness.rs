//! What it means that a descriptor is ready, and what it costs to find out.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Experiment;
use super::apparatus::{asked, at_once, exhibit, guest, ratio, server};
use super::notes::Notes;
use crate::harness::client::{APHORISMS, Came};
use crate::harness::{Client, Missing, Server};
use crate::workspace;

pub(super) const BLOCKING_FD: Experiment = Experiment {
    name: "blocking-fd",
    claim: "Multiplexing is asynchronous blocking: it blocks in poll, and nowhere else.",
    question: "two event loops share one listener that blocks. 8 clients go on asking, and a newcomer says nothing. Does anyone notice it?",
    run: blocking_fd,
    why: "both loops are told of the newcomer, one gets it, and the other sleeps in accept() with all its clients, until the next one comes. \
          What was ready a moment ago may not be now; only a descriptor that cannot block makes that harmless.",
    read: &["zen-poll/examples/blocking_listener.rs", "zen-poll/src/acceptor.rs"],
    is_alone: true,
};

fn blocking_fd(notes: &mut Notes) -> Result<()> {
    notes.doing("the exhibit");
    let (newcomers, stuck) = stuck_clients(&exhibit("blocking_listener")?, notes)?;
    notes.saw(format!(
        "blocking listener: newcomer {newcomers} leaves {stuck} of {ASKING} clients without an answer for {PATIENT:?}"
    ));
    let (cured_newcomers, unanswered) = stuck_clients(&server("poll-loops", &["--delay", "5ms"])?, notes)?;
    notes.saw(format!("zen-poll --loops 2: {cured_newcomers} newcomers, {unanswered} clients without an answer"));
    ensure!(stuck > 0, "one loop was to get stuck");
    ensure!(unanswered == 0, "the cure was to leave nobody alone");
    Ok(())
}

/// Newcomers come until clients who go on asking are left without an answer: how many came, and how many are left alone.
fn stuck_clients(server: &Server, notes: &Notes) -> Result<(usize, usize)> {
    const NEWCOMERS: usize = 5;
    let (stuck, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut newcomers = Vec::new();
    thread::scope(|scope| {
        let ask = || -> Result<()> {
            let mut client = server.client()?;
            client.set_patience(PATIENT)?;
            while !is_over.load(Ordering::Relaxed) {
                client.send(APHORISMS[2].0)?;
                if client.read_some()? == Came::Nothing {
                    stuck.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
            Ok(())
        };
        let mut asking = Vec::new();
        for _ in 0..ASKING {
            asking.push(scope.spawn(ask));
            // While the loop that has clients thinks, the other is the one to take the next.
            thread::sleep(Duration::from_millis(10));
        }
        while newcomers.len() < NEWCOMERS && stuck.load(Ordering::Relaxed) == 0 {
            notes.doing(&format!("newcomer {}", newcomers.len() + 1));
            newcomers.push(server.client()?);
            thread::sleep(PATIENT * 3 / 2);
        }
        is_over.store(true, Ordering::Relaxed);
        for client in asking {
            client.join().ok().context("a client panicked")??;
        }
        Ok((newcomers.len(), stuck.load(Ordering::Relaxed)))
    })
}

/// How many go on asking.
const ASKING: usize = 8;

/// Ten times what all of them take, if one loop has them all.
const PATIENT: Duration = Duration::from_millis(400);

pub(super) const POLL_EPOLL: Experiment = Experiment {
    name: "poll-epoll",
    claim: "select, poll and epoll are the same in essence.",
    question: "one client asks, beside 10 idle ones, 1,000 and 10,000. How does the cost of an answer grow with poll(), and how with epoll?",
    run: poll_epoll,
    why: "poll() is handed the whole list in each call, and the kernel walks along all of it, to find the one that is ready. epoll has the list \
          already, and is told by those that become ready. With ten clients they are indeed the same.",
    read: &["zen-poll/src/event_loop.rs", "zen-poll/src/registration.rs"],
    is_alone: true,
};

fn poll_epoll(notes: &mut Notes) -> Result<()> {
    let crowds: &[usize] = if notes.is_brief() { &[10, 2_000] } else { &[10, 1_000, 10_000] };
    let most = crowds[crowds.len() - 1];
    let _raised = Descriptors::raise(most as u64 + 100)?;
    notes.doing("building zen-poll with poll() in the place of epoll");
    let with_poll = poll_backend()?;
    let places = (most + 10).to_string();
    let arguments = ["-p", "0", "--max-connections", &places, "--idle-timeout", "0"];
    let mut growth = Vec::new();
    for (name, binary) in [("poll", with_poll), ("epoll", workspace::binary("zen-poll")?)] {
        let server = Server::run(Command::new(binary).args(arguments))?;
        let mut idle = Vec::new();
        let mut costs = Vec::new();
        for &crowd in crowds {
            notes.doing(&format!("{name}: {crowd} idle clients"));
            idle_until(&mut idle, crowd, server.address())?;
            costs.push(cost_of_an_answer(&server)?);
        }
        let listed: Vec<String> = costs.iter().zip(crowds).map(|(cost, n)| format!("{} with {n}", us(*cost))).collect();
        let grown = ratio(costs[costs.len() - 1], costs[0]);
        notes.saw(format!(
            "{name}: an answer costs the server {} idle clients, {grown:.1} times as much",
            listed.join(", ")
        ));
        growth.push(grown);
    }
    ensure!(growth[0] > 3.0 && growth[0] > 2.0 * growth[1], "poll's cost was to grow, and epoll's not");
    Ok(())
}

/// The processor time that an answer costs the server, system calls included: of many short rounds the cheapest, which is the one that
/// nothing disturbed.
fn cost_of_an_answer(server: &Server) -> Result<Duration> {
    const QUESTIONS: u32 = 20;
    let mut client = guest(server)?;
    let (start, mut costs) = (Instant::now(), Vec::new());
    while costs.len() < 3 || start.elapsed() < Duration::from_millis(400) {
        let before = server.usage().cpu;
        (0..QUESTIONS).try_for_each(|_| asked(&mut client).map(drop))?;
        costs.push(server.usage().cpu.saturating_sub(before) / QUESTIONS);
    }
    costs.into_iter().min().context("there were rounds")
}

/// Connects until there are so many.
fn idle_until(idle: &mut Vec<Client>, crowd: usize, server: SocketAddr) -> Result<()> {
    while idle.len() < crowd {
        idle.push(Client::connect(server).with_context(|| format!("idle client {}", idle.len() + 1))?);
    }
    Ok(())
}

/// zen-poll on poll(), built once into a folder of its own.
fn poll_backend() -> Result<PathBuf> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(built) = BUILT.get() {
        return Ok(built.clone());
    }
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--quiet", "--package", "zen-poll", "--bin", "zen-poll", "--target-dir"]);
    cargo.arg(workspace::target()?.join("poll-backend"));
    // The other variable would win.
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", "--cfg polling_test_poll_backend");
    let built = workspace::build_with(&mut cargo)?.and_then(|mut programs| programs.remove("zen-poll"));
    let built = built.context("zen-poll does not build with --cfg polling_test_poll_backend")?;
    Ok(BUILT.get_or_init(|| built).clone())
}

/// This process's limit of descriptors, raised for as long as this lives: servers that are started later inherit it.
struct Descriptors(Rlimit);

impl Descriptors {
    fn raise(needed: u64) -> Result<Descriptors> {
        let limit = getrlimit(Resource::Nofile);
        let most = limit.maximum.unwrap_or(u64::MAX);
        ensure!(most >= needed, Missing(format!("a limit of {needed} descriptors (ulimit -Hn says {most})")));
        let current = limit.current.map(|current| current.max(needed));
        setrlimit(Resource::Nofile, Rlimit { current, ..limit })?;
        Ok(Descriptors(limit))
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // What is open stays open; a lower limit is never refused.
        let _ = setrlimit(Resource::Nofile, self.0);
    }
}

fn us(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    if micros < 100.0 { format!("{micros:.1} µs") } else { format!("{micros:.0} µs") }
}

pub(super) const STALE_KEY: Experiment = Experiment {
    name: "stale-key",
    claim: "After close(), the next poll reports the descriptor, and the clearing up is done then.",
    question: "3 clients connect, ask and leave, 150 times each. How many are not answered, if clients are known by their descriptors?",
    run: stale_key,
    why: "the kernel gives the lowest free number to the next who comes. What was still to be done to the one who had it is done to him. Keys with \
          a generation are never somebody else's.",
    read: &["zen-poll/examples/stale_key.rs", "zen-poll/src/event_loop.rs", "zen-poll/examples/raw.rs"],
    is_alone: false,
};

fn stale_key(notes: &mut Notes) -> Result<()> {
    const VISITS: usize = 150;
    let mut lost = |name: &str, server: Server| -> Result<usize> {
        notes.doing(name);
        let visit = || -> bool { server.client().and_then(|mut client| asked(&mut client)).is_ok() };
        let lost = at_once(3, |_| Ok((0..VISITS).filter(|_| !visit()).count()))?.into_iter().sum();
        notes.saw(format!("{name}: {lost} of {} visitors leave without an answer", 3 * VISITS));
        Ok(lost)
    };
    let stale = lost("stale_key", exhibit("stale_key")?)?;
    let raw = lost("raw", server("raw", &[])?)?;
    let cured = lost("zen-poll", server("poll", &[])?)?;
    ensure!(stale > VISITS / 20, "the exhibit was to throw some of them out");
    ensure!(raw + cured == 0, "nobody else was to be");
    Ok(())
}
