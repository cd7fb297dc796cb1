//! The readiness loop in one function, without layers.
//!
//! It is the poll server of *Foundations of Python Network Programming* (`srv_async`) with its bugs fixed:
//!
//! - Each client has a new key, because the kernel soon gives the number of a closed descriptor to another client.
//! - An error of accept(), or of one client's socket, does not end the server.
//! - Several questions in one segment are answered.
//! - Silent clients are disconnected.
//!
//! zen-poll itself adds several loops and a second style.
//!
//! ```console
//! $ cargo run -p zen-poll --example raw
//! $ cargo run -p zen-client -- check
//! ```

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use polling::{Event, Events, Poller};
use zen_proto::Want;
use zen_proto::server::{self, Accepted, Options, READ_SIZE, Server, TICK, Waiting, reset};

#[path = "../src/registration.rs"]
mod registration;
use registration::Registration;

fn main() -> ExitCode {
    server::main(|options: Options| {
        let server = Server::listen(&options, Waiting::ForReadiness { pollers: 1 }, None)?;
        serve(server, server.listener(), |_| server.try_accept())
    })
}

/// Serves until the server accepts no more clients and the last connection is closed.
///
/// The example `per_core` runs this loop in several threads, each with its own `listener` and `accept`.
pub(crate) fn serve(
    server: &'static Server,
    mut listener: Option<Arc<OwnedFd>>,
    accept: impl Fn(Option<&OwnedFd>) -> Accepted,
) -> anyhow::Result<()> {
    let poller: &'static Poller = Box::leak(Box::new(Poller::new()?));
    let (mut clients, mut watched) = (HashMap::new(), None); // `watched` is the listener, while the poller has it
    let (mut events, mut buffer, mut last_key) = (Events::new(), [0; READ_SIZE], 0);
    let (mut is_accepting, mut next_sweep, mut timeout) = (true, Instant::now() + TICK, Duration::ZERO);
    while is_accepting || !clients.is_empty() {
        events.clear();
        poller.wait(&mut events, Some(timeout))?; // the thread sleeps here (and, with --delay, in server.answer)
        timeout = TICK;
        let mut ready: Vec<usize> = events.iter().map(|event| event.key).collect();
        if next_sweep <= Instant::now() || server.stop.is_requested() {
            next_sweep = Instant::now() + TICK;
            ready = clients.keys().copied().collect(); // every client gets a turn, which notices a passed deadline
        }
        while is_accepting {
            match accept(listener.as_deref()) {
                Accepted::Client(stream, connection) => {
                    last_key += 1;
                    match Registration::new(poller, stream, Event::readable(last_key)) {
                        Ok(stream) => _ = clients.insert(last_key, (stream, connection)),
                        Err(error) => connection.close(Err(error)),
                    }
                }
                Accepted::Next => {}
                Accepted::WouldBlock => {
                    // If this fails, the loop still looks for clients once a tick.
                    let watch = |it| Registration::new(poller, it, Event::readable(0)).ok();
                    watched = watched.or_else(|| listener.clone().and_then(watch));
                    break;
                }
                Accepted::Later(pause) => {
                    (watched, timeout) = (None, pause); // if it were watched, it would end every wait immediately
                    break;
                }
                Accepted::Closed => (is_accepting, watched, listener) = (false, None, None),
            }
        }
        for key in ready {
            let Some((registration, connection)) = clients.get_mut(&key) else { continue };
            let mut stream = registration.source();
            let (mut has_read, mut is_full) = (false, false);
            // Breaks with whether the conversation is over.
            let result = loop {
                let now = Instant::now();
                match connection.next(now) {
                    Want::Read if !has_read => match stream.read(&mut buffer) {
                        Ok(0) => connection.received_eof(),
                        Ok(n) => {
                            has_read = true;
                            let mut input = &buffer[..n];
                            while let Some(question) = connection.next_question(&mut input, now) {
                                let answer = server.answer(question); // all clients of this loop wait for a slow answer
                                connection.answer(answer);
                            }
                        }
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            has_read = true;
                            connection.read_blocked(now);
                        }
                        Err(error) => break Err(error),
                    },
                    Want::Write if !is_full => match stream.write(connection.outgoing()) {
                        Ok(n) => {
                            is_full = connection.outgoing().len() > n;
                            connection.sent(n, now);
                        }
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            is_full = true;
                            connection.write_blocked(now);
                        }
                        Err(error) => break Err(error),
                    },
                    Want::Read => break registration.modify(Event::readable(key)).map(|()| false),
                    Want::Write => break registration.modify(Event::writable(key)).map(|()| false),
                    Want::EndSending => match stream.shutdown(Shutdown::Write) {
                        Ok(()) => connection.ended_sending(now),
                        Err(error) => break Err(error),
                    },
                    Want::Close => break Ok(true),
                    Want::Reset => {
                        reset(stream);
                        break Ok(true);
                    }
                }
            };
            if !matches!(result, Ok(false)) {
                let Some((_, connection)) = clients.remove(&key) else { continue };
                connection.close(result.map(|_| ()));
            }
        }
    }
    Ok(())
}
