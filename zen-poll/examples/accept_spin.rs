//! Faulty example: a readiness loop that ignores errors of `accept`.
//!
//! **The fault.** When no descriptor is left, `accept` fails, and the client stays in the backlog. The listener is
//! still ready, so the next wait returns immediately and `accept` fails again. The loop uses a whole processor until a
//! descriptor is free. With a log line for each failure it would also fill the disk. The new client is connected but
//! receives no answer.
//!
//! **History.** The problem is well known: libev's manual warns of it, and nginx stops polling its listeners for half a
//! second. The poll server of *Foundations of Python Network Programming* does not catch the error. The first failure
//! of `accept` ends it.
//!
//! **See it.** The server may open only 20 descriptors. When they are used up, `top` shows that it is busy although all
//! clients are silent.
//!
//! ```console
//! $ cargo build -p zen-poll --example accept_spin
//! $ prlimit --nofile=20 target/debug/examples/accept_spin
//! $ cargo run -p zen-client -- load --idle 50
//! $ cargo xtask lab emfile
//! ```
//!
//! **The fix.** Stop polling the listener for 100 ms: `back_off` in `src/acceptor.rs`.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use clap::Parser;
use polling::{Event, Events, Poller};
use zen_proto::{Conversation, Timeouts, Want, answer_to};

#[path = "../src/registration.rs"]
#[expect(dead_code, reason = "this example does not call `modify`")]
mod registration;
use registration::Registration;

/// The arguments `[HOST] [-p PORT]`, which every server has.
#[derive(Parser)]
struct Arguments {
    #[arg(default_value = "127.0.0.1")]
    host: String,
    #[arg(short, long, default_value_t = 1060)]
    port: u16,
}

fn main() -> anyhow::Result<()> {
    let Arguments { host, port } = Arguments::parse();
    let listener = TcpListener::bind((host, port))?;
    listener.set_nonblocking(true)?;
    println!("listening on {}", listener.local_addr()?);
    let poller: &'static Poller = Box::leak(Box::new(Poller::new()?));
    let listener = Registration::new(poller, listener, Event::readable(0))?;
    let (mut clients, mut events, mut last_key) = (HashMap::new(), Events::new(), 0);
    loop {
        events.clear();
        poller.wait(&mut events, None)?;
        for key in events.iter().map(|event| event.key).filter(|key| *key > 0) {
            let Some((stream, conversation)) = clients.get_mut(&key) else { continue };
            if !handle_ready(Registration::source(stream), conversation).unwrap_or(false) {
                clients.remove(&key);
            }
        }
        if events.iter().any(|event| event.key == 0) {
            match listener.source().accept() {
                Ok((stream, _)) => {
                    last_key += 1;
                    let stream = Registration::new(poller, stream, Event::readable(last_key))?;
                    clients.insert(last_key, (stream, Conversation::new(Timeouts::NEVER, Instant::now())));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => continue, // BUG: the listener is still ready, so the loop spins. Fix: back off.
            }
        }
    }
}

/// Reads once, answers, and returns whether the connection stays open.
///
/// The caller closes the connection without lingering, which is another fault: see `hasty_close` of zen-single.
fn handle_ready(mut stream: &TcpStream, conversation: &mut Conversation) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    match stream.read(&mut buffer)? {
        0 => conversation.received_eof(),
        n => {
            let (mut input, now) = (&buffer[..n], Instant::now());
            while let Some(question) = conversation.next_question(&mut input, now) {
                let answer = answer_to(question);
                conversation.answer(Some(answer));
            }
        }
    }
    while conversation.wants() == Want::Write {
        let n = stream.write(conversation.outgoing())?; // this may block, which is another fault
        conversation.sent(n, Instant::now());
    }
    Ok(conversation.wants() == Want::Read)
}
