//! Faulty example: an edge-triggered loop that reads once for each event.
//!
//! **The fault.** In edge mode the kernel reports that bytes arrived, not that bytes are there. If one read does not
//! take all bytes, the rest of the question stays in the kernel, which does not report it again. The server waits for
//! an event, and the client receives no answer.
//!
//! **History.** A loop in level mode gets this fault when `EPOLLET` is added and nothing else is changed. epoll(7)
//! warns of it. With a large buffer the fault stays hidden until a client sends more than fits. Here the buffer is
//! small.
//!
//! **See it.** The client's questions have at least 22 bytes, and the buffer has 16. The client receives no answer from
//! `half_drained`. It receives one from `edge`, which reads until the call would block:
//!
//! ```console
//! $ cargo run -p zen-poll --example half_drained
//! $ cargo run -p zen-client -- -n 1 --timeout 1s
//! ```
//!
//! **The fix.** Read until `WouldBlock`, with a limit for each turn: `Client::take_turn` in `edge.rs`. Or use level
//! mode, as `src/event_loop.rs` does.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use clap::Parser;
use polling::{Event, Events, PollMode, Poller};
use zen_proto::{Conversation, Timeouts, Want, answer_to};

#[path = "../src/registration.rs"]
#[expect(dead_code, reason = "`modify` sets level mode, and this example needs edge mode")]
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
    let (mut clients, mut events, mut last_key) = (HashMap::new(), Events::new(), 0);
    loop {
        events.clear();
        poller.wait(&mut events, None)?;
        for event in events.iter() {
            if event.key == 0 {
                let (stream, _) = listener.source().accept()?;
                last_key += 1;
                let stream = Registration::new(poller, stream, Event::none(last_key))?;
                poller.modify_with_mode(stream.source(), Event::readable(last_key), PollMode::Edge)?;
                clients.insert(last_key, (stream, Conversation::new(Timeouts::NEVER, Instant::now())));
            } else if let Some((stream, conversation)) = clients.get_mut(&event.key) {
                if !handle_ready(stream.source(), conversation).unwrap_or(false) {
                    clients.remove(&event.key);
                }
            }
        }
    }
}

/// Reads once, answers, and returns whether the connection stays open.
///
/// The caller closes the connection without lingering, which is another fault: see `hasty_close` of zen-single.
fn handle_ready(mut stream: &TcpStream, conversation: &mut Conversation) -> io::Result<bool> {
    let mut buffer = [0; 16];
    // BUG: one read for each event. The kernel does not report again what does not fit into the buffer.
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
