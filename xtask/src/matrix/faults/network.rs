//! In a network of its own: how many connections the server's kernel resets, and what becomes of clients who are cut
//! off.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Case, Ctx, bare, served_clients};
use crate::harness::group::run_within;
use crate::harness::network::{HOST, Network};
use crate::harness::{Client, WAIT_LIMIT};
use crate::matrix::{ended, lifecycle, served};
use crate::servers::Entry;
use crate::workspace;

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

/// The kernel has reset exactly as many connections as the case asks for, when the server has ended. (The clients'
/// resets are counted by the other kernel.)
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
        ensure!(resets == expected, "{resets} connections were reset, not {expected}");
        Ok(())
    })
}

fn conformance(ctx: &mut Ctx) -> Result<u64> {
    let port = ctx.server.address().port().to_string();
    let mut client = Command::new(workspace::binary("zen-client")?);
    let output = run_within(4 * WAIT_LIMIT, client.args(["check", HOST, "-p", &port])).context("zen-client check")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    ctx.server.stop(WAIT_LIMIT)?;
    Ok(0)
}

fn drain(ctx: &mut Ctx) -> Result<u64> {
    lifecycle::whoever_asked_is_answered(ctx)?;
    Ok(0)
}

/// One reset each, at the question time-out.
fn never_readers(ctx: &mut Ctx) -> Result<u64> {
    let clients = lifecycle::never_readers(ctx, 3)?;
    clients.iter().try_for_each(lifecycle::is_reset)?;
    ctx.server.stop(WAIT_LIMIT)?;
    Ok(clients.len() as u64)
}

/// Nobody tells the server, so the time-outs find it out.
fn the_network_goes_away(entry: &'static Entry, arguments: &'static [&'static str]) -> Result<()> {
    let network = Network::make()?;
    let wrapper = network.wrapper();
    network.as_client(|| {
        let wrapper = wrapper.each_ref().map(String::as_str);
        served(entry, &wrapper, &[arguments, &[HOST]].concat(), false, |ctx| {
            // Where one is served at a time the others wait in the backlog, and get their turn when they are cut off
            // already.
            let mut idle = ctx.client()?;
            let mut slow = ctx.client()?;
            let mut never_reader = Client::connect_with_buffer(ctx.server.address(), 4096)?;
            idle.send(b" ")?;
            slow.send(b"Simple is bet")?;
            never_reader.send(&[b'?'; 65536])?;
            network.cut()?;
            for ending in ["idle timeout", "question timeout", "answers not read"] {
                let found = ctx.server.wait_for_log(WAIT_LIMIT, |log| log.contains(ending).then_some(()));
                found.with_context(|| format!("of whom is cut off no {ending:?} is logged"))?;
            }
            network.mend()?;
            served_clients(ctx, 1).context("the network is there again")?;
            Ok(())
        })
    })
}
