//! A private network: how many connections the server's kernel resets, and what happens to clients that are cut off.

use anyhow::{Context, Result, ensure};

use super::{Case, Ctx, bare, served_clients};
use crate::harness::network::{HOST, Network};
use crate::harness::{Client, WAIT_LIMIT, passes};
use crate::matrix::{ended, lifecycle, served};
use crate::servers::Entry;

pub(crate) const CASES: &[Case] = &[
    bare("resets_in_conformance", |entry, arguments| resets(entry, arguments, conformance)),
    bare("resets_in_a_drain", |entry, arguments| resets(entry, arguments, drain)).arguments(&["--delay", "20ms"]),
    bare("resets_when_grace_is_over", |entry, arguments| {
        resets(entry, arguments, lifecycle::grace_over_for_never_readers)
    })
    .arguments(&["--grace", "300ms"]),
    bare("resets_of_never_readers", |entry, arguments| resets(entry, arguments, never_readers))
        .arguments(&["--question-timeout", "300ms"]),
    bare("the_network_goes_away", the_network_goes_away).arguments(&[
        "--idle-timeout",
        "300ms",
        "--question-timeout",
        "300ms",
    ]),
];

/// Expects that the server's kernel has reset exactly as many connections as the case says. (The other kernel counts
/// the clients' resets.)
fn resets(entry: &'static Entry, arguments: &[&str], run: fn(&mut Ctx) -> Result<u64>) -> Result<()> {
    let network = Network::make()?;
    let wrapper = network.wrapper();
    network.as_client(|| {
        let mut expected = 0;
        ended(entry, &wrapper.each_ref().map(String::as_str), &[arguments, &[HOST]].concat(), |ctx| {
            expected = run(ctx)?;
            Ok(())
        })?;
        let resets = network.resets()?;
        ensure!(resets == expected, "the server's host reset {resets} connections, not {expected}");
        Ok(())
    })
}

fn conformance(ctx: &mut Ctx) -> Result<u64> {
    passes(ctx.server.address(), &[])?;
    ctx.server.stop(WAIT_LIMIT)?;
    Ok(0)
}

fn drain(ctx: &mut Ctx) -> Result<u64> {
    lifecycle::questions_asked_are_answered(ctx)?;
    Ok(0)
}

/// Each of them is reset at the question timeout.
fn never_readers(ctx: &mut Ctx) -> Result<u64> {
    let clients = lifecycle::never_readers(ctx, 3)?;
    clients.iter().try_for_each(lifecycle::expect_reset_unread)?;
    ctx.server.stop(WAIT_LIMIT)?;
    Ok(clients.len() as u64)
}

/// No packet tells the server that its clients are gone, so its timeouts must disconnect them.
fn the_network_goes_away(entry: &'static Entry, arguments: &'static [&'static str]) -> Result<()> {
    let network = Network::make()?;
    let wrapper = network.wrapper();
    network.as_client(|| {
        let wrapper = wrapper.each_ref().map(String::as_str);
        served(entry, &wrapper, &[arguments, &[HOST]].concat(), false, |ctx| {
            // Where one client is served at a time, the others wait in the backlog, and are cut off before they are
            // served.
            let mut idle = ctx.client()?;
            let mut slow = ctx.client()?;
            let mut never_reader = Client::connect_with_buffer(ctx.server.address(), 4096)?;
            idle.send(b" ")?;
            slow.send(b"Simple is bet")?;
            never_reader.send(&[b'?'; 65536])?;
            network.cut()?;
            for ending in ["idle timeout", "question timeout", "answers not read"] {
                ctx.server.logs(ending)?;
            }
            network.mend()?;
            served_clients(ctx, 1).context("after the network is back")?;
            Ok(())
        })
    })
}
