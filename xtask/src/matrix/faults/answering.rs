//! Faults while a client is served: a read or a write fails, an answer panics, the process aborts.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{Case, Ctx, bare, bystander, case, ended, ending, others_are_served, served_clients};
use crate::harness::client::{APHORISMS, Client, Received};
use crate::harness::process::{accepted_socket, holds};
use crate::harness::tracer::Tracer;
use crate::harness::{WAIT_LIMIT, wait_for};
use crate::servers::Entry;

pub(crate) const CASES: &[Case] = &[
    case("recv_fails", |ctx| a_call_fails(ctx, "recvfrom")),
    case("send_fails", |ctx| a_call_fails(ctx, "sendto")),
    case("send_has_no_room", send_has_no_room),
    ending("a_panic", a_panic).arguments(&["--panic-on", FATAL]),
    ending("a_panic_awaited", a_panic)
        .arguments(&["--panic-on", FATAL, "--delay", "1ms", "--await"])
        .on(|entry| entry.package == "zen-async" && !entry.is_example),
    ending("a_panic_offloaded", a_panic)
        .arguments(&["--panic-on", FATAL, "--offload"])
        .on(|entry| entry.package == "zen-async" && !entry.is_example),
    ending("a_panic_outside", a_panic_outside)
        .arguments(&["--panic-outside", FATAL])
        .on(|entry| !entry.is_example && entry.processes == 1 && !entry.forks),
    ending("a_panic_outside_offloaded", a_panic_outside)
        .arguments(&["--panic-outside", FATAL, "--offload"])
        .on(|entry| entry.package == "zen-async" && !entry.is_example),
    bare("a_loop_panics", a_loop_panics).on(|entry| entry.name == "poll-loops"),
    ending("an_abort", an_abort)
        .arguments(&["--abort-on", FATAL])
        .on(|entry| !entry.is_example && entry.processes == 1 && !entry.forks),
];

/// A client whose connection fails is disconnected without an answer; no other client notices.
fn a_call_fails(ctx: &mut Ctx, call: &str) -> Result<()> {
    for error in ["ECONNRESET", "EPIPE", "ENOBUFS", "ENOMEM", "EIO"] {
        let mut bystander = bystander(ctx)?;
        let mut client = served_clients(ctx, 1)?.pop().context("a client")?;
        let (socket, worker) = accepted(ctx, &client)?;
        let tracer = Tracer::attach_to(&socket, worker, call, &format!("error={error}"))?;
        is_disconnected(&mut client).with_context(|| format!("{call} failed with {error}"))?;
        others_are_served(ctx, &mut bystander).with_context(|| format!("{call} failed with {error} for one client"))?;
        let failed: usize = tracer.detach()?.values().map(Vec::len).sum();
        ensure!(failed == 1, "{call} was tried {failed} times on a connection that fails with {error}");
    }
    Ok(())
}

/// Expects that the client is disconnected. A thread that was already in recv() answers one question first.
fn is_disconnected(client: &mut Client) -> Result<()> {
    for _ in 0..2 {
        // The server may have closed already.
        let _ = client.send(APHORISMS[0].0);
        match client.read_some()? {
            Received::End | Received::Reset => return Ok(()),
            Received::Bytes(bytes) if bytes == APHORISMS[0].1 => {}
            received => bail!("received {received:?}"),
        }
    }
    bail!("the client is still served")
}

/// The socket's buffer is full for a while; then the answer is sent, once.
fn send_has_no_room(ctx: &mut Ctx) -> Result<()> {
    let mut bystander = bystander(ctx)?;
    let mut client = served_clients(ctx, 1)?.pop().context("a client")?;
    let (socket, worker) = accepted(ctx, &client)?;
    let tracer = Tracer::attach_to(&socket, worker, "sendto", "error=EAGAIN:when=1..3")?;
    client.ask_all().context("after send had no room three times")?;
    drop(client);
    tracer.detach()?;
    others_are_served(ctx, &mut bystander)
}

