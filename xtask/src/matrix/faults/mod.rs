//! Faults on the server's side: what the kernel may refuse it, what may happen to its processes, and the network's end.
//!
//! Calls are made to fail by strace, which is attached when the server already serves: what it injects hits the case
//! and not the start, and the verdict comes when strace has let go.

pub(crate) mod accepting;
pub(crate) mod answering;
pub(crate) mod descriptors;
pub(crate) mod network;
pub(crate) mod stopped;

use anyhow::{Context, Result};

use super::{Case, Ctx, bare, case, ended, ending};
use crate::harness::Client;
use crate::harness::client::APHORISMS;

/// Clients that have been accepted and answered, and stay: `count` of them, or fewer if fewer are served at once.
pub(super) fn served_clients(ctx: &Ctx, count: usize) -> Result<Vec<Client>> {
    let count = ctx.entry.at_once.unwrap_or(count).min(count);
    let served = |_| {
        let mut client = ctx.client()?;
        client.ask_all().context("a client before the case")?;
        Ok(client)
    };
    (0..count).map(served).collect()
}

/// Somebody else who is here during the case, where that leaves a place for whom the case is about.
fn bystander(ctx: &Ctx) -> Result<Option<Client>> {
    if ctx.entry.at_once == Some(1) {
        Ok(None)
    } else {
        served_clients(ctx, 1).map(|mut served_clients| served_clients.pop())
    }
}

/// Others are served: the one who was here, and one who comes now.
fn others_are_served(ctx: &Ctx, bystander: &mut Option<Client>) -> Result<()> {
    bystander.iter_mut().try_for_each(Client::ask_all).context("the bystander")?;
    ctx.client()?.ask_all().context("the next client")
}

/// A client that has asked and waits for its answer.
fn asking(ctx: &Ctx) -> Result<Client> {
    let mut client = ctx.client()?;
    client.send(APHORISMS[0].0)?;
    Ok(client)
}

/// Takes the answer that [`asking`] waits for.
fn answered(client: &mut Client) -> Result<()> {
    client.expect(APHORISMS[0].1)
}
