//! accept() fails: resources are exhausted for now, one client's connection has failed, or the listener is broken for
//! good. Also: a new client cannot be registered with the poller, or given a thread or a process.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::{Case, Ctx, acceptors, answered, bare, bystander, case, ending, others_are_served};
use crate::harness::client::{APHORISMS, Client, Received};
use crate::harness::group::run_within;
use crate::harness::metrics::scrape;
use crate::harness::tracer::{Tracer, span};
use crate::harness::{Server, WAIT_LIMIT, expect_one_error, process, strace, wait_for};
use crate::servers::Entry;
use crate::workspace;

pub(crate) const CASES: &[Case] = &[
    case("accept_out_of_means", accept_out_of_means),
    case("accept_failed_for_one_client", accept_failed_for_one_client),
    case("accept_fails_for_each_client", accept_fails_for_each_client).arguments(&["--metrics", "0"]).alone(),
    bare("excess_is_rejected_while_draining", excess_is_rejected_while_draining)
        .arguments(&["--max-connections", "1"])
        .on(|entry| has_one_process(entry) && !entry.makes_clients_wait())
        .alone(),
    ending("accept_fails_while_draining", accept_fails_while_draining).arguments(&["--grace", "60s"]),
    ending("accept_einval_for_ever", |ctx| accept_fails_for_ever(ctx, "EINVAL")).on(has_one_process),
    ending("accept_ebadf_for_ever", |ctx| accept_fails_for_ever(ctx, "EBADF")).on(has_one_process),
    ending("accept_enotsock_for_ever", |ctx| accept_fails_for_ever(ctx, "ENOTSOCK")).on(has_one_process),
    case("accept_fails_for_ever_in_workers", accept_fails_for_ever_in_workers).on(|entry| entry.processes > 1),
    // As if epoll had no room (ENOSPC): under the wrapper it refuses all descriptors from 64 on.
    case("no_room_in_epoll", no_room_in_epoll)
        .under(&["python3", "-c", REFUSE_EPOLL])
        .on(|entry| !entry.is_example && matches!(entry.package, "zen-poll" | "zen-async")),
    case("no_thread_for_a_client", no_thread_for_a_client).on(|entry| entry.name == "per-connection" || entry.forks),
    bare("no_thread_at_start", no_thread_at_start),
];

fn has_one_process(entry: &Entry) -> bool {
    !entry.is_example && entry.processes == 1
}

/// Clients are answered once accept works again. Between two attempts a thread backs off, so that it does not spin.
fn accept_out_of_means(ctx: &mut Ctx) -> Result<()> {
    for error in ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"] {
        let tracer =
            Tracer::attach(&acceptors(ctx.entry, &ctx.server), "accept4", &format!("error={error}:when=1..4"))?;
        asks_until_a_call_fails(ctx, &tracer).with_context(|| format!("after accept gave {error} four times"))?;
        for (thread, times) in tracer.detach()? {
            let pause = times.windows(2).map(span).min().unwrap_or(BACK_OFF);
            ensure!(pause >= BACK_OFF * 9 / 10, "thread {thread} tried again {pause:?} after {error}");
        }
    }
    Ok(())
}

/// An error of one client's connection concerns no other: the next client is accepted immediately.
fn accept_failed_for_one_client(ctx: &mut Ctx) -> Result<()> {
    for error in CLIENTS_OWN {
        let tracer =
            Tracer::attach(&acceptors(ctx.entry, &ctx.server), "accept4", &format!("error={error}:when=1..20"))?;
        asks_until_a_call_fails(ctx, &tracer).with_context(|| format!("after accept gave {error} twenty times"))?;
        for (thread, times) in tracer.detach()? {
            // Backing off each time would take two seconds.
            let took = span(&times);
            ensure!(took < BACK_OFF * 10, "thread {thread} took {took:?} for {} times {error}", times.len());
        }
    }
    Ok(())
}

