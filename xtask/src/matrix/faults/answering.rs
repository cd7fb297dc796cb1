//! What can go wrong while a client is served: a read or a write fails, thinking panics, the process aborts.

use std::os::unix::process::ExitStatusExt;

use anyhow::{Context, Result, bail, ensure};

use super::{Case, Ctx, bystander, case, ending, guests, others_are_served};
use crate::harness::client::{APHORISMS, Came, Client};
use crate::harness::process::accepted_socket;
use crate::harness::tracer::Tracer;
use crate::harness::{PATIENCE, wait_for};

pub(crate) const CASES: &[Case] = &[
    case("recv_fails", |ctx| a_call_fails(ctx, "recvfrom")),
    case("send_fails", |ctx| a_call_fails(ctx, "sendto")),
    case("send_has_no_room", send_has_no_room),
    ending("a_panic", a_panic).arguments(&["--panic-on", FATAL]),
    ending("a_panic_offloaded", a_panic)
        .arguments(&["--panic-on", FATAL, "--offload"])
        .on(|entry| entry.package == "zen-async"),
    ending("an_abort", an_abort)
        .arguments(&["--abort-on", FATAL])
        .on(|entry| !entry.is_exhibit && entry.processes == 1),
];

/// Who has the failed connection is let go without an answer, and nobody else notices.
fn a_call_fails(ctx: &mut Ctx, call: &str) -> Result<()> {
    for error in ["ECONNRESET", "EPIPE", "ENOBUFS", "ENOMEM", "EIO"] {
        let mut bystander = bystander(ctx)?;
        let mut client = guests(ctx, 1)?.pop().context("a client")?;
        let socket = accepted(ctx, &client)?;
        let tracer = Tracer::attach_to(&socket, &ctx.server.workers(), call, &format!("error={error}"))?;
        is_let_go(&mut client).with_context(|| format!("{call} failed with {error}"))?;
        others_are_served(ctx, &mut bystander).with_context(|| format!("{call} failed with {error} for one client"))?;
        let failed: usize = tracer.let_go()?.values().map(Vec::len).sum();
        ensure!(failed == 1, "{call} was tried {failed} times on a connection that fails with {error}");
    }
    Ok(())
}

/// A thread that has been in recv() all along answers one question before the call fails.
fn is_let_go(client: &mut Client) -> Result<()> {
    for _ in 0..2 {
        // It may have been let go already.
        let _ = client.send(APHORISMS[0].0);
        match client.read_some()? {
            Came::End | Came::Reset => return Ok(()),
            Came::Bytes(bytes) if bytes == APHORISMS[0].1 => {}
            came => bail!("{came:?} came"),
        }
    }
    bail!("it is served on")
}

/// There was no room, and then there is: the answer comes, once.
fn send_has_no_room(ctx: &mut Ctx) -> Result<()> {
    let mut bystander = bystander(ctx)?;
    let mut client = guests(ctx, 1)?.pop().context("a client")?;
    let socket = accepted(ctx, &client)?;
    let tracer = Tracer::attach_to(&socket, &ctx.server.workers(), "sendto", "error=EAGAIN:when=1..3")?;
    client.ask_all().context("after send had no room three times")?;
    drop(client);
    tracer.let_go()?;
    others_are_served(ctx, &mut bystander)
}

/// What was owed before it goes out; the question that panicked has no answer; the log has one line, and the closing line
/// counts it.
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
    ctx.server.stop(PATIENCE)?;
    let log = ctx.server.whole_log();
    let lines = log.lines().filter(|line| line.contains("panicked at")).count();
    ensure!(lines == PANICS, "{PANICS} panics, but {lines} lines say so");
    // `stopped after 3 clients and 3 panics`: each process that served counts its own.
    let count = |line: &str| line.strip_suffix(" panics")?.rsplit(' ').next()?.parse::<usize>().ok();
    let counted: usize = log.lines().filter_map(count).sum();
    ensure!(counted == PANICS, "{PANICS} panics, but {counted} were counted");
    Ok(())
}

/// Where nobody supervises, that is the end; there is nothing left that could hold the port.
fn an_abort(ctx: &mut Ctx) -> Result<()> {
    let mut client = guests(ctx, 1)?.pop().context("a client")?;
    client.send(FATAL.as_bytes())?;
    let status = ctx.server.ended_within(PATIENCE).context("it goes on after an abort")?;
    ensure!(status.signal() == Some(6), "it ended with {status}");
    Ok(())
}

/// The server's end of this client's connection.
fn accepted(ctx: &Ctx, client: &Client) -> Result<String> {
    let (server, client) = (ctx.server.address(), client.stream().local_addr()?);
    wait_for(PATIENCE, || accepted_socket(server, client)).context("the client is not accepted")
}

/// The question after which nothing is as it was.
pub(crate) const FATAL: &str = "Who panics?";

const PANICS: usize = 3;
