//! What may happen to one worker, while the others serve.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::super::faults::served_clients;
use super::{Case, Ctx, REPLACED, bare, send, served, serves_supervised, supervised, workers_are};
use crate::harness::client::{APHORISMS, Client};
use crate::harness::folder::Folder;
use crate::harness::{Server, WAIT_LIMIT, process, wait_for};
use crate::servers::Entry;
use crate::workspace;

pub(crate) const CASES: &[Case] = &[
    bare("a_worker_is_killed", |entry, _| serves_supervised(entry, &[], true, a_worker_is_killed)).alone(),
    bare("a_worker_is_told_to_stop", |entry, _| serves_supervised(entry, &[], false, a_worker_is_told_to_stop)),
    bare("a_worker_is_told_to_stop_under_load", |entry, _| {
        serves_supervised(entry, &[], false, a_worker_told_to_stop_accepts_no_more)
    }),
    bare("a_worker_aborts", |entry, _| serves_supervised(entry, &["--abort-on", FATAL], false, a_worker_fails)),
    bare("a_worker_panics", |entry, _| serves_supervised(entry, &["--panic-outside", FATAL], false, a_worker_fails)),
    bare("a_worker_panics_under_load", |entry, _| {
        serves_supervised(entry, &["--panic-outside", FATAL], false, a_failed_worker_accepts_nobody)
    }),
    bare("a_worker_is_stopped", |entry, _| serves_supervised(entry, &[], false, a_worker_is_stopped)),
    bare("one_process_is_one_worker", one_process_is_one_worker).on(|entry| !entry.is_example && entry.processes == 1),
    bare("the_binary_is_replaced", the_binary_is_replaced),
    bare("workers_have_the_programs_name", workers_have_the_programs_name),
];

/// Its clients are lost, and nobody else; in a moment there are as many workers as before.
fn a_worker_is_killed(ctx: &mut Ctx) -> Result<()> {
    let before = ctx.server.workers();
    let mut clients = served_clients(ctx, before.len())?;
    send(Signal::KILL, before[0])?;
    let is_replaced = |workers: &[i32]| workers.len() == before.len() && !workers.contains(&before[0]);
    workers_are(ctx, REPLACED, is_replaced)?;
    // Where each worker has one client it is one; elsewhere they may all have been at that worker, or none.
    let lost = clients.iter_mut().map(Client::ask_all).filter(Result::is_err).count();
    ensure!(lost == 1 || ctx.entry.name != "processes", "{lost} of {} clients were lost", clients.len());
    drop(clients);
    ctx.client()?.ask_all()
}

/// It drains like any server, and is replaced.
fn a_worker_is_told_to_stop(ctx: &mut Ctx) -> Result<()> {
    let before = ctx.server.workers();
    let mut clients = served_clients(ctx, before.len())?;
    clients.iter_mut().try_for_each(|client| client.send(APHORISMS[0].0))?;
    send(Signal::TERM, before[0])?;
    clients.iter_mut().try_for_each(|client| client.expect(APHORISMS[0].1)).context("who had asked")?;
    drop(clients);
    let is_replaced = |workers: &[i32]| workers.len() == before.len() && !workers.contains(&before[0]);
    workers_are(ctx, WAIT_LIMIT, is_replaced)?;
    ctx.client()?.ask_all()
}

/// One that aborts, or panics where no conversation catches it, is replaced.
fn a_worker_fails(ctx: &mut Ctx) -> Result<()> {
    let before = ctx.server.workers();
    let mut client = ctx.client()?;
    client.send(FATAL.as_bytes())?;
    let has_new = |workers: &[i32]| workers.len() == before.len() && workers.iter().any(|pid| !before.contains(pid));
    workers_are(ctx, WAIT_LIMIT, has_new)?;
    ctx.client()?.ask_all()
}

/// It leaves new clients to the other workers, also those that ask only a moment after they connected.
fn a_failed_worker_accepts_nobody(ctx: &mut Ctx) -> Result<()> {
    let mut client = ctx.client()?;
    client.send(FATAL.as_bytes())?;
    let panicked = ctx.server.wait_for_log(WAIT_LIMIT, |log| log.contains("panicked at").then_some(()));
    panicked.context("no panic is logged")?;
    new_clients_are_answered(ctx).context("after the panic")
}

