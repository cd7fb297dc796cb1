//! Faulty example: a readiness loop that uses descriptors as keys, and cleans up after a client one iteration late.
//!
//! **The fault.** The loop closes a client's socket immediately but removes its entries only after the next wait.
//! Meanwhile the kernel gives a new client the lowest free descriptor number, which is the number that was just
//! closed. The late cleanup then removes the entries of the new client. That client is disconnected without an answer.
//!
//! **History.** `srv_async` of *Foundations of Python Network Programming* closes a client that has disconnected,
//! and removes its entries when `poll` reports the closed number. `poll` reports the listener first, because it was
//! registered first. So when the closed number is reported, a new client may already have it.
//!
//! **See it.** Three clients that repeatedly connect, ask and disconnect are enough:
//!
//! ```console
//! $ cargo run -p zen-poll --example stale_key
//! $ cargo run -p zen-client -- load --churn -c 3
//! $ cargo xtask lab stale-key
//! ```
//!
//! **The fix.** Keys with a generation (`Client::key` in `src/event_loop.rs`), and a cleanup when the socket is closed.
//! `examples/raw.rs` never uses a key twice.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
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
    println!("listening on {}", listener.local_addr()?);
    let poller: &'static Poller = Box::leak(Box::new(Poller::new()?));
    let listener = Registration::new(poller, listener, Event::readable(0))?;
    // The numbers of the closed sockets. The book's loop learns them from poll(), which reports a closed descriptor
    // with POLLNVAL. epoll removes a closed descriptor without a report, so this loop stores the numbers itself.
    let mut closed = Vec::new();
    let (mut streams, mut conversations, mut events) = (HashMap::new(), HashMap::new(), Events::new());
    loop {
        events.clear();
        poller.wait(&mut events, None)?;
        if events.iter().any(|event| event.key == 0) {
            let (stream, _) = listener.source().accept()?;
            let number = stream.as_raw_fd() as usize; // BUG: the kernel soon gives this number to another client
            streams.insert(number, Registration::new(poller, stream, Event::readable(number))?);
            conversations.insert(number, Conversation::new(Timeouts::NEVER, Instant::now()));
        }
        // BUG: the number may belong to a new client by now. Fix: remove the entries when the socket is closed.
        for number in closed.drain(..) {
            streams.remove(&number);
            conversations.remove(&number);
        }
        for number in events.iter().map(|event| event.key).filter(|number| *number > 0) {
            let Some((stream, conversation)) = streams.get(&number).zip(conversations.get_mut(&number)) else {
                continue;
            };
            if !handle_ready(stream.source(), conversation).unwrap_or(false) {
                streams.remove(&number); // this closes the socket
                closed.push(number);
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
