//! Draining: whoever was accepted and had asked is answered, the others are let go, and nobody is reset.

use std::io::Write;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::Signal;

use super::super::faults::served_clients;
use super::cut::{UNREAD, never_readers};
use super::{Case, Ctx, begin_drain, ending, ends_well};
use crate::harness::client::{APHORISMS, Came, Client};
use crate::trial::note;

pub(crate) const CASES: &[Case] = &[
    ending("whoever_asked_is_answered", whoever_asked_is_answered).arguments(&["--delay", "20ms"]),
    ending("awaited_answers_are_sent", whoever_asked_is_answered)
        .arguments(&["--delay", "200ms", "--await"])
        .on(|entry| entry.package == "zen-async" && !entry.is_example),
    ending("half_questions_are_dropped", half_questions_are_dropped),
    ending("silent_clients_go_at_once", silent_clients_go_at_once),
    ending("queued_clients_are_answered", queued_clients_are_answered),
    ending("queued_behind_a_thinker", queued_behind_a_thinker).arguments(&["--delay", "100ms"]),
    ending("a_late_reader_gets_everything", a_late_reader_gets_everything),
    ending("under_load", under_load).arguments(&["--backlog", "16"]),
];

/// Questions that had come before the signal are answered, all of them; then the server ends its side.
pub(crate) fn whoever_asked_is_answered(ctx: &mut Ctx) -> Result<()> {
    let mut clients = served_clients(ctx, 4)?;
    let (questions, answers): (Vec<_>, Vec<_>) = APHORISMS.into_iter().unzip();
    clients.iter_mut().try_for_each(|client| client.send(&questions.concat()))?;
    ctx.server.signal(Signal::TERM)?;
    for client in &mut clients {
        client.expect(&answers.concat()).context("it had asked")?;
        client.expect_end().context("it was answered")?;
    }
    drop(clients);
    ends_well(ctx)
}

fn half_questions_are_dropped(ctx: &mut Ctx) -> Result<()> {
    let mut clients = served_clients(ctx, 4)?;
    clients.iter_mut().try_for_each(|client| client.send(b"Simple is better than?Simple is bet"))?;
    let start = Instant::now();
    ctx.server.signal(Signal::INT)?;
    for client in &mut clients {
        client.expect(b"complex.").context("its whole question")?;
        client.expect_end().context("its half question")?;
    }
    ends_well(ctx)?;
    ensure!(start.elapsed() < SOON, "it waited {:?} for half a question", start.elapsed());
    Ok(())
}

/// Nobody waits for clients who say nothing: not for those that never did, nor for those that were answered.
fn silent_clients_go_at_once(ctx: &mut Ctx) -> Result<()> {
    let mut silent = served_clients(ctx, 4)?;
    // Where a place is free it is taken by one that has never spoken.
    if ctx.entry.at_once.is_none() {
        silent.push(ctx.client()?);
    }
    let start = Instant::now();
    ctx.server.signal(Signal::TERM)?;
    silent.iter_mut().try_for_each(Client::expect_end)?;
    ends_well(ctx)?;
    ensure!(start.elapsed() < SOON, "it took {:?}", start.elapsed());
    Ok(())
}

/// The server is stopped while they come, so that they wait in the kernel when it finds the signal.
fn queued_clients_are_answered(ctx: &mut Ctx) -> Result<()> {
    ctx.server.signal_all(Signal::STOP)?;
    let mut clients = (0..QUEUED).map(|_| ctx.client()).collect::<Result<Vec<_>>>()?;
    let mut silent = ctx.client()?;
    clients.iter_mut().try_for_each(|client| client.send(APHORISMS[0].0))?;
    ctx.server.signal_all(Signal::TERM)?;
    ctx.server.signal_all(Signal::CONT)?;
    for (number, client) in (1..).zip(&mut clients) {
        client.expect(APHORISMS[0].1).with_context(|| format!("client {number} of {QUEUED} in the queue"))?;
        client.expect_end()?;
    }
    silent.expect_end().context("a silent one in the queue")?;
    ends_well(ctx)
}

