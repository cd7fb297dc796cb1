//! hitless: the listener outlives the server, and nobody who comes while it is restarted notices.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::fixture::{every, kill, on_each};
use super::holder::Holder;
use super::start;
use super::visitors::{Behavior, SOME, Visitors};
use crate::harness::activation;
use crate::harness::{WAIT_LIMIT, free_address, process, wait_for};
use crate::servers::{Entry, SERVERS};
use crate::trial::{Trial, note};

pub(crate) fn trials() -> Result<Vec<Trial>> {
    let mut trials = on_each("hitless::held", every, restarts_of_a_held_listener);
    trials.push(Trial::new("deploy::hitless::inetd_wait", restarts_under_inetd));
    Ok(trials)
}

/// Stopped and started, as `systemctl restart` does it with a socket unit.
fn restarts_of_a_held_listener(entry: &'static Entry) -> Result<()> {
    let mut holder = Holder::start(entry)?;
    let visitors = Visitors::start(holder.address(), Behavior::MANY)?;
    for _ in 0..RESTARTS {
        visitors.have_answers(SOME)?;
        holder.restart()?;
    }
    visitors.have_answers(SOME)?;
    let counts = visitors.finish()?;
    note(format!("{RESTARTS} restarts of {}, its listener held: {counts}", entry.name));
    // Nobody was refused, reset or hung up on: whom nobody accepts yet waits in the kernel.
    ensure!(counts.lost == 0 && counts.retried == 0, "{counts}");
    Ok(())
}

/// inetd starts the next server when the last has gone and somebody waits.
fn restarts_under_inetd() -> Result<()> {
    let address = free_address()?;
    let entry = SERVERS.iter().find(|entry| entry.name == "poll").context("poll")?;
    let inetd = start::inetd(entry, "wait", address)?;
    let servers = || process::children(inetd.id());
    let visitors = Visitors::start(address, Behavior::MANY)?;
    for _ in 0..RESTARTS {
        visitors.have_answers(SOME)?;
        let server = *servers().first().context("inetd has started no server")?;
        kill(server, Signal::TERM)?;
        wait_for(WAIT_LIMIT, || (!servers().contains(&server)).then_some(())).context("still there after SIGTERM")?;
    }
    visitors.have_answers(SOME)?;
    let counts = visitors.finish()?;
    note(format!("{RESTARTS} restarts of poll under inetd: {counts}"));
    // Its queue is 128 long. When more wait, the kernel still connects them but drops what they say, until they say it
    // again; whoever seems to say nothing is hung up on by a server that drains.
    ensure!(counts.lost == 0, "{counts}");
    activation::servers_exit(&inetd)
}

/// How often a server is restarted.
const RESTARTS: usize = 10;
