//! Faulty example: a readiness loop that shrugs when `accept` fails.
//!
//! **The fault.** With no descriptor left `accept` fails, and the client stays where it is: in the backlog. The listener is as ready
//! as before, so the next wait returns at once, and `accept` fails again: a processor is burnt for as long as the
//! descriptors are short, and a log would fill the disk.
//!
//! **History.** Older than the ancestor: libev's manual warns of it, nginx leaves its listeners alone for half a second. The loop of
//! *Foundations of Python Network Programming* does not catch the error, and ends when it first occurs.
//!
//! **See it.** 20 descriptors are soon used up; then `top` shows who is busy, with no client saying anything.
//!
//! ```console
//! $ cargo build -p zen-poll --example accept_spin
//! $ prlimit --nofile=20 target/debug/examples/accept_spin
//! $ cargo run -p zen-client -- load --idle 50
//! $ cargo xtask lab emfile
//! ```
//!
//! **The fix.** Leave the listener alone for 100 ms: `back_off` in `src/acceptor.rs`.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use clap::Parser;
use polling::{Event, Events, Poller};
use zen_proto::{Conversation, Timeouts, Want, answer_to};

#[path = "../src/registration.rs"]
#[expect(dead_code, reason = "nobody here changes an interest")]
mod registration;
use registration::Registration;

/// `[HOST] [-p PORT]`, as every server has them.
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
            if !turn(Registration::source(stream), conversation).unwrap_or(false) {
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
                Err(_) => continue, // here: it will do better next time, and the next time is now
            }
        }
    }
}

/// Reads once and answers. False: the client has gone, or is let go in haste (another fault: zen-single's `hasty_close`).
fn turn(mut stream: &TcpStream, conversation: &mut Conversation) -> io::Result<bool> {
    let mut chunk = [0; 4096];
    match stream.read(&mut chunk)? {
        0 => conversation.received_eof(),
        n => {
            let (mut input, now) = (&chunk[..n], Instant::now());
            while let Some(question) = conversation.next_question(&mut input, now) {
                let answer = answer_to(question);
                conversation.answer(Some(answer));
            }
        }
    }
    while conversation.wants() == Want::Write {
        let n = stream.write(conversation.outgoing())?; // it may block, which is another fault
        conversation.sent(n, Instant::now());
    }
    Ok(conversation.wants() == Want::Read)
}
