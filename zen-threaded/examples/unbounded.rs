//! Faulty example: a thread for each connection, as many as come, for as long as they stay.
//!
//! **The fault.** Every silent client holds a thread, its stack and a descriptor, and nothing says how many of them there may
//! be, nor for how long. A few thousand connections from one machine, which cost it next to nothing, end the
//! service for everyone.
//!
//! **History.** `ThreadingMixIn` of Python's `socketserver`, as *Foundations of Python Network Programming* shows it. The book
//! concludes that the architecture is unfit for use; it is only this version that is.
//!
//! **See it.** `ps -C unbounded -o nlwp` counts its threads meanwhile.
//!
//! ```console
//! $ cargo run -p zen-threaded --example unbounded
//! $ cargo run -p zen-client -- load --idle 200
//! $ cargo xtask lab unbounded
//! ```
//!
//! **The fix.** A bound *and* a time-out: `src/per_connection.rs`, whose `accept` turns clients over `--max-connections` away and
//! whose threads have small stacks; and `--idle-timeout`, which the conversation that `src/converse.rs` drives keeps.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
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
        let (stream, _) = listener.accept()?;
        // Here: one more, whoever it is and however many there are. When the system has no more threads this panics.
        thread::spawn(move || converse(&stream));
    }
}

fn converse(mut stream: &TcpStream) -> io::Result<()> {
    let mut conversation = Conversation::new(Timeouts::NEVER, Instant::now());
    let mut chunk = [0; 4096];
    loop {
        match conversation.wants() {
            // read() sleeps here until the client speaks, if it takes a year.
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
