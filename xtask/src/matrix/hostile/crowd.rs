//! Clients over the limit, and clients that ask without a pause.

use std::mem::take;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::Repeated;
use crate::harness::client::{APHORISMS, Client, Received};
use crate::harness::{WAIT_LIMIT, shown, wait_for};
use crate::matrix::{Case, Ctx, case};
use crate::trial::note;

pub(crate) const CASES: &[Case] = &[
    case("too_many_clients", too_many_clients)
        .arguments(&["--max-connections", "32"])
        .on(|entry| !entry.is_example && !entry.makes_clients_wait())
        .alone(),
    case("too_many_clients", too_many_clients_wait)
        .arguments(&["--max-connections", "32"])
        .on(|entry| !entry.is_example && entry.makes_clients_wait())
        .alone(),
    case("two_at_full_speed", two_at_full_speed).alone(),
];

/// Rule 7: each client over the limit is rejected immediately, and a permit that becomes free serves the next client.
fn too_many_clients(ctx: &mut Ctx) -> Result<()> {
    let before = ctx.server.usage().descriptors;
    let honest = ctx.honest()?;
    // Each process has its own limit, and which of several accepts a client is left to chance.
    let processes = if ctx.entry.processes > 1 { ctx.entry.processes - 1 } else { 1 };
    let (least, most) = (LIMIT - 1, LIMIT * processes - 1);
    let mut inside = ctx.server.clients(most + TOO_MANY)?;
    let mut rejected_in_all = 0;
    // Before each rejection the server waits some milliseconds for a permit to become free.
    let looked = wait_for(WAIT_LIMIT, || match take_out_rejected(&mut inside) {
        Ok(rejected) => {
            rejected_in_all += rejected;
            (inside.len() <= most).then_some(Ok(()))
        }
        Err(error) => Some(Err(error)),
    });
    looked.unwrap_or(Ok(()))?;
    // With several processes, the last one may reject a client only after this wait.
    thread::sleep(REJECTION_WAIT);
    rejected_in_all += take_out_rejected(&mut inside)?;
    let counts = format!("{} idle clients and an honest one stay, {rejected_in_all} were rejected", inside.len());
    ensure!((least..=most).contains(&inside.len()) && rejected_in_all >= TOO_MANY, "{counts}");
    inside.iter_mut().try_for_each(Client::ask_all).context("a client that was served before")?;

    drop(inside.pop());
    let start = Instant::now();
    wait_for(WAIT_LIMIT, || is_served(ctx)).context("no client is served after one has left")?;
    let after = start.elapsed();
    ensure!(after <= SOON, "the next client was served only {after:?} after one had left");
    honest.finish()?;
    drop(inside);
    // A client that connects before the server has noticed the closed connections is rejected.
    let are_gone = || (ctx.server.usage().descriptors <= before).then_some(());
    wait_for(WAIT_LIMIT, are_gone).context("the server keeps closed connections")
}

/// Removes the clients that have been rejected, and counts them.
fn take_out_rejected(clients: &mut Vec<Client>) -> Result<usize> {
    let before = clients.len();
    for mut client in take(clients) {
        match client.try_read()? {
            Received::Nothing => clients.push(client),
            Received::Bytes(bytes) => {
                ensure!(bytes == b"Error: too many clients.", "received {}", shown(&bytes));
                client.expect_end()?;
            }
            received => bail!("received {received:?} before the error"),
        }
    }
    Ok(before - clients.len())
}

/// Where clients wait in the backlog, none is rejected, and they are served in the order in which they connected. A
/// server with a queue of its own rejects the clients for which its queue has no room.
fn too_many_clients_wait(ctx: &mut Ctx) -> Result<()> {
    let at_once = ctx.entry.at_once.context("the server has no fixed capacity")?;
    let mut inside = ctx.server.clients(at_once)?;
    inside.iter_mut().try_for_each(Client::ask_all)?;
    let waiting = ctx.entry.queue.unwrap_or(LIMIT + TOO_MANY - at_once);
    let mut waiting = ctx.server.clients(waiting)?;
    for number in 1..=ctx.entry.queue.map_or(0, |_| TOO_MANY) {
        let mut excess = ctx.client()?;
        excess.expect(b"Error: too many clients.").with_context(|| format!("client {number} beyond the queue"))?;
        excess.expect_end()?;
        ctx.server.logs("clients are connected (--workers, --queue)")?;
    }
    let (question, answer) = APHORISMS[0];
    waiting[0].send(question)?;
    waiting[0].expect_silence(GLANCE)?;
    for client in &mut waiting {
        let received = client.try_read()?;
        ensure!(received == Received::Nothing, "a client that waits received {received:?}");
    }
    inside.iter_mut().try_for_each(Client::ask_all).context("a client that was served before")?;

    drop(inside.pop());
    let start = Instant::now();
    waiting[0].expect(answer).context("after a client has left")?;
    let after = start.elapsed();
    ensure!(after <= SOON, "the next client was served only {after:?} after one had left");
    waiting.into_iter().try_for_each(|mut client| client.ask_all())
}

