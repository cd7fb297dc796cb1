//! Clients that say nothing, or too little in too much time.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Clock, are_let_go, beside_honest, everywhere, handful, in_time, is_cut_in_time, is_over_without_a_word};
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

/// They are let go when the idle time-out is over. Where clients wait for a place, the second half gets one only then.
fn silence_after_connect(ctx: &mut Ctx) -> Result<()> {
    beside_honest(ctx, 2, IDLE, || {
        let start = Instant::now();
        let mut silent = clients(ctx, handful(ctx.entry) * 2)?;
        are_let_go(ctx.entry, &mut silent, start, IDLE)
    })
}

/// The idle time begins again with each answer. Where clients wait for a place, the next one gets none before that.
fn silence_after_an_answer(ctx: &mut Ctx) -> Result<()> {
    beside_honest(ctx, 3, IDLE, || {
        in_time(|clock| {
            let mut start = Instant::now();
            let mut silent = clients(ctx, handful(ctx.entry))?;
            for (question, answer) in APHORISMS {
                sleep(IDLE.mul_f32(0.6));
                // The server's clock for them begins after this.
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
            if ctx.entry.makes_wait() {
                is_cut_in_time(start.elapsed(), IDLE, 1).context("who kept the next client's place")?;
            }
            are_let_go(ctx.entry, &mut silent, start, IDLE)
        })
    })
}

/// White space before a question renews no deadline (rule 3): the idle time-out it is.
fn white_space_for_ever(ctx: &mut Ctx) -> Result<()> {
    beside_honest(ctx, 1, IDLE, || drip(ctx, b" \t\r\n", IDLE))
}

/// A client that begins a question is closed at the question timeout.
fn one_byte_then_silence(ctx: &mut Ctx) -> Result<()> {
    beside_honest(ctx, 2, SLOW, || {
        let start = Instant::now();
        let mut slow = clients(ctx, handful(ctx.entry) * 2)?;
        slow.iter_mut().try_for_each(|client| client.send(b"B"))?;
        are_let_go(ctx.entry, &mut slow, start, SLOW)
    })
}

/// A byte every tenth of the question time-out buys no time.
fn one_byte_at_a_time(ctx: &mut Ctx) -> Result<()> {
    beside_honest(ctx, 1, SLOW, || drip(ctx, b"Beautiful", SLOW))
}

/// Each takes more than half of the question time-out, all together more than twice of it.
fn three_slow_questions(ctx: &mut Ctx) -> Result<()> {
    beside_honest(ctx, 3, SLOW, || {
        in_time(|clock| {
            let mut client = ctx.client()?;
            APHORISMS.iter().try_for_each(|(question, answer)| {
                send_slowly(&mut client, question, SLOW.mul_f32(0.6), clock)?;
                client.expect(answer)
            })
        })
    })
}

/// Sends a question in six pieces, the last of them when `time` is over.
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

/// Clients fill all places and send a byte of `bytes` every tenth of `time`, over and over; `time` after the first each
/// is cut. What is under way when the server closes may turn the end of file into a reset.
fn drip(ctx: &Ctx, bytes: &[u8], time: Duration) -> Result<()> {
    let start = Instant::now();
    let mut dripping = clients(ctx, handful(ctx.entry))?;
    for byte in bytes.iter().cycle() {
        for client in &mut dripping {
            // Whether there is still somebody who takes it is seen below.
            let _ = client.push(&[*byte]);
        }
        sleep(time / 10);
        let mut staying = Vec::new();
        for mut client in dripping {
            if is_over_without_a_word(&mut client)? {
                is_cut_in_time(start.elapsed(), time, 1)?;
            } else {
                staying.push(client);
            }
        }
        dripping = staying;
        if dripping.is_empty() {
            break;
        }
        ensure!(
            start.elapsed() <= time + super::LATE,
            "its time was {time:?}, and after {:?} it still drips",
            start.elapsed()
        );
    }
    Ok(())
}

fn clients(ctx: &Ctx, count: usize) -> Result<Vec<Client>> {
    (0..count).map(|_| ctx.client()).collect()
}

/// What the arguments say.
const IDLE: Duration = Duration::from_millis(400);
const IDLE_ARGUMENTS: &[&str] = &["--idle-timeout", "400ms"];
const SLOW: Duration = Duration::from_millis(400);
const SLOW_ARGUMENTS: &[&str] = &["--question-timeout", "400ms"];
