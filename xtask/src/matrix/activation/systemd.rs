//! systemd-socket-activate, and LISTEN_FDS without it.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{Case, bare};
use crate::harness::capture::Capture;
use crate::harness::client::Client;
use crate::harness::group::Group;
use crate::harness::{PATIENCE, free_address, is_conformant, server, shown, tool, wait_for};
use crate::servers::Entry;

pub(crate) const CASES: &[Case] = &[
    bare("systemd_listen_fds", |entry, _| under_systemd(entry, &[], &[], true)),
    bare("systemd_inetd_wait", |entry, _| under_systemd(entry, &["--inetd"], &["--inetd", "wait"], false)),
    bare("systemd_inetd_nowait", |entry, _| {
        under_systemd(entry, &["--accept", "--inetd"], &["--inetd", "nowait", "-vv"], false)
    })
    .on(|entry| !entry.is_exhibit && entry.processes == 1),
    bare("listen_fds", |entry, _| listen_fds(entry, "$$", &[])),
    bare("listen_fds_of_another", listen_fds_of_another),
    bare("listen_fds_with_port", listen_fds_with_port),
];

/// The first client starts the server. With LISTEN_FDS it says where it listens; under --inetd it says nothing.
fn under_systemd(entry: &'static Entry, how: &[&str], arguments: &[&str], says_ready: bool) -> Result<()> {
    let activate = tool("systemd-socket-activate")?;
    let address = free_address()?;
    let inner = entry.command()?;
    let mut command = Command::new(activate);
    command
        .args(how)
        .args(["-l", &address.to_string()])
        .arg(inner.get_program())
        .args(inner.get_args())
        .args(arguments);
    let mut group = start(&mut command, Stdio::null())?;
    let stdout = Capture::of(group.child().stdout.take().expect("it is piped"))?;
    let stderr = Capture::of(group.child().stderr.take().expect("it is piped"))?;
    let first = wait_for(PATIENCE, || Client::connect(address).ok());
    let judged = first.context("systemd-socket-activate does not listen").and_then(|mut client| {
        client.ask_all()?;
        drop(client);
        is_conformant(address)
    });
    judged.with_context(|| format!("stderr: {}", stderr.text()))?;
    if says_ready {
        let line = format!("listening on {address}\n");
        let said = stdout.wait_for(PATIENCE, |said| (said == line.as_bytes()).then_some(()));
        said.with_context(|| format!("no ready line but {}", stdout.text()))
    } else {
        ensure!(stdout.text().is_empty(), "it said {}", stdout.text());
        Ok(())
    }
}

/// Descriptor 3 is the listener if LISTEN_PID is this process.
fn listen_fds(entry: &'static Entry, pid: &str, arguments: &[&str]) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut group = activated(entry, &listener, pid, arguments)?;
    let stdout = Capture::of(group.child().stdout.take().expect("it is piped"))?;
    let line = format!("listening on {address}\n");
    let said = stdout.wait_for(PATIENCE, |said| (said == line.as_bytes()).then_some(()));
    said.with_context(|| format!("no ready line for {address} but {}", stdout.text()))?;
    is_conformant(address)?;
    kill_process(Pid::from_raw(group.id()).context("a process")?, Signal::TERM)?;
    let status = group.ended_within(PATIENCE).context("still there after SIGTERM")?;
    ensure!(status.success(), "it ended with {status}");
    // The listener is ours, and still works.
    Client::connect(address).map(drop)
}

/// What was meant for another process is none of its business: it listens where it is told.
fn listen_fds_of_another(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut group = activated(entry, &listener, "1", &["-p", "0"])?;
    let stdout = Capture::of(group.child().stdout.take().expect("it is piped"))?;
    let line =
        stdout.wait_for(PATIENCE, |said| said.ends_with(b"\n").then(|| String::from_utf8_lossy(said).into_owned()));
    let line = line.context("no ready line")?;
    let address = line.trim_end().strip_prefix("listening on ").context("a ready line")?.parse()?;
    ensure!(listener.local_addr()? != address, "it took the listener of another");
    Client::connect(address)?.ask_all()
}

/// Two listeners are one too many.
fn listen_fds_with_port(entry: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut group = activated(entry, &listener, "$$", &["-p", "0"])?;
    let stderr = Capture::of(group.child().stderr.take().expect("it is piped"))?;
    let status = group.ended_within(PATIENCE).context("it took both")?;
    let said = stderr.at_end();
    ensure!(status.code() == Some(2) && said.starts_with(b"error: "), "{status}, {}", shown(&said));
    Ok(())
}

/// Started with the listener as descriptor 3.
fn activated(entry: &'static Entry, listener: &TcpListener, pid: &str, arguments: &[&str]) -> Result<Group> {
    start(&mut server::activated(entry, pid, arguments)?, OwnedFd::from(listener.try_clone()?).into())
}

fn start(command: &mut Command, stdin: Stdio) -> Result<Group> {
    command.env_remove("RUST_LOG").stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    Group::start(command)
}
