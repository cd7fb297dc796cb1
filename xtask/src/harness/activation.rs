//! Programs that listen for a server and start it when a client connects: inetd and systemd-socket-activate.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::capture::Capture;
use super::client::Client;
use super::folder::Folder;
use super::group::{Group, run_within};
use super::{Missing, WAIT_LIMIT, expect_conformant, process, tool, wait_for};
use crate::servers::Entry;
use crate::workspace;

/// Starts systemd-socket-activate with these options and judges the server. Also returns their common stdout.
pub(crate) fn systemd(options: &[&str], address: SocketAddr, server: &Command) -> Result<(Group, Capture)> {
    let mut command = Command::new(tool("systemd-socket-activate")?);
    command.args(options).args(["-l", &address.to_string()]).arg(server.get_program()).args(server.get_args());
    judged(&mut command, address)
}

/// Starts inetd with one line of configuration and judges the server. `kind` is the fields socket type, protocol and
/// wait or nowait, such as `stream tcp wait`.
pub(crate) fn inetd(entry: &Entry, address: SocketAddr, kind: &str, arguments: &str) -> Result<Group> {
    let name = run_within(WAIT_LIMIT, Command::new("id").arg("-un"))?;
    // A container that was started with a numeric user id has no name for it.
    ensure!(name.status.success(), Missing("a name for this user, which inetd needs,".to_owned()));
    let user = String::from_utf8(name.stdout)?;
    let server = entry.command()?;
    let own = server.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    let (user, program) = (user.trim(), entry.package);
    // The path is relative to inetd's working directory: a field of inetd.conf cannot contain a space.
    let line = format!("{address} {kind} {user} ./{program} {program} {own} {arguments}\n");
    let folder = Folder::new()?;
    let mut command = Command::new(tool("inetd")?);
    // -d: inetd stays in the foreground and reports errors of the line on stderr.
    command.arg("-d").arg(folder.write("inetd.conf", &line)?);
    command.current_dir(workspace::binary(entry.binary)?.parent().context("a folder")?);
    let (group, _) = judged(&mut command, address).with_context(|| line.clone())?;
    Ok(group)
}

/// Waits until every server that inetd has started has exited.
pub(crate) fn servers_exit(inetd: &Group) -> Result<()> {
    // inetd starts each server in a session of its own, so they are not in inetd's process group.
    let exited = wait_for(WAIT_LIMIT, || process::children(inetd.id()).is_empty().then_some(()));
    exited.with_context(|| format!("these servers have not exited: {:?}", process::children(inetd.id())))
}

/// Starts a program that listens at `address`. The first client starts the server, which must answer it like any other.
fn judged(command: &mut Command, address: SocketAddr) -> Result<(Group, Capture)> {
    command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut group = Group::start(command)?;
    let stdout = group.capture_stdout()?;
    let stderr = group.capture_stderr()?;
    let first = wait_for(WAIT_LIMIT, || Client::connect(address).ok());
    let judged = first.with_context(|| format!("nothing listens on {address}")).and_then(|mut client| {
        client.ask_all()?;
        drop(client);
        expect_conformant(address)
    });
    judged.with_context(|| format!("its stderr: {}", stderr.text()))?;
    Ok((group, stdout))
}
