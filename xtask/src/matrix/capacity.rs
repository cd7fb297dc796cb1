//! How many clients are served at the same time, and what happens to the next one.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Signal, getuid};

use super::faults::acceptors;
use super::{Case, Ctx, bare, case};
use crate::harness::client::APHORISMS;
use crate::harness::network::in_own_network;
use crate::harness::{Client, Missing, Server, WAIT_LIMIT};
use crate::servers::Entry;

pub(crate) const CASES: &[Case] = &[
    case("the_next_client_waits", the_next_client_waits).on(|entry| !entry.is_example && entry.makes_clients_wait()),
    case("idle_clients_exclude_no_other", idle_clients_exclude_no_other)
        .on(|entry| !entry.is_example && !entry.makes_clients_wait()),
    case("a_freed_permit_is_seen", a_freed_permit_is_seen)
        .arguments(&["--max-connections", "10"])
        .on(|entry| !entry.is_example && !entry.makes_clients_wait()),
    case("a_burst_over_the_limit", a_burst_over_the_limit)
        .arguments(&["--max-connections", "60"])
        .on(|entry| !entry.is_example && !entry.makes_clients_wait() && entry.processes == 1),
    case("processes", processes),
    bare("the_backlog_is_cut", the_backlog_is_cut),
    bare("the_backlog_is_cut_elsewhere", the_backlog_is_cut_elsewhere).on(Entry::is_first_of_package),
    bare("the_backlog_is_not_known", the_backlog_is_not_known).on(Entry::is_first_of_package),
];

/// Idle clients occupy the server; the next client is answered when one of them leaves, and not before.
fn the_next_client_waits(ctx: &mut Ctx) -> Result<()> {
    let mut idle = ctx.server.served_clients(ctx.entry.at_once.context("the server has no fixed capacity")?)?;
    let (question, answer) = APHORISMS[0];
    let mut next = ctx.server.asking_client()?;
    next.expect_silence(Duration::from_millis(300)).context("a client beyond the server's capacity")?;
    // Clients that are being served still are.
    idle.iter_mut().try_for_each(|client| client.ask(question, answer)).context("a client that was served before")?;
    drop(idle.pop());
    next.expect(answer).context("after a client has left")?;
    next.ask_all()
}

/// 64 idle clients are connected, and another one is served.
fn idle_clients_exclude_no_other(ctx: &mut Ctx) -> Result<()> {
    let mut idle = ctx.server.served_clients(64)?;
    ctx.client()?.ask_all().context("one more client")?;
    idle.iter_mut().try_for_each(Client::ask_all).context("a client that was idle")
}

/// All permits are taken, all clients leave, and a client that connects right after them is served: the server notices
/// the closed connections before it would reject the client.
fn a_freed_permit_is_seen(ctx: &mut Ctx) -> Result<()> {
    let processes = acceptors(ctx.entry, &ctx.server).len();
    for round in 1..=ROUNDS {
        let mut inside = Vec::new();
        // Which process accepts a client is left to chance, so one may reject clients while another has permits left.
        for _ in 0..4 * PERMITS * processes {
            let mut client = ctx.client()?;
            if client.ask_all().is_ok() {
                inside.push(client);
            }
            if inside.len() == PERMITS * processes {
                break;
            }
        }
        ensure!(inside.len() == PERMITS * processes, "round {round}: only {} clients are served", inside.len());
        let mut excess = ctx.client()?;
        excess.expect(b"Error: too many clients.").with_context(|| format!("round {round}: one too many"))?;
        excess.expect_end()?;
        drop(inside);
        ctx.client()?.ask_all().with_context(|| format!("round {round}: after all clients have left"))?;
    }
    Ok(())
}

/// 64 clients connect while the server is stopped (SIGSTOP), four more than the limit. All of them are in the backlog
/// when it continues, and the four are rejected although no later client wakes the server up.
fn a_burst_over_the_limit(ctx: &mut Ctx) -> Result<()> {
    ctx.server.stop_all()?;
    let clients = ctx.server.clients(64);
    ctx.server.signal_all(Signal::CONT)?;
    let mut clients = clients?;
    for (number, excess) in clients.iter_mut().enumerate().skip(60) {
        excess.expect(b"Error: too many clients.").with_context(|| format!("client {}", number + 1))?;
        excess.expect_end()?;
    }
    clients[..60].iter_mut().try_for_each(Client::ask_all).context("a client within the limit")
}

/// A server runs as many processes as its architecture says.
fn processes(ctx: &mut Ctx) -> Result<()> {
    let Entry { name, processes, .. } = ctx.entry;
    let found = ctx.server.processes().len();
    ensure!(found == *processes, "{name} runs {found} processes, not {processes}");
    Ok(())
}

/// The log states the effective backlog, and a warning says when it is not the one that was asked for.
fn the_backlog_is_cut(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let most: u32 = fs::read_to_string(SOMAXCONN).context(SOMAXCONN)?.trim().parse()?;
    let (all, more) = (most.to_string(), (most + 1).to_string());
    reports(entry, &[], &["--backlog", &more], &format!("backlog {most},"), &[&more, &all])?;
    reports(entry, &[], &["--backlog", &all], &format!("backlog {most},"), &[])?;
    reports(entry, &[], &["--backlog", "0"], "backlog 0,", &[])
}

/// Each network namespace has its own limit, so that even the default backlog may be too long.
fn the_backlog_is_cut_elsewhere(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    in_own_network(|| {
        fs::write(SOMAXCONN, "64").context(SOMAXCONN)?;
        reports(entry, &[], &[], "backlog 64,", &["1024", "64"])
    })
}

/// Where the kernel's settings are hidden, the log states no exact backlog.
fn the_backlog_is_not_known(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    ensure!(getuid().is_root(), Missing("root, which hiding /proc/sys needs,".to_owned()));
    let hide = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /proc/sys && exec \"$@\"", "sh"];
    reports(entry, &hide, &["--backlog", "100000"], "backlog 100000 or less,", &[])
}

/// Expects this backlog in the log, and a warning with these numbers; no warning if there are none.
fn reports(entry: &'static Entry, wrapper: &[&str], arguments: &[&str], backlog: &str, warning: &[&str]) -> Result<()> {
    let mut server = Server::start_under(wrapper, entry, arguments)?;
    server.client()?.ask_all()?;
    server.stop(WAIT_LIMIT)?;
    let log = server.whole_log();
    let of_backlog = |line: &&str| line.contains("[WARN ") && line.contains("--backlog");
    let warnings: Vec<&str> = log.lines().filter(of_backlog).collect();
    let is_right = warnings.len() == usize::from(!warning.is_empty())
        && warnings.iter().all(|line| warning.iter().all(|number| line.contains(&format!(" {number} "))));
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(" clients at once, ")).collect();
    let are_right =
        !lines.is_empty() && lines.iter().all(|line| line.contains(&format!(" clients at once, {backlog}")));
    ensure!(
        is_right && are_right,
        "with {arguments:?} the log should have {backlog:?}, and a warning with the numbers {warning:?}:\n{log}"
    );
    Ok(())
}

/// The kernel's limit of a backlog.
const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";

/// `--max-connections`, for each process.
const PERMITS: usize = 10;

/// The number of rounds. Usually the server has noticed the closed connections before the next client connects; this
/// many rounds include some in which it has not.
const ROUNDS: usize = 30;
