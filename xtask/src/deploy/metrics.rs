//! metrics: what a server reports is well formed and correct, and a real Prometheus alerts when it should.

mod prometheus;

use std::collections::BTreeMap;
use std::io::Write;
use std::mem::replace;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::fixture::{every, has_workers, is_one_process, on_each, succeeds};
use crate::harness::client::APHORISMS;
use crate::harness::folder::Folder;
use crate::harness::group::run_within;
use crate::harness::metrics::{exchange, metrics_of, scrape, text};
use crate::harness::verdict::{Ctx, ended, served};
use crate::harness::{self, Client, Server, WAIT_LIMIT, process, tool, wait_for};
use crate::servers::Entry;
use crate::trial::Trial;

pub(crate) fn trials() -> Result<Vec<Trial>> {
    let cases = [
        on_each("metrics::format", every, format),
        on_each("metrics::counts", every, counts),
        on_each("metrics::rejected", |entry| !entry.makes_clients_wait() && is_one_process(entry), rejected),
        on_each("metrics::draining", every, draining),
        on_each("metrics::a_worker_dies", has_workers, a_worker_dies),
        on_each("metrics::idle_connections", every, idle_connections),
        on_each("metrics::without_proc", |entry| is_one_process(entry) && !entry.forks, without_proc),
        on_each("metrics::wrong_command_lines", Entry::is_first_of_package, wrong_command_lines),
        prometheus::trials(),
    ];
    Ok(cases.into_iter().flatten().collect())
}

/// Prometheus's own tool accepts every line, and requests for anything else get an error.
fn format(entry: &'static Entry) -> Result<()> {
    let promtool = tool("promtool")?;
    served(entry, &[], &["--metrics", "0"], false, |ctx| {
        ctx.client()?.ask_all()?;
        let address = metrics_of(&ctx.server)?;
        ensure!(address.ip().is_loopback(), "{address} is not a loopback address");
        let folder = Folder::new()?;
        let file = folder.write("metrics", &text(address)?)?;
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" check metrics <\"$1\""]).args([&promtool, &file]);
        let printed = succeeds(&mut command)?;
        ensure!(printed.is_empty(), "{printed}");
        for (request, status) in [("GET / HTTP/1.1", "404"), ("POST /metrics HTTP/1.1", "405")] {
            let answer = exchange(address, &format!("{request}\r\n\r\n"))?;
            ensure!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        }
        Ok(())
    })
}

/// Each client, question and panic is counted once. The matrix tests how each ending is counted.
fn counts(entry: &'static Entry) -> Result<()> {
    ended(entry, &[], &["--metrics", "0", "--panic-on", FATAL], |ctx| {
        for _ in 0..3 {
            ctx.server.served_client()?.leave()?;
        }
        let mut fatal = ctx.client()?;
        fatal.send(FATAL.as_bytes())?;
        fatal.expect_end()?;
        drop(fatal);
        let expected = [
            ("zen_connections_active", 0.0),
            ("zen_connections_accepted_total", 4.0),
            ("zen_questions_total", 9.0),
            ("zen_connections_rejected_total", 0.0),
            ("zen_panics_total", 1.0),
            ("zen_connections_closed_total{reason=\"finished\"}", 3.0),
            ("zen_connections_closed_total{reason=\"failed\"}", 1.0),
            ("zen_draining", 0.0),
        ];
        becomes(&ctx.server, &expected)?;
        let now = scrape(&ctx.server)?;
        ensure!(now["zen_connections_max"] >= 1.0, "no limit");
        ensure!(now["process_open_fds"] > 3.0 && now["process_max_fds"] > now["process_open_fds"], "{now:?}");
        ctx.server.stop(WAIT_LIMIT)
    })
}

