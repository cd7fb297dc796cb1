//! Draining: accepted clients that have asked are answered, the others are closed, and none is reset.

use std::io::Write;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::Signal;

use super::super::faults::served_clients;
use super::cut::{UNREAD, never_readers};
use super::{Case, Ctx, begin_drain, ending};
use crate::harness::client::{APHORISMS, Client, Received};
use crate::trial::note;

pub(crate) const CASES: &[Case] = &[
    ending("questions_asked_are_answered", questions_asked_are_answered).arguments(&["--delay", "20ms"]),
    ending("awaited_answers_are_sent", questions_asked_are_answered)
        .arguments(&["--delay", "200ms", "--await"])
        .on(|entry| entry.package == "zen-async" && !entry.is_example),
    ending("half_questions_are_dropped", half_questions_are_dropped),
    ending("silent_clients_are_closed_at_once", silent_clients_are_closed_at_once),
    ending("queued_clients_are_answered", queued_clients_are_answered),
    ending("queued_behind_a_slow_answer", queued_behind_a_slow_answer).arguments(&["--delay", "100ms"]),
    ending("a_late_reader_gets_everything", a_late_reader_gets_everything),
    ending("under_load", under_load).arguments(&["--backlog", "16"]),
];

/// All questions that arrived before the signal are answered; then the server closes.
pub(crate) fn questions_asked_are_answered(ctx: &mut Ctx) -> Result<()> {
    let mut clients = served_clients(ctx, 4)?;
    let (questions, answers): (Vec<_>, Vec<_>) = APHORISMS.into_iter().unzip();
    clients.iter_mut().try_for_each(|client| client.send(&questions.concat()))?;
    ctx.server.signal(Signal::TERM)?;
    for client in &mut clients {
        client.expect(&answers.concat()).context("a client that asked before SIGTERM")?;
        client.expect_end().context("a client that has been answered")?;
    }
    drop(clients);
    ctx.server.ends_well()
}

fn half_questions_are_dropped(ctx: &mut Ctx) -> Result<()> {
    let mut clients = served_clients(ctx, 4)?;
    clients.iter_mut().try_for_each(|client| client.send(b"Simple is better than?Simple is bet"))?;
    let start = Instant::now();
    ctx.server.signal(Signal::INT)?;
    for client in &mut clients {
        client.expect(b"complex.").context("the whole question")?;
        client.expect_end().context("the half question")?;
    }
    ctx.server.ends_well()?;
    ensure!(start.elapsed() < SOON, "the drain took {:?} because of half a question", start.elapsed());
    Ok(())
}

/// The drain does not wait for silent clients, neither for those that never asked nor for those that were answered.
fn silent_clients_are_closed_at_once(ctx: &mut Ctx) -> Result<()> {
    let mut silent = served_clients(ctx, 4)?;
    // Where another client is accepted, it is one that has never asked.
    if ctx.entry.at_once.is_none() {
        silent.push(ctx.client()?);
    }
    let start = Instant::now();
    ctx.server.signal(Signal::TERM)?;
    silent.iter_mut().try_for_each(Client::expect_end)?;
    ctx.server.ends_well()?;
    ensure!(start.elapsed() < SOON, "the drain took {:?}", start.elapsed());
    Ok(())
}

/// The server is stopped (SIGSTOP) while clients connect. When it continues and handles SIGTERM, they are in the
/// backlog.
fn queued_clients_are_answered(ctx: &mut Ctx) -> Result<()> {
    ctx.server.stop_all()?;
    let mut clients = ctx.server.clients(QUEUED)?;
    let mut silent = ctx.client()?;
    clients.iter_mut().try_for_each(|client| client.send(APHORISMS[0].0))?;
    ctx.server.signal_all(Signal::TERM)?;
    ctx.server.signal_all(Signal::CONT)?;
    for (number, client) in (1..).zip(&mut clients) {
        client.expect(APHORISMS[0].1).with_context(|| format!("client {number} of {QUEUED} in the backlog"))?;
        client.expect_end()?;
    }
    silent.expect_end().context("a silent client in the backlog")?;
    ctx.server.ends_well()
}

