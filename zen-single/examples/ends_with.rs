//! Faulty example: a question is whatever has been read when the last byte is a `?`. One thread, one client at a time.
//!
//! **The fault.** TCP carries bytes and no questions. Two questions that arrive together end in `?` as well, and are taken for
//! one that nobody knows; a question with a newline behind it does not end in `?`, and the reader waits for ever; a client
//! that never sends a `?` fills the memory.
//!
//! **History.** The receiving loop of *Foundations of Python Network Programming* stops at a suffix in this way. It works
//! for a client that waits for each answer, and so it works in every demonstration.
//!
//! **See it.**
//!
//! ```console
//! $ cargo run -p zen-single --example ends_with
//! $ cargo run -p zen-client -- check --timeout 500ms
//! $ cargo xtask lab ends-with
//! ```
//!
//! **The fix.** Look for the *first* `?`, keep what follows it, and count: `Framing` in `zen-proto/src/framing.rs`, which
//! `zen-single/src/serve.rs` drives.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use clap::Parser;
use zen_proto::answer_to;

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
        // accept() sleeps until a client comes; what goes wrong with one is no matter for the next.
        let _ = listener.accept().and_then(|(stream, _)| converse(&stream));
    }
}

fn converse(mut stream: &TcpStream) -> io::Result<()> {
    let (mut question, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        // Here: the end of what has come is taken for the end of a question, and nothing bounds what comes before.
        while !question.ends_with(b"?") {
            match stream.read(&mut chunk)? {
                0 => return Ok(()),
                n => question.extend_from_slice(&chunk[..n]),
            }
        }
        stream.write_all(answer_to(&question).as_bytes())?;
        question.clear();
    }
}
