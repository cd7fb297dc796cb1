//! start: systemd-socket-activate and inetd start servers with the command lines of the unit and of `inetd.conf`.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::fixture::{every, is_one_process, on_each, part, succeeds};
use super::unit::Unit;
use crate::harness::activation;
use crate::harness::folder::Folder;
use crate::harness::group::Group;
use crate::harness::{free_address, tool};
use crate::servers::Entry;
use crate::trial::Trial;

pub(crate) fn trials() -> Result<Vec<Trial>> {
    let cases = [
        vec![Trial::new("deploy::start::units_verify", units_verify)],
        on_each("start::unit", every, as_the_unit_says),
        on_each("start::wait", every, |entry| by_inetd(entry, "wait")),
        on_each("start::nowait", is_one_process, |entry| by_inetd(entry, "nowait")),
    ];
    Ok(cases.into_iter().flatten().collect())
}

/// systemd accepts every line of the units.
fn units_verify() -> Result<()> {
    let folder = Folder::new()?;
    let mut command = Command::new(tool("systemd-analyze")?);
    command.arg("verify");
    for kind in ["service", "socket"] {
        command.arg(folder.write(&format!("zen@1060.{kind}"), &part(&format!("zen@.{kind}"))?)?);
    }
    let printed = succeeds(&mut command)?;
    // systemd before 254 does not know the settings of the back-off, and warns.
    let is_known = |line: &&str| ["'RestartSteps'", "'RestartMaxDelaySec'"].iter().any(|key| line.contains(key));
    let strange: Vec<&str> = printed.lines().filter(|line| !is_known(line)).collect();
    ensure!(strange.is_empty(), "{}", strange.join("\n"));
    Ok(())
}

/// The command line of the unit works with the listener of its socket.
fn as_the_unit_says(entry: &'static Entry) -> Result<()> {
    let address = free_address()?;
    let server = Unit::of(address.port())?.command(entry, &[])?;
    activation::systemd(&[], address, &server).map(drop)
}

fn by_inetd(entry: &'static Entry, word: &str) -> Result<()> {
    let inetd = inetd(entry, word, free_address()?)?;
    activation::servers_exit(&inetd)
}

/// Starts inetd with the line of `inetd.conf` that has this word; only address, user and server are changed.
pub(super) fn inetd(entry: &Entry, word: &str, address: SocketAddr) -> Result<Group> {
    let text = part("inetd.conf")?;
    let mut lines =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|fields| fields.get(3).is_some_and(|wait| wait.split('.').next() == Some(word)));
    let line = line.with_context(|| format!("inetd.conf has no line with {word}"))?;
    let [_, stream, tcp, wait, _, _, _, arguments @ ..] = &line[..] else { bail!("{line:?} is too short") };
    // By default a server waits a minute for the next client.
    let sooner = if word == "wait" { " --idle-exit 1s" } else { "" };
    let arguments = format!("{}{sooner}", arguments.join(" "));
    activation::inetd(entry, address, &format!("{stream} {tcp} {wait}"), &arguments)
}
