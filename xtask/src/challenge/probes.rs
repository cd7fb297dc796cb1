//! The stages with their points, and the probes. A probe tests what a service needs beyond the protocol.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::challenger::Challenger;
use crate::harness::client::Received;
use crate::harness::group::run_within;
use crate::harness::{Client, process, wait_for};
use crate::workspace;

/// A part of the challenge. Its points are shared equally by its cases of `check` and its probes.
pub(super) struct Stage {
    pub(super) name: &'static str,
    pub(super) points: u32,
    pub(super) cases: &'static [&'static str],
    pub(super) probes: &'static [Probe],
}

impl Stage {
    /// Returns the names of its cases and probes, in their order.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.cases.iter().copied().chain(self.probes.iter().map(|probe| probe.name))
    }
}

/// A test that acts as one or more clients.
pub(super) struct Probe {
    pub(super) name: &'static str,
    /// Fails if the server does.
    pub(super) run: fn(&Challenger, &[String]) -> Result<()>,
    /// What it checks and where to read more, for the report of a failure.
    pub(super) about: &'static str,
}

/// All stages, in the order in which a server is best written. Together they have 100 points.
pub(super) const STAGES: [Stage; 6] = [
    Stage {
        name: "one client",
        points: 10,
        cases: &["known-questions", "unknown-then-known", "near-misses", "any-bytes", "hundred-in-turn"],
        probes: &[],
    },
    Stage {
        name: "framing",
        points: 25,
        cases: &[
            "one-byte-at-a-time",
            "cut-everywhere",
            "two-in-one-segment",
            "thousand-in-one-send",
            "bare-question-marks",
            "whole-then-part",
            "white-space-before",
            "white-space-does-not-count",
            "other-blanks-count",
            "white-space-alone",
            "half-close-after-questions",
            "half-close-at-once",
            "half-close-cut-short",
            "half-close-behind-whole",
        ],
        probes: &[],
    },
    Stage {
        name: "many clients",
        points: 15,
        cases: &["clients-at-once"],
        probes: &[
            Probe {
                name: "silent-client",
                run: silent_client,
                about: "a silent client does not keep others from being served; see `cargo xtask lab hog`",
            },
            Probe {
                name: "64-clients-at-once",
                run: crowd,
                about: "64 clients are connected together, and all are answered; see `cargo xtask lab backlog workers`",
            },
        ],
    },
    Stage {
        name: "hostile clients",
        points: 15,
        cases: &["after-a-reset", "too-long-keeps-coming"],
        probes: &[
            Probe {
                name: "never-reading",
                run: never_reading,
                about: "a client that never reads costs little memory; read zen-proto/src/conversation.rs",
            },
            Probe {
                name: "clients-that-left",
                run: clients_that_left,
                about: "clients that have disconnected leave no open descriptors; see `cargo xtask lab close-wait`",
            },
        ],
    },
    Stage {
        name: "limits and draining",
        points: 20,
        cases: &["question-of-256", "question-of-257", "257-without-mark", "too-long-after-known", "256-cut-short"],
        probes: &[
            Probe {
                name: "terminates",
                run: terminates,
                about: "SIGTERM ends the server; read zen-proto/src/server/stop.rs",
            },
            Probe {
                name: "drains",
                run: drains,
                about: "a question that came before SIGTERM is answered; read zen-proto/src/server/stop.rs",
            },
            Probe {
                name: "restarts",
                run: restarts,
                about: "the server can be started again immediately on its port; see `cargo xtask lab reuse`",
            },
        ],
    },
    Stage {
        name: "load",
        points: 15,
        cases: &[],
        probes: &[
            Probe {
                name: "sixteen-busy-clients",
                run: closed_loop,
                about: "16 clients that ask without a pause are answered, byte for byte",
            },
            Probe {
                name: "steady-rate",
                run: steady_rate,
                about: "of 200 questions a second, 99 in 100 are answered within 100 ms",
            },
        ],
    },
];

fn silent_client(challenger: &Challenger, _: &[String]) -> Result<()> {
    let _silent = challenger.client()?;
    let mut honest = challenger.client()?;
    honest.set_timeout(ANSWER_WITHIN)?;
    challenger.observing(honest.ask_all()).context("while a silent client is connected, no other is answered")
}

