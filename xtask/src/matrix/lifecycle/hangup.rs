//! SIGHUP without a log file: the server drains, unless the signal was ignored when it started.

use anyhow::{Result, ensure};
use rustix::process::Signal;

use super::super::logging::rotation::NOHUP;
use super::{Case, Ctx, case, ending};
use crate::harness::client::APHORISMS;

pub(crate) const CASES: &[Case] = &[
    ending("sighup", |ctx| drains_after(ctx, &[Signal::HUP])).arguments(SLOW),
    ending("sighup_before_sigterm", |ctx| drains_after(ctx, &[Signal::HUP, Signal::TERM])).arguments(SLOW),
    ending("sighup_after_sigterm", |ctx| drains_after(ctx, &[Signal::TERM, Signal::HUP])).arguments(SLOW),
    case("nohup", nohup).under(NOHUP),
];

/// A client that has asked is answered. SIGHUP does not count as a second signal, which would end the server
/// immediately: a service manager may send it together with SIGTERM (SendSIGHUP= of systemd.kill(5)).
fn drains_after(ctx: &mut Ctx, signals: &[Signal]) -> Result<()> {
    let (question, answer) = APHORISMS[0];
    let mut client = ctx.client()?;
    client.ask(question, answer)?;
    client.send(question)?;
    signals.iter().try_for_each(|&signal| ctx.server.signal(signal))?;
    client.expect(answer)?;
    client.expect_end()?;
    drop(client);
    ctx.server.ends_well()
}

fn nohup(ctx: &mut Ctx) -> Result<()> {
    let mut client = ctx.server.served_client()?;
    ctx.server.signal_all(Signal::HUP)?;
    client.ask_all()?;
    drop(client);
    ensure!(!ctx.server.log().contains("draining"), "it drains");
    ctx.client()?.ask_all()
}

/// Arguments that make the drain last until the second signal.
const SLOW: &[&str] = &["--delay", "200ms"];
