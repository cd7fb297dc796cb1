//! Faulty example: a readiness loop that knows its clients by their descriptors, and clears up after one when it wakes next.
//!
//! **The fault.** The kernel gives a new client the lowest free number, which is that of the one who has just gone. The clearing
//! up that is still due to the old owner then hits the new one: he is thrown out before he is answered.
//!
//! **History.** `srv_async_poll` of *Foundations of Python Network Programming* closes a client that has gone, and waits for `poll` to
//! report the dead number before it forgets him. The listener, with the lowest number of all, is reported first, and its new
//! client takes the place.
//!
//! **See it.** Three clients that come, ask and leave, again and again, are enough:
//!
//! ```console
//! $ cargo run -p zen-poll --example stale_key
//! $ cargo run -p zen-client -- load --churn -c 3
//! $ cargo xtask lab stale-key
//! ```
//!
//! **The fix.** Keys with a generation: `Client::key` in `src/event_loop.rs`; and a client's end is its end there, at once.
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
    println!("listening on {}", listener.local_addr()?);
    let poller: &'static Poller = Box::leak(Box::new(Poller::new()?));
    let listener = Registration::new(poller, listener, Event::readable(0))?;
    // What poll() would report as POLLNVAL. epoll forgets a descriptor that is closed, so the loop keeps the number.
    let mut closed = Vec::new();
    let (mut streams, mut conversations, mut events) = (HashMap::new(), HashMap::new(), Events::new());
    loop {
        events.clear();
        poller.wait(&mut events, None)?;
        if events.iter().any(|event| event.key == 0) {
            let (stream, _) = listener.source().accept()?;
            let number = stream.as_raw_fd() as usize; // here: the key is a number that is soon somebody else's
            streams.insert(number, Registration::new(poller, stream, Event::readable(number))?);
            conversations.insert(number, Conversation::new(Timeouts::NEVER, Instant::now()));
        }
        // And here: who has closed[0] now?
        for number in closed.drain(..) {
            streams.remove(&number);
            conversations.remove(&number);
        }
        for number in events.iter().map(|event| event.key).filter(|number| *number > 0) {
            let Some((stream, conversation)) = streams.get(&number).zip(conversations.get_mut(&number)) else {
                continue;
            };
            if !turn(stream.source(), conversation).unwrap_or(false) {
                streams.remove(&number); // this closes it
                closed.push(number);
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
