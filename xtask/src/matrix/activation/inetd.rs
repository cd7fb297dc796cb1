//! The real inetd, in the foreground, with a configuration of its own.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{Case, bare};
use crate::harness::capture::Capture;
use crate::harness::client::{APHORISMS, Client};
use crate::harness::group::{Group, run_within};
use crate::harness::{PATIENCE, free_address, is_conformant, process, tool, wait_for};
use crate::servers::Entry;
use crate::workspace;

pub(crate) const CASES: &[Case] = &[
    bare("inetd_wait", |entry, _| under_inetd(entry, "wait.6000", &["--inetd", "wait", "-vv", "--idle-exit", "1s"])),
    bare("inetd_nowait", |entry, _| under_inetd(entry, "nowait.6000", &["--inetd", "nowait", "-vv"]))
        .on(|entry| !entry.is_exhibit && entry.processes == 1),
];

/// A client cannot tell that inetd stands behind it; and when the last client has gone, so have the servers.
fn under_inetd(entry: &'static Entry, wait: &str, arguments: &[&str]) -> Result<()> {
    let inetd = tool("inetd")?;
    let address = free_address()?;
    let user = String::from_utf8(run_within(PATIENCE, Command::new("id").arg("-un"))?.stdout)?;
    let command = entry.command()?;
    let own = command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    let (user, program, arguments) = (user.trim(), entry.package, arguments.join(" "));
    // In inetd's own folder, since no path in its file can have a space.
    let line = format!("{address} stream tcp {wait} {user} ./{program} {program} {own} {arguments}\n");
    let file = File(std::env::temp_dir().join(format!("zen-inetd-{}-{}", std::process::id(), address.port())));
    fs::write(&file.0, &line)?;
    let mut command = Command::new(inetd);
    // -d: it stays in the foreground and says on stderr what is wrong with the configuration.
    command.arg("-d").arg(&file.0).env_remove("RUST_LOG");
    command.current_dir(workspace::binary(entry.binary)?.parent().context("a folder")?);
    let mut group = Group::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()))?;
    let stderr = Capture::of(group.child().stderr.take().expect("it is piped"))?;
    let first = wait_for(PATIENCE, || Client::connect(address).ok());
    let judged = first.context("inetd does not listen").and_then(|mut client| {
        client.ask_all()?;
        drop(client);
        is_conformant(address)
    });
    judged.with_context(|| format!("with the line {line:?}; inetd said {}", stderr.text()))?;
    // They are no members of inetd's group, but sessions of their own.
    let alone = wait_for(PATIENCE, || process::children(group.id()).is_empty().then_some(()));
    ensure!(alone.is_some(), "there are still servers: {:?}", process::children(group.id()));
    // It starts them again.
    // Should that one be about to leave already, it answers one question and no more.
    Client::connect(address)?.ask(APHORISMS[0].0, APHORISMS[0].1).context("the next client")
}

/// Removed when it goes.
struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