/// The signal comes while the server thinks, and others wait in the kernel behind the one it thinks about.
fn queued_behind_a_thinker(ctx: &mut Ctx) -> Result<()> {
    let mut clients = (0..QUEUED).map(|_| ctx.client()).collect::<Result<Vec<_>>>()?;
    clients.iter_mut().try_for_each(|client| client.send(APHORISMS[0].0))?;
    ctx.server.signal(Signal::TERM)?;
    // All at the same time: one who has its answer must leave, since the next may wait for its place.
    thread::scope(|scope| {
        let served = clients
            .into_iter()
            .map(|mut client| scope.spawn(move || client.expect(APHORISMS[0].1).and_then(|()| client.expect_end())));
        let served: Vec<_> = served.collect();
        served.into_iter().try_for_each(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)
    })?;
    ends_well(ctx)
}

/// A client to whom much is owed, and who begins to read when the server drains already, gets everything it asked for.
fn a_late_reader_gets_everything(ctx: &mut Ctx) -> Result<()> {
    let mut client = never_readers(ctx, 1)?.pop().context("a client")?;
    begin_drain(ctx, Signal::TERM)?;
    client.expect(&UNKNOWN.repeat(UNREAD)).context("what it was owed")?;
    client.expect_end()?;
    drop(client);
    ends_well(ctx)
}

/// Clients that stay and ask, and clients that connect for each question, all along.
fn under_load(ctx: &mut Ctx) -> Result<()> {
    let address = ctx.server.address();
    let stopped_at = OnceLock::new();
    let staying = served_clients(ctx, 4)?;
    let (begun, lost) = thread::scope(|scope| {
        let staying: Vec<_> =
            staying.into_iter().map(|client| scope.spawn(|| ask_to_the_end(client, &stopped_at))).collect();
        let coming = || -> Result<(usize, usize)> {
            let (mut begun, mut lost) = (0, 0);
            loop {
                let is_late = stopped_at.get().is_some();
                let Ok(client) = Client::connect(address) else {
                    ensure!(stopped_at.get().is_some(), "refused before the signal");
                    return Ok((begun, lost));
                };
                begun += 1;
                lost += usize::from(!ask_once(client, is_late)?);
            }
        };
        let coming: Vec<_> = (0..2).map(|_| scope.spawn(coming)).collect();
        thread::sleep(Duration::from_millis(200));
        let signalled = ctx.server.signal(Signal::TERM);
        stopped_at.get_or_init(Instant::now);
        signalled?;
        for staying in staying {
            staying.join().map_err(|_| anyhow!("a client panicked"))?.context("one who was here")?;
        }
        let mut sums = (0, 0);
        for coming in coming {
            let (begun, lost) = coming.join().map_err(|_| anyhow!("a client panicked"))?.context("one who came")?;
            sums = (sums.0 + begun, sums.1 + lost);
        }
        Ok::<_, anyhow::Error>(sums)
    })?;
    if lost > 0 {
        note(format!("{}: of {begun} who came, {lost} came too late to a drain and got no byte", ctx.entry.name));
    }
    ends_well(ctx)
}

/// Every question that was sent before the signal is answered, and the last thing is an end of file.
fn ask_to_the_end(mut client: Client, stopped_at: &OnceLock<Instant>) -> Result<()> {
    for (question, answer) in APHORISMS.iter().cycle() {
        // When it cannot send any more there is still to be seen how the conversation ended.
        let _ = client.stream().write_all(question);
        let sent_at = Instant::now();
        match client.read_some()? {
            Came::Bytes(bytes) => ensure!(bytes == *answer, "a wrong answer"),
            Came::End => {
                let is_late = stopped_at.get().is_some_and(|&stopped_at| sent_at >= stopped_at);
                ensure!(is_late, "no answer to a question from before the signal");
                return Ok(());
            }
            came => bail!("{came:?} came"),
        }
    }
    Ok(())
}

/// Whether it was answered. Only one that came after the signal may be lost, and then without a byte.
fn ask_once(mut client: Client, is_late: bool) -> Result<bool> {
    let (question, answer) = APHORISMS[0];
    let _ = client.stream().write_all(question);
    match client.read_some() {
        Ok(Came::Bytes(bytes)) if bytes == answer => Ok(true),
        Ok(Came::Reset | Came::End) | Err(_) if is_late => Ok(false),
        came => bail!("{came:?} came"),
    }
}

/// What does not wait for a time-out (10 s at least) takes less; it mostly is a tick or two.
const SOON: Duration = Duration::from_secs(5);

const QUEUED: usize = 8;

/// The answer to a bare `?`.
const UNKNOWN: &[u8] = b"Error: unknown aphorism.";
