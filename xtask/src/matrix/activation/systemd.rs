//! Activation by systemd-socket-activate, and LISTEN_FDS without it.

use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::{Case, bare};
use crate::harness::client::Client;
use crate::harness::group::Group;
use crate::harness::server::{self, LISTEN_FDS};
use crate::harness::{WAIT_LIMIT, activation, expect_conformant, free_address, shown, tool, wait_for};
use crate::servers::Entry;

pub(crate) const CASES: &[Case] = &[
    bare("systemd_listen_fds", |entry, _| under_systemd(entry, &[], &[], true)),
    bare("systemd_inetd_wait", |entry, _| under_systemd(entry, &["--inetd"], &["--inetd", "wait"], false)),
    bare("systemd_inetd_nowait", |entry, _| {
        under_systemd(entry, &["--accept", "--inetd"], &["--inetd", "nowait", "-vv"], false)
    })
    .on(|entry| !entry.is_example && entry.processes == 1),
    bare("systemd_two_listeners", systemd_two_listeners).on(Entry::is_first_of_package),
    bare("listen_fds", listen_fds),
    bare("listen_fds_of_another", listen_fds_of_another),
    bare("listen_fds_with_port", listen_fds_with_port),
    bare("listen_fds_not_one", listen_fds_not_one),
    bare("listen_fds_no_listener", listen_fds_no_listener).on(Entry::is_first_of_package),
];

/// The first client starts the server. With LISTEN_FDS it prints the ready line; under --inetd it prints nothing.
fn under_systemd(entry: &'static Entry, how: &[&str], arguments: &[&str], says_ready: bool) -> Result<()> {
    let address = free_address()?;
    let mut server = entry.command()?;
    server.args(arguments);
    let (_group, stdout) = activation::systemd(how, address, &server)?;
    if says_ready {
        let line = format!("listening on {address}\n");
        let printed = stdout.wait_for(WAIT_LIMIT, |printed| (printed == line.as_bytes()).then_some(()));
        printed.with_context(|| format!("no ready line, but {}", stdout.text()))
    } else {
        ensure!(stdout.text().is_empty(), "it printed {}", stdout.text());
        Ok(())
    }
}

/// Descriptor 3 is the listener if LISTEN_PID is this process.
fn listen_fds(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut group = activated(entry, &listener, LISTEN_FDS, &[])?;
    let stdout = group.capture_stdout()?;
    let stderr = group.capture_stderr()?;
    let line = format!("listening on {address}\n");
    let printed = stdout.wait_for(WAIT_LIMIT, |printed| (printed == line.as_bytes()).then_some(()));
    printed.with_context(|| format!("no ready line for {address} but {}", stdout.text()))?;
    expect_conformant(address)?;
    // Another process has set the backlog of this listener: the server cannot know it.
    ensure!(stderr.text().contains(" clients at once, no backlog of its own, "), "it logs {}", stderr.text());
    group.signal(Signal::TERM)?;
    group.ends_well()?;
    // The test has kept the listener, which still works.
    Client::connect(address).map(drop)
}

/// A server ignores LISTEN_FDS that is meant for another process, and listens as its command line says.
fn listen_fds_of_another(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    for variables in
        ["LISTEN_PID=1 LISTEN_FDS=1", "LISTEN_PID=1 LISTEN_FDS=2", "LISTEN_PID= LISTEN_FDS=1", "LISTEN_FDS=1"]
    {
        let mut group = activated(entry, &listener, variables, &["-p", "0"])?;
        let stdout = group.capture_stdout()?;
        let line = stdout.wait_for(WAIT_LIMIT, |printed| {
            printed.ends_with(b"\n").then(|| String::from_utf8_lossy(printed).into_owned())
        });
        let line = line.context("no ready line")?;
        let address = line.trim_end().strip_prefix("listening on ").context("a ready line")?.parse()?;
        ensure!(listener.local_addr()? != address, "it took the listener of another process");
        Client::connect(address)?.ask_all()?;
    }
    Ok(())
}

/// A server refuses to start with an inherited listener and a port of its own.
fn listen_fds_with_port(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut group = activated(entry, &listener, LISTEN_FDS, &["-p", "0"])?;
    let stderr = group.capture_stderr()?;
    let status = group.ended_within(WAIT_LIMIT).context("the server does not exit")?;
    let printed = stderr.at_end();
    ensure!(status.code() == Some(2) && printed.starts_with(b"error: "), "{status}, {}", shown(&printed));
    Ok(())
}

/// A server refuses to start with any other number of listeners: clients of one that is not served would hang.
fn listen_fds_not_one(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    for count in ["2", "0", "-1", "two", "", "4294967297"] {
        let mut group = activated(entry, &listener, &format!("LISTEN_PID=$$ LISTEN_FDS={count}"), &[])?;
        is_refused(&mut group, &[&format!("LISTEN_FDS={count},"), "ListenStream="])?;
    }
    Ok(())
}

/// A server that receives two listeners, as from a unit with two addresses, exits with an error that says what to write
/// instead.
fn systemd_two_listeners(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let activate = tool("systemd-socket-activate")?;
    let (address, other) = (free_address()?, free_address()?);
    let inner = entry.command()?;
    let mut command = Command::new(activate);
    command
        .args(["-l", &address.to_string(), "-l", &other.to_string()])
        .arg(inner.get_program())
        .args(inner.get_args());
    let mut group = start(&mut command, Stdio::null())?;
    let _client =
        wait_for(WAIT_LIMIT, || Client::connect(address).ok()).context("systemd-socket-activate does not listen")?;
    is_refused(&mut group, &["LISTEN_FDS=2,", "ListenStream="])
}

/// A server refuses a descriptor that is no TCP listener: a client (Accept=yes), a datagram socket, a Unix socket, or a
/// file.
fn listen_fds_no_listener(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (local, _peer) = UnixStream::pair()?;
    let others: [Stdio; 4] =
        [OwnedFd::from(client).into(), OwnedFd::from(datagrams).into(), OwnedFd::from(local).into(), Stdio::null()];
    for stdin in others {
        is_refused(
            &mut start(&mut server::activated(entry, LISTEN_FDS, &[])?, stdin)?,
            &["descriptor 3 ", "ListenStream="],
        )?;
    }
    Ok(())
}

/// Expects status 1, nothing on stdout, and one error with all these words. systemd-socket-activate prints other lines.
fn is_refused(group: &mut Group, says: &[&str]) -> Result<()> {
    let stdout = group.capture_stdout()?;
    let stderr = group.capture_stderr()?;
    let status =
        group.ended_within(WAIT_LIMIT).with_context(|| format!("it does not exit, and prints {}", stdout.text()))?;
    let (silence, printed) = (stdout.at_end(), String::from_utf8_lossy(&stderr.at_end()).into_owned());
    let errors: Vec<&str> = printed.lines().filter(|line| line.starts_with("error: ")).collect();
    let is_one = errors.len() == 1 && says.iter().all(|what| errors[0].contains(what));
    ensure!(status.code() == Some(1) && silence.is_empty() && is_one, "{status}: {printed}");
    Ok(())
}

/// Starts a server with the listener as descriptor 3.
fn activated(entry: &'static Entry, listener: &TcpListener, variables: &str, arguments: &[&str]) -> Result<Group> {
    start(&mut server::activated(entry, variables, arguments)?, OwnedFd::from(listener.try_clone()?).into())
}

fn start(command: &mut Command, stdin: Stdio) -> Result<Group> {
    command.env_remove("RUST_LOG").stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    Group::start(command)
}
