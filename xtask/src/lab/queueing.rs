//! Before a client is served: the backlog, who takes it from there, and what a connection proves.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use super::Experiment;
use super::apparatus::{asked, guest, ms, server};
use super::notes::Notes;
use crate::harness::client::APHORISMS;
use crate::harness::group::run_within;
use crate::harness::process::is_stopped;
use crate::harness::{Client, PATIENCE, Server, strace, wait_for};
use crate::workspace;

pub(super) const BACKLOG: Experiment = Experiment {
    name: "backlog",
    claim: "With listen(1), further clients cannot connect while one is served.",
    question: "one client is served by zen-single --backlog 1. How many more can connect, and what happens to the next?",
    run: backlog,
    why: "a backlog of b takes b + 1. The kernel completes their handshakes by itself: connecting is not being served. When it is full \
          the kernel drops the next SYN without a word, and the client's kernel sends it again a second later, whether or not \
          there has been room for long.",
    read: &["zen-proto/src/server/listener.rs", "zen-single/src/serve.rs"],
    is_alone: false,
};

fn backlog(notes: &mut Notes) -> Result<()> {
    for b in [1, 4] {
        let server = server("single", &["--backlog", &b.to_string()])?;
        let _served = guest(&server)?;
        let mut waiting = Vec::new();
        while waiting.len() < 10
            && let Ok(stream) = TcpStream::connect_timeout(&server.address(), SHORT)
        {
            waiting.push(stream);
        }
        notes.saw(format!("backlog {b}: one is served, {} more connect", waiting.len()));
        ensure!(waiting.len() == b + 1, "{b} should take {}", b + 1);
    }
    notes.doing("one is served, two wait, a third knocks");
    let server = server("single", &["--backlog", "1"])?;
    let served = guest(&server)?;
    let (mut first, second) = (server.client()?, server.client()?);
    first.send(APHORISMS[0].0)?;
    first.expect_silence(SHORT / 2).context("one who is connected only")?;
    let (third, room) = thread::scope(|scope| {
        let address = server.address();
        let knocking = scope.spawn(move || {
            let start = Instant::now();
            Client::connect(address).map(|_| start.elapsed())
        });
        thread::sleep(SHORT);
        drop(served);
        first.expect(APHORISMS[0].1).context("it is its turn")?;
        drop(first);
        Ok::<_, anyhow::Error>((knocking.join().map_err(|_| anyhow!("it panicked"))??, SHORT))
    })?;
    drop(second);
    notes.saw("one who is connected asks, and hears nothing until the one before has left");
    notes.saw(format!("the next hangs in connect() for {}, though there was room after {}", ms(third), ms(room)));
    ensure!(third > 3 * room, "it was to be let in a second later");
    Ok(())
}

pub(super) const ONE_LISTEN: Experiment = Experiment {
    name: "one-listen",
    claim: "In a threaded server, every thread listens and accepts.",
    question: "zen-threaded has 4 workers. How often does it call listen(), and who gets which of 60 clients?",
    run: one_listen,
    why: "listening is a property of the socket, and there is one. Four threads sleep in accept() on it; the kernel wakes the one \
          that has slept longest, and no other.",
    read: &["zen-threaded/src/workers.rs"],
    is_alone: true,
};

fn one_listen(notes: &mut Notes) -> Result<()> {
    let mut command = Command::new(strace()?);
    command.args(["-f", "-e", "trace=listen,accept4"]).arg(workspace::binary("zen-threaded")?).args(["-p", "0"]);
    let server = Server::run(&mut command)?;
    for n in 1..=CLIENTS {
        notes.doing(&format!("client {n} of {CLIENTS}"));
        guest(&server)?;
        server.falls_asleep(PATIENCE)?;
    }
    let log = server.log();
    let listens = log.lines().filter(|line| line.contains("listen(")).count();
    let accepts = log.lines().filter_map(accepted_by);
    let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
    accepts.for_each(|thread| *shares.entry(thread).or_default() += 1);
    let counts: Vec<usize> = shares.values().copied().collect();
    notes.saw(format!("listen() is called {listens} time"));
    notes.saw(format!("accept() has returned a client in {} threads: {counts:?} of them", counts.len()));
    ensure!(listens == 1 && counts.len() == 4, "one listen, four who accept");
    let share = CLIENTS / 4;
    ensure!(counts.iter().all(|count| count.abs_diff(share) <= share / 2), "not even");
    Ok(())
}

