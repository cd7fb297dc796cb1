//! Faulty example: a server that keeps a copy of every connection and never drops it.
//!
//! **The fault.** The server adds a copy of each stream to a list, for a broadcast to all clients. The copy
//! (`try_clone`) is a second descriptor of the same socket. Nothing removes it when the client disconnects. The thread
//! closes its own descriptor, but the copy keeps the socket open, in CLOSE_WAIT. One such socket remains for each
//! former client. When descriptors run out, `accept` or `try_clone` fails, and the server ends.
//!
//! **History.** This is a common cause of `CLOSE_WAIT` in production, in any language: a session table, a broadcast
//! list, or a pool from which nothing is removed. The kernel has no timeout for this state, because only the
//! program knows whether it has more to send.
//!
//! **See it.** While the load runs, `ss -tn state close-wait` lists the sockets.
//!
//! ```console
//! $ cargo run -p zen-threaded --example forgets_to_close
//! $ cargo run -p zen-client -- load --churn -d 1s
//! $ cargo xtask lab close-wait
//! ```
//!
//! **The fix.** One owner. In `src/per_connection.rs` the client's thread takes the stream out of the slot that it
//! shares with the acceptor, so the socket is closed when the thread returns. A server that needs a list of clients
//! removes the entry at that point.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
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

static CLIENTS: Mutex<Vec<TcpStream>> = Mutex::new(Vec::new());

fn main() -> anyhow::Result<()> {
    let Arguments { host, port } = Arguments::parse();
    let listener = TcpListener::bind((host, port))?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept()?;
        // BUG: nothing ever removes the copy. Fix: remove it when `converse` returns, or keep no copy.
        CLIENTS.lock().unwrap_or_else(PoisonError::into_inner).push(stream.try_clone()?);
        thread::spawn(move || converse(&stream));
    }
}

fn converse(mut stream: &TcpStream) -> io::Result<()> {
    let mut conversation = Conversation::new(Timeouts::NEVER, Instant::now());
    let mut chunk = [0; 4096];
    loop {
        match conversation.wants() {
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