fn crowd(challenger: &Challenger, _: &[String]) -> Result<()> {
    let mut clients = (0..64).map(|_| challenger.client()).collect::<Result<Vec<_>>>()?;
    for client in &mut clients {
        client.set_timeout(ANSWER_WITHIN)?;
        challenger.observing(client.ask_all())?;
    }
    Ok(())
}

fn never_reading(challenger: &Challenger, _: &[String]) -> Result<()> {
    let before = challenger.memory();
    let mut client = Client::connect_with_buffer(challenger.address, 4096)?;
    let (mut pushed, start) = (0, Instant::now());
    while pushed < MOST_PUSHED && start.elapsed() < ANSWER_WITHIN {
        match client.push(&[b'?'; 4096]) {
            Ok(n) => pushed += n,
            Err(_) => break, // the server may disconnect such a client
        }
    }
    let more = challenger.memory().saturating_sub(before);
    ensure!(more < MOST_MEMORY, "the server takes {} KiB and holds {} KiB for one client", pushed / 1024, more / 1024);
    Ok(())
}

fn clients_that_left(challenger: &Challenger, _: &[String]) -> Result<()> {
    challenger.client()?.ask_all()?;
    let before = challenger.descriptors();
    for _ in 0..LEAVING {
        challenger.client()?.ask_all()?;
    }
    let left = || challenger.descriptors().saturating_sub(before);
    let are_closed = wait_for(ANSWER_WITHIN, || (left() < LEAVING / 2).then_some(()));
    challenger.observing(
        are_closed
            .with_context(|| format!("{LEAVING} clients have disconnected, and {} more descriptors are open", left())),
    )
}

fn terminates(challenger: &Challenger, _: &[String]) -> Result<()> {
    signal(challenger, Signal::TERM)?;
    let is_gone = || process::members(challenger.id()).is_empty().then_some(());
    challenger.observing(wait_for(ANSWER_WITHIN, is_gone).context("the server is still there"))
}

/// Sends a question and SIGTERM while the server is stopped by SIGSTOP, so that both are pending when it continues.
fn drains(challenger: &Challenger, _: &[String]) -> Result<()> {
    let mut client = challenger.client()?;
    client.set_timeout(ANSWER_WITHIN)?;
    client.ask_all()?;
    process::members(challenger.id()).into_iter().try_for_each(process::stop)?;
    client.send(b"Simple is better than?")?;
    signal(challenger, Signal::TERM)?;
    for pid in process::members(challenger.id()) {
        process::signal(pid, Signal::CONT)?;
    }
    challenger
        .observing(client.expect(b"complex."))
        .context("no answer to the question that was sent before SIGTERM")?;
    challenger.observing(client.expect_end()).context("after the last answer")
}

fn restarts(challenger: &Challenger, command: &[String]) -> Result<()> {
    // The server closes this connection first, so TIME_WAIT is on its side.
    let mut client = challenger.client()?;
    client.send(&[b'x'; 257])?;
    while matches!(client.read_some()?, Received::Bytes(_)) {}
    drop(client);
    let _kept_open = challenger.client()?;
    terminates(challenger, command)?;
    challenger.restart(command).context("it cannot listen on its port again").map(drop)
}

fn closed_loop(challenger: &Challenger, _: &[String]) -> Result<()> {
    load(challenger, &["-c", "16", "--fail-if", "errors>0%,unserved>0%"])
}

fn steady_rate(challenger: &Challenger, _: &[String]) -> Result<()> {
    load(challenger, &["-c", "16", "-r", "200", "--fail-if", "p99>100ms,errors>0%,unserved>0%"])
}

fn load(challenger: &Challenger, arguments: &[&str]) -> Result<()> {
    let mut load = Command::new(workspace::binary("zen-client")?);
    load.args(["load", "-p", &challenger.address.port().to_string(), "-d", "2s", "--warmup", "200ms"]);
    let output = run_within(LONGEST_LOAD, load.args(["--timeout", "2s"]).args(arguments))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", stderr.trim_end().trim_start_matches("error: "));
    Ok(())
}

fn signal(challenger: &Challenger, signal: Signal) -> Result<()> {
    process::signal(challenger.id(), signal)
}

const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const LONGEST_LOAD: Duration = Duration::from_secs(60);
const LEAVING: usize = 50;
const MOST_PUSHED: usize = 64 << 20;
const MOST_MEMORY: u64 = 4 << 20;
