//! Activation without inetd and systemd: the test itself does what they do.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::Signal;

use super::{Case, bare};
use crate::harness::client::{APHORISMS, Client};
use crate::harness::group::Group;
use crate::harness::log::writer_and_text;
use crate::harness::{Server, WAIT_LIMIT, expect_conformant, wait_for};
use crate::servers::Entry;

pub(crate) const CASES: &[Case] = &[
    bare("stdin_is_the_listener", stdin_is_the_listener),
    bare("stdin_is_the_client", stdin_is_the_client),
    bare("no_talk_to_the_client", no_talk_to_the_client),
    bare("idle_exit", idle_exit),
    bare("no_client_is_lost_in_a_restart", no_client_is_lost_in_a_restart),
    bare("queued_clients_wait_for_the_next_server", queued_clients_wait_for_the_next_server),
    bare("nowait_drains", nowait_drains),
];

/// Serves from a listener that another process has opened and keeps.
fn stdin_is_the_listener(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut server = start_on(entry, &listener, &[])?;
    expect_conformant(listener.local_addr()?)?;
    ends_after_sigterm(&mut server)
}

/// Serves each client with a process of its own, which ends with the client.
fn stdin_is_the_client(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    if entry.processes > 1 {
        return is_refused(entry);
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let super_server = scope.spawn(|| -> Result<()> {
            let mut servers = Vec::new();
            for stream in listener.incoming() {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                servers.push(start_for(entry, stream?, &["-vv"])?);
            }
            for mut server in servers {
                server.ends_well().context("the client has closed")?;
            }
            Ok(())
        });
        let checked = expect_conformant(address);
        is_over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(address));
        super_server.join().map_err(|_| anyhow!("the super-server panicked"))?.and(checked)
    })
}

/// Expects that `--inetd nowait` with `--processes` is refused, because one client needs no workers.
fn is_refused(entry: &'static Entry) -> Result<()> {
    let mut command = entry.command()?;
    let output = crate::harness::group::run_within(WAIT_LIMIT, command.args(["--inetd", "nowait"]))?;
    ensure!(output.status.code() == Some(2), "{}", output.status);
    Ok(())
}

/// stdin, stdout and stderr are the client's socket, as under inetd. The client must receive no log line, even at -vv.
fn no_talk_to_the_client(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    if entry.processes > 1 {
        return is_refused(entry);
    }
    for (questions, answers) in [
        (&b"Simple is better than?"[..], &b"complex."[..]),
        (b"Who panics?", b""),
        (&[b'x'; 300], b"Error: question too long."),
        (b"Simple is bet", b""),
    ] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut client = Client::connect(listener.local_addr()?)?;
        let mut server = start_for(entry, listener.accept()?.0, &["-vv", "--panic-on", "Who panics?"])?;
        client.send(questions)?;
        client.expect(answers)?;
        client.end_sending()?;
        client.expect_end()?;
        server.ends_well().context("the client has closed")?;
    }
    Ok(())
}

/// With --idle-exit a server exits after that time without a client, and not while a client is connected.
fn idle_exit(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let start = Instant::now();
    // A client waits already, so that the server does not exit just when it connects.
    let mut client = Client::connect(listener.local_addr()?)?;
    let mut server = start_on(entry, &listener, &["--idle-exit", "400ms"])?;
    client.ask_all()?;
    if entry.processes == 1 {
        let early = server.ended_within(Duration::from_millis(1200));
        ensure!(early.is_none(), "it exited while a client was connected");
        client.ask_all()?;
    }
    drop(client);
    server.ends_well()?;
    ensure!(start.elapsed() >= Duration::from_millis(400), "it exited after {:?}", start.elapsed());
    // A client that connects now waits for the next server.
    let mut next = Client::connect(listener.local_addr()?)?;
    next.send(APHORISMS[0].0)?;
    let mut server = start_on(entry, &listener, &[])?;
    next.expect(APHORISMS[0].1)?;
    drop(next);
    ends_after_sigterm(&mut server)
}

