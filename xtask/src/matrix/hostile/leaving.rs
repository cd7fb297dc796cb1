//! Clients that leave immediately, within a question, or with answers under way.

use std::io::Write;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{everywhere, with_honest_client};
use crate::harness::client::{APHORISMS, Client, Received};
use crate::harness::{WAIT_LIMIT, shown, wait_for};
use crate::matrix::{Case, Ctx, case};

pub(crate) const CASES: &[Case] = &[
    everywhere(case("connect_and_close", connect_and_close)),
    everywhere(case("connect_and_reset", connect_and_reset)),
    everywhere(case("reset_in_mid_question", reset_in_mid_question)),
    everywhere(case("many_questions_then_reset", many_questions_then_reset)),
    everywhere(case("answers_left_unread", answers_left_unread)),
];

/// Health checks that connect and close leave no line in the log.
fn connect_and_close(ctx: &mut Ctx) -> Result<()> {
    connect_and_leave(ctx, 500, |client| {
        drop(client);
        Ok(())
    })?;
    let lines = lines_about_clients(ctx)?;
    ensure!(lines == 0, "{lines} lines in the log");
    Ok(())
}

/// Ten thousand resets, or 500 where each costs a process, leave no line in the log: a reset before the first
/// question is logged only at -v.
fn connect_and_reset(ctx: &mut Ctx) -> Result<()> {
    connect_and_leave(ctx, if ctx.entry.forks { 500 } else { 10_000 }, Client::reset)?;
    let lines = lines_about_clients(ctx)?;
    ensure!(lines == 0, "{lines} lines in the log");
    Ok(())
}

/// Clients reset within a question, some of them after other questions.
fn reset_in_mid_question(ctx: &mut Ctx) -> Result<()> {
    with_honest_client(ctx, 0, Duration::ZERO, || {
        for n in 0..100 {
            let mut client = ctx.client()?;
            if n % 2 == 0 {
                client.ask_all()?;
            }
            client.send(b"Simple is better than?Simple is")?;
            if n % 4 < 2 {
                client.expect(b"complex.")?;
            }
            client.reset()?;
        }
        Ok(())
    })
}

/// A client sends a hundred thousand questions, and resets as soon as the last one is sent.
fn many_questions_then_reset(ctx: &mut Ctx) -> Result<()> {
    with_honest_client(ctx, 0, Duration::ZERO, || {
        let (question, answer) = APHORISMS[2];
        let mut client = ctx.client()?;
        let mut writing = client.stream().try_clone()?;
        let writer = thread::Builder::new().name("writer".into()).spawn(move || {
            let questions = question.repeat(1000);
            (0..100).try_for_each(|_| writing.write_all(&questions))
        })?;
        // A server with pending answers does not read, so the client reads until all questions are sent.
        client.stream().set_read_timeout(Some(GLANCE))?;
        let mut read = 0;
        while !writer.is_finished() {
            match client.read_some()? {
                Received::Bytes(bytes) => {
                    let expected: Vec<u8> =
                        answer.iter().cycle().skip(read % answer.len()).take(bytes.len()).copied().collect();
                    ensure!(bytes == expected, "received {} after {read} bytes", shown(&bytes));
                    read += bytes.len();
                }
                // If the writer is stuck, its own timeout ends it.
                Received::Nothing => {}
                received => bail!("received {received:?} after {read} bytes"),
            }
        }
        writer.join().map_err(|_| anyhow!("the writer panicked"))?.context("not all questions were taken")?;
        client.reset()
    })
}

/// Clients close with answers that were received and not read, or with answers for which there was no room.
fn answers_left_unread(ctx: &mut Ctx) -> Result<()> {
    let (question, answer) = APHORISMS[2];
    with_honest_client(ctx, 0, Duration::ZERO, || {
        let questions = question.repeat(1000);
        let mut answers = vec![0; answer.len() * 1000];
        for _ in 0..20 {
            let mut client = ctx.client()?;
            client.send(&questions)?;
            let received =
                wait_for(WAIT_LIMIT, || matches!(client.stream().peek(&mut answers), Ok(8000)).then_some(()));
            received.context("not all answers were received")?;
            // Closing with unread bytes sends a reset to the server, which may be writing.
            drop(client);
            let mut client = Client::connect_with_buffer(ctx.server.address(), 4096)?;
            while client.push(&questions)? > 0 {}
            drop(client);
        }
        Ok(())
    })
}

/// Counts the lines `TIME [LEVEL PID/THREAD] CLIENT …` of the log, once the server has nothing left to do.
fn lines_about_clients(ctx: &Ctx) -> Result<usize> {
    ctx.server.wait_until_asleep(WAIT_LIMIT)?;
    Ok(ctx.server.log().lines().filter(|line| line.contains("] 127.0.0.1:")).count())
}

/// Connects this many clients one after another, and calls `leave` with each, while an honest client asks. From time to
/// time it waits for the server: with a full backlog, the kernel would delay every client by a second.
fn connect_and_leave(ctx: &Ctx, count: usize, leave: impl Fn(Client) -> Result<()>) -> Result<()> {
    let pace = ctx.entry.queue.map_or(PACE, |queue| PACE.min(queue));
    with_honest_client(ctx, 0, Duration::ZERO, || {
        for n in 1..=count {
            leave(ctx.client().with_context(|| format!("client {n}"))?)?;
            if n % pace == 0 {
                ctx.client()?.ask_all().with_context(|| format!("after {n} clients"))?;
            }
        }
        Ok(())
    })
}

/// The number of clients that leave between two waits for the server. It is smaller than the backlog, and keeps the
/// number of threads small where each client has one: glibc caches their stacks, which the verdict would count as
/// memory.
const PACE: usize = 100;

/// The time for which the reader waits for bytes before it checks whether the writer has ended.
const GLANCE: Duration = Duration::from_millis(50);
