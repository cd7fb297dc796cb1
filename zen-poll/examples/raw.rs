//! The readiness loop in one function, with nothing between the reader and the poller.
//!
//! It is the ancestor's `srv_async_poll`, cured: keys are never used twice (a bare descriptor soon belongs to
//! somebody else), a full buffer is waited for, and nobody is kept who does not speak. What the server
//! proper adds is more loops and another style.
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
use zen_proto::server::{self, Accepted, CHUNK, Options, Server, TICK, Waiting, reset};

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
    let (mut events, mut chunk, mut last_key) = (Events::new(), [0; CHUNK], 0);
    let (mut is_accepting, mut next_look) = (true, Instant::now() + TICK);
    while is_accepting || !clients.is_empty() {
        events.clear();
        poller.wait(&mut events, Some(TICK))?; // the only place where it sleeps
        let mut ready: Vec<usize> = events.iter().map(|event| event.key).collect();
        if next_look <= Instant::now() || server.stop.is_requested() {
            next_look = Instant::now() + TICK;
            ready = clients.keys().copied().collect(); // is anyone's time up?
        }
        while is_accepting {
            match server.try_accept() {
                Accepted::Client(stream, client) => {
                    last_key += 1;
                    let conversation = server.conversation();
                    match Registration::new(poller, stream, Event::readable(last_key)) {
                        Ok(stream) => _ = clients.insert(last_key, (stream, conversation, client)),
                        Err(error) => client.gone(&conversation, Err(error)),
                    }
                }
                Accepted::Next => {}
                Accepted::Nobody => break,
                Accepted::Later(pause) => thread::sleep(pause), // here everyone waits for it
                Accepted::NoMore => (is_accepting, listener) = (false, None),
            }
        }
        for key in ready {
            let Some((registration, conversation, _)) = clients.get_mut(&key) else { continue };
            let mut stream = registration.source();
            if server.stop.is_requested() {
                conversation.drain(Instant::now());
            }
            let (mut has_read, mut has_written) = (false, false);
            let result = loop {
                let now = Instant::now();
                match conversation.wants() {
                    Want::Read if !has_read => match stream.read(&mut chunk) {
                        Ok(0) => conversation.received_eof(),
                        Ok(n) => {
                            has_read = true;
                            conversation.received(&chunk[..n], now, &mut |question| server.sage.answer(question));
                        }
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            has_read = true;
                            conversation.timed_out(now);
                        }
                        Err(error) => break Err(error),
                    },
                    Want::Write if !has_written => match stream.write(conversation.outgoing()) {
                        Ok(n) => {
                            has_written = conversation.outgoing().len() > n;
                            conversation.sent(n, now);
                        }
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            has_written = true;
                            conversation.sent(0, now);
                            conversation.timed_out(now);
                        }
                        Err(error) => break Err(error),
                    },
                    Want::Read => break registration.modify(Event::readable(key)).map(|()| false),
                    Want::Write => break registration.modify(Event::writable(key)).map(|()| false),
                    Want::EndSending => match stream.shutdown(Shutdown::Write) {
                        Ok(()) => conversation.ended_sending(now),
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
                let Some((_, conversation, client)) = clients.remove(&key) else { continue };
                client.gone(&conversation, result.map(|_| ()));
            }
        }
    }
    drop(listener);
    Ok(())
}