/// After 64 errors of single clients in a row a thread backs off before each further attempt, until one succeeds.
/// Errors are logged at most once a second, and all are counted.
fn accept_fails_for_each_client(ctx: &mut Ctx) -> Result<()> {
    let workers = acceptors(ctx.entry, &ctx.server);
    let tracer = Tracer::attach(&workers, "accept4", "error=EPERM")?;
    // A thread that sleeps in the call already serves one client first.
    let waiting = wait_for(WAIT_LIMIT, || {
        let mut client = ctx.server.asking_client().ok()?;
        client.expect_silence(FOR_A_WHILE).is_ok().then_some(client)
    });
    let mut client = waiting.context("accept does not fail")?;
    let of_metrics = |thread: &String| {
        fs::read_to_string(format!("/proc/{thread}/comm")).is_ok_and(|name| name.starts_with("metrics"))
    };
    let mut injected = tracer.detach()?;
    injected.retain(|thread, _| !of_metrics(thread));
    answered(&mut client).context("after accept works again")?;
    drop(client);

    let threads = injected.len();
    let counts: Vec<usize> = injected.values().map(Vec::len).collect();
    let total: usize = counts.iter().sum();
    // Attaching and detaching strace takes time, so three times as many attempts are allowed.
    let tries = 3 * usize::try_from(FOR_A_WHILE.as_millis() / BACK_OFF.as_millis())?;
    let most = IN_A_ROW * workers.len() + tries * threads;
    ensure!(
        (IN_A_ROW..=most).contains(&total),
        "the threads called accept {counts:?} times; {IN_A_ROW} to {most} in total are expected"
    );
    let log = ctx.server.log();
    let lines = log.lines().filter(|line| line.contains("cannot accept a client now: ")).count();
    let most = 3 * workers.len() * usize::try_from(FOR_A_WHILE.as_secs())?;
    ensure!((1..=most).contains(&lines), "{lines} lines `cannot accept a client now`; 1 to {most} are expected");
    let counted = || scrape(&ctx.server).ok()?.get("zen_accept_errors_total").copied();
    // strace detaches from a thread in the middle of a call, which may then fail in another way.
    let are_all = total as f64..=(total + threads) as f64;
    let is_right = wait_for(WAIT_LIMIT, || counted().filter(|&counted| are_all.contains(&counted)));
    is_right.with_context(|| format!("{total} failures, but {:?} were counted", counted()))?;
    Ok(())
}

