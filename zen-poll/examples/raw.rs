//! The readiness loop in one function, with nothing between the reader and the poller.
//!
//! It is the book's `srv_async_poll`, fixed: no key is used twice (a descriptor's number soon belongs to another
//! client), a full send buffer is waited for, and silent clients are disconnected. zen-poll itself adds more loops and
//! another style.
//!
//! ```console
//! $ cargo run -p zen-poll --example raw
//! $ cargo run -p zen-client -- check
//! ```

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use clap::Parser;
use polling::{Event, Events, Poller};
use zen_proto::Want;
use zen_proto::server::{self, Accepted, Options, READ_SIZE, Server, TICK, Waiting, reset};

#[path = "../src/registration.rs"]
mod registration;
use registration::Registration;

/// Serves the aphorisms from one readiness loop.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    common: Options,
}

impl server::Arguments for Arguments {
    fn common(&self) -> &Options {
        &self.common
    }
}

fn main() -> ExitCode {
    server::main(|arguments: Arguments| {
        serve(Server::listen(&arguments.common, Waiting::ForReadiness { pollers: 1 }, None)?)
    })
}

fn serve(server: &'static Server) -> anyhow::Result<()> {
    let poller: &'static Poller = Box::leak(Box::new(Poller::new()?));
    let mut listener = server.listener().map(|it| Registration::new(poller, it, Event::readable(0))).transpose()?;
    let mut clients = HashMap::new();
    let (mut events, mut buffer, mut last_key) = (Events::new(), [0; READ_SIZE], 0);
    let (mut is_accepting, mut next_sweep) = (true, Instant::now() + TICK);
    while is_accepting || !clients.is_empty() {
        events.clear();
        poller.wait(&mut events, Some(TICK))?; // the thread sleeps here (and, with --delay, in server.answer)
        let mut ready: Vec<usize> = events.iter().map(|event| event.key).collect();
        if next_sweep <= Instant::now() || server.stop.is_requested() {
            next_sweep = Instant::now() + TICK;
            ready = clients.keys().copied().collect(); // has a deadline passed?
        }
        while is_accepting {
            match server.try_accept() {
                Accepted::Client(stream, connection) => {
                    last_key += 1;
                    match Registration::new(poller, stream, Event::readable(last_key)) {
                        Ok(stream) => _ = clients.insert(last_key, (stream, connection)),
                        Err(error) => connection.close(Err(error)),
                    }
                }
                Accepted::Next => {}
                Accepted::WouldBlock => break,
                Accepted::Later(pause) => thread::sleep(pause), // all clients wait here
                Accepted::Closed => (is_accepting, listener) = (false, None),
            }
        }
        for key in ready {
            let Some((registration, connection)) = clients.get_mut(&key) else { continue };
            let mut stream = registration.source();
            let (mut has_read, mut is_full) = (false, false);
            let result = loop {
                let now = Instant::now();
                match connection.next(now) {
                    Want::Read if !has_read => match stream.read(&mut buffer) {
                        Ok(0) => connection.received_eof(),
                        Ok(n) => {
                            has_read = true;
                            let mut input = &buffer[..n];
                            while let Some(question) = connection.next_question(&mut input, now) {
                                let answer = server.answer(question); // a slow answer is worked out here; all wait
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
    drop(listener);
    Ok(())
}
