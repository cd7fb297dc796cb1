//! Failures of one worker while the others serve.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::super::faults::served_clients;
use super::{Case, Ctx, REPLACED, bare, linked, replace, served, serves_supervised, supervised, supervising};
use crate::harness::client::{APHORISMS, Client};
use crate::harness::{Server, WAIT_LIMIT, process};
use crate::servers::Entry;

pub(crate) const CASES: &[Case] = &[
    supervising("a_worker_is_killed", |entry, _| serves_supervised(entry, &[], true, a_worker_is_killed)).alone(),
    supervising("a_worker_is_told_to_stop", |entry, _| serves_supervised(entry, &[], false, a_worker_is_told_to_stop)),
    supervising("a_worker_is_told_to_stop_under_load", |entry, _| {
        serves_supervised(entry, &[], false, a_worker_told_to_stop_accepts_no_more)
    }),
    supervising("a_worker_aborts", |entry, _| serves_supervised(entry, &["--abort-on", FATAL], false, a_worker_fails)),
    supervising("a_worker_panics", |entry, _| {
        serves_supervised(entry, &["--panic-outside", FATAL], false, a_worker_fails)
    }),
    supervising("a_worker_panics_under_load", |entry, _| {
        serves_supervised(entry, &["--panic-outside", FATAL], false, a_failed_worker_accepts_no_more)
    }),
    supervising("a_worker_is_stopped", |entry, _| serves_supervised(entry, &[], false, a_worker_is_stopped)),
    bare("one_process_is_one_worker", one_process_is_one_worker)
        .on(|entry| !entry.is_example && !entry.forks && entry.processes == 1),
    supervising("the_binary_is_replaced", the_binary_is_replaced),
    supervising("workers_have_the_programs_name", workers_have_the_programs_name),
];

/// The clients of a killed worker are lost, and no others; soon there are as many workers as before.
fn a_worker_is_killed(ctx: &mut Ctx) -> Result<()> {
    let before = ctx.server.workers();
    let mut clients = served_clients(ctx, before.len())?;
    process::signal(before[0], Signal::KILL)?;
    ctx.server.replaces_first(&before, REPLACED)?;
    // Where each worker has one client, one client is lost; elsewhere the killed worker may have had all of them or
    // none.
    let lost = clients.iter_mut().map(Client::ask_all).filter(Result::is_err).count();
    ensure!(lost == 1 || ctx.entry.name != "processes", "{lost} of {} clients were lost", clients.len());
    drop(clients);
    ctx.client()?.ask_all()
}

/// A worker that gets SIGTERM drains like any server, and is replaced.
fn a_worker_is_told_to_stop(ctx: &mut Ctx) -> Result<()> {
    let before = ctx.server.workers();
    let mut clients = served_clients(ctx, before.len())?;
    clients.iter_mut().try_for_each(|client| client.send(APHORISMS[0].0))?;
    process::signal(before[0], Signal::TERM)?;
    clients.iter_mut().try_for_each(|client| client.expect(APHORISMS[0].1)).context("a client that had asked")?;
    drop(clients);
    ctx.server.replaces_first(&before, WAIT_LIMIT)?;
    ctx.client()?.ask_all()
}

/// A worker that aborts, or panics where no conversation catches it, is replaced.
fn a_worker_fails(ctx: &mut Ctx) -> Result<()> {
    let before = ctx.server.workers();
    let mut client = ctx.client()?;
    client.send(FATAL.as_bytes())?;
    let has_new = |workers: &[i32]| workers.len() == before.len() && workers.iter().any(|pid| !before.contains(pid));
    ctx.server.workers_are(WAIT_LIMIT, has_new)?;
    ctx.client()?.ask_all()
}

/// A failed worker leaves new clients to the other workers, even those that ask only a moment after connecting.
fn a_failed_worker_accepts_no_more(ctx: &mut Ctx) -> Result<()> {
    let mut client = ctx.client()?;
    client.send(FATAL.as_bytes())?;
    ctx.server.logs("panicked at")?;
    new_clients_are_answered(ctx).context("after the panic")
}