/// A draining server leaves the clients in the backlog to the next server, also those that have not asked yet.
fn queued_clients_wait_for_the_next_server(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut old = Server::start_on(&listener, entry, &[])?;
    Client::connect(address)?.ask_all()?;
    old.signal(Signal::TERM)?;
    // A worker without clients may stop before it has logged that it drains.
    let has_begun = |text: &str| text.starts_with("draining: ") || text.starts_with("stopped");
    let draining = |log: &str| {
        let begun = log.lines().filter_map(writer_and_text).filter(|(_, text)| has_begun(text));
        begun.filter_map(|(writer, _)| writer.split('/').next()).collect::<BTreeSet<_>>().len()
    };
    let all_drain = || (draining(&old.log()) >= entry.processes).then_some(());
    wait_for(WAIT_LIMIT, all_drain).with_context(|| format!("not all processes drain: {}", old.log()))?;
    let mut queued = (0..QUEUED).map(|_| Client::connect(address)).collect::<Result<Vec<_>>>()?;
    // Threads that sleep in accept() take the first ones, and serve them.
    queued.iter_mut().take(SLEEPERS).try_for_each(|client| client.send(APHORISMS[0].0))?;
    old.ends_well()?;
    let mut new = Server::start_on(&listener, entry, &[])?;
    for (number, client) in queued.iter_mut().enumerate() {
        let served = if number < SLEEPERS { client.expect(APHORISMS[0].1) } else { client.ask_all() };
        served.with_context(|| format!("client {number} of {QUEUED} in the backlog"))?;
        client.end_sending()?;
        client.expect_end()?;
    }
    new.stop(WAIT_LIMIT)
}

/// The test keeps the listener while one server drains and the next one starts: no client notices.
fn no_client_is_lost_in_a_restart(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut old = start_on(entry, &listener, &[])?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let connecting = || -> Result<usize> {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                Client::connect(address)?
                    .ask(APHORISMS[0].0, APHORISMS[0].1)
                    .with_context(|| format!("client {count}"))?;
                count += 1;
                thread::sleep(Duration::from_millis(1));
            }
            Ok(count)
        };
        let connecting: Vec<_> = (0..2).map(|_| scope.spawn(connecting)).collect();
        thread::sleep(Duration::from_millis(100));
        let restarted = start_on(entry, &listener, &[]).and_then(|mut new| {
            ends_after_sigterm(&mut old)?;
            thread::sleep(Duration::from_millis(100));
            is_over.store(true, Ordering::Relaxed);
            let served =
                connecting.into_iter().map(|client| client.join().map_err(|_| anyhow!("a client panicked"))?);
            let served = served.collect::<Result<Vec<_>>>()?;
            ensure!(served.iter().all(|&count| count > 0), "a client was never served");
            ends_after_sigterm(&mut new)
        });
        is_over.store(true, Ordering::Relaxed);
        restarted
    })
}

/// A server for one client drains like any other.
fn nowait_drains(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    if entry.processes > 1 {
        return is_refused(entry);
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut client = Client::connect(listener.local_addr()?)?;
    let mut server = start_for(entry, listener.accept()?.0, &["--delay", "200ms"])?;
    client.ask_all()?;
    client.send(APHORISMS[0].0)?;
    server.signal(Signal::TERM)?;
    client.expect(APHORISMS[0].1)?;
    client.expect_end()?;
    drop(client);
    server.ends_well()
}

/// Starts a server with `--inetd wait` as inetd does: the listener is stdin, stdout and stderr.
fn start_on(entry: &Entry, listener: &TcpListener, arguments: &[&str]) -> Result<Group> {
    let descriptor = || listener.try_clone().map(OwnedFd::from);
    start(entry.command()?.args(["--inetd", "wait"]).args(arguments), descriptor)
}

/// Starts a server with `--inetd nowait`: the client is stdin, stdout and stderr.
fn start_for(entry: &Entry, client: TcpStream, arguments: &[&str]) -> Result<Group> {
    let descriptor = || client.try_clone().map(OwnedFd::from);
    start(entry.command()?.args(["--inetd", "nowait"]).args(arguments), descriptor)
}

fn start(command: &mut Command, descriptor: impl Fn() -> io::Result<OwnedFd>) -> Result<Group> {
    let all: [Stdio; 3] = [descriptor()?.into(), descriptor()?.into(), descriptor()?.into()];
    let [stdin, stdout, stderr] = all;
    Group::start(command.env_remove("RUST_LOG").stdin(stdin).stdout(stdout).stderr(stderr))
}

fn ends_after_sigterm(server: &mut Group) -> Result<()> {
    server.signal(Signal::TERM)?;
    server.ends_well()
}

/// Clients in the backlog, and how many of them may be accepted by threads that sleep in accept() at the signal.
const QUEUED: usize = 8;
const SLEEPERS: usize = 4;
