//! accept() fails: with what is used up for now, with what happened to one client, or for ever. And what a new client
//! needs beyond it: a place in the poller, a thread.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::{Case, Ctx, answered, asking, bare, bystander, case, ending, others_are_served};
use crate::harness::client::{APHORISMS, Came, Client};
use crate::harness::group::run_within;
use crate::harness::metrics::scrape;
use crate::harness::tracer::{Tracer, span};
use crate::harness::{Server, WAIT_LIMIT, process, shown, strace, wait_for};
use crate::servers::Entry;
use crate::workspace;

pub(crate) const CASES: &[Case] = &[
    case("accept_out_of_means", accept_out_of_means),
    case("accept_failed_for_one_client", accept_failed_for_one_client),
    case("accept_fails_for_each_client", accept_fails_for_each_client).arguments(&["--metrics", "0"]).alone(),
    bare("excess_is_rejected_while_draining", excess_is_rejected_while_draining)
        .arguments(&["--max-connections", "1"])
        .on(|entry| has_one_process(entry) && !entry.makes_wait())
        .alone(),
    ending("accept_fails_while_draining", accept_fails_while_draining).arguments(&["--grace", "60s"]),
    ending("accept_einval_for_ever", |ctx| accept_fails_for_ever(ctx, "EINVAL")).on(has_one_process),
    ending("accept_ebadf_for_ever", |ctx| accept_fails_for_ever(ctx, "EBADF")).on(has_one_process),
    ending("accept_enotsock_for_ever", |ctx| accept_fails_for_ever(ctx, "ENOTSOCK")).on(has_one_process),
    case("accept_fails_for_ever_in_workers", accept_fails_for_ever_in_workers).on(|entry| entry.processes > 1),
    // It is an epoll instance that has no room; the wrapper refuses those descriptors which the first clients do not
    // get.
    case("no_room_in_epoll", no_room_in_epoll)
        .under(&["python3", "-c", REFUSE_EPOLL])
        .on(|entry| !entry.is_example && matches!(entry.package, "zen-poll" | "zen-async")),
    case("no_thread_for_a_client", no_thread_for_a_client).on(|entry| entry.name == "per-connection"),
    bare("no_thread_at_start", no_thread_at_start),
];

fn has_one_process(entry: &Entry) -> bool {
    !entry.is_example && entry.processes == 1
}

/// Nobody is lost, and between two attempts of a thread there is the back-off: it does not spin.
fn accept_out_of_means(ctx: &mut Ctx) -> Result<()> {
    for error in ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"] {
        let tracer = Tracer::attach(&ctx.server.workers(), "accept4", &format!("error={error}:when=1..4"))?;
        asks_until_a_call_fails(ctx, &tracer).with_context(|| format!("after accept gave {error} four times"))?;
        for (thread, times) in tracer.detach()? {
            let pause = times.windows(2).map(span).min().unwrap_or(BACK_OFF);
            ensure!(pause >= BACK_OFF * 9 / 10, "thread {thread} tried again {pause:?} after {error}");
        }
    }
    Ok(())
}

/// Such an error is the failed client's alone: the next is accepted at once.
fn accept_failed_for_one_client(ctx: &mut Ctx) -> Result<()> {
    for error in CLIENTS_OWN {
        let tracer = Tracer::attach(&ctx.server.workers(), "accept4", &format!("error={error}:when=1..20"))?;
        asks_until_a_call_fails(ctx, &tracer).with_context(|| format!("after accept gave {error} twenty times"))?;
        for (thread, times) in tracer.detach()? {
            // Backing off each time would take two seconds.
            let took = span(&times);
            ensure!(took < BACK_OFF * 10, "thread {thread} took {took:?} for {} times {error}", times.len());
        }
    }
    Ok(())
}

