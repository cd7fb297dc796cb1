//! Clients that send nothing, or too little in too much time.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{
    Clock, everywhere, expect_all_closed, expect_closed_in_time, handful, is_over, retry_if_late, with_honest_client,
};
use crate::harness::client::{APHORISMS, Client};
use crate::matrix::{Case, Ctx, case};

pub(crate) const CASES: &[Case] = &[
    everywhere(case("silence_after_connect", silence_after_connect).arguments(IDLE_ARGUMENTS)),
    everywhere(case("silence_after_an_answer", silence_after_an_answer).arguments(IDLE_ARGUMENTS)),
    everywhere(case("white_space_for_ever", white_space_for_ever).arguments(IDLE_ARGUMENTS)),
    everywhere(case("one_byte_then_silence", one_byte_then_silence).arguments(SLOW_ARGUMENTS)),
    everywhere(case("one_byte_at_a_time", one_byte_at_a_time).arguments(SLOW_ARGUMENTS)),
    everywhere(case("three_slow_questions", three_slow_questions).arguments(SLOW_ARGUMENTS)),
];

/// Silent clients are closed at the idle timeout. Where clients wait for each other, the second half is served after
/// the first half has been closed.
fn silence_after_connect(ctx: &mut Ctx) -> Result<()> {
    with_honest_client(ctx, 2, IDLE, || {
        let start = Instant::now();
        let mut silent = ctx.server.clients(handful(ctx.entry) * 2)?;
        expect_all_closed(ctx.entry, &mut silent, start, IDLE)
    })
}

/// Each answer restarts the idle timeout. Where clients wait for each other, the next client waits until it has
/// expired.
fn silence_after_an_answer(ctx: &mut Ctx) -> Result<()> {
    with_honest_client(ctx, 3, IDLE, || {
        retry_if_late(|clock| {
            let mut start = Instant::now();
            let mut silent = ctx.server.clients(handful(ctx.entry))?;
            for (question, answer) in APHORISMS {
                sleep(IDLE.mul_f32(0.6));
                // The server's clock for them starts after this.
                let before = Instant::now();
                for client in &mut silent {
                    client.send(question)?;
                }
                clock.took(start.elapsed(), IDLE);
                start = before;
                for client in &mut silent {
                    client.expect(answer)?;
                }
            }
            let mut next = ctx.client()?;
            let (question, answer) = APHORISMS[0];
            next.ask(question, answer).context("the next client")?;
            if ctx.entry.makes_clients_wait() {
                expect_closed_in_time(start.elapsed(), IDLE, 1).context("the clients before the next one")?;
            }
            expect_all_closed(ctx.entry, &mut silent, start, IDLE)
        })
    })
}

/// White space before a question renews no deadline (rule 3), so the idle timeout applies.
fn white_space_for_ever(ctx: &mut Ctx) -> Result<()> {
    with_honest_client(ctx, 1, IDLE, || drip(ctx, b" \t\r\n", IDLE))
}

/// A client that begins a question is closed at the question timeout.
fn one_byte_then_silence(ctx: &mut Ctx) -> Result<()> {
    with_honest_client(ctx, 2, SLOW, || {
        let start = Instant::now();
        let mut slow = ctx.server.clients(handful(ctx.entry) * 2)?;
        slow.iter_mut().try_for_each(|client| client.send(b"B"))?;
        expect_all_closed(ctx.entry, &mut slow, start, SLOW)
    })
}

/// A byte every tenth of the question timeout does not extend it.
fn one_byte_at_a_time(ctx: &mut Ctx) -> Result<()> {
    with_honest_client(ctx, 1, SLOW, || drip(ctx, b"Beautiful", SLOW))
}

/// Each question takes more than half of the question timeout, and all together more than twice of it.
fn three_slow_questions(ctx: &mut Ctx) -> Result<()> {
    with_honest_client(ctx, 3, SLOW, || {
        retry_if_late(|clock| {
            let mut client = ctx.client()?;
            APHORISMS.iter().try_for_each(|(question, answer)| {
                send_slowly(&mut client, question, SLOW.mul_f32(0.6), clock)?;
                client.expect(answer)
            })
        })
    })
}

/// Sends a question in six pieces, the last of them after `time`.
fn send_slowly(client: &mut Client, question: &[u8], time: Duration, clock: &mut Clock) -> Result<()> {
    let start = Instant::now();
    let (first, rest) = question.split_at(1);
    let sent = client.send(first).and_then(|()| {
        rest.chunks(rest.len().div_ceil(5)).try_for_each(|piece| {
            sleep(time / 5);
            client.send(piece)
        })
    });
    clock.took(start.elapsed(), SLOW);
    sent
}

/// Connects a handful of clients that send a byte of `bytes` every tenth of `time`. Each must be closed `time` after
/// the first byte. A byte that arrives after the close may turn the end of file into a reset.
fn drip(ctx: &Ctx, bytes: &[u8], time: Duration) -> Result<()> {
    let start = Instant::now();
    let mut dripping = ctx.server.clients(handful(ctx.entry))?;
    for byte in bytes.iter().cycle() {
        for client in &mut dripping {
            // A failed write is noticed by the read below.
            let _ = client.push(&[*byte]);
        }
        sleep(time / 10);
        let mut staying = Vec::new();
        for mut client in dripping {
            if is_over(&mut client)? {
                expect_closed_in_time(start.elapsed(), time, 1)?;
            } else {
                staying.push(client);
            }
        }
        dripping = staying;
        if dripping.is_empty() {
            break;
        }
        ensure!(
            start.elapsed() <= time + super::TOLERANCE,
            "a client should be closed after {time:?}, but is still connected after {:?}",
            start.elapsed()
        );
    }
    Ok(())
}

/// The timeouts in the arguments.
const IDLE: Duration = Duration::from_millis(400);
const IDLE_ARGUMENTS: &[&str] = &["--idle-timeout", "400ms"];
const SLOW: Duration = Duration::from_millis(400);
const SLOW_ARGUMENTS: &[&str] = &["--question-timeout", "400ms"];
