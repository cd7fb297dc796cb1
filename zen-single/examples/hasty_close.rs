//! Faulty example: the server reports a question that is too long, and closes immediately. One thread serves one client
//! at a time.
//!
//! **The fault.** `send` only hands the answers to the kernel. When the server closes while bytes of the client are
//! still unread, the kernel resets the connection and discards what it has not delivered yet. The client sees a reset.
//! It loses the error message, and perhaps answers before it.
//!
//! **History.** The servers of *Foundations of Python Network Programming* end with `sendall` followed by `close`, as
//! nearly every example does. Nothing is lost as long as no client sends more than the server reads.
//!
//! **See it.**
//!
//! ```console
//! $ cargo run -p zen-single --example hasty_close
//! $ cargo run -p zen-client -- check too-long-keeps-coming
//! $ cargo xtask lab lost-answer
//! ```
//!
//! **The fix.** A lingering close: end the sending side, read and discard what still arrives, then close. See
//! `Want::EndSending` in `src/serve.rs`, and the states after it in `zen-proto/src/conversation.rs`.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
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
            // BUG: unread bytes may remain, so the kernel resets. Fix: shut down sending, read on, then close.
            Want::EndSending | Want::Close | Want::Reset => return Ok(()),
        }
    }
}
