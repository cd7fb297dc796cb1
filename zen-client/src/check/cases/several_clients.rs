//! Rule 1 with several clients: what one of them does costs no other an answer.

use std::fmt;
use std::sync::RwLock;
use std::thread;

use crate::check::bytes::{BEAUTIFUL, EXPLICIT, IMPLICIT, SIMPLE, UGLY};
use crate::check::client::{Mismatch, Outcome, Target};

pub(super) fn after_a_reset(server: &Target) -> Outcome {
    let mut rude = server.connect()?;
    // The server notices the reset in a read, when it answers, or while it waits for the rest.
    rude.send(SIMPLE)?;
    rude.reset()?;
    server.connect()?.exchange(BEAUTIFUL, UGLY)?;
    let mut rude = server.connect()?;
    rude.send(b"Simple is")?;
    rude.reset()?;
    server.connect()?.exchange(EXPLICIT, IMPLICIT)
}

pub(super) fn hundred_in_turn(server: &Target) -> Outcome {
    for n in 1..=100 {
        let mut client = server.connect()?;
        client.exchange(EXPLICIT, IMPLICIT).map_err(|mismatch| mismatch.when(&format!("as client {n} of 100")))?;
    }
    Ok(())
}

/// More clients than a small pool of workers has, and fewer than a small backlog holds.
const AT_ONCE: usize = 8;

/// Each client closes once it is served, so even a server that serves one client at a time serves all, in any order.
pub(super) fn clients_at_once(server: &Target) -> Outcome {
    let gate = RwLock::new(());
    let converse = || {
        drop(gate.read());
        // No client waits for the others *after* connecting, because a full backlog may delay some of them.
        let mut client = server.connect()?;
        client.exchange(BEAUTIFUL, UGLY)?;
        client.exchange(EXPLICIT, IMPLICIT)
    };
    thread::scope(|scope| {
        let closed = gate.write();
        let mut clients = Vec::new();
        for n in 1..=AT_ONCE {
            let name = format!("client {n}");
            clients.push(thread::Builder::new().name(name).spawn_scoped(scope, converse).map_err(no_client)?);
        }
        drop(closed);
        clients.into_iter().try_for_each(|client| client.join().unwrap_or_else(|_| Err(no_client("a panic"))))
    })
}

fn no_client(reason: impl fmt::Display) -> Mismatch {
    Mismatch::new(format!("{AT_ONCE} clients"), format!("this program cannot start them: {reason}"))
}