/// The thread, in a line of strace in which accept4 gives a client: `[pid 7] <... accept4 resumed>…) = 4`.
fn accepted_by(line: &str) -> Option<&str> {
    let (call, result) = line.rsplit_once(" = ")?;
    let has_client = call.contains("accept4") && !result.starts_with('-') && !result.starts_with('?');
    let pid = line.strip_prefix("[pid")?.trim_start().split(']').next()?;
    has_client.then_some(pid)
}

pub(super) const SPREAD: Experiment = Experiment {
    name: "spread",
    claim: "A listener that processes share spreads the clients over them.",
    question: "60 clients come. How many does each of 4 blocking processes get, and how many each of 2 event loops that share the listener?",
    run: spread,
    why: "who sleeps in accept() is woken in order, one for each client, and takes one. Event loops are all told, and race: the first \
          to wake takes whoever waits there, so that a burst goes nearly whole to one of them, and clients who come one by one go to \
          either, as it happens. With --loops one loop accepts, and deals the clients out.",
    read: &["zen-threaded/src/workers.rs", "zen-poll/src/acceptor.rs"],
    is_alone: true,
};

fn spread(notes: &mut Notes) -> Result<()> {
    notes.doing("blocking processes, one client after the other");
    let blocking = server("processes", &["-v"])?;
    for _ in 0..CLIENTS {
        guest(&blocking)?;
        blocking.falls_asleep(PATIENCE)?;
    }
    let parts = shares(&blocking, " accepted")?;
    notes.saw(format!("4 blocking processes: {parts:?} of {CLIENTS}"));

    notes.doing("event loops in processes, one client after the other");
    let looping = server("poll-processes", &["-v"])?;
    let stay = (0..CLIENTS).map(|_| guest(&looping)).collect::<Result<Vec<_>>>()?;
    notes.saw(format!("2 event loops in processes, one client after the other: {:?}", shares(&looping, " accepted")?));
    drop((stay, looping));

    let mut busiest = Vec::new();
    for burst in 1..=BURSTS {
        notes.doing(&format!("event loops in processes, burst {burst} of {BURSTS}"));
        let looping = server("poll-processes", &["-v"])?;
        let stay = (0..CLIENTS).map(|_| looping.client()).collect::<Result<Vec<_>>>()?;
        busiest.extend(shares(&looping, " accepted")?.last().copied());
        drop(stay);
    }
    notes.saw(format!("the same, all at once: the busier gets {busiest:?} in {BURSTS} bursts"));

    notes.doing("event loops in threads");
    let dealt = server("poll-loops", &["-v"])?;
    drop((0..CLIENTS).map(|_| guest(&dealt)).collect::<Result<Vec<_>>>()?);
    // One loop accepts for all: who serves a client shows when it goes.
    let dealt = shares(&dealt, " closed: ")?;
    notes.saw(format!("2 loops, one of which deals the clients out: {dealt:?}"));

    let is_even = |shares: &[usize], parts: usize| {
        let share = CLIENTS / parts;
        shares.len() == parts && shares.iter().all(|count| count.abs_diff(share) <= share / 2)
    };
    ensure!(is_even(&parts, 4) && is_even(&dealt, 2), "where clients are dealt out the shares were to be even");
    ensure!(busiest.iter().any(|&count| count > CLIENTS * 3 / 5), "of a burst, one loop was to get most");
    Ok(())
}

/// How many clients of each process or thread have `come` or are closed, the fewest first: the lines `TIME [LEVEL PID/THREAD] CLIENT …`.
fn shares(server: &Server, what: &str) -> Result<Vec<usize>> {
    let counted = |log: &str| {
        let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
        for line in log.lines().filter(|line| line.contains(what)) {
            let who = line.split_once("] ").and_then(|(head, _)| head.split_whitespace().last());
            *shares.entry(who.unwrap_or_default()).or_default() += 1;
        }
        let mut shares: Vec<usize> = shares.into_values().collect();
        shares.sort_unstable();
        (shares.iter().sum::<usize>() >= CLIENTS).then_some(shares)
    };
    server.wait_for_log(PATIENCE, counted).context("the log does not show every client")
}

