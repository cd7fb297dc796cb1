//! Clients that are too many, and clients that are too busy.

use std::mem::take;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::Repeated;
use crate::harness::client::{APHORISMS, Came, Client};
use crate::harness::{WAIT_LIMIT, shown, wait_for};
use crate::matrix::{Case, Ctx, case};
use crate::trial::note;

pub(crate) const CASES: &[Case] = &[
    case("too_many_clients", too_many_clients)
        .arguments(&["--max-connections", "32"])
        .on(|entry| !entry.is_example && !entry.makes_wait())
        .alone(),
    case("too_many_clients", too_many_clients_wait)
        .arguments(&["--max-connections", "32"])
        .on(|entry| !entry.is_example && entry.makes_wait())
        .alone(),
    case("two_at_full_speed", two_at_full_speed).alone(),
];

/// Rule 7: each client too many is told, and let go, at once; a place that becomes free is there for the next.
fn too_many_clients(ctx: &mut Ctx) -> Result<()> {
    let before = ctx.server.usage().descriptors;
    let honest = ctx.honest()?;
    // The limit is that of a process, and which of several takes a client is decided by who wakes first.
    let processes = if ctx.entry.processes > 1 { ctx.entry.processes - 1 } else { 1 };
    let (least, most) = (LIMIT - 1, LIMIT * processes - 1);
    let mut inside = (0..most + TOO_MANY).map(|_| ctx.client()).collect::<Result<Vec<_>>>()?;
    let mut rejected_in_all = 0;
    // Before each rejection the server looks for a few milliseconds whether a place is free already.
    let looked = wait_for(WAIT_LIMIT, || match take_out_rejected(&mut inside) {
        Ok(rejected) => {
            rejected_in_all += rejected;
            (inside.len() <= most).then_some(Ok(()))
        }
        Err(error) => Some(Err(error)),
    });
    looked.unwrap_or(Ok(()))?;
    // One process may have to look a last time when all the others have no place left.
    thread::sleep(LOOKED);
    rejected_in_all += take_out_rejected(&mut inside)?;
    let counts = format!("{} idle clients and an honest one are in, {rejected_in_all} were turned away", inside.len());
    ensure!((least..=most).contains(&inside.len()) && rejected_in_all >= TOO_MANY, "{counts}");
    inside.iter_mut().try_for_each(Client::ask_all).context("a client that was in before")?;

    drop(inside.pop());
    let start = Instant::now();
    wait_for(WAIT_LIMIT, || is_served(ctx)).context("a place is free, but not usable")?;
    let after = start.elapsed();
    ensure!(after <= SOON, "a free place was usable only after {after:?}");
    honest.finish()?;
    drop(inside);
    // Whoever comes before it has seen that they have gone is turned away.
    let are_gone = || (ctx.server.usage().descriptors <= before).then_some(());
    wait_for(WAIT_LIMIT, are_gone).context("the server keeps those who have gone")
}

/// Takes those out who have been rejected, and counts them.
fn take_out_rejected(clients: &mut Vec<Client>) -> Result<usize> {
    let before = clients.len();
    for mut client in take(clients) {
        match client.look()? {
            Came::Nothing => clients.push(client),
            Came::Bytes(bytes) => {
                ensure!(bytes == b"Error: too many clients.", "{} came", shown(&bytes));
                client.expect_end()?;
            }
            came => bail!("{came:?} came without a word"),
        }
    }
    Ok(before - clients.len())
}

/// Where clients wait for a place nobody is turned away: they wait without a word, and have their turn in the order in
/// which they came. Only where they wait in a queue of the server's own, those beyond it are rejected.
fn too_many_clients_wait(ctx: &mut Ctx) -> Result<()> {
    let at_once = ctx.entry.at_once.context("it serves a number of clients")?;
    let mut inside = (0..at_once).map(|_| ctx.client()).collect::<Result<Vec<_>>>()?;
    inside.iter_mut().try_for_each(Client::ask_all)?;
    let waiting = ctx.entry.queue.unwrap_or(LIMIT + TOO_MANY - at_once);
    let mut waiting = (0..waiting).map(|_| ctx.client()).collect::<Result<Vec<_>>>()?;
    for number in 1..=ctx.entry.queue.map_or(0, |_| TOO_MANY) {
        let mut excess = ctx.client()?;
        excess.expect(b"Error: too many clients.").with_context(|| format!("client {number} beyond the queue"))?;
        excess.expect_end()?;
    }
    let (question, answer) = APHORISMS[0];
    waiting[0].send(question)?;
    waiting[0].expect_silence(GLANCE)?;
    for client in &mut waiting {
        let came = client.look()?;
        ensure!(came == Came::Nothing, "{came:?} came at a client that waits");
    }
    inside.iter_mut().try_for_each(Client::ask_all).context("a client that was in before")?;

    drop(inside.pop());
    let start = Instant::now();
    waiting[0].expect(answer).context("a place is free")?;
    let after = start.elapsed();
    ensure!(after <= SOON, "a free place was usable only after {after:?}");
    waiting.into_iter().try_for_each(|mut client| client.ask_all())
}

