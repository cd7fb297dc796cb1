//! A process for each client: what may happen to one of them, and what the process that starts them does then.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::super::faults::served_clients;
use super::super::lifecycle::inherited::{IGNORING_SIGCHLD, while_blocked};
use super::super::{case, ending};
use super::{Case, Ctx, bare, ended, linked, replace, the_parent_is_killed};
use crate::harness::client::{APHORISMS, Client};
use crate::harness::folder::Folder;
use crate::harness::metrics::scrape;
use crate::harness::{self, Server, WAIT_LIMIT, process, wait_for};
use crate::servers::Entry;

pub(crate) const CASES: &[Case] = &[
    of_children(case("one_for_each_client", one_for_each_client)),
    of_children(case("a_child_dies", a_child_dies)).arguments(&[
        "--metrics",
        "0",
        "--abort-on",
        ABORTS,
        "--panic-outside",
        PANICS,
    ]),
    of_children(bare("the_parent_is_killed", |entry, _| ended(entry, &[], &[], the_parent_is_killed))).alone(),
    of_children(ending("a_stopped_child_is_not_waited_for", a_stopped_child_is_not_waited_for))
        .arguments(&["--grace", "300ms"]),
    of_children(bare("blocked_sigchld", |entry, arguments| {
        while_blocked(|| ended(entry, &[], arguments, permits_are_freed))
    }))
    .arguments(ONE),
    of_children(ending("ignored_sigchld", permits_are_freed)).under(&["env", IGNORING_SIGCHLD]).arguments(ONE),
    of_children(bare("sighup_while_children_start", sighup_while_children_start)),
    of_children(bare("the_binary_is_replaced", the_binary_is_replaced)),
    of_children(bare("without_proc", without_proc)),
];

const fn of_children(case: Case) -> Case {
    case.on(|entry| entry.forks)
}

/// As many children as clients, each under the program's name and with a command line of its own.
fn one_for_each_client(ctx: &mut Ctx) -> Result<()> {
    let clients = served_clients(ctx, 3)?;
    let children = process::children(ctx.server.pid());
    ensure!(children.len() == clients.len(), "{} clients have {} processes", clients.len(), children.len());
    for child in children {
        let name = fs::read_to_string(format!("/proc/{child}/comm"))?;
        ensure!(name.trim_end() == ctx.entry.package, "a child is called {name:?}");
        let line = fs::read_to_string(format!("/proc/{child}/cmdline"))?.replace('\0', " ");
        ensure!(
            line.contains(" --worker --inetd nowait ") && !line.contains(" -p "),
            "the command line of a child is {line:?}"
        );
    }
    drop(clients);
    let gone = wait_for(WAIT_LIMIT, || process::children(ctx.server.pid()).is_empty().then_some(()));
    gone.context("the clients have left, but their processes have not exited")
}

/// When a child dies, only its own client is lost. The log and the metrics show it.
fn a_child_dies(ctx: &mut Ctx) -> Result<()> {
    let mut bystander = served_clients(ctx, 1)?;
    let before = process::children(ctx.server.pid());
    let causes = [("signal 9", ""), ("signal 6", ABORTS), ("status 1", PANICS)];
    for (number, (cause, question)) in (1..).zip(causes) {
        let mut client = served_clients(ctx, 1)?.pop().context("a client")?;
        let new = process::children(ctx.server.pid()).into_iter().find(|child| !before.contains(child));
        let child = new.context("the client has no process")?;
        if question.is_empty() {
            process::signal(child, Signal::KILL)?;
        } else {
            client.send(question.as_bytes())?;
        }
        client.expect_end().with_context(|| format!("its process dies by {cause}"))?;
        let line = format!("process {child} died by {cause}: its client is lost");
        ctx.server.logs(&line)?;
        bystander.iter_mut().try_for_each(Client::ask_all).context("the bystander")?;
        let metrics = scrape(&ctx.server)?;
        let [lost, died] =
            ["zen_connections_closed_total{reason=\"lost\"}", "zen_worker_exits_total"].map(|name| metrics[name]);
        ensure!(
            lost == f64::from(number) && died == lost,
            "{number} children died, but the metrics count {died}, and {lost} lost clients"
        );
        ensure!(metrics["zen_connections_active"] == 1.0, "the permit of the lost client is not free: {metrics:?}");
    }
    Ok(())
}

