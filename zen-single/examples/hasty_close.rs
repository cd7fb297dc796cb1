//! Faulty example: a client is told that its question is too long, and the connection closed at once. One thread, one client at
//! a time.
//!
//! **The fault.** `send` has only handed the answers to the kernel. A `close` while bytes of the client are still unread makes
//! the kernel reset the connection and forget what it had yet to deliver: the client loses the error, and answers
//! before it.
//!
//! **History.** `sendall` followed by `close` is how the servers of *Foundations of Python Network Programming* part, as
//! nearly every example does. With a client that sends no more than it should nothing is ever lost.
//!
//! **See it.**
//!
//! ```console
//! $ cargo run -p zen-single --example hasty_close
//! $ cargo run -p zen-client -- check too-long-keeps-coming
//! $ cargo xtask lab lost-answer
//! ```
//!
//! **The fix.** The lingering close: end the sending side, read what still comes and throw it away, then close.
//! `Want::EndSending` in `src/serve.rs`, and what follows it in `zen-proto/src/conversation.rs`.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use clap::Parser;
use zen_proto::{Conversation, Timeouts, Want, answer_to};

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
    loop {
        let _ = listener.accept().and_then(|(stream, _)| converse(&stream));
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
            // Here: all has been sent, so it is over, is it not?
            Want::EndSending | Want::Close | Want::Reset => return Ok(()),
        }
    }
}
