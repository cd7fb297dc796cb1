//! start: whoever starts a server, systemd or inetd, a client cannot tell. What they are told is what the parts say.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::apparatus::{Folder, every, is_one_process, on_each, part, succeeds};
use super::unit::Unit;
use crate::harness::capture::Capture;
use crate::harness::client::Client;
use crate::harness::group::{Group, run_within};
use crate::harness::{PATIENCE, free_address, is_conformant, process, tool, wait_for};
use crate::servers::Entry;
use crate::trial::Trial;
use crate::workspace;

pub(crate) fn trials() -> Result<Vec<Trial>> {
    let cases = [
        vec![Trial::new("deploy::start::units_verify", units_verify)],
        on_each("start::unit", every, as_the_unit_says),
        on_each("start::wait", every, |entry| by_inetd(entry, "wait")),
        on_each("start::nowait", is_one_process, |entry| by_inetd(entry, "nowait")),
    ];
    Ok(cases.into_iter().flatten().collect())
}

/// systemd understands every line of the units.
fn units_verify() -> Result<()> {
    let folder = Folder::new()?;
    let mut command = Command::new(tool("systemd-analyze")?);
    command.arg("verify");
    for kind in ["service", "socket"] {
        command.arg(folder.write(&format!("zen@1060.{kind}"), &part(&format!("zen@.{kind}"))?)?);
    }
    let said = succeeds(&mut command)?;
    // An older systemd (before 254) knows no back-off and says so.
    let is_known = |line: &&str| ["'RestartSteps'", "'RestartMaxDelaySec'"].iter().any(|key| line.contains(key));
    let strange: Vec<&str> = said.lines().filter(|line| !is_known(line)).collect();
    ensure!(strange.is_empty(), "{}", strange.join("\n"));
    Ok(())
}

/// The unit's own command line, with the listener that its socket hands over.
fn as_the_unit_says(entry: &'static Entry) -> Result<()> {
    let address = free_address()?;
    let server = Unit::of(address.port())?.command(entry, &[])?;
    let mut command = Command::new(tool("systemd-socket-activate")?);
    command.args(["-l", &address.to_string()]).arg(server.get_program()).args(server.get_args());
    served_by(&mut command, address).map(drop)
}

fn by_inetd(entry: &'static Entry, word: &str) -> Result<()> {
    let inetd = inetd(entry, word, free_address()?)?;
    leaves_alone(&inetd)
}

/// A real inetd with the line of `inetd.conf` that has this word, but for port, user and which server it is.
pub(super) fn inetd(entry: &Entry, word: &str, address: SocketAddr) -> Result<Group> {
    let line = inetd_line(entry, word, address)?;
    let folder = Folder::new()?;
    let mut command = Command::new(tool("inetd")?);
    // -d: it stays in the foreground and says on stderr what is wrong with the line.
    command.arg("-d").arg(folder.write("inetd.conf", &line)?);
    command.current_dir(workspace::binary(entry.binary)?.parent().context("a folder")?);
    served_by(&mut command, address).with_context(|| line.clone())
}

/// When nobody comes any more inetd's servers leave.
pub(super) fn leaves_alone(inetd: &Group) -> Result<()> {
    // They are no members of inetd's group, but sessions of their own.
    let alone = wait_for(PATIENCE, || process::children(inetd.id()).is_empty().then_some(()));
    alone.with_context(|| format!("there are still servers: {:?}", process::children(inetd.id())))
}

fn inetd_line(entry: &Entry, word: &str, address: SocketAddr) -> Result<String> {
    let user = String::from_utf8(run_within(PATIENCE, Command::new("id").arg("-un"))?.stdout)?;
    let text = part("inetd.conf")?;
    let mut lines =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|fields| fields.get(3).is_some_and(|wait| wait.split('.').next() == Some(word)));
    let line = line.with_context(|| format!("inetd.conf has no line with {word}"))?;
    let [_, stream, tcp, wait, _, _, _, arguments @ ..] = &line[..] else { bail!("{line:?} is too short") };
    // A test has not the minute for which a server waits for its next client.
    let sooner = if word == "wait" { " --idle-exit 1s" } else { "" };
    let server = entry.command()?;
    let own = server.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    let (program, arguments) = (entry.package, arguments.join(" "));
    // In inetd's own folder, since no path in its file can have a space.
    let user = user.trim();
    Ok(format!("{address} {stream} {tcp} {wait} {user} ./{program} {program} {own} {arguments}{sooner}\n"))
}

/// Starts who listens at `address` for the server, and judges who answers there.
fn served_by(command: &mut Command, address: SocketAddr) -> Result<Group> {
    command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut group = Group::start(command)?;
    let stderr = Capture::of(group.child().stderr.take().expect("it is piped"))?;
    let first = wait_for(PATIENCE, || Client::connect(address).ok());
    let judged = first.context("nobody listens").and_then(|mut client| {
        client.ask_all()?;
        drop(client);
        is_conformant(address)
    });
    judged.with_context(|| format!("its stderr: {}", stderr.text()))?;
    Ok(group)
}