/// After 64 such errors in a row it is not the clients any more: between two tries of a thread there is the back-off,
/// until one succeeds. It is logged once a second, and each is counted.
fn accept_fails_for_each_client(ctx: &mut Ctx) -> Result<()> {
    let workers = ctx.server.workers();
    let tracer = Tracer::attach(&workers, "accept4", "error=EPERM")?;
    // A thread that has been in the call all along serves one client first.
    let waiting = wait_for(WAIT_LIMIT, || {
        let mut client = asking(ctx).ok()?;
        client.expect_silence(FOR_A_WHILE).is_ok().then_some(client)
    });
    let mut client = waiting.context("accept does not fail")?;
    let of_metrics = |thread: &String| {
        fs::read_to_string(format!("/proc/{thread}/comm")).is_ok_and(|name| name.starts_with("metrics"))
    };
    let mut injected = tracer.detach()?;
    injected.retain(|thread, _| !of_metrics(thread));
    answered(&mut client).context("once accept works again")?;
    drop(client);

    let threads = injected.len();
    let counts: Vec<usize> = injected.values().map(Vec::len).collect();
    let total: usize = counts.iter().sum();
    // Beyond the while there is what it takes strace to come and go.
    let tries = 3 * usize::try_from(FOR_A_WHILE.as_millis() / BACK_OFF.as_millis())?;
    let most = IN_A_ROW * workers.len() + tries * threads;
    ensure!((IN_A_ROW..=most).contains(&total), "{counts:?} tries in {FOR_A_WHILE:?}, not {IN_A_ROW} to {most}");
    let log = ctx.server.log();
    let lines = log.lines().filter(|line| line.contains("cannot accept a client now: ")).count();
    let most = 3 * workers.len() * usize::try_from(FOR_A_WHILE.as_secs())?;
    ensure!((1..=most).contains(&lines), "{lines} lines say so, not 1 to {most}");
    let counted = || scrape(&ctx.server).ok()?.get("zen_accept_errors_total").copied();
    // strace lets go of a thread in the middle of a call: that may fail in another way.
    let are_all = total as f64..=(total + threads) as f64;
    let is_right = wait_for(WAIT_LIMIT, || counted().filter(|&counted| are_all.contains(&counted)));
    is_right.with_context(|| format!("{total} failures, but {:?} were counted", counted()))?;
    Ok(())
}

