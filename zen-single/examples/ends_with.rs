//! Faulty example: when a read ends in `?`, the server treats all bytes received so far as one question. One thread
//! serves one client at a time.
//!
//! **The fault.** TCP carries a stream of bytes without boundaries, so a read may end anywhere.
//!
//! - Two questions that arrive together also end in `?`. The server treats them as one unknown question, and the
//!   client receives one error message instead of two answers.
//! - Input with a newline after the `?` does not end in `?`. The server waits for more, and the client for its answer.
//! - A client that never sends a `?` fills the memory of the server.
//!
//! **History.** The receiving loop of *Foundations of Python Network Programming* stops at a suffix in this way. It
//! works for a client that waits for each answer, so it works in every demonstration.
//!
//! **See it.**
//!
//! ```console
//! $ cargo run -p zen-single --example ends_with
//! $ cargo run -p zen-client -- check --timeout 500ms
//! $ cargo xtask lab ends-with
//! ```
//!
//! **The fix.** Look for the *first* `?`, keep the bytes after it, and limit the length. `Framing` in
//! `zen-proto/src/framing.rs` does this, and `src/serve.rs` uses it through `next_question`.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use clap::Parser;
use zen_proto::answer_to;

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
        // accept() sleeps until a client connects. An error of one client does not affect the next.
        let _ = listener.accept().and_then(|(stream, _)| converse(&stream));
    }
}

fn converse(mut stream: &TcpStream) -> io::Result<()> {
    let (mut question, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        // BUG: the end of the received bytes is treated as the end of a question, and nothing limits its length.
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
