//! Faulty example: two readiness loops share one listener, and the listener is a blocking one.
//!
//! **The fault.** A client connects, and the listener becomes ready in both loops. Each loop serves its ready clients
//! first. Then one loop accepts the client. The other calls `accept` a moment later, when the backlog is empty again,
//! and sleeps in this call. Its clients receive no answers until another client connects. The listener was ready when
//! the kernel reported it, but no longer when `accept` was called.
//!
//! **History.** *Foundations of Python Network Programming* calls multiplexing "asynchronous blocking", because it
//! blocks in `poll` and nowhere else. This is true only if all descriptors are non-blocking.
//!
//! **See it.**
//!
//! ```console
//! $ cargo run -p zen-poll --example blocking_listener
//! $ cargo xtask lab blocking-fd
//! ```
//!
//! **The fix.** A non-blocking listener (`Waiting::ForReadiness` in `src/main.rs`), and calls of `accept` until it
//! would block (`src/acceptor.rs`). In the server, moreover, only one loop has the listener.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use polling::{Event, Events, Poller};
use zen_proto::{Answer, Conversation, Timeouts, Want, answer_to};

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
    // BUG: blocking. Fix: set_nonblocking(true), and ignore the error `WouldBlock` of `accept`.
    let listener = TcpListener::bind((host, port))?;
    println!("listening on {}", listener.local_addr()?);
    let other = listener.try_clone()?;
    thread::Builder::new().name("loop-2".into()).spawn(|| serve(other))?;
    serve(listener)
}

fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let poller: &'static Poller = Box::leak(Box::new(Poller::new()?));
    let listener = Registration::new(poller, listener, Event::readable(0))?;
    let (mut clients, mut events, mut last_key) = (HashMap::new(), Events::new(), 0);
    loop {
        events.clear();
        poller.wait(&mut events, None)?; // the thread should sleep here and nowhere else
        for key in events.iter().map(|event| event.key).filter(|key| *key > 0) {
            let Some((stream, conversation)) = clients.get_mut(&key) else { continue };
            if !handle_ready(Registration::source(stream), conversation).unwrap_or(false) {
                clients.remove(&key);
            }
        }
        if events.iter().any(|event| event.key == 0) {
            // BUG: if the other loop has already accepted the client, this one sleeps here, and its clients wait.
            let (stream, _) = listener.source().accept()?;
            last_key += 1;
            let stream = Registration::new(poller, stream, Event::readable(last_key))?;
            clients.insert(last_key, (stream, Conversation::new(Timeouts::NEVER, Instant::now())));
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
                let answer = slow_answer(question);
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

/// Returns the answer after 5 ms of simulated work, which is long enough for the other loop to wake.
fn slow_answer(question: &[u8]) -> Answer {
    thread::sleep(Duration::from_millis(5));
    answer_to(question)
}
