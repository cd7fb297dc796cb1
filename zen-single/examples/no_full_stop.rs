//! Faulty example: the answer to an unknown question has no full stop. One thread, one client at a time.
//!
//! **The fault.** A client knows an answer by the `.` at its end. The error lacks it: the client waits for the rest of its
//! answer, the server for the next question, each for the other, and no time-out of theirs is there to end it.
//!
//! **History.** The error text of the zen server in *Foundations of Python Network Programming*, as it was posted, ends
//! without one. Nobody saw it, since no client there asks anything unknown.
//!
//! **See it.** The judge names the rule that is broken:
//!
//! ```console
//! $ cargo run -p zen-single --example no_full_stop
//! $ cargo run -p zen-client -- check unknown-then-known
//! $ cargo xtask lab no-full-stop
//! ```
//!
//! **The fix.** `Answer::new` in `zen-proto/src/aphorisms.rs`: a constant text that does not end in its only full stop does
//! not compile. And `src/serve.rs` gives up on a client after a while.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use clap::Parser;
use zen_proto::{Frame, Framing, QuestionTooLong, UNKNOWN, answer_to};

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
    let (mut framing, mut question, mut chunk) = (Framing::default(), Vec::new(), [0; 4096]);
    loop {
        let n = stream.read(&mut chunk)?;
        if n == 0 {
            return Ok(());
        }
        let (mut bytes, mut answers) = (&chunk[..n], Vec::new());
        while let Some(frame) = framing.next(&mut bytes) {
            match frame {
                Ok(Frame::Data(data)) => question.extend_from_slice(data),
                Ok(Frame::Last(data)) => {
                    question.extend_from_slice(data);
                    answers.extend_from_slice(&answer(&question));
                    question.clear();
                }
                Err(QuestionTooLong) => return stream.write_all(b"Error: question too long"), // here too
            }
        }
        stream.write_all(&answers)?;
    }
}

/// The right answer, unless it is an error.
fn answer(question: &[u8]) -> Vec<u8> {
    let mut answer = answer_to(question).as_bytes().to_vec();
    if answer == UNKNOWN.as_bytes() {
        answer.pop(); // here
    }
    answer
}