/// The signal arrives while the server works on an answer, and other clients wait in the backlog.
fn queued_behind_a_slow_answer(ctx: &mut Ctx) -> Result<()> {
    let mut clients = ctx.server.clients(QUEUED)?;
    clients.iter_mut().try_for_each(|client| client.send(APHORISMS[0].0))?;
    ctx.server.signal(Signal::TERM)?;
    // In parallel, because a client that has its answer must close before the next one is accepted.
    thread::scope(|scope| {
        let served = clients
            .into_iter()
            .map(|mut client| scope.spawn(move || client.expect(APHORISMS[0].1).and_then(|()| client.expect_end())));
        let served: Vec<_> = served.collect();
        served.into_iter().try_for_each(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)
    })?;
    ctx.server.ends_well()
}

/// A client with many pending answers that begins to read during the drain receives all of them.
fn a_late_reader_gets_everything(ctx: &mut Ctx) -> Result<()> {
    let mut client = never_readers(ctx, 1)?.pop().context("a client")?;
    begin_drain(ctx, Signal::TERM)?;
    client.expect(&UNKNOWN.repeat(UNREAD)).context("the pending answers")?;
    client.expect_end()?;
    drop(client);
    ctx.server.ends_well()
}

/// Some clients stay and keep asking, others connect for each question, before and during the drain.
fn under_load(ctx: &mut Ctx) -> Result<()> {
    let address = ctx.server.address();
    let stopped_at = OnceLock::new();
    let staying = served_clients(ctx, 4)?;
    let (begun, lost) = thread::scope(|scope| {
        let staying: Vec<_> =
            staying.into_iter().map(|client| scope.spawn(|| ask_to_the_end(client, &stopped_at))).collect();
        let connecting = || -> Result<(usize, usize)> {
            let (mut begun, mut lost) = (0, 0);
            loop {
                let Ok(client) = Client::connect(address) else {
                    ensure!(stopped_at.get().is_some(), "refused before the signal");
                    return Ok((begun, lost));
                };
                begun += 1;
                lost += usize::from(!ask_once(client, &stopped_at)?);
            }
        };
        let connecting: Vec<_> = (0..2).map(|_| scope.spawn(connecting)).collect();
        thread::sleep(Duration::from_millis(200));
        // Before the signal: then a question that was sent before this moment was sent before the signal, too.
        stopped_at.get_or_init(Instant::now);
        ctx.server.signal(Signal::TERM)?;
        for staying in staying {
            staying.join().map_err(|_| anyhow!("a client panicked"))?.context("a client that stays")?;
        }
        let mut sums = (0, 0);
        for connecting in connecting {
            let (begun, lost) = connecting
                .join()
                .map_err(|_| anyhow!("a client panicked"))?
                .context("a client that connects for each question")?;
            sums = (sums.0 + begun, sums.1 + lost);
        }
        Ok::<_, anyhow::Error>(sums)
    })?;
    if lost > 0 {
        note(format!("{}: of {begun} clients, {lost} asked after SIGTERM and received nothing", ctx.entry.name));
    }
    ctx.server.ends_well()
}

/// Expects an answer to every question that was sent before the signal, and then end of file.
fn ask_to_the_end(mut client: Client, stopped_at: &OnceLock<Instant>) -> Result<()> {
    for (question, answer) in APHORISMS.iter().cycle() {
        // After a failed write, the read shows how the conversation ended.
        let _ = client.stream().write_all(question);
        let sent_at = Instant::now();
        match client.read_some()? {
            Received::Bytes(bytes) => ensure!(bytes == *answer, "a wrong answer"),
            Received::End => {
                let is_late = stopped_at.get().is_some_and(|&stopped_at| sent_at >= stopped_at);
                ensure!(is_late, "no answer to a question from before the signal");
                return Ok(());
            }
            received => bail!("received {received:?}"),
        }
    }
    Ok(())
}

/// Returns whether the client was answered. Only a question that was sent after the signal may be lost, without a byte.
fn ask_once(mut client: Client, stopped_at: &OnceLock<Instant>) -> Result<bool> {
    let (question, answer) = APHORISMS[0];
    let _ = client.stream().write_all(question);
    let is_late = stopped_at.get().is_some();
    match client.read_some() {
        Ok(Received::Bytes(bytes)) if bytes == answer => Ok(true),
        Ok(Received::Reset | Received::End) | Err(_) if is_late => Ok(false),
        received => bail!("received {received:?}"),
    }
}

/// The maximum duration of a drain that waits for no timeout. It usually takes a tick or two; the shortest default
/// timeout is 10 s.
const SOON: Duration = Duration::from_secs(5);

const QUEUED: usize = 8;

/// The answer to a bare `?`.
const UNKNOWN: &[u8] = b"Error: unknown aphorism.";