/// A client over the limit is counted as rejected, and not as accepted.
fn rejected(entry: &'static Entry) -> Result<()> {
    ended(entry, &[], &["--metrics", "0", "--max-connections", "4"], |ctx| {
        let mut clients = ctx.server.clients(4)?;
        clients.iter_mut().try_for_each(Client::ask_all)?;
        ctx.client()?.expect(b"Error: too many clients.")?;
        becomes(
            &ctx.server,
            &[("zen_connections_active", 4.0), ("zen_connections_max", 4.0), ("zen_connections_rejected_total", 1.0)],
        )?;
        becomes(&ctx.server, &[("zen_connections_accepted_total", 4.0)])?;
        drop(clients);
        becomes(&ctx.server, &[("zen_connections_active", 0.0), ("zen_connections_rejected_total", 1.0)])?;
        ctx.server.stop(WAIT_LIMIT)
    })
}

/// The metrics of a draining server say that it drains.
fn draining(entry: &'static Entry) -> Result<()> {
    ended(entry, &[], &["--metrics", "0", "--delay", "3s"], |ctx| {
        let mut client = ctx.server.asking_client()?;
        let accepted = |ctx: &Ctx| (scrape(&ctx.server).ok()?["zen_connections_active"] == 1.0).then_some(());
        wait_for(WAIT_LIMIT, || accepted(ctx)).context("the client is not counted")?;
        ctx.server.signal(Signal::TERM)?;
        let drains = || (scrape(&ctx.server).ok()?["zen_draining"] >= 1.0).then_some(());
        wait_for(WAIT_LIMIT, drains).context("zen_draining does not become 1")?;
        client.expect(APHORISMS[0].1)?;
        client.expect_end()
    })
}

/// The counts of a dead worker are kept, and no counter ever falls.
fn a_worker_dies(entry: &'static Entry) -> Result<()> {
    ended(entry, &[], &["--metrics", "0"], |ctx| {
        let workers = ctx.server.workers();
        let all = ("zen_workers", workers.len() as f64);
        let ask = |ctx: &Ctx| (0..10).try_for_each(|_| ctx.client()?.ask_all());
        ask(ctx)?;
        // Wait, because counts that a worker has not yet reported are lost when it is killed.
        becomes(&ctx.server, &[("zen_questions_total", 30.0), ("zen_connections_active", 0.0), all])?;
        let mut latest = scrape(&ctx.server)?;
        process::signal(workers[0], Signal::KILL)?;
        let seen = wait_for(WAIT_LIMIT, || {
            let before = scrape(&ctx.server).map(|now| replace(&mut latest, now));
            let fell = before.and_then(|before| no_counter_fell(&before, &latest));
            let is_over = latest["zen_worker_exits_total"] == 1.0 && latest[all.0] == all.1;
            (fell.is_err() || is_over).then_some(fell)
        });
        seen.context("zen_worker_exits_total does not become 1")??;
        ask(ctx)?;
        becomes(&ctx.server, &[("zen_questions_total", 60.0), ("zen_worker_exits_total", 1.0)])?;
        ctx.server.stop(WAIT_LIMIT)
    })
}

/// A scrape is answered in time although a hundred connections are silent and another hundred send byte by byte. These
/// connections cost few descriptors, little memory, and no thread.
fn idle_connections(entry: &'static Entry) -> Result<()> {
    ended(entry, &[], &["--metrics", "0"], |ctx| {
        let address = metrics_of(&ctx.server)?;
        text(address)?;
        // The ready line may be printed before the last thread is started and the last descriptor opened.
        ctx.server.wait_until_asleep(WAIT_LIMIT)?;
        let before = ctx.server.usage();
        let connect = |_| TcpStream::connect_timeout(&address, WAIT_LIMIT);
        let idle = (0..CONNECTIONS).map(connect).collect::<Result<Vec<_>, _>>()?;
        let mut dripping = (0..CONNECTIONS).map(connect).collect::<Result<Vec<_>, _>>()?;
        for _ in 0..5 {
            for connection in &mut dripping {
                // The server closes some of them to make room for others.
                let _ = connection.write_all(b"G");
            }
            let start = Instant::now();
            text(address)?;
            ensure!(start.elapsed() < SCRAPE_TIMEOUT, "a scrape took {:?}", start.elapsed());
        }
        let now = ctx.server.usage();
        let is_bounded = now.threads == before.threads
            && now.descriptors < before.descriptors + CONNECTIONS / 2
            && now.memory < before.memory + (1 << 20);
        ensure!(is_bounded, "usage before the connections: {before:?}, with them: {now:?}");
        drop((idle, dripping));
        let gone = wait_for(WAIT_LIMIT, || (ctx.server.usage().descriptors <= before.descriptors).then_some(()));
        gone.context("descriptors of closed connections are left open")?;
        ctx.server.stop(WAIT_LIMIT)
    })
}

