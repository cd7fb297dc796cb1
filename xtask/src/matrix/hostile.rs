//! Hostile clients: whatever one of them does, honest ones are served meanwhile and nothing is left behind.
//!
//! Where an architecture serves any number of clients, the honest client stays connected and keeps asking. Where
//! clients wait in the backlog, it connects for each question; then the promise is that it waits at most one timeout
//! for each client ahead of it.

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
use crate::harness::client::Came;
use crate::servers::Entry;

/// Runs `attack` next to an honest client, none of whose questions may fail. Where clients wait in the backlog, it may
/// have to wait for this many `turns` of hostile clients, each of which takes `time`.
fn with_honest_client(ctx: &Ctx, turns: u32, time: Duration, attack: impl FnOnce() -> Result<()>) -> Result<()> {
    let honest = ctx.honest()?;
    attack()?;
    let longest = honest.finish()?.percentile(100);
    if ctx.entry.makes_wait() {
        let limit = (time + LATE) * turns + LATE;
        ensure!(longest <= limit, "the honest client waited {longest:?} for {turns} times {time:?}");
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
fn are_closed(entry: &Entry, clients: &mut [Client], start: Instant, time: Duration) -> Result<()> {
    for (place, client) in clients.iter_mut().enumerate() {
        client.expect_end().with_context(|| format!("hostile client {place}"))?;
        is_closed_in_time(start.elapsed(), time * (turn(entry, place) + 1), turn(entry, place) + 1)?;
    }
    Ok(())
}

/// Expects that a deadline is kept: the client is not closed before it, and only some ticks after it for each of the
/// `turns` before.
fn is_closed_in_time(after: Duration, time: Duration, turns: u32) -> Result<()> {
    ensure!(after >= time, "closed after {after:?}, before its {time:?} were over");
    ensure!(after <= time + LATE * turns, "closed only after {after:?}, although its time was {time:?}");
    Ok(())
}

/// Runs an attack whose client must itself be quick; `attack` records whether it was. If the machine delayed it,
/// nothing is proved, and the attack is tried again.
fn in_time(mut attack: impl FnMut(&mut Clock) -> Result<()>) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let mut clock = Clock::default();
        match attack(&mut clock) {
            Err(_) if clock.was_late => {}
            done => return done,
        }
    }
    Err(anyhow!("in {ATTEMPTS} attempts the test's client was too slow"))
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
fn is_asleep(ctx: &Ctx) -> Result<()> {
    let used = ctx.server.cpu_within(LOOK);
    ensure!(used < LOOK / 20, "with nothing to do it used {used:?} of processor time in {LOOK:?}");
    Ok(())
}

/// Returns whether the connection is over, by end of file or reset; fails if a byte has been received.
fn is_over(client: &mut Client) -> Result<bool> {
    let came = client.try_read()?;
    ensure!(!matches!(came, Came::Bytes(_)), "received {came:?}, expected the end of the connection");
    Ok(came != Came::Nothing)
}

/// Runs the case against the examples too: they have the protocol with its timeouts.
const fn everywhere(case: Case) -> Case {
    case.on(|_| true)
}

/// How late a deadline may be kept: five times the usual two ticks.
const LATE: Duration = Duration::from_millis(2500);

/// How long an idle server is observed.
const LOOK: Duration = Duration::from_millis(200);

const HANDFUL: usize = 8;

const ATTEMPTS: u32 = 5;
