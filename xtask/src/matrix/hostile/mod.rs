//! Hostile clients: whatever one of them does, honest ones are served meanwhile and nothing is left behind.
//!
//! Where an architecture serves any number of clients, the honest one stays and asks all along. Where clients wait for
//! a place, it comes for each question, and what is promised is that it waits for those ahead of it, each for a
//! time-out at most.

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

/// Runs `attack` beside an honest client. None of its questions may fail; where clients wait for a place it may have to
/// wait for so many `turns` of hostile ones, each for a `time`.
fn beside_honest(ctx: &Ctx, turns: u32, time: Duration, attack: impl FnOnce() -> Result<()>) -> Result<()> {
    let honest = ctx.honest()?;
    attack()?;
    let longest = honest.finish()?.percentile(100);
    if ctx.entry.makes_wait() {
        let limit = (time + LATE) * turns + LATE;
        ensure!(longest <= limit, "the honest client waited {longest:?} for {turns} times {time:?}");
    }
    Ok(())
}

/// How many hostile clients it takes to fill all places, or some where there is no end of places.
fn handful(entry: &Entry) -> usize {
    entry.at_once.unwrap_or(HANDFUL)
}

/// In which turn the client number `place` is served, counted from 0, when all have come at once.
fn turn(entry: &Entry, place: usize) -> u32 {
    let turn = entry.at_once.map_or(0, |at_once| place / at_once);
    u32::try_from(turn).unwrap_or(u32::MAX)
}

/// Expects that clients who have come one after another since `start` are let go, each when it has been served for
/// `time`, without a word and without a reset.
fn are_let_go(entry: &Entry, clients: &mut [Client], start: Instant, time: Duration) -> Result<()> {
    for (place, client) in clients.iter_mut().enumerate() {
        client.expect_end().with_context(|| format!("hostile client {place}"))?;
        is_cut_in_time(start.elapsed(), time * (turn(entry, place) + 1), turn(entry, place) + 1)?;
    }
    Ok(())
}

/// A deadline is kept: nobody is cut before it, and after it within some ticks for each of the `turns` it takes to get
/// there.
fn is_cut_in_time(after: Duration, time: Duration, turns: u32) -> Result<()> {
    ensure!(after >= time, "cut after {after:?}, before its {time:?} were over");
    ensure!(after <= time + LATE * turns, "cut only after {after:?}, though its time was {time:?}");
    Ok(())
}

/// Runs an attack whose client must be quick itself; `attack` says whether it was. If the machine held it up, nothing
/// is proved, and it is tried again.
fn in_time(mut attack: impl FnMut(&mut Clock) -> Result<()>) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let mut clock = Clock::default();
        match attack(&mut clock) {
            Err(_) if clock.was_late => {}
            done => return done,
        }
    }
    Err(anyhow!("{ATTEMPTS} times this machine was too slow to be a client"))
}

/// Whether a client did what it had to do within the time it has.
#[derive(Default)]
struct Clock {
    was_late: bool,
}

impl Clock {
    /// To be told how long a client took for something for which it has `time`.
    fn took(&mut self, taken: Duration, time: Duration) {
        self.was_late |= taken >= time;
    }
}

/// A question over and over, as a client sends it that has no end of them.
struct Repeated {
    questions: Vec<u8>,
    /// So many bytes of `questions` have been sent.
    sent: usize,
}

impl Repeated {
    fn new(question: &[u8]) -> Repeated {
        Repeated { questions: question.repeat(65_536 / question.len()), sent: 0 }
    }

    /// Sends what the network takes without waiting, at most once all of it.
    fn push(&mut self, client: &mut Client) -> io::Result<usize> {
        let n = client.push(&self.questions[self.sent..])?;
        self.sent = (self.sent + n) % self.questions.len();
        Ok(n)
    }
}

/// The server uses next to no processor, though hostile clients are there.
fn is_asleep(ctx: &Ctx) -> Result<()> {
    let before = ctx.server.usage().cpu;
    std::thread::sleep(LOOK);
    let used = ctx.server.usage().cpu.saturating_sub(before);
    ensure!(used < LOOK / 20, "with nothing to do it used {used:?} of processor in {LOOK:?}");
    Ok(())
}

/// The connection is over, in whatever way, and not a byte has come.
fn is_over_without_a_word(client: &mut Client) -> Result<bool> {
    let came = client.look()?;
    ensure!(!matches!(came, Came::Bytes(_)), "{came:?} came, not the end");
    Ok(came != Came::Nothing)
}

/// Also for the exhibit: it speaks the protocol, with its time-outs.
const fn everywhere(case: Case) -> Case {
    case.on(|_| true)
}

/// How late a deadline may be kept: five times the two ticks in which it usually is.
const LATE: Duration = Duration::from_millis(2500);

/// How long a server is watched that has nothing to do.
const LOOK: Duration = Duration::from_millis(200);

const HANDFUL: usize = 8;

const ATTEMPTS: u32 = 5;
