//! Activation by the real inetd, in the foreground, with a configuration of its own.

use anyhow::{Context, Result};

use super::{Case, bare};
use crate::harness::client::{APHORISMS, Client};
use crate::harness::{activation, free_address};
use crate::servers::Entry;

pub(crate) const CASES: &[Case] = &[
    bare("inetd_wait", |entry, _| under_inetd(entry, "wait.6000", "--inetd wait -vv --idle-exit 1s")),
    bare("inetd_nowait", |entry, _| under_inetd(entry, "nowait.6000", "--inetd nowait -vv"))
        .on(|entry| !entry.is_example && entry.processes == 1),
];

/// A client cannot tell that inetd started its server, and the servers exit after the last client.
fn under_inetd(entry: &'static Entry, wait: &str, arguments: &str) -> Result<()> {
    let address = free_address()?;
    let inetd = activation::inetd(entry, address, &format!("stream tcp {wait}"), arguments)?;
    activation::servers_exit(&inetd)?;
    // inetd starts the next server. If the previous one is about to exit, it answers one question and no more.
    Client::connect(address)?.ask(APHORISMS[0].0, APHORISMS[0].1).context("the next client")
}