/// The server has inherited its listener, and SIGTERM arrives when one client is over the limit and the next waits in
/// the backlog. The first is rejected, or served with a permit that was just freed; the other is left to the next
/// server.
fn excess_is_rejected_while_draining(entry: &'static Entry, arguments: &'static [&'static str]) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut server = Server::start_on(&listener, entry, arguments)?;
    let address = listener.local_addr()?;
    let mut inside = Client::connect(address)?;
    inside.ask_all()?;
    // With a client over the limit the server polls the listener for another one; strace makes that take a while.
    let tracer = Tracer::attach(&acceptors(entry, &server), "poll,ppoll", "delay_enter=400000")?;
    thread::sleep(FOR_A_WHILE / 2); // until a thread that was in the call already begins the next one
    let mut excess = Client::connect(address)?;
    let own = excess.stream().local_addr()?;
    wait_for(WAIT_LIMIT, || process::accepted_socket(address, own))
        .context("the client over the limit is not accepted")?;
    let next = Client::connect(address)?;
    excess.send(APHORISMS[0].0)?;
    server.signal(Signal::TERM)?;
    inside.expect_end()?;
    let received = excess.read_some().context("the client over the limit")?;
    let is_told = |bytes: &Vec<u8>| bytes == b"Error: too many clients." || bytes == APHORISMS[0].1;
    ensure!(
        matches!(&received, Received::Bytes(bytes) if is_told(bytes)),
        "the client over the limit received {received:?}"
    );
    server.ends_well()?;
    drop((next, tracer));
    Ok(())
}

/// A drain ends although accept() fails.
fn accept_fails_while_draining(ctx: &mut Ctx) -> Result<()> {
    let tracer = Tracer::attach(&acceptors(ctx.entry, &ctx.server), "accept4", "error=EMFILE")?;
    let waiting = ctx.server.asking_client()?;
    ctx.server.signal(Signal::TERM)?;
    ctx.server.ends_well()?;
    drop((waiting, tracer));
    Ok(())
}

/// The server drains and logs why: its clients are not reset, and it does not call accept() again and again.
fn accept_fails_for_ever(ctx: &mut Ctx, error: &str) -> Result<()> {
    let mut bystander = bystander(ctx)?;
    let tracer = Tracer::attach(&acceptors(ctx.entry, &ctx.server), "accept4", &format!("error={error}"))?;
    // A thread that sleeps in accept() does not notice before a client connects. The client may be served first, so it
    // closes immediately.
    drop(ctx.server.asking_client());
    let status = ctx.server.ended_within(WAIT_LIMIT).context("it does not exit although its listener is broken")?;
    ensure!(status.code() == Some(1), "it ended with {status}");
    bystander.iter_mut().try_for_each(|client| client.expect_end()).context("the bystander")?;
    for (thread, times) in tracer.detach()? {
        ensure!(times.len() <= 3, "thread {thread} tried {} times", times.len());
    }
    let log = ctx.server.whole_log();
    let lines: Vec<&str> = log.lines().filter(|line| line.starts_with("error: ")).collect();
    ensure!(lines.len() == 1 && lines[0].contains("listener"), "expected one error about the listener: {lines:?}");
    Ok(())
}

/// Each worker logs the error and exits; it is replaced by one for which accept() works.
fn accept_fails_for_ever_in_workers(ctx: &mut Ctx) -> Result<()> {
    let before = ctx.server.workers();
    let tracer = Tracer::attach(&before, "accept4", "error=EINVAL")?;
    asks_until_a_call_fails(ctx, &tracer).context("after a worker was replaced")?;
    tracer.detach()?;
    ctx.server.logs("error: the listener")?;
    ensure!(ctx.server.workers() != before, "the workers are the same as before");
    Ok(())
}

/// Asks with one client after another until a call has failed. A thread that sleeps in the call already serves one
/// client first.
fn asks_until_a_call_fails(ctx: &Ctx, tracer: &Tracer) -> Result<()> {
    let until = wait_for(WAIT_LIMIT, || {
        let answered = ctx.server.asking_client().and_then(|mut client| answered(&mut client));
        let is_over = answered.is_err() || tracer.injected().is_ok_and(|injected| !injected.is_empty());
        is_over.then_some(answered)
    });
    until.context("no call fails")?
}

/// A client that cannot be registered is closed without an answer; all others stay.
fn no_room_in_epoll(ctx: &mut Ctx) -> Result<()> {
    let before = ctx.server.usage().descriptors;
    let (mut served, mut refused) = (Vec::new(), 0);
    for _ in 0..CROWD {
        // The server may have closed before the client asks.
        let Ok(mut client) = ctx.server.asking_client() else {
            refused += 1;
            continue;
        };
        match answered(&mut client) {
            Ok(()) => served.push(client),
            Err(error) => {
                let error = error.to_string();
                ensure!(
                    error.contains("end of file") || error.contains("reset"),
                    "expected end of file or a reset for a refused client, but: {error}"
                );
                refused += 1;
            }
        }
    }
    let seen = format!("{} clients were served, {refused} refused", served.len());
    ensure!(served.len() >= FIRST_REFUSED / 2 && refused > 0, "{seen}");
    served
        .iter_mut()
        .try_for_each(|client| client.ask_all())
        .context("a client that was served before others were refused")?;
    drop(served);
    // The clients of the verdict need descriptors below 64, which must be free again.
    let gone = wait_for(WAIT_LIMIT, || (ctx.server.usage().descriptors <= before).then_some(()));
    gone.context("descriptors are left open")
}

/// A client for which no thread or process can be started is rejected by rule 7.
fn no_thread_for_a_client(ctx: &mut Ctx) -> Result<()> {
    let mut bystander = bystander(ctx)?;
    let tracer = Tracer::attach(&acceptors(ctx.entry, &ctx.server), "clone3,clone", "error=EAGAIN:when=1")?;
    let mut unlucky = ctx.client()?;
    unlucky.expect(b"Error: too many clients.")?;
    unlucky.expect_end()?;
    let line = if ctx.entry.forks {
        " rejected: no process can be started for it (Resource temporarily unavailable (os error 11)); \
         raise the limits of processes and descriptors\n"
    } else {
        " rejected: no thread can be started for it; raise the limit of threads\n"
    };
    ctx.server.wait_for_log(WAIT_LIMIT, |log| log.contains(line).then_some(())).context("the log does not say why")?;
    tracer.detach()?; // strace follows the next child, too
    others_are_served(ctx, &mut bystander)
}

/// A start without the threads it needs is an error of one line.
fn no_thread_at_start(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let mut command = Command::new(strace()?);
    command.args([
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=clone,clone3",
        "-e",
        "inject=clone,clone3:error=EAGAIN",
    ]);
    command.arg(workspace::binary(entry.binary)?).args(entry.arguments).args(["-p", "0"]);
    let output = run_within(WAIT_LIMIT, &mut command)?;
    expect_one_error(&output, 1)
}

/// Errors of accept() that concern one client. Linux passes on errors of the new connection (accept(2)).
const CLIENTS_OWN: [&str; 8] =
    ["ECONNABORTED", "EPROTO", "ENETDOWN", "EHOSTUNREACH", "EPERM", "ETIMEDOUT", "EOPNOTSUPP", "ECONNRESET"];

/// Failures in a row, each of one client, after which a thread backs off before each further attempt.
const IN_A_ROW: usize = 64;

const FOR_A_WHILE: Duration = Duration::from_secs(2);

/// How long a server pauses when a resource is used up.
const BACK_OFF: Duration = Duration::from_millis(100);

/// The first of the descriptors which the wrapper keeps out of epoll.
const FIRST_REFUSED: usize = 64;

/// Enough clients to have some of those descriptors, even if two processes share them.
const CROWD: usize = 2 * FIRST_REFUSED + 8;

const REFUSE_EPOLL: &str = include_str!("refuse_epoll.py");
