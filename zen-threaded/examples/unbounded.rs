//! Faulty example: a thread for each connection, with no limit on their number and no timeout.
//!
//! **The fault.** Every silent client holds a thread, its stack and a descriptor. Nothing limits the number of clients
//! or the time that each may stay silent. One machine can open a few thousand connections at almost no cost. When
//! descriptors or threads run out, the server ends, and all clients are disconnected.
//!
//! **History.** `ThreadingMixIn` of Python's `socketserver` does this, and *Foundations of Python Network Programming*
//! shows it. The book concludes that a thread for each connection is unfit for use. This is true only without limits.
//!
//! **See it.** While the clients are connected, `ps -C unbounded -o nlwp` counts the threads.
//!
//! ```console
//! $ cargo run -p zen-threaded --example unbounded
//! $ cargo run -p zen-client -- load --idle 200
//! $ cargo xtask lab unbounded
//! ```
//!
//! **The fix.** A limit *and* a timeout. In `src/per_connection.rs`, `accept` rejects clients over
//! `--max-connections`, and the threads have small stacks. In `src/converse.rs`, the conversation enforces
//! `--idle-timeout`.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use clap::Parser;
use zen_proto::{Conversation, Timeouts, Want, answer_to};

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
    loop {
        let (stream, _) = listener.accept()?;
        // BUG: nothing limits the threads. `spawn` panics when it can start no more. Fix: reject clients over a limit.
        thread::spawn(move || converse(&stream));
    }
}

fn converse(mut stream: &TcpStream) -> io::Result<()> {
    let mut conversation = Conversation::new(Timeouts::NEVER, Instant::now());
    let mut chunk = [0; 4096];
    loop {
        match conversation.wants() {
            // BUG: read() sleeps here without a timeout while the client is silent. Fix: `--idle-timeout`.
            Want::Read => match stream.read(&mut chunk)? {
                0 => conversation.received_eof(),
                n => {
                    let (mut input, now) = (&chunk[..n], Instant::now());
                    while let Some(question) = conversation.next_question(&mut input, now) {
                        let answer = answer_to(question);
                        conversation.answer(Some(answer));
                    }
                }
            },
            Want::Write => {
                let n = stream.write(conversation.outgoing())?;
                conversation.sent(n, Instant::now());
            }
            Want::EndSending => {
                stream.shutdown(std::net::Shutdown::Write)?;
                conversation.ended_sending(Instant::now());
            }
            Want::Close | Want::Reset => return Ok(()),
        }
    }
}
