//! hitless: the listener outlives the server, so that a restart loses no client.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::fixture::{every, on_each};
use super::holder::Holder;
use super::start;
use super::visits::{Behavior, SOME, Visits};
use crate::harness::activation;
use crate::harness::{WAIT_LIMIT, free_address, process, wait_for};
use crate::servers::{self, Entry};
use crate::trial::{Trial, note};

pub(crate) fn trials() -> Result<Vec<Trial>> {
    let mut trials = on_each("hitless::held", every, restarts_of_a_held_listener);
    trials.push(Trial::new("deploy::hitless::inetd_wait", restarts_under_inetd));
    Ok(trials.into_iter().map(Trial::alone).collect())
}

/// The server is stopped and started as by `systemctl restart` with a socket unit.
fn restarts_of_a_held_listener(entry: &'static Entry) -> Result<()> {
    let mut holder = Holder::start(entry)?;
    let behavior = if entry.queue.is_some() { FEWER } else { Behavior::MANY };
    let visits = Visits::start(holder.address(), behavior)?;
    for _ in 0..RESTARTS {
        visits.wait_for_answers(SOME)?;
        holder.restart()?;
    }
    visits.wait_for_answers(SOME)?;
    let counts = visits.finish()?;
    note(format!("{RESTARTS} restarts of {}, its listener held: {counts}", entry.name));
    // No client was refused, reset or disconnected, because new clients waited in the backlog. A server with a queue
    // accepts all of them at the same time, and rejects those for which its queue has no room.
    ensure!(counts.lost == 0 && (counts.retried == 0 || entry.queue.is_some()), "{counts}");
    Ok(())
}

/// inetd starts the next server when the last one has exited and a client waits.
fn restarts_under_inetd() -> Result<()> {
    let address = free_address()?;
    let entry = servers::named("poll")?;
    let inetd = start::inetd(entry, "wait", address)?;
    let servers = || process::children(inetd.id());
    let visits = Visits::start(address, Behavior::MANY)?;
    for _ in 0..RESTARTS {
        visits.wait_for_answers(SOME)?;
        let server = *servers().first().context("inetd has started no server")?;
        process::signal(server, Signal::TERM)?;
        wait_for(WAIT_LIMIT, || (!servers().contains(&server)).then_some(())).context("still there after SIGTERM")?;
    }
    visits.wait_for_answers(SOME)?;
    let counts = visits.finish()?;
    note(format!("{RESTARTS} restarts of poll under inetd: {counts}"));
    // inetd's backlog is 128 connections. If it is full, the kernel drops the packets of further clients, which send
    // them again later. A draining server closes such a client, since its question has not arrived. The client retries.
    ensure!(counts.lost == 0, "{counts}");
    activation::servers_exit(&inetd)
}

/// The load for a server with a queue. It is lower, so that the queue has room for most clients of a restart.
const FEWER: Behavior = Behavior { per_second: 200, timeout: WAIT_LIMIT };

/// How often a server is restarted.
const RESTARTS: usize = 10;
