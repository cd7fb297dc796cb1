//! Without inetd: this process does itself what inetd and systemd do.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{Case, bare};
use crate::harness::client::{APHORISMS, Client};
use crate::harness::group::Group;
use crate::harness::{Server, WAIT_LIMIT, is_conformant, wait_for};
use crate::servers::Entry;

pub(crate) const CASES: &[Case] = &[
    bare("stdin_is_the_listener", stdin_is_the_listener),
    bare("stdin_is_the_client", stdin_is_the_client),
    bare("no_talk_to_the_client", no_talk_to_the_client),
    bare("idle_exit", idle_exit),
    bare("nobody_is_lost_in_a_restart", nobody_is_lost_in_a_restart),
    bare("queued_clients_wait_for_the_next_server", queued_clients_wait_for_the_next_server),
    bare("nowait_drains", nowait_drains),
];

/// Served from a listener that somebody else opened, who keeps it.
fn stdin_is_the_listener(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut server = start_on(entry, &listener, &[])?;
    is_conformant(listener.local_addr()?)?;
    ends_after_sigterm(&mut server)
}

/// One process for each client, which ends with it.
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
                let status = server.ended_within(WAIT_LIMIT).context("its client has gone, the server has not")?;
                ensure!(status.success(), "it ended with {status}");
            }
            Ok(())
        });
        let checked = is_conformant(address);
        is_over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(address));
        super_server.join().map_err(|_| anyhow!("the super-server panicked"))?.and(checked)
    })
}

/// Workers have nothing to share where there is one client.
fn is_refused(entry: &'static Entry) -> Result<()> {
    let mut command = entry.command()?;
    let output = crate::harness::group::run_within(WAIT_LIMIT, command.args(["--inetd", "nowait"]))?;
    ensure!(output.status.code() == Some(2), "{}", output.status);
    Ok(())
}

/// stdin, stdout and stderr are all the client, as inetd arranges it, and the server has a lot to say.
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
        let status = server.ended_within(WAIT_LIMIT).context("its client has gone, the server has not")?;
        ensure!(status.success(), "it ended with {status}");
    }
    Ok(())
}

/// It leaves when nobody has been here for so long, and not while somebody is.
fn idle_exit(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let start = Instant::now();
    // It waits already, so that the server does not leave just when it comes.
    let mut client = Client::connect(listener.local_addr()?)?;
    let mut server = start_on(entry, &listener, &["--idle-exit", "400ms"])?;
    client.ask_all()?;
    if entry.processes == 1 {
        let early = server.ended_within(Duration::from_millis(1200));
        ensure!(early.is_none(), "it left while somebody was here");
        client.ask_all()?;
    }
    drop(client);
    let status = server.ended_within(WAIT_LIMIT).context("it does not leave")?;
    ensure!(status.success(), "it ended with {status}");
    ensure!(start.elapsed() >= Duration::from_millis(400), "it left after {:?}", start.elapsed());
    // Whoever comes now waits for the next one.
    let mut next = Client::connect(listener.local_addr()?)?;
    next.send(APHORISMS[0].0)?;
    let mut server = start_on(entry, &listener, &[])?;
    next.expect(APHORISMS[0].1)?;
    drop(next);
    ends_after_sigterm(&mut server)
}

/// A server that drains leaves the clients in the backlog to the next one, also those that have not asked yet.
fn queued_clients_wait_for_the_next_server(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut old = Server::start_on(&listener, entry, &[])?;
    Client::connect(address)?.ask_all()?;
    old.signal(Signal::TERM)?;
    // A worker without clients may stop before it has logged that it drains.
    let has_begun = |line: &&str| line.contains("] draining: ") || line.contains("] stopped");
    let process = |line: &str| line.split_once("[INFO ")?.1.split('/').next().map(str::to_owned);
    let draining = || old.log().lines().filter(has_begun).filter_map(process).collect::<BTreeSet<_>>().len();
    let all_drain = || (draining() >= entry.processes).then_some(());
    wait_for(WAIT_LIMIT, all_drain).with_context(|| format!("not all processes drain: {}", old.log()))?;
    let mut queued = (0..QUEUED).map(|_| Client::connect(address)).collect::<Result<Vec<_>>>()?;
    // Threads that sleep in accept() take the first ones, and serve them.
    queued.iter_mut().take(SLEEPERS).try_for_each(|client| client.send(APHORISMS[0].0))?;
    let status = old.ended_within(WAIT_LIMIT).context("it does not end")?;
    ensure!(status.success(), "it ended with {status}");
    let mut new = Server::start_on(&listener, entry, &[])?;
    for (number, client) in queued.iter_mut().enumerate() {
        let served = if number < SLEEPERS { client.expect(APHORISMS[0].1) } else { client.ask_all() };
        served.with_context(|| format!("client {number} of {QUEUED} in the backlog"))?;
        client.end_sending()?;
        client.expect_end()?;
    }
    new.stop(WAIT_LIMIT)
}

/// The listener stays with us while one server drains and another begins: not one of many clients notices.
fn nobody_is_lost_in_a_restart(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut old = start_on(entry, &listener, &[])?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let coming = || -> Result<usize> {
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
        let coming: Vec<_> = (0..2).map(|_| scope.spawn(coming)).collect();
        thread::sleep(Duration::from_millis(100));
        let restarted = start_on(entry, &listener, &[]).and_then(|mut new| {
            ends_after_sigterm(&mut old)?;
            thread::sleep(Duration::from_millis(100));
            is_over.store(true, Ordering::Relaxed);
            let served = coming.into_iter().map(|client| client.join().map_err(|_| anyhow!("a client panicked"))?);
            let served = served.collect::<Result<Vec<_>>>()?;
            ensure!(served.iter().all(|&count| count > 0), "nobody came");
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
    signal(&server, Signal::TERM)?;
    client.expect(APHORISMS[0].1)?;
    client.expect_end()?;
    drop(client);
    let status = server.ended_within(WAIT_LIMIT).context("the drain does not end")?;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}

/// `--inetd wait`, as inetd starts it: the listener is stdin, stdout and stderr.
fn start_on(entry: &Entry, listener: &TcpListener, arguments: &[&str]) -> Result<Group> {
    let descriptor = || listener.try_clone().map(OwnedFd::from);
    start(entry.command()?.args(["--inetd", "wait"]).args(arguments), descriptor)
}

/// `--inetd nowait`: the client is all three.
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
    signal(server, Signal::TERM)?;
    let status = server.ended_within(WAIT_LIMIT).context("still there after SIGTERM")?;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}

fn signal(server: &Group, signal: Signal) -> Result<()> {
    kill_process(Pid::from_raw(server.id()).context("a process")?, signal).context("cannot signal it")
}

/// Clients in the backlog, and how many of them threads may take that are asleep in accept() when the signal comes.
const QUEUED: usize = 8;
const SLEEPERS: usize = 4;
