//! The clients whose conversations end, one function for each cause.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::harness::WAIT_LIMIT;
use crate::harness::client::Client;
use crate::matrix::Ctx;

/// The client whose conversation ends.
pub(super) struct Subject {
    pub(super) address: SocketAddr,
    /// `None` if it has reset the connection.
    pub(super) client: Option<Client>,
    /// Clients that must stay connected until everything has been compared.
    pub(super) others: Vec<Client>,
    /// Whether the server has received SIGTERM.
    pub(super) is_stopped: bool,
}

impl Subject {
    pub(super) fn of(client: Client) -> Result<Subject> {
        let address = client.stream().local_addr()?;
        Ok(Subject { address, client: Some(client), others: Vec::new(), is_stopped: false })
    }
}

/// Connects a client that sends these bytes.
pub(super) fn asked(ctx: &mut Ctx, bytes: &[u8]) -> Result<Subject> {
    let mut client = ctx.client()?;
    client.send(bytes)?;
    Subject::of(client)
}

/// Connects a client that sends these bytes and shuts down its sending side.
pub(super) fn asked_then_ended(ctx: &mut Ctx, bytes: &[u8]) -> Result<Subject> {
    let mut client = ctx.client()?;
    client.send(bytes)?;
    client.end_sending()?;
    Subject::of(client)
}

/// Connects a client that is accepted, sends these bytes, and resets the connection once the server has read them.
pub(super) fn reset(ctx: &mut Ctx, bytes: &[u8]) -> Result<Subject> {
    let mut client = ctx.client()?;
    is_accepted(ctx, &client)?;
    // An answer shows that the server has read the question; the bytes after it arrive with it.
    if !bytes.is_empty() {
        client.send(&[b"Simple is better than?", bytes].concat())?;
        client.expect(b"complex.")?;
    }
    // Where each client has a process, it may be starting still. If the reset came first, it would find no connection.
    ctx.server.wait_until_asleep(WAIT_LIMIT)?;
    let address = client.stream().local_addr()?;
    client.reset()?;
    Ok(Subject { address, client: None, others: Vec::new(), is_stopped: false })
}

/// Connects a client that asks for more answers than the network holds, and does not read.
pub(super) fn never_reading(ctx: &Ctx) -> Result<Client> {
    let mut client = Client::connect_with_buffer(ctx.server.address(), 4096)?;
    client.send(&[b'?'; UNREAD])?;
    Ok(client)
}

/// Connects a client that is accepted and sends these bytes before the server gets SIGTERM. Another client, which does
/// not read, keeps the server running until its counters have been read.
pub(super) fn drained(ctx: &mut Ctx, bytes: &[u8]) -> Result<Subject> {
    let mut client = ctx.client()?;
    is_accepted(ctx, &client)?;
    client.send(bytes)?;
    let others = vec![never_reading(ctx)?];
    ctx.server.signal(Signal::TERM)?;
    Ok(Subject { others, is_stopped: true, ..Subject::of(client)? })
}

/// Connects a client whose answer takes longer than `--grace`.
pub(super) fn grace_over(ctx: &mut Ctx) -> Result<Subject> {
    let mut client = ctx.client()?;
    is_accepted(ctx, &client)?;
    client.send(b"Simple is better than?")?;
    ctx.server.signal(Signal::TERM)?;
    Ok(Subject { is_stopped: true, ..Subject::of(client)? })
}

/// Connects clients until one is rejected. Each process has its own limit, and any process may accept a client.
pub(super) fn over_the_limit(ctx: &mut Ctx) -> Result<Subject> {
    let mut others = Vec::new();
    for _ in 0..=ctx.server.workers().len() {
        let client = ctx.client()?;
        if !is_accepted(ctx, &client)? {
            return Ok(Subject { others, ..Subject::of(client)? });
        }
        others.push(client);
    }
    bail!("{} clients were accepted, though the limit of each process is 1", others.len());
}

/// Waits until the log says that the client is accepted (true) or rejected (false).
fn is_accepted(ctx: &Ctx, client: &Client) -> Result<bool> {
    let address = client.stream().local_addr()?;
    let (accepted, rejected) = (format!("] {address} accepted\n"), format!("] {address} rejected: "));
    let decided = ctx.server.wait_for_log(WAIT_LIMIT, |log| {
        let is_accepted = log.contains(&accepted);
        (is_accepted || log.contains(&rejected)).then_some(is_accepted)
    });
    decided.context("the client is neither accepted nor rejected")
}

/// The number of bare `?` that a server reads in full although it cannot send all answers. With unread input, every
/// close would be a reset.
const UNREAD: usize = 8192;