/// How many clients come.
const CLIENTS: usize = 60;

/// How often they come at once.
const BURSTS: usize = 5;

pub(super) const FROZEN: Experiment = Experiment {
    name: "frozen",
    claim: "A server that lets one connect is alive.",
    question: "zen-single is stopped by SIGSTOP: it executes nothing. Can a health check connect? Does a question tell more?",
    run: frozen,
    why: "the kernel completes handshakes for a process that is stopped, stuck or too busy, until its backlog is full. Only an answer proves \
          that somebody is there to give it.",
    read: &["zen-client/src/check.rs"],
    is_alone: false,
};

fn frozen(notes: &mut Notes) -> Result<()> {
    let server = server("single", &[])?;
    server.signal(Signal::STOP)?;
    wait_for(PATIENCE, || is_stopped(server.pid()).then_some(())).context("it does not stop")?;
    notes.doing("the server is stopped");
    let start = Instant::now();
    let mut client = server.client().context("a connect check")?;
    notes.saw(format!("stopped: connect() succeeds after {}: \"up\"", ms(start.elapsed())));
    let is_up = |server: &Server| -> Result<bool> {
        let (host, port) = (server.address().ip().to_string(), server.address().port().to_string());
        let mut judge = Command::new(workspace::binary("zen-client")?);
        judge.args(["check", &host, "-p", &port, "--quick", "--timeout", "300ms"]);
        Ok(run_within(PATIENCE, &mut judge)?.status.success())
    };
    ensure!(!is_up(&server)?, "zen-client check --quick says up");
    notes.saw("stopped: zen-client check --quick, which asks, says \"down\"");
    client.send(APHORISMS[2].0)?;
    client.expect_silence(SHORT)?;
    server.signal(Signal::CONT)?;
    client.expect(APHORISMS[2].1).context("it goes on")?;
    notes.saw("it goes on: the client that connected meanwhile has its answer");
    Ok(())
}

pub(super) const REUSE: Experiment = Experiment {
    name: "reuse",
    claim: "SO_REUSEADDR is set before bind(), as a matter of course.",
    question: "a server that has just closed a connection ends. Can another bind its port at once, with the option and without?",
    run: reuse,
    why: "who closes first keeps the connection for a minute in TIME_WAIT, lest a late segment be taken for one of the next connection. Without \
          SO_REUSEADDR that occupies the port: a restart fails for as long.",
    read: &["zen-proto/src/server/listener.rs"],
    is_alone: false,
};

fn reuse(notes: &mut Notes) -> Result<()> {
    let mut first = server("single", &[])?;
    let address = first.address();
    let mut client = guest(&first)?;
    first.signal(Signal::TERM)?;
    client.expect_end().context("a drain closes first")?;
    drop(client);
    first.ended_within(PATIENCE).context("it does not end")?;
    let waits = wait_for(PATIENCE, || is_in_time_wait(address).then_some(()));
    waits.context("no connection is in TIME_WAIT")?;
    let bound = Socket::new(Domain::for_address(address), Type::STREAM, None)?.bind(&address.into());
    let error = bound.err().context("bind() without SO_REUSEADDR succeeds")?;
    notes.saw(format!("old connections are in TIME_WAIT. Without the option: {error}"));
    let port = address.port().to_string();
    let second = Server::run(Command::new(workspace::binary("zen-single")?).args(["-p", &port]))?;
    let time = asked(&mut second.client()?)?;
    notes.saw(format!("with it: zen-single starts on port {port} again and answers in {}", ms(time)));
    Ok(())
}

/// Whether the kernel keeps a closed connection of this port: state 06 in /proc/net/tcp.
fn is_in_time_wait(address: SocketAddr) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let port = format!(":{:04X}", address.port());
    table.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1).is_some_and(|local| local.ends_with(&port)) && fields.get(3) == Some(&"06")
    })
}

/// Long enough to say that nothing happens.
const SHORT: Duration = Duration::from_millis(250);