/// The parent waits for the grace and one second more; then it kills the child that is left.
fn a_stopped_child_is_not_waited_for(ctx: &mut Ctx) -> Result<()> {
    let _client = served_clients(ctx, 1)?;
    process::stop(*process::children(ctx.server.pid()).first().context("a child")?)?;
    let start = Instant::now();
    ctx.server.signal(Signal::TERM)?;
    let status = ctx.server.ended_within(WAIT_LIMIT).context("it waits for a stopped child")?;
    let took = start.elapsed();
    ensure!(status.success() && (GRACE..5 * GRACE).contains(&took), "it ended with {status} after {took:?}");
    let log = ctx.server.whole_log();
    for line in ["--grace is over: 1 clients are reset", "1 processes have not ended, and are killed"] {
        let count = log.lines().filter(|entry| entry.ends_with(line)).count();
        ensure!(count == 1, "the log should have this line once, but has it {count} times: {line}");
    }
    Ok(())
}

/// The parent notices the exit of a child, while serving and while draining.
fn permits_are_freed(ctx: &mut Ctx) -> Result<()> {
    for _ in 0..3 {
        ctx.server.served_client()?.leave()?;
        let gone = wait_for(WAIT_LIMIT, || process::children(ctx.server.pid()).is_empty().then_some(()));
        gone.context("the client has left, but its process has not exited or is not reaped")?;
    }
    let _last = ctx.server.served_client()?;
    ctx.server.stop(WAIT_LIMIT)
}

/// SIGHUP does not kill a child that is starting and has no handler for it yet.
fn sighup_while_children_start(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let folder = Folder::new()?;
    let path = folder.path().join("log");
    ended(entry, &[], &["--log-file", &path.to_string_lossy()], |ctx| {
        for _ in 0..CLIENTS {
            let mut client = ctx.server.asking_client()?;
            (0..20).try_for_each(|_| ctx.server.signal(Signal::HUP))?;
            client.expect(APHORISMS[0].1)?;
        }
        ctx.server.stop(WAIT_LIMIT)?;
        let log = fs::read_to_string(&path)?;
        ensure!(!log.contains("died by"), "a child died: {log}");
        Ok(())
    })
}

/// A child executes the program that runs, even if the file was replaced.
fn the_binary_is_replaced(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let (folder, running) = linked(entry, entry.package)?;
    let mut server = Server::run(Command::new(&running).args(entry.arguments).args(["-p", "0"]))?;
    replace(&folder, &running)?;
    server.client()?.ask_all()?;
    server.stop(WAIT_LIMIT)
}

/// A child is started from /proc. Where there is none each client is rejected, and the log says what to do.
fn without_proc(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    ended(entry, &harness::without_proc()?, &[], |ctx| {
        ctx.client()?.expect(b"Error: too many clients.")?;
        let line = "no process can be started for it (No such file or directory (os error 2)); \
                    it is started from /proc/self/exe: mount /proc\n";
        ctx.server.logs(line)?;
        ctx.server.stop(WAIT_LIMIT)
    })
}

const ABORTS: &str = "Who aborts?";
const PANICS: &str = "Who panics?";

/// Arguments for one permit, so that the next client is served only when it is free again.
const ONE: &[&str] = &["--max-connections", "1"];

/// The minimum duration of the shutdown: `--grace 300ms`, and the parent's margin of 1 s.
const GRACE: Duration = Duration::from_millis(1300);

const CLIENTS: usize = 50;
