//! Clients that leave at once, in the middle, or with answers under way.

use std::io::Write;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{beside_honest, everywhere};
use crate::harness::client::{APHORISMS, Came, Client};
use crate::harness::{WAIT_LIMIT, shown, wait_for};
use crate::matrix::{Case, Ctx, case};

pub(crate) const CASES: &[Case] = &[
    everywhere(case("connect_and_close", connect_and_close)),
    everywhere(case("connect_and_reset", connect_and_reset)),
    everywhere(case("reset_in_mid_question", reset_in_mid_question)),
    everywhere(case("many_questions_then_reset", many_questions_then_reset)),
    everywhere(case("answers_left_unread", answers_left_unread)),
];

/// Probes do not show in the log.
fn connect_and_close(ctx: &mut Ctx) -> Result<()> {
    come_and_go(ctx, 500, |client| {
        drop(client);
        Ok(())
    })?;
    let lines = lines_about_clients(ctx)?;
    ensure!(lines == 0, "{lines} lines in the log");
    Ok(())
}

/// Ten thousand resets, and only some lines a second in the log.
fn connect_and_reset(ctx: &mut Ctx) -> Result<()> {
    come_and_go(ctx, 10_000, Client::reset)?;
    let lines = lines_about_clients(ctx)?;
    ensure!(lines <= 1000, "{lines} lines in the log");
    Ok(())
}

/// Half a question, also one behind others.
fn reset_in_mid_question(ctx: &mut Ctx) -> Result<()> {
    beside_honest(ctx, 0, Duration::ZERO, || {
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

/// A hundred thousand questions, and a reset as soon as the last of them is on its way.
fn many_questions_then_reset(ctx: &mut Ctx) -> Result<()> {
    beside_honest(ctx, 0, Duration::ZERO, || {
        let (question, answer) = APHORISMS[2];
        let mut client = ctx.client()?;
        let mut writing = client.stream().try_clone()?;
        let writer = thread::Builder::new().name("writer".into()).spawn(move || {
            let questions = question.repeat(1000);
            (0..100).try_for_each(|_| writing.write_all(&questions))
        })?;
        // A server that owes does not read: so the answers are read, until all questions are written.
        client.stream().set_read_timeout(Some(GLANCE))?;
        let mut read = 0;
        while !writer.is_finished() {
            match client.read_some()? {
                Came::Bytes(bytes) => {
                    let expected: Vec<u8> =
                        answer.iter().cycle().skip(read % answer.len()).take(bytes.len()).copied().collect();
                    ensure!(bytes == expected, "after {read} bytes {} came", shown(&bytes));
                    read += bytes.len();
                }
                // The writer has a time-out of its own.
                Came::Nothing => {}
                came => bail!("{came:?} came after {read} bytes"),
            }
        }
        writer.join().map_err(|_| anyhow!("the writer panicked"))?.context("not all questions were taken")?;
        client.reset()
    })
}

/// Answers that have come and are not read when the client closes; and answers for which there was no room.
fn answers_left_unread(ctx: &mut Ctx) -> Result<()> {
    let (question, answer) = APHORISMS[2];
    beside_honest(ctx, 0, Duration::ZERO, || {
        let questions = question.repeat(1000);
        let mut answers = vec![0; answer.len() * 1000];
        for _ in 0..20 {
            let mut client = ctx.client()?;
            client.send(&questions)?;
            let came = wait_for(WAIT_LIMIT, || matches!(client.stream().peek(&mut answers), Ok(8000)).then_some(()));
            came.context("not all answers have come")?;
            // Closing with something unread is a reset for the other side, which may be writing.
            drop(client);
            let mut client = Client::connect_with_buffer(ctx.server.address(), 4096)?;
            while client.push(&questions)? > 0 {}
            drop(client);
        }
        Ok(())
    })
}

/// The lines `TIME [LEVEL WHO] CLIENT …` of the log, once the server has nothing more to say.
fn lines_about_clients(ctx: &Ctx) -> Result<usize> {
    ctx.server.falls_asleep(WAIT_LIMIT)?;
    Ok(ctx.server.log().lines().filter(|line| line.contains("] 127.0.0.1:")).count())
}

/// So many clients come and go in a row, as `leave` says, while an honest one asks. Now and then it is seen that the
/// server keeps pace, or its queue would fill up and the kernel make everyone wait for a second.
fn come_and_go(ctx: &Ctx, count: usize, leave: impl Fn(Client) -> Result<()>) -> Result<()> {
    let pace = ctx.entry.queue.map_or(PACE, |queue| PACE.min(queue));
    beside_honest(ctx, 0, Duration::ZERO, || {
        for n in 1..=count {
            leave(ctx.client().with_context(|| format!("client {n}"))?)?;
            if n % pace == 0 {
                ctx.client()?.ask_all().with_context(|| format!("after {n} clients"))?;
            }
        }
        Ok(())
    })
}

/// So many clients may wait for the server: less than its backlog. A queue of its own may be shorter. A thread for each
/// would leave its stack in glibc's cache.
const PACE: usize = 100;

/// How long the reader waits before it looks after its writer.
const GLANCE: Duration = Duration::from_millis(50);