/// Answers pending before the panic are sent, and the question that panicked gets none. The log has one line for each
/// panic, and its last line counts them.
fn a_panic(ctx: &mut Ctx) -> Result<()> {
    let mut bystander = bystander(ctx)?;
    for _ in 0..PANICS {
        let mut client = ctx.client()?;
        client.send(format!("Simple is better than?{FATAL}Simple is better than?").as_bytes())?;
        client.expect(b"complex.")?;
        client.expect_end()?;
    }
    others_are_served(ctx, &mut bystander)?;
    drop(bystander);
    ctx.server.stop(WAIT_LIMIT)?;
    let log = ctx.server.whole_log();
    let lines = log.lines().filter(|line| line.contains("panicked at")).count();
    ensure!(lines == PANICS, "{PANICS} panics, but {lines} lines say so");
    // `stopped after 3 clients and 3 panics`: each process that served counts its own.
    let count = |line: &str| line.strip_suffix(" panics")?.rsplit(' ').next()?.parse::<usize>().ok();
    let counted: usize = log.lines().filter_map(count).sum();
    ensure!(counted == PANICS, "{PANICS} panics, but {counted} were counted");
    Ok(())
}

/// A panic that no conversation catches, in any thread: the server logs it once, drains, and exits with 1.
fn a_panic_outside(ctx: &mut Ctx) -> Result<()> {
    // The first client, because with several loops it is not served by the main thread.
    let mut client = served_clients(ctx, 1)?.pop().context("a client")?;
    let mut bystander = bystander(ctx)?;
    client.send(FATAL.as_bytes())?;
    ensure!(matches!(client.read_some()?, Received::End | Received::Reset), "the client is still served");
    // With one thread, all its clients are lost with it.
    bystander.iter_mut().filter(|_| has_other_threads(ctx.entry)).try_for_each(|client| client.expect_end())?;
    let status = ctx.server.ended_within(WAIT_LIMIT).context("it does not exit after a panic")?;
    ensure!(status.code() == Some(1), "it ended with {status}");
    let log = ctx.server.whole_log();
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    let (panics, errors) = (lines("panicked at"), lines("error: the server has a defect"));
    ensure!(panics == 1 && errors == 1, "{panics} lines report the panic and {errors} the exit; one each is expected");
    Ok(())
}

/// Returns whether a client of another thread, loop or task survives the panic of the first.
fn has_other_threads(entry: &Entry) -> bool {
    !matches!(entry.name, "single" | "poll" | "poll-chat")
}

/// A client that connects while the server drains is handed to the loop that is left.
fn a_loop_panics(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let mut is_quick = false;
        let tried = ended(entry, &[], &["-v", "--panic-outside", FATAL], |ctx| {
            // Each loop has two clients.
            let mut clients = served_clients(ctx, 4)?;
            clients[0].send(FATAL.as_bytes())?;
            let start = Instant::now();
            clients[2].expect_end().context("the other client of that loop")?;
            let late = ctx.client()?.stream().local_addr()?;
            // The listener is closed when no client has come for a tick.
            is_quick = start.elapsed() < TICK / 2;
            drop(clients);
            ctx.server.ended_within(WAIT_LIMIT).context("it does not exit")?;
            // If a client is lost while it is handed to a loop, its acceptance is logged, but no close.
            let is_served = ctx.server.whole_log().contains(&format!("{late} closed: "));
            ensure!(is_served, "a client that connected right after the panic is lost");
            Ok(())
        });
        if tried.is_ok() || is_quick {
            return tried;
        }
    }
    bail!("in each of {ATTEMPTS} attempts the machine delayed the test's own client: nothing was tested")
}

/// Without a supervisor, an abort ends the server, and no process is left that could hold the port.
fn an_abort(ctx: &mut Ctx) -> Result<()> {
    let mut client = served_clients(ctx, 1)?.pop().context("a client")?;
    client.send(FATAL.as_bytes())?;
    let status = ctx.server.ended_within(WAIT_LIMIT).context("it does not exit after an abort")?;
    ensure!(status.signal() == Some(6), "it ended with {status}");
    Ok(())
}

/// Returns the server's end of this client's connection, and the process that has it.
fn accepted(ctx: &Ctx, client: &Client) -> Result<(String, i32)> {
    let (server, client) = (ctx.server.address(), client.stream().local_addr()?);
    let socket = wait_for(WAIT_LIMIT, || accepted_socket(server, client)).context("the client is not accepted")?;
    let worker = ctx.server.processes().into_iter().find(|&pid| holds(pid, &socket));
    Ok((socket, worker.context("no process has the client")?))
}

/// The question that panics or aborts.
pub(crate) const FATAL: &str = "Who panics?";

const PANICS: usize = 3;

/// How long a draining server waits for another client.
const TICK: Duration = Duration::from_millis(250);

const ATTEMPTS: usize = 5;