/// Two clients who always have questions under way and always read leave an honest one its share. Where there is one
/// place, the first of them keeps it: it asks, and that is what a client may do.
fn two_at_full_speed(ctx: &mut Ctx) -> Result<()> {
    let address = ctx.server.address();
    let (is_over, answers) = (AtomicBool::new(false), [AtomicUsize::new(0), AtomicUsize::new(0)]);
    thread::scope(|scope| {
        // However this ends, they are to end.
        let _end = AtEnd(&is_over);
        let busy = answers.each_ref().map(|answers| scope.spawn(|| ask_at_full_speed(address, &is_over, answers)));
        let places = ctx.entry.at_once.map_or(2, |at_once| at_once.min(2));
        let are_busy = || answers.iter().filter(|answers| answers.load(Ordering::Relaxed) > 0).count() == places;
        wait_for(WAIT_LIMIT, || are_busy().then_some(())).context("the busy clients are not served")?;
        let before = answers.each_ref().map(|answers| answers.load(Ordering::Relaxed));

        let mut waiting = None;
        if ctx.entry.at_once == Some(1) {
            let mut honest = ctx.client()?;
            honest.send(APHORISMS[0].0)?;
            honest.expect_silence(FOR_A_WHILE).context("while the first has the place")?;
            waiting = Some(honest);
        } else {
            leave_an_honest_one_its_share(ctx)?;
        }
        let had = answers.each_ref().map(|answers| answers.load(Ordering::Relaxed)).into_iter().zip(before);
        let had: Vec<_> = had.map(|(now, before)| now - before).collect();
        ensure!(
            had.iter().filter(|&&answers| answers >= BUSY).count() == places,
            "the busy clients had {had:?} answers"
        );
        is_over.store(true, Ordering::Relaxed);
        for client in busy {
            client.join().map_err(|_| anyhow!("a busy client panicked"))?.context("a busy client")?;
        }
        waiting.map_or(Ok(()), |mut honest| honest.expect(APHORISMS[0].1).context("when both have gone"))
    })
}

/// One answer in a hundred may take longer. A server that starves clients does so at each look; a machine that is busy
/// with something else does not.
fn leave_an_honest_one_its_share(ctx: &Ctx) -> Result<()> {
    let mut seen = Vec::new();
    for _ in 0..LOOKS {
        let honest = ctx.honest()?;
        thread::sleep(FOR_A_WHILE);
        let slowest = honest.finish()?.percentile(99);
        seen.push(slowest);
        if slowest <= FAIR {
            note(format!("{} beside two busy clients: 99 % of the answers within {slowest:?}", ctx.entry.name));
            return Ok(());
        }
    }
    bail!("one in a hundred answers took, at each look, {seen:?} and more")
}

/// Keeps the network full of questions, and reads whatever answers come, until it `is_over`.
fn ask_at_full_speed(address: SocketAddr, is_over: &AtomicBool, answers: &AtomicUsize) -> Result<()> {
    let (question, answer) = APHORISMS[2];
    let mut client = Client::connect(address)?;
    client.set_timeout(GLANCE)?;
    let mut asking = Repeated::new(question);
    let mut read = 0;
    while !is_over.load(Ordering::Relaxed) {
        asking.push(&mut client)?;
        match client.read_some()? {
            Came::Bytes(bytes) => {
                ensure!(bytes[0] == answer[read % answer.len()], "{} came after {read} bytes", shown(&bytes));
                read += bytes.len();
                answers.store(read / answer.len(), Ordering::Relaxed);
            }
            // Nobody has a place for it yet, or the machine is busy: how many answers came is judged in the end.
            Came::Nothing => {}
            came => bail!("{came:?} came after {read} bytes"),
        }
    }
    Ok(())
}

struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether a new client gets an answer now.
fn is_served(ctx: &Ctx) -> Option<()> {
    let mut client = ctx.client().ok()?;
    let (question, answer) = APHORISMS[0];
    client.ask(question, answer).ok()
}

/// What the arguments say.
const LIMIT: usize = 32;

const TOO_MANY: usize = 50;

/// A place is free within 100 ms; this is five times as much.
const SOON: Duration = Duration::from_millis(500);

/// Twenty times as long as a server looks for a free place.
const LOOKED: Duration = Duration::from_millis(100);

/// What busy clients leave to others: contract.
const FAIR: Duration = Duration::from_millis(50);

/// How often it is looked whether that is kept.
const LOOKS: usize = 3;

/// Fewer answers in that time are no full speed.
const BUSY: usize = 10_000;

const FOR_A_WHILE: Duration = Duration::from_secs(1);

const GLANCE: Duration = Duration::from_millis(300);