/// The listener is another's, and the signal comes just when one client is over the limit and the next is about to be
/// accepted: the one is rejected, or served in the place of a client that has just gone. The other is left to the next
/// server.
fn excess_is_rejected_while_draining(entry: &'static Entry, arguments: &'static [&'static str]) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut server = Server::start_on(&listener, entry, arguments)?;
    let address = listener.local_addr()?;
    let mut inside = Client::connect(address)?;
    inside.ask_all()?;
    // With a client over the limit the server looks whether another waits, and that takes a while now.
    let tracer = Tracer::attach(&server.workers(), "poll,ppoll", "delay_enter=400000")?;
    thread::sleep(FOR_A_WHILE / 2); // a thread that has been in the call all along began it again
    let mut excess = Client::connect(address)?;
    let own = excess.stream().local_addr()?;
    wait_for(WAIT_LIMIT, || process::accepted_socket(address, own)).context("it is not accepted")?;
    let next = Client::connect(address)?;
    excess.send(APHORISMS[0].0)?;
    server.signal(Signal::TERM)?;
    inside.expect_end()?;
    let came = excess.read_some().context("the client over the limit")?;
    let is_told = |bytes: &Vec<u8>| bytes == b"Error: too many clients." || bytes == APHORISMS[0].1;
    ensure!(matches!(&came, Came::Bytes(bytes) if is_told(bytes)), "{came:?} came to the client over the limit");
    let status = server.ended_within(WAIT_LIMIT).context("it does not end")?;
    ensure!(status.success(), "it ended with {status}");
    drop((next, tracer));
    Ok(())
}

/// Clients that cannot be accepted do not keep a server from ending.
fn accept_fails_while_draining(ctx: &mut Ctx) -> Result<()> {
    let tracer = Tracer::attach(&ctx.server.workers(), "accept4", "error=EMFILE")?;
    let waiting = asking(ctx)?;
    ctx.server.signal(Signal::TERM)?;
    let status = ctx.server.ended_within(WAIT_LIMIT).context("it waits for its grace")?;
    ensure!(status.success(), "it ended with {status}");
    drop((waiting, tracer));
    Ok(())
}

/// The server drains and says why: whoever is here is not reset, and it does not try again and again.
fn accept_fails_for_ever(ctx: &mut Ctx, error: &str) -> Result<()> {
    let mut bystander = bystander(ctx)?;
    let tracer = Tracer::attach(&ctx.server.workers(), "accept4", &format!("error={error}"))?;
    // One that sleeps until somebody comes does not notice before that. This client may be served first: it must leave
    // then.
    drop(asking(ctx));
    let status = ctx.server.ended_within(WAIT_LIMIT).context("it goes on without its listener")?;
    ensure!(status.code() == Some(1), "it ended with {status}");
    bystander.iter_mut().try_for_each(|client| client.expect_end()).context("the bystander")?;
    for (thread, times) in tracer.detach()? {
        ensure!(times.len() <= 3, "thread {thread} tried {} times", times.len());
    }
    let log = ctx.server.whole_log();
    let lines: Vec<&str> = log.lines().filter(|line| line.starts_with("error: ")).collect();
    ensure!(lines.len() == 1 && lines[0].contains("listener"), "not one clear line: {lines:?}");
    Ok(())
}

/// Each worker says so and dies; others take their place, for whom accept works.
fn accept_fails_for_ever_in_workers(ctx: &mut Ctx) -> Result<()> {
    let before = ctx.server.workers();
    let tracer = Tracer::attach(&before, "accept4", "error=EINVAL")?;
    asks_until_a_call_fails(ctx, &tracer).context("once a worker was replaced")?;
    tracer.detach()?;
    let complaint = ctx.server.wait_for_log(WAIT_LIMIT, |log| log.contains("error: the listener").then_some(()));
    complaint.context("no worker says why it ended")?;
    ensure!(ctx.server.workers() != before, "the workers are the same as before");
    Ok(())
}

/// Clients are answered one after another, until calls have failed meanwhile. (A thread that has been in the call all
/// along serves one client first.)
fn asks_until_a_call_fails(ctx: &Ctx, tracer: &Tracer) -> Result<()> {
    let until = wait_for(WAIT_LIMIT, || {
        let answered = asking(ctx).and_then(|mut client| answered(&mut client));
        let is_over = answered.is_err() || tracer.injected().is_ok_and(|injected| !injected.is_empty());
        is_over.then_some(answered)
    });
    until.context("no call fails")?
}

/// Who cannot be waited for is let go without a word; everyone else stays.
fn no_room_in_epoll(ctx: &mut Ctx) -> Result<()> {
    let before = ctx.server.usage().descriptors;
    let (mut served, mut refused) = (Vec::new(), 0);
    for _ in 0..CROWD {
        // It may be gone before it asks.
        let Ok(mut client) = asking(ctx) else {
            refused += 1;
            continue;
        };
        match answered(&mut client) {
            Ok(()) => served.push(client),
            Err(error) => {
                let error = error.to_string();
                ensure!(error.contains("end of file") || error.contains("reset"), "one of the refused: {error}");
                refused += 1;
            }
        }
    }
    let seen = format!("{} clients were served, {refused} refused", served.len());
    ensure!(served.len() >= FIRST_REFUSED / 2 && refused > 0, "{seen}");
    served
        .iter_mut()
        .try_for_each(|client| client.ask_all())
        .context("one who was here before the others were refused")?;
    drop(served);
    // Honest clients need low numbers again.
    let gone = wait_for(WAIT_LIMIT, || (ctx.server.usage().descriptors <= before).then_some(()));
    gone.context("descriptors are left open")
}

/// Rule 7 for the client that gets no thread.
fn no_thread_for_a_client(ctx: &mut Ctx) -> Result<()> {
    let mut bystander = bystander(ctx)?;
    let tracer = Tracer::attach(&ctx.server.workers(), "clone3,clone", "error=EAGAIN:when=1")?;
    let mut unlucky = ctx.client()?;
    unlucky.expect(b"Error: too many clients.")?;
    unlucky.expect_end()?;
    let line = " rejected: no thread can be started for it; raise the limit of threads\n";
    ctx.server.wait_for_log(WAIT_LIMIT, |log| log.contains(line).then_some(())).context("the log does not say why")?;
    others_are_served(ctx, &mut bystander)?;
    tracer.detach()?;
    Ok(())
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
    let lines: Vec<&[u8]> = output.stderr.split_inclusive(|&b| b == b'\n').collect();
    let is_right = output.status.code() == Some(1) && lines.len() == 1 && lines[0].starts_with(b"error: ");
    ensure!(is_right, "{}, stderr {}", output.status, shown(&output.stderr));
    ensure!(output.stdout.is_empty(), "it said that it listens: {}", shown(&output.stdout));
    Ok(())
}

/// Errors of accept() that were the failed client's own. Linux passes on what happened to its connection (accept(2)).
const CLIENTS_OWN: [&str; 8] =
    ["ECONNABORTED", "EPROTO", "ENETDOWN", "EHOSTUNREACH", "EPERM", "ETIMEDOUT", "EOPNOTSUPP", "ECONNRESET"];

/// Failures of one client each, after which there is a pause before each further try.
const IN_A_ROW: usize = 64;

const FOR_A_WHILE: Duration = Duration::from_secs(2);

/// How long a server leaves the listener alone when something is used up.
const BACK_OFF: Duration = Duration::from_millis(100);

/// The descriptors which the wrapper keeps out of epoll begin here.
const FIRST_REFUSED: usize = 64;

/// So many clients have one of those, also if two processes share them.
const CROWD: usize = 2 * FIRST_REFUSED + 8;

const REFUSE_EPOLL: &str = include_str!("refuse_epoll.py");
