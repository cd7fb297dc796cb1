//! The book's protocol in Python: a client as in the book talks to every server, and the Python server that READMEs
//! show passes `check`.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{Case, Ctx, bare, case};
use crate::harness::client::connect;
use crate::harness::group::{Group, run_within};
use crate::harness::{WAIT_LIMIT, expect_conformant, free_address, shown, tool, wait_for};
use crate::servers::Entry;
use crate::workspace;

pub(crate) const CASES: &[Case] = &[
    case("python_client", python_client),
    bare("python_server", python_server).on(|entry| entry.name == "per-connection"), // the most similar server
];

fn python_server(_: &'static Entry, _: &'static [&'static str]) -> Result<()> {
    let address = free_address()?;
    let mut python = Command::new(tool("python3")?);
    python.arg("xtask/challenge/zen.py").arg(address.port().to_string()).current_dir(workspace::root()?);
    let _server = Group::start(python.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
    wait_for(WAIT_LIMIT, || connect(address, WAIT_LIMIT).ok()).context("the Python server does not listen")?;
    expect_conformant(address)
}

fn python_client(ctx: &mut Ctx) -> Result<()> {
    let address = ctx.server.address();
    let mut python = Command::new(tool("python3")?);
    python.args(["-c", CLIENT, &address.ip().to_string(), &address.port().to_string()]);
    let output = run_within(WAIT_LIMIT, &mut python)?;
    let expected =
        b"Beautiful is better than? ugly.\nExplicit is better than? implicit.\nSimple is better than? complex.\n";
    ensure!(output.stdout == expected, "it printed {}, and on stderr {}", shown(&output.stdout), shown(&output.stderr));
    Ok(())
}

const CLIENT: &str = include_str!("book_client.py");