/// Two clients that ask and read without a pause do not starve an honest one. Where one client is served at a time, the
/// first one occupies the server for as long as it asks, which the protocol allows.
fn two_at_full_speed(ctx: &mut Ctx) -> Result<()> {
    let address = ctx.server.address();
    let (is_over, answers) = (AtomicBool::new(false), [AtomicUsize::new(0), AtomicUsize::new(0)]);
    thread::scope(|scope| {
        // The busy clients stop when this is dropped, also after an error.
        let _end = AtEnd(&is_over);
        let busy = answers.each_ref().map(|answers| scope.spawn(|| ask_at_full_speed(address, &is_over, answers)));
        let served = ctx.entry.at_once.map_or(2, |at_once| at_once.min(2));
        let are_busy = || answers.iter().filter(|answers| answers.load(Ordering::Relaxed) > 0).count() == served;
        wait_for(WAIT_LIMIT, || are_busy().then_some(())).context("the busy clients are not served")?;
        let before = answers.each_ref().map(|answers| answers.load(Ordering::Relaxed));

        let mut waiting = None;
        if ctx.entry.at_once == Some(1) {
            let mut honest = ctx.server.asking_client()?;
            honest.expect_silence(FOR_A_WHILE).context("while the first is served")?;
            waiting = Some(honest);
        } else {
            leave_an_honest_one_its_share(ctx)?;
        }
        let had = answers.each_ref().map(|answers| answers.load(Ordering::Relaxed)).into_iter().zip(before);
        let had: Vec<_> = had.map(|(now, before)| now - before).collect();
        ensure!(
            had.iter().filter(|&&answers| answers >= BUSY).count() == served,
            "expected {served} busy clients with at least {BUSY} answers each; they received {had:?}"
        );
        is_over.store(true, Ordering::Relaxed);
        for client in busy {
            client.join().map_err(|_| anyhow!("a busy client panicked"))?.context("a busy client")?;
        }
        waiting.map_or(Ok(()), |mut honest| honest.expect(APHORISMS[0].1).context("after both have left"))
    })
}

/// Expects that 99 % of an honest client's answers arrive within [`FAIR`], in at least one sample. A server that
/// starves clients does so in every sample; a machine that is busy with something else does not.
fn leave_an_honest_one_its_share(ctx: &Ctx) -> Result<()> {
    let mut seen = Vec::new();
    for _ in 0..LOOKS {
        let honest = ctx.honest()?;
        thread::sleep(FOR_A_WHILE);
        let slowest = honest.finish()?.percentile(99);
        seen.push(slowest);
        if slowest <= FAIR {
            note(format!(
                "{} with two busy clients: 99 % of an honest one's answers within {slowest:?}",
                ctx.entry.name
            ));
            return Ok(());
        }
    }
    bail!("the 99th percentile of an honest client's waits was above {FAIR:?} in each sample: {seen:?}")
}

/// Keeps the network full of questions, and reads all answers, until it `is_over`.
fn ask_at_full_speed(address: SocketAddr, is_over: &AtomicBool, answers: &AtomicUsize) -> Result<()> {
    let (question, answer) = APHORISMS[2];
    let mut client = Client::connect(address)?;
    client.set_timeout(GLANCE)?;
    let mut asking = Repeated::new(question);
    let mut read = 0;
    while !is_over.load(Ordering::Relaxed) {
        asking.push(&mut client)?;
        match client.read_some()? {
            Received::Bytes(bytes) => {
                ensure!(bytes[0] == answer[read % answer.len()], "received {} after {read} bytes", shown(&bytes));
                read += bytes.len();
                answers.store(read / answer.len(), Ordering::Relaxed);
            }
            // The client is not served yet, or the machine is busy. The number of answers is checked at the end.
            Received::Nothing => {}
            received => bail!("received {received:?} after {read} bytes"),
        }
    }
    Ok(())
}

/// Sets a flag when it is dropped.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Returns whether a new client gets an answer now.
fn is_served(ctx: &Ctx) -> Option<()> {
    let mut client = ctx.client().ok()?;
    let (question, answer) = APHORISMS[0];
    client.ask(question, answer).ok()
}

/// `--max-connections` in the arguments.
const LIMIT: usize = 32;

const TOO_MANY: usize = 50;

/// A permit can be used again within 100 ms; this is five times as much.
const SOON: Duration = Duration::from_millis(500);

/// Longer than a server waits for a permit before it rejects a client: 5 ms, or 50 ms with a process for each client.
const REJECTION_WAIT: Duration = Duration::from_millis(100);

/// The contract: the time in which other clients are answered although two are busy.
const FAIR: Duration = Duration::from_millis(50);

/// How many samples are taken.
const LOOKS: usize = 3;

/// The minimum number of answers that a busy client receives in [`FOR_A_WHILE`].
const BUSY: usize = 10_000;

const FOR_A_WHILE: Duration = Duration::from_secs(1);

const GLANCE: Duration = Duration::from_millis(300);
