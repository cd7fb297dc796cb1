//! Faults on the server's side: system calls that fail, processes that die, and a network that goes away.
//!
//! strace makes calls fail. It is attached when the server already serves, so that a fault hits the case and not the
//! start, and is detached before the verdict.

pub(crate) mod accepting;
pub(crate) mod answering;
pub(crate) mod descriptors;
pub(crate) mod network;
pub(crate) mod stopped;

use anyhow::{Context, Result};

use super::{Case, Ctx, bare, case, ended, ending};
use crate::harness::client::APHORISMS;
use crate::harness::{Client, Server};
use crate::servers::Entry;

/// Connects `count` clients, or as many as are served together, each of which has been answered.
pub(super) fn served_clients(ctx: &Ctx, count: usize) -> Result<Vec<Client>> {
    let count = ctx.entry.at_once.unwrap_or(count).min(count);
    ctx.server.served_clients(count).context("a client before the case")
}

/// Returns the processes that accept clients: those that serve them, or the one that starts a process for each.
pub(super) fn acceptors(entry: &Entry, server: &Server) -> Vec<i32> {
    if entry.forks { vec![server.pid()] } else { server.workers() }
}

/// Connects a client that stays during the case; `None` where only one client is served at a time.
fn bystander(ctx: &Ctx) -> Result<Option<Client>> {
    if ctx.entry.at_once == Some(1) {
        Ok(None)
    } else {
        served_clients(ctx, 1).map(|mut served_clients| served_clients.pop())
    }
}

/// Expects that other clients are served: the bystander, and one that connects now.
fn others_are_served(ctx: &Ctx, bystander: &mut Option<Client>) -> Result<()> {
    bystander.iter_mut().try_for_each(Client::ask_all).context("the bystander")?;
    ctx.client()?.ask_all().context("the next client")
}

/// Receives the answer that [`Server::asking_client`] waits for.
fn answered(client: &mut Client) -> Result<()> {
    client.expect(APHORISMS[0].1)
}