/// A worker that gets SIGTERM from another process than its parent leaves new clients to the other workers.
fn a_worker_told_to_stop_accepts_no_more(ctx: &mut Ctx) -> Result<()> {
    process::signal(ctx.server.workers()[0], Signal::TERM)?;
    ctx.server.logs("draining: ")?;
    new_clients_are_answered(ctx)
}

/// Connects clients one after another that ask a moment after connecting, and expects an answer for each.
fn new_clients_are_answered(ctx: &Ctx) -> Result<()> {
    for number in 1..=CLIENTS {
        let mut client = ctx.client()?;
        sleep(MOMENT);
        // One question: a thread that slept in accept() may accept a client as the drain begins, and answers it.
        client.ask(APHORISMS[0].0, APHORISMS[0].1).with_context(|| format!("client {number}"))?;
    }
    Ok(())
}

/// A stopped worker holds back no client: new ones are served by the other workers.
fn a_worker_is_stopped(ctx: &mut Ctx) -> Result<()> {
    let workers = ctx.server.workers();
    for &stopped in &workers {
        process::stop(stopped)?;
        for n in 1..=2 * workers.len() {
            ctx.client()?.ask_all().with_context(|| format!("client {n} while worker {stopped} is stopped"))?;
        }
        process::signal(stopped, Signal::CONT)?;
    }
    Ok(())
}

fn one_process_is_one_worker(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    served(entry, &[], &["--processes", "1"], false, |ctx| {
        let workers = ctx.server.workers();
        ensure!(workers.len() == 1 && workers[0] != ctx.server.pid(), "the workers are {workers:?}");
        process::signal(workers[0], Signal::KILL)?;
        // Until the killed worker has exited, it may still accept a client.
        ctx.server.workers_are(WAIT_LIMIT, |now| !now.contains(&workers[0]))?;
        ctx.client()?.ask_all().context("once it is replaced")
    })
}

/// A new worker runs the program that the parent runs, even if the file was replaced.
fn the_binary_is_replaced(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let (folder, running) = linked(entry, entry.package)?;
    let mut ctx = Ctx {
        entry,
        server: Server::run(Command::new(&running).args(entry.arguments).args(supervised(entry, &["-p", "0"])))?,
    };
    replace(&folder, &running)?;
    let before = ctx.server.workers();
    before.iter().try_for_each(|&worker| process::signal(worker, Signal::KILL))?;
    let are_new = |workers: &[i32]| workers.len() == before.len() && !workers.iter().any(|pid| before.contains(pid));
    ctx.server.workers_are(WAIT_LIMIT, are_new).with_context(|| ctx.server.log())?;
    ctx.client()?.ask_all()?;
    ctx.server.stop(WAIT_LIMIT)
}

/// `ps`, `top` and `pgrep` show the workers under the parent's name, which the kernel cuts after 15 bytes.
fn workers_have_the_programs_name(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    for (name, kept) in [(entry.package, entry.package), ("a program with a long name", "a program with ")] {
        let (_folder, running) = linked(entry, name)?;
        let arguments = supervised(entry, &["-p", "0"]);
        let mut server = Server::run(Command::new(&running).args(entry.arguments).args(arguments))?;
        let names = server.processes().into_iter().map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")));
        let names = names.collect::<Result<Vec<_>, _>>()?;
        ensure!(names.iter().all(|name| *name == format!("{kept}\n")), "they are called {names:?}");
        server.stop(WAIT_LIMIT)?;
    }
    Ok(())
}

/// The question that ends a worker.
const FATAL: &str = "Who fails?";

/// The number of clients, and the time that each waits before it asks. The total is longer than a tick, so that some
/// client would meet a worker that accepts while it drains.
const CLIENTS: usize = 30;
const MOMENT: Duration = Duration::from_millis(20);
