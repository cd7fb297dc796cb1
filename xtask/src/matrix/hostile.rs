//! Hostile clients: whatever one of them does, honest ones are served meanwhile and nothing is left behind.
//!
//! Where an architecture serves any number of clients, the honest client stays connected and keeps asking. Where
//! clients wait until one of a few is served, it connects for each question; it may then have to wait for one timeout
//! for each client ahead of it, but not longer.

pub(crate) mod crowd;
pub(crate) mod garbage;
pub(crate) mod leaving;
pub(crate) mod silence;
pub(crate) mod unread;

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::{Case, Ctx};
use crate::harness::Client;
use crate::harness::client::Received;
use crate::servers::Entry;

/// Runs `attack` next to an honest client, none of whose questions may fail. Where clients wait in the backlog, it may
/// have to wait for this many `turns` of hostile clients, each of which takes `time`.
fn with_honest_client(ctx: &Ctx, turns: u32, time: Duration, attack: impl FnOnce() -> Result<()>) -> Result<()> {
    let honest = ctx.honest()?;
    attack()?;
    let longest = honest.finish()?.percentile(100);
    if ctx.entry.makes_clients_wait() {
        let limit = (time + TOLERANCE) * turns + TOLERANCE;
        ensure!(longest <= limit, "the honest client waited {longest:?}; {limit:?} is allowed");
    }
    Ok(())
}

/// Returns how many hostile clients occupy the server, or a handful where any number is served.
fn handful(entry: &Entry) -> usize {
    entry.at_once.unwrap_or(HANDFUL)
}

/// Returns the turn in which client `place` is served, counted from 0, when all connected together.
fn turn(entry: &Entry, place: usize) -> u32 {
    let turn = entry.at_once.map_or(0, |at_once| place / at_once);
    u32::try_from(turn).unwrap_or(u32::MAX)
}

/// Expects that clients that connected one after another since `start` are closed, without a byte and without a reset,
/// each after it has been served for `time`.
fn expect_all_closed(entry: &Entry, clients: &mut [Client], start: Instant, time: Duration) -> Result<()> {
    for (place, client) in clients.iter_mut().enumerate() {
        client.expect_end().with_context(|| format!("hostile client {place}"))?;
        expect_closed_in_time(start.elapsed(), time * (turn(entry, place) + 1), turn(entry, place) + 1)?;
    }
    Ok(())
}

/// Expects that a deadline is kept: the client is closed not before `time`, and at most [`TOLERANCE`] after it for each
/// of the `turns` that it had to wait for.
fn expect_closed_in_time(after: Duration, time: Duration, turns: u32) -> Result<()> {
    ensure!(after >= time, "closed after {after:?}, before its {time:?} were over");
    ensure!(after <= time + TOLERANCE * turns, "closed only after {after:?}, although its time was {time:?}");
    Ok(())
}

/// Runs an attack whose client must send or read in time; `attack` records whether it did. If the machine delayed the
/// client, a failure proves nothing, and the attack is tried again.
fn retry_if_late(mut attack: impl FnMut(&mut Clock) -> Result<()>) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let mut clock = Clock::default();
        match attack(&mut clock) {
            Err(_) if clock.was_late => {}
            done => return done,
        }
    }
    Err(anyhow!("in each of {ATTEMPTS} attempts the machine delayed the test's own client: nothing was tested"))
}

/// Records whether a client was quick enough.
#[derive(Default)]
struct Clock {
    was_late: bool,
}

impl Clock {
    /// Records that something took the client `taken`, where less than `time` was allowed.
    fn took(&mut self, taken: Duration, time: Duration) {
        self.was_late |= taken >= time;
    }
}

/// A question repeated without end.
struct Repeated {
    questions: Vec<u8>,
    /// How many bytes of `questions` have been sent.
    sent: usize,
}

impl Repeated {
    fn new(question: &[u8]) -> Repeated {
        Repeated { questions: question.repeat(65_536 / question.len()), sent: 0 }
    }

    /// Sends what the network takes without waiting, at most all questions once.
    fn push(&mut self, client: &mut Client) -> io::Result<usize> {
        let n = client.push(&self.questions[self.sent..])?;
        self.sent = (self.sent + n) % self.questions.len();
        Ok(n)
    }
}

/// Expects that the server uses almost no processor time although hostile clients are connected.
fn expect_idle(ctx: &Ctx) -> Result<()> {
    let used = ctx.server.cpu_within(LOOK);
    ensure!(used < LOOK / 20, "with nothing to do, the server used {used:?} of processor time in {LOOK:?}");
    Ok(())
}

/// Returns whether the connection is over, by end of file or reset; fails if a byte has been received.
fn is_over(client: &mut Client) -> Result<bool> {
    let received = client.try_read()?;
    ensure!(!matches!(received, Received::Bytes(_)), "received {received:?}, expected the end of the connection");
    Ok(received != Received::Nothing)
}

/// Applies the case to the examples too, because they implement the protocol and its timeouts.
const fn everywhere(case: Case) -> Case {
    case.on(|_| true)
}

/// The time by which a server may miss a deadline: five times the usual two ticks.
const TOLERANCE: Duration = Duration::from_millis(2500);

/// How long an idle server is observed.
const LOOK: Duration = Duration::from_millis(200);

/// The number of hostile clients where any number is served.
const HANDFUL: usize = 8;

/// The maximum number of times that an attack is tried.
const ATTEMPTS: u32 = 5;