/// The same of one that somebody stops, but not its parent.
fn a_worker_told_to_stop_accepts_no_more(ctx: &mut Ctx) -> Result<()> {
    send(Signal::TERM, ctx.server.workers()[0])?;
    let drains = ctx.server.wait_for_log(WAIT_LIMIT, |log| log.contains("draining: ").then_some(()));
    drains.context("it does not say that it drains")?;
    new_clients_are_answered(ctx)
}

/// They come one after another, and ask a moment after they have connected.
fn new_clients_are_answered(ctx: &Ctx) -> Result<()> {
    for number in 1..=CLIENTS {
        let mut client = ctx.client()?;
        sleep(MOMENT);
        // One question: a thread that was asleep in accept() may take a client as the drain begins, and answers it.
        client.ask(APHORISMS[0].0, APHORISMS[0].1).with_context(|| format!("client {number}"))?;
    }
    Ok(())
}

/// It holds nobody's place in the queue: whoever comes is served by the others.
fn a_worker_is_stopped(ctx: &mut Ctx) -> Result<()> {
    let workers = ctx.server.workers();
    for &stopped in &workers {
        send(Signal::STOP, stopped)?;
        // Until then it may still take a client.
        wait_for(WAIT_LIMIT, || process::is_stopped(stopped).then_some(())).context("it does not stop")?;
        for n in 1..=2 * workers.len() {
            ctx.client()?.ask_all().with_context(|| format!("client {n} while worker {stopped} is stopped"))?;
        }
        send(Signal::CONT, stopped)?;
    }
    Ok(())
}

fn one_process_is_one_worker(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    served(entry, &[], &["--processes", "1"], false, |ctx| {
        let workers = ctx.server.workers();
        ensure!(workers.len() == 1 && workers[0] != ctx.server.pid(), "the workers are {workers:?}");
        send(Signal::KILL, workers[0])?;
        // Until it is gone it may still take a client.
        workers_are(ctx, WAIT_LIMIT, |now| !now.contains(&workers[0]))?;
        ctx.client()?.ask_all().context("once it is replaced")
    })
}

/// A worker is the program that runs, not what lies on the disk by now.
fn the_binary_is_replaced(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let binary = workspace::binary(entry.binary)?;
    // On the same file system, or there is no hard link.
    let folder = Folder::within(binary.parent().context("a folder")?)?;
    let running = folder.path().join(entry.package);
    fs::hard_link(&binary, &running)?;
    let mut ctx = Ctx {
        entry,
        server: Server::run(Command::new(&running).args(entry.arguments).args(supervised(entry, &["-p", "0"])))?,
    };
    // Nothing can be made of it.
    fs::write(folder.path().join("new"), "no program")?;
    fs::rename(folder.path().join("new"), &running)?;
    let before = ctx.server.workers();
    before.iter().try_for_each(|&worker| send(Signal::KILL, worker))?;
    let are_new = |workers: &[i32]| workers.len() == before.len() && !workers.iter().any(|pid| before.contains(pid));
    workers_are(&ctx, WAIT_LIMIT, are_new).with_context(|| ctx.server.log())?;
    ctx.client()?.ask_all()?;
    ctx.server.stop(WAIT_LIMIT)
}

/// `ps`, `top` and `pgrep` find the workers where they find the parent, under as much of the name as the kernel keeps.
fn workers_have_the_programs_name(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let binary = workspace::binary(entry.binary)?;
    // On the same file system, or there is no hard link.
    let folder = Folder::within(binary.parent().context("a folder")?)?;
    for (name, kept) in [(entry.package, entry.package), ("a program with a long name", "a program with ")] {
        let running = folder.path().join(name);
        fs::hard_link(&binary, &running)?;
        let arguments = supervised(entry, &["-p", "0"]);
        let mut server = Server::run(Command::new(&running).args(entry.arguments).args(arguments))?;
        let names = server.processes().into_iter().map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")));
        let names = names.collect::<Result<Vec<_>, _>>()?;
        ensure!(names.iter().all(|name| *name == format!("{kept}\n")), "they are called {names:?}");
        server.stop(WAIT_LIMIT)?;
    }
    Ok(())
}

/// The question that a worker does not survive.
const FATAL: &str = "Who fails?";

/// Clients one after another, and how long each is silent before it asks: together longer than a tick, so that a worker
/// that accepts while it drains would be found.
const CLIENTS: usize = 30;
const MOMENT: Duration = Duration::from_millis(20);