/// Without /proc the metrics of the process are left out. The other metrics and the reset at the end of --grace work.
fn without_proc(entry: &'static Entry) -> Result<()> {
    ended(entry, &harness::without_proc()?, &["--metrics", "0", "--delay", "1h", "--grace", "300ms"], |ctx| {
        let metrics = scrape(&ctx.server)?;
        let of_process: Vec<_> = metrics.keys().filter(|name| name.starts_with("process_")).collect();
        ensure!(of_process.is_empty() && metrics.contains_key("zen_questions_total"), "the metrics are {metrics:?}");
        let mut client = ctx.server.asking_client()?;
        let is_accepted = || (scrape(&ctx.server).ok()?["zen_connections_active"] == 1.0).then_some(());
        wait_for(WAIT_LIMIT, is_accepted).context("the client is not accepted")?;
        ctx.server.signal(Signal::TERM)?;
        client.expect_reset()
    })
}

fn no_counter_fell(before: &BTreeMap<String, f64>, now: &BTreeMap<String, f64>) -> Result<()> {
    // Processor time is that of living processes, so it may fall.
    let counters = before.iter().filter(|(name, _)| name.starts_with("zen_") && name.contains("_total"));
    for (name, value) in counters {
        ensure!(now.get(name) >= Some(value), "{name} was {value} and is {:?}", now.get(name));
    }
    Ok(())
}

/// It is an error if the port for metrics is in use, or if --metrics is given to a server that serves one client only.
fn wrong_command_lines(entry: &'static Entry) -> Result<()> {
    let first = Server::start(entry, &["--metrics", "0"])?;
    let busy = metrics_of(&first)?.to_string();
    let start = |arguments: &[&str]| run_within(WAIT_LIMIT, entry.command()?.args(arguments));
    for (arguments, status) in
        [(&["-p", "0", "--metrics", &busy][..], 1), (&["--inetd", "nowait", "--metrics", "0"], 2)]
    {
        let output = start(arguments)?;
        let printed = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(status), "{arguments:?}: {}: {printed}", output.status);
        let errors = printed.lines().filter(|line| line.starts_with("error: ")).count();
        ensure!(errors == 1 && output.stdout.is_empty(), "{arguments:?}: {printed}");
    }
    let silent = Server::start(entry, &[])?;
    ensure!(!silent.log().contains("metrics"), "metrics are served without --metrics");
    Ok(())
}

/// Waits until the metrics have all these values.
fn becomes(server: &Server, expected: &[(&str, f64)]) -> Result<()> {
    let mut latest = BTreeMap::new();
    let met = wait_for(WAIT_LIMIT, || {
        latest = scrape(server).ok()?;
        expected.iter().all(|(name, value)| latest.get(*name) == Some(value)).then_some(())
    });
    let wrong = expected.iter().filter(|(name, value)| latest.get(*name) != Some(value));
    met.with_context(|| format!("expected {:?} in {latest:?}", wrong.collect::<Vec<_>>()))
}

const FATAL: &str = "Who panics?";

/// Many more connections than a server keeps.
const CONNECTIONS: usize = 100;

/// The scrape timeout in prometheus.yml.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(2);
